/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/draw.h"
#include "base/error.h"
#include "base/memory.h"
#include "tensor/ops.h"

typedef struct candidate {
    float logit; /* treated */
    int32_t id;
} candidate;

struct mln_sampler {
    int32_t vocab_size;
    mln_sampling sampling;
    const uint32_t *allowed; /* of the next pick; NULL: all */
    int32_t *output_count;   /* [vocab_size] times in the output */
    bool *seen;              /* [vocab_size] in prompt or output */
    int32_t *touched;        /* [vocab_size] ids with seen set, num_touched of them */
    int32_t num_touched;
    float *logits;         /* [vocab_size] after penalties and bias */
    candidate *candidates; /* [vocab_size] */
};

uint64_t mln_sampler_bytes(int32_t vocab_size) {
    uint64_t each =
        sizeof(int32_t) + sizeof(bool) + sizeof(int32_t) + sizeof(float) + sizeof(candidate);
    return sizeof(mln_sampler) + (uint64_t)vocab_size * each;
}

myelin_status mln_sampler_create(mln_sampler **out, int32_t vocab_size, myelin_error *error) {
    *out = NULL;
    size_t n = (size_t)vocab_size;
    mln_sampler *s = mln_calloc(1, sizeof *s);
    if (s) {
        s->vocab_size = vocab_size;
        s->output_count = mln_calloc(n, sizeof *s->output_count);
        s->seen = mln_calloc(n, sizeof *s->seen);
        s->touched = mln_calloc(n, sizeof *s->touched);
        s->logits = mln_calloc(n, sizeof *s->logits);
        s->candidates = mln_calloc(n, sizeof *s->candidates);
        if (s->output_count && s->seen && s->touched && s->logits && s->candidates) {
            *out = s;
            return MYELIN_OK;
        }
    }
    mln_sampler_free(s);
    return mln_fail_memory(error, mln_sampler_bytes(vocab_size), "a sampler");
}

void mln_sampler_free(mln_sampler *s) {
    if (!s)
        return;
    free(s->output_count);
    free(s->seen);
    free(s->touched);
    free(s->logits);
    free(s->candidates);
    free(s);
}

static void touch(mln_sampler *s, int32_t id) {
    if (!s->seen[id]) {
        s->seen[id] = true;
        s->touched[s->num_touched++] = id;
    }
}

void mln_sampler_begin(mln_sampler *s, const mln_sampling *sampling, const int32_t *prompt,
                       size_t count) {
    s->sampling = *sampling;
    s->allowed = NULL;
    for (int32_t i = 0; i < s->num_touched; i++) {
        s->seen[s->touched[i]] = false;
        s->output_count[s->touched[i]] = 0;
    }
    s->num_touched = 0;
    for (size_t i = 0; i < count; i++)
        touch(s, prompt[i]);
}

void mln_sampler_accept(mln_sampler *s, int32_t id) {
    touch(s, id);
    s->output_count[id]++;
}

static bool changes_logits(const mln_sampling *p) {
    return p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0 ||
           p->num_bias > 0;
}

void mln_sampler_allow(mln_sampler *s, const uint32_t *mask) {
    s->allowed = mask;
}

static void copy_allowed(float *out, const float *raw, const uint32_t *mask, int32_t vocab_size) {
    for (int32_t id = 0; id < vocab_size; id += 32) {
        int32_t count = vocab_size - id < 32 ? vocab_size - id : 32;
        uint32_t word = mask[id / 32];
        memcpy(out + id, raw + id, (size_t)count * sizeof *out);
        for (int32_t i = 0; word != UINT32_MAX && i < count; i++)
            if (!(word >> i & 1))
                out[id + i] = -INFINITY;
    }
}

