/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forward pass of Qwen3, as phases that all members of a team go through together, a barrier
 * after each. docs/MODEL.md has the formulas. On the lower rungs of the ladder the blocks that are
 * not fused yet run one plain operation after the other on the host's threads instead.
 */
#include <string.h>

#include "base/rope.h"
#include "internal.h"

extern const mln_cpu_kernels mln_cpu_kernels_portable;

/* Bytes of weights claimed at once: enough for a long sequential read, few enough to share out. */
enum { CLAIM_BYTES = 128 << 10 };

enum { FETCH_ROWS = 4 }; /* how many rows ahead of their use heads are asked for */

typedef struct worker {
    mln_member *member;
    myelin_plugin_context *context;
    const myelin_plugin_model *model;
    const mln_cpu_kernels *kernels;
    mln_cpu_scratch *scratch;
} worker;

/* --- packed activations --- */

/* Rows of activations that go into a projection. */
typedef struct source {
    const float *rows; /* [num_rows, columns] */
    int64_t num_rows;
    int64_t columns;
    const int32_t *order; /* row i is rows[order[i]]; NULL: i */
    const float *norm;    /* rms_norm with these weights first; NULL: none */
} source;

/* Where packed activations of the matrices of one phase lie. */
typedef struct packed {
    const unsigned char *base[3]; /* of each matrix */
    int64_t row_bytes[3];         /* a block of n tokens begins at its first token * row_bytes */
} packed;

/* Gives each matrix the area of the first that wants the same format. */
static void plan_formats(const worker *w, const mln_cpu_matrix *matrices, int count, int area[3]) {
    int used = 0;
    for (int i = 0; i < count; i++) {
        area[i] = -1;
        for (int k = 0; k < i && area[i] < 0; k++)
            if (w->kernels->pack_format(&matrices[k]) == w->kernels->pack_format(&matrices[i]))
                area[i] = area[k];
        if (area[i] < 0)
            area[i] = used++;
    }
}

/* How many of the rows are in the block that begins at row `first`. */
static int32_t block_tokens(const mln_cpu_kernels *kernels, int64_t num_rows, int64_t first) {
    int64_t rest = num_rows - first;
    return (int32_t)(rest < kernels->block ? rest : kernels->block);
}

/* Columns first .. last-1 of one row; a norm is of all of them. */
static void pack_row(worker *w, const mln_cpu_matrix *matrices, int count, const int area[3],
                     const source *from, unsigned char *base, int64_t stride, int64_t row,
                     mln_share columns) {
    int64_t at = from->order ? from->order[row] : row;
    const float *x = from->rows + at * from->columns;
    int64_t first = row - row % w->kernels->block;
    int32_t tokens = block_tokens(w->kernels, from->num_rows, first);
    if (from->norm) {
        w->kernels->rms_norm(w->scratch->row, x, from->norm, from->columns,
                             (float)w->model->config.rms_norm_eps);
        x = w->scratch->row;
    }
    for (int i = 0, done = 0; i < count; i++) {
        if (area[i] < done)
            continue; /* packed for a matrix before it */
        done++;
        unsigned char *block =
            base + area[i] * stride + first * (int64_t)w->kernels->packed_bytes(&matrices[i], 1);
        w->kernels->pack(block, &matrices[i], x, (int32_t)(row - first), tokens, columns.begin,
                         columns.end);
    }
}

/*
 * What a member packs of several rows: whole blocks where there are enough of them, else some
 * columns of every row. Rows of a block share lines of memory, which must not wander between
 * processors with each of them.
 */
static void pack_share(worker *w, const mln_cpu_matrix *matrices, int count, const int area[3],
                       const source *from, unsigned char *base, int64_t stride) {
    int64_t size = w->member->size, index = w->member->index;
    int64_t block = w->kernels->block, blocks = (from->num_rows + block - 1) / block;
    mln_share columns = {0, from->columns};
    if (blocks < 2 * size) {
        int64_t units = (from->columns + MLN_CPU_PACKED - 1) / MLN_CPU_PACKED;
        int64_t end = units * (index + 1) / size * MLN_CPU_PACKED;
        columns.begin = units * index / size * MLN_CPU_PACKED;
        columns.end = end < from->columns ? end : from->columns;
    }
    for (int64_t row = 0; row < from->num_rows && columns.begin < columns.end; row++)
        if (blocks < 2 * size || row / block % size == index)
            pack_row(w, matrices, count, area, from, base, stride, row, columns);
}

/*
 * Packs the rows for the matrices: a single row by every member for itself, which costs less than
 * a barrier; several by all together, with a barrier.
 */
