/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A complete Myelin plug-in: any dense Qwen3 model, in float32, from weights of any dtype. It is
 * not linked with libmyelin. docs/PLUGINS.md explains the contract, docs/MODEL.md the formulas.
 */
#include <math.h>
#include <myelin/plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LANES = 8,       /* partial sums of a dot product */
    COLUMNS = 512,   /* of a weight, widened at once; a multiple of every group size */
    PIECE_ROWS = 16, /* rows of a weight that one call of linear_piece() does */
    LAYER_TENSORS = sizeof(myelin_layer_weights) / sizeof(myelin_tensor) /* it is nothing else */
};

struct myelin_plugin_model {
    myelin_config config;
    myelin_host host;             /* copied; valid until free_model() returns */
    myelin_weights weights;       /* as described to load(), now with data */
    myelin_layer_weights *layers; /* weights.layers, for writing */
    float inv_freq[];             /* [D / 2] */
};

struct myelin_plugin_sequence {
    const myelin_plugin_model *model;
    int32_t capacity, length; /* positions there is room for, positions filled */
    float cache[];            /* [layers, 2 (keys, values), capacity, K] */
};

typedef struct place { /* of one row of a forward() */
    myelin_plugin_sequence *sequence;
    int64_t position;
} place;

/* Arrays with a row for each of T = max_tokens tokens; a forward() uses the first ones. */
struct myelin_plugin_context {
    const myelin_plugin_model *model;
    int64_t layer;       /* the one being computed */
    float *x, *normed;   /* [T, H]: the residual stream; its norm, later what a block adds to it */
    float *q, *attended; /* [T, Q] */
    float *k, *v;        /* [T, K] */
    float *gate, *up;    /* [T, I] */
    place places[];      /* [T], and after it the arrays above */
};

/* Zeros, or NULL and the reason. */
static void *allocate(uint64_t bytes, myelin_error_buffer *error) {
    void *memory = calloc(1, bytes);
    if (!memory)
        snprintf(error->text, error->size, "no room for %llu bytes", (unsigned long long)bytes);
    return memory;
}

static int64_t q_width(const myelin_config *config) {
    return (int64_t)config->num_attention_heads * config->head_dim;
}

static int64_t kv_width(const myelin_config *config) {
    return (int64_t)config->num_key_value_heads * config->head_dim;
}

/* --- tensors: docs/TENSORS.md draws what is read here --- */

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Element `index` of a dense array. */
static float element(const void *array, int32_t dtype, int64_t index) {
    if (dtype == MYELIN_DTYPE_F32)
        return ((const float *)array)[index];
    uint32_t bits = ((const uint16_t *)array)[index];
    if (dtype == MYELIN_DTYPE_BF16)
        return float_of(bits << 16);
    uint32_t sign = (bits & 0x8000) << 16, magnitude = (bits & 0x7fff) << 13;
    if (magnitude >= 0x7c00u << 13) /* infinity or NaN */
        return float_of(sign | magnitude | 0x7f800000);
    return float_of(sign | magnitude) * 0x1p112f; /* exponent biases: 15 here, 127 there */
}

/* Columns [column, column + count) of one row of an AFFINE matrix; both are whole groups. */
static void widen_affine(float *out, const myelin_tensor *t, int64_t row, int64_t column,
                         int64_t count) {
    int64_t per_word = 32 / t->bits; /* values of a word, the lowest bits first */
    uint32_t mask = (1u << t->bits) - 1;
    for (int64_t done = 0; done < count; done += t->group_size) {
        int64_t first = row * t->shape[1] + column + done; /* element of the whole matrix */
        const uint32_t *words = (const uint32_t *)t->data + first / per_word;
        float scale = element(t->scales, t->scale_dtype, first / t->group_size);
        float bias = element(t->biases, t->scale_dtype, first / t->group_size);
        for (int64_t i = 0; i < t->group_size; i++) {
            uint32_t q = words[i / per_word] >> (i % per_word * t->bits) & mask;
            out[done + i] = scale * (float)q + bias;
        }
    }
}

/* Columns [column, column + count) of one row as float32. */
static void widen(float *out, const myelin_tensor *t, int64_t row, int64_t column, int64_t count) {
    if (t->dtype == MYELIN_DTYPE_AFFINE)
        widen_affine(out, t, row, column, count);
    else
        for (int64_t i = 0; i < count; i++)
            out[i] = element(t->data, t->dtype, row * t->stride[0] + column + i);
}

/* --- operations --- */

/*
 * Each sum below has one order that depends on nothing but the row itself: that is what makes the
 * logits the same however the tokens are cut into calls, batched, or spread over threads.
 */
