/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where each name lives. As Jinja compiles it, a template, a macro, a for's body (and its else, and
 * its test), a with and a block set have a frame of variables of their own; an if has not. What a
 * name means in a frame does not depend on the order things run in: a frame that assigns a name
 * anywhere has a variable of that name from its beginning, which begins as the outer frame's, or,
 * when no outer frame has one, as the template's variable if the frame reads it before (in the
 * text) or assigns it under an if, and as nothing otherwise.
 */
#include <string.h>

#include "text/template_ast.h"
#include "text/template_run.h"

enum { MAX_TREE_DEPTH = 500 };

static bool find_here(const mln_scope *scope, int32_t name, int32_t *slot) {
    for (int32_t i = 0; i < scope->count; i++) {
        if (scope->slots[i].name == name) {
            *slot = i;
            return true;
        }
    }
    return false;
}

static bool find(const mln_scope *scope, int32_t name, int32_t *hops, int32_t *slot) {
    for (*hops = 0; scope; scope = scope->parent, (*hops)++) {
        if (find_here(scope, name, slot))
            return true;
    }
    return false;
}

static mln_slot *define(mln_parser *p, mln_scope *scope, int32_t name, mln_load load) {
    if (scope->count == scope->capacity) {
        int32_t capacity = scope->capacity ? scope->capacity * 2 : 8;
        mln_slot *slots = mln_parse_alloc(p, (size_t)capacity, sizeof *slots);
        if (!slots)
            return NULL;
        if (scope->count)
            memcpy(slots, scope->slots, (size_t)scope->count * sizeof *slots);
        scope->slots = slots;
        scope->capacity = capacity;
    }
    mln_slot *slot = &scope->slots[scope->count++];
    *slot = (mln_slot){.name = name, .load = load};
    return slot;
}

static bool store(mln_parser *p, mln_scope *scope, int32_t name) {
    int32_t hops, slot;
    if (find_here(scope, name, &slot))
        return true;
    bool outer = scope->parent && find(scope->parent, name, &hops, &slot);
    mln_slot *made = define(p, scope, name,
                            outer             ? MLN_LOAD_OUTER
                            : scope->branches ? MLN_LOAD_CONTEXT
                                              : MLN_LOAD_MISSING);
    if (made && outer) {
        made->hops = hops + 1;
        made->slot = slot;
    }
    return made != NULL;
}

static bool load(mln_parser *p, mln_scope *scope, int32_t name) {
    int32_t hops, slot;
    return find(scope, name, &hops, &slot) || define(p, scope, name, MLN_LOAD_CONTEXT);
}

static bool deep(mln_parser *p, const mln_node *node) {
    return ++p->depth > MAX_TREE_DEPTH &&
           !mln_parse_fail(p, node->line, "the template is nested too deep");
}

/* First pass: which names a scope reads and assigns, in order, not looking into inner scopes. */
static bool collect(mln_parser *p, mln_scope *scope, const mln_node *node);

static bool collect_list(mln_parser *p, mln_scope *scope, const mln_node *node) {
    for (; node; node = node->next) {
        if (!collect(p, scope, node))
            return false;
    }
    return true;
}

static bool collect_target(mln_parser *p, mln_scope *scope, const mln_node *target,
                           bool parameter) {
    if (target->kind == MLN_N_NAME) {
        int32_t slot;
        if (!parameter)
            return store(p, scope, target->name);
        return find_here(scope, target->name, &slot) ||
               define(p, scope, target->name, MLN_LOAD_PARAMETER);
    }
    if (target->kind == MLN_N_NAMESPACE)
        return load(p, scope, target->a->name);
    for (const mln_node *item = target->args; item; item = item->next) {
        if (!collect_target(p, scope, item, parameter))
            return false;
    }
    return true;
}

static bool collect_if(mln_parser *p, mln_scope *scope, const mln_node *node) {
    bool fine = collect(p, scope, node->a);
    scope->branches++;
    fine = fine && collect_list(p, scope, node->body);
    const mln_node *other = node->other;
    while (fine && other && other->kind == MLN_N_IF && !other->next) {
        fine = collect(p, scope, other->a) && collect_list(p, scope, other->body);
        other = other->other;
    }
    fine = fine && collect_list(p, scope, other);
    scope->branches--;
    return fine;
}

static bool collect_node(mln_parser *p, mln_scope *scope, const mln_node *node) {
    switch (node->kind) {
    case MLN_N_IF:
        return collect_if(p, scope, node);
    case MLN_N_FOR:
        return collect(p, scope, node->a);
    case MLN_N_SET:
        return collect(p, scope, node->a) && collect_target(p, scope, node->b, false);
    case MLN_N_SET_BLOCK:
        return collect(p, scope, node->a) && collect_target(p, scope, node->b, false);
    case MLN_N_MACRO:
        return store(p, scope, node->b->name);
    case MLN_N_WITH:
        for (const mln_node *pair = node->args; pair; pair = pair->next) {
            if (!collect(p, scope, pair->a))
                return false;
        }
        return true;
    case MLN_N_GENERATION:
        return true;
    case MLN_N_NAME:
        return load(p, scope, node->name);
    default:
        return (!node->a || collect(p, scope, node->a)) &&
               (!node->b || collect(p, scope, node->b)) &&
               (!node->c || collect(p, scope, node->c)) && collect_list(p, scope, node->args);
    }
}

static bool collect(mln_parser *p, mln_scope *scope, const mln_node *node) {
    int depth = p->depth;
    bool fine = !deep(p, node) && collect_node(p, scope, node);
    p->depth = depth;
    return fine;
}

/* Second pass: the slot of every name, and the inner scopes. */
static bool place(mln_parser *p, mln_scope *scope, mln_node *node);

