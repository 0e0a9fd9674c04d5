/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native plug-in contract, version 1: what computes a Qwen3 model on one kind of processor.
 *
 * Plain C, plain data at the boundary. Nothing is thrown, exited or printed across it; a failing
 * call returns a myelin_status and writes a NUL-terminated reason of at most error->size bytes to
 * error->text. The composed forward pass in src/model/ is the first implementer and the oracle of
 * every other.
 *
 * Objects and threads
 *   model     weights, laid out as the plug-in likes. Immutable after load; any number of threads
 *             may use it at once.
 *   sequence  the KV cache of one sequence and how many positions of it are filled.
 *   context   scratch memory for calls of forward(). One thread at a time in a context, one context
 *             at a time on a sequence; different contexts run at once.
 *   pool      memory for the KV caches of many sequences, in pages. The host decides which page
 *             holds which positions of which sequence, and may let sequences share pages that none
 *             of them writes to.
 * A model outlives its sequences, contexts and pools, a pool its sequences. Each object is freed by
 * the function beside the one that made it, which accepts NULL.
 *
 * Promises an implementer makes
 *   - the logits of a token depend on the tokens before it in its own sequence alone, to the last
 *     bit: not on the split into calls, on what else is in the call, or on the number of threads;
 *   - forward(), decode_greedy() and decode_sample() allocate nothing;
 *   - a call that fails leaves every sequence in it as it was before (positions filled so far);
 *   - MYELIN_ERROR_DEVICE says that the processor cannot go on: later calls fail too, at once, and
 *     the functions that free still may be called.
 *
 * Members are only ever added, at the end of the table. A table may end where version 1 first did
 * (MYELIN_PLUGIN_LEAST_SIZE); what lies behind its struct_size is not looked at.
 */
#ifndef MYELIN_PLUGIN_H
#define MYELIN_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#include "myelin/config.h"
#include "myelin/status.h"
#include "myelin/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MYELIN_PLUGIN_MAGIC       0x4d594c4eu /* "MYLN" */
#define MYELIN_PLUGIN_ABI_VERSION 1u

typedef struct myelin_plugin_model myelin_plugin_model;
typedef struct myelin_plugin_sequence myelin_plugin_sequence;
typedef struct myelin_plugin_context myelin_plugin_context;
typedef struct myelin_plugin_pool myelin_plugin_pool;

/* Positions of one page of a pool. */
enum { MYELIN_PAGE_POSITIONS = 64 };

/* What a plug-in may ask for as the tokens of a call. */
enum { MYELIN_MIN_STEP_TOKENS = 16, MYELIN_MAX_STEP_TOKENS = 65536 };

/* Where a failing call writes its reason. text is never NULL, size at least 256. */
typedef struct myelin_error_buffer {
    char *text;
    size_t size;
} myelin_error_buffer;

/*
 * The weights of one layer. Shapes (out, in), with H = hidden_size, I = intermediate_size,
 * Q = num_attention_heads * head_dim, K = num_key_value_heads * head_dim, D = head_dim.
 */
typedef struct myelin_layer_weights {
    myelin_tensor input_layernorm;          /* [H] */
    myelin_tensor q_proj;                   /* [Q, H] */
    myelin_tensor k_proj;                   /* [K, H] */
    myelin_tensor v_proj;                   /* [K, H] */
    myelin_tensor q_norm;                   /* [D] */
    myelin_tensor k_norm;                   /* [D] */
    myelin_tensor o_proj;                   /* [H, Q] */
    myelin_tensor post_attention_layernorm; /* [H] */
    myelin_tensor gate_proj;                /* [I, H] */
    myelin_tensor up_proj;                  /* [I, H] */
    myelin_tensor down_proj;                /* [H, I] */
} myelin_layer_weights;

/*
 * All weights. While loading, a description: dtypes and shapes as they are to be stored (the
 * load-time cast is decided), data NULL; the plug-in finds room and reads them with host->read().
 * lm_head equals embed_tokens, description and all, when config.tie_word_embeddings is 1.
 */
typedef struct myelin_weights {
    myelin_tensor embed_tokens; /* [vocab_size, H] */
    myelin_tensor norm;         /* [H] */
    myelin_tensor lm_head;      /* [vocab_size, H] */
    int32_t num_layers;
    int32_t reserved;
    const myelin_layer_weights *layers; /* [num_layers] */
} myelin_weights;

/* Which of a tensor's arrays host->read() is asked for. */
typedef enum myelin_tensor_part {
    MYELIN_PART_DATA = 0,   /* the elements, or the packed words of an AFFINE tensor */
    MYELIN_PART_SCALES = 1, /* AFFINE only */
    MYELIN_PART_BIASES = 2  /* AFFINE only */
} myelin_tensor_part;

/* A job cut in `count` pieces; task(context, i) is called once for each i, in any order. */
typedef void (*myelin_task)(void *context, int64_t index);

/*
 * Services of the host, valid from load() until free_model() returns. Any thread may call them.
 */
