/* The RAM cache and the memory budget.
 *
 * A budget is a tree of shares: charging a share charges its parents. The cache holds
 * reference-counted byte blocks keyed by (space, a, b), e.g. (object, offset); unreferenced blocks
 * are evicted (a scan-resistant second-chance order: a block that was used once leaves before one
 * that was used twice) when the cache is above its size, or its budget or one above that is over
 * its limit. Referenced blocks are pinned. Concurrent misses of one key share one load. One
 * reactor; functions that suspend say so.
 *
 * Order of eviction (segmented LRU): a block that nobody references stands in one of two queues,
 * `once` or `often`; the head of `once` leaves first, then the head of `often`. A block that is
 * used for the second time moves to `often` when it is released. `often` holds at most 80% of the
 * cache: what it has too much of goes from its head to the end of `once`, and needs another use to
 * come back. */
#ifndef VV_CACHE_CACHE_H
#define VV_CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "rt/rt.h"

struct vv_budget {
    struct vv_budget *parent;
    uint64_t limit;
    uint64_t used;
    uint64_t used_max;
    struct vv_list waiters; /* those who wait for room here, first come first */
};

/* `parent` (or NULL) must outlive it. Who raises `limit` later calls vv_budget_release(budget, 0),
 * so that those who wait see it. */
void vv_budget_init(struct vv_budget *budget, struct vv_budget *parent, uint64_t limit);
/* Charge without asking (what is bounded elsewhere, reserves). */
void vv_budget_charge(struct vv_budget *budget, uint64_t bytes);
/* Charge if there is room here and in all parents, and nobody waits for it: -VV_ERR_BUDGET. A
 * request larger than the limit is granted when nothing else is charged. */
MUST_CHECK int vv_budget_try(struct vv_budget *budget, uint64_t bytes);
/* As try, but wait for room. First come first served: a small request does not overtake a large one
 * that waits for room in the same budget; requests that wait elsewhere in the tree do not hinder
 * each other. Suspends only when it has to wait. -ETIMEDOUT. */
MUST_CHECK int vv_budget_wait(struct vv_budget *budget, uint64_t bytes, uint64_t deadline_ns);
void vv_budget_release(struct vv_budget *budget, uint64_t bytes);

struct vv_cache;

struct vv_cache_key {
    uint64_t space; /* what a and b mean: VV_CACHE_* below, in the top byte, and free bits */
    uint64_t a;
    uint64_t b;
};
#define VV_CACHE_SST (1ull << 56)    /* blocks of tables */
#define VV_CACHE_FRAME (2ull << 56)  /* plain file data */
#define VV_CACHE_OBJECT (3ull << 56) /* sealers and directories of objects */

struct vv_cache_group;

/* A block: its bytes are immutable once loaded. `data`, `len` and `key` are for everybody who holds
 * a reference, who may also set `destroy`; the rest is the cache's. */
struct vv_block {
    struct vv_map_node node;
    struct vv_list lru;
    struct vv_cache_key key;
    struct vv_cache *cache;
    void (*destroy)(void *data, size_t len); /* NULL: vv_free */
    uint8_t *data;
    size_t len;    /* bytes of data */
    size_t charge; /* bytes counted against the cache */
    uint32_t refs;
    int8_t heat;   /* how often it was used: 0, 1, or 2 for more */
    bool is_often; /* which of the two queues it is in, while refs is 0 */
    bool is_loading;
    bool is_dropped; /* not in the map any more: freed with the last reference */
    int error;       /* why loading failed */
    struct vv_waitq loaded;
    struct vv_cache_group *group; /* all blocks with the same (space, a) */
    struct vv_list in_group;
};

/* `budget` is charged with everything that is cached. -ENOMEM. */
MUST_CHECK int vv_cache_new(struct vv_budget *budget, uint64_t size_bytes,
                            struct vv_cache **out_cache);
