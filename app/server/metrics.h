/* SPDX-License-Identifier: Apache-2.0 */
/* What is counted, as Prometheus reads it. Any thread may count. */
#ifndef MLN_SERVER_METRICS_H
#define MLN_SERVER_METRICS_H

#include <pthread.h>

#include "myelin/myelin.h"
#include "out.h"

enum { METRICS_BUCKETS = 20, METRICS_MAX_STATUS = 600 };

/* Seconds; counts[i] are those at most bounds[i] and above the one before. */
typedef struct metrics_histogram {
    uint64_t counts[METRICS_BUCKETS + 1];
    double sum;
} metrics_histogram;

typedef struct metrics {
    pthread_mutex_t mutex;
    metrics_histogram first_token; /* from a request's arrival to its first piece */
    metrics_histogram next_token;  /* between tokens */
    metrics_histogram whole;       /* from arrival to the end of the answer */
    uint64_t finished[3];          /* by myelin_finish_reason */
    uint64_t status[METRICS_MAX_STATUS];
    uint64_t embedding_tokens;
} metrics;

void metrics_init(metrics *m);
void metrics_clear(metrics *m);

void metrics_first_token(metrics *m, double seconds);
/* `count` tokens came `seconds` after what was there before. */
void metrics_next_tokens(metrics *m, double seconds, size_t count);
void metrics_finished(metrics *m, double seconds, myelin_finish_reason reason);
void metrics_status(metrics *m, int status);
void metrics_embedding(metrics *m, size_t tokens);

/* stats may be NULL, while there is no model. */
void metrics_text(metrics *m, const myelin_serving_stats *stats, const char *model, out *o);

#endif
