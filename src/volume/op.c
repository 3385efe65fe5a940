/* Operations: plan rounds, staging, and the one step that applies what was staged. */
#include "volume/op_impl.h"

#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "volume/repack_impl.h"

#define STORE_RESERVE_MIN (16ull << 20)
#define STORE_RESERVE_MAX (1ull << 30)
#define PACE_BYTES (96u << 10) /* a write of so much is bulk */
#define PACE_MAX_NS (200 * VV_NS_PER_MS)
#define SPACE_WAIT_MAX_NS (10 * VV_NS_PER_S)
#define SPACE_ASK_NS (100 * VV_NS_PER_MS)
#define SPACE_AGE_MAX_NS (500 * VV_NS_PER_MS) /* others fill the store too: ask that often */

void vv_op_init(struct vv_op *op, struct vv_volume *volume)
{
    memset(op, 0, sizeof *op);
    op->volume = volume;
    op->keys = vv_writer_new();
    op->stage = vv_writer_new();
    vv_lsm_pins_init(&op->pins);
    vv_list_init(&op->ranges);
    vv_list_init(&op->layers);
}

void vv_op_begin_round(struct vv_op *op, bool is_pinning)
{
    op->miss_count = 0;
    op->key_count = 0;
    op->follow_count = 0;
    op->is_pinning = is_pinning;
    op->is_aside = false;
    vv_writer_reset(&op->keys);
}

static void drop_staged(struct vv_op *op)
{
    vv_op_drop_data(op);
    for (unsigned i = 0; i < op->touch_count; i++)
        vv_free(op->touches[i]);
    op->touch_count = 0;
    op->record_count = 0;
    vv_writer_reset(&op->stage);
}

void vv_op_done(struct vv_op *op)
{
    drop_staged(op);
    vv_writer_done(&op->keys);
    vv_writer_done(&op->stage);
    vv_lsm_pins_done(&op->pins);
}

struct vv_volume *vv_op_volume(struct vv_op *op)
{
    return op->volume;
}

bool vv_op_is_missing(const struct vv_op *op)
{
    return op->miss_count > 0;
}

static void note_key(struct vv_op *op, struct vv_bytes key)
{
    if (op->key_count == VV_OP_MISSES_MAX)
        return;
    vv_writer_u16(&op->keys, (uint16_t)key.len);
    vv_writer_bytes(&op->keys, key.ptr, key.len);
    op->key_count++;
}

/* Notes a key for the next fetch. */
int vv_op_miss(struct vv_op *op, struct vv_bytes key)
{
    op->miss_count++;
    note_key(op, key);
    return op->keys.is_bad ? -ENOMEM : -VV_ERR_MISS;
}

/* What is found in a later round is fetched with what that round misses, and so pinned: it has come into memory by
 * itself and may leave it before the next. */
static void note_found(struct vv_op *op, struct vv_bytes key)
{
    if (op->is_pinning)
        note_key(op, key);
}

int vv_op_get(struct vv_op *op, struct vv_bytes key, struct vv_bytes *out_value)
{
    struct vv_lsm_value value;
    int found = vv_lsm_get(op->volume->lsm, key, &value);
    if (found == -VV_ERR_MISS)
        return vv_op_miss(op, key);
    if (found >= 0)
        note_found(op, key);
    if (found > 0) {
        out_value->ptr = value.ptr;
        out_value->len = value.len;
    }
    return found;
}

int vv_op_allocated(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t *out_bytes)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {key, vv_key_allocated(key, inode, data_id)};
    int64_t allocated = 0;
    int64_t unused = 0;
    int err = vv_lsm_get_sums(op->volume->lsm, bytes, &allocated, &unused);
    if (err == -VV_ERR_MISS)
        return vv_op_miss(op, bytes);
    TRY(err);
    note_found(op, bytes);
    const struct vv_data *data = vv_data_find(op->volume, data_id);
    bool is_changing = data != NULL && allocated != 0;
    if (data != NULL)
        allocated += (int64_t)data->dirty_bytes;
    *out_bytes = allocated > 0 ? (uint64_t)allocated : 0;
    return is_changing;
}

