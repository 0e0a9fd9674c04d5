/* SPDX-License-Identifier: Apache-2.0 */
/* myelin inspect: what a checkpoint is and what it needs, without loading its weights. */
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_result.h"
#include "model.h"

enum {
    DEFAULT_MAX_LEN = 2048,
    MAX_LEN = 1 << 24,
    SHAPE_TEXT = 96,
    SIZE_TEXT = 32,
    PLUGIN_TEXT = 64
};

typedef struct inspect_arguments {
    bool json;
    int32_t max_len;
    cli_model_arguments model;
} inspect_arguments;

static const cli_option inspect_options[] = {
    {"max-len", 0, NULL, CLI_INT32, "N", "a session has room for N tokens; default 2048",
     .offset = offsetof(inspect_arguments, max_len), .min = 1, .max = MAX_LEN},
    {"json", 0, NULL, CLI_FLAG, NULL, "print one JSON object",
     .offset = offsetof(inspect_arguments, json)},
};

/* What is printed, in either form. */
typedef struct report {
    const char *directory;
    const myelin_checkpoint *checkpoint;
    const myelin_config *config;
    uint64_t num_parameters;
    uint64_t weight_bytes;
    uint64_t session_bytes;
    int32_t max_len;
    int32_t threads;
    char plugin[PLUGIN_TEXT]; /* what would compute */
} report;

static const char *dtype_name(int32_t dtype) {
    switch (dtype) {
    case MYELIN_DTYPE_F32:
        return "f32";
    case MYELIN_DTYPE_F16:
        return "f16";
    case MYELIN_DTYPE_BF16:
        return "bf16";
    case MYELIN_DTYPE_AFFINE:
        return "affine";
    default:
        return "auto";
    }
}

/* As config.json writes it. */
static const char *torch_dtype_name(int32_t dtype) {
    switch (dtype) {
    case MYELIN_DTYPE_F32:
        return "float32";
    case MYELIN_DTYPE_F16:
        return "float16";
    default:
        return "bfloat16";
    }
}

/* How many processors this process may use. */
static int32_t processors(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count > 0 ? count : 1;
}

static report make_report(const char *directory, const myelin_checkpoint *checkpoint,
                          const inspect_arguments *arguments) {
    report r = {
        .directory = directory,
        .checkpoint = checkpoint,
        .config = myelin_checkpoint_config(checkpoint),
        .weight_bytes = myelin_checkpoint_weight_bytes(checkpoint, arguments->model.dtype),
        .max_len = arguments->max_len,
        .threads = arguments->model.threads != 0 ? arguments->model.threads : processors(),
    };
    for (size_t i = 0; i < myelin_checkpoint_num_tensors(checkpoint); i++) {
        myelin_tensor_info info;
        uint64_t elements = 1;
        myelin_checkpoint_tensor(checkpoint, i, &info);
        for (int32_t d = 0; d < info.rank; d++)
            elements *= (uint64_t)info.shape[d];
        r.num_parameters += elements;
    }
    return r;
}

/* Under the names config.json has them. */
static json_t *config_json(const myelin_config *config) {
    json_t *object = json_object();
    json_t *scaling = json_null();
    json_t *quantization = json_null();
    const myelin_rope_config *rope = &config->rope;
    const struct {
        const char *name;
        int32_t value;
    } integers[] = {
        {"vocab_size", config->vocab_size},
        {"hidden_size", config->hidden_size},
        {"intermediate_size", config->intermediate_size},
        {"num_hidden_layers", config->num_hidden_layers},
        {"num_attention_heads", config->num_attention_heads},
        {"num_key_value_heads", config->num_key_value_heads},
        {"head_dim", config->head_dim},
        {"max_position_embeddings", config->max_position_embeddings},
    };
    json_object_set_new(object, "model_type", json_string("qwen3"));
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++)
        json_object_set_new(object, integers[i].name, json_integer(integers[i].value));
    json_object_set_new(object, "tie_word_embeddings", json_boolean(config->tie_word_embeddings));
    json_object_set_new(object, "torch_dtype",
                        config->torch_dtype != 0
                            ? json_string(torch_dtype_name(config->torch_dtype))
                            : json_null());
    json_object_set_new(object, "rms_norm_eps", cli_json_real(config->rms_norm_eps));
    json_object_set_new(object, "rope_theta", cli_json_real(rope->theta));
    if (rope->type == MYELIN_ROPE_YARN) {
        scaling = json_object();
        json_object_set_new(scaling, "rope_type", json_string("yarn"));
        json_object_set_new(scaling, "factor", cli_json_real(rope->factor));
        json_object_set_new(scaling, "original_max_position_embeddings",
                            json_integer(rope->original_max_position_embeddings));
        json_object_set_new(scaling, "beta_fast", cli_json_real(rope->beta_fast));
        json_object_set_new(scaling, "beta_slow", cli_json_real(rope->beta_slow));
        json_object_set_new(scaling, "attention_factor", cli_json_real(rope->attention_factor));
        json_object_set_new(scaling, "truncate", json_boolean(rope->truncate));
    }
    json_object_set_new(object, "rope_scaling", scaling);
    if (config->quantization_bits != 0) {
        quantization = json_object();
        json_object_set_new(quantization, "bits", json_integer(config->quantization_bits));
        json_object_set_new(quantization, "group_size",
                            json_integer(config->quantization_group_size));
    }
    json_object_set_new(object, "quantization", quantization);
    return object;
}

