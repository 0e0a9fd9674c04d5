/* SPDX-License-Identifier: Apache-2.0 */
/* When a serving's first token comes, for programs that measure. */
#ifndef MLN_TESTS_FIRST_TOKEN_H
#define MLN_TESTS_FIRST_TOKEN_H

#include "myelin/myelin.h"

/*
 * Milliseconds from a request of ids[count] to its first token, after the request has ended;
 * *cached becomes the number of the prompt's tokens that were read before, unless it is NULL. Any
 * error ends the program.
 */
double first_token_ms(myelin_serving *serving, const int32_t *ids, size_t count, int32_t *cached);

/* Ends the program with the error, if there is one. */
void require_ok(myelin_status status, const myelin_error *error);

#endif
