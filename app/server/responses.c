/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/responses: the part of it that needs no memory of earlier requests. An answer is a list
 * of items, put together from the events of the generation whether it is streamed or not.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

typedef enum item_kind { ITEM_NONE, ITEM_REASONING, ITEM_MESSAGE, ITEM_CALL } item_kind;

typedef struct response {
    int sequence_number;
    int count;      /* of items closed */
    item_kind open; /* the item being written */
    char item_id[48], call_id[48];
    char *name; /* of the call */
    out text;   /* of the open item, so far */
    out items;  /* those closed, as JSON */
} response;

static void free_response(answer *a) {
    response *s = a->state;
    out_free(&s->text);
    out_free(&s->items);
    free(s->name);
    free(s);
}

/* ---- The request ---- */

/* What would need memory of earlier requests, or work after the answer. */
static bool refuse_state(const json_t *body, problem *p) {
    static const char *const names[] = {"previous_response_id", "conversation", "prompt"};
    bool background = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *value = json_object_get(body, names[i]);
        if (value != NULL && !json_is_null(value))
            return problem_set(p, 400, names[i], "unsupported_value",
                               "%s: this server keeps nothing from request to request: expected "
                               "the whole conversation in input",
                               names[i]);
    }
    if (!body_bool(body, "", "background", &background, p))
        return false;
    return !background ||
           problem_set(p, 400, "background", "unsupported_value", "background: is not supported");
}

static bool prepare_conversation(answer *a, const json_t *tools, const tool_choice *allowed,
                                 const char *schema, problem *p) {
    const char *instructions = NULL;
    const json_t *variables = NULL;
    size_t length = 0;
    if (!body_string(a->json, "", "instructions", &instructions, &length, p) ||
        !body_object(a->json, "", "chat_template_kwargs", &variables, p))
        return false;
    json_t *messages =
        messages_from_items(json_object_get(a->json, "input"), instructions, length, p);
    return messages != NULL && route_set_conversation(a, messages, tools, variables, p) &&
           route_set_constraint(a, tools, allowed, schema, "text.format", p);
}

static bool prepare(answer *a, problem *p) {
    const routes *r = a->r;
    const json_t *text = NULL, *format = NULL;
    json_t *tools = NULL;
    tool_choice allowed;
    char *schema = NULL;
    answer_random_id(a->id, sizeof a->id, "resp_");
    a->state = calloc(1, sizeof(response));
    if (a->state == NULL)
        return problem_set(p, 500, NULL, NULL, "out of memory");
    a->free_state = free_response;
    if (!answer_check_model(a, a->json, p) || !refuse_state(a->json, p) ||
        !params_read(&a->params, a->json, PARAMS_RESPONSES, r->model, &r->options, r->max_len, p) ||
        !body_object(a->json, "", "text", &text, p) ||
        !body_object(text, "text", "format", &format, p) ||
        !format_read(format, "text.format", true, &schema, p))
        return false;
    a->params.choices = 1;
    bool good = tools_read(a->json, true, &tools, &allowed, p) &&
                prepare_conversation(a, tools, &allowed, schema, p);
    json_decref(tools);
    free(schema);
    return good;
}

/* ---- The object ---- */

/* "NAME": what the request had there, or else the default. */
static void write_member(out *o, const json_t *body, const char *name, const char *otherwise) {
    const json_t *value = json_object_get(body, name);
    char *text = value != NULL && !json_is_null(value)
                     ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY)
                     : NULL;
    out_format(o, ",\"%s\":%s", name, text != NULL ? text : otherwise);
    free(text);
}

static void write_echo(const answer *a, out *o) {
    static const struct {
        const char *name, *otherwise;
    } members[] = {{"instructions", "null"},
                   {"max_output_tokens", "null"},
                   {"metadata", "{}"},
                   {"parallel_tool_calls", "true"},
                   {"text", "{\"format\":{\"type\":\"text\"}}"},
                   {"tool_choice", "\"auto\""},
                   {"tools", "[]"},
                   {"user", "null"}};
    const myelin_generation_options *options = &a->params.options;
    bool greedy = options->sampler == MYELIN_SAMPLER_GREEDY;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        write_member(o, a->json, members[i].name, members[i].otherwise);
    out_text(o, ",\"temperature\":");
    out_real(o, greedy ? 0 : options->temperature, "null");
    out_text(o, ",\"top_p\":");
    out_real(o, options->top_p, "null");
    out_text(o, ",\"reasoning\":{\"effort\":");
    out_string_or_null(o, a->params.effort);
    out_text(o, ",\"summary\":null},\"previous_response_id\":null,\"store\":false,"
                "\"background\":false,\"truncation\":\"disabled\"");
}

