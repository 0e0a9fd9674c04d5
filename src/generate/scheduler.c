/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/scheduler.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "generate/pages.h"

/* Positions the scratch memory is made for at first; it grows as requests need it. */
enum { FIRST_LEN = 2048 };
/* Tokens of a chunk: a request that comes meanwhile waits for no more. */
enum { SERVING_CHUNK = 4 };
/*
 * When prompts are read while others wait for their next token, a step reads what makes it longer
 * by about this time: fewer tokens after one that took longer, more after one that was quick.
 */
static const double most_added_ms = 150;
enum { FIRST_SHARED_TOKENS = 32, LEAST_SHARED_TOKENS = 16 };

typedef struct place {
    mln_sequence *sequence; /* with pages it stays; else from a ticket's beginning to its end */
    mln_ticket *ticket;
    int32_t *table;     /* [pages_of(limit)]: its pages, when there are pages, */
    int32_t num_table;  /* so many; without pages: what it has reserved */
    int32_t num_shared; /* the first of them, whole blocks, are in the cache */
    bool changed;       /* the sequence has not been told of all of the table */
} place;

struct mln_scheduler {
    const mln_model *model;
    mln_decoder *decoder;
    myelin_plugin_pool *pool; /* NULL: the plug-in has no pages */
    mln_pages *pages;         /* NULL: the same */
    int32_t num_pages, num_reserved;
    uint64_t page_bytes;
    int32_t limit; /* positions of the longest request there is room for */
    bool prefix_cache;
    bool suspect;          /* a step has failed: nobody shall find what lies in the pages */
    int32_t shared_tokens; /* of prompts, in a step others decode in */
    double plain_ms;       /* of the last step without prompts */
    int32_t max_sequences;
    place *slots;             /* [max_sequences] */
    mln_ticket **begun;       /* [max_sequences], in the order of their turns */
    mln_sequence **sequences; /* [max_sequences] of a step */
    int32_t num_begun;
    mln_ticket *first, *last; /* the line */
    uint64_t arrivals, steps;
};

static int32_t pages_of(int32_t positions) {
    return positions / MLN_PAGE + (positions % MLN_PAGE != 0);
}

/* ---- Creating ---------------------------------------------------------------------------------
 */

static bool has_pages(const myelin_plugin *plugin) {
    return plugin->page_bytes && plugin->create_pool && plugin->free_pool &&
           plugin->create_paged_sequence && plugin->set_pages && plugin->copy_page;
}

/* How many pages the budget is, and how large they are. */
static myelin_status count_pages(mln_scheduler *s, const mln_scheduler_options *options,
                                 myelin_error *error) {
    enum { MOST_PAGES = MLN_CONFIG_MAX_POSITIONS / MLN_PAGE };
    const myelin_plugin *plugin = s->model->plugin;
    const myelin_config *config = &s->model->config;
    uint64_t count;
    s->page_bytes =
        has_pages(plugin) ? plugin->page_bytes(config) : plugin->sequence_bytes(config, MLN_PAGE);
    if (s->page_bytes == 0)
        return mln_fail(error, MYELIN_ERROR_INTERNAL, NULL, -1,
                        "%s: expected %d positions to take memory, found 0 bytes", plugin->name,
                        MLN_PAGE);
    if (options->kv_bytes)
        count = options->kv_bytes / s->page_bytes;
    else
        count = (uint64_t)options->max_sequences * (uint64_t)pages_of(options->sequence_len);
    if (count == 0)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "kv_bytes: expected at least %" PRIu64 " (%d positions), found %" PRIu64,
                        s->page_bytes, MLN_PAGE, options->kv_bytes);
    s->num_pages = count < MOST_PAGES ? (int32_t)count : MOST_PAGES;
    s->limit = s->num_pages * MLN_PAGE;
    return MYELIN_OK;
}

