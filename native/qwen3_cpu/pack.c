/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing bfloat16 weights without loss. Of the upper byte of a weight, its sign and most of its
 * exponent, few values occur: the 16 commonest of a panel get codes of 4 bits, the weights that
 * have others are listed as escapes. The lower byte stays as it is.
 */
#include <stdbool.h>
#include <string.h>

#include "half.h"
#include "internal.h"

/* An escape costs about as much time as three steps: no more of them than one in eight steps. */
enum { COLUMNS_AN_ESCAPE = 16, BYTES = 256, CODES = 16, NO_CODE = 16 };

/* How often each upper byte occurs. Four counters of each: equal neighbours do not wait. */
static void count_upper(uint32_t counts[BYTES], const uint16_t *weights, int64_t number) {
    uint32_t parts[4][BYTES];
    memset(parts, 0, sizeof parts);
    for (int64_t i = 0; i < number; i += 4)
        for (int k = 0; k < 4; k++)
            parts[k][weights[i + k] >> 8]++;
    for (int b = 0; b < BYTES; b++)
        counts[b] = parts[0][b] + parts[1][b] + parts[2][b] + parts[3][b];
}

/* Codes for the commonest, in the head and by byte; returns how many weights have none. */
static uint32_t choose_codes(mln_cpu_packed_head *head, uint8_t codes[BYTES],
                             uint32_t counts[BYTES]) {
    memset(codes, NO_CODE, BYTES);
    for (uint8_t code = 0; code < CODES; code++) {
        int best = 0;
        for (int b = 1; b < BYTES; b++)
            best = counts[b] > counts[best] ? b : best;
        if (counts[best] == 0)
            break;
        counts[best] = 0;
        codes[best] = code;
        head->upper[code] = (uint8_t)best;
    }
    uint32_t rest = 0;
    for (int b = 0; b < BYTES; b++)
        rest += counts[b];
    return rest;
}

/* Where weight `i` = 2 * row + column of a step lies among its 64 bytes. */
static int place_of(int i) {
    return i % 32 / 8 * 16 + i / 32 * 8 + i % 8;
}

/* One pair of columns. Returns the escape after its own. */
static mln_cpu_escape *pack_step(unsigned char *codes, unsigned char *lower,
                                 const uint16_t *weights, const uint8_t code_of[BYTES], int shift,
                                 uint32_t step, mln_cpu_escape *escape) {
    bool escapes = false;
    for (int i = 0; i < 2 * MLN_CPU_PANEL; i++) {
        uint8_t code = code_of[weights[i] >> 8];
        int place = place_of(i);
        lower[place] = (unsigned char)weights[i];
        codes[place] |= (unsigned char)((code & 15) << shift);
        escapes |= code == NO_CODE;
    }
    for (int i = 0; escapes && i < 2 * MLN_CPU_PANEL; i++)
        if (code_of[weights[i] >> 8] == NO_CODE)
            *escape++ = (mln_cpu_escape){step, (uint16_t)i, weights[i]};
    return escape;
}

void mln_cpu_pack_panel(unsigned char *to, const unsigned char *dense, int64_t columns) {
    mln_cpu_packed_head head = {0};
    const uint16_t *weights = (const uint16_t *)(const void *)dense;
    uint32_t counts[BYTES];
    uint8_t codes[BYTES];
    int64_t pairs = (columns + 1) / 2, quads = (pairs + 1) / 2;
    size_t dense_bytes = (size_t)pairs * 4 * MLN_CPU_PANEL;
    count_upper(counts, weights, pairs * 2 * MLN_CPU_PANEL);
    head.escapes = choose_codes(&head, codes, counts);
    size_t bytes =
        (size_t)quads * MLN_CPU_PACKED_STEP + (head.escapes + 1) * sizeof(mln_cpu_escape);
    bytes = (bytes + 63) / 64 * 64;
    head.packed = bytes < dense_bytes && head.escapes <= columns / COLUMNS_AN_ESCAPE;
    head.bytes = sizeof head + (head.packed ? bytes : dense_bytes);
    memcpy(to, &head, sizeof head);
    to += sizeof head;
    if (!head.packed) {
        memcpy(to, dense, dense_bytes);
        return;
    }
    mln_cpu_escape *escape = (mln_cpu_escape *)(void *)(to + quads * MLN_CPU_PACKED_STEP);
    for (int64_t k = 0; k < pairs; k++, weights += 2 * MLN_CPU_PANEL) {
        if (k % 2 == 0)
            memset(to, 0, MLN_CPU_PACKED_STEP);
        escape = pack_step(to, to + 64 + k % 2 * 64, weights, codes, k % 2 == 0 ? 0 : 4,
                           (uint32_t)k, escape);
        to += k % 2 * MLN_CPU_PACKED_STEP;
    }
    *escape = (mln_cpu_escape){.step = UINT32_MAX};
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