static json_t *tensor_json(const myelin_tensor_info *info) {
    json_t *object = json_object();
    json_t *shape = json_array();
    for (int32_t d = 0; d < info->rank; d++)
        json_array_append_new(shape, json_integer(info->shape[d]));
    json_object_set_new(object, "name", cli_json_text(info->name, strlen(info->name)));
    json_object_set_new(object, "dtype", json_string(dtype_name(info->dtype)));
    json_object_set_new(object, "shape", shape);
    json_object_set_new(object, "file", cli_json_text(info->file, strlen(info->file)));
    json_object_set_new(object, "offset", json_integer((json_int_t)info->offset));
    json_object_set_new(object, "bytes", json_integer((json_int_t)info->bytes));
    if (info->dtype == MYELIN_DTYPE_AFFINE) {
        json_object_set_new(object, "bits", json_integer(info->bits));
        json_object_set_new(object, "group_size", json_integer(info->group_size));
    }
    return object;
}

static void print_json(const report *r) {
    json_t *object = json_object();
    json_t *tensors = json_array();
    for (size_t i = 0; i < myelin_checkpoint_num_tensors(r->checkpoint); i++) {
        myelin_tensor_info info;
        myelin_checkpoint_tensor(r->checkpoint, i, &info);
        json_array_append_new(tensors, tensor_json(&info));
    }
    json_object_set_new(object, "directory", cli_json_text(r->directory, strlen(r->directory)));
    json_object_set_new(object, "config", config_json(r->config));
    json_object_set_new(object, "num_parameters", json_integer((json_int_t)r->num_parameters));
    json_object_set_new(object, "weight_bytes", json_integer((json_int_t)r->weight_bytes));
    json_object_set_new(object, "max_len", json_integer(r->max_len));
    json_object_set_new(object, "session_bytes", json_integer((json_int_t)r->session_bytes));
    json_object_set_new(object, "plugin", cli_json_text(r->plugin, strlen(r->plugin)));
    json_object_set_new(object, "threads", json_integer(r->threads));
    json_object_set_new(object, "tensors", tensors);
    cli_json_print(object, NULL);
}

