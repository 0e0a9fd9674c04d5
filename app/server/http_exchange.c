/* SPDX-License-Identifier: Apache-2.0 */
/* Answers: what they look like on the wire, and when a connection lives on after one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http_internal.h"
#include "http_log.h"

enum { CLIENT_GONE = 499, MAX_REFUSAL = 512 };

const char *http_status_text(int status) {
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "Unknown";
}

/* English names, whatever the locale. */
const char *http_date(http_server *server) {
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t now = time(NULL);
    struct tm when;
    if (now == server->date_second)
        return server->date;
    gmtime_r(&now, &when);
    strftime(server->date, sizeof server->date, "DDD, %d MMM %Y %H:%M:%S GMT", &when);
    memcpy(server->date, days + 3 * when.tm_wday, 3);
    memcpy(server->date + 8, months + 3 * when.tm_mon, 3);
    server->date_second = now;
    return server->date;
}

http_exchange *http_exchange_open(http_connection *connection) {
    http_exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange == NULL)
        return NULL;
    exchange->connection = connection;
    exchange->begun = http_now();
    http_parser_init(&exchange->parser, connection->server->options.max_body);
    exchange->parser.request.peer = connection->peer;
    return exchange;
}

static void log_exchange(const http_exchange *exchange, bool complete) {
    const http_connection *connection = exchange->connection;
    const http_options *options = &connection->server->options;
    const http_request *request = &exchange->parser.request;
    http_log_entry entry = {.peer = connection->peer,
                            .method = request->method,
                            .path = request->path,
                            .status = exchange->status != 0 ? exchange->status : CLIENT_GONE,
                            .bytes = exchange->bytes,
                            .milliseconds = 1000 * (http_now() - exchange->begun),
                            .complete = complete,
                            .label = exchange->label};
    if (options->log == NULL)
        return;
    clock_gettime(CLOCK_REALTIME, &entry.time);
    char *line = http_log_line(&entry);
    if (line != NULL)
        options->log(options->log_user, line);
    free(line);
}

static void release(http_exchange *exchange) {
    exchange->connection->server->bodies -= exchange->parser.body_capacity;
    http_parser_clear(&exchange->parser);
    free(exchange->label);
    free(exchange->extra);
    free(exchange);
}

void http_exchange_close(http_exchange *exchange) {
    http_connection *connection = exchange->connection;
    void (*gone)(void *) = exchange->gone;
    void *user = exchange->gone_user;
    connection->exchange = NULL;
    log_exchange(exchange, false);
    if (gone != NULL)
        gone(user);
    release(exchange);
}

/* The answer is given; what is left is for the connection to send. */
static void end(http_exchange *exchange) {
    http_connection *connection = exchange->connection;
    log_exchange(exchange, !connection->dead);
    connection->exchange = NULL;
    connection->phase = HTTP_FLUSHING;
    connection->served = true;
    release(exchange);
    http_connection_schedule(connection);
}

/* Bytes for the client. An output that cannot grow is cut off. */
static void put(http_connection *connection, const char *data, size_t length) {
    struct evbuffer *output = http_connection_output(connection);
    if (connection->dead || length == 0)
        return;
    if (output == NULL || evbuffer_add(output, data, length) != 0)
        connection->dead = true;
}

static void put_text(http_connection *connection, const char *text) {
    put(connection, text, strlen(text));
}

/* No value of ours begins a line of its own, whatever was put into it. */
static void put_header(http_connection *connection, const char *name, const char *value) {
    put_text(connection, name);
    put_text(connection, ": ");
    for (; *value != '\0'; value++) {
        char c = (unsigned char)*value < 0x20 || *value == 0x7f ? ' ' : *value;
        put(connection, &c, 1);
    }
    put_text(connection, "\r\n");
}

/* Whether the client may send another request on the connection after this answer. */
static bool decide_keep_alive(const http_exchange *exchange, bool close_delimited) {
    const http_connection *connection = exchange->connection;
    const http_server *server = connection->server;
    bool unread = connection->phase == HTTP_READING && exchange->parser.has_body;
    return exchange->parser.keep_alive && !unread && !close_delimited && !server->retired &&
           !server->stopping;
}

