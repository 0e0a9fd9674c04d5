/* SPDX-License-Identifier: Apache-2.0 */
/* Loading: plans one region for all weights, reads 32 rows at a time and lays them in panels. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/available.h"
#include "base/checked.h"
#include "base/rope.h"
#include "half.h"
#include "internal.h"

enum {
    PIECE_BYTES = 1 << 20, /* of panels laid out by one piece of parallel work */
    MATRICES_A_LAYER = 7,
    TRIAL_BYTES = 3 << 20,   /* of panels a thread reads to see what pays */
    TRIAL_MOST = 64 << 20,   /* of all threads */
    TRIAL_LEAST = 128 << 20, /* bytes of weights that caches do not hold */
};

/*
 * How many times as fast packed panels are to be at least if nothing else is asked for: prompts
 * lose up to 15% with them.
 */
#define PACKING_GAIN 1.20

/* One matrix to be read. */
typedef struct plan_matrix {
    const myelin_tensor *source;
    mln_cpu_matrix *target;
    int64_t first_piece;
    int64_t piece_panels;
    bool in_turns; /* its panels are to lie between those of the matrix before, if they can */
} plan_matrix;

typedef struct load_job {
    myelin_plugin_model *model;
    mln_region *region;    /* that all matrices are to lie in */
    uint64_t *starts;      /* of packed panels */
    plan_matrix *matrices; /* [num_matrices] */
    int64_t num_matrices;
    int64_t num_pieces;
    uint64_t bytes;
    bool lossless; /* pack what is bfloat16 */
    bool close;    /* fetch so what is of this kind */
    int32_t close_kind;
    int64_t packed_panels; /* of all matrices of that kind */
    _Atomic uint64_t used; /* of the region: packed panels go where those before them end */
    _Atomic int status;    /* of the first piece that failed; the others then stop */
    myelin_error_buffer *error;
} load_job;

mln_cpu_sizes mln_cpu_sizes_of(const myelin_config *c) {
    mln_cpu_sizes s = {.hidden = c->hidden_size,
                       .intermediate = c->intermediate_size,
                       .vocab = c->vocab_size,
                       .layers = c->num_hidden_layers,
                       .heads = c->num_attention_heads,
                       .kv_heads = c->num_key_value_heads,
                       .head_dim = c->head_dim};
    s.width = (s.head_dim + MLN_CPU_LANES - 1) / MLN_CPU_LANES * MLN_CPU_LANES;
    s.q_width = s.heads * s.head_dim;
    s.kv_width = s.kv_heads * s.head_dim;
    s.widest = s.hidden > s.intermediate ? s.hidden : s.intermediate;
    s.widest = s.q_width > s.widest ? s.q_width : s.widest;
    return s;
}

static size_t element_size(int32_t dtype) {
    return dtype == MYELIN_DTYPE_F32 ? 4 : 2;
}

/* What `rows` of a tensor become; the bytes of the panels, UINT64_MAX when that overflows. */
static uint64_t describe(mln_cpu_matrix *m, const myelin_tensor *t, int64_t rows, bool lossless) {
    *m = (mln_cpu_matrix){.rows = rows, .columns = t->shape[1]};
    uint64_t columns = (uint64_t)m->columns, panel;
    m->panels = (m->rows + MLN_CPU_PANEL - 1) / MLN_CPU_PANEL;
    switch (t->dtype) {
    case MYELIN_DTYPE_F32:
        m->kind = MLN_CPU_F32;
        panel = columns * 4 * MLN_CPU_PANEL;
        break;
    case MYELIN_DTYPE_F16:
        m->kind = MLN_CPU_F16;
        panel = columns * 2 * MLN_CPU_PANEL;
        break;
    case MYELIN_DTYPE_BF16:
        m->kind = lossless ? MLN_CPU_BF16P : MLN_CPU_BF16;
        panel =
            (columns + 1) / 2 * 4 * MLN_CPU_PANEL + (lossless ? sizeof(mln_cpu_packed_head) : 0);
        break;
    default:
        m->kind = t->bits == 4 ? MLN_CPU_Q4 : MLN_CPU_Q8;
        m->group = t->group_size;
        m->scale_dtype = t->scale_dtype;
        panel =
            columns * (uint64_t)t->bits / 8 * MLN_CPU_PANEL +
            columns / (uint64_t)t->group_size * 2 * element_size(t->scale_dtype) * MLN_CPU_PANEL;
    }
    m->panel_bytes = (int64_t)panel;
    uint64_t bytes;
    return mln_mul(panel, (uint64_t)m->panels, &bytes) ? bytes : UINT64_MAX;
}

