/* SPDX-License-Identifier: Apache-2.0 */
/* Methods of strings, lists and dicts. */
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/template_run.h"

enum { MAX_PARAMETERS = 3 };

typedef bool method_body(mln_run *run, mln_value self, const mln_value *args, mln_value *out);

static bool need_string(mln_run *run, mln_value v) {
    return v.kind == MLN_V_STRING ||
           mln_run_fail(run, "a str is required, not '%s'", mln_type_name(v));
}

/* An optional string (none and missing: NULL) or integer. */
static bool optional_string(mln_run *run, mln_value v, const mln_string **out) {
    *out = NULL;
    if (v.kind == MLN_V_MISSING || v.kind == MLN_V_NONE)
        return true;
    if (!need_string(run, v))
        return false;
    *out = v.string;
    return true;
}

static bool optional_integer(mln_run *run, mln_value v, int64_t otherwise, int64_t *out) {
    *out = otherwise;
    if (v.kind == MLN_V_MISSING || v.kind == MLN_V_NONE)
        return true;
    if (!mln_is_integer(v))
        return mln_run_fail(run, "an integer is required, not '%s'", mln_type_name(v));
    *out = mln_integer_of(v);
    return true;
}

static bool strip_sides(mln_run *run, mln_value self, const mln_value *args, bool left, bool right,
                        mln_value *out) {
    const mln_string *chars;
    return optional_string(run, args[0], &chars) &&
           mln_strip(run, self.string, chars, left, right, out);
}
static bool str_strip(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return strip_sides(run, self, args, true, true, out);
}
static bool str_lstrip(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return strip_sides(run, self, args, true, false, out);
}
static bool str_rstrip(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return strip_sides(run, self, args, false, true, out);
}
static bool str_upper(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return mln_change_case(run, self.string, MLN_UPPER, out);
}
static bool str_lower(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return mln_change_case(run, self.string, MLN_LOWER, out);
}
static bool str_title(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return mln_change_case(run, self.string, MLN_TITLE, out);
}
static bool str_capitalize(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return mln_change_case(run, self.string, MLN_CAPITALIZE, out);
}

static bool push_part(mln_run *run, mln_sequence *parts, const mln_string *s, size_t from,
                      size_t to) {
    mln_value part;
    return mln_string_view(run, s->data + from, to - from, &part) &&
           mln_sequence_push(run, parts, part);
}

/* Splits at runs of white space. */
static bool split_space(mln_run *run, const mln_string *s, int64_t limit, mln_sequence *parts) {
    size_t i = 0, size;
    uint32_t code;
    const unsigned char *data = (const unsigned char *)s->data;
    for (;;) {
        for (; i < s->length; i += size) {
            size = mln_utf8_decode(data + i, s->length - i, &code);
            if (!mln_is_space(code))
                break;
        }
        if (i == s->length)
            return true;
        size_t start = i;
        if (limit >= 0 && limit-- == 0) {
            mln_value rest;
            return mln_string_view(run, s->data + i, s->length - i, &rest) &&
                   mln_strip(run, rest.string, NULL, false, true, &rest) &&
                   mln_sequence_push(run, parts, rest);
        }
        for (; i < s->length; i += size) {
            size = mln_utf8_decode(data + i, s->length - i, &code);
            if (mln_is_space(code))
                break;
        }
        if (!push_part(run, parts, s, start, i))
            return false;
    }
}

static bool str_split(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    const mln_string *s = self.string, *separator;
    int64_t limit;
    mln_sequence *parts = mln_sequence_new(run, MLN_LIST, 0);
    if (!parts || !optional_string(run, args[0], &separator) ||
        !optional_integer(run, args[1], -1, &limit))
        return false;
    *out = mln_of_sequence(parts);
    if (!separator)
        return split_space(run, s, limit, parts);
    if (separator->length == 0)
        return mln_run_fail(run, "empty separator");
    size_t start = 0;
    for (; limit != 0; limit--) {
        size_t found =
            mln_find_bytes(s->data, s->length, separator->data, separator->length, start);
        if (found == SIZE_MAX)
            break;
        if (!push_part(run, parts, s, start, found))
            return false;
        start = found + separator->length;
    }
    return push_part(run, parts, s, start, s->length);
}

