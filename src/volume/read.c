/* Reading file data: resolving places without suspending, then fetching and copying. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "volume/op_impl.h"

#define READ_PARTS_MAX 65536
#define GROUP_BYTES_MAX (1u << 20) /* of one GET */
#define GROUP_GAP_MAX (16u << 10)  /* bytes read in vain to join two frames */
#define OFFLOAD_BYTES (24u << 10)  /* plain bytes whose opening is worth a worker */

/* A stretch of the output that does not come from nowhere (the rest is zeros). */
struct read_part {
    size_t at; /* in the output */
    uint32_t len;
    uint32_t skip; /* bytes of the source before it */
    struct vv_buf *buf;
    struct vv_frame_loc loc; /* when buf is NULL */
    struct vv_origin origin;
    struct vv_block *block;
};

struct vv_read {
    struct vv_volume *volume;
    struct read_part *parts;
    size_t count, capacity;
    size_t len;
};

static void part_release(struct vv_read *read, struct read_part *part)
{
    if (part->buf != NULL)
        vv_buf_unref(part->buf);
    else
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
    read->len = 0;
}

void vv_read_free(struct vv_read *read)
{
    if (read == NULL)
        return;
    vv_read_reset(read);
    vv_free(read->parts);
    vv_free(read);
}

static int add_part(struct vv_read *read, const struct read_part *part)
{
    if (read->count == read->capacity) {
        if (read->capacity == READ_PARTS_MAX)
            return -VV_ERR_LIMIT;
        size_t capacity = read->capacity == 0 ? 8 : 2 * read->capacity;
        struct read_part *parts = vv_realloc(read->parts, capacity * sizeof *parts);
        if (parts == NULL)
            return -ENOMEM;
        read->parts = parts;
        read->capacity = capacity;
    }
    if (part->buf != NULL)
        vv_buf_ref(part->buf);
    else
        TRY(vv_segref_hold(read->volume, &part->loc.segment));
    read->parts[read->count++] = *part;
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
                           const struct read_part *source)
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
        struct read_part part = *source;
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
        struct read_part source = {.buf = layer->buf, .loc = layer->loc};
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
        struct read_part source = {.loc = piece->loc};
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

/* ---- fetching ---- */

void vv_frame_cache_key(const struct vv_frame_loc *loc, struct vv_cache_key *out_key)
{
    const struct vv_segment_id *id = &loc->segment;
    out_key->space = VV_CACHE_FRAME | (uint64_t)id->kind << 55 | (uint64_t)id->volume << 32 |
                     loc->index;
    out_key->a = id->epoch;
    out_key->b = id->counter;
}

struct sealer_load {
    struct vv_volume *volume;
    const struct vv_segment_id *id;
};

static int load_sealer(void *arg, uint8_t **out_data, size_t *out_len)
{
    struct sealer_load *load = arg;
    uint8_t bytes[VV_OBJECT_HEADER_LEN];
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(load->id, name, sizeof name);
    ssize_t got = vv_store_get(load->volume->store, name, bytes, sizeof bytes, 0);
    TRY(got);
    struct vv_object_header header;
    TRY(vv_object_header_decode(bytes, (size_t)got, &header));
    struct vv_sealer **holder = vv_alloc(sizeof *holder);
    if (holder == NULL)
        return -ENOMEM;
    int err = vv_sealer_open(load->volume->ring, &header, name, holder);
    if (err < 0) {
        vv_free(holder);
        return err;
    }
    *out_data = (uint8_t *)holder;
    *out_len = 512; /* about what a sealer takes */
    return 0;
}

static void destroy_sealer(void *data, size_t len)
{
    struct vv_sealer **holder = data;
    (void)len;
    vv_sealer_free(*holder);
    vv_free(holder);
}

int vv_segment_sealer(struct vv_volume *volume, const struct vv_segment_id *id,
                      struct vv_block **out_block, const struct vv_sealer **out_sealer)
{
    struct vv_cache_key key = {VV_CACHE_OBJECT | (uint64_t)id->kind << 48 | id->volume, id->epoch,
                               id->counter};
    struct sealer_load load = {volume, id};
    TRY(vv_cache_get(volume->cache, &key, load_sealer, &load, out_block));
    (*out_block)->destroy = destroy_sealer;
    *out_sealer = *(struct vv_sealer **)(void *)(*out_block)->data;
    return 0;
}

/* Frames that lie close together in one segment: one GET, opened together. */
struct group {
    struct vv_volume *volume;
    struct read_part **parts; /* one per frame */
    size_t count;
    const struct vv_sealer *sealer;
    uint8_t *sealed;
    uint8_t **plain; /* per part, made by open_frames */
    size_t *plain_len;
    int err;
    size_t bad; /* the part that err is about */
    struct fetch *fetch;
};