static bool is_head(const myelin_plugin_model *model, const mln_cpu_matrix *m) {
    return m == &model->embed_tokens || m == &model->lm_head;
}

static bool has_codes(const mln_cpu_matrix *m) {
    return m->kind == MLN_CPU_Q4 || m->kind == MLN_CPU_Q8;
}

/*
 * Pieces that activations are cut in: as many as were asked for, where the kernels can. The head's
 * are never rounded: that wins nothing where it is needed for a row of a prompt, or for a few
 * sequences. The bounds of a shortlist are of floats.
 */
static int32_t pieces_for(const myelin_plugin_model *model, const mln_cpu_matrix *m) {
    bool head = is_head(model, m);
    if (has_codes(m))
        return model->activations == MYELIN_ACTIVATIONS_INT8 && !head &&
               model->kernels->least_bytes == 1;
    if ((m->kind != MLN_CPU_BF16 && m->kind != MLN_CPU_BF16P) || (head && model->shortlisted) ||
        model->activations == MYELIN_ACTIVATIONS_F32)
        return 0;
    int32_t wanted = model->activations == MYELIN_ACTIVATIONS_BF16 && !head ? 1 : 2;
    return wanted <= model->kernels->most_pieces ? wanted : 0;
}

/* What became of what was asked for, in the layers or else in the head. */
static myelin_activations activations_found(const load_job *job) {
    myelin_activations found = MYELIN_ACTIVATIONS_F32;
    for (int64_t i = 0; i < job->num_matrices; i++) {
        const mln_cpu_matrix *m = job->matrices[i].target;
        if (m->pieces == 0 || (is_head(job->model, m) && found != MYELIN_ACTIVATIONS_F32))
            continue;
        found = has_codes(m)     ? MYELIN_ACTIVATIONS_INT8
                : m->pieces == 1 ? MYELIN_ACTIVATIONS_BF16
                                 : MYELIN_ACTIVATIONS_BF16X2;
    }
    return found;
}

static bool add_rows(load_job *job, const myelin_tensor *source, int64_t rows,
                     mln_cpu_matrix *target) {
    uint64_t bytes = describe(target, source, rows, job->lossless);
    bool close = job->close && job->close_kind == target->kind;
    mln_cpu_set_fetch(target, job->model->kernels, close);
    target->pieces = pieces_for(job->model, target);
    plan_matrix *added = &job->matrices[job->num_matrices++];
    target->data = NULL;
    *added = (plan_matrix){.source = source,
                           .target = target,
                           .first_piece = job->num_pieces,
                           .piece_panels = PIECE_BYTES / target->panel_bytes};
    if (added->piece_panels < 1)
        added->piece_panels = 1;
    if (target->kind == MLN_CPU_BF16P)
        job->packed_panels += target->panels;
    job->num_pieces += (target->panels + added->piece_panels - 1) / added->piece_panels;
    return bytes != UINT64_MAX && mln_add(job->bytes, bytes, &job->bytes);
}

static bool add_matrix(load_job *job, const myelin_tensor *source, mln_cpu_matrix *target) {
    return add_rows(job, source, source->shape[0], target);
}

