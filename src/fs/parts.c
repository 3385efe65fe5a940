/* Where a file's bytes are: the part list, and changing it. */
#include <assert.h>
#include <string.h>

#include "fs/aside.h"
#include "fs/fs_impl.h"

#define JOIN_BYTES_MAX (VV_OP_DATA_MAX / 2) /* copied by one joining of parts */
#define JOIN_TRIES_MAX 8                    /* when the file changes under our hands */

static_assert(VV_SYMLINK_MAX >= VV_PARTS_BUF_BYTES, "a record holds a full part list");

static bool has_data_id(const struct vv_parts *parts, size_t from, size_t to, uint64_t data_id)
{
    for (size_t i = from; i < to; i++) {
        if (parts->at[i].data_id == data_id)
            return true;
    }
    return false;
}

static uint64_t part_end(const struct vv_part *part)
{
    return part->length == VV_PART_NO_END ? UINT64_MAX : part->start + part->length;
}

int vv_parts_remove(struct vv_op *op, uint64_t inode, struct vv_parts *parts, size_t from,
                    size_t to)
{
    for (size_t i = from; i < to; i++) {
        const struct vv_part *part = &parts->at[i];
        if (has_data_id(parts, 0, from, part->data_id) ||
            has_data_id(parts, to, parts->count, part->data_id))
            TRY(vv_op_clear(op, inode, part->data_id, part->start, part_end(part)));
        else if (!has_data_id(parts, from, i, part->data_id))
            TRY(vv_op_drop(op, inode, part->data_id));
    }
    memmove(&parts->at[from], &parts->at[to], (parts->count - to) * sizeof(parts->at[0]));
    parts->count -= to - from;
    return 0;
}

struct vv_piece vv_parts_at(const struct vv_parts *parts, uint64_t offset, uint64_t len)
{
    size_t i = 0;
    assert(parts->count > 0);
    while (offset >= parts->at[i].length) {
        offset -= parts->at[i].length;
        i++;
        assert(i < parts->count && "the last part has no end");
    }
    const struct vv_part *part = &parts->at[i];
    uint64_t left = part->length == VV_PART_NO_END ? len : part->length - offset;
    return (struct vv_piece){part->data_id, part->start + offset, left < len ? left : len};
}

void vv_parts_insert(struct vv_parts *parts, size_t at, struct vv_part part)
{
    assert(parts->count < sizeof(parts->at) / sizeof(parts->at[0]) && at <= parts->count);
    memmove(&parts->at[at + 1], &parts->at[at], (parts->count - at) * sizeof(parts->at[0]));
    parts->at[at] = part;
    parts->count++;
}

size_t vv_parts_split(struct vv_parts *parts, uint64_t offset)
{
    size_t i = 0;
    while (i < parts->count && offset >= parts->at[i].length) {
        offset -= parts->at[i].length;
        i++;
    }
    if (offset == 0)
        return i;
    struct vv_part rest = parts->at[i];
    rest.start += offset;
    if (rest.length != VV_PART_NO_END)
        rest.length -= offset;
    parts->at[i].length = offset;
    vv_parts_insert(parts, i + 1, rest);
    return i + 1;
}

void vv_parts_join(struct vv_parts *parts)
{
    size_t kept = 0;
    for (size_t i = 1; i < parts->count; i++) {
        struct vv_part *last = &parts->at[kept];
        const struct vv_part *part = &parts->at[i];
        if (part->data_id == last->data_id && part->start == part_end(last))
            last->length =
                part->length == VV_PART_NO_END ? part->length : last->length + part->length;
        else
            parts->at[++kept] = *part;
    }
    parts->count = parts->count > 0 ? kept + 1 : 0;
}

int vv_parts_clear(struct vv_op *op, uint64_t inode, const struct vv_parts *parts, uint64_t from,
                   uint64_t to)
{
    while (from < to) {
        struct vv_piece piece = vv_parts_at(parts, from, to - from);
        TRY(vv_op_clear(op, inode, piece.data_id, piece.start, piece.start + piece.len));
        from += piece.len;
    }
    return 0;
}

