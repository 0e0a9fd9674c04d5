/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences and the step that moves them on. A sequence is its tokens, its KV cache and the
 * generation running on it; a decoder takes any number of them one step further in one forward
 * pass: those still reading their prompt by a piece of it, the others by one token. Running one
 * sequence is the special case of one; that is why it gives the same tokens.
 */
#ifndef MLN_GENERATE_SEQUENCE_H
#define MLN_GENERATE_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "generate/lookup.h"
#include "generate/sampler.h"
#include "model/model.h"

/* Tokens of one forward pass where neither the plug-in nor the user asks for others: bounds the
 * scratch memory and how long a step can take. */
enum { MLN_STEP_TOKENS = 128 };
int32_t mln_step_tokens(const myelin_plugin *plugin);
/* Most tokens a plug-in makes in one call where it offers chunked decoding. */
enum { MLN_MAX_CHUNK = 32 };

typedef enum mln_phase {
    MLN_IDLE,       /* no generation has begun */
    MLN_READING,    /* tokens are waiting to be read before the first can be chosen */
    MLN_GENERATING, /* one token was chosen by the last step */
    MLN_STOPPED,    /* ended by a stop token */
    MLN_EXHAUSTED   /* ended by max_new_tokens or a full cache */
} mln_phase;

/* Most likely tokens and their log-probabilities; arrays of the caller. */
typedef struct mln_top {
    int32_t count;
    int32_t *ids;    /* [count] */
    float *logprobs; /* [count] */
} mln_top;

typedef struct mln_generation {
    mln_sampling sampling;
    int32_t max_new_tokens;
    const int32_t *stop_ids; /* borrowed while the generation runs */
    size_t num_stop_ids;
    int32_t max_chunk; /* tokens nobody needs one by one; up to 1: each as it comes */
    bool want_logprobs;
    bool speculate; /* drafts are made where the decoder allows them */
} mln_generation;

typedef struct mln_sequence {
    const mln_model *model;
    myelin_plugin_sequence *cache;
    mln_sampler *sampler;
    int32_t max_len; /* positions of the cache */
    int32_t *ids;    /* [max_len + 1]: the last one need not be in the cache */
    int32_t count;   /* tokens held; the cache may lag behind */
    mln_phase phase;
    mln_generation generation;
    int32_t num_generated;
    const int32_t *forced; /* [num_forced], borrowed: the next tokens, whatever the logits say */
    int32_t num_forced;
    const uint32_t *allowed; /* borrowed: what the next choice is among; NULL: all */
    bool fresh;              /* the last step chose a token */
    /* Tokens of a chunk that the plug-in has made and no step has taken yet. */
    int32_t ready[MLN_MAX_CHUNK];
    int32_t num_ready, next_ready;
    mln_lookup lookup;
    int32_t num_drafted; /* tokens after the last one, in ids, that this step tries */
    float *logprobs;     /* [vocab_size] of the last choice, when want_logprobs */
} mln_sequence;

/* Bytes of all a sequence owns, and of a decoder for num_sequences of at most max_len. */
uint64_t mln_sequence_bytes(const myelin_plugin *plugin, const myelin_config *config,
                            int32_t max_len);
uint64_t mln_decoder_bytes(const myelin_plugin *plugin, const myelin_config *config,
                           int32_t num_sequences, int32_t max_len);

myelin_status mln_sequence_create(mln_sequence **sequence, const mln_model *model, int32_t max_len,
                                  myelin_error *error);
void mln_sequence_free(mln_sequence *sequence); /* accepts NULL */

/* One whose positions, max_len at most, lie in pages of the pool; it has none yet. */
myelin_status mln_sequence_create_paged(mln_sequence **sequence, const mln_model *model,
                                        myelin_plugin_pool *pool, int32_t max_len,
                                        myelin_error *error);
/*
 * Of a sequence with pages: it holds these ids (checked, at most max_len) and nothing else, and has
 * no pages. max_len is at most what it was made for.
 */
void mln_sequence_restart(mln_sequence *sequence, const int32_t *ids, int32_t count,
                          int32_t max_len);
/* These are its pages now; `length` of its tokens are in them. */
void mln_sequence_set_pages(mln_sequence *sequence, const int32_t *pages, int32_t count,
                            int32_t length);
/* It has no pages any more; once it has some its generation goes on, tokens being read again. */
void mln_sequence_suspend(mln_sequence *sequence);

