/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing tokens on the device: what sample.cu is given. */
#ifndef MLN_CUDA_SAMPLE_H
#define MLN_CUDA_SAMPLE_H

#include "cuda_kernels.h"
#include "myelin/plugin.h"

#ifdef __CUDACC__
#define MLN_SAMPLE_FN __host__ __device__ static inline
#else
#define MLN_SAMPLE_FN static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MLN_SAMPLE_CHUNK = 512,  /* logits whose largest is found first */
    MLN_SAMPLE_SHARE = 2048, /* logits of one of a row's blocks */
    MLN_SAMPLE_BINS = 2048,
    MLN_SAMPLE_RANKED = 1024 /* candidates that are ranked, one a thread */
};

/* A candidate's key, and its token. */
typedef struct mln_cuda_key {
    double key;
    int32_t id;
} mln_cuda_key;

/* What the blocks of a row that is drawn from all tokens leave for each other. */
typedef struct mln_cuda_wide {
    uint64_t masses[MLN_SAMPLE_BINS]; /* zeros between kernels */
    uint64_t total;                   /* mass of the row */
    uint64_t before;                  /* of what is better than bin[1] of bin[0] */
    int32_t bin[2];                   /* where top_p ends, and where in this bin */
    uint32_t arrived;                 /* blocks; 0 between kernels */
    uint32_t undecided;               /* in that bin's bin; 0 between draws */
    uint64_t words[MLN_SAMPLE_RANKED];
} mln_cuda_wide;

/* Whether a row is drawn from all tokens, so that one block would be long about it. */
MLN_SAMPLE_FN int mln_cuda_draws_from_all(const myelin_draw *draw) {
    return draw->sampled && draw->top_k <= 0;
}

/* Blocks of such a row. */
MLN_SAMPLE_FN int32_t mln_cuda_sample_shares(int32_t vocab) {
    return (vocab + MLN_SAMPLE_SHARE - 1) / MLN_SAMPLE_SHARE;
}

typedef struct mln_cuda_sample {
    const float *logits;      /* [count, vocab] */
    float *peaks;             /* [count, chunks] scratch */
    mln_cuda_wide *wide;      /* [count]; NULL when no row is drawn from all tokens */
    mln_cuda_key *keys;       /* [count, shares] scratch, likewise */
    const myelin_draw *draws; /* [count] in device memory */
    mln_cuda_row *rows;       /* [count] */
    int32_t *out_ids;         /* [first + count, *steps] */
    const int32_t *steps;
    int32_t vocab, chunks, first, count;
} mln_cuda_sample;

/*
 * rows[t].id = a draw from row t of the logits for the position after rows[t].position;
 * out_ids[first + t, rows[t].step] likewise; on to the next position.
 */
cudaError_t mln_cuda_sample_launch(const mln_cuda_sample *sample, cudaStream_t stream);
/* sample_wide.cu, between the peaks and the draws: what is independent in rows drawn from all. */
cudaError_t mln_cuda_sample_wide_launch(const mln_cuda_sample *sample, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
