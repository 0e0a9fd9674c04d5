/* SPDX-License-Identifier: Apache-2.0 */
/* What the host side of the NVIDIA plug-in shares: its objects, and who calls whom. */
#ifndef MLN_CUDA_INTERNAL_H
#define MLN_CUDA_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cuda_kernels.h"
#include "link.h"
#include "myelin/plugin.h"
#include "persist.h"
#include "sample.h"

typedef struct mln_cuda_layer {
    mln_cuda_matrix qkv[3]; /* q_proj, k_proj, v_proj; or all in the first, rows after each other */
    int32_t num_qkv;        /* 1 or 3 */
    mln_cuda_matrix o_proj, gate_proj, up_proj, down_proj;
    bool gated; /* gate_proj and up_proj are alike: one launch; in tiles, both are in gate_proj */
    float *input_layernorm, *post_attention_layernorm; /* [H] */
    float *q_norm, *k_norm;                            /* [D] */
} mln_cuda_layer;

/* Device memory of one matrix. */
typedef struct mln_cuda_spare {
    struct mln_cuda_spare *next;
    unsigned char *memory;
} mln_cuda_spare;

struct myelin_plugin_model {
    myelin_config config;
    int32_t fusion;
    bool early;      /* compute capability 9: kernels may begin before the last has ended */
    bool half_cache; /* keys and values in binary16; else float */
    mln_cuda_layer *layers;
    mln_cuda_matrix embed_tokens, lm_head;
    float *norm;            /* [H] */
    float *inv_freq;        /* [D / 2] */
    unsigned char *arena;   /* device memory that owns all of it, */
    mln_cuda_spare *spares; /* but for matrices that did not fit theirs */
    uint64_t weight_bytes;  /* of both */
    bool packed;            /* there are matrices in 12 bits a weight */
    atomic_int fault;       /* the CUDA error that the device did not recover from, or 0 */
    /* Of a model that is spread over several devices this is what one of them has. */
    struct mln_cuda_group *group; /* NULL: there is only one */
    mln_cuda_link *link;          /* likewise */
    int32_t first_id, most_ids;   /* the token of lm_head's first row; its rows on any device */
};

struct myelin_plugin_sequence {
    const myelin_plugin_model *model;
    int32_t length, capacity, max_len;
    int32_t num_pages;     /* paged: of the pool */
    int32_t used_pages;    /* paged: entries of the page table that are set */
    int32_t uploaded;      /* paged: entries that the device has */
    unsigned char *cache;  /* device: [layers, 2, kv_heads, capacity, D], or the pool's pages */
    int32_t *device_pages; /* paged: the page table; else NULL */
    myelin_plugin_sequence **ranks; /* of the first device's: those of all devices */
    int32_t pages[];                /* the host's copy */
};

struct myelin_plugin_pool {
    const myelin_plugin_model *model;
    int32_t num_pages;
    unsigned char *cache;       /* device: [pages, layers, 2, kv_heads, PAGE_POSITIONS, D] */
    myelin_plugin_pool **ranks; /* as of a sequence */
};

enum {
    MLN_CUDA_HEAD_ROWS = 64, /* rows of logits computed at once */
    MLN_CUDA_BUCKETS = 24    /* powers of two that splits are rounded up to */
};

