/* SPDX-License-Identifier: Apache-2.0 */
#include "text/template_value.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/template_run.h"

enum { SMALL_DICT = 8, BYTES_PER_STEP = 64 };

void *mln_run_alloc(mln_run *run, size_t count, size_t size) {
    uint64_t bytes = (uint64_t)count * size;
    if (run->memory + bytes > MLN_TEMPLATE_MAX_MEMORY || bytes > MLN_TEMPLATE_MAX_MEMORY ||
        count > MLN_TEMPLATE_MAX_MEMORY) {
        mln_run_fail(run, "the template needs more than %llu MiB of memory",
                     (unsigned long long)(MLN_TEMPLATE_MAX_MEMORY >> 20));
        return NULL;
    }
    if (!mln_run_spend(run, bytes / BYTES_PER_STEP))
        return NULL;
    run->memory += bytes;
    void *object = mln_arena_alloc(&run->arena, count, size);
    if (!object)
        mln_run_fail_memory(run, bytes);
    return object;
}

/* Strings. */

void mln_string_finish(mln_string *string) {
    size_t points = 0;
    for (size_t i = 0; i < string->length; i++)
        points += ((unsigned char)string->data[i] & 0xC0) != 0x80;
    string->points = points;
}

mln_string *mln_string_new(mln_run *run, uint64_t length) {
    if (length > MLN_TEMPLATE_MAX_OUTPUT) {
        mln_run_fail(run, "a string of %llu bytes is longer than the limit of %llu",
                     (unsigned long long)length, (unsigned long long)MLN_TEMPLATE_MAX_OUTPUT);
        return NULL;
    }
    mln_string *string = mln_run_alloc(run, 1, sizeof *string + (size_t)length);
    if (string) {
        string->length = (size_t)length;
        string->data = (char *)(string + 1);
    }
    return string;
}

bool mln_string_view(mln_run *run, const char *data, size_t length, mln_value *out) {
    mln_string *string = mln_run_alloc(run, 1, sizeof *string);
    if (!string)
        return false;
    string->length = length;
    string->data = (char *)(uintptr_t)data; /* never written through */
    mln_string_finish(string);
    *out = mln_of_string(string);
    return mln_run_spend(run, length / BYTES_PER_STEP);
}

bool mln_string_copy(mln_run *run, const char *data, size_t length, mln_value *out) {
    mln_string *string = mln_string_new(run, length);
    if (!string)
        return false;
    if (length)
        memcpy(string->data, data, length);
    mln_string_finish(string);
    *out = mln_of_string(string);
    return true;
}

bool mln_string_concat(mln_run *run, const mln_string *a, const mln_string *b, mln_value *out) {
    mln_string *string = mln_string_new(run, (uint64_t)a->length + b->length);
    if (!string)
        return false;
    if (a->length)
        memcpy(string->data, a->data, a->length);
    if (b->length)
        memcpy(string->data + a->length, b->data, b->length);
    string->points = a->points + b->points;
    *out = mln_of_string(string);
    return true;
}

bool mln_string_is(const mln_string *s, const char *text) {
    size_t length = strlen(text);
    return s->length == length && memcmp(s->data, text, length) == 0;
}

size_t mln_string_byte(const mln_string *s, size_t point) {
    if (s->points == s->length)
        return point < s->length ? point : s->length;
    size_t i = 0;
    while (i < s->length) {
        if (((unsigned char)s->data[i] & 0xC0) != 0x80 && point-- == 0)
            return i;
        i++;
    }
    return s->length;
}

size_t mln_find_bytes(const char *hay, size_t hay_size, const char *needle, size_t size,
                      size_t from) {
    if (from > hay_size || size > hay_size - from)
        return SIZE_MAX;
    if (size == 0)
        return from;
    const char *found = memmem(hay + from, hay_size - from, needle, size);
    return found ? (size_t)(found - hay) : SIZE_MAX;
}

/* Sequences. */

mln_sequence *mln_sequence_new(mln_run *run, mln_sequence_type type, size_t capacity) {
    mln_sequence *sequence = mln_run_alloc(run, 1, sizeof *sequence);
    if (!sequence)
        return NULL;
    sequence->type = type;
    if (capacity) {
        sequence->items = mln_run_alloc(run, capacity, sizeof *sequence->items);
        if (!sequence->items)
            return NULL;
        sequence->capacity = capacity;
    }
    return sequence;
}

