/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where keys and values lie: stores, the sequences that have one of their own, and the pools whose
 * store many sequences share page by page.
 */
#include <stdlib.h>
#include <string.h>

#include "base/available.h"
#include "base/checked.h"
#include "internal.h"

_Static_assert((int)MLN_CPU_PAGE == (int)MYELIN_PAGE_POSITIONS, "pages are the host's");
_Static_assert(MLN_CPU_SPLIT % MLN_CPU_PAGE == 0 && MLN_CPU_PAGE % (2 * MLN_CPU_LANES) == 0,
               "pages end where splits end, and hold whole tiles of scores");

/* Slots are counted in 32 bits, those of all layers and heads together. */
static int32_t most_pages(const mln_cpu_sizes *sizes) {
    return (int32_t)(INT32_MAX / MLN_CPU_PAGE / mln_cpu_page_stride(sizes));
}

/* Bytes of the keys and values of so many pages; UINT64_MAX when that overflows. */
static uint64_t store_bytes(const myelin_config *config, int64_t pages) {
    mln_cpu_sizes sizes = mln_cpu_sizes_of(config);
    uint64_t bytes =
        2 * MLN_CPU_PAGE * (uint64_t)mln_cpu_slot_bytes(mln_cpu_cell_of(config), sizes.width);
    bool fits = mln_mul(bytes, (uint64_t)sizes.layers, &bytes) &&
                mln_mul(bytes, (uint64_t)sizes.kv_heads, &bytes) &&
                mln_mul(bytes, (uint64_t)pages, &bytes);
    return fits ? bytes : UINT64_MAX;
}

static myelin_status open_store(mln_cpu_store *store, const myelin_config *config, int64_t pages,
                                myelin_error *error) {
    store->pages = pages;
    return mln_region_map(&store->region, store_bytes(config, pages), "a KV cache", error);
}

/* --- sequences --- */

static int32_t pages_of(int32_t max_len) {
    return (int32_t)(((int64_t)max_len + MLN_CPU_PAGE - 1) / MLN_CPU_PAGE);
}

static size_t object_bytes(int32_t max_len) {
    return sizeof(myelin_plugin_sequence) + (size_t)pages_of(max_len) * sizeof(int32_t);
}

uint64_t mln_cpu_sequence_bytes(const myelin_config *config, int32_t max_len) {
    uint64_t bytes;
    if (max_len < 1)
        return 0;
    bool fits = mln_add(store_bytes(config, pages_of(max_len)), object_bytes(max_len), &bytes);
    return fits ? bytes : UINT64_MAX;
}

/* A sequence with room for its page table and nothing in it. */
static myelin_status make_sequence(const myelin_plugin_model *model, int32_t max_len,
                                   myelin_plugin_sequence **out, myelin_error_buffer *buffer) {
    *out = NULL;
    if (max_len < 1)
        return mln_cpu_fail_argument(buffer, "max_len", 1, INT32_MAX, max_len);
    myelin_plugin_sequence *sequence = mln_calloc(1, object_bytes(max_len));
    if (!sequence) {
        myelin_error error = {0};
        mln_fail_memory(&error, object_bytes(max_len), "a KV cache");
        return mln_cpu_fail(buffer, &error);
    }
    sequence->model = model;
    sequence->max_len = max_len;
    *out = sequence;
    return MYELIN_OK;
}

myelin_status mln_cpu_create_sequence(const myelin_plugin_model *model, int32_t max_len,
                                      myelin_plugin_sequence **out, myelin_error_buffer *buffer) {
    myelin_plugin_sequence *sequence;
    int32_t pages = pages_of(max_len), most = most_pages(&model->sizes);
    if (pages > most)
        return mln_cpu_fail_argument(buffer, "max_len", 1, (int64_t)most * MLN_CPU_PAGE, max_len);
    myelin_status status = make_sequence(model, max_len, out, buffer);
    if (status != MYELIN_OK)
        return status;
    sequence = *out;
    myelin_error error = {0};
    if (open_store(&sequence->own, &model->config, pages, &error) != MYELIN_OK) {
        free(sequence);
        *out = NULL;
        return mln_cpu_fail(buffer, &error);
    }
    sequence->store = &sequence->own;
    sequence->capacity = max_len;
    for (int32_t i = 0; i < pages; i++)
        sequence->pages[i] = i * (int32_t)mln_cpu_page_stride(&model->sizes);
    return MYELIN_OK;
}

