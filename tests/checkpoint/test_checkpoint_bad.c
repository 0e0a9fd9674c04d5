/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints that must be refused, one case per kind of damage, each with what it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/checkpoint.h"
#include "checkpoint/expect.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

typedef enum kind { DENSE, UNTIED, SHARDED, QUANTISED } kind;

/* Does its damage before the checkpoint is written (built) or after (directory). */
typedef void (*damage)(built_checkpoint *built, const char *directory);

static void set_config(built_checkpoint *b, const char *key, int value) {
    json_object_set_new(b->config, key, json_integer(value));
}

static void remove_file(const char *directory, const char *name) {
    char *path = temp_path(directory, name);
    assert_int_equal(unlink(path), 0);
    free(path);
}

/* ---- before writing ---- */

static void missing_tensor(built_checkpoint *b, const char *d) {
    (void)d;
    builder_remove(b, "model.layers.1.self_attn.k_norm.weight");
}

static void missing_embedding(built_checkpoint *b, const char *d) {
    (void)d;
    builder_remove(b, "model.embed_tokens.weight");
}

static void missing_head(built_checkpoint *b, const char *d) {
    (void)d;
    builder_remove(b, "lm_head.weight");
}

static void extra_tensor(built_checkpoint *b, const char *d) {
    (void)d;
    builder_add(b, "model.layers.0.self_attn.q_proj.bias", "F32", 1, (int64_t[]){64});
}

static void extra_layer(built_checkpoint *b, const char *d) {
    (void)d;
    set_config(b, "num_hidden_layers", 1);
}

static void missing_layer(built_checkpoint *b, const char *d) {
    (void)d;
    set_config(b, "num_hidden_layers", 3);
}

static void wrong_vocab(built_checkpoint *b, const char *d) {
    (void)d;
    set_config(b, "vocab_size", 81);
}

static void wrong_heads(built_checkpoint *b, const char *d) {
    (void)d;
    set_config(b, "head_dim", 18);
}

static void transposed(built_checkpoint *b, const char *d) {
    (void)d;
    builder_reshape(builder_find(b, "model.layers.0.mlp.down_proj.weight"), "F32", 2,
                    (int64_t[]){96, 64});
}

static void wrong_rank(built_checkpoint *b, const char *d) {
    (void)d;
    builder_reshape(builder_find(b, "model.norm.weight"), "F32", 2, (int64_t[]){64, 1});
}

static void emptied(built_checkpoint *b, const char *d) {
    (void)d;
    builder_reshape(builder_find(b, "model.norm.weight"), "F32", 1, (int64_t[]){0});
}

static void double_precision(built_checkpoint *b, const char *d) {
    (void)d;
    builder_reshape(builder_find(b, "model.norm.weight"), "F64", 1, (int64_t[]){64});
}

static void packed_dense(built_checkpoint *b, const char *d) {
    (void)d;
    builder_reshape(builder_find(b, "model.layers.0.mlp.up_proj.weight"), "U32", 2,
                    (int64_t[]){96, 8});
}

static void both_prefixes(built_checkpoint *b, const char *d) {
    (void)d;
    builder_add(b, "embed_tokens.weight", "F32", 2, (int64_t[]){80, 64});
}

static void rename_tensor(built_checkpoint *b, const char *from, const char *to) {
    built_tensor *tensor = builder_find(b, from);
    snprintf(tensor->name, sizeof tensor->name, "%s", to);
}

static void bare_embedding(built_checkpoint *b, const char *d) {
    (void)d;
    rename_tensor(b, "model.embed_tokens.weight", "embed_tokens.weight");
}

static void bare_norm(built_checkpoint *b, const char *d) {
    (void)d;
    rename_tensor(b, "model.norm.weight", "norm.weight");
}

static void stray_scales(built_checkpoint *b, const char *d) {
    (void)d;
    builder_add(b, "model.layers.0.mlp.up_proj.scales", "F32", 2, (int64_t[]){96, 2});
}

static void no_scales(built_checkpoint *b, const char *d) {
    (void)d;
    builder_remove(b, "model.layers.0.mlp.up_proj.scales");
}

static void no_biases(built_checkpoint *b, const char *d) {
    (void)d;
    builder_remove(b, "model.layers.0.mlp.up_proj.biases");
}

static void wrong_bits(built_checkpoint *b, const char *d) {
    (void)d;
    json_object_set_new(json_object_get(b->config, "quantization"), "bits", json_integer(8));
}

static void wrong_group(built_checkpoint *b, const char *d) {
    (void)d;
    json_object_set_new(json_object_get(b->config, "quantization"), "group_size", json_integer(64));
}

