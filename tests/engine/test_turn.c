/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An assistant's turn through the API: what the events say is what the result says in every mode of
 * handing over, budgets close reasoning, and structs render as their JSON does.
 */
#include <jansson.h>
#include <stdio.h>

#include "base/memory.h"
#include "engine/support.h"
#include "engine/turn.h"

static myelin_model *demo;
static myelin_error error;

static int open_model(void **state) {
    (void)state;
    demo = open_demo(2);
    return 0;
}

static int close_model(void **state) {
    (void)state;
    myelin_model_close(demo);
    return 0;
}

/* The events of a turn put together. */
typedef struct event_log {
    mln_buffer reasoning, content, calls;
    size_t num_calls, num_warnings, num_events;
    size_t stop_at; /* events after which to cancel; 0: never */
} event_log;

static void append(mln_buffer *buffer, const char *text, size_t length) {
    assert_true(mln_buffer_append(buffer, text, length));
}

static bool log_events(void *user, const myelin_piece *piece) {
    event_log *log = user;
    for (size_t i = 0; i < piece->num_events; i++) {
        const myelin_turn_event *e = &piece->events[i];
        log->num_events++;
        switch (e->kind) {
        case MYELIN_TURN_REASONING:
            assert_true(e->length > 0);
            append(&log->reasoning, e->text, e->length);
            break;
        case MYELIN_TURN_CONTENT:
            assert_true(e->length > 0);
            append(&log->content, e->text, e->length);
            break;
        case MYELIN_TURN_TOOL_CALL:
            log->num_calls++;
            append(&log->calls, e->name, strlen(e->name));
            append(&log->calls, e->text, e->length);
            break;
        case MYELIN_TURN_WARNING:
            log->num_warnings++;
            break;
        }
    }
    return log->stop_at == 0 || log->num_events < log->stop_at;
}

static void clear_log(event_log *log) {
    mln_buffer_free(&log->reasoning);
    mln_buffer_free(&log->content);
    mln_buffer_free(&log->calls);
    *log = (event_log){0};
}

static void assert_text(const char *text, size_t length, const mln_buffer *logged) {
    assert_int_equal(strlen(text), length);
    assert_int_equal(length, logged->length);
    assert_memory_equal(text, logged->data ? logged->data : "", length);
}

static void assert_log_is_turn(const event_log *log, const myelin_turn *turn) {
    mln_buffer calls = {0};
    assert_text(turn->reasoning, turn->reasoning_length, &log->reasoning);
    assert_text(turn->content, turn->content_length, &log->content);
    assert_int_equal(turn->num_tool_calls, log->num_calls);
    assert_int_equal(turn->num_warnings, log->num_warnings);
    for (size_t i = 0; i < turn->num_tool_calls; i++) {
        append(&calls, turn->tool_calls[i].name, strlen(turn->tool_calls[i].name));
        append(&calls, turn->tool_calls[i].arguments, strlen(turn->tool_calls[i].arguments));
    }
    assert_text(calls.data ? calls.data : "", calls.length, &log->calls);
    mln_buffer_free(&calls);
}

static void assert_same_turn(const myelin_turn *a, const myelin_turn *b) {
    assert_string_equal(a->reasoning, b->reasoning);
    assert_string_equal(a->content, b->content);
    assert_int_equal(a->num_tool_calls, b->num_tool_calls);
    for (size_t i = 0; i < a->num_tool_calls; i++) {
        assert_string_equal(a->tool_calls[i].name, b->tool_calls[i].name);
        assert_string_equal(a->tool_calls[i].arguments, b->tool_calls[i].arguments);
    }
}

typedef struct question {
    char *messages, *tools;
    myelin_chat_options chat;
    myelin_generation_options options;
} question;

static void complete(const question *q, event_log *log, myelin_result *result) {
    myelin_request request = {.messages = q->messages,
                              .messages_length = strlen(q->messages),
                              .chat = &q->chat,
                              .options = &q->options};
    assert_ok(myelin_complete(demo, &request, log ? log_events : NULL, log, result, &error), error);
    assert_non_null(result->turn);
}

static char *dump(const json_t *value) {
    return json_is_array(value) ? json_dumps(value, 0) : NULL;
}

static void question_of(const json_t *line, question *q) {
    *q = (question){.messages = dump(json_object_get(line, "messages")),
                    .tools = dump(json_object_get(line, "tools"))};
    myelin_chat_options_init(&q->chat);
    q->chat.tools = q->tools;
    q->chat.thinking = json_is_true(json_object_get(line, "enable_thinking")) ? MYELIN_THINKING_ON
                                                                              : MYELIN_THINKING_OFF;
    q->options = options_for(300, 0);
    q->options.max_len = 4096;
}

static void free_question(question *q) {
    free(q->messages);
    free(q->tools);
}

