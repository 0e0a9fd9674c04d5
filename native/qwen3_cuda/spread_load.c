/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a model that is spread over several devices: each loads its part, as a model. */
#include <inttypes.h>
#include <stdlib.h>

#include "group.h"
#include "tiles.h"

typedef struct load_job {
    const myelin_model_description *description;
    const myelin_host *host;
    mln_cuda_group *group;
} load_job;

static void shard_parallel_for(void *self, int64_t count, myelin_task task, void *context) {
    const mln_shard *shard = self;
    shard->host->parallel_for(shard->host->self, count, task, context);
}

/* The part of the model that is one device's, as a model. */
static myelin_model_description part_of(const myelin_model_description *description,
                                        const mln_shard *shard) {
    myelin_model_description part = *description;
    part.config = &shard->config;
    part.weights = &shard->weights;
    part.tensor_parallel = 1;
    return part;
}

static myelin_status probe_rank(const myelin_model_description *description, int32_t rank,
                                myelin_error_buffer *error) {
    mln_shard shard;
    myelin_status status = mln_shard_open(&shard, description->config, description->weights, NULL,
                                          rank, description->tensor_parallel, error);
    if (status != MYELIN_OK)
        return status;
    myelin_model_description part = part_of(description, &shard);
    status = mln_cuda_check(cudaSetDevice(rank), "cudaSetDevice", error);
    if (status == MYELIN_OK)
        status = mln_cuda_rank.probe(&part, error);
    mln_shard_close(&shard);
    return status;
}

static myelin_status check_devices(int32_t ranks, myelin_error_buffer *error) {
    int devices = 0;
    cudaError_t code = cudaGetDeviceCount(&devices);
    if (code != cudaSuccess || devices == 0)
        return mln_cuda_fail(error, MYELIN_ERROR_UNSUPPORTED, "no NVIDIA device: %s",
                             code == cudaSuccess ? "none found" : cudaGetErrorString(code));
    if (devices < ranks)
        return mln_cuda_fail(error, MYELIN_ERROR_UNSUPPORTED,
                             "expected %" PRId32 " NVIDIA devices, found %d", ranks, devices);
    return MYELIN_OK;
}

myelin_status mln_spread_probe(const myelin_model_description *description,
                               myelin_error_buffer *error) {
    if (description->struct_size < sizeof *description)
        return mln_cuda_fail_argument(error, "struct_size", sizeof *description, UINT32_MAX,
                                      description->struct_size);
    int32_t ranks = description->tensor_parallel, before = 0;
    if (ranks <= 1)
        return mln_cuda_rank.probe(description, error);
    mln_nccl nccl;
    myelin_status status = mln_shard_check(description->config, description->weights, ranks, error);
    if (status == MYELIN_OK)
        status = check_devices(ranks, error);
    if (status == MYELIN_OK)
        status = mln_nccl_open(&nccl, error);
    if (status != MYELIN_OK)
        return status;
    cudaGetDevice(&before);
    for (int32_t r = 0; r < ranks && status == MYELIN_OK; r++)
        status = probe_rank(description, r, error);
    cudaSetDevice(before);
    return status;
}

static myelin_status take_device(void *argument, int32_t rank, myelin_error_buffer *error) {
    (void)argument;
    if (rank == 0) /* the caller's thread, whose device is the first unless it says otherwise */
        return MYELIN_OK;
    return mln_cuda_check(cudaSetDevice(rank), "cudaSetDevice", error);
}

static myelin_status connect(mln_cuda_group *group, myelin_error_buffer *error) {
    int devices[MLN_SHARD_MAX_RANKS];
    void *comms[MLN_SHARD_MAX_RANKS] = {NULL};
    for (int32_t r = 0; r < group->ranks; r++)
        devices[r] = r;
    int result = group->nccl.init_all(comms, group->ranks, devices);
    if (result != 0)
        return mln_cuda_fail(error, MYELIN_ERROR_DEVICE, "connecting %" PRId32 " devices: NCCL: %s",
                             group->ranks, group->nccl.error_string(result));
    for (int32_t r = 0; r < group->ranks; r++)
        group->links[r] = (mln_cuda_link){.nccl = &group->nccl,
                                          .comm = comms[r],
                                          .rank = r,
                                          .ranks = group->ranks,
                                          .lost = &group->lost,
                                          .arrived = &group->arrived,
                                          .without = group->without};
    return MYELIN_OK;
}

