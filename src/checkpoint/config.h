/* SPDX-License-Identifier: Apache-2.0 */
/* config.json and generation_config.json. */
#ifndef MLN_CHECKPOINT_CONFIG_H
#define MLN_CHECKPOINT_CONFIG_H

#include <stdbool.h>

#include "myelin/config.h"
#include "myelin/status.h"

/* Caps on what a config.json may ask for; far above the largest Qwen3. */
enum {
    MLN_CONFIG_MAX_LAYERS = 1024,
    MLN_CONFIG_MAX_HEADS = 4096,
    MLN_CONFIG_MAX_HEAD_DIM = 4096,
    MLN_CONFIG_MAX_WIDTH = 1 << 24, /* hidden_size, intermediate_size, vocab_size */
    MLN_CONFIG_MAX_POSITIONS = 1 << 28,
    MLN_CONFIG_MAX_STOP_IDS = 64
};

/* One entry of the `quantization` section's per-tensor part: {"model.layers.0.mlp.up_proj": {...}}.
 */
typedef struct mln_quantization_override {
    char *module;       /* tensor name without ".weight" */
    int32_t bits;       /* 0: this tensor is dense (the entry is false) */
    int32_t group_size; /* 0 when dense */
} mln_quantization_override;

typedef struct mln_model_config {
    myelin_config model;
    int32_t stop_ids[MLN_CONFIG_MAX_STOP_IDS]; /* eos_token_id: a number, a list or absent */
    int32_t num_stop_ids;
    mln_quantization_override *overrides; /* owned, sorted by module */
    size_t num_overrides;
} mln_model_config;

/* generation_config.json; `has_*` is false where the file says nothing (or there is no file). */
typedef struct mln_generation_config {
    int32_t stop_ids[MLN_CONFIG_MAX_STOP_IDS];
    int32_t num_stop_ids;
    bool do_sample;
    bool has_temperature, has_top_k, has_top_p, has_min_p, has_repetition_penalty;
    double temperature, top_p, min_p, repetition_penalty;
    int32_t top_k;
} mln_generation_config;

/* From memory (the fuzzed entrance); `file` names it in errors. Free after success only. */
myelin_status mln_config_parse(mln_model_config *config, const char *json, size_t length,
                               const char *file, myelin_error *error);
void mln_config_free(mln_model_config *config);

/* The `quantization` section's entry for that module, or NULL. */
const mln_quantization_override *mln_config_override(const mln_model_config *config,
                                                     const char *module);

myelin_status mln_generation_config_parse(mln_generation_config *config, const char *json,
                                          size_t length, const char *file, myelin_error *error);

#endif
