/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time grows with the input, not with its square: texts of a megabyte that are bad for one step or
 * another. The bound is some thirty times what they take, and a thousandth of quadratic time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/cpu_clock.h"
#include "text/tokenizer.h"

enum { BYTES = 1000000, MAX_MS = 20000 };

static mln_tokenizer *demo;

static int open_demo(void **state) {
    (void)state;
    return mln_tokenizer_open(&demo, MYELIN_DEMO_MODEL, NULL) == MYELIN_OK ? 0 : -1;
}

static int close_demo(void **state) {
    (void)state;
    mln_tokenizer_free(demo);
    return 0;
}

/* A megabyte of `unit` between `first` and `last`. */
static void expect_linear(const char *first, const char *unit, const char *last) {
    mln_buffer text = {0}, back = {0};
    mln_ids ids = {0};
    assert_true(mln_buffer_append(&text, first, strlen(first)));
    while (text.length < BYTES)
        assert_true(mln_buffer_append(&text, unit, strlen(unit)));
    assert_true(mln_buffer_append(&text, last, strlen(last)));
    int64_t start = cpu_ms();
    assert_int_equal(
        mln_tokenizer_encode(demo, text.data, text.length, MLN_ADDED_AS_TOKENS, &ids, NULL), 0);
    assert_int_equal(mln_tokenizer_decode(demo, ids.data, ids.count, false, &back, NULL), 0);
    assert_in_range(cpu_ms() - start, 0, MAX_MS);
    assert_int_equal(back.length, text.length); /* none of the texts changes by normalisation */
    assert_memory_equal(back.data, text.data, text.length);
    mln_ids_free(&ids);
    mln_buffer_free(&text);
    mln_buffer_free(&back);
}

static void one_letter(void **state) {
    (void)state;
    expect_linear("", "a", "");
    expect_linear("", "\xE4\xB8\xAD", "");
}

static void letters_that_merge_in_many_ways(void **state) {
    (void)state;
    expect_linear("", "theinandrestored", "");
}

static void white_space(void **state) {
    (void)state;
    expect_linear("", " ", "");
    expect_linear("", " ", "x");
    expect_linear("", " \n", "x");
    expect_linear("\n", "\r\n\t ", "");
    expect_linear("", "  a", "");
}

static void punctuation(void **state) {
    (void)state;
    expect_linear("", "'", "");
    expect_linear("", "'s", "");
    expect_linear("", "<", "");
    expect_linear("", "<|im_end|>", "");
    expect_linear("", "<|im_end|", "");
}

static void combining_marks(void **state) {
    (void)state;
    expect_linear("q", "\xCC\x81", ""); /* of one class: they keep their order */
    expect_linear("", "q\xCC\xA3\xCC\x81", "");
}

/* Marks of two classes, in the wrong order all along: half of them have to move to the front. */
static void combining_marks_out_of_order(void **state) {
    (void)state;
    mln_buffer text = {0}, back = {0};
    mln_ids ids = {0};
    assert_true(mln_buffer_append(&text, "q", 1));
    for (int i = 0; i < BYTES / 4; i++)
        assert_true(mln_buffer_append(&text, "\xCC\x81\xCC\xA3", 4));
    int64_t start = cpu_ms();
    assert_int_equal(
        mln_tokenizer_encode(demo, text.data, text.length, MLN_ADDED_AS_TOKENS, &ids, NULL), 0);
    assert_in_range(cpu_ms() - start, 0, MAX_MS);
    assert_int_equal(mln_tokenizer_decode(demo, ids.data, ids.count, false, &back, NULL), 0);
    assert_int_equal(back.length, text.length);
    for (int i = 0; i < BYTES / 4; i++) {
        assert_memory_equal(back.data + 1 + 2 * i, "\xCC\xA3", 2);
        assert_memory_equal(back.data + 1 + BYTES / 2 + 2 * i, "\xCC\x81", 2);
    }
    mln_ids_free(&ids);
    mln_buffer_free(&text);
    mln_buffer_free(&back);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_letter),      cmocka_unit_test(letters_that_merge_in_many_ways),
        cmocka_unit_test(white_space),     cmocka_unit_test(punctuation),
        cmocka_unit_test(combining_marks), cmocka_unit_test(combining_marks_out_of_order)};
    return cmocka_run_group_tests(tests, open_demo, close_demo);
}
