/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "json_request.h"
#include "json_result.h"
#include "lines.h"
#include "progress.h"

json_t *cli_no_answer(myelin_error *error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    error->status = MYELIN_ERROR_ARGUMENT;
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    return NULL;
}

/* Prints the answer to a line that was read, or what is wrong with it. */
static bool print_answer(const char *text, size_t length, int64_t number, cli_answer answer,
                         void *user) {
    cli_why why;
    myelin_error error;
    json_t *value = NULL;
    json_t *line = cli_json_parse(text, length, &why);
    if (line != NULL)
        value = answer(user, line, &error);
    else
        cli_no_answer(&error, "%s", why.text);
    if (value == NULL)
        value = cli_json_error(error.status, number, error.message);
    bool written =
        cli_json_print(value, json_is_object(value) ? json_object_get(line, "id") : NULL);
    json_decref(line);
    return written;
}

static bool print_too_long(int64_t number) {
    cli_why why;
    cli_explain(&why, "expected a line of at most %d bytes, found a longer one", CLI_MAX_LINE);
    return cli_json_print(cli_json_error(MYELIN_ERROR_ARGUMENT, number, why.text), NULL);
}

int cli_answer_lines(const cli_command *command, const char *name, bool quiet, cli_answer answer,
                     void *user) {
    cli_lines lines;
    cli_progress progress;
    cli_line_status status;
    const char *text;
    size_t length;
    bool written = true;
    if (!cli_lines_open(&lines, name)) {
        cli_message(command, "%s: %s", name != NULL ? name : "standard input", strerror(errno));
        return CLI_FAILED;
    }
    cli_progress_begin(&progress, command->name, quiet || isatty(STDOUT_FILENO));
    while (written && (status = cli_lines_next(&lines, -1, &text, &length)) != CLI_LINE_END &&
           status != CLI_LINE_ERROR) {
        if (status == CLI_LINE_READ)
            written = print_answer(text, length, lines.number, answer, user);
        else
            written = print_too_long(lines.number);
        cli_progress_update(&progress, cli_now(), lines.bytes_done, lines.total);
    }
    cli_progress_hide(&progress);
    int code = CLI_FAILED;
    if (lines.error != 0)
        cli_message(command, "cannot read the input: %s", strerror(lines.error));
    else
        code = cli_output_result(command);
    cli_lines_close(&lines);
    return code;
}
