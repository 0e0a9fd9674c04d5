/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 over an event loop: one thread, any number of connections. It reads requests strictly
 * (RFC 9112; what smuggling needs is refused), within limits and absolute deadlines, and writes
 * answers whole or as a stream. It knows nothing of what is served.
 */
#ifndef MLN_SERVER_HTTP_H
#define MLN_SERVER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "myelin/myelin.h"

typedef struct http_server http_server;
typedef struct http_exchange http_exchange; /* one request and its answer */

typedef struct http_header {
    const char *name; /* of a request: in lower case */
    const char *value;
} http_header;

/* A request as it was read. Valid until the exchange has ended. */
typedef struct http_request {
    const char *method; /* "GET" */
    const char *path;   /* of the target, percent-decoded, begins with '/'; without the query */
    const char *query;  /* after '?', as sent; "" when there is none */
    const http_header *headers;
    size_t num_headers;
    const char *body; /* of `length` bytes, and a NUL */
    size_t length;
    const char *peer; /* address of the client, "127.0.0.1:51324" */
} http_request;

/*
 * Called on the loop's thread for each request; answers it now or later. HEAD comes as such; what
 * is answered to it leaves without its body.
 */
typedef void (*http_handler)(void *user, http_exchange *exchange, const http_request *request);

typedef struct http_options {
    const char *host;     /* "127.0.0.1"; a numeric address or a name */
    int port;             /* 8080; 0: any */
    int max_connections;  /* 10,000 */
    size_t max_body;      /* bytes of a request's body: 32 MiB */
    size_t max_bodies;    /* of all requests there are, together: 512 MiB; beyond: 503 */
    size_t max_unread;    /* bytes of an answer the client has not taken before it is cut off */
    double head_seconds;  /* from a request's first byte to the end of its head: 10 */
    double body_seconds;  /* from there to the end of its body: 60 */
    double idle_seconds;  /* a connection without a request: 75 */
    double stall_seconds; /* a client that takes nothing of an answer: 60 */
    http_handler handler;
    void *user; /* of the handler */
    /*
     * Called when a request's head is read and its body is not: answers now, and then the body is
     * never read, or lets it pass. NULL: all may pass.
     */
    http_handler admit;
    void *admit_user;
    /* One line, without its end, for each request answered. NULL: none. */
    void (*log)(void *user, const char *line);
    void *log_user;
} http_options;

void http_options_init(http_options *options);

/* Binds and listens; accepts nothing before run(). */
myelin_status http_server_create(http_server **server, const http_options *options,
                                 myelin_error *error);
/* run() has returned; what was posted and not called yet is called first. Accepts NULL. */
void http_server_free(http_server *server);
int http_server_port(const http_server *server);
/* Whether only this machine can reach it. */
bool http_server_is_loopback(const http_server *server);

/* Serves until stop(). MYELIN_ERROR_CANCELLED when requests were cut off at its end. */
myelin_status http_server_run(http_server *server, myelin_error *error);
/*
 * From any thread or a signal handler's self-pipe: stops listening, closes idle connections, lets
 * exchanges end for `seconds` at most, then cuts them off; run() returns.
 */
void http_server_stop(http_server *server, double seconds);
/* Serves on; each answer from now on asks the client to connect anew for its next request. */
void http_server_retire(http_server *server);
/*
 * From any thread: calls function(argument) on the loop's thread, in the order of the calls, soon
 * or, when run() has returned before, in free(). Waits when memory is short; nothing is lost.
 */
void http_server_post(http_server *server, void (*function)(void *argument), void *argument);
/* Calls function(argument) on the loop's thread every so many seconds while it runs. */
myelin_status http_server_every(http_server *server, double seconds,
                                void (*function)(void *argument), void *argument);
int http_server_connections(const http_server *server); /* open now */

/*
 * What follows is called on the loop's thread, on an exchange that has not ended. An exchange ends
 * with respond(), with stream_end(), or when the client is gone.
 */

/* The value of a request's header (name in lower case), or NULL. */
const char *http_request_header(const http_request *request, const char *name);
/* Valid until the exchange has ended. */
const http_request *http_exchange_request(const http_exchange *exchange);
/* A header of the answer, whoever gives it; copied. For what stands before the routes. */
void http_exchange_add_header(http_exchange *exchange, const char *name, const char *value);

/* A whole answer; body is copied. Content-Length, Date and Connection are added. */
void http_respond(http_exchange *exchange, int status, const char *content_type,
                  const http_header *headers, size_t num_headers, const char *body, size_t length);

/* An answer whose body comes in pieces (chunked; to an HTTP/1.0 client until the end). */
void http_stream_begin(http_exchange *exchange, int status, const char *content_type,
                       const http_header *headers, size_t num_headers);
void http_stream_write(http_exchange *exchange, const char *data, size_t length);
void http_stream_end(http_exchange *exchange);
/* Bytes written that the client has not taken; at max_unread it is cut off. */
size_t http_stream_unread(const http_exchange *exchange);

/*
 * gone(user) is called once if the client disconnects, or is cut off, before the exchange has
 * ended; the exchange is invalid from then on. NULL: nobody is told.
 */
void http_exchange_on_gone(http_exchange *exchange, void (*gone)(void *user), void *user);
/* For the access log: which key or user, NULL for none; copied. */
void http_exchange_label(http_exchange *exchange, const char *label);

#endif
