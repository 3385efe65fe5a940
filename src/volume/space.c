/* Space: what counts on a segment, reclaiming extent records, and deleting dead segments (PROTOCOL 14). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/plant.h"
#include "volume/repack_impl.h"

#define SWEEP_MAX 256           /* segments deleted by one pass */
#define SWEEP_PARALLEL 16
#define DONE_MAX 1024           /* tombstones and drops finished by one unit */
#define DIRECTORY_MAX (64u << 20)

static uint64_t id_hash(const struct vv_segment_id *id)
{
    return vv_mix64(vv_mix64(id->epoch * 2 + id->kind) + id->counter + ((uint64_t)id->volume << 40));
}

struct vv_segref *vv_segref_find(const struct vv_volume *volume, const struct vv_segment_id *id)
{
    struct vv_map_node *node = vv_map_find(&volume->segrefs, id_hash(id));
    for (; node != NULL; node = vv_map_next(node)) {
        struct vv_segref *ref = vv_container_of(node, struct vv_segref, node);
        if (vv_segment_id_equal(&ref->id, id))
            return ref;
    }
    return NULL;
}

int vv_segref_hold(struct vv_volume *volume, const struct vv_segment_id *id)
{
    struct vv_segref *ref = vv_segref_find(volume, id);
    if (ref == NULL) {
        ref = vv_zalloc(sizeof *ref);
        if (ref == NULL)
            return -ENOMEM;
        ref->id = *id;
        vv_map_insert(&volume->segrefs, &ref->node, id_hash(id));
    }
    ref->holds++;
    return 0;
}

void vv_segref_release(struct vv_volume *volume, const struct vv_segment_id *id)
{
    struct vv_segref *ref = vv_segref_find(volume, id);
    assert(ref != NULL && ref->holds > 0);
    if (--ref->holds > 0)
        return;
    vv_map_remove(&volume->segrefs, &ref->node);
    vv_free(ref);
}

bool vv_segref_is_held(const struct vv_volume *volume, const struct vv_segment_id *id)
{
    return vv_segref_find(volume, id) != NULL;
}

static struct vv_candidate *candidate_find(const struct vv_volume *volume,
                                           const struct vv_segment_id *id)
{
    struct vv_map_node *node = vv_map_find(&volume->candidates, id_hash(id));
    for (; node != NULL; node = vv_map_next(node)) {
        struct vv_candidate *candidate = vv_container_of(node, struct vv_candidate, node);
        if (vv_segment_id_equal(&candidate->id, id))
            return candidate;
    }
    return NULL;
}

/* Forgetting one for lack of memory only delays its deletion to the next opening. */
void vv_candidate_add(struct vv_volume *volume, const struct vv_segment_id *id, uint64_t commit)
{
    struct vv_candidate *candidate = candidate_find(volume, id);
    if (candidate == NULL) {
        candidate = vv_zalloc(sizeof *candidate);
        if (candidate == NULL)
            return;
        candidate->id = *id;
        vv_map_insert(&volume->candidates, &candidate->node, id_hash(id));
    }
    candidate->commit = commit;
}

static void candidate_remove(struct vv_volume *volume, const struct vv_segment_id *id)
{
    struct vv_candidate *candidate = candidate_find(volume, id);
    if (candidate == NULL)
        return;
    vv_map_remove(&volume->candidates, &candidate->node);
    vv_free(candidate);
}

void vv_space_free(struct vv_volume *volume)
{
    struct vv_map_node *node;
    while (volume->candidates.count > 0 &&
           (node = vv_map_walk(&volume->candidates, NULL)) != NULL) {
        vv_map_remove(&volume->candidates, node);
        vv_free(vv_container_of(node, struct vv_candidate, node));
    }
    while (!vv_list_is_empty(&volume->new_segments)) {
        struct vv_new_segment *segment =
            vv_list_first(&volume->new_segments, struct vv_new_segment, node);
        vv_list_remove(&segment->node);
        vv_free(segment);
    }
    while (!vv_list_is_empty(&volume->tail)) {
        struct vv_tail_entry *entry = vv_list_first(&volume->tail, struct vv_tail_entry, node);
        vv_list_remove(&entry->node);
        vv_free(entry);
    }
}

