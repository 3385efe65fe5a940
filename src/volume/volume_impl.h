/* Private to volume: its state, and the functions its files share.
 *
 * File bytes in memory: a `data` (one data id) has `extents`, an extent has `layers`, newest first. A layer is one
 * contiguous range of bytes (or zeros) written in one commit. A layer is dropped when its commit is confirmed
 * in the bucket; until then it lies over what the extent record says, also when the record
 * already names its frame (finalised, not confirmed). Layers of a commit never change after it is frozen.
 *
 * Commits: one is open; freezing closes it and opens the next. A `unit` is a run of frozen commits that goes
 * to the bucket as one log object. Units are sealed in parallel, finalised in order (one at a time holds the turn),
 * put in parallel, and confirmed in order. Extent records, segment and allocation sums are written at
 * finalise and nowhere else (PROTOCOL 10).
 *
 * Hidden: a range tombstone of commit c hides extent records and layers of commits < c in its range. */
#ifndef VV_VOLUME_VOLUME_IMPL_H
#define VV_VOLUME_VOLUME_IMPL_H

#include <errno.h>

#include "base/alloc.h"
#include "base/list.h"
#include "base/map.h"
#include "log/journal.h"
#include "log/log.h"
#include "rt/rt.h"
#include "volume/extent.h"
#include "volume/payload_impl.h"
#include "volume/volume.h"

#define VV_UNITS_MAX 4            /* units between seal and confirmation, ... */
#define VV_INLINED_UNITS_MAX 16   /* ... and while they take bulk data along, which their bytes bound, too */
#define VV_UPLOADS_MAX 16         /* data segments on their way, which their bytes bound, too */
#define VV_UPLOAD_BUFFERS_MAX 4
#define VV_FRESH_MAX 1024         /* extents of memory that lie ready; then none is added */
#define VV_TAIL_OBJECTS_MAX 64    /* log objects behind the replay point before a flush is due */
#define VV_TAIL_BYTES_MAX (64ull << 20)
#define VV_LAYERS_MAX 24          /* layers of one extent before a write folds them */
#define VV_RECLAIM_EXTENTS 1024   /* extent records freed by one unit */
#define VV_UNIT_BYTES_MAX (16ull << 20) /* dirty bytes merged into one unit */
#define VV_JOURNAL_UNIT_BYTES (4ull << 20) /* journaled bytes at which an upload is due */
#define VV_SYNC_SEGMENT_BYTES (1ull << 20) /* dirty bytes at a sync worth a data segment of their own */
#define VV_INLINE_BYTES_MAX (16ull << 20)  /* of a commit that takes its data along: see vv_upload_is_inlining */
#define VV_CHANGE_BYTES_DUE (8ull << 20) /* records of a commit at which it is frozen */
/* ... and, if that has to wait, at which operations wait, too: a record of the journal and the batch of a log object must
 * hold them (VV_JOURNAL_RECORD_MAX, VV_BATCH_MAX). Commits of more than that together are no unit. */
#define VV_CHANGE_BYTES_MAX (24ull << 20)
#define VV_CHANGE_LAYER_BYTES 640 /* a layer's place in the journal, or its extent's record with all pieces, at most */
#define VV_DEAD_BYTES_FLUSH (32ull << 20) /* dead bytes that are worth a flush, to delete them */
#define VV_PIECE_BYTES 8192u /* frames up to this are likely pieces laid over an extent */
#define VV_EXTENTS_NO_END UINT64_MAX

enum vv_layer_state {
    VV_LAYER_PLAIN,  /* bytes (or zeros) in memory */
    VV_LAYER_MOVING, /* bytes in memory, on their way into a data segment */
    VV_LAYER_SEALED  /* in a confirmed data segment at loc; bytes perhaps gone */
};

struct vv_layer {
    struct vv_list in_extent;
    struct vv_list in_commit;
    struct vv_extent *extent; /* NULL once detached */
    struct vv_commit *commit_ref;
    uint64_t commit;
    uint32_t refs;
    uint32_t from, to;   /* bytes in the extent */
    uint32_t buf_at;     /* extent byte at buf->data[0] */
    bool is_zero;
    bool is_settled; /* finalised: no longer counted in the data's dirty bytes */
    uint8_t state;
    uint8_t aside; /* blocks of its bytes that lie in space that was set aside when they were written */
    struct vv_buf *buf;
    struct vv_frame_loc loc; /* SEALED: the frame's plain bytes begin at `from` */
};

