/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels share. */
#ifndef MLN_CUDA_DEVICE_CUH
#define MLN_CUDA_DEVICE_CUH

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

#endif
