/* SPDX-License-Identifier: Apache-2.0 */
/* Of messages.h: tools, which of them may be called, and the form of the answer. */
#include <stdlib.h>
#include <string.h>

#include "messages.h"

enum { MAX_NAME = 256 };

/* The function a tool describes, which stands at `at`; false when it is none. */
static bool check_function(const json_t *function, const char *at, problem *p) {
    const char *name = NULL, *description = NULL;
    const json_t *parameters = NULL;
    char path[BODY_PATH_SIZE];
    size_t length;
    if (!body_string(function, at, "name", &name, NULL, p) ||
        !body_string(function, at, "description", &description, &length, p) ||
        !body_object(function, at, "parameters", &parameters, p))
        return false;
    body_path(path, at, "name");
    if (name == NULL)
        return body_unexpected(p, path, "a string", NULL);
    if (name[0] == '\0' || strlen(name) > MAX_NAME)
        return problem_set(p, 400, path, "invalid_value", "%s: expected 1 to %d bytes, found %zu",
                           path, MAX_NAME, strlen(name));
    return true;
}

/* A tool of /v1/responses in the form of chat completions. */
static json_t *wrapped(const json_t *tool) {
    json_t *function = json_copy((json_t *)tool);
    json_object_del(function, "type");
    json_object_del(function, "strict");
    return json_pack("{s:s, s:o}", "type", "function", "function", function);
}

static json_t *one_tool(const json_t *tool, const char *at, bool flat, problem *p) {
    const char *type = NULL;
    const json_t *function = tool;
    char path[BODY_PATH_SIZE];
    if (!json_is_object(tool)) {
        body_unexpected(p, at, "an object", tool);
        return NULL;
    }
    if (!body_string(tool, at, "type", &type, NULL, p))
        return NULL;
    if (type == NULL || strcmp(type, "function") != 0) {
        body_path(path, at, "type");
        problem_set(p, 400, path, "unsupported_value", "%s: expected \"function\", found %s%.40s",
                    path, type != NULL ? "" : "nothing", type != NULL ? type : "");
        return NULL;
    }
    if (!flat) {
        body_path(path, at, "function");
        function = json_object_get(tool, "function");
        if (!json_is_object(function)) {
            body_unexpected(p, path, "an object", function);
            return NULL;
        }
        at = path;
    }
    if (!check_function(function, at, p))
        return NULL;
    return flat ? wrapped(tool) : json_incref((json_t *)tool);
}

static bool has_tool(const json_t *tools, const char *name) {
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        if (strcmp(json_string_value(json_object_get(function, "name")), name) == 0)
            return true;
    }
    return false;
}

static bool named_choice(const json_t *value, bool flat, tool_choice *choice, problem *p) {
    const char *type = NULL;
    const json_t *function = value;
    if (!body_string(value, "tool_choice", "type", &type, NULL, p))
        return false;
    if (type == NULL || strcmp(type, "function") != 0)
        return problem_set(p, 400, "tool_choice.type", "unsupported_value",
                           "tool_choice.type: expected \"function\", found \"%.40s\"",
                           type != NULL ? type : "");
    if (!flat && !body_object(value, "tool_choice", "function", &function, p))
        return false;
    const char *at = flat ? "tool_choice" : "tool_choice.function";
    if (!body_string(function, at, "name", &choice->name, NULL, p))
        return false;
    choice->required = true;
    return choice->name != NULL ||
           body_unexpected(p, flat ? "tool_choice.name" : "tool_choice.function.name", "a string",
                           NULL);
}

static bool read_choice(const json_t *body, bool flat, const json_t *tools, tool_choice *choice,
                        problem *p) {
    const json_t *value = json_object_get(body, "tool_choice");
    const char *word = json_string_value(value);
    *choice = (tool_choice){0};
    if (value == NULL || json_is_null(value))
        return true;
    if (json_is_object(value)) {
        if (!named_choice(value, flat, choice, p))
            return false;
    } else if (word != NULL && strcmp(word, "required") == 0) {
        choice->required = true;
    } else if (word != NULL && strcmp(word, "none") == 0) {
        choice->none = true;
    } else if (word == NULL || strcmp(word, "auto") != 0) {
        return body_unexpected(p, "tool_choice",
                               "\"auto\", \"none\", \"required\" or an object that names a tool",
                               value);
    }
    if (choice->required && json_array_size(tools) == 0)
        return problem_set(p, 400, "tool_choice", "invalid_value",
                           "tool_choice: a call is required, but there are no tools");
    if (choice->name != NULL && !has_tool(tools, choice->name))
        return problem_set(p, 400, "tool_choice", "invalid_value",
                           "tool_choice: no tool is called \"%.64s\"", choice->name);
    return true;
}

bool tools_read(const json_t *body, bool flat, json_t **tools, tool_choice *choice, problem *p) {
    const json_t *found = NULL;
    *tools = NULL;
    if (!body_array(body, "", "tools", &found, p))
        return false;
    if (json_array_size(found) > MESSAGES_MAX_TOOLS)
        return problem_set(p, 400, "tools", "invalid_value",
                           "tools: expected at most %d, found %zu", MESSAGES_MAX_TOOLS,
                           json_array_size(found));
    json_t *list = json_array();
    bool good = true;
    for (size_t i = 0; good && i < json_array_size(found); i++) {
        char path[BODY_PATH_SIZE];
        body_path_index(path, "tools", i);
        json_t *tool = one_tool(json_array_get(found, i), path, flat, p);
        good = tool != NULL && json_array_append_new(list, tool) == 0;
    }
    good = good && read_choice(body, flat, list, choice, p);
    if (good && json_array_size(list) > 0 && !choice->none) {
        *tools = list;
        return true;
    }
    json_decref(list);
    return good;
}

static bool dump(const json_t *value, char **text, problem *p) {
    *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    return *text != NULL || problem_set(p, 500, NULL, NULL, "out of memory");
}

bool format_read(const json_t *format, const char *at, bool flat, char **schema, problem *p) {
    const char *type = NULL;
    char path[BODY_PATH_SIZE];
    *schema = NULL;
    if (format == NULL)
        return true;
    if (!body_string(format, at, "type", &type, NULL, p))
        return false;
    if (type != NULL && strcmp(type, "text") == 0)
        return true;
    if (type != NULL && strcmp(type, "json_object") == 0) {
        *schema = strdup("{\"type\":\"object\"}");
        return *schema != NULL || problem_set(p, 500, NULL, NULL, "out of memory");
    }
    if (type == NULL || strcmp(type, "json_schema") != 0) {
        body_path(path, at, "type");
        return problem_set(p, 400, path, "invalid_value",
                           "%s: expected \"text\", \"json_object\" or \"json_schema\", found "
                           "\"%.40s\"",
                           path, type != NULL ? type : "");
    }
    const json_t *holder = format;
    body_path(path, at, flat ? "schema" : "json_schema");
    if (!flat) {
        holder = json_object_get(format, "json_schema");
        if (!json_is_object(holder))
            return body_unexpected(p, path, "an object", holder);
        body_path(path, at, "json_schema.schema");
    }
    const json_t *found = json_object_get(holder, "schema");
    if (!json_is_object(found) && !json_is_boolean(found))
        return body_unexpected(p, path, "a JSON schema", found);
    return dump(found, schema, p);
}
