/* SPDX-License-Identifier: Apache-2.0 */
/* The NVIDIA plug-in's sequences and contexts, its calls, and the table of them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_STEPS = MLN_PERSIST_STEPS };   /* tokens between two looks of the host */
enum { GRAPH_ROOM = 64 << 20 };           /* several devices: bytes free when a graph is made */
#define PARTIAL_BYTES (INT64_C(64) << 20) /* most that splits of attention may take */

static myelin_status probe(const myelin_model_description *description,
                           myelin_error_buffer *error) {
    if (description->struct_size < sizeof *description)
        return mln_cuda_fail_argument(error, "struct_size", sizeof *description, UINT32_MAX,
                                      description->struct_size);
    return mln_cuda_probe(description, error);
}

/* --- contexts --- */

static int32_t splits_of(int64_t positions) {
    return (int32_t)((positions + MLN_CUDA_SPLIT - 1) / MLN_CUDA_SPLIT);
}

/* Splits rounded up to a power of two, so that few graphs serve all lengths. */
static int32_t bucket_of(int32_t splits, int32_t *bucket) {
    int32_t rounded = 4;
    for (*bucket = 0; rounded < splits; rounded *= 2)
        ++*bucket;
    return rounded;
}

/* Cuts device memory into arrays, or with base NULL only adds up what they take. */
typedef struct carver {
    unsigned char *base;
    uint64_t used;
} carver;

static void *carve(carver *from, int64_t count, size_t size) {
    void *array = from->base ? from->base + from->used : NULL;
    from->used += ((uint64_t)count * size + 255) / 256 * 256;
    return array;
}

/* Activations of max_tokens as the tensor cores read them. */
static int64_t fragment_bytes(const myelin_plugin_context *c, const myelin_config *config) {
    int64_t widest = (int64_t)config->num_attention_heads * config->head_dim;
    widest = config->hidden_size > widest ? config->hidden_size : widest;
    widest = config->intermediate_size > widest ? config->intermediate_size : widest;
    return mln_cuda_fragment_bytes(widest, c->max_tokens);
}

static void carve_context(carver *from, myelin_plugin_context *c, const myelin_config *config) {
    int64_t rows = c->max_tokens, q = (int64_t)config->num_attention_heads * config->head_dim;
    int64_t kv = (int64_t)config->num_key_value_heads * config->head_dim;
    int32_t bucket, splits = bucket_of(splits_of(c->max_len), &bucket);
    int64_t each = (int64_t)config->num_attention_heads * splits * (config->head_dim + 2);
    int64_t tokens = PARTIAL_BYTES / (each * (int64_t)sizeof(float));
    c->attend_tokens = (int32_t)(tokens < 1 ? 1 : tokens < rows ? tokens : rows);
    c->max_steps = MAX_STEPS;
    c->rows = carve(from, rows, sizeof *c->rows);
    c->residual = carve(from, rows * config->hidden_size, sizeof(float));
    c->qkv = carve(from, rows * (q + 2 * kv), sizeof(float));
    c->attended = carve(from, rows * q, sizeof(float));
    c->gated = carve(from, rows * config->intermediate_size, sizeof(float));
    c->queries = carve(from, rows * q, 2);
    c->fragments = carve(from, fragment_bytes(c, config), 1);
    c->factors = carve(from, rows, sizeof *c->factors);
    c->partial = carve(from, c->attend_tokens * each, sizeof(float));
    c->logits = carve(from, (int64_t)MLN_CUDA_HEAD_ROWS * config->vocab_size, sizeof(float));
    c->angles = carve(from, rows * (config->head_dim / 2), sizeof *c->angles);
    c->done = carve(from, rows * config->num_key_value_heads, sizeof *c->done);
    c->pieces = carve(from, rows, sizeof *c->pieces);
    c->wanted = carve(from, MLN_CUDA_HEAD_ROWS, sizeof *c->wanted);
    int64_t one = config->vocab_size / MLN_CUDA_WARPS + 1; /* of a token alone; else fewer */
    int64_t many = rows * (config->vocab_size / (2 * MLN_CUDA_WARPS) + 1);
    c->best = carve(from, one > many ? one : many, sizeof *c->best);
    int64_t chunks = (config->vocab_size + MLN_SAMPLE_CHUNK - 1) / MLN_SAMPLE_CHUNK;
    c->peaks = carve(from, MLN_CUDA_HEAD_ROWS * chunks, sizeof *c->peaks);
    c->wide = carve(from, MLN_CUDA_HEAD_ROWS, sizeof *c->wide);
    int64_t shares = mln_cuda_sample_shares(config->vocab_size);
    c->keys = carve(from, MLN_CUDA_HEAD_ROWS * shares, sizeof *c->keys);
    c->draws = carve(from, rows, sizeof *c->draws);
    c->out_ids = carve(from, rows * MAX_STEPS, sizeof *c->out_ids);
    c->steps = carve(from, 1, sizeof *c->steps);
    c->persist_memory = carve(from, 1, mln_cuda_persist_bytes(config, c->max_len));
}

