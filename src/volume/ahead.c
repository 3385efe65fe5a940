/* Reading ahead of those who read forward. A stream is a reader's place in a data id; chunks of what comes next are
 * fetched by fibers of their own and kept in memory until the reader has passed, for a while.
 *
 * It begins when a reader has waited for a slow store, or reads the start of a file from a store that is known to
 * be slow. What is fetched ahead is in proportion to what the reader has read in sequence, so little is
 * fetched in vain, and no more than a share of the memory for all streams together; it grows with every read, so
 * that a reader needs few waits until the line is full. A quick store has none: there it would only move bytes earlier. */
#include <assert.h>

#include "volume/read_impl.h"

#define STREAMS_MAX 64               /* the one used longest ago is forgotten */
#define STREAM_SLACK (2u << 20)      /* how far out of order the requests of one reader may come */
#define CHUNK_MIN (256u << 10)
#define CHUNK_MAX (4u << 20)
#define AHEAD_MAX (64ull << 20)      /* bytes ahead of all streams, and at most half of the cache */
#define FIRST_LEN (64u << 10)        /* a first read of so much is likely of a file that is read on */
#define FIRST_WINDOW_MAX (1u << 20)  /* what is fetched beside it */
#define TRUSTED_BYTES (1u << 20)     /* who has read so much in sequence goes on, most likely */
#define WASH_PART 4                  /* who has read this part of the cache's size in sequence leaves no more there */
#define FULL_PART 8                  /* ... unless it has this part of room */
#define IDLE_NS (5 * VV_NS_PER_S)    /* after which what is not asked for goes */

static_assert(CHUNK_MAX <= VV_OP_DATA_MAX, "a chunk is one read");

struct vv_stream {
    struct vv_list node; /* volume->streams, used longest ago first */
    uint64_t data_id;
    uint64_t next;      /* where the reader goes on */
    uint64_t run_bytes; /* read in sequence */
    uint64_t ahead_to;  /* chunks reach up to here */
    uint64_t window;    /* how far ahead they should */
    uint64_t used_ns;
    struct vv_list chunks; /* ascending */
};

struct chunk {
    struct vv_list node; /* of its stream; alone when that gave it up */
    struct vv_volume *volume;
    uint64_t data_id, from, to;
    bool is_running, is_given_up;
    struct vv_read *read;
    struct vv_block **blocks; /* held, when it has run */
    size_t count;
};

/* ---- chunks ---- */

static void chunk_free(struct chunk *chunk)
{
    vv_list_remove(&chunk->node);
    chunk->volume->ahead_bytes -= chunk->to - chunk->from;
    for (size_t i = 0; i < chunk->count; i++)
        vv_block_unref(chunk->blocks[i]);
    vv_free(chunk->blocks);
    vv_free(chunk);
}

/* Its fiber frees it if it is running. */
static void chunk_give_up(struct chunk *chunk)
{
    if (!chunk->is_running) {
        chunk_free(chunk);
        return;
    }
    chunk->is_given_up = true;
    vv_list_remove(&chunk->node);
}

static int plan_chunk(struct vv_op *op, void *arg)
{
    struct chunk *chunk = arg;
    vv_read_reset(chunk->read);
    return vv_op_read(op, chunk->data_id, chunk->from, chunk->to - chunk->from, &chunk->read);
}

/* Keep the blocks; the read would hold the segments, too. */
static void keep_blocks(struct chunk *chunk)
{
    struct vv_read *read = chunk->read;
    chunk->blocks = vv_calloc(read->count + 1, sizeof(struct vv_block *));
    for (size_t i = 0; i < read->count && chunk->blocks != NULL; i++) {
        struct vv_block *block = read->parts[i].block;
        if (block == NULL)
            continue;
        vv_block_cool(block);
        vv_block_ref(block);
        chunk->blocks[chunk->count++] = block;
    }
}

