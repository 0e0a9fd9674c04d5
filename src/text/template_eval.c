/* SPDX-License-Identifier: Apache-2.0 */
/* Expressions to values. */
#include <string.h>

#include "text/template_run.h"

mln_frame *mln_frame_new(mln_run *run, const mln_scope *scope, mln_frame *parent) {
    mln_frame *frame =
        mln_run_alloc(run, 1, sizeof *frame + (size_t)scope->count * sizeof *frame->slots);
    if (frame)
        frame->parent = parent;
    return frame;
}

void mln_frame_load(mln_run *run, const mln_scope *scope, mln_frame *frame) {
    for (int32_t i = 0; i < scope->count; i++) {
        const mln_slot *slot = &scope->slots[i];
        if (slot->load == MLN_LOAD_CONTEXT) {
            frame->slots[i] = run->context[slot->name];
        } else if (slot->load == MLN_LOAD_MISSING) {
            frame->slots[i] = mln_missing();
        } else if (slot->load == MLN_LOAD_OUTER) {
            const mln_frame *outer = frame;
            for (int32_t h = 0; h < slot->hops; h++)
                outer = outer->parent;
            frame->slots[i] = outer->slots[slot->slot];
        }
    }
}

static bool evaluate_name(mln_run *run, const mln_node *node, mln_value *out) {
    const mln_frame *frame = run->frame;
    for (int32_t h = 0; h < node->hops; h++)
        frame = frame->parent;
    *out = frame->slots[node->slot];
    if (out->kind != MLN_V_MISSING)
        return true;
    mln_value name;
    return mln_string_view(run, node->text, node->length, &name) &&
           mln_make_undefined(run, NULL, NULL, name, out);
}

static bool evaluate_items(mln_run *run, const mln_node *node, mln_value *out) {
    mln_sequence *sequence =
        mln_sequence_new(run, node->kind == MLN_N_TUPLE ? MLN_TUPLE : MLN_LIST, 0);
    if (!sequence)
        return false;
    for (const mln_node *item = node->args; item; item = item->next) {
        mln_value value;
        if (!mln_evaluate(run, item, &value) || !mln_sequence_push(run, sequence, value))
            return false;
    }
    *out = mln_of_sequence(sequence);
    return true;
}

static bool evaluate_dict(mln_run *run, const mln_node *node, mln_value *out) {
    mln_dict *dict = mln_dict_new(run, 0);
    if (!dict)
        return false;
    for (const mln_node *key = node->args; key; key = key->next->next) {
        mln_value name, value;
        if (!mln_evaluate(run, key, &name) || !mln_evaluate(run, key->next, &value) ||
            !mln_dict_set(run, dict, name, value))
            return false;
    }
    *out = mln_of_dict(dict);
    return true;
}

static bool evaluate_item(mln_run *run, const mln_node *node, mln_value *out) {
    mln_value object, key, bounds[3];
    if (!mln_evaluate(run, node->a, &object))
        return false;
    if (node->b->kind != MLN_N_SLICE)
        return mln_evaluate(run, node->b, &key) && mln_get_item(run, object, key, out);
    const mln_node *parts[] = {node->b->a, node->b->b, node->b->c};
    for (int i = 0; i < 3; i++) {
        bounds[i] = mln_none();
        if (parts[i] && !mln_evaluate(run, parts[i], &bounds[i]))
            return false;
    }
    return mln_slice(run, object, bounds, out);
}

bool mln_evaluate_arguments(mln_run *run, const mln_node *args, mln_arguments *out) {
    size_t count = 0, named = 0;
    for (const mln_node *a = args; a; a = a->next) {
        named += a->text != NULL;
        count++;
    }
    *out = (mln_arguments){.count = count - named, .named_count = named};
    if (count == 0)
        return true;
    mln_value *values = mln_run_alloc(run, count, sizeof *values);
    mln_name *names = values ? mln_run_alloc(run, named + 1, sizeof *names) : NULL;
    if (!names)
        return false;
    size_t i = 0, n = 0;
    for (const mln_node *a = args; a; a = a->next) {
        if (!mln_evaluate(run, a->a, &values[i++]))
            return false;
        if (a->text)
            names[n++] = (mln_name){a->text, a->length};
    }
    out->values = values;
    out->names = names;
    return true;
}

static bool evaluate_call(mln_run *run, const mln_node *node, mln_value *out) {
    mln_value callee;
    mln_arguments args;
    if (!mln_evaluate(run, node->a, &callee) || !mln_evaluate_arguments(run, node->args, &args))
        return false;
    run->line = node->line;
    return mln_call(run, callee, &args, out);
}

