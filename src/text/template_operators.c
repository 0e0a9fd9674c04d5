/* SPDX-License-Identifier: Apache-2.0 */
/* Operators, with Python's rules. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/template_run.h"

static bool unsupported(mln_run *run, const char *op, mln_value a, mln_value b) {
    return mln_run_fail(run, "unsupported operand type(s) for %s: '%s' and '%s'", op,
                        mln_type_name(a), mln_type_name(b));
}

static bool overflow(mln_run *run) {
    return mln_run_fail(run, "an integer does not fit in 64 bits");
}

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static bool integer_power(mln_run *run, int64_t base, int64_t exponent, mln_value *out) {
    if (exponent < 0) {
        if (base == 0)
            return mln_run_fail(run, "0.0 cannot be raised to a negative power");
        *out = mln_float(pow((double)base, (double)exponent));
        return true;
    }
    int64_t result = 1;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1 && __builtin_mul_overflow(result, base, &result))
            return overflow(run);
        if (exponent > 1 && __builtin_mul_overflow(base, base, &base))
            return overflow(run);
    }
    *out = mln_int(result);
    return true;
}

static bool integers(mln_run *run, int op, int64_t a, int64_t b, mln_value *out) {
    int64_t r = 0;
    bool bad = false;
    if ((op == '/' || op == MLN_OP_FLOOR || op == '%') && b == 0)
        return mln_run_fail(run, "division by zero");
    switch (op) {
    case '+':
        bad = __builtin_add_overflow(a, b, &r);
        break;
    case '-':
        bad = __builtin_sub_overflow(a, b, &r);
        break;
    case '*':
        bad = __builtin_mul_overflow(a, b, &r);
        break;
    case '/':
        *out = mln_float((double)a / (double)b);
        return true;
    case MLN_OP_FLOOR:
        bad = a == INT64_MIN && b == -1;
        r = bad ? 0 : floor_div(a, b);
        break;
    case '%':
        r = b == -1 ? 0 : a - floor_div(a, b) * b;
        break;
    default:
        return integer_power(run, a, b, out);
    }
    *out = mln_int(r);
    return !bad || overflow(run);
}

static double float_mod(double a, double b) {
    double r = fmod(a, b);
    if (r == 0)
        return copysign(0.0, b);
    return (r < 0) != (b < 0) ? r + b : r;
}

static bool reals(mln_run *run, int op, double a, double b, mln_value *out) {
    double r;
    if ((op == '/' || op == MLN_OP_FLOOR || op == '%') && b == 0)
        return mln_run_fail(run, "float division by zero");
    switch (op) {
    case '+':
        r = a + b;
        break;
    case '-':
        r = a - b;
        break;
    case '*':
        r = a * b;
        break;
    case '/':
        r = a / b;
        break;
    case MLN_OP_FLOOR:
        r = floor((a - float_mod(a, b)) / b + 0.25); /* nearly whole: not to fall one short */
        break;
    case '%':
        r = float_mod(a, b);
        break;
    default:
        r = pow(a, b);
        if (isnan(r) || (isinf(r) && !isinf(a) && !isinf(b)))
            return mln_run_fail(run, "the result of ** is out of range");
    }
    *out = mln_float(r);
    return true;
}

static bool repeat_string(mln_run *run, const mln_string *s, int64_t times, mln_value *out) {
    uint64_t length;
    if (times < 0)
        times = 0;
    if (__builtin_mul_overflow((uint64_t)s->length, (uint64_t)times, &length))
        length = UINT64_MAX;
    mln_string *result = mln_string_new(run, length);
    if (!result)
        return false;
    for (uint64_t at = 0; at < length; at += s->length)
        memcpy(result->data + at, s->data, s->length);
    result->points = s->points * (size_t)times;
    *out = mln_of_string(result);
    return true;
}

static bool repeat_list(mln_run *run, const mln_sequence *s, int64_t times, mln_value *out) {
    uint64_t count;
    if (times < 0)
        times = 0;
    if (__builtin_mul_overflow((uint64_t)s->count, (uint64_t)times, &count) ||
        !mln_run_spend(run, count))
        return mln_run_fail(run, "a list of too many items");
    mln_sequence *result = mln_sequence_new(run, s->type, (size_t)count);
    if (!result)
        return false;
    for (uint64_t i = 0; i < count; i++)
        result->items[i] = s->items[i % s->count];
    result->count = (size_t)count;
    *out = mln_of_sequence(result);
    return true;
}

