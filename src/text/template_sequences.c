/* SPDX-License-Identifier: Apache-2.0 */
/* Filters of sequences and mappings. */
#include <string.h>

#include "text/template_filters.h"

static bool f_length(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    mln_sequence *items;
    if (v.kind == MLN_V_STRING) {
        *out = mln_int((int64_t)v.string->points);
    } else if (v.kind == MLN_V_DICT) {
        *out = mln_int((int64_t)v.dict->count);
    } else if (mln_is_undefined(v) ||
               (v.kind == MLN_V_SEQUENCE && v.sequence->type != MLN_ITERATOR)) {
        if (!mln_iterate(run, v, &items))
            return false;
        *out = mln_int((int64_t)items->count);
    } else if (v.kind == MLN_V_LOOP) {
        static char name[] = "length";
        static const mln_string length = {6, 6, name, false};
        return mln_loop_attribute(run, v.loop, &length, out);
    } else {
        return mln_run_fail(run, "object of type '%s' has no len()", mln_type_name(v));
    }
    return true;
}

static bool copy_items(mln_run *run, mln_value v, mln_sequence_type type, mln_sequence **out) {
    mln_sequence *items;
    if (!mln_iterate(run, v, &items) || !mln_run_spend(run, items->count))
        return false;
    *out = mln_sequence_new(run, type, items->count);
    if (!*out)
        return false;
    if (items->count)
        memcpy((*out)->items, items->items, items->count * sizeof *items->items);
    (*out)->count = items->count;
    return true;
}

static bool f_list(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    mln_sequence *list;
    if (!copy_items(run, v, MLN_LIST, &list))
        return false;
    *out = mln_of_sequence(list);
    return true;
}

static bool f_items(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    mln_sequence *items = mln_sequence_new(run, MLN_ITERATOR, 0);
    if (!items)
        return false;
    *out = mln_of_sequence(items);
    if (mln_is_undefined(v))
        return true;
    if (v.kind != MLN_V_DICT)
        return mln_run_fail(run, "can only get item pairs from a mapping");
    for (size_t i = 0; i < v.dict->count; i++) {
        mln_sequence *pair = mln_sequence_new(run, MLN_TUPLE, 2);
        if (!pair || !mln_sequence_push(run, pair, v.dict->pairs[i].key) ||
            !mln_sequence_push(run, pair, v.dict->pairs[i].value) ||
            !mln_sequence_push(run, items, mln_of_sequence(pair)))
            return false;
    }
    return true;
}

static bool f_first(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    if (mln_is_sequence(v, MLN_ITERATOR) && v.sequence->used < v.sequence->count) {
        *out = v.sequence->items[v.sequence->used++];
        return true;
    }
    mln_sequence *items;
    if (!mln_iterate(run, v, &items))
        return false;
    if (items->count == 0)
        return mln_make_undefined(run, "no first item, the sequence was empty", NULL, mln_none(),
                                  out);
    *out = items->items[0];
    return true;
}

static bool f_last(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    mln_sequence *items;
    if (mln_is_sequence(v, MLN_ITERATOR))
        return mln_run_fail(run, "'%s' object is not reversible", mln_type_name(v));
    if (!mln_iterate(run, v, &items))
        return false;
    if (items->count == 0)
        return mln_make_undefined(run, "no last item, the sequence was empty", NULL, mln_none(),
                                  out);
    *out = items->items[items->count - 1];
    return true;
}

static bool f_reverse(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    (void)args;
    if (v.kind == MLN_V_STRING) {
        mln_value bounds[3] = {mln_none(), mln_none(), mln_int(-1)};
        return mln_slice(run, v, bounds, out);
    }
    mln_sequence *items;
    if (!copy_items(run, v, mln_is_undefined(v) ? MLN_LIST : MLN_ITERATOR, &items))
        return false;
    items->iterator_name = "reversed";
    for (size_t i = 0; i < items->count / 2; i++) {
        mln_value item = items->items[i];
        items->items[i] = items->items[items->count - 1 - i];
        items->items[items->count - 1 - i] = item;
    }
    if (mln_is_sequence(v, MLN_ITERATOR)) /* what cannot be reversed in place becomes a list */
        items->type = MLN_LIST;
    *out = mln_of_sequence(items);
    return true;
}

