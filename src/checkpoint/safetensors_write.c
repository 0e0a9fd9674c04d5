/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/safetensors_write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"

enum { HEADER_ALIGNMENT = 8, LENGTH_BYTES = 8, ITEM_ROOM = 512 };

static uint64_t bytes_of(const mln_file_tensor *t) {
    uint64_t bytes = mln_file_dtype_size(t->dtype);
    for (int32_t i = 0; i < t->rank; i++)
        bytes *= (uint64_t)t->shape[i];
    return bytes;
}

/* {"name":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}, ...} */
static bool append_tensor(mln_buffer *header, const mln_file_tensor *t, uint64_t begin) {
    char text[ITEM_ROOM];
    int length = snprintf(text, sizeof text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[",
                          header->length > 1 ? "," : "", t->name, mln_file_dtype_name(t->dtype));
    bool fits = mln_buffer_append(header, text, (size_t)length);
    for (int32_t i = 0; i < t->rank; i++) {
        length = snprintf(text, sizeof text, "%s%" PRId64, i ? "," : "", t->shape[i]);
        fits = fits && mln_buffer_append(header, text, (size_t)length);
    }
    length = snprintf(text, sizeof text, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin,
                      begin + bytes_of(t));
    return fits && mln_buffer_append(header, text, (size_t)length);
}

static bool make_header(mln_buffer *header, const mln_file_tensor *tensors, size_t count,
                        uint64_t *total) {
    bool fits = mln_buffer_append(header, "{", 1);
    *total = 0;
    for (size_t i = 0; fits && i < count; i++) {
        fits = append_tensor(header, &tensors[i], *total);
        *total += bytes_of(&tensors[i]);
    }
    fits = fits && mln_buffer_append(header, "}", 1);
    while (fits && header->length % HEADER_ALIGNMENT)
        fits = mln_buffer_append(header, " ", 1);
    return fits;
}

myelin_status mln_writer_open(mln_writer *writer, char *path, const mln_file_tensor *tensors,
                              size_t count, myelin_error *error) {
    mln_buffer header = {0};
    *writer = (mln_writer){.path = path};
    if (!make_header(&header, tensors, count, &writer->expected)) {
        mln_buffer_free(&header);
        return mln_fail_memory(error, count * ITEM_ROOM, "a safetensors header");
    }
    writer->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    writer->open = writer->fd >= 0;
    myelin_status status = MYELIN_OK;
    if (!writer->open)
        status = mln_fail_errno(error, errno, "create", path);
    unsigned char length[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++)
        length[i] = (unsigned char)((uint64_t)header.length >> 8 * i);
    if (status == MYELIN_OK)
        status = mln_file_write(writer->fd, writer->path, length, sizeof length, error);
    if (status == MYELIN_OK)
        status = mln_file_write(writer->fd, writer->path, header.data, header.length, error);
    mln_buffer_free(&header);
    return status;
}

myelin_status mln_writer_append(mln_writer *writer, const void *bytes, uint64_t length,
                                myelin_error *error) {
    if (length > writer->expected - writer->written)
        return mln_fail(error, MYELIN_ERROR_INTERNAL, writer->path, -1,
                        "more bytes than the header says");
    writer->written += length;
    return mln_file_write(writer->fd, writer->path, bytes, length, error);
}

myelin_status mln_writer_finish(mln_writer *writer, myelin_error *error) {
    if (writer->written != writer->expected)
        return mln_fail(error, MYELIN_ERROR_INTERNAL, writer->path, -1,
                        "expected %" PRIu64 " bytes of tensors, wrote %" PRIu64, writer->expected,
                        writer->written);
    if (fsync(writer->fd) != 0)
        return mln_fail_errno(error, errno, "write", writer->path);
    mln_writer_close(writer);
    return MYELIN_OK;
}

void mln_writer_close(mln_writer *writer) {
    if (writer->open)
        close(writer->fd);
    writer->open = false;
}
