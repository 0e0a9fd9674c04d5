/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"

enum { LENGTH_BYTES = 8, FIRST_ROOM = 64, NAME_SHOWN = 200 };

static const struct {
    const char *name;
    uint64_t size;
} dtypes[] = {
    [MLN_FILE_BOOL] = {"BOOL", 1},       [MLN_FILE_U8] = {"U8", 1},
    [MLN_FILE_I8] = {"I8", 1},           [MLN_FILE_F8_E5M2] = {"F8_E5M2", 1},
    [MLN_FILE_F8_E4M3] = {"F8_E4M3", 1}, [MLN_FILE_I16] = {"I16", 2},
    [MLN_FILE_U16] = {"U16", 2},         [MLN_FILE_F16] = {"F16", 2},
    [MLN_FILE_BF16] = {"BF16", 2},       [MLN_FILE_I32] = {"I32", 4},
    [MLN_FILE_U32] = {"U32", 4},         [MLN_FILE_F32] = {"F32", 4},
    [MLN_FILE_F64] = {"F64", 8},         [MLN_FILE_I64] = {"I64", 8},
    [MLN_FILE_U64] = {"U64", 8},
};

const char *mln_file_dtype_name(mln_file_dtype dtype) {
    return dtypes[dtype].name;
}

uint64_t mln_file_dtype_size(mln_file_dtype dtype) {
    return dtypes[dtype].size;
}

/* The walk over the header. */
typedef struct reader {
    mln_safetensors *out;
    size_t room;
    const char *file;
    myelin_error *error;
    uint64_t data_start, data_size; /* bytes */
    bool in_metadata;
    mln_file_tensor now; /* the entry being read */
    bool has_dtype, has_shape;
    int num_offsets; /* -1: no data_offsets yet */
    uint64_t offsets[2];
} reader;

/* Errors count bytes from the beginning of the file. */
static int64_t in_file(const mln_json_event *event) {
    return event->offset + LENGTH_BYTES;
}

static myelin_status wrong_kind(const reader *r, const mln_json_event *event, const char *what,
                                const char *expected) {
    return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, in_file(event),
                    "%s%s%.*s%s: expected %s, found %s%s%.*s", what, r->now.name ? " of \"" : "",
                    NAME_SHOWN, r->now.name ? r->now.name : "", r->now.name ? "\"" : "", expected,
                    mln_json_kind_name(event->kind), event->kind == MLN_JSON_NUMBER ? " " : "",
                    event->kind == MLN_JSON_NUMBER
                        ? (int)(event->text.length < 40 ? event->text.length : 40)
                        : 0,
                    event->text.data ? event->text.data : "");
}

static myelin_status begin_tensor(reader *r, const mln_json_event *event) {
    mln_json_text name = event->path[0];
    if (memchr(name.data, '\0', name.length))
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, in_file(event),
                        "tensor name \"%.*s\" holds a NUL", NAME_SHOWN, name.data);
    r->now = (mln_file_tensor){0};
    r->has_dtype = r->has_shape = false;
    r->num_offsets = -1;
    r->now.name = mln_arena_strndup(&r->out->arena, name.data, name.length);
    return r->now.name ? MYELIN_OK : mln_fail_memory(r->error, name.length, "a tensor's name");
}

static myelin_status read_dtype(reader *r, const mln_json_event *event) {
    if (event->kind != MLN_JSON_STRING)
        return wrong_kind(r, event, "dtype", "a string");
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (mln_json_text_is(event->text, dtypes[i].name)) {
            r->now.dtype = (mln_file_dtype)i;
            r->has_dtype = true;
            return MYELIN_OK;
        }
    }
    return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, in_file(event),
                    "dtype of \"%.*s\": expected one of the safetensors dtypes, found \"%.*s\"",
                    NAME_SHOWN, r->now.name,
                    (int)(event->text.length < 40 ? event->text.length : 40), event->text.data);
}