/* ---- reclaiming: extent records under tombstones and of dropped data ids ---- */

struct gather {
    struct unit *unit;
    size_t max;
};

/* Collects records of [*from, to) with commits below `commit`. Returns 1 when the range is done,
 * 0 when the unit is full (*from is where to go on). Suspends. */
static int gather_range(struct gather *gather, uint64_t data_id, uint64_t inode, uint64_t *from,
                        uint64_t to, uint64_t commit)
{
    struct unit *unit = gather->unit;
    uint8_t low[VV_VOLUME_KEY_MAX], high[VV_VOLUME_KEY_MAX];
    struct vv_bytes lower = {low, vv_key_extent(low, data_id, *from)};
    struct vv_bytes upper = {high, vv_key_extent(high, data_id, to)};
    struct vv_lsm_iter *iter;
    TRY(vv_lsm_iter_open(unit->volume->lsm, lower, upper, &iter));
    struct vv_bytes key, value;
    int found;
    while ((found = vv_lsm_iter_next(iter, &key, &value)) > 0) {
        if (key.len != 17)
            continue;
        uint64_t index = vv_load_be64(key.ptr + 9);
        if (unit->reclaimed_count == gather->max) {
            *from = index;
            break;
        }
        struct reclaimed *gone = &unit->reclaimed[unit->reclaimed_count];
        found = vv_extent_decode(value, &gone->record);
        if (found < 0)
            break;
        gone->data_id = data_id;
        gone->inode = inode;
        gone->index = index;
        if (gone->record.commit < commit)
            unit->reclaimed_count++;
        found = 1;
    }
    vv_lsm_iter_close(iter);
    return found < 0 ? found : found == 0;
}

static void finish_ranges_of(struct unit *unit, struct vv_data *data)
{
    vv_list_each (node, &data->ranges) {
        struct vv_range *range = vv_list_entry(node, struct vv_range, in_data);
        vv_list_remove(&range->in_queue);
        vv_list_push_back(&unit->done_ranges, &range->in_queue);
    }
}

static int gather_drops(struct gather *gather)
{
    struct unit *unit = gather->unit;
    struct vv_volume *volume = unit->volume;
    for (unsigned i = 0; i < DONE_MAX && !vv_list_is_empty(&volume->drops); i++) {
        struct vv_data *data = vv_list_first(&volume->drops, struct vv_data, in_queue);
        if (data->drop_commit > unit->last)
            return 0;
        int done = gather_range(gather, data->id, data->inode, &data->drop_next,
                                VV_EXTENTS_NO_END, UINT64_MAX);
        TRY(done);
        if (!done)
            return 0;
        vv_list_remove(&data->in_queue);
        vv_list_push_back(&unit->done_drops, &data->in_queue);
        finish_ranges_of(unit, data);
    }
    return 0;
}

static int gather_ranges(struct gather *gather)
{
    struct unit *unit = gather->unit;
    struct vv_volume *volume = unit->volume;
    for (unsigned i = 0; i < DONE_MAX && !vv_list_is_empty(&volume->reclaims); i++) {
        struct vv_range *range = vv_list_first(&volume->reclaims, struct vv_range, in_queue);
        if (range->commit > unit->last || range->data->drop_commit != 0)
            return 0;
        if (range->next < range->from)
            range->next = range->from;
        int done = gather_range(gather, range->data->id, range->data->inode, &range->next,
                                range->to, range->commit);
        TRY(done);
        if (!done)
            return 0;
        vv_list_remove(&range->in_queue);
        vv_list_push_back(&unit->done_ranges, &range->in_queue);
    }
    return 0;
}

