/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that does at random what a host may do with the pages of a pool: sequences grow, are cut,
 * fork, share pages, move to others, end and begin again. Each sequence has a plain one beside it
 * that is given the same tokens; both give the same bits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/harness.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum {
    PAGE = MYELIN_PAGE_POSITIONS,
    PAGES = 14,
    SEQUENCES = 5,
    MAX_LEN = 5 * PAGE - 9,
    MAX_STEP = 40,
    ROUNDS = 150
};

static const char *model_directory = MYELIN_TEST_DATA "/models/untied-f16";
static const myelin_plugin *tested;

typedef struct tenant {
    myelin_plugin_sequence *paged, *plain;
    int32_t ids[MAX_LEN];
    int32_t length;
    int32_t pages[5];
    int32_t num_pages;
} tenant;

typedef struct house {
    harness h;
    myelin_plugin_pool *pool;
    myelin_plugin_context *context;
    tenant tenants[SEQUENCES];
    int32_t users[PAGES]; /* how many sequences have each page */
    uint32_t seed;
    float *logits[2]; /* [SEQUENCES * MAX_STEP][vocab] of paged and plain */
    int64_t positions_compared;
} house;

static int32_t roll(house *w, int32_t sides) {
    w->seed ^= w->seed << 13; /* xorshift */
    w->seed ^= w->seed >> 17;
    w->seed ^= w->seed << 5;
    return (int32_t)(w->seed % (uint32_t)sides);
}

/* --- pages --- */

/* A free page, counted as used from now on; -1 when there is none. */
static int32_t take_page(house *w) {
    int32_t first = roll(w, PAGES);
    for (int32_t i = 0; i < PAGES; i++) {
        int32_t page = (first + i) % PAGES;
        if (w->users[page] == 0) {
            w->users[page] = 1;
            return page;
        }
    }
    return -1;
}

/* Gives back the pages that `length` positions do not need. */
static void release(house *w, tenant *t, int32_t length) {
    int32_t keep = (length + PAGE - 1) / PAGE;
    while (t->num_pages > keep)
        w->users[t->pages[--t->num_pages]]--;
}

static void give_pages(const tenant *t) {
    tested->set_pages(t->paged, t->pages, t->num_pages, t->length);
    assert_int_equal(tested->sequence_length(t->paged), t->length);
}

/* Pages for `count` more positions, none of those to be written another sequence's. */
static bool make_room(house *w, tenant *t, int32_t count) {
    if (t->length + count > MAX_LEN)
        return false;
    for (int32_t i = t->length / PAGE; i < t->num_pages; i++) { /* that are written to */
        int32_t page = w->users[t->pages[i]] > 1 ? take_page(w) : t->pages[i];
        if (page < 0)
            return false;
        if (page == t->pages[i])
            continue;
        tested->copy_page(w->pool, page, t->pages[i]);
        w->users[t->pages[i]]--;
        t->pages[i] = page;
    }
    while (t->num_pages * PAGE < t->length + count) {
        int32_t page = take_page(w);
        if (page < 0)
            return false; /* what it has is kept */
        t->pages[t->num_pages++] = page;
    }
    return true;
}

/* --- what a host does --- */

/* Some of the sequences by some tokens, in one call. */
static void grow(house *w) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_span spans[2][SEQUENCES];
    int32_t n = 0;
    size_t vocab = (size_t)w->h.vocab;
    for (int32_t i = 0; i < SEQUENCES; i++) {
        tenant *t = &w->tenants[i];
        int32_t count = 1 + roll(w, roll(w, 3) ? MAX_STEP : 2);
        if (roll(w, 3) == 0 || !make_room(w, t, count))
            continue;
        give_pages(t);
        int32_t *ids = t->ids + t->length;
        for (int32_t k = 0; k < count; k++)
            ids[k] = roll(w, w->h.vocab);
        t->length += count;
        for (int side = 0; side < 2; side++)
            spans[side][n] =
                (myelin_span){.sequence = side ? t->plain : t->paged,
                              .ids = ids,
                              .count = count,
                              .num_logits = count,
                              .logits = w->logits[side] + (size_t)(n * MAX_STEP) * vocab};
        n++;
    }
    for (int side = 0; side < 2; side++)
        if (tested->forward(w->context, spans[side], n, &error) != MYELIN_OK)
            fail_msg("%s", text);
    for (int32_t s = 0; s < n; s++) {
        assert_same_floats(spans[1][s].logits, spans[0][s].logits,
                           (size_t)spans[0][s].count * vocab);
        w->positions_compared += spans[0][s].count;
    }
}

