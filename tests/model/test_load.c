/* SPDX-License-Identifier: Apache-2.0 */
/* Loading: the cast, what is promised about memory, cancelling, and everything that can go wrong.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "model/composed_internal.h"
#include "model/harness.h"
#include "model/reference.h"
#include "support/temp_directory.h"
#include "tensor/dtype.h"

typedef struct fixture {
    char *directory;
    built_checkpoint *built;
    mln_checkpoint *checkpoint;
} fixture;

static fixture fixture_make(const checkpoint_spec *spec) {
    fixture f = {temp_directory_make(), builder_make(spec), NULL};
    myelin_error error = {0};
    builder_write(f.built, f.directory);
    if (mln_checkpoint_open(&f.checkpoint, f.directory, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    return f;
}

static void fixture_free(fixture *f) {
    mln_checkpoint_free(f->checkpoint);
    builder_free(f->built);
    temp_directory_remove(f->directory);
}

static fixture mixed_fixture(void) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.dtype = "mixed";
    spec.tie = false;
    spec.vocab = 301;
    spec.intermediate = 131; /* 64 * 131 elements: more than one bounce buffer, no multiple of it */
    return fixture_make(&spec);
}

static mln_model_options options_make(int32_t dtype, int32_t threads) {
    return (mln_model_options){.plugin = mln_composed_plugin(), .dtype = dtype, .threads = threads};
}

static void check_tensor(fixture *f, const myelin_tensor *tensor, const char *module,
                         int32_t dtype) {
    char name[BUILDER_NAME];
    snprintf(name, sizeof name, "%s.weight", module);
    const built_tensor *source = builder_find(f->built, name);
    size_t count = (size_t)tensor->shape[0] * (size_t)(tensor->rank > 1 ? tensor->shape[1] : 1);
    assert_int_equal((uintptr_t)tensor->data % MYELIN_TENSOR_ALIGNMENT, 0);
    if (dtype == MYELIN_DTYPE_AUTO) {
        assert_string_equal(source->dtype, tensor->dtype == MYELIN_DTYPE_F32   ? "F32"
                                           : tensor->dtype == MYELIN_DTYPE_F16 ? "F16"
                                                                               : "BF16");
        assert_memory_equal(tensor->data, source->bytes, source->size);
        return;
    }
    assert_int_equal(tensor->dtype, dtype);
    float *values = builder_values(f->built, module);
    unsigned char *expected = malloc(count * mln_dtype_size(dtype));
    mln_from_f32(expected, dtype, values, count);
    assert_memory_equal(tensor->data, expected, count * mln_dtype_size(dtype));
    free(values);
    free(expected);
}

static void casts(void **state) {
    (void)state;
    fixture f = mixed_fixture();
    const int32_t dtypes[] = {MYELIN_DTYPE_AUTO, MYELIN_DTYPE_F32, MYELIN_DTYPE_F16,
                              MYELIN_DTYPE_BF16};
    for (int d = 0; d < 4; d++) {
        mln_model *model;
        mln_model_options options = options_make(dtypes[d], 2);
        assert_int_equal(mln_model_load(&model, f.checkpoint, &options, NULL), MYELIN_OK);
        const myelin_weights *weights = &model->weights->weights;
        check_tensor(&f, &weights->embed_tokens, "model.embed_tokens", dtypes[d]);
        check_tensor(&f, &weights->norm, "model.norm", dtypes[d]);
        check_tensor(&f, &weights->lm_head, "lm_head", dtypes[d]);
        const myelin_layer_weights *last = &weights->layers[1];
        check_tensor(&f, &last->input_layernorm, "model.layers.1.input_layernorm", dtypes[d]);
        check_tensor(&f, &last->k_proj, "model.layers.1.self_attn.k_proj", dtypes[d]);
        check_tensor(&f, &last->q_norm, "model.layers.1.self_attn.q_norm", dtypes[d]);
        check_tensor(&f, &last->o_proj, "model.layers.1.self_attn.o_proj", dtypes[d]);
        check_tensor(&f, &last->up_proj, "model.layers.1.mlp.up_proj", dtypes[d]);
        check_tensor(&f, &last->down_proj, "model.layers.1.mlp.down_proj", dtypes[d]);
        assert_int_equal(model->weight_bytes, mln_weight_bytes(f.checkpoint, dtypes[d]));
        mln_model_free(model);
    }
    uint64_t half = mln_weight_bytes(f.checkpoint, MYELIN_DTYPE_F16);
    assert_int_equal(mln_weight_bytes(f.checkpoint, MYELIN_DTYPE_F32), 2 * half);
    assert_int_equal(mln_weight_bytes(f.checkpoint, MYELIN_DTYPE_BF16), half);
    fixture_free(&f);
}

