/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "tensor/dot.h"
#include "tensor/ops.h"

/* Below this many products the heads are done on one thread: waking another would take longer. */
enum { PARALLEL_PRODUCTS = 1 << 16 };

typedef struct attention_job {
    float *out;     /* [tokens, heads, D] */
    const float *q; /* [tokens, heads, D] */
    const mln_kv_view *cache;
    mln_attention_shape shape;
    int64_t tokens, past;
    float *scores; /* [heads, past + tokens] */
} attention_job;

/* scores[j] = q . keys[j] * scale, j < count; keys [count, D]. Returns the largest. */
static float page_scores(float *scores, const float *q, const float *keys, int64_t count,
                         int64_t head_dim, float scale) {
    float largest = -INFINITY;
    for (int64_t j = 0; j < count; j += MLN_DOT_TILE) {
        int64_t n = count - j < MLN_DOT_TILE ? count - j : MLN_DOT_TILE;
        mln_lanes lanes[MLN_DOT_TILE];
        memset(lanes, 0, sizeof lanes);
        mln_dot_stretches(lanes, q, keys + j * head_dim, head_dim, head_dim, n);
        for (int64_t i = 0; i < n; i++) {
            scores[j + i] = mln_dot_total(&lanes[i]) * scale;
            largest = scores[j + i] > largest ? scores[j + i] : largest;
        }
    }
    return largest;
}

/* The same for positions 0 .. count-1, which lie in pages of keys [slots, D]. */
static float attention_scores(float *scores, const float *q, const float *keys,
                              const int32_t *pages, int64_t count, int64_t head_dim, float scale) {
    float largest = -INFINITY;
    for (int64_t j = 0; j < count; j += MYELIN_PAGE_POSITIONS) {
        int64_t n = count - j < MYELIN_PAGE_POSITIONS ? count - j : MYELIN_PAGE_POSITIONS;
        float most =
            page_scores(scores + j, q, keys + mln_kv_slot(pages, j) * head_dim, n, head_dim, scale);
        largest = most > largest ? most : largest;
    }
    return largest;
}

/* out[D] = sum over j < count, in order, of softmax(scores)[j] * the value of position j. */
static void attention_mix(float *restrict out, float *restrict scores, float largest,
                          const float *restrict values, const int32_t *pages, int64_t count,
                          int64_t head_dim) {
    double sum = 0;
    for (int64_t j = 0; j < count; j++) {
        scores[j] = expf(scores[j] - largest);
        sum += (double)scores[j];
    }
    float scale = (float)(1 / sum);
    memset(out, 0, (size_t)head_dim * sizeof *out);
    for (int64_t j = 0; j < count; j++) {
        float p = scores[j] * scale;
        const float *value = values + mln_kv_slot(pages, j) * head_dim;
        for (int64_t i = 0; i < head_dim; i++)
            out[i] += p * value[i];
    }
}

/* One query head, all tokens. */
static void attention_head(void *context, int64_t head) {
    const attention_job *job = context;
    int64_t heads = job->shape.heads, dim = job->shape.head_dim;
    int64_t kv_head = head / (heads / job->shape.kv_heads);
    const float *keys = job->cache->keys + kv_head * job->cache->slots * dim;
    const float *values = job->cache->values + kv_head * job->cache->slots * dim;
    const int32_t *pages = job->cache->pages;
    float *scores = job->scores + head * (job->past + job->tokens);
    float scale = 1.0f / sqrtf((float)dim);
    for (int64_t t = 0; t < job->tokens; t++) {
        int64_t at = (t * heads + head) * dim;
        int64_t count = job->past + t + 1;
        float largest = attention_scores(scores, job->q + at, keys, pages, count, dim, scale);
        attention_mix(job->out + at, scores, largest, values, pages, count, dim);
    }
}

void mln_attention(const myelin_host *host, float *out, const float *q, const mln_kv_view *cache,
                   mln_attention_shape shape, int64_t tokens, int64_t past, float *scores) {
    attention_job job = {out, q, cache, shape, tokens, past, scores};
    int64_t products = tokens * (past + tokens) * shape.heads * shape.head_dim;
    if (products >= PARALLEL_PRODUCTS) {
        host->parallel_for(host->self, shape.heads, attention_head, &job);
        return;
    }
    for (int64_t head = 0; head < shape.heads; head++)
        attention_head(&job, head);
}
