/* SPDX-License-Identifier: Apache-2.0 */
/* Ids and text against recorded results of the reference, and the rest of the contract. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "text/reference.h"
#include "text/small.h"

static mln_tokenizer *demo;

static int open_demo(void **state) {
    (void)state;
    myelin_error error;
    if (mln_tokenizer_open(&demo, MYELIN_DEMO_MODEL, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    return 0;
}

static int close_demo(void **state) {
    (void)state;
    mln_tokenizer_free(demo);
    return 0;
}

static mln_tokenizer *open_small(const small_parts *parts) {
    mln_buffer json = small_document(parts);
    mln_tokenizer *t;
    myelin_error error;
    if (mln_tokenizer_parse(&t, json.data, json.length, "small.json", &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    mln_buffer_free(&json);
    return t;
}

static void expect_ids(const mln_tokenizer *t, const char *text, mln_added_tokens added,
                       size_t count, const int32_t *expected) {
    mln_ids ids = {0};
    assert_int_equal(mln_tokenizer_encode(t, text, strlen(text), added, &ids, NULL), MYELIN_OK);
    assert_int_equal(ids.count, count);
    assert_memory_equal(ids.data, expected, count * sizeof *expected);
    mln_ids_free(&ids);
}

static void check_demo_line(const json_t *line, void *context) {
    (void)context;
    check_case(demo, line, "demo");
}

static void the_demo_tokenizer_is_the_reference(void **state) {
    (void)state;
    assert_int_equal(each_line(MYELIN_TEST_DATA "/tokenizer/demo.jsonl", check_demo_line, NULL),
                     300);
}

static void check_small_line(const json_t *line, void *context) {
    (void)context;
    const char *name = json_string_value(json_object_get(line, "name"));
    char *json = json_dumps(json_object_get(line, "tokenizer"), JSON_COMPACT);
    assert_non_null(json);
    mln_tokenizer *t;
    myelin_error error;
    if (mln_tokenizer_parse(&t, json, strlen(json), NULL, &error) != MYELIN_OK)
        fail_msg("%s: %s", name, error.message);
    const json_t *cases = json_object_get(line, "cases");
    assert_true(json_array_size(cases) > 4);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(t, json_array_get(cases, i), name);
    mln_tokenizer_free(t);
    free(json);
}

static void small_tokenizers_are_the_reference(void **state) {
    (void)state;
    assert_int_equal(each_line(MYELIN_TEST_DATA "/tokenizer/small.jsonl", check_small_line, NULL),
                     21);
}

static void ill_formed_text_is_refused_at_its_byte(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t at;
    } cases[] = {{"\xFF", 0}, {"ab\xC3", 2}, {"\xC3\xA9\xED\xA0\x80", 2}, {"abcdefgh\x80", 8}};
    mln_ids ids = {0};
    assert_int_equal(mln_tokenizer_encode(demo, "a", 1, MLN_ADDED_AS_TOKENS, &ids, NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        myelin_error error;
        assert_int_equal(mln_tokenizer_encode(demo, cases[i].text, strlen(cases[i].text),
                                              MLN_ADDED_AS_TOKENS, &ids, &error),
                         MYELIN_ERROR_ARGUMENT);
        assert_int_equal(error.offset, cases[i].at);
        assert_int_equal(ids.count, 1); /* what was there stays */
    }
    mln_ids_free(&ids);
}

static void encoding_appends(void **state) {
    (void)state;
    mln_ids ids = {0};
    assert_int_equal(mln_tokenizer_encode(demo, NULL, 0, MLN_ADDED_AS_TOKENS, &ids, NULL), 0);
    assert_int_equal(ids.count, 0);
    assert_int_equal(mln_tokenizer_encode(demo, "a", 1, MLN_ADDED_AS_TOKENS, &ids, NULL), 0);
    assert_int_equal(mln_tokenizer_encode(demo, "<|im_end|>", 10, MLN_ADDED_AS_TOKENS, &ids, NULL),
                     0);
    assert_int_equal(ids.count, 2);
    assert_int_equal(ids.data[0], mln_tokenizer_find(demo, "a", 1));
    assert_int_equal(ids.data[1], mln_tokenizer_find(demo, "<|im_end|>", 10));
    mln_ids_free(&ids);
}

static void added_tokens_can_be_text(void **state) {
    (void)state;
    small_parts parts = {.added_tokens = "[" SMALL_ADDED(
                             258, "<m>", SMALL_FLAGS(false, true, true, false, true)) "]"};
    mln_tokenizer *t = open_small(&parts);
    expect_ids(t, "ab <m> ab", MLN_ADDED_AS_TOKENS, 3, (int32_t[]){256, 258, 256});
    expect_ids(t, "ab<m>", MLN_ADDED_AS_TEXT, 4, (int32_t[]){256, '<', 'm', '>'});
    mln_tokenizer_free(t);
}

