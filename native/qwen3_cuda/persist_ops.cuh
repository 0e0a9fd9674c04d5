/* SPDX-License-Identifier: Apache-2.0 */
/* How the blocks of persist.cu hand each other values, and a warp's ring of weights. */
#ifndef MLN_CUDA_PERSIST_OPS_CUH
#define MLN_CUDA_PERSIST_OPS_CUH

#include <stddef.h>
#include <stdint.h>

#include "persist.h"
#include "tile_ops.cuh"

namespace {

/* --- words: floats, empty until they are written --- */

constexpr uint32_t kEmpty = MLN_PERSIST_EMPTY * 0x01010101u;

/* createpolicy.fractional.L2::evict_last with 1.0: words stay in the cache, whatever weights pass.
 */
constexpr uint64_t kKept = 0x14f0000000000000;

/* A NaN is written as another one. */
__device__ uint32_t as_word(float value) {
    return __float_as_uint(value) == kEmpty ? 0x7fffffffu : __float_as_uint(value);
}

__device__ void put_word(float *to, uint32_t word) {
    asm volatile("st.relaxed.gpu.global.L2::cache_hint.b32 [%0], %1, %2;" ::"l"(to), "r"(word),
                 "l"(kKept)
                 : "memory");
}

__device__ void put_two(float *to, uint2 words) {
    asm volatile("st.relaxed.gpu.global.L2::cache_hint.v2.b32 [%0], {%1, %2}, %3;" ::"l"(to),
                 "r"(words.x), "r"(words.y), "l"(kKept)
                 : "memory");
}

__device__ void put_four(float *to, uint4 words) {
    asm volatile(
        "st.relaxed.gpu.global.L2::cache_hint.v4.b32 [%0], {%1, %2, %3, %4}, %5;" ::"l"(to),
        "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w), "l"(kKept)
        : "memory");
}

__device__ uint32_t look(const float *at) {
    uint32_t word;
    asm volatile("ld.relaxed.gpu.global.L2::cache_hint.b32 %0, [%1], %2;"
                 : "=r"(word)
                 : "l"(at), "l"(kKept));
    return word;
}

__device__ uint2 look_two(const float *at) {
    uint2 words;
    asm volatile("ld.relaxed.gpu.global.L2::cache_hint.v2.b32 {%0, %1}, [%2], %3;"
                 : "=r"(words.x), "=r"(words.y)
                 : "l"(at), "l"(kKept));
    return words;
}

__device__ uint4 look_four(const float *at) {
    uint4 words;
    asm volatile("ld.relaxed.gpu.global.L2::cache_hint.v4.b32 {%0, %1, %2, %3}, [%4], %5;"
                 : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
                 : "l"(at), "l"(kKept));
    return words;
}

__device__ bool is_there(uint32_t word) {
    return word != kEmpty;
}

__device__ bool is_there(uint2 words) {
    return is_there(words.x) & is_there(words.y); /* no jumps */
}

__device__ bool is_there(uint4 words) {
    return is_there(words.x) & is_there(words.y) & is_there(words.z) & is_there(words.w);
}

/* Words of a round, and of another one those that who writes them empties. */
struct Turn {
    float *now, *emptied;

    __device__ Turn(const mln_persist_words &words, int place, int emptied_place)
        : now(words.all + place * words.each), emptied(words.all + emptied_place * words.each) {
    }
    __device__ void post(int64_t i, float value) const {
        put_word(now + i, as_word(value));
        put_word(emptied + i, kEmpty);
    }
    __device__ void post_two(int64_t i, float a, float b) const {
        put_two(now + i, make_uint2(as_word(a), as_word(b)));
        put_two(emptied + i, make_uint2(kEmpty, kEmpty));
    }
    /* Neighbours from a multiple of 4 on. */
    __device__ void post_four(int64_t i, float a, float b, float c, float d) const {
        put_four(now + i, make_uint4(as_word(a), as_word(b), as_word(c), as_word(d)));
        put_four(emptied + i, make_uint4(kEmpty, kEmpty, kEmpty, kEmpty));
    }
};

/* The same of few rounds, and `back` rounds ago. */
__device__ Turn turn_of_few(const mln_persist_words &words, int round, int back) {
    constexpr int FEW = MLN_PERSIST_FEW_ROUNDS;
    return Turn(words, round % FEW, (round + FEW - back) % FEW);
}

/* Where words of a round lie, and those of the round before. */
struct Place {
    int now, before;

