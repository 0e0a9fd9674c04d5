/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "text/normalize.h"
#include "text/stand_in.h"

static void expect_nfc(mln_normalizer *n, const char *text, const char *expected) {
    const char *out;
    size_t length;
    assert_int_equal(mln_normalize(n, text, strlen(text), &out, &length, NULL), MYELIN_OK);
    if (length != strlen(expected) || memcmp(out, expected, length) != 0)
        fail_msg("`%s`: expected `%s`, found `%.*s`", text, expected, (int)length, out);
}

static void known_forms(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"plain", "plain"},
        {"cafe\u0301", "caf\u00e9"},
        {"caf\u00e9", "caf\u00e9"},
        {"\u00e0\u0323", "\u1ea1\u0300"},  /* taken apart, reordered, put together */
        {"a\u0301\u0301", "\u00e1\u0301"}, /* the second mark is blocked */
        {"a\u0334\u0301", "\u00e1\u0334"}, /* one of another class does not block */
        {"\u0301a", "\u0301a"},            /* nothing to join */
        {"\u1100\u1161\u11a8", "\uac01"},  /* Hangul */
        {"\uac00\u11a8\u11a8", "\uac01\u11a8"},
        {"\u1100\u11a8", "\u1100\u11a8"},
        {"\u212b\u2126", "\u00c5\u03a9"}, /* singletons */
        {"\u0958", "\u0915\u093c"},       /* excluded from composition */
        {"\u09c7\u09be", "\u09cb"},       /* joins though it is no mark */
        {"\u0344", "\u0308\u0301"},
        {"\U0001d15e", "\U0001d157\U0001d165"},
        {"\U00011935\U00011930", "\U00011935\U00011930"}, /* newer than the reference */
        {"a\u0334\u1dfa", "a\u0334\u1dfa"},
        {"a\u1dfa\u0301", "a\u1dfa\u0301"}};
    mln_normalizer n = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_nfc(&n, cases[i][0], cases[i][1]);
    mln_normalizer_free(&n);
}

static void text_that_is_normal_is_not_copied(void **state) {
    (void)state;
    static const char text[] = "plain \u00e9 \u4e2d \uac01 \U0001F600";
    mln_normalizer n = {0};
    const char *out;
    size_t length;
    assert_int_equal(mln_normalize(&n, text, sizeof text - 1, &out, &length, NULL), MYELIN_OK);
    assert_ptr_equal(out, text);
    assert_int_equal(length, sizeof text - 1);
    mln_normalizer_free(&n);
}

/*
 * utf8proc's own NFC of each code point among others. Where the two differ the reference's tables
 * end before the code point's version: counted, and given by known_forms and the recorded results.
 */
static void every_code_point_is_what_utf8proc_says(void **state) {
    (void)state;
    mln_normalizer n = {0};
    int different = 0;
    for (uint32_t c = 1; c <= 0x10FFFF; c++) {
        unsigned char code[MLN_UTF8_MAX + 1] = {0};
        char text[64];
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        mln_utf8_encode(c, code);
        snprintf(text, sizeof text, "%s|a%s|\u0301%s\u0323\u0334|q\u0345%s\u0301", (char *)code,
                 (char *)code, (char *)code, (char *)code);
        utf8proc_uint8_t *expected = utf8proc_NFC((const utf8proc_uint8_t *)text);
        assert_non_null(expected);
        const char *out;
        size_t length;
        assert_int_equal(mln_normalize(&n, text, strlen(text), &out, &length, NULL), MYELIN_OK);
        different += length != strlen((char *)expected) || memcmp(out, expected, length) != 0;
        free(expected);
    }
    assert_in_range(different, 100, 160); /* 105 with utf8proc 2.8, more with a newer one */
    mln_normalizer_free(&n);
}

/* What keeps offsets right: a stand-in has the length of what it stands for, and its category. */
static void stand_ins_fit(void **state) {
    (void)state;
    int count = 0;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        unsigned char before[MLN_UTF8_MAX], after[MLN_UTF8_MAX];
        uint32_t shown = mln_stand_in(c);
        if (shown == c)
            continue;
        count++;
        assert_int_equal(mln_utf8_encode(c, before), mln_utf8_encode(shown, after));
        assert_int_equal(mln_stand_in(shown), shown);
        if (utf8proc_category((int32_t)c) != UTF8PROC_CATEGORY_CN && c != 0x1171E)
            assert_int_equal(utf8proc_category((int32_t)c), utf8proc_category((int32_t)shown));
    }
    assert_in_range(count, 9000, 11000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_forms), cmocka_unit_test(text_that_is_normal_is_not_copied),
        cmocka_unit_test(every_code_point_is_what_utf8proc_says), cmocka_unit_test(stand_ins_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
