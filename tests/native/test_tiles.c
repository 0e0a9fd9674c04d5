/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where weights and activations lie for tensor cores: a warp's products with what its lanes find
 * there, as the instruction is documented, are the products of the rows with the tokens.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka wants the four above */
#include <cmocka.h>

#include "qwen3_cuda/deal.h"
#include "qwen3_cuda/tiles.h"

enum { LANES = 32, TOKENS = MLN_TOKEN_TILE, COLUMNS = MLN_UNIT_COLUMNS, ROWS = MLN_TILE_ROWS };

static int weights[ROWS][COLUMNS], tokens[TOKENS][COLUMNS];
static unsigned char unit[4096], token_unit[MLN_TOKEN_UNIT_BYTES];

static void put_half(unsigned char *at, int value) {
    uint16_t half = (uint16_t)value;
    memcpy(at, &half, sizeof half);
}

static int half_at(const unsigned char *at) {
    uint16_t half;
    memcpy(&half, at, sizeof half);
    return half;
}

static uint32_t word_at(const unsigned char *at) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Whole numbers take the place of binary16: the maps are what is tested. */
static void fill(int code, unsigned seed) {
    int most = code == MLN_TILE_DENSE ? 500 : code == MLN_TILE_Q8 ? 256 : 16;
    memset(unit, 0, sizeof unit);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) {
            seed = seed * 1664525u + 1013904223u;
            int w = weights[r][c] = (int)((seed >> 8) % (unsigned)most);
            unsigned char *at = unit + mln_tile_offset(code, r, c);
            if (code == MLN_TILE_DENSE)
                put_half(at, w);
            else if (code == MLN_TILE_Q8)
                *at = (unsigned char)w;
            else
                *at = (unsigned char)(*at | w << (c % 16 < 8 ? 0 : 4));
        }
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < COLUMNS; c++) {
            seed = seed * 1664525u + 1013904223u;
            tokens[t][c] = (int)((seed >> 8) % 500u);
            put_half(token_unit + mln_token_offset(t, c), tokens[t][c]);
        }
}

/* Registers a[4] of a lane, two halves each, as the kernels take them out of a unit. */
static void weight_registers(int code, int lane, int step, int a[4][2]) {
    for (int i = 0; i < 4; i++) {
        uint32_t w;
        if (code == MLN_TILE_DENSE) {
            w = word_at(unit + 512 * step + 16 * lane + 4 * i);
        } else if (code == MLN_TILE_Q8) {
            w = word_at(unit + 512 * (step / 2) + 16 * lane + 4 * (step % 2 * 2 + i / 2));
            w = w >> i % 2 * 8 & 0x00ff00ffu;
        } else {
            w = word_at(unit + 16 * lane + 4 * step);
            w = w >> i % 2 * 8 >> i / 2 * 4 & 0x000f000fu;
        }
        a[i][0] = (int)(w & 0xffffu);
        a[i][1] = (int)(w >> 16);
    }
}

/* products += one mma.m16n8k16: lane 4 g + q has rows g and g + 8, columns 2 q, 2 q + 1, + 8, + 9;
 * of the tokens token g and the same columns. */
static void multiply(int code, int step, int64_t products[ROWS][TOKENS]) {
    int a[ROWS][16], b[16][TOKENS];
    for (int lane = 0; lane < LANES; lane++) {
        int g = lane / 4, q = lane % 4, registers[4][2];
        weight_registers(code, lane, step, registers);
        for (int i = 0; i < 4; i++)
            for (int odd = 0; odd < 2; odd++)
                a[g + i % 2 * 8][2 * q + odd + i / 2 * 8] = registers[i][odd];
        const unsigned char *vector = token_unit + step / 2 * 512 + 16 * lane + step % 2 * 8;
        for (int i = 0; i < 2; i++)
            for (int odd = 0; odd < 2; odd++)
                b[2 * q + odd + 8 * i][g] = half_at(vector + 4 * i + 2 * odd);
    }
    for (int r = 0; r < ROWS; r++)
        for (int t = 0; t < TOKENS; t++)
            for (int k = 0; k < 16; k++)
                products[r][t] += (int64_t)a[r][k] * b[k][t];
}

static void products_are_those_of_rows(void **state) {
    (void)state;
    const int codes[] = {MLN_TILE_DENSE, MLN_TILE_Q8, MLN_TILE_Q4};
    for (int i = 0; i < 3; i++) {
        int64_t products[ROWS][TOKENS] = {{0}};
        fill(codes[i], (unsigned)i + 1);
        for (int step = 0; step < 4; step++)
            multiply(codes[i], step, products);
        for (int r = 0; r < ROWS; r++)
            for (int t = 0; t < TOKENS; t++) {
                int64_t expected = 0;
                for (int c = 0; c < COLUMNS; c++)
                    expected += (int64_t)weights[r][c] * tokens[t][c];
                assert_int_equal(products[r][t], expected);
            }
    }
}