/* MYELIN_ERROR_ARGUMENT unless each id is one of the model's. */
myelin_status mln_check_ids(const mln_model *model, const int32_t *ids, size_t count,
                            myelin_error *error);

/*
 * Appends ids (each checked against the vocabulary); MYELIN_ERROR_CACHE_FULL when they do not fit.
 * A failure changes nothing.
 */
myelin_status mln_sequence_append(mln_sequence *sequence, const int32_t *ids, size_t count,
                                  myelin_error *error);
/* The same in place of all it holds; the cache of the longest common prefix is kept. */
myelin_status mln_sequence_set(mln_sequence *sequence, const int32_t *ids, size_t count,
                               myelin_error *error);
/* Forgets the tokens from `count` on; the cache keeps what is before. */
void mln_sequence_truncate(mln_sequence *sequence, int32_t count);
/* Positions in the cache: how many tokens need not be read again. */
int32_t mln_sequence_cached(const mln_sequence *sequence);

/* Begins generating after the tokens held (at least one). */
myelin_status mln_sequence_begin(mln_sequence *sequence, const mln_generation *generation,
                                 myelin_error *error);

/* Makes the next `count` tokens of the generation these; ids outlive it. */
void mln_sequence_force(mln_sequence *sequence, const int32_t *ids, int32_t count);

/* The next choice is among these tokens (see mln_sampler_allow); the mask outlives it. */
void mln_sequence_allow(mln_sequence *sequence, const uint32_t *mask);

/* Fills top->ids and top->logprobs, best first, from log-probabilities of a whole vocabulary. */
void mln_top_of(const float *logprobs, int32_t vocab_size, mln_top *top);

/* Scratch memory for steps of up to max_sequences sequences. */
typedef struct mln_decoder {
    const mln_model *model;
    myelin_plugin_context *context;
    int32_t max_sequences;
    int32_t max_len;
    int32_t step_tokens;   /* of one step, at most */
    int32_t prompt_tokens; /* so many of them for more than one of each sequence; to be set */
    int32_t max_chunk;     /* up to MLN_MAX_CHUNK; to be set */
    int32_t num_spans;     /* of the last step; 0: it only handed out tokens, */
    int32_t num_tokens;    /* and how many tokens it computed */
    int32_t max_draft;     /* tokens drafted in a step */
    float *logits;         /* [max_sequences + max_draft][vocab_size] */
    myelin_span *spans;    /* [max_sequences] */
    int32_t *owner;        /* [max_sequences]: which of the step's sequences a span belongs to */
    /* Of a chunk, one for each span: */
    myelin_plugin_sequence **caches;
    myelin_draw *draws;
    int32_t *last_ids; /* the newest token, not yet in the cache */
    int32_t *chunk;    /* [max_sequences][MLN_MAX_CHUNK] */
} mln_decoder;

/* Steps have room for a token of each sequence, and for mln_step_tokens() of a plug-in. */
myelin_status mln_decoder_create(mln_decoder **decoder, const mln_model *model,
                                 int32_t max_sequences, int32_t max_len, myelin_error *error);
/* The same with another number of tokens than the plug-in's, unless step_tokens is 0. */
myelin_status mln_decoder_create_wide(mln_decoder **decoder, const mln_model *model,
                                      int32_t max_sequences, int32_t max_len, int32_t step_tokens,
                                      myelin_error *error);
void mln_decoder_free(mln_decoder *decoder); /* accepts NULL */
/* Makes room for sequences of max_len positions; keeps what it has on failure. */
myelin_status mln_decoder_reserve(mln_decoder *decoder, int32_t max_len, myelin_error *error);

/* Lets steps try up to `most` drafted tokens (cut to MLN_LOOKUP_MOST): makes room for their logits.
 */
myelin_status mln_decoder_allow_drafts(mln_decoder *decoder, int32_t most, myelin_error *error);

/*
 * One step of all sequences that are reading or generating; the others (and NULLs) are passed over.
 * A sequence whose tokens were all read has one token more after it, in phase GENERATING or ended;
 * one whose prompt is longer than the step's share stays READING. Where the plug-in decodes in
 * chunks, a step may only hand out tokens made before: then sequences without such tokens wait, so
 * that all compute together again; `fresh` tells which have a new token. Drafted tokens are tried
 * in the same pass and taken where the model chooses them too. Allocates nothing.
 */
myelin_status mln_decoder_step(mln_decoder *decoder, mln_sequence *const *sequences, int32_t count,
                               myelin_error *error);

#endif
