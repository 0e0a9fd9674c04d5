/* SPDX-License-Identifier: Apache-2.0 */
/* What is printed: results and errors as a line of JSON. */
#ifndef CLI_JSON_RESULT_H
#define CLI_JSON_RESULT_H

#include "cli.h"

#include <jansson.h>
#include <stdint.h>

/* A number JSON can hold, else null: -Infinity is a log-probability too. */
json_t *cli_json_real(double value);
json_t *cli_json_reals(const float *values, size_t count);
json_t *cli_json_ids(const int32_t *ids, size_t count);
/* A string, with ? for bytes above 127 when they are no UTF-8. */
json_t *cli_json_text(const char *text, size_t length);

json_t *cli_json_result(const myelin_result *result);
/* {"error": {"status", "message"}}; the message begins with "line N: " when line is not 0. */
json_t *cli_json_error(myelin_status status, int64_t line, const char *message);

/*
 * The text of a line, newline included, released with free(). With id not NULL, the object has it
 * as its first member. Takes `value` over, not id.
 */
char *cli_json_line(json_t *value, const json_t *id, size_t *length);
/* Prints such a line; false when that failed. */
bool cli_json_print(json_t *value, const json_t *id);

#endif
