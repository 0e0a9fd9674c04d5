/* SPDX-License-Identifier: Apache-2.0 */
/* myelin bench: how fast this machine runs a model, and how fast it could. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_result.h"
#include "machine.h"
#include "model.h"

enum { PROBE_BYTES = 512 << 20, MAX_COUNT = 1 << 20, MAX_RUNS = 1000, NUM_RUNGS = 7 };

/* Of --sampled, as Qwen3's authors advise. */
enum { DEFAULT_TOP_K = 20 };
#define DEFAULT_TOP_P 0.95

typedef struct bench_arguments {
    bool json;
    bool ladder;
    bool sampled;
    int32_t top_k; /* below 0: not given */
    double top_p;  /* 0: not given */
    const char *synthetic;
    int32_t bits;
    int32_t prefill, decode, depth, batch, runs;
    cli_model_arguments model;
} bench_arguments;

static const cli_choice bits_choices[] = {{"16", 0}, {"4", 4}, {"8", 8}, {NULL, 0}};

#define FIELD(member) .offset = offsetof(bench_arguments, member)

static const cli_option bench_options[] = {
    {"synthetic", 0, NULL, CLI_TEXT, "SHAPE",
     "made-up weights in a published shape, in place of a model: qwen3-0.6b, -1.7b, -4b, -8b, -14b "
     "or -32b",
     FIELD(synthetic)},
    {"bits", 0, NULL, CLI_CHOICE, "BITS", "with --synthetic: 16 (dense bf16, the default), 8 or 4",
     FIELD(bits), .choices = bits_choices},
    {"prefill", 'p', NULL, CLI_INT32, "N", "tokens of the prompt; default 128", FIELD(prefill),
     .min = 1, .max = MAX_COUNT},
    {"decode", 'n', NULL, CLI_INT32, "N", "tokens to generate after it; default 64", FIELD(decode),
     .min = 2, .max = MAX_COUNT},
    {"depth", 0, NULL, CLI_INT32, "N", "tokens in the cache before the prompt; default 0",
     FIELD(depth), .min = 0, .max = MAX_COUNT},
    {"batch", 'b', NULL, CLI_INT32, "N", "sequences at once; default 1", FIELD(batch), .min = 1,
     .max = 1024},
    {"runs", 'r', NULL, CLI_INT32, "N", "how often; medians are given; default 3", FIELD(runs),
     .min = 1, .max = MAX_RUNS},
    {"sampled", 0, NULL, CLI_FLAG, NULL,
     "draw tokens at temperature 0.6, top_k 20, top_p 0.95 in place of taking the likeliest",
     FIELD(sampled)},
    {"top-k", 0, NULL, CLI_INT32, "N", "with --sampled: 0 for all", FIELD(top_k), .min = 0,
     .max = INT32_MAX},
    {"top-p", 0, NULL, CLI_REAL, "X", "with --sampled", FIELD(top_p), .min = 0, .max = 1,
     .above_min = true},
    {"ladder", 0, NULL, CLI_FLAG, NULL, "measure at each rung of --fusion the model has",
     FIELD(ladder)},
    {"json", 0, NULL, CLI_FLAG, NULL, "print one JSON object", FIELD(json)},
};

static const struct {
    const char *name;
    myelin_fusion fusion;
} rungs[NUM_RUNGS] = {
    {"composed", MYELIN_FUSION_COMPOSED}, {"kv-attention", MYELIN_FUSION_KV_ATTENTION},
    {"mlp", MYELIN_FUSION_MLP},           {"attention-block", MYELIN_FUSION_ATTENTION_BLOCK},
    {"layer", MYELIN_FUSION_LAYER},       {"greedy", MYELIN_FUSION_GREEDY},
    {"chunk", MYELIN_FUSION_CHUNK}};

/* One timed run. */
typedef struct run_times {
    double prefill, decode; /* tokens per second, all sequences together */
} run_times;