typedef struct myelin_host {
    uint32_t struct_size;
    int32_t num_threads; /* threads parallel_for() uses, the caller's among them; at least 1 */
    void *self;          /* first argument of each call below */

    /*
     * Copies rows [row, row + count) of one part of `tensor` (a tensor of the myelin_weights given
     * to load(), by address) to dst, dense, in the dtype the description names. Rank-1 tensors have
     * shape[0] rows of one element. Returns MYELIN_ERROR_CANCELLED when the user asked to stop.
     */
    myelin_status (*read)(void *self, const myelin_tensor *tensor, myelin_tensor_part part,
                          int64_t row, int64_t count, void *dst, myelin_error_buffer *error);

    /* Returns when every piece is done. Pieces must not call parallel_for() themselves. */
    void (*parallel_for)(void *self, int64_t count, myelin_task task, void *context);
} myelin_host;

/* What load() is given. All pointers are valid until load() returns, no longer. */
typedef struct myelin_model_description {
    uint32_t struct_size;
    int32_t fusion; /* a myelin_fusion */
    const myelin_config *config;
    const myelin_weights *weights;
    int32_t pack;            /* a myelin_pack; a wish that a plug-in may ignore */
    int32_t shortlist;       /* 1: keep what finds greedy tokens sooner; likewise */
    int32_t tensor_parallel; /* devices to spread the model over; above 1 probe() refuses what the
                                plug-in cannot do; 0 is 1 */
    int32_t activations;     /* a myelin_activations; a wish like `pack` */
} myelin_model_description;

/*
 * One sequence's part of a forward() call: `count` new tokens to append after the positions the
 * sequence holds. Logits, if wanted, are written for the last `num_logits` of them (0 to count) to
 * logits[num_logits][vocab_size], float32, caller's memory.
 */
typedef struct myelin_span {
    myelin_plugin_sequence *sequence;
    const int32_t *ids; /* [count], each in 0 .. vocab_size-1 (the host has checked) */
    int32_t count;      /* at least 1 */
    int32_t num_logits;
    float *logits;
} myelin_span;

/*
 * How decode_sample() chooses the tokens of one sequence. Values are checked by the host; top_k up
 * to 0, top_p 1 and min_p 0 leave all tokens in.
 */
typedef struct myelin_draw {
    uint64_t seed;
    double temperature; /* positive */
    double top_p;       /* above 0, up to 1 */
    double min_p;       /* 0 to 1 */
    int32_t top_k;
    int32_t sampled; /* 0: the argmax, as decode_greedy() takes it; the rest has no meaning then */
} myelin_draw;

