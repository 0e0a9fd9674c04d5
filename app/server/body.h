/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON body of a request, from anybody, and its members. What is wrong is a problem: the status
 * to answer with, which member, and what was expected and found.
 */
#ifndef MLN_SERVER_BODY_H
#define MLN_SERVER_BODY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "myelin/myelin.h"

enum {
    BODY_MAX_DEPTH = 128,      /* of nested arrays and objects */
    BODY_MAX_VALUES = 1 << 20, /* of all values; each takes memory of its own */
    BODY_PATH_SIZE = 160,
};

typedef struct problem {
    int status;                 /* HTTP; 0: none */
    const char *code;           /* static, or NULL */
    char param[BODY_PATH_SIZE]; /* "messages[0].role"; "": none */
    char message[1024];
} problem;

/* Describes it and returns false. param and code may be NULL. */
bool problem_set(problem *p, int status, const char *param, const char *code, const char *format,
                 ...) MYELIN_PRINTF(5, 6);

/* Parses a body, which must be an object. NULL, with the problem, when it is none. */
json_t *body_parse(const char *text, size_t length, problem *p);
/* Whether text is within the limits above, so that a parser may be given it. */
bool body_is_shallow(const char *text, size_t length, problem *p);

/* "AT.NAME", or NAME when `at` is "". */
void body_path(char path[BODY_PATH_SIZE], const char *at, const char *name);
/* "AT[INDEX]". */
void body_path_index(char path[BODY_PATH_SIZE], const char *at, size_t index);

/* A 400: expected so and so, found this. Returns false. */
bool body_unexpected(problem *p, const char *path, const char *expected, const json_t *found);

/*
 * Members of an object that stands at `at` in the body. One that is absent or null leaves *value as
 * it was; one of the wrong kind or out of range is a problem, and false.
 */
bool body_bool(const json_t *object, const char *at, const char *name, bool *value, problem *p);
bool body_int(const json_t *object, const char *at, const char *name, int64_t min, int64_t max,
              int64_t *value, problem *p);
bool body_real(const json_t *object, const char *at, const char *name, double min, double max,
               double *value, problem *p);
/* Borrowed from the object; `length` (may be NULL) counts NULs inside, which else are refused. */
bool body_string(const json_t *object, const char *at, const char *name, const char **value,
                 size_t *length, problem *p);
bool body_object(const json_t *object, const char *at, const char *name, const json_t **value,
                 problem *p);
bool body_array(const json_t *object, const char *at, const char *name, const json_t **value,
                problem *p);

/* An array of token ids below `size`, allocated; at most `most`. */
bool body_ids(const json_t *array, const char *at, int32_t size, size_t most, int32_t **ids,
              size_t *count, problem *p);

#endif
