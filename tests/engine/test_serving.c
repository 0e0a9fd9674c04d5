/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serving: whatever is submitted, cancelled and ended beside it, in whatever memory, each result is
 * the one the request has alone.
 */
#include <pthread.h>
#include <stdio.h>

#include "engine/support.h"
#include "support/temp_directory.h"

enum { REQUESTS = 24, MOST_IDS = 330 };

static char *directory;
static myelin_model *tiny;
static myelin_error error;

/* A request and what comes of it alone. */
typedef struct item {
    int32_t ids[MOST_IDS];
    size_t num_ids;
    char text[64]; /* the prompt, when num_ids is 0 */
    const char *messages;
    myelin_generation_options options;
    myelin_result expected;
} item;

static item items[REQUESTS];
static const char *const stops[] = {"the", "a", "\n"};
static const myelin_logit_bias bias[] = {{300, 2}, {17, -4}};
static const int32_t stop_ids[] = {1, 2, 77};
static const char messages[] = "[{\"role\": \"user\", \"content\": \"What is the capital?\"}]";

static myelin_generation_options options_of(uint32_t i) {
    myelin_generation_options o = options_for(1 + (int32_t)(i * 7 % 40), i % 4);
    o.logprobs = i % 5 == 0;
    o.top_logprobs = (int32_t)(i % 5);
    if (i % 4 == 1)
        o.top_p = 0.8;
    if (i % 4 == 2) {
        o.repetition_penalty = 1.3;
        o.logit_bias = bias;
        o.num_logit_bias = COUNT(bias);
    }
    if (i % 6 == 3) {
        o.stop_strings = stops;
        o.num_stop_strings = COUNT(stops);
        o.stop_ids = stop_ids;
        o.num_stop_ids = COUNT(stop_ids);
    }
    if (i % 8 == 5)
        o.max_len = 300;
    o.sync = (myelin_sync)(i % 3);
    return o;
}

static myelin_request request_of(const item *it) {
    myelin_request request = {.options = &it->options, .tag = (void *)(uintptr_t)it};
    if (it->num_ids) {
        request.prompt_ids = it->ids;
        request.num_prompt_ids = it->num_ids;
    } else if (it->messages) {
        request.messages = it->messages;
        request.messages_length = strlen(it->messages);
    } else {
        request.prompt = it->text;
        request.prompt_length = strlen(it->text);
    }
    return request;
}

static int open_model(void **state) {
    (void)state;
    uint32_t random = 77;
    directory = make_tiny_directory();
    size_t length;
    char *template = temp_read(MYELIN_DEMO_MODEL "/chat_template.jinja", &length);
    temp_write(directory, "chat_template.jinja", template, length);
    free(template);
    tiny = open_tiny(directory);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        item *it = &items[i];
        it->options = options_of(i);
        snprintf(it->text, sizeof it->text, "Request %u says: once", i);
        if (i % 7 == 6)
            it->messages = messages;
        else if (i % 3) /* some longer than two steps; many begin alike, for 10 to 250 tokens */
            it->num_ids = i % 3 == 1 ? 1 + i : 260 + i;
        for (size_t k = 0; k < it->num_ids; k++)
            it->ids[k] =
                k < 10 * i ? (int32_t)(31 * k % 6000) : (int32_t)next_random(&random, 6200);
        myelin_request request = request_of(it);
        assert_ok(myelin_complete(tiny, &request, NULL, NULL, &it->expected, &error), error);
    }
    return 0;
}

static int close_model(void **state) {
    (void)state;
    for (int i = 0; i < REQUESTS; i++)
        myelin_result_clear(&items[i].expected);
    myelin_model_close(tiny);
    temp_directory_remove(directory);
    return 0;
}

/* What has become of one submission; the worker's thread writes it, and asserts nothing. */
typedef struct outcome {
    const item *item;
    uint64_t id;
    int num_done;
    bool failed;
    myelin_error error;
    myelin_result result;
    piece_log log;
} outcome;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int num_ended;

static bool note_done(void *user, void *tag, myelin_result *result, const myelin_error *failure) {
    outcome *o = user;
    pthread_mutex_lock(&lock);
    o->num_done++;
    o->failed = failure != NULL || tag != (void *)(uintptr_t)o->item;
    if (failure) {
        o->error = *failure;
    } else {
        o->result = *result;
        *result = (myelin_result){0};
    }
    num_ended++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return true;
}

