/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of loading: describes a checkpoint's weights to a plug-in as they are to be
 * stored, and copies them out of the files as it asks for them.
 */
#ifndef MLN_MODEL_LOADER_H
#define MLN_MODEL_LOADER_H

#include <pthread.h>
#include <stdbool.h>

#include "checkpoint/checkpoint.h"
#include "model/model.h"
#include "myelin/plugin.h"

typedef struct mln_loader {
    const mln_checkpoint *checkpoint;
    myelin_weights description;
    myelin_layer_weights *layers; /* owned */
    const mln_weight **sources;   /* owned: embed_tokens, norm, lm_head, then the layers' tensors */
    uint64_t total;               /* bytes as they will be stored */

    pthread_mutex_t lock; /* guards what follows */
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    uint64_t done;
    bool cancelled;
    myelin_error first_error; /* status MYELIN_OK while there is none */
} mln_loader;

/* What `weight` becomes in memory when dense tensors are cast to `dtype` (AUTO: as they are). */
myelin_tensor mln_cast_description(const mln_weight *weight, int32_t dtype);
/*
 * The configuration a plug-in is shown: the checkpoint's, with torch_dtype what the keys'
 * projection will be stored as (of an AFFINE one its scales') whatever config.json declares.
 */
myelin_config mln_stored_config(const mln_checkpoint *checkpoint, int32_t dtype);
/* Bytes of all parts of a tensor. */
uint64_t mln_tensor_bytes(const myelin_tensor *tensor);

myelin_status mln_loader_create(mln_loader **loader, const mln_checkpoint *checkpoint,
                                const mln_model_options *options, myelin_error *error);
void mln_loader_free(mln_loader *loader); /* accepts NULL */

/* myelin_host.read, but with the loader for `self`. */
myelin_status mln_loader_read(mln_loader *loader, const myelin_tensor *tensor,
                              myelin_tensor_part part, int64_t row, int64_t count, void *dst,
                              myelin_error_buffer *error);

#endif
