/* SPDX-License-Identifier: Apache-2.0 */
/* A pool of threads that run the pieces of one job at a time. */
#ifndef MLN_BASE_POOL_H
#define MLN_BASE_POOL_H

#include <stdint.h>

#include "myelin/status.h"

typedef struct mln_pool mln_pool;
typedef void (*mln_task)(void *context, int64_t index);

/* CPUs this process may run on (its affinity mask), at least 1. */
int32_t mln_cpu_count(void);

/* A pool of `threads` threads, the caller of mln_pool_run() being one of them; 1 starts none. */
myelin_status mln_pool_create(mln_pool **pool, int32_t threads, myelin_error *error);
void mln_pool_free(mln_pool *pool); /* accepts NULL; no job may be running */
int32_t mln_pool_threads(const mln_pool *pool);

/*
 * Calls task(context, i) for i = 0 .. count-1 and returns when all are done. Which thread runs
 * which piece is not fixed, so pieces must not depend on it. Any thread may call: while another's
 * job has the pool, the caller runs all pieces itself. Allocates nothing.
 */
void mln_pool_run(mln_pool *pool, int64_t count, mln_task task, void *context);

#endif
