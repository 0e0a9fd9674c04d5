/* SPDX-License-Identifier: Apache-2.0 */
/* Loading: one arena in device memory, filled through two pinned buffers while files are read. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rope.h"
#include "internal.h"
#include "tiles.h"

enum { STAGING_BYTES = 32 << 20, PIECES = 16 };
enum { MAX_COLUMNS = 32768 }; /* a row of activations fits a block's shared memory */
/* Device memory left for the driver and its libraries. */
#define RESERVED_BYTES (UINT64_C(256) << 20)

/* A load in progress. With base NULL it only adds up what the weights take. */
typedef struct loader {
    const myelin_host *host;
    myelin_error_buffer *error;
    myelin_plugin_model *model;
    unsigned char *base;
    uint64_t used;
    unsigned char *staging[2]; /* pinned */
    cudaEvent_t free[2];       /* recorded when a buffer's copy is done */
    unsigned char *raw;        /* device memory: rows that are not in tiles yet */
    int32_t *full;             /* device memory behind them: escapes found no room */
    cudaStream_t stream;
    int turn;
    bool wgmma; /* as check_wgmma() says */
    bool pack;  /* what is bfloat16 */
} loader;

/* --- reading a part of a tensor into device memory --- */

/* Rows of one part read by several threads into a staging buffer. */
typedef struct read_job {
    const loader *l;
    const myelin_tensor *tensor;
    myelin_tensor_part part;
    unsigned char *to;
    int64_t row, rows;
    size_t row_bytes;
    _Atomic int status;
} read_job;

static void read_piece(void *argument, int64_t index) {
    read_job *job = argument;
    int64_t begin = job->rows * index / PIECES, end = job->rows * (index + 1) / PIECES;
    if (begin == end || atomic_load(&job->status) != MYELIN_OK)
        return;
    char text[512] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_status status =
        job->l->host->read(job->l->host->self, job->tensor, job->part, job->row + begin,
                           end - begin, job->to + (size_t)begin * job->row_bytes, &error);
    int none = MYELIN_OK;
    if (status != MYELIN_OK && atomic_compare_exchange_strong(&job->status, &none, (int)status))
        snprintf(job->l->error->text, job->l->error->size, "%s", text);
}

static myelin_status copy_rows(loader *l, const myelin_tensor *tensor, myelin_tensor_part part,
                               int64_t row, int64_t rows, size_t row_bytes, unsigned char *to,
                               size_t pitch) {
    int turn = l->turn;
    l->turn = 1 - turn;
    myelin_status status =
        mln_cuda_check(cudaEventSynchronize(l->free[turn]), "cudaEventSynchronize", l->error);
    if (status != MYELIN_OK)
        return status;
    read_job job = {.l = l,
                    .tensor = tensor,
                    .part = part,
                    .to = l->staging[turn],
                    .row = row,
                    .rows = rows,
                    .row_bytes = row_bytes};
    l->host->parallel_for(l->host->self, PIECES, read_piece, &job);
    status = (myelin_status)atomic_load(&job.status);
    if (status != MYELIN_OK)
        return status;
    cudaError_t code = cudaMemcpy2DAsync(to, pitch, l->staging[turn], row_bytes, row_bytes,
                                         (size_t)rows, cudaMemcpyHostToDevice, l->stream);
    if (code == cudaSuccess)
        code = cudaEventRecord(l->free[turn], l->stream);
    return mln_cuda_check(code, "copying weights to the device", l->error);
}

static myelin_status copy_part(loader *l, const myelin_tensor *tensor, myelin_tensor_part part,
                               int64_t rows, size_t row_bytes, unsigned char *to, size_t pitch) {
    int64_t step = (int64_t)(STAGING_BYTES / row_bytes);
    myelin_status status = MYELIN_OK;
    for (int64_t row = 0; row < rows && status == MYELIN_OK; row += step) {
        int64_t count = rows - row < step ? rows - row : step;
        status = copy_rows(l, tensor, part, row, count, row_bytes, to + (size_t)row * pitch, pitch);
    }
    return status;
}

/* --- planning; the same walk counts bytes first and reads afterwards --- */

