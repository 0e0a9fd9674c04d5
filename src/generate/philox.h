/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers as a function of (seed, position, id): no state to carry or to share, and the same
 * on every processor.
 */
#ifndef MLN_GENERATE_PHILOX_H
#define MLN_GENERATE_PHILOX_H

#include <stdint.h>

/*
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four words
 * from a 64-bit key and a 128-bit counter.
 */
void mln_philox(uint32_t out[4], uint64_t key, const uint32_t counter[4]);

/* Uniform in (0, 1), never either end: the first 53 bits of philox(seed, (id, position, 0, 0)). */
double mln_uniform(uint64_t seed, uint32_t position, uint32_t id);

#endif
