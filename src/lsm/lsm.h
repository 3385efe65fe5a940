/* The metadata tables: one ordered key-value map, kept as a log-structured merge tree.
 *
 * Keys are up to VV_LSM_KEY_MAX bytes, compared as memcmp; values up to VV_LSM_VALUE_MAX. A record
 * is a put, a delete, or a merge: two signed 64-bit numbers that are added to what stands there
 * (nothing = 0, 0). A key uses merges and deletes, or puts and deletes, never puts and merges. A
 * merged value is encoded as two svarints. (Inside, and in the changes of a commit, a merge that
 * nothing below matters to is a put of such a value: that of a commit that deletes a key and then
 * merges, and those that reach the bottom.)
 *
 * Every record belongs to a commit number. In a memtable a key keeps its newest record of each
 * commit that has not been flushed, so that a frozen commit can be written out while a newer one
 * changes the same keys; records of an older commit may be added after those of a newer one
 * (finalise). Readers see the newest; vv_lsm_get_at sees the tree as of a commit that is still in
 * memtables.
 *
 * Life: writes go to the newest memtable; vv_lsm_rotate starts another at a commit boundary; a
 * flush writes the old ones as level-0 tables; compaction merges levels. Flush and compaction are
 * prepared (tables are put, suspends), then the caller writes a manifest with the new list of
 * tables, then the edit is applied.
 *
 * One reactor, no locks. What does not say "suspends" does not, and pointers handed out by
 * non-suspending reads stay valid until the caller suspends or writes, or has found VV_LSM_HELD_MAX
 * further values in tables (those in fetched, pinned blocks: as long as the pins). */
#ifndef VV_LSM_LSM_H
#define VV_LSM_LSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "cache/cache.h"
#include "log/manifest.h"
#include "seal/seal.h"
#include "store/store.h"

#define VV_LSM_KEY_MAX VV_TABLE_KEY_MAX
#define VV_LSM_VALUE_MAX (80u << 10) /* an xattr of 64 KiB and its frame fit */
#define VV_LSM_BLOCK_BYTES (16u << 10)
#define VV_LSM_LEVELS_MAX 7
#define VV_LSM_L0_COMPACT 4 /* flushes in level 0 at which compaction is due */
#define VV_LSM_L0_STALL 12  /* ... at which writers must wait */
#define VV_LSM_HELD_MAX 64

enum vv_lsm_kind { VV_LSM_DELETE = 0, VV_LSM_PUT = 1, VV_LSM_MERGE = 2 };

struct vv_lsm;

struct vv_lsm_options {
    struct vv_store *store;        /* borrowed; reads */
    const struct vv_keyring *ring; /* borrowed */
    struct vv_cache *cache;        /* borrowed */
    struct vv_budget *mem_budget;  /* charged with the memtables */
    uint64_t epoch;                /* of new tables' ids */
    uint64_t table_bytes;          /* target size of a table; 0 = 8 MiB */
    uint64_t level1_bytes; /* target size of level 1; 0 = 64 MiB; each further level 10 times */
    /* How a finished table is put: vv_log_put_object in the product. Suspends. */
    int (*put)(void *arg, const char *name, const uint8_t attempt_id[16], const struct iovec *iov,
               int count);
    void *put_arg;
    /* Settings for new objects, read each time (they may be changed). Borrowed. */
    const struct vv_seal_settings *settings;
};

MUST_CHECK int vv_lsm_new(const struct vv_lsm_options *options, struct vv_lsm **out_lsm);
/* No iterator, pin or preparation may be left. */
void vv_lsm_free(struct vv_lsm *lsm);
/* Start from a manifest's tables (copied), forgetting all else. Does not read them yet. No
 * iterator, pin or preparation may be left. -ENOMEM, -VV_ERR_CORRUPT (levels or keys that
 * contradict each other). */
MUST_CHECK int vv_lsm_load(struct vv_lsm *lsm, const struct vv_table_ref *tables, size_t count);
/* Tables written from now on get ids of this epoch, counters from 0. */
void vv_lsm_set_epoch(struct vv_lsm *lsm, uint64_t epoch);

/* ---- writing ---- */

/* Make sure that writes of `records` records with together `bytes` bytes of keys and values cannot
 * fail until the next suspension. Reserves do not add up: reserve for all that is written before
 * then. -ENOMEM. */
MUST_CHECK int vv_lsm_reserve(struct vv_lsm *lsm, size_t records, size_t bytes);
/* Write one record of `commit`; cannot fail after a reserve (aborts otherwise). A later record of
 * the same key and commit replaces the earlier one, or is added to it if both are merges. */