void vv_layer_unref(struct vv_layer *layer);

struct vv_extent {
    struct vv_map_node node;
    struct vv_list in_data;
    struct vv_data *data;
    uint64_t index;
    struct vv_list layers; /* newest first */
    uint32_t layer_count;
    uint32_t dirty_bytes;  /* of its data's */
    uint32_t holds;        /* staged layers that are to be attached to it */
    uint64_t stamp;        /* of its last change */
};

#define VV_RANGE_LEVELS 22 /* of range lengths, in powers of 8 extents */

/* Where a range can be found (ranges.c). */
struct vv_range_place {
    struct vv_map_node node; /* in volume->range_places */
    struct vv_range *range;
};

/* A range tombstone, in memory as long as its record is in the tables. */
struct vv_range {
    struct vv_list in_data;
    struct vv_list in_queue; /* volume->reclaims */
    struct vv_data *data;
    uint64_t from, to; /* extent indexes */
    uint64_t commit;
    uint64_t next;     /* where reclaiming goes on */
    unsigned level;
    bool is_placed_twice;
    struct vv_range_place places[2];
};

struct vv_data {
    struct vv_map_node node;
    uint64_t id;
    uint64_t inode;          /* whom allocated bytes are counted for */
    struct vv_list extents;
    size_t extent_count;
    struct vv_list ranges;
    struct vv_map *range_places; /* the volume's */
    uint32_t range_levels[VV_RANGE_LEVELS]; /* ranges of each level */
    struct vv_list in_queue; /* volume->drops, when dropped */
    uint64_t drop_commit;    /* 0 = not dropped */
    uint64_t drop_next;      /* where reclaiming goes on */
    uint64_t dirty_bytes;    /* in blocks in which layers that are not finalised have bytes; not those set aside */
    uint64_t stamp;          /* of the last tombstone or drop */
    uint32_t holds;          /* fibers that need it to stay */
};

struct vv_touch {
    struct vv_map_node node;
    struct vv_list in_commit;
    uint64_t inode;
    uint64_t commit;
};

struct vv_commit {
    struct vv_list node; /* volume->commits, oldest first; the open one is last */
    uint64_t number;
    struct vv_list layers;
    struct vv_list *moved_to; /* in layers: up to here nothing is left that an upload could take */
    struct vv_list touches;
    struct vv_counters counters; /* after its last operation */
    uint64_t plain_bytes;        /* of PLAIN layers */
    uint64_t change_bytes;       /* of its records, at most */
    uint64_t gathered_bytes;     /* the same when it was frozen */
    uint64_t opened_ns;          /* when the first change came; 0 = none */
    bool is_frozen;
    bool is_boundary;            /* memtables rotate behind it: a unit ends here */
    bool is_journaled;
    bool is_inlined;             /* its bulk data goes into its log object */
    bool is_in_unit;
    uint32_t moving_count;       /* MOVING layers, attached or not */
};

/* A segment that something in this process counts on: it must not be deleted. */
struct vv_segref {
    struct vv_map_node node;
    struct vv_segment_id id;
    uint32_t holds;
    uint64_t bytes; /* of its frames; 0 = not known here */
};

/* A segment whose live bytes may have reached zero. */
struct vv_candidate {
    struct vv_map_node node;
    struct vv_segment_id id;
    uint64_t commit; /* the last commit that debited it */
};

/* A data segment that is confirmed but has no 'S' record yet. */
struct vv_new_segment {
    struct vv_list node;
    struct vv_segment_id id;
    uint64_t bytes;
};

/* Units that are confirmed and not yet behind the replay point. */
struct vv_tail_entry {
    struct vv_list node;
    uint64_t last_commit;
    uint64_t next_seq;
    uint64_t bytes;
};

