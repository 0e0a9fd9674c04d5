/* SPDX-License-Identifier: Apache-2.0 */
/* The composed plug-in's sequences and the pools of pages that they may lie in. */
#include <stdlib.h>
#include <string.h>

#include "base/available.h"
#include "base/checked.h"
#include "model/composed_internal.h"

/* Slots are counted in 32 bits. */
enum { MAX_PAGES = INT32_MAX / MYELIN_PAGE_POSITIONS };

/* Bytes of the keys and values of so many positions; UINT64_MAX when that overflows. */
static uint64_t store_bytes(const myelin_config *config, uint64_t slots) {
    uint64_t bytes = 2 * sizeof(float);
    bool fits = mln_mul(bytes, (uint64_t)config->num_hidden_layers, &bytes) &&
                mln_mul(bytes, (uint64_t)config->num_key_value_heads, &bytes) &&
                mln_mul(bytes, (uint64_t)config->head_dim, &bytes) && mln_mul(bytes, slots, &bytes);
    return fits ? bytes : UINT64_MAX;
}

static myelin_status open_store(mln_composed_store *store, const myelin_config *config,
                                int64_t slots, myelin_error *error) {
    uint64_t bytes = store_bytes(config, (uint64_t)slots);
    myelin_status status = mln_region_map(&store->region, bytes, "a KV cache", error);
    store->slots = slots;
    store->cache = (float *)(void *)store->region.base;
    return status;
}

/* --- sequences --- */

static int32_t pages_of(int32_t max_len) {
    return (int32_t)(((int64_t)max_len + MYELIN_PAGE_POSITIONS - 1) / MYELIN_PAGE_POSITIONS);
}

static size_t object_bytes(int32_t max_len) {
    return sizeof(myelin_plugin_sequence) + (size_t)pages_of(max_len) * sizeof(int32_t);
}

uint64_t mln_composed_sequence_bytes(const myelin_config *config, int32_t max_len) {
    uint64_t bytes;
    if (max_len < 1)
        return 0;
    bool fits = mln_add(store_bytes(config, (uint64_t)max_len), object_bytes(max_len), &bytes);
    return fits ? bytes : UINT64_MAX;
}

/* A sequence with room for its page table and nothing in it. */
static myelin_status make_sequence(const myelin_plugin_model *model, int32_t max_len,
                                   myelin_plugin_sequence **out, myelin_error_buffer *buffer) {
    *out = NULL;
    if (max_len < 1)
        return mln_plugin_fail_argument(buffer, "max_len", 1, INT32_MAX, max_len);
    myelin_plugin_sequence *sequence = mln_calloc(1, object_bytes(max_len));
    if (!sequence) {
        myelin_error error = {0};
        mln_fail_memory(&error, object_bytes(max_len), "a KV cache");
        return mln_plugin_fail(buffer, &error);
    }
    sequence->model = model;
    sequence->max_len = max_len;
    *out = sequence;
    return MYELIN_OK;
}

myelin_status mln_composed_create_sequence(const myelin_plugin_model *model, int32_t max_len,
                                           myelin_plugin_sequence **out,
                                           myelin_error_buffer *buffer) {
    myelin_status status = make_sequence(model, max_len, out, buffer);
    if (status != MYELIN_OK)
        return status;
    myelin_plugin_sequence *sequence = *out;
    myelin_error error = {0};
    if (open_store(&sequence->own, &model->config, max_len, &error) != MYELIN_OK) {
        free(sequence);
        *out = NULL;
        return mln_plugin_fail(buffer, &error);
    }
    sequence->store = &sequence->own;
    sequence->capacity = max_len;
    for (int32_t i = 0; i < pages_of(max_len); i++)
        sequence->pages[i] = i;
    return MYELIN_OK;
}

void mln_composed_free_sequence(myelin_plugin_sequence *sequence) {
    if (!sequence)
        return;
    mln_region_unmap(&sequence->own.region);
    free(sequence);
}

int32_t mln_composed_sequence_length(const myelin_plugin_sequence *sequence) {
    return sequence->length;
}

void mln_composed_truncate_sequence(myelin_plugin_sequence *sequence, int32_t length) {
    if (length >= 0 && length < sequence->length)
        sequence->length = length;
}

/* --- pools --- */

uint64_t mln_composed_page_bytes(const myelin_config *config) {
    return store_bytes(config, MYELIN_PAGE_POSITIONS);
}

myelin_status mln_composed_create_pool(const myelin_plugin_model *model, int32_t num_pages,
                                       myelin_plugin_pool **out, myelin_error_buffer *buffer) {
    *out = NULL;
    if (num_pages < 1 || num_pages > MAX_PAGES)
        return mln_plugin_fail_argument(buffer, "num_pages", 1, MAX_PAGES, num_pages);
    myelin_error error = {0};
    myelin_plugin_pool *pool = mln_calloc(1, sizeof *pool);
    if (!pool) {
        mln_fail_memory(&error, sizeof *pool, "a pool of pages");
        return mln_plugin_fail(buffer, &error);
    }
    int64_t slots = (int64_t)num_pages * MYELIN_PAGE_POSITIONS;
    uint64_t bytes = store_bytes(&model->config, (uint64_t)slots);
    if (mln_memory_check(bytes, "pages of keys and values", &error) != MYELIN_OK ||
        open_store(&pool->store, &model->config, slots, &error) != MYELIN_OK) {
        free(pool);
        return mln_plugin_fail(buffer, &error);
    }
    pool->model = model;
    pool->num_pages = num_pages;
    *out = pool;
    return MYELIN_OK;
}

void mln_composed_free_pool(myelin_plugin_pool *pool) {
    if (!pool)
        return;
    mln_region_unmap(&pool->store.region);
    free(pool);
}

myelin_status mln_composed_create_paged_sequence(myelin_plugin_pool *pool, int32_t max_len,
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
void mln_composed_set_pages(myelin_plugin_sequence *sequence, const int32_t *pages, int32_t count,
                            int32_t length) {
    int32_t taken = 0, most = pages_of(sequence->max_len);
    while (taken < count && taken < most && pages[taken] >= 0 &&
           pages[taken] < sequence->num_pages) {
        sequence->pages[taken] = pages[taken];
        taken++;
    }
    int64_t room = (int64_t)taken * MYELIN_PAGE_POSITIONS;
    sequence->capacity = room < sequence->max_len ? (int32_t)room : sequence->max_len;
    sequence->length = length < sequence->capacity ? length : sequence->capacity;
}

void mln_composed_copy_page(myelin_plugin_pool *pool, int32_t to, int32_t from) {
    const mln_sizes *sizes = &pool->model->sizes;
    size_t page = (size_t)MYELIN_PAGE_POSITIONS * (size_t)sizes->head_dim;
    float *base = pool->store.cache;
    for (int64_t i = 0; i < 2 * sizes->layers * sizes->kv_heads; i++) {
        memmove(base + (size_t)to * page, base + (size_t)from * page, page * sizeof *base);
        base += pool->store.slots * sizes->head_dim;
    }
}
