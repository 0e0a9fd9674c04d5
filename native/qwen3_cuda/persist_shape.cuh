/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel of persist.cu knows of a model's shape when it is compiled. */
#ifndef MLN_CUDA_PERSIST_SHAPE_CUH
#define MLN_CUDA_PERSIST_SHAPE_CUH

#include <stdint.h>

#include "persist_block.cuh"

namespace {

/* Nothing. */
struct AnyShape {
    static constexpr bool KNOWN = false;
    __device__ static int heads(const mln_cuda_persist &p) {
        return p.heads;
    }
    __device__ static int kv_heads(const mln_cuda_persist &p) {
        return p.kv_heads;
    }
};

/* Qwen3 0.6B. Layers, positions and rows of the head may be as many as there are. */
struct SmallShape {
    static constexpr bool KNOWN = true;
    static constexpr int HIDDEN = 1024, WIDE = 3072, HEADS = 16, KV_HEADS = 8;
    /* where kinds of words are in those of a round */
    static constexpr int MIDDLE = 0, OUT = HIDDEN, QKV = 2 * HIDDEN;
    static constexpr int ATTENDED = QKV + (HEADS + 2 * KV_HEADS) * D;
    static constexpr int GATED = ATTENDED + HEADS * D, ROUND = GATED + WIDE;

    __device__ static constexpr int heads(const mln_cuda_persist &) {
        return HEADS;
    }
    __device__ static constexpr int kv_heads(const mln_cuda_persist &) {
        return KV_HEADS;
    }
};

/* A product of a layer of that shape, as persist.c cuts it for some 130 blocks. */
template <int KIND> struct Link {
    typedef SmallShape S;
    static constexpr bool NORM = KIND != MLN_PERSIST_O && KIND != MLN_PERSIST_DOWN;
    static constexpr bool PAIRED = KIND == MLN_PERSIST_GATED;
    static constexpr int TILES = KIND == MLN_PERSIST_QKV ? 2 : PAIRED ? 3 : 1; /* of a block */
    static constexpr int COLUMNS = NORM                    ? S::HIDDEN
                                   : KIND == MLN_PERSIST_O ? S::HEADS * D
                                                           : S::WIDE;
    static constexpr int ROWS = KIND == MLN_PERSIST_QKV ? (S::HEADS + 2 * S::KV_HEADS) * D
                                : PAIRED                ? S::WIDE
                                                        : S::HIDDEN;
    static constexpr int UNITS = COLUMNS / MLN_UNIT_COLUMNS / kParts; /* of a warp and tile */
    static constexpr int QUADS = UNITS / 2;                           /* of a lane */
    static constexpr int FROM = KIND == MLN_PERSIST_QKV ? S::OUT
                                : KIND == MLN_PERSIST_O ? S::ATTENDED
                                : PAIRED                ? S::MIDDLE
                                                        : S::GATED;
    static constexpr int TO = KIND == MLN_PERSIST_QKV ? S::QKV
                              : KIND == MLN_PERSIST_O ? S::MIDDLE
                              : PAIRED                ? S::GATED
                                                      : S::OUT;
    /* warps that finish rows */
    static constexpr int FINISHERS = (TILES * MLN_TILE_ROWS + 31) / 32;

    static bool is(const mln_persist_product &product, int blocks) {
        return product.columns == COLUMNS && product.rows == ROWS &&
               product.tiles == ROWS / (PAIRED ? MLN_TILE_ROWS / 2 : MLN_TILE_ROWS) &&
               product.together == TILES && product.at_once == UNITS &&
               (!NORM || product.tiles >= blocks);
    }
};

constexpr int kHeadUnits = SmallShape::HIDDEN / MLN_UNIT_COLUMNS / kParts; /* of a warp and tile */

/* Whether the kernel for the known shape can do it. */
bool is_small(const mln_cuda_persist &p) {
    typedef SmallShape S;
    const mln_persist_product *products = p.products, &head = products[MLN_PERSIST_HEAD];
    return p.tile_code == MLN_TILE_Q4 && p.hidden == S::HIDDEN && p.heads == S::HEADS &&
           p.kv_heads == S::KV_HEADS && p.round_words == S::ROUND &&
           p.num_layers <= kMostKnownLayers &&
           Link<MLN_PERSIST_QKV>::is(products[MLN_PERSIST_QKV], p.blocks) &&
           Link<MLN_PERSIST_O>::is(products[MLN_PERSIST_O], p.blocks) &&
           Link<MLN_PERSIST_GATED>::is(products[MLN_PERSIST_GATED], p.blocks) &&
           Link<MLN_PERSIST_DOWN>::is(products[MLN_PERSIST_DOWN], p.blocks) &&
           head.together == kTogether && head.at_once == kHeadUnits;
}

} // namespace

#endif
