/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler over a plug-in whose keys and values are the tokens themselves: logits are a
 * function of what is read back from the pages, so that a page in the wrong place, shared too early
 * or written to by two changes them. Whatever the schedule, each sequence has the tokens and
 * log-probabilities it has alone.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "base/memory.h"
#include "generate/scheduler.h"
#include "model/composed.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { VOCAB = 80, PAGE = MYELIN_PAGE_POSITIONS, MOST_SEQUENCES = 64, LONGEST = 600 };

/* ---- The plug-in ------------------------------------------------------------------------------
 */

struct myelin_plugin_model {
    int32_t unused;
};

struct myelin_plugin_pool {
    int32_t num_pages;
    int32_t *tokens; /* [num_pages][PAGE] */
};

struct myelin_plugin_sequence {
    myelin_plugin_pool *pool; /* NULL: one page after the other in memory of its own */
    int32_t max_len, length;
    int32_t num_pages;
    int32_t *pages;
    int32_t *tokens;
};

struct myelin_plugin_context {
    int32_t max_tokens, max_len;
};

static struct {
    myelin_plugin_sequence *live[MOST_SEQUENCES];
    bool fails; /* the next calls do */
    bool slow;  /* a prompt's tokens take 10 ms each */
    int32_t calls, longest_chunk, most_tokens, copies, tokens;
} device;

static myelin_status fake_probe(const myelin_model_description *description,
                                myelin_error_buffer *error) {
    (void)description;
    (void)error;
    return MYELIN_OK;
}

static myelin_status fake_load(const myelin_model_description *description, const myelin_host *host,
                               myelin_plugin_model **model, myelin_error_buffer *error) {
    (void)description;
    (void)host;
    (void)error;
    *model = mln_calloc(1, sizeof **model);
    return MYELIN_OK;
}

static void fake_free_model(myelin_plugin_model *model) {
    free(model);
}

static uint64_t fake_sequence_bytes(const myelin_config *config, int32_t max_len) {
    (void)config;
    return (uint64_t)max_len * sizeof(int32_t) + 100;
}

static myelin_status make_sequence(myelin_plugin_pool *pool, int32_t max_len,
                                   myelin_plugin_sequence **out, myelin_error_buffer *error) {
    myelin_plugin_sequence *s = mln_calloc(1, sizeof *s);
    if (s) {
        s->pages = mln_alloc((size_t)(max_len / PAGE + 1), sizeof *s->pages);
        s->tokens = mln_alloc((size_t)max_len, sizeof *s->tokens);
    }
    if (!s || !s->pages || !s->tokens) {
        if (s) {
            free(s->pages);
            free(s->tokens);
        }
        free(s);
        snprintf(error->text, error->size, "could not allocate a sequence");
        return MYELIN_ERROR_MEMORY;
    }
    s->pool = pool;
    s->max_len = max_len;
    for (int i = 0;; i++)
        if (!device.live[i]) {
            device.live[i] = s;
            break;
        }
    *out = s;
    return MYELIN_OK;
}

static myelin_status fake_create_sequence(const myelin_plugin_model *model, int32_t max_len,
                                          myelin_plugin_sequence **sequence,
                                          myelin_error_buffer *error) {
    (void)model;
    return make_sequence(NULL, max_len, sequence, error);
}

static void fake_free_sequence(myelin_plugin_sequence *s) {
    if (!s)
        return;
    for (int i = 0; i < MOST_SEQUENCES; i++)
        if (device.live[i] == s)
            device.live[i] = NULL;
    free(s->pages);
    free(s->tokens);
    free(s);
}

static int32_t fake_sequence_length(const myelin_plugin_sequence *s) {
    return s->length;
}

static void fake_truncate_sequence(myelin_plugin_sequence *s, int32_t length) {
    assert_in_range(length, 0, s->length);
    s->length = length;
}

static uint64_t fake_context_bytes(const myelin_config *config, int32_t max_tokens,
                                   int32_t max_len) {
    (void)config;
    return (uint64_t)max_tokens + (uint64_t)max_len;
}

