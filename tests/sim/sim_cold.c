/* A far store: what a cold cache costs, in round trips of virtual time. A volume with many files is
 * opened with the smallest budget (16 MiB, of which the cache has 4) over a store that is 30 ms
 * away. Prints TAP. sim_cold [files] */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine.h"
#include "log/log.h"
#include "rng.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"
#include "volume/volume.h"

#define LATENCY_NS (30 * VV_NS_PER_MS)
#define MEMORY_BYTES (16u << 20)
#define STATS 1000
#define ROUND_TRIPS_MAX 10
#define PLAN_ROUNDS_MAX 3
#define DIR_FILES 500
#define FILES_DEFAULT 60000
#define MIXED_FIBERS 24
#define MIXED_OPS 25 /* of each fiber, each time the volume was opened */
#define MIXED_OPENINGS 6

struct cold {
    unsigned files;
    uint64_t *dirs;
    uint64_t *inodes;
    struct vv_store_backend *backend;
    struct vv_keyring *ring;
    struct vv_store *store;
    struct vv_volume *volume;
    struct vv_fs *fs;
    struct rng rng;
    unsigned running, failed;
    int err;
};

struct visitor {
    struct cold *cold;
    unsigned number; /* of the file */
    bool is_by_name;
    struct rng rng;
};

static void name_of(unsigned file, char name[16])
{
    snprintf(name, 16, "f%06u", file);
}

/* ---- the volume ---- */

static int open_volume(struct cold *cold, uint64_t latency_ns)
{
    TRY(vv_store_mem_open(cold->backend, &cold->store));
    if (latency_ns > 0)
        TRY(vv_store_latency_new(cold->store, latency_ns, 0, &cold->store));
    struct vv_volume_options options = {
        .store = cold->store, .ring = cold->ring, .memory_bytes = MEMORY_BYTES};
    TRY(vv_volume_open(&options, &cold->volume));
    return vv_fs_open(cold->volume, &cold->fs);
}

static int close_volume(struct cold *cold)
{
    vv_fs_close(cold->fs);
    int err = vv_volume_close(cold->volume);
    vv_store_close(cold->store);
    return err;
}

static int create_volume(struct cold *cold)
{
    static const struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0};
    uint8_t id[16];
    uint8_t key[VV_KEY_FILE_LEN] = {1};
    struct vv_secret secret = {VV_SECRET_KEY_FILE, key, sizeof(key)};
    struct vv_counters counters = {VV_ROOT_INODE + 1, VV_ORIGIN_FIRST_DATA};
    uint8_t *keys = NULL;
    size_t len = 0;
    struct vv_store *store;
    vv_rt_random(id, sizeof(id));
    TRY(vv_store_backend_new(&cold->backend));
    TRY(vv_keyring_new(id, &cold->ring));
    TRY(vv_slots_create(cold->ring, &secret, &vv_slot_cost_test, &keys, &len));
    TRY(vv_store_mem_open(cold->backend, &store));
    int err = vv_volume_create(store, cold->ring, keys, len, &settings, &counters);
    vv_free(keys);
    vv_store_close(store);
    return err;
}

/* Files of 500 a directory, some with bytes. */
static int fill(struct cold *cold)
{
    struct vv_create file = {.mode = S_IFREG | 0644};
    struct vv_create dir = {.mode = S_IFDIR | 0755};
    static uint8_t bytes[6000];
    struct vv_attr attr;
    char name[16];
    memset(bytes, 'v', sizeof(bytes));
    for (unsigned i = 0; i < cold->files; i++) {
        unsigned d = i / DIR_FILES;
        if (i % DIR_FILES == 0) {
            snprintf(name, sizeof(name), "d%04u", d);
            TRY(vv_fs_mkdir(cold->fs, &engine_call, VV_ROOT_INODE, name, strlen(name), &dir, &attr));
            cold->dirs[d] = attr.inode;
        }
        name_of(i, name);
        TRY(vv_fs_mknod(cold->fs, &engine_call, cold->dirs[d], name, strlen(name), &file, &attr));
        cold->inodes[i] = attr.inode;
        ssize_t done = 0;
        if (i % 8 == 0)
            done = vv_fs_write(cold->fs, &engine_call, attr.inode, NULL, bytes,
                               i % 16 == 0 ? 100 : sizeof(bytes), 0, 0);
        TRY((int)done);
    }
    return vv_volume_settle(cold->volume);
}

/* ---- stats in parallel ---- */

