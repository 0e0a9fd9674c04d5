/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/lookup.h"

#include <string.h>

enum {
    SHORTEST_MATCH = 3, /* tokens that must have stood before; two too often mean nothing */
    LONGEST_MATCH = 32,
    FIRST_LENGTH = 4,
    FIRST_PAUSE = 4, /* steps without drafts after one that failed, doubled each time */
    LONGEST_PAUSE = 256,
};

/* Below this share of right tokens drafts cost more than they bring. */
#define LEAST_RATE 0.15f
/* Weight of the newest draft in the rate. */
#define NEWEST 0.25f

void mln_lookup_begin(mln_lookup *lookup, int32_t most) {
    most = most < MLN_LOOKUP_MOST ? most : MLN_LOOKUP_MOST;
    *lookup = (mln_lookup){.most = most > 0 ? most : 0,
                           .length = most < FIRST_LENGTH ? most : FIRST_LENGTH,
                           .pause = FIRST_PAUSE,
                           .rate = 0.5f};
}

/* How many tokens before `a` equal those before `b`, a < b. */
static int32_t match_length(const int32_t *ids, int32_t a, int32_t b) {
    int32_t length = 0;
    while (length < LONGEST_MATCH && length < a && ids[a - 1 - length] == ids[b - 1 - length])
        length++;
    return length;
}

/* Where what followed the best earlier occurrence of the last tokens begins, or 0. */
static int32_t find(const int32_t *ids, int32_t count) {
    int32_t best = 0, best_length = SHORTEST_MATCH - 1, last = ids[count - 1];
    for (int32_t at = count - 1; at >= SHORTEST_MATCH && best_length < LONGEST_MATCH; at--) {
        if (ids[at - 1] != last)
            continue;
        int32_t length = match_length(ids, at, count);
        if (length > best_length) {
            best_length = length;
            best = at;
        }
    }
    return best;
}

int32_t mln_lookup_draft(mln_lookup *lookup, const int32_t *ids, int32_t count, int32_t *draft,
                         int32_t room) {
    if (lookup->wait > 0) {
        lookup->wait--;
        return 0;
    }
    int32_t wanted = lookup->length < room ? lookup->length : room;
    int32_t from = wanted > 0 && count > SHORTEST_MATCH ? find(ids, count) : 0;
    if (from == 0)
        return 0;
    /* Past the end of the sequence the draft goes on with itself: what repeats goes on repeating.
     */
    for (int32_t i = 0; i < wanted; i++)
        draft[i] = from + i < count ? ids[from + i] : draft[from + i - count];
    return wanted;
}

void mln_lookup_judge(mln_lookup *lookup, int32_t drafted, int32_t accepted) {
    float share = (float)accepted / (float)drafted;
    lookup->rate += NEWEST * (share - lookup->rate);
    int32_t longer = 2 * lookup->length, fitting = accepted + 1;
    int32_t next = accepted == drafted ? longer : fitting > FIRST_LENGTH ? fitting : FIRST_LENGTH;
    lookup->length = next < lookup->most ? next : lookup->most;
    if (accepted > 0 && lookup->rate >= LEAST_RATE) {
        lookup->pause = FIRST_PAUSE;
        return;
    }
    lookup->wait = lookup->pause;
    lookup->pause = lookup->pause < LONGEST_PAUSE ? 2 * lookup->pause : LONGEST_PAUSE;
}
