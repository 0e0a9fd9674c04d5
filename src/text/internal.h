/* SPDX-License-Identifier: Apache-2.0 */
/* What a tokenizer is made of; shared by the files that implement tokenizer.h. */
#ifndef MLN_TEXT_INTERNAL_H
#define MLN_TEXT_INTERNAL_H

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/pretokenize.h"
#include "text/token_trie.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

struct mln_tokenizer {
    mln_vocab vocab;
    mln_bpe bpe;
    mln_added_set raw;        /* added tokens looked for in the text as it comes */
    mln_added_set normalized; /* and those looked for once it is normalised */
    mln_splitter splitter;    /* without code: a text is one pre-token */
    bool nfc;
    int32_t size;
    mln_arena arena;     /* the patterns of the added tokens */
    mln_trie_slot *trie; /* its tree, when a grammar was compiled for it */
};

/* A control token, or one that leaves no text where those do not. */
bool mln_token_is_skipped(const mln_tokenizer *tokenizer, int32_t id);

#endif
