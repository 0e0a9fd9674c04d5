/* SPDX-License-Identifier: Apache-2.0 */
/* myelin tokenize: text to token ids. */
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "json_request.h"
#include "json_result.h"
#include "model.h"

typedef struct tokenize_arguments {
    bool json;
    bool parse_special;
    cli_model_arguments model;
    myelin_tokenizer *tokenizer;
} tokenize_arguments;

static const cli_option tokenize_options[] = {
    {"no-special", 0, NULL, CLI_FLAG_OFF, NULL, "read <|im_end|> and the like as ordinary text",
     .offset = offsetof(tokenize_arguments, parse_special)},
    {"json", 0, NULL, CLI_FLAG, NULL, "the only form there is, so of no effect",
     .offset = offsetof(tokenize_arguments, json)},
    {"jsonl", 0, NULL, CLI_FLAG, NULL, "the same", .offset = offsetof(tokenize_arguments, json)},
};

static json_t *tokenize(const tokenize_arguments *arguments, const char *text, size_t length,
                        myelin_error *error) {
    int32_t *ids;
    size_t count;
    if (myelin_tokenize(arguments->tokenizer, text, length, arguments->parse_special, &ids, &count,
                        error) != MYELIN_OK)
        return NULL;
    json_t *array = cli_json_ids(ids, count);
    myelin_free(ids);
    return array;
}

static json_t *answer(void *user, const json_t *line, myelin_error *error) {
    if (!json_is_string(line)) {
        cli_why why;
        cli_explain_json(&why, "a string", line);
        return cli_no_answer(error, "%s", why.text);
    }
    return tokenize(user, json_string_value(line), json_string_length(line), error);
}

static int tokenize_text(const cli_command *command, const tokenize_arguments *arguments,
                         const char *text) {
    myelin_error error;
    json_t *ids = tokenize(arguments, text, strlen(text), &error);
    if (ids == NULL) {
        cli_message(command, "%s", error.message);
        return cli_use_exit_code(error.status);
    }
    cli_json_print(ids, NULL);
    return cli_output_result(command);
}

static int run(const cli_command *command, int argc, char **argv) {
    tokenize_arguments arguments = {.parse_special = true};
    int count, code;
    const cli_group groups[] = {
        {"Text", tokenize_options, sizeof tokenize_options / sizeof *tokenize_options, &arguments,
         NULL},
        cli_files_group(&arguments.model),
    };
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, &code))
        return code;
    if (count > 1)
        return cli_usage(command, "expected one TEXT, found %d (quote it)", count);
    code = cli_open_tokenizer(&arguments.tokenizer, command, &arguments.model);
    if (code != CLI_OK)
        return code;
    if (count == 1)
        code = tokenize_text(command, &arguments, argv[0]);
    else
        code = cli_answer_lines(command, NULL, arguments.model.quiet, answer, &arguments);
    myelin_tokenizer_close(arguments.tokenizer);
    return code;
}

const cli_command cli_command_tokenize = {
    .name = "tokenize",
    .synopsis = "[OPTION]... [TEXT]",
    .summary = "turn text into token ids",
    .details = "Prints the token ids of TEXT as a JSON array. Without TEXT, reads one JSON\n"
               "string a line from standard input and writes one array a line, or\n"
               "{\"error\": {\"status\", \"message\"}} for a bad line. Needs only tokenizer.json.",
    .examples = "  myelin tokenize \"Once upon a time\"\n"
                "  printf '%s\\n' '\"one\"' '\"two\"' | myelin tokenize",
    .run = run,
};
