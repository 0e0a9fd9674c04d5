/* SPDX-License-Identifier: Apache-2.0 */
#include "text/grammar.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

enum { FIRST_CAPACITY = 256, MAX_INDENT = 40, DEAD = 255 };

static bool grow(void **array, size_t *capacity, size_t size) {
    size_t wanted = *capacity ? 2 * *capacity : FIRST_CAPACITY;
    void *bigger = mln_realloc(*array, wanted, size);
    if (!bigger)
        return false;
    *array = bigger;
    *capacity = wanted;
    return true;
}

uint32_t mln_graph_node(mln_graph *g) {
    if (g->num_nodes == MLN_GRAMMAR_MAX_NODES && !g->failed)
        g->failed = MLN_GRAPH_TOO_LARGE;
    if (g->failed)
        return 0;
    if (g->num_nodes == g->node_capacity) {
        void *nodes = g->nodes;
        if (!grow(&nodes, &g->node_capacity, sizeof *g->nodes)) {
            g->failed = MLN_GRAPH_NO_MEMORY;
            return 0;
        }
        g->nodes = nodes;
    }
    g->nodes[g->num_nodes] = (mln_node){0};
    return (uint32_t)g->num_nodes++;
}

static void add_edge(mln_graph *g, uint32_t from, mln_edge edge) {
    if (g->num_edges == MLN_GRAMMAR_MAX_EDGES && !g->failed)
        g->failed = MLN_GRAPH_TOO_LARGE;
    if (g->failed || from == 0 || edge.to == 0)
        return;
    if (g->num_edges == g->edge_capacity) {
        void *edges = g->edges;
        if (!grow(&edges, &g->edge_capacity, sizeof *g->edges)) {
            g->failed = MLN_GRAPH_NO_MEMORY;
            return;
        }
        g->edges = edges;
    }
    uint32_t index = (uint32_t)g->num_edges++;
    g->edges[index] = edge;
    mln_node *node = &g->nodes[from];
    if (node->last)
        g->edges[node->last].next = index;
    else
        node->first = index;
    node->last = index;
}

void mln_graph_bytes(mln_graph *g, uint32_t from, unsigned low, unsigned high, uint32_t to) {
    add_edge(
        g, from,
        (mln_edge){.kind = MLN_EDGE_BYTES, .low = (uint8_t)low, .high = (uint8_t)high, .to = to});
}

void mln_graph_empty(mln_graph *g, uint32_t from, uint32_t to) {
    add_edge(g, from, (mln_edge){.kind = MLN_EDGE_EMPTY, .to = to});
}

void mln_graph_call(mln_graph *g, uint32_t from, uint32_t callee, uint32_t to) {
    if (callee != 0)
        add_edge(g, from, (mln_edge){.kind = MLN_EDGE_CALL, .to = to, .value = callee});
}

void mln_graph_more(mln_graph *g, uint32_t from, uint32_t limit, uint32_t least, uint32_t to) {
    if (limit > 0)
        add_edge(g, from,
                 (mln_edge){.kind = MLN_EDGE_MORE, .to = to, .value = limit, .least = least});
}

void mln_graph_done(mln_graph *g, uint32_t from, uint32_t least, uint32_t to) {
    add_edge(g, from, (mln_edge){.kind = MLN_EDGE_DONE, .to = to, .least = least});
}

uint32_t mln_graph_word(mln_graph *g, uint32_t from, const char *text, size_t length) {
    for (size_t i = 0; i < length && from; i++) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t e = g->nodes[from].first;
        while (e && !(g->edges[e].kind == MLN_EDGE_BYTES && g->edges[e].low == byte &&
                      g->edges[e].high == byte))
            e = g->edges[e].next;
        uint32_t to = e ? g->edges[e].to : mln_graph_node(g);
        if (!e)
            mln_graph_bytes(g, from, byte, byte, to);
        from = to;
    }
    return g->failed ? 0 : from;
}

/* How much of `text` has been read once `byte` follows its first `read` bytes. */
static size_t match_after(const char *text, size_t read, unsigned char byte) {
    for (size_t n = read + 1; n > 0; n--)
        if ((unsigned char)text[n - 1] == byte && memcmp(text, text + read + 1 - n, n - 1) == 0)
            return n;
    return 0;
}

