/* SPDX-License-Identifier: Apache-2.0 */
/* Values as text: Python's str() and repr(). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/template_run.h"

bool mln_text_add(mln_run *run, mln_buffer *text, const char *data, size_t length) {
    if (text->length + (uint64_t)length > MLN_TEMPLATE_MAX_OUTPUT)
        return mln_run_fail(run, "the text is longer than the limit of %llu bytes",
                            (unsigned long long)MLN_TEMPLATE_MAX_OUTPUT);
    if (!mln_buffer_append(text, data, length))
        return mln_run_fail_memory(run, length);
    return mln_run_spend(run, 1 + length / 64);
}

bool mln_text_finish(mln_run *run, mln_buffer *text, mln_value *out) {
    bool fine = mln_string_copy(run, text->data, text->length, out);
    mln_buffer_free(text);
    return fine;
}

static bool add(mln_run *run, mln_buffer *out, const char *text) {
    return mln_text_add(run, out, text, strlen(text));
}

/* The shortest digits that give the number back, laid out as Python does. */
size_t mln_format_float(double d, char text[MLN_FLOAT_TEXT]) {
    if (isnan(d) || isinf(d))
        return (size_t)snprintf(text, MLN_FLOAT_TEXT, "%s",
                                isnan(d) ? "nan"
                                : d < 0  ? "-inf"
                                         : "inf");
    char science[MLN_FLOAT_TEXT], digits[MLN_FLOAT_TEXT];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(science, sizeof science, "%.*e", precision, d);
        if (strtod(science, NULL) == d)
            break;
    }
    int count = 0;
    const char *p = science;
    for (; *p && *p != 'e'; p++) { /* the decimal mark is the locale's: any other byte is skipped */
        if (*p >= '0' && *p <= '9')
            digits[count++] = *p;
    }
    int exponent = atoi(p + 1);
    while (count > 1 && digits[count - 1] == '0')
        count--;
    size_t n = 0;
    if (signbit(d))
        text[n++] = '-';
    if (exponent < -4 || exponent >= 16) {
        text[n++] = digits[0];
        if (count > 1) {
            text[n++] = '.';
            memcpy(text + n, digits + 1, (size_t)count - 1);
            n += (size_t)count - 1;
        }
        return n + (size_t)snprintf(text + n, MLN_FLOAT_TEXT - n, "e%c%02d",
                                    exponent < 0 ? '-' : '+', abs(exponent));
    }
    if (exponent < 0) {
        text[n++] = '0';
        text[n++] = '.';
        for (int i = -1; i > exponent; i--)
            text[n++] = '0';
        memcpy(text + n, digits, (size_t)count);
        return n + (size_t)count;
    }
    for (int i = 0; i <= exponent || i < count; i++) {
        if (i == exponent + 1)
            text[n++] = '.';
        text[n++] = i < count ? digits[i] : '0';
    }
    if (count <= exponent + 1) {
        text[n++] = '.';
        text[n++] = '0';
    }
    return n;
}

static bool printable(uint32_t code) {
    if (code == ' ')
        return true;
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    default:
        return true;
    }
}

static size_t escape_point(uint32_t code, char quote, char text[16]) {
    if (code == (unsigned char)quote || code == '\\')
        return (size_t)snprintf(text, 16, "\\%c", (int)code);
    if (code == '\n' || code == '\r' || code == '\t')
        return (size_t)snprintf(text, 16, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
    if (printable(code))
        return mln_utf8_encode(code, (unsigned char *)text);
    if (code < 0x100)
        return (size_t)snprintf(text, 16, "\\x%02" PRIx32, code);
    return (size_t)snprintf(text, 16, code < 0x10000 ? "\\u%04" PRIx32 : "\\U%08" PRIx32, code);
}

static bool repr_string(mln_run *run, const mln_string *s, mln_buffer *out) {
    bool single = s->length && memchr(s->data, '\'', s->length);
    bool both = single && memchr(s->data, '"', s->length);
    char quote = single && !both ? '"' : '\'';
    if ((s->safe && !add(run, out, "Markup(")) || !mln_text_add(run, out, &quote, 1))
        return false;
    for (size_t i = 0; i < s->length;) {
        uint32_t code;
        size_t size = mln_utf8_decode((const unsigned char *)s->data + i, s->length - i, &code);
        char text[16];
        size_t length = escape_point(code, quote, text);
        if (!mln_text_add(run, out, text, length))
            return false;
        i += size ? size : 1;
    }
    return mln_text_add(run, out, &quote, 1) && (!s->safe || add(run, out, ")"));
}

static bool repr_items(mln_run *run, const mln_sequence *s, const char *open, const char *close,
                       mln_buffer *out) {
    if (!add(run, out, open))
        return false;
    for (size_t i = 0; i < s->count; i++) {
        if ((i && !add(run, out, ", ")) || !mln_write_repr(run, s->items[i], out))
            return false;
    }
    return add(run, out, close);
}

static bool repr_sequence(mln_run *run, const mln_sequence *s, mln_buffer *out) {
    char text[96];
    switch (s->type) {
    case MLN_TUPLE:
        return repr_items(run, s, "(", s->count == 1 ? ",)" : ")", out);
    case MLN_KEYS:
        return repr_items(run, s, "dict_keys([", "])", out);
    case MLN_VALUES:
        return repr_items(run, s, "dict_values([", "])", out);
    case MLN_ITEMS:
        return repr_items(run, s, "dict_items([", "])", out);
    case MLN_RANGE:
        if (s->step == 1)
            snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64 ")", s->start, s->stop);
        else
            snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64 ", %" PRId64 ")", s->start,
                     s->stop, s->step);
        return add(run, out, text);
    case MLN_ITERATOR:
        return mln_run_fail(run, "a %s has no text; use the filter list",
                            mln_type_name(mln_of_sequence((mln_sequence *)(uintptr_t)s)));
    default:
        return repr_items(run, s, "[", "]", out);
    }
}

