/* Journal records: one commit, complete, with what it needs to be made again (PROTOCOL 17).
 *
 * Plain content:
 *   varint  format (1)
 *   varint  next inode, varint next data id
 *   varint  length of the changes, then the changes (lsm.h)
 *   varint  count of layers, oldest first; each:
 *     varint  data id, varint inode, varint extent index, varint from, varint to
 *     u8      0 = zeros, 1 = bytes follow, 2 = a frame in a data segment follows; 4 more when this comes first:
 *     u8        blocks of it that lie in space set aside, as in extent records; never 0
 *     for 1:  to - from bytes
 *     for 2:  varint epoch, varint counter, varint index, varint offset, varint length, and
 *             varint bytes of all frames of that segment (its total, which only this may know) */
#include <assert.h>
#include <string.h>

#include "base/plant.h"
#include "volume/volume_impl.h"

#define RECORD_FORMAT 1

enum { LAYER_ZERO = 0, LAYER_BYTES = 1, LAYER_FRAME = 2 };
enum { LAYER_HAS_ASIDE = 4 };

static void encode_kind(const struct vv_layer *layer, uint8_t kind, struct vv_writer *writer)
{
    uint8_t aside = vv_planted(VV_PLANT_ASIDE_FORGOTTEN) ? 0 : layer->aside;
    vv_writer_u8(writer, (uint8_t)(kind | (aside != 0 ? LAYER_HAS_ASIDE : 0)));
    if (aside != 0)
        vv_writer_u8(writer, aside);
}

static void encode_layer(const struct vv_volume *volume, const struct vv_layer *layer,
                         struct vv_writer *writer)
{
    const struct vv_extent *extent = layer->extent;
    vv_writer_varint(writer, extent->data->id);
    vv_writer_varint(writer, extent->data->inode);
    vv_writer_varint(writer, extent->index);
    vv_writer_varint(writer, layer->from);
    vv_writer_varint(writer, layer->to);
    if (layer->is_zero) {
        vv_writer_u8(writer, LAYER_ZERO);
    } else if (layer->state == VV_LAYER_SEALED) {
        encode_kind(layer, LAYER_FRAME, writer);
        vv_writer_varint(writer, layer->loc.segment.epoch);
        vv_writer_varint(writer, layer->loc.segment.counter);
        vv_writer_varint(writer, layer->loc.index);
        vv_writer_varint(writer, layer->loc.offset);
        vv_writer_varint(writer, layer->loc.len);
        vv_writer_varint(writer, vv_segref_find(volume, &layer->loc.segment)->bytes);
    } else {
        encode_kind(layer, LAYER_BYTES, writer);
        vv_writer_bytes(writer, layer->buf->data + (layer->from - layer->buf_at),
                        layer->to - layer->from);
    }
}

int vv_record_encode(struct vv_volume *volume, struct vv_commit *commit, struct vv_writer *writer)
{
    vv_writer_varint(writer, RECORD_FORMAT);
    vv_writer_varint(writer, commit->counters.next_inode);
    vv_writer_varint(writer, commit->counters.next_data_id);
    struct vv_writer changes = vv_writer_new();
    int err = vv_lsm_changes_encode(volume->lsm, commit->number, commit->number, &changes);
    if (err == 0)
        vv_writer_string(writer, changes.ptr, changes.len);
    vv_writer_done(&changes);
    TRY(err);
    size_t count = 0;
    vv_list_each (node, &commit->layers)
        count++;
    vv_writer_varint(writer, count);
    vv_list_each (node, &commit->layers)
        encode_layer(volume, vv_list_entry(node, struct vv_layer, in_commit), writer);
    return vv_writer_check(writer);
}

/* A layer's place and what it holds, as decoded. */
struct place {
    uint64_t data_id, inode, index;
    uint32_t from, to;
    struct vv_bytes bytes;
    struct vv_frame_loc loc;
    uint64_t segment_bytes;
    uint8_t kind;
    uint8_t aside;
};

