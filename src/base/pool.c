/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

enum { MAX_THREADS = 1024 };

struct mln_pool {
    int32_t num_threads; /* the caller included */
    int32_t num_started;
    pthread_t *workers; /* [num_threads - 1], the first num_started running */

    pthread_mutex_t owner; /* held by the thread whose job it is */
    pthread_mutex_t lock;  /* guards what follows */
    pthread_cond_t start;
    pthread_cond_t finish;
    uint64_t generation; /* of the job, so that a worker takes each once */
    int32_t busy;        /* workers that have not finished the current job */
    bool stopping;

    mln_task task;
    void *context;
    int64_t count;
    _Atomic int64_t next; /* the next piece nobody has taken */
};

int32_t mln_cpu_count(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? count : 1;
}

static void run_pieces(mln_pool *pool) {
    for (;;) {
        int64_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= pool->count)
            return;
        pool->task(pool->context, index);
    }
}

static void *worker(void *argument) {
    mln_pool *pool = argument;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->stopping && pool->generation == seen)
            pthread_cond_wait(&pool->start, &pool->lock);
        if (pool->stopping)
            break;
        seen = pool->generation;
        pthread_mutex_unlock(&pool->lock);
        run_pieces(pool);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0)
            pthread_cond_signal(&pool->finish);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

myelin_status mln_pool_create(mln_pool **out, int32_t threads, myelin_error *error) {
    *out = NULL;
    if (threads < 1 || threads > MAX_THREADS)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "threads must be 1 to %d, found %" PRId32, MAX_THREADS, threads);
    mln_pool *pool = mln_calloc(1, sizeof *pool);
    if (!pool)
        return mln_fail_memory(error, sizeof *pool, "a thread pool");
    pool->num_threads = threads;
    pthread_mutex_init(&pool->owner, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->start, NULL);
    pthread_cond_init(&pool->finish, NULL);
    pool->workers = mln_calloc((size_t)threads, sizeof *pool->workers);
    if (!pool->workers) {
        mln_pool_free(pool);
        return mln_fail_memory(error, (uint64_t)threads * sizeof *pool->workers, "a thread pool");
    }
    for (int32_t i = 0; i + 1 < threads; i++) {
        int code = pthread_create(&pool->workers[i], NULL, worker, pool);
        if (code != 0) {
            mln_pool_free(pool);
            return mln_fail(error, MYELIN_ERROR_MEMORY, NULL, -1,
                            "could not start thread %" PRId32 " of %" PRId32 ": %s", i + 2, threads,
                            strerrordesc_np(code));
        }
        pool->num_started++;
    }
    *out = pool;
    return MYELIN_OK;
}

void mln_pool_free(mln_pool *pool) {
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    for (int32_t i = 0; i < pool->num_started; i++)
        pthread_join(pool->workers[i], NULL);
    pthread_cond_destroy(&pool->finish);
    pthread_cond_destroy(&pool->start);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->owner);
    free(pool->workers);
    free(pool);
}

int32_t mln_pool_threads(const mln_pool *pool) {
    return pool->num_threads;
}

void mln_pool_run(mln_pool *pool, int64_t count, mln_task task, void *context) {
    bool alone = count <= 1 || pool->num_started == 0 || pthread_mutex_trylock(&pool->owner) != 0;
    if (alone) {
        for (int64_t i = 0; i < count; i++)
            task(context, i);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->task = task;
    pool->context = context;
    pool->count = count;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->busy = pool->num_started;
    pool->generation++;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    run_pieces(pool);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy > 0)
        pthread_cond_wait(&pool->finish, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->owner);
}
