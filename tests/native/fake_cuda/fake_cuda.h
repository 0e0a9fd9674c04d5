/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device in host memory on which nothing is computed: every token is (position + 1) % FAKE_IDS.
 * One of its calls can be told to fail, alone or with all after it. Several devices are as many
 * threads; NCCL sends whatever is expected of it. What a device was given is done when the others
 * have come to what they do together, or it is told not to wait; calls that wait for a device, or
 * for room in its queue, wait here, too, and after some time end the process.
 */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stdbool.h>
#include <stdint.h>

#include "cuda_runtime_api.h"

enum { FAKE_IDS = 7, FAKE_DEVICES = 4 };

typedef struct fake_device {
    uint64_t calls;     /* so far; asking for the last error and freeing are not counted */
    uint64_t failing;   /* the number of the call that fails; 0: none, */
    const char *only;   /* of those with this name; NULL: of all */
    cudaError_t code;   /* how */
    bool for_good;      /* and all calls after it, */
    bool alone;         /* but only those of the thread's device */
    const char *failed; /* the call that did, or NULL, */
    int broken;         /* and the device */
    int devices;
    uint64_t queue;   /* things that devices do together which one may have before it */
    size_t available; /* bytes of memory */
    bool stays;       /* one sequence is decoded by the kernel that stays for a chunk, */
    bool silent;      /* a block of which is never heard of */
    bool stuck;       /* what a device was given never ends once a call has failed */
    int graphs;       /* that were made */
    int64_t live;     /* allocations, streams, events, graphs and links that are not freed yet */
} fake_device;

extern fake_device fake;
extern bool fake_full; /* weights that are packed have more escapes than there is room for */

void fake_reset(void);

#endif
