/* SPDX-License-Identifier: Apache-2.0 */
/*
 * myelin serve: the API over HTTP. The main thread runs the loop; one thread loads the model while
 * the server already listens; one waits for signals, which are blocked in all the others.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "model.h"
#include "serve_options.h"

#include "../server/guard.h"
#include "../server/routes.h"

enum { SPARE_DESCRIPTORS = 64 };

typedef struct serve {
    const cli_command *command;
    cli_serve_arguments *arguments;
    http_server *server;
    guard *guard;
    routes *routes;
    FILE *log; /* NULL: none */
    cli_model model;
    myelin_serving *serving;
    pthread_t loader, waiter;
    int code;           /* of a failure to load the model, or CLI_OK */
    int ended_by;       /* the first signal to end, or 0 */
    bool stopped;       /* it listens no more */
    atomic_bool at_end; /* the loop has ended: signals are waited for no more */
} serve;

/* ---- The access log ---- */

static bool open_log(serve *s) {
    const char *path = s->arguments->access_log;
    if (path == NULL)
        return true;
    FILE *file = strcmp(path, "-") == 0 ? stdout : fopen(path, "ae");
    if (file == NULL) {
        cli_message(s->command, "cannot open the access log %s: %s", path, strerror(errno));
        return false;
    }
    if (s->log != NULL && s->log != stdout)
        fclose(s->log);
    s->log = file;
    return true;
}

static void on_log(void *user, const char *line) {
    serve *s = user;
    if (s->log == NULL)
        return;
    fprintf(s->log, "%s\n", line);
    fflush(s->log);
}

/* ---- Signals ---- */

/* SIGHUP: what may be changed under a running server is opened anew. */
static void on_hangup(void *argument) {
    serve *s = argument;
    myelin_error error;
    (void)open_log(s);
    if (guard_reload(s->guard, &error) != MYELIN_OK)
        cli_message(s->command, "%s; the keys from before count on", error.message);
}

static void stop(void *argument) {
    serve *s = argument;
    if (s->stopped)
        return;
    s->stopped = true;
    http_server_stop(s->server, s->arguments->drain_seconds);
}

static void end_with(serve *s, int number) {
    if (s->ended_by != 0) {
        http_server_stop(s->server, 0);
        return;
    }
    s->ended_by = number;
    cli_message(s->command, "ending: running requests have %g s; a second signal cuts them off",
                s->arguments->drain_seconds + s->arguments->drain_delay);
    cli_interrupts_note(); /* a model that is being loaded */
    routes_begin_drain(s->routes);
    http_server_retire(s->server);
    if (s->arguments->drain_delay == 0 ||
        http_server_every(s->server, s->arguments->drain_delay, stop, s) != MYELIN_OK)
        stop(s);
}

static void on_terminate(void *argument) {
    end_with(argument, SIGTERM);
}

static void on_interrupt(void *argument) {
    end_with(argument, SIGINT);
}

static void fill_signals(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

static void *wait_for_signals(void *argument) {
    serve *s = argument;
    sigset_t set;
    int number;
    fill_signals(&set);
    while (sigwait(&set, &number) == 0 && !atomic_load(&s->at_end)) {
        if (number == SIGHUP)
            http_server_post(s->server, on_hangup, s);
        else
            http_server_post(s->server, number == SIGINT ? on_interrupt : on_terminate, s);
    }
    return NULL;
}

/* ---- Loading ---- */

static void on_loaded(void *argument) {
    serve *s = argument;
    if (atomic_load(&s->at_end))
        return;
    routes_set_model(s->routes, s->model.model, s->serving);
    cli_message(s->command, "ready");
}

static void on_load_failed(void *argument) {
    serve *s = argument;
    http_server_stop(s->server, 0);
}

static void *load(void *argument) {
    serve *s = argument;
    myelin_error error;
    s->code = cli_open_model(&s->model, s->command, &s->arguments->model);
    if (s->code == CLI_OK) {
        myelin_status status =
            myelin_serving_start(&s->serving, s->model.model, &s->arguments->serving, &error);
        if (status != MYELIN_OK) {
            cli_message(s->command, "%s", error.message);
            s->code = cli_use_exit_code(status);
        }
    }
    http_server_post(s->server, s->code == CLI_OK ? on_loaded : on_load_failed, s);
    return NULL;
}

/* ---- Starting ---- */

/* As many descriptors as the system allows: each connection takes one. */
static void raise_descriptors(const serve *s) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    rlim_t wanted = (rlim_t)s->arguments->http.max_connections + SPARE_DESCRIPTORS;
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < wanted && !s->arguments->model.quiet)
        cli_message(s->command,
                    "warning: %llu descriptors are allowed, and %d connections need %llu",
                    (unsigned long long)limit.rlim_max, s->arguments->http.max_connections,
                    (unsigned long long)wanted);
}

