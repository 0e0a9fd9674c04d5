/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include <stdio.h>
#include <string.h>

/* Seconds: fine where a token or a cached prompt falls, coarse where a long one does. */
static const double bounds[METRICS_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04,
                                               0.06,  0.08,   0.1,   0.15, 0.25, 0.5,  1,
                                               2.5,   5,      10,    30,   60,   120};

void metrics_init(metrics *m) {
    memset(m, 0, sizeof *m);
    pthread_mutex_init(&m->mutex, NULL);
}

void metrics_clear(metrics *m) {
    pthread_mutex_destroy(&m->mutex);
}

static void observe(metrics_histogram *h, double seconds, uint64_t count) {
    int i = 0;
    while (i < METRICS_BUCKETS && seconds > bounds[i])
        i++;
    h->counts[i] += count;
    h->sum += seconds * (double)count;
}

void metrics_first_token(metrics *m, double seconds) {
    pthread_mutex_lock(&m->mutex);
    observe(&m->first_token, seconds, 1);
    pthread_mutex_unlock(&m->mutex);
}

void metrics_next_tokens(metrics *m, double seconds, size_t count) {
    if (count == 0)
        return;
    pthread_mutex_lock(&m->mutex);
    observe(&m->next_token, seconds / (double)count, count);
    pthread_mutex_unlock(&m->mutex);
}

void metrics_finished(metrics *m, double seconds, myelin_finish_reason reason) {
    pthread_mutex_lock(&m->mutex);
    observe(&m->whole, seconds, 1);
    m->finished[reason]++;
    pthread_mutex_unlock(&m->mutex);
}

void metrics_status(metrics *m, int status) {
    if (status < 0 || status >= METRICS_MAX_STATUS)
        return;
    pthread_mutex_lock(&m->mutex);
    m->status[status]++;
    pthread_mutex_unlock(&m->mutex);
}

void metrics_embedding(metrics *m, size_t tokens) {
    pthread_mutex_lock(&m->mutex);
    m->embedding_tokens += tokens;
    pthread_mutex_unlock(&m->mutex);
}

/* What all samples of one text share. */
typedef struct page {
    out *o;
    const char *model;
} page;

