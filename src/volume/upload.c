/* Data segments: bytes of the open commit that do not wait for it. */
#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "volume/volume_impl.h"

#define MEASURE_SMALL_BYTES (64u << 10) /* the line takes next to nothing of such a put's time */
#define MEASURE_LARGE_BYTES (512u << 10)
#define MEASURE_LEAST_NS 100000ull
#define SYNCING_NS (2 * VV_NS_PER_S) /* after a sync, others are expected */
#define QUICK_NS (2 * VV_NS_PER_MS) /* of a store whose requests are not worth the trouble */
#define LINE_SHARE 8           /* of a request's time that a segment may take the line then: the eighth part */
#define LINE_FULL_NUM 5        /* what is on its way then fills the line for a request's time and a quarter, ... */
#define LINE_FULL_DEN 4
#define UNDER_WAY_SEGMENTS 4   /* whole segments, in bytes, that may be on their way */
#define INLINE_SEAL_BYTES (32u << 10)
#define UPLOAD_PAGE 4096u
#define EXCESS_WAIT_NS (100 * VV_NS_PER_MS) /* until memory is asked for again */

struct seal_run {
    struct vv_segment_builder *builder;
    struct vv_seal_job *jobs;
    size_t count, next;
    int err;
};

static void seal_run(void *arg)
{
    struct seal_run *run = arg;
    run->err = 0;
    while (run->next < run->count && run->err == 0) {
        struct vv_seal_job *job = &run->jobs[run->next];
        run->err = vv_segment_add(run->builder, &job->origin, job->bytes, job->len, &job->loc);
        if (run->err == 0)
            run->next++;
    }
}

void vv_seal_jobs(struct vv_segment_builder *builder, struct vv_seal_job *jobs, size_t count)
{
    struct seal_run run = {builder, jobs, count, 0, 0};
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += jobs[i].len;
    for (;;) {
        if (bytes <= INLINE_SEAL_BYTES)
            seal_run(&run);
        else
            vv_rt_offload(seal_run, &run);
        if (run.err == 0)
            return;
        assert(run.err == -ENOMEM);
        vv_rt_sleep_ns(20 * VV_NS_PER_MS);
    }
}

struct upload {
    struct vv_volume *volume;
    struct vv_commit *commit; /* only its moving_count is touched: it stays until that is 0 */
    struct vv_segment_id id;
    struct vv_new_segment *record;
    struct vv_layer **layers;
    struct vv_seal_job *jobs;
    size_t count;
    uint64_t bytes;
};

static void upload_free(struct upload *upload)
{
    vv_free(upload->layers);
    vv_free(upload->jobs);
    vv_free(upload->record);
    vv_free(upload);
}

/* The layer's bytes are in a confirmed segment: hand them to the cache. */
static void layer_sealed(struct vv_volume *volume, struct vv_layer *layer,
                         const struct vv_frame_loc *loc)
{
    struct vv_buf *buf = layer->buf;
    if (layer->extent == NULL)
        return;
    layer->state = VV_LAYER_SEALED;
    layer->loc = *loc;
    int err = vv_segref_hold(volume, &loc->segment);
    assert(err == 0); /* the upload holds it already: counting up needs no memory */
    (void)err;
    layer->buf = NULL;
    vv_buf_to_cache(volume, buf, layer->from - layer->buf_at, layer->to - layer->from, loc);
}

void vv_buf_to_cache(struct vv_volume *volume, struct vv_buf *buf, uint32_t at, uint32_t len,
                     const struct vv_frame_loc *loc)
{
    if (buf->refs == 1 && at == 0) {
        struct vv_cache_key key;
        vv_frame_cache_key(loc, &key);
        uint8_t *bytes = vv_buf_strip(buf, len);
        /* Pieces of extents are read again when they are folded. */
        if (len <= VV_PIECE_BYTES)
            vv_cache_put_warm(volume->cache, &key, bytes, len);
        else
            vv_cache_put(volume->cache, &key, bytes, len, NULL);
    }
    vv_buf_unref(buf);
}

/* ---- buffers ---- */

/* Frames of whole extents fit; many small ones take chunks of the builder's own. */
static size_t buffer_bytes(const struct vv_volume *volume)
{
    size_t plain = volume->segment_bytes + VV_EXTENT_BYTES;
    size_t frames = plain / UPLOAD_PAGE;
    return (vv_segment_bound(plain, frames) + UPLOAD_PAGE - 1) & ~(size_t)(UPLOAD_PAGE - 1);
}

/* Buffers are kept while uploads go on: fresh memory costs more than sealing into it. NULL when there is
 * none, or it would be too short. */
