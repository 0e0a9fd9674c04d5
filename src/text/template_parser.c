/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens to expressions; the grammar and its precedences are Jinja's. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "text/template_ast.h"
#include "text/template_run.h"

bool mln_parse_fail(mln_parser *p, int line, const char *format, ...) {
    char text[MYELIN_ERROR_MESSAGE_SIZE];
    if (p->failed)
        return false;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    p->failed = true;
    p->status = mln_fail(p->error, MYELIN_ERROR_UNSUPPORTED, p->template->file, -1, "line %d: %s",
                         line, text);
    return false;
}

void *mln_parse_alloc(mln_parser *p, size_t count, size_t size) {
    void *object = mln_arena_alloc(p->arena, count, size);
    if (!object && !p->failed) {
        p->failed = true;
        p->status = mln_fail_memory(p->error, (uint64_t)count * size, "the template");
    }
    return object;
}

bool mln_parser_advance(mln_parser *p) {
    if (p->has_ahead) {
        p->token = p->ahead;
        p->has_ahead = false;
        return !p->failed;
    }
    return mln_lexer_next(p, &p->token);
}

bool mln_parser_peek(mln_parser *p) {
    if (!p->has_ahead && !mln_lexer_next(p, &p->ahead))
        return false;
    p->has_ahead = true;
    return true;
}

static bool token_is(const mln_token *token, mln_token_kind kind, const char *text) {
    return token->kind == kind &&
           (!text || (token->length == strlen(text) && !memcmp(token->text, text, token->length)));
}

bool mln_parser_is(const mln_parser *p, mln_token_kind kind, const char *text) {
    return !p->failed && token_is(&p->token, kind, text);
}

bool mln_parser_skip(mln_parser *p, mln_token_kind kind, const char *text) {
    return mln_parser_is(p, kind, text) && mln_parser_advance(p);
}

static const char *describe(const mln_token *token, char text[80]) {
    switch (token->kind) {
    case MLN_T_END:
        return "end of template";
    case MLN_T_DATA:
        return "template data";
    case MLN_T_VARIABLE_BEGIN:
        return "begin of print statement";
    case MLN_T_VARIABLE_END:
        return "end of print statement";
    case MLN_T_BLOCK_BEGIN:
        return "begin of statement block";
    case MLN_T_BLOCK_END:
        return "end of statement block";
    case MLN_T_INTEGER:
    case MLN_T_FLOAT:
        return "a number";
    default:
        snprintf(text, 80, "'%.*s'", token->length < 60 ? (int)token->length : 60,
                 token->text ? token->text : "");
        return text;
    }
}

bool mln_parser_unexpected(mln_parser *p) {
    char text[80];
    return mln_parse_fail(p, p->token.line, "unexpected %s", describe(&p->token, text));
}

bool mln_parser_expect(mln_parser *p, mln_token_kind kind, const char *text) {
    if (mln_parser_skip(p, kind, text))
        return true;
    char found[80];
    mln_token wanted = {.kind = kind};
    char name[80];
    return mln_parse_fail(p, p->token.line, "expected %s%s%s, got %s", text ? "'" : "",
                          text                 ? text
                          : kind == MLN_T_NAME ? "a name"
                                               : describe(&wanted, name),
                          text ? "'" : "", describe(&p->token, found));
}

mln_node *mln_parser_node(mln_parser *p, mln_node_kind kind, int line) {
    mln_node *node = p->failed ? NULL : mln_parse_alloc(p, 1, sizeof *node);
    if (node) {
        node->kind = (uint8_t)kind;
        node->line = line;
    }
    return node;
}

/* An operator, which is not needed elsewhere. */
static bool is_op(const mln_parser *p, const char *text) {
    return mln_parser_is(p, MLN_T_OPERATOR, text);
}
static bool skip_op(mln_parser *p, const char *text) {
    return mln_parser_skip(p, MLN_T_OPERATOR, text);
}
static bool is_word(const mln_parser *p, const char *text) {
    return mln_parser_is(p, MLN_T_NAME, text);
}
static bool skip_word(mln_parser *p, const char *text) {
    return mln_parser_skip(p, MLN_T_NAME, text);
}

