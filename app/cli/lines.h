/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of a file or of standard input, each of bounded length. */
#ifndef CLI_LINES_H
#define CLI_LINES_H

#include "cli.h"

#include <stdint.h>

/* Bytes of a line of input, or of a prompt. */
enum { CLI_MAX_LINE = 64 << 20 };

typedef enum cli_line_status {
    CLI_LINE_READ,
    CLI_LINE_TOO_LONG, /* skipped; it counts as a line */
    CLI_LINE_END,
    CLI_LINE_ERROR, /* errno of reading is in lines->error */
    CLI_LINE_LATER  /* nothing came within the time */
} cli_line_status;

typedef struct cli_lines {
    int descriptor;
    int error;
    char *buffer;
    size_t capacity;
    size_t begin, end; /* bytes read and not given out */
    size_t searched;   /* from begin on: known to hold no newline */
    bool at_end;
    bool skipping;
    int64_t number;      /* of the line given out last, from 1 */
    uint64_t bytes_done; /* given out or skipped */
    uint64_t total;      /* of a regular file, else 0 */
} cli_lines;

/* name NULL or "-": standard input. Returns false with errno when it cannot be opened. */
bool cli_lines_open(cli_lines *lines, const char *name);
void cli_lines_close(cli_lines *lines);

/*
 * The next line that is not blank, without its newline, valid until the next call. Waits for input
 * at most so many milliseconds, -1 for ever.
 */
cli_line_status cli_lines_next(cli_lines *lines, int milliseconds, const char **text,
                               size_t *length);

/*
 * All that is left, as one piece: *text is released with free(). False with errno, EFBIG when it is
 * longer than CLI_MAX_LINE.
 */
bool cli_lines_rest(cli_lines *lines, char **text, size_t *length);

#endif
