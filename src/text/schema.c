/* SPDX-License-Identifier: Apache-2.0 */
#include "text/schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"

void mln_schema_no_memory(mln_schema_compiler *c) {
    if (c->status == MYELIN_OK)
        c->status = mln_fail_memory(c->error, sizeof *c, "a schema");
}

static void append(char *out, size_t size, const char *text) {
    size_t length = strlen(out);
    snprintf(out + length, size - length, "%s", text);
}

/* "/a~1b": one step of a JSON pointer. */
static void append_step(char *out, size_t size, const char *key) {
    append(out, size, "/");
    for (; *key; key++) {
        char one[] = {*key, '\0'};
        append(out, size, *key == '~' ? "~0" : *key == '/' ? "~1" : one);
    }
}

/* Appends the way from `at` to `wanted`, when there is one. */
static bool find_pointer(const json_t *at, const json_t *wanted, char *out, size_t size) {
    size_t length = strlen(out), i;
    const char *key;
    json_t *item;
    if (at == wanted)
        return true;
    json_object_foreach((json_t *)at, key, item) {
        append_step(out, size, key);
        if (find_pointer(item, wanted, out, size))
            return true;
        out[length] = '\0';
    }
    json_array_foreach(at, i, item) {
        char number[24];
        snprintf(number, sizeof number, "/%zu", i);
        append(out, size, number);
        if (find_pointer(item, wanted, out, size))
            return true;
        out[length] = '\0';
    }
    return false;
}

void mln_schema_refuse(mln_schema_compiler *c, const mln_schema_item *item, const char *keyword,
                       const char *format, ...) {
    char pointer[160] = "#", text[200];
    va_list arguments;
    if (c->status != MYELIN_OK)
        return;
    find_pointer(item->root->document, item->schema, pointer, sizeof pointer);
    if (*keyword)
        append_step(pointer, sizeof pointer, keyword);
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    c->status =
        mln_fail(c->error, MYELIN_ERROR_ARGUMENT, NULL, -1, "schema keyword \"%s\" at %s%s: %s",
                 keyword, item->root->name, pointer, text);
}

/* Keywords that limit values in ways that no automaton here can follow. */
static const char *const unsupported[] = {"patternProperties",
                                          "propertyNames",
                                          "dependentRequired",
                                          "dependentSchemas",
                                          "dependencies",
                                          "unevaluatedProperties",
                                          "unevaluatedItems",
                                          "additionalItems",
                                          "contains",
                                          "multipleOf",
                                          "not",
                                          "if",
                                          "$dynamicRef",
                                          "$recursiveRef"};

static void check_keywords(mln_schema_compiler *c, const mln_schema_item *item) {
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (mln_schema_get(item, unsupported[i]))
            mln_schema_refuse(c, item, unsupported[i], "not supported");
    const json_t *unique = mln_schema_get(item, "uniqueItems");
    if (unique && !json_is_false(unique))
        mln_schema_refuse(c, item, "uniqueItems", "not supported but as false");
    const json_t *least = mln_schema_get(item, "minProperties");
    if (least && !(json_is_integer(least) && json_integer_value(least) == 0))
        mln_schema_refuse(c, item, "minProperties", "not supported but as 0");
    if (mln_schema_get(item, "maxProperties"))
        mln_schema_refuse(c, item, "maxProperties", "not supported");
}

/* A character of a JSON pointer inside a reference; false when the escape is none. */
static bool unescape(const char **at, char *out) {
    const char *p = *at;
    if (*p == '~') {
        if (p[1] != '0' && p[1] != '1')
            return false;
        *out = p[1] == '0' ? '~' : '/';
        *at = p + 2;
    } else if (*p == '%') {
        unsigned code;
        char digits[3] = {p[1], p[1] ? p[2] : '\0', '\0'};
        char *end;
        code = (unsigned)strtoul(digits, &end, 16);
        if (end != digits + 2 || code == 0)
            return false;
        *out = (char)code;
        *at = p + 3;
    } else {
        *out = *p;
        *at = p + 1;
    }
    return true;
}

