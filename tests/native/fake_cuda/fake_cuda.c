/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_cuda.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "qwen3_cuda/cuda_kernels.h"
#include "qwen3_cuda/link.h"
#include "qwen3_cuda/persist.h"
#include "qwen3_cuda/sample.h"

enum { MOST_PICKS = 8, MOST_PINNED = 64 };
enum { MOST_SHARED = 1 << 14 };   /* of a device, in all */
enum { QUEUE = 12 };              /* of it that may be under way, unless told otherwise */
enum { PATIENCE_S = 20 };         /* then whoever waits would do so for ever */
enum { INLINE_BYTES = 64 << 10 }; /* that are read at once wherever they lie */
#define TOTAL_BYTES ((size_t)8 << 30)

/* A launch that chooses tokens: all that a graph has to remember. */
typedef struct pick {
    mln_cuda_row *rows;
    int32_t *out_ids;
    const int32_t *steps;
    int32_t first, count;
} pick;

/* What devices do together: it is done when all have come to it. */
typedef enum shared_work { EXCHANGE, GATHER } shared_work;
typedef struct device_work {
    uint64_t given, done; /* so far */
    shared_work kinds[MOST_SHARED];
    _Atomic int32_t *stop; /* ends exchanges when it is not 0 */
    bool aborted;          /* gathers end */
} device_work;

struct fake_stream {
    struct fake_graph *recorded; /* while it captures */
    int device;
    uint64_t given; /* shared work of the device up to the last of this stream */
};
struct fake_event {
    int device;
    uint64_t given;
};
struct fake_graph {
    pick picks[MOST_PICKS];
    int count;
    shared_work kinds[MOST_SHARED / 16];
    int shared;
};

/* Before device memory: its size and a mark. */
typedef struct block {
    size_t bytes;
    uint64_t mark;
} block;
#define MARK UINT64_C(0x6661b5e5a1104ce5)

bool fake_full;
fake_device fake;
static atomic_int graphs;                                /* that can be launched */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards fake and what follows */
static device_work work[FAKE_DEVICES];
static struct {
    const char *memory;
    size_t bytes;
} pinned[MOST_PINNED];
static uint64_t of_name;          /* calls that fake.only names */
static _Thread_local int current; /* device */

void fake_reset(void) {
    fake = (fake_device){.devices = 1, .available = TOTAL_BYTES, .live = fake.live, .queue = QUEUE};
    memset(work, 0, sizeof work);
    of_name = 0;
}

/* Whether the device of this thread is gone; with the lock held. */
static bool is_gone(void) {
    return fake.for_good && fake.failed && (!fake.alone || fake.broken == current);
}

static cudaError_t call(const char *name) {
    pthread_mutex_lock(&lock);
    fake.calls++;
    uint64_t number = fake.calls;
    if (fake.only)
        number = strcmp(name, fake.only) == 0 ? ++of_name : 0;
    bool fails = fake.failing > 0 && number == fake.failing;
    if (fails) {
        fake.failed = name;
        fake.broken = current;
    }
    fails = fails || is_gone();
    pthread_mutex_unlock(&lock);
    return fails ? fake.code : cudaSuccess;
}

/* Whether the device never ends what it was given, since a call has failed. */
static bool is_stuck(void) {
    pthread_mutex_lock(&lock);
    bool stuck = fake.stuck && fake.failed;
    pthread_mutex_unlock(&lock);
    return stuck;
}

/* What frees does so even when it says that the device is gone. */
static cudaError_t freeing(void) {
    pthread_mutex_lock(&lock);
    bool gone = is_gone();
    pthread_mutex_unlock(&lock);
    return gone ? fake.code : cudaSuccess;
}

/* Adds to what is live and to the memory there is; false, and nothing is added, without memory. */
static bool add(int live, size_t taken, size_t given) {
    pthread_mutex_lock(&lock);
    bool enough = taken <= fake.available;
    if (enough) {
        fake.live += live;
        fake.available = fake.available - taken + given;
    }
    pthread_mutex_unlock(&lock);
    return enough;
}

static void *make(size_t bytes) {
    add(1, 0, 0);
    return calloc(1, bytes ? bytes : 1);
}

static void unmake(void *object) {
    if (object)
        add(-1, 0, 0);
    free(object);
}

/* --- waiting --- */