/* Every matrix in the order the forward pass reads them. */
static bool lay_out(load_job *job, const myelin_weights *source) {
    myelin_plugin_model *model = job->model;
    bool fits = add_matrix(job, &source->embed_tokens, &model->embed_tokens);
    for (int32_t l = 0; l < source->num_layers; l++) {
        const myelin_layer_weights *from = &source->layers[l];
        mln_cpu_layer *to = &model->layers[l];
        fits = add_matrix(job, &from->q_proj, &to->qkv[0]) && fits;
        fits = add_matrix(job, &from->k_proj, &to->qkv[1]) && fits;
        fits = add_matrix(job, &from->v_proj, &to->qkv[2]) && fits;
        fits = add_matrix(job, &from->o_proj, &to->o_proj) && fits;
        fits = add_matrix(job, &from->gate_proj, &to->gate_up[0]) && fits;
        fits = add_matrix(job, &from->up_proj, &to->gate_up[1]) && fits;
        job->matrices[job->num_matrices - 1].in_turns = true;
        fits = add_matrix(job, &from->down_proj, &to->down_proj) && fits;
    }
    if (!model->config.tie_word_embeddings)
        fits = add_matrix(job, &source->lm_head, &model->lm_head) && fits;
    return fits;
}

/* --- panels --- */

/* Four codes of 4 bits (columns i .. i+3 of a row) as the low halves of four bytes. */
static uint32_t spread4(const unsigned char *codes) {
    uint32_t v = (uint32_t)codes[0] | (uint32_t)codes[1] << 8;
    v = (v | v << 8) & 0x00ff00ffu;
    return (v | v << 4) & 0x0f0f0f0fu;
}

static void put32(unsigned char *to, uint32_t v) {
    memcpy(to, &v, sizeof v);
}

/* Codes of one group of a panel; rows[r] begins with the group's first column. */
static void lay_codes(unsigned char *to, const unsigned char *rows, size_t row_bytes,
                      const mln_cpu_matrix *m) {
    for (int32_t i = 0; i < m->group / 4; i++)
        for (size_t r = 0; r < MLN_CPU_PANEL / 2; r++) {
            const unsigned char *first = rows + r * row_bytes;
            const unsigned char *second = first + MLN_CPU_PANEL / 2 * row_bytes;
            if (m->kind == MLN_CPU_Q4) {
                put32(to + i * 64 + 4 * r, spread4(first + 2 * i) | spread4(second + 2 * i) << 4);
            } else {
                memcpy(to + i * 128 + 4 * r, first + 4 * i, 4);
                memcpy(to + i * 128 + 64 + 4 * r, second + 4 * i, 4);
            }
        }
}

/* codes [32][K * bits / 8], scales, biases [32][G] -> a panel */
static void lay_affine_panel(unsigned char *to, const mln_cpu_matrix *m, const unsigned char *codes,
                             const unsigned char *scales, const unsigned char *biases) {
    size_t element = element_size(m->scale_dtype), bits = m->kind == MLN_CPU_Q4 ? 4 : 8;
    size_t groups = (size_t)(m->columns / m->group), row_bytes = (size_t)m->columns * bits / 8;
    size_t code_bytes = (size_t)m->group * bits / 8;
    for (size_t g = 0; g < groups; g++) {
        for (size_t r = 0; r < MLN_CPU_PANEL; r++, to += element)
            memcpy(to, scales + (r * groups + g) * element, element);
        for (size_t r = 0; r < MLN_CPU_PANEL; r++, to += element)
            memcpy(to, biases + (r * groups + g) * element, element);
        lay_codes(to, codes + g * code_bytes, row_bytes, m);
        to += code_bytes * MLN_CPU_PANEL;
    }
}

static myelin_status read_affine_panel(const myelin_host *host, const plan_matrix *from,
                                       int64_t panel, int64_t rows, unsigned char *to,
                                       unsigned char *buffer, myelin_error_buffer *error) {
    const mln_cpu_matrix *m = from->target;
    int64_t row = panel * MLN_CPU_PANEL;
    size_t element = element_size(m->scale_dtype);
    size_t code_bytes = (size_t)m->columns * (m->kind == MLN_CPU_Q4 ? 4 : 8) / 8 * MLN_CPU_PANEL;
    size_t scale_bytes = (size_t)(m->columns / m->group) * element * MLN_CPU_PANEL;
    unsigned char *scales = buffer + code_bytes, *biases = scales + scale_bytes;
    myelin_status status =
        host->read(host->self, from->source, MYELIN_PART_DATA, row, rows, buffer, error);
    if (status == MYELIN_OK)
        status = host->read(host->self, from->source, MYELIN_PART_SCALES, row, rows, scales, error);
    if (status == MYELIN_OK)
        status = host->read(host->self, from->source, MYELIN_PART_BIASES, row, rows, biases, error);
    if (status == MYELIN_OK)
        lay_affine_panel(to, m, buffer, scales, biases);
    return status;
}

