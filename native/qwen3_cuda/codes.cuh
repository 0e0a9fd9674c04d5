/* SPDX-License-Identifier: Apache-2.0 */
/* From the code of a matrix's tiles to the kernels compiled for it. */
#ifndef MLN_CUDA_CODES_CUH
#define MLN_CUDA_CODES_CUH

#include "cuda_kernels.h"
#include "tiles.h"

template <template <int> class Kernels>
cudaError_t run_by_code(const mln_cuda_linear &p, cudaStream_t stream) {
    switch (p.weight.tile_code) {
    case MLN_TILE_DENSE:
        return Kernels<MLN_TILE_DENSE>::run(p, stream);
    case MLN_TILE_PACKED:
        return Kernels<MLN_TILE_PACKED>::run(p, stream);
    case MLN_TILE_Q8:
        return Kernels<MLN_TILE_Q8>::run(p, stream);
    case MLN_TILE_Q8_PAIR:
        return Kernels<MLN_TILE_Q8_PAIR>::run(p, stream);
    case MLN_TILE_Q4:
        return Kernels<MLN_TILE_Q4>::run(p, stream);
    default:
        return Kernels<MLN_TILE_Q4_PAIR>::run(p, stream);
    }
}

template <template <int> class Kernels> cudaError_t prepare_codes() {
    cudaError_t (*const all[])() = {
        Kernels<MLN_TILE_DENSE>::prepare, Kernels<MLN_TILE_PACKED>::prepare,
        Kernels<MLN_TILE_Q8>::prepare,    Kernels<MLN_TILE_Q8_PAIR>::prepare,
        Kernels<MLN_TILE_Q4>::prepare,    Kernels<MLN_TILE_Q4_PAIR>::prepare};
    cudaError_t error = cudaSuccess;
    for (auto prepare : all)
        if (error == cudaSuccess)
            error = prepare();
    return error;
}

#endif