static myelin_status fake_create_context(const myelin_plugin_model *model, int32_t max_tokens,
                                         int32_t max_len, myelin_plugin_context **context,
                                         myelin_error_buffer *error) {
    (void)model;
    *context = mln_alloc(1, sizeof **context);
    if (!*context) {
        snprintf(error->text, error->size, "could not allocate a context");
        return MYELIN_ERROR_MEMORY;
    }
    **context = (myelin_plugin_context){max_tokens, max_len};
    return MYELIN_OK;
}

static void fake_free_context(myelin_plugin_context *context) {
    free(context);
}

static int32_t *token_at(myelin_plugin_sequence *s, int32_t position) {
    if (!s->pool)
        return &s->tokens[position];
    assert_true(position / PAGE < s->num_pages);
    return &s->pool->tokens[s->pages[position / PAGE] * PAGE + position % PAGE];
}

/* What is written to belongs to one alone. */
static void check_own(const myelin_plugin_sequence *s, int32_t page) {
    for (int i = 0; i < MOST_SEQUENCES; i++)
        for (int32_t k = 0; device.live[i] && k < device.live[i]->num_pages; k++)
            assert_true(device.live[i] == s || device.live[i]->pages[k] != page);
}

static void put(myelin_plugin_sequence *s, int32_t id) {
    assert_true(s->length < s->max_len);
    int32_t *token = token_at(s, s->length);
    if (s->pool)
        check_own(s, s->pages[s->length / PAGE]);
    *token = id;
    s->length++;
}

/* Logits after all that can be read back. */
static void compute_logits(myelin_plugin_sequence *s, float *logits) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int32_t i = 0; i < s->length; i++)
        hash = (hash ^ (uint32_t)(*token_at(s, i) + 1)) * UINT64_C(0x100000001b3);
    for (int32_t id = 0; id < VOCAB; id++) {
        hash = hash * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        logits[id] = (float)(hash >> 40) * 0x1p-22f;
    }
}

static myelin_status fail_if_asked(myelin_error_buffer *error) {
    device.calls++;
    if (!device.fails)
        return MYELIN_OK;
    snprintf(error->text, error->size, "the device is gone");
    return MYELIN_ERROR_DEVICE;
}

static myelin_status fake_forward(myelin_plugin_context *context, const myelin_span *spans,
                                  int32_t num_spans, myelin_error_buffer *error) {
    int32_t tokens = 0;
    for (int32_t i = 0; i < num_spans; i++) {
        tokens += spans[i].count;
        assert_true(spans[i].sequence->length + spans[i].count <= context->max_len);
    }
    assert_in_range(tokens, 1, context->max_tokens);
    device.tokens += tokens;
    device.most_tokens = tokens > device.most_tokens ? tokens : device.most_tokens;
    if (device.slow)
        usleep(10000 * (unsigned)(tokens - num_spans));
    myelin_status status = fail_if_asked(error);
    for (int32_t i = 0; status == MYELIN_OK && i < num_spans; i++) {
        for (int32_t k = 0; k < spans[i].count; k++)
            put(spans[i].sequence, spans[i].ids[k]);
        assert_in_range(spans[i].num_logits, 0, 1);
        if (spans[i].num_logits)
            compute_logits(spans[i].sequence, spans[i].logits);
    }
    return status;
}

static myelin_status fake_decode_greedy(myelin_plugin_context *context,
                                        myelin_plugin_sequence *const *sequences,
                                        const int32_t *ids, int32_t num_sequences, int32_t steps,
                                        int32_t *out_ids, myelin_error_buffer *error) {
    float logits[VOCAB];
    assert_in_range(num_sequences, 1, context->max_tokens);
    device.longest_chunk = steps > device.longest_chunk ? steps : device.longest_chunk;
    myelin_status status = fail_if_asked(error);
    for (int32_t i = 0; status == MYELIN_OK && i < num_sequences; i++)
        for (int32_t k = 0, id = ids[i]; k < steps; k++) {
            put(sequences[i], id);
            compute_logits(sequences[i], logits);
            id = 0;
            for (int32_t other = 1; other < VOCAB; other++)
                id = logits[other] > logits[id] ? other : id;
            out_ids[i * steps + k] = id;
        }
    return status;
}

static uint64_t fake_page_bytes(const myelin_config *config) {
    (void)config;
    return PAGE * sizeof(int32_t);
}

