/* SPDX-License-Identifier: Apache-2.0 */
/* Objects and arrays. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/char_automaton.h"
#include "text/schema.h"

/* A string as JSON writes it, quotes included; to be freed with free(). */
static char *quoted(const char *text) {
    json_t *string = json_string(text);
    char *json = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    json_decref(string);
    return json;
}

/* Names in the order in which they are listed, properties first: true for required ones. */
static json_t *list_names(mln_schema_compiler *c, const mln_schema_rule *rule) {
    json_t *names = json_object();
    bool ok = names != NULL;
    const char *key;
    json_t *value;
    for (size_t i = 0; ok && i < rule->count; i++) {
        const json_t *properties = mln_schema_get(&rule->items[i], "properties");
        if (properties && !json_is_object(properties))
            mln_schema_refuse(c, &rule->items[i], "properties", "expected an object, found %s",
                              mln_json_type_name(properties));
        json_object_foreach((json_t *)properties, key, value) {
            if (!json_object_get(names, key))
                ok = ok && json_object_set_new(names, key, json_false()) == 0;
        }
    }
    for (size_t i = 0; ok && i < rule->count; i++) {
        const json_t *required = mln_schema_get(&rule->items[i], "required");
        size_t n;
        if (required && !json_is_array(required))
            mln_schema_refuse(c, &rule->items[i], "required", "expected an array, found %s",
                              mln_json_type_name(required));
        json_array_foreach(required, n, value) {
            if (!json_is_string(value))
                mln_schema_refuse(c, &rule->items[i], "required", "expected strings, found %s",
                                  mln_json_type_name(value));
            else
                ok = ok && json_object_set_new(names, json_string_value(value), json_true()) == 0;
        }
    }
    if (!ok)
        mln_schema_no_memory(c);
    return names;
}

/*
 * A schema that lists properties and says nothing of others allows them. Here it has none: a text
 * with those that were asked for is as valid, and what whoever asked expects.
 */
static bool lists_properties(const mln_schema_rule *rule) {
    for (size_t i = 0; i < rule->count; i++)
        if (json_object_size(mln_schema_get(&rule->items[i], "properties")) > 0)
            return true;
    return false;
}

/* The node of the values of a property: the schemas of that name, or what others must be. */
static uint32_t property_node(mln_schema_compiler *c, const mln_schema_rule *rule,
                              const char *name) {
    mln_conjunction k = {.count = 0};
    for (size_t i = 0; i < rule->count; i++) {
        const mln_schema_item *item = &rule->items[i];
        const json_t *schema = json_object_get(mln_schema_get(item, "properties"), name);
        if (!schema)
            schema = mln_schema_get(item, "additionalProperties");
        if (schema)
            mln_conjunction_add(c, &k, schema, item->root);
    }
    return mln_schema_rule_of(c, &k);
}

/* The node of the values of properties that no schema lists; 0 when there are none. */
static uint32_t additional_node(mln_schema_compiler *c, const mln_schema_rule *rule) {
    mln_conjunction k = {.count = 0};
    bool any = false;
    for (size_t i = 0; i < rule->count; i++) {
        const json_t *schema = mln_schema_get(&rule->items[i], "additionalProperties");
        any = any || schema;
        if (schema)
            mln_conjunction_add(c, &k, schema, rule->items[i].root);
    }
    return any || !lists_properties(rule) ? mln_schema_rule_of(c, &k) : 0;
}

/* After a key: a colon, and perhaps a space. */
static void add_value(mln_graph *g, uint32_t from, uint32_t value, uint32_t to) {
    uint32_t colon = mln_graph_node(g), space = mln_graph_node(g);
    mln_graph_bytes(g, from, ':', ':', colon);
    mln_graph_bytes(g, colon, ' ', ' ', space);
    mln_graph_call(g, colon, value, to);
    mln_graph_call(g, space, value, to);
}

