/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where no huge pages are to be had the model works as elsewhere: with the process denied them, and
 * with a system that knows nothing of them, for which this program has a madvise() of its own.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/support.h"

enum { TOKENS = 24, NO_ANSWER = -1 };

static bool unknown;  /* what the system says to MADV_HUGEPAGE */
static int num_asked; /* how often it was */

int madvise(void *address, size_t length, int advice) {
    if (advice == MADV_HUGEPAGE) {
        num_asked++;
        if (unknown) {
            errno = EINVAL;
            return -1;
        }
    }
    return (int)syscall(SYS_madvise, address, length, advice);
}

/* Kilobytes of this process that are in huge pages; NO_ANSWER where the system does not say. */
static long huge_kilobytes(void) {
    char line[256];
    long found = NO_ANSWER;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file && found == NO_ANSWER && fgets(line, sizeof line, file))
        if (sscanf(line, "AnonHugePages: %ld", &found) != 1)
            found = NO_ANSWER;
    if (file)
        fclose(file);
    return found;
}

/* What the demo model says, and how much of it lay in huge pages meanwhile. */
static long run(myelin_result *result) {
    static const int32_t ids[] = {100, 200, 300, 400};
    myelin_model *model = open_demo(2);
    myelin_generation_options options = options_for(TOKENS, 0);
    run_ids(model, ids, COUNT(ids), &options, result);
    long kilobytes = huge_kilobytes();
    myelin_model_close(model);
    return kilobytes;
}

static myelin_result usual;

static int run_as_usual(void **state) {
    (void)state;
    run(&usual);
    assert_int_equal(usual.num_tokens, TOKENS);
    assert_true(num_asked > 0);
    return 0;
}

static int clear(void **state) {
    (void)state;
    myelin_result_clear(&usual);
    return 0;
}

static void denied_to_the_process(void **state) {
    (void)state;
    myelin_result found;
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
        skip();
    num_asked = 0;
    long before = huge_kilobytes(), kilobytes = run(&found);
    prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    assert_true(num_asked > 0);
    assert_true(kilobytes <= before); /* a sanitizer may have had some */
    assert_same_result(&usual, &found);
    myelin_result_clear(&found);
}

static void unknown_to_the_system(void **state) {
    (void)state;
    myelin_result found;
    num_asked = 0;
    unknown = true;
    run(&found);
    unknown = false;
    assert_true(num_asked > 0);
    assert_same_result(&usual, &found);
    myelin_result_clear(&found);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(denied_to_the_process),
        cmocka_unit_test(unknown_to_the_system),
    };
    return cmocka_run_group_tests(tests, run_as_usual, clear);
}
