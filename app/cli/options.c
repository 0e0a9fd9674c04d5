/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "help.h"

void cli_explain(cli_why *why, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why->text, sizeof why->text, format, arguments);
    va_end(arguments);
}

void cli_explain_json(cli_why *why, const char *expected, const json_t *value) {
    enum { SHOWN = 48 };
    char *found = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII |
                                        JSON_REAL_PRECISION(15));
    const char *text = found != NULL ? found : "something else";
    bool whole = strlen(text) <= SHOWN;
    cli_explain(why, "expected %s, found %.*s%s", expected, SHOWN, text, whole ? "" : "...");
    free(found);
}

bool cli_read_integer(const char *text, int64_t min, int64_t max, int64_t *value) {
    const char *digits = text + (*text == '-' || *text == '+');
    if (*digits == '\0' || digits[strspn(digits, "0123456789")] != '\0')
        return false;
    errno = 0;
    long long number = strtoll(text, NULL, 10);
    if (errno != 0 || number < min || number > max)
        return false;
    *value = number;
    return true;
}

bool cli_read_real(const char *text, double *value) {
    char *end = NULL;
    if (*text == '\0' || text[strspn(text, "+-.0123456789eE")] != '\0')
        return false;
    *value = strtod(text, &end);
    return *end == '\0' && end != text && isfinite(*value);
}

static bool read_uint64(const char *text, uint64_t *value) {
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
        return false;
    errno = 0;
    *value = strtoull(text, NULL, 10);
    return errno == 0;
}

size_t cli_kind_size(cli_kind kind) {
    switch (kind) {
    case CLI_FLAG:
    case CLI_FLAG_OFF:
        return sizeof(bool);
    case CLI_TEXT:
        return sizeof(const char *);
    case CLI_INT32:
        return sizeof(int32_t);
    case CLI_UINT64:
        return sizeof(uint64_t);
    case CLI_REAL:
        return sizeof(double);
    case CLI_CHOICE:
        return sizeof(int);
    case CLI_CUSTOM:
        break;
    }
    return 0;
}

static bool in_range(const cli_option *option, double value) {
    return value <= option->max && (option->above_min ? value > option->min : value >= option->min);
}

/* What the option's argument must be, in words. */
static void describe(const cli_option *option, char *text, size_t size) {
    if (option->kind == CLI_UINT64) {
        snprintf(text, size, "an integer from 0 to 18446744073709551615");
        return;
    }
    if (option->kind == CLI_CHOICE) {
        size_t used = 0;
        for (const cli_choice *choice = option->choices; choice->name != NULL; choice++) {
            const char *joint = used == 0 ? "" : choice[1].name == NULL ? " or " : ", ";
            int length = snprintf(text + used, size - used, "%s%s", joint, choice->name);
            used += length > 0 && (size_t)length < size - used ? (size_t)length : 0;
        }
        return;
    }
    snprintf(text, size, "%s %s%.10g to %.10g",
             option->kind == CLI_INT32 ? "an integer from" : "a number",
             option->kind == CLI_INT32 ? ""
             : option->above_min       ? "above "
                                       : "from ",
             option->min, option->max);
}

static bool find_choice(const cli_option *option, const char *name, void *target) {
    for (const cli_choice *choice = option->choices; choice->name != NULL; choice++) {
        if (strcmp(choice->name, name) == 0) {
            memcpy(target, &choice->value, sizeof choice->value);
            return true;
        }
    }
    return false;
}

static bool store_int32(const cli_option *option, void *target, int64_t value) {
    if (!in_range(option, (double)value))
        return false;
    int32_t narrow = (int32_t)value;
    memcpy(target, &narrow, sizeof narrow);
    return true;
}

static bool store_real(const cli_option *option, void *target, double value) {
    if (!in_range(option, value))
        return false;
    memcpy(target, &value, sizeof value);
    return true;
}

static bool store_text(const cli_option *option, void *base, const char *text, cli_why *why) {
    char *target = (char *)base + option->offset;
    int64_t integer;
    double real;
    uint64_t large;
    bool good = false;
    switch (option->kind) {
    case CLI_FLAG:
    case CLI_FLAG_OFF: {
        bool value = option->kind == CLI_FLAG;
        memcpy(target, &value, sizeof value);
        return true;
    }
    case CLI_TEXT:
        memcpy(target, &text, sizeof text);
        return true;
    case CLI_INT32:
        good = cli_read_integer(text, INT32_MIN, INT32_MAX, &integer) &&
               store_int32(option, target, integer);
        break;
    case CLI_UINT64:
        good = read_uint64(text, &large);
        if (good)
            memcpy(target, &large, sizeof large);
        break;
    case CLI_REAL:
        good = cli_read_real(text, &real) && store_real(option, target, real);
        break;
    case CLI_CHOICE:
        good = find_choice(option, text, target);
        break;
    case CLI_CUSTOM:
        return option->read_text(base, text, why);
    }
    if (!good) {
        char expected[160];
        describe(option, expected, sizeof expected);
        cli_explain(why, "expected %s, found \"%.48s\"", expected, text);
    }
    return good;
}

