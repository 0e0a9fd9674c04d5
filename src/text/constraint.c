/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A grammar's graph is followed along all its ways at once: a state is the set of places the text
 * so far may have reached, each a node, a count and a stack of calls. States, what a byte makes of
 * them and the masks they allow are kept as they are found, in memory of fixed size; when that is
 * full it is emptied, but for the present state.
 */
#include "text/constraint.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "text/grammar.h"
#include "text/internal.h"

enum {
    MAX_STATES = 2048,    /* kept */
    MAX_PLACES = 1 << 16, /* of all states kept */
    MAX_SET = 256,        /* places of one state: those beyond are not followed */
    MAX_WORK = 4 * MAX_SET,
    MAX_FRAMES = 8192,
    MAX_MASKS = 64,
    NUM_SLOTS = 4096,        /* of each hash table */
    NUM_SEEN = 4 * MAX_WORK, /* a power of two */
    PLACES_PER_STEP = 16,    /* a step of so many costs one of MAX_STEPS, and more the more */
    /*
     * Steps not known before that one mask may take: bounds the time that a hostile schema can take
     * to tens of milliseconds. Tokens not reached by then are not allowed; single bytes always are
     * reached.
     */
    MAX_STEPS = 1 << 16,
    UNKNOWN = 0,
    DEAD = 1,
    FIRST_STATE = 2,
    FULL = UINT16_MAX /* there is no room for what the step leads to */
};

typedef struct place {
    uint32_t node, count, stack;
} place;

/* A call that has not come back: interned, 0 is the bottom. */
typedef struct frame {
    uint32_t to, count, below;
    uint32_t depth, chain;
} frame;

typedef struct state {
    uint32_t first, num_places;
    uint32_t chain; /* in its slot of the hash table */
    int32_t mask;   /* or -1 */
    bool complete;
} state;

struct mln_constraint {
    const mln_grammar *grammar;
    int32_t vocab_size;
    size_t num_words; /* of a mask */
    uint32_t current;
    state *states;   /* [MAX_STATES] */
    place *places;   /* [MAX_PLACES] */
    frame *frames;   /* [MAX_FRAMES] */
    uint16_t *steps; /* [MAX_STATES][num_classes] */
    uint32_t num_states, num_places, num_frames;
    uint32_t state_slots[NUM_SLOTS], frame_slots[NUM_SLOTS];
    uint32_t *masks;                /* [MAX_MASKS][num_words] */
    uint32_t mask_owner[MAX_MASKS]; /* the state, or 0 */
    uint32_t next_mask;
    uint16_t *path;      /* [longest token + 1]: states along the way to a node of a tree, */
    uint8_t *path_bytes; /* [longest token]: and the bytes of the way */
    uint32_t steps_left;
    /* The set being made. */
    place set[MAX_SET];
    place work[MAX_WORK];
    uint32_t num_set, num_work;
    uint32_t seen[NUM_SEEN]; /* of the places in `work`: epoch * MAX_WORK + index */
    uint32_t epoch;
    bool set_complete, no_room;
    uint32_t moved[MAX_FRAMES]; /* where start_over() puts a frame */
};

static uint32_t mix(uint32_t hash, uint32_t value) {
    hash = (hash ^ value) * UINT32_C(0x9E3779B1);
    return hash ^ hash >> 15;
}

static void forget_all(mln_constraint *c) {
    memset(c->state_slots, 0, sizeof c->state_slots);
    memset(c->frame_slots, 0, sizeof c->frame_slots);
    memset(c->mask_owner, 0, sizeof c->mask_owner);
    c->num_states = FIRST_STATE;
    c->num_places = 0;
    c->num_frames = 1;
}

/* 0 when there is no room. */
static uint32_t push_frame(mln_constraint *c, uint32_t to, uint32_t count, uint32_t below) {
    uint32_t slot = mix(mix(mix(0, to), count), below) % NUM_SLOTS;
    for (uint32_t i = c->frame_slots[slot]; i; i = c->frames[i].chain)
        if (c->frames[i].to == to && c->frames[i].count == count && c->frames[i].below == below)
            return i;
    if (c->num_frames == MAX_FRAMES)
        return 0;
    uint32_t depth = (below ? c->frames[below].depth : 0) + 1;
    c->frames[c->num_frames] = (frame){to, count, below, depth, c->frame_slots[slot]};
    return c->frame_slots[slot] = c->num_frames++;
}

