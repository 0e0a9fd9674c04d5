/* SPDX-License-Identifier: Apache-2.0 */
/* What is read from /proc and /sys, on systems made of files. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "base/available.h"
#include "support/temp_directory.h"

#define MEMINFO                                                                                    \
    "MemTotal:       24000000 kB\nMemFree:          100000 kB\nMemAvailable:    2000000 kB\n"      \
    "SwapTotal:      9000000 kB\nSwapFree:         500000 kB\n"

static char *root;

static void make_directory(const char *name) {
    char *path = temp_path(root, name);
    assert_int_equal(mkdir(path, 0700), 0);
    free(path);
}

static int make_root(void **state) {
    static const char *const names[] = {"proc",
                                        "proc/self",
                                        "sys",
                                        "sys/fs",
                                        "sys/fs/cgroup",
                                        "sys/fs/cgroup/a",
                                        "sys/fs/cgroup/a/b",
                                        "sys/fs/cgroup/memory"};
    (void)state;
    root = temp_directory_make();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        make_directory(names[i]);
    return 0;
}

static int remove_root(void **state) {
    (void)state;
    temp_directory_remove(root);
    return 0;
}

static void put(const char *name, const char *text) {
    temp_write(root, name, text, strlen(text));
}

static void nothing_said_is_no_limit(void **state) {
    (void)state;
    assert_true(mln_memory_available(root) == UINT64_MAX);
    assert_true(mln_memory_available("/no/such/directory") == UINT64_MAX);
}

static void available_and_swap_count(void **state) {
    (void)state;
    put("proc/meminfo", MEMINFO);
    assert_int_equal(mln_memory_available(root), 2500000ll * 1024);
    put("proc/meminfo", "MemAvailable: 7 kB\n");
    assert_int_equal(mln_memory_available(root), 7 * 1024);
    put("proc/meminfo", "MemAvailable: lots\nSwapFree: 3 kB\n");
    assert_true(mln_memory_available(root) == UINT64_MAX);
    put("proc/meminfo", "MemAvailable: 99999999999999999999999 kB\n");
    assert_true(mln_memory_available(root) == UINT64_MAX);
}

static void the_control_group_limits(void **state) {
    (void)state;
    put("proc/meminfo", MEMINFO);
    put("proc/self/cgroup", "12:cpu:/x\n0::/a/b\n");
    put("sys/fs/cgroup/a/b/memory.max", "max\n");
    assert_int_equal(mln_memory_available(root), 2500000ll * 1024);
    put("sys/fs/cgroup/a/b/memory.max", "1000000\n");
    assert_int_equal(mln_memory_available(root), 1000000);
    put("sys/fs/cgroup/memory.max", "999999\n");
    assert_int_equal(mln_memory_available(root), 999999);
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "55\n");
    assert_int_equal(mln_memory_available(root), 55);
    put("proc/self/cgroup", "0::/a/b\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory.max", "");
    assert_int_equal(mln_memory_available(root), 1000000);
}

static void too_much_is_an_error_with_both_numbers(void **state) {
    (void)state;
    myelin_error error = {0};
    assert_int_equal(mln_memory_check(1, "the weights", &error), MYELIN_OK);
    if (mln_memory_available("") == UINT64_MAX)
        skip();
    uint64_t most = UINT64_MAX - 1;
    assert_int_equal(mln_memory_check(most, "the weights", &error), MYELIN_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "the weights need 18446744073709551614 bytes of memory, "
                                          "and "));
    assert_non_null(strstr(error.message, " are available"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_said_is_no_limit),
        cmocka_unit_test(available_and_swap_count),
        cmocka_unit_test(the_control_group_limits),
        cmocka_unit_test(too_much_is_an_error_with_both_numbers),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