/* No block may be referenced any more. */
void vv_cache_free(struct vv_cache *cache);
void vv_cache_resize(struct vv_cache *cache, uint64_t size_bytes);
uint64_t vv_cache_size(const struct vv_cache *cache);
/* Bytes that can come in before others are evicted. */
uint64_t vv_cache_room(const struct vv_cache *cache);

/* The block if it is there and loaded, with a reference; NULL otherwise. Does not suspend. */
struct vv_block *vv_cache_peek(struct vv_cache *cache, const struct vv_cache_key *key);
/* As peek, but it counts as a use only when vv_block_use says so. */
struct vv_block *vv_cache_hold(struct vv_cache *cache, const struct vv_cache_key *key);
void vv_block_use(struct vv_block *block);
/* The block, loaded by load(arg, &data, &len) if it is missing (load may suspend; data is
 * vv_alloc'ed and becomes the block's). If another fiber is loading it, wait for that one, and
 * share its error if it fails; a failed load leaves nothing behind. Suspends. Load's error,
 * -ENOMEM. */
MUST_CHECK int vv_cache_get(struct vv_cache *cache, const struct vv_cache_key *key,
                            int (*load)(void *arg, uint8_t **out_data, size_t *out_len), void *arg,
                            struct vv_block **out_block);
/* Put bytes that are known (just written, or read along with others). Takes `data` over in any
 * case. Replaces nothing: if the key is there already, or being loaded, that one stays. Does not
 * suspend. out_block may be NULL; else *out_block receives a reference (NULL when memory failed).
 * Is not counted as a use. */
void vv_cache_put(struct vv_cache *cache, const struct vv_cache_key *key, uint8_t *data, size_t len,
                  struct vv_block **out_block);
/* For loading many blocks with few requests. 1: the block is there, *out_block holds it. 0: somebody
 * loads it: *out_block holds it, wait with vv_block_wait. 2: it is missing and the caller's to load,
 * who must call vv_block_end or vv_block_fail soon, whatever happens: others wait for it. Does not
 * suspend. -ENOMEM. */
MUST_CHECK int vv_cache_begin(struct vv_cache *cache, const struct vv_cache_key *key,
                              struct vv_block **out_block);
/* As begin, but makes nothing: -ENOENT when it is missing. */
MUST_CHECK int vv_cache_find(struct vv_cache *cache, const struct vv_cache_key *key,
                             struct vv_block **out_block);
/* The bytes of a block begun, whose reference the caller keeps. Takes `data` over. */
void vv_block_end(struct vv_block *block, uint8_t *data, size_t len);
/* Loading failed: everybody who waits gets `err`. The caller's reference is dropped. */
void vv_block_fail(struct vv_block *block, int err);
/* Wait until a block that was found is loaded. Its loader's error: then the reference is dropped.
 * Suspends when it is not loaded yet. */
MUST_CHECK int vv_block_wait(struct vv_block *block);
/* As vv_cache_put, for what is likely to be asked for again though nobody has yet: it counts as used often, so
 * that bulk data does not push it out. */
void vv_cache_put_warm(struct vv_cache *cache, const struct vv_cache_key *key, uint8_t *data,
                       size_t len);
/* Loading it was no use: it was read ahead. Call it when the load has ended. */
void vv_block_cool(struct vv_block *block);
void vv_block_ref(struct vv_block *block);
/* NULL is fine. */
void vv_block_unref(struct vv_block *block);
/* Forget a key, or all keys with (space, a); referenced ones go when released, and those being
 * loaded are still given to who waits for them. */
void vv_cache_drop(struct vv_cache *cache, const struct vv_cache_key *key);
void vv_cache_drop_all(struct vv_cache *cache, uint64_t space, uint64_t a);

struct vv_cache_stats {
    uint64_t hits, misses, evictions; /* waiting for another's load is a hit */
    uint64_t bytes, blocks;           /* held now, bookkeeping included */
};
void vv_cache_stats(const struct vv_cache *cache, struct vv_cache_stats *out_stats);

#endif
