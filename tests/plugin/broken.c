/* SPDX-License-Identifier: Apache-2.0 */
/* A plug-in with one fault, chosen by -DFAULT_...; without any, one that gives token 7 always. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "myelin/plugin.h"

struct myelin_plugin_model {
    int32_t vocab_size;
};
struct myelin_plugin_sequence {
    int32_t length;
};
struct myelin_plugin_context {
    const myelin_plugin_model *model;
};

#define UNUSED(x) ((void)(x))

#ifndef STEP_TOKENS
#define STEP_TOKENS 0
#endif

/* Fails with words that fill the whole buffer and have no NUL, or with a short reason. */
__attribute__((unused)) static myelin_status refuse(const char *text, myelin_error_buffer *error) {
#ifdef FAULT_UNTERMINATED
    UNUSED(text);
    memset(error->text, 'x', error->size);
#else
    snprintf(error->text, error->size, "%s", text);
#endif
    return MYELIN_ERROR_DEVICE;
}

static myelin_status probe(const myelin_model_description *description,
                           myelin_error_buffer *error) {
    UNUSED(description);
    UNUSED(error);
#if defined FAULT_PROBE || defined FAULT_UNTERMINATED
    return refuse("no such processor", error);
#elif defined FAULT_STATUS
    return (myelin_status)77;
#elif defined FAULT_TWICE
    static int calls;
    return calls++ ? refuse("asked twice", error) : MYELIN_OK;
#else
    return MYELIN_OK;
#endif
}

static myelin_status load(const myelin_model_description *description, const myelin_host *host,
                          myelin_plugin_model **model, myelin_error_buffer *error) {
    UNUSED(description);
    UNUSED(host);
    UNUSED(error);
#ifdef FAULT_LOAD
    *model = (myelin_plugin_model *)(void *)error; /* not to be freed */
    return refuse("weights too heavy", error);
#elif defined FAULT_LOAD_NULL
    *model = NULL;
    return MYELIN_OK;
#else
    *model = calloc(1, sizeof **model);
    if (!*model)
        return MYELIN_ERROR_MEMORY;
    (*model)->vocab_size = description->config->vocab_size;
    return MYELIN_OK;
#endif
}

static void free_model(myelin_plugin_model *model) {
    free(model);
}

static uint64_t sequence_bytes(const myelin_config *config, int32_t max_len) {
    UNUSED(config);
    UNUSED(max_len);
    return sizeof(myelin_plugin_sequence);
}

static myelin_status create_sequence(const myelin_plugin_model *model, int32_t max_len,
                                     myelin_plugin_sequence **sequence,
                                     myelin_error_buffer *error) {
    UNUSED(model);
    UNUSED(max_len);
    UNUSED(error);
#ifdef FAULT_SEQUENCE
    UNUSED(sequence);
    return refuse("no room for a sequence", error);
#elif defined FAULT_SEQUENCE_NULL
    *sequence = NULL;
    return MYELIN_OK;
#else
    *sequence = calloc(1, sizeof **sequence);
    return *sequence ? MYELIN_OK : MYELIN_ERROR_MEMORY;
#endif
}

static void free_sequence(myelin_plugin_sequence *sequence) {
    free(sequence);
}

static int32_t sequence_length(const myelin_plugin_sequence *sequence) {
    return sequence->length;
}

static void truncate_sequence(myelin_plugin_sequence *sequence, int32_t length) {
    sequence->length = length;
}

static uint64_t context_bytes(const myelin_config *config, int32_t max_tokens, int32_t max_len) {
    UNUSED(config);
    UNUSED(max_tokens);
    UNUSED(max_len);
    return sizeof(myelin_plugin_context);
}

static myelin_status create_context(const myelin_plugin_model *model, int32_t max_tokens,
                                    int32_t max_len, myelin_plugin_context **context,
                                    myelin_error_buffer *error) {
    UNUSED(max_tokens);
    UNUSED(max_len);
    UNUSED(error);
#ifdef FAULT_CONTEXT
    UNUSED(model);
    UNUSED(context);
    return refuse("no scratch memory left", error);
#else
    if (STEP_TOKENS && max_tokens != STEP_TOKENS)
        return refuse("other calls than were asked for", error);
    *context = calloc(1, sizeof **context);
    if (!*context)
        return MYELIN_ERROR_MEMORY;
    (*context)->model = model;
    return MYELIN_OK;
#endif
}

static void free_context(myelin_plugin_context *context) {
    free(context);
}

static myelin_status forward(myelin_plugin_context *context, const myelin_span *spans,
                             int32_t num_spans, myelin_error_buffer *error) {
    UNUSED(error);
#ifdef FAULT_FORWARD
    UNUSED(context);
    UNUSED(spans);
    UNUSED(num_spans);
    return refuse("the device went away", error);
#else
#ifdef FAULT_DIES
    static atomic_int calls;
    if (atomic_fetch_add(&calls, 1) >= 8)
        return refuse("the device went away", error);
#endif
    size_t vocab = (size_t)context->model->vocab_size;
    for (int32_t s = 0; s < num_spans; s++) {
        /* what the tests give it is longer than a call, so that the first one is full */
        if (STEP_TOKENS && spans[s].sequence->length == 0 && spans[s].count != STEP_TOKENS)
            return refuse("a call that is not full", error);
        for (int32_t i = 0; i < spans[s].num_logits; i++) {
            memset(spans[s].logits + (size_t)i * vocab, 0, vocab * sizeof(float));
            spans[s].logits[(size_t)i * vocab + 7] = 1;
        }
        spans[s].sequence->length += spans[s].count;
    }
    return MYELIN_OK;
#endif
}

