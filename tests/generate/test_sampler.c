/* SPDX-License-Identifier: Apache-2.0 */
/* Samplers against transformers' probabilities, against a plain reference, and by their draws. */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
/* cmocka needs the four headers above */
#include <cmocka.h>

#include "base/draw.h"
#include "base/memory.h"
#include "generate/sampler.h"

static const mln_sampling neutral = {
    .sampled = true, .temperature = 1, .top_p = 1, .repetition_penalty = 1};

static double option(const json_t *options, const char *name, double neutral_value) {
    const json_t *value = json_object_get(options, name);
    return json_is_number(value) ? json_number_value(value) : neutral_value;
}

static void check_fixture(const json_t *line, size_t number) {
    const json_t *options = json_object_get(line, "options");
    const json_t *logits = json_object_get(line, "logits"), *probs = json_object_get(line, "probs");
    const json_t *history = json_object_get(line, "history");
    size_t vocab = json_array_size(logits), count = json_array_size(history);
    float *x = calloc(vocab, sizeof *x), *found = calloc(vocab, sizeof *found);
    int32_t *ids = calloc(count, sizeof *ids);
    for (size_t i = 0; i < vocab; i++)
        x[i] = (float)json_number_value(json_array_get(logits, i));
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(history, i));
    mln_sampling sampling = neutral;
    sampling.temperature = option(options, "temperature", 1);
    sampling.top_k = (int32_t)option(options, "top_k", 0);
    sampling.top_p = option(options, "top_p", 1);
    sampling.min_p = option(options, "min_p", 0);
    sampling.repetition_penalty = option(options, "repetition_penalty", 1);
    mln_sampler *sampler;
    assert_int_equal(mln_sampler_create(&sampler, (int32_t)vocab, NULL), MYELIN_OK);
    mln_sampler_begin(sampler, &sampling, ids, count);
    mln_sampler_probs(sampler, x, found);
    for (size_t i = 0; i < vocab; i++) {
        double expected = json_number_value(json_array_get(probs, i));
        if (fabs(found[i] - expected) > 1e-5)
            fail_msg("line %zu token %zu: expected %g, found %g", number, i, expected,
                     (double)found[i]);
    }
    mln_sampler_free(sampler);
    free(x);
    free(found);
    free(ids);
}

static void agrees_with_transformers(void **state) {
    (void)state;
    FILE *file = fopen(MYELIN_TEST_DATA "/sampling.jsonl", "r");
    assert_non_null(file);
    char *text = NULL;
    size_t room = 0, number = 0;
    while (getline(&text, &room, file) > 0) {
        json_t *line = json_loads(text, 0, NULL);
        assert_non_null(line);
        check_fixture(line, ++number);
        json_decref(line);
    }
    free(text);
    fclose(file);
    assert_int_equal(number, 40);
}

static void philox_known_answers(void **state) {
    (void)state;
    /* From the paper's Random123 distribution: kat_vectors, philox4x32 10. */
    uint32_t out[4];
    mln_philox(out, 0, (uint32_t[4]){0, 0, 0, 0});
    assert_int_equal(out[0], 0x6627e8d5u);
    assert_int_equal(out[1], 0xe169c58du);
    assert_int_equal(out[2], 0xbc57ac4cu);
    assert_int_equal(out[3], 0x9b00dbd8u);
    mln_philox(out, UINT64_MAX, (uint32_t[4]){~0u, ~0u, ~0u, ~0u});
    assert_int_equal(out[0], 0x408f276du);
    assert_int_equal(out[1], 0x41c83b0eu);
    assert_int_equal(out[2], 0xa20bc7c6u);
    assert_int_equal(out[3], 0x6d5451fdu);
}

static void random_logits(float *x, int32_t count, uint64_t seed) {
    for (int32_t i = 0; i < count; i++)
        x[i] = (float)(8 * mln_uniform(seed, 0, (uint32_t)i) - 4);
}

/* Draws at many positions fall as the probabilities say: chi-square over all tokens. */
static void draws_follow_the_probabilities(void **state) {
    (void)state;
    enum { VOCAB = 40, DRAWS = 40000 };
    float x[VOCAB], probs[VOCAB];
    int32_t hits[VOCAB] = {0};
    random_logits(x, VOCAB, 3);
    mln_sampling sampling = neutral;
    sampling.top_k = 25;
    sampling.temperature = 1.3;
    sampling.seed = 77;
    mln_sampler *sampler;
    assert_int_equal(mln_sampler_create(&sampler, VOCAB, NULL), MYELIN_OK);
    mln_sampler_begin(sampler, &sampling, NULL, 0);
    mln_sampler_probs(sampler, x, probs);
    for (int32_t position = 0; position < DRAWS; position++)
        hits[mln_sampler_pick(sampler, x, position)]++;
    double chi = 0;
    for (int i = 0; i < VOCAB; i++) {
        double expected = probs[i] * DRAWS;
        if (probs[i] == 0)
            assert_int_equal(hits[i], 0);
        else
            chi += (hits[i] - expected) * (hits[i] - expected) / expected;
    }
    assert_true(chi < 60); /* 24 degrees of freedom: 99.99% below 58.6; the seed is fixed */
    assert_true(chi > 5);
    mln_sampler_free(sampler);
}