bool mln_sequence_push(mln_run *run, mln_sequence *sequence, mln_value item) {
    if (sequence->count == sequence->capacity) {
        size_t capacity = sequence->capacity ? sequence->capacity * 2 : 4;
        mln_value *items = mln_run_alloc(run, capacity, sizeof *items);
        if (!items)
            return false;
        if (sequence->count)
            memcpy(items, sequence->items, sequence->count * sizeof *items);
        sequence->items = items;
        sequence->capacity = capacity;
    }
    sequence->items[sequence->count++] = item;
    return true;
}

/* Dicts. */

bool mln_hashable(mln_value v) {
    if (v.kind == MLN_V_DICT)
        return false;
    if (v.kind != MLN_V_SEQUENCE || v.sequence->type == MLN_ITERATOR)
        return true;
    if (v.sequence->type != MLN_TUPLE)
        return v.sequence->type == MLN_RANGE;
    for (size_t i = 0; i < v.sequence->count; i++) {
        if (!mln_hashable(v.sequence->items[i]))
            return false;
    }
    return true;
}

static uint64_t hash_bytes(const char *data, size_t length) {
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)data[i]) * UINT64_C(0x100000001B3);
    return hash ^ hash >> 32;
}

/* Equal values have equal hashes: 1, 1.0 and true are the same key. */
static uint64_t hash_value(mln_value v) {
    if (v.kind == MLN_V_STRING)
        return hash_bytes(v.string->data, v.string->length);
    if (mln_is_number(v)) {
        double d = mln_real_of(v) + 0.0;
        return hash_bytes((const char *)&d, sizeof d);
    }
    if (mln_is_sequence(v, MLN_TUPLE)) {
        uint64_t hash = v.sequence->count;
        for (size_t i = 0; i < v.sequence->count; i++)
            hash = hash * 31 + hash_value(v.sequence->items[i]);
        return hash;
    }
    return (uint64_t)v.kind;
}

static void index_pair(mln_dict *dict, size_t pair) {
    size_t mask = dict->index_size - 1, i = (size_t)dict->pairs[pair].hash & mask;
    while (dict->index[i])
        i = (i + 1) & mask;
    dict->index[i] = (uint32_t)(pair + 1);
}

static bool grow_dict(mln_run *run, mln_dict *dict, size_t capacity) {
    mln_pair *pairs = mln_run_alloc(run, capacity, sizeof *pairs);
    if (!pairs)
        return false;
    if (dict->count)
        memcpy(pairs, dict->pairs, dict->count * sizeof *pairs);
    dict->pairs = pairs;
    dict->capacity = capacity;
    if (capacity <= SMALL_DICT)
        return true;
    size_t size = 16;
    while (size < capacity * 2)
        size *= 2;
    dict->index = mln_run_alloc(run, size, sizeof *dict->index);
    if (!dict->index) {
        dict->capacity = dict->count;
        return false;
    }
    dict->index_size = size;
    for (size_t i = 0; i < dict->count; i++)
        index_pair(dict, i);
    return true;
}

mln_dict *mln_dict_new(mln_run *run, size_t capacity) {
    mln_dict *dict = mln_run_alloc(run, 1, sizeof *dict);
    if (!dict || (capacity && !grow_dict(run, dict, capacity)))
        return NULL;
    return dict;
}

static bool same_key(mln_run *run, const mln_pair *pair, mln_value key, uint64_t hash, bool *out) {
    *out = false;
    if (pair->hash != hash)
        return true;
    return mln_equal(run, pair->key, key, out);
}

static bool find_pair(mln_run *run, const mln_dict *dict, mln_value key, uint64_t hash,
                      size_t *out) {
    *out = SIZE_MAX;
    bool same;
    if (!dict->index) {
        for (size_t i = 0; i < dict->count && *out == SIZE_MAX; i++) {
            if (!same_key(run, &dict->pairs[i], key, hash, &same))
                return false;
            if (same)
                *out = i;
        }
        return true;
    }
    size_t mask = dict->index_size - 1;
    for (size_t i = (size_t)hash & mask; dict->index[i]; i = (i + 1) & mask) {
        if (!mln_run_spend(run, 1) ||
            !same_key(run, &dict->pairs[dict->index[i] - 1], key, hash, &same))
            return false;
        if (same) {
            *out = dict->index[i] - 1;
            return true;
        }
    }
    return true;
}

