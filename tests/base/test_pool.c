/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/pool.h"

enum { PIECES = 1000 };

typedef struct job {
    atomic_int done[PIECES];
    int plain[PIECES]; /* each written by one thread: the thread sanitizer watches */
} job;

static void mark(void *context, int64_t index) {
    job *j = context;
    atomic_fetch_add(&j->done[index], 1);
    j->plain[index]++;
}

static void assert_marked(job *j, int64_t count, int times) {
    for (int64_t i = 0; i < PIECES; i++) {
        assert_int_equal(atomic_load(&j->done[i]), i < count ? times : 0);
        assert_int_equal(j->plain[i], i < count ? times : 0);
    }
}

static mln_pool *make_pool(int32_t threads) {
    mln_pool *pool;
    assert_int_equal(mln_pool_create(&pool, threads, NULL), MYELIN_OK);
    assert_int_equal(mln_pool_threads(pool), threads);
    return pool;
}

static void every_piece_runs_once(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 2, 3, 63, 64, 65, PIECES};
    for (int32_t threads = 1; threads <= 64; threads++) {
        mln_pool *pool = make_pool(threads);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            static job j;
            memset(&j, 0, sizeof j);
            mln_pool_run(pool, counts[i], mark, &j);
            assert_marked(&j, counts[i], 1);
        }
        mln_pool_free(pool);
    }
}

static void a_pool_serves_many_jobs(void **state) {
    (void)state;
    enum { JOBS = 2000, COUNT = 7 };
    static job j;
    memset(&j, 0, sizeof j);
    mln_pool *pool = make_pool(4);
    for (int i = 0; i < JOBS; i++)
        mln_pool_run(pool, COUNT, mark, &j);
    assert_marked(&j, COUNT, JOBS);
    mln_pool_free(pool);
}

enum { CALLERS = 6, ROUNDS = 50 };

typedef struct caller {
    mln_pool *pool;
    job j;
} caller;

static void *call(void *argument) {
    caller *c = argument;
    for (int i = 0; i < ROUNDS; i++)
        mln_pool_run(c->pool, PIECES, mark, &c->j);
    return NULL;
}

static void many_threads_may_call_at_once(void **state) {
    (void)state;
    static caller callers[CALLERS];
    pthread_t threads[CALLERS];
    mln_pool *pool = make_pool(3);
    memset(callers, 0, sizeof callers);
    for (int i = 0; i < CALLERS; i++) {
        callers[i].pool = pool;
        assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        assert_marked(&callers[i].j, PIECES, ROUNDS);
    }
    mln_pool_free(pool);
}

typedef struct outer {
    mln_pool *pool;
    atomic_int sum;
} outer;

static void add_one(void *context, int64_t index) {
    (void)index;
    outer *o = context;
    atomic_fetch_add(&o->sum, 1);
}

static void run_inner(void *context, int64_t index) {
    (void)index;
    outer *o = context;
    mln_pool_run(o->pool, 10, add_one, o);
}

static void a_piece_may_run_a_job(void **state) {
    (void)state;
    outer o = {.pool = make_pool(4)};
    mln_pool_run(o.pool, 20, run_inner, &o);
    assert_int_equal(atomic_load(&o.sum), 200);
    mln_pool_free(o.pool);
}

typedef struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t all_here;
    int present, expected;
} meeting;

/* Returns only when as many threads as expected are inside at once. */
static void meet(void *context, int64_t index) {
    (void)index;
    meeting *m = context;
    pthread_mutex_lock(&m->lock);
    m->present++;
    pthread_cond_broadcast(&m->all_here);
    while (m->present < m->expected)
        pthread_cond_wait(&m->all_here, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

static void pieces_run_at_the_same_time(void **state) {
    (void)state;
    meeting m = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .all_here = PTHREAD_COND_INITIALIZER, .expected = 8};
    mln_pool *pool = make_pool(m.expected);
    mln_pool_run(pool, m.expected, meet, &m);
    assert_int_equal(m.present, m.expected);
    mln_pool_free(pool);
}

typedef struct slow {
    meeting both;
    pthread_t caller;
    atomic_int finished;
} slow;

/* The caller's piece ends at once, the other thread's much later. */
static void finish_late(void *context, int64_t index) {
    slow *s = context;
    meet(&s->both, index);
    if (!pthread_equal(pthread_self(), s->caller))
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    atomic_fetch_add(&s->finished, 1);
}

static void a_job_ends_when_its_last_piece_does(void **state) {
    (void)state;
    slow s = {.both = {.lock = PTHREAD_MUTEX_INITIALIZER,
                       .all_here = PTHREAD_COND_INITIALIZER,
                       .expected = 2},
              .caller = pthread_self()};
    mln_pool *pool = make_pool(2);
    mln_pool_run(pool, 2, finish_late, &s);
    assert_int_equal(atomic_load(&s.finished), 2);
    mln_pool_free(pool);
}

static void thread_counts_out_of_range(void **state) {
    (void)state;
    static const int32_t counts[] = {0, -1, INT32_MIN, 1025, INT32_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        mln_pool *pool = (mln_pool *)state;
        myelin_error error;
        assert_int_equal(mln_pool_create(&pool, counts[i], &error), MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "threads must be 1 to 1024, found"));
        assert_null(pool);
    }
    mln_pool_free(NULL);
    assert_true(mln_cpu_count() >= 1);
}

static void out_of_memory(void **state) {
    (void)state;
    mln_pool *pool;
    myelin_error error;
    mln_fail_allocation(0, false);
    mln_pool_free(make_pool(3));
    uint64_t allocations = mln_fail_allocation(0, false);
    assert_true(allocations >= 1);
    for (uint64_t n = 1; n <= allocations; n++) {
        mln_fail_allocation(n, true);
        assert_int_equal(mln_pool_create(&pool, 3, &error), MYELIN_ERROR_MEMORY);
        mln_fail_allocation(0, false);
        assert_null(pool);
    }
}

static int starts_before_failure = -1; /* -1: none fails */

int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument) {
    if (starts_before_failure == 0)
        return EAGAIN;
    if (starts_before_failure > 0)
        starts_before_failure--;
    return __real_pthread_create(thread, attributes, start, argument);
}

static void a_thread_that_cannot_start(void **state) {
    (void)state;
    for (int started = 0; started < 4; started++) {
        mln_pool *pool;
        myelin_error error;
        starts_before_failure = started;
        assert_int_equal(mln_pool_create(&pool, 5, &error), MYELIN_ERROR_MEMORY);
        starts_before_failure = -1;
        assert_null(pool);
        char part[] = "could not start thread 2 of 5: Resource temporarily unavailable";
        part[23] = (char)('2' + started);
        assert_string_equal(error.message, part);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_runs_once),
        cmocka_unit_test(a_pool_serves_many_jobs),
        cmocka_unit_test(many_threads_may_call_at_once),
        cmocka_unit_test(a_piece_may_run_a_job),
        cmocka_unit_test(pieces_run_at_the_same_time),
        cmocka_unit_test(a_job_ends_when_its_last_piece_does),
        cmocka_unit_test(thread_counts_out_of_range),
        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(a_thread_that_cannot_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
