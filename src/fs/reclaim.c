/* The reclaimer: one fiber that frees inodes whose last link and last handle are gone, in bounded
 * operations. What a crash leaves behind is found again by the orphan records. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "fs/fs_impl.h"

void vv_reclaim_push(struct vv_fs *fs, struct vv_open_inode *open)
{
    if (!vv_list_is_empty(&open->in_reclaims))
        return;
    vv_list_push_back(&fs->reclaims, &open->in_reclaims);
    vv_waitq_wake_one(&fs->reclaim_wake);
}

void vv_reclaim_queue(struct vv_fs *fs, uint64_t inode)
{
    struct vv_open_inode *open = vv_open_find(fs, inode);
    if (!open) {
        open = vv_zalloc(sizeof(*open));
        if (!open) {
            /* It is found by its record instead. */
            fs->is_scanning_orphans = true;
            vv_waitq_wake_one(&fs->reclaim_wake);
            return;
        }
        open->inode = inode;
        vv_list_init(&open->in_reclaims);
        vv_map_insert(&fs->opens, &open->node, vv_mix64(inode));
    }
    open->is_orphan = true;
    if (open->handle_count + open->pending_count == 0)
        vv_reclaim_push(fs, open);
}

struct reclaim {
    struct vv_fs *fs;
    uint64_t inode;
    size_t name_count;
    uint16_t name_lens[VV_RECLAIM_BATCH_MAX];
    char names[VV_RECLAIM_BATCH_MAX][VV_XATTR_NAME_MAX];
};

/* Is it still an orphan that nobody uses? 1 with the inode, 0, or an error. */
static int load_orphan(struct vv_op *op, const struct reclaim *call, struct vv_inode *inode)
{
    struct vv_fs_key key;
    struct vv_bytes orphan;
    struct vv_bytes record;
    vv_key_orphan(&key, call->inode);
    int is_orphan = vv_op_get(op, vv_fs_key_bytes(&key), &orphan);
    vv_key_inode(&key, call->inode);
    int is_there = vv_op_get(op, vv_fs_key_bytes(&key), &record);
    TRY(is_orphan);
    TRY(is_there);
    if (is_orphan == 0 || vv_open_is_used(call->fs, call->inode))
        return 0;
    if (is_there == 0) {
        vv_key_orphan(&key, call->inode);
        TRY(vv_op_delete(op, vv_fs_key_bytes(&key)));
        return 0;
    }
    TRY(vv_inode_decode(record, call->inode, inode));
    return inode->nlink == 0;
}

/* Delete the attributes that were collected. 1 = done, 0 = it is no orphan. */
static int erase_names(struct vv_op *op, void *arg)
{
    const struct reclaim *call = arg;
    struct vv_inode inode;
    struct vv_fs_key key;
    int is_orphan = load_orphan(op, call, &inode);
    if (is_orphan <= 0)
        return is_orphan;
    for (size_t i = 0; i < call->name_count; i++) {
        vv_key_xattr(&key, call->inode, call->names[i], call->name_lens[i]);
        TRY(vv_op_delete(op, vv_fs_key_bytes(&key)));
    }
    return 1;
}

static int erase_inode(struct vv_op *op, void *arg)
{
    const struct reclaim *call = arg;
    struct vv_inode inode;
    struct vv_fs_key key;
    int is_orphan = load_orphan(op, call, &inode);
    if (is_orphan <= 0)
        return is_orphan;
    TRY(vv_file_drop_data(op, &inode));
    vv_key_inode(&key, call->inode);
    TRY(vv_op_delete(op, vv_fs_key_bytes(&key)));
    vv_key_orphan(&key, call->inode);
    TRY(vv_op_delete(op, vv_fs_key_bytes(&key)));
    return 1;
}

/* Collect names of attributes, up to the size of a batch. */
static int collect_names(struct reclaim *call)
{
    struct vv_fs_key lower;
    struct vv_fs_key upper;
    struct vv_lsm_iter *iter = NULL;
    vv_key_xattr(&lower, call->inode, NULL, 0);
    vv_key_xattr(&upper, call->inode + 1, NULL, 0);
    call->name_count = 0;
    TRY(vv_volume_scan(call->fs->volume, vv_fs_key_bytes(&lower), vv_fs_key_bytes(&upper), &iter));
    int more = 1;
    while (more > 0 && call->name_count < VV_RECLAIM_BATCH_MAX) {
        struct vv_bytes key;
        struct vv_bytes value;
        more = vv_lsm_iter_next(iter, &key, &value);
        if (more <= 0 || key.len < lower.len || key.len - lower.len > VV_XATTR_NAME_MAX)
            continue;
        memcpy(call->names[call->name_count], key.ptr + lower.len, key.len - lower.len);
        call->name_lens[call->name_count++] = (uint16_t)(key.len - lower.len);
    }
    vv_lsm_iter_close(iter);
    return more < 0 ? more : 0;
}

