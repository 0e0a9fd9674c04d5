/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void cli_message(const cli_command *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "myelin%s%s: ", command != NULL ? " " : "",
            command != NULL ? command->name : "");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

int cli_usage(const cli_command *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "myelin%s%s: ", command != NULL ? " " : "",
            command != NULL ? command->name : "");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "; try 'myelin%s%s --help'\n", command != NULL ? " " : "",
            command != NULL ? command->name : "");
    va_end(arguments);
    return CLI_USAGE;
}

enum { NEAREST_MAX_LENGTH = 32, NEAREST_MAX_DISTANCE = 2 };

/* Insertions, deletions and replacements that turn a into b, both at most NEAREST_MAX_LENGTH. */
static size_t edit_distance(const char *a, const char *b) {
    size_t row[NEAREST_MAX_LENGTH + 1];
    size_t length = strlen(b);
    for (size_t j = 0; j <= length; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < length; j++) {
            size_t best = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (diagonal + 1 < best)
                best = diagonal + 1;
            row[j + 1] = best;
        }
    }
    return row[length];
}

const char *cli_nearest(const char *word, const char *const *names) {
    const char *nearest = NULL;
    size_t least = NEAREST_MAX_DISTANCE + 1;
    size_t length = strlen(word);
    if (length > NEAREST_MAX_LENGTH)
        return NULL;
    for (; *names != NULL; names++) {
        bool beginning = length >= 2 && strncmp(word, *names, length) == 0;
        size_t distance = beginning ? 1 : edit_distance(word, *names);
        if (distance < least && distance < length) {
            least = distance;
            nearest = *names;
        }
    }
    return nearest;
}

int cli_open_exit_code(myelin_status status) {
    switch (status) {
    case MYELIN_OK:
        return CLI_OK;
    case MYELIN_ERROR_ARGUMENT:
        return CLI_USAGE;
    case MYELIN_ERROR_FORMAT:
    case MYELIN_ERROR_UNSUPPORTED:
    case MYELIN_ERROR_NOT_FOUND:
    case MYELIN_ERROR_IO:
        return CLI_MODEL;
    case MYELIN_ERROR_CANCELLED:
        return CLI_INTERRUPTED;
    default:
        return CLI_FAILED;
    }
}

int cli_use_exit_code(myelin_status status) {
    switch (status) {
    case MYELIN_OK:
        return CLI_OK;
    case MYELIN_ERROR_ARGUMENT:
    case MYELIN_ERROR_CACHE_FULL: /* the prompt is longer than --max-len */
        return CLI_USAGE;
    case MYELIN_ERROR_CANCELLED:
        return CLI_INTERRUPTED;
    default:
        return CLI_FAILED;
    }
}

/* The error of the first failed write to standard output, or 0. */
static int output_error;

void cli_output_init(void) {
    /* Opened the wrong way round on purpose: using them still fails. */
    for (int descriptor = 0; descriptor <= 2; descriptor++) {
        if (fcntl(descriptor, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY);
    }
}

bool cli_output(const char *text, size_t length) {
    if (output_error != 0)
        return false;
    cli_interrupts_defer();
    if (fwrite(text, 1, length, stdout) != length || fflush(stdout) != 0)
        output_error = errno != 0 ? errno : EIO;
    cli_interrupts_allow();
    return output_error == 0;
}

int cli_output_result(const cli_command *command) {
    if (output_error == 0)
        return CLI_OK;
    if (output_error != EPIPE)
        cli_message(command, "cannot write to standard output: %s", strerror(output_error));
    return CLI_FAILED;
}

static void *check_memory(void *memory) {
    if (memory == NULL) {
        fputs("myelin: out of memory\n", stderr);
        exit(CLI_FAILED);
    }
    return memory;
}

void *cli_allocate(size_t size) {
    return check_memory(malloc(size != 0 ? size : 1));
}

void *cli_reallocate(void *memory, size_t size) {
    return check_memory(realloc(memory, size != 0 ? size : 1));
}

void *cli_append(void *items, size_t *count, size_t size) {
    /* Room for a power of two: grown when the count reaches one. */
    if ((*count & (*count - 1)) == 0) {
        size_t capacity = *count == 0 ? 1 : *count * 2;
        check_memory(capacity <= SIZE_MAX / size ? &capacity : NULL);
        items = cli_reallocate(items, capacity * size);
    }
    *count += 1;
    return items;
}

char *cli_format(const char *format, ...) {
    va_list arguments;
    char *text = NULL;
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        text = NULL;
    va_end(arguments);
    return check_memory(text);
}
