/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/shard_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"

enum { FIRST_ROOM = 64, NAME_SHOWN = 200 };

typedef struct reader {
    mln_shard_index *out;
    size_t room;
    bool has_map;
    const char *file;
    myelin_error *error;
} reader;

static int shown(mln_json_text text) {
    return (int)(text.length < NAME_SHOWN ? text.length : NAME_SHOWN);
}

/* A shard lies beside the index: its name is that of a file, not a way through directories. */
static bool plain_file_name(mln_json_text name) {
    static const char suffix[] = ".safetensors";
    const size_t tail = sizeof suffix - 1;
    return name.length > tail && name.length <= 255 && name.data[0] != '.' &&
           !memchr(name.data, '/', name.length) && !memchr(name.data, '\\', name.length) &&
           !memchr(name.data, '\0', name.length) &&
           memcmp(name.data + name.length - tail, suffix, tail) == 0;
}

static myelin_status add_entry(reader *r, const mln_json_event *event) {
    mln_shard_index *out = r->out;
    mln_json_text name = event->path[1];
    if (event->kind != MLN_JSON_STRING || !plain_file_name(event->text))
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, event->offset,
                        "weight_map of \"%.*s\": expected the plain name of a .safetensors file, "
                        "found %s%s%.*s%s",
                        shown(name), name.data, mln_json_kind_name(event->kind),
                        event->kind == MLN_JSON_STRING ? " \"" : "",
                        event->kind == MLN_JSON_STRING ? shown(event->text) : 0,
                        event->text.data ? event->text.data : "",
                        event->kind == MLN_JSON_STRING ? "\"" : "");
    if (memchr(name.data, '\0', name.length))
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, event->offset,
                        "tensor name \"%.*s\" holds a NUL", shown(name), name.data);
    if (out->count == MLN_SAFETENSORS_MAX_TENSORS)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, event->offset,
                        "expected at most %d tensors, found more", MLN_SAFETENSORS_MAX_TENSORS);
    if (out->count == r->room) {
        size_t room = r->room ? 2 * r->room : FIRST_ROOM;
        mln_index_entry *entries = mln_realloc(out->entries, room, sizeof *entries);
        if (!entries)
            return mln_fail_memory(r->error, room * sizeof *entries, "the shard index");
        out->entries = entries;
        r->room = room;
    }
    mln_index_entry *entry = &out->entries[out->count];
    /* Neighbours mostly lie in the same file. */
    const char *last = out->count ? entry[-1].file : NULL;
    entry->file = last && mln_json_text_is(event->text, last)
                      ? last
                      : mln_arena_strndup(&out->arena, event->text.data, event->text.length);
    entry->tensor = mln_arena_strndup(&out->arena, name.data, name.length);
    entry->shard = 0;
    if (!entry->file || !entry->tensor)
        return mln_fail_memory(r->error, name.length, "the shard index");
    out->count++;
    return MYELIN_OK;
}

static myelin_status on_event(void *context, const mln_json_event *event, myelin_error *error) {
    reader *r = context;
    if (event->depth == 0 && event->kind != MLN_JSON_BEGIN_OBJECT &&
        event->kind != MLN_JSON_END_OBJECT)
        return mln_fail(error, MYELIN_ERROR_FORMAT, r->file, event->offset,
                        "expected an object, found %s", mln_json_kind_name(event->kind));
    if (event->depth == 0 || !mln_json_text_is(event->path[0], "weight_map"))
        return MYELIN_OK;
    if (event->depth == 2)
        return add_entry(r, event);
    if (event->kind != MLN_JSON_BEGIN_OBJECT && event->kind != MLN_JSON_END_OBJECT)
        return mln_fail(error, MYELIN_ERROR_FORMAT, r->file, event->offset,
                        "weight_map: expected an object, found %s",
                        mln_json_kind_name(event->kind));
    r->has_map = true;
    return MYELIN_OK;
}

static int by_file(const void *a, const void *b) {
    return strcmp(((const mln_index_entry *)a)->file, ((const mln_index_entry *)b)->file);
}

static int by_tensor(const void *a, const void *b) {
    return strcmp(((const mln_index_entry *)a)->tensor, ((const mln_index_entry *)b)->tensor);
}

/* Numbers the distinct files and notes each entry's. */
static myelin_status number_files(reader *r) {
    mln_shard_index *out = r->out;
    qsort(out->entries, out->count, sizeof *out->entries, by_file);
    for (size_t i = 0; i < out->count; i++) {
        if (i == 0 || strcmp(out->entries[i].file, out->entries[i - 1].file) != 0)
            out->num_files++;
        if (out->num_files > MLN_CHECKPOINT_MAX_SHARDS)
            return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, -1,
                            "weight_map: expected at most %d different files, found more",
                            MLN_CHECKPOINT_MAX_SHARDS);
        out->entries[i].shard = (int32_t)out->num_files - 1;
    }
    out->files = mln_alloc(out->num_files, sizeof *out->files);
    if (!out->files)
        return mln_fail_memory(r->error, out->num_files * sizeof *out->files, "the shard index");
    for (size_t i = 0; i < out->count; i++)
        out->files[out->entries[i].shard] = out->entries[i].file;
    qsort(out->entries, out->count, sizeof *out->entries, by_tensor);
    return MYELIN_OK;
}

myelin_status mln_shard_index_parse(mln_shard_index *index, const char *json, size_t length,
                                    const char *file, myelin_error *error) {
    *index = (mln_shard_index){0};
    reader r = {.out = index, .file = file, .error = error};
    myelin_status status = mln_json_stream(json, length, file, on_event, &r, error);
    if (status == MYELIN_OK && index->count == 0)
        status = mln_fail(error, MYELIN_ERROR_FORMAT, file, -1,
                          "weight_map: expected at least one tensor, found %s",
                          r.has_map ? "none" : "no weight_map");
    if (status == MYELIN_OK)
        status = number_files(&r);
    if (status != MYELIN_OK)
        mln_shard_index_free(index);
    return status;
}

void mln_shard_index_free(mln_shard_index *index) {
    free(index->entries);
    free(index->files);
    mln_arena_free(&index->arena);
    *index = (mln_shard_index){0};
}
