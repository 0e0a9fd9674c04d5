/* SPDX-License-Identifier: Apache-2.0 */
#include "json_request.h"

#include <stdlib.h>
#include <string.h>

json_t *cli_json_parse(const char *text, size_t length, cli_why *why) {
    json_error_t error;
    json_t *value =
        json_loadb(text, length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (value == NULL)
        cli_explain(why, "not valid JSON: %s at byte %d", error.text, error.position);
    return value;
}

bool cli_json_only(const json_t *object, const char *const *names, cli_why *why) {
    const char *key;
    json_t *value;
    if (!json_is_object(object)) {
        cli_explain_json(why, "an object", object);
        return false;
    }
    json_object_foreach((json_t *)object, key, value) {
        const char *const *name = names;
        while (*name != NULL && strcmp(*name, key) != 0)
            name++;
        if (*name == NULL) {
            const char *nearest = cli_nearest(key, names);
            cli_explain(why, "unknown member \"%.64s\"%s%s%s", key,
                        nearest != NULL ? " (did you mean \"" : "", nearest != NULL ? nearest : "",
                        nearest != NULL ? "\"?)" : "");
            return false;
        }
    }
    return true;
}

/* The member that says what to complete. */
static bool read_prompt(cli_request *request, const char *key, const json_t *value, cli_why *why) {
    if (strcmp(key, "prompt") == 0) {
        if (!json_is_string(value)) {
            cli_explain_json(why, "a string", value);
            return false;
        }
        request->request.prompt = json_string_value(value);
        request->request.prompt_length = json_string_length(value);
        return true;
    }
    size_t count;
    if (!cli_read_ids(value, &request->ids, &count, why))
        return false;
    request->request.prompt_ids = request->ids;
    request->request.num_prompt_ids = count;
    return true;
}

static bool read_member(cli_request *request, const char *key, const json_t *value, cli_why *why) {
    cli_why inner;
    bool known = true;
    bool good;
    if (strcmp(key, "id") == 0)
        return true;
    if (strcmp(key, "prompt") == 0 || strcmp(key, "prompt_ids") == 0)
        good = read_prompt(request, key, value, &inner);
    else
        good = cli_conversation_store(&request->conversation, key, value, &known, &inner);
    if (!known)
        good = cli_generation_store(&request->generation, key, value, &known, &inner);
    if (!known)
        cli_explain(why, "unknown member \"%.64s\"", key);
    else if (!good)
        cli_explain(why, "%s: %.200s", key, inner.text);
    return good;
}

bool cli_request_read(cli_request *request, json_t *line, const cli_generation *defaults,
                      const myelin_model *model, cli_why *why) {
    memset(request, 0, sizeof *request);
    request->line = line;
    cli_conversation_init(&request->conversation);
    cli_generation_copy(&request->generation, defaults);
    if (!json_is_object(line)) {
        cli_explain_json(why, "an object", line);
        return false;
    }
    bool text = json_object_get(line, "prompt") != NULL;
    bool ids = json_object_get(line, "prompt_ids") != NULL;
    bool messages = json_object_get(line, "messages") != NULL;
    if (text + ids + messages != 1) {
        cli_explain(why, "expected one of \"prompt\", \"prompt_ids\" and \"messages\", found %s",
                    text + ids + messages == 0 ? "none" : "several");
        return false;
    }
    if (json_object_get(line, "stop") != NULL && json_object_get(line, "stop_strings") != NULL) {
        cli_explain(why, "stop and stop_strings are the same: expected one of them");
        return false;
    }
    const char *key;
    json_t *value;
    json_object_foreach(line, key, value) {
        if (!read_member(request, key, value, why))
            return false;
    }
    cli_generation_resolve(&request->generation, model, &request->options);
    myelin_error error;
    if (cli_generation_constrain(&request->generation, model, &request->options,
                                 &request->constraint, &error) != MYELIN_OK) {
        cli_explain(why, "json_schema: %.230s", error.message);
        return false;
    }
    request->request.options = &request->options;
    if (messages) {
        request->request.messages = request->conversation.messages;
        request->request.messages_length = strlen(request->conversation.messages);
        request->request.chat = &request->conversation.options;
    }
    return true;
}

void cli_request_clear(cli_request *request) {
    myelin_constraint_free(request->constraint);
    free(request->ids);
    cli_conversation_clear(&request->conversation);
    cli_generation_clear(&request->generation);
    json_decref(request->line);
    memset(request, 0, sizeof *request);
}
