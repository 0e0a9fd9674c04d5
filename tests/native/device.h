/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An NVIDIA device beside the plug-in that uses it: its memory taken away, a kernel that fails. By
 * the driver's own library, so that it can be built without CUDA; the context is the one that the
 * plug-in has.
 */
#ifndef TESTS_NATIVE_DEVICE_H
#define TESTS_NATIVE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The device of all calls from now on; makes ready what they need, since loading a kernel may wait
 * for those that run. False when there is no driver or no such device.
 */
bool device_open(int index);
/* Takes memory until at most `bytes` are free; what is free then. */
size_t device_exhaust(size_t bytes);
void device_relieve(void);
/* A kernel writes where there is no memory: the context is of no use any more. */
void device_break(void);

#endif