static unsigned char *take(loader *l, uint64_t bytes) {
    unsigned char *at = l->base ? l->base + l->used : NULL;
    l->used += (bytes + 255) / 256 * 256;
    return at;
}

/* --- rows into tiles --- */

/* Bytes of a row: what is read of it, and scales or biases of it. */
typedef struct row_form {
    size_t data, scales;
} row_form;

static myelin_status fill_staging(loader *l, const myelin_tensor *tensor, row_form form,
                                  int64_t row, int64_t rows, unsigned char *to) {
    const struct {
        myelin_tensor_part part;
        size_t bytes;
    } parts[] = {{MYELIN_PART_DATA, form.data},
                 {MYELIN_PART_SCALES, form.scales},
                 {MYELIN_PART_BIASES, form.scales}};
    for (int i = 0; i < 3 && parts[i].bytes > 0; i++) {
        read_job job = {.l = l,
                        .tensor = tensor,
                        .part = parts[i].part,
                        .to = to,
                        .row = row,
                        .rows = rows,
                        .row_bytes = parts[i].bytes};
        l->host->parallel_for(l->host->self, PIECES, read_piece, &job);
        myelin_status status = (myelin_status)atomic_load(&job.status);
        if (status != MYELIN_OK)
            return status;
        to += (size_t)rows * parts[i].bytes;
    }
    return MYELIN_OK;
}

static myelin_status tile_rows(loader *l, const myelin_tensor *tensor, row_form form, int64_t row,
                               mln_cuda_repack *repack) {
    int turn = l->turn;
    l->turn = 1 - turn;
    myelin_status status =
        mln_cuda_check(cudaEventSynchronize(l->free[turn]), "cudaEventSynchronize", l->error);
    if (status == MYELIN_OK)
        status = fill_staging(l, tensor, form, row, repack->count, l->staging[turn]);
    if (status != MYELIN_OK)
        return status;
    size_t count = (size_t)repack->count;
    repack->data = l->raw;
    repack->scales = l->raw + count * form.data;
    repack->biases = l->raw + count * (form.data + form.scales);
    cudaError_t code =
        cudaMemcpyAsync(l->raw, l->staging[turn], count * (form.data + 2 * form.scales),
                        cudaMemcpyHostToDevice, l->stream);
    if (code == cudaSuccess)
        code = cudaEventRecord(l->free[turn], l->stream);
    if (code == cudaSuccess)
        code = mln_cuda_repack_launch(repack, l->stream);
    return mln_cuda_check(code, "laying out weights", l->error);
}

/* All rows of a tensor, from row `first` of the matrix on; a pair's half. */
static myelin_status tile_tensor(loader *l, const mln_cuda_matrix *m, const myelin_tensor *tensor,
                                 int64_t first, int32_t half) {
    row_form form = {.data = (size_t)m->pitch};
    if (tensor->dtype == MYELIN_DTYPE_AFFINE)
        form.scales = (size_t)(m->columns / m->group) * sizeof(uint16_t);
    int64_t rows = tensor->shape[0];
    int64_t step = (int64_t)(STAGING_BYTES / (form.data + 2 * form.scales)) / 8 * 8;
    myelin_status status = MYELIN_OK;
    for (int64_t row = 0; row < rows && status == MYELIN_OK; row += step) {
        mln_cuda_repack repack = {.to = *m,
                                  .first = first + row,
                                  .count = rows - row < step ? rows - row : step,
                                  .half = half,
                                  .full = l->full};
        status = tile_rows(l, tensor, form, row, &repack);
    }
    return status;
}

/* Tiles that have room: a block's may be read past the end. */
static uint64_t room_for_tiles(const mln_cuda_matrix *m) {
    return ((uint64_t)m->tiles + 7) / 8 * 8;
}

static uint64_t tile_bytes(const mln_cuda_matrix *m) {
    return room_for_tiles(m) * (uint64_t)m->units * (uint64_t)mln_unit_bytes(m->tile_code);
}

static uint64_t escape_bytes(const mln_cuda_matrix *m) {
    return room_for_tiles(m) * MLN_TILE_SPLITS * (uint64_t)m->escape_room * sizeof *m->escapes;
}

