/* Opening and closing a volume. */
#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "base/plant.h"
#include "volume/repack_impl.h"
#include "volume/sweep_impl.h"

#define MEMORY_MIN (16ull << 20)
#define DIRTY_SHARE_MAX (128ull << 20)    /* more of it makes nothing quicker, and syncs longer */
#define MEMTABLE_SHARE_MAX (128ull << 20) /* three of the largest, and what finalising reserves */
#define WORK_SHARE_MAX (192ull << 20)     /* four segments on their way, sealed beside plain, and requests */
#define WORK_SHARE_PART 16                /* of the memory, besides */
#define COMMIT_DELAY_DEFAULT_NS VV_NS_PER_S
#define JOURNAL_STORE_PART 32 /* a file of the journal is at most this part of a bounded store */
#define JOURNAL_FILE_MIN (2ull << 20)
#define SYNC_TIMEOUT_DEFAULT_NS (30 * VV_NS_PER_S)
#define LIVE_EPOCHS_FLUSH 8       /* live epochs (openings without a flush) that are worth one */
#define REPLAYED_OBJECTS_FLUSH 16 /* log objects replayed that are worth a flush */

static uint64_t bounded(uint64_t value, uint64_t low, uint64_t high)
{
    if (value < low)
        return low;
    return value > high ? high : value;
}

/* How the one memory setting is divided: what more of does not help is bounded, the cache has the rest. A quarter
 * each, up to there, is for dirty bytes, for memtables, and for sealing, uploads, replay, compaction, requests and the
 * code itself, which also grows with what the cache's blocks cost beside their bytes. */
static void share_memory(struct vv_volume *volume, const struct vv_volume_options *options)
{
    uint64_t memory = options->memory_bytes < MEMORY_MIN ? MEMORY_MIN : options->memory_bytes;
    uint64_t dirty = bounded(memory / 4, 0, DIRTY_SHARE_MAX);
    uint64_t mem = bounded(memory / 4, 0, MEMTABLE_SHARE_MAX);
    uint64_t work = bounded(memory / 4, 0, WORK_SHARE_MAX + memory / WORK_SHARE_PART);
    vv_budget_init(&volume->budget, NULL, memory);
    vv_budget_init(&volume->dirty_budget, &volume->budget, dirty);
    vv_budget_init(&volume->mem_budget, NULL, mem);
    vv_budget_init(&volume->cache_budget, NULL, memory - dirty - mem - work);
    volume->memtable_limit = bounded(memory / 24, 512 << 10, 32 << 20);
    volume->segment_bytes = bounded(memory / 32, 256 << 10, 16 << 20);
    if (options->segment_bytes != 0)
        volume->segment_bytes = bounded(options->segment_bytes, 64 << 10, 64 << 20);
}

static void init_queues(struct vv_volume *volume)
{
    struct vv_waitq *queues[] = {&volume->commit_work,  &volume->unit_work, &volume->flush_work,
                                 &volume->compact_work, &volume->space_work, &volume->turn,
                                 &volume->durable,      &volume->room,       &volume->uploads,
                                 &volume->fenced,       &volume->idle, &volume->manifest_free};
    for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++)
        vv_waitq_init(queues[i]);
    vv_list_init(&volume->new_segments);
    vv_list_init(&volume->reclaims);
    vv_list_init(&volume->drops);
    vv_list_init(&volume->tail);
    vv_list_init(&volume->commits);
    vv_list_init(&volume->streams);
}

static void on_store_state(void *arg, int err)
{
    struct vv_volume *volume = arg;
    /* One line when it goes and one when it is back, not one for each request. */
    if (err == 0 && volume->store_error != 0)
        vv_info("volume", "the store answers again, after %u failed tries in %.1f s",
                volume->store_error_tries,
                (double)(vv_rt_now_ns() - volume->store_error_ns) / (double)VV_NS_PER_S);
    if (err < 0 && volume->store_error == 0) {
        vv_warn("volume", "the store: %s; it is tried again", vv_err_text(err));
        volume->store_error_ns = vv_rt_now_ns();
    }
    volume->store_error = err;
    volume->store_error_tries = err == 0 ? 0 : volume->store_error_tries + 1;
    vv_waitq_wake_all(&volume->durable);
}

static int put_table(void *arg, const char *name, const uint8_t attempt_id[16],
                     const struct iovec *iov, int count)
{
    struct vv_volume *volume = arg;
    return vv_log_put_object(volume->log, name, attempt_id, iov, count);
}

