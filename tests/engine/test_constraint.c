/* SPDX-License-Identifier: Apache-2.0 */
/* Generations held to schemas and tools: with any seed, what ends by itself is in the language. */
#include <jansson.h>
#include <math.h>

#include "base/memory.h"
#include "engine/support.h"
#include "support/temp_directory.h"

static myelin_model *demo, *tiny;
static char *directory;

static int open_models(void **state) {
    (void)state;
    directory = make_tiny_directory();
    tiny = open_tiny(directory);
    demo = open_demo(2);
    return 0;
}

static int close_models(void **state) {
    (void)state;
    myelin_model_close(demo);
    myelin_model_close(tiny);
    temp_directory_remove(directory);
    return 0;
}

static const int32_t stop[] = {6258}; /* <|im_end|> */
static const char person[] =
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":8},\"age\":{"
    "\"type\":\"integer\",\"minimum\":0,\"maximum\":150}},\"required\":[\"name\",\"age\"]}";
static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":-9,\"maximum\":9},\"b\":{\"type\":"
    "\"integer\",\"minimum\":-9,\"maximum\":9}},\"required\":[\"a\",\"b\"]}}}]";
static const char hello[] = "[{\"role\":\"user\",\"content\":\"Hello!\"}]";

static myelin_constraint *of_schema(const myelin_model *model, const char *schema) {
    myelin_constraint *constraint = NULL;
    myelin_error error = {0};
    assert_ok(myelin_constraint_from_schema(&constraint, myelin_model_tokenizer(model), schema,
                                            strlen(schema), &error),
              error);
    return constraint;
}

static void assert_person(const char *text, size_t length) {
    json_t *value = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    if (!value)
        fail_msg("no JSON: %s", text);
    assert_int_equal(json_object_size(value), 2);
    assert_true(json_is_string(json_object_get(value, "name")));
    json_t *age = json_object_get(value, "age");
    assert_true(json_is_integer(age));
    assert_in_range(json_integer_value(age), 0, 150);
    json_decref(value);
}

static myelin_result run(myelin_model *model, const char *prompt, const char *messages,
                         const myelin_chat_options *chat,
                         const myelin_generation_options *options) {
    myelin_result result;
    myelin_error error = {0};
    myelin_request request = {.prompt = prompt,
                              .prompt_length = prompt ? strlen(prompt) : 0,
                              .messages = messages,
                              .messages_length = messages ? strlen(messages) : 0,
                              .chat = chat,
                              .options = options};
    assert_ok(myelin_complete(model, &request, NULL, NULL, &result, &error), error);
    return result;
}

static void any_seed_gives_the_schema(void **state) {
    (void)state;
    myelin_constraint *constraint = of_schema(tiny, person);
    int ended = 0;
    for (uint64_t seed = 0; seed <= 20; seed++) {
        myelin_generation_options options = options_for(150, seed);
        options.constraint = constraint;
        options.stop_ids = stop;
        options.num_stop_ids = seed % 2; /* without any the text ends all the same */
        myelin_result result = run(tiny, "x", NULL, NULL, &options);
        if (result.finish_reason == MYELIN_FINISH_STOP) {
            ended++;
            assert_person(result.text, result.text_length);
            if (seed % 2)
                assert_int_equal(result.token_ids[result.num_tokens - 1], 6258);
        }
        myelin_result_clear(&result);
    }
    assert_in_range(ended, 10, 21);
    myelin_constraint_free(constraint);
}

