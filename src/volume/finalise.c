/* Finalising a unit: joining its pieces with the extent records as they stand, and the sums (PROTOCOL 10).
 * The unit holds the turn: nobody else changes extent records, segment or allocation sums. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/plant.h"
#include "volume/repack_impl.h"

static int fetch_records(struct unit *unit)
{
    size_t count = unit->extent_count;
    if (count == 0)
        return 0;
    struct vv_bytes *keys = vv_calloc(count, sizeof *keys);
    uint8_t(*bytes)[VV_VOLUME_KEY_MAX] = vv_calloc(count, VV_VOLUME_KEY_MAX);
    int err = keys == NULL || bytes == NULL ? -ENOMEM : 0;
    for (size_t i = 0; i < count && err == 0; i++) {
        keys[i].ptr = bytes[i];
        keys[i].len = vv_key_extent(bytes[i], unit->extents[i].data_id, unit->extents[i].index);
    }
    if (err == 0)
        err = vv_lsm_fetch(unit->volume->lsm, keys, count, &unit->pins);
    vv_free(keys);
    vv_free(bytes);
    return err;
}

/* The record as it stands: 1, 0 = none, or an error. */
int vv_unit_record(struct vv_volume *volume, uint64_t data_id, uint64_t index,
                   struct vv_extent_record *out)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {key, vv_key_extent(key, data_id, index)};
    struct vv_lsm_value value;
    int found = vv_lsm_get(volume->lsm, bytes, &value);
    if (found <= 0)
        return found;
    TRY(vv_extent_decode((struct vv_bytes){value.ptr, value.len}, out));
    return 1;
}

/* Pieces of the record that stay, and the unit's, pruned; into `out`, which has room for both. */
struct joined {
    struct vv_piece pieces[VV_PIECES_MAX + VV_STRETCHES_MAX + 32];
    unsigned count;
};

static bool join(const struct unit_extent *extent, const struct vv_extent_record *old,
                 struct joined *joined)
{
    joined->count = 0;
    for (unsigned i = 0; old != NULL && i < old->count; i++)
        joined->pieces[joined->count++] = old->pieces[i];
    for (unsigned i = 0; i < extent->piece_count; i++) {
        if (joined->count == sizeof joined->pieces / sizeof joined->pieces[0])
            return false;
        joined->pieces[joined->count++] = extent->pieces[i];
    }
    struct vv_cover cover = {0};
    uint8_t decided = 0; /* blocks that newer pieces fill or free */
    bool is_used[sizeof joined->pieces / sizeof joined->pieces[0]];
    for (unsigned i = joined->count; i-- > 0;) {
        const struct vv_piece *piece = &joined->pieces[i];
        uint8_t these = vv_blocks_of(piece->from, piece->to, piece->is_zero);
        /* Zeros that several newer ones cover together: none of those may free the block that these did. */
        is_used[i] = !vv_cover_has(&cover, piece->from, piece->to) ||
                     (piece->is_zero && (these & ~decided) != 0);
        decided |= is_used[i] ? these : 0;
        if (!vv_cover_add(&cover, piece->from, piece->to))
            return false;
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < joined->count; i++) {
        if (is_used[i] && !(kept == 0 && joined->pieces[i].is_zero))
            joined->pieces[kept++] = joined->pieces[i];
    }
    joined->count = kept;
    return kept <= VV_PIECES_MAX;
}

static uint32_t used_end(const struct vv_piece *pieces, unsigned count, uint32_t end)
{
    for (unsigned i = 0; i < count; i++) {
        if (pieces[i].to > end)
            end = pieces[i].to;
    }
    return end;
}

/* The folded bytes also replace what older records say: until the log object is confirmed, readers find
 * them in a layer over everything of these commits. */