static int make_parts(struct vv_volume *volume)
{
    TRY(vv_map_init(&volume->data));
    TRY(vv_map_init(&volume->extents));
    TRY(vv_map_init(&volume->touches));
    TRY(vv_map_init(&volume->range_places));
    TRY(vv_map_init(&volume->segrefs));
    TRY(vv_map_init(&volume->candidates));
    TRY(vv_cache_new(&volume->cache_budget, volume->cache_budget.limit, &volume->cache));
    struct vv_lsm_options options = {
        .store = volume->store,
        .ring = volume->ring,
        .cache = volume->cache,
        .mem_budget = &volume->mem_budget,
        .table_bytes = bounded(volume->budget.limit / 32, 256 << 10, 8 << 20),
        .level1_bytes = bounded(volume->budget.limit / 4, 2 << 20, 64 << 20),
        .put = put_table,
        .put_arg = volume,
        .settings = &volume->settings,
    };
    return vv_lsm_new(&options, &volume->lsm);
}

/* ---- replay ---- */

/* Brings what opening will ask for into the cache while the claim is on its way: the root, and the records of
 * space. Errors show again when it is asked for. */
static void warm_root(void *arg)
{
    struct vv_volume *volume = arg;
    uint8_t bytes[9] = {VV_TABLE_INODE};
    struct vv_lsm_pins pins;
    vv_store_be64(bytes + 1, VV_ROOT_INODE);
    struct vv_bytes key = {bytes, sizeof bytes};
    vv_lsm_pins_init(&pins);
    uint64_t begun_ns = vv_rt_now_ns();
    if (vv_lsm_fetch(volume->lsm, &key, 1, &pins) < 0)
        vv_debug("volume", "the root was not read ahead");
    volume->get_ns = vv_rt_now_ns() - begun_ns; /* a first notion of how quick the store is */
    vv_lsm_pins_done(&pins);
    volume->warming--;
    vv_volume_fiber_ended(volume);
}

static void warm_space(void *arg)
{
    struct vv_volume *volume = arg;
    struct vv_bytes lower = {(const uint8_t *)"R", 1};
    struct vv_bytes upper = {(const uint8_t *)"U", 1};
    struct vv_bytes key, value;
    struct vv_lsm_iter *iter;
    if (vv_lsm_iter_open(volume->lsm, lower, upper, &iter) == 0) {
        while (!volume->is_abandoning && vv_lsm_iter_next(iter, &key, &value) > 0)
            continue;
        vv_lsm_iter_close(iter);
    }
    volume->warming--;
    vv_volume_fiber_ended(volume);
}

static void replay_hint(void *arg, const struct vv_manifest *manifest)
{
    struct vv_volume *volume = arg;
    void (*const fns[])(void *) = {warm_root, warm_space};
    volume->hinted_manifest = 0;
    if (volume->warming > 0 ||
        vv_lsm_load(volume->lsm, manifest->tables, manifest->table_count) < 0)
        return;
    volume->hinted_manifest = manifest->number;
    for (size_t i = 0; i < sizeof fns / sizeof fns[0]; i++) {
        if (vv_fiber_start(fns[i], volume, "warm up") < 0)
            return;
        volume->warming++;
        volume->fibers++;
    }
}

static int replay_base(void *arg, const struct vv_manifest *manifest)
{
    struct vv_volume *volume = arg;
    bool is_loaded = volume->hinted_manifest != 0 &&
                     volume->hinted_manifest + 1 == manifest->number;
    volume->hinted_manifest = 0;
    volume->settings = manifest->settings;
    volume->keys_number = manifest->keys_number;
    volume->counters = manifest->counters;
    volume->tail_count = 0;
    if (is_loaded)
        return 0;
    while (volume->warming > 0)
        vv_waitq_wait(&volume->idle, VV_NEVER);
    return vv_lsm_load(volume->lsm, manifest->tables, manifest->table_count);
}

static int replay_batch(void *arg, const struct vv_segment_id *id,
                        const struct vv_batch_header *header, struct vv_bytes payload,
                        uint64_t object_bytes)
{
    struct vv_volume *volume = arg;
    (void)id;
    (void)object_bytes;
    volume->tail_count++;
    return vv_lsm_changes_apply(volume->lsm, header->first_commit + header->count - 1, payload);
}

static int apply_record(void *arg, uint64_t commit, struct vv_bytes plain)
{
    return vv_record_apply(arg, commit, plain);
}

