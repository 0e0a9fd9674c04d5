/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A dense checkpoint to an MLX quantised one. Everything is written into a directory beside the
 * destination, which takes its name only when all of it is on the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/safetensors_write.h"
#include "engine/internal.h"
#include "tensor/dtype.h"
#include "tensor/quantize.h"

enum { PARTS = 3, NAME_ROOM = 160, ROWS_AT_ONCE = 64 };

static const char weights_name[] = "model.safetensors";
static const char config_name[] = "config.json";

/* Copied as they are when the source has them. */
static const char *const companions[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
};
enum { NUM_COMPANIONS = sizeof companions / sizeof *companions };

typedef struct quantizer {
    mln_checkpoint *source;
    const char *source_directory;
    char *part; /* the directory being filled */
    myelin_quantize_options options;
    mln_file_tensor *tensors; /* [PARTS * num_weights] of the file to be written */
    char (*names)[NAME_ROOM]; /* theirs */
    size_t num_tensors;
    mln_writer writer;
    uint64_t done, total; /* bytes of dense weights read */
    void *raw;            /* ROWS_AT_ONCE rows as in the source */
    float *wide;          /* one row */
    float *scales, *biases;
    uint32_t *packed;
    /* The parts of a whole tensor that follow its codes in the file. */
    unsigned char *all_scales, *all_biases;
} quantizer;

/* Matrices whose rows are whole groups are quantised; mlx-lm leaves others dense, too. */
static bool is_quantised(const quantizer *q, const mln_weight *weight) {
    return weight->tensor.rank == 2 && weight->tensor.shape[1] % q->options.group_size == 0;
}

static int32_t scale_dtype_of(const quantizer *q, const mln_weight *weight) {
    if (q->options.scale_dtype != MYELIN_DTYPE_AUTO)
        return (int32_t)q->options.scale_dtype;
    return weight->tensor.dtype == MYELIN_DTYPE_F16 ? MYELIN_DTYPE_F16 : MYELIN_DTYPE_BF16;
}

static mln_file_dtype file_dtype(int32_t dtype) {
    return dtype == MYELIN_DTYPE_F32   ? MLN_FILE_F32
           : dtype == MYELIN_DTYPE_F16 ? MLN_FILE_F16
                                       : MLN_FILE_BF16;
}

static void announce(quantizer *q, const char *module, const char *suffix, mln_file_dtype dtype,
                     int32_t rank, int64_t rows, int64_t columns) {
    char *name = q->names[q->num_tensors];
    snprintf(name, NAME_ROOM, "%s%s", module, suffix);
    q->tensors[q->num_tensors++] =
        (mln_file_tensor){.name = name, .dtype = dtype, .rank = rank, .shape = {rows, columns}};
}

static void announce_weight(quantizer *q, const mln_weight *weight) {
    const myelin_tensor *t = &weight->tensor;
    char module[NAME_ROOM - 16];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(weight->name) - strlen(".weight")),
             weight->name);
    if (!is_quantised(q, weight)) {
        announce(q, module, ".weight", file_dtype(t->dtype), t->rank, t->shape[0], t->shape[1]);
        return;
    }
    mln_file_dtype scale = file_dtype(scale_dtype_of(q, weight));
    int64_t groups = t->shape[1] / q->options.group_size;
    announce(q, module, ".weight", MLN_FILE_U32, 2, t->shape[0],
             t->shape[1] * q->options.bits / 32);
    announce(q, module, ".scales", scale, 2, t->shape[0], groups);
    announce(q, module, ".biases", scale, 2, t->shape[0], groups);
}

