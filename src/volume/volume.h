/* A volume: ties log, tables, segments, journal and cache into operations, commits, file data and
 * space. What stands above it (fs, object) sees an ordered map of records, data ids with bytes, and sync.
 *
 * Atomicity (DESIGN section 3): an operation is a function that is run by vv_volume_run. It first reads
 * (plan): vv_op_get and friends never suspend; what is not in memory is noted and reported as -VV_ERR_MISS. The
 * function may go on with reads that do not depend on it, then returns -VV_ERR_MISS; the volume
 * fetches everything noted, in parallel, and runs the function again. When nothing was missed, it stages its
 * changes and returns >= 0: the volume applies them all in one step that cannot fail. A negative return drops
 * them. The function must not suspend and must be harmless to repeat.
 *
 * Data ids name byte sequences (0 .. VV_DATA_BYTES_MAX) independent of inodes. Bytes never written are zero.
 * They are kept in extents of VV_EXTENT_BYTES. All a volume's functions belong to one reactor. */
#ifndef VV_VOLUME_VOLUME_H
#define VV_VOLUME_VOLUME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/err.h"
#include "cache/cache.h"
#include "log/manifest.h"
#include "lsm/lsm.h"
#include "seal/seal.h"
#include "store/store.h"

#define VV_EXTENT_BYTES 32768u
#define VV_DATA_BYTES_MAX (1ull << 62)
#define VV_OP_MISSES_MAX 4096     /* keys noted in one plan round; more are left to the next */
#define VV_OP_WRITES_MAX 512      /* records staged by one operation */
#define VV_OP_DATA_MAX (8u << 20) /* file bytes staged by one operation */
#define VV_ROOT_INODE 1

/* Table prefixes (DESIGN section 4). Integers in keys are big-endian. */
enum vv_table {
    VV_TABLE_INODE = 'I',   /* inode (key of 9 bytes); inode, data id (17 bytes): allocated bytes, merged */
    VV_TABLE_ENTRY = 'D',
    VV_TABLE_COOKIE = 'C',
    VV_TABLE_LINK = 'L',
    VV_TABLE_EXTENT = 'E',  /* volume's own */
    VV_TABLE_RANGE = 'R',   /* volume's own */
    VV_TABLE_DATA = 'F',    /* volume's own */
    VV_TABLE_XATTR = 'X',
    VV_TABLE_SEGMENT = 'S', /* volume's own */
    VV_TABLE_REPLY = 'A',
    VV_TABLE_ASIDE = 'P',
    VV_TABLE_ORPHAN = 'T',  /* 'T' 'i' inode: fs; 'T' 'd' data id: volume */
    VV_TABLE_SETTING = 'K'
};

enum vv_durability { VV_DURABILITY_BUCKET, VV_DURABILITY_JOURNAL };

struct vv_volume;

/* When sparse and tiny segments are put together into new ones (src/volume/repack_impl.h). 0 = the default. */
struct vv_repack_options {
    bool is_off;
    uint64_t waste_bytes;   /* dead bytes in segments that are in use: not below so many (64 MiB), ... */
    unsigned waste_percent; /* ... and not below so much of the live bytes (25) */
    unsigned live_percent;  /* a segment is sparse with at most so much of it live (60) */
    unsigned tiny_count;    /* tiny segments, before they are put together (1024) */
};

struct vv_log_seen;
struct vv_volume_options {
    struct vv_store *store;       /* borrowed; outlives the volume */
    const struct vv_keyring *ring;/* borrowed */
    const char *journal_path;     /* directory; NULL = no journal (durability is then BUCKET) */
    enum vv_durability durability;
    bool is_abandoning_journal;
    bool is_syncing_replay;       /* dir stores */
    const struct vv_log_seen *seen; /* of vv_volume_keys, borrowed: saves opening two requests. May be NULL */
    bool is_read_only;            /* fsck: reads the volume as it is, claims nothing, ops that write
                                   * are -EROFS */
    uint64_t memory_bytes;        /* the process's budget; at least 16 MiB */
    uint64_t commit_delay_ns;     /* how long a change may stay unsent; 0 = 1 s */
    uint64_t sync_timeout_ns;     /* how long a sync waits for a failing store; 0 = 30 s */
    uint64_t journal_file_bytes;  /* 0 = default; tests */
    unsigned early_after;         /* syncs after the same operations before the next is foreseen; 0 = 8; tests */
    uint64_t segment_bytes;       /* target of data segments; 0 = by memory, at most 16 MiB */
    const struct vv_seal_settings *settings; /* NULL = as the manifest says */
    struct vv_repack_options repack;
};

