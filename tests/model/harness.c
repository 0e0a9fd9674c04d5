/* SPDX-License-Identifier: Apache-2.0 */
#include "model/harness.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "native/native.h"

static int32_t devices = 1; /* that harness_plugin() has been told of */

int32_t harness_cache_type = MYELIN_CACHE_AUTO;
int32_t harness_pack = MYELIN_PACK_AUTO;
int32_t harness_activations = MYELIN_ACTIVATIONS_AUTO;

int32_t harness_cache_named(const char *name) {
    static const char *const names[] = {"auto", "f32", "f16", "int8"};
    for (int32_t type = MYELIN_CACHE_F32; name && type <= MYELIN_CACHE_INT8; type++)
        if (!strcmp(name, names[type]))
            return type;
    return MYELIN_CACHE_AUTO;
}

harness harness_open(const char *directory, int32_t threads, int32_t dtype) {
    return harness_open_with(mln_composed_plugin(), MYELIN_FUSION_AUTO, directory, threads, dtype);
}

harness harness_open_with(const myelin_plugin *plugin, int32_t fusion, const char *directory,
                          int32_t threads, int32_t dtype) {
    harness h = {.plugin = plugin};
    myelin_error error = {0};
    if (mln_checkpoint_open(&h.checkpoint, directory, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    mln_model_options options = {.plugin = h.plugin,
                                 .dtype = dtype,
                                 .fusion = fusion,
                                 .cache_type = harness_cache_type,
                                 .pack = harness_pack,
                                 .activations = harness_activations,
                                 .threads = threads};
    if (plugin != mln_composed_plugin())
        options.tensor_parallel = devices;
    if (mln_model_load(&h.model, h.checkpoint, &options, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    h.vocab = h.checkpoint->config.model.vocab_size;
    return h;
}

void harness_close(harness *h) {
    mln_model_free(h->model);
    mln_checkpoint_free(h->checkpoint);
}

/* Whether the plug-in would compute a model that one, two and four devices can share. */
static bool finds_devices(const myelin_plugin *plugin) {
    myelin_error error = {0};
    mln_checkpoint *checkpoint;
    if (mln_checkpoint_open(&checkpoint, MYELIN_TEST_DATA "/models/sharded-f32", &error) !=
        MYELIN_OK)
        fail_msg("%s", error.message);
    mln_model_options options = {.plugin = plugin, .threads = 1, .tensor_parallel = devices};
    myelin_status status = mln_model_probe(checkpoint, &options, &error);
    mln_checkpoint_free(checkpoint);
    if (status == MYELIN_ERROR_UNSUPPORTED && !strstr(error.message, "divide")) {
        fprintf(stderr, "skipped: %s\n", error.message);
        return false;
    }
    return true; /* whatever else there is to say, tests will come upon it */
}

const myelin_plugin *harness_plugin(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s", name);
    for (char *colon; (colon = strrchr(path, ':')) != NULL; *colon = '\0')
        if (!strcmp(colon, ":packed"))
            harness_pack = MYELIN_PACK_LOSSLESS;
        else if (!strcmp(colon, ":rounded"))
            harness_activations = MYELIN_ACTIVATIONS_BF16;
        else if (!strcmp(colon, ":bytes"))
            harness_activations = MYELIN_ACTIVATIONS_INT8;
        else
            devices = atoi(colon + 1);
    if (!strchr(path, '/'))
        return mln_native_plugin_for(path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const myelin_plugin *(*entry)(void);
    if (!library)
        fail_msg("%s", dlerror());
    void *symbol = dlsym(library, MYELIN_PLUGIN_ENTRY);
    if (!symbol)
        fail_msg("%s has no " MYELIN_PLUGIN_ENTRY, path);
    memcpy(&entry, &symbol, sizeof entry);
    return finds_devices(entry()) ? entry() : NULL;
}

bool harness_can_spread(const myelin_plugin *plugin, const char *directory, int32_t dtype) {
    myelin_error error = {0};
    mln_checkpoint *checkpoint;
    if (devices == 1)
        return true;
    if (mln_checkpoint_open(&checkpoint, directory, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    mln_model_options options = {
        .plugin = plugin, .dtype = dtype, .threads = 1, .tensor_parallel = devices};
    myelin_status status = mln_model_probe(checkpoint, &options, &error);
    mln_checkpoint_free(checkpoint);
    if (status != MYELIN_OK && !strstr(error.message, "divide"))
        fail_msg("%s", error.message);
    return status == MYELIN_OK;
}

myelin_plugin_sequence *harness_sequence(const harness *h, int32_t max_len) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_sequence *sequence;
    if (h->plugin->create_sequence(h->model->weights, max_len, &sequence, &error) != MYELIN_OK)
        fail_msg("%s", text);
    return sequence;
}

myelin_plugin_pool *harness_pool(const harness *h, int32_t num_pages) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_pool *pool;
    if (h->plugin->create_pool(h->model->weights, num_pages, &pool, &error) != MYELIN_OK)
        fail_msg("%s", text);
    return pool;
}

myelin_plugin_sequence *harness_paged_sequence(const harness *h, myelin_plugin_pool *pool,
                                               int32_t max_len) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_sequence *sequence;
    if (h->plugin->create_paged_sequence(pool, max_len, &sequence, &error) != MYELIN_OK)
        fail_msg("%s", text);
    return sequence;
}

myelin_plugin_context *harness_context(const harness *h, int32_t max_tokens, int32_t max_len) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_context *context;
    if (h->plugin->create_context(h->model->weights, max_tokens, max_len, &context, &error) !=
        MYELIN_OK)
        fail_msg("%s", text);
    return context;
}

void harness_append(const harness *h, myelin_plugin_context *context,
                    myelin_plugin_sequence *sequence, const int32_t *ids, int32_t count,
                    int32_t chunk, float *logits) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    for (int32_t at = 0; at < count; at += chunk) {
        myelin_span span = {.sequence = sequence, .ids = ids + at};
        span.count = count - at < chunk ? count - at : chunk;
        if (logits) {
            span.num_logits = span.count;
            span.logits = logits + (int64_t)at * h->vocab;
        }
        if (h->plugin->forward(context, &span, 1, &error) != MYELIN_OK)
            fail_msg("%s", text);
    }
}

float *harness_logits(const harness *h, const int32_t *ids, int32_t count) {
    myelin_plugin_sequence *sequence = harness_sequence(h, count);
    myelin_plugin_context *context = harness_context(h, count, count);
    float *logits = malloc((size_t)count * (size_t)h->vocab * sizeof *logits);
    assert_non_null(logits);
    harness_append(h, context, sequence, ids, count, count, logits);
    h->plugin->free_context(context);
    h->plugin->free_sequence(sequence);
    return logits;
}

void assert_same_floats(const float *a, const float *b, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("element %zu of %zu: %.9g and %.9g", i, count, (double)a[i], (double)b[i]);
}

json_t *read_jsonl(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file)
        fail_msg("cannot open %s", path);
    json_t *lines = json_array();
    for (;;) {
        json_error_t error;
        json_t *line = json_loadf(file, JSON_DISABLE_EOF_CHECK, &error);
        if (!line)
            break;
        json_array_append_new(lines, line);
    }
    fclose(file);
    assert_true(json_array_size(lines) > 0);
    return lines;
}

int32_t *json_ids(const json_t *object, const char *key, int32_t *count) {
    const json_t *array = json_object_get(object, key);
    assert_true(json_is_array(array));
    *count = (int32_t)json_array_size(array);
    int32_t *ids = malloc(((size_t)*count + 1) * sizeof *ids);
    assert_non_null(ids);
    for (int32_t i = 0; i < *count; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, (size_t)i));
    return ids;
}

double json_number_at(const json_t *object, const char *key, size_t index) {
    const json_t *value = json_array_get(json_object_get(object, key), index);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

int32_t *random_ids(int32_t count, int32_t vocab, uint32_t seed) {
    int32_t *ids = malloc((size_t)count * sizeof *ids);
    assert_non_null(ids);
    for (int32_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = (int32_t)((seed >> 8) % (uint32_t)vocab);
    }
    return ids;
}

int is_sanitized(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return 1;
#else
    return 0;
#endif
}