static void ids_in_a_gap_have_no_text(void **state) {
    (void)state;
    small_parts parts = {.added_tokens = "[" SMALL_ADDED(
                             300, "<m>", SMALL_FLAGS(false, false, false, false, true)) "]"};
    mln_tokenizer *t = open_small(&parts);
    const char *bytes;
    size_t length = 9;
    assert_int_equal(mln_tokenizer_size(t), 301);
    assert_true(mln_tokenizer_bytes(t, 299, &bytes, &length));
    assert_int_equal(length, 0);
    assert_true(mln_tokenizer_bytes(t, 300, &bytes, &length));
    assert_int_equal(length, 3);
    assert_false(mln_tokenizer_bytes(t, 301, &bytes, &length));
    assert_false(mln_tokenizer_bytes(t, -1, &bytes, &length));
    assert_false(mln_tokenizer_is_special(t, -1));
    assert_false(mln_tokenizer_is_special(t, 299));
    assert_true(mln_tokenizer_is_special(t, 300));
    expect_ids(t, "a<m>", MLN_ADDED_AS_TOKENS, 2, (int32_t[]){'a', 300});
    mln_buffer text = {0};
    assert_int_equal(
        mln_tokenizer_decode(t, (int32_t[]){299, 257, 258, 300}, 4, false, &text, NULL), 0);
    assert_string_equal(text.data, "abc<m>");
    myelin_error error;
    assert_int_equal(mln_tokenizer_decode(t, (int32_t[]){97, 301}, 2, false, &text, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_string_equal(error.message, "expected token ids from 0 to 300, found 301");
    assert_int_equal(mln_tokenizer_decode(t, (int32_t[]){97, -1}, 2, false, &text, NULL),
                     MYELIN_ERROR_ARGUMENT);
    assert_string_equal(text.data, "abc<m>"); /* a failure appends nothing */
    mln_buffer_free(&text);
    mln_tokenizer_free(t);
}

/* Whatever the ids, the pieces together are the whole, and each piece is well-formed alone. */
static void pieces_put_together_are_the_whole(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 3000; round++) {
        int32_t ids[12];
        bool skip = round % 2;
        mln_buffer whole = {0}, pieces = {0};
        mln_detokenizer d = {0};
        for (size_t i = 0; i < 12; i++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            /* mostly the single bytes, so that characters are torn */
            int32_t range = seed >> 60 < 12 ? 256 : mln_tokenizer_size(demo);
            ids[i] = (int32_t)((seed >> 33) % (uint64_t)range);
            size_t before = pieces.length;
            assert_true(mln_buffer_reserve(&pieces, 0));
            assert_int_equal(mln_detokenizer_push(&d, demo, ids[i], skip, &pieces, NULL), 0);
            size_t made = pieces.length - before;
            assert_int_equal(mln_utf8_valid_prefix(pieces.data + before, made), made);
        }
        assert_int_equal(mln_detokenizer_flush(&d, &pieces, NULL), 0);
        assert_int_equal(mln_tokenizer_decode(demo, ids, 12, skip, &whole, NULL), 0);
        assert_int_equal(pieces.length, whole.length);
        if (whole.length)
            assert_memory_equal(pieces.data, whole.data, whole.length);
        mln_buffer_free(&whole);
        mln_buffer_free(&pieces);
    }
}

/* Bytes of one id each: what is held, and what it becomes. */
static void torn_characters_are_held_back(void **state) {
    (void)state;
    mln_tokenizer *t = open_small(&(small_parts){0});
    static const struct {
        int32_t id;
        const char *now; /* what this id makes certain */
    } steps[] = {{0xF0, ""},
                 {0x9F, ""},
                 {0x98, ""},
                 {0x80, "\xF0\x9F\x98\x80"},
                 {0xE4, ""},
                 {0xB8, ""},
                 {'x', "\xEF\xBF\xBDx"},
                 {0x80, "\xEF\xBF\xBD"},
                 {0xC0, "\xEF\xBF\xBD"},
                 {0xE0, ""},
                 {0x80, "\xEF\xBF\xBD\xEF\xBF\xBD"},
                 {0xC3, ""}};
    mln_detokenizer d = {0};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        mln_buffer piece = {0};
        assert_int_equal(mln_detokenizer_push(&d, t, steps[i].id, false, &piece, NULL), 0);
        assert_string_equal(piece.data ? piece.data : "", steps[i].now);
        mln_buffer_free(&piece);
    }
    mln_buffer rest = {0};
    assert_int_equal(mln_detokenizer_flush(&d, &rest, NULL), 0);
    assert_string_equal(rest.data, "\xEF\xBF\xBD");
    assert_int_equal(mln_detokenizer_flush(&d, &rest, NULL), 0);
    assert_int_equal(rest.length, 3);
    mln_buffer_free(&rest);
    mln_tokenizer_free(t);
}

static void *encode_often(void *unused) {
    (void)unused;
    static const char text[] = "Once upon a time, cafe\xCC\x81 <|im_end|> 123 \xE4\xB8\xAD!";
    mln_ids first = {0};
    bool same = mln_tokenizer_encode(demo, text, sizeof text - 1, MLN_ADDED_AS_TOKENS, &first,
                                     NULL) == MYELIN_OK;
    for (int i = 0; i < 200 && same; i++) {
        mln_ids ids = {0};
        same = mln_tokenizer_encode(demo, text, sizeof text - 1, MLN_ADDED_AS_TOKENS, &ids, NULL) ==
                   MYELIN_OK &&
               ids.count == first.count &&
               memcmp(ids.data, first.data, ids.count * sizeof *ids.data) == 0;
        mln_ids_free(&ids);
    }
    mln_ids_free(&first);
    return same ? demo : NULL;
}

static void threads_share_a_tokenizer(void **state) {
    (void)state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *same;
        pthread_join(threads[i], &same);
        assert_non_null(same);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_demo_tokenizer_is_the_reference),
                                       cmocka_unit_test(small_tokenizers_are_the_reference),
                                       cmocka_unit_test(ill_formed_text_is_refused_at_its_byte),
                                       cmocka_unit_test(encoding_appends),
                                       cmocka_unit_test(added_tokens_can_be_text),
                                       cmocka_unit_test(ids_in_a_gap_have_no_text),
                                       cmocka_unit_test(pieces_put_together_are_the_whole),
                                       cmocka_unit_test(torn_characters_are_held_back),
                                       cmocka_unit_test(threads_share_a_tokenizer)};
    return cmocka_run_group_tests(tests, open_demo, close_demo);
}