/* Errors are the reader's to find, when it comes here. */
static void chunk_run(void *arg)
{
    struct chunk *chunk = arg;
    struct vv_volume *volume = chunk->volume;
    int err = volume->is_abandoning || chunk->is_given_up
                  ? -VV_ERR_STOPPED
                  : vv_volume_run(volume, VV_OP_READ, 0, plan_chunk, chunk);
    if (err >= 0 && chunk->read != NULL && !chunk->is_given_up)
        err = vv_read_fetch(chunk->read, NULL);
    if (err >= 0 && chunk->read != NULL)
        keep_blocks(chunk);
    vv_read_free(chunk->read);
    chunk->read = NULL;
    chunk->is_running = false;
    if (chunk->is_given_up)
        chunk_free(chunk);
    vv_volume_fiber_ended(volume);
}

static bool chunk_start(struct vv_volume *volume, struct vv_stream *stream, uint64_t to)
{
    struct chunk *chunk = vv_zalloc(sizeof *chunk);
    if (chunk == NULL)
        return false;
    chunk->volume = volume;
    chunk->data_id = stream->data_id;
    chunk->from = stream->ahead_to;
    chunk->to = to;
    if (vv_fiber_start(chunk_run, chunk, "read ahead") < 0) {
        vv_free(chunk);
        return false;
    }
    chunk->is_running = true;
    volume->fibers++;
    volume->ahead_bytes += to - chunk->from;
    vv_list_push_back(&stream->chunks, &chunk->node);
    stream->ahead_to = to;
    return true;
}

/* ---- streams ---- */

static void stream_free(struct vv_stream *stream)
{
    vv_list_each_safe (node, &stream->chunks)
        chunk_give_up(vv_list_entry(node, struct chunk, node));
    vv_list_remove(&stream->node);
    vv_free(stream);
}

void vv_ahead_free(struct vv_volume *volume)
{
    vv_timer_cancel(&volume->ahead_timer);
    while (!vv_list_is_empty(&volume->streams))
        stream_free(vv_list_first(&volume->streams, struct vv_stream, node));
    volume->stream_count = 0;
}

static void on_idle(void *arg)
{
    struct vv_volume *volume = arg;
    uint64_t now_ns = vv_rt_now_ns();
    vv_list_each_safe (node, &volume->streams) {
        struct vv_stream *stream = vv_list_entry(node, struct vv_stream, node);
        if (now_ns - stream->used_ns < IDLE_NS)
            break;
        volume->stream_count--;
        stream_free(stream);
    }
    if (vv_list_is_empty(&volume->streams))
        return;
    if (vv_timer_set(&volume->ahead_timer, now_ns + IDLE_NS, on_idle, volume) < 0)
        vv_ahead_free(volume);
}

static struct vv_stream *stream_find(struct vv_volume *volume, uint64_t data_id, uint64_t from)
{
    for (struct vv_list *node = volume->streams.prev; node != &volume->streams; node = node->prev) {
        struct vv_stream *stream = vv_list_entry(node, struct vv_stream, node);
        if (stream->data_id == data_id && from <= stream->next + STREAM_SLACK &&
            stream->next <= from + STREAM_SLACK)
            return stream;
    }
    return NULL;
}

static struct vv_stream *stream_new(struct vv_volume *volume, uint64_t data_id, uint64_t from)
{
    if (volume->stream_count == STREAMS_MAX) {
        volume->stream_count--;
        stream_free(vv_list_first(&volume->streams, struct vv_stream, node));
    }
    struct vv_stream *stream = vv_zalloc(sizeof *stream);
    if (stream == NULL)
        return NULL;
    if (volume->ahead_timer.heap_index == 0 &&
        vv_timer_set(&volume->ahead_timer, vv_rt_now_ns() + IDLE_NS, on_idle, volume) < 0) {
        vv_free(stream);
        return NULL;
    }
    stream->data_id = data_id;
    stream->next = from;
    vv_list_init(&stream->chunks);
    vv_list_init(&stream->node);
    volume->stream_count++;
    return stream;
}

