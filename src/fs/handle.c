/* Open files: which inodes somebody holds, so that they outlive their last link. */
#include <assert.h>
#include <linux/fs.h>
#include <string.h>

#include "base/hash.h"
#include "fs/fs_impl.h"

struct vv_open_inode *vv_open_find(const struct vv_fs *fs, uint64_t inode)
{
    struct vv_map_node *node = vv_map_find(&fs->opens, vv_mix64(inode));
    for (; node; node = vv_map_next(node)) {
        struct vv_open_inode *open = vv_container_of(node, struct vv_open_inode, node);
        if (open->inode == inode)
            return open;
    }
    return NULL;
}

bool vv_open_is_used(const struct vv_fs *fs, uint64_t inode)
{
    const struct vv_open_inode *open = vv_open_find(fs, inode);
    return open && open->handle_count + open->pending_count > 0;
}

int vv_handle_new(struct vv_fs *fs, int flags, struct vv_handle **out_handle)
{
    struct vv_handle *handle = vv_zalloc(sizeof(*handle));
    struct vv_open_inode *spare = vv_zalloc(sizeof(*spare));
    if (!handle || !spare) {
        vv_free(handle);
        vv_free(spare);
        return -ENOMEM;
    }
    vv_list_init(&spare->in_reclaims);
    *handle = (struct vv_handle){.fs = fs, .spare = spare, .flags = flags};
    *out_handle = handle;
    return 0;
}

void vv_handle_bind(struct vv_handle *handle, uint64_t inode)
{
    struct vv_fs *fs = handle->fs;
    vv_handle_unbind(handle);
    struct vv_open_inode *open = vv_open_find(fs, inode);
    if (!open) {
        open = handle->spare;
        handle->spare = NULL;
        open->inode = inode;
        vv_map_insert(&fs->opens, &open->node, vv_mix64(inode));
    }
    open->pending_count++;
    handle->open = open;
}

void vv_handle_unbind(struct vv_handle *handle)
{
    struct vv_fs *fs = handle->fs;
    struct vv_open_inode *open = handle->open;
    if (!open)
        return;
    handle->open = NULL;
    uint32_t *count = handle->is_established ? &open->handle_count : &open->pending_count;
    assert(*count > 0);
    (*count)--;
    handle->is_established = false;
    if (open->handle_count + open->pending_count > 0 || !vv_list_is_empty(&open->in_reclaims))
        return;
    if (open->is_orphan) {
        vv_reclaim_push(fs, open);
        return;
    }
    vv_map_remove(&fs->opens, &open->node);
    /* Kept for a binding that may follow. */
    if (handle->spare)
        vv_free(open);
    else
        handle->spare = open;
}

void vv_handle_establish(struct vv_handle *handle)
{
    assert(handle->open && !handle->is_established);
    handle->open->pending_count--;
    handle->open->handle_count++;
    handle->is_established = true;
}

int vv_removed_dir_new(struct vv_fs *fs, const struct vv_fs_call *call, struct vv_handle **out_handle)
{
    *out_handle = NULL;
    return call->removed_dir ? vv_handle_new(fs, O_PATH, out_handle) : 0;
}

void vv_removed_dir_bind(struct vv_handle *handle, uint64_t inode)
{
    if (!handle)
        return;
    vv_handle_bind(handle, inode);
    vv_handle_establish(handle);
}

void vv_removed_dir_give(const struct vv_fs_call *call, struct vv_handle **handle)
{
    if (!*handle || !(*handle)->open)
        return;
    *call->removed_dir = *handle;
    *handle = NULL;
}

void vv_fs_release(struct vv_handle *handle)
{
    if (!handle)
        return;
    vv_handle_unbind(handle);
    vv_free(handle->spare);
    vv_free(handle);
}

void vv_handle_release_ptr(struct vv_handle **handle)
{
    vv_fs_release(*handle);
}

uint64_t vv_handle_inode(const struct vv_handle *handle)
{
    return handle->open->inode;
}

int vv_handle_flags(const struct vv_handle *handle)
{
    return handle->flags;
}

/* ---- open(2) ---- */

struct open_file {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    uint64_t inode;
    int flags;
    struct vv_inode now; /* out */
};

/* The checks of do_open and may_open, in their order. */
int vv_open_permit(struct vv_op *op, const struct vv_cred *cred, const struct vv_inode *inode,
                   int flags)
{
    int access = flags & O_ACCMODE;
    uint32_t want = access == O_RDONLY ? R_OK : access == O_WRONLY ? W_OK : R_OK | W_OK;
    if (flags & O_TRUNC)
        want |= W_OK;
    if (flags & O_PATH)
        want = 0;
    if ((flags & O_DIRECTORY) && !S_ISDIR(inode->mode))
        return -ENOTDIR;
    if (S_ISLNK(inode->mode) && !(flags & O_PATH))
        return -ELOOP;
    if (S_ISDIR(inode->mode) && (want & W_OK))
        return -EISDIR;
    TRY(want ? vv_permit(op, cred, inode, want) : 0);
    if ((inode->flags & FS_APPEND_FL) && (want & W_OK) &&
        (!(flags & O_APPEND) || (flags & O_TRUNC)))
        return -EPERM;
    return (flags & O_NOATIME) && !vv_cred_is_owner(cred, inode) ? -EPERM : 0;
}

int vv_open_truncate(struct vv_op *op, const struct vv_cred *cred, struct vv_inode *inode)
{
    if (!S_ISREG(inode->mode))
        return 0;
    TRY(vv_kill_priv(op, inode, !vv_cred_is_root(cred)));
    TRY(vv_file_drop_data(op, inode));
    vv_inode_touch(inode, VV_NOW_MTIME | VV_NOW_CTIME);
    return vv_inode_save(op, inode);
}

static int open_file(struct vv_op *op, void *arg)
{
    struct open_file *call = arg;
    TRY(vv_inode_load(call->fs, op, call->inode, &call->now));
    TRY(vv_open_permit(op, &call->call->cred, &call->now, call->flags));
    return call->flags & O_TRUNC ? vv_open_truncate(op, &call->call->cred, &call->now) : 0;
}

int vv_fs_open_file(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode, int flags,
                    struct vv_handle **out_handle)
{
    CLEANUP(vv_handle_release_ptr) struct vv_handle *handle = NULL;
    struct open_file args = {.fs = fs, .call = call, .inode = inode, .flags = flags};
    if ((flags & O_ACCMODE) == O_ACCMODE)
        return -EINVAL;
    TRY(vv_handle_new(fs, flags, &handle));
    /* Bound before the inode is looked at, so that nobody reclaims it in between. */
    vv_handle_bind(handle, inode);
    enum vv_op_mode mode = flags & O_TRUNC ? VV_OP_FREEING : VV_OP_READ;
    TRY(vv_volume_run(fs->volume, mode, 0, open_file, &args));
    vv_handle_establish(handle);
    if (flags & O_TRUNC) {
        vv_notify_inode(fs, call, inode, 0, UINT64_MAX);
        vv_notify_wait(fs, call);
    }
    *out_handle = handle;
    handle = NULL;
    return 0;
}
