/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any JSON as a schema, over a vocabulary of bytes and a few longer tokens. What compiles is walked
 * through at random: there is always a token that may come or an end that may, and what is allowed
 * is accepted. A text that ended is JSON.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "text/byte_alphabet.h"
#include "text/constraint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_STEPS = 60, MAX_SCHEMA = 4096 };

static mln_tokenizer *make_tokenizer(void) {
    static const char before[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{";
    static const char after[] =
        ",\"\\\":\":256,\"{\\\"\":257,\"ab\":258,\"]}\":259,\"12\":260},\"merges\":[]},"
        "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,"
        "\"use_regex\":false},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":false,\"use_regex\":false}}";
    mln_buffer json = {0};
    mln_tokenizer *tokenizer = NULL;
    mln_buffer_append(&json, before, sizeof before - 1);
    for (unsigned b = 0; b < 256; b++) {
        unsigned char form[MLN_UTF8_MAX];
        char id[16];
        size_t n = mln_utf8_encode(mln_byte_to_char((unsigned char)b), form);
        mln_buffer_append(&json, b ? ",\"" : "\"", b ? 2 : 1);
        if (b == '"' || b == '\\')
            mln_buffer_append(&json, "\\", 1);
        mln_buffer_append(&json, form, n);
        mln_buffer_append(&json, id, (size_t)snprintf(id, sizeof id, "\":%u", b));
    }
    mln_buffer_append(&json, after, sizeof after - 1);
    myelin_error error;
    if (mln_tokenizer_parse(&tokenizer, json.data, json.length, "fuzz", &error) != MYELIN_OK) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    mln_buffer_free(&json);
    return tokenizer;
}

/* The n-th token that is allowed, or -1 when none is. */
static int32_t pick(const uint32_t *mask, int32_t size, uint32_t n) {
    uint32_t count = 0;
    for (int32_t id = 0; id < size; id++)
        count += mask[id / 32] >> id % 32 & 1;
    if (count == 0)
        return -1;
    n %= count;
    for (int32_t id = 0;; id++)
        if (mask[id / 32] >> id % 32 & 1 && n-- == 0)
            return id;
}

static void walk(const mln_tokenizer *tokenizer, const mln_grammar *grammar, uint32_t seed) {
    mln_constraint *c;
    mln_buffer text = {0};
    int32_t size = mln_tokenizer_size(tokenizer);
    if (mln_constraint_create(&c, grammar, size, MLN_START_ANSWER, NULL) != MYELIN_OK)
        abort();
    for (int i = 0; i < MAX_STEPS; i++) {
        seed = seed * UINT32_C(1664525) + UINT32_C(1013904223);
        int32_t id = pick(mln_constraint_allowed(c), size, seed >> 8);
        if (id < 0) {
            json_t *value = json_loadb(text.data, text.length, JSON_DECODE_ANY, NULL);
            if (!mln_constraint_complete(c) || !value)
                abort();
            json_decref(value);
            break;
        }
        const char *bytes;
        size_t length;
        mln_tokenizer_bytes(tokenizer, id, &bytes, &length);
        mln_buffer_append(&text, bytes, length);
        if (!mln_constraint_accept(c, id))
            abort();
    }
    mln_buffer_free(&text);
    mln_constraint_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mln_tokenizer *tokenizer;
    if (!tokenizer)
        tokenizer = make_tokenizer();
    json_t *schema;
    if (size < 2 || size > MAX_SCHEMA ||
        mln_json_load(&schema, (const char *)data + 1, size - 1, NULL, NULL) != MYELIN_OK)
        return 0;
    mln_grammar *grammar;
    myelin_error error = {0};
    myelin_status status = mln_grammar_from_schema(&grammar, tokenizer, schema, &error);
    if (status == MYELIN_OK)
        for (uint32_t n = 0; n < 3; n++)
            walk(tokenizer, grammar, data[0] + 256 * n);
    else if (status != MYELIN_ERROR_ARGUMENT || !error.message[0])
        abort();
    mln_grammar_free(grammar);

    /* The same with the n-th allocation failing, n taken from the input. */
    mln_fail_allocation(1 + data[0], size % 2 == 0);
    status = mln_grammar_from_schema(&grammar, tokenizer, schema, NULL);
    mln_fail_allocation(0, false);
    if (status != MYELIN_OK && status != MYELIN_ERROR_ARGUMENT && status != MYELIN_ERROR_MEMORY)
        abort();
    mln_grammar_free(grammar);
    json_decref(schema);
    return 0;
}
