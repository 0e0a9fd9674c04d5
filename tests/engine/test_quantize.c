/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a quantised checkpoint: memory that runs out, a user who has enough, wrong options. */
#include <dirent.h>
#include <stdio.h>

#include "base/memory.h"
#include "engine/support.h"
#include "support/temp_directory.h"

static char *source, *folder, destination[512];
static myelin_error error;

static int set_up(void **state) {
    (void)state;
    source = make_tiny_directory();
    folder = temp_directory_make();
    snprintf(destination, sizeof destination, "%s/made", folder);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    temp_directory_remove(source);
    temp_directory_remove(folder);
    return 0;
}

/* Entries of the folder that destinations are made in. */
static int count_entries(void) {
    int count = 0;
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static void failing_memory_leaves_nothing(void **state) {
    (void)state;
    for (uint64_t n = 1;; n++) {
        mln_fail_allocation(n, n % 2);
        myelin_status status = myelin_checkpoint_quantize(source, destination, NULL, NULL);
        mln_fail_allocation(0, false);
        if (status == MYELIN_OK)
            break;
        assert_int_equal(status, MYELIN_ERROR_MEMORY);
        assert_int_equal(count_entries(), 0);
        assert_true(n < 100000);
    }
    assert_int_equal(count_entries(), 1);
    myelin_model *model;
    assert_ok(myelin_model_open(&model, destination, NULL, &error), error);
    myelin_model_close(model);
    assert_int_equal(myelin_checkpoint_quantize(source, destination, NULL, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "expected a new or empty directory"));
    temp_directory_remove(folder);
    folder = temp_directory_make();
    snprintf(destination, sizeof destination, "%s/made", folder);
}

static bool stop_after(void *user, uint64_t done, uint64_t total) {
    (void)done;
    (void)total;
    int *left = user;
    return (*left)-- > 0;
}

static void cancelling_leaves_nothing(void **state) {
    (void)state;
    for (int calls = 0; calls < 10; calls += 3) {
        int left = calls;
        myelin_quantize_options options;
        myelin_quantize_options_init(&options);
        options.progress = stop_after;
        options.user = &left;
        assert_int_equal(myelin_checkpoint_quantize(source, destination, &options, &error),
                         MYELIN_ERROR_CANCELLED);
        assert_int_equal(count_entries(), 0);
    }
}

static void wrong_options_are_named(void **state) {
    (void)state;
    myelin_quantize_options options;
    myelin_quantize_options_init(&options);
    options.bits = 5;
    assert_int_equal(myelin_checkpoint_quantize(source, destination, &options, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "bits: expected 4 or 8, found 5"));
    options.bits = 8;
    options.group_size = 48;
    assert_int_equal(myelin_checkpoint_quantize(source, destination, &options, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "group_size: expected 32, 64 or 128, found 48"));
    options.group_size = 32;
    options.scale_dtype = MYELIN_DTYPE_F32;
    assert_int_equal(myelin_checkpoint_quantize(source, destination, &options, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "scale_dtype: expected auto, bf16 or f16"));
    assert_int_equal(count_entries(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failing_memory_leaves_nothing),
        cmocka_unit_test(cancelling_leaves_nothing),
        cmocka_unit_test(wrong_options_are_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
