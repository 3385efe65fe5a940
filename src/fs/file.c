/* Reading, writing, seeking and copying file data. */
#include <assert.h>
#include <linux/fs.h>
#include <string.h>

#include "fs/aside.h"
#include "fs/fs_impl.h"

/* One write operation; with room for inline bytes that it moves. */
#define WRITE_BYTES_MAX (VV_OP_DATA_MAX - VV_EXTENT_BYTES)
#define READ_BYTES_MAX VV_OP_DATA_MAX
#define COPY_BYTES_MAX (4u << 20) /* copied by one vv_fs_copy_range */

static int check_regular(const struct vv_inode *inode)
{
    if (S_ISDIR(inode->mode))
        return -EISDIR;
    return S_ISREG(inode->mode) ? 0 : -EINVAL;
}

/* ---- reading ---- */

struct read_file {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    uint64_t inode;
    const struct vv_handle *handle;
    uint8_t *buf;
    size_t len;
    uint64_t offset;
    struct vv_read *read; /* out: what is still to be fetched */
    struct vv_view *view; /* out; NULL = all into buf */
    bool is_atime_due;
};

static int may_read(struct vv_op *op, const struct read_file *call, const struct vv_inode *inode)
{
    if (call->handle)
        return (call->handle->flags & O_PATH) || (call->handle->flags & O_ACCMODE) == O_WRONLY
                   ? -EBADF
                   : 0;
    return vv_permit_io(op, &call->call->cred, inode, R_OK);
}

static int read_file(struct vv_op *op, void *arg)
{
    struct read_file *call = arg;
    struct vv_inode inode;
    vv_read_reset(call->read);
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    TRY(check_regular(&inode));
    TRY(may_read(op, call, &inode));
    call->is_atime_due = vv_atime_is_due(call->fs, &inode, call->handle);
    if (call->offset >= inode.size)
        return 0;
    size_t len = call->len;
    if (len > inode.size - call->offset)
        len = (size_t)(inode.size - call->offset);
    if (inode.parts.len > 0) {
        struct vv_parts parts;
        TRY(vv_parts_decode(inode.parts, &parts));
        TRY(vv_parts_read(op, &parts, call->offset, len, &call->read));
        struct vv_piece piece = vv_parts_at(&parts, call->offset, inode.size - call->offset);
        vv_read_expect(call->read, piece.start + piece.len);
        return (int)len;
    }
    size_t held = call->offset < inode.in_line.len ? inode.in_line.len - (size_t)call->offset : 0;
    if (held > len)
        held = len;
    if (held > 0)
        memcpy(call->buf, inode.in_line.ptr + call->offset, held);
    memset(call->buf + held, 0, len - held);
    return (int)len;
}

static_assert(READ_BYTES_MAX <= INT32_MAX, "an operation's result holds its length");

/* One operation's worth. */
static ssize_t read_some(struct read_file *call)
{
    int len = vv_volume_run(call->fs->volume, VV_OP_READ, 0, read_file, call);
    if (len > 0 && call->read) {
        struct vv_volume *volume = call->fs->volume;
        ssize_t got = call->view ? vv_read_finish_view(volume, call->read, call->buf, call->view)
                                 : vv_read_finish(volume, call->read, call->buf);
        len = got < 0 ? (int)got : len;
    }
    vv_read_free(call->read);
    call->read = NULL;
    return len;
}

ssize_t vv_fs_read(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                   struct vv_handle *handle, void *buf, size_t len, uint64_t offset)
{
    struct read_file args = {.fs = fs, .call = call, .inode = inode, .handle = handle};
    size_t done = 0;
    ssize_t got = 0;
    do {
        args.buf = (uint8_t *)buf + done;
        args.len = len - done < READ_BYTES_MAX ? len - done : READ_BYTES_MAX;
        args.offset = offset + done;
        got = read_some(&args);
        done += got > 0 ? (size_t)got : 0;
    } while (got > 0 && (size_t)got == args.len && done < len);
    if (got < 0 && done == 0)
        return got;
    if (args.is_atime_due && done > 0)
        vv_atime_update(fs, inode);
    return (ssize_t)done;
}

