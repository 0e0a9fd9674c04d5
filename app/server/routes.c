/* SPDX-License-Identifier: Apache-2.0 */
#include "routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api_error.h"
#include "internal.h"
#include "page.h"

enum {
    PREPARING_THREADS = 2,
    MAX_PREPARING = 4096, /* requests whose body waits to be read */
    MAX_EMBEDDING = 256,
    DEFAULT_CHOICES = 16,
};
static const double TICK_SECONDS = 1;

void routes_options_init(routes_options *options) {
    *options = (routes_options){.max_choices = DEFAULT_CHOICES,
                                .reasoning = "reasoning_content",
                                .comment_seconds = 15,
                                .stuck_seconds = 30,
                                .retry_seconds = 1,
                                .page = true};
}

static myelin_serving_stats stats_of(const routes *r) {
    myelin_serving_stats stats = {.size = sizeof stats};
    myelin_serving_get_stats(r->serving, &stats);
    return stats;
}

/* Each second: comments for silent streams, and whether the scheduler moves. */
static void tick(void *argument) {
    routes *r = argument;
    double now = answer_now();
    for (answer *a = r->answers; a != NULL; a = a->next)
        answer_comment(a, now, r->options.comment_seconds);
    if (r->model == NULL)
        return;
    myelin_serving_stats stats = stats_of(r);
    if (stats.steps != r->steps || stats.running + stats.waiting == 0)
        r->moved = now;
    r->steps = stats.steps;
}

myelin_status routes_create(routes **made, const routes_options *options, http_server *server,
                            myelin_error *error) {
    *made = NULL;
    routes *r = calloc(1, sizeof *r);
    if (r == NULL) {
        *error = (myelin_error){
            .status = MYELIN_ERROR_MEMORY, .offset = -1, .message = "out of memory for routes"};
        return MYELIN_ERROR_MEMORY;
    }
    /* A body that memory is too short for is an error, and no reason to end. */
    json_set_alloc_funcs(malloc, free);
    json_object_seed(0); /* before threads need it */
    r->options = *options;
    r->server = server;
    r->started = (int64_t)time(NULL);
    metrics_init(&r->metrics);
    myelin_status status = work_create(&r->preparing, PREPARING_THREADS, MAX_PREPARING, error);
    if (status == MYELIN_OK)
        status = work_create(&r->embedding, 1, MAX_EMBEDDING, error);
    if (status == MYELIN_OK)
        status = http_server_every(server, TICK_SECONDS, tick, r);
    if (status != MYELIN_OK) {
        routes_free(r);
        return status;
    }
    *made = r;
    return MYELIN_OK;
}

void routes_set_model(routes *r, myelin_model *model, myelin_serving *serving) {
    const myelin_config *config = myelin_model_config(model);
    int32_t most = config->max_position_embeddings;
    r->serving = serving;
    myelin_serving_stats stats = stats_of(r);
    if (stats.max_len < most)
        most = stats.max_len;
    if (r->options.max_len > 0 && r->options.max_len < most)
        most = r->options.max_len;
    r->max_len = most;
    r->moved = answer_now();
    if (myelin_model_tokenizer(model) != NULL)
        r->constraints = constraints_create(myelin_model_tokenizer(model));
    r->model = model;
}

void routes_begin_drain(routes *r) {
    atomic_store(&r->draining, true);
}

void routes_stop(routes *r) {
    atomic_store(&r->stopping, true);
    work_free(r->preparing);
    work_free(r->embedding);
    r->preparing = r->embedding = NULL;
}

void routes_free(routes *r) {
    if (r == NULL)
        return;
    routes_stop(r);
    constraints_free(r->constraints);
    metrics_clear(&r->metrics);
    free(r);
}

/* ---- Small answers, on the loop's thread ---- */

static void send(routes *r, http_exchange *exchange, int status, const char *type, out *body) {
    if (body->failed) {
        metrics_status(&r->metrics, 500);
        api_error_respond(exchange, 500, NULL, NULL, "out of memory");
    } else {
        metrics_status(&r->metrics, status);
        http_respond(exchange, status, type, NULL, 0, body->data, body->length);
    }
    out_free(body);
}

static void send_json(routes *r, http_exchange *exchange, int status, out *body) {
    send(r, exchange, status, "application/json", body);
}

static void unavailable(routes *r, http_exchange *exchange, const char *code, const char *message) {
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%.0f", r->options.retry_seconds + 0.5);
    const http_header headers[] = {{"Retry-After", seconds}};
    char *text = api_error_text(503, NULL, code, message);
    metrics_status(&r->metrics, 503);
    http_respond(exchange, 503, "application/json", headers, 1, text,
                 text != NULL ? strlen(text) : 0);
    free(text);
}

static void get_health(routes *r, http_exchange *exchange, const http_request *request) {
    out body = {0};
    (void)request;
    if (r->model == NULL) {
        unavailable(r, exchange, "loading", "the model is being loaded");
    } else if (atomic_load(&r->draining)) {
        unavailable(r, exchange, "draining", "the server is about to stop");
    } else if (answer_now() - r->moved > r->options.stuck_seconds) {
        unavailable(r, exchange, "stuck", "requests are under way and no step has ended lately");
    } else if (stats_of(r).device_failed) {
        unavailable(r, exchange, "device", "what runs the model has failed");
    } else {
        out_text(&body, "{\"status\":\"ok\"}");
        send_json(r, exchange, 200, &body);
    }
}