static packed pack_rows(worker *w, const mln_cpu_matrix *matrices, int count, const source *from) {
    int area[3];
    plan_formats(w, matrices, count, area);
    bool own = from->num_rows == 1;
    unsigned char *base = own ? w->scratch->block : w->context->packed;
    int64_t stride = (int64_t)w->context->packed_stride;
    if (own) {
        stride /= w->context->max_tokens;
        pack_row(w, matrices, count, area, from, base, stride, 0, (mln_share){0, from->columns});
    } else {
        pack_share(w, matrices, count, area, from, base, stride);
        mln_barrier(w->member);
    }
    packed result;
    for (int i = 0; i < count; i++) {
        result.base[i] = base + area[i] * stride;
        result.row_bytes[i] = (int64_t)w->kernels->packed_bytes(&matrices[i], 1);
    }
    return result;
}

/* --- projections --- */

/* tile[tokens, 32]: a panel times the block of tokens that begins at row `first`. */
static int32_t project(const worker *w, float *tile, const mln_cpu_matrix *m, int64_t panel,
                       const packed *x, int which, int64_t first, int64_t num_rows) {
    int32_t tokens = block_tokens(w->kernels, num_rows, first);
    w->kernels->panel(tile, m, panel, x->base[which] + first * x->row_bytes[which], tokens);
    return tokens;
}

static int64_t valid_rows(const mln_cpu_matrix *m, int64_t panel) {
    int64_t rest = m->rows - panel * MLN_CPU_PANEL;
    return rest < MLN_CPU_PANEL ? rest : MLN_CPU_PANEL;
}

/* Most panels claimed at once. */
static int64_t claim_size(const mln_cpu_matrix *m) {
    int64_t size = CLAIM_BYTES / m->panel_bytes;
    return size > 1 ? size : 1;
}

/* Waits for all, fetching the panels of m that this member will read first. */
static void barrier_before(worker *w, const mln_cpu_matrix *m, int64_t total) {
    mln_share share = mln_first_share(w->member, total, claim_size(m));
    bool some = share.begin < share.end && share.end <= m->panels;
    mln_barrier_fetch(w->member, some ? mln_cpu_panel_at(m, share.begin) : NULL,
                      some ? (share.end - share.begin) * m->panel_bytes : 0);
}

/* A panel times the block of rows that begins at `first`, and what becomes of it. */
typedef void (*block_task)(worker *w, const void *job, int64_t panel, int64_t first);

/*
 * The task for `total` panels like those of m, and all blocks of rows. One panel goes through all
 * blocks before the next: from a near cache its weights are read faster than the blocks would be
 * again for each panel. Where products outrun that, a block meets several panels before the next.
 */
static void share_panels(worker *w, const mln_cpu_matrix *m, int64_t total, int64_t num_rows,
                         block_task task, const void *job) {
    int64_t block = w->kernels->block, most = claim_size(m), together = 1;
    if (num_rows > block && w->kernels->together > m->panel_bytes)
        together = w->kernels->together / m->panel_bytes;
    mln_share share;
    while (mln_claim(w->member, total, most > together ? most : together, &share))
        for (int64_t p = share.begin; p < share.end; p += together)
            for (int64_t first = 0; first < num_rows; first += block)
                for (int64_t i = p; i < p + together && i < share.end; i++)
                    task(w, job, i, first);
}

/* out[rows, columns of the matrices beside each other] (+)= x times count matrices */
typedef struct linear_job {
    const mln_cpu_matrix *matrices;
    packed x;
    int64_t num_rows, stride;
    float *out;
    bool add;
} linear_job;

static void linear_block(worker *w, const void *context, int64_t panel, int64_t first) {
    const linear_job *job = context;
    int64_t which = 0, offset = 0;
    while (panel >= job->matrices[which].panels) {
        panel -= job->matrices[which].panels;
        offset += job->matrices[which++].rows;
    }
    const mln_cpu_matrix *m = &job->matrices[which];
    float *tile = w->scratch->tile, *to = job->out + offset + panel * MLN_CPU_PANEL;
    int32_t tokens = project(w, tile, m, panel, &job->x, (int)which, first, job->num_rows);
    w->kernels->put(to + first * job->stride, job->stride, tile, tokens, valid_rows(m, panel),
                    job->add);
}

static int64_t qkv_panels(const mln_cpu_layer *layer) {
    return layer->qkv[0].panels + layer->qkv[1].panels + layer->qkv[2].panels;
}

/* qkv [rows, Q + 2K] = norm(residual) times q_proj, k_proj and v_proj */
static void project_qkv(worker *w, const mln_cpu_layer *layer) {
    myelin_plugin_context *c = w->context;
    const mln_cpu_sizes *s = &w->model->sizes;
    source from = {c->residual, c->num_rows, s->hidden, NULL, layer->input_layernorm};
    linear_job job = {layer->qkv,  pack_rows(w, layer->qkv, 3, &from),
                      c->num_rows, s->q_width + 2 * s->kv_width,
                      c->qkv,      false};
    share_panels(w, &layer->qkv[0], qkv_panels(layer), c->num_rows, linear_block, &job);
    mln_barrier(w->member);
}