uint32_t mln_graph_until(mln_graph *g, const char *text, bool may_end, uint32_t to) {
    enum { MAX_LENGTH = 32 };
    size_t length = strlen(text);
    uint32_t nodes[MAX_LENGTH + 1];
    for (size_t i = 0; i < length; i++) {
        nodes[i] = mln_graph_node(g);
        if (nodes[i])
            g->nodes[nodes[i]].final = may_end;
    }
    nodes[length] = to;
    for (size_t i = 0; i < length; i++) {
        for (unsigned low = 0, high; low < 256; low = high + 1) {
            size_t next = match_after(text, i, (unsigned char)low);
            for (high = low; high < 255 && match_after(text, i, (unsigned char)(high + 1)) == next;)
                high++;
            mln_graph_bytes(g, nodes[i], low, high, nodes[next]);
        }
    }
    return g->failed ? 0 : nodes[0];
}

/* Nothing, one space, or a line's end and an indent. */
static uint32_t make_spaces(mln_graph *g) {
    uint32_t start = mln_graph_node(g), line = mln_graph_node(g), one = mln_graph_node(g);
    if (g->failed)
        return 0;
    g->nodes[start].final = g->nodes[line].final = true;
    mln_graph_bytes(g, start, ' ', ' ', g->end);
    mln_graph_bytes(g, start, '\n', '\n', line);
    mln_graph_more(g, line, MAX_INDENT, 0, one);
    mln_graph_bytes(g, one, ' ', ' ', line);
    return start;
}

void mln_graph_init(mln_graph *g) {
    *g = (mln_graph){0};
    mln_graph_node(g); /* node 0 and edge 0 are none */
    void *edges = NULL;
    if (!g->failed && !grow(&edges, &g->edge_capacity, sizeof *g->edges))
        g->failed = MLN_GRAPH_NO_MEMORY;
    g->edges = edges;
    g->num_edges = 1;
    g->end = mln_graph_node(g);
    if (g->end)
        g->nodes[g->end].final = true;
    g->spaces = make_spaces(g);
}

void mln_graph_free(mln_graph *g) {
    free(g->nodes);
    free(g->edges);
    *g = (mln_graph){0};
}

/* A call that has nothing left to do afterwards does not come back here. */
static bool is_tail_call(const mln_graph *g, const mln_edge *edge) {
    return edge->to == g->end;
}

/* The need of the way that begins with this edge. */
static unsigned need_of(const mln_graph *g, const mln_edge *edge) {
    unsigned need = g->nodes[edge->to].need;
    if (edge->kind == MLN_EDGE_CALL) {
        unsigned callee = g->nodes[edge->value].need + (is_tail_call(g, edge) ? 0u : 1u);
        need = callee > need ? callee : need;
    }
    return need < DEAD ? need : DEAD;
}

/* Edges that lead to a node, listed by it. */
typedef struct reverse {
    uint32_t *heads; /* [num_nodes] */
    uint32_t *next;  /* [2 * num_edges]: 2 * edge, and one more for who is called */
    uint32_t *from;  /* [num_edges] */
    uint32_t *queue; /* [num_nodes] */
    bool *queued;    /* [num_nodes] */
} reverse;

static void reverse_free(reverse *r) {
    free(r->heads);
    free(r->next);
    free(r->from);
    free(r->queue);
    free(r->queued);
}

static bool reverse_make(reverse *r, const mln_graph *g) {
    r->heads = mln_calloc(g->num_nodes, sizeof *r->heads);
    r->next = mln_calloc(2 * g->num_edges, sizeof *r->next);
    r->from = mln_calloc(g->num_edges, sizeof *r->from);
    r->queue = mln_calloc(g->num_nodes, sizeof *r->queue);
    r->queued = mln_calloc(g->num_nodes, sizeof *r->queued);
    if (!r->heads || !r->next || !r->from || !r->queue || !r->queued)
        return false;
    for (uint32_t n = 1; n < g->num_nodes; n++) {
        for (uint32_t e = g->nodes[n].first; e; e = g->edges[e].next) {
            r->from[e] = n;
            r->next[2 * e] = r->heads[g->edges[e].to];
            r->heads[g->edges[e].to] = 2 * e;
            if (g->edges[e].kind != MLN_EDGE_CALL)
                continue;
            r->next[2 * e + 1] = r->heads[g->edges[e].value];
            r->heads[g->edges[e].value] = 2 * e + 1;
        }
    }
    return true;
}

