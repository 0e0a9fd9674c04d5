/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens to statements. */
#include <string.h>

#include "text/template_ast.h"

static bool is_word(const mln_parser *p, const char *text) {
    return mln_parser_is(p, MLN_T_NAME, text);
}
static bool is_op(const mln_parser *p, const char *text) {
    return mln_parser_is(p, MLN_T_OPERATOR, text);
}

static bool parse_statements(mln_parser *p, const char *const *ends, mln_node **out);

/* The body of a block up to one of the tags in `ends`, which becomes the current token. */
static bool parse_block(mln_parser *p, const char *const *ends, mln_node **out) {
    mln_parser_skip(p, MLN_T_OPERATOR, ":");
    return mln_parser_expect(p, MLN_T_BLOCK_END, NULL) && parse_statements(p, ends, out);
}

/* One name, ns.attribute, a constant's place (an error), or a tuple in parentheses. */
static mln_node *target_item(mln_parser *p, bool namespaces) {
    static const char *const reserved[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        if (is_word(p, reserved[i])) {
            mln_parse_fail(p, p->token.line, "can't assign to '%s'", reserved[i]);
            return NULL;
        }
    }
    if (mln_parser_skip(p, MLN_T_OPERATOR, "(")) {
        if (++p->depth > MLN_TEMPLATE_MAX_DEPTH) {
            mln_parse_fail(p, p->token.line, "nested more than %d levels deep",
                           MLN_TEMPLATE_MAX_DEPTH);
            return NULL;
        }
        mln_node *inner = mln_parse_target(p, namespaces);
        p->depth--;
        return inner && mln_parser_expect(p, MLN_T_OPERATOR, ")") ? inner : NULL;
    }
    mln_node *name = mln_parse_name(p);
    if (!name || !namespaces || !mln_parser_skip(p, MLN_T_OPERATOR, "."))
        return p->failed ? NULL : name;
    mln_token attribute = p->token;
    mln_node *node = mln_parser_node(p, MLN_N_NAMESPACE, name->line);
    mln_string *string = mln_parse_alloc(p, 1, sizeof *string);
    if (!node || !string || !mln_parser_expect(p, MLN_T_NAME, NULL))
        return NULL;
    *string =
        (mln_string){attribute.length, attribute.length, (char *)(uintptr_t)attribute.text, false};
    node->a = name;
    node->value = mln_of_string(string);
    return node;
}

mln_node *mln_parse_target(mln_parser *p, bool namespaces) {
    int line = p->token.line;
    mln_node *first = target_item(p, namespaces);
    if (!first || !is_op(p, ","))
        return first;
    mln_node *tuple = mln_parser_node(p, MLN_N_TUPLE, line);
    if (!tuple)
        return NULL;
    tuple->args = first;
    for (mln_node **tail = &first->next; mln_parser_skip(p, MLN_T_OPERATOR, ",");
         tail = &(*tail)->next) {
        if (is_word(p, "in") || is_op(p, "=") || is_op(p, ")"))
            break;
        *tail = target_item(p, namespaces);
        if (!*tail)
            return NULL;
    }
    return p->failed ? NULL : tuple;
}

static mln_node *parse_set(mln_parser *p) {
    int line = p->token.line;
    mln_node *target = mln_parser_advance(p) ? mln_parse_target(p, true) : NULL;
    if (!target)
        return NULL;
    bool simple = mln_parser_skip(p, MLN_T_OPERATOR, "=");
    mln_node *node = mln_parser_node(p, simple ? MLN_N_SET : MLN_N_SET_BLOCK, line);
    if (!node)
        return NULL;
    node->b = target;
    if (simple)
        return (node->a = mln_parse_tuple(p, true)) ? node : NULL;
    static const char *const ends[] = {"endset", NULL};
    mln_node *captured = mln_parser_node(p, MLN_N_CAPTURED, line);
    node->a = captured ? mln_parse_filters(p, captured) : NULL;
    if (!node->a || !parse_block(p, ends, &node->body))
        return NULL;
    return mln_parser_advance(p) ? node : NULL;
}

