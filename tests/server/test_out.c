/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as it goes out: any bytes become a string that reads back, any float the same float. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* cmocka needs the headers above */
#include <cmocka.h>
#include <jansson.h>

#include "app/server/out.h"

static uint32_t next_random(uint32_t *state, uint32_t below) {
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

static void test_strings(void **state) {
    static const struct {
        const char *text, *json;
    } cases[] = {{"", "\"\""},
                 {"a\"b\\c/", "\"a\\\"b\\\\c/\""},
                 {"\b\f\n\r\t\x01\x1f\x7f", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\""},
                 {"\xc3\xa9\xf0\x9f\x8e\x89", "\"\xc3\xa9\xf0\x9f\x8e\x89\""},
                 {"\xc2\x85\xe2\x80\xa8\xe2\x80\xa9", "\"\\u0085\\u2028\\u2029\""},
                 {"x\xffy", "\"x\xef\xbf\xbdy\""},
                 {"\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
                 {"\xc0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\""},
                 {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
                 {"\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        out o = {0};
        out_string_or_null(&o, cases[i].text);
        assert_string_equal(o.data, cases[i].json);
        out_free(&o);
    }
    out o = {0};
    out_string_or_null(&o, NULL);
    out_string(&o, "a\0b", 3);
    assert_string_equal(o.data, "null\"a\\u0000b\"");
    out_free(&o);
}

static void test_any_bytes(void **state) {
    uint32_t random = 7;
    (void)state;
    for (int i = 0; i < 20000; i++) {
        char text[24];
        size_t length = next_random(&random, sizeof text);
        for (size_t j = 0; j < length; j++)
            text[j] = (char)(next_random(&random, 2) ? next_random(&random, 256) : 0xE2);
        out o = {0};
        out_string(&o, text, length);
        json_t *value = json_loadb(o.data, o.length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_true(json_is_string(value));
        json_t *same = json_stringn(text, length); /* NULL when it is no UTF-8 */
        if (same != NULL)
            assert_true(json_equal(value, same));
        json_decref(same);
        json_decref(value);
        out_free(&o);
    }
}

static void test_numbers(void **state) {
    uint32_t random = 3;
    (void)state;
    for (int i = 0; i < 20000; i++) {
        uint32_t bits = next_random(&random, 1 << 16) << 16 | next_random(&random, 1 << 16);
        float value;
        memcpy(&value, &bits, sizeof value);
        out o = {0};
        out_real(&o, (double)value, "null");
        if (isfinite(value))
            assert_true(strtof(o.data, NULL) == value);
        else
            assert_string_equal(o.data, "null");
        out_free(&o);
    }
}

static void test_base64(void **state) {
    static const char *const cases[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        out o = {0};
        out_base64(&o, cases[i][0], strlen(cases[i][0]));
        assert_string_equal(o.data != NULL ? o.data : "", cases[i][1]);
        out_free(&o);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
