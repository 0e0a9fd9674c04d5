/* SPDX-License-Identifier: Apache-2.0 */
/* myelin template: a conversation to the prompt a model was trained on. */
#include <string.h>

#include "answer.h"
#include "conversation.h"
#include "json_result.h"
#include "model.h"

typedef struct template_arguments {
    bool json;
    cli_model_arguments model;
    myelin_chat_template *chat_template;
} template_arguments;

static const cli_option template_options[] = {
    {"json", 0, NULL, CLI_FLAG, NULL, "the only form there is, so of no effect",
     .offset = offsetof(template_arguments, json)},
    {"jsonl", 0, NULL, CLI_FLAG, NULL, "the same", .offset = offsetof(template_arguments, json)},
};

static bool read_conversation(cli_conversation *c, const json_t *line, cli_why *why) {
    const char *key;
    json_t *value;
    if (!json_is_object(line)) {
        cli_explain_json(why, "an object", line);
        return false;
    }
    json_object_foreach((json_t *)line, key, value) {
        cli_why inner;
        bool known;
        if (strcmp(key, "id") == 0 || cli_conversation_store(c, key, value, &known, &inner))
            continue;
        if (known)
            cli_explain(why, "%s: %.200s", key, inner.text);
        else
            cli_explain(why, "unknown member \"%.64s\"", key);
        return false;
    }
    if (c->messages == NULL)
        cli_explain(why, "expected a member \"messages\"");
    return c->messages != NULL;
}

static json_t *answer(void *user, const json_t *line, myelin_error *error) {
    const template_arguments *arguments = user;
    cli_conversation c;
    cli_why why;
    char *text = NULL;
    size_t length = 0;
    cli_conversation_init(&c);
    if (read_conversation(&c, line, &why))
        myelin_chat_render(arguments->chat_template, c.messages, strlen(c.messages), &c.options,
                           &text, &length, error);
    else
        cli_no_answer(error, "%s", why.text);
    cli_conversation_clear(&c);
    json_t *value = text != NULL ? cli_json_text(text, length) : NULL;
    myelin_free(text);
    return value;
}

static int run(const cli_command *command, int argc, char **argv) {
    template_arguments arguments = {0};
    int count, code;
    const cli_group groups[] = {
        {"Template", template_options, sizeof template_options / sizeof *template_options,
         &arguments, NULL},
        cli_files_group(&arguments.model),
    };
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, &code))
        return code;
    if (count > 1)
        return cli_usage(command, "expected one FILE, found %d", count);
    code = cli_open_template(&arguments.chat_template, command, &arguments.model);
    if (code == CLI_OK)
        code = cli_answer_lines(command, count == 1 ? argv[0] : NULL, arguments.model.quiet, answer,
                                &arguments);
    myelin_chat_template_close(arguments.chat_template);
    return code;
}

const cli_command cli_command_template = {
    .name = "template",
    .synopsis = "[OPTION]... [FILE]",
    .summary = "turn a conversation into a prompt",
    .details =
        "Reads one JSON object a line from FILE or standard input: \"messages\" and, if\n"
        "wanted, \"tools\", \"add_generation_prompt\" (true unless said), \"enable_thinking\"\n"
        "and \"chat_template_kwargs\" (an object of further variables). Writes the prompt\n"
        "the model's chat template makes of it as one JSON string a line, or\n"
        "{\"error\": {\"status\", \"message\"}}. Needs only chat_template.jinja or\n"
        "tokenizer_config.json.",
    .examples =
        "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}' | myelin template",
    .run = run,
};
