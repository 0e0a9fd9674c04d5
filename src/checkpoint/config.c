/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "checkpoint/json_fields.h"
#include "checkpoint/quantization_config.h"
#include "checkpoint/rope_config.h"
#include "myelin/tensor.h"

/* What transformers' Qwen3Config takes when the file does not say. */
enum { DEFAULT_HEAD_DIM = 128, DEFAULT_MAX_POSITIONS = 32768 };
#define DEFAULT_RMS_NORM_EPS 1e-6

static const char architecture[] = "Qwen3ForCausalLM";
static const char model_type[] = "qwen3";

/* True when `architectures` is there; *ours when it lists the one we know. */
static myelin_status read_architectures(const mln_fields *root, bool *given, bool *ours) {
    const json_t *list = mln_field_get(root, "architectures");
    *given = list != NULL;
    *ours = false;
    if (!list)
        return MYELIN_OK;
    if (!json_is_array(list))
        return mln_field_fail(root, MYELIN_ERROR_FORMAT, "architectures", "a list of strings");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name)
            return mln_fail(root->error, MYELIN_ERROR_FORMAT, root->file, -1,
                            "architectures: expected a list of strings, found %s in it",
                            mln_json_type_name(json_array_get(list, i)));
        *ours = *ours || strcmp(name, architecture) == 0;
    }
    return MYELIN_OK;
}

static myelin_status check_architecture(const mln_fields *root) {
    bool given, ours;
    const char *type = NULL;
    myelin_status status = mln_field_string(root, "model_type", MLN_FIELD_NULLABLE, &type);
    if (status == MYELIN_OK)
        status = read_architectures(root, &given, &ours);
    if (status != MYELIN_OK)
        return status;
    if (type ? strcmp(type, model_type) != 0 : !given)
        return mln_field_fail(root, MYELIN_ERROR_UNSUPPORTED, "model_type", "\"qwen3\"");
    if (given && !ours) {
        const json_t *first = json_array_get(json_object_get(root->object, "architectures"), 0);
        char text[MLN_VALUE_TEXT];
        return mln_fail(root->error, MYELIN_ERROR_UNSUPPORTED, root->file, -1,
                        "architectures: expected \"%s\", found %s", architecture,
                        mln_json_describe(first, text));
    }
    return MYELIN_OK;
}

static myelin_status read_sizes(myelin_config *m, const mln_fields *root) {
    const struct {
        const char *key;
        mln_presence presence;
        int32_t high;
        int32_t *value;
    } sizes[] = {
        {"vocab_size", MLN_FIELD_REQUIRED, MLN_CONFIG_MAX_WIDTH, &m->vocab_size},
        {"hidden_size", MLN_FIELD_REQUIRED, MLN_CONFIG_MAX_WIDTH, &m->hidden_size},
        {"intermediate_size", MLN_FIELD_REQUIRED, MLN_CONFIG_MAX_WIDTH, &m->intermediate_size},
        {"num_hidden_layers", MLN_FIELD_REQUIRED, MLN_CONFIG_MAX_LAYERS, &m->num_hidden_layers},
        {"num_attention_heads", MLN_FIELD_REQUIRED, MLN_CONFIG_MAX_HEADS, &m->num_attention_heads},
        {"num_key_value_heads", MLN_FIELD_NULLABLE, MLN_CONFIG_MAX_HEADS, &m->num_key_value_heads},
        {"head_dim", MLN_FIELD_OPTIONAL, MLN_CONFIG_MAX_HEAD_DIM, &m->head_dim},
        {"max_position_embeddings", MLN_FIELD_OPTIONAL, MLN_CONFIG_MAX_POSITIONS,
         &m->max_position_embeddings},
    };
    m->head_dim = DEFAULT_HEAD_DIM;
    m->max_position_embeddings = DEFAULT_MAX_POSITIONS;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        myelin_status status = mln_field_int32(root, sizes[i].key, sizes[i].presence, 1,
                                               sizes[i].high, sizes[i].value);
        if (status != MYELIN_OK)
            return status;
    }
    if (m->num_key_value_heads == 0)
        m->num_key_value_heads = m->num_attention_heads;
    if (m->num_attention_heads % m->num_key_value_heads != 0)
        return mln_fail(root->error, MYELIN_ERROR_FORMAT, root->file, -1,
                        "num_attention_heads (%" PRId32
                        ") is not a multiple of num_key_value_heads (%" PRId32 ")",
                        m->num_attention_heads, m->num_key_value_heads);
    if (m->head_dim % 2 != 0)
        return mln_fail(root->error, MYELIN_ERROR_FORMAT, root->file, -1,
                        "head_dim: expected an even number, found %" PRId32, m->head_dim);
    return MYELIN_OK;
}