/* The value of "a.b.0" (or of an integer, or of nothing: the item itself). */
static bool attribute_of(mln_run *run, mln_value item, mln_value path, mln_value *out) {
    *out = item;
    if (path.kind == MLN_V_MISSING || path.kind == MLN_V_NONE)
        return true;
    if (path.kind != MLN_V_STRING)
        return mln_get_item(run, item, path, out);
    const mln_string *s = path.string;
    for (size_t start = 0, end; start <= s->length; start = end + 1) {
        for (end = start; end < s->length && s->data[end] != '.'; end++)
            continue;
        mln_value key;
        bool digits = end > start, ok = false;
        for (size_t i = start; i < end; i++)
            digits = digits && s->data[i] >= '0' && s->data[i] <= '9';
        if (!mln_string_view(run, s->data + start, end - start, &key))
            return false;
        int64_t number;
        if (digits && !mln_parse_int(run, key.string, 10, &number, &ok))
            return false;
        if (ok)
            key = mln_int(number);
        if (!mln_get_item(run, *out, key, out))
            return false;
    }
    return true;
}

/* The key of an item for sort, unique, min and max. */
static bool key_of(mln_run *run, mln_value item, mln_value path, bool case_sensitive,
                   mln_value *out) {
    if (!attribute_of(run, item, path, out))
        return false;
    return case_sensitive || out->kind != MLN_V_STRING ||
           mln_change_case(run, out->string, MLN_LOWER, out);
}

/* sort's attribute may name several, with commas. A list, as equal items are not ordered then. */
static bool keys_of(mln_run *run, mln_value item, mln_value path, bool case_sensitive,
                    mln_value *out) {
    mln_sequence *keys = mln_sequence_new(run, MLN_LIST, 0);
    if (path.kind != MLN_V_STRING) {
        mln_value key;
        if (!keys || !key_of(run, item, path, case_sensitive, &key) ||
            !mln_sequence_push(run, keys, key))
            return false;
        *out = mln_of_sequence(keys);
        return true;
    }
    const mln_string *s = path.string;
    for (size_t start = 0, end; keys && start <= s->length; start = end + 1) {
        for (end = start; end < s->length && s->data[end] != ','; end++)
            continue;
        mln_value part, key;
        if (!mln_string_view(run, s->data + start, end - start, &part) ||
            !key_of(run, item, part, case_sensitive, &key) || !mln_sequence_push(run, keys, key))
            return false;
    }
    if (!keys)
        return false;
    *out = mln_of_sequence(keys);
    return true;
}

typedef struct keyed {
    mln_value key, item;
} keyed;

/* A stable merge sort of list[0 .. count) with room for as many. */
static bool merge_sort(mln_run *run, keyed *list, keyed *room, size_t count, bool down) {
    if (count < 2)
        return true;
    size_t half = count / 2, a = 0, b = half, n = 0;
    if (!merge_sort(run, list, room, half, down) ||
        !merge_sort(run, list + half, room, count - half, down))
        return false;
    while (a < half && b < count) {
        int order;
        if (!mln_compare(run, list[b].key, list[a].key, "<", &order))
            return false;
        bool second = down ? order == 1 : order == -1;
        room[n++] = second ? list[b++] : list[a++];
    }
    while (a < half)
        room[n++] = list[a++];
    memcpy(list, room, n * sizeof *list);
    return true;
}

static bool sorted(mln_run *run, keyed *list, size_t count, bool down, mln_value *out) {
    keyed *room = mln_run_alloc(run, count + 1, sizeof *room);
    mln_sequence *result = room ? mln_sequence_new(run, MLN_LIST, count) : NULL;
    if (!result || !merge_sort(run, list, room, count, down))
        return false;
    for (size_t i = 0; i < count; i++)
        result->items[i] = list[i].item;
    result->count = count;
    *out = mln_of_sequence(result);
    return true;
}

static bool given(mln_value v) {
    return v.kind != MLN_V_MISSING && mln_truth(v);
}

static bool f_sort(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    mln_sequence *items;
    if (!mln_iterate(run, v, &items))
        return false;
    keyed *list = mln_run_alloc(run, items->count + 1, sizeof *list);
    for (size_t i = 0; list && i < items->count; i++) {
        list[i].item = items->items[i];
        if (!keys_of(run, items->items[i], args[2], given(args[1]), &list[i].key))
            return false;
    }
    return list && sorted(run, list, items->count, given(args[0]), out);
}

