/* What the tests of lsm share: a tree over a mem store in a simulated world, and a model of it:
 * every change of every commit, written down, and added up again for each question. */
#ifndef TEST_LSM_RIG_H
#define TEST_LSM_RIG_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "cache/cache.h"
#include "lsm/lsm.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "seal/seal.h"
#include "store/store.h"
#include "tap.h"

/* ---- a tree ---- */

struct rig {
    struct vv_store_backend *backend;
    struct vv_store *faults; /* the fault wrapper inside `store` */
    struct vv_store *store;  /* counts */
    struct vv_keyring *ring;
    struct vv_budget memory;
    struct vv_budget mem_budget;
    struct vv_budget cache_budget;
    struct vv_cache *cache;
    struct vv_seal_settings settings;
    struct vv_lsm *lsm;
    uint64_t table_bytes;
    uint64_t level1_bytes;
};

static inline int rig_put(void *arg, const char *name, const uint8_t attempt_id[16],
                          const struct iovec *iov, int count)
{
    struct rig *rig = arg;
    (void)attempt_id;
    return vv_store_put(rig->store, name, iov, count);
}

static inline struct vv_lsm_options rig_options(struct rig *rig)
{
    return (struct vv_lsm_options){
        .store = rig->store,
        .ring = rig->ring,
        .cache = rig->cache,
        .mem_budget = &rig->mem_budget,
        .epoch = 7,
        .table_bytes = rig->table_bytes,
        .level1_bytes = rig->level1_bytes,
        .put = rig_put,
        .put_arg = rig,
        .settings = &rig->settings,
    };
}

/* How long a request to the store of the next rig takes. */
static uint64_t rig_latency_ns;

/* Small, so that everything is evicted and compacted; 0 = 64 KiB and 256 KiB. */
static inline void rig_open_sized(struct rig *rig, uint64_t cache_bytes, uint64_t table_bytes,
                                  uint64_t level1_bytes)
{
    static const uint8_t volume_id[16] = "lsm test volume";
    memset(rig, 0, sizeof(*rig));
    rig->table_bytes = table_bytes ? table_bytes : 64 << 10;
    rig->level1_bytes = level1_bytes ? level1_bytes : 256 << 10;
    rig->settings = (struct vv_seal_settings){VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0};
    vv_budget_init(&rig->memory, NULL, 1ull << 30);
    vv_budget_init(&rig->mem_budget, &rig->memory, 1ull << 30);
    vv_budget_init(&rig->cache_budget, &rig->memory, 1ull << 30);
    struct vv_store *mem;
    struct vv_store *slow;
    bool is_open = vv_store_backend_new(&rig->backend) == 0 &&
                   vv_store_mem_open(rig->backend, &mem) == 0 &&
                   vv_store_latency_new(mem, rig_latency_ns, 0, &slow) == 0 &&
                   vv_store_fault_new(slow, &rig->faults) == 0 &&
                   vv_store_count_new(rig->faults, &rig->store) == 0 &&
                   vv_keyring_new(volume_id, &rig->ring) == 0 &&
                   vv_cache_new(&rig->cache_budget, cache_bytes, &rig->cache) == 0;
    if (is_open) {
        struct vv_lsm_options options = rig_options(rig);
        is_open = vv_lsm_new(&options, &rig->lsm) == 0;
    }
    if (!is_open) {
        tap_ok(false, "a tree is made");
        exit(1);
    }
}

static inline void rig_open(struct rig *rig)
{
    rig_open_sized(rig, 64 << 10, 0, 0);
}

static inline void rig_close(struct rig *rig)
{
    vv_lsm_free(rig->lsm);
    vv_cache_free(rig->cache);
    vv_keyring_free(rig->ring);
    vv_store_close(rig->store);
    vv_store_backend_free(rig->backend);
    if (rig->memory.used != 0)
        tap_is_int((int64_t)rig->memory.used, 0, "all budgets are given back");
}