/* Panel `panel` to where it belongs, by way of `buffer` [panel_bytes]. */
static myelin_status read_panel(load_job *job, const plan_matrix *from, int64_t panel,
                                unsigned char *to, unsigned char *buffer,
                                myelin_error_buffer *error) {
    const mln_cpu_matrix *m = from->target;
    const myelin_host *host = &job->model->host;
    int64_t row = panel * MLN_CPU_PANEL, rows = m->rows - row;
    rows = rows < MLN_CPU_PANEL ? rows : MLN_CPU_PANEL;
    if (rows < MLN_CPU_PANEL)
        memset(buffer, 0, (size_t)m->panel_bytes);
    if (m->kind == MLN_CPU_Q4 || m->kind == MLN_CPU_Q8)
        return read_affine_panel(host, from, panel, rows, to, buffer, error);
    myelin_status status =
        host->read(host->self, from->source, MYELIN_PART_DATA, row, rows, buffer, error);
    if (status == MYELIN_OK)
        job->model->kernels->interleave(to, buffer, m);
    return status;
}

/*
 * Packed panels are made in a buffer and then take the next room there is: how long they are is
 * known only then, and pieces of a matrix may lie in another order than its panels are in.
 */
static myelin_status read_packed(load_job *job, const plan_matrix *from, int64_t panel, int64_t end,
                                 unsigned char *buffer, myelin_error_buffer *error) {
    const mln_cpu_matrix *m = from->target;
    unsigned char *dense = buffer + m->panel_bytes, *packed = dense + m->panel_bytes;
    uint64_t used = 0;
    for (int64_t p = panel; p < end; p++) {
        myelin_status status = read_panel(job, from, p, dense, buffer, error);
        if (status != MYELIN_OK)
            return status;
        m->starts[p] = used;
        used += job->model->kernels->pack_weights(packed + used, dense, m->columns);
    }
    uint64_t at = atomic_fetch_add(&job->used, used);
    for (int64_t p = panel; p < end; p++)
        m->starts[p] += at;
    memcpy(m->data + at, packed, (size_t)used);
    return MYELIN_OK;
}

static myelin_status read_panels(load_job *job, const plan_matrix *from, int64_t panel, int64_t end,
                                 unsigned char *buffer, myelin_error_buffer *error) {
    const mln_cpu_matrix *m = from->target;
    if (m->kind == MLN_CPU_BF16P)
        return read_packed(job, from, panel, end, buffer, error);
    myelin_status status = MYELIN_OK;
    for (; panel < end && status == MYELIN_OK; panel++)
        status = read_panel(job, from, panel, mln_cpu_panel_at(m, panel), buffer, error);
    return status;
}

/* The matrix that piece `index` belongs to: the last that begins at or before it. */
static const plan_matrix *matrix_of(const load_job *job, int64_t index) {
    int64_t low = 0, high = job->num_matrices;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (job->matrices[middle].first_piece <= index)
            low = middle;
        else
            high = middle;
    }
    return &job->matrices[low];
}

/* The first failure stays; the others stop. */
static void report(load_job *job, myelin_status status, const char *text) {
    int none = MYELIN_OK;
    if (atomic_compare_exchange_strong(&job->status, &none, (int)status))
        snprintf(job->error->text, job->error->size, "%s", text);
}