static bool f_dictsort(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    bool by_value = args[1].kind == MLN_V_STRING && mln_string_is(args[1].string, "value");
    if (args[1].kind != MLN_V_MISSING && !by_value &&
        (args[1].kind != MLN_V_STRING || !mln_string_is(args[1].string, "key")))
        return mln_run_fail(run, "you can only sort by either \"key\" or \"value\"");
    if (mln_is_undefined(v))
        return mln_fail_undefined(run, v);
    if (v.kind != MLN_V_DICT)
        return mln_run_fail(run, "dictsort needs a mapping, not '%s'", mln_type_name(v));
    keyed *list = mln_run_alloc(run, v.dict->count + 1, sizeof *list);
    for (size_t i = 0; list && i < v.dict->count; i++) {
        const mln_pair *pair = &v.dict->pairs[i];
        mln_sequence *tuple = mln_sequence_new(run, MLN_TUPLE, 2);
        if (!tuple || !mln_sequence_push(run, tuple, pair->key) ||
            !mln_sequence_push(run, tuple, pair->value) ||
            !key_of(run, by_value ? pair->value : pair->key, mln_missing(), given(args[0]),
                    &list[i].key))
            return false;
        list[i].item = mln_of_sequence(tuple);
    }
    return list && sorted(run, list, v.dict->count, given(args[2]), out);
}

static bool f_unique(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    mln_sequence *items, *result = mln_sequence_new(run, MLN_ITERATOR, 0);
    mln_dict *seen = mln_dict_new(run, 0);
    if (!result || !seen || !mln_iterate(run, v, &items))
        return false;
    for (size_t i = 0; i < items->count; i++) {
        mln_value key, *found;
        if (!key_of(run, items->items[i], args[1], given(args[0]), &key) ||
            !mln_dict_find(run, seen, key, &found))
            return false;
        if (!found && (!mln_dict_set(run, seen, key, mln_none()) ||
                       !mln_sequence_push(run, result, items->items[i])))
            return false;
    }
    *out = mln_of_sequence(result);
    return true;
}

static bool extreme(mln_run *run, mln_value v, const mln_value *args, int wanted, mln_value *out) {
    mln_sequence *items;
    mln_value best, key;
    if (!mln_iterate(run, v, &items))
        return false;
    if (items->count == 0)
        return mln_make_undefined(run, "no aggregated item, the sequence was empty", NULL,
                                  mln_none(), out);
    for (size_t i = 0; i < items->count; i++) {
        int order = wanted;
        if (!key_of(run, items->items[i], args[1], given(args[0]), &key) ||
            (i && !mln_compare(run, key, best, wanted < 0 ? "<" : ">", &order)))
            return false;
        if (order == wanted) {
            best = key;
            *out = items->items[i];
        }
    }
    return true;
}
static bool f_min(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    return extreme(run, v, args, -1, out);
}
static bool f_max(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    return extreme(run, v, args, 1, out);
}

static bool f_sum(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    mln_sequence *items;
    mln_value sum = args[1].kind == MLN_V_MISSING ? mln_int(0) : args[1], item;
    if (!mln_iterate(run, v, &items))
        return false;
    if (sum.kind == MLN_V_STRING)
        return mln_run_fail(run, "sum() can't sum strings");
    for (size_t i = 0; i < items->count; i++) {
        if (!attribute_of(run, items->items[i], args[0], &item) ||
            !mln_binary(run, '+', sum, item, &sum))
            return false;
    }
    *out = sum;
    return true;
}

static bool join_into(mln_run *run, const mln_sequence *items, const mln_string *glue,
                      mln_value path, mln_buffer *text) {
    for (size_t i = 0; i < items->count; i++) {
        mln_value item;
        if ((i && !mln_text_add(run, text, glue->data, glue->length)) ||
            !attribute_of(run, items->items[i], path, &item) || !mln_write_str(run, item, text))
            return false;
    }
    return true;
}
static bool f_join(mln_run *run, mln_value v, const mln_value *args, mln_value *out) {
    mln_value glue;
    mln_sequence *items;
    mln_buffer text = {0};
    if (!mln_to_string(run, args[0], &glue) || !mln_iterate(run, v, &items))
        return false;
    if (join_into(run, items, glue.string, args[1], &text))
        return mln_text_finish(run, &text, out);
    mln_buffer_free(&text);
    return false;
}

