/* SPDX-License-Identifier: Apache-2.0 */
/* NVIDIA's NCCL, opened when it is wanted: nothing of it is needed to build or to use one device.
 */
#include <dlfcn.h>
#include <string.h>

#include "internal.h"

static const char library_name[] = "libnccl.so.2";

static myelin_status find_function(void *library, const char *name, void *to,
                                   myelin_error_buffer *error) {
    void *symbol = dlsym(library, name);
    if (!symbol)
        return mln_cuda_fail(error, MYELIN_ERROR_UNSUPPORTED, "%s has no function %s", library_name,
                             name);
    memcpy(to, &symbol, sizeof symbol); /* C has no cast between the two kinds of pointer */
    return MYELIN_OK;
}

myelin_status mln_nccl_open(mln_nccl *nccl, myelin_error_buffer *error) {
    *nccl = (mln_nccl){0};
    void *library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) {
        const char *reason = dlerror();
        return mln_cuda_fail(error, MYELIN_ERROR_UNSUPPORTED,
                             "several devices need NVIDIA's NCCL: %s",
                             reason ? reason : library_name);
    }
    const struct {
        const char *name;
        void *to;
    } functions[] = {{"ncclCommInitAll", &nccl->init_all},
                     {"ncclCommAbort", &nccl->abort},
                     {"ncclCommDestroy", &nccl->destroy},
                     {"ncclAllGather", &nccl->all_gather},
                     {"ncclGetErrorString", &nccl->error_string}};
    myelin_status status = MYELIN_OK;
    for (size_t i = 0; i < sizeof functions / sizeof *functions && status == MYELIN_OK; i++)
        status = find_function(library, functions[i].name, functions[i].to, error);
    return status;
}