bool mln_dict_find(mln_run *run, const mln_dict *dict, mln_value key, mln_value **out) {
    *out = NULL;
    if (!mln_hashable(key))
        return mln_run_fail(run, "unhashable type: '%s'", mln_type_name(key));
    size_t pair;
    if (!find_pair(run, dict, key, hash_value(key), &pair))
        return false;
    if (pair != SIZE_MAX)
        *out = &dict->pairs[pair].value;
    return true;
}

mln_value *mln_dict_find_name(const mln_dict *dict, const char *name, size_t length) {
    uint64_t hash = hash_bytes(name, length);
    for (size_t i = 0; i < dict->count; i++) {
        const mln_pair *pair = &dict->pairs[i];
        if (pair->hash == hash && pair->key.kind == MLN_V_STRING &&
            pair->key.string->length == length && memcmp(pair->key.string->data, name, length) == 0)
            return &dict->pairs[i].value;
    }
    return NULL;
}

bool mln_dict_set(mln_run *run, mln_dict *dict, mln_value key, mln_value value) {
    mln_value *old;
    if (!mln_dict_find(run, dict, key, &old))
        return false;
    if (old) {
        *old = value;
        return true;
    }
    if (dict->count == dict->capacity &&
        !grow_dict(run, dict, dict->capacity ? dict->capacity * 2 : 4))
        return false;
    dict->pairs[dict->count] = (mln_pair){key, value, hash_value(key)};
    dict->count++;
    if (dict->index)
        index_pair(dict, dict->count - 1);
    return true;
}

/* Undefined values. */

bool mln_make_undefined(mln_run *run, const char *hint, const char *type_name, mln_value name,
                        mln_value *out) {
    mln_undefined *undefined = mln_run_alloc(run, 1, sizeof *undefined);
    if (!undefined)
        return false;
    *undefined = (mln_undefined){hint, type_name, name};
    *out = (mln_value){.kind = MLN_V_UNDEFINED, .undefined = undefined};
    return true;
}

bool mln_fail_undefined(mln_run *run, mln_value undefined) {
    const mln_undefined *u = undefined.kind == MLN_V_UNDEFINED ? undefined.undefined : NULL;
    if (!u || u->hint)
        return mln_run_fail(run, "%s", u ? u->hint : "a value is undefined");
    mln_buffer name = {0};
    bool named = mln_write_repr(run, u->name, &name);
    if (named && !u->type_name)
        mln_run_fail(run, "%s is undefined", name.data);
    else if (named && u->name.kind == MLN_V_STRING)
        mln_run_fail(run, "'%s%s' has no attribute %s", u->type_name,
                     strcmp(u->type_name, "None") == 0 ? "" : " object", name.data);
    else if (named)
        mln_run_fail(run, "%s%s has no element %s", u->type_name,
                     strcmp(u->type_name, "None") == 0 ? "" : " object", name.data);
    mln_buffer_free(&name);
    return false;
}

/* Truth, equality, order. */

bool mln_truth(mln_value v) {
    switch (v.kind) {
    case MLN_V_BOOL:
        return v.boolean;
    case MLN_V_INT:
        return v.integer != 0;
    case MLN_V_FLOAT:
        return v.real != 0;
    case MLN_V_STRING:
        return v.string->length != 0;
    case MLN_V_SEQUENCE:
        return v.sequence->type == MLN_ITERATOR || v.sequence->count != 0;
    case MLN_V_DICT:
        return v.dict->count != 0;
    case MLN_V_MISSING:
    case MLN_V_UNDEFINED:
    case MLN_V_NONE:
        return false;
    default:
        return true;
    }
}

static bool equal_sequences(mln_run *run, const mln_sequence *a, const mln_sequence *b, bool *out) {
    *out = false;
    if (a == b) {
        *out = true;
        return true;
    }
    bool ordered = a->type == MLN_LIST || a->type == MLN_TUPLE || a->type == MLN_RANGE;
    if (a->type != b->type || !ordered || a->count != b->count)
        return true;
    for (size_t i = 0; i < a->count; i++) {
        bool same;
        if (!mln_equal(run, a->items[i], b->items[i], &same))
            return false;
        if (!same)
            return true;
    }
    *out = true;
    return true;
}