/* Repacking (repack_impl.h). */
struct vv_moves;
struct vv_repack {
    struct vv_repack_options options; /* with the defaults in place */
    bool is_running;
    struct vv_moves *waiting; /* for a unit that takes them along */
    struct vv_waitq work;     /* a pass waits for its unit, or its flush */
    uint64_t dead_news;       /* bytes that died since a pass looked; UINT64_MAX = it is worth looking in any case */
    uint64_t tiny_news;       /* tiny segments that came since; the same */
};

/* What the last syncs came after (early.c). */
struct vv_early {
    unsigned ops;     /* operations since the last sync */
    unsigned period;  /* how many there were before it; 0: no rule */
    unsigned streak;  /* syncs in turn, the last ones, that came after so many */
    unsigned needed;  /* so many it takes before a commit begins early, ... */
    unsigned needed_min; /* ... and at least */
    unsigned waiting; /* syncs that wait */
    uint64_t newest;  /* commit of the last operation */
    bool is_begun;    /* its commit began, and the sync has not come */
};

struct vv_volume {
    struct vv_store *store;
    const struct vv_keyring *ring;
    struct vv_log *log;
    struct vv_lsm *lsm;
    struct vv_cache *cache;
    struct vv_journal *journal;
    struct vv_seal_settings settings;
    enum vv_durability durability;
    bool is_read_only;
    bool is_syncing_replay;

    struct vv_budget budget, dirty_budget, mem_budget, cache_budget;
    uint64_t memtable_limit; /* newest memtable bytes at which a freeze rotates */
    uint64_t segment_bytes;
    uint64_t commit_delay_ns, sync_timeout_ns;
    uint64_t epoch;
    uint64_t replayed_commit;  /* the last that opening found, in logs and journal */
    uint64_t segment_counter; /* next data segment */
    uint64_t keys_number;
    struct vv_counters counters;

    struct vv_map data;    /* struct vv_data by id */
    struct vv_map extents; /* struct vv_extent by (id, index) */
    struct vv_map touches; /* struct vv_touch by inode */
    struct vv_map range_places; /* struct vv_range_place by (data id, level, bucket) */
    struct vv_map segrefs, candidates;
    struct vv_list new_segments, reclaims, drops, tail;
    uint64_t tail_bytes;
    unsigned tail_count;
    uint64_t stamp; /* counts changes of extents */
    uint64_t range_count;
    unsigned dirty_waiters; /* writers that wait for the dirty budget */

    struct vv_list commits;
    struct vv_commit *open;
    struct vv_commit *spare_commit; /* freezing cannot fail */
    uint64_t journaled_commit;      /* all up to here are in the journal */
    uint64_t bucket_commit;         /* ... are confirmed in the bucket */
    uint64_t finalised_commit;
    uint64_t want_commit;           /* somebody waits for this one to be durable */
    uint64_t want_bucket;           /* ... in the bucket */
    struct vv_early early;
    bool is_pressed;                /* memory is short: everything out */
    uint64_t gathered_bytes;        /* plain bytes of the frozen commits that are in no unit */
    unsigned gathered_boundaries;   /* ... and how many of them are boundaries */
    int store_error;
    unsigned store_error_tries; /* failed tries since the last success */
    uint64_t store_error_ns;    /* when the first of them was */
    unsigned failed_reads;      /* since the last that succeeded */

    unsigned units_under_way;
    uint64_t unit_ordinal, unit_turn, confirm_turn;
    unsigned uploads_under_way;
    uint64_t upload_bytes; /* of them, plain */
    unsigned bulk_units;   /* units that send bulk data of frozen commits: before the open one's */
    uint8_t *upload_buffers[VV_UPLOAD_BUFFERS_MAX]; /* idle ones; data segments are built in them */
    unsigned upload_buffer_count;
    uint8_t *fresh[VV_FRESH_MAX]; /* memory for extents that lies ready (fresh.c) */
    unsigned fresh_count;
    bool is_freshening;