static uint8_t *buffer_take(struct vv_volume *volume, size_t need)
{
    if (need > buffer_bytes(volume))
        return NULL;
    if (volume->upload_buffer_count > 0)
        return volume->upload_buffers[--volume->upload_buffer_count];
    return vv_alloc_aligned(UPLOAD_PAGE, buffer_bytes(volume));
}

static void buffer_give(struct vv_volume *volume, uint8_t *buffer)
{
    if (buffer == NULL)
        return;
    if (volume->upload_buffer_count == VV_UPLOAD_BUFFERS_MAX) {
        vv_free(buffer);
        return;
    }
    volume->upload_buffers[volume->upload_buffer_count++] = buffer;
}

void vv_upload_trim(struct vv_volume *volume)
{
    while (volume->upload_buffer_count > 0)
        vv_free(volume->upload_buffers[--volume->upload_buffer_count]);
    vv_fresh_trim(volume);
}

/* ---- sealing and putting ---- */

static int upload_build(struct upload *upload, struct vv_segment_builder *builder, uint8_t *buffer)
{
    struct vv_volume *volume = upload->volume;
    const struct iovec *iov;
    int iov_count;
    size_t bytes;
    char name[VV_STORE_NAME_MAX + 1];
    int err;
    while (buffer != NULL &&
           (err = vv_segment_builder_lend(builder, buffer, buffer_bytes(volume))) < 0)
        vv_rt_sleep_ns(20 * VV_NS_PER_MS);
    vv_seal_jobs(builder, upload->jobs, upload->count);
    while ((err = vv_segment_finish(builder, NULL, 0, &iov, &iov_count, &bytes)) == -ENOMEM)
        vv_rt_sleep_ns(20 * VV_NS_PER_MS);
    vv_segment_name(&upload->id, name, sizeof name);
    uint64_t begun_ns = vv_rt_now_ns();
    uint64_t put_before = volume->put_bytes;
    volume->puts_under_way++;
    if (err == 0)
        err = vv_log_put_object(volume->log, name,
                                vv_segment_builder_header(builder)->attempt_id, iov, iov_count);
    volume->puts_under_way--;
    if (err == 0)
        vv_put_measured(volume, bytes, vv_rt_now_ns() - begun_ns, put_before);
    volume->stats.data_bytes += bytes;
    if (err == 0 && volume->store_free != UINT64_MAX)
        volume->store_free -= volume->store_free < bytes ? volume->store_free : bytes;
    for (size_t i = 0; i < upload->count; i++)
        upload->record->bytes += upload->jobs[i].loc.len;
    return err;
}

void vv_put_measured(struct vv_volume *volume, size_t bytes, uint64_t took_ns, uint64_t put_before)
{
    /* What a request takes without waiting for the line: slower ones tell only when nothing stood in their way. */
    bool is_alone = volume->put_bytes == put_before && volume->puts_under_way == 0;
    volume->put_bytes += bytes;
    if (bytes <= MEASURE_SMALL_BYTES && (volume->put_ns == 0 || took_ns < volume->put_ns))
        volume->put_ns = took_ns;
    else if (bytes <= MEASURE_SMALL_BYTES && is_alone)
        volume->put_ns += (took_ns - volume->put_ns) / 8;
    if (bytes < MEASURE_LARGE_BYTES || volume->put_ns == 0)
        return;
    /* Alone on the line, it had all of it beyond a request's time; beside others, all of them together had it. */
    uint64_t line_ns = took_ns > volume->put_ns ? took_ns - volume->put_ns : 0;
    double alone = (double)bytes * 1e9 / (double)(line_ns + MEASURE_LEAST_NS);
    double together = (double)(volume->put_bytes - put_before) * 1e9 / (double)(took_ns + 1);
    uint64_t rate = (uint64_t)(alone > together ? alone : together);
    if (rate > volume->upload_rate)
        volume->upload_rate += (rate - volume->upload_rate) / (volume->upload_rate == 0 ? 1 : 2);
    else
        volume->upload_rate -= (volume->upload_rate - rate) / 16;
}

/* Does somebody sync, so that it matters how long bulk data stands in the way? Then the bytes that the line takes in
 * a request's time; else 0. */
static uint64_t line_bytes(const struct vv_volume *volume)
{
    bool is_syncing = volume->want_commit > vv_durable_commit(volume) ||
                      (volume->synced_ns != 0 && vv_rt_now_ns() - volume->synced_ns < SYNCING_NS);
    if (!is_syncing || volume->upload_rate == 0 || volume->put_ns < QUICK_NS)
        return 0;
    return (uint64_t)((double)volume->upload_rate * (double)volume->put_ns / (double)VV_NS_PER_S);
}

