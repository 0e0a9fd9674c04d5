/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/pages.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/memory.h"

/* Children of one block that are looked through for a partial match, the newest first. */
enum { MOST_COMPARED = 256 };

typedef struct page {
    int32_t references;
    int32_t filled; /* tokens, of a page in the cache; else 0 */
    int32_t parent;
    int32_t first_child, older_sibling, newer_sibling;
    int32_t older, newer; /* in line to be evicted; `newer` also links the free pages */
    int32_t next_in_bucket;
    int32_t ids[MLN_PAGE];
} page;

/* pages[num_pages] stands for the beginning of every text and for the ends of the line. */
struct mln_pages {
    int32_t num_pages;
    page *pages; /* [num_pages + 1] */
    int32_t free;
    int32_t num_free, num_idle; /* idle: cached, and nobody holds it */
    mln_hash_key key;
    uint32_t bucket_mask;
    int32_t *buckets; /* [bucket_mask + 1]: whole blocks by (parent, ids) */
};

myelin_status mln_pages_create(mln_pages **out, int32_t num_pages, myelin_error *error) {
    *out = NULL;
    uint32_t num_buckets = 1;
    while (num_buckets < (uint32_t)num_pages)
        num_buckets *= 2;
    mln_pages *p = mln_calloc(1, sizeof *p);
    if (p) {
        p->pages = mln_calloc((size_t)num_pages + 1, sizeof *p->pages);
        p->buckets = mln_alloc(num_buckets, sizeof *p->buckets);
    }
    if (!p || !p->pages || !p->buckets) {
        mln_pages_free(p);
        return mln_fail_memory(error, ((uint64_t)num_pages + 1) * sizeof(page), "a page table");
    }
    p->num_pages = p->num_free = num_pages;
    p->key = mln_hash_key_make();
    p->bucket_mask = num_buckets - 1;
    for (uint32_t i = 0; i < num_buckets; i++)
        p->buckets[i] = MLN_NO_PAGE;
    for (int32_t i = 0; i < num_pages; i++)
        p->pages[i].newer = i + 1 < num_pages ? i + 1 : MLN_NO_PAGE;
    p->pages[num_pages] =
        (page){.first_child = MLN_NO_PAGE, .older = num_pages, .newer = num_pages};
    *out = p;
    return MYELIN_OK;
}

void mln_pages_free(mln_pages *p) {
    if (!p)
        return;
    free(p->pages);
    free(p->buckets);
    free(p);
}

int32_t mln_pages_available(const mln_pages *p) {
    return p->num_free + p->num_idle;
}

int32_t mln_pages_cached(const mln_pages *p) {
    return p->num_idle;
}

static int32_t *bucket_of(mln_pages *p, int32_t parent, const int32_t *ids) {
    int32_t block[MLN_PAGE + 1];
    memcpy(block, ids, MLN_PAGE * sizeof *ids);
    block[MLN_PAGE] = parent;
    return &p->buckets[mln_hash(p->key, block, sizeof block) & p->bucket_mask];
}

/* The cached page with this whole block after `parent`, or MLN_NO_PAGE. */
static int32_t find(mln_pages *p, int32_t parent, const int32_t *ids) {
    int32_t i = *bucket_of(p, parent, ids);
    while (i != MLN_NO_PAGE && (p->pages[i].parent != parent ||
                                memcmp(p->pages[i].ids, ids, MLN_PAGE * sizeof *ids) != 0))
        i = p->pages[i].next_in_bucket;
    return i;
}

static void add_child(mln_pages *p, int32_t child, int32_t parent) {
    page *c = &p->pages[child], *above = &p->pages[parent];
    c->parent = parent;
    c->newer_sibling = MLN_NO_PAGE;
    c->older_sibling = above->first_child;
    if (above->first_child != MLN_NO_PAGE)
        p->pages[above->first_child].newer_sibling = child;
    above->first_child = child;
}

static void remove_child(mln_pages *p, int32_t child) {
    page *c = &p->pages[child];
    if (c->newer_sibling != MLN_NO_PAGE)
        p->pages[c->newer_sibling].older_sibling = c->older_sibling;
    else
        p->pages[c->parent].first_child = c->older_sibling;
    if (c->older_sibling != MLN_NO_PAGE)
        p->pages[c->older_sibling].newer_sibling = c->newer_sibling;
}

static void leave_line(mln_pages *p, int32_t i) {
    p->pages[p->pages[i].older].newer = p->pages[i].newer;
    p->pages[p->pages[i].newer].older = p->pages[i].older;
    p->num_idle--;
}

