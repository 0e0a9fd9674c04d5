/* SPDX-License-Identifier: Apache-2.0 */
/* The native plug-in that is part of the library: this processor's. */
#ifndef MLN_NATIVE_H
#define MLN_NATIVE_H

#include <stdbool.h>

#include "myelin/plugin.h"

const myelin_plugin *mln_native_plugin(void);

/*
 * The same computing with one set of kernels ("portable", "avx2", ...), for tests; NULL when this
 * build or this processor has no such set.
 */
const myelin_plugin *mln_native_plugin_for(const char *set);

/* What the weights of a model of the plug-in are multiplied with. */
myelin_activations mln_native_activations(const myelin_plugin_model *model);

/* Products of a weight and an activation, and their sums, that this processor makes a second. */
typedef struct mln_native_rates {
    const char *kernels; /* the set that runs */
    double dense, codes; /* weights of 16 or 32 bits, codes of 4 or 8 */
    double bytes;        /* codes times activations of a byte; 0: not possible */
    double pieces[3]; /* bfloat16 weights times activations of one or two bfloat16 numbers; 0: not
                         possible */
} mln_native_rates;

/* Measures them with `threads` threads, in about 100 ms. */
myelin_status mln_native_peak(int32_t threads, mln_native_rates *rates, myelin_error *error);

#endif
