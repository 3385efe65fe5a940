/* Segments: their records, their directories, and the frames that extent records name.
 *
 * The directories of as many segments as memory holds are loaded, each frame as 64 bits: a bit that
 * it is live, 47 of a keyed hash of all that an extent record says of it, and 16 of its plain
 * length. Then one scan of the extent records looks each named frame up. Segments that did not fit
 * take further rounds. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "cmd/fsck_impl.h"
#include "lsm/lsm.h"
#include "volume/extent.h"

#define NUMBER(x) ((unsigned long long)(x))
#define SEGMENTS_MIN 1024
#define PLAIN_LEN_MASK 0xffffull
#define HASH_MASK (((1ull << 47) - 1) << 16)

struct round {
    struct vv_fsck *fsck;
    uint64_t *frames;
    size_t frame_count, frame_max;
    size_t first, end; /* segments in memory */
    bool is_first;
};

/* ---- records ---- */

static int add_segment(struct vv_fsck *fsck, const struct vv_fsck_segment *segment)
{
    if (fsck->segment_count == fsck->segment_capacity) {
        size_t capacity = fsck->segment_capacity * 2;
        capacity = capacity < SEGMENTS_MIN ? SEGMENTS_MIN : capacity;
        struct vv_fsck_segment *segments = vv_realloc(fsck->segments, capacity * sizeof *segments);
        if (segments == NULL)
            return -ENOMEM;
        fsck->segments = segments;
        fsck->segment_capacity = capacity;
    }
    fsck->segments[fsck->segment_count++] = *segment;
    return 0;
}

static int take_record(struct vv_fsck *fsck, const struct vv_fsck_scan *scan)
{
    struct vv_fsck_report *report = fsck->report;
    struct vv_cursor cursor = vv_cursor_of(scan->value.ptr, scan->value.len);
    struct vv_fsck_segment segment = {.total = vv_cursor_svarint(&cursor)};
    struct vv_segment_id id;
    segment.live = vv_cursor_svarint(&cursor);
    if (vv_cursor_end(&cursor) < 0 || vv_key_segment_parse(scan->key, &id) < 0 ||
        id.volume > fsck->manifest.parent_count) {
        vv_fsck_add(report, VV_FSCK_SEGMENT_FORMAT, "a record with a key of %zu bytes",
                    scan->key.len);
        return 0;
    }
    if (id.epoch > fsck->manifest.epoch || segment.total < 0 || segment.live < 0 ||
        segment.live > segment.total)
        vv_fsck_add(report, VV_FSCK_SEGMENT_FORMAT, "%s segment %llx-%llx: %lld of %lld bytes live",
                    id.kind == VV_SEGMENT_LOG ? "log" : "data", NUMBER(id.epoch),
                    NUMBER(id.counter), (long long)segment.live, (long long)segment.total);
    report->segments++;
    report->segment_bytes += segment.total > 0 ? (uint64_t)segment.total : 0;
    report->live_bytes += segment.live > 0 ? (uint64_t)segment.live : 0;
    segment.kind = id.kind;
    segment.epoch = id.epoch;
    segment.counter = id.counter;
    return id.volume == 0 ? add_segment(fsck, &segment) : 0;
}

int vv_fsck_segment_records(struct vv_fsck *fsck)
{
    struct vv_fsck_scan scan;
    vv_fsck_stage(fsck, "segment records");
    int err = vv_fsck_scan_prefix(fsck, "S", &scan);
    while (err == 0 && !scan.is_end) {
        err = take_record(fsck, &scan);
        if (err == 0)
            err = vv_fsck_scan_next(&scan);
    }
    vv_fsck_scan_close(&scan);
    return err;
}

static int compare_segment(const struct vv_fsck_segment *segment, uint8_t kind, uint64_t epoch,
                           uint64_t counter)
{
    if (segment->kind != kind)
        return segment->kind < kind ? -1 : 1;
    if (segment->epoch != epoch)
        return segment->epoch < epoch ? -1 : 1;
    if (segment->counter != counter)
        return segment->counter < counter ? -1 : 1;
    return 0;
}

