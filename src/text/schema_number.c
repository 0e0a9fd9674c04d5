/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers between two bounds, digit by digit. The digits read so far compare with a bound's as
 * less, equal or greater, which with how many there are is all that has to be remembered. Numbers
 * without bounds may also have an exponent.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/schema.h"

enum {
    MAX_INTEGER_DIGITS = 19, /* of an integer: what int64_t holds */
    MAX_DIGITS = 15,         /* of another number: so many survive becoming a double */
    MAX_FREE_DIGITS = 17,    /* of a fraction without bounds */
    MAX_FREE_INTEGER = 18,   /* of what is before it */
    MAX_BOUND_FRACTION = 32
};

/* A decimal number: whole has no zeros at its beginning, fraction none at its end. */
typedef struct decimal {
    bool negative;
    char whole[MAX_INTEGER_DIGITS + 2], fraction[MAX_BOUND_FRACTION + 1];
} decimal;

typedef struct bound {
    bool given, open; /* open: the bound itself is out of it */
    decimal value;
} bound;

/* The order of the magnitudes of two decimals. */
static int compare_magnitudes(const decimal *a, const decimal *b) {
    size_t x = strlen(a->whole), y = strlen(b->whole);
    if (x != y)
        return x < y ? -1 : 1;
    int order = strcmp(a->whole, b->whole);
    return order != 0 ? order : strcmp(a->fraction, b->fraction);
}

static int compare_decimals(const decimal *a, const decimal *b) {
    if (a->negative != b->negative)
        return a->negative ? -1 : 1;
    int order = compare_magnitudes(a, b);
    return a->negative ? -order : order;
}

/* Digits with a point after the first `point` of them. False when they do not fit. */
static bool set_decimal(decimal *d, bool negative, const char *digits, int point) {
    int count = (int)strlen(digits);
    while (count > 0 && digits[count - 1] == '0')
        count--;
    int fraction = count > point ? count - point : 0;
    *d = (decimal){.negative = negative && count > 0};
    if (point > MAX_INTEGER_DIGITS + 1 || fraction > MAX_BOUND_FRACTION)
        return false;
    for (int i = 0; i < point; i++)
        d->whole[i] = i < count ? digits[i] : '0';
    if (point <= 0 || count == 0)
        memcpy(d->whole, "0", 2);
    for (int i = 0; i < fraction; i++)
        d->fraction[i] = point + i >= 0 ? digits[point + i] : '0';
    return true;
}

/* The shortest decimal that is this double. */
static bool decimal_of_real(decimal *d, double x) {
    char text[40], digits[24];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, x);
        if (strtod(text, NULL) == x)
            break;
    }
    size_t n = 0;
    const char *p = text + (text[0] == '-');
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    digits[n] = '\0';
    return set_decimal(d, x < 0, digits, x == 0 ? 1 : atoi(p + 1) + 1);
}

static bool decimal_of(decimal *d, const json_t *number) {
    char text[24];
    if (json_is_real(number))
        return decimal_of_real(d, json_real_value(number));
    json_int_t value = json_integer_value(number);
    snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, value);
    const char *digits = text + (text[0] == '-');
    return set_decimal(d, value < 0, digits, (int)strlen(digits));
}

/* Takes a keyword that bounds numbers into account: the strongest of its kind is kept. */
static void add_bound(mln_schema_compiler *c, const mln_schema_item *item, const char *keyword,
                      bool lower, bool integer, bound *kept) {
    const json_t *value = mln_schema_get(item, keyword);
    bound found = {.given = true, .open = strncmp(keyword, "exclusive", 9) == 0};
    if (!value)
        return;
    if (!json_is_number(value)) {
        mln_schema_refuse(c, item, keyword, "expected a number, found %s",
                          mln_json_type_name(value));
        return;
    }
    double x = json_number_value(value);
    if (x > 1e19 || x < -1e19) { /* beyond every number there is here, or never in its way */
        found.open = true;
        json_t *limit = json_real(x > 0 ? 1e19 : -1e19);
        decimal_of(&found.value, limit);
        json_decref(limit);
    } else if (!decimal_of(&found.value, value)) {
        mln_schema_refuse(c, item, keyword, "a number of so many digits is not supported");
        return;
    }
    size_t digits = strlen(found.value.whole) + strlen(found.value.fraction);
    if (found.open && !integer && digits > MAX_DIGITS && x <= 1e19 && x >= -1e19)
        mln_schema_refuse(c, item, keyword, "expected at most %d digits", MAX_DIGITS);
    int order = kept->given ? compare_decimals(&found.value, &kept->value) : 0;
    if (!kept->given || (lower ? order > 0 : order < 0) || (order == 0 && found.open))
        *kept = found;
}

static void find_bounds(mln_schema_compiler *c, const mln_schema_rule *rule, bool integer,
                        bound *low, bound *high) {
    *low = *high = (bound){0};
    for (size_t i = 0; i < rule->count && c->status == MYELIN_OK; i++) {
        add_bound(c, &rule->items[i], "minimum", true, integer, low);
        add_bound(c, &rule->items[i], "exclusiveMinimum", true, integer, low);
        add_bound(c, &rule->items[i], "maximum", false, integer, high);
        add_bound(c, &rule->items[i], "exclusiveMaximum", false, integer, high);
    }
}

