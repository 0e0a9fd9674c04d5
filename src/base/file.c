/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

enum { MOVE_AT_MOST = 1 << 30 }; /* one pread() or write() moves at most 2 GiB - 4 KiB */

myelin_status mln_file_open(mln_file *file, const char *path, myelin_error *error) {
    *file = (mln_file){.fd = -1};
    /* O_NONBLOCK: a FIFO without a writer must not hang us before fstat() refuses it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return mln_fail_errno(error, errno, "open", path);
    struct stat info;
    if (fstat(fd, &info) != 0) {
        int code = errno;
        close(fd);
        return mln_fail_errno(error, code, "stat", path);
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1, "expected a regular file, found a %s",
                        S_ISDIR(info.st_mode) ? "directory" : "special file");
    }
    file->path = mln_strndup(path, strlen(path));
    if (!file->path) {
        close(fd);
        return mln_fail_memory(error, strlen(path) + 1, "a path");
    }
    file->fd = fd;
    file->size = (uint64_t)info.st_size;
    return MYELIN_OK;
}

void mln_file_close(mln_file *file) {
    if (file->fd >= 0 && file->path)
        close(file->fd);
    free(file->path);
    *file = (mln_file){.fd = -1};
}

myelin_status mln_file_read(const mln_file *file, uint64_t offset, void *dst, uint64_t length,
                            myelin_error *error) {
    unsigned char *out = dst;
    uint64_t done = 0;
    while (done < length) {
        uint64_t want = length - done < MOVE_AT_MOST ? length - done : MOVE_AT_MOST;
        ssize_t n = pread(file->fd, out + done, (size_t)want, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mln_fail_errno(error, errno, "read", file->path);
        if (n == 0)
            return mln_fail(error, MYELIN_ERROR_FORMAT, file->path, (int64_t)(offset + done),
                            "expected %" PRIu64 " more bytes, found the end of the file",
                            length - done);
        done += (uint64_t)n;
    }
    return MYELIN_OK;
}

myelin_status mln_file_write(int fd, const char *path, const void *bytes, uint64_t length,
                             myelin_error *error) {
    const unsigned char *from = bytes;
    while (length > 0) {
        size_t most = length < MOVE_AT_MOST ? (size_t)length : MOVE_AT_MOST;
        ssize_t n = write(fd, from, most);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return mln_fail_errno(error, errno, "write", path);
        from += n;
        length -= (uint64_t)n;
    }
    return MYELIN_OK;
}

myelin_status mln_file_slurp(const char *path, uint64_t cap, mln_buffer *out, myelin_error *error) {
    mln_file file;
    myelin_status status = mln_file_open(&file, path, error);
    if (status != MYELIN_OK)
        return status;
    if (file.size > cap)
        status = mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                          "expected at most %" PRIu64 " bytes, found %" PRIu64, cap, file.size);
    else if (!mln_buffer_reserve(out, (size_t)file.size))
        status = mln_fail_memory(error, file.size, "a file");
    else
        status = mln_file_read(&file, 0, out->data, file.size, error);
    if (status == MYELIN_OK) {
        out->length = (size_t)file.size;
        out->data[out->length] = '\0';
    } else {
        mln_buffer_free(out);
    }
    mln_file_close(&file);
    return status;
}

char *mln_path_join(const char *directory, const char *name) {
    mln_buffer path = {0};
    size_t length = strlen(directory);
    bool slash = length > 0 && directory[length - 1] == '/';
    if (mln_buffer_append(&path, directory, length) &&
        mln_buffer_append(&path, "/", slash ? 0 : 1) &&
        mln_buffer_append(&path, name, strlen(name)))
        return path.data;
    mln_buffer_free(&path);
    return NULL;
}

bool mln_path_exists(const char *path) {
    return access(path, F_OK) == 0;
}
