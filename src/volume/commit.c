/* Commits: the open one, freezing, the journal, and waiting for durability. */
#include <assert.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/plant.h"
#include "volume/volume_impl.h"

#define BULK_TRIES_MAX (2 * VV_UPLOADS_MAX)
#define BULK_WAIT_NS (100 * VV_NS_PER_MS)
#define RECORD_PLAIN_MAX (16ull << 20) /* bytes of files in one record of the journal, which has room for changes besides */

int vv_commit_new(uint64_t number, struct vv_commit **out_commit)
{
    struct vv_commit *commit = vv_zalloc(sizeof *commit);
    if (commit == NULL)
        return -ENOMEM;
    commit->number = number;
    vv_list_init(&commit->node);
    vv_list_init(&commit->layers);
    commit->moved_to = &commit->layers;
    vv_list_init(&commit->touches);
    *out_commit = commit;
    return 0;
}

static void commit_free(struct vv_volume *volume, struct vv_commit *commit)
{
    assert(vv_list_is_empty(&commit->layers));
    while (!vv_list_is_empty(&commit->touches)) {
        struct vv_touch *touch = vv_list_first(&commit->touches, struct vv_touch, in_commit);
        vv_list_remove(&touch->in_commit);
        vv_map_remove(&volume->touches, &touch->node);
        vv_free(touch);
    }
    vv_list_remove(&commit->node);
    vv_free(commit);
}

void vv_commit_free_through(struct vv_volume *volume, uint64_t last)
{
    while (!vv_list_is_empty(&volume->commits)) {
        struct vv_commit *commit = vv_list_first(&volume->commits, struct vv_commit, node);
        if (commit->number > last || commit == volume->open)
            return;
        while (!vv_list_is_empty(&commit->layers))
            vv_layer_detach(volume, vv_list_first(&commit->layers, struct vv_layer, in_commit));
        commit_free(volume, commit);
    }
}

void vv_commit_free_all(struct vv_volume *volume)
{
    while (!vv_list_is_empty(&volume->commits))
        commit_free(volume, vv_list_first(&volume->commits, struct vv_commit, node));
    vv_free(volume->spare_commit);
    volume->spare_commit = NULL;
    volume->open = NULL;
}

int vv_commit_init(struct vv_volume *volume, uint64_t next_number)
{
    struct vv_commit *commit;
    TRY(vv_commit_new(next_number, &commit));
    commit->counters = volume->counters;
    vv_list_push_back(&volume->commits, &commit->node);
    volume->open = commit;
    return vv_commit_new(0, &volume->spare_commit);
}

uint64_t vv_durable_commit(const struct vv_volume *volume)
{
    if (volume->durability == VV_DURABILITY_JOURNAL &&
        volume->journaled_commit > volume->bucket_commit)
        return volume->journaled_commit;
    return volume->bucket_commit;
}

void vv_volume_fence(struct vv_volume *volume)
{
    if (volume->is_fenced)
        return;
    volume->is_fenced = true;
    vv_error("volume", "another server has taken this volume over: nothing more is made durable here");
    vv_volume_wake_all(volume);
}

void vv_volume_shut_down(struct vv_volume *volume)
{
    volume->is_shut_down = true;
    volume->is_fenced = true;
    vv_volume_wake_all(volume);
}

int vv_volume_end_error(const struct vv_volume *volume)
{
    return volume->is_shut_down ? -VV_ERR_SHUT_DOWN : -VV_ERR_FENCED;
}

void vv_volume_wake_all(struct vv_volume *volume)
{
    vv_waitq_wake_all(&volume->commit_work);
    vv_waitq_wake_all(&volume->unit_work);
    vv_waitq_wake_all(&volume->flush_work);
    vv_waitq_wake_all(&volume->compact_work);
    vv_waitq_wake_all(&volume->space_work);
    vv_waitq_wake_all(&volume->turn);
    vv_waitq_wake_all(&volume->durable);
    vv_waitq_wake_all(&volume->room);
    vv_waitq_wake_all(&volume->uploads);
    vv_waitq_wake_all(&volume->repack.work);
    vv_waitq_wake_all(&volume->fenced);
}

bool vv_commit_is_empty(const struct vv_commit *commit)
{
    return commit->opened_ns == 0;
}

static void on_timer(void *arg)
{
    struct vv_volume *volume = arg;
    volume->is_timer_due = true;
    vv_waitq_wake_all(&volume->commit_work);
}

static void on_unit_timer(void *arg)
{
    struct vv_volume *volume = arg;
    volume->is_unit_due = true;
    vv_waitq_wake_all(&volume->unit_work);
}

