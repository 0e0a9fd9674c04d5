/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composed forward pass: the operations of tensor/ops.h one after the other, as a plug-in. The
 * first implementer of plugin.h, and the oracle that every native one is compared with.
 */
#ifndef MLN_MODEL_COMPOSED_H
#define MLN_MODEL_COMPOSED_H

#include "myelin/plugin.h"

const myelin_plugin *mln_composed_plugin(void);

#endif
