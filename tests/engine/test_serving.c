/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serving: whatever is submitted, cancelled and ended beside it, in whatever memory, each result is
 * the one the request has alone.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/memory.h"
#include "engine/internal.h"
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
    const void *expected_tag;
    uint64_t id;
    int num_done, order;
    bool disarms; /* its end switches failing allocations off */
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
    if (o->disarms)
        mln_fail_allocation(0, false);
    o->failed = failure != NULL || tag != o->expected_tag;
    o->order = num_ended;
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
    bool late = o->log.num_tokens > 100; /* for long: what is to end it may be slow to come */
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    if (late)
        usleep(10000);
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
    *o = (outcome){.item = it, .expected_tag = it, .log.stop_at = stop_at};
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
        else if (cases[c].max_sequences < 8)
            assert_true(cached > 500);
    }
}

/* Random submits, priorities and cancels; what is not cancelled ends as alone. */
static void test_random_cancels(void **state) {
    (void)state;
    uint32_t random = 5;
    for (int round = 0; round < 6; round++) {
        myelin_serving *serving = start(4 + 4 * (round % 3), round % 2 ? 10 : 0, round % 3 != 2);
        bool cancelled[REQUESTS] = {false};
        for (int i = 0; i < REQUESTS; i++) {
            assert_ok(submit(serving, &outcomes[i], &items[i], (int32_t)next_random(&random, 5)),
                      error);
            if (next_random(&random, 3) == 0) {
                int which = (int)next_random(&random, (uint32_t)i + 1);
                myelin_serving_cancel(serving, outcomes[which].id);
                cancelled[which] = true;
            }
        }
        wait_for(REQUESTS);
        uint64_t num_cancelled = 0;
        for (int i = 0; i < REQUESTS; i++) {
            myelin_result *r = &outcomes[i].result;
            const myelin_result *e = &items[i].expected;
            if (outcomes[i].failed || r->finish_reason != MYELIN_FINISH_CANCELLED) {
                check_as_alone(&outcomes[i]);
                continue;
            }
            assert_true(cancelled[i]);
            assert_int_equal(outcomes[i].num_done, 1);
            assert_true(r->num_tokens < e->num_tokens || e->num_tokens == 0);
            assert_int_equal(r->input_tokens, e->input_tokens);
            assert_non_null(r->text);
            assert_int_equal(r->turn == NULL, e->turn == NULL);
            if (r->num_tokens)
                assert_memory_equal(r->token_ids, e->token_ids, r->num_tokens * sizeof(int32_t));
            myelin_result_clear(r);
            num_cancelled++;
        }
        myelin_serving_stats stats = end(serving);
        assert_int_equal(stats.requests_cancelled, num_cancelled);
        assert_int_equal(stats.requests_done, REQUESTS - num_cancelled);
    }
}

/* A generation that does not end by itself, for tests that end it. */
static item endless(size_t num_ids) {
    item it = {.num_ids = num_ids, .options = options_for(900, 0)};
    static const int32_t none[1];
    it.options.stop_ids = none;
    it.options.sync = MYELIN_SYNC_TOKEN;
    for (size_t k = 0; k < num_ids; k++)
        it.ids[k] = (int32_t)(k * k % 6000);
    return it;
}

