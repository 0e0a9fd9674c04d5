/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MLN_BASE_CLOCK_H
#define MLN_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Monotonic time in nanoseconds; only differences mean anything. */
static inline int64_t mln_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline double mln_ms_between(int64_t start_ns, int64_t end_ns) {
    return (double)(end_ns - start_ns) * 1e-6;
}

#endif