static uint64_t context_bytes(const myelin_config *config, int32_t max_tokens, int32_t max_len) {
    if (max_tokens < 1 || max_len < 1)
        return 0;
    carver counter = {0};
    myelin_plugin_context none = {.max_tokens = max_tokens, .max_len = max_len};
    carve_context(&counter, &none, config);
    return counter.used + sizeof none;
}

/* Entries of the table of graphs. */
static size_t graph_slots(const myelin_plugin_context *c) {
    return 3 * ((size_t)c->max_tokens + 1) * MLN_CUDA_BUCKETS;
}

static void free_on_device(myelin_plugin_context *c) {
    for (size_t i = 0; c->graphs && i < graph_slots(c); i++)
        if (c->graphs[i])
            cudaGraphExecDestroy(c->graphs[i]);
    for (int i = 0; i < 2; i++)
        if (c->marks[i])
            cudaEventDestroy(c->marks[i]);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    cudaFree(c->arena);
    cudaFreeHost(c->host_rows);
    cudaFreeHost(c->host_pieces);
    cudaFreeHost(c->host_ids);
}

static void free_context(myelin_plugin_context *c) {
    if (!c)
        return;
    if (!mln_cuda_is_stuck(c->model))
        free_on_device(c);
    free(c->graphs);
    free(c);
}

/* What is read before anything was written there. */
static cudaError_t clear(myelin_plugin_context *c) {
    const myelin_config *config = &c->model->config;
    size_t rows = (size_t)c->max_tokens;
    cudaError_t code =
        cudaMemset(c->done, 0, rows * (size_t)config->num_key_value_heads * sizeof *c->done);
    if (code == cudaSuccess)
        code = cudaMemset(c->wide, 0, MLN_CUDA_HEAD_ROWS * sizeof *c->wide);
    if (code == cudaSuccess) /* by tokens that a block has room for and a call does not have */
        code = cudaMemset(c->fragments, 0, (size_t)fragment_bytes(c, config));
    return code;
}

static myelin_status allocate(myelin_plugin_context *c, myelin_error_buffer *error) {
    carver from = {0};
    carve_context(&from, c, &c->model->config);
    size_t rows = (size_t)c->max_tokens;
    c->graphs = calloc(graph_slots(c), sizeof(cudaGraphExec_t));
    if (!c->graphs)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate scratch memory");
    cudaError_t code = cudaMalloc((void **)&c->arena, from.used);
    if (code == cudaSuccess)
        code = cudaMallocHost((void **)&c->host_rows, rows * sizeof *c->host_rows);
    if (code == cudaSuccess)
        code = cudaMallocHost((void **)&c->host_pieces, rows * sizeof *c->host_pieces);
    if (code == cudaSuccess)
        code = cudaMallocHost((void **)&c->host_ids, (rows * MAX_STEPS + 1) * sizeof *c->host_ids);
    if (code == cudaSuccess)
        code = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    for (int i = 0; i < 2 && c->model->link && code == cudaSuccess; i++)
        code = cudaEventCreateWithFlags(&c->marks[i], cudaEventDisableTiming);
    uint64_t bytes = from.used;
    from = (carver){c->arena, 0};
    carve_context(&from, c, &c->model->config);
    if (code == cudaSuccess)
        code = clear(c);
    if (code == cudaSuccess)
        code = mln_cuda_persist_prepare(c, c->persist_memory);
    if (code == cudaSuccess) /* the context's stream does not wait for it */
        code = cudaStreamSynchronize(NULL);
    return mln_cuda_allocated(c->model, code, bytes, "scratch memory", error);
}