    struct vv_waitq commit_work, unit_work, flush_work, compact_work, space_work; /* background fibers */
    struct vv_waitq turn, durable, room, uploads, fenced, idle, manifest_free;
    bool is_writing_manifest, is_settings_changed;
    bool is_stopping;   /* send everything out, then end */
    bool is_abandoning; /* end now */
    bool is_ended;      /* closing: no more commits are frozen */
    bool is_fenced;     /* for good: nothing more is made durable here. Another server has the volume, or ... */
    bool is_shut_down;  /* ... it was told to end here */
    unsigned fibers; /* background fibers alive */
    struct vv_timer commit_timer, unit_timer;
    bool is_timer_due; /* the open commit is old enough */
    bool is_unit_due;  /* journaled commits are old enough to go to the bucket */
    bool is_space_due; /* reclaiming wants a commit */
    bool is_flush_due; /* the next freeze rotates the memtables */
    bool is_sweep_due; /* a manifest was confirmed: look for what can be deleted */
    bool is_flushing, is_compacting, is_sweeping;
    bool is_closing; /* begin nothing that can wait for the next opening */
    bool is_sweeping_orphans, is_swept_of_orphans;

    unsigned warming;         /* fibers that bring things in while the volume is being opened */
    uint64_t hinted_manifest; /* the one whose tables are loaded already; 0 = none */
    uint64_t put_ns;       /* how long a small put takes that does not wait for the line */
    uint64_t put_bytes;    /* put so far */
    unsigned puts_under_way; /* of segments and log objects */
    uint64_t upload_rate;  /* bytes a second of large puts beyond that, a moving average; 0 = not known */
    uint64_t synced_ns;    /* when somebody last waited for the bucket */
    uint64_t get_ns;       /* how long a request for frames takes, a moving average */
    struct vv_list streams; /* of readers that go forward (ahead.c), used longest ago first */
    unsigned stream_count;
    uint64_t ahead_bytes;  /* read ahead or being read ahead, and not read yet */
    struct vv_timer ahead_timer;

    uint64_t store_free, store_total;
    uint64_t space_asked_ns;
    uint64_t journal_file_bytes; /* what the journal's next file takes of it */
    uint64_t journal_held;       /* bytes of its files that store_free knows of */
    uint64_t dead_bytes; /* debited since the memtables were last rotated */
    struct vv_repack repack;
    struct vv_volume_stats stats;
};

/* ---- dirty.c: data, extents, layers (none suspends) ---- */

struct vv_data *vv_data_find(struct vv_volume *volume, uint64_t id);
/* NULL when there is no memory. */
struct vv_data *vv_data_make(struct vv_volume *volume, uint64_t id, uint64_t inode);
/* Free it if nothing hangs on it. */
void vv_data_tidy(struct vv_volume *volume, struct vv_data *data);
struct vv_extent *vv_extent_find(struct vv_volume *volume, uint64_t data_id, uint64_t index);
struct vv_extent *vv_extent_make(struct vv_volume *volume, struct vv_data *data, uint64_t index);
void vv_extent_tidy(struct vv_volume *volume, struct vv_extent *extent);
struct vv_layer *vv_layer_new(uint32_t from, uint32_t to);
/* Put on top of the extent, as part of `commit`. Takes over the caller's reference. */
void vv_layer_attach(struct vv_volume *volume, struct vv_extent *extent, struct vv_commit *commit,
                     struct vv_layer *layer);
/* Insert directly above `below` (NULL: at the bottom) instead. */
void vv_layer_attach_above(struct vv_volume *volume, struct vv_extent *extent,
                           struct vv_commit *commit, struct vv_layer *layer,
                           struct vv_layer *below);
/* A layer that is not settled has changed: work out anew what the extent adds to its data's dirty_bytes. */
void vv_extent_count(struct vv_extent *extent);
/* The sums of the tables have it from now on. */
void vv_layer_settle(struct vv_layer *layer);
/* Take out of extent and commit; drops the extent's reference. May free extent and data. */
void vv_layer_detach(struct vv_volume *volume, struct vv_layer *layer);

/* ---- ranges.c: range tombstones (none suspends) ---- */

