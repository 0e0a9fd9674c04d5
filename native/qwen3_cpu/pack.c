/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing bfloat16 weights without loss. Of the upper byte of a weight, its sign and most of its
 * exponent, few values occur. The code of one, 4 bits, is its sign and the lowest three bits of the
 * exponent in it, so it takes no search to find: of the sixteen bytes that share a code the
 * commonest is the one it stands for, and weights that have another are listed as escapes.
 * Exponents lie close together, eight in a row of either sign have codes of their own. The lower
 * byte stays as it is.
 */
#include <string.h>

#include "half.h"
#include "internal.h"

enum { BYTES = 256, CODES = 16, SHARERS = BYTES / CODES };

/* How often each upper byte occurs in every `every`-th pair of columns. */
static void count_upper(uint32_t counts[BYTES], const uint16_t *weights, int64_t pairs,
                        int64_t every) {
    uint32_t parts[4][BYTES]; /* equal neighbours do not wait for each other */
    memset(parts, 0, sizeof parts);
    for (int64_t k = 0; k < pairs; k += every) {
        const uint16_t *pair = weights + k * 2 * MLN_CPU_PANEL;
        for (int i = 0; i < 2 * MLN_CPU_PANEL; i += 4) {
            uint64_t four;
            memcpy(&four, pair + i, sizeof four); /* in any order */
            parts[0][four >> 8 & 255]++;
            parts[1][four >> 24 & 255]++;
            parts[2][four >> 40 & 255]++;
            parts[3][four >> 56]++;
        }
    }
    for (int b = 0; b < BYTES; b++)
        counts[b] = parts[0][b] + parts[1][b] + parts[2][b] + parts[3][b];
}

/* The commonest of the 128 bytes of a sign, or of the other sign when there are none. */
static unsigned commonest(const uint32_t counts[BYTES], unsigned sign) {
    unsigned best = sign;
    for (unsigned b = sign; b < sign + BYTES / 2; b++)
        best = counts[b] > counts[best] ? b : best;
    return counts[best] > 0 || sign == 0 ? best : commonest(counts, 0) + sign;
}

void mln_cpu_choose_upper(uint8_t upper[CODES], const unsigned char *dense, int64_t pairs,
                          int64_t every) {
    uint32_t counts[BYTES];
    count_upper(counts, (const uint16_t *)(const void *)dense, pairs, every);
    const unsigned middle[2] = {commonest(counts, 0), commonest(counts, BYTES / 2)};
    for (unsigned code = 0; code < CODES; code++) {
        unsigned sign = code / 8 * (BYTES / 2);
        /* Where none was counted: what would make eight in a row, most of them small numbers. */
        unsigned top = middle[code / 8] + 1, best = sign | ((top - ((top - code) & 7)) & 127);
        for (unsigned i = 0; i < SHARERS; i++) {
            unsigned b = sign | i << 3 | (code & 7);
            best = counts[b] > counts[best] ? b : best;
        }
        upper[code] = (uint8_t)best;
    }
}

/* Where weight `i` = 2 * row + column of a step lies among its 64 bytes. */
static int place_of(int i) {
    return i % 32 / 8 * 16 + i / 32 * 8 + i % 8;
}

void mln_cpu_packed_row(float *out, const unsigned char *panel, int64_t columns, int64_t row) {
    const mln_cpu_packed_head *head = (const mln_cpu_packed_head *)(const void *)panel;
    const unsigned char *step = panel + sizeof *head;
    if (!head->packed) {
        const uint16_t *weights = (const uint16_t *)(const void *)step;
        for (int64_t c = 0; c < columns; c++)
            out[c] = bfloat_to_float(weights[(c / 2 * MLN_CPU_PANEL + row) * 2 + c % 2]);
        return;
    }
    for (int64_t c = 0; c < columns; c++) {
        const unsigned char *codes = step + c / 4 * MLN_CPU_PACKED_STEP;
        int place = place_of((int)(2 * row + c % 2)), half = (int)(c / 2 % 2);
        unsigned upper = head->upper[codes[place] >> 4 * half & 15u];
        out[c] = bfloat_to_float((uint16_t)(upper << 8 | codes[64 + 64 * half + place]));
    }
    const mln_cpu_escape *escape =
        (const mln_cpu_escape *)(const void *)(step + (columns + 3) / 4 * MLN_CPU_PACKED_STEP);
    for (uint32_t i = 0; i < head->escapes; i++)
        if (escape[i].at / 2 == row && 2 * (int64_t)escape[i].step + escape[i].at % 2 < columns)
            out[2 * (int64_t)escape[i].step + escape[i].at % 2] = bfloat_to_float(escape[i].value);
}
