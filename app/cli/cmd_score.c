/* SPDX-License-Identifier: Apache-2.0 */
/* myelin score: log-probabilities of given tokens, and the perplexity of a text. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "generation.h"
#include "json_request.h"
#include "json_result.h"
#include "lines.h"
#include "model.h"

typedef struct score_arguments {
    bool json;
    const char *text;
    const char *text_file;
    cli_model_arguments model;
} score_arguments;

static const cli_option score_options[] = {
    {"text", 't', NULL, CLI_TEXT, "TEXT", "give the perplexity of TEXT",
     .offset = offsetof(score_arguments, text)},
    {"text-file", 'f', NULL, CLI_TEXT, "FILE",
     "give the perplexity of what is in FILE, - for standard input",
     .offset = offsetof(score_arguments, text_file)},
    {"json", 0, NULL, CLI_FLAG, NULL, "print a perplexity as JSON",
     .offset = offsetof(score_arguments, json)},
    {"jsonl", 0, NULL, CLI_FLAG, NULL, "the same", .offset = offsetof(score_arguments, json)},
};

/* One line's question and the room for its answer. */
typedef struct question {
    bool from_text;
    int32_t *ids;
    size_t count;
    int32_t num_top;
    float *logprobs; /* [count - 1] */
    int32_t *top_ids;
    float *top_logprobs; /* [num_top] */
} question;

static void clear_question(question *q) {
    if (q->from_text)
        myelin_free(q->ids);
    else
        free(q->ids);
    free(q->logprobs);
    free(q->top_ids);
    free(q->top_logprobs);
}

/* The tokens to score, given as they are or as a text. */
static myelin_status read_tokens(question *q, const json_t *line, myelin_model *model,
                                 myelin_error *error) {
    const json_t *ids = json_object_get(line, "ids");
    const json_t *text = json_object_get(line, "text");
    const myelin_tokenizer *tokenizer = myelin_model_tokenizer(model);
    cli_why why;
    if ((ids != NULL) == (text != NULL))
        cli_no_answer(error, "expected one of \"ids\" and \"text\", found %s",
                      ids != NULL ? "both" : "none");
    else if (ids != NULL && cli_read_ids(ids, &q->ids, &q->count, &why))
        return MYELIN_OK;
    else if (ids != NULL)
        cli_no_answer(error, "ids: %s", why.text);
    else if (!json_is_string(text))
        cli_no_answer(error, "text: expected a string");
    else if (tokenizer == NULL)
        cli_no_answer(error, "text: the model has no tokenizer.json; expected \"ids\"");
    else {
        q->from_text = true;
        return myelin_tokenize(tokenizer, json_string_value(text), json_string_length(text), true,
                               &q->ids, &q->count, error);
    }
    return MYELIN_ERROR_ARGUMENT;
}

static bool read_question(question *q, const json_t *line, myelin_model *model,
                          myelin_error *error) {
    static const char *const names[] = {"ids", "text", "top", "id", NULL};
    const json_t *top = json_object_get(line, "top");
    int32_t vocab_size = myelin_model_config(model)->vocab_size;
    cli_why why;
    if (!cli_json_only(line, names, &why)) {
        cli_no_answer(error, "%s", why.text);
        return false;
    }
    if (top != NULL && !json_is_null(top)) {
        if (!json_is_integer(top) || json_integer_value(top) < 0 ||
            json_integer_value(top) > vocab_size) {
            cli_explain_json(&why, "an integer from 0 to the vocabulary's size", top);
            cli_no_answer(error, "top: %s", why.text);
            return false;
        }
        q->num_top = (int32_t)json_integer_value(top);
    }
    if (read_tokens(q, line, model, error) != MYELIN_OK)
        return false;
    if (q->count == 0)
        cli_no_answer(error, "expected at least one token, found none");
    return q->count > 0;
}

static json_t *answer(void *user, const json_t *line, myelin_error *error) {
    myelin_model *model = user;
    question q = {0};
    json_t *object = NULL;
    if (read_question(&q, line, model, error)) {
        size_t num_top = (size_t)q.num_top;
        q.logprobs = cli_allocate((q.count - 1) * sizeof *q.logprobs);
        q.top_ids = cli_allocate(num_top * sizeof *q.top_ids);
        q.top_logprobs = cli_allocate(num_top * sizeof *q.top_logprobs);
        if (myelin_score(model, q.ids, q.count, q.logprobs, q.num_top, q.top_ids, q.top_logprobs,
                         error) == MYELIN_OK) {
            object = json_object();
            if (q.from_text)
                json_object_set_new(object, "ids", cli_json_ids(q.ids, q.count));
            json_object_set_new(object, "logprobs", cli_json_reals(q.logprobs, q.count - 1));
            json_object_set_new(object, "top_ids", cli_json_ids(q.top_ids, num_top));
            json_object_set_new(object, "top_logprobs", cli_json_reals(q.top_logprobs, num_top));
        }
    }
    clear_question(&q);
    return object;
}