/* What a "#/..." points to, or NULL. */
static const json_t *follow(const json_t *document, const char *reference) {
    enum { MAX_KEY = 256 };
    if (*reference++ != '#')
        return NULL;
    const json_t *at = document;
    while (at && *reference == '/') {
        char key[MAX_KEY];
        size_t length = 0;
        for (reference++; *reference && *reference != '/';)
            if (length == sizeof key - 1 || !unescape(&reference, &key[length++]))
                return NULL;
        key[length] = '\0';
        if (json_is_array(at)) {
            char *end;
            unsigned long index = strtoul(key, &end, 10);
            at = length && !*end ? json_array_get(at, index) : NULL;
        } else {
            at = json_object_get(at, key);
        }
    }
    return *reference ? NULL : at;
}

static const mln_schema_item *find_item(const mln_conjunction *k, const json_t *schema) {
    for (size_t i = 0; i < k->count; i++)
        if (k->items[i].schema == schema)
            return &k->items[i];
    return NULL;
}

static void add_item(mln_schema_compiler *c, mln_conjunction *k, const json_t *schema,
                     const mln_schema_root *root, const mln_schema_item *from,
                     const char *keyword) {
    mln_schema_item item = {.schema = schema, .root = root};
    const mln_schema_item *known = find_item(k, schema);
    if (c->status != MYELIN_OK || json_is_true(schema))
        return;
    if (json_is_false(schema)) {
        k->never = true;
        return;
    }
    if (!json_is_object(schema))
        mln_schema_refuse(c, from ? from : &item, keyword, "expected a schema, found %s",
                          mln_json_type_name(schema));
    else if (known && (known->any_of_taken || known->one_of_taken))
        mln_schema_refuse(c, from ? from : &item, keyword, "leads back to a schema it is part of");
    else if (!known && k->count == MLN_SCHEMA_MAX_TOGETHER)
        mln_schema_refuse(c, from ? from : &item, keyword, "more than %d schemas at once",
                          MLN_SCHEMA_MAX_TOGETHER);
    else if (!known)
        k->items[k->count++] = item;
}

/* Adds what an item refers to and consists of. */
static void add_parts(mln_schema_compiler *c, mln_conjunction *k, const mln_schema_item *item) {
    check_keywords(c, item);
    const json_t *reference = mln_schema_get(item, "$ref"), *all = mln_schema_get(item, "allOf");
    if (reference) {
        const char *text = json_string_value(reference);
        const json_t *target = text ? follow(item->root->document, text) : NULL;
        if (!target)
            mln_schema_refuse(c, item, "$ref", "expected \"#/...\" of this schema, found \"%.80s\"",
                              text ? text : mln_json_type_name(reference));
        else if (target == item->schema)
            mln_schema_refuse(c, item, "$ref", "leads back to itself");
        else
            add_item(c, k, target, item->root, item, "$ref");
    }
    if (all && (!json_is_array(all) || json_array_size(all) == 0))
        mln_schema_refuse(c, item, "allOf", "expected an array of schemas, found %s",
                          json_is_array(all) ? "none in it" : mln_json_type_name(all));
    for (size_t i = 0; i < json_array_size(all); i++)
        add_item(c, k, json_array_get(all, i), item->root, item, "allOf");
}

void mln_conjunction_add(mln_schema_compiler *c, mln_conjunction *k, const json_t *schema,
                         const mln_schema_root *root) {
    size_t done = k->count;
    add_item(c, k, schema, root, NULL, "");
    for (; done < k->count && c->status == MYELIN_OK; done++) {
        mln_schema_item item = k->items[done];
        add_parts(c, k, &item);
    }
}

static uint64_t hash_items(const mln_schema_item *items, size_t count) {
    uint64_t hash = count;
    for (size_t i = 0; i < count; i++) {
        uint64_t one = (uint64_t)(uintptr_t)items[i].schema * 4 + 2 * items[i].any_of_taken +
                       items[i].one_of_taken;
        hash = (hash ^ one) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 29;
    }
    return hash;
}

static bool same_items(const mln_schema_rule *rule, const mln_conjunction *k) {
    for (size_t i = 0; i < k->count; i++) {
        const mln_schema_item *a = &rule->items[i], *b = &k->items[i];
        if (a->schema != b->schema || a->root != b->root || a->any_of_taken != b->any_of_taken ||
            a->one_of_taken != b->one_of_taken)
            return false;
    }
    return rule->count == k->count;
}

