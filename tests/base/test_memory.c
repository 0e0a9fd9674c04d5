/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"

static bool all_zero(const unsigned char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (bytes[i])
            return false;
    return true;
}

static void sizes_that_overflow_are_refused(void **state) {
    (void)state;
    assert_null(mln_alloc(SIZE_MAX / 2, 3));
    assert_null(mln_calloc(SIZE_MAX / 2, 3));
    assert_null(mln_strndup("x", SIZE_MAX));
    void *old = mln_alloc(4, 1);
    assert_null(mln_realloc(old, SIZE_MAX / 2, 3));
    free(old); /* a realloc that fails leaves the old block */
    mln_arena arena = {0};
    assert_null(mln_arena_alloc(&arena, SIZE_MAX / 2, 3));
    assert_null(mln_arena_alloc(&arena, SIZE_MAX - 8, 1));
    assert_null(mln_arena_strndup(&arena, "x", SIZE_MAX));
    assert_null(arena.blocks);
    mln_buffer buffer = {0};
    assert_true(mln_buffer_append(&buffer, "abc", 3));
    assert_false(mln_buffer_reserve(&buffer, SIZE_MAX - 1));
    assert_false(mln_buffer_reserve(&buffer, SIZE_MAX / 2));
    assert_string_equal(buffer.data, "abc");
    mln_buffer_free(&buffer);
}

static void a_size_of_zero_is_a_unique_pointer(void **state) {
    (void)state;
    void *blocks[] = {mln_alloc(0, 8), mln_alloc(8, 0), mln_calloc(0, SIZE_MAX),
                      mln_calloc(SIZE_MAX, 0), mln_realloc(NULL, 0, 4)};
    size_t n = sizeof blocks / sizeof *blocks;
    for (size_t i = 0; i < n; i++) {
        assert_non_null(blocks[i]);
        for (size_t j = 0; j < i; j++)
            assert_ptr_not_equal(blocks[i], blocks[j]);
    }
    for (size_t i = 0; i < n; i++)
        free(blocks[i]);
}

static void calloc_clears_and_strndup_ends(void **state) {
    (void)state;
    unsigned char *bytes = mln_calloc(100, 3);
    assert_true(all_zero(bytes, 300));
    free(bytes);
    char *copy = mln_strndup("a\0bc", 3);
    assert_memory_equal(copy, "a\0b\0", 4);
    free(copy);
    copy = mln_strndup(NULL, 0);
    assert_string_equal(copy, "");
    free(copy);
}

/* Objects of many sizes stay where they are, apart, aligned and zeroed. */
static void arena_objects_are_apart(void **state) {
    (void)state;
    enum { OBJECTS = 400 };
    mln_arena arena = {0};
    unsigned char *objects[OBJECTS];
    size_t sizes[OBJECTS];
    for (size_t i = 0; i < OBJECTS; i++) {
        sizes[i] = i % 50 == 49 ? 100000 + i : i * 7 % 1500 + 1;
        objects[i] = mln_arena_alloc(&arena, sizes[i], 1);
        assert_non_null(objects[i]);
        assert_int_equal((uintptr_t)objects[i] % 16, 0);
        assert_true(all_zero(objects[i], sizes[i]));
        memset(objects[i], (int)(i % 255 + 1), sizes[i]);
    }
    for (size_t i = 0; i < OBJECTS; i++)
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(objects[i][j], i % 255 + 1);
    mln_arena_free(&arena);
    assert_null(arena.blocks);
    mln_arena_free(&arena);
}

/* A large object must not throw away what is left of the block being filled. */
static void arena_keeps_filling_its_block(void **state) {
    (void)state;
    mln_arena arena = {0};
    assert_non_null(mln_arena_alloc(&arena, 16, 1));
    mln_fail_allocation(0, false);
    assert_non_null(mln_arena_alloc(&arena, 200000, 1));
    for (int i = 0; i < 1000; i++)
        assert_non_null(mln_arena_alloc(&arena, 16, 1));
    assert_int_equal(mln_fail_allocation(0, false), 1);
    char *text = mln_arena_strndup(&arena, "a\0b", 3);
    assert_memory_equal(text, "a\0b\0", 4);
    assert_string_equal(mln_arena_strndup(&arena, NULL, 0), "");
    mln_arena_free(&arena);
}