static myelin_status create_pool(mln_scheduler *s, myelin_error *error) {
    char reason[256] = "";
    myelin_error_buffer buffer = {reason, sizeof reason};
    myelin_status status =
        s->model->plugin->create_pool(s->model->weights, s->num_pages, &s->pool, &buffer);
    status = mln_plugin_result(status, s->pool != NULL, "create_pool", &buffer);
    if (status == MYELIN_OK)
        return mln_pages_create(&s->pages, s->num_pages, error);
    s->pool = NULL;
    return mln_fail(error, status, NULL, -1, "KV memory of %" PRId32 " pages: %s", s->num_pages,
                    reason);
}

static myelin_status create_slots(mln_scheduler *s, myelin_error *error) {
    size_t n = (size_t)s->max_sequences, length = (size_t)pages_of(s->limit);
    s->slots = mln_calloc(n, sizeof *s->slots);
    s->begun = mln_calloc(n, sizeof(mln_ticket *));
    s->sequences = mln_calloc(n, sizeof(mln_sequence *));
    if (!s->slots || !s->begun || !s->sequences)
        return mln_fail_memory(error, n * sizeof *s->slots, "a scheduler");
    myelin_status status = MYELIN_OK;
    for (size_t i = 0; s->pool && i < n && status == MYELIN_OK; i++) {
        s->slots[i].table = mln_alloc(length, sizeof *s->slots[i].table);
        if (!s->slots[i].table)
            return mln_fail_memory(error, length * sizeof(int32_t), "a page table");
        status =
            mln_sequence_create_paged(&s->slots[i].sequence, s->model, s->pool, s->limit, error);
    }
    return status;
}

myelin_status mln_scheduler_create(mln_scheduler **out, const mln_model *model,
                                   const mln_scheduler_options *options, myelin_error *error) {
    *out = NULL;
    mln_scheduler *s = mln_calloc(1, sizeof *s);
    if (!s)
        return mln_fail_memory(error, sizeof *s, "a scheduler");
    s->model = model;
    s->max_sequences = options->max_sequences;
    s->prefix_cache = options->prefix_cache;
    s->shared_tokens = FIRST_SHARED_TOKENS;
    myelin_status status = count_pages(s, options, error);
    if (status == MYELIN_OK && has_pages(model->plugin))
        status = create_pool(s, error);
    if (status == MYELIN_OK)
        status = create_slots(s, error);
    if (status == MYELIN_OK)
        status = mln_decoder_create_wide(&s->decoder, model, s->max_sequences,
                                         s->limit < FIRST_LEN ? s->limit : FIRST_LEN,
                                         options->step_tokens, error);
    if (status != MYELIN_OK) {
        mln_scheduler_free(s);
        return status;
    }
    *out = s;
    return MYELIN_OK;
}

void mln_scheduler_free(mln_scheduler *s) {
    if (!s)
        return;
    mln_decoder_free(s->decoder);
    for (int32_t i = 0; s->slots && i < s->max_sequences; i++) {
        mln_sequence_free(s->slots[i].sequence);
        free(s->slots[i].table);
    }
    free(s->slots);
    free(s->begun);
    free(s->sequences);
    mln_pages_free(s->pages);
    if (s->pool)
        s->model->plugin->free_pool(s->pool);
    free(s);
}

/* ---- The line ---------------------------------------------------------------------------------
 */

myelin_status mln_scheduler_fits(const mln_scheduler *s, int32_t max_len, myelin_error *error) {
    if (max_len <= s->limit)
        return MYELIN_OK;
    return mln_fail(error, MYELIN_ERROR_CACHE_FULL, NULL, -1,
                    "the request can come to need %" PRId32
                    " tokens of KV cache, and all there is holds %" PRId32,
                    max_len, s->limit);
}

/* Whose turn comes first. */
static bool precedes(const mln_ticket *a, const mln_ticket *b) {
    return a->priority != b->priority ? a->priority > b->priority : a->arrival < b->arrival;
}

void mln_scheduler_add(mln_scheduler *s, mln_ticket *ticket) {
    ticket->sequence = NULL;
    ticket->aside = ticket->was_aside = false;
    ticket->caught_up = 0;
    ticket->arrival = s->arrivals++;
    ticket->next = NULL;
    ticket->previous = s->last;
    while (ticket->previous && precedes(ticket, ticket->previous)) {
        ticket->next = ticket->previous;
        ticket->previous = ticket->previous->previous;
    }
    *(ticket->previous ? &ticket->previous->next : &s->first) = ticket;
    *(ticket->next ? &ticket->next->previous : &s->last) = ticket;
}