static mln_node *parse_for(mln_parser *p) {
    static const char *const ends[] = {"endfor", "else", NULL};
    mln_node *node = mln_parser_node(p, MLN_N_FOR, p->token.line);
    if (!node || !mln_parser_advance(p) || !(node->b = mln_parse_target(p, false)) ||
        !mln_parser_expect(p, MLN_T_NAME, "in") || !(node->a = mln_parse_tuple(p, false)))
        return NULL;
    if (mln_parser_skip(p, MLN_T_NAME, "if") && !(node->c = mln_parse_expression(p, true)))
        return NULL;
    if (is_word(p, "recursive")) {
        mln_parse_fail(p, p->token.line, "recursive for loops are not supported");
        return NULL;
    }
    p->loops++;
    bool fine = parse_block(p, ends, &node->body);
    p->loops--;
    if (!fine)
        return NULL;
    bool other = is_word(p, "else");
    if (!mln_parser_advance(p))
        return NULL;
    if (!other)
        return node;
    static const char *const last[] = {"endfor", NULL};
    return parse_block(p, last, &node->other) && mln_parser_advance(p) ? node : NULL;
}

static mln_node *parse_if(mln_parser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const last[] = {"endif", NULL};
    mln_node *first = NULL, **place = &first;
    for (;;) { /* an elif is the only statement of the other branch */
        mln_node *node = mln_parser_node(p, MLN_N_IF, p->token.line);
        if (!node || !mln_parser_advance(p) || !(node->a = mln_parse_tuple(p, false)) ||
            !parse_block(p, ends, &node->body))
            return NULL;
        *place = node;
        place = &node->other;
        if (is_word(p, "elif"))
            continue;
        bool other = is_word(p, "else");
        if (!mln_parser_advance(p))
            return NULL;
        if (other && (!parse_block(p, last, place) || !mln_parser_advance(p)))
            return NULL;
        return first;
    }
}

/* The arguments of a macro: names, with their default in a. */
static bool parse_signature(mln_parser *p, mln_node **tail) {
    bool defaults = false;
    if (!mln_parser_expect(p, MLN_T_OPERATOR, "("))
        return false;
    for (int count = 0; !is_op(p, ")"); count++) {
        if (count == MLN_TEMPLATE_MAX_ARGUMENTS)
            return mln_parse_fail(p, p->token.line, "a macro has more than %d arguments",
                                  MLN_TEMPLATE_MAX_ARGUMENTS);
        if (count && !mln_parser_expect(p, MLN_T_OPERATOR, ","))
            return false;
        mln_node *name = mln_parse_name(p);
        if (!name)
            return false;
        if (mln_parser_skip(p, MLN_T_OPERATOR, "=")) {
            defaults = true;
            if (!(name->a = mln_parse_expression(p, true)))
                return false;
        } else if (defaults) {
            return mln_parse_fail(p, name->line, "non-default argument follows default argument");
        }
        *tail = name;
        tail = &name->next;
    }
    return mln_parser_expect(p, MLN_T_OPERATOR, ")");
}

static mln_node *parse_macro(mln_parser *p) {
    static const char *const ends[] = {"endmacro", NULL};
    mln_node *node = mln_parser_node(p, MLN_N_MACRO, p->token.line);
    if (!node || !mln_parser_advance(p) || !(node->b = mln_parse_name(p)))
        return NULL;
    node->text = node->b->text;
    node->length = node->b->length;
    int loops = p->loops;
    p->loops = 0;
    bool fine = parse_signature(p, &node->args) && parse_block(p, ends, &node->body) &&
                mln_parser_advance(p);
    p->loops = loops;
    return fine ? node : NULL;
}

static mln_node *parse_with(mln_parser *p) {
    static const char *const ends[] = {"endwith", NULL};
    mln_node *node = mln_parser_node(p, MLN_N_WITH, p->token.line);
    if (!node || !mln_parser_advance(p))
        return NULL;
    for (mln_node **tail = &node->args; !mln_parser_is(p, MLN_T_BLOCK_END, NULL);
         tail = &(*tail)->next) {
        if (node->args && !mln_parser_expect(p, MLN_T_OPERATOR, ","))
            return NULL;
        mln_node *pair = mln_parser_node(p, MLN_N_SET, p->token.line);
        if (!pair || !(pair->b = mln_parse_target(p, false)) ||
            !mln_parser_expect(p, MLN_T_OPERATOR, "=") ||
            !(pair->a = mln_parse_expression(p, true)))
            return NULL;
        *tail = pair;
    }
    return parse_block(p, ends, &node->body) && mln_parser_advance(p) ? node : NULL;
}