int vv_parts_read(struct vv_op *op, const struct vv_parts *parts, uint64_t offset, uint64_t len,
                  struct vv_read **read)
{
    int result = 0;
    while (len > 0) {
        struct vv_piece piece = vv_parts_at(parts, offset, len);
        int err = vv_op_read(op, piece.data_id, piece.start, piece.len, read);
        if (err < 0 && err != -VV_ERR_MISS)
            return err;
        if (err < 0)
            result = err;
        offset += piece.len;
        len -= piece.len;
    }
    return result;
}

int vv_file_set_parts(struct vv_inode *inode, const struct vv_parts *parts, struct vv_file_buf *buf)
{
    if (parts->count > VV_PARTS_MAX)
        return -VV_ERR_LIMIT;
    for (size_t i = 0; i < parts->count; i++) {
        if (parts->at[i].start > VV_PART_START_MAX)
            return -EFBIG;
    }
    inode->parts = vv_parts_encode(parts, buf->parts);
    return 0;
}

int vv_file_drop_data(struct vv_op *op, struct vv_inode *inode)
{
    if (inode->parts.len > 0) {
        struct vv_parts parts;
        TRY(vv_parts_decode(inode->parts, &parts));
        TRY(vv_parts_remove(op, inode->inode, &parts, 0, parts.count));
    }
    inode->parts = (struct vv_bytes){NULL, 0};
    inode->in_line = (struct vv_bytes){NULL, 0};
    inode->size = 0;
    return vv_aside_drop(op, inode);
}

int vv_file_resize(struct vv_op *op, struct vv_inode *inode, uint64_t size, struct vv_file_buf *buf)
{
    if (size == 0)
        return vv_file_drop_data(op, inode);
    /* What is set aside behind the end goes, whether the file becomes shorter or keeps its size. */
    if (size <= inode->size)
        TRY(vv_aside_edit(op, inode, vv_aside_remove, (size + VV_BLOCK_BYTES - 1) / VV_BLOCK_BYTES,
                          UINT64_MAX));
    if (inode->in_line.len > size)
        inode->in_line.len = size;
    if (size < inode->size && inode->parts.len > 0) {
        struct vv_parts parts;
        TRY(vv_parts_decode(inode->parts, &parts));
        size_t end = vv_parts_split(&parts, size);
        TRY(vv_parts_remove(op, inode->inode, &parts, end, parts.count));
        parts.at[end - 1].length = VV_PART_NO_END;
        TRY(vv_file_set_parts(inode, &parts, buf));
    }
    inode->size = size;
    return 0;
}

int vv_file_parts(struct vv_op *op, struct vv_inode *inode, uint64_t skip_from, uint64_t skip_to,
                  struct vv_file_buf *buf, struct vv_parts *out_parts)
{
    if (inode->parts.len > 0)
        return vv_parts_decode(inode->parts, out_parts);
    uint64_t data_id = vv_op_new_data_id(op);
    size_t len = inode->in_line.len;
    size_t head = skip_from < len ? (size_t)skip_from : len;
    /* The record may move when the operation is applied. */
    if (len > 0)
        memcpy(buf->in_line, inode->in_line.ptr, len);
    if (head > 0)
        TRY(vv_op_write(op, inode->inode, data_id, 0, buf->in_line, head));
    if (skip_to < len)
        TRY(vv_op_write(op, inode->inode, data_id, skip_to, buf->in_line + skip_to,
                        len - (size_t)skip_to));
    inode->in_line = (struct vv_bytes){NULL, 0};
    out_parts->count = 1;
    out_parts->at[0] = (struct vv_part){data_id, 0, VV_PART_NO_END};
    return vv_file_set_parts(inode, out_parts, buf);
}

int vv_file_move_inline(struct vv_op *op, struct vv_inode *inode, bool is_aside,
                        struct vv_file_buf *buf)
{
    struct vv_parts parts = {1, {{vv_op_new_data_id(op), 0, VV_PART_NO_END}}};
    size_t len = inode->in_line.len;
    /* The record may move when the operation is applied. */
    if (inode->in_line.ptr != buf->in_line)
        memcpy(buf->in_line, inode->in_line.ptr, len);
    vv_op_into_aside(op, is_aside);
    TRY(vv_op_write(op, inode->inode, parts.at[0].data_id, 0, buf->in_line, len));
    vv_op_into_aside(op, false);
    inode->in_line = (struct vv_bytes){NULL, 0};
    return vv_file_set_parts(inode, &parts, buf);
}