/* Delete what is dead, as a volume would. Returns how many. */
static inline unsigned rig_sweep(struct rig *rig)
{
    struct vv_table_ref ref;
    unsigned count = 0;
    while (vv_lsm_next_dead(rig->lsm, &ref)) {
        char name[VV_STORE_NAME_MAX + 1];
        vv_table_name(ref.epoch, ref.counter, name, sizeof(name));
        if (vv_store_remove(rig->store, name) == 0)
            count++;
    }
    return count;
}

/* Flush everything up to `commit`, which is rotated out first. */
static inline int rig_flush(struct rig *rig, uint64_t commit)
{
    struct vv_lsm_edit *edit;
    int err = vv_lsm_rotate(rig->lsm, commit);
    if (err == 0)
        err = vv_lsm_prepare_flush(rig->lsm, commit, &edit);
    if (err == 0)
        vv_lsm_apply(rig->lsm, edit);
    return err;
}

/* Compact until nothing is due. */
static inline int rig_compact(struct rig *rig)
{
    for (;;) {
        struct vv_lsm_edit *edit;
        int err = vv_lsm_prepare_compaction(rig->lsm, &edit);
        if (err < 0 || !edit)
            return err;
        vv_lsm_apply(rig->lsm, edit);
        rig_sweep(rig);
    }
}

static inline struct vv_bytes text_bytes(const char *text)
{
    return (struct vv_bytes){(const uint8_t *)text, strlen(text)};
}

/* Replace an object by one with one bit flipped, or cut off (bit UINT64_MAX: in the middle). */
static inline void rig_damage(struct rig *rig, const struct vv_table_ref *ref, uint64_t bit)
{
    char name[VV_STORE_NAME_MAX + 1];
    uint8_t *bytes;
    size_t len;
    vv_table_name(ref->epoch, ref->counter, name, sizeof(name));
    if (vv_store_get_all(rig->store, name, 1 << 30, &bytes, &len) < 0) {
        tap_ok(false, "%s is there", name);
        return;
    }
    if (bit == UINT64_MAX)
        len /= 2;
    else
        bytes[bit / 8 % len] ^= (uint8_t)(1 << bit % 8);
    struct iovec iov = {bytes, len};
    if (vv_store_remove(rig->store, name) < 0 || vv_store_put(rig->store, name, &iov, 1) < 0)
        tap_ok(false, "%s is damaged", name);
    vv_free(bytes);
}

/* Another tree over the same store and cache, from the tables of this one; nothing in memory. */
static inline void rig_reopen(struct rig *rig, uint64_t cache_bytes)
{
    struct vv_table_ref *tables;
    size_t count;
    bool is_open = vv_lsm_tables(rig->lsm, NULL, &tables, &count) == 0;
    vv_lsm_free(rig->lsm);
    vv_cache_free(rig->cache);
    struct vv_lsm_options options = rig_options(rig);
    is_open = is_open && vv_cache_new(&rig->cache_budget, cache_bytes, &rig->cache) == 0;
    options.cache = rig->cache;
    is_open = is_open && vv_lsm_new(&options, &rig->lsm) == 0 &&
              vv_lsm_load(rig->lsm, tables, count) == 0;
    if (!is_open) {
        tap_ok(false, "a tree is opened again");
        exit(1);
    }
    vv_table_refs_free(tables, count);
}

/* Keys "key 000000" and so on, with a value that follows from number and version. */
static inline struct vv_bytes rig_key(unsigned number, char key[16])
{
    snprintf(key, 16, "key %06u", number);
    return text_bytes(key);
}

static inline struct vv_bytes rig_value(unsigned number, unsigned version, char value[64])
{
    snprintf(value, 64, "value %u of %u %016llx", version, number,
             (unsigned long long)(number * 0x9e3779b97f4a7c15ull + version));
    return text_bytes(value);
}

static inline void rig_write(struct rig *rig, uint64_t commit, unsigned number, unsigned version)
{
    char key[16];
    char value[64];
    if (vv_lsm_reserve(rig->lsm, 1, 80) < 0)
        tap_ok(false, "there is memory");
    vv_lsm_put(rig->lsm, commit, rig_key(number, key), rig_value(number, version, value));
}

