/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints that open, and what is then known about them. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/expect.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

static char *directory;

static int make_directory(void **state) {
    (void)state;
    directory = temp_directory_make();
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    temp_directory_remove(directory);
    return 0;
}

static mln_checkpoint *open_ok(const char *path) {
    mln_checkpoint *c;
    myelin_error error = {0};
    if (mln_checkpoint_open(&c, path, &error) != MYELIN_OK)
        fail_msg("%s: %s", path, error.message);
    return c;
}

static uint64_t total_bytes(const mln_checkpoint *c) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < c->num_weights; i++)
        for (int part = 0; part < 3; part++)
            bytes += c->weights[i].source[part] ? c->weights[i].source[part]->size : 0;
    return bytes;
}

static void test_fixtures(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t shards, weights;
        int32_t dtype, hidden, rope;
    } models[] = {{"sharded-f32", 14, 4 * 11 + 2, MYELIN_DTYPE_F32, 128, MYELIN_ROPE_DEFAULT},
                  {"tied-bf16", 1, 3 * 11 + 2, MYELIN_DTYPE_BF16, 64, MYELIN_ROPE_DEFAULT},
                  {"untied-f16", 1, 2 * 11 + 3, MYELIN_DTYPE_F16, 96, MYELIN_ROPE_DEFAULT},
                  {"yarn-bf16", 1, 2 * 11 + 2, MYELIN_DTYPE_BF16, 128, MYELIN_ROPE_YARN}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char *path = temp_path(MYELIN_TEST_DATA "/models", models[i].name);
        mln_checkpoint *c = open_ok(path);
        assert_string_equal(c->directory, path);
        assert_int_equal(c->num_shards, models[i].shards);
        assert_int_equal(c->num_weights, models[i].weights);
        assert_int_equal(c->num_ignored, 0);
        assert_int_equal(c->config.model.hidden_size, models[i].hidden);
        assert_int_equal(c->config.model.rope.type, models[i].rope);
        assert_int_equal(c->generation.num_stop_ids, 1);
        uint64_t in_files = 0;
        for (size_t s = 0; s < c->num_shards; s++)
            for (size_t t = 0; t < c->shards[s].header.count; t++)
                in_files += c->shards[s].header.tensors[t].size;
        assert_int_equal(total_bytes(c), in_files);
        for (size_t w = 0; w < c->num_weights; w++)
            assert_int_equal(c->weights[w].tensor.dtype, models[i].dtype);
        mln_checkpoint_free(c);
        free(path);
    }
    mln_checkpoint_free(NULL);
}

/* Part of a weight as it lies in the file equals what the builder put there. */
static void check_part(built_checkpoint *built, const mln_checkpoint *c, const mln_weight *weight,
                       int part) {
    static const char *const suffixes[] = {"weight", "scales", "biases"};
    char name[BUILDER_NAME];
    size_t stem = strlen(weight->name) - strlen("weight");
    const char *start = weight->name;
    if (built->spec.no_prefix && strncmp(start, "model.", 6) == 0) {
        start += 6;
        stem -= 6;
    }
    snprintf(name, sizeof name, "%.*s%s", (int)stem, start, suffixes[part]);
    const built_tensor *expected = builder_find(built, name);
    unsigned char *bytes = malloc(expected->size);
    assert_int_equal(weight->source[part]->size, expected->size);
    assert_int_equal(weight->shard[part], expected->shard);
    assert_int_equal(mln_checkpoint_read(c, weight, part, 0, bytes, expected->size, NULL),
                     MYELIN_OK);
    assert_memory_equal(bytes, expected->bytes, expected->size);
    assert_int_equal(mln_checkpoint_read(c, weight, part, 5, bytes, 3, NULL), MYELIN_OK);
    assert_memory_equal(bytes, expected->bytes + 5, 3);
    free(bytes);
}

