/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "engine/internal.h"
#include "model/loader.h"

myelin_status myelin_checkpoint_open(myelin_checkpoint **out, const char *directory,
                                     myelin_error *error) {
    *out = NULL;
    myelin_checkpoint *checkpoint = mln_calloc(1, sizeof *checkpoint);
    if (!checkpoint)
        return mln_fail_memory(error, sizeof *checkpoint, "a checkpoint");
    myelin_status status = mln_checkpoint_open(&checkpoint->files, directory, error);
    if (status != MYELIN_OK) {
        free(checkpoint);
        return status;
    }
    *out = checkpoint;
    return MYELIN_OK;
}

void myelin_checkpoint_close(myelin_checkpoint *checkpoint) {
    if (!checkpoint)
        return;
    mln_checkpoint_free(checkpoint->files);
    free(checkpoint);
}

const myelin_config *myelin_checkpoint_config(const myelin_checkpoint *checkpoint) {
    return &checkpoint->files->config.model;
}

size_t myelin_checkpoint_num_tensors(const myelin_checkpoint *checkpoint) {
    return checkpoint->files->num_weights;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

void myelin_checkpoint_tensor(const myelin_checkpoint *checkpoint, size_t index,
                              myelin_tensor_info *info) {
    const mln_checkpoint *files = checkpoint->files;
    const mln_weight *weight = &files->weights[index];
    *info = (myelin_tensor_info){.name = weight->name,
                                 .dtype = weight->tensor.dtype,
                                 .rank = weight->tensor.rank,
                                 .bits = weight->tensor.bits,
                                 .group_size = weight->tensor.group_size,
                                 .file = base_name(files->shards[weight->shard[0]].file.path),
                                 .offset = weight->source[0]->offset};
    memcpy(info->shape, weight->tensor.shape, sizeof info->shape);
    for (int part = 0; part < 3; part++)
        if (weight->source[part])
            info->bytes += weight->source[part]->size;
}

uint64_t myelin_checkpoint_weight_bytes(const myelin_checkpoint *checkpoint, myelin_dtype dtype) {
    return mln_weight_bytes(checkpoint->files, (int32_t)dtype);
}

uint64_t myelin_checkpoint_session_bytes(const myelin_checkpoint *checkpoint, int32_t max_len) {
    myelin_config config = mln_stored_config(checkpoint->files, MYELIN_DTYPE_AUTO);
    return mln_session_bytes(mln_default_plugin(), &config, max_len);
}

/* What a model opened with these options would be; ended with mln_plugin_close(). */
static myelin_status choose(mln_plugin_choice *choice, myelin_model_options *resolved,
                            const myelin_checkpoint *checkpoint,
                            const myelin_model_options *options, myelin_error *error) {
    myelin_status status = mln_model_options_resolve(resolved, options, error);
    return status == MYELIN_OK ? mln_plugin_choose(choice, checkpoint->files, resolved, error)
                               : status;
}

myelin_status myelin_checkpoint_plan_session(const myelin_checkpoint *checkpoint,
                                             const myelin_model_options *options, int32_t max_len,
                                             uint64_t *bytes, myelin_error *error) {
    myelin_model_options resolved;
    mln_plugin_choice choice;
    *bytes = 0;
    myelin_status status = choose(&choice, &resolved, checkpoint, options, error);
    if (status != MYELIN_OK)
        return status;
    myelin_config config = mln_stored_config(checkpoint->files, (int32_t)resolved.dtype);
    config.cache_type = (int32_t)resolved.cache_type;
    *bytes = mln_session_bytes(choice.plugin, &config, max_len);
    mln_plugin_close(&choice);
    return MYELIN_OK;
}

myelin_status myelin_checkpoint_plugin(const myelin_checkpoint *checkpoint,
                                       const myelin_model_options *options, char *name, size_t size,
                                       myelin_error *error) {
    myelin_model_options resolved;
    mln_plugin_choice choice;
    if (size > 0)
        name[0] = '\0';
    myelin_status status = choose(&choice, &resolved, checkpoint, options, error);
    if (status != MYELIN_OK)
        return status;
    snprintf(name, size, "%s", choice.plugin->name);
    mln_plugin_close(&choice);
    return MYELIN_OK;
}
