/* Private to fsck: one check under way, and what its stages share. */
#ifndef VV_CMD_FSCK_IMPL_H
#define VV_CMD_FSCK_IMPL_H

#include "cmd/fsck.h"
#include "log/manifest.h"
#include "segment/segment.h"
#include "volume/volume.h"

/* A segment that a record in table 'S' tells of. */
struct vv_fsck_segment {
    uint64_t epoch, counter;
    int64_t total, live;  /* what the record says */
    int64_t counted_live; /* what the extent records add up to */
    uint64_t size;        /* of the object */
    uint64_t first_frame; /* in vv_fsck.frames, when frame_count > 0 */
    uint32_t frame_count; /* in memory now */
    uint8_t kind;
    bool is_present;
    bool is_unreadable;
};

struct vv_fsck {
    struct vv_volume *volume;
    const struct vv_fsck_options *options;
    struct vv_fsck_report *report;
    uint64_t memory_bytes;
    struct vv_manifest manifest; /* the newest; number 0 when it could not be read */
    struct vv_counters counters;
    uint64_t last_commit;
    uint64_t seeds[2]; /* of the hashes that sets are compared by */
    const char *stage;
    uint64_t done;                    /* in this stage */
    struct vv_fsck_segment *segments; /* by kind, epoch, counter */
    size_t segment_count, segment_capacity;
};

/* Sums of hashes: two sets are taken to be equal when their sums are. The hashes are keyed with
 * random numbers. */
struct vv_fsck_sum {
    uint64_t a, b;
};
void vv_fsck_sum_add(const struct vv_fsck *fsck, struct vv_fsck_sum *sum, const void *bytes,
                     size_t len);

/* Does this error mean damage (rather than a failure to look)? */
bool vv_fsck_is_damage(int err);
/* Note what could not be checked because of damage or memory. */
void vv_fsck_incomplete(struct vv_fsck *fsck, const char *what);
void vv_fsck_stage(struct vv_fsck *fsck, const char *stage);
/* `count` more of the stage were looked at: progress, and other fibers get a turn. May suspend. */
void vv_fsck_step(struct vv_fsck *fsck, uint64_t count);

/* ---- scans ---- */

/* A table's records in order. After opening and each advance the cursor stands on a record, or
 * `is_end`. */
struct vv_fsck_scan {
    struct vv_fsck *fsck;
    struct vv_lsm_iter *iter;
    struct vv_bytes key, value; /* until the next advance */
    bool is_end;
};
/* [lower, upper); suspend. Damage is reported here, and returned. */
MUST_CHECK int vv_fsck_scan_open(struct vv_fsck *fsck, struct vv_bytes lower, struct vv_bytes upper,
                                 struct vv_fsck_scan *scan);
/* As above for all keys that begin with `prefix`, a text of one or two characters. */
MUST_CHECK int vv_fsck_scan_prefix(struct vv_fsck *fsck, const char *prefix,
                                   struct vv_fsck_scan *scan);
MUST_CHECK int vv_fsck_scan_next(struct vv_fsck_scan *scan);
/* Safe on a zeroed one. */
void vv_fsck_scan_close(struct vv_fsck_scan *scan);
/* A point lookup into value[capacity]: the length, -ENOENT, or an error. Suspends. */
MUST_CHECK int vv_fsck_get(struct vv_fsck *fsck, struct vv_bytes key, uint8_t *value,
                           size_t capacity);

/* ---- stages; each suspends ---- */

MUST_CHECK int vv_fsck_log(struct vv_fsck *fsck);
MUST_CHECK int vv_fsck_objects(struct vv_fsck *fsck);
MUST_CHECK int vv_fsck_tables(struct vv_fsck *fsck);
MUST_CHECK int vv_fsck_tree(struct vv_fsck *fsck);
MUST_CHECK int vv_fsck_data(struct vv_fsck *fsck);
/* Load the segment records: before objects and segments. */
MUST_CHECK int vv_fsck_segment_records(struct vv_fsck *fsck);
MUST_CHECK int vv_fsck_segments(struct vv_fsck *fsck);
MUST_CHECK int vv_fsck_journal(struct vv_fsck *fsck);
/* NULL when there is no record of it. */
struct vv_fsck_segment *vv_fsck_segment_find(const struct vv_fsck *fsck, uint8_t kind,
                                             uint64_t epoch, uint64_t counter);
/* Open the frames of the segment whose bit in `is_live` is set (fsck_frames.c). */
MUST_CHECK int vv_fsck_frames(struct vv_fsck *fsck, const struct vv_fsck_segment *segment,
                              const uint64_t *frames);
/* A segment's directory; the caller frees *out_entries. Errors as vv_segment_directory_decode. */
MUST_CHECK int vv_fsck_directory(struct vv_fsck *fsck, const struct vv_fsck_segment *segment,
                                 struct vv_sealer **out_sealer,
                                 struct vv_segment_entry **out_entries, uint32_t *out_count);
/* Bit of a frame in memory: an extent record names it. */
#define VV_FSCK_FRAME_LIVE (1ull << 63)

#endif
