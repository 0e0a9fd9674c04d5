/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection: bytes in, requests to the handler, answers out. Its events are edges (EPOLLET),
 * so that a client that is gone is noticed while nothing is read: a connection that waits for an
 * answer neither polls nor spins. The functions that answer only append to the output and schedule
 * a service; whatever may free a connection happens in http_connection_service().
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "http_internal.h"

enum {
    READS_PER_TURN = 8,     /* then others have theirs */
    HEAD_READ = 4096,       /* bytes: bounds what is kept of pipelined requests */
    VECTORS = 16,           /* pieces of output sent at once */
    SENT_AT_ONCE = 1 << 18, /* bytes */
    LEAST_TAKEN = 1024,     /* bytes a client takes within stall_seconds, unless it takes all */
    LINGER_SECONDS = 2,
    LINGER_BYTES = 4 << 20
};

static const char continue_line[] = "HTTP/1.1 100 Continue\r\n\r\n";

static void set_timer(http_connection *c, double seconds) {
    struct timeval time = http_seconds(seconds);
    event_add(&c->timer, &time);
}

static void move_to(http_connection *c, struct http_connections *from,
                    struct http_connections *to) {
    TAILQ_REMOVE(from, c, link);
    TAILQ_INSERT_TAIL(to, c, link);
}

static void enter_idle(http_connection *c) {
    c->phase = HTTP_IDLE;
    c->can_read = true;
    c->since = http_now();
    if (c->output != NULL)
        evbuffer_free(c->output);
    c->output = NULL;
    move_to(c, &c->server->busy, &c->server->idle);
    set_timer(c, c->server->options.idle_seconds);
}

struct evbuffer *http_connection_output(http_connection *c) {
    if (c->output == NULL)
        c->output = evbuffer_new();
    return c->output;
}

void http_connection_schedule(http_connection *c) {
    static const struct timeval at_once = {0, 0};
    if (c->scheduled)
        return;
    c->scheduled = true;
    if (TAILQ_EMPTY(&c->server->ready))
        event_add(&c->server->service, &at_once);
    TAILQ_INSERT_TAIL(&c->server->ready, c, ready);
}