static void join_line(mln_pages *p, int32_t i) {
    int32_t end = p->num_pages, last = p->pages[end].older;
    p->pages[i].older = last;
    p->pages[i].newer = end;
    p->pages[last].newer = p->pages[end].older = i;
    p->num_idle++;
}

static void add_free(mln_pages *p, int32_t i) {
    p->pages[i].newer = p->free;
    p->free = i;
    p->num_free++;
}

static void hold(mln_pages *p, int32_t i) {
    if (p->pages[i].references++ == 0)
        leave_line(p, i);
}

/*
 * Takes the page first in line out of the cache. It has no children: those were let go of before
 * it, or are held, and then so would it be.
 */
static int32_t evict(mln_pages *p) {
    int32_t i = p->pages[p->num_pages].newer;
    page *evicted = &p->pages[i];
    leave_line(p, i);
    remove_child(p, i);
    if (evicted->filled == MLN_PAGE) {
        int32_t *link = bucket_of(p, evicted->parent, evicted->ids);
        while (*link != i)
            link = &p->pages[*link].next_in_bucket;
        *link = evicted->next_in_bucket;
    }
    evicted->filled = 0;
    return i;
}

int32_t mln_pages_take(mln_pages *p) {
    int32_t i = p->free;
    if (p->num_free > 0) {
        p->free = p->pages[i].newer;
        p->num_free--;
    } else if (p->num_idle > 0) {
        i = evict(p);
    } else {
        return MLN_NO_PAGE;
    }
    p->pages[i].references = 1;
    return i;
}

void mln_pages_drop(mln_pages *p, int32_t i) {
    if (--p->pages[i].references > 0)
        return;
    if (p->pages[i].filled)
        join_line(p, i);
    else
        add_free(p, i);
}

/* The child of `parent` that has most of ids[count] at its beginning; *common: how many. */
static int32_t find_partial(const mln_pages *p, int32_t parent, const int32_t *ids, int32_t count,
                            int32_t *common) {
    int32_t best = MLN_NO_PAGE, compared = 0;
    *common = 0;
    for (int32_t i = p->pages[parent].first_child; i != MLN_NO_PAGE && compared < MOST_COMPARED;
         i = p->pages[i].older_sibling, compared++) {
        const page *child = &p->pages[i];
        int32_t most = child->filled < count ? child->filled : count, same = 0;
        while (same < most && child->ids[same] == ids[same])
            same++;
        if (same > *common) {
            *common = same;
            best = i;
        }
    }
    return best;
}

mln_prefix mln_pages_match(mln_pages *p, const int32_t *ids, int32_t count, int32_t *table) {
    mln_prefix prefix = {.partial = MLN_NO_PAGE};
    int32_t last = p->num_pages, done = 0;
    while (count - done >= MLN_PAGE) {
        int32_t i = find(p, last, ids + done);
        if (i == MLN_NO_PAGE)
            break;
        hold(p, i);
        table[prefix.num_pages++] = last = i;
        done += MLN_PAGE;
    }
    prefix.partial = find_partial(p, last, ids + done, count - done, &prefix.num_partial);
    if (prefix.partial != MLN_NO_PAGE) {
        hold(p, prefix.partial);
        remove_child(p, prefix.partial); /* it counts as new again */
        add_child(p, prefix.partial, last);
    }
    return prefix;
}

int32_t mln_pages_find(mln_pages *p, int32_t parent, const int32_t *ids) {
    int32_t i = find(p, parent == MLN_NO_PAGE ? p->num_pages : parent, ids);
    if (i != MLN_NO_PAGE)
        hold(p, i);
    return i;
}

int32_t mln_pages_share(mln_pages *p, int32_t i, int32_t parent, const int32_t *ids,
                        int32_t filled) {
    int32_t above = parent == MLN_NO_PAGE ? p->num_pages : parent, common;
    page *shared = &p->pages[i];
    if (filled < MLN_PAGE) {
        find_partial(p, above, ids, filled, &common);
        if (common == filled)
            return i;
    } else {
        int32_t there = find(p, above, ids);
        if (there != MLN_NO_PAGE) {
            hold(p, there);
            mln_pages_drop(p, i);
            return there;
        }
        int32_t *bucket = bucket_of(p, above, ids);
        shared->next_in_bucket = *bucket;
        *bucket = i;
    }
    memcpy(shared->ids, ids, (size_t)filled * sizeof *ids);
    shared->filled = filled;
    shared->first_child = MLN_NO_PAGE;
    add_child(p, i, above);
    return i;
}

void mln_pages_clear(mln_pages *p) {
    while (p->num_idle > 0)
        add_free(p, evict(p));
}
