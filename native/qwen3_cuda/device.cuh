/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels share. */
#ifndef MLN_CUDA_DEVICE_CUH
#define MLN_CUDA_DEVICE_CUH

#include <cuda_runtime.h>

/* The sum of a warp's 32 values in every lane, added in the same tree in each. */
__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        x += __shfl_xor_sync(~0u, x, offset);
    return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, offset));
    return x;
}

/* All threads of a block wait for each other. */
struct BlockSync {
    __device__ void operator()() const {
        __syncthreads();
    }
};

/* Waits for the results of the kernel before this one, when it was launched to begin early. */
__device__ inline void dependency_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The kernel after this one may begin. */
__device__ inline void dependency_launch() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

/* Launches kernel(p), early: before the kernel in front of it has ended, which it then waits for.
 */
template <typename Parameters>
cudaError_t launch_kernel(void (*kernel)(Parameters), dim3 grid, unsigned threads, size_t shared,
                          bool early, const Parameters &p, cudaStream_t stream) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = early ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, p);
}

#endif