static void wait_for_tokens(outcome *o, size_t count) {
    pthread_mutex_lock(&lock);
    while (o->log.num_tokens < count && o->num_done == 0)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static void check_cancelled(outcome *o, size_t least, size_t most) {
    assert_int_equal(o->num_done, 1);
    assert_false(o->failed);
    assert_int_equal(o->result.finish_reason, MYELIN_FINISH_CANCELLED);
    assert_in_range(o->result.num_tokens, least, most);
    if (o->log.num_tokens || o->result.num_tokens)
        assert_log_is_result(&o->log, &o->result);
    myelin_result_clear(&o->result);
}

/* While it is generated, while its prompt is read, and while it waits. */
static void test_cancel_in_every_state(void **state) {
    (void)state;
    myelin_serving *serving = start(2, 0, true);
    item decoding = endless(5), reading = endless(MOST_IDS), waiting = endless(9);
    assert_ok(submit(serving, &outcomes[0], &decoding, 1), error);
    wait_for_tokens(&outcomes[0], 3);
    assert_ok(submit(serving, &outcomes[1], &reading, 1), error);
    assert_ok(submit(serving, &outcomes[2], &waiting, 0), error);
    myelin_serving_cancel(serving, outcomes[2].id);
    wait_for(1);
    check_cancelled(&outcomes[2], 0, 0);
    myelin_serving_cancel(serving, outcomes[1].id);
    wait_for(2);
    check_cancelled(&outcomes[1], 0, 899);
    assert_int_equal(outcomes[0].num_done, 0);
    myelin_serving_stats stats = {.size = sizeof stats};
    myelin_serving_get_stats(serving, &stats);
    assert_int_equal(stats.running, 1);
    assert_true(stats.pages_used > 0);
    myelin_serving_cancel(serving, 12345); /* nobody */
    myelin_serving_cancel(serving, outcomes[2].id);
    myelin_serving_cancel(serving, outcomes[0].id);
    wait_for(3);
    check_cancelled(&outcomes[0], 3, 899);
    stats = end(serving);
    assert_int_equal(stats.requests_cancelled, 3);
}

static bool is_set(void *user) {
    return atomic_load((atomic_bool *)user);
}

/* By emit returning false, and by the options' own question. */
static void test_cancel_by_callback(void **state) {
    (void)state;
    myelin_serving *serving = start(1, 0, true);
    atomic_bool enough = false;
    item stopped = endless(7), asked = endless(8), asked_in_line = endless(9);
    asked.options.cancelled = asked_in_line.options.cancelled = is_set;
    asked.options.cancel_user = asked_in_line.options.cancel_user = &enough;
    outcomes[0].log.stop_at = 5;
    assert_ok(submit(serving, &outcomes[0], &stopped, 0), error);
    wait_for(1);
    check_cancelled(&outcomes[0], 5, 5);
    outcomes[0].log.stop_at = 0;
    assert_ok(submit(serving, &outcomes[1], &asked, 0), error);
    assert_ok(submit(serving, &outcomes[2], &asked_in_line, 0), error);
    wait_for_tokens(&outcomes[1], 2);
    atomic_store(&enough, true);
    wait_for(3);
    check_cancelled(&outcomes[1], 2, 899);
    check_cancelled(&outcomes[2], 0, 1); /* it may have begun in between */
    (void)end(serving);
}

static void test_full_queue(void **state) {
    (void)state;
    myelin_serving *serving;
    myelin_serving_options options;
    myelin_serving_options_init(&options);
    options.max_sequences = 2;
    options.max_queue = 3;
    assert_ok(myelin_serving_start(&serving, tiny, &options, &error), error);
    num_ended = 0;
    item it = endless(6);
    for (int i = 0; i < 5; i++)
        assert_ok(submit(serving, &outcomes[i], &it, 0), error);
    assert_int_equal(submit(serving, &outcomes[5], &it, 0), MYELIN_ERROR_BUSY);
    assert_non_null(strstr(error.message, "the queue is full"));
    assert_int_equal(outcomes[5].id, 0);
    wait_for_tokens(&outcomes[0], 1);
    myelin_serving_stats stats = {.size = sizeof stats};
    myelin_serving_get_stats(serving, &stats);
    assert_int_equal(stats.running + stats.waiting, 5);
    assert_in_range(stats.waiting, 3, 4);
    myelin_serving_cancel(serving, outcomes[4].id);
    wait_for(1);
    assert_ok(submit(serving, &outcomes[5], &it, 0), error);
    /* Nothing new while it drains; what there is goes on. */
    assert_false(myelin_serving_drain(serving, 1));
    assert_int_equal(submit(serving, &outcomes[6], &it, 0), MYELIN_ERROR_BUSY);
    assert_non_null(strstr(error.message, "nothing new"));
    myelin_serving_free(serving);
    assert_int_equal(num_ended, 6);
    for (int i = 0; i < 6; i++)
        check_cancelled(&outcomes[i], 0, 899);
}

static void test_drain(void **state) {
    (void)state;
    myelin_serving *serving = start(3, 0, true);
    for (int i = 0; i < 8; i++)
        assert_ok(submit(serving, &outcomes[i], &items[i], 0), error);
    assert_true(myelin_serving_drain(serving, 60e3));
    assert_int_equal(num_ended, 8);
    for (int i = 0; i < 8; i++)
        check_as_alone(&outcomes[i]);
    assert_true(myelin_serving_drain(serving, 0));
    (void)end(serving);
    /* Without any request. */
    serving = start(3, 0, true);
    assert_true(myelin_serving_drain(serving, 0));
    myelin_serving_free(serving);
    myelin_serving_free(NULL);
}

/* A callback may submit, ask, cancel and drain. */
typedef struct relay {
    myelin_serving *serving;
    int left;
    uint64_t num_done;
    bool fine, drained;
} relay;

static bool relay_done(void *user, void *tag, myelin_result *result, const myelin_error *failure);

static bool relay_submit(relay *r) {
    myelin_request request = {
        .prompt_ids = items[1].ids, .num_prompt_ids = 2, .options = &items[1].options, .tag = r};
    myelin_submission submission;
    myelin_submission_init(&submission);
    submission.request = &request;
    submission.done = relay_done;
    submission.user = r;
    return myelin_serving_submit(r->serving, &submission, NULL, NULL) == MYELIN_OK;
}

static bool relay_done(void *user, void *tag, myelin_result *result, const myelin_error *failure) {
    relay *r = user;
    myelin_serving_stats stats = {.size = sizeof stats};
    myelin_serving_get_stats(r->serving, &stats);
    myelin_serving_cancel(r->serving, 1);
    r->num_done++;
    r->fine = r->fine && result && !failure && tag == r && stats.requests_done == r->num_done;
    if (--r->left > 0) {
        r->fine = relay_submit(r) && r->fine;
        return false; /* which nobody looks at */
    }
    r->drained = myelin_serving_drain(r->serving, -1); /* it cannot wait for itself */
    r->fine = r->fine && !relay_submit(r);
    pthread_mutex_lock(&lock);
    num_ended++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return false;
}

static void test_calls_from_callbacks(void **state) {
    (void)state;
    relay r = {.serving = start(2, 0, true), .left = 5, .fine = true};
    assert_true(relay_submit(&r));
    wait_for(1);
    assert_true(r.fine);
    assert_false(r.drained);
    assert_int_equal(r.num_done, 5);
    (void)end(r.serving);
}

static void test_priorities(void **state) {
    (void)state;
    static const int32_t priorities[] = {0, 0, 100, 3, 3, -100, 0};
    static const int order[] = {2, 3, 4, 0, 1, 6, 5};
    myelin_serving *serving = start(1, 0, true);
    item first = endless(6);
    assert_ok(submit(serving, &outcomes[9], &first, 0), error);
    wait_for_tokens(&outcomes[9], 1);
    for (size_t i = 0; i < COUNT(priorities); i++)
        assert_ok(submit(serving, &outcomes[i], &items[1], priorities[i]), error);
    myelin_serving_cancel(serving, outcomes[9].id);
    wait_for(1 + COUNT(priorities));
    check_cancelled(&outcomes[9], 1, 899);
    for (int i = 0; i < (int)COUNT(order); i++) {
        assert_int_equal(outcomes[order[i]].order, i + 1);
        check_as_alone(&outcomes[i]);
    }
    (void)end(serving);
}

/* What is wrong with a request is found where it is submitted. */
static void test_bad_requests(void **state) {
    (void)state;
    myelin_serving *serving = start(2, 4, true);
    item bad[6];
    static const char *const words[] = {"token id 6282", "max_new_tokens", "max_len",
                                        "empty",         "UTF-8",          "KV cache"};
    for (size_t i = 0; i < COUNT(bad); i++)
        bad[i] = items[1];
    bad[0].ids[0] = 6282;
    bad[1].options.max_new_tokens = 0;
    bad[2].options.max_len = 1;
    bad[3].num_ids = bad[4].num_ids = 0;
    strcpy(bad[3].text, "");
    strcpy(bad[4].text, "\xFF");
    bad[5].options.max_new_tokens = 4 * 64;
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(submit(serving, &outcomes[i], &bad[i], 0),
                         i == 2 || i == 5 ? MYELIN_ERROR_CACHE_FULL : MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, words[i]));
        assert_int_equal(outcomes[i].id, 0);
    }
    assert_int_equal(submit(serving, &outcomes[0], &items[1], 101), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "priority: expected -100 to 100"));
    assert_int_equal(myelin_serving_submit(serving, NULL, NULL, &error), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "found NULL"));
    bad[5].options.max_new_tokens = 4 * 64 - 1; /* and that fits, exactly */
    assert_ok(submit(serving, &outcomes[0], &bad[5], 0), error);
    wait_for(1);
    assert_int_equal(num_ended, 1);
    assert_false(outcomes[0].failed);
    myelin_result_clear(&outcomes[0].result);
    myelin_serving_stats stats = end(serving);
    assert_int_equal(stats.requests_done, 1);
    assert_int_equal(stats.requests_failed, 0);
}