/* residual += rows[., columns] times m; `next` of `total` panels is read after it, or NULL */
static void project_add(worker *w, const mln_cpu_matrix *m, const float *rows,
                        const mln_cpu_matrix *next, int64_t total) {
    myelin_plugin_context *c = w->context;
    source from = {rows, c->num_rows, m->columns, NULL, NULL};
    linear_job job = {
        m, pack_rows(w, m, 1, &from), c->num_rows, w->model->sizes.hidden, c->residual, true};
    share_panels(w, m, m->panels, c->num_rows, linear_block, &job);
    barrier_before(w, next, total);
}

typedef struct gated_job {
    const mln_cpu_matrix *gate, *up;
    packed x;
} gated_job;

static void gated_block(worker *w, const void *context, int64_t panel, int64_t first) {
    const gated_job *job = context;
    myelin_plugin_context *c = w->context;
    int64_t inter = w->model->sizes.intermediate;
    float *tile = w->scratch->tile, *other = tile + MLN_CPU_BLOCK * MLN_CPU_PANEL;
    int32_t tokens = project(w, tile, job->gate, panel, &job->x, 0, first, c->num_rows);
    project(w, other, job->up, panel, &job->x, 1, first, c->num_rows);
    w->kernels->silu_mul(tile, tile, other, tokens * MLN_CPU_PANEL);
    w->kernels->put(c->gated + first * inter + panel * MLN_CPU_PANEL, inter, tile, tokens,
                    valid_rows(job->gate, panel), false);
}

/* gated [rows, I] = silu(gate_proj(x)) * up_proj(x), x = norm(residual) */
static void project_gated(worker *w, const mln_cpu_layer *layer) {
    myelin_plugin_context *c = w->context;
    const mln_cpu_matrix *gate = &layer->gate_up[0], *up = &layer->gate_up[1];
    source from = {c->residual, c->num_rows, w->model->sizes.hidden, NULL,
                   layer->post_attention_layernorm};
    gated_job job = {gate, up, pack_rows(w, layer->gate_up, 2, &from)};
    share_panels(w, gate, gate->panels, c->num_rows, gated_block, &job);
    barrier_before(w, &layer->down_proj, layer->down_proj.panels);
}

/* --- attention --- */

/* Where the keys and values of one kv head of one layer lie. */
static mln_cpu_kv cache_of(const myelin_plugin_sequence *sequence, int64_t layer, int64_t head) {
    const myelin_plugin_model *model = sequence->model;
    const mln_cpu_store *store = sequence->store;
    int64_t part = MLN_CPU_PAGE * model->sizes.width * mln_cpu_cell_bytes(model->cell);
    int64_t behind = store->pages * mln_cpu_page_stride(&model->sizes) * part;
    int64_t index = (layer * model->sizes.kv_heads + head) * 2;
    unsigned char *keys = store->region.base + index * part;
    float *scales = (float *)(void *)(store->region.base + behind) + index * MLN_CPU_PAGE;
    return (mln_cpu_kv){keys, keys + part, scales, scales + MLN_CPU_PAGE, sequence->pages};
}

/* Asks for lines that are read soon: rows of qkv are far apart, where nothing foresees them. */
static void fetch_floats(const float *from, int64_t count) {
    enum { LINE = 16 };
    for (int64_t i = 0; i < count; i += LINE)
        __builtin_prefetch(from + i);
}

/* Norm and rotation of a row's key of one kv head; key and value cached. */
static void prepare_head(worker *w, const mln_cpu_layer *layer, int64_t index, int64_t row,
                         int64_t head) {
    myelin_plugin_context *c = w->context;
    const mln_cpu_sizes *s = &w->model->sizes;
    int64_t half = s->head_dim / 2, stride = s->q_width + 2 * s->kv_width;
    const float *k = c->qkv + row * stride + s->q_width + head * s->head_dim, *v = k + s->kv_width;
    if (row + FETCH_ROWS < c->num_rows) {
        fetch_floats(k + FETCH_ROWS * stride, s->head_dim);
        fetch_floats(v + FETCH_ROWS * stride, s->head_dim);
    }
    float *key = w->scratch->row;
    w->kernels->norm_rotate(key, k, layer->k_norm, c->cos + row * half, c->sin + row * half,
                            s->head_dim, (float)w->model->config.rms_norm_eps);
    const mln_cpu_row *from = &c->rows[row];
    mln_cpu_kv kv = cache_of(from->sequence, index, head);
    int32_t width = (int32_t)s->width, head_dim = (int32_t)s->head_dim;
    int32_t slot = mln_cpu_slot(kv.pages, from->position);
    w->kernels->store_key(&kv, key, slot, head_dim, width, w->model->cell);
    w->kernels->store_value(&kv, v, slot, head_dim, width, w->model->cell);
}

