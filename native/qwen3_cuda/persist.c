/* SPDX-License-Identifier: Apache-2.0 */
/* Which models the kernel of persist.h can decode, what it is given, and its launch. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "persist.h"

/* Cuts the scratch memory into arrays, or with base NULL only adds up what they take. */
static void *cut(unsigned char *base, uint64_t *used, int64_t count, size_t size) {
    void *array = base ? base + *used : NULL;
    *used += ((uint64_t)count * size + 255) / 256 * 256;
    return array;
}

static int64_t whole_lines(int64_t words) {
    return (words + 63) / 64 * 64;
}

static mln_persist_words cut_few_words(unsigned char *base, uint64_t *used, int64_t each) {
    each = whole_lines(each);
    return (mln_persist_words){cut(base, used, each * MLN_PERSIST_FEW_ROUNDS, sizeof(float)), each};
}

/* Round after round, of each round kind after kind. */
static void cut_rounds(mln_cuda_persist *p, const myelin_config *config, unsigned char *base,
                       uint64_t *used) {
    int64_t q = (int64_t)config->num_attention_heads * config->head_dim;
    int64_t kv = (int64_t)config->num_key_value_heads * config->head_dim;
    mln_persist_words *kinds[] = {&p->residual[0], &p->residual[1], &p->qkv, &p->attended,
                                  &p->gated};
    const int64_t words[] = {config->hidden_size, config->hidden_size, q + 2 * kv, q,
                             config->intermediate_size};
    int64_t round = 0;
    for (int i = 0; i < 5; i++)
        round += whole_lines(words[i]);
    float *all = cut(base, used, round * p->rounds, sizeof(float));
    for (int i = 0; i < 5; i++) {
        *kinds[i] = (mln_persist_words){all, round};
        all = all ? all + whole_lines(words[i]) : NULL;
    }
}

static uint64_t lay_out(mln_cuda_persist *p, const myelin_config *config, int32_t max_len,
                        unsigned char *base) {
    uint64_t used = 0;
    p->max_splits = (int32_t)(((int64_t)max_len + MLN_CUDA_SPLIT - 1) / MLN_CUDA_SPLIT);
    int64_t each = (int64_t)config->num_attention_heads * p->max_splits;
    p->rounds = config->num_hidden_layers + 1;
    cut_rounds(p, config, base, &used);
    p->best = cut_few_words(base, &used, 2 * MLN_PERSIST_BLOCKS);
    p->partial = cut_few_words(base, &used, each * (config->head_dim + MLN_PERSIST_STATE));
    p->words_bytes = (int64_t)used;
    p->out_ids = cut(base, &used, MLN_PERSIST_STEPS + 1, sizeof(int32_t));
    p->layers = cut(base, &used, config->num_hidden_layers + (int64_t)1, sizeof *p->layers);
    return used;
}

uint64_t mln_cuda_persist_bytes(const myelin_config *config, int32_t max_len) {
    mln_cuda_persist none = {0};
    return lay_out(&none, config, max_len, NULL);
}

/* --- what fits --- */

/* Packed weights are the graph's alone. */
static bool is_known(int32_t code) {
    return code != MLN_TILE_NONE && code != MLN_TILE_PACKED;
}

static bool is_alike(const mln_cuda_matrix *matrix, int32_t code) {
    return matrix->tile_code == code && matrix->columns % 4 == 0 &&
           matrix->units <= MLN_PERSIST_MAX_UNITS;
}

static int64_t bytes_of(const mln_cuda_matrix *m) {
    return m->tiles * m->units * mln_unit_bytes(m->tile_code);
}

static int64_t layer_bytes(const mln_cuda_layer *layer) {
    return bytes_of(&layer->qkv[0]) + bytes_of(&layer->o_proj) + bytes_of(&layer->gate_proj) +
           bytes_of(&layer->down_proj);
}

static bool fits_model(const myelin_plugin_model *model) {
    const myelin_config *config = &model->config;
    int32_t code = model->lm_head.tile_code;
    bool fits = !model->link && is_known(code) && is_alike(&model->lm_head, code) &&
                is_known(model->embed_tokens.tile_code) &&
                mln_cuda_attends_in_tiles(model->half_cache, config->head_dim) &&
                config->num_attention_heads / config->num_key_value_heads <= MLN_PERSIST_GROUP &&
                (model->fusion == MYELIN_FUSION_AUTO || model->fusion >= MYELIN_FUSION_CHUNK);
    for (int32_t i = 0; i < config->num_hidden_layers && fits; i++) {
        const mln_cuda_layer *layer = &model->layers[i];
        fits = layer->num_qkv == 1 && layer->gated && is_alike(&layer->qkv[0], code) &&
               is_alike(&layer->o_proj, code) && is_alike(&layer->gate_proj, code) &&
               is_alike(&layer->down_proj, code) &&
               /* where layers are large, reading them hides what kernels cost: the graph's */
               layer_bytes(layer) <= MLN_CUDA_LARGEST_LAYER;
    }
    return fits;
}

