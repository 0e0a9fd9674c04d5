/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU plug-in's contexts, its calls, and the tables of them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "internal.h"
#include "native/native.h"

myelin_status mln_cpu_fail(myelin_error_buffer *buffer, const myelin_error *error) {
    snprintf(buffer->text, buffer->size, "%s", error->message);
    return error->status;
}

myelin_status mln_cpu_fail_argument(myelin_error_buffer *buffer, const char *what, int64_t least,
                                    int64_t most, int64_t found) {
    snprintf(buffer->text, buffer->size, "%s must be %" PRId64 " to %" PRId64 ", found %" PRId64,
             what, least, most, found);
    return MYELIN_ERROR_ARGUMENT;
}

static myelin_status probe(const myelin_model_description *description,
                           myelin_error_buffer *error) {
    if (description->struct_size < sizeof *description)
        return mln_cpu_fail_argument(error, "struct_size", sizeof *description, UINT32_MAX,
                                     description->struct_size);
    if (description->fusion == MYELIN_FUSION_COMPOSED) {
        snprintf(error->text, error->size, "the composed rung is the composed plug-in's");
        return MYELIN_ERROR_UNSUPPORTED;
    }
    return MYELIN_OK;
}

/* --- contexts --- */

/* Cuts a region into arrays, or with base NULL only adds up what they take. */
typedef struct carver {
    unsigned char *base;
    uint64_t used;
    bool overflow;
} carver;

static void *carve(carver *from, int64_t rows, int64_t columns, size_t size) {
    void *array = from->base ? from->base + from->used : NULL;
    uint64_t bytes;
    if (!mln_mul((uint64_t)rows, (uint64_t)columns, &bytes) || !mln_mul(bytes, size, &bytes) ||
        !mln_add(bytes, MYELIN_TENSOR_ALIGNMENT - 1, &bytes) ||
        !mln_add(from->used, bytes & ~(uint64_t)(MYELIN_TENSOR_ALIGNMENT - 1), &from->used))
        from->overflow = true;
    return array;
}

/* Bytes one token's activations take at most, packed in any format by any kernels. */
static int64_t packed_row(const mln_cpu_sizes *s) {
    return (s->widest + 31) / 32 * 128 + MLN_CPU_SLACK;
}

static void carve_scratch(carver *from, mln_cpu_scratch *scratch, const mln_cpu_sizes *s) {
    mln_cpu_scratch none;
    scratch = from->base ? scratch : &none;
    scratch->row = carve(from, s->widest, 1, sizeof(float));
    scratch->block = carve(from, MLN_CPU_FORMATS, packed_row(s), 1);
    scratch->attention = carve(from, mln_cpu_attend_scratch(s->width), 1, sizeof(float));
    scratch->q = carve(from, MLN_CPU_ATTEND_ROWS, s->width, sizeof(float));
    scratch->out = carve(from, MLN_CPU_ATTEND_ROWS, s->width, sizeof(float));
    scratch->tile = carve(from, 2 * MLN_CPU_BLOCK, MLN_CPU_PANEL, sizeof(float));
}

enum {
    EVEN_PIECES = 8, /* attention calls for each thread from which on whole ones end together */
    LEAST_PIECE = 24 /* query rows that are not cut further for that */
};

