/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the server listens, and accepting. When connections or descriptors run out, those idle
 * longest make room; when none is idle, accepting pauses a moment instead of spinning.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_internal.h"

enum {
    BACKLOG = 4096, /* the system's own limit counts when it is less */
    ACCEPTS_PER_TURN = 64,
    KEEPALIVE_IDLE = 60, /* seconds: so that a client whose machine is gone is noticed */
    KEEPALIVE_INTERVAL = 15,
    KEEPALIVE_PROBES = 4
};

static const double PAUSE_SECONDS = 0.1;
static const double SPARED_SECONDS = 1; /* a connection that new is not made to give way */

static myelin_status fail(myelin_error *error, const http_server *server, const char *what,
                          const char *why) {
    if (error != NULL) {
        memset(error, 0, sizeof *error);
        error->status = MYELIN_ERROR_IO;
        error->offset = -1;
        snprintf(error->message, sizeof error->message, "cannot %s %s port %d: %s", what,
                 server->options.host, server->options.port, why);
    }
    return MYELIN_ERROR_IO;
}

/* ---- Accepting ---- */

static void pause_accepting(http_server *server) {
    struct timeval moment = http_seconds(PAUSE_SECONDS);
    for (int i = 0; i < server->num_listeners; i++)
        event_del(&server->listeners[i].event);
    event_add(&server->resume, &moment);
}

static void on_resume(evutil_socket_t fd, short what, void *argument) {
    http_server *server = argument;
    (void)fd;
    (void)what;
    for (int i = 0; i < server->num_listeners; i++)
        event_add(&server->listeners[i].event, NULL);
}

/* Closes the connection idle longest, unless it is new. */
static bool make_room(http_server *server) {
    http_connection *oldest = TAILQ_FIRST(&server->idle);
    if (oldest == NULL || http_now() - oldest->since < SPARED_SECONDS)
        return false;
    http_connection_destroy(oldest);
    return true;
}

static void describe_peer(const struct sockaddr_storage *address, char *text, size_t size) {
    char host[INET6_ADDRSTRLEN] = "?";
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        snprintf(text, size, "[%s]:%d", host, ntohs(six->sin6_port));
    } else {
        const struct sockaddr_in *four = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        snprintf(text, size, "%s:%d", host, ntohs(four->sin_port));
    }
}

static void set_option(int fd, int level, int name, int value) {
    (void)setsockopt(fd, level, name, &value, sizeof value);
}

static void accepted(http_server *server, int fd, const struct sockaddr_storage *address) {
    char peer[HTTP_PEER_SIZE];
    describe_peer(address, peer, sizeof peer);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
    http_connection_open(server, fd, peer);
}

static bool out_of_resources(int error) {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_accept(evutil_socket_t listener, short what, void *argument) {
    http_server *server = argument;
    (void)what;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage address;
        socklen_t size = sizeof address;
        if (server->open >= server->options.max_connections && !make_room(server)) {
            pause_accepting(server);
            return;
        }
        int fd =
            accept4(listener, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            accepted(server, fd, &address);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (out_of_resources(errno) && !make_room(server)) {
            pause_accepting(server);
            return;
        }
    }
}

void http_accept_begin(http_server *server) {
    on_resume(-1, 0, server);
}

void http_accept_end(http_server *server) {
    for (int i = 0; i < server->num_listeners; i++) {
        /* Those that have connected already would see a reset. */
        if (!server->stopping && event_pending(&server->listeners[i].event, EV_READ, NULL) != 0)
            on_accept(server->listeners[i].fd, EV_READ, server);
    }
    for (int i = 0; i < server->num_listeners; i++) {
        event_del(&server->listeners[i].event);
        close(server->listeners[i].fd);
    }
    if (server->num_listeners > 0)
        event_del(&server->resume);
    server->num_listeners = 0;
}

/* ---- Listening ---- */

static int port_of(const struct sockaddr_storage *address) {
    return ntohs(address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                : ((const struct sockaddr_in *)address)->sin_port);
}

static bool is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    uint32_t host = ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr);
    return host >> 24 == 127;
}

/* A socket that listens, or -1 with errno. A port of 0 becomes that of the first address. */
static int listen_on(http_server *server, const struct addrinfo *info) {
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    memcpy(&address, info->ai_addr, info->ai_addrlen);
    if (address.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&address)->sin6_port = htons((uint16_t)server->port);
    else
        ((struct sockaddr_in *)&address)->sin_port = htons((uint16_t)server->port);
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (info->ai_family == AF_INET6 && info->ai_next != NULL)
        set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (bind(fd, (struct sockaddr *)&address, info->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    server->port = port_of(&address);
    return fd;
}

/* Every address the host has; one that this machine does not have is passed over. */
static myelin_status listen_on_all(http_server *server, const struct addrinfo *list,
                                   myelin_error *error) {
    int problem = 0;
    server->loopback = true;
    for (const struct addrinfo *info = list; info != NULL; info = info->ai_next) {
        if (server->num_listeners == HTTP_MAX_LISTENERS)
            break;
        int fd = listen_on(server, info);
        if (fd < 0) {
            problem = errno;
            if (problem == EADDRNOTAVAIL || problem == EAFNOSUPPORT)
                continue;
            return fail(error, server, "listen on", strerror(problem));
        }
        int index = server->num_listeners++;
        server->listeners[index].fd = fd;
        event_assign(&server->listeners[index].event, server->base, fd, EV_READ | EV_PERSIST,
                     on_accept, server);
        server->loopback = server->loopback && is_loopback(info->ai_addr);
    }
    if (server->num_listeners == 0)
        return fail(error, server, "listen on", strerror(problem));
    return MYELIN_OK;
}

myelin_status http_listen(http_server *server, myelin_error *error) {
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;
    server->port = server->options.port;
    event_assign(&server->resume, server->base, -1, 0, on_resume, server);
    int result = getaddrinfo(server->options.host, NULL, &hints, &list);
    if (result != 0)
        return fail(error, server, "find the address of", gai_strerror(result));
    myelin_status status = listen_on_all(server, list, error);
    freeaddrinfo(list);
    return status;
}