static myelin_status open_rank_peers(void *argument, int32_t rank, myelin_error_buffer *error) {
    mln_cuda_group *group = argument;
    (void)error;
    mln_cuda_link_open_peers(&group->links[rank]);
    return MYELIN_OK;
}

/* Whether devices may write to each other's memory: all or none. */
static myelin_status open_peers(mln_cuda_group *group, myelin_error_buffer *error) {
    _Atomic int32_t *stop = NULL;
    myelin_status status = mln_cuda_check(cudaMallocHost((void **)&stop, sizeof *stop),
                                          "memory of a connection", error);
    if (status != MYELIN_OK)
        return status;
    atomic_init(stop, 0);
    for (int32_t r = 0; r < group->ranks; r++)
        group->links[r].stop = stop;
    status = mln_group_run(group, open_rank_peers, group, error);
    bool direct = true;
    for (int32_t r = 0; r < group->ranks; r++)
        direct = direct && group->links[r].direct;
    for (int32_t r = 0; r < group->ranks; r++)
        group->links[r].direct = direct;
    return status;
}

/* Numbers that go round once, so that what NCCL sets up by first use is there. */
typedef struct trial {
    mln_cuda_group *group;
    float *values[MLN_SHARD_MAX_RANKS]; /* device: [ranks] */
    cudaStream_t streams[MLN_SHARD_MAX_RANKS];
} trial;

static myelin_status prepare_trial(void *argument, int32_t rank, myelin_error_buffer *error) {
    trial *t = argument;
    float value = (float)(rank + 1);
    cudaError_t code =
        cudaMalloc((void **)&t->values[rank], (size_t)t->group->ranks * sizeof value);
    if (code == cudaSuccess)
        code = cudaStreamCreateWithFlags(&t->streams[rank], cudaStreamNonBlocking);
    if (code == cudaSuccess)
        code = cudaMemcpy(t->values[rank] + rank, &value, sizeof value, cudaMemcpyHostToDevice);
    return mln_cuda_check(code, "memory for a trial", error);
}

static myelin_status run_trial(void *argument, int32_t rank, myelin_error_buffer *error) {
    trial *t = argument;
    mln_cuda_link *link = &t->group->links[rank];
    float found[MLN_SHARD_MAX_RANKS] = {0};
    cudaError_t code = mln_cuda_gather_floats(link, t->values[rank], 1, t->streams[rank]);
    if (code == cudaSuccess)
        code = mln_cuda_link_wait(link, t->streams[rank], NULL);
    if (code == cudaSuccess)
        code = cudaMemcpy(found, t->values[rank], (size_t)link->ranks * sizeof *found,
                          cudaMemcpyDeviceToHost);
    myelin_status status = mln_cuda_check(code, "a trial of the connection", error);
    for (int32_t r = 0; r < link->ranks && status == MYELIN_OK; r++)
        if (found[r] != (float)(r + 1))
            status = mln_cuda_fail(error, MYELIN_ERROR_DEVICE,
                                   "device %" PRId32 " sent %d, but %g arrived", r, r + 1,
                                   (double)found[r]);
    if (status != MYELIN_OK)
        mln_group_give_up(t->group, rank);
    return status;
}

static myelin_status end_trial(void *argument, int32_t rank, myelin_error_buffer *error) {
    trial *t = argument;
    (void)error;
    if (t->group->links[rank].stuck)
        return MYELIN_OK;
    if (t->streams[rank])
        cudaStreamDestroy(t->streams[rank]);
    cudaFree(t->values[rank]);
    return MYELIN_OK;
}

static myelin_status try_connection(mln_cuda_group *group, myelin_error_buffer *error) {
    trial t = {.group = group};
    myelin_status status = mln_group_run(group, prepare_trial, &t, error);
    if (status == MYELIN_OK)
        status = mln_group_run(group, run_trial, &t, error);
    mln_group_run(group, end_trial, &t, NULL);
    return status;
}

