/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompt look-up: drafts of the tokens to come, without a second model. Where the last tokens stood
 * in the sequence before, what followed them then is likely to follow again; a forward pass over
 * the draft costs little more than over one token, and tells how much of it is right. (Saxena,
 * "Prompt Lookup Decoding", 2023.)
 */
#ifndef MLN_GENERATE_LOOKUP_H
#define MLN_GENERATE_LOOKUP_H

#include <stdint.h>

/* Most tokens drafted at once. */
enum { MLN_LOOKUP_MOST = 11 };

/* How long drafts are, by how well they have done. Plain data. */
typedef struct mln_lookup {
    int32_t most;   /* tokens of a draft, 0: none are made */
    int32_t length; /* of the next draft */
    int32_t wait;   /* steps before the next draft */
    int32_t pause;  /* what `wait` becomes when drafts fail */
    float rate;     /* share of drafted tokens that were right, newer ones counting more */
} mln_lookup;

/* Begins with drafts of at most `most` tokens (cut to MLN_LOOKUP_MOST). */
void mln_lookup_begin(mln_lookup *lookup, int32_t most);

/*
 * draft[room] receives the tokens that followed the longest earlier occurrence of the last tokens
 * of ids[count] (the newest among equals); returns how many, 0 when there is none worth trying.
 * Called once for each step that chooses tokens.
 */
int32_t mln_lookup_draft(mln_lookup *lookup, const int32_t *ids, int32_t count, int32_t *draft,
                         int32_t room);

/* Of `drafted` tokens (at least 1) the first `accepted` were what the model chose. */
void mln_lookup_judge(mln_lookup *lookup, int32_t drafted, int32_t accepted);

#endif