static bool evaluate_filter(mln_run *run, const mln_node *node, mln_value *out) {
    mln_value value;
    mln_arguments args;
    if (!mln_evaluate(run, node->a, &value) || !mln_evaluate_arguments(run, node->args, &args))
        return false;
    run->line = node->line;
    return mln_call_filter(run, node->op, value, &args, out);
}

static bool evaluate_test(mln_run *run, const mln_node *node, mln_value *out) {
    mln_value value;
    mln_arguments args;
    bool truth;
    if (!mln_evaluate(run, node->a, &value) || !mln_evaluate_arguments(run, node->args, &args) ||
        !mln_call_test(run, node->op, value, &args, &truth))
        return false;
    *out = mln_bool(truth);
    return true;
}

static bool evaluate_comparison(mln_run *run, const mln_node *node, mln_value *out) {
    mln_value left, right;
    bool truth = true;
    if (!mln_evaluate(run, node->a, &left))
        return false;
    for (const mln_node *operand = node->args; operand && truth; operand = operand->next) {
        if (!mln_evaluate(run, operand->a, &right) ||
            !mln_relation(run, operand->op, left, right, &truth))
            return false;
        left = right;
    }
    *out = mln_bool(truth);
    return true;
}

static bool evaluate_concat(mln_run *run, const mln_node *node, mln_value *out) {
    mln_buffer text = {0};
    for (const mln_node *part = node->args; part; part = part->next) {
        mln_value value;
        if (!mln_evaluate(run, part, &value) || !mln_write_str(run, value, &text)) {
            mln_buffer_free(&text);
            return false;
        }
    }
    return mln_text_finish(run, &text, out);
}

static bool evaluate_condition(mln_run *run, const mln_node *node, mln_value *out) {
    mln_value test;
    if (!mln_evaluate(run, node->a, &test))
        return false;
    if (mln_truth(test))
        return mln_evaluate(run, node->b, out);
    if (node->c)
        return mln_evaluate(run, node->c, out);
    return mln_make_undefined(
        run, "the inline if-expression evaluated to false and no else section was defined", NULL,
        mln_none(), out);
}

static bool evaluate_logic(mln_run *run, const mln_node *node, mln_value *out) {
    if (!mln_evaluate(run, node->a, out))
        return false;
    if (mln_truth(*out) == (node->kind == MLN_N_OR))
        return true;
    return mln_evaluate(run, node->b, out);
}

static bool evaluate_operator(mln_run *run, const mln_node *node, mln_value *out) {
    mln_value a, b;
    if (!mln_evaluate(run, node->a, &a))
        return false;
    if (node->kind == MLN_N_BINARY) {
        if (!mln_evaluate(run, node->b, &b))
            return false;
        run->line = node->line;
        return mln_binary(run, node->op, a, b, out);
    }
    if (node->op == 'n') {
        *out = mln_bool(!mln_truth(a));
        return true;
    }
    return mln_negate(run, node->op, a, out);
}

static bool evaluate_node(mln_run *run, const mln_node *node, mln_value *out) {
    mln_value object;
    switch (node->kind) {
    case MLN_N_CONST:
        *out = node->value;
        return true;
    case MLN_N_NAME:
        return evaluate_name(run, node, out);
    case MLN_N_TUPLE:
    case MLN_N_LIST:
        return evaluate_items(run, node, out);
    case MLN_N_DICT:
        return evaluate_dict(run, node, out);
    case MLN_N_ATTRIBUTE:
        return mln_evaluate(run, node->a, &object) &&
               mln_get_attribute(run, object, node->value.string, out);
    case MLN_N_ITEM:
        return evaluate_item(run, node, out);
    case MLN_N_CALL:
        return evaluate_call(run, node, out);
    case MLN_N_FILTER:
        return evaluate_filter(run, node, out);
    case MLN_N_TEST:
        return evaluate_test(run, node, out);
    case MLN_N_UNARY:
    case MLN_N_BINARY:
        return evaluate_operator(run, node, out);
    case MLN_N_AND:
    case MLN_N_OR:
        return evaluate_logic(run, node, out);
    case MLN_N_COMPARE:
        return evaluate_comparison(run, node, out);
    case MLN_N_CONDITION:
        return evaluate_condition(run, node, out);
    case MLN_N_CONCAT:
        return evaluate_concat(run, node, out);
    default: /* MLN_N_CAPTURED */
        *out = run->captured;
        return true;
    }
}

bool mln_evaluate(mln_run *run, const mln_node *node, mln_value *out) {
    int depth = run->depth;
    run->line = node->line;
    bool fine = mln_enter(run) && mln_run_spend(run, 1) && evaluate_node(run, node, out);
    mln_leave(run, depth);
    return fine;
}
