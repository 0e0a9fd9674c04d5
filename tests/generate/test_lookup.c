/* SPDX-License-Identifier: Apache-2.0 */
/* What is drafted from a sequence, and how drafts that fail make them rarer. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "generate/lookup.h"

enum { MANY = 2000 };

static void check_draft(const int32_t *ids, int32_t count, int32_t most, int32_t room,
                        const int32_t *expected, int32_t expected_count) {
    mln_lookup lookup;
    int32_t draft[MLN_LOOKUP_MOST] = {0};
    mln_lookup_begin(&lookup, most);
    assert_int_equal(mln_lookup_draft(&lookup, ids, count, draft, room), expected_count);
    if (expected_count > 0)
        assert_memory_equal(draft, expected, (size_t)expected_count * sizeof *draft);
}

static void test_what_followed(void **state) {
    (void)state;
    const int32_t once[] = {1, 2, 3, 4, 5, 6, 7, 1, 2, 3};
    check_draft(once, 10, 16, 16, (const int32_t[]){4, 5, 6, 7}, 4);
    check_draft(once, 10, 2, 16, (const int32_t[]){4, 5}, 2);
    check_draft(once, 10, 16, 1, (const int32_t[]){4}, 1);
    check_draft(once, 10, 16, 0, NULL, 0);
    check_draft(once, 10, 0, 16, NULL, 0);
    check_draft(once, 9, 16, 16, NULL, 0); /* two tokens are too few */
    const int32_t newest[] = {1, 2, 3, 8, 1, 2, 3, 9, 1, 2, 3};
    check_draft(newest, 11, 1, 16, (const int32_t[]){9}, 1);
    const int32_t longest[] = {7, 1, 2, 3, 8, 1, 2, 3, 9, 7, 1, 2, 3};
    check_draft(longest, 13, 1, 16, (const int32_t[]){8}, 1);
    const int32_t loop[] = {5, 6, 5, 6, 5, 6};
    check_draft(loop, 6, 16, 16, (const int32_t[]){5, 6, 5, 6}, 4);
    const int32_t same[] = {5, 5, 5, 5};
    check_draft(same, 4, 16, 16, (const int32_t[]){5, 5, 5, 5}, 4);
    const int32_t none[] = {1, 2, 3, 4, 5, 6};
    for (int32_t count = 1; count <= 6; count++)
        check_draft(none, count, 16, 16, NULL, 0);
}

/* Drafts whose first tokens are right with this probability; returns how many were made. */
static int32_t run(uint32_t in_1000, int32_t *longest) {
    int32_t ids[] = {1, 2, 3, 4, 5, 1, 2, 3}, draft[MLN_LOOKUP_MOST], made = 0;
    mln_lookup lookup;
    mln_lookup_begin(&lookup, MLN_LOOKUP_MOST);
    *longest = 0;
    uint32_t seed = 1;
    for (int i = 0; i < MANY; i++) {
        int32_t drafted = mln_lookup_draft(&lookup, ids, 8, draft, MLN_LOOKUP_MOST), accepted = 0;
        if (drafted == 0)
            continue;
        assert_in_range(drafted, 1, MLN_LOOKUP_MOST);
        made++;
        *longest = drafted > *longest ? drafted : *longest;
        while (accepted < drafted && ((seed = seed * 1664525u + 1013904223u) >> 8) % 1000 < in_1000)
            accepted++;
        mln_lookup_judge(&lookup, drafted, accepted);
    }
    return made;
}

static void test_failing_drafts_become_rare(void **state) {
    (void)state;
    int32_t longest;
    assert_in_range(run(0, &longest), 1, 16);
    assert_in_range(longest, 1, 4);
    assert_int_equal(run(1000, &longest), MANY);
    assert_int_equal(longest, MLN_LOOKUP_MOST);
    int32_t few = run(50, &longest), many = run(800, &longest);
    assert_in_range(few, 1, MANY / 10);
    assert_true(many > MANY / 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_followed),
        cmocka_unit_test(test_failing_drafts_become_rare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
