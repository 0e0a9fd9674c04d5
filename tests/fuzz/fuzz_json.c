/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both JSON readers on any bytes. What jansson takes for strict JSON the stream must take as well,
 * nesting beyond its limit aside; the other way round jansson refuses more (\u0000, huge numbers).
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads what the event says is there, for the address sanitizer, and counts what is open. */
static myelin_status visit(void *context, const mln_json_event *event, myelin_error *error) {
    (void)error;
    int *open = context;
    uint64_t sum = 0;
    for (int i = 0; i < event->depth; i++) {
        sum += event->index[i];
        for (size_t k = 0; k < event->path[i].length; k++)
            sum += (unsigned char)event->path[i].data[k];
    }
    for (size_t k = 0; k < event->text.length; k++)
        sum += (unsigned char)event->text.data[k];
    static volatile uint64_t sink;
    sink = sum;
    (void)sink;
    bool ends = event->kind == MLN_JSON_END_OBJECT || event->kind == MLN_JSON_END_ARRAY;
    *open -= ends;
    if (event->depth != *open)
        abort();
    *open += event->kind == MLN_JSON_BEGIN_OBJECT || event->kind == MLN_JSON_BEGIN_ARRAY;
    return MYELIN_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int open = 0;
    myelin_error error = {0};
    const char *text = (const char *)data;
    myelin_status streamed = mln_json_stream(text, size, "f", visit, &open, &error);
    bool too_deep = streamed != MYELIN_OK && strstr(error.message, "levels of nesting");
    if (streamed == MYELIN_OK && open != 0)
        abort();
    json_t *document;
    myelin_status loaded = mln_json_load(&document, text, size, "f", NULL);
    if (loaded == MYELIN_OK && streamed != MYELIN_OK && !too_deep)
        abort();
    json_decref(document);

    /* The same with the n-th allocation failing, n taken from the input. */
    open = 0;
    mln_fail_allocation(size > 0 ? data[size - 1] : 1, size % 2 == 0);
    mln_json_stream(text, size, "f", visit, &open, NULL);
    mln_fail_allocation(0, false);
    return 0;
}
