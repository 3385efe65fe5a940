/* Private to volume: repacking. Frames that are still in use are taken out of segments that are mostly dead, or tiny,
 * and put together into new data segments, so that the old ones lose their last live byte and are deleted as any
 * dead segment is (space.c, PROTOCOL 14).
 *
 * A pass (repack.c; a fiber of its own, one at a time) scans the 'S' table, picks segments (repack_pick.c), reads their directories, asks the
 * extent records which frames are in use, reads those, and seals them again, sorted by origin, in batches. A batch is
 * one new data segment, which is put and confirmed, and its moves: for each frame, from where to where. They are handed
 * to the volume, and the next unit that is finalised takes them along (moves.c). The pass goes on when that unit is
 * confirmed; at its end it has the tables flushed, so that what it emptied can be deleted.
 *
 * Invariants:
 * - A move is judged at finalise, on the tree as it is after the unit before (PROTOCOL 10): it takes effect only if no layer lies on
 *   the extent, be it dirty, frozen or not yet confirmed, no tombstone or drop hides the record, the unit itself does not
 *   change it, and the record still names the frame's old place. Else the moved frame is dead on arrival: the new segment's total has it,
 *   its live bytes do not.
 * - A record that is rewritten keeps its commit number and everything else but the place: what a move changes cannot be seen.
 *   It is written with the unit, and with it the debit of the old segment and the credit of the new one: all or nothing.
 * - Journal records never hold moves: they are written before units are finalised. Replaying a journal finalises its commits anew,
 *   without moves; a segment of moves that were lost with a crash has no 'S' record, and the next opening's sweep takes it (16).
 * - Moves cannot make a commit fail: when their records cannot be read, or memory is short, all of them are refused.
 * - Nothing is deleted here. The old segment's debit makes it a candidate of space.c; the new one, if all its moves were refused, too.
 * - Old segments are held (segref) while they are read, the new one until its moves are settled. Nothing is held back while the new one
 *   is being put: the store may be full until users have deleted what the old ones hold.
 *
 * When: after dead segments have been looked for, which follows a manifest that was confirmed (flush.c), and only if
 * something has changed since a pass found nothing worth doing: an idle volume makes no request and has no timer. Also when a writer
 * finds a bounded store full and nothing else gives space back. Not while the store fails or has no room for it, writers wait for memory (unless
 * there is twice the waste that makes a pass due), the tables are behind, or the volume closes: a pass then ends early, and the next manifest begins
 * another.
 *
 * What for, and what it costs (struct vv_repack_options has the figures): sparse segments, live bytes at most 60% of all, are picked,
 * sparsest first, once the bytes that are dead in the whole volume are more than 64 MiB (or a 32nd of a bounded store) and more than a quarter of the
 * live ones, until half of that would be left. So at most 1.5 bytes are written for each dead byte that comes back, and since a byte dies once, at most 1.5
 * for each byte that was ever written; and held bytes come to rest below max(live + 64 MiB, 5/3 live). Tiny segments (less than a 16th of a
 * data segment), log objects of small commits most of all, are picked once there are 1,024 of them: a byte is
 * moved for that reason about once. Log objects count when they are behind the replay point.
 * Every pass frees bytes or halves a number of objects, or it counts as vain; so passes come to an end.
 *
 * Bounds: VV_PICKS_MAX segments a pass; a batch is one data segment's bytes at most (while others sync, what vv_upload_due_bytes
 * says; on a nearly full store, a part of its room) and VV_MOVES_MAX moves, less with little memory. What it holds is charged to the cache's budget. */
#ifndef VV_VOLUME_REPACK_IMPL_H
#define VV_VOLUME_REPACK_IMPL_H

#include "volume/unit_impl.h"

#define VV_PICKS_MAX 512 /* segments of a pass */
#define VV_MOVES_MAX 2048
#define VV_MOVE_MEMORY (32u << 10) /* of the memory budget, for each move of a batch: a block of the tables, twice */

