/* SPDX-License-Identifier: Apache-2.0 */
/* What stands behind the opaque types of myelin.h, and what the files of this room share. */
#ifndef MLN_ENGINE_INTERNAL_H
#define MLN_ENGINE_INTERNAL_H

#include "checkpoint/checkpoint.h"
#include "generate/sequence.h"
#include "model/model.h"
#include "myelin/myelin.h"
#include "text/tokenizer.h"

struct myelin_tokenizer {
    mln_tokenizer *tokens;
    size_t longest_token; /* bytes of the longest token's text */
};

struct myelin_checkpoint {
    mln_checkpoint *files;
};

struct myelin_model {
    mln_checkpoint *checkpoint;
    mln_model *model;
    myelin_tokenizer *tokenizer; /* NULL when the directory has none */
    int32_t stop_ids[2 * MLN_CONFIG_MAX_STOP_IDS];
    size_t num_stop_ids;
    double load_ms;
    void (*warning)(void *user, const char *message);
    void *user;
};

struct myelin_session {
    myelin_model *model;
    mln_sequence *sequence;
    mln_decoder *decoder;
};

/* The implementer of plugin.h that a checkpoint is run with unless options say otherwise. */
const myelin_plugin *mln_default_plugin(void);

/* Bytes of a session; 0 when max_len is out of range, UINT64_MAX when they are not countable. */
uint64_t mln_session_bytes(const myelin_plugin *plugin, const myelin_config *config,
                           int32_t max_len);

/* Tells the user when a sequence of `count` tokens has left the positions the model was made for.
 */
void mln_warn_of_positions(const myelin_model *model, size_t count);

/*
 * Copies *options (NULL: defaults) into *out, which has every field whatever version of the header
 * the caller was compiled with, and checks every field.
 */
myelin_status mln_model_options_resolve(myelin_model_options *out,
                                        const myelin_model_options *options, myelin_error *error);
myelin_status mln_generation_options_resolve(myelin_generation_options *out,
                                             const myelin_generation_options *options,
                                             const myelin_model *model, myelin_error *error);
myelin_status mln_batch_options_resolve(myelin_batch_options *out,
                                        const myelin_batch_options *options, myelin_error *error);

/* The cache a prompt of `count` tokens gets: min(max_len, count + max_new_tokens - 1). */
myelin_status mln_cache_length(const myelin_generation_options *options, size_t count,
                               int32_t *length, myelin_error *error);

/* Tokenizes a prompt for a model; *ids is freed with mln_ids_free(). */
myelin_status mln_prompt_ids(const myelin_model *model, const char *text, size_t length,
                             bool parse_special, mln_ids *ids, myelin_error *error);

#endif