/* The last place of a part in s[0 .. end). */
static size_t find_last(const mln_string *s, const mln_string *part, size_t end) {
    if (part->length > end)
        return SIZE_MAX;
    for (size_t at = end - part->length + 1; at-- > 0;) {
        if (memcmp(s->data + at, part->data, part->length) == 0)
            return at;
    }
    return SIZE_MAX;
}

static bool rsplit_space(mln_run *run, const mln_string *s, int64_t limit, mln_sequence *parts) {
    mln_value rest, word;
    if (!mln_strip(run, s, NULL, true, true, &rest))
        return false;
    for (; rest.string->length && limit != 0; limit--) {
        const mln_string *r = rest.string;
        size_t start = r->length;
        while (start > 0) {
            size_t at = start - 1;
            uint32_t code;
            while (at > 0 && ((unsigned char)r->data[at] & 0xC0) == 0x80)
                at--;
            mln_utf8_decode((const unsigned char *)r->data + at, r->length - at, &code);
            if (mln_is_space(code))
                break;
            start = at;
        }
        if (!mln_string_view(run, r->data + start, r->length - start, &word) ||
            !mln_sequence_push(run, parts, word) || !mln_string_view(run, r->data, start, &rest) ||
            !mln_strip(run, rest.string, NULL, false, true, &rest))
            return false;
    }
    if (rest.string->length == 0)
        return true;
    return mln_sequence_push(run, parts, rest);
}

static void reverse(mln_sequence *s) {
    for (size_t i = 0; i < s->count / 2; i++) {
        mln_value item = s->items[i];
        s->items[i] = s->items[s->count - 1 - i];
        s->items[s->count - 1 - i] = item;
    }
}

static bool str_rsplit(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    const mln_string *s = self.string, *separator;
    int64_t limit;
    mln_sequence *parts = mln_sequence_new(run, MLN_LIST, 0);
    if (!parts || !optional_string(run, args[0], &separator) ||
        !optional_integer(run, args[1], -1, &limit))
        return false;
    *out = mln_of_sequence(parts);
    if (!separator) {
        if (!rsplit_space(run, s, limit, parts))
            return false;
        reverse(parts);
        return true;
    }
    if (separator->length == 0)
        return mln_run_fail(run, "empty separator");
    size_t end = s->length;
    if (!mln_run_spend(run, s->length / 16))
        return false;
    for (; limit != 0; limit--) {
        size_t found = find_last(s, separator, end);
        if (found == SIZE_MAX)
            break;
        if (!push_part(run, parts, s, found + separator->length, end))
            return false;
        end = found;
    }
    if (!push_part(run, parts, s, 0, end))
        return false;
    reverse(parts);
    return true;
}

static bool str_splitlines(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return mln_splitlines(run, self.string, mln_truth(args[0]), out);
}

/* startswith and endswith: a string, or a tuple of them. */
static bool begins_or_ends(mln_run *run, mln_value self, mln_value affix, bool end,
                           mln_value *out) {
    const mln_string *s = self.string;
    mln_sequence one = {.type = MLN_TUPLE, .count = 1, .items = &affix};
    const mln_sequence *all = mln_is_sequence(affix, MLN_TUPLE) ? affix.sequence : &one;
    *out = mln_bool(false);
    for (size_t i = 0; i < all->count; i++) {
        if (!need_string(run, all->items[i]))
            return false;
        const mln_string *part = all->items[i].string;
        if (part->length <= s->length &&
            memcmp(s->data + (end ? s->length - part->length : 0), part->data, part->length) == 0) {
            *out = mln_bool(true);
            return true;
        }
    }
    return true;
}
static bool str_startswith(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return begins_or_ends(run, self, args[0], false, out);
}
static bool str_endswith(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return begins_or_ends(run, self, args[0], true, out);
}

static bool remove_affix(mln_run *run, mln_value self, mln_value affix, bool end, mln_value *out) {
    mln_value has;
    if (!need_string(run, affix) || !begins_or_ends(run, self, affix, end, &has))
        return false;
    size_t cut = has.boolean ? affix.string->length : 0;
    return mln_string_view(run, self.string->data + (end ? 0 : cut), self.string->length - cut,
                           out);
}
static bool str_removeprefix(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return remove_affix(run, self, args[0], false, out);
}
static bool str_removesuffix(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return remove_affix(run, self, args[0], true, out);
}