/* --- how the work is cut --- */

static mln_persist_product cut_product(const mln_cuda_matrix *m, const mln_cuda_persist *p) {
    int32_t room = mln_persist_slot_units(m->tile_code);
    int32_t longest = (m->units + MLN_TILE_SPLITS - 1) / MLN_TILE_SPLITS;
    int64_t each = (m->tiles + p->blocks - 1) / p->blocks;
    /* where a part fills several slots, a warp would wait for too many at once */
    bool own = mln_persist_may_own(m->tile_code) && longest <= room;
    /* long rows keep a warp busy with fewer of them */
    int32_t most = !own && longest > room / 2 ? 2 : MLN_PERSIST_TOGETHER;
    int32_t least = own ? p->slots : room;
    most = most < least ? most : least;
    mln_persist_product product = {.tiles = (int32_t)m->tiles,
                                   .units = m->units,
                                   .rows = (int32_t)m->rows,
                                   .columns = (int32_t)m->columns,
                                   .own = own,
                                   .together = (int32_t)(each < most ? each : most)};
    int32_t share = own ? room : room / product.together;
    product.at_once = share < longest ? share : longest;
    return product;
}

/* The matrix of each product; layers are alike. */
static const mln_cuda_matrix *matrix_of(const myelin_plugin_model *model, int product) {
    const mln_cuda_layer *layer = &model->layers[0];
    const mln_cuda_matrix *const all[MLN_PERSIST_PRODUCTS] = {
        &layer->qkv[0], &layer->o_proj, &layer->gate_proj, &layer->down_proj, &model->lm_head};
    return all[product];
}

static void cut_products(mln_cuda_persist *p, const myelin_plugin_model *model) {
    for (int i = 0; i < MLN_PERSIST_PRODUCTS; i++)
        p->products[i] = cut_product(matrix_of(model, i), p);
}

/* What products read and write of a round's words. */
static void connect_products(mln_cuda_persist *p) {
    const float *first = p->residual[0].all;
    int32_t middle = 0, out = (int32_t)(p->residual[1].all - first);
    int32_t qkv = (int32_t)(p->qkv.all - first), gated = (int32_t)(p->gated.all - first);
    int32_t attended = (int32_t)(p->attended.all - first);
    const int32_t ways[MLN_PERSIST_PRODUCTS][3] = {{out, 0, qkv},
                                                   {attended, out, middle},
                                                   {middle, 0, gated},
                                                   {gated, middle, out},
                                                   {out, 0, gated}};
    for (int i = 0; i < MLN_PERSIST_PRODUCTS; i++) {
        p->products[i].from = ways[i][0];
        p->products[i].before = ways[i][1];
        p->products[i].to = ways[i][2];
    }
    p->round_words = (int32_t)p->qkv.each;
}

static int32_t widest_units(const myelin_plugin_model *model) {
    int32_t widest = 0;
    for (int i = 0; i < MLN_PERSIST_PRODUCTS; i++) {
        int32_t units = matrix_of(model, i)->units;
        widest = units > widest ? units : widest;
    }
    return widest;
}

/* What a block's `room` of shared memory holds; false when two slots of a ring do not fit. */
static bool cut_shared(mln_cuda_persist *p, const myelin_plugin_model *model, int32_t room) {
    int32_t units = widest_units(model), columns = MLN_UNIT_COLUMNS;
    int32_t hidden = (p->hidden + columns - 1) / columns * columns;
    int32_t row = units * columns * (int32_t)sizeof(float); /* binary16 takes the floats' place */
    int32_t norm = hidden * (int32_t)sizeof(float);
    int32_t layers = (p->num_layers + 1) * (int32_t)sizeof(mln_persist_layer);
    int32_t slot =
        MLN_TILE_SPLITS * mln_persist_slot_units(p->tile_code) * mln_unit_bytes(p->tile_code);
    int64_t rest = (int64_t)room - row - 2 * norm - layers;
    if (rest < 2 * slot)
        return false;
    p->slots = (int32_t)(rest / slot);
    p->slots = p->slots < MLN_PERSIST_SLOTS ? p->slots : MLN_PERSIST_SLOTS;
    p->at_row = p->slots * slot;
    p->at_norm = p->at_row + row;
    p->at_embedded = p->at_norm + norm;
    p->at_layers = p->at_embedded + norm;
    p->shared_bytes = p->at_layers + layers;
    return true;
}

