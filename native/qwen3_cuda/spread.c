/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plug-in's table: models on one device or spread over several. What the host holds of a model,
 * pool, sequence or context that is spread is the first device's, which knows the others'.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "group.h"

enum { DIRECT_TOKENS = 32 }; /* tokens of a call whose parts go straight to other devices */
enum { MAX_STEPS = 64 };     /* tokens of a call for one device */
enum { STEP_TOKENS = 2048 }; /* of a prompt that fill a device */

/* A context's: T = max_tokens. */
struct mln_cuda_ranks {
    myelin_plugin_context *contexts[MLN_SHARD_MAX_RANKS];
    myelin_span *spans;                 /* [ranks, T] */
    myelin_plugin_sequence **sequences; /* [ranks, T] */
    int32_t *lengths;                   /* [T] of the sequences before the call */
    int32_t *ids;                       /* [T] that a chunk begins with */
    int32_t *out_ids;                   /* [ranks, T * MAX_STEPS] */
};

static myelin_status check_group(const mln_cuda_group *group, myelin_error_buffer *error) {
    if (atomic_load(&group->lost) != 0)
        return mln_cuda_fail(error, MYELIN_ERROR_DEVICE,
                             "an earlier call failed on one of %" PRId32 " devices", group->ranks);
    return MYELIN_OK;
}

/* A call that does not compute, when no other is under way. */
static myelin_status call_all(mln_cuda_group *group, mln_group_task task, void *job,
                              myelin_error_buffer *error) {
    pthread_mutex_lock(&group->call);
    myelin_status status = mln_group_run(group, task, job, error);
    pthread_mutex_unlock(&group->call);
    return status;
}

static myelin_status make_all(mln_cuda_group *group, mln_group_task task, void *job,
                              myelin_error_buffer *error) {
    myelin_status status = check_group(group, error);
    return status == MYELIN_OK ? call_all(group, task, job, error) : status;
}

/* --- sequences and pools --- */

typedef struct sequence_job {
    const mln_cuda_group *group;
    myelin_plugin_pool *pool; /* NULL: not paged */
    myelin_plugin_sequence **made;
    int32_t max_len;
} sequence_job;

static myelin_status create_rank_sequence(void *argument, int32_t rank,
                                          myelin_error_buffer *error) {
    sequence_job *job = argument;
    if (job->pool)
        return mln_cuda_rank.create_paged_sequence(job->pool->ranks[rank], job->max_len,
                                                   &job->made[rank], error);
    return mln_cuda_rank.create_sequence(job->group->models[rank], job->max_len, &job->made[rank],
                                         error);
}

static myelin_status free_rank_sequence(void *argument, int32_t rank, myelin_error_buffer *error) {
    myelin_plugin_sequence **made = argument;
    (void)error;
    mln_cuda_rank.free_sequence(made[rank]);
    return MYELIN_OK;
}

static myelin_status create_sequences(mln_cuda_group *group, myelin_plugin_pool *pool,
                                      int32_t max_len, myelin_plugin_sequence **out,
                                      myelin_error_buffer *error) {
    sequence_job job = {.group = group, .pool = pool, .max_len = max_len};
    *out = NULL;
    job.made = calloc((size_t)group->ranks, sizeof(myelin_plugin_sequence *));
    if (!job.made)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate a KV cache");
    myelin_status status = make_all(group, create_rank_sequence, &job, error);
    if (status != MYELIN_OK) {
        call_all(group, free_rank_sequence, job.made, NULL);
        free(job.made);
        return status;
    }
    job.made[0]->ranks = job.made;
    *out = job.made[0];
    return MYELIN_OK;
}

static myelin_status create_sequence(const myelin_plugin_model *model, int32_t max_len,
                                     myelin_plugin_sequence **out, myelin_error_buffer *error) {
    return model->group ? create_sequences(model->group, NULL, max_len, out, error)
                        : mln_cuda_rank.create_sequence(model, max_len, out, error);
}

static myelin_status create_paged_sequence(myelin_plugin_pool *pool, int32_t max_len,
                                           myelin_plugin_sequence **out,
                                           myelin_error_buffer *error) {
    return pool->ranks ? create_sequences(pool->model->group, pool, max_len, out, error)
                       : mln_cuda_rank.create_paged_sequence(pool, max_len, out, error);
}

