/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of the sums of a projection. */
#ifndef MLN_CUDA_EPILOGUE_CUH
#define MLN_CUDA_EPILOGUE_CUH

#include <stdint.h>

#include "cuda_kernels.h"

__device__ inline mln_cuda_best better(mln_cuda_best a, mln_cuda_best b) {
    if (b.id == INT32_MAX)
        return a;
    if (a.id == INT32_MAX || b.value > a.value || (b.value == a.value && b.id < a.id))
        return b;
    return a;
}

__device__ inline mln_cuda_best better_of_lanes(mln_cuda_best mine, int offset, uint32_t mask) {
    mln_cuda_best theirs = {__shfl_xor_sync(mask, mine.value, offset),
                            __shfl_xor_sync(mask, mine.id, offset)};
    return better(mine, theirs);
}

/*
 * y / (1 + e^-y). The quotient is what IEEE 754 wants, as the compiler's own division makes it, but
 * without that one's jump for divisors that are very small or large, which keeps one output from
 * being computed beside the next: a divisor is 1 at least, and where it is very large, y below -85,
 * the quotient is as good as zero.
 */
__device__ inline float silu(float y) {
    float divisor = fminf(1.0f + expf(-y), 0x1p125f), inverse;
    float dividend = y < -100.0f ? -100.0f : y; /* what is no number stays so */
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(divisor));
    inverse = fmaf(inverse, fmaf(-divisor, inverse, 1.0f), inverse);
    float quotient = dividend * inverse;
    return fmaf(fmaf(-divisor, quotient, dividend), inverse, quotient);
}

/* What is at out[token, row] before, where the epilogue wants it. */
__device__ inline bool wants_out(const mln_cuda_linear &p) {
    return p.epilogue == MLN_CUDA_ADD || p.epilogue == MLN_CUDA_GATE;
}

__device__ inline void store(const mln_cuda_linear &p, float *out, float y, float before) {
    if (p.epilogue == MLN_CUDA_ADD)
        *out = before + y;
    else if (p.epilogue == MLN_CUDA_GATE)
        *out = silu(y) * before;
    else
        *out = y;
}

#endif