/* Points every array of the context into the carver's region. */
static void carve_context(carver *from, myelin_plugin_context *c, const myelin_config *config,
                          int32_t max_tokens, int32_t max_len, int32_t threads) {
    mln_cpu_sizes s = mln_cpu_sizes_of(config);
    int64_t rows = max_tokens, pieces = 1 + s.heads / s.kv_heads / LEAST_PIECE;
    c->residual = carve(from, rows, s.hidden, sizeof(float));
    c->qkv = carve(from, rows, s.q_width + 2 * s.kv_width, sizeof(float));
    c->attended = carve(from, rows, s.q_width, sizeof(float));
    c->gated = carve(from, rows, s.intermediate, sizeof(float));
    c->up = carve(from, rows, s.intermediate, sizeof(float));
    c->cos = carve(from, rows, s.head_dim / 2, sizeof(float));
    c->sin = carve(from, rows, s.head_dim / 2, sizeof(float));
    c->packed_stride = (uint64_t)(rows * packed_row(&s));
    c->packed = carve(from, MLN_CPU_FORMATS * rows, packed_row(&s), 1);
    c->rows = carve(from, rows, 1, sizeof *c->rows);
    c->pieces = carve(from, rows, pieces, sizeof *c->pieces);
    c->wanted = carve(from, rows, 1, sizeof *c->wanted);
    c->targets = carve(from, rows, 1, sizeof *c->targets);
    c->best_values = carve(from, threads, rows, sizeof *c->best_values);
    c->best_ids = carve(from, threads, rows, sizeof *c->best_ids);
    c->least = carve(from, threads, MLN_CPU_BLOCK, sizeof *c->least);
    c->reach =
        carve(from, (s.vocab + MLN_CPU_PANEL - 1) / MLN_CPU_PANEL, MLN_CPU_BLOCK, sizeof *c->reach);
    c->ids = carve(from, rows, 1, sizeof *c->ids);
    int64_t shared = EVEN_PIECES * (int64_t)threads / s.kv_heads;
    c->shared_pieces = shared < 1 ? 1 : shared < rows ? shared : rows;
    c->most_splits = ((int64_t)max_len + MLN_CPU_SPLIT - 1) / MLN_CPU_SPLIT;
    c->parts = carve(from, c->shared_pieces * s.kv_heads * c->most_splits,
                     mln_cpu_part_size(s.heads / s.kv_heads, s.width), sizeof(float));
    c->ended_splits = carve(from, c->shared_pieces, s.kv_heads, sizeof *c->ended_splits);
    c->scratch = carve(from, threads, 1, sizeof *c->scratch);
    for (int32_t t = 0; t < threads; t++)
        carve_scratch(from, from->base ? &c->scratch[t] : NULL, &s);
}

/* Bytes of the arrays; UINT64_MAX when that overflows. */
static uint64_t scratch_bytes(const myelin_config *config, int32_t max_tokens, int32_t max_len,
                              int32_t threads) {
    carver counter = {0};
    myelin_plugin_context none;
    carve_context(&counter, &none, config, max_tokens, max_len, threads);
    return counter.overflow ? UINT64_MAX : counter.used;
}

/* The number of threads is not known here: what one takes, which is nearly all. */
static uint64_t context_bytes(const myelin_config *config, int32_t max_tokens, int32_t max_len) {
    if (max_tokens < 1 || max_len < 1)
        return 0;
    uint64_t bytes;
    bool fits = mln_add(scratch_bytes(config, max_tokens, max_len, 1),
                        sizeof(myelin_plugin_context), &bytes);
    return fits ? bytes : UINT64_MAX;
}

static myelin_status create_context(const myelin_plugin_model *model, int32_t max_tokens,
                                    int32_t max_len, myelin_plugin_context **out,
                                    myelin_error_buffer *buffer) {
    *out = NULL;
    if (max_tokens < 1)
        return mln_cpu_fail_argument(buffer, "max_tokens", 1, INT32_MAX, max_tokens);
    if (max_len < 1)
        return mln_cpu_fail_argument(buffer, "max_len", 1, INT32_MAX, max_len);
    myelin_error error = {0};
    myelin_plugin_context *context = mln_calloc(1, sizeof *context);
    if (!context) {
        mln_fail_memory(&error, sizeof *context, "scratch memory");
        return mln_cpu_fail(buffer, &error);
    }
    int32_t threads = mln_team_size(model->team);
    uint64_t bytes = scratch_bytes(&model->config, max_tokens, max_len, threads);
    if (mln_region_map(&context->region, bytes, "scratch memory", &error) != MYELIN_OK) {
        free(context);
        return mln_cpu_fail(buffer, &error);
    }
    context->model = model;
    context->max_tokens = max_tokens;
    context->max_len = max_len;
    carver from = {context->region.base, 0, false};
    carve_context(&from, context, &model->config, max_tokens, max_len, threads);
    *out = context;
    return MYELIN_OK;
}

