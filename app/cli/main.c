/* SPDX-License-Identifier: Apache-2.0 */
/* The command myelin: finds the command asked for and hands over to it. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const cli_command *const commands[] = {
    &cli_command_run,      &cli_command_chat,     &cli_command_batch,      &cli_command_score,
    &cli_command_template, &cli_command_tokenize, &cli_command_detokenize, &cli_command_inspect,
    &cli_command_quantize, &cli_command_bench,    &cli_command_serve,
};

enum { NUM_COMMANDS = sizeof commands / sizeof *commands };

static const cli_command *find_command(const char *name) {
    for (size_t i = 0; i < NUM_COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

static int unknown_command(const char *name) {
    const char *names[NUM_COMMANDS + 2];
    for (size_t i = 0; i < NUM_COMMANDS; i++)
        names[i] = commands[i]->name;
    names[NUM_COMMANDS] = "help";
    names[NUM_COMMANDS + 1] = NULL;
    const char *nearest = cli_nearest(name, names);
    if (nearest != NULL)
        return cli_usage(NULL, "unknown command \"%.48s\" (did you mean %s?)", name, nearest);
    return cli_usage(NULL, "unknown command \"%.48s\"", name);
}

static void print_overview(FILE *out) {
    fprintf(out, "Usage: myelin COMMAND [-m MODEL] [OPTION]...\n\n"
                 "Generates text with Qwen3 models, straight from their published files.\n\n"
                 "Commands:\n");
    for (size_t i = 0; i < NUM_COMMANDS; i++)
        fprintf(out, "  %-12s%s\n", commands[i]->name, commands[i]->summary);
    fprintf(out, "  help        show the help of a command\n\n"
                 "MODEL is a directory or a name in the Hugging Face cache (Qwen/Qwen3-0.6B).\n"
                 "The default is $MYELIN_MODEL, else the bundled demo.\n\n"
                 "  -h, --help     this text; 'myelin COMMAND --help' for a command's options\n"
                 "  -V, --version  the version\n\n"
                 "Exit status: 0 fine, 1 failed at run time, 2 wrong usage, 3 bad model,\n"
                 "130 interrupted.\n\n"
                 "Example:\n"
                 "  myelin run \"Once upon a time\"\n");
}

static int overview(void) {
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return CLI_FAILED;
    print_overview(out);
    fclose(out);
    cli_output(text, length);
    free(text);
    return cli_output_result(NULL);
}

static int version(void) {
    char *text = cli_format("myelin %s\n", myelin_version());
    cli_output(text, strlen(text));
    free(text);
    return cli_output_result(NULL);
}

/* "myelin help [COMMAND]" */
static int help(int argc, char **argv) {
    char option[] = "--help";
    char *arguments[] = {option, NULL};
    if (argc == 0)
        return overview();
    if (argc > 1)
        return cli_usage(NULL, "help: expected one COMMAND, found %d", argc);
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0 ||
        strcmp(argv[0], "help") == 0)
        return overview();
    const cli_command *command = find_command(argv[0]);
    return command != NULL ? command->run(command, 1, arguments) : unknown_command(argv[0]);
}

int main(int argc, char **argv) {
    cli_output_init();
    cli_interrupts_init();
    /* Parsing a line of JSON ends with a message, not half an object, when memory runs out. */
    json_set_alloc_funcs(cli_allocate, free);
    if (argc < 2) {
        print_overview(stderr);
        return CLI_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return overview();
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        return version();
    if (strcmp(name, "help") == 0)
        return help(argc - 2, argv + 2);
    const cli_command *command = find_command(name);
    if (command == NULL)
        return unknown_command(name);
    return command->run(command, argc - 2, argv + 2);
}
