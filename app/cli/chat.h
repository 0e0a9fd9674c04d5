/* SPDX-License-Identifier: Apache-2.0 */
/* A conversation at the terminal: what was said, the session it is computed in, and how it shows.
 */
#ifndef CLI_CHAT_H
#define CLI_CHAT_H

#include <jansson.h>

#include "generation.h"

/* How answers are shown. */
typedef struct chat_print {
    bool terminal; /* standard output is one: nothing the model says may control it */
    bool colour;
    bool show_reasoning;
    enum { CHAT_NOTHING, CHAT_REASONING, CHAT_CONTENT } last; /* what this turn wrote last */
    bool in_line; /* what was written does not end in a newline */
} chat_print;

typedef struct chat {
    const cli_command *command;
    myelin_model *model;
    myelin_session *session;
    int32_t max_len;  /* tokens the session holds */
    json_t *messages; /* as 'myelin batch' takes them */
    char *tools;      /* JSON, or NULL */
    myelin_thinking thinking;
    cli_generation *generation;
    json_t *settings; /* array: what /set was given, which *generation borrows from */
    chat_print print;
    bool json;     /* one object a turn in place of text */
    int exit_code; /* CLI_FAILED when a message could not be answered */
    int32_t turns; /* answered */
    int32_t input_tokens, cached_tokens, output_tokens; /* of the last turn */
    double prefill_ms, per_token_ms;
} chat;

/* ---- chat.c ---- */

void chat_add(chat *c, const char *role, const char *text, size_t length);
/* Lets the model answer the messages and keeps its answer; says what went wrong. */
void chat_answer(chat *c);
/* Forgets all messages but those of the system at the beginning. */
void chat_clear(chat *c);
/* Puts a system message at the beginning, in place of the one there; "" takes it away. */
void chat_set_system(chat *c, const char *text);

/* ---- chat_commands.c ---- */

/* Does what a line beginning with a slash says. False: it is time to leave. */
bool chat_command(chat *c, char *line);

/* ---- chat_print.c: a myelin_emit with a chat for `user` ---- */

bool chat_on_piece(void *user, const myelin_piece *piece);
void chat_print_begin(chat_print *print);
void chat_print_end(chat_print *print);

/* ---- chat_input.c: lines typed or piped in ---- */

typedef struct chat_input chat_input;

/* With a terminal on both sides, line editing and a history kept between sessions. */
chat_input *chat_input_open(void);
void chat_input_close(chat_input *input);
/*
 * The next turn: a line, or what stands between two """. NULL at the end of the input. Released
 * with free().
 */
char *chat_input_next(chat_input *input);
bool chat_input_is_terminal(const chat_input *input);

#endif