static uint32_t depth_of(const mln_constraint *c, uint32_t stack) {
    return stack ? c->frames[stack].depth : 0;
}

static void begin_set(mln_constraint *c) {
    c->num_work = 0;
    c->no_room = false;
    if (++c->epoch == UINT32_MAX / MAX_WORK) {
        memset(c->seen, 0, sizeof c->seen);
        c->epoch = 1;
    }
}

/* Adds a place to look at, unless it was there already or its end cannot be reached. */
static void reach(mln_constraint *c, uint32_t node, uint32_t count, uint32_t stack) {
    const mln_node *n = &c->grammar->graph.nodes[node];
    if (n->need + depth_of(c, stack) > MLN_GRAMMAR_MAX_DEPTH || c->num_work == MAX_WORK)
        return;
    uint32_t slot = mix(mix(mix(0, node), count), stack) % NUM_SEEN;
    for (; c->seen[slot] / MAX_WORK == c->epoch; slot = (slot + 1) % NUM_SEEN) {
        const place *p = &c->work[c->seen[slot] % MAX_WORK];
        if (p->node == node && p->count == count && p->stack == stack)
            return;
    }
    c->seen[slot] = c->epoch * MAX_WORK + c->num_work;
    c->work[c->num_work++] = (place){node, count, stack};
}

static void call(mln_constraint *c, const place *p, const mln_edge *edge) {
    const mln_graph *g = &c->grammar->graph;
    uint32_t depth = depth_of(c, p->stack);
    if (edge->to == g->end) { /* nothing is left to do here */
        reach(c, edge->value, 0, p->stack);
        return;
    }
    if (g->nodes[edge->to].need + depth > MLN_GRAMMAR_MAX_DEPTH ||
        g->nodes[edge->value].need + depth + 1 > MLN_GRAMMAR_MAX_DEPTH)
        return;
    uint32_t stack = push_frame(c, edge->to, p->count, p->stack);
    if (stack)
        reach(c, edge->value, 0, stack);
    else
        c->no_room = true;
}

/* Follows the edges that read nothing; whether the place can read a byte. */
static bool expand(mln_constraint *c, const place *p) {
    const mln_graph *g = &c->grammar->graph;
    const mln_node *node = &g->nodes[p->node];
    bool reads = false;
    for (uint32_t e = node->first; e; e = g->edges[e].next) {
        const mln_edge *edge = &g->edges[e];
        bool limited = edge->value != MLN_NO_LIMIT;
        switch ((mln_edge_kind)edge->kind) {
        case MLN_EDGE_BYTES:
            reads = true;
            break;
        case MLN_EDGE_EMPTY:
            reach(c, edge->to, p->count, p->stack);
            break;
        case MLN_EDGE_CALL:
            call(c, p, edge);
            break;
        case MLN_EDGE_MORE:
            if (!limited || p->count < edge->value)
                reach(c, edge->to, p->count + (limited || p->count < edge->least), p->stack);
            break;
        case MLN_EDGE_DONE:
            if (p->count >= edge->least)
                reach(c, edge->to, p->count, p->stack);
            break;
        }
    }
    return reads;
}

/* Makes the set of the places in `work` and of all that is reached from them without a byte. */
static void close_set(mln_constraint *c) {
    c->num_set = 0;
    c->set_complete = false;
    for (uint32_t i = 0; i < c->num_work; i++) {
        place p = c->work[i];
        bool reads = expand(c, &p);
        if (c->grammar->graph.nodes[p.node].final) {
            if (p.stack) {
                const frame *f = &c->frames[p.stack];
                reach(c, f->to, f->count, f->below);
            } else {
                c->set_complete = true;
            }
        }
        if (reads && c->num_set < MAX_SET)
            c->set[c->num_set++] = p;
    }
}

static bool is_set(const mln_constraint *c, const state *s) {
    return s->num_places == c->num_set && s->complete == c->set_complete &&
           memcmp(c->places + s->first, c->set, c->num_set * sizeof *c->set) == 0;
}

