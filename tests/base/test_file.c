/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

static char directory[] = "myelin-test-file-XXXXXX";

/* Tests run one at a time: one path will do. */
static const char *in_directory(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static const char *write_file(const char *name, const void *data, size_t size) {
    const char *path = in_directory(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

static void reads_what_is_there(void **state) {
    (void)state;
    const char *path = write_file("ten", "0123456789", 10);
    mln_file file;
    myelin_error error;
    assert_int_equal(mln_file_open(&file, path, &error), MYELIN_OK);
    assert_int_equal(file.size, 10);
    assert_string_equal(file.path, path);
    char bytes[11] = "";
    assert_int_equal(mln_file_read(&file, 0, bytes, 10, &error), MYELIN_OK);
    assert_string_equal(bytes, "0123456789");
    assert_int_equal(mln_file_read(&file, 7, bytes, 3, &error), MYELIN_OK);
    assert_memory_equal(bytes, "789", 3);
    assert_int_equal(mln_file_read(&file, 10, bytes, 0, &error), MYELIN_OK);
    mln_file_close(&file);
    assert_int_equal(file.fd, -1);
    mln_file_close(&file);
    unlink(path);
}

static void reading_past_the_end_is_an_error(void **state) {
    (void)state;
    const char *path = write_file("short", "0123456789", 10);
    mln_file file;
    myelin_error error;
    char bytes[16];
    assert_int_equal(mln_file_open(&file, path, &error), MYELIN_OK);
    assert_int_equal(mln_file_read(&file, 4, bytes, 8, &error), MYELIN_ERROR_FORMAT);
    assert_string_equal(error.message,
                        "short: expected 2 more bytes, found the end of the file (byte 10)");
    assert_int_equal(error.offset, 10);
    assert_int_equal(mln_file_read(&file, 100, bytes, 1, &error), MYELIN_ERROR_FORMAT);
    assert_int_equal(mln_file_read(&file, UINT64_MAX - 3, bytes, 1, &error), MYELIN_ERROR_IO);
    mln_file_close(&file);
    unlink(path);
}

static void a_file_cut_after_opening_is_an_error(void **state) {
    (void)state;
    char data[9000];
    memset(data, 'x', sizeof data);
    const char *path = write_file("cut", data, sizeof data);
    mln_file file;
    myelin_error error;
    assert_int_equal(mln_file_open(&file, path, &error), MYELIN_OK);
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(mln_file_read(&file, 0, data, file.size, &error), MYELIN_ERROR_FORMAT);
    assert_int_equal(error.offset, 5000);
    assert_non_null(strstr(error.message, "expected 4000 more bytes"));
    mln_file_close(&file);
    unlink(path);
}

static void assert_not_opened(const char *path, myelin_status status, const char *part) {
    mln_file file;
    myelin_error error;
    mln_buffer buffer = {0};
    assert_int_equal(mln_file_open(&file, path, &error), status);
    assert_non_null(strstr(error.message, part));
    assert_string_equal(error.file, path);
    assert_int_equal(file.fd, -1);
    assert_null(file.path);
    mln_file_close(&file);
    assert_int_equal(mln_file_slurp(path, 100, &buffer, &error), status);
    assert_null(buffer.data);
}

static void only_regular_files_are_opened(void **state) {
    (void)state;
    assert_not_opened(in_directory("gone"), MYELIN_ERROR_NOT_FOUND, "gone: cannot open: No such");
    assert_not_opened("", MYELIN_ERROR_NOT_FOUND, "cannot open");
    assert_not_opened(directory, MYELIN_ERROR_FORMAT, "expected a regular file, found a directory");
    assert_not_opened("/dev/zero", MYELIN_ERROR_FORMAT, "found a special file");
    const char *path = in_directory("loop");
    assert_int_equal(symlink("loop", path), 0);
    assert_not_opened(path, MYELIN_ERROR_IO, "loop: cannot open");
    unlink(path);
}

/* Nobody writes to it: opening it must not wait. The alarm ends a test that does. */
static void a_fifo_does_not_hang(void **state) {
    (void)state;
    const char *path = in_directory("fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(20);
    assert_not_opened(path, MYELIN_ERROR_FORMAT, "found a special file");
    alarm(0);
    unlink(path);
}

static void slurp_keeps_to_its_cap(void **state) {
    (void)state;
    const char *path = write_file("ten", "0123456789", 10);
    mln_buffer buffer = {0};
    myelin_error error;
    assert_int_equal(mln_file_slurp(path, 10, &buffer, &error), MYELIN_OK);
    assert_int_equal(buffer.length, 10);
    assert_string_equal(buffer.data, "0123456789");
    mln_buffer_free(&buffer);
    mln_fail_allocation(0, false);
    assert_int_equal(mln_file_slurp(path, 9, &buffer, &error), MYELIN_ERROR_FORMAT);
    assert_string_equal(error.message, "ten: expected at most 9 bytes, found 10");
    assert_int_equal(mln_fail_allocation(0, false), 1); /* the path, not the contents */
    unlink(path);
    path = write_file("empty", "", 0);
    assert_int_equal(mln_file_slurp(path, 0, &buffer, &error), MYELIN_OK);
    assert_int_equal(buffer.length, 0);
    assert_string_equal(buffer.data, "");
    mln_buffer_free(&buffer);
    unlink(path);
}

static void failing_allocations_leak_nothing(void **state) {
    (void)state;
    const char *path = write_file("ten", "0123456789", 10);
    mln_buffer buffer = {0};
    myelin_error error;
    for (uint64_t n = 1; n <= 2; n++) {
        int free_descriptor = open(path, O_RDONLY);
        mln_fail_allocation(n, true);
        assert_int_equal(mln_file_slurp(path, 10, &buffer, &error), MYELIN_ERROR_MEMORY);
        mln_fail_allocation(0, false);
        assert_null(buffer.data);
        int next = open(path, O_RDONLY);
        assert_int_equal(next, free_descriptor + 1);
        close(next);
        close(free_descriptor);
        mln_fail_allocation(n, true);
        char *joined = mln_path_join("a", "b");
        mln_fail_allocation(0, false);
        assert_true((joined == NULL) == (n == 1)); /* it takes one allocation */
        free(joined);
    }
    unlink(path);
}

static void paths(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"a/b", "c", "a/b/c"}, {"a/", "c", "a/c"}, {"/", "c", "/c"}, {".", "", "./"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = mln_path_join(cases[i][0], cases[i][1]);
        assert_string_equal(path, cases[i][2]);
        free(path);
    }
    assert_true(mln_path_exists(directory));
    assert_false(mln_path_exists(in_directory("gone")));
}

static int make_directory(void **state) {
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state) {
    (void)state;
    return rmdir(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_is_there),
        cmocka_unit_test(reading_past_the_end_is_an_error),
        cmocka_unit_test(a_file_cut_after_opening_is_an_error),
        cmocka_unit_test(only_regular_files_are_opened),
        cmocka_unit_test(a_fifo_does_not_hang),
        cmocka_unit_test(slurp_keeps_to_its_cap),
        cmocka_unit_test(failing_allocations_leak_nothing),
        cmocka_unit_test(paths),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