static int32_t intern(mln_parser *p, const char *text, size_t length) {
    mln_template *t = p->template;
    for (int32_t i = 0; i < t->name_count; i++) {
        if (t->names[i].length == length && !memcmp(t->names[i].text, text, length))
            return i;
    }
    if (t->name_count == MLN_TEMPLATE_MAX_NAMES) {
        mln_parse_fail(p, p->token.line, "the template has more than %d variables",
                       MLN_TEMPLATE_MAX_NAMES);
        return 0;
    }
    t->names[t->name_count] = (mln_name){text, length};
    return t->name_count++;
}

mln_node *mln_parse_name(mln_parser *p) {
    mln_token token = p->token;
    if (!mln_parser_expect(p, MLN_T_NAME, NULL))
        return NULL;
    mln_node *node = mln_parser_node(p, MLN_N_NAME, token.line);
    if (node) {
        node->text = token.text;
        node->length = token.length;
        node->name = intern(p, token.text, token.length);
    }
    return node;
}

/* a, b, c up to `close`; a trailing comma is fine. */
static bool list_items(mln_parser *p, mln_node **tail, const char *close, bool pairs) {
    while (!is_op(p, close)) {
        mln_node *item = mln_parse_expression(p, true);
        if (!item)
            return false;
        *tail = item;
        tail = &item->next;
        if (pairs) {
            mln_node *value =
                mln_parser_expect(p, MLN_T_OPERATOR, ":") ? mln_parse_expression(p, true) : NULL;
            if (!value)
                return false;
            *tail = value;
            tail = &value->next;
        }
        if (!skip_op(p, ","))
            break;
    }
    return mln_parser_expect(p, MLN_T_OPERATOR, close);
}

static mln_node *parse_collection(mln_parser *p, mln_node_kind kind) {
    mln_node *node = mln_parser_node(p, kind, p->token.line);
    if (!node || !mln_parser_advance(p) ||
        !list_items(p, &node->args, kind == MLN_N_LIST ? "]" : "}", kind == MLN_N_DICT))
        return NULL;
    return node;
}

static mln_node *constant(mln_parser *p, mln_value value, int line) {
    mln_node *node = mln_parser_node(p, MLN_N_CONST, line);
    if (node)
        node->value = value;
    return node;
}

static mln_node *parse_string(mln_parser *p) {
    mln_token first = p->token;
    mln_string *string = mln_parse_alloc(p, 1, sizeof *string);
    if (!string)
        return NULL;
    string->data = (char *)(uintptr_t)first.text;
    string->length = first.length;
    if (!mln_parser_advance(p))
        return NULL;
    while (mln_parser_is(p, MLN_T_STRING, NULL)) { /* adjacent literals are one */
        char *joined = mln_parse_alloc(p, string->length + p->token.length + 1, 1);
        if (!joined)
            return NULL;
        memcpy(joined, string->data, string->length);
        memcpy(joined + string->length, p->token.text, p->token.length);
        string->data = joined;
        string->length += p->token.length;
        if (p->arena_spent += string->length, p->arena_spent > MLN_TEMPLATE_MAX_OUTPUT) {
            mln_parse_fail(p, first.line, "too many adjacent strings");
            return NULL;
        }
        if (!mln_parser_advance(p))
            return NULL;
    }
    mln_string_finish(string);
    return constant(p, mln_of_string(string), first.line);
}

static mln_node *parse_word(mln_parser *p) {
    int line = p->token.line;
    bool truth = is_word(p, "true") || is_word(p, "True");
    if (truth || is_word(p, "false") || is_word(p, "False"))
        return mln_parser_advance(p) ? constant(p, mln_bool(truth), line) : NULL;
    if (is_word(p, "none") || is_word(p, "None"))
        return mln_parser_advance(p) ? constant(p, mln_none(), line) : NULL;
    return mln_parse_name(p);
}

static mln_node *parse_parentheses(mln_parser *p) {
    int line = p->token.line;
    if (!mln_parser_advance(p))
        return NULL;
    mln_node *node =
        is_op(p, ")") ? mln_parser_node(p, MLN_N_TUPLE, line) : mln_parse_tuple(p, true);
    return node && mln_parser_expect(p, MLN_T_OPERATOR, ")") ? node : NULL;
}

