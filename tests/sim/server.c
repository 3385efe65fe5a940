/* A server: one process that opens the volume, is judged, serves its clients, and ends in good
 * order or by being killed at any of these. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "ballast.h"
#include "base/alloc.h"
#include "base/bytes.h"
#include "leftovers.h"
#include "log/log.h"
#include "rt/rt.h"
#include "world.h"

#define STORE_PATH "/store"
#define JOURNAL_PATH "/store/journal"
#define CACHE_PATH "/cache"
#define WALK_TRIES 60
#define POLL_NS (5 * VV_NS_PER_MS)
#define SYNC_TIMEOUT_NS (5 * VV_NS_PER_S)
#define RETRIES 30
#define LAST_SYNCS 3
#define PLAN_ROUNDS_MAX 3 /* of an operation */
#define JOURNALS_MAX 100
#define LAST_PAUSE_NS (6 * VV_NS_PER_S)
#define LATE_NS (12 * VV_NS_PER_S) /* more than what was seen is good for */

/* ---- opening ---- */

/* Wrap *store; on failure the store that was there stays. */
static int open_mem(struct server *server)
{
    const struct mode *mode = server->world->mode;
    TRY(vv_store_mem_open(server->world->backend, &server->store));
    TRY(vv_store_fault_new(server->store, &server->store));
    server->fault = server->store;
    world_apply_plan(server->world);
    if (mode->latency_ns > 0)
        TRY(vv_store_latency_new(server->store, mode->latency_ns, mode->bytes_per_s,
                                 &server->store));
    if (mode->is_retrying)
        TRY(vv_store_retry_new(server->store, RETRIES, 10 * VV_NS_PER_MS, VV_NS_PER_S,
                               &server->store));
    return 0;
}

/* A cache that cannot be opened, or whose disk fails, is none. */
static int open_cache(struct server *server)
{
    const struct world *world = server->world;
    int err = vv_disk_open(CACHE_PATH, VV_DISK_SIZE_MIN, VV_DISK_MEMORY_MIN, &server->cache);
    if (err < 0) {
        world_note(world, "server %u has no cache: %s", server->number, vv_err_text(err));
        return 0;
    }
    return vv_store_cached_new(server->store, server->cache, vv_keyring_volume_id(world->ring),
                               &server->store);
}

static int create_volume(struct server *server)
{
    struct world *world = server->world;
    struct vv_counters counters = {VV_ROOT_INODE + 1, VV_ORIGIN_FIRST_DATA};
    if (world->is_created)
        return 0;
    int err = vv_volume_create(server->store, world->ring, world->keys, world->keys_len,
                               &world->settings, &counters);
    world->is_created = err == 0 || err == -VV_ERR_VOLUME_EXISTS;
    return err == -VV_ERR_VOLUME_EXISTS ? 0 : err;
}

/* As `varve serve` does to find its keys; somebody else may open meanwhile. */
static int look_first(struct server *server, struct vv_log_seen *out_seen)
{
    uint8_t *keys = NULL;
    size_t len;
    uint64_t number;
    TRY(vv_volume_keys(server->store, &keys, &len, &number, out_seen));
    vv_free(keys);
    vv_rt_sleep_ns(rng_below(&server->world->rng, LATE_NS));
    return 0;
}

static int open_with_journal(struct server *server, const char *journal_path)
{
    struct world *world = server->world;
    const struct mode *mode = world->mode;
    struct vv_volume_options options = {
        .store = server->store,
        .ring = world->ring,
        .journal_path = journal_path,
        .is_abandoning_journal = mode->is_moving,
        .durability = mode->has_journal ? VV_DURABILITY_JOURNAL : VV_DURABILITY_BUCKET,
        .is_syncing_replay = !mode->is_mem,
        .memory_bytes = world->memory_bytes,
        .commit_delay_ns = world->commit_delay_ns,
        .sync_timeout_ns = SYNC_TIMEOUT_NS,
        .early_after = 1, /* guess often, and often wrongly */
        .journal_file_bytes = 4 << 20,
        .segment_bytes = world->segment_bytes,
        .repack = world->repack,
    };
    struct vv_log_seen seen = {0};
    if (mode->is_late)
        TRY(look_first(server, &seen));
    options.seen = &seen;
    int err = vv_volume_open(&options, &server->volume);
    vv_log_seen_done(&seen);
    return err;
}

/* A machine's journal, which is put aside when the volume has been served with another one since and
 * it still holds something. */
