/* rename(2), with RENAME_NOREPLACE, RENAME_EXCHANGE and RENAME_WHITEOUT. */
#include <assert.h>
#include <linux/fs.h>
#include <string.h>

#include "base/plant.h"
#include "fs/fs_impl.h"

struct rename_name {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    unsigned flags;
    struct vv_place from, to;
    struct vv_handle *removed_dir; /* to be bound to to.child; NULL = not wanted */
    bool is_done;   /* out: something changed */
    bool is_orphan; /* out: to.child needs the reclaimer */
};

/* ---- no directory into itself ---- */

/* Is `ancestor` on the way from `inode` (included) to the root? 1, 0, or an error. */
static int is_below(struct vv_fs *fs, struct vv_op *op, uint64_t inode, uint64_t ancestor)
{
    for (unsigned depth = 0; depth < VV_DEPTH_MAX; depth++) {
        struct vv_inode dir;
        if (inode == ancestor)
            return 1;
        if (inode == VV_ROOT_INODE)
            return 0;
        TRY(vv_inode_load(fs, op, inode, &dir));
        inode = dir.parent;
    }
    return -VV_ERR_CORRUPT;
}

struct climb {
    struct vv_fs *fs;
    uint64_t inode;
};

/* One directory up. */
static int climb(struct vv_op *op, void *arg)
{
    struct climb *call = arg;
    struct vv_inode dir;
    TRY(vv_inode_load(call->fs, op, call->inode, &dir));
    call->inode = dir.parent;
    return 0;
}

/* Bring the way to the root into memory, so that is_below does not need a round for each step. What
 * goes wrong here goes wrong there again. */
static void prefetch_way(struct vv_fs *fs, uint64_t inode)
{
    struct climb args = {.fs = fs, .inode = inode};
    for (unsigned depth = 0; depth < VV_DEPTH_MAX && args.inode != VV_ROOT_INODE; depth++) {
        if (vv_volume_run(fs->volume, VV_OP_READ, 0, climb, &args) < 0)
            return;
    }
}

struct peek_types {
    const struct rename_name *call;
    bool is_from_dir, is_to_dir;
};

static int peek_types(struct vv_op *op, void *arg)
{
    struct peek_types *peek = arg;
    const struct vv_place *from = &peek->call->from;
    const struct vv_place *to = &peek->call->to;
    struct vv_entry entry;
    int a = vv_entry_load(op, from->parent, from->name, from->name_len, &entry);
    peek->is_from_dir = a > 0 && S_ISDIR(entry.type);
    int b = vv_entry_load(op, to->parent, to->name, to->name_len, &entry);
    peek->is_to_dir = b > 0 && S_ISDIR(entry.type);
    TRY(a);
    return b;
}

static void prefetch(struct rename_name *call)
{
    struct peek_types peek = {.call = call};
    if (call->from.parent == call->to.parent || call->from.name_len > VV_NAME_MAX ||
        call->to.name_len > VV_NAME_MAX)
        return;
    if (vv_volume_run(call->fs->volume, VV_OP_READ, 0, peek_types, &peek) < 0)
        return;
    if (peek.is_from_dir)
        prefetch_way(call->fs, call->to.parent);
    if (peek.is_to_dir)
        prefetch_way(call->fs, call->from.parent);
}

/* ---- checks, in the order of do_renameat2 and vfs_rename ---- */

static int check_names(const struct rename_name *call)
{
    const struct vv_place *from = &call->from;
    const struct vv_place *to = &call->to;
    TRY(from->dir_err);
    TRY(to->dir_err);
    TRY(from->name_err);
    if (!from->is_found)
        return -ENOENT;
    TRY(to->name_err);
    if ((call->flags & RENAME_NOREPLACE) && to->is_found)
        return -EEXIST;
    return (call->flags & RENAME_EXCHANGE) && !to->is_found ? -ENOENT : 0;
}

static int check_ways(struct vv_op *op, const struct rename_name *call)
{
    const struct vv_place *from = &call->from;
    const struct vv_place *to = &call->to;
    if (from->parent == to->parent)
        return 0;
    if (S_ISDIR(from->child.mode)) {
        int is_own = is_below(call->fs, op, to->parent, from->child.inode);
        TRY(is_own);
        if (is_own)
            return -EINVAL;
    }
    if (to->is_found && S_ISDIR(to->child.mode) && to->child.size > 0) {
        int is_own = is_below(call->fs, op, from->parent, to->child.inode);
        TRY(is_own);
        if (is_own)
            return call->flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
    }
    return 0;
}

