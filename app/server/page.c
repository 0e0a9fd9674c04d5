// SPDX-License-Identifier: Apache-2.0
#include "page.h"

#include <stdbool.h>
#include <string.h>

#include "api_error.h"
#include "page_assets.h"

/* Everything the page loads is its own; nothing is asked of another origin, and no other origin
   may frame it. data: is for the pictures that the style sheet draws. */
static const char content_security_policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static const page_asset *find_asset(const char *path) {
    for (size_t i = 0; i < page_num_assets; i++) {
        if (strcmp(page_assets[i].path, path) == 0) {
            return &page_assets[i];
        }
    }
    return NULL;
}

/* Whether If-None-Match (RFC 9110, 13.1.2: a list of tags, or "*") names the tag. The comparison is
   the weak one; no tag of ours holds a comma or a quote. */
static bool names_etag(const char *list, const char *etag) {
    size_t length = strlen(etag);
    while (*list != '\0') {
        list += strspn(list, " \t,");
        if (strncmp(list, "W/", 2) == 0) {
            list += 2;
        }
        size_t item = strcspn(list, " \t,");
        if ((item == length && memcmp(list, etag, length) == 0) || (item == 1 && *list == '*')) {
            return true;
        }
        list += item;
    }
    return false;
}

int page_handle(http_exchange *exchange, const http_request *request) {
    const page_asset *asset = find_asset(request->path);
    if (asset == NULL) {
        return 0;
    }
    if (strcmp(request->method, "GET") != 0 && strcmp(request->method, "HEAD") != 0) {
        http_exchange_add_header(exchange, "Allow", "GET, HEAD");
        api_error_respond(exchange, 405, NULL, "method_not_allowed", "%s takes GET, not %.20s",
                          asset->path, request->method);
        return 405;
    }
    /* no-cache: kept, and asked about before each use, so that a new program shows its own page */
    const http_header headers[] = {
        {"ETag", asset->etag},
        {"Cache-Control", "no-cache"},
        {"Content-Security-Policy", content_security_policy},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
    };
    size_t num_headers = sizeof headers / sizeof *headers;
    const char *known = http_request_header(request, "if-none-match");
    if (known != NULL && names_etag(known, asset->etag)) {
        http_respond(exchange, 304, asset->content_type, headers, num_headers, "", 0);
        return 304;
    }
    http_respond(exchange, 200, asset->content_type, headers, num_headers,
                 (const char *)asset->data, asset->length);
    return 200;
}
