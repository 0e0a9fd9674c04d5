/* SPDX-License-Identifier: Apache-2.0 */
/* Renderings: what jinja2 gave for small templates, and conversations through the demo's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/template.h"

typedef void line_check(const json_t *line, void *context);

/* Calls check for each line of a file of JSON lines; returns how many there are. */
static int for_each_line(const char *path, line_check *check, void *context) {
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0;
    int count = 0;
    while (getline(&line, &capacity, file) > 0) {
        json_t *json = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(json);
        check(json, context);
        json_decref(json);
        count++;
    }
    free(line);
    fclose(file);
    return count;
}

static myelin_status render(const char *source, size_t length, const json_t *variables,
                            mln_buffer *out) {
    mln_template *template;
    myelin_error error = {0};
    myelin_status status = mln_template_parse(&template, source, length, "t.jinja", &error);
    if (status == MYELIN_OK)
        status = mln_template_render(template, variables, 0, out, &error);
    assert_int_equal(status, error.status);
    assert_true(status == MYELIN_OK || error.message[0]);
    mln_template_free(template);
    return status;
}

static void check_small(const json_t *line, void *context) {
    json_t **variables = context;
    if (!*variables) { /* the first line */
        *variables = json_incref(json_object_get(line, "variables"));
        return;
    }
    const json_t *source = json_object_get(line, "template"), *text = json_object_get(line, "text");
    mln_buffer out = {0};
    myelin_status status =
        render(json_string_value(source), json_string_length(source), *variables, &out);
    if (text && status == MYELIN_OK && out.length == json_string_length(text) &&
        (out.length == 0 || memcmp(out.data, json_string_value(text), out.length) == 0)) {
        mln_buffer_free(&out);
        return;
    }
    if (text || status == MYELIN_OK)
        fail_msg("%s: gave '%s'", json_string_value(source), out.data ? out.data : "");
    assert_int_equal(out.length, 0);
}

static void small_templates_render_as_jinja2_does(void **state) {
    (void)state;
    json_t *variables = NULL;
    int count = for_each_line(MYELIN_TEST_DATA "/templates_small.jsonl", check_small, &variables);
    assert_in_range(count, 200, 5000);
    json_decref(variables);
}

static json_t *chat_variables(const json_t *line, bool prompt) {
    json_t *variables = json_object();
    json_object_set(variables, "messages", json_object_get(line, "messages"));
    json_object_set(variables, "tools", json_object_get(line, "tools"));
    json_object_set_new(variables, "add_generation_prompt", json_boolean(prompt));
    json_t *thinking = json_object_get(line, "enable_thinking");
    if (json_is_boolean(thinking))
        json_object_set(variables, "enable_thinking", thinking);
    return variables;
}

static void check_chat(const mln_template *template, const json_t *line, bool prompt,
                       const char *text) {
    json_t *variables = chat_variables(line, prompt);
    mln_buffer out = {0};
    assert_int_equal(mln_template_render(template, variables, 0, &out, NULL), MYELIN_OK);
    assert_string_equal(out.data, text);
    mln_buffer_free(&out);
    json_decref(variables);
}

static void check_rendering(const json_t *line, void *context) {
    check_chat(context, line, json_is_true(json_object_get(line, "add_generation_prompt")),
               json_string_value(json_object_get(line, "text")));
}

typedef struct prompts {
    mln_template *template;
    int count;
} prompts;

static void check_prompt(const json_t *line, void *context) {
    prompts *p = context;
    if (!json_is_array(json_object_get(line, "messages")))
        return;
    check_chat(p->template, line, true, json_string_value(json_object_get(line, "prompt")));
    p->count++;
}

static mln_template *demo_template(void) {
    FILE *file = fopen(MYELIN_DEMO_MODEL "/chat_template.jinja", "r");
    assert_non_null(file);
    static char text[65536];
    size_t length = fread(text, 1, sizeof text, file);
    fclose(file);
    mln_template *template;
    myelin_error error = {0};
    if (mln_template_parse(&template, text, length, "chat_template.jinja", &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    return template;
}

static void conversations_render_as_the_reference(void **state) {
    (void)state;
    mln_template *template = demo_template();
    assert_int_equal(for_each_line(MYELIN_TEST_DATA "/templates.jsonl", check_rendering, template),
                     60);
    mln_template_free(template);
}

static void prompts_of_the_demo_model_render(void **state) {
    (void)state;
    prompts p = {demo_template(), 0};
    for_each_line(MYELIN_DEMO_MODEL "/eval.jsonl", check_prompt, &p);
    assert_int_equal(p.count, 288);
    mln_template_free(p.template);
}

static void errors_name_line_and_construct(void **state) {
    (void)state;
    static const struct {
        const char *source, *message;
    } cases[] = {
        {"a\n\n{% include 'x' %}", "t.jinja: line 3: tag 'include' is not supported here"},
        {"{{ x | frob }}", "t.jinja: line 1: filter 'frob' is not supported"},
        {"\n{{ x is frob }}", "t.jinja: line 2: test 'frob' is not supported"},
        {"{% for x in y %}", "t.jinja: line 1: unexpected end of template: 'endfor' is missing"},
        {"{{ x.y }}", "t.jinja: line 1: 'x' is undefined"},
        {"{% set d = {} %}\n{{ d.a.b }}", "t.jinja: line 2: 'dict object' has no attribute 'a'"},
        {"{{ 's'.foo() }}", "t.jinja: line 1: 'str object' has no attribute 'foo'"},
        {"{{ raise_exception('only ' ~ 1) }}", "only 1"},
        {"{{ raise_exception(NUL ~ 'shown') }}", "?shown"},
        {"{{ raise_exception('') }}", "raise_exception() without a message"},
        {"{{ raise_exception(x) }}", "raise_exception() without a message"},
    };
    json_t *variables = json_pack("{s:s%}", "NUL", "", (size_t)1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mln_template *template;
        myelin_error error = {0};
        mln_buffer out = {0};
        mln_buffer_append(&out, "kept", 4);
        myelin_status status = mln_template_parse(&template, cases[i].source,
                                                  strlen(cases[i].source), "t.jinja", &error);
        if (status == MYELIN_OK)
            status = mln_template_render(template, variables, 0, &out, &error);
        assert_int_not_equal(status, MYELIN_OK);
        assert_string_equal(error.message, cases[i].message);
        assert_int_equal(out.length, 4);
        mln_buffer_free(&out);
        mln_template_free(template);
    }
    json_decref(variables);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_templates_render_as_jinja2_does),
                                       cmocka_unit_test(conversations_render_as_the_reference),
                                       cmocka_unit_test(prompts_of_the_demo_model_render),
                                       cmocka_unit_test(errors_name_line_and_construct)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