static myelin_status create_context(const myelin_plugin_model *model, int32_t max_tokens,
                                    int32_t max_len, myelin_plugin_context **out,
                                    myelin_error_buffer *error) {
    *out = NULL;
    if (max_tokens < 1)
        return mln_cuda_fail_argument(error, "max_tokens", 1, INT32_MAX, max_tokens);
    if (max_len < 1)
        return mln_cuda_fail_argument(error, "max_len", 1, INT32_MAX, max_len);
    myelin_status status = mln_cuda_alive(model, error);
    if (status != MYELIN_OK)
        return status;
    myelin_plugin_context *c = calloc(1, sizeof *c);
    if (!c)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate scratch memory");
    c->model = model;
    c->max_tokens = max_tokens;
    c->max_len = max_len;
    status = allocate(c, error);
    if (status != MYELIN_OK) {
        free_context(c);
        return status;
    }
    *out = c;
    return MYELIN_OK;
}

/* --- calls --- */

static myelin_status check_room(const myelin_plugin_context *c,
                                const myelin_plugin_sequence *sequence, int64_t count,
                                myelin_error_buffer *error) {
    int32_t most = sequence->capacity < c->max_len ? sequence->capacity : c->max_len;
    if (sequence->length + count > most)
        return mln_cuda_fail_argument(error, "positions of a sequence", 0, most,
                                      sequence->length + count);
    return MYELIN_OK;
}

static myelin_status check_ids(const myelin_plugin_context *c, const int32_t *ids, int64_t count,
                               myelin_error_buffer *error) {
    int32_t vocab = c->model->config.vocab_size;
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return mln_cuda_fail_argument(error, "a token id", 0, vocab - 1, ids[i]);
    return MYELIN_OK;
}

static myelin_status check_spans(const myelin_plugin_context *c, const myelin_span *spans,
                                 int32_t num_spans, myelin_error_buffer *error) {
    int64_t rows = 0;
    myelin_status status = mln_cuda_alive(c->model, error);
    for (int32_t s = 0; s < num_spans && status == MYELIN_OK; s++) {
        const myelin_span *span = &spans[s];
        if (span->count < 1)
            return mln_cuda_fail_argument(error, "tokens of a span", 1, c->max_tokens, span->count);
        if (span->num_logits < 0 || span->num_logits > span->count)
            return mln_cuda_fail_argument(error, "num_logits", 0, span->count, span->num_logits);
        rows += span->count;
        if (rows > c->max_tokens)
            return mln_cuda_fail_argument(error, "tokens of a call", 1, c->max_tokens, rows);
        status = check_room(c, span->sequence, span->count, error);
        if (status == MYELIN_OK)
            status = check_ids(c, span->ids, span->count, error);
    }
    return status;
}

/* Rows whose logits are wanted, of any spans, and where they go. */
typedef struct wanted_rows {
    int32_t rows[MLN_CUDA_HEAD_ROWS];
    float *to[MLN_CUDA_HEAD_ROWS];
    int32_t count;
} wanted_rows;

/* All devices have the same results: one tells the host. */
static bool writes_out(const myelin_plugin_context *c) {
    return !c->model->link || c->model->link->rank == 0;
}

static cudaError_t copy_logits(myelin_plugin_context *c, wanted_rows *wanted) {
    int64_t vocab = c->model->config.vocab_size;
    cudaError_t code =
        cudaMemcpyAsync(c->wanted, wanted->rows, (size_t)wanted->count * sizeof *wanted->rows,
                        cudaMemcpyHostToDevice, c->stream);
    if (code == cudaSuccess)
        code = mln_cuda_head(c, wanted->count);
    if (code == cudaSuccess && c->model->link) /* the copies wait, and not for lost devices */
        code = mln_cuda_wait(c);
    for (int32_t i = 0, end; i < wanted->count && code == cudaSuccess && writes_out(c); i = end) {
        for (end = i + 1; end < wanted->count && wanted->to[end] == wanted->to[end - 1] + vocab;)
            end++;
        code = cudaMemcpyAsync(wanted->to[i], c->logits + i * vocab,
                               (size_t)(end - i) * (size_t)vocab * sizeof *c->logits,
                               cudaMemcpyDeviceToHost, c->stream);
    }
    wanted->count = 0;
    /* `wanted` and `logits` are used again by the next call. */
    return code == cudaSuccess ? mln_cuda_wait(c) : code;
}

