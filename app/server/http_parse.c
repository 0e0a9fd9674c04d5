/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything but a body's bytes is read in lines, and a line is looked at when it is whole: where
 * the bytes were cut on their way makes no difference.
 */
#include "http_parse.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http_target.h"

enum {
    FIRST_TEXT = 512,
    FIRST_BODY = 4096,
    MAX_METHOD = 24,
    MAX_SIZE_DIGITS = 15 /* of a chunk, hexadecimal: no overflow of 64 bits */
};

enum state {
    IN_REQUEST_LINE,
    IN_FIELDS,
    AFTER_HEAD,
    IN_BODY,
    IN_CHUNK_LINE,
    IN_CHUNK,
    AFTER_CHUNK,
    IN_TRAILER,
    AT_END
};

struct http_field {
    uint32_t name, value;
};

void http_parser_init(http_parser *parser, size_t max_body) {
    memset(parser, 0, sizeof *parser);
    parser->max_body = max_body;
}

void http_parser_clear(http_parser *parser) {
    free(parser->text);
    free(parser->fields);
    free(parser->headers);
    free(parser->body);
    memset(parser, 0, sizeof *parser);
}

bool http_parser_begun(const http_parser *parser) {
    return parser->state != IN_REQUEST_LINE || parser->text_length > 0 || parser->empty_lines > 0;
}

static bool refuse(http_parser *parser, int status, const char *reason) {
    parser->status = status;
    parser->reason = reason;
    return false;
}

static bool no_memory(http_parser *parser) {
    return refuse(parser, 503, "the server is short of memory");
}

/* Room for `length` bytes: doubled until `most`, which is never passed. */
static bool grow(char **memory, size_t *capacity, size_t length, size_t first, size_t most) {
    size_t wanted = *capacity != 0 ? *capacity : first;
    if (length <= *capacity)
        return true;
    while (wanted < length)
        wanted *= 2;
    if (wanted > most)
        wanted = most;
    char *grown = realloc(*memory, wanted);
    if (grown == NULL)
        return false;
    *memory = grown;
    *capacity = wanted;
    return true;
}

/* ---- Lines ---- */

/* What is wrong with a line that has become too long. */
static bool too_long(http_parser *parser) {
    switch (parser->state) {
    case IN_REQUEST_LINE:
        return refuse(parser, 414, "the request line is too long");
    case IN_CHUNK_LINE:
        return refuse(parser, 400, "the line with a chunk's size is too long");
    case AFTER_CHUNK:
        return refuse(parser, 400, "a chunk is longer than its size says");
    case IN_TRAILER:
        return refuse(parser, 431, "the fields after the body are too long");
    default:
        return refuse(parser, 431, "the header is too long");
    }
}

/* Bytes that the line may grow to, its end included. */
static size_t line_limit(const http_parser *parser) {
    switch (parser->state) {
    case IN_REQUEST_LINE:
        return HTTP_MAX_REQUEST_LINE;
    case IN_CHUNK_LINE:
        return HTTP_MAX_CHUNK_LINE;
    case AFTER_CHUNK:
        return 2;
    case IN_TRAILER:
        return HTTP_MAX_TRAILER - parser->head_bytes;
    default:
        return HTTP_MAX_HEAD - parser->head_bytes;
    }
}

static bool line_byte(http_parser *parser, char c) {
    char last = parser->text_length > parser->line ? parser->text[parser->text_length - 1] : '\0';
    if (last == '\r' && c != '\n')
        return refuse(parser, 400, "a carriage return without a line feed");
    if (c == '\n' && last != '\r')
        return refuse(parser, 400, "a line feed without a carriage return");
    unsigned char byte = (unsigned char)c;
    if ((byte < 0x20 && c != '\t' && c != '\r' && c != '\n') || byte == 0x7f)
        return refuse(parser, 400, "a control character in the header");
    bool beyond = parser->state == AFTER_CHUNK && c != '\r' && c != '\n';
    if (beyond || parser->text_length - parser->line >= line_limit(parser))
        return too_long(parser);
    if (!grow(&parser->text, &parser->text_capacity, parser->text_length + 1, FIRST_TEXT,
              HTTP_MAX_HEAD + HTTP_MAX_TRAILER))
        return no_memory(parser);
    parser->text[parser->text_length++] = c;
    return true;
}

