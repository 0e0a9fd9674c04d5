/* SPDX-License-Identifier: Apache-2.0 */
#include "text/char_automaton.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/utf8.h"

enum { LAST_CHARACTER = 0x10FFFF };

void mln_chars_free(mln_chars *c) {
    free(c->bounds);
    free(c->next);
    free(c->accepts);
    *c = (mln_chars){0};
}

static myelin_status no_memory(myelin_error *error) {
    return mln_fail_memory(error, MLN_CHARS_MAX_STATES * sizeof(uint32_t), "a pattern");
}

static myelin_status too_large(myelin_error *error) {
    return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                    "it is too large: expected at most %d states", MLN_CHARS_MAX_STATES);
}

myelin_status mln_chars_work(uint64_t *work, uint64_t steps, myelin_error *error) {
    if (steps > *work)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "it is too large: expected automata of fewer or simpler states");
    *work -= steps;
    return MYELIN_OK;
}

myelin_status mln_chars_add_state(mln_chars *c, bool accepts, uint32_t *index,
                                  myelin_error *error) {
    if (c->num_states == MLN_CHARS_MAX_STATES ||
        ((uint64_t)c->num_states + 1) * c->num_classes > MLN_CHARS_MAX_STEPS)
        return too_large(error);
    if (c->num_states == c->capacity) {
        uint32_t capacity = c->capacity ? 2 * c->capacity : 16;
        uint32_t *next = mln_realloc(c->next, (size_t)capacity * c->num_classes, sizeof *next);
        if (next)
            c->next = next;
        bool *accept = mln_realloc(c->accepts, capacity, sizeof *accept);
        if (accept)
            c->accepts = accept;
        if (!next || !accept)
            return no_memory(error);
        c->capacity = capacity;
    }
    *index = c->num_states++;
    c->accepts[*index] = accepts;
    memset(c->next + (size_t)*index * c->num_classes, 0xFF, c->num_classes * sizeof *c->next);
    return MYELIN_OK;
}

static int compare_numbers(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

myelin_status mln_chars_begin(mln_chars *c, const uint32_t *bounds, size_t count,
                              myelin_error *error) {
    *c = (mln_chars){0};
    c->bounds = mln_alloc(count + 1, sizeof *c->bounds);
    if (!c->bounds)
        return no_memory(error);
    c->bounds[0] = 0;
    if (count)
        memcpy(c->bounds + 1, bounds, count * sizeof *bounds);
    qsort(c->bounds, count + 1, sizeof *c->bounds, compare_numbers);
    for (size_t i = 0; i <= count; i++)
        if (c->bounds[i] <= LAST_CHARACTER &&
            (c->num_classes == 0 || c->bounds[i] > c->bounds[c->num_classes - 1]))
            c->bounds[c->num_classes++] = c->bounds[i];
    return MYELIN_OK;
}

static uint32_t class_of(const mln_chars *c, uint32_t code) {
    uint32_t low = 0, high = c->num_classes;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (c->bounds[middle] <= code)
            low = middle;
        else
            high = middle;
    }
    return low;
}

bool mln_chars_accept(const mln_chars *c, const char *text, size_t length) {
    uint32_t at = 0, code;
    for (size_t i = 0; i < length;) {
        size_t n = mln_utf8_decode((const unsigned char *)text + i, length - i, &code);
        if (n == 0)
            return false;
        i += n;
        at = c->next[(size_t)at * c->num_classes + class_of(c, code)];
        if (at == MLN_CHARS_DEAD)
            return false;
    }
    return c->accepts[at];
}

myelin_status mln_chars_length(mln_chars *c, uint32_t least, uint32_t most, myelin_error *error) {
    uint32_t last = most == MLN_NO_LIMIT ? least : most, index = 0;
    myelin_status status = mln_chars_begin(c, NULL, 0, error);
    for (uint32_t n = 0; status == MYELIN_OK && n <= last; n++) {
        status = mln_chars_add_state(c, n >= least, &index, error);
        if (status == MYELIN_OK && n > 0)
            c->next[n - 1] = n;
    }
    if (status == MYELIN_OK && most == MLN_NO_LIMIT)
        c->next[last] = last;
    return status;
}

