/* SPDX-License-Identifier: Apache-2.0 */
/* Units of tiles in registers, and products of them on tensor cores. */
#ifndef MLN_CUDA_TILE_OPS_CUH
#define MLN_CUDA_TILE_OPS_CUH

#include <cuda_fp16.h>
#include <stdint.h>

#include "cuda_kernels.h"
#include "tiles.h"

/* c[16 x 8] += a[16 x 16] * b[16 x 8], as the lanes of a warp hold them. */
__device__ inline void mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Read once: must not push what is reused out of the caches. */
struct StreamLoad {
    __device__ static uint4 vector(const unsigned char *from) {
        uint4 v;
        asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"(from));
        return v;
    }
    __device__ static uint2 pair(const unsigned char *from) {
        uint2 v;
        asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
                     : "=r"(v.x), "=r"(v.y)
                     : "l"(from));
        return v;
    }
};

struct PlainLoad {
    __device__ static uint4 vector(const unsigned char *from) {
        return *reinterpret_cast<const uint4 *>(from);
    }
    __device__ static uint2 pair(const unsigned char *from) {
        return *reinterpret_cast<const uint2 *>(from);
    }
};

/* A lane's part of a unit. */
template <int CODE> struct Unit {
    static constexpr int SETS = mln_tile_sets(CODE), CODES = mln_unit_codes(CODE);
    static constexpr int BYTES = CODES + SETS * MLN_SCALE_BYTES;
    static constexpr int VECTORS = CODES / 512;
    static constexpr int WORDS = 4 * VECTORS + 2 * SETS;
    uint4 v[VECTORS];
    uint2 scales[SETS ? SETS : 1]; /* scale and bias of rows lane / 4 and lane / 4 + 8 */

    template <typename Load> __device__ void load(const unsigned char *unit, int lane) {
        load_at<Load>(unit + 16 * lane, unit + lane / 4 * 8);
    }

    /* From where the lane's vectors begin, and so many bytes before its scales. */
    template <typename Load>
    __device__ void load_at(const unsigned char *own, const unsigned char *own_scales) {
#pragma unroll
        for (int i = 0; i < VECTORS; i++)
            v[i] = Load::vector(own + 512 * i);
#pragma unroll
        for (int i = 0; i < SETS; i++)
            scales[i] = Load::pair(own_scales + CODES + MLN_SCALE_BYTES * i);
    }
};

__device__ inline uint32_t word_of(const uint4 &v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

__device__ inline __half2 as_half2(uint32_t x) {
    return *reinterpret_cast<const __half2 *>(&x);
}

__device__ inline uint32_t as_word(__half2 x) {
    return *reinterpret_cast<const uint32_t *>(&x);
}

/* Scale times the two codes of w that `mask` has, plus bias; the codes are subnormal numbers. */
__device__ inline uint32_t expand(uint32_t w, uint32_t mask, __half2 scale, __half2 bias) {
    return as_word(__hfma2(scale, as_half2(w & mask), bias));
}

/* The weights of columns 16 step .. 16 step + 15 as mma() wants them; `step` is a constant. */
template <int CODE>
__device__ inline void fragment(uint32_t a[4], const Unit<CODE> &unit, int step) {
    if constexpr (CODE == MLN_TILE_DENSE) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = word_of(unit.v[step], i);
    } else if constexpr (CODE == MLN_TILE_PACKED) {
#pragma unroll
        for (int low = 0; low < 2; low++) {
            uint32_t w[3];
#pragma unroll
            for (int i = 0; i < 3; i++) {
                int word = step / 2 * 6 + low * 3 + i;
                w[i] = word_of(unit.v[word / 4], word % 4);
            }
            a[low] = w[step % 2 * 2] & MLN_PACKED_FIELDS;
            a[low + 2] =
                step % 2 == 0 ? w[1] & MLN_PACKED_FIELDS : mln_unpack_last(w[0], w[1], w[2]);
        }
    } else {
        uint2 s = unit.scales[Unit<CODE>::SETS == 2 ? step / 2 : 0];
        __half2 low = as_half2(s.x), high = as_half2(s.y);
        __half2 scale0 = __low2half2(low), bias0 = __high2half2(low);
        __half2 scale1 = __low2half2(high), bias1 = __high2half2(high);
        if constexpr (CODE == MLN_TILE_Q8 || CODE == MLN_TILE_Q8_PAIR) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                uint32_t w = word_of(unit.v[step / 2], step % 2 * 2 + i);
                a[2 * i] = expand(w, 0x00ff00ffu, scale0, bias0);
                a[2 * i + 1] = expand(w >> 8, 0x00ff00ffu, scale1, bias1);
            }
        } else {
            uint32_t w = word_of(unit.v[0], step), upper = w >> 8;
            __half2 sixteenth = __float2half2_rn(1.0f / 16); /* the upper codes lie higher */
            a[0] = expand(w, 0x000f000fu, scale0, bias0);
            a[1] = expand(upper, 0x000f000fu, scale1, bias1);
            a[2] = expand(w, 0x00f000f0u, __hmul2(scale0, sixteenth), bias0);
            a[3] = expand(upper, 0x00f000f0u, __hmul2(scale1, sixteenth), bias1);
        }
    }
}

