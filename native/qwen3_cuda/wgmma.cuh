/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hopper's products of warp groups, and what brings their operands: copies of runs of bytes into
 * shared memory that barriers count. Compute capability 9.0 only.
 */
#ifndef MLN_CUDA_WGMMA_CUH
#define MLN_CUDA_WGMMA_CUH

#include <stdint.h>

/* --- products --- */

/*
 * Where 64 columns of activations lie in shared memory, as the instruction wants to be told: groups
 * of 8 tokens of 1024 bytes each, 128 bytes a token, 16-byte vectors swizzled (mln_wgmma_offset()).
 * Every 16 columns are 32 bytes on.
 */
__device__ inline uint64_t wgmma_descriptor(uint32_t at) {
    return (uint64_t)(at >> 4 & 0x3fffu) | UINT64_C(1) << 16 | (uint64_t)(1024 >> 4) << 32 |
           UINT64_C(1) << 62;
}

/* Registers may be written by other instructions before this, not between this and the wait. */
__device__ inline void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ inline void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* All but the last LEFT groups have ended. */
template <int LEFT> __device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* Registers a thread of this warp group has from here on: what others give up, some get. */
template <int REGISTERS> __device__ inline void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS> __device__ inline void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

#define MLN_F4(c, i)  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define MLN_F16(c, i) MLN_F4(c, i), MLN_F4(c, i + 4), MLN_F4(c, i + 8), MLN_F4(c, i + 12)

/*
 * c[64 x N] = a[64 x 16] * b[16 x N] + (more ? c : 0). Warp w of the group has rows 16 w .. 16 w +
 * 15: a as mma() has it, c[4 n .. 4 n + 3] as mma() has the columns 8 n .. 8 n + 7.
 */
template <int N>
__device__ void wgmma(float (&c)[N / 2], const uint32_t a[4], uint64_t b, uint32_t more);

/* ACROSS: the 64 columns of b lie together, 128 bytes for each of the 16 (wgmma_descriptor()). */
template <int ACROSS>
__device__ inline void wgmma_64(float (&c)[32], const uint32_t a[4], uint64_t b, uint32_t more) {
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, %38;\n"
                 "}\n"
                 : MLN_F16(c, 0), MLN_F16(c, 16)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(more), "n"(ACROSS));
}

template <>
__device__ inline void wgmma<64>(float (&c)[32], const uint32_t a[4], uint64_t b, uint32_t more) {
    wgmma_64<0>(c, a, b, more);
}

template <>
__device__ inline void wgmma<128>(float (&c)[64], const uint32_t a[4], uint64_t b, uint32_t more) {
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, p, 1, 1, 0;\n"
                 "}\n"
                 : MLN_F16(c, 0), MLN_F16(c, 16), MLN_F16(c, 32), MLN_F16(c, 48)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(more));
}

template <>
__device__ inline void wgmma<192>(float (&c)[96], const uint32_t a[4], uint64_t b, uint32_t more) {
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %101, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n192k16.f32.f16.f16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}, "
                 "{%96, %97, %98, %99}, %100, p, 1, 1, 0;\n"
                 "}\n"
                 : MLN_F16(c, 0), MLN_F16(c, 16), MLN_F16(c, 32), MLN_F16(c, 48), MLN_F16(c, 64),
                   MLN_F16(c, 80)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(more));
}

/* Likewise of b whose columns lie together. */
__device__ inline void wgmma_across(float (&c)[32], const uint32_t a[4], uint64_t b,
                                    uint32_t more) {
    wgmma_64<1>(c, a, b, more);
}

#undef MLN_F16
#undef MLN_F4

/* --- clusters --- */

/* All threads of all blocks of the cluster meet; what was written before is seen after it. */
__device__ inline void cluster_meet() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;\n" ::
                     : "memory");
}

/* The same place in another block's shared memory. */
__device__ inline uint32_t place_in(uint32_t at, uint32_t rank) {
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(rank));
    return there;
}

__device__ inline float4 load_from(uint32_t place) {
    float4 v;
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(place)
                 : "memory");
    return v;
}

/* --- barriers in shared memory, 8 bytes each --- */

/* Tries before a wait that cannot end, for a defect, ends the kernel with an error: seconds. */
constexpr int kPatience = 1 << 22;

__device__ inline void barrier_init(uint32_t at, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}

/* Makes barriers known to the copies and to the other blocks of a cluster. */
__device__ inline void barrier_publish() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* Arrives, and lets the barrier wait for so many bytes as well. */
__device__ inline void barrier_expect(uint32_t at, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes)
                 : "memory");
}

__device__ inline void barrier_arrive(uint32_t at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}

__device__ inline void barrier_wait(uint32_t at, uint32_t parity) {
#pragma unroll 1
    for (int i = 0; i < kPatience; i++) {
        uint32_t done;
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n"
                     "}\n"
                     : "=r"(done)
                     : "r"(at), "r"(parity)
                     : "memory");
        if (done)
            return;
    }
    __trap();
}

/* --- copies; sizes and places are multiples of 16 --- */

__device__ inline void copy_run(uint32_t to, const unsigned char *from, uint32_t bytes,
                                uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

#endif
