#include "cache/cache.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"

#define BLOCK_BYTES 4000
#define BLOCK_CHARGE (BLOCK_BYTES + sizeof(struct vv_block))

static struct vv_cache_key key_of(uint64_t a, uint64_t b)
{
    return (struct vv_cache_key){.space = VV_CACHE_FRAME, .a = a, .b = b};
}

/* Which blocks are there, seen from outside: looking for them would be a use. */
static bool is_cached[4096];

static void destroy_noted(void *data, size_t len)
{
    uint64_t b;
    memcpy(&b, data, sizeof(b));
    is_cached[b] = false;
    vv_free(data);
}

static uint8_t *new_bytes(uint64_t b)
{
    uint8_t *data = vv_alloc(BLOCK_BYTES);
    if (!data)
        return NULL;
    memset(data, (int)b, BLOCK_BYTES);
    memcpy(data, &b, sizeof(b));
    return data;
}

struct source {
    uint64_t b;
    int loads;
    int error;
    uint64_t delay_ns;
};

static int load(void *arg, uint8_t **out_data, size_t *out_len)
{
    struct source *source = arg;
    source->loads++;
    if (source->delay_ns > 0)
        vv_rt_sleep_ns(source->delay_ns);
    if (source->error < 0)
        return source->error;
    *out_data = new_bytes(source->b);
    if (!*out_data)
        return -ENOMEM;
    *out_len = BLOCK_BYTES;
    return 0;
}

/* Get the block and let it go again; whether it had to be loaded, or an error. */
static int touch(struct vv_cache *cache, uint64_t a, uint64_t b)
{
    struct source source = {.b = b};
    struct vv_cache_key key = key_of(a, b);
    struct vv_block *block;
    int err = vv_cache_get(cache, &key, load, &source, &block);
    if (err < 0)
        return err;
    if (block->len != BLOCK_BYTES || block->data[BLOCK_BYTES - 1] != (uint8_t)b)
        tap_ok(false, "a block has the right bytes");
    vv_block_unref(block);
    return source.loads;
}

/* As touch, and note when the block leaves. */
static void note(struct vv_cache *cache, uint64_t b)
{
    struct source source = {.b = b};
    struct vv_cache_key key = key_of(1, b);
    struct vv_block *block;
    if (vv_cache_get(cache, &key, load, &source, &block) < 0)
        return;
    block->destroy = destroy_noted;
    is_cached[b] = true;
    vv_block_unref(block);
}

/* Whether it is there; counts as a use. */
static bool is_there(struct vv_cache *cache, uint64_t a, uint64_t b)
{
    struct vv_cache_key key = key_of(a, b);
    struct vv_block *block = vv_cache_peek(cache, &key);
    vv_block_unref(block);
    return block != NULL;
}

static struct vv_budget budget;

static struct vv_cache *new_cache(uint64_t blocks)
{
    struct vv_cache *cache = NULL;
    vv_budget_init(&budget, NULL, UINT64_MAX);
    tap_is_int(vv_cache_new(&budget, blocks * BLOCK_CHARGE, &cache), 0, "a cache of %d blocks",
               (int)blocks);
    return cache;
}

static void test_basics(void)
{
    struct vv_cache *cache = new_cache(10);
    struct vv_cache_stats stats;
    struct vv_cache_key key = key_of(1, 1);
    tap_ok(!vv_cache_peek(cache, &key), "nothing is there");
    tap_is_int(touch(cache, 1, 1), 1, "a miss loads");
    tap_is_int(touch(cache, 1, 1), 0, "a hit does not");
    tap_is_int(touch(cache, 1, 2), 1, "another key does");
    tap_is_int(touch(cache, 2, 1), 1, "and another");
    struct vv_block *block = vv_cache_peek(cache, &key);
    tap_ok(block && block->data[0] == 1, "peek finds it");
    vv_cache_stats(cache, &stats);
    tap_is_int((int64_t)stats.hits, 2, "hits");
    tap_is_int((int64_t)stats.misses, 3, "misses");
    tap_is_int((int64_t)stats.blocks, 3, "blocks");
    tap_is_int((int64_t)stats.bytes, (int64_t)(3 * BLOCK_CHARGE), "bytes");
    tap_is_int((int64_t)budget.used, (int64_t)stats.bytes, "the budget is charged");
    vv_cache_drop(cache, &key);
    tap_ok(!is_there(cache, 1, 1), "dropped while referenced: forgotten");
    tap_is_int(block->data[9], 1, "but alive");
    vv_block_ref(block);
    vv_block_unref(block);
    vv_block_unref(block);
    vv_block_unref(NULL);
    vv_cache_stats(cache, &stats);
    tap_is_int((int64_t)stats.blocks, 2, "until it is released");
    vv_cache_drop(cache, &key);
    tap_is_int(touch(cache, 1, 1), 1, "it is loaded again");
    vv_cache_drop_all(cache, VV_CACHE_FRAME, 1);
    tap_ok(!is_there(cache, 1, 1) && !is_there(cache, 1, 2), "all with one (space, a) dropped");
    tap_ok(is_there(cache, 2, 1), "and no others");
    vv_cache_drop_all(cache, VV_CACHE_SST, 2);
    tap_ok(is_there(cache, 2, 1), "nor those of another space");
    vv_cache_free(cache);
    vv_cache_free(NULL);
    tap_is_int((int64_t)budget.used, 0, "the budget is free again");
}

