/* An open table: what the manifest says about it, its sealer and footer once they were read, and
 * its filter and index while they are hot. Private to lsm; one reactor.
 *
 * Filter, index and blocks live in the cache under (VV_CACHE_SST + epoch, counter, block number or
 * VV_TABLE_FILTER, VV_TABLE_INDEX). A table that is used holds a reference on its filter and index,
 * so that a get does not look them up; such references are given up, least used first, above half
 * of the cache. */
#ifndef VV_LSM_TABLE_IMPL_H
#define VV_LSM_TABLE_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "cache/cache.h"
#include "lsm/lsm.h"
#include "lsm/table_format.h"
#include "rt/rt.h"

#define VV_TABLE_FILTER (1ull << 32) /* block numbers of the cache key */
#define VV_TABLE_INDEX (VV_TABLE_FILTER + 1)
#define VV_TABLE_CHECKED (1ull << 55) /* in the space of the cache key */
#define VV_TABLE_PIN_TRIES_MAX 16     /* tables looked at to find one that is not hot */

#define VV_TABLE_READERS_MAX 4

/* Somebody who goes through a table in order. */
struct vv_table_reader {
    uint32_t next;  /* the block expected next */
    uint32_t bytes; /* of the last request; doubles */
    uint32_t used;  /* reader_clock then */
};

struct vv_table {
    struct vv_list link; /* in vv_lsm.dying or vv_lsm.dead */
    struct vv_lsm *lsm;
    struct vv_table_ref ref; /* keys owned */
    uint32_t refs;
    bool is_dead;    /* no part of the tree any more: goes to vv_lsm.dead with the last reference */
    bool is_checked; /* by vv_table_check: has blocks of its own in the cache */
    /* Known once the table was opened. */
    struct vv_sealer *sealer;
    struct vv_table_footer footer;
    bool is_loading;
    int load_error; /* of the last load that ended */
    struct vv_waitq loaded;
    /* References held while hot. */
    struct vv_list pinned; /* in vv_lsm.pinned */
    struct vv_block *filter;
    struct vv_block *index;
    bool is_hot; /* used since the last look */
    struct vv_table_reader readers[VV_TABLE_READERS_MAX];
    uint32_t reader_clock;
};

/* A table object with a copy of `ref` and one reference. -ENOMEM. */
MUST_CHECK int vv_table_new(struct vv_lsm *lsm, const struct vv_table_ref *ref,
                            struct vv_table **out_table);
void vv_table_ref(struct vv_table *table);
/* NULL is fine. */
void vv_table_unref(struct vv_table *table);
/* Frees it whatever its references. */
void vv_table_free(struct vv_table *table);
struct vv_bytes vv_table_min(const struct vv_table *table);
struct vv_bytes vv_table_max(const struct vv_table *table);

/* Where a search in one table ended. */
struct vv_table_hit {
    struct vv_block *block; /* referenced; the value lies in it */
    enum vv_lsm_kind kind;
    struct vv_bytes value;
};
/* 1 = found, 0 = not here, -VV_ERR_MISS when filter, index or block is not in memory,
 * -VV_ERR_FORMAT. Does not suspend. */
MUST_CHECK int vv_table_find(struct vv_table *table, struct vv_bytes key, uint64_t hash,
                             struct vv_table_hit *out_hit);

/* The filter or index (`number`) of a table that was just written: into the cache, with the table's
 * reference. Takes `data` over; does nothing when memory is short. */
void vv_table_keep(struct vv_table *table, uint64_t number, uint8_t *data, size_t len);

/* Give up references on filters and indexes until what is pinned is less than half of the cache. */
void vv_table_pins_trim(struct vv_lsm *lsm);

/* ---- loading; all suspend ---- */

/* The filter, or the index, or both (an out that is NULL is not wanted), with references.
 * -VV_ERR_AUTH, -VV_ERR_CHECKSUM, -VV_ERR_FORMAT, store errors, -ENOMEM. */
MUST_CHECK int vv_table_load(struct vv_table *table, struct vv_block **out_filter,
                             struct vv_block **out_index);
/* Block `number`, with a reference. Errors as above. */
MUST_CHECK int vv_table_load_block(struct vv_table *table, const struct vv_block *index,
                                   uint32_t number, struct vv_block **out_block);
/* As vv_table_load_block; missing blocks behind it, below `end`, come along in the same request: up to `bytes`,
 * or more when a reader goes through the table in order. */
MUST_CHECK int vv_table_load_blocks(struct vv_table *table, const struct vv_block *index,
                                    uint32_t number, uint32_t end, size_t bytes,
                                    struct vv_block **out_block);
/* The cache key of a block. */
struct vv_cache_key vv_table_cache_key(const struct vv_table *table, uint64_t number);
/* Read `len` bytes at `offset` of the table's object, all of them. -VV_ERR_FORMAT when it is too
 * short. */
MUST_CHECK int vv_table_read(struct vv_table *table, uint64_t offset, size_t len, uint8_t *out);
/* Open block `number` from its sealed bytes into memory that the caller frees. Does not suspend;
 * any thread. -VV_ERR_AUTH, -VV_ERR_CHECKSUM, -VV_ERR_FORMAT, -ENOMEM. */
MUST_CHECK int vv_table_open_block(const struct vv_table *table, uint32_t number,
                                   const uint8_t *frame, size_t len, uint8_t **out_plain,
                                   size_t *out_len);

#endif
