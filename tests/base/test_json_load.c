/* SPDX-License-Identifier: Apache-2.0 */
/* mln_json_load(), mln_json_load_file() and the small helpers of base/json.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"

static void loads_documents(void **state) {
    (void)state;
    static const char text[] = " {\"a\": [1, 2.5, \"\\u20AC\"], \"b\": null}\n";
    json_t *document = NULL;
    myelin_error error;
    assert_int_equal(mln_json_load(&document, text, strlen(text), "f", &error), MYELIN_OK);
    json_t *a = json_object_get(document, "a");
    assert_int_equal(json_integer_value(json_array_get(a, 0)), 1);
    assert_true(json_real_value(json_array_get(a, 1)) == 2.5);
    assert_string_equal(json_string_value(json_array_get(a, 2)), "\xE2\x82\xAC");
    json_decref(document);
    /* A document need not be a container. */
    assert_int_equal(mln_json_load(&document, "7", 1, NULL, &error), MYELIN_OK);
    assert_int_equal(json_integer_value(document), 7);
    json_decref(document);
}

static void numbers_that_do_not_fit(void **state) {
    (void)state;
    static const char *const texts[] = {"1e999", "-1e999", "9223372036854775808",
                                        "[-9223372036854775809]"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *document;
        myelin_error error;
        assert_int_equal(mln_json_load(&document, texts[i], strlen(texts[i]), "f", &error),
                         MYELIN_ERROR_FORMAT);
        assert_null(document);
    }
}

static void errors_name_file_and_byte(void **state) {
    (void)state;
    json_t *document;
    myelin_error error;
    assert_int_equal(mln_json_load(&document, "{\"a\": 1,}", 9, "d/config.json", &error),
                     MYELIN_ERROR_FORMAT);
    assert_memory_equal(error.message, "config.json: invalid JSON: ", 27);
    assert_non_null(strstr(error.message, "(byte 9)"));
    assert_string_equal(error.file, "d/config.json");
}

static void files(void **state) {
    (void)state;
    char path[] = "myelin-test-json-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    json_t *document;
    myelin_error error;
    assert_int_equal(write(fd, "[1]", 3), 3);
    assert_int_equal(mln_json_load_file(&document, path, &error), MYELIN_OK);
    assert_int_equal(json_array_size(document), 1);
    json_decref(document);
    /* One byte over the cap, all blanks: refused before it is read. */
    assert_int_equal(ftruncate(fd, (off_t)MLN_JSON_SMALL_FILE + 1), 0);
    assert_int_equal(mln_json_load_file(&document, path, &error), MYELIN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "expected at most 16777216 bytes, found 16777217"));
    assert_null(document);
    close(fd);
    unlink(path);
    assert_int_equal(mln_json_load_file(&document, path, &error), MYELIN_ERROR_NOT_FOUND);
    assert_null(document);
}

static void integers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {
        {"0", 0},
        {"-0", 0},
        {"7", 7},
        {"-1", -1},
        {"9223372036854775807", INT64_MAX},
        {"-9223372036854775808", INT64_MIN},
    };
    static const char *const bad[] = {"",
                                      "-",
                                      "--1",
                                      "+1",
                                      "1.0",
                                      "1e3",
                                      "1E3",
                                      " 1",
                                      "1 ",
                                      "0x1",
                                      "a",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "99999999999999999999999"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t value = 99;
        mln_json_text text = {good[i].text, strlen(good[i].text)};
        assert_true(mln_json_integer(text, &value));
        assert_true(value == good[i].value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t value = 99;
        mln_json_text text = {bad[i], strlen(bad[i])};
        if (mln_json_integer(text, &value))
            fail_msg("\"%s\" became %lld", bad[i], (long long)value);
        assert_int_equal(value, 99);
    }
}

static void names_of_types(void **state) {
    (void)state;
    assert_string_equal(mln_json_kind_name(MLN_JSON_NULL), "null");
    assert_string_equal(mln_json_kind_name(MLN_JSON_NUMBER), "a number");
    assert_string_equal(mln_json_kind_name(MLN_JSON_END_OBJECT), "an object");
    assert_string_equal(mln_json_kind_name(MLN_JSON_END_ARRAY), "an array");
    static const char *const values[][2] = {{"{}", "an object"},
                                            {"[]", "an array"},
                                            {"\"\"", "a string"},
                                            {"1", "an integer"},
                                            {"1.0", "a number with a fraction or exponent"},
                                            {"true", "true"},
                                            {"false", "false"},
                                            {"null", "null"}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        json_t *value;
        assert_int_equal(mln_json_load(&value, values[i][0], strlen(values[i][0]), NULL, NULL),
                         MYELIN_OK);
        assert_string_equal(mln_json_type_name(value), values[i][1]);
        json_decref(value);
    }
    assert_string_equal(mln_json_type_name(NULL), "nothing");
}

static void comparing_text(void **state) {
    (void)state;
    assert_true(mln_json_text_is((mln_json_text){"abcd", 3}, "abc"));
    assert_false(mln_json_text_is((mln_json_text){"abcd", 4}, "abc"));
    assert_false(mln_json_text_is((mln_json_text){"ab\0c", 4}, "ab"));
    assert_true(mln_json_text_is((mln_json_text){"", 0}, ""));
    assert_false(mln_json_text_is((mln_json_text){NULL, 0}, "")); /* an array has no key */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_documents),
        cmocka_unit_test(numbers_that_do_not_fit),
        cmocka_unit_test(errors_name_file_and_byte),
        cmocka_unit_test(files),
        cmocka_unit_test(integers),
        cmocka_unit_test(names_of_types),
        cmocka_unit_test(comparing_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
