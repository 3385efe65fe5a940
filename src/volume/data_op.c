/* File bytes in operations: staging writes, zeros and drops; applying them; folding deep extents. */
#include <assert.h>
#include <string.h>

#include "base/plant.h"
#include "volume/op_impl.h"

static struct vv_layer *top_layer(const struct vv_extent *extent)
{
    if (vv_list_is_empty(&extent->layers))
        return NULL;
    return vv_list_first(&extent->layers, struct vv_layer, in_extent);
}

static bool is_whole(const struct vv_layer *layer)
{
    return layer->from == 0 && layer->to == VV_EXTENT_BYTES;
}

/* Layers above the newest one that covers the whole extent. */
static unsigned extent_depth(const struct vv_extent *extent)
{
    unsigned depth = 0;
    vv_list_each (node, &extent->layers) {
        if (is_whole(vv_list_entry(node, struct vv_layer, in_extent)))
            break;
        depth++;
    }
    return depth;
}

void vv_op_drop_data(struct vv_op *op)
{
    struct vv_volume *volume = op->volume;
    while (!vv_list_is_empty(&op->layers)) {
        struct vv_staged_layer *staged = vv_list_first(&op->layers, struct vv_staged_layer, node);
        vv_list_remove(&staged->node);
        vv_layer_unref(staged->layer);
        vv_buf_unref(staged->larger_buf);
        staged->extent->holds--;
        vv_extent_tidy(volume, staged->extent);
        vv_free(staged);
    }
    while (!vv_list_is_empty(&op->ranges)) {
        struct vv_staged_range *staged = vv_list_first(&op->ranges, struct vv_staged_range, node);
        vv_list_remove(&staged->node);
        vv_free(staged->range);
        staged->data->holds--;
        vv_data_tidy(volume, staged->data);
        vv_free(staged);
    }
    for (unsigned i = 0; i < op->drop_count; i++) {
        op->drops[i].data->holds--;
        vv_data_tidy(volume, op->drops[i].data);
    }
    op->drop_count = 0;
    op->staged_bytes = 0;
}

static bool is_staged_already(const struct vv_op *op, const struct vv_extent *extent)
{
    vv_list_each (node, &op->layers) {
        if (vv_list_entry(node, struct vv_staged_layer, node)->extent == extent)
            return true;
    }
    return false;
}

/* A range or a drop of the operation, which are applied first, takes away what is there. */
static bool is_cleared(const struct vv_op *op, const struct vv_extent *extent)
{
    vv_list_each (node, &op->ranges) {
        const struct vv_staged_range *staged = vv_list_entry(node, struct vv_staged_range, node);
        if (staged->data == extent->data && staged->range->from <= extent->index &&
            extent->index < staged->range->to)
            return true;
    }
    for (unsigned i = 0; i < op->drop_count; i++) {
        if (op->drops[i].data == extent->data)
            return true;
    }
    return false;
}

static bool is_zeros(const struct vv_staged_layer *staged)
{
    return staged->bytes == NULL && staged->payload == NULL;
}

/* Nothing of the layer would be left, and the payload's memory can perhaps take its place: that costs less than
 * copying, but for so little. */
static bool is_replacing(const struct vv_staged_layer *staged, const struct vv_layer *top)
{
    return staged->payload != NULL && staged->to - staged->from > VV_EXTENT_BLOCK &&
           staged->from <= top->from && staged->to >= top->to;
}

/* Can what is to be staged become part of the layer on top? It must be of the open commit and only in our hands, and the
 * union must be one stretch. Nothing suspends until it is applied: what is so now is so then, unless this operation itself
 * changes it. */
static bool can_merge(const struct vv_op *op, const struct vv_extent *extent,
                      const struct vv_staged_layer *what)
{
    const struct vv_layer *top = top_layer(extent);
    return !is_zeros(what) && top != NULL &&
           (top->commit == op->volume->open->number || vv_planted(VV_PLANT_MERGE_FROZEN)) &&
           top->state == VV_LAYER_PLAIN && !top->is_zero && top->refs == 1 &&
           what->from <= top->to && what->to >= top->from && !is_replacing(what, top) &&
           !is_staged_already(op, extent) && !is_cleared(op, extent);
}

static struct vv_buf *new_buf(struct vv_op *op, uint32_t capacity)
{
    struct vv_budget *budget = &op->volume->dirty_budget;
    return capacity == VV_EXTENT_BYTES ? vv_fresh_buf(op->volume, budget)
                                       : vv_buf_new(capacity, budget);
}

