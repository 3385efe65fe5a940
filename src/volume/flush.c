/* Flushing memtables, compaction, and the manifests that make both take effect (PROTOCOL 13). */
#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "base/plant.h"
#include "volume/sweep_impl.h"

#define COMPACT_AFTER_NS (500 * VV_NS_PER_MS) /* of opening */

static uint64_t replay_seq_after(const struct vv_volume *volume, uint64_t commit)
{
    uint64_t seq = 0;
    const struct vv_manifest *manifest = vv_log_manifest(volume->log);
    for (size_t i = 0; i < manifest->epoch_count; i++) {
        if (manifest->epochs[i].epoch == volume->epoch)
            seq = manifest->epochs[i].replay_seq;
    }
    vv_list_each (node, &volume->tail) {
        const struct vv_tail_entry *entry = vv_list_entry(node, struct vv_tail_entry, node);
        if (entry->last_commit <= commit)
            seq = entry->next_seq;
    }
    return vv_planted(VV_PLANT_WRONG_REPLAY) ? seq + 1 : seq;
}

/* The epochs that are live once the tables hold everything through `commit`. */
static void set_epochs(struct vv_volume *volume, struct vv_manifest *manifest, uint64_t commit)
{
    bool is_all = commit >= vv_log_last_commit(volume->log);
    size_t kept = 0;
    for (size_t i = 0; i < manifest->epoch_count; i++) {
        struct vv_epoch_ref *ref = &manifest->epochs[i];
        if (ref->epoch == volume->epoch)
            ref->replay_seq = replay_seq_after(volume, commit);
        else if (is_all)
            continue;
        manifest->epochs[kept++] = *ref;
    }
    manifest->epoch_count = kept;
}

static int build_manifest(struct vv_volume *volume, struct vv_lsm_edit *edit, uint64_t commit,
                          struct vv_manifest *manifest)
{
    TRY(vv_manifest_copy(vv_log_manifest(volume->log), manifest));
    vv_table_refs_free(manifest->tables, manifest->table_count);
    manifest->tables = NULL;
    manifest->table_count = 0;
    TRY(vv_lsm_tables(volume->lsm, edit, &manifest->tables, &manifest->table_count));
    manifest->settings = volume->settings;
    manifest->keys_number = volume->keys_number;
    manifest->counters = volume->counters;
    if (commit > manifest->last_commit)
        manifest->last_commit = commit;
    set_epochs(volume, manifest, manifest->last_commit);
    return 0;
}

static void forget_tail(struct vv_volume *volume, uint64_t commit)
{
    while (!vv_list_is_empty(&volume->tail)) {
        struct vv_tail_entry *entry = vv_list_first(&volume->tail, struct vv_tail_entry, node);
        if (entry->last_commit > commit)
            return;
        vv_list_remove(&entry->node);
        vv_free(entry);
        volume->tail_count--;
    }
}

static int build_and_write(struct vv_volume *volume, struct vv_lsm_edit *edit, uint64_t commit)
{
    struct vv_manifest manifest = {0};
    int err = build_manifest(volume, edit, commit, &manifest);
    if (err == 0)
        err = vv_log_write_manifest(volume->log, &manifest);
    vv_manifest_done(&manifest);
    return err;
}

int vv_manifest_write(struct vv_volume *volume, struct vv_lsm_edit *edit, uint64_t flushed_commit)
{
    while (volume->is_writing_manifest)
        vv_waitq_wait(&volume->manifest_free, VV_NEVER);
    volume->is_writing_manifest = true;
    int err = -VV_ERR_SHUT_DOWN;
    while (!volume->is_shut_down &&
           (err = build_and_write(volume, edit, flushed_commit)) == -ENOMEM)
        vv_rt_sleep_ns(20 * VV_NS_PER_MS); /* nothing has been written */
    if (err == 0) {
        if (edit != NULL)
            vv_lsm_apply(volume->lsm, edit);
        forget_tail(volume, flushed_commit);
        if (flushed_commit != 0)
            volume->tail_bytes = 0;
        volume->is_sweep_due = true;
        vv_orphans_sweep(volume);
    } else {
        if (edit != NULL)
            vv_lsm_abandon(volume->lsm, edit);
        if (err != -VV_ERR_STOPPED)
            vv_volume_fence(volume);
    }
    volume->is_writing_manifest = false;
    vv_waitq_wake_one(&volume->manifest_free);
    vv_volume_wake_all(volume);
    return err;
}

