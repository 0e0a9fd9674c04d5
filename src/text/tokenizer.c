/* SPDX-License-Identifier: Apache-2.0 */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "text/document.h"
#include "text/internal.h"
#include "text/normalize.h"
#include "text/settings.h"

/*
 * Marks the token of added_tokens[index] in the vocabulary. One that is not there yet is appended,
 * so that the vocabulary has to be indexed again, which finds what clashes among the added ones.
 */
static myelin_status place_added(mln_tokenizer *t, const mln_document *d, size_t index,
                                 myelin_error *error) {
    const mln_added_token *added = &d->added[index];
    mln_token *token = mln_vocab_find(&t->vocab, added->content, added->length);
    if (token && token->id != added->id)
        return mln_fail(error, MYELIN_ERROR_FORMAT, d->file, added->offset,
                        "added_tokens[%zu]: expected \"%.*s\" to have the id %u of model.vocab, "
                        "found %u",
                        index, mln_shown(added->content, added->length), added->content, token->id,
                        added->id);
    uint32_t flags = MLN_TOKEN_ADDED | (added->special ? MLN_TOKEN_SPECIAL : 0u);
    if (token) {
        if (token->flags & MLN_TOKEN_ADDED)
            return mln_fail(error, MYELIN_ERROR_FORMAT, d->file, added->offset,
                            "added_tokens[%zu]: \"%.*s\" is there twice", index,
                            mln_shown(added->content, added->length), added->content);
        token->flags |= flags;
        return MYELIN_OK;
    }
    const mln_token *other = mln_vocab_at(&t->vocab, added->id);
    if (other) {
        const char *written = t->vocab.written.data + other->written;
        return mln_fail(error, MYELIN_ERROR_FORMAT, d->file, added->offset,
                        "added_tokens[%zu]: expected a free id for \"%.*s\", found %u, which "
                        "\"%.*s\" has",
                        index, mln_shown(added->content, added->length), added->content, added->id,
                        mln_shown(written, other->written_length), written);
    }
    if (!mln_vocab_add(&t->vocab, added->content, added->length, added->id, flags, added->offset))
        return mln_fail_memory(error, added->length, "a vocabulary");
    return MYELIN_OK;
}

static myelin_status place_all_added(mln_tokenizer *t, const mln_document *d, myelin_error *error) {
    size_t num_model = t->vocab.count;
    for (size_t i = 0; i < d->num_added; i++) {
        myelin_status status = place_added(t, d, i, error);
        if (status != MYELIN_OK)
            return status;
    }
    return t->vocab.count > num_model ? mln_vocab_index(&t->vocab, d->file, error) : MYELIN_OK;
}

/* Decides what each added token is looked for by. */
static myelin_status make_patterns(mln_tokenizer *t, mln_document *d, myelin_error *error) {
    mln_normalizer normalizer = {0};
    myelin_status status = MYELIN_OK;
    for (size_t i = 0; i < d->num_added && status == MYELIN_OK; i++) {
        mln_added_token *added = &d->added[i];
        const char *pattern = added->content;
        size_t length = added->length;
        if (added->normalized && t->nfc)
            status =
                mln_normalize(&normalizer, added->content, added->length, &pattern, &length, error);
        if (status != MYELIN_OK)
            break;
        added->pattern = mln_arena_strndup(&t->arena, pattern, length);
        added->pattern_length = length;
        if (!added->pattern)
            status = mln_fail_memory(error, length, "an added token");
    }
    mln_normalizer_free(&normalizer);
    return status;
}

/*
 * The bytes every token stands for. The reference decodes an added token by its normalised form,
 * and skips it when that form is the content of a special token.
 */
static myelin_status make_bytes(mln_tokenizer *t, const mln_document *d, myelin_error *error) {
    mln_vocab *vocab = &t->vocab;
    for (size_t i = 0; i < d->num_added; i++) {
        const mln_added_token *added = &d->added[i];
        const mln_token *same = mln_vocab_find(vocab, added->pattern, added->pattern_length);
        mln_token *token = mln_vocab_at(vocab, added->id);
        if (!mln_vocab_set_bytes(vocab, token, added->pattern, added->pattern_length))
            return mln_fail_memory(error, added->pattern_length, "a vocabulary");
        if (same && same->flags & MLN_TOKEN_SPECIAL)
            token->flags |= MLN_TOKEN_SKIPPED;
    }
    for (size_t i = 0; i < vocab->count; i++) {
        mln_token *token = &vocab->tokens[i];
        if (!(token->flags & MLN_TOKEN_ADDED) &&
            !mln_vocab_set_bytes(vocab, token, vocab->written.data + token->written,
                                 token->written_length))
            return mln_fail_memory(error, token->written_length, "a vocabulary");
    }
    t->size = vocab->count ? (int32_t)vocab->tokens[vocab->count - 1].id + 1 : 0;
    return MYELIN_OK;
}

