/* Merging sorted sources of records into one, with the newest record of each key.
 *
 * A source stands on a record or waits to be advanced. Advancing never suspends: a source that
 * needs input says -VV_ERR_MISS, the merge passes it on, and the owner fills all starved sources
 * and calls again. So a worker can merge while only fibers read. No locks: one user at a time. */
#ifndef VV_LSM_MERGE_IMPL_H
#define VV_LSM_MERGE_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "lsm/lsm.h"
#include "lsm/memtable_impl.h"

struct vv_source {
    /* Go to the next record (from one that was consumed, else look at the place again): 1, 0 at the
     * end, -VV_ERR_MISS when it must be filled first (then nothing has changed), or an error. */
    int (*next)(struct vv_source *source);
    uint32_t rank; /* of two records of a key the one with the lower rank is newer */
    bool is_consumed;
    bool is_starved;
    uint8_t kind; /* enum vv_lsm_kind */
    struct vv_bytes key;
    struct vv_bytes value;
};

struct vv_merge {
    struct vv_source **heap; /* those that stand on a record, by key, then rank */
    size_t heap_count;
    struct vv_source **waiting; /* those to be advanced */
    size_t waiting_count;
    uint8_t sums[VV_SUMS_LEN_MAX];
};

struct vv_record {
    uint8_t kind; /* MERGE: no put or delete was found below */
    struct vv_bytes key;
    struct vv_bytes value;
};

/* Room for `capacity` sources. -ENOMEM. */
MUST_CHECK int vv_merge_init(struct vv_merge *merge, size_t capacity);
/* Frees the arrays, not the sources. Safe on zeroed memory. */
void vv_merge_done(struct vv_merge *merge);
void vv_merge_add(struct vv_merge *merge, struct vv_source *source);
/* A source's content ahead of its place may have changed: look at it again. */
void vv_merge_restart(struct vv_merge *merge, struct vv_source *source);
/* The next key with its newest record, merges added up. 1, 0 at the end, -VV_ERR_MISS when sources
 * are starved, or a source's error. Valid until the next call. */
MUST_CHECK int vv_merge_next(struct vv_merge *merge, struct vv_record *out_record);

/* ---- the source over a memtable: entries in [lower, upper) ---- */

struct vv_mem_source {
    struct vv_source source; /* first */
    struct vv_memtable *mem;
    struct vv_mem_entry *before; /* the entry before the one stood on */
    struct vv_mem_entry *entry;  /* the one stood on, or NULL */
    struct vv_bytes lower;       /* this and the next two are borrowed from the owner */
    struct vv_bytes upper;       /* len 0 = to the end */
    struct vv_bytes passed;      /* keys up to this one are over (len 0 = none); set by the owner */
    uint64_t changes;            /* mem->changes when it was last looked at */
    uint8_t sums[VV_SUMS_LEN_MAX];
};

/* Holds no reference to `mem`. */
void vv_mem_source_init(struct vv_mem_source *source, struct vv_memtable *mem, uint32_t rank,
                        struct vv_bytes lower, struct vv_bytes upper);

#endif
