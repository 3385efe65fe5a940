/* Units: runs of frozen commits on their way to the bucket as one log object each. */
#include "volume/repack_impl.h"

#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "base/plant.h"

static void unit_free(struct unit *unit)
{
    vv_unit_reclaims_undo(unit);
    vv_moves_settle(unit);
    vv_segment_builder_free(unit->builder);
    for (size_t i = 0; i < unit->extent_count; i++)
        vv_free(unit->extents[i].pieces);
    vv_free(unit->extents);
    vv_free(unit->frames);
    vv_free(unit->reclaimed);
    vv_free(unit->sums);
    vv_writer_done(&unit->batch);
    vv_lsm_pins_done(&unit->pins);
    vv_free(unit);
}

static int wait_turn(struct unit *unit)
{
    struct vv_volume *volume = unit->volume;
    while (volume->unit_turn != unit->ordinal && !vv_planted(VV_PLANT_OUT_OF_TURN)) {
        if (volume->is_fenced || volume->is_abandoning)
            return -VV_ERR_STOPPED;
        vv_waitq_wait(&volume->turn, VV_NEVER);
    }
    return 0;
}

/* Bulk data goes into data segments; what a journal holds of it already goes with the log object, and so does
 * that of a commit that takes it along. */
static void send_bulk(struct unit *unit)
{
    for (struct vv_commit *commit = unit->first_commit; commit != NULL;
         commit = vv_unit_next(unit, commit)) {
        if (!commit->is_journaled && !commit->is_inlined)
            vv_upload_frozen(unit->volume, commit);
    }
}

static int wait_moving(struct unit *unit)
{
    for (const struct vv_commit *commit = unit->first_commit; commit != NULL;
         commit = vv_unit_next(unit, commit))
        TRY(vv_commit_wait_uploads(unit->volume, commit));
    return 0;
}

struct finish {
    struct unit *unit;
    const struct iovec *iov;
    int iov_count;
    size_t bytes;
    int err;
};

static void finish_run(void *arg)
{
    struct finish *finish = arg;
    struct unit *unit = finish->unit;
    finish->err = vv_segment_finish(unit->builder, unit->batch.ptr, unit->batch.len, &finish->iov,
                                    &finish->iov_count, &finish->bytes);
}

static int put(struct unit *unit)
{
    struct vv_volume *volume = unit->volume;
    struct finish finish = {.unit = unit};
    for (;;) {
        if (unit->batch.len > 16384)
            vv_rt_offload(finish_run, &finish);
        else
            finish_run(&finish);
        if (finish.err != -ENOMEM)
            break;
        vv_rt_sleep_ns(20 * VV_NS_PER_MS);
    }
    TRY(finish.err);
    if (volume->is_shut_down)
        return -VV_ERR_STOPPED;
    volume->stats.log_bytes += finish.bytes;
    unit->put_bytes = finish.bytes;
    volume->tail_bytes += finish.bytes;
    uint64_t begun_ns = vv_rt_now_ns();
    uint64_t put_before = volume->put_bytes;
    volume->puts_under_way++;
    int err = vv_log_put(volume->log, &unit->id, unit->attempt_id, finish.iov, finish.iov_count);
    volume->puts_under_way--;
    if (err == 0)
        vv_put_measured(volume, finish.bytes, vv_rt_now_ns() - begun_ns, put_before);
    return err;
}

/* Bytes that are a frame of their own go to the cache instead of the heap. */
static void cache_frames(struct unit *unit)
{
    for (size_t i = 0; i < unit->frame_count; i++) {
        struct vv_layer *layer = unit->frames[i].layer;
        if (layer->buf == NULL || layer->buf->refs != 1 || layer->buf_at != layer->from)
            continue;
        struct vv_cache_key key;
        vv_frame_cache_key(&unit->frames[i].loc, &key);
        uint32_t len = layer->to - layer->from;
        uint8_t *bytes = vv_buf_strip(layer->buf, len);
        if (len <= VV_PIECE_BYTES)
            vv_cache_put_warm(unit->volume->cache, &key, bytes, len);
        else
            vv_cache_put(unit->volume->cache, &key, bytes, len, NULL);
    }
}