/* Lowers needs to their least values; each node is looked at again when one behind it was lowered.
 */
static void settle_needs(mln_graph *g, reverse *r) {
    size_t head = 0, waiting = 0, room = g->num_nodes;
    for (uint32_t n = 1; n < g->num_nodes; n++) {
        g->nodes[n].need = g->nodes[n].final ? 0 : DEAD;
        if (g->nodes[n].final) {
            r->queue[waiting++] = n;
            r->queued[n] = true;
        }
    }
    g->nodes[0].need = DEAD;
    while (waiting > 0) {
        uint32_t n = r->queue[head];
        head = (head + 1) % room;
        waiting--;
        r->queued[n] = false;
        for (uint32_t link = r->heads[n]; link; link = r->next[link]) {
            uint32_t from = r->from[link / 2];
            unsigned need = need_of(g, &g->edges[link / 2]);
            if (need >= g->nodes[from].need)
                continue;
            g->nodes[from].need = (uint8_t)need;
            if (r->queued[from])
                continue;
            r->queued[from] = true;
            r->queue[(head + waiting++) % room] = from;
        }
    }
}

void mln_graph_trim(mln_graph *g) {
    reverse r = {0};
    if (g->failed)
        return;
    if (!reverse_make(&r, g)) {
        g->failed = MLN_GRAPH_NO_MEMORY;
        reverse_free(&r);
        return;
    }
    settle_needs(g, &r);
    reverse_free(&r);
    for (uint32_t n = 1; n < g->num_nodes; n++) {
        uint32_t e = g->nodes[n].first, next;
        g->nodes[n].first = g->nodes[n].last = 0;
        for (; e; e = next) {
            next = g->edges[e].next;
            g->edges[e].next = 0;
            if (need_of(g, &g->edges[e]) > MLN_GRAMMAR_MAX_DEPTH)
                continue;
            if (g->nodes[n].last)
                g->edges[g->nodes[n].last].next = e;
            else
                g->nodes[n].first = e;
            g->nodes[n].last = e;
        }
    }
}

/* Where an edge leads without reading, its k-th place of two; 0: nowhere. */
static uint32_t empty_step(const mln_graph *g, const mln_edge *edge, int k) {
    if (edge->kind == MLN_EDGE_BYTES)
        return 0;
    if (edge->kind != MLN_EDGE_CALL)
        return k == 0 ? edge->to : 0;
    if (k == 0)
        return edge->value;
    return g->nodes[edge->value].final ? edge->to : 0;
}

/* Depth first with a stack of edges: `walk` holds the edge each open node is at. */
static bool find_loop(const mln_graph *g, uint32_t root, uint8_t *state, uint32_t *path,
                      uint32_t *walk) {
    enum { NEW, OPEN, CLOSED };
    size_t depth = 0;
    if (state[root] != NEW)
        return false;
    state[root] = OPEN;
    path[0] = root;
    walk[0] = 2 * g->nodes[root].first;
    for (;;) {
        uint32_t at = walk[depth];
        if (at / 2 == 0) {
            state[path[depth]] = CLOSED;
            if (depth-- == 0)
                return false;
            continue;
        }
        const mln_edge *edge = &g->edges[at / 2];
        walk[depth] = at % 2 == 0 ? at + 1 : 2 * edge->next;
        uint32_t to = empty_step(g, edge, (int)(at % 2));
        if (to == 0 || state[to] == CLOSED)
            continue;
        if (state[to] == OPEN)
            return true;
        state[to] = OPEN;
        path[++depth] = to;
        walk[depth] = 2 * g->nodes[to].first;
    }
}

bool mln_graph_has_empty_loop(mln_graph *g) {
    uint8_t *state = mln_calloc(g->num_nodes, sizeof *state);
    uint32_t *path = mln_calloc(g->num_nodes, sizeof *path);
    uint32_t *walk = mln_calloc(g->num_nodes, sizeof *walk);
    bool found = false;
    if (!state || !path || !walk)
        g->failed = MLN_GRAPH_NO_MEMORY;
    for (uint32_t n = 1; n < g->num_nodes && !g->failed && !found; n++)
        found = find_loop(g, n, state, path, walk);
    free(state);
    free(path);
    free(walk);
    return found;
}