static void leave_line(mln_scheduler *s, mln_ticket *ticket) {
    *(ticket->previous ? &ticket->previous->next : &s->first) = ticket->next;
    *(ticket->next ? &ticket->next->previous : &s->last) = ticket->previous;
}

mln_ticket *mln_scheduler_line(const mln_scheduler *s) {
    return s->first;
}

mln_ticket *const *mln_scheduler_begun(const mln_scheduler *s, int32_t *count) {
    *count = s->num_begun;
    return s->begun;
}

/* ---- Pages ------------------------------------------------------------------------------------
 */

static bool shares(const mln_scheduler *s, const mln_ticket *ticket) {
    return s->prefix_cache && ticket->share && !s->suspect;
}

/* Lets go of all pages, the last ones first, as mln_pages_drop() wants it. */
static void drop_pages(mln_scheduler *s, place *slot) {
    while (slot->num_table > 0)
        mln_pages_drop(s->pages, slot->table[--slot->num_table]);
    slot->num_shared = 0;
}

/* Tells a sequence which pages it has, and that `length` positions in them are filled. */
static void show_pages(place *slot, int32_t length) {
    mln_sequence_set_pages(slot->sequence, slot->table, slot->num_table, length);
    slot->changed = false;
}

/* Positions filled; a chunk's run ahead of the tokens. */
static int32_t length_of(const place *slot) {
    return slot->sequence->model->plugin->sequence_length(slot->sequence->cache);
}

/* Puts the blocks that have become whole into the cache. */
static void share_whole(mln_scheduler *s, place *slot) {
    mln_sequence *q = slot->sequence;
    int32_t cached = mln_sequence_cached(q), whole = cached / MLN_PAGE;
    for (int32_t i = slot->num_shared; i < whole; i++) {
        int32_t parent = i > 0 ? slot->table[i - 1] : MLN_NO_PAGE;
        int32_t page = mln_pages_share(s->pages, slot->table[i], parent,
                                       q->ids + (size_t)i * MLN_PAGE, MLN_PAGE);
        slot->changed = slot->changed || page != slot->table[i];
        slot->table[i] = page;
    }
    slot->num_shared = whole > slot->num_shared ? whole : slot->num_shared;
    if (slot->changed) /* a page that was given up for another may be anybody's next */
        show_pages(slot, length_of(slot));
}

/* Takes all pages away from a sequence that has them; what is in them is found again. */
static void take_pages_back(mln_scheduler *s, place *slot) {
    mln_sequence *q = slot->sequence;
    if (shares(s, slot->ticket)) {
        share_whole(s, slot);
        int32_t whole = slot->num_shared, rest = mln_sequence_cached(q) - whole * MLN_PAGE;
        if (rest > 0)
            mln_pages_share(s->pages, slot->table[whole],
                            whole > 0 ? slot->table[whole - 1] : MLN_NO_PAGE,
                            q->ids + (size_t)whole * MLN_PAGE, rest);
    }
    mln_sequence_suspend(q);
    drop_pages(s, slot);
}

/* Takes pages until the slot has `count`; false when there are not so many. */
static bool extend(mln_scheduler *s, place *slot, int32_t count) {
    while (slot->num_table < count) {
        int32_t page = mln_pages_take(s->pages);
        if (page == MLN_NO_PAGE)
            return false;
        slot->table[slot->num_table++] = page;
        slot->changed = true;
    }
    return true;
}

static int32_t num_running(const mln_scheduler *s) {
    int32_t count = 0;
    for (int32_t i = 0; i < s->num_begun; i++)
        count += !s->begun[i]->aside;
    return count;
}

/* The beginning of the page after the whole blocks that were found, copied to one of its own. */
static int32_t copy_partial(mln_scheduler *s, place *slot, const mln_prefix *prefix) {
    int32_t whole = prefix->num_pages;
    bool copied = prefix->partial != MLN_NO_PAGE && extend(s, slot, whole + 1);
    if (copied)
        s->model->plugin->copy_page(s->pool, slot->table[whole], prefix->partial);
    if (prefix->partial != MLN_NO_PAGE)
        mln_pages_drop(s->pages, prefix->partial);
    return whole * MLN_PAGE + (copied ? prefix->num_partial : 0);
}

