/* The merge source over a run of tables, which are read in order, a stretch of sealed blocks per
 * request.
 *
 * Filling suspends and belongs to a fiber. Advancing does not: it opens the next block out of the
 * bytes read, on any thread when the cache is not used. With a cache (scans), blocks are taken from
 * it, and those that are missing are loaded into it, several in one request; without (compaction,
 * checks), it is left alone, and the next stretch is read by a fiber while this one is used. */
#ifndef VV_LSM_RUN_SOURCE_IMPL_H
#define VV_LSM_RUN_SOURCE_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lsm/merge_impl.h"
#include "lsm/table_impl.h"

#define VV_READ_AHEAD_MIN (32u << 10)
#define VV_READ_AHEAD_MAX (1u << 20)

/* Sealed bytes of blocks first..end-1 of a table. */
struct vv_stretch {
    uint8_t *bytes;
    size_t capacity;
    size_t len;
    uint32_t first;
    uint32_t end;
};

struct vv_run_source {
    struct vv_source source;  /* first */
    struct vv_table **tables; /* owned array of references */
    size_t table_count;
    size_t table_next;
    struct vv_cache *cache; /* NULL: not used */
    struct vv_bytes lower;  /* borrowed from the owner */
    struct vv_bytes upper;  /* len 0 = to the end */
    size_t stretch_max;
    size_t stretch_len; /* bytes of the next request, at most; doubles */
    /* The table being read. */
    struct vv_block *index;
    uint32_t block_next; /* to be opened next */
    uint32_t block_end;
    bool is_seeking; /* the next block opened begins at `lower` */
    struct vv_stretch raw;
    size_t raw_at;
    uint32_t raw_next; /* block at raw_at */
    /* What is read ahead; only fibers look at these. */
    struct vv_stretch ahead;
    bool is_reading;
    int read_error;
    struct vv_waitq read_ended;
    /* The block stood in: from the cache or owned. */
    struct vv_block *block;
    struct vv_block *block_ahead; /* block_next, found in the cache */
    uint8_t *plain;
    bool is_open;
    struct vv_block_iter iter;
};

/* References are taken on the tables. -ENOMEM. */
MUST_CHECK int vv_run_source_init(struct vv_run_source *run, struct vv_table *const *tables,
                                  size_t count, uint32_t rank, struct vv_cache *cache,
                                  struct vv_bytes lower, struct vv_bytes upper);
/* Safe on zeroed memory. Suspends while something is read ahead (never with a cache). */
void vv_run_source_done(struct vv_run_source *run);
/* Get what the next advance needs. Suspends. Errors as vv_table_load. */
MUST_CHECK int vv_run_source_fill(struct vv_run_source *run);

#endif