/* "14.4 MiB" */
static const char *size_text(char text[SIZE_TEXT], uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    snprintf(text, SIZE_TEXT, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}

/* "6400 x 256" */
static const char *shape_text(char text[SHAPE_TEXT], const myelin_tensor_info *info) {
    size_t used = 0;
    text[0] = '\0';
    for (int32_t d = 0; d < info->rank && used < SHAPE_TEXT; d++) {
        int length = snprintf(text + used, SHAPE_TEXT - used, "%s%" PRId64, d == 0 ? "" : " x ",
                              info->shape[d]);
        used += length > 0 ? (size_t)length : 0;
    }
    return text;
}

/* Asks which plug-in would run it. */
static myelin_status find_plugin(report *r, const cli_model_arguments *arguments,
                                 myelin_error *error) {
    myelin_model_options options;
    cli_model_options(arguments, &options);
    myelin_status status =
        myelin_checkpoint_plugin(r->checkpoint, &options, r->plugin, sizeof r->plugin, error);
    if (status != MYELIN_OK)
        return status;
    return myelin_checkpoint_plan_session(r->checkpoint, &options, r->max_len, &r->session_bytes,
                                          error);
}

static void print_config(FILE *out, const report *r) {
    const myelin_config *c = r->config;
    char weights[SIZE_TEXT], session[SIZE_TEXT];
    fprintf(out, "directory    %s\n", r->directory);
    fprintf(out, "model        Qwen3, %.2f million parameters\n", (double)r->num_parameters / 1e6);
    fprintf(out, "layers       %d, hidden size %d, MLP %d\n", c->num_hidden_layers, c->hidden_size,
            c->intermediate_size);
    fprintf(out, "attention    %d heads of %d, %d for keys and values\n", c->num_attention_heads,
            c->head_dim, c->num_key_value_heads);
    fprintf(out, "vocabulary   %d, %s output weights\n", c->vocab_size,
            c->tie_word_embeddings ? "tied" : "separate");
    fprintf(out, "positions    %d, rope theta %g", c->max_position_embeddings, c->rope.theta);
    if (c->rope.type == MYELIN_ROPE_YARN)
        fprintf(out, ", YaRN factor %g over %" PRId64, c->rope.factor,
                c->rope.original_max_position_embeddings);
    fputc('\n', out);
    if (c->quantization_bits != 0)
        fprintf(out, "quantized    %d bits, groups of %d\n", c->quantization_bits,
                c->quantization_group_size);
    fprintf(out, "weights      %s in memory\n", size_text(weights, r->weight_bytes));
    fprintf(out, "session      %s for %d tokens\n", size_text(session, r->session_bytes),
            r->max_len);
    fprintf(out, "runs on      %s, %d %s\n\n", r->plugin, r->threads,
            r->threads == 1 ? "thread" : "threads");
}

static void print_tensors(FILE *out, const report *r) {
    size_t count = myelin_checkpoint_num_tensors(r->checkpoint);
    int name_width = (int)strlen("tensor"), shape_width = (int)strlen("shape");
    char shape[SHAPE_TEXT], size[SIZE_TEXT], dtype[SIZE_TEXT];
    myelin_tensor_info info;
    for (size_t i = 0; i < count; i++) {
        myelin_checkpoint_tensor(r->checkpoint, i, &info);
        int name_length = (int)strlen(info.name);
        int shape_length = (int)strlen(shape_text(shape, &info));
        name_width = name_length > name_width ? name_length : name_width;
        shape_width = shape_length > shape_width ? shape_length : shape_width;
    }
    fprintf(out, "%-*s  %-11s  %-*s  %10s  %s\n", name_width, "tensor", "type", shape_width,
            "shape", "size", "file");
    for (size_t i = 0; i < count; i++) {
        myelin_checkpoint_tensor(r->checkpoint, i, &info);
        snprintf(dtype, sizeof dtype, "%s", dtype_name(info.dtype));
        if (info.dtype == MYELIN_DTYPE_AFFINE)
            snprintf(dtype, sizeof dtype, "%d-bit / %d", info.bits, info.group_size);
        fprintf(out, "%-*s  %-11s  %-*s  %10s  %s\n", name_width, info.name, dtype, shape_width,
                shape_text(shape, &info), size_text(size, info.bytes), info.file);
    }
}

static void print_table(const report *r) {
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return;
    print_config(out, r);
    print_tensors(out, r);
    fclose(out);
    cli_output(text, length);
    free(text);
}

static int run(const cli_command *command, int argc, char **argv) {
    inspect_arguments arguments = {.max_len = DEFAULT_MAX_LEN};
    myelin_checkpoint *checkpoint = NULL;
    myelin_error error;
    char *path;
    int count, code;
    const cli_group groups[] = {
        {"Inspect", inspect_options, sizeof inspect_options / sizeof *inspect_options, &arguments,
         NULL},
        cli_model_group(&arguments.model),
    };
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, &code))
        return code;
    if (count > 1 || (count == 1 && arguments.model.model != NULL))
        return cli_usage(command, "expected one MODEL, found several");
    if (count == 1)
        arguments.model.model = argv[0];
    code = cli_find_model(command, &arguments.model, &path);
    if (code != CLI_OK)
        return code;
    myelin_status status = myelin_checkpoint_open(&checkpoint, path, &error);
    report r = {0};
    if (status == MYELIN_OK) {
        r = make_report(path, checkpoint, &arguments);
        status = find_plugin(&r, &arguments.model, &error);
    }
    if (status == MYELIN_OK) {
        if (arguments.json)
            print_json(&r);
        else
            print_table(&r);
        code = cli_output_result(command);
    } else {
        cli_message(command, "%s", error.message);
        code = cli_open_exit_code(status);
    }
    myelin_checkpoint_close(checkpoint);
    free(path);
    return code;
}

const cli_command cli_command_inspect = {
    .name = "inspect",
    .synopsis = "[OPTION]... [MODEL]",
    .summary = "show what a model is and what it needs",
    .details = "Prints the configuration of a checkpoint, every tensor, the memory its weights\n"
               "and a session take, and what would run it. Reads no weights.",
    .examples = "  myelin inspect\n"
                "  myelin inspect --max-len 32768 Qwen/Qwen3-0.6B\n"
                "  myelin inspect --json | jq .session_bytes",
    .run = run,
};