/* Finds room for a matrix in tiles. */
static void take_tiles(loader *l, mln_cuda_matrix *m) {
    int64_t each = m->paired ? MLN_TILE_ROWS / 2 : MLN_TILE_ROWS;
    m->tiles = (m->rows + each - 1) / each;
    m->wgmma = l->wgmma;
    m->data = take(l, tile_bytes(m));
    m->row_scales =
        (float *)(void *)take(l, room_for_tiles(m) * MLN_TILE_ROWS * sizeof *m->row_scales);
    if (m->tile_code != MLN_TILE_PACKED)
        return;
    m->escape_room = mln_escape_room(m->units);
    m->lifts =
        (uint32_t *)(void *)take(l, room_for_tiles(m) * MLN_TILE_ROWS / 2 * sizeof *m->lifts);
    m->escapes = (uint32_t *)(void *)take(l, escape_bytes(m));
}

/* Rows of count tensors one after the other, or in turns when they are a pair. */
static myelin_status fill_tiles(loader *l, const mln_cuda_matrix *m,
                                const myelin_tensor *const *tensors, int count) {
    myelin_status status = MYELIN_OK;
    for (int64_t i = 0, row = 0; i < count && status == MYELIN_OK; i++) {
        status = tile_tensor(l, m, tensors[i], m->paired ? 0 : row, m->paired ? (int32_t)i : 0);
        row += tensors[i]->shape[0];
    }
    return status;
}

/* The same of a matrix with more escapes than there is room for: dense, in memory of its own. */
static myelin_status fill_dense(loader *l, mln_cuda_matrix *m, const myelin_tensor *const *tensors,
                                int count) {
    mln_cuda_spare *spare = calloc(1, sizeof *spare);
    if (!spare)
        return mln_cuda_fail(l->error, MYELIN_ERROR_MEMORY, "could not allocate a matrix");
    spare->next = l->model->spares;
    l->model->spares = spare;
    m->tile_code = MLN_TILE_DENSE;
    uint64_t bytes = tile_bytes(m);
    myelin_status status = mln_cuda_allocated(l->model, cudaMalloc((void **)&spare->memory, bytes),
                                              bytes, "a matrix that could not be packed", l->error);
    if (status != MYELIN_OK)
        return status;
    m->data = spare->memory;
    l->model->weight_bytes += bytes;
    status = mln_cuda_check(cudaMemsetAsync(m->data, 0, bytes, l->stream), "cudaMemset", l->error);
    return status == MYELIN_OK ? fill_tiles(l, m, tensors, count) : status;
}

static myelin_status load_tiles(loader *l, mln_cuda_matrix *m, const myelin_tensor *const *tensors,
                                int count) {
    take_tiles(l, m);
    if (!l->base)
        return MYELIN_OK;
    if (m->tile_code != MLN_TILE_PACKED)
        return fill_tiles(l, m, tensors, count);
    int32_t full = 0;
    cudaError_t code = cudaMemsetAsync(l->full, 0, sizeof *l->full, l->stream);
    if (code == cudaSuccess) /* NO_ESCAPE */
        code = cudaMemsetAsync(m->escapes, 0xff, escape_bytes(m), l->stream);
    myelin_status status = mln_cuda_check(code, "cudaMemset", l->error);
    if (status == MYELIN_OK)
        status = fill_tiles(l, m, tensors, count);
    if (status != MYELIN_OK)
        return status;
    code = cudaMemcpyAsync(&full, l->full, sizeof full, cudaMemcpyDeviceToHost, l->stream);
    if (code == cudaSuccess)
        code = cudaStreamSynchronize(l->stream);
    status = mln_cuda_check(code, "packing weights", l->error);
    if (status != MYELIN_OK || full)
        return status == MYELIN_OK ? fill_dense(l, m, tensors, count) : status;
    l->model->packed = true;
    return MYELIN_OK;
}

static size_t element_size(int32_t dtype) {
    return dtype == MYELIN_DTYPE_F32 ? 4 : 2;
}

