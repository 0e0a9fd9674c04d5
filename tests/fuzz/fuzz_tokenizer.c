/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as tokenizer.json. When they are one, a text that takes many paths and the beginning of
 * the input itself are encoded, and what comes out is decoded, whole and in pieces.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_TEXT = 256 };

static void decode(const mln_tokenizer *tokenizer, const mln_ids *ids) {
    mln_buffer whole = {0}, pieces = {0};
    mln_detokenizer state = {0};
    bool good =
        mln_tokenizer_decode(tokenizer, ids->data, ids->count, false, &whole, NULL) == MYELIN_OK;
    for (size_t i = 0; i < ids->count; i++)
        good = good && mln_detokenizer_push(&state, tokenizer, ids->data[i], false, &pieces,
                                            NULL) == MYELIN_OK;
    good = good && mln_detokenizer_flush(&state, &pieces, NULL) == MYELIN_OK;
    if (!good || whole.length != pieces.length ||
        (whole.length && memcmp(whole.data, pieces.data, whole.length) != 0) ||
        mln_utf8_valid_prefix(whole.data, whole.length) != whole.length)
        abort();
    mln_buffer_free(&whole);
    mln_buffer_free(&pieces);
}

static void encode(const mln_tokenizer *tokenizer, const char *text, size_t length) {
    for (int added = MLN_ADDED_AS_TOKENS; added <= MLN_ADDED_AS_TEXT; added++) {
        mln_ids ids = {0};
        myelin_error error;
        /* Fails when the pattern takes too many steps. */
        if (mln_tokenizer_encode(tokenizer, text, length, (mln_added_tokens)added, &ids, &error) ==
            MYELIN_OK)
            decode(tokenizer, &ids);
        mln_ids_free(&ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char fixed[] =
        "ab abc  aab\n<m> \xC3\xA9 e\xCC\x81\xCC\xA3 \xE1\xA0\x8E 12's "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const char *text = (const char *)data;
    mln_tokenizer *tokenizer;
    if (mln_tokenizer_parse(&tokenizer, text, size, "f", NULL) == MYELIN_OK) {
        encode(tokenizer, fixed, sizeof fixed - 1);
        size_t length = mln_utf8_valid_prefix(text, size < MAX_TEXT ? size : MAX_TEXT);
        encode(tokenizer, text, length);
        mln_tokenizer_free(tokenizer);
    }

    /* The same with the n-th allocation failing, n taken from the input. */
    mln_fail_allocation(size > 0 ? data[size - 1] : 1, size % 2 == 0);
    myelin_status status = mln_tokenizer_parse(&tokenizer, text, size, "f", NULL);
    mln_fail_allocation(0, false);
    if (status == MYELIN_OK)
        mln_tokenizer_free(tokenizer);
    return 0;
}
