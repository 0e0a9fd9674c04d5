/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole forward pass with 1 to 64 threads, more than there are processors, and with the process
 * bound to one processor, weights packed or not: the same bits. Like test_kernels a plain program
 * of native and base.
 *
 * usage: test_threads [SET [rounded|bytes]], the best when none is named; 77 when the processor
 * does not have it
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "native/native.h"

enum {
    VOCAB = 203,
    HIDDEN = 96,
    INTERMEDIATE = 160,
    LAYERS = 2,
    HEADS = 6,
    KV_HEADS = 2,
    HEAD_DIM = 32,
    PROMPT = 29,
    STEPS = 6,
    ROOM = 64,
    MOST_THREADS = 64
};

/* What is compared: the logits of the prompt and the greedy tokens after it. */
typedef struct answer {
    float logits[PROMPT * VOCAB];
    int32_t ids[STEPS];
} answer;

typedef struct made_up {
    myelin_config config;
    myelin_weights weights;
    myelin_layer_weights layers[LAYERS];
} made_up;

static const myelin_plugin *tested;

static _Noreturn void fail(const char *what, const char *text) {
    printf("%s: %s\n", what, text);
    exit(1);
}

static myelin_tensor tensor(int32_t rows, int32_t columns, int32_t bits) {
    myelin_tensor t = {
        .dtype = MYELIN_DTYPE_BF16, .rank = columns ? 2 : 1, .shape = {rows, columns}};
    if (bits && columns) {
        t.dtype = MYELIN_DTYPE_AFFINE;
        t.bits = bits;
        t.group_size = 32;
        t.scale_dtype = MYELIN_DTYPE_BF16;
    }
    return t;
}

static void describe(made_up *m, int32_t bits) {
    memset(m, 0, sizeof *m);
    m->config = (myelin_config){.vocab_size = VOCAB,
                                .hidden_size = HIDDEN,
                                .intermediate_size = INTERMEDIATE,
                                .num_hidden_layers = LAYERS,
                                .num_attention_heads = HEADS,
                                .num_key_value_heads = KV_HEADS,
                                .head_dim = HEAD_DIM,
                                .max_position_embeddings = 1024,
                                .torch_dtype = MYELIN_DTYPE_BF16,
                                .rms_norm_eps = 1e-6,
                                .rope = {.theta = 1e4, .factor = 1, .attention_factor = 1}};
    m->weights = (myelin_weights){.embed_tokens = tensor(VOCAB, HIDDEN, bits),
                                  .norm = tensor(HIDDEN, 0, 0),
                                  .lm_head = tensor(VOCAB, HIDDEN, bits),
                                  .num_layers = LAYERS,
                                  .layers = m->layers};
    for (int l = 0; l < LAYERS; l++)
        m->layers[l] = (myelin_layer_weights){.input_layernorm = tensor(HIDDEN, 0, 0),
                                              .q_proj = tensor(HEADS * HEAD_DIM, HIDDEN, bits),
                                              .k_proj = tensor(KV_HEADS * HEAD_DIM, HIDDEN, bits),
                                              .v_proj = tensor(KV_HEADS * HEAD_DIM, HIDDEN, bits),
                                              .q_norm = tensor(HEAD_DIM, 0, 0),
                                              .k_norm = tensor(HEAD_DIM, 0, 0),
                                              .o_proj = tensor(HIDDEN, HEADS * HEAD_DIM, bits),
                                              .post_attention_layernorm = tensor(HIDDEN, 0, 0),
                                              .gate_proj = tensor(INTERMEDIATE, HIDDEN, bits),
                                              .up_proj = tensor(INTERMEDIATE, HIDDEN, bits),
                                              .down_proj = tensor(HIDDEN, INTERMEDIATE, bits)};
}

static uint32_t mix(uint64_t x) {
    x = (x ^ x >> 31) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
    return (uint32_t)(x >> 32);
}

/* Numbers that depend on the tensor and the place in it alone: codes, or bfloat16 below 0.5. */
static myelin_status read_part(void *self, const myelin_tensor *t, myelin_tensor_part part,
                               int64_t row, int64_t count, void *dst, myelin_error_buffer *error) {
    (void)error;
    uint64_t which = (uint64_t)((const char *)t - (const char *)self) * 4 + (uint64_t)part;
    int64_t columns = t->rank == 2 ? t->shape[1] : 1;
    if (t->dtype == MYELIN_DTYPE_AFFINE && part == MYELIN_PART_DATA) {
        int64_t bytes = columns * t->bits / 8;
        for (int64_t i = 0; i < count * bytes; i++)
            ((unsigned char *)dst)[i] =
                (unsigned char)mix(which << 32 | (uint64_t)(row * bytes + i));
        return MYELIN_OK;
    }
    if (t->dtype == MYELIN_DTYPE_AFFINE)
        columns /= t->group_size;
    for (int64_t i = 0; i < count * columns; i++) {
        float x = (float)(int32_t)mix(which << 32 | (uint64_t)(row * columns + i)) * 0x1p-32f;
        x *= t->dtype == MYELIN_DTYPE_AFFINE ? 0.02f : 1.0f;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        uint16_t upper = (uint16_t)(bits >> 16);
        memcpy((char *)dst + 2 * i, &upper, sizeof upper);
    }
    return MYELIN_OK;
}