static float dot(const float *a, const float *b, int64_t count) {
    float s[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int l = 0; l < LANES; l++)
            s[l] += a[i + l] * b[i + l];
    for (int l = 0; i + l < count; l++)
        s[l] += a[i + l] * b[i + l];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

typedef struct linear_job {
    float *out;     /* [tokens, rows of the weight] */
    const float *x; /* [tokens, columns of the weight] */
    const myelin_tensor *weight;
    int64_t tokens;
} linear_job;

/* Some rows of the weight with every token: the stretches of each sum are added in their order. */
static void linear_piece(void *context, int64_t index) {
    const linear_job *job = context;
    int64_t n = job->weight->shape[0], k = job->weight->shape[1];
    float w[COLUMNS];
    for (int64_t row = index * PIECE_ROWS; row < n && row < (index + 1) * PIECE_ROWS; row++)
        for (int64_t column = 0; column < k; column += COLUMNS) {
            int64_t count = k - column < COLUMNS ? k - column : COLUMNS;
            widen(w, job->weight, row, column, count);
            for (int64_t t = 0; t < job->tokens; t++) {
                float before = column > 0 ? job->out[t * n + row] : 0;
                job->out[t * n + row] = before + dot(w, job->x + t * k + column, count);
            }
        }
}

/* out[t] = weight * x[t], the rows of the weight spread over the host's threads. */
static void linear(const myelin_plugin_model *model, float *out, const float *x,
                   const myelin_tensor *weight, int64_t tokens) {
    linear_job job = {out, x, weight, tokens};
    int64_t pieces = (weight->shape[0] + PIECE_ROWS - 1) / PIECE_ROWS;
    model->host.parallel_for(model->host.self, pieces, linear_piece, &job);
}

/* Each row of n numbers by itself; out may be x. */
static void rms_norm(float *out, const float *x, const myelin_tensor *weight, int64_t rows,
                     double eps) {
    int64_t n = weight->shape[0];
    for (int64_t r = 0; r < rows; r++, x += n, out += n) {
        float scale = 1.0f / sqrtf(dot(x, x, n) / (float)n + (float)eps);
        for (int64_t i = 0; i < n; i++)
            out[i] = element(weight->data, weight->dtype, i) * (x[i] * scale);
    }
}

/* "Rotate half": numbers i and i + D/2 of each head are a pair. x is [rows, heads, D]. */
static void rope(const myelin_plugin_context *c, float *x, int64_t rows, int64_t heads) {
    int64_t half = c->model->config.head_dim / 2;
    float scale = (float)c->model->config.rope.attention_factor;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)c->places[r].position * c->model->inv_freq[i];
            float cos = cosf(angle) * scale, sin = sinf(angle) * scale;
            float *low = x + r * heads * 2 * half + i;
            for (int64_t h = 0; h < heads; h++, low += 2 * half) {
                float a = low[0], b = low[half];
                low[0] = a * cos - b * sin;
                low[half] = b * cos + a * sin;
            }
        }
}

/* Where layer `layer`'s keys (part 0) or values (part 1) of a position lie: [K] */
static float *cached(myelin_plugin_sequence *s, int64_t layer, int64_t part, int64_t position) {
    return s->cache + ((2 * layer + part) * s->capacity + position) * kv_width(&s->model->config);
}

/* One head of one token; the softmax is made on the way: out shrinks when a larger score comes. */
static void attention_piece(void *context, int64_t index) {
    const myelin_plugin_context *c = context;
    const myelin_config *config = &c->model->config;
    int64_t heads = config->num_attention_heads, dim = config->head_dim;
    int64_t kv_offset = index % heads / (heads / config->num_key_value_heads) * dim;
    const place *at = &c->places[index / heads];
    const float *q = c->q + index * dim;
    float *out = c->attended + index * dim;
    float largest = -INFINITY, sum = 0, scale = 1.0f / sqrtf((float)dim);
    memset(out, 0, (size_t)dim * sizeof *out);
    for (int64_t p = 0; p <= at->position; p++) {
        const float *value = cached(at->sequence, c->layer, 1, p) + kv_offset;
        float score = scale * dot(q, cached(at->sequence, c->layer, 0, p) + kv_offset, dim);
        float keep = score > largest ? expf(largest - score) : 1.0f;
        largest = score > largest ? score : largest;
        float weight = expf(score - largest);
        sum = sum * keep + weight;
        for (int64_t i = 0; i < dim; i++)
            out[i] = out[i] * keep + weight * value[i];
    }
    for (int64_t i = 0; i < dim; i++)
        out[i] /= sum;
}

