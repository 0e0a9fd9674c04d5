/* SPDX-License-Identifier: Apache-2.0 */
/* A generation held to a constraint: which tokens may come next, the stop tokens among them. */
#ifndef MLN_ENGINE_HELD_TEXT_H
#define MLN_ENGINE_HELD_TEXT_H

#include "engine/internal.h"
#include "text/constraint.h"

struct myelin_constraint {
    mln_grammar *grammar;
};

/* Zero-initialise; without a state nothing is held. */
typedef struct mln_held_text {
    mln_constraint *state;
    const int32_t *stop_ids; /* borrowed */
    size_t num_stop_ids;
    int32_t vocab_size;
    uint32_t *mask; /* of the next token */
    bool ended;     /* nothing may follow, not even a stop token */
} mln_held_text;

/*
 * Takes all the memory it needs. `form` tells what the text begins with: in an open block of
 * reasoning, or where one may be opened, the constraint is on what follows it.
 */
myelin_status mln_held_begin(mln_held_text *held, const myelin_generation_options *options,
                             const mln_turn_form *form, int32_t vocab_size, myelin_error *error);
void mln_held_free(mln_held_text *held);

/* The mask of the next token, valid until the next call; there is a state. */
const uint32_t *mln_held_mask(mln_held_text *held);
/* A token came, chosen or forced; one that was not allowed ends the holding. */
void mln_held_accept(mln_held_text *held, int32_t id);

#endif