/* Whether and how a tensor's weights go into tiles. */
static int32_t tile_code_of(const loader *l, const myelin_tensor *t) {
    if (t->dtype == MYELIN_DTYPE_BF16 && l->pack &&
        t->shape[1] <= (int64_t)MLN_PACKED_MOST_UNITS * MLN_UNIT_COLUMNS)
        return MLN_TILE_PACKED;
    if (t->dtype == MYELIN_DTYPE_BF16 || t->dtype == MYELIN_DTYPE_F16)
        return MLN_TILE_DENSE;
    if (t->dtype != MYELIN_DTYPE_AFFINE || t->scale_dtype == MYELIN_DTYPE_F32)
        return MLN_TILE_NONE;
    if (t->group_size == MLN_UNIT_COLUMNS / 2)
        return t->bits == 4 ? MLN_TILE_Q4_PAIR : MLN_TILE_Q8_PAIR;
    if (t->group_size % MLN_UNIT_COLUMNS != 0)
        return MLN_TILE_NONE;
    return t->bits == 4 ? MLN_TILE_Q4 : MLN_TILE_Q8;
}

static mln_cuda_matrix describe(const loader *l, const myelin_tensor *t) {
    mln_cuda_matrix m = {.rows = t->shape[0], .columns = t->shape[1]};
    size_t bytes;
    if (t->dtype == MYELIN_DTYPE_AFFINE) {
        m.kind = t->bits == 4 ? MLN_CUDA_Q4 : MLN_CUDA_Q8;
        m.group = t->group_size;
        m.scale_dtype = t->scale_dtype;
        bytes = (size_t)m.columns * (size_t)t->bits / 8;
    } else {
        m.kind = t->dtype == MYELIN_DTYPE_F32   ? MLN_CUDA_F32
                 : t->dtype == MYELIN_DTYPE_F16 ? MLN_CUDA_F16
                                                : MLN_CUDA_BF16;
        bytes = (size_t)m.columns * element_size(t->dtype);
    }
    m.pitch = (int64_t)((bytes + 15) / 16 * 16);
    m.tile_code = tile_code_of(l, t);
    if (m.tile_code != MLN_TILE_NONE) {
        m.pitch = (int64_t)bytes;
        m.units = (int32_t)((m.columns + MLN_UNIT_COLUMNS - 1) / MLN_UNIT_COLUMNS);
    }
    return m;
}

static bool alike(const mln_cuda_matrix *a, const mln_cuda_matrix *b) {
    return a->kind == b->kind && a->group == b->group && a->scale_dtype == b->scale_dtype &&
           a->pitch == b->pitch && a->tile_code == b->tile_code;
}

/* Reads count tensors of one form as one matrix, rows after each other. */
static myelin_status load_matrix(loader *l, mln_cuda_matrix *m, const myelin_tensor *const *tensors,
                                 int count) {
    *m = describe(l, tensors[0]);
    for (int i = 1; i < count; i++)
        m->rows += tensors[i]->shape[0];
    if (m->tile_code != MLN_TILE_NONE)
        return load_tiles(l, m, tensors, count);
    bool affine = tensors[0]->dtype == MYELIN_DTYPE_AFFINE;
    size_t element = affine ? element_size(m->scale_dtype) : element_size(tensors[0]->dtype);
    size_t row_bytes = affine ? (size_t)m->pitch : (size_t)m->columns * element;
    size_t scale_bytes = affine ? (size_t)(m->columns / m->group) * element : 0;
    m->data = take(l, (uint64_t)m->rows * (uint64_t)m->pitch);
    unsigned char *scales = take(l, (uint64_t)m->rows * scale_bytes);
    unsigned char *biases = take(l, (uint64_t)m->rows * scale_bytes);
    m->scales = scales;
    m->biases = biases;
    myelin_status status = MYELIN_OK;
    for (int64_t i = 0, row = 0; i < count && l->base && status == MYELIN_OK; i++) {
        int64_t rows = tensors[i]->shape[0];
        status = copy_part(l, tensors[i], MYELIN_PART_DATA, rows, row_bytes,
                           m->data + row * m->pitch, (size_t)m->pitch);
        if (affine && status == MYELIN_OK)
            status = copy_part(l, tensors[i], MYELIN_PART_SCALES, rows, scale_bytes,
                               scales + (size_t)row * scale_bytes, scale_bytes);
        if (affine && status == MYELIN_OK)
            status = copy_part(l, tensors[i], MYELIN_PART_BIASES, rows, scale_bytes,
                               biases + (size_t)row * scale_bytes, scale_bytes);
        row += rows;
    }
    return status;
}