/*
 * Takes bytes up to the end of the line. *whole: the line is there, from parser->line on, its end
 * replaced by a NUL at text_length.
 */
static bool take_line(http_parser *parser, const char *data, size_t length, size_t *used,
                      bool *whole) {
    *whole = false;
    while (*used < length) {
        char c = data[(*used)++];
        if (!line_byte(parser, c))
            return false;
        if (c == '\n') {
            *whole = true;
            parser->head_bytes += parser->text_length - parser->line;
            parser->text_length -= 2;
            parser->text[parser->text_length] = '\0';
            return true;
        }
    }
    return true;
}

/* The next line begins after the NUL of this one, or in its place. */
static void keep_line(http_parser *parser) {
    parser->text_length++;
    parser->line = parser->text_length;
}

static void drop_line(http_parser *parser) {
    parser->text_length = parser->line;
}

/* ---- The request line ---- */

static bool read_version(http_parser *parser, const char *text) {
    if (strcmp(text, "HTTP/1.1") == 0)
        return true;
    if (strcmp(text, "HTTP/1.0") == 0) {
        parser->http_1_0 = true;
        return true;
    }
    bool other = strncmp(text, "HTTP/", 5) == 0 && text[5] >= '0' && text[5] <= '9' &&
                 text[6] == '.' && text[7] >= '0' && text[7] <= '9' && text[8] == '\0';
    return other ? refuse(parser, 505, "the version of HTTP is not 1.0 or 1.1")
                 : refuse(parser, 400, "the request line does not end in a version of HTTP");
}

static bool request_line(http_parser *parser) {
    char *line = parser->text + parser->line;
    size_t method = http_token_length(line);
    if (method == 0 || line[method] != ' ')
        return refuse(parser, 400, "the request line does not begin with a method");
    if (method > MAX_METHOD)
        return refuse(parser, 501, "the method is not known");
    char *target = line + method + 1;
    size_t length = strcspn(target, " ");
    if (target[length] != ' ')
        return refuse(parser, 400, "the request line has no version of HTTP");
    line[method] = '\0';
    target[length] = '\0';
    if (!read_version(parser, target + length + 1))
        return false;
    if (strcmp(line, "CONNECT") == 0)
        return http_valid_host(target, length) && strchr(target, ':') != NULL
                   ? refuse(parser, 501, "CONNECT is not for this server")
                   : refuse(parser, 400, "the target of CONNECT is not host:port");
    const char *reason = http_target_check(line, target);
    if (reason != NULL)
        return refuse(parser, 400, reason);
    return true;
}

/* ---- Fields ---- */

/* Reads "name: value", in place: the name in lower case, both ended by NUL. */
static bool field_line(http_parser *parser, size_t *name, size_t *value) {
    char *line = parser->text + parser->line;
    if (*line == ' ' || *line == '\t')
        return refuse(parser, 400, "a header line begins with white space");
    size_t length = http_token_length(line);
    if (length == 0 || line[length] != ':')
        return refuse(parser, 400, "a header line is not \"name: value\"");
    for (size_t i = 0; i < length; i++) {
        if (line[i] >= 'A' && line[i] <= 'Z')
            line[i] = (char)(line[i] - 'A' + 'a');
    }
    line[length] = '\0';
    size_t begin = length + 1, end = parser->text_length - parser->line;
    begin += strspn(line + begin, " \t");
    while (end > begin && (line[end - 1] == ' ' || line[end - 1] == '\t'))
        end--;
    line[end] = '\0';
    *name = parser->line;
    *value = parser->line + begin;
    return true;
}

