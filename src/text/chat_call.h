/* SPDX-License-Identifier: Apache-2.0 */
/* What stands between <tool_call> and </tool_call>. */
#ifndef MLN_TEXT_CHAT_CALL_H
#define MLN_TEXT_CHAT_CALL_H

#include <stddef.h>

#include "base/memory.h"
#include "myelin/status.h"

enum { MLN_CHAT_MAX_NAME = 256 /* bytes of a function's name */ };

typedef struct mln_chat_call {
    mln_buffer name;      /* 1 to MLN_CHAT_MAX_NAME bytes, no control characters */
    mln_buffer arguments; /* may hold NUL when they were a string with \u0000 */
} mln_chat_call;

/*
 * Reads a JSON object with "name", a string, and "arguments". Arguments that are an object become
 * its text exactly as written, from brace to brace; a string becomes what it says; none become
 * "{}". Other keys are ignored. MYELIN_ERROR_FORMAT: it is no such object (strict JSON, well-formed
 * UTF-8, no key twice at any level, at most MLN_JSON_MAX_DEPTH levels). *call is zeroed on failure.
 */
myelin_status mln_chat_call_parse(mln_chat_call *call, const char *text, size_t length,
                                  myelin_error *error);
void mln_chat_call_free(mln_chat_call *call); /* accepts a zeroed one, leaves it zeroed */

#endif