static void load_piece(void *context, int64_t index) {
    load_job *job = context;
    const plan_matrix *from = matrix_of(job, index);
    const mln_cpu_matrix *m = from->target;
    if (atomic_load(&job->status) != MYELIN_OK)
        return;
    char text[512] = "";
    myelin_error_buffer error = {text, sizeof text};
    size_t panels = 1 + (m->kind == MLN_CPU_BF16P ? 1 + (size_t)from->piece_panels : 0);
    size_t bytes = (size_t)m->panel_bytes * panels;
    unsigned char *buffer = mln_alloc(bytes, 1);
    myelin_status status = buffer ? MYELIN_OK : MYELIN_ERROR_MEMORY;
    if (!buffer) {
        myelin_error reason = {0};
        mln_fail_memory(&reason, bytes, "a panel of weights");
        mln_cpu_fail(&error, &reason);
    }
    int64_t panel = (index - from->first_piece) * from->piece_panels;
    int64_t end = panel + from->piece_panels < m->panels ? panel + from->piece_panels : m->panels;
    if (status == MYELIN_OK)
        status = read_panels(job, from, panel, end, buffer, &error);
    free(buffer);
    if (status != MYELIN_OK)
        report(job, status, text);
}

/* --- vectors --- */

/* The number at `from`, of any of the dense dtypes. */
static float number_at(const unsigned char *from, int32_t dtype) {
    float number;
    uint16_t half;
    if (dtype == MYELIN_DTYPE_F32) {
        memcpy(&number, from, sizeof number);
        return number;
    }
    memcpy(&half, from, sizeof half);
    return dtype == MYELIN_DTYPE_BF16 ? bfloat_to_float(half) : half_to_float(half);
}

static myelin_status read_vector(myelin_plugin_model *model, const myelin_tensor *source,
                                 float **to, unsigned char **at, myelin_error_buffer *error) {
    int64_t count = source->shape[0];
    *to = (float *)(void *)*at;
    *at += ((size_t)count * sizeof **to + 63) / 64 * 64;
    /* As stored it takes no more room than widened: read to the end of the room, widen forwards. */
    unsigned char *raw = (unsigned char *)*to + (size_t)count * (4 - element_size(source->dtype));
    myelin_status status =
        model->host.read(model->host.self, source, MYELIN_PART_DATA, 0, count, raw, error);
    if (status != MYELIN_OK || source->dtype == MYELIN_DTYPE_F32)
        return status;
    for (int64_t i = 0; i < count; i++)
        (*to)[i] = number_at(raw + 2 * i, source->dtype);
    return status;
}

static uint64_t vector_bytes(const mln_cpu_sizes *s) {
    uint64_t hidden = ((uint64_t)s->hidden * 4 + 63) / 64 * 64;
    uint64_t head = ((uint64_t)s->head_dim * 4 + 63) / 64 * 64;
    return (uint64_t)s->layers * 2 * (hidden + head) + hidden + head;
}

static myelin_status read_vectors(myelin_plugin_model *model, const myelin_weights *source,
                                  unsigned char *at, myelin_error_buffer *error) {
    myelin_status status = read_vector(model, &source->norm, &model->norm, &at, error);
    for (int32_t l = 0; l < source->num_layers && status == MYELIN_OK; l++) {
        const myelin_layer_weights *from = &source->layers[l];
        mln_cpu_layer *to = &model->layers[l];
        const struct {
            const myelin_tensor *source;
            float **target;
        } vectors[] = {{&from->input_layernorm, &to->input_layernorm},
                       {&from->post_attention_layernorm, &to->post_attention_layernorm},
                       {&from->q_norm, &to->q_norm},
                       {&from->k_norm, &to->k_norm}};
        for (int i = 0; i < 4 && status == MYELIN_OK; i++)
            status = read_vector(model, vectors[i].source, vectors[i].target, &at, error);
    }
    model->inv_freq = (float *)(void *)at;
    mln_rope_inv_freq(model->inv_freq, &model->config.rope, model->config.head_dim);
    return status;
}

/* --- the model --- */

/* Panels of two matrices in turns, as they are read: one stream of memory instead of two. */
static void interlace(mln_cpu_matrix *first, mln_cpu_matrix *second) {
    if (first->starts || first->panels != second->panels)
        return;
    first->between = second->panel_bytes;
    second->between = first->panel_bytes;
    second->data = first->data + first->panel_bytes;
}

