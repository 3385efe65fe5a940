/* fallocate(2). */
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>

#include "fs/acl.h"
#include "fs/fs_impl.h"

#define JOINS_MAX 3 /* joinings of parts that one call tries */

struct allocate {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    uint64_t inode;
    const struct vv_handle *handle;
    int mode;
    uint64_t offset, len;
    struct vv_inode now; /* out */
    struct vv_file_buf buf;
};

static int may_allocate(struct vv_op *op, const struct allocate *call, const struct vv_inode *inode)
{
    const struct vv_handle *handle = call->handle;
    if (handle && ((handle->flags & O_PATH) || (handle->flags & O_ACCMODE) == O_RDONLY))
        return -EBADF;
    if ((inode->flags & FS_IMMUTABLE_FL) ||
        ((inode->flags & FS_APPEND_FL) && (call->mode & ~FALLOC_FL_KEEP_SIZE)))
        return -EPERM;
    if (S_ISDIR(inode->mode))
        return -EISDIR;
    if (S_ISFIFO(inode->mode))
        return -ESPIPE;
    if (!S_ISREG(inode->mode))
        return -ENODEV;
    return handle ? 0 : vv_permit_io(op, &call->call->cred, inode, W_OK);
}

/* Zeros in [offset, offset + len) as far as the file reaches. */
static int zero_range(struct vv_op *op, struct allocate *call, struct vv_inode *inode)
{
    uint64_t end = call->offset + call->len;
    if (end > inode->size)
        end = inode->size;
    if (inode->parts.len > 0) {
        struct vv_parts parts;
        TRY(vv_parts_decode(inode->parts, &parts));
        return vv_parts_clear(op, inode->inode, &parts, call->offset, end);
    }
    size_t held = inode->in_line.len;
    if (call->offset >= held)
        return 0;
    if (end >= held) {
        inode->in_line.len = (size_t)call->offset;
        return 0;
    }
    memcpy(call->buf.in_line, inode->in_line.ptr, held);
    memset(call->buf.in_line + call->offset, 0, (size_t)(end - call->offset));
    inode->in_line.ptr = call->buf.in_line;
    return 0;
}

static int extend(struct vv_op *op, struct allocate *call, struct vv_inode *inode)
{
    uint64_t end = call->offset + call->len;
    if ((call->mode & FALLOC_FL_KEEP_SIZE) || end <= inode->size)
        return 0;
    return vv_file_resize(op, inode, end, &call->buf);
}

static int collapse(struct vv_op *op, struct allocate *call, struct vv_inode *inode)
{
    if ((call->offset | call->len) % VV_BLOCK_BYTES != 0 || call->offset + call->len >= inode->size)
        return -EINVAL;
    if (inode->parts.len > 0) {
        struct vv_parts parts;
        TRY(vv_parts_decode(inode->parts, &parts));
        size_t from = vv_parts_split(&parts, call->offset);
        size_t to = vv_parts_split(&parts, call->offset + call->len);
        TRY(vv_parts_remove(op, inode->inode, &parts, from, to));
        vv_parts_join(&parts);
        TRY(vv_file_set_parts(inode, &parts, &call->buf));
    } else if (call->offset == 0) {
        /* Inline bytes are fewer than a block, so they lie wholly before the range or in it. */
        inode->in_line.len = 0;
    }
    inode->size -= call->len;
    return 0;
}

static int insert(struct vv_op *op, struct allocate *call, struct vv_inode *inode)
{
    if ((call->offset | call->len) % VV_BLOCK_BYTES != 0 || call->offset >= inode->size)
        return -EINVAL;
    if (call->len > VV_FILE_BYTES_MAX - inode->size)
        return -EFBIG;
    if (inode->parts.len > 0 || (inode->in_line.len > 0 && call->offset == 0)) {
        struct vv_parts parts;
        TRY(vv_file_parts(op, inode, UINT64_MAX, UINT64_MAX, &call->buf, &parts));
        size_t at = vv_parts_split(&parts, call->offset);
        struct vv_part hole = {vv_op_new_data_id(op), 0, call->len};
        vv_parts_insert(&parts, at, hole);
        TRY(vv_file_set_parts(inode, &parts, &call->buf));
    }
    inode->size += call->len;
    return 0;
}