static void free_context(myelin_plugin_context *context) {
    if (!context)
        return;
    mln_region_unmap(&context->region);
    free(context);
}

/* --- calls --- */

/* Whether `count` tokens can be appended to the sequence in this context. */
static myelin_status check_room(const myelin_plugin_context *context,
                                const myelin_plugin_sequence *sequence, int64_t count,
                                myelin_error_buffer *error) {
    int32_t most = sequence->capacity < context->max_len ? sequence->capacity : context->max_len;
    if (sequence->length + count > most)
        return mln_cpu_fail_argument(error, "positions of a sequence", 0, most,
                                     sequence->length + count);
    return MYELIN_OK;
}

static myelin_status check_ids(const myelin_plugin_context *context, const int32_t *ids,
                               int64_t count, myelin_error_buffer *error) {
    int32_t vocab = context->model->config.vocab_size;
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return mln_cpu_fail_argument(error, "a token id", 0, vocab - 1, ids[i]);
    return MYELIN_OK;
}

/* The host has checked all this; a mistake there is a message instead of a crash. */
static myelin_status check_spans(const myelin_plugin_context *context, const myelin_span *spans,
                                 int32_t num_spans, myelin_error_buffer *error) {
    int64_t rows = 0;
    for (int32_t s = 0; s < num_spans; s++) {
        const myelin_span *span = &spans[s];
        if (span->count < 1)
            return mln_cpu_fail_argument(error, "tokens of a span", 1, context->max_tokens,
                                         span->count);
        if (span->num_logits < 0 || span->num_logits > span->count)
            return mln_cpu_fail_argument(error, "num_logits", 0, span->count, span->num_logits);
        rows += span->count;
        if (rows > context->max_tokens)
            return mln_cpu_fail_argument(error, "tokens of a call", 1, context->max_tokens, rows);
        myelin_status status = check_room(context, span->sequence, span->count, error);
        if (status == MYELIN_OK)
            status = check_ids(context, span->ids, span->count, error);
        if (status != MYELIN_OK)
            return status;
    }
    return MYELIN_OK;
}

/*
 * Begins a call of `rows` tokens. The more queries attend together the less often their keys and
 * values are made floats, but there must be pieces for all members.
 */
static void begin_call(myelin_plugin_context *c, int64_t rows) {
    const mln_cpu_sizes *s = &c->model->sizes;
    int64_t shares = EVEN_PIECES * (int64_t)mln_team_size(c->model->team);
    int64_t most = rows * s->heads / shares / LEAST_PIECE * LEAST_PIECE; /* of all kv heads */
    most = most > LEAST_PIECE ? most : LEAST_PIECE;
    c->most_piece = (int32_t)(most < MLN_CPU_ATTEND_ROWS ? most : MLN_CPU_ATTEND_ROWS);
    c->num_rows = c->num_pieces = c->num_wanted = 0;
    c->alone = true;
}

/* A span's query rows, cut into pieces of nearly the same size that attend together. */
static void add_pieces(myelin_plugin_context *c, int64_t first_row, int32_t count) {
    enum { ROUND = 12 }; /* rows that the widest kernels take at once */
    const mln_cpu_sizes *s = &c->model->sizes;
    int32_t queries = count * (int32_t)(s->heads / s->kv_heads);
    int32_t pieces = (queries + c->most_piece - 1) / c->most_piece;
    int32_t each = ((queries + pieces - 1) / pieces + ROUND - 1) / ROUND * ROUND;
    for (int32_t q = 0; q < queries; q += each) {
        int32_t rest = queries - q;
        c->pieces[c->num_pieces++] =
            (mln_cpu_piece){(int32_t)first_row, q, rest < each ? rest : each};
    }
    c->alone = c->alone && count == 1 && pieces == 1;
}

