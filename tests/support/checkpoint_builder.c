/* SPDX-License-Identifier: Apache-2.0 */
#include "support/checkpoint_builder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/temp_directory.h"

static void require(bool condition, const char *what, const char *name) {
    if (condition)
        return;
    fprintf(stderr, "checkpoint builder: %s: %s\n", what, name);
    exit(1);
}

static void *grab(size_t bytes) {
    void *memory = calloc(1, bytes ? bytes : 1);
    require(memory != NULL, "out of memory", "");
    return memory;
}

checkpoint_spec checkpoint_spec_default(void) {
    return (checkpoint_spec){.vocab = 80,
                             .hidden = 64,
                             .intermediate = 96,
                             .layers = 2,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 16,
                             .tie = true,
                             .dtype = "F32",
                             .shards = 1,
                             .seed = 1};
}

/* ---- numbers ---- */

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint16_t to_bf16(float value) {
    uint32_t bits = bits_of(value);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* A multiple of the spacing of binary16 numbers around it, to nearest even; no overflow here. */
static uint16_t to_f16(float value) {
    uint16_t sign = value < 0 ? 0x8000 : 0;
    int exponent;
    double magnitude = fabs((double)value);
    if (magnitude == 0)
        return 0;
    frexp(magnitude, &exponent); /* magnitude is in [2^(exponent-1), 2^exponent) */
    int power = exponent - 11 < -24 ? -24 : exponent - 11;
    long units = lrint(ldexp(magnitude, -power));
    /* Subnormals count units of 2^-24; a normal's 1024 implicit units carry into the exponent. */
    return (uint16_t)(sign | ((long)(power + 24) * 1024 + units));
}

static float from_f16(uint16_t half) {
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return (float)(half & 0x8000 ? -magnitude : magnitude);
}

static size_t element_size(const char *dtype) {
    static const struct {
        const char *name;
        size_t size;
    } sizes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F16", 2}, {"BF16", 2},
                 {"I32", 4},  {"U32", 4}, {"F32", 4}, {"F64", 8},     {"I64", 8}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(sizes[i].name, dtype) == 0)
            return sizes[i].size;
    require(false, "unknown dtype", dtype);
    return 0;
}

static void store(const built_tensor *t, size_t i, float value) {
    uint16_t half = strcmp(t->dtype, "F16") == 0 ? to_f16(value) : to_bf16(value);
    if (strcmp(t->dtype, "F32") == 0)
        memcpy(t->bytes + 4 * i, &value, 4);
    else
        memcpy(t->bytes + 2 * i, &half, 2);
}

static float load(const built_tensor *t, size_t i) {
    float value;
    uint16_t half;
    if (strcmp(t->dtype, "F32") == 0) {
        memcpy(&value, t->bytes + 4 * i, 4);
        return value;
    }
    memcpy(&half, t->bytes + 2 * i, 2);
    return strcmp(t->dtype, "F16") == 0 ? from_f16(half) : float_of((uint32_t)half << 16);
}

/* splitmix64; uniform in [-1, 1). */
static float next_random(uint64_t *state) {
    uint64_t x = *state += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return (float)((double)((x ^ x >> 31) >> 40) / 8388608.0 - 1.0);
}

/* ---- tensors ---- */

void builder_reshape(built_tensor *tensor, const char *dtype, int rank, const int64_t *shape) {
    size_t count = 1;
    tensor->dtype = dtype;
    tensor->rank = rank;
    for (int i = 0; i < rank; i++) {
        tensor->shape[i] = shape[i];
        count *= (size_t)shape[i];
    }
    free(tensor->bytes);
    tensor->size = count * element_size(dtype);
    tensor->bytes = grab(tensor->size);
}

built_tensor *builder_add(built_checkpoint *built, const char *name, const char *dtype, int rank,
                          const int64_t *shape) {
    if (built->count == built->room) {
        built->room = built->room ? 2 * built->room : 64;
        built->tensors = realloc(built->tensors, built->room * sizeof *built->tensors);
        require(built->tensors != NULL, "out of memory", name);
    }
    built_tensor *t = &built->tensors[built->count++];
    *t = (built_tensor){0};
    snprintf(t->name, sizeof t->name, "%s", name);
    builder_reshape(t, dtype, rank, shape);
    return t;
}

