/* SPDX-License-Identifier: Apache-2.0 */
#include "link.h"

#include <time.h>

#include "internal.h"

/* Values of ncclDataType_t. */
enum { NCCL_INT8 = 0, NCCL_FLOAT32 = 7 };

/* Looks at the device: at once, a few times, then with pauses. */
enum { EAGER_LOOKS = 200, PAUSE_NS = 20000 };
enum { END_SECONDS = 5 }; /* that a device has to end what was given up */

static cudaError_t gather(mln_cuda_link *link, void *values, size_t count, size_t size, int type,
                          cudaStream_t stream) {
    if (!link->comm)
        return cudaErrorUnknown;
    const char *own = (const char *)values + (size_t)link->rank * count * size;
    int result = link->nccl->all_gather(own, values, count, type, link->comm, stream);
    if (result == 0)
        return cudaSuccess;
    if (link->result == 0)
        link->result = result;
    cudaError_t code = cudaGetLastError(); /* what made NCCL fail, often */
    return code == cudaSuccess ? cudaErrorUnknown : code;
}

cudaError_t mln_cuda_gather_bytes(mln_cuda_link *link, void *values, size_t count,
                                  cudaStream_t stream) {
    return gather(link, values, count, 1, NCCL_INT8, stream);
}

cudaError_t mln_cuda_gather_floats(mln_cuda_link *link, float *values, size_t count,
                                   cudaStream_t stream) {
    return gather(link, values, count, sizeof *values, NCCL_FLOAT32, stream);
}

void mln_cuda_link_lose(mln_cuda_link *link) {
    int32_t none = 0;
    atomic_compare_exchange_strong(link->lost, &none, link->rank + 1);
    if (link->stop)
        atomic_store(link->stop, 1);
}

/* NCCL stops its kernels at once, but waits for graphs that have some: until contexts are freed. */
static void *abort_comm(void *argument) {
    mln_cuda_link *link = argument;
    link->nccl->abort(link->aborted); /* link may be gone when this returns */
    return NULL;
}

void mln_cuda_link_give_up(mln_cuda_link *link) {
    if (!link->comm)
        return;
    link->aborted = link->comm;
    link->comm = NULL;
    link->aborting = pthread_create(&link->thread, NULL, abort_comm, link) == 0;
}

void mln_cuda_link_close(mln_cuda_link *link) {
    if (link->comm && atomic_load(link->lost) != 0)
        mln_cuda_link_give_up(link); /* destroying might wait for those who have */
    if (link->comm)
        link->nccl->destroy(link->comm);
    link->comm = NULL;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += END_SECONDS;
    if (link->aborting && pthread_timedjoin_np(link->thread, NULL, &until) != 0) {
        pthread_detach(link->thread);
        link->stuck = true;
    }
    link->aborting = false;
}

/* --- memory that other devices write to --- */

void mln_cuda_link_open_peers(mln_cuda_link *link) {
    link->direct = link->ranks <= MLN_CUDA_PEERS;
    for (int32_t r = 0; r < link->ranks && link->direct; r++) {
        int can = 0;
        if (r == link->rank)
            continue;
        cudaError_t code = cudaDeviceCanAccessPeer(&can, link->rank, r);
        if (code == cudaSuccess && can)
            code = cudaDeviceEnablePeerAccess(r, 0);
        link->direct = can && (code == cudaSuccess || code == cudaErrorPeerAccessAlreadyEnabled);
    }
    cudaGetLastError(); /* there is NCCL */
}

cudaError_t mln_cuda_direct_allocate(const mln_cuda_link *link, mln_cuda_direct *direct,
                                     int64_t room) {
    if (!link->direct)
        return cudaSuccess;
    size_t words = 2 * (size_t)link->ranks * (size_t)room * sizeof(uint64_t);
    size_t bytes = words + 2 * sizeof *direct->state;
    cudaError_t code = cudaMalloc((void **)&direct->memory, bytes);
    if (code == cudaSuccess)
        code = cudaMemset(direct->memory, 0, bytes);
    if (code == cudaSuccess)
        code = cudaStreamSynchronize(NULL);
    if (code != cudaSuccess)
        return code;
    direct->state = (uint32_t *)(void *)(direct->memory + words);
    direct->room = room;
    return cudaSuccess;
}

/* --- waiting --- */

static void wait_a_little(int looks) {
    if (looks >= EAGER_LOOKS)
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
}

