/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions, as far as they are regular: read into a nondeterministic automaton, a piece
 * that is repeated being read once for each time, which is then made deterministic.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "text/char_automaton.h"

enum {
    LAST_CHARACTER = 0x10FFFF,
    MAX_RANGES = 1 << 15,   /* of all classes together */
    MAX_CLASS_RANGES = 512, /* of one */
    MAX_REPEATS = 4096      /* the number in braces */
};

typedef struct range {
    uint32_t low, high;
} range;

typedef enum piece_kind { FORK, RANGES, AT_BEGIN, AT_END, MATCH } piece_kind;

typedef struct piece {
    piece_kind kind;
    uint32_t out, other;   /* `other` of a fork, 0 when there is none */
    uint32_t first, count; /* ranges */
} piece;

typedef struct reader {
    const char *text;
    size_t length, at;
    int depth;
    piece *pieces; /* [MLN_PATTERN_MAX_STATES], 0 is none */
    uint32_t num_pieces;
    range *ranges; /* [MAX_RANGES] */
    uint32_t num_ranges;
    myelin_status status;
    myelin_error *error;
} reader;

/* A part read: what comes in at `in` goes on from the fork `out`. */
typedef struct part {
    uint32_t in, out;
} part;

static void refuse(reader *r, const char *what) {
    if (r->status == MYELIN_OK)
        r->status = mln_fail(r->error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                             "%s at byte %zu of it is not supported", what, r->at);
}

static uint32_t add_piece(reader *r, piece_kind kind) {
    if (r->status != MYELIN_OK)
        return 0;
    if (r->num_pieces == MLN_PATTERN_MAX_STATES) {
        r->status = mln_fail(r->error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                             "it is too large: expected at most %d states", MLN_PATTERN_MAX_STATES);
        return 0;
    }
    r->pieces[r->num_pieces] = (piece){.kind = kind};
    return r->num_pieces++;
}

static part empty_part(reader *r) {
    uint32_t fork = add_piece(r, FORK);
    return (part){fork, fork};
}

static part join(reader *r, part a, part b) {
    r->pieces[a.out].out = b.in;
    return (part){a.in, b.out};
}

static bool more(const reader *r) {
    return r->status == MYELIN_OK && r->at < r->length;
}

static char peek(const reader *r) {
    return r->at < r->length ? r->text[r->at] : '\0';
}

static bool take(reader *r, const char *literal) {
    size_t n = strlen(literal);
    if (r->length - r->at < n || memcmp(r->text + r->at, literal, n) != 0)
        return false;
    r->at += n;
    return true;
}

static uint32_t take_character(reader *r) {
    uint32_t code = 0;
    size_t n = mln_utf8_decode((const unsigned char *)r->text + r->at, r->length - r->at, &code);
    if (n == 0)
        refuse(r, "a byte that is no UTF-8");
    r->at += n ? n : 1;
    return code;
}

typedef struct class {
    range ranges[MAX_CLASS_RANGES];
    size_t count;
} class;

static void add_range(reader *r, class *c, uint32_t low, uint32_t high) {
    if (c->count == MAX_CLASS_RANGES)
        refuse(r, "a class of so many ranges");
    else
        c->ranges[c->count++] = (range){low, high};
}

static int compare_ranges(const void *a, const void *b) {
    const range *x = a, *y = b;
    return (x->low > y->low) - (x->low < y->low);
}

static void negate(reader *r, class *c) {
    class out = {.count = 0};
    uint32_t next = 0;
    qsort(c->ranges, c->count, sizeof *c->ranges, compare_ranges);
    for (size_t i = 0; i < c->count; i++) {
        if (c->ranges[i].low > next)
            add_range(r, &out, next, c->ranges[i].low - 1);
        if (c->ranges[i].high + 1 > next)
            next = c->ranges[i].high + 1;
    }
    if (next <= LAST_CHARACTER)
        add_range(r, &out, next, LAST_CHARACTER);
    *c = out;
}

