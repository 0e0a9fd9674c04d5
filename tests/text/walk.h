/* SPDX-License-Identifier: Apache-2.0 */
/* Texts drawn at random from a grammar, token by token, as a model without any preference would. */
#ifndef TESTS_TEXT_WALK_H
#define TESTS_TEXT_WALK_H

#include "base/memory.h"
#include "text/constraint.h"

/* A small generator, the same everywhere: what it returns is below `below`. */
uint32_t walk_random(uint64_t *state, uint32_t below);
bool walk_allows(const uint32_t *mask, int32_t id);

/*
 * Appends a text of at most max_tokens tokens; true when it ended where it may. Tokens that say
 * little are preferred, the more the longer the text, so that it comes to an end.
 */
bool walk_text(const mln_tokenizer *tokenizer, const mln_grammar *grammar, uint64_t seed,
               int max_tokens, mln_buffer *text);

#endif