/*
 * Gives a slot pages for `count` tokens and whatever is cached of them; *length: how many tokens
 * are. False, and nothing has changed, when there is no room for them, and for one page more of
 * each running sequence, so that it does not have to go again at once.
 */
static bool find_pages(mln_scheduler *s, place *slot, const mln_ticket *ticket, const int32_t *ids,
                       int32_t count, int32_t *length) {
    mln_prefix prefix = {.partial = MLN_NO_PAGE};
    /* The logits after the last token are not kept: it is always read. */
    if (shares(s, ticket))
        prefix = mln_pages_match(s->pages, ids, count - 1, slot->table);
    slot->num_table = slot->num_shared = prefix.num_pages;
    int32_t wanted = pages_of(count) - prefix.num_pages + num_running(s);
    /* A page that is to be copied is held meanwhile, and can be taken afterwards. */
    bool pinned = prefix.partial != MLN_NO_PAGE;
    if (wanted > mln_pages_available(s->pages) + pinned) {
        if (pinned)
            mln_pages_drop(s->pages, prefix.partial);
        drop_pages(s, slot);
        return false;
    }
    *length = copy_partial(s, slot, &prefix);
    if (extend(s, slot, pages_of(count)))
        return true;
    drop_pages(s, slot);
    return false;
}

/* ---- Beginning and ending ---------------------------------------------------------------------
 */

static place *free_slot(mln_scheduler *s) {
    for (int32_t i = 0; i < s->max_sequences; i++)
        if (!s->slots[i].ticket)
            return &s->slots[i];
    return NULL;
}

/* Scratch memory for a request, with some to spare so that it does not grow each time. */
static myelin_status reserve(mln_scheduler *s, int32_t max_len, myelin_error *error) {
    if (max_len <= s->decoder->max_len)
        return MYELIN_OK;
    int32_t length = s->decoder->max_len;
    while (length < max_len)
        length = length <= s->limit / 2 ? 2 * length : s->limit;
    return mln_decoder_reserve(s->decoder, length, error);
}

/* Memory of its own for a request; *room: whether the budget has enough left. */
static myelin_status begin_whole(mln_scheduler *s, place *slot, const mln_ticket *ticket,
                                 bool *room, myelin_error *error) {
    int32_t wanted = pages_of(ticket->max_len);
    *room = wanted <= s->num_pages - s->num_reserved;
    if (!*room)
        return MYELIN_OK;
    myelin_status status = mln_sequence_create(&slot->sequence, s->model, ticket->max_len, error);
    if (status == MYELIN_OK)
        status = mln_sequence_append(slot->sequence, ticket->ids, (size_t)ticket->count, error);
    if (status != MYELIN_OK) {
        mln_sequence_free(slot->sequence);
        slot->sequence = NULL;
        return status;
    }
    slot->num_table = wanted;
    s->num_reserved += wanted;
    return MYELIN_OK;
}

static bool begin_paged(mln_scheduler *s, place *slot, const mln_ticket *ticket) {
    int32_t length;
    if (!find_pages(s, slot, ticket, ticket->ids, ticket->count, &length))
        return false;
    mln_sequence_restart(slot->sequence, ticket->ids, ticket->count, ticket->max_len);
    show_pages(slot, length);
    return true;
}

static void enter(mln_scheduler *s, place *slot, mln_ticket *ticket) {
    int32_t i = s->num_begun++;
    leave_line(s, ticket);
    ticket->slot = (int32_t)(slot - s->slots);
    ticket->sequence = slot->sequence;
    slot->ticket = ticket;
    for (; i > 0 && precedes(ticket, s->begun[i - 1]); i--)
        s->begun[i] = s->begun[i - 1];
    s->begun[i] = ticket;
}

/* The first of those put aside, or NULL. */
static mln_ticket *first_aside(const mln_scheduler *s) {
    for (int32_t i = 0; i < s->num_begun; i++)
        if (s->begun[i]->aside)
            return s->begun[i];
    return NULL;
}