static void visit(void *arg)
{
    struct visitor *visitor = arg;
    struct cold *cold = visitor->cold;
    struct vv_attr attr = {0};
    char name[16];
    int err;
    if (visitor->is_by_name) {
        snprintf(name, sizeof(name), "d%04u", visitor->number / DIR_FILES);
        err = vv_fs_lookup(cold->fs, &engine_call, VV_ROOT_INODE, name, strlen(name), &attr);
        name_of(visitor->number, name);
        if (err == 0)
            err = vv_fs_lookup(cold->fs, &engine_call, attr.inode, name, strlen(name), &attr);
    } else {
        err = vv_fs_getattr(cold->fs, cold->inodes[visitor->number], &attr);
    }
    if (err < 0 || attr.inode != cold->inodes[visitor->number] || !S_ISREG(attr.mode))
        cold->failed++;
    cold->running--;
}

static void check_stats(struct cold *cold, bool is_by_name, const char *what)
{
    struct visitor *visitors = calloc(STATS, sizeof(*visitors));
    struct vv_volume_stats stats;
    int err = open_volume(cold, LATENCY_NS);
    tap_is_int(err, 0, "the volume opens for %s", what);
    if (err < 0 || !visitors)
        abort();
    cold->failed = 0;
    uint64_t start = vv_rt_now_ns();
    for (unsigned i = 0; i < STATS; i++) {
        visitors[i] = (struct visitor){
            cold, (unsigned)rng_below(&cold->rng, cold->files), is_by_name, {0}};
        cold->running++;
        if (vv_fiber_start(visit, &visitors[i], "stat") < 0)
            abort();
    }
    while (cold->running > 0)
        vv_rt_sleep_ns(VV_NS_PER_MS);
    double trips = (double)(vv_rt_now_ns() - start) / (double)LATENCY_NS;
    tap_is_int(cold->failed, 0, "%d %s give what they should", STATS, what);
    tap_ok(trips < ROUND_TRIPS_MAX, "%d cold %s in under %d round trips", STATS, what,
           ROUND_TRIPS_MAX);
    vv_volume_stats(cold->volume, &stats);
    tap_note("%.2f round trips, %" PRIu64 " blocks read, at most %" PRIu64
             " plan rounds, cache %" PRIu64 " bytes",
             trips, stats.lsm.blocks_read, stats.plan_rounds_max, stats.cache_bytes);
    tap_ok(stats.plan_rounds_max <= PLAN_ROUNDS_MAX, "none of them takes more than %d plan rounds",
           PLAN_ROUNDS_MAX);
    tap_is_int(close_volume(cold), 0, "and closes");
    free(visitors);
}

/* ---- all operations, cold ---- */

static int visit_entry(void *arg, const struct vv_dirent *entry)
{
    unsigned *left = arg;
    return (*left)-- > 0;
}

static int do_mixed(struct visitor *visitor)
{
    struct cold *cold = visitor->cold;
    struct vv_fs *fs = cold->fs;
    unsigned file = (unsigned)rng_below(&visitor->rng, cold->files);
    uint64_t inode = cold->inodes[file];
    uint64_t dir = cold->dirs[file / DIR_FILES];
    uint64_t other = cold->dirs[rng_below(&visitor->rng, cold->files / DIR_FILES)];
    struct vv_create create = {.mode = S_IFREG | 0644};
    struct vv_attr attr;
    struct vv_attr set = {.size = rng_below(&visitor->rng, 100000), .mode = 0600};
    char name[16];
    char fresh[32];
    uint8_t bytes[5000] = {1};
    unsigned left = 50;
    name_of(file, name);
    snprintf(fresh, sizeof(fresh), "n%016" PRIx64, rng_next(&visitor->rng));
    size_t fresh_len = strlen(fresh);
    switch (rng_below(&visitor->rng, 14)) {
    case 0:
        return vv_fs_mknod(fs, &engine_call, dir, fresh, fresh_len, &create, &attr);
    case 1:
        create.mode = S_IFDIR | 0755;
        return vv_fs_mkdir(fs, &engine_call, dir, fresh, fresh_len, &create, &attr);
    case 2:
        return vv_fs_link(fs, &engine_call, inode, other, fresh, fresh_len, &attr);
    case 3:
        return vv_fs_unlink(fs, &engine_call, dir, name, strlen(name));
    case 4:
        return vv_fs_rename(fs, &engine_call, dir, name, strlen(name), other, fresh, fresh_len, 0);
    case 5:
        name_of((unsigned)rng_below(&visitor->rng, cold->files), fresh);
        return vv_fs_rename(fs, &engine_call, dir, name, strlen(name), other, fresh, strlen(fresh),
                            0);
    case 6:
        return vv_fs_setattr(fs, &engine_call, inode, NULL, &set, VV_SET_SIZE, &attr);
    case 7:
        return vv_fs_setattr(fs, &engine_call, inode, NULL, &set, VV_SET_MODE, &attr);
    case 8:
        return (int)vv_fs_write(fs, &engine_call, inode, NULL, bytes, sizeof(bytes),
                                rng_below(&visitor->rng, 60000), 0);
    case 9:
        return (int)vv_fs_read(fs, &engine_call, inode, NULL, bytes, sizeof(bytes), 0);
    case 10:
        return vv_fs_setxattr(fs, &engine_call, inode, "user.x", bytes, 100, 0);
    case 11:
        return (int)vv_fs_getxattr(fs, &engine_call, inode, "user.x", bytes, sizeof(bytes));
    case 12:
        return vv_fs_readdir(fs, dir, 0, visit_entry, &left);
    default:
        return vv_fs_fallocate(fs, &engine_call, inode, NULL,
                               FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 5000);
    }
}

