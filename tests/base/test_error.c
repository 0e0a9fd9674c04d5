/* SPDX-License-Identifier: Apache-2.0 */
/* base/error.h and base/checked.h. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/utf8.h"

static void message_names_file_and_byte(void **state) {
    (void)state;
    myelin_error e;
    myelin_status status =
        mln_fail(&e, MYELIN_ERROR_FORMAT, "/a/b/config.json", 17, "expected %d, found %d", 1, 2);
    assert_int_equal(status, MYELIN_ERROR_FORMAT);
    assert_int_equal(e.status, MYELIN_ERROR_FORMAT);
    assert_int_equal(e.offset, 17);
    assert_string_equal(e.file, "/a/b/config.json");
    assert_string_equal(e.message, "config.json: expected 1, found 2 (byte 17)");
}

static void message_without_file_or_byte(void **state) {
    (void)state;
    myelin_error e;
    mln_fail(&e, MYELIN_ERROR_ARGUMENT, NULL, -1, "plain");
    assert_string_equal(e.message, "plain");
    assert_string_equal(e.file, "");
    assert_int_equal(e.offset, -1);
    mln_fail(&e, MYELIN_ERROR_IO, "plain-name", 0, "x");
    assert_string_equal(e.message, "plain-name: x (byte 0)");
    mln_fail(&e, MYELIN_ERROR_IO, "directory/", -1, "x");
    assert_string_equal(e.message, "directory/: x");
}

static void a_null_error_is_allowed(void **state) {
    (void)state;
    assert_int_equal(mln_fail(NULL, MYELIN_ERROR_IO, "x", 1, "y"), MYELIN_ERROR_IO);
    assert_int_equal(mln_fail_memory(NULL, 5, "x"), MYELIN_ERROR_MEMORY);
    assert_int_equal(mln_fail_errno(NULL, ENOENT, "open", "x"), MYELIN_ERROR_NOT_FOUND);
}

/* A message that quotes the error it replaces. */
static void message_may_quote_the_old_one(void **state) {
    (void)state;
    myelin_error e;
    mln_fail(&e, MYELIN_ERROR_IO, NULL, -1, "inner");
    mln_fail(&e, MYELIN_ERROR_FORMAT, "f", -1, "outer (%s)", e.message);
    assert_string_equal(e.message, "f: outer (inner)");
}

/* Characters of 1 to 4 bytes, shifted so that the cut falls on each byte of one. */
static void long_text_is_cut_between_characters(void **state) {
    (void)state;
    static const char *const characters[] = {"a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"};
    for (size_t c = 0; c < 4; c++) {
        size_t n = strlen(characters[c]);
        for (size_t shift = 0; shift < 4; shift++) {
            char text[1200] = "";
            memset(text, 'x', shift);
            for (size_t i = shift; i + n < sizeof text; i += n)
                memcpy(text + i, characters[c], n + 1);
            myelin_error e;
            mln_fail(&e, MYELIN_ERROR_FORMAT, text, -1, "%s", "tail");
            size_t file = strlen(e.file), message = strlen(e.message);
            assert_in_range(file, sizeof e.file - n, sizeof e.file - 1);
            assert_in_range(message, sizeof e.message - n, sizeof e.message - 1);
            assert_int_equal(mln_utf8_valid_prefix(e.file, file), file);
            assert_int_equal(mln_utf8_valid_prefix(e.message, message), message);
            assert_memory_equal(e.file, text, file);
        }
    }
}

static void control_characters_and_ill_formed_bytes_are_replaced(void **state) {
    (void)state;
    myelin_error error;
    mln_fail(&error, MYELIN_ERROR_FORMAT, "/d/a\033[2J", -1, "tensor \"%s\"",
             "x\ny\x7f\xc2\x9b"
             "z\xff\xc3\xa9");
    assert_string_equal(error.message, "a?[2J: tensor \"x?y???z?\xc3\xa9\"");
    assert_string_equal(error.file, "/d/a?[2J");
}

