/* SPDX-License-Identifier: Apache-2.0 */
/* Units that a warp of persist.cu multiplies: from shared memory, or ready in its registers. */
#ifndef MLN_CUDA_PERSIST_UNITS_CUH
#define MLN_CUDA_PERSIST_UNITS_CUH

#include <stdint.h>

#include "persist_block.cuh"
#include "tile_ops.cuh"

namespace {

/* This lane's activations of a unit: column 0 of 8, the others are zeros. */
struct Column {
    uint4 b[2];

    __device__ explicit Column(const unsigned char *x)
        : b{make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)} {
        if (threadIdx.x % 32 < 4) {
            b[0] = *reinterpret_cast<const uint4 *>(x);
            b[1] = *reinterpret_cast<const uint4 *>(x + 64);
        }
    }
    __device__ void multiply(float (&c)[4], const uint32_t (&a)[4], int step) const {
        mma(c, a, word_of(b[step / 2], step % 2 * 2), word_of(b[step / 2], step % 2 * 2 + 1));
    }
};

/* Units of T tiles, one after the other, from shared memory. */
template <int CODE, int T> struct Run {
    const unsigned char *w[T]; /* this lane's */
    int scales;                /* from the lane's vectors to its scales, less the codes */

    __device__ Run() : scales((int)(threadIdx.x % 32 / 4 * 8) - (int)(threadIdx.x % 32 * 16)) {
    }

    __device__ void begin(int tile, const unsigned char *units) {
        w[tile] = units + threadIdx.x % 32 * 16;
    }

    __device__ void load(Unit<CODE> &unit, int tile, int u) const {
        const unsigned char *from = w[tile] + u * Unit<CODE>::BYTES;
        unit.template load_at<PlainLoad>(from, from + scales);
    }

    __device__ void skip(int units) {
#pragma unroll
        for (int t = 0; t < T; t++)
            w[t] += units * Unit<CODE>::BYTES;
    }

    /* The products of the next N units with the activations. */
    template <int N> __device__ void add(float (&c)[kTogether][4], const unsigned char *&x) {
#pragma unroll
        for (int u = 0; u < N; u++) {
            Unit<CODE> unit[T];
#pragma unroll
            for (int t = 0; t < T; t++)
                load(unit[t], t, u);
            Column column(x + u * kRowUnit);
#pragma unroll
            for (int step = 0; step < 4; step++)
#pragma unroll
                for (int t = 0; t < T; t++) {
                    uint32_t a[4];
                    fragment<CODE>(a, unit[t], step);
                    column.multiply(c[t], a, step);
                }
        }
        skip(N);
        x += N * kRowUnit;
    }

    /* `count` units, up to MOST without a jump. */
    template <int MOST>
    __device__ void add_all(float (&c)[kTogether][4], const unsigned char *&x, int count) {
        if (MOST > 1 && count & 1)
            add<1>(c, x);
        if (MOST > 2 && count & 2)
            add<2>(c, x);
#pragma unroll 1
        for (int left = count & -MOST; left > 0; left -= MOST)
            add<MOST>(c, x);
    }
};

/* Of a group's tiles the first units, as mma() wants them. */
template <int CODE, int COUNT> struct Held {
    uint32_t a[COUNT][4][4]; /* tile after tile */
    int units;               /* of each tile */
    int used;                /* of them those of a slot that has more */

    __device__ void put(int at, const Unit<CODE> &unit) {
#pragma unroll
        for (int step = 0; step < 4; step++)
            fragment<CODE>(a[at][step], unit, step);
    }
};

} // namespace

#endif
