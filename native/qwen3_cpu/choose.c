/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the kernel tables in this build the processor can run. */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "kernels.h"

extern const mln_cpu_kernels mln_cpu_kernels_portable;
#if defined(__x86_64__)
extern const mln_cpu_kernels mln_cpu_kernels_avx2, mln_cpu_kernels_avx512,
    mln_cpu_kernels_avx512_vnni, mln_cpu_kernels_avx512_bf16, mln_cpu_kernels_amx;
#elif defined(__aarch64__)
extern const mln_cpu_kernels mln_cpu_kernels_neon, mln_cpu_kernels_neon_dot,
    mln_cpu_kernels_neon_i8mm;
#endif

#if defined(__x86_64__)
/* clang 14 has no name for it. The system saves its registers if it saves AVX's. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

/* Tiles, and their products of bfloat16 and of bytes, with registers that the system saves. */
static bool has_amx(void) {
    enum { BF16 = 1 << 22, TILE = 1 << 24, INT8 = 1 << 25, STATES = 3 << 17 };
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0 ||
        !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return false;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (d & BF16) != 0 && (d & TILE) != 0 && (d & INT8) != 0 && (low & STATES) == STATES;
}

/*
 * Linux gives a process tiles when it asks for them (since 5.16), unless some thread's stack for
 * signals is too small to save them on.
 */
static bool may_run(const mln_cpu_kernels *kernels) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* asm/prctl.h of newer systems */
    return kernels != &mln_cpu_kernels_amx ||
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* A Zen 4 or later, which reads a stream as fast as it goes by itself. */
static bool prefetches_well(const mln_cpu_kernels *kernels) {
    unsigned most, b, c, d;
    bool wide = kernels == &mln_cpu_kernels_avx512_bf16 ||
                kernels == &mln_cpu_kernels_avx512_vnni || kernels == &mln_cpu_kernels_avx512;
    return wide && __get_cpuid(0, &most, &b, &c, &d) && b == signature_AMD_ebx &&
           c == signature_AMD_ecx && d == signature_AMD_edx;
}
#else
static bool may_run(const mln_cpu_kernels *kernels) {
    (void)kernels;
    return true;
}

static bool prefetches_well(const mln_cpu_kernels *kernels) {
    (void)kernels;
    return false;
}
#endif

typedef struct candidate {
    const mln_cpu_kernels *kernels;
    bool runs;
} candidate;

/* Best first. */
static size_t candidates(candidate out[8]) {
    size_t n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init(); /* CPUID, and whether the system saves the registers */
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    bool bf16 = vnni && __builtin_cpu_supports("avx512bf16");
    out[n++] = (candidate){&mln_cpu_kernels_amx, bf16 && has_amx()};
    out[n++] = (candidate){&mln_cpu_kernels_avx512_bf16, bf16};
    out[n++] = (candidate){&mln_cpu_kernels_avx512_vnni, vnni};
    out[n++] = (candidate){&mln_cpu_kernels_avx512, avx512};
    out[n++] = (candidate){&mln_cpu_kernels_avx2, avx2};
#elif defined(__aarch64__)
    bool dot = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
    bool i8mm = dot && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
    out[n++] = (candidate){&mln_cpu_kernels_neon_i8mm, i8mm};
    out[n++] = (candidate){&mln_cpu_kernels_neon_dot, dot};
    out[n++] = (candidate){&mln_cpu_kernels_neon, true}; /* every processor of 64 bits has it */
#endif
    out[n++] = (candidate){&mln_cpu_kernels_portable, true};
    return n;
}

const mln_cpu_kernels *mln_cpu_choose(const char *wanted) {
    candidate all[8];
    size_t n = candidates(all);
    for (size_t i = 0; i < n; i++)
        if (all[i].runs && (!wanted || !strcmp(wanted, all[i].kernels->name)) &&
            may_run(all[i].kernels))
            return all[i].kernels;
    return NULL;
}

/*
 * What several tokens take hides what one would wait for, if lines are asked for early enough. A
 * Zen 4 was measured with each way and number of tokens, the others with two ways for few
 * (PERFORMANCE.md); a Xeon that is faster with CLOSE for one token was so for several of BF16, too.
 */
void mln_cpu_set_fetch(mln_cpu_matrix *matrix, const mln_cpu_kernels *kernels, bool close) {
    if (prefetches_well(kernels)) {
        bool packed = matrix->kind == MLN_CPU_BF16P;
        matrix->fetch[0] = packed  ? MLN_CPU_FETCH_NEAR
                           : close ? MLN_CPU_FETCH_CLOSE
                                   : MLN_CPU_FETCH_NONE;
        matrix->fetch[1] = MLN_CPU_FETCH_NEAR;
        matrix->fetch[2] = MLN_CPU_FETCH_FAR;
        return;
    }
    matrix->fetch[0] = matrix->fetch[1] =
        close ? MLN_CPU_FETCH_CLOSE : kernels->fetch[matrix->kind];
    bool several = close && matrix->kind == MLN_CPU_BF16;
    matrix->fetch[2] = several ? MLN_CPU_FETCH_CLOSE : MLN_CPU_FETCH_NEAR;
}
