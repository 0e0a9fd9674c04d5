/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A language as a graph: nodes, and edges that read a byte, read nothing, or call another node and
 * come back when a final node is reached. Every activation of a called node counts what passes its
 * MLN_EDGE_MORE edges, which is how items and characters are bounded without a node for each.
 */
#ifndef MLN_TEXT_GRAMMAR_H
#define MLN_TEXT_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "myelin/status.h"
#include "text/constraint.h"
#include "text/token_trie.h"

enum {
    MLN_GRAMMAR_MAX_NODES = 1 << 17,
    MLN_GRAMMAR_MAX_EDGES = 1 << 19,
    MLN_GRAMMAR_MAX_DEPTH = 64 /* calls within calls, and so about the nesting of a text */
};

#define MLN_NO_LIMIT UINT32_MAX

typedef enum mln_edge_kind {
    MLN_EDGE_BYTES, /* reads a byte of low .. high */
    MLN_EDGE_EMPTY,
    MLN_EDGE_CALL, /* reads what node `value` leads to */
    MLN_EDGE_MORE, /* when the count is below `value`, which raises it; no limit: up to `least` */
    MLN_EDGE_DONE  /* when the count is at least `least` */
} mln_edge_kind;

typedef struct mln_edge {
    uint8_t kind, low, high;
    uint32_t to, value, least;
    uint32_t next; /* of the same node; 0 ends the list */
} mln_edge;

typedef struct mln_node {
    uint32_t first, last; /* edges, 0 when there are none */
    /*
     * Not 0: every character that stands in a JSON string as it is may follow, and after it, while
     * the count does not exceed this, the same holds. MLN_NO_LIMIT: for ever.
     */
    uint32_t plain;
    bool final;
    uint8_t need; /* fewest calls within calls on a way to a final node; above MAX_DEPTH: none */
} mln_node;

/*
 * Nodes are numbers, and 0 is the node from which nothing leads on: functions that fail return it,
 * and `failed` says why, so that a graph can be built without checking each step.
 */
typedef struct mln_graph {
    mln_node *nodes;
    mln_edge *edges;
    size_t num_nodes, node_capacity, num_edges, edge_capacity;
    enum { MLN_GRAPH_FINE, MLN_GRAPH_NO_MEMORY, MLN_GRAPH_TOO_LARGE } failed;
    uint32_t end;    /* a final node without edges */
    uint32_t spaces; /* called for the whitespace that may stand between things */
} mln_graph;

/* Takes the first memory; `failed` tells of a failure. */
void mln_graph_init(mln_graph *graph);
void mln_graph_free(mln_graph *graph);

uint32_t mln_graph_node(mln_graph *graph);
void mln_graph_bytes(mln_graph *graph, uint32_t from, unsigned low, unsigned high, uint32_t to);
void mln_graph_empty(mln_graph *graph, uint32_t from, uint32_t to);
void mln_graph_call(mln_graph *graph, uint32_t from, uint32_t callee, uint32_t to);
void mln_graph_more(mln_graph *graph, uint32_t from, uint32_t limit, uint32_t least, uint32_t to);
void mln_graph_done(mln_graph *graph, uint32_t from, uint32_t least, uint32_t to);
/* The node after `text`, which shares edges with words that begin alike and lead from `from`. */
uint32_t mln_graph_word(mln_graph *graph, uint32_t from, const char *text, size_t length);
/* Any bytes up to the first `text` and that: the node from which they begin. */
uint32_t mln_graph_until(mln_graph *graph, const char *text, bool may_end, uint32_t to);

/* Fills in `need` and drops edges that lead nowhere. */
void mln_graph_trim(mln_graph *graph);
/* Whether some way leads from a node back to it without reading a byte. */
bool mln_graph_has_empty_loop(mln_graph *graph);

struct mln_grammar {
    const mln_tokenizer *tokenizer;
    const mln_token_trie *trie;
    mln_graph graph;
    uint32_t starts[MLN_NUM_STARTS];
    uint8_t byte_class[256]; /* bytes that no edge tells apart */
    uint32_t num_classes;
};

/*
 * A grammar of the texts between `answer` and the graph's end. Takes *graph over, which is freed on
 * failure as well.
 */
myelin_status mln_grammar_make(mln_grammar **grammar, const mln_tokenizer *tokenizer,
                               mln_graph *graph, uint32_t answer, myelin_error *error);

#endif
