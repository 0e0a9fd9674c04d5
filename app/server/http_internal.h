/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the HTTP server share. All of it belongs to the loop's thread, but the queue.
 */
#ifndef MLN_SERVER_HTTP_INTERNAL_H
#define MLN_SERVER_HTTP_INTERNAL_H

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include <sys/queue.h>
#include <time.h>

#include "http_parse.h"

enum {
    HTTP_MAX_LISTENERS = 8,
    HTTP_PEER_SIZE = 56,  /* "[" an IPv6 address with its zone "]:65535" */
    HTTP_SCRATCH = 65536, /* bytes read at once */
    HTTP_DATE_SIZE = 32   /* "Sun, 06 Nov 1994 08:49:37 GMT" */
};

typedef struct http_connection http_connection;

typedef enum http_phase {
    HTTP_IDLE,      /* between requests */
    HTTP_READING,   /* a request has begun */
    HTTP_ANSWERING, /* it is with the handler; nothing is read */
    HTTP_FLUSHING,  /* answered; the client has not taken all of it */
    HTTP_LINGERING  /* all said; what the client still sends is dropped until it closes */
} http_phase;

struct http_connection {
    http_server *server;
    int fd;
    http_phase phase;
    struct event io, timer;
    bool can_read, can_write; /* as far as is known: the events are edges */
    bool at_eof;
    bool dead;        /* to be cut off */
    bool close_after; /* this answer is the last */
    bool served;      /* has had an answer */
    bool scheduled;   /* is in server->ready */
    bool stalling;    /* the timer is about the output */
    size_t taken;     /* bytes of output since the timer was set; lingering: of input */
    double since;     /* when it became idle */
    char *left;       /* bytes read that belong to later requests */
    size_t left_length;
    struct evbuffer *output;            /* NULL while there is none */
    http_exchange *exchange;            /* from a request's first byte to the end of its answer */
    TAILQ_ENTRY(http_connection) link;  /* in server->idle or server->busy */
    TAILQ_ENTRY(http_connection) ready; /* in server->ready */
    char peer[HTTP_PEER_SIZE];
};

struct http_exchange {
    http_connection *connection;
    http_parser parser;
    bool streaming;
    bool chunked;
    bool bodyless;  /* an answer to HEAD, a 204, a 304 */
    bool looked;    /* at whether the client is still there, since the request was read */
    bool probed;    /* the client has closed its side, and was sent something */
    int status;     /* of the answer; 0: none yet */
    uint64_t bytes; /* of the answer's body */
    double begun;
    void (*gone)(void *user);
    void *gone_user;
    char *label;
    char *extra; /* header lines to add */
};

typedef struct http_call {
    struct http_call *next;
    void (*function)(void *argument);
    void *argument;
} http_call;

typedef struct http_timer {
    struct http_timer *next;
    struct event event;
    void (*function)(void *argument);
    void *argument;
} http_timer;

TAILQ_HEAD(http_connections, http_connection);

struct http_server {
    http_options options;
    struct event_base *base;
    struct {
        int fd;
        struct event event;
    } listeners[HTTP_MAX_LISTENERS];
    int num_listeners;
    int port;
    bool loopback;
    struct event resume;  /* accepts again */
    struct event service; /* goes through ready */
    struct http_connections idle, busy, ready;
    int open;
    size_t bodies; /* bytes that the requests' bodies take */
    bool retired, stopping;
    struct event stop_timer;
    http_timer *timers;
    time_t date_second;
    char date[HTTP_DATE_SIZE];
    char *scratch;

    int wake; /* an eventfd */
    struct event wake_event;
    pthread_mutex_t mutex; /* of what follows */
    http_call *first, *last;
    bool stop_asked;
    double stop_seconds;
};

/* Seconds of a clock that only goes forward. */
double http_now(void);
struct timeval http_seconds(double seconds);

/* http_listen.c: binds every address of options.host; then accepts, pauses, ends. */
myelin_status http_listen(http_server *server, myelin_error *error);
void http_accept_begin(http_server *server);
void http_accept_end(http_server *server);

/* http_connection.c */
void http_connection_open(http_server *server, int fd, const char *peer);
/* Goes as far as it can. May free the connection. */
void http_connection_service(http_connection *connection);
/* Cuts it off; tells whoever answers. */
void http_connection_destroy(http_connection *connection);
/* Service it soon, on the loop. */
void http_connection_schedule(http_connection *connection);
struct evbuffer *http_connection_output(http_connection *connection);

/* http_exchange.c */
http_exchange *http_exchange_open(http_connection *connection);
/* Logs and frees it; the connection goes on without it. */
void http_exchange_close(http_exchange *exchange);
/* The answer to a request that was not understood or did not come: the connection's last. */
void http_exchange_refuse(http_exchange *exchange, int status, const char *reason);

/* "GMT" and so on, of now. */
const char *http_date(http_server *server);
const char *http_status_text(int status);

#endif
