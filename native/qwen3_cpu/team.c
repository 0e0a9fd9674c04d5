/* SPDX-License-Identifier: Apache-2.0 */
#include "team.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"

enum {
    SPINS = 4000,           /* looks before yielding: some tens of microseconds */
    YIELDS = 200,           /* between runs: yields before sleeping */
    STALL_NS = 1000 * 1000, /* waits of this long in a run, and of a quarter of it, are a stall */
    FIRST_PAUSE = 4,        /* times a stalled run, alone after it; doubled with each further one */
    LONGEST_PAUSE = 128,
};

static const int64_t longest_pause_ns = 4000LL * 1000 * 1000;

struct mln_team {
    int32_t size;
    int32_t num_started;
    pthread_t *workers;   /* [size - 1] */
    mln_claimed *claimed; /* [size] */
    pthread_mutex_t owner;

    /* Of the owner alone. */
    int64_t alone_until; /* on now_ns()'s clock: then the others are asked again */
    int32_t pause;       /* times the next run that stalls, alone after it */

    mln_team_function function;
    void *context;
    mln_run *run;
    _Alignas(64) _Atomic uint32_t generation; /* of the run; what sleepers sleep on */
    _Atomic int32_t sleepers;
    _Atomic bool stopping;
    _Alignas(64) _Atomic int32_t inside; /* workers that have not left the run */
};

typedef struct worker_start {
    mln_team *team;
    int32_t index;
    _Atomic bool taken;
} worker_start;

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Nothing is claimed yet. */
static void begin_phase(mln_run *run) {
    for (int32_t i = 0; i < run->size; i++)
        atomic_store_explicit(&run->claimed[i].both, 0, memory_order_relaxed);
}

void mln_barrier_fetch(mln_member *member, const void *next, int64_t bytes) {
    enum { LINE = 64, AT_ONCE = 4 };
    mln_run *run = member->run;
    if (member->size == 1) {
        begin_phase(run);
        return;
    }
    uint32_t phase = atomic_load_explicit(&run->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&run->arrived, 1, memory_order_acq_rel) + 1 == member->size) {
        atomic_store_explicit(&run->arrived, 0, memory_order_relaxed);
        begin_phase(run);
        atomic_store_explicit(&run->phase, phase + 1, memory_order_release);
        return;
    }
    const char *from = next;
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&run->phase, memory_order_acquire) != phase)
            return;
        for (int k = 0; k < AT_ONCE && bytes > 0; k++, from += LINE, bytes -= LINE)
            __builtin_prefetch(from, 0, 2);
        relax();
    }
    int64_t start = now_ns();
    while (atomic_load_explicit(&run->phase, memory_order_acquire) == phase)
        sched_yield();
    if (member->index == 0)
        run->stalled_ns += now_ns() - start;
}

void mln_barrier(mln_member *member) {
    mln_barrier_fetch(member, NULL, 0);
}

/* The range of `total` pieces that is a member's own. */
static mln_share range_of(int32_t index, int32_t size, int64_t total) {
    return (mln_share){total * index / size, total * (index + 1) / size};
}

/* Pieces of a share when `left` are of its range: half of them, so that the last are small. */
static int64_t share_size(int64_t left, int64_t most) {
    int64_t size = (left + 1) / 2;
    return size < most ? size : most;
}

mln_share mln_first_share(const mln_member *member, int64_t total, int64_t most) {
    mln_share range = range_of(member->index, member->size, total);
    return (mln_share){range.begin, range.begin + share_size(range.end - range.begin, most)};
}

/* A share of the range of member `owner`. */
static bool claim_of(mln_member *member, int32_t owner, int64_t total, int64_t most,
                     mln_share *share) {
    enum { HALF = 32 };
    _Atomic uint64_t *claimed = &member->run->claimed[owner].both;
    mln_share range = range_of(owner, member->size, total);
    uint64_t both = atomic_load_explicit(claimed, memory_order_relaxed), more;
    bool own = owner == member->index;
    do {
        int64_t begin = range.begin + (int64_t)(both & UINT32_MAX);
        int64_t end = range.end - (int64_t)(both >> HALF);
        if (begin >= end)
            return false;
        int64_t size = share_size(end - begin, most);
        *share = own ? (mln_share){begin, begin + size} : (mln_share){end - size, end};
        more = own ? (uint64_t)size : (uint64_t)size << HALF;
    } while (!atomic_compare_exchange_weak_explicit(claimed, &both, both + more,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

bool mln_claim(mln_member *member, int64_t total, int64_t most, mln_share *share) {
    for (int32_t i = 0; i < member->size; i++)
        if (claim_of(member, (member->index + i) % member->size, total, most, share))
            return true;
    return false;
}

/* Waits for a run after `seen`, or the end. */
static uint32_t await_run(mln_team *team, uint32_t seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&team->generation, memory_order_acquire) != seen)
            return seen + 1;
        relax();
    }
    for (int i = 0; i < YIELDS; i++) {
        if (atomic_load_explicit(&team->generation, memory_order_acquire) != seen)
            return seen + 1;
        sched_yield();
    }
    while (atomic_load(&team->generation) == seen) {
        atomic_fetch_add(&team->sleepers, 1);
        futex_wait(&team->generation, seen);
        atomic_fetch_sub(&team->sleepers, 1);
    }
    return seen + 1;
}