/* Stages a merge into the top layer, with a larger buffer when its own is too small or is being read. */
static int stage_merge(struct vv_op *op, struct vv_staged_layer *staged)
{
    struct vv_layer *top = top_layer(staged->extent);
    uint32_t from = staged->from < top->from ? staged->from : top->from;
    uint32_t to = staged->to > top->to ? staged->to : top->to;
    staged->into = top;
    /* Readers, and payloads that are not settled, hold a buffer by reference and count on its bytes. */
    if (top->buf->refs == 1 && from >= top->buf_at && to - top->buf_at <= top->buf->capacity)
        return 0;
    uint32_t capacity = vv_layer_capacity(from, to);
    /* Who goes forward comes again: not block by block. */
    if (to > top->to && capacity < 2 * top->buf->capacity)
        capacity = 2 * top->buf->capacity;
    if (capacity > VV_EXTENT_BYTES - from)
        capacity = VV_EXTENT_BYTES - from;
    staged->larger_buf = new_buf(op, capacity);
    if (staged->larger_buf == NULL)
        return -ENOMEM;
    staged->larger_at = from;
    return 0;
}

/* The payload's own memory, if it can be had. */
static struct vv_buf *handed_buf(struct vv_op *op, struct vv_staged_layer *staged)
{
    if (staged->payload == NULL)
        return NULL;
    return vv_payload_take(staged->payload, staged->payload_at, staged->from, staged->to,
                           &op->volume->dirty_budget);
}

static int stage_new_layer(struct vv_op *op, struct vv_staged_layer *staged)
{
    struct vv_layer *layer = vv_layer_new(staged->from, staged->to);
    staged->layer = layer;
    if (layer == NULL)
        return -ENOMEM;
    layer->is_zero = is_zeros(staged);
    layer->aside = staged->aside;
    if (layer->is_zero)
        return 0;
    layer->buf = handed_buf(op, staged);
    staged->is_handed = layer->buf != NULL;
    if (!staged->is_handed)
        layer->buf = new_buf(op, vv_layer_capacity(staged->from, staged->to));
    return layer->buf == NULL ? -ENOMEM : 0;
}

/* Extents [from, to) are to be cleared first: what was to go into layers there gets its own. */
static int part_from_layers(struct vv_op *op, const struct vv_data *data, uint64_t from, uint64_t to)
{
    vv_list_each (node, &op->layers) {
        struct vv_staged_layer *staged = vv_list_entry(node, struct vv_staged_layer, node);
        const struct vv_extent *extent = staged->extent;
        if (staged->into == NULL || extent->data != data || extent->index < from ||
            extent->index >= to)
            continue;
        staged->into = NULL;
        vv_buf_unref(staged->larger_buf);
        staged->larger_buf = NULL;
        TRY(stage_new_layer(op, staged));
    }
    return 0;
}

/* What is to be staged: `what` says where and which bytes (or zeros). */
static int stage_layer(struct vv_op *op, uint64_t inode, const struct vv_staged_layer *what)
{
    struct vv_volume *volume = op->volume;
    struct vv_data *data = vv_data_make(volume, what->data_id, inode);
    if (data == NULL)
        return -ENOMEM;
    struct vv_extent *extent = vv_extent_make(volume, data, what->index);
    if (extent == NULL) {
        vv_data_tidy(volume, data);
        return -ENOMEM;
    }
    /* Asked before it is among those that are staged. */
    bool is_merging = can_merge(op, extent, what);
    if (!is_merging && what->to - what->from < VV_EXTENT_BYTES &&
        extent_depth(extent) >= VV_LAYERS_MAX) {
        op->is_folding = true;
        op->fold_data_id = what->data_id;
        op->fold_index = what->index;
        return -VV_ERR_MISS;
    }
    struct vv_staged_layer *staged = vv_alloc(sizeof *staged);
    if (staged == NULL) {
        vv_extent_tidy(volume, extent);
        return -ENOMEM;
    }
    *staged = *what;
    staged->extent = extent;
    if (op->is_aside && !is_zeros(staged) && !vv_planted(VV_PLANT_ASIDE_TWICE))
        staged->aside = vv_blocks_of(staged->from, staged->to, false);
    extent->holds++;
    vv_list_push_back(&op->layers, &staged->node);
    return is_merging ? stage_merge(op, staged) : stage_new_layer(op, staged);
}

void vv_op_into_aside(struct vv_op *op, bool is_aside)
{
    op->is_aside = is_aside;
}

