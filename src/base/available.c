/* SPDX-License-Identifier: Apache-2.0 */
#include "base/available.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

enum { MAX_TEXT = 8192 }; /* bytes read of a file; /proc/meminfo has some 1,500 */

/* The beginning of a file as a string; false when it cannot be read. Files of /proc have no size.
 */
static bool read_text(char text[MAX_TEXT], const char *root, const char *path) {
    char name[PATH_MAX];
    int n = snprintf(name, sizeof name, "%s%s", root, path);
    if (n < 0 || (size_t)n >= sizeof name)
        return false;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t length = 0;
    while (length < MAX_TEXT - 1) {
        ssize_t got = read(fd, text + length, MAX_TEXT - 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    close(fd);
    text[length] = '\0';
    return length > 0;
}

/* The digits at `from`, times `unit`; false when there are none or too many. */
static bool read_number(const char *from, uint64_t unit, uint64_t *out) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(from, &end, 10);
    if (end == from || *from == '-' || errno == ERANGE || value > UINT64_MAX / unit)
        return false;
    *out = value * unit;
    return true;
}

/* A line of /proc/meminfo: "MemAvailable:   12345 kB" */
static bool read_line(const char *text, const char *key, uint64_t *bytes) {
    const char *line = strstr(text, key);
    if (!line)
        return false;
    line += strlen(key);
    return read_number(line + strspn(line, " \t"), 1024, bytes);
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* What a file of one number allows; "max" and what cannot be read are no limit. */
static uint64_t limit_of(const char *root, const char *path) {
    char text[MAX_TEXT];
    uint64_t bytes;
    return read_text(text, root, path) && read_number(text, 1, &bytes) ? bytes : UINT64_MAX;
}

/* The process's own control group (version 2, whose line is "0::/path") and the outermost visible.
 */
static uint64_t group_limit(const char *root) {
    char text[MAX_TEXT], path[PATH_MAX];
    uint64_t limit = least(limit_of(root, "/sys/fs/cgroup/memory.max"),
                           limit_of(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    if (!read_text(text, root, "/proc/self/cgroup"))
        return limit;
    const char *line = strncmp(text, "0::/", 4) == 0 ? text : strstr(text, "\n0::/");
    if (!line)
        return limit;
    line = strchr(line, '/');
    int n = snprintf(path, sizeof path, "/sys/fs/cgroup%.*s/memory.max", (int)strcspn(line, "\n"),
                     line);
    return n > 0 && (size_t)n < sizeof path ? least(limit, limit_of(root, path)) : limit;
}

uint64_t mln_memory_available(const char *root) {
    char text[MAX_TEXT];
    uint64_t available = UINT64_MAX, swap = 0;
    if (read_text(text, root, "/proc/meminfo") && read_line(text, "MemAvailable:", &available) &&
        read_line(text, "SwapFree:", &swap))
        available = swap < UINT64_MAX - available ? available + swap : UINT64_MAX;
    return least(available, group_limit(root));
}

myelin_status mln_memory_check(uint64_t bytes, const char *what, myelin_error *error) {
    uint64_t available = mln_memory_available("");
    if (bytes <= available)
        return MYELIN_OK;
    return mln_fail(error, MYELIN_ERROR_MEMORY, NULL, -1,
                    "%s need %" PRIu64 " bytes of memory, and %" PRIu64 " are available", what,
                    bytes, available);
}
