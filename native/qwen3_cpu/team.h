/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that go through one function together, with barriers cheap enough for five in a layer:
 * they spin for a moment, then yield, and sleep between runs. Where another program keeps a
 * processor busy, waiting for the thread it displaced costs more than that thread brings: a short
 * run that stalled is followed by a while in which the caller works alone. Long runs, beside which
 * a wait is short, are neither judged nor done alone.
 */
#ifndef MLN_CPU_TEAM_H
#define MLN_CPU_TEAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "myelin/status.h"

typedef struct mln_team mln_team;

/* Pieces that are claimed of a member's own range in a phase: by itself, in the lower half, from
 * the begin of the range; by others, in the upper half, from its end. */
typedef struct mln_claimed {
    _Alignas(64) _Atomic uint64_t both;
} mln_claimed;

/* One run, shared by its members. */
typedef struct mln_run {
    int32_t size;         /* members */
    mln_claimed *claimed; /* [size] */
    _Alignas(64) _Atomic int32_t arrived;
    _Alignas(64) _Atomic uint32_t phase; /* barriers passed */
    _Alignas(64) int64_t stalled_ns;     /* the caller's waits after it stopped spinning */
} mln_run;

/* What a member of a run knows. */
typedef struct mln_member {
    mln_run *run;
    int32_t index; /* 0 is the caller */
    int32_t size;
} mln_member;

/* Pieces begin .. end-1 of a phase. */
typedef struct mln_share {
    int64_t begin, end;
} mln_share;

typedef void (*mln_team_function)(mln_member *member, void *context);

/* A team of `threads`, the caller of mln_team_run() among them. */
myelin_status mln_team_create(mln_team **team, int32_t threads, myelin_error *error);
void mln_team_free(mln_team *team); /* accepts NULL; nobody may be running */
int32_t mln_team_size(const mln_team *team);

/*
 * Calls function(member, context) in every member at once and returns when all have. Any thread may
 * call; while the team is another's, or after a stall if the run is not a long one, the caller is
 * the only member. Allocates nothing.
 */
void mln_team_run(mln_team *team, bool is_long, mln_team_function function, void *context);

/*
 * Waits until every member has called it as often, and has the processor fetch `bytes` at `next`
 * meanwhile. Begins a new phase of claims.
 */
void mln_barrier_fetch(mln_member *member, const void *next, int64_t bytes);
void mln_barrier(mln_member *member);

/* The share of a phase of `total` pieces that a member will claim first; it may be empty. */
mln_share mln_first_share(const mln_member *member, int64_t total, int64_t most);

/*
 * The next share of this phase, of at most `most` pieces; false when all are handed out. Each
 * member has a range of its own, of which it is given one share behind the other: what it reads is
 * one stream. Then it takes shares from the ends of the others'. They become smaller as a range
 * ends, so that members end together.
 */
bool mln_claim(mln_member *member, int64_t total, int64_t most, mln_share *share);

#endif