/* Everything the work needs, for the widest row and the longest column of scales. */
static myelin_status take_memory(quantizer *q, myelin_error *error) {
    size_t widest = 1, scales = 1, count = q->source->num_weights;
    for (size_t i = 0; i < count; i++) {
        const myelin_tensor *t = &q->source->weights[i].tensor;
        size_t columns = t->rank == 2 ? (size_t)t->shape[1] : 1;
        size_t all = (size_t)t->shape[0] * (columns / (size_t)q->options.group_size + 1);
        widest = columns > widest ? columns : widest;
        scales = t->rank == 2 && all > scales ? all : scales;
    }
    q->tensors = mln_calloc(PARTS * count, sizeof *q->tensors);
    q->names = mln_calloc(PARTS * count, sizeof *q->names);
    q->raw = mln_alloc(widest * ROWS_AT_ONCE, sizeof(float));
    q->wide = mln_alloc(widest, sizeof *q->wide);
    q->packed = mln_alloc(widest, sizeof *q->packed);
    q->scales = mln_alloc(widest, sizeof *q->scales);
    q->biases = mln_alloc(widest, sizeof *q->biases);
    q->all_scales = mln_alloc(scales, sizeof(uint16_t));
    q->all_biases = mln_alloc(scales, sizeof(uint16_t));
    if (!q->tensors || !q->names || !q->raw || !q->wide || !q->packed || !q->scales || !q->biases ||
        !q->all_scales || !q->all_biases)
        return mln_fail_memory(error, widest * ROWS_AT_ONCE * sizeof(float), "rows of weights");
    return MYELIN_OK;
}

static myelin_status report(quantizer *q, uint64_t bytes, myelin_error *error) {
    q->done += bytes;
    if (!q->options.progress || q->options.progress(q->options.user, q->done, q->total))
        return MYELIN_OK;
    return mln_fail(error, MYELIN_ERROR_CANCELLED, NULL, -1, "quantising was cancelled");
}

/* Reads rows [row, row + count) of a weight as the file has them into q->raw. */
static myelin_status read_rows(quantizer *q, const mln_weight *weight, int64_t row, int64_t count,
                               uint64_t *bytes, myelin_error *error) {
    const myelin_tensor *t = &weight->tensor;
    uint64_t columns = t->rank == 2 ? (uint64_t)t->shape[1] : 1;
    uint64_t row_bytes = columns * mln_dtype_size(t->dtype);
    *bytes = row_bytes * (uint64_t)count;
    myelin_status status =
        mln_checkpoint_read(q->source, weight, 0, row_bytes * (uint64_t)row, q->raw, *bytes, error);
    return status == MYELIN_OK ? report(q, *bytes, error) : status;
}

static myelin_status copy_weight(quantizer *q, const mln_weight *weight, myelin_error *error) {
    int64_t rows = weight->tensor.shape[0];
    for (int64_t row = 0; row < rows; row += ROWS_AT_ONCE) {
        uint64_t bytes;
        int64_t count = rows - row < ROWS_AT_ONCE ? rows - row : ROWS_AT_ONCE;
        myelin_status status = read_rows(q, weight, row, count, &bytes, error);
        if (status == MYELIN_OK)
            status = mln_writer_append(&q->writer, q->raw, bytes, error);
        if (status != MYELIN_OK)
            return status;
    }
    return MYELIN_OK;
}

/* One row: its codes to the file, its scales and biases to where they wait. */
static myelin_status quantize_row(quantizer *q, const mln_weight *weight, int64_t row,
                                  const void *raw, myelin_error *error) {
    const myelin_tensor *t = &weight->tensor;
    int64_t columns = t->shape[1], groups = columns / q->options.group_size, bad;
    int32_t scale_dtype = scale_dtype_of(q, weight);
    size_t offset = (size_t)(row * groups) * sizeof(uint16_t);
    mln_to_f32(q->wide, raw, t->dtype, (size_t)columns);
    if (!mln_quantize_row(q->wide, columns, q->options.bits, q->options.group_size, q->packed,
                          q->scales, q->biases, &bad))
        return mln_fail(error, MYELIN_ERROR_FORMAT, q->source_directory, -1,
                        "tensor \"%s\": row %" PRId64 ", column %" PRId64
                        ": expected a finite number, found %g",
                        weight->name, row, bad, (double)q->wide[bad]);
    mln_from_f32(q->all_scales + offset, scale_dtype, q->scales, (size_t)groups);
    mln_from_f32(q->all_biases + offset, scale_dtype, q->biases, (size_t)groups);
    return mln_writer_append(&q->writer, q->packed,
                             (uint64_t)columns * (uint64_t)q->options.bits / 8, error);
}

