/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has which page of KV memory, and which pages are kept because a sequence to come may begin
 * with the tokens in them. Token ids and page numbers are all this knows.
 *
 * A page in the cache is a block of tokens after a parent block, or at the beginning of a text; the
 * chain of its parents spells every token before it. Whoever holds a page holds its parents, so
 * that a page nobody holds has no children that somebody does, and leaves can be evicted first.
 * Blocks are compared by their ids, never by a hash alone.
 */
#ifndef MLN_GENERATE_PAGES_H
#define MLN_GENERATE_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "myelin/plugin.h"

enum { MLN_PAGE = MYELIN_PAGE_POSITIONS, MLN_NO_PAGE = -1 };

typedef struct mln_pages mln_pages;

/* num_pages free pages; all memory is taken here. */
myelin_status mln_pages_create(mln_pages **pages, int32_t num_pages, myelin_error *error);
void mln_pages_free(mln_pages *pages); /* accepts NULL */

/* Pages that mln_pages_take() would give: free ones, and cached ones nobody holds. */
int32_t mln_pages_available(const mln_pages *pages);
/* Of these, the cached ones. */
int32_t mln_pages_cached(const mln_pages *pages);

/*
 * A page to write to, held once; when none is free the cached one that was let go of longest ago
 * leaves the cache. MLN_NO_PAGE when all are held.
 */
int32_t mln_pages_take(mln_pages *pages);
/* Lets go of a page once; children before their parents. What nobody holds is free or cached. */
void mln_pages_drop(mln_pages *pages, int32_t page);

/* Where cached tokens lie that some ids begin with. */
typedef struct mln_prefix {
    int32_t num_pages;   /* whole blocks: this many pages, in the caller's table, held */
    int32_t partial;     /* a page whose first num_partial tokens come next, held; or MLN_NO_PAGE */
    int32_t num_partial; /* the page is not to be written to: copy it */
} mln_prefix;

/* The longest prefix of ids[count] there is; table has room for count / MLN_PAGE pages. */
mln_prefix mln_pages_match(mln_pages *pages, const int32_t *ids, int32_t count, int32_t *table);

/* The cached page with the block ids[MLN_PAGE] after `parent`, held; or MLN_NO_PAGE. */
int32_t mln_pages_find(mln_pages *pages, int32_t parent, const int32_t *ids);

/*
 * Puts a held page into the cache: `filled` tokens (1 to MLN_PAGE) after the held and cached page
 * `parent`, or at the beginning (MLN_NO_PAGE). No more tokens are written to it from now on.
 * Returns the page to go on with: for a whole block that was in the cache already, the one there,
 * held in place of `page`.
 */
int32_t mln_pages_share(mln_pages *pages, int32_t page, int32_t parent, const int32_t *ids,
                        int32_t filled);

/* Empties the cache of what nobody holds. */
void mln_pages_clear(mln_pages *pages);

#endif
