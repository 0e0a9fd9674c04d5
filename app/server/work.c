/* SPDX-License-Identifier: Apache-2.0 */
#include "work.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_THREADS = 8 };

typedef struct job {
    void (*function)(void *argument);
    void *argument;
} job;

struct work {
    pthread_mutex_t mutex;
    pthread_cond_t more;
    pthread_t threads[MAX_THREADS];
    int num_threads;
    job *jobs; /* a ring of max_waiting, the first at `first` */
    int max_waiting, first, count;
    bool stopping;
};

static void *serve(void *argument) {
    work *w = argument;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        while (w->count == 0 && !w->stopping)
            pthread_cond_wait(&w->more, &w->mutex);
        if (w->count == 0)
            break;
        job next = w->jobs[w->first];
        w->first = (w->first + 1) % w->max_waiting;
        w->count--;
        pthread_mutex_unlock(&w->mutex);
        next.function(next.argument);
        pthread_mutex_lock(&w->mutex);
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

static myelin_status fail(myelin_error *error, const char *what) {
    if (error != NULL) {
        *error = (myelin_error){.status = MYELIN_ERROR_MEMORY, .offset = -1};
        snprintf(error->message, sizeof error->message, "out of memory for %s", what);
    }
    return MYELIN_ERROR_MEMORY;
}

myelin_status work_create(work **made, int threads, int max_waiting, myelin_error *error) {
    *made = NULL;
    work *w = calloc(1, sizeof *w);
    job *jobs = calloc((size_t)max_waiting, sizeof *jobs);
    if (w == NULL || jobs == NULL) {
        free(w);
        free(jobs);
        return fail(error, "a queue of requests");
    }
    w->jobs = jobs;
    w->max_waiting = max_waiting;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->more, NULL);
    for (int i = 0; i < threads && i < MAX_THREADS; i++) {
        if (pthread_create(&w->threads[i], NULL, serve, w) != 0) {
            work_free(w);
            return fail(error, "a thread");
        }
        w->num_threads++;
    }
    *made = w;
    return MYELIN_OK;
}

void work_free(work *w) {
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->mutex);
    w->stopping = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->mutex);
    for (int i = 0; i < w->num_threads; i++)
        pthread_join(w->threads[i], NULL);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->mutex);
    free(w->jobs);
    free(w);
}

bool work_add(work *w, void (*function)(void *argument), void *argument) {
    pthread_mutex_lock(&w->mutex);
    bool room = w->count < w->max_waiting && !w->stopping;
    if (room) {
        w->jobs[(w->first + w->count++) % w->max_waiting] = (job){function, argument};
        pthread_cond_signal(&w->more);
    }
    pthread_mutex_unlock(&w->mutex);
    return room;
}