/* The layers as the kernel reads them, dealt so that every block copies as much as the others. */
static void fill_layers(const mln_cuda_persist *p, const myelin_plugin_model *model,
                        mln_persist_layer *to) {
    int64_t load[MLN_PERSIST_BLOCKS] = {0};
    for (int32_t l = 0; l <= p->num_layers; l++) {
        bool head = l == p->num_layers;
        const mln_cuda_layer *layer = &model->layers[head ? 0 : l];
        const mln_cuda_matrix *all[] = {head ? &model->lm_head : &layer->qkv[0], &layer->o_proj,
                                        &layer->gate_proj, &layer->down_proj};
        for (int i = 0; i < (head ? 1 : 4); i++) {
            to[l].data[i] = all[i]->data;
            to[l].row_scales[i] = all[i]->row_scales;
            to[l].first[i] =
                mln_persist_deal(load, p->blocks, (int32_t)all[i]->tiles, all[i]->units);
        }
        to[l].norms[0] = head ? model->norm : layer->input_layernorm;
        to[l].norms[1] = layer->post_attention_layernorm;
        to[l].q_norm = layer->q_norm;
        to[l].k_norm = layer->k_norm;
    }
}

static cudaError_t upload_layers(const mln_cuda_persist *p, const myelin_plugin_model *model) {
    size_t count = (size_t)p->num_layers + 1;
    mln_persist_layer *layers = calloc(count, sizeof *layers);
    if (!layers)
        return cudaErrorMemoryAllocation;
    fill_layers(p, model, layers);
    cudaError_t code = cudaMemcpy((void *)(uintptr_t)p->layers, layers, count * sizeof *layers,
                                  cudaMemcpyHostToDevice);
    free(layers);
    return code;
}

cudaError_t mln_cuda_persist_prepare(myelin_plugin_context *c, unsigned char *memory) {
    const myelin_plugin_model *model = c->model;
    const myelin_config *config = &model->config;
    mln_cuda_persist *p = &c->persist;
    *p = (mln_cuda_persist){.embedding = model->embed_tokens,
                            .inv_freq = model->inv_freq,
                            .rope_scale = (float)config->rope.attention_factor,
                            .eps = (float)config->rms_norm_eps,
                            .num_layers = config->num_hidden_layers,
                            .hidden = config->hidden_size,
                            .heads = config->num_attention_heads,
                            .kv_heads = config->num_key_value_heads,
                            .tile_code = model->lm_head.tile_code};
    c->persists = false;
    int32_t room = 0;
    if (!fits_model(model))
        return cudaSuccess;
    cudaError_t code = mln_cuda_persist_room(p->tile_code, &p->blocks, &room);
    if (code != cudaSuccess || p->blocks == 0)
        return code;
    if (!cut_shared(p, model, room))
        return cudaSuccess;
    cut_products(p, model);
    uint64_t bytes = lay_out(p, config, c->max_len, memory);
    connect_products(p);
    code = cudaMemset(memory, 0, bytes);
    if (code == cudaSuccess)
        code = upload_layers(p, model);
    c->persists = code == cudaSuccess;
    return code;
}

/* --- decoding --- */

cudaError_t mln_cuda_persist_chunk(myelin_plugin_context *c, myelin_plugin_sequence *sequence,
                                   const mln_cuda_row *row, int32_t steps) {
    mln_cuda_persist *p = &c->persist;
    size_t bytes = (MLN_PERSIST_STEPS + 1) * sizeof *c->host_ids;
    cudaError_t code = mln_cuda_upload_pages(sequence, c->stream);
    p->row = *row;
    p->steps = steps;
    if (code == cudaSuccess)
        code = cudaMemsetAsync(p->residual[0].all, MLN_PERSIST_EMPTY, (size_t)p->words_bytes,
                               c->stream);
    if (code == cudaSuccess)
        code = mln_cuda_persist_launch(p, c->stream);
    if (code == cudaSuccess)
        code = cudaMemcpyAsync(c->host_ids, p->out_ids, bytes, cudaMemcpyDeviceToHost, c->stream);
    cudaError_t last = cudaStreamSynchronize(c->stream);
    code = code == cudaSuccess ? last : code;
    if (code != cudaSuccess || c->host_ids[MLN_PERSIST_STEPS] == 0)
        return code;
    cudaMemset(p->out_ids, 0, bytes);
    cudaStreamSynchronize(NULL);   /* streams do not wait */
    return cudaErrorLaunchTimeout; /* a block has waited in vain for two seconds */
}
