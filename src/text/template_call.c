/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes, items, calls and the global functions. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "text/template_run.h"

bool mln_bind(mln_run *run, const mln_arguments *args, const char *what, const char *names,
              size_t required, mln_value *out) {
    size_t count = 0, used = 0;
    for (const char *name = names; *name; count++) {
        size_t length = strcspn(name, " ");
        out[count] = count < args->count ? args->values[count] : mln_missing();
        for (size_t k = 0; k < args->named_count; k++) {
            if (args->names[k].length != length || memcmp(args->names[k].text, name, length) != 0)
                continue;
            if (count < args->count)
                return mln_run_fail(run, "%s got multiple values for argument '%.*s'", what,
                                    (int)length, name);
            out[count] = args->values[args->count + k];
            used++;
        }
        if (count < required && out[count].kind == MLN_V_MISSING)
            return mln_run_fail(run, "%s needs an argument '%.*s'", what, (int)length, name);
        name += length + (name[length] == ' ');
    }
    if (args->count > count)
        return mln_run_fail(run, "%s takes at most %zu argument(s), %zu given", what, count,
                            args->count);
    return used == args->named_count ||
           mln_run_fail(run, "%s got an unexpected keyword argument", what);
}

static bool make_method(mln_run *run, mln_value self, int id, mln_value *out) {
    mln_method *method = mln_run_alloc(run, 1, sizeof *method);
    if (!method)
        return false;
    *method = (mln_method){self, id, mln_method_name(id)};
    *out = (mln_value){.kind = MLN_V_METHOD, .method = method};
    return true;
}

/* What getattr() finds; *out missing: nothing. */
static bool own_attribute(mln_run *run, mln_value object, const mln_string *name, mln_value *out) {
    *out = mln_missing();
    if (object.kind == MLN_V_LOOP) {
        if (!mln_loop_attribute(run, object.loop, name, out) || out->kind != MLN_V_MISSING)
            return run->status == MYELIN_OK;
    }
    if (object.kind == MLN_V_NAMESPACE) {
        mln_value *found = mln_dict_find_name(object.dict, name->data, name->length);
        if (found)
            *out = *found;
        return true;
    }
    if (object.kind == MLN_V_MACRO && mln_string_is(name, "name"))
        return mln_string_view(run, object.macro->node->text, object.macro->node->length, out);
    int id = mln_find_method(object, name);
    if (id == -2)
        return mln_make_undefined(run, "the method changes its object, which templates may not do",
                                  NULL, mln_none(), out);
    return id < 0 || make_method(run, object, id, out);
}

/* object[key] as Python has it; *out missing: a TypeError or LookupError there. */
static bool own_item(mln_run *run, mln_value object, mln_value key, mln_value *out) {
    *out = mln_missing();
    if (object.kind == MLN_V_DICT && mln_hashable(key)) {
        mln_value *found;
        if (!mln_dict_find(run, object.dict, key, &found))
            return false;
        if (found)
            *out = *found;
        return true;
    }
    if (!mln_is_integer(key))
        return true;
    int64_t i = mln_integer_of(key);
    if (object.kind == MLN_V_STRING) {
        int64_t points = (int64_t)object.string->points;
        i += i < 0 ? points : 0;
        if (i < 0 || i >= points)
            return true;
        size_t from = mln_string_byte(object.string, (size_t)i);
        size_t to = mln_string_byte(object.string, (size_t)i + 1);
        return mln_run_spend(run, object.string->length / 64) &&
               mln_string_view(run, object.string->data + from, to - from, out);
    }
    if (object.kind == MLN_V_SEQUENCE && object.sequence->type <= MLN_RANGE) {
        int64_t count = (int64_t)object.sequence->count;
        i += i < 0 ? count : 0;
        if (i >= 0 && i < count)
            *out = object.sequence->items[i];
    }
    return true;
}

static bool absent(mln_run *run, mln_value object, mln_value name, mln_value *out) {
    const char *type = object.kind == MLN_V_NONE ? "None" : mln_type_name(object);
    return mln_make_undefined(run, NULL, type, name, out);
}