static cudaError_t write_logits(myelin_plugin_context *c, const myelin_span *spans,
                                int32_t num_spans) {
    cudaError_t code = cudaSuccess;
    wanted_rows wanted = {.count = 0};
    int32_t end = 0;
    for (int32_t s = 0; s < num_spans; s++) {
        end += spans[s].count;
        for (int32_t i = 0; i < spans[s].num_logits && code == cudaSuccess; i++) {
            wanted.rows[wanted.count] = end - spans[s].num_logits + i;
            wanted.to[wanted.count++] = spans[s].logits + (int64_t)i * c->model->config.vocab_size;
            if (wanted.count == MLN_CUDA_HEAD_ROWS)
                code = copy_logits(c, &wanted);
        }
    }
    return code == cudaSuccess && wanted.count > 0 ? copy_logits(c, &wanted) : code;
}

/* Rows of one sequence from `first` on, in pieces that attention takes at once. */
static void add_pieces(myelin_plugin_context *c, int32_t first, int32_t count) {
    const myelin_config *config = &c->model->config;
    int32_t most = mln_cuda_piece_tokens(config->num_attention_heads, config->num_key_value_heads);
    for (int32_t t = 0; t < count; t += most)
        c->host_pieces[c->num_pieces++] =
            (int2){.x = first + t, .y = count - t < most ? count - t : most};
}

static cudaError_t upload_rows(myelin_plugin_context *c, int32_t rows) {
    cudaError_t code = cudaMemcpyAsync(c->rows, c->host_rows, (size_t)rows * sizeof *c->rows,
                                       cudaMemcpyHostToDevice, c->stream);
    if (code != cudaSuccess)
        return code;
    return cudaMemcpyAsync(c->pieces, c->host_pieces, (size_t)c->num_pieces * sizeof *c->pieces,
                           cudaMemcpyHostToDevice, c->stream);
}

/* Rows of the spans to the device; returns how many, and the splits the longest reaches. */
static int32_t describe_rows(myelin_plugin_context *c, const myelin_span *spans, int32_t num_spans,
                             int32_t *splits, bool *own) {
    int32_t rows = 0;
    int64_t longest = 0;
    *own = true;
    c->num_pieces = 0;
    for (int32_t s = 0; s < num_spans; s++) {
        const myelin_plugin_sequence *sequence = spans[s].sequence;
        add_pieces(c, rows, spans[s].count);
        for (int32_t t = 0; t < spans[s].count; t++)
            c->host_rows[rows++] = (mln_cuda_row){.cache = sequence->cache,
                                                  .pages = sequence->device_pages,
                                                  .capacity = sequence->capacity,
                                                  .position = sequence->length + t,
                                                  .id = spans[s].ids[t]};
        *own = *own && spans[s].count == 1;
        if (sequence->length + spans[s].count > longest)
            longest = sequence->length + spans[s].count;
    }
    int32_t bucket;
    *splits = bucket_of(splits_of(longest), &bucket);
    return rows;
}

/* All layers over the spans' tokens, enqueued. */
static cudaError_t run_spans(myelin_plugin_context *c, const myelin_span *spans,
                             int32_t num_spans) {
    int32_t splits;
    bool own;
    int32_t rows = describe_rows(c, spans, num_spans, &splits, &own);
    cudaError_t code = upload_rows(c, rows);
    for (int32_t s = 0; s < num_spans && code == cudaSuccess; s++)
        code = mln_cuda_upload_pages(spans[s].sequence, c->stream);
    return code == cudaSuccess ? mln_cuda_layers(c, rows, splits, own) : code;
}