static myelin_status quantize_weight(quantizer *q, const mln_weight *weight, myelin_error *error) {
    const myelin_tensor *t = &weight->tensor;
    uint64_t row_bytes = (uint64_t)t->shape[1] * mln_dtype_size(t->dtype), bytes;
    myelin_status status = MYELIN_OK;
    for (int64_t row = 0; status == MYELIN_OK && row < t->shape[0]; row += ROWS_AT_ONCE) {
        int64_t count = t->shape[0] - row < ROWS_AT_ONCE ? t->shape[0] - row : ROWS_AT_ONCE;
        status = read_rows(q, weight, row, count, &bytes, error);
        for (int64_t i = 0; status == MYELIN_OK && i < count; i++)
            status =
                quantize_row(q, weight, row + i, (char *)q->raw + row_bytes * (uint64_t)i, error);
    }
    bytes = (uint64_t)(t->shape[0] * (t->shape[1] / q->options.group_size)) * sizeof(uint16_t);
    if (status == MYELIN_OK)
        status = mln_writer_append(&q->writer, q->all_scales, bytes, error);
    if (status == MYELIN_OK)
        status = mln_writer_append(&q->writer, q->all_biases, bytes, error);
    return status;
}

static myelin_status path_in(const quantizer *q, const char *name, char **path,
                             myelin_error *error) {
    *path = mln_path_join(q->part, name);
    return *path ? MYELIN_OK : mln_fail_memory(error, strlen(q->part), "a path");
}

static myelin_status write_weights(quantizer *q, myelin_error *error) {
    char *path;
    for (size_t i = 0; i < q->source->num_weights; i++) {
        announce_weight(q, &q->source->weights[i]);
        q->total += q->source->weights[i].source[0]->size;
    }
    myelin_status status = path_in(q, weights_name, &path, error);
    if (status == MYELIN_OK)
        status = mln_writer_open(&q->writer, path, q->tensors, q->num_tensors, error);
    for (size_t i = 0; status == MYELIN_OK && i < q->source->num_weights; i++) {
        const mln_weight *weight = &q->source->weights[i];
        status = is_quantised(q, weight) ? quantize_weight(q, weight, error)
                                         : copy_weight(q, weight, error);
    }
    if (status == MYELIN_OK)
        status = mln_writer_finish(&q->writer, error);
    mln_writer_close(&q->writer);
    free(path);
    return status;
}

/* Creates a file that must not be there, with what it holds, and waits for the disk. */
static myelin_status write_file(const char *path, const void *bytes, size_t length,
                                myelin_error *error) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return mln_fail_errno(error, errno, "create", path);
    myelin_status status = mln_file_write(fd, path, bytes, length, error);
    if (status == MYELIN_OK && fsync(fd) != 0)
        status = mln_fail_errno(error, errno, "write", path);
    close(fd);
    return status;
}

