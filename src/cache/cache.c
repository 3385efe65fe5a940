#include "cache/cache.h"

#include <assert.h>
#include <errno.h>

#include "base/alloc.h"
#include "base/hash.h"

#define HEAT_MAX 2
#define OFTEN_PERCENT 80 /* of the cache, at most, for blocks used more than once */

/* All blocks with one (space, a), so that they can be dropped together. */
struct vv_cache_group {
    struct vv_map_node node;
    uint64_t space;
    uint64_t a;
    struct vv_list blocks;
};

struct vv_cache {
    struct vv_budget *budget;
    uint64_t size;        /* bytes above which blocks are evicted */
    uint64_t often_bytes; /* charges of the blocks in `often` */
    struct vv_map blocks;
    struct vv_map groups;
    struct vv_list once; /* unreferenced blocks, the next to go first */
    struct vv_list often;
    struct vv_cache_stats stats;
};

static uint64_t hash_group(uint64_t space, uint64_t a)
{
    return vv_mix64(space + vv_mix64(a));
}

static uint64_t hash_key(const struct vv_cache_key *key)
{
    return vv_mix64(hash_group(key->space, key->a) + key->b);
}

static struct vv_block *find_block(const struct vv_cache *cache, const struct vv_cache_key *key)
{
    struct vv_map_node *at = vv_map_find(&cache->blocks, hash_key(key));
    for (; at; at = vv_map_next(at)) {
        struct vv_block *block = vv_container_of(at, struct vv_block, node);
        if (block->key.space == key->space && block->key.a == key->a && block->key.b == key->b)
            return block;
    }
    return NULL;
}

static struct vv_cache_group *find_group(const struct vv_cache *cache, uint64_t space, uint64_t a)
{
    struct vv_map_node *at = vv_map_find(&cache->groups, hash_group(space, a));
    for (; at; at = vv_map_next(at)) {
        struct vv_cache_group *group = vv_container_of(at, struct vv_cache_group, node);
        if (group->space == space && group->a == a)
            return group;
    }
    return NULL;
}

static struct vv_cache_group *find_or_new_group(struct vv_cache *cache, uint64_t space, uint64_t a)
{
    struct vv_cache_group *group = find_group(cache, space, a);
    if (group)
        return group;
    group = vv_zalloc(sizeof(*group));
    if (!group)
        return NULL;
    group->space = space;
    group->a = a;
    vv_list_init(&group->blocks);
    vv_map_insert(&cache->groups, &group->node, hash_group(space, a));
    return group;
}

/* ---- blocks ---- */

/* A block without data and with one reference, in no map. */
static struct vv_block *new_block(struct vv_cache *cache, const struct vv_cache_key *key)
{
    struct vv_block *block = vv_zalloc(sizeof(*block));
    if (!block)
        return NULL;
    block->key = *key;
    block->cache = cache;
    block->refs = 1;
    block->is_dropped = true;
    vv_list_init(&block->lru);
    vv_list_init(&block->in_group);
    vv_waitq_init(&block->loaded);
    return block;
}

/* Make a new block findable. -ENOMEM. */
static int attach(struct vv_cache *cache, struct vv_block *block)
{
    block->group = find_or_new_group(cache, block->key.space, block->key.a);
    if (!block->group)
        return -ENOMEM;
    vv_list_push_back(&block->group->blocks, &block->in_group);
    vv_map_insert(&cache->blocks, &block->node, hash_key(&block->key));
    block->is_dropped = false;
    return 0;
}

/* Make a block unfindable; it lives on while it is referenced. */
static void detach(struct vv_block *block)
{
    struct vv_cache *cache = block->cache;
    if (block->is_dropped)
        return;
    block->is_dropped = true;
    vv_map_remove(&cache->blocks, &block->node);
    vv_list_remove(&block->in_group);
    if (vv_list_is_empty(&block->group->blocks)) {
        vv_map_remove(&cache->groups, &block->group->node);
        vv_free(block->group);
    }
    block->group = NULL;
}

/* Give a block its bytes, and charge for them. */
static void fill(struct vv_block *block, uint8_t *data, size_t len)
{
    block->data = data;
    block->len = len;
    block->charge = sizeof(*block) + len;
    block->cache->stats.bytes += block->charge;
    block->cache->stats.blocks++;
    vv_budget_charge(block->cache->budget, block->charge);
}

static void free_block(struct vv_block *block)
{
    struct vv_cache *cache = block->cache;
    size_t charge = block->charge;
    assert(block->refs == 0);
    assert(block->is_dropped);
    if (block->data && block->destroy)
        block->destroy(block->data, block->len);
    else
        vv_free(block->data);
    vv_free(block);
    if (charge == 0)
        return;
    cache->stats.bytes -= charge;
    cache->stats.blocks--;
    vv_budget_release(cache->budget, charge);
}

