/* The tree: memtables, levels of tables, what is dead, and edits. Private to lsm; one reactor. */
#ifndef VV_LSM_LSM_IMPL_H
#define VV_LSM_LSM_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "lsm/lsm.h"
#include "lsm/memtable_impl.h"
#include "lsm/table_impl.h"

#define VV_LSM_PARALLEL_MAX 32 /* fibers that read for one caller */
#define VV_LSM_TABLE_BYTES_DEFAULT (8ull << 20)
#define VV_LSM_LEVEL1_BYTES_DEFAULT (64ull << 20)
#define VV_LSM_LEVEL_FACTOR 10

/* The tables of a level in the order of the manifest: level 0 by order and then key, the others by
 * key. A run is a row of tables that do not overlap: those of one flush in level 0, all of another
 * level. */
struct vv_level {
    struct vv_table **tables;
    size_t *run_starts; /* as many as tables; index of the first table of each run */
    size_t count;
    size_t run_count;
    size_t capacity; /* of both arrays */
    size_t promised; /* tables that prepared edits may add */
    uint64_t bytes;
};

struct vv_lsm {
    struct vv_lsm_options options;
    struct vv_list memtables; /* oldest first; the last one is written to */
    struct vv_level levels[VV_LSM_LEVELS_MAX];
    struct vv_list dying;  /* tables that are no part of the tree any more and still read */
    struct vv_list dead;   /* tables for vv_lsm_next_dead */
    struct vv_list pinned; /* tables that hold their filter or index, longest unused first */
    uint64_t pinned_bytes;
    uint64_t next_counter;
    uint64_t next_order;
    uint64_t version; /* counts edits that were applied */
    uint64_t flushed_commit; /* the last commit that is wholly in tables */
    struct vv_block *held[VV_LSM_HELD_MAX];
    size_t held_next;
    bool is_flushing;
    bool is_compacting;
    /* Where the next compaction of a level begins to look: a key, owned. */
    uint8_t *compact_key[VV_LSM_LEVELS_MAX];
    size_t compact_key_len[VV_LSM_LEVELS_MAX];
    struct vv_lsm_stats stats; /* the counters only */
};

/* ---- levels ---- */

/* The only table of a run that can hold `key`, or NULL. */
struct vv_table *vv_run_find(struct vv_table *const *tables, size_t count, struct vv_bytes key);
/* The tables of a run that overlap [lower, upper) (upper.len 0: to the end), as *out_first and the
 * count returned. */
size_t vv_run_range(struct vv_table *const *tables, size_t count, struct vv_bytes lower,
                    struct vv_bytes upper, size_t *out_first);
/* As vv_run_range, for the keys from `min` to `max`, `max` included. */
size_t vv_run_overlap(struct vv_table *const *tables, size_t count, struct vv_bytes min,
                      struct vv_bytes max, size_t *out_first);
/* Run `number` of a level, counted from the oldest. */
struct vv_table *const *vv_level_run(const struct vv_level *level, size_t number,
                                     size_t *out_count);
/* Make room for `count` more tables, until that many were added or given back. -ENOMEM. */
MUST_CHECK int vv_level_promise(struct vv_level *level, size_t count);
/* Takes over a reference; uses up a promise. vv_level_settle must follow. */
void vv_level_add(struct vv_level *level, struct vv_table *table);
/* The caller takes the level's reference. vv_level_settle must follow. */
void vv_level_remove(struct vv_level *level, struct vv_table *table);
/* Find the runs again after a round of changes. */
void vv_level_settle(struct vv_level *level);
/* Whether the tables of each run ascend without overlap. */
bool vv_level_is_sound(const struct vv_level *level);

/* ---- reading ---- */

/* Keep a block in memory for pointers that were given out; takes the reference over. */
void vv_lsm_hold(struct vv_lsm *lsm, struct vv_block *block);
/* Nothing that was given out is valid any more: the caller is about to suspend. */
void vv_lsm_release_held(struct vv_lsm *lsm);
/* Call fn(arg, i) for i in 0..count-1 in up to VV_LSM_PARALLEL_MAX fibers at once, and wait.
 * Suspends. */
void vv_lsm_parallel(size_t count, void (*fn)(void *arg, size_t i), void *arg);
MUST_CHECK int vv_lsm_pin(struct vv_lsm_pins *pins, struct vv_block *block);

/* ---- edits ---- */

struct vv_lsm_edit {
    struct vv_table **added; /* with the edit's references */
    size_t added_count;
    size_t added_capacity;
    struct vv_table **removed; /* with the edit's references, besides the level's */
    size_t removed_count;
    bool is_move; /* the removed tables go to `level`, unchanged */
    bool is_flush;
    unsigned level;   /* that tables are added to */
    uint64_t flushed; /* flush: the last commit of the memtables written */
    size_t promised;  /* tables promised in `level` */
};

/* -ENOMEM. */
MUST_CHECK int vv_edit_new(unsigned level, struct vv_lsm_edit **out_edit);
/* Takes over the reference, also when it fails. -ENOMEM. */
MUST_CHECK int vv_edit_add(struct vv_lsm_edit *edit, struct vv_table *table);
/* Promise room for what was added. -ENOMEM. */
MUST_CHECK int vv_edit_promise(struct vv_lsm *lsm, struct vv_lsm_edit *edit);

#endif
