/* SPDX-License-Identifier: Apache-2.0 */
/* Small tokenizer.json documents for tests: a good one, and the same with one part replaced. */
#ifndef TESTS_TEXT_SMALL_H
#define TESTS_TEXT_SMALL_H

#include "text/tokenizer.h"

/*
 * JSON text for one part each; NULL for the usual one, "" to leave the part out. The usual
 * vocabulary has all 256 bytes as 0 .. 255, "ab" 256, "abc" 257; `vocab` and `merges` replace what
 * comes after the bytes.
 */
typedef struct small_parts {
    const char *top; /* in front of everything else, with a comma at its end */
    const char *added_tokens, *normalizer, *pre_tokenizer, *post_processor, *decoder;
    const char *model;         /* the whole model */
    const char *vocab;         /* more entries, each with a comma in front */
    const char *merges;        /* the array */
    const char *model_options; /* entries, each with a comma at its end */
} small_parts;

/* A document, to be freed with mln_buffer_free(). */
mln_buffer small_document(const small_parts *parts);

#define SMALL_ADDED(id, content, flags) "{\"id\":" #id ",\"content\":\"" content "\"," flags "}"
#define SMALL_FLAGS(single, left, right, norm, spec)                                               \
    "\"single_word\":" #single ",\"lstrip\":" #left ",\"rstrip\":" #right ",\"normalized\":" #norm \
    ",\"special\":" #spec

#endif
