/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small server over the HTTP transport, for tests of it: prints its port, serves until SIGTERM,
 * logs to standard error.
 *
 *     GET  /             "hello\n"
 *     POST /echo         the request's body
 *     GET  /request      the request as JSON
 *     GET  /hold         is answered when /release is asked for
 *     GET  /release      answers those held
 *     GET  /stream?N     N pieces of 10 bytes, one each 10 ms
 *     GET  /flood        64 KiB each 5 ms, for ever
 *     GET  /big?N        N bytes at once
 *     GET  /posted?N     answered after N calls were posted by a thread
 *     GET  /stats        {"gone", "connections"}
 * A request with "X-Refuse" is answered 401 by its head; SIGHUP reads the guard's keys anew.
 *
 * usage: echo_server NAME=VALUE...   options by their names in http_options and guard_options;
 *                                    grace=SECONDS
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/server/guard.h"

enum { MAX_STREAMS = 64, PIECE = 65536, MAX_NAMES = 4 };

typedef enum entry_kind { FREE, HELD, STREAM, FLOOD } entry_kind;

typedef struct entry {
    struct state *state;
    http_exchange *exchange;
    entry_kind kind;
    long left;
} entry;

typedef struct state {
    http_server *server;
    entry entries[MAX_STREAMS];
    int gone;
    double grace;
    guard *guard;
    guard_options guarded;
    bool everywhere; /* as on an address that others can reach */
    const char *origins[MAX_NAMES], *hosts[MAX_NAMES];
    char piece[PIECE];
} state;

static void text(http_exchange *exchange, int status, const char *body) {
    http_respond(exchange, status, "text/plain", NULL, 0, body, strlen(body));
}

static void on_gone(void *user) {
    entry *e = user;
    e->state->gone++;
    e->kind = FREE;
}

static void keep(state *s, http_exchange *exchange, entry_kind kind, long left) {
    for (int i = 0; i < MAX_STREAMS; i++) {
        entry *e = &s->entries[i];
        if (e->kind != FREE)
            continue;
        *e = (entry){s, exchange, kind, left};
        http_exchange_on_gone(exchange, on_gone, e);
        if (kind != HELD)
            http_stream_begin(exchange, 200, "text/plain", NULL, 0);
        return;
    }
    text(exchange, 503, "too many\n");
}

static void release(state *s) {
    for (int i = 0; i < MAX_STREAMS; i++) {
        entry *e = &s->entries[i];
        if (e->kind == HELD) {
            e->kind = FREE;
            text(e->exchange, 200, "released\n");
        }
    }
}

static void on_stream_tick(void *argument) {
    state *s = argument;
    for (int i = 0; i < MAX_STREAMS; i++) {
        entry *e = &s->entries[i];
        if (e->kind == STREAM && e->left-- > 0) {
            http_stream_write(e->exchange, "123456789\n", 10);
        } else if (e->kind == STREAM) {
            e->kind = FREE;
            http_stream_end(e->exchange);
        }
    }
}

static void on_flood_tick(void *argument) {
    state *s = argument;
    for (int i = 0; i < MAX_STREAMS; i++) {
        if (s->entries[i].kind == FLOOD)
            http_stream_write(s->entries[i].exchange, s->piece, PIECE);
    }
}

static void show_request(http_exchange *exchange, const http_request *request) {
    char *body = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&body, &length);
    if (out == NULL)
        abort();
    fprintf(out,
            "{\"method\":\"%s\",\"path\":\"%s\",\"query\":\"%s\",\"peer\":\"%s\",\"headers\":{",
            request->method, request->path, request->query, request->peer);
    for (size_t i = 0; i < request->num_headers; i++)
        fprintf(out, "%s\"%s\":\"%s\"", i == 0 ? "" : ",", request->headers[i].name,
                request->headers[i].value);
    fputs("}}", out);
    fclose(out);
    http_exchange_label(exchange, "shown");
    http_exchange_add_header(exchange, "X-Added", "one\r\nX-Injected: two");
    http_respond(exchange, 200, "application/json", NULL, 0, body, length);
    free(body);
}

typedef struct counted {
    state *state;
    http_exchange *exchange;
    long calls, wanted;
    pthread_t thread;
} counted;

static void on_call(void *argument) {
    counted *c = argument;
    if (++c->calls < c->wanted)
        return;
    pthread_join(c->thread, NULL);
    text(c->exchange, 200, "all\n");
    free(c);
}

static void *post_all(void *argument) {
    counted *c = argument;
    http_server *server = c->state->server;
    long wanted = c->wanted; /* c is freed by the last call */
    for (long i = 0; i < wanted; i++)
        http_server_post(server, on_call, c);
    return NULL;
}

static void posted(state *s, http_exchange *exchange, long wanted) {
    counted *c = calloc(1, sizeof *c);
    if (c == NULL)
        abort();
    *c = (counted){.state = s, .exchange = exchange, .wanted = wanted};
    if (pthread_create(&c->thread, NULL, post_all, c) != 0)
        abort();
}

static void big(http_exchange *exchange, size_t length) {
    char *body = malloc(length + 1);
    if (body == NULL)
        abort();
    memset(body, 'x', length);
    http_respond(exchange, 200, "text/plain", NULL, 0, body, length);
    free(body);
}

static void stats(state *s, http_exchange *exchange) {
    char body[128];
    snprintf(body, sizeof body, "{\"gone\":%d,\"connections\":%d}", s->gone,
             http_server_connections(s->server));
    http_respond(exchange, 200, "application/json", NULL, 0, body, strlen(body));
}

