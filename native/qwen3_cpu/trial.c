/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast panels come from memory on this processor, with these kernels and as many threads as
 * there are: such that are fetched in one way or another, and packed ones. Which is best, and
 * whether unpacking hides behind reading, depends on all three, and on the neighbours a machine
 * has, so it is measured. Panels are put out of the caches before each pass: a few megabytes show
 * then what reading all weights costs.
 */
#include <math.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "base/clock.h"
#include "internal.h"

enum { ROUNDS = 5, CACHE_LINE = 64 };

/* What is tried: panels as they are fetched else, and CLOSE; packed ones. */
enum { PLAIN, PLAIN_CLOSE, PACKED, TRIED };

/* What CLOSE has to gain: less is what passes differ by. */
#define CLOSE_GAIN 1.03

typedef struct trial {
    const mln_cpu_kernels *kernels;
    mln_cpu_matrix matrices[TRIED];
    int32_t tried;     /* all of them, or the plain ones */
    const void *block; /* the activations of a token */
    int64_t taken_ns[TRIED][ROUNDS];
} trial;

/* --- out of the caches --- */

#if defined(__x86_64__)
static bool can_flush(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_CLFLUSHOPT) != 0;
}
__attribute__((target("clflushopt"))) static void flush(unsigned char *from,
                                                        const unsigned char *end) {
    for (; from < end; from += CACHE_LINE)
        _mm_clflushopt(from);
    _mm_mfence();
}
#elif defined(__aarch64__)
static bool can_flush(void) {
    return true; /* Linux lets programs; lines of 64 bytes or more */
}
static void flush(unsigned char *from, const unsigned char *end) {
    for (; from < end; from += CACHE_LINE)
        __asm__ volatile("dc civac, %0" : : "r"(from) : "memory");
    __asm__ volatile("dsb sy" : : : "memory");
}
#else
static bool can_flush(void) {
    return false;
}
static void flush(unsigned char *from, const unsigned char *end) {
    (void)from;
    (void)end;
}
#endif

/* --- passes --- */

static void run_pass(mln_member *member, trial *t, int kind, int round) {
    const mln_cpu_matrix *m = &t->matrices[kind];
    int64_t first = m->panels * member->index / member->size;
    int64_t end = m->panels * (member->index + 1) / member->size;
    float out[MLN_CPU_PANEL];
    for (int64_t p = first; p < end; p++) {
        unsigned char *from = mln_cpu_panel_at(m, p);
        int64_t bytes = m->panel_bytes;
        if (kind == PACKED)
            bytes = (int64_t)((const mln_cpu_packed_head *)(const void *)from)->bytes;
        flush(from, from + bytes);
    }
    mln_barrier(member);
    int64_t begun = mln_clock_ns();
    for (int64_t p = first; p < end; p++)
        t->kernels->panel(out, m, p, t->block, 1);
    mln_barrier(member);
    if (member->index == 0)
        t->taken_ns[kind][round] = mln_clock_ns() - begun;
}

static void run_member(mln_member *member, void *context) {
    trial *t = context;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < t->tried; i++)
            run_pass(member, t, (round + i) % t->tried, round);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/*
 * How many times as fast `kind` is as `other`: the median of the rounds' ratios, or that of the
 * best passes if it is less. Who else uses the memory moves either, but seldom both to the same
 * side.
 */
static double gain_of(const trial *t, int kind, int other) {
    double ratios[ROUNDS], best[2] = {INFINITY, INFINITY};
    for (int i = 0; i < ROUNDS; i++) {
        double slow = (double)t->taken_ns[other][i] + 1, fast = (double)t->taken_ns[kind][i] + 1;
        ratios[i] = slow / fast;
        best[0] = slow < best[0] ? slow : best[0];
        best[1] = fast < best[1] ? fast : best[1];
    }
    qsort(ratios, ROUNDS, sizeof *ratios, compare);
    double median = ratios[ROUNDS / 2], least = best[0] / best[1];
    return median < least ? median : least;
}

mln_cpu_trial mln_cpu_try(mln_team *team, const mln_cpu_kernels *kernels,
                          const mln_cpu_matrix *plain, const mln_cpu_matrix *packed) {
    mln_cpu_trial found = {.close = false};
    if (!can_flush())
        return found;
    float *x = mln_calloc((size_t)plain->columns, sizeof *x);
    void *block = mln_calloc(kernels->packed_bytes(plain, 1), 1);
    if (x && block) {
        trial t = {.kernels = kernels, .matrices = {*plain, *plain}, .block = block};
        t.matrices[PLAIN_CLOSE].fetch[0] = MLN_CPU_FETCH_CLOSE;
        if (packed)
            t.matrices[PACKED] = *packed;
        t.tried = packed ? TRIED : PACKED;
        kernels->pack(block, plain, x, 0, 1, 0, plain->columns);
        mln_team_run(team, true, run_member, &t);
        found.close = gain_of(&t, PLAIN_CLOSE, PLAIN) >= CLOSE_GAIN;
        if (packed)
            found.packed = gain_of(&t, PACKED, found.close ? PLAIN_CLOSE : PLAIN);
    }
    free(x);
    free(block);
    return found;
}
