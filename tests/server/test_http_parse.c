/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of requests: each case whole, byte by byte, and cut in two at every point. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/server/http_parse.h"

enum { MAX_BODY = 100, EVENTS = 8 };

typedef struct accepted {
    const char *text;
    const char *method, *path, *query, *body;
    bool keep_alive, expects_continue;
    size_t left; /* bytes behind the request */
} accepted;

#define HOST "Host: a\r\n"
#define END  "\r\n"

static const accepted good[] = {
    {"GET / HTTP/1.1\r\n" HOST END, "GET", "/", "", "", true, false, 0},
    {"\r\n\r\nGET / HTTP/1.1\r\n" HOST END, "GET", "/", "", "", true, false, 0},
    {"GET /a%20b/%2fc?x=%41&y HTTP/1.1\r\n" HOST END, "GET", "/a b//c", "x=%41&y", "", true, false,
     0},
    {"GET /%c3%a4? HTTP/1.1\r\nHost:\tb.example:80 \t\r\n" END, "GET", "/\xc3\xa4", "", "", true,
     false, 0},
    {"GET /?a?b/c HTTP/1.1\r\nHost: [::1]:8080\r\n" END, "GET", "/", "a?b/c", "", true, false, 0},
    {"GET http://a/x?y HTTP/1.1\r\n" HOST END, "GET", "/x", "y", "", true, false, 0},
    {"GET HTTP://A HTTP/1.1\r\n" HOST END, "GET", "/", "", "", true, false, 0},
    {"GET https://a?q HTTP/1.1\r\n" HOST END, "GET", "/", "q", "", true, false, 0},
    {"OPTIONS * HTTP/1.1\r\n" HOST END, "OPTIONS", "*", "", "", true, false, 0},
    {"GET / HTTP/1.0\r\n" END, "GET", "/", "", "", false, false, 0},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n" END, "GET", "/", "", "", true, false, 0},
    {"GET / HTTP/1.1\r\n" HOST "Connection: x, Close \r\n" END, "GET", "/", "", "", false, false,
     0},
    {"GET / HTTP/1.1\r\n" HOST "Connection: closed\r\n" END, "GET", "/", "", "", true, false, 0},
    {"POST /e HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello", "POST", "/e", "", "hello", true,
     false, 0},
    {"POST /e HTTP/1.1\r\n" HOST "Content-Length: 0\r\n" END, "POST", "/e", "", "", true, false, 0},
    {"POST /e HTTP/1.1\r\n" HOST "Content-Length: 005\r\n\r\nhelloGET /", "POST", "/e", "", "hello",
     true, false, 5},
    {"POST /e HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n.", "POST", "/e",
     "", ".", true, true, 0},
    {"GET /e HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n" END, "GET", "/e", "", "", true, false,
     0},
    {"POST /e HTTP/1.0\r\nExpect: everything\r\nContent-Length: 1\r\n\r\n.", "POST", "/e", "", ".",
     false, false, 0},
    {"POST /e HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
     "5\r\nhello\r\n1;a=b;c=\"d e\"\r\n!\r\n0\r\n\r\n",
     "POST", "/e", "", "hello!", true, false, 0},
    {"POST /e HTTP/1.1\r\n" HOST "Transfer-Encoding: CHUNKED\r\n\r\n"
     "A\r\n0123456789\r\n000\r\nX: y\r\nZ:\r\n\r\nGET",
     "POST", "/e", "", "0123456789", true, false, 3},
    {"POST /e HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST", "/e", "",
     "", true, false, 0},
    {"M-SEARCH /e HTTP/1.1\r\n" HOST "X: \xff\t\xe4\r\nY:\r\n" END, "M-SEARCH", "/e", "", "", true,
     false, 0},
};

typedef struct refused {
    const char *text;
    int status;
} refused;

#define GET     "GET / HTTP/1.1\r\n"
#define POST    "POST / HTTP/1.1\r\n" HOST
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