static inline void rig_delete(struct rig *rig, uint64_t commit, unsigned number)
{
    char key[16];
    if (vv_lsm_reserve(rig->lsm, 1, 80) < 0)
        tap_ok(false, "there is memory");
    vv_lsm_delete(rig->lsm, commit, rig_key(number, key));
}

/* Fetch and get: 1 = it has this version, 0 = it is not there, -EBADMSG = something else, or an
 * error. */
static inline int rig_read(struct rig *rig, unsigned number, unsigned version)
{
    char key[16];
    char value[64];
    struct vv_bytes bytes = rig_key(number, key);
    struct vv_bytes want = rig_value(number, version, value);
    struct vv_lsm_pins pins;
    struct vv_lsm_value got;
    vv_lsm_pins_init(&pins);
    int found = vv_lsm_get(rig->lsm, bytes, &got);
    if (found == -VV_ERR_MISS)
        found = vv_lsm_fetch(rig->lsm, &bytes, 1, &pins);
    if (found == 0)
        found = vv_lsm_get(rig->lsm, bytes, &got);
    if (found > 0 && vv_bytes_compare((struct vv_bytes){got.ptr, got.len}, want) != 0)
        found = -EBADMSG;
    vv_lsm_pins_done(&pins);
    return found;
}

/* ---- the model ---- */

#define MODEL_KEYS 400
#define MODEL_COMMITS 160
#define MODEL_VALUE_MAX (VV_LSM_VALUE_MAX)

enum model_op { MODEL_NONE, MODEL_DELETE, MODEL_PUT, MODEL_MERGE };

/* What one commit did to one key. */
struct model_change {
    uint8_t op;
    bool is_reset;    /* MERGE: after a delete in the same commit */
    uint32_t version; /* PUT: which value */
    int64_t a, b;     /* MERGE */
};

struct model {
    struct model_change changes[MODEL_COMMITS][MODEL_KEYS];
    unsigned order[MODEL_KEYS]; /* key numbers, sorted by key */
    uint8_t keys[MODEL_KEYS][VV_LSM_KEY_MAX];
    size_t key_lens[MODEL_KEYS];
    uint8_t value[MODEL_VALUE_MAX];
};

/* The state of a key. */
struct model_state {
    bool is_there;
    struct vv_bytes value; /* valid until the next question */
};

static inline uint64_t model_mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9ull;
    return x ^ x >> 32;
}

/* Odd keys are merged, even ones are put. */
static inline bool model_is_merged(unsigned key)
{
    return key % 2 == 1;
}

static inline struct vv_bytes model_key(const struct model *model, unsigned key)
{
    return (struct vv_bytes){model->keys[key], model->key_lens[key]};
}

static inline int model_compare(const void *a, const void *b, void *arg)
{
    const struct model *model = arg;
    return vv_bytes_compare(model_key(model, *(const unsigned *)a),
                            model_key(model, *(const unsigned *)b));
}

static inline struct model *model_new(void)
{
    struct model *model = calloc(1, sizeof(*model));
    if (!model)
        exit(1);
    for (unsigned i = 0; i < MODEL_KEYS; i++) {
        /* Long and short ones, with long and short common beginnings, some a prefix of others. */
        uint64_t mix = model_mix(i);
        size_t len = mix % 50 == 0 ? VV_LSM_KEY_MAX : 3 + mix % 40;
        memset(model->keys[i], (int)('a' + mix / 64 % 3), len);
        size_t at = mix / 1024 % (len - 2);
        model->keys[i][at] = (uint8_t)(i >> 8);
        model->keys[i][at + 1] = (uint8_t)i;
        model->key_lens[i] = at + 2 + mix / 4096 % (len - at - 1);
        model->order[i] = i;
    }
    qsort_r(model->order, MODEL_KEYS, sizeof(unsigned), model_compare, model);
    for (unsigned i = 1; i < MODEL_KEYS; i++) {
        if (model_compare(&model->order[i - 1], &model->order[i], model) == 0)
            tap_ok(false, "the model's keys differ");
    }
    return model;
}

