/* SPDX-License-Identifier: Apache-2.0 */
/* The progress bar, with time given by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "progress.h"

typedef struct screen {
    cli_progress progress;
    char *text;
    size_t size;
} screen;

static void begin(screen *s, int width) {
    FILE *out = open_memstream(&s->text, &s->size);
    assert_non_null(out);
    cli_progress_begin_on(&s->progress, "loading", out, width, 5000);
}

static void end(screen *s) {
    fclose(s->progress.out);
    free(s->text);
}

static void shows_nothing_within_a_second(void **state) {
    (void)state;
    screen s;
    begin(&s, 80);
    cli_progress_update(&s.progress, 5000, 0, 100);
    cli_progress_update(&s.progress, 5999, 99, 100);
    cli_progress_hide(&s.progress);
    fflush(s.progress.out);
    assert_int_equal(s.size, 0);
    end(&s);
}

static void draws_over_one_line_and_erases_it(void **state) {
    (void)state;
    screen s;
    begin(&s, 30);
    cli_progress_update(&s.progress, 6000, 50, 100);
    assert_string_equal(s.text, "\rloading [#######........]  50%");
    cli_progress_update(&s.progress, 6050, 60, 100); /* too soon after the last */
    assert_int_equal(s.size, 31);
    cli_progress_update(&s.progress, 6100, 100, 100);
    assert_string_equal(s.text + 31, "\rloading [###############] 100%");
    cli_progress_hide(&s.progress);
    cli_progress_hide(&s.progress);
    assert_string_equal(s.text + 62, "\r\033[K");
    end(&s);
}

static void never_reaches_the_last_column(void **state) {
    (void)state;
    for (int width = 0; width < 200; width++) {
        screen s;
        begin(&s, width);
        cli_progress_update(&s.progress, 9000, 1, 3);
        fflush(s.progress.out);
        assert_true(s.size == 0 || s.size <= (size_t)width + 1); /* the \r takes no column */
        end(&s);
    }
}

static void bears_odd_numbers(void **state) {
    (void)state;
    screen s;
    begin(&s, 30);
    cli_progress_update(&s.progress, 9000, 5, 0);
    fflush(s.progress.out);
    assert_int_equal(s.size, 0);
    cli_progress_update(&s.progress, 9000, 8, 4);
    assert_string_equal(s.text, "\rloading [###############] 100%");
    s.progress.drawn = 0;
    cli_progress_update(&s.progress, 9000, UINT64_MAX, UINT64_MAX);
    assert_non_null(strstr(s.text, "100%"));
    end(&s);
}

static void shows_nothing_without_a_terminal(void **state) {
    (void)state;
    cli_progress progress;
    cli_progress_begin_on(&progress, "loading", NULL, 80, 0);
    cli_progress_update(&progress, 9000, 1, 2);
    assert_int_equal(progress.drawn, 0);
    cli_progress_hide(&progress);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_nothing_within_a_second),
        cmocka_unit_test(draws_over_one_line_and_erases_it),
        cmocka_unit_test(never_reaches_the_last_column),
        cmocka_unit_test(bears_odd_numbers),
        cmocka_unit_test(shows_nothing_without_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
