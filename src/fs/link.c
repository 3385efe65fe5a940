/* Taking and giving links: link, unlink, rmdir. */
#include <assert.h>
#include <linux/fs.h>
#include <string.h>

#include "fs/fs_impl.h"

int vv_link_move(struct vv_op *op, struct vv_inode *child, uint64_t from_parent,
                 uint64_t from_cookie, uint64_t to_parent, uint64_t to_cookie)
{
    static const uint8_t value = 1;
    struct vv_fs_key key;
    bool is_first = child->parent == from_parent && child->cookie == from_cookie;
    if (is_first) {
        child->parent = to_parent;
        child->cookie = to_cookie;
        return 0;
    }
    if (from_parent != 0) {
        vv_key_link(&key, child->inode, from_parent, from_cookie);
        TRY(vv_op_delete(op, vv_fs_key_bytes(&key)));
    }
    if (to_parent == 0)
        return 0;
    vv_key_link(&key, child->inode, to_parent, to_cookie);
    return vv_key_put(op, &key, &value, sizeof(value));
}

/* Nobody can reach it any more: it goes now, or, when somebody has it open or it has attributes
 * whose names are not known, it becomes an orphan. */
static int stage_gone(struct vv_fs *fs, struct vv_op *op, struct vv_inode *child,
                      bool *out_is_orphan)
{
    static const uint8_t value = 1;
    struct vv_fs_key key;
    int is_bare = 0;
    if (!vv_open_is_used(fs, child->inode)) {
        is_bare = vv_xattr_erase_known(op, child);
        TRY(is_bare);
    }
    *out_is_orphan = !is_bare;
    if (is_bare) {
        TRY(vv_file_drop_data(op, child));
        vv_key_inode(&key, child->inode);
        TRY(vv_op_touch(op, child->inode));
        return vv_op_delete(op, vv_fs_key_bytes(&key));
    }
    vv_key_orphan(&key, child->inode);
    TRY(vv_key_put(op, &key, &value, sizeof(value)));
    return vv_inode_save(op, child);
}

int vv_link_drop(struct vv_fs *fs, struct vv_op *op, struct vv_inode *child, uint64_t parent,
                 uint64_t cookie, bool *out_is_orphan)
{
    bool is_dir = S_ISDIR(child->mode);
    *out_is_orphan = false;
    /* A removed directory keeps its parent, for ".." of those who are in it. */
    if (!is_dir)
        TRY(vv_link_move(op, child, parent, cookie, 0, 0));
    child->nlink = is_dir || child->nlink == 0 ? 0 : child->nlink - 1;
    vv_inode_touch(child, VV_NOW_CTIME);
    return child->nlink > 0 ? vv_inode_save(op, child) : stage_gone(fs, op, child, out_is_orphan);
}

/* ---- link(2) ---- */

struct make_link {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    uint64_t inode;
    struct vv_place place;
    struct vv_attr attr; /* out */
};

static int may_link(struct vv_op *op, struct make_link *call, const struct vv_inode *inode)
{
    struct vv_place *place = &call->place;
    const struct vv_open_inode *open = vv_open_find(call->fs, inode->inode);
    if (place->is_found)
        return -EEXIST;
    TRY(vv_permit_create(op, &call->call->cred, &place->dir));
    if (inode->flags & (FS_APPEND_FL | FS_IMMUTABLE_FL))
        return -EPERM;
    if (S_ISDIR(inode->mode))
        return -EPERM;
    /* What has lost its last link does not come back; a file of O_TMPFILE may. */
    if (inode->nlink == 0 && !(open && open->is_linkable))
        return -ENOENT;
    return inode->nlink >= VV_LINKS_MAX ? -EMLINK : 0;
}

static int make_link(struct vv_op *op, void *arg)
{
    struct make_link *call = arg;
    struct vv_place *place = &call->place;
    struct vv_inode inode;
    vv_place_read(call->fs, op, call->call, place);
    int err = vv_inode_load(call->fs, op, call->inode, &inode);
    if (vv_op_is_missing(op))
        return -VV_ERR_MISS;
    TRY(err);
    TRY(place->dir_err);
    TRY(place->name_err);
    TRY(may_link(op, call, &inode));
    struct vv_entry entry = {.inode = inode.inode, .type = inode.mode & S_IFMT};
    TRY(vv_dir_add(&place->dir, false, &entry.cookie));
    if (inode.nlink == 0) {
        struct vv_fs_key key;
        vv_key_orphan(&key, inode.inode);
        TRY(vv_op_delete(op, vv_fs_key_bytes(&key)));
    }
    TRY(vv_link_move(op, &inode, 0, 0, place->parent, entry.cookie));
    inode.nlink++;
    vv_inode_touch(&inode, VV_NOW_CTIME);
    TRY(vv_entry_save(op, place->parent, &entry, place->name, place->name_len));
    TRY(vv_inode_save(op, &place->dir));
    TRY(vv_inode_save(op, &inode));
    TRY(vv_reply_stage(call->fs, op, call->call, inode.inode));
    return vv_inode_attr(op, &inode, &call->attr);
}

