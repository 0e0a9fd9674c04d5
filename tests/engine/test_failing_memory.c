/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call of the API with each of its allocations failing in turn, alone or with all after it:
 * MYELIN_ERROR_MEMORY, nothing leaked (the sanitizers tell), and the next try succeeds.
 */
#include "base/memory.h"
#include "engine/support.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

/* Ids 0 to 9: single letters, a word, a control token. */
static const char tokenizer_json[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":9,\"content\":\"<|end|>\",\"single_word\":"
    "false,"
    "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}],"
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{L}+|\\\\s+\"},\"behavior\":\"Isolated\","
    "\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,"
    "\"use_regex\":false}]},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":false,\"trim_offsets\":false,\"use_regex\":false},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"e\":4,"
    "\"\xC4\xA0\":5,\"ab\":6,\"abc\":7,\"de\":8},\"merges\":[\"a b\",\"ab c\",\"d e\"]}}";

static char *directory;
static myelin_model *model; /* opened before any allocation fails */

static int open_model(void **state) {
    (void)state;
    directory = temp_directory_make();
    checkpoint_spec spec = checkpoint_spec_default();
    spec.hidden = 16;
    spec.layers = 1;
    spec.shards = 2;
    built_checkpoint *built = builder_make(&spec);
    builder_write(built, directory);
    builder_free(built);
    temp_write(directory, "tokenizer.json", tokenizer_json, sizeof tokenizer_json - 1);
    model = open_tiny(directory);
    return 0;
}

static int close_model(void **state) {
    (void)state;
    myelin_model_close(model);
    temp_directory_remove(directory);
    return 0;
}

static void walk(const char *what, myelin_status (*call)(myelin_error *error), uint64_t least) {
    for (int sticky = 0; sticky < 2; sticky++) {
        uint64_t n = 0;
        for (myelin_status status = MYELIN_ERROR_MEMORY; status != MYELIN_OK;) {
            myelin_error error = {0};
            mln_fail_allocation(++n, sticky);
            status = call(&error);
            uint64_t made = mln_fail_allocation(0, false);
            if (status != MYELIN_OK && status != MYELIN_ERROR_MEMORY)
                fail_msg("%s: allocation %d failing: status %d (%s)", what, (int)n, (int)status,
                         error.message);
            if (status != MYELIN_OK) {
                assert_int_equal(error.status, MYELIN_ERROR_MEMORY);
                if (!strstr(error.message, "could not allocate"))
                    fail_msg("%s: allocation %d failing: %s", what, (int)n, error.message);
            } else if (made >= n) {
                status = MYELIN_ERROR_MEMORY; /* it did without; there are more to fail */
            }
            assert_true(n < 5000);
        }
        if (n <= least)
            fail_msg("%s made only %d allocations: is it the right thing?", what, (int)n - 1);
    }
}

static myelin_status open_a_model(myelin_error *error) {
    myelin_model *another;
    myelin_status status = myelin_model_open(&another, directory, NULL, error);
    assert_true((status == MYELIN_OK) == (another != NULL));
    myelin_model_close(another);
    return status;
}

static myelin_status open_a_checkpoint(myelin_error *error) {
    myelin_checkpoint *checkpoint;
    myelin_status status = myelin_checkpoint_open(&checkpoint, directory, error);
    assert_true((status == MYELIN_OK) == (checkpoint != NULL));
    myelin_checkpoint_close(checkpoint);
    return status;
}

static myelin_status open_a_tokenizer(myelin_error *error) {
    myelin_tokenizer *tokenizer;
    myelin_status status = myelin_tokenizer_open(&tokenizer, directory, error);
    assert_true((status == MYELIN_OK) == (tokenizer != NULL));
    myelin_tokenizer_close(tokenizer);
    return status;
}

static myelin_status tokenize(myelin_error *error) {
    int32_t *ids;
    size_t count;
    myelin_status status = myelin_tokenize(myelin_model_tokenizer(model), "abc de<|end|>a", 14,
                                           true, &ids, &count, error);
    assert_int_equal(count, status == MYELIN_OK ? 5 : 0);
    assert_true((status == MYELIN_OK) == (ids != NULL));
    myelin_free(ids);
    return status;
}

static myelin_status detokenize(myelin_error *error) {
    static const int32_t ids[] = {7, 5, 8};
    char *text;
    size_t length;
    myelin_status status = myelin_detokenize(myelin_model_tokenizer(model), ids, COUNT(ids), true,
                                             &text, &length, error);
    if (status == MYELIN_OK)
        assert_string_equal(text, "abc de");
    else
        assert_null(text);
    myelin_free(text);
    return status;
}

static const myelin_logit_bias bias[] = {{3, 1}, {4, -1}};
static const char *const stops[] = {"nowhere"};
static const int32_t none[1];

static myelin_generation_options everything(void) {
    myelin_generation_options options = options_for(6, 3);
    options.logprobs = true;
    options.top_logprobs = 4;
    options.logit_bias = bias;
    options.num_logit_bias = COUNT(bias);
    options.stop_strings = stops;
    options.num_stop_strings = 1;
    options.stop_ids = none;
    options.repetition_penalty = 1.1;
    options.top_p = 0.9;
    return options;
}

static myelin_status run(myelin_error *error) {
    myelin_generation_options options = everything();
    myelin_result result;
    myelin_status status = myelin_run(model, "abc de", &options, &result, error);
    assert_true((status == MYELIN_OK) == (result.text != NULL));
    assert_true((status == MYELIN_OK) == (result.token_ids != NULL));
    myelin_result_clear(&result);
    return status;
}

static myelin_status use_a_session(myelin_error *error) {
    myelin_generation_options options = everything();
    myelin_session *session;
    myelin_result result = {0};
    myelin_status status = myelin_session_open(&session, model, 40, error);
    assert_true((status == MYELIN_OK) == (session != NULL));
    if (status == MYELIN_OK)
        status = myelin_session_append_text(session, "de abc", 6, true, error);
    if (status == MYELIN_OK)
        status = myelin_session_generate(session, NULL, NULL, &options, &result, error);
    myelin_result_clear(&result);
    /* After a failure the session still works. */
    size_t held = 0;
    if (session)
        myelin_session_tokens(session, &held);
    if (status != MYELIN_OK && held > 0) {
        mln_fail_allocation(0, false);
        assert_int_equal(myelin_session_generate(session, NULL, NULL, &options, &result, NULL),
                         MYELIN_OK);
        assert_int_equal(result.num_tokens, 6);
        myelin_result_clear(&result);
    }
    myelin_session_close(session);
    return status;
}

static myelin_status score(myelin_error *error) {
    static const int32_t ids[] = {7, 5, 8};
    int32_t top_ids[2];
    float logprobs[2], top_logprobs[2];
    return myelin_score(model, ids, COUNT(ids), logprobs, 2, top_ids, top_logprobs, error);
}

static myelin_status embed(myelin_error *error) {
    static const int32_t ids[] = {7, 5, 8};
    float embedding[16];
    return myelin_embed(model, ids, COUNT(ids), embedding, error);
}

/* A batch reports its requests' failures one by one; the first becomes the walk's. */
typedef struct requests {
    myelin_generation_options options;
    int begun, ended;
    myelin_error failure;
} requests;

static bool next_request(void *user, myelin_request *request) {
    requests *r = user;
    if (r->begun == 3)
        return false;
    r->begun++;
    request->prompt = "abc de";
    request->prompt_length = 6;
    request->options = &r->options;
    return true;
}

static bool request_done(void *user, void *tag, myelin_result *result, const myelin_error *error) {
    requests *r = user;
    (void)tag;
    r->ended++;
    if (error && r->failure.status == MYELIN_OK)
        r->failure = *error;
    assert_true(error || result->num_tokens == 6);
    return true;
}

static myelin_status run_a_batch(myelin_error *error) {
    requests r = {.options = everything()};
    myelin_batch_options options;
    myelin_batch_options_init(&options);
    options.max_sequences = 2;
    myelin_status status = myelin_batch_run(model, &options, next_request, request_done, &r, error);
    assert_int_equal(r.begun, status == MYELIN_OK ? 3 : 0);
    assert_int_equal(r.ended, r.begun);
    if (status == MYELIN_OK && r.failure.status != MYELIN_OK) {
        *error = r.failure;
        return r.failure.status;
    }
    return status;
}

static void test_walks(void **state) {
    (void)state;
    walk("myelin_checkpoint_open", open_a_checkpoint, 10);
    walk("myelin_tokenizer_open", open_a_tokenizer, 10);
    walk("myelin_model_open", open_a_model, 20);
    walk("myelin_tokenize", tokenize, 1);
    walk("myelin_detokenize", detokenize, 1);
    walk("myelin_run", run, 10);
    walk("a session", use_a_session, 10);
    walk("myelin_score", score, 5);
    walk("myelin_embed", embed, 5);
    walk("myelin_batch_run", run_a_batch, 15);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_walks)};
    return cmocka_run_group_tests(tests, open_model, close_model);
}
