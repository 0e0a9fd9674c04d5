/* SPDX-License-Identifier: Apache-2.0 */
/* POST /v1/completions. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_PROMPTS = 128 };

static bool read_text(prompt *to, const json_t *value) {
    to->text = json_string_value(value);
    to->length = json_string_length(value);
    return true;
}

static bool read_ids(answer *a, prompt *to, const json_t *value, const char *at, problem *p) {
    /* That a prompt is too long is told by who reads it. */
    return body_ids(value, at, myelin_model_config(a->r->model)->vocab_size, BODY_MAX_VALUES,
                    &to->ids, &to->num_ids, p);
}

/* A string, an array of strings, of token ids, or of arrays of token ids. */
static bool read_prompts(answer *a, problem *p) {
    const json_t *value = json_object_get(a->json, "prompt"), *first = json_array_get(value, 0);
    bool many = json_is_string(first) || json_is_array(first);
    size_t count = many ? json_array_size(value) : 1;
    if (!json_is_string(value) && first == NULL)
        return body_unexpected(p, "prompt", "a string or an array, not empty", value);
    if (count > MAX_PROMPTS)
        return problem_set(p, 400, "prompt", "invalid_value",
                           "prompt: expected at most %d prompts, found %zu", MAX_PROMPTS, count);
    a->prompts = calloc(count, sizeof *a->prompts);
    if (a->prompts == NULL)
        return problem_set(p, 500, NULL, NULL, "out of memory");
    a->num_prompts = count;
    for (size_t i = 0; i < count; i++) {
        char path[BODY_PATH_SIZE] = "prompt";
        const json_t *one = many ? json_array_get(value, i) : value;
        if (many)
            body_path_index(path, "prompt", i);
        if (json_is_string(one) ? !read_text(&a->prompts[i], one)
                                : !read_ids(a, &a->prompts[i], one, path, p))
            return false;
    }
    return true;
}

static bool prepare(answer *a, problem *p) {
    const routes *r = a->r;
    const json_t *format = NULL, *suffix = json_object_get(a->json, "suffix");
    char *schema = NULL;
    tool_choice none = {0};
    answer_random_id(a->id, sizeof a->id, "cmpl-");
    if (!answer_check_model(a, a->json, p) ||
        !params_read(&a->params, a->json, PARAMS_COMPLETIONS, r->model, &r->options, r->max_len,
                     p) ||
        !body_bool(a->json, "", "echo", &a->echo, p) ||
        !body_object(a->json, "", "response_format", &format, p) || !read_prompts(a, p))
        return false;
    if (suffix != NULL && !json_is_null(suffix))
        return problem_set(p, 400, "suffix", "unsupported_value", "suffix: is not supported");
    if (a->echo && a->params.options.logprobs)
        return problem_set(p, 400, "echo", "unsupported_value",
                           "echo: is not supported together with logprobs");
    bool good = format_read(format, "response_format", false, &schema, p) &&
                route_set_constraint(a, NULL, &none, schema, "response_format", p);
    free(schema);
    return good;
}

static void begin_object(answer *a, const char *before) {
    out_format(&a->line,
               "%s{\"id\":\"%s\",\"object\":\"text_completion\",\"created\":%lld,\"model\":",
               before, a->id, (long long)a->created);
    out_string_or_null(&a->line, a->r->options.names[0]);
    out_text(&a->line, ",\"choices\":[");
}

/* The prompt's text, without the quotes around it. */
static void write_prompt(answer *a, const choice *c) {
    const prompt *from = &a->prompts[c->index / (int)a->params.choices];
    if (from->text != NULL) {
        out_escaped(&a->line, from->text, from->length);
        return;
    }
    char *text = NULL;
    size_t length = 0;
    if (myelin_detokenize(answer_tokenizer(a), from->ids, from->num_ids, false, &text, &length,
                          NULL) != MYELIN_OK)
        a->line.failed = true;
    out_escaped(&a->line, text, length);
    myelin_free(text);
}

/* "index", "text", and so on. The records of c->logprobs are written and forgotten. */
static void write_choice(answer *a, choice *c, bool echo, const char *text, size_t length,
                         const char *finish_reason) {
    out_format(&a->line, "{\"index\":%d,\"text\":\"", c->index);
    if (echo)
        write_prompt(a, c);
    out_escaped(&a->line, text, length);
    out_text(&a->line, "\",\"logprobs\":");
    if (c->logprobs.length > 0)
        c->characters = logprobs_completion(answer_tokenizer(a), c->logprobs.data,
                                            c->logprobs.length, c->characters, &a->line);
    else
        out_text(&a->line, "null");
    out_reset(&c->logprobs);
    out_text(&a->line, ",\"finish_reason\":");
    out_string_or_null(&a->line, finish_reason);
    out_text(&a->line, "}");
}

static void write_chunk(answer *a, choice *c, bool echo, const char *text, size_t length,
                        const char *finish_reason) {
    begin_object(a, "data: ");
    write_choice(a, c, echo, text, length, finish_reason);
    out_text(&a->line, a->params.include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

static void begin(answer *a) {
    for (int i = 0; a->echo && i < a->num_choices; i++)
        write_chunk(a, &a->choices[i], true, "", 0, NULL);
}

static void on_event(answer *a, choice *c, const event *e) {
    if (e->kind == EVENT_TOKENS)
        out_bytes(&c->logprobs, e->text, e->length);
    else
        write_chunk(a, c, false, e->text, e->length, NULL);
}

static void end_choice(answer *a, choice *c) {
    write_chunk(a, c, false, "", 0, route_finish_reason(c));
}

static void write_whole(answer *a) {
    begin_object(a, "");
    for (int i = 0; i < a->num_choices; i++) {
        choice *c = &a->choices[i];
        const myelin_result *result = &c->result;
        myelin_piece piece = {.token_ids = result->token_ids,
                              .num_tokens = result->num_tokens,
                              .logprobs = result->logprobs,
                              .top_ids = result->top_ids,
                              .top_logprobs = result->top_logprobs,
                              .num_top = result->num_top};
        if (result->logprobs != NULL)
            logprobs_records(answer_tokenizer(a), &piece, &c->logprobs);
        out_text(&a->line, i > 0 ? "," : "");
        write_choice(a, c, a->echo, result->text, result->text_length, route_finish_reason(c));
    }
    out_text(&a->line, "],\"usage\":");
    answer_write_usage(a);
    out_text(&a->line, "}");
}

static void end(answer *a) {
    if (!a->params.stream) {
        write_whole(a);
        return;
    }
    if (a->params.include_usage) {
        begin_object(a, "data: ");
        out_text(&a->line, "],\"usage\":");
        answer_write_usage(a);
        out_text(&a->line, "}\n\n");
    }
    out_text(&a->line, "data: [DONE]\n\n");
}

const generation_route route_completions = {.prepare = prepare,
                                            .begin = begin,
                                            .event = on_event,
                                            .end_choice = end_choice,
                                            .end = end,
                                            .error = route_error_event,
                                            .keeps_body = true};