static mln_node *parse_generation(mln_parser *p) {
    static const char *const ends[] = {"endgeneration", NULL};
    mln_node *node = mln_parser_node(p, MLN_N_GENERATION, p->token.line);
    int loops = p->loops;
    p->loops = 0;
    bool fine =
        node && mln_parser_advance(p) && parse_block(p, ends, &node->body) && mln_parser_advance(p);
    p->loops = loops;
    return fine ? node : NULL;
}

static mln_node *parse_jump(mln_parser *p, mln_node_kind kind) {
    mln_token token = p->token;
    if (p->loops == 0) {
        mln_parse_fail(p, token.line, "'%.*s' outside of a loop", (int)token.length, token.text);
        return NULL;
    }
    mln_node *node = mln_parser_node(p, kind, token.line);
    return node && mln_parser_advance(p) ? node : NULL;
}

static mln_node *parse_tag(mln_parser *p) {
    if (is_word(p, "set"))
        return parse_set(p);
    if (is_word(p, "for"))
        return parse_for(p);
    if (is_word(p, "if"))
        return parse_if(p);
    if (is_word(p, "macro"))
        return parse_macro(p);
    if (is_word(p, "with"))
        return parse_with(p);
    if (is_word(p, "generation"))
        return parse_generation(p);
    if (is_word(p, "break"))
        return parse_jump(p, MLN_N_BREAK);
    if (is_word(p, "continue"))
        return parse_jump(p, MLN_N_CONTINUE);
    if (p->token.kind != MLN_T_NAME)
        mln_parser_unexpected(p);
    else
        mln_parse_fail(p, p->token.line, "tag '%.*s' is not supported here",
                       p->token.length < 60 ? (int)p->token.length : 60, p->token.text);
    return NULL;
}

static bool ends_here(const mln_parser *p, const char *const *ends) {
    for (; ends && *ends; ends++) {
        if (is_word(p, *ends))
            return true;
    }
    return false;
}

static mln_node *parse_output(mln_parser *p) {
    mln_node *node = mln_parser_node(p, MLN_N_OUTPUT, p->token.line);
    if (!node || !mln_parser_advance(p) || !(node->a = mln_parse_tuple(p, true)) ||
        !mln_parser_expect(p, MLN_T_VARIABLE_END, NULL))
        return NULL;
    return node;
}

static mln_node *parse_data(mln_parser *p) {
    mln_node *node = mln_parser_node(p, MLN_N_DATA, p->token.line);
    if (!node)
        return NULL;
    node->text = p->token.text;
    node->length = p->token.length;
    return mln_parser_advance(p) ? node : NULL;
}

static bool parse_statements(mln_parser *p, const char *const *ends, mln_node **out) {
    int depth = p->depth, line = p->token.line;
    if (++p->depth > MLN_TEMPLATE_MAX_DEPTH)
        return mln_parse_fail(p, line, "nested more than %d levels deep", MLN_TEMPLATE_MAX_DEPTH);
    for (mln_node *node; !p->failed && p->token.kind != MLN_T_END; *out = node, out = &node->next) {
        if (p->token.kind == MLN_T_DATA) {
            node = parse_data(p);
        } else if (p->token.kind == MLN_T_VARIABLE_BEGIN) {
            node = parse_output(p);
        } else { /* the lexer gives nothing else outside of tags */
            if (!mln_parser_expect(p, MLN_T_BLOCK_BEGIN, NULL))
                return false;
            if (ends_here(p, ends)) {
                p->depth = depth;
                return true;
            }
            node = parse_tag(p);
            if (node && !mln_parser_expect(p, MLN_T_BLOCK_END, NULL))
                return false;
        }
        if (!node)
            return false;
    }
    p->depth = depth;
    if (ends && !p->failed)
        return mln_parse_fail(p, line, "unexpected end of template: '%s' is missing", ends[0]);
    return !p->failed;
}

bool mln_parse_body(mln_parser *p, mln_node **out) {
    return mln_parser_advance(p) && parse_statements(p, NULL, out);
}
