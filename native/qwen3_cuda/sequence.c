/* SPDX-License-Identifier: Apache-2.0 */
/* KV caches in device memory: of one sequence, or a pool of pages that sequences share. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "internal.h"

/* Bytes of the keys and values of so many positions; UINT64_MAX when that overflows. */
static uint64_t cache_bytes(const myelin_config *c, uint64_t positions) {
    uint64_t bytes = 2 * (c->torch_dtype == MYELIN_DTYPE_F32 ? 4 : 2);
    bool fits = mln_mul(bytes, (uint64_t)c->num_hidden_layers, &bytes) &&
                mln_mul(bytes, (uint64_t)c->num_key_value_heads, &bytes) &&
                mln_mul(bytes, (uint64_t)c->head_dim, &bytes) && mln_mul(bytes, positions, &bytes);
    return fits ? bytes : UINT64_MAX;
}

static int32_t pages_of(int32_t max_len) {
    return (int32_t)(((int64_t)max_len + MYELIN_PAGE_POSITIONS - 1) / MYELIN_PAGE_POSITIONS);
}

static myelin_status allocate_cache(const myelin_plugin_model *model, unsigned char **to,
                                    uint64_t bytes, myelin_error_buffer *error) {
    myelin_status status = mln_cuda_alive(model, error);
    if (status != MYELIN_OK)
        return status;
    return mln_cuda_allocated(model, cudaMalloc((void **)to, bytes), bytes, "a KV cache", error);
}

/* --- sequences --- */

uint64_t mln_cuda_sequence_bytes(const myelin_config *config, int32_t max_len) {
    uint64_t bytes;
    if (max_len < 1)
        return 0;
    bool fits =
        mln_add(cache_bytes(config, (uint64_t)max_len), sizeof(myelin_plugin_sequence), &bytes);
    return fits ? bytes : UINT64_MAX;
}

/* A sequence with room for `pages` entries of a page table and nothing in it. */
static myelin_status make_sequence(const myelin_plugin_model *model, int32_t max_len, int32_t pages,
                                   myelin_plugin_sequence **out, myelin_error_buffer *error) {
    *out = NULL;
    if (max_len < 1)
        return mln_cuda_fail_argument(error, "max_len", 1, INT32_MAX, max_len);
    myelin_plugin_sequence *sequence =
        calloc(1, sizeof *sequence + (size_t)pages * sizeof *sequence->pages);
    if (!sequence)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate a KV cache");
    sequence->model = model;
    sequence->max_len = max_len;
    *out = sequence;
    return MYELIN_OK;
}

myelin_status mln_cuda_create_sequence(const myelin_plugin_model *model, int32_t max_len,
                                       myelin_plugin_sequence **out, myelin_error_buffer *error) {
    myelin_status status = make_sequence(model, max_len, 0, out, error);
    if (status != MYELIN_OK)
        return status;
    status = allocate_cache(model, &(*out)->cache, cache_bytes(&model->config, (uint64_t)max_len),
                            error);
    if (status != MYELIN_OK) {
        free(*out);
        *out = NULL;
        return status;
    }
    (*out)->capacity = max_len;
    return MYELIN_OK;
}

void mln_cuda_free_sequence(myelin_plugin_sequence *sequence) {
    if (!sequence)
        return;
    bool stuck = mln_cuda_is_stuck(sequence->model);
    if (!sequence->device_pages && !stuck)
        cudaFree(sequence->cache);
    if (!stuck)
        cudaFree(sequence->device_pages);
    free(sequence);
}

int32_t mln_cuda_sequence_length(const myelin_plugin_sequence *sequence) {
    return sequence->length;
}

void mln_cuda_truncate_sequence(myelin_plugin_sequence *sequence, int32_t length) {
    if (length >= 0 && length < sequence->length)
        sequence->length = length;
}

/* --- pools --- */

uint64_t mln_cuda_page_bytes(const myelin_config *config) {
    return cache_bytes(config, MYELIN_PAGE_POSITIONS);
}