static int open_moving(struct server *server)
{
    struct world *world = server->world;
    unsigned machine = (unsigned)rng_below(&world->rng, 2);
    char path[sizeof world->journal];
    int err;
    do {
        snprintf(path, sizeof path, "/journal-%u-%u", machine, world->journals[machine]);
        /* Before: it may be killed when it has claimed the volume. */
        if (world->era && strcmp(path, world->journal) != 0)
            world->is_left_behind = true;
        err = open_with_journal(server, path);
        if (err == -VV_ERR_JOURNAL)
            world_note(world, "server %u puts %s aside", server->number, path);
    } while (err == -VV_ERR_JOURNAL && ++world->journals[machine] < JOURNALS_MAX);
    TRY(err);
    snprintf(server->journal, sizeof server->journal, "%s", path);
    return 0;
}

static int open_volume(struct server *server)
{
    const struct mode *mode = server->world->mode;
    const char *path = mode->is_mem ? "/journal" : JOURNAL_PATH;
    if (mode->is_moving)
        TRY(open_moving(server));
    else
        TRY(open_with_journal(server, mode->has_journal ? path : NULL));
    TRY(vv_fs_open(server->volume, &server->fs));
    return vv_fs_replies_open(server->fs);
}

/* The directories that owners live in; they may be there already, whole or in part. */
static int make_dir(struct server *server, uint64_t parent, const char *name)
{
    struct vv_create create = {.mode = S_IFDIR | 0755};
    struct vv_attr attr;
    int err = vv_fs_mkdir(server->fs, &engine_call, parent, name, strlen(name), &create, &attr);
    return err == -EEXIST ? 0 : err;
}

static int make_shared_file(struct server *server)
{
    struct vv_create create = {.mode = S_IFREG | 0644};
    struct vv_attr attr;
    struct vv_attr set = {.size = (uint64_t)REGION_BYTES * server->world->owner_count};
    TRY(engine_resolve(server->fs, SHARED_DIR, &attr));
    int err = vv_fs_mknod(server->fs, &engine_call, attr.inode, "file", 4, &create, &attr);
    if (err < 0 && err != -EEXIST)
        return err;
    TRY(engine_resolve(server->fs, SHARED_FILE, &attr));
    return vv_fs_setattr(server->fs, &engine_call, attr.inode, NULL, &set, VV_SET_SIZE, &attr);
}

static int make_roots(struct server *server)
{
    struct world *world = server->world;
    for (unsigned i = 0; i < world->owner_count; i++)
        TRY(make_dir(server, VV_ROOT_INODE, server->parts[i].root + 1));
    TRY(make_dir(server, VV_ROOT_INODE, &SHARED_DIR[1]));
    TRY(make_shared_file(server));
    return vv_fs_sync(server->fs, 0);
}

static int open_all(struct server *server)
{
    struct world *world = server->world;
    if (world->mode->is_mem)
        TRY(open_mem(server));
    else
        TRY(vv_store_dir_open(STORE_PATH, true, &server->store));
    TRY(witness_open(world->witness, server->store, &server->store));
    TRY(recorder_open(world->recorder, server->store, &server->store));
    if (world->mode->is_mem) {
        struct vv_store *direct;
        TRY(vv_store_mem_open(world->backend, &direct));
        recorder_watch_segments(server->store, direct);
    }
    if (world->mode->has_cache)
        TRY(open_cache(server));
    TRY(create_volume(server));
    TRY(open_volume(server));
    world->facts.opens++;
    if (!world->era)
        TRY(make_roots(server));
    /* What is found must not be the journal's alone: the next server may be on the other machine. */
    if (world->mode->is_moving)
        TRY(vv_volume_settle(server->volume));
    return server->is_reader ? 0 : ballast_fill(server);
}

/* ---- closing ---- */

void server_note_repacking(struct server *server)
{
    struct vv_volume_stats stats;
    if (!server->volume)
        return;
    vv_volume_stats(server->volume, &stats);
    server->repacked_segments = stats.repacked_segments;
    server->repacked_frames = stats.repacked_frames;
    server->repack_refused = stats.repack_refused;
    server->is_repacking = stats.is_repacking;
    server->merged_writes = stats.merged_writes;
}

static void note_stats(struct server *server)
{
    struct vv_volume_stats stats;
    struct world_facts *facts = &server->world->facts;
    vv_volume_stats(server->volume, &stats);
    if (facts->plan_rounds_max < stats.plan_rounds_max)
        facts->plan_rounds_max = stats.plan_rounds_max;
    if (stats.plan_rounds_max > PLAN_ROUNDS_MAX)
        world_fail(server->world, "server %u: an operation took %" PRIu64 " plan rounds",
                   server->number, stats.plan_rounds_max);
    facts->commits += stats.commits;
    facts->early_commits += stats.early_commits;
    facts->segments_deleted += stats.segments_deleted;
    facts->leftovers_deleted += stats.leftovers_deleted;
}

/* A successor may be started while the last operations end: then this one may find itself fenced. */
static bool is_over_for(const struct server *server, int err)
{
    return err == -VV_ERR_FENCED && server->is_superseded;
}

