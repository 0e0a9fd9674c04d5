/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composed plug-in with chunked decoding, greedy and sampled. Its draws sort all candidates and
 * go down the list: what samplers that select are held against.
 */
#ifndef TESTS_SUPPORT_DRAWING_PLUGIN_H
#define TESTS_SUPPORT_DRAWING_PLUGIN_H

#include "myelin/plugin.h"

/* For models of so many tokens; one at a time. */
const myelin_plugin *drawing_plugin(int32_t vocab_size);

/* Calls of decode_sample() since drawing_plugin(), and the most steps of one. */
typedef struct drawing_calls {
    int count, longest;
} drawing_calls;

drawing_calls drawing_plugin_calls(void);

#endif