/* The newest tombstone commit over (data, index) among those of commits <= at; 0 = none. */
uint64_t vv_hidden_commit(const struct vv_data *data, uint64_t index, uint64_t at);
/* Add a tombstone to memory (its record is the caller's). -ENOMEM. */
struct vv_range *vv_range_new(void);
void vv_range_add(struct vv_volume *volume, struct vv_data *data, struct vv_range *range);
/* It reaches to `to` now, if that is further. */
void vv_range_extend(struct vv_volume *volume, struct vv_range *range, uint64_t to);
/* The range of this commit that begins there; NULL. */
struct vv_range *vv_range_same(const struct vv_data *data, uint64_t from, uint64_t commit);
void vv_range_remove(struct vv_volume *volume, struct vv_range *range);
void vv_volume_free_dirty(struct vv_volume *volume);

/* One visible stretch of an extent in memory. */
struct vv_stretch {
    uint32_t from, to;
    struct vv_layer *layer;
};
#define VV_STRETCHES_MAX VV_COVER_MAX
/* The visible parts of the layers of commits first..last (those not hidden as of `last`), newest over older, ascending.
 * Layers that are SEALED without bytes count with their visible parts like the others. Returns the count; -VV_ERR_LIMIT when there are too many. */
int vv_extent_stretches(const struct vv_extent *extent, uint64_t first, uint64_t last,
                        struct vv_stretch *out);
/* Which blocks of an extent hold data, and which of those lie in space that was set aside. */
struct vv_extent_state {
    uint8_t blocks, aside;
    uint8_t known; /* those that a layer has written or cleared */
};
/* What the layers of commits first..last (those not hidden as of `last`) make of it. */
void vv_extent_overlay(const struct vv_extent *extent, uint64_t first, uint64_t last,
                       struct vv_extent_state *state);
/* What a reader sees now; `record` (NULL = none) as it stands. */
void vv_extent_state_now(struct vv_volume *volume, uint64_t data_id, uint64_t index,
                         const struct vv_extent_record *record, struct vv_extent_state *out_state);
/* Layers that replace all others of an extent: the bytes [0, end), and zeros over those blocks that hold none, so that holes
 * stay holes. In the order in which they are to be attached. */
#define VV_FOLDED_MAX (1 + VV_EXTENT_BLOCKS / 2)
struct vv_folded {
    unsigned count;
    struct vv_layer *layers[VV_FOLDED_MAX];
};
MUST_CHECK int vv_folded_make(struct vv_volume *volume, uint32_t end,
                              const struct vv_extent_state *state, struct vv_folded *out_folded);
/* Of those that were not attached. */
void vv_folded_done(struct vv_folded *folded);

/* ---- segrefs, candidates (space.c) ---- */
MUST_CHECK int vv_segref_hold(struct vv_volume *volume, const struct vv_segment_id *id);
/* NULL when nothing holds it. */
struct vv_segref *vv_segref_find(const struct vv_volume *volume, const struct vv_segment_id *id);
/* After the journal was replayed: segments that only it knew get their records with the next unit. Suspends. */
MUST_CHECK int vv_space_adopt(struct vv_volume *volume);
/* The entries of a segment's directory. The caller frees *out_entries. Suspends. Store errors, -VV_ERR_FORMAT, -VV_ERR_AUTH, ... */
MUST_CHECK int vv_segment_directory(struct vv_volume *volume, const struct vv_segment_id *id,
                                    struct vv_segment_entry **out_entries, uint32_t *out_count);
/* Is the log object below its epoch's replay point in the last confirmed manifest, or of an epoch no longer live (14)? */
bool vv_space_is_behind_replay(const struct vv_volume *volume, const struct vv_segment_id *id);
void vv_segref_release(struct vv_volume *volume, const struct vv_segment_id *id);
bool vv_segref_is_held(const struct vv_volume *volume, const struct vv_segment_id *id);
void vv_candidate_add(struct vv_volume *volume, const struct vv_segment_id *id, uint64_t commit);
void vv_space_fiber(void *volume);
int vv_space_sweep(struct vv_volume *volume);
MUST_CHECK int vv_space_load(struct vv_volume *volume);
void vv_space_kick(struct vv_volume *volume);
void vv_space_free(struct vv_volume *volume);

/* ---- ahead.c ---- */
/* Forget all streams; what they have under way ends by itself. */
void vv_ahead_free(struct vv_volume *volume);

