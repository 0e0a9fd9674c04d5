/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors are values. Every function that can fail returns a myelin_status, 0 being fine, and fills
 * an optional myelin_error. Nothing in the library prints, exits, aborts or reads the environment.
 */
#ifndef MYELIN_STATUS_H
#define MYELIN_STATUS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MYELIN_API              __attribute__((visibility("default")))
#define MYELIN_PRINTF(fmt, arg) __attribute__((format(printf, fmt, arg)))
#else
#define MYELIN_API
#define MYELIN_PRINTF(fmt, arg)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* name, value, short text. Values are part of the ABI and are never reused. */
#define MYELIN_STATUS_LIST(X)                                                                      \
    X(MYELIN_OK, 0, "ok")                                                                          \
    X(MYELIN_ERROR_ARGUMENT, 1, "invalid argument")                                                \
    X(MYELIN_ERROR_MEMORY, 2, "out of memory")                                                     \
    X(MYELIN_ERROR_IO, 3, "input/output error")                                                    \
    X(MYELIN_ERROR_NOT_FOUND, 4, "not found")                                                      \
    X(MYELIN_ERROR_FORMAT, 5, "malformed data")                                                    \
    X(MYELIN_ERROR_UNSUPPORTED, 6, "not supported")                                                \
    X(MYELIN_ERROR_CACHE_FULL, 7, "KV cache is full")                                              \
    X(MYELIN_ERROR_CANCELLED, 8, "cancelled")                                                      \
    X(MYELIN_ERROR_DEVICE, 9, "device error")                                                      \
    X(MYELIN_ERROR_INTERNAL, 10, "internal error")                                                 \
    X(MYELIN_ERROR_BUSY, 11, "busy")

typedef enum myelin_status {
#define MYELIN_STATUS_ENUM(name, value, text) name = value,
    MYELIN_STATUS_LIST(MYELIN_STATUS_ENUM)
#undef MYELIN_STATUS_ENUM
} myelin_status;

enum { MYELIN_ERROR_MESSAGE_SIZE = 768, MYELIN_ERROR_FILE_SIZE = 512 };

/*
 * What went wrong. Plain data, owned by whoever declared it; every string is NUL-terminated,
 * well-formed UTF-8 without control characters, and cut when it does not fit. A function that
 * succeeds leaves it untouched.
 */
typedef struct myelin_error {
    myelin_status status;
    int64_t offset;                          /* byte in `file` where it was noticed, or -1 */
    char file[MYELIN_ERROR_FILE_SIZE];       /* the file's path, or "" */
    char message[MYELIN_ERROR_MESSAGE_SIZE]; /* what was expected and found, file name included */
} myelin_error;

/* "out of memory" for MYELIN_ERROR_MEMORY, and so on. Static storage, never NULL. */
MYELIN_API const char *myelin_status_text(myelin_status status);

/* "MYELIN_ERROR_MEMORY" for MYELIN_ERROR_MEMORY. Static storage, never NULL. */
MYELIN_API const char *myelin_status_name(myelin_status status);

#ifdef __cplusplus
}
#endif
#endif
