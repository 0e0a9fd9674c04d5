/* SPDX-License-Identifier: Apache-2.0 */
#include "model/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/loader.h"
#include "tensor/dtype.h"

static myelin_status host_read(void *self, const myelin_tensor *tensor, myelin_tensor_part part,
                               int64_t row, int64_t count, void *dst, myelin_error_buffer *error) {
    mln_model *model = self;
    return mln_loader_read(model->loader, tensor, part, row, count, dst, error);
}

static void host_parallel_for(void *self, int64_t count, myelin_task task, void *context) {
    mln_model *model = self;
    mln_pool_run(model->pool, count, task, context);
}

/* The error of a plug-in's call: the loader's own, which knows the file, or the plug-in's words. */
static myelin_status plugin_error(const mln_model *model, myelin_status status, const char *text,
                                  myelin_error *error) {
    if (model->loader->first_error.status == status) {
        if (error)
            *error = model->loader->first_error;
        return status;
    }
    return mln_fail(error, status, NULL, -1, "%s: %s", model->plugin->name, text);
}

myelin_status mln_plugin_result(myelin_status status, bool made, const char *call,
                                const myelin_error_buffer *buffer) {
    buffer->text[buffer->size - 1] = '\0';
    if ((int)status < MYELIN_OK || status > MYELIN_ERROR_INTERNAL) {
        snprintf(buffer->text, buffer->size, "%s() returned %d, which is no status", call,
                 (int)status);
        return MYELIN_ERROR_INTERNAL;
    }
    if (status == MYELIN_OK && !made) {
        snprintf(buffer->text, buffer->size, "%s() succeeded but made nothing", call);
        return MYELIN_ERROR_INTERNAL;
    }
    if (status != MYELIN_OK && !buffer->text[0])
        snprintf(buffer->text, buffer->size, "%s() failed: %s", call, myelin_status_text(status));
    return status;
}

static myelin_status check_options(const mln_model_options *options, myelin_error *error) {
    const myelin_plugin *plugin = options->plugin;
    if (plugin->magic != MYELIN_PLUGIN_MAGIC || plugin->abi_version != MYELIN_PLUGIN_ABI_VERSION ||
        plugin->struct_size < MYELIN_PLUGIN_LEAST_SIZE)
        return mln_fail(error, MYELIN_ERROR_UNSUPPORTED, NULL, -1,
                        "expected a plug-in of contract version %u, found version %" PRIu32,
                        MYELIN_PLUGIN_ABI_VERSION, plugin->abi_version);
    if (options->dtype != MYELIN_DTYPE_AUTO && mln_dtype_size(options->dtype) == 0)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "dtype must be auto, f32, f16 or bf16, found %s (%" PRId32 ")",
                        mln_dtype_name(options->dtype), options->dtype);
    return MYELIN_OK;
}

static const char *cache_name(int32_t type) {
    static const char *const names[] = {"auto", "f32", "f16", "int8"};
    return type >= 0 && type <= MYELIN_CACHE_INT8 ? names[type] : "of another kind";
}

/* The configuration a plug-in is shown: what will be stored, and how keys and values are. */
static myelin_status show_config(myelin_config *config, const mln_checkpoint *checkpoint,
                                 const mln_model_options *options, myelin_error *error) {
    const myelin_plugin *plugin = options->plugin;
    int32_t type = options->cache_type;
    uint32_t types = MYELIN_PLUGIN_REACHES(plugin, cache_types) ? plugin->cache_types : 0;
    *config = mln_stored_config(checkpoint, options->dtype);
    config->cache_type = type;
    if (type == MYELIN_CACHE_AUTO ||
        (type > 0 && type <= MYELIN_CACHE_INT8 && (types >> type & 1u) != 0))
        return MYELIN_OK;
    char offered[32] = "auto";
    for (int32_t t = MYELIN_CACHE_F32; t <= MYELIN_CACHE_INT8; t++)
        if (types >> t & 1u) {
            strcat(offered, ", ");
            strcat(offered, cache_name(t));
        }
    return mln_fail(error, MYELIN_ERROR_UNSUPPORTED, NULL, -1,
                    "%s: a cache of keys and values in %s is not offered; expected one of: %s",
                    plugin->name, cache_name(type), offered);
}