/* ---- read.c, fetch.c ---- */
/* Read [0, VV_EXTENT_BYTES) of an extent as of `record` (may be NULL) and the layers up to `last`. Suspends. */
MUST_CHECK int vv_extent_read(struct vv_volume *volume, uint64_t data_id, uint64_t index,
                              const struct vv_extent_record *record, uint64_t last, uint8_t *out);
/* The plain bytes of a frame through the cache. Suspends. */
MUST_CHECK int vv_frame_fetch(struct vv_volume *volume, const struct vv_frame_loc *loc,
                              const struct vv_origin *origin, struct vv_block **out_block);
void vv_frame_cache_key(const struct vv_frame_loc *loc, struct vv_cache_key *out_key);
/* The sealer of an object of ours, through the cache: *out_block holds it. Suspends. */
MUST_CHECK int vv_segment_sealer(struct vv_volume *volume, const struct vv_segment_id *id,
                                 struct vv_block **out_block, const struct vv_sealer **out_sealer);

/* ---- commit.c ---- */
MUST_CHECK int vv_commit_init(struct vv_volume *volume, uint64_t next_number);
/* Would so many bytes of records more be too many for the open commit? */
bool vv_commit_is_full(const struct vv_volume *volume, size_t bytes);
/* The open commit has changes now: arm the timer. */
void vv_commit_changed(struct vv_volume *volume);
/* An operation has changed the open commit. True: a sync is likely to be next, so the commit begins when the caller suspends. */
bool vv_commit_applied(struct vv_volume *volume);
void vv_commit_freeze(struct vv_volume *volume);
bool vv_commit_is_empty(const struct vv_commit *commit);
/* Memory is short: send everything out. */
void vv_commit_press(struct vv_volume *volume);
void vv_commit_fiber(void *volume);
void vv_commit_free_all(struct vv_volume *volume);
/* Drop confirmed commits up to `last`, with their layers. */
void vv_commit_free_through(struct vv_volume *volume, uint64_t last);
MUST_CHECK int vv_commit_wait_uploads(struct vv_volume *volume, const struct vv_commit *commit);
/* The store has said more than once that it will take nothing (full, read-only, ...). */
bool vv_store_is_refusing(const struct vv_volume *volume);
bool vv_volume_is_journaling(const struct vv_volume *volume);
void vv_volume_wake_all(struct vv_volume *volume);
void vv_volume_fiber_ended(struct vv_volume *volume);
MUST_CHECK int vv_volume_flush(struct vv_volume *volume);
/* All changes so far are in the bucket on return. Suspends. */
MUST_CHECK int vv_volume_sync_bucket(struct vv_volume *volume);
/* Freeze nothing more, and wait until the bucket has all that was frozen. What the open commit holds
 * then (the volume's own tidying, which the next opening begins again) is given up. On failure commits
 * go on. Suspends. */
MUST_CHECK int vv_commit_end(struct vv_volume *volume);
uint64_t vv_durable_commit(const struct vv_volume *volume);
void vv_volume_fence(struct vv_volume *volume);
/* Why nothing more is made durable (is_fenced). */
int vv_volume_end_error(const struct vv_volume *volume);
MUST_CHECK int vv_commit_new(uint64_t number, struct vv_commit **out_commit);

/* ---- early.c: commits that begin before they are asked for (none suspends) ---- */
/* after: syncs that keep to the rule before a guess; 0 = the usual. */
void vv_early_init(struct vv_early *early, unsigned after);
/* An operation has taken effect in `commit`, which holds so many bytes now. True: a sync is likely to come next, so
 * its commit is to begin. */
bool vv_early_is_due(struct vv_early *early, uint64_t commit, uint64_t bytes);
/* A sync asks for everything up to the commit `target`. */
void vv_early_learn(struct vv_early *early, uint64_t target);

/* ---- unit.c ---- */
void vv_unit_fiber(void *volume); /* gathers and starts units */

