/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices of a model that is spread over several, and the threads that work for them: the
 * caller's for device 0, one for each of the others. Each does for its device what the plug-in does
 * for a single one; they meet in the calls of link.h, in the same order everywhere, which is why
 * one call at a time is made of all contexts of a model, and nothing is allocated or freed
 * meanwhile.
 */
#ifndef MLN_CUDA_GROUP_H
#define MLN_CUDA_GROUP_H

#include <pthread.h>

#include "internal.h"
#include "shard.h"

enum { MLN_GROUP_TEXT = 512 };

/* What is done for one device by its thread. */
typedef myelin_status (*mln_group_task)(void *job, int32_t rank, myelin_error_buffer *error);

typedef struct mln_cuda_group {
    int32_t ranks;
    mln_nccl nccl;
    mln_cuda_link links[MLN_SHARD_MAX_RANKS];
    myelin_plugin_model *models[MLN_SHARD_MAX_RANKS];
    _Atomic int32_t lost; /* 1 + the rank whose failure has ended all, or 0 */
    _Atomic uint64_t arrived, without[2];
    pthread_mutex_t call; /* held by whoever makes a call */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t begin, end;
    uint64_t turn;   /* grows with each task */
    int32_t running; /* threads that have not finished it */
    bool stop;
    mln_group_task task;
    void *job;
    /* Each thread's own while a task runs. */
    myelin_status status[MLN_SHARD_MAX_RANKS];
    char text[MLN_SHARD_MAX_RANKS][MLN_GROUP_TEXT];
    _Atomic int32_t first_failed; /* a rank, or -1 */
    int32_t num_threads;
    pthread_t threads[MLN_SHARD_MAX_RANKS];
} mln_cuda_group;

/* Threads that wait for tasks; no device is touched yet. */
myelin_status mln_group_create(mln_cuda_group **group, int32_t ranks, myelin_error_buffer *error);
void mln_group_free(mln_cuda_group *group);

/* task(job, r) for every rank at once; returns when all are done, the first failure if one was. */
myelin_status mln_group_run(mln_cuda_group *group, mln_group_task task, void *job,
                            myelin_error_buffer *error);
/* For a task: this rank has failed while others may wait for it, which ends them too. */
void mln_group_give_up(mln_cuda_group *group, int32_t rank);

/* spread_load.c, as plugin.h has them, of one device or several */
myelin_status mln_spread_probe(const myelin_model_description *description,
                               myelin_error_buffer *error);
myelin_status mln_spread_load(const myelin_model_description *description, const myelin_host *host,
                              myelin_plugin_model **model, myelin_error_buffer *error);
void mln_spread_free_model(myelin_plugin_model *model);

#endif
