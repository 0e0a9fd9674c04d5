/* SPDX-License-Identifier: Apache-2.0 */
/* myelin run: completes a prompt. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conversation.h"
#include "generation.h"
#include "json_result.h"
#include "lines.h"
#include "model.h"

typedef struct run_arguments {
    bool json;
    bool timing;
    bool chat;
    myelin_thinking thinking;
    cli_model_arguments model;
    cli_generation generation;
    char *prompt;
    size_t prompt_length;
} run_arguments;

static const cli_option chat_options[] = {
    {"chat", 'c', NULL, CLI_FLAG, NULL, "ask PROMPT in the form the model was taught to answer",
     .offset = offsetof(run_arguments, chat)},
    {"thinking", 0, NULL, CLI_CHOICE, "WHEN",
     "with --chat: whether the model reasons first; default auto, its template's way",
     .offset = offsetof(run_arguments, thinking), .choices = cli_thinking_choices},
};

static const cli_option run_options[] = {
    {"json", 0, NULL, CLI_FLAG, NULL, "print one JSON object instead of the text",
     .offset = offsetof(run_arguments, json)},
    {"timing", 'v', NULL, CLI_FLAG, NULL, "say on standard error how long it took",
     .offset = offsetof(run_arguments, timing)},
};

/* What the callback needs to know, and what is left behind for the end. */
typedef struct stream {
    bool json;
    bool in_line; /* the text so far does not end in a newline */
} stream;

static bool on_piece(void *user, const myelin_piece *piece) {
    stream *s = user;
    if (!s->json && piece->text_length > 0) {
        s->in_line = piece->text[piece->text_length - 1] != '\n';
        if (!cli_output(piece->text, piece->text_length))
            return false;
    }
    return !cli_interrupted();
}

/* The prompt as the only message of a user, in JSON. */
static char *user_turn(const run_arguments *arguments) {
    json_t *content = json_stringn(arguments->prompt, arguments->prompt_length);
    json_t *messages = json_pack("[{s:s, s:o}]", "role", "user", "content", content);
    char *text = messages != NULL ? json_dumps(messages, JSON_COMPACT) : NULL;
    json_decref(messages);
    return text;
}

static myelin_status complete(const run_arguments *arguments, myelin_model *model,
                              const myelin_generation_options *options, stream *s,
                              myelin_result *result, myelin_error *error) {
    myelin_chat_options chat;
    myelin_chat_options_init(&chat);
    chat.thinking = arguments->thinking;
    myelin_request request = {.options = options};
    char *messages = NULL;
    if (arguments->chat) {
        messages = user_turn(arguments);
        if (messages == NULL) {
            error->status = MYELIN_ERROR_ARGUMENT;
            snprintf(error->message, sizeof error->message,
                     "the prompt of a conversation must be UTF-8 text without NUL");
            return error->status;
        }
        request.messages = messages;
        request.messages_length = strlen(messages);
        request.chat = &chat;
    } else {
        request.prompt = arguments->prompt;
        request.prompt_length = arguments->prompt_length;
    }
    myelin_status status = myelin_complete(model, &request, on_piece, s, result, error);
    free(messages);
    return status;
}

static void print_timing(const cli_command *command, const myelin_result *result) {
    double rate = result->per_token_ms > 0 ? 1000 / result->per_token_ms : 0;
    cli_message(command, "%d tokens read in %.1f ms, %zu written, %.1f tokens/s, %.1f ms in all",
                (int)result->input_tokens, result->prefill_ms, result->num_tokens, rate,
                result->total_ms);
}