/* Everything measured of one model as it was opened. */
typedef struct measurement {
    char plugin[64]; /* a copy: the name is the plug-in's, which goes with the model */
    int32_t threads;
    uint64_t weight_bytes, held_bytes;
    myelin_pack pack;
    myelin_activations activations;
    double peak;     /* products a second that the processor could make; 0: not known */
    double products; /* of a weight and an activation for one token of a prompt */
    double load_seconds;
    uint64_t peak_bytes; /* of the process until then */
    uint64_t huge_bytes; /* of it that lay in huge pages at the end */
    run_times *runs;     /* [num_runs] */
    int32_t num_runs;
    run_times median;
    int32_t *tokens;  /* [decode] of the first sequence */
    bool same_tokens; /* as the rung before it: of the ladder */
} measurement;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(double *values, int32_t count) {
    qsort(values, (size_t)count, sizeof *values, by_value);
    int32_t half = count / 2;
    return count % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

static void set_median(measurement *m) {
    double *values = cli_allocate((size_t)m->num_runs * sizeof *values);
    for (int32_t i = 0; i < m->num_runs; i++)
        values[i] = m->runs[i].prefill;
    m->median.prefill = median_of(values, m->num_runs);
    for (int32_t i = 0; i < m->num_runs; i++)
        values[i] = m->runs[i].decode;
    m->median.decode = median_of(values, m->num_runs);
    free(values);
}

/* Ids that look like text to nobody, the same for everyone; sequences differ by `first`. */
static int32_t *made_up_ids(size_t count, size_t first, int32_t vocab_size) {
    int32_t *ids = cli_allocate(count * sizeof *ids);
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)((i + first) * 2654435761u % (uint32_t)vocab_size);
    return ids;
}

static bool is_interrupted(void *user) {
    (void)user;
    return cli_interrupted();
}

/* Greedy, or sampled, without an end before its length. */
static myelin_generation_options options_of(const bench_arguments *a, int32_t tokens) {
    static const int32_t none[1];
    myelin_generation_options options;
    myelin_generation_options_init(&options);
    options.max_new_tokens = tokens;
    options.max_len = INT32_MAX / 16;
    options.stop_ids = none;
    options.sync = MYELIN_SYNC_END;
    if (a->sampled) {
        options.sampler = MYELIN_SAMPLER_SAMPLED;
        options.temperature = 0.6;
        options.top_k = a->top_k < 0 ? DEFAULT_TOP_K : a->top_k;
        options.top_p = a->top_p > 0 ? a->top_p : DEFAULT_TOP_P;
        options.seed = 1;
    }
    options.cancelled = is_interrupted;
    return options;
}

/* One sequence: fills the cache to the depth, then reads the prompt and generates. */
static myelin_status run_one(const bench_arguments *a, myelin_model *model, run_times *times,
                             int32_t *tokens, myelin_error *error) {
    size_t depth = (size_t)a->depth, total = depth + (size_t)a->prefill;
    int32_t *ids = made_up_ids(total, 0, myelin_model_config(model)->vocab_size);
    myelin_generation_options options = options_of(a, 1);
    myelin_result result = {0};
    myelin_session *session = NULL;
    myelin_status status = myelin_session_open(&session, model, (int32_t)total + a->decode, error);
    if (status == MYELIN_OK && depth > 0) {
        status = myelin_session_append(session, ids, depth, error);
        if (status == MYELIN_OK)
            status = myelin_session_generate(session, NULL, NULL, &options, NULL, error);
        myelin_session_truncate(session, depth);
    }
    if (status == MYELIN_OK)
        status = myelin_session_append(session, ids + depth, (size_t)a->prefill, error);
    options.max_new_tokens = a->decode;
    if (status == MYELIN_OK)
        status = myelin_session_generate(session, NULL, NULL, &options, &result, error);
    if (status == MYELIN_OK && result.num_tokens == (size_t)a->decode) {
        times->prefill = 1000 * (double)a->prefill / result.prefill_ms;
        times->decode = 1000 / result.per_token_ms;
        memcpy(tokens, result.token_ids, (size_t)a->decode * sizeof *tokens);
    }
    myelin_result_clear(&result);
    myelin_session_close(session);
    free(ids);
    return status;
}

/* The requests of a batch as they are asked for, and what came of them. */
typedef struct batch {
    const bench_arguments *arguments;
    myelin_generation_options *options; /* [batch] */
    int32_t **ids;                      /* [batch], */
    size_t *lengths;                    /* so many of each */
    int32_t asked;
    double last_prefill_ms, per_token_ms; /* of the sequence that began last */
    int32_t *tokens;                      /* of the first */
    myelin_error error;
} batch;

static bool next_request(void *user, myelin_request *request) {
    batch *b = user;
    if (b->asked == b->arguments->batch)
        return false;
    request->prompt_ids = b->ids[b->asked];
    request->num_prompt_ids = b->lengths[b->asked];
    request->options = &b->options[b->asked];
    request->tag = b->ids[b->asked++];
    return true;
}

