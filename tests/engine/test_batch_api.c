/* SPDX-License-Identifier: Apache-2.0 */
/* Many requests at once: each result is the one it has alone, whatever runs beside it. */
#include <stdio.h>

#include "engine/support.h"
#include "support/temp_directory.h"

enum { REQUESTS = 24, MOST_IDS = 300 };

static char *directory;
static myelin_model *tiny;
static myelin_error error;

/* One request, what came of it alone, and what came of it in the batch. */
typedef struct item {
    int32_t ids[MOST_IDS];
    size_t num_ids;
    char text[64]; /* the prompt, when num_ids is 0 */
    myelin_generation_options options;
    myelin_result expected, found;
    myelin_error found_error;
    int done;
} item;

typedef struct queue {
    item *items;
    size_t count, next, num_done;
    size_t stop_after; /* done() returns false from here on; 0: never */
} queue;

static item items[REQUESTS];
static const char *const stops[] = {"the", "a", "\n"};

static myelin_generation_options options_of(uint32_t i) {
    myelin_generation_options o = options_for(1 + (int32_t)(i * 7 % 30), i % 4);
    o.logprobs = i % 2 == 0;
    o.top_logprobs = (int32_t)(i % 5);
    if (i % 4 == 1)
        o.top_p = 0.8;
    if (i % 4 == 2) {
        o.repetition_penalty = 1.3;
        o.min_p = 0.01;
    }
    if (i % 6 == 3) {
        o.stop_strings = stops;
        o.num_stop_strings = COUNT(stops);
    }
    if (i % 8 == 5)
        o.max_len = 290;
    return o;
}

