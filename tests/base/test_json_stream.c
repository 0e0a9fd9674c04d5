/* SPDX-License-Identifier: Apache-2.0 */
/* mln_json_stream(): what it reports. What it refuses: test_json_refusals.c. */
#include "json_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

myelin_status json_log(void *context, const mln_json_event *event, myelin_error *error) {
    static const char *const kinds[] = {"null", "false", "true", "number", "string",
                                        "{",    "}",     "[",    "]"};
    mln_buffer *log = context;
    bool ok = true;
    for (int i = 0; i < event->depth; i++) {
        char index[32];
        int n = snprintf(index, sizeof index, "#%d", (int)event->index[i]);
        mln_json_text key = event->path[i];
        ok = ok && mln_buffer_append(log, "/", 1) &&
             (key.data ? mln_buffer_append(log, key.data, key.length)
                       : mln_buffer_append(log, index, (size_t)n));
    }
    const char *kind = kinds[event->kind];
    ok = ok && mln_buffer_append(log, " ", 1) && mln_buffer_append(log, kind, strlen(kind)) &&
         mln_buffer_append(log, " ", event->text.data ? 1 : 0) &&
         mln_buffer_append(log, event->text.data, event->text.length) &&
         mln_buffer_append(log, "\n", 1);
    return ok ? MYELIN_OK : mln_fail_memory(error, 0, "the log");
}

static void assert_events(const char *text, const char *expected) {
    mln_buffer log = {0};
    myelin_error error = {0};
    myelin_status status = mln_json_stream(text, strlen(text), "f", json_log, &log, &error);
    if (status != MYELIN_OK)
        fail_msg("%s: %s", text, error.message);
    assert_string_equal(log.data, expected);
    mln_buffer_free(&log);
}

static void events_say_where_they_are(void **state) {
    (void)state;
    assert_events("{\"a\": [1, {\"b\": null, \"c\": []}, [2, \"x\"]], \"\": {}, \"d\": true}",
                  " {\n"
                  "/a [\n"
                  "/a/#0 number 1\n"
                  "/a/#1 {\n"
                  "/a/#1/b null\n"
                  "/a/#1/c [\n"
                  "/a/#1/c ]\n"
                  "/a/#1 }\n"
                  "/a/#2 [\n"
                  "/a/#2/#0 number 2\n"
                  "/a/#2/#1 string x\n"
                  "/a/#2 ]\n"
                  "/a ]\n"
                  "/ {\n"
                  "/ }\n"
                  "/d true\n"
                  " }\n");
    assert_events("[[false], 0]", " [\n/#0 [\n/#0/#0 false\n/#0 ]\n/#1 number 0\n ]\n");
}

static void scalars_are_documents(void **state) {
    (void)state;
    assert_events("null", " null\n");
    assert_events(" true\n", " true\n");
    assert_events("\"\"", " string \n");
    assert_events("7", " number 7\n");
}

static void numbers_are_verbatim(void **state) {
    (void)state;
    assert_events("[0, -0, 1e999, 1E+2, -0.50, 12345678901234567890123456789, 1.5e-7]",
                  " [\n/#0 number 0\n/#1 number -0\n/#2 number 1e999\n/#3 number 1E+2\n"
                  "/#4 number -0.50\n/#5 number 12345678901234567890123456789\n"
                  "/#6 number 1.5e-7\n ]\n");
}

static void strings_are_unescaped(void **state) {
    (void)state;
    assert_events("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\uDE00\x7F\xC3\xA9\"",
                  " string \"\\/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\x7F\xC3\xA9\n");
    /* A backslash before what looks like a surrogate escape. */
    assert_events("\"\\\\ud800\"", " string \\ud800\n");
    mln_buffer log = {0};
    static const char text[] = "{\"a\\u0000b\": \"\\u0000\"}";
    assert_int_equal(mln_json_stream(text, sizeof text - 1, NULL, json_log, &log, NULL), MYELIN_OK);
    assert_int_equal(log.length, 20);
    assert_memory_equal(log.data, " {\n/a\0b string \0\n }\n", 20);
    mln_buffer_free(&log);
}

