/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an assistant's turn: the first is the options, the second seeds the cuts. Whole and
 * in pieces it must come to the same, and with nothing recognised, to the text itself.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/chat_turn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(const mln_buffer *a, const mln_buffer *b) {
    return a->length == b->length && (!a->length || memcmp(a->data, b->data, a->length) == 0);
}

static void require_same(const mln_chat_turn *a, const mln_chat_turn *b) {
    bool good = same(&a->reasoning, &b->reasoning) && same(&a->content, &b->content) &&
                a->num_calls == b->num_calls && a->num_warnings == b->num_warnings;
    for (size_t i = 0; good && i < a->num_calls; i++)
        good = same(&a->calls[i].name, &b->calls[i].name) &&
               same(&a->calls[i].arguments, &b->calls[i].arguments);
    for (size_t i = 0; good && i < a->num_warnings; i++)
        good = strcmp(a->warnings[i], b->warnings[i]) == 0;
    if (!good)
        abort();
}

/* Pieces of 1 to 8 bytes, now and then a longer one. */
static void read_pieces(mln_chat_turn *turn, const mln_chat_options *like, uint32_t seed,
                        const char *text, size_t length) {
    mln_chat_options options = *like;
    options.handler = mln_chat_turn_add;
    options.context = turn;
    mln_chat_split split;
    mln_chat_split_init(&split, &options);
    bool good = true;
    while (length && good) {
        seed = seed * UINT32_C(1664525) + UINT32_C(1013904223);
        size_t n = 1 + (seed >> 24) % ((seed >> 20) % 16 ? 8 : 64);
        n = n < length ? n : length;
        good = mln_chat_split_push(&split, text, n, NULL) == MYELIN_OK;
        text += n;
        length -= n;
    }
    if (!good || mln_chat_split_finish(&split, NULL) != MYELIN_OK)
        abort();
    mln_chat_split_free(&split);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    mln_chat_options options = {.thinking = (mln_chat_thinking)(data[0] % 3),
                                .tools = data[0] % 2 == 0};
    const char *text = (const char *)data + 2;
    size_t length = size - 2;
    mln_chat_turn whole, pieces = {0};
    if (mln_chat_turn_read(&whole, text, length, options.thinking, options.tools, NULL) !=
        MYELIN_OK)
        abort();
    read_pieces(&pieces, &options, data[1], text, length);
    require_same(&whole, &pieces);
    if (options.thinking == MLN_CHAT_THINKING_OFF && whole.num_calls == 0 &&
        (whole.content.length != length ||
         (length && memcmp(whole.content.data, text, length) != 0)))
        abort();
    mln_chat_turn_free(&whole);
    mln_chat_turn_free(&pieces);

    /* The same with the n-th allocation failing, n taken from the input. */
    mln_fail_allocation(data[size - 1], size % 2 == 0);
    myelin_status status =
        mln_chat_turn_read(&whole, text, length, options.thinking, options.tools, NULL);
    mln_fail_allocation(0, false);
    if (status != MYELIN_OK && status != MYELIN_ERROR_MEMORY)
        abort();
    mln_chat_turn_free(&whole);
    return 0;
}
