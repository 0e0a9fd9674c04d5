/* SPDX-License-Identifier: Apache-2.0 */
/* myelin detokenize: token ids to text. */
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "generation.h"
#include "json_request.h"
#include "json_result.h"
#include "model.h"

typedef struct detokenize_arguments {
    bool json;
    bool skip_special;
    cli_model_arguments model;
    myelin_tokenizer *tokenizer;
} detokenize_arguments;

static const cli_option detokenize_options[] = {
    {"skip-special", 0, NULL, CLI_FLAG, NULL, "leave <|im_end|> and the like out",
     .offset = offsetof(detokenize_arguments, skip_special)},
    {"json", 0, NULL, CLI_FLAG, NULL, "the only form there is, so of no effect",
     .offset = offsetof(detokenize_arguments, json)},
    {"jsonl", 0, NULL, CLI_FLAG, NULL, "the same", .offset = offsetof(detokenize_arguments, json)},
};

static json_t *answer(void *user, const json_t *line, myelin_error *error) {
    const detokenize_arguments *arguments = user;
    cli_why why;
    int32_t *ids;
    size_t count, length;
    char *text;
    if (!cli_read_ids(line, &ids, &count, &why))
        return cli_no_answer(error, "%s", why.text);
    myelin_status status = myelin_detokenize(arguments->tokenizer, ids, count,
                                             arguments->skip_special, &text, &length, error);
    free(ids);
    if (status != MYELIN_OK)
        return NULL;
    json_t *string = cli_json_text(text, length);
    myelin_free(text);
    return string;
}

static int detokenize_ids(const cli_command *command, detokenize_arguments *arguments,
                          const char *ids) {
    cli_why why;
    myelin_error error;
    json_t *array = cli_json_parse(ids, strlen(ids), &why);
    json_t *text = NULL;
    if (array != NULL)
        text = answer(arguments, array, &error);
    else
        cli_no_answer(&error, "%s", why.text);
    json_decref(array);
    if (text == NULL) {
        cli_message(command, "%s", error.message);
        return cli_use_exit_code(error.status);
    }
    cli_json_print(text, NULL);
    return cli_output_result(command);
}

static int run(const cli_command *command, int argc, char **argv) {
    detokenize_arguments arguments = {0};
    int count, code;
    const cli_group groups[] = {
        {"Text", detokenize_options, sizeof detokenize_options / sizeof *detokenize_options,
         &arguments, NULL},
        cli_files_group(&arguments.model),
    };
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, &code))
        return code;
    if (count > 1)
        return cli_usage(command, "expected one array IDS, found %d words (quote it)", count);
    code = cli_open_tokenizer(&arguments.tokenizer, command, &arguments.model);
    if (code != CLI_OK)
        return code;
    if (count == 1)
        code = detokenize_ids(command, &arguments, argv[0]);
    else
        code = cli_answer_lines(command, NULL, arguments.model.quiet, answer, &arguments);
    myelin_tokenizer_close(arguments.tokenizer);
    return code;
}

const cli_command cli_command_detokenize = {
    .name = "detokenize",
    .synopsis = "[OPTION]... [IDS]",
    .summary = "turn token ids into text",
    .details =
        "Prints the text of IDS, a JSON array of token ids, as a JSON string. Without\n"
        "IDS, reads one array a line from standard input and writes one string a line,\n"
        "or {\"error\": {\"status\", \"message\"}} for a bad line. Needs only tokenizer.json.",
    .examples = "  myelin detokenize '[40, 41]'\n"
                "  myelin tokenize \"Once upon a time\" | myelin detokenize",
    .run = run,
};