static myelin_status finish_spans(myelin_plugin_context *c, const myelin_span *spans,
                                  int32_t num_spans, cudaError_t code, myelin_error_buffer *error) {
    code = mln_cuda_end(c, code);
    if (code != cudaSuccess)
        return mln_cuda_failed(c->model, code, "forward", error);
    for (int32_t s = 0; s < num_spans; s++)
        spans[s].sequence->length += spans[s].count;
    return MYELIN_OK;
}

static myelin_status forward(myelin_plugin_context *c, const myelin_span *spans, int32_t num_spans,
                             myelin_error_buffer *error) {
    myelin_status status = check_spans(c, spans, num_spans, error);
    if (status != MYELIN_OK || num_spans == 0)
        return status;
    cudaError_t code = run_spans(c, spans, num_spans);
    if (code == cudaSuccess)
        code = write_logits(c, spans, num_spans);
    return finish_spans(c, spans, num_spans, code, error);
}

static myelin_status forward_hidden(myelin_plugin_context *c, const myelin_span *spans,
                                    int32_t num_spans, float *hidden, myelin_error_buffer *error) {
    myelin_status status = check_spans(c, spans, num_spans, error);
    if (status != MYELIN_OK || num_spans == 0)
        return status;
    int64_t columns = c->model->config.hidden_size;
    cudaError_t code = run_spans(c, spans, num_spans);
    if (code == cudaSuccess && c->model->link) /* the copies wait, and not for lost devices */
        code = mln_cuda_wait(c);
    for (int32_t s = 0, end = 0; s < num_spans && code == cudaSuccess; s++) {
        end += spans[s].count;
        float *row = c->residual + (end - 1) * columns;
        code = mln_cuda_norm_launch(row, c->model->norm, (int32_t)columns,
                                    (float)c->model->config.rms_norm_eps, c->stream);
        if (code == cudaSuccess)
            code = cudaMemcpyAsync(hidden + s * columns, row, (size_t)columns * sizeof *row,
                                   cudaMemcpyDeviceToHost, c->stream);
    }
    return finish_spans(c, spans, num_spans, code, error);
}

/* --- chunks of tokens --- */

/* A call of decode_greedy(), or with draws of decode_sample(). */
typedef struct chunk_call {
    myelin_plugin_sequence *const *sequences;
    const myelin_draw *draws;
    int32_t count;
    bool wide; /* some draws are from all tokens */
} chunk_call;

static cudaError_t enqueue_step(myelin_plugin_context *c, const chunk_call *call, int32_t splits) {
    return call->draws ? mln_cuda_sampled(c, call->count, splits, call->wide)
                       : mln_cuda_greedy(c, call->count, splits);
}

/* NCCL's part of a graph cannot be taken back when it finds no memory: that is the connection's
 * end. */
static cudaError_t check_room_for_graph(const myelin_plugin_context *c) {
    size_t available = 0, total = 0;
    if (!c->model->link)
        return cudaSuccess;
    cudaError_t code = cudaMemGetInfo(&available, &total);
    return code == cudaSuccess && available < GRAPH_ROOM ? cudaErrorMemoryAllocation : code;
}

static cudaError_t make_graph(myelin_plugin_context *c, const chunk_call *call, int32_t splits,
                              cudaGraphExec_t *graph) {
    cudaGraph_t captured = NULL;
    cudaError_t code = cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal);
    if (code != cudaSuccess)
        return code;
    c->captures = true;
    cudaError_t inside = enqueue_step(c, call, splits);
    c->captures = false;
    code = cudaStreamEndCapture(c->stream, &captured);
    if (inside != cudaSuccess)
        code = inside;
    if (code == cudaSuccess)
        code = cudaGraphInstantiate(graph, captured, 0);
    if (captured)
        cudaGraphDestroy(captured);
    if (code != cudaSuccess)
        *graph = NULL;
    return code;
}

