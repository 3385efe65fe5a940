#include "fs/aside.h"

#include <assert.h>
#include <errno.h>

/* ---- reading ---- */

struct vv_aside_iter vv_aside_iter_of(struct vv_bytes record)
{
    struct vv_aside_iter iter = {.cursor = vv_cursor_of(record.ptr, record.len)};
    if (record.len > 0)
        (void)vv_cursor_u8(&iter.cursor);
    return iter;
}

bool vv_aside_next(struct vv_aside_iter *iter, struct vv_aside_range *out_range)
{
    if (iter->cursor.is_bad || iter->cursor.len == 0)
        return false;
    uint64_t gap = vv_cursor_varint(&iter->cursor);
    uint64_t len = vv_cursor_varint(&iter->cursor);
    if (iter->cursor.is_bad || len == 0 || (gap == 0 && iter->at > 0) ||
        gap > VV_ASIDE_BLOCKS_MAX - iter->at || len > VV_ASIDE_BLOCKS_MAX - iter->at - gap) {
        iter->cursor.is_bad = true;
        return false;
    }
    out_range->from = iter->at + gap;
    out_range->to = out_range->from + len;
    iter->at = out_range->to;
    return true;
}

int vv_aside_check(struct vv_bytes record, uint64_t *out_blocks)
{
    uint64_t blocks = 0;
    struct vv_aside_range range;
    struct vv_aside_iter iter = vv_aside_iter_of(record);
    if (record.len > 0 && record.ptr[0] > VV_ASIDE_VERSION)
        return -VV_ERR_NEWER;
    while (vv_aside_next(&iter, &range))
        blocks += range.to - range.from;
    if (record.len > VV_ASIDE_RECORD_MAX || iter.cursor.is_bad || blocks == 0 ||
        record.ptr[0] != VV_ASIDE_VERSION)
        return -VV_ERR_FORMAT;
    *out_blocks = blocks;
    return 0;
}

bool vv_aside_has(struct vv_bytes record, uint64_t block, uint64_t *out_end)
{
    struct vv_aside_range range;
    struct vv_aside_iter iter = vv_aside_iter_of(record);
    while (vv_aside_next(&iter, &range)) {
        if (block < range.to) {
            *out_end = block < range.from ? range.from : range.to;
            return block >= range.from;
        }
    }
    *out_end = UINT64_MAX;
    return false;
}

/* ---- making ---- */

void vv_aside_begin(struct vv_aside_made *out)
{
    *out = (struct vv_aside_made){.writer = vv_writer_new()};
    vv_writer_u8(&out->writer, VV_ASIDE_VERSION);
}

static void write_last(struct vv_aside_made *made)
{
    if (made->last.from == made->last.to)
        return;
    vv_writer_varint(&made->writer, made->last.from - made->at);
    vv_writer_varint(&made->writer, made->last.to - made->last.from);
    made->at = made->last.to;
    made->blocks += made->last.to - made->last.from;
}

void vv_aside_put(struct vv_aside_made *made, uint64_t from, uint64_t to)
{
    bool is_first = made->last.from == made->last.to;
    if (from >= to)
        return;
    assert(is_first || from >= made->last.from);
    if (!is_first && from <= made->last.to) {
        made->last.to = to > made->last.to ? to : made->last.to;
        return;
    }
    write_last(made);
    made->last = (struct vv_aside_range){from, to};
}

void vv_aside_end(struct vv_aside_made *made)
{
    write_last(made);
    made->last = (struct vv_aside_range){0, 0};
}