/* map(attribute=..., default=...), or map(filter, arguments...). */
static bool map(mln_run *run, const mln_sequence *items, const mln_arguments *args,
                mln_sequence *out) {
    mln_value bound[2] = {mln_missing(), mln_missing()};
    mln_arguments rest = *args;
    int filter = -1;
    if (args->count == 0) {
        if (!mln_bind(run, args, "map", "attribute default", 1, bound))
            return false;
    } else {
        const mln_value name = args->values[0];
        filter = name.kind == MLN_V_STRING ? mln_find_filter(name.string->data, name.string->length)
                                           : -1;
        if (filter < 0)
            return mln_run_fail(run, "map: no such filter, or one that is not supported");
        rest.values++;
        rest.count--;
    }
    for (size_t i = 0; i < items->count; i++) {
        mln_value item;
        if (filter >= 0 ? !mln_call_filter(run, filter, items->items[i], &rest, &item)
                        : !attribute_of(run, items->items[i], bound[0], &item))
            return false;
        bool lacks = mln_is_undefined(item) && bound[1].kind > MLN_V_NONE;
        if (!mln_sequence_push(run, out, lacks ? bound[1] : item))
            return false;
    }
    return true;
}

/* select(test, arguments...) and its like; with an attribute before the test in ...attr. */
static bool choose(mln_run *run, const mln_sequence *items, const mln_arguments *args,
                   const char *name, mln_sequence *out) {
    bool wanted = name[0] == 's', attribute = strlen(name) > 6;
    mln_value path = mln_missing();
    mln_arguments rest = *args;
    int test = -1;
    if (attribute) {
        if (rest.count == 0)
            return mln_run_fail(run, "missing parameter for attribute name");
        path = *rest.values++;
        rest.count--;
    }
    if (rest.count) {
        const mln_value test_name = *rest.values++;
        rest.count--;
        test = test_name.kind == MLN_V_STRING
                   ? mln_find_test(test_name.string->data, test_name.string->length)
                   : -1;
        if (test < 0)
            return mln_run_fail(run, "%s: no such test, or one that is not supported", name);
    }
    for (size_t i = 0; i < items->count; i++) {
        mln_value item;
        bool truth;
        if (!attribute_of(run, items->items[i], path, &item))
            return false;
        truth = mln_truth(item);
        if ((test >= 0 && !mln_call_test(run, test, item, &rest, &truth)) ||
            (truth == wanted && !mln_sequence_push(run, out, items->items[i])))
            return false;
    }
    return true;
}

bool mln_call_mapping(mln_run *run, const char *name, mln_value value, const mln_arguments *args,
                      mln_value *out) {
    mln_sequence *items = NULL, *result = mln_sequence_new(run, MLN_ITERATOR, 0);
    int depth = run->depth;
    if (!result || !mln_enter(run))
        return false;
    *out = mln_of_sequence(result);
    bool fine = !mln_truth(value); /* Jinja does not look at the arguments then */
    if (!fine && mln_iterate(run, value, &items))
        fine =
            name[0] == 'm' ? map(run, items, args, result) : choose(run, items, args, name, result);
    mln_leave(run, depth);
    return fine;
}

static const mln_filter filters[] = {
    {"length", "", 0, f_length},
    {"count", "", 0, f_length},
    {"list", "", 0, f_list},
    {"items", "", 0, f_items},
    {"first", "", 0, f_first},
    {"last", "", 0, f_last},
    {"reverse", "", 0, f_reverse},
    {"sort", "reverse case_sensitive attribute", 0, f_sort},
    {"dictsort", "case_sensitive by reverse", 0, f_dictsort},
    {"unique", "case_sensitive attribute", 0, f_unique},
    {"min", "case_sensitive attribute", 0, f_min},
    {"max", "case_sensitive attribute", 0, f_max},
    {"sum", "attribute start", 0, f_sum},
    {"join", "d attribute", 0, f_join},
    {"map", "", 0, NULL},
    {"select", "", 0, NULL},
    {"reject", "", 0, NULL},
    {"selectattr", "", 0, NULL},
    {"rejectattr", "", 0, NULL},
};

const mln_filter *mln_sequence_filter(int i) {
    return i < (int)(sizeof filters / sizeof *filters) ? &filters[i] : NULL;
}