static int keep_folded(struct unit *unit, const struct unit_extent *extent, const uint8_t *bytes,
                       struct vv_folded *folded)
{
    struct vv_volume *volume = unit->volume;
    struct vv_data *data = vv_data_make(volume, extent->data_id, extent->inode);
    struct vv_extent *where = data ? vv_extent_make(volume, data, extent->index) : NULL;
    if (where == NULL) {
        if (data != NULL)
            vv_data_tidy(volume, data);
        return -ENOMEM;
    }
    memcpy(folded->layers[0]->buf->data, bytes, folded->layers[0]->to);
    struct vv_layer *below = NULL;
    for (struct vv_list *node = where->layers.next; node != &where->layers; node = node->next) {
        struct vv_layer *each = vv_list_entry(node, struct vv_layer, in_extent);
        if (each->commit <= unit->last) {
            below = each;
            break;
        }
    }
    for (unsigned i = 0; i < folded->count; i++) {
        struct vv_layer *layer = folded->layers[i];
        layer->is_settled = true; /* what it replaces is counted */
        vv_layer_attach_above(volume, where, unit->last_commit, layer, below);
        below = layer;
    }
    folded->count = 0;
    return 0;
}

/* What the record will say: what the unit knows, and the rest as it is in the old one (NULL: there is none, or it is
 * hidden). */
static struct vv_extent_state joined_state(const struct unit_extent *extent,
                                           const struct vv_extent_record *old)
{
    struct vv_extent_state state = {0};
    if (old != NULL) {
        state.blocks = vv_extent_blocks(old);
        state.aside = old->aside;
    }
    for (unsigned i = 0; i < extent->piece_count; i++) {
        const struct vv_piece *piece = &extent->pieces[i];
        state.blocks = vv_blocks_put(state.blocks, piece->from, piece->to, piece->is_zero);
    }
    state.aside = (uint8_t)((state.aside & ~extent->state.known) | extent->state.aside);
    state.aside &= state.blocks;
    return state;
}

/* The extent's pieces are those of the folded layers from now on. */
static void take_folded(struct unit_extent *extent, const struct vv_folded *folded)
{
    for (unsigned i = 0; i < folded->count; i++) {
        struct vv_piece *piece = &extent->pieces[i];
        memset(piece, 0, sizeof *piece);
        piece->from = folded->layers[i]->from;
        piece->to = folded->layers[i]->to;
        piece->is_zero = folded->layers[i]->is_zero;
    }
    extent->piece_count = folded->count;
    extent->is_folded = true;
}

/* Takes `bytes` over unless it fails. */
static int fold_into(struct unit *unit, struct unit_extent *extent,
                     const struct vv_extent_record *old, uint8_t *bytes)
{
    struct vv_volume *volume = unit->volume;
    TRY(vv_extent_read(volume, extent->data_id, extent->index, old, unit->last, bytes));
    uint32_t end = used_end(extent->pieces, extent->piece_count, 1);
    if (old != NULL)
        end = used_end(old->pieces, old->count, end);
    struct vv_extent_state state = joined_state(extent, old);
    struct vv_folded folded;
    TRY(vv_folded_make(volume, end, &state, &folded));
    struct vv_folded kept = folded;
    int err = keep_folded(unit, extent, bytes, &folded);
    vv_folded_done(&folded);
    TRY(err);
    take_folded(extent, &kept);
    struct vv_seal_job job = {.bytes = bytes, .len = end};
    job.origin.data_id = extent->data_id;
    job.origin.extent = extent->index;
    vv_seal_jobs(unit->builder, &job, 1);
    extent->pieces[0].loc = job.loc;
    /* The next fold reads it: not from the store. The cache takes the bytes over. */
    struct vv_cache_key key;
    vv_frame_cache_key(&job.loc, &key);
    vv_cache_put_warm(volume->cache, &key, bytes, end);
    return 0;
}

/* Too many pieces: read the extent whole and seal it as one frame, with its holes as zeros over it. */
static int fold(struct unit *unit, struct unit_extent *extent, const struct vv_extent_record *old)
{
    uint8_t *bytes = vv_alloc(VV_EXTENT_BYTES);
    int err = bytes == NULL ? -ENOMEM : fold_into(unit, extent, old, bytes);
    if (err < 0)
        vv_free(bytes);
    return err;
}

static uint64_t hidden_for(struct unit *unit, const struct unit_extent *extent)
{
    const struct vv_data *data = vv_data_find(unit->volume, extent->data_id);
    return vv_hidden_commit(data, extent->index, unit->last);
}

