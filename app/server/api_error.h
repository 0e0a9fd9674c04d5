/* SPDX-License-Identifier: Apache-2.0 */
/* Errors in the shape OpenAI's clients read: {"error": {"message", "type", "param", "code"}}. */
#ifndef MLN_SERVER_API_ERROR_H
#define MLN_SERVER_API_ERROR_H

#include "http.h"

/* What an answer's "type" says, by its status: "invalid_request_error" for 400 and so on. */
const char *api_error_type(int status);

/*
 * The object as text, released with free(); NULL when memory is short. param and code may be NULL.
 * A message that is no UTF-8 has what is ill-formed replaced.
 */
char *api_error_text(int status, const char *param, const char *code, const char *message);

/* Answers with it. */
void api_error_respond(http_exchange *exchange, int status, const char *param, const char *code,
                       const char *format, ...) MYELIN_PRINTF(5, 6);

#endif