/* The bytes of `source`, extent by extent. */
static int stage_bytes(struct vv_op *op, uint64_t inode, uint64_t offset, size_t len,
                       const struct vv_staged_layer *source)
{
    if (op->volume->is_read_only)
        return -EROFS;
    if (op->staged_bytes + len > VV_OP_DATA_MAX || offset > VV_DATA_BYTES_MAX - len)
        return -VV_ERR_LIMIT;
    op->staged_bytes += len;
    struct vv_staged_layer what = *source;
    while (len > 0) {
        what.index = offset / VV_EXTENT_BYTES;
        what.from = (uint32_t)(offset % VV_EXTENT_BYTES);
        size_t part = VV_EXTENT_BYTES - what.from;
        if (part > len)
            part = len;
        what.to = what.from + (uint32_t)part;
        TRY(stage_layer(op, inode, &what));
        if (what.bytes != NULL)
            what.bytes += part;
        what.payload_at += part;
        offset += part;
        len -= part;
    }
    return 0;
}

int vv_op_write(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t offset,
                const void *bytes, size_t len)
{
    struct vv_staged_layer source = {.data_id = data_id, .bytes = bytes};
    return stage_bytes(op, inode, offset, len, &source);
}

int vv_op_write_payload(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t offset,
                        const struct vv_payload_part *part)
{
    struct vv_staged_layer source = {
        .data_id = data_id, .payload = part->payload, .payload_at = part->at};
    return stage_bytes(op, inode, offset, part->len, &source);
}

static int stage_range(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t from,
                       uint64_t to)
{
    struct vv_volume *volume = op->volume;
    struct vv_data *data = vv_data_make(volume, data_id, inode);
    if (data == NULL)
        return -ENOMEM;
    struct vv_staged_range *staged = vv_zalloc(sizeof *staged);
    struct vv_range *range = vv_range_new();
    if (staged == NULL || range == NULL) {
        vv_free(staged);
        vv_free(range);
        vv_data_tidy(volume, data);
        return -ENOMEM;
    }
    data->holds++;
    /* One record, and one range in memory, for all that begin here in this commit (the key of their
     * records is the same): the longest. */
    uint64_t record_to = to;
    const struct vv_range *same = vv_range_same(data, from, volume->open->number);
    if (same != NULL && same->to > record_to)
        record_to = same->to;
    vv_list_each (node, &op->ranges) {
        const struct vv_staged_range *other = vv_list_entry(node, struct vv_staged_range, node);
        if (other->data == data && other->range->from == from && other->range->to > record_to)
            record_to = other->range->to;
    }
    range->from = from;
    range->to = to;
    range->commit = volume->open->number;
    staged->range = range;
    staged->data = data;
    vv_list_push_back(&op->ranges, &staged->node);
    TRY(part_from_layers(op, data, from, to));
    uint8_t key[VV_VOLUME_KEY_MAX];
    uint8_t value[24];
    struct vv_writer writer = vv_writer_of(value, sizeof value);
    vv_writer_varint(&writer, record_to);
    vv_writer_varint(&writer, inode);
    struct vv_bytes key_bytes = {key, vv_key_range(key, data_id, from, range->commit)};
    return vv_op_put(op, key_bytes, (struct vv_bytes){value, writer.len});
}

int vv_op_clear(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t from, uint64_t to)
{
    if (op->volume->is_read_only)
        return -EROFS;
    if (to > VV_DATA_BYTES_MAX)
        to = UINT64_MAX;
    if (from >= to)
        return 0;
    uint64_t first = from / VV_EXTENT_BYTES;
    uint64_t last = to == UINT64_MAX ? VV_EXTENTS_NO_END : to / VV_EXTENT_BYTES;
    uint32_t head = (uint32_t)(from % VV_EXTENT_BYTES);
    uint32_t tail = to == UINT64_MAX ? 0 : (uint32_t)(to % VV_EXTENT_BYTES);
    struct vv_staged_layer zeros = {.data_id = data_id, .index = first, .from = head};
    zeros.to = first == last ? tail : VV_EXTENT_BYTES;
    if (first == last)
        return stage_layer(op, inode, &zeros);
    if (head > 0)
        TRY(stage_layer(op, inode, &zeros));
    zeros = (struct vv_staged_layer){.data_id = data_id, .index = last, .to = tail};
    if (tail > 0)
        TRY(stage_layer(op, inode, &zeros));
    first += head > 0;
    return first < last ? stage_range(op, inode, data_id, first, last) : 0;
}

