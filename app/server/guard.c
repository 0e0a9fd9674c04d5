/* SPDX-License-Identifier: Apache-2.0 */
#include "guard.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api_error.h"

/* Padded, so that comparing takes the same time whatever a key's length. */
typedef struct key {
    unsigned char text[GUARD_MAX_KEY];
    int line; /* of the file */
} key;

struct guard {
    guard_options options;
    key *keys;
    size_t num_keys;
};

static myelin_status fail(myelin_error *error, myelin_status status, const char *file,
                          const char *format, ...) MYELIN_PRINTF(4, 5);

static myelin_status fail(myelin_error *error, myelin_status status, const char *file,
                          const char *format, ...) {
    va_list arguments;
    if (error == NULL)
        return status;
    memset(error, 0, sizeof *error);
    error->status = status;
    error->offset = -1;
    snprintf(error->file, sizeof error->file, "%s", file);
    int used = snprintf(error->message, sizeof error->message, "%.200s: ", file);
    va_start(arguments, format);
    vsnprintf(error->message + used, sizeof error->message - (size_t)used, format, arguments);
    va_end(arguments);
    return status;
}

/* ---- The file of keys ---- */

static bool is_key_character(char c) {
    return c > ' ' && c < 0x7f;
}

/* One line, without its end: a key, a comment, or nothing. */
static myelin_status add_line(guard *g, const char *file, char *line, int number,
                              myelin_error *error) {
    line += strspn(line, " \t");
    size_t length = strlen(line);
    while (length > 0 && strchr(" \t\r", line[length - 1]) != NULL)
        length--;
    if (length == 0 || *line == '#')
        return MYELIN_OK;
    if (length >= GUARD_MAX_KEY)
        return fail(error, MYELIN_ERROR_FORMAT, file,
                    "line %d: a key has at most %d characters, found %zu", number,
                    GUARD_MAX_KEY - 1, length);
    for (size_t i = 0; i < length; i++) {
        if (!is_key_character(line[i]))
            return fail(error, MYELIN_ERROR_FORMAT, file,
                        "line %d: a key is printable ASCII without spaces", number);
    }
    if (g->num_keys == GUARD_MAX_KEYS)
        return fail(error, MYELIN_ERROR_FORMAT, file, "more than %d keys", GUARD_MAX_KEYS);
    if ((g->num_keys & (g->num_keys - 1)) == 0) { /* room for a power of two */
        size_t room = g->num_keys == 0 ? 1 : 2 * g->num_keys;
        key *grown = realloc(g->keys, room * sizeof *grown);
        if (grown == NULL)
            return fail(error, MYELIN_ERROR_MEMORY, file, "out of memory");
        g->keys = grown;
    }
    key *k = &g->keys[g->num_keys++];
    memset(k, 0, sizeof *k);
    memcpy(k->text, line, length);
    k->line = number;
    return MYELIN_OK;
}

static myelin_status add_text(guard *g, const char *file, char *text, myelin_error *error) {
    int number = 1;
    for (char *line = text; line != NULL; number++) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end = '\0';
        myelin_status status = add_line(g, file, line, number, error);
        if (status != MYELIN_OK)
            return status;
        line = end != NULL ? end + 1 : NULL;
    }
    return MYELIN_OK;
}

/* What is wrong with a file of so many bytes, if something is. */
static myelin_status check_text(const char *file, const char *text, size_t length, int problem,
                                myelin_error *error) {
    if (problem != 0)
        return fail(error, MYELIN_ERROR_IO, file, "cannot be read: %s", strerror(problem));
    if (length > GUARD_MAX_FILE)
        return fail(error, MYELIN_ERROR_FORMAT, file, "more than %d bytes", GUARD_MAX_FILE);
    if (memchr(text, '\0', length) != NULL)
        return fail(error, MYELIN_ERROR_FORMAT, file, "a NUL in it");
    return MYELIN_OK;
}