static bool on_done(void *user, void *tag, myelin_result *result, const myelin_error *error) {
    batch *b = user;
    if (result == NULL) {
        b->error = *error;
        return false;
    }
    if (result->prefill_ms > b->last_prefill_ms) {
        b->last_prefill_ms = result->prefill_ms;
        b->per_token_ms = result->per_token_ms;
    }
    if (tag == b->ids[0])
        memcpy(b->tokens, result->token_ids, (size_t)b->arguments->decode * sizeof *b->tokens);
    return !cli_interrupted();
}

/*
 * How sequences of a batch begin: each step takes one token of every sequence and `more` of the
 * prompts beside, which go to the first that is still being read. So prompts end one after the
 * other. Those that end early are shorter by what their sequences generate until the last has
 * ended: then all are equally long.
 */
typedef struct staggered {
    size_t more; /* tokens of a prompt beside one a step */
    size_t rate; /* of all prompts, a step */
    size_t last; /* the step that ends the last prompt */
} staggered;

/* The step that ends prompt i. */
static size_t step_of(const staggered *s, size_t i) {
    if (s->rate == 0) /* all are read side by side */
        return s->last;
    size_t step = ((i + 1) * s->more + s->rate - 1) / s->rate;
    return step > 0 ? step : 1;
}

/* Prompts of `length` tokens, the last one, or about so many. */
static staggered stagger(size_t count, size_t length, size_t step_tokens) {
    staggered s = {.rate = step_tokens > count ? step_tokens - count : 0, .last = length};
    s.more = length * s.rate / (s.rate + count);
    if (s.rate > 0)
        s.last = step_of(&s, count - 1);
    return s;
}

/*
 * Several sequences, all of which generate until the last that began has all its tokens. Its time
 * for a token is then that of a step of all.
 */
static myelin_status run_batch(const bench_arguments *a, myelin_model *model, run_times *times,
                               int32_t *tokens, myelin_error *error) {
    size_t count = (size_t)a->batch, read = 0;
    myelin_model_info info = {.size = sizeof info};
    myelin_model_get_info(model, &info);
    staggered s = stagger(count, (size_t)(a->depth + a->prefill), (size_t)info.step_tokens);
    batch b = {.arguments = a, .tokens = tokens};
    b.ids = cli_allocate(count * sizeof *b.ids);
    b.lengths = cli_allocate(count * sizeof *b.lengths);
    b.options = cli_allocate(count * sizeof *b.options);
    for (size_t i = 0; i < count; i++) {
        b.options[i] = options_of(a, a->decode + (int32_t)(s.last - step_of(&s, i)));
        b.lengths[i] = s.more + step_of(&s, i);
        b.ids[i] = made_up_ids(b.lengths[i], 7919 * i, myelin_model_config(model)->vocab_size);
        read += b.lengths[i];
    }
    myelin_batch_options options;
    myelin_batch_options_init(&options);
    options.max_sequences = a->batch;
    myelin_status status = myelin_batch_run(model, &options, next_request, on_done, &b, error);
    if (status == MYELIN_OK && b.error.status != MYELIN_OK) {
        *error = b.error;
        status = b.error.status;
    }
    if (status == MYELIN_OK) {
        times->prefill = 1000 * (double)read / b.last_prefill_ms;
        times->decode = 1000 * (double)count / b.per_token_ms;
    }
    for (size_t i = 0; i < count; i++)
        free(b.ids[i]);
    free(b.ids);
    free(b.lengths);
    free(b.options);
    return status;
}

/* Every layer's projections; not attention, nor the head, which the last token alone needs. */
static double products_of(const myelin_config *c) {
    double hidden = c->hidden_size, inter = c->intermediate_size;
    double q = (double)c->num_attention_heads * c->head_dim;
    double kv = (double)c->num_key_value_heads * c->head_dim;
    return c->num_hidden_layers * hidden * (2 * q + 2 * kv + 3 * inter);
}