static int compare_reclaimed(const void *a, const void *b)
{
    const struct reclaimed *first = a;
    const struct reclaimed *second = b;
    if (first->data_id != second->data_id)
        return first->data_id < second->data_id ? -1 : 1;
    if (first->index != second->index)
        return first->index < second->index ? -1 : 1;
    return 0;
}

/* Tombstones may overlap: a record is freed once. */
static void drop_doubles(struct unit *unit)
{
    size_t kept = 0;
    qsort(unit->reclaimed, unit->reclaimed_count, sizeof *unit->reclaimed, compare_reclaimed);
    for (size_t i = 0; i < unit->reclaimed_count; i++) {
        if (kept == 0 ||
            compare_reclaimed(&unit->reclaimed[kept - 1], &unit->reclaimed[i]) != 0)
            unit->reclaimed[kept++] = unit->reclaimed[i];
    }
    unit->reclaimed_count = kept;
}

int vv_unit_gather_reclaims(struct unit *unit)
{
    struct gather gather = {unit, VV_RECLAIM_EXTENTS};
    struct vv_volume *volume = unit->volume;
    bool is_needed = !vv_list_is_empty(&volume->drops) || !vv_list_is_empty(&volume->reclaims);
    if (unit->reclaimed == NULL) {
        unit->reclaimed = vv_calloc(is_needed ? VV_RECLAIM_EXTENTS + 1 : 1,
                                    sizeof *unit->reclaimed);
        if (unit->reclaimed == NULL)
            return -ENOMEM;
    }
    if (!is_needed)
        return 0;
    TRY(gather_drops(&gather));
    TRY(gather_ranges(&gather));
    drop_doubles(unit);
    return 0;
}

void vv_unit_reclaims_confirmed(struct unit *unit)
{
    struct vv_volume *volume = unit->volume;
    while (!vv_list_is_empty(&unit->done_ranges))
        vv_range_remove(volume, vv_list_first(&unit->done_ranges, struct vv_range, in_queue));
    while (!vv_list_is_empty(&unit->done_drops)) {
        struct vv_data *data = vv_list_first(&unit->done_drops, struct vv_data, in_queue);
        vv_list_remove(&data->in_queue);
        data->drop_commit = 0;
        vv_data_tidy(volume, data);
    }
    vv_waitq_wake_all(&volume->room);
}

void vv_unit_reclaims_undo(struct unit *unit)
{
    struct vv_volume *volume = unit->volume;
    vv_list_splice(&volume->reclaims, &unit->done_ranges);
    vv_list_splice(&volume->drops, &unit->done_drops);
}

void vv_space_kick(struct vv_volume *volume)
{
    bool is_due = false;
    if (!vv_list_is_empty(&volume->drops))
        is_due = vv_list_first(&volume->drops, struct vv_data, in_queue)->drop_commit <=
                 volume->bucket_commit;
    if (!vv_list_is_empty(&volume->reclaims) && !is_due)
        is_due = vv_list_first(&volume->reclaims, struct vv_range, in_queue)->commit <=
                 volume->bucket_commit;
    if (is_due && volume->units_under_way <= 1) {
        volume->is_space_due = true;
        vv_waitq_wake_all(&volume->commit_work);
    }
}

/* ---- deleting dead segments ---- */

static int sums_of(struct vv_volume *volume, const struct vv_segment_id *id, int64_t *out_total,
                   int64_t *out_live)
{
    uint8_t bytes[VV_VOLUME_KEY_MAX];
    struct vv_bytes key = {bytes, vv_key_segment(bytes, id)};
    for (;;) {
        int err = vv_lsm_get_sums(volume->lsm, key, out_total, out_live);
        if (err != -VV_ERR_MISS)
            return err;
        struct vv_lsm_pins pins;
        vv_lsm_pins_init(&pins);
        err = vv_lsm_fetch(volume->lsm, &key, 1, &pins);
        if (err == 0)
            err = vv_lsm_get_sums(volume->lsm, key, out_total, out_live);
        vv_lsm_pins_done(&pins);
        if (err != -VV_ERR_MISS)
            return err;
    }
}

