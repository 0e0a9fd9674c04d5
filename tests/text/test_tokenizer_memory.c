/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation fails once: always MYELIN_ERROR_MEMORY, and (address sanitizer) no leak. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/small.h"

enum { MANY = 100000 /* allocations no walk reaches */ };

static mln_buffer document(void) {
    small_parts parts = {
        .added_tokens = "[" SMALL_ADDED(
            258, "<m>",
            SMALL_FLAGS(false, true, true, false,
                        true)) "," SMALL_ADDED(259, "o\\u030c",
                                               SMALL_FLAGS(false, false, false, true, false)) "]",
        .merges = "[\"a b\",\"ab c\"]",
        .model_options = "\"ignore_merges\":true,"};
    return small_document(&parts);
}

/* All paths: normalisation with long runs, stand-ins, both kinds of token, short and long pieces.
 */
static mln_buffer long_text(void) {
    mln_buffer text = {0};
    for (int i = 0; i < 40; i++)
        mln_buffer_append(&text, "abc<m> o\xCC\x8C e\xCC\x81\xCC\xA3 ", 18);
    for (int i = 0; i < 300; i++)
        mln_buffer_append(&text, i % 2 ? "\xCC\x81" : "\xCC\xA3", 2);
    mln_buffer_append(&text, "\xE1\xA0\x8E ", 4);
    for (int i = 0; i < 300; i++)
        mln_buffer_append(&text, "abc", 3);
    return text;
}

static void opening_survives_every_failure(void **state) {
    (void)state;
    mln_buffer json = document();
    for (int sticky = 0; sticky < 2; sticky++) {
        myelin_status status = MYELIN_ERROR_MEMORY;
        uint64_t n = 0;
        while (status != MYELIN_OK && n < MANY) {
            mln_tokenizer *t;
            myelin_error error = {0};
            mln_fail_allocation(++n, sticky);
            status = mln_tokenizer_parse(&t, json.data, json.length, "t.json", &error);
            mln_fail_allocation(0, false);
            if (status == MYELIN_OK) {
                mln_tokenizer_free(t);
            } else {
                assert_int_equal(status, MYELIN_ERROR_MEMORY);
                assert_int_equal(error.status, MYELIN_ERROR_MEMORY);
                assert_null(t);
            }
        }
        assert_in_range(n, 20, MANY - 1);
    }
    mln_buffer_free(&json);
}

static void encoding_survives_every_failure(void **state) {
    (void)state;
    mln_buffer json = document(), text = long_text();
    mln_tokenizer *t;
    assert_int_equal(mln_tokenizer_parse(&t, json.data, json.length, NULL, NULL), MYELIN_OK);
    mln_ids right = {0};
    assert_int_equal(
        mln_tokenizer_encode(t, text.data, text.length, MLN_ADDED_AS_TOKENS, &right, NULL), 0);
    assert_true(right.count > 300);
    for (int sticky = 0; sticky < 2; sticky++) {
        myelin_status status = MYELIN_ERROR_MEMORY;
        uint64_t n = 0;
        while (status != MYELIN_OK && n < MANY) {
            mln_ids ids = {0};
            mln_fail_allocation(++n, sticky);
            status =
                mln_tokenizer_encode(t, text.data, text.length, MLN_ADDED_AS_TOKENS, &ids, NULL);
            mln_fail_allocation(0, false);
            if (status == MYELIN_OK) {
                assert_int_equal(ids.count, right.count);
                assert_memory_equal(ids.data, right.data, right.count * sizeof *right.data);
            } else {
                assert_int_equal(status, MYELIN_ERROR_MEMORY);
                assert_int_equal(ids.count, 0);
            }
            mln_ids_free(&ids);
        }
        assert_in_range(n, 8, MANY - 1);
    }
    mln_ids_free(&right);
    mln_tokenizer_free(t);
    mln_buffer_free(&json);
    mln_buffer_free(&text);
}

static void decoding_survives_every_failure(void **state) {
    (void)state;
    mln_buffer json = document();
    mln_tokenizer *t;
    assert_int_equal(mln_tokenizer_parse(&t, json.data, json.length, NULL, NULL), MYELIN_OK);
    int32_t ids[100];
    for (int i = 0; i < 100; i++)
        ids[i] = i % 3 ? 257 : 0xE1; /* "abc" and a byte that needs replacing */
    myelin_status status = MYELIN_ERROR_MEMORY;
    uint64_t n = 0;
    while (status != MYELIN_OK && n < MANY) {
        mln_buffer text = {0};
        mln_fail_allocation(++n, false);
        status = mln_tokenizer_decode(t, ids, 100, false, &text, NULL);
        mln_fail_allocation(0, false);
        assert_true(status == MYELIN_OK || status == MYELIN_ERROR_MEMORY);
        assert_int_equal(text.length, status == MYELIN_OK ? 66 * 3 + 34 * 3 : 0);
        mln_buffer_free(&text);
    }
    assert_in_range(n, 2, MANY - 1);
    mln_tokenizer_free(t);
    mln_buffer_free(&json);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(opening_survives_every_failure),
                                       cmocka_unit_test(encoding_survives_every_failure),
                                       cmocka_unit_test(decoding_survives_every_failure)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
