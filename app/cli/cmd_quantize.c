/* SPDX-License-Identifier: Apache-2.0 */
/* myelin quantize: a dense checkpoint to an MLX quantised one. */
#include <stdlib.h>
#include <string.h>

#include "json_result.h"
#include "model.h"
#include "model_path.h"
#include "progress.h"

typedef struct quantize_arguments {
    bool json, quiet;
    int32_t bits, group_size;
    myelin_dtype scale_dtype;
    cli_progress progress;
    uint64_t dense_bytes;
} quantize_arguments;

static const cli_choice bits_choices[] = {{"4", 4}, {"8", 8}, {NULL, 0}};
static const cli_choice group_choices[] = {{"32", 32}, {"64", 64}, {"128", 128}, {NULL, 0}};
static const cli_choice scale_choices[] = {
    {"auto", MYELIN_DTYPE_AUTO}, {"bf16", MYELIN_DTYPE_BF16}, {"f16", MYELIN_DTYPE_F16}, {NULL, 0}};

#define FIELD(member) .offset = offsetof(quantize_arguments, member)

static const cli_option quantize_options[] = {
    {"bits", 'b', NULL, CLI_CHOICE, "BITS", "4, the default, or 8 bits a weight", FIELD(bits),
     .choices = bits_choices},
    {"group-size", 'g', NULL, CLI_CHOICE, "N",
     "weights that share a scale: 32, 64 (the default) or 128", FIELD(group_size),
     .choices = group_choices},
    {"scale-dtype", 0, NULL, CLI_CHOICE, "NAME",
     "bf16 or f16; default auto: f16 for f16 weights, else bf16", FIELD(scale_dtype),
     .choices = scale_choices},
    {"json", 0, NULL, CLI_FLAG, NULL, "print what was done as a JSON object", FIELD(json)},
    {"quiet", 'q', NULL, CLI_FLAG, NULL, "no progress bar", FIELD(quiet)},
};

static bool on_progress(void *user, uint64_t done, uint64_t total) {
    quantize_arguments *a = user;
    a->dense_bytes = done;
    cli_progress_update(&a->progress, cli_now(), done, total);
    return !cli_interrupted();
}

/* Bytes of the weights that were written; 0 when they cannot be looked at. */
static uint64_t written_bytes(const char *directory) {
    myelin_checkpoint *checkpoint;
    if (myelin_checkpoint_open(&checkpoint, directory, NULL) != MYELIN_OK)
        return 0;
    uint64_t bytes = myelin_checkpoint_weight_bytes(checkpoint, MYELIN_DTYPE_AUTO);
    myelin_checkpoint_close(checkpoint);
    return bytes;
}

static void print_summary(const quantize_arguments *a, const char *destination) {
    uint64_t bytes = written_bytes(destination);
    if (a->json) {
        json_t *object = json_object();
        json_object_set_new(object, "directory", cli_json_text(destination, strlen(destination)));
        json_object_set_new(object, "bits", json_integer(a->bits));
        json_object_set_new(object, "group_size", json_integer(a->group_size));
        json_object_set_new(object, "dense_bytes", json_integer((json_int_t)a->dense_bytes));
        json_object_set_new(object, "weight_bytes", json_integer((json_int_t)bytes));
        cli_json_print(object, NULL);
        return;
    }
    char *text = cli_format("%s: %.1f MB of weights became %.1f MB\n", destination,
                            (double)a->dense_bytes / 1e6, (double)bytes / 1e6);
    cli_output(text, strlen(text));
    free(text);
}

static int quantize(const cli_command *command, quantize_arguments *a, const char *source,
                    const char *destination) {
    char *path, *message;
    myelin_error error;
    if (!cli_model_path(source, &path, &message)) {
        cli_message(command, "%s", message);
        free(message);
        return CLI_MODEL;
    }
    myelin_quantize_options options;
    myelin_quantize_options_init(&options);
    options.bits = a->bits;
    options.group_size = a->group_size;
    options.scale_dtype = a->scale_dtype;
    options.progress = on_progress;
    options.user = a;
    cli_progress_begin(&a->progress, "quantizing", a->quiet);
    cli_interrupts_defer();
    myelin_status status = myelin_checkpoint_quantize(path, destination, &options, &error);
    cli_progress_hide(&a->progress);
    cli_interrupts_allow();
    free(path);
    if (status != MYELIN_OK) {
        if (status != MYELIN_ERROR_CANCELLED)
            cli_message(command, "%s", error.message);
        return status == MYELIN_ERROR_ARGUMENT || status == MYELIN_ERROR_IO
                   ? cli_use_exit_code(status)
                   : cli_open_exit_code(status);
    }
    print_summary(a, destination);
    return cli_output_result(command);
}

static int run(const cli_command *command, int argc, char **argv) {
    quantize_arguments arguments = {.bits = 4, .group_size = 64};
    int count, code;
    const cli_group groups[] = {{"Quantising", quantize_options,
                                 sizeof quantize_options / sizeof *quantize_options, &arguments,
                                 NULL}};
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, &code))
        return code;
    if (count != 2)
        return cli_usage(command, "expected a model and a new directory, found %d %s", count,
                         count == 1 ? "argument" : "arguments");
    return quantize(command, &arguments, argv[0], argv[1]);
}

const cli_command cli_command_quantize = {
    .name = "quantize",
    .synopsis = "[OPTION]... MODEL DIRECTORY",
    .summary = "write a dense model in 4 or 8 bits",
    .details = "Writes MODEL, a directory or a name in the Hugging Face cache, to DIRECTORY in\n"
               "MLX's affine form, which 'myelin' and mlx-lm open. Matrices whose rows are whole\n"
               "groups are quantised, norms stay as they are; tokenizer and template are copied.\n"
               "DIRECTORY must be new or empty, and is there only when all of it is written.",
    .examples = "  myelin quantize Qwen/Qwen3-0.6B qwen3-0.6b-4bit\n"
                "  myelin quantize --bits 8 --group-size 32 ./model ./model-8bit",
    .run = run,
};
