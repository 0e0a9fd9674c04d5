/* SPDX-License-Identifier: Apache-2.0 */
#define KERNELS_NAME   mln_cpu_kernels_avx512_bf16
#define KERNELS_TEXT   "avx512_bf16"
#define KERNELS_TILE   12
#define KERNELS_QTILE  12
#define KERNELS_NARROW 0
#include "vec_avx512.h"

#include "kernels.inc"