static bool add_field(http_parser *parser) {
    size_t name, value;
    if (!field_line(parser, &name, &value))
        return false;
    size_t count = parser->request.num_headers;
    if (count == HTTP_MAX_FIELDS)
        return refuse(parser, 431, "too many header lines");
    if ((count & (count - 1)) == 0) { /* room for a power of two */
        struct http_field *grown =
            realloc(parser->fields, (count == 0 ? 1 : 2 * count) * sizeof *grown);
        if (grown == NULL)
            return no_memory(parser);
        parser->fields = grown;
    }
    parser->fields[count] = (struct http_field){(uint32_t)name, (uint32_t)value};
    parser->request.num_headers = count + 1;
    return true;
}

/* The value of a field that may be there once; *count of them. */
static const char *only_field(const http_parser *parser, const char *name, int *count) {
    const char *value = NULL;
    *count = 0;
    for (size_t i = 0; i < parser->request.num_headers; i++) {
        if (strcmp(parser->headers[i].name, name) == 0) {
            value = parser->headers[i].value;
            ++*count;
        }
    }
    return value;
}

bool http_list_has(const char *list, const char *token) {
    size_t length = strlen(token);
    while (*list != '\0') {
        list += strspn(list, " \t,");
        size_t item = strcspn(list, ",");
        size_t end = item;
        while (end > 0 && (list[end - 1] == ' ' || list[end - 1] == '\t'))
            end--;
        if (end == length && strncasecmp(list, token, length) == 0)
            return true;
        list += item;
    }
    return false;
}

/* ---- What the head says together ---- */

static bool check_host(http_parser *parser, const char *authority) {
    int count;
    const char *host = only_field(parser, "host", &count);
    if (count > 1)
        return refuse(parser, 400, "more than one Host");
    if (count == 0)
        return parser->http_1_0 || refuse(parser, 400, "no Host");
    if (!http_valid_host(host, strlen(host)))
        return refuse(parser, 400, "Host is not host or host:port");
    if (authority != NULL && strcasecmp(authority, host) != 0)
        return refuse(parser, 400, "Host is not the one of the request's target");
    return true;
}

static bool read_content_length(http_parser *parser, const char *text) {
    uint64_t length = 0;
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
        return refuse(parser, 400, "Content-Length is not a number");
    for (; *text != '\0'; text++) {
        length = length * 10 + (uint64_t)(*text - '0');
        if (length > parser->max_body)
            return refuse(parser, 413, "the body is too long");
    }
    parser->left = length;
    parser->has_body = length > 0;
    return true;
}

static bool read_transfer_encoding(http_parser *parser, const char *text) {
    size_t length = strlen(text);
    if (strcasecmp(text, "chunked") == 0) {
        parser->chunked = parser->has_body = true;
        return true;
    }
    /* "gzip, chunked" is well formed, and not understood here. */
    enum { CHUNKED = sizeof "chunked" - 1 };
    if (length > CHUNKED && strcasecmp(text + length - CHUNKED, "chunked") == 0 &&
        strchr(" \t,", text[length - CHUNKED - 1]) != NULL && strchr(text, ',') != NULL) {
        size_t first = strcspn(text, ", \t");
        bool twice = first == CHUNKED && strncasecmp(text, "chunked", CHUNKED) == 0;
        if (first > 0 && first == http_token_length(text) && !twice)
            return refuse(parser, 501, "a Transfer-Encoding other than chunked");
    }
    return refuse(parser, 400, "Transfer-Encoding is not chunked, once and last");
}

