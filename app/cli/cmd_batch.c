/* SPDX-License-Identifier: Apache-2.0 */
/* myelin batch: completes many prompts, several at once, and answers in the order they came. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json_request.h"
#include "json_result.h"
#include "lines.h"
#include "model.h"

enum {
    WINDOW = 1024,       /* lines begun and not yet answered */
    MAX_HELD = 64 << 20, /* bytes of answers that wait for an earlier one */
    WAIT_MS = 20,        /* for another line while there is something to compute */
    DEFAULT_SEQUENCES = 8,
};

typedef struct batch_arguments {
    bool json;
    int32_t batch_size;
    cli_model_arguments model;
    cli_generation generation;
} batch_arguments;

static const cli_option batch_options[] = {
    {"batch-size", 'b', NULL, CLI_INT32, "N", "complete N prompts at once; default 8",
     .offset = offsetof(batch_arguments, batch_size), .min = 1, .max = 1024},
    {"json", 0, NULL, CLI_FLAG, NULL, "the only form there is, so of no effect",
     .offset = offsetof(batch_arguments, json)},
    {"jsonl", 0, NULL, CLI_FLAG, NULL, "the same", .offset = offsetof(batch_arguments, json)},
};

/* A line that was begun. Its answer, once there is one, waits for those before it. */
typedef struct place {
    int64_t line;
    cli_request request;
    char *answer; /* NULL: still being computed */
    size_t answer_length;
} place;

typedef struct batch {
    const cli_generation *defaults;
    myelin_model *model;
    cli_progress *progress;
    cli_lines lines;
    place *places; /* [WINDOW], line number n of those begun is at n % WINDOW */
    uint64_t begun, answered;
    size_t running;
    size_t held; /* bytes of answers that wait */
    bool finished;
    bool failed;
} batch;

/* Writes the answers whose turn has come. */
static void flush(batch *b) {
    while (b->answered < b->begun && b->places[b->answered % WINDOW].answer != NULL) {
        place *p = &b->places[b->answered % WINDOW];
        cli_progress_hide(b->progress);
        if (!cli_output(p->answer, p->answer_length))
            b->failed = true;
        b->held -= p->answer_length;
        free(p->answer);
        p->answer = NULL;
        b->answered++;
    }
    cli_progress_update(b->progress, cli_now(), b->lines.bytes_done, b->lines.total);
}

/* Takes value over. */
static void answer(batch *b, place *p, json_t *value) {
    const json_t *id = json_object_get(p->request.line, "id");
    p->answer = cli_json_line(value, id, &p->answer_length);
    b->held += p->answer_length;
    cli_request_clear(&p->request);
    flush(b);
}

static void refuse(batch *b, place *p, const cli_why *why) {
    answer(b, p, cli_json_error(MYELIN_ERROR_ARGUMENT, p->line, why->text));
}

/* Reads the request of a line. False when it is a bad one, which has been answered. */
static bool read_request(batch *b, place *p, const char *text, size_t length) {
    cli_why why;
    json_t *line = cli_json_parse(text, length, &why);
    if (line != NULL && cli_request_read(&p->request, line, b->defaults, b->model, &why))
        return true;
    refuse(b, p, &why);
    return false;
}

static bool next_request(void *user, myelin_request *request) {
    batch *b = user;
    const char *text;
    size_t length;
    /* With too much unanswered, or nothing to read yet, what runs is computed first. */
    while (!b->failed && b->begun - b->answered < WINDOW && b->held < MAX_HELD) {
        cli_line_status status =
            cli_lines_next(&b->lines, b->running > 0 ? WAIT_MS : -1, &text, &length);
        if (status == CLI_LINE_LATER)
            return false;
        if (status == CLI_LINE_END || status == CLI_LINE_ERROR) {
            b->finished = true;
            return false;
        }
        place *p = &b->places[b->begun++ % WINDOW];
        p->line = b->lines.number;
        if (status == CLI_LINE_TOO_LONG) {
            cli_why why;
            cli_explain(&why, "expected a line of at most %d bytes, found a longer one",
                        CLI_MAX_LINE);
            refuse(b, p, &why);
        } else if (read_request(b, p, text, length)) {
            *request = p->request.request;
            request->tag = p;
            b->running++;
            return true;
        }
    }
    return false;
}

