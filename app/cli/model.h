/* SPDX-License-Identifier: Apache-2.0 */
/* The options that say which model and how it runs, and opening it. */
#ifndef CLI_MODEL_H
#define CLI_MODEL_H

#include "options.h"
#include "progress.h"

typedef struct cli_model_arguments {
    const char *model;
    bool quiet;
    const char *plugin; /* path of a shared object, or NULL */
    myelin_device device;
    myelin_dtype dtype;
    myelin_fusion fusion;
    myelin_pack pack;
    myelin_activations activations;
    myelin_cache_type cache_type;
    bool shortlist;
    int32_t threads;         /* 0: the default */
    int32_t tensor_parallel; /* likewise */
    bool chat;               /* the model must have a chat template */
} cli_model_arguments;

/* -m and --quiet: for a command that needs only files. */
cli_group cli_files_group(cli_model_arguments *arguments);
/* These, and how to compute. */
cli_group cli_model_group(cli_model_arguments *arguments);

/* What the library is told of them; callbacks are not among it. */
void cli_model_options(const cli_model_arguments *arguments, myelin_model_options *options);

/* An open model. Not to be copied or moved while it is open. */
typedef struct cli_model {
    const cli_command *command;
    const cli_model_arguments *arguments;
    cli_progress progress;
    myelin_model *model;
} cli_model;

/* The directory of the model, released with free(). Returns an exit code, having said why. */
int cli_find_model(const cli_command *command, const cli_model_arguments *arguments, char **path);
int cli_open_model(cli_model *model, const cli_command *command,
                   const cli_model_arguments *arguments);
/* The same with made-up weights. */
int cli_open_synthetic(cli_model *model, const cli_command *command,
                       const cli_model_arguments *arguments, const char *shape, int32_t bits);
void cli_close_model(cli_model *model);
/* The same for the tokenizer alone, closed with myelin_tokenizer_close(), */
int cli_open_tokenizer(myelin_tokenizer **tokenizer, const cli_command *command,
                       const cli_model_arguments *arguments);
/* and for the chat template alone, closed with myelin_chat_template_close(). */
int cli_open_template(myelin_chat_template **chat_template, const cli_command *command,
                      const cli_model_arguments *arguments);

#endif