static built_tensor *search(built_checkpoint *built, const char *name) {
    for (size_t i = 0; i < built->count; i++)
        if (strcmp(built->tensors[i].name, name) == 0)
            return &built->tensors[i];
    return NULL;
}

built_tensor *builder_find(built_checkpoint *built, const char *name) {
    built_tensor *found = search(built, name);
    require(found != NULL, "no such tensor", name);
    return found;
}

void builder_remove(built_checkpoint *built, const char *name) {
    built_tensor *t = builder_find(built, name);
    free(t->bytes);
    built->count--;
    memmove(t, t + 1, (size_t)(built->tensors + built->count - t) * sizeof *t);
}

static const char *next_dtype(const built_checkpoint *built) {
    static const char *const all[] = {"F32", "F16", "BF16"};
    return strcmp(built->spec.dtype, "mixed") == 0 ? all[built->count % 3] : built->spec.dtype;
}

static built_tensor *add_named(built_checkpoint *built, const char *module, const char *part,
                               const char *dtype, int rank, const int64_t *shape) {
    char name[BUILDER_NAME];
    snprintf(name, sizeof name, "%s.%s", module, part);
    return builder_add(built, name, dtype, rank, shape);
}

/* MLX's affine form: w is approximately scale * q + bias, q unsigned, lowest bits first. */
static void add_affine(built_checkpoint *built, const char *module, const float *w, size_t rows,
                       size_t columns) {
    size_t bits = (size_t)built->spec.bits, group = (size_t)built->spec.group_size;
    size_t groups = columns / group, words = columns * bits / 32;
    const char *dtype = next_dtype(built);
    add_named(built, module, "weight", "U32", 2, (int64_t[]){(int64_t)rows, (int64_t)words});
    add_named(built, module, "scales", dtype, 2, (int64_t[]){(int64_t)rows, (int64_t)groups});
    add_named(built, module, "biases", dtype, 2, (int64_t[]){(int64_t)rows, (int64_t)groups});
    const built_tensor *t = &built->tensors[built->count - 3];
    uint32_t top = (1u << bits) - 1;
    for (size_t g = 0; g < rows * groups; g++) {
        float low = w[g * group], high = low;
        for (size_t i = 0; i < group; i++) {
            low = fminf(low, w[g * group + i]);
            high = fmaxf(high, w[g * group + i]);
        }
        store(&t[1], g, high > low ? (high - low) / (float)top : 1);
        store(&t[2], g, low);
        for (size_t i = 0; i < group; i++) {
            float q = roundf((w[g * group + i] - load(&t[2], g)) / load(&t[1], g));
            uint32_t code = q < 0 ? 0 : q > (float)top ? top : (uint32_t)q, word;
            size_t bit = (g * group + i) * bits;
            memcpy(&word, t[0].bytes + bit / 32 * 4, 4);
            word |= code << bit % 32;
            memcpy(t[0].bytes + bit / 32 * 4, &word, 4);
        }
    }
}

/* Columns 0: a norm, whose weights are near 1. Matrices keep the size of what they multiply. */
static void add_weight(built_checkpoint *built, const char *module, int rows, int columns,
                       bool may_quantise, uint64_t *state) {
    size_t count = (size_t)rows * (size_t)(columns ? columns : 1);
    float *w = grab(count * sizeof *w), scale = 1.7f / sqrtf((float)(columns ? columns : 1));
    for (size_t i = 0; i < count; i++)
        w[i] = columns ? scale * next_random(state) : 1 + 0.3f * next_random(state);
    if (columns && may_quantise && built->spec.bits) {
        add_affine(built, module, w, (size_t)rows, (size_t)columns);
    } else {
        const built_tensor *t = add_named(built, module, "weight", next_dtype(built),
                                          columns ? 2 : 1, (int64_t[]){rows, columns});
        for (size_t i = 0; i < count; i++)
            store(t, i, w[i]);
    }
    free(w);
}

