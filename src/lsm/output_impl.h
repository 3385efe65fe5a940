/* Writing merged records out as tables: the common part of flush and compaction.
 *
 * Workers merge, build and seal in slices of VV_OUTPUT_SLICE_BLOCKS blocks, so that they are free
 * for others every few milliseconds; the fiber reads input and puts finished tables, one being put
 * while the next is built. Private to lsm. */
#ifndef VV_LSM_OUTPUT_IMPL_H
#define VV_LSM_OUTPUT_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lsm/lsm_impl.h"
#include "lsm/merge_impl.h"
#include "lsm/run_source_impl.h"

#define VV_OUTPUT_SLICE_BLOCKS 16
#define VV_OUTPUT_SLICE_RECORDS 20000 /* when most records are dropped */
#define VV_OUTPUT_PUTS_MAX 2          /* tables being put while the next is built */

/* Tables of one level below the output, in key order, and the place reached among them. */
struct vv_below {
    struct vv_table **tables; /* referenced */
    size_t count;
    size_t next;
};

struct vv_output {
    struct vv_lsm *lsm;
    struct vv_merge merge;
    struct vv_run_source *runs; /* those of the merge's sources that may starve */
    size_t run_count;
    struct vv_run_source **starved; /* room for as many */
    size_t starved_count;
    struct vv_lsm_edit *edit; /* gets the tables */
    uint64_t order;           /* of the new tables (level 0) */
    /* Tables that may hold older records of the same keys: deletes must be kept for them. */
    struct vv_below below[VV_LSM_LEVELS_MAX];
    bool is_bottom_known; /* false (flush): keep all deletes */
    /* The table being built. */
    struct vv_table_builder *builder;
    struct vv_table *table;
    /* What the last slice came to. */
    int result;
    bool is_finishing;
    /* Puts under way. */
    size_t puts;
    int put_error;
    struct vv_waitq put_ended;
    uint64_t bytes; /* of all tables put */
};

/* Room for `runs` sources over runs and `others` over memtables. -ENOMEM. */
MUST_CHECK int vv_output_init(struct vv_output *output, struct vv_lsm *lsm, size_t runs,
                              size_t others);
/* Merge everything and put the tables; on failure what was put stays in the edit. Suspends. */
MUST_CHECK int vv_output_run(struct vv_output *output);
/* Release everything but the edit. Safe on zeroed memory. */
void vv_output_done(struct vv_output *output);

#endif
