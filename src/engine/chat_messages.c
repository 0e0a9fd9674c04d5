/* SPDX-License-Identifier: Apache-2.0 */
/* Conversations as structs, written as the JSON that templates are given. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "engine/internal.h"

/* Sets a member that may be missing. */
static bool set_text(json_t *object, const char *key, const char *text) {
    return !text || json_object_set_new(object, key, json_string(text)) == 0;
}

/* Arguments as the object they are the text of; what is none stays a string. */
static json_t *arguments_value(const char *text) {
    json_t *value = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(value))
        return value;
    json_decref(value);
    return json_string(text);
}

static json_t *call_value(const myelin_tool_call *call) {
    return json_pack("{s:s, s:{s:s, s:o}}", "type", "function", "function", "name", call->name,
                     "arguments", arguments_value(call->arguments ? call->arguments : "{}"));
}

static json_t *message_value(const myelin_message *message) {
    json_t *object = json_object();
    bool fits = set_text(object, "role", message->role);
    fits = fits &&
           json_object_set_new(object, "content",
                               message->content ? json_string(message->content) : json_null()) == 0;
    fits = fits && set_text(object, "reasoning_content", message->reasoning) &&
           set_text(object, "name", message->name) &&
           set_text(object, "tool_call_id", message->tool_call_id);
    if (fits && message->num_tool_calls) {
        json_t *calls = json_array();
        for (size_t i = 0; fits && i < message->num_tool_calls; i++)
            fits = json_array_append_new(calls, call_value(&message->tool_calls[i])) == 0;
        fits = json_object_set_new(object, "tool_calls", calls) == 0 && fits;
    }
    if (fits)
        return object;
    json_decref(object);
    return NULL;
}

static myelin_status check_text(const char *text, size_t index, const char *member,
                                myelin_error *error) {
    size_t length = text ? strlen(text) : 0, valid = mln_utf8_valid_prefix(text, length);
    if (valid == length)
        return MYELIN_OK;
    return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, (int64_t)valid,
                    "message %zu: %s is not UTF-8", index, member);
}

static myelin_status check_call(const myelin_tool_call *call, size_t index, myelin_error *error) {
    if (!call->name)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "message %zu: expected a name for each tool call, found NULL", index);
    myelin_status status = check_text(call->name, index, "the name of a tool call", error);
    return status == MYELIN_OK
               ? check_text(call->arguments, index, "the arguments of a tool call", error)
               : status;
}

static myelin_status check_message(const myelin_message *message, size_t index,
                                   myelin_error *error) {
    if (!message->role)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "message %zu: expected a role, found NULL", index);
    if (message->num_tool_calls && !message->tool_calls)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "message %zu: expected %zu tool calls, found NULL", index,
                        message->num_tool_calls);
    myelin_status status = check_text(message->role, index, "role", error);
    if (status == MYELIN_OK)
        status = check_text(message->content, index, "content", error);
    if (status == MYELIN_OK)
        status = check_text(message->reasoning, index, "reasoning", error);
    if (status == MYELIN_OK)
        status = check_text(message->name, index, "name", error);
    if (status == MYELIN_OK)
        status = check_text(message->tool_call_id, index, "tool_call_id", error);
    for (size_t i = 0; status == MYELIN_OK && i < message->num_tool_calls; i++)
        status = check_call(&message->tool_calls[i], index, error);
    return status;
}

/* Copies what jansson allocated into memory of ours. */
static myelin_status dump(const json_t *messages, char **json, size_t *length,
                          myelin_error *error) {
    char *text = messages ? json_dumps(messages, JSON_COMPACT) : NULL;
    if (!text)
        return mln_fail_memory(error, sizeof messages, "a conversation");
    size_t size = strlen(text);
    *json = mln_strndup(text, size);
    free(text);
    if (!*json)
        return mln_fail_memory(error, size, "a conversation");
    *length = size;
    return MYELIN_OK;
}

myelin_status myelin_messages_json(const myelin_message *messages, size_t count, char **json,
                                   size_t *length, myelin_error *error) {
    *json = NULL;
    *length = 0;
    myelin_status status = MYELIN_OK;
    for (size_t i = 0; status == MYELIN_OK && i < count; i++)
        status = check_message(&messages[i], i, error);
    if (status != MYELIN_OK)
        return status;
    json_t *array = json_array();
    for (size_t i = 0; array && i < count; i++) {
        json_t *value = message_value(&messages[i]);
        if (!value || json_array_append_new(array, value) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    status = dump(array, json, length, error);
    json_decref(array);
    return status;
}
