/* SPDX-License-Identifier: Apache-2.0 */
/* Statements, loops and macros. */
#include <string.h>

#include "text/template_run.h"

static bool assign_attribute(mln_run *run, const mln_node *target, mln_value value) {
    mln_value object;
    if (!mln_evaluate(run, target->a, &object))
        return false;
    if (object.kind != MLN_V_NAMESPACE)
        return mln_run_fail(run, "cannot assign attribute on non-namespace object");
    return mln_dict_set(run, object.dict, target->value, value);
}

bool mln_assign(mln_run *run, const mln_node *target, mln_value value) {
    if (target->kind == MLN_N_NAME) {
        mln_frame *frame = run->frame;
        for (int32_t h = 0; h < target->hops; h++)
            frame = frame->parent;
        frame->slots[target->slot] = value;
        return true;
    }
    if (target->kind == MLN_N_NAMESPACE)
        return assign_attribute(run, target, value);
    mln_sequence *items;
    size_t wanted = 0, i = 0;
    if (!mln_iterate(run, value, &items))
        return false;
    for (const mln_node *item = target->args; item; item = item->next)
        wanted++;
    if (items->count != wanted)
        return mln_run_fail(run, "%zu values to unpack, expected %zu", items->count, wanted);
    for (const mln_node *item = target->args; item; item = item->next) {
        if (!mln_assign(run, item, items->items[i++]))
            return false;
    }
    return true;
}

/* What runs in a frame of its own; the frame must have been loaded. */
static bool execute_in(mln_run *run, mln_frame *frame, const mln_node *body) {
    mln_frame *outer = run->frame;
    run->frame = frame;
    bool fine = mln_execute(run, body);
    run->frame = outer;
    return fine;
}

static mln_frame *open_frame(mln_run *run, const mln_scope *scope) {
    mln_frame *frame = mln_frame_new(run, scope, run->frame);
    if (frame)
        mln_frame_load(run, scope, frame);
    return frame;
}

/* The next item that passes the loop's test. */
static bool pull(mln_run *run, mln_loop *loop, mln_value *out) {
    *out = mln_missing();
    while (loop->taken < loop->source->count) {
        mln_value item = loop->source->items[loop->taken++], truth = mln_bool(true);
        if (loop->test_node) {
            mln_frame *outer = run->frame;
            run->frame = loop->test_frame;
            bool fine = mln_run_spend(run, 1) && mln_assign(run, loop->test_node->b, item) &&
                        mln_evaluate(run, loop->test_node->c, &truth);
            run->frame = outer;
            if (!fine)
                return false;
        }
        if (mln_truth(truth)) {
            *out = item;
            return true;
        }
    }
    return true;
}

bool mln_loop_next(mln_run *run, mln_loop *loop, mln_value *out) {
    *out = loop->after;
    loop->after = mln_missing();
    if (out->kind == MLN_V_MISSING && !pull(run, loop, out))
        return false;
    if (out->kind != MLN_V_MISSING) {
        loop->index0++;
        loop->before = loop->current;
        loop->current = *out;
    }
    return true;
}

static bool peek(mln_run *run, mln_loop *loop) {
    return loop->after.kind != MLN_V_MISSING || pull(run, loop, &loop->after);
}

static bool loop_length(mln_run *run, mln_loop *loop) {
    if (loop->length >= 0)
        return true;
    if (!loop->test_node) {
        loop->length = (int64_t)loop->source->count;
        return true;
    }
    mln_sequence *rest = mln_sequence_new(run, MLN_LIST, 0);
    mln_value item;
    do {
        if (!rest || !pull(run, loop, &item) ||
            (item.kind != MLN_V_MISSING && !mln_sequence_push(run, rest, item)))
            return false;
    } while (item.kind != MLN_V_MISSING);
    loop->source = rest;
    loop->taken = 0;
    loop->test_node = NULL;
    loop->length = (int64_t)rest->count + loop->index0 + 1 + (loop->after.kind != MLN_V_MISSING);
    return true;
}

static bool loop_neighbour(mln_run *run, mln_loop *loop, bool next, mln_value *out) {
    if (next && !peek(run, loop))
        return false;
    *out = next ? loop->after : loop->index0 == 0 ? mln_missing() : loop->before;
    return out->kind != MLN_V_MISSING ||
           mln_make_undefined(run, next ? "there is no next item" : "there is no previous item",
                              NULL, mln_none(), out);
}