/* Nothing a request points to is looked at after submit() has returned. */
static void test_requests_are_copied(void **state) {
    (void)state;
    myelin_serving *serving = start(2, 0, true);
    for (int i = 0; i < REQUESTS; i++) {
        item it = items[i];
        char *text[COUNT(stops)];
        const char *own[COUNT(stops)];
        int32_t ids[COUNT(stop_ids)];
        myelin_logit_bias own_bias[COUNT(bias)];
        for (size_t k = 0; k < COUNT(stops); k++)
            own[k] = text[k] = strdup(stops[k]);
        memcpy(ids, stop_ids, sizeof ids);
        memcpy(own_bias, bias, sizeof own_bias);
        if (it.options.stop_strings)
            it.options.stop_strings = own;
        if (it.options.stop_ids)
            it.options.stop_ids = ids;
        if (it.options.logit_bias)
            it.options.logit_bias = own_bias;
        outcomes[i].log.stop_at = 0;
        assert_ok(submit(serving, &outcomes[i], &it, 0), error);
        outcomes[i].item = &items[i];
        outcomes[i].expected_tag = &it;
        memset(own_bias, 0x55, sizeof own_bias);
        memset(ids, 0x55, sizeof ids);
        memset(own, 0, sizeof own);
        memset(&it, 0, sizeof it);
        for (size_t k = 0; k < COUNT(stops); k++) {
            memset(text[k], 'x', strlen(text[k]));
            free(text[k]);
        }
    }
    wait_for(REQUESTS);
    for (int i = 0; i < REQUESTS; i++)
        check_as_alone(&outcomes[i]);
    (void)end(serving);
}