static bool place_list(mln_parser *p, mln_scope *scope, mln_node *node) {
    for (; node; node = node->next) {
        if (!place(p, scope, node))
            return false;
    }
    return true;
}

static mln_scope *new_scope(mln_parser *p, mln_scope *parent) {
    mln_scope *scope = mln_parse_alloc(p, 1, sizeof *scope);
    if (scope) {
        scope->parent = parent;
        scope->loop_slot = -1;
    }
    return scope;
}

static int32_t name_index(const mln_parser *p, const char *text) {
    for (int32_t i = 0; i < p->template->name_count; i++) {
        if (p->template->names[i].length == strlen(text) &&
            memcmp(p->template->names[i].text, text, strlen(text)) == 0)
            return i;
    }
    return -1;
}

static bool place_inner(mln_parser *p, mln_scope *inner, mln_node *body) {
    return collect_list(p, inner, body) && place_list(p, inner, body);
}

static bool place_for(mln_parser *p, mln_scope *scope, mln_node *node) {
    mln_scope *body = new_scope(p, scope), *other = new_scope(p, scope);
    if (!body || !other || !place(p, scope, node->a))
        return false;
    node->scope = body;
    node->other_scope = other;
    int32_t loop = name_index(p, "loop");
    if (loop >= 0) {
        if (!define(p, body, loop, MLN_LOAD_PARAMETER))
            return false;
        body->loop_slot = 0;
    }
    if (!collect_target(p, body, node->b, true) || !place_inner(p, other, node->other))
        return false;
    if (node->c) { /* the test's frame has the targets at the same slots, but no loop of its own */
        mln_scope *test = node->test_scope = new_scope(p, scope);
        if (!test || (loop >= 0 && !define(p, test, -1, MLN_LOAD_PARAMETER)) ||
            !collect_target(p, test, node->b, true) || !collect(p, test, node->c) ||
            !place(p, test, node->c))
            return false;
    }
    return collect_list(p, body, node->body) && place(p, body, node->b) &&
           place_list(p, body, node->body);
}

static bool place_macro(mln_parser *p, mln_scope *scope, mln_node *node) {
    static const char *const special[] = {"varargs", "kwargs", "caller"};
    mln_scope *inner = node->scope = new_scope(p, scope);
    if (!inner || !place(p, scope, node->b))
        return false;
    for (const mln_node *argument = node->args; argument; argument = argument->next) {
        int32_t slot;
        if (find_here(inner, argument->name, &slot))
            return mln_parse_fail(p, argument->line, "duplicate argument '%.*s' of a macro",
                                  (int)argument->length, argument->text);
        if (!define(p, inner, argument->name, MLN_LOAD_PARAMETER))
            return false;
    }
    for (mln_node *argument = node->args; argument; argument = argument->next) {
        if (argument->a && !collect(p, inner, argument->a))
            return false;
    }
    if (!collect_list(p, inner, node->body))
        return false;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        int32_t name = name_index(p, special[i]), slot;
        if (name >= 0 && find_here(inner, name, &slot) &&
            inner->slots[slot].load == MLN_LOAD_CONTEXT)
            return mln_parse_fail(p, node->line, "'%s' of a macro is not supported", special[i]);
    }
    for (mln_node *argument = node->args; argument; argument = argument->next) {
        if (argument->a && !place(p, inner, argument->a))
            return false;
    }
    return place_list(p, inner, node->body);
}

static bool place_with(mln_parser *p, mln_scope *scope, mln_node *node) {
    mln_scope *inner = node->scope = new_scope(p, scope);
    if (!inner)
        return false;
    for (mln_node *pair = node->args; pair; pair = pair->next) {
        if (!place(p, scope, pair->a) || !collect_target(p, inner, pair->b, true) ||
            !place(p, inner, pair->b))
            return false;
    }
    return place_inner(p, inner, node->body);
}

static bool place_node(mln_parser *p, mln_scope *scope, mln_node *node) {
    switch (node->kind) {
    case MLN_N_IF:
        for (;; node = node->other) {
            if (!place(p, scope, node->a) || !place_list(p, scope, node->body))
                return false;
            if (!node->other || node->other->kind != MLN_N_IF || node->other->next)
                return place_list(p, scope, node->other);
        }
    case MLN_N_FOR:
        return place_for(p, scope, node);
    case MLN_N_SET_BLOCK:
        node->scope = new_scope(p, scope);
        return node->scope && place(p, scope, node->a) && place(p, scope, node->b) &&
               place_inner(p, node->scope, node->body);
    case MLN_N_MACRO:
        return place_macro(p, scope, node);
    case MLN_N_WITH:
        return place_with(p, scope, node);
    case MLN_N_GENERATION:
        node->scope = new_scope(p, scope);
        return node->scope && place_inner(p, node->scope, node->body);
    case MLN_N_NAME:
        return find(scope, node->name, &node->hops, &node->slot) ||
               mln_parse_fail(p, node->line, "'%.*s' has no place", (int)node->length, node->text);
    default:
        return (!node->a || place(p, scope, node->a)) && (!node->b || place(p, scope, node->b)) &&
               (!node->c || place(p, scope, node->c)) && place_list(p, scope, node->args);
    }
}

static bool place(mln_parser *p, mln_scope *scope, mln_node *node) {
    int depth = p->depth;
    bool fine = !deep(p, node) && place_node(p, scope, node);
    p->depth = depth;
    return fine;
}

bool mln_resolve_scopes(mln_parser *p) {
    p->template->scope = new_scope(p, NULL);
    p->depth = 0;
    return p->template->scope && place_inner(p, p->template->scope, p->template->body);
}
