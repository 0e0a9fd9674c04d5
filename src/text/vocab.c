/* SPDX-License-Identifier: Apache-2.0 */
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"

enum { FIRST_TOKENS = 256, MAX_SHOWN = 64 };

int mln_shown(const char *text, size_t length) {
    return (int)mln_utf8_valid_prefix(text, length < MAX_SHOWN ? length : MAX_SHOWN);
}

static const char *written_form(const mln_vocab *vocab, const mln_token *token) {
    return vocab->written.data + token->written;
}

bool mln_vocab_add(mln_vocab *vocab, const char *written, size_t length, uint32_t id,
                   uint32_t flags, int64_t offset) {
    if (vocab->count == vocab->capacity) {
        size_t capacity = vocab->capacity ? 2 * vocab->capacity : FIRST_TOKENS;
        mln_token *tokens = mln_realloc(vocab->tokens, capacity, sizeof *tokens);
        if (!tokens)
            return false;
        vocab->tokens = tokens;
        vocab->capacity = capacity;
    }
    size_t place = vocab->written.length;
    if (!mln_buffer_append(&vocab->written, written, length))
        return false;
    vocab->tokens[vocab->count++] = (mln_token){.id = id,
                                                .flags = flags,
                                                .written = (uint32_t)place,
                                                .written_length = (uint32_t)length,
                                                .offset = (uint32_t)offset};
    return true;
}

static int compare_ids(const void *a, const void *b) {
    const mln_token *x = a, *y = b;
    return x->id != y->id ? (x->id > y->id) - (x->id < y->id)
                          : (x->offset > y->offset) - (x->offset < y->offset);
}

static myelin_status sort_by_id(mln_vocab *vocab, const char *file, myelin_error *error) {
    mln_token *tokens = vocab->tokens;
    bool sorted = true;
    for (size_t i = 1; i < vocab->count && sorted; i++)
        sorted = tokens[i - 1].id < tokens[i].id;
    if (sorted)
        return MYELIN_OK;
    qsort(tokens, vocab->count, sizeof *tokens, compare_ids);
    for (size_t i = 1; i < vocab->count; i++) {
        const mln_token *a = &tokens[i - 1], *b = &tokens[i];
        const char *x = written_form(vocab, a), *y = written_form(vocab, b);
        if (a->id == b->id)
            return mln_fail(error, MYELIN_ERROR_FORMAT, file, b->offset,
                            "token \"%.*s\" has the id %u, which token \"%.*s\" has already",
                            mln_shown(y, b->written_length), y, b->id,
                            mln_shown(x, a->written_length), x);
    }
    return MYELIN_OK;
}

/* The slot of the token so written, or the empty one where it belongs. */
static mln_vocab_slot *find_slot(const mln_vocab *vocab, const char *written, size_t length,
                                 uint32_t *tag) {
    uint64_t hash = mln_hash(vocab->key, written, length);
    size_t mask = vocab->num_slots - 1;
    *tag = (uint32_t)(hash >> 32);
    for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
        mln_vocab_slot *slot = &vocab->slots[i];
        if (slot->token == 0)
            return slot;
        if (slot->tag != *tag)
            continue;
        const mln_token *token = &vocab->tokens[slot->token - 1];
        if (token->written_length == length &&
            memcmp(written_form(vocab, token), written, length) == 0)
            return slot;
    }
}

myelin_status mln_vocab_index(mln_vocab *vocab, const char *file, myelin_error *error) {
    myelin_status status = sort_by_id(vocab, file, error);
    if (status != MYELIN_OK)
        return status;
    size_t num_slots = 64;
    while (num_slots < vocab->count + vocab->count / 2)
        num_slots *= 2;
    mln_vocab_slot *slots = mln_calloc(num_slots, sizeof *slots);
    if (!slots)
        return mln_fail_memory(error, num_slots * sizeof *slots, "a vocabulary");
    free(vocab->slots);
    vocab->slots = slots;
    vocab->num_slots = num_slots;
    vocab->key = mln_hash_key_make();
    for (size_t i = 0; i < vocab->count; i++) {
        const mln_token *token = &vocab->tokens[i];
        const char *text = written_form(vocab, token);
        uint32_t tag;
        mln_vocab_slot *slot = find_slot(vocab, text, token->written_length, &tag);
        if (slot->token)
            return mln_fail(error, MYELIN_ERROR_FORMAT, file, token->offset,
                            "token \"%.*s\" is there twice, with the ids %u and %u",
                            mln_shown(text, token->written_length), text,
                            vocab->tokens[slot->token - 1].id, token->id);
        *slot = (mln_vocab_slot){tag, (uint32_t)i + 1};
    }
    return MYELIN_OK;
}

bool mln_vocab_set_bytes(mln_vocab *vocab, mln_token *token, const char *form, size_t length) {
    mln_buffer *out = &vocab->bytes;
    if (!mln_buffer_reserve(out, length))
        return false;
    size_t start = out->length, n = 0;
    bool in_alphabet = true;
    for (size_t i = 0; i < length && in_alphabet;) {
        uint32_t code;
        i += mln_utf8_decode((const unsigned char *)form + i, length - i, &code);
        int byte = mln_char_to_byte(code);
        in_alphabet = byte >= 0;
        out->data[start + n++] = (char)byte;
    }
    if (!in_alphabet) { /* then the reference takes the form as it is written */
        memcpy(out->data + start, form, length);
        n = length;
    }
    out->length = start + n;
    token->bytes = (uint32_t)start;
    token->bytes_length = (uint32_t)n;
    return true;
}

void mln_vocab_free(mln_vocab *vocab) {
    free(vocab->tokens);
    free(vocab->slots);
    mln_buffer_free(&vocab->written);
    mln_buffer_free(&vocab->bytes);
    *vocab = (mln_vocab){0};
}

mln_token *mln_vocab_find(const mln_vocab *vocab, const char *written, size_t length) {
    uint32_t tag;
    if (vocab->num_slots == 0)
        return NULL;
    const mln_vocab_slot *slot = find_slot(vocab, written, length, &tag);
    return slot->token ? &vocab->tokens[slot->token - 1] : NULL;
}

mln_token *mln_vocab_at(const mln_vocab *vocab, uint32_t id) {
    if (id < vocab->count && vocab->tokens[id].id == id) /* ids without gaps: nearly always */
        return &vocab->tokens[id];
    size_t low = 0, high = vocab->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (vocab->tokens[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < vocab->count && vocab->tokens[low].id == id ? &vocab->tokens[low] : NULL;
}