struct naming {
    const struct vv_segment_id *id;
    bool is_named;
};

static int take_naming(void *arg, size_t i, const struct vv_lsm_value *value)
{
    struct naming *naming = arg;
    struct vv_extent_record record = {0};
    (void)i;
    if (value != NULL)
        TRY(vv_extent_decode((struct vv_bytes){value->ptr, value->len}, &record));
    for (unsigned piece = 0; piece < record.count; piece++)
        naming->is_named |= !record.pieces[piece].is_zero &&
                            vv_segment_id_equal(&record.pieces[piece].loc.segment, naming->id);
    return 0;
}

/* Does an extent record still name this segment for the frame's origin? 1, 0, or an error. Suspends. */
static int is_referenced(struct vv_volume *volume, const struct vv_segment_id *id,
                         const struct vv_origin *origin)
{
    uint8_t bytes[VV_VOLUME_KEY_MAX];
    struct vv_bytes key = {bytes, vv_key_extent(bytes, origin->data_id, origin->extent)};
    struct naming naming = {.id = id};
    struct vv_look_up how = {volume, NULL, take_naming, &naming};
    TRY(vv_look_up(&how, &key, 1));
    return naming.is_named;
}

int vv_segment_directory(struct vv_volume *volume, const struct vv_segment_id *id,
                         struct vv_segment_entry **out_entries, uint32_t *out_count)
{
    char name[VV_STORE_NAME_MAX + 1];
    uint8_t tail[VV_SEGMENT_FOOTER_LEN];
    uint64_t size;
    struct vv_segment_footer footer;
    vv_segment_name(id, name, sizeof name);
    TRY(vv_store_size(volume->store, name, &size));
    if (size < sizeof tail)
        return -VV_ERR_FORMAT;
    ssize_t got = vv_store_get(volume->store, name, tail, sizeof tail, size - sizeof tail);
    TRY(got);
    TRY(vv_segment_footer_decode(tail, (size_t)got, size, &footer));
    if (footer.directory_len > DIRECTORY_MAX)
        return -VV_ERR_FORMAT;
    struct vv_block *holder;
    const struct vv_sealer *sealer;
    TRY(vv_segment_sealer(volume, id, &holder, &sealer));
    uint8_t *frame = vv_alloc(footer.directory_len);
    int err = frame == NULL ? -ENOMEM : 0;
    if (err == 0) {
        got = vv_store_get(volume->store, name, frame, footer.directory_len,
                           footer.directory_offset);
        err = got < 0 ? (int)got : 0;
    }
    if (err == 0)
        err = vv_segment_directory_decode(sealer, &footer, frame, (size_t)got, out_entries);
    *out_count = footer.frame_count;
    vv_free(frame);
    vv_block_unref(holder);
    return err;
}

/* Fail-closed: nothing may refer to any frame of the segment (14). 0 = it is dead indeed. Suspends. */
static int check_directory(struct vv_volume *volume, const struct vv_segment_id *id)
{
    struct vv_segment_entry *entries = NULL;
    uint32_t count = 0;
    int err = vv_segment_directory(volume, id, &entries, &count);
    if (err == -ENOENT)
        return 0;
    for (uint32_t i = 0; i < count && err == 0; i++)
        err = is_referenced(volume, id, &entries[i].origin);
    vv_free(entries);
    if (err > 0) {
        char name[VV_STORE_NAME_MAX + 1];
        vv_segment_name(id, name, sizeof name);
        vv_error("volume", "object %s counts as dead but is in use: it is kept; run varve fsck", name);
        return -VV_ERR_CORRUPT;
    }
    return err;
}