/* What belongs to a part of a tile besides its units: nothing, unless it is packed. */
template <int CODE> struct Extras {
    __device__ void load(const mln_cuda_matrix &, int, int, int) {
    }
    __device__ uint32_t hits(int) const {
        return 0;
    }
    __device__ void lift(uint32_t (&)[4]) const {
    }
    __device__ void patch(uint32_t (&)[4], uint32_t, int, int) const {
    }
};

/*
 * fragment() gives fields, lift() makes numbers of them, and patch() puts escapes among those, in
 * units of which hits() is not 0.
 */
template <> struct Extras<MLN_TILE_PACKED> {
    uint32_t lifts;  /* of rows lane / 4 and lane / 4 + 8 */
    uint32_t escape; /* the lane's of the part's list */

    __device__ void load(const mln_cuda_matrix &m, int tile, int part, int lane) {
        lifts = __ldg(m.lifts + tile * 8 + lane / 4);
        escape = lane < m.escape_room
                     ? __ldg(m.escapes + (tile * MLN_TILE_SPLITS + part) * m.escape_room + lane)
                     : MLN_NO_ESCAPE;
    }

    /* Which lanes have an escape of the part's unit `unit`. */
    __device__ uint32_t hits(int unit) const {
        return __ballot_sync(~0u, escape >> 26 == (uint32_t)unit);
    }

    __device__ void lift(uint32_t (&a)[4]) const {
        __half2 low = __low2half2(as_half2(lifts)), high = __high2half2(as_half2(lifts));
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = as_word(__hmul2(as_half2(a[i]), i % 2 ? high : low));
    }

    /* Escapes of one product. */
    __device__ void patch(uint32_t (&a)[4], uint32_t hits, int step, int lane) const {
        if (hits) /* mostly one, of one of the unit's four products */
            hits &= __ballot_sync(~0u, (escape >> 19 & 3) == (uint32_t)step);
#pragma unroll 1
        for (; hits; hits &= hits - 1) {
            uint32_t one = __shfl_sync(~0u, escape, __ffs((int)hits) - 1);
            uint32_t place = (one >> 17 & 511) ^ (uint32_t)(lane << 4); /* in this lane */
#pragma unroll
            for (uint32_t i = 0; i < 4; i++)
                replace(a[i], one, place == (uint32_t)(step << 2) + i);
        }
    }

    /* `one` for a half of a register, if it belongs there. */
    __device__ static void replace(uint32_t &a, uint32_t one, bool belongs) {
        uint32_t selector = one & 0x10000u ? 0x5410u : 0x3254u;
        a = __byte_perm(a, one, belongs ? selector : 0x3210u);
    }
};

/*
 * A warp's way through the parts of a tile, one after the other. lists[SPLITS, escape_room] are the
 * tile's, in whatever memory.
 */
template <int CODE> struct Walk {
    __device__ void begin(const mln_cuda_matrix &, const uint32_t *, int, int, int) {
    }
    __device__ uint32_t hits(const mln_cuda_matrix &, int, int) {
        return 0;
    }
    __device__ void lift(uint32_t (&)[4]) const {
    }
    __device__ void patch(uint32_t (&)[4], uint32_t, int, int) const {
    }
};

template <> struct Walk<MLN_TILE_PACKED> {
    Extras<MLN_TILE_PACKED> now;
    const uint32_t *lists;
    int part, first, end;

    __device__ void enter(const mln_cuda_matrix &m, int lane) {
        end = mln_split_begin(m.units, part + 1);
        now.escape = part < MLN_TILE_SPLITS && lane < m.escape_room
                         ? lists[part * m.escape_room + lane]
                         : MLN_NO_ESCAPE;
    }

    /* From a unit with which a part begins. */
    __device__ void begin(const mln_cuda_matrix &m, const uint32_t *of, int tile, int unit,
                          int lane) {
        lists = of;
        now.lifts = __ldg(m.lifts + tile * 8 + lane / 4);
        part = mln_split_of(m.units, unit);
        first = unit;
        enter(m, lane);
    }

    /* As of Extras; units in ascending order. */
    __device__ uint32_t hits(const mln_cuda_matrix &m, int unit, int lane) {
        while (unit >= end) {
            first = end;
            part++;
            enter(m, lane);
        }
        return now.hits(unit - first);
    }

    __device__ void lift(uint32_t (&a)[4]) const {
        now.lift(a);
    }

    __device__ void patch(uint32_t (&a)[4], uint32_t hits, int step, int lane) const {
        now.patch(a, hits, step, lane);
    }
};

/* Where a tile's lists are in device memory. */
__device__ inline const uint32_t *lists_of(const mln_cuda_matrix &m, int tile) {
    return m.escapes + tile * MLN_TILE_SPLITS * m.escape_room;
}

#endif
