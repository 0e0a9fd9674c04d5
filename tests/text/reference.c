/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "text/reference.h"

static void check_encoding(const mln_tokenizer *t, const json_t *text, const json_t *ids,
                           const char *name) {
    mln_ids found = {0};
    myelin_error error;
    if (mln_tokenizer_encode(t, json_string_value(text), json_string_length(text),
                             MLN_ADDED_AS_TOKENS, &found, &error) != MYELIN_OK)
        fail_msg("%s: `%s`: %s", name, json_string_value(text), error.message);
    size_t expected = json_array_size(ids);
    for (size_t i = 0; i < expected && i < found.count; i++)
        if (json_integer_value(json_array_get(ids, i)) != found.data[i])
            fail_msg("%s: `%s`: expected id %d at %zu, found %d", name, json_string_value(text),
                     (int)json_integer_value(json_array_get(ids, i)), i, found.data[i]);
    if (expected != found.count)
        fail_msg("%s: `%s`: expected %zu ids, found %zu", name, json_string_value(text), expected,
                 found.count);
    mln_ids_free(&found);
}

static void check_decoding(const mln_tokenizer *t, const json_t *list, const json_t *expected,
                           bool skip, const char *name) {
    size_t n = json_array_size(list);
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    mln_buffer text = {0};
    myelin_error error;
    if (mln_tokenizer_decode(t, ids, n, skip, &text, &error) != MYELIN_OK)
        fail_msg("%s: %s", name, error.message);
    if (text.length != json_string_length(expected) ||
        (text.length && memcmp(text.data, json_string_value(expected), text.length) != 0))
        fail_msg("%s: decoding: expected `%s`, found `%s`", name, json_string_value(expected),
                 text.data ? text.data : "");
    mln_buffer_free(&text);
    free(ids);
}

void check_case(const mln_tokenizer *tokenizer, const json_t *c, const char *name) {
    const json_t *text = json_object_get(c, "text"), *ids = json_object_get(c, "ids");
    const json_t *skipped = json_object_get(c, "skipped");
    assert_true(json_is_array(ids));
    assert_true(json_is_string(json_object_get(c, "decoded")));
    if (text)
        check_encoding(tokenizer, text, ids, name);
    check_decoding(tokenizer, ids, json_object_get(c, "decoded"), false, name);
    if (skipped)
        check_decoding(tokenizer, ids, skipped, true, name);
}

size_t each_line(const char *path, void (*visit)(const json_t *line, void *context),
                 void *context) {
    mln_buffer text = {0};
    myelin_error error;
    if (mln_file_slurp(path, 16 << 20, &text, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    size_t count = 0;
    for (const char *line = text.data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        json_t *value = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
        if (!value)
            fail_msg("%s: line %zu is no JSON", path, count + 1);
        visit(value, context);
        json_decref(value);
        count++;
    }
    mln_buffer_free(&text);
    return count;
}
