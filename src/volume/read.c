/* Reading file data: resolving places, which does not suspend, and copying what was fetched (fetch.c). */
#include "volume/read_impl.h"

#include <assert.h>
#include <string.h>

#include "volume/op_impl.h"

static void part_release(struct vv_read *read, struct vv_read_part *part)
{
    if (part->buf != NULL)
        vv_buf_unref(part->buf);
    else if (!part->is_at_hand)
        vv_segref_release(read->volume, &part->loc.segment);
    vv_block_unref(part->block);
}

void vv_read_reset(struct vv_read *read)
{
    if (read == NULL)
        return;
    for (size_t i = 0; i < read->count; i++)
        part_release(read, &read->parts[i]);
    read->count = 0;
    read->away_count = 0;
    read->len = 0;
    read->expected_end = 0;
}

void vv_read_free(struct vv_read *read)
{
    if (read == NULL)
        return;
    vv_read_done(read);
    vv_free(read);
}

void vv_read_done(struct vv_read *read)
{
    vv_read_reset(read);
    if (read->parts != read->few)
        vv_free(read->parts);
}

/* Room for one more. */
static int grow(struct vv_read *read)
{
    if (read->count < read->capacity)
        return 0;
    if (read->parts == NULL) {
        read->parts = read->few;
        read->capacity = VV_READ_PARTS_FEW;
        return 0;
    }
    if (read->capacity >= VV_READ_PARTS_MAX)
        return -VV_ERR_LIMIT;
    size_t capacity = 4 * read->capacity < VV_READ_PARTS_MAX ? 4 * read->capacity : VV_READ_PARTS_MAX;
    bool is_few = read->parts == read->few;
    struct vv_read_part *parts = vv_realloc(is_few ? NULL : read->parts, capacity * sizeof *parts);
    if (parts == NULL)
        return -ENOMEM;
    if (is_few)
        memcpy(parts, read->few, sizeof read->few);
    read->parts = parts;
    read->capacity = capacity;
    return 0;
}

static int add_part(struct vv_read *read, const struct vv_read_part *part)
{
    TRY(grow(read));
    struct vv_read_part *added = &read->parts[read->count];
    *added = *part;
    if (part->buf != NULL) {
        vv_buf_ref(part->buf);
    } else {
        struct vv_cache_key key;
        vv_frame_cache_key(&part->loc, &key);
        added->block = vv_cache_hold(read->volume->cache, &key);
        added->is_at_hand = added->block != NULL;
        if (!added->is_at_hand)
            TRY(vv_segref_hold(read->volume, &part->loc.segment));
        read->away_count += !added->is_at_hand;
    }
    read->count++;
    return 0;
}

/* What one extent's part of a read needs to know. */
struct resolve {
    struct vv_read *read;
    uint64_t data_id, index;
    uint32_t from, to; /* wanted, bytes in the extent */
    size_t at;         /* output position of `from` */
    struct vv_cover cover;
};

/* Adds the parts of [from, to) that nothing newer covers; `source` says where byte `from` comes from (NULL:
 * zeros). */
static int resolve_stretch(struct resolve *resolve, uint32_t from, uint32_t to,
                           const struct vv_read_part *source)
{
    uint32_t start = from;
    if (from < resolve->from)
        from = resolve->from;
    if (to > resolve->to)
        to = resolve->to;
    if (from >= to)
        return 0;
    uint32_t gaps[VV_COVER_MAX + 1][2];
    unsigned count = vv_cover_gaps(&resolve->cover, from, to, gaps);
    for (unsigned i = 0; i < count && source != NULL; i++) {
        struct vv_read_part part = *source;
        part.at = resolve->at + (gaps[i][0] - resolve->from);
        part.len = gaps[i][1] - gaps[i][0];
        part.skip += gaps[i][0] - start;
        TRY(add_part(resolve->read, &part));
    }
    return vv_cover_add(&resolve->cover, from, to) ? 0 : -VV_ERR_LIMIT;
}

static int resolve_layers(struct resolve *resolve, const struct vv_extent *extent, uint64_t hidden,
                          uint64_t last)
{
    vv_list_each (node, &extent->layers) {
        const struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_extent);
        if (layer->commit < hidden || layer->commit > last)
            continue;
        if (vv_cover_has(&resolve->cover, resolve->from, resolve->to))
            break;
        struct vv_read_part source = {.buf = layer->buf, .loc = layer->loc};
        source.origin.data_id = resolve->data_id;
        source.origin.extent = resolve->index;
        if (layer->buf != NULL)
            source.skip = layer->from - layer->buf_at;
        TRY(resolve_stretch(resolve, layer->from, layer->to, layer->is_zero ? NULL : &source));
    }
    return 0;
}