/* Space that is promised must be there, as far as the store knows its size. */
static int check_space(const struct allocate *call)
{
    struct vv_volume_stats stats;
    vv_volume_stats(call->fs->volume, &stats);
    return stats.store_free != UINT64_MAX && call->len > stats.store_free ? -ENOSPC : 0;
}

static int change_file(struct vv_op *op, struct allocate *call, struct vv_inode *inode)
{
    switch (call->mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
    case FALLOC_FL_UNSHARE_RANGE:
        TRY(check_space(call));
        return extend(op, call, inode);
    case FALLOC_FL_PUNCH_HOLE:
        return zero_range(op, call, inode);
    case FALLOC_FL_ZERO_RANGE:
        TRY(check_space(call));
        TRY(zero_range(op, call, inode));
        return extend(op, call, inode);
    case FALLOC_FL_COLLAPSE_RANGE:
        return collapse(op, call, inode);
    default:
        return insert(op, call, inode);
    }
}

static int allocate(struct vv_op *op, void *arg)
{
    struct allocate *call = arg;
    struct vv_inode inode;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    int err = may_allocate(op, call, &inode);
    if (vv_op_is_missing(op))
        return -VV_ERR_MISS;
    TRY(err);
    TRY(change_file(op, call, &inode));
    const struct vv_cred *cred = &call->call->cred;
    TRY(vv_kill_priv(op, &inode, !vv_cred_is_root(cred)));
    /* As Linux since 6.2: one whom the group may not execute, too, unless the caller is in it. */
    if (!vv_cred_is_root(cred) && !vv_cred_is_member(cred, inode.gid))
        inode.mode &= ~(uint32_t)S_ISGID;
    vv_inode_touch(&inode, VV_NOW_MTIME | VV_NOW_CTIME);
    call->now = inode;
    return vv_inode_save(op, &inode);
}

/* What vfs_fallocate and ext4 refuse before looking at the file. */
static int check_mode(int mode, uint64_t offset, uint64_t len)
{
    bool is_keeping = mode & FALLOC_FL_KEEP_SIZE;
    uint64_t end;
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case FALLOC_FL_PUNCH_HOLE:
        if (!is_keeping)
            return -EOPNOTSUPP;
        break;
    case 0:
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_UNSHARE_RANGE:
        break;
    case FALLOC_FL_COLLAPSE_RANGE:
    case FALLOC_FL_INSERT_RANGE:
        if (is_keeping)
            return -EINVAL;
        break;
    default:
        return -EOPNOTSUPP;
    }
    if (len == 0)
        return -EINVAL;
    return __builtin_add_overflow(offset, len, &end) || end > VV_FILE_BYTES_MAX ? -EFBIG : 0;
}

int vv_fs_fallocate(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                    struct vv_handle *handle, int mode, uint64_t offset, uint64_t len)
{
    struct allocate args;
    TRY(check_mode(mode, offset, len));
    args.fs = fs;
    args.call = call;
    args.inode = inode;
    args.handle = handle;
    args.mode = mode;
    args.offset = offset;
    args.len = len;
    bool is_freeing = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE);
    enum vv_op_mode op_mode = is_freeing ? VV_OP_FREEING : VV_OP_WRITE;
    int err = -VV_ERR_LIMIT;
    for (int i = 0; err == -VV_ERR_LIMIT; i++) {
        err = vv_volume_run(fs->volume, op_mode, is_freeing ? 0 : VV_INLINE_MAX, allocate, &args);
        /* The file has as many parts as it may: copy some into one, and try again. */
        if (err == -VV_ERR_LIMIT && i == JOINS_MAX)
            return -EFBIG;
        if (err == -VV_ERR_LIMIT)
            TRY(vv_file_join_parts(fs, inode));
    }
    TRY(err);
    vv_notify_inode(fs, call, inode, offset, UINT64_MAX - offset);
    vv_notify_wait(fs, call);
    return vv_fs_sync_if(fs, &args.now);
}
