/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair encoding of one pre-token at a time. */
#ifndef MLN_TEXT_BPE_H
#define MLN_TEXT_BPE_H

#include "text/document.h"
#include "text/tokenizer.h"

/* One merge, in an open-addressed table by the pair of ids. */
typedef struct mln_bpe_rule {
    uint32_t left, right;
    uint32_t rank; /* UINT32_MAX: an empty slot */
    uint32_t made; /* the id the two become */
} mln_bpe_rule;

/* Immutable once made. Zero-initialise. */
typedef struct mln_bpe {
    mln_bpe_rule *rules;
    size_t num_slots; /* a power of two */
    mln_hash_key key;
    int32_t byte_ids[256]; /* -1: the vocabulary lacks the byte, and it leaves no id */
    bool ignore_merges;    /* a pre-token that is in the vocabulary is not taken apart */
    const mln_vocab *vocab;
} mln_bpe;

/* `vocab` is indexed and outlives the rules. */
myelin_status mln_bpe_make(mln_bpe *bpe, const mln_vocab *vocab, const mln_document *document,
                           bool ignore_merges, myelin_error *error);
void mln_bpe_free(mln_bpe *bpe);

/* One symbol of a pre-token being merged; a list through a fixed array. */
typedef struct mln_bpe_symbol {
    uint32_t id;
    uint32_t rank, made;     /* of the merge with the next symbol; rank UINT32_MAX: none */
    uint32_t previous, next; /* UINT32_MAX: none */
} mln_bpe_symbol;

enum { MLN_BPE_CACHED_BYTES = 32, MLN_BPE_CACHED_IDS = 7 };

/* A pre-token met before in this call, and its ids. */
typedef struct mln_bpe_memo {
    char bytes[MLN_BPE_CACHED_BYTES]; /* padded with zeros */
    uint8_t length;                   /* 0: an empty slot */
    uint8_t num_ids;
    int32_t ids[MLN_BPE_CACHED_IDS];
} mln_bpe_memo;

/* Working memory of one call. Zero-initialise. */
typedef struct mln_bpe_work {
    mln_bpe_memo *memos;
    size_t num_memos; /* a power of two, or 0 */
    mln_bpe_symbol *symbols;
    uint64_t *heap;
    size_t capacity; /* symbols there is room for */
    mln_buffer written;
} mln_bpe_work;

/* Prepares for about `length` bytes of text. */
myelin_status mln_bpe_begin(mln_bpe_work *work, size_t length, myelin_error *error);
/* Appends the ids of one pre-token. O(n log n) in its length. */
myelin_status mln_bpe_encode(const mln_bpe *bpe, mln_bpe_work *work, const char *bytes,
                             size_t length, mln_ids *ids, myelin_error *error);
void mln_bpe_work_free(mln_bpe_work *work);

/* Makes room for `extra` more ids. */
myelin_status mln_ids_reserve(mln_ids *ids, size_t extra, myelin_error *error);

#endif
