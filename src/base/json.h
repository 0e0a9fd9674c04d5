/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ways to read JSON, both strict (RFC 8259): mln_json_load() builds a small document with
 * jansson; mln_json_stream() walks a large one with yajl and holds nothing but the keys of the
 * objects that are open. Beyond yajl's own checks the stream refuses ill-formed UTF-8, unpaired
 * surrogate escapes, duplicate keys and nesting deeper than MLN_JSON_MAX_DEPTH.
 */
#ifndef MLN_BASE_JSON_H
#define MLN_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "myelin/status.h"

enum { MLN_JSON_MAX_DEPTH = 64 };

/* Largest small document (config.json and its like) mln_json_load_file() accepts, in bytes. */
#define MLN_JSON_SMALL_FILE (UINT64_C(16) << 20)

/* Parses a document; *out is a new reference. `file` names it in errors and may be NULL. */
myelin_status mln_json_load(json_t **out, const char *text, size_t length, const char *file,
                            myelin_error *error);
myelin_status mln_json_load_file(json_t **out, const char *path, myelin_error *error);

typedef enum mln_json_kind {
    MLN_JSON_NULL,
    MLN_JSON_FALSE,
    MLN_JSON_TRUE,
    MLN_JSON_NUMBER, /* text: as written */
    MLN_JSON_STRING, /* text: unescaped, may hold NUL */
    MLN_JSON_BEGIN_OBJECT,
    MLN_JSON_END_OBJECT,
    MLN_JSON_BEGIN_ARRAY,
    MLN_JSON_END_ARRAY
} mln_json_kind;

typedef struct mln_json_text {
    const char *data; /* not NUL-terminated; valid during the call */
    size_t length;
} mln_json_text;

/*
 * One value, or the beginning or end of one. `depth` counts the containers around it (0: the
 * document itself; begin and end of a container have the same depth). path[i], i < depth, tells
 * where in the i-th container we are: the key in an object, {NULL, 0} in an array; index[i] is the
 * element's number there.
 */
typedef struct mln_json_event {
    mln_json_kind kind;
    int depth;
    mln_json_text text;
    const mln_json_text *path;
    const uint64_t *index;
    int64_t offset; /* byte in the document, near the end of the value */
} mln_json_event;

/* Returns MYELIN_OK to go on; anything else ends the walk and is what mln_json_stream() returns. */
typedef myelin_status (*mln_json_handler)(void *context, const mln_json_event *event,
                                          myelin_error *error);

myelin_status mln_json_stream(const char *text, size_t length, const char *file,
                              mln_json_handler handler, void *context, myelin_error *error);

/* "an object", "a string", ...: what an event is, for messages. */
const char *mln_json_kind_name(mln_json_kind kind);
const char *mln_json_type_name(const json_t *value);

bool mln_json_text_is(mln_json_text text, const char *literal);

/* A number written as a plain integer (no fraction, no exponent) that fits; else false. */
bool mln_json_integer(mln_json_text text, int64_t *out);

#endif