bool cli_store_json(const cli_option *option, void *base, const json_t *value, cli_why *why) {
    char *target = (char *)base + option->offset;
    char expected[160] = "true or false";
    bool good = false;
    switch (option->kind) {
    case CLI_FLAG:
    case CLI_FLAG_OFF: {
        bool flag = json_is_true(value);
        if (!json_is_boolean(value)) {
            cli_explain_json(why, expected, value);
            return false;
        }
        memcpy(target, &flag, sizeof flag);
        return true;
    }
    case CLI_TEXT: /* nothing in a request is kept as plain text */
        break;
    case CLI_INT32:
        good = json_is_integer(value) && store_int32(option, target, json_integer_value(value));
        break;
    case CLI_UINT64: {
        uint64_t large = (uint64_t)json_integer_value(value);
        good = json_is_integer(value) && json_integer_value(value) >= 0;
        if (good)
            memcpy(target, &large, sizeof large);
        break;
    }
    case CLI_REAL:
        good = json_is_number(value) && store_real(option, target, json_number_value(value));
        break;
    case CLI_CHOICE:
        good = json_is_string(value) && find_choice(option, json_string_value(value), target);
        break;
    case CLI_CUSTOM:
        return option->read_json(base, value, why);
    }
    if (!good) {
        describe(option, expected, sizeof expected);
        cli_explain_json(why, expected, value);
    }
    return good;
}

/* Where the option named by `name` of `length` bytes, or by `letter`, is. */
static const cli_option *find_option(const cli_group *groups, size_t num_groups, const char *name,
                                     size_t length, char letter, const cli_group **found_in) {
    for (size_t g = 0; g < num_groups; g++) {
        for (size_t i = 0; i < groups[g].count; i++) {
            const cli_option *option = &groups[g].options[i];
            if (option->name == NULL)
                continue;
            if (name != NULL
                    ? strncmp(option->name, name, length) == 0 && option->name[length] == '\0'
                    : option->letter == letter) {
                *found_in = &groups[g];
                return option;
            }
        }
    }
    return NULL;
}

static int unknown_option(const cli_command *command, const cli_group *groups, size_t num_groups,
                          const char *word) {
    enum { MAX_NAMES = 96 };
    const char *names[MAX_NAMES + 1];
    size_t count = 0;
    for (size_t g = 0; g < num_groups; g++) {
        for (size_t i = 0; i < groups[g].count && count < MAX_NAMES; i++) {
            if (groups[g].options[i].name != NULL)
                names[count++] = groups[g].options[i].name;
        }
    }
    names[count] = NULL;
    char bare[64];
    snprintf(bare, sizeof bare, "%.*s", (int)strcspn(word, "="), word);
    const char *nearest = strncmp(bare, "--", 2) == 0 ? cli_nearest(bare + 2, names) : NULL;
    if (nearest != NULL)
        return cli_usage(command, "unknown option %s (did you mean --%s?)", bare, nearest);
    return cli_usage(command, "unknown option %s", bare);
}

/* The option at argv[*index] and its argument; *index is left on the last word used. */
static bool parse_option(const cli_command *command, const cli_group *groups, size_t num_groups,
                         int argc, char **argv, int *index, int *code) {
    const char *word = argv[*index];
    bool lengthy = word[1] == '-';
    size_t length = lengthy ? strcspn(word + 2, "=") : 1;
    const cli_group *group = NULL;
    const cli_option *option = find_option(groups, num_groups, lengthy ? word + 2 : NULL, length,
                                           lengthy ? '\0' : word[1], &group);
    if (option == NULL) {
        *code = unknown_option(command, groups, num_groups, word);
        return false;
    }
    const char *joined = lengthy ? word + 2 + length : word + 2;
    const char *argument = NULL;
    if (option->argument == NULL) {
        if (*joined != '\0') {
            *code = cli_usage(command, "--%s takes no argument", option->name);
            return false;
        }
    } else if (*joined != '\0') {
        argument = lengthy ? joined + 1 : joined;
    } else if (*index + 1 < argc) {
        argument = argv[++*index];
    } else {
        *code = cli_usage(command, "--%s needs an argument %s", option->name, option->argument);
        return false;
    }
    cli_why why;
    if (!store_text(option, group->base, argument, &why)) {
        *code = cli_usage(command, "--%s: %s", option->name, why.text);
        return false;
    }
    if (group->given != NULL)
        *group->given |= UINT64_C(1) << (option - group->options);
    return true;
}

bool cli_parse(const cli_command *command, const cli_group *groups, size_t num_groups, int argc,
               char **argv, int *count, int *code) {
    bool only_words = false;
    *count = 0;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (only_words || word[0] != '-' || word[1] == '\0') {
            argv[(*count)++] = argv[i];
        } else if (strcmp(word, "--") == 0) {
            only_words = true;
        } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            *code = cli_help(command, groups, num_groups);
            return false;
        } else if (!parse_option(command, groups, num_groups, argc, argv, &i, code)) {
            return false;
        }
    }
    return true;
}