/* Rows of a matrix as a matrix; with tiles, from the first row of one on. */
static mln_cuda_matrix rows_of(mln_cuda_matrix m, int64_t first, int64_t count) {
    m.rows = count;
    if (m.tile_code != MLN_TILE_NONE) {
        m.data += first / MLN_TILE_ROWS * m.units * mln_unit_bytes(m.tile_code);
        m.row_scales += first;
        if (m.tile_code == MLN_TILE_PACKED) {
            m.lifts += first / 2;
            m.escapes += first / MLN_TILE_ROWS * MLN_TILE_SPLITS * m.escape_room;
        }
        m.tiles = (count + MLN_TILE_ROWS - 1) / MLN_TILE_ROWS;
        return m;
    }
    m.data += first * m.pitch;
    if (m.group > 0) {
        int64_t bytes = m.columns / m.group * (m.scale_dtype == MYELIN_DTYPE_F32 ? 4 : 2);
        m.scales = (unsigned char *)m.scales + first * bytes;
        m.biases = (unsigned char *)m.biases + first * bytes;
    }
    return m;
}

static int32_t most_ids(int32_t vocab, int32_t ranks) {
    int32_t most = 0;
    for (int32_t r = 0; r < ranks; r++) {
        int32_t ids = mln_tile_first_row(vocab, r + 1, ranks) - mln_tile_first_row(vocab, r, ranks);
        most = ids > most ? ids : most;
    }
    return most;
}

static myelin_status load_rank(void *argument, int32_t rank, myelin_error_buffer *error) {
    load_job *job = argument;
    const myelin_model_description *whole = job->description;
    mln_cuda_group *group = job->group;
    mln_shard shard;
    myelin_status status =
        mln_shard_open(&shard, whole->config, whole->weights, job->host, rank, group->ranks, error);
    if (status != MYELIN_OK)
        return status;
    myelin_model_description part = part_of(whole, &shard);
    myelin_host host = *job->host;
    host.self = &shard;
    host.read = mln_shard_read;
    host.parallel_for = shard_parallel_for;
    status = mln_cuda_rank.load(&part, &host, &group->models[rank], error);
    myelin_plugin_model *model = group->models[rank];
    if (status == MYELIN_OK) {
        model->group = group;
        model->link = &group->links[rank];
        model->first_id = shard.first_id;
        model->most_ids = most_ids(model->config.vocab_size, group->ranks);
        if (model->config.tie_word_embeddings)
            model->lm_head = rows_of(model->embed_tokens, shard.first_id, shard.num_ids);
    }
    mln_shard_close(&shard);
    return status;
}

static myelin_status free_rank_model(void *argument, int32_t rank, myelin_error_buffer *error) {
    mln_cuda_group *group = argument;
    (void)error;
    mln_cuda_rank.free_model(group->models[rank]);
    mln_cuda_link_close(&group->links[rank]);
    return MYELIN_OK;
}

static void free_group(mln_cuda_group *group) {
    bool stuck = false;
    mln_group_run(group, free_rank_model, group, NULL);
    for (int32_t r = 0; r < group->ranks; r++)
        stuck = stuck || group->links[r].stuck;
    if (!stuck)
        cudaFreeHost((void *)group->links[0].stop);
    mln_group_free(group);
}

static myelin_status load_all(load_job *job, myelin_error_buffer *error) {
    mln_cuda_group *group = job->group;
    myelin_status status = mln_nccl_open(&group->nccl, error);
    if (status == MYELIN_OK)
        status = mln_group_run(group, take_device, NULL, error);
    if (status == MYELIN_OK)
        status = connect(group, error);
    if (status == MYELIN_OK)
        status = try_connection(group, error);
    if (status == MYELIN_OK)
        status = open_peers(group, error);
    return status == MYELIN_OK ? mln_group_run(group, load_rank, job, error) : status;
}

myelin_status mln_spread_load(const myelin_model_description *description, const myelin_host *host,
                              myelin_plugin_model **out, myelin_error_buffer *error) {
    int32_t ranks = description->tensor_parallel;
    load_job job = {.description = description, .host = host};
    *out = NULL;
    if (ranks <= 1)
        return mln_cuda_rank.load(description, host, out, error);
    myelin_status status = mln_shard_check(description->config, description->weights, ranks, error);
    if (status == MYELIN_OK)
        status = mln_group_create(&job.group, ranks, error);
    if (status != MYELIN_OK)
        return status;
    status = load_all(&job, error);
    if (status == MYELIN_OK) {
        *out = job.group->models[0];
        return MYELIN_OK;
    }
    free_group(job.group);
    return status;
}

void mln_spread_free_model(myelin_plugin_model *model) {
    if (!model || !model->group) {
        mln_cuda_rank.free_model(model);
        return;
    }
    free_group(model->group);
}
