/* Moves of frames from old segments to a new one, judged when a unit is finalised (PROTOCOL 10). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/plant.h"
#include "volume/repack_impl.h"

static bool is_same_extent(const struct vv_move *a, const struct vv_move *b)
{
    return a->origin.data_id == b->origin.data_id && a->origin.extent == b->origin.extent;
}

/* The end of the moves of one extent, which begin at `first`. */
static size_t group_end(const struct vv_moves *moves, size_t first)
{
    size_t end = first + 1;
    while (end < moves->count && is_same_extent(&moves->moves[first], &moves->moves[end]))
        end++;
    return end;
}

/* ---- from the pass to a unit ---- */

/* May anything newer than the record lie on the extent, or hide it? */
static bool is_disturbed(struct unit *unit, const struct vv_origin *origin,
                         const struct vv_extent_record *record)
{
    struct vv_volume *volume = unit->volume;
    const struct vv_data *data = vv_data_find(volume, origin->data_id);
    const struct vv_extent *extent = vv_extent_find(volume, origin->data_id, origin->extent);
    bool has_layers = extent != NULL && !vv_list_is_empty(&extent->layers);
    bool is_changed = has_layers || vv_unit_has_extent(unit, origin->data_id, origin->extent);
    bool is_hidden = record->commit < vv_hidden_commit(data, origin->extent, UINT64_MAX);
    if (vv_planted(VV_PLANT_REPACK_OVER_LAYERS) || vv_planted(VV_PLANT_REPACK_EARLY))
        is_changed = false;
    if (vv_planted(VV_PLANT_REPACK_OVER_TOMBSTONES))
        is_hidden = false;
    return is_changed || is_hidden;
}

static bool is_at(const struct vv_piece *piece, const struct vv_frame_loc *place)
{
    return !piece->is_zero && vv_segment_id_equal(&piece->loc.segment, &place->segment) &&
           piece->loc.index == place->index && piece->loc.offset == place->offset &&
           piece->loc.len == place->len;
}

/* The piece of the record that names the move's old place; NULL. */
static struct vv_piece *piece_of(struct vv_extent_record *record, const struct vv_move *move)
{
    for (unsigned i = 0; i < record->count; i++) {
        if (is_at(&record->pieces[i], &move->from))
            return &record->pieces[i];
    }
    return NULL;
}

/* Accept or refuse the moves of one extent. *out_record: as it will be. How many were accepted, or an error: then none. */
static int judge(struct unit *unit, struct vv_move *moves, size_t count,
                 struct vv_extent_record *out_record)
{
    const struct vv_origin *origin = &moves->origin;
    int accepted = 0;
    for (size_t i = 0; i < count; i++)
        moves[i].is_accepted = false;
    int found = vv_unit_record(unit->volume, origin->data_id, origin->extent, out_record);
    if (found <= 0 || is_disturbed(unit, origin, out_record))
        return found < 0 ? found : 0;
    for (size_t i = 0; i < count; i++) {
        struct vv_piece *piece = piece_of(out_record, &moves[i]);
        if (piece == NULL)
            continue;
        assert(moves[i].to.len == moves[i].from.len);
        piece->loc = moves[i].to;
        moves[i].is_accepted = true;
        accepted++;
    }
    return accepted;
}

static bool is_any_accepted(const struct vv_move *moves, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (moves[i].is_accepted)
            return true;
    }
    return false;
}

/* Judge all of them; moves->results then has the records of those extents of which some were accepted. */
static int judge_all(struct unit *unit, struct vv_moves *moves)
{
    vv_writer_reset(&moves->results);
    moves->result_count = 0;
    for (size_t i = 0; i < moves->count; i = group_end(moves, i)) {
        struct vv_extent_record record;
        uint8_t value[VV_EXTENT_RECORD_MAX];
        int accepted = judge(unit, &moves->moves[i], group_end(moves, i) - i, &record);
        if (accepted == -VV_ERR_MISS)
            return accepted;
        if (accepted <= 0) /* one that cannot be read is refused */
            continue;
        vv_writer_string(&moves->results, value, vv_extent_encode(&record, value));
        moves->result_count++;
    }
    return vv_writer_check(&moves->results);
}

static void refuse_all(struct vv_moves *moves)
{
    vv_writer_reset(&moves->results);
    moves->result_count = 0;
    for (size_t i = 0; i < moves->count; i++)
        moves->moves[i].is_accepted = false;
}

/* Write what judge_all found, as records of that commit. */
static void write_results(struct vv_volume *volume, const struct vv_moves *moves, uint64_t commit)
{
    struct vv_cursor results = vv_cursor_of(moves->results.ptr, moves->results.len);
    for (size_t i = 0; i < moves->count; i = group_end(moves, i)) {
        const struct vv_move *first = &moves->moves[i];
        if (!is_any_accepted(first, group_end(moves, i) - i))
            continue;
        uint8_t key[VV_VOLUME_KEY_MAX];
        struct vv_bytes bytes = {
            key, vv_key_extent(key, first->origin.data_id, first->origin.extent)};
        struct vv_bytes value = vv_cursor_string(&results, VV_EXTENT_RECORD_MAX);
        if (!vv_planted(VV_PLANT_REPACK_NOT_REWRITTEN))
            vv_lsm_put(volume->lsm, commit, bytes, value);
    }
    assert(vv_cursor_end(&results) == 0);
}

