/* SPDX-License-Identifier: Apache-2.0 */
/* Chat templates of checkpoints: finding them, and the variables transformers gives them. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "engine/internal.h"
#include "text/template.h"

static const char template_file[] = "chat_template.jinja";
static const char config_file[] = "tokenizer_config.json";

struct myelin_chat_template {
    mln_template *template;
    json_t *special_tokens; /* {"eos_token": "<|im_end|>", ...}: variables of every rendering */
};

void myelin_chat_options_init(myelin_chat_options *options) {
    *options = (myelin_chat_options){.size = sizeof *options, .add_generation_prompt = true};
}

/* The tokens tokenizer_config.json names, as text: {"eos_token": "..."} or {"content": "..."}. */
static bool collect_special_tokens(json_t *into, const json_t *config) {
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *token = json_object_get(config, names[i]);
        if (json_is_object(token))
            token = json_object_get(token, "content");
        if (json_is_string(token) && json_object_set(into, names[i], token) != 0)
            return false;
    }
    return true;
}

/* chat_template is the text, or a list of {"name", "template"} of which "default" is taken. */
static const json_t *template_of(const json_t *config) {
    const json_t *found = json_object_get(config, "chat_template"), *entry;
    if (!json_is_array(found))
        return found;
    size_t i;
    json_array_foreach(found, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_object_get(entry, "template");
    }
    return NULL;
}

static myelin_status parse_config_template(mln_template **template, const json_t *config,
                                           const char *directory, const char *path,
                                           myelin_error *error) {
    const json_t *source = template_of(config);
    if (!source || json_is_null(source))
        return mln_fail(error, MYELIN_ERROR_NOT_FOUND, directory, -1,
                        "no chat template: expected %s, or chat_template in %s", template_file,
                        config_file);
    if (!json_is_string(source))
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                        "chat_template: expected a string, found %s", mln_json_type_name(source));
    return mln_template_parse(template, json_string_value(source), json_string_length(source), path,
                              error);
}

static myelin_status parse_template_file(mln_template **template, const char *path,
                                         myelin_error *error) {
    mln_buffer source = {0};
    myelin_status status = mln_file_slurp(path, MLN_TEMPLATE_MAX_SOURCE, &source, error);
    if (status == MYELIN_OK)
        status = mln_template_parse(template, source.data, source.length, path, error);
    mln_buffer_free(&source);
    return status;
}

static myelin_status load_config(json_t **config, const char *path, myelin_error *error) {
    *config = NULL;
    if (!mln_path_exists(path))
        return MYELIN_OK;
    myelin_status status = mln_json_load_file(config, path, error);
    if (status == MYELIN_OK && !json_is_object(*config))
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1, "expected an object, found %s",
                        mln_json_type_name(*config));
    return status;
}

static myelin_status open_template(myelin_chat_template *t, const char *directory,
                                   const char *template_path, const char *config_path,
                                   myelin_error *error) {
    json_t *config;
    myelin_status status = load_config(&config, config_path, error);
    if (status == MYELIN_OK) {
        t->special_tokens = json_object();
        if (!t->special_tokens || !collect_special_tokens(t->special_tokens, config))
            status = mln_fail_memory(error, sizeof *t, "a chat template");
    }
    if (status == MYELIN_OK)
        status = mln_path_exists(template_path)
                     ? parse_template_file(&t->template, template_path, error)
                     : parse_config_template(&t->template, config, directory, config_path, error);
    json_decref(config);
    return status;
}

myelin_status myelin_chat_template_open(myelin_chat_template **out, const char *directory,
                                        myelin_error *error) {
    *out = NULL;
    myelin_chat_template *t = mln_calloc(1, sizeof *t);
    char *template_path = mln_path_join(directory, template_file);
    char *config_path = mln_path_join(directory, config_file);
    myelin_status status = t && template_path && config_path
                               ? open_template(t, directory, template_path, config_path, error)
                               : mln_fail_memory(error, strlen(directory), "a chat template");
    free(template_path);
    free(config_path);
    if (status != MYELIN_OK)
        myelin_chat_template_close(t);
    else
        *out = t;
    return status;
}

void myelin_chat_template_close(myelin_chat_template *t) {
    if (!t)
        return;
    mln_template_free(t->template);
    json_decref(t->special_tokens);
    free(t);
}