static bool str_replace(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    int64_t count;
    return need_string(run, args[0]) && need_string(run, args[1]) &&
           optional_integer(run, args[2], -1, &count) &&
           mln_replace(run, self.string, args[0].string, args[1].string, count, out);
}

static int64_t points_before(const mln_string *s, size_t byte) {
    int64_t points = 0;
    for (size_t i = 0; i < byte; i++)
        points += ((unsigned char)s->data[i] & 0xC0) != 0x80;
    return points;
}

static bool str_find(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    if (!need_string(run, args[0]))
        return false;
    const mln_string *s = self.string, *part = args[0].string;
    size_t found = mln_find_bytes(s->data, s->length, part->data, part->length, 0);
    *out = mln_int(found == SIZE_MAX ? -1 : points_before(s, found));
    return mln_run_spend(run, s->length / 64);
}
static bool str_rfind(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    if (!need_string(run, args[0]) || !mln_run_spend(run, self.string->length / 16))
        return false;
    size_t found = find_last(self.string, args[0].string, self.string->length);
    *out = mln_int(found == SIZE_MAX ? -1 : points_before(self.string, found));
    return true;
}
static bool str_index(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return str_find(run, self, args, out) &&
           (out->integer >= 0 || mln_run_fail(run, "substring not found"));
}

static bool str_count(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    if (!need_string(run, args[0]))
        return false;
    const mln_string *s = self.string, *part = args[0].string;
    int64_t count = 0;
    if (part->length == 0) {
        *out = mln_int((int64_t)s->points + 1);
        return true;
    }
    for (size_t at = 0;
         (at = mln_find_bytes(s->data, s->length, part->data, part->length, at)) != SIZE_MAX;
         at += part->length)
        count++;
    *out = mln_int(count);
    return mln_run_spend(run, s->length / 64);
}

static bool join_into(mln_run *run, const mln_string *glue, const mln_sequence *items,
                      mln_buffer *text) {
    for (size_t i = 0; i < items->count; i++) {
        if (!need_string(run, items->items[i]) ||
            (i && !mln_text_add(run, text, glue->data, glue->length)) ||
            !mln_write_str(run, items->items[i], text))
            return false;
    }
    return true;
}
static bool str_join(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    mln_sequence *items;
    mln_buffer text = {0};
    if (!mln_iterate(run, args[0], &items))
        return false;
    if (join_into(run, self.string, items, &text))
        return mln_text_finish(run, &text, out);
    mln_buffer_free(&text);
    return false;
}

static bool part_at(mln_run *run, mln_value self, mln_value separator, bool last, mln_value *out) {
    if (!need_string(run, separator) || !mln_run_spend(run, self.string->length / 16))
        return false;
    const mln_string *s = self.string, *part = separator.string;
    if (part->length == 0)
        return mln_run_fail(run, "empty separator");
    size_t found = last ? find_last(s, part, s->length)
                        : mln_find_bytes(s->data, s->length, part->data, part->length, 0);
    mln_sequence *parts = mln_sequence_new(run, MLN_TUPLE, 3);
    if (!parts)
        return false;
    *out = mln_of_sequence(parts);
    if (found != SIZE_MAX)
        return push_part(run, parts, s, 0, found) && mln_sequence_push(run, parts, separator) &&
               push_part(run, parts, s, found + part->length, s->length);
    return push_part(run, parts, s, 0, last ? 0 : s->length) && push_part(run, parts, s, 0, 0) &&
           push_part(run, parts, s, 0, last ? s->length : 0);
}
static bool str_partition(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return part_at(run, self, args[0], false, out);
}
static bool str_rpartition(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    return part_at(run, self, args[0], true, out);
}

/* Whether all characters (at least one) are ASCII digits or white space, or letters. */
static bool all_of(mln_run *run, const mln_string *s, char kind, mln_value *out) {
    bool all = s->length != 0;
    for (size_t i = 0, size; i < s->length && all; i += size) {
        uint32_t code;
        size = mln_utf8_decode((const unsigned char *)s->data + i, s->length - i, &code);
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
        bool digit = category == UTF8PROC_CATEGORY_ND;
        bool letter = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
        all = kind == 'd'   ? digit
              : kind == 's' ? mln_is_space(code)
              : kind == 'a' ? letter
                            : letter || digit;
    }
    *out = mln_bool(all);
    return mln_run_spend(run, s->length / 16);
}
static bool str_isdigit(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return all_of(run, self.string, 'd', out);
}
static bool str_isspace(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return all_of(run, self.string, 's', out);
}
static bool str_isalpha(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return all_of(run, self.string, 'a', out);
}
static bool str_isalnum(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return all_of(run, self.string, 'n', out);
}