void http_connection_destroy(http_connection *c) {
    http_server *server = c->server;
    c->dead = true;
    if (c->exchange != NULL)
        http_exchange_close(c->exchange);
    TAILQ_REMOVE(c->phase == HTTP_IDLE ? &server->idle : &server->busy, c, link);
    if (c->scheduled)
        TAILQ_REMOVE(&server->ready, c, ready);
    event_del(&c->io);
    event_del(&c->timer);
    if (c->output != NULL && evbuffer_get_length(c->output) > 0) {
        /* A reset, so that half an answer is not taken for a whole one. */
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    close(c->fd);
    if (c->output != NULL)
        evbuffer_free(c->output);
    free(c->left);
    free(c);
    server->open--;
    if (server->stopping && server->open == 0)
        event_base_loopbreak(server->base);
}

/* ---- Output ---- */

/* As much as the client takes now. */
static void write_out(http_connection *c) {
    while (!c->dead && c->can_write && c->output != NULL && evbuffer_get_length(c->output) > 0) {
        struct evbuffer_iovec pieces[VECTORS];
        int count = evbuffer_peek(c->output, SENT_AT_ONCE, NULL, pieces, VECTORS);
        struct msghdr message = {.msg_iov = pieces,
                                 .msg_iovlen = (size_t)(count < VECTORS ? count : VECTORS)};
        ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            evbuffer_drain(c->output, (size_t)sent);
            c->taken += (size_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            c->can_write = false;
        } else if (errno != EINTR) {
            c->dead = true;
        }
    }
}

/* The deadline of a client that leaves its answer lying; a drip is no progress. */
static void watch_output(http_connection *c) {
    if (c->phase != HTTP_ANSWERING && c->phase != HTTP_FLUSHING)
        return;
    bool waiting = c->output != NULL && evbuffer_get_length(c->output) > 0;
    if (!waiting) {
        if (c->stalling)
            event_del(&c->timer);
        c->stalling = false;
    } else if (!c->stalling || c->taken >= LEAST_TAKEN) {
        c->stalling = true;
        c->taken = 0;
        set_timer(c, c->server->options.stall_seconds);
    }
}

/* ---- Requests ---- */

static bool begin_request(http_connection *c) {
    c->exchange = http_exchange_open(c);
    if (c->exchange == NULL) {
        c->dead = true;
        return false;
    }
    move_to(c, &c->server->idle, &c->server->busy);
    c->phase = HTTP_READING;
    set_timer(c, c->server->options.head_seconds);
    return true;
}

static void on_head(http_connection *c) {
    const http_options *options = &c->server->options;
    http_exchange *exchange = c->exchange;
    set_timer(c, options->body_seconds);
    if (options->admit != NULL)
        options->admit(options->admit_user, exchange, &exchange->parser.request);
    if (c->exchange == NULL || !exchange->parser.expects_continue)
        return;
    if (http_connection_output(c) == NULL ||
        evbuffer_add(c->output, continue_line, sizeof continue_line - 1) != 0)
        c->dead = true;
}

static void on_request(http_connection *c) {
    const http_options *options = &c->server->options;
    http_exchange *exchange = c->exchange;
    event_del(&c->timer);
    c->phase = HTTP_ANSWERING;
    if (strcmp(exchange->parser.request.path, "*") == 0)
        http_respond(exchange, 204, NULL, NULL, 0, "", 0);
    else
        options->handler(options->user, exchange, &exchange->parser.request);
}

/* One event of the request that is read; false when its reading has ended, one way or another. */
static bool on_parsed(http_connection *c, http_parse_event event) {
    switch (event) {
    case HTTP_PARSE_MORE:
        return true;
    case HTTP_PARSE_HEAD:
        on_head(c);
        return c->exchange != NULL && !c->dead;
    case HTTP_PARSE_DONE:
        on_request(c);
        return false;
    default:
        http_exchange_refuse(c->exchange, c->exchange->parser.status, c->exchange->parser.reason);
        return false;
    }
}

/* Feeds the parser, keeping count of what all bodies take together. */
static http_parse_event parse(http_connection *c, const char *data, size_t length, size_t *used) {
    http_parser *parser = &c->exchange->parser;
    size_t before = parser->body_capacity;
    http_parse_event event = http_parser_feed(parser, data, length, used);
    c->server->bodies += parser->body_capacity - before;
    if (parser->body_capacity == before || c->server->bodies <= c->server->options.max_bodies)
        return event;
    parser->status = 503;
    parser->reason = "the bodies of all requests take too much memory";
    return HTTP_PARSE_REFUSED;
}

/* Gives bytes to the request until it is whole; the rest is kept for the ones after it. */
static void feed(http_connection *c, const char *data, size_t length) {
    http_parse_event event = HTTP_PARSE_MORE;
    size_t at = 0, used;
    if (c->phase == HTTP_IDLE && !begin_request(c))
        return;
    do {
        event = parse(c, data + at, length - at, &used);
        at += used;
    } while (on_parsed(c, event) && (at < length || event == HTTP_PARSE_HEAD));
    if (at == length || c->close_after || c->dead)
        return;
    c->left = malloc(length - at);
    if (c->left == NULL) {
        c->dead = true;
        return;
    }
    memcpy(c->left, data + at, length - at);
    c->left_length = length - at;
}

static void feed_left(http_connection *c) {
    char *left = c->left;
    c->left = NULL;
    feed(c, left, c->left_length);
    free(left);
}

/* ---- Input ---- */

/* Reads once. Returns the number of bytes; 0 when there are none for now, or never again. */
static size_t read_once(http_connection *c, size_t size) {
    ssize_t count;
    do
        count = recv(c->fd, c->server->scratch, size, MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    if (count > 0)
        return (size_t)count;
    c->can_read = false;
    if (count == 0)
        c->at_eof = true;
    else if (errno != EAGAIN && errno != EWOULDBLOCK)
        c->dead = true;
    return 0;
}

/* So many that little lies behind the request that is read. */
static size_t read_size(const http_connection *c) {
    const http_parser *parser = c->exchange != NULL ? &c->exchange->parser : NULL;
    if (parser == NULL || parser->request.path == NULL)
        return HEAD_READ;
    return parser->left > HEAD_READ ? HTTP_SCRATCH : HEAD_READ;
}

/*
 * The client has closed its side. It may still read, or be gone: only writing tells. While there is
 * no answer, an interim one does no harm (any number of them may come before the answer), and a
 * client that is gone resets the connection.
 */
static void probe(http_connection *c) {
    http_exchange *exchange = c->exchange;
    if (exchange->probed || exchange->streaming || exchange->parser.http_1_0)
        return;
    exchange->probed = true;
    if (http_connection_output(c) == NULL ||
        evbuffer_add(c->output, continue_line, sizeof continue_line - 1) != 0)
        c->dead = true;
}

/* What the client did while nothing is read from it. */
static void look_at_client(http_connection *c) {
    struct pollfd descriptor = {.fd = c->fd, .events = POLLRDHUP};
    if (poll(&descriptor, 1, 0) <= 0)
        return;
    if ((descriptor.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0)
        c->dead = true;
    else if ((descriptor.revents & POLLRDHUP) != 0 && c->phase == HTTP_ANSWERING)
        probe(c);
}

/* ---- The life of a connection ---- */

static void after_answer(http_connection *c) {
    event_del(&c->timer);
    c->stalling = false;
    if (!c->close_after) {
        enter_idle(c);
        return;
    }
    /* Closing while the client still sends would reset what it has not read. */
    shutdown(c->fd, SHUT_WR);
    c->phase = HTTP_LINGERING;
    c->can_read = true;
    c->taken = 0;
    free(c->left);
    c->left = NULL;
    set_timer(c, LINGER_SECONDS);
}

/* One step; false when there is nothing to do for now. */
static bool step(http_connection *c) {
    bool waiting = c->output != NULL && evbuffer_get_length(c->output) > 0;
    switch (c->phase) {
    case HTTP_ANSWERING:
        return false;
    case HTTP_FLUSHING:
        if (waiting)
            return false;
        after_answer(c);
        return true;
    case HTTP_LINGERING:
        if (c->can_read)
            c->taken += read_once(c, HTTP_SCRATCH);
        c->dead = c->dead || c->taken > LINGER_BYTES;
        break;
    default:
        if (c->left != NULL) {
            feed_left(c);
            return true;
        }
        if (c->can_read) {
            size_t count = read_once(c, read_size(c));
            if (count > 0)
                feed(c, c->server->scratch, count);
        }
    }
    if (c->at_eof || (c->phase == HTTP_IDLE && c->server->stopping && !c->can_read && c->served))
        c->dead = true;
    return c->can_read;
}

void http_connection_service(http_connection *c) {
    int budget = READS_PER_TURN;
    bool more = true;
    while (more && !c->dead) {
        write_out(c);
        if (c->dead)
            break;
        if (budget-- == 0) {
            http_connection_schedule(c);
            break;
        }
        more = step(c);
    }
    /* It may have gone in the moment in which its request was read. */
    if (!c->dead && c->phase == HTTP_ANSWERING && !c->exchange->looked) {
        c->exchange->looked = true;
        look_at_client(c);
    }
    write_out(c);
    if (c->dead)
        http_connection_destroy(c);
    else
        watch_output(c);
}

static void on_io(evutil_socket_t fd, short what, void *argument) {
    http_connection *c = argument;
    (void)fd;
    if ((what & (EV_READ | EV_CLOSED)) != 0)
        c->can_read = true;
    if ((what & EV_WRITE) != 0)
        c->can_write = true;
    if (c->phase == HTTP_ANSWERING || c->phase == HTTP_FLUSHING)
        look_at_client(c);
    http_connection_service(c);
}

static void on_timer(evutil_socket_t fd, short what, void *argument) {
    http_connection *c = argument;
    (void)fd;
    (void)what;
    if (c->phase == HTTP_READING)
        http_exchange_refuse(c->exchange, 408, "the request did not come within its time");
    else
        c->dead = true;
    http_connection_service(c);
}

void http_connection_open(http_server *server, int fd, const char *peer) {
    http_connection *c = calloc(1, sizeof *c);
    if (c == NULL) {
        close(fd);
        return;
    }
    c->server = server;
    c->fd = fd;
    c->can_write = true;
    c->since = http_now();
    memcpy(c->peer, peer, strnlen(peer, sizeof c->peer - 1));
    event_assign(&c->io, server->base, fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST,
                 on_io, c);
    event_assign(&c->timer, server->base, -1, 0, on_timer, c);
    TAILQ_INSERT_TAIL(&server->idle, c, link);
    server->open++;
    if (event_add(&c->io, NULL) != 0) {
        http_connection_destroy(c);
        return;
    }
    set_timer(c, server->options.idle_seconds);
}
