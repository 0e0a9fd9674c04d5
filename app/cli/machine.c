/* SPDX-License-Identifier: Apache-2.0 */
#include "machine.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "cli.h"

enum { PASSES = 6, MAX_THREADS = 256, ALIGNMENT = 2 << 20, LANES = 32, LINE_WORDS = 8 };
enum { WORDS_AHEAD = 512 }; /* a page: far enough to have left memory by then */
enum { WAIT, GO, LEAVE };

typedef struct reader {
    pthread_t thread;
    const uint64_t *words;
    size_t count;             /* a multiple of LANES */
    size_t ahead;             /* words; 0: nothing is fetched ahead */
    const atomic_int *signal; /* WAIT until all threads are there */
    double begun, ended;      /* seconds */
    uint64_t sum;             /* read after the join, so that the reads cannot be left out */
} reader;

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Independent lanes: the sums must not wait for one another. */
static uint64_t sum_of(const uint64_t *words, size_t count, size_t ahead) {
    uint64_t lanes[LANES] = {0}, sum = 0;
    for (size_t i = 0; i < count; i += LANES) {
        for (size_t k = 0; ahead > 0 && k < LANES; k += LINE_WORDS)
            __builtin_prefetch(words + i + k + ahead);
        for (size_t k = 0; k < LANES; k++)
            lanes[k] += words[i + k];
    }
    for (size_t k = 0; k < LANES; k++)
        sum += lanes[k];
    return sum;
}

static void *read_all(void *argument) {
    reader *r = argument;
    while (*r->signal == WAIT)
        sched_yield();
    if (*r->signal == LEAVE)
        return NULL;
    r->begun = seconds();
    r->sum = sum_of(r->words, r->count, r->ahead);
    r->ended = seconds();
    return NULL;
}

/* Seconds from the first reader's begin to the last one's end; negative when a thread is missing.
 */
static double one_pass(reader *readers, int32_t threads) {
    atomic_int signal = WAIT;
    int32_t started = 0;
    double begun = 0, ended = 0;
    while (started < threads) {
        readers[started].signal = &signal;
        if (pthread_create(&readers[started].thread, NULL, read_all, &readers[started]) != 0)
            break;
        started++;
    }
    signal = started == threads ? GO : LEAVE;
    for (int32_t i = 0; i < started; i++) {
        pthread_join(readers[i].thread, NULL);
        begun = i == 0 || readers[i].begun < begun ? readers[i].begun : begun;
        ended = readers[i].ended > ended ? readers[i].ended : ended;
    }
    return started == threads ? ended - begun : -1;
}

static double best_rate(uint64_t *words, size_t count, int32_t threads) {
    reader readers[MAX_THREADS];
    size_t share = count / (size_t)threads / LANES * LANES;
    double best = 0;
    for (int32_t i = 0; i < threads; i++)
        readers[i] = (reader){.words = words + (size_t)i * share, .count = share};
    for (int pass = 0; pass < PASSES; pass++) {
        for (int32_t i = 0; i < threads; i++)
            readers[i].ahead = pass % 2 == 0 ? 0 : WORDS_AHEAD;
        double taken = one_pass(readers, threads);
        double rate = (double)(share * (size_t)threads * sizeof *words) / taken;
        best = taken > 0 && rate > best ? rate : best;
    }
    return best;
}

double cli_machine_read_rate(int32_t threads, uint64_t bytes, cli_pages pages) {
    if (threads < 1 || threads > MAX_THREADS)
        return 0;
    size_t size = (size_t)bytes + ALIGNMENT;
    char *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        return 0;
    char *base = mapping + (ALIGNMENT - (uintptr_t)mapping % ALIGNMENT) % ALIGNMENT;
    madvise(base, (size_t)bytes, pages == CLI_PAGES_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    memset(base, 1, (size_t)bytes);
    double rate = best_rate((uint64_t *)(void *)base, (size_t)bytes / sizeof(uint64_t), threads);
    munmap(mapping, size);
    return rate;
}

/* The rest of the first line of a file that begins with `key`; NULL when there is none. */
static char *line_of(const char *path, const char *key) {
    char line[256];
    char *found = NULL;
    FILE *file = fopen(path, "re");
    while (file != NULL && found == NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        const char *value = line + strlen(key);
        value += strspn(value, " \t:");
        found = cli_format("%.*s", (int)strcspn(value, "\n"), value);
    }
    if (file != NULL)
        fclose(file);
    return found;
}

/* A line that gives kilobytes, in bytes. */
static uint64_t bytes_of(const char *path, const char *key) {
    char *text = line_of(path, key);
    uint64_t kilobytes = text != NULL ? strtoull(text, NULL, 10) : 0;
    free(text);
    return kilobytes * 1024;
}

uint64_t cli_machine_peak_bytes(void) {
    return bytes_of("/proc/self/status", "VmHWM");
}

uint64_t cli_machine_huge_bytes(void) {
    return bytes_of("/proc/self/smaps_rollup", "AnonHugePages");
}

char *cli_machine_processor(void) {
    char *name = line_of("/proc/cpuinfo", "model name");
    return name != NULL ? name : cli_format("%s", "");
}