/* --- the forward pass --- */

/* x += normed, where a block has left its result. */
static void add_normed(const myelin_plugin_context *c, int64_t rows) {
    for (int64_t i = 0; i < rows * c->model->config.hidden_size; i++)
        c->x[i] += c->normed[i];
}

/* Appends the rows' keys and values, at positions that do not count as filled yet. */
static void store(const myelin_plugin_context *c, int64_t rows) {
    int64_t width = kv_width(&c->model->config);
    for (int64_t r = 0; r < rows; r++)
        for (int part = 0; part < 2; part++)
            memcpy(cached(c->places[r].sequence, c->layer, part, c->places[r].position),
                   (part ? c->v : c->k) + r * width, (size_t)width * sizeof(float));
}

/* x += o_proj(attention(...)) */
static void attention_block(myelin_plugin_context *c, int64_t rows) {
    const myelin_plugin_model *m = c->model;
    const myelin_layer_weights *w = &m->layers[c->layer];
    int64_t heads = m->config.num_attention_heads, kv_heads = m->config.num_key_value_heads;
    double eps = m->config.rms_norm_eps;
    rms_norm(c->normed, c->x, &w->input_layernorm, rows, eps);
    linear(m, c->q, c->normed, &w->q_proj, rows);
    linear(m, c->k, c->normed, &w->k_proj, rows);
    linear(m, c->v, c->normed, &w->v_proj, rows);
    rms_norm(c->q, c->q, &w->q_norm, rows * heads, eps); /* over each head's D numbers */
    rms_norm(c->k, c->k, &w->k_norm, rows * kv_heads, eps);
    rope(c, c->q, rows, heads);
    rope(c, c->k, rows, kv_heads);
    store(c, rows);
    m->host.parallel_for(m->host.self, rows * heads, attention_piece, c);
    linear(m, c->normed, c->attended, &w->o_proj, rows);
    add_normed(c, rows);
}

/* x += down_proj(silu(gate_proj(n)) * up_proj(n)), n being the norm of x */
static void mlp_block(myelin_plugin_context *c, int64_t rows) {
    const myelin_plugin_model *m = c->model;
    const myelin_layer_weights *w = &m->layers[c->layer];
    rms_norm(c->normed, c->x, &w->post_attention_layernorm, rows, m->config.rms_norm_eps);
    linear(m, c->gate, c->normed, &w->gate_proj, rows);
    linear(m, c->up, c->normed, &w->up_proj, rows);
    for (int64_t i = 0; i < rows * m->config.intermediate_size; i++)
        c->gate[i] = c->gate[i] / (1.0f + expf(-c->gate[i])) * c->up[i];
    linear(m, c->normed, c->gate, &w->down_proj, rows);
    add_normed(c, rows);
}

/*
 * A row for each token, spans in order. Nothing here can fail; where something can (a device, say),
 * lengths change after the last step that may: a failing call leaves every sequence as it was.
 */
static myelin_status forward(myelin_plugin_context *c, const myelin_span *spans, int32_t num_spans,
                             myelin_error_buffer *error) {
    const myelin_plugin_model *m = c->model;
    int64_t hidden = m->config.hidden_size, rows = 0, end = 0;
    (void)error;
    for (int32_t s = 0; s < num_spans; s++)
        for (int32_t t = 0; t < spans[s].count; t++, rows++) {
            c->places[rows] = (place){spans[s].sequence, spans[s].sequence->length + t};
            widen(c->x + rows * hidden, &m->weights.embed_tokens, spans[s].ids[t], 0, hidden);
        }
    for (c->layer = 0; c->layer < m->weights.num_layers; c->layer++) {
        attention_block(c, rows);
        mlp_block(c, rows);
    }
    rms_norm(c->normed, c->x, &m->weights.norm, rows, m->config.rms_norm_eps);
    for (int32_t s = 0; s < num_spans; s++) {
        int32_t wanted = spans[s].num_logits;
        end += spans[s].count;
        if (wanted > 0)
            linear(m, spans[s].logits, c->normed + (end - wanted) * hidden, &m->weights.lm_head,
                   wanted);
        spans[s].sequence->length += spans[s].count;
    }
    return MYELIN_OK;
}

/* --- contexts and sequences --- */

static uint64_t context_bytes(const myelin_config *config, int32_t max_tokens, int32_t max_len) {
    int64_t width =
        2 * (config->hidden_size + q_width(config) + kv_width(config) + config->intermediate_size);
    (void)max_len; /* attention keeps no scores */
    return sizeof(myelin_plugin_context) +
           (uint64_t)max_tokens * (sizeof(place) + (uint64_t)width * sizeof(float));
}