static const refused bad[] = {
    /* framing that two readers could see differently */
    {POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400},
    {POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
    {POST "Content-Length: 5\r\ncontent-length: 6\r\n\r\n", 400},
    {POST "Content-Length: 5, 5\r\n\r\n", 400},
    {POST "Content-Length: +4\r\n\r\n", 400},
    {POST "Content-Length: -4\r\n\r\n", 400},
    {POST "Content-Length: 0x4\r\n\r\n", 400},
    {POST "Content-Length: 4 4\r\n\r\n", 400},
    {POST "Content-Length: 4.0\r\n\r\n", 400},
    {POST "Content-Length: \r\n\r\n", 400},
    {POST "Content-Length: 101\r\n\r\n", 413},
    {POST "Content-Length: 1073741824\r\n\r\n", 413},
    {POST "Content-Length: 18446744073709551617\r\n\r\n", 413},
    {POST "Content-Length: 99999999999999999999999999999999999999999\r\n\r\n", 413},
    {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    {POST "Transfer-Encoding: chunked, chunked\r\n\r\n", 400},
    {POST "Transfer-Encoding: chunked, identity\r\n\r\n", 400},
    {POST "Transfer-Encoding: identity\r\n\r\n", 400},
    {POST "Transfer-Encoding: xchunked\r\n\r\n", 400},
    {POST "Transfer-Encoding: chunked;q=1\r\n\r\n", 400},
    {POST "Transfer-Encoding: ,chunked\r\n\r\n", 400},
    {POST "Transfer-Encoding: \"chunked\"\r\n\r\n", 400},
    {POST "Transfer-Encoding: \r\n\r\n", 400},
    {POST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    /* chunks */
    {CHUNKED "\r\n", 400},
    {CHUNKED "g\r\n", 400},
    {CHUNKED "-1\r\n", 400},
    {CHUNKED "+1\r\n", 400},
    {CHUNKED " 1\r\n", 400},
    {CHUNKED "1 \r\n", 400},
    {CHUNKED "0x1\r\n", 400},
    {CHUNKED "1\n", 400},
    {CHUNKED "1\rx", 400},
    {CHUNKED "1;\x01\r\n", 400},
    {CHUNKED "1\r\nab", 400},
    {CHUNKED "1\r\na\n", 400},
    {CHUNKED "1\r\na\r\r", 400},
    {CHUNKED "ffffffffffffffff\r\n", 400},
    {CHUNKED "10000000000000001\r\n", 400},
    {CHUNKED "fffffffffffffff\r\n", 413},
    {CHUNKED "65\r\n", 413},
    {CHUNKED "1\r\na\r\n64\r\n", 413},
    {CHUNKED "0\r\n X: y\r\n", 400},
    {CHUNKED "0\r\nX : y\r\n", 400},
    {CHUNKED "0\r\nX\r\n", 400},
    /* fields */
    {GET HOST " folded: yes\r\n\r\n", 400},
    {GET "Host: a\r\n\tfolded\r\n\r\n", 400},
    {GET " Host: a\r\n\r\n", 400},
    {GET HOST "X : y\r\n\r\n", 400},
    {GET HOST "X\t: y\r\n\r\n", 400},
    {GET HOST ": y\r\n\r\n", 400},
    {GET HOST "X\r\n\r\n", 400},
    {GET HOST "X y: z\r\n\r\n", 400},
    {GET HOST "X(y): z\r\n\r\n", 400},
    {GET HOST "\xc3\xa4: z\r\n\r\n", 400},
    {GET HOST "X: a\x01z\r\n\r\n", 400},
    {GET HOST "X: a\x7fz\r\n\r\n", 400},
    {GET HOST "X: a\rz\r\n\r\n", 400},
    {GET HOST "X: a\nY: b\r\n\r\n", 400},
    {GET HOST "X: a\r\n\n", 400},
    {GET HOST "\r\r", 400},
    {GET "\r\n", 400},
    {GET HOST HOST "\r\n", 400},
    {"GET / HTTP/1.0\r\n" HOST HOST "\r\n", 400},
    {GET "Host:\r\n\r\n", 400},
    {GET "Host: a b\r\n\r\n", 400},
    {GET "Host: a,b\r\n\r\n", 400},
    {GET "Host: u@a\r\n\r\n", 400},
    {GET "Host: a/\r\n\r\n", 400},
    {GET "Host: a:\r\n\r\n", 400},
    {GET "Host: a:80x\r\n\r\n", 400},
    {GET "Host: a:65536\r\n\r\n", 400},
    {GET "Host: [::1\r\n\r\n", 400},
    {GET "Host: [::1]x\r\n\r\n", 400},
    {GET "Host: :80\r\n\r\n", 400},
    {POST "Expect: 200-maybe\r\nContent-Length: 1\r\n\r\n", 417},
    {POST "Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", 417},
    /* request lines */
    {"GET  / HTTP/1.1\r\n", 400},
    {"GET /  HTTP/1.1\r\n", 400},
    {"GET / HTTP/1.1 \r\n", 400},
    {" GET / HTTP/1.1\r\n", 400},
    {"GET\t/\tHTTP/1.1\r\n", 400},
    {"GET / HTTP/1.1\n", 400},
    {"GET / HTTP/1.1\r\r\n", 400},
    {"GET /\r\n", 400},
    {"GET / http/1.1\r\n", 400},
    {"GET / HTTP/1.10\r\n", 400},
    {"GET / HTTP/11\r\n", 400},
    {"GET / HTTPS/1.1\r\n", 400},
    {"GET / HTTP/1.2\r\n", 505},
    {"GET / HTTP/0.9\r\n", 505},
    {"GET / HTTP/2.0\r\n", 505},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
    {"G@T / HTTP/1.1\r\n", 400},
    {"G\xc3T / HTTP/1.1\r\n", 400},
    {"\x16\x03\x01\x02", 400},
    {"ABCDEFGHIJKLMNOPQRSTUVWXYZ / HTTP/1.1\r\n", 501},
    {"CONNECT a:443 HTTP/1.1\r\n", 501},
    {"CONNECT /a HTTP/1.1\r\n", 400},
    {"CONNECT a HTTP/1.1\r\n", 400},
    {"GET * HTTP/1.1\r\n", 400},
    {"GET a HTTP/1.1\r\n", 400},
    {"GET a:80 HTTP/1.1\r\n", 400},
    {"GET ftp://a/ HTTP/1.1\r\n", 400},
    {"GET http:///x HTTP/1.1\r\n", 400},
    {"GET http://u:p@a/x HTTP/1.1\r\n", 400},
    {"GET http://a:x/ HTTP/1.1\r\n", 400},
    {"GET http://b/ HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /%zz HTTP/1.1\r\n", 400},
    {"GET /%4 HTTP/1.1\r\n", 400},
    {"GET /% HTTP/1.1\r\n", 400},
    {"GET /?%4g HTTP/1.1\r\n", 400},
    {"GET /%00 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /a%0d%0ab HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /a#b HTTP/1.1\r\n", 400},
    {"GET /a\\b HTTP/1.1\r\n", 400},
    {"GET /\"a HTTP/1.1\r\n", 400},
    {"GET /\xc3\xa4 HTTP/1.1\r\n", 400},
    {"\r\n\r\n\r\nGET / HTTP/1.1\r\n", 400},
    {"\n", 400},
};

/* What a parser gave for bytes cut at `cut`, or after each byte when it is SIZE_MAX. */
typedef struct outcome {
    http_parse_event events[EVENTS]; /* MORE left out */
    int num_events;
    size_t used;
} outcome;

static bool feed_piece(http_parser *parser, const char *text, size_t length, outcome *o) {
    size_t at = 0, used;
    for (;;) {
        /* A copy of just these bytes, so that a sanitizer sees a read beyond them. */
        char *piece = malloc(length - at + (length == at));
        assert_non_null(piece);
        memcpy(piece, text + at, length - at);
        http_parse_event event = http_parser_feed(parser, piece, length - at, &used);
        free(piece);
        assert_true(used <= length - at);
        at += used;
        o->used += used;
        if (event == HTTP_PARSE_MORE) {
            assert_int_equal(at, length);
            return true;
        }
        assert_true(o->num_events < EVENTS);
        o->events[o->num_events++] = event;
        if (event != HTTP_PARSE_HEAD)
            return false;
    }
}

static void parse(http_parser *parser, const char *text, size_t length, size_t cut, outcome *o) {
    http_parser_init(parser, MAX_BODY);
    memset(o, 0, sizeof *o);
    if (cut == SIZE_MAX) {
        for (size_t i = 0; i < length && feed_piece(parser, text + i, 1, o); i++) {
        }
    } else if (feed_piece(parser, text, cut, o)) {
        feed_piece(parser, text + cut, length - cut, o);
    }
}

static void check_good(const accepted *expected, size_t cut) {
    http_parser parser;
    outcome o;
    parse(&parser, expected->text, strlen(expected->text), cut, &o);
    if (o.num_events != 2 || o.events[0] != HTTP_PARSE_HEAD || o.events[1] != HTTP_PARSE_DONE)
        fail_msg("cut %zu: %d %s: %s", cut, parser.status,
                 parser.reason != NULL ? parser.reason : "not whole", expected->text);
    assert_string_equal(parser.request.method, expected->method);
    assert_string_equal(parser.request.path, expected->path);
    assert_string_equal(parser.request.query, expected->query);
    assert_string_equal(parser.request.body, expected->body);
    assert_int_equal(parser.request.length, strlen(expected->body));
    assert_int_equal(parser.keep_alive, expected->keep_alive);
    assert_int_equal(parser.expects_continue, expected->expects_continue);
    assert_int_equal(o.used, strlen(expected->text) - expected->left);
    http_parser_clear(&parser);
}

static void test_accepted(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        for (size_t cut = 0; cut <= strlen(good[i].text); cut++)
            check_good(&good[i], cut);
        check_good(&good[i], SIZE_MAX);
    }
}

static void check_bad(const char *text, size_t length, int status, size_t cut) {
    http_parser parser;
    outcome o;
    parse(&parser, text, length, cut, &o);
    if (o.num_events == 0 || o.events[o.num_events - 1] != HTTP_PARSE_REFUSED)
        fail_msg("cut %zu: not refused: %s", cut, text);
    if (parser.status != status)
        fail_msg("cut %zu: %d %s, expected %d: %s", cut, parser.status, parser.reason, status,
                 text);
    assert_non_null(parser.reason);
    http_parser_clear(&parser);
}

static void test_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t length = strlen(bad[i].text);
        for (size_t cut = 0; cut <= length; cut++)
            check_bad(bad[i].text, length, bad[i].status, cut);
        check_bad(bad[i].text, length, bad[i].status, SIZE_MAX);
    }
}

