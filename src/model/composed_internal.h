/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the composed plug-in share: its objects, and who calls whom. */
#ifndef MLN_MODEL_COMPOSED_INTERNAL_H
#define MLN_MODEL_COMPOSED_INTERNAL_H

#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"
#include "myelin/plugin.h"

/* Short names for the sizes the shapes are written in. */
typedef struct mln_sizes {
    int64_t hidden;       /* H */
    int64_t intermediate; /* I */
    int64_t vocab;        /* V */
    int64_t layers;
    int64_t heads, kv_heads;
    int64_t head_dim; /* D */
    int64_t q_width;  /* Q = heads * D */
    int64_t kv_width; /* K = kv_heads * D */
} mln_sizes;

struct myelin_plugin_model {
    myelin_config config;
    mln_sizes sizes;
    myelin_host host;
    myelin_weights weights; /* data in `region`, layers in `layers` */
    myelin_layer_weights *layers;
    mln_region region; /* owns every weight */
    float *inv_freq;   /* [D / 2] */
};

/* Memory for keys and values. */
typedef struct mln_composed_store {
    int64_t slots; /* positions */
    float *cache;  /* [layers, 2 (keys, values), kv_heads, slots, D] */
    mln_region region;
} mln_composed_store;

struct myelin_plugin_pool {
    const myelin_plugin_model *model;
    int32_t num_pages;
    mln_composed_store store;
};

/* A plain sequence is a paged one with a store of its own, in which every page is in its place. */
struct myelin_plugin_sequence {
    const myelin_plugin_model *model;
    const mln_composed_store *store; /* own, or the pool's */
    mln_composed_store own;
    int32_t num_pages; /* of the pool; 0: the sequence has its own store */
    int32_t length;    /* positions filled */
    int32_t max_len;
    int32_t capacity; /* positions its pages have room for, at most max_len */
    int32_t pages[];  /* [max_len / MYELIN_PAGE_POSITIONS, rounded up] */
};

/* Rows of logits computed at once: reads of the LM head against scratch memory. */
enum { MLN_HEAD_ROWS = 16 };

/* T = max_tokens rows of each; one forward() uses as many as it has tokens. */
struct myelin_plugin_context {
    const myelin_plugin_model *model;
    int32_t max_tokens; /* T */
    int32_t max_len;
    float *residual;    /* [T, H] the residual stream */
    float *normed;      /* [T, H] */
    float *update;      /* [T, H] what a block adds to the residual stream */
    float *q;           /* [T, Q] */
    float *k, *v;       /* [T, K] */
    float *attended;    /* [T, Q] */
    float *gate;        /* [T, I] */
    float *up;          /* [T, I] */
    float *cos;         /* [T, D / 2] */
    float *sin;         /* [T, D / 2] */
    float *scores;      /* [heads, max_len] */
    float *wanted;      /* [min(T, MLN_HEAD_ROWS), H] rows that go to the LM head */
    float *logits;      /* [min(T, MLN_HEAD_ROWS), V] */
    int32_t *ids;       /* [T] chunked decode: the newest token of each sequence */
    myelin_span *spans; /* [T] likewise */
    mln_region region;
};

/* Copies an error's message across the plug-in boundary and returns its status. */
myelin_status mln_plugin_fail(myelin_error_buffer *buffer, const myelin_error *error);

/* "`what` must be `least` to `most`, found `found`" */
myelin_status mln_plugin_fail_argument(myelin_error_buffer *buffer, const char *what, int64_t least,
                                       int64_t most, int64_t found);

/* composed_load.c: plugin->load and plugin->free_model. */
myelin_status mln_composed_load(const myelin_model_description *description,
                                const myelin_host *host, myelin_plugin_model **model,
                                myelin_error_buffer *error);
void mln_composed_free_model(myelin_plugin_model *model);

/* composed_sequence.c: what the table says of sequences and pools. */
uint64_t mln_composed_sequence_bytes(const myelin_config *config, int32_t max_len);
myelin_status mln_composed_create_sequence(const myelin_plugin_model *model, int32_t max_len,
                                           myelin_plugin_sequence **sequence,
                                           myelin_error_buffer *error);
void mln_composed_free_sequence(myelin_plugin_sequence *sequence);
int32_t mln_composed_sequence_length(const myelin_plugin_sequence *sequence);
void mln_composed_truncate_sequence(myelin_plugin_sequence *sequence, int32_t length);
uint64_t mln_composed_page_bytes(const myelin_config *config);
myelin_status mln_composed_create_pool(const myelin_plugin_model *model, int32_t num_pages,
                                       myelin_plugin_pool **pool, myelin_error_buffer *error);
void mln_composed_free_pool(myelin_plugin_pool *pool);
myelin_status mln_composed_create_paged_sequence(myelin_plugin_pool *pool, int32_t max_len,
                                                 myelin_plugin_sequence **sequence,
                                                 myelin_error_buffer *error);
void mln_composed_set_pages(myelin_plugin_sequence *sequence, const int32_t *pages, int32_t count,
                            int32_t length);
void mln_composed_copy_page(myelin_plugin_pool *pool, int32_t to, int32_t from);

/*
 * forward.c: runs every layer over the tokens of all spans, rows in the order of the spans, and
 * fills the caches. The lengths of the sequences stay; context->residual holds the result.
 */
void mln_forward_layers(myelin_plugin_context *context, const myelin_span *spans,
                        int32_t num_spans);
/* Final norm of one row of the residual stream: out[H]. */
void mln_forward_norm(const myelin_plugin_context *context, int64_t row, float *out);
/* Final norm and LM head of rows[count] of the residual stream: context->logits[count, V]. */
void mln_forward_head(myelin_plugin_context *context, const int64_t *rows, int64_t count);

#endif