static myelin_status create_context(const myelin_plugin_model *model, int32_t max_tokens,
                                    int32_t max_len, myelin_plugin_context **context,
                                    myelin_error_buffer *error) {
    const myelin_config *config = &model->config;
    myelin_plugin_context *c = allocate(context_bytes(config, max_tokens, max_len), error);
    if (!c)
        return MYELIN_ERROR_MEMORY;
    c->model = model;
    c->x = (float *)(void *)(c->places + max_tokens);
    c->normed = c->x + (int64_t)max_tokens * config->hidden_size;
    c->q = c->normed + (int64_t)max_tokens * config->hidden_size;
    c->attended = c->q + max_tokens * q_width(config);
    c->k = c->attended + max_tokens * q_width(config);
    c->v = c->k + max_tokens * kv_width(config);
    c->gate = c->v + max_tokens * kv_width(config);
    c->up = c->gate + (int64_t)max_tokens * config->intermediate_size;
    *context = c;
    return MYELIN_OK;
}

static void free_context(myelin_plugin_context *context) {
    free(context);
}

static uint64_t sequence_bytes(const myelin_config *config, int32_t max_len) {
    uint64_t each = 2 * sizeof(float) * (uint64_t)(config->num_hidden_layers * kv_width(config));
    if ((uint64_t)max_len > INT64_MAX / each) /* a config may say anything */
        return UINT64_MAX;
    return sizeof(myelin_plugin_sequence) + (uint64_t)max_len * each;
}

static myelin_status create_sequence(const myelin_plugin_model *model, int32_t max_len,
                                     myelin_plugin_sequence **out, myelin_error_buffer *error) {
    *out = allocate(sequence_bytes(&model->config, max_len), error);
    if (!*out)
        return MYELIN_ERROR_MEMORY;
    (*out)->model = model;
    (*out)->capacity = max_len;
    return MYELIN_OK;
}

static void free_sequence(myelin_plugin_sequence *sequence) {
    free(sequence);
}

static int32_t sequence_length(const myelin_plugin_sequence *sequence) {
    return sequence->length;
}

static void truncate_sequence(myelin_plugin_sequence *sequence, int32_t length) {
    sequence->length = length; /* what lies beyond is written again before it is read */
}

/* --- models --- */

/* The (fractional) dimension that turns `rotations` times over the original context. */
static double yarn_dimension(const myelin_rope_config *rope, double rotations, int32_t dim) {
    double length = (double)rope->original_max_position_embeddings;
    return dim * log(length / (rotations * 2 * 3.14159265358979323846)) / (2 * log(rope->theta));
}

/* theta^(-2i/D); YaRN divides it by `factor` where the turns are slow, and mixes in between. */
static float inv_freq_of(const myelin_rope_config *rope, int32_t dim, int32_t i) {
    float length = (float)pow((float)rope->theta, (float)(2 * i) / (float)dim);
    if (rope->type != MYELIN_ROPE_YARN)
        return 1.0f / length;
    double low = yarn_dimension(rope, rope->beta_fast, dim);
    double high = yarn_dimension(rope, rope->beta_slow, dim);
    low = fmax(rope->truncate ? floor(low) : low, 0);
    high = fmin(rope->truncate ? ceil(high) : high, dim - 1);
    float width = low == high ? 0.001f : (float)(high - low);
    float slow = fminf(fmaxf(((float)i - (float)low) / width, 0), 1);
    return slow / ((float)rope->factor * length) + (1.0f - slow) / length;
}

static uint64_t row_bytes(const myelin_tensor *t, myelin_tensor_part part) {
    int is_affine = t->dtype == MYELIN_DTYPE_AFFINE;
    uint64_t columns = t->rank > 1 ? (uint64_t)t->shape[1] : 1;
    uint64_t size = (is_affine ? t->scale_dtype : t->dtype) == MYELIN_DTYPE_F32 ? 4 : 2;
    if (is_affine && part == MYELIN_PART_DATA)
        return columns * (uint64_t)t->bits / 8;
    return is_affine ? columns / (uint64_t)t->group_size * size : columns * size;
}

