/* SPDX-License-Identifier: Apache-2.0 */
/* How tiles are dealt to the blocks of persist.h, as functions the host can test. */
#ifndef MLN_CUDA_DEAL_H
#define MLN_CUDA_DEAL_H

#include <stdint.h>

#include "tiles.h"

/* Units that a slot of a warp's ring holds: 4 to 6 KB. */
MLN_TILE_FN int mln_persist_slot_units(int code) {
    return code == MLN_TILE_DENSE ? 2 : code == MLN_TILE_Q4 || code == MLN_TILE_Q4_PAIR ? 8 : 5;
}

/* Whether a slot may be one tile's; else those that are summed side by side share it. */
MLN_TILE_FN int mln_persist_may_own(int code) {
    return code == MLN_TILE_DENSE;
}

/* Warps that copy. More than one is in the way of small layers of 16 bits. */
MLN_TILE_FN int mln_persist_copying(int code) {
    return code == MLN_TILE_DENSE ? 1 : 2;
}

/* Tiles of `tiles`, the first of them with block `first`, that block `block` of `blocks` has. */
MLN_TILE_FN int mln_persist_share(int tiles, int first, int block, int blocks, int *own) {
    int at = block - first;
    *own = at < 0 ? at + blocks : at;
    return *own < tiles ? (tiles - *own + blocks - 1) / blocks : 0;
}

/*
 * Where a product of `tiles` tiles of `bytes` begins, so that the blocks' loads, which it is added
 * to, come out as even as can be.
 */
static inline int32_t mln_persist_deal(int64_t *load, int32_t blocks, int32_t tiles,
                                       int64_t bytes) {
    int32_t best = 0;
    int64_t least = INT64_MAX;
    int32_t extra = tiles % blocks; /* all blocks have the rest alike */
    for (int32_t first = 0; first < blocks; first++) {
        int64_t sum = 0;
        for (int32_t i = 0; i < extra; i++)
            sum += load[(first + i) % blocks];
        if (sum < least) {
            least = sum;
            best = first;
        }
    }
    for (int32_t i = 0; i < tiles; i++)
        load[(best + i) % blocks] += bytes;
    return best;
}

#endif