/* Suspends. Errors of vv_log_open, vv_journal_open, store errors, -ENOMEM. */
MUST_CHECK int vv_volume_open(const struct vv_volume_options *options,
                              struct vv_volume **out_volume);
/* Sync everything, flush, and let go. The volume is gone whatever is returned: 0 = all is durable;
 * -VV_ERR_SHUT_DOWN, -VV_ERR_FENCED, the store's error.
 * Nobody may be inside any call. Suspends. */
int vv_volume_close(struct vv_volume *volume);

/* ---- operations ---- */

struct vv_op;

/* Run `fn` as an operation (see the top). `write_bytes`: at least the file bytes that it may stage with
 * vv_op_write (0 = none): waits until the budget has room for them. Operations that may change
 * something (`is_writing`) also wait while the tables or the memory are behind.
 * Returns fn's result; -VV_ERR_FENCED, -VV_ERR_SHUT_DOWN, -EROFS, or an error of fetching; then nothing was changed. Suspends. */
enum vv_op_mode { VV_OP_READ, VV_OP_WRITE, VV_OP_FREEING };
MUST_CHECK int vv_volume_run(struct vv_volume *volume, enum vv_op_mode mode, size_t write_bytes,
                             int (*fn)(struct vv_op *op, void *arg), void *arg);
/* VV_OP_FREEING: as WRITE, but it frees space (unlink, truncate): it draws on the reserve and does not wait. */

/* Reading. The value is valid until fn returns. 1 = there, 0 = absent, -VV_ERR_MISS = noted, or an
 * error (a damaged table). Sees the state before this operation's own staged changes. */
MUST_CHECK int vv_op_get(struct vv_op *op, struct vv_bytes key, struct vv_bytes *out_value);
/* True when something was missed in this round: return -VV_ERR_MISS before staging anything. */
bool vv_op_is_missing(const struct vv_op *op);
/* Bytes allocated to (inode, data id): on the store, and dirty; not those in space that was set aside. 0; 1 = what lies in
 * memory may lie over some on the store, or frees some: it will change by itself, soon as a rule; -VV_ERR_MISS. */
MUST_CHECK int vv_op_allocated(struct vv_op *op, uint64_t inode, uint64_t data_id,
                               uint64_t *out_bytes);
/* After a miss: once it has been fetched, call fn(op, arg), which only reads: what it misses is fetched at once, and
 * not in a round of its own. For what is known to be read next. More than a few are forgotten. */
void vv_op_follow(struct vv_op *op, void (*fn)(struct vv_op *op, uint64_t arg), uint64_t arg);
struct vv_volume *vv_op_volume(struct vv_op *op);

/* Staging. -ENOMEM, -VV_ERR_LIMIT: return it. Later changes to a key replace earlier ones. */
MUST_CHECK int vv_op_put(struct vv_op *op, struct vv_bytes key, struct vv_bytes value);
MUST_CHECK int vv_op_delete(struct vv_op *op, struct vv_bytes key);
/* The inode is changed by this operation: a sync of it must cover it. */
MUST_CHECK int vv_op_touch(struct vv_op *op, uint64_t inode);
/* Fresh numbers, never used before or again, even if the operation fails. */
uint64_t vv_op_new_inode(struct vv_op *op);
uint64_t vv_op_new_data_id(struct vv_op *op);
/* Write bytes (borrowed until vv_volume_run returns). `inode` is whom the space is counted for. */
MUST_CHECK int vv_op_write(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t offset,
                           const void *bytes, size_t len);
/* As vv_op_write of `len` bytes of the payload from `at` on: what can be is handed over, the rest is copied. */
struct vv_payload_part {
    struct vv_payload *payload;
    size_t at, len;
};
MUST_CHECK int vv_op_write_payload(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t offset,
                                   const struct vv_payload_part *part);
/* What is written from here on (or not any more) lies in space that the caller has set aside and counts itself: vv_op_allocated
 * does not count it again. That must be so for whole blocks of 4096 bytes, and as long as they are not cleared whole. */
void vv_op_into_aside(struct vv_op *op, bool is_aside);
/* Let [from, to) read as zeros and free its space in the background. to = UINT64_MAX: to the end. */
MUST_CHECK int vv_op_clear(struct vv_op *op, uint64_t inode, uint64_t data_id, uint64_t from,
                           uint64_t to);
