/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing a failure with what it should be, for table-driven tests. Include after cmocka.h. */
#ifndef TESTS_CHECKPOINT_EXPECT_H
#define TESTS_CHECKPOINT_EXPECT_H

#include <string.h>

#include "myelin/status.h"

/* The status, and a part of the message (NULL: none). `name` says which case it is. */
static inline void expect_failure(const char *name, myelin_status status, const myelin_error *error,
                                  myelin_status expected, const char *message) {
    if (status != expected)
        fail_msg("%s: expected %s, found %s: %s", name, myelin_status_name(expected),
                 myelin_status_name(status), status ? error->message : "");
    if (message && !strstr(error->message, message))
        fail_msg("%s: expected the message to hold `%s`, found `%s`", name, message,
                 error->message);
    if (status != MYELIN_OK && error->status != status)
        fail_msg("%s: the error's status is %d, not %d", name, (int)error->status, (int)status);
}

#endif
