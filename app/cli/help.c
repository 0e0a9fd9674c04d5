/* SPDX-License-Identifier: Apache-2.0 */
#include "help.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMN = 32, HELP_WIDTH = 80 };

/* Breaks text at spaces, between HELP_COLUMN and HELP_WIDTH. */
static void print_wrapped(FILE *out, const char *text) {
    size_t column = 0;
    size_t room = HELP_WIDTH - HELP_COLUMN;
    while (*text != '\0') {
        size_t length = strcspn(text, " ");
        if (column != 0 && column + 1 + length > room) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            column = 0;
        }
        fprintf(out, "%s%.*s", column == 0 ? "" : " ", (int)length, text);
        column += length + (column != 0);
        text += length + (text[length] == ' ');
    }
    fputc('\n', out);
}

/* What may be given, after the help text: " (0 to 1)", " (auto, cpu, cuda)". */
static void print_range(FILE *out, const cli_option *option) {
    if (option->kind == CLI_INT32 || option->kind == CLI_REAL) {
        fprintf(out, " (%s%.10g to %.10g)", option->above_min ? "above " : "", option->min,
                option->max);
    } else if (option->kind == CLI_CHOICE) {
        for (const cli_choice *choice = option->choices; choice->name != NULL; choice++)
            fprintf(out, "%s%s", choice == option->choices ? " (" : ", ", choice->name);
        fputc(')', out);
    }
}

static void print_option(FILE *out, const cli_option *option) {
    char letter[8] = "    ";
    if (option->letter != 0)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    int used =
        fprintf(out, "  %s--%s%s%s", letter, option->name, option->argument != NULL ? " " : "",
                option->argument != NULL ? option->argument : "");
    if (used >= HELP_COLUMN)
        fprintf(out, "\n%*s", HELP_COLUMN, "");
    else
        fprintf(out, "%*s", HELP_COLUMN - used, "");
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    if (memory != NULL) {
        fputs(option->help, memory);
        print_range(memory, option);
        fclose(memory);
        print_wrapped(out, text);
        free(text);
    }
}

int cli_help(const cli_command *command, const cli_group *groups, size_t num_groups) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return CLI_FAILED;
    fprintf(out, "Usage: myelin %s %s\n\n%s\n", command->name, command->synopsis, command->details);
    for (size_t g = 0; g < num_groups; g++) {
        fprintf(out, "\n%s:\n", groups[g].title);
        for (size_t i = 0; i < groups[g].count; i++) {
            if (groups[g].options[i].name != NULL)
                print_option(out, &groups[g].options[i]);
        }
    }
    fprintf(out, "\n  -h, --help                    this text\n\nExamples:\n%s\n",
            command->examples);
    fclose(out);
    cli_output(text, size);
    free(text);
    return cli_output_result(command);
}