/* ---- Threads ----------------------------------------------------------------------------------
 */

enum { THREADS = 6 };
typedef struct submitter {
    pthread_t thread;
    myelin_serving *serving;
    int first, num_failed;
} submitter;

static void *submit_some(void *argument) {
    submitter *me = argument;
    for (int i = me->first; i < REQUESTS; i += THREADS) {
        myelin_serving_stats stats = {.size = sizeof stats};
        myelin_request request = request_of(&items[i]);
        myelin_submission submission;
        myelin_submission_init(&submission);
        submission.request = &request;
        submission.priority = i % 4;
        submission.emit = note_piece;
        submission.done = note_done;
        submission.user = &outcomes[i];
        me->num_failed +=
            myelin_serving_submit(me->serving, &submission, &outcomes[i].id, NULL) != MYELIN_OK;
        myelin_serving_get_stats(me->serving, &stats);
        me->num_failed += stats.running < 0 || stats.waiting < 0 ||
                          stats.pages_used + stats.pages_cached > stats.pages_total;
        myelin_serving_cancel(me->serving, 1000000);
    }
    return NULL;
}

static void test_many_threads(void **state) {
    (void)state;
    myelin_serving *serving = start(8, 12, true);
    submitter submitters[THREADS];
    for (int i = 0; i < REQUESTS; i++)
        outcomes[i] = (outcome){.item = &items[i], .expected_tag = &items[i]};
    for (int i = 0; i < THREADS; i++) {
        submitters[i] = (submitter){.serving = serving, .first = i};
        assert_int_equal(pthread_create(&submitters[i].thread, NULL, submit_some, &submitters[i]),
                         0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(submitters[i].thread, NULL);
        assert_int_equal(submitters[i].num_failed, 0);
    }
    wait_for(REQUESTS);
    for (int i = 0; i < REQUESTS; i++)
        check_as_alone(&outcomes[i]);
    (void)end(serving);
}

/* Freed while some run and some wait: each is told. */
static void test_free_while_running(void **state) {
    (void)state;
    for (size_t tokens = 0; tokens < 6; tokens += 5) {
        myelin_serving *serving = start(3, 0, true);
        item it = endless(20);
        for (int i = 0; i < 9; i++)
            assert_ok(submit(serving, &outcomes[i], &it, 0), error);
        wait_for_tokens(&outcomes[0], tokens);
        myelin_serving_free(serving);
        assert_int_equal(num_ended, 9);
        for (int i = 0; i < 9; i++)
            check_cancelled(&outcomes[i], 0, 899);
    }
}

/* ---- What fails -------------------------------------------------------------------------------
 */

static atomic_int steps_until_failure; /* 0: none fails */
static const myelin_plugin *sound;

static myelin_status failing_forward(myelin_plugin_context *context, const myelin_span *spans,
                                     int32_t num_spans, myelin_error_buffer *buffer) {
    if (atomic_load(&steps_until_failure) > 0 && atomic_fetch_sub(&steps_until_failure, 1) == 1) {
        snprintf(buffer->text, buffer->size, "the device is gone");
        return MYELIN_ERROR_DEVICE;
    }
    return sound->forward(context, spans, num_spans, buffer);
}

static void test_failing_step(void **state) {
    (void)state;
    sound = tiny->model->plugin;
    myelin_plugin failing = *sound;
    failing.forward = failing_forward;
    failing.decode_greedy = NULL;
    tiny->model->plugin = &failing;
    myelin_serving *serving = start(2, 0, true);
    item it = endless(30);
    atomic_store(&steps_until_failure, 6);
    for (int i = 0; i < 2; i++)
        assert_ok(submit(serving, &outcomes[i], &it, 0), error);
    wait_for(2);
    for (int i = 0; i < 2; i++) {
        assert_true(outcomes[i].failed);
        assert_int_equal(outcomes[i].error.status, MYELIN_ERROR_DEVICE);
        assert_non_null(strstr(outcomes[i].error.message, "the device is gone"));
    }
    myelin_serving_stats failed = {.size = sizeof failed};
    myelin_serving_get_stats(serving, &failed);
    assert_true(failed.device_failed);
    for (int i = 0; i < 4; i++) /* it goes on */
        assert_ok(submit(serving, &outcomes[i], &items[1 + 3 * i], 0), error);
    wait_for(6);
    for (int i = 0; i < 4; i++)
        check_as_alone(&outcomes[i]);
    myelin_serving_stats stats = end(serving);
    assert_int_equal(stats.requests_failed, 2);
    assert_int_equal(stats.requests_done, 4);
    assert_false(stats.device_failed);
    tiny->model->plugin = sound;
}

/* Every allocation of start and of submit failing in turn, on this thread. */
static void test_failing_memory(void **state) {
    (void)state;
    myelin_serving *serving = NULL;
    myelin_status status = MYELIN_ERROR_MEMORY;
    uint64_t n = 0;
    for (; status != MYELIN_OK; mln_fail_allocation(0, false)) {
        n++;
        mln_fail_allocation(n, n % 2);
        status = myelin_serving_start(&serving, tiny, NULL, &error);
        assert_true(status == MYELIN_OK || status == MYELIN_ERROR_MEMORY);
        assert_true((status == MYELIN_OK) == (serving != NULL));
    }
    assert_true(n > 10);
    num_ended = 0;
    for (int i = 0; i < 7; i++) { /* in all forms */
        status = MYELIN_ERROR_MEMORY;
        for (n = 0; status != MYELIN_OK; mln_fail_allocation(0, false)) {
            n++;
            mln_fail_allocation(n, n % 2);
            status = submit(serving, &outcomes[i], &items[i], 0);
            assert_true(status == MYELIN_OK || status == MYELIN_ERROR_MEMORY);
        }
        assert_true(n > 4);
    }
    wait_for(7);
    for (int i = 0; i < 7; i++)
        check_as_alone(&outcomes[i]);
    assert_int_equal(end(serving).requests_done, 7);
}

/* A piece of an earlier request lets the worker's next allocations fail. */
static atomic_int allocation_to_fail;

static bool fail_next_allocation(void *user, const myelin_piece *piece) {
    if (((outcome *)user)->log.num_tokens == 0)
        mln_fail_allocation((uint64_t)atomic_load(&allocation_to_fail), false);
    return note_piece(user, piece);
}

static void test_failing_memory_of_the_worker(void **state) {
    (void)state;
    myelin_serving *serving = start(1, 0, true);
    int num_failed = 0;
    for (int n = 1; n < 40; n++) {
        atomic_store(&allocation_to_fail, n);
        num_ended = 0;
        item first = items[1];
        first.options.sync = MYELIN_SYNC_TOKEN;
        myelin_request request = request_of(&first);
        myelin_submission submission;
        myelin_submission_init(&submission);
        submission.request = &request;
        submission.emit = fail_next_allocation;
        submission.done = note_done;
        submission.user = &outcomes[0];
        outcomes[0] = (outcome){.item = &items[1], .expected_tag = &first};
        assert_ok(myelin_serving_submit(serving, &submission, NULL, &error), error);
        request = request_of(&items[6]);
        submission.emit = note_piece;
        submission.user = &outcomes[1];
        outcomes[1] = (outcome){.item = &items[6], .expected_tag = &items[6], .disarms = true};
        assert_ok(myelin_serving_submit(serving, &submission, NULL, &error), error);
        wait_for(2);
        if (outcomes[1].failed) {
            assert_int_equal(outcomes[1].error.status, MYELIN_ERROR_MEMORY);
            num_failed++;
        } else {
            check_as_alone(&outcomes[1]);
        }
        check_as_alone(&outcomes[0]);
    }
    assert_in_range(num_failed, 5, 35);
    (void)end(serving);
}

static void test_options(void **state) {
    (void)state;
    static const struct {
        size_t offset;
        int32_t value;
        const char *words;
    } bad[] = {
        {offsetof(myelin_serving_options, max_sequences), 0, "max_sequences: expected 1 to 1024"},
        {offsetof(myelin_serving_options, max_sequences), 1025, "max_sequences: expected 1"},
        {offsetof(myelin_serving_options, max_queue), -1, "max_queue: expected 0 to"},
        {offsetof(myelin_serving_options, step_tokens), 15, "step_tokens: expected 16 to"},
        {offsetof(myelin_serving_options, step_tokens), -1, "step_tokens: expected 16 to"},
    };
    myelin_serving *serving;
    myelin_serving_options options;
    for (size_t i = 0; i < COUNT(bad); i++) {
        myelin_serving_options_init(&options);
        memcpy((char *)&options + bad[i].offset, &bad[i].value, sizeof bad[i].value);
        assert_int_equal(myelin_serving_start(&serving, tiny, &options, &error),
                         MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, bad[i].words));
        assert_null(serving);
    }
    myelin_serving_options_init(&options);
    options.batch_timeout_ms = (double)NAN;
    assert_int_equal(myelin_serving_start(&serving, tiny, &options, &error), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "batch_timeout_ms"));
    options.batch_timeout_ms = 0;
    options.kv_bytes = 1;
    assert_int_equal(myelin_serving_start(&serving, tiny, &options, &error), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "kv_bytes: expected at least"));
    options.size = 0;
    assert_int_equal(myelin_serving_start(&serving, tiny, &options, &error), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "myelin_serving_options.size"));
}