static void indivisible_group(built_checkpoint *b, const char *d) {
    (void)d;
    json_object_set_new(json_object_get(b->config, "quantization"), "group_size",
                        json_integer(128));
}

static void no_section(built_checkpoint *b, const char *d) {
    (void)d;
    json_object_del(b->config, "quantization");
    json_object_del(b->config, "quantization_config");
}

static void float_packed(built_checkpoint *b, const char *d) {
    (void)d;
    builder_reshape(builder_find(b, "model.layers.0.mlp.up_proj.weight"), "F32", 2,
                    (int64_t[]){96, 64});
}

static void integer_scales(built_checkpoint *b, const char *d) {
    (void)d;
    builder_reshape(builder_find(b, "model.layers.0.mlp.up_proj.scales"), "U8", 2,
                    (int64_t[]){96, 2});
}

static void different_biases(built_checkpoint *b, const char *d) {
    (void)d;
    builder_reshape(builder_find(b, "model.layers.0.mlp.up_proj.biases"), "F16", 2,
                    (int64_t[]){96, 2});
}

static void short_biases(built_checkpoint *b, const char *d) {
    (void)d;
    builder_reshape(builder_find(b, "model.layers.0.mlp.up_proj.biases"), "F32", 2,
                    (int64_t[]){95, 2});
}

static void overridden_missing(built_checkpoint *b, const char *d) {
    (void)d;
    no_scales(b, d);
    json_object_set_new(json_object_get(b->config, "quantization"), "model.layers.0.mlp.up_proj",
                        json_true());
}

static void quantised_norm(built_checkpoint *b, const char *d) {
    (void)d;
    builder_add(b, "model.norm.scales", "F32", 2, (int64_t[]){1, 2});
}

static void index_wrong_shard(built_checkpoint *b, const char *d) {
    (void)d;
    json_object_set_new(json_object_get(builder_index(b), "weight_map"), "model.norm.weight",
                        json_string("model-00001-of-00002.safetensors"));
}

static void index_unlisted(built_checkpoint *b, const char *d) {
    (void)d;
    json_object_del(json_object_get(builder_index(b), "weight_map"), "model.norm.weight");
}

static void index_phantom(built_checkpoint *b, const char *d) {
    (void)d;
    json_object_set_new(json_object_get(builder_index(b), "weight_map"), "model.phantom.weight",
                        json_string("model-00001-of-00002.safetensors"));
}

static void index_missing_shard(built_checkpoint *b, const char *d) {
    (void)d;
    json_object_set_new(json_object_get(builder_index(b), "weight_map"), "model.norm.weight",
                        json_string("model-00003-of-00002.safetensors"));
}

static void index_parent(built_checkpoint *b, const char *d) {
    (void)d;
    json_object_set_new(json_object_get(builder_index(b), "weight_map"), "model.norm.weight",
                        json_string("../model.safetensors"));
}

static void index_absolute(built_checkpoint *b, const char *d) {
    (void)d;
    json_object_set_new(json_object_get(builder_index(b), "weight_map"), "model.norm.weight",
                        json_string("/model.safetensors"));
}

static void in_both_shards(built_checkpoint *b, const char *d) {
    (void)d;
    builder_index(b);
    builder_add(b, "model.norm.weight", "F32", 1, (int64_t[]){64});
}

/* ---- after writing ---- */

static void no_config(built_checkpoint *b, const char *d) {
    (void)b;
    remove_file(d, "config.json");
}

static void no_tensors(built_checkpoint *b, const char *d) {
    (void)b;
    remove_file(d, "model.safetensors");
}

static void no_second_shard(built_checkpoint *b, const char *d) {
    (void)b;
    remove_file(d, "model-00002-of-00002.safetensors");
}

static void bad_generation_config(built_checkpoint *b, const char *d) {
    (void)b;
    temp_write(d, "generation_config.json", "{\"top_p\": 2}", 12);
}

static void two_bytes_short(built_checkpoint *b, const char *d) {
    (void)b;
    char *path = temp_path(d, "model.safetensors");
    size_t size;
    free(temp_read(path, &size));
    assert_int_equal(truncate(path, (off_t)size - 2), 0);
    free(path);
}

static void directory_for_config(built_checkpoint *b, const char *d) {
    no_config(b, d);
    char *path = temp_path(d, "config.json");
    assert_int_equal(symlink(".", path), 0);
    free(path);
}