static myelin_status fake_create_pool(const myelin_plugin_model *model, int32_t num_pages,
                                      myelin_plugin_pool **out, myelin_error_buffer *error) {
    (void)model;
    myelin_plugin_pool *pool = mln_calloc(1, sizeof *pool);
    if (pool)
        pool->tokens = mln_calloc((size_t)num_pages * PAGE, sizeof *pool->tokens);
    if (!pool || !pool->tokens) {
        free(pool);
        snprintf(error->text, error->size, "could not allocate a pool");
        return MYELIN_ERROR_MEMORY;
    }
    pool->num_pages = num_pages;
    *out = pool;
    return MYELIN_OK;
}

static void fake_free_pool(myelin_plugin_pool *pool) {
    if (pool)
        free(pool->tokens);
    free(pool);
}

static myelin_status fake_create_paged_sequence(myelin_plugin_pool *pool, int32_t max_len,
                                                myelin_plugin_sequence **sequence,
                                                myelin_error_buffer *error) {
    return make_sequence(pool, max_len, sequence, error);
}

static void fake_set_pages(myelin_plugin_sequence *s, const int32_t *pages, int32_t count,
                           int32_t length) {
    assert_true(count <= (s->max_len + PAGE - 1) / PAGE && length <= count * PAGE);
    for (int32_t i = 0; i < count; i++)
        assert_in_range(pages[i], 0, s->pool->num_pages - 1);
    if (count)
        memcpy(s->pages, pages, (size_t)count * sizeof *pages);
    s->num_pages = count;
    s->length = length;
}

static void fake_copy_page(myelin_plugin_pool *pool, int32_t to, int32_t from) {
    assert_int_not_equal(to, from);
    check_own(NULL, to);
    memcpy(pool->tokens + (size_t)to * PAGE, pool->tokens + (size_t)from * PAGE,
           PAGE * sizeof *pool->tokens);
    device.copies++;
}

static const myelin_plugin paged = {
    .magic = MYELIN_PLUGIN_MAGIC,
    .abi_version = MYELIN_PLUGIN_ABI_VERSION,
    .struct_size = sizeof(myelin_plugin),
    .max_fusion = MYELIN_FUSION_CHUNK,
    .name = "tokens",
    .probe = fake_probe,
    .load = fake_load,
    .free_model = fake_free_model,
    .sequence_bytes = fake_sequence_bytes,
    .create_sequence = fake_create_sequence,
    .free_sequence = fake_free_sequence,
    .sequence_length = fake_sequence_length,
    .truncate_sequence = fake_truncate_sequence,
    .context_bytes = fake_context_bytes,
    .create_context = fake_create_context,
    .free_context = fake_free_context,
    .forward = fake_forward,
    .decode_greedy = fake_decode_greedy,
    .page_bytes = fake_page_bytes,
    .create_pool = fake_create_pool,
    .free_pool = fake_free_pool,
    .create_paged_sequence = fake_create_paged_sequence,
    .set_pages = fake_set_pages,
    .copy_page = fake_copy_page,
};

/* ---- Requests ---------------------------------------------------------------------------------
 */

static char *directory;
static mln_checkpoint *checkpoint;
static myelin_plugin whole; /* the same without pages */
static mln_model *with_pages, *without_pages;

static int open_models(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    directory = builder_write_spec(&spec);
    whole = paged;
    whole.page_bytes = NULL;
    mln_model_options first = {.plugin = &paged, .threads = 1};
    mln_model_options second = {.plugin = &whole, .threads = 1};
    return mln_checkpoint_open(&checkpoint, directory, NULL) ||
           mln_model_load(&with_pages, checkpoint, &first, NULL) ||
           mln_model_load(&without_pages, checkpoint, &second, NULL);
}

static int close_models(void **state) {
    (void)state;
    mln_model_free(with_pages);
    mln_model_free(without_pages);
    mln_checkpoint_free(checkpoint);
    temp_directory_remove(directory);
    return 0;
}

static uint32_t random_state;

static int32_t below(int32_t limit) {
    random_state = random_state * 1664525u + 1013904223u;
    return (int32_t)((uint64_t)random_state * (uint64_t)limit >> 32);
}

/* What a sequence produced: its tokens, and a digest of all logits behind each. */
typedef struct trace {
    int32_t count;
    int32_t ids[LONGEST];
    uint64_t digest[LONGEST];
    mln_phase phase;
} trace;

