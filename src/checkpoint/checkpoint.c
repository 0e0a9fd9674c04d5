/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/shard_index.h"
#include "checkpoint/tensor_directory.h"
#include "checkpoint/weights.h"

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

static myelin_status join(char **path, const char *directory, const char *name,
                          myelin_error *error) {
    *path = mln_path_join(directory, name);
    return *path ? MYELIN_OK
                 : mln_fail_memory(error, strlen(directory) + strlen(name) + 2, "a path");
}

static myelin_status check_directory(const char *path, myelin_error *error) {
    struct stat info;
    if (stat(path, &info) != 0)
        return mln_fail_errno(error, errno, "open", path);
    if (!S_ISDIR(info.st_mode))
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                        "expected a checkpoint directory, found a file");
    return MYELIN_OK;
}

static myelin_status read_config(mln_checkpoint *c, myelin_error *error) {
    char *path;
    mln_buffer text = {0};
    myelin_status status = join(&path, c->directory, "config.json", error);
    if (status != MYELIN_OK)
        return status;
    status = mln_file_slurp(path, MLN_JSON_SMALL_FILE, &text, error);
    if (status == MYELIN_OK)
        status = mln_config_parse(&c->config, text.data, text.length, path, error);
    mln_buffer_free(&text);
    free(path);
    return status;
}

static myelin_status read_generation_config(mln_checkpoint *c, myelin_error *error) {
    char *path;
    mln_buffer text = {0};
    myelin_status status = join(&path, c->directory, "generation_config.json", error);
    if (status != MYELIN_OK)
        return status;
    if (mln_path_exists(path)) {
        status = mln_file_slurp(path, MLN_JSON_SMALL_FILE, &text, error);
        if (status == MYELIN_OK)
            status =
                mln_generation_config_parse(&c->generation, text.data, text.length, path, error);
    }
    mln_buffer_free(&text);
    free(path);
    return status;
}

/* Opens the next shard of c->shards. */
static myelin_status open_shard(mln_checkpoint *c, const char *path, myelin_error *error) {
    mln_shard *shard = &c->shards[c->num_shards];
    myelin_status status = mln_file_open(&shard->file, path, error);
    if (status != MYELIN_OK)
        return status;
    status = mln_safetensors_read(&shard->header, &shard->file, error);
    if (status == MYELIN_OK)
        c->num_shards++;
    else
        mln_file_close(&shard->file);
    return status;
}

static myelin_status make_room_for_shards(mln_checkpoint *c, size_t count, myelin_error *error) {
    c->shards = mln_calloc(count, sizeof *c->shards);
    return c->shards ? MYELIN_OK : mln_fail_memory(error, count * sizeof *c->shards, "shards");
}

static myelin_status find_weights(mln_checkpoint *c, const mln_shard_index *index,
                                  const char *index_path, myelin_error *error) {
    mln_tensor_directory directory;
    myelin_status status = mln_tensor_directory_make(&directory, c->shards, c->num_shards, error);
    if (status != MYELIN_OK)
        return status;
    if (index)
        status = mln_tensor_directory_check(&directory, index, index_path, error);
    if (status == MYELIN_OK)
        status = mln_weights_find(c, &directory, error);
    mln_tensor_directory_free(&directory);
    return status;
}

static myelin_status open_single(mln_checkpoint *c, const char *path, myelin_error *error) {
    myelin_status status = make_room_for_shards(c, 1, error);
    if (status == MYELIN_OK)
        status = open_shard(c, path, error);
    return status == MYELIN_OK ? find_weights(c, NULL, NULL, error) : status;
}

static myelin_status open_shards(mln_checkpoint *c, const mln_shard_index *index,
                                 const char *index_path, myelin_error *error) {
    myelin_status status = make_room_for_shards(c, index->num_files, error);
    for (size_t i = 0; status == MYELIN_OK && i < index->num_files; i++) {
        char *path;
        status = join(&path, c->directory, index->files[i], error);
        if (status != MYELIN_OK)
            break;
        if (mln_path_exists(path))
            status = open_shard(c, path, error);
        else
            status = mln_fail(error, MYELIN_ERROR_NOT_FOUND, index_path, -1,
                              "expected a file %s beside it, found none", index->files[i]);
        free(path);
    }
    return status == MYELIN_OK ? find_weights(c, index, index_path, error) : status;
}

