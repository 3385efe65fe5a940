/* Reading the objects of an epoch: fetched by several fibers at once into a ring of slots, given to
 * the caller in order by the fiber that asked. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/plant.h"
#include "log/log_impl.h"

/* The first request fetches this much of an object: all of a small one. Of a larger one, the footer
 * and the batch follow; the data frames before the batch are not fetched. */
#define PREFIX_BYTES (128u << 10)
/* Bytes of batches in flight, beyond prefixes and the batch that is given next. Larger ones are
 * fetched when it is their turn. */
#define AHEAD_BYTES_MAX (12u << 20)

_Static_assert(VV_LOG_REPLAY_PARALLEL *PREFIX_BYTES + AHEAD_BYTES_MAX + VV_BATCH_MAX <= 64u << 20,
               "at most 64 MiB in flight");

struct fetched {
    bool is_ready;
    int err; /* -ENOENT: missing */
    struct vv_object_header header;
    uint64_t object_bytes;
    uint32_t frame_count; /* the batch's index */
    uint8_t *bytes;       /* holds the batch's frame; owned */
    size_t frame_offset;  /* where in `bytes` */
    size_t frame_len;
    size_t charged_bytes; /* of AHEAD_BYTES_MAX */
};

struct pipeline {
    struct vv_log_reading *reading;
    uint64_t epoch;
    uint64_t next_fetch; /* sequence */
    uint64_t next_give;  /* sequence; fetching goes at most a ring ahead of it */
    uint64_t end;        /* nothing at or above is fetched; falls when an end is found */
    bool is_stopping;
    unsigned fetchers; /* fibers running */
    size_t charged_bytes;
    struct fetched slots[VV_LOG_REPLAY_PARALLEL];
    struct vv_waitq changed;
};

static void object_name(const struct pipeline *pipe, uint64_t seq, char *name, size_t size)
{
    struct vv_segment_id id = {.epoch = pipe->epoch, .counter = seq, .kind = VV_SEGMENT_LOG};
    vv_segment_name(&id, name, size);
}

/* ---- fetching ---- */

/* Wait until `len` more bytes may be held. The object that is given next never waits. */
static void charge(struct pipeline *pipe, uint64_t seq, struct fetched *slot, size_t len)
{
    while (pipe->charged_bytes + len > AHEAD_BYTES_MAX && seq != pipe->next_give &&
           !pipe->is_stopping)
        vv_waitq_wait(&pipe->changed, VV_NEVER);
    slot->charged_bytes = len;
    pipe->charged_bytes += len;
}

/* The object is longer than the prefix: fetch its footer and its batch. */
static int fetch_rest(struct pipeline *pipe, uint64_t seq, const char *name, struct fetched *slot)
{
    const struct vv_log_requests *requests = pipe->reading->requests;
    TRY(vv_log_request_size(requests, name, &slot->object_bytes));
    if (slot->object_bytes < PREFIX_BYTES)
        return -VV_ERR_FORMAT;
    uint8_t tail[VV_SEGMENT_FOOTER_LEN];
    ssize_t got =
        vv_log_request_get(requests, name, tail, sizeof(tail), slot->object_bytes - sizeof(tail));
    TRY(got);
    struct vv_segment_footer footer;
    TRY(vv_segment_footer_decode(tail, (size_t)got, slot->object_bytes, &footer));
    if (footer.batch_offset == 0 || footer.batch_len > vv_frame_bound(VV_BATCH_MAX))
        return -VV_ERR_FORMAT;
    vv_free(slot->bytes);
    slot->bytes = NULL;
    charge(pipe, seq, slot, footer.batch_len);
    slot->bytes = vv_alloc(footer.batch_len);
    if (!slot->bytes)
        return -ENOMEM;
    got = vv_log_request_get(requests, name, slot->bytes, footer.batch_len, footer.batch_offset);
    TRY(got);
    slot->frame_count = footer.frame_count;
    slot->frame_offset = 0;
    slot->frame_len = footer.batch_len;
    return (size_t)got == footer.batch_len ? 0 : -VV_ERR_FORMAT;
}

/* The whole object is there: find its batch. */
static int find_batch(struct fetched *slot, size_t len)
{
    slot->object_bytes = len;
    if (len < VV_OBJECT_HEADER_LEN + VV_SEGMENT_FOOTER_LEN)
        return -VV_ERR_FORMAT;
    struct vv_segment_footer footer;
    TRY(vv_segment_footer_decode(slot->bytes + len - VV_SEGMENT_FOOTER_LEN, VV_SEGMENT_FOOTER_LEN,
                                 len, &footer));
    if (footer.batch_offset == 0)
        return -VV_ERR_FORMAT;
    slot->frame_count = footer.frame_count;
    slot->frame_offset = (size_t)footer.batch_offset;
    slot->frame_len = footer.batch_len;
    /* What the prefix did not need goes back. */
    uint8_t *shrunk = vv_realloc(slot->bytes, len);
    if (shrunk)
        slot->bytes = shrunk;
    return 0;
}