static mln_node *parse_primary(mln_parser *p) {
    mln_token token = p->token;
    switch (p->failed ? MLN_T_END : token.kind) {
    case MLN_T_NAME:
        return parse_word(p);
    case MLN_T_STRING:
        return parse_string(p);
    case MLN_T_INTEGER:
        return mln_parser_advance(p) ? constant(p, mln_int(token.integer), token.line) : NULL;
    case MLN_T_FLOAT:
        return mln_parser_advance(p) ? constant(p, mln_float(token.real), token.line) : NULL;
    default:
        break;
    }
    if (is_op(p, "("))
        return parse_parentheses(p);
    if (is_op(p, "["))
        return parse_collection(p, MLN_N_LIST);
    if (is_op(p, "{"))
        return parse_collection(p, MLN_N_DICT);
    mln_parser_unexpected(p);
    return NULL;
}

/* One bound of a slice, or NULL where there is none; false on failure. */
static bool parse_bound(mln_parser *p, mln_node **out) {
    *out = NULL;
    if (is_op(p, ":") || is_op(p, "]") || is_op(p, ","))
        return true;
    return (*out = mln_parse_expression(p, true)) != NULL;
}

static mln_node *parse_subscribed(mln_parser *p) {
    int line = p->token.line;
    mln_node *start;
    if (!parse_bound(p, &start))
        return NULL;
    if (start && !is_op(p, ":"))
        return start;
    mln_node *slice = mln_parser_node(p, MLN_N_SLICE, line);
    if (!slice || !mln_parser_expect(p, MLN_T_OPERATOR, ":") || !parse_bound(p, &slice->b))
        return NULL;
    slice->a = start;
    if (skip_op(p, ":") && !parse_bound(p, &slice->c))
        return NULL;
    return p->failed ? NULL : slice;
}

static mln_node *parse_subscript(mln_parser *p, mln_node *object) {
    int line = p->token.line;
    if (skip_op(p, ".")) {
        mln_token name = p->token;
        bool number = name.kind == MLN_T_INTEGER;
        mln_node *node = mln_parser_node(p, number ? MLN_N_ITEM : MLN_N_ATTRIBUTE, line);
        if (!node)
            return NULL;
        node->a = object;
        if (number) {
            node->b = constant(p, mln_int(name.integer), line);
            return node->b && mln_parser_advance(p) ? node : NULL;
        }
        mln_string *string = mln_parse_alloc(p, 1, sizeof *string);
        if (!string || !mln_parser_expect(p, MLN_T_NAME, NULL))
            return NULL;
        *string = (mln_string){name.length, name.length, (char *)(uintptr_t)name.text, false};
        node->value = mln_of_string(string);
        return node;
    }
    mln_node *node = mln_parser_node(p, MLN_N_ITEM, line);
    if (!node || !mln_parser_expect(p, MLN_T_OPERATOR, "["))
        return NULL;
    node->a = object;
    node->b = parse_subscribed(p);
    if (!node->b)
        return NULL;
    if (is_op(p, ",")) {
        mln_parse_fail(p, line, "several subscripts in one pair of brackets are not supported");
        return NULL;
    }
    return mln_parser_expect(p, MLN_T_OPERATOR, "]") ? node : NULL;
}

static mln_node *parse_argument(mln_parser *p, bool *keywords) {
    int star = skip_op(p, "*") ? 1 : skip_op(p, "**") ? 2 : 0;
    if (star) {
        mln_parse_fail(p, p->token.line, "arguments with * are not supported");
        return NULL;
    }
    mln_token name = p->token;
    bool named = false;
    if (name.kind == MLN_T_NAME) {
        if (!mln_parser_peek(p))
            return NULL;
        named = token_is(&p->ahead, MLN_T_OPERATOR, "=");
    }
    if (!named && *keywords) {
        mln_parse_fail(p, name.line, "a positional argument follows a keyword argument");
        return NULL;
    }
    if (named && (!mln_parser_advance(p) || !mln_parser_advance(p)))
        return NULL;
    mln_node *wrap = mln_parser_node(p, MLN_N_CONST, name.line);
    mln_node *value = mln_parse_expression(p, true);
    if (!wrap || !value)
        return NULL;
    *keywords = named;
    wrap->a = value;
    wrap->text = named ? name.text : NULL;
    wrap->length = named ? name.length : 0;
    return wrap;
}

