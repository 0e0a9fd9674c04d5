/* SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

#include <stdlib.h>
#include <string.h>

#include "model_path.h"

static const cli_choice device_choices[] = {{"auto", MYELIN_DEVICE_AUTO},
                                            {"cpu", MYELIN_DEVICE_CPU},
                                            {"cuda", MYELIN_DEVICE_CUDA},
                                            {NULL, 0}};
static const cli_choice dtype_choices[] = {{"auto", MYELIN_DTYPE_AUTO},
                                           {"f32", MYELIN_DTYPE_F32},
                                           {"f16", MYELIN_DTYPE_F16},
                                           {"bf16", MYELIN_DTYPE_BF16},
                                           {NULL, 0}};
static const cli_choice fusion_choices[] = {
    {"composed", MYELIN_FUSION_COMPOSED}, {"kv-attention", MYELIN_FUSION_KV_ATTENTION},
    {"mlp", MYELIN_FUSION_MLP},           {"attention-block", MYELIN_FUSION_ATTENTION_BLOCK},
    {"layer", MYELIN_FUSION_LAYER},       {"greedy", MYELIN_FUSION_GREEDY},
    {"chunk", MYELIN_FUSION_CHUNK},       {NULL, 0}};
static const cli_choice pack_choices[] = {{"auto", MYELIN_PACK_AUTO},
                                          {"none", MYELIN_PACK_NONE},
                                          {"lossless", MYELIN_PACK_LOSSLESS},
                                          {NULL, 0}};
static const cli_choice activations_choices[] = {
    {"auto", MYELIN_ACTIVATIONS_AUTO},     {"f32", MYELIN_ACTIVATIONS_F32},
    {"bf16x2", MYELIN_ACTIVATIONS_BF16X2}, {"bf16", MYELIN_ACTIVATIONS_BF16},
    {"int8", MYELIN_ACTIVATIONS_INT8},     {NULL, 0}};
static const cli_choice cache_choices[] = {{"auto", MYELIN_CACHE_AUTO},
                                           {"f32", MYELIN_CACHE_F32},
                                           {"f16", MYELIN_CACHE_F16},
                                           {"int8", MYELIN_CACHE_INT8},
                                           {NULL, 0}};

#define FIELD(member) .offset = offsetof(cli_model_arguments, member)

static const cli_option model_options[] = {
    {"model", 'm', NULL, CLI_TEXT, "MODEL",
     "a directory, or a name in the Hugging Face cache such as Qwen/Qwen3-0.6B; default "
     "$MYELIN_MODEL, else the bundled demo",
     FIELD(model)},
    {"quiet", 'q', NULL, CLI_FLAG, NULL, "no progress bar and no warnings", FIELD(quiet)},
    {"device", 0, NULL, CLI_CHOICE, "NAME", "where to compute; default auto", FIELD(device),
     .choices = device_choices},
    {"tensor-parallel", 0, NULL, CLI_INT32, "N",
     "spread the model over the first N GPUs, by NVIDIA's NCCL; default 1", FIELD(tensor_parallel),
     .min = 1, .max = 64},
    {"dtype", 0, NULL, CLI_CHOICE, "NAME",
     "convert the weights while they are loaded; default auto: as they are stored", FIELD(dtype),
     .choices = dtype_choices},
    {"threads", 0, NULL, CLI_INT32, "N", "default: one for each processor", FIELD(threads),
     .min = 1, .max = 1024},
    {"fusion", 0, NULL, CLI_CHOICE, "RUNG",
     "how much runs as native code; default: the most there is", FIELD(fusion),
     .choices = fusion_choices},
    {"pack", 0, NULL, CLI_CHOICE, "HOW",
     "keep bf16 weights in fewer bits, with the same results: lossless, none or auto, the default",
     FIELD(pack), .choices = pack_choices},
    {"activations", 0, NULL, CLI_CHOICE, "TYPE",
     "multiply bf16 weights with activations in f32, in two bf16 numbers (bf16x2: as exact, for "
     "AMX), or rounded to bf16 (faster with AVX512_BF16 too, less exact); 4- and 8-bit weights "
     "with activations in int8 instead of 16 bits (faster with VNNI, less exact); default auto: "
     "bf16x2 where there is AMX, otherwise f32",
     FIELD(activations), .choices = activations_choices},
    {"cache-type", 0, NULL, CLI_CHOICE, "TYPE",
     "hold keys and values in f32, f16 or int8 (less memory, nearly the same text); default auto: "
     "f16, with f32 weights f32",
     FIELD(cache_type), .choices = cache_choices},
    {"shortlist", 0, NULL, CLI_FLAG, NULL,
     "keep an 8-bit copy of a dense LM head to find greedy tokens sooner; the tokens are the same",
     FIELD(shortlist)},
    {"plugin", 0, NULL, CLI_TEXT, "PATH",
     "compute with the plug-in of this shared object, which runs as part of the command",
     FIELD(plugin)},
};

enum { FILES_OPTIONS = 2, MODEL_OPTIONS = sizeof model_options / sizeof *model_options };

cli_group cli_files_group(cli_model_arguments *arguments) {
    return (cli_group){
        .title = "Model", .options = model_options, .count = FILES_OPTIONS, .base = arguments};
}

cli_group cli_model_group(cli_model_arguments *arguments) {
    return (cli_group){
        .title = "Model", .options = model_options, .count = MODEL_OPTIONS, .base = arguments};
}

int cli_find_model(const cli_command *command, const cli_model_arguments *arguments, char **path) {
    char *message;
    if (cli_model_path(arguments->model, path, &message))
        return CLI_OK;
    cli_message(command, "%s", message);
    free(message);
    return CLI_MODEL;
}

static bool on_progress(void *user, uint64_t done, uint64_t total) {
    cli_model *model = user;
    cli_progress_update(&model->progress, cli_now(), done, total);
    return !cli_interrupted();
}

static void on_warning(void *user, const char *message) {
    cli_model *model = user;
    if (model->arguments->quiet)
        return;
    cli_progress_hide(&model->progress);
    cli_message(model->command, "warning: %s", message);
}

void cli_model_options(const cli_model_arguments *arguments, myelin_model_options *options) {
    myelin_model_options_init(options);
    options->device = arguments->device;
    options->dtype = arguments->dtype;
    options->chat = arguments->chat;
    options->fusion = arguments->fusion;
    options->pack = arguments->pack;
    options->activations = arguments->activations;
    options->cache_type = arguments->cache_type;
    options->shortlist = arguments->shortlist;
    options->threads = arguments->threads;
    options->tensor_parallel = arguments->tensor_parallel;
    options->plugin = arguments->plugin;
}

/* Opens a directory, or with NULL a synthetic shape. */
static int open_any(cli_model *model, const char *path, const char *shape, int32_t bits) {
    const cli_model_arguments *arguments = model->arguments;
    myelin_model_options options;
    myelin_error error;
    cli_model_options(arguments, &options);
    if (options.tensor_parallel > 1) /* no NVLink multicast, unless the user asks for it */
        setenv("NCCL_NVLS_ENABLE", "0", 0);
    options.progress = on_progress;
    options.warning = on_warning;
    options.user = model;
    cli_progress_begin(&model->progress, "loading", arguments->quiet);
    cli_interrupts_defer();
    myelin_status status =
        path != NULL ? myelin_model_open(&model->model, path, &options, &error)
                     : myelin_model_open_synthetic(&model->model, shape, bits, &options, &error);
    cli_progress_hide(&model->progress);
    cli_interrupts_allow();
    if (status != MYELIN_OK && status != MYELIN_ERROR_CANCELLED)
        cli_message(model->command, "%s", error.message);
    return cli_open_exit_code(status);
}

