/* SPDX-License-Identifier: Apache-2.0 */
/* Filling a myelin_error. */
#ifndef MLN_BASE_ERROR_H
#define MLN_BASE_ERROR_H

#include "myelin/status.h"

/*
 * Fills *error (when not NULL) and returns status, so that a failing function can end with
 * `return mln_fail(...)`. The message becomes "NAME: text" with NAME the last part of `file`, when
 * a file is given (NULL: none), and ends in " (byte N)" when offset is not negative.
 */
myelin_status mln_fail(myelin_error *error, myelin_status status, const char *file, int64_t offset,
                       const char *format, ...) MYELIN_PRINTF(5, 6);

/* mln_fail for an allocation of `bytes` for `what` that did not succeed. */
myelin_status mln_fail_memory(myelin_error *error, uint64_t bytes, const char *what);

/* mln_fail for errno = `code` met while doing `action` ("open", "read", ...) on `file`. */
myelin_status mln_fail_errno(myelin_error *error, int code, const char *action, const char *file);

#endif