static myelin_status read_file(const char *file, char **text, myelin_error *error) {
    *text = malloc(GUARD_MAX_FILE + 2);
    if (*text == NULL)
        return fail(error, MYELIN_ERROR_MEMORY, file, "out of memory");
    FILE *in = fopen(file, "re");
    if (in == NULL)
        return fail(error, MYELIN_ERROR_IO, file, "cannot be opened: %s", strerror(errno));
    size_t length = fread(*text, 1, GUARD_MAX_FILE + 1, in);
    int problem = ferror(in) != 0 ? errno : 0;
    fclose(in);
    (*text)[length] = '\0';
    return check_text(file, *text, length, problem, error);
}

myelin_status guard_reload(guard *g, myelin_error *error) {
    const char *file = g->options.key_file;
    guard fresh = {.options = g->options};
    char *text = NULL;
    if (file == NULL)
        return MYELIN_OK;
    myelin_status status = read_file(file, &text, error);
    if (status == MYELIN_OK)
        status = add_text(&fresh, file, text, error);
    if (status == MYELIN_OK && fresh.num_keys == 0)
        status = fail(error, MYELIN_ERROR_FORMAT, file, "expected a key on a line, found none");
    free(text);
    if (status != MYELIN_OK) {
        free(fresh.keys);
        return status;
    }
    free(g->keys);
    *g = fresh;
    return MYELIN_OK;
}

myelin_status guard_create(guard **made, const guard_options *options, myelin_error *error) {
    *made = NULL;
    guard *g = calloc(1, sizeof *g);
    if (g == NULL)
        return fail(error, MYELIN_ERROR_MEMORY, "keys", "out of memory");
    g->options = *options;
    myelin_status status = guard_reload(g, error);
    if (status != MYELIN_OK) {
        guard_free(g);
        return status;
    }
    *made = g;
    return MYELIN_OK;
}

void guard_free(guard *g) {
    if (g == NULL)
        return;
    free(g->keys);
    free(g);
}

/* ---- Keys ---- */

/* The line of the key that is given, or 0. Every key is compared, each in whole. */
static int find_key(const guard *g, const char *given) {
    unsigned char padded[GUARD_MAX_KEY] = {0};
    size_t length = strlen(given);
    int found = 0;
    bool fits = length > 0 && length < sizeof padded;
    memcpy(padded, given, fits ? length : 0);
    for (size_t i = 0; i < g->num_keys; i++) {
        const volatile unsigned char *text = g->keys[i].text;
        unsigned difference = 0;
        for (size_t k = 0; k < sizeof padded; k++)
            difference |= (unsigned)(text[k] ^ padded[k]);
        unsigned equal = (difference - 1) >> 31; /* 1 when there is none */
        found |= g->keys[i].line * (int)equal;
    }
    return fits ? found : 0;
}

static const char *bearer(const http_request *request) {
    static const char scheme[] = "Bearer ";
    const char *value = http_request_header(request, "authorization");
    if (value == NULL || strncasecmp(value, scheme, sizeof scheme - 1) != 0)
        return NULL;
    value += sizeof scheme - 1;
    return value + strspn(value, " ");
}

static bool needs_key(const guard *g, const http_request *request) {
    static const char *const open[] = {"/", "/health", "/favicon.ico"};
    static const char page[] = "/page/"; /* the chat page asks for the key itself */
    bool reads = strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0;
    if (g->num_keys == 0)
        return false;
    for (size_t i = 0; reads && i < sizeof open / sizeof *open; i++) {
        if (strcmp(request->path, open[i]) == 0)
            return false;
    }
    if (reads && strncmp(request->path, page, sizeof page - 1) == 0)
        return false;
    return !(reads && g->options.open_metrics && strcmp(request->path, "/metrics") == 0);
}

static bool check_key(const guard *g, http_exchange *exchange, const http_request *request) {
    const char *given = bearer(request);
    int line = given != NULL ? find_key(g, given) : 0;
    if (line != 0) {
        char label[32];
        snprintf(label, sizeof label, "key:%d", line);
        http_exchange_label(exchange, label);
        return true;
    }
    if (!needs_key(g, request))
        return true;
    http_exchange_add_header(exchange, "WWW-Authenticate", "Bearer");
    if (given == NULL)
        api_error_respond(
            exchange, 401, NULL, NULL,
            "You didn't provide an API key: send it as \"Authorization: Bearer KEY\"");
    else
        api_error_respond(exchange, 401, NULL, "invalid_api_key", "Incorrect API key provided");
    return false;
}

