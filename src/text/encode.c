/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/internal.h"
#include "text/normalize.h"

/* One call of mln_tokenizer_encode(). */
typedef struct encoder {
    const mln_tokenizer *tokenizer;
    bool find_added;
    mln_json_text guard;  /* UTF-8 of a character to leave out; length 0: none */
    mln_buffer unguarded; /* the part being encoded, without guards */
    mln_normalizer normalizer;
    mln_splits splits;
    mln_bpe_work work;
    mln_ids *ids;
    myelin_error *error;
} encoder;

/* Text without added tokens: splits it and encodes the pieces. */
static myelin_status encode_plain(encoder *e, const char *text, size_t length) {
    const mln_tokenizer *t = e->tokenizer;
    if (length == 0)
        return MYELIN_OK;
    if (!t->splitter.code)
        return mln_bpe_encode(&t->bpe, &e->work, text, length, e->ids, e->error);
    myelin_status status = mln_splits_begin(&e->splits, &t->splitter, text, length, e->error);
    while (status == MYELIN_OK) {
        size_t start, piece;
        status = mln_splits_next(&e->splits, &start, &piece, e->error);
        if (status != MYELIN_OK || piece == 0)
            break;
        status = mln_bpe_encode(&t->bpe, &e->work, text + start, piece, e->ids, e->error);
    }
    return status;
}

/* Text between added tokens of one kind. */
typedef myelin_status (*part_encoder)(encoder *e, const char *text, size_t length);

/* Encodes the tokens of set in text by their ids, and what is between them by `between`. */
static myelin_status encode_around(encoder *e, const mln_added_set *set, const char *text,
                                   size_t length, part_encoder between) {
    mln_added_scan scan = {.set = set, .text = text, .length = length};
    size_t start, end;
    uint32_t id;
    while (e->find_added && mln_added_scan_next(&scan, &start, &end, &id)) {
        myelin_status status = end > start ? between(e, text + start, end - start) : MYELIN_OK;
        if (status == MYELIN_OK)
            status = mln_ids_reserve(e->ids, 1, e->error);
        if (status != MYELIN_OK)
            return status;
        e->ids->data[e->ids->count++] = (int32_t)id;
    }
    return between(e, text + scan.done, length - scan.done);
}

/* Copies text without guards to e->unguarded. */
static myelin_status remove_guards(encoder *e, const char *text, size_t length) {
    e->unguarded.length = 0;
    while (length > 0) {
        const char *guard = memmem(text, length, e->guard.data, e->guard.length);
        size_t plain = guard ? (size_t)(guard - text) : length;
        if (!mln_buffer_append(&e->unguarded, text, plain))
            return mln_fail_memory(e->error, length, "text");
        size_t done = guard ? plain + e->guard.length : plain;
        text += done;
        length -= done;
    }
    return MYELIN_OK;
}

static myelin_status encode_normalized(encoder *e, const char *text, size_t length) {
    bool guarded =
        e->guard.length > 0 && memmem(text, length, e->guard.data, e->guard.length) != NULL;
    if (guarded) {
        myelin_status status = remove_guards(e, text, length);
        if (status != MYELIN_OK)
            return status;
        text = e->unguarded.data;
        length = e->unguarded.length;
    }
    if (e->tokenizer->nfc) {
        myelin_status status =
            mln_normalize(&e->normalizer, text, length, &text, &length, e->error);
        if (status != MYELIN_OK)
            return status;
    }
    /* Without its guards a token would be seen after all. */
    return guarded ? encode_plain(e, text, length)
                   : encode_around(e, &e->tokenizer->normalized, text, length, encode_plain);
}

static myelin_status encode(encoder *e, const char *text, size_t length) {
    size_t valid = mln_utf8_valid_prefix(text, length), before = e->ids->count;
    if (valid != length)
        return mln_fail(e->error, MYELIN_ERROR_ARGUMENT, NULL, (int64_t)valid,
                        "expected UTF-8 text, found byte 0x%02x", (unsigned char)text[valid]);
    myelin_status status = mln_bpe_begin(&e->work, length, e->error);
    if (status == MYELIN_OK)
        status = encode_around(e, &e->tokenizer->raw, text, length, encode_normalized);
    if (status != MYELIN_OK)
        e->ids->count = before;
    mln_buffer_free(&e->unguarded);
    mln_normalizer_free(&e->normalizer);
    mln_splits_free(&e->splits);
    mln_bpe_work_free(&e->work);
    return status;
}

myelin_status mln_tokenizer_encode(const mln_tokenizer *tokenizer, const char *text, size_t length,
                                   mln_added_tokens added, mln_ids *ids, myelin_error *error) {
    encoder e = {.tokenizer = tokenizer,
                 .find_added = added == MLN_ADDED_AS_TOKENS,
                 .ids = ids,
                 .error = error};
    return encode(&e, text, length);
}

myelin_status mln_tokenizer_encode_guarded(const mln_tokenizer *tokenizer, const char *text,
                                           size_t length, uint32_t guard, mln_ids *ids,
                                           myelin_error *error) {
    unsigned char bytes[MLN_UTF8_MAX];
    size_t size = mln_utf8_encode(guard, bytes);
    encoder e = {.tokenizer = tokenizer,
                 .find_added = true,
                 .guard = {(const char *)bytes, size},
                 .ids = ids,
                 .error = error};
    return encode(&e, text, length);
}

void mln_ids_free(mln_ids *ids) {
    free(ids->data);
    *ids = (mln_ids){0};
}