/* One token alone lies as the first of eight does, without the others. */
static void a_single_token_is_the_first_of_eight(void **state) {
    (void)state;
    for (int c = 0; c < COLUMNS; c++) {
        int of_eight = mln_token_offset(0, c), alone = mln_single_offset(c);
        assert_int_equal(alone, of_eight / 512 * 64 + of_eight % 512);
        assert_true(of_eight % 512 < 64);
    }
}

/* Scales lie after the codes, each of its own. */
static void scales_have_room(void **state) {
    (void)state;
    const int codes[] = {MLN_TILE_Q8, MLN_TILE_Q8_PAIR, MLN_TILE_Q4, MLN_TILE_Q4_PAIR};
    for (int i = 0; i < 4; i++) {
        unsigned char taken[4096] = {0};
        int bytes = mln_unit_bytes(codes[i]), sets = mln_tile_sets(codes[i]);
        for (int set = 0; set < sets; set++)
            for (int slot = 0; slot < ROWS; slot++) {
                int at = mln_tile_scale_offset(codes[i], slot, set);
                assert_true(at >= mln_unit_codes(codes[i]) && at + 4 <= bytes && at % 4 == 0);
                assert_int_equal(taken[at]++, 0);
            }
    }
}

/* The parts of a row follow each other and are all of it. */
static void parts_make_the_row(void **state) {
    (void)state;
    for (int units = 1; units <= 700; units++) {
        assert_int_equal(mln_split_begin(units, 0), 0);
        assert_int_equal(mln_split_begin(units, MLN_TILE_SPLITS), units);
        for (int i = 0; i < MLN_TILE_SPLITS; i++)
            assert_true(mln_split_begin(units, i) <= mln_split_begin(units, i + 1));
    }
}

/* Each tile is some block's, and where products begin keeps the blocks even. */
static void tiles_are_dealt_evenly(void **state) {
    (void)state;
    enum { BLOCKS = 132 };
    static const int32_t tiles[] = {256, 64, 384, 64, 9496}, units[] = {16, 32, 16, 48, 16};
    int64_t load[BLOCKS] = {0}, total = 0, most = 0;
    for (int i = 0; i < 28 * 4 + 1; i++) {
        int kind = i == 28 * 4 ? 4 : i % 4;
        int first = mln_persist_deal(load, BLOCKS, tiles[kind], units[kind]), dealt = 0;
        unsigned char taken[9496] = {0};
        for (int block = 0; block < BLOCKS; block++) {
            int own, count = mln_persist_share(tiles[kind], first, block, BLOCKS, &own);
            for (int t = 0; t < count; t++)
                assert_int_equal(taken[own + t * BLOCKS]++, 0);
            dealt += count;
        }
        assert_int_equal(dealt, tiles[kind]);
        total += (int64_t)tiles[kind] * units[kind];
    }
    for (int i = 0; i < BLOCKS; i++)
        most = load[i] > most ? load[i] : most;
    assert_true(most * BLOCKS * 100 < total * 102);
}

/*
 * As warp groups want them: 16 bytes of a token side by side, no two tokens' vectors of the same
 * columns in the same banks, and the units of 64 tokens one after the other.
 */
static void groups_are_swizzled(void **state) {
    (void)state;
    unsigned char taken[MLN_TOKEN_UNIT_BYTES] = {0};
    for (int c = 0; c < COLUMNS; c++) {
        int banks = 0;
        for (int t = 0; t < TOKENS; t++) {
            int at = mln_wgmma_offset(t, c);
            assert_true(at >= 0 && at + 2 <= MLN_TOKEN_UNIT_BYTES && at / 128 == t);
            assert_int_equal(at % 16, c % 8 * 2);
            assert_int_equal(at / 16 % 8, (c / 8) ^ t);
            assert_int_equal(taken[at]++, 0);
            banks |= 1 << at / 16 % 8;
        }
        assert_int_equal(banks, 0xff);
    }
    assert_int_equal(mln_wgmma_units(63, 5), 0);
    assert_int_equal(mln_wgmma_units(64, 5), 5 * 8 * MLN_TOKEN_UNIT_BYTES);
    assert_int_equal(mln_wgmma_units(200, 3), 3 * 3 * 8 * MLN_TOKEN_UNIT_BYTES);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(products_are_those_of_rows),
                                       cmocka_unit_test(a_single_token_is_the_first_of_eight),
                                       cmocka_unit_test(scales_have_room),
                                       cmocka_unit_test(parts_make_the_row),
                                       cmocka_unit_test(tiles_are_dealt_evenly),
                                       cmocka_unit_test(groups_are_swizzled)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