/* How often a line of the reference writes a tag. */
static size_t count_in(const char *text, const char *tag) {
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, tag)) != NULL; at += strlen(tag))
        count++;
    return count;
}

/* One conversation in so many is tried; in all modes. */
enum { SHARE = 3, SANITIZED_SHARE = 48, MODES_SHARE = 24 };

static bool is_sanitized(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

/*
 * The same turn whatever the mode of handing over, streamed or not. In a session, which reads the
 * prompt once. A sanitizer, to which a token is dear, sees every second mode, now these, now those.
 */
static void check_modes(question *q, const myelin_turn *expected) {
    static const int32_t lengths[] = {1, 2, 5, 31};
    static int calls;
    int first = is_sanitized() ? calls++ % 2 : 0, step = is_sanitized() ? 2 : 1;
    myelin_session *session;
    assert_ok(myelin_session_open(&session, demo, q->options.max_len, &error), error);
    for (int mode = first; mode < 8; mode += step) {
        q->options.sync = mode == 6   ? MYELIN_SYNC_TOKEN
                          : mode == 7 ? MYELIN_SYNC_END
                                      : MYELIN_SYNC_CHUNK;
        q->options.sync_tokens = lengths[mode % 4];
        q->options.stream_mode = mode >= 4 ? MYELIN_STREAM_STABLE : MYELIN_STREAM_TOKEN;
        event_log log = {0};
        myelin_result result;
        assert_ok(
            myelin_session_set_chat(session, q->messages, strlen(q->messages), &q->chat, &error),
            error);
        assert_ok(myelin_session_generate(session, log_events, &log, &q->options, &result, &error),
                  error);
        assert_log_is_turn(&log, result.turn);
        assert_same_turn(result.turn, expected);
        myelin_result_clear(&result);
        clear_log(&log);
    }
    myelin_session_close(session);
}

/* Conversations of the reference: what the turn holds is what was generated, taken apart. */
static void turns_of_the_reference(void **state) {
    (void)state;
    FILE *file = fopen(MYELIN_DEMO_MODEL "/eval.jsonl", "r");
    assert_non_null(file);
    size_t seen = 0, reasoned = 0, called = 0, expected_calls = 0;
    json_t *line;
    while ((line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
        question q;
        question_of(line, &q);
        if (q.messages && seen++ % (is_sanitized() ? SANITIZED_SHARE : SHARE) == 0) {
            const char *output = json_string_value(json_object_get(line, "output"));
            event_log log = {0};
            myelin_result result;
            complete(&q, &log, &result);
            assert_log_is_turn(&log, result.turn);
            assert_int_equal(result.turn->num_warnings, 0);
            if (count_in(output, "</think>") && !count_in(output, "<think>\n\n</think>")) {
                assert_true(result.turn->reasoning_length > 0);
                assert_non_null(strstr(output, result.turn->reasoning));
                reasoned++;
            }
            expected_calls += count_in(output, "<tool_call>");
            called += result.turn->num_tool_calls;
            if (result.turn->content_length)
                assert_non_null(strstr(output, result.turn->content));
            assert_null(strstr(result.turn->content, "think>"));
            assert_null(strstr(result.turn->content, "tool_call"));
            if (seen % MODES_SHARE == 1)
                check_modes(&q, result.turn);
            myelin_result_clear(&result);
            clear_log(&log);
        }
        free_question(&q);
        json_decref(line);
    }
    fclose(file);
    assert_int_equal(seen, 288);
    assert_int_equal(called, expected_calls);
    if (!is_sanitized()) {
        assert_true(called > 10);
        assert_true(reasoned > 20);
    }
}

/* A question the demo model reasons about. */
static question thinking_question(void) {
    question q = {.messages =
                      strdup("[{\"role\": \"user\", \"content\": \"What is 17 plus 25?\"}]")};
    assert_non_null(q.messages);
    myelin_chat_options_init(&q.chat);
    q.chat.thinking = MYELIN_THINKING_ON;
    q.options = options_for(200, 0);
    return q;
}

static void a_budget_closes_the_block(void **state) {
    (void)state;
    question q = thinking_question();
    myelin_result free_run, closed;
    complete(&q, NULL, &free_run);
    size_t longest = free_run.turn->reasoning_length;
    assert_true(longest > 0);
    static const int32_t budgets[] = {0, 1, 2, 3, 5};
    for (size_t i = 0; i < COUNT(budgets); i++) {
        q.options.thinking_budget = budgets[i];
        complete(&q, NULL, &closed);
        assert_true(closed.turn->reasoning_length < longest);
        assert_memory_equal(closed.turn->reasoning, free_run.turn->reasoning,
                            closed.turn->reasoning_length);
        assert_true(budgets[i] > 0 || closed.turn->reasoning_length == 0);
        assert_true(closed.reasoning_tokens >= budgets[i]);
        assert_true(closed.reasoning_tokens < free_run.reasoning_tokens);
        assert_non_null(strstr(closed.text, "\n</think>\n\n"));
        assert_true(closed.turn->content_length > 0); /* and goes on to an answer */
        assert_int_equal(closed.finish_reason, MYELIN_FINISH_STOP);
        check_modes(&q, closed.turn);
        q.options.sync = MYELIN_SYNC_CHUNK;
        q.options.stream_mode = MYELIN_STREAM_TOKEN;
        myelin_result_clear(&closed);
    }
    q.options.thinking_budget = 10000; /* more than it needs: nothing changes */
    complete(&q, NULL, &closed);
    assert_string_equal(closed.text, free_run.text);
    myelin_result_clear(&closed);
    q.chat.thinking = MYELIN_THINKING_OFF; /* no block: nothing to close */
    q.options.thinking_budget = 0;
    complete(&q, NULL, &closed);
    assert_null(strstr(closed.text, "think"));
    assert_int_equal(closed.reasoning_tokens, 0);
    myelin_result_clear(&closed);
    myelin_result_clear(&free_run);
    free_question(&q);
}

static bool take_request(void *user, myelin_request *request) {
    myelin_request *left = user;
    if (!left->messages)
        return false;
    *request = *left;
    left->messages = NULL;
    return true;
}

static char *batch_text;

static bool keep_text(void *user, void *tag, myelin_result *result, const myelin_error *failed) {
    (void)user;
    (void)tag;
    assert_null(failed);
    assert_non_null(result->turn);
    batch_text = strdup(result->turn->content);
    return true;
}

/* A batch and a session give the turn a solo run gives, budget and all. */
static void batches_and_sessions_agree(void **state) {
    (void)state;
    question q = thinking_question();
    q.options.thinking_budget = 3;
    myelin_result solo, result;
    complete(&q, NULL, &solo);
    myelin_request request = {.messages = q.messages,
                              .messages_length = strlen(q.messages),
                              .chat = &q.chat,
                              .options = &q.options};
    assert_ok(myelin_batch_run(demo, NULL, take_request, keep_text, &request, &error), error);
    assert_string_equal(batch_text, solo.turn->content);
    free(batch_text);
    myelin_session *session;
    assert_ok(myelin_session_open(&session, demo, 500, &error), error);
    for (int round = 0; round < 2; round++) {
        assert_ok(myelin_session_set_chat(session, q.messages, strlen(q.messages), &q.chat, &error),
                  error);
        assert_ok(myelin_session_generate(session, NULL, NULL, &q.options, &result, &error), error);
        assert_same_turn(result.turn, solo.turn);
        assert_int_equal(result.cached_tokens, round ? solo.input_tokens - 1 : 0);
        myelin_result_clear(&result);
    }
    /* Without a conversation there is no turn. */
    assert_ok(myelin_session_append_text(session, "x", 1, true, &error), error);
    assert_ok(myelin_session_generate(session, NULL, NULL, &q.options, &result, &error), error);
    assert_null(result.turn);
    myelin_result_clear(&result);
    myelin_session_close(session);
    myelin_result_clear(&solo);
    free_question(&q);
}

/* Who stops after so many events has exactly these in the result. */
static void cancelling_keeps_what_was_handed(void **state) {
    (void)state;
    question q = thinking_question();
    for (int stable = 0; stable < 2; stable++) {
        for (size_t stop_at = 1; stop_at < 40; stop_at += is_sanitized() ? 6 : 2) {
            event_log log = {.stop_at = stop_at};
            myelin_result result;
            q.options.sync = MYELIN_SYNC_TOKEN;
            q.options.stream_mode = stable ? MYELIN_STREAM_STABLE : MYELIN_STREAM_TOKEN;
            complete(&q, &log, &result);
            assert_log_is_turn(&log, result.turn);
            myelin_result_clear(&result);
            clear_log(&log);
        }
    }
    free_question(&q);
}

static void failing_memory_is_an_error(void **state) {
    (void)state;
    static const char messages[] =
        "[{\"role\": \"user\", \"content\": \"What is the weather in Paris?\"}]";
    static const char tools[] =
        "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": "
        "\"Get the weather of a city\", \"parameters\": {\"type\": \"object\", \"properties\": "
        "{\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"]}}}]";
    myelin_chat_options chat;
    myelin_chat_options_init(&chat);
    chat.tools = tools;
    chat.thinking = MYELIN_THINKING_OFF;
    myelin_generation_options options = options_for(60, 0);
    /* In a session, so that a sanitizer reads the prompt once and not for each allocation. */
    myelin_session *session;
    assert_ok(myelin_session_open(&session, demo, 1000, &error), error);
    uint64_t all = 0, fail_at = 0;
    do {
        myelin_result result;
        assert_ok(myelin_session_set_chat(session, messages, sizeof messages - 1, &chat, &error),
                  error);
        mln_fail_allocation(fail_at, false);
        myelin_status status =
            myelin_session_generate(session, NULL, NULL, &options, &result, NULL);
        uint64_t made = mln_fail_allocation(0, false);
        all = fail_at == 0 ? made : all;
        if (fail_at == 0 || fail_at > all) { /* none failed */
            assert_int_equal(status, MYELIN_OK);
            assert_int_equal(result.turn->num_tool_calls, 1);
            assert_string_equal(result.turn->tool_calls[0].name, "get_weather");
        } else {
            assert_int_equal(status, MYELIN_ERROR_MEMORY);
            assert_null(result.turn);
        }
        myelin_result_clear(&result);
    } while (++fail_at <= all + 1);
    assert_true(all > 20);
    myelin_session_close(session);
}

