/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decode_sample() draws what the engine's sampler draws from the same logits: a plug-in given by
 * path, or else a plain one that sorts. Logits are made to measure: alike by the thousand, banned,
 * NaN, far apart.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/draw.h"
#include "generate/sampler.h"
#include "model/harness.h"
#include "support/checkpoint_builder.h"
#include "support/drawing_plugin.h"
#include "support/temp_directory.h"

enum { HIDDEN = 64, COUNT = 3, STEPS = 6, MAX_LEN = 64 };

static const char *path; /* of the plug-in; NULL: the plain one */

typedef enum kind { SPREAD, STEPPED, EQUAL, BANNED, NANS, FAR, NOTHING, KINDS } kind;

static uint32_t random_state;

static uint32_t next(uint32_t below) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

/* What the logit of a token is at most times. */
static float weight_of(kind k, int32_t id) {
    switch (k) {
    case SPREAD:
        return (float)next(1 << 16) / 4096.0f - 8;
    case STEPPED:
        return (float)next(7) - 3;
    case EQUAL:
        return 1;
    case BANNED:
        return next(50) ? -INFINITY : (float)next(100) / 20.0f;
    case NANS:
        return next(3) ? (float)next(1000) / 100.0f : NAN;
    case FAR:
        return ((float)next(1 << 16) / 32768.0f - 1) * 300;
    default:
        return id % 2 ? NAN : -INFINITY;
    }
}

static void fill(built_checkpoint *built, const char *name, float value) {
    built_tensor *t = builder_find(built, name);
    for (size_t i = 0; i < t->size / sizeof value; i++)
        memcpy(t->bytes + i * sizeof value, &value, sizeof value);
}

static void set(built_tensor *t, int32_t row, int32_t column, float value) {
    memcpy(t->bytes + ((size_t)row * HIDDEN + (size_t)column) * sizeof value, &value, sizeof value);
}

/*
 * A model whose layer adds nothing: the logits after token t are x weight + y other weight, with
 * (x, y) a direction that t chooses, x above 0.
 */
static char *write_model(kind k, int32_t vocab, const char *dtype) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.vocab = vocab;
    spec.layers = 1;
    spec.tie = false;
    spec.dtype = dtype;
    built_checkpoint *built = builder_make(&spec);
    if (!strcmp(dtype, "F32")) {
        fill(built, "model.layers.0.self_attn.o_proj.weight", 0);
        fill(built, "model.layers.0.mlp.down_proj.weight", 0);
        fill(built, "model.norm.weight", 1);
        fill(built, "model.embed_tokens.weight", 0);
        fill(built, "lm_head.weight", 0);
        built_tensor *embedding = builder_find(built, "model.embed_tokens.weight");
        built_tensor *head = builder_find(built, "lm_head.weight");
        for (int32_t id = 0; id < vocab; id++) {
            set(embedding, id, 0, 1);
            set(embedding, id, 1, (float)(id % 17) / 8.0f - 1);
            set(head, id, 0, weight_of(k, id) / 8);
            set(head, id, 1, k == SPREAD || k == FAR ? weight_of(k, id) / 8 : 0);
        }
    }
    char *directory = temp_directory_make();
    builder_write(built, directory);
    builder_free(built);
    return directory;
}

static myelin_draw random_draw(void) {
    static const double temperatures[] = {0.6, 1, 0.05, 1.7, 1e-3, 1e-40, 40};
    static const double top_ps[] = {1, 0.95, 0.5, 0.1, 1e-9, 0.999999};
    static const double min_ps[] = {0, 0, 0, 0.05, 0.7, 1};
    static const int32_t top_ks[] = {0, 20, 1, 2, 50, 300, 1024, 4000, 20, 5};
    return (myelin_draw){.seed = (uint64_t)next(1 << 24) << 40 ^ next(1 << 24),
                         .temperature = temperatures[next(7)],
                         .top_p = top_ps[next(6)],
                         .min_p = min_ps[next(6)],
                         .top_k = top_ks[next(10)],
                         .sampled = next(10) > 0};
}