static void test_eviction(void)
{
    struct vv_cache *cache = new_cache(10);
    struct vv_cache_stats stats;
    for (uint64_t b = 0; b < 10; b++)
        note(cache, b);
    note(cache, 3);
    note(cache, 0);
    vv_cache_stats(cache, &stats);
    tap_is_int((int64_t)stats.evictions, 0, "all fit");
    for (uint64_t b = 100; b < 103; b++)
        note(cache, b);
    tap_ok(is_cached[0] && is_cached[3], "used twice: stay");
    tap_ok(!is_cached[1] && !is_cached[2] && !is_cached[4], "used once: the oldest leave");
    tap_ok(is_cached[5], "and no more than needed");
    for (uint64_t b = 200; b < 1000; b++)
        note(cache, b);
    tap_ok(is_cached[0] && is_cached[3], "a long scan does not move them");
    vv_cache_stats(cache, &stats);
    tap_is_int((int64_t)stats.blocks, 10, "the cache is full");
    /* Everything is used twice: the share of such blocks is bounded, and the oldest of them go. */
    for (uint64_t b = 2000; b < 2020; b++) {
        note(cache, b);
        note(cache, b);
    }
    tap_ok(!is_cached[0] && !is_cached[3], "they leave for others like them");
    tap_ok(is_cached[2019] && is_cached[2012], "the newest are there");
    note(cache, 3000);
    note(cache, 3001);
    tap_ok(is_cached[3000] && is_cached[3001], "there is always room for new ones");
    vv_cache_resize(cache, 3 * BLOCK_CHARGE);
    vv_cache_stats(cache, &stats);
    tap_is_int((int64_t)stats.blocks, 3, "a smaller cache holds less");
    vv_cache_resize(cache, 0);
    vv_cache_stats(cache, &stats);
    tap_is_int((int64_t)stats.blocks, 0, "or nothing");
    vv_cache_free(cache);
}

static void test_pins(void)
{
    struct vv_cache *cache = new_cache(4);
    struct vv_block *blocks[8];
    struct source source = {0};
    struct vv_cache_stats stats;
    for (uint64_t b = 0; b < 8; b++) {
        struct vv_cache_key key = key_of(1, b);
        source.b = b;
        if (vv_cache_get(cache, &key, load, &source, &blocks[b]) < 0)
            tap_ok(false, "a block is loaded");
    }
    vv_cache_stats(cache, &stats);
    tap_is_int((int64_t)stats.blocks, 8, "referenced blocks are pinned");
    tap_is_int(touch(cache, 1, 3), 0, "and found");
    tap_is_int(touch(cache, 1, 99), 1, "another goes at once");
    tap_ok(!is_there(cache, 1, 99), "when nothing else can");
    for (int i = 0; i < 8; i++)
        vv_block_unref(blocks[i]);
    vv_cache_stats(cache, &stats);
    tap_is_int((int64_t)stats.blocks, 4, "released, they are evicted");
    vv_cache_free(cache);
}

/* Holding is no use: what was only held leaves first. */
static void test_hold(void)
{
    struct vv_cache *cache = new_cache(4);
    struct vv_cache_key key = key_of(1, 0);
    for (uint64_t b = 0; b < 4; b++)
        (void)touch(cache, 1, b);
    for (int i = 0; i < 3; i++)
        vv_block_unref(vv_cache_hold(cache, &key));
    struct vv_cache_key second = key_of(1, 1);
    struct vv_block *block = vv_cache_hold(cache, &second);
    tap_ok(block != NULL, "a block is held");
    vv_block_use(block);
    vv_block_unref(block);
    struct vv_cache_stats stats;
    vv_cache_stats(cache, &stats);
    tap_is_int((int64_t)stats.hits, 1, "and once used");
    key = key_of(1, 99);
    tap_ok(vv_cache_hold(cache, &key) == NULL, "what is not there is not held");
    for (uint64_t b = 4; b < 10; b++)
        (void)touch(cache, 1, b);
    tap_ok(!is_there(cache, 1, 0), "what was only held has left");
    tap_ok(is_there(cache, 1, 1), "what was used has not");
    vv_cache_free(cache);
}

