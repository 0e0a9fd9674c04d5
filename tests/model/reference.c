/* SPDX-License-Identifier: Apache-2.0 */
#include "model/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct net {
    built_checkpoint *built;
    checkpoint_spec spec;
    int layer;
} net;

static double *zeros(int count) {
    double *memory = calloc((size_t)count, sizeof *memory);
    if (!memory)
        abort();
    return memory;
}

/* The values of a weight of the current layer (or, layer < 0, of the model). */
static float *weight(const net *n, const char *name) {
    char module[BUILDER_NAME];
    const char *prefix = n->spec.no_prefix ? "" : "model.";
    if (n->layer >= 0)
        snprintf(module, sizeof module, "%slayers.%d.%s", prefix, n->layer, name);
    else
        snprintf(module, sizeof module, "%s%s", prefix, name);
    return builder_values(n->built, module);
}

/* y [count, out] = x [count, in] W^T */
static double *times(const double *x, int count, const float *w, int out, int in) {
    double *y = zeros(count * out);
    for (int t = 0; t < count; t++)
        for (int o = 0; o < out; o++)
            for (int i = 0; i < in; i++)
                y[t * out + o] += x[t * in + i] * (double)w[o * in + i];
    return y;
}

static double *project(const net *n, const double *x, int count, const char *name, int out,
                       int in) {
    float *w = weight(n, name);
    double *y = times(x, count, w, out, in);
    free(w);
    return y;
}

static double *normalise(const net *n, const double *x, int rows, const char *name, int width) {
    float *w = weight(n, name);
    double *y = zeros(rows * width);
    for (int r = 0; r < rows; r++) {
        double sum = 0;
        for (int i = 0; i < width; i++)
            sum += x[r * width + i] * x[r * width + i];
        for (int i = 0; i < width; i++)
            y[r * width + i] = x[r * width + i] / sqrt(sum / width + 1e-6) * (double)w[i];
    }
    free(w);
    return y;
}

/* x [count, heads, D]: pairs (i, i + D/2) of position t turned by t / 1e6^(2i/D). */
static void rotate(double *x, int count, int heads, int dim) {
    for (int t = 0; t < count; t++)
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < dim / 2; i++) {
                double *a = &x[(t * heads + h) * dim + i], *b = a + dim / 2;
                double angle = t / pow(1e6, 2.0 * i / dim);
                double turned = *a * cos(angle) - *b * sin(angle);
                *b = *b * cos(angle) + *a * sin(angle);
                *a = turned;
            }
}

/* Queries or keys: projected, normalised per head and rotated. */
static double *turned_heads(const net *n, const double *x, int count, int heads, const char *proj,
                            const char *norm) {
    int dim = n->spec.head_dim;
    double *raw = project(n, x, count, proj, heads * dim, n->spec.hidden);
    double *y = normalise(n, raw, count * heads, norm, dim);
    rotate(y, count, heads, dim);
    free(raw);
    return y;
}

/* out [D] of query position t, head h */
static void attend(const net *n, double *out, const double *q, const double *k, const double *v,
                   int t, int h) {
    int dim = n->spec.head_dim, kv_heads = n->spec.kv_heads;
    int group = h / (n->spec.heads / kv_heads);
    double *p = zeros(t + 1), sum = 0;
    for (int j = 0; j <= t; j++) {
        double dot = 0;
        for (int i = 0; i < dim; i++)
            dot += q[(t * n->spec.heads + h) * dim + i] * k[(j * kv_heads + group) * dim + i];
        sum += p[j] = exp(dot / sqrt(dim));
    }
    for (int j = 0; j <= t; j++)
        for (int i = 0; i < dim; i++)
            out[i] += p[j] / sum * v[(j * kv_heads + group) * dim + i];
    free(p);
}

static void add_and_free(double *x, double *y, int count) {
    for (int i = 0; i < count; i++)
        x[i] += y[i];
    free(y);
}

static void attention(const net *n, double *x, int count) {
    const checkpoint_spec *s = &n->spec;
    double *normed = normalise(n, x, count, "input_layernorm", s->hidden);
    double *q = turned_heads(n, normed, count, s->heads, "self_attn.q_proj", "self_attn.q_norm");
    double *k = turned_heads(n, normed, count, s->kv_heads, "self_attn.k_proj", "self_attn.k_norm");
    double *v = project(n, normed, count, "self_attn.v_proj", s->kv_heads * s->head_dim, s->hidden);
    double *mixed = zeros(count * s->heads * s->head_dim);
    for (int t = 0; t < count; t++)
        for (int h = 0; h < s->heads; h++)
            attend(n, mixed + (t * s->heads + h) * s->head_dim, q, k, v, t, h);
    add_and_free(x, project(n, mixed, count, "self_attn.o_proj", s->hidden, s->heads * s->head_dim),
                 count * s->hidden);
    free(normed);
    free(q);
    free(k);
    free(v);
    free(mixed);
}

static void mlp(const net *n, double *x, int count) {
    const checkpoint_spec *s = &n->spec;
    double *normed = normalise(n, x, count, "post_attention_layernorm", s->hidden);
    double *gate = project(n, normed, count, "mlp.gate_proj", s->intermediate, s->hidden);
    double *up = project(n, normed, count, "mlp.up_proj", s->intermediate, s->hidden);
    for (int i = 0; i < count * s->intermediate; i++)
        gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    add_and_free(x, project(n, gate, count, "mlp.down_proj", s->hidden, s->intermediate),
                 count * s->hidden);
    free(normed);
    free(gate);
    free(up);
}

double *reference_hidden(built_checkpoint *built, const int32_t *ids, int count) {
    net n = {built, built->spec, -1};
    int hidden = n.spec.hidden;
    float *table = weight(&n, "embed_tokens");
    double *x = zeros(count * hidden);
    for (int t = 0; t < count; t++)
        for (int i = 0; i < hidden; i++)
            x[t * hidden + i] = (double)table[ids[t] * hidden + i];
    for (n.layer = 0; n.layer < n.spec.layers; n.layer++) {
        attention(&n, x, count);
        mlp(&n, x, count);
    }
    n.layer = -1;
    double *normed = normalise(&n, x, count, "norm", hidden);
    free(table);
    free(x);
    return normed;
}

double *reference_logits(built_checkpoint *built, const int32_t *ids, int count) {
    net n = {built, built->spec, -1};
    double *normed = reference_hidden(built, ids, count);
    float *head = n.spec.tie ? weight(&n, "embed_tokens") : builder_values(built, "lm_head");
    double *logits = times(normed, count, head, n.spec.vocab, n.spec.hidden);
    free(head);
    free(normed);
    return logits;
}
