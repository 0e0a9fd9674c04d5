/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of filters. */
#ifndef MLN_TEXT_TEMPLATE_FILTERS_H
#define MLN_TEXT_TEMPLATE_FILTERS_H

#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "text/template_run.h"

enum { MLN_FILTER_PARAMETERS = 4 };

typedef struct mln_filter {
    const char *name, *parameters;
    size_t required;
    bool (*body)(mln_run *run, mln_value v, const mln_value *args, mln_value *out);
} mln_filter;

const mln_filter *mln_sequence_filter(int i); /* NULL at the end of the table */

/* map, select, reject, selectattr, rejectattr: the filters whose body is NULL. */
bool mln_call_mapping(mln_run *run, const char *name, mln_value value, const mln_arguments *args,
                      mln_value *out);

#endif
