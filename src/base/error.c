/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

const char *myelin_status_text(myelin_status status) {
    switch (status) {
#define CASE(name, value, text)                                                                    \
    case name:                                                                                     \
        return text;
        MYELIN_STATUS_LIST(CASE)
#undef CASE
    }
    return "unknown status";
}

const char *myelin_status_name(myelin_status status) {
    switch (status) {
#define CASE(name, value, text)                                                                    \
    case name:                                                                                     \
        return #name;
        MYELIN_STATUS_LIST(CASE)
#undef CASE
    }
    return "MYELIN_ERROR_UNKNOWN";
}

/*
 * Names from files and requests end up in messages, and messages on terminals and in JSON: control
 * characters and ill-formed bytes become '?'. A character that snprintf cut is dropped.
 */
static void make_printable(char *text) {
    size_t length = strlen(text);
    length -= mln_utf8_incomplete_suffix(text, length);
    text[length] = '\0';
    for (size_t i = 0; i < length;) {
        uint32_t code;
        size_t n = mln_utf8_decode((const unsigned char *)text + i, length - i, &code);
        bool control = n > 0 && (code < 0x20 || (code >= 0x7F && code < 0xA0));
        if (n == 0 || control)
            memset(text + i, '?', n ? n : code);
        i += n ? n : code;
    }
}

static size_t append(char *text, size_t used, size_t size, const char *format, ...)
    MYELIN_PRINTF(4, 5);

static size_t append(char *text, size_t used, size_t size, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text + used, size - used, format, args);
    va_end(args);
    if (n < 0)
        return used;
    return used + (size_t)n < size ? used + (size_t)n : size - 1;
}

myelin_status mln_fail(myelin_error *error, myelin_status status, const char *file, int64_t offset,
                       const char *format, ...) {
    if (!error)
        return status;
    const char *slash = file ? strrchr(file, '/') : NULL;
    const char *name = slash && slash[1] ? slash + 1 : file;
    char message[MYELIN_ERROR_MESSAGE_SIZE] = "";
    size_t size = sizeof message, used = 0;
    if (name && *name)
        used = append(message, used, size, "%s: ", name);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(message + used, size - used, format, args);
    va_end(args);
    if (n > 0)
        used = used + (size_t)n < size ? used + (size_t)n : size - 1;
    if (offset >= 0)
        append(message, used, size, " (byte %" PRId64 ")", offset);
    make_printable(message);

    error->status = status;
    error->offset = offset;
    snprintf(error->file, sizeof error->file, "%s", file ? file : "");
    make_printable(error->file);
    memcpy(error->message, message, sizeof message);
    return status;
}

myelin_status mln_fail_memory(myelin_error *error, uint64_t bytes, const char *what) {
    return mln_fail(error, MYELIN_ERROR_MEMORY, NULL, -1,
                    "could not allocate %" PRIu64 " bytes for %s", bytes, what);
}

myelin_status mln_fail_errno(myelin_error *error, int code, const char *action, const char *file) {
    char reason[128];
    const char *text = strerror_r(code, reason, sizeof reason); /* the GNU one */
    myelin_status status = code == ENOENT || code == ENOTDIR ? MYELIN_ERROR_NOT_FOUND
                           : code == ENOMEM                  ? MYELIN_ERROR_MEMORY
                                                             : MYELIN_ERROR_IO;
    return mln_fail(error, status, file, -1, "cannot %s: %s", action, text);
}