static bool repr_dict(mln_run *run, const mln_dict *d, mln_buffer *out) {
    if (!add(run, out, "{"))
        return false;
    for (size_t i = 0; i < d->count; i++) {
        if ((i && !add(run, out, ", ")) || !mln_write_repr(run, d->pairs[i].key, out) ||
            !add(run, out, ": ") || !mln_write_repr(run, d->pairs[i].value, out))
            return false;
    }
    return add(run, out, "}");
}

static bool repr_nested(mln_run *run, mln_value v, mln_buffer *out) {
    int depth = run->depth;
    bool fine = mln_enter(run);
    if (fine && v.kind == MLN_V_SEQUENCE)
        fine = repr_sequence(run, v.sequence, out);
    else if (fine && v.kind == MLN_V_DICT)
        fine = repr_dict(run, v.dict, out);
    else if (fine)
        fine = add(run, out, "<Namespace ") && repr_dict(run, v.dict, out) && add(run, out, ">");
    mln_leave(run, depth);
    return fine;
}

static bool repr_macro(mln_run *run, const mln_macro *macro, mln_buffer *out) {
    return add(run, out, "<Macro '") &&
           mln_text_add(run, out, macro->node->text, macro->node->length) && add(run, out, "'>");
}

static bool repr_loop(mln_run *run, mln_loop *loop, mln_buffer *out) {
    static char name[] = "length";
    static const mln_string wanted = {6, 6, name, false};
    mln_value length;
    char text[64];
    if (!mln_loop_attribute(run, loop, &wanted, &length))
        return false;
    snprintf(text, sizeof text, "<LoopContext %" PRId64 "/%" PRId64 ">", loop->index0 + 1,
             length.integer);
    return add(run, out, text);
}

bool mln_write_repr(mln_run *run, mln_value v, mln_buffer *out) {
    char text[MLN_FLOAT_TEXT];
    switch (v.kind) {
    case MLN_V_MISSING:
    case MLN_V_UNDEFINED:
        return add(run, out, "Undefined");
    case MLN_V_NONE:
        return add(run, out, "None");
    case MLN_V_BOOL:
        return add(run, out, v.boolean ? "True" : "False");
    case MLN_V_INT:
        snprintf(text, sizeof text, "%" PRId64, v.integer);
        return add(run, out, text);
    case MLN_V_FLOAT:
        return mln_text_add(run, out, text, mln_format_float(v.real, text));
    case MLN_V_STRING:
        return repr_string(run, v.string, out);
    case MLN_V_SEQUENCE:
    case MLN_V_DICT:
    case MLN_V_NAMESPACE:
        return repr_nested(run, v, out);
    case MLN_V_MACRO:
        return repr_macro(run, v.macro, out);
    case MLN_V_LOOP:
        return repr_loop(run, v.loop, out);
    default: /* Python would show an address */
        return mln_run_fail(run, "a %s has no text", mln_type_name(v));
    }
}

bool mln_write_str(mln_run *run, mln_value v, mln_buffer *out) {
    if (v.kind == MLN_V_STRING)
        return mln_text_add(run, out, v.string->data, v.string->length);
    return mln_is_undefined(v) || mln_write_repr(run, v, out);
}

bool mln_to_string(mln_run *run, mln_value v, mln_value *out) {
    if (v.kind == MLN_V_STRING) {
        *out = v;
        return true;
    }
    mln_buffer text = {0};
    if (mln_write_str(run, v, &text))
        return mln_text_finish(run, &text, out);
    mln_buffer_free(&text);
    return false;
}