/* The data id is no longer used by anything: free it in the background. */
MUST_CHECK int vv_op_drop(struct vv_op *op, uint64_t inode, uint64_t data_id);

/* ---- payloads ---- */

/* The bytes of a write on their way from a door into the volume, in memory that an extent can take over, so that they need
 * not be copied. A payload is cut where extents end if it is written at the offset that it was made for, in a data id
 * that begins where the file does (else it is copied). A piece is handed over if it becomes a layer as it is and is no larger than the layer's own
 * memory would be. From then on the dirty budget holds it; until then, who made the payload charges it.
 * None of these suspends. */
#define VV_PAYLOAD_BYTES_MAX (VV_OP_DATA_MAX - VV_EXTENT_BYTES) /* what one operation of fs writes */
struct vv_payload;
/* For `len` bytes (1 .. VV_PAYLOAD_BYTES_MAX) at `offset`. -ENOMEM. */
MUST_CHECK int vv_payload_new(struct vv_volume *volume, uint64_t offset, size_t len,
                              struct vv_payload **out_payload);
/* NULL is fine. */
void vv_payload_free(struct vv_payload *payload);
void vv_payload_free_ptr(struct vv_payload **payload); /* for CLEANUP */
/* Where the bytes are to be put: pieces in order, each but the first and the last an extent long. */
unsigned vv_payload_count(const struct vv_payload *payload);
struct iovec vv_payload_piece(const struct vv_payload *payload, unsigned i);
size_t vv_payload_len(const struct vv_payload *payload);
/* Fewer bytes have come (at least 1): those in front count. */
void vv_payload_cut(struct vv_payload *payload, size_t len);
/* To be called when it has been written (whatever came of that): lets go of what was handed over, and keeps the rest. */
void vv_payload_settle(struct vv_payload *payload);
/* For the next write: memory in place of what was handed over, and the length that it was made for. -ENOMEM: it can only be freed, or
 * tried again. */
MUST_CHECK int vv_payload_renew(struct vv_payload *payload);
/* Bytes from `at` on. What was handed over can't be read any more. */
void vv_payload_copy(const struct vv_payload *payload, size_t at, void *out, size_t len);

/* ---- reading file data ---- */

#define VV_VIEW_PIECES_MAX 80 /* what would take more is copied */

/* Resolved places of a byte range; pins dirty buffers and segments. */
struct vv_read;
/* In an operation: resolve [offset, offset + len) of a data id and append it to *read (NULL at first:
 * made). data_id 0 = zeros. -VV_ERR_MISS, -ENOMEM, -VV_ERR_LIMIT (over VV_OP_DATA_MAX). On a repeated plan,
 * pass the same pointer: vv_read_reset it first. */
MUST_CHECK int vv_op_read(struct vv_op *op, uint64_t data_id, uint64_t offset, size_t len,
                          struct vv_read **read);
/* The reader may well read on, up to `end` (bytes of the first data id): read ahead of it if the store is slow.
 * NULL is fine. */
void vv_read_expect(struct vv_read *read, uint64_t end);
void vv_read_reset(struct vv_read *read);
void vv_read_free(struct vv_read *read);
/* Fetch and copy everything resolved into buf (as long as the sum of the lengths). Suspends.
 * Bytes, or an error: -VV_ERR_AUTH and the like name the object in the log. */
MUST_CHECK ssize_t vv_read_finish(struct vv_volume *volume, struct vv_read *read, void *buf);

/* What was read, where it lies: in the cache, pinned there, or in the reader's buffer. */
struct vv_view {
    unsigned count;
    struct iovec pieces[VV_VIEW_PIECES_MAX]; /* in order, without gaps */
    unsigned block_count;
    struct vv_block *blocks[VV_VIEW_PIECES_MAX / 2];
};
/* As vv_read_finish, but what is in the cache is not copied from there; *out_view says where the bytes are, which do not change
 * until vv_view_done. Suspends. */
MUST_CHECK ssize_t vv_read_finish_view(struct vv_volume *volume, struct vv_read *read, void *buf,
                                       struct vv_view *out_view);
/* Drops the pins. A zeroed one is fine. */
void vv_view_done(struct vv_view *view);

/* Where data is: the first byte at or after `offset` and below `end` that is data (or, with is_hole, that is
 * not). Written zeros count as data. Returns the offset through *out_offset, `end` when
 * there is none. Suspends. */