struct fetch {
    size_t running;
    struct vv_waitq done;
};

static void open_frames(void *arg)
{
    struct group *group = arg;
    uint32_t start = group->parts[0]->loc.offset;
    for (size_t i = 0; i < group->count && group->err == 0; i++) {
        const struct read_part *part = group->parts[i];
        const uint8_t *frame = group->sealed + (part->loc.offset - start);
        group->bad = i;
        ssize_t len = vv_frame_plain_len(frame, part->loc.len);
        if (len < 0 || len > VV_EXTENT_BYTES) {
            group->err = len < 0 ? (int)len : -VV_ERR_FORMAT;
            return;
        }
        group->plain[i] = vv_alloc((size_t)len + 1);
        if (group->plain[i] == NULL) {
            group->err = -ENOMEM;
            return;
        }
        len = vv_frame_open(group->sealer, part->loc.index, &part->origin, frame, part->loc.len,
                            group->plain[i], (size_t)len);
        if (len < 0)
            group->err = (int)len;
        else
            group->plain_len[i] = (size_t)len;
    }
}

static int group_load(struct group *group)
{
    const struct read_part *first = group->parts[0];
    const struct read_part *last = group->parts[group->count - 1];
    size_t len = last->loc.offset + last->loc.len - first->loc.offset;
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(&first->loc.segment, name, sizeof name);
    group->sealed = vv_alloc(len);
    if (group->sealed == NULL)
        return -ENOMEM;
    ssize_t got =
        vv_store_get(group->volume->store, name, group->sealed, len, first->loc.offset);
    TRY(got);
    if ((size_t)got != len)
        return -VV_ERR_CORRUPT;
    if (len > OFFLOAD_BYTES)
        vv_rt_offload(open_frames, group);
    else
        open_frames(group);
    return group->err;
}

static void group_report(const struct group *group, int err)
{
    const struct read_part *part = group->parts[group->bad];
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(&part->loc.segment, name, sizeof name);
    vv_error("volume", "reading object %s, offset %u (data id %llu, extent %llu): %s", name,
             part->loc.offset, (unsigned long long)part->origin.data_id,
             (unsigned long long)part->origin.extent, vv_err_text(err));
}

static void group_run(void *arg)
{
    struct group *group = arg;
    struct vv_block *holder = NULL;
    int err = vv_segment_sealer(group->volume, &group->parts[0]->loc.segment, &holder,
                                &group->sealer);
    if (err == 0)
        err = group_load(group);
    for (size_t i = 0; i < group->count; i++) {
        struct vv_cache_key key;
        if (err < 0 || group->plain[i] == NULL) {
            vv_free(group->plain[i]);
            continue;
        }
        vv_frame_cache_key(&group->parts[i]->loc, &key);
        vv_cache_put(group->volume->cache, &key, group->plain[i], group->plain_len[i],
                     &group->parts[i]->block);
        if (group->parts[i]->block == NULL)
            err = -ENOMEM;
    }
    if (err < 0 && err != -ENOMEM)
        group_report(group, err);
    group->err = err;
    vv_block_unref(holder);
    vv_free(group->sealed);
    vv_free(group->plain);
    vv_free(group->plain_len);
    if (--group->fetch->running == 0)
        vv_waitq_wake_all(&group->fetch->done);
}

static int compare_places(const struct vv_frame_loc *a, const struct vv_frame_loc *b)
{
    if (a->segment.kind != b->segment.kind)
        return a->segment.kind < b->segment.kind ? -1 : 1;
    if (a->segment.epoch != b->segment.epoch)
        return a->segment.epoch < b->segment.epoch ? -1 : 1;
    if (a->segment.counter != b->segment.counter)
        return a->segment.counter < b->segment.counter ? -1 : 1;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return 0;
}

static int compare_parts(const void *a, const void *b)
{
    const struct read_part *const *first = a;
    const struct read_part *const *second = b;
    return compare_places(&(*first)->loc, &(*second)->loc);
}

static bool belongs(const struct read_part *first, const struct read_part *previous,
                    const struct read_part *next)
{
    return vv_segment_id_equal(&first->loc.segment, &next->loc.segment) &&
           next->loc.offset >= previous->loc.offset + previous->loc.len &&
           next->loc.offset - (previous->loc.offset + previous->loc.len) <= GROUP_GAP_MAX &&
           next->loc.offset + next->loc.len - first->loc.offset <= GROUP_BYTES_MAX;
}