int vv_op_drop(struct vv_op *op, uint64_t inode, uint64_t data_id)
{
    if (op->volume->is_read_only)
        return -EROFS;
    if (op->drop_count == VV_OP_DROPS_MAX)
        return -VV_ERR_LIMIT;
    struct vv_data *data = vv_data_make(op->volume, data_id, inode);
    if (data == NULL)
        return -ENOMEM;
    data->holds++;
    op->drops[op->drop_count++].data = data;
    TRY(part_from_layers(op, data, 0, VV_EXTENTS_NO_END));
    uint8_t key[VV_VOLUME_KEY_MAX];
    uint8_t value[24];
    struct vv_writer writer = vv_writer_of(value, sizeof value);
    vv_writer_varint(&writer, inode);
    vv_writer_varint(&writer, op->volume->open->number);
    struct vv_bytes key_bytes = {key, vv_key_orphan_data(key, data_id)};
    return vv_op_put(op, key_bytes, (struct vv_bytes){value, writer.len});
}

/* Layers of the open commit that [from, to) covers wholly, other than `but`, are of no use any more.
 * The extent may be gone afterwards. */
static void detach_covered(struct vv_volume *volume, struct vv_extent *extent, uint32_t from,
                           uint32_t to, const struct vv_layer *but)
{
    struct vv_list *node = extent->layers.next;
    bool has_more = node != &extent->layers;
    while (has_more) {
        struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_extent);
        node = node->next;
        has_more = node != &extent->layers;
        if (layer != but && layer->commit == volume->open->number && from <= layer->from &&
            layer->to <= to)
            vv_layer_detach(volume, layer);
    }
}

static void copy_staged(const struct vv_staged_layer *staged, uint8_t *out)
{
    size_t len = staged->to - staged->from;
    if (staged->payload != NULL)
        vv_payload_copy(staged->payload, staged->payload_at, out, len);
    else
        memcpy(out, staged->bytes, len);
}

static void apply_merge(struct vv_volume *volume, struct vv_staged_layer *staged)
{
    struct vv_layer *top = staged->into;
    uint32_t old_len = top->to - top->from;
    uint8_t these = vv_blocks_of(staged->from, staged->to, false);
    assert(top->extent == staged->extent && top->state == VV_LAYER_PLAIN);
    if (staged->larger_buf != NULL) {
        memcpy(staged->larger_buf->data + (top->from - staged->larger_at),
               top->buf->data + (top->from - top->buf_at), old_len);
        vv_buf_unref(top->buf);
        top->buf = staged->larger_buf;
        top->buf_at = staged->larger_at;
        staged->larger_buf = NULL;
    }
    copy_staged(staged, top->buf->data + (staged->from - top->buf_at));
    if (staged->from < top->from)
        top->from = staged->from;
    if (staged->to > top->to)
        top->to = staged->to;
    top->aside = (uint8_t)((top->aside & ~these) | staged->aside);
    vv_extent_count(top->extent);
    top->commit_ref->plain_bytes += top->to - top->from - old_len;
    top->extent->stamp = ++volume->stamp;
    volume->stats.merged_writes++;
    if (top->to - top->from > old_len)
        detach_covered(volume, top->extent, top->from, top->to, top);
}

static void apply_layer(struct vv_volume *volume, struct vv_staged_layer *staged)
{
    if (staged->into != NULL) {
        apply_merge(volume, staged);
        return;
    }
    struct vv_layer *layer = staged->layer;
    struct vv_extent *extent = staged->extent;
    staged->layer = NULL;
    if (staged->is_handed)
        volume->stats.handed_layers++;
    else if (!layer->is_zero)
        copy_staged(staged, layer->buf->data);
    vv_layer_attach(volume, extent, volume->open, layer);
    detach_covered(volume, extent, layer->from, layer->to, layer);
}

static void detach_extent(struct vv_volume *volume, struct vv_extent *extent)
{
    if (extent != NULL && !vv_list_is_empty(&extent->layers))
        detach_covered(volume, extent, 0, VV_EXTENT_BYTES, NULL);
}

/* Bytes of the open commit in [from, to) extents never leave: they are hidden from birth. */
static void detach_range(struct vv_volume *volume, struct vv_data *data, uint64_t from, uint64_t to)
{
    if (to - from < data->extent_count) {
        for (uint64_t index = from; index < to; index++)
            detach_extent(volume, vv_extent_find(volume, data->id, index));
        return;
    }
    vv_list_each_safe (node, &data->extents) {
        struct vv_extent *extent = vv_list_entry(node, struct vv_extent, in_data);
        if (extent->index >= from && extent->index < to)
            detach_extent(volume, extent);
    }
}