static int fetch_object(struct pipeline *pipe, uint64_t seq, struct fetched *slot)
{
    const struct vv_log_requests *requests = pipe->reading->requests;
    char name[VV_STORE_NAME_MAX + 1];
    object_name(pipe, seq, name, sizeof(name));
    slot->bytes = vv_alloc(PREFIX_BYTES);
    if (!slot->bytes)
        return -ENOMEM;
    ssize_t len = vv_log_request_get(requests, name, slot->bytes, PREFIX_BYTES, 0);
    TRY(len);
    TRY(vv_object_header_decode(slot->bytes, (size_t)len, &slot->header));
    if (slot->header.kind == VV_KIND_LOG && (size_t)len < PREFIX_BYTES)
        TRY(find_batch(slot, (size_t)len));
    else if (slot->header.kind == VV_KIND_LOG)
        TRY(fetch_rest(pipe, seq, name, slot));
    else if (slot->header.kind != VV_KIND_FENCE)
        return -VV_ERR_CORRUPT;
    /* Rule 8: what a killed writer left may be visible without being durable. */
    if (pipe->reading->is_syncing && !vv_planted(VV_PLANT_NO_REPLAY_SYNC))
        TRY(vv_log_request_sync(requests, name));
    return 0;
}

/* Fibers: fetch one object after the other until the end is reached. */
static void run_fetcher(void *arg)
{
    struct pipeline *pipe = arg;
    while (!pipe->is_stopping && pipe->next_fetch < pipe->end) {
        if (pipe->next_fetch - pipe->next_give >= VV_LOG_REPLAY_PARALLEL) {
            vv_waitq_wait(&pipe->changed, VV_NEVER);
            continue;
        }
        uint64_t seq = pipe->next_fetch++;
        struct fetched *slot = &pipe->slots[seq % VV_LOG_REPLAY_PARALLEL];
        assert(!slot->is_ready && !slot->bytes);
        slot->err = fetch_object(pipe, seq, slot);
        bool is_end = slot->err || slot->header.kind == VV_KIND_FENCE;
        if (is_end && seq < pipe->end)
            pipe->end = seq + 1;
        slot->is_ready = true;
        vv_waitq_wake_all(&pipe->changed);
    }
    pipe->fetchers--;
    vv_waitq_wake_all(&pipe->changed);
}

static void release_slot(struct pipeline *pipe, struct fetched *slot)
{
    pipe->charged_bytes -= slot->charged_bytes;
    vv_free(slot->bytes);
    *slot = (struct fetched){0};
}

/* ---- opening and giving ---- */

struct open_job {
    const struct vv_keyring *ring;
    const struct fetched *slot;
    const char *name;
    uint8_t *plain;
    size_t plain_len;
    int err;
};

static int open_frame(struct open_job *job)
{
    const struct fetched *slot = job->slot;
    const uint8_t *frame = slot->bytes + slot->frame_offset;
    ssize_t plain_len = vv_frame_plain_len(frame, slot->frame_len);
    TRY(plain_len);
    if ((size_t)plain_len > VV_BATCH_MAX)
        return -VV_ERR_FORMAT;
    struct vv_sealer *sealer;
    TRY(vv_sealer_open(job->ring, &slot->header, job->name, &sealer));
    struct vv_origin origin = {VV_ORIGIN_BATCH, 0};
    job->plain = vv_alloc((size_t)plain_len);
    ssize_t opened = -ENOMEM;
    if (job->plain)
        opened = vv_frame_open(sealer, slot->frame_count, &origin, frame, slot->frame_len,
                               job->plain, (size_t)plain_len);
    vv_sealer_free(sealer);
    TRY(opened);
    job->plain_len = (size_t)opened;
    return 0;
}

static void run_open_job(void *arg)
{
    struct open_job *job = arg;
    job->err = open_frame(job);
}

/* The attempt id of the object before the next one. */
struct chain {
    uint8_t attempt_id[16];
    bool is_known; /* not before the first object, when that is not the epoch's first */
};

/* What the batch header says must follow from what was replayed before (8). */
static int check_order(const struct vv_log_reading *reading, const struct chain *chain,
                       const struct vv_batch_header *header)
{
    if (reading->is_ended)
        return -VV_ERR_GAP;
    if (header->first_commit != reading->last_commit + 1)
        return -VV_ERR_CORRUPT;
    if (chain->is_known && memcmp(header->previous_attempt_id, chain->attempt_id, 16) != 0)
        return -VV_ERR_CORRUPT;
    return 0;
}