bool vv_space_is_behind_replay(const struct vv_volume *volume, const struct vv_segment_id *id)
{
    const struct vv_manifest *manifest = vv_log_manifest(volume->log);
    for (size_t i = 0; i < manifest->epoch_count; i++) {
        if (manifest->epochs[i].epoch == id->epoch)
            return id->counter < manifest->epochs[i].replay_seq;
    }
    return id->epoch <= manifest->epoch;
}

/* Is the debit to zero behind the replay point of the last confirmed manifest? */
static bool is_debit_behind(const struct vv_volume *volume, const struct vv_candidate *candidate)
{
    if (vv_planted(VV_PLANT_DELETE_EARLY))
        return true;
    if (vv_planted(VV_PLANT_JOURNAL_CONFIRMS) && candidate->commit <= volume->journaled_commit)
        return true;
    return candidate->commit <= vv_log_manifest(volume->log)->last_commit;
}

static bool is_deletable(const struct vv_volume *volume, const struct vv_candidate *candidate)
{
    const struct vv_manifest *manifest = vv_log_manifest(volume->log);
    if (!is_debit_behind(volume, candidate))
        return false;
    if (manifest->pin_count > 0 || candidate->id.volume != 0 ||
        vv_segref_is_held(volume, &candidate->id))
        return false;
    return candidate->id.kind != VV_SEGMENT_LOG || vv_space_is_behind_replay(volume, &candidate->id);
}

/* 1 = the object is gone. */
static int sweep_one(struct vv_volume *volume, const struct vv_segment_id *id)
{
    int64_t total, live;
    TRY(sums_of(volume, id, &total, &live));
    bool is_blind = vv_planted(VV_PLANT_DELETE_LOG_DATA) && id->kind == VV_SEGMENT_LOG;
    if (live != 0 && !is_blind) {
        candidate_remove(volume, id);
        return 0;
    }
    if ((total > 0 || id->kind == VV_SEGMENT_DATA) && !is_blind)
        TRY(check_directory(volume, id));
    const struct vv_candidate *candidate = candidate_find(volume, id);
    if (candidate == NULL || !is_deletable(volume, candidate))
        return 0;
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(id, name, sizeof name);
    TRY(vv_store_remove(volume->store, name));
    volume->stats.segments_deleted++;
    volume->stats.total_bytes -= (uint64_t)total;
    volume->stats.segments -= total > 0;
    return 1;
}

struct sweep {
    struct vv_segment_id ids[SWEEP_MAX];
    size_t count;
};

static int forget_segments(struct vv_op *op, void *arg)
{
    const struct sweep *sweep = arg;
    for (size_t i = 0; i < sweep->count; i++) {
        uint8_t bytes[VV_VOLUME_KEY_MAX];
        struct vv_bytes key = {bytes, vv_key_segment(bytes, &sweep->ids[i])};
        TRY(vv_op_delete(op, key));
    }
    return 0;
}

static size_t pick(struct vv_volume *volume, struct sweep *sweep)
{
    size_t count = 0;
    struct vv_map_node *node = NULL;
    while (count < SWEEP_MAX && (node = vv_map_walk(&volume->candidates, node)) != NULL) {
        const struct vv_candidate *candidate = vv_container_of(node, struct vv_candidate, node);
        if (is_deletable(volume, candidate))
            sweep->ids[count++] = candidate->id;
    }
    return count;
}

/* A pass over what was picked: several at a time, since each is some requests one after another. */
struct sweep_pass {
    struct vv_volume *volume;
    struct sweep *sweep; /* ids[count ..]: what is gone takes the places of what was taken */
    size_t picked, next;
    unsigned fibers;
    struct vv_waitq done;
    int err;
};

static void sweep_next(struct sweep_pass *pass)
{
    struct vv_volume *volume = pass->volume;
    struct vv_segment_id id = pass->sweep->ids[pass->next++];
    int err = sweep_one(volume, &id);
    if (err == -VV_ERR_CORRUPT || err > 0)
        candidate_remove(volume, &id);
    if (err > 0)
        pass->sweep->ids[pass->sweep->count++] = id;
    if (err < 0 && err != -VV_ERR_CORRUPT)
        pass->err = err;
}

