/* SPDX-License-Identifier: Apache-2.0 */
#include "serve_options.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MOST_CONNECTIONS = 1000000,
    MOST_SEQUENCES = 1024,
    MOST_QUEUE = 1000000,
    MOST_TOKENS = 1 << 24,
    MOST_SECONDS = 86400
};

/* A number of bytes, or of KiB, MiB, GiB or TiB with K, M, G or T after it. */
static bool read_bytes(const char *text, uint64_t max, uint64_t *bytes, cli_why *why) {
    static const char units[] = "KMGT";
    size_t digits = strspn(text, "0123456789");
    const char *unit = text[digits] != '\0' ? strchr(units, text[digits]) : NULL;
    uint64_t value = 0;
    bool good = digits > 0 && digits < 19 &&
                (text[digits] == '\0' || (unit != NULL && text[digits + 1] == '\0'));
    if (good) {
        int shift = unit != NULL ? 10 * (int)(unit - units + 1) : 0;
        value = strtoull(text, NULL, 10);
        good = value > 0 && value <= max >> shift;
        value <<= shift;
    }
    if (!good) {
        cli_explain(why, "expected bytes, 1 to %llu, such as 1000000, 512M or 4G, found \"%.48s\"",
                    (unsigned long long)max, text);
        return false;
    }
    *bytes = value;
    return true;
}

static bool read_kv_memory(void *base, const char *text, cli_why *why) {
    cli_serve_arguments *a = base;
    return read_bytes(text, (uint64_t)1 << 50, &a->serving.kv_bytes, why);
}

static bool read_max_body(void *base, const char *text, cli_why *why) {
    cli_serve_arguments *a = base;
    uint64_t bytes;
    if (!read_bytes(text, (uint64_t)1 << 32, &bytes, why))
        return false;
    a->http.max_body = (size_t)bytes;
    return true;
}

static bool add_name(cli_names *names, const char *text, cli_why *why) {
    if (*text == '\0') {
        cli_explain(why, "expected a name, found \"\"");
        return false;
    }
    names->items = cli_append(names->items, &names->count, sizeof *names->items);
    names->items[names->count - 1] = text;
    return true;
}

static bool read_name(void *base, const char *text, cli_why *why) {
    cli_serve_arguments *a = base;
    return add_name(&a->names, text, why);
}

static bool read_host_name(void *base, const char *text, cli_why *why) {
    cli_serve_arguments *a = base;
    return add_name(&a->hosts, text, why);
}

/* As a browser writes it: a scheme, a host, a port unless it is the scheme's; or "*" or "null". */
static bool read_origin(void *base, const char *text, cli_why *why) {
    cli_serve_arguments *a = base;
    const char *authority = strstr(text, "://");
    bool good = strcmp(text, "*") == 0 || strcmp(text, "null") == 0 ||
                (authority != NULL && authority > text && authority[3] != '\0' &&
                 strpbrk(authority + 3, "/?# ") == NULL);
    if (!good) {
        cli_explain(why, "expected an origin such as https://chat.example:8443, found \"%.48s\"",
                    text);
        return false;
    }
    return add_name(&a->origins, text, why);
}

#define FIELD(member)   .offset = offsetof(cli_serve_arguments, member)
#define SECONDS(member) FIELD(member), .min = 0, .above_min = true, .max = MOST_SECONDS

static const cli_option listen_options[] = {
    {"host", 0, NULL, CLI_TEXT, "ADDRESS",
     "where to listen: an address or a name of this machine; default 127.0.0.1, which only "
     "this machine can reach",
     FIELD(http.host)},
    {"port", 'p', NULL, CLI_INT32, "N", "default 8080; 0: any that is free", FIELD(http.port),
     .min = 0, .max = 65535},
    {"max-connections", 0, NULL, CLI_INT32, "N", "default 10000", FIELD(http.max_connections),
     .min = 1, .max = MOST_CONNECTIONS},
    {"max-body", 0, NULL, CLI_CUSTOM, "BYTES", "of a request; default 32M",
     .read_text = read_max_body},
    {"head-timeout", 0, NULL, CLI_REAL, "SECONDS",
     "for the head of a request, from its first byte on; default 10", SECONDS(http.head_seconds)},
    {"body-timeout", 0, NULL, CLI_REAL, "SECONDS", "for its body; default 60",
     SECONDS(http.body_seconds)},
    {"idle-timeout", 0, NULL, CLI_REAL, "SECONDS",
     "for the next request on a connection; default 75", SECONDS(http.idle_seconds)},
    {"stall-timeout", 0, NULL, CLI_REAL, "SECONDS",
     "for a client that takes nothing of its answer; default 60", SECONDS(http.stall_seconds)},
    {"access-log", 0, NULL, CLI_TEXT, "FILE",
     "append a line of JSON for each request; - for standard output", FIELD(access_log)},
    {"drain-seconds", 0, NULL, CLI_REAL, "SECONDS",
     "that running requests have to end after SIGTERM; default 30", FIELD(drain_seconds), .min = 0,
     .max = MOST_SECONDS},
    {"drain-delay", 0, NULL, CLI_REAL, "SECONDS",
     "before that, go on listening while /health says 503; default 0", FIELD(drain_delay), .min = 0,
     .max = MOST_SECONDS},
};