static void test_budget(void)
{
    struct vv_cache *cache = new_cache(100);
    struct vv_cache_stats stats;
    tap_is_int((int64_t)(vv_cache_room(cache) / BLOCK_CHARGE), 100, "an empty cache has room");
    budget.limit = 5 * BLOCK_CHARGE;
    tap_is_int((int64_t)(vv_cache_room(cache) / BLOCK_CHARGE), 5, "as much as its budget");
    (void)touch(cache, 1, 100);
    tap_is_int((int64_t)(vv_cache_room(cache) / BLOCK_CHARGE), 4, "less what it holds");
    for (uint64_t b = 0; b < 20; b++)
        (void)touch(cache, 1, b);
    vv_cache_stats(cache, &stats);
    tap_is_int((int64_t)stats.blocks, 5, "a budget that is over its limit evicts");
    tap_is_int((int64_t)vv_cache_room(cache), 0, "full");
    vv_cache_free(cache);
}

static void test_begin(void)
{
    struct vv_cache *cache = new_cache(10);
    struct vv_cache_key key = key_of(1, 1);
    struct vv_block *ours;
    struct vv_block *other;
    tap_is_int(vv_cache_find(cache, &key, &ours), -ENOENT, "find makes nothing");
    tap_is_int(vv_cache_begin(cache, &key, &ours), 2, "a block that is missing is the caller's");
    tap_is_int(vv_cache_begin(cache, &key, &other), 0, "the next one finds it being loaded");
    tap_ok(other == ours && !vv_cache_peek(cache, &key), "peek does not");
    vv_block_fail(ours, -EIO);
    tap_is_int(vv_block_wait(other), -EIO, "who waits gets the error of the load");
    tap_is_int(vv_cache_find(cache, &key, &other), -ENOENT, "and nothing is left of it");
    tap_is_int(vv_cache_begin(cache, &key, &ours), 2, "so that it can be tried again");
    vv_block_end(ours, new_bytes(1), BLOCK_BYTES);
    tap_is_int(vv_cache_find(cache, &key, &other), 1, "once loaded it is there");
    tap_ok(vv_block_wait(other) == 0 && other->data[0] == 1, "with its bytes");
    vv_block_unref(other);
    vv_block_unref(ours);
    for (uint64_t i = 2; i < 5; i++) {
        key = key_of(1, i);
        tap_is_int(vv_cache_begin(cache, &key, &ours), 2, "block %d", (int)i);
        vv_block_end(ours, new_bytes(i), BLOCK_BYTES);
        vv_block_cool(ours);
        vv_block_unref(ours);
    }
    tap_is_int(touch(cache, 1, 2), 0, "a block that was read ahead");
    vv_cache_resize(cache, BLOCK_CHARGE * 2);
    tap_ok(is_there(cache, 1, 1) && !is_there(cache, 1, 3),
           "being read ahead is no use: the one used twice stays");
    tap_ok(is_there(cache, 1, 2) && !is_there(cache, 1, 4), "with the one read since");
    vv_cache_free(cache);
}

static void test_put(void)
{
    struct vv_cache *cache = new_cache(4);
    struct vv_cache_key key = key_of(1, 1);
    struct vv_block *block = NULL;
    vv_cache_put(cache, &key, new_bytes(1), BLOCK_BYTES, &block);
    tap_ok(block && block->data[0] == 1, "put gives a reference");
    vv_block_unref(block);
    tap_is_int(touch(cache, 1, 1), 0, "and the block is there");
    vv_cache_put(cache, &key, new_bytes(2), BLOCK_BYTES, &block);
    tap_ok(block && block->data[0] == 1, "a second put replaces nothing");
    vv_block_unref(block);
    vv_cache_put(cache, &key, new_bytes(2), BLOCK_BYTES, NULL);
    tap_is_int(touch(cache, 1, 1), 0, "nor without a reference");
    for (uint64_t b = 2; b < 9; b++) {
        key = key_of(1, b);
        vv_cache_put(cache, &key, new_bytes(b), BLOCK_BYTES, NULL);
    }
    tap_ok(is_there(cache, 1, 1), "being put is no use: those used before stay");
    tap_is_int(touch(cache, 1, 8), 0, "the newest is there");
    vv_cache_free(cache);
}

