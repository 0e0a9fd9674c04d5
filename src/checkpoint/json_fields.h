/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the members of a JSON object with their types and ranges checked. */
#ifndef MLN_CHECKPOINT_JSON_FIELDS_H
#define MLN_CHECKPOINT_JSON_FIELDS_H

#include <stdbool.h>

#include "base/json.h"
#include "myelin/status.h"

/* An object and how to name it in messages. */
typedef struct mln_fields {
    const json_t *object;
    const char *file;
    const char *section; /* "rope_scaling." before each key, or "" */
    myelin_error *error;
} mln_fields;

typedef enum mln_presence {
    MLN_FIELD_REQUIRED,
    MLN_FIELD_OPTIONAL, /* may be absent */
    MLN_FIELD_NULLABLE  /* may be absent or null */
} mln_presence;

/* low to high, both allowed; `above_low`: low itself is not. */
typedef struct mln_range {
    double low, high;
    bool above_low;
} mln_range;

enum { MLN_VALUE_TEXT = 96 };

/* What a value is, for messages: `-3`, `"gelu"`, `an array`, `nothing`. Returns `text`. */
const char *mln_json_describe(const json_t *value, char text[MLN_VALUE_TEXT]);

/* `KEY: expected EXPECTED, found ...` with the key's value. Returns status. */
myelin_status mln_field_fail(const mln_fields *fields, myelin_status status, const char *key,
                             const char *expected);

/* The member, or NULL when it is absent or null. */
json_t *mln_field_get(const mln_fields *fields, const char *key);

/* Each leaves *value as it was when the member is absent (or null, where that is allowed). */
myelin_status mln_field_int32(const mln_fields *fields, const char *key, mln_presence presence,
                              int32_t low, int32_t high, int32_t *value);
myelin_status mln_field_number(const mln_fields *fields, const char *key, mln_presence presence,
                               mln_range range, double *value);
myelin_status mln_field_bool(const mln_fields *fields, const char *key, mln_presence presence,
                             bool *value);
/* *value lives as long as the object. */
myelin_status mln_field_string(const mln_fields *fields, const char *key, mln_presence presence,
                               const char **value);

/* Token ids: one, a list of at most `room`, or null. Ids are 0 .. INT32_MAX. */
myelin_status mln_field_ids(const mln_fields *fields, const char *key, int32_t *ids, int32_t room,
                            int32_t *count);

#endif