/* Parses JSON text of the caller that must be of one type. */
static myelin_status parse_argument(json_t **out, const char *text, size_t length, const char *name,
                                    json_type type, myelin_error *error) {
    myelin_error problem;
    myelin_status status = mln_json_load(out, text, length, NULL, &problem);
    if (status == MYELIN_ERROR_MEMORY)
        return mln_fail_memory(error, length, name);
    if (status != MYELIN_OK)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, problem.offset, "%s: %s", name,
                        problem.message);
    if (json_typeof(*out) == type)
        return MYELIN_OK;
    return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1, "%s: expected %s, found %s", name,
                    type == JSON_ARRAY ? "an array" : "an object", mln_json_type_name(*out));
}

myelin_status mln_chat_parse(const char *messages, size_t length,
                             const myelin_chat_options *options, json_t **parsed_messages,
                             json_t **parsed_tools, myelin_error *error) {
    *parsed_messages = *parsed_tools = NULL;
    myelin_status status =
        parse_argument(parsed_messages, messages, length, "messages", JSON_ARRAY, error);
    if (status == MYELIN_OK && options->tools)
        status = parse_argument(parsed_tools, options->tools, strlen(options->tools), "tools",
                                JSON_ARRAY, error);
    return status;
}

/* What transformers' apply_chat_template gives a template, later ones before earlier ones. */
static myelin_status fill_variables(json_t *variables, const myelin_chat_template *t,
                                    json_t *messages, json_t *tools,
                                    const myelin_chat_options *options, myelin_error *error) {
    json_t *further = NULL;
    myelin_status status = MYELIN_OK;
    if (options->variables)
        status = parse_argument(&further, options->variables, strlen(options->variables),
                                "variables", JSON_OBJECT, error);
    int failed = json_object_set(variables, "messages", messages);
    failed |= json_object_set(variables, "tools", tools ? tools : json_null());
    failed |= json_object_set_new(variables, "documents", json_null());
    failed |= json_object_set_new(variables, "add_generation_prompt",
                                  json_boolean(options->add_generation_prompt));
    failed |= json_object_update(variables, t->special_tokens);
    if (options->thinking != MYELIN_THINKING_AUTO)
        failed |= json_object_set_new(variables, "enable_thinking",
                                      json_boolean(options->thinking == MYELIN_THINKING_ON));
    if (further && status == MYELIN_OK)
        failed |= json_object_update(variables, further);
    json_decref(further);
    if (status == MYELIN_OK && failed)
        status = mln_fail_memory(error, sizeof(json_t *), "the variables of a chat template");
    return status;
}

myelin_status mln_chat_render(const myelin_chat_template *t, json_t *messages, json_t *tools,
                              const myelin_chat_options *options, mln_buffer *text,
                              myelin_error *error) {
    json_t *variables = json_object();
    if (!variables)
        return mln_fail_memory(error, sizeof *t, "the variables of a chat template");
    myelin_status status = fill_variables(variables, t, messages, tools, options, error);
    if (status == MYELIN_OK)
        status = mln_template_render(t->template, variables, (int64_t)time(NULL), text, error);
    json_decref(variables);
    return status;
}

myelin_status myelin_chat_render(const myelin_chat_template *t, const char *messages,
                                 size_t messages_length, const myelin_chat_options *options,
                                 char **text, size_t *length, myelin_error *error) {
    *text = NULL;
    *length = 0;
    myelin_chat_options resolved;
    json_t *parsed = NULL, *tools = NULL;
    mln_buffer out = {0};
    myelin_status status = mln_chat_options_resolve(&resolved, options, error);
    if (status == MYELIN_OK)
        status = mln_chat_parse(messages, messages_length, &resolved, &parsed, &tools, error);
    if (status == MYELIN_OK && !mln_buffer_reserve(&out, 0))
        status = mln_fail_memory(error, messages_length, "text");
    if (status == MYELIN_OK)
        status = mln_chat_render(t, parsed, tools, &resolved, &out, error);
    json_decref(parsed);
    json_decref(tools);
    if (status != MYELIN_OK) {
        mln_buffer_free(&out);
        return status;
    }
    out.data[out.length] = '\0';
    *text = out.data;
    *length = out.length;
    return MYELIN_OK;
}