static void confirmed(struct unit *unit, struct vv_tail_entry *entry)
{
    struct vv_volume *volume = unit->volume;
    volume->bucket_commit = unit->last;
    unit->is_confirmed = true;
    cache_frames(unit);
    vv_unit_reclaims_confirmed(unit);
    vv_commit_free_through(volume, unit->last);
    entry->last_commit = unit->last;
    entry->next_seq = unit->id.counter + 1;
    if (volume->store_free != UINT64_MAX)
        volume->store_free -= volume->store_free < unit->put_bytes ? volume->store_free
                                                                    : unit->put_bytes;
    vv_list_push_back(&volume->tail, &entry->node);
    volume->tail_count++;
    if (volume->journal != NULL)
        vv_journal_trim(volume->journal, unit->last);
    vv_flush_look(volume);
    vv_space_kick(volume);
    vv_volume_wake_all(volume);
}

static void unit_run(void *arg)
{
    struct unit *unit = arg;
    struct vv_volume *volume = unit->volume;
    struct vv_tail_entry *entry = NULL;
    while ((entry = vv_zalloc(sizeof *entry)) == NULL)
        vv_rt_sleep_ns(20 * VV_NS_PER_MS);
    send_bulk(unit);
    int err = wait_moving(unit);
    if (err == 0)
        err = vv_unit_compose(unit);
    if (err == 0)
        err = wait_turn(unit);
    if (err == 0)
        err = vv_unit_finalise(unit);
    volume->unit_turn++;
    vv_waitq_wake_all(&volume->turn);
    if (err == 0)
        err = put(unit);
    /* Puts are confirmed in order, but their fibers may run in any. */
    while (err == 0 && volume->confirm_turn != unit->ordinal) {
        if (volume->is_fenced || volume->is_abandoning)
            err = -VV_ERR_STOPPED;
        else
            vv_waitq_wait(&volume->turn, VV_NEVER);
    }
    if (err == 0) {
        confirmed(unit, entry);
        volume->confirm_turn++;
        vv_waitq_wake_all(&volume->turn);
    } else {
        vv_free(entry);
        if (err != -VV_ERR_STOPPED && err != -VV_ERR_FENCED && err != -VV_ERR_SHUT_DOWN)
            vv_error("volume", "commits %llu to %llu failed for good: %s",
                     (unsigned long long)unit->first, (unsigned long long)unit->last,
                     vv_err_text(err));
        if (err != -VV_ERR_STOPPED)
            vv_volume_fence(volume);
    }
    unit_free(unit);
    volume->units_under_way--;
    vv_volume_wake_all(volume);
    vv_volume_fiber_ended(volume);
}

/* The commits that the next unit takes: from the first that is in none. */
static bool choose(struct vv_volume *volume, struct vv_commit **out_first,
                   struct vv_commit **out_last)
{
    bool is_journaling = vv_volume_is_journaling(volume);
    uint64_t bytes = 0;
    uint64_t changes = 0;
    *out_first = NULL;
    *out_last = NULL;
    vv_list_each (node, &volume->commits) {
        struct vv_commit *commit = vv_list_entry(node, struct vv_commit, node);
        if (commit->is_in_unit)
            continue;
        if (!commit->is_frozen || (is_journaling && !commit->is_journaled))
            break;
        changes += commit->change_bytes;
        if (*out_first != NULL && changes > VV_CHANGE_BYTES_MAX)
            break;
        if (*out_first == NULL)
            *out_first = commit;
        *out_last = commit;
        bytes += commit->plain_bytes;
        if (commit->is_boundary || bytes >= VV_UNIT_BYTES_MAX)
            break;
    }
    return *out_first != NULL;
}