struct vv_fsck_segment *vv_fsck_segment_find(const struct vv_fsck *fsck, uint8_t kind,
                                             uint64_t epoch, uint64_t counter)
{
    size_t low = 0;
    size_t high = fsck->segment_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_segment(&fsck->segments[middle], kind, epoch, counter);
        if (order == 0)
            return &fsck->segments[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* ---- directories ---- */

static int read_directory(struct vv_fsck *fsck, const struct vv_fsck_segment *segment,
                          const char *name, struct vv_sealer **out_sealer,
                          struct vv_segment_entry **out_entries, uint32_t *out_count)
{
    struct vv_store *store = fsck->options->store;
    uint8_t head[VV_OBJECT_HEADER_LEN];
    uint8_t tail[VV_SEGMENT_FOOTER_LEN];
    struct vv_object_header header;
    struct vv_segment_footer footer;
    bool is_log = segment->kind == VV_SEGMENT_LOG;
    if (segment->size < sizeof head + sizeof tail)
        return -VV_ERR_FORMAT;
    ssize_t got = vv_store_get(store, name, head, sizeof head, 0);
    TRY(got);
    TRY(vv_object_header_decode(head, (size_t)got, &header));
    if (header.kind != (is_log ? VV_KIND_LOG : VV_KIND_DATA) ||
        header.number != (is_log ? segment->epoch : 0))
        return -VV_ERR_FORMAT;
    got = vv_store_get(store, name, tail, sizeof tail, segment->size - sizeof tail);
    TRY(got);
    TRY(vv_segment_footer_decode(tail, (size_t)got, segment->size, &footer));
    if ((footer.batch_offset != 0) != is_log)
        return -VV_ERR_FORMAT;
    CLEANUP(vv_free_ptr) uint8_t *frame = vv_alloc(footer.directory_len);
    if (frame == NULL)
        return -ENOMEM;
    got = vv_store_get(store, name, frame, footer.directory_len, footer.directory_offset);
    TRY(got);
    TRY(vv_sealer_open(fsck->options->ring, &header, name, out_sealer));
    int err = vv_segment_directory_decode(*out_sealer, &footer, frame, (size_t)got, out_entries);
    *out_count = footer.frame_count;
    if (err < 0) {
        vv_sealer_free(*out_sealer);
        *out_sealer = NULL;
    }
    return err;
}

int vv_fsck_directory(struct vv_fsck *fsck, const struct vv_fsck_segment *segment,
                      struct vv_sealer **out_sealer, struct vv_segment_entry **out_entries,
                      uint32_t *out_count)
{
    struct vv_segment_id id = {segment->epoch, segment->counter, segment->kind, 0};
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(&id, name, sizeof name);
    return read_directory(fsck, segment, name, out_sealer, out_entries, out_count);
}

static uint64_t frame_hash(const struct vv_fsck *fsck, uint32_t index, uint32_t offset,
                           uint32_t len, const struct vv_origin *origin)
{
    uint8_t bytes[28];
    vv_store_u32(bytes, index);
    vv_store_u32(bytes + 4, offset);
    vv_store_u32(bytes + 8, len);
    vv_store_u64(bytes + 12, origin->data_id);
    vv_store_u64(bytes + 20, origin->extent);
    return vv_xxh3(bytes, sizeof bytes, fsck->seeds[0]) & HASH_MASK;
}

static int reserve_frames(struct round *round, size_t count)
{
    size_t wanted = round->frame_count + count;
    if (wanted <= round->frame_max)
        return 0;
    size_t max = round->frame_max * 2 > wanted ? round->frame_max * 2 : wanted;
    uint64_t *frames = vv_realloc(round->frames, max * sizeof *frames);
    if (frames == NULL)
        return -ENOMEM;
    round->frames = frames;
    round->frame_max = max;
    return 0;
}

static int keep_directory(struct round *round, struct vv_fsck_segment *segment,
                          const struct vv_segment_entry *entries, uint32_t count)
{
    struct vv_fsck *fsck = round->fsck;
    int64_t total = 0;
    TRY(reserve_frames(round, count));
    for (uint32_t i = 0; i < count; i++) {
        const struct vv_segment_entry *entry = &entries[i];
        uint64_t plain_len = entry->plain_len <= VV_EXTENT_BYTES ? entry->plain_len : 0;
        round->frames[round->frame_count + i] =
            frame_hash(fsck, i, entry->offset, entry->len, &entry->origin) | plain_len;
        total += entry->len;
    }
    segment->first_frame = round->frame_count;
    segment->frame_count = count;
    round->frame_count += count;
    if (total != segment->total)
        vv_fsck_add(fsck->report, VV_FSCK_SEGMENT_TOTAL,
                    "%s segment %llx-%llx holds %lld bytes of frames, its record says %lld",
                    segment->kind == VV_SEGMENT_LOG ? "log" : "data", NUMBER(segment->epoch),
                    NUMBER(segment->counter), (long long)total, (long long)segment->total);
    return 0;
}

/* 1 = loaded or done with, 0 = memory holds no more. */
static int load_segment(struct round *round, struct vv_fsck_segment *segment, size_t frames_max)
{
    struct vv_fsck *fsck = round->fsck;
    struct vv_sealer *sealer = NULL;
    struct vv_segment_entry *entries = NULL;
    uint32_t count = 0;
    if (!segment->is_present)
        return 1;
    int err = vv_fsck_directory(fsck, segment, &sealer, &entries, &count);
    vv_sealer_free(sealer);
    if (err < 0 && vv_fsck_is_damage(err)) {
        segment->is_unreadable = true;
        vv_fsck_add(fsck->report, VV_FSCK_SEGMENT_DIRECTORY, "%s segment %llx-%llx: %s",
                    segment->kind == VV_SEGMENT_LOG ? "log" : "data", NUMBER(segment->epoch),
                    NUMBER(segment->counter), vv_err_text(err));
        return 1;
    }
    TRY(err);
    if (round->frame_count > 0 && round->frame_count + count > frames_max)
        err = 0;
    else
        err = keep_directory(round, segment, entries, count) < 0 ? -ENOMEM : 1;
    vv_free(entries);
    vv_fsck_step(fsck, 64);
    return err;
}

static int load_round(struct round *round)
{
    struct vv_fsck *fsck = round->fsck;
    size_t frames_max = (size_t)(fsck->memory_bytes / 4 / sizeof(uint64_t));
    round->first = round->end;
    round->frame_count = 0;
    while (round->end < fsck->segment_count) {
        int loaded = load_segment(round, &fsck->segments[round->end], frames_max);
        TRY(loaded);
        if (loaded == 0)
            break;
        round->end++;
    }
    return 0;
}

/* ---- extents ---- */

static void check_frame(struct round *round, const struct vv_origin *origin,
                        const struct vv_piece *piece, struct vv_fsck_segment *segment)
{
    struct vv_fsck *fsck = round->fsck;
    const struct vv_frame_loc *loc = &piece->loc;
    uint64_t *frame = NULL;
    if (loc->index < segment->frame_count)
        frame = &round->frames[segment->first_frame + loc->index];
    if (frame != NULL &&
        ((*frame ^ frame_hash(fsck, loc->index, loc->offset, loc->len, origin)) & HASH_MASK) == 0 &&
        (*frame & PLAIN_LEN_MASK) >= piece->to - piece->from) {
        *frame |= VV_FSCK_FRAME_LIVE;
        return;
    }
    vv_fsck_add(fsck->report, VV_FSCK_EXTENT_FRAME,
                "data id %llu, extent %llu: %s segment %llx-%llx has no such frame %u at %u",
                NUMBER(origin->data_id), NUMBER(origin->extent),
                loc->segment.kind == VV_SEGMENT_LOG ? "log" : "data", NUMBER(loc->segment.epoch),
                NUMBER(loc->segment.counter), loc->index, loc->offset);
}

static void take_piece(struct round *round, const struct vv_origin *origin,
                       const struct vv_piece *piece)
{
    struct vv_fsck *fsck = round->fsck;
    const struct vv_segment_id *id = &piece->loc.segment;
    if (piece->is_zero)
        return;
    struct vv_fsck_segment *segment =
        id->volume == 0 ? vv_fsck_segment_find(fsck, id->kind, id->epoch, id->counter) : NULL;
    if (segment == NULL) {
        bool is_parents = id->volume != 0 && id->volume <= fsck->manifest.parent_count;
        if (round->is_first && !is_parents)
            vv_fsck_add(fsck->report, VV_FSCK_EXTENT_SEGMENT,
                        "data id %llu, extent %llu: %s segment %llx-%llx has no record",
                        NUMBER(origin->data_id), NUMBER(origin->extent),
                        id->kind == VV_SEGMENT_LOG ? "log" : "data", NUMBER(id->epoch),
                        NUMBER(id->counter));
        return;
    }
    if (round->is_first)
        segment->counted_live += piece->loc.len;
    size_t at = (size_t)(segment - fsck->segments);
    if (at >= round->first && at < round->end && segment->is_present && !segment->is_unreadable)
        check_frame(round, origin, piece, segment);
}

static int scan_extents(struct round *round)
{
    struct vv_fsck_scan scan;
    int err = vv_fsck_scan_prefix(round->fsck, "E", &scan);
    while (err == 0 && !scan.is_end) {
        struct vv_extent_record record;
        if (scan.key.len == 17 && vv_extent_decode(scan.value, &record) == 0) {
            struct vv_origin origin = {vv_load_be64(scan.key.ptr + 1),
                                       vv_load_be64(scan.key.ptr + 9)};
            for (unsigned i = 0; i < record.count; i++)
                take_piece(round, &origin, &record.pieces[i]);
        }
        err = vv_fsck_scan_next(&scan);
    }
    vv_fsck_scan_close(&scan);
    return err;
}

/* ---- the whole ---- */

static void check_live(struct vv_fsck *fsck)
{
    for (size_t i = 0; i < fsck->segment_count; i++) {
        const struct vv_fsck_segment *segment = &fsck->segments[i];
        if (segment->live != segment->counted_live)
            vv_fsck_add(fsck->report, VV_FSCK_SEGMENT_LIVE,
                        "%s segment %llx-%llx: %lld bytes are in use, its record says %lld",
                        segment->kind == VV_SEGMENT_LOG ? "log" : "data", NUMBER(segment->epoch),
                        NUMBER(segment->counter), (long long)segment->counted_live,
                        (long long)segment->live);
    }
}

static int open_frames(struct round *round)
{
    struct vv_fsck *fsck = round->fsck;
    vv_fsck_stage(fsck, "file data");
    for (size_t i = round->first; i < round->end; i++) {
        const struct vv_fsck_segment *segment = &fsck->segments[i];
        if (segment->frame_count > 0)
            TRY(vv_fsck_frames(fsck, segment, round->frames + segment->first_frame));
    }
    return 0;
}

static int run_rounds(struct round *round)
{
    struct vv_fsck *fsck = round->fsck;
    do {
        vv_fsck_stage(fsck, "segments");
        TRY(load_round(round));
        TRY(scan_extents(round));
        if (round->is_first)
            check_live(fsck);
        if (fsck->options->is_checking_data)
            TRY(open_frames(round));
        for (size_t i = round->first; i < round->end; i++)
            fsck->segments[i].frame_count = 0;
        round->is_first = false;
    } while (round->end < fsck->segment_count);
    return 0;
}

int vv_fsck_segments(struct vv_fsck *fsck)
{
    struct round round = {.fsck = fsck, .is_first = true};
    int err = run_rounds(&round);
    vv_free(round.frames);
    return err;
}