/* A NUL cannot stand in the table: one at each place of a request. */
static void test_nul_anywhere_in_the_head(void **state) {
    (void)state;
    static const char text[] = "GET /path HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    for (size_t i = 0; i < sizeof text - 1; i++) {
        char changed[sizeof text];
        memcpy(changed, text, sizeof text);
        changed[i] = '\0';
        check_bad(changed, sizeof text - 1, 400, sizeof text - 1);
    }
}

static void test_a_body_may_hold_anything(void **state) {
    (void)state;
    char text[400];
    int head = snprintf(text, sizeof text, POST "Content-Length: 100\r\n\r\n");
    for (int i = 0; i < 100; i++)
        text[head + i] = (char)(i * 37);
    http_parser parser;
    outcome o;
    parse(&parser, text, (size_t)head + 100, SIZE_MAX, &o);
    assert_int_equal(o.events[1], HTTP_PARSE_DONE);
    assert_memory_equal(parser.request.body, text + head, 100);
    assert_int_equal(parser.request.body[100], 0);
    http_parser_clear(&parser);
}

/* A request with `count` times `piece` after `head`, then `tail`. */
static char *repeated(const char *head, const char *piece, size_t count, const char *tail) {
    size_t length = strlen(piece);
    char *text = malloc(strlen(head) + count * length + strlen(tail) + 1);
    assert_non_null(text);
    char *at = stpcpy(text, head);
    for (size_t i = 0; i < count; i++)
        at = stpcpy(at, piece);
    strcpy(at, tail);
    return text;
}

