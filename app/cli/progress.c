/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
    SHOWN_AFTER_MS = 1000,
    REDRAWN_AFTER_MS = 100,
    DEFAULT_WIDTH = 80,
    MAX_BAR = 40,
    AROUND_BAR = 8 /* " [", "] 100%" and one column kept free */
};

int64_t cli_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void cli_progress_begin_on(cli_progress *progress, const char *label, FILE *out, int width,
                           int64_t now) {
    *progress = (cli_progress){.out = out, .label = label, .begun = now, .width = width};
}

void cli_progress_begin(cli_progress *progress, const char *label, bool quiet) {
    struct winsize size = {0};
    const char *terminal = getenv("TERM");
    bool able =
        !quiet && isatty(STDERR_FILENO) && terminal != NULL && strcmp(terminal, "dumb") != 0;
    if (!able || ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        size.ws_col = DEFAULT_WIDTH;
    cli_progress_begin_on(progress, label, able ? stderr : NULL, size.ws_col, cli_now());
}

void cli_progress_update(cli_progress *progress, int64_t now, uint64_t done, uint64_t total) {
    char bar[MAX_BAR + 1];
    if (progress->out == NULL || now - progress->begun < SHOWN_AFTER_MS || total == 0)
        return;
    if (progress->drawn != 0 && now - progress->drawn < REDRAWN_AFTER_MS)
        return;
    if (done > total)
        done = total;
    double share = (double)done / (double)total;
    int room = progress->width - (int)strlen(progress->label) - AROUND_BAR;
    int length = room < MAX_BAR ? room : MAX_BAR;
    if (length < 1)
        return;
    int full = (int)(share * length);
    memset(bar, '.', (size_t)length);
    memset(bar, '#', (size_t)full);
    bar[length] = '\0';
    fprintf(progress->out, "\r%s [%s] %3d%%", progress->label, bar, (int)(share * 100));
    fflush(progress->out);
    progress->drawn = now;
}

void cli_progress_hide(cli_progress *progress) {
    if (progress->out == NULL || progress->drawn == 0)
        return;
    fputs("\r\033[K", progress->out);
    fflush(progress->out);
    progress->drawn = 0;
}
