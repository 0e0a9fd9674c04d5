/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/internal.h"

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

static bool append_replacement(mln_buffer *text) {
    return mln_buffer_append(text, replacement, sizeof replacement - 1);
}

/*
 * Takes one byte: appends the character it completes, holds it back while it may still become one,
 * and replaces each maximal part that cannot by one U+FFFD.
 */
static bool take_byte(mln_detokenizer *d, unsigned char byte, mln_buffer *text) {
    d->held[d->num_held++] = byte;
    while (d->num_held > 0) {
        uint32_t code;
        size_t size = mln_utf8_decode(d->held, d->num_held, &code);
        if (size == 0 &&
            mln_utf8_incomplete_suffix((const char *)d->held, d->num_held) == d->num_held)
            return true;
        if (size ? !mln_buffer_append(text, d->held, size) : !append_replacement(text))
            return false;
        size_t taken = size ? size : code;
        d->num_held -= taken;
        memmove(d->held, d->held + taken, d->num_held);
    }
    return true;
}

static bool take_bytes(mln_detokenizer *d, const char *bytes, size_t length, mln_buffer *text) {
    for (size_t i = 0; i < length;) {
        size_t whole = d->num_held ? 0 : mln_utf8_valid_prefix(bytes + i, length - i);
        if (whole > 0) {
            if (!mln_buffer_append(text, bytes + i, whole))
                return false;
            i += whole;
        } else if (!take_byte(d, (unsigned char)bytes[i++], text)) {
            return false;
        }
    }
    return true;
}

myelin_status mln_detokenizer_push(mln_detokenizer *state, const mln_tokenizer *tokenizer,
                                   int32_t id, bool skip_special, mln_buffer *text,
                                   myelin_error *error) {
    if (id < 0 || id >= tokenizer->size)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "expected token ids from 0 to %d, found %d", tokenizer->size - 1, id);
    const mln_token *token = mln_vocab_at(&tokenizer->vocab, (uint32_t)id);
    if (!token || (skip_special && token->flags & MLN_TOKEN_SKIPPED))
        return MYELIN_OK;
    if (!take_bytes(state, tokenizer->vocab.bytes.data + token->bytes, token->bytes_length, text))
        return mln_fail_memory(error, token->bytes_length, "decoded text");
    return MYELIN_OK;
}

myelin_status mln_detokenizer_flush(mln_detokenizer *state, mln_buffer *text, myelin_error *error) {
    if (state->num_held > 0 && !append_replacement(text))
        return mln_fail_memory(error, sizeof replacement, "decoded text");
    state->num_held = 0;
    return MYELIN_OK;
}

myelin_status mln_tokenizer_decode(const mln_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                   bool skip_special, mln_buffer *text, myelin_error *error) {
    mln_detokenizer state = {0};
    size_t before = text->length;
    myelin_status status = MYELIN_OK;
    for (size_t i = 0; i < count && status == MYELIN_OK; i++)
        status = mln_detokenizer_push(&state, tokenizer, ids[i], skip_special, text, error);
    if (status == MYELIN_OK)
        status = mln_detokenizer_flush(&state, text, error);
    if (status != MYELIN_OK && text->data) {
        text->length = before;
        text->data[before] = '\0';
    }
    return status;
}
