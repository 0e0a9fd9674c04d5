/* SPDX-License-Identifier: Apache-2.0 */
/* The published Qwen3 tokenizer, 11 MB, looked for beside the repository; skipped without it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/file.h"
#include "text/cpu_clock.h"
#include "text/reference.h"

#define DIRECTORY MYELIN_SHARED "/qwen3-tokenizer"

enum { SKIPPED = 77, MAX_OPEN_MS = 3000 /* generous: a tenth is usual, sanitizers take longer */ };

static mln_tokenizer *tokenizer;

static void check_line(const json_t *line, void *context) {
    (void)context;
    check_case(tokenizer, line, "qwen3");
}

static void every_line_of_the_fixtures_is_equal(void **state) {
    (void)state;
    assert_int_equal(each_line(MYELIN_TEST_DATA "/tokenizer/qwen3.jsonl", check_line, NULL), 295);
}

static void tokens_are_found_by_name(void **state) {
    (void)state;
    const char *bytes;
    size_t length;
    assert_int_equal(mln_tokenizer_size(tokenizer), 151669);
    assert_int_equal(mln_tokenizer_find(tokenizer, "<|im_end|>", 10), 151645);
    assert_int_equal(mln_tokenizer_find(tokenizer, "<|im_end|", 9), -1);
    assert_true(mln_tokenizer_is_special(tokenizer, 151645));
    assert_false(mln_tokenizer_is_special(tokenizer, 151667)); /* <think> */
    assert_false(mln_tokenizer_is_special(tokenizer, 151669));
    assert_true(mln_tokenizer_bytes(tokenizer, 220, &bytes, &length));
    assert_int_equal(length, 1);
    assert_memory_equal(bytes, " ", 1);
    assert_false(mln_tokenizer_bytes(tokenizer, 151669, &bytes, &length));
}

static void opening_is_quick(void **state) {
    (void)state;
    mln_tokenizer *again;
    int64_t start = cpu_ms();
    assert_int_equal(mln_tokenizer_open(&again, DIRECTORY, NULL), MYELIN_OK);
    assert_in_range(cpu_ms() - start, 0, MAX_OPEN_MS);
    mln_tokenizer_free(again);
}

int main(void) {
    myelin_error error;
    if (!mln_path_exists(DIRECTORY "/tokenizer.json")) {
        printf("skipped: %s has no tokenizer.json\n", DIRECTORY);
        return SKIPPED;
    }
    if (mln_tokenizer_open(&tokenizer, DIRECTORY, &error) != MYELIN_OK) {
        printf("%s\n", error.message);
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_line_of_the_fixtures_is_equal),
                                       cmocka_unit_test(tokens_are_found_by_name),
                                       cmocka_unit_test(opening_is_quick)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mln_tokenizer_free(tokenizer);
    return failed;
}