    __device__ void next(int rounds) {
        before = now;
        now = now + 1 == rounds ? 0 : now + 1;
    }
    __device__ Turn of(const mln_persist_words &words) const {
        return Turn(words, now, before);
    }
};

/* What this thread, and those it has met, emptied and found before here comes before what it posts
 * and looks at from here on. */
__device__ void order_words() {
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

/* Known from here on: not worked out again, or later, when it is urgent. */
__device__ void settle(int &x) {
    asm volatile("" : "+r"(x));
}

template <typename T> __device__ void settle(T *&x) {
    asm volatile("" : "+l"(x));
}

/* Goes on when x has been loaded. Arriving at a barrier does not wait for loads whose values nobody
 * needs yet, and then copies have overtaken them. */
__device__ void await_word(uint32_t x) {
    asm volatile("{\n .reg .pred p;\n setp.eq.u32 p, %0, 0x7fbadbad;\n @p membar.cta;\n}" ::"r"(x)
                 : "memory");
}

/* --- waiting, for two seconds at most --- */

constexpr uint32_t kPatience = 2000000000; /* ns */
constexpr uint32_t kLooks = 256;           /* in vain, between two looks at the clock */
constexpr uint32_t kManyLooks = 1u << 27; /* at what does not wait for other blocks: some seconds */

__device__ uint32_t now() {
    uint32_t ns;
    asm volatile("mov.u32 %0, %globaltimer_lo;" : "=r"(ns));
    return ns;
}

/* Until there() is true. Once somebody has waited in vain, which is then to be seen in `lost`, in
 * device memory, nobody waits long for words any more. */
template <typename There> __device__ void await(int32_t *lost, There there) {
    uint32_t since = 0;
#pragma unroll 1
    for (uint32_t looks = 1; !there(); looks++)
        if (looks % kLooks == 0) {
            volatile int32_t *over = lost;
            if (looks == kLooks)
                since = now();
            if (now() - since > kPatience)
                *over = 1;
            if (*over != 0)
                return;
        }
}

/* --- registers: of all warps of a group of four; ignored where any function is called. Taking is
 * for more than there are from the beginning, leaving for less: else it is no instruction. --- */

template <int COUNT> __device__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> __device__ void leave_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* --- barriers in shared memory that copies arrive at --- */

__device__ uint32_t shared_address(const void *at) {
    return (uint32_t)__cvta_generic_to_shared(at);
}

__device__ void make_barrier(uint32_t barrier, uint32_t count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

template <int OFFSET> __device__ void arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0 + %1];" ::"r"(barrier), "n"(OFFSET)
                 : "memory");
}

__device__ void expect_bytes(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

/* Whether the phase of this parity has ended; may wait a little. */
__device__ bool has_passed(uint32_t barrier, uint32_t parity) {
    uint32_t passed;
    asm volatile("{\n .reg .pred p;\n"
                 " mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 " selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(passed)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return passed != 0;
}

/* The same without waiting. */
template <int OFFSET> __device__ bool is_past(uint32_t barrier, uint32_t parity) {
    uint32_t passed;
    asm volatile("{\n .reg .pred p;\n"
                 " mbarrier.test_wait.parity.shared::cta.b64 p, [%1 + %3], %2;\n"
                 " selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(passed)
                 : "r"(barrier), "r"(parity), "n"(OFFSET)
                 : "memory");
    return passed != 0;
}

__device__ uint64_t read_once_policy() {
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

__device__ void copy_bulk(uint32_t to, const unsigned char *from, uint32_t bytes, uint32_t barrier,
                          uint64_t policy) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1], %2, [%3], %4;" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
                 : "memory");
}

template <int ID, int THREADS> struct SomeSync {
    __device__ void operator()() const {
        asm volatile("bar.sync %0, %1;" ::"n"(ID), "n"(THREADS) : "memory");
    }
    /* Without waiting for the others. */
    __device__ void arrive() const {
        asm volatile("bar.arrive %0, %1;" ::"n"(ID), "n"(THREADS) : "memory");
    }
};

/* --- rings --- */

template <int CODE> struct Slot {
    static constexpr int BYTES = mln_persist_slot_units(CODE) * Unit<CODE>::BYTES;
};

/* Of each warp and slot: that it has been filled, and that it has been used. */
struct Barriers {
    uint64_t full[MLN_TILE_SPLITS][MLN_PERSIST_SLOTS], empty[MLN_TILE_SPLITS][MLN_PERSIST_SLOTS];
};

/* Where a warp, or the one that fills its slots, is in its ring. */
struct Ring {
    static constexpr int EMPTY = offsetof(Barriers, empty);
    uint32_t full; /* of slot 0 */
    int slots, slot;
    uint32_t parity;

    __device__ Ring(const Barriers &barriers, int warp, int count)
        : full(shared_address(&barriers.full[warp][0])), slots(count), slot(0), parity(0) {
    }
    __device__ void next() {
        if (++slot == slots) {
            slot = 0;
            parity ^= 1;
        }
    }
    __device__ void give_back() const {
        arrive<EMPTY>(full + 8 * slot);
    }
    /* Copies end whatever becomes of the rest: they are waited for in any case. */
    __device__ void await_full() const {
        for (uint32_t looks = 0; looks < kManyLooks && !has_passed(full + 8 * slot, parity);
             looks++)
            continue;
    }
    __device__ bool is_empty() const {
        return is_past<EMPTY>(full + 8 * slot, parity ^ 1);
    }
};

} // namespace

#endif