static const cli_option access_options[] = {
    {"api-key-file", 0, NULL, CLI_TEXT, "FILE",
     "ask for one of the keys of this file, one a line; # begins a comment", FIELD(guard.key_file)},
    {"open-metrics", 0, NULL, CLI_FLAG, NULL, "ask for no key for /metrics",
     FIELD(guard.open_metrics)},
    {"host-name", 0, NULL, CLI_CUSTOM, "NAME",
     "on a loopback address: answer to this name as well; may be repeated",
     .read_text = read_host_name},
    {"cors-origin", 0, NULL, CLI_CUSTOM, "ORIGIN",
     "let pages of this origin use the API; * for all; may be repeated", .read_text = read_origin},
};

static const cli_option serving_options[] = {
    {"name", 0, NULL, CLI_CUSTOM, "NAME",
     "what the model is called; may be repeated: the others are taken for it; default its name or "
     "directory",
     .read_text = read_name},
    {"max-sequences", 0, NULL, CLI_INT32, "N", "answers written at once; default 16",
     FIELD(serving.max_sequences), .min = 1, .max = MOST_SEQUENCES},
    {"max-queue", 0, NULL, CLI_INT32, "N", "requests waiting, then 429; default 1024",
     FIELD(serving.max_queue), .min = 0, .max = MOST_QUEUE},
    {"kv-memory", 0, NULL, CLI_CUSTOM, "BYTES",
     "of keys and values, such as 4G; default room for --max-sequences of 2048 tokens",
     .read_text = read_kv_memory},
    {"max-len", 0, NULL, CLI_INT32, "N",
     "tokens of one request, prompt and answer; default 0: what fits", FIELD(routes.max_len),
     .min = 0, .max = MOST_TOKENS},
    {"max-tokens", 0, NULL, CLI_INT32, "N",
     "of an answer whose request does not say; default 0: what fits", FIELD(routes.max_tokens),
     .min = 0, .max = MOST_TOKENS},
    {"step-tokens", 0, NULL, CLI_INT32, "N",
     "of one step, prompts included; default 0: the plug-in's best", FIELD(serving.step_tokens),
     .min = 0, .max = MOST_TOKENS},
    {"batch-timeout", 0, NULL, CLI_REAL, "MS", "that a first request waits for company; default 0",
     FIELD(serving.batch_timeout_ms), .min = 0, .max = 10000},
    {"no-prefix-cache", 0, NULL, CLI_FLAG_OFF, NULL,
     "forget the keys and values of requests that have ended", FIELD(serving.prefix_cache)},
    {"reasoning-field", 0, NULL, CLI_TEXT, "NAME",
     "where an answer's reasoning stands; default reasoning_content", FIELD(routes.reasoning)},
    {"no-page", 0, NULL, CLI_FLAG_OFF, NULL, "do not serve the chat page", FIELD(routes.page)},
};

_Static_assert(sizeof(int) == sizeof(int32_t), "ports and connections are stored as int32_t");

void cli_serve_init(cli_serve_arguments *arguments) {
    memset(arguments, 0, sizeof *arguments);
    http_options_init(&arguments->http);
    routes_options_init(&arguments->routes);
    myelin_serving_options_init(&arguments->serving);
    arguments->drain_seconds = 30;
}

void cli_serve_clear(cli_serve_arguments *arguments) {
    free(arguments->names.items);
    free(arguments->origins.items);
    free(arguments->hosts.items);
    free(arguments->default_name);
}

bool cli_serve_parse(const cli_command *command, cli_serve_arguments *arguments, int argc,
                     char **argv, int *code) {
    const cli_group groups[] = {
        {"Listening", listen_options, sizeof listen_options / sizeof *listen_options, arguments,
         NULL},
        {"Access", access_options, sizeof access_options / sizeof *access_options, arguments, NULL},
        {"Serving", serving_options, sizeof serving_options / sizeof *serving_options, arguments,
         NULL},
        cli_model_group(&arguments->model),
    };
    int count;
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, code))
        return false;
    if (count > 0) {
        *code = cli_usage(command, "expected options only, found \"%.48s\"", argv[0]);
        return false;
    }
    arguments->guard.origins = arguments->origins.items;
    arguments->guard.num_origins = arguments->origins.count;
    arguments->guard.hosts = arguments->hosts.items;
    arguments->guard.num_hosts = arguments->hosts.count;
    return true;
}

void cli_serve_default_name(cli_serve_arguments *arguments, const char *directory) {
    const char *asked =
        arguments->model.model != NULL ? arguments->model.model : getenv("MYELIN_MODEL");
    struct stat info;
    if (arguments->names.count == 0) {
        cli_why why;
        char *whole = realpath(directory, NULL);
        const char *last = whole != NULL ? strrchr(whole, '/') : NULL;
        bool hub = asked != NULL && *asked != '\0' && stat(asked, &info) != 0;
        const char *name = hub ? asked : last != NULL && last[1] != '\0' ? last + 1 : directory;
        arguments->default_name = cli_format("%s", name);
        free(whole);
        (void)add_name(&arguments->names, arguments->default_name, &why);
    }
    arguments->routes.names = arguments->names.items;
    arguments->routes.num_names = arguments->names.count;
}
