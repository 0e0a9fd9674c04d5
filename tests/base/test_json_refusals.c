/* SPDX-License-Identifier: Apache-2.0 */
/* What mln_json_stream() refuses, and mln_json_load() with it. */
#include "json_log.h"

#include <stdlib.h>
#include <string.h>

typedef struct refusal {
    const char *text;
    size_t length;
    const char *message; /* part of it, as the stream words it */
} refusal;

#define REFUSED(text, message)                                                                     \
    { text, sizeof(text) - 1, message }

static const refusal refusals[] = {
    /* not a document, or more than one */
    REFUSED("", "invalid JSON"),
    REFUSED(" \n", "invalid JSON"),
    REFUSED("1 2", "invalid JSON"),
    REFUSED("{} {}", "invalid JSON"),
    REFUSED("[1] x", "invalid JSON"),
    REFUSED("{}\0", "invalid JSON"),
    REFUSED("[1\0]", "invalid JSON"),
    REFUSED("\xEF\xBB\xBF{}", "invalid JSON"),
    REFUSED("[", "invalid JSON"),
    REFUSED("{\"a\"", "invalid JSON"),
    REFUSED("{\"a\":", "invalid JSON"),
    REFUSED("{\"a\": 1", "invalid JSON"),
    REFUSED("\"abc", "invalid JSON"),
    REFUSED("tru", "invalid JSON"),
    REFUSED("]", "invalid JSON"),
    REFUSED("[}", "invalid JSON"),
    REFUSED("{]", "invalid JSON"),
    /* what other dialects allow */
    REFUSED("[1,]", "invalid JSON"),
    REFUSED("[,1]", "invalid JSON"),
    REFUSED("{\"a\": 1,}", "invalid JSON"),
    REFUSED("{\"a\" 1}", "invalid JSON"),
    REFUSED("{a: 1}", "invalid JSON"),
    REFUSED("{1: 1}", "invalid JSON"),
    REFUSED("'a'", "invalid JSON"),
    REFUSED("// c\n1", "invalid JSON"),
    REFUSED("/* c */1", "invalid JSON"),
    REFUSED("NaN", "invalid JSON"),
    REFUSED("-Infinity", "invalid JSON"),
    REFUSED("True", "invalid JSON"),
    /* numbers */
    REFUSED("01", "invalid JSON"),
    REFUSED("[-01]", "invalid JSON"),
    REFUSED("+1", "invalid JSON"),
    REFUSED("-", "invalid JSON"),
    REFUSED(".5", "invalid JSON"),
    REFUSED("1.", "invalid JSON"),
    REFUSED("1e", "invalid JSON"),
    REFUSED("1e+", "invalid JSON"),
    REFUSED("0x10", "invalid JSON"),
    /* strings */
    REFUSED("\"\t\"", "invalid JSON"),
    REFUSED("\"\n\"", "invalid JSON"),
    REFUSED("\"\0\"", "invalid JSON"),
    REFUSED("\"\\x\"", "invalid JSON"),
    REFUSED("\"\\u12\"", "invalid JSON"),
    REFUSED("\"\\u12g4\"", "invalid JSON"),
    REFUSED("\"\\", "invalid JSON"),
    REFUSED("\"\xFF\"", "f: expected UTF-8, found byte 0xff (byte 1)"),
    REFUSED("\"ab\xC3\"", "f: expected UTF-8, found byte 0xc3 (byte 3)"),
    REFUSED("\"\xC0\xAF\"", "expected UTF-8"),
    REFUSED("\"\xED\xA0\x80\"", "expected UTF-8"),
    REFUSED("\"\xF4\x90\x80\x80\"", "expected UTF-8"),
    REFUSED("\"\\ud800\"", "f: unpaired surrogate in a \\u escape (byte 1)"),
    REFUSED("\"x\\uDFFF\"", "f: unpaired surrogate in a \\u escape (byte 2)"),
    REFUSED("\"\\ud800\\ud800\"", "unpaired surrogate"),
    REFUSED("\"\\ud800\\u0041\"", "unpaired surrogate"),
    REFUSED("\"\\ud800\\ue000\"", "unpaired surrogate"),
    REFUSED("\"\\ud83d\\ude00\\ude00\"", "unpaired surrogate"),
    REFUSED("\"\\ud800 \\udc00\"", "unpaired surrogate"),
    REFUSED("\"\\\\\\ud800\"", "unpaired surrogate"),
    REFUSED("{\"\\udc00\": 1}", "unpaired surrogate"),
    /* keys */
    REFUSED("{\"a\": 1, \"a\": 2}", "f: duplicate key \"a\" (byte"),
    REFUSED("{\"\": 1, \"\": 2}", "f: duplicate key \"\""),
    REFUSED("{\"a\": 1, \"\\u0061\": 2}", "f: duplicate key \"a\""),
    REFUSED("[{\"x\": {\"b\": 1, \"c\": {\"b\": 0}, \"b\": 2}}]", "f: duplicate key \"b\""),
};