/* The keys no schema lists, each written in one way, so that none is a listed one in disguise. */
static void add_other_keys(mln_schema_compiler *c, json_t *names, uint32_t from, uint32_t value,
                           uint32_t to) {
    size_t count = 0;
    const char *key;
    json_t *ignored;
    mln_chars chars = {0};
    myelin_error error = {0};
    const char **listed = mln_alloc(json_object_size(names), sizeof *listed);
    if (!listed) {
        mln_schema_no_memory(c);
        return;
    }
    json_object_foreach(names, key, ignored) listed[count++] = key;
    myelin_status status = mln_chars_except(&chars, listed, count, &error);
    uint32_t colon = mln_graph_node(&c->graph);
    if (status == MYELIN_OK)
        mln_chars_write(&chars, &c->graph, from, colon);
    else if (status == MYELIN_ERROR_MEMORY)
        mln_schema_no_memory(c);
    else if (c->status == MYELIN_OK)
        c->graph.failed = MLN_GRAPH_TOO_LARGE;
    add_value(&c->graph, colon, value, to);
    mln_chars_free(&chars);
    free(listed);
}

/*
 * Places in an object, by which of its properties may come next: before any was written, after
 * one, and after a comma.
 */
typedef struct slots {
    uint32_t first, after, next;
} slots;

static slots make_slots(mln_graph *g) {
    slots s = {mln_graph_node(g), mln_graph_node(g), mln_graph_node(g)};
    uint32_t comma = mln_graph_node(g);
    mln_graph_bytes(g, s.after, ',', ',', comma);
    mln_graph_call(g, comma, g->spaces, s.next);
    return s;
}

static void add_property(mln_schema_compiler *c, const mln_schema_rule *rule, const char *name,
                         slots at, uint32_t to) {
    mln_graph *g = &c->graph;
    char *key = quoted(name);
    if (!key) {
        mln_schema_no_memory(c);
        return;
    }
    uint32_t begin = mln_graph_node(g);
    mln_graph_empty(g, at.first, begin);
    mln_graph_empty(g, at.next, begin);
    uint32_t end = mln_graph_word(g, begin, key, strlen(key));
    add_value(g, end, property_node(c, rule, name), to);
    free(key);
}

void mln_schema_object(mln_schema_compiler *c, const mln_schema_rule *rule, uint32_t from) {
    mln_graph *g = &c->graph;
    json_t *names = list_names(c, rule), *required;
    uint32_t open = mln_graph_node(g), close = mln_graph_node(g), brace = mln_graph_node(g);
    slots at = make_slots(g);
    const char *name;
    mln_graph_bytes(g, from, '{', '{', open);
    mln_graph_call(g, open, g->spaces, at.first);
    mln_graph_call(g, close, g->spaces, brace);
    mln_graph_bytes(g, brace, '}', '}', g->end);
    size_t left = 0; /* required ones not yet passed */
    json_object_foreach(names, name, required) left += json_is_true(required);
    if (left == 0)
        mln_graph_bytes(g, at.first, '}', '}', g->end);
    json_object_foreach(names, name, required) {
        slots next = make_slots(g);
        add_property(c, rule, name, at, next.after);
        if (!json_is_true(required)) {
            mln_graph_empty(g, at.first, next.first);
            mln_graph_empty(g, at.next, next.next);
        }
        left -= json_is_true(required);
        if (left == 0)
            mln_graph_empty(g, next.after, close);
        at = next;
        if (c->status != MYELIN_OK || g->failed)
            break;
    }
    uint32_t other = c->status == MYELIN_OK ? additional_node(c, rule) : 0;
    if (other && !g->failed) {
        uint32_t key = mln_graph_node(g), after = at.after;
        mln_graph_empty(g, at.first, key);
        mln_graph_empty(g, at.next, key);
        if (json_object_size(names) == 0)
            mln_graph_empty(g, after, close);
        add_other_keys(c, names, key, other, after);
    }
    json_decref(names);
}

