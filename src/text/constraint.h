/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text held to a language: a grammar over bytes, compiled once, and the states generations go
 * through it in, which say which tokens may come next.
 */
#ifndef MLN_TEXT_CONSTRAINT_H
#define MLN_TEXT_CONSTRAINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "myelin/status.h"
#include "text/tokenizer.h"

/* Immutable; shared by any number of states and threads. */
typedef struct mln_grammar mln_grammar;

/* See myelin_constraint_from_schema() and myelin_constraint_from_tools() in myelin.h. */
myelin_status mln_grammar_from_schema(mln_grammar **grammar, const mln_tokenizer *tokenizer,
                                      const json_t *schema, myelin_error *error);
myelin_status mln_grammar_from_tools(mln_grammar **grammar, const mln_tokenizer *tokenizer,
                                     const json_t *tools, const char *name, bool required,
                                     bool parallel, myelin_error *error);
void mln_grammar_free(mln_grammar *grammar); /* accepts NULL */

/* Where one generation is in the language. All memory is taken when it is made. */
typedef struct mln_constraint mln_constraint;

/* Where a text begins. */
typedef enum mln_grammar_start {
    MLN_START_ANSWER,    /* with what the grammar is of */
    MLN_START_REASONING, /* inside a block of reasoning, whose end the answer follows */
    MLN_START_EITHER,    /* with <think>, or the answer */
    MLN_NUM_STARTS
} mln_grammar_start;

/* vocab_size is the model's, which may have more ids than the tokenizer: those are never allowed.
 */
myelin_status mln_constraint_create(mln_constraint **constraint, const mln_grammar *grammar,
                                    int32_t vocab_size, mln_grammar_start start,
                                    myelin_error *error);
void mln_constraint_free(mln_constraint *constraint); /* accepts NULL */

/*
 * A bit for each id, bit id % 32 of word id / 32: the tokens that can come next and still lead to a
 * text of the language. Control tokens never are. Valid until the next call of accept().
 */
const uint32_t *mln_constraint_allowed(mln_constraint *constraint);
/* The text so far is in the language: a stop token may come. */
bool mln_constraint_complete(const mln_constraint *constraint);
/* Takes a token; false, and nothing changes, when it was not allowed. */
bool mln_constraint_accept(mln_constraint *constraint, int32_t id);

#endif