static void *work(void *argument) {
    worker_start *start = argument;
    mln_team *team = start->team;
    mln_member member = {.index = start->index, .size = team->size};
    atomic_store(&start->taken, true);
    for (uint32_t seen = 0;;) {
        seen = await_run(team, seen);
        if (atomic_load(&team->stopping))
            return NULL;
        member.run = team->run;
        team->function(&member, team->context);
        atomic_fetch_sub_explicit(&team->inside, 1, memory_order_release);
    }
}

static myelin_status start_workers(mln_team *team, myelin_error *error) {
    for (int32_t i = 1; i < team->size; i++) {
        worker_start start = {.team = team, .index = i};
        int code = pthread_create(&team->workers[i - 1], NULL, work, &start);
        if (code != 0)
            return mln_fail(error, MYELIN_ERROR_MEMORY, NULL, -1,
                            "could not start thread %" PRId32 " of %" PRId32 ": %s", i + 1,
                            team->size, strerrordesc_np(code));
        team->num_started++;
        while (!atomic_load(&start.taken))
            sched_yield();
    }
    return MYELIN_OK;
}

myelin_status mln_team_create(mln_team **out, int32_t threads, myelin_error *error) {
    *out = NULL;
    mln_team *team = aligned_alloc(64, (sizeof *team + 63) / 64 * 64);
    if (!team)
        return mln_fail_memory(error, sizeof *team, "a team of threads");
    memset(team, 0, sizeof *team);
    team->size = threads < 1 ? 1 : threads;
    team->pause = FIRST_PAUSE;
    pthread_mutex_init(&team->owner, NULL);
    size_t members = (size_t)team->size;
    team->workers = mln_calloc(members, sizeof *team->workers);
    team->claimed = aligned_alloc(_Alignof(mln_claimed), members * sizeof *team->claimed);
    myelin_status status =
        team->workers && team->claimed
            ? start_workers(team, error)
            : mln_fail_memory(error, members * (sizeof *team->workers + sizeof *team->claimed),
                              "a team of threads");
    if (status != MYELIN_OK) {
        mln_team_free(team);
        return status;
    }
    *out = team;
    return MYELIN_OK;
}

static void wake(mln_team *team) {
    atomic_fetch_add(&team->generation, 1);
    if (atomic_load(&team->sleepers) > 0)
        futex_wake(&team->generation);
}

void mln_team_free(mln_team *team) {
    if (!team)
        return;
    atomic_store(&team->stopping, true);
    wake(team);
    for (int32_t i = 0; i < team->num_started; i++)
        pthread_join(team->workers[i], NULL);
    pthread_mutex_destroy(&team->owner);
    free(team->workers);
    free(team->claimed);
    free(team);
}

int32_t mln_team_size(const mln_team *team) {
    return team->size;
}

static void run_alone(mln_team_function function, void *context) {
    mln_claimed claimed = {0};
    mln_run run = {.size = 1, .claimed = &claimed};
    mln_member member = {.run = &run, .index = 0, .size = 1};
    function(&member, context);
}

/* After a stall the caller works alone for a while, longer each time; see the header. */
static void judge(mln_team *team, int64_t stalled_ns, int64_t total_ns, int64_t now) {
    if (stalled_ns <= STALL_NS || stalled_ns <= total_ns / 4) {
        team->pause = FIRST_PAUSE;
        return;
    }
    int64_t pause_ns = team->pause * total_ns;
    team->alone_until = now + (pause_ns < longest_pause_ns ? pause_ns : longest_pause_ns);
    team->pause = team->pause < LONGEST_PAUSE ? 2 * team->pause : LONGEST_PAUSE;
}

static void run_together(mln_team *team, bool is_long, mln_team_function function, void *context) {
    mln_run run = {.size = team->size, .claimed = team->claimed};
    mln_member member = {.run = &run, .index = 0, .size = team->size};
    int64_t start = now_ns();
    begin_phase(&run);
    team->function = function;
    team->context = context;
    team->run = &run;
    atomic_store_explicit(&team->inside, team->size - 1, memory_order_relaxed);
    wake(team);
    function(&member, context);
    for (int i = 0; atomic_load_explicit(&team->inside, memory_order_acquire) > 0; i++) {
        if (i < SPINS)
            relax();
        else
            sched_yield();
    }
    int64_t end = now_ns();
    if (!is_long)
        judge(team, run.stalled_ns, end - start, end);
}

void mln_team_run(mln_team *team, bool is_long, mln_team_function function, void *context) {
    if (team->size == 1 || pthread_mutex_trylock(&team->owner) != 0) {
        run_alone(function, context);
        return;
    }
    if (!is_long && now_ns() < team->alone_until)
        run_alone(function, context);
    else
        run_together(team, is_long, function, context);
    pthread_mutex_unlock(&team->owner);
}
