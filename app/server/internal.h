/* SPDX-License-Identifier: Apache-2.0 */
/* What stands behind `routes`, for the files that are the routes. */
#ifndef MLN_SERVER_INTERNAL_H
#define MLN_SERVER_INTERNAL_H

#include "answer.h"
#include "constraints.h"
#include "messages.h"
#include "metrics.h"
#include "work.h"

struct routes {
    routes_options options;
    http_server *server;
    /* Set on the loop's thread before anything that needs them is begun: */
    myelin_model *model;
    myelin_serving *serving;
    constraints *constraints;
    int32_t max_len; /* tokens of one request, prompt and output */
    work *preparing, *embedding;
    metrics metrics;
    atomic_bool draining, stopping;
    /* Of the loop's thread: */
    answer *answers; /* not yet answered */
    uint64_t steps;  /* when it was last looked at, */
    double moved;    /* and when something last moved */
    int64_t started;
};

extern const generation_route route_chat, route_completions, route_responses;

bool route_tokenize(answer *a, out *body, problem *p);
bool route_detokenize(answer *a, out *body, problem *p);
bool route_apply_template(answer *a, out *body, problem *p);
bool route_embeddings(answer *a, out *body, problem *p);

/*
 * A conversation for the chat template: messages is taken over; tools may be NULL. The constraint
 * is what the tool choice or the schema (NULL: none) asks for.
 */
bool route_set_conversation(answer *a, json_t *messages, const json_t *tools,
                            const json_t *variables, problem *p);
bool route_set_constraint(answer *a, const json_t *tools, const tool_choice *allowed,
                          const char *schema, const char *schema_path, problem *p);
/* The error as an event of a stream, onto a->line. */
void route_error_event(answer *a, const problem *p);
const char *route_finish_reason(const choice *c);

/* {"token": ..., "logprob": ..., "bytes": ..., "top_logprobs": [...]} for each token record. */
void logprobs_chat(const myelin_tokenizer *tokenizer, const event *tokens, out *o);
/*
 * A completion's "logprobs" of token records that begin `offset` characters into the text; returns
 * where they end.
 */
size_t logprobs_completion(const myelin_tokenizer *tokenizer, const char *records, size_t length,
                           size_t offset, out *o);
/* Appends a piece's tokens as records. */
void logprobs_records(const myelin_tokenizer *tokenizer, const myelin_piece *piece, out *o);

#endif