static void add_span(myelin_plugin_context *c, const myelin_span *span) {
    int64_t first = c->num_rows;
    for (int32_t t = 0; t < span->count; t++)
        c->rows[c->num_rows++] =
            (mln_cpu_row){span->sequence, span->sequence->length + t, span->ids[t]};
    add_pieces(c, first, span->count);
    for (int32_t i = 0; i < span->num_logits; i++) {
        c->wanted[c->num_wanted] = (int32_t)(first + span->count - span->num_logits + i);
        c->targets[c->num_wanted++] = span->logits + (int64_t)i * c->model->sizes.vocab;
    }
}

static void run_spans(myelin_plugin_context *context, const myelin_span *spans, int32_t num_spans) {
    int64_t rows = 0;
    for (int32_t s = 0; s < num_spans; s++)
        rows += spans[s].count;
    begin_call(context, rows);
    context->greedy = false;
    for (int32_t s = 0; s < num_spans; s++)
        add_span(context, &spans[s]);
    mln_cpu_forward(context);
    for (int32_t s = 0; s < num_spans; s++)
        spans[s].sequence->length += spans[s].count;
}

static myelin_status forward(myelin_plugin_context *context, const myelin_span *spans,
                             int32_t num_spans, myelin_error_buffer *error) {
    myelin_status status = check_spans(context, spans, num_spans, error);
    if (status == MYELIN_OK && num_spans > 0)
        run_spans(context, spans, num_spans);
    return status;
}

static myelin_status forward_hidden(myelin_plugin_context *context, const myelin_span *spans,
                                    int32_t num_spans, float *hidden, myelin_error_buffer *error) {
    const myelin_plugin_model *model = context->model;
    myelin_status status = check_spans(context, spans, num_spans, error);
    for (int32_t s = 0; s < num_spans && status == MYELIN_OK; s++)
        if (spans[s].num_logits != 0)
            status = mln_cpu_fail_argument(error, "num_logits", 0, 0, spans[s].num_logits);
    if (status != MYELIN_OK || num_spans == 0)
        return status;
    run_spans(context, spans, num_spans);
    int64_t size = model->sizes.hidden, end = 0;
    for (int32_t s = 0; s < num_spans; s++) {
        end += spans[s].count;
        model->kernels->rms_norm(hidden + s * size, context->residual + (end - 1) * size,
                                 model->norm, size, (float)model->config.rms_norm_eps);
    }
    return MYELIN_OK;
}

/* One greedy token for each of `count` sequences: context->ids in, appended, and ids out. */
static void greedy_step(myelin_plugin_context *c, myelin_plugin_sequence *const *sequences,
                        int32_t count) {
    begin_call(c, count);
    c->num_wanted = count;
    c->greedy = true;
    for (int32_t s = 0; s < count; s++) {
        c->rows[c->num_rows] = (mln_cpu_row){sequences[s], sequences[s]->length, c->ids[s]};
        add_pieces(c, c->num_rows++, 1);
        c->wanted[s] = s;
    }
    mln_cpu_forward(c);
    for (int32_t s = 0; s < count; s++)
        sequences[s]->length++;
}

static myelin_status decode_greedy(myelin_plugin_context *context,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   int32_t num_sequences, int32_t steps, int32_t *out_ids,
                                   myelin_error_buffer *error) {
    if (num_sequences < 0 || num_sequences > context->max_tokens)
        return mln_cpu_fail_argument(error, "num_sequences", 0, context->max_tokens, num_sequences);
    if (steps < 1)
        return mln_cpu_fail_argument(error, "steps", 1, INT32_MAX, steps);
    myelin_status status = check_ids(context, ids, num_sequences, error);
    for (int32_t s = 0; s < num_sequences && status == MYELIN_OK; s++)
        status = check_room(context, sequences[s], steps, error);
    if (status != MYELIN_OK || num_sequences == 0)
        return status;
    memcpy(context->ids, ids, (size_t)num_sequences * sizeof *ids);
    for (int32_t step = 0; step < steps; step++) {
        greedy_step(context, sequences, num_sequences);
        for (int32_t s = 0; s < num_sequences; s++)
            out_ids[(int64_t)s * steps + step] = context->ids[s];
    }
    return MYELIN_OK;
}