/* (a, b, k=c): a list of nodes with the expression in a and the keyword, if any, in text. */
static bool parse_arguments(mln_parser *p, mln_node **tail) {
    bool keywords = false;
    if (!mln_parser_expect(p, MLN_T_OPERATOR, "("))
        return false;
    for (int count = 0; !is_op(p, ")"); count++) {
        if (count == MLN_TEMPLATE_MAX_ARGUMENTS)
            return mln_parse_fail(p, p->token.line, "a call has more than %d arguments",
                                  MLN_TEMPLATE_MAX_ARGUMENTS);
        mln_node *argument = parse_argument(p, &keywords);
        if (!argument)
            return false;
        *tail = argument;
        tail = &argument->next;
        if (!skip_op(p, ","))
            break;
    }
    return mln_parser_expect(p, MLN_T_OPERATOR, ")");
}

static mln_node *parse_call(mln_parser *p, mln_node *callee) {
    mln_node *node = mln_parser_node(p, MLN_N_CALL, p->token.line);
    if (!node || !parse_arguments(p, &node->args))
        return NULL;
    node->a = callee;
    return node;
}

static mln_node *parse_postfix(mln_parser *p, mln_node *node) {
    while (node && !p->failed) {
        if (is_op(p, ".") || is_op(p, "["))
            node = parse_subscript(p, node);
        else if (is_op(p, "("))
            node = parse_call(p, node);
        else
            break;
    }
    return p->failed ? NULL : node;
}

mln_node *mln_parse_filters(mln_parser *p, mln_node *value) {
    while (value && skip_op(p, "|")) {
        mln_token name = p->token;
        mln_node *node = mln_parser_node(p, MLN_N_FILTER, name.line);
        if (!node || !mln_parser_expect(p, MLN_T_NAME, NULL))
            return NULL;
        node->op = (int16_t)mln_find_filter(name.text, name.length);
        if (node->op < 0) {
            mln_parse_fail(p, name.line, "filter '%.*s' is not supported", (int)name.length,
                           name.text);
            return NULL;
        }
        if (is_op(p, "(") && !parse_arguments(p, &node->args))
            return NULL;
        node->a = value;
        value = node;
    }
    return p->failed ? NULL : value;
}

/* A test's argument may stand without parentheses: is divisibleby 3. */
static bool bare_argument(mln_parser *p, mln_node **out) {
    bool begins = p->token.kind == MLN_T_NAME || p->token.kind == MLN_T_STRING ||
                  p->token.kind == MLN_T_INTEGER || p->token.kind == MLN_T_FLOAT || is_op(p, "[") ||
                  is_op(p, "{");
    if (!begins || is_word(p, "else") || is_word(p, "or") || is_word(p, "and"))
        return true;
    if (is_word(p, "is"))
        return mln_parse_fail(p, p->token.line, "you cannot chain multiple tests with is");
    mln_node *wrap = mln_parser_node(p, MLN_N_CONST, p->token.line);
    if (!wrap)
        return false;
    mln_node *primary = parse_primary(p);
    wrap->a = primary ? parse_postfix(p, primary) : NULL;
    *out = wrap;
    return wrap->a != NULL;
}

static mln_node *parse_test(mln_parser *p, mln_node *value) {
    int line = p->token.line;
    bool negated = mln_parser_advance(p) && skip_word(p, "not");
    mln_token name = p->token;
    mln_node *node = mln_parser_node(p, MLN_N_TEST, line);
    if (!node || !mln_parser_expect(p, MLN_T_NAME, NULL))
        return NULL;
    node->a = value;
    node->op = (int16_t)mln_find_test(name.text, name.length);
    if (node->op < 0) {
        mln_parse_fail(p, name.line, "test '%.*s' is not supported", (int)name.length, name.text);
        return NULL;
    }
    if (!(is_op(p, "(") ? parse_arguments(p, &node->args) : bare_argument(p, &node->args)))
        return NULL;
    if (!negated)
        return node;
    mln_node *inverse = mln_parser_node(p, MLN_N_UNARY, line);
    if (inverse) {
        inverse->op = 'n';
        inverse->a = node;
    }
    return inverse;
}