static void a_draw_is_a_function_of_logits_seed_and_position(void **state) {
    (void)state;
    enum { VOCAB = 500 };
    float x[VOCAB];
    random_logits(x, VOCAB, 5);
    mln_sampling sampling = neutral;
    sampling.seed = 9;
    mln_sampler *a, *b;
    assert_int_equal(mln_sampler_create(&a, VOCAB, NULL), MYELIN_OK);
    assert_int_equal(mln_sampler_create(&b, VOCAB, NULL), MYELIN_OK);
    mln_sampler_begin(a, &sampling, NULL, 0);
    mln_sampler_begin(b, &sampling, (int32_t[]){1, 2, 3}, 3);
    int differ = 0;
    for (int32_t position = 0; position < 64; position++) {
        int32_t forward = mln_sampler_pick(a, x, position);
        (void)mln_sampler_pick(b, x, 1000 - position); /* other calls leave no trace */
        assert_int_equal(mln_sampler_pick(b, x, position), forward);
        differ += forward != mln_sampler_pick(a, x, position + 1);
    }
    assert_true(differ > 32);
    sampling.seed = 10;
    mln_sampler_begin(b, &sampling, NULL, 0);
    differ = 0;
    for (int32_t position = 0; position < 64; position++)
        differ += mln_sampler_pick(a, x, position) != mln_sampler_pick(b, x, position);
    assert_true(differ > 32);
    mln_sampler_free(a);
    mln_sampler_free(b);
}

static void penalties_count_prompt_and_output_as_they_should(void **state) {
    (void)state;
    float x[4] = {2, -2, 1, 0}, probs[4];
    mln_sampler *s;
    assert_int_equal(mln_sampler_create(&s, 4, NULL), MYELIN_OK);
    mln_bias bias[2] = {{3, 1.5f}, {0, -INFINITY}};
    mln_sampling sampling = neutral;
    sampling.repetition_penalty = 2;
    sampling.presence_penalty = 0.5;
    sampling.frequency_penalty = 0.25;
    mln_sampler_begin(s, &sampling, (int32_t[]){0, 0, 1}, 3);
    mln_sampler_accept(s, 2);
    mln_sampler_accept(s, 2);
    mln_sampler_probs(s, x, probs);
    /* 0: 2/2; 1: -2*2; 2: 1/2 - 0.5 - 2*0.25; 3: 0 */
    double e[4] = {exp(1), exp(-4), exp(-0.5), exp(0)}, total = e[0] + e[1] + e[2] + e[3];
    for (int i = 0; i < 4; i++)
        assert_true(fabs(probs[i] - e[i] / total) < 1e-6);
    sampling.bias = bias;
    sampling.num_bias = 2;
    mln_sampler_begin(s, &sampling, NULL, 0);
    mln_sampler_probs(s, x, probs);
    assert_true(probs[0] == 0);
    double t = exp(-2) + exp(1) + exp(1.5);
    assert_true(fabs(probs[3] - exp(1.5) / t) < 1e-6);
    sampling.sampled = false;
    mln_sampler_begin(s, &sampling, NULL, 0);
    assert_int_equal(mln_sampler_pick(s, x, 0), 3);
    assert_true(x[0] == 2.0f && x[3] == 0.0f); /* logits are left as they are */
    mln_sampler_free(s);
}

