/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the model room share. Any failure in here fails the running test. */
#ifndef TESTS_MODEL_HARNESS_H
#define TESTS_MODEL_HARNESS_H

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants some of these */
#include <cmocka.h>

#include "model/composed.h"
#include "model/model.h"

/* The myelin_cache_type of models opened from here on; a test of any sets it first. */
extern int32_t harness_cache_type;
/* Likewise the myelin_pack. */
extern int32_t harness_pack;
/* Likewise the myelin_activations. */
extern int32_t harness_activations;
/* "f32", "f16", "int8"; else, and of NULL, AUTO. */
int32_t harness_cache_named(const char *name);

/* A loaded model and the calls of its plug-in. */
typedef struct harness {
    mln_checkpoint *checkpoint;
    mln_model *model;
    const myelin_plugin *plugin;
    int32_t vocab;
} harness;

harness harness_open(const char *directory, int32_t threads, int32_t dtype);
harness harness_open_with(const myelin_plugin *plugin, int32_t fusion, const char *directory,
                          int32_t threads, int32_t dtype);
void harness_close(harness *h);

/*
 * The plug-in a test is told to test: a set of native kernels by name, or the path of a shared
 * object; NULL when this processor has no such kernels, or the plug-in no device, which is then
 * said on stderr. A path that ends in ":N" is spread over N devices in all that follows, and one in
 * ":packed" packs what it can; a name that ends in ":packed" does so too, one in ":rounded" rounds
 * activations to bfloat16, and one in ":bytes" those that codes are multiplied with to bytes.
 */
const myelin_plugin *harness_plugin(const char *name);
/* Whether so many devices can share the model; always with one. */
bool harness_can_spread(const myelin_plugin *plugin, const char *directory, int32_t dtype);

myelin_plugin_sequence *harness_sequence(const harness *h, int32_t max_len);
myelin_plugin_pool *harness_pool(const harness *h, int32_t num_pages);
myelin_plugin_sequence *harness_paged_sequence(const harness *h, myelin_plugin_pool *pool,
                                               int32_t max_len);
myelin_plugin_context *harness_context(const harness *h, int32_t max_tokens, int32_t max_len);

/*
 * Appends ids[count] in calls of at most `chunk` tokens, asking for all logits when `logits`
 * [count, vocab] is not NULL.
 */
void harness_append(const harness *h, myelin_plugin_context *context,
                    myelin_plugin_sequence *sequence, const int32_t *ids, int32_t count,
                    int32_t chunk, float *logits);

/* All logits of a prompt in a sequence of its own, read in one call: [count, vocab], heap memory.
 */
float *harness_logits(const harness *h, const int32_t *ids, int32_t count);

/* Fails unless a and b are the same to the last bit. */
void assert_same_floats(const float *a, const float *b, size_t count);

/* The JSON lines of a file, an array; a new reference. */
json_t *read_jsonl(const char *path);
/* An array of integers; *count is its length; heap memory (one element more than needed). */
int32_t *json_ids(const json_t *object, const char *key, int32_t *count);
double json_number_at(const json_t *object, const char *key, size_t index);

/* Deterministic ids below vocab; heap memory. */
int32_t *random_ids(int32_t count, int32_t vocab, uint32_t seed);

/* True in a build with a sanitizer, where everything takes ten times as long. */
int is_sanitized(void);

#endif
