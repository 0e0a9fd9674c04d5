/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few threads for what takes longer than the loop may wait: parsing and tokenizing a large body,
 * embeddings. Jobs begin in the order they came.
 */
#ifndef MLN_SERVER_WORK_H
#define MLN_SERVER_WORK_H

#include <stdbool.h>

#include "myelin/myelin.h"

typedef struct work work;

myelin_status work_create(work **made, int threads, int max_waiting, myelin_error *error);
/* Waits for what runs and waits. Accepts NULL. */
void work_free(work *w);
/* False when too much waits already. */
bool work_add(work *w, void (*function)(void *argument), void *argument);

#endif