static void buffer_grows_and_ends_in_nul(void **state) {
    (void)state;
    mln_buffer buffer = {0};
    for (size_t i = 0; i < 5000; i++) {
        char byte = (char)('a' + i % 26);
        assert_true(mln_buffer_append(&buffer, &byte, 1));
        assert_int_equal(buffer.length, i + 1);
        assert_int_equal(buffer.data[i + 1], 0);
        assert_true(buffer.capacity > buffer.length);
    }
    assert_true(mln_buffer_append(&buffer, NULL, 0));
    for (size_t i = 0; i < 5000; i++)
        assert_int_equal(buffer.data[i], 'a' + i % 26);
    assert_true(mln_buffer_reserve(&buffer, 100000));
    assert_true(buffer.capacity >= 105001);
    mln_buffer_free(&buffer);
    assert_null(buffer.data);
    assert_true(mln_buffer_append(&buffer, "", 0));
    assert_string_equal(buffer.data, "");
    mln_buffer_free(&buffer);
}

static void regions_are_zeroed_and_aligned(void **state) {
    (void)state;
    static const uint64_t sizes[] = {1, 4096, 2097151, 2097152, 5000001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        mln_region region;
        assert_int_equal(mln_region_map(&region, sizes[i], "a test", NULL), MYELIN_OK);
        assert_int_equal(region.size, sizes[i]);
        assert_true(all_zero(region.base, region.size));
        memset(region.base, 0xA5, region.size);
        if (sizes[i] >= 2097152)
            assert_int_equal((uintptr_t)region.base % 2097152, 0);
        mln_region_unmap(&region);
        assert_null(region.base);
        assert_int_equal(region.size, 0);
        mln_region_unmap(&region);
    }
}

static void regions_that_cannot_be(void **state) {
    (void)state;
    mln_region region;
    myelin_error error;
    assert_int_equal(mln_region_map(&region, 0, "x", NULL), MYELIN_OK);
    assert_null(region.base);
    static const uint64_t sizes[] = {UINT64_MAX, UINT64_MAX - 4096, UINT64_C(1) << 62};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(mln_region_map(&region, sizes[i], "the sky", &error), MYELIN_ERROR_MEMORY);
        assert_non_null(strstr(error.message, "the sky"));
        assert_null(region.base);
    }
}

/* One call of each allocator; returns how many succeeded. */
static int allocate_each(void) {
    int done = 0;
    void *a = mln_alloc(1, 8), *b = mln_calloc(1, 8), *c = mln_realloc(NULL, 1, 8);
    char *d = mln_strndup("x", 1);
    mln_arena arena = {0};
    mln_buffer buffer = {0};
    mln_region region;
    done += (a != NULL) + (b != NULL) + (c != NULL) + (d != NULL);
    done += mln_arena_alloc(&arena, 1, 8) != NULL;
    done += mln_buffer_append(&buffer, "x", 1);
    done += mln_region_map(&region, 4096, "x", NULL) == MYELIN_OK;
    free(a);
    free(b);
    free(c);
    free(d);
    mln_arena_free(&arena);
    mln_buffer_free(&buffer);
    mln_region_unmap(&region);
    return done;
}

static void every_allocator_can_be_made_to_fail(void **state) {
    (void)state;
    enum { ALLOCATORS = 7 };
    mln_fail_allocation(0, false);
    assert_int_equal(allocate_each(), ALLOCATORS);
    assert_int_equal(mln_fail_allocation(0, false), ALLOCATORS);
    for (int n = 1; n <= ALLOCATORS + 1; n++) {
        mln_fail_allocation((uint64_t)n, false);
        assert_int_equal(allocate_each(), n <= ALLOCATORS ? ALLOCATORS - 1 : ALLOCATORS);
        mln_fail_allocation((uint64_t)n, true);
        assert_int_equal(allocate_each(), n - 1);
    }
    assert_int_equal(mln_fail_allocation(0, false), ALLOCATORS);
    assert_int_equal(allocate_each(), ALLOCATORS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(a_size_of_zero_is_a_unique_pointer),
        cmocka_unit_test(calloc_clears_and_strndup_ends),
        cmocka_unit_test(arena_objects_are_apart),
        cmocka_unit_test(arena_keeps_filling_its_block),
        cmocka_unit_test(buffer_grows_and_ends_in_nul),
        cmocka_unit_test(regions_are_zeroed_and_aligned),
        cmocka_unit_test(regions_that_cannot_be),
        cmocka_unit_test(every_allocator_can_be_made_to_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
