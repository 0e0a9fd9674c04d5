/* SPDX-License-Identifier: Apache-2.0 */
/* What stands behind the opaque types of myelin.h, and what the files of this room share. */
#ifndef MLN_ENGINE_INTERNAL_H
#define MLN_ENGINE_INTERNAL_H

#include <jansson.h>

#include "checkpoint/checkpoint.h"
#include "engine/plugin_open.h"
#include "engine/turn.h"
#include "generate/sequence.h"
#include "model/model.h"
#include "myelin/myelin.h"
#include "text/tokenizer.h"

struct myelin_tokenizer {
    mln_tokenizer *tokens;
    size_t longest_token; /* bytes of the longest token's text */
    int32_t *special_ids; /* control tokens */
    size_t num_special;
};

struct myelin_checkpoint {
    mln_checkpoint *files;
};

struct myelin_model {
    mln_checkpoint *checkpoint;
    mln_model *model;
    mln_plugin_choice plugin;            /* outlives `model` */
    myelin_tokenizer *tokenizer;         /* NULL when the directory has none */
    myelin_chat_template *chat_template; /* NULL when it has none that can be used, */
    myelin_error chat_error;             /* for this reason */
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
    mln_turn_form form; /* of the text the next generation makes */
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
myelin_status mln_serving_options_resolve(myelin_serving_options *out,
                                          const myelin_serving_options *options,
                                          myelin_error *error);
myelin_status mln_submission_resolve(myelin_submission *out, const myelin_submission *submission,
                                     myelin_error *error);
myelin_status mln_quantize_options_resolve(myelin_quantize_options *out,
                                           const myelin_quantize_options *options,
                                           myelin_error *error);
myelin_status mln_chat_options_resolve(myelin_chat_options *out, const myelin_chat_options *options,
                                       myelin_error *error);

/* The cache a prompt of `count` tokens gets: min(max_len, count + max_new_tokens - 1). */
myelin_status mln_cache_length(const myelin_generation_options *options, size_t count,
                               int32_t *length, myelin_error *error);

/*
 * The ids of a request's prompt, whichever form it has, and how that leaves the text to come; *ids
 * is freed with mln_ids_free().
 */
myelin_status mln_request_ids(const myelin_model *model, const myelin_request *request,
                              bool parse_special, mln_ids *ids, mln_turn_form *form,
                              myelin_error *error);

/* Tokenizes a prompt for a model; *ids is freed with mln_ids_free(). */
myelin_status mln_prompt_ids(const myelin_model *model, const char *text, size_t length,
                             bool parse_special, mln_ids *ids, myelin_error *error);

/* What myelin_chat_render() does, with the conversation parsed and the text appended. */
myelin_status mln_chat_render(const myelin_chat_template *chat_template, json_t *messages,
                              json_t *tools, const myelin_chat_options *options, mln_buffer *text,
                              myelin_error *error);
/* Parses the messages and tools (NULL when there are none) of a conversation. */
myelin_status mln_chat_parse(const char *messages, size_t length,
                             const myelin_chat_options *options, json_t **parsed_messages,
                             json_t **parsed_tools, myelin_error *error);
/* The ids of a conversation: control tokens inside its strings stay text. */
myelin_status mln_chat_ids(const myelin_model *model, const char *messages, size_t length,
                           const myelin_chat_options *options, mln_ids *ids, mln_turn_form *form,
                           myelin_error *error);

#endif
