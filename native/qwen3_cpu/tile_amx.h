/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles of AMX: eight registers of sixteen rows of 64 bytes, sums in 0 to 3, activations in 4 and
 * 5, weights in 6 and 7. A product takes sixteen cycles and is sixteen rows of activations times
 * sixteen rows of weights, 32 bfloat16 or 64 codes long. GCC's intrinsics do not say what memory
 * they read, so that stores before them get lost; these do.
 *
 * Products of bfloat16, as Intel's manual says and as test_kernels sees: of 32 columns the even
 * ones and the odd ones are each added up in ascending order, fused, from zero; both are added,
 * and that to the sum before. Subnormal numbers are zeros. Rows do not know of each other.
 */
#ifndef MLN_CPU_TILE_AMX_H
#define MLN_CPU_TILE_AMX_H

#include <immintrin.h>
#include <stdint.h>

#define T_DOT
enum {
    T_ROWS = 16,
    T_BYTES = 64,
    T_LEAST = 6 /* tokens from which on codes are multiplied faster by tiles than by vectors */
};

typedef struct t_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} t_config;

/*
 * Shapes all tiles for products 64 bytes long, or 32 bytes. Making a shape costs as much as a dozen
 * products, asking for it a tenth of that; what else runs in this thread may have made another.
 */
INLINE void t_shape(int32_t bytes) {
    static const t_config whole = {
        1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    static const t_config half = {
        1, 0, {0}, {64, 64, 64, 64, 32, 32, 64, 64}, {16, 16, 16, 16, 16, 16, 8, 8}};
    const t_config *wanted = bytes == T_BYTES ? &whole : &half;
    t_config now;
    __asm__ volatile("sttilecfg %0" : "=m"(now));
    __m512i differ = _mm512_xor_si512(_mm512_loadu_si512(&now), _mm512_loadu_si512(wanted));
    if (_mm512_test_epi64_mask(differ, differ))
        __asm__ volatile("ldtilecfg %0" : : "m"(*wanted));
}

#define T_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile : :)
#define T_LOAD(tile, from, stride)                                                                 \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile                                            \
                     :                                                                             \
                     : "r"(from), "r"((int64_t)(stride))                                           \
                     : "memory")
#define T_STORE(to, stride, tile)                                                                  \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)"                                        \
                     :                                                                             \
                     : "r"(to), "r"((int64_t)(stride))                                             \
                     : "memory")
/* sums += x times w: pairs of bfloat16, or fours of signed bytes by unsigned ones */
#define T_PRODUCT(sums, x, w, codes)                                                               \
    do {                                                                                           \
        if (codes)                                                                                 \
            __asm__ volatile("tdpbsud %%tmm" #w ", %%tmm" #x ", %%tmm" #sums : :);                 \
        else                                                                                       \
            __asm__ volatile("tdpbf16ps %%tmm" #w ", %%tmm" #x ", %%tmm" #sums : :);               \
    } while (0)

#endif
