/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing tokens on the device: what sample.cu is given. */
#ifndef MLN_CUDA_SAMPLE_H
#define MLN_CUDA_SAMPLE_H

#include "cuda_kernels.h"
#include "myelin/plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Logits whose largest is found first. */
enum { MLN_SAMPLE_CHUNK = 512 };

typedef struct mln_cuda_sample {
    const float *logits;      /* [count, vocab] */
    float *peaks;             /* [count, chunks] scratch */
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

#ifdef __cplusplus
}
#endif
#endif
