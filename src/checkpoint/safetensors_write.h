/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a safetensors file: the header of all tensors first, then their bytes in that order. */
#ifndef MLN_CHECKPOINT_SAFETENSORS_WRITE_H
#define MLN_CHECKPOINT_SAFETENSORS_WRITE_H

#include "base/memory.h"
#include "checkpoint/safetensors.h"

/* Zero-initialise; mln_writer_close() after a failure, too. */
typedef struct mln_writer {
    int fd;
    char *path;        /* borrowed */
    uint64_t written;  /* bytes of tensors so far */
    uint64_t expected; /* of all that were announced */
    bool open;
} mln_writer;

/*
 * Creates `path`, which must not exist, and writes the header. Names must be plain ASCII without
 * quotes or backslashes; `offset` and `size` of the tensors are ignored: they lie in their order.
 */
myelin_status mln_writer_open(mln_writer *writer, char *path, const mln_file_tensor *tensors,
                              size_t count, myelin_error *error);
myelin_status mln_writer_append(mln_writer *writer, const void *bytes, uint64_t length,
                                myelin_error *error);
/* Waits until the file is on the disk. Fewer bytes than were announced are an error. */
myelin_status mln_writer_finish(mln_writer *writer, myelin_error *error);
void mln_writer_close(mln_writer *writer);

#endif