/* One string less. State 1 is where all strings but the given ones have come. */
static myelin_status except(mln_chars *c, const char *text, myelin_error *error) {
    uint32_t at = 0, code;
    size_t length = strlen(text);
    for (size_t i = 0; i < length;) {
        size_t n = mln_utf8_decode((const unsigned char *)text + i, length - i, &code);
        i += n ? n : 1;
        size_t place = (size_t)at * c->num_classes + class_of(c, code);
        uint32_t to = c->next[place];
        if (to == 1) {
            myelin_status status = mln_chars_add_state(c, true, &to, error);
            if (status != MYELIN_OK)
                return status;
            for (uint32_t k = 0; k < c->num_classes; k++)
                c->next[(size_t)to * c->num_classes + k] = 1;
            c->next[place] = to;
        }
        at = to;
    }
    c->accepts[at] = false;
    return MYELIN_OK;
}

myelin_status mln_chars_except(mln_chars *c, const char *const *strings, size_t count,
                               myelin_error *error) {
    size_t total = 0, n = 0;
    for (size_t i = 0; i < count; i++)
        total += strlen(strings[i]);
    *c = (mln_chars){0};
    uint32_t *bounds = mln_alloc(2 * total, sizeof *bounds);
    if (!bounds)
        return no_memory(error);
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(strings[i]);
        for (size_t k = 0; k < length;) {
            uint32_t code;
            size_t size = mln_utf8_decode((const unsigned char *)strings[i] + k, length - k, &code);
            k += size ? size : 1;
            bounds[n++] = code;
            bounds[n++] = code + 1;
        }
    }
    myelin_status status = mln_chars_begin(c, bounds, n, error);
    free(bounds);
    uint32_t index = 0;
    for (int i = 0; i < 2 && status == MYELIN_OK; i++)
        status = mln_chars_add_state(c, true, &index, error);
    if (status != MYELIN_OK)
        return status;
    for (uint32_t k = 0; k < 2 * c->num_classes; k++)
        c->next[k] = 1;
    for (size_t i = 0; i < count && status == MYELIN_OK; i++)
        status = except(c, strings[i], error);
    return status;
}

/* The product of two automata while it is made: pairs of states, found through a hash table. */
typedef struct product {
    const mln_chars *a, *b;
    mln_chars out;
    uint64_t *pairs; /* [num_states] */
    uint32_t *slots; /* [NUM_SLOTS]: state + 1 */
} product;

enum { NUM_SLOTS = 4 * MLN_CHARS_MAX_STATES };

static myelin_status pair_state(product *p, uint32_t a, uint32_t b, uint32_t *index,
                                myelin_error *error) {
    uint64_t pair = (uint64_t)a << 32 | b;
    uint32_t slot = (uint32_t)(pair * UINT64_C(0x9E3779B97F4A7C15) >> 40) % NUM_SLOTS;
    for (; p->slots[slot]; slot = (slot + 1) % NUM_SLOTS) {
        if (p->pairs[p->slots[slot] - 1] == pair) {
            *index = p->slots[slot] - 1;
            return MYELIN_OK;
        }
    }
    myelin_status status =
        mln_chars_add_state(&p->out, p->a->accepts[a] && p->b->accepts[b], index, error);
    if (status != MYELIN_OK)
        return status;
    p->pairs[*index] = pair;
    p->slots[slot] = *index + 1;
    return MYELIN_OK;
}

static myelin_status fill_product(product *p, uint64_t *work, myelin_error *error) {
    uint32_t index;
    myelin_status status = pair_state(p, 0, 0, &index, error);
    for (uint32_t s = 0; status == MYELIN_OK && s < p->out.num_states; s++) {
        status = mln_chars_work(work, 4 * (uint64_t)p->out.num_classes, error);
        uint32_t a = (uint32_t)(p->pairs[s] >> 32), b = (uint32_t)p->pairs[s];
        for (uint32_t k = 0; status == MYELIN_OK && k < p->out.num_classes; k++) {
            uint32_t code = p->out.bounds[k];
            uint32_t x = p->a->next[(size_t)a * p->a->num_classes + class_of(p->a, code)];
            uint32_t y = p->b->next[(size_t)b * p->b->num_classes + class_of(p->b, code)];
            if (x == MLN_CHARS_DEAD || y == MLN_CHARS_DEAD)
                continue;
            status = pair_state(p, x, y, &index, error);
            if (status == MYELIN_OK)
                p->out.next[(size_t)s * p->out.num_classes + k] = index;
        }
    }
    return status;
}