static void add_layer(built_checkpoint *built, int layer, uint64_t *state) {
    const checkpoint_spec *s = &built->spec;
    const int query = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const struct {
        const char *name;
        int rows, columns;
    } weights[] = {{"input_layernorm", s->hidden, 0},
                   {"self_attn.q_proj", query, s->hidden},
                   {"self_attn.k_proj", kv, s->hidden},
                   {"self_attn.v_proj", kv, s->hidden},
                   {"self_attn.q_norm", s->head_dim, 0},
                   {"self_attn.k_norm", s->head_dim, 0},
                   {"self_attn.o_proj", s->hidden, query},
                   {"post_attention_layernorm", s->hidden, 0},
                   {"mlp.gate_proj", s->intermediate, s->hidden},
                   {"mlp.up_proj", s->intermediate, s->hidden},
                   {"mlp.down_proj", s->hidden, s->intermediate}};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        char module[BUILDER_NAME - 8];
        snprintf(module, sizeof module, "%slayers.%d.%s", s->no_prefix ? "" : "model.", layer,
                 weights[i].name);
        add_weight(built, module, weights[i].rows, weights[i].columns, true, state);
    }
}

/* ---- the checkpoint ---- */

static const char *torch_name(const char *dtype) {
    return strcmp(dtype, "F32") == 0   ? "float32"
           : strcmp(dtype, "F16") == 0 ? "float16"
                                       : "bfloat16";
}

static json_t *make_config(const checkpoint_spec *s) {
    json_t *config = json_pack(
        "{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b, s:s, s:b, s:b, s:i}",
        "architectures", "Qwen3ForCausalLM", "model_type", "qwen3", "vocab_size", s->vocab,
        "hidden_size", s->hidden, "intermediate_size", s->intermediate, "num_hidden_layers",
        s->layers, "num_attention_heads", s->heads, "num_key_value_heads", s->kv_heads, "head_dim",
        s->head_dim, "max_position_embeddings", 4096, "rms_norm_eps", 1e-6, "tie_word_embeddings",
        s->tie, "hidden_act", "silu", "attention_bias", 0, "use_sliding_window", 0, "eos_token_id",
        1);
    require(config != NULL, "cannot make", "config.json");
    if (s->new_spelling) {
        json_object_set_new(config, "rope_parameters",
                            json_pack("{s:f, s:s}", "rope_theta", 1e6, "rope_type", "default"));
        json_object_set_new(config, "dtype", json_string(torch_name(s->dtype)));
    } else {
        json_object_set_new(config, "rope_theta", json_integer(1000000));
        json_object_set_new(config, "rope_scaling", json_null());
        json_object_set_new(config, "torch_dtype", json_string(torch_name(s->dtype)));
    }
    if (s->bits) {
        json_t *section = json_pack("{s:i, s:i}", "group_size", s->group_size, "bits", s->bits);
        json_object_set(config, "quantization_config", section);
        json_object_set_new(config, "quantization", section);
    }
    return config;
}

built_checkpoint *builder_make(const checkpoint_spec *spec) {
    built_checkpoint *built = grab(sizeof *built);
    uint64_t state = spec->seed;
    built->spec = *spec;
    built->config = make_config(spec);
    built->generation = json_pack("{s:[i,i]}", "eos_token_id", 1, 2);
    const char *prefix = spec->no_prefix ? "" : "model.";
    char module[BUILDER_NAME - 8];
    snprintf(module, sizeof module, "%sembed_tokens", prefix);
    add_weight(built, module, spec->vocab, spec->hidden, !spec->dense_embedding, &state);
    for (int layer = 0; layer < spec->layers; layer++)
        add_layer(built, layer, &state);
    snprintf(module, sizeof module, "%snorm", prefix);
    add_weight(built, module, spec->hidden, 0, false, &state);
    if (!spec->tie)
        add_weight(built, "lm_head", spec->vocab, spec->hidden, !spec->dense_embedding, &state);
    for (size_t i = 0; i < built->count; i++)
        built->tensors[i].shard = (int)(i * (size_t)spec->shards / built->count);
    return built;
}

void builder_free(built_checkpoint *built) {
    for (size_t i = 0; i < built->count; i++)
        free(built->tensors[i].bytes);
    free(built->tensors);
    json_decref(built->config);
    json_decref(built->generation);
    json_decref(built->index);
    free(built);
}

