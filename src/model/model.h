/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint made ready to compute: the weight table of a Qwen3 model over the files, the
 * load-time cast, progress and cancelling, and the plug-in that holds the weights and runs them.
 */
#ifndef MLN_MODEL_MODEL_H
#define MLN_MODEL_MODEL_H

#include <stdbool.h>

#include "base/pool.h"
#include "checkpoint/checkpoint.h"
#include "myelin/plugin.h"

typedef struct mln_model_options {
    const myelin_plugin *plugin; /* which implementer */
    int32_t dtype;               /* load-time cast of dense tensors; AUTO: none */
    int32_t fusion;              /* a myelin_fusion */
    int32_t pack;                /* a myelin_pack */
    int32_t cache_type;          /* a myelin_cache_type */
    bool shortlist;              /* wanted, see myelin_model_options */
    int32_t activations;         /* a myelin_activations, wanted */
    int32_t tensor_parallel;     /* devices to spread the model over; 0 is 1 */
    int32_t threads;             /* at least 1 */
    /*
     * Called from any loading thread, one at a time, as bytes arrive; total is what will be stored.
     * Returns false to cancel. May be NULL.
     */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
} mln_model_options;

/* Immutable once open; any number of threads may share it. */
typedef struct mln_model {
    const mln_checkpoint *checkpoint; /* borrowed: outlives the model */
    myelin_config config;             /* mln_stored_config() of it, with the cache's type */
    const myelin_plugin *plugin;
    myelin_plugin_model *weights;
    mln_pool *pool;
    myelin_host host;
    int32_t fusion;            /* the rung in use: never AUTO */
    uint64_t weight_bytes;     /* stored, after the cast */
    struct mln_loader *loader; /* answers host.read() */
} mln_model;

/* Asks options->plugin whether it can run the checkpoint on this machine; loads nothing. */
myelin_status mln_model_probe(const mln_checkpoint *checkpoint, const mln_model_options *options,
                              myelin_error *error);

/*
 * What a call of a plug-in comes to, which is trusted with nothing: its text gets a NUL, a status
 * outside of myelin_status or success without the object it was to make (`made` is false) becomes
 * MYELIN_ERROR_INTERNAL with text saying so.
 */
myelin_status mln_plugin_result(myelin_status status, bool made, const char *call,
                                const myelin_error_buffer *buffer);

/* Loads the weights of an open checkpoint, which the plug-in has said it can run (probe). */
myelin_status mln_model_load(mln_model **model, const mln_checkpoint *checkpoint,
                             const mln_model_options *options, myelin_error *error);
void mln_model_free(mln_model *model); /* accepts NULL */

/* Bytes all weights take in memory when dense tensors are cast to `dtype` (AUTO: as they are). */
uint64_t mln_weight_bytes(const mln_checkpoint *checkpoint, int32_t dtype);

#endif