bool mln_schema_number_fits(mln_schema_compiler *c, const mln_schema_rule *rule,
                            const json_t *number) {
    bound low, high;
    decimal value;
    find_bounds(c, rule, true, &low, &high);
    if (!decimal_of(&value, number))
        return !low.given && !high.given;
    int above = low.given ? compare_decimals(&value, &low.value) : 1;
    int below = high.given ? compare_decimals(&value, &high.value) : -1;
    return (above > 0 || (above == 0 && !low.open)) && (below < 0 || (below == 0 && !high.open));
}

/* How what was read compares with a bound: less, equal, greater. */
enum { NUM_ORDERS = 3 };

typedef enum phase { WHOLE, ZERO, POINT, FRACTION, NUM_PHASES } phase;

/* Where in a number: `whole` and `fraction` digits were read. */
typedef struct spot {
    phase at;
    int whole, fraction;
    int low, high; /* orders */
} spot;

/* Magnitudes from low to high being written into a graph. */
typedef struct magnitudes {
    mln_graph *graph;
    bound low, high;
    bool integer;
    uint32_t nodes[NUM_PHASES][MAX_INTEGER_DIGITS + 1][MAX_DIGITS + 1][NUM_ORDERS][NUM_ORDERS];
} magnitudes;

/* The order of the whole part, once it has ended, from that of its first digits. */
static int whole_order(const bound *b, int order, int digits) {
    int length = (int)strlen(b->value.whole);
    return digits != length ? (digits < length ? -1 : 1) : order;
}

static int next_order(int order, char mine, char other) {
    return order != 0 ? order : mine < other ? -1 : mine > other;
}

static int order_after(const bound *b, int order, const spot *s, char digit) {
    if (!b->given)
        return 0;
    if (s->at == WHOLE || s->at == ZERO) {
        bool beyond = s->whole >= (int)strlen(b->value.whole);
        return beyond ? order : next_order(order, digit, b->value.whole[s->whole]);
    }
    bool beyond = s->fraction >= (int)strlen(b->value.fraction);
    return next_order(order, digit, beyond ? '0' : b->value.fraction[s->fraction]);
}

static int final_order(const bound *b, int order, const spot *s) {
    if (s->at == WHOLE || s->at == ZERO)
        order = whole_order(b, order, s->whole);
    return order == 0 && (int)strlen(b->value.fraction) > s->fraction ? -1 : order;
}

static bool may_end(const magnitudes *m, const spot *s) {
    if (s->at == POINT || s->whole == 0)
        return false;
    int low = m->low.given ? final_order(&m->low, s->low, s) : 1;
    int high = m->high.given ? final_order(&m->high, s->high, s) : -1;
    return (low > 0 || (low == 0 && !m->low.open)) && (high < 0 || (high == 0 && !m->high.open));
}

static uint32_t node_at(magnitudes *m, spot s);

/* The digits that lead to one place have one edge. */
static void add_digits(magnitudes *m, const spot *s, uint32_t node, char first, phase at) {
    spot last = {0};
    char begin = first;
    for (char digit = first; digit <= '9'; digit++) {
        spot next = *s;
        next.low = order_after(&m->low, s->low, s, digit);
        next.high = order_after(&m->high, s->high, s, digit);
        next.at = at;
        if (at == FRACTION)
            next.fraction++;
        else
            next.whole++;
        if (digit > first && (next.low != last.low || next.high != last.high)) {
            mln_graph_bytes(m->graph, node, (unsigned)begin, (unsigned)digit - 1, node_at(m, last));
            begin = digit;
        }
        last = next;
    }
    mln_graph_bytes(m->graph, node, (unsigned)begin, '9', node_at(m, last));
}

static void add_point(magnitudes *m, const spot *s, uint32_t node) {
    spot next = *s;
    next.at = POINT;
    next.low = m->low.given ? whole_order(&m->low, s->low, s->whole) : 0;
    next.high = m->high.given ? whole_order(&m->high, s->high, s->whole) : 0;
    mln_graph_bytes(m->graph, node, '.', '.', node_at(m, next));
}

static void add_zero(magnitudes *m, const spot *s, uint32_t node) {
    spot next = {.at = ZERO,
                 .whole = 1,
                 .low = order_after(&m->low, 0, s, '0'),
                 .high = order_after(&m->high, 0, s, '0')};
    mln_graph_bytes(m->graph, node, '0', '0', node_at(m, next));
}

static uint32_t node_at(magnitudes *m, spot s) {
    uint32_t *known = &m->nodes[s.at][s.whole][s.fraction][s.low + 1][s.high + 1];
    if (*known)
        return *known;
    uint32_t node = *known = mln_graph_node(m->graph);
    if (node == 0)
        return 0;
    int digits = s.whole + s.fraction, most = m->integer ? MAX_INTEGER_DIGITS : MAX_DIGITS;
    if (may_end(m, &s))
        mln_graph_empty(m->graph, node, m->graph->end);
    if (s.at == WHOLE && s.whole == 0)
        add_zero(m, &s, node);
    if (s.at == WHOLE && digits < most)
        add_digits(m, &s, node, s.whole == 0 ? '1' : '0', WHOLE);
    if ((s.at == WHOLE || s.at == ZERO) && s.whole > 0 && !m->integer && digits < most)
        add_point(m, &s, node);
    if ((s.at == POINT || s.at == FRACTION) && digits < most)
        add_digits(m, &s, node, '0', FRACTION);
    return node;
}

