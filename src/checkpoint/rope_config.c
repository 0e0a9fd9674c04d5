/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/rope_config.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "checkpoint/config.h"

/* What transformers' Qwen3Config takes when the file does not say; Qwen's own files always do. */
#define DEFAULT_ROPE_THETA 10000.0

static const mln_range any_positive = {0, 1e300, true};
static const mln_range not_negative = {0, 1e300, false};

/* `rope_scaling` (as published) or `rope_parameters` (transformers 5), NULL when neither says. */
static myelin_status find_section(const mln_fields *root, mln_fields *section) {
    static const struct {
        const char *key, *prefix;
    } spellings[] = {{"rope_scaling", "rope_scaling."}, {"rope_parameters", "rope_parameters."}};
    *section = (mln_fields){NULL, root->file, "", root->error};
    for (size_t i = 0; i < 2; i++) {
        const json_t *object = mln_field_get(root, spellings[i].key);
        if (!object)
            continue;
        if (!json_is_object(object))
            return mln_field_fail(root, MYELIN_ERROR_FORMAT, spellings[i].key, "an object");
        if (json_object_size(object) == 0)
            continue;
        section->object = object;
        section->section = spellings[i].prefix;
        return MYELIN_OK;
    }
    return MYELIN_OK;
}

/* The section's rope_theta goes before the one beside it. */
static myelin_status read_theta(myelin_rope_config *rope, const mln_fields *root,
                                const mln_fields *section) {
    rope->theta = DEFAULT_ROPE_THETA;
    myelin_status status =
        mln_field_number(root, "rope_theta", MLN_FIELD_NULLABLE, any_positive, &rope->theta);
    if (status == MYELIN_OK)
        status =
            mln_field_number(section, "rope_theta", MLN_FIELD_NULLABLE, any_positive, &rope->theta);
    return status;
}

static myelin_status refuse_partial(const mln_fields *fields) {
    double share = 1;
    myelin_status status = mln_field_number(fields, "partial_rotary_factor", MLN_FIELD_NULLABLE,
                                            (mln_range){0, 1, false}, &share);
    if (status == MYELIN_OK && share != 1)
        status = mln_field_fail(fields, MYELIN_ERROR_UNSUPPORTED, "partial_rotary_factor", "1");
    return status;
}

/* "YaRN" section 3.4: how much longer contexts soften the attention, times a DeepSeek-style scale.
 */
static double yarn_mscale(double factor, double scale) {
    return factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1;
}

static myelin_status read_attention_factor(myelin_rope_config *rope, const mln_fields *section) {
    double given = 0, mscale = 0, mscale_all_dim = 0;
    myelin_status status =
        mln_field_number(section, "attention_factor", MLN_FIELD_NULLABLE, any_positive, &given);
    if (status == MYELIN_OK)
        status = mln_field_number(section, "mscale", MLN_FIELD_NULLABLE, not_negative, &mscale);
    if (status == MYELIN_OK)
        status = mln_field_number(section, "mscale_all_dim", MLN_FIELD_NULLABLE, not_negative,
                                  &mscale_all_dim);
    if (status != MYELIN_OK)
        return status;
    if (given > 0)
        rope->attention_factor = given;
    else if (mscale > 0 && mscale_all_dim > 0) /* 0 counts as absent */
        rope->attention_factor =
            yarn_mscale(rope->factor, mscale) / yarn_mscale(rope->factor, mscale_all_dim);
    else
        rope->attention_factor = yarn_mscale(rope->factor, 1);
    return MYELIN_OK;
}

/* beta_fast and beta_slow: 0 and null stand for the default. */
static myelin_status read_betas(myelin_rope_config *rope, const mln_fields *section) {
    double fast = 0, slow = 0;
    myelin_status status =
        mln_field_number(section, "beta_fast", MLN_FIELD_NULLABLE, not_negative, &fast);
    if (status == MYELIN_OK)
        status = mln_field_number(section, "beta_slow", MLN_FIELD_NULLABLE, not_negative, &slow);
    rope->beta_fast = fast > 0 ? fast : 32;
    rope->beta_slow = slow > 0 ? slow : 1;
    if (status == MYELIN_OK && rope->beta_fast < rope->beta_slow)
        status = mln_fail(section->error, MYELIN_ERROR_FORMAT, section->file, -1,
                          "%sbeta_fast (%g) is less than beta_slow (%g)", section->section,
                          rope->beta_fast, rope->beta_slow);
    return status;
}

