/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A narrow copy of the LM head, by which the greedy head knows which rows it need not read.
 *
 * Each row w becomes w~ of 8-bit codes in groups, s q + b. The kernels' product of w~ with a
 * vector x is within c |x| of what they make of w itself (|.| being the Euclidean norm), where c is
 * the row's own and adds up, with u = 2^-24, K columns in G groups of g:
 *   |w - w~|                          Cauchy and Schwarz: |(w - w~) x| <= |w - w~| |x|
 *   |w~| 0.51 sqrt(g) / 32639         x is rounded to 16 bits: by 0.51 of a group's scale at most,
 *                                     which is the group's largest number, and so at most its norm,
 *                                     divided by 32639
 *   (2 G + 4) u |a|, a = s q + |b|    the narrow sum: three roundings of a group's terms, 2 G sums
 *   (K + 2) u |w|                     the exact one: a product and K sums
 *   4 u |w~|                          adding the bound to it and comparing
 * times 1.001 for what these leave out of second order. Sums that may overflow are made infinite
 * bounds by the length (mln_cpu_length), sums that underflow add MLN_CPU_TINY at most.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/available.h"
#include "base/checked.h"
#include "half.h"
#include "internal.h"
#include "myelin/tensor.h"

#define UNIT 0x1p-24

typedef struct shortlist_job {
    const myelin_plugin_model *model;
    mln_cpu_shortlist *list;
    _Atomic int failed; /* memory ran out */
} shortlist_job;

/* What a row's bound is made of: squares summed in double precision. */
typedef struct row_norms {
    double weight, residual, parts;
} row_norms;

/* Codes of one group of row `row` of a panel's group at `to`. */
static void narrow_group(unsigned char *to, const float *w, int32_t group, int64_t row,
                         row_norms *norms) {
    float low = w[0], high = w[0];
    for (int32_t i = 1; i < group; i++) {
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    uint16_t halves[2] = {float_to_half((high - low) / 255.0f), float_to_half(low)};
    double scale = (double)half_to_float(halves[0]), bias = (double)half_to_float(halves[1]);
    memcpy(to + 2 * row, &halves[0], 2);
    memcpy(to + 2 * MLN_CPU_PANEL + 2 * row, &halves[1], 2);
    to += 4 * MLN_CPU_PANEL + 64 * (row / 16) + 4 * (row % 16);
    for (int32_t i = 0; i < group; i++) {
        double x = (double)w[i], code = scale > 0 ? rint((x - bias) / scale) : 0;
        code = code > 0 ? (code < 255 ? code : 255) : 0; /* of NaN 0 */
        double off = x - (scale * code + bias), part = scale * code + fabs(bias);
        to[i / 4 * 128 + i % 4] = (unsigned char)code;
        norms->weight += x * x;
        norms->residual += off * off;
        norms->parts += part * part;
    }
}

/* c of the row, rounded up; infinite when its numbers are not finite. */
static float bound_of(const row_norms *norms, const mln_cpu_matrix *narrow) {
    double columns = (double)narrow->columns, group = narrow->group, groups = columns / group;
    double weight = sqrt(norms->weight), residual = sqrt(norms->residual);
    double bound = residual + (weight + residual) * (0.51 * sqrt(group) / 32639 + 4 * UNIT) +
                   (2 * groups + 4) * UNIT * sqrt(norms->parts) + (columns + 2) * UNIT * weight;
    bound *= 1.001;
    return bound < 1e30 ? nextafterf((float)bound, INFINITY) : INFINITY;
}

static void narrow_panel(void *context, int64_t panel) {
    shortlist_job *job = context;
    const mln_cpu_matrix *head = &job->model->lm_head, *narrow = &job->list->narrow;
    float *w = mln_alloc((size_t)head->columns, sizeof *w);
    if (!w) {
        atomic_store(&job->failed, 1);
        return;
    }
    unsigned char *to = narrow->data + panel * narrow->panel_bytes;
    int64_t groups = narrow->columns / narrow->group, group_bytes = narrow->panel_bytes / groups;
    for (int64_t r = 0; r < MLN_CPU_PANEL; r++) {
        int64_t row = panel * MLN_CPU_PANEL + r;
        row_norms norms = {0, 0, 0};
        job->list->bounds[row] = INFINITY; /* rows behind the last are no candidates for the best */
        if (row >= head->rows)
            continue;
        mln_cpu_matrix_row(w, head, row);
        for (int64_t g = 0; g < groups; g++)
            narrow_group(to + g * group_bytes, w + g * narrow->group, narrow->group, r, &norms);
        job->list->bounds[row] = bound_of(&norms, narrow);
        job->list->sizes[row] = (float)sqrt(fmax(norms.weight, norms.parts));
    }
    free(w);
}

/* The largest of the rows that have a bound. */
static void find_largest(mln_cpu_shortlist *list, int64_t rows) {
    for (int64_t row = 0; row < rows; row++)
        if (list->bounds[row] < INFINITY && list->sizes[row] > list->largest)
            list->largest = list->sizes[row];
}

myelin_status mln_cpu_make_shortlist(myelin_plugin_model *model, myelin_error *error) {
    const mln_cpu_matrix *head = &model->lm_head;
    mln_cpu_shortlist *list = &model->shortlist;
    int32_t group = head->columns % 128 == 0 ? 128 : head->columns % 64 == 0 ? 64 : 32;
    if (head->columns % group != 0 || head->kind == MLN_CPU_Q4 || head->kind == MLN_CPU_Q8)
        return MYELIN_OK; /* nothing would be saved */
    int64_t panel_bytes = (head->columns + head->columns / group * 4) * MLN_CPU_PANEL;
    uint64_t rows = (uint64_t)head->panels * MLN_CPU_PANEL, bytes;
    if (!mln_mul((uint64_t)head->panels, (uint64_t)panel_bytes, &bytes) ||
        !mln_add(bytes, rows * 2 * sizeof(float), &bytes))
        return mln_fail_memory(error, UINT64_MAX, "the shortlist");
    myelin_status status = mln_memory_check(bytes, "the shortlist", error);
    if (status == MYELIN_OK)
        status = mln_region_map(&list->region, bytes, "the shortlist", error);
    if (status != MYELIN_OK)
        return status;
    list->narrow = (mln_cpu_matrix){.kind = MLN_CPU_Q8,
                                    .group = group,
                                    .scale_dtype = MYELIN_DTYPE_F16,
                                    .rows = head->rows,
                                    .columns = head->columns,
                                    .panels = head->panels,
                                    .panel_bytes = panel_bytes,
                                    .data = list->region.base};
    mln_cpu_set_fetch(&list->narrow, model->kernels, false);
    list->bounds = (float *)(void *)(list->region.base + head->panels * panel_bytes);
    list->sizes = list->bounds + rows;
    shortlist_job job = {model, list, 0};
    model->host.parallel_for(model->host.self, head->panels, narrow_panel, &job);
    if (atomic_load(&job.failed))
        return mln_fail_memory(error, (uint64_t)head->columns * sizeof(float), "a row of weights");
    find_largest(list, head->rows);
    return MYELIN_OK;
}

float mln_cpu_length(const mln_cpu_shortlist *list, const float *x) {
    double squares = 0;
    for (int64_t i = 0; i < list->narrow.columns; i++)
        squares += (double)x[i] * (double)x[i];
    double length = sqrt(squares) * (1 + 1e-6);
    if (!(length < 1e30) || !(length * (double)list->largest < 1e36))
        return INFINITY;
    return length > 1e-25 ? nextafterf((float)length, INFINITY) : 1e-25f;
}