static bool seq_count(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    int64_t count = 0;
    for (size_t i = 0; i < self.sequence->count; i++) {
        bool same;
        if (!mln_equal(run, self.sequence->items[i], args[0], &same))
            return false;
        count += same;
    }
    *out = mln_int(count);
    return true;
}
static bool seq_index(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    for (size_t i = 0; i < self.sequence->count; i++) {
        bool same;
        if (!mln_equal(run, self.sequence->items[i], args[0], &same))
            return false;
        if (same) {
            *out = mln_int((int64_t)i);
            return true;
        }
    }
    return mln_run_fail(run, "the value is not in the %s", mln_type_name(self));
}

static bool dict_view(mln_run *run, mln_value self, mln_sequence_type type, mln_value *out) {
    const mln_dict *dict = self.dict;
    mln_sequence *view = mln_sequence_new(run, type, dict->count);
    if (!view || !mln_run_spend(run, dict->count))
        return false;
    for (size_t i = 0; i < dict->count; i++) {
        mln_value item = type == MLN_KEYS ? dict->pairs[i].key : dict->pairs[i].value;
        if (type == MLN_ITEMS) {
            mln_sequence *pair = mln_sequence_new(run, MLN_TUPLE, 2);
            if (!pair || !mln_sequence_push(run, pair, dict->pairs[i].key) ||
                !mln_sequence_push(run, pair, item))
                return false;
            item = mln_of_sequence(pair);
        }
        if (!mln_sequence_push(run, view, item))
            return false;
    }
    *out = mln_of_sequence(view);
    return true;
}
static bool dict_items(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return dict_view(run, self, MLN_ITEMS, out);
}
static bool dict_keys(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return dict_view(run, self, MLN_KEYS, out);
}
static bool dict_values(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    (void)args;
    return dict_view(run, self, MLN_VALUES, out);
}
static bool dict_get(mln_run *run, mln_value self, const mln_value *args, mln_value *out) {
    mln_value *found;
    if (!mln_dict_find(run, self.dict, args[0], &found))
        return false;
    *out = found ? *found : args[1].kind == MLN_V_MISSING ? mln_none() : args[1];
    return true;
}

static bool loop_cycle(mln_run *run, mln_value self, const mln_arguments *args, mln_value *out) {
    if (args->count == 0 || args->named_count)
        return mln_run_fail(run, "no items for cycling given");
    *out = args->values[(uint64_t)self.loop->index0 % args->count];
    return true;
}

static bool loop_changed(mln_run *run, mln_value self, const mln_arguments *args, mln_value *out) {
    mln_sequence *values = mln_sequence_new(run, MLN_TUPLE, 0);
    bool same = false;
    for (size_t i = 0; values && i < args->count; i++) {
        if (!mln_sequence_push(run, values, args->values[i]))
            return false;
    }
    if (!values || (self.loop->changed.kind != MLN_V_MISSING &&
                    !mln_equal(run, self.loop->changed, mln_of_sequence(values), &same)))
        return false;
    self.loop->changed = mln_of_sequence(values);
    *out = mln_bool(!same);
    return true;
}

/* S: str, L: list, T: tuple, D: dict, O: a loop. A name alone is known and not supported; "!": it
 * changes its object. */
