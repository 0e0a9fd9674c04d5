/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile templates end with an error, soon; every allocation may fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "text/cpu_clock.h"
#include "text/template.h"

enum { MANY = 100000 /* allocations no walk reaches */ };

/* Sanitizers slow single bytes down more than anything. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MOST_SECONDS = 200 };
#else
enum { MOST_SECONDS = 10 };
#endif

static myelin_status run(const char *source, size_t length, const json_t *variables,
                         mln_buffer *out, myelin_error *error) {
    mln_template *template;
    myelin_status status = mln_template_parse(&template, source, length, "t", error);
    if (status == MYELIN_OK)
        status = mln_template_render(template, variables, 0, out, error);
    mln_template_free(template);
    return status;
}

static void hostile_templates_fail(void **state) {
    (void)state;
    static const char *const sources[] = {
        "{{ 'a' * 10 ** 9 }}",
        "{{ 'a' * 9223372036854775807 }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ [] * -1 }}{{ [[1] * 1000] * 10000000 }}",
        "{{ range(10 ** 12) }}",
        "{{ range(-9223372036854775807, 9223372036854775807) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}"
        "{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = [ns.x, ns.x] %}"
        "{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(5000) %}{% set ns.x = [ns.x] %}"
        "{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns }}",
        "{% set s = 'a' * 1000000 %}{% for a in range(99999) %}{% set x = s.replace('a', 'bb') %}"
        "{% endfor %}",
        "{{ ('a,' * 1000000).split(',') | sort | unique | list | length }}{{ 1 // 0 }}",
        "{{ 9223372036854775807 + 1 }}",
        "{{ 9 ** 99 }}",
        "{{ '' | indent(10 ** 9, true) }}",
        "{{ [1] | tojson(indent=10 ** 9) }}",
        "{{ 99999999999999999999 }}",
        "{{ -9223372036854775807 // 0 }}"};
    json_t *variables = json_object();
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        mln_buffer out = {0};
        myelin_error error = {0};
        int64_t start = cpu_ms();
        myelin_status status = run(sources[i], strlen(sources[i]), variables, &out, &error);
        double seconds = (double)(cpu_ms() - start) / 1000;
        if (status == MYELIN_OK || status == MYELIN_ERROR_MEMORY || seconds > MOST_SECONDS)
            fail_msg("%s: status %d, %.1f s: %s", sources[i], status, seconds, error.message);
        assert_int_equal(out.length, 0);
        mln_buffer_free(&out);
    }
    json_decref(variables);
}

/* The same text many times, in nesting that must be refused and in length that must be fine. */
static void deep_sources_fail(void **state) {
    (void)state;
    static const char *const parts[] = {
        "{{ ((((((((",     "{{ [[[[[[[[",      "{% if x %}",   "{{ - - - - - ",
        "{{ not not not ", "{% for x in y %}", "{{ x.y.z.a.b", "{{ a if b else a if b else ",
        "{% set (((("};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        mln_buffer source = {0};
        mln_buffer_append(&source, parts[i], strlen(parts[i]));
        for (int n = 0; n < 20000; n++)
            mln_buffer_append(
                &source, parts[i] + (parts[i][1] == '%' && parts[i][3] != 's' ? 0 : 3),
                strlen(parts[i]) - (parts[i][1] == '%' && parts[i][3] != 's' ? 0 : 3));
        mln_buffer out = {0};
        myelin_error error = {0};
        assert_int_not_equal(run(source.data, source.length, NULL, &out, &error), MYELIN_OK);
        assert_true(strstr(error.message, "line"));
        mln_buffer_free(&source);
        mln_buffer_free(&out);
    }
}

static const char rich[] =
    "{% macro m(a, b='x') %}{{ a ~ b | upper }}{% endmacro %}"
    "{% set ns = namespace(n=0, d={'k': [1, 2.5, none]}) %}"
    "{% for k, v in d | dictsort if v is defined %}{{ loop.length }}{{ m(k, b=v | "
    "tojson(indent=2)) }}"
    "{% set ns.n = ns.n + loop.index %}{% endfor %}{% set t %}{{ s.split(',') | map('trim') | "
    "join('-') }}{% endset %}{{ t[::-1] }}{{ s.replace('a', 'bb').title() }}{{ [1, (2,), {}] }}"
    "{{ l | sort(reverse=true) | unique | list }}{{ '%s' % ns.n }}{{ range(5)[1:] | list }}{{ ns "
    "}}";

static void every_allocation_may_fail(void **state) {
    (void)state;
    json_t *variables = json_loads("{\"d\": {\"b\": 1, \"a\": [\"x\", null]}, \"s\": \"a, b,c\","
                                   " \"l\": [3, 1, 2, 3]}",
                                   0, NULL);
    mln_buffer right = {0};
    assert_int_equal(run(rich, strlen(rich), variables, &right, NULL), MYELIN_OK);
    assert_true(right.length > 100);
    for (int sticky = 0; sticky < 2; sticky++) {
        myelin_status status = MYELIN_ERROR_MEMORY;
        uint64_t n = 0;
        while (status != MYELIN_OK && n < MANY) {
            mln_buffer out = {0};
            myelin_error error = {0};
            mln_fail_allocation(++n, sticky);
            status = run(rich, strlen(rich), variables, &out, &error);
            mln_fail_allocation(0, false);
            assert_int_equal(out.length, status == MYELIN_OK ? right.length : 0);
            assert_true(status == MYELIN_OK || status == MYELIN_ERROR_MEMORY);
            assert_int_equal(status, error.status);
            mln_buffer_free(&out);
        }
        assert_in_range(n, 10, MANY - 1);
    }
    mln_buffer_free(&right);
    json_decref(variables);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_templates_fail),
                                       cmocka_unit_test(deep_sources_fail),
                                       cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
