/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forward pass as a sequence of kernels on the context's stream. The rungs of the ladder differ
 * in where the host waits for the device: after every operation, after every block, after every
 * layer, after every token, or after a chunk of them.
 */
#include "internal.h"
#include "pieces.h"

enum { PACE_LAYERS = 8 }; /* between two calls of mln_cuda_pace() */

/* Waits when the rung ends a native call here: those below `rung` do. */
static cudaError_t boundary(const myelin_plugin_context *c, cudaError_t error, int32_t rung) {
    int32_t fusion = c->model->fusion;
    if (error != cudaSuccess || fusion == MYELIN_FUSION_AUTO || fusion >= rung)
        return error;
    return mln_cuda_wait(c);
}

static mln_cuda_linear describe(const myelin_plugin_context *c, const mln_cuda_matrix *weight,
                                const float *x, float *out, int64_t out_stride, int32_t tokens) {
    return (mln_cuda_linear){.weight = *weight,
                             .x = x,
                             .x_stride = weight->columns,
                             .out = out,
                             .out_stride = out_stride,
                             .tokens = tokens,
                             .epilogue = MLN_CUDA_STORE,
                             .fragments = c->fragments,
                             .factors = c->factors,
                             .eps = (float)c->model->config.rms_norm_eps,
                             .wait = c->model->early};
}

static cudaError_t project_qkv(myelin_plugin_context *c, const mln_cuda_layer *layer,
                               int32_t tokens) {
    const myelin_config *config = &c->model->config;
    int64_t width =
        (int64_t)(config->num_attention_heads + 2 * config->num_key_value_heads) * config->head_dim;
    float *out = c->qkv;
    cudaError_t error = cudaSuccess;
    for (int32_t i = 0; i < layer->num_qkv && error == cudaSuccess; i++) {
        mln_cuda_linear linear = describe(c, &layer->qkv[i], c->residual, out, width, tokens);
        linear.norm = layer->input_layernorm;
        error =
            boundary(c, mln_cuda_linear_launch(&linear, c->stream), MYELIN_FUSION_ATTENTION_BLOCK);
        out += layer->qkv[i].rows;
    }
    return error;
}

/*
 * residual += weight * x, over all devices that have a part of the weight's columns. With
 * `converted` x is where several tokens' activations are read.
 */
static cudaError_t add_to_residual(myelin_plugin_context *c, const mln_cuda_matrix *weight,
                                   const float *x, int32_t tokens, bool converted) {
    mln_cuda_linear linear =
        describe(c, weight, x, c->residual, c->model->config.hidden_size, tokens);
    linear.converted = converted;
    if (!c->model->link) {
        linear.epilogue = MLN_CUDA_ADD;
        return mln_cuda_linear_launch(&linear, c->stream);
    }
    linear.out = mln_cuda_own_residual(c, tokens);
    cudaError_t error = mln_cuda_linear_launch(&linear, c->stream);
    return error == cudaSuccess ? mln_cuda_join_residual(c, tokens) : error;
}

typedef enum attend_mode {
    ATTEND_OWN,     /* each row is its sequence's only one */
    ATTEND_SINGLES, /* likewise, a block takes all splits */
    ATTEND_SPLITS,  /* keys and queries are prepared, a block takes a split */
    ATTEND_ROWS,    /* likewise, a block takes some queries */
    ATTEND_PIECES   /* likewise, of one sequence */
} attend_mode;

/* How rows are attended with; none of it changes a result. */
static attend_mode mode_of(const myelin_plugin_context *c, int32_t tokens, int32_t splits, bool own,
                           int32_t wgmma) {
    const myelin_config *config = &c->model->config;
    int32_t heads = config->num_attention_heads, kv_heads = config->num_key_value_heads;
    if (own && mln_cuda_attends_singles(c->model->half_cache, config->head_dim, heads, kv_heads,
                                        tokens, splits))
        return ATTEND_SINGLES;
    if (mln_cuda_attends_pieces(c->model->half_cache, config->head_dim, kv_heads, tokens,
                                c->num_pieces, splits, wgmma))
        return ATTEND_PIECES;
    if (own)
        return ATTEND_OWN;
    return mln_cuda_attends_rows(c->model->half_cache, config->head_dim, heads, kv_heads, tokens,
                                 splits)
               ? ATTEND_ROWS
               : ATTEND_SPLITS;
}

/* The form in which o_proj finds what was attended to, where attention brings it there. */
static int form_of(const myelin_plugin_context *c, const mln_cuda_layer *layer, attend_mode mode,
                   int32_t tokens) {
    const myelin_config *config = &c->model->config;
    bool in_groups = mode == ATTEND_PIECES && layer->o_proj.wgmma;
    bool brings = mode == ATTEND_SINGLES ||
                  (in_groups && mln_groups_convert(config->num_attention_heads, config->head_dim));
    return brings ? mln_cuda_fragment_form(&layer->o_proj, tokens) : MLN_CUDA_FORM_NONE;
}