static void write_usage(const answer *a, out *o) {
    answer_usage usage = answer_count(a);
    out_format(o,
               "{\"input_tokens\":%lld,\"input_tokens_details\":{\"cached_tokens\":%lld},"
               "\"output_tokens\":%lld,\"output_tokens_details\":{\"reasoning_tokens\":%lld},"
               "\"total_tokens\":%lld}",
               (long long)usage.prompt, (long long)usage.cached, (long long)usage.completion,
               (long long)usage.reasoning, (long long)(usage.prompt + usage.completion));
}

static bool is_cut(const answer *a) {
    return a->choices[0].result.finish_reason == MYELIN_FINISH_LENGTH;
}

static void write_response(answer *a, const char *status, out *o) {
    const response *s = a->state;
    bool ended = strcmp(status, "in_progress") != 0;
    out_format(o, "{\"id\":\"%s\",\"object\":\"response\",\"created_at\":%lld,\"status\":\"%s\",",
               a->id, (long long)a->created, status);
    out_text(o, "\"error\":null,\"incomplete_details\":");
    out_text(o, ended && is_cut(a) ? "{\"reason\":\"max_output_tokens\"}" : "null");
    out_text(o, ",\"model\":");
    out_string_or_null(o, a->r->options.names[0]);
    out_text(o, ",\"output\":[");
    out_bytes(o, s->items.data, s->items.length);
    out_text(o, "]");
    write_echo(a, o);
    out_text(o, ",\"usage\":");
    if (ended)
        write_usage(a, o);
    else
        out_text(o, "null");
    out_text(o, "}");
}

/* ---- Events: begun with their name and number, ended after their members ---- */

static void begin_event(answer *a, const char *type) {
    response *s = a->state;
    out_format(&a->line, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%d", type, type,
               s->sequence_number++);
}

static void end_event(answer *a) {
    out_text(&a->line, "}\n\n");
}

static void response_event(answer *a, const char *type, const char *status) {
    begin_event(a, type);
    out_text(&a->line, ",\"response\":");
    write_response(a, status, &a->line);
    end_event(a);
}

/* The members that say which part of which item. */
static void write_place(answer *a) {
    const response *s = a->state;
    out_format(&a->line, ",\"item_id\":\"%s\",\"output_index\":%d", s->item_id, s->count);
    if (s->open != ITEM_CALL)
        out_text(&a->line, ",\"content_index\":0");
}

static void text_event(answer *a, const char *type, const char *member, const char *text,
                       size_t length) {
    begin_event(a, type);
    write_place(a);
    out_format(&a->line, ",\"%s\":", member);
    out_string(&a->line, text, length);
    const response *s = a->state;
    if (s->open == ITEM_MESSAGE)
        out_text(&a->line, ",\"logprobs\":[]");
    end_event(a);
}

/* ---- Items ---- */

static void write_part(const response *s, const out *text, out *o) {
    out_format(o, "{\"type\":\"%s\",\"text\":",
               s->open == ITEM_MESSAGE ? "output_text" : "reasoning_text");
    out_string(o, text != NULL ? text->data : "", text != NULL ? text->length : 0);
    out_text(o, s->open == ITEM_MESSAGE ? ",\"annotations\":[],\"logprobs\":[]}" : "}");
}

/* The open item: with text, or as it is before any came. */
static void write_item(const response *s, const char *status, bool whole, out *o) {
    static const char *const types[] = {"", "reasoning", "message", "function_call"};
    out_format(o, "{\"type\":\"%s\",\"id\":\"%s\",\"status\":\"%s\"", types[s->open], s->item_id,
               status);
    if (s->open == ITEM_CALL) {
        out_format(o, ",\"call_id\":\"%s\",\"name\":", s->call_id);
        out_string_or_null(o, s->name);
        out_text(o, ",\"arguments\":");
        out_string(o, whole ? s->text.data : "", whole ? s->text.length : 0);
        out_text(o, "}");
        return;
    }
    out_text(o, s->open == ITEM_MESSAGE ? ",\"role\":\"assistant\",\"content\":["
                                        : ",\"summary\":[],\"content\":[");
    if (whole)
        write_part(s, &s->text, o);
    out_text(o, "]}");
}