static bool repeat(mln_run *run, mln_value a, mln_value b, mln_value *out) {
    mln_value thing = mln_is_integer(b) ? a : b, times = mln_is_integer(b) ? b : a;
    if (mln_is_integer(times) && thing.kind == MLN_V_STRING)
        return repeat_string(run, thing.string, mln_integer_of(times), out);
    if (mln_is_integer(times) && thing.kind == MLN_V_SEQUENCE && thing.sequence->type <= MLN_TUPLE)
        return repeat_list(run, thing.sequence, mln_integer_of(times), out);
    return unsupported(run, "*", a, b);
}

static bool add_strings(mln_run *run, mln_value a, mln_value b, mln_value *out) {
    bool safe = a.string->safe || b.string->safe;
    if ((safe && !a.string->safe && !mln_escape(run, a.string, &a)) ||
        (safe && !b.string->safe && !mln_escape(run, b.string, &b)))
        return false;
    mln_string *sum = mln_string_new(run, (uint64_t)a.string->length + b.string->length);
    if (!sum)
        return false;
    if (a.string->length)
        memcpy(sum->data, a.string->data, a.string->length);
    if (b.string->length)
        memcpy(sum->data + a.string->length, b.string->data, b.string->length);
    sum->points = a.string->points + b.string->points;
    sum->safe = safe;
    *out = mln_of_string(sum);
    return true;
}

static bool add(mln_run *run, mln_value a, mln_value b, mln_value *out) {
    if (a.kind == MLN_V_STRING && b.kind == MLN_V_STRING)
        return add_strings(run, a, b, out);
    if (a.kind == MLN_V_STRING)
        return mln_run_fail(run, "can only concatenate str (not \"%s\") to str", mln_type_name(b));
    if (a.kind != MLN_V_SEQUENCE || b.kind != MLN_V_SEQUENCE ||
        a.sequence->type != b.sequence->type || a.sequence->type > MLN_TUPLE)
        return unsupported(run, "+", a, b);
    size_t first = a.sequence->count, second = b.sequence->count;
    mln_sequence *result = mln_sequence_new(run, a.sequence->type, first + second);
    if (!result)
        return false;
    if (first)
        memcpy(result->items, a.sequence->items, first * sizeof *result->items);
    if (second)
        memcpy(result->items + first, b.sequence->items, second * sizeof *result->items);
    result->count = first + second;
    *out = mln_of_sequence(result);
    return true;
}

bool mln_binary(mln_run *run, int op, mln_value a, mln_value b, mln_value *out) {
    if (op == '%' && a.kind == MLN_V_STRING)
        return mln_percent(run, a.string, b, out);
    if (mln_is_undefined(a) || mln_is_undefined(b))
        return mln_fail_undefined(run, mln_is_undefined(a) ? a : b);
    if (mln_is_integer(a) && mln_is_integer(b))
        return integers(run, op, mln_integer_of(a), mln_integer_of(b), out);
    if (mln_is_number(a) && mln_is_number(b))
        return reals(run, op, mln_real_of(a), mln_real_of(b), out);
    if (op == '+')
        return add(run, a, b, out);
    if (op == '*')
        return repeat(run, a, b, out);
    char text[2] = {(char)op, '\0'};
    return unsupported(run, op == MLN_OP_FLOOR ? "//" : op == MLN_OP_POWER ? "**" : text, a, b);
}

bool mln_negate(mln_run *run, int op, mln_value a, mln_value *out) {
    if (mln_is_undefined(a))
        return mln_fail_undefined(run, a);
    if (!mln_is_number(a))
        return mln_run_fail(run, "bad operand type for unary %c: '%s'", op, mln_type_name(a));
    if (a.kind == MLN_V_FLOAT) {
        *out = mln_float(op == '-' ? -a.real : a.real);
        return true;
    }
    int64_t i = mln_integer_of(a);
    if (op == '-' && i == INT64_MIN)
        return overflow(run);
    *out = mln_int(op == '-' ? -i : i);
    return true;
}

