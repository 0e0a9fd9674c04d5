/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json as it is written: its large parts in tables, the rest as a list of settings. */
#ifndef MLN_TEXT_DOCUMENT_H
#define MLN_TEXT_DOCUMENT_H

#include "base/json.h"
#include "base/memory.h"
#include "text/vocab.h"

/* One value that is not part of a table, by its path: "pre_tokenizer.pretokenizers.0.type". */
typedef struct mln_setting {
    const char *path;
    mln_json_kind kind; /* never an END */
    mln_json_text text; /* of strings and numbers; NUL-terminated */
    int64_t offset;
    struct mln_setting *next; /* in the order of the file */
} mln_setting;

typedef struct mln_merge {
    uint32_t text;        /* in mln_document.merge_text: the left part, then the right one */
    uint32_t left, right; /* their lengths */
    uint32_t offset;
} mln_merge;

typedef struct mln_added_token {
    const char *content;
    size_t length;
    const char *pattern; /* what is looked for: content, normalised when `normalized` */
    size_t pattern_length;
    uint32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    unsigned seen; /* which fields the file has */
    int64_t offset;
} mln_added_token;

typedef struct mln_document {
    const char *file;
    mln_vocab vocab; /* model.vocab, not indexed yet */
    mln_buffer merge_text;
    mln_merge *merges;
    size_t num_merges, merges_room;
    mln_added_token *added;
    size_t num_added, added_room;
    mln_setting *first, *last;
    size_t num_settings;
    mln_arena arena;
} mln_document;

myelin_status mln_document_read(mln_document *document, const char *json, size_t length,
                                const char *file, myelin_error *error);
void mln_document_free(mln_document *document);

/* NULL when the file has no such value. */
const mln_setting *mln_document_find(const mln_document *document, const char *path);

#endif