float *builder_values(built_checkpoint *built, const char *module) {
    char name[BUILDER_NAME];
    snprintf(name, sizeof name, "%s.scales", module);
    const built_tensor *scales = search(built, name);
    snprintf(name, sizeof name, "%s.biases", module);
    const built_tensor *biases = search(built, name);
    snprintf(name, sizeof name, "%s.weight", module);
    const built_tensor *weight = builder_find(built, name);
    size_t bits = scales ? (size_t)built->spec.bits : 0;
    size_t count = scales ? weight->size * 8 / bits : weight->size / element_size(weight->dtype);
    float *values = grab(count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        if (!scales) {
            values[i] = load(weight, i);
            continue;
        }
        uint32_t word;
        memcpy(&word, weight->bytes + i * bits / 32 * 4, 4);
        uint32_t q = word >> i * bits % 32 & ((1u << bits) - 1);
        size_t group = i / (size_t)built->spec.group_size;
        values[i] = load(scales, group) * (float)q + load(biases, group);
    }
    return values;
}

/* ---- files ---- */

const char *builder_shard_name(const built_checkpoint *built, int shard, char name[64]) {
    if (built->spec.shards == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05d-of-%05d.safetensors", shard + 1, built->spec.shards);
    return name;
}

char *builder_header(const built_checkpoint *built, int shard) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    json_int_t offset = 0;
    for (size_t i = 0; i < built->count; i++) {
        const built_tensor *t = &built->tensors[i];
        if (t->shard != shard)
            continue;
        json_t *shape = json_array();
        for (int d = 0; d < t->rank; d++)
            json_array_append_new(shape, json_integer(t->shape[d]));
        json_int_t end = offset + (json_int_t)t->size;
        json_object_set_new(header, t->name,
                            json_pack("{s:s, s:o, s:[I,I]}", "dtype", t->dtype, "shape", shape,
                                      "data_offsets", offset, end));
        offset = end;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    require(text != NULL, "cannot write", "a header");
    return text;
}

void builder_write_safetensors(const char *directory, const char *name, const char *header,
                               const void *data, size_t size) {
    size_t length = strlen(header);
    unsigned char *file = grab(8 + length + size);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(file + 8, header, length);
    if (size)
        memcpy(file + 8 + length, data, size);
    temp_write(directory, name, file, 8 + length + size);
    free(file);
}

static void write_shard(const built_checkpoint *built, const char *directory, int shard) {
    size_t size = 0;
    for (size_t i = 0; i < built->count; i++)
        size += built->tensors[i].shard == shard ? built->tensors[i].size : 0;
    unsigned char *data = grab(size);
    size = 0;
    for (size_t i = 0; i < built->count; i++) {
        const built_tensor *t = &built->tensors[i];
        if (t->shard != shard)
            continue;
        memcpy(data + size, t->bytes, t->size);
        size += t->size;
    }
    char name[64], *header = builder_header(built, shard);
    builder_write_safetensors(directory, builder_shard_name(built, shard, name), header, data,
                              size);
    free(header);
    free(data);
}

json_t *builder_index(built_checkpoint *built) {
    if (built->index)
        return built->index;
    json_t *map = json_object();
    for (size_t i = 0; i < built->count; i++) {
        char name[64];
        builder_shard_name(built, built->tensors[i].shard, name);
        json_object_set_new(map, built->tensors[i].name, json_string(name));
    }
    built->index = json_pack("{s:{}, s:o}", "metadata", "weight_map", map);
    require(built->index != NULL, "cannot make", "the index");
    return built->index;
}

static void write_json(const char *directory, const char *name, const json_t *value) {
    char *text = json_dumps(value, JSON_INDENT(2));
    require(text != NULL, "cannot write", name);
    temp_write(directory, name, text, strlen(text));
    free(text);
}

void builder_write(built_checkpoint *built, const char *directory) {
    write_json(directory, "config.json", built->config);
    if (built->generation)
        write_json(directory, "generation_config.json", built->generation);
    for (int shard = 0; shard < built->spec.shards; shard++)
        write_shard(built, directory, shard);
    if (built->spec.shards > 1)
        write_json(directory, "model.safetensors.index.json", builder_index(built));
}

char *builder_write_spec(const checkpoint_spec *spec) {
    char *directory = temp_directory_make();
    built_checkpoint *built = builder_make(spec);
    builder_write(built, directory);
    builder_free(built);
    return directory;
}

char *builder_write_published(void) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.heads = 4;
    spec.kv_heads = 2;
    spec.head_dim = 128;
    spec.intermediate = 128; /* which two devices can share */
    spec.dtype = "BF16";
    spec.bits = 4;
    spec.group_size = 32;
    return builder_write_spec(&spec);
}