void mln_cpu_free_sequence(myelin_plugin_sequence *sequence) {
    if (!sequence)
        return;
    mln_region_unmap(&sequence->own.region);
    free(sequence);
}

int32_t mln_cpu_sequence_length(const myelin_plugin_sequence *sequence) {
    return sequence->length;
}

void mln_cpu_truncate_sequence(myelin_plugin_sequence *sequence, int32_t length) {
    if (length >= 0 && length < sequence->length)
        sequence->length = length;
}

/* --- pools --- */

uint64_t mln_cpu_page_bytes(const myelin_config *config) {
    return store_bytes(config, 1);
}

myelin_status mln_cpu_create_pool(const myelin_plugin_model *model, int32_t num_pages,
                                  myelin_plugin_pool **out, myelin_error_buffer *buffer) {
    *out = NULL;
    int32_t most = most_pages(&model->sizes);
    if (num_pages < 1 || num_pages > most)
        return mln_cpu_fail_argument(buffer, "num_pages", 1, most, num_pages);
    myelin_error error = {0};
    myelin_plugin_pool *pool = mln_calloc(1, sizeof *pool);
    if (!pool) {
        mln_fail_memory(&error, sizeof *pool, "a pool of pages");
        return mln_cpu_fail(buffer, &error);
    }
    uint64_t bytes = store_bytes(&model->config, num_pages);
    if (mln_memory_check(bytes, "pages of keys and values", &error) != MYELIN_OK ||
        open_store(&pool->store, &model->config, num_pages, &error) != MYELIN_OK) {
        free(pool);
        return mln_cpu_fail(buffer, &error);
    }
    pool->model = model;
    pool->num_pages = num_pages;
    *out = pool;
    return MYELIN_OK;
}

void mln_cpu_free_pool(myelin_plugin_pool *pool) {
    if (!pool)
        return;
    mln_region_unmap(&pool->store.region);
    free(pool);
}

myelin_status mln_cpu_create_paged_sequence(myelin_plugin_pool *pool, int32_t max_len,
                                            myelin_plugin_sequence **out,
                                            myelin_error_buffer *buffer) {
    myelin_status status = make_sequence(pool->model, max_len, out, buffer);
    if (status == MYELIN_OK) {
        (*out)->store = &pool->store;
        (*out)->num_pages = pool->num_pages;
    }
    return status;
}

/* A page the pool does not have ends the table: forward() then says that there is no room. */
void mln_cpu_set_pages(myelin_plugin_sequence *sequence, const int32_t *pages, int32_t count,
                       int32_t length) {
    int32_t taken = 0, most = pages_of(sequence->max_len);
    int32_t stride = (int32_t)mln_cpu_page_stride(&sequence->model->sizes);
    while (taken < count && taken < most && pages[taken] >= 0 &&
           pages[taken] < sequence->num_pages) {
        sequence->pages[taken] = pages[taken] * stride;
        taken++;
    }
    int64_t room = (int64_t)taken * MLN_CPU_PAGE;
    sequence->capacity = room < sequence->max_len ? (int32_t)room : sequence->max_len;
    sequence->length = length < sequence->capacity ? length : sequence->capacity;
}

void mln_cpu_copy_page(myelin_plugin_pool *pool, int32_t to, int32_t from) {
    const myelin_plugin_model *model = pool->model;
    const mln_cpu_sizes *s = &model->sizes;
    size_t slots = (size_t)(mln_cpu_page_stride(s) * MLN_CPU_PAGE);
    size_t page = slots * (size_t)(s->width * mln_cpu_cell_bytes(model->cell));
    size_t scales = slots * (size_t)mln_cpu_slot_bytes(model->cell, 0);
    unsigned char *base = pool->store.region.base;
    unsigned char *behind =
        base + page * (size_t)pool->num_pages; /* the scales, if there are any */
    memmove(base + (size_t)to * page, base + (size_t)from * page, page);
    memmove(behind + (size_t)to * scales, behind + (size_t)from * scales, scales);
}
