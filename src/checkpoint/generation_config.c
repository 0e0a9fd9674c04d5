/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/config.h"
#include "checkpoint/json_fields.h"

#include <string.h>

#include "base/error.h"

/* One optional number of the file; a null counts as absent, as transformers writes it so. */
static myelin_status read_number(const mln_fields *fields, const char *key, mln_range range,
                                 double *value, bool *has) {
    myelin_status status = mln_field_number(fields, key, MLN_FIELD_NULLABLE, range, value);
    *has = status == MYELIN_OK && mln_field_get(fields, key) != NULL;
    return status;
}

static myelin_status read_sampling(mln_generation_config *c, const mln_fields *fields) {
    const struct {
        const char *key;
        mln_range range;
        double *value;
        bool *has;
    } numbers[] = {
        {"temperature", {0, 1e6, false}, &c->temperature, &c->has_temperature},
        {"top_p", {0, 1, false}, &c->top_p, &c->has_top_p},
        {"min_p", {0, 1, false}, &c->min_p, &c->has_min_p},
        {"repetition_penalty", {0, 1e6, true}, &c->repetition_penalty, &c->has_repetition_penalty},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        myelin_status status =
            read_number(fields, numbers[i].key, numbers[i].range, numbers[i].value, numbers[i].has);
        if (status != MYELIN_OK)
            return status;
    }
    myelin_status status =
        mln_field_int32(fields, "top_k", MLN_FIELD_NULLABLE, 0, INT32_MAX, &c->top_k);
    c->has_top_k = status == MYELIN_OK && mln_field_get(fields, "top_k") != NULL;
    return status;
}

myelin_status mln_generation_config_parse(mln_generation_config *config, const char *json,
                                          size_t length, const char *file, myelin_error *error) {
    json_t *root;
    myelin_status status = mln_json_load(&root, json, length, file, error);
    if (status != MYELIN_OK)
        return status;
    *config = (mln_generation_config){0};
    mln_fields fields = {root, file, "", error};
    if (!json_is_object(root))
        status = mln_fail(error, MYELIN_ERROR_FORMAT, file, -1, "expected an object, found %s",
                          mln_json_type_name(root));
    if (status == MYELIN_OK)
        status = mln_field_ids(&fields, "eos_token_id", config->stop_ids, MLN_CONFIG_MAX_STOP_IDS,
                               &config->num_stop_ids);
    if (status == MYELIN_OK)
        status = mln_field_bool(&fields, "do_sample", MLN_FIELD_NULLABLE, &config->do_sample);
    if (status == MYELIN_OK)
        status = read_sampling(config, &fields);
    json_decref(root);
    return status;
}