static int stage_record(struct vv_op *op, enum vv_lsm_kind kind, struct vv_bytes key,
                        struct vv_bytes value)
{
    if (op->volume->is_read_only)
        return -EROFS;
    if (op->record_count == VV_OP_WRITES_MAX || key.len > VV_LSM_KEY_MAX ||
        value.len > VV_LSM_VALUE_MAX)
        return -VV_ERR_LIMIT;
    vv_writer_u8(&op->stage, (uint8_t)kind);
    vv_writer_u16(&op->stage, (uint16_t)key.len);
    vv_writer_u32(&op->stage, (uint32_t)value.len);
    vv_writer_bytes(&op->stage, key.ptr, key.len);
    vv_writer_bytes(&op->stage, value.ptr, value.len);
    TRY(vv_writer_check(&op->stage));
    op->record_count++;
    return 0;
}

int vv_op_put(struct vv_op *op, struct vv_bytes key, struct vv_bytes value)
{
    return stage_record(op, VV_LSM_PUT, key, value);
}

int vv_op_delete(struct vv_op *op, struct vv_bytes key)
{
    return stage_record(op, VV_LSM_DELETE, key, (struct vv_bytes){NULL, 0});
}

int vv_op_touch(struct vv_op *op, uint64_t inode)
{
    for (unsigned i = 0; i < op->touch_count; i++) {
        if (op->touches[i]->inode == inode)
            return 0;
    }
    if (op->touch_count == VV_OP_TOUCHES_MAX)
        return -VV_ERR_LIMIT;
    struct vv_touch *touch = vv_zalloc(sizeof *touch);
    if (touch == NULL)
        return -ENOMEM;
    vv_list_init(&touch->in_commit);
    touch->inode = inode;
    op->touches[op->touch_count++] = touch;
    return 0;
}

uint64_t vv_op_new_inode(struct vv_op *op)
{
    return op->volume->counters.next_inode++;
}

uint64_t vv_op_new_data_id(struct vv_op *op)
{
    return op->volume->counters.next_data_id++;
}

static struct vv_touch *touch_find(struct vv_volume *volume, uint64_t inode)
{
    struct vv_map_node *node = vv_map_find(&volume->touches, vv_mix64(inode));
    for (; node != NULL; node = vv_map_next(node)) {
        struct vv_touch *touch = vv_container_of(node, struct vv_touch, node);
        if (touch->inode == inode)
            return touch;
    }
    return NULL;
}

static void apply_touches(struct vv_op *op)
{
    struct vv_volume *volume = op->volume;
    for (unsigned i = 0; i < op->touch_count; i++) {
        struct vv_touch *touch = touch_find(volume, op->touches[i]->inode);
        if (touch != NULL) {
            vv_list_remove(&touch->in_commit);
            vv_free(op->touches[i]);
        } else {
            touch = op->touches[i];
            vv_map_insert(&volume->touches, &touch->node, vv_mix64(touch->inode));
        }
        touch->commit = volume->open->number;
        vv_list_push_back(&volume->open->touches, &touch->in_commit);
    }
    op->touch_count = 0;
}

static void apply_records(struct vv_op *op)
{
    struct vv_volume *volume = op->volume;
    uint64_t commit = volume->open->number;
    struct vv_cursor cursor = vv_cursor_of(op->stage.ptr, op->stage.len);
    for (unsigned i = 0; i < op->record_count; i++) {
        uint8_t kind = vv_cursor_u8(&cursor);
        size_t key_len = vv_cursor_u16(&cursor);
        size_t value_len = vv_cursor_u32(&cursor);
        struct vv_bytes key = vv_cursor_bytes(&cursor, key_len);
        struct vv_bytes value = vv_cursor_bytes(&cursor, value_len);
        if (kind == VV_LSM_PUT)
            vv_lsm_put(volume->lsm, commit, key, value);
        else
            vv_lsm_delete(volume->lsm, commit, key);
    }
    assert(!cursor.is_bad && cursor.len == 0);
}

