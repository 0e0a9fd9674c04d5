/* SPDX-License-Identifier: Apache-2.0 */
/* Filters of single values; template_sequences.c has those of sequences. */
#include "text/template_filters.h"

#include <math.h>
#include <string.h>

static bool text_of(mln_run *run, mln_value v, mln_value *out) {
    return mln_to_string(run, v, out);
}

static bool f_case(mln_run *run, mln_value v, mln_case to, mln_value *out) {
    mln_value text;
    return text_of(run, v, &text) && mln_change_case(run, text.string, to, out);
}
static bool f_upper(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    return f_case(run, v, MLN_UPPER, out);
}
static bool f_lower(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    return f_case(run, v, MLN_LOWER, out);
}
static bool f_capitalize(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    return f_case(run, v, MLN_CAPITALIZE, out);
}

static bool title_word(mln_run *run, const mln_string *s, mln_buffer *text) {
    mln_value first, rest;
    size_t cut = mln_string_byte(s, 1);
    return mln_string_view(run, s->data, cut, &first) &&
           mln_string_view(run, s->data + cut, s->length - cut, &rest) &&
           mln_change_case(run, first.string, MLN_UPPER, &first) &&
           mln_change_case(run, rest.string, MLN_LOWER, &rest) && mln_write_str(run, first, text) &&
           mln_write_str(run, rest, text);
}

/* Jinja's own: a word begins after white space, "-", or an opening bracket. */
static bool title_into(mln_run *run, const mln_string *s, mln_buffer *text) {
    size_t i = 0;
    while (i < s->length) {
        size_t end = i;
        uint32_t code = 0;
        bool separates = false;
        for (size_t size; end < s->length; end += size) {
            size = mln_utf8_decode((const unsigned char *)s->data + end, s->length - end, &code);
            bool here = mln_is_space(code) || (code < 0x80 && code && strchr("-({[<", (int)code));
            if (end == i)
                separates = here;
            else if (here != separates)
                break;
        }
        mln_value word;
        if (!mln_string_view(run, s->data + i, end - i, &word) ||
            !(separates ? mln_write_str(run, word, text) : title_word(run, word.string, text)))
            return false;
        i = end;
    }
    return true;
}
static bool f_title(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    mln_value s;
    mln_buffer text = {0};
    if (!text_of(run, v, &s))
        return false;
    if (title_into(run, s.string, &text))
        return mln_text_finish(run, &text, out);
    mln_buffer_free(&text);
    return false;
}

static bool f_trim(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    mln_value text;
    bool all = args[0].kind == MLN_V_MISSING || args[0].kind == MLN_V_NONE;
    if (!all && args[0].kind != MLN_V_STRING)
        return mln_run_fail(run, "strip arg must be None or str, not %s", mln_type_name(args[0]));
    return text_of(run, v, &text) &&
           mln_strip(run, text.string, all ? NULL : args[0].string, true, true, out);
}

static bool f_string(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    return text_of(run, v, out);
}

static bool f_replace(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    mln_value text, old, new;
    int64_t count = -1;
    if (args[2].kind != MLN_V_MISSING && args[2].kind != MLN_V_NONE) {
        if (!mln_is_integer(args[2]))
            return mln_run_fail(run, "replace needs an integer count");
        count = mln_integer_of(args[2]);
    }
    return text_of(run, v, &text) && text_of(run, args[0], &old) && text_of(run, args[1], &new) &&
           mln_replace(run, text.string, old.string, new.string, count, out);
}

static bool f_default(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    bool use = mln_is_undefined(v) ||
               (args[1].kind != MLN_V_MISSING && mln_truth(args[1]) && !mln_truth(v));
    *out = use ? args[0] : v;
    return !use || args[0].kind != MLN_V_MISSING || mln_string_view(run, "", 0, out);
}