static void sweep_all(struct sweep_pass *pass)
{
    const struct vv_volume *volume = pass->volume;
    while (pass->next < pass->picked && pass->err == 0 && !volume->is_fenced &&
           !volume->is_abandoning)
        sweep_next(pass);
}

static void sweep_run(void *arg)
{
    struct sweep_pass *pass = arg;
    sweep_all(pass);
    pass->fibers--;
    vv_waitq_wake_all(&pass->done);
}

static void sweep_picked(struct sweep_pass *pass)
{
    vv_waitq_init(&pass->done);
    for (unsigned i = 1; i < SWEEP_PARALLEL && i < pass->picked; i++)
        pass->fibers += vv_fiber_start(sweep_run, pass, "sweep") == 0;
    sweep_all(pass);
    while (pass->fibers > 0)
        vv_waitq_wait(&pass->done, VV_NEVER);
}

/* One pass over the candidates. More than 0: there may be more to do. Suspends. */
int vv_space_sweep(struct vv_volume *volume)
{
    struct sweep *sweep = vv_alloc(sizeof *sweep);
    if (sweep == NULL)
        return -ENOMEM;
    struct sweep_pass pass = {.volume = volume, .sweep = sweep, .picked = pick(volume, sweep)};
    sweep->count = 0;
    sweep_picked(&pass);
    int err = pass.err;
    size_t gone = sweep->count;
    if (gone > 0 && !volume->is_fenced) {
        int forget = vv_volume_run(volume, VV_OP_FREEING, 0, forget_segments, sweep);
        err = err < 0 ? err : forget;
    }
    vv_free(sweep);
    return err < 0 ? err : pass.picked == SWEEP_MAX && gone > 0;
}

static void sweep_tables(struct vv_volume *volume)
{
    struct vv_table_ref dead;
    while (!volume->is_fenced && vv_lsm_next_dead(volume->lsm, &dead)) {
        char name[VV_STORE_NAME_MAX + 1];
        vv_table_name(dead.epoch, dead.counter, name, sizeof name);
        int err = vv_store_remove(volume->store, name);
        if (err < 0)
            vv_warn("volume", "removing %s: %s", name, vv_err_text(err));
    }
}

void vv_space_fiber(void *arg)
{
    struct vv_volume *volume = arg;
    while (!volume->is_fenced && !volume->is_abandoning && !volume->is_stopping) {
        if (!volume->is_sweep_due) {
            vv_waitq_wait(&volume->space_work, VV_NEVER);
            continue;
        }
        volume->is_sweep_due = false;
        volume->is_sweeping = true;
        sweep_tables(volume);
        int more = vv_log_remove_old_manifests(volume->log);
        if (more >= 0)
            more = vv_space_sweep(volume);
        if (more < 0 && more != -VV_ERR_FENCED && more != -VV_ERR_STOPPED)
            vv_warn("volume", "deleting what is no longer used: %s (tried again after the next flush)",
                    vv_err_text(more));
        volume->is_sweep_due |= more > 0;
        volume->is_sweeping = false;
        if (!volume->is_sweep_due)
            vv_repack_start(volume);
        vv_waitq_wake_all(&volume->idle);
    }
    vv_volume_fiber_ended(volume);
}

/* ---- at opening ---- */

static int adopt(struct vv_volume *volume, const struct vv_segref *ref)
{
    int64_t total, live;
    TRY(sums_of(volume, &ref->id, &total, &live));
    if (total != 0)
        return 0;
    struct vv_new_segment *segment = vv_zalloc(sizeof *segment);
    if (segment == NULL)
        return -ENOMEM;
    segment->id = ref->id;
    segment->bytes = ref->bytes;
    vv_list_push_back(&volume->new_segments, &segment->node);
    return 0;
}

