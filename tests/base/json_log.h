/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of the json_stream test share: a handler that writes events down. */
#ifndef TESTS_BASE_JSON_LOG_H
#define TESTS_BASE_JSON_LOG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/memory.h"

/* Appends "PATH KIND TEXT\n" to the mln_buffer `context`; fails with it when memory runs out. */
myelin_status json_log(void *context, const mln_json_event *event, myelin_error *error);

int json_refusals(void);

#endif