/* The state that is the set just made: DEAD, FULL or a state. */
static uint32_t intern_set(mln_constraint *c) {
    if (c->no_room)
        return FULL;
    if (c->num_set == 0 && !c->set_complete)
        return DEAD;
    uint32_t hash = c->set_complete;
    for (uint32_t i = 0; i < c->num_set; i++)
        hash = mix(mix(mix(hash, c->set[i].node), c->set[i].count), c->set[i].stack);
    hash %= NUM_SLOTS;
    for (uint32_t i = c->state_slots[hash]; i; i = c->states[i].chain)
        if (is_set(c, &c->states[i]))
            return i;
    if (c->num_states == MAX_STATES || MAX_PLACES - c->num_places < c->num_set)
        return FULL;
    uint32_t classes = c->grammar->num_classes, index = c->num_states++;
    c->states[index] = (state){.first = c->num_places,
                               .num_places = c->num_set,
                               .chain = c->state_slots[hash],
                               .mask = -1,
                               .complete = c->set_complete};
    memcpy(c->places + c->num_places, c->set, c->num_set * sizeof *c->set);
    c->num_places += c->num_set;
    memset(c->steps + (size_t)index * classes, 0, classes * sizeof *c->steps);
    return c->state_slots[hash] = index;
}

static uint32_t start_set(mln_constraint *c, uint32_t node) {
    begin_set(c);
    reach(c, node, 0, 0);
    close_set(c);
    return intern_set(c);
}

static uint32_t find_step(mln_constraint *c, uint32_t from, uint8_t byte) {
    const mln_graph *g = &c->grammar->graph;
    const state *s = &c->states[from];
    begin_set(c);
    for (uint32_t i = 0; i < s->num_places; i++) {
        place p = c->places[s->first + i];
        for (uint32_t e = g->nodes[p.node].first; e; e = g->edges[e].next) {
            const mln_edge *edge = &g->edges[e];
            if (edge->kind == MLN_EDGE_BYTES && edge->low <= byte && byte <= edge->high)
                reach(c, edge->to, p.count, p.stack);
        }
    }
    close_set(c);
    return intern_set(c);
}

/* What a byte makes of a state: DEAD, FULL or a state. */
static inline uint32_t step(mln_constraint *c, uint32_t from, uint8_t byte) {
    uint16_t *known =
        &c->steps[(size_t)from * c->grammar->num_classes + c->grammar->byte_class[byte]];
    if (*known != UNKNOWN)
        return *known;
    if (c->steps_left == 0)
        return DEAD;
    uint32_t to = find_step(c, from, byte), cost = 1 + c->num_work / PLACES_PER_STEP;
    c->steps_left -= cost < c->steps_left ? cost : c->steps_left;
    if (to != FULL)
        *known = (uint16_t)to;
    return to;
}

/* Moves the frames that the set kept stands on to the beginning of their array, in their order. */
static void keep_frames(mln_constraint *c) {
    uint32_t count = c->num_frames;
    memset(c->moved, 0, count * sizeof *c->moved);
    for (uint32_t i = 0; i < c->num_set; i++)
        for (uint32_t f = c->set[i].stack; f && !c->moved[f]; f = c->frames[f].below)
            c->moved[f] = 1;
    c->num_frames = 1;
    for (uint32_t f = 1; f < count; f++) {
        const frame *old = &c->frames[f];
        if (c->moved[f])
            c->moved[f] = push_frame(c, old->to, old->count, c->moved[old->below]);
    }
    for (uint32_t i = 0; i < c->num_set; i++)
        c->set[i].stack = c->moved[c->set[i].stack];
}

/* Forgets all but the present state, whose number changes. */
static void start_over(mln_constraint *c) {
    const state *s = &c->states[c->current];
    c->num_set = s->num_places;
    c->set_complete = s->complete;
    c->no_room = false;
    memcpy(c->set, c->places + s->first, c->num_set * sizeof *c->set);
    uint32_t num_frames = c->num_frames;
    forget_all(c);
    c->num_frames = num_frames;
    keep_frames(c);
    c->current = intern_set(c); /* there is room for one */
}

/*
 * step() from path[depth] by the byte there. When there is no room, room is made and the path is
 * found again from the present state; when that fails too, nothing leads on.
 */