/* Whether all devices have come to a device's shared work `index`, or need not. */
static bool is_over(const device_work *w, uint64_t index) {
    if (w->kinds[index % MOST_SHARED] == EXCHANGE ? w->stop && atomic_load(w->stop) != 0
                                                  : w->aborted)
        return true;
    for (int d = 0; d < fake.devices; d++)
        if (work[d].given <= index)
            return false;
    return true;
}

/* Shared work of a device that is done, of what it was given. */
static bool has_done(int device, uint64_t given) {
    pthread_mutex_lock(&lock);
    device_work *w = &work[device];
    while (w->done < w->given && is_over(w, w->done))
        w->done++;
    bool done = w->done >= given && !(fake.stuck && fake.failed);
    pthread_mutex_unlock(&lock);
    return done;
}

/* Whoever calls this waits for a device, without being told when another is lost. */
static void wait_for(const char *name, int device, uint64_t given) {
    struct timespec since, now;
    clock_gettime(CLOCK_MONOTONIC, &since);
    while (freeing() == cudaSuccess && !has_done(device, given)) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (is_stuck() || now.tv_sec - since.tv_sec > PATIENCE_S) {
            fprintf(stderr, "fake CUDA: %s waits for ever\n", name);
            abort();
        }
        nanosleep(&(struct timespec){.tv_nsec = 10000}, NULL);
    }
}

static uint64_t all_given(int device) {
    pthread_mutex_lock(&lock);
    uint64_t given = work[device].given;
    pthread_mutex_unlock(&lock);
    return given;
}

static void wait_for_device(const char *name) {
    if (freeing() == cudaSuccess)
        wait_for(name, current, all_given(current));
}

/* Gives a stream shared work, as soon as there is room for it. */
static void give(const char *name, cudaStream_t stream, shared_work kind, _Atomic int32_t *stop) {
    if (stream->recorded) {
        if (stream->recorded->shared == MOST_SHARED / 16)
            abort();
        stream->recorded->kinds[stream->recorded->shared++] = kind;
    } else {
        uint64_t given = all_given(stream->device);
        if (given >= fake.queue)
            wait_for(name, stream->device, given - fake.queue + 1);
    }
    pthread_mutex_lock(&lock);
    device_work *w = &work[stream->device];
    if (stop)
        w->stop = stop;
    if (!stream->recorded) {
        w->kinds[w->given % MOST_SHARED] = kind;
        stream->given = ++w->given;
    }
    pthread_mutex_unlock(&lock);
}

/* --- the device, and errors --- */

cudaError_t cudaGetDeviceCount(int *count) {
    cudaError_t code = call(__func__);
    *count = code == cudaSuccess ? fake.devices : 0;
    return code == cudaSuccess && fake.devices == 0 ? cudaErrorNoDevice : code;
}

cudaError_t cudaGetDevice(int *device) {
    *device = current;
    return call(__func__);
}

cudaError_t cudaSetDevice(int device) {
    current = device;
    return call(__func__);
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) {
    *can = device != peer;
    return call(__func__);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
    (void)peer;
    (void)flags;
    return call(__func__);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    (void)device;
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
    return call(__func__);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    cudaError_t code = call(__func__);
    pthread_mutex_lock(&lock);
    *available = fake.available;
    pthread_mutex_unlock(&lock);
    *total = TOTAL_BYTES;
    return code;
}

cudaError_t cudaGetLastError(void) {
    return freeing();
}

const char *cudaGetErrorString(cudaError_t code) {
    return code == cudaErrorMemoryAllocation ? "out of memory" : "the fake failed";
}

const char *cudaGetErrorName(cudaError_t code) {
    return code == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
           : code == cudaErrorLaunchTimeout  ? "cudaErrorLaunchTimeout"
                                             : "cudaErrorOfTheFake";
}

/* --- memory --- */

cudaError_t cudaMalloc(void **to, size_t bytes) {
    cudaError_t code = call(__func__);
    wait_for_device(__func__);
    if (code == cudaSuccess && !add(0, bytes, 0))
        code = cudaErrorMemoryAllocation;
    if (code != cudaSuccess)
        return code;
    block *b = make(sizeof *b + bytes);
    *b = (block){bytes, MARK};
    *to = b + 1;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory) {
    wait_for_device(__func__);
    if (memory) {
        block *b = (block *)memory - 1;
        if (b->mark != MARK)
            abort();
        add(0, 0, b->bytes);
        unmake(b);
    }
    return freeing();
}