/* Room for what has a known size; packed panels share what is behind. */
static void place(load_job *job) {
    uint64_t *starts = job->starts, used = 0;
    for (int64_t i = 0; i < job->num_matrices; i++) {
        mln_cpu_matrix *m = job->matrices[i].target;
        if (m->kind == MLN_CPU_BF16P) {
            m->data = job->region->base;
            m->starts = starts;
            starts += m->panels;
        } else {
            m->data = job->region->base + used;
            used += (uint64_t)(m->panels * m->panel_bytes);
            if (job->matrices[i].in_turns)
                interlace(job->matrices[i - 1].target, m);
        }
    }
    atomic_store(&job->used, used);
}

/* Finds room for all matrices and `more` bytes behind them, and reads the matrices. */
static myelin_status read_matrices(load_job *job, uint64_t more) {
    uint64_t total;
    myelin_error error = {0};
    if (!mln_add(job->bytes, more, &total)) {
        mln_fail_memory(&error, UINT64_MAX, "the weights");
        return mln_cpu_fail(job->error, &error);
    }
    if (job->packed_panels > 0) {
        job->starts = mln_calloc((size_t)job->packed_panels, sizeof *job->starts);
        if (!job->starts)
            mln_fail_memory(&error, (uint64_t)job->packed_panels * 8, "the table of panels");
    }
    if (error.status == MYELIN_OK && mln_memory_check(total, "the weights", &error) == MYELIN_OK)
        mln_region_map(job->region, total, "the weights", &error);
    if (error.status != MYELIN_OK)
        return mln_cpu_fail(job->error, &error);
    place(job);
    job->model->host.parallel_for(job->model->host.self, job->num_pieces, load_piece, job);
    return (myelin_status)atomic_load(&job->status);
}

static uint64_t bits_of(const myelin_tensor *t) {
    return t->dtype == MYELIN_DTYPE_BF16 ? 16 : (uint64_t)t->bits;
}

static uint64_t bytes_if(const myelin_tensor *t, int32_t dtype) {
    return t->dtype == dtype ? (uint64_t)t->shape[0] * (uint64_t)t->shape[1] / 8 * bits_of(t) : 0;
}

/* Of one type; like all bytes of a description that exists, it fits 64 bits. */
static uint64_t bytes_of_type(const myelin_weights *source, bool tied, int32_t dtype) {
    uint64_t bytes = bytes_if(&source->embed_tokens, dtype);
    bytes += tied ? 0 : bytes_if(&source->lm_head, dtype);
    for (int32_t l = 0; l < source->num_layers; l++) {
        const myelin_layer_weights *from = &source->layers[l];
        bytes += bytes_if(&from->q_proj, dtype) + bytes_if(&from->k_proj, dtype) +
                 bytes_if(&from->v_proj, dtype) + bytes_if(&from->o_proj, dtype) +
                 bytes_if(&from->gate_proj, dtype) + bytes_if(&from->up_proj, dtype) +
                 bytes_if(&from->down_proj, dtype);
    }
    return bytes;
}

/* Reads the first panels of a matrix, with `packs` packed as well, and times them. */
static myelin_status try_panels(load_job *job, const myelin_tensor *source, bool packs) {
    mln_region region = {0};
    mln_cpu_matrix targets[2];
    plan_matrix plan[2];
    load_job trial = {
        .model = job->model, .region = &region, .matrices = plan, .error = job->error};
    int64_t columns = source->shape[1] > 0 ? source->shape[1] : 1;
    int64_t bytes = (int64_t)TRIAL_BYTES * mln_team_size(job->model->team);
    int64_t rows =
        (bytes < TRIAL_MOST ? bytes : TRIAL_MOST) * 8 / (int64_t)bits_of(source) / columns;
    rows = rows < MLN_CPU_PANEL ? MLN_CPU_PANEL : rows;
    rows = rows < source->shape[0] ? rows : source->shape[0];
    bool fits = add_rows(&trial, source, rows, &targets[0]);
    trial.lossless = true;
    if (packs)
        fits = add_rows(&trial, source, rows, &targets[1]) && fits;
    myelin_status status = fits ? read_matrices(&trial, 0) : MYELIN_OK;
    if (fits && status == MYELIN_OK) {
        mln_cpu_trial found = mln_cpu_try(job->model->team, job->model->kernels, &targets[0],
                                          packs ? &targets[1] : NULL);
        job->close = found.close;
        job->close_kind = targets[0].kind;
        job->lossless = found.packed >= PACKING_GAIN;
    }
    mln_region_unmap(&region);
    free(trial.starts);
    return status;
}