/* The schemas that all items from `index` on satisfy, or the one at that place of prefixItems. */
static uint32_t item_node(mln_schema_compiler *c, const mln_schema_rule *rule, size_t index) {
    mln_conjunction k = {.count = 0};
    for (size_t i = 0; i < rule->count; i++) {
        const mln_schema_item *item = &rule->items[i];
        const json_t *schema = json_array_get(mln_schema_get(item, "prefixItems"), index);
        if (!schema)
            schema = mln_schema_get(item, "items");
        if (json_is_array(schema))
            mln_schema_refuse(c, item, "items",
                              "expected a schema, found an array (say "
                              "prefixItems)");
        else if (schema)
            mln_conjunction_add(c, &k, schema, item->root);
    }
    return mln_schema_rule_of(c, &k);
}

static size_t longest_prefix(mln_schema_compiler *c, const mln_schema_rule *rule) {
    size_t longest = 0;
    for (size_t i = 0; i < rule->count; i++) {
        const json_t *prefix = mln_schema_get(&rule->items[i], "prefixItems");
        if (prefix && !json_is_array(prefix))
            mln_schema_refuse(c, &rule->items[i], "prefixItems", "expected an array, found %s",
                              mln_json_type_name(prefix));
        if (json_array_size(prefix) > longest)
            longest = json_array_size(prefix);
    }
    return longest;
}

/* A comma and what may follow it. */
static void add_comma(mln_graph *g, uint32_t from, uint32_t to) {
    uint32_t comma = mln_graph_node(g);
    mln_graph_bytes(g, from, ',', ',', comma);
    mln_graph_call(g, comma, g->spaces, to);
}

/* The items behind a prefix, counted; `before` is where the first of them would stand. */
static void add_rest(mln_schema_compiler *c, const mln_schema_rule *rule, size_t prefix,
                     uint32_t before, uint32_t close, uint32_t least, uint32_t most) {
    mln_graph *g = &c->graph;
    uint32_t node = item_node(c, rule, prefix), first = mln_graph_node(g);
    uint32_t after = mln_graph_node(g), more = mln_graph_node(g), next = mln_graph_node(g);
    mln_graph_more(g, before, most, least, first);
    mln_graph_call(g, first, node, after);
    mln_graph_more(g, after, most, least, more);
    add_comma(g, more, next);
    mln_graph_call(g, next, node, after);
    mln_graph_done(g, after, least, close);
}

void mln_schema_array(mln_schema_compiler *c, const mln_schema_rule *rule, uint32_t from) {
    mln_graph *g = &c->graph;
    uint32_t least = mln_schema_count(c, rule->items, rule->count, "minItems", true, 0);
    uint32_t most = mln_schema_count(c, rule->items, rule->count, "maxItems", false, MLN_NO_LIMIT);
    size_t prefix = longest_prefix(c, rule);
    if (c->status != MYELIN_OK || least > most)
        return;
    prefix = prefix < most ? prefix : most;
    uint32_t open = mln_graph_node(g), before = mln_graph_node(g), close = mln_graph_node(g);
    uint32_t bracket = mln_graph_node(g);
    mln_graph_bytes(g, from, '[', '[', open);
    mln_graph_call(g, open, g->spaces, before);
    mln_graph_call(g, close, g->spaces, bracket);
    mln_graph_bytes(g, bracket, ']', ']', g->end);
    if (least == 0)
        mln_graph_bytes(g, before, ']', ']', g->end);
    for (size_t i = 0; i < prefix && c->status == MYELIN_OK && !g->failed; i++) {
        uint32_t after = mln_graph_node(g), next = mln_graph_node(g);
        mln_graph_call(g, before, item_node(c, rule, i), after);
        if (i + 1 >= least)
            mln_graph_empty(g, after, close);
        add_comma(g, after, next);
        before = next;
    }
    uint32_t used = (uint32_t)prefix, rest = least > used ? least - used : 0;
    if (c->status == MYELIN_OK && most > used)
        add_rest(c, rule, prefix, before, close, rest, most == MLN_NO_LIMIT ? most : most - used);
}
