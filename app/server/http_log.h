/* SPDX-License-Identifier: Apache-2.0 */
/* One line of the access log: a JSON object, whatever a client put into its request. */
#ifndef MLN_SERVER_HTTP_LOG_H
#define MLN_SERVER_HTTP_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef struct http_log_entry {
    struct timespec time; /* of the end, UTC */
    const char *peer;
    const char *method; /* NULL: not known */
    const char *path;   /* NULL: not known */
    int status;         /* 499: the client was gone before there was one */
    uint64_t bytes;     /* of the answer's body */
    double milliseconds;
    bool complete;     /* the answer was given to its end */
    const char *label; /* NULL: none */
} http_log_entry;

/*
 * The line without its end, released with free(); NULL when memory is short. Control characters
 * (C0, DEL and C1) are escaped, bytes that are no UTF-8 become U+FFFD.
 */
char *http_log_line(const http_log_entry *entry);

#endif