static void open_item(answer *a, item_kind kind) {
    static const char *const prefixes[] = {"", "rs_", "msg_", "fc_"};
    response *s = a->state;
    s->open = kind;
    out_reset(&s->text);
    out_text(&s->text, "");
    answer_random_id(s->item_id, sizeof s->item_id, prefixes[kind]);
    if (!a->params.stream)
        return;
    begin_event(a, "response.output_item.added");
    out_format(&a->line, ",\"output_index\":%d,\"item\":", s->count);
    write_item(s, "in_progress", false, &a->line);
    end_event(a);
    if (kind == ITEM_CALL)
        return;
    begin_event(a, "response.content_part.added");
    write_place(a);
    out_text(&a->line, ",\"part\":");
    write_part(s, NULL, &a->line);
    end_event(a);
}

static void close_events(answer *a, const char *status) {
    static const char *const types[] = {"", "response.reasoning_text.done",
                                        "response.output_text.done",
                                        "response.function_call_arguments.done"};
    response *s = a->state;
    text_event(a, types[s->open], s->open == ITEM_CALL ? "arguments" : "text", s->text.data,
               s->text.length);
    if (s->open != ITEM_CALL) {
        begin_event(a, "response.content_part.done");
        write_place(a);
        out_text(&a->line, ",\"part\":");
        write_part(s, &s->text, &a->line);
        end_event(a);
    }
    begin_event(a, "response.output_item.done");
    out_format(&a->line, ",\"output_index\":%d,\"item\":", s->count);
    write_item(s, status, true, &a->line);
    end_event(a);
}

static void close_item(answer *a, const char *status) {
    response *s = a->state;
    if (s->open == ITEM_NONE)
        return;
    if (a->params.stream)
        close_events(a, status);
    if (s->count > 0)
        out_text(&s->items, ",");
    write_item(s, status, true, &s->items);
    s->count++;
    s->open = ITEM_NONE;
}

/* More text of the open item. */
static void add_text(answer *a, const char *type, const event *e) {
    response *s = a->state;
    out_bytes(&s->text, e->text, e->length);
    if (a->params.stream)
        text_event(a, type, "delta", e->text, e->length);
}

static void add_call(answer *a, const event *e) {
    response *s = a->state;
    close_item(a, "completed");
    free(s->name);
    s->name = strdup(e->name);
    answer_random_id(s->call_id, sizeof s->call_id, "call_");
    open_item(a, ITEM_CALL);
    add_text(a, "response.function_call_arguments.delta", e);
    close_item(a, "completed");
}

static void on_event(answer *a, choice *c, const event *e) {
    response *s = a->state;
    (void)c;
    if (e->kind == EVENT_TOOL_CALL) {
        add_call(a, e);
        return;
    }
    if (e->kind == EVENT_TOKENS)
        return;
    item_kind kind = e->kind == EVENT_CONTENT ? ITEM_MESSAGE : ITEM_REASONING;
    if (s->open != kind) {
        close_item(a, "completed");
        open_item(a, kind);
    }
    add_text(a,
             kind == ITEM_MESSAGE ? "response.output_text.delta" : "response.reasoning_text.delta",
             e);
}

static void begin(answer *a) {
    response_event(a, "response.created", "in_progress");
    response_event(a, "response.in_progress", "in_progress");
}

static void end_choice(answer *a, choice *c) {
    (void)c;
    close_item(a, is_cut(a) ? "incomplete" : "completed");
}

static void end(answer *a) {
    const response *s = a->state;
    const char *status = is_cut(a) ? "incomplete" : "completed";
    a->line.failed |= s->items.failed || s->text.failed;
    if (a->params.stream)
        response_event(a, is_cut(a) ? "response.incomplete" : "response.completed", status);
    else
        write_response(a, status, &a->line);
}

static void on_error(answer *a, const problem *p) {
    begin_event(a, "error");
    out_text(&a->line, ",\"code\":");
    out_string_or_null(&a->line, p->code != NULL ? p->code : "server_error");
    out_text(&a->line, ",\"message\":");
    out_string_or_null(&a->line, p->message);
    out_text(&a->line, ",\"param\":");
    out_string_or_null(&a->line, p->param[0] != '\0' ? p->param : NULL);
    end_event(a);
}

const generation_route route_responses = {.prepare = prepare,
                                          .begin = begin,
                                          .event = on_event,
                                          .end_choice = end_choice,
                                          .end = end,
                                          .error = on_error,
                                          .events = true,
                                          .keeps_body = true};
