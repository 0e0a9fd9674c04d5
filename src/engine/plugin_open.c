/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/plugin_open.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "engine/internal.h"
#include "model/composed.h"

enum { MAX_NAME = 64 };
static const char cuda_file[] = "libmyelin_qwen3_cuda.so";

typedef const myelin_plugin *(*entry_function)(void);

/* --- the table --- */

/* The first required callback that is not there, or NULL. */
static const char *missing_callback(const myelin_plugin *p) {
    const struct {
        const char *name;
        bool present;
    } required[] = {
        {"probe", p->probe != NULL},
        {"load", p->load != NULL},
        {"free_model", p->free_model != NULL},
        {"sequence_bytes", p->sequence_bytes != NULL},
        {"create_sequence", p->create_sequence != NULL},
        {"free_sequence", p->free_sequence != NULL},
        {"sequence_length", p->sequence_length != NULL},
        {"truncate_sequence", p->truncate_sequence != NULL},
        {"context_bytes", p->context_bytes != NULL},
        {"create_context", p->create_context != NULL},
        {"free_context", p->free_context != NULL},
        {"forward", p->forward != NULL},
    };
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        if (!required[i].present)
            return required[i].name;
    return NULL;
}

/* With some of the calls that pages need, the first that is not there; NULL with all or none. */
static const char *missing_of_pages(const myelin_plugin *p) {
    const struct {
        const char *name;
        bool present;
    } calls[] = {
        {"page_bytes", p->page_bytes != NULL},
        {"create_pool", p->create_pool != NULL},
        {"free_pool", p->free_pool != NULL},
        {"create_paged_sequence", p->create_paged_sequence != NULL},
        {"set_pages", p->set_pages != NULL},
        {"copy_page", p->copy_page != NULL},
    };
    const char *missing = NULL;
    size_t count = sizeof calls / sizeof *calls, present = 0;
    for (size_t i = count; i-- > 0;) {
        present += calls[i].present;
        missing = calls[i].present ? missing : calls[i].name;
    }
    return present > 0 ? missing : NULL;
}

/* Magic, version and size come first: without them the rest cannot be read. */
static myelin_status check_header(const myelin_plugin *p, const char *path, myelin_error *error) {
    if (p->magic != MYELIN_PLUGIN_MAGIC)
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                        "wrong magic: expected 0x%08" PRIx32 ", found 0x%08" PRIx32,
                        (uint32_t)MYELIN_PLUGIN_MAGIC, p->magic);
    if (p->abi_version != MYELIN_PLUGIN_ABI_VERSION)
        return mln_fail(error, MYELIN_ERROR_UNSUPPORTED, path, -1,
                        "wrong ABI version: expected %u, found %" PRIu32, MYELIN_PLUGIN_ABI_VERSION,
                        p->abi_version);
    if (p->struct_size < MYELIN_PLUGIN_LEAST_SIZE)
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                        "wrong struct_size: expected at least %zu, found %" PRIu32,
                        MYELIN_PLUGIN_LEAST_SIZE, p->struct_size);
    return MYELIN_OK;
}

static myelin_status check_name(const myelin_plugin *p, const char *path, myelin_error *error) {
    if (!p->name || !*p->name || strnlen(p->name, MAX_NAME) == MAX_NAME)
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                        "missing name: expected 1 to %d bytes", MAX_NAME - 1);
    if (!strcmp(p->name, mln_composed_plugin()->name) ||
        !strcmp(p->name, mln_default_plugin()->name))
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                        "duplicate name: \"%s\" is a built-in plug-in", p->name);
    return MYELIN_OK;
}

static myelin_status check_table(const myelin_plugin *p, const char *path, myelin_error *error) {
    myelin_status status = check_header(p, path, error);
    if (status == MYELIN_OK)
        status = check_name(p, path, error);
    if (status != MYELIN_OK)
        return status;
    const char *missing = missing_callback(p);
    if (missing)
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1, "missing callback: %s is NULL",
                        missing);
    missing = missing_of_pages(p);
    if (missing)
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                        "missing callback: %s is NULL, though others for pages are there", missing);
    if (p->max_fusion < MYELIN_FUSION_COMPOSED || p->max_fusion > MYELIN_FUSION_CHUNK)
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                        "max_fusion: expected %d to %d, found %" PRId32, MYELIN_FUSION_COMPOSED,
                        MYELIN_FUSION_CHUNK, p->max_fusion);
    if (MYELIN_PLUGIN_REACHES(p, step_tokens) && p->step_tokens != 0 &&
        (p->step_tokens < MYELIN_MIN_STEP_TOKENS || p->step_tokens > MYELIN_MAX_STEP_TOKENS))
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1,
                        "step_tokens: expected 0 or %d to %d, found %" PRId32,
                        MYELIN_MIN_STEP_TOKENS, MYELIN_MAX_STEP_TOKENS, p->step_tokens);
    return MYELIN_OK;
}

/* --- the shared object --- */

static myelin_status open_library(void **library, const char *path, myelin_error *error) {
    char *file = strchr(path, '/') ? mln_strndup(path, strlen(path))
                                   : mln_path_join(".", path); /* never searched */
    if (!file)
        return mln_fail_memory(error, strlen(path), "a path");
    bool present = mln_path_exists(file);
    *library = present ? dlopen(file, RTLD_NOW | RTLD_LOCAL) : NULL;
    free(file);
    if (!present)
        return mln_fail(error, MYELIN_ERROR_NOT_FOUND, path, -1, "there is no such plug-in: %s",
                        path);
    if (!*library) {
        const char *reason = dlerror();
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1, "cannot be opened: %s",
                        reason ? reason : "unknown reason");
    }
    return MYELIN_OK;
}