/* STEPS tokens by forward() and the engine's sampler; the sequence is left as it was. */
static void draw_on_host(const harness *h, myelin_plugin_context *context,
                         myelin_plugin_sequence *sequence, mln_sampler *sampler,
                         const myelin_draw *d, int32_t id, float *logits, int32_t *out) {
    int32_t before = h->plugin->sequence_length(sequence);
    mln_sampling sampling = {.sampled = d->sampled,
                             .temperature = d->temperature,
                             .top_k = d->top_k,
                             .top_p = d->top_p,
                             .min_p = d->min_p,
                             .repetition_penalty = 1,
                             .seed = d->seed};
    mln_sampler_begin(sampler, &sampling, NULL, 0);
    for (int32_t i = 0; i < STEPS; i++) {
        harness_append(h, context, sequence, &id, 1, 1, logits);
        id = mln_sampler_pick(sampler, logits, before + i + 1);
        out[i] = id;
    }
    h->plugin->truncate_sequence(sequence, before);
}

static void check_round(const harness *h, myelin_plugin_context *context,
                        myelin_plugin_sequence **sequences, mln_sampler *sampler, float *logits) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    int32_t ids[COUNT], expected[COUNT][STEPS], found[COUNT][STEPS];
    myelin_draw draws[COUNT];
    for (int32_t s = 0; s < COUNT; s++) {
        ids[s] = (int32_t)next((uint32_t)h->vocab);
        draws[s] = random_draw();
        draw_on_host(h, context, sequences[s], sampler, &draws[s], ids[s], logits, expected[s]);
    }
    if (h->plugin->decode_sample(context, sequences, ids, draws, COUNT, STEPS, found[0], &error) !=
        MYELIN_OK)
        fail_msg("%s", text);
    for (int32_t s = 0; s < COUNT; s++) {
        const myelin_draw *d = &draws[s];
        int32_t length = h->plugin->sequence_length(sequences[s]);
        h->plugin->truncate_sequence(sequences[s], length - STEPS);
        for (int32_t i = 0; i < STEPS; i++)
            if (found[s][i] != expected[s][i])
                fail_msg("sequence %d, step %d: expected token %d, found %d; seed %llu, sampled "
                         "%d, temperature %g, top_k %d, top_p %.9g, min_p %g",
                         s, i, expected[s][i], found[s][i], (unsigned long long)d->seed, d->sampled,
                         d->temperature, d->top_k, d->top_p, d->min_p);
    }
}

static void check(kind k, int32_t vocab, const char *dtype, int rounds) {
    const myelin_plugin *plugin = path ? harness_plugin(path) : drawing_plugin(vocab);
    char *directory = write_model(k, vocab, dtype);
    harness h = harness_open_with(plugin, MYELIN_FUSION_AUTO, directory, 2, MYELIN_DTYPE_AUTO);
    myelin_plugin_context *context = harness_context(&h, 8, MAX_LEN);
    myelin_plugin_sequence *sequences[COUNT];
    mln_sampler *sampler;
    float *logits = calloc((size_t)vocab, sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(mln_sampler_create(&sampler, vocab, NULL), MYELIN_OK);
    for (int32_t s = 0; s < COUNT; s++) { /* of different lengths */
        int32_t *ids = random_ids(1 + 3 * s, vocab, (uint32_t)s);
        sequences[s] = harness_sequence(&h, MAX_LEN);
        harness_append(&h, context, sequences[s], ids, 1 + 3 * s, 4, NULL);
        free(ids);
    }
    for (int round = 0; round < rounds; round++)
        check_round(&h, context, sequences, sampler, logits);
    for (int32_t s = 0; s < COUNT; s++)
        plugin->free_sequence(sequences[s]);
    mln_sampler_free(sampler);
    free(logits);
    plugin->free_context(context);
    harness_close(&h);
    temp_directory_remove(directory);
}

static void all_kinds_of_logits(void **state) {
    (void)state;
    static const int32_t vocabs[] = {80, 700, 5000};
    for (int v = 0; v < 3; v++)
        for (kind k = 0; k < KINDS; k++) {
            random_state = (uint32_t)(100 * v) + k;
            check(k, vocabs[v], "F32", path ? 60 : v == 2 ? 8 : 40);
        }
}

static void the_vocabulary_of_published_models(void **state) {
    (void)state;
    if (!path)
        skip();
    for (kind k = SPREAD; k <= EQUAL; k++)
        check(k, 151936, "F32", 25);
    check(SPREAD, 151936, "BF16", 25);
}

int main(int argc, char **argv) {
    path = argc > 1 ? argv[1] : NULL;
    const myelin_plugin *plugin = path ? harness_plugin(path) : drawing_plugin(80);
    if (!plugin || !MYELIN_PLUGIN_HAS(plugin, decode_sample))
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_kinds_of_logits),
        cmocka_unit_test(the_vocabulary_of_published_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