void vv_lsm_put(struct vv_lsm *lsm, uint64_t commit, struct vv_bytes key, struct vv_bytes value);
void vv_lsm_delete(struct vv_lsm *lsm, uint64_t commit, struct vv_bytes key);
void vv_lsm_merge(struct vv_lsm *lsm, uint64_t commit, struct vv_bytes key, int64_t a, int64_t b);

/* ---- reading ---- */

struct vv_lsm_value {
    const uint8_t *ptr;
    size_t len;
    uint8_t merged[20]; /* ptr points here for merged values: do not copy the struct */
};

/* 1 = found, 0 = absent, -VV_ERR_MISS = something that is needed is not in memory. Does not
 * suspend. */
MUST_CHECK int vv_lsm_get(struct vv_lsm *lsm, struct vv_bytes key, struct vv_lsm_value *out_value);
/* As of `commit` (records of later commits are not seen); commit must not be flushed yet or be the
 * newest flushed one. */
MUST_CHECK int vv_lsm_get_at(struct vv_lsm *lsm, struct vv_bytes key, uint64_t commit,
                             struct vv_lsm_value *out_value);
/* The sums of a merged key (0, 0 when absent). 0 or -VV_ERR_MISS. */
MUST_CHECK int vv_lsm_get_sums(struct vv_lsm *lsm, struct vv_bytes key, int64_t *out_a,
                               int64_t *out_b);

/* Blocks held in memory so that gets of certain keys do not miss. */
struct vv_lsm_pins {
    struct vv_block **blocks;
    size_t count;
    size_t capacity;
};
void vv_lsm_pins_init(struct vv_lsm_pins *pins);
/* Releases what is pinned; safe on an empty one. */
void vv_lsm_pins_done(struct vv_lsm_pins *pins);
/* Bring into memory and pin everything that vv_lsm_get and vv_lsm_get_at of these keys need from
 * tables, all keys in parallel. Suspends. -VV_ERR_AUTH, -VV_ERR_CHECKSUM, -VV_ERR_FORMAT, store
 * errors, -ENOMEM: the first error of any key; the others are pinned nevertheless. After it, gets
 * of the keys succeed unless a flush or compaction was applied meanwhile (then fetch again). */
MUST_CHECK int vv_lsm_fetch(struct vv_lsm *lsm, const struct vv_bytes *keys, size_t count,
                            struct vv_lsm_pins *pins);

/* Ordered scans over [lower, upper) (upper.len == 0: to the end) of the tables and memtables of
 * this moment; memtables show changes made during the scan, ahead of its position. Reads ahead into
 * the cache. */
struct vv_lsm_iter;
MUST_CHECK int vv_lsm_iter_open(struct vv_lsm *lsm, struct vv_bytes lower, struct vv_bytes upper,
                                struct vv_lsm_iter **out_iter);
/* The next key and value (deletes left out, merges added up); 1, 0 at the end, or an error. Valid
 * until the next call. Suspends when a block is not in memory, and now and then in a long row of
 * deletes. An error is final. */
MUST_CHECK int vv_lsm_iter_next(struct vv_lsm_iter *iter, struct vv_bytes *out_key,
                                struct vv_bytes *out_value);
void vv_lsm_iter_close(struct vv_lsm_iter *iter);

/* ---- commits: changed records as bytes ----
 * Payload: for each record: u8 kind, varint key length, key, and, except for deletes, varint value
 * length, value. */

/* Append to `writer`, once each and in no order, all keys changed in commits first..last with their
 * newest record up to `last` (merges of several commits added up; a put of the sum when a delete
 * lies below). -ENOMEM. */
MUST_CHECK int vv_lsm_changes_encode(struct vv_lsm *lsm, uint64_t first, uint64_t last,
                                     struct vv_writer *writer);
/* Bytes that it would take at most (for limits). */
size_t vv_lsm_changes_bytes(const struct vv_lsm *lsm, uint64_t first, uint64_t last);
/* Apply a payload as records of `commit` (replay), wholly or not at all. -VV_ERR_FORMAT, -ENOMEM.
 */
MUST_CHECK int vv_lsm_changes_apply(struct vv_lsm *lsm, uint64_t commit, struct vv_bytes payload);
/* Walk a payload: one record. 1, 0 at the end, -VV_ERR_FORMAT. */
MUST_CHECK int vv_lsm_record_decode(struct vv_cursor *cursor, enum vv_lsm_kind *out_kind,
                                    struct vv_bytes *out_key, struct vv_bytes *out_value);

/* ---- memtables, flush, compaction ---- */

/* Bytes in memtables, all and the newest. */
size_t vv_lsm_memtable_bytes(const struct vv_lsm *lsm);
size_t vv_lsm_newest_memtable_bytes(const struct vv_lsm *lsm);
/* Records of commits > `commit` go to a new memtable. No record of such a commit may exist yet.
 * -ENOMEM. */