bool mln_get_attribute(mln_run *run, mln_value object, const mln_string *name, mln_value *out) {
    if (mln_is_undefined(object))
        return mln_fail_undefined(run, object);
    mln_value key = mln_of_string(name);
    if (!own_attribute(run, object, name, out))
        return false;
    if (out->kind == MLN_V_MISSING && !own_item(run, object, key, out))
        return false;
    return out->kind != MLN_V_MISSING || absent(run, object, key, out);
}

bool mln_get_item(mln_run *run, mln_value object, mln_value key, mln_value *out) {
    if (mln_is_undefined(object))
        return mln_fail_undefined(run, object);
    if (!own_item(run, object, key, out))
        return false;
    if (out->kind == MLN_V_MISSING && key.kind == MLN_V_STRING &&
        !own_attribute(run, object, key.string, out))
        return false;
    return out->kind != MLN_V_MISSING || absent(run, object, key, out);
}

bool mln_call(mln_run *run, mln_value callee, const mln_arguments *args, mln_value *out) {
    switch (callee.kind) {
    case MLN_V_MACRO:
        return mln_call_macro(run, callee.macro, args, out);
    case MLN_V_METHOD:
        return mln_call_method(run, callee.method, args, out);
    case MLN_V_FUNCTION:
        return mln_call_function(run, (mln_function)callee.integer, args, out);
    case MLN_V_MISSING:
    case MLN_V_UNDEFINED:
        return mln_fail_undefined(run, callee);
    default:
        return mln_run_fail(run, "'%s' object is not callable", mln_type_name(callee));
    }
}

static const char *const function_names[MLN_F_COUNT] = {[MLN_F_RANGE] = "range",
                                                        [MLN_F_DICT] = "dict",
                                                        [MLN_F_NAMESPACE] = "namespace",
                                                        [MLN_F_RAISE_EXCEPTION] = "raise_exception",
                                                        [MLN_F_STRFTIME_NOW] = "strftime_now"};

int mln_find_function(const char *name, size_t length) {
    for (int i = 0; i < MLN_F_COUNT; i++) {
        if (strlen(function_names[i]) == length && memcmp(function_names[i], name, length) == 0)
            return i;
    }
    return -1;
}

static bool call_range(mln_run *run, const mln_arguments *args, mln_value *out) {
    int64_t bounds[3] = {0, 0, 1};
    if (args->count < 1 || args->count > 3 || args->named_count)
        return mln_run_fail(run, "range expects 1 to 3 arguments");
    for (size_t i = 0; i < args->count; i++) {
        if (!mln_is_integer(args->values[i]))
            return mln_run_fail(run, "'%s' object cannot be interpreted as an integer",
                                mln_type_name(args->values[i]));
        bounds[args->count == 1 ? 1 : i] = mln_integer_of(args->values[i]);
    }
    int64_t start = bounds[0], stop = bounds[1], step = bounds[2], span, count = 0;
    if (step == 0)
        return mln_run_fail(run, "range() arg 3 must not be zero");
    bool wide = step > 0 ? __builtin_sub_overflow(stop, start, &span)
                         : __builtin_sub_overflow(start, stop, &span);
    wide = wide || step == INT64_MIN;
    if (!wide && span > 0)
        count = (span - 1) / (step > 0 ? step : -step) + 1;
    if (wide || count > MLN_TEMPLATE_MAX_RANGE)
        return mln_run_fail(run, "range too big: more than %d items", MLN_TEMPLATE_MAX_RANGE);
    mln_sequence *range = mln_sequence_new(run, MLN_RANGE, (size_t)count);
    if (!range || !mln_run_spend(run, (uint64_t)count))
        return false;
    range->start = start;
    range->stop = stop;
    range->step = step;
    for (int64_t i = 0; i < count; i++)
        range->items[i] = mln_int(start + i * step);
    range->count = (size_t)count;
    *out = mln_of_sequence(range);
    return true;
}

