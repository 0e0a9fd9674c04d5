/* SPDX-License-Identifier: Apache-2.0 */
#include "text/walk.h"

#include <stdlib.h>

uint32_t walk_random(uint64_t *state, uint32_t below) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 33) % below);
}

bool walk_allows(const uint32_t *mask, int32_t id) {
    return mask[id / 32] >> id % 32 & 1;
}

static int32_t draw(const uint32_t *mask, int32_t size, uint64_t *state) {
    uint32_t count = 0;
    for (int32_t id = 0; id < size; id++)
        count += walk_allows(mask, id);
    if (count == 0)
        return -1;
    uint32_t left = walk_random(state, count);
    for (int32_t id = 0; id < size; id++)
        if (walk_allows(mask, id) && left-- == 0)
            return id;
    return -1;
}

/* The allowed token that closes something, or -1. */
static int32_t closing(const mln_tokenizer *tokenizer, const uint32_t *mask) {
    static const char *const texts[] = {"\"", "}", "]"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int32_t id = mln_tokenizer_find(tokenizer, texts[i], 1);
        if (id >= 0 && walk_allows(mask, id))
            return id;
    }
    return -1;
}

bool walk_text(const mln_tokenizer *tokenizer, const mln_grammar *grammar, uint64_t seed,
               int max_tokens, mln_buffer *text) {
    mln_constraint *c;
    int32_t size = mln_tokenizer_size(tokenizer);
    bool ended = false;
    if (mln_constraint_create(&c, grammar, size, MLN_START_ANSWER, NULL) != MYELIN_OK)
        return false;
    for (int i = 0; i < max_tokens && !ended; i++) {
        const uint32_t *mask = mln_constraint_allowed(c);
        const char *bytes;
        size_t length;
        int32_t id = draw(mask, size, &seed), close = closing(tokenizer, mask);
        if (close >= 0 && walk_random(&seed, (uint32_t)max_tokens) < 20 + 4 * (uint32_t)i)
            id = close;
        if (mln_constraint_complete(c) && (id < 0 || walk_random(&seed, 3) == 0))
            ended = true;
        else if (id < 0 || !mln_tokenizer_bytes(tokenizer, id, &bytes, &length) ||
                 !mln_buffer_append(text, bytes, length) || !mln_constraint_accept(c, id))
            break;
    }
    mln_constraint_free(c);
    return ended;
}
