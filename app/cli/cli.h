/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all commands share: exit codes, messages on standard error, results on standard output,
 * interrupts, and memory. An application of the library: it knows myelin/myelin.h and no more.
 */
#ifndef CLI_H
#define CLI_H

#include <myelin/myelin.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    CLI_OK = 0,
    CLI_FAILED = 1, /* at run time */
    CLI_USAGE = 2,  /* wrong usage */
    CLI_MODEL = 3,  /* bad model */
    CLI_INTERRUPTED = 130
};

struct cli_group;

/* A command: how it is called, told about, and done. */
typedef struct cli_command {
    const char *name;
    const char *synopsis; /* what follows "myelin NAME" */
    const char *summary;  /* one line for the overview */
    const char *details;  /* paragraphs for --help */
    const char *examples; /* lines for --help */
    int (*run)(const struct cli_command *command, int argc, char **argv); /* gives the exit code */
} cli_command;

extern const cli_command cli_command_run;
extern const cli_command cli_command_chat;
extern const cli_command cli_command_batch;
extern const cli_command cli_command_score;
extern const cli_command cli_command_template;
extern const cli_command cli_command_tokenize;
extern const cli_command cli_command_detokenize;
extern const cli_command cli_command_inspect;
extern const cli_command cli_command_quantize;
extern const cli_command cli_command_bench;
extern const cli_command cli_command_serve;

/* ---- Messages: "myelin run: ..." and a newline on standard error ---- */

void cli_message(const cli_command *command, const char *format, ...) MYELIN_PRINTF(2, 3);
/* The message, then where help is. Returns CLI_USAGE. */
int cli_usage(const cli_command *command, const char *format, ...) MYELIN_PRINTF(2, 3);
/* Of names (ended by NULL), the one `word` was probably meant to be, or NULL. */
const char *cli_nearest(const char *word, const char *const *names);

/* The exit code for an error of opening a model, and of using one. */
int cli_open_exit_code(myelin_status status);
int cli_use_exit_code(myelin_status status);

/* ---- Standard output ---- */

/* Opens the standard descriptors that are closed, so that no file of ours takes their place. */
void cli_output_init(void);
/*
 * Writes and flushes. An interrupt waits until it is done, so that no line is cut. Returns false
 * when it failed, now or before.
 */
bool cli_output(const char *text, size_t length);
/* Reports a failed write, except to a pipe nobody reads any more, and gives the exit code. */
int cli_output_result(const cli_command *command);

/* ---- Interrupts: SIGINT ends the program with CLI_INTERRUPTED ---- */

void cli_interrupts_init(void);
/* Between these an interrupt is only noted; a second one ends the program all the same. */
void cli_interrupts_defer(void);
void cli_interrupts_allow(void);
bool cli_interrupted(void);
/* As if one had come, from a thread that waits for signals itself. */
void cli_interrupts_note(void);
/* Forgets an interrupt that has been acted on. */
void cli_interrupts_clear(void);

/* ---- Memory: these end the program with a message when there is none ---- */

void *cli_allocate(size_t size);
void *cli_reallocate(void *memory, size_t size);
/* One more element: grows *items, an array of *count elements of `size` bytes, and returns it. */
void *cli_append(void *items, size_t *count, size_t size);
char *cli_format(const char *format, ...) MYELIN_PRINTF(1, 2);

#endif