/* In journal mode uploads gather for a while; otherwise a frozen commit goes at once. Asked after every
 * commit, of which there may be thousands that wait, so it looks at none of them. */
static bool is_unit_due(const struct vv_volume *volume)
{
    return !vv_volume_is_journaling(volume) || volume->is_stopping || volume->is_pressed ||
           volume->is_unit_due || volume->gathered_boundaries > 0 ||
           volume->want_bucket > volume->bucket_commit ||
           volume->gathered_bytes >= VV_JOURNAL_UNIT_BYTES ||
           volume->gathered_bytes >= volume->dirty_budget.limit / 4;
}

unsigned vv_unit_max(const struct vv_volume *volume)
{
    return vv_upload_is_inlining(volume) ? VV_INLINED_UNITS_MAX : VV_UNITS_MAX;
}

static struct unit *unit_new(struct vv_volume *volume, struct vv_commit *first,
                             struct vv_commit *last)
{
    struct unit *unit = vv_zalloc(sizeof *unit);
    if (unit == NULL)
        return NULL;
    unit->volume = volume;
    unit->first = first->number;
    unit->last = last->number;
    unit->first_commit = first;
    unit->last_commit = last;
    unit->counters = last->counters;
    unit->is_boundary = last->is_boundary;
    unit->id = vv_log_next_id(volume->log);
    unit->batch = vv_writer_new();
    vv_list_init(&unit->done_ranges);
    vv_list_init(&unit->done_drops);
    vv_lsm_pins_init(&unit->pins);
    if (vv_segment_builder_new(volume->ring, &unit->id, &volume->settings, &unit->builder) < 0) {
        unit_free(unit);
        return NULL;
    }
    memcpy(unit->attempt_id, vv_segment_builder_header(unit->builder)->attempt_id, 16);
    return unit;
}

static int unit_start(struct vv_volume *volume, struct vv_commit *first, struct vv_commit *last)
{
    struct unit *unit = unit_new(volume, first, last);
    if (unit == NULL)
        return -ENOMEM;
    int err = vv_fiber_start(unit_run, unit, "unit");
    if (err < 0) {
        unit_free(unit);
        return err;
    }
    vv_log_assign(volume->log, unit->attempt_id, unit->previous_attempt_id);
    unit->ordinal = volume->unit_ordinal++;
    volume->units_under_way++;
    volume->fibers++;
    for (struct vv_commit *commit = first;;
         commit = vv_list_entry(commit->node.next, struct vv_commit, node)) {
        commit->is_in_unit = true;
        volume->gathered_boundaries -= commit->is_boundary;
        volume->gathered_bytes -= commit->gathered_bytes;
        if (commit == last)
            break;
    }
    return 0;
}

/* Is everything out, so that the gatherer may end? */
static bool is_drained(const struct vv_volume *volume)
{
    return volume->is_stopping && vv_commit_is_empty(volume->open) &&
           volume->bucket_commit + 1 >= volume->open->number;
}

void vv_unit_fiber(void *arg)
{
    struct vv_volume *volume = arg;
    while (!volume->is_fenced && !volume->is_abandoning && !is_drained(volume)) {
        struct vv_commit *first, *last;
        if (volume->units_under_way < vv_unit_max(volume) && is_unit_due(volume) &&
            choose(volume, &first, &last)) {
            if (unit_start(volume, first, last) < 0) {
                vv_rt_sleep_ns(20 * VV_NS_PER_MS);
                continue;
            }
            struct vv_commit *rest_first, *rest_last;
            if (!choose(volume, &rest_first, &rest_last)) {
                volume->is_unit_due = false;
                volume->is_pressed = volume->dirty_waiters > 0;
            }
            continue;
        }
        vv_waitq_wait(&volume->unit_work, VV_NEVER);
    }
    vv_volume_fiber_ended(volume);
}