static int destroyed;

static void destroy(void *data, size_t len)
{
    destroyed += len == BLOCK_BYTES;
    vv_free(data);
}

static void test_destroy(void)
{
    struct vv_cache *cache = new_cache(4);
    struct vv_cache_key key = key_of(1, 1);
    struct vv_block *block = NULL;
    vv_cache_put(cache, &key, new_bytes(1), BLOCK_BYTES, &block);
    block->destroy = destroy;
    vv_block_unref(block);
    vv_cache_resize(cache, 0);
    tap_is_int(destroyed, 1, "a block's own destroy is called");
    vv_cache_free(cache);
}

/* ---- several fibers ---- */

struct crowd {
    struct vv_cache *cache;
    struct source source;
    struct vv_cache_key key;
    int want;
    int running;
    int right;
};

static void member_main(void *arg)
{
    struct crowd *crowd = arg;
    struct vv_block *block = NULL;
    int err = vv_cache_get(crowd->cache, &crowd->key, load, &crowd->source, &block);
    crowd->right += err == crowd->want && (err < 0 ? !block : block->data[0] == 7);
    vv_block_unref(block);
    crowd->running--;
}

static void start_crowd(struct crowd *crowd)
{
    for (int i = 0; i < 5; i++)
        crowd->running += vv_fiber_start(member_main, crowd, "member") == 0;
}

static void join_crowd(struct crowd *crowd)
{
    while (crowd->running > 0)
        vv_rt_sleep_ns(VV_NS_PER_MS);
}

static void shared_main(void *arg)
{
    struct vv_cache_stats stats;
    struct vv_block *block = NULL;
    struct crowd crowd = {.cache = new_cache(4), .key = key_of(1, 7)};
    crowd.source = (struct source){.b = 7, .delay_ns = 20 * VV_NS_PER_MS};
    start_crowd(&crowd);
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_ok(!vv_cache_peek(crowd.cache, &crowd.key), "peek does not see what is being loaded");
    vv_cache_put(crowd.cache, &crowd.key, new_bytes(7), BLOCK_BYTES, NULL);
    vv_cache_put(crowd.cache, &crowd.key, new_bytes(7), BLOCK_BYTES, &block);
    tap_ok(block && block->data[0] == 7, "put of what is being loaded gives its own bytes");
    vv_block_unref(block);
    join_crowd(&crowd);
    tap_is_int(crowd.right, 5, "misses at the same time all get the block");
    tap_is_int(crowd.source.loads, 1, "from one load");
    tap_is_int(touch(crowd.cache, 1, 7), 0, "it is kept");

    crowd.key = key_of(1, 8);
    crowd.right = 0;
    crowd.want = -EIO;
    crowd.source = (struct source){.error = -EIO, .delay_ns = 20 * VV_NS_PER_MS};
    start_crowd(&crowd);
    join_crowd(&crowd);
    tap_is_int(crowd.right, 5, "all get the error of a failed load");
    tap_is_int(crowd.source.loads, 1, "of one load");
    vv_cache_stats(crowd.cache, &stats);
    tap_is_int((int64_t)stats.blocks, 1, "which leaves nothing");

    /* Dropped while it is loaded: those who wait get it, later ones load it again. */
    crowd.right = 0;
    crowd.want = 0;
    crowd.source = (struct source){.b = 7, .delay_ns = 20 * VV_NS_PER_MS};
    start_crowd(&crowd);
    vv_rt_sleep_ns(VV_NS_PER_MS);
    vv_cache_drop(crowd.cache, &crowd.key);
    start_crowd(&crowd);
    vv_rt_sleep_ns(VV_NS_PER_MS);
    vv_cache_drop_all(crowd.cache, crowd.key.space, crowd.key.a);
    join_crowd(&crowd);
    tap_is_int(crowd.right, 10, "dropped while loading: all get it");
    tap_is_int(crowd.source.loads, 2, "later ones load it again");
    vv_cache_stats(crowd.cache, &stats);
    tap_is_int((int64_t)stats.blocks, 0, "and nothing is kept");
    vv_cache_free(crowd.cache);
    tap_is_int((int64_t)budget.used, 0, "the budget is free again");
}

