/* Reading and authenticating the live frames of a segment, a stretch of neighbours at a time. */
#include <errno.h>

#include "base/alloc.h"
#include "cmd/fsck_impl.h"
#include "rt/rt.h"

#define STRETCH_BYTES_MAX (1u << 20)
#define GAP_BYTES_MAX (64u << 10) /* dead bytes read to keep a stretch together */

struct stretch {
    struct vv_fsck *fsck;
    const struct vv_fsck_segment *segment;
    const struct vv_sealer *sealer;
    const struct vv_segment_entry *entries;
    const uint64_t *frames;
    uint32_t first, end;
    uint8_t *sealed;
    uint8_t *plain; /* of a frame */
    uint32_t bad;   /* the frame that err is about */
    int err;
};

static bool is_live(const struct stretch *stretch, uint32_t index)
{
    return stretch->frames[index] & VV_FSCK_FRAME_LIVE;
}

/* From `bad` on; stops behind the first that does not open. Any thread. */
static void open_stretch(void *arg)
{
    struct stretch *stretch = arg;
    uint32_t start = stretch->entries[stretch->first].offset;
    stretch->err = 0;
    for (; stretch->bad < stretch->end; stretch->bad++) {
        const struct vv_segment_entry *entry = &stretch->entries[stretch->bad];
        if (!is_live(stretch, stretch->bad))
            continue;
        ssize_t len = vv_frame_open(stretch->sealer, stretch->bad, &entry->origin,
                                    stretch->sealed + (entry->offset - start), entry->len,
                                    stretch->plain, VV_EXTENT_BYTES);
        if (len >= 0 && (uint32_t)len != entry->plain_len)
            len = -VV_ERR_CORRUPT;
        if (len < 0) {
            stretch->err = (int)len;
            return;
        }
    }
}

static void note(struct stretch *stretch, uint32_t index, int err)
{
    const struct vv_segment_entry *entry = &stretch->entries[index];
    const struct vv_fsck_segment *segment = stretch->segment;
    vv_fsck_add(stretch->fsck->report, VV_FSCK_FRAME_DAMAGED,
                "data id %llu, extent %llu: frame %u at %u of %s segment %llx-%llx: %s",
                (unsigned long long)entry->origin.data_id, (unsigned long long)entry->origin.extent,
                index, entry->offset, segment->kind == VV_SEGMENT_LOG ? "log" : "data",
                (unsigned long long)segment->epoch, (unsigned long long)segment->counter,
                vv_err_text(err));
}

static int read_stretch(struct stretch *stretch)
{
    struct vv_segment_id id = {stretch->segment->epoch, stretch->segment->counter,
                               stretch->segment->kind, 0};
    char name[VV_STORE_NAME_MAX + 1];
    const struct vv_segment_entry *first = &stretch->entries[stretch->first];
    const struct vv_segment_entry *last = &stretch->entries[stretch->end - 1];
    size_t len = last->offset + last->len - first->offset;
    vv_segment_name(&id, name, sizeof name);
    ssize_t got =
        vv_store_get(stretch->fsck->options->store, name, stretch->sealed, len, first->offset);
    TRY(got);
    return (size_t)got == len ? 0 : -VV_ERR_FORMAT;
}

static int check_stretch(struct stretch *stretch)
{
    struct vv_fsck_report *report = stretch->fsck->report;
    TRY(read_stretch(stretch));
    stretch->bad = stretch->first;
    while (stretch->bad < stretch->end) {
        vv_rt_offload(open_stretch, stretch);
        if (stretch->err == -ENOMEM)
            return -ENOMEM;
        if (stretch->err < 0)
            note(stretch, stretch->bad++, stretch->err);
    }
    for (uint32_t i = stretch->first; i < stretch->end; i++) {
        report->frames_checked += is_live(stretch, i);
        report->bytes_checked += is_live(stretch, i) ? stretch->entries[i].len : 0;
        vv_fsck_step(stretch->fsck, 1);
    }
    return 0;
}

/* The next stretch from stretch->end on; false when no live frame is left. */
static bool next_stretch(struct stretch *stretch, uint32_t count)
{
    uint32_t first = stretch->end;
    while (first < count && !is_live(stretch, first))
        first++;
    if (first == count)
        return false;
    uint32_t end = first + 1;
    for (uint32_t i = end; i < count; i++) {
        const struct vv_segment_entry *entry = &stretch->entries[i];
        const struct vv_segment_entry *last = &stretch->entries[end - 1];
        if (entry->offset - (last->offset + last->len) > GAP_BYTES_MAX ||
            entry->offset + entry->len - stretch->entries[first].offset > STRETCH_BYTES_MAX)
            break;
        if (is_live(stretch, i))
            end = i + 1;
    }
    stretch->first = first;
    stretch->end = end;
    return true;
}

static int check_frames(struct stretch *stretch, uint32_t count)
{
    stretch->sealed = vv_alloc(STRETCH_BYTES_MAX);
    stretch->plain = vv_alloc(VV_EXTENT_BYTES);
    int err = stretch->sealed == NULL || stretch->plain == NULL ? -ENOMEM : 0;
    while (err == 0 && next_stretch(stretch, count))
        err = check_stretch(stretch);
    vv_free(stretch->sealed);
    vv_free(stretch->plain);
    return err;
}

int vv_fsck_frames(struct vv_fsck *fsck, const struct vv_fsck_segment *segment,
                   const uint64_t *frames)
{
    struct stretch stretch = {.fsck = fsck, .segment = segment, .frames = frames};
    struct vv_sealer *sealer = NULL;
    struct vv_segment_entry *entries = NULL;
    uint32_t count = 0;
    int err = vv_fsck_directory(fsck, segment, &sealer, &entries, &count);
    stretch.sealer = sealer;
    stretch.entries = entries;
    if (err == 0 && count == segment->frame_count)
        err = check_frames(&stretch, count);
    vv_sealer_free(sealer);
    vv_free(entries);
    return err;
}