/* Norms, rotations and scale of a piece's queries of kv head `head`: to scratch->q. */
static void prepare_queries(worker *w, const mln_cpu_layer *layer, const mln_cpu_piece *piece,
                            int64_t head) {
    myelin_plugin_context *c = w->context;
    const mln_cpu_sizes *s = &w->model->sizes;
    int64_t group = s->heads / s->kv_heads, stride = s->q_width + 2 * s->kv_width;
    int64_t half = s->head_dim / 2;
    float scale = 1.0f / __builtin_sqrtf((float)s->head_dim), *query = w->scratch->row;
    for (int32_t r = 0; r < piece->count; r++) {
        int64_t row = piece->row + (piece->first + r) / group;
        int64_t at = (head * group + (piece->first + r) % group) * s->head_dim;
        const float *q = c->qkv + row * stride + at;
        if (row + FETCH_ROWS < c->num_rows)
            fetch_floats(q + FETCH_ROWS * stride, s->head_dim);
        w->kernels->norm_rotate(query, q, layer->q_norm, c->cos + row * half, c->sin + row * half,
                                s->head_dim, (float)w->model->config.rms_norm_eps);
        w->kernels->store_query(w->scratch->q + r * MLN_CPU_LANES, piece->count * MLN_CPU_LANES,
                                query, s->head_dim, scale);
    }
}

/* The call of attend() of a piece's query rows that read kv head `head`; queries in q. */
static mln_cpu_attention begin_piece(worker *w, int64_t index, const mln_cpu_piece *piece,
                                     int64_t head, int32_t limits[MLN_CPU_ATTEND_ROWS]) {
    myelin_plugin_context *c = w->context;
    const mln_cpu_sizes *s = &w->model->sizes;
    int64_t group = s->heads / s->kv_heads;
    for (int32_t r = 0; r < piece->count; r++)
        limits[r] = c->rows[piece->row + (piece->first + r) / group].position + 1;
    prepare_queries(w, &w->model->layers[index], piece, head);
    return (mln_cpu_attention){.kv = cache_of(c->rows[piece->row].sequence, index, head),
                               .rows = piece->count,
                               .head_dim = (int32_t)s->head_dim,
                               .width = (int32_t)s->width,
                               .limits = limits,
                               .q = w->scratch->q,
                               .out = w->scratch->out,
                               .scratch = w->scratch->attention};
}

/* What attend() made of them to attended [rows, Q]. */
static void end_piece(worker *w, const mln_cpu_piece *piece, int64_t head) {
    myelin_plugin_context *c = w->context;
    const mln_cpu_sizes *s = &w->model->sizes;
    int64_t group = s->heads / s->kv_heads;
    for (int32_t r = 0; r < piece->count; r++) {
        int64_t row = piece->row + (piece->first + r) / group;
        memcpy(c->attended + row * s->q_width +
                   (head * group + (piece->first + r) % group) * s->head_dim,
               w->scratch->out + r * s->width, (size_t)s->head_dim * sizeof(float));
    }
}

static void attend_piece(worker *w, int64_t layer, const mln_cpu_piece *piece, int64_t head) {
    int32_t limits[MLN_CPU_ATTEND_ROWS];
    mln_cpu_attention attention = begin_piece(w, layer, piece, head, limits);
    w->kernels->attend[w->model->cell](&attention);
    end_piece(w, piece, head);
}

/*
 * Keys and values of all rows together, a head after the other: keys of
 * MLN_CPU_LANES positions share every line of the cache.
 */
static void prepare_rows(worker *w, int64_t index) {
    const mln_cpu_layer *layer = &w->model->layers[index];
    int64_t rows = w->context->num_rows;
    mln_share share;
    while (mln_claim(w->member, rows * w->model->sizes.kv_heads, 4 * MLN_CPU_LANES, &share))
        for (int64_t i = share.begin; i < share.end; i++)
            prepare_head(w, layer, index, i % rows, i / rows);
    mln_barrier(w->member);
}

static int32_t splits_of(const myelin_plugin_context *c, const mln_cpu_piece *piece) {
    return c->rows[piece->row].position / MLN_CPU_SPLIT + 1;
}

/* Splits of the longest piece, if pieces are so few that whole ones would not end together; or 0.
 */
