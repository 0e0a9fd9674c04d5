/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_TEXT_CPU_CLOCK_H
#define TESTS_TEXT_CPU_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds of processor time of this thread: a busy machine does not fail a test. */
static inline int64_t cpu_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
