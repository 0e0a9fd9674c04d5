/* SPDX-License-Identifier: Apache-2.0 */
/* The input is taken as config.json and as generation_config.json. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the parser promises about a config it accepts. */
static void check(const mln_model_config *c) {
    const myelin_config *m = &c->model;
    if (m->vocab_size < 1 || m->hidden_size < 1 || m->intermediate_size < 1 ||
        m->num_hidden_layers < 1 || m->num_key_value_heads < 1 ||
        m->num_attention_heads % m->num_key_value_heads != 0 || m->head_dim < 2 ||
        m->head_dim % 2 != 0 || !(m->rms_norm_eps > 0) || !(m->rope.theta > 0) ||
        !(m->rope.attention_factor > 0) || c->num_stop_ids > MLN_CONFIG_MAX_STOP_IDS)
        abort();
    for (size_t i = 0; i < c->num_overrides; i++)
        if (mln_config_override(c, c->overrides[i].module) != &c->overrides[i])
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    mln_model_config config;
    mln_generation_config generation;
    myelin_error error = {0};
    char *text = malloc(size ? size : 1);
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    if (mln_config_parse(&config, text, size, "config.json", &error) == MYELIN_OK) {
        check(&config);
        mln_config_free(&config);
    } else if (error.status == MYELIN_OK || !error.message[0]) {
        abort();
    }
    if (mln_generation_config_parse(&generation, text, size, "generation_config.json", &error) ==
            MYELIN_OK &&
        generation.num_stop_ids > MLN_CONFIG_MAX_STOP_IDS)
        abort();
    free(text);
    return 0;
}