static int close_all(struct server *server)
{
    for (unsigned i = 0; i < server->world->owner_count; i++)
        engine_release_all(&server->engines[i]);
    if (server->volume)
        note_stats(server);
    if (server->fs)
        vv_fs_close(server->fs);
    struct vv_volume *volume = server->volume;
    server_note_repacking(server);
    server->volume = NULL;
    int err = volume ? vv_volume_close(volume) : 0;
    server->fault = NULL;
    vv_store_close(server->store);
    vv_disk_close(server->cache);
    return err;
}

/* ---- serving ---- */

/* Read everything and find out where in history it stands. */
static int judge(struct server *server, bool is_exact)
{
    struct world *world = server->world;
    struct vv_volume_stats stats;
    char text[300] = "";
    int err =
        engine_walk(server->fs, server->parts, world->owner_count, WALK_TRIES, text, sizeof(text));
    for (unsigned i = 0; err == 0 && i < WALK_TRIES; i++) {
        err = judge_replies(server, !is_exact);
        if (err >= 0 || err == -VV_ERR_FENCED)
            break;
        vv_rt_sleep_ns(VV_NS_PER_S);
    }
    vv_volume_stats(server->volume, &stats);
    if (stats.epoch < world->era_epoch)
        return -VV_ERR_FENCED; /* a newer one was faster: this one has nothing to say */
    world->era_epoch = stats.epoch;
    if (err < 0 && !world_excuses(server, err))
        world_fail(world, "server %u cannot read the tree: %s %s", server->number, vv_err_text(err),
                   text);
    return err < 0 ? err : judge_state(server, is_exact);
}

static void set_up_owners(struct server *server)
{
    struct world *world = server->world;
    for (unsigned i = 0; i < world->owner_count; i++) {
        const struct model *model = server->era->owners[i].now;
        struct generator *generator = &world->generators[i];
        generator->hidden = model->roots[1].inode;
        generator->region = model->roots[2].inode;
        server->engines[i] = (struct engine){.fs = server->fs,
                                             .prefix = generator->prefix,
                                             .hidden = generator->hidden,
                                             .region = generator->region,
                                             .region_offset = server->parts[i].region_offset,
                                             .bytes = world->buffers[i]};
    }
}

/* Manifests that move no replay point: settings are written again and again. */
static void manifest_main(void *arg)
{
    struct server *server = arg;
    const struct world *world = server->world;
    struct rng rng = {world->options.seed ^ (server->number + 1) * 0x9e3779b97f4a7c15ull};
    while (server->clients_running > 1) {
        vv_rt_sleep_ns(rng_log_between(&rng, 50, 3000) * VV_NS_PER_MS);
        if (server->clients_running <= 1 || world->is_failed)
            continue;
        int err = vv_volume_set_settings(server->volume, vv_volume_settings(server->volume));
        if (err < 0 && err != -VV_ERR_STOPPED && !world_excuses(server, err))
            world_fail(server->world, "server %u: settings: %s", server->number, vv_err_text(err));
    }
    server->clients_running--;
}

/* Flushes and, for there are many, compactions, with nothing else under way. */
static void settle_main(void *arg)
{
    struct server *server = arg;
    const struct world *world = server->world;
    struct rng rng = {world->options.seed ^ (server->number + 1) * 0xbf58476d1ce4e5b9ull};
    while (server->clients_running > 1) {
        vv_rt_sleep_ns(rng_log_between(&rng, 50, 1000) * VV_NS_PER_MS);
        if (server->clients_running <= 1 || world->is_failed)
            continue;
        server->is_resting = true;
        while (server->clients_going > 0 && !world->is_failed)
            vv_rt_sleep_ns(POLL_NS);
        int err = vv_volume_settle(server->volume);
        if (err < 0 && err != -VV_ERR_STOPPED && !world_excuses(server, err))
            world_fail(server->world, "server %u settles: %s", server->number, vv_err_text(err));
        server->is_resting = false;
    }
    server->clients_running--;
}

static void serve(struct server *server)
{
    struct world *world = server->world;
    server->stage = SERVER_SERVING;
    for (unsigned i = 0; i < world->client_count; i++) {
        server->clients[i] = (struct client){server, i};
        server->clients_running++;
        if (vv_fiber_start(client_main, &server->clients[i], "client") < 0) {
            server->clients_running--;
            world_fail(world, "cannot start a client");
        }
    }
    if (world->has_ballast) {
        server->clients_running++;
        if (vv_fiber_start(ballast_main, server, "ballast") < 0)
            server->clients_running--;
    }
    bool is_settling = world->mode->is_settling;
    if ((is_settling || world->options.seed % 2 == 0) && !world->is_failed) {
        server->clients_running++;
        if (vv_fiber_start(is_settling ? settle_main : manifest_main, server, "manifests") < 0)
            server->clients_running--;
    }
    while (server->clients_running > 0)
        vv_rt_sleep_ns(POLL_NS);
}