static int32_t splits_to_share(const worker *w) {
    const myelin_plugin_context *c = w->context;
    int32_t most = 0;
    if (w->member->size == 1 || c->num_pieces > c->shared_pieces)
        return 0;
    for (int64_t i = 0; i < c->num_pieces; i++) {
        int32_t splits = splits_of(c, &c->pieces[i]);
        most = splits > most ? splits : most;
    }
    return most > MLN_CPU_SHARED_SPLITS ? most : 0;
}

/*
 * A few pieces of a token each over many positions: members share out their splits, and who ends
 * a piece's last one puts its parts together, in their order.
 */
static void attend_shared(worker *w, int64_t index, int32_t splits) {
    myelin_plugin_context *c = w->context;
    const mln_cpu_sizes *s = &w->model->sizes;
    int64_t each = (splits + MLN_CPU_SHARED_SPLITS - 1) / MLN_CPU_SHARED_SPLITS;
    int64_t size = mln_cpu_part_size(s->heads / s->kv_heads, s->width);
    int32_t limits[MLN_CPU_ATTEND_ROWS];
    mln_share share;
    while (mln_claim(w->member, c->num_pieces * s->kv_heads * each, 1, &share)) {
        int64_t at = share.begin / each, head = at % s->kv_heads;
        const mln_cpu_piece *piece = &c->pieces[at / s->kv_heads];
        int32_t all = splits_of(c, piece);
        int32_t begin = (int32_t)(share.begin % each) * MLN_CPU_SHARED_SPLITS;
        int32_t end = begin + MLN_CPU_SHARED_SPLITS < all ? begin + MLN_CPU_SHARED_SPLITS : all;
        if (begin >= end)
            continue;
        mln_cpu_attention attention = begin_piece(w, index, piece, head, limits);
        float *parts = c->parts + at * c->most_splits * size;
        for (int32_t i = begin; i < end; i++)
            w->kernels->attend_split[w->model->cell](parts + i * size, &attention, i);
        int32_t done = end - begin;
        if (atomic_fetch_add_explicit(&c->ended_splits[at], done, memory_order_acq_rel) + done <
            all)
            continue;
        atomic_store_explicit(&c->ended_splits[at], 0, memory_order_relaxed);
        w->kernels->attend_merge(&attention, parts);
        end_piece(w, piece, head);
    }
}

/* From qkv to attended. A piece that is its whole span needs nobody else's keys. */
static void attend(worker *w, int64_t index) {
    myelin_plugin_context *c = w->context;
    const mln_cpu_layer *layer = &w->model->layers[index];
    int64_t kv_heads = w->model->sizes.kv_heads;
    int32_t splits = c->alone ? splits_to_share(w) : 0;
    mln_share share;
    if (!c->alone || splits > 0)
        prepare_rows(w, index);
    if (splits > 0)
        attend_shared(w, index, splits);
    else
        while (mln_claim(w->member, c->num_pieces * kv_heads, 1, &share)) {
            /* A head's pieces one after the other: they read the same keys and values. The last
             * one, which sees most, comes first, so that members end together. */
            int64_t after = share.begin % c->num_pieces, head = share.begin / c->num_pieces;
            const mln_cpu_piece *piece = &c->pieces[c->num_pieces - 1 - after];
            if (c->alone)
                prepare_head(w, layer, index, piece->row, head);
            attend_piece(w, index, piece, head);
        }
    barrier_before(w, &layer->o_proj, layer->o_proj.panels);
}

/* --- the blocks --- */

static void attention_block(worker *w, int64_t index) {
    const mln_cpu_layer *layer = &w->model->layers[index];
    project_qkv(w, layer);
    attend(w, index);
    project_add(w, &layer->o_proj, w->context->attended, &layer->gate_up[0],
                layer->gate_up[0].panels);
}

static void mlp_block(worker *w, int64_t index) {
    const mln_cpu_layer *layer = &w->model->layers[index];
    project_gated(w, layer);
    bool last = index + 1 == w->model->sizes.layers;
    const mln_cpu_layer *next = last ? NULL : &w->model->layers[index + 1];
    const mln_cpu_matrix *head = &w->model->lm_head;
    project_add(w, &layer->down_proj, w->context->gated, last ? head : &next->qkv[0],
                last ? head->panels : qkv_panels(next));
}

/* residual, cos and sin of every row */
static void embed(worker *w) {
    myelin_plugin_context *c = w->context;
    const myelin_plugin_model *model = w->model;
    int64_t half = model->sizes.head_dim / 2;
    for (int64_t row = w->member->index; row < c->num_rows; row += w->member->size) {
        mln_cpu_matrix_row(c->residual + row * model->sizes.hidden, &model->embed_tokens,
                           c->rows[row].id);
        mln_rope_angles(c->cos + row * half, c->sin + row * half, model->inv_freq,
                        &model->config.rope, model->config.head_dim, c->rows[row].position);
    }
    mln_barrier(w->member);
}