static myelin_status build(mln_tokenizer *t, mln_document *d, myelin_error *error) {
    mln_text_settings settings;
    myelin_status status = mln_text_settings_read(&settings, d, error);
    if (status != MYELIN_OK)
        return status;
    t->nfc = settings.nfc;
    t->vocab = d->vocab;
    d->vocab = (mln_vocab){0};
    status = mln_vocab_index(&t->vocab, d->file, error);
    if (status == MYELIN_OK)
        status = mln_bpe_make(&t->bpe, &t->vocab, d, settings.ignore_merges, error);
    if (status == MYELIN_OK)
        status = place_all_added(t, d, error);
    if (status == MYELIN_OK)
        status = make_patterns(t, d, error);
    if (status == MYELIN_OK)
        status = make_bytes(t, d, error);
    if (status == MYELIN_OK)
        status = mln_added_set_make(&t->raw, d->added, d->num_added, false, d->file, error);
    if (status == MYELIN_OK)
        status = mln_added_set_make(&t->normalized, d->added, d->num_added, true, d->file, error);
    if (status == MYELIN_OK && settings.splits)
        status = mln_splitter_compile(&t->splitter, settings.pattern, settings.pattern_literal,
                                      d->file, error);
    return status;
}

myelin_status mln_tokenizer_parse(mln_tokenizer **tokenizer, const char *json, size_t length,
                                  const char *file, myelin_error *error) {
    *tokenizer = NULL;
    if (length > MLN_TOKENIZER_MAX_FILE)
        return mln_fail(error, MYELIN_ERROR_FORMAT, file, -1,
                        "expected at most %llu bytes, found %zu",
                        (unsigned long long)MLN_TOKENIZER_MAX_FILE, length);
    mln_tokenizer *t = mln_calloc(1, sizeof *t);
    if (!t || !(t->trie = mln_trie_slot_make())) {
        free(t);
        return mln_fail_memory(error, sizeof *t, "a tokenizer");
    }
    mln_document document;
    myelin_status status = mln_document_read(&document, json, length, file, error);
    if (status == MYELIN_OK)
        status = build(t, &document, error);
    mln_document_free(&document);
    if (status == MYELIN_OK)
        *tokenizer = t;
    else
        mln_tokenizer_free(t);
    return status;
}

myelin_status mln_tokenizer_open(mln_tokenizer **tokenizer, const char *directory,
                                 myelin_error *error) {
    *tokenizer = NULL;
    char *path = mln_path_join(directory, "tokenizer.json");
    if (!path)
        return mln_fail_memory(error, strlen(directory), "a path");
    mln_buffer json = {0};
    myelin_status status = mln_file_slurp(path, MLN_TOKENIZER_MAX_FILE, &json, error);
    if (status == MYELIN_OK)
        status = mln_tokenizer_parse(tokenizer, json.data, json.length, path, error);
    mln_buffer_free(&json);
    free(path);
    return status;
}

void mln_tokenizer_free(mln_tokenizer *tokenizer) {
    if (!tokenizer)
        return;
    mln_splitter_free(&tokenizer->splitter);
    mln_added_set_free(&tokenizer->raw);
    mln_added_set_free(&tokenizer->normalized);
    mln_bpe_free(&tokenizer->bpe);
    mln_vocab_free(&tokenizer->vocab);
    mln_trie_slot_free(tokenizer->trie);
    mln_arena_free(&tokenizer->arena);
    free(tokenizer);
}

int32_t mln_tokenizer_size(const mln_tokenizer *tokenizer) {
    return tokenizer->size;
}

int32_t mln_tokenizer_find(const mln_tokenizer *tokenizer, const char *content, size_t length) {
    const mln_token *token = mln_vocab_find(&tokenizer->vocab, content, length);
    return token ? (int32_t)token->id : -1;
}

bool mln_tokenizer_bytes(const mln_tokenizer *tokenizer, int32_t id, const char **bytes,
                         size_t *length) {
    if (id < 0 || id >= tokenizer->size)
        return false;
    const mln_token *token = mln_vocab_at(&tokenizer->vocab, (uint32_t)id);
    *bytes = token ? tokenizer->vocab.bytes.data + token->bytes : "";
    *length = token ? token->bytes_length : 0;
    return true;
}

bool mln_tokenizer_is_special(const mln_tokenizer *tokenizer, int32_t id) {
    if (id < 0)
        return false;
    const mln_token *token = mln_vocab_at(&tokenizer->vocab, (uint32_t)id);
    return token && token->flags & MLN_TOKEN_SPECIAL;
}

bool mln_token_is_skipped(const mln_tokenizer *tokenizer, int32_t id) {
    const mln_token *token = mln_vocab_at(&tokenizer->vocab, (uint32_t)id);
    return token && token->flags & (MLN_TOKEN_SPECIAL | MLN_TOKEN_SKIPPED);
}
