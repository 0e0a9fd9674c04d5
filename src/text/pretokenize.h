/* SPDX-License-Identifier: Apache-2.0 */
/* Splitting a text into pre-tokens by a regular expression or a plain string. */
#ifndef MLN_TEXT_PRETOKENIZE_H
#define MLN_TEXT_PRETOKENIZE_H

#include "base/json.h"
#include "base/memory.h"

/* What matching one text may cost at most. */
enum {
    MLN_SPLIT_MAX_STEPS = 20 * 1000 * 1000, /* PCRE2's match limit, for one match */
    MLN_SPLIT_MAX_HEAP_KIB = 64 * 1024,     /* of the interpreter, where JIT cannot serve */
    MLN_SPLIT_MAX_JIT_STACK = 1024 * 1024
};

/* A compiled pattern. Immutable, shared by all threads. Zero-initialise. */
typedef struct mln_splitter {
    struct pcre2_real_general_context_8 *memory;
    struct pcre2_real_code_8 *code;
    bool literal;
} mln_splitter;

myelin_status mln_splitter_compile(mln_splitter *splitter, mln_json_text pattern, bool literal,
                                   const char *file, myelin_error *error);
void mln_splitter_free(mln_splitter *splitter);

/* Walks over one text after the other. Zero-initialise. */
typedef struct mln_splits {
    const mln_splitter *splitter;
    struct pcre2_real_match_data_8 *match;
    struct pcre2_real_match_context_8 *context;
    struct pcre2_real_jit_stack_8 *stack;
    mln_buffer shown; /* see stand_in.h */
    const char *subject;
    size_t length;
    size_t emitted;                /* everything before has been handed out */
    size_t search;                 /* where the next match is looked for; past length: nowhere */
    size_t match_start, match_end; /* of the last match */
    bool matched;                  /* there has been one */
    bool interpret;                /* JIT ran out of stack in this text */
} mln_splits;

/* `text` is well-formed UTF-8 and stays the caller's. */
myelin_status mln_splits_begin(mln_splits *splits, const mln_splitter *splitter, const char *text,
                               size_t length, myelin_error *error);
/* The next piece, never empty; *length is 0 at the end. Every byte is in exactly one piece. */
myelin_status mln_splits_next(mln_splits *splits, size_t *start, size_t *length,
                              myelin_error *error);
void mln_splits_free(mln_splits *splits);

#endif
