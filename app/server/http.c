/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: what is posted to it, what it does every so often, how it ends. */
#include "http.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "http_internal.h"

static const double MOST_SECONDS = 1e8;     /* three years: what a timer takes */
static const double UNSERVED_SECONDS = 0.1; /* for a new connection's request, when it ends */

double http_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

struct timeval http_seconds(double seconds) {
    double bounded = seconds > 0 ? (seconds < MOST_SECONDS ? seconds : MOST_SECONDS) : 0;
    double whole = floor(bounded);
    return (struct timeval){.tv_sec = (time_t)whole,
                            .tv_usec = (suseconds_t)((bounded - whole) * 1e6)};
}

void http_options_init(http_options *options) {
    *options = (http_options){.host = "127.0.0.1",
                              .port = 8080,
                              .max_connections = 10000,
                              .max_body = 32 << 20,
                              .max_bodies = 512 << 20,
                              .max_unread = 4 << 20,
                              .head_seconds = 10,
                              .body_seconds = 60,
                              .idle_seconds = 75,
                              .stall_seconds = 60};
}

static myelin_status fail(myelin_error *error, myelin_status status, const char *format, ...) {
    va_list arguments;
    if (error == NULL)
        return status;
    memset(error, 0, sizeof *error);
    error->status = status;
    error->offset = -1;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    return status;
}

/* ---- What is posted ---- */

static void wake(http_server *server) {
    uint64_t one = 1;
    ssize_t written;
    do
        written = write(server->wake, &one, sizeof one);
    while (written < 0 && errno == EINTR);
}

void http_server_post(http_server *server, void (*function)(void *argument), void *argument) {
    static const struct timespec a_moment = {0, 10000000};
    http_call *call;
    while ((call = malloc(sizeof *call)) == NULL)
        nanosleep(&a_moment, NULL);
    *call = (http_call){.function = function, .argument = argument};
    pthread_mutex_lock(&server->mutex);
    bool first = server->first == NULL;
    if (first)
        server->first = call;
    else
        server->last->next = call;
    server->last = call;
    pthread_mutex_unlock(&server->mutex);
    if (first)
        wake(server);
}

/* Those posted so far; what they post comes next time. */
static void call_posted(http_server *server) {
    pthread_mutex_lock(&server->mutex);
    http_call *call = server->first;
    server->first = server->last = NULL;
    pthread_mutex_unlock(&server->mutex);
    while (call != NULL) {
        http_call *next = call->next;
        call->function(call->argument);
        free(call);
        call = next;
    }
}

void http_server_stop(http_server *server, double seconds) {
    pthread_mutex_lock(&server->mutex);
    server->stop_asked = true;
    server->stop_seconds = seconds;
    pthread_mutex_unlock(&server->mutex);
    wake(server);
}

static void on_stop_timer(evutil_socket_t fd, short what, void *argument) {
    http_server *server = argument;
    (void)fd;
    (void)what;
    event_base_loopbreak(server->base);
}

/* Lets what runs end; a second time only sets the deadline anew. */
static void begin_stop(http_server *server, double seconds) {
    struct timeval deadline = http_seconds(seconds);
    event_add(&server->stop_timer, &deadline);
    if (server->stopping)
        return;
    http_accept_end(server);
    server->stopping = true;
    http_connection *next;
    for (http_connection *c = TAILQ_FIRST(&server->idle); c != NULL; c = next) {
        next = TAILQ_NEXT(c, link);
        struct timeval soon = http_seconds(UNSERVED_SECONDS);
        if (c->served && c->left == NULL)
            http_connection_destroy(c);
        else
            event_add(&c->timer, &soon);
    }
    if (server->open == 0)
        event_base_loopbreak(server->base);
}

static void on_wake(evutil_socket_t fd, short what, void *argument) {
    http_server *server = argument;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof count) < 0 && errno != EAGAIN)
        return;
    call_posted(server);
    pthread_mutex_lock(&server->mutex);
    bool stop = server->stop_asked;
    double seconds = server->stop_seconds;
    server->stop_asked = false;
    pthread_mutex_unlock(&server->mutex);
    if (stop)
        begin_stop(server, seconds);
}

/* ---- What is done now and then ---- */

static void on_timer(evutil_socket_t fd, short what, void *argument) {
    http_timer *timer = argument;
    (void)fd;
    (void)what;
    timer->function(timer->argument);
}

myelin_status http_server_every(http_server *server, double seconds,
                                void (*function)(void *argument), void *argument) {
    http_timer *timer = calloc(1, sizeof *timer);
    struct timeval interval = http_seconds(seconds);
    if (timer == NULL)
        return MYELIN_ERROR_MEMORY;
    timer->function = function;
    timer->argument = argument;
    event_assign(&timer->event, server->base, -1, EV_PERSIST, on_timer, timer);
    if (event_add(&timer->event, &interval) != 0) {
        free(timer);
        return MYELIN_ERROR_MEMORY;
    }
    timer->next = server->timers;
    server->timers = timer;
    return MYELIN_OK;
}