/* A planted bug: moves are judged and written when they are handed over, as changes of the open commit. */
static void write_early(struct vv_volume *volume, struct vv_moves *moves)
{
    struct unit none = {.volume = volume};
    if (!vv_planted(VV_PLANT_REPACK_EARLY) || judge_all(&none, moves) < 0 ||
        vv_lsm_reserve(volume->lsm, moves->result_count,
                       moves->results.len + moves->result_count * VV_VOLUME_KEY_MAX) < 0)
        return;
    write_results(volume, moves, volume->open->number);
    vv_commit_changed(volume);
    moves->is_written = true;
}

void vv_moves_hand_over(struct vv_volume *volume, struct vv_moves *moves)
{
    assert(volume->repack.waiting == NULL && moves->count > 0);
    write_early(volume, moves);
    volume->repack.waiting = moves;
    volume->is_space_due = true;
    if (volume->want_bucket < volume->open->number)
        volume->want_bucket = volume->open->number;
    vv_waitq_wake_all(&volume->commit_work);
    vv_waitq_wake_all(&volume->unit_work);
}

bool vv_moves_take_back(struct vv_volume *volume, struct vv_moves *moves)
{
    if (volume->repack.waiting != moves)
        return false;
    volume->repack.waiting = NULL;
    return true;
}

void vv_moves_take(struct unit *unit)
{
    struct vv_volume *volume = unit->volume;
    if (unit->moves != NULL || volume->repack.waiting == NULL)
        return;
    unit->moves = volume->repack.waiting;
    unit->moves->is_taken = true;
    volume->repack.waiting = NULL;
}

/* ---- in a unit ---- */

static int fetch(struct unit *unit)
{
    const struct vv_moves *moves = unit->moves;
    struct vv_bytes *keys = vv_calloc(moves->count, sizeof *keys);
    uint8_t(*bytes)[VV_VOLUME_KEY_MAX] = vv_calloc(moves->count, VV_VOLUME_KEY_MAX);
    int err = keys == NULL || bytes == NULL ? -ENOMEM : 0;
    size_t count = 0;
    for (size_t i = 0; i < moves->count && err == 0; i = group_end(moves, i)) {
        const struct vv_origin *origin = &moves->moves[i].origin;
        keys[count].ptr = bytes[count];
        keys[count].len = vv_key_extent(bytes[count], origin->data_id, origin->extent);
        count++;
    }
    if (err == 0)
        err = vv_lsm_fetch(unit->volume->lsm, keys, count, &unit->pins);
    vv_free(keys);
    vv_free(bytes);
    return err;
}

void vv_moves_fetch(struct unit *unit)
{
    if (unit->moves == NULL || unit->is_refusing_moves)
        return;
    unit->is_refusing_moves = fetch(unit) < 0;
}

/* The debits and credits of what was accepted. */
static int sum_moves(struct unit *unit)
{
    for (size_t i = 0; i < unit->moves->count; i++) {
        const struct vv_move *move = &unit->moves->moves[i];
        if (!move->is_accepted)
            continue;
        TRY(vv_unit_sum(unit, &move->from.segment, 0, -(int64_t)move->from.len));
        unit->moved_bytes += move->to.len;
    }
    return vv_unit_sum(unit, &unit->moves->id, 0, (int64_t)unit->moved_bytes);
}

int vv_moves_plan(struct unit *unit, size_t *out_records, size_t *out_bytes)
{
    struct vv_moves *moves = unit->moves;
    unit->moved_bytes = 0;
    *out_records = 0;
    *out_bytes = 0;
    if (moves == NULL)
        return 0;
    TRY(vv_unit_sum(unit, &moves->id, (int64_t)moves->bytes, 0));
    if (unit->is_refusing_moves)
        refuse_all(moves);
    else if (!moves->is_written)
        TRY(judge_all(unit, moves));
    TRY(sum_moves(unit));
    *out_records = moves->result_count;
    *out_bytes = moves->results.len + moves->result_count * VV_VOLUME_KEY_MAX;
    return 0;
}

void vv_moves_write(struct unit *unit)
{
    struct vv_moves *moves = unit->moves;
    if (moves == NULL)
        return;
    if (!moves->is_written)
        write_results(unit->volume, moves, unit->last);
    moves->commit = unit->last;
}

static void count_moves(struct unit *unit)
{
    struct vv_volume_stats *stats = &unit->volume->stats;
    const struct vv_moves *moves = unit->moves;
    for (size_t i = 0; i < moves->count; i++) {
        stats->repacked_frames += moves->moves[i].is_accepted;
        stats->repack_refused += !moves->moves[i].is_accepted;
    }
}

void vv_moves_settle(struct unit *unit)
{
    if (unit->moves == NULL)
        return;
    unit->moves->is_confirmed = unit->is_confirmed;
    unit->moves->is_settled = true;
    if (unit->is_confirmed)
        count_moves(unit);
    unit->moves = NULL;
    vv_waitq_wake_all(&unit->volume->repack.work);
}
