/* SPDX-License-Identifier: Apache-2.0 */
#include "model_path.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

enum { MAX_HUB_NAME = 200, MAX_REVISION = 128 };

/* From the executable's directory, where an installed one finds the bundled model. */
static const char installed_demo[] = "../share/myelin/models/demo";

static bool is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* An environment variable, or NULL when it is not set or empty. */
static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : NULL;
}

/* Letters, digits, '-', '_' and '.', not beginning with '.': cannot leave its directory. */
static bool is_plain_name(const char *text, size_t length) {
    if (length == 0 || text[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_' || c == '.'))
            return false;
    }
    return true;
}

/* "Org/Name" */
static bool is_hub_name(const char *text) {
    size_t organisation = strcspn(text, "/");
    return strlen(text) <= MAX_HUB_NAME && text[organisation] == '/' &&
           is_plain_name(text, organisation) &&
           is_plain_name(text + organisation + 1, strlen(text + organisation + 1));
}

/* The cache's directory, or NULL when no variable tells. */
static char *hub_directory(void) {
    if (variable("HF_HUB_CACHE") != NULL)
        return cli_format("%s", variable("HF_HUB_CACHE"));
    if (variable("HF_HOME") != NULL)
        return cli_format("%s/hub", variable("HF_HOME"));
    if (variable("XDG_CACHE_HOME") != NULL)
        return cli_format("%s/huggingface/hub", variable("XDG_CACHE_HOME"));
    if (variable("HOME") != NULL)
        return cli_format("%s/.cache/huggingface/hub", variable("HOME"));
    return NULL;
}

/* The revision refs/main of a cached repository names, in text[MAX_REVISION + 1]. */
static bool read_revision(const char *repository, char *text) {
    char *name = cli_format("%s/refs/main", repository);
    FILE *file = fopen(name, "re");
    free(name);
    if (file == NULL)
        return false;
    size_t length = fread(text, 1, MAX_REVISION, file);
    fclose(file);
    text[length] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    return is_plain_name(text, strlen(text));
}

static bool find_in_hub(const char *model, char **path, char **message) {
    char revision[MAX_REVISION + 1];
    char *hub = hub_directory();
    if (hub == NULL) {
        *message = cli_format("model %s: no such directory, and no Hugging Face cache: none of "
                              "HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME is set",
                              model);
        return false;
    }
    int organisation = (int)strcspn(model, "/");
    char *repository =
        cli_format("%s/models--%.*s--%s", hub, organisation, model, model + organisation + 1);
    free(hub);
    if (!is_directory(repository)) {
        *message = cli_format("model %s: no such directory, and not in the Hugging Face cache: "
                              "looked for %s",
                              model, repository);
    } else if (!read_revision(repository, revision)) {
        *message = cli_format("model %s: expected the name of a revision in %s/refs/main, found "
                              "none",
                              model, repository);
    } else {
        char *snapshot = cli_format("%s/snapshots/%s", repository, revision);
        if (is_directory(snapshot))
            *path = snapshot;
        else
            *message = cli_format("model %s: refs/main names a revision that is not in the cache: "
                                  "looked for %s",
                                  model, snapshot);
        if (*path == NULL)
            free(snapshot);
    }
    free(repository);
    return *path != NULL;
}

static bool find_demo(char **path, char **message) {
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    char *installed = NULL;
    if (length > 0) {
        program[length] = '\0';
        *strrchr(program, '/') = '\0';
        installed = cli_format("%s/%s", program, installed_demo);
        *path = realpath(installed, NULL);
    }
    if (*path == NULL && is_directory(MYELIN_DEMO_DIR))
        *path = cli_format("%s", MYELIN_DEMO_DIR);
    if (*path == NULL)
        *message = cli_format("no model given (-m, MYELIN_MODEL), and the bundled one is missing: "
                              "looked for %s%s%s",
                              installed != NULL ? installed : "", installed != NULL ? " and " : "",
                              MYELIN_DEMO_DIR);
    free(installed);
    return *path != NULL;
}

bool cli_model_path(const char *model, char **path, char **message) {
    *path = NULL;
    *message = NULL;
    if (model == NULL)
        model = variable("MYELIN_MODEL");
    if (model == NULL)
        return find_demo(path, message);
    if (is_directory(model)) {
        *path = cli_format("%s", model);
        return true;
    }
    if (is_hub_name(model))
        return find_in_hub(model, path, message);
    struct stat info;
    *message = stat(model, &info) == 0
                   ? cli_format("model %s: expected a directory, found a file", model)
                   : cli_format("model %s: %s", model, strerror(errno));
    return false;
}