static void say_where(const serve *s) {
    const char *host = s->arguments->http.host;
    bool bare = strchr(host, ':') != NULL;
    if (!http_server_is_loopback(s->server) && s->arguments->guard.key_file == NULL &&
        !s->arguments->model.quiet)
        cli_message(s->command, "warning: whoever can reach this machine may use the model; "
                                "--api-key-file asks for keys");
    cli_message(s->command, "listening on http://%s%s%s:%d", bare ? "[" : "", host, bare ? "]" : "",
                http_server_port(s->server));
}

static void admit(void *user, http_exchange *exchange, const http_request *request) {
    serve *s = user;
    guard_admit(s->guard, exchange, request);
}

static void handle(void *user, http_exchange *exchange, const http_request *request) {
    serve *s = user;
    routes_handle(s->routes, exchange, request);
}

static int start(serve *s) {
    cli_serve_arguments *a = s->arguments;
    myelin_error error;
    if (!open_log(s))
        return CLI_FAILED;
    raise_descriptors(s);
    a->http.handler = handle;
    a->http.admit = admit;
    a->http.user = a->http.admit_user = a->http.log_user = s;
    a->http.log = a->access_log != NULL ? on_log : NULL;
    myelin_status status = http_server_create(&s->server, &a->http, &error);
    if (status == MYELIN_OK) {
        a->guard.loopback = http_server_is_loopback(s->server);
        status = guard_create(&s->guard, &a->guard, &error);
    }
    if (status == MYELIN_OK)
        status = routes_create(&s->routes, &a->routes, s->server, &error);
    if (status != MYELIN_OK) {
        cli_message(s->command, "%s", error.message);
        return CLI_FAILED;
    }
    if (pthread_create(&s->waiter, NULL, wait_for_signals, s) != 0 ||
        pthread_create(&s->loader, NULL, load, s) != 0) {
        cli_message(s->command, "cannot start a thread: %s", strerror(errno));
        exit(CLI_FAILED);
    }
    say_where(s);
    return CLI_OK;
}

/* ---- Ending ---- */

static int exit_code(const serve *s, myelin_status status, const myelin_error *error) {
    if (s->ended_by != SIGINT && s->ended_by != 0 && status == MYELIN_OK)
        return CLI_OK;
    if (status != MYELIN_OK)
        cli_message(s->command, "%s", error->message);
    if (s->ended_by == SIGINT)
        return CLI_INTERRUPTED;
    return s->code != CLI_OK ? s->code : CLI_FAILED;
}

static int run_loop(serve *s) {
    myelin_error error;
    myelin_status status = http_server_run(s->server, &error);
    cli_interrupts_note();
    pthread_join(s->loader, NULL);
    atomic_store(&s->at_end, true);
    pthread_kill(s->waiter, SIGTERM);
    pthread_join(s->waiter, NULL);
    routes_stop(s->routes);
    myelin_serving_free(s->serving);
    s->serving = NULL;
    return exit_code(s, status, &error);
}

static void release(serve *s) {
    http_server_free(s->server);
    routes_free(s->routes);
    guard_free(s->guard);
    cli_close_model(&s->model);
    if (s->log != NULL && s->log != stdout)
        fclose(s->log);
}

static int serve_with(const cli_command *command, cli_serve_arguments *arguments, int argc,
                      char **argv) {
    serve s = {.command = command, .arguments = arguments};
    sigset_t set;
    char *path = NULL;
    int code;
    if (!cli_serve_parse(command, arguments, argc, argv, &code))
        return code;
    code = cli_find_model(command, &arguments->model, &path);
    if (code != CLI_OK)
        return code;
    cli_serve_default_name(arguments, path);
    free(path);
    fill_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    cli_interrupts_defer();
    code = start(&s);
    if (code == CLI_OK)
        code = run_loop(&s);
    release(&s);
    return code;
}

static int run(const cli_command *command, int argc, char **argv) {
    cli_serve_arguments arguments;
    cli_serve_init(&arguments);
    int code = serve_with(command, &arguments, argc, argv);
    cli_serve_clear(&arguments);
    return code;
}

const cli_command cli_command_serve = {
    .name = "serve",
    .synopsis = "[OPTION]...",
    .summary = "serve the model over HTTP",
    .details = "Answers OpenAI's API on a port of this machine: /v1/chat/completions and its\n"
               "kin, /health, /metrics, and a page to chat on. It listens while the model is\n"
               "still being loaded. SIGTERM or Ctrl-C lets running requests end, a second one\n"
               "cuts them off; SIGHUP opens the access log and reads the keys anew.",
    .examples = "  myelin serve\n"
                "  myelin serve -m Qwen/Qwen3-0.6B --port 9000 --kv-memory 4G\n"
                "  myelin serve --host 0.0.0.0 --api-key-file keys.txt --access-log -",
    .run = run,
};