/* One operation alone is never too much. */
bool vv_commit_is_full(const struct vv_volume *volume, size_t bytes)
{
    return volume->open->change_bytes > 0 && !volume->is_stopping &&
           volume->open->change_bytes + bytes > VV_CHANGE_BYTES_MAX;
}

void vv_commit_changed(struct vv_volume *volume)
{
    struct vv_commit *open = volume->open;
    if (open->opened_ns == 0) {
        open->opened_ns = vv_rt_now_ns();
        if (vv_timer_set(&volume->commit_timer, open->opened_ns + volume->commit_delay_ns,
                         on_timer, volume) < 0)
            on_timer(volume);
    }
    bool is_inlining = vv_upload_is_inlining(volume) && open->plain_bytes < VV_INLINE_BYTES_MAX;
    if (open->plain_bytes >= vv_upload_due_bytes(volume)) {
        if (is_inlining)
            vv_waitq_wake_all(&volume->commit_work);
        else
            vv_upload_start(volume, false);
    }
    if (vv_lsm_newest_memtable_bytes(volume->lsm) >= volume->memtable_limit ||
        open->change_bytes >= VV_CHANGE_BYTES_DUE)
        vv_waitq_wake_all(&volume->commit_work);
}

bool vv_commit_applied(struct vv_volume *volume)
{
    const struct vv_commit *open = volume->open;
    uint64_t bytes = open->plain_bytes + open->change_bytes;
    if (!vv_volume_is_journaling(volume) || !vv_early_is_due(&volume->early, open->number, bytes))
        return false;
    volume->want_commit = open->number;
    volume->stats.early_commits++;
    vv_waitq_wake_all(&volume->commit_work);
    return true;
}

void vv_commit_press(struct vv_volume *volume)
{
    volume->is_pressed = true;
    if (volume->open->plain_bytes > 0)
        vv_upload_start(volume, true);
    vv_waitq_wake_all(&volume->commit_work);
    vv_waitq_wake_all(&volume->unit_work);
    vv_waitq_wake_all(&volume->flush_work);
}

/* Freeze the open commit: instant, between two operations (10). */
void vv_commit_freeze(struct vv_volume *volume)
{
    struct vv_commit *commit = volume->open;
    struct vv_commit *next = volume->spare_commit;
    assert(next != NULL && !commit->is_frozen);
    commit->is_frozen = true;
    commit->is_inlined = vv_upload_is_inlining(volume) && commit->plain_bytes < VV_INLINE_BYTES_MAX;
    commit->counters = volume->counters;
    if (vv_lsm_newest_memtable_bytes(volume->lsm) >= volume->memtable_limit ||
        volume->is_flush_due) {
        commit->is_boundary = vv_lsm_rotate(volume->lsm, commit->number) == 0;
        volume->is_flush_due = volume->is_flush_due && !commit->is_boundary;
        volume->dead_bytes = commit->is_boundary ? 0 : volume->dead_bytes;
    }
    commit->gathered_bytes = commit->plain_bytes;
    volume->gathered_bytes += commit->gathered_bytes;
    volume->gathered_boundaries += commit->is_boundary;
    next->number = commit->number + 1;
    next->counters = volume->counters;
    vv_list_push_back(&volume->commits, &next->node);
    volume->open = next;
    volume->spare_commit = NULL;
    volume->is_timer_due = false;
    volume->is_space_due = false;
    vv_timer_cancel(&volume->commit_timer);
    if (volume->uploads_under_way == 0)
        vv_upload_trim(volume);
    volume->stats.commits++;
}

/* Is there a reason to freeze now? */
static bool is_freeze_due(const struct vv_volume *volume)
{
    const struct vv_commit *open = volume->open;
    if (volume->is_ended)
        return false;
    if (volume->is_space_due || volume->is_flush_due)
        return true;
    if (vv_commit_is_empty(open))
        return false;
    return volume->is_stopping || volume->is_timer_due || volume->want_commit >= open->number ||
           vv_lsm_newest_memtable_bytes(volume->lsm) >= volume->memtable_limit ||
           open->change_bytes >= VV_CHANGE_BYTES_DUE ||
           (volume->is_pressed && volume->uploads_under_way == 0) ||
           (vv_upload_is_inlining(volume) && open->plain_bytes >= vv_upload_due_bytes(volume));
}

/* May the next commit be frozen, or is the pipeline full (then later changes share it)? */
static bool is_freeze_possible(struct vv_volume *volume)
{
    if (volume->spare_commit == NULL && vv_commit_new(0, &volume->spare_commit) < 0)
        return false;
    if (vv_volume_is_journaling(volume))
        return true;
    return volume->units_under_way < vv_unit_max(volume);
}