myelin_status mln_cuda_create_pool(const myelin_plugin_model *model, int32_t num_pages,
                                   myelin_plugin_pool **out, myelin_error_buffer *error) {
    *out = NULL;
    if (num_pages < 1)
        return mln_cuda_fail_argument(error, "num_pages", 1, INT32_MAX, num_pages);
    myelin_plugin_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return mln_cuda_fail(error, MYELIN_ERROR_MEMORY, "could not allocate a pool of pages");
    pool->model = model;
    pool->num_pages = num_pages;
    uint64_t bytes = cache_bytes(&model->config, (uint64_t)num_pages * MYELIN_PAGE_POSITIONS);
    myelin_status status = allocate_cache(model, &pool->cache, bytes, error);
    if (status != MYELIN_OK) {
        free(pool);
        return status;
    }
    *out = pool;
    return MYELIN_OK;
}

void mln_cuda_free_pool(myelin_plugin_pool *pool) {
    if (!pool)
        return;
    if (!mln_cuda_is_stuck(pool->model))
        cudaFree(pool->cache);
    free(pool);
}

myelin_status mln_cuda_create_paged_sequence(myelin_plugin_pool *pool, int32_t max_len,
                                             myelin_plugin_sequence **out,
                                             myelin_error_buffer *error) {
    int32_t pages = max_len < 1 ? 0 : pages_of(max_len);
    size_t bytes = (size_t)pages * sizeof(int32_t);
    myelin_status status = make_sequence(pool->model, max_len, pages, out, error);
    if (status != MYELIN_OK)
        return status;
    status = mln_cuda_alive(pool->model, error);
    if (status == MYELIN_OK)
        status = mln_cuda_allocated(pool->model, cudaMalloc((void **)&(*out)->device_pages, bytes),
                                    bytes, "a page table", error);
    if (status != MYELIN_OK) {
        free(*out);
        *out = NULL;
        return status;
    }
    (*out)->cache = pool->cache;
    (*out)->num_pages = pool->num_pages;
    return MYELIN_OK;
}

/* A page the pool does not have ends the table: forward() then says that there is no room. */
void mln_cuda_set_pages(myelin_plugin_sequence *sequence, const int32_t *pages, int32_t count,
                        int32_t length) {
    int32_t taken = 0, most = pages_of(sequence->max_len);
    for (; taken < count && taken < most; taken++) {
        if (pages[taken] < 0 || pages[taken] >= sequence->num_pages)
            break;
        if (taken < sequence->uploaded && sequence->pages[taken] != pages[taken])
            sequence->uploaded = taken;
        sequence->pages[taken] = pages[taken];
    }
    int64_t room = (int64_t)taken * MYELIN_PAGE_POSITIONS;
    sequence->used_pages = taken;
    sequence->capacity = room < sequence->max_len ? (int32_t)room : sequence->max_len;
    sequence->length = length < sequence->capacity ? length : sequence->capacity;
}

void mln_cuda_copy_page(myelin_plugin_pool *pool, int32_t to, int32_t from) {
    size_t bytes = (size_t)mln_cuda_page_bytes(&pool->model->config);
    if (mln_cuda_is_lost(pool->model))
        return;
    cudaError_t code =
        cudaMemcpy(pool->cache + (size_t)to * bytes, pool->cache + (size_t)from * bytes, bytes,
                   cudaMemcpyDeviceToDevice);
    if (code == cudaSuccess) /* contexts have streams that do not wait for this one */
        code = cudaStreamSynchronize(NULL);
    if (code != cudaSuccess) /* no one may go on with what is not there: forward() will say so */
        mln_cuda_give_up(pool->model, code);
}

cudaError_t mln_cuda_upload_pages(myelin_plugin_sequence *sequence, cudaStream_t stream) {
    int32_t first = sequence->uploaded, count = sequence->used_pages - first;
    if (!sequence->device_pages || count <= 0)
        return cudaSuccess;
    cudaError_t code =
        cudaMemcpyAsync(sequence->device_pages + first, sequence->pages + first,
                        (size_t)count * sizeof(int32_t), cudaMemcpyHostToDevice, stream);
    if (code == cudaSuccess)
        sequence->uploaded = sequence->used_pages;
    return code;
}