/* Services what was scheduled before; what is scheduled meanwhile comes in the next round. */
static void on_service(evutil_socket_t fd, short what, void *argument) {
    static const struct timeval at_once = {0, 0};
    http_server *server = argument;
    (void)fd;
    (void)what;
    http_connection *last = TAILQ_LAST(&server->ready, http_connections);
    http_connection *c = TAILQ_FIRST(&server->ready);
    for (bool more = c != NULL; more; c = TAILQ_FIRST(&server->ready)) {
        more = c != last;
        TAILQ_REMOVE(&server->ready, c, ready);
        c->scheduled = false;
        http_connection_service(c);
    }
    if (!TAILQ_EMPTY(&server->ready))
        event_add(&server->service, &at_once);
}

/* ---- Made, run, released ---- */

static struct event_base *make_base(void) {
    struct event_config *config = event_config_new();
    if (config == NULL)
        return NULL;
    struct event_base *base = NULL;
    if (event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV | EVENT_BASE_FLAG_NOLOCK) == 0 &&
        event_config_require_features(config, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE) == 0)
        base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static myelin_status set_up(http_server *server, myelin_error *error) {
    server->base = make_base();
    server->scratch = malloc(HTTP_SCRATCH);
    if (server->base == NULL || server->scratch == NULL)
        return fail(error, MYELIN_ERROR_MEMORY, "cannot make an event loop");
    server->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->wake < 0)
        return fail(error, MYELIN_ERROR_IO, "cannot make an eventfd: %s", strerror(errno));
    event_assign(&server->wake_event, server->base, server->wake, EV_READ | EV_PERSIST, on_wake,
                 server);
    event_assign(&server->service, server->base, -1, 0, on_service, server);
    event_assign(&server->stop_timer, server->base, -1, 0, on_stop_timer, server);
    if (event_add(&server->wake_event, NULL) != 0)
        return fail(error, MYELIN_ERROR_MEMORY, "cannot add an event");
    return http_listen(server, error);
}

myelin_status http_server_create(http_server **made, const http_options *options,
                                 myelin_error *error) {
    *made = NULL;
    http_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return fail(error, MYELIN_ERROR_MEMORY, "out of memory");
    server->options = *options;
    if (server->options.max_bodies < options->max_body)
        server->options.max_bodies = options->max_body;
    server->wake = -1;
    TAILQ_INIT(&server->idle);
    TAILQ_INIT(&server->busy);
    TAILQ_INIT(&server->ready);
    pthread_mutex_init(&server->mutex, NULL);
    myelin_status status = set_up(server, error);
    if (status != MYELIN_OK) {
        http_server_free(server);
        return status;
    }
    *made = server;
    return MYELIN_OK;
}

/* The number of those that were waiting for an answer. */
static int cut_off_all(http_server *server) {
    http_connection *c;
    int waiting = 0;
    while ((c = TAILQ_FIRST(&server->busy)) != NULL || (c = TAILQ_FIRST(&server->idle)) != NULL) {
        waiting += c->exchange != NULL;
        http_connection_destroy(c);
    }
    return waiting;
}

myelin_status http_server_run(http_server *server, myelin_error *error) {
    http_accept_begin(server);
    int result = event_base_loop(server->base, EVLOOP_NO_EXIT_ON_EMPTY);
    http_accept_end(server);
    server->stopping = true;
    int waiting = cut_off_all(server);
    if (result < 0)
        return fail(error, MYELIN_ERROR_IO, "the event loop failed: %s", strerror(errno));
    if (waiting > 0)
        return fail(error, MYELIN_ERROR_CANCELLED, "requests cut off: %d", waiting);
    return MYELIN_OK;
}

void http_server_free(http_server *server) {
    if (server == NULL)
        return;
    while (server->first != NULL) /* no other thread is left to post */
        call_posted(server);
    (void)cut_off_all(server);
    http_accept_end(server);
    while (server->timers != NULL) {
        http_timer *timer = server->timers;
        server->timers = timer->next;
        event_del(&timer->event);
        free(timer);
    }
    if (server->wake >= 0) {
        event_del(&server->wake_event);
        close(server->wake);
    }
    if (server->base != NULL)
        event_base_free(server->base);
    pthread_mutex_destroy(&server->mutex);
    free(server->scratch);
    free(server);
}

void http_server_retire(http_server *server) {
    server->retired = true;
}

int http_server_port(const http_server *server) {
    return server->port;
}

bool http_server_is_loopback(const http_server *server) {
    return server->loopback;
}

int http_server_connections(const http_server *server) {
    return server->open;
}
