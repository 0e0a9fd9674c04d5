/* SPDX-License-Identifier: Apache-2.0 */
#include "messages.h"

#include <string.h>

#include "out.h"

static bool no_memory(problem *p) {
    return problem_set(p, 500, NULL, NULL, "out of memory");
}

/* The member of a part of a content that holds its text, or NULL when it is no text. */
static const char *text_member(const char *type) {
    static const char *const types[] = {"text", "input_text", "output_text", "reasoning_text",
                                        "summary_text"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(type, types[i]) == 0)
            return "text";
    }
    return strcmp(type, "refusal") == 0 ? "refusal" : NULL;
}

static bool append_part(out *text, const json_t *part, const char *at, problem *p) {
    const char *type = NULL, *found = NULL;
    size_t length = 0;
    if (!json_is_object(part))
        return body_unexpected(p, at, "an object", part);
    if (!body_string(part, at, "type", &type, NULL, p))
        return false;
    const char *member = type != NULL ? text_member(type) : NULL;
    if (member == NULL)
        return problem_set(p, 400, at, "unsupported_content",
                           "%s: this model reads text, found a part of type \"%.40s\"", at,
                           type != NULL ? type : "");
    if (!body_string(part, at, member, &found, &length, p))
        return false;
    if (found == NULL) {
        char path[BODY_PATH_SIZE];
        body_path(path, at, member);
        return body_unexpected(p, path, "a string", NULL);
    }
    if (text->length > 0)
        out_text(text, "\n");
    out_bytes(text, found, length);
    return true;
}

/* A content, a string or an array of parts, as a string: parts stand on lines of their own. */
static json_t *content_string(const json_t *content, const char *at, problem *p) {
    if (content == NULL || json_is_null(content))
        return json_string("");
    if (json_is_string(content))
        return json_incref((json_t *)content);
    if (!json_is_array(content)) {
        body_unexpected(p, at, "a string or an array of parts", content);
        return NULL;
    }
    out text = {0};
    bool good = true;
    for (size_t i = 0; good && i < json_array_size(content); i++) {
        char path[BODY_PATH_SIZE];
        body_path_index(path, at, i);
        good = append_part(&text, json_array_get(content, i), path, p);
    }
    json_t *string = NULL;
    if (good && !text.failed)
        string = json_stringn(text.data != NULL ? text.data : "", text.length);
    if (good && string == NULL)
        no_memory(p);
    out_free(&text);
    return string;
}

/* Arguments that are an object become that object, as templates want them; others stay text. */
static json_t *arguments_value(const json_t *arguments) {
    problem ignored;
    const char *text = json_string_value(arguments);
    size_t length = json_string_length(arguments);
    json_t *value = NULL;
    if (json_is_string(arguments) && body_is_shallow(text, length, &ignored))
        value = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    if (json_is_object(value))
        return value;
    json_decref(value);
    return json_incref((json_t *)arguments);
}

/* A call from its parts, which stand at `at`. */
static json_t *call_value(const json_t *object, const char *at, const char *id, problem *p) {
    const char *name = NULL, *text = NULL;
    size_t length;
    const json_t *arguments = json_object_get(object, "arguments");
    if (!body_string(object, at, "name", &name, NULL, p))
        return NULL;
    if (!json_is_object(arguments) && !body_string(object, at, "arguments", &text, &length, p))
        return NULL;
    if (name == NULL) {
        char path[BODY_PATH_SIZE];
        body_path(path, at, "name");
        body_unexpected(p, path, "a string", NULL);
        return NULL;
    }
    json_t *value =
        arguments == NULL || json_is_null(arguments) ? json_object() : arguments_value(arguments);
    json_t *call = json_pack("{s:s, s:s*, s:{s:s, s:o}}", "type", "function", "id", id, "function",
                             "name", name, "arguments", value);
    if (call == NULL)
        no_memory(p);
    return call;
}

static json_t *one_call(const json_t *call, const char *at, problem *p) {
    const char *id = NULL, *type = "function";
    const json_t *function = NULL;
    char path[BODY_PATH_SIZE];
    if (!json_is_object(call)) {
        body_unexpected(p, at, "an object", call);
        return NULL;
    }
    if (!body_string(call, at, "id", &id, NULL, p) ||
        !body_string(call, at, "type", &type, NULL, p) ||
        !body_object(call, at, "function", &function, p))
        return NULL;
    body_path(path, at, "function");
    if (strcmp(type, "function") != 0 || function == NULL) {
        body_unexpected(p, path, "an object, of a call of type \"function\"", function);
        return NULL;
    }
    return call_value(function, path, id, p);
}