int vv_space_adopt(struct vv_volume *volume)
{
    struct vv_map_node *node = NULL;
    /* Nothing else runs yet: the map stays as it is while this suspends. */
    while ((node = vv_map_walk(&volume->segrefs, node)) != NULL)
        TRY(adopt(volume, vv_container_of(node, struct vv_segref, node)));
    return 0;
}

static int load_range(struct vv_volume *volume, struct vv_bytes key, struct vv_bytes value)
{
    struct vv_cursor cursor = vv_cursor_of(value.ptr, value.len);
    uint64_t to = vv_cursor_varint(&cursor);
    uint64_t inode = vv_cursor_varint(&cursor);
    TRY(vv_cursor_end(&cursor));
    if (key.len != 25)
        return -VV_ERR_FORMAT;
    struct vv_data *data = vv_data_make(volume, vv_load_be64(key.ptr + 1), inode);
    if (data == NULL)
        return -ENOMEM;
    struct vv_range *range = vv_range_new();
    if (range == NULL) {
        vv_data_tidy(volume, data);
        return -ENOMEM;
    }
    range->from = vv_load_be64(key.ptr + 9);
    range->commit = vv_load_be64(key.ptr + 17);
    range->to = to;
    vv_range_add(volume, data, range);
    return 0;
}

static int load_drop(struct vv_volume *volume, struct vv_bytes key, struct vv_bytes value)
{
    struct vv_cursor cursor = vv_cursor_of(value.ptr, value.len);
    uint64_t inode = vv_cursor_varint(&cursor);
    uint64_t commit = vv_cursor_varint(&cursor);
    TRY(vv_cursor_end(&cursor));
    if (key.len != 10)
        return -VV_ERR_FORMAT;
    struct vv_data *data = vv_data_make(volume, vv_load_be64(key.ptr + 2), inode);
    if (data == NULL)
        return -ENOMEM;
    data->drop_commit = commit == 0 ? 1 : commit;
    vv_list_push_back(&volume->drops, &data->in_queue);
    return 0;
}

static int load_segment(struct vv_volume *volume, struct vv_bytes key, struct vv_bytes value)
{
    struct vv_segment_id id;
    TRY(vv_key_segment_parse(key, &id));
    struct vv_cursor cursor = vv_cursor_of(value.ptr, value.len);
    int64_t total = vv_cursor_svarint(&cursor);
    int64_t live = vv_cursor_svarint(&cursor);
    TRY(vv_cursor_end(&cursor));
    volume->stats.total_bytes += (uint64_t)total;
    volume->stats.live_bytes += (uint64_t)live;
    volume->stats.segments += total > 0;
    vv_repack_note_segment(volume, total);
    if (live == 0)
        vv_candidate_add(volume, &id, volume->open->number - 1);
    return 0;
}

static int load_table(struct vv_volume *volume, const char *lower_text, const char *upper_text,
                      int (*load)(struct vv_volume *, struct vv_bytes, struct vv_bytes))
{
    struct vv_bytes lower = {(const uint8_t *)lower_text, strlen(lower_text)};
    struct vv_bytes upper = {(const uint8_t *)upper_text, strlen(upper_text)};
    struct vv_lsm_iter *iter;
    TRY(vv_lsm_iter_open(volume->lsm, lower, upper, &iter));
    struct vv_bytes key, value;
    int found;
    while ((found = vv_lsm_iter_next(iter, &key, &value)) > 0) {
        found = load(volume, key, value);
        if (found < 0)
            break;
    }
    vv_lsm_iter_close(iter);
    return found;
}

int vv_space_load(struct vv_volume *volume)
{
    TRY(load_table(volume, "R", "S", load_range));
    TRY(load_table(volume, "Td", "Te", load_drop));
    return load_table(volume, "S", "T", load_segment);
}
