/* SPDX-License-Identifier: Apache-2.0 */
/* What a block of persist.cu is made of, and what its threads share. */
#ifndef MLN_CUDA_PERSIST_BLOCK_CUH
#define MLN_CUDA_PERSIST_BLOCK_CUH

#include <cuda_fp16.h>
#include <stdint.h>

#include "attend_ops.cuh"
#include "device.cuh"
#include "epilogue.cuh"
#include "persist_ops.cuh"
#include "stage.cuh"

namespace {

constexpr int kProductThreads = kStageThreads, kAttendThreads = 128, kCopyThreads = 128;
constexpr int kThreads = kProductThreads + kAttendThreads + kCopyThreads;
/* Of each thread: those who multiply, and those who attend, take what the others leave. */
constexpr int kProductRegisters = 168, kAttendRegisters = 136, kCopyRegisters = 40;
static_assert(kProductThreads * kProductRegisters + kAttendThreads * kAttendRegisters +
                      kCopyThreads * kCopyRegisters <=
                  65536,
              "a multiprocessor's");

constexpr int kGroup = MLN_PERSIST_GROUP; /* heads: the other eight rows are zeros */

constexpr int kHeld = 4;     /* units of a warp in registers, of a product that is not small */
constexpr int kLongPart = 8; /* units: of codes, where it pays to hold the first of them */
constexpr int kParts = MLN_TILE_SPLITS, kTogether = MLN_PERSIST_TOGETHER;
static_assert(kProductThreads == 32 * kParts, "a warp a part");

constexpr int kMostKnownLayers = 64; /* of a model of known shape */

/* A warp's part of a product's row, and where in shared memory it is. */
struct __align__(16) Stretch {
    int units, at_once, own;   /* in a slot; whether it is a tile's */
    int batches;               /* quads of each lane, if all have as many */
    int first, last, end, row; /* quads: the first, the last that there is, the end */
};

/* What a block shares first. */
struct Common {
    Barriers barriers;
    float parts[2][kTogether][kParts][MLN_TILE_ROWS + 1];
    __align__(16) float mosts[2][kParts]; /* by turns, as the next two, where the shape is known */
    /* What warps tell each other there of their activations. */
    __align__(16) float told[2][kParts], squares[2][kParts];
    int head_set;                   /* of these, that has the head's squares */
    float ups[kMostKnownLayers][4]; /* powers of two for the activations of the next token */
    float factor;                   /* of a norm */
    float down;                     /* what undoes the power of two of the head's activations */
    volatile int round;             /* that its products have begun */
    mln_persist_product products[MLN_PERSIST_PRODUCTS];
    Stretch stretches[MLN_PERSIST_PRODUCTS][kParts];
    mln_cuda_best bests[kTogether * MLN_TILE_ROWS]; /* of those who finish rows */
    mln_cuda_best own[kTogether * MLN_TILE_ROWS / 32], winners[kParts];
};

struct AttendCommon {
    Exchange exchange;
    __align__(16) __half queries[kGroup][D + 8];
    __align__(16) __half own[2][D];
    float norms[2][D]; /* of queries and keys */
};

constexpr int kCommonBytes = (sizeof(Common) + 127) / 128 * 128;
constexpr int kFixedBytes = kCommonBytes + (sizeof(AttendCommon) + 127) / 128 * 128;

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
/* Where the model's shape is known: the parts of a product's rows are there. */
typedef SomeSync<6, kProductThreads> PartSync;

/* There warps that attend finish the rows of the head. */
constexpr int kHeadFinishers = kTogether * MLN_TILE_ROWS; /* threads */

/* Barriers of a set of parts: it is there; it has been used. */
struct HeadSync {
    static constexpr int FULL = 7, EMPTY = 9, THREADS = kProductThreads + kHeadFinishers;

    __device__ static void await(int first, int set) {
        asm volatile("bar.sync %0, %1;" ::"r"(first + set), "n"(THREADS) : "memory");
    }
    __device__ static void arrive(int first, int set) {
        asm volatile("bar.arrive %0, %1;" ::"r"(first + set), "n"(THREADS) : "memory");
    }
};

/* The rest: the rings, then what `persist` says. */
struct Layers {
    const mln_persist_layer *all;

    __device__ Layers(const mln_cuda_persist &p, const unsigned char *shared)
        : all(reinterpret_cast<const mln_persist_layer *>(shared + p.at_layers)) {
    }
};

/* Whether somebody has waited in vain. */
__device__ int32_t *lost_of(const mln_cuda_persist &p) {
    return p.out_ids + MLN_PERSIST_STEPS;
}

/* A block's tiles of a product: `first`, then every gridDim.x-th. */
struct Share {
    int first, count;
};

/* The head is product 0 of the layer after the last. */
__device__ Share share_of(const Layers &layers, int kind, int layer) {
    int packed = layers.all[layer].first[kind % 4];
    return Share{packed & 0xffff, packed >> 16};
}

/* Of tiles of the head that are summed side by side. */
__device__ int head_groups(const Share &share) {
    return (share.count + kTogether - 1) / kTogether;
}

/* Writes this block's shares where the layers in shared memory have each product's first block. */
__device__ void deal(const mln_cuda_persist &p, mln_persist_layer *layers) {
    for (int i = threadIdx.x; i <= 4 * p.num_layers; i += kThreads) {
        int kind = i == 4 * p.num_layers ? MLN_PERSIST_HEAD : i % 4, own;
        int32_t *to = &layers[i / 4].first[i % 4];
        int count =
            mln_persist_share(p.products[kind].tiles, *to, (int)blockIdx.x, (int)gridDim.x, &own);
        *to = own | count << 16;
    }
}

__device__ mln_cuda_best best_of_warp(mln_cuda_best best) {
    for (int offset = 16; offset > 0; offset /= 2)
        best = better_of_lanes(best, offset, ~0u);
    return best;
}

/* A norm's factor, of the sums of squares of a row's parts. */
__device__ float factor_of(const float (&squares)[kParts], int columns, float eps) {
    float sum = squares[0];
#pragma unroll
    for (int w = 1; w < kParts; w++)
        sum += squares[w];
    return 1.0f / sqrtf(sum / (float)columns + eps);
}

} // namespace

#endif
