/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/expect.h"
#include "checkpoint/shard_index.h"

static myelin_status parse(mln_shard_index *index, const char *text, myelin_error *error) {
    return mln_shard_index_parse(index, text, strlen(text), "/m/index.json", error);
}

static void test_good(void **state) {
    (void)state;
    mln_shard_index index;
    assert_int_equal(parse(&index,
                           "{\"metadata\":{\"total_size\":3},\"weight_map\":{\"c\":\"y.safetensors"
                           "\",\"a\":\"x.safetensors\",\"b\":\"y.safetensors\"},\"other\":[1]}",
                           NULL),
                     MYELIN_OK);
    assert_int_equal(index.num_files, 2);
    assert_string_equal(index.files[0], "x.safetensors");
    assert_string_equal(index.files[1], "y.safetensors");
    assert_int_equal(index.count, 3);
    assert_string_equal(index.entries[0].tensor, "a");
    assert_int_equal(index.entries[0].shard, 0);
    assert_string_equal(index.entries[2].tensor, "c");
    assert_int_equal(index.entries[2].shard, 1);
    mln_shard_index_free(&index);
}

static void test_bad(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "invalid JSON"},
        {"[]", "expected an object, found an array"},
        {"{}", "found no weight_map"},
        {"{\"weight_map\":{}}", "found none"},
        {"{\"weight_map\":[\"a\"]}", "weight_map: expected an object, found an array"},
        {"{\"weight_map\":{\"a\":1}}", "weight_map of \"a\": expected the plain name"},
        {"{\"weight_map\":{\"a\":{}}}", "found an object"},
        {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "found a string \"../x.safetensors\""},
        {"{\"weight_map\":{\"a\":\"/etc/x.safetensors\"}}", "\"/etc/x.safetensors\""},
        {"{\"weight_map\":{\"a\":\"d/x.safetensors\"}}", "plain name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "plain name"},
        {"{\"weight_map\":{\"a\":\"\"}}", "plain name"},
        {"{\"weight_map\":{\"a\":\".safetensors\"}}", "plain name"},
        {"{\"weight_map\":{\"a\":\"x.bin\"}}", "plain name"},
        {"{\"weight_map\":{\"a\":\"x\\u0000.safetensors\"}}", "plain name"},
        {"{\"weight_map\":{\"a\\u0000b\":\"x.safetensors\"}}", "holds a NUL"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"x.safetensors\"}}", "duplicate key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mln_shard_index index;
        myelin_error error = {0};
        expect_failure(cases[i].text, parse(&index, cases[i].text, &error), &error,
                       MYELIN_ERROR_FORMAT, cases[i].message);
    }
}

static void test_too_many_files(void **state) {
    (void)state;
    mln_buffer text = {0};
    mln_buffer_append(&text, "{\"weight_map\":", 14);
    for (int i = 0; i <= MLN_CHECKPOINT_MAX_SHARDS; i++) {
        char entry[64];
        int n = snprintf(entry, sizeof entry, "%c\"t%d\":\"%d.safetensors\"", i ? ',' : '{', i, i);
        mln_buffer_append(&text, entry, (size_t)n);
    }
    mln_buffer_append(&text, "}}", 2);
    mln_shard_index index;
    myelin_error error = {0};
    expect_failure("4097 files", parse(&index, text.data, &error), &error, MYELIN_ERROR_FORMAT,
                   "at most 4096 different files");
    mln_buffer_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad),
                                       cmocka_unit_test(test_too_many_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