static void free_sequence(myelin_plugin_sequence *sequence) {
    if (!sequence || !sequence->ranks) {
        mln_cuda_rank.free_sequence(sequence);
        return;
    }
    myelin_plugin_sequence **ranks = sequence->ranks;
    call_all(sequence->model->group, free_rank_sequence, ranks, NULL);
    free(ranks);
}

static void truncate_sequence(myelin_plugin_sequence *sequence, int32_t length) {
    int32_t ranks = sequence->ranks ? sequence->model->group->ranks : 1;
    for (int32_t r = 0; r < ranks; r++)
        mln_cuda_rank.truncate_sequence(sequence->ranks ? sequence->ranks[r] : sequence, length);
}

static void set_pages(myelin_plugin_sequence *sequence, const int32_t *pages, int32_t count,
                      int32_t length) {
    int32_t ranks = sequence->ranks ? sequence->model->group->ranks : 1;
    for (int32_t r = 0; r < ranks; r++)
        mln_cuda_rank.set_pages(sequence->ranks ? sequence->ranks[r] : sequence, pages, count,
                                length);
}

typedef struct pool_job {
    const mln_cuda_group *group;
    myelin_plugin_pool **made;
    int32_t num_pages;
    int32_t to, from; /* of a copy */
} pool_job;

static myelin_status create_rank_pool(void *argument, int32_t rank, myelin_error_buffer *error) {
    pool_job *job = argument;
    return mln_cuda_rank.create_pool(job->group->models[rank], job->num_pages, &job->made[rank],
                                     error);
}

static myelin_status free_rank_pool(void *argument, int32_t rank, myelin_error_buffer *error) {
    pool_job *job = argument;
    (void)error;
    mln_cuda_rank.free_pool(job->made[rank]);
    return MYELIN_OK;
}

static myelin_status copy_rank_page(void *argument, int32_t rank, myelin_error_buffer *error) {
    pool_job *job = argument;
    (void)error;
    mln_cuda_rank.copy_page(job->made[rank], job->to, job->from);
    return MYELIN_OK;
}

static myelin_status create_pool(const myelin_plugin_model *model, int32_t num_pages,
                                 myelin_plugin_pool **out, myelin_error_buffer *error) {
    mln_cuda_group *group = model->group;
    if (!group)
        return mln_cuda_rank.create_pool(model, num_pages, out, error);
    pool_job job = {.group = group, .num_pages = num_pages};
    *out = NULL;
    job.made = calloc((size_t)group->ranks, sizeof(myelin_plugin_pool *));
    if (!job.made)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate a pool of pages");
    myelin_status status = make_all(group, create_rank_pool, &job, error);
    if (status != MYELIN_OK) {
        call_all(group, free_rank_pool, &job, NULL);
        free(job.made);
        return status;
    }
    job.made[0]->ranks = job.made;
    *out = job.made[0];
    return MYELIN_OK;
}

static void free_pool(myelin_plugin_pool *pool) {
    if (!pool || !pool->ranks) {
        mln_cuda_rank.free_pool(pool);
        return;
    }
    pool_job job = {.made = pool->ranks};
    call_all(pool->model->group, free_rank_pool, &job, NULL);
    free(job.made);
}

static void copy_page(myelin_plugin_pool *pool, int32_t to, int32_t from) {
    if (!pool->ranks) {
        mln_cuda_rank.copy_page(pool, to, from);
        return;
    }
    mln_cuda_group *group = pool->model->group;
    pool_job job = {.made = pool->ranks, .to = to, .from = from};
    if (atomic_load(&group->lost) == 0)
        call_all(group, copy_rank_page, &job, NULL);
}

/* --- contexts --- */

typedef struct context_job {
    const mln_cuda_group *group;
    struct mln_cuda_ranks *ranks;
    int32_t max_tokens, max_len;
} context_job;

static myelin_status create_rank_context(void *argument, int32_t rank, myelin_error_buffer *error) {
    context_job *job = argument;
    const myelin_plugin_model *model = job->group->models[rank];
    myelin_plugin_context **context = &job->ranks->contexts[rank];
    myelin_status status =
        mln_cuda_rank.create_context(model, job->max_tokens, job->max_len, context, error);
    if (status != MYELIN_OK)
        return status;
    int64_t tokens = job->max_tokens < DIRECT_TOKENS ? job->max_tokens : DIRECT_TOKENS;
    cudaError_t code =
        cudaMalloc((void **)&(*context)->gathered, mln_cuda_join_bytes(model, job->max_tokens));
    if (code == cudaSuccess)
        code = mln_cuda_direct_allocate(model->link, &(*context)->direct,
                                        tokens * model->config.hidden_size);
    if (code == cudaErrorMemoryAllocation)
        cudaGetLastError(); /* leaves the device usable */
    return mln_cuda_check(code, "allocating scratch memory", error);
}