/* The commit through which memtables can be flushed now; 0 = none. */
static uint64_t flushable(const struct vv_volume *volume)
{
    uint64_t commit = vv_lsm_flushable_commit(volume->lsm);
    return commit != 0 && commit <= volume->bucket_commit ? commit : 0;
}

void vv_flush_look(struct vv_volume *volume)
{
    bool is_due = volume->tail_count >= VV_TAIL_OBJECTS_MAX ||
                  volume->tail_bytes >= VV_TAIL_BYTES_MAX ||
                  volume->dead_bytes >= VV_DEAD_BYTES_FLUSH ||
                  vv_lsm_newest_memtable_bytes(volume->lsm) >= volume->memtable_limit;
    if (!is_due || vv_lsm_flushable_commit(volume->lsm) != 0 || volume->is_flush_due)
        return;
    volume->is_flush_due = true;
    vv_waitq_wake_all(&volume->commit_work);
}

static void flush_once(struct vv_volume *volume, uint64_t commit)
{
    struct vv_lsm_edit *edit = NULL;
    volume->is_flushing = true;
    int err = vv_lsm_prepare_flush(volume->lsm, commit, &edit);
    if (err == 0)
        err = vv_manifest_write(volume, edit, commit);
    volume->is_flushing = false;
    if (err == 0)
        vv_flush_look(volume);
    if (err < 0 && !volume->is_fenced && !volume->is_abandoning) {
        vv_warn("volume", "flushing the metadata: %s; it is tried again", vv_err_text(err));
        vv_rt_sleep_ns(200 * VV_NS_PER_MS);
    }
    vv_waitq_wake_all(&volume->idle);
}

void vv_flush_fiber(void *arg)
{
    struct vv_volume *volume = arg;
    while (!volume->is_fenced && !volume->is_abandoning) {
        uint64_t commit = flushable(volume);
        if (commit != 0) {
            flush_once(volume, commit);
            continue;
        }
        if (volume->is_stopping)
            break;
        vv_waitq_wait(&volume->flush_work, VV_NEVER);
    }
    vv_volume_fiber_ended(volume);
}

/* A table that is gone was removed by who has taken the volume over (PROTOCOL 14). A server that
 * commits nothing learns of it here; otherwise it would look for that table for ever. */
static void look_for_successor(struct vv_volume *volume)
{
    if (vv_log_check_fenced(volume->log) == -VV_ERR_FENCED)
        vv_volume_fence(volume);
}

/* Who has just opened a volume wants its first answers: merging, which takes the line for itself, can wait a moment. */
static void wait_for_first_ones(struct vv_volume *volume)
{
    uint64_t end = vv_rt_now_ns() + COMPACT_AFTER_NS;
    while (vv_rt_now_ns() < end && !volume->is_fenced && !volume->is_abandoning &&
           !volume->is_stopping && !vv_lsm_is_stalled(volume->lsm))
        vv_waitq_wait(&volume->compact_work, end);
}

void vv_compact_fiber(void *arg)
{
    struct vv_volume *volume = arg;
    wait_for_first_ones(volume);
    while (!volume->is_fenced && !volume->is_abandoning && !volume->is_stopping) {
        struct vv_lsm_edit *edit = NULL;
        int err = 0;
        if (vv_lsm_compaction_score(volume->lsm) >= 1000) {
            volume->is_compacting = true;
            err = vv_lsm_prepare_compaction(volume->lsm, &edit);
            if (err == 0 && edit != NULL)
                err = vv_manifest_write(volume, edit, 0);
            volume->is_compacting = false;
            vv_waitq_wake_all(&volume->idle);
            vv_waitq_wake_all(&volume->room);
        }
        if (err == -ENOENT && !volume->is_abandoning)
            look_for_successor(volume);
        if (err < 0 && !volume->is_fenced && !volume->is_abandoning && !volume->is_stopping) {
            vv_warn("volume", "compacting the metadata: %s; it is tried again", vv_err_text(err));
            vv_rt_sleep_ns(500 * VV_NS_PER_MS);
        } else if (edit == NULL && !volume->is_stopping && !volume->is_fenced) {
            vv_waitq_wait(&volume->compact_work, VV_NEVER);
        }
    }
    vv_volume_fiber_ended(volume);
}
