/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a safetensors header; its last byte, as a number, says how many bytes of data the
 * file would have after it, so that layouts that fit and layouts that do not are both reached.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the parser promises about what it accepts. */
static void check(const mln_safetensors *t, uint64_t file_size) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < t->count; i++) {
        const mln_file_tensor *tensor = &t->tensors[i];
        bytes += tensor->size;
        if (tensor->offset > file_size || tensor->size > file_size - tensor->offset ||
            tensor->rank < 0 || tensor->rank > MLN_SAFETENSORS_MAX_RANK ||
            mln_safetensors_find(t, tensor->name) != tensor)
            abort();
    }
    if (bytes > file_size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    size_t length = size - 1;
    uint64_t file_size = 8 + length + data[length];
    mln_safetensors out;
    myelin_error error = {0};
    /* A copy of exactly this length: reading past it is seen. */
    char *header = malloc(length ? length : 1);
    if (!header)
        return 0;
    memcpy(header, data, length);
    if (mln_safetensors_parse(&out, header, length, file_size, "fuzz", &error) == MYELIN_OK) {
        check(&out, file_size);
        mln_safetensors_free(&out);
    } else if (error.status == MYELIN_OK || !error.message[0]) {
        abort();
    }
    free(header);
    return 0;
}
