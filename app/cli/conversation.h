/* SPDX-License-Identifier: Apache-2.0 */
/* A conversation as members of a JSON object. */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "options.h"

#include <jansson.h>

/* auto, on, off: a myelin_thinking. */
extern const cli_choice cli_thinking_choices[];

typedef struct cli_conversation {
    char *messages; /* JSON text; NULL when there are none */
    char *tools, *variables;
    myelin_chat_options options; /* points to the two above */
} cli_conversation;

void cli_conversation_init(cli_conversation *conversation);
void cli_conversation_clear(cli_conversation *conversation);

/* Reads one member; *known tells whether it is one of a conversation. */
bool cli_conversation_store(cli_conversation *conversation, const char *key, const json_t *value,
                            bool *known, cli_why *why);

#endif