/* When bias has banned all that is allowed, or logits are NaN, the first that is allowed. */
static int32_t hold_to(const uint32_t *mask, int32_t id, int32_t vocab_size) {
    if (!mask || mask[id / 32] >> id % 32 & 1)
        return id;
    for (int32_t other = 0; other < vocab_size; other++)
        if (mask[other / 32] >> other % 32 & 1)
            return other;
    return id;
}

/* Penalties and bias: s->logits from the raw ones. Returns what to read the treated logits from. */
static const float *treat(mln_sampler *s, const float *raw) {
    const mln_sampling *p = &s->sampling;
    if (!changes_logits(p) && !s->allowed)
        return raw;
    if (s->allowed)
        copy_allowed(s->logits, raw, s->allowed, s->vocab_size);
    else
        memcpy(s->logits, raw, (size_t)s->vocab_size * sizeof *raw);
    if (!changes_logits(p))
        return s->logits;
    for (int32_t i = 0; i < s->num_touched; i++) {
        int32_t id = s->touched[i];
        float x = s->logits[id];
        float penalty = (float)p->repetition_penalty;
        x = x < 0 ? x * penalty : x / penalty;
        if (s->output_count[id] > 0)
            x -= (float)(p->presence_penalty + p->frequency_penalty * s->output_count[id]);
        s->logits[id] = x;
    }
    for (size_t i = 0; i < p->num_bias; i++)
        s->logits[p->bias[i].id] += p->bias[i].bias;
    return s->logits;
}

/* The better candidate has the larger logit, or the lower id among equals. */
static bool better(const candidate *a, const candidate *b) {
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

static float median_of_three(const candidate *c, int64_t low, int64_t high) {
    float a = c[low].logit, b = c[low + (high - low) / 2].logit, d = c[high].logit;
    float least = a < b ? a : b, most = a < b ? b : a;
    return d < least ? least : d > most ? most : d;
}

/* The k-th largest logit (k from 1), by partitioning: candidates are reordered. */
static float kth_logit(candidate *c, int64_t count, int64_t k) {
    int64_t low = 0, high = count - 1, want = k - 1;
    while (low < high) {
        float pivot = median_of_three(c, low, high);
        int64_t i = low, j = high;
        while (i <= j) {
            while (c[i].logit > pivot)
                i++;
            while (c[j].logit < pivot)
                j--;
            if (i <= j) {
                candidate t = c[i];
                c[i++] = c[j];
                c[j--] = t;
            }
        }
        if (want <= j)
            high = j;
        else if (want >= i)
            low = i;
        else
            break;
    }
    return c[want].logit;
}

/* Keeps what is at least the k-th largest; equals of it stay, as in transformers. */
static int64_t keep_top_k(candidate *c, int64_t count, int32_t k) {
    if (k <= 0 || k >= count)
        return count;
    float threshold = kth_logit(c, count, k);
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++)
        if (c[i].logit >= threshold)
            c[kept++] = c[i];
    return kept;
}

/* Restores the heap (the best on top) below `root`. */
static void sift_down(candidate *c, int64_t count, int64_t root) {
    candidate moving = c[root];
    for (;;) {
        int64_t child = 2 * root + 1;
        if (child >= count)
            break;
        if (child + 1 < count && better(&c[child + 1], &c[child]))
            child++;
        if (!better(&c[child], &moving))
            break;
        c[root] = c[child];
        root = child;
    }
    c[root] = moving;
}

/*
 * Keeps the best candidates until their mass reaches top_p, at least one. A heap gives them in
 * order without sorting the rest; the kept ones gather at the end of the array.
 */
static int64_t keep_top_p(candidate *c, int64_t count, double top_p) {
    if (top_p >= 1)
        return count;
    for (int64_t root = count / 2 - 1; root >= 0; root--)
        sift_down(c, count, root);
    uint64_t total = 0, mass = 0;
    double largest = c[0].logit;
    for (int64_t i = 0; i < count; i++)
        total += mln_draw_mass(c[i].logit - largest);
    int64_t left = count;
    while (left > 0 && mln_draw_lacks(mass, total, top_p)) {
        candidate best = c[0];
        c[0] = c[--left];
        if (left > 0)
            sift_down(c, left, 0);
        c[left] = best;
        mass += mln_draw_mass(best.logit - largest);
    }
    memmove(c, c + left, (size_t)(count - left) * sizeof *c);
    return count - left;
}