static void add_magnitudes(mln_schema_compiler *c, uint32_t from, const bound *low,
                           const bound *high, bool integer) {
    magnitudes *m = mln_calloc(1, sizeof *m);
    if (!m) {
        mln_schema_no_memory(c);
        return;
    }
    m->graph = &c->graph;
    m->low = *low;
    m->high = *high;
    m->integer = integer;
    mln_graph_empty(&c->graph, from, node_at(m, (spot){.at = WHOLE}));
    free(m);
}

static const bound zero = {.given = true, .value = {.whole = "0"}};

/* Zero is written without a sign. */
static void add_signs(mln_schema_compiler *c, uint32_t from, const bound *low, const bound *high,
                      bool integer) {
    bool negative = !low->given || low->value.negative;
    bool positive = !high->given || !high->value.negative;
    if (negative) {
        bound least = zero, most = *low;
        least.open = true;
        if (high->given && high->value.negative)
            least = *high;
        uint32_t minus = mln_graph_node(&c->graph);
        mln_graph_bytes(&c->graph, from, '-', '-', minus);
        add_magnitudes(c, minus, &least, &most, integer);
    }
    if (positive) {
        bound least = low->given && !low->value.negative ? *low : (bound){0};
        add_magnitudes(c, from, &least, high, integer);
    }
}

/* `most` digits at most, one at least; then what `next` leads to. */
static uint32_t digits_to(mln_graph *g, int most, uint32_t next) {
    uint32_t after = 0;
    for (int i = 0; i < most; i++) {
        uint32_t node = mln_graph_node(g);
        mln_graph_empty(g, node, next);
        if (after)
            mln_graph_bytes(g, node, '0', '9', after);
        after = node;
    }
    uint32_t first = mln_graph_node(g);
    mln_graph_bytes(g, first, '0', '9', after);
    return first;
}

/* -12.5e+3: digits enough for everything a double tells apart, and an exponent it can hold. */
static uint32_t free_number(mln_graph *g) {
    uint32_t start = mln_graph_node(g), whole = mln_graph_node(g), exponent = mln_graph_node(g);
    uint32_t after_whole = mln_graph_node(g), sign = mln_graph_node(g);
    uint32_t power = digits_to(g, 2, g->end);
    mln_graph_empty(g, exponent, g->end);
    mln_graph_bytes(g, exponent, 'e', 'e', sign);
    mln_graph_bytes(g, exponent, 'E', 'E', sign);
    mln_graph_empty(g, sign, power);
    mln_graph_bytes(g, sign, '+', '+', power);
    mln_graph_bytes(g, sign, '-', '-', power);
    mln_graph_empty(g, after_whole, exponent);
    mln_graph_bytes(g, after_whole, '.', '.', digits_to(g, MAX_FREE_DIGITS, exponent));
    mln_graph_empty(g, start, whole);
    mln_graph_bytes(g, start, '-', '-', whole);
    mln_graph_bytes(g, whole, '0', '0', after_whole);
    uint32_t more = 0;
    for (int i = 0; i < MAX_FREE_INTEGER; i++) {
        uint32_t node = mln_graph_node(g);
        mln_graph_empty(g, node, after_whole);
        if (more)
            mln_graph_bytes(g, node, '0', '9', more);
        more = node;
    }
    mln_graph_bytes(g, whole, '1', '9', more);
    return start;
}

static uint32_t free_integer(mln_schema_compiler *c, const bound *low, const bound *high) {
    uint32_t node = mln_graph_node(&c->graph);
    add_signs(c, node, low, high, true);
    return node;
}

void mln_schema_number(mln_schema_compiler *c, const mln_schema_rule *rule, uint32_t from,
                       bool integer) {
    bound low, high;
    bound least = {.given = true, .value = {.negative = true, .whole = "9223372036854775808"}};
    bound most = {.given = true, .value = {.whole = "9223372036854775807"}};
    find_bounds(c, rule, integer, &low, &high);
    if (c->status != MYELIN_OK)
        return;
    if (!low.given && !high.given) {
        uint32_t *shared = integer ? &c->integer : &c->number;
        if (*shared == 0)
            *shared = integer ? free_integer(c, &least, &most) : free_number(&c->graph);
        mln_graph_call(&c->graph, from, *shared, c->graph.end);
        return;
    }
    if (integer && (!low.given || compare_decimals(&low.value, &least.value) < 0))
        low = least;
    if (integer && (!high.given || compare_decimals(&high.value, &most.value) > 0))
        high = most;
    bool empty = low.given && high.given && compare_decimals(&low.value, &high.value) > 0;
    if (!empty)
        add_signs(c, from, &low, &high, integer);
}