static int measure(const cli_command *command, const bench_arguments *a, myelin_model *model,
                   measurement *m) {
    myelin_error error = {0};
    myelin_model_info info = {.size = sizeof info};
    myelin_model_get_info(model, &info);
    snprintf(m->plugin, sizeof m->plugin, "%s", info.plugin);
    m->threads = info.threads;
    m->weight_bytes = info.weight_bytes;
    m->held_bytes = info.held_bytes;
    m->pack = info.pack;
    m->activations = info.activations;
    m->load_seconds = info.load_ms / 1000;
    m->num_runs = a->runs;
    m->runs = cli_allocate((size_t)a->runs * sizeof *m->runs);
    m->tokens = cli_allocate((size_t)a->decode * sizeof *m->tokens);
    for (int32_t i = 0; i < a->runs; i++) {
        m->runs[i] = (run_times){0};
        myelin_status status = a->batch > 1 ? run_batch(a, model, &m->runs[i], m->tokens, &error)
                                            : run_one(a, model, &m->runs[i], m->tokens, &error);
        if (status != MYELIN_OK) {
            cli_message(command, "%s", error.message);
            return cli_use_exit_code(status);
        }
        if (cli_interrupted())
            return CLI_INTERRUPTED;
    }
    set_median(m);
    m->peak = myelin_model_peak(model);
    m->products = products_of(myelin_model_config(model));
    m->peak_bytes = cli_machine_peak_bytes();
    m->huge_bytes = cli_machine_huge_bytes();
    return CLI_OK;
}

static void clear(measurement *m) {
    free(m->runs);
    free(m->tokens);
    *m = (measurement){0};
}

static int open_model(const cli_command *command, const bench_arguments *a,
                      const cli_model_arguments *how, cli_model *model) {
    return a->synthetic != NULL ? cli_open_synthetic(model, command, how, a->synthetic, a->bits)
                                : cli_open_model(model, command, how);
}

static int measure_opened(const cli_command *command, const bench_arguments *a,
                          const cli_model_arguments *how, measurement *m) {
    cli_model model;
    int code = open_model(command, a, how, &model);
    if (code == CLI_OK)
        code = measure(command, a, model.model, m);
    cli_close_model(&model);
    return code;
}

static int measure_once(const cli_command *command, const bench_arguments *a, measurement *all,
                        const char **names, int32_t *count) {
    names[0] = "";
    *count = 1;
    return measure_opened(command, a, &a->model, &all[0]);
}

/* The highest rung of what would run the model: the composed plug-in has only its own. */
static int find_top(const cli_command *command, const bench_arguments *a, myelin_fusion *top) {
    cli_model model;
    myelin_model_info info = {.size = sizeof info};
    int code = open_model(command, a, &a->model, &model);
    if (code == CLI_OK)
        myelin_model_get_info(model.model, &info);
    *top = info.max_fusion;
    cli_close_model(&model);
    return code;
}

static int measure_ladder(const cli_command *command, const bench_arguments *a, measurement *all,
                          const char **names, int32_t *count) {
    myelin_fusion top;
    int code = find_top(command, a, &top);
    if (code != CLI_OK)
        return code;
    for (*count = 0; *count < NUM_RUNGS; ++*count) {
        if (rungs[*count].fusion > top)
            break;
        cli_model_arguments how = a->model;
        how.fusion = rungs[*count].fusion;
        names[*count] = rungs[*count].name;
        measurement *m = &all[*count];
        code = measure_opened(command, a, &how, m);
        if (code != CLI_OK)
            return code;
        m->same_tokens =
            memcmp(m->tokens, all[0].tokens, (size_t)a->decode * sizeof *m->tokens) == 0;
    }
    return CLI_OK;
}

typedef struct limits {
    char *processor;
    double read_small, read_huge, read_one; /* bytes a second */
} limits;

static limits probe(int32_t threads) {
    return (limits){.processor = cli_machine_processor(),
                    .read_small = cli_machine_read_rate(threads, PROBE_BYTES, CLI_PAGES_SMALL),
                    .read_huge = cli_machine_read_rate(threads, PROBE_BYTES, CLI_PAGES_HUGE),
                    .read_one = cli_machine_read_rate(1, PROBE_BYTES, CLI_PAGES_HUGE)};
}

/* Tokens a second if each token took just the time to read the weights once. */
static double read_limit(const measurement *m, const limits *machine) {
    return machine->read_huge / (double)m->weight_bytes;
}

/* Of the products the processor could make, those that reading a prompt made. */
static double peak_share(const measurement *m) {
    return m->median.prefill * m->products / m->peak;
}

static const char *activations_name(myelin_activations activations) {
    return activations == MYELIN_ACTIVATIONS_BF16     ? "bf16"
           : activations == MYELIN_ACTIVATIONS_BF16X2 ? "bf16x2"
           : activations == MYELIN_ACTIVATIONS_INT8   ? "int8"
                                                      : "f32";
}

