/* SPDX-License-Identifier: Apache-2.0 */
/* Four threads share one model: tokenizer, sessions of their own, batches, scores. */
#include <pthread.h>

#include "engine/support.h"
#include "support/temp_directory.h"

enum { THREADS = 4, ROUNDS = 2, TOKENS = 8 };

static char *directory;
static myelin_model *tiny;
static const char *const prompts[THREADS] = {"Once upon a time", "The capital of France",
                                             "<|im_start|>user\nhi<|im_end|>", "1 2 3 \xC3\xA9"};

/* What one thread finds; threads assert nothing themselves. */
typedef struct finding {
    const char *prompt;
    myelin_generation_options options;
    myelin_status status;
    myelin_error error;
    int32_t *ids;
    size_t num_ids;
    int num_requests;
    myelin_result first, second, batched;
    float logprobs[TOKENS];
    pthread_t thread;
} finding;

static int open_model(void **state) {
    (void)state;
    directory = make_tiny_directory();
    tiny = open_tiny(directory);
    return 0;
}

static int close_model(void **state) {
    (void)state;
    myelin_model_close(tiny);
    temp_directory_remove(directory);
    return 0;
}

static bool next_request(void *user, myelin_request *request) {
    finding *f = user;
    if (f->num_requests == 2)
        return false;
    f->num_requests++;
    request->options = &f->options;
    request->prompt_ids = f->ids;
    request->num_prompt_ids = f->num_ids;
    return true;
}

static bool request_done(void *user, void *tag, myelin_result *result, const myelin_error *error) {
    finding *f = user;
    (void)tag;
    if (!error && !f->batched.token_ids) {
        f->batched = *result;
        *result = (myelin_result){0};
    }
    return error == NULL;
}

static myelin_status investigate(finding *f) {
    const myelin_tokenizer *tokenizer = myelin_model_tokenizer(tiny);
    myelin_session *session = NULL;
    myelin_status status = myelin_tokenize(tokenizer, f->prompt, strlen(f->prompt), true, &f->ids,
                                           &f->num_ids, &f->error);
    if (status == MYELIN_OK)
        status = myelin_session_open(&session, tiny, 200, &f->error);
    if (status == MYELIN_OK)
        status = myelin_session_append(session, f->ids, f->num_ids, &f->error);
    if (status == MYELIN_OK)
        status = myelin_session_generate(session, NULL, NULL, &f->options, &f->first, &f->error);
    if (status == MYELIN_OK)
        status = myelin_session_generate(session, NULL, NULL, &f->options, &f->second, &f->error);
    if (status == MYELIN_OK && f->first.num_tokens > 1)
        status = myelin_score(tiny, f->first.token_ids, f->first.num_tokens, f->logprobs, 0, NULL,
                              NULL, &f->error);
    if (status == MYELIN_OK)
        status = myelin_batch_run(tiny, NULL, next_request, request_done, f, &f->error);
    myelin_session_close(session);
    return status;
}

static void *run_thread(void *argument) {
    finding *f = argument;
    f->status = investigate(f);
    return NULL;
}

static void clear(finding *f) {
    myelin_free(f->ids);
    myelin_result_clear(&f->first);
    myelin_result_clear(&f->second);
    myelin_result_clear(&f->batched);
}

static void assert_same_finding(const finding *a, const finding *b) {
    if (b->status != MYELIN_OK)
        fail_msg("%s", b->error.message);
    assert_int_equal(a->num_ids, b->num_ids);
    assert_memory_equal(a->ids, b->ids, a->num_ids * sizeof *a->ids);
    assert_same_result(&a->first, &b->first);
    assert_same_result(&a->second, &b->second);
    assert_same_result(&a->batched, &b->batched);
    assert_memory_equal(a->logprobs, b->logprobs, sizeof a->logprobs);
}

static void test_sharing_a_model(void **state) {
    (void)state;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        finding alone[THREADS] = {0}, together[THREADS] = {0};
        for (int i = 0; i < THREADS; i++) {
            alone[i].prompt = together[i].prompt = prompts[i];
            alone[i].options = options_for(TOKENS, round);
            alone[i].options.logprobs = true;
            together[i].options = alone[i].options;
            run_thread(&alone[i]);
            assert_int_equal(alone[i].status, MYELIN_OK);
            assert_non_null(alone[i].batched.token_ids);
        }
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&together[i].thread, NULL, run_thread, &together[i]),
                             0);
        for (int i = 0; i < THREADS; i++)
            pthread_join(together[i].thread, NULL);
        for (int i = 0; i < THREADS; i++) {
            assert_same_finding(&alone[i], &together[i]);
            clear(&alone[i]);
            clear(&together[i]);
        }
    }
}

/* Models open and close at the same time, too. */
static void *open_and_run(void *argument) {
    finding *f = argument;
    myelin_model *model;
    f->status = myelin_model_open(&model, directory, NULL, &f->error);
    if (f->status == MYELIN_OK)
        f->status = myelin_run(model, f->prompt, &f->options, &f->first, &f->error);
    myelin_model_close(model);
    return NULL;
}

static void test_opening_at_once(void **state) {
    (void)state;
    finding f[THREADS] = {0};
    for (int i = 0; i < THREADS; i++) {
        f[i].prompt = prompts[0];
        f[i].options = options_for(TOKENS, 1);
        assert_int_equal(pthread_create(&f[i].thread, NULL, open_and_run, &f[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(f[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(f[i].status, MYELIN_OK);
        assert_same_result(&f[0].first, &f[i].first);
    }
    for (int i = 0; i < THREADS; i++)
        clear(&f[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sharing_a_model),
        cmocka_unit_test(test_opening_at_once),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