static bool equal_dicts(mln_run *run, const mln_dict *a, const mln_dict *b, bool *out) {
    *out = a == b;
    if (a == b || a->count != b->count)
        return true;
    for (size_t i = 0; i < a->count; i++) {
        mln_value *other;
        bool same = false;
        if (!mln_dict_find(run, b, a->pairs[i].key, &other) ||
            (other && !mln_equal(run, a->pairs[i].value, *other, &same)))
            return false;
        if (!same)
            return true;
    }
    *out = true;
    return true;
}

bool mln_equal(mln_run *run, mln_value a, mln_value b, bool *out) {
    if (!mln_run_spend(run, 1))
        return false;
    *out = false;
    if (mln_is_number(a) && mln_is_number(b)) {
        *out = mln_is_integer(a) && mln_is_integer(b) ? mln_integer_of(a) == mln_integer_of(b)
                                                      : mln_real_of(a) == mln_real_of(b);
        return true;
    }
    if (a.kind != b.kind) {
        *out = mln_is_undefined(a) && mln_is_undefined(b);
        return true;
    }
    if (a.kind == MLN_V_STRING) {
        *out = a.string->length == b.string->length &&
               (a.string->length == 0 ||
                memcmp(a.string->data, b.string->data, a.string->length) == 0);
        return mln_run_spend(run, a.string->length / BYTES_PER_STEP);
    }
    if (a.kind != MLN_V_SEQUENCE && a.kind != MLN_V_DICT) {
        *out = a.kind <= MLN_V_NONE || a.integer == b.integer; /* the others: by identity */
        return true;
    }
    int depth = run->depth;
    bool fine = mln_enter(run) &&
                (a.kind == MLN_V_DICT ? equal_dicts(run, a.dict, b.dict, out)
                                      : equal_sequences(run, a.sequence, b.sequence, out));
    mln_leave(run, depth);
    return fine;
}

static bool compare_sequences(mln_run *run, const mln_sequence *a, const mln_sequence *b,
                              const char *op, int *order) {
    size_t count = a->count < b->count ? a->count : b->count;
    for (size_t i = 0; i < count; i++) {
        bool same;
        if (!mln_equal(run, a->items[i], b->items[i], &same))
            return false;
        if (!same)
            return mln_compare(run, a->items[i], b->items[i], op, order);
    }
    *order = (a->count > b->count) - (a->count < b->count);
    return true;
}

bool mln_compare(mln_run *run, mln_value a, mln_value b, const char *op, int *order) {
    if (!mln_run_spend(run, 1))
        return false;
    if (mln_is_integer(a) && mln_is_integer(b)) {
        int64_t x = mln_integer_of(a), y = mln_integer_of(b);
        *order = (x > y) - (x < y);
        return true;
    }
    if (mln_is_number(a) && mln_is_number(b)) {
        double x = mln_real_of(a), y = mln_real_of(b);
        *order = isnan(x) || isnan(y) ? 2 : (x > y) - (x < y); /* 2: no order is true */
        return true;
    }
    if (a.kind == MLN_V_STRING && b.kind == MLN_V_STRING) {
        size_t n = a.string->length < b.string->length ? a.string->length : b.string->length;
        int c = n ? memcmp(a.string->data, b.string->data, n) : 0; /* UTF-8 sorts as its points */
        if (c == 0)
            c = (a.string->length > b.string->length) - (a.string->length < b.string->length);
        *order = (c > 0) - (c < 0);
        return mln_run_spend(run, n / BYTES_PER_STEP);
    }
    if (mln_is_undefined(a) || mln_is_undefined(b))
        return mln_fail_undefined(run, mln_is_undefined(a) ? a : b);
    if (a.kind == MLN_V_SEQUENCE && b.kind == MLN_V_SEQUENCE &&
        a.sequence->type == b.sequence->type && a.sequence->type <= MLN_TUPLE) {
        int depth = run->depth;
        bool fine = mln_enter(run) && compare_sequences(run, a.sequence, b.sequence, op, order);
        mln_leave(run, depth);
        return fine;
    }
    return mln_run_fail(run, "'%s' not supported between instances of '%s' and '%s'", op,
                        mln_type_name(a), mln_type_name(b));
}