/* A plug-in that computes with one set of kernels (NULL: the best the processor has). */
#define PLUGIN(set, chosen)                                                                        \
    static myelin_status load_##set(const myelin_model_description *description,                   \
                                    const myelin_host *host, myelin_plugin_model **model,          \
                                    myelin_error_buffer *error) {                                  \
        return mln_cpu_load(description, host, mln_cpu_choose(chosen), model, error);              \
    }                                                                                              \
    static const myelin_plugin plugin_##set = {                                                    \
        .magic = MYELIN_PLUGIN_MAGIC,                                                              \
        .abi_version = MYELIN_PLUGIN_ABI_VERSION,                                                  \
        .struct_size = sizeof(myelin_plugin),                                                      \
        .max_fusion = MYELIN_FUSION_CHUNK,                                                         \
        .name = "qwen3_cpu",                                                                       \
        .probe = probe,                                                                            \
        .load = load_##set,                                                                        \
        .free_model = mln_cpu_free_model,                                                          \
        .sequence_bytes = mln_cpu_sequence_bytes,                                                  \
        .create_sequence = mln_cpu_create_sequence,                                                \
        .free_sequence = mln_cpu_free_sequence,                                                    \
        .sequence_length = mln_cpu_sequence_length,                                                \
        .truncate_sequence = mln_cpu_truncate_sequence,                                            \
        .context_bytes = context_bytes,                                                            \
        .create_context = create_context,                                                          \
        .free_context = free_context,                                                              \
        .forward = forward,                                                                        \
        .decode_greedy = decode_greedy,                                                            \
        .forward_hidden = forward_hidden,                                                          \
        .page_bytes = mln_cpu_page_bytes,                                                          \
        .create_pool = mln_cpu_create_pool,                                                        \
        .free_pool = mln_cpu_free_pool,                                                            \
        .create_paged_sequence = mln_cpu_create_paged_sequence,                                    \
        .set_pages = mln_cpu_set_pages,                                                            \
        .copy_page = mln_cpu_copy_page,                                                            \
        .weight_bytes = mln_cpu_weight_bytes,                                                      \
        .cache_types = 1u << MYELIN_CACHE_F32 | 1u << MYELIN_CACHE_F16 | 1u << MYELIN_CACHE_INT8,  \
    }

PLUGIN(best, NULL);
PLUGIN(portable, "portable");
PLUGIN(avx2, "avx2");
PLUGIN(avx512, "avx512");
PLUGIN(avx512_vnni, "avx512_vnni");
PLUGIN(avx512_bf16, "avx512_bf16");
PLUGIN(amx, "amx");
PLUGIN(neon, "neon");
PLUGIN(neon_dot, "neon_dot");
PLUGIN(neon_i8mm, "neon_i8mm");

myelin_activations mln_native_activations(const myelin_plugin_model *model) {
    return model->activations;
}

const myelin_plugin *mln_native_plugin(void) {
    return &plugin_best;
}

const myelin_plugin *mln_native_plugin_for(const char *set) {
    const struct {
        const char *name;
        const myelin_plugin *plugin;
    } sets[] = {{"portable", &plugin_portable},
                {"avx2", &plugin_avx2},
                {"avx512", &plugin_avx512},
                {"avx512_vnni", &plugin_avx512_vnni},
                {"avx512_bf16", &plugin_avx512_bf16},
                {"amx", &plugin_amx},
                {"neon", &plugin_neon},
                {"neon_dot", &plugin_neon_dot},
                {"neon_i8mm", &plugin_neon_i8mm}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (!strcmp(sets[i].name, set) && mln_cpu_choose(set))
            return sets[i].plugin;
    return NULL;
}