myelin_status mln_chars_intersect(mln_chars *chars, const mln_chars *other, uint64_t *work,
                                  myelin_error *error) {
    product p = {.a = chars, .b = other};
    size_t count = chars->num_classes + other->num_classes;
    uint32_t *bounds = mln_alloc(count, sizeof *bounds);
    p.pairs = mln_alloc(MLN_CHARS_MAX_STATES, sizeof *p.pairs);
    p.slots = mln_calloc(NUM_SLOTS, sizeof *p.slots);
    myelin_status status = bounds && p.pairs && p.slots ? MYELIN_OK : no_memory(error);
    if (status == MYELIN_OK) {
        memcpy(bounds, chars->bounds, chars->num_classes * sizeof *bounds);
        memcpy(bounds + chars->num_classes, other->bounds, other->num_classes * sizeof *bounds);
        status = mln_chars_begin(&p.out, bounds, count, error);
    }
    if (status == MYELIN_OK)
        status = fill_product(&p, work, error);
    free(bounds);
    free(p.pairs);
    free(p.slots);
    if (status != MYELIN_OK) {
        mln_chars_free(&p.out);
        return status;
    }
    mln_chars_free(chars);
    *chars = p.out;
    return MYELIN_OK;
}

/* Edges for all UTF-8 of `size` bytes between two characters whose UTF-8 has that size. */
static void utf8_range(mln_graph *g, uint32_t from, const unsigned char *low,
                       const unsigned char *high, size_t size, uint32_t to) {
    if (size == 1) {
        mln_graph_bytes(g, from, low[0], high[0], to);
        return;
    }
    static const unsigned char first[] = {0x80, 0x80, 0x80}, last[] = {0xBF, 0xBF, 0xBF};
    if (low[0] == high[0]) {
        uint32_t node = mln_graph_node(g);
        mln_graph_bytes(g, from, low[0], low[0], node);
        utf8_range(g, node, low + 1, high + 1, size - 1, to);
        return;
    }
    unsigned begin = low[0], end = high[0];
    if (memcmp(low + 1, first, size - 1) != 0) {
        uint32_t node = mln_graph_node(g);
        mln_graph_bytes(g, from, begin, begin, node);
        utf8_range(g, node, low + 1, last, size - 1, to);
        begin++;
    }
    if (memcmp(high + 1, last, size - 1) != 0) {
        uint32_t node = mln_graph_node(g);
        mln_graph_bytes(g, from, end, end, node);
        utf8_range(g, node, first, high + 1, size - 1, to);
        end--;
    }
    if (begin <= end) {
        uint32_t node = mln_graph_node(g);
        mln_graph_bytes(g, from, begin, end, node);
        utf8_range(g, node, first, last, size - 1, to);
    }
}

void mln_graph_utf8(mln_graph *g, uint32_t from, uint32_t low, uint32_t high, uint32_t to) {
    static const uint32_t ends[] = {0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF, LAST_CHARACTER};
    uint32_t begin = 0;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; begin = ends[i++] + 1) {
        uint32_t a = low > begin ? low : begin, b = high < ends[i] ? high : ends[i];
        unsigned char x[MLN_UTF8_MAX], y[MLN_UTF8_MAX];
        if (a > b || ends[i] == 0xDFFF)
            continue;
        size_t size = mln_utf8_encode(a, x);
        mln_utf8_encode(b, y);
        utf8_range(g, from, x, y, size, to);
    }
}