/* The graph of a step, made when first wanted. */
static cudaError_t graph_of(myelin_plugin_context *c, const chunk_call *call, int32_t splits,
                            cudaGraphExec_t *graph) {
    int32_t bucket, rounded = bucket_of(splits, &bucket);
    int64_t kind = call->wide ? 2 : call->draws ? 1 : 0;
    int64_t row = call->count + kind * (c->max_tokens + (int64_t)1);
    cudaGraphExec_t *slot = &c->graphs[row * MLN_CUDA_BUCKETS + bucket];
    *graph = *slot;
    if (*slot)
        return cudaSuccess;
    cudaError_t code = check_room_for_graph(c);
    if (code == cudaSuccess)
        code = make_graph(c, call, rounded, slot);
    /* No device works while another's memory changes, and all have a graph or none. */
    if (c->model->link && (code == cudaSuccess || code == cudaErrorMemoryAllocation))
        code = mln_cuda_link_meet(c->model->link, code);
    if (code != cudaSuccess && *slot) {
        cudaGraphExecDestroy(*slot);
        *slot = NULL;
    }
    *graph = *slot;
    return code;
}

/*
 * One launch for all kernels of a step from rung `greedy` on; below it, and where there is no
 * memory for the graph, one for each.
 */
static cudaError_t launch_step(myelin_plugin_context *c, const chunk_call *call, int32_t splits) {
    int32_t fusion = c->model->fusion, bucket;
    if (fusion != MYELIN_FUSION_AUTO && fusion < MYELIN_FUSION_GREEDY)
        return enqueue_step(c, call, bucket_of(splits, &bucket));
    cudaGraphExec_t graph;
    cudaError_t code = graph_of(c, call, splits, &graph);
    if (code == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return enqueue_step(c, call, bucket_of(splits, &bucket));
    }
    return code == cudaSuccess ? cudaGraphLaunch(graph, c->stream) : code;
}

/* At most max_steps tokens of each; ids in host_rows. */
static cudaError_t run_chunk(myelin_plugin_context *c, const chunk_call *call, int32_t steps,
                             int32_t splits) {
    if (c->persists && call->count == 1 && !call->draws)
        return mln_cuda_persist_chunk(c, call->sequences[0], c->host_rows, steps);
    size_t count = (size_t)call->count;
    cudaError_t code = upload_rows(c, call->count);
    if (code == cudaSuccess)
        code = cudaMemcpyAsync(c->steps, &steps, sizeof steps, cudaMemcpyHostToDevice, c->stream);
    if (code == cudaSuccess && call->draws)
        code = cudaMemcpyAsync(c->draws, call->draws, count * sizeof *c->draws,
                               cudaMemcpyHostToDevice, c->stream);
    for (int32_t i = 0; i < call->count && code == cudaSuccess; i++)
        code = mln_cuda_upload_pages(call->sequences[i], c->stream);
    for (int32_t i = 0; i < steps && code == cudaSuccess; i++) {
        code = launch_step(c, call, splits);
        if (code == cudaSuccess)
            code = mln_cuda_pace(c);
    }
    if (code == cudaSuccess)
        code = cudaMemcpyAsync(c->host_ids, c->out_ids, count * (size_t)steps * sizeof *c->host_ids,
                               cudaMemcpyDeviceToHost, c->stream);
    return mln_cuda_end(c, code);
}

static myelin_status check_chunk(const myelin_plugin_context *c, const chunk_call *call,
                                 const int32_t *ids, int32_t steps, myelin_error_buffer *error) {
    if (call->count < 0 || call->count > c->max_tokens)
        return mln_cuda_fail_argument(error, "num_sequences", 0, c->max_tokens, call->count);
    if (steps < 1)
        return mln_cuda_fail_argument(error, "steps", 1, INT32_MAX, steps);
    myelin_status status = mln_cuda_alive(c->model, error);
    if (status == MYELIN_OK)
        status = check_ids(c, ids, call->count, error);
    for (int32_t s = 0; s < call->count && status == MYELIN_OK; s++)
        status = check_room(c, call->sequences[s], steps, error);
    return status;
}