/* T = max_tokens rows of each, in device memory unless said. */
struct myelin_plugin_context {
    const myelin_plugin_model *model;
    int32_t max_tokens, max_len;
    int32_t attend_tokens; /* tokens attended with at once: what `partial` has room for */
    cudaStream_t stream;
    unsigned char *arena;
    mln_cuda_row *rows;
    float *residual, *qkv, *attended, *gated, *partial, *logits;
    void *queries;            /* [T, Q] binary16 */
    unsigned char *fragments; /* activations as the tensor cores read them */
    float *factors;           /* [T] */
    float2 *angles;           /* [T, D / 2] */
    int32_t *done;            /* [T, kv_heads] zeros between kernels */
    int2 *pieces;             /* [T] neighbours of one sequence: the first row, how many */
    int32_t *wanted;          /* [HEAD_ROWS] */
    mln_cuda_best *best;      /* [T, blocks of the head] */
    float *peaks;             /* [HEAD_ROWS, chunks of the vocabulary] */
    mln_cuda_wide *wide;      /* [HEAD_ROWS] */
    mln_cuda_key *keys;       /* [HEAD_ROWS, shares of the vocabulary] */
    myelin_draw *draws;       /* [T] of decode_sample() */
    int32_t *out_ids;         /* [T * max_steps] */
    int32_t *steps;           /* [1] */
    int32_t max_steps;
    mln_cuda_row *host_rows; /* pinned host memory, [T] */
    int2 *host_pieces;       /* likewise */
    int32_t num_pieces;      /* of the call */
    int32_t *host_ids;       /* pinned host memory, [T * max_steps] */
    cudaGraphExec_t *graphs; /* host: [greedy, sampled, from all tokens][T + 1][BUCKETS], NULL until
                                first used */
    bool persists;           /* one sequence is decoded by one kernel */
    mln_cuda_persist persist;
    unsigned char *persist_memory;
    struct mln_cuda_ranks *ranks; /* of the first device's: the contexts of all devices */
    unsigned char *gathered;      /* several devices: mln_cuda_join_bytes() */
    mln_cuda_direct direct;       /* likewise */
    cudaEvent_t marks[2];         /* likewise: of mln_cuda_pace(), the former first */
    bool captures;                /* what is enqueued becomes a graph */
};

myelin_status mln_cuda_fail(myelin_error_buffer *error, myelin_status status, const char *format,
                            ...) __attribute__((format(printf, 3, 4)));
myelin_status mln_cuda_fail_argument(myelin_error_buffer *error, const char *what, int64_t least,
                                     int64_t most, int64_t found);

/*
 * fault.c: a failed CUDA call as a status and a message, and MYELIN_OK for cudaSuccess.
 * MYELIN_ERROR_DEVICE when the device has not recovered from it: nothing can be computed by this
 * process any more.
 */
myelin_status mln_cuda_check(cudaError_t code, const char *call, myelin_error_buffer *error);
/* The same for a model's call; what the device does not recover from is remembered. */
myelin_status mln_cuda_failed(const myelin_plugin_model *model, cudaError_t code, const char *call,
                              myelin_error_buffer *error);
/* The same for an allocation of `bytes` for `what`: says how much was needed and found. */
myelin_status mln_cuda_allocated(const myelin_plugin_model *model, cudaError_t code, uint64_t bytes,
                                 const char *what, myelin_error_buffer *error);
/* From now on the model's calls fail. */
void mln_cuda_give_up(const myelin_plugin_model *model, cudaError_t code);
/* link.c: whether the device never ended what it was given, so that nothing there can be freed. */
bool mln_cuda_is_stuck(const myelin_plugin_model *model);
/* Whether an earlier call has ended all, without asking the device; and as a status. */
bool mln_cuda_is_lost(const myelin_plugin_model *model);
myelin_status mln_cuda_alive(const myelin_plugin_model *model, myelin_error_buffer *error);

/* sequence.c, as plugin.h has them */
uint64_t mln_cuda_sequence_bytes(const myelin_config *config, int32_t max_len);
myelin_status mln_cuda_create_sequence(const myelin_plugin_model *model, int32_t max_len,
                                       myelin_plugin_sequence **out, myelin_error_buffer *error);
void mln_cuda_free_sequence(myelin_plugin_sequence *sequence);
int32_t mln_cuda_sequence_length(const myelin_plugin_sequence *sequence);
void mln_cuda_truncate_sequence(myelin_plugin_sequence *sequence, int32_t length);
uint64_t mln_cuda_page_bytes(const myelin_config *config);
myelin_status mln_cuda_create_pool(const myelin_plugin_model *model, int32_t num_pages,
                                   myelin_plugin_pool **out, myelin_error_buffer *error);
void mln_cuda_free_pool(myelin_plugin_pool *pool);
myelin_status mln_cuda_create_paged_sequence(myelin_plugin_pool *pool, int32_t max_len,
                                             myelin_plugin_sequence **out,
                                             myelin_error_buffer *error);