cudaError_t mln_cuda_link_meet(mln_cuda_link *link, cudaError_t code) {
    uint64_t meeting = ++link->meetings, all = meeting * (uint64_t)link->ranks;
    /* Nobody is at the meeting after the next before all have seen what became of this one. */
    _Atomic uint64_t *without = &link->without[meeting % 2];
    if (code == cudaErrorMemoryAllocation)
        atomic_store(without, meeting);
    atomic_fetch_add(link->arrived, 1);
    for (int looks = 0; atomic_load(link->arrived) < all; looks += looks < EAGER_LOOKS) {
        if (atomic_load(link->lost) != 0)
            return cudaErrorUnknown;
        wait_a_little(looks);
    }
    return atomic_load(without) == meeting ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t mln_cuda_link_drain(mln_cuda_link *link, cudaStream_t stream) {
    struct timespec since, now;
    if (link->stuck)
        return cudaErrorLaunchTimeout;
    mln_cuda_link_give_up(link);
    clock_gettime(CLOCK_MONOTONIC, &since);
    do {
        cudaError_t code = cudaStreamQuery(stream);
        if (code != cudaErrorNotReady)
            return code == cudaSuccess ? cudaErrorUnknown : code;
        wait_a_little(EAGER_LOOKS);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - since.tv_sec <= END_SECONDS);
    link->stuck = true;
    return cudaErrorLaunchTimeout;
}

bool mln_cuda_is_stuck(const myelin_plugin_model *model) {
    return model->link && model->link->stuck;
}

cudaError_t mln_cuda_link_wait(mln_cuda_link *link, cudaStream_t stream, cudaEvent_t mark) {
    for (int looks = 0;; looks += looks < EAGER_LOOKS) {
        cudaError_t code = mark ? cudaEventQuery(mark) : cudaStreamQuery(stream);
        if (code == cudaSuccess && link->stop && atomic_load(link->stop) != 0)
            return cudaErrorUnknown; /* what it would have received is not there */
        if (code != cudaErrorNotReady)
            return code;
        if (atomic_load(link->lost) != 0)
            return mln_cuda_link_drain(link, stream);
        wait_a_little(looks);
    }
}

/* --- results that are joined --- */

cudaError_t mln_cuda_wait(const myelin_plugin_context *c) {
    return c->model->link ? mln_cuda_link_wait(c->model->link, c->stream, NULL)
                          : cudaStreamSynchronize(c->stream);
}

cudaError_t mln_cuda_pace(myelin_plugin_context *c) {
    if (!c->model->link || c->captures)
        return cudaSuccess;
    cudaEvent_t mark = c->marks[0];
    c->marks[0] = c->marks[1];
    c->marks[1] = mark;
    cudaError_t code = cudaEventRecord(mark, c->stream);
    return code == cudaSuccess ? mln_cuda_link_wait(c->model->link, c->stream, c->marks[0]) : code;
}

cudaError_t mln_cuda_end(const myelin_plugin_context *c, cudaError_t code) {
    if (code != cudaSuccess && c->model->link)
        mln_cuda_link_lose(c->model->link);
    cudaError_t last = mln_cuda_wait(c);
    return code == cudaSuccess ? last : code;
}

static uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

uint64_t mln_cuda_join_bytes(const myelin_plugin_model *model, int32_t max_tokens) {
    uint64_t ranks = (uint64_t)model->link->ranks, tokens = (uint64_t)max_tokens;
    uint64_t residual = tokens * (uint64_t)model->config.hidden_size * sizeof(float);
    uint64_t logits = (uint64_t)MLN_CUDA_HEAD_ROWS * (uint64_t)model->most_ids * sizeof(float);
    return ranks * larger(larger(residual, logits), tokens * sizeof(mln_cuda_best));
}

static float *own_floats(const myelin_plugin_context *c, int64_t count) {
    return (float *)(void *)c->gathered + c->model->link->rank * count;
}

float *mln_cuda_own_residual(const myelin_plugin_context *c, int32_t tokens) {
    return own_floats(c, (int64_t)tokens * c->model->config.hidden_size);
}

static cudaError_t exchange_residual(myelin_plugin_context *c, int32_t tokens, int64_t count) {
    const mln_cuda_link *link = c->model->link;
    mln_cuda_exchange exchange = {.residual = c->residual,
                                  .part = mln_cuda_own_residual(c, tokens),
                                  .state = c->direct.state,
                                  .stop = (volatile int32_t *)(void *)link->stop,
                                  .count = count,
                                  .room = c->direct.room,
                                  .rank = link->rank,
                                  .ranks = link->ranks,
                                  .early = c->model->early};
    for (int32_t r = 0; r < link->ranks; r++)
        exchange.inboxes[r] = c->direct.inboxes[r];
    return mln_cuda_exchange_launch(&exchange, c->stream);
}

cudaError_t mln_cuda_join_residual(myelin_plugin_context *c, int32_t tokens) {
    int64_t count = (int64_t)tokens * c->model->config.hidden_size;
    mln_cuda_link *link = c->model->link;
    if (count <= c->direct.room)
        return exchange_residual(c, tokens, count);
    float *parts = (float *)(void *)c->gathered;
    cudaError_t code = mln_cuda_gather_floats(link, parts, (size_t)count, c->stream);
    if (code != cudaSuccess)
        return code;
    return mln_cuda_add_parts_launch(c->residual, parts, count, link->ranks, c->stream);
}

float *mln_cuda_own_logits(const myelin_plugin_context *c, int32_t count) {
    return own_floats(c, (int64_t)count * c->model->most_ids);
}

cudaError_t mln_cuda_join_logits(myelin_plugin_context *c, int32_t count) {
    const myelin_plugin_model *model = c->model;
    float *parts = (float *)(void *)c->gathered;
    cudaError_t code = mln_cuda_gather_floats(model->link, parts,
                                              (size_t)count * (size_t)model->most_ids, c->stream);
    if (code != cudaSuccess)
        return code;
    return mln_cuda_place_logits_launch(c->logits, parts, count, model->config.vocab_size,
                                        model->most_ids, model->link->ranks, c->stream);
}

cudaError_t mln_cuda_join_best(myelin_plugin_context *c, int32_t count, int32_t blocks) {
    mln_cuda_link *link = c->model->link;
    mln_cuda_best *parts = (mln_cuda_best *)(void *)c->gathered;
    cudaError_t code = mln_cuda_own_best_launch(parts + link->rank * (int64_t)count, c->best,
                                                blocks, c->model->first_id, count, c->stream);
    if (code == cudaSuccess)
        code = mln_cuda_gather_bytes(link, parts, (size_t)count * sizeof *parts, c->stream);
    if (code != cudaSuccess)
        return code;
    return mln_cuda_by_token_launch(c->best, parts, count, link->ranks, c->stream);
}
