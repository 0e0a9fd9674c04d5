/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forward pass of Qwen3 over a batch of tokens. One row of the residual stream is one token;
 * the rows of a span are consecutive positions of its sequence. Every operation but attention looks
 * at one row at a time, so rows of all spans go through it together. docs/MODEL.md has the
 * formulas.
 */
#include <string.h>

#include "base/rope.h"
#include "model/composed_internal.h"
#include "tensor/ops.h"

/* The tokens of one forward(): spans in order, `rows` tokens in all. */
typedef struct batch {
    const myelin_span *spans;
    int32_t num_spans;
    int64_t rows;
} batch;

/* residual [rows, H] = the embeddings of the ids; cos, sin [rows, D/2] = their positions' angles.
 */
static void embed(myelin_plugin_context *context, const batch *tokens) {
    const myelin_plugin_model *model = context->model;
    const myelin_config *config = &model->config;
    int64_t half = model->sizes.head_dim / 2;
    int64_t row = 0;
    for (int32_t s = 0; s < tokens->num_spans; s++) {
        const myelin_span *span = &tokens->spans[s];
        mln_embedding(context->residual + row * model->sizes.hidden, &model->weights.embed_tokens,
                      span->ids, span->count);
        for (int32_t t = 0; t < span->count; t++, row++)
            mln_rope_angles(context->cos + row * half, context->sin + row * half, model->inv_freq,
                            &config->rope, config->head_dim, span->sequence->length + t);
    }
}

/* Where layer `layer`'s keys (part 0) or values (part 1) begin: [kv_heads, slots, D]. */
static float *cache_of(const myelin_plugin_sequence *sequence, int64_t layer, int64_t part) {
    const mln_sizes *sizes = &sequence->model->sizes;
    const mln_composed_store *store = sequence->store;
    return store->cache + (2 * layer + part) * sizes->kv_width * store->slots;
}

/* from [count, kv_heads, D] -> cache [kv_heads, slots, D] at positions length .., as floats that a
 * cache of the model's type can hold. */
static void store(float *cache, const float *from, const myelin_span *span) {
    const mln_sizes *sizes = &span->sequence->model->sizes;
    int32_t type = span->sequence->model->config.cache_type;
    int64_t slots = span->sequence->store->slots, length = span->sequence->length;
    for (int64_t t = 0; t < span->count; t++) {
        int64_t slot = mln_kv_slot(span->sequence->pages, length + t);
        for (int64_t g = 0; g < sizes->kv_heads; g++)
            mln_round_cached(cache + (g * slots + slot) * sizes->head_dim,
                             from + (t * sizes->kv_heads + g) * sizes->head_dim, sizes->head_dim,
                             type);
    }
}

/* attended [rows, Q]: each span attends to its own sequence, the new positions among it. */
static void attend(myelin_plugin_context *context, const batch *tokens, int64_t layer) {
    const mln_sizes *sizes = &context->model->sizes;
    mln_attention_shape shape = {sizes->heads, sizes->kv_heads, sizes->head_dim};
    int64_t row = 0;
    for (int32_t s = 0; s < tokens->num_spans; s++) {
        const myelin_span *span = &tokens->spans[s];
        float *keys = cache_of(span->sequence, layer, 0);
        float *values = cache_of(span->sequence, layer, 1);
        store(keys, context->k + row * sizes->kv_width, span);
        store(values, context->v + row * sizes->kv_width, span);
        mln_kv_view cache = {keys, values, span->sequence->store->slots, span->sequence->pages};
        mln_attention(&context->model->host, context->attended + row * sizes->q_width,
                      context->q + row * sizes->q_width, &cache, shape, span->count,
                      span->sequence->length, context->scores);
        row += span->count;
    }
}

/* residual += o_proj(attention(norm(residual))) */
static void attention_block(myelin_plugin_context *context, const batch *tokens, int64_t layer) {
    const myelin_plugin_model *model = context->model;
    const myelin_layer_weights *weights = &model->layers[layer];
    const mln_sizes *sizes = &model->sizes;
    const myelin_host *host = &model->host;
    int64_t rows = tokens->rows;
    double eps = model->config.rms_norm_eps;

    mln_rms_norm(context->normed, context->residual, &weights->input_layernorm, rows, sizes->hidden,
                 eps);
    mln_linear(host, context->q, context->normed, &weights->q_proj, rows);
    mln_linear(host, context->k, context->normed, &weights->k_proj, rows);
    mln_linear(host, context->v, context->normed, &weights->v_proj, rows);
    mln_rms_norm(context->q, context->q, &weights->q_norm, rows * sizes->heads, sizes->head_dim,
                 eps);
    mln_rms_norm(context->k, context->k, &weights->k_norm, rows * sizes->kv_heads, sizes->head_dim,
                 eps);
    mln_rope(context->q, context->cos, context->sin, rows, sizes->heads, sizes->head_dim);
    mln_rope(context->k, context->cos, context->sin, rows, sizes->kv_heads, sizes->head_dim);
    attend(context, tokens, layer);
    mln_linear(host, context->update, context->attended, &weights->o_proj, rows);
    mln_add_to(context->residual, context->update, rows * sizes->hidden);
}

/* residual += down_proj(silu(gate_proj(x)) * up_proj(x)), x = norm(residual) */
static void mlp_block(myelin_plugin_context *context, const batch *tokens, int64_t layer) {
    const myelin_plugin_model *model = context->model;
    const myelin_layer_weights *weights = &model->layers[layer];
    const myelin_host *host = &model->host;
    int64_t rows = tokens->rows;

    mln_rms_norm(context->normed, context->residual, &weights->post_attention_layernorm, rows,
                 model->sizes.hidden, model->config.rms_norm_eps);
    mln_linear(host, context->gate, context->normed, &weights->gate_proj, rows);
    mln_linear(host, context->up, context->normed, &weights->up_proj, rows);
    mln_silu_mul(context->gate, context->up, rows * model->sizes.intermediate);
    mln_linear(host, context->update, context->gate, &weights->down_proj, rows);
    mln_add_to(context->residual, context->update, rows * model->sizes.hidden);
}

void mln_forward_layers(myelin_plugin_context *context, const myelin_span *spans,
                        int32_t num_spans) {
    batch tokens = {spans, num_spans, 0};
    for (int32_t s = 0; s < num_spans; s++)
        tokens.rows += spans[s].count;
    embed(context, &tokens);
    for (int64_t layer = 0; layer < context->model->sizes.layers; layer++) {
        attention_block(context, &tokens, layer);
        mlp_block(context, &tokens, layer);
    }
}

void mln_forward_norm(const myelin_plugin_context *context, int64_t row, float *out) {
    const myelin_plugin_model *model = context->model;
    int64_t hidden = model->sizes.hidden;
    mln_rms_norm(out, context->residual + row * hidden, &model->weights.norm, 1, hidden,
                 model->config.rms_norm_eps);
}

void mln_forward_head(myelin_plugin_context *context, const int64_t *rows, int64_t count) {
    const myelin_plugin_model *model = context->model;
    int64_t hidden = model->sizes.hidden;
    for (int64_t i = 0; i < count; i++)
        memcpy(context->wanted + i * hidden, context->residual + rows[i] * hidden,
               (size_t)hidden * sizeof *context->wanted);
    mln_rms_norm(context->wanted, context->wanted, &model->weights.norm, count, hidden,
                 model->config.rms_norm_eps);
    mln_linear(&model->host, context->logits, context->wanted, &model->weights.lm_head, count);
}
