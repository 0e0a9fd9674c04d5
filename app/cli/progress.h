/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line on standard error that shows how far something is: only on a terminal, only for what takes
 * longer than a second, and erased when it is over.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct cli_progress {
    FILE *out;         /* NULL: show nothing */
    const char *label; /* "loading" */
    int64_t begun;     /* milliseconds */
    int64_t drawn;     /* when the line was drawn last; 0: it is not there */
    int width;         /* columns of the terminal */
} cli_progress;

/* Standard error when it is a terminal that can redraw a line, else nothing. */
void cli_progress_begin(cli_progress *progress, const char *label, bool quiet);
/* The same with everything given. */
void cli_progress_begin_on(cli_progress *progress, const char *label, FILE *out, int width,
                           int64_t now);
void cli_progress_update(cli_progress *progress, int64_t now, uint64_t done, uint64_t total);
/* Takes the line away, so that something else can be written; a later update draws it again. */
void cli_progress_hide(cli_progress *progress);

/* Milliseconds of a clock that only goes forward. */
int64_t cli_now(void);

#endif
