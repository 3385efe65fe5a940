/* Facts about a volume, settling it, and changing its settings. */
#include "volume/volume.h"

#include <assert.h>
#include <string.h>

#include "base/text.h"
#include "volume/op_impl.h"
#include "volume/sweep_impl.h"

/* Everything so far is in tables, behind the replay point. Suspends. */
int vv_volume_flush(struct vv_volume *volume)
{
    TRY(vv_volume_sync_bucket(volume));
    uint64_t target = volume->bucket_commit;
    if (vv_log_manifest(volume->log)->last_commit >= target)
        return 0;
    volume->is_flush_due = true;
    while (vv_log_manifest(volume->log)->last_commit < target || volume->is_flushing) {
        if (volume->is_fenced)
            return vv_volume_end_error(volume);
        if (volume->store_error < 0 && volume->store_error_tries > 2)
            return volume->store_error;
        vv_waitq_wake_all(&volume->commit_work);
        vv_waitq_wake_all(&volume->unit_work);
        vv_waitq_wake_all(&volume->flush_work);
        vv_waitq_wait(&volume->idle, vv_rt_now_ns() + 50 * VV_NS_PER_MS);
    }
    return 0;
}

static int wait_reclaims(struct vv_volume *volume)
{
    while (!vv_list_is_empty(&volume->drops) || !vv_list_is_empty(&volume->reclaims)) {
        vv_space_kick(volume);
        TRY(vv_volume_sync_bucket(volume));
        if (volume->is_fenced)
            return vv_volume_end_error(volume);
        vv_waitq_wait(&volume->idle, vv_rt_now_ns() + 10 * VV_NS_PER_MS);
    }
    return 0;
}

static int wait_sweep(struct vv_volume *volume)
{
    while (volume->is_sweep_due || volume->is_sweeping || volume->is_sweeping_orphans ||
           volume->is_compacting || volume->repack.is_running ||
           vv_lsm_compaction_score(volume->lsm) >= 1000) {
        if (volume->is_fenced)
            return vv_volume_end_error(volume);
        if (volume->repack.is_running && volume->store_error < 0 && volume->store_error_tries > 2)
            return volume->store_error;
        vv_waitq_wake_all(&volume->space_work);
        vv_waitq_wake_all(&volume->compact_work);
        vv_waitq_wait(&volume->idle, vv_rt_now_ns() + 10 * VV_NS_PER_MS);
    }
    return 0;
}

/* Older epochs are over with the first manifest of our own, whatever it is written for: what they left can be looked for
 * then, even if nothing has been changed since opening. */
static int end_older_epochs(struct vv_volume *volume)
{
    const struct vv_manifest *manifest = vv_log_manifest(volume->log);
    return manifest->epoch_count > 1 ? vv_manifest_write(volume, NULL, 0) : 0;
}

int vv_volume_settle(struct vv_volume *volume)
{
    if (volume->is_read_only)
        return 0;
    TRY(vv_volume_flush(volume));
    TRY(wait_reclaims(volume));
    TRY(vv_volume_flush(volume));
    TRY(end_older_epochs(volume));
    volume->is_sweep_due = true;
    vv_orphans_sweep(volume);
    return wait_sweep(volume);
}

int vv_volume_scan(struct vv_volume *volume, struct vv_bytes lower, struct vv_bytes upper,
                   struct vv_lsm_iter **out_iter)
{
    if (volume->is_shut_down)
        return -VV_ERR_SHUT_DOWN;
    return vv_lsm_iter_open(volume->lsm, lower, upper, out_iter);
}

int vv_volume_set_settings(struct vv_volume *volume, const struct vv_seal_settings *settings)
{
    if (volume->is_read_only)
        return -EROFS;
    volume->settings = *settings;
    return vv_manifest_write(volume, NULL, 0);
}

int vv_volume_set_keys(struct vv_volume *volume, const void *keys, size_t len)
{
    char name[VV_STORE_NAME_MAX + 1];
    if (volume->is_read_only)
        return -EROFS;
    struct vv_object_header header;
    TRY(vv_object_header_decode(keys, len, &header));
    uint64_t number = volume->keys_number + 1;
    int err;
    do {
        vv_format(name, sizeof name, "keys/%llu", (unsigned long long)number);
        struct iovec iov = {(void *)(uintptr_t)keys, len};
        err = vv_log_put_object(volume->log, name, header.attempt_id, &iov, 1);
        if (err == -VV_ERR_NOT_OURS)
            number++;
    } while (err == -VV_ERR_NOT_OURS);
    TRY(err);
    volume->keys_number = number;
    return vv_manifest_write(volume, NULL, 0);
}

void vv_volume_stats(const struct vv_volume *volume, struct vv_volume_stats *out_stats)
{
    struct vv_cache_stats cache;
    *out_stats = volume->stats;
    out_stats->epoch = volume->epoch;
    out_stats->open_commit = volume->open->number;
    out_stats->durable_commit = vv_durable_commit(volume);
    out_stats->bucket_commit = volume->bucket_commit;
    out_stats->dirty_bytes = volume->dirty_budget.used;
    vv_list_each (node, &volume->commits) {
        const struct vv_commit *commit = vv_list_entry(node, struct vv_commit, node);
        if (commit->is_frozen)
            out_stats->frozen_bytes += commit->plain_bytes;
    }
    out_stats->memtable_bytes = vv_lsm_memtable_bytes(volume->lsm);
    vv_cache_stats(volume->cache, &cache);
    out_stats->cache_bytes = cache.bytes;
    out_stats->memory_bytes = volume->budget.limit;
    out_stats->ranges = volume->range_count;
    vv_list_each (node, &volume->drops)
        out_stats->orphans++;
    if (volume->journal != NULL)
        out_stats->journal_bytes = vv_journal_bytes_written(volume->journal);
    out_stats->store_free = volume->store_free;
    out_stats->store_total = volume->store_total;
    out_stats->store_error = volume->store_error;
    out_stats->is_fenced = vv_volume_is_fenced(volume);
    out_stats->is_shut_down = volume->is_shut_down;
    out_stats->is_repacking = volume->repack.is_running;
    vv_lsm_stats(volume->lsm, &out_stats->lsm);
}

int vv_volume_refresh_space(struct vv_volume *volume)
{
    uint64_t free_bytes, total;
    int err = vv_store_space(volume->store, &free_bytes, &total);
    if (err == -EOPNOTSUPP) {
        volume->store_free = UINT64_MAX;
        volume->store_total = UINT64_MAX;
        return 0;
    }
    TRY(err);
    volume->store_free = free_bytes;
    volume->store_total = total;
    return 0;
}

const uint8_t *vv_volume_id(const struct vv_volume *volume)
{
    return vv_keyring_volume_id(volume->ring);
}

const struct vv_seal_settings *vv_volume_settings(const struct vv_volume *volume)
{
    return &volume->settings;
}

bool vv_volume_is_fenced(const struct vv_volume *volume)
{
    return volume->is_fenced && !volume->is_shut_down;
}

bool vv_volume_is_shut_down(const struct vv_volume *volume)
{
    return volume->is_shut_down;
}

struct vv_waitq *vv_volume_fence_waitq(struct vv_volume *volume)
{
    return &volume->fenced;
}
