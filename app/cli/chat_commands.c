/* SPDX-License-Identifier: Apache-2.0 */
/* Lines that begin with a slash. What they have to say goes to standard error. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chat.h"
#include "json_result.h"

typedef struct slash_command {
    const char *name, *argument, *help;
    bool (*run)(chat *c, char *argument); /* false: leave */
} slash_command;

static bool do_help(chat *c, char *argument);

static bool do_set(chat *c, char *argument);

static bool do_system(chat *c, char *argument) {
    chat_set_system(c, argument);
    return true;
}

static bool do_clear(chat *c, char *argument) {
    (void)argument;
    chat_clear(c);
    return true;
}

static bool do_tool(chat *c, char *argument) {
    chat_add(c, "tool", argument, strlen(argument));
    chat_answer(c);
    return true;
}

/* Written beside and renamed, so that a full disk costs no older file. */
static bool do_save(chat *c, char *argument) {
    json_t *object = json_object();
    json_object_set(object, "messages", c->messages);
    if (c->tools != NULL)
        json_object_set_new(object, "tools", json_loads(c->tools, 0, NULL));
    char *beside = cli_format("%s.%ld.part", argument, (long)getpid());
    errno = 0;
    bool saved = *argument != '\0' &&
                 json_dump_file(object, beside, JSON_INDENT(2) | JSON_PRESERVE_ORDER) == 0 &&
                 rename(beside, argument) == 0;
    if (*argument == '\0') {
        cli_message(c->command, "/save needs a file name");
    } else if (!saved) {
        cli_message(c->command, "cannot write %s: %s", argument, strerror(errno));
        unlink(beside);
    }
    json_decref(object);
    free(beside);
    return true;
}

/* Whether these are messages: objects with a role. The rest is the template's business. */
static bool are_messages(const json_t *messages) {
    size_t i;
    const json_t *message;
    json_array_foreach(messages, i, message) {
        if (!json_is_string(json_object_get(message, "role")))
            return false;
    }
    return json_is_array(messages);
}

/* Why a conversation cannot be taken, or NULL. */
static char *why_not(const chat *c, const json_t *messages, const char *tools) {
    myelin_chat_options options;
    myelin_error error;
    char *text = NULL, *rendered = NULL, *why = NULL;
    size_t length;
    if (!are_messages(messages))
        return cli_format("expected an array of messages with a \"role\", or an object with such "
                          "\"messages\"");
    myelin_chat_options_init(&options);
    options.tools = tools;
    text = json_dumps(messages, JSON_COMPACT);
    if (text == NULL || myelin_chat_render(myelin_model_chat_template(c->model), text, strlen(text),
                                           &options, &rendered, &length, &error) != MYELIN_OK)
        why = cli_format("%s", text == NULL ? "out of memory" : error.message);
    myelin_free(rendered);
    free(text);
    return why;
}

static bool do_load(chat *c, char *argument) {
    json_error_t problem;
    json_t *file = json_load_file(argument, JSON_REJECT_DUPLICATES, &problem);
    if (file == NULL) {
        cli_message(c->command, "cannot read %s: %s", argument, problem.text);
        return true;
    }
    json_t *messages = json_is_object(file) ? json_object_get(file, "messages") : file;
    json_t *tools = json_is_object(file) ? json_object_get(file, "tools") : NULL;
    char *tools_text = json_is_array(tools) ? json_dumps(tools, JSON_COMPACT) : NULL;
    char *why = why_not(c, messages, tools_text);
    if (why != NULL) {
        cli_message(c->command, "%s: %s", argument, why);
        free(tools_text);
    } else {
        json_decref(c->messages);
        c->messages = json_incref(messages);
        free(c->tools);
        c->tools = tools_text;
        cli_message(c->command, "%zu messages", json_array_size(c->messages));
    }
    free(why);
    json_decref(file);
    return true;
}

static bool do_stats(chat *c, char *argument) {
    size_t held;
    (void)argument;
    myelin_session_tokens(c->session, &held);
    fprintf(stderr, "context: %zu of %d tokens, %zu messages, %d answers\n", held, (int)c->max_len,
            json_array_size(c->messages), (int)c->turns);
    if (c->turns == 0)
        return true;
    double rate = c->per_token_ms > 0 ? 1000 / c->per_token_ms : 0;
    fprintf(stderr,
            "last turn: %d tokens, %d of them cached and %d read in %.1f ms; %d written, %.1f "
            "tokens/s\n",
            (int)c->input_tokens, (int)c->cached_tokens, (int)(c->input_tokens - c->cached_tokens),
            c->prefill_ms, (int)c->output_tokens, rate);
    return true;
}

static bool do_exit(chat *c, char *argument) {
    (void)c;
    (void)argument;
    return false;
}

static const slash_command commands[] = {
    {"help", "", "show this", do_help},
    {"set", "[NAME VALUE]", "change how answers are made, or show what can be changed", do_set},
    {"system", "[TEXT]", "say what the assistant is; without TEXT, nothing", do_system},
    {"clear", "", "forget what was said", do_clear},
    {"save", "FILE", "write the conversation, in the form 'myelin batch' takes", do_save},
    {"load", "FILE", "go on with a saved one", do_load},
    {"tool", "TEXT", "give the result of a call", do_tool},
    {"stats", "", "tokens and speed", do_stats},
    {"exit", "", "leave; Ctrl-D does, too", do_exit},
};

