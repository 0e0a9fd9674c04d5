/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "api_error.h"
#include "internal.h"

double answer_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void answer_random_id(char *id, size_t size, const char *prefix) {
    static const char digits[] = "0123456789abcdef";
    enum { BYTES = 12 };
    unsigned char bytes[BYTES] = {0};
    char text[2 * BYTES + 1];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        bytes[0]++; /* only before the system has gathered any chance */
    for (int i = 0; i < BYTES; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[2 * BYTES] = '\0';
    snprintf(id, size, "%s%s", prefix, text);
}

/* ---- Life ---- */

static void free_choice(choice *c) {
    out_free(&c->pending);
    out_free(&c->taken);
    out_free(&c->logprobs);
    myelin_result_clear(&c->result);
    free(c->state);
}

static void release(answer *a) {
    if (atomic_fetch_sub(&a->references, 1) > 1)
        return;
    if (a->free_state != NULL)
        a->free_state(a);
    for (int i = 0; i < a->num_choices; i++)
        free_choice(&a->choices[i]);
    for (size_t i = 0; i < a->num_prompts; i++)
        free(a->prompts[i].ids);
    constraints_release(a->r->constraints, a->constraint);
    params_clear(&a->params);
    json_decref(a->json);
    out_free(&a->computed);
    out_free(&a->line);
    free(a->choices);
    free(a->prompts);
    free(a->messages);
    free(a->tools);
    free(a->variables);
    free(a->body);
    pthread_mutex_destroy(&a->mutex);
    free(a);
}

/* The loop has nothing more to do with it. */
static void leave(answer *a) {
    routes *r = a->r;
    a->exchange = NULL;
    if (a->previous != NULL)
        a->previous->next = a->next;
    else
        r->answers = a->next;
    if (a->next != NULL)
        a->next->previous = a->previous;
    release(a);
}

/* Cancels what has been submitted; what is submitted later sees `gone`. */
static void cancel(answer *a) {
    atomic_store(&a->gone, true);
    for (int i = 0; i < a->num_choices; i++) {
        choice *c = &a->choices[i];
        pthread_mutex_lock(&a->mutex);
        bool runs = c->submitted && !c->done;
        uint64_t id = c->id;
        pthread_mutex_unlock(&a->mutex);
        if (runs)
            myelin_serving_cancel(a->r->serving, id);
    }
}

static void on_gone(void *user) {
    answer *a = user;
    a->exchange = NULL;
    atomic_store(&a->gone, true);
    pthread_mutex_lock(&a->mutex);
    bool ready = a->ready;
    pthread_mutex_unlock(&a->mutex);
    if (ready) /* else who prepares it cancels */
        cancel(a);
    metrics_status(&a->r->metrics, 499);
    leave(a);
}

static void respond(answer *a, int status, const char *content_type, const http_header *headers,
                    size_t num_headers, const char *body, size_t length) {
    metrics_status(&a->r->metrics, status);
    http_respond(a->exchange, status, content_type, headers, num_headers, body, length);
    leave(a);
}

/* An error as the whole answer. */
static void fail(answer *a, const problem *p) {
    char seconds[16];
    bool later = p->status == 429 || p->status == 503;
    snprintf(seconds, sizeof seconds, "%.0f", ceil(a->r->options.retry_seconds));
    const http_header headers[] = {{"Retry-After", seconds}};
    char *text =
        api_error_text(p->status, p->param[0] != '\0' ? p->param : NULL, p->code, p->message);
    const char *body = text != NULL ? text : "{\"error\":{\"message\":\"out of memory\"}}";
    respond(a, p->status, "application/json", headers, later, body, strlen(body));
    free(text);
}

void answer_send(answer *a) {
    if (a->line.failed) {
        problem p;
        problem_set(&p, 500, NULL, NULL, "out of memory");
        fail(a, &p);
        return;
    }
    respond(a, 200, "application/json", NULL, 0, a->line.data, a->line.length);
}

void answer_write(answer *a) {
    if (a->exchange != NULL && a->line.length > 0) {
        a->last_write = answer_now();
        http_stream_write(a->exchange, a->line.data, a->line.length);
    }
    out_reset(&a->line);
}

void answer_comment(answer *a, double now, double silence) {
    static const char comment[] = ": still here\n\n";
    if (!a->begun || a->exchange == NULL || now - a->last_write < silence)
        return;
    a->last_write = now;
    http_stream_write(a->exchange, comment, sizeof comment - 1);
}

/* ---- From the worker's thread ---- */

static void look(void *argument);

/* The loop will look at it, once for however much there is. With the mutex. */
static void post(answer *a) {
    if (a->posted || !a->ready)
        return;
    a->posted = true;
    atomic_fetch_add(&a->references, 1);
    http_server_post(a->r->server, look, a);
}

typedef struct record {
    event_kind kind;
    size_t name_length; /* with its NUL; 0: none */
    size_t length;
} record;

static void append_event(out *o, const event *e) {
    record head = {e->kind, e->name != NULL ? strlen(e->name) + 1 : 0, e->length};
    out_bytes(o, &head, sizeof head);
    out_bytes(o, e->name, head.name_length);
    out_bytes(o, e->text, e->length);
}

static void append_piece(choice *c, const myelin_piece *piece) {
    const answer *a = c->owner;
    if (piece->logprobs != NULL && piece->num_tokens > 0) {
        out tokens = {0};
        logprobs_records(answer_tokenizer(a), piece, &tokens);
        if (tokens.length > 0)
            append_event(&c->pending, &(event){EVENT_TOKENS, NULL, tokens.data, tokens.length});
        c->pending.failed |= tokens.failed;
        out_free(&tokens);
    }
    for (size_t i = 0; i < piece->num_events; i++) {
        const myelin_turn_event *e = &piece->events[i];
        if (e->kind != MYELIN_TURN_WARNING)
            append_event(&c->pending, &(event){(event_kind)e->kind, e->name, e->text, e->length});
    }
    if (a->messages == NULL && piece->text_length > 0)
        append_event(&c->pending, &(event){EVENT_CONTENT, NULL, piece->text, piece->text_length});
}

static void measure(choice *c, size_t tokens) {
    metrics *m = &c->owner->r->metrics;
    double now = answer_now();
    if (tokens == 0)
        return;
    if (c->last_piece > 0)
        metrics_next_tokens(m, now - c->last_piece, tokens);
    else
        metrics_first_token(m, now - c->owner->arrived);
    c->last_piece = now;
}

static bool on_piece(void *user, const myelin_piece *piece) {
    choice *c = user;
    answer *a = c->owner;
    measure(c, piece->num_tokens);
    if (a->params.stream || a->route->events) {
        pthread_mutex_lock(&a->mutex);
        append_piece(c, piece);
        bool failed = c->pending.failed;
        if (a->params.stream)
            post(a);
        pthread_mutex_unlock(&a->mutex);
        if (failed)
            return false;
    }
    return !atomic_load(&a->gone);
}

static void describe_failure(const answer *a, problem *p, const myelin_error *error);

static bool on_done(void *user, void *tag, myelin_result *result, const myelin_error *error) {
    choice *c = user;
    answer *a = c->owner;
    (void)tag;
    pthread_mutex_lock(&a->mutex);
    c->done = true;
    if (result != NULL) {
        c->result = *result;
        *result = (myelin_result){0};
        metrics_finished(&a->r->metrics, answer_now() - a->arrived, c->result.finish_reason);
    } else {
        describe_failure(a, &c->failed, error);
    }
    if (c->pending.failed)
        problem_set(&c->failed, 500, NULL, NULL, "out of memory");
    else if (result != NULL && c->result.finish_reason == MYELIN_FINISH_CANCELLED)
        problem_set(&c->failed, 503, NULL, "cancelled", "the server ended the generation");
    post(a);
    pthread_mutex_unlock(&a->mutex);
    release(a);
    return true;
}

/* ---- On a working thread ---- */

void answer_failed(const routes *r, const char *param, const char *input, const myelin_error *error,
                   problem *p) {
    switch (error->status) {
    case MYELIN_ERROR_ARGUMENT:
    case MYELIN_ERROR_UNSUPPORTED:
        problem_set(p, 400, param, NULL, "%s", error->message);
        break;
    case MYELIN_ERROR_CACHE_FULL:
        problem_set(p, 400, input, "context_length_exceeded",
                    "this server's context is %d tokens: %s", (int)r->max_len, error->message);
        break;
    case MYELIN_ERROR_BUSY:
        if (atomic_load(&r->draining))
            problem_set(p, 503, NULL, "draining", "the server is about to stop");
        else
            problem_set(p, 429, NULL, "queue_full", "too many requests wait already: %s",
                        error->message);
        break;
    case MYELIN_ERROR_CANCELLED:
        problem_set(p, 503, NULL, "cancelled", "the server ended the generation");
        break;
    case MYELIN_ERROR_DEVICE:
        problem_set(p, 503, NULL, "device", "%s", error->message);
        break;
    default:
        problem_set(p, 500, NULL, NULL, "%s", error->message);
    }
}

static void describe_failure(const answer *a, problem *p, const myelin_error *error) {
    bool chat = a->messages != NULL;
    answer_failed(a->r, chat ? "messages" : NULL, chat ? "messages" : "prompt", error, p);
}

static void request_of(const answer *a, int index, myelin_request *request) {
    *request = (myelin_request){.options = &a->params.options};
    if (a->messages != NULL) {
        request->messages = a->messages;
        request->messages_length = strlen(a->messages);
        request->chat = &a->chat;
        return;
    }
    const prompt *p = &a->prompts[index / (int)a->params.choices];
    request->prompt = p->text;
    request->prompt_length = p->length;
    request->prompt_ids = p->ids;
    request->num_prompt_ids = p->num_ids;
}

static bool submit(answer *a, choice *c, problem *p) {
    myelin_generation_options options = a->params.options;
    myelin_request request;
    myelin_submission submission;
    myelin_error error;
    uint64_t id = 0;
    request_of(a, c->index, &request);
    options.seed += (uint64_t)(c->index % (int)a->params.choices);
    if (a->constraint != NULL)
        options.constraint = constraints_of(a->constraint);
    request.options = &options;
    myelin_submission_init(&submission);
    submission.request = &request;
    submission.priority = (int32_t)a->params.priority;
    submission.prefix_cache = a->params.prefix_cache;
    submission.emit = on_piece;
    submission.done = on_done;
    submission.user = c;
    atomic_fetch_add(&a->references, 1); /* on_done's */
    if (myelin_serving_submit(a->r->serving, &submission, &id, &error) != MYELIN_OK) {
        release(a);
        describe_failure(a, p, &error);
        return false;
    }
    pthread_mutex_lock(&a->mutex);
    c->id = id;
    c->submitted = true;
    pthread_mutex_unlock(&a->mutex);
    return true;
}

static bool make_choices(answer *a, problem *p) {
    size_t prompts = a->messages != NULL ? 1 : a->num_prompts;
    int count = (int)(prompts * (size_t)a->params.choices);
    a->choices = calloc((size_t)count, sizeof *a->choices);
    if (a->choices == NULL)
        return problem_set(p, 500, NULL, NULL, "out of memory");
    for (int i = 0; i < count; i++) {
        a->choices[i].owner = a;
        a->choices[i].index = i;
    }
    a->num_choices = count;
    return true;
}

static bool prepare(answer *a, problem *p) {
    a->json = body_parse(a->body, a->length, p);
    free(a->body); /* the parser has copied what matters */
    a->body = NULL;
    if (a->json == NULL)
        return false;
    if (a->compute != NULL)
        return a->compute(a, &a->computed, p);
    return a->route->prepare(a, p) && make_choices(a, p);
}

static void work_on(void *argument) {
    answer *a = argument;
    problem p = {0};
    bool good = !atomic_load(&a->gone) && prepare(a, &p);
    for (int i = 0; good && i < a->num_choices && !atomic_load(&a->gone); i++)
        good = submit(a, &a->choices[i], &p);
    if (a->route != NULL && !a->route->keeps_body) {
        json_decref(a->json);
        a->json = NULL;
    }
    if (!good && p.status == 0) /* jansson had no memory, or nobody waits any more */
        problem_set(&p, 500, NULL, NULL, "out of memory");
    pthread_mutex_lock(&a->mutex);
    a->ready = true;
    a->problem = p;
    post(a);
    pthread_mutex_unlock(&a->mutex);
    if (!good || atomic_load(&a->gone))
        cancel(a);
    release(a);
}

bool answer_check_model(const answer *a, const json_t *body, problem *p) {
    const routes_options *o = &a->r->options;
    const char *name = NULL;
    if (!body_string(body, "", "model", &name, NULL, p))
        return false;
    for (size_t i = 0; name != NULL && i < o->num_names; i++) {
        if (strcmp(name, o->names[i]) == 0)
            return true;
    }
    return name == NULL ||
           problem_set(p, 404, "model", "model_not_found",
                       "model: \"%.100s\" is not served here, \"%.100s\" is", name, o->names[0]);
}

const myelin_tokenizer *answer_tokenizer(const answer *a) {
    return myelin_model_tokenizer(a->r->model);
}

/* ---- On the loop's thread ---- */

/* Calls the route with what is in c->taken; texts of one kind that follow each other are joined. */
static void tell(answer *a, choice *c) {
    size_t at = 0;
    out joined = {0};
    event e = {0};
    bool waiting = false;
    while (at < c->taken.length) {
        record head;
        memcpy(&head, c->taken.data + at, sizeof head);
        const char *name = c->taken.data + at + sizeof head, *text = name + head.name_length;
        at += sizeof head + head.name_length + head.length;
        bool joins = waiting && head.kind == e.kind &&
                     (e.kind == EVENT_CONTENT || e.kind == EVENT_REASONING);
        if (waiting && !joins && head.kind != EVENT_TOKENS) {
            a->route->event(a, c, &e);
            waiting = false;
        }
        if (head.kind == EVENT_CONTENT || head.kind == EVENT_REASONING) {
            if (!joins)
                out_reset(&joined);
            out_bytes(&joined, text, head.length);
            e = (event){head.kind, NULL, joined.data, joined.length};
            waiting = true;
            continue;
        }
        event whole = {head.kind, head.name_length > 0 ? name : NULL, text, head.length};
        a->route->event(a, c, &whole);
    }
    if (waiting)
        a->route->event(a, c, &e);
    out_free(&joined);
}

/* Ends a stream with an error, or answers with it. */
static void give_up(answer *a, const problem *p) {
    cancel(a);
    if (!a->begun) {
        fail(a, p);
        return;
    }
    a->route->error(a, p);
    answer_write(a);
    metrics_status(&a->r->metrics, 200);
    http_stream_end(a->exchange);
    leave(a);
}

static void begin_stream(answer *a) {
    static const http_header headers[] = {{"Cache-Control", "no-cache"},
                                          {"X-Accel-Buffering", "no"}};
    a->begun = true;
    http_stream_begin(a->exchange, 200, "text/event-stream; charset=utf-8", headers,
                      sizeof headers / sizeof *headers);
    a->route->begin(a);
}

/* Takes over what the worker has left; *ended of the choices have ended now. */
static void take(answer *a) {
    pthread_mutex_lock(&a->mutex);
    a->posted = false;
    for (int i = 0; i < a->num_choices; i++) {
        choice *c = &a->choices[i];
        out spare = c->taken;
        c->taken = c->pending;
        c->pending = spare;
        out_reset(&c->pending);
    }
    pthread_mutex_unlock(&a->mutex);
}

static bool has_ended(answer *a, const choice *c) {
    pthread_mutex_lock(&a->mutex);
    bool done = c->done && c->pending.length == 0;
    pthread_mutex_unlock(&a->mutex);
    return done;
}

/* Writes what has come. */
static void advance(answer *a) {
    bool events = a->params.stream || a->route->events;
    for (int i = 0; i < a->num_choices; i++) {
        choice *c = &a->choices[i];
        if (events)
            tell(a, c);
        out_reset(&c->taken);
        if (c->ended || !has_ended(a, c))
            continue;
        if (c->failed.status != 0) {
            give_up(a, &c->failed);
            return;
        }
        c->ended = true;
        a->num_ended++;
        if (events)
            a->route->end_choice(a, c);
    }
    if (a->params.stream)
        answer_write(a);
    if (a->num_ended < a->num_choices)
        return;
    a->route->end(a);
    if (!a->params.stream) {
        answer_send(a);
        return;
    }
    answer_write(a);
    metrics_status(&a->r->metrics, 200);
    http_stream_end(a->exchange);
    leave(a);
}

static void look_at(answer *a) {
    if (a->exchange == NULL)
        return;
    if (a->problem.status != 0) {
        fail(a, &a->problem);
    } else if (a->compute != NULL) {
        out spare = a->line;
        a->line = a->computed;
        a->computed = spare;
        answer_send(a);
    } else {
        if (a->params.stream && !a->begun)
            begin_stream(a);
        advance(a);
    }
}

static void look(void *argument) {
    answer *a = argument;
    take(a);
    look_at(a);
    release(a);
}

static answer *make(routes *r, http_exchange *exchange) {
    const http_request *request = http_exchange_request(exchange);
    answer *a = calloc(1, sizeof *a);
    char *body = malloc(request->length + 1);
    if (a == NULL || body == NULL) {
        free(a);
        free(body);
        metrics_status(&r->metrics, 500);
        api_error_respond(exchange, 500, NULL, NULL, "out of memory");
        return NULL;
    }
    memcpy(body, request->body, request->length);
    body[request->length] = '\0';
    *a = (answer){.references = 1,
                  .r = r,
                  .exchange = exchange,
                  .body = body,
                  .length = request->length,
                  .arrived = answer_now(),
                  .created = (int64_t)time(NULL),
                  .next = r->answers};
    a->last_write = a->arrived;
    pthread_mutex_init(&a->mutex, NULL);
    if (r->answers != NULL)
        r->answers->previous = a;
    r->answers = a;
    http_exchange_on_gone(exchange, on_gone, a);
    return a;
}

static void start(answer *a, work *w) {
    atomic_fetch_add(&a->references, 1); /* work_on()'s */
    if (work_add(w, work_on, a))
        return;
    problem p;
    problem_set(&p, 429, NULL, "queue_full", "too many requests wait already");
    fail(a, &p);
    release(a);
}

void answer_generate(routes *r, http_exchange *exchange, const generation_route *route) {
    answer *a = make(r, exchange);
    if (a == NULL)
        return;
    a->route = route;
    start(a, r->preparing);
}

void answer_compute(routes *r, http_exchange *exchange, compute_route compute, bool slow) {
    answer *a = make(r, exchange);
    if (a == NULL)
        return;
    a->compute = compute;
    start(a, slow ? r->embedding : r->preparing);
}

answer_usage answer_count(const answer *a) {
    answer_usage usage = {0};
    for (int i = 0; i < a->num_choices; i++) {
        const myelin_result *result = &a->choices[i].result;
        if (i % (int)a->params.choices == 0) { /* the others read the same prompt */
            usage.prompt += result->input_tokens;
            usage.cached += result->cached_tokens;
        }
        usage.completion += (int64_t)result->num_tokens;
        usage.reasoning += result->reasoning_tokens;
    }
    return usage;
}

void answer_write_usage(answer *a) {
    answer_usage usage = answer_count(a);
    out_format(&a->line,
               "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%lld},"
               "\"completion_tokens_details\":{\"reasoning_tokens\":%lld}}",
               (long long)usage.prompt, (long long)usage.completion,
               (long long)(usage.prompt + usage.completion), (long long)usage.cached,
               (long long)usage.reasoning);
}