/* The cast leaves quantised tensors alone. */
static void cast_of_quantised(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    spec.bits = 4;
    spec.group_size = 32;
    spec.dtype = "BF16";
    spec.dense_embedding = true;
    fixture f = fixture_make(&spec);
    mln_model *model;
    mln_model_options options = options_make(MYELIN_DTYPE_F32, 2);
    assert_int_equal(mln_model_load(&model, f.checkpoint, &options, NULL), MYELIN_OK);
    check_tensor(&f, &model->weights->weights.embed_tokens, "model.embed_tokens", MYELIN_DTYPE_F32);
    const myelin_tensor *q = &model->weights->layers[1].q_proj;
    assert_int_equal(q->dtype, MYELIN_DTYPE_AFFINE);
    const void *parts[] = {q->data, q->scales, q->biases};
    const char *const names[] = {"weight", "scales", "biases"};
    for (int i = 0; i < 3; i++) {
        char name[BUILDER_NAME];
        snprintf(name, sizeof name, "model.layers.1.self_attn.q_proj.%s", names[i]);
        const built_tensor *source = builder_find(f.built, name);
        assert_int_equal((uintptr_t)parts[i] % MYELIN_TENSOR_ALIGNMENT, 0);
        assert_memory_equal(parts[i], source->bytes, source->size);
    }
    mln_model_free(model);
    fixture_free(&f);
}

typedef struct progress {
    uint64_t done, total;
    int calls, cancel_at; /* cancel_at 0: never */
    atomic_int inside;
} progress;

static bool count_progress(void *user, uint64_t done, uint64_t total) {
    progress *p = user;
    assert_int_equal(atomic_fetch_add(&p->inside, 1), 0); /* one at a time */
    assert_true(done > p->done && done <= total);
    p->done = done;
    p->total = total;
    p->calls++;
    atomic_fetch_sub(&p->inside, 1);
    return p->calls != p->cancel_at;
}

static void progress_and_cancel(void **state) {
    (void)state;
    fixture f = mixed_fixture();
    progress all = {0};
    mln_model_options options = options_make(MYELIN_DTYPE_F16, 2);
    options.progress = count_progress;
    options.user = &all;
    mln_model *model;
    assert_int_equal(mln_model_load(&model, f.checkpoint, &options, NULL), MYELIN_OK);
    assert_int_equal(all.done, all.total);
    assert_int_equal(all.total, model->weight_bytes);
    mln_model_free(model);
    for (int at = 1; at < all.calls; at += 5) {
        progress some = {.cancel_at = at};
        myelin_error error = {0};
        options.user = &some;
        assert_int_equal(mln_model_load(&model, f.checkpoint, &options, &error),
                         MYELIN_ERROR_CANCELLED);
        assert_null(model);
        assert_int_equal(error.status, MYELIN_ERROR_CANCELLED);
        assert_int_equal(some.calls, at); /* not asked again */
    }
    fixture_free(&f);
}

static void file_cut_off_after_opening(void **state) {
    (void)state;
    const int32_t dtypes[] = {MYELIN_DTYPE_AUTO, MYELIN_DTYPE_F16};
    for (int d = 0; d < 2; d++) {
        fixture f = mixed_fixture();
        char *path = temp_path(f.directory, "model.safetensors");
        assert_int_equal(truncate(path, (off_t)(f.checkpoint->shards[0].file.size - 1000)), 0);
        mln_model_options options = options_make(dtypes[d], 2);
        mln_model *model;
        myelin_error error = {0};
        assert_int_equal(mln_model_load(&model, f.checkpoint, &options, &error),
                         MYELIN_ERROR_FORMAT);
        assert_null(model);
        assert_non_null(strstr(error.message, "model.safetensors"));
        assert_string_equal(error.file, path);
        assert_true(error.offset > 0);
        free(path);
        fixture_free(&f);
    }
}

static void bad_options(void **state) {
    (void)state;
    fixture f = mixed_fixture();
    mln_model *model;
    myelin_error error = {0};
    mln_model_options options = options_make(MYELIN_DTYPE_AFFINE, 1);
    assert_int_equal(mln_model_load(&model, f.checkpoint, &options, &error), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "affine"));
    options = options_make(MYELIN_DTYPE_AUTO, 0);
    assert_int_equal(mln_model_load(&model, f.checkpoint, &options, &error), MYELIN_ERROR_ARGUMENT);
    myelin_plugin newer = *mln_composed_plugin();
    newer.abi_version++;
    options = options_make(MYELIN_DTYPE_AUTO, 1);
    options.plugin = &newer;
    assert_int_equal(mln_model_load(&model, f.checkpoint, &options, &error),
                     MYELIN_ERROR_UNSUPPORTED);
    assert_null(model);
    fixture_free(&f);
}