/* What the records take in the journal, at most. */
static size_t record_bytes(const struct vv_op *op)
{
    return op->stage.len + 8 * (size_t)op->record_count;
}

/* Everything staged takes effect. Cannot fail: records are reserved, the rest is linking. */
static int apply(struct vv_op *op)
{
    struct vv_volume *volume = op->volume;
    if (op->record_count == 0 && vv_list_is_empty(&op->layers))
        return 0;
    TRY(vv_lsm_reserve(volume->lsm, op->record_count, op->stage.len));
    volume->open->change_bytes += record_bytes(op);
    apply_records(op);
    vv_op_apply_data(op);
    apply_touches(op);
    volume->open->counters = volume->counters;
    vv_commit_changed(volume);
    op->is_commit_due = vv_commit_applied(volume);
    return 0;
}

void vv_op_follow(struct vv_op *op, void (*fn)(struct vv_op *op, uint64_t arg), uint64_t arg)
{
    if (op->follow_count == VV_OP_FOLLOWS_MAX)
        return;
    op->follows[op->follow_count].fn = fn;
    op->follows[op->follow_count++].arg = arg;
}

static int fetch_keys(struct vv_op *op)
{
    struct vv_bytes inline_keys[16];
    struct vv_bytes *keys = inline_keys;
    size_t count = op->key_count;
    TRY(vv_writer_check(&op->keys)); /* a key may not have been noted */
    if (count > 16) {
        keys = vv_calloc(count, sizeof *keys);
        if (keys == NULL)
            return -ENOMEM;
    }
    struct vv_cursor cursor = vv_cursor_of(op->keys.ptr, op->keys.len);
    for (size_t i = 0; i < count; i++) {
        size_t len = vv_cursor_u16(&cursor);
        keys[i] = vv_cursor_bytes(&cursor, len);
    }
    int err = vv_cursor_end(&cursor);
    if (err == 0)
        err = vv_lsm_fetch(op->volume->lsm, keys, count, &op->pins);
    if (keys != inline_keys)
        vv_free(keys);
    return err;
}

int vv_op_fetch_missed(struct vv_op *op)
{
    TRY(fetch_keys(op));
    unsigned count = op->follow_count;
    if (count == 0)
        return 0;
    vv_op_begin_round(op, true);
    for (unsigned i = 0; i < count; i++)
        op->follows[i].fn(op, op->follows[i].arg);
    return op->miss_count > 0 ? fetch_keys(op) : 0;
}

/* Writers wait here while memtables or tombstones are too far behind. */
static int wait_for_room(struct vv_volume *volume)
{
    while (!volume->is_fenced && !volume->is_stopping &&
           (vv_lsm_memtable_bytes(volume->lsm) > 3 * volume->memtable_limit ||
            vv_lsm_is_stalled(volume->lsm) || volume->range_count > VV_RANGES_MAX)) {
        volume->is_pressed = true;
        vv_waitq_wake_all(&volume->commit_work);
        vv_waitq_wake_all(&volume->unit_work);
        vv_waitq_wake_all(&volume->flush_work);
        if (vv_store_is_refusing(volume))
            return volume->store_error;
        vv_waitq_wait(&volume->room, vv_rt_now_ns() + 200 * VV_NS_PER_MS);
    }
    return volume->is_fenced ? vv_volume_end_error(volume) : 0;
}

/* What writers leave free of a bounded store, so that deleting, flushing, sending what is dirty and the journal's
 * next file always have room. */
