/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine itself can do: the limits that speeds are held against. */
#ifndef CLI_MACHINE_H
#define CLI_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum cli_pages { CLI_PAGES_SMALL, CLI_PAGES_HUGE } cli_pages;

/*
 * Bytes a second that `threads` threads read from memory together, each streaming through a part of
 * its own of `bytes` in all: the best of a few passes. 0 when there is no memory for it.
 */
double cli_machine_read_rate(int32_t threads, uint64_t bytes, cli_pages pages);

/* Most bytes this process has held at once (VmHWM); 0 when the system does not say. */
uint64_t cli_machine_peak_bytes(void);

/* Bytes of this process that lie in huge pages; 0 also when the system does not say. */
uint64_t cli_machine_huge_bytes(void);

/* "AMD EPYC ..." as the system names the processor; "" when it does not. Released with free(). */
char *cli_machine_processor(void);

#endif