static void structs_are_their_json(void **state) {
    (void)state;
    myelin_tool_call calls[] = {{(char *)(uintptr_t) "f", (char *)(uintptr_t) "{\"a\": [1, 2.5]}"},
                                {(char *)(uintptr_t) "g", NULL},
                                {(char *)(uintptr_t) "h", (char *)(uintptr_t) "not JSON"}};
    const myelin_message messages[] = {
        {.role = "system", .content = "Be \"brief\"."},
        {.role = "user", .content = "Hi \xe2\x82\xac\n"},
        {.role = "assistant", .reasoning = "hm", .tool_calls = calls, .num_tool_calls = 3},
        {.role = "tool", .content = "42", .name = "f", .tool_call_id = "1"},
    };
    static const char expected[] =
        "[{\"role\":\"system\",\"content\":\"Be \\\"brief\\\".\"},"
        "{\"role\":\"user\",\"content\":\"Hi \xe2\x82\xac\\n\"},"
        "{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"hm\",\"tool_calls\":["
        "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":[1,2.5]}}},"
        "{\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":{}}},"
        "{\"type\":\"function\",\"function\":{\"name\":\"h\",\"arguments\":\"not JSON\"}}]},"
        "{\"role\":\"tool\",\"content\":\"42\",\"name\":\"f\",\"tool_call_id\":\"1\"}]";
    char *json;
    size_t length;
    assert_ok(myelin_messages_json(messages, COUNT(messages), &json, &length, &error), error);
    assert_string_equal(json, expected);
    assert_int_equal(length, strlen(expected));
    myelin_free(json);
    assert_ok(myelin_messages_json(NULL, 0, &json, &length, &error), error);
    assert_string_equal(json, "[]");
    myelin_free(json);
}

