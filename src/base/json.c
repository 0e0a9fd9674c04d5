/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"

myelin_status mln_json_load(json_t **out, const char *text, size_t length, const char *file,
                            myelin_error *error) {
    json_error_t problem;
    *out = NULL;
    /* jansson overlooks a NUL that ends a number; none is legal anywhere. */
    const char *nul = length ? memchr(text, 0, length) : NULL;
    if (nul)
        return mln_fail(error, MYELIN_ERROR_FORMAT, file, nul - text,
                        "invalid JSON: expected text, found a NUL byte");
    *out = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &problem);
    if (*out)
        return MYELIN_OK;
    if (json_error_code(&problem) == json_error_out_of_memory)
        return mln_fail_memory(error, length, "a JSON document");
    return mln_fail(error, MYELIN_ERROR_FORMAT, file, problem.position, "invalid JSON: %s",
                    problem.text);
}

myelin_status mln_json_load_file(json_t **out, const char *path, myelin_error *error) {
    mln_buffer text = {0};
    *out = NULL;
    myelin_status status = mln_file_slurp(path, MLN_JSON_SMALL_FILE, &text, error);
    if (status == MYELIN_OK)
        status = mln_json_load(out, text.data, text.length, path, error);
    mln_buffer_free(&text);
    return status;
}

const char *mln_json_kind_name(mln_json_kind kind) {
    static const char *const names[] = {"null",      "false",    "true",
                                        "a number",  "a string", "an object",
                                        "an object", "an array", "an array"};
    return names[kind];
}

const char *mln_json_type_name(const json_t *value) {
    if (!value)
        return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction or exponent";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        return "null";
    }
    return "nothing";
}

bool mln_json_text_is(mln_json_text text, const char *literal) {
    return text.data && text.length == strlen(literal) &&
           memcmp(text.data, literal, text.length) == 0;
}

bool mln_json_integer(mln_json_text text, int64_t *out) {
    size_t i = 0;
    bool negative = text.length > 0 && text.data[0] == '-';
    int64_t value = 0;
    i += negative;
    if (i == text.length)
        return false;
    for (; i < text.length; i++) {
        unsigned digit = (unsigned)(unsigned char)text.data[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_sub_overflow(value, (int64_t)digit, &value))
            return false;
    }
    /* Built as a negative number, whose range is the wider one. */
    if (!negative && __builtin_sub_overflow((int64_t)0, value, &value))
        return false;
    *out = value;
    return true;
}