static bool take_back(mln_scheduler *s, mln_ticket *ticket) {
    place *slot = &s->slots[ticket->slot];
    mln_sequence *q = slot->sequence;
    int32_t length;
    if (!find_pages(s, slot, ticket, q->ids, q->count, &length))
        return false;
    show_pages(slot, length);
    ticket->aside = false;
    return true;
}

myelin_status mln_scheduler_admit(mln_scheduler *s, mln_ticket **out, myelin_error *error) {
    *out = NULL;
    place *slot = free_slot(s);
    mln_ticket *next = slot ? s->first : NULL, *aside;
    while ((aside = first_aside(s)) != NULL && (!next || precedes(aside, next)))
        if (!take_back(s, aside))
            return MYELIN_OK;
    if (!next)
        return MYELIN_OK;
    bool room = true;
    myelin_status status = reserve(s, next->max_len, error);
    if (status == MYELIN_OK && s->pages)
        room = begin_paged(s, slot, next);
    else if (status == MYELIN_OK)
        status = begin_whole(s, slot, next, &room, error);
    if (!room)
        return MYELIN_OK;
    if (status == MYELIN_OK)
        enter(s, slot, next);
    else
        leave_line(s, next);
    *out = next;
    return status;
}

void mln_scheduler_remove(mln_scheduler *s, mln_ticket *ticket) {
    if (!ticket->sequence) {
        leave_line(s, ticket);
        return;
    }
    place *slot = &s->slots[ticket->slot];
    if (!s->pages) {
        mln_sequence_free(slot->sequence);
        slot->sequence = NULL;
        s->num_reserved -= slot->num_table;
        slot->num_table = 0;
    } else if (!ticket->aside) {
        take_pages_back(s, slot);
    }
    int32_t i = 0;
    while (s->begun[i] != ticket)
        i++;
    for (s->num_begun--; i < s->num_begun; i++)
        s->begun[i] = s->begun[i + 1];
    slot->ticket = NULL;
    ticket->sequence = NULL;
    if (s->suspect && s->num_begun == 0) {
        if (s->pages)
            mln_pages_clear(s->pages);
        s->suspect = false;
    }
}

/* ---- Stepping ---------------------------------------------------------------------------------
 */

static void put_aside(mln_scheduler *s, mln_ticket *ticket) {
    take_pages_back(s, &s->slots[ticket->slot]);
    ticket->aside = ticket->was_aside = true;
}

/* Gives a sequence the pages its tokens need, putting others aside, the last first, or itself. */
static void provide(mln_scheduler *s, mln_ticket *ticket) {
    place *slot = &s->slots[ticket->slot];
    int32_t last = s->num_begun - 1;
    while (!ticket->aside && !extend(s, slot, pages_of(ticket->sequence->count))) {
        while (s->begun[last]->aside)
            last--;
        put_aside(s, s->begun[last]);
    }
}

/* Room for a chunk of each, without putting anybody aside for it. */
static bool provide_chunk(mln_scheduler *s, int32_t length) {
    for (int32_t i = 0; i < s->num_begun; i++) {
        const mln_sequence *q = s->begun[i]->sequence;
        int32_t end = q->count + length - 1;
        if (!s->begun[i]->aside &&
            !extend(s, &s->slots[s->begun[i]->slot], pages_of(end < q->max_len ? end : q->max_len)))
            return false;
    }
    return true;
}

/*
 * Of requests that came at once and begin alike the first reads most of each step; the others need
 * not read what it has read meanwhile.
 */
static void catch_up(mln_scheduler *s, mln_ticket *ticket) {
    place *slot = &s->slots[ticket->slot];
    const mln_sequence *q = slot->sequence;
    int32_t before = mln_sequence_cached(q), length = before;
    if (q->phase != MLN_READING || !shares(s, ticket))
        return;
    for (int32_t k = slot->num_shared; (k + 1) * MLN_PAGE < q->count; k++) {
        int32_t page = mln_pages_find(s->pages, k > 0 ? slot->table[k - 1] : MLN_NO_PAGE,
                                      q->ids + (size_t)k * MLN_PAGE);
        if (page == MLN_NO_PAGE)
            break;
        mln_pages_drop(s->pages, slot->table[k]);
        slot->table[k] = page;
        slot->num_shared = k + 1;
        length = slot->num_shared * MLN_PAGE;
    }
    if (length == before)
        return;
    show_pages(slot, length);
    if (!ticket->was_aside)
        ticket->caught_up += length - before;
}

