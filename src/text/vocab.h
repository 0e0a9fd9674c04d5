/* SPDX-License-Identifier: Apache-2.0 */
/* The tokens of a tokenizer: by id, and by their written form in tokenizer.json. */
#ifndef MLN_TEXT_VOCAB_H
#define MLN_TEXT_VOCAB_H

#include "base/hash.h"
#include "base/memory.h"
#include "myelin/status.h"

enum {
    MLN_TOKEN_MODEL = 1,   /* in model.vocab */
    MLN_TOKEN_ADDED = 2,   /* in added_tokens */
    MLN_TOKEN_SPECIAL = 4, /* an added token marked "special" */
    MLN_TOKEN_SKIPPED = 8  /* leaves no text when special tokens are skipped */
};

typedef struct mln_token {
    uint32_t id;
    uint32_t flags;
    uint32_t written, written_length; /* in mln_vocab.written: "Ġthe" */
    uint32_t bytes, bytes_length;     /* in mln_vocab.bytes: " the" */
    uint32_t offset;                  /* where in tokenizer.json, for messages */
} mln_token;

typedef struct mln_vocab_slot {
    uint32_t tag;   /* upper half of the hash */
    uint32_t token; /* index + 1, or 0 */
} mln_vocab_slot;

typedef struct mln_vocab {
    mln_token *tokens; /* in the order of their ids once indexed */
    size_t count, capacity;
    mln_buffer written, bytes;
    mln_vocab_slot *slots;
    size_t num_slots; /* a power of two, or 0 before mln_vocab_index() */
    mln_hash_key key;
} mln_vocab;

/* False when out of memory. The token's bytes are left empty. */
bool mln_vocab_add(mln_vocab *vocab, const char *written, size_t length, uint32_t id,
                   uint32_t flags, int64_t offset);
/* Sorts the tokens and makes them findable. Two of one id or one written form are an error. */
myelin_status mln_vocab_index(mln_vocab *vocab, const char *file, myelin_error *error);
/* Gives token the bytes that `form`, a text in the byte-level alphabet, stands for. */
bool mln_vocab_set_bytes(mln_vocab *vocab, mln_token *token, const char *form, size_t length);
void mln_vocab_free(mln_vocab *vocab);

/* NULL when there is none. Valid until the next mln_vocab_add() or mln_vocab_index(). */
mln_token *mln_vocab_find(const mln_vocab *vocab, const char *written, size_t length);
mln_token *mln_vocab_at(const mln_vocab *vocab, uint32_t id);

/* How many bytes of text to show in a message: whole characters, at most 64 bytes. */
int mln_shown(const char *text, size_t length);

#endif
