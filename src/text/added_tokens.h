/* SPDX-License-Identifier: Apache-2.0 */
/* Finding added tokens in a text: leftmost, then longest. */
#ifndef MLN_TEXT_ADDED_TOKENS_H
#define MLN_TEXT_ADDED_TOKENS_H

#include "text/document.h"

/* Some added tokens, in the order of their patterns. Immutable once made. Zero-initialise. */
typedef struct mln_added_set {
    mln_added_token *tokens; /* patterns belong to someone who lives longer */
    size_t count;
    uint32_t first[257]; /* tokens whose pattern begins with byte b: first[b] .. first[b + 1] */
} mln_added_set;

/* The tokens with normalized == `normalized`. Two with one pattern are an error. */
myelin_status mln_added_set_make(mln_added_set *set, const mln_added_token *tokens, size_t count,
                                 bool normalized, const char *file, myelin_error *error);
void mln_added_set_free(mln_added_set *set);

/* A walk over one text: {.set, .text, .length}. What is left in the end begins at `done`. */
typedef struct mln_added_scan {
    const mln_added_set *set;
    const char *text;
    size_t length;
    size_t search, done;
} mln_added_scan;

/*
 * The next token in the text, or false. text[*start .. *end) is what stands before it and has not
 * been handed out; *end <= *start means nothing does. The time is proportional to the text times
 * the longest pattern in the worst case, to the text in common ones.
 */
bool mln_added_scan_next(mln_added_scan *scan, size_t *start, size_t *end, uint32_t *id);

#endif
