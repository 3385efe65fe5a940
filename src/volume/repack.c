/* Passes of repacking: what is read, sealed again, put and moved; repack_impl.h has the rules. */
#include "volume/repack_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/plant.h"
#include "volume/op_impl.h"

#define LOOKUPS 64
#define GAP_MAX (64u << 10)      /* bytes read in vain to join two frames */
#define RUN_MAX (2u << 20)       /* of one GET */
#define RETRY_NS (20 * VV_NS_PER_MS) /* when there is no memory */

/* Sealed bytes of a batch, as they were read. */
struct chunk {
    struct vv_list node;
    size_t len;
    uint8_t bytes[];
};

struct pass {
    struct vv_volume *volume;
    struct vv_pick *picks; /* chosen; VV_PICKS_MAX of room */
    size_t pick_count;
    struct vv_list chunks;
    struct vv_moves moves; /* of the batch */
    uint64_t batch_bytes, batch_max, frames_max;
    uint64_t last_commit; /* of the last unit that took moves */
    uint64_t freed, written;
    size_t emptied, outputs;
};

/* ---- holding segments, and what was read of them ---- */

static int hold(struct pass *pass, struct vv_pick *pick)
{
    if (!pick->is_held)
        TRY(vv_segref_hold(pass->volume, &pick->id));
    pick->is_held = true;
    return 0;
}

static void let_go(struct pass *pass, struct vv_pick *pick)
{
    if (pick->is_held)
        vv_segref_release(pass->volume, &pick->id);
    pick->is_held = false;
}

static void close_pick(struct pass *pass, struct vv_pick *pick)
{
    let_go(pass, pick);
    vv_block_unref(pick->block);
    pick->block = NULL;
}

/* The batch has been sealed anew: what it is made from is not needed any more. It may be deleted while the new segment
 * waits for a store that is full; moves of what is gone will be refused. */
static void drop_sources(struct pass *pass)
{
    while (!vv_list_is_empty(&pass->chunks)) {
        struct chunk *chunk = vv_list_first(&pass->chunks, struct chunk, node);
        vv_list_remove(&chunk->node);
        vv_budget_release(&pass->volume->cache_budget, chunk->len);
        vv_free(chunk);
    }
    for (size_t i = 0; i < pass->pick_count; i++) {
        let_go(pass, &pass->picks[i]);
        if (pass->picks[i].is_whole)
            close_pick(pass, &pass->picks[i]);
    }
}

/* ---- a batch: reading, sealing, putting ---- */

static int compare_origins(const void *a, const void *b)
{
    const struct vv_move *first = a;
    const struct vv_move *second = b;
    if (first->origin.data_id != second->origin.data_id)
        return first->origin.data_id < second->origin.data_id ? -1 : 1;
    if (first->origin.extent != second->origin.extent)
        return first->origin.extent < second->origin.extent ? -1 : 1;
    if (first->source != second->source)
        return first->source < second->source ? -1 : 1;
    return first->from.index < second->from.index ? -1 : first->from.index > second->from.index;
}

static void report(const struct vv_frame_loc *loc, int err)
{
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(&loc->segment, name, sizeof name);
    vv_error("volume", "object %s, offset %u: %s: it stays where it is, run varve fsck --data", name,
             loc->offset, vv_err_text(err));
}

/* Read the moves first..end-1, which lie close together in one segment. */
static int read_run(struct pass *pass, size_t first, size_t end)
{
    struct vv_volume *volume = pass->volume;
    struct vv_move *moves = pass->moves.moves;
    uint32_t start = moves[first].from.offset;
    size_t len = moves[end - 1].from.offset + moves[end - 1].from.len - start;
    struct chunk *chunk = vv_alloc(sizeof *chunk + len);
    if (chunk == NULL)
        return -ENOMEM;
    chunk->len = len;
    vv_list_push_back(&pass->chunks, &chunk->node);
    vv_budget_charge(&volume->cache_budget, len);
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(&moves[first].from.segment, name, sizeof name);
    ssize_t got = vv_store_get(volume->store, name, chunk->bytes, len, start);
    if (got == -ENOENT || (got >= 0 && (size_t)got != len)) {
        report(&moves[first].from, got < 0 ? (int)got : -VV_ERR_CORRUPT);
        return 0;
    }
    TRY(got);
    for (size_t i = first; i < end; i++)
        moves[i].bytes = chunk->bytes + (moves[i].from.offset - start);
    return 0;
}

