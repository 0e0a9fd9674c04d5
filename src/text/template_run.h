/* SPDX-License-Identifier: Apache-2.0 */
/* A rendering under way, and what evaluates its parts. */
#ifndef MLN_TEXT_TEMPLATE_RUN_H
#define MLN_TEXT_TEMPLATE_RUN_H

#include "text/template_ast.h"

/* Bytes a rendering may hold at once, output aside; values are not given back before its end. */
#define MLN_TEMPLATE_MAX_MEMORY (UINT64_C(512) << 20)
enum { MLN_TEMPLATE_MAX_RANGE = 100000 }; /* as Jinja's sandbox has it */

typedef struct mln_frame {
    struct mln_frame *parent;
    mln_value slots[];
} mln_frame;

typedef enum mln_flow { MLN_FLOW_NEXT, MLN_FLOW_BREAK, MLN_FLOW_CONTINUE } mln_flow;

struct mln_run {
    const mln_template *template;
    mln_arena arena;
    uint64_t memory, steps;
    int depth, line;
    int calls; /* of macros, under way */
    int64_t now;
    mln_buffer *out;
    mln_value *context; /* one for each name of the template */
    mln_frame *frame;
    mln_value captured;
    mln_flow flow;
    myelin_status status;
    myelin_error *error;
};

typedef struct mln_macro {
    const mln_node *node;
    mln_frame *frame; /* where it was defined */
} mln_macro;

typedef struct mln_loop {
    mln_sequence *source;
    size_t taken;              /* of source */
    const mln_node *test_node; /* the for, when it has a test */
    mln_frame *test_frame;
    int64_t index0;
    mln_value before, current, after; /* missing: none */
    mln_value changed;                /* the last arguments of changed() */
    int64_t length;                   /* -1: not known yet */
} mln_loop;

/* Arguments of a call, evaluated. */
typedef struct mln_arguments {
    size_t count;
    const mln_value *values;
    size_t named_count;
    const mln_name *names; /* of the last named_count values, which follow the first count */
} mln_arguments;

typedef enum mln_function {
    MLN_F_RANGE,
    MLN_F_DICT,
    MLN_F_NAMESPACE,
    MLN_F_RAISE_EXCEPTION,
    MLN_F_STRFTIME_NOW,
    MLN_F_COUNT
} mln_function;

bool mln_enter(mln_run *run); /* one level deeper; false at the limit */
static inline void mln_leave(mln_run *run, int depth) {
    run->depth = depth;
}

/*
 * Puts arguments in the order of `names` ("sep maxsplit"), the first `required` of which must be
 * given; others are missing. `what` names the callee in errors.
 */
bool mln_bind(mln_run *run, const mln_arguments *args, const char *what, const char *names,
              size_t required, mln_value *out);

bool mln_evaluate(mln_run *run, const mln_node *node, mln_value *out);
bool mln_evaluate_arguments(mln_run *run, const mln_node *args, mln_arguments *out);
bool mln_assign(mln_run *run, const mln_node *target, mln_value value);
bool mln_execute(mln_run *run, const mln_node *body);
mln_frame *mln_frame_new(mln_run *run, const mln_scope *scope, mln_frame *parent);
void mln_frame_load(mln_run *run, const mln_scope *scope, mln_frame *frame);

bool mln_binary(mln_run *run, int op, mln_value a, mln_value b, mln_value *out);
bool mln_escape(mln_run *run, const mln_string *s, mln_value *out); /* for HTML, as safe text */
bool mln_negate(mln_run *run, int op, mln_value a, mln_value *out);
bool mln_relation(mln_run *run, int op, mln_value a, mln_value b, bool *out);
bool mln_contains(mln_run *run, mln_value container, mln_value item, bool *out);
bool mln_slice(mln_run *run, mln_value v, const mln_value bounds[3], mln_value *out);
bool mln_percent(mln_run *run, const mln_string *format, mln_value args, mln_value *out);

bool mln_get_attribute(mln_run *run, mln_value object, const mln_string *name, mln_value *out);
bool mln_get_item(mln_run *run, mln_value object, mln_value key, mln_value *out);
bool mln_call(mln_run *run, mln_value callee, const mln_arguments *args, mln_value *out);
bool mln_call_macro(mln_run *run, const mln_macro *macro, const mln_arguments *args,
                    mln_value *out);
bool mln_call_function(mln_run *run, mln_function function, const mln_arguments *args,
                       mln_value *out);
int mln_find_function(const char *name, size_t length);      /* -1: none */
int mln_find_method(mln_value self, const mln_string *name); /* -1: none; -2: the sandbox forbids */
bool mln_call_method(mln_run *run, const mln_method *method, const mln_arguments *args,
                     mln_value *out);
const char *mln_method_name(int id);

int mln_find_filter(const char *name, size_t length); /* -1: none */
bool mln_call_filter(mln_run *run, int filter, mln_value value, const mln_arguments *args,
                     mln_value *out);
int mln_find_test(const char *name, size_t length); /* -1: none */
bool mln_call_test(mln_run *run, int test, mln_value value, const mln_arguments *args, bool *out);

/* loop.NAME; *out missing: no such attribute. */
bool mln_loop_attribute(mln_run *run, mln_loop *loop, const mln_string *name, mln_value *out);
bool mln_loop_next(mln_run *run, mln_loop *loop, mln_value *out); /* missing at the end */

/* Text as Python's str has it. */
typedef enum mln_case { MLN_UPPER, MLN_LOWER, MLN_TITLE, MLN_CAPITALIZE } mln_case;
bool mln_is_space(uint32_t code);
bool mln_change_case(mln_run *run, const mln_string *s, mln_case to, mln_value *out);
bool mln_strip(mln_run *run, const mln_string *s, const mln_string *chars, bool left, bool right,
               mln_value *out);
bool mln_replace(mln_run *run, const mln_string *s, const mln_string *old, const mln_string *new,
                 int64_t count, mln_value *out);
bool mln_splitlines(mln_run *run, const mln_string *s, bool keep_ends, mln_value *out);
bool mln_parse_int(mln_run *run, const mln_string *s, int64_t base, int64_t *out, bool *ok);
bool mln_parse_float(mln_run *run, const mln_string *s, double *out, bool *ok);

#endif
