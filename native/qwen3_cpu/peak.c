/* SPDX-License-Identifier: Apache-2.0 */
/* How many products and sums a second the kernels could make if nothing else held them up. */
#include "base/clock.h"
#include "internal.h"
#include "native/native.h"

enum { PASSES = 40, ROUNDS = 20000 };

typedef struct spin {
    double (*function)(float *sink, int64_t rounds);
    double (*of_parts)(float *sink, int64_t rounds, int32_t parts); /* if not NULL, instead */
    int32_t parts;        /* that activations are cut in */
    _Atomic int64_t rate; /* of all members */
} spin;

/* The best of many short passes: other programs take time from some, nothing gives time to any. */
static void spin_member(mln_member *member, void *context) {
    spin *s = context;
    float sink[MLN_CPU_PANEL] = {0};
    double best = 0;
    (void)member;
    for (int pass = 0; pass < PASSES; pass++) {
        int64_t begun = mln_clock_ns();
        double products =
            s->of_parts ? s->of_parts(sink, ROUNDS, s->parts) : s->function(sink, ROUNDS);
        double taken = mln_ms_between(begun, mln_clock_ns());
        double rate = taken > 0 ? products * 1000 / taken : 0;
        best = rate > best ? rate : best;
    }
    atomic_fetch_add(&s->rate, (int64_t)best);
}

static double rate_of(mln_team *team, spin s) {
    mln_team_run(team, true, spin_member, &s);
    return (double)atomic_load(&s.rate);
}

myelin_status mln_native_peak(int32_t threads, mln_native_rates *rates, myelin_error *error) {
    mln_team *team;
    myelin_status status = mln_team_create(&team, threads, error);
    if (status != MYELIN_OK)
        return status;
    const mln_cpu_kernels *kernels = mln_cpu_choose(NULL);
    *rates = (mln_native_rates){.kernels = kernels->name};
    rates->dense = rate_of(team, (spin){.function = kernels->spin_dense});
    rates->codes = rate_of(team, (spin){.of_parts = kernels->spin_codes, .parts = 2});
    if (kernels->least_bytes == 1)
        rates->bytes = rate_of(team, (spin){.of_parts = kernels->spin_codes, .parts = 1});
    for (int32_t i = 1; i <= kernels->most_pieces; i++)
        rates->pieces[i] = rate_of(team, (spin){.of_parts = kernels->spin_pieces, .parts = i});
    mln_team_free(team);
    return MYELIN_OK;
}
