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

/* Slots are counted in 32 bits. */
enum { MAX_PAGES = INT32_MAX / MLN_CPU_PAGE };

/* Bytes of the keys and values of so many positions; UINT64_MAX when that overflows. */
static uint64_t store_bytes(const myelin_config *config, uint64_t slots) {
    mln_cpu_sizes sizes = mln_cpu_sizes_of(config);
    uint64_t bytes = 2 * (uint64_t)mln_cpu_slot_bytes(mln_cpu_cell_of(config), sizes.width);
    bool fits = mln_mul(bytes, (uint64_t)sizes.layers, &bytes) &&
                mln_mul(bytes, (uint64_t)sizes.kv_heads, &bytes) && mln_mul(bytes, slots, &bytes);
    return fits ? bytes : UINT64_MAX;
}

static myelin_status open_store(mln_cpu_store *store, const myelin_config *config, int64_t slots,
                                myelin_error *error) {
    store->slots = slots;
    return mln_region_map(&store->region, store_bytes(config, (uint64_t)slots), "a KV cache",
                          error);
}

/* --- sequences --- */

/* Positions a sequence has room for: whole blocks of keys. */
static int64_t padded_positions(int32_t max_len) {
    return ((int64_t)max_len + MLN_CPU_LANES - 1) / MLN_CPU_LANES * MLN_CPU_LANES;
}

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
    bool fits = mln_add(store_bytes(config, (uint64_t)padded_positions(max_len)),
                        object_bytes(max_len), &bytes);
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
    myelin_status status = make_sequence(model, max_len, out, buffer);
    if (status != MYELIN_OK)
        return status;
    sequence = *out;
    myelin_error error = {0};
    if (open_store(&sequence->own, &model->config, padded_positions(max_len), &error) !=
        MYELIN_OK) {
        free(sequence);
        *out = NULL;
        return mln_cpu_fail(buffer, &error);
    }
    sequence->store = &sequence->own;
    sequence->capacity = max_len;
    for (int32_t i = 0; i < pages_of(max_len); i++)
        sequence->pages[i] = i;
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
    return store_bytes(config, MLN_CPU_PAGE);
}

myelin_status mln_cpu_create_pool(const myelin_plugin_model *model, int32_t num_pages,
                                  myelin_plugin_pool **out, myelin_error_buffer *buffer) {
    *out = NULL;
    if (num_pages < 1 || num_pages > MAX_PAGES)
        return mln_cpu_fail_argument(buffer, "num_pages", 1, MAX_PAGES, num_pages);
    myelin_error error = {0};
    myelin_plugin_pool *pool = mln_calloc(1, sizeof *pool);
    if (!pool) {
        mln_fail_memory(&error, sizeof *pool, "a pool of pages");
        return mln_cpu_fail(buffer, &error);
    }
    int64_t slots = (int64_t)num_pages * MLN_CPU_PAGE;
    uint64_t bytes = store_bytes(&model->config, (uint64_t)slots);
    if (mln_memory_check(bytes, "pages of keys and values", &error) != MYELIN_OK ||
        open_store(&pool->store, &model->config, slots, &error) != MYELIN_OK) {
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
    while (taken < count && taken < most && pages[taken] >= 0 &&
           pages[taken] < sequence->num_pages) {
        sequence->pages[taken] = pages[taken];
        taken++;
    }
    int64_t room = (int64_t)taken * MLN_CPU_PAGE;
    sequence->capacity = room < sequence->max_len ? (int32_t)room : sequence->max_len;
    sequence->length = length < sequence->capacity ? length : sequence->capacity;
}

void mln_cpu_copy_page(myelin_plugin_pool *pool, int32_t to, int32_t from) {
    const myelin_plugin_model *model = pool->model;
    const mln_cpu_sizes *s = &model->sizes;
    size_t slots = (size_t)pool->store.slots, scale = (size_t)mln_cpu_slot_bytes(model->cell, 0);
    size_t slot = (size_t)(s->width * mln_cpu_cell_bytes(model->cell));
    size_t page = slot * MLN_CPU_PAGE, scales = scale * MLN_CPU_PAGE;
    unsigned char *base = pool->store.region.base;
    for (int64_t i = 0; i < 2 * s->layers * s->kv_heads; i++, base += slots * (slot + scale)) {
        unsigned char *behind = base + slots * slot; /* the scales, if there are any */
        memmove(base + (size_t)to * page, base + (size_t)from * page, page);
        memmove(behind + (size_t)to * scales, behind + (size_t)from * scales, scales);
    }
}
