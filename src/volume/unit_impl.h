/* Private to volume: a unit on its way to the bucket (see volume_impl.h). */
#ifndef VV_VOLUME_UNIT_IMPL_H
#define VV_VOLUME_UNIT_IMPL_H

#include "volume/volume_impl.h"

/* An extent that the unit changes. */
struct unit_extent {
    uint64_t data_id, index, inode;
    /* What its commits lay over the record: sealed. At most VV_STRETCHES_MAX before folding. */
    struct vv_piece *pieces;
    unsigned piece_count;
    struct vv_extent_state state; /* what they make of its blocks */
    bool is_folded; /* pieces replace the record */
    bool is_absent; /* result: no record */
    struct vv_extent_record result;
    int64_t allocated; /* result: change of the allocated bytes */
};

/* A frame that the unit seals for a layer that is all of it: its bytes go to the cache when confirmed. */
struct unit_frame {
    struct vv_layer *layer;
    struct vv_frame_loc loc;
};

struct segment_sum {
    struct vv_segment_id id;
    int64_t total, live;
};

/* Extent records that a tombstone or drop frees with this unit. */
struct reclaimed {
    uint64_t data_id, index, inode;
    struct vv_extent_record record;
};

struct unit {
    struct vv_volume *volume;
    uint64_t first, last; /* commits */
    struct vv_commit *first_commit, *last_commit; /* the same: they stay until the unit is confirmed */
    uint64_t ordinal;
    struct vv_segment_id id;
    struct vv_segment_builder *builder;
    uint8_t attempt_id[16], previous_attempt_id[16];
    struct vv_counters counters;
    bool is_boundary;

    struct unit_extent *extents; /* by data id and index */
    size_t extent_count;
    struct unit_frame *frames;
    size_t frame_count, frame_capacity;

    struct reclaimed *reclaimed;
    size_t reclaimed_count;
    struct vv_list done_ranges; /* finished by this unit: struct vv_range by in_queue */
    struct vv_list done_drops;  /* struct vv_data by in_queue */

    struct segment_sum *sums;
    size_t sum_count, sum_capacity;
    struct vv_writer batch;
    size_t put_bytes; /* of the log object */
    struct vv_lsm_pins pins;

    struct vv_moves *moves;  /* of repacking (repack_impl.h), or NULL */
    uint64_t moved_bytes;    /* result: what they debit and credit */
    bool is_refusing_moves;  /* their records cannot be read */
    bool is_confirmed;
};

/* The commit behind `commit` in the unit, NULL after the last. */
static inline struct vv_commit *vv_unit_next(const struct unit *unit, const struct vv_commit *commit)
{
    if (commit == unit->last_commit)
        return NULL;
    return vv_list_entry(commit->node.next, struct vv_commit, node);
}

/* compose.c: collect and seal what the commits hold. Suspends. */
MUST_CHECK int vv_unit_compose(struct unit *unit);
/* finalise.c: with the turn: prefetch, fold, reclaim, write records, encode the batch. Suspends, but for its last step. */
MUST_CHECK int vv_unit_finalise(struct unit *unit);
/* ... its parts that moves.c has a share in; with the turn. Add to what is written of a segment. -ENOMEM. */
MUST_CHECK int vv_unit_sum(struct unit *unit, const struct vv_segment_id *id, int64_t total,
                           int64_t live);
/* An extent record as it stands: 1, 0 = none, -VV_ERR_MISS, or an error. */
MUST_CHECK int vv_unit_record(struct vv_volume *volume, uint64_t data_id, uint64_t index,
                              struct vv_extent_record *out);
/* Does the unit itself change it? */
bool vv_unit_has_extent(const struct unit *unit, uint64_t data_id, uint64_t index);
/* space.c: choose what to reclaim and read its records. Suspends. */
MUST_CHECK int vv_unit_gather_reclaims(struct unit *unit);
void vv_unit_reclaims_confirmed(struct unit *unit);
void vv_unit_reclaims_undo(struct unit *unit);

#endif
