/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The routes of the server: OpenAI's API over one model. All of it runs on the loop's thread; what
 * the serving's worker hands over comes there through http_server_post().
 */
#ifndef MLN_SERVER_ROUTES_H
#define MLN_SERVER_ROUTES_H

#include "http.h"

typedef struct routes routes;

/* Strings are borrowed for as long as the routes live. */
typedef struct routes_options {
    const char *const *names; /* of the model: the first is its own, the others are taken for it */
    size_t num_names;         /* at least 1 */
    int32_t max_len;          /* 0: what the model and the KV memory allow; tokens of one request,
                                 prompt and output */
    int32_t max_tokens;       /* 0: until max_len; of an answer whose request names no number */
    int32_t max_choices;      /* 16: "n" of a request */
    const char *reasoning;    /* "reasoning_content": where an answer's reasoning stands */
    double comment_seconds;   /* 15: a stream silent for so long gets a comment line */
    double stuck_seconds; /* 30: /health is 503 when steps that are due end no more for so long */
    double retry_seconds; /* 1: Retry-After of a 429 or 503 */
    bool page;            /* true: / is the chat page */
} routes_options;

void routes_options_init(routes_options *options);

/*
 * The server exists and does not run yet; it outlives no route that is being answered. Until
 * routes_set_model(), /health is 503 "loading" and what needs the model is 503.
 */
myelin_status routes_create(routes **made, const routes_options *options, http_server *server,
                            myelin_error *error);
/*
 * On the loop's thread (or before it runs). Both are borrowed: the serving is freed after run()
 * has returned and before the server is.
 */
void routes_set_model(routes *r, myelin_model *model, myelin_serving *serving);

/* An http_handler; user is the routes. */
void routes_handle(void *user, http_exchange *exchange, const http_request *request);

/* On the loop's thread: /health is 503 from now on; requests are still answered. */
void routes_begin_drain(routes *r);

/*
 * After run() has returned and before what follows: waits for the requests whose bodies are still
 * being read, or embedded, on threads of the routes.
 */
void routes_stop(routes *r);

/*
 * After run() has returned, in this order: routes_stop(), myelin_serving_free() (whose last
 * callbacks still post), http_server_free() (which calls what was posted and not called yet; its
 * exchanges have ended), routes_free(), myelin_model_close(). Accepts NULL.
 */
void routes_free(routes *r);

#endif