static void bad_structs_are_named(void **state) {
    (void)state;
    myelin_tool_call nameless = {0};
    const struct {
        myelin_message message;
        const char *expected;
    } cases[] = {
        {{.content = "x"}, "message 0: expected a role"},
        {{.role = "user", .content = "\xff"}, "message 0: content is not UTF-8"},
        {{.role = "user", .num_tool_calls = 2}, "expected 2 tool calls, found NULL"},
        {{.role = "user", .num_tool_calls = 1, .tool_calls = &nameless}, "expected a name"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *json;
        size_t length;
        assert_int_equal(myelin_messages_json(&cases[i].message, 1, &json, &length, &error),
                         MYELIN_ERROR_ARGUMENT);
        assert_null(json);
        assert_non_null(strstr(error.message, cases[i].expected));
    }
}

static void how_prompts_end(void **state) {
    (void)state;
    static const struct {
        const char *text;
        mln_chat_thinking expected;
    } cases[] = {
        {"<|im_start|>assistant\n", MLN_CHAT_THINKING_ALLOWED},
        {"<|im_start|>assistant\n<think>\n", MLN_CHAT_THINKING_OPEN},
        {"<|im_start|>assistant\n<think>", MLN_CHAT_THINKING_OPEN},
        {"<|im_start|>assistant\n<think>\n\n</think>\n\n", MLN_CHAT_THINKING_OFF},
        {"", MLN_CHAT_THINKING_ALLOWED},
        {"think>", MLN_CHAT_THINKING_ALLOWED},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_int_equal(mln_turn_thinking_after(cases[i].text, strlen(cases[i].text)),
                         cases[i].expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_of_the_reference),
        cmocka_unit_test(a_budget_closes_the_block),
        cmocka_unit_test(batches_and_sessions_agree),
        cmocka_unit_test(cancelling_keeps_what_was_handed),
        cmocka_unit_test(failing_memory_is_an_error),
        cmocka_unit_test(structs_are_their_json),
        cmocka_unit_test(bad_structs_are_named),
        cmocka_unit_test(how_prompts_end),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