static myelin_status free_rank_context(void *argument, int32_t rank, myelin_error_buffer *error) {
    context_job *job = argument;
    myelin_plugin_context *context = job->ranks->contexts[rank];
    (void)error;
    if (context && !mln_cuda_is_stuck(context->model)) {
        cudaFree(context->gathered);
        cudaFree(context->direct.memory);
    }
    mln_cuda_rank.free_context(context);
    return MYELIN_OK;
}

static void free_ranks(struct mln_cuda_ranks *ranks) {
    if (!ranks)
        return;
    free(ranks->spans);
    free(ranks->sequences);
    free(ranks->lengths);
    free(ranks->ids);
    free(ranks->out_ids);
    free(ranks);
}

static struct mln_cuda_ranks *make_ranks(size_t count, size_t max_tokens) {
    struct mln_cuda_ranks *ranks = calloc(1, sizeof *ranks);
    if (!ranks)
        return NULL;
    ranks->spans = calloc(count * max_tokens, sizeof *ranks->spans);
    ranks->sequences = calloc(count * max_tokens, sizeof(myelin_plugin_sequence *));
    ranks->lengths = calloc(max_tokens, sizeof *ranks->lengths);
    ranks->ids = calloc(max_tokens, sizeof *ranks->ids);
    ranks->out_ids = calloc(count * max_tokens * MAX_STEPS, sizeof *ranks->out_ids);
    if (ranks->spans && ranks->sequences && ranks->lengths && ranks->ids && ranks->out_ids)
        return ranks;
    free_ranks(ranks);
    return NULL;
}

static myelin_status create_context(const myelin_plugin_model *model, int32_t max_tokens,
                                    int32_t max_len, myelin_plugin_context **out,
                                    myelin_error_buffer *error) {
    mln_cuda_group *group = model->group;
    if (!group)
        return mln_cuda_rank.create_context(model, max_tokens, max_len, out, error);
    *out = NULL;
    if (max_tokens < 1)
        return mln_cuda_fail_argument(error, "max_tokens", 1, INT32_MAX, max_tokens);
    context_job job = {.group = group,
                       .ranks = make_ranks((size_t)group->ranks, (size_t)max_tokens),
                       .max_tokens = max_tokens,
                       .max_len = max_len};
    if (!job.ranks)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate scratch memory");
    myelin_status status = make_all(group, create_rank_context, &job, error);
    if (status != MYELIN_OK) {
        call_all(group, free_rank_context, &job, NULL);
        free_ranks(job.ranks);
        return status;
    }
    for (int32_t r = 0; r < group->ranks && model->link->direct; r++)
        for (int32_t q = 0; q < group->ranks; q++)
            job.ranks->contexts[r]->direct.inboxes[q] =
                (uint64_t *)(void *)job.ranks->contexts[q]->direct.memory;
    *out = job.ranks->contexts[0];
    (*out)->ranks = job.ranks;
    return MYELIN_OK;
}

static void free_context(myelin_plugin_context *context) {
    if (!context || !context->ranks) {
        mln_cuda_rank.free_context(context);
        return;
    }
    mln_cuda_group *group = context->model->group;
    context_job job = {.group = group, .ranks = context->ranks};
    call_all(group, free_rank_context, &job, NULL);
    free_ranks(job.ranks);
}

/* --- computing --- */

/* A call over all devices; what it is given lies in context->ranks. */
typedef struct compute_job {
    myelin_plugin_context *context;
    int32_t count, steps;     /* spans, or sequences and their tokens */
    float *hidden;            /* of forward_hidden() */
    const myelin_draw *draws; /* of decode_sample() */
} compute_job;

/* Others wait for what this rank would have sent, unless the call was refused by all alike. */
static myelin_status give_up_if_failed(const compute_job *job, int32_t rank, myelin_status status) {
    if (status == MYELIN_OK || status == MYELIN_ERROR_ARGUMENT)
        return status;
    mln_cuda_group *group = job->context->model->group;
    mln_group_give_up(group, rank);
    mln_cuda_link_drain(&group->links[rank], job->context->ranks->contexts[rank]->stream);
    return status;
}

