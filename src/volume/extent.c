#include "volume/extent.h"

#include <assert.h>
#include <string.h>

enum { FLAG_FRAME = 1, FLAG_LOG = 2, FLAG_PARENT = 4 };
enum { HAS_ASIDE = 128 }; /* in the count */

static_assert(VV_EXTENT_BLOCKS == 8, "a byte holds a set of blocks");

size_t vv_extent_encode(const struct vv_extent_record *record, uint8_t *out)
{
    assert(record->count >= 1 && record->count <= VV_PIECES_MAX);
    assert((record->aside & ~vv_extent_blocks(record)) == 0);
    struct vv_writer writer = vv_writer_of(out, VV_EXTENT_RECORD_MAX);
    vv_writer_varint(&writer, record->commit);
    vv_writer_u8(&writer, (uint8_t)(record->count | (record->aside != 0 ? HAS_ASIDE : 0)));
    if (record->aside != 0)
        vv_writer_u8(&writer, record->aside);
    for (unsigned i = 0; i < record->count; i++) {
        const struct vv_piece *piece = &record->pieces[i];
        const struct vv_segment_id *segment = &piece->loc.segment;
        assert(piece->from < piece->to && piece->to <= VV_EXTENT_BYTES);
        uint8_t flags = 0;
        if (!piece->is_zero) {
            flags = FLAG_FRAME;
            flags |= segment->kind == VV_SEGMENT_LOG ? FLAG_LOG : 0;
            flags |= segment->volume != 0 ? FLAG_PARENT : 0;
        }
        vv_writer_u8(&writer, flags);
        if (flags & FLAG_PARENT)
            vv_writer_varint(&writer, segment->volume);
        vv_writer_varint(&writer, piece->from);
        vv_writer_varint(&writer, piece->to - piece->from);
        if (piece->is_zero)
            continue;
        vv_writer_varint(&writer, segment->epoch);
        vv_writer_varint(&writer, segment->counter);
        vv_writer_varint(&writer, piece->loc.index);
        vv_writer_varint(&writer, piece->loc.offset);
        vv_writer_varint(&writer, piece->loc.len);
    }
    assert(!writer.is_bad);
    return writer.len;
}

static int decode_frame(struct vv_cursor *cursor, uint8_t flags, uint64_t volume,
                        struct vv_piece *piece)
{
    struct vv_frame_loc *loc = &piece->loc;
    loc->segment.volume = (uint32_t)volume;
    loc->segment.kind = flags & FLAG_LOG ? VV_SEGMENT_LOG : VV_SEGMENT_DATA;
    loc->segment.epoch = vv_cursor_varint(cursor);
    loc->segment.counter = vv_cursor_varint(cursor);
    uint64_t index = vv_cursor_varint(cursor);
    uint64_t offset = vv_cursor_varint(cursor);
    uint64_t len = vv_cursor_varint(cursor);
    if (index > VV_SEGMENT_FRAMES_MAX || offset > VV_SEGMENT_BYTES_MAX || len < VV_FRAME_OVERHEAD ||
        len > vv_frame_bound(VV_EXTENT_BYTES))
        return -VV_ERR_FORMAT;
    loc->index = (uint32_t)index;
    loc->offset = (uint32_t)offset;
    loc->len = (uint32_t)len;
    return 0;
}

static int decode_piece(struct vv_cursor *cursor, struct vv_piece *piece)
{
    memset(piece, 0, sizeof *piece);
    uint8_t flags = vv_cursor_u8(cursor);
    uint64_t volume = flags & FLAG_PARENT ? vv_cursor_varint(cursor) : 0;
    uint64_t from = vv_cursor_varint(cursor);
    uint64_t len = vv_cursor_varint(cursor);
    if (flags > (FLAG_FRAME | FLAG_LOG | FLAG_PARENT) || volume > VV_PARENTS_MAX ||
        from >= VV_EXTENT_BYTES || len == 0 || len > VV_EXTENT_BYTES - from)
        return -VV_ERR_FORMAT;
    piece->from = (uint32_t)from;
    piece->to = (uint32_t)(from + len);
    piece->is_zero = !(flags & FLAG_FRAME);
    if (piece->is_zero)
        return flags == 0 ? 0 : -VV_ERR_FORMAT;
    return decode_frame(cursor, flags, volume, piece);
}

int vv_extent_decode(struct vv_bytes value, struct vv_extent_record *out_record)
{
    struct vv_cursor cursor = vv_cursor_of(value.ptr, value.len);
    out_record->commit = vv_cursor_varint(&cursor);
    uint8_t count = vv_cursor_u8(&cursor);
    out_record->count = count & ~HAS_ASIDE;
    out_record->aside = count & HAS_ASIDE ? vv_cursor_u8(&cursor) : 0;
    if (out_record->count < 1 || out_record->count > VV_PIECES_MAX ||
        ((count & HAS_ASIDE) && out_record->aside == 0))
        return -VV_ERR_FORMAT;
    for (unsigned i = 0; i < out_record->count; i++)
        TRY(decode_piece(&cursor, &out_record->pieces[i]));
    TRY(vv_cursor_end(&cursor));
    return (out_record->aside & ~vv_extent_blocks(out_record)) != 0 ? -VV_ERR_FORMAT : 0;
}