static void on_request(void *user, http_exchange *exchange, const http_request *request) {
    state *s = user;
    const char *path = request->path;
    long number = strtol(request->query, NULL, 10);
    if (strcmp(path, "/echo") == 0) {
        http_respond(exchange, 200, "application/octet-stream", NULL, 0, request->body,
                     request->length);
    } else if (strcmp(path, "/request") == 0) {
        show_request(exchange, request);
    } else if (strcmp(path, "/hold") == 0) {
        keep(s, exchange, HELD, 0);
    } else if (strcmp(path, "/release") == 0) {
        release(s);
        text(exchange, 200, "ok\n");
    } else if (strcmp(path, "/stream") == 0) {
        keep(s, exchange, STREAM, number);
    } else if (strcmp(path, "/flood") == 0) {
        keep(s, exchange, FLOOD, 0);
    } else if (strcmp(path, "/big") == 0) {
        big(exchange, (size_t)number);
    } else if (strcmp(path, "/posted") == 0) {
        posted(s, exchange, number);
    } else if (strcmp(path, "/stats") == 0) {
        stats(s, exchange);
    } else if (strcmp(path, "/") == 0) {
        text(exchange, 200, "hello\n");
    } else {
        text(exchange, 404, "not found\n");
    }
}

static void on_head(void *user, http_exchange *exchange, const http_request *request) {
    state *s = user;
    if (http_request_header(request, "x-refuse") != NULL)
        text(exchange, 401, "refused\n");
    else if (s->guard != NULL)
        guard_admit(s->guard, exchange, request);
}

static void on_hangup(void *argument) {
    state *s = argument;
    myelin_error error;
    if (guard_reload(s->guard, &error) != MYELIN_OK)
        fprintf(stderr, "%s\n", error.message);
}

static void on_log(void *user, const char *line) {
    (void)user;
    fprintf(stderr, "%s\n", line);
}

/* Of the guard, which then stands before the rest. */
static bool set_guard_option(state *s, const char *name, const char *value) {
    guard_options *options = &s->guarded;
    if (strcmp(name, "key_file") == 0)
        options->key_file = value;
    else if (strcmp(name, "open_metrics") == 0)
        options->open_metrics = true;
    else if (strcmp(name, "everywhere") == 0)
        s->everywhere = true;
    else if (strcmp(name, "origin") == 0 && options->num_origins < MAX_NAMES)
        s->origins[options->num_origins++] = value;
    else if (strcmp(name, "host_name") == 0 && options->num_hosts < MAX_NAMES)
        s->hosts[options->num_hosts++] = value;
    else
        return strcmp(name, "guard") == 0;
    return true;
}

static void set_option(http_options *options, double *grace, const char *name, const char *value) {
    double number = strtod(value, NULL);
    if (strcmp(name, "host") == 0)
        options->host = value;
    else if (strcmp(name, "max_connections") == 0)
        options->max_connections = (int)number;
    else if (strcmp(name, "max_body") == 0)
        options->max_body = (size_t)number;
    else if (strcmp(name, "max_bodies") == 0)
        options->max_bodies = (size_t)number;
    else if (strcmp(name, "max_unread") == 0)
        options->max_unread = (size_t)number;
    else if (strcmp(name, "head_seconds") == 0)
        options->head_seconds = number;
    else if (strcmp(name, "body_seconds") == 0)
        options->body_seconds = number;
    else if (strcmp(name, "idle_seconds") == 0)
        options->idle_seconds = number;
    else if (strcmp(name, "stall_seconds") == 0)
        options->stall_seconds = number;
    else if (strcmp(name, "grace") == 0)
        *grace = number;
    else
        abort();
}

/* SIGTERM stops; a second one cuts off. */
static void *wait_for_signals(void *argument) {
    state *s = argument;
    sigset_t set;
    int number, ends = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    while (sigwait(&set, &number) == 0) {
        if (number == SIGHUP)
            http_server_post(s->server, on_hangup, s);
        else
            http_server_stop(s->server, ends++ == 0 ? s->grace : 0);
    }
    return NULL;
}

static bool create(state *s, const http_options *options, bool guarded) {
    myelin_error error;
    if (http_server_create(&s->server, options, &error) != MYELIN_OK) {
        fprintf(stderr, "%s\n", error.message);
        return false;
    }
    s->guarded.origins = s->origins;
    s->guarded.hosts = s->hosts;
    s->guarded.loopback = http_server_is_loopback(s->server) && !s->everywhere;
    if (guarded && guard_create(&s->guard, &s->guarded, &error) != MYELIN_OK) {
        fprintf(stderr, "%s\n", error.message);
        return false;
    }
    return true;
}

static int serve(state *s) {
    pthread_t thread;
    myelin_error error;
    http_server_every(s->server, 0.01, on_stream_tick, s);
    http_server_every(s->server, 0.005, on_flood_tick, s);
    pthread_create(&thread, NULL, wait_for_signals, s);
    printf("%d\n", http_server_port(s->server));
    fflush(stdout);
    myelin_status status = http_server_run(s->server, &error);
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    int held = 0;
    for (int i = 0; i < MAX_STREAMS; i++)
        held += s->entries[i].kind != FREE;
    printf("ended %d gone %d left %d\n", (int)status, s->gone, held);
    return 0;
}

int main(int argc, char **argv) {
    static state s = {.grace = 5};
    http_options options;
    sigset_t set;
    bool guarded = false;
    http_options_init(&options);
    options.port = 0;
    options.handler = on_request;
    options.admit = on_head;
    options.user = options.admit_user = &s;
    options.log = on_log;
    for (int i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals == NULL)
            return 2;
        *equals = '\0';
        if (set_guard_option(&s, argv[i], equals + 1))
            guarded = true;
        else
            set_option(&options, &s.grace, argv[i], equals + 1);
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    int code = create(&s, &options, guarded) ? serve(&s) : 1;
    guard_free(s.guard);
    http_server_free(s.server);
    return code;
}
