/* SPDX-License-Identifier: Apache-2.0 */
/* The generation options, as the command line and a JSON request give them. */
#ifndef CLI_GENERATION_H
#define CLI_GENERATION_H

#include "options.h"

/* What was given; the rest is decided when the model is known. Arrays are owned, strings are not.
 */
typedef struct cli_generation {
    uint64_t given; /* bits of rows of cli_generation_options */
    myelin_generation_options values;
    bool ignore_eos;
    myelin_logit_bias *biases;
    size_t num_biases;
    const char **stop_strings;
    size_t num_stop_strings;
    int32_t *stop_ids;
    size_t num_stop_ids;
    char *json_schema; /* owned; NULL: none */
} cli_generation;

void cli_generation_init(cli_generation *generation);
void cli_generation_clear(cli_generation *generation);
void cli_generation_copy(cli_generation *to, const cli_generation *from);

/* Its options, for a command line. The group points into *generation. */
cli_group cli_generation_group(cli_generation *generation);

/* Stores the member `key` of a request. Returns false, saying why, when it is none or is wrong. */
bool cli_generation_store(cli_generation *generation, const char *key, const json_t *value,
                          bool *known, cli_why *why);

/* When --sync was not given: hand over each token as it is found. */
void cli_generation_prefer_token_sync(cli_generation *generation);
/* When --max-new-tokens was not given. */
void cli_generation_prefer_max_new_tokens(cli_generation *generation, int32_t count);
/* When neither --sampler nor --temperature was given: the model's own way. */
void cli_generation_prefer_sampling(cli_generation *generation, const myelin_model *model);
bool cli_generation_wants_logprobs(const cli_generation *generation);

/*
 * The options to generate with. Sampling takes what was not given from the model's
 * generation_config.json. *options borrows from *generation.
 */
void cli_generation_resolve(const cli_generation *generation, const myelin_model *model,
                            myelin_generation_options *options);

/*
 * Compiles the schema that the text is held to, when one was given, into the options; *constraint,
 * else NULL, is released with myelin_constraint_free() after them.
 */
myelin_status cli_generation_constrain(const cli_generation *generation, const myelin_model *model,
                                       myelin_generation_options *options,
                                       myelin_constraint **constraint, myelin_error *error);

/* Reads an array of token ids; *ids is released with free(). */
bool cli_read_ids(const json_t *value, int32_t **ids, size_t *count, cli_why *why);

#endif