MUST_CHECK int vv_lsm_rotate(struct vv_lsm *lsm, uint64_t commit);
/* Changes when tables are replaced by others (a flush, a compaction): what was fetched before is then pinned in vain. */
uint64_t vv_lsm_version(const struct vv_lsm *lsm);
/* The last commit of the oldest memtable that was rotated out; 0 = there is none. */
uint64_t vv_lsm_flushable_commit(const struct vv_lsm *lsm);

struct vv_lsm_edit; /* tables added and removed, memtables flushed */

/* Write all rotated memtables whose commits are <= `commit` as level-0 tables. All their commits
 * must be finalised: they take no more writes, even if this fails. *out_edit is the caller's. One
 * at a time. Suspends. Errors of options.put, -ENOMEM. */
MUST_CHECK int vv_lsm_prepare_flush(struct vv_lsm *lsm, uint64_t commit,
                                    struct vv_lsm_edit **out_edit);
/* How urgent compaction is: 0 = nothing to do; >= 1000 = due. And whether writers must wait for it.
 */
unsigned vv_lsm_compaction_score(const struct vv_lsm *lsm);
bool vv_lsm_is_stalled(const struct vv_lsm *lsm);
/* Pick and do one compaction. *out_edit NULL when there is nothing to do. One at a time; a flush
 * may run beside it. Suspends. Errors of options.put and of reading tables (the tree stays as it
 * is), -ENOMEM. */
MUST_CHECK int vv_lsm_prepare_compaction(struct vv_lsm *lsm, struct vv_lsm_edit **out_edit);
/* The tables as they will be with `edit` (NULL: as they are), in the manifest's order; deep copies
 * that the caller frees with vv_table_refs_free. -ENOMEM. */
MUST_CHECK int vv_lsm_tables(const struct vv_lsm *lsm, const struct vv_lsm_edit *edit,
                             struct vv_table_ref **out_tables, size_t *out_count);
void vv_table_refs_free(struct vv_table_ref *tables, size_t count);
/* The manifest with these tables is confirmed: use them. Frees the edit. Cannot fail. */
void vv_lsm_apply(struct vv_lsm *lsm, struct vv_lsm_edit *edit);
/* Give up; its tables become dead. */
void vv_lsm_abandon(struct vv_lsm *lsm, struct vv_lsm_edit *edit);
/* The id of a table that nothing uses any more (removed by an applied edit, no reader left): the
 * caller deletes the object when PROTOCOL 14 allows. The keys of *out_table are left out. false =
 * none. */
bool vv_lsm_next_dead(struct vv_lsm *lsm, struct vv_table_ref *out_table);
/* The ids of all tables of epochs below `epoch` that this process knows: part of the tree, still read by
 * somebody, or dead and not yet given out. Ascending; the caller frees *out_ids. None is ever added to them, since
 * new tables are of the newest epoch. -ENOMEM. */
struct vv_table_id {
    uint64_t epoch;
    uint64_t counter;
};
MUST_CHECK int vv_lsm_table_ids(const struct vv_lsm *lsm, uint64_t epoch,
                                struct vv_table_id **out_ids, size_t *out_count);
bool vv_table_ids_have(const struct vv_table_id *ids, size_t count, uint64_t epoch,
                       uint64_t counter);
void vv_table_name(uint64_t epoch, uint64_t counter, char *name, size_t size);
MUST_CHECK int vv_table_name_parse(const char *name, uint64_t *out_epoch, uint64_t *out_counter);

struct vv_lsm_stats {
    uint64_t tables[VV_LSM_LEVELS_MAX];
    uint64_t bytes[VV_LSM_LEVELS_MAX];
    uint64_t bytes_flushed;     /* of tables written by flushes since opening */
    uint64_t bytes_compacted;   /* of tables written by compactions since opening */
    uint64_t gets, blocks_read; /* blocks looked into by gets: read amplification */
    uint64_t memtable_bytes;
};
void vv_lsm_stats(const struct vv_lsm *lsm, struct vv_lsm_stats *out_stats);
/* Check one table wholly, as it is in the store: every block authenticates, keys ascend, index,
 * filter, bounds and counts agree with them and with `ref`. Calls record() if given for each
 * record; what it returns below 0 ends the check. Suspends. For fsck. -VV_ERR_AUTH,
 * -VV_ERR_CHECKSUM, -VV_ERR_FORMAT, -VV_ERR_CORRUPT (parts that contradict each other), store
 * errors, -ENOMEM. */
MUST_CHECK int vv_table_check(struct vv_lsm *lsm, const struct vv_table_ref *ref,
                              int (*record)(void *arg, enum vv_lsm_kind kind, struct vv_bytes key,
                                            struct vv_bytes value),
                              void *arg);

#endif