static bool check_framing(http_parser *parser) {
    int encodings, lengths;
    const char *encoding = only_field(parser, "transfer-encoding", &encodings);
    const char *length = only_field(parser, "content-length", &lengths);
    if (encodings > 0 && lengths > 0)
        return refuse(parser, 400, "both Transfer-Encoding and Content-Length");
    if (encodings > 1)
        return refuse(parser, 400, "more than one Transfer-Encoding");
    if (lengths > 1)
        return refuse(parser, 400, "more than one Content-Length");
    if (encodings > 0 && parser->http_1_0)
        return refuse(parser, 400, "Transfer-Encoding in HTTP/1.0");
    if (encodings > 0)
        return read_transfer_encoding(parser, encoding);
    return lengths == 0 || read_content_length(parser, length);
}

static bool check_expect(http_parser *parser) {
    int count;
    const char *value = only_field(parser, "expect", &count);
    if (count == 0 || parser->http_1_0)
        return true;
    if (count > 1 || strcasecmp(value, "100-continue") != 0)
        return refuse(parser, 417, "an expectation other than 100-continue");
    parser->expects_continue = parser->has_body;
    return true;
}

static void read_connection(http_parser *parser) {
    parser->keep_alive = !parser->http_1_0;
    for (size_t i = 0; i < parser->request.num_headers; i++) {
        const http_header *header = &parser->headers[i];
        if (strcmp(header->name, "connection") == 0 && parser->http_1_0 &&
            http_list_has(header->value, "keep-alive"))
            parser->keep_alive = true;
    }
    for (size_t i = 0; i < parser->request.num_headers; i++) {
        const http_header *header = &parser->headers[i];
        if (strcmp(header->name, "connection") == 0 && http_list_has(header->value, "close"))
            parser->keep_alive = false;
    }
}

/* The text stays where it is from here on: the request points into it. */
static bool settle_head(http_parser *parser) {
    http_request *request = &parser->request;
    size_t room = parser->text_length + 2 + HTTP_MAX_TRAILER;
    char *text = realloc(parser->text, room);
    if (text == NULL)
        return no_memory(parser);
    parser->text = text;
    parser->text_capacity = room;
    parser->headers = malloc((request->num_headers + 1) * sizeof *parser->headers);
    if (parser->headers == NULL)
        return no_memory(parser);
    for (size_t i = 0; i < request->num_headers; i++)
        parser->headers[i] =
            (http_header){text + parser->fields[i].name, text + parser->fields[i].value};
    free(parser->fields);
    parser->fields = NULL;
    request->headers = parser->headers;
    request->method = text;
    return true;
}

static bool end_head(http_parser *parser) {
    if (!settle_head(parser))
        return false;
    http_request *request = &parser->request;
    char *target = parser->text + strlen(request->method) + 1;
    char *authority = NULL, *path = NULL, *query = NULL;
    const char *reason = http_target_split(target, &authority, &path, &query);
    if (reason != NULL)
        return refuse(parser, 400, reason);
    request->path = path;
    request->query = query;
    request->body = "";
    if (!check_host(parser, authority) || !check_framing(parser) || !check_expect(parser))
        return false;
    read_connection(parser);
    parser->head_bytes = 0; /* now of the trailer */
    return true;
}

/* ---- Bodies ---- */

/* Room for `length` bytes more and a NUL. */
static bool grow_body(http_parser *parser, size_t length) {
    if (!grow(&parser->body, &parser->body_capacity, parser->request.length + length + 1,
              FIRST_BODY, parser->max_body + 1))
        return no_memory(parser);
    parser->request.body = parser->body;
    return true;
}