static void the_same_key_may_return_elsewhere(void **state) {
    (void)state;
    assert_events("[{\"a\": 1}, {\"a\": {\"a\": 2}}]",
                  " [\n/#0 {\n/#0/a number 1\n/#0 }\n/#1 {\n/#1/a {\n/#1/a/a number 2\n/#1/a }\n"
                  "/#1 }\n ]\n");
}

static myelin_status note_offset(void *context, const mln_json_event *event, myelin_error *error) {
    (void)error;
    int64_t *offsets = context;
    if (event->kind == MLN_JSON_NUMBER)
        offsets[event->index[event->depth - 1]] = event->offset;
    return MYELIN_OK;
}

static void offsets_are_near_the_value(void **state) {
    (void)state;
    static const char text[] = "[11,          22,          33]";
    int64_t offsets[3] = {-1, -1, -1};
    assert_int_equal(mln_json_stream(text, strlen(text), "f", note_offset, offsets, NULL),
                     MYELIN_OK);
    for (int i = 0; i < 3; i++) {
        int64_t at = strchr(text, '1' + i) - text;
        assert_in_range(offsets[i], at, at + 3);
    }
}

static myelin_status stop_at_two(void *context, const mln_json_event *event, myelin_error *error) {
    ++*(int *)context;
    return mln_json_text_is(event->text, "2")
               ? mln_fail(error, MYELIN_ERROR_CANCELLED, NULL, -1, "2")
               : MYELIN_OK;
}

static void a_handler_can_end_the_walk(void **state) {
    (void)state;
    int events = 0;
    myelin_error error;
    assert_int_equal(mln_json_stream("[1, 2, 3, !", 11, "f", stop_at_two, &events, &error),
                     MYELIN_ERROR_CANCELLED);
    assert_string_equal(error.message, "2");
    assert_int_equal(events, 3);
}

static myelin_status count_numbers(void *context, const mln_json_event *event,
                                   myelin_error *error) {
    (void)error;
    *(uint64_t *)context += event->kind == MLN_JSON_NUMBER;
    return MYELIN_OK;
}

/* An object of `count` distinct keys and, when `repeat` >= 0, that one once more. */
static mln_buffer make_object(int count, int repeat) {
    mln_buffer text = {0};
    char entry[64];
    for (int i = 0; i <= count; i++) {
        int key = i < count ? i : repeat;
        if (key < 0)
            break;
        int n = snprintf(entry, sizeof entry, "%s\"key %d\": %d", i ? ", " : "{", key, i);
        assert_true(mln_buffer_append(&text, entry, (size_t)n));
    }
    assert_true(mln_buffer_append(&text, "}", 1));
    return text;
}

/* Small objects are searched, larger ones hashed: each size around the border, each repeat. */
static void duplicate_keys_in_objects_of_every_size(void **state) {
    (void)state;
    for (int count = 1; count <= 70; count++)
        for (int repeat = -1; repeat < count; repeat++) {
            mln_buffer text = make_object(count, repeat);
            uint64_t numbers = 0;
            myelin_error error;
            myelin_status status =
                mln_json_stream(text.data, text.length, "f", count_numbers, &numbers, &error);
            assert_int_equal(status, repeat < 0 ? MYELIN_OK : MYELIN_ERROR_FORMAT);
            assert_int_equal(numbers, count);
            if (repeat >= 0) {
                char expected[64];
                snprintf(expected, sizeof expected, "f: duplicate key \"key %d\" (byte", repeat);
                assert_memory_equal(error.message, expected, strlen(expected));
            }
            mln_buffer_free(&text);
        }
}

/* The memory of an object serves the next one: what was a key in the one is none in the other. */
static void objects_side_by_side_share_no_keys(void **state) {
    (void)state;
    static const int sizes[] = {1, 16, 17, 40, 200};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    for (int i = 0; i < SIZES * SIZES; i++) {
        mln_buffer a = make_object(sizes[i / SIZES], -1), b = make_object(sizes[i % SIZES], -1);
        mln_buffer text = {0};
        assert_true(mln_buffer_append(&text, "[", 1) &&
                    mln_buffer_append(&text, a.data, a.length) &&
                    mln_buffer_append(&text, ",", 1) &&
                    mln_buffer_append(&text, b.data, b.length) && mln_buffer_append(&text, "]", 1));
        uint64_t numbers = 0;
        assert_int_equal(
            mln_json_stream(text.data, text.length, "f", count_numbers, &numbers, NULL), MYELIN_OK);
        assert_int_equal(numbers, sizes[i / SIZES] + sizes[i % SIZES]);
        mln_buffer_free(&a);
        mln_buffer_free(&b);
        mln_buffer_free(&text);
    }
}