static mln_schema_rule *add_rule(mln_schema_compiler *c) {
    if (c->num_rules == MLN_SCHEMA_MAX_RULES) {
        c->status =
            mln_fail(c->error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                     "the schema is too large: expected at most %d parts", MLN_SCHEMA_MAX_RULES);
        return NULL;
    }
    if (c->num_rules == c->rule_capacity) {
        size_t capacity = c->rule_capacity ? 2 * c->rule_capacity : 32;
        mln_schema_rule *rules = mln_realloc(c->rules, capacity, sizeof *rules);
        if (!rules) {
            mln_schema_no_memory(c);
            return NULL;
        }
        c->rules = rules;
        c->rule_capacity = capacity;
    }
    return &c->rules[c->num_rules++];
}

uint32_t mln_schema_rule_of(mln_schema_compiler *c, const mln_conjunction *k) {
    if (c->status != MYELIN_OK || k->never)
        return 0;
    uint64_t hash = hash_items(k->items, k->count);
    for (size_t i = 0; i < c->num_rules; i++)
        if (c->rules[i].hash == hash && c->rules[i].count == k->count &&
            same_items(&c->rules[i], k))
            return c->rules[i].node;
    mln_schema_rule *rule = add_rule(c);
    if (!rule)
        return 0;
    *rule = (mln_schema_rule){.count = k->count, .hash = hash};
    rule->node = mln_graph_node(&c->graph);
    rule->items = mln_arena_alloc(&c->arena, k->count, sizeof *rule->items);
    if (!rule->items) {
        mln_schema_no_memory(c);
        return 0;
    }
    memcpy(rule->items, k->items, k->count * sizeof *rule->items);
    return rule->node;
}

unsigned mln_schema_type_of(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_NULL:
        return MLN_TYPE_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return MLN_TYPE_BOOLEAN;
    case JSON_INTEGER:
        return MLN_TYPE_INTEGER;
    case JSON_REAL: {
        double x = json_real_value(value);
        return x >= -1e18 && x <= 1e18 && (double)(int64_t)x == x ? MLN_TYPE_INTEGER
                                                                  : MLN_TYPE_FRACTION;
    }
    case JSON_STRING:
        return MLN_TYPE_STRING;
    case JSON_ARRAY:
        return MLN_TYPE_ARRAY;
    case JSON_OBJECT:
        return MLN_TYPE_OBJECT;
    }
    return 0;
}

static unsigned type_named(const char *name) {
    static const struct {
        const char *name;
        unsigned types;
    } names[] = {{"null", MLN_TYPE_NULL},       {"boolean", MLN_TYPE_BOOLEAN},
                 {"integer", MLN_TYPE_INTEGER}, {"number", MLN_TYPE_INTEGER | MLN_TYPE_FRACTION},
                 {"string", MLN_TYPE_STRING},   {"array", MLN_TYPE_ARRAY},
                 {"object", MLN_TYPE_OBJECT}};
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i].name) == 0)
            return names[i].types;
    return 0;
}

unsigned mln_schema_types(mln_schema_compiler *c, const mln_schema_item *items, size_t count) {
    unsigned all = MLN_TYPE_ANY;
    for (size_t i = 0; i < count; i++) {
        const json_t *type = mln_schema_get(&items[i], "type");
        size_t size = json_is_array(type) ? json_array_size(type) : 1;
        unsigned types = 0;
        for (size_t n = 0; type && n < size; n++) {
            const json_t *name = json_is_array(type) ? json_array_get(type, n) : type;
            unsigned one = type_named(json_string_value(name));
            if (one == 0)
                mln_schema_refuse(c, &items[i], "type", "expected a type's name, found %s",
                                  json_is_string(name) ? json_string_value(name)
                                                       : mln_json_type_name(name));
            types |= one;
        }
        if (type)
            all &= types;
    }
    return all;
}

uint32_t mln_schema_count(mln_schema_compiler *c, const mln_schema_item *items, size_t count,
                          const char *keyword, bool largest, uint32_t none) {
    uint32_t result = none;
    for (size_t i = 0; i < count; i++) {
        const json_t *value = mln_schema_get(&items[i], keyword);
        double x = json_number_value(value);
        if (!value)
            continue;
        if (!json_is_number(value) || x < 0 || x != (double)(int64_t)(x < 1e15 ? x : 1e15)) {
            mln_schema_refuse(c, &items[i], keyword, "expected a count, found %s",
                              json_is_number(value) ? "another number" : mln_json_type_name(value));
            return none;
        }
        uint32_t n = x < MLN_NO_LIMIT - 1 ? (uint32_t)x : MLN_NO_LIMIT - 1;
        result = largest == (n > result) ? n : result;
    }
    return result;
}