ssize_t vv_fs_read_view(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                        struct vv_handle *handle, void *buf, size_t len, uint64_t offset,
                        struct vv_view *out_view)
{
    struct vv_view view = {.count = 0};
    struct read_file args = {.fs = fs, .call = call, .inode = inode, .handle = handle, .buf = buf};
    args.len = len < READ_BYTES_MAX ? len : READ_BYTES_MAX;
    args.offset = offset;
    args.view = &view;
    ssize_t got = read_some(&args);
    TRY(got);
    if (got > 0 && view.count == 0) /* it was in the inode */
        view.pieces[view.count++] = (struct iovec){buf, (size_t)got};
    if (args.is_atime_due && got > 0)
        vv_atime_update(fs, inode);
    *out_view = view;
    return got;
}

/* ---- writing ---- */

struct write_file {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    uint64_t inode;
    const struct vv_handle *handle;
    const uint8_t *bytes; /* NULL: in the payload, from payload_at on */
    struct vv_payload *payload;
    size_t payload_at;
    size_t len;
    uint64_t offset; /* in; out: where the bytes went */
    unsigned flags;
    struct vv_inode now; /* out; its borrowed bytes are gone */
    struct vv_file_buf buf;
};

static int may_write(struct vv_op *op, const struct write_file *call, const struct vv_inode *inode)
{
    const struct vv_handle *handle = call->handle;
    if (handle && ((handle->flags & O_PATH) || (handle->flags & O_ACCMODE) == O_RDONLY))
        return -EBADF;
    TRY(check_regular(inode));
    if (inode->flags & FS_IMMUTABLE_FL)
        return -EPERM;
    if (!handle && (inode->flags & FS_APPEND_FL) && !(call->flags & VV_WRITE_APPEND) &&
        call->offset != inode->size)
        return -EPERM;
    return handle ? 0 : vv_permit_io(op, &call->call->cred, inode, W_OK);
}

/* All of it stays in the record: old bytes, zeros between, new bytes. */
static void write_inline(struct write_file *call, struct vv_inode *inode)
{
    uint8_t *bytes = call->buf.in_line;
    size_t old = inode->in_line.len;
    size_t end = (size_t)call->offset + call->len;
    if (old > 0)
        memcpy(bytes, inode->in_line.ptr, old);
    if (call->offset > old)
        memset(bytes + old, 0, (size_t)call->offset - old);
    if (call->payload)
        vv_payload_copy(call->payload, call->payload_at, bytes + call->offset, call->len);
    else
        memcpy(bytes + call->offset, call->bytes, call->len);
    inode->in_line = (struct vv_bytes){bytes, end > old ? end : old};
}

/* The bytes from `done` on into one part of the file. */
static int write_part(struct vv_op *op, struct write_file *call, size_t done,
                      const struct vv_piece *piece)
{
    size_t len = (size_t)piece->len;
    struct vv_payload_part part = {call->payload, call->payload_at + done, len};
    if (call->payload)
        return vv_op_write_payload(op, call->inode, piece->data_id, piece->start, &part);
    return vv_op_write(op, call->inode, piece->data_id, piece->start, call->bytes + done, len);
}

static int write_parts(struct vv_op *op, struct write_file *call, struct vv_inode *inode)
{
    struct vv_parts parts;
    struct vv_bytes aside;
    uint64_t offset = call->offset;
    size_t done = 0;
    TRY(vv_aside_load(op, inode, &aside));
    TRY(vv_file_parts(op, inode, offset, offset + call->len, &call->buf, &parts));
    while (done < call->len) {
        struct vv_piece piece = vv_parts_at(&parts, offset + done, call->len - done);
        piece.len = vv_aside_tell(op, aside, offset + done, piece.len);
        TRY(write_part(op, call, done, &piece));
        done += (size_t)piece.len;
    }
    vv_op_into_aside(op, false);
    return 0;
}