static uint64_t ahead_max(const struct vv_volume *volume)
{
    uint64_t half = volume->cache_budget.limit / 2;
    return half < AHEAD_MAX ? half : AHEAD_MAX;
}

/* Start what is missing of the window. Short chunks only at the end. */
static void go_ahead(struct vv_volume *volume, struct vv_stream *stream, uint64_t end)
{
    uint64_t max = ahead_max(volume);
    uint64_t window = stream->window < max ? stream->window : max;
    uint64_t chunk = window / 4;
    chunk = chunk < CHUNK_MIN ? CHUNK_MIN : chunk > CHUNK_MAX ? CHUNK_MAX : chunk;
    chunk -= chunk % VV_EXTENT_BYTES;
    uint64_t next = (stream->next + VV_EXTENT_BYTES - 1) / VV_EXTENT_BYTES * VV_EXTENT_BYTES;
    if (stream->ahead_to < next)
        stream->ahead_to = next;
    uint64_t limit = stream->next + window;
    while (stream->ahead_to < end && stream->ahead_to < limit) {
        uint64_t to = stream->ahead_to + chunk;
        to = to < end ? to : end;
        if ((to > limit && to < end) || volume->ahead_bytes + (to - stream->ahead_to) > max ||
            !chunk_start(volume, stream, to))
            return;
    }
}

/* As far ahead as what was read in sequence makes likely. */
static void widen(struct vv_stream *stream)
{
    uint64_t window = (stream->run_bytes < TRUSTED_BYTES ? 2 : 4) * stream->run_bytes;
    if (stream->window < window)
        stream->window = window;
}

struct vv_stream *vv_stream_begin(const struct vv_read *read)
{
    struct vv_volume *volume = read->volume;
    if (read->expected_end == 0 || read->data_id == 0 || volume->is_abandoning)
        return NULL;
    struct vv_stream *stream = stream_find(volume, read->data_id, read->from);
    bool is_first = stream == NULL && read->from == 0 && read->len >= FIRST_LEN;
    if (stream == NULL)
        stream = stream_new(volume, read->data_id, read->from);
    if (stream == NULL)
        return NULL;
    if (is_first && volume->get_ns >= VV_READ_SLOW_NS)
        stream->window = 4 * read->len < FIRST_WINDOW_MAX ? 4 * read->len : FIRST_WINDOW_MAX;
    vv_list_remove(&stream->node);
    vv_list_push_back(&volume->streams, &stream->node);
    stream->used_ns = vv_rt_now_ns();
    stream->run_bytes += read->len;
    if (read->from + read->len > stream->next)
        stream->next = read->from + read->len;
    vv_list_each_safe (node, &stream->chunks) {
        struct chunk *chunk = vv_list_entry(node, struct chunk, node);
        if (chunk->to + STREAM_SLACK > read->from)
            break;
        chunk_give_up(chunk);
    }
    if (stream->window > 0) {
        widen(stream);
        go_ahead(volume, stream, read->expected_end);
    }
    return stream;
}

void vv_stream_end(const struct vv_read *read, uint64_t took_ns)
{
    struct vv_volume *volume = read->volume;
    uint64_t to = read->from + read->len;
    struct vv_stream *stream =
        read->expected_end != 0 ? stream_find(volume, read->data_id, to) : NULL;
    if (stream == NULL)
        return;
    if (to >= read->expected_end) {
        volume->stream_count--;
        stream_free(stream);
        return;
    }
    if (took_ns < VV_READ_SLOW_NS)
        return;
    widen(stream);
    go_ahead(volume, stream, read->expected_end);
}

bool vv_stream_is_washing(const struct vv_volume *volume, const struct vv_stream *stream)
{
    uint64_t size = vv_cache_size(volume->cache);
    return stream != NULL && stream->window == 0 && vv_list_is_empty(&stream->chunks) &&
           stream->run_bytes > size / WASH_PART && vv_cache_room(volume->cache) < size / FULL_PART;
}
