/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much faster packed panels come from memory than dense ones on this processor, with these
 * kernels and as many threads as there are. Whether unpacking hides behind reading depends on all
 * three, and on the neighbours a machine has, so it is measured. Panels are put out of the caches
 * before each pass: a few megabytes show then what reading all weights costs.
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

/* 0: dense, 1: packed */
typedef struct trial {
    const mln_cpu_kernels *kernels;
    const mln_cpu_matrix *matrices[2];
    const void *block; /* the activations of a token */
    int64_t taken_ns[2][ROUNDS];
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
    const mln_cpu_matrix *m = t->matrices[kind];
    int64_t first = m->panels * member->index / member->size;
    int64_t end = m->panels * (member->index + 1) / member->size;
    float out[MLN_CPU_PANEL];
    for (int64_t p = first; p < end; p++) {
        unsigned char *from = mln_cpu_panel_at(m, p);
        int64_t bytes = m->panel_bytes;
        if (kind == 1)
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
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < 2; i++)
            run_pass(member, context, (round + i) % 2, round);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/*
 * The median of the rounds' ratios, or that of the best passes if it is less: who else uses the
 * memory moves either, but seldom both to the same side.
 */
static double gain_of(const trial *t) {
    double ratios[ROUNDS], best[2] = {INFINITY, INFINITY};
    for (int i = 0; i < ROUNDS; i++) {
        double dense = (double)t->taken_ns[0][i] + 1, packed = (double)t->taken_ns[1][i] + 1;
        ratios[i] = dense / packed;
        best[0] = dense < best[0] ? dense : best[0];
        best[1] = packed < best[1] ? packed : best[1];
    }
    qsort(ratios, ROUNDS, sizeof *ratios, compare);
    double median = ratios[ROUNDS / 2], least = best[0] / best[1];
    return median < least ? median : least;
}

double mln_cpu_packing_gain(mln_team *team, const mln_cpu_kernels *kernels,
                            const mln_cpu_matrix *dense, const mln_cpu_matrix *packed) {
    if (!can_flush())
        return 0;
    float *x = mln_calloc((size_t)dense->columns, sizeof *x);
    void *block = mln_calloc(kernels->packed_bytes(dense, 1), 1);
    double gain = 0;
    if (x && block) {
        trial t = {.kernels = kernels, .matrices = {dense, packed}, .block = block};
        kernels->pack(block, dense, x, 0, 1, 0, dense->columns);
        mln_team_run(team, true, run_member, &t);
        gain = gain_of(&t);
    }
    free(x);
    free(block);
    return gain;
}
