/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options as tables: one row gives an option's name, the kind and range of its argument, where its
 * value goes and its help text. The command line, a line of JSON and --help all go by the same row.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "cli.h"

#include <jansson.h>
#include <stdint.h>

typedef enum cli_kind {
    CLI_FLAG,     /* bool: true when given; JSON: true or false */
    CLI_FLAG_OFF, /* bool: false when given; JSON: the value itself */
    CLI_TEXT,     /* const char *, borrowed from argv */
    CLI_INT32,    /* int32_t, min to max */
    CLI_UINT64,   /* uint64_t */
    CLI_REAL,     /* double, min to max */
    CLI_CHOICE,   /* an int-sized enum, by name */
    CLI_CUSTOM    /* read by the row's own functions */
} cli_kind;

typedef struct cli_choice {
    const char *name; /* NULL ends the list */
    int value;
} cli_choice;

/* Why an argument is refused: what was expected and found, without the option's name. */
typedef struct cli_why {
    char text[256];
} cli_why;

typedef struct cli_option {
    const char *name;     /* without the dashes; NULL: only in JSON */
    char letter;          /* or 0 */
    const char *json;     /* member of a JSON request; NULL: only on the command line */
    cli_kind kind;        /* of the argument */
    const char *argument; /* its name in --help; NULL for flags */
    const char *help;
    size_t offset; /* of the value in the struct the group is about */
    double min, max;
    bool above_min; /* the value is greater than min, not equal */
    const cli_choice *choices;
    bool (*read_text)(void *base, const char *text, cli_why *why);
    bool (*read_json)(void *base, const json_t *value, cli_why *why);
} cli_option;

/* Options that stand together in --help and are stored in one struct. */
typedef struct cli_group {
    const char *title;
    const cli_option *options; /* at most 64 */
    size_t count;
    void *base;      /* the struct */
    uint64_t *given; /* bit i: options[i] was given; may be NULL */
} cli_group;

/*
 * Reads a command line. What is no option is moved to the front of argv, *count of them. Returns
 * true to go on; else *code is what to exit with: help was asked for, or something was wrong and
 * has been said.
 */
bool cli_parse(const cli_command *command, const cli_group *groups, size_t num_groups, int argc,
               char **argv, int *count, int *code);

/* Stores a JSON value where the option's argument would go. */
bool cli_store_json(const cli_option *option, void *base, const json_t *value, cli_why *why);

/* Bytes of the value of a kind that is copied as it is; 0 for others. */
size_t cli_kind_size(cli_kind kind);

/* Decimal digits with an optional sign and nothing else, min to max. */
bool cli_read_integer(const char *text, int64_t min, int64_t max, int64_t *value);
/* A decimal number with nothing before or after it. */
bool cli_read_real(const char *text, double *value);

void cli_explain(cli_why *why, const char *format, ...) MYELIN_PRINTF(2, 3);
/* "expected EXPECTED, found VALUE", the value as JSON and shortened. */
void cli_explain_json(cli_why *why, const char *expected, const json_t *value);

#endif
