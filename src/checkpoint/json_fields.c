/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/json_fields.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/error.h"

const char *mln_json_describe(const json_t *value, char text[MLN_VALUE_TEXT]) {
    if (json_is_integer(value))
        snprintf(text, MLN_VALUE_TEXT, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        /* 64.0 is not an integer here, and the message must let one see it. */
        snprintf(text, MLN_VALUE_TEXT, "%.17g%s", json_real_value(value),
                 json_real_value(value) == floor(json_real_value(value)) &&
                         fabs(json_real_value(value)) < 1e17
                     ? ".0"
                     : "");
    else if (json_is_string(value))
        snprintf(text, MLN_VALUE_TEXT, "\"%.80s\"", json_string_value(value));
    else
        snprintf(text, MLN_VALUE_TEXT, "%s", mln_json_type_name(value));
    return text;
}

myelin_status mln_field_fail(const mln_fields *fields, myelin_status status, const char *key,
                             const char *expected) {
    char found[MLN_VALUE_TEXT];
    return mln_fail(fields->error, status, fields->file, -1, "%s%.200s: expected %s, found %s",
                    fields->section, key, expected,
                    mln_json_describe(json_object_get(fields->object, key), found));
}

json_t *mln_field_get(const mln_fields *fields, const char *key) {
    json_t *value = json_object_get(fields->object, key);
    return json_is_null(value) ? NULL : value;
}

/* True when there is nothing to read and that is fine. */
static bool may_skip(const json_t *value, mln_presence presence) {
    return value ? json_is_null(value) && presence == MLN_FIELD_NULLABLE
                 : presence != MLN_FIELD_REQUIRED;
}

myelin_status mln_field_int32(const mln_fields *fields, const char *key, mln_presence presence,
                              int32_t low, int32_t high, int32_t *value) {
    const json_t *found = json_object_get(fields->object, key);
    if (may_skip(found, presence))
        return MYELIN_OK;
    if (!json_is_integer(found) || json_integer_value(found) < low ||
        json_integer_value(found) > high) {
        char expected[64];
        snprintf(expected, sizeof expected, "an integer from %" PRId32 " to %" PRId32, low, high);
        return mln_field_fail(fields, MYELIN_ERROR_FORMAT, key, expected);
    }
    *value = (int32_t)json_integer_value(found);
    return MYELIN_OK;
}

myelin_status mln_field_number(const mln_fields *fields, const char *key, mln_presence presence,
                               mln_range range, double *value) {
    const json_t *found = json_object_get(fields->object, key);
    if (may_skip(found, presence))
        return MYELIN_OK;
    double number = json_number_value(found);
    if (!json_is_number(found) || !(number >= range.low && number <= range.high) ||
        (range.above_low && number <= range.low)) {
        char expected[96];
        snprintf(expected, sizeof expected,
                 range.above_low ? "a number above %g, at most %g" : "a number from %g to %g",
                 range.low, range.high);
        return mln_field_fail(fields, MYELIN_ERROR_FORMAT, key, expected);
    }
    *value = number;
    return MYELIN_OK;
}

myelin_status mln_field_bool(const mln_fields *fields, const char *key, mln_presence presence,
                             bool *value) {
    const json_t *found = json_object_get(fields->object, key);
    if (may_skip(found, presence))
        return MYELIN_OK;
    if (!json_is_boolean(found))
        return mln_field_fail(fields, MYELIN_ERROR_FORMAT, key, "true or false");
    *value = json_is_true(found);
    return MYELIN_OK;
}

myelin_status mln_field_string(const mln_fields *fields, const char *key, mln_presence presence,
                               const char **value) {
    const json_t *found = json_object_get(fields->object, key);
    if (may_skip(found, presence))
        return MYELIN_OK;
    if (!json_is_string(found))
        return mln_field_fail(fields, MYELIN_ERROR_FORMAT, key, "a string");
    *value = json_string_value(found);
    return MYELIN_OK;
}

myelin_status mln_field_ids(const mln_fields *fields, const char *key, int32_t *ids, int32_t room,
                            int32_t *count) {
    const json_t *found = mln_field_get(fields, key);
    *count = 0;
    if (!found)
        return MYELIN_OK;
    size_t length = json_is_array(found) ? json_array_size(found) : 1;
    if (length > (size_t)room)
        return mln_fail(fields->error, MYELIN_ERROR_FORMAT, fields->file, -1,
                        "%s%s: expected at most %" PRId32 " token ids, found %zu", fields->section,
                        key, room, length);
    for (size_t i = 0; i < length; i++) {
        const json_t *id = json_is_array(found) ? json_array_get(found, i) : found;
        char text[MLN_VALUE_TEXT];
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return mln_fail(fields->error, MYELIN_ERROR_FORMAT, fields->file, -1,
                            "%s%s: expected a token id (an integer from 0 to %d) or a list of "
                            "them, found %s",
                            fields->section, key, INT32_MAX, mln_json_describe(id, text));
        ids[i] = (int32_t)json_integer_value(id);
    }
    *count = (int32_t)length;
    return MYELIN_OK;
}