static int generate(const cli_command *command, const run_arguments *arguments,
                    myelin_model *model) {
    myelin_generation_options options;
    myelin_result result = {0};
    myelin_error error;
    stream s = {.json = arguments->json, .in_line = true};
    if (myelin_model_tokenizer(model) == NULL) {
        cli_message(command, "the model has no tokenizer.json; 'myelin batch' takes prompt_ids");
        return CLI_MODEL;
    }
    cli_generation_resolve(&arguments->generation, model, &options);
    myelin_constraint *constraint;
    myelin_status status =
        cli_generation_constrain(&arguments->generation, model, &options, &constraint, &error);
    if (status == MYELIN_OK)
        status = complete(arguments, model, &options, &s, &result, &error);
    myelin_constraint_free(constraint);
    if (status != MYELIN_OK) {
        bool began = status != MYELIN_ERROR_ARGUMENT && status != MYELIN_ERROR_CACHE_FULL;
        if (s.in_line && began && !arguments->json)
            cli_output("\n", 1);
        cli_message(command, "%s", error.message);
        return cli_use_exit_code(status);
    }
    if (arguments->json)
        cli_json_print(cli_json_result(&result), NULL);
    else if (s.in_line)
        cli_output("\n", 1);
    if (arguments->timing)
        print_timing(command, &result);
    myelin_result_clear(&result);
    return cli_interrupted() ? CLI_INTERRUPTED : cli_output_result(command);
}

/* The prompt as it is, newlines included: from the argument, or all of standard input. */
static int read_prompt(const cli_command *command, run_arguments *arguments, int count,
                       char **words) {
    cli_lines lines;
    if (count > 1)
        return cli_usage(command, "expected one PROMPT, found %d (quote it)", count);
    if (count == 1 && strcmp(words[0], "-") != 0) {
        arguments->prompt = cli_format("%s", words[0]);
        arguments->prompt_length = strlen(words[0]);
        return CLI_OK;
    }
    if (isatty(STDIN_FILENO) && !arguments->model.quiet)
        cli_message(command, "type the prompt; Ctrl-D on a line of its own ends it");
    bool read = cli_lines_open(&lines, NULL) &&
                cli_lines_rest(&lines, &arguments->prompt, &arguments->prompt_length);
    if (!read)
        cli_message(command, "cannot read the prompt from standard input: %s", strerror(errno));
    cli_lines_close(&lines);
    return read ? CLI_OK : CLI_FAILED;
}

static int run_with(const cli_command *command, run_arguments *arguments, int argc, char **argv) {
    cli_model model;
    int count, code;
    const cli_group groups[] = {
        {"Output", run_options, sizeof run_options / sizeof *run_options, arguments, NULL},
        {"Conversation", chat_options, sizeof chat_options / sizeof *chat_options, arguments, NULL},
        cli_generation_group(&arguments->generation),
        cli_model_group(&arguments->model),
    };
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, &code))
        return code;
    if (arguments->thinking != MYELIN_THINKING_AUTO && !arguments->chat)
        return cli_usage(command, "--thinking needs --chat");
    arguments->model.chat = arguments->chat;
    if (cli_generation_wants_logprobs(&arguments->generation) && !arguments->json)
        return cli_usage(command, "--logprobs and --top-logprobs need --json");
    if (!arguments->json)
        cli_generation_prefer_token_sync(&arguments->generation);
    code = read_prompt(command, arguments, count, argv);
    if (code != CLI_OK)
        return code;
    cli_interrupts_defer();
    code = cli_open_model(&model, command, &arguments->model);
    if (code == CLI_OK)
        code = generate(command, arguments, model.model);
    cli_close_model(&model);
    return code;
}

static int run(const cli_command *command, int argc, char **argv) {
    run_arguments arguments = {0};
    cli_generation_init(&arguments.generation);
    int code = run_with(command, &arguments, argc, argv);
    cli_generation_clear(&arguments.generation);
    free(arguments.prompt);
    return code;
}

const cli_command cli_command_run = {
    .name = "run",
    .synopsis = "[OPTION]... [PROMPT]",
    .summary = "complete a prompt",
    .details = "Continues PROMPT, or what standard input holds when there is no PROMPT or it\n"
               "is \"-\", and writes the text as it comes. The prompt itself is not repeated.\n"
               "Tokens are handed over one by one unless --sync says otherwise.",
    .examples = "  myelin run \"Once upon a time\"\n"
                "  myelin run --chat --thinking off \"What is 12 plus 30?\"\n"
                "  myelin run --temperature 0.8 --seed 7 -n 200 \"Once upon a time\"\n"
                "  myelin run --json --logprobs -n 1 \"2 + 2 =\" | jq .logprobs\n"
                "  myelin run -m Qwen/Qwen3-0.6B < prompt.txt",
    .run = run,
};