static void one_by_one(void *self, int64_t count, myelin_task task, void *context) {
    (void)self;
    for (int64_t i = 0; i < count; i++)
        task(context, i);
}

static void compute(const myelin_plugin_model *model, answer *to) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_sequence *sequence;
    myelin_plugin_context *context;
    int32_t ids[PROMPT];
    for (int32_t i = 0; i < PROMPT; i++)
        ids[i] = i * 37 % VOCAB;
    if (tested->create_sequence(model, ROOM, &sequence, &error) != MYELIN_OK ||
        tested->create_context(model, PROMPT, ROOM, &context, &error) != MYELIN_OK)
        fail("a sequence and its context", text);
    myelin_span span = {sequence, ids, PROMPT, PROMPT, to->logits};
    if (tested->forward(context, &span, 1, &error) != MYELIN_OK ||
        tested->decode_greedy(context, &sequence, ids, 1, STEPS, to->ids, &error) != MYELIN_OK)
        fail("computing", text);
    tested->free_context(context);
    tested->free_sequence(sequence);
}

static int32_t activations = MYELIN_ACTIVATIONS_AUTO;

static void answer_with(answer *to, made_up *m, int32_t threads, myelin_pack pack) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_host host = {.struct_size = sizeof host,
                        .num_threads = threads,
                        .self = m,
                        .read = read_part,
                        .parallel_for = one_by_one};
    myelin_model_description description = {.struct_size = sizeof description,
                                            .config = &m->config,
                                            .weights = &m->weights,
                                            .pack = (int32_t)pack,
                                            .activations = activations};
    myelin_plugin_model *model;
    if (tested->load(&description, &host, &model, &error) != MYELIN_OK)
        fail("loading", text);
    compute(model, to);
    tested->free_model(model);
}

/* Numbers, and not the same one everywhere: or equal answers would say nothing. */
static void check_sense(const answer *a) {
    int differ = 0;
    for (int i = 0; i < PROMPT * VOCAB; i++) {
        if (!(a->logits[i] > -1e6f && a->logits[i] < 1e6f))
            fail("the logits", "not all of them are numbers");
        differ += a->logits[i] != a->logits[0];
    }
    if (differ < PROMPT * VOCAB / 2)
        fail("the logits", "most are the same");
}

static void check_threads(made_up *m, const answer *expected, int32_t threads) {
    static answer found;
    answer_with(&found, m, threads, threads % 2 == 0 ? MYELIN_PACK_LOSSLESS : MYELIN_PACK_NONE);
    if (memcmp(&found, expected, sizeof found) != 0) {
        char text[32];
        snprintf(text, sizeof text, "%d threads", (int)threads);
        fail(text, "other bits than one thread gives");
    }
}

/* In a child that may run on the first of its processors only. */
static void check_bound(made_up *m, const answer *expected) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        cpu_set_t may, one;
        CPU_ZERO(&one);
        if (sched_getaffinity(0, sizeof may, &may) != 0)
            _exit(77);
        for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
            if (CPU_ISSET(cpu, &may))
                CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof one, &one) != 0)
            _exit(77);
        check_threads(m, expected, 1);
        check_threads(m, expected, 4);
        _exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        fail("a child", "it did not end by itself");
    if (WEXITSTATUS(status) == 77)
        printf("not tested on one processor: the system does not bind to one\n");
    else if (WEXITSTATUS(status) != 0)
        fail("on one processor", "it failed");
}

int main(int argc, char **argv) {
    static const int32_t threads[] = {2, 3, 5, 8, 16, 33, MOST_THREADS};
    static made_up m;
    static answer expected;
    tested = argc > 1 ? mln_native_plugin_for(argv[1]) : mln_native_plugin();
    if (!tested)
        return 77;
    if (argc > 2 && !strcmp(argv[2], "rounded"))
        activations = MYELIN_ACTIVATIONS_BF16;
    if (argc > 2 && !strcmp(argv[2], "bytes"))
        activations = MYELIN_ACTIVATIONS_INT8;
    for (int32_t bits = 0; bits <= 8; bits += 4) {
        describe(&m, bits);
        answer_with(&expected, &m, 1, MYELIN_PACK_NONE);
        check_sense(&expected);
        check_bound(&m, &expected);
        for (size_t i = 0; i < sizeof threads / sizeof *threads; i++)
            check_threads(&m, &expected, threads[i]);
    }
    return 0;
}