static void head(const page *p, const char *name, const char *type, const char *help) {
    out_format(p->o, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* NAME{model_name="...",LABELS} without the value; `labels` may be "". */
static void begin_sample(const page *p, const char *name, const char *labels) {
    out_format(p->o, "%s{model_name=\"", name);
    out_escaped(p->o, p->model, strlen(p->model));
    out_format(p->o, "\"%s%s} ", labels[0] != '\0' ? "," : "", labels);
}

static void whole_number(const page *p, const char *name, const char *type, const char *help,
                         uint64_t value) {
    head(p, name, type, help);
    begin_sample(p, name, "");
    out_format(p->o, "%llu\n", (unsigned long long)value);
}

static void share(const page *p, const char *name, const char *help, double value) {
    head(p, name, "gauge", help);
    begin_sample(p, name, "");
    out_format(p->o, "%.6g\n", value);
}

static void histogram(const page *p, const char *name, const char *help,
                      const metrics_histogram *h) {
    char full[96], labels[48];
    uint64_t count = 0;
    head(p, name, "histogram", help);
    snprintf(full, sizeof full, "%s_bucket", name);
    for (int i = 0; i <= METRICS_BUCKETS; i++) {
        count += h->counts[i];
        if (i < METRICS_BUCKETS)
            snprintf(labels, sizeof labels, "le=\"%g\"", bounds[i]);
        else
            snprintf(labels, sizeof labels, "le=\"+Inf\"");
        begin_sample(p, full, labels);
        out_format(p->o, "%llu\n", (unsigned long long)count);
    }
    snprintf(full, sizeof full, "%s_sum", name);
    begin_sample(p, full, "");
    out_format(p->o, "%.9g\n", h->sum);
    snprintf(full, sizeof full, "%s_count", name);
    begin_sample(p, full, "");
    out_format(p->o, "%llu\n", (unsigned long long)count);
}

static void answers(const page *p, const metrics *m) {
    head(p, "myelin_http_responses_total", "counter", "Answers of the routes, by HTTP status.");
    for (int status = 0; status < METRICS_MAX_STATUS; status++) {
        char labels[32];
        if (m->status[status] == 0)
            continue;
        snprintf(labels, sizeof labels, "code=\"%d\"", status);
        begin_sample(p, "myelin_http_responses_total", labels);
        out_format(p->o, "%llu\n", (unsigned long long)m->status[status]);
    }
    head(p, "vllm:request_success_total", "counter", "Generations that ended, by reason.");
    for (int reason = MYELIN_FINISH_STOP; reason <= MYELIN_FINISH_LENGTH; reason++) {
        char labels[48];
        snprintf(labels, sizeof labels, "finished_reason=\"%s\"",
                 myelin_finish_reason_text((myelin_finish_reason)reason));
        begin_sample(p, "vllm:request_success_total", labels);
        out_format(p->o, "%llu\n", (unsigned long long)m->finished[reason]);
    }
}

static void serving(const page *p, const myelin_serving_stats *s) {
    double total = s->pages_total > 0 ? s->pages_total : 1, used = s->pages_used / total;
    const char *use = "Share of the KV pages that running requests hold.";
    char labels[96];
    snprintf(labels, sizeof labels, "block_size=\"%d\",num_gpu_blocks=\"%d\"",
             s->pages_total > 0 ? (int)(s->max_len / s->pages_total) : 0, (int)s->pages_total);
    head(p, "vllm:cache_config_info", "gauge", "Tokens of a KV page, and how many there are.");
    begin_sample(p, "vllm:cache_config_info", labels);
    out_text(p->o, "1\n");
    whole_number(p, "vllm:num_requests_running", "gauge", "Generations under way.",
                 (uint64_t)s->running);
    whole_number(p, "vllm:num_requests_waiting", "gauge", "Generations that wait to begin.",
                 (uint64_t)s->waiting);
    share(p, "vllm:kv_cache_usage_perc", use, used);
    share(p, "vllm:gpu_cache_usage_perc", use, used);
    /* Readers know them with and without what Prometheus' clients append. */
    static const char *const queries[] = {"vllm:prefix_cache_queries",
                                          "vllm:prefix_cache_queries_total"};
    static const char *const hits[] = {"vllm:prefix_cache_hits", "vllm:prefix_cache_hits_total"};
    for (int i = 0; i < 2; i++) {
        whole_number(p, queries[i], "counter", "Prompt tokens looked up.", s->prompt_tokens);
        whole_number(p, hits[i], "counter", "Prompt tokens found in the cache.", s->cached_tokens);
    }
    whole_number(p, "vllm:prompt_tokens_total", "counter", "Prompt tokens of requests begun.",
                 s->prompt_tokens);
    whole_number(p, "vllm:generation_tokens_total", "counter", "Tokens generated.",
                 s->generated_tokens);
    whole_number(p, "myelin_kv_pages", "gauge", "KV pages there are.", (uint64_t)s->pages_total);
    whole_number(p, "myelin_kv_pages_used", "gauge", "KV pages that running requests hold.",
                 (uint64_t)s->pages_used);
    whole_number(p, "myelin_kv_pages_cached", "gauge", "KV pages kept for requests to come.",
                 (uint64_t)s->pages_cached);
    whole_number(p, "myelin_kv_bytes", "gauge", "Bytes of all KV pages.", s->kv_bytes);
    whole_number(p, "myelin_requests_done_total", "counter", "Generations that ended well.",
                 s->requests_done);
    whole_number(p, "myelin_requests_failed_total", "counter", "Generations that failed.",
                 s->requests_failed);
    whole_number(p, "myelin_requests_cancelled_total", "counter", "Generations cancelled.",
                 s->requests_cancelled);
    whole_number(p, "myelin_steps_total", "counter", "Steps of the scheduler.", s->steps);
}

void metrics_text(metrics *m, const myelin_serving_stats *stats, const char *model, out *o) {
    page p = {o, model};
    pthread_mutex_lock(&m->mutex);
    if (stats != NULL)
        serving(&p, stats);
    histogram(&p, "vllm:time_to_first_token_seconds",
              "From a request's arrival to its first token.", &m->first_token);
    histogram(&p, "vllm:time_per_output_token_seconds", "From one token to the next.",
              &m->next_token);
    histogram(&p, "vllm:inter_token_latency_seconds", "From one token to the next.",
              &m->next_token);
    histogram(&p, "vllm:e2e_request_latency_seconds", "From a request's arrival to its end.",
              &m->whole);
    whole_number(&p, "myelin_embedding_tokens_total", "counter", "Tokens embedded.",
                 m->embedding_tokens);
    answers(&p, m);
    pthread_mutex_unlock(&m->mutex);
}
