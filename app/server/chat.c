/* SPDX-License-Identifier: Apache-2.0 */
/* POST /v1/chat/completions. */
#include <stdlib.h>
#include <string.h>

#include "api_error.h"
#include "internal.h"

static char *dump(const json_t *value) {
    return json_dumps(value, JSON_COMPACT);
}

/* The template's further variables: thinking is an option of its own. */
static bool set_variables(answer *a, const json_t *variables) {
    if (variables == NULL)
        return true;
    json_t *rest = json_copy((json_t *)variables);
    json_object_del(rest, "enable_thinking");
    bool any = json_object_size(rest) > 0;
    a->variables = any ? dump(rest) : NULL;
    json_decref(rest);
    return !any || a->variables != NULL;
}

bool route_set_conversation(answer *a, json_t *messages, const json_t *tools,
                            const json_t *variables, problem *p) {
    a->messages = messages != NULL ? dump(messages) : NULL;
    a->tools = tools != NULL ? dump(tools) : NULL;
    bool good =
        a->messages != NULL && (tools == NULL || a->tools != NULL) && set_variables(a, variables);
    json_decref(messages);
    myelin_chat_options_init(&a->chat);
    a->chat.thinking = a->params.thinking;
    a->chat.tools = a->tools;
    a->chat.variables = a->variables;
    return good || problem_set(p, 500, NULL, NULL, "out of memory");
}

bool route_set_constraint(answer *a, const json_t *tools, const tool_choice *allowed,
                          const char *schema, const char *schema_path, problem *p) {
    bool calls = tools != NULL && (allowed->required || !a->params.parallel_tool_calls);
    myelin_error error;
    if (schema != NULL && tools != NULL)
        return problem_set(p, 400, schema_path, "unsupported_value",
                           "%s: a form of the answer and tools are not supported together",
                           schema_path);
    if (schema == NULL && !calls)
        return true;
    constraint_key key = {.text = calls ? a->tools : schema,
                          .tools = calls,
                          .required = allowed->required,
                          .parallel = a->params.parallel_tool_calls,
                          .name = allowed->name};
    myelin_status status = constraints_get(a->r->constraints, &key, &a->constraint, &error);
    if (status == MYELIN_OK)
        return true;
    bool mistake = status == MYELIN_ERROR_ARGUMENT || status == MYELIN_ERROR_UNSUPPORTED;
    return problem_set(p, mistake ? 400 : 500, calls ? "tools" : schema_path, "invalid_schema",
                       "%s", error.message);
}

void route_error_event(answer *a, const problem *p) {
    char *text =
        api_error_text(p->status, p->param[0] != '\0' ? p->param : NULL, p->code, p->message);
    out_text(&a->line, "data: ");
    out_text(&a->line, text != NULL ? text : "{\"error\":{\"message\":\"out of memory\"}}");
    out_text(&a->line, "\n\n");
    free(text);
}

const char *route_finish_reason(const choice *c) {
    const myelin_result *result = &c->result;
    bool calls = result->turn != NULL && result->turn->num_tool_calls > 0;
    return calls && result->finish_reason == MYELIN_FINISH_STOP
               ? "tool_calls"
               : myelin_finish_reason_text(result->finish_reason);
}

static bool prepare_chat(answer *a, const json_t *tools, const tool_choice *allowed,
                         const char *schema, problem *p) {
    const json_t *body = a->json, *variables = NULL;
    if (!body_object(body, "", "chat_template_kwargs", &variables, p))
        return false;
    json_t *messages = messages_from_chat(json_object_get(body, "messages"), "messages", p);
    return messages != NULL && route_set_conversation(a, messages, tools, variables, p) &&
           route_set_constraint(a, tools, allowed, schema, "response_format", p);
}

static bool prepare(answer *a, problem *p) {
    const routes *r = a->r;
    const json_t *format = NULL;
    json_t *tools = NULL;
    tool_choice allowed;
    char *schema = NULL;
    answer_random_id(a->id, sizeof a->id, "chatcmpl-");
    if (!answer_check_model(a, a->json, p) ||
        !params_read(&a->params, a->json, PARAMS_CHAT, r->model, &r->options, r->max_len, p) ||
        !body_object(a->json, "", "response_format", &format, p) ||
        !format_read(format, "response_format", false, &schema, p))
        return false;
    bool good = tools_read(a->json, false, &tools, &allowed, p) &&
                prepare_chat(a, tools, &allowed, schema, p);
    json_decref(tools);
    free(schema);
    return good;
}

/* ---- A stream ---- */

static void begin_chunk(answer *a) {
    out_format(&a->line,
               "data: {\"id\":\"%s\",\"object\":\"chat.completion.chunk\",\"created\":%lld,", a->id,
               (long long)a->created);
    out_text(&a->line, "\"model\":");
    out_string_or_null(&a->line, a->r->options.names[0]);
    out_text(&a->line, ",\"choices\":[");
}

static void begin_delta(answer *a, const choice *c) {
    begin_chunk(a);
    out_format(&a->line, "{\"index\":%d,\"delta\":{", c->index);
}

