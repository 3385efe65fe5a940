/* fallocate(2).
 *
 * What is set aside (aside.h) must be holes. Behind the end of the file, in what is set aside already and in what the call
 * itself clears there is no data; for the rest the file is looked through first, which suspends, and the operation then
 * makes sure that the file is as it was. */
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>

#include "fs/acl.h"
#include "fs/aside.h"
#include "fs/fs_impl.h"

#define JOINS_MAX 3  /* joinings of parts that one call tries */
#define SCANS_MAX 32 /* times that it looks through a file which others change; then what may be data is not set aside */

/* What was found in the file. */
struct scan {
    struct vv_fs *fs;
    uint64_t inode;
    uint64_t change, size;
    struct vv_parts parts;
    size_t aside_len;
    uint8_t aside[VV_ASIDE_RECORD_MAX];
};

struct allocate {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    uint64_t inode;
    const struct vv_handle *handle;
    int mode;
    uint64_t offset, len;
    struct vv_inode now; /* out */
    struct vv_file_buf buf;
    /* The holes to be set aside, of the file with that change counter. */
    bool has_holes;
    bool is_giving_up; /* the file changes all the time */
    uint64_t holes_change;
    struct vv_aside_made holes;
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

static uint64_t block_up(uint64_t bytes)
{
    return (bytes + VV_BLOCK_BYTES - 1) / VV_BLOCK_BYTES;
}

/* The blocks that clearing the call's range clears whole: the last one of the file, too, if the range reaches its end. */
static struct vv_aside_range cleared_blocks(const struct allocate *call, uint64_t size)
{
    uint64_t end = call->offset + call->len;
    struct vv_aside_range range = {block_up(call->offset), end / VV_BLOCK_BYTES};
    if (end >= size && range.to < block_up(size))
        range.to = block_up(size);
    if (range.to < range.from)
        range.to = range.from;
    return range;
}

/* Zeros in [offset, offset + len) as far as the file reaches. */
static int zero_range(struct vv_op *op, struct allocate *call, struct vv_inode *inode)
{
    uint64_t end = call->offset + call->len;
    if (end >= inode->size)
        end = block_up(inode->size) * VV_BLOCK_BYTES;
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

/* ---- what is set aside ---- */

/* Nothing is set aside any more of what was cleared. */
static int free_aside(struct vv_op *op, const struct allocate *call, struct vv_inode *inode,
                      uint64_t size)
{
    struct vv_aside_range range = cleared_blocks(call, size);
    if (range.from < range.to)
        TRY(vv_aside_edit(op, inode, vv_aside_remove, range.from, range.to));
    return 0;
}

/* The holes among blocks [from, to) of the file. Suspends. */
static int seek_holes(const struct scan *scan, uint64_t from, uint64_t to,
                      struct vv_aside_made *holes)
{
    uint64_t offset = from * VV_BLOCK_BYTES;
    uint64_t end = to * VV_BLOCK_BYTES;
    bool is_hole = false;
    while (offset < end && holes->writer.len <= VV_ASIDE_RECORD_MAX) {
        struct vv_piece piece = vv_parts_at(&scan->parts, offset, end - offset);
        uint64_t found;
        TRY(vv_volume_seek(scan->fs->volume, piece.data_id, piece.start, piece.start + piece.len,
                           !is_hole, &found));
        uint64_t next = offset + (found - piece.start);
        if (is_hole)
            vv_aside_put(holes, block_up(offset), next / VV_BLOCK_BYTES);
        if (found < piece.start + piece.len)
            is_hole = !is_hole;
        offset = next;
    }
    return 0;
}

/* The holes among those blocks of the call's range that are not set aside yet. Without a `scan` it does not look for data:
 * -EAGAIN where it would have to. `record`: what is set aside; `size`: of the file, before the call. */
static int find_holes(const struct allocate *call, const struct scan *scan, struct vv_bytes record,
                      uint64_t size, bool has_parts, struct vv_aside_made *holes)
{
    uint64_t at = call->offset / VV_BLOCK_BYTES;
    uint64_t to = block_up(call->offset + call->len);
    uint64_t limit = has_parts ? block_up(size) : 0;
    struct vv_aside_range cleared = {0, 0};
    if (call->mode & FALLOC_FL_ZERO_RANGE)
        cleared = cleared_blocks(call, size);
    while (at < to) {
        uint64_t end;
        bool is_aside = vv_aside_has(record, at, &end);
        bool is_cleared = at >= cleared.from && at < cleared.to;
        end = end < to ? end : to;
        if (is_cleared && end > cleared.to)
            end = cleared.to;
        else if (!is_cleared && at < cleared.from && cleared.from < cleared.to && end > cleared.from)
            end = cleared.from;
        if (!is_aside && !is_cleared && at < limit) {
            end = end < limit ? end : limit;
            if (scan == NULL && !call->is_giving_up)
                return -EAGAIN;
            if (scan != NULL)
                TRY(seek_holes(scan, at, end, holes));
        } else if (!is_aside) {
            vv_aside_put(holes, at, end);
        }
        at = end;
    }
    return 0;
}

static int load_scan(struct vv_op *op, void *arg)
{
    struct scan *scan = arg;
    struct vv_inode inode;
    struct vv_bytes aside;
    TRY(vv_inode_load(scan->fs, op, scan->inode, &inode));
    TRY(vv_aside_load(op, &inode, &aside));
    scan->change = inode.change;
    scan->size = inode.size;
    scan->aside_len = aside.len;
    if (aside.len > 0)
        memcpy(scan->aside, aside.ptr, aside.len);
    return vv_parts_decode(inode.parts, &scan->parts);
}

/* Look through the file for what the call may set aside. Suspends. */
static int look_through(struct allocate *call)
{
    CLEANUP(vv_free_ptr) struct scan *scan = vv_zalloc(sizeof(*scan));
    if (!scan)
        return -ENOMEM;
    scan->fs = call->fs;
    scan->inode = call->inode;
    TRY(vv_volume_run(call->fs->volume, VV_OP_READ, 0, load_scan, scan));
    vv_aside_done(&call->holes);
    vv_aside_begin(&call->holes);
    call->has_holes = true;
    call->holes_change = scan->change;
    TRY(find_holes(call, scan, (struct vv_bytes){scan->aside, scan->aside_len}, scan->size,
                   scan->parts.count > 0, &call->holes));
    vv_aside_end(&call->holes);
    return 0;
}

/* Whatever is a hole in the call's range is set aside. `size`: of the file, before the call. */
static int set_aside(struct vv_op *op, struct allocate *call, struct vv_inode *inode, uint64_t size)
{
    struct vv_bytes record;
    struct vv_aside_made made;
    TRY(vv_aside_load(op, inode, &record));
    if (!call->has_holes || call->holes_change != inode->change) {
        vv_aside_done(&call->holes);
        vv_aside_begin(&call->holes);
        call->has_holes = false;
        TRY(find_holes(call, NULL, record, size, inode->parts.len > 0, &call->holes));
        vv_aside_end(&call->holes);
    }
    /* Inline bytes lie in the first block, and go into what is set aside there. */
    if (inode->in_line.len > 0)
        TRY(vv_file_move_inline(op, inode, call->offset < VV_BLOCK_BYTES, &call->buf));
    TRY(vv_writer_check(&call->holes.writer));
    if (call->holes.blocks == 0)
        return 0;
    struct vv_bytes holes = {call->holes.writer.ptr, call->holes.writer.len};
    vv_aside_join(record, holes, &made);
    TRY(vv_aside_store(op, inode, &made));
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
    uint64_t from_block = call->offset / VV_BLOCK_BYTES;
    TRY(vv_aside_edit(op, inode, vv_aside_collapse, from_block,
                      from_block + call->len / VV_BLOCK_BYTES));
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
    int stored = vv_aside_edit(op, inode, vv_aside_insert, call->offset / VV_BLOCK_BYTES,
                               call->len / VV_BLOCK_BYTES);
    TRY(stored);
    return stored > 0 ? 0 : -EFBIG;
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
    uint64_t size = inode->size;
    switch (call->mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
    case FALLOC_FL_UNSHARE_RANGE:
        TRY(check_space(call));
        TRY(extend(op, call, inode));
        return set_aside(op, call, inode, size);
    case FALLOC_FL_PUNCH_HOLE:
        TRY(zero_range(op, call, inode));
        return free_aside(op, call, inode, size);
    case FALLOC_FL_ZERO_RANGE:
        TRY(check_space(call));
        TRY(zero_range(op, call, inode));
        TRY(extend(op, call, inode));
        return set_aside(op, call, inode, size);
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

/* One operation, and as many as it takes when the file is looked through first or has too many parts. */
static int run_allocate(struct allocate *call)
{
    bool is_freeing = call->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE);
    enum vv_op_mode op_mode = is_freeing ? VV_OP_FREEING : VV_OP_WRITE;
    int joins = 0;
    for (int scans = 0;;) {
        int err = vv_volume_run(call->fs->volume, op_mode, is_freeing ? 0 : VV_INLINE_MAX, allocate,
                                call);
        if (err == -EAGAIN && !call->is_giving_up) {
            call->is_giving_up = scans++ == SCANS_MAX;
            TRY(call->is_giving_up ? 0 : look_through(call));
        } else if (err == -VV_ERR_LIMIT) {
            /* The file has as many parts as it may: copy some into one, and try again. */
            if (joins++ == JOINS_MAX)
                return -EFBIG;
            TRY(vv_file_join_parts(call->fs, call->inode));
        } else {
            return err;
        }
    }
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
    args.has_holes = false;
    args.is_giving_up = false;
    args.holes = (struct vv_aside_made){.writer = {.ptr = NULL}};
    int err = run_allocate(&args);
    vv_aside_done(&args.holes);
    TRY(err);
    vv_notify_inode(fs, call, inode, offset, UINT64_MAX - offset);
    vv_notify_wait(fs, call);
    return vv_fs_sync_if(fs, &args.now);
}