static int resolve_record(struct resolve *resolve, const struct vv_extent_record *record)
{
    for (unsigned i = record->count; i-- > 0;) {
        const struct vv_piece *piece = &record->pieces[i];
        struct vv_read_part source = {.loc = piece->loc};
        source.origin.data_id = resolve->data_id;
        source.origin.extent = resolve->index;
        TRY(resolve_stretch(resolve, piece->from, piece->to, piece->is_zero ? NULL : &source));
    }
    return 0;
}

static int resolve_extent(struct vv_op *op, struct resolve *resolve)
{
    struct vv_volume *volume = op->volume;
    struct vv_extent *extent = vv_extent_find(volume, resolve->data_id, resolve->index);
    const struct vv_data *data = vv_data_find(volume, resolve->data_id);
    uint64_t hidden = vv_hidden_commit(data, resolve->index, UINT64_MAX);
    if (extent != NULL)
        TRY(resolve_layers(resolve, extent, hidden, UINT64_MAX));
    if (vv_cover_has(&resolve->cover, resolve->from, resolve->to))
        return 0;
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes key_bytes = {key, vv_key_extent(key, resolve->data_id, resolve->index)};
    struct vv_bytes value;
    int found = vv_op_get(op, key_bytes, &value);
    if (found <= 0)
        return found;
    struct vv_extent_record record;
    TRY(vv_extent_decode(value, &record));
    return record.commit < hidden ? 0 : resolve_record(resolve, &record);
}

int vv_op_read(struct vv_op *op, uint64_t data_id, uint64_t offset, size_t len,
               struct vv_read **read)
{
    if (*read == NULL) {
        *read = vv_zalloc(sizeof **read);
        if (*read == NULL)
            return -ENOMEM;
        (*read)->volume = op->volume;
    }
    if (offset > VV_DATA_BYTES_MAX - len || (*read)->len + len > VV_OP_DATA_MAX)
        return -VV_ERR_LIMIT;
    if ((*read)->len == 0) {
        (*read)->data_id = data_id;
        (*read)->from = offset;
    }
    int result = 0;
    while (len > 0) {
        struct resolve resolve = {.read = *read, .data_id = data_id, .at = (*read)->len};
        resolve.index = offset / VV_EXTENT_BYTES;
        resolve.from = (uint32_t)(offset % VV_EXTENT_BYTES);
        size_t part = VV_EXTENT_BYTES - resolve.from;
        if (part > len)
            part = len;
        resolve.to = resolve.from + (uint32_t)part;
        int err = data_id == 0 ? 0 : resolve_extent(op, &resolve);
        if (err < 0 && err != -VV_ERR_MISS)
            return err;
        if (err == -VV_ERR_MISS)
            result = err;
        (*read)->len += part;
        offset += part;
        len -= part;
    }
    return result;
}

void vv_read_expect(struct vv_read *read, uint64_t end)
{
    if (read != NULL)
        read->expected_end = end;
}

/* The bytes that no part covers are zeros. */
static void fill_holes(const struct vv_read *read, uint8_t *out)
{
    size_t covered = 0; /* parts never overlap */
    for (size_t i = 0; i < read->count; i++)
        covered += read->parts[i].len;
    if (covered < read->len)
        memset(out, 0, read->len);
}

#define VIEW_PIECE_MIN 4096u /* less is not worth a pin */

/* Everything is in memory, holes and what has its place are in `out`. A quick store has no streams that what is at
 * hand could be of use to. */
static int fetch_all(struct vv_read *read, uint8_t *out)
{
    if (read->away_count == 0 && read->volume->get_ns < VV_READ_SLOW_NS) {
        TRY(vv_read_fetch(read, NULL));
        fill_holes(read, out);
        return 0;
    }
    bool is_in_place = vv_stream_is_washing(read->volume, vv_stream_begin(read));
    uint64_t begun_ns = vv_rt_now_ns();
    if (is_in_place)
        fill_holes(read, out);
    int err = vv_read_fetch(read, is_in_place ? out : NULL);
    vv_stream_end(read, vv_rt_now_ns() - begun_ns);
    TRY(err);
    if (!is_in_place)
        fill_holes(read, out);
    return 0;
}

/* Where the bytes of a fetched part are; NULL when it is too long for its source. */
static const uint8_t *source_of(const struct vv_read_part *part)
{
    const uint8_t *from = part->buf != NULL ? part->buf->data : part->block->data;
    size_t have = part->buf != NULL ? part->buf->capacity : part->block->len;
    return part->skip + (size_t)part->len > have ? NULL : from + part->skip;
}

