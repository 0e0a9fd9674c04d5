/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request being answered. It is made on the loop's thread, prepared on a thread of its own
 * (parsing and tokenizing may take long), fed from the serving's worker, and written on the loop's
 * thread again. It counts its references, so that the client leaving, the last piece and the end
 * may come in any order.
 */
#ifndef MLN_SERVER_ANSWER_H
#define MLN_SERVER_ANSWER_H

#include <pthread.h>
#include <stdatomic.h>

#include "body.h"
#include "constraints.h"
#include "http.h"
#include "out.h"
#include "params.h"
#include "routes.h"

typedef struct answer answer;
typedef struct choice choice;

/* What the loop is told of a generation, in order. */
typedef enum event_kind {
    EVENT_REASONING = MYELIN_TURN_REASONING,
    EVENT_CONTENT = MYELIN_TURN_CONTENT, /* of a conversation's answer, or of a plain text */
    EVENT_TOOL_CALL = MYELIN_TURN_TOOL_CALL,
    EVENT_TOKENS /* text: token_record, one after the other */
} event_kind;

typedef struct event {
    event_kind kind;
    const char *name; /* of a tool call; NUL-terminated */
    const char *text;
    size_t length;
} event;

/* A token and its log-probabilities; num_top likely_token follow each. */
typedef struct token_record {
    int32_t id;
    float logprob;
    int32_t num_top;
} token_record;

typedef struct likely_token {
    int32_t id;
    float logprob;
} likely_token;

/* A route that generates. prepare() runs on a working thread, the others on the loop's. */
typedef struct generation_route {
    /* Reads the body into answer->params and ->requests; false with the problem. */
    bool (*prepare)(answer *a, problem *p);
    void (*begin)(answer *a);                            /* of a stream */
    void (*event)(answer *a, choice *c, const event *e); /* of a stream, or with `events` */
    void (*end_choice)(answer *a, choice *c);            /* of a stream, or with `events` */
    void (*end)(answer *a); /* writes the whole answer, or the end of the stream */
    void (*error)(answer *a, const problem *p); /* after begin(): writes it; the stream ends then */
    bool events;                                /* they are wanted also when nothing is streamed */
    bool keeps_body; /* answer->json is read again when the generation has begun */
} generation_route;

/* A route that computes its whole answer on a working thread. */
typedef bool (*compute_route)(answer *a, out *body, problem *p);

/* One generation. */
struct choice {
    answer *owner;
    int index;
    /* Guarded by owner->mutex: */
    uint64_t id;
    bool submitted;
    bool done;   /* the serving has called back for the last time */
    out pending; /* events not yet taken by the loop */
    myelin_result result;
    problem failed; /* status 0: it did not */
    /* Of the worker's thread: */
    double last_piece; /* seconds; 0: none yet */
    /* Of the loop's thread: */
    out taken;
    bool ended;
    int num_calls;
    out logprobs;      /* entries that wait for the next delta */
    size_t characters; /* of the text so far; for text_offset */
    void *state;       /* of the route */
};

/* A prompt to generate for, once for each of its choices. */
typedef struct prompt {
    const char *text; /* borrowed from the body, or NULL */
    size_t length;
    int32_t *ids; /* owned */
    size_t num_ids;
} prompt;

struct answer {
    atomic_int references;
    routes *r;
    http_exchange *exchange; /* NULL: ended or gone; of the loop's thread */
    const generation_route *route;
    compute_route compute;
    char *body;
    size_t length;
    double arrived;  /* seconds on the monotonic clock */
    int64_t created; /* seconds since 1970 */
    char id[48];
    atomic_bool gone;
    answer *next, *previous; /* those the loop has not answered; of the loop's thread */
    /* Made by prepare(), read by all after it: */
    json_t *json;
    params params;
    char *messages, *tools, *variables; /* of a conversation */
    myelin_chat_options chat;
    prompt *prompts; /* else */
    size_t num_prompts;
    constraint_use *constraint;
    bool echo;
    choice *choices;
    int num_choices;
    /* Guarded by the mutex: */
    pthread_mutex_t mutex;
    bool ready;  /* all has been submitted, or not: see problem */
    bool posted; /* the loop will look */
    problem problem;
    out computed;
    /* Of the loop's thread: */
    bool begun;
    int num_ended;
    double last_write;
    out line;    /* being put together */
    void *state; /* of the route; released with free_state */
    void (*free_state)(answer *a);
};

double answer_now(void); /* seconds, monotonic */
/* PREFIX and 24 random characters. */
void answer_random_id(char *id, size_t size, const char *prefix);

/*
 * Begins answering a request by one of the two kinds of route; `slow` says that computing may take
 * seconds. The answer is its own owner.
 */
void answer_generate(routes *r, http_exchange *exchange, const generation_route *route);
void answer_compute(routes *r, http_exchange *exchange, compute_route compute, bool slow);

/* ---- For routes, on the loop's thread ---- */

/* A whole answer: 200 with the JSON in a->line. */
void answer_send(answer *a);
/* A piece of a stream: a->line, which is emptied. */
void answer_write(answer *a);

/* The line of comment that keeps a silent stream open, when it is time. */
void answer_comment(answer *a, double now, double silence);

/* Tokens of all choices. */
typedef struct answer_usage {
    int64_t prompt, cached, completion, reasoning;
} answer_usage;
answer_usage answer_count(const answer *a);
/* {"prompt_tokens": ...}, onto a->line. */
void answer_write_usage(answer *a);

/* ---- For routes, while preparing ---- */

/* Whether "model" names the one served. */
bool answer_check_model(const answer *a, const json_t *body, problem *p);
/*
 * What a request's client is told of an error of the library's. param is blamed for what it calls a
 * wrong argument, input for what does not fit the context; both may be NULL.
 */
void answer_failed(const routes *r, const char *param, const char *input, const myelin_error *error,
                   problem *p);
const myelin_tokenizer *answer_tokenizer(const answer *a);

#endif
