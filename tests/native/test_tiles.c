/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where weights and activations lie for tensor cores: a warp's products with what its lanes find
 * there, as the instruction is documented, are the products of the rows with the tokens.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
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

/* --- packed --- */

/* A number of binary16 times 2^24: whole. */
static int64_t worth(unsigned half) {
    int64_t exponent = half >> 10 & 31, mantissa = half & 1023;
    int64_t size = exponent > 0 ? (mantissa | 1024) << (exponent - 1) : mantissa;
    return half & 0x8000 ? -size : size;
}

/* Whatever is no escape comes back, and what bfloat16 has within reach of a lift is none. */
static void fields_are_numbers(void **state) {
    (void)state;
    for (int lift = 0; lift < MLN_PACKED_LIFTS; lift++)
        for (unsigned half = 0; half < 65536; half++) {
            int field = mln_pack_half(half, lift), exponent = (int)(half >> 10 & 31);
            bool within = exponent > lift && exponent <= lift + MLN_PACKED_EXPONENTS;
            if (field < 0) {
                assert_false(half % 0x8000 == 0 || (within && exponent < 31 && half % 8 == 0));
                continue;
            }
            assert_int_equal((unsigned)field & ~(MLN_PACKED_FIELDS & 0xffffu), 0);
            assert_true(worth((unsigned)field) * ((int64_t)1 << lift) == worth(half));
            assert_int_equal((unsigned)field & 0x8000u, half & 0x8000u);
        }
}

/* As the kernels take a lane's registers out of a packed unit. */
static void packed_registers(int lane, int step, uint32_t a[4]) {
    for (int low = 0; low < 2; low++) {
        uint32_t w[3];
        for (int i = 0; i < 3; i++) {
            int word = step / 2 * 6 + low * 3 + i;
            w[i] = word_at(unit + 512 * (word / 4) + 16 * lane + 4 * (word % 4));
        }
        a[low] = w[step % 2 * 2] & MLN_PACKED_FIELDS;
        a[low + 2] = step % 2 == 0 ? w[1] & MLN_PACKED_FIELDS : mln_unpack_last(w[0], w[1], w[2]);
    }
}

/* Fields of all rows and columns, packed as they are loaded; lanes get those of their fragments. */
static void packed_units_are_dense_ones(void **state) {
    (void)state;
    static uint16_t fields[ROWS][COLUMNS];
    unsigned char taken[4096] = {0};
    uint32_t seed = 9;
    memset(unit, 0, sizeof unit);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) {
            seed = seed * 1664525u + 1013904223u;
            fields[r][c] = (uint16_t)(seed >> 9 & MLN_PACKED_FIELDS);
        }
    for (int r = 0; r < ROWS; r++)
        for (int part = 0; part < 8; part++) {
            uint32_t registers[4], words[3];
            for (int i = 0; i < 4; i++) {
                int c = part / 4 * 32 + i * 8 + part % 4 * 2;
                registers[i] = fields[r][c] | (uint32_t)fields[r][c + 1] << 16;
            }
            mln_pack_words(words, registers);
            for (int i = 0; i < 3; i++) {
                int at = mln_packed_offset(r, part / 4, part % 4, i);
                assert_true(at % 4 == 0 && at + 4 <= mln_unit_bytes(MLN_TILE_PACKED));
                assert_int_equal(taken[at]++, 0);
                memcpy(unit + at, &words[i], sizeof words[i]);
            }
        }
    for (int lane = 0; lane < LANES; lane++)
        for (int step = 0; step < 4; step++) {
            uint32_t a[4];
            packed_registers(lane, step, a);
            for (int i = 0; i < 4; i++)
                for (int odd = 0; odd < 2; odd++) {
                    int r = lane / 4 + i % 2 * 8;
                    int c = 16 * step + lane % 4 * 2 + odd + i / 2 * 8;
                    assert_int_equal(a[i] >> 16 * odd & 0xffffu, fields[r][c]);
                }
        }
}

/* An escape says where in a fragment its number belongs; none is like what marks a list's end. */
static void escapes_find_their_place(void **state) {
    (void)state;
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) {
            uint32_t escape = mln_escape(62, r, c, 0xabcd);
            int lane = escape >> 21 & 31, step = escape >> 19 & 3, i = escape >> 17 & 3;
            assert_int_equal(escape & 0xffffu, 0xabcd);
            assert_int_equal(escape >> 26, 62);
            assert_int_equal(lane / 4 + i % 2 * 8, r);
            assert_int_equal(16 * step + lane % 4 * 2 + (int)(escape >> 16 & 1) + i / 2 * 8, c);
        }
    for (int units = 1; units <= MLN_PACKED_MOST_UNITS; units++) {
        assert_true(mln_escape_room(units) <= MLN_PACKED_MOST_ESCAPES);
        for (int i = 0; i < units; i++) {
            int split = mln_split_of(units, i), within = i - mln_split_begin(units, split);
            assert_true(within >= 0 && i < mln_split_begin(units, split + 1));
            assert_true((uint32_t)within < MLN_NO_ESCAPE >> 26);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(products_are_those_of_rows),
                                       cmocka_unit_test(a_single_token_is_the_first_of_eight),
                                       cmocka_unit_test(scales_have_room),
                                       cmocka_unit_test(parts_make_the_row),
                                       cmocka_unit_test(tiles_are_dealt_evenly),
                                       cmocka_unit_test(groups_are_swizzled),
                                       cmocka_unit_test(fields_are_numbers),
                                       cmocka_unit_test(packed_units_are_dense_ones),
                                       cmocka_unit_test(escapes_find_their_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