/* `also`: a further schema the branch is held to, or NULL */
static void define_branch(mln_schema_compiler *c, const mln_schema_rule *rule, size_t which,
                          const char *keyword, size_t branch, const json_t *also) {
    mln_conjunction k = {.count = rule->count};
    memcpy(k.items, rule->items, rule->count * sizeof *k.items);
    const json_t *branches = mln_schema_get(&k.items[which], keyword);
    if (strcmp(keyword, "anyOf") == 0)
        k.items[which].any_of_taken = true;
    else
        k.items[which].one_of_taken = true;
    mln_conjunction_add(c, &k, json_array_get(branches, branch), rule->items[which].root);
    if (also)
        mln_conjunction_add(c, &k, also, rule->items[which].root);
    mln_graph_call(&c->graph, rule->node, mln_schema_rule_of(c, &k), c->graph.end);
}

/* Whether no value satisfies two branches, each held to `also` too; else two that may. */
static bool all_disjoint(mln_schema_compiler *c, const mln_schema_item *item,
                         const json_t *branches, const json_t *also, size_t two[2]) {
    for (size_t i = 0; i < json_array_size(branches); i++)
        for (size_t n = 0; n < i && c->status == MYELIN_OK; n++) {
            mln_conjunction a = {.count = 0}, b = {.count = 0};
            mln_conjunction_add(c, &a, json_array_get(branches, n), item->root);
            mln_conjunction_add(c, &b, json_array_get(branches, i), item->root);
            if (also) {
                mln_conjunction_add(c, &a, also, item->root);
                mln_conjunction_add(c, &b, also, item->root);
            }
            if (!mln_schema_disjoint(c, &a, &b, 0)) {
                two[0] = n;
                two[1] = i;
                return false;
            }
        }
    return true;
}

/* {"required": [name]}: always the same one for a name, as rules are known by their schemas. */
static const json_t *requiring(mln_schema_compiler *c, const char *name) {
    if (!c->requiring)
        c->requiring = json_object();
    json_t *made = json_object_get(c->requiring, name);
    if (!made) {
        made = json_pack("{s:[s]}", "required", name);
        if (json_object_set_new(c->requiring, name, made) != 0) {
            mln_schema_no_memory(c);
            return NULL;
        }
    }
    return made;
}

/* The first property of a branch that lists values and, once required, keeps branches apart. */
static const json_t *find_tag(mln_schema_compiler *c, const mln_schema_item *item,
                              const json_t *branches, size_t branch, int *tries) {
    mln_conjunction k = {.count = 0};
    mln_conjunction_add(c, &k, json_array_get(branches, branch), item->root);
    for (size_t i = 0; i < k.count; i++) {
        json_t *properties = (json_t *)(uintptr_t)mln_schema_get(&k.items[i], "properties");
        const char *name;
        json_t *value;
        json_object_foreach(properties, name, value) {
            if (!json_object_get(value, "const") && !json_object_get(value, "enum"))
                continue;
            size_t two[2];
            const json_t *also = (*tries)-- > 0 ? requiring(c, name) : NULL;
            if (also && all_disjoint(c, item, branches, also, two))
                return also;
        }
    }
    return NULL;
}

/*
 * Only where no value satisfies two branches is one of them what one or more are. Returns what
 * branches are to be held to for that, or NULL: where a property tells them apart when it is there,
 * what is written has it.
 */
static const json_t *check_one_of(mln_schema_compiler *c, const mln_schema_item *item,
                                  const json_t *branches) {
    size_t two[2] = {0};
    if (json_array_size(branches) > MLN_SCHEMA_MAX_ONE_OF)
        mln_schema_refuse(c, item, "oneOf", "more than %d branches", MLN_SCHEMA_MAX_ONE_OF);
    if (c->status != MYELIN_OK || all_disjoint(c, item, branches, NULL, two))
        return NULL;
    const json_t *tag = NULL;
    int tries = MLN_SCHEMA_MAX_TAGS;
    for (size_t i = 0; i < json_array_size(branches) && !tag; i++)
        tag = find_tag(c, item, branches, i, &tries);
    if (!tag)
        mln_schema_refuse(c, item, "oneOf",
                          "branches %zu and %zu may hold at once: not supported (say anyOf)",
                          two[0], two[1]);
    return tag;
}