const char *mln_type_name(mln_value v) {
    static const char *const sequences[] = {
        [MLN_LIST] = "list",         [MLN_TUPLE] = "tuple",        [MLN_RANGE] = "range",
        [MLN_KEYS] = "dict_keys",    [MLN_VALUES] = "dict_values", [MLN_ITEMS] = "dict_items",
        [MLN_ITERATOR] = "generator"};
    static const char *const kinds[] = {[MLN_V_MISSING] = "Undefined",
                                        [MLN_V_UNDEFINED] = "Undefined",
                                        [MLN_V_NONE] = "NoneType",
                                        [MLN_V_BOOL] = "bool",
                                        [MLN_V_INT] = "int",
                                        [MLN_V_FLOAT] = "float",
                                        [MLN_V_STRING] = "str",
                                        [MLN_V_DICT] = "dict",
                                        [MLN_V_NAMESPACE] = "Namespace",
                                        [MLN_V_MACRO] = "Macro",
                                        [MLN_V_LOOP] = "LoopContext",
                                        [MLN_V_FUNCTION] = "function",
                                        [MLN_V_METHOD] = "builtin_function_or_method"};
    if (v.kind == MLN_V_SEQUENCE)
        return v.sequence->type == MLN_ITERATOR && v.sequence->iterator_name
                   ? v.sequence->iterator_name
                   : sequences[v.sequence->type];
    return kinds[v.kind];
}

static bool iterate_string(mln_run *run, const mln_string *s, mln_sequence **out) {
    if (!mln_run_spend(run, s->points))
        return false;
    mln_sequence *sequence = mln_sequence_new(run, MLN_LIST, s->points);
    if (!sequence)
        return false;
    for (size_t i = 0; i < s->length;) {
        size_t end = i + 1;
        while (end < s->length && ((unsigned char)s->data[end] & 0xC0) == 0x80)
            end++;
        mln_value character;
        if (!mln_string_view(run, s->data + i, end - i, &character) ||
            !mln_sequence_push(run, sequence, character))
            return false;
        i = end;
    }
    *out = sequence;
    return true;
}

static bool iterate_loop(mln_run *run, mln_loop *loop, mln_sequence *out) {
    for (;;) {
        mln_value item, pair_value;
        if (!mln_loop_next(run, loop, &item))
            return false;
        if (item.kind == MLN_V_MISSING)
            return true;
        mln_sequence *pair = mln_sequence_new(run, MLN_TUPLE, 2);
        if (!pair || !mln_sequence_push(run, pair, item))
            return false;
        pair_value = (mln_value){.kind = MLN_V_LOOP, .loop = loop};
        if (!mln_sequence_push(run, pair, pair_value) ||
            !mln_sequence_push(run, out, mln_of_sequence(pair)))
            return false;
    }
}

bool mln_iterate(mln_run *run, mln_value v, mln_sequence **out) {
    if (v.kind == MLN_V_STRING)
        return iterate_string(run, v.string, out);
    if (v.kind == MLN_V_SEQUENCE && v.sequence->type != MLN_ITERATOR) {
        *out = v.sequence;
        return true;
    }
    mln_sequence *sequence = mln_sequence_new(run, MLN_LIST, 0);
    if (!sequence)
        return false;
    *out = sequence;
    if (v.kind == MLN_V_SEQUENCE) {
        sequence->items = v.sequence->items ? v.sequence->items + v.sequence->used : NULL;
        sequence->count = sequence->capacity = v.sequence->count - v.sequence->used;
        v.sequence->used = v.sequence->count;
        return true;
    }
    if (v.kind == MLN_V_DICT) {
        for (size_t i = 0; i < v.dict->count; i++) {
            if (!mln_sequence_push(run, sequence, v.dict->pairs[i].key))
                return false;
        }
        return true;
    }
    if (v.kind == MLN_V_LOOP)
        return iterate_loop(run, v.loop, sequence);
    return mln_is_undefined(v) ||
           mln_run_fail(run, "'%s' object is not iterable", mln_type_name(v));
}
