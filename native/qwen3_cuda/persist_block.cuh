/* SPDX-License-Identifier: Apache-2.0 */
/* What a block of persist.cu is made of, and what its threads share. */
#ifndef MLN_CUDA_PERSIST_BLOCK_CUH
#define MLN_CUDA_PERSIST_BLOCK_CUH

#include <cuda_fp16.h>
#include <stdint.h>

#include "attend_ops.cuh"
#include "device.cuh"
#include "persist_ops.cuh"
#include "stage.cuh"

namespace {

/* For compute capability 9 and later; the host's compiler must see it too. */
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define MLN_PERSISTS
#endif

constexpr int kProductThreads = kStageThreads, kAttendThreads = 128;
template <int CODE>
constexpr int kThreads = kProductThreads + kAttendThreads + 32 * mln_persist_copying(CODE);

constexpr int kGroup = MLN_PERSIST_GROUP; /* heads: the other eight rows are zeros */
constexpr int kParts = MLN_TILE_SPLITS, kTogether = MLN_PERSIST_TOGETHER;
static_assert(kProductThreads == 32 * kParts, "a warp a part");

/* What a block shares first. */
struct Common {
    Barriers barriers;
    float parts[2][kTogether][kParts][MLN_TILE_ROWS + 1];
    __align__(16) float mosts[kParts];
    float factor;       /* of a norm */
    volatile int round; /* that its products have begun */
    mln_cuda_best bests[kParts];
    mln_cuda_best winners[kParts];
};

struct AttendCommon {
    Exchange exchange;
    __align__(16) __half queries[kGroup][D + 8];
    __align__(16) __half own[2][D];
    float norms[2][D]; /* of queries and keys */
};

constexpr int kCommonBytes = (sizeof(Common) + 127) / 128 * 128;
constexpr int kFixedBytes = kCommonBytes + (sizeof(AttendCommon) + 127) / 128 * 128;

#ifdef MLN_PERSISTS

constexpr int kRowUnit =
    256; /* bytes of a unit of the row: floats, then half as many of binary16 */
constexpr int kUnitQuads = MLN_UNIT_COLUMNS / 4;
typedef SomeSync<1, kProductThreads> ProductSync;
typedef SomeSync<2, kAttendThreads> AttendSync;
/* For the warp that makes the norm's factor: the one before has been used; and it for those who
 * finish rows. */
typedef SomeSync<3, kProductThreads + 32> NormSync;
typedef SomeSync<4, kTogether * MLN_TILE_ROWS + 32> FactorSync;
/* At the end of a token: those who attend have posted, and emptied, all that they do. */
typedef SomeSync<5, kProductThreads + kAttendThreads> TokenSync;
constexpr int kHelper = 2; /* of the four that attend */

/* The rest: the rings, then what `persist` says. */
struct Layers {
    const mln_persist_layer *all;

    __device__ Layers(const mln_cuda_persist &p, const unsigned char *shared)
        : all(reinterpret_cast<const mln_persist_layer *>(shared + p.at_layers)) {
    }
};

/* A block's tiles of a product: `first`, then every gridDim.x-th. */
struct Share {
    int first, count;
};

/* The head is product 0 of the layer after the last. */
__device__ Share share_of(const mln_cuda_persist &p, const Layers &layers, int kind, int layer) {
    Share share;
    share.count = mln_persist_share(p.products[kind].tiles, layers.all[layer].first[kind % 4],
                                    (int)blockIdx.x, (int)gridDim.x, &share.first);
    return share;
}

#endif

} // namespace

#endif