/* Pages for what the next step writes. */
static void provide_pages(mln_scheduler *s) {
    for (int32_t i = 0; i < s->num_begun; i++)
        if (!s->begun[i]->aside)
            catch_up(s, s->begun[i]);
    for (int32_t i = 0; i < s->num_begun; i++)
        if (!s->begun[i]->aside && s->begun[i]->sequence->num_ready == 0)
            provide(s, s->begun[i]);
    if (s->decoder->max_chunk > 1 && !provide_chunk(s, s->decoder->max_chunk))
        s->decoder->max_chunk = 1;
    for (int32_t i = 0; i < s->num_begun; i++) {
        place *slot = &s->slots[s->begun[i]->slot];
        if (!s->begun[i]->aside && slot->changed)
            show_pages(slot, length_of(slot));
    }
}

/* The sequences of a step; true when one of them is past its prompt. */
static bool gather(mln_scheduler *s, int32_t *count) {
    bool generating = false;
    *count = 0;
    for (int32_t i = 0; i < s->num_begun; i++) {
        mln_sequence *q = s->begun[i]->sequence;
        if (s->begun[i]->aside)
            continue;
        generating = generating || q->phase == MLN_GENERATING;
        s->sequences[(*count)++] = q;
    }
    return generating;
}

/* How much of prompts is read beside others that wait for their next token. */
static void adapt(mln_scheduler *s, double ms) {
    const mln_decoder *d = s->decoder;
    int32_t read = d->num_tokens - d->num_spans;
    if (read == 0 && d->num_spans > 0) /* of a chunk: what each of its tokens took */
        s->plain_ms = ms / (1 + s->sequences[0]->num_ready);
    else if (read > 0 && ms - s->plain_ms > most_added_ms && s->shared_tokens > LEAST_SHARED_TOKENS)
        s->shared_tokens /= 2;
    else if (read > 0 && read == s->shared_tokens && ms - s->plain_ms < most_added_ms / 2)
        s->shared_tokens *= 2;
}

myelin_status mln_scheduler_step(mln_scheduler *s, myelin_error *error) {
    mln_decoder *d = s->decoder;
    d->max_chunk = s->first ? 1 : SERVING_CHUNK;
    if (s->pages)
        provide_pages(s);
    int32_t count;
    bool generating = gather(s, &count);
    if (s->shared_tokens > d->step_tokens)
        s->shared_tokens = d->step_tokens;
    d->prompt_tokens = generating ? s->shared_tokens : d->step_tokens;
    int64_t start = mln_clock_ns();
    myelin_status status = mln_decoder_step(d, s->sequences, count, error);
    if (status != MYELIN_OK) {
        s->suspect = true;
        return status;
    }
    s->steps += d->num_spans > 0;
    if (generating)
        adapt(s, mln_ms_between(start, mln_clock_ns()));
    for (int32_t i = 0; s->pages && i < s->num_begun; i++)
        if (!s->begun[i]->aside && shares(s, s->begun[i]))
            share_whole(s, &s->slots[s->begun[i]->slot]);
    return MYELIN_OK;
}

mln_scheduler_memory mln_scheduler_get_memory(const mln_scheduler *s) {
    mln_scheduler_memory memory = {.total = s->num_pages,
                                   .longest = s->limit,
                                   .bytes = (uint64_t)s->num_pages * s->page_bytes};
    if (s->pages) {
        memory.used = s->num_pages - mln_pages_available(s->pages);
        memory.cached = mln_pages_cached(s->pages);
    } else {
        memory.used = s->num_reserved;
    }
    return memory;
}

uint64_t mln_scheduler_steps(const mln_scheduler *s) {
    return s->steps;
}