/* Fold what needs it. -VV_ERR_MISS: a record went out of memory, fetch again. */
static int fold_all(struct unit *unit)
{
    struct joined *joined = vv_alloc(sizeof *joined);
    if (joined == NULL)
        return -ENOMEM;
    int err = 0;
    for (size_t i = 0; i < unit->extent_count && err >= 0; i++) {
        struct unit_extent *extent = &unit->extents[i];
        struct vv_extent_record old;
        if (extent->is_folded || extent->piece_count == 0)
            continue;
        err = vv_unit_record(unit->volume, extent->data_id, extent->index, &old);
        if (err < 0)
            break;
        const struct vv_extent_record *base = err > 0 ? &old : NULL;
        if (base != NULL && old.commit < hidden_for(unit, extent))
            base = NULL;
        if (!join(extent, base, joined))
            err = fold(unit, extent, base);
    }
    vv_free(joined);
    return err < 0 ? err : 0;
}

int vv_unit_sum(struct unit *unit, const struct vv_segment_id *id, int64_t total, int64_t live)
{
    for (size_t i = unit->sum_count; i-- > 0 && i + 32 > unit->sum_count;) {
        if (vv_segment_id_equal(&unit->sums[i].id, id)) {
            unit->sums[i].total += total;
            unit->sums[i].live += live;
            return 0;
        }
    }
    if (unit->sum_count == unit->sum_capacity) {
        size_t capacity = unit->sum_capacity == 0 ? 16 : 2 * unit->sum_capacity;
        struct segment_sum *sums = vv_realloc(unit->sums, capacity * sizeof *sums);
        if (sums == NULL)
            return -ENOMEM;
        unit->sums = sums;
        unit->sum_capacity = capacity;
    }
    unit->sums[unit->sum_count].id = *id;
    unit->sums[unit->sum_count].total = total;
    unit->sums[unit->sum_count].live = live;
    unit->sum_count++;
    return 0;
}

static int sum_pieces(struct unit *unit, const struct vv_extent_record *record, int sign)
{
    if (sign < 0 && vv_planted(VV_PLANT_LOSE_DEBIT) && vv_rt_random_u64() % 4 == 0)
        return 0;
    for (unsigned i = 0; i < record->count; i++) {
        const struct vv_piece *piece = &record->pieces[i];
        if (!piece->is_zero)
            TRY(vv_unit_sum(unit, &piece->loc.segment, 0, sign * (int64_t)piece->loc.len));
    }
    return 0;
}

static int plan_extent(struct unit *unit, struct unit_extent *extent, struct joined *joined)
{
    struct vv_extent_record old;
    int found = vv_unit_record(unit->volume, extent->data_id, extent->index, &old);
    TRY(found);
    const struct vv_extent_record *seen = found > 0 ? &old : NULL;
    if (seen != NULL && old.commit < hidden_for(unit, extent))
        seen = NULL;
    bool is_fitting = join(extent, extent->is_folded ? NULL : seen, joined);
    assert(is_fitting);
    (void)is_fitting;
    extent->allocated = 0;
    if (found > 0) {
        TRY(sum_pieces(unit, &old, -1));
        extent->allocated -= vv_extent_allocated(&old);
    }
    extent->is_absent = joined->count == 0;
    extent->result.commit = unit->last;
    extent->result.count = joined->count;
    memcpy(extent->result.pieces, joined->pieces, joined->count * sizeof joined->pieces[0]);
    extent->result.aside = joined_state(extent, seen).aside & vv_extent_blocks(&extent->result);
    extent->allocated += vv_extent_allocated(&extent->result);
    return sum_pieces(unit, &extent->result, 1);
}

