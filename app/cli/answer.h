/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that answer each line of JSON with one. */
#ifndef CLI_ANSWER_H
#define CLI_ANSWER_H

#include "cli.h"

#include <jansson.h>

/* The answer to one line; NULL with *error when there is none. */
typedef json_t *(*cli_answer)(void *user, const json_t *line, myelin_error *error);

/* An error of the line itself. Returns NULL. */
json_t *cli_no_answer(myelin_error *error, const char *format, ...) MYELIN_PRINTF(2, 3);

/* Answers all lines of a file; NULL or "-" is standard input. Returns the exit code. */
int cli_answer_lines(const cli_command *command, const char *name, bool quiet, cli_answer answer,
                     void *user);

#endif
