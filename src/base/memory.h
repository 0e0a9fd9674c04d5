/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation: checked array sizes, regions in huge pages, a bump arena, a growing byte buffer. */
#ifndef MLN_BASE_MEMORY_H
#define MLN_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "myelin/status.h"

/*
 * Allocators of heap memory, freed with free(). NULL when out of memory, when count * size
 * overflows, or when a test asked for a failure (mln_fail_allocation below). A size of 0 yields a
 * unique pointer.
 */
void *mln_alloc(size_t count, size_t size);  /* not cleared */
void *mln_calloc(size_t count, size_t size); /* cleared */
void *mln_realloc(void *old, size_t count, size_t size);
char *mln_strndup(const char *text, size_t length); /* adds the NUL */

/*
 * Fault injection, for tests: the n-th allocation from now on this thread (1 = the next) and, when
 * `sticky`, all after it fail. n = 0 switches it off. Covers every allocator in this header.
 * Returns how many allocations this thread has made since the last call. Thread-local, so that a
 * test can walk through a function's allocations one by one.
 */
uint64_t mln_fail_allocation(uint64_t n, bool sticky);

/*
 * A zeroed region from the kernel, 2 MiB-aligned and advised to be backed by huge pages when it is
 * large. Pages are taken when first touched. NULL base and zero size mean no region.
 */
typedef struct mln_region {
    unsigned char *base;
    size_t size; /* bytes usable */
    void *mapping;
    size_t mapping_size;
} mln_region;

myelin_status mln_region_map(mln_region *region, uint64_t size, const char *what,
                             myelin_error *error);
/* Gives the bytes from `size` on back to the system; size is at most the region's. */
void mln_region_trim(mln_region *region, uint64_t size);
void mln_region_unmap(mln_region *region); /* accepts a zeroed region, leaves it zeroed */

/*
 * A bump arena for many small objects with one lifetime. Pointers stay valid until
 * mln_arena_free(). Zero-initialise to make one.
 */
typedef struct mln_arena {
    struct mln_arena_block *blocks;
} mln_arena;

void *mln_arena_alloc(mln_arena *arena, size_t count, size_t size); /* 16-byte aligned, zeroed */
char *mln_arena_strndup(mln_arena *arena, const char *text, size_t length);
void mln_arena_free(mln_arena *arena);

/* A growing byte buffer. Zero-initialise; `data` is NUL-terminated after any append. */
typedef struct mln_buffer {
    char *data;
    size_t length;
    size_t capacity;
} mln_buffer;

bool mln_buffer_reserve(mln_buffer *buffer, size_t extra); /* false: out of memory */
bool mln_buffer_append(mln_buffer *buffer, const void *data, size_t length);
void mln_buffer_free(mln_buffer *buffer);

#endif