/* An integer is floor(value) for reals that fit. */
static bool truncated(mln_run *run, double d, mln_value *out) {
    if (!(fabs(d) < 9.2e18))
        return mln_run_fail(run, "a float does not fit in 64 bits");
    *out = mln_int((int64_t)d);
    return true;
}
static bool f_int(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    int64_t integer, base = 10;
    double real;
    bool ok;
    if (args[1].kind != MLN_V_MISSING && !mln_is_integer(args[1]))
        return mln_run_fail(run, "int needs an integer base");
    base = args[1].kind == MLN_V_MISSING ? 10 : mln_integer_of(args[1]);
    *out = args[0].kind == MLN_V_MISSING ? mln_int(0) : args[0];
    if (mln_is_undefined(v))
        return mln_fail_undefined(run, v);
    if (mln_is_integer(v)) {
        *out = mln_int(mln_integer_of(v));
        return true;
    }
    if (v.kind == MLN_V_FLOAT)
        return isnan(v.real) || isinf(v.real) || truncated(run, v.real, out);
    if (v.kind != MLN_V_STRING)
        return true;
    if (!mln_parse_int(run, v.string, base, &integer, &ok))
        return false;
    if (ok) {
        *out = mln_int(integer);
        return true;
    }
    if (!mln_parse_float(run, v.string, &real, &ok))
        return false;
    return !ok || isinf(real) || truncated(run, real, out);
}
static bool f_float(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    double real;
    bool ok = false;
    if (mln_is_undefined(v))
        return mln_fail_undefined(run, v);
    *out = args[0].kind == MLN_V_MISSING ? mln_float(0) : args[0];
    if (mln_is_number(v)) {
        *out = mln_float(mln_real_of(v));
        return true;
    }
    if (v.kind == MLN_V_STRING && !mln_parse_float(run, v.string, &real, &ok))
        return false;
    if (ok)
        *out = mln_float(real);
    return true;
}

static bool f_abs(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    if (mln_is_undefined(v))
        return mln_fail_undefined(run, v);
    if (!mln_is_number(v))
        return mln_run_fail(run, "bad operand type for abs(): '%s'", mln_type_name(v));
    bool negative = v.kind == MLN_V_FLOAT ? signbit(v.real) : mln_integer_of(v) < 0;
    return mln_negate(run, negative ? '-' : '+', v, out);
}

/* round(value, precision): to even at halves, on the decimal digits as Python does it. */
static double round_common(double d, int64_t precision) {
    char text[400];
    if (precision > 300 || isnan(d) || isinf(d))
        return d;
    if (precision < 0) {
        double scale = pow(10, (double)-precision);
        return nearbyint(d / scale) * scale;
    }
    snprintf(text, sizeof text, "%.*f", (int)precision, d);
    return strtod(text, NULL);
}
static bool f_round(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    if (mln_is_undefined(v))
        return mln_fail_undefined(run, v);
    int64_t precision = args[0].kind == MLN_V_MISSING ? 0 : mln_integer_of(args[0]);
    if (!mln_is_number(v) || (args[0].kind != MLN_V_MISSING && !mln_is_integer(args[0])) ||
        precision < -300 || precision > 300)
        return mln_run_fail(run, "round needs a number, and a precision of -300 to 300");
    mln_value method = args[1];
    if (method.kind == MLN_V_MISSING ||
        (method.kind == MLN_V_STRING && mln_string_is(method.string, "common"))) {
        if (mln_is_integer(v) && precision >= 0)
            *out = mln_int(mln_integer_of(v));
        else if (mln_is_integer(v))
            return truncated(run, round_common(mln_real_of(v), precision), out);
        else
            *out = mln_float(round_common(v.real, precision));
        return true;
    }
    bool up = method.kind == MLN_V_STRING && mln_string_is(method.string, "ceil");
    if (!up && (method.kind != MLN_V_STRING || !mln_string_is(method.string, "floor")))
        return mln_run_fail(run, "method must be common, ceil or floor");
    double scale = pow(10, (double)precision), scaled = mln_real_of(v) * scale;
    *out = mln_float((up ? ceil(scaled) : floor(scaled)) / scale);
    return true;
}

static bool indent_into(mln_run *run, const mln_sequence *lines, const mln_string *indent,
                        const mln_value *args, mln_buffer *text) {
    bool first = args[1].kind != MLN_V_MISSING && mln_truth(args[1]);
    bool blank = args[2].kind != MLN_V_MISSING && mln_truth(args[2]);
    for (size_t i = 0; i < lines->count; i++) {
        bool indented = i == 0 ? first : blank || lines->items[i].string->length != 0;
        if ((i && !mln_text_add(run, text, "\n", 1)) ||
            (indented && !mln_text_add(run, text, indent->data, indent->length)) ||
            !mln_write_str(run, lines->items[i], text))
            return false;
    }
    return true;
}
static bool f_indent(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    mln_value indent = args[0], newline, text, lines, space;
    mln_buffer result = {0};
    if (mln_is_undefined(v))
        return mln_fail_undefined(run, v);
    if (v.kind != MLN_V_STRING)
        return mln_run_fail(run, "indent needs a str, not %s", mln_type_name(v));
    if (indent.kind == MLN_V_MISSING)
        indent = mln_int(4);
    if (indent.kind != MLN_V_STRING && !mln_is_integer(indent))
        return mln_run_fail(run, "indent needs an integer or a str as width");
    if (!mln_string_view(run, " ", 1, &space) || !mln_string_view(run, "\n", 1, &newline) ||
        (mln_is_integer(indent) && !mln_binary(run, '*', space, indent, &indent)) ||
        !mln_string_concat(run, v.string, newline.string, &text) ||
        !mln_splitlines(run, text.string, false, &lines))
        return false;
    if (indent_into(run, lines.sequence, indent.string, args, &result))
        return mln_text_finish(run, &result, out);
    mln_buffer_free(&result);
    return false;
}