/* A frame's way from one segment to another. */
struct vv_move {
    struct vv_origin origin;
    struct vv_frame_loc from, to;
    uint32_t source;  /* which of the pass's picks it is from */
    const uint8_t *bytes; /* as it was sealed; NULL: it cannot be read, or opened. Only until it is sealed again */
    bool is_accepted; /* by the unit's judgement */
};

/* The moves of one new segment, by origin. The pass owns it. */
struct vv_moves {
    struct vv_segment_id id;
    uint64_t bytes; /* of all frames of the new segment */
    struct vv_move *moves;
    size_t count, capacity;
    uint64_t commit;    /* of the unit that took them; 0 = none yet */
    bool is_taken;      /* a unit has them */
    bool is_confirmed;  /* ... and is in the bucket */
    bool is_settled;    /* ... or has failed: the unit is done with them */
    struct vv_writer results; /* records of extents with accepted moves, in order: strings */
    size_t result_count;
    bool is_written;    /* already: only of a planted bug */
};

/* A segment whose frames are moved. */
struct vv_pick {
    struct vv_segment_id id;
    uint64_t total, live;
    bool is_held;  /* as a segref: while it is read */
    bool is_whole; /* all of its directory has been looked at */
    uint64_t left; /* frames in use that were not moved (yet) */
    struct vv_block *block;
    const struct vv_sealer *sealer;
};

/* ---- repack_pick.c ---- */

/* Once, before anything else. `options` as of vv_volume_options. */
void vv_repack_init(struct vv_volume *volume, const struct vv_repack_options *options);
/* News from finalising and opening that may make a pass worth it: a segment of so many bytes, and bytes that died (0 is
 * fine). None of its own doing. */
void vv_repack_note_segment(struct vv_volume *volume, int64_t total);
void vv_repack_note_dead(struct vv_volume *volume, uint64_t bytes);

/* Has enough changed that a pass may be worth it? */
bool vv_repack_is_due(const struct vv_volume *volume);
/* The volume ends: nothing is begun, or handed over, any more. */
bool vv_repack_is_ending(const struct vv_volume *volume);
/* May a pass begin, and (if the store, asked again, has room) go on? */
bool vv_repack_is_calm(const struct vv_volume *volume);
bool vv_repack_is_going(const struct vv_volume *volume);
/* Bytes that the next batch may have. */
uint64_t vv_repack_batch_max(const struct vv_volume *volume);
/* Pick up to VV_PICKS_MAX segments. Suspends. -ENOMEM, -VV_ERR_STOPPED (it may not go on), errors of reading tables. */
MUST_CHECK int vv_repack_pick(struct vv_volume *volume, struct vv_pick *out_picks, size_t *out_count);

/* ---- repack.c ---- */

/* Begin a pass in a fiber of its own, if it is worth it (see above). Does not suspend. */
void vv_repack_start(struct vv_volume *volume);

/* ---- moves.c: in units; with the turn ---- */

/* Take what waits for a unit, if anything does. */
void vv_moves_take(struct unit *unit);
/* Bring their records into memory. Refuses all of them when that fails. Suspends. */
void vv_moves_fetch(struct unit *unit);
/* Judge each, and add to the unit's sums. *out_records, *out_bytes: what writing takes. -VV_ERR_MISS (fetch again), -ENOMEM: as of sums. */
MUST_CHECK int vv_moves_plan(struct unit *unit, size_t *out_records, size_t *out_bytes);
/* Write the records of those accepted; vv_moves_plan came just before. */
void vv_moves_write(struct unit *unit);
/* The unit ends, confirmed or not. */
void vv_moves_settle(struct unit *unit);
/* Hand them over to the next unit, and have one made. */
void vv_moves_hand_over(struct vv_volume *volume, struct vv_moves *moves);
/* No unit has taken them: take them back. False: one has. */
bool vv_moves_take_back(struct vv_volume *volume, struct vv_moves *moves);

#endif