typedef struct myelin_plugin {
    uint32_t magic;       /* MYELIN_PLUGIN_MAGIC */
    uint32_t abi_version; /* MYELIN_PLUGIN_ABI_VERSION */
    uint32_t struct_size; /* sizeof(myelin_plugin) as the plug-in was compiled */
    int32_t max_fusion;   /* highest myelin_fusion offered */
    const char *name;     /* "composed", "qwen3_cpu", ...; static storage */

    /* 0 when the plug-in can run this model on this machine; else a status and the reason. */
    myelin_status (*probe)(const myelin_model_description *description, myelin_error_buffer *error);

    /* Lays out and reads the weights. *host is copied or used until free_model() returns. */
    myelin_status (*load)(const myelin_model_description *description, const myelin_host *host,
                          myelin_plugin_model **model, myelin_error_buffer *error);
    void (*free_model)(myelin_plugin_model *model);

    /* Bytes a sequence of max_len positions takes, all of it allocated by create_sequence(). */
    uint64_t (*sequence_bytes)(const myelin_config *config, int32_t max_len);
    myelin_status (*create_sequence)(const myelin_plugin_model *model, int32_t max_len,
                                     myelin_plugin_sequence **sequence, myelin_error_buffer *error);
    void (*free_sequence)(myelin_plugin_sequence *sequence);
    int32_t (*sequence_length)(const myelin_plugin_sequence *sequence); /* positions filled */
    /* Forgets the positions from `length` on; length is at most the positions filled. */
    void (*truncate_sequence)(myelin_plugin_sequence *sequence, int32_t length);

    /* Bytes of scratch for calls of at most max_tokens tokens over sequences of max_len. */
    uint64_t (*context_bytes)(const myelin_config *config, int32_t max_tokens, int32_t max_len);
    myelin_status (*create_context)(const myelin_plugin_model *model, int32_t max_tokens,
                                    int32_t max_len, myelin_plugin_context **context,
                                    myelin_error_buffer *error);
    void (*free_context)(myelin_plugin_context *context);

    /*
     * Appends every span's tokens to its sequence. A sequence occurs in one span at most; the
     * counts add up to at most the context's max_tokens; every sequence has the room (the host has
     * checked all three).
     */
    myelin_status (*forward)(myelin_plugin_context *context, const myelin_span *spans,
                             int32_t num_spans, myelin_error_buffer *error);

    /*
     * Chunked decode, or NULL if not offered. For each of num_sequences sequences: append ids[i],
     * take the argmax of the logits (lowest id among equals), append it, and so on `steps` times.
     * out_ids[num_sequences][steps] receives the argmaxes; the last one is not appended. Stop
     * tokens are the host's business: it truncates.
     */
    myelin_status (*decode_greedy)(myelin_plugin_context *context,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   int32_t num_sequences, int32_t steps, int32_t *out_ids,
                                   myelin_error_buffer *error);

    /*
     * What embeddings are made of, or NULL if not offered: forward(), with num_logits 0 in every
     * span, that also writes the final norm's output for the last token of each span:
     * hidden[num_spans][hidden_size], float32, caller's memory.
     */
    myelin_status (*forward_hidden)(myelin_plugin_context *context, const myelin_span *spans,
                                    int32_t num_spans, float *hidden, myelin_error_buffer *error);

    /* Paged sequences: the six members from here on are all there, or all NULL if not offered. */

    /* Bytes of one page: keys and values of MYELIN_PAGE_POSITIONS positions in every layer. */
    uint64_t (*page_bytes)(const myelin_config *config);
    /* All memory of the pages is taken here. num_pages is at least 1. */
    myelin_status (*create_pool)(const myelin_plugin_model *model, int32_t num_pages,
                                 myelin_plugin_pool **pool, myelin_error_buffer *error);
    void (*free_pool)(myelin_plugin_pool *pool);
    /*
     * A sequence of at most max_len positions that lie in pages of the pool; it has none yet and
     * its length is 0. Freed with free_sequence(), which leaves the pages alone.
     */
    myelin_status (*create_paged_sequence)(myelin_plugin_pool *pool, int32_t max_len,
                                           myelin_plugin_sequence **sequence,
                                           myelin_error_buffer *error);
    /*
     * pages[i], each 0 .. num_pages-1, holds positions 64 i .. 64 i + 63 from now on, for i from 0
     * to count-1 (64 count is at most max_len rounded up to whole pages); the first `length`
     * positions in them are filled, as some sequence of the pool filled them, at the same positions
     * after the same tokens. Before forward() or decode_greedy() writes a position, the host has
     * given it a page that no other sequence has. Allocates nothing.
     */
    void (*set_pages)(myelin_plugin_sequence *sequence, const int32_t *pages, int32_t count,
                      int32_t length);
    /* Copies the content of page `from` to page `to`. */
    void (*copy_page)(myelin_plugin_pool *pool, int32_t to, int32_t from);

    /*
     * decode_greedy() with draws in place of argmaxes, or NULL if not offered: draws[num_sequences]
     * says how each sequence's tokens are chosen. A draw is a function of the logits, of draws[i]
     * and of how many positions the sequence then holds, and to the last bit the one the host
     * makes from the same logits (docs/MODEL.md, "From logits to a token", steps 5 to 9).
     */
    myelin_status (*decode_sample)(myelin_plugin_context *context,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   const myelin_draw *draws, int32_t num_sequences, int32_t steps,
                                   int32_t *out_ids, myelin_error_buffer *error);

    /*
     * Bit t is set when caches of myelin_cache_type t are offered; AUTO always is, and alone where
     * struct_size ends before this member. The host asks for no other; what it asks for is
     * config->cache_type in every call above.
     */
    uint32_t cache_types;

    /*
     * Tokens that a call of forward() is best given when there are as many to read: how much of a
     * prompt the host takes at once, and the max_tokens of its contexts, unless the user says
     * otherwise. 0: as the host likes; else MYELIN_MIN_STEP_TOKENS to MYELIN_MAX_STEP_TOKENS.
     */
    int32_t step_tokens;

    /*
     * Bytes that the weights of a model take as they are held, or NULL if not told; *pack becomes
     * MYELIN_PACK_LOSSLESS when bfloat16 ones are packed, else MYELIN_PACK_NONE: what became of the
     * description's wish.
     */
    uint64_t (*weight_bytes)(const myelin_plugin_model *model, int32_t *pack);
} myelin_plugin;

/* The smallest struct_size of version 1; whether a table is long enough for a member; and whether
 * it has an optional call. */
#define MYELIN_PLUGIN_LEAST_SIZE offsetof(myelin_plugin, decode_sample)
#define MYELIN_PLUGIN_REACHES(plugin, member)                                                      \
    ((plugin)->struct_size >= offsetof(myelin_plugin, member) + sizeof((plugin)->member))
#define MYELIN_PLUGIN_HAS(plugin, member)                                                          \
    (MYELIN_PLUGIN_REACHES(plugin, member) && (plugin)->member != NULL)

/* The symbol a plug-in's shared object exports: const myelin_plugin *myelin_plugin_v1(void) */
#define MYELIN_PLUGIN_ENTRY "myelin_plugin_v1"

#ifdef __cplusplus
}
#endif
#endif
