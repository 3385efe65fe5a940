/* The memtable: an ordered map in an arena. A hash table answers point reads, a B-tree gives the
 * order; both hold the same entries, which never go away before the memtable does.
 *
 * An entry is a key and its versions, newest commit first, one for each commit. A version of kind
 * MERGE keeps two pairs of numbers: what its own commit added, and the total of all versions from
 * itself down, so that a read of the newest version needs no walk. `is_complete` says that what
 * lies below (older memtables, tables) does not matter.
 *
 * Charged to a budget by the chunk. One reactor; once sealed (being flushed) it does not change and
 * workers may read it. Nothing suspends. */
#ifndef VV_LSM_MEMTABLE_IMPL_H
#define VV_LSM_MEMTABLE_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/list.h"
#include "cache/cache.h"
#include "lsm/lsm.h"
#include "lsm/mem_tree_impl.h"

#define VV_MEM_SEGMENT_BUCKETS 1024 /* buckets of the hash table are made in segments */
#define VV_MEM_SEGMENTS_MAX 1024    /* more entries than buckets make the chains longer */
#define VV_MEM_CHUNK_MIN ((size_t)64 << 10)
#define VV_MEM_CHUNK_MAX ((size_t)1 << 20)
#define VV_MEM_FREE_NOW_MAX ((size_t)512 << 10) /* larger memtables are freed by and by */
#define VV_MEM_CHUNK_NODE_BYTES 16              /* bookkeeping at the start of a chunk */

struct vv_mem_version {
    struct vv_mem_version *older;       /* of the same key */
    struct vv_mem_version *commit_next; /* of the same commit, in the order of writing */
    struct vv_mem_entry *entry;
    uint64_t commit;
    uint8_t kind;     /* enum vv_lsm_kind */
    bool is_reset;    /* MERGE: its commit deleted the key first */
    bool is_complete; /* nothing below this memtable matters */
    uint32_t value_len;
    uint32_t capacity;
    union {
        uint8_t *value;           /* PUT; kept over a DELETE */
        struct vv_mem_sums *sums; /* MERGE */
        void *space;              /* `capacity` bytes */
    };
};

struct vv_mem_sums {
    int64_t own_a, own_b;     /* what this commit added */
    int64_t total_a, total_b; /* with the older versions in this memtable */
};

struct vv_mem_entry {
    struct vv_mem_entry *hash_next;
    uint64_t hash; /* vv_xxh3 of the key */
    struct vv_mem_version *newest;
    struct vv_mem_entry *next; /* in key order */
    uint16_t key_len;
    uint8_t key[];
};

/* The records of one commit. */
struct vv_mem_commit {
    struct vv_mem_commit *older;
    uint64_t number;
    struct vv_mem_version *first;
    struct vv_mem_version *last;
    uint64_t records;
    uint64_t bytes; /* of keys and values */
};

struct vv_mem_chunk;

struct vv_memtable {
    struct vv_list link; /* in vv_lsm.memtables */
    uint32_t refs;
    uint64_t last_commit; /* UINT64_MAX for the newest */
    bool is_sealed;       /* being flushed: no writes */
    uint64_t changes;     /* counts writes, for iterators */
    uint64_t entry_count;
    struct vv_mem_commit *commits; /* newest first */
    /* The arena. */
    struct vv_budget *budget;
    struct vv_mem_chunk *chunks;
    struct vv_mem_chunk *spare; /* what a reserve guarantees, when the current chunk is too small */
    uint8_t *free_ptr;
    size_t free_len;
    size_t bytes; /* of all chunks */
    /* The index. */
    uint64_t seed;
    size_t bucket_count;
    struct vv_mem_entry **segments[VV_MEM_SEGMENTS_MAX];
    struct vv_mem_tree tree;
    struct vv_mem_entry *head; /* no record: the one before the first */
};

/* -ENOMEM. */
MUST_CHECK int vv_memtable_new(struct vv_budget *budget, struct vv_memtable **out_mem);
void vv_memtable_ref(struct vv_memtable *mem);
/* NULL is fine. The budget is given back at once, the memory of a large one by a fiber, soon. */
void vv_memtable_unref(struct vv_memtable *mem);
/* Writes of `records` records with `bytes` bytes of keys and values cannot fail after this, until
 * as many were made. Not added up: the largest call counts. -ENOMEM. */
MUST_CHECK int vv_memtable_reserve(struct vv_memtable *mem, size_t records, size_t bytes);
/* Reserved memory: cannot fail. */
void *vv_memtable_alloc(struct vv_memtable *mem, size_t len);
/* No more writes; gives the reserve back. */
void vv_memtable_seal(struct vv_memtable *mem);

void vv_memtable_put(struct vv_memtable *mem, uint64_t commit, uint64_t hash, struct vv_bytes key,
                     struct vv_bytes value);
void vv_memtable_delete(struct vv_memtable *mem, uint64_t commit, uint64_t hash,
                        struct vv_bytes key);
void vv_memtable_merge(struct vv_memtable *mem, uint64_t commit, uint64_t hash, struct vv_bytes key,
                       int64_t a, int64_t b);

/* NULL when it is not there. */
struct vv_mem_entry *vv_memtable_find(const struct vv_memtable *mem, uint64_t hash,
                                      struct vv_bytes key);
/* The newest version not above `commit`, or NULL. */
struct vv_mem_version *vv_mem_version_at(const struct vv_mem_entry *entry, uint64_t commit);
/* The last entry below `key`; the head when there is none. Its `next` is the first not below. */
struct vv_mem_entry *vv_memtable_before(const struct vv_memtable *mem, struct vv_bytes key);
/* The records of a commit, or NULL. */
const struct vv_mem_commit *vv_memtable_commit(const struct vv_memtable *mem, uint64_t number);

static inline struct vv_bytes vv_mem_entry_key(const struct vv_mem_entry *entry)
{
    return (struct vv_bytes){entry->key, entry->key_len};
}

/* Two signed numbers as a merged value is stored: two svarints, at most VV_SUMS_LEN_MAX bytes. */
#define VV_SUMS_LEN_MAX 20
size_t vv_sums_encode(int64_t a, int64_t b, uint8_t out[VV_SUMS_LEN_MAX]);
/* -VV_ERR_FORMAT. */
MUST_CHECK int vv_sums_decode(struct vv_bytes value, int64_t *out_a, int64_t *out_b);
/* Sums wrap around. */
static inline int64_t vv_sum(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}
static inline int64_t vv_difference(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a - (uint64_t)b);
}

#endif