/*
 * Whether weights are packed, and how they are fetched if not. Nothing is to be gained where the
 * caches hold the weights, or most are of another type than those that are tried.
 */
static myelin_status decide_form(load_job *job, const myelin_weights *source, int32_t wish) {
    bool tied = job->model->config.tie_word_embeddings != 0;
    job->lossless = wish == MYELIN_PACK_LOSSLESS;
    const myelin_tensor *tried = &source->embed_tokens;
    if (tried->dtype != MYELIN_DTYPE_BF16 && tried->dtype != MYELIN_DTYPE_AFFINE)
        tried = &source->layers[0].gate_proj;
    bool codes = tried->dtype == MYELIN_DTYPE_AFFINE;
    if ((!codes && (job->lossless || tried->dtype != MYELIN_DTYPE_BF16)) ||
        bytes_of_type(source, tied, tried->dtype) < TRIAL_LEAST)
        return MYELIN_OK;
    return try_panels(job, tried, !codes && wish == MYELIN_PACK_AUTO);
}

static myelin_status read_weights(load_job *job, const myelin_weights *source) {
    myelin_plugin_model *model = job->model;
    uint64_t vectors = vector_bytes(&model->sizes);
    if (!lay_out(job, source)) {
        myelin_error error = {0};
        mln_fail_memory(&error, UINT64_MAX, "the weights");
        return mln_cpu_fail(job->error, &error);
    }
    model->activations = activations_found(job);
    myelin_status status = read_matrices(job, vectors);
    model->starts = job->starts;
    uint64_t used = atomic_load(&job->used);
    if (status == MYELIN_OK)
        status = read_vectors(model, source, model->region.base + used, job->error);
    if (status == MYELIN_OK)
        mln_region_trim(&model->region, used + vectors);
    if (model->config.tie_word_embeddings)
        model->lm_head = model->embed_tokens;
    return status;
}

mln_cpu_cell mln_cpu_cell_of(const myelin_config *config) {
    switch (config->cache_type) {
    case MYELIN_CACHE_F32:
        return MLN_CPU_CELL_F32;
    case MYELIN_CACHE_F16:
        return MLN_CPU_CELL_F16;
    case MYELIN_CACHE_INT8:
        return MLN_CPU_CELL_I8;
    default:
        return config->torch_dtype == MYELIN_DTYPE_F32 ? MLN_CPU_CELL_F32 : MLN_CPU_CELL_F16;
    }
}

static myelin_status load(myelin_plugin_model *model, const myelin_model_description *description,
                          myelin_error_buffer *buffer) {
    myelin_error error = {0};
    const myelin_weights *source = description->weights;
    size_t layers = (size_t)source->num_layers;
    if (mln_team_create(&model->team, model->host.num_threads, &error) != MYELIN_OK)
        return mln_cpu_fail(buffer, &error);
    load_job job = {.model = model, .region = &model->region, .error = buffer};
    model->layers = mln_calloc(layers, sizeof *model->layers);
    job.matrices = mln_calloc(layers * MATRICES_A_LAYER + 2, sizeof *job.matrices);
    myelin_status status = MYELIN_OK;
    if (!model->layers || !job.matrices) {
        mln_fail_memory(&error, layers * sizeof *model->layers, "the layers");
        status = mln_cpu_fail(buffer, &error);
    }
    if (status == MYELIN_OK)
        status = decide_form(&job, source, description->pack);
    if (status == MYELIN_OK)
        status = read_weights(&job, source);
    if (status == MYELIN_OK && description->shortlist &&
        mln_cpu_make_shortlist(model, &error) != MYELIN_OK)
        status = mln_cpu_fail(buffer, &error);
    free(job.matrices);
    return status;
}