static int decode_place(struct vv_cursor *cursor, struct place *place)
{
    memset(place, 0, sizeof *place);
    place->data_id = vv_cursor_varint(cursor);
    place->inode = vv_cursor_varint(cursor);
    place->index = vv_cursor_varint(cursor);
    uint64_t from = vv_cursor_varint(cursor);
    uint64_t to = vv_cursor_varint(cursor);
    uint8_t kind = vv_cursor_u8(cursor);
    place->kind = kind & ~LAYER_HAS_ASIDE;
    place->aside = kind & LAYER_HAS_ASIDE ? vv_cursor_u8(cursor) : 0;
    if ((kind & LAYER_HAS_ASIDE) && (place->aside == 0 || place->kind == LAYER_ZERO))
        return -VV_ERR_FORMAT;
    if (from >= to || to > VV_EXTENT_BYTES || place->index > VV_EXTENT_INDEX_MAX ||
        place->kind > LAYER_FRAME)
        return -VV_ERR_FORMAT;
    place->from = (uint32_t)from;
    place->to = (uint32_t)to;
    if ((place->aside & ~vv_blocks_of(place->from, place->to, false)) != 0)
        return -VV_ERR_FORMAT;
    if (place->kind == LAYER_BYTES)
        place->bytes = vv_cursor_bytes(cursor, to - from);
    if (place->kind == LAYER_FRAME) {
        place->loc.segment.kind = VV_SEGMENT_DATA;
        place->loc.segment.epoch = vv_cursor_varint(cursor);
        place->loc.segment.counter = vv_cursor_varint(cursor);
        place->loc.index = (uint32_t)vv_cursor_varint(cursor);
        place->loc.offset = (uint32_t)vv_cursor_varint(cursor);
        place->loc.len = (uint32_t)vv_cursor_varint(cursor);
        place->segment_bytes = vv_cursor_varint(cursor);
    }
    return vv_cursor_check(cursor);
}

static int apply_place(struct vv_volume *volume, struct vv_commit *commit,
                       const struct place *place)
{
    struct vv_data *data = vv_data_make(volume, place->data_id, place->inode);
    if (data == NULL)
        return -ENOMEM;
    struct vv_extent *extent = vv_extent_make(volume, data, place->index);
    struct vv_layer *layer = vv_layer_new(place->from, place->to);
    if (extent == NULL || layer == NULL) {
        vv_layer_unref(layer);
        if (extent != NULL)
            vv_extent_tidy(volume, extent);
        else
            vv_data_tidy(volume, data);
        return -ENOMEM;
    }
    int err = 0;
    layer->is_zero = place->kind == LAYER_ZERO;
    layer->aside = place->aside;
    if (place->kind == LAYER_FRAME) {
        layer->loc = place->loc;
        err = vv_segref_hold(volume, &place->loc.segment);
        layer->state = VV_LAYER_SEALED;
        if (err == 0)
            vv_segref_find(volume, &place->loc.segment)->bytes = place->segment_bytes;
    } else if (place->kind == LAYER_BYTES) {
        layer->buf = vv_buf_new(place->to - place->from, &volume->dirty_budget);
        err = layer->buf == NULL ? -ENOMEM : 0;
        if (err == 0)
            memcpy(layer->buf->data, place->bytes.ptr, place->bytes.len);
    }
    if (err < 0) {
        vv_layer_unref(layer);
        vv_extent_tidy(volume, extent);
        return err;
    }
    vv_layer_attach(volume, extent, commit, layer);
    return 0;
}

static int apply_layers(struct vv_volume *volume, struct vv_commit *commit,
                        struct vv_cursor *cursor)
{
    uint64_t count = vv_cursor_varint(cursor);
    for (uint64_t i = 0; i < count; i++) {
        struct place place;
        TRY(decode_place(cursor, &place));
        TRY(apply_place(volume, commit, &place));
    }
    return vv_cursor_end(cursor);
}

int vv_record_apply(struct vv_volume *volume, uint64_t number, struct vv_bytes plain)
{
    struct vv_cursor cursor = vv_cursor_of(plain.ptr, plain.len);
    uint64_t format = vv_cursor_varint(&cursor);
    struct vv_counters counters;
    counters.next_inode = vv_cursor_varint(&cursor);
    counters.next_data_id = vv_cursor_varint(&cursor);
    struct vv_bytes changes = vv_cursor_string(&cursor, VV_JOURNAL_RECORD_MAX);
    TRY(vv_cursor_check(&cursor));
    if (format != RECORD_FORMAT)
        return -VV_ERR_NEWER;
    struct vv_commit *commit;
    TRY(vv_commit_new(number, &commit));
    commit->is_frozen = true;
    commit->is_journaled = true;
    commit->opened_ns = 1;
    vv_list_push_back(&volume->commits, &commit->node);
    if (counters.next_inode > volume->counters.next_inode)
        volume->counters.next_inode = counters.next_inode;
    if (counters.next_data_id > volume->counters.next_data_id)
        volume->counters.next_data_id = counters.next_data_id;
    commit->counters = volume->counters;
    TRY(vv_lsm_changes_apply(volume->lsm, number, changes));
    return apply_layers(volume, commit, &cursor);
}