static bool take_body(http_parser *parser, const char *data, size_t length, size_t *used) {
    size_t count = length - *used;
    if (count > parser->left)
        count = (size_t)parser->left;
    if (count == 0)
        return true;
    if (!grow_body(parser, count))
        return false;
    memcpy(parser->body + parser->request.length, data + *used, count);
    parser->request.length += count;
    parser->body[parser->request.length] = '\0';
    parser->left -= count;
    *used += count;
    return true;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool chunk_line(http_parser *parser) {
    const char *line = parser->text + parser->line;
    uint64_t size = 0;
    size_t digits = 0;
    for (; hex_value(line[digits]) >= 0; digits++) {
        if (digits == MAX_SIZE_DIGITS)
            return refuse(parser, 400, "a chunk's size has too many digits");
        size = size * 16 + (uint64_t)hex_value(line[digits]);
    }
    if (digits == 0 || (line[digits] != '\0' && line[digits] != ';'))
        return refuse(parser, 400, "a chunk's size is not a hexadecimal number");
    parser->extension_bytes += strlen(line + digits);
    if (parser->extension_bytes > HTTP_MAX_EXTENSIONS)
        return refuse(parser, 400, "the extensions of chunks are too long");
    if (size > parser->max_body - parser->request.length)
        return refuse(parser, 413, "the body is too long");
    parser->left = size;
    parser->head_bytes = 0;
    drop_line(parser);
    parser->state = size > 0 ? IN_CHUNK : IN_TRAILER;
    return true;
}

static bool after_chunk(http_parser *parser) {
    if (parser->text_length > parser->line)
        return refuse(parser, 400, "a chunk is longer than its size says");
    parser->state = IN_CHUNK_LINE;
    return true;
}

/* ---- One state after the other ---- */

static bool end_request_line(http_parser *parser) {
    if (parser->text_length == parser->line) {
        if (++parser->empty_lines > HTTP_MAX_EMPTY_LINES)
            return refuse(parser, 400, "empty lines instead of a request");
        return true;
    }
    if (!request_line(parser))
        return false;
    keep_line(parser);
    parser->state = IN_FIELDS;
    return true;
}

static bool end_field(http_parser *parser) {
    if (parser->text_length == parser->line) {
        parser->state = AFTER_HEAD;
        return end_head(parser);
    }
    if (!add_field(parser))
        return false;
    keep_line(parser);
    return true;
}

/* Fields after a body are checked and forgotten: nothing here needs one. */
static bool end_trailer(http_parser *parser) {
    size_t name, value;
    if (parser->text_length == parser->line) {
        parser->state = AT_END;
        return true;
    }
    if (!field_line(parser, &name, &value))
        return false;
    drop_line(parser);
    return true;
}

static bool end_line(http_parser *parser) {
    switch (parser->state) {
    case IN_REQUEST_LINE:
        return end_request_line(parser);
    case IN_FIELDS:
        return end_field(parser);
    case IN_CHUNK_LINE:
        return chunk_line(parser);
    case AFTER_CHUNK:
        return after_chunk(parser);
    default:
        return end_trailer(parser);
    }
}

static void enter_body(http_parser *parser) {
    if (parser->chunked)
        parser->state = IN_CHUNK_LINE;
    else
        parser->state = parser->has_body ? IN_BODY : AT_END;
}

/* Takes bytes until the state changes or they are used up. */
static bool advance(http_parser *parser, const char *data, size_t length, size_t *used) {
    bool whole;
    switch (parser->state) {
    case AFTER_HEAD:
        enter_body(parser);
        return true;
    case IN_BODY:
    case IN_CHUNK:
        if (!take_body(parser, data, length, used))
            return false;
        if (parser->left == 0)
            parser->state = parser->state == IN_BODY ? AT_END : AFTER_CHUNK;
        return true;
    default:
        return take_line(parser, data, length, used, &whole) && (!whole || end_line(parser));
    }
}

http_parse_event http_parser_feed(http_parser *parser, const char *data, size_t length,
                                  size_t *used) {
    *used = 0;
    do {
        bool in_head = parser->state == IN_REQUEST_LINE || parser->state == IN_FIELDS;
        if (!advance(parser, data, length, used))
            return HTTP_PARSE_REFUSED;
        if (in_head && parser->state == AFTER_HEAD)
            return HTTP_PARSE_HEAD;
        if (parser->state == AT_END)
            return HTTP_PARSE_DONE;
    } while (*used < length);
    return HTTP_PARSE_MORE;
}
