/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What connects the devices of a model that is spread over several: NCCL, opened only then, and the
 * two places of a forward pass where devices need what others have.
 *
 * A sum of parts is always made the same way: all parts go everywhere and are added in the order of
 * the ranks. What it gives depends on the number of devices, not on the number of tokens, on what
 * NCCL chooses, or on whether the parts went through NCCL: those of few tokens go straight to the
 * other devices' memory where that can be.
 */
#ifndef MLN_CUDA_LINK_H
#define MLN_CUDA_LINK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

#include "cuda_kernels.h"
#include "myelin/plugin.h"

/* The functions of libnccl.so.2 that are used; results are ncclResult_t, 0 for success. */
typedef struct mln_nccl {
    int (*init_all)(void **comms, int count, const int *devices);
    int (*abort)(void *comm);
    int (*destroy)(void *comm);
    int (*all_gather)(const void *send, void *receive, size_t count, int type, void *comm,
                      cudaStream_t stream);
    const char *(*error_string)(int result);
} mln_nccl;

/* A rank's end of the connection. Used by the thread of the rank alone, but for what is shared. */
typedef struct mln_cuda_link {
    const mln_nccl *nccl;
    void *comm; /* NULL: given up */
    int result; /* of the first call of NCCL that failed */
    int32_t rank, ranks;
    _Atomic int32_t *lost;     /* 1 + the rank that failed first while others may wait for it */
    _Atomic uint64_t *arrived; /* ranks at meetings, all counted */
    _Atomic uint64_t *without; /* [2] the last meetings, odd and even, to which one had no memory */
    bool direct;               /* all devices may write to each other's memory */
    _Atomic int32_t *stop;     /* pinned, of all: not 0 when no device need wait for words any
                                  more, or one has waited in vain */
    uint64_t meetings;
    /* Once given up: */
    void *aborted; /* the former comm */
    bool aborting; /* by this thread */
    pthread_t thread;
    bool stuck; /* the device did not end even so: its memory is left to the process's end */
} mln_cuda_link;

/* nccl.c: opens the library where the dynamic linker finds it; it is never closed. */
myelin_status mln_nccl_open(mln_nccl *nccl, myelin_error_buffer *error);

/* values[ranks][count] from each rank's own values[rank][count], bytes or floats. */
cudaError_t mln_cuda_gather_bytes(mln_cuda_link *link, void *values, size_t count,
                                  cudaStream_t stream);
cudaError_t mln_cuda_gather_floats(mln_cuda_link *link, float *values, size_t count,
                                   cudaStream_t stream);

/*
 * Waits for the stream, or with `mark` for what was in it when that was recorded, but not for ranks
 * that are lost: then gives up the connection.
 */
cudaError_t mln_cuda_link_wait(mln_cuda_link *link, cudaStream_t stream, cudaEvent_t mark);
/* Gives up the connection and waits, for some seconds at most, until the device is done. */
cudaError_t mln_cuda_link_drain(mln_cuda_link *link, cudaStream_t stream);
/* Sets `direct` as far as this device is concerned. */
void mln_cuda_link_open_peers(mln_cuda_link *link);

/* A context's memory for exchanges with other devices. */
typedef struct mln_cuda_direct {
    unsigned char *memory;
    int64_t room;                      /* floats of an exchange; 0: there are none */
    uint64_t *inboxes[MLN_CUDA_PEERS]; /* of all ranks, which the host has put together */
    uint32_t *state;
} mln_cuda_direct;

/* Room for so many floats, where devices may write to each other's memory. */
cudaError_t mln_cuda_direct_allocate(const mln_cuda_link *link, mln_cuda_direct *direct,
                                     int64_t room);

/*
 * Returns when the threads of all ranks have come here, each with success or without memory:
 * without if one was. Another error when one never comes.
 */
cudaError_t mln_cuda_link_meet(mln_cuda_link *link, cudaError_t code);
/* This rank has failed: nobody may wait for it any more, and no device waits for words. */
void mln_cuda_link_lose(mln_cuda_link *link);
/* Ends what waits for other ranks. */
void mln_cuda_link_give_up(mln_cuda_link *link);
/* When all contexts are freed. */
void mln_cuda_link_close(mln_cuda_link *link);

#endif