/* ---- joining parts ---- */

struct join_parts {
    struct vv_fs *fs;
    uint64_t inode;
    uint64_t change;
    size_t from, to;      /* the parts that become one */
    uint64_t offset, len; /* their bytes, up to the end of the file */
    uint8_t *bytes;
    struct vv_read *read;
    struct vv_file_buf buf;
};

/* Choose the longest run of parts whose bytes are few enough; 1, or 0 when there is none of two. */
static int choose_run(const struct vv_parts *parts, uint64_t size, struct join_parts *call)
{
    uint64_t offsets[VV_PARTS_MAX + 1];
    offsets[0] = 0;
    for (size_t i = 0; i < parts->count; i++) {
        bool is_last = i + 1 == parts->count;
        offsets[i + 1] = is_last ? size : offsets[i] + parts->at[i].length;
        if (offsets[i + 1] > size)
            offsets[i + 1] = size;
        if (offsets[i + 1] < offsets[i])
            offsets[i + 1] = offsets[i];
    }
    call->from = 0;
    call->to = 0;
    for (size_t from = 0, to = 0; from < parts->count; from++) {
        while (to < parts->count && offsets[to + 1] - offsets[from] <= JOIN_BYTES_MAX)
            to++;
        if (to > from && to - from > call->to - call->from) {
            call->from = from;
            call->to = to;
        }
        to = to > from ? to : from + 1;
    }
    call->offset = offsets[call->from];
    call->len = offsets[call->to] - call->offset;
    return call->to - call->from >= 2;
}

static int read_run(struct vv_op *op, void *arg)
{
    struct join_parts *call = arg;
    struct vv_inode inode;
    struct vv_parts parts;
    vv_read_reset(call->read);
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    TRY(vv_parts_decode(inode.parts, &parts));
    if (!choose_run(&parts, inode.size, call))
        return -EFBIG;
    call->change = inode.change;
    return vv_parts_read(op, &parts, call->offset, call->len, &call->read);
}

static int replace_run(struct vv_op *op, void *arg)
{
    struct join_parts *call = arg;
    struct vv_inode inode;
    struct vv_parts parts;
    struct vv_bytes aside;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    if (inode.change != call->change)
        return -EAGAIN;
    TRY(vv_aside_load(op, &inode, &aside));
    TRY(vv_parts_decode(inode.parts, &parts));
    struct vv_part joined = {vv_op_new_data_id(op), 0, VV_PART_NO_END};
    if (call->to < parts.count) {
        joined.length = 0;
        for (size_t i = call->from; i < call->to; i++)
            joined.length += parts.at[i].length;
    }
    TRY(vv_parts_remove(op, inode.inode, &parts, call->from, call->to));
    vv_parts_insert(&parts, call->from, joined);
    for (uint64_t done = 0; done < call->len;) {
        uint64_t len = vv_aside_tell(op, aside, call->offset + done, call->len - done);
        TRY(vv_op_write(op, inode.inode, joined.data_id, done, call->bytes + done, len));
        done += len;
    }
    vv_op_into_aside(op, false);
    TRY(vv_file_set_parts(&inode, &parts, &call->buf));
    inode.change++;
    return vv_inode_save(op, &inode);
}

static int join_once(struct vv_fs *fs, struct join_parts *call)
{
    TRY(vv_volume_run(fs->volume, VV_OP_READ, 0, read_run, call));
    call->bytes = vv_alloc(call->len);
    if (!call->bytes)
        return -ENOMEM;
    if (call->len > 0)
        TRY(vv_read_finish(fs->volume, call->read, call->bytes));
    return vv_volume_run(fs->volume, VV_OP_WRITE, call->len, replace_run, call);
}

int vv_file_join_parts(struct vv_fs *fs, uint64_t inode)
{
    CLEANUP(vv_free_ptr) struct join_parts *call = vv_alloc(sizeof(*call));
    if (!call)
        return -ENOMEM;
    int err = -EAGAIN;
    for (int i = 0; i < JOIN_TRIES_MAX && err == -EAGAIN; i++) {
        *call = (struct join_parts){.fs = fs, .inode = inode};
        err = join_once(fs, call);
        vv_read_free(call->read);
        vv_free(call->bytes);
    }
    return err;
}
