/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composed forward pass against transformers, for four tiny checkpoints: the log-probabilities
 * of every prompt token, the top 20 after the prompt and what greedy decoding gives.
 *
 * models_from_files.jsonl was computed from the checkpoints' files and is compared with as it is.
 * models.jsonl is older: its three half-precision models were cast as a whole before their results
 * were computed in float32, and that cast rounded the rotary frequencies, too, which a model opened
 * from its files has in float32. To compare all the rest, the test rounds ours for these.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/composed_internal.h"
#include "model/harness.h"
#include "tensor/dtype.h"
#include "tensor/ops.h"

#define MAX_DIFFERENCE  2e-3
#define MEAN_DIFFERENCE 5e-4
#define NEAR_TIE        1e-3

typedef struct difference {
    double largest, sum;
    size_t count;
} difference;

static void compare(difference *all, double expected, float found, const char *what, size_t index) {
    double d = fabs(expected - (double)found);
    if (!(d <= MAX_DIFFERENCE))
        fail_msg("%s %zu: expected %g, found %g", what, index, expected, (double)found);
    all->largest = d > all->largest ? d : all->largest;
    all->sum += d;
    all->count++;
}

static void check_prompt(const json_t *line, float *logits, const int32_t *ids, int32_t count,
                         int32_t vocab, difference *all) {
    for (int32_t t = 0; t < count; t++)
        mln_log_softmax(logits + (int64_t)t * vocab, logits + (int64_t)t * vocab, vocab);
    assert_int_equal(json_array_size(json_object_get(line, "prompt_logprobs")), count - 1);
    for (int32_t t = 0; t + 1 < count; t++)
        compare(all, json_number_at(line, "prompt_logprobs", (size_t)t),
                logits[(int64_t)t * vocab + ids[t + 1]], "prompt_logprobs", (size_t)t);
}

/* The top 20: the same tokens in the same order (but for near ties) and the same values. */
static void check_top(const json_t *line, const float *logprobs, difference *all) {
    int32_t count;
    int32_t *top = json_ids(line, "top_ids", &count);
    assert_int_equal(count, 20);
    for (int32_t i = 0; i < count; i++) {
        compare(all, json_number_at(line, "top_logprobs", (size_t)i), logprobs[top[i]],
                "top_logprobs", (size_t)i);
        if (i > 0 && logprobs[top[i]] > logprobs[top[i - 1]])
            assert_true(logprobs[top[i]] - logprobs[top[i - 1]] < (float)NEAR_TIE);
    }
    free(top);
}

static void check_greedy(const harness *h, const json_t *line, const int32_t *ids, int32_t count) {
    int32_t steps;
    int32_t *expected = json_ids(line, "greedy_ids", &steps);
    if (json_number_value(json_object_get(line, "min_gap")) > NEAR_TIE) {
        myelin_plugin_sequence *sequence = harness_sequence(h, count + steps);
        myelin_plugin_context *context = harness_context(h, count, count + steps);
        if (count > 1)
            harness_append(h, context, sequence, ids, count - 1, count, NULL);
        int32_t *found = malloc((size_t)steps * sizeof *found);
        char text[256] = "";
        myelin_error_buffer error = {text, sizeof text};
        assert_int_equal(
            h->plugin->decode_greedy(context, &sequence, &ids[count - 1], 1, steps, found, &error),
            MYELIN_OK);
        assert_memory_equal(found, expected, (size_t)steps * sizeof *found);
        free(found);
        h->plugin->free_context(context);
        h->plugin->free_sequence(sequence);
    }
    free(expected);
}

/* The rotary frequencies as they were when models.jsonl was made. */
static void round_frequencies(const harness *h) {
    float *inv_freq = h->model->weights->inv_freq;
    size_t count = (size_t)h->checkpoint->config.model.head_dim / 2;
    int32_t dtype = h->checkpoint->weights[0].tensor.dtype;
    float rounded[64];
    assert_true(count <= sizeof rounded / sizeof *rounded);
    mln_from_f32(rounded, dtype, inv_freq, count);
    mln_to_f32(inv_freq, rounded, dtype, count);
}

static void check_model(const char *name, const char *file, bool rounded, size_t expected_rows) {
    json_t *lines = read_jsonl(file);
    char directory[512];
    snprintf(directory, sizeof directory, MYELIN_TEST_DATA "/models/%s", name);
    harness h = harness_open(directory, 2, MYELIN_DTYPE_AUTO);
    if (rounded)
        round_frequencies(&h);
    difference all = {0};
    size_t rows = 0;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        if (strcmp(json_string_value(json_object_get(line, "model")), name) != 0)
            continue;
        int32_t count;
        int32_t *ids = json_ids(line, "prompt_ids", &count);
        float *logits = harness_logits(&h, ids, count);
        check_prompt(line, logits, ids, count, h.vocab, &all);
        check_top(line, logits + (int64_t)(count - 1) * h.vocab, &all);
        check_greedy(&h, line, ids, count);
        free(logits);
        free(ids);
        rows++;
    }
    assert_int_equal(rows, expected_rows);
    print_message("%s: %zu log-probabilities, largest difference %.2g, mean %.2g\n", name,
                  all.count, all.largest, all.sum / (double)all.count);
    assert_true(all.sum / (double)all.count <= MEAN_DIFFERENCE);
    harness_close(&h);
    json_decref(lines);
}

static void check_both(const char *name) {
    check_model(name, MYELIN_TEST_DATA "/models_from_files.jsonl", false, 6);
    check_model(name, MYELIN_TEST_DATA "/models.jsonl", true, 5);
}

static void tied_bf16(void **state) {
    (void)state;
    check_both("tied-bf16");
}

static void untied_f16(void **state) {
    (void)state;
    check_both("untied-f16");
}

static void sharded_f32(void **state) {
    (void)state;
    check_both("sharded-f32");
}

static void yarn_bf16(void **state) {
    (void)state;
    check_both("yarn-bf16");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tied_bf16),
        cmocka_unit_test(untied_f16),
        cmocka_unit_test(sharded_f32),
        cmocka_unit_test(yarn_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