static int write_file(struct vv_op *op, void *arg)
{
    struct write_file *call = arg;
    struct vv_inode inode;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    int err = may_write(op, call, &inode);
    if (vv_op_is_missing(op))
        return -VV_ERR_MISS;
    TRY(err);
    if (call->flags & VV_WRITE_APPEND)
        call->offset = inode.size;
    if (call->offset > VV_FILE_BYTES_MAX - call->len)
        return -EFBIG;
    uint64_t end = call->offset + call->len;
    if (inode.parts.len == 0 && inode.aside_blocks == 0 && end <= VV_INLINE_MAX)
        write_inline(call, &inode);
    else
        TRY(write_parts(op, call, &inode));
    if (end > inode.size)
        inode.size = end;
    bool is_told = call->flags & VV_WRITE_KILL_PRIV;
    TRY(vv_kill_priv(op, &inode, vv_cred_is_killing_ids(&call->call->cred, is_told)));
    vv_inode_touch(&inode, VV_NOW_MTIME | VV_NOW_CTIME);
    call->now = inode;
    return vv_inode_save(op, &inode);
}

static int write_some(struct write_file *call)
{
    int err = vv_volume_run(call->fs->volume, VV_OP_WRITE, call->len, write_file, call);
    if (call->payload)
        vv_payload_settle(call->payload);
    if (err < 0)
        return err;
    vv_notify_inode(call->fs, call->call, call->inode, call->offset, call->len);
    return 0;
}

/* A write of a length that one operation takes is atomic; of a longer one, each piece is. */
static int write_all(struct write_file *call, size_t len, size_t *out_done)
{
    const uint8_t *bytes = call->bytes;
    size_t done = 0;
    int err = 0;
    uint64_t offset = call->offset;
    while (done < len && err == 0) {
        call->bytes = bytes ? bytes + done : NULL;
        call->payload_at = done;
        call->len = len - done < WRITE_BYTES_MAX ? len - done : WRITE_BYTES_MAX;
        call->offset = offset + done;
        err = write_some(call);
        done += err == 0 ? call->len : 0;
    }
    *out_done = done;
    return done > 0 ? 0 : err;
}

/* `args` says what is written where; `len` bytes, more than none. */
static ssize_t write_and_settle(struct write_file *args, size_t len)
{
    struct vv_fs *fs = args->fs;
    /* What cannot fit is cut off, as write(2) does. */
    if (!(args->flags & VV_WRITE_APPEND) && args->offset >= VV_FILE_BYTES_MAX)
        return -EFBIG;
    if (!(args->flags & VV_WRITE_APPEND) && len > VV_FILE_BYTES_MAX - args->offset)
        len = (size_t)(VV_FILE_BYTES_MAX - args->offset);
    size_t done;
    const struct vv_handle *handle = args->handle;
    TRY(write_all(args, len, &done));
    vv_notify_wait(fs, args->call);
    bool is_sync = (args->flags & VV_WRITE_SYNC) || (handle && (handle->flags & (O_SYNC | O_DSYNC)));
    TRY(is_sync ? vv_volume_sync(fs->volume, args->inode) : vv_fs_sync_if(fs, &args->now));
    return (ssize_t)done;
}

ssize_t vv_fs_write(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                    struct vv_handle *handle, const void *buf, size_t len, uint64_t offset,
                    unsigned flags)
{
    struct write_file args;
    args.fs = fs;
    args.call = call;
    args.inode = inode;
    args.handle = handle;
    args.bytes = buf;
    args.payload = NULL;
    args.offset = offset;
    args.flags = flags;
    if (len == 0)
        return handle && (handle->flags & O_ACCMODE) == O_RDONLY ? -EBADF : 0;
    return write_and_settle(&args, len);
}

int vv_fs_payload_new(struct vv_fs *fs, uint64_t offset, size_t len,
                      struct vv_payload **out_payload)
{
    return vv_payload_new(fs->volume, offset, len, out_payload);
}

ssize_t vv_fs_write_payload(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                            struct vv_handle *handle, struct vv_payload *payload, uint64_t offset,
                            unsigned flags)
{
    struct write_file args;
    args.fs = fs;
    args.call = call;
    args.inode = inode;
    args.handle = handle;
    args.bytes = NULL;
    args.payload = payload;
    args.offset = offset;
    args.flags = flags;
    return write_and_settle(&args, vv_payload_len(payload));
}

