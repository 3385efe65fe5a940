/* Open files: nodeid is the inode, fh what OPEN or CREATE has given out. */
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "front/fuse/fuse_impl.h"

#define COPY_BYTES_MAX                                                                             \
    (256u << 20) /* of one copy_file_range; the caller asks again for the rest                     \
                  */

static uint64_t node_of(const struct vv_fuse_request *request)
{
    return request->message.header.nodeid;
}

/* O_TRUNC by somebody who may not keep set-id bits: truncated by setattr, which can take them away.
 */
static int truncate_opened(struct vv_fuse_request *request, struct vv_handle *handle)
{
    struct vv_attr set = {.size = 0}, attr;
    return vv_fs_setattr(request->fuse->fs, &request->call, node_of(request), handle, &set,
                         VV_SET_SIZE | VV_SET_KILL_PRIV, &attr);
}

/* OPEN: open_in. open_out. */
int vv_fuse_open(struct vv_fuse_request *request)
{
    struct fuse_open_in in;
    struct vv_fuse_open *open;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    int flags = (int)in.flags;
    if (request->fuse->options.is_read_only && ((flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC))
        return -EROFS;
    bool is_killing = (flags & O_TRUNC) && (in.open_flags & FUSE_OPEN_KILL_SUIDGID);
    TRY(vv_fuse_open_new(request->fuse, &open));
    int err = vv_fs_open_file(request->fuse->fs, &request->call, node_of(request),
                              is_killing ? flags & ~O_TRUNC : flags, &open->handle);
    if (err == 0 && is_killing)
        err = truncate_opened(request, open->handle);
    if (err < 0) {
        vv_fuse_open_free(open);
        return err;
    }
    return vv_fuse_reply_open(request, open, false);
}

/* RELEASE: release_in. The last use of fh; locks held through it go with it. */
int vv_fuse_release(struct vv_fuse_request *request)
{
    struct fuse_release_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    struct vv_fuse *fuse = request->fuse;
    if (in.release_flags & FUSE_RELEASE_FLOCK_UNLOCK)
        vv_fs_unlock_owner(fuse->fs, &request->call, node_of(request), fuse->options.door,
                           in.lock_owner, true);
    vv_fs_unlock_opened(fuse->fs, &request->call, node_of(request), fuse->options.door, in.fh);
    vv_fuse_open_free(vv_fuse_open_of(in.fh));
    return vv_fuse_reply_ok(request);
}

/* FLUSH: flush_in. Sent at each close(): drops the POSIX locks of the process. Nothing is written:
 * close promises no durability. Where the kernel keeps the locks it drops them itself, and ENOSYS tells it, once for
 * the connection, to send no more of these. */
int vv_fuse_flush(struct vv_fuse_request *request)
{
    struct fuse_flush_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    struct vv_fuse *fuse = request->fuse;
    if (!(fuse->flags & FUSE_POSIX_LOCKS))
        return -ENOSYS;
    vv_fs_unlock_owner(fuse->fs, &request->call, node_of(request), fuse->options.door,
                       in.lock_owner, false);
    return vv_fuse_reply_ok(request);
}

/* FSYNC, FSYNCDIR: fsync_in. */
int vv_fuse_fsync(struct vv_fuse_request *request)
{
    TRY(vv_fs_sync(request->fuse->fs, node_of(request)));
    return vv_fuse_reply_ok(request);
}

/* SYNCFS: everything. */
int vv_fuse_syncfs(struct vv_fuse_request *request)
{
    TRY(vv_fs_sync(request->fuse->fs, 0));
    return vv_fuse_reply_ok(request);
}

/* The kernel drops the pages that a direct write covers before it sends the write, and, unless the
 * write is asynchronous, afterwards. A page read in between would keep the old bytes for good. So a
 * direct write is followed by an invalidation of what it covers if the inode was read through the
 * page cache lately; it is answered when that is done. */
static uint16_t *checked_writes(struct vv_fuse_request *request)
{
    uint64_t slot = vv_mix64(node_of(request)) & (VV_FUSE_READ_SLOTS - 1);
    return &request->fuse->checked_writes[slot];
}

static void drop_read_before(struct vv_fuse_request *request, uint64_t offset, size_t len)
{
    struct vv_fuse *fuse = request->fuse;
    uint16_t *left = checked_writes(request);
    if (*left == 0)
        return;
    (*left)--;
    vv_fuse_notify_inode(&fuse->notifier, node_of(request), 0, offset, len);
    uint64_t deadline_ns = vv_rt_now_ns() + VV_FUSE_INVALIDATE_MAX_S * VV_NS_PER_S;
    if (vv_fuse_notifier_wait(&fuse->notifier, deadline_ns) < 0)
        fuse->stats.invalidations_late++;
}

#define VIEW_BYTES (64u << 10) /* reads from here on are answered from where the bytes are */

/* As vv_fs_read and reply, but bytes that are in the cache are not copied out of it first. */
static ssize_t read_view(struct vv_fuse_request *request, const struct fuse_read_in *in, void *buf)
{
    struct vv_fuse *fuse = request->fuse;
    struct vv_view view;
    ssize_t len = vv_fs_read_view(fuse->fs, &request->call, node_of(request),
                                  vv_fuse_handle_of(in->fh), buf, in->size, in->offset, &view);
    TRY(len);
    struct iovec iov[1 + VV_VIEW_PIECES_MAX];
    memcpy(iov + 1, view.pieces, view.count * sizeof(iov[0]));
    vv_fuse_reply_iov(fuse, request->message.header.unique, 0, iov, 1 + (int)view.count);
    vv_view_done(&view);
    return len;
}

static ssize_t read_copy(struct vv_fuse_request *request, const struct fuse_read_in *in, void *buf)
{
    ssize_t len = vv_fs_read(request->fuse->fs, &request->call, node_of(request),
                             vv_fuse_handle_of(in->fh), buf, in->size, in->offset);
    TRY(len);
    vv_fuse_reply(request, buf, (size_t)len);
    return len;
}

/* READ: read_in. The bytes; fewer than asked for only at the end of the file. */
int vv_fuse_read(struct vv_fuse_request *request)
{
    struct fuse_read_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)) || in.size > VV_FUSE_BUFFER_BYTES)
        return -EINVAL;
    struct vv_fuse *fuse = request->fuse;
    struct vv_fuse_buffer *buffer = vv_fuse_buffer_take(fuse);
    if (!buffer)
        return -ENOMEM;
    if (!(in.flags & O_DIRECT))
        *checked_writes(request) = VV_FUSE_CHECKED_WRITES;
    ssize_t len = in.size >= VIEW_BYTES ? read_view(request, &in, buffer->bytes)
                                        : read_copy(request, &in, buffer->bytes);
    if (len >= 0) {
        fuse->stats.reads++;
        fuse->stats.read_bytes += (uint64_t)len;
    }
    vv_fuse_buffer_give(fuse, buffer);
    return len < 0 ? (int)len : 0;
}

