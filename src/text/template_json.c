/* SPDX-License-Identifier: Apache-2.0 */
/* JSON in (the variables) and out (tojson, as Python's json.dumps writes it). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/template_run.h"

static bool object_from_json(mln_run *run, const json_t *json, mln_value *out) {
    mln_dict *dict = mln_dict_new(run, json_object_size(json));
    if (!dict)
        return false;
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)json, key, member) {
        mln_value name, value;
        if (!mln_string_view(run, key, strlen(key), &name) ||
            !mln_value_from_json(run, member, &value) || !mln_dict_set(run, dict, name, value))
            return false;
    }
    *out = mln_of_dict(dict);
    return true;
}

static bool array_from_json(mln_run *run, const json_t *json, mln_value *out) {
    mln_sequence *list = mln_sequence_new(run, MLN_LIST, json_array_size(json));
    if (!list)
        return false;
    for (size_t i = 0; i < json_array_size(json); i++) {
        mln_value item;
        if (!mln_value_from_json(run, json_array_get(json, i), &item) ||
            !mln_sequence_push(run, list, item))
            return false;
    }
    *out = mln_of_sequence(list);
    return true;
}

bool mln_value_from_json(mln_run *run, const json_t *json, mln_value *out) {
    int depth = run->depth;
    bool fine = mln_enter(run) && mln_run_spend(run, 1);
    if (!fine)
        return false;
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        fine = object_from_json(run, json, out);
        break;
    case JSON_ARRAY:
        fine = array_from_json(run, json, out);
        break;
    case JSON_STRING:
        fine = mln_string_view(run, json_string_value(json), json_string_length(json), out);
        break;
    case JSON_INTEGER:
        *out = mln_int(json_integer_value(json));
        break;
    case JSON_REAL:
        *out = mln_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = mln_bool(json_is_true(json));
        break;
    default:
        *out = mln_none();
    }
    mln_leave(run, depth);
    return fine;
}

typedef struct writer {
    mln_run *run;
    const mln_json_style *style;
    mln_buffer *out;
    int level;
} writer;

static bool put(writer *w, const char *text) {
    return mln_text_add(w->run, w->out, text, strlen(text));
}

static bool put_string(writer *w, const mln_string *s) {
    return mln_text_add(w->run, w->out, s->data, s->length);
}

static bool put_point(writer *w, uint32_t code, const char *bytes, size_t size) {
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    char text[16];
    const char *known = code && code < 0x80 ? strchr(from, (int)code) : NULL;
    if (known)
        snprintf(text, sizeof text, "\\%c", to[known - from]);
    else if (code < 0x20 || (w->style->ascii && code > 0x7E && code < 0x10000))
        snprintf(text, sizeof text, "\\u%04" PRIx32, code);
    else if (w->style->ascii && code >= 0x10000)
        snprintf(text, sizeof text, "\\u%04" PRIx32 "\\u%04" PRIx32,
                 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF));
    else
        return mln_text_add(w->run, w->out, bytes, size);
    return put(w, text);
}

static bool plain(const writer *w, unsigned char byte) {
    return byte >= 0x20 && byte != '"' && byte != '\\' && (!w->style->ascii || byte < 0x7F);
}

static bool put_quoted(writer *w, const mln_string *s) {
    if (!put(w, "\""))
        return false;
    for (size_t i = 0; i < s->length;) {
        size_t run = i;
        while (run < s->length && plain(w, (unsigned char)s->data[run]))
            run++;
        if (run > i && !mln_text_add(w->run, w->out, s->data + i, run - i))
            return false;
        i = run;
        if (i == s->length)
            break;
        uint32_t code;
        size_t size = mln_utf8_decode((const unsigned char *)s->data + i, s->length - i, &code);
        size = size ? size : 1;
        if (!put_point(w, code, s->data + i, size))
            return false;
        i += size;
    }
    return put(w, "\"");
}

static bool put_number(writer *w, mln_value v) {
    char text[MLN_FLOAT_TEXT];
    if (v.kind == MLN_V_INT)
        snprintf(text, sizeof text, "%" PRId64, v.integer);
    else if (isnan(v.real) || isinf(v.real))
        snprintf(text, sizeof text, "%s",
                 isnan(v.real) ? "NaN"
                 : v.real < 0  ? "-Infinity"
                               : "Infinity");
    else
        text[mln_format_float(v.real, text)] = '\0';
    return put(w, text);
}

static bool put_break(writer *w, int level) {
    if (!w->style->indent)
        return true;
    if (!put(w, "\n"))
        return false;
    for (int i = 0; i < level; i++) {
        if (!put_string(w, w->style->indent))
            return false;
    }
    return true;
}

static bool put_separator(writer *w, bool first) {
    if (!first && w->style->item_separator && !put_string(w, w->style->item_separator))
        return false;
    if (!first && !w->style->item_separator && !put(w, w->style->indent ? "," : ", "))
        return false;
    return put_break(w, w->level);
}

static bool put_value(writer *w, mln_value v);

static bool put_key(writer *w, mln_value key) {
    bool fine;
    if (key.kind == MLN_V_STRING) {
        fine = put_quoted(w, key.string);
    } else if (mln_is_number(key) || key.kind == MLN_V_NONE) {
        fine = put(w, "\"") && put_value(w, key) && put(w, "\"");
    } else {
        return mln_run_fail(w->run, "keys must be str, int, float, bool or None, not %s",
                            mln_type_name(key));
    }
    return fine &&
           (w->style->key_separator ? put_string(w, w->style->key_separator) : put(w, ": "));
}

static bool put_list(writer *w, const mln_sequence *s) {
    if (s->count == 0)
        return put(w, "[]");
    if (!put(w, "["))
        return false;
    w->level++;
    for (size_t i = 0; i < s->count; i++) {
        if (!put_separator(w, i == 0) || !put_value(w, s->items[i]))
            return false;
    }
    w->level--;
    return put_break(w, w->level) && put(w, "]");
}

/* Pairs in order of their keys: an insertion sort, as objects are small; steps bound it. */
static bool sorted_pairs(mln_run *run, const mln_dict *d, mln_pair **out) {
    mln_pair *pairs = mln_run_alloc(run, d->count, sizeof *pairs);
    if (!pairs)
        return false;
    for (size_t i = 0; i < d->count; i++) {
        size_t k = i;
        for (; k > 0; k--) {
            int order;
            if (!mln_compare(run, d->pairs[i].key, pairs[k - 1].key, "<", &order))
                return false;
            if (order >= 0)
                break;
            pairs[k] = pairs[k - 1];
        }
        pairs[k] = d->pairs[i];
    }
    *out = pairs;
    return true;
}

