/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_driver DIRECTORY answers requests on stdin, all numbers little-endian 32-bit words:
 * 0 or 1 (added tokens as tokens, as text), n, n bytes of text: the count of ids, the ids;
 * 2 or 3 (decode all, skip special tokens), n, n ids: the count of bytes, the bytes. The count
 * UINT32_MAX means failure; the message goes to stderr.
 */
#include <stdio.h>
#include <stdlib.h>

#include "text/tokenizer.h"

static void answer(myelin_status status, const myelin_error *error, const void *data, size_t count,
                   size_t size) {
    uint32_t n = status == MYELIN_OK ? (uint32_t)count : UINT32_MAX;
    fwrite(&n, sizeof n, 1, stdout);
    if (status != MYELIN_OK)
        fprintf(stderr, "%s\n", error->message);
    else if (count)
        fwrite(data, size, count, stdout);
    fflush(stdout);
}

static void serve(const mln_tokenizer *tokenizer, uint32_t mode, const void *data, uint32_t n) {
    myelin_error error = {0};
    if (mode < 2) {
        mln_ids ids = {0};
        myelin_status status = mln_tokenizer_encode(
            tokenizer, data, n, mode ? MLN_ADDED_AS_TEXT : MLN_ADDED_AS_TOKENS, &ids, &error);
        answer(status, &error, ids.data, ids.count, sizeof *ids.data);
        mln_ids_free(&ids);
    } else {
        mln_buffer text = {0};
        myelin_status status = mln_tokenizer_decode(tokenizer, data, n, mode == 3, &text, &error);
        answer(status, &error, text.data, text.length, 1);
        mln_buffer_free(&text);
    }
}

int main(int argc, char **argv) {
    mln_tokenizer *tokenizer;
    myelin_error error;
    if (argc != 2 || mln_tokenizer_open(&tokenizer, argv[1], &error) != MYELIN_OK) {
        fprintf(stderr, "%s\n", argc == 2 ? error.message : "usage: tokenizer_driver DIRECTORY");
        return 2;
    }
    uint32_t head[2];
    while (fread(head, sizeof head, 1, stdin) == 1) {
        size_t size = head[0] < 2 ? 1 : sizeof(int32_t);
        void *data = malloc(head[1] * size + 1);
        if (!data || fread(data, size, head[1], stdin) != head[1])
            return 1;
        serve(tokenizer, head[0], data, head[1]);
        free(data);
    }
    mln_tokenizer_free(tokenizer);
    return 0;
}