static void check_built(built_checkpoint *built) {
    builder_write(built, directory);
    mln_checkpoint *c = open_ok(directory);
    const checkpoint_spec *s = &built->spec;
    assert_int_equal(c->num_weights, (size_t)s->layers * 11 + (s->tie ? 2 : 3));
    for (size_t i = 0; i < c->num_weights; i++) {
        const mln_weight *weight = &c->weights[i];
        const myelin_tensor *t = &weight->tensor;
        assert_null(t->data);
        assert_ptr_equal(mln_checkpoint_find(c, weight->name), weight);
        assert_int_equal(t->stride[t->rank - 1], 1);
        assert_int_equal(t->stride[0], t->rank == 2 ? t->shape[1] : 1);
        bool affine = t->dtype == MYELIN_DTYPE_AFFINE;
        for (int part = 0; part < (affine ? 3 : 1); part++)
            check_part(built, c, weight, part);
        assert_int_equal(t->bits, affine ? s->bits : 0);
        assert_int_equal(t->group_size, affine ? s->group_size : 0);
        if (!affine)
            assert_null(weight->source[1]);
        bool embedding = strstr(weight->name, "embed_tokens") || strstr(weight->name, "lm_head");
        assert_int_equal(affine, s->bits && t->rank == 2 && !(embedding && s->dense_embedding));
    }
    assert_string_equal(c->weights[0].name, "model.embed_tokens.weight");
    assert_string_equal(c->weights[1].name, "model.layers.0.input_layernorm.weight");
    assert_int_equal(c->weights[0].tensor.shape[0], s->vocab);
    assert_int_equal(c->weights[0].tensor.shape[1], s->hidden);
    assert_null(mln_checkpoint_find(c, "model.layers.0.weight"));
    mln_checkpoint_free(c);
}

