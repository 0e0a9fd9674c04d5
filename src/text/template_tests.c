/* SPDX-License-Identifier: Apache-2.0 */
/* Tests: value is NAME. */
#include <math.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/template_run.h"

typedef enum test_id {
    T_DEFINED,
    T_UNDEFINED,
    T_NONE,
    T_STRING,
    T_NUMBER,
    T_INTEGER,
    T_FLOAT,
    T_MAPPING,
    T_SEQUENCE,
    T_ITERABLE,
    T_BOOLEAN,
    T_TRUE,
    T_FALSE,
    T_CALLABLE,
    T_ODD,
    T_EVEN,
    T_LOWER,
    T_UPPER,
    T_DIVISIBLE,
    T_SAME,
    T_IN,
    T_EQ,
    T_NE,
    T_GT,
    T_GE,
    T_LT,
    T_LE
} test_id;

static const struct {
    const char *name;
    test_id id;
} tests[] = {{"defined", T_DEFINED},
             {"undefined", T_UNDEFINED},
             {"none", T_NONE},
             {"string", T_STRING},
             {"number", T_NUMBER},
             {"integer", T_INTEGER},
             {"float", T_FLOAT},
             {"mapping", T_MAPPING},
             {"sequence", T_SEQUENCE},
             {"iterable", T_ITERABLE},
             {"boolean", T_BOOLEAN},
             {"true", T_TRUE},
             {"false", T_FALSE},
             {"callable", T_CALLABLE},
             {"odd", T_ODD},
             {"even", T_EVEN},
             {"lower", T_LOWER},
             {"upper", T_UPPER},
             {"divisibleby", T_DIVISIBLE},
             {"sameas", T_SAME},
             {"in", T_IN},
             {"equalto", T_EQ},
             {"eq", T_EQ},
             {"==", T_EQ},
             {"ne", T_NE},
             {"!=", T_NE},
             {"gt", T_GT},
             {"greaterthan", T_GT},
             {">", T_GT},
             {"ge", T_GE},
             {">=", T_GE},
             {"lt", T_LT},
             {"lessthan", T_LT},
             {"<", T_LT},
             {"le", T_LE},
             {"<=", T_LE}};

int mln_find_test(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (strlen(tests[i].name) == length && memcmp(tests[i].name, name, length) == 0)
            return (int)tests[i].id;
    }
    return -1;
}

static bool remainder_is(mln_run *run, mln_value value, mln_value divisor, int64_t wanted,
                         bool *out) {
    mln_value rest;
    return mln_binary(run, '%', value, divisor, &rest) &&
           mln_equal(run, rest, mln_int(wanted), out);
}

/* str.islower() and str.isupper(). */
static bool has_case(mln_run *run, mln_value value, bool upper, bool *out) {
    mln_value text;
    *out = false;
    if (!mln_to_string(run, value, &text))
        return false;
    const mln_string *s = text.string;
    for (size_t i = 0, size; i < s->length; i += size) {
        uint32_t code;
        size = mln_utf8_decode((const unsigned char *)s->data + i, s->length - i, &code);
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
        if (category == UTF8PROC_CATEGORY_LT ||
            category == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU)) {
            *out = false;
            return true;
        }
        *out = *out || category == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
    }
    return mln_run_spend(run, s->length / 16);
}

static bool same_object(mln_value a, mln_value b) {
    if (a.kind != b.kind)
        return false;
    if (a.kind == MLN_V_FLOAT)
        return a.real == b.real;
    return a.kind == MLN_V_NONE ||
           (a.kind == MLN_V_BOOL ? a.boolean == b.boolean : a.integer == b.integer);
}

static bool is_sequence(mln_value v) {
    return v.kind == MLN_V_STRING || v.kind == MLN_V_DICT || mln_is_undefined(v) ||
           (v.kind == MLN_V_SEQUENCE && v.sequence->type <= MLN_RANGE);
}

static bool simple(test_id id, mln_value v) {
    switch (id) {
    case T_DEFINED:
        return !mln_is_undefined(v);
    case T_UNDEFINED:
        return mln_is_undefined(v);
    case T_NONE:
        return v.kind == MLN_V_NONE;
    case T_STRING:
        return v.kind == MLN_V_STRING;
    case T_NUMBER:
        return mln_is_number(v);
    case T_INTEGER:
        return v.kind == MLN_V_INT;
    case T_FLOAT:
        return v.kind == MLN_V_FLOAT;
    case T_MAPPING:
        return v.kind == MLN_V_DICT;
    case T_SEQUENCE:
        return is_sequence(v);
    case T_ITERABLE:
        return is_sequence(v) || v.kind == MLN_V_SEQUENCE || v.kind == MLN_V_LOOP;
    case T_BOOLEAN:
        return v.kind == MLN_V_BOOL;
    case T_TRUE:
        return v.kind == MLN_V_BOOL && v.boolean;
    case T_FALSE:
        return v.kind == MLN_V_BOOL && !v.boolean;
    default: /* T_CALLABLE; an undefined value has a __call__, which raises */
        return v.kind >= MLN_V_MACRO || mln_is_undefined(v);
    }
}

bool mln_call_test(mln_run *run, int test, mln_value value, const mln_arguments *args, bool *out) {
    test_id id = (test_id)test;
    mln_value other = mln_missing();
    if (id >= T_DIVISIBLE ? !mln_bind(run, args, "the test", "other", 1, &other)
                          : args->count || args->named_count)
        return mln_run_fail(run, "the test takes no argument");
    static const int relations[] = {
        [T_IN] = MLN_OP_IN, [T_EQ] = MLN_OP_EQ, [T_NE] = MLN_OP_NE, [T_GT] = MLN_OP_GT,
        [T_GE] = MLN_OP_GE, [T_LT] = MLN_OP_LT, [T_LE] = MLN_OP_LE};
    switch (id) {
    case T_ODD:
        return remainder_is(run, value, mln_int(2), 1, out);
    case T_EVEN:
        return remainder_is(run, value, mln_int(2), 0, out);
    case T_LOWER:
    case T_UPPER:
        return has_case(run, value, id == T_UPPER, out);
    case T_DIVISIBLE:
        return remainder_is(run, value, other, 0, out);
    case T_SAME:
        *out = same_object(value, other);
        return true;
    default:
        break;
    }
    if (id >= T_IN)
        return mln_relation(run, relations[id], value, other, out);
    *out = simple(id, value);
    return true;
}
