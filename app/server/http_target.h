/* SPDX-License-Identifier: Apache-2.0 */
/* The target of a request, and other small grammars of RFC 3986 and RFC 9110. */
#ifndef MLN_SERVER_HTTP_TARGET_H
#define MLN_SERVER_HTTP_TARGET_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes at the beginning of text that may stand in a token (a method, a field's name). */
size_t http_token_length(const char *text);

/*
 * What is wrong with the target of a method other than CONNECT, or NULL: a path ("/v1/models?x=1"),
 * a URL ("http://host/path"), or "*" of OPTIONS.
 */
const char *http_target_check(const char *method, const char *target);

/*
 * Takes apart, in place, a target that was checked: *authority of a URL, or NULL; *path, decoded;
 * *query, as it is, "" when there is none. What is wrong with a decoded path, or NULL.
 */
const char *http_target_split(char *target, char **authority, char **path, char **query);

#endif