int vv_fs_link(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode, uint64_t parent,
               const char *name, size_t name_len, struct vv_attr *out_attr)
{
    struct make_link args = {.fs = fs, .call = call, .inode = inode};
    args.place.parent = parent;
    args.place.name = name;
    args.place.name_len = name_len;
    TRY(vv_volume_run(fs->volume, VV_OP_WRITE, 0, make_link, &args));
    struct vv_open_inode *open = vv_open_find(fs, inode);
    if (open)
        open->is_linkable = false;
    vv_notify_entry(fs, call, parent, name, name_len);
    vv_notify_inode(fs, call, parent, 0, 0);
    vv_notify_inode(fs, call, inode, 0, 0);
    vv_notify_wait(fs, call);
    TRY(vv_fs_sync_if(fs, &args.place.dir));
    *out_attr = args.attr;
    return 0;
}

/* ---- unlink(2) and rmdir(2) ---- */

struct remove_name {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    struct vv_place place;
    bool is_dir;
    struct vv_handle *removed_dir; /* to be bound; NULL = not wanted */
    bool is_orphan;                /* out */
};

static int remove_name(struct vv_op *op, void *arg)
{
    struct remove_name *call = arg;
    struct vv_place *place = &call->place;
    vv_place_read(call->fs, op, call->call, place);
    if (vv_op_is_missing(op))
        return -VV_ERR_MISS;
    TRY(place->dir_err);
    TRY(place->name_err);
    if (!place->is_found)
        return -ENOENT;
    TRY(vv_permit_delete(op, &call->call->cred, &place->dir, &place->child, call->is_dir));
    if (call->is_dir && place->child.size > 0)
        return -ENOTEMPTY;
    TRY(vv_dir_remove(&place->dir, call->is_dir));
    TRY(vv_entry_erase(op, place->parent, &place->entry, place->name, place->name_len));
    TRY(vv_inode_save(op, &place->dir));
    TRY(vv_reply_stage(call->fs, op, call->call, place->child.inode));
    vv_removed_dir_bind(call->removed_dir, place->child.inode);
    return vv_link_drop(call->fs, op, &place->child, place->parent, place->entry.cookie,
                        &call->is_orphan);
}

static int run_remove(struct remove_name *call)
{
    CLEANUP(vv_handle_release_ptr) struct vv_handle *removed_dir = NULL;
    struct vv_place *place = &call->place;
    if (call->is_dir)
        TRY(vv_removed_dir_new(call->fs, call->call, &removed_dir));
    call->removed_dir = removed_dir;
    TRY(vv_volume_run(call->fs->volume, VV_OP_FREEING, 0, remove_name, call));
    if (call->is_orphan)
        vv_reclaim_queue(call->fs, place->child.inode);
    vv_removed_dir_give(call->call, &removed_dir);
    vv_notify_entry(call->fs, call->call, place->parent, place->name, place->name_len);
    vv_notify_inode(call->fs, call->call, place->parent, 0, 0);
    vv_notify_inode(call->fs, call->call, place->child.inode, 0, 0);
    vv_notify_wait(call->fs, call->call);
    return vv_fs_sync_if(call->fs, &place->dir);
}

int vv_fs_unlink(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent, const char *name,
                 size_t name_len)
{
    struct remove_name args = {.fs = fs, .call = call};
    if (vv_name_is_dots(name, name_len))
        return -EISDIR;
    args.place.parent = parent;
    args.place.name = name;
    args.place.name_len = name_len;
    return run_remove(&args);
}

int vv_fs_rmdir(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent, const char *name,
                size_t name_len)
{
    struct remove_name args = {.fs = fs, .call = call, .is_dir = true};
    if (vv_name_is_dots(name, name_len))
        return name_len == 1 ? -EINVAL : -ENOTEMPTY;
    args.place.parent = parent;
    args.place.name = name;
    args.place.name_len = name_len;
    return run_remove(&args);
}
