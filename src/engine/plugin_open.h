/* SPDX-License-Identifier: Apache-2.0 */
/* Which plug-in runs a checkpoint, and opening those that are shared objects. */
#ifndef MLN_ENGINE_PLUGIN_OPEN_H
#define MLN_ENGINE_PLUGIN_OPEN_H

#include "checkpoint/checkpoint.h"
#include "myelin/myelin.h"
#include "myelin/plugin.h"

typedef struct mln_plugin_choice {
    const myelin_plugin *plugin;
    void *library; /* of dlopen(), or NULL for a built-in one */
} mln_plugin_choice;

/* Opens a shared object and checks its table; the message says which check failed. */
myelin_status mln_plugin_open(mln_plugin_choice *choice, const char *path, myelin_error *error);
/* Closes what was opened; no function of the plug-in may be called afterwards. */
void mln_plugin_close(mln_plugin_choice *choice);

/*
 * The plug-in for resolved options: the one at options->plugin, else the device's. Asked of it:
 * its probe() and whether it has the rung.
 */
myelin_status mln_plugin_choose(mln_plugin_choice *choice, const mln_checkpoint *checkpoint,
                                const myelin_model_options *options, myelin_error *error);

#endif
