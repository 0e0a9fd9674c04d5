/* SPDX-License-Identifier: Apache-2.0 */
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_result.h"

/* An answer should have this much room, or as much as it may be long. */
enum { LEAST_ROOM = 64 };

static const char *role_of(const json_t *message) {
    const char *role = json_string_value(json_object_get(message, "role"));
    return role != NULL ? role : "";
}

static bool has_role(const json_t *messages, size_t index, const char *role) {
    return strcmp(role_of(json_array_get(messages, index)), role) == 0;
}

static json_t *make_message(const char *role, const char *text, size_t length) {
    json_t *message = json_object();
    json_object_set_new(message, "role", json_string(role));
    json_object_set_new(message, "content", cli_json_text(text, length));
    return message;
}

void chat_add(chat *c, const char *role, const char *text, size_t length) {
    json_array_append_new(c->messages, make_message(role, text, length));
}

void chat_clear(chat *c) {
    size_t first = has_role(c->messages, 0, "system") ? 1 : 0;
    while (json_array_size(c->messages) > first)
        json_array_remove(c->messages, first);
}

void chat_set_system(chat *c, const char *text) {
    if (has_role(c->messages, 0, "system"))
        json_array_remove(c->messages, 0);
    if (*text != '\0')
        json_array_insert_new(c->messages, 0, make_message("system", text, strlen(text)));
}

/* Takes back what was said last, up to the last answer: it could not be answered. */
static void take_back(chat *c) {
    size_t count = json_array_size(c->messages);
    while (count > 0 && !has_role(c->messages, count - 1, "assistant") &&
           !has_role(c->messages, count - 1, "system"))
        json_array_remove(c->messages, --count);
}

/*
 * Drops the oldest exchange: a user's message and all up to the next one. False when there is no
 * next one, so that nothing can be dropped.
 */
static bool drop_oldest(chat *c) {
    size_t first = has_role(c->messages, 0, "system") ? 1 : 0, next = first + 1;
    while (next < json_array_size(c->messages) && !has_role(c->messages, next, "user"))
        next++;
    if (next >= json_array_size(c->messages))
        return false;
    while (next-- > first)
        json_array_remove(c->messages, first);
    return true;
}

static myelin_status set_session(chat *c, myelin_error *error) {
    myelin_chat_options options;
    myelin_chat_options_init(&options);
    options.thinking = c->thinking;
    options.tools = c->tools;
    char *text = json_dumps(c->messages, JSON_COMPACT);
    if (text == NULL) {
        fputs("myelin: out of memory\n", stderr);
        exit(CLI_FAILED);
    }
    myelin_status status = myelin_session_set_chat(c->session, text, strlen(text), &options, error);
    free(text);
    return status;
}

static int32_t tokens_held(const chat *c) {
    size_t count;
    myelin_session_tokens(c->session, &count);
    return (int32_t)count;
}

/* Puts the conversation into the session, dropping its oldest exchanges until an answer has room.
 */
static myelin_status fit(chat *c, int32_t wanted, myelin_error *error) {
    int32_t room = wanted < LEAST_ROOM ? wanted : LEAST_ROOM, dropped = 0;
    room = room < c->max_len / 4 ? room : c->max_len / 4;
    for (;;) {
        myelin_status status = set_session(c, error);
        bool full = status == MYELIN_ERROR_CACHE_FULL ||
                    (status == MYELIN_OK && c->max_len - tokens_held(c) < room);
        if (full && drop_oldest(c)) {
            dropped++;
            continue;
        }
        if (dropped > 0)
            cli_message(c->command, "the context (%d tokens) is full: dropped the oldest %d %s",
                        (int)c->max_len, (int)dropped, dropped == 1 ? "exchange" : "exchanges");
        return status;
    }
}

static void keep_answer(chat *c, const myelin_turn *turn) {
    json_t *message = make_message("assistant", turn->content, turn->content_length);
    json_t *calls = json_array();
    if (turn->reasoning_length > 0)
        json_object_set_new(message, "reasoning_content",
                            cli_json_text(turn->reasoning, turn->reasoning_length));
    for (size_t i = 0; i < turn->num_tool_calls; i++) {
        const char *text = turn->tool_calls[i].arguments;
        json_t *call = json_object(), *function = json_object();
        json_t *arguments = json_loads(text, 0, NULL);
        json_object_set_new(function, "name", json_string(turn->tool_calls[i].name));
        json_object_set_new(function, "arguments",
                            arguments != NULL ? arguments : cli_json_text(text, strlen(text)));
        json_object_set_new(call, "type", json_string("function"));
        json_object_set_new(call, "function", function);
        json_array_append_new(calls, call);
    }
    if (json_array_size(calls) > 0)
        json_object_set(message, "tool_calls", calls);
    json_decref(calls);
    json_array_append_new(c->messages, message);
}

static bool is_interrupted(void *user) {
    (void)user;
    return cli_interrupted();
}

static void note_figures(chat *c, const myelin_result *result) {
    c->turns++;
    c->input_tokens = result->input_tokens;
    c->cached_tokens = result->cached_tokens;
    c->output_tokens = (int32_t)result->num_tokens;
    c->prefill_ms = result->prefill_ms;
    c->per_token_ms = result->per_token_ms;
}

/* Says why an answer ended other than by itself. */
static void explain_end(const chat *c, const myelin_result *result) {
    if (result->finish_reason == MYELIN_FINISH_CANCELLED)
        cli_message(c->command, "stopped");
    else if (result->finish_reason == MYELIN_FINISH_LENGTH && tokens_held(c) > c->max_len)
        cli_message(c->command, "the context (%d tokens) is full: the answer was cut off",
                    (int)c->max_len);
    else if (result->finish_reason == MYELIN_FINISH_LENGTH)
        cli_message(c->command, "the answer was cut off after %zu tokens (max-new-tokens)",
                    result->num_tokens);
}

static myelin_status generate(chat *c, const myelin_generation_options *options,
                              myelin_result *result, myelin_error *error) {
    if (!c->json)
        chat_print_begin(&c->print);
    myelin_status status = myelin_session_generate(c->session, c->json ? NULL : chat_on_piece, c,
                                                   options, result, error);
    if (!c->json)
        chat_print_end(&c->print);
    return status;
}

void chat_answer(chat *c) {
    myelin_generation_options options;
    myelin_result result = {0};
    myelin_error error;
    cli_generation_resolve(c->generation, c->model, &options);
    options.cancelled = is_interrupted;
    cli_interrupts_defer();
    myelin_constraint *constraint;
    myelin_status status =
        cli_generation_constrain(c->generation, c->model, &options, &constraint, &error);
    if (status == MYELIN_OK)
        status = fit(c, options.max_new_tokens, &error);
    if (status == MYELIN_OK)
        status = generate(c, &options, &result, &error);
    if (status != MYELIN_OK) {
        cli_message(c->command, "%s; the message is not kept", error.message);
        take_back(c);
        c->exit_code = CLI_FAILED;
    } else {
        note_figures(c, &result);
        if (c->json)
            cli_json_print(cli_json_result(&result), NULL);
        explain_end(c, &result);
        keep_answer(c, result.turn);
    }
    myelin_result_clear(&result);
    myelin_constraint_free(constraint);
    cli_interrupts_clear();
    cli_interrupts_allow();
}