/* ---- the order of eviction ---- */

static void enqueue(struct vv_block *block, bool is_often)
{
    struct vv_cache *cache = block->cache;
    block->is_often = is_often;
    if (is_often)
        cache->often_bytes += block->charge;
    vv_list_push_back(is_often ? &cache->often : &cache->once, &block->lru);
}

static void dequeue(struct vv_block *block)
{
    if (block->is_often)
        block->cache->often_bytes -= block->charge;
    block->is_often = false;
    vv_list_remove(&block->lru);
}

/* The next block to go, NULL when all are referenced. */
static struct vv_block *find_victim(const struct vv_cache *cache)
{
    if (!vv_list_is_empty(&cache->once))
        return vv_list_first(&cache->once, struct vv_block, lru);
    if (!vv_list_is_empty(&cache->often))
        return vv_list_first(&cache->often, struct vv_block, lru);
    return NULL;
}

static bool is_over(const struct vv_cache *cache)
{
    if (cache->stats.bytes > cache->size)
        return true;
    for (const struct vv_budget *at = cache->budget; at; at = at->parent) {
        if (at->used > at->limit)
            return true;
    }
    return false;
}

static void evict(struct vv_cache *cache)
{
    uint64_t often_max = cache->size / 100 * OFTEN_PERCENT;
    while (cache->often_bytes > often_max) {
        struct vv_block *block = vv_list_first(&cache->often, struct vv_block, lru);
        dequeue(block);
        block->heat = 1;
        enqueue(block, false);
    }
    while (is_over(cache)) {
        struct vv_block *block = find_victim(cache);
        if (!block)
            return;
        dequeue(block);
        detach(block);
        free_block(block);
        cache->stats.evictions++;
    }
}

/* Take a reference on a block that was found. */
static struct vv_block *use(struct vv_block *block)
{
    vv_block_ref(block);
    vv_block_use(block);
    return block;
}

void vv_block_ref(struct vv_block *block)
{
    if (block->refs++ == 0)
        dequeue(block);
}

void vv_block_unref(struct vv_block *block)
{
    if (!block)
        return;
    struct vv_cache *cache = block->cache;
    assert(block->refs > 0);
    if (--block->refs > 0)
        return;
    if (block->is_dropped) {
        free_block(block);
        return;
    }
    enqueue(block, block->heat >= HEAT_MAX);
    evict(cache);
}

/* ---- the cache ---- */

int vv_cache_new(struct vv_budget *budget, uint64_t size_bytes, struct vv_cache **out_cache)
{
    struct vv_cache *cache = vv_zalloc(sizeof(*cache));
    if (!cache)
        return -ENOMEM;
    cache->budget = budget;
    cache->size = size_bytes;
    vv_list_init(&cache->once);
    vv_list_init(&cache->often);
    if (vv_map_init(&cache->blocks) < 0 || vv_map_init(&cache->groups) < 0) {
        vv_cache_free(cache);
        return -ENOMEM;
    }
    *out_cache = cache;
    return 0;
}

void vv_cache_free(struct vv_cache *cache)
{
    struct vv_block *block;
    if (!cache)
        return;
    while ((block = find_victim(cache))) {
        dequeue(block);
        detach(block);
        free_block(block);
    }
    assert(cache->stats.blocks == 0);
    vv_map_done(&cache->blocks);
    vv_map_done(&cache->groups);
    vv_free(cache);
}

void vv_cache_resize(struct vv_cache *cache, uint64_t size_bytes)
{
    cache->size = size_bytes;
    evict(cache);
}

uint64_t vv_cache_size(const struct vv_cache *cache)
{
    return cache->size;
}

uint64_t vv_cache_room(const struct vv_cache *cache)
{
    uint64_t room = cache->stats.bytes < cache->size ? cache->size - cache->stats.bytes : 0;
    for (const struct vv_budget *at = cache->budget; at; at = at->parent) {
        uint64_t left = at->used < at->limit ? at->limit - at->used : 0;
        room = left < room ? left : room;
    }
    return room;
}

struct vv_block *vv_cache_peek(struct vv_cache *cache, const struct vv_cache_key *key)
{
    struct vv_block *block = vv_cache_hold(cache, key);
    if (block)
        vv_block_use(block);
    return block;
}

struct vv_block *vv_cache_hold(struct vv_cache *cache, const struct vv_cache_key *key)
{
    struct vv_block *block = find_block(cache, key);
    if (!block || block->is_loading)
        return NULL;
    vv_block_ref(block);
    return block;
}

void vv_block_use(struct vv_block *block)
{
    block->cache->stats.hits++;
    if (block->heat < HEAT_MAX)
        block->heat++;
}