/* `from` is the host's description, which read() knows by its address; `to` is ours. */
static myelin_status load_tensor(const myelin_host *host, const myelin_tensor *from,
                                 myelin_tensor *to, myelin_error_buffer *error) {
    *to = *from;
    void **const arrays[] = {&to->data, &to->scales, &to->biases};
    int num_parts = from->dtype == MYELIN_DTYPE_AFFINE ? 3 : 1;
    myelin_status status = MYELIN_OK;
    for (int i = 0; i < num_parts && status == MYELIN_OK; i++) {
        myelin_tensor_part part = (myelin_tensor_part)i;
        *arrays[i] = allocate((uint64_t)from->shape[0] * row_bytes(from, part), error);
        if (!*arrays[i])
            return MYELIN_ERROR_MEMORY;
        status = host->read(host->self, from, part, 0, from->shape[0], *arrays[i], error);
    }
    return status; /* where read() has failed, the host has written the reason */
}

static myelin_status load_weights(myelin_plugin_model *m, const myelin_weights *from,
                                  myelin_error_buffer *error) {
    myelin_weights *to = &m->weights;
    m->layers = allocate((uint64_t)from->num_layers * sizeof *m->layers, error);
    if (!m->layers)
        return MYELIN_ERROR_MEMORY;
    to->layers = m->layers;
    to->num_layers = from->num_layers;
    myelin_status status = load_tensor(&m->host, &from->embed_tokens, &to->embed_tokens, error);
    for (int64_t i = 0; status == MYELIN_OK && i < from->num_layers * LAYER_TENSORS; i++)
        status = load_tensor(&m->host, (const myelin_tensor *)from->layers + i,
                             (myelin_tensor *)m->layers + i, error);
    if (status == MYELIN_OK)
        status = load_tensor(&m->host, &from->norm, &to->norm, error);
    if (status == MYELIN_OK && !m->config.tie_word_embeddings)
        status = load_tensor(&m->host, &from->lm_head, &to->lm_head, error);
    if (m->config.tie_word_embeddings)
        to->lm_head = to->embed_tokens; /* one table, never held twice */
    return status;
}

static void free_tensor(const myelin_tensor *t) {
    free(t->data);
    free(t->scales);
    free(t->biases);
}

static void free_model(myelin_plugin_model *m) {
    if (!m)
        return;
    for (int64_t i = 0; i < m->weights.num_layers * LAYER_TENSORS; i++)
        free_tensor((const myelin_tensor *)m->layers + i);
    if (!m->config.tie_word_embeddings)
        free_tensor(&m->weights.lm_head);
    free_tensor(&m->weights.embed_tokens);
    free_tensor(&m->weights.norm);
    free(m->layers);
    free(m);
}

static myelin_status load(const myelin_model_description *description, const myelin_host *host,
                          myelin_plugin_model **model, myelin_error_buffer *error) {
    size_t half = (size_t)description->config->head_dim / 2;
    myelin_plugin_model *m = allocate(sizeof *m + half * sizeof(float), error);
    if (!m)
        return MYELIN_ERROR_MEMORY;
    m->config = *description->config;
    m->host = *host;
    for (int32_t i = 0; i < m->config.head_dim / 2; i++)
        m->inv_freq[i] = inv_freq_of(&m->config.rope, m->config.head_dim, i);
    myelin_status status = load_weights(m, description->weights, error);
    if (status == MYELIN_OK)
        *model = m;
    else
        free_model(m); /* the host frees only what it was given */
    return status;
}

/* Says no to what would be computed wrongly, before any weight is read. */
static myelin_status probe(const myelin_model_description *description,
                           myelin_error_buffer *error) {
    int type = description->config->rope.type;
    if (description->tensor_parallel > 1) {
        snprintf(error->text, error->size, "a model cannot be spread over several devices here");
        return MYELIN_ERROR_UNSUPPORTED;
    }
    if (type == MYELIN_ROPE_DEFAULT || type == MYELIN_ROPE_YARN)
        return MYELIN_OK;
    snprintf(error->text, error->size, "rotary embeddings of type %d are not known here", type);
    return MYELIN_ERROR_UNSUPPORTED;
}

static const myelin_plugin table = {
    .magic = MYELIN_PLUGIN_MAGIC,
    .abi_version = MYELIN_PLUGIN_ABI_VERSION,
    .struct_size = sizeof(myelin_plugin),
    .max_fusion = MYELIN_FUSION_COMPOSED,
    .name = "example",
    .probe = probe,
    .load = load,
    .free_model = free_model,
    .sequence_bytes = sequence_bytes,
    .create_sequence = create_sequence,
    .free_sequence = free_sequence,
    .sequence_length = sequence_length,
    .truncate_sequence = truncate_sequence,
    .context_bytes = context_bytes,
    .create_context = create_context,
    .free_context = free_context,
    .forward = forward, /* and no decode_greedy: the host then picks each token itself */
};

/* The one symbol that is exported. */
MYELIN_API const myelin_plugin *myelin_plugin_v1(void) {
    return &table;
}