static int check_permissions(struct vv_op *op, const struct rename_name *call)
{
    const struct vv_cred *cred = &call->call->cred;
    const struct vv_place *from = &call->from;
    const struct vv_place *to = &call->to;
    bool is_exchange = call->flags & RENAME_EXCHANGE;
    bool is_dir = S_ISDIR(from->child.mode);
    bool is_wanting_dir = is_exchange ? to->is_found && S_ISDIR(to->child.mode) : is_dir;
    TRY(vv_permit_delete(op, cred, &from->dir, &from->child, is_dir));
    if (to->is_found)
        TRY(vv_permit_delete(op, cred, &to->dir, &to->child, is_wanting_dir));
    else
        TRY(vv_permit_create(op, cred, &to->dir));
    /* A directory that moves gets another "..": that is writing to it. */
    if (from->parent == to->parent)
        return 0;
    if (is_dir)
        TRY(vv_permit(op, cred, &from->child, W_OK));
    return is_exchange && is_wanting_dir ? vv_permit(op, cred, &to->child, W_OK) : 0;
}

/* ---- changes ---- */

/* Let the entry at `place` (with its cookie) be `child`. */
static int stage_entry(struct vv_op *op, const struct vv_place *place, uint64_t cookie,
                       const struct vv_inode *child)
{
    struct vv_entry entry = {child->inode, cookie, child->mode & S_IFMT};
    return vv_entry_save(op, place->parent, &entry, place->name, place->name_len);
}

static int exchange(struct vv_op *op, struct rename_name *call, struct vv_inode *to_dir)
{
    struct vv_place *from = &call->from;
    struct vv_place *to = &call->to;
    bool is_from_dir = S_ISDIR(from->child.mode);
    bool is_to_dir = S_ISDIR(to->child.mode);
    uint64_t unused;
    /* The entries stay as many, and keep their cookies; the links of subdirectories may move. */
    TRY(vv_dir_remove(&from->dir, is_from_dir));
    TRY(vv_dir_remove(to_dir, is_to_dir));
    TRY(vv_dir_add(&from->dir, is_to_dir, &unused));
    TRY(vv_dir_add(to_dir, is_from_dir, &unused));
    TRY(vv_link_move(op, &from->child, from->parent, from->entry.cookie, to->parent,
                     to->entry.cookie));
    TRY(vv_link_move(op, &to->child, to->parent, to->entry.cookie, from->parent,
                     from->entry.cookie));
    vv_inode_touch(&to->child, VV_NOW_CTIME);
    TRY(vv_inode_save(op, &to->child));
    TRY(stage_entry(op, from, from->entry.cookie, &to->child));
    return stage_entry(op, to, to->entry.cookie, &from->child);
}

static int move(struct vv_op *op, struct rename_name *call, struct vv_inode *to_dir)
{
    struct vv_place *from = &call->from;
    struct vv_place *to = &call->to;
    bool is_dir = S_ISDIR(from->child.mode);
    uint64_t cookie;
    TRY(vv_dir_remove(&from->dir, is_dir));
    if (to->is_found)
        TRY(vv_dir_remove(to_dir, S_ISDIR(to->child.mode)));
    TRY(vv_dir_add(to_dir, is_dir, &cookie));
    /* In its own directory it keeps its cookie: who renames everything that readdir shows would
     * otherwise meet the same files for ever. */
    if (from->parent == to->parent)
        cookie = from->entry.cookie;
    TRY(vv_entry_erase(op, from->parent, &from->entry, from->name, from->name_len));
    if (to->is_found) {
        TRY(vv_entry_erase(op, to->parent, &to->entry, to->name, to->name_len));
        if (S_ISDIR(to->child.mode))
            vv_removed_dir_bind(call->removed_dir, to->child.inode);
        TRY(vv_link_drop(call->fs, op, &to->child, to->parent, to->entry.cookie, &call->is_orphan));
    }
    TRY(vv_link_move(op, &from->child, from->parent, from->entry.cookie, to->parent, cookie));
    return stage_entry(op, to, cookie, &from->child);
}

/* A character device 0:0 where the source was: to overlayfs, a name that is not there. */
static int leave_whiteout(struct vv_op *op, struct rename_name *call)
{
    struct vv_place *from = &call->from;
    struct vv_inode whiteout;
    vv_inode_new(op, call->call, &from->dir, S_IFCHR, &whiteout);
    TRY(vv_dir_add(&from->dir, false, &whiteout.cookie));
    TRY(vv_inode_save(op, &whiteout));
    return stage_entry(op, from, whiteout.cookie, &whiteout);
}