static void print_weights(FILE *out, const measurement *m, double load_seconds) {
    fprintf(out, "%.1f MB of weights", (double)m->weight_bytes / 1e6);
    if (m->pack == MYELIN_PACK_LOSSLESS)
        fprintf(out, ", packed without loss in %.1f MB", (double)m->held_bytes / 1e6);
    else if (m->pack == MYELIN_PACK_NONE)
        fprintf(out, ", not packed");
    if (m->activations == MYELIN_ACTIVATIONS_BF16)
        fprintf(out, ", times activations rounded to bf16");
    else if (m->activations == MYELIN_ACTIVATIONS_BF16X2)
        fprintf(out, ", times activations in two bf16 numbers");
    else if (m->activations == MYELIN_ACTIVATIONS_INT8)
        fprintf(out, ", times activations rounded to bytes");
    fprintf(out, "; loaded in %.2f s; peak memory %.1f MB, in huge pages %.1f MB\n", load_seconds,
            (double)m->peak_bytes / 1e6, (double)m->huge_bytes / 1e6);
}

static void print_table(const bench_arguments *a, const measurement *all, const char **names,
                        int32_t count, const limits *machine) {
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return;
    fprintf(out, "%s\n", machine->processor);
    fprintf(out, "memory is read at %.1f GB/s with %d threads (4 KiB pages: %.1f), %.1f with one\n",
            machine->read_huge / 1e9, (int)all[0].threads, machine->read_small / 1e9,
            machine->read_one / 1e9);
    print_weights(out, &all[count - 1], all[0].load_seconds);
    if (all[count - 1].peak > 0)
        fprintf(out, "%.0f GFLOP/s of this model's products at most\n",
                2 * all[count - 1].peak / 1e9);
    fprintf(out, "%-17s%-11s%12s%15s%12s%16s\n", a->ladder ? "rung" : "", "plug-in", "prefill",
            "share of peak", "decode", "share of limit");
    for (int32_t i = 0; i < count; i++) {
        const measurement *m = &all[i];
        char share[16] = "-";
        if (m->peak > 0)
            snprintf(share, sizeof share, "%.0f%%", 100 * peak_share(m));
        fprintf(out, "%-17s%-11s%8.1f t/s%15s%8.1f t/s%15.0f%%%s\n", names[i], m->plugin,
                m->median.prefill, share, m->median.decode,
                100 * m->median.decode / (double)a->batch / read_limit(m, machine),
                a->ladder && !m->same_tokens ? "  other tokens" : "");
    }
    fclose(out);
    cli_output(text, length);
    free(text);
}

static json_t *json_of_runs(const measurement *m) {
    json_t *runs = json_array();
    for (int32_t i = 0; i < m->num_runs; i++) {
        json_t *run = json_object();
        json_object_set_new(run, "prefill_tokens_per_second", cli_json_real(m->runs[i].prefill));
        json_object_set_new(run, "decode_tokens_per_second", cli_json_real(m->runs[i].decode));
        json_array_append_new(runs, run);
    }
    return runs;
}

static json_t *json_of(const bench_arguments *a, const measurement *m, const limits *machine) {
    json_t *object = json_object();
    json_object_set_new(object, "prefill_tokens_per_second", cli_json_real(m->median.prefill));
    json_object_set_new(object, "decode_tokens_per_second", cli_json_real(m->median.decode));
    json_object_set_new(
        object, "decode_share_of_read_limit",
        cli_json_real(m->median.decode / (double)a->batch / read_limit(m, machine)));
    if (m->peak > 0) {
        json_object_set_new(object, "peak_products_per_second", cli_json_real(m->peak));
        json_object_set_new(object, "prefill_share_of_peak", cli_json_real(peak_share(m)));
    }
    json_object_set_new(object, "load_seconds", cli_json_real(m->load_seconds));
    json_object_set_new(object, "weight_bytes", json_integer((json_int_t)m->weight_bytes));
    if (m->held_bytes > 0)
        json_object_set_new(object, "held_bytes", json_integer((json_int_t)m->held_bytes));
    if (m->pack != MYELIN_PACK_AUTO)
        json_object_set_new(object, "pack",
                            json_string(m->pack == MYELIN_PACK_LOSSLESS ? "lossless" : "none"));
    json_object_set_new(object, "activations", json_string(activations_name(m->activations)));
    json_object_set_new(object, "plugin", json_string(m->plugin));
    json_object_set_new(object, "threads", json_integer(m->threads));
    json_object_set_new(object, "runs", json_of_runs(m));
    return object;
}