enum { NUM_COMMANDS = sizeof commands / sizeof *commands };

static bool do_help(chat *c, char *argument) {
    (void)c;
    (void)argument;
    for (size_t i = 0; i < NUM_COMMANDS; i++) {
        char *head = cli_format("/%s %s", commands[i].name, commands[i].argument);
        fprintf(stderr, "%-20s %s\n", head, commands[i].help);
        free(head);
    }
    fputs("//TEXT               say TEXT with a slash before it\n"
          "\"\"\"                  begin, and end, a text of several lines\n"
          "Ctrl-C               stop the answer, or throw the line away\n",
          stderr);
    return true;
}

static const char *on_off(myelin_thinking thinking) {
    return thinking == MYELIN_THINKING_ON ? "on" : thinking == MYELIN_THINKING_OFF ? "off" : "auto";
}

static void show_settings(const chat *c) {
    myelin_generation_options o;
    cli_generation_resolve(c->generation, c->model, &o);
    fprintf(stderr, "think %s          on, off or auto\n", on_off(c->thinking));
    fprintf(stderr, "reasoning %s    show or hide\n", c->print.show_reasoning ? "show" : "hide");
    fprintf(stderr, "thinking-budget %d\n", (int)o.thinking_budget);
    fprintf(stderr, "max-new-tokens %d\n", (int)o.max_new_tokens);
    fprintf(stderr, "sampler %s\n", o.sampler == MYELIN_SAMPLER_SAMPLED ? "sampled" : "greedy");
    fprintf(stderr, "temperature %g, top-k %d, top-p %g, min-p %g, seed %llu\n", o.temperature,
            (int)o.top_k, o.top_p, o.min_p, (unsigned long long)o.seed);
    fputs("and every other option of 'myelin chat --help' under Generation\n", stderr);
}

/* A setting as JSON: a number where it reads as one, else a text. */
static json_t *value_of(const char *text) {
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    return value != NULL ? value : cli_json_text(text, strlen(text));
}

static bool set_generation(chat *c, char *name, const char *text) {
    cli_why why;
    bool known;
    json_t *value = value_of(text);
    for (char *dash = name; (dash = strchr(dash, '-')) != NULL;)
        *dash = '_';
    json_array_append_new(c->settings, value);
    if (strcmp(name, "max_len") == 0)
        cli_message(c->command, "max-len is set when the chat begins: --max-len");
    else if (!cli_generation_store(c->generation, name, value, &known, &why))
        cli_message(c->command, known ? "%s: %s" : "%s: no such setting; /set shows them", name,
                    why.text);
    return true;
}

static bool set_choice(chat *c, const char *name, const char *value, const char *const *choices) {
    for (size_t i = 0; choices[i] != NULL; i++) {
        if (strcmp(choices[i], value) != 0)
            continue;
        if (strcmp(name, "think") == 0)
            c->thinking = i == 0   ? MYELIN_THINKING_ON
                          : i == 1 ? MYELIN_THINKING_OFF
                                   : MYELIN_THINKING_AUTO;
        else
            c->print.show_reasoning = i == 0;
        return true;
    }
    cli_message(c->command, "%s: expected %s, %s%s%s, found \"%.40s\"", name, choices[0],
                choices[1], choices[2] != NULL ? " or " : "", choices[2] != NULL ? choices[2] : "",
                value);
    return true;
}

static bool do_set(chat *c, char *argument) {
    static const char *const think[] = {"on", "off", "auto", NULL};
    static const char *const reasoning[] = {"show", "hide", NULL};
    char *value = argument + strcspn(argument, " \t");
    if (*argument == '\0') {
        show_settings(c);
        return true;
    }
    if (*value != '\0')
        *value++ = '\0';
    value += strspn(value, " \t");
    if (strcmp(argument, "think") == 0)
        return set_choice(c, argument, value, think);
    if (strcmp(argument, "reasoning") == 0)
        return set_choice(c, argument, value, reasoning);
    return set_generation(c, argument, value);
}

static bool unknown_command(const chat *c, const char *name) {
    const char *names[NUM_COMMANDS + 1];
    for (size_t i = 0; i < NUM_COMMANDS; i++)
        names[i] = commands[i].name;
    names[NUM_COMMANDS] = NULL;
    const char *nearest = cli_nearest(name, names);
    if (nearest != NULL)
        cli_message(c->command, "unknown command /%.40s (did you mean /%s?)", name, nearest);
    else
        cli_message(c->command, "unknown command /%.40s; /help shows them", name);
    return true;
}

bool chat_command(chat *c, char *line) {
    char *name = line + 1, *argument = name + strcspn(name, " \t");
    if (*argument != '\0')
        *argument++ = '\0';
    argument += strspn(argument, " \t");
    for (char *end = argument + strlen(argument); end > argument && strchr(" \t\r", end[-1]);)
        *--end = '\0';
    for (size_t i = 0; i < NUM_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(c, argument);
    return unknown_command(c, name);
}
