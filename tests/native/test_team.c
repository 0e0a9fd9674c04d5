/* SPDX-License-Identifier: Apache-2.0 */
/* That members of a team are handed every piece of a phase once, whoever is slow, and who runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "native/qwen3_cpu/team.h"

enum { MOST_PIECES = 1000, PHASES = 3 };

/* Phases of so many pieces, claimed `most` at a time. */
typedef struct phases {
    int64_t total, most;
    int32_t slow; /* this member dawdles over its first share */
    _Atomic int32_t given[PHASES][MOST_PIECES];
    _Atomic int64_t of_slow; /* pieces that it was given in all */
    _Atomic bool stray;      /* a share outside the phase, or of too many or none */
} phases;

static void dawdle(void) {
    nanosleep(&(struct timespec){0, 20 * 1000 * 1000}, NULL);
}

static void claim_all(mln_member *member, void *context) {
    phases *p = context;
    for (int phase = 0; phase < PHASES; phase++) {
        mln_share share;
        while (mln_claim(member, p->total, p->most, &share)) {
            int64_t size = share.end - share.begin;
            if (share.begin < 0 || share.end > p->total || size < 1 || size > p->most) {
                p->stray = true;
                break;
            }
            for (int64_t i = share.begin; i < share.end; i++)
                p->given[phase][i]++;
            if (member->index == p->slow) {
                p->of_slow += size;
                dawdle();
            }
        }
        mln_barrier(member);
    }
}

static void run_phases(int32_t threads, int64_t total, int64_t most, int32_t slow, phases *p) {
    mln_team *team;
    assert_int_equal(mln_team_create(&team, threads, NULL), MYELIN_OK);
    memset(p, 0, sizeof *p);
    p->total = total;
    p->most = most;
    p->slow = slow;
    mln_team_run(team, true, claim_all, p);
    mln_team_free(team);
    assert_false(p->stray);
    for (int phase = 0; phase < PHASES; phase++)
        for (int64_t i = 0; i < MOST_PIECES; i++)
            assert_int_equal(p->given[phase][i], i < total);
}

static void every_piece_is_given_once(void **state) {
    static phases p;
    const int32_t threads[] = {1, 2, 3, 7, 16};
    const int64_t totals[] = {0, 1, 2, 5, 63, MOST_PIECES}, most[] = {1, 4, MOST_PIECES};
    (void)state;
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++)
        for (size_t n = 0; n < sizeof totals / sizeof *totals; n++)
            for (size_t m = 0; m < sizeof most / sizeof *most; m++)
                run_phases(threads[t], totals[n], most[m], -1, &p);
}

/* Who is slow keeps nobody waiting for more than a share: the others take the rest of its range. */
static void others_take_what_a_slow_member_leaves(void **state) {
    static phases p;
    (void)state;
    for (int32_t slow = 0; slow < 2; slow++) {
        run_phases(2, MOST_PIECES, 4, slow, &p);
        assert_in_range(p.of_slow, 0, PHASES * MOST_PIECES / 4);
    }
}

typedef struct first_shares {
    int64_t total, most;
    _Atomic int32_t wrong;
} first_shares;

static void compare_first(mln_member *member, void *context) {
    first_shares *f = context;
    mln_share expected = mln_first_share(member, f->total, f->most), share = {0};
    bool some = mln_claim(member, f->total, f->most, &share);
    if (!some || share.begin != expected.begin || share.end != expected.end)
        f->wrong++;
}

/* A lone member reads one share behind the other, from the first on. */
static void the_first_share_is_foretold(void **state) {
    first_shares f = {.total = 100, .most = 7};
    mln_team *team;
    (void)state;
    assert_int_equal(mln_team_create(&team, 1, NULL), MYELIN_OK);
    mln_team_run(team, true, compare_first, &f);
    mln_team_free(team);
    assert_int_equal(f.wrong, 0);
}

enum { STALL_MS = 200 };

static void sleep_ms(int64_t ms) {
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000 * 1000}, NULL);
}

/* The caller waits for the other member, if there is one. */
static void stall(mln_member *member, void *size) {
    if (member->index == 0)
        *(int32_t *)size = member->size;
    else
        sleep_ms(STALL_MS);
    mln_barrier(member);
}

/* Who keeps a short run waiting is left out for four times as long as it took, but in long runs. */
static void a_stall_is_followed_by_a_while_alone(void **state) {
    mln_team *team;
    int32_t size = 0;
    (void)state;
    assert_int_equal(mln_team_create(&team, 2, NULL), MYELIN_OK);
    mln_team_run(team, true, stall, &size); /* is not judged */
    mln_team_run(team, false, stall, &size);
    assert_int_equal(size, 2);
    mln_team_run(team, false, stall, &size);
    assert_int_equal(size, 1);
    mln_team_run(team, true, stall, &size);
    assert_int_equal(size, 2);
    sleep_ms(5 * STALL_MS);
    mln_team_run(team, false, stall, &size);
    assert_int_equal(size, 2);
    mln_team_free(team);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_stall_is_followed_by_a_while_alone),
                                       cmocka_unit_test(every_piece_is_given_once),
                                       cmocka_unit_test(others_take_what_a_slow_member_leaves),
                                       cmocka_unit_test(the_first_share_is_foretold)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
