/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory there is to be had, asked before much of it is taken. */
#ifndef MLN_BASE_AVAILABLE_H
#define MLN_BASE_AVAILABLE_H

#include <stdint.h>

#include "myelin/status.h"

/*
 * Bytes that programs can still take without others having to give any up: what the kernel calls
 * available, and free swap; at most the limit of the control group this process is in. UINT64_MAX
 * when the system does not say. `root` is "" but in tests, where /proc and /sys lie below it.
 */
uint64_t mln_memory_available(const char *root);

/*
 * MYELIN_ERROR_MEMORY when that is less than `bytes`. The kernel promises more memory than it has:
 * without asking, a model too large for the machine ends in a killed process and not in an error.
 */
myelin_status mln_memory_check(uint64_t bytes, const char *what, myelin_error *error);

#endif