bool mln_contains(mln_run *run, mln_value container, mln_value item, bool *out) {
    *out = false;
    if (container.kind == MLN_V_STRING) {
        if (item.kind != MLN_V_STRING)
            return mln_run_fail(run, "'in <string>' requires string as left operand, not %s",
                                mln_type_name(item));
        const mln_string *s = container.string, *part = item.string;
        *out = mln_find_bytes(s->data, s->length, part->data, part->length, 0) != SIZE_MAX;
        return mln_run_spend(run, s->length / 64);
    }
    if (container.kind == MLN_V_DICT) {
        mln_value *found;
        if (!mln_dict_find(run, container.dict, item, &found))
            return false;
        *out = found != NULL;
        return true;
    }
    mln_sequence *items;
    if (container.kind != MLN_V_SEQUENCE && !mln_is_undefined(container))
        return mln_run_fail(run, "argument of type '%s' is not iterable", mln_type_name(container));
    if (!mln_iterate(run, container, &items))
        return false;
    for (size_t i = 0; i < items->count && !*out; i++) {
        if (!mln_equal(run, items->items[i], item, out))
            return false;
    }
    return true;
}

bool mln_relation(mln_run *run, int op, mln_value a, mln_value b, bool *out) {
    int order;
    switch (op) {
    case MLN_OP_EQ:
        return mln_equal(run, a, b, out);
    case MLN_OP_NE:
        if (!mln_equal(run, a, b, out))
            return false;
        *out = !*out;
        return true;
    case MLN_OP_IN:
        return mln_contains(run, b, a, out);
    case MLN_OP_NOT_IN:
        if (!mln_contains(run, b, a, out))
            return false;
        *out = !*out;
        return true;
    default:
        break;
    }
    const char *name = op == MLN_OP_LE ? "<=" : op == MLN_OP_GE ? ">=" : op == '<' ? "<" : ">";
    if (!mln_compare(run, a, b, name, &order))
        return false;
    *out = order != 2 && ((op == MLN_OP_LE && order <= 0) || (op == MLN_OP_GE && order >= 0) ||
                          (op == MLN_OP_LT && order < 0) || (op == MLN_OP_GT && order > 0));
    return true;
}

/* Slices. */

typedef struct slice {
    int64_t start, step;
    size_t count;
} slice;

static int64_t clamp(int64_t i, int64_t length, bool down) {
    if (i < 0)
        i += length;
    if (i < 0)
        return down ? -1 : 0;
    return i >= length ? (down ? length - 1 : length) : i;
}

/* As Python's slice.indices. */
static slice resolve(const mln_value bounds[3], int64_t length) {
    int64_t step = bounds[2].kind == MLN_V_NONE ? 1 : mln_integer_of(bounds[2]);
    if (step < -INT64_MAX)
        step = -INT64_MAX;
    bool down = step < 0;
    int64_t start = bounds[0].kind == MLN_V_NONE ? (down ? length - 1 : 0)
                                                 : clamp(mln_integer_of(bounds[0]), length, down);
    int64_t stop = bounds[1].kind == MLN_V_NONE ? (down ? -1 : length)
                                                : clamp(mln_integer_of(bounds[1]), length, down);
    int64_t span = down ? start - stop : stop - start, size = down ? -step : step;
    return (slice){start, step, span > 0 ? (size_t)((span - 1) / size + 1) : 0};
}

static bool slice_string(mln_run *run, const mln_string *s, slice r, mln_value *out) {
    if (r.count == 0)
        return mln_string_view(run, "", 0, out);
    if (r.step == 1) {
        size_t from = mln_string_byte(s, (size_t)r.start);
        size_t to = mln_string_byte(s, (size_t)r.start + r.count);
        return mln_run_spend(run, s->length / 64) &&
               mln_string_view(run, s->data + from, to - from, out);
    }
    size_t *starts = mln_run_alloc(run, s->points + 1, sizeof *starts), n = 0;
    if (!starts)
        return false;
    for (size_t i = 0; i < s->length; i++) {
        if (((unsigned char)s->data[i] & 0xC0) != 0x80)
            starts[n++] = i;
    }
    starts[n] = s->length;
    mln_string *result = mln_string_new(run, s->length);
    if (!result)
        return false;
    result->length = 0;
    int64_t point = r.start;
    for (size_t i = 0; i < r.count; i++, point += i < r.count ? r.step : 0) {
        size_t size = starts[point + 1] - starts[point];
        memcpy(result->data + result->length, s->data + starts[point], size);
        result->length += size;
    }
    result->points = r.count;
    *out = mln_of_string(result);
    return true;
}