/* The log-probabilities that have come since the last delta go with this one. */
static void end_delta(answer *a, choice *c, const char *finish_reason) {
    out_text(&a->line, "},\"logprobs\":");
    if (c->logprobs.length > 0) {
        out_text(&a->line, "{\"content\":[");
        out_bytes(&a->line, c->logprobs.data, c->logprobs.length);
        out_text(&a->line, "],\"refusal\":null}");
        out_reset(&c->logprobs);
    } else {
        out_text(&a->line, "null");
    }
    out_text(&a->line, ",\"finish_reason\":");
    out_string_or_null(&a->line, finish_reason);
    out_text(&a->line, a->params.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n");
}

static void begin(answer *a) {
    for (int i = 0; i < a->num_choices; i++) {
        begin_delta(a, &a->choices[i]);
        out_text(&a->line, "\"role\":\"assistant\",\"content\":\"\"");
        end_delta(a, &a->choices[i], NULL);
    }
}

static void write_call(answer *a, const char *name, const char *arguments, size_t length) {
    char id[48];
    answer_random_id(id, sizeof id, "call_");
    out_format(&a->line, "\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", id);
    out_string(&a->line, name, strlen(name));
    out_text(&a->line, ",\"arguments\":");
    out_string(&a->line, arguments, length);
    out_text(&a->line, "}");
}

static void on_event(answer *a, choice *c, const event *e) {
    if (e->kind == EVENT_TOKENS) {
        logprobs_chat(answer_tokenizer(a), e, &c->logprobs);
        return;
    }
    begin_delta(a, c);
    if (e->kind == EVENT_TOOL_CALL) {
        out_format(&a->line, "\"tool_calls\":[{\"index\":%d,", c->num_calls++);
        write_call(a, e->name, e->text, e->length);
        out_text(&a->line, "}]");
    } else {
        out_string_or_null(&a->line,
                           e->kind == EVENT_CONTENT ? "content" : a->r->options.reasoning);
        out_text(&a->line, ":");
        out_string(&a->line, e->text, e->length);
    }
    end_delta(a, c, NULL);
}

static void end_choice(answer *a, choice *c) {
    begin_delta(a, c);
    end_delta(a, c, route_finish_reason(c));
}

/* ---- A whole answer ---- */

static void write_message(answer *a, const myelin_turn *turn) {
    bool calls = turn->num_tool_calls > 0;
    out_text(&a->line, "{\"role\":\"assistant\",\"content\":");
    if (calls && turn->content_length == 0)
        out_text(&a->line, "null");
    else
        out_string(&a->line, turn->content, turn->content_length);
    out_text(&a->line, ",\"refusal\":null");
    if (turn->reasoning_length > 0) {
        out_text(&a->line, ",");
        out_string_or_null(&a->line, a->r->options.reasoning);
        out_text(&a->line, ":");
        out_string(&a->line, turn->reasoning, turn->reasoning_length);
    }
    for (size_t i = 0; i < turn->num_tool_calls; i++) {
        const myelin_tool_call *call = &turn->tool_calls[i];
        out_text(&a->line, i > 0 ? ",{" : ",\"tool_calls\":[{");
        write_call(a, call->name, call->arguments, strlen(call->arguments));
        out_text(&a->line, "}");
    }
    out_text(&a->line, calls ? "]}" : "}");
}

/* All of a result's tokens as a piece. */
static myelin_piece whole_piece(const myelin_result *result) {
    return (myelin_piece){.token_ids = result->token_ids,
                          .num_tokens = result->num_tokens,
                          .logprobs = result->logprobs,
                          .top_ids = result->top_ids,
                          .top_logprobs = result->top_logprobs,
                          .num_top = result->num_top};
}

static void write_logprobs(answer *a, const myelin_result *result) {
    out records = {0}, entries = {0};
    myelin_piece piece = whole_piece(result);
    if (result->logprobs == NULL) {
        out_text(&a->line, "null");
        return;
    }
    logprobs_records(answer_tokenizer(a), &piece, &records);
    event tokens = {EVENT_TOKENS, NULL, records.data, records.length};
    logprobs_chat(answer_tokenizer(a), &tokens, &entries);
    out_text(&a->line, "{\"content\":[");
    out_bytes(&a->line, entries.data, entries.length);
    out_text(&a->line, "],\"refusal\":null}");
    a->line.failed |= records.failed || entries.failed;
    out_free(&records);
    out_free(&entries);
}

static void write_whole(answer *a) {
    out_format(&a->line,
               "{\"id\":\"%s\",\"object\":\"chat.completion\",\"created\":%lld,\"model\":", a->id,
               (long long)a->created);
    out_string_or_null(&a->line, a->r->options.names[0]);
    out_text(&a->line, ",\"choices\":[");
    for (int i = 0; i < a->num_choices; i++) {
        const choice *c = &a->choices[i];
        out_format(&a->line, "%s{\"index\":%d,\"message\":", i > 0 ? "," : "", i);
        write_message(a, c->result.turn);
        out_text(&a->line, ",\"logprobs\":");
        write_logprobs(a, &c->result);
        out_format(&a->line, ",\"finish_reason\":\"%s\"}", route_finish_reason(c));
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
        begin_chunk(a);
        out_text(&a->line, "],\"usage\":");
        answer_write_usage(a);
        out_text(&a->line, "}\n\n");
    }
    out_text(&a->line, "data: [DONE]\n\n");
}

const generation_route route_chat = {.prepare = prepare,
                                     .begin = begin,
                                     .event = on_event,
                                     .end_choice = end_choice,
                                     .end = end,
                                     .error = route_error_event};