/* --- the head --- */

/* The largest of a row's logits so far, the lowest id among equals; NaN never wins. */
static void keep_best(float *value, int32_t *id, const float *logits, int64_t first,
                      int64_t count) {
    int32_t any = 0;
    for (int64_t i = 0; i < count; i++)
        any |= logits[i] >= *value;
    for (int64_t i = 0; any && i < count; i++)
        if (logits[i] > *value || (logits[i] == *value && (int32_t)(first + i) < *id)) {
            *value = logits[i];
            *id = (int32_t)(first + i);
        }
}

static void head_block(worker *w, const void *context, int64_t panel, int64_t first) {
    const packed *x = context;
    myelin_plugin_context *c = w->context;
    const mln_cpu_matrix *m = &w->model->lm_head;
    float *tile = w->scratch->tile;
    int64_t valid = valid_rows(m, panel), column = panel * MLN_CPU_PANEL;
    int64_t own = (int64_t)w->member->index * c->max_tokens;
    int32_t tokens = project(w, tile, m, panel, x, 0, first, c->num_wanted);
    for (int32_t t = 0; t < tokens; t++) {
        const float *from = tile + t * MLN_CPU_PANEL;
        if (c->greedy)
            keep_best(&c->best_values[own + first + t], &c->best_ids[own + first + t], from, column,
                      valid);
        else
            memcpy(c->targets[first + t] + column, from, (size_t)valid * sizeof *from);
    }
}

/* Where the head's products with the narrow rows of a panel say its best can and must be. */
static void bound_panel(worker *w, const packed *x, int64_t panel, const float *lengths,
                        float *least) {
    myelin_plugin_context *c = w->context;
    const mln_cpu_shortlist *list = &w->model->shortlist;
    const float *bounds = list->bounds + panel * MLN_CPU_PANEL;
    float *tile = w->scratch->tile, *reach = c->reach + panel * MLN_CPU_BLOCK;
    project(w, tile, &list->narrow, panel, x, 0, 0, c->num_wanted);
    for (int64_t t = 0; t < c->num_wanted; t++, tile += MLN_CPU_PANEL) {
        float high[MLN_CPU_PANEL], low[MLN_CPU_PANEL], most = -__builtin_inff();
        for (int r = 0; r < MLN_CPU_PANEL; r++) {
            float off = bounds[r] * lengths[t] + MLN_CPU_TINY;
            high[r] = tile[r] + off;
            low[r] = tile[r] - off;
        }
        for (int r = 0; r < MLN_CPU_PANEL; r++) {
            most = high[r] <= most ? most : high[r] == high[r] ? high[r] : __builtin_inff();
            least[t] = low[r] > least[t] ? low[r] : least[t];
        }
        reach[t] = most;
    }
}

/* Whether some token's best may lie in the panel. */
static bool within_reach(const myelin_plugin_context *c, int64_t panel, const float *least) {
    for (int64_t t = 0; t < c->num_wanted; t++)
        if (c->reach[panel * MLN_CPU_BLOCK + t] >= least[t])
            return true;
    return false;
}

/*
 * The greedy pick by the narrow copy: no row whose product can at most be what another's must at
 * least be is the best; panels with any other are computed as head() does.
 */
static void shortlist_head(worker *w, const source *from) {
    enum { CLAIM = 64 };
    myelin_plugin_context *c = w->context;
    const mln_cpu_shortlist *list = &w->model->shortlist;
    const mln_cpu_matrix matrices[2] = {list->narrow, w->model->lm_head};
    int64_t panels = list->narrow.panels;
    float lengths[MLN_CPU_BLOCK], least[MLN_CPU_BLOCK];
    for (int64_t t = 0; t < c->num_wanted; t++) {
        w->kernels->rms_norm(w->scratch->row, c->residual + c->wanted[t] * from->columns,
                             from->norm, from->columns, (float)w->model->config.rms_norm_eps);
        lengths[t] = mln_cpu_length(list, w->scratch->row);
        least[t] = -__builtin_inff();
    }
    packed x = pack_rows(w, matrices, 2, from);
    mln_share share;
    while (mln_claim(w->member, panels, claim_size(&list->narrow), &share))
        for (int64_t i = share.begin; i < share.end; i++)
            bound_panel(w, &x, i, lengths, least);
    memcpy(c->least + w->member->index * MLN_CPU_BLOCK, least, sizeof least);
    mln_barrier(w->member);
    for (int64_t t = 0; t < c->num_wanted; t++)
        for (int32_t m = 0; m < w->member->size; m++) {
            float other = c->least[m * MLN_CPU_BLOCK + t];
            least[t] = other > least[t] ? other : least[t];
        }
    x.base[0] = x.base[1];
    x.row_bytes[0] = x.row_bytes[1];
    while (mln_claim(w->member, panels, CLAIM, &share))
        for (int64_t i = share.begin; i < share.end; i++)
            if (within_reach(c, i, least))
                head_block(w, &x, i, 0);
    mln_barrier(w->member);
}