static bool add_calls(json_t *to, const json_t *message, const char *at, problem *p) {
    const json_t *calls = NULL;
    if (!body_array(message, at, "tool_calls", &calls, p))
        return false;
    if (json_array_size(calls) == 0)
        return true;
    json_t *list = json_array();
    bool good = true;
    for (size_t i = 0; good && i < json_array_size(calls); i++) {
        char list_path[BODY_PATH_SIZE], path[BODY_PATH_SIZE];
        body_path(list_path, at, "tool_calls");
        body_path_index(path, list_path, i);
        json_t *call = one_call(json_array_get(calls, i), path, p);
        good = call != NULL;
        if (good)
            json_array_append_new(list, call);
    }
    json_object_set_new(to, "tool_calls", list);
    return good;
}

/* The members of one role that are no content. */
static bool add_members(json_t *to, const json_t *message, const char *at, const char *role,
                        problem *p) {
    static const char *const reasoning[] = {"reasoning_content", "reasoning"};
    static const char *const others[] = {"name", "tool_call_id"};
    for (size_t i = 0; i < 2; i++) {
        const char *text = NULL;
        size_t length;
        if (strcmp(role, "assistant") == 0) {
            if (!body_string(message, at, reasoning[i], &text, &length, p))
                return false;
            if (text != NULL)
                json_object_set_new(to, "reasoning_content", json_stringn(text, length));
        }
        text = NULL;
        if (!body_string(message, at, others[i], &text, &length, p))
            return false;
        if (text != NULL && strcmp(role, "tool") == 0)
            json_object_set_new(to, others[i], json_stringn(text, length));
    }
    return strcmp(role, "assistant") != 0 || add_calls(to, message, at, p);
}

/* The role a template knows, or NULL. */
static const char *known_role(const char *role) {
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    for (size_t i = 0; role != NULL && i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(role, roles[i]) == 0)
            return roles[i];
    }
    return role != NULL && strcmp(role, "developer") == 0 ? "system" : NULL;
}

static json_t *one_message(const json_t *message, const char *at, problem *p) {
    const char *role = NULL;
    char path[BODY_PATH_SIZE];
    if (!json_is_object(message)) {
        body_unexpected(p, at, "an object", message);
        return NULL;
    }
    if (!body_string(message, at, "role", &role, NULL, p))
        return NULL;
    const char *known = known_role(role);
    if (known == NULL) {
        body_path(path, at, "role");
        problem_set(p, 400, path, role != NULL ? "invalid_value" : "missing_required_parameter",
                    "%s: expected \"system\", \"developer\", \"user\", \"assistant\" or \"tool\", "
                    "found %s%.40s%s",
                    path, role != NULL ? "\"" : "", role != NULL ? role : "nothing",
                    role != NULL ? "\"" : "");
        return NULL;
    }
    const json_t *content = json_object_get(message, "content");
    body_path(path, at, "content");
    if (content == NULL && strcmp(known, "assistant") != 0) {
        body_unexpected(p, path, "a string or an array of parts", NULL);
        return NULL;
    }
    json_t *text = content_string(content, path, p);
    json_t *made = text != NULL ? json_pack("{s:s, s:o}", "role", known, "content", text) : NULL;
    if (text != NULL && made == NULL)
        no_memory(p);
    if (made != NULL && !add_members(made, message, at, known, p)) {
        json_decref(made);
        return NULL;
    }
    return made;
}

json_t *messages_from_chat(const json_t *messages, const char *at, problem *p) {
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        if (json_is_array(messages))
            problem_set(p, 400, at, "invalid_value", "%s: expected at least one message, found []",
                        at);
        else
            body_unexpected(p, at, "an array of messages", messages);
        return NULL;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(messages); i++) {
        char path[BODY_PATH_SIZE];
        body_path_index(path, at, i);
        json_t *message = one_message(json_array_get(messages, i), path, p);
        if (message == NULL) {
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, message);
    }
    return list;
}

/* ---- The items of /v1/responses ---- */