/* ---- Where a request comes from ---- */

/* Bytes of a Host's value without its port. */
static size_t host_length(const char *host) {
    return *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
}

static bool same_host(const char *host, size_t length, const char *name) {
    return strlen(name) == length && strncasecmp(host, name, length) == 0;
}

static bool is_ours(const guard *g, const char *host) {
    size_t length = host_length(host);
    if (same_host(host, length, "localhost") || same_host(host, length, "[::1]"))
        return true;
    if (strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == length)
        return true;
    for (size_t i = 0; i < g->options.num_hosts; i++) {
        if (same_host(host, length, g->options.hosts[i]))
            return true;
    }
    return false;
}

static bool is_allowed_origin(const guard *g, const char *origin) {
    for (size_t i = 0; i < g->options.num_origins; i++) {
        if (strcmp(g->options.origins[i], "*") == 0 ||
            strcasecmp(g->options.origins[i], origin) == 0)
            return true;
    }
    return false;
}

/* A page that this server itself gave out: its Origin is a scheme and our Host. */
static bool is_own_origin(const char *origin, const char *host) {
    const char *authority = strstr(origin, "://");
    return authority != NULL && host != NULL && strcasecmp(authority + 3, host) == 0;
}

/*
 * A page of another site may have its own name resolve to 127.0.0.1, and then it talks to this
 * server as to its own: the name in Host gives it away. A page that posts without asking leave is
 * known by its Origin.
 */
static bool check_origin(const guard *g, http_exchange *exchange, const http_request *request) {
    const char *host = http_request_header(request, "host");
    const char *origin = http_request_header(request, "origin");
    if (!g->options.loopback)
        return true;
    if (host != NULL && !is_ours(g, host)) {
        api_error_respond(exchange, 421, NULL, NULL,
                          "The Host \"%.200s\" is not this server's: --host-name allows names",
                          host);
        return false;
    }
    if (origin != NULL && !is_own_origin(origin, host) && !is_allowed_origin(g, origin)) {
        api_error_respond(exchange, 403, NULL, NULL,
                          "The Origin \"%.200s\" may not use this server: --cors-origin allows it",
                          origin);
        return false;
    }
    return true;
}

/* ---- CORS ---- */

static void allow_origin(const guard *g, http_exchange *exchange, const char *origin) {
    if (g->options.num_origins == 0)
        return;
    http_exchange_add_header(exchange, "Vary", "Origin");
    if (origin == NULL || !is_allowed_origin(g, origin))
        return;
    http_exchange_add_header(exchange, "Access-Control-Allow-Origin", origin);
    http_exchange_add_header(exchange, "Access-Control-Expose-Headers",
                             "Retry-After, X-Request-Id");
}

/* Answers the question whether a page may send a request; it comes without a key. */
static bool answer_preflight(const guard *g, http_exchange *exchange, const http_request *request) {
    static const http_header headers[] = {
        {"Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS"},
        {"Access-Control-Allow-Headers", "*, Authorization, Content-Type"},
        {"Access-Control-Max-Age", "600"},
        {"Access-Control-Allow-Private-Network", "true"},
    };
    const char *origin = http_request_header(request, "origin");
    if (strcmp(request->method, "OPTIONS") != 0 || origin == NULL ||
        http_request_header(request, "access-control-request-method") == NULL)
        return false;
    if (is_allowed_origin(g, origin))
        http_respond(exchange, 204, NULL, headers, sizeof headers / sizeof *headers, "", 0);
    else
        api_error_respond(exchange, 403, NULL, NULL,
                          "The Origin \"%.200s\" may not use this server", origin);
    return true;
}

void guard_admit(void *user, http_exchange *exchange, const http_request *request) {
    const guard *g = user;
    if (!check_origin(g, exchange, request))
        return;
    allow_origin(g, exchange, http_request_header(request, "origin"));
    if (!answer_preflight(g, exchange, request))
        (void)check_key(g, exchange, request);
}