/* gate_proj and up_proj as one matrix whose tiles have eight rows of each. */
static myelin_status load_pair(loader *l, mln_cuda_matrix *m, const myelin_tensor *gate,
                               const myelin_tensor *up) {
    const myelin_tensor *both[] = {gate, up};
    *m = describe(l, gate);
    m->paired = 1;
    return load_tiles(l, m, both, 2);
}

static myelin_status load_one(loader *l, mln_cuda_matrix *m, const myelin_tensor *tensor) {
    return load_matrix(l, m, &tensor, 1);
}

/* A half or bfloat16 as a float. */
static float widen(uint16_t bits, int32_t dtype) {
    uint32_t wide = (uint32_t)bits << 16;
    float f;
    if (dtype == MYELIN_DTYPE_F16) {
        uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, rest = (uint32_t)(bits & 0x7fffu) << 13;
        bool special = (bits & 0x7c00u) == 0x7c00u;
        wide = special ? sign | 0x7f800000u | rest : rest;
        memcpy(&f, &wide, sizeof f);
        if (special)
            return f;
        f *= 0x1p112f;
        return sign ? -f : f;
    }
    memcpy(&f, &wide, sizeof f);
    return f;
}

static myelin_status upload(loader *l, float *to, const float *from, int64_t count) {
    cudaError_t code = cudaMemcpy(to, from, (size_t)count * sizeof *to, cudaMemcpyHostToDevice);
    return mln_cuda_check(code, "cudaMemcpy", l->error);
}

static myelin_status load_vector(loader *l, float **to, const myelin_tensor *tensor) {
    int64_t count = tensor->shape[0];
    *to = (float *)(void *)take(l, (uint64_t)count * sizeof **to);
    if (!l->base)
        return MYELIN_OK;
    float *wide = malloc((size_t)count * sizeof *wide);
    uint16_t *raw = malloc((size_t)count * sizeof *wide);
    myelin_status status = MYELIN_OK;
    if (!wide || !raw)
        status =
            mln_cuda_fail(l->error, MYELIN_ERROR_MEMORY, "could not allocate a norm's weights");
    if (status == MYELIN_OK)
        status =
            l->host->read(l->host->self, tensor, MYELIN_PART_DATA, 0, count,
                          tensor->dtype == MYELIN_DTYPE_F32 ? (void *)wide : (void *)raw, l->error);
    if (status == MYELIN_OK && tensor->dtype != MYELIN_DTYPE_F32)
        for (int64_t i = 0; i < count; i++)
            wide[i] = widen(raw[i], tensor->dtype);
    if (status == MYELIN_OK)
        status = upload(l, *to, wide, count);
    free(wide);
    free(raw);
    return status;
}

static myelin_status load_qkv(loader *l, mln_cuda_layer *to, const myelin_layer_weights *from) {
    const myelin_tensor *all[3] = {&from->q_proj, &from->k_proj, &from->v_proj};
    mln_cuda_matrix forms[3] = {describe(l, all[0]), describe(l, all[1]), describe(l, all[2])};
    to->num_qkv = alike(&forms[0], &forms[1]) && alike(&forms[0], &forms[2]) ? 1 : 3;
    if (to->num_qkv == 1)
        return load_matrix(l, &to->qkv[0], all, 3);
    myelin_status status = load_one(l, &to->qkv[0], all[0]);
    if (status == MYELIN_OK)
        status = load_one(l, &to->qkv[1], all[1]);
    return status == MYELIN_OK ? load_one(l, &to->qkv[2], all[2]) : status;
}

