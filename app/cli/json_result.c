/* SPDX-License-Identifier: Apache-2.0 */
#include "json_result.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Enough to tell any two floats apart; an "id" is given back with every digit it may have had. */
enum { FLOAT_DIGITS = 9, DOUBLE_DIGITS = 17 };

json_t *cli_json_real(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* Milliseconds, to the microsecond. */
static json_t *milliseconds(double value) {
    return cli_json_real(round(value * 1000) / 1000);
}

json_t *cli_json_reals(const float *values, size_t count) {
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, cli_json_real((double)values[i]));
    return array;
}

json_t *cli_json_ids(const int32_t *ids, size_t count) {
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_integer(ids[i]));
    return array;
}

json_t *cli_json_text(const char *text, size_t length) {
    json_t *string = json_stringn(text, length);
    if (string != NULL)
        return string;
    char *ascii = cli_allocate(length);
    for (size_t i = 0; i < length; i++)
        ascii[i] = (char)((unsigned char)text[i] < 0x80 ? text[i] : '?');
    string = json_stringn(ascii, length);
    free(ascii);
    return string;
}

static json_t *top_logprobs(const myelin_result *result) {
    size_t width = (size_t)result->num_top;
    json_t *tokens = json_array();
    for (size_t i = 0; i < result->num_tokens; i++) {
        json_t *best = json_array();
        for (size_t j = i * width; j < (i + 1) * width; j++) {
            json_t *one = json_object();
            json_object_set_new(one, "id", json_integer(result->top_ids[j]));
            json_object_set_new(one, "logprob", cli_json_real((double)result->top_logprobs[j]));
            json_array_append_new(best, one);
        }
        json_array_append_new(tokens, best);
    }
    return tokens;
}

/* An assistant's turn taken apart, beside its text. */
static void add_turn(json_t *object, const myelin_turn *turn) {
    json_t *calls = json_array(), *warnings = json_array();
    json_object_set_new(object, "reasoning",
                        cli_json_text(turn->reasoning, turn->reasoning_length));
    json_object_set_new(object, "content", cli_json_text(turn->content, turn->content_length));
    for (size_t i = 0; i < turn->num_tool_calls; i++) {
        const myelin_tool_call *call = &turn->tool_calls[i];
        json_t *one = json_object();
        json_object_set_new(one, "name", cli_json_text(call->name, strlen(call->name)));
        json_object_set_new(one, "arguments",
                            cli_json_text(call->arguments, strlen(call->arguments)));
        json_array_append_new(calls, one);
    }
    json_object_set_new(object, "tool_calls", calls);
    for (size_t i = 0; i < turn->num_warnings; i++)
        json_array_append_new(warnings,
                              cli_json_text(turn->warnings[i], strlen(turn->warnings[i])));
    json_object_set_new(object, "warnings", warnings);
}

json_t *cli_json_result(const myelin_result *result) {
    json_t *object = json_object();
    json_t *tokens = json_object();
    json_t *timing = json_object();
    json_object_set_new(object, "text",
                        result->text != NULL ? cli_json_text(result->text, result->text_length)
                                             : json_null());
    json_object_set_new(object, "token_ids", cli_json_ids(result->token_ids, result->num_tokens));
    json_object_set_new(object, "num_tokens", json_integer((json_int_t)result->num_tokens));
    json_object_set_new(object, "finish_reason",
                        json_string(myelin_finish_reason_text(result->finish_reason)));
    json_object_set_new(tokens, "input", json_integer(result->input_tokens));
    json_object_set_new(tokens, "cached", json_integer(result->cached_tokens));
    json_object_set_new(tokens, "output", json_integer((json_int_t)result->num_tokens));
    json_object_set_new(object, "token_summary", tokens);
    json_object_set_new(timing, "prefill_ms", milliseconds(result->prefill_ms));
    json_object_set_new(timing, "per_token_ms", milliseconds(result->per_token_ms));
    json_object_set_new(timing, "total_ms", milliseconds(result->total_ms));
    json_object_set_new(object, "timing", timing);
    if (result->turn != NULL)
        add_turn(object, result->turn);
    if (result->logprobs != NULL)
        json_object_set_new(object, "logprobs",
                            cli_json_reals(result->logprobs, result->num_tokens));
    if (result->top_ids != NULL && result->top_logprobs != NULL)
        json_object_set_new(object, "top_logprobs", top_logprobs(result));
    return object;
}

json_t *cli_json_error(myelin_status status, int64_t line, const char *message) {
    char *text = line != 0 ? cli_format("line %lld: %s", (long long)line, message)
                           : cli_format("%s", message);
    json_t *error = json_object();
    json_object_set_new(error, "status", json_string(myelin_status_name(status)));
    json_object_set_new(error, "message", cli_json_text(text, strlen(text)));
    free(text);
    json_t *object = json_object();
    json_object_set_new(object, "error", error);
    return object;
}

/*
 * Text may hold characters that some programs take for the end of a line (U+0085, U+2028, U+2029).
 * They can only stand inside a string, so escaping them keeps the value and one object a line.
 */
static char *escape_line_separators(char *json) {
    static const struct {
        const char *character, *escape;
    } separators[] = {
        {"\xc2\x85", "\\u0085"}, {"\xe2\x80\xa8", "\\u2028"}, {"\xe2\x80\xa9", "\\u2029"}};
    enum { GROWTH = 3, ESCAPE = 6 }; /* two bytes become six */
    char *escaped = json != NULL ? malloc(strlen(json) * GROWTH + 1) : NULL, *to = escaped;
    if (escaped == NULL) {
        free(json);
        return NULL;
    }
    for (const char *from = json; *from != '\0';) {
        size_t i = 0, count = sizeof separators / sizeof separators[0];
        while (i < count &&
               strncmp(from, separators[i].character, strlen(separators[i].character)) != 0)
            i++;
        if (i == count) {
            *to++ = *from++;
            continue;
        }
        memcpy(to, separators[i].escape, ESCAPE);
        to += ESCAPE;
        from += strlen(separators[i].character);
    }
    *to = '\0';
    free(json);
    return escaped;
}

char *cli_json_line(json_t *value, const json_t *id, size_t *length) {
    const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY;
    char *body =
        escape_line_separators(json_dumps(value, flags | JSON_REAL_PRECISION(FLOAT_DIGITS)));
    char *name = NULL;
    if (id != NULL)
        name = escape_line_separators(json_dumps(id, flags | JSON_REAL_PRECISION(DOUBLE_DIGITS)));
    json_decref(value);
    if (body == NULL || (id != NULL && name == NULL)) {
        fputs("myelin: out of memory\n", stderr);
        exit(CLI_FAILED);
    }
    char *line =
        name != NULL ? cli_format("{\"id\":%s,%s\n", name, body + 1) : cli_format("%s\n", body);
    *length = strlen(line);
    free(name);
    free(body);
    return line;
}

bool cli_json_print(json_t *value, const json_t *id) {
    size_t length;
    char *line = cli_json_line(value, id, &length);
    bool written = cli_output(line, length);
    free(line);
    return written;
}
