/* SPDX-License-Identifier: Apache-2.0 */
#include "constraints.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KEPT = 32 };

struct constraint_use {
    char *key;
    myelin_constraint *constraint;
    int users;
    bool kept;     /* is in the list */
    uint64_t used; /* when, by the list's clock */
};

struct constraints {
    const myelin_tokenizer *tokenizer;
    pthread_mutex_t mutex;
    constraint_use *kept[MAX_KEPT];
    int count;
    uint64_t clock;
};

constraints *constraints_create(const myelin_tokenizer *tokenizer) {
    constraints *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->tokenizer = tokenizer;
    pthread_mutex_init(&c->mutex, NULL);
    return c;
}

static void free_use(constraint_use *use) {
    if (use == NULL)
        return;
    myelin_constraint_free(use->constraint);
    free(use->key);
    free(use);
}

void constraints_free(constraints *c) {
    if (c == NULL)
        return;
    for (int i = 0; i < c->count; i++)
        free_use(c->kept[i]);
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

const myelin_constraint *constraints_of(const constraint_use *use) {
    return use->constraint;
}

/* All of a key in one string. */
static char *key_text(const constraint_key *key) {
    char *text = NULL;
    if (asprintf(&text, "%d%d%d %zu %s %s", key->tools, key->required, key->parallel,
                 key->name != NULL ? strlen(key->name) + 1 : 0, key->name != NULL ? key->name : "",
                 key->text) < 0)
        return NULL;
    return text;
}

static constraint_use *find(constraints *c, const char *key) {
    for (int i = 0; i < c->count; i++) {
        if (strcmp(c->kept[i]->key, key) == 0)
            return c->kept[i];
    }
    return NULL;
}

/* Takes the place of the one that nobody has asked for longest, when the list is full. */
static void keep(constraints *c, constraint_use *use) {
    int oldest = 0;
    use->kept = true;
    if (c->count < MAX_KEPT) {
        c->kept[c->count++] = use;
        return;
    }
    for (int i = 1; i < MAX_KEPT; i++)
        oldest = c->kept[i]->used < c->kept[oldest]->used ? i : oldest;
    constraint_use *dropped = c->kept[oldest];
    dropped->kept = false;
    c->kept[oldest] = use;
    if (dropped->users == 0)
        free_use(dropped);
}

static constraint_use *take(constraints *c, const char *key) {
    pthread_mutex_lock(&c->mutex);
    constraint_use *use = find(c, key);
    if (use != NULL) {
        use->users++;
        use->used = ++c->clock;
    }
    pthread_mutex_unlock(&c->mutex);
    return use;
}

static myelin_status compile(const constraints *c, const constraint_key *key,
                             myelin_constraint **made, myelin_error *error) {
    size_t length = strlen(key->text);
    if (key->tools)
        return myelin_constraint_from_tools(made, c->tokenizer, key->text, length, key->name,
                                            key->required, key->parallel, error);
    return myelin_constraint_from_schema(made, c->tokenizer, key->text, length, error);
}

myelin_status constraints_get(constraints *c, const constraint_key *key, constraint_use **use,
                              myelin_error *error) {
    char *text = key_text(key);
    *use = text != NULL ? take(c, text) : NULL;
    if (*use != NULL) {
        free(text);
        return MYELIN_OK;
    }
    constraint_use *made = text != NULL ? calloc(1, sizeof *made) : NULL;
    if (made == NULL) {
        free(text);
        *error = (myelin_error){.status = MYELIN_ERROR_MEMORY,
                                .offset = -1,
                                .message = "out of memory for a constraint"};
        return MYELIN_ERROR_MEMORY;
    }
    made->key = text;
    myelin_status status = compile(c, key, &made->constraint, error);
    if (status != MYELIN_OK) {
        free_use(made);
        return status;
    }
    pthread_mutex_lock(&c->mutex);
    made->users = 1;
    made->used = ++c->clock;
    if (find(c, text) == NULL)
        keep(c, made);
    pthread_mutex_unlock(&c->mutex);
    *use = made;
    return MYELIN_OK;
}

void constraints_release(constraints *c, constraint_use *use) {
    if (use == NULL)
        return;
    pthread_mutex_lock(&c->mutex);
    bool last = --use->users == 0 && !use->kept;
    pthread_mutex_unlock(&c->mutex);
    if (last)
        free_use(use);
}