typedef struct job {
    mln_ticket ticket; /* the first member */
    int32_t ids[LONGEST];
    mln_generation generation;
    trace expected, found;
    int32_t cached;
    bool begun, ended;
} job;

static void note(trace *t, const mln_sequence *s) {
    t->phase = s->phase;
    if (!s->fresh)
        return;
    assert_int_equal(s->num_generated, t->count + 1);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int32_t i = 0; s->generation.want_logprobs && i < VOCAB; i++) {
        uint32_t bits;
        memcpy(&bits, &s->logprobs[i], sizeof bits);
        hash = (hash ^ bits) * UINT64_C(0x100000001b3);
    }
    t->ids[t->count] = s->ids[s->count - 1];
    t->digest[t->count++] = hash;
}

static bool running(const mln_sequence *s) {
    return s->phase == MLN_READING || s->phase == MLN_GENERATING;
}

static void run_alone(job *j) {
    mln_sequence *s = NULL;
    mln_decoder *d = NULL;
    assert_int_equal(mln_sequence_create(&s, with_pages, j->ticket.max_len, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_append(s, j->ids, (size_t)j->ticket.count, NULL), MYELIN_OK);
    assert_int_equal(mln_decoder_create(&d, with_pages, 1, s->max_len, NULL), MYELIN_OK);
    d->max_chunk = 1;
    assert_int_equal(mln_sequence_begin(s, &j->generation, NULL), MYELIN_OK);
    while (running(s)) {
        assert_int_equal(mln_decoder_step(d, &s, 1, NULL), MYELIN_OK);
        note(&j->expected, s);
    }
    mln_decoder_free(d);
    mln_sequence_free(s);
}

static const int32_t stop_ids[] = {3};

/* A request of kind i: greedy in chunks, sampled, penalised; prompts begin alike. */
static job *make_job(int32_t longest_prompt, int32_t most_new) {
    job *j = calloc(1, sizeof *j);
    int32_t same = below(longest_prompt), kind = below(4);
    j->ticket.ids = j->ids;
    j->ticket.count = 1 + below(longest_prompt);
    for (int32_t i = 0; i < j->ticket.count; i++)
        j->ids[i] = i < same ? 7 * i % 31 : below(VOCAB);
    j->ticket.priority = below(3);
    j->ticket.share = below(5) > 0;
    j->generation = (mln_generation){
        .sampling = {.sampled = kind >= 2,
                     .temperature = 1,
                     .top_p = 1,
                     .repetition_penalty = kind == 3 ? 1.3 : 1,
                     .seed = (uint64_t)below(100)},
        .max_new_tokens = 1 + below(most_new),
        .stop_ids = stop_ids,
        .num_stop_ids = (size_t)below(2),
        .max_chunk = 1 + below(8),
        .want_logprobs = kind == 1,
    };
    j->ticket.max_len = j->ticket.count + j->generation.max_new_tokens - 1 - below(5);
    if (j->ticket.max_len < j->ticket.count)
        j->ticket.max_len = j->ticket.count;
    run_alone(j);
    return j;
}

static void check_as_alone(const job *j) {
    const trace *a = &j->expected, *b = &j->found;
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->phase, b->phase);
    assert_memory_equal(a->ids, b->ids, (size_t)a->count * sizeof *a->ids);
    assert_memory_equal(a->digest, b->digest, (size_t)a->count * sizeof *a->digest);
}

/* ---- Schedules --------------------------------------------------------------------------------
 */

static mln_scheduler *make_scheduler(const mln_model *model, int32_t max_sequences, int32_t pages,
                                     int32_t step_tokens, bool prefix_cache) {
    mln_scheduler *s = NULL;
    uint64_t page = model == with_pages ? fake_page_bytes(NULL) : fake_sequence_bytes(NULL, PAGE);
    mln_scheduler_options options = {.max_sequences = max_sequences,
                                     .step_tokens = step_tokens,
                                     .kv_bytes = page * (uint64_t)pages + page / 2,
                                     .prefix_cache = prefix_cache};
    assert_int_equal(mln_scheduler_create(&s, model, &options, NULL), MYELIN_OK);
    assert_int_equal(mln_scheduler_get_memory(s).total, pages);
    return s;
}