static void a_million_keys_take_no_time(void **state) {
    (void)state;
    enum { KEYS = 1000000 };
    mln_buffer text = make_object(KEYS, -1);
    uint64_t numbers = 0;
    int64_t start = mln_clock_ns();
    assert_int_equal(mln_json_stream(text.data, text.length, "f", count_numbers, &numbers, NULL),
                     MYELIN_OK);
    double ms = mln_ms_between(start, mln_clock_ns());
    assert_int_equal(numbers, KEYS);
    mln_buffer_free(&text);
    text = make_object(KEYS, 0);
    assert_int_equal(mln_json_stream(text.data, text.length, "f", count_numbers, &numbers, NULL),
                     MYELIN_ERROR_FORMAT);
    mln_buffer_free(&text);
    print_message("a million keys: %.0f ms\n", ms);
    assert_true(ms < 60000); /* comparing each with each would take an hour */
}

/* Deep, wide (a hashed object) and with strings that yajl has to unescape. */
static mln_buffer make_document(void) {
    mln_buffer text = {0}, wide = make_object(40, -1);
    bool ok = mln_buffer_append(&text, "[", 1);
    for (int i = 0; i < 20; i++)
        ok = ok && mln_buffer_append(&text, "{\"k\\n\": [\"\\u20AC\", ", 19);
    ok = ok && mln_buffer_append(&text, wide.data, wide.length);
    for (int i = 0; i < 20; i++)
        ok = ok && mln_buffer_append(&text, "]}", 2);
    ok = ok && mln_buffer_append(&text, "]", 1);
    assert_true(ok);
    mln_buffer_free(&wide);
    return text;
}

static void every_failing_allocation_is_an_error(void **state) {
    (void)state;
    mln_buffer text = make_document();
    uint64_t numbers = 0;
    mln_fail_allocation(0, false);
    assert_int_equal(mln_json_stream(text.data, text.length, "f", count_numbers, &numbers, NULL),
                     MYELIN_OK);
    uint64_t allocations = mln_fail_allocation(0, false);
    assert_true(allocations > 40);
    for (uint64_t n = 1; n <= allocations; n++) {
        myelin_error error;
        mln_fail_allocation(n, n % 2);
        assert_int_equal(
            mln_json_stream(text.data, text.length, "f", count_numbers, &numbers, &error),
            MYELIN_ERROR_MEMORY);
        mln_fail_allocation(0, false);
        assert_int_equal(error.status, MYELIN_ERROR_MEMORY);
    }
    mln_buffer_free(&text);
}

/* The message comes from yajl, which allocates it. */
static void no_memory_for_the_message(void **state) {
    (void)state;
    uint64_t numbers = 0;
    myelin_error error;
    mln_fail_allocation(0, false);
    assert_int_equal(mln_json_stream("[1 2]", 5, "f", count_numbers, &numbers, &error),
                     MYELIN_ERROR_FORMAT);
    uint64_t allocations = mln_fail_allocation(0, false);
    mln_fail_allocation(allocations, false);
    assert_int_equal(mln_json_stream("[1 2]", 5, "f", count_numbers, &numbers, &error),
                     MYELIN_ERROR_MEMORY);
    mln_fail_allocation(0, false);
    assert_string_equal(error.message, "could not allocate 5 bytes for a JSON parser");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_say_where_they_are),
        cmocka_unit_test(scalars_are_documents),
        cmocka_unit_test(numbers_are_verbatim),
        cmocka_unit_test(strings_are_unescaped),
        cmocka_unit_test(the_same_key_may_return_elsewhere),
        cmocka_unit_test(offsets_are_near_the_value),
        cmocka_unit_test(a_handler_can_end_the_walk),
        cmocka_unit_test(duplicate_keys_in_objects_of_every_size),
        cmocka_unit_test(objects_side_by_side_share_no_keys),
        cmocka_unit_test(a_million_keys_take_no_time),
        cmocka_unit_test(every_failing_allocation_is_an_error),
        cmocka_unit_test(no_memory_for_the_message),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + json_refusals();
}
