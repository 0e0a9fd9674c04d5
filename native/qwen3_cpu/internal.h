/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the CPU plug-in share: its objects, and who calls whom. */
#ifndef MLN_CPU_INTERNAL_H
#define MLN_CPU_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/memory.h"
#include "kernels.h"
#include "myelin/plugin.h"
#include "team.h"

/* Short names for the sizes the shapes are written in. */
typedef struct mln_cpu_sizes {
    int64_t hidden;       /* H */
    int64_t intermediate; /* I */
    int64_t vocab;        /* V */
    int64_t layers;
    int64_t heads, kv_heads;
    int64_t head_dim;          /* D */
    int64_t width;             /* D rounded up to MLN_CPU_LANES */
    int64_t q_width, kv_width; /* Q = heads * D, K = kv_heads * D */
    int64_t widest;            /* the longest row any operation reads or writes */
} mln_cpu_sizes;

typedef struct mln_cpu_layer {
    mln_cpu_matrix qkv[3]; /* q_proj, k_proj, v_proj */
    mln_cpu_matrix o_proj;
    mln_cpu_matrix gate_up[2];
    mln_cpu_matrix down_proj;
    float *input_layernorm, *post_attention_layernorm; /* [H] */
    float *q_norm, *k_norm;                            /* [D] */
} mln_cpu_layer;

/*
 * A narrow copy of the LM head: its product with x is within bounds[row] * length of x, and
 * MLN_CPU_TINY, of the exact one (shortlist.c).
 */
typedef struct mln_cpu_shortlist {
    mln_cpu_matrix narrow; /* Q8; no panels: there is no copy */
    float *bounds;         /* [panels * 32] */
    float *sizes;          /* [panels * 32] what the sums of a row can grow to, over the length */
    float largest;         /* of the sizes */
    mln_region region;
} mln_cpu_shortlist;

#define MLN_CPU_TINY 1e-35f

struct myelin_plugin_model {
    myelin_config config;
    mln_cpu_sizes sizes;
    myelin_host host;
    int32_t fusion;
    mln_cpu_cell cell;              /* of keys and values */
    myelin_activations activations; /* wanted, and then those that there are */
    bool shortlisted;               /* whose bounds are of a head times floats */
    const mln_cpu_kernels *kernels;
    mln_team *team;
    mln_cpu_layer *layers;
    mln_cpu_matrix embed_tokens;
    mln_cpu_matrix lm_head; /* embed_tokens again when tied */
    mln_cpu_shortlist shortlist;
    float *norm;       /* [H] */
    float *inv_freq;   /* [D / 2] */
    mln_region region; /* owns every weight, and is no larger than they are */
    uint64_t *starts;  /* of the packed matrices' panels; NULL: nothing is packed */
};

/*
 * Memory for keys and values, page by page, so that what a page holds in all layers lies together:
 * [pages][layers][kv_heads][2 (keys, values)][MLN_CPU_PAGE] slots (see mln_cpu_kv), and behind
 * that, in the same order, their scales. Of one of layer, head and kind, page p is number p *
 * mln_cpu_page_stride() of pages that follow one another.
 */
typedef struct mln_cpu_store {
    int64_t pages;
    mln_region region;
} mln_cpu_store;

struct myelin_plugin_pool {
    const myelin_plugin_model *model;
    int32_t num_pages;
    mln_cpu_store store;
};

/* A plain sequence is a paged one with a store of its own, in which every page is in its place. */
struct myelin_plugin_sequence {
    const myelin_plugin_model *model;
    const mln_cpu_store *store; /* own, or the pool's */
    mln_cpu_store own;
    int32_t num_pages; /* of the pool; 0: the sequence has its own store */
    int32_t length;
    int32_t max_len;
    int32_t capacity; /* positions its pages have room for, at most max_len */
    int32_t pages[];  /* [max_len / MLN_CPU_PAGE, rounded up] their numbers, times the stride */
};

/* Where a row of the call comes from. */
typedef struct mln_cpu_row {
    const myelin_plugin_sequence *sequence;
    int32_t position;
    int32_t id;
} mln_cpu_row;

/* Query rows that attend together: tokens of one span. */
typedef struct mln_cpu_piece {
    int32_t row;   /* of the call, its first token's */
    int32_t first; /* the first of its query rows, token * (heads / kv_heads) + head, in the span */
    int32_t count;
} mln_cpu_piece;

/* A thread's own scratch memory. */
typedef struct mln_cpu_scratch {
    float *row;           /* [widest] */
    unsigned char *block; /* one token's packed activations, in up to three formats */
    float *attention;
    float *q;    /* [width / 16][ATTEND_ROWS][16] */
    float *out;  /* [ATTEND_ROWS][width] */
    float *tile; /* [2][BLOCK][PANEL] */
} mln_cpu_scratch;