/* Who begins is who was first in line. */
static int32_t admit_all(mln_scheduler *s) {
    int32_t cached = 0;
    for (;;) {
        mln_ticket *first = mln_scheduler_line(s), *ticket;
        assert_int_equal(mln_scheduler_admit(s, &ticket, NULL), MYELIN_OK);
        if (!ticket)
            return cached;
        assert_ptr_equal(ticket, first);
        job *j = (job *)ticket;
        assert_false(j->begun);
        j->begun = true;
        assert_int_equal(mln_sequence_begin(ticket->sequence, &j->generation, NULL), MYELIN_OK);
        j->cached = mln_sequence_cached(ticket->sequence);
        assert_true(j->cached < ticket->count);
        cached += j->cached;
    }
}

/* One step; nobody that decodes is left out of it, unless tokens made before are handed out. */
static int32_t step(mln_scheduler *s) {
    int32_t count, aside = 0;
    uint64_t steps = mln_scheduler_steps(s);
    mln_phase before[MOST_SEQUENCES];
    mln_ticket *const *begun = mln_scheduler_begun(s, &count);
    for (int32_t i = 0; i < count; i++)
        before[i] = begun[i]->aside ? MLN_IDLE : begun[i]->sequence->phase;
    assert_int_equal(mln_scheduler_step(s, NULL), MYELIN_OK);
    assert_true(count == 0 || !begun[0]->aside);
    for (int32_t i = count; i-- > 0;) {
        job *j = (job *)begun[i];
        mln_sequence *q = begun[i]->sequence;
        if (begun[i]->aside)
            aside++;
        else if (before[i] == MLN_GENERATING && mln_scheduler_steps(s) > steps)
            assert_true(q->fresh);
        note(&j->found, q);
        if (running(q))
            continue;
        mln_scheduler_remove(s, &j->ticket);
        j->ended = true;
    }
    return aside;
}

typedef struct totals {
    int32_t cached, aside;
} totals;

/* Random requests come and go; those that are not cancelled end as alone. */
static totals run_schedule(const mln_model *model, int32_t max_sequences, int32_t pages,
                           int32_t step_tokens, bool prefix_cache, int32_t num_jobs) {
    mln_scheduler *s = make_scheduler(model, max_sequences, pages, step_tokens, prefix_cache);
    job **jobs = calloc((size_t)num_jobs, sizeof(job *));
    totals sum = {0};
    int32_t made = 0, ended = 0, longest = pages * PAGE - 150 < 300 ? pages * PAGE - 150 : 300;
    while (ended < num_jobs) {
        while (made < num_jobs && below(3) == 0) {
            jobs[made] = make_job(longest, 150);
            assert_int_equal(mln_scheduler_fits(s, jobs[made]->ticket.max_len, NULL), MYELIN_OK);
            mln_scheduler_add(s, &jobs[made++]->ticket);
        }
        if (made > 0 && below(20) == 0) {
            job *j = jobs[below(made)];
            if (!j->ended) {
                mln_scheduler_remove(s, &j->ticket);
                j->ended = true;
                j->expected.count = -1;
            }
        }
        sum.cached += admit_all(s);
        sum.aside += step(s);
        ended = 0;
        for (int32_t i = 0; i < made; i++)
            ended += jobs[i]->ended;
    }
    mln_scheduler_memory memory = mln_scheduler_get_memory(s);
    assert_int_equal(memory.used, 0);
    if (!prefix_cache)
        assert_int_equal(memory.cached + sum.cached, 0);
    for (int32_t i = 0; i < num_jobs; i++) {
        if (jobs[i]->expected.count >= 0)
            check_as_alone(jobs[i]);
        free(jobs[i]);
    }
    free(jobs);
    mln_scheduler_free(s);
    return sum;
}

static void add(totals *sum, totals more) {
    sum->cached += more.cached;
    sum->aside += more.aside;
}