/* A plug-in that asks the host for what there is not, and answers with its own refusal at last. */
static myelin_status greedy_load(const myelin_model_description *description,
                                 const myelin_host *host, myelin_plugin_model **model,
                                 myelin_error_buffer *error) {
    const myelin_tensor *q = &description->weights->layers[0].q_proj;
    myelin_tensor copy = *q;
    const struct {
        const myelin_tensor *tensor;
        myelin_tensor_part part;
        int64_t row, count;
    } wrong[] = {
        {&copy, MYELIN_PART_DATA, 0, 1},
        {(const myelin_tensor *)(const void *)((const char *)q + 8), MYELIN_PART_DATA, 0, 1},
        {(const myelin_tensor *)&description->weights->layers[description->weights->num_layers],
         MYELIN_PART_DATA, 0, 1},
        {q, MYELIN_PART_SCALES, 0, 1},
        {q, (myelin_tensor_part)3, 0, 1},
        {q, MYELIN_PART_DATA, -1, 1},
        {q, MYELIN_PART_DATA, 0, -1},
        {q, MYELIN_PART_DATA, 0, q->shape[0] + 1},
        {q, MYELIN_PART_DATA, q->shape[0], 1},
        {q, MYELIN_PART_DATA, INT64_MAX, INT64_MAX},
    };
    float row[64];
    *model = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (host->read(host->self, wrong[i].tensor, wrong[i].part, wrong[i].row, wrong[i].count,
                       row, error) != MYELIN_ERROR_ARGUMENT)
            return MYELIN_ERROR_INTERNAL;
    if (host->read(host->self, q, MYELIN_PART_DATA, q->shape[0] - 1, 1, row, error) != MYELIN_OK)
        return MYELIN_ERROR_INTERNAL;
    snprintf(error->text, error->size, "not on this machine");
    return MYELIN_ERROR_DEVICE;
}

static void plugin_that_asks_too_much(void **state) {
    (void)state;
    fixture f = mixed_fixture();
    myelin_plugin plugin = *mln_composed_plugin();
    plugin.name = "greedy";
    plugin.load = greedy_load;
    mln_model_options options = options_make(MYELIN_DTYPE_F32, 1);
    options.plugin = &plugin;
    mln_model *model;
    myelin_error error = {0};
    assert_int_equal(mln_model_load(&model, f.checkpoint, &options, &error), MYELIN_ERROR_DEVICE);
    assert_string_equal(error.message, "greedy: not on this machine");
    fixture_free(&f);
}

/* Every allocation fails in turn, once alone and once with all that follow. */
static void loading_without_memory(void **state) {
    (void)state;
    fixture f = mixed_fixture();
    for (int sticky = 0; sticky < 2; sticky++) {
        uint64_t n = 1;
        for (;; n++) {
            mln_model *model;
            myelin_error error = {0};
            mln_model_options options = options_make(MYELIN_DTYPE_AUTO, 2);
            mln_fail_allocation(n, sticky);
            myelin_status status = mln_model_load(&model, f.checkpoint, &options, &error);
            mln_fail_allocation(0, false);
            if (status == MYELIN_OK) {
                mln_model_free(model);
                break;
            }
            assert_int_equal(status, MYELIN_ERROR_MEMORY);
            assert_true(error.message[0] != '\0');
            assert_null(model);
        }
        assert_true(n > 5);
    }
    fixture_free(&f);
}

static void sequences_and_contexts_without_memory(void **state) {
    (void)state;
    harness h = harness_open(MYELIN_TEST_DATA "/models/tied-bf16", 1, MYELIN_DTYPE_AUTO);
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    for (uint64_t n = 1; n <= 2; n++) {
        myelin_plugin_sequence *sequence;
        myelin_plugin_context *context;
        mln_fail_allocation(n, false);
        assert_int_equal(h.plugin->create_sequence(h.model->weights, 10, &sequence, &error),
                         MYELIN_ERROR_MEMORY);
        assert_null(sequence);
        mln_fail_allocation(n, false);
        assert_int_equal(h.plugin->create_context(h.model->weights, 10, 10, &context, &error),
                         MYELIN_ERROR_MEMORY);
        assert_null(context);
    }
    /* More than two allocations are not made, and none while computing. */
    mln_fail_allocation(3, true);
    myelin_plugin_sequence *sequence = harness_sequence(&h, 10);
    mln_fail_allocation(3, true);
    myelin_plugin_context *context = harness_context(&h, 10, 10);
    const int32_t ids[] = {1, 2, 3};
    int32_t out[5];
    mln_fail_allocation(1, true);
    harness_append(&h, context, sequence, ids, 3, 3, NULL);
    assert_int_equal(h.plugin->decode_greedy(context, &sequence, ids, 1, 5, out, &error),
                     MYELIN_OK);
    assert_int_equal(mln_fail_allocation(0, false), 0);
    h.plugin->free_sequence(sequence);
    h.plugin->free_context(context);
    harness_close(&h);
}

