/* SPDX-License-Identifier: Apache-2.0 */
#include "body.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool problem_set(problem *p, int status, const char *param, const char *code, const char *format,
                 ...) {
    va_list arguments;
    p->status = status;
    p->code = code;
    snprintf(p->param, sizeof p->param, "%s", param != NULL ? param : "");
    va_start(arguments, format);
    vsnprintf(p->message, sizeof p->message, format, arguments);
    va_end(arguments);
    return false;
}

bool body_is_shallow(const char *text, size_t length, problem *p) {
    size_t depth = 0, values = 0;
    bool inside = false; /* a string */
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (inside) {
            i += c == '\\';
            inside = c != '"';
            continue;
        }
        inside = c == '"';
        bool opens = c == '[' || c == '{';
        values += opens || c == ',';
        depth += opens;
        depth -= (c == ']' || c == '}') && depth > 0;
        if (depth > BODY_MAX_DEPTH)
            return problem_set(p, 400, NULL, "json_too_deep",
                               "the body nests more than %d arrays and objects", BODY_MAX_DEPTH);
        if (values > BODY_MAX_VALUES)
            return problem_set(p, 400, NULL, "json_too_large",
                               "the body has more than %d JSON values", BODY_MAX_VALUES);
    }
    return true;
}

json_t *body_parse(const char *text, size_t length, problem *p) {
    json_error_t error;
    if (!body_is_shallow(text, length, p))
        return NULL;
    json_t *body =
        json_loadb(text, length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (body == NULL) {
        problem_set(p, 400, NULL, "invalid_json", "the body is not valid JSON: %s at byte %d",
                    error.text, error.position);
        return NULL;
    }
    if (json_is_object(body))
        return body;
    body_unexpected(p, "", "an object", body);
    json_decref(body);
    return NULL;
}

void body_path(char path[BODY_PATH_SIZE], const char *at, const char *name) {
    snprintf(path, BODY_PATH_SIZE, "%s%s%s", at, at[0] != '\0' ? "." : "", name);
}

void body_path_index(char path[BODY_PATH_SIZE], const char *at, size_t index) {
    snprintf(path, BODY_PATH_SIZE, "%s[%zu]", at, index);
}

/* A value in a few words, itself when it is a number. */
static void describe(char *words, size_t size, const json_t *value) {
    if (json_is_integer(value))
        snprintf(words, size, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(words, size, "%g", json_real_value(value));
    else if (json_is_boolean(value))
        snprintf(words, size, "%s", json_is_true(value) ? "true" : "false");
    else
        snprintf(words, size, "%s",
                 value == NULL           ? "nothing"
                 : json_is_string(value) ? "a string"
                 : json_is_array(value)  ? "an array"
                 : json_is_object(value) ? "an object"
                                         : "null");
}

bool body_unexpected(problem *p, const char *path, const char *expected, const json_t *found) {
    char words[64];
    describe(words, sizeof words, found);
    return problem_set(p, 400, path, found == NULL ? "missing_required_parameter" : "invalid_value",
                       "%s: expected %s, found %s", path[0] != '\0' ? path : "the body", expected,
                       words);
}

static bool unexpected_member(problem *p, const char *at, const char *name, const char *expected,
                              const json_t *found) {
    char path[BODY_PATH_SIZE];
    body_path(path, at, name);
    return body_unexpected(p, path, expected, found);
}

/* The member, or NULL when it is absent or null. */
static const json_t *member(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

bool body_bool(const json_t *object, const char *at, const char *name, bool *value, problem *p) {
    const json_t *found = member(object, name);
    if (found == NULL)
        return true;
    if (!json_is_boolean(found))
        return unexpected_member(p, at, name, "true or false", found);
    *value = json_is_true(found);
    return true;
}

bool body_int(const json_t *object, const char *at, const char *name, int64_t min, int64_t max,
              int64_t *value, problem *p) {
    static const double exact = 9007199254740992.0; /* 2^53 */
    const json_t *found = member(object, name);
    if (found == NULL)
        return true;
    double real = json_is_real(found) ? json_real_value(found) : 0;
    bool whole = json_is_integer(found) ||
                 (json_is_real(found) && fabs(real) <= exact && floor(real) >= real);
    int64_t integer = json_is_integer(found) ? (int64_t)json_integer_value(found) : (int64_t)real;
    if (whole && integer >= min && integer <= max) {
        *value = integer;
        return true;
    }
    char expected[96];
    if (min == INT64_MIN && max == INT64_MAX)
        snprintf(expected, sizeof expected, "an integer");
    else
        snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)min,
                 (long long)max);
    return unexpected_member(p, at, name, expected, found);
}

bool body_real(const json_t *object, const char *at, const char *name, double min, double max,
               double *value, problem *p) {
    const json_t *found = member(object, name);
    if (found == NULL)
        return true;
    double real = json_number_value(found);
    if (json_is_number(found) && real >= min && real <= max) {
        *value = real;
        return true;
    }
    char expected[96];
    snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
    return unexpected_member(p, at, name, expected, found);
}

bool body_string(const json_t *object, const char *at, const char *name, const char **value,
                 size_t *length, problem *p) {
    const json_t *found = member(object, name);
    if (found == NULL)
        return true;
    if (!json_is_string(found))
        return unexpected_member(p, at, name, "a string", found);
    if (length == NULL && strlen(json_string_value(found)) != json_string_length(found))
        return unexpected_member(p, at, name, "a string without NUL", found);
    *value = json_string_value(found);
    if (length != NULL)
        *length = json_string_length(found);
    return true;
}

bool body_object(const json_t *object, const char *at, const char *name, const json_t **value,
                 problem *p) {
    const json_t *found = member(object, name);
    if (found != NULL && !json_is_object(found))
        return unexpected_member(p, at, name, "an object", found);
    if (found != NULL)
        *value = found;
    return true;
}

bool body_array(const json_t *object, const char *at, const char *name, const json_t **value,
                problem *p) {
    const json_t *found = member(object, name);
    if (found != NULL && !json_is_array(found))
        return unexpected_member(p, at, name, "an array", found);
    if (found != NULL)
        *value = found;
    return true;
}

bool body_ids(const json_t *array, const char *at, int32_t size, size_t most, int32_t **ids,
              size_t *count, problem *p) {
    char expected[96], path[BODY_PATH_SIZE];
    size_t length = json_array_size(array);
    if (!json_is_array(array) || length > most) {
        snprintf(expected, sizeof expected, "an array of at most %zu token ids", most);
        return body_unexpected(p, at, expected, array);
    }
    int32_t *list = malloc((length > 0 ? length : 1) * sizeof *list);
    if (list == NULL)
        return problem_set(p, 500, NULL, NULL, "out of memory");
    for (size_t i = 0; i < length; i++) {
        const json_t *item = json_array_get(array, i);
        if (!json_is_integer(item) || json_integer_value(item) < 0 ||
            json_integer_value(item) >= size) {
            free(list);
            body_path_index(path, at, i);
            snprintf(expected, sizeof expected, "a token id from 0 to %d", (int)size - 1);
            return body_unexpected(p, path, expected, item);
        }
        list[i] = (int32_t)json_integer_value(item);
    }
    *ids = list;
    *count = length;
    return true;
}
