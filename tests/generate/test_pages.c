/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page allocator against a model of it that searches everything: random texts that begin alike
 * come, grow, are shared and go, in memory that is far too small for them.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "base/memory.h"
#include "generate/pages.h"

enum { BLOCKS = 5, LONGEST = BLOCKS * MLN_PAGE, PAGES = 23, HOLDERS = 6 };

/* One page as it should be: what is written in it, with all that stands before. */
typedef struct model_page {
    int32_t references;
    bool cached;
    int32_t count; /* tokens from the beginning of the text to the last one in this page */
    int32_t text[LONGEST];
    uint64_t dropped; /* when it was let go of */
} model_page;

/* A sequence: its text, of which `written` tokens are in its pages, `shared` pages being cached. */
typedef struct holder {
    bool active;
    int32_t text[LONGEST];
    int32_t count, written, num_pages, shared;
    int32_t table[BLOCKS];
} holder;

static uint32_t random_state;
static mln_pages *pages;
static model_page model[PAGES];
static holder holders[HOLDERS];
static uint64_t now;
static int num_evicted, num_whole, num_partial, num_replaced;

static int32_t below(int32_t limit) {
    random_state = random_state * 1664525u + 1013904223u;
    return (int32_t)((uint64_t)random_state * (uint64_t)limit >> 32);
}

/* One of a few texts, of any length; they are alike up to different places. */
static void make_text(holder *h) {
    int32_t kind = below(10);
    h->count = 1 + below(LONGEST);
    for (int32_t i = 0; i < h->count; i++)
        h->text[i] = i < kind * 29 ? 7 * i % 13 : 13 + kind;
}

static bool idle(int32_t i) {
    return model[i].cached && model[i].references == 0;
}

static int32_t block_start(int32_t i) {
    return (model[i].count - 1) / MLN_PAGE * MLN_PAGE;
}

/* Tokens of `text` that page i has, if its parents hold all of text before them; else 0. */
static int32_t common_in(int32_t i, const int32_t *text, int32_t count) {
    int32_t begin = block_start(i), same = begin;
    if (!model[i].cached || count <= begin ||
        memcmp(model[i].text, text, (size_t)begin * sizeof *text) != 0)
        return 0;
    while (same < count && same < model[i].count && model[i].text[same] == text[same])
        same++;
    return same - begin;
}

/* The page that has waited longest, which must be a leaf. */
static int32_t expected_victim(void) {
    int32_t victim = MLN_NO_PAGE;
    for (int32_t i = 0; i < PAGES; i++)
        if (idle(i) && (victim == MLN_NO_PAGE || model[i].dropped < model[victim].dropped))
            victim = i;
    for (int32_t i = 0; victim != MLN_NO_PAGE && i < PAGES; i++)
        if (i != victim && model[i].cached && model[i].count > model[victim].count)
            assert_true(memcmp(model[i].text, model[victim].text,
                               (size_t)model[victim].count * sizeof(int32_t)) != 0 ||
                        model[victim].count % MLN_PAGE != 0);
    return victim;
}

static int32_t take(void) {
    int32_t num_free = 0;
    for (int32_t i = 0; i < PAGES; i++)
        num_free += model[i].references == 0 && !model[i].cached;
    int32_t victim = expected_victim(), page = mln_pages_take(pages);
    if (num_free == 0)
        assert_int_equal(page, victim);
    if (page == MLN_NO_PAGE)
        return page;
    assert_int_equal(model[page].references, 0);
    assert_int_equal(model[page].cached, num_free == 0);
    num_evicted += num_free == 0;
    model[page] = (model_page){.references = 1};
    return page;
}

static void drop(int32_t page) {
    mln_pages_drop(pages, page);
    assert_true(model[page].references > 0);
    if (--model[page].references == 0)
        model[page].dropped = ++now;
}

/* What a page is found to hold is what the text says, and nothing longer was there. */
static void begin(holder *h) {
    make_text(h);
    mln_prefix prefix = mln_pages_match(pages, h->text, h->count, h->table);
    int32_t done = 0, longest = 0;
    for (int32_t k = 0; k < prefix.num_pages; k++) {
        int32_t page = h->table[k];
        assert_int_equal(common_in(page, h->text, h->count), MLN_PAGE);
        assert_int_equal(model[page].count, done += MLN_PAGE);
        model[page].references++;
    }
    for (int32_t i = 0; i < PAGES; i++)
        if (model[i].cached && block_start(i) == done) {
            int32_t common = common_in(i, h->text, h->count);
            longest = common > longest ? common : longest;
        }
    assert_int_equal(prefix.num_partial, longest);
    assert_int_equal(prefix.partial == MLN_NO_PAGE, longest == 0);
    assert_true(longest < MLN_PAGE);
    h->active = true;
    h->num_pages = h->shared = prefix.num_pages;
    h->written = done;
    num_whole += prefix.num_pages;
    if (prefix.partial == MLN_NO_PAGE)
        return;
    assert_int_equal(common_in(prefix.partial, h->text, h->count), longest);
    model[prefix.partial].references++;
    int32_t page = take();
    if (page != MLN_NO_PAGE) { /* as if copied */
        h->table[h->num_pages++] = page;
        h->written += longest;
        num_partial++;
    }
    drop(prefix.partial);
}

static void note_shared(int32_t page, const holder *h, int32_t count) {
    model[page].cached = true;
    model[page].count = count;
    memcpy(model[page].text, h->text, (size_t)count * sizeof *h->text);
}