static myelin_status read_element(reader *r, const mln_json_event *event, bool is_shape) {
    int64_t value;
    if (event->kind != MLN_JSON_NUMBER || !mln_json_integer(event->text, &value) || value < 0)
        return wrong_kind(r, event, is_shape ? "shape" : "data_offsets",
                          "non-negative integers below 2^63");
    if (is_shape && r->now.rank == MLN_SAFETENSORS_MAX_RANK)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, in_file(event),
                        "shape of \"%.*s\": expected at most %d dimensions, found more", NAME_SHOWN,
                        r->now.name, MLN_SAFETENSORS_MAX_RANK);
    if (!is_shape && r->num_offsets == 2)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, in_file(event),
                        "data_offsets of \"%.*s\": expected [begin, end], found more", NAME_SHOWN,
                        r->now.name);
    if (is_shape)
        r->now.shape[r->now.rank++] = value;
    else
        r->offsets[r->num_offsets++] = (uint64_t)value;
    return MYELIN_OK;
}

/* A value inside a tensor's entry. Keys nobody knows are skipped, as the reference reader does. */
static myelin_status read_member(reader *r, const mln_json_event *event) {
    mln_json_text key = event->path[1];
    bool is_shape = mln_json_text_is(key, "shape");
    if (mln_json_text_is(key, "dtype"))
        return event->depth == 2 ? read_dtype(r, event) : MYELIN_OK;
    if (!is_shape && !mln_json_text_is(key, "data_offsets"))
        return MYELIN_OK;
    if (event->depth > 2)
        return read_element(r, event, is_shape);
    if (event->kind != MLN_JSON_BEGIN_ARRAY && event->kind != MLN_JSON_END_ARRAY)
        return wrong_kind(r, event, is_shape ? "shape" : "data_offsets", "an array");
    if (event->kind == MLN_JSON_BEGIN_ARRAY && is_shape)
        r->has_shape = true;
    else if (event->kind == MLN_JSON_BEGIN_ARRAY)
        r->num_offsets = 0;
    return MYELIN_OK;
}

static const char *missing_member(const reader *r) {
    return !r->has_dtype ? "dtype" : !r->has_shape ? "shape" : "data_offsets";
}

/* Bytes the shape and dtype ask for; false when they overflow. */
static bool tensor_bytes(const mln_file_tensor *t, uint64_t *bytes) {
    *bytes = dtypes[t->dtype].size;
    for (int32_t i = 0; i < t->rank; i++)
        if (!mln_mul(*bytes, (uint64_t)t->shape[i], bytes))
            return false;
    return true;
}

static myelin_status check_extent(const reader *r, int64_t at) {
    const char *name = r->now.name;
    uint64_t begin = r->offsets[0], end = r->offsets[1], bytes;
    if (begin > end)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, at,
                        "data_offsets of \"%.*s\": begin (%" PRIu64 ") is past end (%" PRIu64 ")",
                        NAME_SHOWN, name, begin, end);
    if (end > r->data_size)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, at,
                        "data_offsets of \"%.*s\": end (%" PRIu64 ") is past the %" PRIu64
                        " bytes of data in the file",
                        NAME_SHOWN, name, end, r->data_size);
    if (!tensor_bytes(&r->now, &bytes))
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, at,
                        "shape of \"%.*s\": the number of bytes overflows", NAME_SHOWN, name);
    if (bytes != end - begin)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, at,
                        "data_offsets of \"%.*s\": expected %" PRIu64
                        " bytes (shape and %s), found %" PRIu64,
                        NAME_SHOWN, name, bytes, dtypes[r->now.dtype].name, end - begin);
    return MYELIN_OK;
}

