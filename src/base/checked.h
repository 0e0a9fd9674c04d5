/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic on sizes that come from files: false on overflow, *out untouched then. */
#ifndef MLN_BASE_CHECKED_H
#define MLN_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool mln_add(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

static inline bool mln_mul(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

#endif