/* They are in order of source and place. */
static int read_batch(struct pass *pass)
{
    const struct vv_moves *moves = &pass->moves;
    for (size_t first = 0, end; first < moves->count; first = end) {
        const struct vv_move *start = &moves->moves[first];
        for (end = first + 1; end < moves->count; end++) {
            const struct vv_frame_loc *last = &moves->moves[end - 1].from;
            const struct vv_move *next = &moves->moves[end];
            if (next->source != start->source || next->from.offset < last->offset + last->len ||
                next->from.offset - (last->offset + last->len) > GAP_MAX ||
                next->from.offset + next->from.len - start->from.offset > RUN_MAX)
                break;
        }
        if (!vv_repack_is_going(pass->volume))
            return -VV_ERR_STOPPED;
        TRY(read_run(pass, first, end));
    }
    return 0;
}

struct reseal {
    struct pass *pass;
    struct vv_segment_builder *builder;
    size_t next;
    int err;
};

static void reseal_run(void *arg)
{
    struct reseal *reseal = arg;
    const struct vv_moves *moves = &reseal->pass->moves;
    for (; reseal->next < moves->count; reseal->next++) {
        struct vv_move *move = &moves->moves[reseal->next];
        struct vv_sealed_frame frame = {.sealer = reseal->pass->picks[move->source].sealer,
                                        .index = move->from.index,
                                        .bytes = move->bytes,
                                        .len = move->from.len};
        if (move->bytes == NULL)
            continue;
        reseal->err = vv_segment_add_sealed(reseal->builder, &move->origin, &frame, &move->to);
        if (reseal->err < 0)
            return;
    }
}

/* What cannot be opened stays behind. */
static int reseal_batch(struct pass *pass, struct vv_segment_builder *builder)
{
    struct vv_moves *moves = &pass->moves;
    struct reseal reseal = {.pass = pass, .builder = builder};
    do {
        reseal.err = 0;
        vv_rt_offload(reseal_run, &reseal);
        if (reseal.err == -ENOMEM)
            vv_rt_sleep_ns(RETRY_NS);
        if (vv_repack_is_ending(pass->volume))
            return -VV_ERR_STOPPED;
        if (reseal.err < 0 && reseal.err != -ENOMEM) {
            struct vv_move *bad = &moves->moves[reseal.next++];
            report(&bad->from, reseal.err);
            bad->bytes = NULL;
        }
    } while (reseal.err < 0);
    size_t kept = 0;
    for (size_t i = 0; i < moves->count; i++) {
        if (moves->moves[i].bytes != NULL)
            moves->moves[kept++] = moves->moves[i];
    }
    moves->count = kept;
    return 0;
}

static int put(struct pass *pass, struct vv_segment_builder *builder)
{
    struct vv_volume *volume = pass->volume;
    const struct iovec *iov;
    int iov_count, err;
    size_t bytes;
    char name[VV_STORE_NAME_MAX + 1];
    pass->moves.bytes = vv_segment_builder_bytes(builder) - VV_OBJECT_HEADER_LEN;
    while ((err = vv_segment_finish(builder, NULL, 0, &iov, &iov_count, &bytes)) == -ENOMEM)
        vv_rt_sleep_ns(RETRY_NS);
    TRY(err);
    vv_segment_name(&pass->moves.id, name, sizeof name);
    uint64_t begun_ns = vv_rt_now_ns();
    uint64_t put_before = volume->put_bytes;
    volume->puts_under_way++;
    err = vv_log_put_object(volume->log, name, vv_segment_builder_header(builder)->attempt_id, iov,
                            iov_count);
    volume->puts_under_way--;
    if (err == -VV_ERR_FENCED || err == -VV_ERR_NOT_OURS)
        vv_volume_fence(volume);
    TRY(err);
    vv_put_measured(volume, bytes, vv_rt_now_ns() - begun_ns, put_before);
    volume->stats.data_bytes += bytes;
    volume->stats.repacked_bytes += bytes;
    if (volume->store_free != UINT64_MAX)
        volume->store_free -= volume->store_free < bytes ? volume->store_free : bytes;
    pass->written += pass->moves.bytes;
    pass->outputs++;
    return 0;
}