static int open_model(void **state) {
    (void)state;
    uint32_t random = 77;
    directory = make_tiny_directory();
    tiny = open_tiny(directory);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        item *it = &items[i];
        it->options = options_of(i);
        snprintf(it->text, sizeof it->text, "Request %u says: once", i);
        if (i % 3) {
            it->num_ids = i % 3 == 1 ? 1 + i : 260 + i; /* some longer than two steps */
            for (size_t k = 0; k < it->num_ids; k++)
                it->ids[k] = (int32_t)next_random(&random, 6200);
            run_ids(tiny, it->ids, it->num_ids, &it->options, &it->expected);
        } else {
            assert_ok(myelin_run(tiny, it->text, &it->options, &it->expected, &error), error);
        }
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

static bool next_item(void *user, myelin_request *request) {
    queue *q = user;
    static const myelin_request zeroed;
    assert_memory_equal(request, &zeroed, sizeof zeroed);
    if (q->next == q->count)
        return false;
    item *it = &q->items[q->next++];
    it->done = 0;
    request->options = &it->options;
    request->tag = it;
    if (it->num_ids) {
        request->prompt_ids = it->ids;
        request->num_prompt_ids = it->num_ids;
    } else {
        request->prompt = it->text;
        request->prompt_length = strlen(it->text);
    }
    return true;
}

/* Takes every other result over; copies nothing of the others, but checks them. */
static bool item_done(void *user, void *tag, myelin_result *result, const myelin_error *failure) {
    queue *q = user;
    item *it = tag;
    assert_int_equal(it->done++, 0);
    assert_true((result == NULL) == (failure != NULL));
    q->num_done++;
    if (failure) {
        it->found_error = *failure;
    } else if (result->finish_reason == MYELIN_FINISH_CANCELLED || (it - q->items) % 2) {
        it->found = *result;
        *result = (myelin_result){0};
    } else {
        assert_same_result(result, &it->expected);
        assert_int_equal(result->cached_tokens, 0);
    }
    return q->stop_after == 0 || q->num_done < q->stop_after;
}

static void test_each_as_alone(void **state) {
    (void)state;
    static const int32_t widths[] = {1, 3, 8, 16, 1024};
    for (size_t w = 0; w < COUNT(widths); w++) {
        queue q = {.items = items, .count = REQUESTS};
        myelin_batch_options options;
        myelin_batch_options_init(&options);
        options.max_sequences = widths[w];
        assert_ok(myelin_batch_run(tiny, &options, next_item, item_done, &q, &error), error);
        assert_int_equal(q.num_done, REQUESTS);
        for (int i = 0; i < REQUESTS; i++) {
            assert_int_equal(items[i].done, 1);
            if (i % 2)
                assert_same_result(&items[i].found, &items[i].expected);
            myelin_result_clear(&items[i].found);
        }
    }
}

static void test_bad_requests_among_good(void **state) {
    (void)state;
    queue q = {.items = items, .count = REQUESTS};
    item saved[REQUESTS];
    memcpy(saved, items, sizeof items);
    items[1].ids[0] = 6282;
    items[4].options.max_new_tokens = 0;
    items[5].options.max_len = 10;
    strcpy(items[6].text, "");
    strcpy(items[9].text, "\xFF");
    items[23].options.size = 0;
    static const size_t bad[] = {1, 4, 5, 6, 9, 23};
    static const char *const words[] = {"token id 6282", "max_new_tokens", "max_len",
                                        "empty",         "UTF-8",          "size"};
    assert_ok(myelin_batch_run(tiny, NULL, next_item, item_done, &q, &error), error);
    assert_int_equal(q.num_done, REQUESTS);
    for (size_t b = 0; b < COUNT(bad); b++) {
        const item *it = &items[bad[b]];
        assert_int_equal(it->found_error.status,
                         bad[b] == 5 ? MYELIN_ERROR_CACHE_FULL : MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(it->found_error.message, words[b]));
        assert_null(it->found.token_ids);
    }
    for (int i = 1; i < REQUESTS; i += 2) {
        if (items[i].found_error.status == MYELIN_OK)
            assert_same_result(&items[i].found, &items[i].expected);
        myelin_result_clear(&items[i].found);
    }
    memcpy(items, saved, sizeof items);
}

static void test_stopping(void **state) {
    (void)state;
    for (size_t stop_after = 1; stop_after < 12; stop_after += 5) {
        queue q = {.items = items, .count = REQUESTS, .stop_after = stop_after};
        myelin_batch_options options;
        myelin_batch_options_init(&options);
        options.max_sequences = 4;
        assert_ok(myelin_batch_run(tiny, &options, next_item, item_done, &q, &error), error);
        /* Nothing new began, and all that had begun was reported. */
        assert_true(q.next < REQUESTS);
        assert_int_equal(q.num_done, q.next);
        assert_true(q.num_done >= stop_after && q.num_done < stop_after + 4);
        size_t cancelled = 0;
        for (size_t i = 0; i < q.next; i++) {
            const myelin_result *r = &items[i].found, *e = &items[i].expected;
            assert_int_equal(items[i].done, 1);
            if (r->token_ids && r->finish_reason == MYELIN_FINISH_CANCELLED) {
                assert_true(r->num_tokens < e->num_tokens);
                assert_memory_equal(r->token_ids, e->token_ids, r->num_tokens * sizeof(int32_t));
                cancelled++;
            }
            myelin_result_clear(&items[i].found);
        }
        assert_true(cancelled > 0);
    }
}

static bool always(void *user) {
    return ++*(int *)user > 10;
}

static void test_cancelling_one(void **state) {
    (void)state;
    queue q = {.items = items, .count = REQUESTS};
    myelin_generation_options saved = items[11].options;
    int asked = 0;
    items[11].options.cancelled = always;
    items[11].options.cancel_user = &asked;
    assert_true(items[11].expected.num_tokens > 12);
    assert_ok(myelin_batch_run(tiny, NULL, next_item, item_done, &q, &error), error);
    assert_int_equal(items[11].found.finish_reason, MYELIN_FINISH_CANCELLED);
    for (int i = 1; i < REQUESTS; i += 2) {
        if (i != 11)
            assert_same_result(&items[i].found, &items[i].expected);
        myelin_result_clear(&items[i].found);
    }
    items[11].options = saved;
}

static void test_nothing_to_do(void **state) {
    (void)state;
    queue q = {.items = items, .count = 0};
    assert_ok(myelin_batch_run(tiny, NULL, next_item, item_done, &q, &error), error);
    assert_int_equal(q.num_done, 0);
}

static void test_batch_options(void **state) {
    (void)state;
    queue q = {.items = items, .count = REQUESTS};
    myelin_batch_options options;
    myelin_batch_options_init(&options);
    assert_int_equal(options.size, sizeof options);
    assert_int_equal(options.max_sequences, 8);
    static const int32_t bad[] = {0, -1, INT32_MIN, 1025, INT32_MAX};
    for (size_t i = 0; i < COUNT(bad); i++) {
        options.max_sequences = bad[i];
        assert_int_equal(myelin_batch_run(tiny, &options, next_item, item_done, &q, &error),
                         MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "max_sequences: expected 1 to 1024"));
    }
    static const size_t bad_size[] = {0, sizeof options + 8, SIZE_MAX};
    for (size_t i = 0; i < COUNT(bad_size); i++) {
        options.size = bad_size[i];
        assert_int_equal(myelin_batch_run(tiny, &options, next_item, item_done, &q, &error),
                         MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "myelin_batch_options.size"));
    }
    assert_int_equal(q.next, 0);
    assert_int_equal(q.num_done, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_as_alone), cmocka_unit_test(test_bad_requests_among_good),
        cmocka_unit_test(test_stopping),      cmocka_unit_test(test_cancelling_one),
        cmocka_unit_test(test_nothing_to_do), cmocka_unit_test(test_batch_options),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