static void grow_greedily(house *w) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_sequence *sequences[2][SEQUENCES];
    tenant *chosen[SEQUENCES];
    int32_t n = 0, steps = 1 + roll(w, 8), first[SEQUENCES], out[2][SEQUENCES * 8];
    for (int32_t i = 0; i < SEQUENCES && tested->decode_greedy; i++) {
        tenant *t = &w->tenants[i];
        if (roll(w, 2) == 0 || !make_room(w, t, steps))
            continue;
        give_pages(t);
        sequences[0][n] = t->paged;
        sequences[1][n] = t->plain;
        first[n] = roll(w, w->h.vocab);
        chosen[n++] = t;
    }
    for (int side = 0; side < 2 && n > 0; side++)
        if (tested->decode_greedy(w->context, sequences[side], first, n, steps, out[side],
                                  &error) != MYELIN_OK)
            fail_msg("%s", text);
    for (int32_t s = 0; s < n; s++) {
        assert_memory_equal(out[0] + s * steps, out[1] + s * steps, (size_t)steps * sizeof **out);
        int32_t *ids = chosen[s]->ids + chosen[s]->length;
        ids[0] = first[s];
        memcpy(ids + 1, out[0] + s * steps, (size_t)(steps - 1) * sizeof *ids);
        chosen[s]->length += steps;
        w->positions_compared += steps;
    }
}

/* By truncate_sequence() alone, or with pages taken away. */
static void cut(house *w, tenant *t) {
    t->length = roll(w, t->length + 1);
    tested->truncate_sequence(t->paged, t->length);
    tested->truncate_sequence(t->plain, t->length);
    if (roll(w, 2)) {
        release(w, t, t->length);
        give_pages(t);
    }
    assert_int_equal(tested->sequence_length(t->paged), t->length);
}

/* `to` begins again with some of what `from` holds, in the same pages. */
static void fork(house *w, tenant *to, const tenant *from) {
    if (to == from)
        return;
    release(w, to, 0);
    to->length = roll(w, from->length + 1);
    to->num_pages = (to->length + PAGE - 1) / PAGE;
    memcpy(to->ids, from->ids, (size_t)to->length * sizeof *to->ids);
    memcpy(to->pages, from->pages, (size_t)to->num_pages * sizeof *to->pages);
    for (int32_t i = 0; i < to->num_pages; i++)
        w->users[to->pages[i]]++;
    give_pages(to);
    tested->truncate_sequence(to->plain, 0);
    harness_append(&w->h, w->context, to->plain, to->ids, to->length, MAX_STEP, NULL);
}

/* One page to another place; those that share it keep the old one. */
static void move(house *w, tenant *t) {
    int32_t page = t->num_pages > 0 ? take_page(w) : -1;
    if (page < 0)
        return;
    int32_t index = roll(w, t->num_pages);
    tested->copy_page(w->pool, page, t->pages[index]);
    w->users[t->pages[index]]--;
    t->pages[index] = page;
    give_pages(t);
}

static void step(house *w) {
    tenant *t = &w->tenants[roll(w, SEQUENCES)], *other = &w->tenants[roll(w, SEQUENCES)];
    switch (roll(w, 8)) {
    case 0:
        cut(w, t);
        return;
    case 1:
        fork(w, t, other);
        return;
    case 2:
    case 3:
        move(w, t);
        return;
    case 4:
        grow_greedily(w);
        return;
    default:
        grow(w);
    }
}

static void run(uint32_t seed) {
    house *w = calloc(1, sizeof *w);
    w->seed = seed * 0x9e3779b9u;
    w->h = harness_open_with(tested, MYELIN_FUSION_AUTO, model_directory, 2, MYELIN_DTYPE_AUTO);
    w->pool = harness_pool(&w->h, PAGES);
    w->context = harness_context(&w->h, SEQUENCES * MAX_STEP, MAX_LEN);
    for (int side = 0; side < 2; side++)
        w->logits[side] =
            malloc((size_t)(SEQUENCES * MAX_STEP * w->h.vocab) * sizeof *w->logits[side]);
    for (int32_t i = 0; i < SEQUENCES; i++) {
        w->tenants[i].paged = harness_paged_sequence(&w->h, w->pool, MAX_LEN);
        w->tenants[i].plain = harness_sequence(&w->h, MAX_LEN);
    }
    for (int32_t round = 0; round < ROUNDS; round++)
        step(w);
    printf("seed %u: %lld positions compared\n", seed, (long long)w->positions_compared);
    assert_true(w->positions_compared > ROUNDS);
    for (int32_t i = 0; i < SEQUENCES; i++) {
        tested->free_sequence(w->tenants[i].paged);
        tested->free_sequence(w->tenants[i].plain);
    }
    free(w->logits[0]);
    free(w->logits[1]);
    tested->free_context(w->context);
    tested->free_pool(w->pool);
    harness_close(&w->h);
    free(w);
}

static void schedules(void **state) {
    (void)state;
    for (uint32_t seed = 1; seed <= (is_sanitized() ? 1 : 3); seed++)
        run(seed);
}

/* usage: test_model_page_schedules [KERNELS|PLUGIN [MODEL [CACHE]]], "built" for a model built here
 */
int main(int argc, char **argv) {
    tested = argc > 1 ? harness_plugin(argv[1]) : mln_composed_plugin();
    if (!tested)
        return 77; /* this processor has no such kernels */
    harness_cache_type = harness_cache_named(argc > 3 ? argv[3] : NULL);
    char *built = argc > 2 && !strcmp(argv[2], "built") ? builder_write_published() : NULL;
    if (argc > 2)
        model_directory = built ? built : argv[2];
    const struct CMUnitTest tests[] = {cmocka_unit_test(schedules)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_directory_remove(built);
    return failed;
}