static void share_whole(holder *h) {
    for (; (h->shared + 1) * MLN_PAGE <= h->written; h->shared++) {
        int32_t k = h->shared, page = h->table[k], there = MLN_NO_PAGE;
        for (int32_t i = 0; i < PAGES; i++)
            if (model[i].count == (k + 1) * MLN_PAGE &&
                common_in(i, h->text, h->written) == MLN_PAGE)
                there = i;
        int32_t now_used = mln_pages_share(pages, page, k > 0 ? h->table[k - 1] : MLN_NO_PAGE,
                                           h->text + k * MLN_PAGE, MLN_PAGE);
        if (there == MLN_NO_PAGE) {
            assert_int_equal(now_used, page);
            note_shared(page, h, (k + 1) * MLN_PAGE);
        } else { /* never two of the same */
            assert_int_equal(now_used, there);
            model[there].references++;
            model[page].references--;
            h->table[k] = there;
            num_replaced++;
        }
    }
}

static void write_more(holder *h) {
    int32_t end = h->written + 1 + below(90);
    end = end < h->count ? end : h->count;
    while (h->num_pages * MLN_PAGE < end) {
        int32_t page = take();
        if (page == MLN_NO_PAGE)
            break;
        h->table[h->num_pages++] = page;
    }
    h->written = end < h->num_pages * MLN_PAGE ? end : h->num_pages * MLN_PAGE;
    share_whole(h);
}

static void finish(holder *h) {
    int32_t rest = h->written - h->shared * MLN_PAGE, longest = 0;
    if (rest > 0 && below(4) > 0) {
        int32_t page = h->table[h->shared];
        for (int32_t i = 0; i < PAGES; i++)
            if (model[i].cached && block_start(i) == h->shared * MLN_PAGE) {
                int32_t common = common_in(i, h->text, h->written);
                longest = common > longest ? common : longest;
            }
        int32_t parent = h->shared > 0 ? h->table[h->shared - 1] : MLN_NO_PAGE;
        assert_int_equal(mln_pages_share(pages, page, parent, h->text + h->shared * MLN_PAGE, rest),
                         page);
        if (longest < rest)
            note_shared(page, h, h->written);
    }
    while (h->num_pages > 0)
        drop(h->table[--h->num_pages]);
    *h = (holder){0};
}

static void check_counts(void) {
    int32_t available = 0, cached = 0;
    for (int32_t i = 0; i < PAGES; i++) {
        available += model[i].references == 0;
        cached += idle(i);
    }
    assert_int_equal(mln_pages_available(pages), available);
    assert_int_equal(mln_pages_cached(pages), cached);
}

static void test_against_the_model(void **state) {
    (void)state;
    random_state = 5;
    assert_int_equal(mln_pages_create(&pages, PAGES, NULL), MYELIN_OK);
    (void)mln_fail_allocation(0, false);
    for (int32_t i = 0; i < 60000; i++) {
        holder *h = &holders[below(HOLDERS)];
        if (!h->active)
            begin(h);
        else if (below(5) > 0)
            write_more(h);
        else
            finish(h);
        check_counts();
    }
    assert_int_equal(mln_fail_allocation(0, false), 0); /* nothing allocates */
    assert_true(num_evicted > 1000 && num_whole > 1000 && num_partial > 1000 && num_replaced > 100);
    for (int32_t i = 0; i < HOLDERS; i++)
        if (holders[i].active)
            finish(&holders[i]);
    check_counts();
    assert_true(mln_pages_cached(pages) > 0);
    mln_pages_clear(pages);
    assert_int_equal(mln_pages_available(pages), PAGES);
    assert_int_equal(mln_pages_cached(pages), 0);
    int32_t table[BLOCKS];
    mln_prefix none = mln_pages_match(pages, holders[0].text, LONGEST, table);
    assert_true(none.num_pages == 0 && none.partial == MLN_NO_PAGE);
    mln_pages_free(pages);
}

static void test_one_page(void **state) {
    (void)state;
    int32_t ids[MLN_PAGE] = {0}, table[1];
    assert_int_equal(mln_pages_create(&pages, 1, NULL), MYELIN_OK);
    assert_int_equal(mln_pages_take(pages), 0);
    assert_int_equal(mln_pages_take(pages), MLN_NO_PAGE);
    assert_int_equal(mln_pages_share(pages, 0, MLN_NO_PAGE, ids, MLN_PAGE), 0);
    assert_int_equal(mln_pages_take(pages), MLN_NO_PAGE);
    mln_pages_drop(pages, 0);
    assert_int_equal(mln_pages_match(pages, ids, MLN_PAGE, table).num_pages, 1);
    assert_int_equal(mln_pages_find(pages, MLN_NO_PAGE, ids), 0);
    assert_int_equal(mln_pages_find(pages, 0, ids), MLN_NO_PAGE);
    mln_pages_drop(pages, 0);
    assert_int_equal(mln_pages_take(pages), MLN_NO_PAGE);
    mln_pages_drop(pages, 0);
    assert_int_equal(mln_pages_take(pages), 0);
    assert_int_equal(mln_pages_match(pages, ids, MLN_PAGE, table).num_pages, 0);
    mln_pages_free(pages);
    mln_pages_free(NULL);
}

static void test_failing_memory(void **state) {
    (void)state;
    for (uint64_t n = 1; n <= 3; n++) {
        myelin_error error = {0};
        mln_fail_allocation(n, false);
        assert_int_equal(mln_pages_create(&pages, PAGES, &error), MYELIN_ERROR_MEMORY);
        assert_null(pages);
        assert_non_null(strstr(error.message, "could not allocate"));
    }
    mln_fail_allocation(0, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_the_model),
        cmocka_unit_test(test_one_page),
        cmocka_unit_test(test_failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