static uint32_t step_on_path(mln_constraint *c, size_t depth) {
    uint32_t to = step(c, c->path[depth], c->path_bytes[depth]);
    if (to != FULL)
        return to;
    start_over(c);
    c->path[0] = (uint16_t)c->current;
    for (size_t d = 0;; d++) {
        to = step(c, c->path[d], c->path_bytes[d]);
        if (to == FULL || to == DEAD || d == depth)
            return to == FULL ? DEAD : to;
        c->path[d + 1] = (uint16_t)to;
    }
}

/* Sets the bits of the tree's tokens that may follow. */
static void walk(mln_constraint *c, const mln_trie *trie, uint32_t *mask) {
    const mln_trie_node *nodes = trie->nodes;
    c->path[0] = (uint16_t)c->current;
    for (size_t i = 0; i < trie->num_nodes;) {
        size_t depth = nodes[i].depth;
        c->path_bytes[depth] = nodes[i].byte;
        uint32_t to = step_on_path(c, depth);
        if (to == DEAD) {
            i = nodes[i].skip;
            continue;
        }
        c->path[depth + 1] = (uint16_t)to;
        for (uint32_t k = nodes[i].first; k < nodes[i + 1].first; k++)
            mask[trie->ids[k] / 32] |= UINT32_C(1) << trie->ids[k] % 32;
        i++;
    }
}

/* Whether a place reads no more than the end of a string and escapes. */
static bool reads_no_plain(const mln_graph *g, const place *p) {
    for (uint32_t e = g->nodes[p->node].first; e; e = g->edges[e].next) {
        const mln_edge *edge = &g->edges[e];
        bool other = edge->high < 0x20 ||
                     (edge->low == edge->high && (edge->low == '"' || edge->low == '\\'));
        if (edge->kind == MLN_EDGE_BYTES && !other)
            return false;
    }
    return true;
}

/* How many plain characters may follow, when that says all about plain tokens; else 0. */
static uint32_t plain_room(const mln_constraint *c) {
    const mln_graph *g = &c->grammar->graph;
    const mln_token_trie *t = c->grammar->trie;
    const state *s = &c->states[c->current];
    uint32_t longest = t->num_lengths ? t->plain_lengths[t->num_lengths - 1] : 0, room = 0;
    bool alone = true;
    for (uint32_t i = 0; i < s->num_places; i++) {
        const place *p = &c->places[s->first + i];
        uint32_t limit = g->nodes[p->node].plain;
        uint32_t left = limit == 0 || limit == MLN_NO_LIMIT ? limit : limit - p->count + 1;
        if (left >= longest)
            return left;
        alone = alone && (left > 0 || reads_no_plain(g, p));
        room = left > room ? left : room;
    }
    return alone ? room : 0;
}

/* The plain tokens of at most `room` characters. */
static void add_plain(const mln_token_trie *t, uint32_t room, uint32_t *mask) {
    size_t n = 0;
    while (n < t->num_lengths && t->plain_lengths[n] <= room)
        n++;
    if (n > 0)
        memcpy(mask, t->plain_masks + (n - 1) * t->num_words, t->num_words * sizeof *mask);
}

static void make_mask(mln_constraint *c, uint32_t *mask) {
    const mln_token_trie *t = c->grammar->trie;
    uint32_t room = plain_room(c);
    memset(mask, 0, c->num_words * sizeof *mask);
    if (room > 0)
        add_plain(t, room, mask);
    c->steps_left = MAX_STEPS;
    for (int b = 0; b < 256; b++) {
        c->path[0] = (uint16_t)c->current;
        c->path_bytes[0] = (uint8_t)b;
        if (t->byte_ids[b] >= 0 && step_on_path(c, 0) != DEAD)
            mask[t->byte_ids[b] / 32] |= UINT32_C(1) << t->byte_ids[b] % 32;
    }
    walk(c, &t->other, mask);
    if (room == 0)
        walk(c, &t->plain, mask);
    if (c->vocab_size % 32) /* ids that the model does not have */
        mask[c->vocab_size / 32] &= (UINT32_C(1) << c->vocab_size % 32) - 1;
    for (size_t w = ((size_t)c->vocab_size + 31) / 32; w < c->num_words; w++)
        mask[w] = 0;
}