/* The value that version `version` of a key has. */
static inline struct vv_bytes model_value(struct model *model, unsigned key, uint32_t version)
{
    uint64_t mix = model_mix(version * 1000003ull + key);
    size_t len = mix % 300;
    if (mix / 512 % 400 == 0)
        len = mix / 65536 % (MODEL_VALUE_MAX + 1);
    for (size_t i = 0; i < len; i++)
        model->value[i] = (uint8_t)(mix >> (i % 8 * 8)) + (uint8_t)(i % 7 ? 0 : i * mix);
    return (struct vv_bytes){model->value, len};
}

static inline struct model_state model_get(struct model *model, unsigned key, uint64_t commit)
{
    int64_t a = 0;
    int64_t b = 0;
    bool is_merged = false;
    for (uint64_t at = commit + 1; at-- > 0;) {
        const struct model_change *change = &model->changes[at][key];
        if (change->op == MODEL_PUT)
            return (struct model_state){true, model_value(model, key, change->version)};
        if (change->op == MODEL_DELETE)
            break;
        if (change->op == MODEL_MERGE) {
            is_merged = true;
            a += change->a;
            b += change->b;
            if (change->is_reset)
                break;
        }
    }
    if (!is_merged)
        return (struct model_state){false, {NULL, 0}};
    struct vv_writer writer = vv_writer_of(model->value, 20);
    vv_writer_svarint(&writer, a);
    vv_writer_svarint(&writer, b);
    return (struct model_state){true, {model->value, writer.len}};
}

/* Make one change of a key at random, in the tree and in the model. */
static inline void model_write(struct model *model, struct vv_lsm *lsm, unsigned key,
                               uint64_t commit, uint64_t random)
{
    struct model_change *change = &model->changes[commit][key];
    if (random % 5 == 0) {
        vv_lsm_delete(lsm, commit, model_key(model, key));
        *change = (struct model_change){.op = MODEL_DELETE};
    } else if (model_is_merged(key)) {
        int64_t a = (int64_t)(random / 8 % 2001) - 1000;
        int64_t b = (int64_t)(random / 16384) * (random % 2 ? 1 : -1);
        vv_lsm_merge(lsm, commit, model_key(model, key), a, b);
        change->is_reset = change->is_reset || change->op == MODEL_DELETE;
        change->op = MODEL_MERGE;
        change->a += a;
        change->b += b;
    } else {
        uint32_t version = (uint32_t)random;
        vv_lsm_put(lsm, commit, model_key(model, key), model_value(model, key, version));
        *change = (struct model_change){.op = MODEL_PUT, .version = version};
    }
}

/* Does a get's answer agree? Reports only what is wrong. */
static inline bool model_agrees(struct model *model, unsigned key, uint64_t commit, int found,
                                const struct vv_lsm_value *value)
{
    struct model_state state = model_get(model, key, commit);
    bool is_equal =
        found == state.is_there &&
        (!found || vv_bytes_compare((struct vv_bytes){value->ptr, value->len}, state.value) == 0);
    if (!is_equal)
        tap_ok(false, "key %u at commit %llu: found %d, want %d", key, (unsigned long long)commit,
               found, state.is_there);
    return is_equal;
}

/* ---- worlds ---- */

struct world {
    void (*fn)(void *);
    void *arg;
};

static inline void world_main(void *arg)
{
    struct world *world = arg;
    size_t before = vv_alloc_domain_count(vv_alloc_domain());
    world->fn(world->arg);
    vv_rt_sleep_ns(VV_NS_PER_S); /* large memtables are freed by and by */
    size_t after = vv_alloc_domain_count(vv_alloc_domain());
    if (after != before)
        tap_is_int((int64_t)after, (int64_t)before, "everything was freed");
}

static inline void run_sim(uint64_t seed, void (*fn)(void *), void *arg)
{
    struct vv_sim_options options = {
        .seed = seed,
        .latency_min_ns = 1000,
        .latency_max_ns = 100000,
        .reorder_permille = 200,
    };
    struct world world = {fn, arg};
    int err = vv_sim_run(&options, world_main, &world);
    if (err < 0)
        tap_is_int(err, 0, "seed %llu: the world ends well", (unsigned long long)seed);
}

#endif