/* The batch's new segment; no moves are left if none of its frames could be opened. */
static int build(struct pass *pass)
{
    struct vv_volume *volume = pass->volume;
    struct vv_segment_builder *builder = NULL;
    qsort(pass->moves.moves, pass->moves.count, sizeof *pass->moves.moves, compare_origins);
    pass->moves.id.counter = volume->segment_counter++;
    TRY(vv_segref_hold(volume, &pass->moves.id));
    int err = vv_segment_builder_new(volume->ring, &pass->moves.id, &volume->settings, &builder);
    if (err == 0)
        err = reseal_batch(pass, builder);
    drop_sources(pass);
    if (err == 0 && pass->moves.count > 0)
        err = put(pass, builder);
    vv_segment_builder_free(builder);
    if (err < 0)
        vv_segref_release(volume, &pass->moves.id);
    return err;
}

/* ---- a batch: its moves ---- */

/* Which segments has it emptied? */
static void account(struct pass *pass)
{
    for (size_t i = 0; i < pass->moves.count; i++) {
        const struct vv_move *move = &pass->moves.moves[i];
        pass->picks[move->source].left -= move->is_accepted;
    }
}

static bool is_emptied(const struct vv_pick *pick)
{
    return pick->is_whole && pick->left == 0;
}

/* A planted bug: what was emptied goes at once. */
static void delete_at_once(struct pass *pass)
{
    for (size_t i = 0; i < pass->pick_count; i++) {
        char name[VV_STORE_NAME_MAX + 1];
        vv_segment_name(&pass->picks[i].id, name, sizeof name);
        if (is_emptied(&pass->picks[i]) && vv_store_remove(pass->volume->store, name) < 0)
            continue;
    }
}

/* Hand the moves to a unit and wait for it. */
static int move(struct pass *pass)
{
    struct vv_volume *volume = pass->volume;
    struct vv_moves *moves = &pass->moves;
    bool is_accounted = false;
    vv_moves_hand_over(volume, moves);
    while (!moves->is_settled) {
        if (vv_repack_is_ending(volume) && vv_moves_take_back(volume, moves))
            return -VV_ERR_STOPPED;
        if (vv_planted(VV_PLANT_REPACK_DELETES) && moves->commit != 0 && !is_accounted) {
            account(pass);
            is_accounted = true;
            delete_at_once(pass);
            continue;
        }
        vv_waitq_wait(&volume->repack.work, vv_planted(VV_PLANT_REPACK_DELETES)
                                                ? vv_rt_now_ns() + RETRY_NS
                                                : VV_NEVER);
    }
    if (!moves->is_confirmed)
        return -VV_ERR_STOPPED;
    pass->last_commit = moves->commit;
    if (!is_accounted)
        account(pass);
    return 0;
}

static void reset_batch(struct pass *pass)
{
    struct vv_moves *moves = &pass->moves;
    drop_sources(pass);
    moves->count = 0;
    moves->commit = 0;
    moves->is_taken = moves->is_confirmed = moves->is_settled = moves->is_written = false;
    vv_writer_reset(&moves->results);
    moves->result_count = 0;
    pass->batch_bytes = 0;
}

static int flush_batch(struct pass *pass)
{
    struct vv_volume *volume = pass->volume;
    if (pass->moves.count == 0)
        return 0;
    int err = read_batch(pass);
    if (err == 0)
        err = build(pass);
    if (err == 0) {
        if (pass->moves.count > 0)
            err = move(pass);
        vv_segref_release(volume, &pass->moves.id);
    }
    reset_batch(pass);
    if (err == 0 && volume->store_free != UINT64_MAX && vv_volume_refresh_space(volume) < 0)
        volume->store_free = 0; /* until it says again: no more for now */
    return err;
}

/* ---- a segment ---- */

static int take_record(void *records, size_t i, const struct vv_lsm_value *value)
{
    struct vv_extent_record *record = (struct vv_extent_record *)records + i;
    record->count = 0;
    return value == NULL ? 0 : vv_extent_decode((struct vv_bytes){value->ptr, value->len}, record);
}

/* The extent records of some frames. */
static int look_up(struct vv_volume *volume, const struct vv_segment_entry *entries, size_t count,
                   struct vv_extent_record *out_records)
{
    uint8_t bytes[LOOKUPS][VV_VOLUME_KEY_MAX];
    struct vv_bytes keys[LOOKUPS];
    for (size_t i = 0; i < count; i++)
        keys[i] = (struct vv_bytes){bytes[i], vv_key_extent(bytes[i], entries[i].origin.data_id,
                                                           entries[i].origin.extent)};
    struct vv_look_up how = {volume, vv_repack_is_going, take_record, out_records};
    return vv_look_up(&how, keys, count);
}