/* The kernel has put the bytes of an append where it believes the end to be. If another door has
 * moved the end, its pages are wrong. */
static void check_append(struct vv_fuse_request *request, uint64_t believed_end)
{
    struct vv_attr attr;
    int err = vv_fs_getattr(request->fuse->fs, node_of(request), &attr);
    if (err < 0 || attr.size != believed_end)
        vv_fuse_notify_inode(&request->fuse->notifier, node_of(request), 0, 0, UINT64_MAX);
}

/* The request's data into the file. */
static ssize_t write_data(struct vv_fuse_request *request, const struct fuse_write_in *in,
                          unsigned flags)
{
    struct vv_fs *fs = request->fuse->fs;
    struct vv_handle *handle = vv_fuse_handle_of(in->fh);
    if (request->is_in_payload)
        return vv_fs_write_payload(fs, &request->call, node_of(request), handle,
                                   request->buffer->payload, in->offset, flags);
    struct vv_bytes data = vv_cursor_bytes(&request->message.body, in->size);
    if (request->message.body.is_bad)
        return -EINVAL;
    return vv_fs_write(fs, &request->call, node_of(request), handle, data.ptr, data.len, in->offset,
                       flags);
}

static int write_bytes(struct vv_fuse_request *request, const struct fuse_write_in *in)
{
    struct vv_fuse *fuse = request->fuse;
    bool is_cached = in->write_flags & FUSE_WRITE_CACHE; /* some handle of the inode, any caller */
    bool is_append = (in->flags & O_APPEND) && !(in->flags & O_DIRECT) && !is_cached;
    unsigned flags = in->write_flags & FUSE_WRITE_KILL_SUIDGID ? VV_WRITE_KILL_PRIV : 0;
    flags |= is_append ? VV_WRITE_APPEND : 0;
    ssize_t len = write_data(request, in, flags);
    TRY(len);
    if (is_append)
        check_append(request, in->offset + (uint64_t)len);
    if ((in->flags & O_DIRECT) && !is_cached)
        drop_read_before(request, in->offset, (size_t)len);
    fuse->stats.writes++;
    fuse->stats.write_bytes += (uint64_t)len;
    struct fuse_write_out out = {.size = (uint32_t)len};
    vv_fuse_reply(request, &out, sizeof(out));
    return 0;
}

