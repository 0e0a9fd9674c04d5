/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the application and the plug-in contract share: the hyperparameters of a Qwen3 dense model
 * and the rungs of native fusion.
 *
 * The hyperparameters stand under the names config.json gives them. Filled and
 * checked when a checkpoint is opened; every combination that reaches the reader of this struct can
 * be computed with (heads divide, head_dim is even, sizes fit in int32_t).
 */
#ifndef MYELIN_CONFIG_H
#define MYELIN_CONFIG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum myelin_rope_type { MYELIN_ROPE_DEFAULT = 0, MYELIN_ROPE_YARN = 1 } myelin_rope_type;

/*
 * Rotary embedding. For YARN see Peng et al., "YaRN: Efficient Context Window Extension of Large
 * Language Models" (arXiv:2309.00071); the defaults of absent keys are those of transformers.
 */
typedef struct myelin_rope_config {
    int32_t type;            /* a myelin_rope_type */
    int32_t truncate;        /* YARN: round the correction range to whole dimensions; default 1 */
    double theta;            /* base of the frequencies, rope_theta */
    double factor;           /* YARN: context extension factor */
    double beta_fast;        /* YARN: default 32 */
    double beta_slow;        /* YARN: default 1 */
    double attention_factor; /* multiplies cos and sin; resolved, 1 unless YARN */
    int64_t original_max_position_embeddings; /* YARN: context length before extension */
} myelin_rope_config;

typedef struct myelin_config {
    int32_t vocab_size;        /* rows of embed_tokens; ids are 0 .. vocab_size-1 */
    int32_t hidden_size;       /* width of the residual stream */
    int32_t intermediate_size; /* width of the MLP */
    int32_t num_hidden_layers;
    int32_t num_attention_heads; /* query heads */
    int32_t num_key_value_heads; /* divides num_attention_heads */
    int32_t head_dim;            /* even; not necessarily hidden_size / num_attention_heads */
    int32_t tie_word_embeddings; /* 1: the LM head is embed_tokens */
    int32_t max_position_embeddings;
    int32_t torch_dtype; /* a myelin_dtype as declared, or 0; a plug-in is shown what k_proj is
                            stored as */
    double rms_norm_eps;
    myelin_rope_config rope;
    int32_t quantization_bits;       /* of the `quantization` section, 0 when there is none */
    int32_t quantization_group_size; /* likewise; single tensors may differ */
    int32_t cache_type; /* a myelin_cache_type: how a plug-in is to hold keys and values */
} myelin_config;

/*
 * How much of the model runs as fused native code: the rungs of the ladder (docs/ARCHITECTURE.md),
 * each including the ones before it.
 */
typedef enum myelin_fusion {
    MYELIN_FUSION_AUTO = 0, /* the highest there is */
    MYELIN_FUSION_COMPOSED = 1,
    MYELIN_FUSION_KV_ATTENTION = 2,
    MYELIN_FUSION_MLP = 3,
    MYELIN_FUSION_ATTENTION_BLOCK = 4,
    MYELIN_FUSION_LAYER = 5,
    MYELIN_FUSION_GREEDY = 6, /* all layers and the greedy pick in one call */
    MYELIN_FUSION_CHUNK = 7   /* several greedy tokens in one call */
} myelin_fusion;

/* Whether a plug-in may store bfloat16 weights in fewer bits, with the same results to the last
 * one. */
typedef enum myelin_pack {
    MYELIN_PACK_AUTO = 0,    /* as the plug-in finds to be fastest */
    MYELIN_PACK_NONE = 1,    /* as they are */
    MYELIN_PACK_LOSSLESS = 2 /* packed, where the plug-in can */
} myelin_pack;

/*
 * What weights are multiplied with, dense bfloat16 ones unless said otherwise. F32 gives the same
 * sums on every processor with fused products. BF16X2 cuts an activation in two bfloat16 numbers,
 * which is to keep 16 bits of it: no less exact than adding the products up in single precision,
 * and many times as fast on processors with AMX. BF16 rounds activations to bfloat16, but not those
 * of the LM head: log-probabilities move by some hundredths, and prompts are read faster still.
 * INT8 does the like for weights of 4 and 8 bits: activations, but not those of the LM head, become
 * bytes, with a scale for each group, in place of 16 bits. A wish that the processor has no
 * instructions for is F32's.
 */
typedef enum myelin_activations {
    MYELIN_ACTIVATIONS_AUTO = 0, /* BF16X2 where there are instructions for it, otherwise F32 */
    MYELIN_ACTIVATIONS_BF16 = 1,
    MYELIN_ACTIVATIONS_F32 = 2,
    MYELIN_ACTIVATIONS_BF16X2 = 3,
    MYELIN_ACTIVATIONS_INT8 = 4
} myelin_activations;

/* How keys and values are held between tokens. The text changes with it, by a little. */
typedef enum myelin_cache_type {
    MYELIN_CACHE_AUTO = 0, /* as the plug-in thinks right for the weights */
    MYELIN_CACHE_F32 = 1,
    MYELIN_CACHE_F16 = 2,
    MYELIN_CACHE_INT8 = 3 /* whole numbers -127 to 127, times one scale for each position and kv
                             head, of keys and of values */
} myelin_cache_type;

#ifdef __cplusplus
}
#endif
#endif
