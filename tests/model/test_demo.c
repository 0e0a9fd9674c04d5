/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The demo model against its eval.jsonl: for 300 prompts what transformers generated greedily, and
 * the gap between the best and the second best token at each step. Prompts are read and decoded
 * many at a time, so this also proves that a batch changes nothing.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/harness.h"

enum { BATCH = 50, STEPS = 8, MAX_STEPS = 64, MAX_LEN = 640, SANITIZED_LINES = 20 };

#define NEAR_TIE       1e-3
#define MAX_DIFFERENCE 5e-4 /* the file has four decimals */

typedef struct prompt {
    const json_t *line;
    int32_t *ids, count;
    int32_t *expected, steps;
    myelin_plugin_sequence *sequence;
    int32_t found[MAX_STEPS + STEPS], num_found;
} prompt;

/* Equal up to the first near tie; returns how many tokens were compared. */
static int32_t check_output(const prompt *p) {
    for (int32_t i = 0; i < p->steps; i++) {
        if (json_number_at(p->line, "gaps", (size_t)i) <= NEAR_TIE)
            return i;
        if (p->found[i] != p->expected[i])
            fail_msg("%s, token %d: expected %d, found %d",
                     json_string_value(json_object_get(p->line, "id")), i, p->expected[i],
                     p->found[i]);
    }
    return p->steps;
}

/* All prompts but their last tokens, in one call. */
static void read_prompts(const harness *h, myelin_plugin_context *context, prompt *prompts,
                         int32_t count) {
    myelin_span spans[BATCH];
    int32_t num_spans = 0;
    for (int32_t i = 0; i < count; i++) {
        prompt *p = &prompts[i];
        p->sequence = harness_sequence(h, MAX_LEN);
        if (p->count > 1)
            spans[num_spans++] =
                (myelin_span){.sequence = p->sequence, .ids = p->ids, .count = p->count - 1};
    }
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    assert_int_equal(h->plugin->forward(context, spans, num_spans, &error), MYELIN_OK);
}

/* STEPS more tokens for every prompt that is not finished; returns how many there were. */
static int32_t decode(const harness *h, myelin_plugin_context *context, prompt *prompts,
                      int32_t count) {
    myelin_plugin_sequence *sequences[BATCH];
    prompt *active[BATCH];
    int32_t last[BATCH], found[BATCH * STEPS], num_active = 0;
    for (int32_t i = 0; i < count; i++) {
        prompt *p = &prompts[i];
        if (p->num_found >= p->steps)
            continue;
        last[num_active] = p->num_found ? p->found[p->num_found - 1] : p->ids[p->count - 1];
        sequences[num_active] = p->sequence;
        active[num_active++] = p;
    }
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    assert_int_equal(
        h->plugin->decode_greedy(context, sequences, last, num_active, STEPS, found, &error),
        MYELIN_OK);
    for (int32_t i = 0; i < num_active; i++) {
        memcpy(active[i]->found + active[i]->num_found, found + i * STEPS, STEPS * sizeof *found);
        active[i]->num_found += STEPS;
    }
    return num_active;
}

static int64_t run_batch(const harness *h, prompt *prompts, int32_t count) {
    int32_t rows = 0;
    for (int32_t i = 0; i < count; i++) {
        assert_true(prompts[i].count > 0 && prompts[i].steps <= MAX_STEPS);
        rows += prompts[i].count;
    }
    myelin_plugin_context *context = harness_context(h, rows, MAX_LEN);
    read_prompts(h, context, prompts, count);
    while (decode(h, context, prompts, count) > 0) {
    }
    int64_t compared = 0;
    for (int32_t i = 0; i < count; i++) {
        compared += check_output(&prompts[i]);
        h->plugin->free_sequence(prompts[i].sequence);
    }
    h->plugin->free_context(context);
    return compared;
}

/*
 * The five best logits after each prompt. (Rotary frequencies rounded to bfloat16 would be found
 * out here: the logits of the longest prompts would be 0.1 off.)
 */
static void first_logits(void **state) {
    (void)state;
    json_t *lines = read_jsonl(MYELIN_DEMO_MODEL "/eval.jsonl");
    harness h = harness_open(MYELIN_DEMO_MODEL, 2, MYELIN_DTYPE_AUTO);
    double largest = 0;
    for (size_t i = 0; i < json_array_size(lines); i += is_sanitized() ? 75 : 15) {
        const json_t *line = json_array_get(lines, i);
        const json_t *first = json_object_get(line, "first_top5");
        int32_t count, top;
        int32_t *ids = json_ids(line, "prompt_ids", &count);
        int32_t *top_ids = json_ids(first, "ids", &top);
        float *logits = harness_logits(&h, ids, count);
        const float *last = logits + (int64_t)(count - 1) * h.vocab;
        assert_int_equal(top, 5);
        for (int32_t j = 0; j < top; j++) {
            double expected = json_number_at(first, "logits", (size_t)j);
            double difference = fabs((double)last[top_ids[j]] - expected);
            if (!(difference <= MAX_DIFFERENCE))
                fail_msg("%s, logit of %d: expected %g, found %g",
                         json_string_value(json_object_get(line, "id")), top_ids[j], expected,
                         (double)last[top_ids[j]]);
            largest = difference > largest ? difference : largest;
        }
        free(logits);
        free(top_ids);
        free(ids);
    }
    print_message("largest difference of a logit %.2g\n", largest);
    harness_close(&h);
    json_decref(lines);
}

static void greedy_tokens(void **state) {
    (void)state;
    json_t *lines = read_jsonl(MYELIN_DEMO_MODEL "/eval.jsonl");
    size_t count = json_array_size(lines);
    assert_int_equal(count, 300);
    if (is_sanitized())
        count = SANITIZED_LINES;
    harness h = harness_open(MYELIN_DEMO_MODEL, 2, MYELIN_DTYPE_AUTO);
    int64_t compared = 0;
    for (size_t first = 0; first < count; first += BATCH) {
        prompt prompts[BATCH];
        size_t size = count - first < BATCH ? count - first : BATCH;
        for (size_t i = 0; i < size; i++) {
            prompts[i] = (prompt){.line = json_array_get(lines, first + i)};
            prompts[i].ids = json_ids(prompts[i].line, "prompt_ids", &prompts[i].count);
            prompts[i].expected = json_ids(prompts[i].line, "output_ids", &prompts[i].steps);
        }
        compared += run_batch(&h, prompts, (int32_t)size);
        for (size_t i = 0; i < size; i++) {
            free(prompts[i].ids);
            free(prompts[i].expected);
        }
    }
    print_message("%zu prompts, %lld tokens equal\n", count, (long long)compared);
    assert_true(compared > (int64_t)count * 5);
    harness_close(&h);
    json_decref(lines);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(first_logits),
                                       cmocka_unit_test(greedy_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