/* WRITE: write_in, data. write_out. O_SYNC is followed by an FSYNC, so it is of no interest here.
 * A direct append may come as several requests at once, so only the kernel's offsets keep its
 * order. */
int vv_fuse_write(struct vv_fuse_request *request)
{
    struct fuse_write_in in;
    struct vv_fuse *fuse = request->fuse;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    bool is_cached = in.write_flags & FUSE_WRITE_CACHE;
    fuse->cached_writes += is_cached;
    int err = write_bytes(request, &in);
    fuse->cached_writes -= is_cached;
    if (is_cached)
        fuse->cached_write_ns = vv_rt_now_ns();
    return err;
}

/* Who is not root takes an inode's set-id bits away by changing its data, and who is not in its group
 * setgid. Where there are none, there is no need to know who he is. */
static void learn_who_changes(struct vv_fuse_request *request, uint64_t inode,
                              uint32_t **out_groups)
{
    struct vv_attr attr;
    *out_groups = NULL;
    int err = vv_fs_getattr(request->fuse->fs, inode, &attr);
    if (err == 0 && !(attr.mode & (S_ISUID | S_ISGID)))
        return;
    vv_fuse_learn_caller(request);
    vv_fuse_add_groups(request, out_groups);
}

/* FALLOCATE: fallocate_in. */
int vv_fuse_fallocate(struct vv_fuse_request *request)
{
    struct fuse_fallocate_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    uint32_t *groups CLEANUP(vv_free_ptr);
    learn_who_changes(request, node_of(request), &groups);
    TRY(vv_fs_fallocate(request->fuse->fs, &request->call, node_of(request),
                        vv_fuse_handle_of(in.fh), (int)in.mode, in.offset, in.length));
    return vv_fuse_reply_ok(request);
}

/* LSEEK: lseek_in. lseek_out. The kernel asks for SEEK_DATA and SEEK_HOLE only. */
int vv_fuse_lseek(struct vv_fuse_request *request)
{
    struct fuse_lseek_in in;
    struct fuse_lseek_out out;
    if (!vv_fuse_take(request, &in, sizeof(in)) ||
        (in.whence != SEEK_DATA && in.whence != SEEK_HOLE))
        return -EINVAL;
    TRY(vv_fs_seek(request->fuse->fs, node_of(request), in.offset, (int)in.whence, &out.offset));
    vv_fuse_reply(request, &out, sizeof(out));
    return 0;
}

/* COPY_FILE_RANGE, COPY_FILE_RANGE_64: copy_file_range_in. write_out, or bytes[8]. */
int vv_fuse_copy_file_range(struct vv_fuse_request *request)
{
    struct fuse_copy_file_range_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)) || in.flags != 0)
        return -EINVAL;
    uint64_t len = in.len < COPY_BYTES_MAX ? in.len : COPY_BYTES_MAX;
    uint32_t *groups CLEANUP(vv_free_ptr);
    learn_who_changes(request, in.nodeid_out, &groups);
    ssize_t copied = vv_fs_copy_range(request->fuse->fs, &request->call, node_of(request),
                                      in.off_in, in.nodeid_out, in.off_out, (size_t)len);
    TRY(copied);
    struct fuse_write_out out = {.size = (uint32_t)copied};
    uint64_t out_64 = (uint64_t)copied;
    if (request->message.header.opcode == VV_FUSE_COPY_FILE_RANGE_64)
        vv_fuse_reply(request, &out_64, sizeof(out_64));
    else
        vv_fuse_reply(request, &out, sizeof(out));
    return 0;
}
