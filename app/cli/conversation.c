/* SPDX-License-Identifier: Apache-2.0 */
#include "conversation.h"

#include <stdlib.h>
#include <string.h>

#include "cli.h"

const cli_choice cli_thinking_choices[] = {{"auto", MYELIN_THINKING_AUTO},
                                           {"on", MYELIN_THINKING_ON},
                                           {"off", MYELIN_THINKING_OFF},
                                           {NULL, 0}};

void cli_conversation_init(cli_conversation *c) {
    memset(c, 0, sizeof *c);
    myelin_chat_options_init(&c->options);
}

void cli_conversation_clear(cli_conversation *c) {
    free(c->messages);
    free(c->tools);
    free(c->variables);
    memset(c, 0, sizeof *c);
}

/* JSON that must be of a type, as text. */
static bool store_json(char **text, const json_t *value, json_type type, const char *expected,
                       cli_why *why) {
    if (json_typeof(value) != type) {
        cli_explain_json(why, expected, value);
        return false;
    }
    *text = json_dumps(value, JSON_COMPACT);
    if (*text == NULL)
        cli_explain(why, "out of memory");
    return *text != NULL;
}

static bool read_boolean(bool *out, const json_t *value, cli_why *why) {
    *out = json_is_true(value);
    if (!json_is_boolean(value))
        cli_explain_json(why, "true, false or null", value);
    return json_is_boolean(value);
}

bool cli_conversation_store(cli_conversation *c, const char *key, const json_t *value, bool *known,
                            cli_why *why) {
    static const char *const optional[] = {"tools", "chat_template_kwargs", "add_generation_prompt",
                                           "enable_thinking", "messages_parse_special"};
    bool good, yes;
    *known = true;
    if (strcmp(key, "messages") == 0)
        return store_json(&c->messages, value, JSON_ARRAY, "an array", why);
    size_t i = 0;
    while (i < sizeof optional / sizeof *optional && strcmp(key, optional[i]) != 0)
        i++;
    if (i == sizeof optional / sizeof *optional) {
        *known = false;
        return false;
    }
    if (json_is_null(value))
        return true;
    if (i == 0) {
        good = store_json(&c->tools, value, JSON_ARRAY, "an array or null", why);
        c->options.tools = c->tools;
    } else if (i == 1) {
        good = store_json(&c->variables, value, JSON_OBJECT, "an object or null", why);
        c->options.variables = c->variables;
    } else {
        good = read_boolean(&yes, value, why);
        if (i == 2)
            c->options.add_generation_prompt = yes;
        else if (i == 4)
            c->options.parse_special = yes;
        else
            c->options.thinking = yes ? MYELIN_THINKING_ON : MYELIN_THINKING_OFF;
    }
    return good;
}
