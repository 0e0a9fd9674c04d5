/* SPDX-License-Identifier: Apache-2.0 */
#include "support/drawing_plugin.h"

#include <math.h>
#include <stdlib.h>

#include "base/draw.h"
#include "model/composed.h"

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

static myelin_plugin table;
static int32_t vocab;
static drawing_calls calls;

static int by_rank(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static int32_t argmax(const float *logits) {
    int32_t best = -1;
    for (int32_t id = 0; id < vocab; id++)
        if (!isnan(logits[id]) && (best < 0 || logits[id] > logits[best]))
            best = id;
    return best < 0 ? 0 : best;
}

/* How many of the sorted candidates are kept. */
static int32_t keep(const candidate *c, int32_t count, const myelin_draw *d) {
    int32_t kept = count;
    if (d->top_k > 0 && d->top_k < count)
        for (kept = d->top_k; kept < count && c[kept].logit == c[d->top_k - 1].logit;)
            kept++;
    uint64_t total = 0, mass = 0;
    int32_t end = 0;
    for (int32_t i = 0; i < kept; i++)
        total += mln_draw_mass((double)c[i].logit - (double)c[0].logit);
    for (; end < kept && mln_draw_lacks(mass, total, d->top_p); end++)
        mass += mln_draw_mass((double)c[end].logit - (double)c[0].logit);
    kept = d->top_p < 1 ? end : kept;
    for (end = 0;
         end < kept && mln_draw_exp((double)c[end].logit - (double)c[0].logit) >= d->min_p;)
        end++;
    return end;
}

static int32_t choose(const float *logits, const myelin_draw *d, int32_t position) {
    int32_t best = argmax(logits), count = 0;
    float temperature = (float)d->temperature;
    if (!d->sampled || !isfinite(logits[best] / temperature))
        return best;
    candidate *c = calloc((size_t)vocab, sizeof *c);
    for (int32_t id = 0; c && id < vocab; id++)
        if (logits[id] > -INFINITY)
            c[count++] = (candidate){logits[id] / temperature, id};
    qsort(c, (size_t)count, sizeof *c, by_rank);
    double most = -INFINITY;
    for (int32_t i = 0, kept = keep(c, count, d); i < kept; i++) {
        double u = mln_uniform(d->seed, (uint32_t)position, (uint32_t)c[i].id);
        double key = (double)c[i].logit - mln_draw_log(-mln_draw_log(u));
        if (key > most || (key == most && c[i].id < best)) {
            most = key;
            best = c[i].id;
        }
    }
    free(c);
    return best;
}

static myelin_status decode_sample(myelin_plugin_context *context,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   const myelin_draw *draws, int32_t num_sequences, int32_t steps,
                                   int32_t *out_ids, myelin_error_buffer *error) {
    float *logits = calloc((size_t)vocab, sizeof *logits);
    myelin_status status = logits ? MYELIN_OK : MYELIN_ERROR_MEMORY;
    calls.count++;
    calls.longest = steps > calls.longest ? steps : calls.longest;
    for (int32_t s = 0; s < num_sequences; s++) {
        int32_t id = ids[s], before = table.sequence_length(sequences[s]);
        for (int32_t i = 0; i < steps && status == MYELIN_OK; i++) {
            myelin_span span = {sequences[s], &id, 1, 1, logits};
            status = table.forward(context, &span, 1, error);
            id = choose(logits, &draws[s], before + i + 1);
            out_ids[s * steps + i] = id;
        }
    }
    free(logits);
    return status;
}

const myelin_plugin *drawing_plugin(int32_t vocab_size) {
    table = *mln_composed_plugin();
    table.max_fusion = MYELIN_FUSION_CHUNK;
    table.decode_sample = decode_sample;
    vocab = vocab_size;
    calls = (drawing_calls){0};
    return &table;
}

drawing_calls drawing_plugin_calls(void) {
    return calls;
}