const uint32_t *mln_constraint_allowed(mln_constraint *c) {
    int32_t known = c->states[c->current].mask;
    if (known >= 0)
        return c->masks + (size_t)known * c->num_words;
    uint32_t slot = c->next_mask;
    c->next_mask = (slot + 1) % MAX_MASKS;
    if (c->mask_owner[slot])
        c->states[c->mask_owner[slot]].mask = -1;
    c->mask_owner[slot] = 0;
    uint32_t *mask = c->masks + slot * c->num_words;
    make_mask(c, mask);
    c->mask_owner[slot] = c->current;
    c->states[c->current].mask = (int32_t)slot;
    return mask;
}

bool mln_constraint_complete(const mln_constraint *c) {
    return c->states[c->current].complete;
}

bool mln_constraint_accept(mln_constraint *c, int32_t id) {
    const char *bytes;
    size_t length;
    const mln_tokenizer *tokenizer = c->grammar->tokenizer;
    if (id >= c->vocab_size || !mln_tokenizer_bytes(tokenizer, id, &bytes, &length) ||
        length == 0 || mln_token_is_skipped(tokenizer, id))
        return false;
    c->path[0] = (uint16_t)c->current;
    for (size_t i = 0; i < length; i++) {
        c->steps_left = MAX_STEPS;
        c->path_bytes[i] = (uint8_t)bytes[i];
        uint32_t to = step_on_path(c, i);
        if (to == DEAD)
            return false;
        c->path[i + 1] = (uint16_t)to;
    }
    c->current = c->path[length];
    return true;
}

/* Every text can be spelled with tokens of one byte, so there is always one that is allowed. */
static myelin_status check_vocabulary(const mln_grammar *grammar, int32_t vocab_size,
                                      myelin_error *error) {
    for (int b = 0; b < 256; b++)
        if (grammar->trie->byte_ids[b] >= vocab_size)
            return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                            "the constraint is for another tokenizer: the model has %d tokens, and "
                            "byte 0x%02X is token %d",
                            (int)vocab_size, (unsigned)b, (int)grammar->trie->byte_ids[b]);
    return MYELIN_OK;
}

static bool allocate(mln_constraint *c) {
    size_t longest = c->grammar->trie->longest;
    c->states = mln_calloc(MAX_STATES, sizeof *c->states);
    c->places = mln_calloc(MAX_PLACES, sizeof *c->places);
    c->frames = mln_calloc(MAX_FRAMES, sizeof *c->frames);
    c->steps = mln_calloc((size_t)MAX_STATES * c->grammar->num_classes, sizeof *c->steps);
    c->masks = mln_calloc(MAX_MASKS * c->num_words, sizeof *c->masks);
    c->path = mln_calloc(longest + 1, sizeof *c->path);
    c->path_bytes = mln_calloc(longest + 1, sizeof *c->path_bytes);
    return c->states && c->places && c->frames && c->steps && c->masks && c->path && c->path_bytes;
}

myelin_status mln_constraint_create(mln_constraint **out, const mln_grammar *grammar,
                                    int32_t vocab_size, mln_grammar_start start,
                                    myelin_error *error) {
    *out = NULL;
    myelin_status status = check_vocabulary(grammar, vocab_size, error);
    if (status != MYELIN_OK)
        return status;
    mln_constraint *c = mln_calloc(1, sizeof *c);
    if (!c)
        return mln_fail_memory(error, sizeof *c, "a constraint");
    c->grammar = grammar;
    c->vocab_size = vocab_size;
    c->num_words = ((size_t)vocab_size + 31) / 32;
    if (c->num_words < grammar->trie->num_words)
        c->num_words = grammar->trie->num_words;
    if (!allocate(c)) {
        uint64_t bytes = MAX_MASKS * c->num_words * sizeof *c->masks;
        mln_constraint_free(c);
        return mln_fail_memory(error, bytes, "a constraint");
    }
    forget_all(c);
    c->current = start_set(c, grammar->starts[start]);
    *out = c;
    return MYELIN_OK;
}

void mln_constraint_free(mln_constraint *c) {
    if (!c)
        return;
    free(c->states);
    free(c->places);
    free(c->frames);
    free(c->steps);
    free(c->masks);
    free(c->path);
    free(c->path_bytes);
    free(c);
}