void mln_cuda_set_pages(myelin_plugin_sequence *sequence, const int32_t *pages, int32_t count,
                        int32_t length);
void mln_cuda_copy_page(myelin_plugin_pool *pool, int32_t to, int32_t from);
/* Enqueues what the device does not know yet of a sequence's page table. */
cudaError_t mln_cuda_upload_pages(myelin_plugin_sequence *sequence, cudaStream_t stream);

/* load.c */
myelin_status mln_cuda_probe(const myelin_model_description *description,
                             myelin_error_buffer *error);
myelin_status mln_cuda_load(const myelin_model_description *description, const myelin_host *host,
                            myelin_plugin_model **model, myelin_error_buffer *error);
void mln_cuda_free_model(myelin_plugin_model *model);

/*
 * forward.c: enqueues all layers over the context's rows, whose longest reaches `splits` splits;
 * `own` when each is its sequence's only one.
 */
cudaError_t mln_cuda_layers(myelin_plugin_context *context, int32_t tokens, int32_t splits,
                            bool own);
/* logits[count, V] of the rows context->wanted[count] */
cudaError_t mln_cuda_head(myelin_plugin_context *context, int32_t count);
/* One greedy step of `count` sequences. */
cudaError_t mln_cuda_greedy(myelin_plugin_context *context, int32_t count, int32_t splits);
/*
 * One step of `count` sequences whose tokens are chosen as context->draws says; `wide` when some
 * are drawn from all tokens, for which there is more to launch.
 */
cudaError_t mln_cuda_sampled(myelin_plugin_context *context, int32_t count, int32_t splits,
                             bool wide);

/* Bytes of a layer, up to which persist.c is used. */
#define MLN_CUDA_LARGEST_LAYER (256 << 20)

/* persist.c: one sequence's greedy tokens by one kernel; `memory` has so many bytes. */
uint64_t mln_cuda_persist_bytes(const myelin_config *config, int32_t max_len);
/* Sets context->persists, false for what the kernel cannot do. */
cudaError_t mln_cuda_persist_prepare(myelin_plugin_context *context, unsigned char *memory);
/* At most PERSIST_STEPS tokens of a sequence from row->id on, to host_ids. */
cudaError_t mln_cuda_persist_chunk(myelin_plugin_context *context, myelin_plugin_sequence *sequence,
                                   const mln_cuda_row *row, int32_t steps);
/* Waits for the stream, or the end of the connection to other devices. */
cudaError_t mln_cuda_wait(const myelin_plugin_context *context);
/*
 * Several devices, between calls of some hundred launches: waits until what was enqueued before the
 * last call of this is done. Else a queue could be full, and the host would wait in a launch, where
 * it does not see that another device is lost.
 */
cudaError_t mln_cuda_pace(myelin_plugin_context *context);
/*
 * Waits after a failure too: what was enqueued uses memory that is used again. Other devices are
 * told not to wait. The first failure of the two.
 */
cudaError_t mln_cuda_end(const myelin_plugin_context *context, cudaError_t code);

/*
 * link.c, of several devices: a result is joined from what each of them has written where
 * mln_cuda_own_...() says, and is then the same everywhere.
 */
uint64_t mln_cuda_join_bytes(const myelin_plugin_model *model, int32_t max_tokens);
/* Its part of the residual stream: [tokens, H]. */
float *mln_cuda_own_residual(const myelin_plugin_context *context, int32_t tokens);
/* residual[tokens, H] += the parts of all */
cudaError_t mln_cuda_join_residual(myelin_plugin_context *context, int32_t tokens);
/* Its part of the logits: [count, most_ids]. */
float *mln_cuda_own_logits(const myelin_plugin_context *context, int32_t count);
/* logits[count, V] */
cudaError_t mln_cuda_join_logits(myelin_plugin_context *context, int32_t count);
/* best[count, ranks] from this device's best[count, blocks]. */
cudaError_t mln_cuda_join_best(myelin_plugin_context *context, int32_t count, int32_t blocks);

/* plugin.c: the calls for one device. */
extern const myelin_plugin mln_cuda_rank;
/* group.c: the same for as many as the model is spread over. */
extern const myelin_plugin mln_cuda_plugin;

#endif
