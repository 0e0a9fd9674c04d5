/* SPDX-License-Identifier: Apache-2.0 */
#include "lines.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIRST_CAPACITY = 64 << 10 };

bool cli_lines_open(cli_lines *lines, const char *name) {
    struct stat info;
    memset(lines, 0, sizeof *lines);
    lines->descriptor = STDIN_FILENO;
    if (name != NULL && strcmp(name, "-") != 0)
        lines->descriptor = open(name, O_RDONLY | O_CLOEXEC);
    if (lines->descriptor < 0)
        return false;
    if (fstat(lines->descriptor, &info) == 0 && S_ISDIR(info.st_mode)) {
        cli_lines_close(lines);
        errno = EISDIR;
        return false;
    }
    if (fstat(lines->descriptor, &info) == 0 && S_ISREG(info.st_mode))
        lines->total = (uint64_t)info.st_size;
    return true;
}

void cli_lines_close(cli_lines *lines) {
    if (lines->descriptor > STDIN_FILENO)
        close(lines->descriptor);
    free(lines->buffer);
    memset(lines, 0, sizeof *lines);
}

/* Room for at least one more byte after `end`; the unread bytes move to the front. */
static void make_room(cli_lines *lines) {
    if (lines->begin > 0) {
        memmove(lines->buffer, lines->buffer + lines->begin, lines->end - lines->begin);
        lines->end -= lines->begin;
        lines->begin = 0;
    }
    if (lines->end == lines->capacity) {
        lines->capacity = lines->capacity == 0 ? FIRST_CAPACITY : lines->capacity * 2;
        lines->buffer = cli_reallocate(lines->buffer, lines->capacity);
    }
}

/* Reads some bytes. False at the end, after an error, or when nothing came in time. */
static bool fill(cli_lines *lines, int milliseconds, bool *late) {
    struct pollfd waiting = {.fd = lines->descriptor, .events = POLLIN};
    if (milliseconds >= 0 && poll(&waiting, 1, milliseconds) == 0) {
        *late = true;
        return false;
    }
    make_room(lines);
    ssize_t got;
    do {
        got = read(lines->descriptor, lines->buffer + lines->end, lines->capacity - lines->end);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        lines->at_end = true;
        lines->error = got < 0 ? errno : 0;
        return false;
    }
    lines->end += (size_t)got;
    return true;
}

static bool is_blank(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    }
    return true;
}

/* Gives out `length` bytes, and the newline after them when there is one. */
static const char *take(cli_lines *lines, size_t length, bool newline) {
    const char *text = lines->buffer + lines->begin;
    lines->begin += length + newline;
    lines->bytes_done += length + newline;
    lines->searched = 0;
    return text;
}

/* Takes a line that is in the buffer, or the unfinished last one at the end of the input. */
static bool take_line(cli_lines *lines, const char **text, size_t *length) {
    size_t unread = lines->end - lines->begin;
    const char *newline = NULL;
    if (unread > lines->searched)
        newline =
            memchr(lines->buffer + lines->begin + lines->searched, '\n', unread - lines->searched);
    lines->searched = unread;
    if (newline != NULL)
        *length = (size_t)(newline - (lines->buffer + lines->begin));
    else if (lines->at_end && unread > 0)
        *length = unread;
    else
        return false;
    *text = take(lines, *length, newline != NULL);
    return true;
}

cli_line_status cli_lines_next(cli_lines *lines, int milliseconds, const char **text,
                               size_t *length) {
    for (;;) {
        bool late = false;
        if (take_line(lines, text, length)) {
            lines->number++;
            if (lines->skipping) {
                lines->skipping = false;
                return CLI_LINE_TOO_LONG;
            }
            if (*length > CLI_MAX_LINE)
                return CLI_LINE_TOO_LONG;
            if (!is_blank(*text, *length))
                return CLI_LINE_READ;
            continue;
        }
        if (lines->end - lines->begin > CLI_MAX_LINE) {
            take(lines, lines->end - lines->begin, false);
            lines->skipping = true;
        }
        if (lines->at_end && lines->skipping) {
            lines->skipping = false;
            lines->number++;
            return CLI_LINE_TOO_LONG;
        }
        if (lines->at_end)
            return lines->error != 0 ? CLI_LINE_ERROR : CLI_LINE_END;
        if (!fill(lines, milliseconds, &late) && late)
            return CLI_LINE_LATER;
    }
}

bool cli_lines_rest(cli_lines *lines, char **text, size_t *length) {
    bool late = false;
    while (lines->end - lines->begin <= CLI_MAX_LINE && fill(lines, -1, &late))
        continue;
    if (lines->error != 0 || lines->end - lines->begin > CLI_MAX_LINE) {
        errno = lines->error != 0 ? lines->error : EFBIG;
        return false;
    }
    *length = lines->end - lines->begin;
    *text = cli_allocate(*length + 1);
    if (*length > 0)
        memcpy(*text, lines->buffer + lines->begin, *length);
    (*text)[*length] = '\0';
    lines->begin = lines->end;
    return true;
}
