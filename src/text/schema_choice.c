/* SPDX-License-Identifier: Apache-2.0 */
/* Values that are listed, and schemas that no value satisfies together. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/schema.h"

/* 1 and 1.0 are one value. */
static bool equal(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b))
        return json_is_integer(a) && json_is_integer(b)
                   ? json_integer_value(a) == json_integer_value(b)
                   : json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

/* Whether the item's enum and const, where there are such, list the value. */
static bool lists(const mln_schema_item *item, const json_t *value) {
    const json_t *all = mln_schema_get(item, "enum"), *one = mln_schema_get(item, "const");
    bool found = all == NULL;
    for (size_t i = 0; i < json_array_size(all) && !found; i++)
        found = equal(json_array_get(all, i), value);
    return found && (!one || equal(one, value));
}

static const char *const structure[] = {"properties", "required",    "additionalProperties",
                                        "items",      "prefixItems", "minItems",
                                        "maxItems"};

/* The other keywords are checked here, those that look inside a value apart. */
static bool fits(mln_schema_compiler *c, const mln_schema_rule *rule, unsigned types,
                 const json_t *value) {
    unsigned type = mln_schema_type_of(value);
    if (!(type & types))
        return false;
    for (size_t i = 0; i < rule->count; i++) {
        const mln_schema_item *item = &rule->items[i];
        if (!lists(item, value))
            return false;
        for (size_t n = 0; n < sizeof structure / sizeof *structure; n++)
            if (type & (MLN_TYPE_ARRAY | MLN_TYPE_OBJECT) && mln_schema_get(item, structure[n]))
                mln_schema_refuse(c, item, structure[n],
                                  "not supported together with listed arrays and objects");
    }
    if (type == MLN_TYPE_STRING)
        return mln_schema_string_fits(c, rule, value);
    if (type & (MLN_TYPE_INTEGER | MLN_TYPE_FRACTION))
        return mln_schema_number_fits(c, rule, value);
    return true;
}

static void add_listed(mln_schema_compiler *c, const json_t *value, uint32_t from) {
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    if (text)
        mln_graph_empty(&c->graph, mln_graph_word(&c->graph, from, text, strlen(text)),
                        c->graph.end);
    else
        mln_schema_no_memory(c);
    free(text);
}

bool mln_schema_listed(mln_schema_compiler *c, const mln_schema_rule *rule, unsigned types,
                       uint32_t from) {
    for (size_t i = 0; i < rule->count; i++) {
        const mln_schema_item *item = &rule->items[i];
        const json_t *all = mln_schema_get(item, "enum"), *one = mln_schema_get(item, "const");
        if (!all && !one)
            continue;
        if (all && !json_is_array(all))
            mln_schema_refuse(c, item, "enum", "expected an array, found %s",
                              mln_json_type_name(all));
        size_t count = one ? 1 : json_array_size(all);
        for (size_t n = 0; n < count && c->status == MYELIN_OK; n++) {
            const json_t *value = one ? one : json_array_get(all, n);
            if (fits(c, rule, types, value))
                add_listed(c, value, from);
        }
        return true;
    }
    return false;
}

/* The conjunction of what a property's values satisfy. */
static void property_of(mln_schema_compiler *c, const mln_conjunction *k, const char *name,
                        mln_conjunction *out) {
    *out = (mln_conjunction){.count = 0};
    for (size_t i = 0; i < k->count; i++) {
        const json_t *schema = json_object_get(mln_schema_get(&k->items[i], "properties"), name);
        if (schema)
            mln_conjunction_add(c, out, schema, k->items[i].root);
    }
}

static bool requires(const mln_conjunction *k, const char *name) {
    for (size_t i = 0; i < k->count; i++) {
        const json_t *required = mln_schema_get(&k->items[i], "required"), *one;
        size_t n;
        json_array_foreach(required, n, one) {
            if (json_is_string(one) && strcmp(json_string_value(one), name) == 0)
                return true;
        }
    }
    return false;
}

static bool forbids(const mln_conjunction *k, const char *name) {
    for (size_t i = 0; i < k->count; i++)
        if (json_is_false(mln_schema_get(&k->items[i], "additionalProperties")) &&
            !json_object_get(mln_schema_get(&k->items[i], "properties"), name))
            return true;
    return false;
}

/* Objects of both kinds have one property whose values are never of both kinds. */
static bool objects_disjoint(mln_schema_compiler *c, const mln_conjunction *a,
                             const mln_conjunction *b, int depth) {
    mln_conjunction *of_a = mln_alloc(2, sizeof *of_a), *of_b = of_a ? of_a + 1 : NULL;
    bool found = false;
    if (!of_a) {
        mln_schema_no_memory(c);
        return false;
    }
    for (size_t i = 0; i < a->count && !found; i++) {
        const json_t *required = mln_schema_get(&a->items[i], "required"), *one;
        size_t n;
        json_array_foreach(required, n, one) {
            const char *name = json_string_value(one);
            if (!name || found)
                continue;
            found = forbids(b, name);
            if (found || !requires(b, name))
                continue;
            property_of(c, a, name, of_a);
            property_of(c, b, name, of_b);
            found = mln_schema_disjoint(c, of_a, of_b, depth + 1);
        }
    }
    free(of_a);
    return found;
}

/* The item of a conjunction that lists values, or NULL. */
static const json_t *listed_values(const mln_conjunction *k, size_t *count, bool *single) {
    for (size_t i = 0; i < k->count; i++) {
        const json_t *all = mln_schema_get(&k->items[i], "enum");
        const json_t *one = mln_schema_get(&k->items[i], "const");
        *single = one != NULL;
        *count = one ? 1 : json_array_size(all);
        if (one || json_is_array(all))
            return one ? one : all;
    }
    return NULL;
}

static bool all_list(const mln_conjunction *k, const json_t *value) {
    for (size_t i = 0; i < k->count; i++)
        if (!lists(&k->items[i], value))
            return false;
    return true;
}

bool mln_schema_disjoint(mln_schema_compiler *c, const mln_conjunction *a, const mln_conjunction *b,
                         int depth) {
    if (a->never || b->never)
        return true;
    if (depth == MLN_SCHEMA_MAX_DEPTH || c->num_compared == MLN_SCHEMA_MAX_COMPARED ||
        c->status != MYELIN_OK)
        return false;
    c->num_compared++;
    unsigned types =
        mln_schema_types(c, a->items, a->count) & mln_schema_types(c, b->items, b->count);
    size_t count;
    bool single;
    const json_t *values = listed_values(a, &count, &single);
    if (types == 0)
        return true;
    if (values) {
        for (size_t i = 0; i < count; i++) {
            const json_t *value = single ? values : json_array_get(values, i);
            if (mln_schema_type_of(value) & types && all_list(a, value) && all_list(b, value))
                return false;
        }
        return true;
    }
    values = listed_values(b, &count, &single);
    if (values)
        return mln_schema_disjoint(c, b, a, depth + 1);
    if (types != MLN_TYPE_OBJECT)
        return false;
    return objects_disjoint(c, a, b, depth) || objects_disjoint(c, b, a, depth);
}