/* T = max_tokens rows of each. */
struct myelin_plugin_context {
    const myelin_plugin_model *model;
    int32_t max_tokens;
    int32_t max_len;
    float *residual;        /* [T, H] */
    float *qkv;             /* [T, Q + 2 K] */
    float *attended;        /* [T, Q] */
    float *gated, *up;      /* [T, I] */
    float *cos, *sin;       /* [T, D / 2] */
    unsigned char *packed;  /* [3][T * packed bytes of the widest row] */
    uint64_t packed_stride; /* bytes of one of the three */
    mln_cpu_row *rows;      /* [T] */
    mln_cpu_piece *pieces;
    int32_t *wanted;    /* [T] rows whose logits are wanted, ascending */
    float **targets;    /* [T] where they go */
    float *best_values; /* [threads, T] greedy: each thread's best so far */
    int32_t *best_ids;  /* [threads, T] */
    float *least;       /* [threads, BLOCK] shortlist: what a thread's best is at least */
    float *reach;       /* [panels of the head, BLOCK] what a panel's best is at most */
    int32_t *ids;       /* [T] greedy: the newest token of each sequence */
    float *parts;       /* [shared_pieces, kv_heads, most_splits] of attend_split() */
    _Atomic int32_t *ended_splits; /* [shared_pieces, kv_heads] zeros between phases */
    int64_t shared_pieces;         /* most whose splits are shared out */
    int64_t most_splits;           /* of a sequence */
    mln_cpu_scratch *scratch;      /* [threads] */
    mln_region region;

    /* Of the call. */
    int64_t num_rows;
    int64_t num_pieces;
    int64_t num_wanted;
    int32_t most_piece; /* query rows of one */
    bool alone;         /* one token a span, one piece a token */
    int64_t layer;      /* of the rungs that make a run for each block */
    bool greedy;        /* the head writes best_ids instead of logits */
};

/* Splits of a piece claimed together. */
enum { MLN_CPU_SHARED_SPLITS = 4 };

/* Formats that activations are packed in for matrices that read the same row (q, k and v). */
enum { MLN_CPU_FORMATS = 3 };

myelin_status mln_cpu_fail(myelin_error_buffer *buffer, const myelin_error *error);
/* "`what` must be `least` to `most`, found `found`" */
myelin_status mln_cpu_fail_argument(myelin_error_buffer *buffer, const char *what, int64_t least,
                                    int64_t most, int64_t found);

/* load.c */
myelin_status mln_cpu_load(const myelin_model_description *description, const myelin_host *host,
                           const mln_cpu_kernels *kernels, myelin_plugin_model **model,
                           myelin_error_buffer *error);
void mln_cpu_free_model(myelin_plugin_model *model);
uint64_t mln_cpu_weight_bytes(const myelin_plugin_model *model, int32_t *pack);
mln_cpu_sizes mln_cpu_sizes_of(const myelin_config *config);
/* What a cache holds: as asked for, else 16 bits of each number unless the weights are in 32. */
mln_cpu_cell mln_cpu_cell_of(const myelin_config *config);
/* Row `row` of a matrix as floats: out[columns]. */
void mln_cpu_matrix_row(float *out, const mln_cpu_matrix *matrix, int64_t row);

/* shortlist.c: makes model->shortlist, if the head is one that it pays for. */
myelin_status mln_cpu_make_shortlist(myelin_plugin_model *model, myelin_error *error);
/* The length of x[H] by which bounds are multiplied; infinite when sums could overflow. */
float mln_cpu_length(const mln_cpu_shortlist *list, const float *x);

/* trial.c: how panels come from memory, as far as that can be measured. */
typedef struct mln_cpu_trial {
    bool close;    /* faster with MLN_CPU_FETCH_CLOSE than as they are fetched else */
    double packed; /* how many times as fast packed ones, on the careful side; 0 if not known */
} mln_cpu_trial;

/* Of some weights and, if it is not NULL, the same in BF16P. */
mln_cpu_trial mln_cpu_try(mln_team *team, const mln_cpu_kernels *kernels,
                          const mln_cpu_matrix *plain, const mln_cpu_matrix *packed);

static inline int64_t mln_cpu_page_stride(const mln_cpu_sizes *s) {
    return s->layers * s->kv_heads * 2;
}

/* sequence.c: what the table of a plug-in says of sequences and pools. */
uint64_t mln_cpu_sequence_bytes(const myelin_config *config, int32_t max_len);
myelin_status mln_cpu_create_sequence(const myelin_plugin_model *model, int32_t max_len,
                                      myelin_plugin_sequence **sequence,
                                      myelin_error_buffer *error);
void mln_cpu_free_sequence(myelin_plugin_sequence *sequence);
int32_t mln_cpu_sequence_length(const myelin_plugin_sequence *sequence);
void mln_cpu_truncate_sequence(myelin_plugin_sequence *sequence, int32_t length);
uint64_t mln_cpu_page_bytes(const myelin_config *config);
myelin_status mln_cpu_create_pool(const myelin_plugin_model *model, int32_t num_pages,
                                  myelin_plugin_pool **pool, myelin_error_buffer *error);
void mln_cpu_free_pool(myelin_plugin_pool *pool);
myelin_status mln_cpu_create_paged_sequence(myelin_plugin_pool *pool, int32_t max_len,
                                            myelin_plugin_sequence **sequence,
                                            myelin_error_buffer *error);
void mln_cpu_set_pages(myelin_plugin_sequence *sequence, const int32_t *pages, int32_t count,
                       int32_t length);
void mln_cpu_copy_page(myelin_plugin_pool *pool, int32_t to, int32_t from);

/* pack.c: the weight in `row` (of the panel's 32) and `column` of a BF16P panel. */
void mln_cpu_packed_row(float *out, const unsigned char *panel, int64_t columns, int64_t row);

/* forward.c: all layers over context->rows, then the head over context->wanted. */
void mln_cpu_forward(myelin_plugin_context *context);

#endif