static myelin_status end_tensor(reader *r, const mln_json_event *event) {
    if (!r->has_dtype || !r->has_shape || r->num_offsets < 0)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, in_file(event),
                        "tensor \"%.*s\": expected a %s, found none", NAME_SHOWN, r->now.name,
                        missing_member(r));
    if (r->num_offsets != 2)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, in_file(event),
                        "data_offsets of \"%.*s\": expected [begin, end], found %d numbers",
                        NAME_SHOWN, r->now.name, r->num_offsets);
    myelin_status status = check_extent(r, in_file(event));
    if (status != MYELIN_OK)
        return status;
    mln_safetensors *out = r->out;
    if (out->count == MLN_SAFETENSORS_MAX_TENSORS)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, in_file(event),
                        "expected at most %d tensors, found more", MLN_SAFETENSORS_MAX_TENSORS);
    if (out->count == r->room) {
        size_t room = r->room ? 2 * r->room : FIRST_ROOM;
        mln_file_tensor *tensors = mln_realloc(out->tensors, room, sizeof *tensors);
        if (!tensors)
            return mln_fail_memory(r->error, room * sizeof *tensors, "a list of tensors");
        out->tensors = tensors;
        r->room = room;
    }
    r->now.offset = r->data_start + r->offsets[0];
    r->now.size = r->offsets[1] - r->offsets[0];
    out->tensors[out->count++] = r->now;
    r->now.name = NULL;
    return MYELIN_OK;
}

/* Depth 0 is the header, depth 1 a tensor's entry or __metadata__, 2 and more what they hold. */
static myelin_status on_event(void *context, const mln_json_event *event, myelin_error *unused) {
    reader *r = context;
    (void)unused; /* r->error gets what is reported here; the walk's own errors are rephrased */
    if (event->depth == 0)
        return MYELIN_OK; /* an object: the header begins with '{' */
    if (event->depth == 1) {
        if (event->kind == MLN_JSON_END_OBJECT && !r->in_metadata)
            return end_tensor(r, event);
        r->in_metadata = mln_json_text_is(event->path[0], "__metadata__");
        if (event->kind != MLN_JSON_BEGIN_OBJECT && event->kind != MLN_JSON_END_OBJECT)
            return mln_fail(
                r->error, MYELIN_ERROR_FORMAT, r->file, in_file(event),
                "\"%.*s\": expected an object, found %s",
                (int)(event->path[0].length < NAME_SHOWN ? event->path[0].length : NAME_SHOWN),
                event->path[0].data, mln_json_kind_name(event->kind));
        if (r->in_metadata)
            return MYELIN_OK;
        return begin_tensor(r, event);
    }
    if (!r->in_metadata)
        return read_member(r, event);
    if (event->depth != 2 || event->kind != MLN_JSON_STRING)
        return wrong_kind(r, event, "a value of __metadata__", "a string");
    return MYELIN_OK;
}

static int by_place(const void *a, const void *b) {
    const mln_file_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const mln_file_tensor *)a)->name, ((const mln_file_tensor *)b)->name);
}

/* Every byte of the data belongs to one tensor. Leaves the tensors in the order of the file. */
static myelin_status check_layout(reader *r) {
    mln_safetensors *out = r->out;
    uint64_t next = r->data_start;
    if (out->count)
        qsort(out->tensors, out->count, sizeof *out->tensors, by_place);
    for (size_t i = 0; i < out->count; i++) {
        const mln_file_tensor *t = &out->tensors[i];
        if (t->offset > next)
            return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, (int64_t)next,
                            "hole of %" PRIu64 " bytes before \"%.*s\"", t->offset - next,
                            NAME_SHOWN, t->name);
        if (t->offset < next)
            return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, (int64_t)t->offset,
                            "\"%.*s\" overlaps \"%.*s\"", NAME_SHOWN, t->name, NAME_SHOWN,
                            out->tensors[i - 1].name);
        next += t->size;
    }
    uint64_t end = r->data_start + r->data_size;
    if (next != end)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->file, (int64_t)next,
                        "expected the file to end after the last tensor, found %" PRIu64
                        " more bytes",
                        end - next);
    return MYELIN_OK;
}

/* Walks the header; errors of the JSON itself count from the beginning of the file, too. */
static myelin_status walk(reader *r, const char *header, size_t length) {
    myelin_error problem = {.offset = -1};
    myelin_status status = mln_json_stream(header, length, NULL, on_event, r, &problem);
    if (problem.status == MYELIN_OK || problem.offset < 0) {
        if (problem.status != MYELIN_OK)
            mln_fail(r->error, status, r->file, -1, "%s", problem.message);
        return status;
    }
    char *place = strstr(problem.message, " (byte ");
    for (char *later = place; later; later = strstr(later + 1, " (byte "))
        place = later;
    if (place)
        *place = '\0';
    return mln_fail(r->error, status, r->file, problem.offset + LENGTH_BYTES, "header: %s",
                    problem.message);
}