/* The escape of a character that has to be escaped. */
static void escaped(mln_graph *g, uint32_t from, uint32_t code, uint32_t to) {
    static const char hex[] = "0123456789ABCDEF";
    static const char letters[] = "btn\0fr"; /* of U+0008 and on */
    char text[8] = "\\u00";
    size_t length = 2;
    if (code == '"' || code == '\\')
        text[1] = (char)code;
    else if (code >= 8 && code <= 13 && letters[code - 8])
        text[1] = letters[code - 8];
    else {
        text[4] = hex[code >> 4];
        text[5] = hex[code & 15];
        length = 6;
    }
    uint32_t node = mln_graph_word(g, from, text, length - 1);
    mln_graph_bytes(g, node, (unsigned char)text[length - 1], (unsigned char)text[length - 1], to);
}

void mln_graph_character(mln_graph *g, uint32_t from, uint32_t low, uint32_t high, uint32_t to) {
    for (uint32_t code = low ? low : 1; code < 0x20 && code <= high; code++)
        escaped(g, from, code, to);
    static const uint32_t parts[][2] = {
        {0x20, '"' - 1}, {'"' + 1, '\\' - 1}, {'\\' + 1, LAST_CHARACTER}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        uint32_t a = low > parts[i][0] ? low : parts[i][0];
        uint32_t b = high < parts[i][1] ? high : parts[i][1];
        if (a <= b)
            mln_graph_utf8(g, from, a, b, to);
    }
    if (low <= '"' && '"' <= high)
        escaped(g, from, '"', to);
    if (low <= '\\' && '\\' <= high)
        escaped(g, from, '\\', to);
}

/* Whether every character that stands for itself leads back to the state. */
static bool keeps_plain(const mln_chars *c, uint32_t state) {
    for (uint32_t k = class_of(c, 0x20); k < c->num_classes; k++)
        if (c->next[(size_t)state * c->num_classes + k] != state)
            return false;
    return true;
}

/* Marks the states from which an accepting one can be reached. */
static bool *find_live(const mln_chars *c) {
    bool *live = mln_alloc(c->num_states, sizeof *live);
    if (!live)
        return NULL;
    memcpy(live, c->accepts, c->num_states * sizeof *live);
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t s = c->num_states; s-- > 0;) {
            for (uint32_t k = 0; k < c->num_classes && !live[s]; k++) {
                uint32_t to = c->next[(size_t)s * c->num_classes + k];
                live[s] = to != MLN_CHARS_DEAD && live[to];
                changed = changed || live[s];
            }
        }
    }
    return live;
}

static void write_state(const mln_chars *c, mln_graph *g, const uint32_t *nodes, const bool *live,
                        uint32_t s) {
    const uint32_t *next = c->next + (size_t)s * c->num_classes;
    for (uint32_t k = 0, end; k < c->num_classes; k = end) {
        for (end = k + 1; end < c->num_classes && next[end] == next[k];)
            end++;
        uint32_t high = end < c->num_classes ? c->bounds[end] - 1 : LAST_CHARACTER;
        if (next[k] != MLN_CHARS_DEAD && live[next[k]])
            mln_graph_character(g, nodes[s], c->bounds[k], high, nodes[next[k]]);
    }
}

void mln_chars_write(const mln_chars *c, mln_graph *g, uint32_t from, uint32_t to) {
    bool *live = find_live(c);
    uint32_t *nodes = mln_alloc(c->num_states, sizeof *nodes);
    if (!live || !nodes) {
        g->failed = MLN_GRAPH_NO_MEMORY;
        free(live);
        free(nodes);
        return;
    }
    for (uint32_t s = 0; s < c->num_states; s++) {
        nodes[s] = live[s] ? mln_graph_node(g) : 0;
        if (nodes[s] && keeps_plain(c, s))
            g->nodes[nodes[s]].plain = MLN_NO_LIMIT;
    }
    mln_graph_bytes(g, from, '"', '"', nodes[0]);
    for (uint32_t s = 0; s < c->num_states && !g->failed; s++) {
        if (!live[s])
            continue;
        write_state(c, g, nodes, live, s);
        if (c->accepts[s])
            mln_graph_bytes(g, nodes[s], '"', '"', to);
    }
    free(live);
    free(nodes);
}
