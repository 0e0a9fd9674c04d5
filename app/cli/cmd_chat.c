/* SPDX-License-Identifier: Apache-2.0 */
/* myelin chat: a conversation, at a terminal or through pipes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chat.h"
#include "conversation.h"
#include "json_result.h"
#include "model.h"

typedef struct chat_arguments {
    bool json;
    bool hide_reasoning;
    const char *system;
    const char *tools_file;
    myelin_thinking thinking;
    cli_model_arguments model;
    cli_generation generation;
} chat_arguments;

#define FIELD(member) .offset = offsetof(chat_arguments, member)

static const cli_option chat_options[] = {
    {"system", 's', NULL, CLI_TEXT, "TEXT", "what the assistant is to be", FIELD(system)},
    {"thinking", 0, NULL, CLI_CHOICE, "WHEN",
     "whether the model reasons first; default auto, its template's way", FIELD(thinking),
     .choices = cli_thinking_choices},
    {"hide-reasoning", 0, NULL, CLI_FLAG, NULL,
     "do not show it; the default unless the output is a terminal", FIELD(hide_reasoning)},
    {"tools", 0, NULL, CLI_TEXT, "FILE", "a JSON array of tools the model may ask to be called",
     FIELD(tools_file)},
    {"json", 0, NULL, CLI_FLAG, NULL, "print one JSON object for each answer", FIELD(json)},
};

static int read_tools(const cli_command *command, const char *path, char **tools) {
    json_error_t problem;
    *tools = NULL;
    if (path == NULL)
        return CLI_OK;
    json_t *value = json_load_file(path, JSON_REJECT_DUPLICATES, &problem);
    if (value == NULL) {
        cli_message(command, "--tools %s: %s", path, problem.text);
        return CLI_USAGE;
    }
    bool array = json_is_array(value);
    if (array)
        *tools = json_dumps(value, JSON_COMPACT);
    else
        cli_message(command, "--tools %s: expected a JSON array", path);
    json_decref(value);
    return array ? CLI_OK : CLI_USAGE;
}

static bool has_colour(void) {
    const char *term = getenv("TERM"), *without = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && (without == NULL || *without == '\0') && term != NULL &&
           strcmp(term, "dumb") != 0;
}

static bool is_blank(const char *text) {
    return text[strspn(text, " \t\r\n")] == '\0';
}

/* Turn after turn, until the input ends or someone leaves. */
static void converse(chat *c, chat_input *input) {
    char *text;
    while ((text = chat_input_next(input)) != NULL) {
        bool stay = true;
        if (text[0] == '/' && text[1] != '/') {
            stay = chat_command(c, text);
        } else if (!is_blank(text)) {
            const char *said = text + (text[0] == '/');
            chat_add(c, "user", said, strlen(said));
            chat_answer(c);
        }
        free(text);
        if (!stay)
            return;
    }
    if (chat_input_is_terminal(input))
        cli_output("\n", 1);
}

static int chat_with(const cli_command *command, chat_arguments *a, myelin_model *model) {
    chat_input *input = chat_input_open();
    chat c = {.command = command,
              .model = model,
              .max_len = a->generation.values.max_len,
              .messages = json_array(),
              .settings = json_array(),
              .thinking = a->thinking,
              .generation = &a->generation,
              .json = a->json,
              .print = {.terminal = isatty(STDOUT_FILENO), .colour = has_colour()}};
    c.print.show_reasoning = c.print.terminal && !a->hide_reasoning;
    cli_generation_prefer_token_sync(&a->generation);
    cli_generation_prefer_max_new_tokens(&a->generation, c.max_len);
    cli_generation_prefer_sampling(&a->generation, model);
    myelin_error error;
    int code = read_tools(command, a->tools_file, &c.tools);
    if (code == CLI_OK && myelin_session_open(&c.session, model, c.max_len, &error) != MYELIN_OK) {
        cli_message(command, "%s", error.message);
        code = cli_use_exit_code(error.status);
    }
    if (code == CLI_OK) {
        if (a->system != NULL)
            chat_set_system(&c, a->system);
        if (chat_input_is_terminal(input) && !a->model.quiet)
            fputs("Type a message; /help shows what else can be typed.\n", stderr);
        converse(&c, input);
        code = c.exit_code != CLI_OK ? c.exit_code : cli_output_result(command);
    }
    myelin_session_close(c.session);
    json_decref(c.messages);
    json_decref(c.settings);
    free(c.tools);
    chat_input_close(input);
    return code;
}

static int run_with(const cli_command *command, chat_arguments *a, int argc, char **argv) {
    int count, code;
    cli_model model;
    const cli_group groups[] = {
        {"Conversation", chat_options, sizeof chat_options / sizeof *chat_options, a, NULL},
        cli_generation_group(&a->generation),
        cli_model_group(&a->model),
    };
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, &code))
        return code;
    if (count > 0)
        return cli_usage(command, "expected no argument, found \"%.48s\"", argv[0]);
    if (cli_generation_wants_logprobs(&a->generation) && !a->json)
        return cli_usage(command, "--logprobs and --top-logprobs need --json");
    a->model.chat = true;
    code = cli_open_model(&model, command, &a->model);
    if (code == CLI_OK && myelin_model_tokenizer(model.model) == NULL) {
        cli_message(command, "the model has no tokenizer.json");
        code = CLI_MODEL;
    }
    if (code == CLI_OK)
        code = chat_with(command, a, model.model);
    cli_close_model(&model);
    return code;
}

static int run(const cli_command *command, int argc, char **argv) {
    chat_arguments arguments = {0};
    cli_generation_init(&arguments.generation);
    int code = run_with(command, &arguments, argc, argv);
    cli_generation_clear(&arguments.generation);
    return code;
}

const cli_command cli_command_chat = {
    .name = "chat",
    .synopsis = "[OPTION]...",
    .summary = "talk with the model",
    .details = "Each line is a message; \"\"\" begins and ends one of several lines, and /help\n"
               "shows the commands. Ctrl-C stops an answer, Ctrl-D leaves. What was read before\n"
               "is not read again: /stats shows it. When --max-len tokens are full, the oldest\n"
               "exchanges are dropped, and that is said. Answers are sampled as the model's\n"
               "generation_config.json says unless an option says otherwise. Works through\n"
               "pipes, too: a line in, an answer out.",
    .examples = "  myelin chat\n"
                "  myelin chat --thinking off --system \"Answer in one word.\"\n"
                "  echo \"What is 12 plus 30?\" | myelin chat --sampler greedy",
    .run = run,
};