/* The rule is one of the branches of the first such keyword; false when there is none. */
static bool define_branches(mln_schema_compiler *c, const mln_schema_rule *rule) {
    for (size_t i = 0; i < rule->count; i++) {
        const mln_schema_item *item = &rule->items[i];
        for (int k = 0; k < 2; k++) {
            const char *keyword = k == 0 ? "anyOf" : "oneOf";
            const json_t *branches = mln_schema_get(item, keyword);
            if (!branches || (k == 0 ? item->any_of_taken : item->one_of_taken))
                continue;
            if (!json_is_array(branches) || json_array_size(branches) == 0)
                mln_schema_refuse(c, item, keyword, "expected an array of schemas, found %s",
                                  json_is_array(branches) ? "none in it"
                                                          : mln_json_type_name(branches));
            const json_t *also = k == 1 ? check_one_of(c, item, branches) : NULL;
            for (size_t n = 0; n < json_array_size(branches) && c->status == MYELIN_OK; n++)
                define_branch(c, rule, i, keyword, n, also);
            return true;
        }
    }
    return false;
}

static void define_words(mln_schema_compiler *c, uint32_t from, unsigned types) {
    mln_graph *g = &c->graph;
    static const struct {
        unsigned type;
        const char *text;
    } words[] = {{MLN_TYPE_NULL, "null"}, {MLN_TYPE_BOOLEAN, "true"}, {MLN_TYPE_BOOLEAN, "false"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (types & words[i].type)
            mln_graph_empty(g, mln_graph_word(g, from, words[i].text, strlen(words[i].text)),
                            g->end);
}

/* The rule is a copy: more may be added while it is defined, and the array moves. */
static void define(mln_schema_compiler *c, mln_schema_rule rule) {
    if (define_branches(c, &rule))
        return;
    unsigned types = mln_schema_types(c, rule.items, rule.count);
    if (c->status != MYELIN_OK || mln_schema_listed(c, &rule, types, rule.node))
        return;
    define_words(c, rule.node, types);
    if (types & (MLN_TYPE_INTEGER | MLN_TYPE_FRACTION))
        mln_schema_number(c, &rule, rule.node, !(types & MLN_TYPE_FRACTION));
    if (types & MLN_TYPE_STRING)
        mln_schema_string_value(c, &rule, rule.node);
    if (types & MLN_TYPE_OBJECT)
        mln_schema_object(c, &rule, rule.node);
    if (types & MLN_TYPE_ARRAY)
        mln_schema_array(c, &rule, rule.node);
}

void mln_schema_define_all(mln_schema_compiler *c) {
    while (c->num_defined < c->num_rules && c->status == MYELIN_OK && !c->graph.failed)
        define(c, c->rules[c->num_defined++]);
}

void mln_schema_begin(mln_schema_compiler *c, myelin_error *error) {
    *c = (mln_schema_compiler){.error = error, .pattern_work = MLN_SCHEMA_PATTERN_WORK};
    mln_graph_init(&c->graph);
}

myelin_status mln_grammar_from_schema(mln_grammar **grammar, const mln_tokenizer *tokenizer,
                                      const json_t *schema, myelin_error *error) {
    mln_schema_compiler c;
    mln_schema_root root = {.document = schema, .name = ""};
    mln_conjunction k = {.count = 0};
    *grammar = NULL;
    mln_schema_begin(&c, error);
    mln_conjunction_add(&c, &k, schema, &root);
    uint32_t answer = mln_schema_rule_of(&c, &k);
    mln_schema_define_all(&c);
    return mln_schema_finish(&c, grammar, tokenizer, answer);
}

myelin_status mln_schema_finish(mln_schema_compiler *c, mln_grammar **grammar,
                                const mln_tokenizer *tokenizer, uint32_t answer) {
    mln_arena_free(&c->arena);
    json_decref(c->requiring);
    free(c->rules);
    free(c->strings);
    if (c->status != MYELIN_OK) {
        mln_graph_free(&c->graph);
        return c->status;
    }
    return mln_grammar_make(grammar, tokenizer, &c->graph, answer, c->error);
}