/* logits of the wanted rows to their targets, or the greedy pick of each to ids */
static void head(worker *w) {
    myelin_plugin_context *c = w->context;
    const mln_cpu_matrix *m = &w->model->lm_head;
    source from = {c->residual, c->num_wanted, w->model->sizes.hidden, c->wanted, w->model->norm};
    if (c->num_wanted == 0)
        return;
    int64_t own = (int64_t)w->member->index * c->max_tokens;
    for (int64_t i = 0; i < c->num_wanted && c->greedy; i++) {
        c->best_values[own + i] = -__builtin_inff();
        c->best_ids[own + i] = INT32_MAX;
    }
    if (c->greedy && w->model->shortlist.narrow.panels > 0 && c->num_wanted <= w->kernels->block) {
        shortlist_head(w, &from);
        return;
    }
    packed x = pack_rows(w, m, 1, &from);
    share_panels(w, m, m->panels, c->num_wanted, head_block, &x);
    mln_barrier(w->member);
}

/* ids[i] = the best of all members' */
static void pick(myelin_plugin_context *c, int32_t members) {
    for (int64_t i = 0; i < c->num_wanted; i++) {
        float value = -__builtin_inff();
        int32_t id = INT32_MAX;
        for (int64_t m = 0; m < members; m++) {
            int64_t at = m * c->max_tokens + i;
            if (c->best_ids[at] == INT32_MAX)
                continue;
            if (c->best_values[at] > value ||
                (c->best_values[at] == value && c->best_ids[at] < id)) {
                value = c->best_values[at];
                id = c->best_ids[at];
            }
        }
        c->ids[i] = id == INT32_MAX ? 0 : id; /* all of them NaN */
    }
}

/* --- runs --- */

static worker make_worker(mln_member *member, void *argument) {
    myelin_plugin_context *context = argument;
    return (worker){member, context, context->model, context->model->kernels,
                    &context->scratch[member->index]};
}

static void run_attention(mln_member *member, void *argument) {
    worker w = make_worker(member, argument);
    attend(&w, w.context->layer);
}

static void run_mlp_block(mln_member *member, void *argument) {
    worker w = make_worker(member, argument);
    mlp_block(&w, w.context->layer);
}

static void run_attention_block(mln_member *member, void *argument) {
    worker w = make_worker(member, argument);
    attention_block(&w, w.context->layer);
}

static void run_layer(mln_member *member, void *argument) {
    worker w = make_worker(member, argument);
    attention_block(&w, w.context->layer);
    mlp_block(&w, w.context->layer);
}

static void run_embed(mln_member *member, void *argument) {
    worker w = make_worker(member, argument);
    embed(&w);
}

static void run_all(mln_member *member, void *argument) {
    worker w = make_worker(member, argument);
    embed(&w);
    for (int64_t l = 0; l < w.model->sizes.layers; l++) {
        attention_block(&w, l);
        mlp_block(&w, l);
    }
    head(&w);
    if (w.context->greedy && member->index == 0)
        pick(w.context, member->size);
}

/* --- plain operations, for the rungs below --- */

/* A projection by the portable kernels, panels shared out by the host's parallel_for(). */
typedef struct plain_job {
    myelin_plugin_context *context;
    const mln_cpu_matrix *matrix;
    float *out; /* [num_rows, stride] */
    float *const *targets;
    int64_t stride, num_rows, column_offset;
    bool add;
} plain_job;

static void plain_panels(void *argument, int64_t index) {
    enum { PANELS = 4 };
    const plain_job *job = argument;
    float tile[MLN_CPU_BLOCK * MLN_CPU_PANEL];
    const mln_cpu_matrix *m = job->matrix;
    int64_t end = (index + 1) * PANELS < m->panels ? (index + 1) * PANELS : m->panels;
    int64_t row_bytes = (int64_t)mln_cpu_kernels_portable.packed_bytes(m, 1);
    for (int64_t panel = index * PANELS; panel < end; panel++)
        for (int64_t first = 0; first < job->num_rows; first += mln_cpu_kernels_portable.block) {
            int32_t tokens = block_tokens(&mln_cpu_kernels_portable, job->num_rows, first);
            mln_cpu_kernels_portable.panel(tile, m, panel, job->context->packed + first * row_bytes,
                                           tokens);
            for (int32_t t = 0; t < tokens; t++) {
                float *to =
                    job->targets ? job->targets[first + t] : job->out + (first + t) * job->stride;
                to += job->column_offset + panel * MLN_CPU_PANEL;
                for (int64_t i = 0; i < valid_rows(m, panel); i++)
                    to[i] = job->add ? to[i] + tile[t * MLN_CPU_PANEL + i]
                                     : tile[t * MLN_CPU_PANEL + i];
            }
        }
}

