/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of requests on any bytes: cut at places that the input chooses, it must say the same
 * as on the whole, and what it takes must be framed in one way only.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/server/http_log.h"
#include "app/server/http_parse.h"

enum { MAX_BODY = 1000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Feeds it all in pieces of at most `piece` bytes; the last event, and the bytes used. */
static http_parse_event feed_all(http_parser *parser, const char *text, size_t size, size_t piece,
                                 size_t *used) {
    http_parse_event event = HTTP_PARSE_MORE;
    size_t taken;
    *used = 0;
    http_parser_init(parser, MAX_BODY);
    do {
        size_t length = size - *used < piece ? size - *used : piece;
        event = http_parser_feed(parser, text + *used, length, &taken);
        if (taken > length || (event == HTTP_PARSE_MORE && taken != length))
            abort();
        *used += taken;
    } while (event == HTTP_PARSE_HEAD || (event == HTTP_PARSE_MORE && *used < size));
    return event;
}

static void same(const http_parser *a, const http_parser *b) {
    const http_request *x = &a->request, *y = &b->request;
    if (strcmp(x->method, y->method) != 0 || strcmp(x->path, y->path) != 0 ||
        strcmp(x->query, y->query) != 0 || x->num_headers != y->num_headers ||
        x->length != y->length || memcmp(x->body, y->body, x->length) != 0)
        abort();
    for (size_t i = 0; i < x->num_headers; i++) {
        if (strcmp(x->headers[i].name, y->headers[i].name) != 0 ||
            strcmp(x->headers[i].value, y->headers[i].value) != 0)
            abort();
    }
}

/* What must hold of a request that was taken. */
static void check(const http_parser *parser) {
    const http_request *request = &parser->request;
    int lengths = 0, encodings = 0, hosts = 0;
    for (size_t i = 0; i < request->num_headers; i++) {
        lengths += strcmp(request->headers[i].name, "content-length") == 0;
        encodings += strcmp(request->headers[i].name, "transfer-encoding") == 0;
        hosts += strcmp(request->headers[i].name, "host") == 0;
        if (strpbrk(request->headers[i].value, "\r\n") != NULL)
            abort();
    }
    if (lengths + encodings > 1 || hosts > 1 || (hosts == 0 && !parser->http_1_0) ||
        request->length > MAX_BODY || request->num_headers > HTTP_MAX_FIELDS ||
        request->body[request->length] != '\0' ||
        (*request->path != '/' && strcmp(request->path, "*") != 0) ||
        strpbrk(request->path, "\r\n") != NULL)
        abort();
    http_log_entry entry = {
        .peer = "p", .method = request->method, .path = request->path, .label = request->query};
    char *line = http_log_line(&entry);
    if (line != NULL && strpbrk(line, "\r\n\x7f") != NULL)
        abort();
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    http_parser whole, cut;
    size_t used, used_cut;
    if (size == 0)
        return 0;
    size_t piece = 1 + data[0] % 64;
    const char *text = (const char *)data + 1;
    http_parse_event event = feed_all(&whole, text, size - 1, SIZE_MAX, &used);
    http_parse_event again = feed_all(&cut, text, size - 1, piece, &used_cut);
    if (event != again || used != used_cut || whole.status != cut.status)
        abort();
    if (event == HTTP_PARSE_DONE) {
        same(&whole, &cut);
        check(&whole);
    } else if (event == HTTP_PARSE_REFUSED && (whole.status < 400 || whole.reason == NULL)) {
        abort();
    }
    http_parser_clear(&whole);
    http_parser_clear(&cut);
    return 0;
}