/* dict(a, k=v) and namespace(a, k=v): pairs from a mapping or a sequence of pairs, then keywords.
 */
static bool call_dict(mln_run *run, const mln_arguments *args, mln_value *out) {
    mln_dict *dict = mln_dict_new(run, 0);
    if (!dict)
        return false;
    if (args->count > 1)
        return mln_run_fail(run, "dict expected at most 1 argument, got %zu", args->count);
    if (args->count && args->values[0].kind == MLN_V_DICT) {
        const mln_dict *from = args->values[0].dict;
        for (size_t i = 0; i < from->count; i++) {
            if (!mln_dict_set(run, dict, from->pairs[i].key, from->pairs[i].value))
                return false;
        }
    } else if (args->count) {
        mln_sequence *pairs, *pair;
        if (!mln_iterate(run, args->values[0], &pairs))
            return false;
        for (size_t i = 0; i < pairs->count; i++) {
            if (!mln_iterate(run, pairs->items[i], &pair))
                return false;
            if (pair->count != 2)
                return mln_run_fail(run, "dict: item %zu has length %zu; 2 is required", i,
                                    pair->count);
            if (!mln_dict_set(run, dict, pair->items[0], pair->items[1]))
                return false;
        }
    }
    for (size_t i = 0; i < args->named_count; i++) {
        mln_value key;
        if (!mln_string_view(run, args->names[i].text, args->names[i].length, &key) ||
            !mln_dict_set(run, dict, key, args->values[args->count + i]))
            return false;
    }
    *out = mln_of_dict(dict);
    return true;
}

/* Messages are C strings: a NUL shows as other control characters do (mln_fail), hiding nothing. */
static bool raise_exception(mln_run *run, const mln_arguments *args) {
    mln_value message;
    mln_buffer text = {0};
    if (!mln_bind(run, args, "raise_exception", "message", 1, &message))
        return false;
    if (mln_write_str(run, message, &text)) {
        for (size_t i = 0; i < text.length; i++)
            text.data[i] = text.data[i] ? text.data[i] : '?';
        run->status = mln_fail(run->error, MYELIN_ERROR_ARGUMENT, NULL, -1, "%s",
                               text.length ? text.data : "raise_exception() without a message");
    }
    mln_buffer_free(&text);
    return false;
}

static bool call_strftime(mln_run *run, const mln_arguments *args, mln_value *out) {
    mln_value format;
    char text[512];
    struct tm local;
    time_t now = (time_t)run->now;
    if (!mln_bind(run, args, "strftime_now", "format", 1, &format))
        return false;
    if (format.kind != MLN_V_STRING)
        return mln_run_fail(run, "strftime_now needs a string, not %s", mln_type_name(format));
    char *pattern = mln_run_alloc(run, format.string->length + 1, 1);
    if (!pattern)
        return false;
    memcpy(pattern, format.string->data, format.string->length);
    if (format.string->length == 0)
        return mln_string_view(run, "", 0, out);
    if (!localtime_r(&now, &local) || memchr(pattern, '\0', format.string->length))
        return mln_run_fail(run, "strftime_now: the time or the format is not usable");
    size_t length = strftime(text, sizeof text, pattern, &local);
    if (length == 0)
        return mln_run_fail(run, "strftime_now: the result is empty or longer than %zu bytes",
                            sizeof text - 1);
    return mln_string_copy(run, text, length, out);
}

bool mln_call_function(mln_run *run, mln_function function, const mln_arguments *args,
                       mln_value *out) {
    switch (function) {
    case MLN_F_RANGE:
        return call_range(run, args, out);
    case MLN_F_DICT:
        return call_dict(run, args, out);
    case MLN_F_NAMESPACE:
        if (!call_dict(run, args, out))
            return false;
        out->kind = MLN_V_NAMESPACE;
        return true;
    case MLN_F_RAISE_EXCEPTION:
        return raise_exception(run, args);
    default:
        return call_strftime(run, args, out);
    }
}
