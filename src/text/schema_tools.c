/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that are calls of tools, in the form Qwen3's chat templates ask for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "text/chat_split.h"
#include "text/schema.h"

static const char opening[] = "<tool_call>";

typedef struct tools {
    mln_schema_compiler compiler;
    mln_schema_root *roots; /* [json_array_size(list)] */
    json_t *any_object;     /* the schema of arguments of which nothing is said */
    const json_t *list;
    const char *only; /* the name of the one that may be called, or NULL */
    size_t num_found;
} tools;

static void refuse(tools *t, size_t index, const char *expected, const json_t *found) {
    if (t->compiler.status == MYELIN_OK)
        t->compiler.status = mln_fail(t->compiler.error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                                      "tools[%zu]: expected %s, found %s", index, expected,
                                      mln_json_type_name(found));
}

/* The node from which the arguments of a function begin: objects that its schema accepts. */
static uint32_t arguments_node(tools *t, size_t index, const json_t *parameters) {
    mln_schema_compiler *c = &t->compiler;
    mln_conjunction k = {.count = 0};
    char name[64];
    snprintf(name, sizeof name, "tools[%zu].parameters", index);
    mln_schema_root *root = &t->roots[index];
    root->document = parameters ? parameters : t->any_object;
    root->name = mln_arena_strndup(&c->arena, name, strlen(name));
    if (!root->name) {
        mln_schema_no_memory(c);
        return 0;
    }
    mln_conjunction_add(c, &k, root->document, root);
    mln_conjunction_add(c, &k, t->any_object, root);
    return mln_schema_rule_of(c, &k);
}

/* {"name": "f", "arguments": {...}} and a line's end before it, from `from` to `to`. */
static void add_call(tools *t, size_t index, uint32_t from, uint32_t to) {
    mln_graph *g = &t->compiler.graph;
    const json_t *tool = json_array_get(t->list, index);
    const json_t *function = json_object_get(tool, "function");
    if (!function)
        function = tool;
    const json_t *name = json_object_get(function, "name");
    if (!json_is_object(function) || !json_is_string(name)) {
        refuse(t, index, "a function with a name", json_is_object(function) ? name : function);
        return;
    }
    if (t->only && strcmp(t->only, json_string_value(name)) != 0)
        return;
    t->num_found++;
    uint32_t arguments = arguments_node(t, index, json_object_get(function, "parameters"));
    char *quoted = json_dumps(name, JSON_ENCODE_ANY);
    if (!quoted) {
        mln_schema_no_memory(&t->compiler);
        return;
    }
    static const char before[] = "\n{\"name\": ", between[] = ", \"arguments\": ";
    uint32_t node = mln_graph_word(g, from, before, sizeof before - 1);
    node = mln_graph_word(g, node, quoted, strlen(quoted));
    node = mln_graph_word(g, node, between, sizeof between - 1);
    mln_graph_call(g, node, arguments, to);
    free(quoted);
}

/* The texts that are calls, one after the other; free text before the first unless required. */
static uint32_t make_answer(tools *t, bool required, bool parallel) {
    mln_graph *g = &t->compiler.graph;
    static const char closing[] = "}\n</tool_call>";
    uint32_t tagged = mln_graph_node(g), done = mln_graph_node(g);
    for (size_t i = 0; i < json_array_size(t->list) && t->compiler.status == MYELIN_OK; i++)
        add_call(t, i, tagged, done);
    uint32_t end = mln_graph_word(g, done, closing, sizeof closing - 1);
    mln_graph_empty(g, end, g->end);
    if (parallel) {
        uint32_t more = mln_graph_node(g), line = mln_graph_node(g);
        mln_graph_more(g, end, MLN_CHAT_MAX_CALLS - 1, 0, more);
        mln_graph_bytes(g, more, '\n', '\n', line);
        mln_graph_empty(g, mln_graph_word(g, line, opening, sizeof opening - 1), tagged);
    }
    if (!required)
        return mln_graph_until(g, opening, true, tagged);
    uint32_t start = mln_graph_node(g);
    mln_graph_empty(g, mln_graph_word(g, start, opening, sizeof opening - 1), tagged);
    return start;
}

static myelin_status check(tools *t, myelin_error *error) {
    if (!json_is_array(t->list) || json_array_size(t->list) == 0)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "tools: expected an array of tools, found %s",
                        json_is_array(t->list) ? "none in it" : mln_json_type_name(t->list));
    t->roots = mln_calloc(json_array_size(t->list), sizeof *t->roots);
    t->any_object = json_pack("{s:s}", "type", "object");
    if (!t->roots || !t->any_object)
        return mln_fail_memory(error, sizeof *t->roots, "tools");
    return MYELIN_OK;
}

myelin_status mln_grammar_from_tools(mln_grammar **grammar, const mln_tokenizer *tokenizer,
                                     const json_t *list, const char *name, bool required,
                                     bool parallel, myelin_error *error) {
    tools t = {.list = list, .only = name};
    mln_schema_compiler *c = &t.compiler;
    uint32_t answer = 0;
    *grammar = NULL;
    mln_schema_begin(c, error);
    c->status = check(&t, error);
    if (c->status == MYELIN_OK)
        answer = make_answer(&t, required, parallel);
    if (c->status == MYELIN_OK && name && t.num_found == 0)
        c->status = mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                             "tools: expected one named \"%.80s\", found none", name);
    mln_schema_define_all(c);
    myelin_status status = mln_schema_finish(c, grammar, tokenizer, answer);
    free(t.roots);
    json_decref(t.any_object);
    return status;
}