/* The frame's place if the record names it; NULL. */
static const struct vv_frame_loc *place_in(const struct vv_extent_record *record,
                                           const struct vv_segment_id *id, uint32_t index)
{
    for (unsigned i = 0; i < record->count; i++) {
        const struct vv_piece *piece = &record->pieces[i];
        if (!piece->is_zero && piece->loc.index == index &&
            vv_segment_id_equal(&piece->loc.segment, id))
            return &piece->loc;
    }
    return NULL;
}

/* It will not be moved, so it need not be read: something newer lies on it, or hides it. */
static bool is_passing(struct vv_volume *volume, const struct vv_origin *origin,
                       const struct vv_extent_record *record)
{
    const struct vv_extent *extent = vv_extent_find(volume, origin->data_id, origin->extent);
    if (extent != NULL && !vv_list_is_empty(&extent->layers))
        return true;
    const struct vv_data *data = vv_data_find(volume, origin->data_id);
    return record->commit < vv_hidden_commit(data, origin->extent, UINT64_MAX);
}

static int take_frame(struct pass *pass, uint32_t source, const struct vv_origin *origin,
                      const struct vv_frame_loc *loc)
{
    struct vv_moves *moves = &pass->moves;
    if (moves->count > 0 &&
        (moves->count == pass->frames_max || pass->batch_bytes + loc->len > pass->batch_max)) {
        TRY(flush_batch(pass));
        TRY(hold(pass, &pass->picks[source]));
    }
    assert(moves->count < moves->capacity);
    moves->moves[moves->count++] =
        (struct vv_move){.origin = *origin, .from = *loc, .source = source};
    pass->batch_bytes += loc->len;
    return 0;
}

static int take_frames(struct pass *pass, uint32_t source, const struct vv_segment_entry *entries,
                       uint32_t first, uint32_t count)
{
    struct vv_volume *volume = pass->volume;
    struct vv_extent_record *records = vv_calloc(LOOKUPS, sizeof *records);
    if (records == NULL)
        return -ENOMEM;
    int err = look_up(volume, entries, count, records);
    for (uint32_t i = 0; i < count && err == 0; i++) {
        struct vv_pick *pick = &pass->picks[source];
        const struct vv_frame_loc *loc = place_in(&records[i], &pick->id, first + i);
        if (loc == NULL)
            continue;
        pick->left++;
        if (!is_passing(volume, &entries[i].origin, &records[i]))
            err = take_frame(pass, source, &entries[i].origin, loc);
    }
    vv_free(records);
    vv_fiber_yield();
    return err;
}

static int take_entries(struct pass *pass, uint32_t source)
{
    struct vv_volume *volume = pass->volume;
    struct vv_pick *pick = &pass->picks[source];
    struct vv_segment_entry *entries = NULL;
    uint32_t count = 0;
    TRY(vv_segment_directory(volume, &pick->id, &entries, &count));
    int err = vv_segment_sealer(volume, &pick->id, &pick->block, &pick->sealer);
    for (uint32_t first = 0; first < count && err == 0; first += LOOKUPS) {
        uint32_t some = count - first < LOOKUPS ? count - first : LOOKUPS;
        err = take_frames(pass, source, entries + first, first, some);
    }
    vv_free(entries);
    return err;
}

/* Is it about the segment, and not about the store or this process? */
static bool is_damage(int err)
{
    return err == -ENOENT || err == -VV_ERR_FORMAT || err == -VV_ERR_CHECKSUM ||
           err == -VV_ERR_AUTH || err == -VV_ERR_CORRUPT || err == -VV_ERR_NO_KEY ||
           err == -VV_ERR_NEWER;
}

static int take_segment(struct pass *pass, uint32_t source)
{
    struct vv_pick *pick = &pass->picks[source];
    TRY(hold(pass, pick));
    int err = take_entries(pass, source);
    if (is_damage(err)) {
        struct vv_frame_loc loc = {.segment = pick->id};
        report(&loc, err);
        return 0;
    }
    pick->is_whole = err == 0;
    return err;
}

/* ---- passes ---- */