bool vv_volume_is_journaling(const struct vv_volume *volume)
{
    return volume->durability == VV_DURABILITY_JOURNAL && volume->journal != NULL &&
           !vv_journal_is_broken(volume->journal);
}

/* Wait until none of the commit's bytes is on its way into a data segment (17). */
int vv_commit_wait_uploads(struct vv_volume *volume, const struct vv_commit *commit)
{
    while (commit->moving_count > 0) {
        if (volume->is_fenced)
            return vv_volume_end_error(volume);
        if (volume->is_abandoning)
            return -VV_ERR_STOPPED;
        vv_waitq_wait(&volume->uploads, VV_NEVER);
    }
    return 0;
}

/* The journal's files lie on the same disk as a bounded store: what they take is not free any more. */
static void count_journal(struct vv_volume *volume)
{
    uint64_t held = vv_journal_bytes_held(volume->journal);
    if (held > volume->journal_held && volume->store_free != UINT64_MAX) {
        uint64_t more = held - volume->journal_held;
        volume->store_free -= volume->store_free < more ? volume->store_free : more;
    }
    volume->journal_held = held;
}

static int append_record(struct vv_volume *volume, struct vv_commit *commit)
{
    TRY(vv_commit_wait_uploads(volume, commit));
    struct vv_writer writer = vv_writer_new();
    int err = vv_record_encode(volume, commit, &writer);
    if (err == 0) {
        struct iovec iov = {writer.ptr, writer.len};
        err = vv_journal_append(volume->journal, commit->number, &iov, 1);
    }
    vv_writer_done(&writer);
    return err;
}

/* While the store or the journal was slow, more may have gathered than a record holds: that goes into data segments
 * first. */
static int journal_commit(struct vv_volume *volume, struct vv_commit *commit)
{
    vv_upload_excess(volume, commit, RECORD_PLAIN_MAX);
    int err = append_record(volume, commit);
    if (err == -VV_ERR_LIMIT && commit->plain_bytes > 0) {
        vv_upload_excess(volume, commit, 0);
        err = append_record(volume, commit);
    }
    if (err == -VV_ERR_LIMIT)
        vv_journal_give_up(volume->journal);
    count_journal(volume);
    if (err < 0)
        return err;
    commit->is_journaled = true;
    volume->journaled_commit = commit->number;
    if (!volume->is_unit_due && volume->unit_timer.heap_index == 0 &&
        vv_timer_set(&volume->unit_timer, vv_rt_now_ns() + volume->commit_delay_ns, on_unit_timer,
                     volume) < 0)
        on_unit_timer(volume);
    vv_waitq_wake_all(&volume->durable);
    return 0;
}

/* With a journal, bulk data goes into data segments, not twice over through it and a log object: what is left of
 * it in the open commit starts on its way now. With all uploads under way, waits for one to end; what is
 * written meanwhile may stay behind for the journal, so that this comes to an end. */
static void send_bulk(struct vv_volume *volume)
{
    uint64_t left = volume->open->plain_bytes;
    for (unsigned i = 0; i < BULK_TRIES_MAX && left >= VV_SYNC_SEGMENT_BYTES; i++) {
        if (volume->store_error != 0 || volume->is_fenced || volume->is_abandoning)
            return;
        if (vv_upload_is_full(volume)) {
            vv_waitq_wait(&volume->uploads, vv_rt_now_ns() + BULK_WAIT_NS);
            continue;
        }
        uint64_t before = volume->open->plain_bytes;
        vv_upload_start(volume, true);
        uint64_t sent = before - volume->open->plain_bytes;
        left -= sent < left ? sent : left;
    }
}

static void commit_once(struct vv_volume *volume)
{
    if (vv_volume_is_journaling(volume))
        send_bulk(volume);
    /* It may have waited: what was asked before it is asked again. */
    if (volume->is_fenced || volume->is_abandoning || volume->is_ended)
        return;
    struct vv_commit *commit = volume->open;
    vv_commit_freeze(volume);
    vv_waitq_wake_all(&volume->room);
    if (vv_volume_is_journaling(volume)) {
        int err = journal_commit(volume, commit);
        /* A journal that memory broke while it was being written stays broken. */
        while (err == -ENOMEM && !volume->is_fenced && !vv_journal_is_broken(volume->journal)) {
            vv_rt_sleep_ns(20 * VV_NS_PER_MS);
            err = journal_commit(volume, commit);
        }
        if (err < 0 && !volume->is_fenced && err != -VV_ERR_STOPPED)
            vv_error("volume", "the journal failed: %s; from now on syncs wait for the store",
                     vv_err_text(err));
    }
    vv_waitq_wake_all(&volume->unit_work);
}

