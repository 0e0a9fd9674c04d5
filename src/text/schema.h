/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON Schema to a graph. What is compiled is a conjunction: schemas that a value satisfies all at
 * once, which is what allOf, and keywords beside $ref and anyOf, come to. Each conjunction met is
 * one node of the graph, made when first asked for and filled in later, so that schemas may refer
 * to themselves.
 */
#ifndef MLN_TEXT_SCHEMA_H
#define MLN_TEXT_SCHEMA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "text/grammar.h"

enum {
    MLN_SCHEMA_MAX_TOGETHER = 64,           /* schemas of one conjunction */
    MLN_SCHEMA_MAX_RULES = 1 << 14,         /* conjunctions */
    MLN_SCHEMA_MAX_ONE_OF = 256,            /* branches, each of which is compared with each */
    MLN_SCHEMA_MAX_TAGS = 16,               /* properties that are tried to tell them apart */
    MLN_SCHEMA_MAX_DEPTH = 64,              /* of schemas that are compared, */
    MLN_SCHEMA_MAX_COMPARED = 1 << 17,      /* and of comparisons */
    MLN_SCHEMA_PATTERN_WORK = 100 * 1000000 /* steps of making automata of patterns: a second */
};

/* Types a value may have; an integer is a number. */
enum {
    MLN_TYPE_NULL = 1,
    MLN_TYPE_BOOLEAN = 2,
    MLN_TYPE_INTEGER = 4,
    MLN_TYPE_FRACTION = 8, /* numbers that are no integers */
    MLN_TYPE_STRING = 16,
    MLN_TYPE_ARRAY = 32,
    MLN_TYPE_OBJECT = 64,
    MLN_TYPE_ANY = 127
};

/* A document that schemas stand in, which their references point into. */
typedef struct mln_schema_root {
    const json_t *document;
    const char *name; /* in front of the JSON pointers of messages, "" for none */
} mln_schema_root;

typedef struct mln_schema_item {
    const json_t *schema; /* an object */
    const mln_schema_root *root;
    bool any_of_taken, one_of_taken; /* one branch stands beside this in the conjunction */
} mln_schema_item;

typedef struct mln_conjunction {
    mln_schema_item items[MLN_SCHEMA_MAX_TOGETHER];
    size_t count;
    bool never; /* one of the schemas is false */
} mln_conjunction;

typedef struct mln_schema_rule {
    mln_schema_item *items; /* in the arena */
    size_t count;
    uint64_t hash;
    uint32_t node;
} mln_schema_rule;

typedef struct mln_schema_string {
    uint32_t least, most, node;
} mln_schema_string;

typedef struct mln_schema_compiler {
    mln_graph graph;
    mln_arena arena;
    mln_schema_rule *rules;
    size_t num_rules, rule_capacity, num_defined;
    mln_schema_string *strings; /* those compiled already, by their bounds */
    size_t num_strings, string_capacity;
    uint32_t character; /* reads one character of a string, 0 until made */
    uint32_t number, integer;
    json_t *requiring; /* by a property's name the schema that requires it, or NULL */
    size_t num_compared;
    uint64_t pattern_work; /* left */
    myelin_status status;
    myelin_error *error;
} mln_schema_compiler;

/* Ends the compilation: `keyword` of the item's schema is wrong; the message goes on as format. */
void mln_schema_refuse(mln_schema_compiler *c, const mln_schema_item *item, const char *keyword,
                       const char *format, ...) MYELIN_PRINTF(4, 5);
void mln_schema_no_memory(mln_schema_compiler *c);

/* Adds a schema (an object, true or false) and what it refers to and consists of. */
void mln_conjunction_add(mln_schema_compiler *c, mln_conjunction *conjunction, const json_t *schema,
                         const mln_schema_root *root);
/* The node from which its values begin; 0 when there are none. */
uint32_t mln_schema_rule_of(mln_schema_compiler *c, const mln_conjunction *conjunction);
/* Fills in all nodes asked for. */
void mln_schema_define_all(mln_schema_compiler *c);

void mln_schema_begin(mln_schema_compiler *c, myelin_error *error);
/* Frees the compiler; when nothing failed, with a grammar of what begins at `answer`. */
myelin_status mln_schema_finish(mln_schema_compiler *c, mln_grammar **grammar,
                                const mln_tokenizer *tokenizer, uint32_t answer);

/* A keyword's value of the item when it is there, or NULL. */
static inline const json_t *mln_schema_get(const mln_schema_item *item, const char *keyword) {
    return json_object_get(item->schema, keyword);
}
/* The types that all of a conjunction allow. */
unsigned mln_schema_types(mln_schema_compiler *c, const mln_schema_item *items, size_t count);
unsigned mln_schema_type_of(const json_t *value);
/* The strongest of a keyword that is a count: the largest, or the smallest; `none` without any. */
uint32_t mln_schema_count(mln_schema_compiler *c, const mln_schema_item *items, size_t count,
                          const char *keyword, bool largest, uint32_t none);

/* The parts of a rule, from `from` to the graph's end. */
void mln_schema_number(mln_schema_compiler *c, const mln_schema_rule *rule, uint32_t from,
                       bool integer);
void mln_schema_string_value(mln_schema_compiler *c, const mln_schema_rule *rule, uint32_t from);
void mln_schema_object(mln_schema_compiler *c, const mln_schema_rule *rule, uint32_t from);
void mln_schema_array(mln_schema_compiler *c, const mln_schema_rule *rule, uint32_t from);
/* The values listed by enum and const, when there are such; false when not. */
bool mln_schema_listed(mln_schema_compiler *c, const mln_schema_rule *rule, unsigned types,
                       uint32_t from);
/* Whether patterns and formats of the items, if any, accept the string. */
bool mln_schema_string_fits(mln_schema_compiler *c, const mln_schema_rule *rule,
                            const json_t *text);
bool mln_schema_number_fits(mln_schema_compiler *c, const mln_schema_rule *rule,
                            const json_t *number);
/* Whether no value satisfies both, as far as that can be told. */
bool mln_schema_disjoint(mln_schema_compiler *c, const mln_conjunction *a, const mln_conjunction *b,
                         int depth);

#endif