static void the_answer_follows_reasoning(void **state) {
    (void)state;
    myelin_constraint *constraint = of_schema(demo, person);
    for (int thinking = MYELIN_THINKING_AUTO; thinking <= MYELIN_THINKING_OFF; thinking++) {
        for (uint64_t seed = 0; seed < 3; seed++) {
            myelin_generation_options options = options_for(200, seed);
            myelin_chat_options chat;
            myelin_chat_options_init(&chat);
            chat.thinking = (myelin_thinking)thinking;
            options.constraint = constraint;
            options.thinking_budget = seed == 2 ? 4 : -1;
            myelin_result result = run(demo, NULL, hello, &chat, &options);
            assert_int_equal(result.finish_reason, MYELIN_FINISH_STOP);
            assert_person(result.turn->content, result.turn->content_length);
            if (thinking == MYELIN_THINKING_OFF)
                assert_int_equal(result.turn->reasoning_length, 0);
            if (thinking == MYELIN_THINKING_ON && seed == 0)
                assert_true(result.turn->reasoning_length > 0);
            myelin_result_clear(&result);
        }
    }
    myelin_constraint_free(constraint);
}

static void tools_are_called(void **state) {
    (void)state;
    myelin_error error = {0};
    for (int n = 0; n < 4; n++) {
        myelin_constraint *constraint;
        bool parallel = n % 2 == 1;
        assert_ok(myelin_constraint_from_tools(&constraint, myelin_model_tokenizer(demo), tools,
                                               sizeof tools - 1, n == 2 ? "add" : NULL, true,
                                               parallel, &error),
                  error);
        myelin_generation_options options = options_for(300, (uint64_t)n);
        myelin_chat_options chat;
        myelin_chat_options_init(&chat);
        chat.tools = tools;
        options.constraint = constraint;
        myelin_result result = run(demo, NULL, hello, &chat, &options);
        if (result.finish_reason == MYELIN_FINISH_STOP) {
            assert_in_range(result.turn->num_tool_calls, 1, parallel ? 256 : 1);
            assert_int_equal(result.turn->num_warnings, 0);
            assert_int_equal(result.turn->content_length, 0);
            json_t *arguments = json_loads(result.turn->tool_calls[0].arguments, 0, NULL);
            assert_string_equal(result.turn->tool_calls[0].name, "add");
            assert_in_range(json_integer_value(json_object_get(arguments, "a")) + 9, 0, 18);
            assert_int_equal(json_object_size(arguments), 2);
            json_decref(arguments);
        } else {
            assert_true(parallel); /* which need not come to an end */
        }
        myelin_result_clear(&result);
        myelin_constraint_free(constraint);
    }
}

typedef struct queue {
    const myelin_generation_options *options;
    int begun, done;
    char *texts[4];
} queue;

static bool next(void *user, myelin_request *request) {
    queue *q = user;
    if (q->begun == 4)
        return false;
    request->prompt = "x";
    request->prompt_length = 1;
    request->options = &q->options[q->begun];
    request->tag = &q->texts[q->begun++];
    return true;
}

static bool done(void *user, void *tag, myelin_result *result, const myelin_error *error) {
    queue *q = user;
    if (!result)
        fail_msg("%s", error->message);
    *(char **)tag = strdup(result->text);
    q->done++;
    return true;
}

static void batches_are_held_like_single_runs(void **state) {
    (void)state;
    myelin_constraint *constraint = of_schema(tiny, person);
    myelin_generation_options options[4];
    myelin_error error = {0};
    queue q = {.options = options};
    for (uint64_t i = 0; i < 4; i++) {
        options[i] = options_for(60, i);
        options[i].constraint = i == 2 ? NULL : constraint;
        options[i].stop_ids = stop;
        options[i].num_stop_ids = 0;
    }
    assert_ok(myelin_batch_run(tiny, NULL, next, done, &q, &error), error);
    assert_int_equal(q.done, 4);
    for (int i = 0; i < 4; i++) {
        myelin_result result = run(tiny, "x", NULL, NULL, &options[i]);
        assert_string_equal(result.text, q.texts[i]);
        myelin_result_clear(&result);
        free(q.texts[i]);
    }
    myelin_constraint_free(constraint);
}