static myelin_status load_layer(loader *l, mln_cuda_layer *to, const myelin_layer_weights *from) {
    const struct {
        float **to;
        const myelin_tensor *from;
    } vectors[] = {{&to->input_layernorm, &from->input_layernorm},
                   {&to->post_attention_layernorm, &from->post_attention_layernorm},
                   {&to->q_norm, &from->q_norm},
                   {&to->k_norm, &from->k_norm}};
    const struct {
        mln_cuda_matrix *to;
        const myelin_tensor *from;
    } matrices[] = {{&to->o_proj, &from->o_proj},
                    {&to->down_proj, &from->down_proj},
                    {&to->gate_proj, &from->gate_proj},
                    {&to->up_proj, &from->up_proj}};
    mln_cuda_matrix gate = describe(l, &from->gate_proj), up = describe(l, &from->up_proj);
    to->gated = alike(&gate, &up);
    bool paired = to->gated && gate.tile_code != MLN_TILE_NONE;
    myelin_status status = load_qkv(l, to, from);
    for (int i = 0; i < (paired ? 2 : 4) && status == MYELIN_OK; i++)
        status = load_one(l, matrices[i].to, matrices[i].from);
    if (paired && status == MYELIN_OK)
        status = load_pair(l, &to->gate_proj, &from->gate_proj, &from->up_proj);
    for (int i = 0; i < 4 && status == MYELIN_OK; i++)
        status = load_vector(l, vectors[i].to, vectors[i].from);
    return status;
}

static myelin_status load_rope(loader *l, myelin_plugin_model *model) {
    int64_t half = model->config.head_dim / 2;
    float inv_freq[MLN_CUDA_MAX_HEAD_DIM / 2];
    model->inv_freq = (float *)(void *)take(l, (uint64_t)half * sizeof *inv_freq);
    mln_rope_inv_freq(inv_freq, &model->config.rope, model->config.head_dim);
    return l->base ? upload(l, model->inv_freq, inv_freq, half) : MYELIN_OK;
}

static myelin_status walk(loader *l, myelin_plugin_model *model, const myelin_weights *weights) {
    myelin_status status = load_one(l, &model->embed_tokens, &weights->embed_tokens);
    for (int32_t i = 0; i < weights->num_layers && status == MYELIN_OK; i++)
        status = load_layer(l, &model->layers[i], &weights->layers[i]);
    if (status == MYELIN_OK)
        status = load_vector(l, &model->norm, &weights->norm);
    if (status == MYELIN_OK)
        status = load_rope(l, model);
    if (status != MYELIN_OK)
        return status;
    if (!model->config.tie_word_embeddings)
        return load_one(l, &model->lm_head, &weights->lm_head);
    model->lm_head = model->embed_tokens;
    return MYELIN_OK;
}

/* --- what can be run --- */

/* The major number of the compute capability of this thread's device. */
static cudaError_t capability(int *major) {
    int device = 0;
    cudaError_t code = cudaGetDevice(&device);
    return code == cudaSuccess
               ? cudaDeviceGetAttribute(major, cudaDevAttrComputeCapabilityMajor, device)
               : code;
}

static myelin_status check_device(myelin_error_buffer *error) {
    int devices = 0;
    cudaError_t code = cudaGetDeviceCount(&devices);
    if (code != cudaSuccess || devices == 0)
        return mln_cuda_fail(error, MYELIN_ERROR_UNSUPPORTED, "no NVIDIA device: %s",
                             code == cudaSuccess ? "none found" : cudaGetErrorString(code));
    int major = 0;
    code = capability(&major);
    if (code != cudaSuccess)
        return mln_cuda_check(code, "cudaDeviceGetAttribute", error);
    if (major < 8)
        return mln_cuda_fail(error, MYELIN_ERROR_UNSUPPORTED,
                             "the device's compute capability is %d.x, expected 8.0 or later",
                             major);
    return MYELIN_OK;
}

static myelin_status check_shape(const myelin_model_description *description,
                                 myelin_error_buffer *error) {
    const myelin_config *c = description->config;
    int32_t group = c->num_attention_heads / c->num_key_value_heads;
    if (c->head_dim > MLN_CUDA_MAX_HEAD_DIM)
        return mln_cuda_fail(error, MYELIN_ERROR_UNSUPPORTED,
                             "head_dim is %" PRId32 ", expected at most %d", c->head_dim,
                             MLN_CUDA_MAX_HEAD_DIM);
    if (group > MLN_CUDA_MAX_GROUP)
        return mln_cuda_fail(error, MYELIN_ERROR_UNSUPPORTED,
                             "%" PRId32 " query heads share a kv head, expected at most %d", group,
                             MLN_CUDA_MAX_GROUP);
    int64_t widest = (int64_t)c->num_attention_heads * c->head_dim;
    widest = c->hidden_size > widest ? c->hidden_size : widest;
    widest = c->intermediate_size > widest ? c->intermediate_size : widest;
    if (widest > MAX_COLUMNS)
        return mln_cuda_fail(error, MYELIN_ERROR_UNSUPPORTED,
                             "rows of %" PRId64 " columns, expected at most %d", widest,
                             MAX_COLUMNS);
    return MYELIN_OK;
}