static void prepare(cli_model *model, const cli_command *command,
                    const cli_model_arguments *arguments) {
    memset(model, 0, sizeof *model);
    model->command = command;
    model->arguments = arguments;
}

int cli_open_model(cli_model *model, const cli_command *command,
                   const cli_model_arguments *arguments) {
    char *path;
    prepare(model, command, arguments);
    int code = cli_find_model(command, arguments, &path);
    if (code != CLI_OK)
        return code;
    code = open_any(model, path, NULL, 0);
    free(path);
    return code;
}

int cli_open_synthetic(cli_model *model, const cli_command *command,
                       const cli_model_arguments *arguments, const char *shape, int32_t bits) {
    prepare(model, command, arguments);
    return open_any(model, NULL, shape, bits);
}

void cli_close_model(cli_model *model) {
    myelin_model_close(model->model);
    model->model = NULL;
}

/* Says what is wrong with one of a model's files, if something is; the exit code for it. */
static int opened(const cli_command *command, myelin_status status, const myelin_error *error) {
    if (status != MYELIN_OK)
        cli_message(command, "%s", error->message);
    return cli_open_exit_code(status);
}

int cli_open_tokenizer(myelin_tokenizer **tokenizer, const cli_command *command,
                       const cli_model_arguments *arguments) {
    myelin_error error;
    char *path;
    int code = cli_find_model(command, arguments, &path);
    if (code != CLI_OK)
        return code;
    myelin_status status = myelin_tokenizer_open(tokenizer, path, &error);
    free(path);
    return opened(command, status, &error);
}

int cli_open_template(myelin_chat_template **chat_template, const cli_command *command,
                      const cli_model_arguments *arguments) {
    myelin_error error;
    char *path;
    int code = cli_find_model(command, arguments, &path);
    if (code != CLI_OK)
        return code;
    myelin_status status = myelin_chat_template_open(chat_template, path, &error);
    free(path);
    return opened(command, status, &error);
}
