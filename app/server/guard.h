/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands before the routes: who may ask (API keys), from where (Host and Origin), and which
 * pages of other origins may read the answers (CORS).
 */
#ifndef MLN_SERVER_GUARD_H
#define MLN_SERVER_GUARD_H

#include "http.h"

enum {
    GUARD_MAX_KEY = 256,   /* bytes of a key */
    GUARD_MAX_KEYS = 4096, /* in a file */
    GUARD_MAX_FILE = 1 << 21
};

typedef struct guard guard;

/* Strings are borrowed for as long as the guard lives. */
typedef struct guard_options {
    const char *key_file; /* one key a line, "#" begins a comment; NULL: no key is asked for */
    const char *const *origins; /* "https://chat.example", or "*": pages that may use the API */
    size_t num_origins;
    const char *const *hosts; /* names besides localhost that a loopback server answers to */
    size_t num_hosts;
    bool loopback;     /* only this machine can reach it: Host and Origin are checked */
    bool open_metrics; /* /metrics needs no key */
} guard_options;

/* MYELIN_ERROR_FORMAT when the file holds no key, or something that is none. */
myelin_status guard_create(guard **made, const guard_options *options, myelin_error *error);
void guard_free(guard *g); /* accepts NULL */
/* Reads the keys anew; after a failure those before count on. On the loop's thread. */
myelin_status guard_reload(guard *g, myelin_error *error);

/*
 * An http_handler for http_options.admit; user is the guard. Answers what may not pass, and
 * preflights of CORS. /health, / and what belongs to the page need no key.
 */
void guard_admit(void *user, http_exchange *exchange, const http_request *request);

#endif