static void no_memory_main(void *arg)
{
    int n = 0;
    int err = -ENOMEM;
    size_t live = vv_alloc_domain_count(0);
    for (; err < 0; n++) {
        struct vv_cache *cache = NULL;
        struct vv_cache_key key = key_of(1, 5);
        struct vv_block *block = NULL;
        vv_budget_init(&budget, NULL, UINT64_MAX);
        vv_alloc_fail_at(n, false);
        err = vv_cache_new(&budget, 10 * BLOCK_CHARGE, &cache);
        if (err == 0) {
            err = touch(cache, 1, 1);
            uint8_t *data = new_bytes(5);
            if (data)
                vv_cache_put(cache, &key, data, BLOCK_BYTES, &block);
            if (!block)
                err = -ENOMEM;
        }
        vv_alloc_fail_at(-1, false);
        vv_block_unref(block);
        if (cache && touch(cache, 1, 1) < 0)
            tap_ok(false, "allocation %d failed: the cache still works", n);
        vv_cache_free(cache);
        if (vv_alloc_domain_count(0) != live || budget.used != 0)
            tap_ok(false, "allocation %d failed: nothing is left", n);
    }
    tap_ok(n > 6, "n-th allocation failing: succeeds at the %dth", n);
}

/* ---- a model: random calls, with and without waiting loads ---- */

static void random_member_main(void *arg)
{
    struct crowd *crowd = arg;
    for (int i = 0; i < 200; i++) {
        uint64_t b = vv_sim_random(30);
        struct vv_cache_key key = key_of(b % 3, b);
        struct source source = {.b = b, .delay_ns = vv_sim_random(2000)};
        struct vv_block *block = NULL;
        int error = vv_sim_chance(100) ? -EIO : 0;
        source.error = error;
        if (vv_sim_chance(300))
            block = vv_cache_peek(crowd->cache, &key);
        else if (vv_sim_chance(300))
            vv_cache_put(crowd->cache, &key, new_bytes(b), BLOCK_BYTES, &block);
        else if (vv_cache_get(crowd->cache, &key, load, &source, &block) < 0)
            block = NULL;
        if (vv_sim_chance(30))
            vv_cache_drop(crowd->cache, &key);
        if (vv_sim_chance(10))
            vv_cache_drop_all(crowd->cache, key.space, key.a);
        if (block && vv_sim_chance(500))
            vv_rt_sleep_ns(vv_sim_random(2000));
        if (block && (block->len != BLOCK_BYTES || block->data[17] != b))
            tap_ok(false, "a block has the right bytes");
        vv_block_unref(block);
    }
    crowd->running--;
}

static void random_main(void *arg)
{
    struct vv_cache_stats stats;
    struct crowd crowd = {0};
    vv_budget_init(&budget, NULL, UINT64_MAX);
    if (vv_cache_new(&budget, 10 * BLOCK_CHARGE, &crowd.cache) < 0)
        return;
    for (int i = 0; i < 6; i++)
        crowd.running += vv_fiber_start(random_member_main, &crowd, "member") == 0;
    join_crowd(&crowd);
    vv_cache_stats(crowd.cache, &stats);
    if (stats.bytes != stats.blocks * BLOCK_CHARGE || stats.blocks > 10 ||
        budget.used != stats.bytes)
        tap_ok(false, "the sums are right in the end");
    *(uint64_t *)arg += stats.evictions;
    vv_cache_free(crowd.cache);
    if (budget.used != 0)
        tap_ok(false, "the budget is free again");
}

int main(void)
{
    vv_alloc_track(true);
    struct vv_rt_options real = {.workers = 1};
    struct vv_sim_options options = {.seed = 1, .latency_max_ns = 1000, .reorder_permille = 300};
    tap_is_int(vv_rt_run(&real, no_memory_main, NULL), 0, "the runtime ends");
    test_basics();
    test_eviction();
    test_pins();
    test_hold();
    test_budget();
    test_begin();
    test_put();
    test_destroy();
    tap_is_int(vv_rt_run(&real, shared_main, NULL), 0, "the runtime ends");
    tap_is_int(vv_sim_run(&options, shared_main, NULL), 0, "the world ends");
    uint64_t evictions = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        options.seed = seed;
        int err = vv_sim_run(&options, random_main, &evictions);
        if (err < 0)
            tap_is_int(err, 0, "seed %d: the world ends", (int)seed);
    }
    tap_ok(evictions > 0, "random calls, with %d evictions", (int)evictions);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
