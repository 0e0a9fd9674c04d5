/* SPDX-License-Identifier: Apache-2.0 */
/* A line of JSON as a request. */
#ifndef CLI_JSON_REQUEST_H
#define CLI_JSON_REQUEST_H

#include "conversation.h"
#include "generation.h"

/* A request to complete a prompt. What `request` points to lives as long as this. */
typedef struct cli_request {
    json_t *line; /* the line as it was read; strings are borrowed from it */
    int32_t *ids;
    cli_conversation conversation;
    cli_generation generation;
    myelin_generation_options options;
    myelin_constraint *constraint; /* or NULL */
    myelin_request request;
} cli_request;

/* Parses one JSON text, strictly. NULL, saying why, when it is none. */
json_t *cli_json_parse(const char *text, size_t length, cli_why *why);

/* Refuses members that are not in names (ended by NULL). */
bool cli_json_only(const json_t *object, const char *const *names, cli_why *why);

/*
 * Reads a request; options it does not give are as in defaults. Takes `line` over, and *request is
 * to be cleared, also when this fails.
 */
bool cli_request_read(cli_request *request, json_t *line, const cli_generation *defaults,
                      const myelin_model *model, cli_why *why);
void cli_request_clear(cli_request *request);

#endif