MUST_CHECK int vv_volume_seek(struct vv_volume *volume, uint64_t data_id, uint64_t offset,
                              uint64_t end, bool is_hole, uint64_t *out_offset);

/* ---- scans ---- */

/* As vv_lsm_iter_*: records of [lower, upper). Suspends. -VV_ERR_SHUT_DOWN. */
struct vv_lsm_iter;
MUST_CHECK int vv_volume_scan(struct vv_volume *volume, struct vv_bytes lower,
                              struct vv_bytes upper, struct vv_lsm_iter **out_iter);

/* ---- durability ---- */

/* Return when every operation so far that changed `inode` (0: any) is durable, and with them all that came before.
 * -VV_ERR_FENCED; the store's error when that lasts (-ENOSPC, ...), else -EIO, when it cannot be made durable in time: the data
 * is kept and retried, and later syncs fail too until it is durable. Suspends. */
MUST_CHECK int vv_volume_sync(struct vv_volume *volume, uint64_t inode);
/* End here as a crash would: nothing more is made durable, and every operation, reads too, fails with
 * -VV_ERR_SHUT_DOWN from now on. What is on its way to the journal or the store may still arrive; the rest of what
 * was not synced is lost. vv_volume_close then only lets go. Does not suspend. */
void vv_volume_shut_down(struct vv_volume *volume);
/* Also flush memtables and wait for deletions: for tests, `varve flush` and closing. Suspends. */
MUST_CHECK int vv_volume_settle(struct vv_volume *volume);
/* Change what new objects are sealed with; stored with the next manifest. Suspends. */
MUST_CHECK int vv_volume_set_settings(struct vv_volume *volume,
                                      const struct vv_seal_settings *settings);
/* Replace the key slots: puts keys/<n+1>, then a manifest that names it. Suspends. */
MUST_CHECK int vv_volume_set_keys(struct vv_volume *volume, const void *keys, size_t len);

/* ---- facts ---- */

struct vv_volume_stats {
    uint64_t epoch, open_commit, durable_commit, bucket_commit;
    uint64_t dirty_bytes, frozen_bytes, memtable_bytes, cache_bytes, memory_bytes;
    uint64_t live_bytes, total_bytes;    /* file data on the store: referenced, and held */
    uint64_t segments, ranges, orphans;  /* data segments known, reclaims waiting */
    /* plan_rounds_max: of one operation, on one set of tables; when a flush or a compaction replaces tables
     * meanwhile, what it had fetched is worth nothing and it begins again: plan_restarts. */
    uint64_t ops, plan_rounds, plan_rounds_max, plan_restarts;
    uint64_t early_commits; /* that began before a sync asked for them, because it was likely to */
    uint64_t commits, log_bytes, data_bytes, journal_bytes; /* written since opening */
    uint64_t segments_deleted;
    /* Repacking: segments that it emptied; frames that it moved, and those that had changed meanwhile; bytes that it wrote. */
    uint64_t repacked_segments, repacked_frames, repack_refused, repacked_bytes;
    bool is_repacking;
    uint64_t fresh_extents; /* written whole into memory that lay ready */
    uint64_t handed_layers; /* whose bytes were not copied: a payload's memory became theirs */
    uint64_t merged_writes; /* into a layer that was there: of an extent, not of a call */
    uint64_t leftovers_deleted, leftover_bytes_deleted; /* what servers left that ended early */
    uint64_t store_free, store_total;    /* UINT64_MAX = unbounded */
    int store_error;                     /* of the last try, 0 = fine */
    bool is_fenced, is_shut_down;
    struct vv_lsm_stats lsm;
};
/* live/total/segments are summed by a scan at opening and kept up to date. Does not suspend. */
void vv_volume_stats(const struct vv_volume *volume, struct vv_volume_stats *out_stats);
/* Ask the store for its free space (the figures in the statistics). Suspends. */
MUST_CHECK int vv_volume_refresh_space(struct vv_volume *volume);
const uint8_t *vv_volume_id(const struct vv_volume *volume);
const struct vv_seal_settings *vv_volume_settings(const struct vv_volume *volume);
bool vv_volume_is_fenced(const struct vv_volume *volume);
bool vv_volume_is_shut_down(const struct vv_volume *volume);
/* Wakes when the volume becomes fenced; for servers that want to say so. */
struct vv_waitq *vv_volume_fence_waitq(struct vv_volume *volume);

#endif
