/* SPDX-License-Identifier: Apache-2.0 */
#include "http_target.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "http_parse.h"

static const char alphanumeric[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

static bool one_of(char c, const char *set) {
    return c != '\0' && (strchr(alphanumeric, c) != NULL || strchr(set, c) != NULL);
}

size_t http_token_length(const char *text) {
    size_t length = 0;
    while (one_of(text[length], "!#$%&'*+-.^_`|~"))
        length++;
    return length;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* ---- Hosts ---- */

static bool valid_port(const char *text, size_t length) {
    enum { MAX_DIGITS = 5, MAX_PORT = 65535 };
    uint32_t port = 0;
    if (length == 0 || length > MAX_DIGITS)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        port = port * 10 + (uint32_t)(text[i] - '0');
    }
    return port <= MAX_PORT;
}

bool http_valid_host(const char *text, size_t length) {
    size_t host = 0;
    if (length > 0 && text[0] == '[') {
        for (host = 1; host < length &&
                       (hex_digit(text[host]) >= 0 || text[host] == ':' || text[host] == '.');
             host++) {
        }
        if (host < 3 || host == length || text[host] != ']')
            return false;
        host++;
    } else {
        while (host < length && one_of(text[host], "-._"))
            host++;
    }
    if (host == 0)
        return false;
    return host == length || (text[host] == ':' && valid_port(text + host + 1, length - host - 1));
}

/* ---- Targets ---- */

/* Path and query: the characters of RFC 3986, every escape whole. */
static const char *check_characters(const char *text) {
    bool query = false;
    for (; *text != '\0'; text++) {
        if (*text == '%') {
            if (hex_digit(text[1]) < 0 || hex_digit(text[2]) < 0)
                return "a percent escape that is not two hexadecimal digits";
            text += 2;
        } else if (*text == '?' && !query) {
            query = true;
        } else if (!one_of(*text, "-._~!$&'()*+,;=:@/?")) {
            return "a character that must not stand in a request's target";
        }
    }
    return NULL;
}

/* Bytes of "http://" or "https://" at the beginning of a target, or 0. */
static size_t scheme_length(const char *target) {
    if (strncasecmp(target, "http://", 7) == 0)
        return 7;
    return strncasecmp(target, "https://", 8) == 0 ? 8 : 0;
}

const char *http_target_check(const char *method, const char *target) {
    if (*target == '/')
        return check_characters(target);
    if (strcmp(target, "*") == 0)
        return strcmp(method, "OPTIONS") == 0 ? NULL : "the target * of a method not OPTIONS";
    size_t scheme = scheme_length(target);
    if (scheme == 0)
        return "the request's target is neither a path nor a URL";
    size_t authority = strcspn(target + scheme, "/?");
    if (!http_valid_host(target + scheme, authority))
        return "the URL of the request has no valid host";
    return check_characters(target + scheme + authority);
}

/* In place: it only becomes shorter. */
static const char *decode(char *path) {
    char *out = path;
    for (const char *in = path; *in != '\0'; in++) {
        int byte = (unsigned char)*in;
        if (*in == '%') {
            byte = hex_digit(in[1]) * 16 + hex_digit(in[2]);
            in += 2;
        }
        if (byte < 0x20 || byte == 0x7f)
            return "a control character in the path";
        *out++ = (char)byte;
    }
    *out = '\0';
    return NULL;
}

const char *http_target_split(char *target, char **authority, char **path, char **query) {
    size_t scheme = scheme_length(target);
    *authority = NULL;
    *path = target;
    if (*target != '/' && scheme > 0) {
        /* One byte forward over "//": what ends the host may be the path's first. */
        size_t length = strcspn(target + scheme, "/?");
        *authority = memmove(target, target + scheme, length);
        *path = target + scheme + length;
        target[length] = '\0';
        if (**path != '/')
            *--*path = '/';
    }
    char *mark = strchr(*path, '?');
    *query = *path + strlen(*path);
    if (mark != NULL) {
        *mark = '\0';
        *query = mark + 1;
    }
    return decode(*path);
}