static void text_that_just_fits_is_whole(void **state) {
    (void)state;
    char text[MYELIN_ERROR_MESSAGE_SIZE];
    memset(text, 'x', sizeof text);
    memcpy(text + sizeof text - 5, "\xF0\x9F\x98\x80", 5);
    myelin_error e;
    mln_fail(&e, MYELIN_ERROR_FORMAT, NULL, -1, "%s", text);
    assert_string_equal(e.message, text);
}

/* Names from hostile files must neither steer a terminal nor break JSON. */
static void messages_are_printable(void **state) {
    (void)state;
    myelin_error e;
    mln_fail(&e, MYELIN_ERROR_FORMAT, "d/a\nb", 3, "key \"%s\"",
             "\x1B[2J\x7F\xC2\x9B\xFF\xE2\x82x\xC3\xA9");
    assert_string_equal(e.message, "a?b: key \"?[2J??????x\xC3\xA9\" (byte 3)");
}

static void errno_becomes_a_status(void **state) {
    (void)state;
    myelin_error e;
    assert_int_equal(mln_fail_errno(&e, ENOENT, "open", "d/f"), MYELIN_ERROR_NOT_FOUND);
    assert_string_equal(e.message, "f: cannot open: No such file or directory");
    assert_int_equal(mln_fail_errno(&e, ENOTDIR, "open", "f"), MYELIN_ERROR_NOT_FOUND);
    assert_int_equal(mln_fail_errno(&e, ENOMEM, "read", "f"), MYELIN_ERROR_MEMORY);
    assert_int_equal(mln_fail_errno(&e, EACCES, "open", "f"), MYELIN_ERROR_IO);
    assert_string_equal(e.message, "f: cannot open: Permission denied");
}

static void memory_message_says_how_much(void **state) {
    (void)state;
    myelin_error e;
    assert_int_equal(mln_fail_memory(&e, UINT64_MAX, "a thing"), MYELIN_ERROR_MEMORY);
    assert_string_equal(e.message, "could not allocate 18446744073709551615 bytes for a thing");
}

static void statuses_have_text_and_name(void **state) {
    (void)state;
    assert_string_equal(myelin_status_text(MYELIN_OK), "ok");
    assert_string_equal(myelin_status_text(MYELIN_ERROR_CACHE_FULL), "KV cache is full");
    assert_string_equal(myelin_status_name(MYELIN_ERROR_MEMORY), "MYELIN_ERROR_MEMORY");
    assert_string_equal(myelin_status_text((myelin_status)99), "unknown status");
    assert_string_equal(myelin_status_name((myelin_status)99), "MYELIN_ERROR_UNKNOWN");
}

static void checked_arithmetic(void **state) {
    (void)state;
    uint64_t out = 7;
    assert_false(mln_add(UINT64_MAX, 1, &out));
    assert_false(mln_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &out));
    assert_int_equal(out, 7);
    assert_true(mln_add(UINT64_MAX - 1, 1, &out));
    assert_true(out == UINT64_MAX);
    assert_true(mln_mul(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &out));
    assert_true(out == UINT64_C(0xFFFFFFFF00000000));
    assert_true(mln_mul(UINT64_MAX, 0, &out));
    assert_int_equal(out, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_names_file_and_byte),
        cmocka_unit_test(message_without_file_or_byte),
        cmocka_unit_test(a_null_error_is_allowed),
        cmocka_unit_test(message_may_quote_the_old_one),
        cmocka_unit_test(long_text_is_cut_between_characters),
        cmocka_unit_test(control_characters_and_ill_formed_bytes_are_replaced),
        cmocka_unit_test(text_that_just_fits_is_whole),
        cmocka_unit_test(messages_are_printable),
        cmocka_unit_test(errno_becomes_a_status),
        cmocka_unit_test(memory_message_says_how_much),
        cmocka_unit_test(statuses_have_text_and_name),
        cmocka_unit_test(checked_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