/* ---- fresh.c ---- */
/* A buffer for a whole extent, as vv_buf_new with that budget. Does not suspend. */
struct vv_buf *vv_fresh_buf(struct vv_volume *volume, struct vv_budget *budget);
/* Free what lies ready. */
void vv_fresh_trim(struct vv_volume *volume);

/* ---- upload.c: data segments ---- */
struct vv_seal_job {
    struct vv_origin origin;
    const uint8_t *bytes;
    uint32_t len;
    struct vv_frame_loc loc; /* out */
};
/* Seal all jobs into the builder, on a worker when it is worth it. Waits for memory. Suspends. */
void vv_seal_jobs(struct vv_segment_builder *builder, struct vv_seal_job *jobs, size_t count);
/* Give a buffer's bytes to the frame cache if nobody else holds them; drops the reference. */
void vv_buf_to_cache(struct vv_volume *volume, struct vv_buf *buf, uint32_t at, uint32_t len,
                     const struct vv_frame_loc *loc);
/* What a put of that many bytes tells about the store. put_before: volume->put_bytes when it began. */
void vv_put_measured(struct vv_volume *volume, size_t bytes, uint64_t took_ns, uint64_t put_before);
/* Plain bytes of the open commit at which a data segment is worth its request. */
uint64_t vv_upload_due_bytes(const struct vv_volume *volume);
/* Does bulk data go along with commits, each as soon as it has gathered that much? While somebody syncs and requests
 * take long: a sync then waits for puts that are under way together, and not for a data segment and its commit after it (11). */
bool vv_upload_is_inlining(const struct vv_volume *volume);
/* How many units may be under way. */
unsigned vv_unit_max(const struct vv_volume *volume);
/* Is as much under way as may be? */
bool vv_upload_is_full(const struct vv_volume *volume);
/* Dirty bytes above which bulk writers wait for the line: a sync waits for all of them. UINT64_MAX while nobody syncs. */
uint64_t vv_upload_dirty_max(const struct vv_volume *volume);
/* Start moving plain bytes of the open commit into a data segment if `is_forced` or enough has gathered. */
void vv_upload_start(struct vv_volume *volume, bool is_forced);
/* Send bulk data of a frozen commit as data segments, until what is left is worth no request of its own. Does not
 * wait for them to end. Suspends. */
void vv_upload_frozen(struct vv_volume *volume, struct vv_commit *commit);
/* The same, whatever it is worth and however the store does, until at most bytes_max are left plain. Suspends. */
void vv_upload_excess(struct vv_volume *volume, struct vv_commit *commit, uint64_t bytes_max);
/* Free the idle buffers of uploads. */
void vv_upload_trim(struct vv_volume *volume);

/* ---- look_up.c: records by the hundred, for the volume's own work ---- */
struct vv_look_up {
    struct vv_volume *volume;
    /* Asked before each round; NULL = yes. */
    bool (*is_going)(const struct vv_volume *volume);
    /* What lies under keys[i], NULL = nothing. Does not suspend. May be told again of keys that it has been told of. Its
     * error ends the look-up. */
    int (*take)(void *arg, size_t i, const struct vv_lsm_value *value);
    void *arg;
};
/* Take what lies in the tables under each key. -VV_ERR_STOPPED: is_going said no. Suspends. */
MUST_CHECK int vv_look_up(const struct vv_look_up *how, const struct vv_bytes *keys, size_t count);

/* ---- record.c: journal records ---- */
MUST_CHECK int vv_record_encode(struct vv_volume *volume, struct vv_commit *commit,
                                struct vv_writer *writer);
MUST_CHECK int vv_record_apply(struct vv_volume *volume, uint64_t number, struct vv_bytes plain);

/* ---- flush.c ---- */
/* A unit is confirmed, or a flush has ended: is the next flush due? Finalising fills the memtable after the freeze that looked
 * at it, so writers may wait for room though nothing is left to be frozen. One at a time: a flush that is slower than commits must
 * not beget more of both. */
void vv_flush_look(struct vv_volume *volume);
void vv_flush_fiber(void *volume);
void vv_compact_fiber(void *volume);
MUST_CHECK int vv_manifest_write(struct vv_volume *volume, struct vv_lsm_edit *edit,
                                 uint64_t flushed_commit);

#endif