static void the_stream_refuses(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const refusal *r = &refusals[i];
        mln_buffer log = {0};
        myelin_error error = {0};
        myelin_status status = mln_json_stream(r->text, r->length, "f", json_log, &log, &error);
        if (status != MYELIN_ERROR_FORMAT || !strstr(error.message, r->message))
            fail_msg("%s: status %d, %s", r->text, (int)status, error.message);
        assert_in_range(error.offset, 0, r->length);
        mln_buffer_free(&log);
    }
}

static void the_loader_refuses_the_same(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const refusal *r = &refusals[i];
        json_t *document = NULL;
        myelin_error error = {0};
        myelin_status status = mln_json_load(&document, r->text, r->length, "f", &error);
        if (status != MYELIN_ERROR_FORMAT || strncmp(error.message, "f: invalid JSON: ", 17) != 0)
            fail_msg("%s: status %d, %s", r->text, (int)status, error.message);
        assert_null(document);
    }
}

/* `depth` containers of one kind, the innermost empty. */
static mln_buffer nest(const char *opening, const char *closing, int depth) {
    mln_buffer text = {0};
    for (int i = 0; i < depth; i++)
        assert_true(mln_buffer_append(&text, opening, i + 1 < depth ? strlen(opening) : 1));
    for (int i = 0; i < depth; i++)
        assert_true(mln_buffer_append(&text, closing, 1));
    return text;
}

static void depth_has_a_limit(void **state) {
    (void)state;
    static const char *const kinds[][2] = {{"[", "]"}, {"{\"a\":", "}"}};
    for (int kind = 0; kind < 2; kind++)
        for (int depth = MLN_JSON_MAX_DEPTH - 1; depth <= MLN_JSON_MAX_DEPTH + 2; depth++) {
            mln_buffer text = nest(kinds[kind][0], kinds[kind][1], depth), log = {0};
            myelin_error error;
            bool fits = depth <= MLN_JSON_MAX_DEPTH;
            assert_int_equal(mln_json_stream(text.data, text.length, "f", json_log, &log, &error),
                             fits ? MYELIN_OK : MYELIN_ERROR_FORMAT);
            if (!fits)
                assert_non_null(
                    strstr(error.message, "f: expected at most 64 levels of nesting, found more"));
            mln_buffer_free(&text);
            mln_buffer_free(&log);
        }
}

/* A bomb of open brackets is refused where the limit is, not after reading it all. */
static void a_million_brackets(void **state) {
    (void)state;
    mln_buffer text = nest("[", "]", 1000000), log = {0};
    myelin_error error;
    assert_int_equal(mln_json_stream(text.data, text.length, "f", json_log, &log, &error),
                     MYELIN_ERROR_FORMAT);
    assert_in_range(error.offset, 60, 70);
    mln_buffer_free(&log);
    json_t *document;
    assert_int_equal(mln_json_load(&document, text.data, text.length, "f", &error),
                     MYELIN_ERROR_FORMAT);
    mln_buffer_free(&text);
}

/* Every beginning of a document is an error, never a crash or a read past its end. */
static void documents_cut_off_anywhere(void **state) {
    (void)state;
    static const char whole[] =
        "{\"a\\u20AC\": [1.5e3, \"\xE2\x82\xAC\\ud83d\\ude00\", null, true],"
        " \"b\": {\"c\": -12}}";
    for (size_t length = 0; length < sizeof whole - 1; length++) {
        char *exact = mln_alloc(length, 1); /* the address sanitizer knows where it ends */
        memcpy(exact, whole, length);
        mln_buffer log = {0};
        assert_int_equal(mln_json_stream(exact, length, "f", json_log, &log, NULL),
                         MYELIN_ERROR_FORMAT);
        mln_buffer_free(&log);
        free(exact);
    }
}

int json_refusals(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_stream_refuses),         cmocka_unit_test(the_loader_refuses_the_same),
        cmocka_unit_test(depth_has_a_limit),          cmocka_unit_test(a_million_brackets),
        cmocka_unit_test(documents_cut_off_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