static myelin_status open_indexed(mln_checkpoint *c, const char *path, myelin_error *error) {
    mln_buffer text = {0};
    mln_shard_index index;
    myelin_status status = mln_file_slurp(path, MLN_SHARD_INDEX_MAX_FILE, &text, error);
    if (status == MYELIN_OK)
        status = mln_shard_index_parse(&index, text.data, text.length, path, error);
    mln_buffer_free(&text);
    if (status != MYELIN_OK)
        return status;
    status = open_shards(c, &index, path, error);
    mln_shard_index_free(&index);
    return status;
}

/* The one file goes before the index, as in transformers. */
static myelin_status open_tensors(mln_checkpoint *c, myelin_error *error) {
    char *single = mln_path_join(c->directory, single_name);
    char *index = mln_path_join(c->directory, index_name);
    myelin_status status;
    if (!single || !index)
        status = mln_fail_memory(error, strlen(c->directory), "a path");
    else if (mln_path_exists(single))
        status = open_single(c, single, error);
    else if (mln_path_exists(index))
        status = open_indexed(c, index, error);
    else
        status = mln_fail(error, MYELIN_ERROR_NOT_FOUND, c->directory, -1,
                          "expected %s or %s, found neither", single_name, index_name);
    free(single);
    free(index);
    return status;
}

myelin_status mln_checkpoint_open(mln_checkpoint **checkpoint, const char *directory,
                                  myelin_error *error) {
    *checkpoint = NULL;
    myelin_status status = check_directory(directory, error);
    if (status != MYELIN_OK)
        return status;
    mln_checkpoint *c = mln_calloc(1, sizeof *c);
    if (!c)
        return mln_fail_memory(error, sizeof *c, "a checkpoint");
    c->directory = mln_strndup(directory, strlen(directory));
    if (!c->directory)
        status = mln_fail_memory(error, strlen(directory), "a path");
    if (status == MYELIN_OK)
        status = read_config(c, error);
    if (status == MYELIN_OK)
        status = read_generation_config(c, error);
    if (status == MYELIN_OK)
        status = open_tensors(c, error);
    if (status != MYELIN_OK) {
        mln_checkpoint_free(c);
        return status;
    }
    *checkpoint = c;
    return MYELIN_OK;
}

void mln_checkpoint_free(mln_checkpoint *checkpoint) {
    if (!checkpoint)
        return;
    for (size_t i = 0; i < checkpoint->num_weights; i++)
        free(checkpoint->weights[i].name);
    free(checkpoint->weights);
    for (size_t i = 0; i < checkpoint->num_shards; i++) {
        mln_safetensors_free(&checkpoint->shards[i].header);
        mln_file_close(&checkpoint->shards[i].file);
    }
    free(checkpoint->shards);
    mln_synthetic_free(checkpoint->synthetic);
    mln_config_free(&checkpoint->config);
    free(checkpoint->directory);
    free(checkpoint);
}

const mln_weight *mln_checkpoint_find(const mln_checkpoint *checkpoint, const char *name) {
    for (size_t i = 0; i < checkpoint->num_weights; i++)
        if (strcmp(checkpoint->weights[i].name, name) == 0)
            return &checkpoint->weights[i];
    return NULL;
}

myelin_status mln_checkpoint_read(const mln_checkpoint *checkpoint, const mln_weight *weight,
                                  int part, uint64_t offset, void *dst, uint64_t length,
                                  myelin_error *error) {
    const mln_file_tensor *source = part >= 0 && part < 3 ? weight->source[part] : NULL;
    if (!source)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1, "weight %s has no part %d",
                        weight->name, part);
    if (offset > source->size || length > source->size - offset)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "weight %s: bytes %" PRIu64 " + %" PRIu64 " are past its %" PRIu64,
                        weight->name, offset, length, source->size);
    if (checkpoint->synthetic) {
        mln_synthetic_read(checkpoint->synthetic, weight, part, offset, dst, length);
        return MYELIN_OK;
    }
    return mln_file_read(&checkpoint->shards[weight->shard[part]].file, source->offset + offset,
                         dst, length, error);
}
