/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint without files: the shape of a published Qwen3 model with made-up weights, for
 * measuring speed and memory where no download is at hand. Every byte is a function of its place,
 * so that the same model is read whatever the order of reading.
 *
 * Matrices are normal with a standard deviation of 0.02, as such models are initialised, cut at six
 * deviations: that gives the exponents of bfloat16 the clustered distribution lossless packing
 * lives on. Norms lie around 1. Quantised weights have uniform codes around a zero in the middle.
 */
#ifndef MLN_CHECKPOINT_SYNTHETIC_H
#define MLN_CHECKPOINT_SYNTHETIC_H

#include <stdint.h>

#include "myelin/status.h"

struct mln_checkpoint;

typedef struct mln_synthetic mln_synthetic;

typedef struct mln_synthetic_spec {
    const char *shape;  /* "qwen3-0.6b", "qwen3-1.7b", "-4b", "-8b", "-14b", "-32b" */
    int32_t bits;       /* 0: dense bfloat16; 4 or 8: MLX affine */
    int32_t group_size; /* 32, 64 or 128 with bits */
} mln_synthetic_spec;

/* Freed with mln_checkpoint_free(). */
myelin_status mln_synthetic_open(struct mln_checkpoint **checkpoint, const mln_synthetic_spec *spec,
                                 myelin_error *error);
void mln_synthetic_free(mln_synthetic *synthetic); /* accepts NULL */

/* `length` bytes of a part (0 weight, 1 scales, 2 biases) from `offset` on. */
struct mln_weight;
void mln_synthetic_read(const mln_synthetic *synthetic, const struct mln_weight *weight, int part,
                        uint64_t offset, void *dst, uint64_t length);

#endif