static void get_version(routes *r, http_exchange *exchange, const http_request *request) {
    out body = {0};
    (void)request;
    out_format(&body, "{\"version\":\"%s\"}", myelin_version());
    send_json(r, exchange, 200, &body);
}

static void get_metrics(routes *r, http_exchange *exchange, const http_request *request) {
    out body = {0};
    myelin_serving_stats stats = {0};
    (void)request;
    if (r->model != NULL)
        stats = stats_of(r);
    metrics_text(&r->metrics, r->model != NULL ? &stats : NULL, r->options.names[0], &body);
    send(r, exchange, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
}

static void write_model(const routes *r, const char *name, out *body) {
    out_text(body, "{\"id\":");
    out_string_or_null(body, name);
    out_format(body,
               ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"myelin\","
               "\"max_model_len\":%d}",
               (long long)r->started, (int)r->max_len);
}

static const char models_path[] = "/v1/models";

/* The list, or the one whose name follows the path. */
static void get_models(routes *r, http_exchange *exchange, const http_request *request) {
    const char *name = request->path + sizeof models_path - 1;
    out body = {0};
    if (name[0] == '\0') {
        out_text(&body, "{\"object\":\"list\",\"data\":[");
        for (size_t i = 0; i < r->options.num_names; i++) {
            out_text(&body, i > 0 ? "," : "");
            write_model(r, r->options.names[i], &body);
        }
        out_text(&body, "]}");
        send_json(r, exchange, 200, &body);
        return;
    }
    for (size_t i = 0; i < r->options.num_names; i++) {
        if (strcmp(name + 1, r->options.names[i]) == 0) {
            write_model(r, name + 1, &body);
            send_json(r, exchange, 200, &body);
            return;
        }
    }
    metrics_status(&r->metrics, 404);
    api_error_respond(exchange, 404, "model", "model_not_found",
                      "model: \"%.100s\" is not served here", name + 1);
}

/* ---- Which route ---- */

typedef struct route {
    const char *method, *path;
    bool needs_model;
    void (*get)(routes *r, http_exchange *exchange, const http_request *request);
    const generation_route *generate;
    compute_route compute;
    bool slow;
    bool below; /* takes paths below its own, too */
} route;

static const route table[] = {
    {"POST", "/v1/chat/completions", true, .generate = &route_chat},
    {"POST", "/v1/completions", true, .generate = &route_completions},
    {"POST", "/v1/responses", true, .generate = &route_responses},
    {"POST", "/v1/embeddings", true, .compute = route_embeddings, .slow = true},
    {"POST", "/tokenize", true, .compute = route_tokenize},
    {"POST", "/detokenize", true, .compute = route_detokenize},
    {"POST", "/apply-template", true, .compute = route_apply_template},
    {"GET", models_path, true, .get = get_models, .below = true},
    {"GET", "/health", false, .get = get_health},
    {"GET", "/version", false, .get = get_version},
    {"GET", "/metrics", false, .get = get_metrics},
};

static bool is_at(const route *candidate, const char *path) {
    size_t length = strlen(candidate->path);
    if (strncmp(path, candidate->path, length) != 0)
        return false;
    return path[length] == '\0' || (candidate->below && path[length] == '/');
}

static bool takes(const route *candidate, const char *method) {
    return strcmp(candidate->method, method) == 0 ||
           (strcmp(candidate->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static void refuse(routes *r, http_exchange *exchange, const http_request *request,
                   const route *other) {
    if (other == NULL) {
        metrics_status(&r->metrics, 404);
        api_error_respond(exchange, 404, NULL, "not_found", "there is nothing at %.100s",
                          request->path);
        return;
    }
    http_exchange_add_header(exchange, "Allow", other->method);
    metrics_status(&r->metrics, 405);
    api_error_respond(exchange, 405, NULL, "method_not_allowed", "%s takes %s, not %.20s",
                      other->path, other->method, request->method);
}

static void follow(routes *r, http_exchange *exchange, const http_request *request,
                   const route *found) {
    if (found->needs_model && r->model == NULL)
        unavailable(r, exchange, "loading", "the model is being loaded");
    else if (found->get != NULL)
        found->get(r, exchange, request);
    else if (myelin_model_tokenizer(r->model) == NULL)
        unavailable(r, exchange, "no_tokenizer", "the model has no tokenizer.json");
    else if (found->generate != NULL)
        answer_generate(r, exchange, found->generate);
    else
        answer_compute(r, exchange, found->compute, found->slow);
}

void routes_handle(void *user, http_exchange *exchange, const http_request *request) {
    routes *r = user;
    const route *other = NULL;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!is_at(&table[i], request->path))
            continue;
        if (takes(&table[i], request->method)) {
            follow(r, exchange, request, &table[i]);
            return;
        }
        other = &table[i];
    }
    int status = other == NULL && r->options.page ? page_handle(exchange, request) : 0;
    if (status != 0)
        metrics_status(&r->metrics, status);
    else
        refuse(r, exchange, request, other);
}
