/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compiled constraints, kept for requests that ask for the same again: a client's schema rarely
 * changes from request to request, and compiling one walks the whole vocabulary.
 */
#ifndef MLN_SERVER_CONSTRAINTS_H
#define MLN_SERVER_CONSTRAINTS_H

#include "myelin/myelin.h"

typedef struct constraints constraints;
typedef struct constraint_use constraint_use;

/* What is asked for. */
typedef struct constraint_key {
    const char *text; /* a schema, or with `tools` the array of tools */
    bool tools, required, parallel;
    const char *name; /* of the one tool, or NULL */
} constraint_key;

/* NULL when memory is short. */
constraints *constraints_create(const myelin_tokenizer *tokenizer);
void constraints_free(constraints *c); /* nothing is in use; accepts NULL */

/* From any thread; *use is given back with constraints_release(). */
myelin_status constraints_get(constraints *c, const constraint_key *key, constraint_use **use,
                              myelin_error *error);
const myelin_constraint *constraints_of(const constraint_use *use);
void constraints_release(constraints *c, constraint_use *use); /* accepts NULL */

#endif