myelin_status mln_safetensors_parse(mln_safetensors *out, const char *header, size_t length,
                                    uint64_t file_size, const char *file, myelin_error *error) {
    *out = (mln_safetensors){0};
    uint64_t data_start;
    if (!mln_add(length, LENGTH_BYTES, &data_start) || data_start > file_size)
        return mln_fail(error, MYELIN_ERROR_FORMAT, file, -1,
                        "header of %zu bytes does not fit in the file's %" PRIu64, length,
                        file_size);
    if (length == 0 || header[0] != '{')
        return mln_fail(error, MYELIN_ERROR_FORMAT, file, LENGTH_BYTES,
                        "expected the header to begin with '{', found %s",
                        length ? "another byte" : "nothing");
    reader r = {.out = out,
                .file = file,
                .error = error,
                .data_start = data_start,
                .data_size = file_size - data_start};
    myelin_status status = walk(&r, header, length);
    if (status == MYELIN_OK)
        status = check_layout(&r);
    if (status != MYELIN_OK)
        mln_safetensors_free(out);
    else if (out->count)
        qsort(out->tensors, out->count, sizeof *out->tensors, by_name);
    return status;
}

/* The header's length from the first 8 bytes, shown to fit in the file. */
static myelin_status read_length(const mln_file *file, uint64_t *length, myelin_error *error) {
    unsigned char bytes[LENGTH_BYTES];
    if (file->size < LENGTH_BYTES)
        return mln_fail(error, MYELIN_ERROR_FORMAT, file->path, -1,
                        "expected at least %d bytes, found %" PRIu64, LENGTH_BYTES, file->size);
    myelin_status status = mln_file_read(file, 0, bytes, sizeof bytes, error);
    if (status != MYELIN_OK)
        return status;
    *length = 0;
    for (int i = LENGTH_BYTES; i-- > 0;)
        *length = *length << 8 | bytes[i];
    if (*length > MLN_SAFETENSORS_MAX_HEADER)
        return mln_fail(error, MYELIN_ERROR_FORMAT, file->path, 0,
                        "header length: expected at most %" PRIu64 ", found %" PRIu64,
                        MLN_SAFETENSORS_MAX_HEADER, *length);
    if (*length == 0 || *length > file->size - LENGTH_BYTES)
        return mln_fail(error, MYELIN_ERROR_FORMAT, file->path, 0,
                        "header length: expected 1 to %" PRIu64
                        " (what follows in the file), found %" PRIu64,
                        file->size - LENGTH_BYTES, *length);
    return MYELIN_OK;
}

myelin_status mln_safetensors_read(mln_safetensors *out, const mln_file *file,
                                   myelin_error *error) {
    uint64_t length = 0;
    *out = (mln_safetensors){0};
    myelin_status status = read_length(file, &length, error);
    if (status != MYELIN_OK)
        return status;
    char *header = mln_alloc((size_t)length, 1);
    if (!header)
        return mln_fail_memory(error, length, "a safetensors header");
    status = mln_file_read(file, LENGTH_BYTES, header, length, error);
    if (status == MYELIN_OK)
        status = mln_safetensors_parse(out, header, (size_t)length, file->size, file->path, error);
    free(header);
    return status;
}

void mln_safetensors_free(mln_safetensors *tensors) {
    free(tensors->tensors);
    mln_arena_free(&tensors->arena);
    *tensors = (mln_safetensors){0};
}

const mln_file_tensor *mln_safetensors_find(const mln_safetensors *tensors, const char *name) {
    mln_file_tensor key = {.name = name};
    if (tensors->count == 0)
        return NULL;
    return bsearch(&key, tensors->tensors, tensors->count, sizeof key, by_name);
}