static void plain_linear(const plain_job *job, const source *from) {
    myelin_plugin_context *c = job->context;
    const myelin_plugin_model *model = c->model;
    worker w = {NULL, c, model, &mln_cpu_kernels_portable, &c->scratch[0]};
    const int area[3] = {0, 0, 0};
    for (int64_t row = 0; row < from->num_rows; row++)
        pack_row(&w, job->matrix, 1, area, from, c->packed, 0, row, (mln_share){0, from->columns});
    model->host.parallel_for(model->host.self, (job->matrix->panels + 3) / 4, plain_panels,
                             (void *)(uintptr_t)job);
}

static void plain_qkv(myelin_plugin_context *c) {
    const mln_cpu_sizes *s = &c->model->sizes;
    const mln_cpu_layer *layer = &c->model->layers[c->layer];
    source from = {c->residual, c->num_rows, s->hidden, NULL, layer->input_layernorm};
    int64_t offset = 0;
    for (int i = 0; i < 3; i++) {
        plain_job job = {.context = c,
                         .matrix = &layer->qkv[i],
                         .out = c->qkv,
                         .stride = s->q_width + 2 * s->kv_width,
                         .num_rows = c->num_rows,
                         .column_offset = offset};
        plain_linear(&job, &from);
        offset += layer->qkv[i].rows;
    }
}

/* residual += rows times m */
static void plain_add(myelin_plugin_context *c, const mln_cpu_matrix *m, const float *rows) {
    source from = {rows, c->num_rows, m->columns, NULL, NULL};
    plain_job job = {.context = c,
                     .matrix = m,
                     .out = c->residual,
                     .stride = c->model->sizes.hidden,
                     .num_rows = c->num_rows,
                     .add = true};
    plain_linear(&job, &from);
}

/* The gate goes to `gated`, the up projection to `up`, which is as wide. */
static void plain_mlp(myelin_plugin_context *c) {
    const mln_cpu_sizes *s = &c->model->sizes;
    const mln_cpu_layer *layer = &c->model->layers[c->layer];
    source from = {c->residual, c->num_rows, s->hidden, NULL, layer->post_attention_layernorm};
    float *const outs[2] = {c->gated, c->up};
    for (int i = 0; i < 2; i++) {
        plain_job job = {.context = c,
                         .matrix = &layer->gate_up[i],
                         .out = outs[i],
                         .stride = s->intermediate,
                         .num_rows = c->num_rows};
        plain_linear(&job, &from);
    }
    mln_cpu_kernels_portable.silu_mul(c->gated, c->gated, c->up, c->num_rows * s->intermediate);
    plain_add(c, &layer->down_proj, c->gated);
}

static void plain_head(myelin_plugin_context *c) {
    const myelin_plugin_model *model = c->model;
    source from = {c->residual, c->num_wanted, model->sizes.hidden, c->wanted, model->norm};
    plain_job job = {
        .context = c, .matrix = &model->lm_head, .targets = c->targets, .num_rows = c->num_wanted};
    if (c->num_wanted > 0)
        plain_linear(&job, &from);
}

static void run(myelin_plugin_context *c, mln_team_function function) {
    enum { LONG_ROWS = 128 }; /* take some tenths of a second, where a time slice is milliseconds */
    mln_team_run(c->model->team, c->num_rows >= LONG_ROWS, function, c);
}

static void low_rung_layer(myelin_plugin_context *c, int32_t fusion) {
    if (fusion >= MYELIN_FUSION_LAYER) {
        run(c, run_layer);
        return;
    }
    if (fusion >= MYELIN_FUSION_ATTENTION_BLOCK) {
        run(c, run_attention_block);
    } else {
        plain_qkv(c);
        run(c, run_attention);
        plain_add(c, &c->model->layers[c->layer].o_proj, c->attended);
    }
    if (fusion >= MYELIN_FUSION_MLP)
        run(c, run_mlp_block);
    else
        plain_mlp(c);
}

void mln_cpu_forward(myelin_plugin_context *c) {
    int32_t fusion = c->model->fusion;
    if (fusion == MYELIN_FUSION_AUTO || fusion >= MYELIN_FUSION_GREEDY || c->greedy) {
        run(c, run_all);
        return;
    }
    run(c, run_embed);
    for (c->layer = 0; c->layer < c->model->sizes.layers; c->layer++)
        low_rung_layer(c, fusion);
    plain_head(c);
}
