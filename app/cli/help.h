/* SPDX-License-Identifier: Apache-2.0 */
/* --help, written from the option tables. */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include "options.h"

/* Prints the help of a command on standard output. Returns the exit code. */
int cli_help(const cli_command *command, const cli_group *groups, size_t num_groups);

#endif