static void print_perplexity(bool json, size_t count, double sum) {
    double perplexity = exp(-sum / (double)(count - 1));
    if (json) {
        json_t *object = json_object();
        json_object_set_new(object, "num_tokens", json_integer((json_int_t)count));
        json_object_set_new(object, "logprob_sum", cli_json_real(sum));
        json_object_set_new(object, "perplexity", cli_json_real(perplexity));
        cli_json_print(object, NULL);
        return;
    }
    char *line =
        cli_format("perplexity %.6g (%zu tokens, log-probability %.6f)\n", perplexity, count, sum);
    cli_output(line, strlen(line));
    free(line);
}

static int score_text(const cli_command *command, const score_arguments *arguments,
                      myelin_model *model, const char *text, size_t length) {
    const myelin_tokenizer *tokenizer = myelin_model_tokenizer(model);
    myelin_error error;
    int32_t *ids = NULL;
    size_t count = 0;
    if (tokenizer == NULL) {
        cli_message(command, "the model has no tokenizer.json; give token ids, one JSON a line");
        return CLI_MODEL;
    }
    myelin_status status = myelin_tokenize(tokenizer, text, length, true, &ids, &count, &error);
    if (status == MYELIN_OK && count < 2) {
        cli_no_answer(&error, "a perplexity needs at least two tokens, found %zu", count);
        status = error.status;
    }
    float *logprobs = cli_allocate(count * sizeof *logprobs);
    if (status == MYELIN_OK)
        status = myelin_score(model, ids, count, logprobs, 0, NULL, NULL, &error);
    if (status == MYELIN_OK) {
        double sum = 0;
        for (size_t i = 0; i + 1 < count; i++)
            sum += (double)logprobs[i];
        print_perplexity(arguments->json, count, sum);
    } else {
        cli_message(command, "%s", error.message);
    }
    myelin_free(ids);
    free(logprobs);
    return status == MYELIN_OK ? cli_output_result(command) : cli_use_exit_code(status);
}

/* The text to score, if one was asked for: *text is released with free(). */
static int read_text(const cli_command *command, const score_arguments *arguments, char **text,
                     size_t *length) {
    cli_lines lines;
    if (arguments->text != NULL) {
        *text = cli_format("%s", arguments->text);
        *length = strlen(arguments->text);
        return CLI_OK;
    }
    if (!cli_lines_open(&lines, arguments->text_file)) {
        cli_message(command, "%s: %s", arguments->text_file, strerror(errno));
        return CLI_FAILED;
    }
    bool read = cli_lines_rest(&lines, text, length);
    if (!read)
        cli_message(command, "%s: %s", arguments->text_file, strerror(errno));
    cli_lines_close(&lines);
    return read ? CLI_OK : CLI_FAILED;
}

static int run(const cli_command *command, int argc, char **argv) {
    score_arguments arguments = {0};
    cli_model model;
    char *text = NULL;
    size_t length = 0;
    int count, code;
    const cli_group groups[] = {
        {"Score", score_options, sizeof score_options / sizeof *score_options, &arguments, NULL},
        cli_model_group(&arguments.model),
    };
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, &code))
        return code;
    int sources = (arguments.text != NULL) + (arguments.text_file != NULL) + count;
    if (sources > 1)
        return cli_usage(command, "expected one of FILE, --text and --text-file, found %d",
                         sources);
    bool perplexity = arguments.text != NULL || arguments.text_file != NULL;
    code = perplexity ? read_text(command, &arguments, &text, &length) : CLI_OK;
    if (code != CLI_OK)
        return code;
    code = cli_open_model(&model, command, &arguments.model);
    if (code == CLI_OK && perplexity)
        code = score_text(command, &arguments, model.model, text, length);
    else if (code == CLI_OK)
        code = cli_answer_lines(command, count == 1 ? argv[0] : NULL, arguments.model.quiet, answer,
                                model.model);
    cli_close_model(&model);
    free(text);
    return code;
}

const cli_command cli_command_score = {
    .name = "score",
    .synopsis = "[OPTION]... [FILE]",
    .summary = "give the probability of given tokens",
    .details =
        "Reads one JSON object a line from FILE or standard input: \"ids\" (an array of n\n"
        "token ids) or \"text\" (a string), and \"top\" (default 0). Writes one object a\n"
        "line: \"logprobs\", the natural logarithm of the probability of each token but\n"
        "the first (n - 1 numbers), and \"top_ids\" and \"top_logprobs\", the most likely\n"
        "tokens after the last one. With \"text\", \"ids\" too. A bad line is answered with\n"
        "{\"error\": {\"status\", \"message\"}}. A member \"id\" is given back.\n"
        "With --text or --text-file, prints the perplexity of a text instead.",
    .examples = "  echo '{\"ids\": [40, 41, 42], \"top\": 5}' | myelin score\n"
                "  myelin score --text \"Once upon a time there was a dog.\"\n"
                "  myelin score --json --text-file book.txt",
    .run = run,
};
