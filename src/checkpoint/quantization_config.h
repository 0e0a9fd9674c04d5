/* SPDX-License-Identifier: Apache-2.0 */
/* The `quantization` section of an MLX checkpoint's config.json. */
#ifndef MLN_CHECKPOINT_QUANTIZATION_CONFIG_H
#define MLN_CHECKPOINT_QUANTIZATION_CONFIG_H

#include "checkpoint/config.h"
#include "checkpoint/json_fields.h"

/*
 * Fills quantization_* and overrides from config.json's root. After a failure too the overrides are
 * the caller's to free with mln_config_free().
 */
myelin_status mln_quantization_parse(mln_model_config *config, const mln_fields *root);

#endif