static void raise(uint64_t *value, uint64_t to)
{
    if (to > *value)
        *value = to;
}

/* Open the batch in `slot`, check that it is the next one, and give it to the caller. */
static int give_batch(struct pipeline *pipe, uint64_t seq, const struct fetched *slot,
                      struct chain *chain)
{
    struct vv_log_reading *reading = pipe->reading;
    if (slot->header.number != pipe->epoch)
        return -VV_ERR_CORRUPT;
    char name[VV_STORE_NAME_MAX + 1];
    object_name(pipe, seq, name, sizeof(name));
    struct open_job job = {.ring = reading->ring, .slot = slot, .name = name};
    if (slot->frame_len > VV_LOG_OFFLOAD_BYTES)
        vv_rt_offload(run_open_job, &job);
    else
        run_open_job(&job);
    CLEANUP(vv_free_ptr) uint8_t *plain = job.plain;
    TRY(job.err);
    struct vv_cursor cursor = vv_cursor_of(plain, job.plain_len);
    struct vv_batch_header header;
    TRY(vv_batch_header_decode(&cursor, &header));
    TRY(check_order(reading, chain, &header));
    memcpy(chain->attempt_id, slot->header.attempt_id, 16);
    chain->is_known = true;
    struct vv_segment_id id = {.epoch = pipe->epoch, .counter = seq, .kind = VV_SEGMENT_LOG};
    TRY(reading->replay->batch(reading->replay->arg, &id, &header,
                               vv_cursor_bytes(&cursor, cursor.len), slot->object_bytes));
    reading->last_commit = header.first_commit + header.count - 1;
    raise(&reading->counters.next_inode, header.counters.next_inode);
    raise(&reading->counters.next_data_id, header.counters.next_data_id);
    return 0;
}

/* Give what is fetched, in order, until an end or an error. */
static int give_all(struct pipeline *pipe, uint64_t end, struct vv_log_epoch_end *out_end)
{
    struct chain chain = {.is_known = pipe->next_give == 0};
    while (pipe->next_give < end) {
        uint64_t seq = pipe->next_give;
        struct fetched *slot = &pipe->slots[seq % VV_LOG_REPLAY_PARALLEL];
        while (!slot->is_ready)
            vv_waitq_wait(&pipe->changed, VV_NEVER);
        bool is_missing = slot->err == -ENOENT;
        if (is_missing || (slot->err == 0 && slot->header.kind == VV_KIND_FENCE)) {
            *out_end = (struct vv_log_epoch_end){.seq = seq, .is_missing = is_missing};
            return 0;
        }
        TRY(slot->err);
        TRY(give_batch(pipe, seq, slot, &chain));
        release_slot(pipe, slot);
        pipe->next_give++;
        vv_waitq_wake_all(&pipe->changed);
    }
    *out_end = (struct vv_log_epoch_end){.seq = end};
    return 0;
}

/* At least one fetcher runs, or it is an error. */
static int start_fetchers(struct pipeline *pipe)
{
    uint64_t wanted = pipe->end - pipe->next_fetch;
    if (wanted > VV_LOG_REPLAY_PARALLEL)
        wanted = VV_LOG_REPLAY_PARALLEL;
    while (pipe->fetchers < wanted) {
        int err = vv_fiber_start(run_fetcher, pipe, "log fetch");
        if (err)
            return pipe->fetchers > 0 ? 0 : err;
        pipe->fetchers++;
    }
    return 0;
}

int vv_log_read_epoch(struct vv_log_reading *reading, uint64_t epoch, uint64_t first, uint64_t end,
                      struct vv_log_epoch_end *out_end)
{
    assert(first <= end);
    struct pipeline *pipe = vv_zalloc(sizeof(*pipe));
    if (!pipe)
        return -ENOMEM;
    pipe->reading = reading;
    pipe->epoch = epoch;
    pipe->next_fetch = first;
    pipe->next_give = first;
    pipe->end = end;
    vv_waitq_init(&pipe->changed);
    int err = start_fetchers(pipe);
    if (!err)
        err = give_all(pipe, end, out_end);
    pipe->is_stopping = true;
    vv_waitq_wake_all(&pipe->changed);
    while (pipe->fetchers > 0)
        vv_waitq_wait(&pipe->changed, VV_NEVER);
    for (size_t i = 0; i < VV_LOG_REPLAY_PARALLEL; i++)
        vv_free(pipe->slots[i].bytes);
    vv_free(pipe);
    return err;
}