static void odd_logits_do_no_harm(void **state) {
    (void)state;
    mln_sampler *s;
    assert_int_equal(mln_sampler_create(&s, 4, NULL), MYELIN_OK);
    mln_sampling sampling = neutral;
    sampling.top_k = 2;
    sampling.top_p = 0.5;
    sampling.min_p = 0.1;
    mln_sampler_begin(s, &sampling, NULL, 0);
    float nan_everywhere[4] = {NAN, NAN, NAN, NAN};
    assert_int_equal(mln_sampler_pick(s, nan_everywhere, 0), 0);
    float infinite[4] = {0, INFINITY, 1, NAN};
    assert_int_equal(mln_sampler_pick(s, infinite, 0), 1);
    float banned[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    assert_int_equal(mln_sampler_pick(s, banned, 0), 0);
    float one[4] = {-INFINITY, -INFINITY, -3, NAN};
    assert_int_equal(mln_sampler_pick(s, one, 0), 2);
    float equal[4] = {1, 1, 1, 1}, probs[4];
    mln_sampler_probs(s, equal, probs); /* top_k keeps equals; top_p then the lowest ids */
    assert_true(probs[0] == 0.5f && probs[1] == 0.5f && probs[2] == 0);
    sampling = neutral;
    sampling.temperature = 1e-30; /* overflows to infinity: the argmax */
    mln_sampler_begin(s, &sampling, NULL, 0);
    float plain[4] = {1, 5, 3, 2};
    assert_int_equal(mln_sampler_pick(s, plain, 0), 1);
    mln_sampler_free(s);
}

static int by_value(const void *a, const void *b) {
    const float *x = a, *y = b;
    return *x > *y ? -1 : *x < *y;
}

/* The heap and the partition against a full sort, over sizes and settings. */
static void filters_agree_with_sorting(void **state) {
    (void)state;
    enum { MOST = 700 };
    float x[MOST], sorted[MOST], probs[MOST];
    for (int32_t vocab = 1; vocab <= MOST; vocab = vocab * 3 / 2 + 1) {
        mln_sampler *s;
        assert_int_equal(mln_sampler_create(&s, vocab, NULL), MYELIN_OK);
        for (int32_t k = 0; k < 40; k += 3) {
            random_logits(x, vocab, (uint64_t)(vocab + k));
            mln_sampling sampling = neutral;
            sampling.top_k = k;
            sampling.top_p = k % 2 ? 0.7 : 1;
            mln_sampler_begin(s, &sampling, NULL, 0);
            mln_sampler_probs(s, x, probs);
            memcpy(sorted, x, sizeof x);
            qsort(sorted, (size_t)vocab, sizeof *sorted, by_value);
            int32_t kept = k && k < vocab ? k : vocab;
            double total = 0, mass = 0;
            for (int32_t i = 0; i < kept; i++)
                total += exp(sorted[i]);
            int32_t last = 0;
            for (; last < kept && (mass < sampling.top_p || sampling.top_p >= 1); last++)
                mass += exp(sorted[last]) / total;
            for (int32_t i = 0; i < vocab; i++)
                assert_true((probs[i] > 0) == (x[i] >= sorted[last - 1]));
        }
        mln_sampler_free(s);
    }
}

static void only_what_a_mask_allows_is_picked(void **state) {
    (void)state;
    enum { VOCAB = 70 };
    mln_sampler *s;
    float logits[VOCAB], probs[VOCAB];
    const uint32_t mask[] = {1u << 3 | 1u << 9, 0, 1u << 1};
    assert_int_equal(mln_sampler_create(&s, VOCAB, NULL), MYELIN_OK);
    for (int id = 0; id < VOCAB; id++)
        logits[id] = (float)(id % 11);
    for (int round = 0; round < 60; round++) {
        mln_sampling sampling = neutral;
        const mln_bias ban[] = {{3, -INFINITY}, {9, -INFINITY}, {65, -INFINITY}};
        sampling.sampled = round % 2;
        sampling.top_k = round % 3;
        sampling.seed = (uint64_t)round;
        sampling.presence_penalty = round % 5;
        sampling.bias = ban;
        sampling.num_bias = round < 40 ? 0 : 3;
        mln_sampler_begin(s, &sampling, NULL, 0);
        mln_sampler_allow(s, mask);
        mln_sampler_probs(s, logits, probs);
        assert_true(probs[10] == 0 || round >= 40);
        int32_t id = mln_sampler_pick(s, logits, round);
        assert_true(id == 3 || id == 9 || id == 65);
        if (!sampling.sampled)
            assert_int_equal(id, round < 40 ? 65 : 3); /* the best, then the first */
        sampling.num_bias = 0;                         /* the mask was for one pick */
        sampling.sampled = false;
        mln_sampler_begin(s, &sampling, NULL, 0);
        assert_int_equal(mln_sampler_pick(s, logits, round), 10);
    }
    mln_sampler_free(s);
}

static void failing_memory_is_an_error(void **state) {
    (void)state;
    mln_sampler *s;
    for (uint64_t n = 1;; n++) {
        mln_fail_allocation(n, false);
        myelin_status status = mln_sampler_create(&s, 100, NULL);
        mln_fail_allocation(0, false);
        if (status == MYELIN_OK)
            break;
        assert_int_equal(status, MYELIN_ERROR_MEMORY);
        assert_null(s);
    }
    mln_sampler_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_transformers),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(a_draw_is_a_function_of_logits_seed_and_position),
        cmocka_unit_test(penalties_count_prompt_and_output_as_they_should),
        cmocka_unit_test(odd_logits_do_no_harm),
        cmocka_unit_test(filters_agree_with_sorting),
        cmocka_unit_test(only_what_a_mask_allows_is_picked),
        cmocka_unit_test(failing_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