/* A sync waits for everything before it: while somebody syncs, what has gathered is sent before it takes the line
 * longer than a part of a request. */
uint64_t vv_upload_due_bytes(const struct vv_volume *volume)
{
    uint64_t line = line_bytes(volume);
    uint64_t due = line / LINE_SHARE;
    due = due < VV_SYNC_SEGMENT_BYTES ? VV_SYNC_SEGMENT_BYTES : due;
    return line != 0 && due < volume->segment_bytes ? due : volume->segment_bytes;
}

bool vv_upload_is_inlining(const struct vv_volume *volume)
{
    return volume->durability == VV_DURABILITY_BUCKET && line_bytes(volume) != 0;
}

/* Bytes that may be on their way: as the memory allows, and while somebody syncs no more than keep the line full,
 * so that a commit's own put does not queue behind them. */
static uint64_t under_way_max(const struct vv_volume *volume)
{
    uint64_t max = UNDER_WAY_SEGMENTS * volume->segment_bytes;
    uint64_t line = line_bytes(volume);
    if (line == 0)
        return max;
    uint64_t full = line / LINE_FULL_DEN * LINE_FULL_NUM + vv_upload_due_bytes(volume);
    return full < max ? full : max;
}

bool vv_upload_is_full(const struct vv_volume *volume)
{
    return volume->uploads_under_way >= VV_UPLOADS_MAX ||
           volume->upload_bytes >= under_way_max(volume);
}

uint64_t vv_upload_dirty_max(const struct vv_volume *volume)
{
    uint64_t line = line_bytes(volume);
    if (line == 0)
        return UINT64_MAX;
    return line / LINE_FULL_DEN * LINE_FULL_NUM + 2 * vv_upload_due_bytes(volume);
}

/* Of one segment. */
static uint64_t gather_max(const struct vv_volume *volume)
{
    uint64_t max = under_way_max(volume);
    uint64_t due = vv_upload_due_bytes(volume);
    uint64_t left = volume->upload_bytes < max ? max - volume->upload_bytes : 0;
    left = left < due ? due : left;
    return left < volume->segment_bytes ? left : volume->segment_bytes;
}

static int upload_put(struct upload *upload)
{
    struct vv_volume *volume = upload->volume;
    struct vv_segment_builder *builder = NULL;
    int err;
    while ((err = vv_segment_builder_new(volume->ring, &upload->id, &volume->settings, &builder)) ==
           -ENOMEM)
        vv_rt_sleep_ns(20 * VV_NS_PER_MS);
    TRY(err);
    /* A short segment's memory is its own. */
    bool is_short = upload->bytes < volume->segment_bytes / 2;
    uint8_t *buffer = is_short ? NULL : buffer_take(volume, vv_segment_bound(upload->bytes, upload->count));
    err = upload_build(upload, builder, buffer);
    vv_segment_builder_free(builder);
    buffer_give(volume, buffer);
    return err;
}

static void upload_run(void *arg)
{
    struct upload *upload = arg;
    struct vv_volume *volume = upload->volume;
    int err = upload_put(upload);
    vv_segref_find(volume, &upload->id)->bytes = upload->record->bytes;
    if (err == -VV_ERR_FENCED || err == -VV_ERR_NOT_OURS)
        vv_volume_fence(volume);
    for (size_t i = 0; i < upload->count; i++) {
        if (err == 0)
            layer_sealed(volume, upload->layers[i], &upload->jobs[i].loc);
        vv_layer_unref(upload->layers[i]);
        if (err == 0)
            upload->commit->moving_count--;
    }
    if (err == 0) {
        vv_list_push_back(&volume->new_segments, &upload->record->node);
        upload->record = NULL;
        vv_commit_changed(volume);
    }
    vv_segref_release(volume, &upload->id);
    volume->uploads_under_way--;
    volume->upload_bytes -= upload->bytes;
    upload_free(upload);
    vv_waitq_wake_all(&volume->uploads);
    vv_waitq_wake_all(&volume->commit_work);
    vv_volume_fiber_ended(volume);
}

static bool is_movable(const struct vv_layer *layer)
{
    return layer->state == VV_LAYER_PLAIN && !layer->is_zero;
}

/* Skip what earlier uploads have taken: a commit of a second of bulk writes has tens of thousands of layers. */
static void skip_moved(struct vv_commit *commit)
{
    while (commit->moved_to->next != &commit->layers &&
           !is_movable(vv_list_entry(commit->moved_to->next, struct vv_layer, in_commit)))
        commit->moved_to = commit->moved_to->next;
}

