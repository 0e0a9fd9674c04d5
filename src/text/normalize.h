/* SPDX-License-Identifier: Apache-2.0 */
/* Unicode Normalization Form C, as the reference tokenizer does it. */
#ifndef MLN_TEXT_NORMALIZE_H
#define MLN_TEXT_NORMALIZE_H

#include "base/memory.h"
#include "myelin/status.h"

/* Working memory of mln_normalize(). Zero-initialise. */
typedef struct mln_normalizer {
    mln_buffer text;
    int32_t *codes; /* the run at hand, decomposed */
    size_t capacity;
    int32_t *sorted;
    size_t sorted_capacity;
} mln_normalizer;

/*
 * Sets *out, *out_length to text (well-formed UTF-8) in NFC: text itself when nothing changes, else
 * memory of the normalizer, valid until the next call. Linear in the length.
 */
myelin_status mln_normalize(mln_normalizer *normalizer, const char *text, size_t length,
                            const char **out, size_t *out_length, myelin_error *error);
void mln_normalizer_free(mln_normalizer *normalizer);

#endif