static void take_counters(struct vv_volume *volume, struct vv_counters counters)
{
    if (counters.next_inode > volume->counters.next_inode)
        volume->counters.next_inode = counters.next_inode;
    if (counters.next_data_id > volume->counters.next_data_id)
        volume->counters.next_data_id = counters.next_data_id;
}

static int replay_journal(struct vv_volume *volume, uint64_t last, bool is_current,
                          uint64_t *out_last)
{
    *out_last = last;
    if (volume->journal == NULL)
        return 0;
    if (!is_current)
        return vv_journal_reset(volume->journal, last + 1);
    TRY(vv_journal_scan(volume->journal, last, apply_record, volume, out_last));
    if (*out_last > last)
        vv_info("volume", "the journal holds %llu commits that the store has not: sending them",
                (unsigned long long)(*out_last - last));
    return *out_last == last ? vv_journal_reset(volume->journal, last + 1) : 0;
}

static int open_log(struct vv_volume *volume, const struct vv_volume_options *options)
{
    struct vv_log_options log_options = {
        .store = volume->store,
        .ring = volume->ring,
        .journal_id = volume->journal != NULL ? vv_journal_id(volume->journal) : NULL,
        .is_abandoning_journal = options->is_abandoning_journal,
        .is_journal_holding_records =
            volume->journal != NULL && !vv_journal_is_empty(volume->journal),
        .is_syncing_replay = options->is_syncing_replay,
        .seen = options->seen,
        .on_store_state = on_store_state,
        .on_store_state_arg = volume,
    };
    struct vv_log_replay replay = {
        .arg = volume, .hint = replay_hint, .base = replay_base, .batch = replay_batch};
    bool is_current = false;
    uint64_t last = 0;
    if (volume->is_read_only) {
        struct vv_manifest manifest = {0};
        TRY(vv_log_read(&log_options, &replay, &manifest));
        volume->epoch = manifest.epoch;
        vv_manifest_done(&manifest);
        return vv_commit_init(volume, UINT64_MAX / 2);
    }
    TRY(vv_log_open(&log_options, &replay, &volume->log, &is_current));
    volume->epoch = vv_log_epoch(volume->log);
    vv_lsm_set_epoch(volume->lsm, volume->epoch);
    take_counters(volume, vv_log_counters(volume->log));
    volume->bucket_commit = vv_log_last_commit(volume->log);
    volume->finalised_commit = volume->bucket_commit;
    TRY(replay_journal(volume, volume->bucket_commit, is_current, &last));
    TRY(vv_space_adopt(volume));
    volume->journaled_commit = last;
    volume->replayed_commit = last;
    volume->is_unit_due = last > volume->bucket_commit;
    volume->is_flush_due = volume->tail_count > REPLAYED_OBJECTS_FLUSH ||
                           vv_log_manifest(volume->log)->epoch_count > LIVE_EPOCHS_FLUSH;
    volume->tail_count = 0;
    return vv_commit_init(volume, last + 1);
}

static int start_fibers(struct vv_volume *volume)
{
    struct {
        void (*fn)(void *);
        const char *name;
    } fibers[] = {{vv_commit_fiber, "commit"},
                  {vv_unit_fiber, "units"},
                  {vv_flush_fiber, "flush"},
                  {vv_compact_fiber, "compact"},
                  {vv_space_fiber, "space"}};
    for (size_t i = 0; i < sizeof fibers / sizeof fibers[0]; i++) {
        TRY(vv_fiber_start(fibers[i].fn, volume, fibers[i].name));
        volume->fibers++;
    }
    return 0;
}

void vv_volume_fiber_ended(struct vv_volume *volume)
{
    volume->fibers--;
    vv_waitq_wake_all(&volume->idle);
}

/* Ends every fiber without sending anything more, and frees everything. */
static void tear_down(struct vv_volume *volume)
{
    volume->is_abandoning = true;
    volume->is_stopping = true;
    vv_timer_cancel(&volume->commit_timer);
    vv_timer_cancel(&volume->unit_timer);
    vv_ahead_free(volume);
    vv_volume_wake_all(volume);
    vv_log_stop(volume->log); /* background fibers may still call it */
    while (volume->fibers > 0) {
        vv_volume_wake_all(volume);
        vv_waitq_wait(&volume->idle, VV_NEVER);
    }
    vv_log_close(volume->log);
    vv_timer_cancel(&volume->commit_timer);
    vv_timer_cancel(&volume->unit_timer);
    vv_upload_trim(volume);
    vv_volume_free_dirty(volume);
    vv_commit_free_all(volume);
    vv_space_free(volume);
    vv_lsm_free(volume->lsm);
    vv_cache_free(volume->cache);
    vv_journal_close(volume->journal);
    vv_map_done(&volume->data);
    vv_map_done(&volume->extents);
    vv_map_done(&volume->touches);
    vv_map_done(&volume->range_places);
    vv_map_done(&volume->segrefs);
    vv_map_done(&volume->candidates);
    vv_free(volume);
}