uint64_t vv_store_reserve(const struct vv_volume *volume)
{
    uint64_t reserve = volume->store_total / 100;
    if (reserve < STORE_RESERVE_MIN)
        reserve = STORE_RESERVE_MIN;
    if (reserve > STORE_RESERVE_MAX)
        reserve = STORE_RESERVE_MAX;
    return vv_volume_is_journaling(volume) ? reserve + volume->journal_file_bytes : reserve;
}

static bool is_store_full(const struct vv_volume *volume, size_t bytes)
{
    return volume->store_free != UINT64_MAX &&
           volume->store_free <
               vv_store_reserve(volume) + volume->dirty_budget.used + volume->mem_budget.used + bytes;
}

/* Is something on its way to being deleted, or waiting for that? */
static bool is_freeing(const struct vv_volume *volume)
{
    return !vv_list_is_empty(&volume->drops) || !vv_list_is_empty(&volume->reclaims) ||
           volume->dead_bytes > 0 || volume->is_flush_due || volume->is_flushing ||
           volume->is_sweep_due || volume->is_sweeping || volume->repack.is_running ||
           vv_lsm_flushable_commit(volume->lsm) != 0;
}

/* The store is full: whoever has just removed something may write in its place, so what is dead is deleted first. */
static int wait_for_space(struct vv_volume *volume, size_t bytes)
{
    uint64_t end = vv_rt_now_ns() + SPACE_WAIT_MAX_NS;
    while (is_store_full(volume, bytes)) {
        if (volume->is_fenced)
            return vv_volume_end_error(volume);
        if (!is_freeing(volume))
            vv_repack_start(volume);
        if (!is_freeing(volume) || vv_store_is_refusing(volume) || volume->is_stopping ||
            vv_rt_now_ns() >= end)
            return -ENOSPC;
        volume->is_flush_due |= volume->dead_bytes > 0;
        vv_space_kick(volume);
        vv_volume_wake_all(volume);
        vv_waitq_wait(&volume->room, vv_rt_now_ns() + SPACE_ASK_NS);
        volume->space_asked_ns = vv_rt_now_ns();
        if (vv_volume_refresh_space(volume) < 0)
            return 0;
    }
    return 0;
}

/* -ENOSPC when the store has no room for what is dirty and this. Asks the store before it says so. */
static int check_store_space(struct vv_volume *volume, size_t bytes)
{
    if (volume->store_free == UINT64_MAX)
        return 0;
    bool is_old = vv_rt_now_ns() - volume->space_asked_ns > SPACE_AGE_MAX_NS;
    if (!is_old && !is_store_full(volume, bytes))
        return 0;
    volume->space_asked_ns = vv_rt_now_ns();
    if (vv_volume_refresh_space(volume) < 0)
        return 0; /* the store says it when it is asked to hold something */
    return is_store_full(volume, bytes) ? wait_for_space(volume, bytes) : 0;
}

/* A sync waits for all that was written before it (prefix order): while others sync, who writes much waits for the
 * line, so that they don't, for a while. */
static void pace(struct vv_volume *volume, size_t bytes)
{
    uint64_t end = vv_rt_now_ns() + PACE_MAX_NS;
    if (bytes < PACE_BYTES || vv_volume_is_journaling(volume))
        return;
    while (volume->dirty_budget.used + bytes > vv_upload_dirty_max(volume) &&
           volume->puts_under_way > 0 && vv_rt_now_ns() < end && !volume->is_fenced &&
           !volume->is_stopping && volume->store_error == 0)
        vv_waitq_wait(&volume->uploads, end);
}

static int wait_for_bytes(struct vv_volume *volume, size_t bytes)
{
    pace(volume, bytes);
    int err = vv_budget_try(&volume->dirty_budget, bytes);
    if (err != -VV_ERR_BUDGET)
        return err;
    volume->dirty_waiters++;
    while (err == -VV_ERR_BUDGET || err == -ETIMEDOUT) {
        if (volume->is_fenced) {
            err = vv_volume_end_error(volume);
            break;
        }
        if (vv_store_is_refusing(volume)) {
            err = volume->store_error;
            break;
        }
        vv_commit_press(volume);
        err = vv_budget_wait(&volume->dirty_budget, bytes, vv_rt_now_ns() + 100 * VV_NS_PER_MS);
    }
    volume->dirty_waiters--;
    return err;
}

