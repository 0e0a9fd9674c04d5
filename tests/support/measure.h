/* SPDX-License-Identifier: Apache-2.0 */
/* What programs that measure share. */
#ifndef MLN_TESTS_MEASURE_H
#define MLN_TESTS_MEASURE_H

#include <stdlib.h>
#include <time.h>

static inline double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static inline int measure_ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts the values. */
static inline double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, measure_ascending);
    return values[count / 2];
}

#endif