static void test_random_schedules(void **state) {
    (void)state;
    random_state = 9;
    totals roomy = {0}, tight = {0}, tiny = {0}, private = {0}, reserved = {0};
    for (int32_t round = 0; round < 3; round++) {
        add(&roomy, run_schedule(with_pages, 16, 200, 0, true, 100));
        add(&tight, run_schedule(with_pages, 8, 14, 40, true, 100));
        add(&tiny, run_schedule(with_pages, 16, 4, 16, true, 100));
        add(&private, run_schedule(with_pages, 16, 12, 0, false, 100));
        add(&roomy, run_schedule(with_pages, 1, 6, 7, true, 60));
        add(&reserved, run_schedule(without_pages, 8, 30, 0, true, 100));
        add(&reserved, run_schedule(without_pages, 3, 6, 9, false, 60));
    }
    assert_true(roomy.cached > 10000 && roomy.aside == 0);
    assert_true(tight.cached > 5000 && tight.aside > 50);
    assert_true(tiny.cached > 1000 && tiny.aside > 500);
    assert_true(private.cached == 0 && private.aside > 20);
    assert_true(reserved.cached == 0 && reserved.aside == 0);
    assert_true(device.copies > 100);
    assert_int_equal(device.longest_chunk, 4);
}

/* A request of `count` tokens, the first `same` of which all such requests have. */
static job *plain_job(int32_t count, int32_t same, int32_t max_new_tokens, int32_t priority) {
    job *j = make_job(1, 1);
    for (int32_t i = 0; i < count; i++)
        j->ids[i] = i < same ? 7 * i % 31 : below(VOCAB);
    j->ticket.count = count;
    j->ticket.max_len = count + max_new_tokens - 1;
    j->ticket.priority = priority;
    j->ticket.share = true;
    j->generation = (mln_generation){
        .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
        .max_new_tokens = max_new_tokens,
        .max_chunk = 4,
    };
    j->expected = (trace){0};
    run_alone(j);
    return j;
}

static void run_to_end(mln_scheduler *s, job *j) {
    while (!j->ended) {
        admit_all(s);
        (void)step(s);
    }
    check_as_alone(j);
}

/* What is cached is used to the token, the last one of a prompt apart. */
static void test_reuse_is_exact(void **state) {
    (void)state;
    random_state = 4;
    static const struct {
        int32_t first, second, same, cached;
    } cases[] = {{200, 200, 130, 130}, {200, 150, 128, 128}, {256, 256, 256, 255},
                 {256, 257, 256, 256}, {10, 30, 10, 10},     {10, 30, 1, 1},
                 {10, 30, 0, 0},       {1, 1, 1, 0},         {65, 64, 64, 63}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        mln_scheduler *s = make_scheduler(with_pages, 2, 20, 0, true);
        job *a = plain_job(cases[c].first, cases[c].same, 1, 0);
        job *b = plain_job(cases[c].second, cases[c].same, 5, 0);
        /* A random token may be alike as well. */
        for (int32_t i = cases[c].same; i < cases[c].first && i < cases[c].second; i++)
            assert_true(i > cases[c].same || a->ids[i] != b->ids[i]);
        mln_scheduler_add(s, &a->ticket);
        run_to_end(s, a);
        mln_scheduler_add(s, &b->ticket);
        run_to_end(s, b);
        assert_int_equal(b->cached, cases[c].cached);
        mln_scheduler_free(s);
        free(a);
        free(b);
    }
}

/* Requests that come at once and begin alike read what they have in common once. */
static void test_reading_together(void **state) {
    (void)state;
    random_state = 12;
    mln_scheduler *s = make_scheduler(with_pages, 6, 60, 100, true);
    job *jobs[6];
    for (int i = 0; i < 6; i++) {
        jobs[i] = plain_job(500 + i, 450, 1, 0);
        mln_scheduler_add(s, &jobs[i]->ticket);
    }
    device.tokens = 0;
    admit_all(s);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(jobs[i]->cached, 0);
        run_to_end(s, jobs[i]);
        assert_true(i == 0 || jobs[i]->ticket.caught_up > 300);
        assert_true(jobs[i]->ticket.caught_up <= 450);
    }
    assert_in_range(device.tokens, 500, 500 + 5 * 150);
    for (int i = 0; i < 6; i++)
        free(jobs[i]);
    mln_scheduler_free(s);
}

/* The next turn of a conversation finds the prompt of the last one and what was generated. */
static void test_generated_tokens_are_cached(void **state) {
    (void)state;
    random_state = 8;
    mln_scheduler *s = make_scheduler(with_pages, 2, 20, 0, true);
    job *a = plain_job(50, 0, 100, 0), *b = plain_job(170, 0, 9, 0);
    mln_scheduler_add(s, &a->ticket);
    run_to_end(s, a);
    memcpy(b->ids, a->ids, 50 * sizeof *b->ids);
    memcpy(b->ids + 50, a->found.ids, 100 * sizeof *b->ids);
    b->expected = (trace){0};
    run_alone(b);
    mln_scheduler_add(s, &b->ticket);
    run_to_end(s, b);
    assert_int_equal(b->cached, 149); /* the last token was never read */
    mln_scheduler_free(s);
    free(a);
    free(b);
}