static const struct {
    const char *name;
    kind kind;
    damage before, after;
    myelin_status status;
    const char *message;
} cases[] = {
    {"missing tensor", DENSE, missing_tensor, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.layers.1.self_attn.k_norm.weight\" is missing"},
    {"missing embedding", DENSE, missing_embedding, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.embed_tokens.weight\" is missing"},
    {"missing head", UNTIED, missing_head, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"lm_head.weight\" is missing"},
    {"extra tensor", DENSE, extra_tensor, NULL, MYELIN_ERROR_FORMAT,
     "model.safetensors: tensor \"model.layers.0.self_attn.q_proj.bias\" (F32 [64]) is not part"},
    {"extra layer", DENSE, extra_layer, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.layers.1.input_layernorm.weight\" (F32 [64]) is not part"},
    {"missing layer", DENSE, missing_layer, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.layers.2.input_layernorm.weight\" is missing"},
    {"vocab is not rows", DENSE, wrong_vocab, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.embed_tokens.weight\": expected shape [81, 64] (vocab_size, hidden_size), "
     "found [80, 64]"},
    {"head_dim", DENSE, wrong_heads, NULL, MYELIN_ERROR_FORMAT,
     "q_proj.weight\": expected shape [72, 64] (num_attention_heads * head_dim, hidden_size), "
     "found [64, 64]"},
    {"transposed", DENSE, transposed, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.layers.0.mlp.down_proj.weight\": expected shape [64, 96]"},
    {"wrong rank", DENSE, wrong_rank, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.norm.weight\": expected shape [64] (hidden_size), found [64, 1]"},
    {"emptied", DENSE, emptied, NULL, MYELIN_ERROR_FORMAT, "expected shape [64]"},
    {"F64", DENSE, double_precision, NULL, MYELIN_ERROR_UNSUPPORTED,
     "tensor \"model.norm.weight\": expected F32, F16 or BF16, found F64"},
    {"packed without a section", DENSE, packed_dense, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.layers.0.mlp.up_proj.scales\" is missing"},
    {"two embeddings", DENSE, both_prefixes, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"embed_tokens.weight\" (F32 [80, 64]) is not part"},
    {"prefix missing in one", DENSE, bare_norm, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.norm.weight\" is missing"},
    {"prefix missing in the first", DENSE, bare_embedding, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"layers.0.input_layernorm.weight\" is missing"},
    {"scales without a section", DENSE, stray_scales, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.layers.0.mlp.up_proj.scales\" has no meaning"},
    {"quantised without a section", QUANTISED, no_section, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.embed_tokens.scales\" has no meaning without a `quantization` section"},
    {"no scales", QUANTISED, no_scales, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.layers.0.mlp.up_proj.scales\" is missing"},
    {"no biases", QUANTISED, no_biases, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.layers.0.mlp.up_proj.biases\" is missing"},
    {"overridden, no scales", QUANTISED, overridden_missing, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.layers.0.mlp.up_proj.scales\" is missing: it is quantised"},
    {"wrong bits", QUANTISED, wrong_bits, NULL, MYELIN_ERROR_FORMAT,
     "embed_tokens.weight\": expected shape [80, 16] (8 bits for 64 columns), found [80, 8]"},
    {"wrong group", QUANTISED, wrong_group, NULL, MYELIN_ERROR_FORMAT,
     "embed_tokens.scales\": expected shape [80, 1] (groups of 64), found [80, 2]"},
    {"indivisible group", QUANTISED, indivisible_group, NULL, MYELIN_ERROR_FORMAT,
     "64 columns are not a multiple of group_size (128)"},
    {"weight not packed", QUANTISED, float_packed, NULL, MYELIN_ERROR_UNSUPPORTED,
     "up_proj.weight\": expected U32 (it has scales), found F32"},
    {"integer scales", QUANTISED, integer_scales, NULL, MYELIN_ERROR_UNSUPPORTED,
     "up_proj.scales\": expected F32, F16 or BF16, found U8"},
    {"biases of another dtype", QUANTISED, different_biases, NULL, MYELIN_ERROR_UNSUPPORTED,
     "up_proj.biases\": expected the dtype of the scales, found F16"},
    {"short biases", QUANTISED, short_biases, NULL, MYELIN_ERROR_FORMAT,
     "up_proj.biases\": expected shape [96, 2] (groups of 32), found [95, 2]"},
    {"quantised norm", QUANTISED, quantised_norm, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.norm.scales\" (F32 [1, 2]) is not part"},
    {"tensor in the wrong shard", SHARDED, index_wrong_shard, NULL, MYELIN_ERROR_FORMAT,
     "index.json: tensor \"model.norm.weight\" is listed for model-00001-of-00002.safetensors, but "
     "lies in model-00002-of-00002.safetensors"},
    {"tensor not in the index", SHARDED, index_unlisted, NULL, MYELIN_ERROR_FORMAT,
     "model-00002-of-00002.safetensors: tensor \"model.norm.weight\" is not listed for this file "
     "by "
     "model.safetensors.index.json"},
    {"tensor only in the index", SHARDED, index_phantom, NULL, MYELIN_ERROR_FORMAT,
     "tensor \"model.phantom.weight\" is listed for model-00001-of-00002.safetensors, which does "
     "not have it"},
    {"tensor in two shards", SHARDED, in_both_shards, NULL, MYELIN_ERROR_FORMAT,
     "\"model.norm.weight\" is listed for model-00002-of-00002.safetensors, but lies in "
     "model-00001-of-00002.safetensors"},
    {"index names a missing shard", SHARDED, index_missing_shard, NULL, MYELIN_ERROR_NOT_FOUND,
     "model.safetensors.index.json: expected a file model-00003-of-00002.safetensors beside it"},
    {"index leads out", SHARDED, index_parent, NULL, MYELIN_ERROR_FORMAT,
     "found a string \"../model.safetensors\""},
    {"index absolute", SHARDED, index_absolute, NULL, MYELIN_ERROR_FORMAT,
     "found a string \"/model.safetensors\""},
    {"shard removed", SHARDED, NULL, no_second_shard, MYELIN_ERROR_NOT_FOUND,
     "expected a file model-00002-of-00002.safetensors"},
    {"no config", DENSE, NULL, no_config, MYELIN_ERROR_NOT_FOUND, "config.json: cannot open"},
    {"config a directory", DENSE, NULL, directory_for_config, MYELIN_ERROR_FORMAT,
     "config.json: expected a regular file, found a directory"},
    {"no tensors", DENSE, NULL, no_tensors, MYELIN_ERROR_NOT_FOUND,
     "expected model.safetensors or model.safetensors.index.json, found neither"},
    {"generation config", DENSE, NULL, bad_generation_config, MYELIN_ERROR_FORMAT,
     "generation_config.json: top_p"},
    {"two bytes short", DENSE, NULL, two_bytes_short, MYELIN_ERROR_FORMAT,
     "model.safetensors: data_offsets of \"model.norm.weight\": end"},
};