void vv_op_apply_data(struct vv_op *op)
{
    struct vv_volume *volume = op->volume;
    while (!vv_list_is_empty(&op->ranges)) {
        struct vv_staged_range *staged = vv_list_first(&op->ranges, struct vv_staged_range, node);
        vv_list_remove(&staged->node);
        detach_range(volume, staged->data, staged->range->from, staged->range->to);
        struct vv_range *same =
            vv_range_same(staged->data, staged->range->from, staged->range->commit);
        if (same != NULL) {
            vv_range_extend(volume, same, staged->range->to);
            vv_free(staged->range);
        } else {
            vv_range_add(volume, staged->data, staged->range);
        }
        staged->data->holds--;
        vv_free(staged);
    }
    for (unsigned i = 0; i < op->drop_count; i++) {
        struct vv_data *data = op->drops[i].data;
        detach_range(volume, data, 0, VV_EXTENTS_NO_END);
        assert(data->drop_commit == 0);
        data->drop_commit = volume->open->number;
        vv_list_push_back(&volume->drops, &data->in_queue);
        data->holds--;
    }
    op->drop_count = 0;
    while (!vv_list_is_empty(&op->layers)) {
        struct vv_staged_layer *staged = vv_list_first(&op->layers, struct vv_staged_layer, node);
        vv_list_remove(&staged->node);
        staged->extent->holds--;
        apply_layer(volume, staged);
        vv_free(staged);
    }
    op->staged_bytes = 0;
}

/* What is visible of the extent's blocks. */
static int fold_state(struct vv_op *op, struct vv_extent_state *out_state)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {key, vv_key_extent(key, op->fold_data_id, op->fold_index)};
    struct vv_bytes value;
    struct vv_extent_record record;
    int found = vv_op_get(op, bytes, &value);
    TRY(found);
    if (found > 0)
        TRY(vv_extent_decode(value, &record));
    vv_extent_state_now(op->volume, op->fold_data_id, op->fold_index, found > 0 ? &record : NULL,
                        out_state);
    return 0;
}

static int resolve_whole(struct vv_op *op, struct vv_read **read, struct vv_extent_state *out_state)
{
    for (;;) {
        vv_op_begin_round(op, true);
        vv_read_reset(*read);
        int err = vv_op_read(op, op->fold_data_id, op->fold_index * VV_EXTENT_BYTES,
                             VV_EXTENT_BYTES, read);
        if (err == 0 || err == -VV_ERR_MISS) {
            int state_err = fold_state(op, out_state);
            err = err < 0 && state_err == 0 ? err : state_err;
        }
        if (err != -VV_ERR_MISS)
            return err;
        TRY(vv_op_fetch_missed(op));
    }
}

static uint64_t fold_stamp(struct vv_op *op, struct vv_extent **out_extent)
{
    struct vv_extent *extent = vv_extent_find(op->volume, op->fold_data_id, op->fold_index);
    *out_extent = extent;
    if (extent == NULL)
        return 0;
    return extent->stamp > extent->data->stamp ? extent->stamp : extent->data->stamp;
}

static int make_folded(struct vv_op *op, struct vv_read *read, const struct vv_extent_state *state,
                       struct vv_folded *out_folded)
{
    TRY(vv_folded_make(op->volume, VV_EXTENT_BYTES, state, out_folded));
    ssize_t got = vv_read_finish(op->volume, read, out_folded->layers[0]->buf->data);
    return got < 0 ? (int)got : 0;
}

/* Lay one whole layer over an extent that has too many. What it says is what a reader sees now, so that
 * this changes nothing but the form; if the extent changed while it was read, the caller plans again and
 * comes back. */
int vv_op_fold(struct vv_op *op)
{
    struct vv_volume *volume = op->volume;
    struct vv_extent *extent;
    struct vv_read *read = NULL;
    struct vv_extent_state state;
    struct vv_folded folded = {0};
    op->is_folding = false;
    int err = resolve_whole(op, &read, &state);
    uint64_t stamp = fold_stamp(op, &extent);
    if (err == 0)
        err = make_folded(op, read, &state, &folded);
    if (err == 0 && fold_stamp(op, &extent) == stamp && extent != NULL) {
        vv_layer_attach(volume, extent, volume->open, folded.layers[0]);
        detach_covered(volume, extent, 0, VV_EXTENT_BYTES, folded.layers[0]);
        for (unsigned i = 1; i < folded.count; i++)
            vv_layer_attach(volume, extent, volume->open, folded.layers[i]);
        vv_commit_changed(volume);
        folded.count = 0;
    }
    vv_folded_done(&folded);
    vv_read_free(read);
    return err;
}