bool mln_slice(mln_run *run, mln_value v, const mln_value bounds[3], mln_value *out) {
    if (mln_is_undefined(v))
        return mln_fail_undefined(run, v);
    bool indices = true;
    for (int i = 0; i < 3; i++)
        indices = indices && (bounds[i].kind == MLN_V_NONE || mln_is_integer(bounds[i]));
    bool listed = v.kind == MLN_V_SEQUENCE && v.sequence->type <= MLN_RANGE;
    if (!indices || (v.kind != MLN_V_STRING && !listed))
        return mln_run_fail(run, "a '%s' cannot be sliced so", mln_type_name(v));
    if (mln_is_integer(bounds[2]) && mln_integer_of(bounds[2]) == 0)
        return mln_run_fail(run, "slice step cannot be zero");
    if (v.kind == MLN_V_STRING)
        return slice_string(run, v.string, resolve(bounds, (int64_t)v.string->points), out);
    const mln_sequence *s = v.sequence;
    slice r = resolve(bounds, (int64_t)s->count);
    mln_sequence *result = mln_sequence_new(run, s->type, r.count);
    if (!result || !mln_run_spend(run, r.count))
        return false;
    for (size_t i = 0; i < r.count; i++)
        result->items[i] = s->items[r.start + (int64_t)i * r.step];
    result->count = r.count;
    if (s->type == MLN_RANGE) {
        result->start = s->start + r.start * s->step;
        result->step = s->step * r.step;
        result->stop = result->start + (int64_t)r.count * result->step;
    }
    *out = mln_of_sequence(result);
    return true;
}

/* format % args, with %s, %r, %d, %i and %%. */

static bool percent_item(mln_run *run, char kind, mln_value item, mln_buffer *text) {
    if (kind == 's')
        return mln_write_str(run, item, text);
    if (kind == 'r')
        return mln_write_repr(run, item, text);
    if (!mln_is_number(item))
        return mln_run_fail(run, "%%d format: a real number is required, not %s",
                            mln_type_name(item));
    if (item.kind == MLN_V_FLOAT && !(fabs(item.real) < 9e18))
        return overflow(run);
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%" PRId64,
                     item.kind == MLN_V_FLOAT ? (int64_t)item.real : mln_integer_of(item));
    return mln_text_add(run, text, digits, (size_t)n);
}

static bool percent_into(mln_run *run, const mln_string *format, mln_value args, mln_buffer *text) {
    bool tuple = mln_is_sequence(args, MLN_TUPLE);
    size_t count = tuple ? args.sequence->count : 1, used = 0;
    for (size_t i = 0; i < format->length; i++) {
        if (format->data[i] != '%') {
            if (!mln_text_add(run, text, format->data + i, 1))
                return false;
            continue;
        }
        char kind = ++i < format->length ? format->data[i] : '\0';
        if (kind == '%') {
            if (!mln_text_add(run, text, "%", 1))
                return false;
            continue;
        }
        if (!kind || !strchr("srdi", kind))
            return mln_run_fail(run, "only %%s, %%r, %%d and %%%% are supported in formats");
        if (used == count)
            return mln_run_fail(run, "not enough arguments for format string");
        if (!percent_item(run, kind, tuple ? args.sequence->items[used] : args, text))
            return false;
        used++;
    }
    bool extra = used < count && (tuple || (!mln_is_undefined(args) && args.kind != MLN_V_DICT &&
                                            args.kind != MLN_V_SEQUENCE));
    return !extra || mln_run_fail(run, "not all arguments converted during string formatting");
}

bool mln_percent(mln_run *run, const mln_string *format, mln_value args, mln_value *out) {
    mln_buffer text = {0};
    if (percent_into(run, format, args, &text))
        return mln_text_finish(run, &text, out);
    mln_buffer_free(&text);
    return false;
}