static int pass_init(struct pass *pass, struct vv_volume *volume)
{
    uint64_t frames = volume->budget.limit / VV_MOVE_MEMORY;
    *pass = (struct pass){.volume = volume};
    vv_list_init(&pass->chunks);
    pass->frames_max = frames < VV_MOVES_MAX ? frames : VV_MOVES_MAX;
    pass->moves.id.epoch = volume->epoch;
    pass->moves.id.kind = VV_SEGMENT_DATA;
    pass->moves.results = vv_writer_new();
    pass->moves.capacity = pass->frames_max;
    pass->moves.moves = vv_calloc(pass->frames_max, sizeof *pass->moves.moves);
    pass->picks = vv_calloc(VV_PICKS_MAX, sizeof *pass->picks);
    return pass->moves.moves == NULL || pass->picks == NULL ? -ENOMEM : 0;
}

static void pass_done(struct pass *pass)
{
    reset_batch(pass);
    for (size_t i = 0; i < pass->pick_count; i++)
        close_pick(pass, &pass->picks[i]);
    vv_writer_done(&pass->moves.results);
    vv_free(pass->moves.moves);
    vv_free(pass->picks);
}

static int pass_run(struct pass *pass)
{
    struct vv_volume *volume = pass->volume;
    if (volume->store_free != UINT64_MAX)
        TRY(vv_volume_refresh_space(volume));
    if (!vv_repack_is_going(volume))
        return -VV_ERR_STOPPED;
    TRY(vv_repack_pick(volume, pass->picks, &pass->pick_count));
    for (size_t i = 0; i < pass->pick_count; i++) {
        if (!vv_repack_is_going(volume))
            return -VV_ERR_STOPPED;
        pass->batch_max = vv_repack_batch_max(volume);
        TRY(take_segment(pass, (uint32_t)i));
    }
    return flush_batch(pass);
}

static void count_emptied(struct pass *pass)
{
    for (size_t i = 0; i < pass->pick_count && pass->last_commit > 0; i++) {
        if (!is_emptied(&pass->picks[i]))
            continue;
        pass->emptied++;
        pass->freed += pass->picks[i].total;
    }
    pass->volume->stats.repacked_segments += pass->emptied;
}

/* What was emptied can be deleted once its last debit is behind a manifest. */
static void flush_tables(struct pass *pass)
{
    struct vv_volume *volume = pass->volume;
    if (pass->emptied == 0 || vv_repack_is_ending(volume))
        return;
    volume->is_flush_due = true;
    vv_volume_wake_all(volume);
    while (vv_log_manifest(volume->log)->last_commit < pass->last_commit && vv_repack_is_going(volume))
        vv_waitq_wait(&volume->repack.work, VV_NEVER);
}

static void repack_main(void *arg)
{
    struct vv_volume *volume = arg;
    struct vv_repack *repack = &volume->repack;
    struct pass pass;
    repack->dead_news = 0;
    repack->tiny_news = 0;
    int err = pass_init(&pass, volume);
    if (err == 0)
        err = pass_run(&pass);
    count_emptied(&pass);
    flush_tables(&pass);
    bool is_worth = pass.freed > pass.written || (pass.emptied > 0 && 2 * pass.outputs <= pass.emptied);
    if (pass.outputs > 0)
        vv_info("volume", "repacked: %zu segments of %llu bytes emptied, %zu of %llu bytes written",
                pass.emptied, (unsigned long long)pass.freed, pass.outputs,
                (unsigned long long)pass.written);
    if (err < 0 && err != -VV_ERR_STOPPED && !vv_repack_is_ending(volume))
        vv_warn("volume", "repacking: %s (again after the next flush)", vv_err_text(err));
    pass_done(&pass);
    if (is_worth || err < 0) {
        repack->dead_news = UINT64_MAX;
        repack->tiny_news = UINT64_MAX;
    }
    repack->is_running = false;
    if (err == 0)
        vv_repack_start(volume);
    vv_waitq_wake_all(&volume->idle);
    vv_volume_fiber_ended(volume);
}

void vv_repack_start(struct vv_volume *volume)
{
    if (volume->repack.is_running || volume->repack.options.is_off || volume->is_read_only ||
        !vv_repack_is_calm(volume) || !vv_repack_is_due(volume) ||
        vv_fiber_start(repack_main, volume, "repack") < 0)
        return;
    volume->repack.is_running = true;
    volume->fibers++;
}