/* The open commit has as many changes as a commit can, and may not be frozen yet: what was planned is planned again in the
 * next one. Deleting waits, too, but not for ever: a server that is to end must get to it. */
static int wait_for_next_commit(struct vv_op *op)
{
    struct vv_volume *volume = op->volume;
    size_t bytes = record_bytes(op);
    uint64_t end = op->is_freeing ? vv_rt_now_ns() + volume->sync_timeout_ns : VV_NEVER;
    drop_staged(op);
    while (vv_commit_is_full(volume, bytes) && !volume->is_fenced) {
        if (vv_store_is_refusing(volume) && !vv_volume_is_journaling(volume))
            return volume->store_error;
        if (vv_rt_now_ns() >= end)
            return -EIO;
        vv_waitq_wake_all(&volume->commit_work);
        vv_waitq_wait(&volume->room, vv_rt_now_ns() + 200 * VV_NS_PER_MS);
    }
    return volume->is_fenced ? vv_volume_end_error(volume) : 0;
}

static int run_rounds(struct vv_op *op, int (*fn)(struct vv_op *, void *), void *arg)
{
    struct vv_volume *volume = op->volume;
    uint64_t version = vv_lsm_version(volume->lsm);
    for (unsigned round = 1;; round++) {
        /* Rounds are counted on one set of tables: what was pinned of those before is of no use now. */
        if (version != vv_lsm_version(volume->lsm)) {
            version = vv_lsm_version(volume->lsm);
            volume->stats.plan_restarts += round > 1;
            round = 1;
        }
        volume->stats.plan_rounds++;
        if (round > volume->stats.plan_rounds_max)
            volume->stats.plan_rounds_max = round;
        vv_op_begin_round(op, round > 1);
        int result = fn(op, arg);
        if (op->is_folding) {
            drop_staged(op);
            TRY(vv_op_fold(op));
            continue;
        }
        if (op->miss_count == 0) {
            if (result >= 0 && vv_commit_is_full(volume, record_bytes(op))) {
                TRY(wait_for_next_commit(op));
                round = 0;
                continue;
            }
            if (result >= 0)
                TRY(apply(op));
            else
                drop_staged(op);
            return result;
        }
        drop_staged(op);
        TRY(vv_op_fetch_missed(op));
        if (round >= VV_PLAN_ROUNDS_WARN && round % VV_PLAN_ROUNDS_WARN == 0)
            vv_warn("volume", "an operation needs its %uth plan round", round);
    }
}

int vv_volume_run(struct vv_volume *volume, enum vv_op_mode mode, size_t write_bytes,
                  int (*fn)(struct vv_op *op, void *arg), void *arg)
{
    size_t charged = 0;
    volume->stats.ops++;
    if (volume->is_shut_down)
        return -VV_ERR_SHUT_DOWN;
    if (mode != VV_OP_READ) {
        if (volume->is_read_only)
            return -EROFS;
        if (volume->is_fenced)
            return vv_volume_end_error(volume);
    }
    if (mode == VV_OP_WRITE) {
        TRY(check_store_space(volume, write_bytes));
        TRY(wait_for_room(volume));
    }
    if (write_bytes > 0) {
        charged = write_bytes + VV_EXTENT_BYTES;
        TRY(wait_for_bytes(volume, charged));
    }
    struct vv_op op;
    vv_op_init(&op, volume);
    op.is_freeing = mode == VV_OP_FREEING;
    int result = run_rounds(&op, fn, arg);
    vv_op_done(&op);
    if (charged > 0)
        vv_budget_release(&volume->dirty_budget, charged);
    if (op.is_commit_due)
        vv_fiber_yield(); /* its record is on its way before anybody is answered */
    return result;
}