static bool request_done(void *user, void *tag, myelin_result *result, const myelin_error *error) {
    batch *b = user;
    place *p = tag;
    b->running--;
    answer(b, p,
           result != NULL ? cli_json_result(result)
                          : cli_json_error(error->status, p->line, error->message));
    return !b->failed;
}

static int run_batch(const cli_command *command, const batch_arguments *arguments, batch *b) {
    myelin_batch_options options;
    myelin_error error;
    myelin_batch_options_init(&options);
    options.max_sequences = arguments->batch_size;
    while (!b->finished && !b->failed) {
        myelin_status status =
            myelin_batch_run(b->model, &options, next_request, request_done, b, &error);
        if (status != MYELIN_OK) {
            cli_progress_hide(b->progress);
            cli_message(command, "%s", error.message);
            return cli_use_exit_code(status);
        }
    }
    cli_progress_hide(b->progress);
    if (b->lines.error != 0) {
        cli_message(command, "cannot read the input: %s", strerror(b->lines.error));
        return CLI_FAILED;
    }
    return cli_output_result(command);
}

static int with_model(const cli_command *command, const batch_arguments *arguments, batch *b) {
    cli_model model;
    int code = cli_open_model(&model, command, &arguments->model);
    if (code == CLI_OK) {
        b->model = model.model;
        b->progress = &model.progress;
        b->defaults = &arguments->generation;
        b->places = cli_allocate(WINDOW * sizeof *b->places);
        memset(b->places, 0, WINDOW * sizeof *b->places);
        cli_progress_begin(b->progress, "batch", arguments->model.quiet || isatty(STDOUT_FILENO));
        code = run_batch(command, arguments, b);
        for (size_t i = 0; i < WINDOW; i++) {
            cli_request_clear(&b->places[i].request);
            free(b->places[i].answer);
        }
        free(b->places);
    }
    cli_close_model(&model);
    return code;
}

static int batch_with(const cli_command *command, batch_arguments *arguments, int argc,
                      char **argv) {
    batch b = {0};
    int count, code;
    const cli_group groups[] = {
        {"Batch", batch_options, sizeof batch_options / sizeof *batch_options, arguments, NULL},
        cli_generation_group(&arguments->generation),
        cli_model_group(&arguments->model),
    };
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, &code))
        return code;
    if (count > 1)
        return cli_usage(command, "expected one FILE, found %d", count);
    if (!cli_lines_open(&b.lines, count == 1 ? argv[0] : NULL)) {
        cli_message(command, "%s: %s", count == 1 ? argv[0] : "standard input", strerror(errno));
        return CLI_FAILED;
    }
    code = with_model(command, arguments, &b);
    cli_lines_close(&b.lines);
    return code;
}

static int run(const cli_command *command, int argc, char **argv) {
    batch_arguments arguments = {.batch_size = DEFAULT_SEQUENCES};
    cli_generation_init(&arguments.generation);
    int code = batch_with(command, &arguments, argc, argv);
    cli_generation_clear(&arguments.generation);
    return code;
}

const cli_command cli_command_batch = {
    .name = "batch",
    .synopsis = "[OPTION]... [FILE]",
    .summary = "complete many prompts",
    .details =
        "Reads one JSON object a line from FILE or standard input: \"prompt\" (a string),\n"
        "\"prompt_ids\" (an array of token ids) or \"messages\" (a conversation, with the\n"
        "members 'myelin template' reads), and any generation option by its name\n"
        "with _ for -: max_new_tokens, sampler, temperature, stop, ... Options given here\n"
        "are the defaults of every line. Writes one JSON object a line, in the same\n"
        "order: what 'myelin run --json' writes, or {\"error\": {\"status\", \"message\"}} for\n"
        "a bad line. A member \"id\" is given back.",
    .examples =
        "  echo '{\"prompt\": \"Once upon a time\", \"max_new_tokens\": 20}' | myelin batch\n"
        "  myelin batch --batch-size 32 prompts.jsonl > texts.jsonl",
    .run = run,
};