/* Attention of `count` tokens from row `first` on. */
static cudaError_t attend(myelin_plugin_context *c, const mln_cuda_layer *layer, int32_t index,
                          int32_t first, int32_t count, int32_t splits, attend_mode mode) {
    bool own = mode == ATTEND_OWN || mode == ATTEND_SINGLES;
    const myelin_config *config = &c->model->config;
    int64_t q_width = (int64_t)config->num_attention_heads * config->head_dim;
    int64_t width = q_width + 2 * (int64_t)config->num_key_value_heads * config->head_dim;
    mln_cuda_attention attention = {.rows = c->rows + first,
                                    .qkv = c->qkv + first * width,
                                    .attended = c->attended + first * q_width,
                                    .queries = (uint16_t *)c->queries + first * q_width,
                                    .partial = c->partial,
                                    .q_norm = layer->q_norm,
                                    .k_norm = layer->k_norm,
                                    .angles = c->angles + (int64_t)first * (config->head_dim / 2),
                                    .done = c->done,
                                    .eps = (float)config->rms_norm_eps,
                                    .layer = index,
                                    .layers = config->num_hidden_layers,
                                    .heads = config->num_attention_heads,
                                    .kv_heads = config->num_key_value_heads,
                                    .head_dim = config->head_dim,
                                    .tokens = count,
                                    .max_splits = splits,
                                    .half_cache = c->model->half_cache,
                                    .pieces = c->pieces,
                                    .num_pieces = mode == ATTEND_PIECES ? c->num_pieces : 0,
                                    .early = (own || mode == ATTEND_PIECES) && c->model->early,
                                    .in_rows = mode == ATTEND_ROWS,
                                    .singles = mode == ATTEND_SINGLES,
                                    .form = form_of(c, layer, mode, count),
                                    .fragments = c->fragments,
                                    .factors = c->factors,
                                    .own = own,
                                    .wgmma = layer->o_proj.wgmma};
    return boundary(c, mln_cuda_attend_launch(&attention, c->stream), MYELIN_FUSION_KV_ATTENTION);
}

/* All keys are in the cache before anyone attends to them. */
static cudaError_t prepare(myelin_plugin_context *c, const mln_cuda_layer *layer, int32_t index,
                           int32_t tokens, bool in_rows) {
    const myelin_config *config = &c->model->config;
    mln_cuda_attention attention = {.rows = c->rows,
                                    .qkv = c->qkv,
                                    .queries = in_rows ? c->queries : NULL,
                                    .q_norm = layer->q_norm,
                                    .k_norm = layer->k_norm,
                                    .angles = c->angles,
                                    .eps = (float)config->rms_norm_eps,
                                    .layer = index,
                                    .layers = config->num_hidden_layers,
                                    .heads = config->num_attention_heads,
                                    .kv_heads = config->num_key_value_heads,
                                    .head_dim = config->head_dim,
                                    .tokens = tokens,
                                    .half_cache = c->model->half_cache,
                                    .early = c->model->early};
    return boundary(c, mln_cuda_prepare_launch(&attention, c->stream), MYELIN_FUSION_KV_ATTENTION);
}

static cudaError_t attention_block(myelin_plugin_context *c, int32_t index, int32_t tokens,
                                   int32_t splits, bool own) {
    const mln_cuda_layer *layer = &c->model->layers[index];
    cudaError_t error = project_qkv(c, layer, tokens);
    attend_mode mode = mode_of(c, tokens, splits, own, layer->o_proj.wgmma);
    bool whole = mode == ATTEND_ROWS || mode == ATTEND_PIECES;
    if (error == cudaSuccess && mode != ATTEND_OWN && mode != ATTEND_SINGLES)
        error = prepare(c, layer, index, tokens, whole);
    int32_t step = whole || mode == ATTEND_SINGLES ? tokens : c->attend_tokens;
    for (int32_t first = 0; first < tokens && error == cudaSuccess; first += step) {
        int32_t rest = tokens - first;
        error = attend(c, layer, index, first, rest < step ? rest : step, splits, mode);
    }
    if (error != cudaSuccess)
        return error;
    bool converted = form_of(c, layer, mode, tokens) != MLN_CUDA_FORM_NONE;
    return boundary(c, add_to_residual(c, &layer->o_proj, c->attended, tokens, converted),
                    MYELIN_FUSION_LAYER);
}

/* gated = silu(gate_proj(x)) * up_proj(x), x = norm(residual) */
static cudaError_t project_gated(myelin_plugin_context *c, const mln_cuda_layer *layer,
                                 int32_t tokens) {
    int64_t width = c->model->config.intermediate_size;
    mln_cuda_linear gate = describe(c, &layer->gate_proj, c->residual, c->gated, width, tokens);
    gate.norm = layer->post_attention_layernorm;
    gate.second = layer->up_proj;
    gate.epilogue = layer->gated ? MLN_CUDA_GATED : MLN_CUDA_GATE;
    cudaError_t error = cudaSuccess;
    if (!layer->gated) {
        mln_cuda_linear up = describe(c, &layer->up_proj, c->residual, c->gated, width, tokens);
        up.norm = layer->post_attention_layernorm;
        error = boundary(c, mln_cuda_linear_launch(&up, c->stream), MYELIN_FUSION_MLP);
    }
    if (error != cudaSuccess)
        return error;
    return boundary(c, mln_cuda_linear_launch(&gate, c->stream), MYELIN_FUSION_MLP);
}

