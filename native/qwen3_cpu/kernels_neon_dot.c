/* SPDX-License-Identifier: Apache-2.0 */
#define VEC_BYTES      16
#define VEC_NEON       1
#define KERNELS_NAME   mln_cpu_kernels_neon_dot
#define KERNELS_TEXT   "neon_dot"
#define KERNELS_TILE   2
#define KERNELS_QTILE  1
#define KERNELS_NARROW 0
#include "vec_wide.h"

#include "kernels.inc"