/* What is announced is what is taken. */
static void announced_bytes(void **state) {
    (void)state;
    harness h = harness_open(MYELIN_TEST_DATA "/models/tied-bf16", 1, MYELIN_DTYPE_AUTO);
    const myelin_config *config = &h.checkpoint->config.model;
    for (int32_t len = 1; len < 5000; len = len * 3 + 1) {
        myelin_plugin_sequence *sequence = harness_sequence(&h, len);
        myelin_plugin_context *context = harness_context(&h, len, 2 * len);
        /* 3 layers, keys and values, 2 heads of 32 */
        assert_int_equal(sequence->own.region.size, 3u * 2 * 2 * 32 * 4 * (unsigned)len);
        assert_int_equal(h.plugin->sequence_bytes(config, len),
                         sequence->own.region.size + sizeof *sequence +
                             ((unsigned)len + 63) / 64 * sizeof *sequence->pages);
        assert_int_equal(h.plugin->context_bytes(config, len, 2 * len),
                         context->region.size + sizeof *context);
        assert_true((unsigned char *)(context->spans + len) <=
                    context->region.base + context->region.size);
        h.plugin->free_sequence(sequence);
        h.plugin->free_context(context);
    }
    myelin_config huge = *config;
    huge.num_hidden_layers = huge.num_key_value_heads = huge.head_dim = INT32_MAX;
    assert_true(h.plugin->sequence_bytes(&huge, INT32_MAX) == UINT64_MAX);
    harness_close(&h);
}

static void calls_that_are_refused(void **state) {
    (void)state;
    harness h = harness_open(MYELIN_TEST_DATA "/models/tied-bf16", 1, MYELIN_DTYPE_AUTO);
    const myelin_plugin *plugin = h.plugin;
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_sequence *sequence = harness_sequence(&h, 12);
    myelin_plugin_context *context = harness_context(&h, 8, 10), *none;
    const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 511, 9}, bad[] = {1, 512}, worse[] = {1, -1};
    harness_append(&h, context, sequence, ids, 3, 3, NULL);
    const myelin_span spans[] = {
        {.sequence = sequence, .ids = bad, .count = 2},
        {.sequence = sequence, .ids = worse, .count = 2},
        {.sequence = sequence, .ids = ids, .count = 0},
        {.sequence = sequence, .ids = ids, .count = 9},                  /* max_tokens */
        {.sequence = sequence, .ids = ids, .count = 8},                  /* max_len */
        {.sequence = sequence, .ids = ids, .count = 2, .num_logits = 3}, /* more than tokens */
    };
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
        text[0] = '\0';
        assert_int_equal(plugin->forward(context, &spans[i], 1, &error), MYELIN_ERROR_ARGUMENT);
        assert_true(text[0] != '\0');
        assert_int_equal(plugin->sequence_length(sequence), 3);
    }
    int32_t out[16];
    assert_int_equal(plugin->decode_greedy(context, &sequence, ids, 1, 8, out, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(plugin->decode_greedy(context, &sequence, ids, 1, 0, out, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(plugin->decode_greedy(context, &sequence, ids, 9, 1, out, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(plugin->decode_greedy(context, &sequence, bad + 1, 1, 1, out, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(plugin->sequence_length(sequence), 3);
    assert_int_equal(plugin->create_context(h.model->weights, 0, 1, &none, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(plugin->create_context(h.model->weights, 1, 0, &none, &error),
                     MYELIN_ERROR_ARGUMENT);
    plugin->free_sequence(sequence);
    plugin->free_context(context);
    plugin->free_sequence(NULL);
    plugin->free_context(NULL);
    plugin->free_model(NULL);
    mln_model_free(NULL);
    harness_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(casts),
        cmocka_unit_test(cast_of_quantised),
        cmocka_unit_test(progress_and_cancel),
        cmocka_unit_test(file_cut_off_after_opening),
        cmocka_unit_test(bad_options),
        cmocka_unit_test(plugin_that_asks_too_much),
        cmocka_unit_test(loading_without_memory),
        cmocka_unit_test(sequences_and_contexts_without_memory),
        cmocka_unit_test(announced_bytes),
        cmocka_unit_test(calls_that_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