#if defined FAULT_GREEDY || defined FAULT_GREEDY_ID
static myelin_status decode_greedy(myelin_plugin_context *context,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   int32_t num_sequences, int32_t steps, int32_t *out_ids,
                                   myelin_error_buffer *error) {
    UNUSED(ids);
    UNUSED(error);
#ifdef FAULT_GREEDY
    UNUSED(context);
    UNUSED(sequences);
    UNUSED(num_sequences);
    UNUSED(steps);
    UNUSED(out_ids);
    return refuse("no more tokens", error);
#else
    for (int32_t s = 0; s < num_sequences; s++) {
        sequences[s]->length += steps;
        for (int32_t i = 0; i < steps; i++)
            out_ids[s * steps + i] = context->model->vocab_size;
    }
    return MYELIN_OK;
#endif
}
#define DECODE_GREEDY decode_greedy
#else
#define DECODE_GREEDY NULL
#endif

#if defined FAULT_SAMPLE_ID || defined OLDER
static myelin_status decode_sample(myelin_plugin_context *context,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   const myelin_draw *draws, int32_t num_sequences, int32_t steps,
                                   int32_t *out_ids, myelin_error_buffer *error) {
    UNUSED(ids);
    UNUSED(draws);
    UNUSED(error);
    for (int32_t s = 0; s < num_sequences; s++) {
        sequences[s]->length += steps;
        for (int32_t i = 0; i < steps; i++)
            out_ids[s * steps + i] = context->model->vocab_size;
    }
    return MYELIN_OK;
}
#define DECODE_SAMPLE decode_sample
#else
#define DECODE_SAMPLE NULL
#endif

#ifdef PAGES /* never called: the table is refused, or nothing asks for pages */
static uint64_t page_bytes(const myelin_config *config) {
    UNUSED(config);
    return UINT64_MAX;
}

static myelin_status create_pool(const myelin_plugin_model *model, int32_t num_pages,
                                 myelin_plugin_pool **pool, myelin_error_buffer *error) {
    UNUSED(model);
    UNUSED(num_pages);
    *pool = NULL;
    return refuse("no pages", error);
}

static void free_pool(myelin_plugin_pool *pool) {
    UNUSED(pool);
}

static myelin_status create_paged_sequence(myelin_plugin_pool *pool, int32_t max_len,
                                           myelin_plugin_sequence **sequence,
                                           myelin_error_buffer *error) {
    UNUSED(pool);
    UNUSED(max_len);
    *sequence = NULL;
    return refuse("no pages", error);
}

static void set_pages(myelin_plugin_sequence *sequence, const int32_t *pages, int32_t count,
                      int32_t length) {
    UNUSED(sequence);
    UNUSED(pages);
    UNUSED(count);
    UNUSED(length);
}

static void copy_page(myelin_plugin_pool *pool, int32_t to, int32_t from) {
    UNUSED(pool);
    UNUSED(to);
    UNUSED(from);
}
#endif

#ifdef FAULT_MAGIC
#define MAGIC 0x12345678u
#else
#define MAGIC MYELIN_PLUGIN_MAGIC
#endif
#ifdef FAULT_VERSION
#define VERSION 2
#else
#define VERSION MYELIN_PLUGIN_ABI_VERSION
#endif
#ifdef FAULT_SIZE
#define SIZE (MYELIN_PLUGIN_LEAST_SIZE - 8)
#elif defined OLDER
#define SIZE MYELIN_PLUGIN_LEAST_SIZE
#else
#define SIZE sizeof(myelin_plugin)
#endif
#ifdef FAULT_FUSION
#define FUSION 8
#elif defined FAULT_GREEDY || defined FAULT_GREEDY_ID || defined FAULT_SAMPLE_ID || defined OLDER
#define FUSION MYELIN_FUSION_GREEDY
#else
#define FUSION MYELIN_FUSION_COMPOSED
#endif
#ifdef FAULT_NAME
#define NAME NULL
#elif defined FAULT_DUPLICATE
#define NAME "composed"
#else
#define NAME "sevens"
#endif

static myelin_plugin table = {.magic = MAGIC,
                              .abi_version = VERSION,
                              .struct_size = SIZE,
                              .max_fusion = FUSION,
                              .name = NAME,
                              .probe = probe,
                              .load = load,
                              .free_model = free_model,
                              .sequence_bytes = sequence_bytes,
                              .create_sequence = create_sequence,
                              .free_sequence = free_sequence,
                              .sequence_length = sequence_length,
                              .truncate_sequence = truncate_sequence,
                              .context_bytes = context_bytes,
                              .create_context = create_context,
                              .free_context = free_context,
                              .forward = forward,
                              .decode_greedy = DECODE_GREEDY,
                              .step_tokens = STEP_TOKENS,
#ifdef PAGES
                              .page_bytes = page_bytes,
                              .create_pool = create_pool,
                              .free_pool = free_pool,
                              .create_paged_sequence = create_paged_sequence,
                              .set_pages = set_pages,
                              .copy_page = copy_page,
#endif
                              .decode_sample = DECODE_SAMPLE};

#ifndef FAULT_SYMBOL
MYELIN_API const myelin_plugin *myelin_plugin_v1(void);

const myelin_plugin *myelin_plugin_v1(void) {
#ifdef MISSING
    table.MISSING = NULL;
#endif
#ifdef FAULT_NULL
    UNUSED(table);
    return NULL;
#else
    return &table;
#endif
}
#else
MYELIN_API const myelin_plugin *another_name(void);

const myelin_plugin *another_name(void) {
    return &table;
}
#endif
