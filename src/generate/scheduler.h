/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which sequences take part in the next step, and which memory they have. Requests wait in line by
 * priority, then arrival, and begin when there is room for their prompt; the one first in line is
 * never passed over by smaller ones. Where the plug-in has pages, a sequence is given them as it
 * grows, and when none are left the last by the same order is put aside: it keeps its place and its
 * state, its pages stay in the prefix cache while they can, and it goes on when there is room
 * again. So the first always proceeds, and nothing waits for itself. Without pages a request has
 * all the memory it can come to need from its beginning to its end.
 *
 * One thread at a time.
 */
#ifndef MLN_GENERATE_SCHEDULER_H
#define MLN_GENERATE_SCHEDULER_H

#include "generate/sequence.h"

typedef struct mln_scheduler mln_scheduler;

typedef struct mln_scheduler_options {
    int32_t max_sequences;
    int32_t step_tokens; /* 0: mln_step_tokens(), or max_sequences when that is more */
    uint64_t kv_bytes;   /* of keys and values; 0: for max_sequences of `sequence_len` tokens */
    int32_t sequence_len;
    bool prefix_cache;
} mln_scheduler_options;

/* A request as the scheduler sees it; part of the caller's own. */
typedef struct mln_ticket {
    /* To be set: */
    const int32_t *ids; /* [count] the prompt, checked; must last until the ticket has left */
    int32_t count;      /* at least 1, at most max_len */
    int32_t max_len;    /* positions it can come to need, which fit (mln_scheduler_fits) */
    int32_t priority;   /* higher ones go first */
    bool share;         /* may use pages of others and leave its own */
    /* The scheduler's: */
    mln_sequence *sequence; /* from when it begins; NULL before */
    uint64_t arrival;
    int32_t slot;
    bool aside;        /* begun, and without memory for now */
    bool was_aside;    /* some time */
    int32_t caught_up; /* tokens of the prompt that others have read while it was being read */
    struct mln_ticket *previous, *next;
} mln_ticket;

/* All memory is taken here, apart from what sequences of plug-ins without pages need. */
myelin_status mln_scheduler_create(mln_scheduler **scheduler, const mln_model *model,
                                   const mln_scheduler_options *options, myelin_error *error);
void mln_scheduler_free(mln_scheduler *scheduler); /* accepts NULL; no tickets may be left */

/* MYELIN_ERROR_CACHE_FULL when a request of max_len positions would not fit even alone. Reads only
 * what never changes: any thread may ask. */
myelin_status mln_scheduler_fits(const mln_scheduler *scheduler, int32_t max_len,
                                 myelin_error *error);

/* Lines a ticket up. */
void mln_scheduler_add(mln_scheduler *scheduler, mln_ticket *ticket);
/*
 * Lets the next one begin: *ticket has left the line and its sequence holds its prompt, what was
 * cached of it being in the cache already; the caller begins a generation on the sequence. NULL
 * when nobody waits or there is no room. After a failure *ticket is the one that failed, which is
 * removed already. Those put aside are taken back here, before others their turn comes after.
 */
myelin_status mln_scheduler_admit(mln_scheduler *scheduler, mln_ticket **ticket,
                                  myelin_error *error);
/* Takes a ticket out, wherever it is; its sequence is gone. */
void mln_scheduler_remove(mln_scheduler *scheduler, mln_ticket *ticket);

/* The line, linked by `next`, and those that have begun [*count], in the order of their turns. */
mln_ticket *mln_scheduler_line(const mln_scheduler *scheduler);
mln_ticket *const *mln_scheduler_begun(const mln_scheduler *scheduler, int32_t *count);

/*
 * One step of those that have begun, as mln_decoder_step() makes it. After a failure the caller
 * removes all that have begun; what is cached is forgotten then. Allocates nothing.
 */
myelin_status mln_scheduler_step(mln_scheduler *scheduler, myelin_error *error);

typedef struct mln_scheduler_memory {
    int32_t total, used, cached; /* pages; used by those that have begun */
    uint64_t bytes;              /* of all pages */
    int32_t longest;             /* positions of the longest request there is room for */
} mln_scheduler_memory;

mln_scheduler_memory mln_scheduler_get_memory(const mln_scheduler *scheduler);
/* Forward passes so far. */
uint64_t mln_scheduler_steps(const mln_scheduler *scheduler);

#endif