/* ---- symlinks ---- */

struct read_link {
    struct vv_fs *fs;
    uint64_t inode;
    char *buf;
    size_t size;
    bool is_atime_due; /* out */
};

static int read_link(struct vv_op *op, void *arg)
{
    struct read_link *call = arg;
    struct vv_inode inode;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    if (!S_ISLNK(inode.mode))
        return -EINVAL;
    size_t len = inode.in_line.len < call->size ? inode.in_line.len : call->size;
    memcpy(call->buf, inode.in_line.ptr, len);
    call->is_atime_due = vv_atime_is_due(call->fs, &inode, NULL);
    return (int)len;
}

ssize_t vv_fs_readlink(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode, char *buf,
                       size_t size)
{
    struct read_link args = {.fs = fs, .inode = inode, .buf = buf, .size = size};
    if (size == 0)
        return -EINVAL;
    int len = vv_volume_run(fs->volume, VV_OP_READ, 0, read_link, &args);
    if (len >= 0 && args.is_atime_due)
        vv_atime_update(fs, inode);
    return len;
}

/* ---- seeking ---- */

struct seek_file {
    struct vv_fs *fs;
    uint64_t inode;
    uint64_t size;
    size_t inline_len;
    struct vv_parts parts;
};

static int load_parts(struct vv_op *op, void *arg)
{
    struct seek_file *call = arg;
    struct vv_inode inode;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    TRY(check_regular(&inode));
    call->size = inode.size;
    call->inline_len = inode.in_line.len;
    return vv_parts_decode(inode.parts, &call->parts);
}

/* The first byte from `offset` that is data (or a hole); the size when there is none. */
static int seek_parts(const struct seek_file *call, uint64_t offset, bool is_hole, uint64_t *out)
{
    while (offset < call->size) {
        struct vv_piece piece = vv_parts_at(&call->parts, offset, call->size - offset);
        uint64_t end = piece.start + piece.len;
        uint64_t found;
        TRY(vv_volume_seek(call->fs->volume, piece.data_id, piece.start, end, is_hole, &found));
        offset += found - piece.start;
        if (found < end)
            break;
    }
    *out = offset;
    return 0;
}

int vv_fs_seek(struct vv_fs *fs, uint64_t inode, uint64_t offset, int whence, uint64_t *out_offset)
{
    struct seek_file args;
    args.fs = fs;
    args.inode = inode;
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    TRY(vv_volume_run(fs->volume, VV_OP_READ, 0, load_parts, &args));
    if (offset >= args.size)
        return -ENXIO;
    uint64_t found = offset;
    if (args.parts.count > 0)
        TRY(seek_parts(&args, offset, whence == SEEK_HOLE, &found));
    else if (whence == SEEK_DATA)
        found = offset < args.inline_len ? offset : args.size;
    else
        found = offset < args.inline_len ? args.inline_len : offset;
    if (whence == SEEK_DATA && found >= args.size)
        return -ENXIO;
    *out_offset = found;
    return 0;
}

/* ---- copying ---- */

ssize_t vv_fs_copy_range(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t from_inode,
                         uint64_t from_offset, uint64_t to_inode, uint64_t to_offset, size_t len)
{
    if (from_offset > VV_FILE_BYTES_MAX || to_offset > VV_FILE_BYTES_MAX)
        return -EFBIG;
    if (len > COPY_BYTES_MAX)
        len = COPY_BYTES_MAX;
    if (from_inode == to_inode && from_offset < to_offset + len && to_offset < from_offset + len)
        return -EINVAL;
    CLEANUP(vv_free_ptr) uint8_t *buf = vv_alloc(len);
    if (!buf)
        return -ENOMEM;
    ssize_t got = vv_fs_read(fs, call, from_inode, NULL, buf, len, from_offset);
    if (got <= 0)
        return got;
    /* Unlike with a write, nobody has told who may keep set-id bits: only root. */
    unsigned flags = vv_cred_is_root(&call->cred) ? 0 : VV_WRITE_KILL_PRIV;
    return vv_fs_write(fs, call, to_inode, NULL, buf, (size_t)got, to_offset, flags);
}
