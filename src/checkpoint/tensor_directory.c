/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/tensor_directory.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { NAME_SHOWN = 200 };

static int by_name_and_shard(const void *a, const void *b) {
    const mln_tensor_place *x = a, *y = b;
    int order = strcmp(x->tensor->name, y->tensor->name);
    return order ? order : (x->shard > y->shard) - (x->shard < y->shard);
}

static int by_name(const void *name, const void *place) {
    return strcmp(name, ((const mln_tensor_place *)place)->tensor->name);
}

bool mln_tensor_is_empty(const mln_file_tensor *tensor) {
    return tensor->rank == 0 || tensor->size == 0;
}

myelin_status mln_tensor_directory_make(mln_tensor_directory *directory, const mln_shard *shards,
                                        size_t num_shards, myelin_error *error) {
    size_t count = 0;
    *directory = (mln_tensor_directory){.shards = shards, .num_shards = num_shards};
    for (size_t s = 0; s < num_shards; s++) {
        count += shards[s].header.count;
        if (count > MLN_SAFETENSORS_MAX_TENSORS)
            return mln_fail(error, MYELIN_ERROR_FORMAT, shards[s].file.path, -1,
                            "expected at most %d tensors in all shards, found more",
                            MLN_SAFETENSORS_MAX_TENSORS);
    }
    directory->places = mln_calloc(count, sizeof *directory->places);
    if (!directory->places)
        return mln_fail_memory(error, count * sizeof *directory->places, "a list of tensors");
    for (size_t s = 0; s < num_shards; s++)
        for (size_t i = 0; i < shards[s].header.count; i++)
            directory->places[directory->count++] =
                (mln_tensor_place){&shards[s].header.tensors[i], (int32_t)s, false};
    /* A single shard's tensors are in order already. */
    if (num_shards > 1)
        qsort(directory->places, count, sizeof *directory->places, by_name_and_shard);
    return MYELIN_OK;
}

void mln_tensor_directory_free(mln_tensor_directory *directory) {
    free(directory->places);
    *directory = (mln_tensor_directory){0};
}

mln_tensor_place *mln_tensor_directory_find(const mln_tensor_directory *directory,
                                            const char *name) {
    if (directory->count == 0)
        return NULL;
    return bsearch(name, directory->places, directory->count, sizeof *directory->places, by_name);
}

static const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Both sides are sorted by tensor name, so one walk along the two compares them. */
myelin_status mln_tensor_directory_check(const mln_tensor_directory *directory,
                                         const mln_shard_index *index, const char *file,
                                         myelin_error *error) {
    size_t e = 0, p = 0;
    while (e < index->count || p < directory->count) {
        const mln_index_entry *entry = e < index->count ? &index->entries[e] : NULL;
        const mln_tensor_place *place = p < directory->count ? &directory->places[p] : NULL;
        int order = !entry ? 1 : !place ? -1 : strcmp(entry->tensor, place->tensor->name);
        if (order < 0)
            return mln_fail(error, MYELIN_ERROR_FORMAT, file, -1,
                            "tensor \"%.*s\" is listed for %s, which does not have it", NAME_SHOWN,
                            entry->tensor, entry->file);
        const char *path = directory->shards[place->shard].file.path;
        if (order == 0 && entry->shard != place->shard)
            return mln_fail(error, MYELIN_ERROR_FORMAT, file, -1,
                            "tensor \"%.*s\" is listed for %s, but lies in %s", NAME_SHOWN,
                            entry->tensor, entry->file, file_name(path));
        if (order > 0 && !mln_tensor_is_empty(place->tensor))
            return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                            "tensor \"%.*s\" is not listed for this file by %s", NAME_SHOWN,
                            place->tensor->name, file_name(file));
        e += order == 0;
        p++;
    }
    return MYELIN_OK;
}
