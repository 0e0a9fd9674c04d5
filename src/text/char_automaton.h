/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deterministic automata over the characters of a string: made from a regular expression, from
 * bounds on the length, or of all strings but a few; intersected; and written into a graph as the
 * bytes of the JSON string.
 */
#ifndef MLN_TEXT_CHAR_AUTOMATON_H
#define MLN_TEXT_CHAR_AUTOMATON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "myelin/status.h"
#include "text/grammar.h"

enum {
    MLN_CHARS_MAX_STATES = 1 << 14,
    MLN_CHARS_MAX_STEPS = 1 << 21, /* states * classes */
    MLN_PATTERN_MAX_BYTES = 4096,
    MLN_PATTERN_MAX_STATES = 1 << 13, /* before it is made deterministic */
    MLN_PATTERN_MAX_GROUPS = 64       /* inside one another */
};
#define MLN_CHARS_DEAD UINT32_MAX

/* State 0 is the first. Class k holds the characters from bounds[k] up to the next bound. */
typedef struct mln_chars {
    uint32_t *bounds; /* [num_classes], bounds[0] = 0 */
    uint32_t *next;   /* [num_states][num_classes]: a state or DEAD */
    bool *accepts;    /* [num_states] */
    uint32_t num_classes, num_states, capacity;
} mln_chars;

/* Counts `steps` of work; too many are an error. */
myelin_status mln_chars_work(uint64_t *work, uint64_t steps, myelin_error *error);

/* An automaton without states, whose classes begin at 0 and these places. */
myelin_status mln_chars_begin(mln_chars *chars, const uint32_t *bounds, size_t count,
                              myelin_error *error);
/* One more state, from which no character leads on. */
myelin_status mln_chars_add_state(mln_chars *chars, bool accepts, uint32_t *index,
                                  myelin_error *error);

/*
 * The strings in which ECMA-262's regular expression finds a match. What is not regular or not
 * supported, and what grows too large or takes more than *work steps, which are counted down, is
 * MYELIN_ERROR_ARGUMENT.
 */
myelin_status mln_chars_pattern(mln_chars *chars, const char *pattern, size_t length,
                                uint64_t *work, myelin_error *error);
/* least to most characters; MLN_NO_LIMIT as most. */
myelin_status mln_chars_length(mln_chars *chars, uint32_t least, uint32_t most,
                               myelin_error *error);
/* All strings but the given ones (UTF-8). */
myelin_status mln_chars_except(mln_chars *chars, const char *const *strings, size_t count,
                               myelin_error *error);
/* Leaves in *chars what `other` has too; *work as above. */
myelin_status mln_chars_intersect(mln_chars *chars, const mln_chars *other, uint64_t *work,
                                  myelin_error *error);
bool mln_chars_accept(const mln_chars *chars, const char *text, size_t length);
void mln_chars_free(mln_chars *chars);

/* The strings as JSON, from `from` (before the first quote) to `to` (after the last). */
void mln_chars_write(const mln_chars *chars, mln_graph *graph, uint32_t from, uint32_t to);
/* Edges that read one character of low .. high, each in the one way JSON writers escape it. */
void mln_graph_character(mln_graph *graph, uint32_t from, uint32_t low, uint32_t high, uint32_t to);
/* Edges for the UTF-8 of the characters low .. high, surrogates left out. */
void mln_graph_utf8(mln_graph *graph, uint32_t from, uint32_t low, uint32_t high, uint32_t to);

#endif
