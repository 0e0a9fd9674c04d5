/* SPDX-License-Identifier: Apache-2.0 */
/* The native plug-in that is part of the library: this processor's. */
#ifndef MLN_NATIVE_H
#define MLN_NATIVE_H

#include "myelin/plugin.h"

const myelin_plugin *mln_native_plugin(void);

/*
 * The same computing with one set of kernels ("portable", "avx2", ...), for tests; NULL when this
 * build or this processor has no such set.
 */
const myelin_plugin *mln_native_plugin_for(const char *set);

#endif