static void bias_does_not_push_out_of_the_language(void **state) {
    (void)state;
    myelin_constraint *constraint = of_schema(tiny, "{\"enum\":[\"yes\"]}");
    enum { VOCAB = 6282 };
    myelin_logit_bias *ban = malloc(VOCAB * sizeof *ban);
    for (int32_t id = 0; id < VOCAB; id++)
        ban[id] = (myelin_logit_bias){id, -INFINITY};
    for (uint64_t seed = 0; seed < 2; seed++) {
        myelin_generation_options options = options_for(20, seed);
        options.constraint = constraint;
        options.logit_bias = ban;
        options.num_logit_bias = VOCAB;
        options.stop_ids = stop;
        options.num_stop_ids = 1;
        myelin_result result = run(tiny, "x", NULL, NULL, &options);
        assert_string_equal(result.text, "\"yes\"");
        myelin_result_clear(&result);
    }
    free(ban);
    myelin_constraint_free(constraint);
}

static void wrong_arguments_are_refused(void **state) {
    (void)state;
    myelin_constraint *constraint;
    myelin_error error;
    const myelin_tokenizer *tokenizer = myelin_model_tokenizer(tiny);
    assert_int_equal(myelin_constraint_from_schema(&constraint, tokenizer, "{", 1, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(error.status, MYELIN_ERROR_ARGUMENT);
    assert_null(constraint);
    assert_int_equal(myelin_constraint_from_schema(&constraint, NULL, "{}", 2, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(
        myelin_constraint_from_schema(&constraint, tokenizer, "{\"not\":{}}", 10, &error),
        MYELIN_ERROR_ARGUMENT);
    assert_string_equal(error.message, "schema keyword \"not\" at #/not: not supported");
    assert_int_equal(
        myelin_constraint_from_tools(&constraint, tokenizer, "[]", 2, NULL, true, true, &error),
        MYELIN_ERROR_ARGUMENT);
    myelin_constraint_free(NULL);
    /* stop ids that are all the tokens a text could begin with */
    static const char empty[] = "{\"type\":\"array\",\"maxItems\":0}";
    constraint = of_schema(tiny, empty);
    myelin_generation_options options = options_for(5, 0);
    int32_t ids[64];
    options.constraint = constraint;
    options.stop_ids = ids;
    for (int32_t id = 0; id < 6282; id++) {
        int32_t one = id;
        char *text;
        size_t length;
        assert_ok(myelin_detokenize(tokenizer, &one, 1, true, &text, &length, &error), error);
        if (length && text[0] == '[')
            ids[options.num_stop_ids++] = id;
        myelin_free(text);
    }
    myelin_result result;
    myelin_request request = {.prompt = "x", .prompt_length = 1, .options = &options};
    assert_int_equal(myelin_complete(tiny, &request, NULL, NULL, &result, &error),
                     MYELIN_ERROR_ARGUMENT);
    myelin_constraint_free(constraint);
}

static void failing_memory_is_an_error(void **state) {
    (void)state;
    myelin_constraint *constraint = of_schema(tiny, person);
    myelin_generation_options options = options_for(5, 0);
    options.constraint = constraint;
    myelin_request request = {.prompt = "x", .prompt_length = 1, .options = &options};
    uint64_t n = 0;
    for (bool finished = false; !finished;) {
        myelin_result result;
        n++;
        mln_fail_allocation(n, true);
        myelin_status status = myelin_complete(tiny, &request, NULL, NULL, &result, NULL);
        finished = mln_fail_allocation(0, false) < n;
        assert_int_equal(status, finished ? MYELIN_OK : MYELIN_ERROR_MEMORY);
        myelin_result_clear(&result);
    }
    myelin_constraint_free(constraint);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_seed_gives_the_schema),
                                       cmocka_unit_test(the_answer_follows_reasoning),
                                       cmocka_unit_test(tools_are_called),
                                       cmocka_unit_test(batches_are_held_like_single_runs),
                                       cmocka_unit_test(bias_does_not_push_out_of_the_language),
                                       cmocka_unit_test(wrong_arguments_are_refused),
                                       cmocka_unit_test(failing_memory_is_an_error)};
    return cmocka_run_group_tests(tests, open_models, close_models);
}
