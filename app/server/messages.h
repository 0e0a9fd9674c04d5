/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A conversation as OpenAI's clients write it, made into what chat templates read: contents as
 * strings, arguments of calls as objects, nothing else besides.
 */
#ifndef MLN_SERVER_MESSAGES_H
#define MLN_SERVER_MESSAGES_H

#include "body.h"
#include "myelin/myelin.h"

enum { MESSAGES_MAX_TOOLS = 128 };

/* The messages of /v1/chat/completions; a new reference, NULL with the problem. */
json_t *messages_from_chat(const json_t *messages, const char *at, problem *p);
/* The input of /v1/responses, a string or items, after the instructions (NULL: none). */
json_t *messages_from_items(const json_t *input, const char *instructions, size_t length,
                            problem *p);

/* How tools may be called. */
typedef struct tool_choice {
    bool none, required;
    const char *name; /* the only one to be called, or NULL; borrowed from the body */
} tool_choice;

/*
 * Tools in the form of chat completions, checked: *tools is a new reference, NULL when there are
 * none or the choice is none. `flat` reads those of /v1/responses.
 */
bool tools_read(const json_t *body, bool flat, json_t **tools, tool_choice *choice, problem *p);

/*
 * The schema an answer must follow, as JSON text released with free(), or NULL: `format` is
 * response_format of chat completions or, when `flat`, text.format of /v1/responses.
 */
bool format_read(const json_t *format, const char *at, bool flat, char **schema, problem *p);

#endif