static int reclaim(struct reclaim *call)
{
    struct vv_volume *volume = call->fs->volume;
    int is_going_on = 1;
    do {
        TRY(collect_names(call));
        if (call->name_count > 0)
            is_going_on = vv_volume_run(volume, VV_OP_FREEING, 0, erase_names, call);
    } while (is_going_on > 0 && call->name_count == VV_RECLAIM_BATCH_MAX);
    if (is_going_on > 0)
        is_going_on = vv_volume_run(volume, VV_OP_FREEING, 0, erase_inode, call);
    return is_going_on < 0 ? is_going_on : 0;
}

static int reclaim_inode(struct vv_fs *fs, uint64_t inode)
{
    CLEANUP(vv_free_ptr) struct reclaim *call = vv_alloc(sizeof(*call));
    if (!call)
        return -ENOMEM;
    call->fs = fs;
    call->inode = inode;
    return reclaim(call);
}

/* Failing leaves the orphan record, and so the next opening tries again; without memory, the reclaimer does. */
static void reclaim_queued(struct vv_fs *fs)
{
    struct vv_open_inode *open = vv_list_first(&fs->reclaims, struct vv_open_inode, in_reclaims);
    uint64_t inode = open->inode;
    /* An orphan is freed here only. Who opens it meanwhile queues it again when he leaves. */
    assert(open->is_orphan);
    vv_list_remove(&open->in_reclaims);
    if (open->handle_count + open->pending_count == 0) {
        int err = reclaim_inode(fs, inode);
        if (err < 0 && err != -VV_ERR_SHUT_DOWN)
            vv_warn("fs", "reclaiming inode %llu: %s", (unsigned long long)inode, vv_err_text(err));
        if (err < 0 && vv_err_errno(err) == ENOMEM)
            fs->is_scanning_orphans = true;
    }
    bool is_queued_again = !vv_list_is_empty(&open->in_reclaims);
    if (open->handle_count + open->pending_count == 0 && !is_queued_again) {
        vv_map_remove(&fs->opens, &open->node);
        vv_free(open);
    }
}

/* Queue the next orphan above `after`; 1, 0 at the end, or an error. */
static int next_orphan(struct vv_fs *fs, uint64_t after, uint64_t *out_inode)
{
    struct vv_fs_key lower;
    struct vv_fs_key upper;
    struct vv_lsm_iter *iter = NULL;
    struct vv_bytes key;
    struct vv_bytes value;
    vv_key_orphan(&lower, after + 1);
    vv_key_orphan(&upper, 0);
    upper.bytes[1]++;
    upper.len = 2;
    TRY(vv_volume_scan(fs->volume, vv_fs_key_bytes(&lower), vv_fs_key_bytes(&upper), &iter));
    int found = vv_lsm_iter_next(iter, &key, &value);
    if (found > 0 && key.len != lower.len)
        found = -VV_ERR_FORMAT;
    if (found > 0)
        *out_inode = vv_load_be64(key.ptr + 2);
    vv_lsm_iter_close(iter);
    return found;
}

static void scan_orphans(struct vv_fs *fs)
{
    uint64_t inode = 0;
    int found = 1;
    fs->is_scanning_orphans = false;
    while (found > 0 && !fs->is_closing) {
        found = next_orphan(fs, inode, &inode);
        if (found > 0 && !vv_open_is_used(fs, inode)) {
            int err = reclaim_inode(fs, inode);
            found = err < 0 ? err : found;
        }
    }
    if (found < 0 && found != -EROFS)
        vv_warn("fs", "reclaiming unlinked inodes: %s", vv_err_text(found));
    if (found < 0 && found != -EROFS && found != -VV_ERR_FENCED &&
        found != -VV_ERR_SHUT_DOWN) {
        fs->is_scanning_orphans = true; /* again, after a while or at the next unlink */
        (void)vv_waitq_wait(&fs->reclaim_wake, vv_rt_now_ns() + VV_NS_PER_S);
    }
}

static void run_reclaimer(void *arg)
{
    struct vv_fs *fs = arg;
    while (!fs->is_closing || !vv_list_is_empty(&fs->reclaims)) {
        if (fs->is_scanning_orphans && !fs->is_closing)
            scan_orphans(fs);
        else if (!vv_list_is_empty(&fs->reclaims))
            reclaim_queued(fs);
        else
            vv_waitq_wait(&fs->reclaim_wake, VV_NEVER);
    }
    fs->is_reclaimer_running = false;
    vv_waitq_wake_all(&fs->reclaim_ended);
}

int vv_reclaim_start(struct vv_fs *fs)
{
    fs->is_scanning_orphans = true;
    TRY(vv_fiber_start(run_reclaimer, fs, "fs-reclaim"));
    fs->is_reclaimer_running = true;
    return 0;
}

void vv_reclaim_stop(struct vv_fs *fs)
{
    fs->is_closing = true;
    vv_waitq_wake_all(&fs->reclaim_wake);
    while (fs->is_reclaimer_running)
        vv_waitq_wait(&fs->reclaim_ended, VV_NEVER);
}
