/* SPDX-License-Identifier: Apache-2.0 */
/* Checking a tokenizer against recorded results of the reference. Include after cmocka.h. */
#ifndef TESTS_TEXT_REFERENCE_H
#define TESTS_TEXT_REFERENCE_H

#include <jansson.h>

#include "text/tokenizer.h"

/* One case: {"text"?, "ids", "decoded", "skipped"?}. Fails the test when anything differs. */
void check_case(const mln_tokenizer *tokenizer, const json_t *c, const char *name);

/* Calls visit for each line of a file of JSON objects, fails when it cannot be read. */
size_t each_line(const char *path, void (*visit)(const json_t *line, void *context), void *context);

#endif