static void check_limit(const char *head, const char *piece, size_t most, const char *tail,
                        int status) {
    http_parser parser;
    outcome o;
    char *text = repeated(head, piece, most, tail);
    parse(&parser, text, strlen(text), strlen(text), &o);
    if (o.num_events < 2 || o.events[1] != HTTP_PARSE_DONE)
        fail_msg("%zu times \"%s\": %d %s", most, piece, parser.status, parser.reason);
    http_parser_clear(&parser);
    free(text);
    text = repeated(head, piece, most + 1, tail);
    check_bad(text, strlen(text), status, strlen(text));
    check_bad(text, strlen(text), status, SIZE_MAX);
    free(text);
    /* It is refused without being whole. */
    text = repeated(head, piece, 100000, "");
    check_bad(text, strlen(text), status, strlen(text));
    free(text);
}

static void test_limits(void **state) {
    (void)state;
    size_t around = strlen("GET / HTTP/1.1\r\n");
    check_limit("GET /", "a", HTTP_MAX_REQUEST_LINE - around, " HTTP/1.1\r\n" HOST END, 414);
    size_t head = strlen(GET HOST "X: \r\n\r\n");
    check_limit(GET HOST "X: ", "a", HTTP_MAX_HEAD - head, "\r\n\r\n", 431);
    check_limit(GET HOST, "X: y\r\n", HTTP_MAX_FIELDS - 1, END, 431);
    check_limit(CHUNKED "1;", "a", HTTP_MAX_CHUNK_LINE - 4, "\r\n.\r\n0\r\n\r\n", 400);
    check_limit(CHUNKED "0\r\n", "X: 345678\r\n", (HTTP_MAX_TRAILER - 2) / 11, END, 431);
    check_limit(CHUNKED, "1\r\n.\r\n", MAX_BODY, "0\r\n\r\n", 413);
    /* 43 chunks with 94 bytes of extension stay under the limit, 44 do not. */
    char chunk[128];
    snprintf(chunk, sizeof chunk, "1;%093d\r\n.\r\n", 0);
    check_limit(CHUNKED, chunk, HTTP_MAX_EXTENSIONS / 94, "0\r\n\r\n", 400);
}

static void test_lists(void **state) {
    (void)state;
    assert_true(http_list_has("close", "close"));
    assert_true(http_list_has(" , ,a , CLOSE\t,b", "close"));
    assert_false(http_list_has("closed, clos", "close"));
    assert_false(http_list_has("", "close"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_nul_anywhere_in_the_head),
        cmocka_unit_test(test_a_body_may_hold_anything),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
