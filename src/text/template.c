/* SPDX-License-Identifier: Apache-2.0 */
#include "text/template.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/template_ast.h"
#include "text/template_run.h"

enum { MAX_RUN_DEPTH = 1000 /* of statements and expressions, through macros */ };

static bool parse(mln_parser *p, const char *source, size_t length, const char *file) {
    mln_template *t = p->template;
    if (file) {
        t->file = mln_arena_strndup(&t->arena, file, strlen(file));
        if (!t->file) {
            p->status = mln_fail_memory(p->error, strlen(file), "the template");
            return false;
        }
    }
    t->names = mln_parse_alloc(p, MLN_TEMPLATE_MAX_NAMES, sizeof *t->names);
    return t->names && mln_lexer_open(p, source, length) && mln_parse_body(p, &t->body) &&
           mln_resolve_scopes(p);
}

myelin_status mln_template_parse(mln_template **template, const char *source, size_t length,
                                 const char *file, myelin_error *error) {
    *template = NULL;
    mln_template *t = mln_calloc(1, sizeof *t);
    if (!t)
        return mln_fail_memory(error, sizeof *t, "the template");
    mln_parser parser = {.template = t, .arena = &t->arena, .error = error};
    if (!parse(&parser, source, length, file)) {
        mln_template_free(t);
        return parser.status;
    }
    *template = t;
    return MYELIN_OK;
}

void mln_template_free(mln_template *template) {
    if (!template)
        return;
    mln_arena_free(&template->arena);
    free(template);
}

bool mln_run_fail(mln_run *run, const char *format, ...) {
    char text[MYELIN_ERROR_MESSAGE_SIZE];
    if (run->status != MYELIN_OK)
        return false;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    run->status = mln_fail(run->error, MYELIN_ERROR_ARGUMENT, run->template->file, -1,
                           "line %d: %s", run->line, text);
    return false;
}

bool mln_run_fail_memory(mln_run *run, uint64_t bytes) {
    if (run->status == MYELIN_OK)
        run->status = mln_fail_memory(run->error, bytes, "the rendering of a template");
    return false;
}

bool mln_run_spend(mln_run *run, uint64_t steps) {
    if (run->status != MYELIN_OK)
        return false;
    if (steps > MLN_TEMPLATE_MAX_STEPS - run->steps)
        return mln_run_fail(run, "the template takes more than %llu steps",
                            (unsigned long long)MLN_TEMPLATE_MAX_STEPS);
    run->steps += steps;
    return true;
}

bool mln_enter(mln_run *run) {
    return ++run->depth <= MAX_RUN_DEPTH ||
           mln_run_fail(run, "nested more than %d levels deep", MAX_RUN_DEPTH);
}

/* The values of all names the template mentions: a variable, a global function, or missing. */
static bool load_context(mln_run *run, const json_t *variables) {
    const mln_template *t = run->template;
    run->context = mln_run_alloc(run, (size_t)t->name_count + 1, sizeof *run->context);
    if (!run->context)
        return false;
    for (int32_t i = 0; i < t->name_count; i++) {
        const mln_name *name = &t->names[i];
        const json_t *variable = json_object_getn(variables, name->text, name->length);
        int function = mln_find_function(name->text, name->length);
        if (variable) {
            if (!mln_value_from_json(run, variable, &run->context[i]))
                return false;
        } else if (function >= 0) {
            run->context[i] = (mln_value){.kind = MLN_V_FUNCTION, .integer = function};
        }
    }
    return true;
}

myelin_status mln_template_render(const mln_template *template, const json_t *variables,
                                  int64_t now, mln_buffer *out, myelin_error *error) {
    size_t start = out->length;
    mln_buffer text = {0};
    mln_run run = {.template = template, .now = now, .out = &text, .line = 1, .error = error};
    bool fine = load_context(&run, variables);
    run.frame = fine ? mln_frame_new(&run, template->scope, NULL) : NULL;
    if (run.frame) {
        mln_frame_load(&run, template->scope, run.frame);
        if (mln_execute(&run, template->body) && !mln_buffer_append(out, text.data, text.length))
            mln_run_fail_memory(&run, text.length);
    }
    mln_arena_free(&run.arena);
    mln_buffer_free(&text);
    if (run.status != MYELIN_OK)
        out->length = start;
    return run.status;
}