/* Variants of the architecture that are not computed here, each switched on by a boolean. */
static myelin_status refuse_variants(const mln_fields *root) {
    static const char *const keys[] = {"attention_bias", "mlp_bias", "use_sliding_window"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        bool on = false;
        myelin_status status = mln_field_bool(root, keys[i], MLN_FIELD_NULLABLE, &on);
        if (status != MYELIN_OK)
            return status;
        if (on)
            return mln_field_fail(root, MYELIN_ERROR_UNSUPPORTED, keys[i], "false");
    }
    const char *activation = "silu";
    myelin_status status = mln_field_string(root, "hidden_act", MLN_FIELD_OPTIONAL, &activation);
    if (status == MYELIN_OK && strcmp(activation, "silu") != 0)
        status = mln_field_fail(root, MYELIN_ERROR_UNSUPPORTED, "hidden_act", "\"silu\"");
    return status;
}

static myelin_status check_layer_types(const mln_fields *root, int32_t num_layers) {
    const json_t *types = mln_field_get(root, "layer_types");
    if (!types)
        return MYELIN_OK;
    if (!json_is_array(types))
        return mln_field_fail(root, MYELIN_ERROR_FORMAT, "layer_types", "a list of strings");
    if (json_array_size(types) != (size_t)num_layers)
        return mln_fail(root->error, MYELIN_ERROR_FORMAT, root->file, -1,
                        "layer_types: expected %" PRId32 " entries (num_hidden_layers), found %zu",
                        num_layers, json_array_size(types));
    for (size_t i = 0; i < json_array_size(types); i++) {
        const json_t *type = json_array_get(types, i);
        const char *name = json_string_value(type);
        char text[MLN_VALUE_TEXT];
        if (!name || strcmp(name, "full_attention") != 0)
            return mln_fail(root->error, name ? MYELIN_ERROR_UNSUPPORTED : MYELIN_ERROR_FORMAT,
                            root->file, -1,
                            "layer_types[%zu]: expected \"full_attention\", found %s", i,
                            mln_json_describe(type, text));
    }
    return MYELIN_OK;
}

/* `torch_dtype` or, since transformers 5, `dtype`: information only, the tensors say for sure. */
static myelin_status read_dtype(myelin_config *m, const mln_fields *root) {
    const char *key = mln_field_get(root, "torch_dtype") ? "torch_dtype" : "dtype";
    const char *name = "";
    myelin_status status = mln_field_string(root, key, MLN_FIELD_NULLABLE, &name);
    m->torch_dtype = strcmp(name, "float32") == 0    ? MYELIN_DTYPE_F32
                     : strcmp(name, "float16") == 0  ? MYELIN_DTYPE_F16
                     : strcmp(name, "bfloat16") == 0 ? MYELIN_DTYPE_BF16
                                                     : MYELIN_DTYPE_AUTO;
    return status;
}

static myelin_status read_config(mln_model_config *config, const mln_fields *root) {
    myelin_config *m = &config->model;
    bool tied = false;
    myelin_status status = check_architecture(root);
    if (status == MYELIN_OK)
        status = refuse_variants(root);
    if (status == MYELIN_OK)
        status = read_sizes(m, root);
    if (status == MYELIN_OK)
        status = check_layer_types(root, m->num_hidden_layers);
    m->rms_norm_eps = DEFAULT_RMS_NORM_EPS;
    if (status == MYELIN_OK)
        status = mln_field_number(root, "rms_norm_eps", MLN_FIELD_OPTIONAL, (mln_range){0, 1, true},
                                  &m->rms_norm_eps);
    if (status == MYELIN_OK)
        status = mln_field_bool(root, "tie_word_embeddings", MLN_FIELD_OPTIONAL, &tied);
    m->tie_word_embeddings = tied;
    if (status == MYELIN_OK)
        status = read_dtype(m, root);
    if (status == MYELIN_OK)
        status = mln_rope_parse(&m->rope, root, m->max_position_embeddings);
    if (status == MYELIN_OK)
        status = mln_field_ids(root, "eos_token_id", config->stop_ids, MLN_CONFIG_MAX_STOP_IDS,
                               &config->num_stop_ids);
    if (status == MYELIN_OK)
        status = mln_quantization_parse(config, root);
    return status;
}

myelin_status mln_config_parse(mln_model_config *config, const char *json, size_t length,
                               const char *file, myelin_error *error) {
    json_t *root;
    myelin_status status = mln_json_load(&root, json, length, file, error);
    if (status != MYELIN_OK)
        return status;
    *config = (mln_model_config){0};
    if (json_is_object(root)) {
        mln_fields fields = {root, file, "", error};
        status = read_config(config, &fields);
    } else {
        status = mln_fail(error, MYELIN_ERROR_FORMAT, file, -1, "expected an object, found %s",
                          mln_json_type_name(root));
    }
    json_decref(root);
    if (status != MYELIN_OK)
        mln_config_free(config);
    return status;
}

void mln_config_free(mln_model_config *config) {
    for (size_t i = 0; i < config->num_overrides; i++)
        free(config->overrides[i].module);
    free(config->overrides);
    *config = (mln_model_config){0};
}