static mln_node *parse_filter_expression(mln_parser *p, mln_node *node) {
    while (node && !p->failed) {
        if (is_op(p, "|"))
            node = mln_parse_filters(p, node);
        else if (is_word(p, "is"))
            node = parse_test(p, node);
        else if (is_op(p, "("))
            node = parse_call(p, node);
        else
            break;
    }
    return p->failed ? NULL : node;
}

/* Nesting of the recursive descent; the caller restores p->depth. */
static bool deeper(mln_parser *p) {
    return ++p->depth <= MLN_TEMPLATE_MAX_DEPTH ||
           mln_parse_fail(p, p->token.line, "nested more than %d levels deep",
                          MLN_TEMPLATE_MAX_DEPTH);
}

static mln_node *parse_unary(mln_parser *p, bool with_filter) {
    int depth = p->depth, line = p->token.line;
    mln_node *node = NULL;
    if (!deeper(p))
        return NULL;
    char op = is_op(p, "-") ? '-' : is_op(p, "+") ? '+' : '\0';
    if (op) {
        mln_node *inner = mln_parser_advance(p) ? parse_unary(p, false) : NULL;
        node = inner ? mln_parser_node(p, MLN_N_UNARY, line) : NULL;
        if (node) {
            node->op = op;
            node->a = inner;
        }
    } else {
        node = parse_primary(p);
    }
    node = node ? parse_postfix(p, node) : NULL;
    if (node && with_filter)
        node = parse_filter_expression(p, node);
    p->depth = depth;
    return node;
}

static mln_node *two(mln_parser *p, mln_node_kind kind, int op, mln_node *a, mln_node *b,
                     int line) {
    mln_node *node = a && b ? mln_parser_node(p, kind, line) : NULL;
    if (node) {
        node->op = (int16_t)op;
        node->a = a;
        node->b = b;
    }
    return node;
}

static mln_node *parse_power(mln_parser *p) {
    int line = p->token.line;
    mln_node *left = parse_unary(p, true);
    while (left && skip_op(p, "**"))
        left = two(p, MLN_N_BINARY, MLN_OP_POWER, left, parse_unary(p, true), line);
    return p->failed ? NULL : left;
}

static mln_node *parse_product(mln_parser *p) {
    int line = p->token.line;
    mln_node *left = parse_power(p);
    while (left && !p->failed) {
        int op = is_op(p, "*")    ? '*'
                 : is_op(p, "/")  ? '/'
                 : is_op(p, "//") ? MLN_OP_FLOOR
                 : is_op(p, "%")  ? '%'
                                  : 0;
        if (!op)
            return left;
        left = mln_parser_advance(p) ? two(p, MLN_N_BINARY, op, left, parse_power(p), line) : NULL;
    }
    return NULL;
}

static mln_node *parse_concat(mln_parser *p) {
    int line = p->token.line;
    mln_node *first = parse_product(p);
    if (!first || !is_op(p, "~"))
        return first;
    mln_node *node = mln_parser_node(p, MLN_N_CONCAT, line);
    if (!node)
        return NULL;
    node->args = first;
    for (mln_node **tail = &first->next; skip_op(p, "~"); tail = &(*tail)->next) {
        *tail = parse_product(p);
        if (!*tail)
            return NULL;
    }
    return p->failed ? NULL : node;
}

static mln_node *parse_sum(mln_parser *p) {
    int line = p->token.line;
    mln_node *left = parse_concat(p);
    while (left && (is_op(p, "+") || is_op(p, "-"))) {
        int op = is_op(p, "+") ? '+' : '-';
        left = mln_parser_advance(p) ? two(p, MLN_N_BINARY, op, left, parse_concat(p), line) : NULL;
    }
    return p->failed ? NULL : left;
}

