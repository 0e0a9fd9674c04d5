/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* Written by the handler, so there is no other place for them than here. */
static atomic_int interrupted;
static volatile sig_atomic_t deferred;

static void on_interrupt(int number) {
    (void)number;
    if (interrupted || deferred == 0)
        _exit(CLI_INTERRUPTED);
    interrupted = 1;
}

void cli_interrupts_init(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    /* Left ignored when it was, as in a background job of a shell without job control. */
    struct sigaction before;
    if (sigaction(SIGINT, NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
        action.sa_handler = on_interrupt;
        action.sa_flags = SA_RESTART;
        sigaction(SIGINT, &action, NULL);
    }
    /* A reader that went away is seen as a failed write. */
    action.sa_handler = SIG_IGN;
    action.sa_flags = 0;
    sigaction(SIGPIPE, &action, NULL);
}

void cli_interrupts_defer(void) {
    deferred = deferred + 1;
}

void cli_interrupts_allow(void) {
    deferred = deferred - 1;
    if (deferred == 0 && interrupted)
        _exit(CLI_INTERRUPTED);
}

void cli_interrupts_clear(void) {
    interrupted = 0;
}

void cli_interrupts_note(void) {
    interrupted = 1;
}

bool cli_interrupted(void) {
    return interrupted != 0;
}