/* What an assistant did in one turn comes as items of its own; they go into one message. */
static json_t *open_turn(json_t *list) {
    json_t *last = json_array_get(list, json_array_size(list) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (json_array_size(list) > 0 && strcmp(role, "assistant") == 0)
        return last;
    json_t *turn = json_pack("{s:s, s:s}", "role", "assistant", "content", "");
    json_array_append_new(list, turn);
    return turn;
}

static bool add_call_item(json_t *list, const json_t *item, const char *at, problem *p) {
    const char *id = NULL;
    if (!body_string(item, at, "call_id", &id, NULL, p))
        return false;
    json_t *call = call_value(item, at, id, p);
    if (call == NULL)
        return false;
    json_t *turn = open_turn(list), *calls = json_object_get(turn, "tool_calls");
    if (calls == NULL) {
        calls = json_array();
        json_object_set_new(turn, "tool_calls", calls);
    }
    json_array_append_new(calls, call);
    return true;
}

static bool add_output_item(json_t *list, const json_t *item, const char *at, problem *p) {
    const char *id = NULL;
    char path[BODY_PATH_SIZE];
    if (!body_string(item, at, "call_id", &id, NULL, p))
        return false;
    body_path(path, at, "output");
    json_t *text = content_string(json_object_get(item, "output"), path, p);
    if (text == NULL)
        return false;
    json_array_append_new(
        list, json_pack("{s:s, s:o, s:s*}", "role", "tool", "content", text, "tool_call_id", id));
    return true;
}

static bool add_reasoning_item(json_t *list, const json_t *item, const char *at, problem *p) {
    char path[BODY_PATH_SIZE];
    bool whole = json_array_size(json_object_get(item, "content")) > 0;
    const char *name = whole ? "content" : "summary";
    body_path(path, at, name);
    json_t *text = content_string(json_object_get(item, name), path, p);
    if (text == NULL)
        return false;
    /* A turn begins with its reasoning. */
    json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "role", "assistant", "content", "",
                                          "reasoning_content", text));
    return true;
}

static bool add_message_item(json_t *list, const json_t *item, const char *at, problem *p) {
    json_t *message = one_message(item, at, p);
    if (message == NULL)
        return false;
    json_t *last = json_array_get(list, json_array_size(list) - 1);
    const char *content = json_string_value(json_object_get(last, "content"));
    bool joins = json_object_get(last, "reasoning_content") != NULL && content[0] == '\0' &&
                 json_object_get(last, "tool_calls") == NULL &&
                 strcmp(json_string_value(json_object_get(message, "role")), "assistant") == 0;
    if (joins)
        json_object_update_missing(message, last);
    if (joins)
        json_array_set_new(list, json_array_size(list) - 1, message);
    else
        json_array_append_new(list, message);
    return true;
}

static bool add_item(json_t *list, const json_t *item, const char *at, problem *p) {
    const char *type = "message";
    char path[BODY_PATH_SIZE];
    if (!json_is_object(item))
        return body_unexpected(p, at, "an object", item);
    if (!body_string(item, at, "type", &type, NULL, p))
        return false;
    if (strcmp(type, "message") == 0)
        return add_message_item(list, item, at, p);
    if (strcmp(type, "function_call") == 0)
        return add_call_item(list, item, at, p);
    if (strcmp(type, "function_call_output") == 0)
        return add_output_item(list, item, at, p);
    if (strcmp(type, "reasoning") == 0)
        return add_reasoning_item(list, item, at, p);
    body_path(path, at, "type");
    return problem_set(p, 400, path, "unsupported_value",
                       "%s: expected \"message\", \"function_call\", \"function_call_output\" or "
                       "\"reasoning\", found \"%.40s\"",
                       path, type);
}

json_t *messages_from_items(const json_t *input, const char *instructions, size_t length,
                            problem *p) {
    bool good = json_is_string(input) || json_array_size(input) > 0;
    if (!good) {
        body_unexpected(p, "input", "a string or an array of items, not empty", input);
        return NULL;
    }
    json_t *list = json_array();
    if (instructions != NULL)
        json_array_append_new(
            list, json_pack("{s:s, s:s%}", "role", "system", "content", instructions, length));
    if (json_is_string(input))
        json_array_append_new(list,
                              json_pack("{s:s, s:O}", "role", "user", "content", (json_t *)input));
    for (size_t i = 0; good && i < json_array_size(input); i++) {
        char path[BODY_PATH_SIZE];
        body_path_index(path, "input", i);
        good = add_item(list, json_array_get(input, i), path, p);
    }
    if (!good) {
        json_decref(list);
        return NULL;
    }
    return list;
}