/* A top-level original_max_position_embeddings goes before the section's, as in transformers. */
static myelin_status read_original(myelin_rope_config *rope, const mln_fields *root,
                                   const mln_fields *section, int32_t max_position_embeddings) {
    static const char key[] = "original_max_position_embeddings";
    int32_t original = max_position_embeddings;
    myelin_status status =
        mln_field_int32(section, key, MLN_FIELD_NULLABLE, 1, MLN_CONFIG_MAX_POSITIONS, &original);
    if (status == MYELIN_OK)
        status =
            mln_field_int32(root, key, MLN_FIELD_NULLABLE, 1, MLN_CONFIG_MAX_POSITIONS, &original);
    rope->original_max_position_embeddings = original;
    return status;
}

static myelin_status read_yarn(myelin_rope_config *rope, const mln_fields *root,
                               const mln_fields *section, int32_t max_position_embeddings) {
    bool truncate = true;
    rope->type = MYELIN_ROPE_YARN;
    if (rope->theta <= 1) /* its logarithm divides */
        return mln_fail(section->error, MYELIN_ERROR_FORMAT, section->file, -1,
                        "rope_theta: expected a number above 1 for yarn, found %g", rope->theta);
    myelin_status status = read_original(rope, root, section, max_position_embeddings);
    if (status != MYELIN_OK)
        return status;
    /* The key must be there, but null asks for the ratio of the two context lengths. */
    if (json_is_null(json_object_get(section->object, "factor")))
        rope->factor =
            (double)max_position_embeddings / (double)rope->original_max_position_embeddings;
    else
        status = mln_field_number(section, "factor", MLN_FIELD_REQUIRED, (mln_range){1, 1e6, false},
                                  &rope->factor);
    if (status == MYELIN_OK)
        status = read_attention_factor(rope, section);
    if (status == MYELIN_OK)
        status = read_betas(rope, section);
    if (status == MYELIN_OK)
        status = mln_field_bool(section, "truncate", MLN_FIELD_NULLABLE, &truncate);
    rope->truncate = truncate;
    return status;
}

/* transformers can nest one section per kind of layer; Qwen3 has one kind. */
static myelin_status refuse_nested(const mln_fields *section) {
    const char *key;
    json_t *value;
    /* The macro only reads, but its parameter is not const. */
    json_object_foreach((json_t *)(uintptr_t)section->object, key, value) {
        if (json_is_object(value))
            return mln_field_fail(section, MYELIN_ERROR_UNSUPPORTED, key,
                                  "one set of rope parameters for all layers");
    }
    return MYELIN_OK;
}

myelin_status mln_rope_parse(myelin_rope_config *rope, const mln_fields *root,
                             int32_t max_position_embeddings) {
    mln_fields section;
    *rope = (myelin_rope_config){.type = MYELIN_ROPE_DEFAULT, .attention_factor = 1};
    myelin_status status = find_section(root, &section);
    if (status == MYELIN_OK)
        status = read_theta(rope, root, &section);
    if (status == MYELIN_OK)
        status = refuse_partial(root);
    if (status != MYELIN_OK || !section.object)
        return status;
    status = refuse_nested(&section);
    if (status == MYELIN_OK)
        status = refuse_partial(&section);
    if (status != MYELIN_OK)
        return status;
    const char *key = mln_field_get(&section, "rope_type") ? "rope_type" : "type";
    const char *type = "default";
    status = mln_field_string(&section, key, MLN_FIELD_NULLABLE, &type);
    if (status != MYELIN_OK || strcmp(type, "default") == 0)
        return status;
    if (strcmp(type, "yarn") == 0)
        return read_yarn(rope, root, &section, max_position_embeddings);
    return mln_field_fail(&section, MYELIN_ERROR_UNSUPPORTED, key, "\"default\" or \"yarn\"");
}