int vv_cache_find(struct vv_cache *cache, const struct vv_cache_key *key,
                  struct vv_block **out_block)
{
    struct vv_block *block = find_block(cache, key);
    if (!block)
        return -ENOENT;
    *out_block = use(block);
    return !block->is_loading;
}

int vv_cache_begin(struct vv_cache *cache, const struct vv_cache_key *key,
                   struct vv_block **out_block)
{
    int found = vv_cache_find(cache, key, out_block);
    if (found >= 0)
        return found;
    cache->stats.misses++;
    struct vv_block *block = new_block(cache, key);
    if (!block)
        return -ENOMEM;
    int err = attach(cache, block);
    if (err < 0) {
        vv_block_unref(block);
        return err;
    }
    block->heat = 1;
    block->is_loading = true;
    *out_block = block;
    return 2;
}

void vv_block_end(struct vv_block *block, uint8_t *data, size_t len)
{
    assert(block->is_loading);
    block->is_loading = false;
    vv_waitq_wake_all(&block->loaded);
    fill(block, data, len);
    evict(block->cache);
}

void vv_block_fail(struct vv_block *block, int err)
{
    assert(block->is_loading && err < 0);
    block->is_loading = false;
    block->error = err;
    vv_waitq_wake_all(&block->loaded);
    detach(block);
    vv_block_unref(block);
}

void vv_block_cool(struct vv_block *block)
{
    if (block->heat > 0)
        block->heat--;
}

int vv_block_wait(struct vv_block *block)
{
    while (block->is_loading)
        (void)vv_waitq_wait(&block->loaded, VV_NEVER);
    int err = block->error;
    if (err < 0)
        vv_block_unref(block);
    return err;
}

int vv_cache_get(struct vv_cache *cache, const struct vv_cache_key *key,
                 int (*load)(void *arg, uint8_t **out_data, size_t *out_len), void *arg,
                 struct vv_block **out_block)
{
    uint8_t *data = NULL;
    size_t len = 0;
    struct vv_block *block;
    int found = vv_cache_begin(cache, key, &block);
    TRY(found);
    if (found < 2) {
        TRY(vv_block_wait(block));
        *out_block = block;
        return 0;
    }
    int err = load(arg, &data, &len);
    if (err < 0) {
        vv_block_fail(block, err);
        return err;
    }
    vv_block_end(block, data, len);
    *out_block = block;
    return 0;
}

/* A block with these bytes and one reference, which takes `data` over; findable if `is_findable`.
 * NULL when there is no memory. */
static struct vv_block *new_filled(struct vv_cache *cache, const struct vv_cache_key *key,
                                   uint8_t *data, size_t len, bool is_findable)
{
    struct vv_block *block = new_block(cache, key);
    if (block && is_findable && attach(cache, block) < 0) {
        vv_block_unref(block);
        block = NULL;
    }
    if (block)
        fill(block, data, len);
    else
        vv_free(data);
    return block;
}

void vv_cache_put(struct vv_cache *cache, const struct vv_cache_key *key, uint8_t *data, size_t len,
                  struct vv_block **out_block)
{
    struct vv_block *block = find_block(cache, key);
    if (out_block)
        *out_block = NULL;
    if (block && (!block->is_loading || !out_block)) {
        vv_free(data);
        if (!out_block)
            return;
        vv_block_ref(block);
    } else {
        /* One that is being loaded stays; the caller gets a block of its own. */
        block = new_filled(cache, key, data, len, !block);
    }
    if (out_block)
        *out_block = block;
    else
        vv_block_unref(block);
    evict(cache);
}

void vv_cache_put_warm(struct vv_cache *cache, const struct vv_cache_key *key, uint8_t *data,
                       size_t len)
{
    struct vv_block *block;
    vv_cache_put(cache, key, data, len, &block);
    if (!block)
        return;
    block->heat = HEAT_MAX;
    vv_block_unref(block);
}

void vv_cache_drop(struct vv_cache *cache, const struct vv_cache_key *key)
{
    struct vv_block *block = find_block(cache, key);
    if (!block)
        return;
    if (block->refs == 0)
        dequeue(block);
    detach(block);
    if (block->refs == 0)
        free_block(block);
}

void vv_cache_drop_all(struct vv_cache *cache, uint64_t space, uint64_t a)
{
    const struct vv_cache_group *group;
    while ((group = find_group(cache, space, a))) {
        const struct vv_block *block = vv_list_first(&group->blocks, struct vv_block, in_group);
        struct vv_cache_key key = block->key;
        vv_cache_drop(cache, &key);
    }
}

void vv_cache_stats(const struct vv_cache *cache, struct vv_cache_stats *out_stats)
{
    *out_stats = cache->stats;
}