static myelin_status forward_rank(void *argument, int32_t rank, myelin_error_buffer *error) {
    const compute_job *job = argument;
    const struct mln_cuda_ranks *ranks = job->context->ranks;
    const myelin_span *spans = ranks->spans + (int64_t)rank * job->context->max_tokens;
    myelin_plugin_context *context = ranks->contexts[rank];
    myelin_status status;
    if (job->hidden && rank == 0)
        status = mln_cuda_rank.forward_hidden(context, spans, job->count, job->hidden, error);
    else
        status = mln_cuda_rank.forward(context, spans, job->count, error);
    return give_up_if_failed(job, rank, status);
}

static myelin_status decode_rank(void *argument, int32_t rank, myelin_error_buffer *error) {
    const compute_job *job = argument;
    const struct mln_cuda_ranks *ranks = job->context->ranks;
    int64_t first = (int64_t)rank * job->context->max_tokens;
    myelin_plugin_context *context = ranks->contexts[rank];
    myelin_plugin_sequence **sequences = ranks->sequences + first;
    int32_t *out_ids = ranks->out_ids + first * MAX_STEPS;
    myelin_status status =
        job->draws ? mln_cuda_rank.decode_sample(context, sequences, ranks->ids, job->draws,
                                                 job->count, job->steps, out_ids, error)
                   : mln_cuda_rank.decode_greedy(context, sequences, ranks->ids, job->count,
                                                 job->steps, out_ids, error);
    return give_up_if_failed(job, rank, status);
}

/* Notes where a sequence is, so that a call that fails can be undone. */
static void enlist(myelin_plugin_context *c, int32_t index, myelin_plugin_sequence *sequence) {
    c->ranks->lengths[index] = sequence->length;
    for (int32_t r = 0; r < c->model->group->ranks; r++)
        c->ranks->sequences[(int64_t)r * c->max_tokens + index] = sequence->ranks[r];
}

static void undo(myelin_plugin_context *c, int32_t count) {
    for (int32_t i = 0; i < count; i++)
        truncate_sequence(c->ranks->sequences[i], c->ranks->lengths[i]);
}

static myelin_status forward_all(myelin_plugin_context *c, const myelin_span *spans,
                                 int32_t num_spans, float *hidden, myelin_error_buffer *error) {
    mln_cuda_group *group = c->model->group;
    if (num_spans < 0 || num_spans > c->max_tokens)
        return mln_cuda_fail_argument(error, "num_spans", 0, c->max_tokens, num_spans);
    for (int32_t s = 0; s < num_spans; s++) {
        enlist(c, s, spans[s].sequence);
        for (int32_t r = 0; r < group->ranks; r++) {
            myelin_span *span = &c->ranks->spans[(int64_t)r * c->max_tokens + s];
            *span = spans[s];
            span->sequence = spans[s].sequence->ranks[r];
        }
    }
    compute_job job = {.context = c, .count = num_spans, .hidden = hidden};
    pthread_mutex_lock(&group->call);
    myelin_status status = check_group(group, error);
    if (status == MYELIN_OK)
        status = mln_group_run(group, forward_rank, &job, error);
    pthread_mutex_unlock(&group->call);
    if (status != MYELIN_OK)
        undo(c, num_spans);
    return status;
}

static myelin_status forward(myelin_plugin_context *c, const myelin_span *spans, int32_t num_spans,
                             myelin_error_buffer *error) {
    return c->ranks ? forward_all(c, spans, num_spans, NULL, error)
                    : mln_cuda_rank.forward(c, spans, num_spans, error);
}

static myelin_status forward_hidden(myelin_plugin_context *c, const myelin_span *spans,
                                    int32_t num_spans, float *hidden, myelin_error_buffer *error) {
    return c->ranks ? forward_all(c, spans, num_spans, hidden, error)
                    : mln_cuda_rank.forward_hidden(c, spans, num_spans, hidden, error);
}

/* Tokens done .. done + chunk - 1 of each sequence. */
static myelin_status decode_chunk(myelin_plugin_context *c, const compute_job *job,
                                  const int32_t *ids, int32_t steps, int32_t done, int32_t *out_ids,
                                  myelin_error_buffer *error) {
    struct mln_cuda_ranks *ranks = c->ranks;
    for (int32_t s = 0; s < job->count; s++)
        ranks->ids[s] = done == 0 ? ids[s] : out_ids[(int64_t)s * steps + done - 1];
    myelin_status status = mln_group_run(c->model->group, decode_rank, (void *)job, error);
    for (int32_t s = 0; s < job->count && status == MYELIN_OK; s++)
        memcpy(out_ids + (int64_t)s * steps + done, ranks->out_ids + (int64_t)s * job->steps,
               (size_t)job->steps * sizeof *out_ids);
    return status;
}