/* Rows of the next chunk, after `done` of out_ids[count][steps]; the splits the longest reaches. */
static int32_t describe_chunk(myelin_plugin_context *c, const chunk_call *call, const int32_t *ids,
                              int32_t steps, int32_t done, int32_t chunk, const int32_t *out_ids) {
    int64_t longest = 0;
    c->num_pieces = 0;
    for (int32_t s = 0; s < call->count; s++) {
        const myelin_plugin_sequence *sequence = call->sequences[s];
        add_pieces(c, s, 1);
        int32_t position = sequence->length + done;
        c->host_rows[s] =
            (mln_cuda_row){.cache = sequence->cache,
                           .pages = sequence->device_pages,
                           .capacity = sequence->capacity,
                           .position = position,
                           .id = done == 0 ? ids[s] : out_ids[(int64_t)s * steps + done - 1]};
        longest = position + chunk > longest ? position + chunk : longest;
    }
    return splits_of(longest);
}

static myelin_status decode(myelin_plugin_context *c, const chunk_call *call, const int32_t *ids,
                            int32_t steps, int32_t *out_ids, const char *name,
                            myelin_error_buffer *error) {
    myelin_status status = check_chunk(c, call, ids, steps, error);
    if (status != MYELIN_OK || call->count == 0)
        return status;
    for (int32_t done = 0, chunk; done < steps; done += chunk) {
        chunk = steps - done < c->max_steps ? steps - done : c->max_steps;
        int32_t splits = describe_chunk(c, call, ids, steps, done, chunk, out_ids);
        cudaError_t code = run_chunk(c, call, chunk, splits);
        if (code != cudaSuccess)
            return mln_cuda_failed(c->model, code, name, error);
        for (int32_t s = 0; s < call->count; s++)
            memcpy(out_ids + (int64_t)s * steps + done, c->host_ids + (int64_t)s * chunk,
                   (size_t)chunk * sizeof *out_ids);
    }
    for (int32_t s = 0; s < call->count; s++)
        call->sequences[s]->length += steps;
    return MYELIN_OK;
}

static myelin_status decode_greedy(myelin_plugin_context *c,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   int32_t num_sequences, int32_t steps, int32_t *out_ids,
                                   myelin_error_buffer *error) {
    chunk_call call = {.sequences = sequences, .count = num_sequences};
    return decode(c, &call, ids, steps, out_ids, "decode_greedy", error);
}

static myelin_status decode_sample(myelin_plugin_context *c,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   const myelin_draw *draws, int32_t num_sequences, int32_t steps,
                                   int32_t *out_ids, myelin_error_buffer *error) {
    chunk_call call = {.sequences = sequences, .draws = draws, .count = num_sequences};
    for (int32_t s = 0; s < num_sequences; s++)
        call.wide = call.wide || mln_cuda_draws_from_all(&draws[s]);
    return decode(c, &call, ids, steps, out_ids, "decode_sample", error);
}

const myelin_plugin mln_cuda_rank = {
    .magic = MYELIN_PLUGIN_MAGIC,
    .abi_version = MYELIN_PLUGIN_ABI_VERSION,
    .struct_size = sizeof(myelin_plugin),
    .max_fusion = MYELIN_FUSION_CHUNK,
    .name = "qwen3_cuda",
    .probe = probe,
    .load = mln_cuda_load,
    .free_model = mln_cuda_free_model,
    .sequence_bytes = mln_cuda_sequence_bytes,
    .create_sequence = mln_cuda_create_sequence,
    .free_sequence = mln_cuda_free_sequence,
    .sequence_length = mln_cuda_sequence_length,
    .truncate_sequence = mln_cuda_truncate_sequence,
    .context_bytes = context_bytes,
    .create_context = create_context,
    .free_context = free_context,
    .forward = forward,
    .decode_greedy = decode_greedy,
    .forward_hidden = forward_hidden,
    .page_bytes = mln_cuda_page_bytes,
    .create_pool = mln_cuda_create_pool,
    .free_pool = mln_cuda_free_pool,
    .create_paged_sequence = mln_cuda_create_paged_sequence,
    .set_pages = mln_cuda_set_pages,
    .copy_page = mln_cuda_copy_page,
    .decode_sample = decode_sample,
};

__attribute__((visibility("default"))) const myelin_plugin *myelin_plugin_v1(void);

const myelin_plugin *myelin_plugin_v1(void) {
    return &mln_cuda_plugin;
}