static void put_head(http_exchange *exchange, int status, const char *content_type,
                     const http_header *headers, size_t num_headers, const char *framing,
                     bool close_delimited) {
    http_connection *connection = exchange->connection;
    char line[96];
    exchange->status = status;
    exchange->bodyless = status == 204 || status == 304 ||
                         (exchange->parser.request.method != NULL &&
                          strcmp(exchange->parser.request.method, "HEAD") == 0);
    snprintf(line, sizeof line, "HTTP/1.1 %d %s\r\n", status, http_status_text(status));
    put_text(connection, line);
    put_header(connection, "Date", http_date(connection->server));
    if (content_type != NULL)
        put_header(connection, "Content-Type", content_type);
    for (size_t i = 0; i < num_headers; i++)
        put_header(connection, headers[i].name, headers[i].value);
    if (exchange->extra != NULL)
        put_text(connection, exchange->extra);
    put_text(connection, framing);
    if (!decide_keep_alive(exchange, close_delimited)) {
        connection->close_after = true;
        put_text(connection, "Connection: close\r\n");
    } else if (exchange->parser.http_1_0) {
        put_text(connection, "Connection: keep-alive\r\n");
    }
    put_text(connection, "\r\n");
}

void http_respond(http_exchange *exchange, int status, const char *content_type,
                  const http_header *headers, size_t num_headers, const char *body, size_t length) {
    char framing[64];
    snprintf(framing, sizeof framing, "Content-Length: %zu\r\n", length);
    bool none = status == 204 || status == 304;
    put_head(exchange, status, content_type, headers, num_headers, none ? "" : framing, false);
    if (!exchange->bodyless) {
        put(exchange->connection, body, length);
        exchange->bytes = length;
    }
    end(exchange);
}

void http_exchange_refuse(http_exchange *exchange, int status, const char *reason) {
    char body[MAX_REFUSAL]; /* reasons are ours: none needs escaping but quotes */
    char plain[MAX_REFUSAL / 2];
    snprintf(plain, sizeof plain, "%s", reason);
    for (char *c = plain; *c != '\0'; c++)
        *c = *c == '"' ? '\'' : *c;
    snprintf(body, sizeof body,
             "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":null}}", plain,
             status >= 500 ? "server_error" : "invalid_request_error");
    exchange->parser.keep_alive = false;
    http_respond(exchange, status, "application/json", NULL, 0, body, strlen(body));
}

void http_stream_begin(http_exchange *exchange, int status, const char *content_type,
                       const http_header *headers, size_t num_headers) {
    exchange->streaming = true;
    exchange->chunked = !exchange->parser.http_1_0;
    put_head(exchange, status, content_type, headers, num_headers,
             exchange->chunked ? "Transfer-Encoding: chunked\r\n" : "", !exchange->chunked);
    http_connection_schedule(exchange->connection);
}

void http_stream_write(http_exchange *exchange, const char *data, size_t length) {
    http_connection *connection = exchange->connection;
    char size[24];
    if (length == 0 || exchange->bodyless || connection->dead)
        return;
    if (http_stream_unread(exchange) >= connection->server->options.max_unread) {
        connection->dead = true;
        http_connection_schedule(connection);
        return;
    }
    if (exchange->chunked) {
        snprintf(size, sizeof size, "%zx\r\n", length);
        put_text(connection, size);
    }
    put(connection, data, length);
    if (exchange->chunked)
        put_text(connection, "\r\n");
    exchange->bytes += length;
    http_connection_schedule(connection);
}

void http_stream_end(http_exchange *exchange) {
    if (exchange->chunked && !exchange->bodyless)
        put_text(exchange->connection, "0\r\n\r\n");
    end(exchange);
}

size_t http_stream_unread(const http_exchange *exchange) {
    const struct evbuffer *output = exchange->connection->output;
    return output != NULL ? evbuffer_get_length(output) : 0;
}

const http_request *http_exchange_request(const http_exchange *exchange) {
    return &exchange->parser.request;
}

const char *http_request_header(const http_request *request, const char *name) {
    for (size_t i = 0; i < request->num_headers; i++) {
        if (strcmp(request->headers[i].name, name) == 0)
            return request->headers[i].value;
    }
    return NULL;
}

void http_exchange_add_header(http_exchange *exchange, const char *name, const char *value) {
    size_t used = exchange->extra != NULL ? strlen(exchange->extra) : 0;
    size_t size = used + strlen(name) + strlen(value) + sizeof ": \r\n";
    char *grown = realloc(exchange->extra, size);
    if (grown == NULL)
        return;
    exchange->extra = grown;
    snprintf(grown + used, size - used, "%s: %s", name, value);
    for (char *c = grown + used; *c != '\0'; c++)
        *c = (unsigned char)*c < 0x20 || *c == 0x7f ? ' ' : *c;
    memcpy(grown + size - 3, "\r\n", 3);
}

void http_exchange_on_gone(http_exchange *exchange, void (*gone)(void *user), void *user) {
    exchange->gone = gone;
    exchange->gone_user = user;
}

void http_exchange_label(http_exchange *exchange, const char *label) {
    free(exchange->label);
    exchange->label = label != NULL ? strdup(label) : NULL;
}