/* Bytes of a layer's matrices as they are in the files, of bfloat16. */
static uint64_t layer_bytes(const myelin_layer_weights *layer) {
    const myelin_tensor *all[] = {&layer->q_proj,   &layer->k_proj,  &layer->v_proj,
                                  &layer->o_proj,   &layer->up_proj, &layer->gate_proj,
                                  &layer->down_proj};
    uint64_t bytes = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        bytes += (uint64_t)all[i]->shape[0] * (uint64_t)all[i]->shape[1] * sizeof(uint16_t);
    return bytes;
}

/* Whether what is bfloat16 is packed; without a wish, when persist.h would not decode the model
 * anyway: small layers dense are decoded faster by that than packed ones by the graph. */
static bool packs(const myelin_model_description *description) {
    if (description->pack != MYELIN_PACK_AUTO)
        return description->pack == MYELIN_PACK_LOSSLESS;
    return description->weights->num_layers > 0 &&
           layer_bytes(&description->weights->layers[0]) > MLN_CUDA_LARGEST_LAYER;
}

/* Bytes of device memory the weights take. */
static myelin_status count_bytes(const myelin_model_description *description, uint64_t *bytes,
                                 myelin_error_buffer *error) {
    loader counter = {.error = error, .pack = packs(description)};
    myelin_plugin_model model = {.config = *description->config};
    model.layers = calloc((size_t)description->weights->num_layers, sizeof *model.layers);
    if (!model.layers)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate the layers");
    myelin_status status = walk(&counter, &model, description->weights);
    free(model.layers);
    *bytes = counter.used;
    return status;
}

static myelin_status check_memory(uint64_t needed, myelin_error_buffer *error) {
    size_t available = 0, total = 0;
    cudaError_t code = cudaMemGetInfo(&available, &total);
    if (code != cudaSuccess)
        return mln_cuda_check(code, "cudaMemGetInfo", error);
    if (needed + RESERVED_BYTES > available)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY,
                             "the weights need %.2f GB of device memory and %.2f GB beside them, "
                             "found %.2f GB free of %.2f GB",
                             (double)needed / 1e9, (double)RESERVED_BYTES / 1e9,
                             (double)available / 1e9, (double)total / 1e9);
    return MYELIN_OK;
}

myelin_status mln_cuda_probe(const myelin_model_description *description,
                             myelin_error_buffer *error) {
    uint64_t bytes = 0;
    myelin_status status = check_device(error);
    if (status == MYELIN_OK)
        status = check_shape(description, error);
    if (status == MYELIN_OK)
        status = count_bytes(description, &bytes, error);
    return status == MYELIN_OK ? check_memory(bytes, error) : status;
}

/* --- the model --- */

static myelin_status open_staging(loader *l) {
    cudaError_t code = cudaStreamCreateWithFlags(&l->stream, cudaStreamNonBlocking);
    for (int i = 0; i < 2 && code == cudaSuccess; i++) {
        code = cudaMallocHost((void **)&l->staging[i], STAGING_BYTES);
        if (code == cudaSuccess)
            code = cudaEventCreateWithFlags(&l->free[i], cudaEventDisableTiming);
    }
    if (code == cudaSuccess)
        code = cudaMalloc((void **)&l->raw, STAGING_BYTES + sizeof *l->full);
    if (code == cudaSuccess)
        l->full = (int32_t *)(void *)(l->raw + STAGING_BYTES);
    return mln_cuda_check(code, "memory for loading", l->error);
}

static void close_staging(loader *l) {
    if (l->stream) {
        cudaStreamSynchronize(l->stream);
        cudaStreamDestroy(l->stream);
    }
    cudaFree(l->raw);
    for (int i = 0; i < 2; i++) {
        if (l->free[i])
            cudaEventDestroy(l->free[i]);
        cudaFreeHost(l->staging[i]);
    }
}