/* Every kind of checkpoint there is, through the builder. */
static void test_built(void **state) {
    (void)state;
    static const struct {
        const char *dtype;
        int bits, group_size, shards;
        bool tie, dense_embedding, no_prefix, new_spelling;
    } cases[] = {
        {"F32", 0, 0, 1, true, false, false, false},
        {"F16", 0, 0, 1, false, false, false, true},
        {"BF16", 0, 0, 3, true, false, true, false},
        {"mixed", 0, 0, 5, false, false, false, true},
        {"F32", 4, 32, 1, true, false, false, false},
        {"F16", 4, 64, 1, false, false, false, true},
        {"BF16", 8, 32, 2, true, true, true, false},
        {"mixed", 8, 64, 3, false, true, false, false},
        {"BF16", 8, 128, 1, true, false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        checkpoint_spec spec = checkpoint_spec_default();
        spec.dtype = cases[i].dtype;
        spec.bits = cases[i].bits;
        spec.group_size = cases[i].group_size;
        spec.shards = cases[i].shards;
        spec.tie = cases[i].tie;
        spec.dense_embedding = cases[i].dense_embedding;
        spec.no_prefix = cases[i].no_prefix;
        spec.new_spelling = cases[i].new_spelling;
        spec.hidden = spec.intermediate = spec.bits ? 128 : 72;
        spec.head_dim = spec.bits ? 32 : 10;
        built_checkpoint *built = builder_make(&spec);
        check_built(built);
        builder_free(built);
        temp_directory_remove(directory);
        directory = temp_directory_make();
    }
}

/* The builder's numbers are what other tests compare with, so they are checked by hand here. */
static void test_builder_values(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    spec.bits = 4;
    spec.group_size = 32;
    built_checkpoint *built = builder_make(&spec);
    const char *module = "model.layers.1.mlp.up_proj";
    const built_tensor *packed = builder_find(built, "model.layers.1.mlp.up_proj.weight");
    const built_tensor *scales = builder_find(built, "model.layers.1.mlp.up_proj.scales");
    const built_tensor *biases = builder_find(built, "model.layers.1.mlp.up_proj.biases");
    float *values = builder_values(built, module);
    for (size_t i = 0; i < 96 * 64; i++) {
        float scale, bias;
        memcpy(&scale, scales->bytes + i / 32 * 4, 4);
        memcpy(&bias, biases->bytes + i / 32 * 4, 4);
        int q = i % 2 ? packed->bytes[i / 2] >> 4 : packed->bytes[i / 2] & 15;
        assert_true(values[i] == scale * (float)q + bias);
    }
    free(values);
    builder_free(built);
    static const float exact[] = {0, 1, -1.5f, 0.125f, 65504, -6.103515625e-5f, 5.9604645e-8f};
    static const uint16_t f16[] = {0, 0x3c00, 0xbe00, 0x3000, 0x7bff, 0x8400, 0x0001};
    spec.bits = 0;
    spec.dtype = "F16";
    built = builder_make(&spec);
    memcpy(builder_find(built, "model.norm.weight")->bytes, f16, sizeof f16);
    values = builder_values(built, "model.norm");
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
        assert_true(values[i] == exact[i]);
    free(values);
    builder_free(built);
}

/* Single tensors may be stored otherwise than the `quantization` section says in general. */
static void test_overrides(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    spec.bits = 4;
    spec.group_size = 32;
    built_checkpoint *built = builder_make(&spec);
    json_t *section = json_object_get(built->config, "quantization");
    json_object_set_new(section, "model.layers.0.mlp.up_proj",
                        json_pack("{s:i, s:i}", "bits", 8, "group_size", 64));
    builder_reshape(builder_find(built, "model.layers.0.mlp.up_proj.weight"), "U32", 2,
                    (int64_t[]){96, 16});
    builder_reshape(builder_find(built, "model.layers.0.mlp.up_proj.scales"), "BF16", 2,
                    (int64_t[]){96, 1});
    builder_reshape(builder_find(built, "model.layers.0.mlp.up_proj.biases"), "BF16", 2,
                    (int64_t[]){96, 1});
    json_object_set_new(section, "model.layers.1.mlp.up_proj", json_false());
    builder_reshape(builder_find(built, "model.layers.1.mlp.up_proj.weight"), "BF16", 2,
                    (int64_t[]){96, 64});
    builder_remove(built, "model.layers.1.mlp.up_proj.scales");
    builder_remove(built, "model.layers.1.mlp.up_proj.biases");
    json_object_set_new(section, "model.embed_tokens", json_true());
    builder_write(built, directory);
    mln_checkpoint *c = open_ok(directory);
    const myelin_tensor *t = &mln_checkpoint_find(c, "model.layers.0.mlp.up_proj.weight")->tensor;
    assert_int_equal(t->bits, 8);
    assert_int_equal(t->group_size, 64);
    assert_int_equal(t->scale_dtype, MYELIN_DTYPE_BF16);
    t = &mln_checkpoint_find(c, "model.layers.1.mlp.up_proj.weight")->tensor;
    assert_int_equal(t->dtype, MYELIN_DTYPE_BF16);
    assert_int_equal(mln_checkpoint_find(c, "model.embed_tokens.weight")->tensor.bits, 4);
    mln_checkpoint_free(c);
    builder_free(built);
}

/* Tensors a model does not need, but that may lie in its files. */
static void test_ignored(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    built_checkpoint *built = builder_make(&spec);
    builder_add(built, "lm_head.weight", "F32", 2, (int64_t[]){80, 64});
    builder_add(built, "model.layers.0.self_attn.rotary_emb.inv_freq", "F32", 1, (int64_t[]){8});
    builder_add(built, "empty", "I64", 3, (int64_t[]){2, 0, 3});
    builder_add(built, "step", "F64", 0, NULL);
    builder_write(built, directory);
    mln_checkpoint *c = open_ok(directory);
    assert_int_equal(c->num_ignored, 4);
    assert_int_equal(c->num_weights, 24);
    assert_null(mln_checkpoint_find(c, "lm_head.weight"));
    mln_checkpoint_free(c);
    builder_free(built);
}

static void test_generation_config_is_optional(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    built_checkpoint *built = builder_make(&spec);
    builder_write(built, directory);
    mln_checkpoint *c = open_ok(directory);
    assert_int_equal(c->generation.num_stop_ids, 2);
    mln_checkpoint_free(c);
    char *path = temp_path(directory, "generation_config.json");
    assert_int_equal(unlink(path), 0);
    c = open_ok(directory);
    assert_int_equal(c->generation.num_stop_ids, 0);
    assert_int_equal(c->config.num_stop_ids, 1);
    mln_checkpoint_free(c);
    free(path);
    builder_free(built);
}

/* model.safetensors goes before the index. */
static void test_single_file_preferred(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    built_checkpoint *built = builder_make(&spec);
    builder_write(built, directory);
    temp_write(directory, "model.safetensors.index.json", "no JSON", 7);
    mln_checkpoint *c = open_ok(directory);
    assert_int_equal(c->num_shards, 1);
    mln_checkpoint_free(c);
    builder_free(built);
}

static void test_reading(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    built_checkpoint *built = builder_make(&spec);
    builder_write(built, directory);
    mln_checkpoint *c = open_ok(directory);
    const mln_weight *norm = mln_checkpoint_find(c, "model.norm.weight");
    unsigned char bytes[256];
    myelin_error error = {0};
    assert_int_equal(mln_checkpoint_read(c, norm, 0, 256, bytes, 0, NULL), MYELIN_OK);
    expect_failure("past the end", mln_checkpoint_read(c, norm, 0, 1, bytes, 256, &error), &error,
                   MYELIN_ERROR_ARGUMENT, "model.norm.weight");
    expect_failure("far", mln_checkpoint_read(c, norm, 0, UINT64_MAX, bytes, 2, &error), &error,
                   MYELIN_ERROR_ARGUMENT, NULL);
    expect_failure("no scales", mln_checkpoint_read(c, norm, 1, 0, bytes, 1, &error), &error,
                   MYELIN_ERROR_ARGUMENT, "has no part 1");
    char *path = temp_path(directory, "model.safetensors");
    assert_int_equal(truncate(path, (off_t)c->shards[0].file.size - 10), 0);
    expect_failure("truncated", mln_checkpoint_read(c, norm, 0, 0, bytes, 256, &error), &error,
                   MYELIN_ERROR_FORMAT,
                   "model.safetensors: expected 10 more bytes, found the end of the file");
    free(path);
    mln_checkpoint_free(c);
    builder_free(built);
}

/* Every allocation failing in turn: an error value, and (under a sanitizer) nothing lost. */
static void test_out_of_memory(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    spec.shards = 2;
    spec.bits = 4;
    spec.group_size = 32;
    built_checkpoint *built = builder_make(&spec);
    json_object_set_new(json_object_get(built->config, "quantization"), "x", json_false());
    builder_write(built, directory);
    mln_fail_allocation(0, false);
    mln_checkpoint_free(open_ok(directory));
    uint64_t total = mln_fail_allocation(0, false);
    assert_true(total > 40);
    for (int sticky = 0; sticky < 2; sticky++) {
        for (uint64_t n = 1; n <= total; n++) {
            mln_checkpoint *c = NULL;
            myelin_error error = {0};
            mln_fail_allocation(n, sticky);
            myelin_status status = mln_checkpoint_open(&c, directory, &error);
            mln_fail_allocation(0, false);
            char name[32];
            snprintf(name, sizeof name, "allocation %" PRIu64, n);
            expect_failure(name, status, &error, MYELIN_ERROR_MEMORY, "could not allocate");
            assert_null(c);
        }
    }
    builder_free(built);
}

#define IN_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, make_directory, remove_directory)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixtures),
        IN_DIRECTORY(test_built),
        cmocka_unit_test(test_builder_values),
        IN_DIRECTORY(test_overrides),
        IN_DIRECTORY(test_ignored),
        IN_DIRECTORY(test_generation_config_is_optional),
        IN_DIRECTORY(test_single_file_preferred),
        IN_DIRECTORY(test_reading),
        IN_DIRECTORY(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
