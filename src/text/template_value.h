/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of a rendering, with Python's behaviour. All memory comes from the run's arena and
 * lives as long as the run. Functions that return bool return false after reporting an error to the
 * run (mln_run_fail and its like).
 */
#ifndef MLN_TEXT_TEMPLATE_VALUE_H
#define MLN_TEXT_TEMPLATE_VALUE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "myelin/status.h"

typedef struct mln_run mln_run;

typedef enum mln_value_kind {
    MLN_V_MISSING, /* no value at all: a variable not set yet, an argument not given */
    MLN_V_UNDEFINED,
    MLN_V_NONE,
    MLN_V_BOOL,
    MLN_V_INT,
    MLN_V_FLOAT,
    MLN_V_STRING,
    MLN_V_SEQUENCE,
    MLN_V_DICT,
    MLN_V_NAMESPACE,
    MLN_V_MACRO,
    MLN_V_LOOP,
    MLN_V_FUNCTION, /* a global function; integer: mln_function */
    MLN_V_METHOD
} mln_value_kind;

typedef struct mln_value {
    mln_value_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        const struct mln_string *string;
        struct mln_sequence *sequence;
        struct mln_dict *dict; /* also a namespace's attributes */
        const struct mln_undefined *undefined;
        const struct mln_macro *macro;
        struct mln_loop *loop;
        const struct mln_method *method;
    };
} mln_value;

/* Well-formed UTF-8. `points` counts code points; equal to `length` for ASCII. */
typedef struct mln_string {
    size_t length;
    size_t points;
    char *data; /* not NUL-terminated */
    bool safe;  /* Markup: adding another string escapes that */
} mln_string;

/* Why a value is undefined: {type of object} has no attribute {name}, or {name} is undefined. */
typedef struct mln_undefined {
    const char *hint;      /* the whole message, or NULL */
    const char *type_name; /* of the object asked, or NULL: a variable */
    mln_value name;
} mln_undefined;

typedef enum mln_sequence_type {
    MLN_LIST,
    MLN_TUPLE,
    MLN_RANGE,
    MLN_KEYS,
    MLN_VALUES,
    MLN_ITEMS,
    MLN_ITERATOR /* used up from the front */
} mln_sequence_type;

typedef struct mln_sequence {
    mln_sequence_type type;
    size_t count, capacity;
    mln_value *items;
    size_t used;               /* MLN_ITERATOR: items already taken */
    int64_t start, stop, step; /* MLN_RANGE */
    const char *iterator_name; /* MLN_ITERATOR: Python's name of its type */
} mln_sequence;

typedef struct mln_pair {
    mln_value key, value;
    uint64_t hash;
} mln_pair;

typedef struct mln_dict {
    size_t count, capacity;
    mln_pair *pairs;   /* in order of insertion */
    uint32_t *index;   /* hash table of pair numbers + 1; NULL while small */
    size_t index_size; /* a power of two */
} mln_dict;

typedef struct mln_method {
    mln_value self;
    int id; /* in template_methods.c */
    const char *name;
} mln_method;

/* Allocation from the run's arena, counted; NULL after an error was reported. */
void *mln_run_alloc(mln_run *run, size_t count, size_t size);

/* Reports an error at the line being run. Always false. */
bool mln_run_fail(mln_run *run, const char *format, ...) MYELIN_PRINTF(2, 3);
bool mln_run_fail_memory(mln_run *run, uint64_t bytes);
bool mln_run_spend(mln_run *run, uint64_t steps); /* false: the steps are used up */

