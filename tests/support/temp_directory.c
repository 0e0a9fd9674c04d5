/* SPDX-License-Identifier: Apache-2.0 */
#include "support/temp_directory.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void require(int condition, const char *what, const char *path) {
    if (condition)
        return;
    fprintf(stderr, "test support: cannot %s %s\n", what, path);
    exit(1);
}

char *temp_directory_make(void) {
    const char *parent = getenv("TMPDIR");
    char *path = temp_path(parent && *parent ? parent : "/tmp", "myelin-test-XXXXXX");
    require(mkdtemp(path) != NULL, "make", path);
    return path;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place) {
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

void temp_directory_remove(char *directory) {
    if (!directory)
        return;
    require(nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, "remove", directory);
    free(directory);
}

char *temp_path(const char *directory, const char *name) {
    size_t size = strlen(directory) + strlen(name) + 2;
    char *path = malloc(size);
    require(path != NULL, "name", name);
    snprintf(path, size, "%s/%s", directory, name);
    return path;
}

void temp_write(const char *directory, const char *name, const void *data, size_t length) {
    char *path = temp_path(directory, name);
    FILE *file = fopen(path, "wb");
    require(file != NULL, "create", path);
    require(fwrite(data, 1, length, file) == length && fclose(file) == 0, "write", path);
    free(path);
}

char *temp_read(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    require(file != NULL, "open", path);
    require(fseek(file, 0, SEEK_END) == 0, "seek in", path);
    long size = ftell(file);
    require(size >= 0, "measure", path);
    rewind(file);
    char *text = malloc((size_t)size + 1);
    require(text != NULL && fread(text, 1, (size_t)size, file) == (size_t)size, "read", path);
    text[size] = '\0';
    fclose(file);
    if (length)
        *length = (size_t)size;
    return text;
}
