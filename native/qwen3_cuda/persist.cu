/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Greedy tokens of one sequence by one kernel, as persist.h says: a block for each multiprocessor,
 * all of them there from the first token to the last. In a block eight warps multiply, each with
 * one of the eight parts of every row; four attend; one or two copy weights. Sums are those of
 * tiles.cu and attend_tiles.cu, to the last bit.
 */
#include <cuda_fp16.h>
#include <stdint.h>

#include "persist.h"
#include "persist_attend.cuh"
#include "persist_block.cuh"
#include "persist_chain.cuh"
#include "persist_copy.cuh"
#include "persist_products.cuh"
#include "persist_shape.cuh"

namespace {

/* What all threads do first. */
template <int CODE>
__device__ void set_up(const mln_cuda_persist &p, unsigned char *shared, Common &common,
                       AttendCommon &attending) {
    int bytes = (p.num_layers + 1) * (int)sizeof(mln_persist_layer);
    for (int i = threadIdx.x; i < bytes / 4; i += kThreads)
        reinterpret_cast<uint32_t *>(shared + p.at_layers)[i] =
            reinterpret_cast<const uint32_t *>(p.layers)[i];
    for (int i = threadIdx.x; i < kGroup * (D + 8); i += kThreads)
        (&attending.queries[0][0])[i] = __half(0.0f);
    for (int i = threadIdx.x; i < kParts * p.slots; i += kThreads) {
        make_barrier(shared_address(&common.barriers.full[i / p.slots][i % p.slots]), 1);
        make_barrier(shared_address(&common.barriers.empty[i / p.slots][i % p.slots]), 1);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    if (threadIdx.x == 0)
        common.round = -1;
    __syncthreads();
    deal(p, reinterpret_cast<mln_persist_layer *>(shared + p.at_layers));
    __syncthreads();
}

/* The eight warps that multiply. */
template <int CODE, class SHAPE> struct Multiplying { typedef Products<CODE> type; };

template <int CODE> struct Multiplying<CODE, SmallShape> { typedef Chain type; };

template <int CODE, class SHAPE>
__global__ void __launch_bounds__(kThreads, 1)
    persist_kernel(const __grid_constant__ mln_cuda_persist p) {
    extern __shared__ __align__(128) unsigned char memory[];
    int base = (int)shared_address(memory);
    settle(base);
    unsigned char *all = static_cast<unsigned char *>(__cvta_shared_to_generic((uint32_t)base));
    Common &common = *reinterpret_cast<Common *>(all);
    AttendCommon &attending = *reinterpret_cast<AttendCommon *>(all + kCommonBytes);
    unsigned char *shared = all + kFixedBytes;
    set_up<CODE>(p, shared, common, attending);
    if (threadIdx.x < kProductThreads) {
        take_registers<kProductRegisters>();
        typename Multiplying<CODE, SHAPE>::type(p, shared, common).decode();
    } else if (threadIdx.x < kProductThreads + kAttendThreads) {
        take_registers<kAttendRegisters>();
        Attending<SHAPE>(p, shared, attending, common).decode();
    } else {
        leave_registers<kCopyRegisters>();
        supply<CODE>(p, shared, common.barriers);
    }
}

const void *kernel_of(int code) {
    switch (code) {
    case MLN_TILE_DENSE:
        return (const void *)persist_kernel<MLN_TILE_DENSE, AnyShape>;
    case MLN_TILE_Q8:
        return (const void *)persist_kernel<MLN_TILE_Q8, AnyShape>;
    case MLN_TILE_Q8_PAIR:
        return (const void *)persist_kernel<MLN_TILE_Q8_PAIR, AnyShape>;
    case MLN_TILE_Q4:
        return (const void *)persist_kernel<MLN_TILE_Q4, AnyShape>;
    default:
        return (const void *)persist_kernel<MLN_TILE_Q4_PAIR, AnyShape>;
    }
}

const void *small_kernel() {
    return (const void *)persist_kernel<MLN_TILE_Q4, SmallShape>;
}

} // namespace

extern "C" cudaError_t mln_cuda_persist_room(int32_t tile_code, int32_t *blocks, int32_t *bytes) {
    const void *kernel = kernel_of(tile_code);
    cudaFuncAttributes attributes;
    int values[5] = {0, 0, 0, 0, 0};
    const cudaDeviceAttr asked[5] = {cudaDevAttrComputeCapabilityMajor,
                                     cudaDevAttrComputeCapabilityMinor,
                                     cudaDevAttrCooperativeLaunch, cudaDevAttrMultiProcessorCount,
                                     cudaDevAttrMaxSharedMemoryPerBlockOptin};
    *blocks = *bytes = 0;
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < 5 && error == cudaSuccess; i++)
        error = cudaDeviceGetAttribute(&values[i], asked[i], 0);
    if (error != cudaSuccess || values[0] != 9 || values[1] != 0 || !values[2])
        return error;
    error = cudaFuncGetAttributes(&attributes, kernel);
    if (error != cudaSuccess)
        return error;
    int most = values[4] - (int)attributes.sharedSizeBytes;
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    if (error == cudaSuccess && tile_code == MLN_TILE_Q4)
        error =
            cudaFuncSetAttribute(small_kernel(), cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    most -= kFixedBytes;
    if (error != cudaSuccess)
        return error;
    *blocks = values[3] < MLN_PERSIST_BLOCKS ? values[3] : MLN_PERSIST_BLOCKS;
    *bytes = most;
    return cudaSuccess;
}

extern "C" cudaError_t mln_cuda_persist_launch(const mln_cuda_persist *p, cudaStream_t stream) {
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)p->blocks);
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = (size_t)(kFixedBytes + p->shared_bytes);
    config.stream = stream;
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    mln_cuda_persist copy = *p;
    void *arguments[] = {&copy};
    const void *kernel = is_small(*p) ? small_kernel() : kernel_of(p->tile_code);
    return cudaLaunchKernelExC(&config, kernel, arguments);
}