static checkpoint_spec spec_of(kind which) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.tie = which != UNTIED;
    spec.shards = which == SHARDED ? 2 : 1;
    spec.bits = which == QUANTISED ? 4 : 0;
    spec.group_size = which == QUANTISED ? 32 : 0;
    return spec;
}

static void test_damage(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *directory = temp_directory_make();
        checkpoint_spec spec = spec_of(cases[i].kind);
        built_checkpoint *built = builder_make(&spec);
        if (cases[i].before)
            cases[i].before(built, directory);
        builder_write(built, directory);
        if (cases[i].after)
            cases[i].after(built, directory);
        mln_checkpoint *c;
        myelin_error error = {0};
        expect_failure(cases[i].name, mln_checkpoint_open(&c, directory, &error), &error,
                       cases[i].status, cases[i].message);
        assert_null(c);
        assert_int_equal(mln_checkpoint_open(&c, directory, NULL), cases[i].status);
        builder_free(built);
        temp_directory_remove(directory);
    }
}

/* Without damage all four open: the cases above fail for the reason they give and no other. */
static void test_undamaged(void **state) {
    (void)state;
    for (int which = DENSE; which <= QUANTISED; which++) {
        char *directory = temp_directory_make();
        checkpoint_spec spec = spec_of((kind)which);
        built_checkpoint *built = builder_make(&spec);
        builder_write(built, directory);
        mln_checkpoint *c;
        assert_int_equal(mln_checkpoint_open(&c, directory, NULL), MYELIN_OK);
        mln_checkpoint_free(c);
        builder_free(built);
        temp_directory_remove(directory);
    }
}

static void test_no_directory(void **state) {
    (void)state;
    char *directory = temp_directory_make();
    char *path = temp_path(directory, "absent");
    mln_checkpoint *c;
    myelin_error error = {0};
    expect_failure("absent", mln_checkpoint_open(&c, path, &error), &error, MYELIN_ERROR_NOT_FOUND,
                   "absent: cannot open");
    temp_write(directory, "absent", "", 0);
    expect_failure("file", mln_checkpoint_open(&c, path, &error), &error, MYELIN_ERROR_FORMAT,
                   "expected a checkpoint directory, found a file");
    free(path);
    temp_directory_remove(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_damage),
                                       cmocka_unit_test(test_undamaged),
                                       cmocka_unit_test(test_no_directory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