/* Numbers the bytes so that those which no edge tells apart have one number. */
static void make_classes(mln_grammar *grammar) {
    const mln_graph *g = &grammar->graph;
    bool begins[257] = {true};
    for (uint32_t n = 1; n < g->num_nodes; n++) {
        for (uint32_t e = g->nodes[n].first; e; e = g->edges[e].next) {
            if (g->edges[e].kind != MLN_EDGE_BYTES)
                continue;
            begins[g->edges[e].low] = true;
            begins[g->edges[e].high + 1] = true;
        }
    }
    uint32_t count = 0;
    for (unsigned b = 0; b < 256; b++) {
        count += begins[b];
        grammar->byte_class[b] = (uint8_t)(count - 1);
    }
    grammar->num_classes = count;
}

static myelin_status check_bytes(const mln_token_trie *trie, myelin_error *error) {
    for (int b = 0; b < 256; b++) {
        bool needed = b == '\n' || (b >= 0x20 && b != 0x7F && b != 0xC0 && b != 0xC1 && b < 0xF5);
        if (needed && trie->byte_ids[b] < 0)
            return mln_fail(error, MYELIN_ERROR_UNSUPPORTED, NULL, -1,
                            "constrained text needs a tokenizer with a token for every byte: found "
                            "none for 0x%02X",
                            (unsigned)b);
    }
    return MYELIN_OK;
}

/* The places a text may begin: before the answer may come a block of reasoning. */
static void make_starts(mln_grammar *grammar, uint32_t answer) {
    mln_graph *g = &grammar->graph;
    uint32_t first = mln_graph_node(g), second = mln_graph_node(g), either = mln_graph_node(g);
    mln_graph_bytes(g, first, '\n', '\n', second);
    mln_graph_bytes(g, second, '\n', '\n', answer);
    mln_graph_empty(g, first, answer);
    mln_graph_empty(g, second, answer);
    uint32_t reasoning = mln_graph_until(g, "</think>", false, first);
    mln_graph_empty(g, mln_graph_word(g, either, "<think>", 7), reasoning);
    mln_graph_empty(g, either, answer);
    grammar->starts[MLN_START_ANSWER] = answer;
    grammar->starts[MLN_START_REASONING] = reasoning;
    grammar->starts[MLN_START_EITHER] = either;
}

static myelin_status finish(mln_grammar *grammar, uint32_t answer, myelin_error *error) {
    mln_graph *g = &grammar->graph;
    make_starts(grammar, answer);
    mln_graph_trim(g);
    bool loops = !g->failed && mln_graph_has_empty_loop(g);
    if (g->failed == MLN_GRAPH_NO_MEMORY)
        return mln_fail_memory(error, g->num_nodes * sizeof *g->nodes, "a grammar");
    if (g->failed)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "the schema is too large: expected at most %d states and %d steps",
                        MLN_GRAMMAR_MAX_NODES, MLN_GRAMMAR_MAX_EDGES);
    if (g->nodes[answer].need > MLN_GRAMMAR_MAX_DEPTH)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "nothing satisfies the schema: expected some value, nested at most %d deep",
                        MLN_GRAMMAR_MAX_DEPTH);
    if (loops)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "\"$ref\" leads back to itself with no value between");
    make_classes(grammar);
    return MYELIN_OK;
}

myelin_status mln_grammar_make(mln_grammar **out, const mln_tokenizer *tokenizer, mln_graph *graph,
                               uint32_t answer, myelin_error *error) {
    *out = NULL;
    mln_grammar *grammar = mln_calloc(1, sizeof *grammar);
    if (!grammar) {
        mln_graph_free(graph);
        return mln_fail_memory(error, sizeof *grammar, "a grammar");
    }
    grammar->tokenizer = tokenizer;
    grammar->graph = *graph;
    *graph = (mln_graph){0};
    myelin_status status = mln_token_trie_of(&grammar->trie, tokenizer, error);
    if (status == MYELIN_OK)
        status = check_bytes(grammar->trie, error);
    if (status == MYELIN_OK)
        status = finish(grammar, answer, error);
    if (status == MYELIN_OK)
        *out = grammar;
    else
        mln_grammar_free(grammar);
    return status;
}

void mln_grammar_free(mln_grammar *grammar) {
    if (!grammar)
        return;
    mln_graph_free(&grammar->graph);
    free(grammar);
}