/* Runs the groups, all but the last in fibers of their own. */
static int run_groups(struct group *groups, size_t count)
{
    struct fetch fetch;
    vv_waitq_init(&fetch.done);
    fetch.running = count;
    for (size_t i = 0; i < count; i++) {
        groups[i].fetch = &fetch;
        groups[i].plain = vv_calloc(groups[i].count, sizeof(uint8_t *));
        groups[i].plain_len = vv_calloc(groups[i].count, sizeof(size_t));
        if (groups[i].plain == NULL || groups[i].plain_len == NULL) {
            vv_free(groups[i].plain);
            vv_free(groups[i].plain_len);
            groups[i].err = -ENOMEM;
            fetch.running--;
        } else if (i + 1 == count || vv_fiber_start(group_run, &groups[i], "fetch") < 0) {
            group_run(&groups[i]);
        }
    }
    while (fetch.running > 0)
        vv_waitq_wait(&fetch.done, VV_NEVER);
    for (size_t i = 0; i < count; i++)
        TRY(groups[i].err);
    return 0;
}

/* `missing` holds one part per frame, in order of place. */
static int fetch_groups(struct vv_volume *volume, struct read_part **missing, size_t count)
{
    struct group *groups = vv_calloc(count, sizeof *groups);
    if (groups == NULL)
        return -ENOMEM;
    size_t group_count = 0;
    for (size_t i = 0; i < count;) {
        struct group *group = &groups[group_count++];
        size_t first = i++;
        while (i < count && belongs(missing[first], missing[i - 1], missing[i]))
            i++;
        group->volume = volume;
        group->parts = missing + first;
        group->count = i - first;
    }
    int err = run_groups(groups, group_count);
    vv_free(groups);
    return err;
}

static bool is_same_frame(const struct read_part *a, const struct read_part *b)
{
    return compare_places(&a->loc, &b->loc) == 0;
}

/* Give every frame part its block. */
static int load_blocks(struct vv_read *read)
{
    struct vv_volume *volume = read->volume;
    struct read_part **missing = vv_calloc(read->count + 1, sizeof *missing);
    if (missing == NULL)
        return -ENOMEM;
    size_t count = 0;
    for (size_t i = 0; i < read->count; i++) {
        struct read_part *part = &read->parts[i];
        struct vv_cache_key key;
        if (part->buf != NULL || part->block != NULL)
            continue;
        vv_frame_cache_key(&part->loc, &key);
        part->block = vv_cache_peek(volume->cache, &key);
        if (part->block == NULL)
            missing[count++] = part;
    }
    int err = 0;
    if (count > 0) {
        qsort(missing, count, sizeof *missing, compare_parts);
        struct read_part **unique = vv_calloc(count, sizeof *unique);
        size_t unique_count = 0;
        if (unique == NULL)
            err = -ENOMEM;
        for (size_t i = 0; i < count && err == 0; i++) {
            if (i == 0 || !is_same_frame(missing[i - 1], missing[i]))
                unique[unique_count++] = missing[i];
        }
        if (err == 0)
            err = fetch_groups(volume, unique, unique_count);
        for (size_t i = 1; i < count && err == 0; i++) {
            if (missing[i]->block == NULL) {
                missing[i]->block = missing[i - 1]->block;
                vv_block_ref(missing[i]->block);
            }
        }
        vv_free(unique);
    }
    vv_free(missing);
    return err;
}

ssize_t vv_read_finish(struct vv_volume *volume, struct vv_read *read, void *buf)
{
    if (read == NULL)
        return 0;
    assert(read->volume == volume);
    TRY(load_blocks(read));
    uint8_t *out = buf;
    size_t covered = 0; /* parts never overlap */
    for (size_t i = 0; i < read->count; i++)
        covered += read->parts[i].len;
    if (covered < read->len)
        memset(out, 0, read->len);
    for (size_t i = 0; i < read->count; i++) {
        const struct read_part *part = &read->parts[i];
        const uint8_t *from = part->buf != NULL ? part->buf->data : part->block->data;
        size_t have = part->buf != NULL ? part->buf->capacity : part->block->len;
        if (part->skip + (size_t)part->len > have)
            return -VV_ERR_CORRUPT;
        memcpy(out + part->at, from + part->skip, part->len);
    }
    return (ssize_t)read->len;
}

int vv_frame_fetch(struct vv_volume *volume, const struct vv_frame_loc *loc,
                   const struct vv_origin *origin, struct vv_block **out_block)
{
    struct vv_read read = {.volume = volume};
    struct read_part part = {.loc = *loc, .origin = *origin};
    int err = add_part(&read, &part);
    if (err == 0)
        err = load_blocks(&read);
    if (err == 0) {
        *out_block = read.parts[0].block;
        vv_block_ref(*out_block);
    }
    vv_read_reset(&read);
    vv_free(read.parts);
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
    vv_read_reset(&read);
    vv_free(read.parts);
    return got < 0 ? (int)got : 0;
}