static float largest_logit(const candidate *c, int64_t count) {
    float largest = c[0].logit;
    for (int64_t i = 1; i < count; i++)
        largest = c[i].logit > largest ? c[i].logit : largest;
    return largest;
}

static int64_t keep_min_p(candidate *c, int64_t count, double min_p) {
    if (min_p <= 0)
        return count;
    double largest = largest_logit(c, count);
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++)
        if (mln_draw_exp(c[i].logit - largest) >= min_p)
            c[kept++] = c[i];
    return kept;
}

/*
 * Fills s->candidates with the tokens that can be drawn, in no particular order, and returns how
 * many (at least 1). Their logits are divided by the temperature.
 */
static int64_t warp(mln_sampler *s, const float *treated) {
    const mln_sampling *p = &s->sampling;
    candidate *c = s->candidates;
    float temperature = (float)p->temperature;
    int64_t count = 0;
    for (int32_t id = 0; id < s->vocab_size; id++)
        if (treated[id] > -INFINITY) /* neither banned nor NaN */
            c[count++] = (candidate){treated[id] / temperature, id};
    /*
     * Nothing can be drawn, or some logits are infinite (as they are, or divided by a tiny
     * temperature) and their differences mean nothing.
     */
    int32_t best = mln_argmax(treated, s->vocab_size);
    if (count == 0 || !isfinite(treated[best] / temperature)) {
        c[0] = (candidate){0, best};
        return 1;
    }
    count = keep_top_k(c, count, p->top_k);
    count = keep_top_p(c, count, p->top_p);
    return keep_min_p(c, count, p->min_p);
}

/*
 * Draws with the Gumbel-max trick: argmax of logit - log(-log(u)) is distributed as softmax(logit)
 * when the u are independent and uniform. Each token has its own u, so the draw depends on no order
 * of summation. decode_sample() of plug-ins draws the same token, by the arithmetic of base/draw.h.
 */
static int32_t draw(const mln_sampler *s, int64_t count, int32_t position) {
    const candidate *c = s->candidates;
    int32_t best = c[0].id;
    double best_key = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
        if (c[i].logit + MLN_DRAW_MOST_NOISE < best_key)
            continue;
        double key =
            mln_draw_key(c[i].logit, s->sampling.seed, (uint32_t)position, (uint32_t)c[i].id);
        if (key > best_key || (key == best_key && c[i].id < best)) {
            best_key = key;
            best = c[i].id;
        }
    }
    return best;
}

int32_t mln_sampler_pick(mln_sampler *s, const float *logits, int32_t position) {
    const float *treated = treat(s, logits);
    int32_t id = s->sampling.sampled ? draw(s, warp(s, treated), position)
                                     : mln_argmax(treated, s->vocab_size);
    id = hold_to(s->allowed, id, s->vocab_size);
    s->allowed = NULL;
    return id;
}

void mln_sampler_probs(mln_sampler *s, const float *logits, float *probs) {
    const float *treated = treat(s, logits);
    memset(probs, 0, (size_t)s->vocab_size * sizeof *probs);
    if (!s->sampling.sampled) {
        probs[mln_argmax(treated, s->vocab_size)] = 1;
        return;
    }
    int64_t count = warp(s, treated);
    const candidate *c = s->candidates;
    double largest = largest_logit(c, count), total = 0;
    for (int64_t i = 0; i < count; i++)
        total += mln_draw_exp(c[i].logit - largest);
    for (int64_t i = 0; i < count; i++)
        probs[c[i].id] = (float)(mln_draw_exp(c[i].logit - largest) / total);
}
