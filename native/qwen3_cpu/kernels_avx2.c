/* SPDX-License-Identifier: Apache-2.0 */
#define VEC_BYTES      32
#define KERNELS_NAME   mln_cpu_kernels_avx2
#define KERNELS_TEXT   "avx2"
#define KERNELS_TILE   2
#define KERNELS_QTILE  2
#define KERNELS_NARROW 5
#include "vec_wide.h"

#include "kernels.inc"