static void mix(void *arg)
{
    struct visitor *visitor = arg;
    struct cold *cold = visitor->cold;
    for (unsigned i = 0; i < MIXED_OPS; i++) {
        int err = do_mixed(visitor);
        bool is_gone = err == -ENOENT || err == -ESTALE || err == -EEXIST || err == -ENODATA;
        if (err < 0 && !is_gone)
            cold->err = err;
        cold->failed += is_gone;
    }
    cold->running--;
}

static void check_mixed(struct cold *cold)
{
    struct visitor visitors[MIXED_FIBERS];
    uint64_t rounds = 0;
    uint64_t ops = 0;
    uint64_t restarts = 0;
    cold->failed = 0;
    cold->err = 0;
    for (unsigned opening = 0; opening < MIXED_OPENINGS && cold->err == 0; opening++) {
        struct vv_volume_stats stats;
        cold->err = open_volume(cold, LATENCY_NS);
        if (cold->err < 0)
            break;
        for (unsigned i = 0; i < MIXED_FIBERS; i++) {
            visitors[i] = (struct visitor){cold, 0, false, {rng_next(&cold->rng)}};
            cold->running++;
            if (vv_fiber_start(mix, &visitors[i], "mixed") < 0)
                abort();
        }
        while (cold->running > 0)
            vv_rt_sleep_ns(VV_NS_PER_MS);
        vv_volume_stats(cold->volume, &stats);
        rounds = stats.plan_rounds_max > rounds ? stats.plan_rounds_max : rounds;
        ops += stats.ops;
        restarts += stats.plan_restarts;
        int err = close_volume(cold);
        cold->err = cold->err ? cold->err : err;
    }
    tap_is_int(cold->err, 0, "operations of all kinds, cold, and closing");
    tap_ok(rounds <= PLAN_ROUNDS_MAX, "none of them takes more than %d plan rounds",
           PLAN_ROUNDS_MAX);
    tap_note("%" PRIu64 " operations, at most %" PRIu64 " plan rounds, %" PRIu64
             " begun again on new tables; %u found nothing to do",
             ops, rounds, restarts, cold->failed);
}

/* ---- running ---- */

static void cold_main(void *arg)
{
    struct cold *cold = arg;
    int err = create_volume(cold);
    if (err == 0)
        err = open_volume(cold, 0);
    if (err == 0)
        err = fill(cold);
    if (err == 0)
        err = close_volume(cold);
    tap_is_int(err, 0, "a volume with %u files", cold->files);
    if (err == 0) {
        check_stats(cold, false, "stats of inodes");
        check_stats(cold, true, "stats of paths");
        check_mixed(cold);
    }
    vv_keyring_free(cold->ring);
    vv_store_backend_free(cold->backend);
}

static void discard_line(void *arg, enum vv_log_level level, const char *line)
{
}

int main(int argc, char **argv)
{
    struct cold cold = {.files = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : FILES_DEFAULT,
                        .rng = {42}};
    if (cold.files < DIR_FILES)
        cold.files = DIR_FILES;
    cold.dirs = calloc(cold.files / DIR_FILES + 1, sizeof(*cold.dirs));
    cold.inodes = calloc(cold.files, sizeof(*cold.inodes));
    if (!cold.dirs || !cold.inodes)
        abort();
    if (!getenv("SIM_VERBOSE"))
        vv_log_set_sink(discard_line, NULL);
    struct vv_sim_options options = {
        .seed = 1, .latency_min_ns = 1000, .latency_max_ns = 20000, .reorder_permille = 0};
    tap_is_int(vv_sim_run(&options, cold_main, &cold), 0, "the world ends well");
    free(cold.dirs);
    free(cold.inodes);
    return tap_done();
}