static inline mln_value mln_none(void) {
    return (mln_value){.kind = MLN_V_NONE};
}
static inline mln_value mln_missing(void) {
    return (mln_value){.kind = MLN_V_MISSING};
}
static inline mln_value mln_bool(bool b) {
    return (mln_value){.kind = MLN_V_BOOL, .boolean = b};
}
static inline mln_value mln_int(int64_t i) {
    return (mln_value){.kind = MLN_V_INT, .integer = i};
}
static inline mln_value mln_float(double d) {
    return (mln_value){.kind = MLN_V_FLOAT, .real = d};
}
static inline mln_value mln_of_string(const mln_string *s) {
    return (mln_value){.kind = MLN_V_STRING, .string = s};
}
static inline mln_value mln_of_sequence(mln_sequence *s) {
    return (mln_value){.kind = MLN_V_SEQUENCE, .sequence = s};
}
static inline mln_value mln_of_dict(mln_dict *d) {
    return (mln_value){.kind = MLN_V_DICT, .dict = d};
}
static inline bool mln_is_undefined(mln_value v) {
    return v.kind == MLN_V_UNDEFINED || v.kind == MLN_V_MISSING;
}
static inline bool mln_is_sequence(mln_value v, mln_sequence_type type) {
    return v.kind == MLN_V_SEQUENCE && v.sequence->type == type;
}
/* An int in Python's eyes: bool is one. */
static inline bool mln_is_integer(mln_value v) {
    return v.kind == MLN_V_INT || v.kind == MLN_V_BOOL;
}
static inline int64_t mln_integer_of(mln_value v) {
    return v.kind == MLN_V_BOOL ? v.boolean : v.integer;
}
static inline bool mln_is_number(mln_value v) {
    return mln_is_integer(v) || v.kind == MLN_V_FLOAT;
}
static inline double mln_real_of(mln_value v) {
    return v.kind == MLN_V_FLOAT ? v.real : (double)mln_integer_of(v);
}

/* Strings. _view shares the bytes it is given, which must live as long as the run. */
bool mln_string_view(mln_run *run, const char *data, size_t length, mln_value *out);
bool mln_string_copy(mln_run *run, const char *data, size_t length, mln_value *out);
mln_string *mln_string_new(mln_run *run, uint64_t length); /* bytes to be filled, then _finish */
void mln_string_finish(mln_string *string);
bool mln_string_concat(mln_run *run, const mln_string *a, const mln_string *b, mln_value *out);
bool mln_string_is(const mln_string *s, const char *text);
/* The byte where code point `point` begins (length when there are no more). */
size_t mln_string_byte(const mln_string *s, size_t point);
size_t mln_find_bytes(const char *hay, size_t hay_size, const char *needle, size_t size,
                      size_t from); /* SIZE_MAX: not there */

mln_sequence *mln_sequence_new(mln_run *run, mln_sequence_type type, size_t capacity);
bool mln_sequence_push(mln_run *run, mln_sequence *sequence, mln_value item);

mln_dict *mln_dict_new(mln_run *run, size_t capacity);
bool mln_dict_set(mln_run *run, mln_dict *dict, mln_value key, mln_value value);
/* *out is NULL when the key is absent. An unhashable key is an error. */
bool mln_dict_find(mln_run *run, const mln_dict *dict, mln_value key, mln_value **out);
mln_value *mln_dict_find_name(const mln_dict *dict, const char *name, size_t length);

bool mln_make_undefined(mln_run *run, const char *hint, const char *type_name, mln_value name,
                        mln_value *out);
bool mln_fail_undefined(mln_run *run, mln_value undefined);

bool mln_truth(mln_value v);
bool mln_equal(mln_run *run, mln_value a, mln_value b, bool *out);
bool mln_hashable(mln_value v);
/* -1, 0, 1 in *order; `op` names the operator in errors ("<"). */
bool mln_compare(mln_run *run, mln_value a, mln_value b, const char *op, int *order);
const char *mln_type_name(mln_value v); /* "str", "dict", ... */
/* What an iteration over v gives, as a new sequence or v's own; takes all of an iterator. */
bool mln_iterate(mln_run *run, mln_value v, mln_sequence **out);

/* Growing text inside a run: a mln_buffer with the run's limits. Free with mln_buffer_free. */
bool mln_text_add(mln_run *run, mln_buffer *text, const char *data, size_t length);
bool mln_text_finish(mln_run *run, mln_buffer *text, mln_value *out); /* frees text */

bool mln_write_str(mln_run *run, mln_value v, mln_buffer *out);  /* str(v) */
bool mln_write_repr(mln_run *run, mln_value v, mln_buffer *out); /* repr(v) */
bool mln_to_string(mln_run *run, mln_value v, mln_value *out);
enum { MLN_FLOAT_TEXT = 40 };
size_t mln_format_float(double d, char text[MLN_FLOAT_TEXT]); /* repr of a float */

bool mln_value_from_json(mln_run *run, const json_t *json, mln_value *out);
/* json.dumps; indent is the text of one level, or NULL for one line; separators may be NULL. */
typedef struct mln_json_style {
    bool ascii, sort_keys;
    const mln_string *indent, *item_separator, *key_separator;
} mln_json_style;
bool mln_write_json(mln_run *run, mln_value v, const mln_json_style *style, mln_buffer *out);

#endif
