/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a model is packed when that is left to the plug-in, and how it is fetched: kernels made
 * slow for one kind of panels, or one way, must lead to the other, small models are left alone, and
 * what is asked for is done.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "native/native.h"
#include "native/qwen3_cpu/internal.h"

enum { HIDDEN = 512, VOCAB = 140 * 1024, SMALL_VOCAB = 1024, HEAD_DIM = 64, LAYERS = 1 };

typedef struct fake_model {
    myelin_config config;
    myelin_weights weights;
    myelin_layer_weights layer;
    int reads_until_failure; /* 0: none fails */
} fake_model;

static myelin_tensor tensor(int64_t rows, int64_t columns) {
    return (myelin_tensor){.dtype = MYELIN_DTYPE_BF16,
                           .rank = columns > 0 ? 2 : 1,
                           .shape = {rows, columns > 0 ? columns : 0}};
}

static void describe(fake_model *m, int64_t vocab) {
    *m = (fake_model){.config = {.vocab_size = (int32_t)vocab,
                                 .hidden_size = HIDDEN,
                                 .intermediate_size = HIDDEN,
                                 .num_hidden_layers = LAYERS,
                                 .num_attention_heads = HIDDEN / HEAD_DIM,
                                 .num_key_value_heads = 1,
                                 .head_dim = HEAD_DIM,
                                 .max_position_embeddings = 64,
                                 .torch_dtype = MYELIN_DTYPE_BF16,
                                 .tie_word_embeddings = 1,
                                 .rms_norm_eps = 1e-6,
                                 .rope = {.theta = 1e4, .factor = 1, .attention_factor = 1}},
                      .layer = {.input_layernorm = tensor(HIDDEN, 0),
                                .q_proj = tensor(HIDDEN, HIDDEN),
                                .k_proj = tensor(HEAD_DIM, HIDDEN),
                                .v_proj = tensor(HEAD_DIM, HIDDEN),
                                .q_norm = tensor(HEAD_DIM, 0),
                                .k_norm = tensor(HEAD_DIM, 0),
                                .o_proj = tensor(HIDDEN, HIDDEN),
                                .post_attention_layernorm = tensor(HIDDEN, 0),
                                .gate_proj = tensor(HIDDEN, HIDDEN),
                                .up_proj = tensor(HIDDEN, HIDDEN),
                                .down_proj = tensor(HIDDEN, HIDDEN)}};
    m->weights = (myelin_weights){.embed_tokens = tensor(vocab, HIDDEN),
                                  .norm = tensor(HIDDEN, 0),
                                  .num_layers = LAYERS,
                                  .layers = &m->layer};
    m->weights.lm_head = m->weights.embed_tokens;
}

/* 1.0, -0.5 and their like everywhere: what is read is not the point. */
static myelin_status read_part(void *self, const myelin_tensor *t, myelin_tensor_part part,
                               int64_t row, int64_t count, void *dst, myelin_error_buffer *error) {
    static const uint16_t few[4] = {0x3f80, 0xbf00, 0x3e80, 0x3f00};
    fake_model *m = self;
    (void)part;
    (void)row;
    if (m->reads_until_failure > 0 && --m->reads_until_failure == 0) {
        strcpy(error->text, "no more of it");
        return MYELIN_ERROR_CANCELLED;
    }
    int64_t bytes = count * (t->rank == 2 ? t->shape[1] : 1) * 2;
    for (int64_t i = 0; i < bytes; i += (int64_t)sizeof few)
        memcpy((char *)dst + i, few, sizeof few);
    return MYELIN_OK;
}

static void one_by_one(void *self, int64_t count, myelin_task task, void *context) {
    (void)self;
    for (int64_t i = 0; i < count; i++)
        task(context, i);
}

/* --- kernels that take their time over one kind, or one way --- */

enum { SLOW_NEITHER, SLOW_CLOSE, SLOW_OTHERS };
static int32_t slow_kind, slow_way;
static int64_t num_panels, num_packed; /* computed, and of these packed; by one thread */
static bool close_found;

static void slow_panel(float *out, const mln_cpu_matrix *weight, int64_t panel, const void *block,
                       int32_t count) {
    const struct timespec moment = {.tv_nsec = 300 * 1000};
    bool close = weight->fetch[0] == MLN_CPU_FETCH_CLOSE;
    num_panels++;
    num_packed += weight->kind == MLN_CPU_BF16P;
    if (weight->kind == slow_kind || slow_way == (close ? SLOW_CLOSE : SLOW_OTHERS))
        nanosleep(&moment, NULL);
    mln_cpu_choose(NULL)->panel(out, weight, panel, block, count);
}