static myelin_status read_table(mln_plugin_choice *choice, const char *path, myelin_error *error) {
    entry_function entry = NULL;
    void *symbol = dlsym(choice->library, MYELIN_PLUGIN_ENTRY);
    if (!symbol)
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1, "no symbol %s", MYELIN_PLUGIN_ENTRY);
    memcpy(&entry, &symbol, sizeof entry); /* C has no cast between the two kinds of pointer */
    const myelin_plugin *plugin = entry();
    if (!plugin)
        return mln_fail(error, MYELIN_ERROR_FORMAT, path, -1, "%s() returned NULL",
                        MYELIN_PLUGIN_ENTRY);
    choice->plugin = plugin;
    return check_table(plugin, path, error);
}

myelin_status mln_plugin_open(mln_plugin_choice *choice, const char *path, myelin_error *error) {
    *choice = (mln_plugin_choice){0};
    myelin_status status = open_library(&choice->library, path, error);
    if (status == MYELIN_OK)
        status = read_table(choice, path, error);
    if (status != MYELIN_OK)
        mln_plugin_close(choice);
    return status;
}

void mln_plugin_close(mln_plugin_choice *choice) {
    if (choice->library)
        dlclose(choice->library);
    *choice = (mln_plugin_choice){0};
}

/* --- the device's --- */

/* The directory of the file this code lies in: the shared library, or the program it is part of. */
static bool own_directory(char directory[PATH_MAX]) {
    static const char here;
    Dl_info info;
    struct link_map *map = NULL;
    const char *name = "";
    if (dladdr1(&here, &info, (void **)&map, RTLD_DL_LINKMAP) && map)
        name = map->l_name;
    if (!realpath(*name ? name : "/proc/self/exe", directory)) /* no name: the program itself */
        return false;
    char *slash = strrchr(directory, '/');
    if (slash)
        *slash = '\0';
    return slash != NULL;
}

/* Where the CUDA plug-in is; false, with the place looked in, when it is nowhere. */
static bool find_cuda(char path[PATH_MAX], char directory[PATH_MAX]) {
    static const char *const places[] = {"", "myelin/plugins/", "../" MLN_LIBDIR "/",
                                         "../" MLN_LIBDIR "/myelin/plugins/"};
    path[0] = '\0';
    if (!own_directory(directory)) {
        directory[0] = '\0';
        return false;
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int n = snprintf(path, PATH_MAX, "%s/%s%s", directory, places[i], cuda_file);
        if (n > 0 && n < PATH_MAX && mln_path_exists(path))
            return true;
    }
    return false;
}

/* --- the choice --- */

static myelin_status probe(const mln_plugin_choice *choice, const mln_checkpoint *checkpoint,
                           const myelin_model_options *options, myelin_error *error) {
    if ((int32_t)options->fusion > choice->plugin->max_fusion)
        return mln_fail(error, MYELIN_ERROR_UNSUPPORTED, NULL, -1,
                        "fusion rung %d: plug-in %s goes up to rung %d", (int)options->fusion,
                        choice->plugin->name, (int)choice->plugin->max_fusion);
    mln_model_options load = {.plugin = choice->plugin,
                              .dtype = (int32_t)options->dtype,
                              .fusion = (int32_t)options->fusion,
                              .cache_type = (int32_t)options->cache_type,
                              .tensor_parallel = options->tensor_parallel,
                              .threads = options->threads};
    return mln_model_probe(checkpoint, &load, error);
}

static myelin_status open_candidate(mln_plugin_choice *choice, const char *path,
                                    const mln_checkpoint *checkpoint,
                                    const myelin_model_options *options, myelin_error *error) {
    myelin_status status = mln_plugin_open(choice, path, error);
    if (status == MYELIN_OK)
        status = probe(choice, checkpoint, options, error);
    if (status != MYELIN_OK)
        mln_plugin_close(choice);
    return status;
}

myelin_status mln_plugin_choose(mln_plugin_choice *choice, const mln_checkpoint *checkpoint,
                                const myelin_model_options *options, myelin_error *error) {
    char path[PATH_MAX], directory[PATH_MAX];
    *choice = (mln_plugin_choice){0};
    if (options->plugin)
        return open_candidate(choice, options->plugin, checkpoint, options, error);
    bool several = options->tensor_parallel > 1;
    if (several && options->device == MYELIN_DEVICE_CPU)
        return mln_fail(error, MYELIN_ERROR_UNSUPPORTED, NULL, -1,
                        "tensor_parallel is %" PRId32 ": expected 1 with device cpu",
                        options->tensor_parallel);
    if (options->device != MYELIN_DEVICE_CPU) {
        bool found = find_cuda(path, directory);
        bool asked = several || options->device == MYELIN_DEVICE_CUDA;
        if (asked && !found)
            return mln_fail(error, MYELIN_ERROR_UNSUPPORTED, NULL, -1,
                            "device cuda: %s is neither in %s nor in %s/../%s/myelin/plugins",
                            cuda_file, directory, directory, MLN_LIBDIR);
        if (found) {
            myelin_status status =
                open_candidate(choice, path, checkpoint, options, asked ? error : NULL);
            if (asked || status == MYELIN_OK)
                return status; /* auto goes on to the CPU */
        }
    }
    choice->plugin =
        options->fusion == MYELIN_FUSION_COMPOSED ? mln_composed_plugin() : mln_default_plugin();
    return probe(choice, checkpoint, options, error);
}
