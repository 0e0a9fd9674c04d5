/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "engine/held_text.h"

/* What the schema or the tools of a caller are parsed as. */
static myelin_status parse(const myelin_tokenizer *tokenizer, const char *text, size_t length,
                           const char *what, json_t **out, myelin_error *error) {
    *out = NULL;
    if (!tokenizer)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "a constraint needs a tokenizer: expected one, found NULL");
    myelin_status status = mln_json_load(out, text, length, what, error);
    if (status == MYELIN_ERROR_FORMAT) { /* it is no file */
        status = MYELIN_ERROR_ARGUMENT;
        if (error)
            error->status = status;
    }
    return status;
}

static myelin_status make(myelin_constraint **out, mln_grammar *grammar, myelin_error *error) {
    *out = mln_calloc(1, sizeof **out);
    if (!*out) {
        mln_grammar_free(grammar);
        return mln_fail_memory(error, sizeof **out, "a constraint");
    }
    (*out)->grammar = grammar;
    return MYELIN_OK;
}

myelin_status myelin_constraint_from_schema(myelin_constraint **constraint,
                                            const myelin_tokenizer *tokenizer, const char *schema,
                                            size_t length, myelin_error *error) {
    json_t *parsed;
    mln_grammar *grammar = NULL;
    *constraint = NULL;
    myelin_status status = parse(tokenizer, schema, length, "schema", &parsed, error);
    if (status == MYELIN_OK)
        status = mln_grammar_from_schema(&grammar, tokenizer->tokens, parsed, error);
    json_decref(parsed);
    return status == MYELIN_OK ? make(constraint, grammar, error) : status;
}

myelin_status myelin_constraint_from_tools(myelin_constraint **constraint,
                                           const myelin_tokenizer *tokenizer, const char *tools,
                                           size_t length, const char *name, bool required,
                                           bool parallel, myelin_error *error) {
    json_t *parsed;
    mln_grammar *grammar = NULL;
    *constraint = NULL;
    myelin_status status = parse(tokenizer, tools, length, "tools", &parsed, error);
    if (status == MYELIN_OK)
        status = mln_grammar_from_tools(&grammar, tokenizer->tokens, parsed, name, required,
                                        parallel, error);
    json_decref(parsed);
    return status == MYELIN_OK ? make(constraint, grammar, error) : status;
}

void myelin_constraint_free(myelin_constraint *constraint) {
    if (!constraint)
        return;
    mln_grammar_free(constraint->grammar);
    free(constraint);
}

static mln_grammar_start start_of(const mln_turn_form *form) {
    if (form->is_turn && form->thinking == MLN_CHAT_THINKING_OPEN)
        return MLN_START_REASONING;
    if (form->is_turn && form->thinking == MLN_CHAT_THINKING_ALLOWED)
        return MLN_START_EITHER;
    return MLN_START_ANSWER;
}

static size_t num_words(const mln_held_text *held) {
    return ((size_t)held->vocab_size + 31) / 32;
}

myelin_status mln_held_begin(mln_held_text *held, const myelin_generation_options *options,
                             const mln_turn_form *form, int32_t vocab_size, myelin_error *error) {
    *held = (mln_held_text){.stop_ids = options->stop_ids,
                            .num_stop_ids = options->num_stop_ids,
                            .vocab_size = vocab_size};
    if (!options->constraint)
        return MYELIN_OK;
    held->mask = mln_calloc(num_words(held), sizeof *held->mask);
    if (!held->mask)
        return mln_fail_memory(error, num_words(held) * sizeof *held->mask, "a constraint");
    return mln_constraint_create(&held->state, options->constraint->grammar, vocab_size,
                                 start_of(form), error);
}

void mln_held_free(mln_held_text *held) {
    mln_constraint_free(held->state);
    free(held->mask);
    *held = (mln_held_text){0};
}

/* A stop token ends the text, so it may come only where the text is whole; then others still may.
 */
const uint32_t *mln_held_mask(mln_held_text *held) {
    memcpy(held->mask, mln_constraint_allowed(held->state), num_words(held) * sizeof *held->mask);
    bool complete = mln_constraint_complete(held->state);
    for (size_t i = 0; i < held->num_stop_ids; i++) {
        int32_t id = held->stop_ids[i];
        if (id >= held->vocab_size)
            continue;
        uint32_t bit = UINT32_C(1) << id % 32;
        held->mask[id / 32] = complete ? held->mask[id / 32] | bit : held->mask[id / 32] & ~bit;
    }
    held->ended = true;
    for (size_t w = 0; w < num_words(held) && held->ended; w++)
        held->ended = held->mask[w] == 0;
    return held->mask;
}

void mln_held_accept(mln_held_text *held, int32_t id) {
    if (!held->state || mln_constraint_accept(held->state, id))
        return;
    mln_constraint_free(held->state);
    held->state = NULL;
}