void vv_commit_fiber(void *arg)
{
    struct vv_volume *volume = arg;
    while (!volume->is_fenced && !volume->is_abandoning) {
        if (is_freeze_due(volume) && is_freeze_possible(volume)) {
            commit_once(volume);
            continue;
        }
        if (volume->is_stopping && vv_commit_is_empty(volume->open))
            break;
        /* Without memory for the next commit it tries again by itself. */
        bool is_short = is_freeze_due(volume) && volume->spare_commit == NULL;
        vv_waitq_wait(&volume->commit_work,
                      is_short ? vv_rt_now_ns() + 20 * VV_NS_PER_MS : VV_NEVER);
    }
    vv_volume_fiber_ended(volume);
}

/* ---- waiting ---- */

/* Errors that will not pass by themselves soon: tell a sync at once. */
static bool is_lasting(int err)
{
    return err == -ENOSPC || err == -EROFS || err == -EDQUOT || err == -EACCES || err == -EPERM ||
           err == -ENODEV || err == -ENOTDIR;
}

bool vv_store_is_refusing(const struct vv_volume *volume)
{
    return is_lasting(volume->store_error) && volume->store_error_tries > 1;
}

static int wait_durable(struct vv_volume *volume, uint64_t target, bool is_bucket)
{
    uint64_t start = vv_rt_now_ns();
    for (;;) {
        uint64_t done = is_bucket ? volume->bucket_commit : vv_durable_commit(volume);
        if (done >= target)
            return 0;
        if (volume->is_fenced)
            return vv_volume_end_error(volume);
        if (vv_store_is_refusing(volume) &&
            (is_bucket || !vv_volume_is_journaling(volume)))
            return volume->store_error;
        if (vv_rt_now_ns() - start >= volume->sync_timeout_ns)
            return is_lasting(volume->store_error) ? volume->store_error : -EIO;
        vv_waitq_wait(&volume->durable, start + volume->sync_timeout_ns);
    }
}

static uint64_t newest_change(struct vv_volume *volume, uint64_t inode)
{
    const struct vv_commit *open = volume->open;
    if (inode == 0)
        return vv_commit_is_empty(open) ? open->number - 1 : open->number;
    struct vv_map_node *node = vv_map_find(&volume->touches, vv_mix64(inode));
    for (; node != NULL; node = vv_map_next(node)) {
        const struct vv_touch *touch = vv_container_of(node, struct vv_touch, node);
        if (touch->inode == inode && touch->commit < open->number &&
            vv_planted(VV_PLANT_IN_FLIGHT_IS_SYNCED))
            return 0;
        if (touch->inode == inode)
            return touch->commit;
    }
    return 0;
}

static void want(struct vv_volume *volume, uint64_t target)
{
    if (volume->want_commit < target)
        volume->want_commit = target;
    uint64_t bulk = vv_upload_is_inlining(volume) ? VV_INLINE_BYTES_MAX : VV_SYNC_SEGMENT_BYTES;
    if (target == volume->open->number && volume->open->plain_bytes >= bulk)
        vv_upload_start(volume, true);
    vv_waitq_wake_all(&volume->commit_work);
}

int vv_volume_sync(struct vv_volume *volume, uint64_t inode)
{
    if (volume->is_read_only)
        return 0;
    if (volume->is_fenced)
        return vv_volume_end_error(volume);
    uint64_t target = newest_change(volume, inode);
    if (vv_planted(VV_PLANT_SYNC_EARLY))
        return 0;
    vv_early_learn(&volume->early, target);
    if (target <= vv_durable_commit(volume))
        return 0;
    volume->synced_ns = vv_rt_now_ns();
    want(volume, target);
    volume->early.waiting++;
    int err = wait_durable(volume, target, false);
    volume->early.waiting--;
    return err;
}

int vv_commit_end(struct vv_volume *volume)
{
    uint64_t target = volume->open->number - 1;
    volume->is_ended = true;
    if (volume->want_bucket < target)
        volume->want_bucket = target;
    vv_waitq_wake_all(&volume->unit_work);
    int err = wait_durable(volume, target, true);
    volume->is_ended = err == 0;
    return err;
}

int vv_volume_sync_bucket(struct vv_volume *volume)
{
    uint64_t target = newest_change(volume, 0);
    want(volume, target);
    if (volume->want_bucket < target)
        volume->want_bucket = target;
    vv_waitq_wake_all(&volume->unit_work);
    return wait_durable(volume, target, true);
}