static void print_json(const bench_arguments *a, const measurement *all, const char **names,
                       int32_t count, const limits *machine) {
    json_t *object = json_of(a, &all[count - 1], machine), *read = json_object();
    json_object_set_new(object, "peak_bytes", json_integer((json_int_t)all[count - 1].peak_bytes));
    json_object_set_new(object, "huge_page_bytes",
                        json_integer((json_int_t)all[count - 1].huge_bytes));
    json_object_set_new(read, "processor",
                        cli_json_text(machine->processor, strlen(machine->processor)));
    json_object_set_new(read, "read_bytes_per_second", cli_json_real(machine->read_huge));
    json_object_set_new(read, "read_bytes_per_second_small_pages",
                        cli_json_real(machine->read_small));
    json_object_set_new(read, "read_bytes_per_second_one_thread", cli_json_real(machine->read_one));
    json_object_set_new(object, "machine", read);
    if (a->ladder) {
        json_t *ladder = json_array();
        for (int32_t i = 0; i < count; i++) {
            json_t *rung = json_of(a, &all[i], machine);
            json_object_set_new(rung, "rung", json_string(names[i]));
            json_object_set_new(rung, "same_tokens", json_boolean(all[i].same_tokens));
            json_array_append_new(ladder, rung);
        }
        json_object_set_new(object, "ladder", ladder);
    }
    cli_json_print(object, NULL);
}

static int bench(const cli_command *command, const bench_arguments *a) {
    measurement all[NUM_RUNGS] = {0};
    const char *names[NUM_RUNGS];
    int32_t count;
    int code = a->ladder ? measure_ladder(command, a, all, names, &count)
                         : measure_once(command, a, all, names, &count);
    if (code == CLI_OK) {
        limits machine = probe(all[0].threads);
        if (a->json)
            print_json(a, all, names, count, &machine);
        else
            print_table(a, all, names, count, &machine);
        free(machine.processor);
        code = cli_output_result(command);
    }
    for (int32_t i = 0; i < NUM_RUNGS; i++)
        clear(&all[i]);
    return code;
}

static int run(const cli_command *command, int argc, char **argv) {
    bench_arguments arguments = {.prefill = 128, .decode = 64, .batch = 1, .runs = 3, .top_k = -1};
    int count, code;
    const cli_group groups[] = {
        {"Measuring", bench_options, sizeof bench_options / sizeof *bench_options, &arguments,
         NULL},
        cli_model_group(&arguments.model),
    };
    if (!cli_parse(command, groups, sizeof groups / sizeof *groups, argc, argv, &count, &code))
        return code;
    if (count > 0)
        return cli_usage(command, "expected no argument, found \"%.48s\"", argv[0]);
    if (arguments.synthetic != NULL && arguments.model.model != NULL)
        return cli_usage(command, "--synthetic and --model exclude each other");
    if (arguments.synthetic == NULL && arguments.bits != 0)
        return cli_usage(command, "--bits needs --synthetic");
    if (!arguments.sampled && (arguments.top_k >= 0 || arguments.top_p > 0))
        return cli_usage(command, "--top-k and --top-p need --sampled");
    if (arguments.ladder && arguments.model.fusion != MYELIN_FUSION_AUTO)
        return cli_usage(command, "--ladder and --fusion exclude each other");
    cli_interrupts_defer();
    return bench(command, &arguments);
}

const cli_command cli_command_bench = {
    .name = "bench",
    .synopsis = "[OPTION]...",
    .summary = "measure speed and memory",
    .details = "Reads a prompt of made-up tokens and generates after it, several times, and\n"
               "prints medians beside what the machine could do: decoding one sequence reads\n"
               "every weight once a token, so the rate at which memory is read, measured in\n"
               "the same minute, is its limit. A share above 100% with --batch is tokens\n"
               "sharing one reading. Reading a prompt is limited by how many products the\n"
               "processor makes a second, measured in the same run; attention and the last\n"
               "token's logits are not counted among them.",
    .examples = "  myelin bench\n"
                "  myelin bench --synthetic qwen3-0.6b --bits 4\n"
                "  myelin bench --synthetic qwen3-0.6b --depth 4096 --json\n"
                "  myelin bench --ladder",
    .run = run,
};
