/* SPDX-License-Identifier: Apache-2.0 */
/* The parsed form of a template, and the passes that make it. */
#ifndef MLN_TEXT_TEMPLATE_AST_H
#define MLN_TEXT_TEMPLATE_AST_H

#include "text/template.h"
#include "text/template_value.h"

/* Caps on what a template may declare. */
enum { MLN_TEMPLATE_MAX_NAMES = 1000, MLN_TEMPLATE_MAX_ARGUMENTS = 64 };

typedef enum mln_token_kind {
    MLN_T_END,
    MLN_T_DATA,
    MLN_T_VARIABLE_BEGIN,
    MLN_T_VARIABLE_END,
    MLN_T_BLOCK_BEGIN,
    MLN_T_BLOCK_END,
    MLN_T_NAME,
    MLN_T_STRING,
    MLN_T_INTEGER,
    MLN_T_FLOAT,
    MLN_T_OPERATOR
} mln_token_kind;

typedef struct mln_token {
    mln_token_kind kind;
    int line;
    const char *text; /* data, name and operator: as written; string: unescaped */
    size_t length;
    int64_t integer;
    double real;
} mln_token;

typedef enum mln_node_kind {
    /* statements */
    MLN_N_DATA,      /* text */
    MLN_N_OUTPUT,    /* a: expression */
    MLN_N_IF,        /* a: test, body, other */
    MLN_N_FOR,       /* a: iterable, b: target, c: test, body, other; scopes body, other, test */
    MLN_N_SET,       /* b: target, a: value */
    MLN_N_SET_BLOCK, /* b: target, a: filters over MLN_N_CAPTURED or NULL, body; scope */
    MLN_N_MACRO,     /* text: name, b: name as target, args, body; scope */
    MLN_N_WITH,      /* args: values, with b their targets; body; scope */
    MLN_N_BREAK,
    MLN_N_CONTINUE,
    MLN_N_GENERATION, /* body; scope */
    /* expressions */
    MLN_N_CONST,     /* value */
    MLN_N_NAME,      /* text; name, hops and slot */
    MLN_N_NAMESPACE, /* target ns.attribute: a: the name, text: attribute */
    MLN_N_TUPLE,     /* args */
    MLN_N_LIST,      /* args */
    MLN_N_DICT,      /* args: key, value, key, value, ... */
    MLN_N_ATTRIBUTE, /* a, text */
    MLN_N_ITEM,      /* a, b */
    MLN_N_SLICE,     /* a: start, b: stop, c: step, each may be NULL */
    MLN_N_CALL,      /* a, args */
    MLN_N_FILTER,    /* a, args, op: filter */
    MLN_N_TEST,      /* a, args, op: test */
    MLN_N_UNARY,     /* a, op: '-', '+', 'n' (not) */
    MLN_N_BINARY,    /* a, b, op */
    MLN_N_AND,       /* a, b */
    MLN_N_OR,        /* a, b */
    MLN_N_COMPARE,   /* a, args: operands, each with its op */
    MLN_N_CONDITION, /* a: test, b: if true, c: else or NULL */
    MLN_N_CONCAT,    /* args */
    MLN_N_CAPTURED   /* what a block set's body gave */
} mln_node_kind;

typedef struct mln_scope mln_scope;

typedef struct mln_node mln_node;
struct mln_node {
    uint8_t kind;
    int16_t op; /* an operator, or a number in the filters' or the tests' table */
    int32_t line;
    mln_node *next; /* the next in a list */
    mln_node *a, *b, *c;
    mln_node *args, *body, *other;
    const char *text; /* a name; for an argument: its keyword or NULL */
    size_t length;
    mln_value value;
    int32_t name, hops, slot; /* of a name: hops frames out, slot there */
    mln_scope *scope, *other_scope, *test_scope;
};

/* Two-character operators of MLN_N_BINARY and operands of MLN_N_COMPARE. */
enum { MLN_OP_FLOOR = 'f', MLN_OP_POWER = 'p' };
enum { MLN_OP_EQ = 'e', MLN_OP_NE = 'n', MLN_OP_LT = '<', MLN_OP_LE = 'l' };
enum { MLN_OP_GT = '>', MLN_OP_GE = 'g', MLN_OP_IN = 'i', MLN_OP_NOT_IN = 'o' };

/* How a slot of a frame begins: see template_scope.c. */
typedef enum mln_load {
    MLN_LOAD_PARAMETER, /* by whoever makes the frame */
    MLN_LOAD_MISSING,
    MLN_LOAD_CONTEXT, /* the template's variable or a global function */
    MLN_LOAD_OUTER    /* what an outer frame's slot holds */
} mln_load;

typedef struct mln_slot {
    int32_t name;
    mln_load load;
    int32_t hops, slot; /* MLN_LOAD_OUTER */
} mln_slot;

struct mln_scope {
    mln_scope *parent;
    mln_slot *slots;
    int32_t count, capacity;
    int32_t branches;  /* ifs open while the scope is analysed */
    int32_t loop_slot; /* of a for's body: the slot of `loop`, else -1 */
};

typedef struct mln_name {
    const char *text;
    size_t length;
} mln_name;

struct mln_template {
    mln_arena arena;
    char *file; /* in the arena, or NULL */
    mln_node *body;
    mln_scope *scope;
    mln_name *names; /* every name the template mentions; mln_node.name counts here */
    int32_t name_count;
};

/* The state of a parse. */
typedef struct mln_parser {
    mln_template *template;
    mln_arena *arena;
    const char *source; /* newlines normalised, in the arena */
    size_t length, at;
    int line;
    bool root;       /* the lexer is outside of tags */
    bool ends_block; /* the tag being lexed is a block, not a variable */
    char balance[MLN_TEMPLATE_MAX_DEPTH * 2];
    int balanced;
    mln_token token, ahead;
    bool has_ahead;
    int depth, loops, macros;
    uint64_t arena_spent; /* on joining adjacent strings */
    bool failed;
    myelin_status status;
    myelin_error *error;
} mln_parser;

/* Reports an error at `line`; always false. The first error stays. */
bool mln_parse_fail(mln_parser *p, int line, const char *format, ...) MYELIN_PRINTF(3, 4);
void *mln_parse_alloc(mln_parser *p, size_t count, size_t size);

bool mln_lexer_open(mln_parser *p, const char *source, size_t length);
bool mln_lexer_next(mln_parser *p, mln_token *token);

bool mln_parser_advance(mln_parser *p); /* to the next token */
bool mln_parser_peek(mln_parser *p);    /* fills p->ahead */
bool mln_parser_is(const mln_parser *p, mln_token_kind kind, const char *text);
bool mln_parser_skip(mln_parser *p, mln_token_kind kind, const char *text); /* if it is there */
bool mln_parser_expect(mln_parser *p, mln_token_kind kind, const char *text);
bool mln_parser_unexpected(mln_parser *p);
mln_node *mln_parser_node(mln_parser *p, mln_node_kind kind, int line);
mln_node *mln_parse_name(mln_parser *p); /* a single name */

/* An expression, or a tuple without parentheses. `conditional`: a if b else c is allowed. */
mln_node *mln_parse_expression(mln_parser *p, bool conditional);
mln_node *mln_parse_tuple(mln_parser *p, bool conditional);
mln_node *mln_parse_target(mln_parser *p, bool namespaces); /* ends before `in` too */
mln_node *mln_parse_filters(mln_parser *p, mln_node *node); /* {| filter} */

bool mln_parse_body(mln_parser *p, mln_node **out); /* the whole template */

/* Gives every name its slot. */
bool mln_resolve_scopes(mln_parser *p);

#endif
