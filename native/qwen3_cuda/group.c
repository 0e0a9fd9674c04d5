/* SPDX-License-Identifier: Apache-2.0 */
#include "group.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* What a thread is told when it begins. */
typedef struct worker {
    mln_cuda_group *group;
    int32_t rank;
} worker;

static void note_failure(mln_cuda_group *group, int32_t rank) {
    int32_t none = -1;
    atomic_compare_exchange_strong(&group->first_failed, &none, rank);
}

void mln_group_give_up(mln_cuda_group *group, int32_t rank) {
    mln_cuda_link_lose(&group->links[rank]);
    mln_cuda_link_give_up(&group->links[rank]);
}

static void run_rank(mln_cuda_group *group, int32_t rank) {
    myelin_error_buffer error = {group->text[rank], sizeof group->text[rank]};
    error.text[0] = '\0';
    group->status[rank] = group->task(group->job, rank, &error);
    if (group->status[rank] != MYELIN_OK)
        note_failure(group, rank);
}

static void *work(void *argument) {
    worker self = *(worker *)argument;
    mln_cuda_group *group = self.group;
    free(argument);
    uint64_t done = 0;
    pthread_mutex_lock(&group->lock);
    for (;;) {
        while (group->turn == done && !group->stop)
            pthread_cond_wait(&group->begin, &group->lock);
        if (group->stop)
            break;
        done = group->turn;
        pthread_mutex_unlock(&group->lock);
        run_rank(group, self.rank);
        pthread_mutex_lock(&group->lock);
        if (--group->running == 0)
            pthread_cond_signal(&group->end);
    }
    pthread_mutex_unlock(&group->lock);
    return NULL;
}

static myelin_status start(mln_cuda_group *group, int32_t rank, myelin_error_buffer *error) {
    worker *self = malloc(sizeof *self);
    if (!self)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate a thread");
    *self = (worker){group, rank};
    if (pthread_create(&group->threads[group->num_threads], NULL, work, self) != 0) {
        free(self);
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY,
                             "could not start a thread for device %" PRId32, rank);
    }
    group->num_threads++;
    return MYELIN_OK;
}

myelin_status mln_group_create(mln_cuda_group **out, int32_t ranks, myelin_error_buffer *error) {
    mln_cuda_group *group = calloc(1, sizeof *group);
    *out = NULL;
    if (!group)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate a group of devices");
    group->ranks = ranks;
    pthread_mutex_init(&group->call, NULL);
    pthread_mutex_init(&group->lock, NULL);
    pthread_cond_init(&group->begin, NULL);
    pthread_cond_init(&group->end, NULL);
    myelin_status status = MYELIN_OK;
    for (int32_t r = 1; r < ranks && status == MYELIN_OK; r++)
        status = start(group, r, error);
    if (status != MYELIN_OK) {
        mln_group_free(group);
        return status;
    }
    *out = group;
    return MYELIN_OK;
}

void mln_group_free(mln_cuda_group *group) {
    if (!group)
        return;
    pthread_mutex_lock(&group->lock);
    group->stop = true;
    pthread_cond_broadcast(&group->begin);
    pthread_mutex_unlock(&group->lock);
    for (int32_t i = 0; i < group->num_threads; i++)
        pthread_join(group->threads[i], NULL);
    pthread_cond_destroy(&group->end);
    pthread_cond_destroy(&group->begin);
    pthread_mutex_destroy(&group->lock);
    pthread_mutex_destroy(&group->call);
    free(group);
}

/* What became of the last task. */
static myelin_status verdict(mln_cuda_group *group, myelin_error_buffer *error) {
    int32_t rank = atomic_load(&group->first_failed), lost = atomic_load(&group->lost);
    if (rank < 0)
        return MYELIN_OK;
    rank = lost > 0 ? lost - 1 : rank;                /* others have only noticed */
    if (group->status[rank] == MYELIN_ERROR_ARGUMENT) /* they all say the same */
        return mln_cuda_fail(error, MYELIN_ERROR_ARGUMENT, "%s", group->text[rank]);
    int result = group->links[rank].result;
    const char *reason = result != 0 ? group->nccl.error_string(result) : NULL;
    return mln_cuda_fail(error, lost > 0 ? MYELIN_ERROR_DEVICE : group->status[rank],
                         "device %" PRId32 " of %" PRId32 ": %s%s%s", rank, group->ranks,
                         group->text[rank], reason ? "; NCCL: " : "", reason ? reason : "");
}

myelin_status mln_group_run(mln_cuda_group *group, mln_group_task task, void *job,
                            myelin_error_buffer *error) {
    atomic_store(&group->first_failed, -1);
    pthread_mutex_lock(&group->lock);
    group->task = task;
    group->job = job;
    group->running = group->ranks - 1;
    group->turn++;
    pthread_cond_broadcast(&group->begin);
    pthread_mutex_unlock(&group->lock);
    run_rank(group, 0);
    pthread_mutex_lock(&group->lock);
    while (group->running > 0)
        pthread_cond_wait(&group->end, &group->lock);
    pthread_mutex_unlock(&group->lock);
    return verdict(group, error);
}