/* The comparison that begins here, skipped; 0: none; -1: failure. */
static int comparison(mln_parser *p) {
    static const struct {
        const char *text;
        int op;
    } known[] = {{"==", MLN_OP_EQ}, {"!=", MLN_OP_NE}, {"<", MLN_OP_LT},
                 {"<=", MLN_OP_LE}, {">", MLN_OP_GT},  {">=", MLN_OP_GE}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (is_op(p, known[i].text))
            return mln_parser_advance(p) ? known[i].op : -1;
    }
    if (is_word(p, "in"))
        return mln_parser_advance(p) ? MLN_OP_IN : -1;
    if (!is_word(p, "not"))
        return 0;
    if (!mln_parser_peek(p))
        return -1;
    if (!token_is(&p->ahead, MLN_T_NAME, "in"))
        return 0;
    return mln_parser_advance(p) && mln_parser_advance(p) ? MLN_OP_NOT_IN : -1;
}

static mln_node *parse_comparison(mln_parser *p) {
    int line = p->token.line;
    mln_node *first = parse_sum(p);
    int op = first ? comparison(p) : -1;
    if (op <= 0)
        return op < 0 ? NULL : first;
    mln_node *node = mln_parser_node(p, MLN_N_COMPARE, line);
    if (!node)
        return NULL;
    node->a = first;
    for (mln_node **tail = &node->args; op > 0; tail = &(*tail)->next) {
        mln_node *operand = mln_parser_node(p, MLN_N_CONST, line);
        if (!operand || !(operand->a = parse_sum(p)))
            return NULL;
        operand->op = (int16_t)op;
        *tail = operand;
        op = comparison(p);
    }
    return op < 0 ? NULL : node;
}

static mln_node *parse_not(mln_parser *p) {
    if (!is_word(p, "not"))
        return parse_comparison(p);
    int depth = p->depth, line = p->token.line;
    mln_node *inner = deeper(p) && mln_parser_advance(p) ? parse_not(p) : NULL;
    mln_node *node = inner ? mln_parser_node(p, MLN_N_UNARY, line) : NULL;
    p->depth = depth;
    if (node) {
        node->op = 'n';
        node->a = inner;
    }
    return node;
}

static mln_node *parse_and(mln_parser *p) {
    int line = p->token.line;
    mln_node *left = parse_not(p);
    while (left && skip_word(p, "and"))
        left = two(p, MLN_N_AND, 0, left, parse_not(p), line);
    return p->failed ? NULL : left;
}

static mln_node *parse_or(mln_parser *p) {
    int line = p->token.line;
    mln_node *left = parse_and(p);
    while (left && skip_word(p, "or"))
        left = two(p, MLN_N_OR, 0, left, parse_and(p), line);
    return p->failed ? NULL : left;
}

mln_node *mln_parse_expression(mln_parser *p, bool conditional) {
    int depth = p->depth, line = p->token.line;
    mln_node *node = deeper(p) ? parse_or(p) : NULL;
    while (node && conditional && skip_word(p, "if")) {
        mln_node *test = parse_or(p);
        mln_node *choice = two(p, MLN_N_CONDITION, 0, test, node, line);
        if (choice && skip_word(p, "else")) {
            choice->c = mln_parse_expression(p, true);
            choice = choice->c ? choice : NULL;
        }
        node = choice;
    }
    p->depth = depth;
    return p->failed ? NULL : node;
}

static bool tuple_ends(const mln_parser *p) {
    return p->token.kind == MLN_T_VARIABLE_END || p->token.kind == MLN_T_BLOCK_END || is_op(p, ")");
}

mln_node *mln_parse_tuple(mln_parser *p, bool conditional) {
    int line = p->token.line;
    mln_node *first = mln_parse_expression(p, conditional);
    if (!first || !is_op(p, ","))
        return first;
    mln_node *tuple = mln_parser_node(p, MLN_N_TUPLE, line);
    if (!tuple)
        return NULL;
    tuple->args = first;
    for (mln_node **tail = &first->next; skip_op(p, ",") && !tuple_ends(p); tail = &(*tail)->next) {
        *tail = mln_parse_expression(p, conditional);
        if (!*tail)
            return NULL;
    }
    return p->failed ? NULL : tuple;
}