static bool make_safe(mln_run *run, mln_value text, mln_value *out) {
    mln_string *safe = mln_run_alloc(run, 1, sizeof *safe);
    if (!safe)
        return false;
    *safe = *text.string;
    safe->safe = true;
    *out = mln_of_string(safe);
    return true;
}

static bool escape_into(mln_run *run, const mln_string *s, mln_buffer *text) {
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    for (size_t i = 0; i < s->length; i++) {
        const char *special = s->data[i] ? strchr(from, s->data[i]) : NULL;
        const char *piece = special ? to[special - from] : s->data + i;
        if (!mln_text_add(run, text, piece, special ? strlen(piece) : 1))
            return false;
    }
    return true;
}
bool mln_escape(mln_run *run, const mln_string *s, mln_value *out) {
    mln_buffer text = {0};
    if (!escape_into(run, s, &text) || !mln_text_finish(run, &text, out)) {
        mln_buffer_free(&text);
        return false;
    }
    return make_safe(run, *out, out);
}
static bool f_escape(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    mln_value s;
    if (!text_of(run, v, &s))
        return false;
    *out = s;
    return s.string->safe || mln_escape(run, s.string, out);
}

static bool f_tojson(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    mln_json_style style = {.ascii = args[0].kind != MLN_V_MISSING && mln_truth(args[0]),
                            .sort_keys = args[3].kind != MLN_V_MISSING && mln_truth(args[3])};
    mln_value indent = args[1], space;
    if (mln_is_integer(indent) &&
        (!mln_string_view(run, " ", 1, &space) || !mln_binary(run, '*', space, indent, &indent)))
        return false;
    if (indent.kind == MLN_V_STRING)
        style.indent = indent.string;
    else if (indent.kind != MLN_V_MISSING && indent.kind != MLN_V_NONE)
        return mln_run_fail(run, "tojson needs an integer or a str as indent");
    if (args[2].kind != MLN_V_MISSING && args[2].kind != MLN_V_NONE) {
        mln_sequence *pair;
        if (!mln_iterate(run, args[2], &pair))
            return false;
        if (pair->count != 2 || pair->items[0].kind != MLN_V_STRING ||
            pair->items[1].kind != MLN_V_STRING)
            return mln_run_fail(run, "tojson needs two strings as separators");
        style.item_separator = pair->items[0].string;
        style.key_separator = pair->items[1].string;
    }
    mln_buffer text = {0};
    if (mln_write_json(run, v, &style, &text))
        return mln_text_finish(run, &text, out);
    mln_buffer_free(&text);
    return false;
}

static bool f_safe(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    return text_of(run, v, out) && make_safe(run, *out, out);
}

static const mln_filter filters[] = {
    {"upper", "", 0, f_upper},
    {"lower", "", 0, f_lower},
    {"title", "", 0, f_title},
    {"capitalize", "", 0, f_capitalize},
    {"trim", "chars", 0, f_trim},
    {"string", "", 0, f_string},
    {"replace", "old new count", 2, f_replace},
    {"default", "default_value boolean", 0, f_default},
    {"d", "default_value boolean", 0, f_default},
    {"int", "default base", 0, f_int},
    {"float", "default", 0, f_float},
    {"abs", "", 0, f_abs},
    {"round", "precision method", 0, f_round},
    {"indent", "width first blank", 0, f_indent},
    {"escape", "", 0, f_escape},
    {"e", "", 0, f_escape},
    {"safe", "", 0, f_safe},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, f_tojson},
};

enum { SINGLE = sizeof filters / sizeof *filters };

static const mln_filter *filter_at(int i) {
    return i < SINGLE ? &filters[i] : mln_sequence_filter(i - SINGLE);
}

int mln_find_filter(const char *name, size_t length) {
    for (int i = 0; filter_at(i); i++) {
        if (strlen(filter_at(i)->name) == length && memcmp(filter_at(i)->name, name, length) == 0)
            return i;
    }
    return -1;
}

bool mln_call_filter(mln_run *run, int filter, mln_value value, const mln_arguments *args,
                     mln_value *out) {
    const mln_filter *f = filter_at(filter);
    mln_value bound[MLN_FILTER_PARAMETERS];
    if (!f->body)
        return mln_call_mapping(run, f->name, value, args, out);
    return mln_bind(run, args, f->name, f->parameters, f->required, bound) &&
           f->body(run, value, bound, out);
}