static const range digits[] = {{'0', '9'}};
static const range word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
static const range space[] = {
    {9, 13},          {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
    {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
static const range line_ends[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

static void add_all(reader *r, class *c, const range *ranges, size_t count, bool negated) {
    class other = {.count = count};
    memcpy(other.ranges, ranges, count * sizeof *ranges);
    if (negated)
        negate(r, &other);
    for (size_t i = 0; i < other.count; i++)
        add_range(r, c, other.ranges[i].low, other.ranges[i].high);
}

#define ADD_ALL(r, c, ranges, negated)                                                             \
    add_all(r, c, ranges, sizeof(ranges) / sizeof *(ranges), negated)

/* \d and its like, after the backslash; false when it is none of them. */
static bool take_class_escape(reader *r, class *c) {
    char letter = peek(r);
    switch (letter) {
    case 'd':
    case 'D':
        ADD_ALL(r, c, digits, letter == 'D');
        break;
    case 'w':
    case 'W':
        ADD_ALL(r, c, word, letter == 'W');
        break;
    case 's':
    case 'S':
        ADD_ALL(r, c, space, letter == 'S');
        break;
    default:
        return false;
    }
    r->at++;
    return true;
}

static uint32_t take_hex(reader *r, int count) {
    uint32_t code = 0;
    for (int i = 0; i < count; i++) {
        char c = peek(r);
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 16;
        if (digit == 16) {
            refuse(r, "an escape without all its digits");
            return 0;
        }
        code = 16 * code + digit;
        r->at++;
    }
    if (code >= 0xD800 && code <= 0xDFFF)
        refuse(r, "half a surrogate pair");
    return code;
}

/* The character an escape stands for, after the backslash. */
static uint32_t take_escape(reader *r) {
    static const char names[] = "tnvfr";
    static const char codes[] = "\t\n\v\f\r";
    char c = peek(r);
    const char *name = c ? strchr(names, c) : NULL;
    if (name) {
        r->at++;
        return (uint32_t)codes[name - names];
    }
    if (take(r, "x"))
        return take_hex(r, 2);
    if (take(r, "u"))
        return take_hex(r, 4);
    if (c && strchr("^$\\.*+?()[]{}|/-\"'!#%&,:;<=>@_`~ ", c)) {
        r->at++;
        return (uint32_t)c;
    }
    refuse(r, c == 'b' || c == 'B'   ? "\\b or \\B"
              : c == 'p' || c == 'P' ? "\\p"
              : c >= '0' && c <= '9' ? "a backreference"
                                     : "an escape");
    return 0;
}

/* One end of a range in brackets, or a class escape: then false. */
static bool take_end(reader *r, class *c, uint32_t *code) {
    if (!take(r, "\\")) {
        *code = take_character(r);
        return true;
    }
    if (take_class_escape(r, c))
        return false;
    *code = take(r, "b") ? 8 : take_escape(r);
    return true;
}

static void read_brackets(reader *r, class *c) {
    bool negated = take(r, "^");
    uint32_t low, high;
    while (more(r) && peek(r) != ']') {
        if (!take_end(r, c, &low))
            continue;
        high = low;
        if (peek(r) == '-' && r->at + 1 < r->length && r->text[r->at + 1] != ']') {
            r->at++;
            if (!take_end(r, c, &high)) {
                add_range(r, c, '-', '-');
                high = low;
            }
        }
        if (high < low)
            refuse(r, "a range whose ends are the wrong way round");
        add_range(r, c, low, high);
    }
    if (!take(r, "]"))
        refuse(r, "a class without end");
    if (negated)
        negate(r, c);
}

static part class_part(reader *r, const class *c) {
    part p = {add_piece(r, RANGES), add_piece(r, FORK)};
    if (r->status != MYELIN_OK)
        return p;
    if (c->count > MAX_RANGES - r->num_ranges) {
        refuse(r, "a class of so many ranges");
        return p;
    }
    piece *ranges = &r->pieces[p.in];
    ranges->out = p.out;
    ranges->first = r->num_ranges;
    ranges->count = (uint32_t)c->count;
    memcpy(r->ranges + r->num_ranges, c->ranges, c->count * sizeof *c->ranges);
    r->num_ranges += (uint32_t)c->count;
    return p;
}

static part read_alternatives(reader *r);

static part read_group(reader *r) {
    if (peek(r) == '?' && !take(r, "?:")) {
        refuse(r, "a group with ?");
        return empty_part(r);
    }
    if (++r->depth > MLN_PATTERN_MAX_GROUPS)
        refuse(r, "so deep a group");
    part p = r->status == MYELIN_OK ? read_alternatives(r) : empty_part(r);
    r->depth--;
    if (!take(r, ")"))
        refuse(r, "a group without end");
    return p;
}

static part anchor(reader *r, piece_kind kind) {
    part p = {add_piece(r, kind), add_piece(r, FORK)};
    r->pieces[p.in].out = p.out;
    return p;
}

static part read_atom(reader *r) {
    class c = {.count = 0};
    if (take(r, "("))
        return read_group(r);
    if (take(r, "^"))
        return anchor(r, AT_BEGIN);
    if (take(r, "$"))
        return anchor(r, AT_END);
    if (take(r, "["))
        read_brackets(r, &c);
    else if (take(r, "."))
        ADD_ALL(r, &c, line_ends, true);
    else if (take(r, "\\")) {
        if (!take_class_escape(r, &c)) {
            uint32_t code = take_escape(r);
            add_range(r, &c, code, code);
        }
    } else if (strchr("*+?{", peek(r))) {
        refuse(r, "a quantifier of nothing");
    } else {
        uint32_t code = take_character(r);
        add_range(r, &c, code, code);
    }
    return class_part(r, &c);
}

static uint32_t take_number(reader *r) {
    uint32_t n = 0;
    if (peek(r) < '0' || peek(r) > '9')
        refuse(r, "a brace that begins no count");
    while (peek(r) >= '0' && peek(r) <= '9' && n <= MAX_REPEATS)
        n = 10 * n + (uint32_t)(r->text[r->at++] - '0');
    if (n > MAX_REPEATS)
        refuse(r, "so large a count");
    return n;
}

/* false: there is no quantifier. */
static bool take_quantifier(reader *r, uint32_t *least, uint32_t *most) {
    *least = 0;
    *most = MLN_NO_LIMIT;
    if (take(r, "?")) {
        *most = 1;
    } else if (take(r, "+")) {
        *least = 1;
    } else if (take(r, "{")) {
        *least = *most = take_number(r);
        if (take(r, ","))
            *most = peek(r) == '}' ? MLN_NO_LIMIT : take_number(r);
        if (!take(r, "}"))
            refuse(r, "a count without end");
        if (*most < *least)
            refuse(r, "a count whose ends are the wrong way round");
    } else if (!take(r, "*")) {
        return false;
    }
    take(r, "?"); /* the shortest match or the longest: there is one or there is none */
    if (more(r) && strchr("*+?{", peek(r)))
        refuse(r, "a quantifier of a quantifier");
    return true;
}

static part again(reader *r, size_t begin) {
    size_t end = r->at;
    r->at = begin;
    part p = read_atom(r);
    r->at = end;
    return p;
}

static void fork_to(reader *r, uint32_t from, uint32_t to) {
    r->pieces[from].other = to;
}

/* The atom at `begin`, `first` being its first reading, least to most times. */
static part repeat(reader *r, part first, size_t begin, uint32_t least, uint32_t most) {
    part all = empty_part(r);
    uint32_t copies = most == MLN_NO_LIMIT ? (least ? least : 1) : most;
    part end = empty_part(r);
    for (uint32_t i = 0; i < copies && r->status == MYELIN_OK; i++) {
        part one = i == 0 ? first : again(r, begin);
        if (i >= least)
            fork_to(r, all.out, end.in);
        all = join(r, all, one);
        if (i + 1 == copies && most == MLN_NO_LIMIT) {
            part back = empty_part(r); /* out of the atom, or into it once more */
            all = join(r, all, back);
            fork_to(r, all.out, one.in);
        }
    }
    return join(r, all, end);
}

static part read_sequence(reader *r) {
    part all = empty_part(r);
    while (more(r) && peek(r) != '|' && peek(r) != ')') {
        size_t begin = r->at;
        uint32_t least, most;
        part one = read_atom(r);
        if (take_quantifier(r, &least, &most))
            one = repeat(r, one, begin, least, most);
        all = join(r, all, one);
    }
    return all;
}

static part read_alternatives(reader *r) {
    part all = read_sequence(r);
    while (r->status == MYELIN_OK && take(r, "|")) {
        part other = read_sequence(r), fork = empty_part(r), end = empty_part(r);
        r->pieces[fork.in].out = all.in;
        r->pieces[fork.in].other = other.in;
        r->pieces[all.out].out = end.in;
        r->pieces[other.out].out = end.in;
        all = (part){fork.in, end.out};
    }
    return all;
}

/* Any characters may stand before and after a match. */
static uint32_t read_search(reader *r) {
    const range any[] = {{0, LAST_CHARACTER}};
    class c = {.count = 0};
    ADD_ALL(r, &c, any, false);
    part before = empty_part(r), after = empty_part(r), match = read_alternatives(r);
    part one = class_part(r, &c), two = class_part(r, &c);
    uint32_t final = add_piece(r, MATCH);
    if (r->status == MYELIN_OK && r->at < r->length)
        refuse(r, "a parenthesis that closes nothing");
    if (r->status != MYELIN_OK)
        return 0;
    r->pieces[before.in] = (piece){.kind = FORK, .out = match.in, .other = one.in};
    r->pieces[one.out].out = before.in;
    r->pieces[match.out].out = after.in;
    r->pieces[after.in] = (piece){.kind = FORK, .out = final, .other = two.in};
    r->pieces[two.out].out = after.in;
    return before.in;
}

/* Sets of pieces, one for each state of the deterministic automaton. */
typedef struct subset {
    const reader *r;
    mln_chars *out;
    uint16_t *members; /* those of all states, one after the other */
    size_t num_members, capacity;
    size_t *first;   /* [MLN_CHARS_MAX_STATES + 1] */
    uint32_t *slots; /* [NUM_SLOTS]: state + 1 */
    uint16_t *set;   /* [MLN_PATTERN_MAX_STATES]: the one being made, and */
    uint32_t *mark;  /* [MLN_PATTERN_MAX_STATES]: what is in it */
    uint32_t num_set, epoch;
    uint64_t work;  /* since it was last counted, */
    uint64_t *left; /* down from here */
} subset;

enum { NUM_SLOTS = 4 * MLN_CHARS_MAX_STATES };

static void add_to_set(subset *s, uint32_t index) {
    if (index == 0 || s->mark[index] == s->epoch)
        return;
    s->mark[index] = s->epoch;
    s->set[s->num_set++] = (uint16_t)index;
}

/* Follows what reads no character: anchors of the beginning and the end where they hold. */
static void close_from(subset *s, uint32_t begin, bool at_begin, bool at_end) {
    for (uint32_t i = begin; i < s->num_set; i++, s->work++) {
        const piece *p = &s->r->pieces[s->set[i]];
        if (p->kind == FORK) {
            add_to_set(s, p->out);
            add_to_set(s, p->other);
        } else if ((p->kind == AT_BEGIN && at_begin) || (p->kind == AT_END && at_end)) {
            add_to_set(s, p->out);
        }
    }
}

static bool has_match(const subset *s) {
    for (uint32_t i = 0; i < s->num_set; i++)
        if (s->r->pieces[s->set[i]].kind == MATCH)
            return true;
    return false;
}

static void drop_forks(subset *s) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->num_set; i++) {
        piece_kind kind = s->r->pieces[s->set[i]].kind;
        if (kind == RANGES || kind == MATCH || kind == AT_END)
            s->set[kept++] = s->set[i];
    }
    s->num_set = kept;
}

static int compare_members(const void *a, const void *b) {
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

static bool find_set(const subset *s, uint32_t *slot, uint32_t *index) {
    uint32_t hash = 0;
    for (uint32_t i = 0; i < s->num_set; i++)
        hash = (hash ^ s->set[i]) * UINT32_C(0x01000193) + (hash >> 13);
    for (*slot = hash % NUM_SLOTS; s->slots[*slot]; *slot = (*slot + 1) % NUM_SLOTS) {
        *index = s->slots[*slot] - 1;
        if (s->first[*index + 1] - s->first[*index] == s->num_set &&
            memcmp(s->members + s->first[*index], s->set, s->num_set * sizeof *s->set) == 0)
            return true;
    }
    return false;
}

/* The state of the set being made; DEAD for an empty one. */
static myelin_status set_state(subset *s, bool at_begin, uint32_t *index, myelin_error *error) {
    close_from(s, 0, at_begin, false);
    drop_forks(s);
    *index = MLN_CHARS_DEAD;
    if (s->num_set == 0)
        return MYELIN_OK;
    qsort(s->set, s->num_set, sizeof *s->set, compare_members);
    uint32_t slot, num_set = s->num_set;
    if (find_set(s, &slot, index))
        return MYELIN_OK;
    if (s->capacity - s->num_members < num_set) {
        size_t capacity = 2 * s->capacity + num_set;
        uint16_t *members = mln_realloc(s->members, capacity, sizeof *members);
        if (!members)
            return mln_fail_memory(error, capacity * sizeof *members, "a pattern");
        s->members = members;
        s->capacity = capacity;
    }
    memcpy(s->members + s->num_members, s->set, num_set * sizeof *s->set);
    s->num_members += num_set;
    close_from(s, 0, at_begin, true);
    myelin_status status = mln_chars_add_state(s->out, has_match(s), index, error);
    if (status != MYELIN_OK)
        return status;
    s->first[*index + 1] = s->num_members;
    if (!at_begin) /* a later set of the same members is elsewhere: it may not accept */
        s->slots[slot] = *index + 1;
    return MYELIN_OK;
}

static bool holds(const reader *r, const piece *p, uint32_t code) {
    for (uint32_t i = 0; i < p->count; i++)
        if (r->ranges[p->first + i].low <= code && code <= r->ranges[p->first + i].high)
            return true;
    return false;
}

static myelin_status fill_state(subset *s, uint32_t state, myelin_error *error) {
    uint32_t to;
    for (uint32_t k = 0; k < s->out->num_classes; k++) {
        s->num_set = 0;
        s->epoch++;
        for (size_t i = s->first[state]; i < s->first[state + 1]; i++) {
            const piece *p = &s->r->pieces[s->members[i]];
            s->work += 1 + p->count / 4;
            if (p->kind == RANGES && holds(s->r, p, s->out->bounds[k]))
                add_to_set(s, p->out);
        }
        myelin_status status = set_state(s, false, &to, error);
        if (status == MYELIN_OK)
            status = mln_chars_work(s->left, 1 + s->work, error);
        s->work = 0;
        if (status != MYELIN_OK)
            return status;
        s->out->next[(size_t)state * s->out->num_classes + k] = to;
    }
    return MYELIN_OK;
}

static myelin_status determinize(subset *s, uint32_t begin, myelin_error *error) {
    const reader *r = s->r;
    uint32_t *bounds = mln_alloc(2 * (size_t)r->num_ranges, sizeof *bounds), index;
    s->first = mln_calloc(MLN_CHARS_MAX_STATES + 1, sizeof *s->first);
    s->slots = mln_calloc(NUM_SLOTS, sizeof *s->slots);
    s->set = mln_calloc(MLN_PATTERN_MAX_STATES, sizeof *s->set);
    s->mark = mln_calloc(MLN_PATTERN_MAX_STATES, sizeof *s->mark);
    myelin_status status = MYELIN_OK;
    if (!bounds || !s->first || !s->slots || !s->set || !s->mark)
        status = mln_fail_memory(error, NUM_SLOTS * sizeof *s->slots, "a pattern");
    for (uint32_t i = 0; status == MYELIN_OK && i < r->num_ranges; i++) {
        bounds[2 * i] = r->ranges[i].low;
        bounds[2 * i + 1] = r->ranges[i].high + 1;
    }
    if (status == MYELIN_OK)
        status = mln_chars_begin(s->out, bounds, 2 * (size_t)r->num_ranges, error);
    free(bounds);
    if (status != MYELIN_OK)
        return status;
    s->epoch = 1;
    add_to_set(s, begin);
    status = set_state(s, true, &index, error);
    for (uint32_t n = 0; status == MYELIN_OK && n < s->out->num_states; n++)
        status = fill_state(s, n, error);
    return status;
}

myelin_status mln_chars_pattern(mln_chars *chars, const char *pattern, size_t length,
                                uint64_t *work, myelin_error *error) {
    *chars = (mln_chars){0};
    if (length > MLN_PATTERN_MAX_BYTES)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "it is too large: expected at most %d bytes", MLN_PATTERN_MAX_BYTES);
    reader r = {.text = pattern, .length = length, .num_pieces = 1, .error = error};
    r.pieces = mln_calloc(MLN_PATTERN_MAX_STATES, sizeof *r.pieces);
    r.ranges = mln_calloc(MAX_RANGES, sizeof *r.ranges);
    if (!r.pieces || !r.ranges)
        r.status = mln_fail_memory(error, MAX_RANGES * sizeof *r.ranges, "a pattern");
    uint32_t begin = r.status == MYELIN_OK ? read_search(&r) : 0;
    myelin_status status = r.status;
    subset s = {.r = &r, .out = chars, .left = work};
    if (status == MYELIN_OK)
        status = determinize(&s, begin, error);
    free(r.pieces);
    free(r.ranges);
    free(s.members);
    free(s.first);
    free(s.slots);
    free(s.set);
    free(s.mark);
    if (status != MYELIN_OK)
        mln_chars_free(chars);
    return status;
}