bool mln_loop_attribute(mln_run *run, mln_loop *loop, const mln_string *name, mln_value *out) {
    bool reverse0 = mln_string_is(name, "revindex0"), reverse = mln_string_is(name, "revindex");
    if (mln_string_is(name, "index")) {
        *out = mln_int(loop->index0 + 1);
    } else if (mln_string_is(name, "index0")) {
        *out = mln_int(loop->index0);
    } else if (mln_string_is(name, "first")) {
        *out = mln_bool(loop->index0 == 0);
    } else if (mln_string_is(name, "last")) {
        if (!peek(run, loop))
            return false;
        *out = mln_bool(loop->after.kind == MLN_V_MISSING);
    } else if (mln_string_is(name, "length") || reverse || reverse0) {
        if (!loop_length(run, loop))
            return false;
        *out = mln_int(reverse    ? loop->length - loop->index0
                       : reverse0 ? loop->length - loop->index0 - 1
                                  : loop->length);
    } else if (mln_string_is(name, "previtem") || mln_string_is(name, "nextitem")) {
        return loop_neighbour(run, loop, mln_string_is(name, "nextitem"), out);
    } else if (mln_string_is(name, "depth") || mln_string_is(name, "depth0")) {
        *out = mln_int(mln_string_is(name, "depth"));
    } else {
        *out = mln_missing();
    }
    return true;
}

static bool run_loop(mln_run *run, const mln_node *node, mln_loop *loop, mln_frame *frame,
                     bool *any) {
    for (;;) {
        mln_value item;
        run->line = node->line;
        if (!mln_run_spend(run, 1) || !mln_loop_next(run, loop, &item))
            return false;
        if (item.kind == MLN_V_MISSING)
            return true;
        mln_frame *outer = run->frame;
        run->frame = frame;
        bool fine = mln_assign(run, node->b, item);
        if (node->scope->loop_slot >= 0)
            frame->slots[node->scope->loop_slot] = (mln_value){.kind = MLN_V_LOOP, .loop = loop};
        mln_frame_load(run, node->scope, frame);
        fine = fine && mln_execute(run, node->body);
        run->frame = outer;
        if (!fine)
            return false;
        mln_flow flow = run->flow;
        *any = *any || flow == MLN_FLOW_NEXT; /* Jinja's else runs after a first break, too */
        run->flow = MLN_FLOW_NEXT;
        if (flow == MLN_FLOW_BREAK)
            return true;
    }
}

static bool execute_for(mln_run *run, const mln_node *node) {
    mln_value source;
    mln_loop *loop = mln_run_alloc(run, 1, sizeof *loop);
    if (!loop || !mln_evaluate(run, node->a, &source) || !mln_iterate(run, source, &loop->source))
        return false;
    loop->index0 = -1;
    loop->length = -1;
    if (node->c) {
        loop->test_node = node;
        loop->test_frame = open_frame(run, node->test_scope);
        if (!loop->test_frame)
            return false;
    }
    mln_frame *frame = mln_frame_new(run, node->scope, run->frame);
    bool any = false;
    if (!frame || !run_loop(run, node, loop, frame, &any))
        return false;
    if (any || !node->other)
        return true;
    frame = open_frame(run, node->other_scope);
    return frame && execute_in(run, frame, node->other);
}

/* The text that `body` writes, taken back from the output. */
static bool capture(mln_run *run, mln_frame *frame, const mln_node *body, mln_value *out) {
    size_t mark = run->out->length;
    if (!execute_in(run, frame, body) ||
        !mln_string_copy(run, run->out->data ? run->out->data + mark : NULL,
                         run->out->length - mark, out))
        return false;
    run->out->length = mark;
    return true;
}

static bool execute_set_block(mln_run *run, const mln_node *node) {
    mln_frame *frame = open_frame(run, node->scope);
    mln_value text, value;
    if (!frame || !capture(run, frame, node->body, &text))
        return false;
    if (run->flow != MLN_FLOW_NEXT) /* a break on the way */
        return true;
    run->captured = text;
    return mln_evaluate(run, node->a, &value) && mln_assign(run, node->b, value);
}

static bool execute_with(mln_run *run, const mln_node *node) {
    mln_frame *frame = mln_frame_new(run, node->scope, run->frame), *outer = run->frame;
    for (const mln_node *pair = node->args; frame && pair; pair = pair->next) {
        mln_value value;
        if (!mln_evaluate(run, pair->a, &value))
            return false;
        run->frame = frame;
        bool fine = mln_assign(run, pair->b, value);
        run->frame = outer;
        if (!fine)
            return false;
    }
    if (!frame)
        return false;
    mln_frame_load(run, node->scope, frame);
    return execute_in(run, frame, node->body);
}

static bool execute_macro(mln_run *run, const mln_node *node) {
    mln_macro *macro = mln_run_alloc(run, 1, sizeof *macro);
    if (!macro)
        return false;
    *macro = (mln_macro){node, run->frame};
    return mln_assign(run, node->b, (mln_value){.kind = MLN_V_MACRO, .macro = macro});
}