/*
 * Whether products of warp groups may take the place of others: on a device that has them, and on
 * which some thousands of them add up to the same bits.
 */
static myelin_status check_wgmma(bool *usable, myelin_error_buffer *error) {
    int device = 0, major = 0, minor = 0;
    int32_t *different = NULL, found[MLN_CUDA_CHECKS] = {0};
    *usable = false;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (major != 9 || minor != 0)
        return MYELIN_OK;
    cudaError_t code = cudaMalloc((void **)&different, sizeof found);
    if (code == cudaSuccess)
        code = cudaMemset(different, 0, sizeof found);
    if (code == cudaSuccess)
        code = mln_cuda_wgmma_check(1, 20 * MLN_CUDA_CHECKS, different, NULL);
    if (code == cudaSuccess)
        code = cudaMemcpy(found, different, sizeof found, cudaMemcpyDeviceToHost);
    cudaFree(different);
    if (code == cudaSuccess)
        code = mln_cuda_prepare_wgmma();
    if (code == cudaSuccess)
        code = mln_cuda_prepare_groups();
    *usable = true;
    for (int i = 0; i < MLN_CUDA_CHECKS; i++)
        *usable = *usable && found[i] == 0;
    return mln_cuda_check(code, "comparing products", error);
}

static myelin_status load(myelin_plugin_model *model, const myelin_model_description *description,
                          const myelin_host *host, myelin_error_buffer *error) {
    uint64_t bytes = 0;
    model->layers = calloc((size_t)description->weights->num_layers, sizeof *model->layers);
    if (!model->layers)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate the layers");
    myelin_status status = count_bytes(description, &bytes, error);
    if (status == MYELIN_OK)
        status = check_memory(bytes, error);
    if (status == MYELIN_OK)
        status = mln_cuda_check(mln_cuda_prepare_device(), "preparing the kernels", error);
    if (status == MYELIN_OK)
        status = mln_cuda_allocated(model, cudaMalloc((void **)&model->arena, bytes), bytes,
                                    "the weights", error);
    if (status == MYELIN_OK)
        status = mln_cuda_check(cudaMemset(model->arena, 0, bytes), "cudaMemset", error);
    if (status == MYELIN_OK) /* the loader's stream does not wait for it */
        status = mln_cuda_check(cudaStreamSynchronize(NULL), "cudaMemset", error);
    if (status != MYELIN_OK)
        return status;
    model->weight_bytes = bytes;
    loader l = {.host = host,
                .error = error,
                .model = model,
                .base = model->arena,
                .pack = packs(description)};
    status = check_wgmma(&l.wgmma, error);
    if (status == MYELIN_OK)
        status = open_staging(&l);
    if (status == MYELIN_OK)
        status = walk(&l, model, description->weights);
    if (status == MYELIN_OK)
        status = mln_cuda_check(cudaStreamSynchronize(l.stream), "copying the weights", error);
    close_staging(&l);
    return status;
}

myelin_status mln_cuda_load(const myelin_model_description *description, const myelin_host *host,
                            myelin_plugin_model **out, myelin_error_buffer *error) {
    *out = NULL;
    myelin_plugin_model *model = calloc(1, sizeof *model);
    if (!model)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate a model");
    model->config = *description->config;
    model->fusion = description->fusion;
    int major = 0;
    capability(&major);
    model->early = major >= 9;
    model->half_cache = model->config.torch_dtype != MYELIN_DTYPE_F32;
    myelin_status status = load(model, description, host, error);
    if (status != MYELIN_OK) {
        mln_cuda_free_model(model);
        return status;
    }
    *out = model;
    return MYELIN_OK;
}

void mln_cuda_free_model(myelin_plugin_model *model) {
    if (!model)
        return;
    bool stuck = mln_cuda_is_stuck(model);
    while (model->spares) {
        mln_cuda_spare *spare = model->spares;
        model->spares = spare->next;
        if (!stuck)
            cudaFree(spare->memory);
        free(spare);
    }
    if (!stuck)
        cudaFree(model->arena);
    free(model->layers);
    free(model);
}
