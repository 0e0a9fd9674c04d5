/* SPDX-License-Identifier: Apache-2.0 */
/* The warps of a block of persist.cu that copy weights to the rings of those that multiply. */
#ifndef MLN_CUDA_PERSIST_COPY_CUH
#define MLN_CUDA_PERSIST_COPY_CUH

#include <stdint.h>

#include "persist_block.cuh"

namespace {

/* Where in the weights one of a row's eight parts is: tiles of this block that are summed side by
 * side. */
template <int CODE> struct Cursor {
    static constexpr int BYTES = Unit<CODE>::BYTES;
    const mln_cuda_persist &p;
    Layers layers;
    int part, step, index;
    int left, units;           /* tiles left of the product; units of the part of a row */
    int together, at_once;     /* of the product */
    bool own;                  /* each of them has a slot of its own */
    const unsigned char *from; /* the first tile's */
    int64_t stride;            /* to the next tile of this block */
    bool done;

    __device__ Cursor(const mln_cuda_persist &persist, const unsigned char *shared, int which)
        : p(persist), layers(persist, shared), part(which), step(0), index(-1), done(false) {
        next_product();
    }

    /* On to the next product of which there is anything to copy. */
    __device__ void next_product() {
        do {
            if (++index > 4 * p.num_layers) {
                index = 0;
                step++;
            }
            done = step >= p.steps;
        } while (!done && !begin_product(index / 4, index == 4 * p.num_layers ? 4 : index % 4));
    }

    __device__ bool begin_product(int layer, int kind) {
        const mln_persist_product &product = p.products[kind];
        Share share = share_of(layers, kind, layer);
        int begin = mln_split_begin(product.units, part);
        units = mln_split_begin(product.units, part + 1) - begin;
        left = share.count;
        together = product.together;
        at_once = product.at_once;
        own = product.own;
        int64_t tile_bytes = (int64_t)product.units * BYTES;
        stride = gridDim.x * tile_bytes;
        from = layers.all[layer].data[kind % 4] + share.first * tile_bytes + begin * BYTES;
        return left > 0 && units > 0;
    }

    __device__ int tiles() const {
        return min(together, left);
    }

    __device__ void next() {
        from += together * stride;
        left -= together;
        if (left <= 0)
            next_product();
    }
};

/* What is copied for one warp: which slot's content comes next. */
template <int CODE> struct Supply {
    static constexpr int BYTES = Unit<CODE>::BYTES;
    Cursor<CODE> at;
    Ring ring;
    uint32_t base;  /* shared address of slot 0 */
    int unit, tile; /* the next; tile: of those side by side, where each has a slot */

    __device__ Supply(const mln_cuda_persist &p, const unsigned char *shared,
                      const Barriers &barriers, int part)
        : at(p, shared, part), ring(barriers, part, p.slots), unit(0), tile(0) {
        base = shared_address(shared) + (uint32_t)(part * p.slots) * Slot<CODE>::BYTES;
    }

    __device__ void fill(uint64_t policy) {
        int count = min(at.at_once, at.units - unit);
        const unsigned char *from = at.from + unit * BYTES;
        uint32_t bytes = (uint32_t)(count * BYTES);
        uint32_t full = ring.full + 8 * ring.slot, to = base + ring.slot * Slot<CODE>::BYTES;
        if (mln_persist_may_own(CODE) && at.own) {
            expect_bytes(full, bytes);
            copy_bulk(to, from + tile * at.stride, bytes, full, policy);
            ring.next();
            if (++tile < at.tiles())
                return;
            tile = 0;
        } else {
            expect_bytes(full, bytes * at.tiles());
            for (int t = 0; t < at.tiles(); t++)
                copy_bulk(to + t * at.at_once * BYTES, from + t * at.stride, bytes, full, policy);
            ring.next();
        }
        unit += count;
        if (unit == at.units) {
            unit = 0;
            at.next();
        }
    }
};

/* A lane for each of the eight rings, dealt to the warps that copy. */
template <int CODE>
__device__ void supply(const mln_cuda_persist &p, const unsigned char *shared,
                       const Barriers &barriers) {
    constexpr int EACH = kParts / mln_persist_copying(CODE);
    int lane = threadIdx.x % 32, ring = lane % EACH;
    int warp = (threadIdx.x - kProductThreads - kAttendThreads) / 32;
    if (warp >= mln_persist_copying(CODE))
        return;
    ring += warp * EACH;
    Supply<CODE> mine(p, shared, barriers, ring);
    mine.at.done = mine.at.done || lane >= EACH;
    uint64_t policy = read_once_policy();
    for (uint32_t looks = 0; looks < kManyLooks && !__all_sync(~0u, mine.at.done); looks++)
        if (!mine.at.done && mine.ring.is_empty()) {
            mine.fill(policy);
            looks = 0;
        } else {
            __nanosleep(64); /* the warps beside it have work */
        }
}

} // namespace

#endif
