/* SPDX-License-Identifier: Apache-2.0 */
/* base/utf8.h against table 3-7 of the Unicode Standard, written out row by row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"

typedef struct row {
    size_t length;
    unsigned char low[4], high[4];
} row;

static const row table[] = {
    {1, {0x00}, {0x7F}},
    {2, {0xC2, 0x80}, {0xDF, 0xBF}},
    {3, {0xE0, 0xA0, 0x80}, {0xE0, 0xBF, 0xBF}},
    {3, {0xE1, 0x80, 0x80}, {0xEC, 0xBF, 0xBF}},
    {3, {0xED, 0x80, 0x80}, {0xED, 0x9F, 0xBF}},
    {3, {0xEE, 0x80, 0x80}, {0xEF, 0xBF, 0xBF}},
    {4, {0xF0, 0x90, 0x80, 0x80}, {0xF0, 0xBF, 0xBF, 0xBF}},
    {4, {0xF1, 0x80, 0x80, 0x80}, {0xF3, 0xBF, 0xBF, 0xBF}},
    {4, {0xF4, 0x80, 0x80, 0x80}, {0xF4, 0x8F, 0xBF, 0xBF}},
};
enum { ROWS = sizeof table / sizeof *table };

static bool byte_fits(const row *r, size_t i, unsigned char byte) {
    return byte >= r->low[i] && byte <= r->high[i];
}

/* Length of the character at text, or 0 and the length of the maximal subpart in *bad. */
static size_t reference(const unsigned char *text, size_t length, size_t *bad) {
    *bad = 1;
    for (size_t k = 0; k < ROWS; k++) {
        size_t i = 0;
        while (i < length && i < table[k].length && byte_fits(&table[k], i, text[i]))
            i++;
        if (i == table[k].length)
            return i;
        if (i > *bad)
            *bad = i;
    }
    return 0;
}

static uint32_t reference_code(const unsigned char *t, size_t n) {
    switch (n) {
    case 1:
        return t[0];
    case 2:
        return (t[0] - 0xC0u) * 64 + (t[1] - 0x80u);
    case 3:
        return ((t[0] - 0xE0u) * 64 + (t[1] - 0x80u)) * 64 + (t[2] - 0x80u);
    default:
        return (((t[0] - 0xF0u) * 64 + (t[1] - 0x80u)) * 64 + (t[2] - 0x80u)) * 64 + (t[3] - 0x80u);
    }
}

/* Bytes at the end that some more bytes would make a character. */
static size_t reference_incomplete(const unsigned char *text, size_t length) {
    for (size_t n = 1; n <= 3 && n <= length; n++) {
        const unsigned char *tail = text + length - n;
        for (size_t k = 0; k < ROWS; k++) {
            size_t i = 0;
            while (i < n && n < table[k].length && byte_fits(&table[k], i, tail[i]))
                i++;
            if (i == n)
                return n;
        }
    }
    return 0;
}

/* Plain comparisons and one assertion: these run a hundred million times. */
static bool agrees(const unsigned char *text, size_t length) {
    size_t bad, n = reference(text, length, &bad);
    uint32_t code;
    if (mln_utf8_decode(text, length, &code) != n)
        return false;
    if (code != (n ? reference_code(text, n) : (uint32_t)bad))
        return false;
    size_t prefix = 0;
    while (prefix < length && (n = reference(text + prefix, length - prefix, &bad)) > 0)
        prefix += n;
    return mln_utf8_valid_prefix((const char *)text, length) == prefix &&
           mln_utf8_incomplete_suffix((const char *)text, length) ==
               reference_incomplete(text, length);
}

static void all_sequences_of_one_to_three_bytes(void **state) {
    (void)state;
    unsigned char text[3];
    for (uint32_t v = 0; v < 1u << 24; v++) {
        text[0] = (unsigned char)(v >> 16);
        text[1] = (unsigned char)(v >> 8);
        text[2] = (unsigned char)v;
        if ((v & 0xFFFF) == 0)
            assert_true(agrees(text, 1));
        if ((v & 0xFF) == 0)
            assert_true(agrees(text, 2));
        if (!agrees(text, 3))
            fail_msg("bytes %02x %02x %02x", text[0], text[1], text[2]);
    }
}

/* Four bytes: every lead, and the values at and beside each limit in the other places. */
static void four_bytes_at_their_limits(void **state) {
    (void)state;
    static const unsigned char edges[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0,
                                          0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xFF};
    enum { EDGES = sizeof edges };
    for (unsigned lead = 0; lead < 256; lead++)
        for (unsigned v = 0; v < EDGES * EDGES * EDGES; v++) {
            unsigned char text[4] = {(unsigned char)lead, edges[v % EDGES],
                                     edges[v / EDGES % EDGES], edges[v / EDGES / EDGES]};
            if (!agrees(text, 4))
                fail_msg("bytes %02x %02x %02x %02x", text[0], text[1], text[2], text[3]);
        }
}

static void every_code_goes_there_and_back(void **state) {
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        if (code >= 0xD800 && code <= 0xDFFF)
            continue;
        unsigned char text[MLN_UTF8_MAX];
        uint32_t back;
        size_t n = mln_utf8_encode(code, text);
        if (mln_utf8_decode(text, n, &back) != n || back != code)
            fail_msg("U+%04X", code);
    }
}

/* Ill-formed bytes at every place around the eight-byte steps of the fast path. */
static void prefix_ends_at_the_first_bad_byte(void **state) {
    (void)state;
    char text[40];
    for (size_t length = 0; length <= sizeof text; length++)
        for (size_t bad = 0; bad <= length; bad++) {
            memset(text, 'a', sizeof text);
            if (bad < length)
                text[bad] = (char)0xFF;
            assert_int_equal(mln_utf8_valid_prefix(text, length), bad);
            if (bad + 2 <= length) {
                memcpy(text + bad, "\xC3\xA9", 2);
                assert_int_equal(mln_utf8_valid_prefix(text, length), length);
            }
        }
}

/* The Unicode Standard's own example of replacement by maximal subparts (table 3-8). */
static void lossy_decoding_replaces_maximal_subparts(void **state) {
    (void)state;
    static const unsigned char text[] = "\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64";
    static const uint32_t expected[] = {0x61,   0xFFFD, 0xFFFD, 0xFFFD, 0x62,
                                        0xFFFD, 0x63,   0xFFFD, 0xFFFD, 0x64};
    size_t count = 0, length = sizeof text - 1;
    for (size_t i = 0; i < length;) {
        uint32_t code;
        size_t n = mln_utf8_decode(text + i, length - i, &code);
        assert_true(count < sizeof expected / sizeof *expected);
        assert_int_equal(expected[count++], n ? code : 0xFFFD);
        i += n ? n : code;
    }
    assert_int_equal(count, sizeof expected / sizeof *expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_sequences_of_one_to_three_bytes),
        cmocka_unit_test(four_bytes_at_their_limits),
        cmocka_unit_test(every_code_goes_there_and_back),
        cmocka_unit_test(prefix_ends_at_the_first_bad_byte),
        cmocka_unit_test(lossy_decoding_replaces_maximal_subparts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