void vv_aside_done(struct vv_aside_made *made)
{
    vv_writer_done(&made->writer);
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void vv_aside_join(struct vv_bytes record, struct vv_bytes other, struct vv_aside_made *out)
{
    struct vv_aside_iter iters[2] = {vv_aside_iter_of(record), vv_aside_iter_of(other)};
    struct vv_aside_range ranges[2];
    bool has[2];
    for (unsigned i = 0; i < 2; i++)
        has[i] = vv_aside_next(&iters[i], &ranges[i]);
    vv_aside_begin(out);
    while (has[0] || has[1]) {
        unsigned i = !has[0] || (has[1] && ranges[1].from < ranges[0].from);
        vv_aside_put(out, ranges[i].from, ranges[i].to);
        has[i] = vv_aside_next(&iters[i], &ranges[i]);
    }
    vv_aside_end(out);
}

void vv_aside_remove(struct vv_bytes record, uint64_t from, uint64_t to, struct vv_aside_made *out)
{
    struct vv_aside_range range;
    struct vv_aside_iter iter = vv_aside_iter_of(record);
    vv_aside_begin(out);
    while (vv_aside_next(&iter, &range)) {
        vv_aside_put(out, range.from, smaller(range.to, from));
        vv_aside_put(out, larger(range.from, to), range.to);
    }
    vv_aside_end(out);
}

void vv_aside_collapse(struct vv_bytes record, uint64_t from, uint64_t to,
                       struct vv_aside_made *out)
{
    struct vv_aside_range range;
    struct vv_aside_iter iter = vv_aside_iter_of(record);
    vv_aside_begin(out);
    while (vv_aside_next(&iter, &range)) {
        vv_aside_put(out, range.from, smaller(range.to, from));
        if (range.to > to)
            vv_aside_put(out, larger(range.from, to) - (to - from), range.to - (to - from));
    }
    vv_aside_end(out);
}

void vv_aside_insert(struct vv_bytes record, uint64_t at, uint64_t count, struct vv_aside_made *out)
{
    struct vv_aside_range range;
    struct vv_aside_iter iter = vv_aside_iter_of(record);
    vv_aside_begin(out);
    while (vv_aside_next(&iter, &range)) {
        vv_aside_put(out, range.from, smaller(range.to, at));
        /* Beyond the largest file there is nothing to be kept. */
        if (range.to > at)
            vv_aside_put(out, smaller(larger(range.from, at) + count, VV_ASIDE_BLOCKS_MAX),
                     smaller(range.to + count, VV_ASIDE_BLOCKS_MAX));
    }
    vv_aside_end(out);
}

/* ---- in operations ---- */

int vv_aside_load(struct vv_op *op, const struct vv_inode *inode, struct vv_bytes *out_record)
{
    struct vv_fs_key key;
    struct vv_bytes record;
    uint64_t blocks;
    *out_record = (struct vv_bytes){NULL, 0};
    if (inode->aside_blocks == 0)
        return 0;
    vv_key_aside(&key, inode->inode);
    int found = vv_op_get(op, vv_fs_key_bytes(&key), &record);
    TRY(found);
    if (found == 0)
        return -VV_ERR_FORMAT;
    TRY(vv_aside_check(record, &blocks));
    *out_record = record;
    return 0;
}

uint64_t vv_aside_tell(struct vv_op *op, struct vv_bytes record, uint64_t offset, uint64_t len)
{
    uint64_t end;
    vv_op_into_aside(op, vv_aside_has(record, offset / VV_BLOCK_BYTES, &end));
    if (end <= VV_ASIDE_BLOCKS_MAX && len > end * VV_BLOCK_BYTES - offset)
        len = end * VV_BLOCK_BYTES - offset;
    return len;
}

static int store(struct vv_op *op, struct vv_inode *inode, const struct vv_aside_made *made)
{
    struct vv_fs_key key;
    vv_key_aside(&key, inode->inode);
    TRY(vv_writer_check(&made->writer));
    if (made->writer.len > VV_ASIDE_RECORD_MAX)
        return 0;
    if (made->blocks == 0)
        TRY(vv_aside_drop(op, inode));
    else
        TRY(vv_op_put(op, vv_fs_key_bytes(&key),
                      (struct vv_bytes){made->writer.ptr, made->writer.len}));
    inode->aside_blocks = made->blocks;
    return 1;
}

int vv_aside_store(struct vv_op *op, struct vv_inode *inode, struct vv_aside_made *made)
{
    int stored = store(op, inode, made);
    vv_aside_done(made);
    return stored;
}

int vv_aside_edit(struct vv_op *op, struct vv_inode *inode, vv_aside_change *change, uint64_t first,
                  uint64_t second)
{
    struct vv_bytes record;
    struct vv_aside_made made;
    if (inode->aside_blocks == 0)
        return 1;
    TRY(vv_aside_load(op, inode, &record));
    change(record, first, second, &made);
    return vv_aside_store(op, inode, &made);
}

int vv_aside_drop(struct vv_op *op, struct vv_inode *inode)
{
    struct vv_fs_key key;
    if (inode->aside_blocks == 0)
        return 0;
    vv_key_aside(&key, inode->inode);
    inode->aside_blocks = 0;
    return vv_op_delete(op, vv_fs_key_bytes(&key));
}
