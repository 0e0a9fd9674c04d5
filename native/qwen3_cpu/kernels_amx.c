/* SPDX-License-Identifier: Apache-2.0 */
#define KERNELS_NAME   mln_cpu_kernels_amx
#define KERNELS_TEXT   "amx"
#define KERNELS_TILE   12
#define KERNELS_QTILE  12
#define KERNELS_NARROW 0
#include "half.h"

#include "tile_amx.h"

#include "vec_avx512.h"

#include "kernels.inc"
