/* SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"

enum { HUGE_PAGE = 2 * 1024 * 1024, ARENA_BLOCK = 64 * 1024, ARENA_ALIGNMENT = 16 };

static _Thread_local struct {
    uint64_t made;
    uint64_t fail_at;
    bool sticky;
} injection;

uint64_t mln_fail_allocation(uint64_t n, bool sticky) {
    uint64_t made = injection.made;
    injection.made = 0;
    injection.fail_at = n;
    injection.sticky = sticky;
    return made;
}

static bool allocation_fails(void) {
    injection.made++;
    if (injection.fail_at == 0)
        return false;
    return injection.made == injection.fail_at ||
           (injection.sticky && injection.made > injection.fail_at);
}

void *mln_alloc(size_t count, size_t size) {
    size_t bytes;
    if (allocation_fails() || __builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return malloc(bytes ? bytes : 1);
}

void *mln_calloc(size_t count, size_t size) {
    size_t bytes;
    if (allocation_fails() || __builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return calloc(bytes ? bytes : 1, 1);
}

void *mln_realloc(void *old, size_t count, size_t size) {
    size_t bytes;
    if (allocation_fails() || __builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return realloc(old, bytes ? bytes : 1);
}

char *mln_strndup(const char *text, size_t length) {
    size_t bytes;
    if (__builtin_add_overflow(length, (size_t)1, &bytes))
        return NULL;
    char *copy = mln_alloc(bytes, 1);
    if (!copy)
        return NULL;
    if (length)
        memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

myelin_status mln_region_map(mln_region *region, uint64_t size, const char *what,
                             myelin_error *error) {
    *region = (mln_region){0};
    if (size == 0)
        return MYELIN_OK;
    size_t slack = size >= HUGE_PAGE ? HUGE_PAGE : 0;
    uint64_t bytes;
    if (!mln_add(size, slack, &bytes) || bytes > SIZE_MAX / 2 || allocation_fails())
        return mln_fail_memory(error, size, what);
    void *mapping = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return mln_fail_memory(error, size, what);
    uintptr_t start = (uintptr_t)mapping;
    if (slack)
        start = (start + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);
    region->base = (unsigned char *)start;
    region->size = (size_t)size;
    region->mapping = mapping;
    region->mapping_size = (size_t)bytes;
    if (slack) /* a kernel without huge pages refuses, and small pages serve as well, if slower */
        (void)madvise(region->base, region->size, MADV_HUGEPAGE);
    return MYELIN_OK;
}

void mln_region_trim(mln_region *region, uint64_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *end = (unsigned char *)region->mapping + region->mapping_size;
    unsigned char *keep = region->base + ((size_t)size + page - 1) / page * page;
    if (size == 0 || size >= region->size || keep >= end)
        return;
    munmap(keep, (size_t)(end - keep));
    region->mapping_size = (size_t)(keep - (unsigned char *)region->mapping);
    region->size = (size_t)size;
}

void mln_region_unmap(mln_region *region) {
    if (region->mapping)
        munmap(region->mapping, region->mapping_size);
    *region = (mln_region){0};
}

struct mln_arena_block {
    struct mln_arena_block *next;
    size_t used, size;
    _Alignas(16) unsigned char data[];
};

void *mln_arena_alloc(mln_arena *arena, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + ARENA_ALIGNMENT - 1) & ~(size_t)(ARENA_ALIGNMENT - 1);
    struct mln_arena_block *block = arena->blocks;
    if (!block || block->size - block->used < bytes) {
        size_t room = bytes > ARENA_BLOCK ? bytes : ARENA_BLOCK;
        block = mln_calloc(1, sizeof *block + room);
        if (!block)
            return NULL;
        block->size = room;
        /* A large object gets a block of its own, behind the one still being filled. */
        if (arena->blocks && bytes > ARENA_BLOCK) {
            block->next = arena->blocks->next;
            arena->blocks->next = block;
        } else {
            block->next = arena->blocks;
            arena->blocks = block;
        }
    }
    void *object = block->data + block->used;
    block->used += bytes;
    return object;
}

char *mln_arena_strndup(mln_arena *arena, const char *text, size_t length) {
    if (length == SIZE_MAX)
        return NULL;
    char *copy = mln_arena_alloc(arena, length + 1, 1);
    if (copy && length)
        memcpy(copy, text, length);
    return copy;
}

void mln_arena_free(mln_arena *arena) {
    struct mln_arena_block *block = arena->blocks;
    while (block) {
        struct mln_arena_block *next = block->next;
        free(block);
        block = next;
    }
    arena->blocks = NULL;
}

bool mln_buffer_reserve(mln_buffer *buffer, size_t extra) {
    size_t need;
    if (__builtin_add_overflow(buffer->length, extra, &need) || need >= SIZE_MAX / 2)
        return false;
    if (need + 1 <= buffer->capacity)
        return true;
    size_t capacity = buffer->capacity ? buffer->capacity : 64;
    while (capacity < need + 1)
        capacity *= 2;
    char *data = mln_realloc(buffer->data, capacity, 1);
    if (!data)
        return false;
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

bool mln_buffer_append(mln_buffer *buffer, const void *data, size_t length) {
    if (!mln_buffer_reserve(buffer, length))
        return false;
    if (length)
        memcpy(buffer->data + buffer->length, data, length);
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
    return true;
}

void mln_buffer_free(mln_buffer *buffer) {
    free(buffer->data);
    *buffer = (mln_buffer){0};
}