/* Priority, then arrival; a large one that waits for room is not overtaken by small ones. */
static void test_order(void **state) {
    (void)state;
    random_state = 3;
    mln_scheduler *s = make_scheduler(with_pages, 4, 10, 0, false);
    job *jobs[] = {plain_job(500, 0, 20, 0), plain_job(400, 0, 5, 0), plain_job(10, 0, 5, 0),
                   plain_job(10, 0, 5, 1),   plain_job(10, 0, 5, -1), plain_job(10, 0, 5, 1)};
    for (size_t i = 0; i < 6; i++)
        mln_scheduler_add(s, &jobs[i]->ticket);
    static const size_t order[] = {3, 5, 0, 1, 2, 4};
    mln_ticket *t = mln_scheduler_line(s);
    for (size_t i = 0; i < 6; i++, t = t->next)
        assert_ptr_equal(t, &jobs[order[i]]->ticket);
    assert_null(t);
    admit_all(s);
    /* 1 and, behind it, 2 and 4 wait: 0 has 8 of the 10 pages. */
    assert_true(jobs[3]->begun && jobs[5]->begun && !jobs[1]->begun && !jobs[2]->begun);
    while (!jobs[0]->ended) {
        assert_false(jobs[2]->begun);
        (void)step(s);
        admit_all(s);
    }
    for (size_t i = 0; i < 6; i++)
        run_to_end(s, jobs[i]);
    for (size_t i = 0; i < 6; i++)
        free(jobs[i]);
    mln_scheduler_free(s);
}

/* Prompts are read in pieces beside those that decode, and steps stay within their bound. */
static void test_steps_are_bounded(void **state) {
    (void)state;
    random_state = 2;
    mln_scheduler *s = make_scheduler(with_pages, 4, 40, 24, true);
    job *a = plain_job(5, 0, 100, 0), *b = plain_job(400, 0, 5, 0);
    mln_scheduler_add(s, &a->ticket);
    admit_all(s);
    (void)step(s);
    mln_scheduler_add(s, &b->ticket);
    device.most_tokens = 0;
    for (int32_t before = 0; b->found.count == 0; before = a->found.count) {
        admit_all(s);
        (void)step(s); /* which checks that every decoding sequence goes on */
        assert_true(a->found.count > before);
    }
    assert_in_range(device.most_tokens, 16, 24);
    assert_in_range(a->found.count, 400 / 24, 100);
    run_to_end(s, a);
    run_to_end(s, b);
    mln_scheduler_free(s);
    free(a);
    free(b);
}

/* Where prompts take long, a step that others decode in reads less of them. */
static void test_slow_prompts(void **state) {
    (void)state;
    random_state = 7;
    mln_scheduler *s = make_scheduler(with_pages, 4, 40, 100, true);
    job *a = plain_job(5, 0, 100, 0), *b = plain_job(110, 0, 5, 0);
    mln_scheduler_add(s, &a->ticket);
    admit_all(s);
    (void)step(s);
    mln_scheduler_add(s, &b->ticket);
    device.slow = true;
    device.most_tokens = 0;
    admit_all(s);
    while (device.most_tokens <= 2) /* past what a chunk made before */
        (void)step(s);
    assert_int_equal(device.most_tokens, 1 + 1 + 32);
    device.most_tokens = 0;
    for (int i = 0; i < 3; i++)
        (void)step(s);
    assert_int_equal(device.most_tokens, 1 + 1 + 16);
    device.slow = false;
    run_to_end(s, b);
    run_to_end(s, a);
    mln_scheduler_free(s);
    free(a);
    free(b);
}