static myelin_status decode_all(myelin_plugin_context *c, myelin_plugin_sequence *const *sequences,
                                const int32_t *ids, const myelin_draw *draws, int32_t count,
                                int32_t steps, int32_t *out_ids, myelin_error_buffer *error) {
    mln_cuda_group *group = c->model->group;
    if (count < 0 || count > c->max_tokens)
        return mln_cuda_fail_argument(error, "num_sequences", 0, c->max_tokens, count);
    if (steps < 1)
        return mln_cuda_fail_argument(error, "steps", 1, INT32_MAX, steps);
    for (int32_t s = 0; s < count; s++)
        enlist(c, s, sequences[s]);
    pthread_mutex_lock(&group->call);
    myelin_status status = check_group(group, error);
    for (int32_t done = 0, chunk; done < steps && status == MYELIN_OK; done += chunk) {
        chunk = steps - done < MAX_STEPS ? steps - done : MAX_STEPS;
        compute_job job = {.context = c, .count = count, .steps = chunk, .draws = draws};
        status = decode_chunk(c, &job, ids, steps, done, out_ids, error);
    }
    pthread_mutex_unlock(&group->call);
    if (status != MYELIN_OK)
        undo(c, count);
    return status;
}

static myelin_status decode_greedy(myelin_plugin_context *c,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   int32_t num_sequences, int32_t steps, int32_t *out_ids,
                                   myelin_error_buffer *error) {
    return c->ranks ? decode_all(c, sequences, ids, NULL, num_sequences, steps, out_ids, error)
                    : mln_cuda_rank.decode_greedy(c, sequences, ids, num_sequences, steps, out_ids,
                                                  error);
}

static myelin_status decode_sample(myelin_plugin_context *c,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   const myelin_draw *draws, int32_t num_sequences, int32_t steps,
                                   int32_t *out_ids, myelin_error_buffer *error) {
    return c->ranks ? decode_all(c, sequences, ids, draws, num_sequences, steps, out_ids, error)
                    : mln_cuda_rank.decode_sample(c, sequences, ids, draws, num_sequences, steps,
                                                  out_ids, error);
}

/* As if one device had it all, which is about what several have together. */
static uint64_t context_bytes(const myelin_config *config, int32_t max_tokens, int32_t max_len) {
    return mln_cuda_rank.context_bytes(config, max_tokens, max_len);
}

static uint64_t weight_bytes(const myelin_plugin_model *model, int32_t *pack) {
    uint64_t bytes = model->weight_bytes;
    *pack = model->packed ? MYELIN_PACK_LOSSLESS : MYELIN_PACK_NONE;
    for (int32_t r = 1; model->group && r < model->group->ranks; r++)
        bytes += model->group->models[r]->weight_bytes;
    return bytes;
}

const myelin_plugin mln_cuda_plugin = {
    .magic = MYELIN_PLUGIN_MAGIC,
    .abi_version = MYELIN_PLUGIN_ABI_VERSION,
    .struct_size = sizeof(myelin_plugin),
    .max_fusion = MYELIN_FUSION_CHUNK,
    .name = "qwen3_cuda",
    .probe = mln_spread_probe,
    .load = mln_spread_load,
    .free_model = mln_spread_free_model,
    .sequence_bytes = mln_cuda_sequence_bytes,
    .create_sequence = create_sequence,
    .free_sequence = free_sequence,
    .sequence_length = mln_cuda_sequence_length,
    .truncate_sequence = truncate_sequence,
    .context_bytes = context_bytes,
    .create_context = create_context,
    .free_context = free_context,
    .forward = forward,
    .decode_greedy = decode_greedy,
    .forward_hidden = forward_hidden,
    .page_bytes = mln_cuda_page_bytes,
    .create_pool = create_pool,
    .free_pool = free_pool,
    .create_paged_sequence = create_paged_sequence,
    .set_pages = set_pages,
    .copy_page = copy_page,
    .decode_sample = decode_sample,
    .step_tokens = STEP_TOKENS,
    .weight_bytes = weight_bytes,
};