static cudaError_t mlp_block(myelin_plugin_context *c, int32_t index, int32_t tokens) {
    const mln_cuda_layer *layer = &c->model->layers[index];
    cudaError_t error = project_gated(c, layer, tokens);
    if (error != cudaSuccess)
        return error;
    return boundary(c, add_to_residual(c, &layer->down_proj, c->gated, tokens, false),
                    MYELIN_FUSION_GREEDY);
}

cudaError_t mln_cuda_layers(myelin_plugin_context *c, int32_t tokens, int32_t splits, bool own) {
    cudaError_t error =
        mln_cuda_embed_launch(c->residual, &c->model->embed_tokens, c->rows, tokens, c->stream);
    const myelin_config *config = &c->model->config;
    if (error == cudaSuccess)
        error = mln_cuda_angles_launch(c->angles, c->rows, c->model->inv_freq,
                                       (float)config->rope.attention_factor, config->head_dim / 2,
                                       tokens, c->stream);
    for (int32_t l = 0; l < c->model->config.num_hidden_layers && error == cudaSuccess; l++) {
        error = attention_block(c, l, tokens, splits, own);
        if (error == cudaSuccess)
            error = mlp_block(c, l, tokens);
        if (error == cudaSuccess && l % PACE_LAYERS == PACE_LAYERS - 1)
            error = mln_cuda_pace(c);
    }
    return error;
}

/* logits[tokens, V], the rows of the head on all devices. */
static cudaError_t project_logits(myelin_plugin_context *c, mln_cuda_linear *head) {
    if (!c->model->link)
        return mln_cuda_linear_launch(head, c->stream);
    head->out = mln_cuda_own_logits(c, head->tokens);
    head->out_stride = c->model->most_ids;
    cudaError_t error = mln_cuda_linear_launch(head, c->stream);
    return error == cudaSuccess ? mln_cuda_join_logits(c, head->tokens) : error;
}

cudaError_t mln_cuda_head(myelin_plugin_context *c, int32_t count) {
    mln_cuda_linear head =
        describe(c, &c->model->lm_head, c->residual, c->logits, c->model->config.vocab_size, count);
    head.norm = c->model->norm;
    head.order = c->wanted;
    head.wait = 0;
    return project_logits(c, &head);
}

/* The logits of some rows at a time, so that few rows need room for them. */
cudaError_t mln_cuda_sampled(myelin_plugin_context *c, int32_t count, int32_t splits, bool wide) {
    const myelin_config *config = &c->model->config;
    cudaError_t error = mln_cuda_layers(c, count, splits, true);
    for (int32_t first = 0; first < count && error == cudaSuccess; first += MLN_CUDA_HEAD_ROWS) {
        int32_t rest = count - first, rows = rest < MLN_CUDA_HEAD_ROWS ? rest : MLN_CUDA_HEAD_ROWS;
        mln_cuda_linear head =
            describe(c, &c->model->lm_head, c->residual + (int64_t)first * config->hidden_size,
                     c->logits, config->vocab_size, rows);
        head.norm = c->model->norm;
        error = project_logits(c, &head);
        mln_cuda_sample sample = {.logits = c->logits,
                                  .peaks = c->peaks,
                                  .wide = wide ? c->wide : NULL,
                                  .keys = c->keys,
                                  .draws = c->draws + first,
                                  .rows = c->rows + first,
                                  .out_ids = c->out_ids,
                                  .steps = c->steps,
                                  .vocab = config->vocab_size,
                                  .chunks = (config->vocab_size + MLN_SAMPLE_CHUNK - 1) /
                                            MLN_SAMPLE_CHUNK,
                                  .first = first,
                                  .count = rows};
        if (error == cudaSuccess)
            error = mln_cuda_sample_launch(&sample, c->stream);
    }
    return error;
}

cudaError_t mln_cuda_greedy(myelin_plugin_context *c, int32_t count, int32_t splits) {
    cudaError_t error = mln_cuda_layers(c, count, splits, true);
    if (error != cudaSuccess)
        return error;
    mln_cuda_linear head = describe(c, &c->model->lm_head, c->residual, c->logits, 0, count);
    head.norm = c->model->norm;
    head.epilogue = MLN_CUDA_ARGMAX;
    head.best = c->best;
    error = mln_cuda_linear_launch(&head, c->stream);
    int32_t blocks = mln_cuda_argmax_blocks(&c->model->lm_head, count);
    if (error == cudaSuccess && c->model->link) {
        error = mln_cuda_join_best(c, count, blocks);
        blocks = c->model->link->ranks;
    }
    if (error != cudaSuccess)
        return error;
    return mln_cuda_pick_launch(c->best, blocks, c->rows, c->out_ids, c->steps, count, c->stream);
}
