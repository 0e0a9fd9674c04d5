/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fails, in words. Running out of memory and wrong arguments leave the device usable; after
 * anything that happened on the device itself every CUDA call of the process returns that error,
 * which is how it is told apart.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"

myelin_status mln_cuda_fail(myelin_error_buffer *error, myelin_status status, const char *format,
                            ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, error->size, format, arguments);
    va_end(arguments);
    return status;
}

myelin_status mln_cuda_fail_argument(myelin_error_buffer *error, const char *what, int64_t least,
                                     int64_t most, int64_t found) {
    return mln_cuda_fail(error, MYELIN_ERROR_ARGUMENT,
                         "%s must be %" PRId64 " to %" PRId64 ", found %" PRId64, what, least, most,
                         found);
}

/* Forgets the last error; false when the device has not. */
static bool recovers(void) {
    cudaGetLastError();
    cudaError_t code = cudaStreamQuery(NULL);
    cudaGetLastError();
    return code == cudaSuccess || code == cudaErrorNotReady;
}

myelin_status mln_cuda_check(cudaError_t code, const char *call, myelin_error_buffer *error) {
    if (code == cudaSuccess)
        return MYELIN_OK;
    const char *text = cudaGetErrorString(code), *name = cudaGetErrorName(code);
    if (!recovers())
        return mln_cuda_fail(error, MYELIN_ERROR_DEVICE, "%s: %s (%s); the device cannot go on",
                             call, text, name);
    return mln_cuda_fail(
        error, code == cudaErrorMemoryAllocation ? MYELIN_ERROR_MEMORY : MYELIN_ERROR_INTERNAL,
        "%s: %s (%s)", call, text, name);
}

void mln_cuda_give_up(const myelin_plugin_model *model, cudaError_t code) {
    int none = 0;
    /* The weights are immutable; this is no part of what const promises. */
    atomic_compare_exchange_strong((atomic_int *)&model->fault, &none, (int)code);
}

myelin_status mln_cuda_failed(const myelin_plugin_model *model, cudaError_t code, const char *call,
                              myelin_error_buffer *error) {
    myelin_status status = mln_cuda_check(code, call, error);
    if (status == MYELIN_ERROR_DEVICE)
        mln_cuda_give_up(model, code);
    return status;
}

myelin_status mln_cuda_allocated(const myelin_plugin_model *model, cudaError_t code, uint64_t bytes,
                                 const char *what, myelin_error_buffer *error) {
    myelin_status status = mln_cuda_failed(model, code, what, error);
    size_t available = 0, total = 0;
    if (status != MYELIN_ERROR_MEMORY || cudaMemGetInfo(&available, &total) != cudaSuccess)
        return status;
    return mln_cuda_fail(error, status,
                         "%s needs %.3f GB of device memory, found %.3f GB free of %.3f GB", what,
                         (double)bytes / 1e9, (double)available / 1e9, (double)total / 1e9);
}

bool mln_cuda_is_lost(const myelin_plugin_model *model) {
    return atomic_load((atomic_int *)&model->fault) != cudaSuccess;
}

myelin_status mln_cuda_alive(const myelin_plugin_model *model, myelin_error_buffer *error) {
    cudaError_t code = (cudaError_t)atomic_load((atomic_int *)&model->fault);
    if (code == cudaSuccess)
        return MYELIN_OK;
    return mln_cuda_fail(error, MYELIN_ERROR_DEVICE,
                         "an earlier call has failed: %s (%s); the device cannot go on",
                         cudaGetErrorString(code), cudaGetErrorName(code));
}
