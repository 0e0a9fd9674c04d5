/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/quantization_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

/* What MLX takes for a key that a per-tensor entry leaves out: not the section's own values. */
enum { MLX_DEFAULT_BITS = 4, MLX_DEFAULT_GROUP_SIZE = 64 };

static bool known_bits(int32_t bits) {
    return bits == 4 || bits == 8;
}

static bool known_group_size(int32_t size) {
    return size == 32 || size == 64 || size == 128;
}

/* {"bits", "group_size", "mode"}: of the whole section, or of one tensor's entry in it. */
static myelin_status read_scheme(const mln_fields *fields, mln_presence presence, int32_t *bits,
                                 int32_t *group_size) {
    const char *mode = "affine";
    myelin_status status = mln_field_string(fields, "mode", MLN_FIELD_NULLABLE, &mode);
    if (status == MYELIN_OK && strcmp(mode, "affine") != 0)
        status = mln_field_fail(fields, MYELIN_ERROR_UNSUPPORTED, "mode", "\"affine\"");
    if (status == MYELIN_OK)
        status = mln_field_int32(fields, "bits", presence, 1, 64, bits);
    if (status == MYELIN_OK && !known_bits(*bits))
        status = mln_field_fail(fields, MYELIN_ERROR_UNSUPPORTED, "bits", "4 or 8");
    if (status == MYELIN_OK)
        status = mln_field_int32(fields, "group_size", presence, 1, 1 << 20, group_size);
    if (status == MYELIN_OK && !known_group_size(*group_size))
        status = mln_field_fail(fields, MYELIN_ERROR_UNSUPPORTED, "group_size", "32, 64 or 128");
    return status;
}

/* One tensor's entry: an object, false (dense) or true (like the rest). */
static myelin_status read_override(const mln_model_config *config, const mln_fields *section,
                                   const char *module, const json_t *value,
                                   mln_quantization_override *out) {
    out->bits = 0;
    out->group_size = 0;
    if (json_is_true(value)) {
        out->bits = config->model.quantization_bits;
        out->group_size = config->model.quantization_group_size;
    } else if (json_is_object(value)) {
        char name[320];
        snprintf(name, sizeof name, "%s%.256s.", section->section, module);
        mln_fields entry = {value, section->file, name, section->error};
        out->bits = MLX_DEFAULT_BITS;
        out->group_size = MLX_DEFAULT_GROUP_SIZE;
        myelin_status status =
            read_scheme(&entry, MLN_FIELD_OPTIONAL, &out->bits, &out->group_size);
        if (status != MYELIN_OK)
            return status;
    }
    out->module = mln_strndup(module, strlen(module));
    return out->module ? MYELIN_OK
                       : mln_fail_memory(section->error, strlen(module), "a quantization entry");
}

static int by_module(const void *a, const void *b) {
    return strcmp(((const mln_quantization_override *)a)->module,
                  ((const mln_quantization_override *)b)->module);
}

/* Members that are objects or booleans are about single tensors; the rest are other settings. */
static myelin_status read_overrides(mln_model_config *config, const mln_fields *section) {
    size_t count = json_object_size(section->object);
    config->overrides = mln_calloc(count, sizeof *config->overrides);
    if (!config->overrides)
        return mln_fail_memory(section->error, count * sizeof *config->overrides,
                               "quantization entries");
    const char *key;
    json_t *value;
    /* The macro only reads, but its parameter is not const. */
    json_object_foreach((json_t *)(uintptr_t)section->object, key, value) {
        if (!json_is_object(value) && !json_is_boolean(value))
            continue;
        mln_quantization_override *next = &config->overrides[config->num_overrides];
        myelin_status status = read_override(config, section, key, value, next);
        if (status != MYELIN_OK)
            return status;
        config->num_overrides++;
    }
    qsort(config->overrides, config->num_overrides, sizeof *config->overrides, by_module);
    return MYELIN_OK;
}

myelin_status mln_quantization_parse(mln_model_config *config, const mln_fields *root) {
    /* mlx-lm writes the section twice; `quantization_config` alone belongs to other methods. */
    const char *key = "quantization";
    const json_t *object = mln_field_get(root, key);
    if (!object) {
        key = "quantization_config";
        object = mln_field_get(root, key);
    }
    if (!object)
        return MYELIN_OK;
    if (!json_is_object(object))
        return mln_field_fail(root, MYELIN_ERROR_FORMAT, key, "an object");
    char name[32];
    snprintf(name, sizeof name, "%s.", key);
    mln_fields section = {object, root->file, name, root->error};
    if (strcmp(key, "quantization_config") == 0 && json_object_get(object, "quant_method"))
        return mln_field_fail(&section, MYELIN_ERROR_UNSUPPORTED, "quant_method",
                              "MLX affine quantization (a `quantization` section)");
    myelin_status status =
        read_scheme(&section, MLN_FIELD_REQUIRED, &config->model.quantization_bits,
                    &config->model.quantization_group_size);
    return status == MYELIN_OK ? read_overrides(config, &section) : status;
}

const mln_quantization_override *mln_config_override(const mln_model_config *config,
                                                     const char *module) {
    /* bsearch() wants a whole element; only its name is looked at. */
    mln_quantization_override key = {.module = (char *)(uintptr_t)module};
    if (config->num_overrides == 0)
        return NULL;
    return bsearch(&key, config->overrides, config->num_overrides, sizeof key, by_module);
}