/* An idle worker gives company time to arrive; with everyone there it does not wait. */
static void test_batch_timeout(void **state) {
    (void)state;
    myelin_serving *serving;
    myelin_serving_options options;
    myelin_serving_options_init(&options);
    options.max_sequences = 3;
    options.batch_timeout_ms = 50e3; /* far longer than a test may take */
    assert_ok(myelin_serving_start(&serving, tiny, &options, &error), error);
    num_ended = 0;
    for (int i = 0; i < 3; i++)
        assert_ok(submit(serving, &outcomes[i], &items[i], 0), error);
    wait_for(3);
    assert_ok(submit(serving, &outcomes[4], &items[4], 0), error);
    myelin_serving_cancel(serving, outcomes[4].id); /* nor then */
    wait_for(4);
    check_cancelled(&outcomes[4], 0, 0);
    assert_ok(submit(serving, &outcomes[3], &items[3], 0), error);
    (void)end(serving); /* draining ends the wait, too */
    for (int i = 0; i < 4; i++)
        check_as_alone(&outcomes[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_as_alone),
        cmocka_unit_test(test_random_cancels),
        cmocka_unit_test(test_cancel_in_every_state),
        cmocka_unit_test(test_cancel_by_callback),
        cmocka_unit_test(test_full_queue),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_calls_from_callbacks),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_requests_are_copied),
        cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_free_while_running),
        cmocka_unit_test(test_failing_step),
        cmocka_unit_test(test_failing_memory),
        cmocka_unit_test(test_failing_memory_of_the_worker),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_batch_timeout),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