static myelin_status load(myelin_plugin_model **model, fake_model *m, myelin_pack pack,
                          int32_t slow) {
    static mln_cpu_kernels kernels;
    static char text[256];
    kernels = *mln_cpu_choose(NULL);
    kernels.panel = slow_panel;
    slow_kind = slow;
    num_panels = num_packed = 0;
    myelin_error_buffer error = {text, sizeof text};
    myelin_host host = {.struct_size = sizeof host,
                        .num_threads = 1,
                        .self = m,
                        .read = read_part,
                        .parallel_for = one_by_one};
    myelin_model_description description = {.struct_size = sizeof description,
                                            .config = &m->config,
                                            .weights = &m->weights,
                                            .pack = (int32_t)pack};
    return mln_cpu_load(&description, &host, &kernels, model, &error);
}

/* What a model loaded so says of itself; the bytes it holds must be those of its kind. */
static int32_t outcome(int64_t vocab, myelin_pack pack, int32_t slow) {
    fake_model m;
    myelin_plugin_model *model;
    int32_t found = MYELIN_PACK_AUTO;
    describe(&m, vocab);
    assert_int_equal(load(&model, &m, pack, slow), MYELIN_OK);
    uint64_t dense = (uint64_t)(vocab + 5 * HIDDEN + 2 * HEAD_DIM) * HIDDEN * 2;
    uint64_t held = mln_native_plugin()->weight_bytes(model, &found);
    assert_int_equal(model->embed_tokens.kind,
                     found == MYELIN_PACK_LOSSLESS ? MLN_CPU_BF16P : MLN_CPU_BF16);
    if (found == MYELIN_PACK_LOSSLESS)
        assert_in_range(held, dense * 3 / 4, dense * 4 / 5);
    else
        assert_in_range(held, dense, dense + dense / 16);
    close_found = model->embed_tokens.fetch[0] == MLN_CPU_FETCH_CLOSE;
    mln_cpu_free_model(model);
    return found;
}

static void decided_by_what_is_faster(void **state) {
    (void)state;
    if (outcome(VOCAB, MYELIN_PACK_AUTO, MLN_CPU_BF16) != MYELIN_PACK_LOSSLESS) {
        assert_int_equal(num_panels, 0); /* nothing is timed where panels stay in the caches */
        skip();
    }
    assert_true(num_panels > 0);
    assert_int_equal(outcome(VOCAB, MYELIN_PACK_AUTO, MLN_CPU_BF16P), MYELIN_PACK_NONE);
    assert_true(num_panels > 0);
}

static void wishes_are_kept(void **state) {
    (void)state;
    assert_int_equal(outcome(SMALL_VOCAB, MYELIN_PACK_LOSSLESS, MLN_CPU_BF16P),
                     MYELIN_PACK_LOSSLESS);
    assert_int_equal(num_panels, 0);
    assert_int_equal(outcome(VOCAB, MYELIN_PACK_NONE, MLN_CPU_BF16), MYELIN_PACK_NONE);
    assert_int_equal(num_packed, 0); /* dense ones are, in two ways */
}

static void fetched_as_is_faster(void **state) {
    (void)state;
    for (slow_way = SLOW_CLOSE; slow_way <= SLOW_OTHERS; slow_way++) {
        assert_int_equal(outcome(VOCAB, MYELIN_PACK_NONE, MLN_CPU_KINDS), MYELIN_PACK_NONE);
        if (num_panels == 0)
            break; /* nothing is timed where panels stay in the caches */
        assert_int_equal(close_found, slow_way == SLOW_OTHERS);
    }
    slow_way = SLOW_NEITHER;
}

static void small_models_stay(void **state) {
    (void)state;
    assert_int_equal(outcome(SMALL_VOCAB, MYELIN_PACK_AUTO, MLN_CPU_BF16), MYELIN_PACK_NONE);
    assert_int_equal(num_panels, 0);
}

/* Loading that ends while both kinds are read for the trial ends for good. */
static void ends_when_reading_fails(void **state) {
    (void)state;
    fake_model m;
    myelin_plugin_model *model;
    describe(&m, VOCAB);
    for (int reads = 1; reads < 200; reads = reads * 3 + 1) {
        m.reads_until_failure = reads;
        assert_int_equal(load(&model, &m, MYELIN_PACK_AUTO, MLN_CPU_BF16), MYELIN_ERROR_CANCELLED);
        assert_null(model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decided_by_what_is_faster), cmocka_unit_test(wishes_are_kept),
        cmocka_unit_test(fetched_as_is_faster), cmocka_unit_test(small_models_stay),
        cmocka_unit_test(ends_when_reading_fails)};
    return cmocka_run_group_tests_name("packing", tests, NULL, NULL);
}