static void test_failing_step(void **state) {
    (void)state;
    random_state = 6;
    const mln_model *models[] = {with_pages, without_pages};
    for (int m = 0; m < 2; m++) {
        mln_scheduler *s = make_scheduler(models[m], 3, 40, 0, true);
        job *a = plain_job(200, 200, 20, 0), *b = plain_job(200, 150, 20, 0);
        job *c = plain_job(200, 150, 20, 0);
        mln_scheduler_add(s, &a->ticket);
        mln_scheduler_add(s, &b->ticket);
        admit_all(s);
        for (int i = 0; i < 6; i++)
            (void)step(s);
        myelin_error error = {0};
        device.fails = true;
        int32_t handed_out = 0; /* tokens of a chunk made before */
        while (mln_scheduler_step(s, &error) == MYELIN_OK)
            assert_true(++handed_out < 4);
        assert_int_equal(error.status, MYELIN_ERROR_DEVICE);
        assert_string_equal(error.message, "tokens: the device is gone");
        device.fails = false;
        mln_scheduler_remove(s, &a->ticket);
        mln_scheduler_remove(s, &b->ticket);
        assert_int_equal(mln_scheduler_get_memory(s).used, 0);
        assert_int_equal(mln_scheduler_get_memory(s).cached, 0);
        mln_scheduler_add(s, &c->ticket);
        run_to_end(s, c);
        assert_int_equal(c->cached, 0);
        mln_scheduler_free(s);
        free(a);
        free(b);
        free(c);
    }
}

/* Steps take no memory; where it fails to be had elsewhere, one request or the start fails. */
static void test_memory(void **state) {
    (void)state;
    random_state = 1;
    const mln_model *models[] = {with_pages, without_pages};
    for (int m = 0; m < 2; m++) {
        job *a = plain_job(100, 0, 50, 0);
        myelin_error error = {0};
        mln_scheduler_options options = {.max_sequences = 2, .sequence_len = 200};
        mln_scheduler *s = NULL;
        myelin_status status = MYELIN_ERROR_MEMORY;
        uint64_t n = 0;
        for (; status != MYELIN_OK; mln_fail_allocation(0, false)) {
            n++;
            mln_fail_allocation(n, n % 2);
            status = mln_scheduler_create(&s, models[m], &options, &error);
            assert_true(status == MYELIN_OK || status == MYELIN_ERROR_MEMORY);
            assert_true((status == MYELIN_OK) == (s != NULL));
        }
        assert_true(n > 8);
        assert_int_equal(mln_scheduler_fits(s, 512, &error), MYELIN_OK);
        assert_int_equal(mln_scheduler_fits(s, 513, &error), MYELIN_ERROR_CACHE_FULL);
        mln_scheduler_add(s, &a->ticket);
        mln_ticket *ticket;
        mln_fail_allocation(1, true);
        status = mln_scheduler_admit(s, &ticket, &error);
        assert_ptr_equal(ticket, &a->ticket);
        assert_int_equal(status, models[m] == with_pages ? MYELIN_OK : MYELIN_ERROR_MEMORY);
        mln_fail_allocation(0, false);
        if (status == MYELIN_OK)
            mln_scheduler_remove(s, ticket);
        mln_scheduler_add(s, &a->ticket);
        admit_all(s);
        (void)mln_fail_allocation(0, false);
        while (!a->ended)
            (void)step(s);
        if (models[m] == with_pages)
            assert_int_equal(mln_fail_allocation(0, false), 0);
        check_as_alone(a);
        mln_scheduler_free(s);
        free(a);
    }
}

static void test_budgets(void **state) {
    (void)state;
    myelin_error error = {0};
    mln_scheduler *s;
    mln_scheduler_options options = {.max_sequences = 2, .kv_bytes = 255, .sequence_len = 100};
    assert_int_equal(mln_scheduler_create(&s, with_pages, &options, &error), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "kv_bytes: expected at least 256"));
    assert_null(s);
    options.kv_bytes = 0;
    assert_int_equal(mln_scheduler_create(&s, with_pages, &options, &error), MYELIN_OK);
    assert_int_equal(mln_scheduler_get_memory(s).total, 4); /* 2 of 100 positions */
    assert_int_equal(mln_scheduler_get_memory(s).bytes, 1024);
    mln_scheduler_free(s);
    mln_scheduler_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_schedules),
        cmocka_unit_test(test_reuse_is_exact),
        cmocka_unit_test(test_reading_together),
        cmocka_unit_test(test_generated_tokens_are_cached),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_steps_are_bounded),
        cmocka_unit_test(test_slow_prompts),
        cmocka_unit_test(test_failing_step),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_budgets),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