/* Arguments into the macro's first slots; missing where there is none. */
static bool bind_macro(mln_run *run, const mln_node *node, const mln_arguments *args,
                       mln_value *slots) {
    size_t i = 0, used = 0;
    for (const mln_node *name = node->args; name; name = name->next, i++) {
        slots[i] = i < args->count ? args->values[i] : mln_missing();
        for (size_t k = 0; i >= args->count && k < args->named_count; k++) {
            if (args->names[k].length == name->length &&
                memcmp(args->names[k].text, name->text, name->length) == 0) {
                slots[i] = args->values[args->count + k];
                used++;
            }
        }
    }
    if (used != args->named_count)
        return mln_run_fail(run, "macro '%.*s' was given a keyword argument it does not take",
                            (int)node->length, node->text);
    if (args->count > i)
        return mln_run_fail(run, "macro '%.*s' takes not more than %zu argument(s)",
                            (int)node->length, node->text, i);
    return true;
}

static bool fill_defaults(mln_run *run, const mln_node *node, mln_value *slots) {
    size_t i = 0;
    for (const mln_node *name = node->args; name; name = name->next, i++) {
        if (slots[i].kind != MLN_V_MISSING)
            continue;
        mln_value text;
        if (name->a ? !mln_evaluate(run, name->a, &slots[i])
                    : !mln_string_view(run, name->text, name->length, &text) ||
                          !mln_make_undefined(run, NULL, NULL, text, &slots[i]))
            return false;
    }
    return true;
}

bool mln_call_macro(mln_run *run, const mln_macro *macro, const mln_arguments *args,
                    mln_value *out) {
    const mln_node *node = macro->node;
    mln_frame *frame = mln_frame_new(run, node->scope, macro->frame), *outer = run->frame;
    if (!frame || !bind_macro(run, node, args, frame->slots))
        return false;
    mln_frame_load(run, node->scope, frame);
    if (++run->calls > MLN_TEMPLATE_MAX_DEPTH)
        return mln_run_fail(run, "macros call each other more than %d levels deep",
                            MLN_TEMPLATE_MAX_DEPTH);
    run->frame = frame;
    bool fine = fill_defaults(run, node, frame->slots);
    run->frame = outer;
    mln_value captured = run->captured;
    fine = fine && capture(run, frame, node->body, out);
    run->captured = captured;
    run->calls--;
    return fine;
}

static bool execute_if(mln_run *run, const mln_node *node) {
    for (;;) {
        mln_value test;
        if (!mln_evaluate(run, node->a, &test))
            return false;
        if (mln_truth(test))
            return mln_execute(run, node->body);
        const mln_node *other = node->other;
        if (!other || other->kind != MLN_N_IF || other->next)
            return mln_execute(run, other);
        node = other;
    }
}

static bool execute_output(mln_run *run, const mln_node *node) {
    mln_value value;
    return mln_evaluate(run, node->a, &value) && mln_write_str(run, value, run->out);
}

static bool execute_set(mln_run *run, const mln_node *node) {
    mln_value value;
    return mln_evaluate(run, node->a, &value) && mln_assign(run, node->b, value);
}

static bool execute_generation(mln_run *run, const mln_node *node) {
    mln_frame *frame = open_frame(run, node->scope);
    return frame && execute_in(run, frame, node->body);
}

static bool execute_node(mln_run *run, const mln_node *node) {
    switch (node->kind) {
    case MLN_N_DATA:
        return mln_text_add(run, run->out, node->text, node->length);
    case MLN_N_OUTPUT:
        return execute_output(run, node);
    case MLN_N_IF:
        return execute_if(run, node);
    case MLN_N_FOR:
        return execute_for(run, node);
    case MLN_N_SET:
        return execute_set(run, node);
    case MLN_N_SET_BLOCK:
        return execute_set_block(run, node);
    case MLN_N_MACRO:
        return execute_macro(run, node);
    case MLN_N_WITH:
        return execute_with(run, node);
    case MLN_N_GENERATION:
        return execute_generation(run, node);
    default:
        run->flow = node->kind == MLN_N_BREAK ? MLN_FLOW_BREAK : MLN_FLOW_CONTINUE;
        return true;
    }
}

bool mln_execute(mln_run *run, const mln_node *body) {
    int depth = run->depth;
    bool fine = mln_enter(run);
    for (const mln_node *node = body; fine && node && run->flow == MLN_FLOW_NEXT;
         node = node->next) {
        run->line = node->line;
        fine = mln_run_spend(run, 1) && execute_node(run, node);
    }
    mln_leave(run, depth);
    return fine;
}
