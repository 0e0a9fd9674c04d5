/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts of a vocabulary's tokens as trees of bytes, so that all tokens can be tried against an
 * automaton in one walk. Control tokens and tokens without text are not in them.
 */
#ifndef MLN_TEXT_TOKEN_TRIE_H
#define MLN_TEXT_TOKEN_TRIE_H

#include <stddef.h>
#include <stdint.h>

#include "myelin/status.h"
#include "text/tokenizer.h"

enum { MLN_TRIE_MAX_LENGTHS = 64 };

/* The nodes in depth-first order, the root left out. */
typedef struct mln_trie_node {
    uint32_t skip;  /* the first node behind what is below this one */
    uint32_t first; /* ids[first .. the next node's first) end here */
    uint16_t depth; /* bytes before this one */
    uint8_t byte;
} mln_trie_node;

typedef struct mln_trie {
    mln_trie_node *nodes; /* [num_nodes + 1]: one behind the last gives its `first` */
    size_t num_nodes;
    int32_t *ids;
} mln_trie;

/*
 * Plain tokens are whole characters that stand in a JSON string as they are. Inside a string they
 * are nearly all there is, and what they do there is known without a walk: `plain_masks` has, for
 * each length that occurs, the plain tokens of at most so many characters. The rest are in `other`.
 */
typedef struct mln_token_trie {
    mln_trie plain, other;
    uint32_t plain_lengths[MLN_TRIE_MAX_LENGTHS]; /* characters, ascending */
    uint32_t *plain_masks;                        /* [num_lengths][num_words] */
    size_t num_lengths, num_words;
    int32_t byte_ids[256]; /* the token that is this byte alone, or -1 */
    size_t longest;        /* bytes of the longest text */
} mln_token_trie;

/* Where a tokenizer keeps its tree once one was asked for. */
typedef struct mln_trie_slot mln_trie_slot;

mln_trie_slot *mln_trie_slot_make(void); /* NULL when out of memory */
void mln_trie_slot_free(mln_trie_slot *slot);

/* The tokenizer's tree, made when first asked for; lives as long as the tokenizer. */
myelin_status mln_token_trie_of(const mln_token_trie **trie, const mln_tokenizer *tokenizer,
                                myelin_error *error);

#endif