static bool put_dict(writer *w, const mln_dict *d) {
    if (d->count == 0)
        return put(w, "{}");
    mln_pair *pairs = d->pairs;
    if (!put(w, "{") || (w->style->sort_keys && !sorted_pairs(w->run, d, &pairs)))
        return false;
    w->level++;
    for (size_t i = 0; i < d->count; i++) {
        if (!put_separator(w, i == 0) || !put_key(w, pairs[i].key) || !put_value(w, pairs[i].value))
            return false;
    }
    w->level--;
    return put_break(w, w->level) && put(w, "}");
}

static bool put_nested(writer *w, mln_value v) {
    int depth = w->run->depth;
    bool fine =
        mln_enter(w->run) && (v.kind == MLN_V_DICT ? put_dict(w, v.dict) : put_list(w, v.sequence));
    mln_leave(w->run, depth);
    return fine;
}

static bool put_value(writer *w, mln_value v) {
    switch (v.kind) {
    case MLN_V_NONE:
        return put(w, "null");
    case MLN_V_BOOL:
        return put(w, v.boolean ? "true" : "false");
    case MLN_V_INT:
    case MLN_V_FLOAT:
        return put_number(w, v);
    case MLN_V_STRING:
        return put_quoted(w, v.string);
    case MLN_V_DICT:
        return put_nested(w, v);
    case MLN_V_SEQUENCE:
        if (v.sequence->type <= MLN_TUPLE)
            return put_nested(w, v);
        break;
    default:
        break;
    }
    return mln_run_fail(w->run, "Object of type %s is not JSON serializable", mln_type_name(v));
}

bool mln_write_json(mln_run *run, mln_value v, const mln_json_style *style, mln_buffer *out) {
    writer w = {run, style, out, 0};
    return put_value(&w, v);
}
