/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads one HTTP/1.1 request from bytes as they come (RFC 9112), without input or output of its
 * own. Strict: whatever two readers could understand differently is refused, and nothing is
 * allocated because a client announced it.
 */
#ifndef MLN_SERVER_HTTP_PARSE_H
#define MLN_SERVER_HTTP_PARSE_H

#include "http.h"

enum {
    HTTP_MAX_REQUEST_LINE = 8192, /* bytes; beyond: 414 */
    HTTP_MAX_HEAD = 32768,        /* bytes of request line and fields; beyond: 431 */
    HTTP_MAX_FIELDS = 100,        /* header lines; beyond: 431 */
    HTTP_MAX_EMPTY_LINES = 2,     /* before a request line */
    HTTP_MAX_CHUNK_LINE = 256,    /* bytes of a chunk's size and extensions */
    HTTP_MAX_EXTENSIONS = 4096,   /* bytes of extensions in one body */
    HTTP_MAX_TRAILER = 4096       /* bytes of the fields after a chunked body */
};

typedef enum http_parse_event {
    HTTP_PARSE_MORE,   /* all bytes are used, and more are needed */
    HTTP_PARSE_HEAD,   /* the head is read: request is filled, its body apart */
    HTTP_PARSE_DONE,   /* the body is read as well */
    HTTP_PARSE_REFUSED /* answer with status, then close the connection */
} http_parse_event;

typedef struct http_parser {
    http_request request; /* peer is left alone. Owned by the parser */
    bool http_1_0;
    bool keep_alive; /* the client asks for, or allows, another request */
    bool expects_continue;
    bool has_body;      /* of any length but 0 */
    int status;         /* of REFUSED: 400, 413, 414, 417, 431, 501, 503 or 505 */
    const char *reason; /* of REFUSED: a sentence, static */

    /* What follows is the parser's own. */
    int state;
    char *text; /* the head, its lines ended by NUL; then the line that is being read */
    size_t text_length, text_capacity;
    size_t line;       /* in text: where the line that is being read begins */
    size_t head_bytes; /* of this part: the head, then the trailer */
    size_t extension_bytes;
    int empty_lines;
    struct http_field *fields; /* where in text they are, until the head is whole */
    http_header *headers;
    bool chunked;
    uint64_t left; /* bytes of the body, or of the chunk, to come */
    char *body;
    size_t body_capacity;
    size_t max_body;
} http_parser;

void http_parser_init(http_parser *parser, size_t max_body);
/* Releases what it holds. To be initialised again after that. */
void http_parser_clear(http_parser *parser);

/*
 * Takes bytes up to the next event; *used of `length`. After HEAD it is called again, with what is
 * left or with nothing, until DONE or REFUSED, after which it must be called no more.
 */
http_parse_event http_parser_feed(http_parser *parser, const char *data, size_t length,
                                  size_t *used);
/* Whether any byte of a request line has come. */
bool http_parser_begun(const http_parser *parser);

/* Whether a field value, a list of tokens, has this one (in lower case). */
bool http_list_has(const char *list, const char *token);
/* "example.org", "127.0.0.1:8080", "[::1]:8080": a Host field's value. */
bool http_valid_host(const char *text, size_t length);

#endif