ssize_t vv_read_finish(struct vv_volume *volume, struct vv_read *read, void *buf)
{
    if (read == NULL)
        return 0;
    assert(read->volume == volume);
    uint8_t *out = buf;
    TRY(fetch_all(read, out));
    for (size_t i = 0; i < read->count; i++) {
        const struct vv_read_part *part = &read->parts[i];
        if (part->is_in_place)
            continue;
        const uint8_t *from = source_of(part);
        if (from == NULL)
            return -VV_ERR_CORRUPT;
        memcpy(out + part->at, from, part->len);
    }
    return (ssize_t)read->len;
}

/* Blocks never change; dirty buffers do, as they are written to. */
static bool can_stay(const struct vv_read_part *part, const struct vv_view *view)
{
    return part->block != NULL && part->len >= VIEW_PIECE_MIN &&
           view->block_count < VV_VIEW_PIECES_MAX / 2 - 1;
}

/* Puts a part that stays among those before it, which are in order of place and mostly all before it. */
static void sort_in(const struct vv_read_part **stay, unsigned count, const struct vv_read_part *part)
{
    unsigned i = count;
    for (; i > 0 && stay[i - 1]->at > part->at; i--)
        stay[i] = stay[i - 1];
    stay[i] = part;
}

static void add_piece(struct vv_view *view, const uint8_t *bytes, size_t len)
{
    assert(view->count < VV_VIEW_PIECES_MAX);
    if (len > 0)
        view->pieces[view->count++] = (struct iovec){(void *)(uintptr_t)bytes, len};
}

ssize_t vv_read_finish_view(struct vv_volume *volume, struct vv_read *read, void *buf,
                            struct vv_view *out_view)
{
    const struct vv_read_part *stay[VV_VIEW_PIECES_MAX / 2];
    struct vv_view view = {.count = 0};
    uint8_t *out = buf;
    assert(read->volume == volume);
    TRY(fetch_all(read, out));
    for (size_t i = 0; i < read->count; i++) {
        const struct vv_read_part *part = &read->parts[i];
        const uint8_t *from = part->is_in_place ? out + part->at : source_of(part);
        if (from == NULL)
            return -VV_ERR_CORRUPT;
        if (part->is_in_place)
            continue;
        if (can_stay(part, &view))
            sort_in(stay, view.block_count++, part);
        else
            memcpy(out + part->at, from, part->len);
    }
    size_t at = 0;
    for (unsigned i = 0; i < view.block_count; i++) {
        add_piece(&view, out + at, stay[i]->at - at);
        add_piece(&view, source_of(stay[i]), stay[i]->len);
        at = stay[i]->at + stay[i]->len;
        vv_block_ref(stay[i]->block);
        view.blocks[i] = stay[i]->block;
    }
    add_piece(&view, out + at, read->len - at);
    *out_view = view;
    return (ssize_t)read->len;
}

void vv_view_done(struct vv_view *view)
{
    for (unsigned i = 0; i < view->block_count; i++)
        vv_block_unref(view->blocks[i]);
    view->block_count = 0;
    view->count = 0;
}

int vv_frame_fetch(struct vv_volume *volume, const struct vv_frame_loc *loc,
                   const struct vv_origin *origin, struct vv_block **out_block)
{
    struct vv_read read = {.volume = volume};
    struct vv_read_part part = {.loc = *loc, .origin = *origin};
    int err = add_part(&read, &part);
    if (err == 0)
        err = vv_read_fetch(&read, NULL);
    if (err == 0) {
        *out_block = read.parts[0].block;
        vv_block_ref(*out_block);
    }
    vv_read_done(&read);
    return err;
}

int vv_extent_read(struct vv_volume *volume, uint64_t data_id, uint64_t index,
                   const struct vv_extent_record *record, uint64_t last, uint8_t *out)
{
    struct vv_read read = {.volume = volume, .len = VV_EXTENT_BYTES};
    struct resolve resolve = {.read = &read, .data_id = data_id, .index = index};
    resolve.to = VV_EXTENT_BYTES;
    struct vv_extent *extent = vv_extent_find(volume, data_id, index);
    uint64_t hidden = vv_hidden_commit(vv_data_find(volume, data_id), index, last);
    int err = extent != NULL ? resolve_layers(&resolve, extent, hidden, last) : 0;
    if (err == 0 && record != NULL && record->commit >= hidden)
        err = resolve_record(&resolve, record);
    ssize_t got = err;
    if (err == 0)
        got = vv_read_finish(volume, &read, out);
    vv_read_done(&read);
    return got < 0 ? (int)got : 0;
}