/* ---- the end ---- */

/* What is left in the tables that only file data has, for the one who looks for a leak. */
static void tell_leftovers(struct server *server)
{
    struct vv_lsm_iter *iter;
    struct vv_bytes key;
    struct vv_bytes value;
    struct vv_bytes lower = {(const uint8_t *)"E", 1};
    struct vv_bytes upper = {(const uint8_t *)"T~", 2};
    if (vv_volume_scan(server->volume, lower, upper, &iter) < 0)
        return;
    while (vv_lsm_iter_next(iter, &key, &value) > 0) {
        char key_text[100] = "";
        char value_text[200] = "";
        if (key.len > 48 || !strchr("ERFST", key.ptr[0]))
            continue;
        vv_hex(key.ptr + 1, key.len - 1, key_text);
        vv_hex(value.ptr, value.len < 90 ? value.len : 90, value_text);
        world_note(server->world, "left: %c %s = %s", key.ptr[0], key_text, value_text);
    }
    vv_lsm_iter_close(iter);
}

/* Settle, and see whether nothing is left. */
static bool is_empty(struct server *server, struct vv_volume_stats *out_stats, int *out_err)
{
    *out_err = vv_volume_settle(server->volume);
    vv_volume_stats(server->volume, out_stats);
    return *out_err == 0 && out_stats->live_bytes == 0 && out_stats->ranges == 0 &&
           out_stats->orphans == 0;
}

/* Unlinked inodes are reclaimed in the background, and what failed there waits before it is tried
 * again. */
static void check_empty(struct server *server)
{
    struct vv_volume_stats stats;
    int err;
    bool is_done = is_empty(server, &stats, &err);
    for (unsigned i = 0; i < LAST_SYNCS && !is_done; i++) {
        vv_rt_sleep_ns(LAST_PAUSE_NS);
        is_done = is_empty(server, &stats, &err);
    }
    if (is_done || is_over_for(server, err))
        return;
    tell_leftovers(server);
    world_fail(server->world,
               "with everything removed, %" PRIu64 " bytes are live, %" PRIu64
               " ranges and %" PRIu64 " orphans are left (settle: %s)",
               stats.live_bytes, stats.ranges, stats.orphans, vv_err_text(err));
}

/* All is done: everything must be there, be made durable, and be let go. */
static void finish(struct server *server)
{
    struct world *world = server->world;
    world_calm(world);
    /* What failed before waits for a while before it is tried again. */
    int err = vv_fs_sync(server->fs, 0);
    for (unsigned i = 0; i < LAST_SYNCS && err < 0; i++) {
        vv_rt_sleep_ns(LAST_PAUSE_NS);
        err = vv_fs_sync(server->fs, 0);
    }
    if (is_over_for(server, err))
        return;
    if (err < 0 && world->mode->is_lawless)
        return; /* its journal is broken; the next one will see */
    if (err < 0)
        world_fail(world, "the last sync: %s", vv_err_text(err));
    if (world->is_failed || judge(server, true) < 0 || ballast_check(server) < 0)
        return;
    if (rng_chance(&world->rng, 400)) {
        for (unsigned i = 0; i < world->owner_count; i++)
            engine_release_all(&server->engines[i]);
        /* What it does now is not in the histories: a crash that is due does not come any more. */
        vv_sim_process_kill_after(vv_sim_process_self(), 0);
        vv_sim_process_kill_before_sync(vv_sim_process_self(), "", 0);
        world->is_cleaning = true;
        client_clean(server);
        if (!world->is_failed && ballast_remove(server) == 0)
            check_empty(server);
    }
    /* It may be killed yet, and the last one be on the other machine. */
    err = world->mode->is_moving && !world->is_failed ? vv_volume_settle(server->volume) : 0;
    if (err < 0)
        world_fail(world, "the last settling: %s", vv_err_text(err));
    server->has_ended_well = !world->is_failed;
}

void server_main(void *arg)
{
    struct server *server = arg;
    struct world *world = server->world;
    int err = open_all(server);
    if (err == 0)
        err = judge(server, server->is_reader);
    if (err == 0 && server->is_reader && !world->is_cleaning && ballast_check(server) < 0)
        err = -EIO;
    if (err == 0 && server->is_reader && !world->is_failed)
        leftovers_check(server);
    if (err == 0 && !server->is_reader) {
        set_up_owners(server);
        serve(server);
        if (!server->is_superseded && !server->is_down && !world->is_failed)
            finish(server);
    }
    server->open_error = err;
    err = close_all(server);
    if (server->has_ended_well && err < 0 && !is_over_for(server, err))
        world_fail(world, "closing: %s", vv_err_text(err));
    server->stage = SERVER_ENDED;
}