/* Small stores get small journal files: two of them may exist before the first can be used again. */
static uint64_t journal_file_bytes(const struct vv_volume *volume,
                                   const struct vv_volume_options *options)
{
    if (options->journal_file_bytes != 0)
        return options->journal_file_bytes;
    uint64_t bytes = volume->store_total / JOURNAL_STORE_PART;
    if (bytes < JOURNAL_FILE_MIN)
        return JOURNAL_FILE_MIN;
    return bytes < VV_JOURNAL_FILE_BYTES ? bytes : VV_JOURNAL_FILE_BYTES;
}

static int open_parts(struct vv_volume *volume, const struct vv_volume_options *options)
{
    TRY(make_parts(volume));
    if (vv_volume_refresh_space(volume) < 0)
        vv_warn("volume", "the store does not say how much room it has");
    if (options->journal_path != NULL && !options->is_read_only) {
        volume->journal_file_bytes = journal_file_bytes(volume, options);
        TRY(vv_journal_open(options->journal_path, options->ring, &volume->settings,
                            volume->journal_file_bytes, &volume->journal));
        volume->journal_held = vv_journal_bytes_held(volume->journal);
    }
    TRY(open_log(volume, options));
    if (options->settings != NULL)
        volume->settings = *options->settings;
    TRY(vv_space_load(volume));
    return volume->is_read_only ? 0 : start_fibers(volume);
}

int vv_volume_open(const struct vv_volume_options *options, struct vv_volume **out_volume)
{
    struct vv_volume *volume = vv_zalloc(sizeof *volume);
    if (volume == NULL)
        return -ENOMEM;
    volume->store = options->store;
    volume->ring = options->ring;
    volume->durability = options->durability;
    volume->is_read_only = options->is_read_only;
    volume->commit_delay_ns =
        options->commit_delay_ns != 0 ? options->commit_delay_ns : COMMIT_DELAY_DEFAULT_NS;
    vv_early_init(&volume->early, options->early_after);
    volume->sync_timeout_ns =
        options->sync_timeout_ns != 0 ? options->sync_timeout_ns : SYNC_TIMEOUT_DEFAULT_NS;
    if (options->settings != NULL)
        volume->settings = *options->settings;
    volume->store_free = UINT64_MAX;
    volume->store_total = UINT64_MAX;
    share_memory(volume, options);
    init_queues(volume);
    vv_repack_init(volume, &options->repack);
    int err = open_parts(volume, options);
    if (err < 0) {
        tear_down(volume);
        return err;
    }
    vv_volume_wake_all(volume);
    if (vv_planted(VV_PLANT_SWEEP_EARLY) && !volume->is_read_only)
        vv_orphans_sweep(volume);
    *out_volume = volume;
    return 0;
}

int vv_volume_close(struct vv_volume *volume)
{
    if (volume == NULL)
        return 0;
    int err = 0;
    volume->is_closing = true;
    vv_waitq_wake_all(&volume->repack.work);
    if (volume->is_shut_down) {
        err = -VV_ERR_SHUT_DOWN;
    } else if (!volume->is_read_only) {
        err = vv_volume_sync_bucket(volume);
        if (err == 0)
            err = vv_volume_flush(volume);
        /* Reclaiming begets commits of its own. */
        if (err == 0 && !volume->is_fenced)
            err = vv_commit_end(volume);
        /* The store has it all: an empty journal can be left behind, or taken to another volume's life. */
        if (err == 0 && volume->journal != NULL && !volume->is_fenced)
            err = vv_journal_reset(volume->journal, volume->open->number);
        if (err == 0 && !volume->is_fenced)
            err = vv_log_end(volume->log);
        volume->is_ended = false;
        if (err < 0 && vv_volume_sync(volume, 0) == 0)
            err = 0; /* the journal has it all */
    }
    tear_down(volume);
    return err;
}
