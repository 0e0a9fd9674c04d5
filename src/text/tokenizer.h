/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes <-> token ids, from a Hugging Face tokenizer.json: NFC, the Split regex it names,
 * byte-level BPE, added tokens. Ids equal those of the `tokenizers` package.
 */
#ifndef MLN_TEXT_TOKENIZER_H
#define MLN_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "myelin/status.h"

/* Caps on what a tokenizer.json may hold; more is an error. */
#define MLN_TOKENIZER_MAX_FILE (UINT64_C(256) << 20)
enum {
    MLN_TOKENIZER_MAX_VOCAB = 4 * 1024 * 1024,
    MLN_TOKENIZER_MAX_ADDED = 65536,
    MLN_TOKENIZER_MAX_TOKEN_BYTES = 4096,
    MLN_TOKENIZER_MAX_PATTERN_BYTES = 4096
};

/* Immutable once open; any number of threads may share it. */
typedef struct mln_tokenizer mln_tokenizer;

typedef struct mln_ids {
    int32_t *data; /* heap memory, free() */
    size_t count;
    size_t capacity;
} mln_ids;

/* Reads directory/tokenizer.json. */
myelin_status mln_tokenizer_open(mln_tokenizer **tokenizer, const char *directory,
                                 myelin_error *error);
/* The same from memory; `file` names it in errors. This is the fuzzed entrance. */
myelin_status mln_tokenizer_parse(mln_tokenizer **tokenizer, const char *json, size_t length,
                                  const char *file, myelin_error *error);
void mln_tokenizer_free(mln_tokenizer *tokenizer); /* accepts NULL */

/* One more than the highest id, added tokens included. */
int32_t mln_tokenizer_size(const mln_tokenizer *tokenizer);

/* How the text of control tokens such as <|im_end|> is read inside a text. */
typedef enum mln_added_tokens {
    MLN_ADDED_AS_TOKENS, /* as the reference does: each becomes its own id */
    MLN_ADDED_AS_TEXT    /* encoded as ordinary bytes, for text from strangers */
} mln_added_tokens;

/*
 * Appends the ids of `text` (UTF-8, may hold NUL; ill-formed UTF-8 is MYELIN_ERROR_ARGUMENT with
 * error->offset at the first bad byte) to *ids. Time is linear in length but for a logarithmic
 * factor inside one pre-token.
 */
myelin_status mln_tokenizer_encode(const mln_tokenizer *tokenizer, const char *text, size_t length,
                                   mln_added_tokens added, mln_ids *ids, myelin_error *error);
/*
 * The same, added tokens read as tokens, for text in which the character `guard` stands wherever a
 * token may not be seen: none reaches over a guard, and the guards themselves leave no ids.
 */
myelin_status mln_tokenizer_encode_guarded(const mln_tokenizer *tokenizer, const char *text,
                                           size_t length, uint32_t guard, mln_ids *ids,
                                           myelin_error *error);
void mln_ids_free(mln_ids *ids);

/* The id of an added or vocabulary token by its written form, or -1. */
int32_t mln_tokenizer_find(const mln_tokenizer *tokenizer, const char *content, size_t length);

/*
 * The bytes one id stands for, not NUL-terminated, owned by the tokenizer; possibly part of a UTF-8
 * character only. An id inside 0 .. size-1 that no token has yields zero bytes. False when the id
 * is out of range.
 */
bool mln_tokenizer_bytes(const mln_tokenizer *tokenizer, int32_t id, const char **bytes,
                         size_t *length);
/* True for added tokens marked "special". */
bool mln_tokenizer_is_special(const mln_tokenizer *tokenizer, int32_t id);

/*
 * Appends the text of ids to *text. Ill-formed bytes become U+FFFD as Rust's from_utf8_lossy does
 * (the reference). With skip_special, special tokens leave no text. An id out of range is
 * MYELIN_ERROR_ARGUMENT.
 */
myelin_status mln_tokenizer_decode(const mln_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                   bool skip_special, mln_buffer *text, myelin_error *error);

/*
 * Incremental decoding: bytes that may be the beginning of a character are held back until the next
 * push or the flush. The pieces put together equal mln_tokenizer_decode(). Zero-initialise.
 */
typedef struct mln_detokenizer {
    unsigned char held[4];
    size_t num_held;
} mln_detokenizer;

/* Appends the text that became certain with this id to *text. */
myelin_status mln_detokenizer_push(mln_detokenizer *state, const mln_tokenizer *tokenizer,
                                   int32_t id, bool skip_special, mln_buffer *text,
                                   myelin_error *error);
/* Appends U+FFFD for what is still held. */
myelin_status mln_detokenizer_flush(mln_detokenizer *state, mln_buffer *text, myelin_error *error);

#endif