/* Notes that memory is pinned, or is no more. */
static void note_pinned(const void *memory, const void *former, size_t bytes) {
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < MOST_PINNED && pinned[i].memory != former)
        i++;
    if (i == MOST_PINNED)
        abort();
    pinned[i].memory = memory;
    pinned[i].bytes = bytes;
    pthread_mutex_unlock(&lock);
}

static bool is_pinned(const void *memory) {
    bool found = false;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MOST_PINNED && !found; i++)
        found =
            pinned[i].memory && (uintptr_t)memory - (uintptr_t)pinned[i].memory < pinned[i].bytes;
    pthread_mutex_unlock(&lock);
    return found;
}

cudaError_t cudaMallocHost(void **to, size_t bytes) {
    cudaError_t code = call(__func__);
    wait_for_device(__func__);
    if (code != cudaSuccess)
        return code;
    *to = make(bytes);
    note_pinned(*to, NULL, bytes);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory) {
    wait_for_device(__func__);
    if (memory)
        note_pinned(NULL, memory, 0);
    unmake(memory);
    return freeing();
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    cudaError_t code = call(__func__);
    if (code == cudaSuccess)
        memset(to, value, bytes);
    return code;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    if (stream->recorded)
        abort();
    cudaError_t code = call(__func__);
    if (code == cudaSuccess)
        memset(to, value, bytes);
    return code;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    (void)kind;
    cudaError_t code = call(__func__);
    if (code == cudaSuccess)
        memmove(to, from, bytes);
    return code;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    if (stream->recorded)
        abort();
    cudaError_t code = call(__func__);
    if (code != cudaSuccess)
        return code;
    bool small = bytes <= INLINE_BYTES && kind == cudaMemcpyHostToDevice;
    if (!small && kind != cudaMemcpyDeviceToDevice &&
        !is_pinned(kind == cudaMemcpyHostToDevice ? from : to))
        wait_for(__func__, stream->device, stream->given);
    memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream) {
    (void)kind;
    (void)stream;
    cudaError_t code = call(__func__);
    for (size_t i = 0; i < height && code == cudaSuccess; i++)
        memcpy((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width);
    return code;
}

/* --- streams, events and graphs --- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    (void)flags;
    cudaError_t code = call(__func__);
    if (code != cudaSuccess)
        return code;
    *stream = make(sizeof **stream);
    (*stream)->device = current;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    unmake(stream);
    return freeing();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (stream && stream->recorded)
        abort();
    cudaError_t code = call(__func__);
    if (code == cudaSuccess)
        wait_for(__func__, current, stream ? stream->given : 0);
    return code;
}

/* Not counted: asked again and again, and after a failure. */
static cudaError_t query(int device, uint64_t given) {
    cudaError_t code = freeing();
    if (code == cudaSuccess && !has_done(device, given))
        code = cudaErrorNotReady;
    return code;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    return stream ? query(stream->device, stream->given) : query(current, 0);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    return query(event->device, event->given);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    (void)flags;
    cudaError_t code = call(__func__);
    if (code != cudaSuccess)
        return code;
    *event = make(sizeof **event);
    (*event)->device = current;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    unmake(event);
    return freeing();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    if (stream->recorded)
        abort();
    event->given = stream->given;
    return call(__func__);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    (void)event;
    return call(__func__);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    (void)mode;
    cudaError_t code = call(__func__);
    if (code == cudaSuccess)
        stream->recorded = make(sizeof *stream->recorded);
    return code;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    cudaError_t code = call(__func__);
    *graph = stream->recorded;
    stream->recorded = NULL;
    if (code != cudaSuccess) {
        unmake(*graph);
        *graph = NULL;
    }
    return code;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                 unsigned long long flags) {
    (void)flags;
    cudaError_t code = call(__func__);
    if (code != cudaSuccess)
        return code;
    *executable = make(sizeof **executable);
    atomic_fetch_add(&graphs, 1);
    pthread_mutex_lock(&lock);
    fake.graphs++;
    pthread_mutex_unlock(&lock);
    **executable = *graph;
    return code;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    unmake(graph);
    return freeing();
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    atomic_fetch_sub(&graphs, 1);
    unmake(executable);
    return freeing();
}

static void run(const pick *p) {
    for (int32_t i = 0; i < p->count; i++) {
        mln_cuda_row *row = &p->rows[i];
        row->id = ++row->position % FAKE_IDS;
        p->out_ids[(p->first + i) * *p->steps + row->step++] = row->id;
    }
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    cudaError_t code = call(__func__);
    for (int i = 0; i < executable->shared && code == cudaSuccess; i++)
        give(__func__, stream, executable->kinds[i], NULL);
    for (int i = 0; i < executable->count && code == cudaSuccess; i++)
        run(&executable->picks[i]);
    return code;
}

/* --- kernels --- */

static cudaError_t launch_pick(const char *name, pick p, cudaStream_t stream) {
    cudaError_t code = call(name);
    if (code != cudaSuccess)
        return code;
    if (!stream->recorded)
        run(&p);
    else if (stream->recorded->count < MOST_PICKS)
        stream->recorded->picks[stream->recorded->count++] = p;
    else
        abort();
    return code;
}

cudaError_t mln_cuda_pick_launch(const mln_cuda_best *best, int32_t blocks, mln_cuda_row *rows,
                                 int32_t *out_ids, const int32_t *steps, int32_t tokens,
                                 cudaStream_t stream) {
    (void)best;
    (void)blocks;
    return launch_pick(__func__, (pick){rows, out_ids, steps, 0, tokens}, stream);
}

cudaError_t mln_cuda_sample_launch(const mln_cuda_sample *s, cudaStream_t stream) {
    return launch_pick(__func__, (pick){s->rows, s->out_ids, s->steps, s->first, s->count}, stream);
}

int32_t mln_cuda_argmax_blocks(const mln_cuda_matrix *weight, int32_t tokens) {
    (void)weight;
    (void)tokens;
    return 1;
}

int64_t mln_cuda_fragment_bytes(int64_t columns, int32_t tokens) {
    return columns * tokens;
}

int mln_cuda_fragment_form(const mln_cuda_matrix *weight, int32_t tokens) {
    return weight->tile_code == 0 || tokens == 1 ? MLN_CUDA_FORM_NONE : MLN_CUDA_FORM_MMA;
}

int mln_cuda_attends_in_tiles(int half_cache, int32_t head_dim) {
    (void)half_cache;
    (void)head_dim;
    return fake.stays;
}

cudaError_t mln_cuda_persist_room(int32_t tile_code, int32_t *blocks, int32_t *bytes) {
    (void)tile_code;
    *blocks = fake.stays ? 4 : 0;
    *bytes = fake.stays ? 200 << 10 : 0;
    return call(__func__);
}

cudaError_t mln_cuda_persist_launch(const mln_cuda_persist *persist, cudaStream_t stream) {
    (void)stream;
    cudaError_t code = call(__func__);
    for (int32_t i = 0; i < persist->steps && code == cudaSuccess && !fake.silent; i++)
        persist->out_ids[i] = (persist->row.position + i + 1) % FAKE_IDS;
    persist->out_ids[MLN_PERSIST_STEPS] = fake.silent;
    return code;
}

int mln_cuda_attends_rows(int half_cache, int32_t head_dim, int32_t heads, int32_t kv_heads,
                          int32_t tokens, int32_t splits) {
    (void)half_cache;
    (void)head_dim;
    (void)heads;
    (void)kv_heads;
    (void)splits;
    return tokens > 4;
}

/* --- NCCL --- */

static int init_all(void **comms, int count, const int *devices) {
    (void)devices;
    cudaError_t code = call(__func__);
    for (int i = 0; i < count && code == cudaSuccess; i++) {
        int *rank = make(2 * sizeof *rank);
        rank[0] = i;
        rank[1] = count;
        comms[i] = rank;
    }
    return code != cudaSuccess;
}

static int destroy(void *comm) {
    unmake(comm);
    return 0;
}

/* As NCCL does, after the graphs. */
static int abort_when_no_graph_is_left(void *comm) {
    pthread_mutex_lock(&lock);
    work[*(const int *)comm].aborted = true;
    pthread_mutex_unlock(&lock);
    while (atomic_load(&graphs) > 0)
        nanosleep(&(struct timespec){.tv_nsec = 10000}, NULL);
    return destroy(comm);
}

/* A number of each rank is what the plug-in tries the connection with; of more, none is looked at.
 */
static int all_gather(const void *send, void *receive, size_t count, int type, void *comm,
                      cudaStream_t stream) {
    (void)send;
    (void)type;
    const int *rank = comm;
    if (call(__func__) != cudaSuccess)
        return 1;
    give("ncclAllGather", stream, GATHER, NULL);
    for (int r = 0; r < rank[1] && count == 1 && !stream->recorded; r++)
        ((float *)receive)[r] = (float)(r + 1);
    return 0;
}

static const char *error_string(int result) {
    return result ? "the fake failed" : "fine";
}

myelin_status mln_nccl_open(mln_nccl *nccl, myelin_error_buffer *error) {
    (void)error;
    *nccl = (mln_nccl){init_all, abort_when_no_graph_is_left, destroy, all_gather, error_string};
    return MYELIN_OK;
}

#define FAKE_KERNEL(name, ...)                                                                     \
    cudaError_t name(__VA_ARGS__) {                                                                \
        return call(#name);                                                                        \
    }

#pragma GCC diagnostic ignored "-Wunused-parameter"
int mln_cuda_attends_pieces(int half_cache, int32_t head_dim, int32_t kv_heads, int32_t tokens,
                            int32_t pieces, int32_t splits, int32_t wgmma) {
    (void)half_cache;
    (void)head_dim;
    (void)kv_heads;
    (void)splits;
    (void)wgmma;
    return tokens > 1 && pieces > 0;
}

int mln_cuda_attends_singles(int half_cache, int32_t head_dim, int32_t heads, int32_t kv_heads,
                             int32_t tokens, int32_t splits) {
    (void)half_cache;
    (void)head_dim;
    (void)heads;
    (void)kv_heads;
    (void)splits;
    return tokens > 6;
}

int32_t mln_cuda_piece_tokens(int32_t heads, int32_t kv_heads) {
    (void)heads;
    (void)kv_heads;
    return 2;
}

FAKE_KERNEL(mln_cuda_prepare_device, void)
FAKE_KERNEL(mln_cuda_prepare_wgmma, void)
FAKE_KERNEL(mln_cuda_prepare_groups, void)
FAKE_KERNEL(mln_cuda_wgmma_check, uint32_t seed, int32_t blocks, int32_t *different,
            cudaStream_t stream)
cudaError_t mln_cuda_repack_launch(const mln_cuda_repack *repack, cudaStream_t stream) {
    cudaError_t code = call(__func__);
    if (code == cudaSuccess && fake_full && repack->to.tile_code == MLN_TILE_PACKED)
        *repack->full = 1;
    return code;
}

FAKE_KERNEL(mln_cuda_linear_launch, const mln_cuda_linear *linear, cudaStream_t stream)
FAKE_KERNEL(mln_cuda_embed_launch, float *out, const mln_cuda_matrix *weight,
            const mln_cuda_row *rows, int32_t tokens, cudaStream_t stream)
FAKE_KERNEL(mln_cuda_norm_launch, float *x, const float *weight, int32_t columns, float eps,
            cudaStream_t stream)
FAKE_KERNEL(mln_cuda_prepare_launch, const mln_cuda_attention *attention, cudaStream_t stream)
FAKE_KERNEL(mln_cuda_attend_launch, const mln_cuda_attention *attention, cudaStream_t stream)
FAKE_KERNEL(mln_cuda_angles_launch, float2 *angles, const mln_cuda_row *rows, const float *inv_freq,
            float scale, int32_t half, int32_t tokens, cudaStream_t stream)
FAKE_KERNEL(mln_cuda_add_parts_launch, float *residual, const float *parts, int64_t count,
            int32_t ranks, cudaStream_t stream)
FAKE_KERNEL(mln_cuda_own_best_launch, mln_cuda_best *to, const mln_cuda_best *best, int32_t blocks,
            int32_t first_id, int32_t tokens, cudaStream_t stream)
FAKE_KERNEL(mln_cuda_by_token_launch, mln_cuda_best *to, const mln_cuda_best *from, int32_t tokens,
            int32_t ranks, cudaStream_t stream)
FAKE_KERNEL(mln_cuda_place_logits_launch, float *logits, const float *parts, int32_t tokens,
            int32_t vocab, int32_t most, int32_t ranks, cudaStream_t stream)

cudaError_t mln_cuda_exchange_launch(const mln_cuda_exchange *exchange, cudaStream_t stream) {
    cudaError_t code = call(__func__);
    if (code == cudaSuccess)
        give(__func__, stream, EXCHANGE, (_Atomic int32_t *)(void *)(uintptr_t)exchange->stop);
    return code;
}