static int stage(struct vv_op *op, struct rename_name *call)
{
    struct vv_place *from = &call->from;
    struct vv_place *to = &call->to;
    bool is_same_dir = from->parent == to->parent;
    struct vv_inode *to_dir = is_same_dir ? &from->dir : &to->dir;
    TRY(call->flags & RENAME_EXCHANGE ? exchange(op, call, to_dir) : move(op, call, to_dir));
    if (call->flags & RENAME_WHITEOUT)
        TRY(leave_whiteout(op, call));
    vv_inode_touch(&from->child, VV_NOW_CTIME);
    TRY(vv_inode_save(op, &from->child));
    TRY(vv_inode_save(op, &from->dir));
    if (!is_same_dir)
        TRY(vv_inode_save(op, &to->dir));
    TRY(vv_reply_stage(call->fs, op, call->call, from->child.inode));
    call->is_done = true;
    return 0;
}

static int rename_name(struct vv_op *op, void *arg)
{
    struct rename_name *call = arg;
    struct vv_place *from = &call->from;
    struct vv_place *to = &call->to;
    call->is_done = false;
    call->is_orphan = false;
    if (call->removed_dir)
        vv_handle_unbind(call->removed_dir);
    vv_place_read(call->fs, op, call->call, from);
    vv_place_read(call->fs, op, call->call, to);
    if (vv_op_is_missing(op))
        return -VV_ERR_MISS;
    TRY(check_names(call));
    TRY(check_ways(op, call));
    if (to->is_found && to->child.inode == from->child.inode)
        return 0;
    TRY(check_permissions(op, call));
    if (to->is_found && !(call->flags & RENAME_EXCHANGE) && S_ISDIR(to->child.mode) &&
        to->child.size > 0)
        return -ENOTEMPTY;
    return stage(op, call);
}

static int finish(struct rename_name *call)
{
    struct vv_fs *fs = call->fs;
    struct vv_place *from = &call->from;
    struct vv_place *to = &call->to;
    if (!call->is_done)
        return 0;
    vv_notify_entry(fs, call->call, from->parent, from->name, from->name_len);
    vv_notify_entry(fs, call->call, to->parent, to->name, to->name_len);
    vv_notify_inode(fs, call->call, from->parent, 0, 0);
    if (from->parent != to->parent)
        vv_notify_inode(fs, call->call, to->parent, 0, 0);
    vv_notify_inode(fs, call->call, from->child.inode, 0, 0);
    if (to->is_found)
        vv_notify_inode(fs, call->call, to->child.inode, 0, 0);
    vv_notify_wait(fs, call->call);
    TRY(vv_fs_sync_if(fs, &from->dir));
    return vv_fs_sync_if(fs, &to->dir);
}

/* What is replaced goes in an operation of its own. */
static void plant_unlink_target(const struct rename_name *args)
{
    struct vv_attr from;
    struct vv_attr to;
    if (vv_fs_lookup(args->fs, args->call, args->from.parent, args->from.name,
                     args->from.name_len, &from) < 0 ||
        vv_fs_lookup(args->fs, args->call, args->to.parent, args->to.name, args->to.name_len,
                     &to) < 0 ||
        from.inode == to.inode || S_ISDIR(from.mode) || S_ISDIR(to.mode))
        return;
    if (vv_fs_unlink(args->fs, args->call, args->to.parent, args->to.name, args->to.name_len) == 0)
        vv_rt_sleep_ns(VV_NS_PER_MS);
}

int vv_fs_rename(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t from_parent,
                 const char *from_name, size_t from_len, uint64_t to_parent, const char *to_name,
                 size_t to_len, unsigned flags)
{
    struct rename_name args = {.fs = fs, .call = call, .flags = flags};
    const unsigned lone = flags & (RENAME_NOREPLACE | RENAME_WHITEOUT);
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) ||
        ((flags & RENAME_EXCHANGE) && lone))
        return -EINVAL;
    if (vv_name_is_dots(from_name, from_len))
        return -EBUSY;
    if (vv_name_is_dots(to_name, to_len))
        return flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY;
    args.from.parent = from_parent;
    args.from.name = from_name;
    args.from.name_len = from_len;
    args.to.parent = to_parent;
    args.to.name = to_name;
    args.to.name_len = to_len;
    prefetch(&args);
    if (vv_planted(VV_PLANT_HALF_RENAME) && flags == 0)
        plant_unlink_target(&args);
    CLEANUP(vv_handle_release_ptr) struct vv_handle *removed_dir = NULL;
    TRY(vv_removed_dir_new(fs, call, &removed_dir));
    args.removed_dir = removed_dir;
    TRY(vv_volume_run(fs->volume, VV_OP_WRITE, 0, rename_name, &args));
    if (args.is_orphan)
        vv_reclaim_queue(fs, args.to.child.inode);
    vv_removed_dir_give(call, &removed_dir);
    return finish(&args);
}
