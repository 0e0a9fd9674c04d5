/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading files that may be hostile or change under us. Files are read, never mapped: a file that
 * shrinks after it was opened is then an error value and not a SIGBUS.
 */
#ifndef MLN_BASE_FILE_H
#define MLN_BASE_FILE_H

#include "base/memory.h"
#include "myelin/status.h"

typedef struct mln_file {
    int fd;        /* -1 when closed */
    uint64_t size; /* when it was opened */
    char *path;    /* owned */
} mln_file;

/* Opens a regular file for reading; anything else (directory, pipe, device) is refused. */
myelin_status mln_file_open(mln_file *file, const char *path, myelin_error *error);
void mln_file_close(mln_file *file);

/* Reads exactly `length` bytes at `offset`; a file that ends before that is MYELIN_ERROR_FORMAT. */
myelin_status mln_file_read(const mln_file *file, uint64_t offset, void *dst, uint64_t length,
                            myelin_error *error);

/* Writes all of `bytes` to an open descriptor; `path` names it in errors. */
myelin_status mln_file_write(int fd, const char *path, const void *bytes, uint64_t length,
                             myelin_error *error);

/* Reads a whole file of at most `cap` bytes into a zeroed buffer, to be freed by the caller. */
myelin_status mln_file_slurp(const char *path, uint64_t cap, mln_buffer *out, myelin_error *error);

/* directory + "/" + name, heap memory; NULL when out of memory. */
char *mln_path_join(const char *directory, const char *name);

/* True when path names something that exists. */
bool mln_path_exists(const char *path);

#endif
