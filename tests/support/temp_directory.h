/* SPDX-License-Identifier: Apache-2.0 */
/* Directories for tests, and files in them. Any failure here ends the test program. */
#ifndef TESTS_SUPPORT_TEMP_DIRECTORY_H
#define TESTS_SUPPORT_TEMP_DIRECTORY_H

#include <stddef.h>

/* A new empty directory; heap memory. */
char *temp_directory_make(void);
/* Removes it and everything in it, and frees the name; accepts NULL. */
void temp_directory_remove(char *directory);

/* directory/name; heap memory. */
char *temp_path(const char *directory, const char *name);
/* Writes directory/name, replacing what was there. */
void temp_write(const char *directory, const char *name, const void *data, size_t length);
/* Reads a whole file; heap memory with a NUL after the end; *length may be NULL. */
char *temp_read(const char *path, size_t *length);

#endif