bool vv_unit_has_extent(const struct unit *unit, uint64_t data_id, uint64_t index)
{
    size_t low = 0;
    size_t high = unit->extent_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct unit_extent *extent = &unit->extents[middle];
        if (extent->data_id == data_id && extent->index == index)
            return true;
        if (extent->data_id < data_id || (extent->data_id == data_id && extent->index < index))
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* Work out everything that will be written, without writing. -VV_ERR_MISS: fetch again. */
static int plan(struct unit *unit, struct joined *joined)
{
    struct vv_volume *volume = unit->volume;
    unit->sum_count = 0;
    size_t bytes = vv_segment_builder_bytes(unit->builder) - VV_OBJECT_HEADER_LEN;
    TRY(vv_unit_sum(unit, &unit->id, (int64_t)bytes, 0));
    vv_list_each (node, &volume->new_segments) {
        const struct vv_new_segment *segment = vv_list_entry(node, struct vv_new_segment, node);
        TRY(vv_unit_sum(unit, &segment->id, (int64_t)segment->bytes, 0));
    }
    size_t room = 0;
    for (size_t i = 0; i < unit->extent_count; i++) {
        uint8_t value[VV_EXTENT_RECORD_MAX];
        TRY(plan_extent(unit, &unit->extents[i], joined));
        room += 2 * VV_VOLUME_KEY_MAX;
        if (!unit->extents[i].is_absent)
            room += vv_extent_encode(&unit->extents[i].result, value);
    }
    for (size_t i = 0; i < unit->reclaimed_count; i++) {
        const struct reclaimed *gone = &unit->reclaimed[i];
        if (!vv_unit_has_extent(unit, gone->data_id, gone->index))
            TRY(sum_pieces(unit, &gone->record, -1));
    }
    size_t done = 0;
    vv_list_each (node, &unit->done_ranges)
        done++;
    vv_list_each (node, &unit->done_drops)
        done += 2;
    size_t moved_records = 0;
    size_t moved_room = 0;
    TRY(vv_moves_plan(unit, &moved_records, &moved_room));
    size_t records = 2 * unit->extent_count + 2 * unit->reclaimed_count + unit->sum_count + done;
    room += (records - unit->extent_count) * (VV_VOLUME_KEY_MAX + 24);
    return vv_lsm_reserve(volume->lsm, records + moved_records, room + moved_room);
}

static void write_extents(struct unit *unit)
{
    struct vv_volume *volume = unit->volume;
    for (size_t i = 0; i < unit->extent_count; i++) {
        const struct unit_extent *extent = &unit->extents[i];
        uint8_t key[VV_VOLUME_KEY_MAX];
        uint8_t value[VV_EXTENT_RECORD_MAX];
        struct vv_bytes bytes = {key, vv_key_extent(key, extent->data_id, extent->index)};
        if (extent->is_absent)
            vv_lsm_delete(volume->lsm, unit->last, bytes);
        else
            vv_lsm_put(volume->lsm, unit->last, bytes,
                       (struct vv_bytes){value, vv_extent_encode(&extent->result, value)});
        bytes.len = vv_key_allocated(key, extent->inode, extent->data_id);
        if (extent->allocated != 0)
            vv_lsm_merge(volume->lsm, unit->last, bytes, extent->allocated, 0);
    }
}

static void write_reclaimed(struct unit *unit)
{
    struct vv_volume *volume = unit->volume;
    for (size_t i = 0; i < unit->reclaimed_count; i++) {
        const struct reclaimed *gone = &unit->reclaimed[i];
        if (vv_unit_has_extent(unit, gone->data_id, gone->index))
            continue;
        uint8_t key[VV_VOLUME_KEY_MAX];
        struct vv_bytes bytes = {key, vv_key_extent(key, gone->data_id, gone->index)};
        vv_lsm_delete(volume->lsm, unit->last, bytes);
        bytes.len = vv_key_allocated(key, gone->inode, gone->data_id);
        vv_lsm_merge(volume->lsm, unit->last, bytes,
                     -(int64_t)vv_extent_allocated(&gone->record), 0);
    }
    vv_list_each (node, &unit->done_ranges) {
        const struct vv_range *range = vv_list_entry(node, struct vv_range, in_queue);
        uint8_t key[VV_VOLUME_KEY_MAX];
        struct vv_bytes bytes = {
            key, vv_key_range(key, range->data->id, range->from, range->commit)};
        vv_lsm_delete(volume->lsm, unit->last, bytes);
    }
    vv_list_each (node, &unit->done_drops) {
        const struct vv_data *data = vv_list_entry(node, struct vv_data, in_queue);
        uint8_t key[VV_VOLUME_KEY_MAX];
        struct vv_bytes bytes = {key, vv_key_orphan_data(key, data->id)};
        vv_lsm_delete(volume->lsm, unit->last, bytes);
        bytes.len = vv_key_allocated(key, data->inode, data->id);
        vv_lsm_delete(volume->lsm, unit->last, bytes);
    }
}

static void write_sums(struct unit *unit)
{
    struct vv_volume *volume = unit->volume;
    uint64_t dead = 0;
    for (size_t i = 0; i < unit->sum_count; i++) {
        const struct segment_sum *sum = &unit->sums[i];
        uint8_t key[VV_VOLUME_KEY_MAX];
        struct vv_bytes bytes = {key, vv_key_segment(key, &sum->id)};
        vv_lsm_merge(volume->lsm, unit->last, bytes, sum->total, sum->live);
        if (sum->live <= 0 || vv_planted(VV_PLANT_DELETE_LOG_DATA))
            vv_candidate_add(volume, &sum->id, unit->last);
        if (sum->live < 0)
            dead += (uint64_t)-sum->live;
        volume->stats.live_bytes += (uint64_t)sum->live;
        volume->stats.total_bytes += (uint64_t)sum->total;
        volume->stats.segments += sum->total > 0;
        if (unit->moves == NULL || !vv_segment_id_equal(&sum->id, &unit->moves->id))
            vv_repack_note_segment(volume, sum->total);
    }
    volume->dead_bytes += dead;
    vv_repack_note_dead(volume, dead < unit->moved_bytes ? 0 : dead - unit->moved_bytes);
    while (!vv_list_is_empty(&volume->new_segments)) {
        struct vv_new_segment *segment =
            vv_list_first(&volume->new_segments, struct vv_new_segment, node);
        vv_list_remove(&segment->node);
        vv_free(segment);
    }
}

/* Bytes of these commits are no longer "dirty" for st_blocks: the allocation sums have them. */
static void settle_dirty_bytes(struct unit *unit)
{
    for (const struct vv_commit *commit = unit->first_commit; commit != NULL;
         commit = vv_unit_next(unit, commit)) {
        vv_list_each (node, &commit->layers)
            vv_layer_settle(vv_list_entry(node, struct vv_layer, in_commit));
    }
}

static int encode_batch(struct unit *unit)
{
    struct vv_batch_header header = {.first_commit = unit->first};
    header.count = unit->last - unit->first + 1;
    memcpy(header.previous_attempt_id, unit->previous_attempt_id, 16);
    header.counters = unit->counters;
    vv_writer_reset(&unit->batch);
    vv_batch_header_encode(&unit->batch, &header);
    return vv_lsm_changes_encode(unit->volume->lsm, unit->first, unit->last, &unit->batch);
}

static int prepare(struct unit *unit, struct joined *joined)
{
    vv_lsm_pins_done(&unit->pins);
    vv_lsm_pins_init(&unit->pins);
    TRY(fetch_records(unit));
    vv_moves_fetch(unit);
    TRY(fold_all(unit));
    return plan(unit, joined);
}

int vv_unit_finalise(struct unit *unit)
{
    struct vv_volume *volume = unit->volume;
    struct joined *joined = NULL;
    int err = -ENOMEM;
    int reported = 0;
    vv_moves_take(unit);
    while (err < 0) {
        if (joined == NULL)
            joined = vv_alloc(sizeof *joined);
        if (joined != NULL && unit->reclaimed == NULL)
            err = vv_unit_gather_reclaims(unit);
        else
            err = 0;
        if (joined != NULL && err == 0)
            err = prepare(unit, joined);
        if (joined == NULL)
            err = -ENOMEM;
        if (err == 0)
            break;
        if (volume->is_fenced || volume->is_abandoning) {
            vv_free(joined);
            return -VV_ERR_STOPPED;
        }
        if (err == -VV_ERR_MISS)
            continue;
        vv_error("volume", "a commit waits: %s", vv_err_text(err));
        volume->store_error = reported = err;
        volume->store_error_tries++;
        vv_waitq_wake_all(&volume->durable);
        vv_rt_sleep_ns(200 * VV_NS_PER_MS);
    }
    vv_free(joined);
    if (reported < 0 && volume->store_error == reported) {
        volume->store_error = 0; /* it has passed, and no put may have failed that would tell */
        volume->store_error_tries = 0;
    }
    write_extents(unit);
    write_reclaimed(unit);
    vv_moves_write(unit);
    write_sums(unit);
    settle_dirty_bytes(unit);
    volume->finalised_commit = unit->last;
    while ((err = encode_batch(unit)) == -ENOMEM)
        vv_rt_sleep_ns(20 * VV_NS_PER_MS);
    return err;
}
