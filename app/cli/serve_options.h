/* SPDX-License-Identifier: Apache-2.0 */
/* The options of myelin serve. */
#ifndef CLI_SERVE_OPTIONS_H
#define CLI_SERVE_OPTIONS_H

#include "model.h"

#include "../server/guard.h"
#include "../server/routes.h"

/* Names that may be given more than once; borrowed from argv, the array owned. */
typedef struct cli_names {
    const char **items;
    size_t count;
} cli_names;

typedef struct cli_serve_arguments {
    cli_model_arguments model;
    http_options http;
    guard_options guard;
    routes_options routes;
    myelin_serving_options serving;
    cli_names names, origins, hosts;
    char *default_name;
    const char *access_log; /* "-" is standard output; NULL: none */
    double drain_seconds;   /* that running requests have when it ends */
    double drain_delay;     /* that it still listens, not ready, before that */
} cli_serve_arguments;

void cli_serve_init(cli_serve_arguments *arguments);
void cli_serve_clear(cli_serve_arguments *arguments);
/* As cli_parse(). The structs inside are complete then, callbacks and default name apart. */
bool cli_serve_parse(const cli_command *command, cli_serve_arguments *arguments, int argc,
                     char **argv, int *code);
/* Without --name: the name in the cache, or the last part of the directory's path. */
void cli_serve_default_name(cli_serve_arguments *arguments, const char *directory);

#endif
