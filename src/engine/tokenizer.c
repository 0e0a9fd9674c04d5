/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/error.h"
#include "engine/internal.h"

static size_t longest_token(const mln_tokenizer *tokens) {
    size_t longest = 0;
    for (int32_t id = 0; id < mln_tokenizer_size(tokens); id++) {
        const char *bytes;
        size_t length;
        if (mln_tokenizer_bytes(tokens, id, &bytes, &length) && length > longest)
            longest = length;
    }
    return longest;
}

static size_t list_special(const mln_tokenizer *tokens, int32_t *ids) {
    size_t count = 0;
    for (int32_t id = 0; id < mln_tokenizer_size(tokens); id++) {
        if (!mln_tokenizer_is_special(tokens, id))
            continue;
        if (ids)
            ids[count] = id;
        count++;
    }
    return count;
}

myelin_status myelin_tokenizer_open(myelin_tokenizer **out, const char *directory,
                                    myelin_error *error) {
    *out = NULL;
    myelin_tokenizer *tokenizer = mln_calloc(1, sizeof *tokenizer);
    if (!tokenizer)
        return mln_fail_memory(error, sizeof *tokenizer, "a tokenizer");
    myelin_status status = mln_tokenizer_open(&tokenizer->tokens, directory, error);
    if (status == MYELIN_OK) {
        tokenizer->longest_token = longest_token(tokenizer->tokens);
        tokenizer->num_special = list_special(tokenizer->tokens, NULL);
        tokenizer->special_ids = mln_alloc(tokenizer->num_special, sizeof(int32_t));
        if (!tokenizer->special_ids)
            status = mln_fail_memory(error, tokenizer->num_special * sizeof(int32_t),
                                     "a list of control tokens");
    }
    if (status != MYELIN_OK) {
        myelin_tokenizer_close(tokenizer);
        return status;
    }
    list_special(tokenizer->tokens, tokenizer->special_ids);
    *out = tokenizer;
    return MYELIN_OK;
}

void myelin_tokenizer_close(myelin_tokenizer *tokenizer) {
    if (!tokenizer)
        return;
    mln_tokenizer_free(tokenizer->tokens);
    free(tokenizer->special_ids);
    free(tokenizer);
}

int32_t myelin_tokenizer_size(const myelin_tokenizer *tokenizer) {
    return mln_tokenizer_size(tokenizer->tokens);
}

myelin_status myelin_tokenize(const myelin_tokenizer *tokenizer, const char *text, size_t length,
                              bool parse_special, int32_t **ids, size_t *count,
                              myelin_error *error) {
    *ids = NULL;
    *count = 0;
    mln_ids found = {0};
    myelin_status status = mln_tokenizer_encode(
        tokenizer->tokens, text, length, parse_special ? MLN_ADDED_AS_TOKENS : MLN_ADDED_AS_TEXT,
        &found, error);
    if (status == MYELIN_OK && !found.data) {
        found.data = mln_alloc(1, sizeof *found.data);
        if (!found.data)
            status = mln_fail_memory(error, sizeof *found.data, "token ids");
    }
    if (status != MYELIN_OK) {
        mln_ids_free(&found);
        return status;
    }
    *ids = found.data;
    *count = found.count;
    return MYELIN_OK;
}

myelin_status myelin_detokenize(const myelin_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                bool skip_special, char **text, size_t *length,
                                myelin_error *error) {
    *text = NULL;
    *length = 0;
    mln_buffer buffer = {0};
    myelin_status status =
        mln_buffer_append(&buffer, "", 0) ? MYELIN_OK : mln_fail_memory(error, count, "text");
    if (status == MYELIN_OK)
        status = mln_tokenizer_decode(tokenizer->tokens, ids, count, skip_special, &buffer, error);
    if (status != MYELIN_OK) {
        mln_buffer_free(&buffer);
        return status;
    }
    *text = buffer.data;
    *length = buffer.length;
    return MYELIN_OK;
}

bool myelin_token_bytes(const myelin_tokenizer *tokenizer, int32_t id, const char **bytes,
                        size_t *length, bool *special) {
    bool known = mln_tokenizer_bytes(tokenizer->tokens, id, bytes, length);
    if (special)
        *special = known && mln_tokenizer_is_special(tokenizer->tokens, id);
    return known;
}

myelin_status mln_prompt_ids(const myelin_model *model, const char *text, size_t length,
                             bool parse_special, mln_ids *ids, myelin_error *error) {
    if (!model->tokenizer)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "a prompt as text needs a tokenizer, and the model has no tokenizer.json");
    return mln_tokenizer_encode(model->tokenizer->tokens, text, length,
                                parse_special ? MLN_ADDED_AS_TOKENS : MLN_ADDED_AS_TEXT, ids,
                                error);
}
