/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/internal.h"
#include "text/normalize.h"

/* One call of mln_tokenizer_encode(). */
typedef struct encoder {
    const mln_tokenizer *tokenizer;
    bool find_added;
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

static myelin_status encode_normalized(encoder *e, const char *text, size_t length) {
    if (e->tokenizer->nfc) {
        myelin_status status =
            mln_normalize(&e->normalizer, text, length, &text, &length, e->error);
        if (status != MYELIN_OK)
            return status;
    }
    return encode_around(e, &e->tokenizer->normalized, text, length, encode_plain);
}

myelin_status mln_tokenizer_encode(const mln_tokenizer *tokenizer, const char *text, size_t length,
                                   mln_added_tokens added, mln_ids *ids, myelin_error *error) {
    size_t valid = mln_utf8_valid_prefix(text, length), before = ids->count;
    if (valid != length)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, (int64_t)valid,
                        "expected UTF-8 text, found byte 0x%02x", (unsigned char)text[valid]);
    encoder e = {.tokenizer = tokenizer,
                 .find_added = added == MLN_ADDED_AS_TOKENS,
                 .ids = ids,
                 .error = error};
    myelin_status status = mln_bpe_begin(&e.work, length, error);
    if (status == MYELIN_OK)
        status = encode_around(&e, &tokenizer->raw, text, length, encode_normalized);
    if (status != MYELIN_OK)
        ids->count = before;
    mln_normalizer_free(&e.normalizer);
    mln_splits_free(&e.splits);
    mln_bpe_work_free(&e.work);
    return status;
}

void mln_ids_free(mln_ids *ids) {
    free(ids->data);
    *ids = (mln_ids){0};
}