static myelin_status load(mln_model *model, const mln_model_options *options, myelin_error *error) {
    myelin_status status = mln_loader_create(&model->loader, model->checkpoint, options, error);
    if (status != MYELIN_OK)
        return status;
    model->weight_bytes = model->loader->total;
    status = mln_pool_create(&model->pool, options->threads, error);
    if (status != MYELIN_OK)
        return status;
    model->host = (myelin_host){.struct_size = sizeof model->host,
                                .num_threads = options->threads,
                                .self = model,
                                .read = host_read,
                                .parallel_for = host_parallel_for};
    myelin_model_description description = {.struct_size = sizeof description,
                                            .fusion = options->fusion,
                                            .pack = options->pack,
                                            .shortlist = options->shortlist,
                                            .activations = options->activations,
                                            .tensor_parallel = options->tensor_parallel,
                                            .config = &model->config,
                                            .weights = &model->loader->description};
    char text[MYELIN_ERROR_MESSAGE_SIZE] = "";
    myelin_error_buffer buffer = {text, sizeof text};
    status = model->plugin->load(&description, &model->host, &model->weights, &buffer);
    status = mln_plugin_result(status, model->weights != NULL, "load", &buffer);
    if (status == MYELIN_OK)
        return MYELIN_OK;
    model->weights = NULL; /* a failed load has freed what it made */
    return plugin_error(model, status, text, error);
}

myelin_status mln_model_load(mln_model **out, const mln_checkpoint *checkpoint,
                             const mln_model_options *options, myelin_error *error) {
    *out = NULL;
    myelin_status status = check_options(options, error);
    if (status != MYELIN_OK)
        return status;
    mln_model *model = mln_calloc(1, sizeof *model);
    if (!model)
        return mln_fail_memory(error, sizeof *model, "a model");
    model->checkpoint = checkpoint;
    model->plugin = options->plugin;
    model->fusion =
        options->fusion == MYELIN_FUSION_AUTO ? options->plugin->max_fusion : options->fusion;
    status = show_config(&model->config, checkpoint, options, error);
    if (status == MYELIN_OK)
        status = load(model, options, error);
    if (status != MYELIN_OK) {
        mln_model_free(model);
        return status;
    }
    *out = model;
    return MYELIN_OK;
}

myelin_status mln_model_probe(const mln_checkpoint *checkpoint, const mln_model_options *options,
                              myelin_error *error) {
    mln_loader *loader;
    myelin_config config;
    myelin_status status = show_config(&config, checkpoint, options, error);
    if (status == MYELIN_OK)
        status = mln_loader_create(&loader, checkpoint, options, error);
    if (status != MYELIN_OK)
        return status;
    myelin_model_description description = {.struct_size = sizeof description,
                                            .fusion = options->fusion,
                                            .pack = options->pack,
                                            .shortlist = options->shortlist,
                                            .activations = options->activations,
                                            .tensor_parallel = options->tensor_parallel,
                                            .config = &config,
                                            .weights = &loader->description};
    char text[MYELIN_ERROR_MESSAGE_SIZE] = "";
    myelin_error_buffer buffer = {text, sizeof text};
    status =
        mln_plugin_result(options->plugin->probe(&description, &buffer), true, "probe", &buffer);
    mln_loader_free(loader);
    if (status == MYELIN_OK)
        return MYELIN_OK;
    return mln_fail(error, status, NULL, -1, "%s: %s", options->plugin->name, text);
}

void mln_model_free(mln_model *model) {
    if (!model)
        return;
    if (model->weights)
        model->plugin->free_model(model->weights);
    mln_pool_free(model->pool);
    mln_loader_free(model->loader);
    free(model);
}

uint64_t mln_weight_bytes(const mln_checkpoint *checkpoint, int32_t dtype) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < checkpoint->num_weights; i++) {
        myelin_tensor tensor = mln_cast_description(&checkpoint->weights[i], dtype);
        bytes += mln_tensor_bytes(&tensor);
    }
    return bytes;
}