/* The source's config.json with a `quantization` section, under both names it goes by. */
static myelin_status write_config(quantizer *q, myelin_error *error) {
    char *from = mln_path_join(q->source_directory, config_name), *to = NULL, *text = NULL;
    json_t *config = NULL;
    myelin_status status = from ? path_in(q, config_name, &to, error)
                                : mln_fail_memory(error, strlen(config_name), "a path");
    if (status == MYELIN_OK)
        status = mln_json_load_file(&config, from, error);
    if (status == MYELIN_OK) {
        json_t *section = json_pack("{s:i, s:i}", "group_size", (int)q->options.group_size, "bits",
                                    (int)q->options.bits);
        bool set = section && json_object_set(config, "quantization", section) == 0 &&
                   json_object_set(config, "quantization_config", section) == 0;
        json_decref(section);
        text = set ? json_dumps(config, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
        status = text ? write_file(to, text, strlen(text), error)
                      : mln_fail_memory(error, sizeof section, "config.json");
    }
    json_decref(config);
    free(text);
    free(from);
    free(to);
    return status;
}

static myelin_status copy_companion(quantizer *q, const char *name, myelin_error *error) {
    char *from = mln_path_join(q->source_directory, name), *to = NULL;
    mln_buffer text = {0};
    myelin_status status =
        from ? path_in(q, name, &to, error) : mln_fail_memory(error, strlen(name), "a path");
    if (status == MYELIN_OK && mln_path_exists(from)) {
        status = mln_file_slurp(from, UINT64_C(256) << 20, &text, error);
        if (status == MYELIN_OK)
            status = write_file(to, text.data, text.length, error);
    }
    mln_buffer_free(&text);
    free(from);
    free(to);
    return status;
}

/* Removes what was written: the files have known names. Takes no memory, which may be the trouble.
 */
static void remove_part(const quantizer *q) {
    int directory = open(q->part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) {
        for (size_t i = 0; i < NUM_COMPANIONS; i++)
            unlinkat(directory, companions[i], 0);
        unlinkat(directory, weights_name, 0);
        unlinkat(directory, config_name, 0);
        close(directory);
    }
    rmdir(q->part);
}

static myelin_status fill(quantizer *q, myelin_error *error) {
    myelin_status status = take_memory(q, error);
    if (status == MYELIN_OK)
        status = write_weights(q, error);
    if (status == MYELIN_OK)
        status = write_config(q, error);
    for (size_t i = 0; status == MYELIN_OK && i < NUM_COMPANIONS; i++)
        status = copy_companion(q, companions[i], error);
    return status;
}

static myelin_status check_source(const mln_checkpoint *source, const char *directory,
                                  myelin_error *error) {
    for (size_t i = 0; i < source->num_weights; i++)
        if (source->weights[i].tensor.dtype == MYELIN_DTYPE_AFFINE)
            return mln_fail(error, MYELIN_ERROR_UNSUPPORTED, directory, -1,
                            "expected a dense checkpoint, found \"%s\" quantised already",
                            source->weights[i].name);
    return MYELIN_OK;
}

/* Why the destination cannot be had, from errno. */
static myelin_status refuse(const char *destination, myelin_error *error) {
    if (errno != ENOTEMPTY && errno != EEXIST && errno != ENOTDIR)
        return mln_fail_errno(error, errno, "create", destination);
    return mln_fail(error, MYELIN_ERROR_ARGUMENT, destination, -1,
                    "expected a new or empty directory to write to, found %s",
                    errno == ENOTDIR ? "a file" : "one that has files");
}

/* rename() refuses any directory that is not empty. */
static myelin_status put_in_place(const quantizer *q, const char *destination,
                                  myelin_error *error) {
    return rename(q->part, destination) == 0 ? MYELIN_OK : refuse(destination, error);
}

/* Told before the work, and by rename() again after it. */
static myelin_status check_destination(const char *destination, myelin_error *error) {
    return rmdir(destination) == 0 || errno == ENOENT ? MYELIN_OK : refuse(destination, error);
}

static myelin_status make_part(quantizer *q, const char *destination, myelin_error *error) {
    mln_buffer path = {0};
    size_t length = strlen(destination);
    while (length > 1 && destination[length - 1] == '/')
        length--;
    char suffix[32];
    int size = snprintf(suffix, sizeof suffix, ".%ld.part", (long)getpid());
    if (!mln_buffer_append(&path, destination, length) ||
        !mln_buffer_append(&path, suffix, (size_t)size)) {
        mln_buffer_free(&path);
        return mln_fail_memory(error, length, "a path");
    }
    q->part = path.data;
    return mkdir(q->part, 0777) == 0 ? MYELIN_OK : mln_fail_errno(error, errno, "create", q->part);
}

static void free_quantizer(quantizer *q) {
    mln_checkpoint_free(q->source);
    free(q->part);
    free(q->tensors);
    free(q->names);
    free(q->raw);
    free(q->wide);
    free(q->packed);
    free(q->scales);
    free(q->biases);
    free(q->all_scales);
    free(q->all_biases);
}

myelin_status myelin_checkpoint_quantize(const char *source, const char *destination,
                                         const myelin_quantize_options *options,
                                         myelin_error *error) {
    quantizer q = {.source_directory = source};
    myelin_status status = mln_quantize_options_resolve(&q.options, options, error);
    if (status == MYELIN_OK)
        status = mln_checkpoint_open(&q.source, source, error);
    if (status == MYELIN_OK)
        status = check_source(q.source, source, error);
    if (status == MYELIN_OK)
        status = check_destination(destination, error);
    if (status == MYELIN_OK)
        status = make_part(&q, destination, error);
    if (status == MYELIN_OK) {
        status = fill(&q, error);
        if (status == MYELIN_OK)
            status = put_in_place(&q, destination, error);
        if (status != MYELIN_OK)
            remove_part(&q);
    }
    free_quantizer(&q);
    return status;
}