myelin_status mln_cpu_load(const myelin_model_description *description, const myelin_host *host,
                           const mln_cpu_kernels *kernels, myelin_plugin_model **out,
                           myelin_error_buffer *error) {
    *out = NULL;
    myelin_plugin_model *model = mln_calloc(1, sizeof *model);
    if (!model) {
        myelin_error reason = {0};
        mln_fail_memory(&reason, sizeof *model, "a model");
        return mln_cpu_fail(error, &reason);
    }
    model->config = *description->config;
    model->sizes = mln_cpu_sizes_of(&model->config);
    model->host = *host;
    model->fusion = description->fusion;
    model->cell = mln_cpu_cell_of(description->config);
    model->kernels = kernels;
    model->activations = (myelin_activations)description->activations;
    model->shortlisted = description->shortlist != 0;
    myelin_status status = load(model, description, error);
    if (status != MYELIN_OK) {
        mln_cpu_free_model(model);
        return status;
    }
    *out = model;
    return MYELIN_OK;
}

void mln_cpu_free_model(myelin_plugin_model *model) {
    if (!model)
        return;
    mln_team_free(model->team);
    mln_region_unmap(&model->region);
    mln_region_unmap(&model->shortlist.region);
    free(model->layers);
    free(model->starts);
    free(model);
}

uint64_t mln_cpu_weight_bytes(const myelin_plugin_model *model, int32_t *pack) {
    *pack = model->starts ? MYELIN_PACK_LOSSLESS : MYELIN_PACK_NONE;
    return model->region.size;
}

/* --- one row --- */

static void affine_row(float *out, const mln_cpu_matrix *m, const unsigned char *panel,
                       int64_t row) {
    size_t element = element_size(m->scale_dtype), scale_bytes = MLN_CPU_PANEL * element;
    int64_t tile = row / 16, lane = row % 16;
    for (int64_t g = 0; g < m->columns / m->group; g++) {
        float scale = number_at(panel + (size_t)row * element, m->scale_dtype);
        float bias = number_at(panel + scale_bytes + (size_t)row * element, m->scale_dtype);
        panel += 2 * scale_bytes;
        for (int32_t i = 0; i < m->group; i++, out++) {
            int code;
            if (m->kind == MLN_CPU_Q4)
                code = panel[i / 4 * 64 + 4 * lane + i % 4] >> 4 * tile & 15;
            else
                code = panel[i / 4 * 128 + 64 * tile + 4 * lane + i % 4];
            *out = scale * (float)code + bias;
        }
        panel += (m->kind == MLN_CPU_Q4 ? 16 : 32) * m->group;
    }
}

void mln_cpu_matrix_row(float *out, const mln_cpu_matrix *m, int64_t row) {
    const unsigned char *panel = mln_cpu_panel_at(m, row / MLN_CPU_PANEL);
    const uint16_t *halves = (const uint16_t *)(const void *)panel;
    row %= MLN_CPU_PANEL;
    switch (m->kind) {
    case MLN_CPU_F32:
        for (int64_t c = 0; c < m->columns; c++)
            out[c] = ((const float *)(const void *)panel)[c * MLN_CPU_PANEL + row];
        return;
    case MLN_CPU_F16:
        for (int64_t c = 0; c < m->columns; c++)
            out[c] = half_to_float(halves[c * MLN_CPU_PANEL + row]);
        return;
    case MLN_CPU_BF16:
        for (int64_t c = 0; c < m->columns; c++)
            out[c] = bfloat_to_float(halves[(c / 2 * MLN_CPU_PANEL + row) * 2 + c % 2]);
        return;
    case MLN_CPU_BF16P:
        mln_cpu_packed_row(out, panel, m->columns, row);
        return;
    default:
        affine_row(out, m, panel, row);
    }
}