static size_t gather(struct vv_volume *volume, struct upload *upload, size_t max, bool is_forced)
{
    const struct vv_commit *commit = upload->commit;
    const struct vv_extent *newest = NULL;
    if (!is_forced && !vv_list_is_empty(&commit->layers))
        newest = vv_list_last(&commit->layers, struct vv_layer, in_commit)->extent;
    size_t count = 0;
    uint64_t bytes_max = gather_max(volume);
    for (struct vv_list *node = commit->moved_to->next; node != &commit->layers; node = node->next) {
        struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_commit);
        if (upload->bytes >= bytes_max || count == max)
            break;
        if (!is_movable(layer) || layer->extent == newest)
            continue;
        struct vv_seal_job *job = &upload->jobs[count];
        job->origin.data_id = layer->extent->data->id;
        job->origin.extent = layer->extent->index;
        job->bytes = layer->buf->data + (layer->from - layer->buf_at);
        job->len = layer->to - layer->from;
        upload->layers[count++] = layer;
        upload->bytes += job->len;
    }
    return count;
}

static size_t count_plain(const struct vv_commit *commit, uint64_t limit)
{
    size_t count = 0;
    uint64_t bytes = 0;
    for (const struct vv_list *node = commit->moved_to->next; node != &commit->layers && bytes < limit;
         node = node->next) {
        const struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_commit);
        if (!is_movable(layer))
            continue;
        bytes += layer->to - layer->from;
        count++;
    }
    return count;
}

static struct upload *upload_new(struct vv_volume *volume, struct vv_commit *commit, bool is_forced)
{
    skip_moved(commit);
    size_t max = count_plain(commit, volume->segment_bytes) + 1;
    struct upload *upload = vv_zalloc(sizeof *upload);
    if (upload == NULL)
        return NULL;
    upload->volume = volume;
    upload->commit = commit;
    upload->layers = vv_calloc(max, sizeof *upload->layers);
    upload->jobs = vv_calloc(max, sizeof *upload->jobs);
    upload->record = vv_zalloc(sizeof *upload->record);
    upload->id.epoch = volume->epoch;
    upload->id.counter = volume->segment_counter;
    upload->id.kind = VV_SEGMENT_DATA;
    if (upload->layers != NULL && upload->jobs != NULL && upload->record != NULL)
        upload->count = gather(volume, upload, max, is_forced);
    if (upload->count == 0 || vv_segref_hold(volume, &upload->id) < 0) {
        upload_free(upload);
        return NULL;
    }
    upload->record->id = upload->id;
    vv_list_init(&upload->record->node);
    return upload;
}

/* False when nothing could be started. */
static bool start_upload(struct vv_volume *volume, struct vv_commit *commit, bool is_forced)
{
    struct upload *upload = upload_new(volume, commit, is_forced);
    if (upload == NULL)
        return false;
    if (vv_fiber_start(upload_run, upload, "upload") < 0) {
        vv_segref_release(volume, &upload->id);
        upload_free(upload);
        return false;
    }
    volume->fibers++;
    volume->segment_counter++;
    volume->uploads_under_way++;
    volume->upload_bytes += upload->bytes;
    commit->moving_count += (uint32_t)upload->count;
    for (size_t i = 0; i < upload->count; i++) {
        struct vv_layer *layer = upload->layers[i];
        layer->refs++;
        layer->state = VV_LAYER_MOVING;
        commit->plain_bytes -= layer->to - layer->from;
    }
    return true;
}

void vv_upload_start(struct vv_volume *volume, bool is_forced)
{
    /* What is frozen goes first: somebody may wait for it. */
    if (volume->bulk_units > 0 || vv_upload_is_full(volume) || volume->is_fenced ||
        volume->is_read_only)
        return;
    (void)start_upload(volume, volume->open, is_forced);
}

void vv_upload_excess(struct vv_volume *volume, struct vv_commit *commit, uint64_t bytes_max)
{
    volume->bulk_units++;
    while (commit->plain_bytes > bytes_max && !volume->is_fenced && !volume->is_abandoning) {
        if (vv_upload_is_full(volume) || !start_upload(volume, commit, true))
            vv_waitq_wait(&volume->uploads, vv_rt_now_ns() + EXCESS_WAIT_NS);
    }
    volume->bulk_units--;
}

void vv_upload_frozen(struct vv_volume *volume, struct vv_commit *commit)
{
    volume->bulk_units++;
    while (commit->plain_bytes >= VV_SYNC_SEGMENT_BYTES && volume->store_error == 0 &&
           !volume->is_fenced && !volume->is_abandoning) {
        if (vv_upload_is_full(volume))
            vv_waitq_wait(&volume->uploads, VV_NEVER);
        else if (!start_upload(volume, commit, true))
            break;
    }
    volume->bulk_units--;
}