static bool note_piece(void *user, const myelin_piece *piece) {
    outcome *o = user;
    pthread_mutex_lock(&lock);
    bool go_on = log_piece(&o->log, piece);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return go_on;
}

static void wait_for(int count) {
    pthread_mutex_lock(&lock);
    while (num_ended < count)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static myelin_serving *start(int32_t max_sequences, int32_t pages, bool prefix_cache) {
    myelin_serving *serving;
    myelin_serving_options options;
    myelin_serving_options_init(&options);
    options.max_sequences = max_sequences;
    options.prefix_cache = prefix_cache;
    if (pages) { /* of the default size, found out by asking */
        assert_ok(myelin_serving_start(&serving, tiny, &options, &error), error);
        myelin_serving_stats stats = {.size = sizeof stats};
        myelin_serving_get_stats(serving, &stats);
        options.kv_bytes = stats.kv_bytes / (uint64_t)stats.pages_total * (uint64_t)pages;
        myelin_serving_free(serving);
    }
    assert_ok(myelin_serving_start(&serving, tiny, &options, &error), error);
    num_ended = 0;
    return serving;
}

static myelin_status submit(myelin_serving *serving, outcome *o, const item *it, int32_t priority) {
    myelin_request request = request_of(it);
    myelin_submission submission;
    myelin_submission_init(&submission);
    submission.request = &request;
    submission.priority = priority;
    submission.emit = note_piece;
    submission.done = note_done;
    submission.user = o;
    size_t stop_at = o->log.stop_at;
    *o = (outcome){.item = it, .log.stop_at = stop_at};
    return myelin_serving_submit(serving, &submission, &o->id, &error);
}

static void check_as_alone(outcome *o) {
    assert_int_equal(o->num_done, 1);
    if (o->failed)
        fail_msg("%s", o->error.message);
    assert_same_result(&o->result, &o->item->expected);
    if (!o->item->messages) /* whose turns come as events */
        assert_log_is_result(&o->log, &o->result);
    assert_int_equal(o->result.turn == NULL, o->item->messages == NULL);
    assert_true(o->result.cached_tokens < o->result.input_tokens);
    myelin_result_clear(&o->result);
}

static outcome outcomes[REQUESTS];

/* All has ended, all memory is back. */
static myelin_serving_stats end(myelin_serving *serving) {
    assert_true(myelin_serving_drain(serving, -1));
    myelin_serving_stats stats = {.size = sizeof stats};
    myelin_serving_get_stats(serving, &stats);
    assert_int_equal(stats.running, 0);
    assert_int_equal(stats.waiting, 0);
    assert_int_equal(stats.pages_used, 0);
    assert_true(stats.draining);
    myelin_serving_free(serving);
    return stats;
}

static void test_each_as_alone(void **state) {
    (void)state;
    static const struct {
        int32_t max_sequences, pages;
        bool prefix_cache;
    } cases[] = {{16, 0, true}, {16, 0, false}, {1, 0, true}, {3, 40, true},
                 {16, 9, true}, {16, 9, false}, {4, 6, true}, {8, 12, true}};
    for (size_t c = 0; c < COUNT(cases); c++) {
        myelin_serving *serving =
            start(cases[c].max_sequences, cases[c].pages, cases[c].prefix_cache);
        size_t tokens = 0, cached = 0;
        for (int i = 0; i < REQUESTS; i++)
            assert_ok(submit(serving, &outcomes[i], &items[i], i % 3), error);
        wait_for(REQUESTS);
        for (int i = 0; i < REQUESTS; i++) {
            tokens += outcomes[i].result.num_tokens;
            cached += (size_t)outcomes[i].result.cached_tokens;
            check_as_alone(&outcomes[i]);
        }
        myelin_serving_stats stats = end(serving);
        assert_int_equal(stats.requests_done, REQUESTS);
        assert_int_equal(stats.requests_failed + stats.requests_cancelled, 0);
        assert_int_equal(stats.generated_tokens, tokens);
        assert_int_equal(stats.cached_tokens, cached);
        if (!cases[c].prefix_cache)
            assert_int_equal(cached, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_as_alone),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