bool vv_cover_add(struct vv_cover *cover, uint32_t from, uint32_t to)
{
    unsigned first = 0;
    while (first < cover->count && cover->ranges[first].to < from)
        first++;
    unsigned last = first;
    while (last < cover->count && cover->ranges[last].from <= to)
        last++;
    if (last == first && cover->count == VV_COVER_MAX)
        return false;
    if (last > first) {
        if (cover->ranges[first].from < from)
            from = cover->ranges[first].from;
        if (cover->ranges[last - 1].to > to)
            to = cover->ranges[last - 1].to;
    }
    memmove(&cover->ranges[first + 1], &cover->ranges[last],
            (cover->count - last) * sizeof cover->ranges[0]);
    cover->count = cover->count - (last - first) + 1;
    cover->ranges[first].from = from;
    cover->ranges[first].to = to;
    return true;
}

bool vv_cover_has(const struct vv_cover *cover, uint32_t from, uint32_t to)
{
    for (unsigned i = 0; i < cover->count; i++) {
        if (cover->ranges[i].from <= from && to <= cover->ranges[i].to)
            return true;
    }
    return false;
}

unsigned vv_cover_gaps(const struct vv_cover *cover, uint32_t from, uint32_t to,
                       uint32_t (*out_gaps)[2])
{
    unsigned count = 0;
    for (unsigned i = 0; i < cover->count && from < to; i++) {
        if (cover->ranges[i].to <= from)
            continue;
        if (cover->ranges[i].from >= to)
            break;
        if (cover->ranges[i].from > from) {
            out_gaps[count][0] = from;
            out_gaps[count++][1] = cover->ranges[i].from;
        }
        from = cover->ranges[i].to;
    }
    if (from < to) {
        out_gaps[count][0] = from;
        out_gaps[count++][1] = to;
    }
    return count;
}

uint8_t vv_blocks_of(uint32_t from, uint32_t to, bool is_zero)
{
    /* Only blocks that zeros cover whole are free again. */
    uint32_t first = is_zero ? (from + VV_EXTENT_BLOCK - 1) / VV_EXTENT_BLOCK : from / VV_EXTENT_BLOCK;
    uint32_t end = is_zero ? to / VV_EXTENT_BLOCK : (to + VV_EXTENT_BLOCK - 1) / VV_EXTENT_BLOCK;
    return first < end ? (uint8_t)((1u << end) - (1u << first)) : 0;
}

uint8_t vv_extent_blocks(const struct vv_extent_record *record)
{
    uint8_t blocks = 0;
    for (unsigned i = 0; i < record->count; i++) {
        const struct vv_piece *piece = &record->pieces[i];
        blocks = vv_blocks_put(blocks, piece->from, piece->to, piece->is_zero);
    }
    return blocks;
}

uint32_t vv_extent_allocated(const struct vv_extent_record *record)
{
    unsigned counted = vv_extent_blocks(record) & ~(unsigned)record->aside;
    return (uint32_t)__builtin_popcount(counted) * VV_EXTENT_BLOCK;
}

static size_t key_of(uint8_t *out, uint8_t table, const uint64_t *parts, unsigned count)
{
    out[0] = table;
    for (unsigned i = 0; i < count; i++)
        vv_store_be64(out + 1 + 8 * i, parts[i]);
    return 1 + 8 * (size_t)count;
}

size_t vv_key_extent(uint8_t *out, uint64_t data_id, uint64_t index)
{
    return key_of(out, VV_TABLE_EXTENT, (const uint64_t[]){data_id, index}, 2);
}

size_t vv_key_range(uint8_t *out, uint64_t data_id, uint64_t from, uint64_t commit)
{
    return key_of(out, VV_TABLE_RANGE, (const uint64_t[]){data_id, from, commit}, 3);
}

size_t vv_key_allocated(uint8_t *out, uint64_t inode, uint64_t data_id)
{
    return key_of(out, VV_TABLE_INODE, (const uint64_t[]){inode, data_id}, 2);
}

size_t vv_key_segment(uint8_t *out, const struct vv_segment_id *id)
{
    return key_of(out, VV_TABLE_SEGMENT,
                  (const uint64_t[]){id->volume, id->kind, id->epoch, id->counter}, 4);
}

int vv_key_segment_parse(struct vv_bytes key, struct vv_segment_id *out_id)
{
    if (key.len != 33 || key.ptr[0] != VV_TABLE_SEGMENT)
        return -VV_ERR_FORMAT;
    uint64_t volume = vv_load_be64(key.ptr + 1);
    uint64_t kind = vv_load_be64(key.ptr + 9);
    if (volume > VV_PARENTS_MAX || kind > VV_SEGMENT_LOG)
        return -VV_ERR_FORMAT;
    out_id->volume = (uint32_t)volume;
    out_id->kind = (uint8_t)kind;
    out_id->epoch = vv_load_be64(key.ptr + 17);
    out_id->counter = vv_load_be64(key.ptr + 25);
    return 0;
}

size_t vv_key_orphan_data(uint8_t *out, uint64_t data_id)
{
    out[0] = VV_TABLE_ORPHAN;
    out[1] = 'd';
    vv_store_be64(out + 2, data_id);
    return 10;
}