static const struct {
    char type;
    const char *name, *parameters;
    size_t required;
    method_body *body;
} methods[] = {
    {'S', "strip", "chars", 0, str_strip},
    {'S', "lstrip", "chars", 0, str_lstrip},
    {'S', "rstrip", "chars", 0, str_rstrip},
    {'S', "upper", "", 0, str_upper},
    {'S', "lower", "", 0, str_lower},
    {'S', "title", "", 0, str_title},
    {'S', "capitalize", "", 0, str_capitalize},
    {'S', "split", "sep maxsplit", 0, str_split},
    {'S', "rsplit", "sep maxsplit", 0, str_rsplit},
    {'S', "splitlines", "keepends", 0, str_splitlines},
    {'S', "startswith", "prefix", 1, str_startswith},
    {'S', "endswith", "suffix", 1, str_endswith},
    {'S', "removeprefix", "prefix", 1, str_removeprefix},
    {'S', "removesuffix", "suffix", 1, str_removesuffix},
    {'S', "replace", "old new count", 2, str_replace},
    {'S', "find", "sub", 1, str_find},
    {'S', "rfind", "sub", 1, str_rfind},
    {'S', "index", "sub", 1, str_index},
    {'S', "count", "sub", 1, str_count},
    {'S', "join", "iterable", 1, str_join},
    {'S', "partition", "sep", 1, str_partition},
    {'S', "rpartition", "sep", 1, str_rpartition},
    {'S', "isdigit", "", 0, str_isdigit},
    {'S', "isspace", "", 0, str_isspace},
    {'S', "isalpha", "", 0, str_isalpha},
    {'S', "isalnum", "", 0, str_isalnum},
    {'S', "format", NULL, 0, NULL},
    {'S', "center", NULL, 0, NULL},
    {'S', "ljust", NULL, 0, NULL},
    {'S', "rjust", NULL, 0, NULL},
    {'S', "zfill", NULL, 0, NULL},
    {'S', "casefold", NULL, 0, NULL},
    {'S', "swapcase", NULL, 0, NULL},
    {'S', "encode", NULL, 0, NULL},
    {'L', "count", "value", 1, seq_count},
    {'L', "index", "value", 1, seq_index},
    {'L', "copy", NULL, 0, NULL},
    {'L', "append", "!", 0, NULL},
    {'L', "clear", "!", 0, NULL},
    {'L', "extend", "!", 0, NULL},
    {'L', "insert", "!", 0, NULL},
    {'L', "pop", "!", 0, NULL},
    {'L', "remove", "!", 0, NULL},
    {'L', "reverse", "!", 0, NULL},
    {'L', "sort", "!", 0, NULL},
    {'T', "count", "value", 1, seq_count},
    {'T', "index", "value", 1, seq_index},
    {'D', "items", "", 0, dict_items},
    {'D', "keys", "", 0, dict_keys},
    {'D', "values", "", 0, dict_values},
    {'D', "get", "key default", 1, dict_get},
    {'D', "copy", NULL, 0, NULL},
    {'D', "fromkeys", NULL, 0, NULL},
    {'D', "clear", "!", 0, NULL},
    {'D', "pop", "!", 0, NULL},
    {'D', "popitem", "!", 0, NULL},
    {'D', "setdefault", "!", 0, NULL},
    {'D', "update", "!", 0, NULL},
    {'O', "cycle", NULL, 0, NULL},
    {'O', "changed", NULL, 0, NULL},
};

static char type_letter(mln_value self) {
    switch (self.kind) {
    case MLN_V_STRING:
        return 'S';
    case MLN_V_DICT:
        return 'D';
    case MLN_V_LOOP:
        return 'O';
    case MLN_V_SEQUENCE:
        return self.sequence->type == MLN_LIST ? 'L' : self.sequence->type == MLN_TUPLE ? 'T' : 0;
    default:
        return 0;
    }
}

int mln_find_method(mln_value self, const mln_string *name) {
    char type = type_letter(self);
    for (size_t i = 0; type && i < sizeof methods / sizeof *methods; i++) {
        if (methods[i].type == type && mln_string_is(name, methods[i].name))
            return methods[i].parameters && methods[i].parameters[0] == '!' ? -2 : (int)i;
    }
    return -1;
}

const char *mln_method_name(int id) {
    return methods[id].name;
}

bool mln_call_method(mln_run *run, const mln_method *method, const mln_arguments *args,
                     mln_value *out) {
    mln_value bound[MAX_PARAMETERS];
    if (method->self.kind == MLN_V_LOOP)
        return strcmp(method->name, "cycle") == 0 ? loop_cycle(run, method->self, args, out)
                                                  : loop_changed(run, method->self, args, out);
    if (!methods[method->id].body)
        return mln_run_fail(run, "method '%s' of '%s' is not supported", method->name,
                            mln_type_name(method->self));
    return mln_bind(run, args, method->name, methods[method->id].parameters,
                    methods[method->id].required, bound) &&
           methods[method->id].body(run, method->self, bound, out);
}
