#include "world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "rt/rt.h"

#define POLL_NS (10 * VV_NS_PER_MS)
#define OPEN_AGAIN_NS (5 * VV_NS_PER_S)
#define ROUNDS_MAX 60 /* servers in all, beyond which nothing gets done */
#define OPENING_KILL_PERMILLE 250
#define OPENING_STEPS 900 /* fiber switches of an opening, about */
#define SERVING_STEPS 1200
#define SHUT_DOWN_PERMILLE 750
#define CONTESTS_BELOW 54 /* servers: then there are no more contests, but up to ROUNDS_MAX in a row */
#define TWIN_PERMILLE 300
#define CLUSTERED 4                   /* times as many crashes */
#define CLUSTERED_PERMILLE 600        /* of them come soon after the one before */
#define CLUSTERED_OPS_MAX 60          /* within so many operations */
#define CLUSTERED_KILLS_ROUNDS_MAX 30 /* servers that may die while they open */
#define TURNS_MAX 20                  /* with those that die while they open, below ROUNDS_MAX */
#define UNSYNCED_MAX 2                /* of the next syncs of the log's directories, one is where a crash comes */
#define REST_WAIT_NS (3 * VV_NS_PER_S)

/* ---- failures ---- */

void world_fail(struct world *world, const char *format, ...)
{
    va_list args;
    if (world->is_failed)
        return;
    world->is_failed = true;
    va_start(args, format);
    vsnprintf(world->failure, sizeof(world->failure), format, args);
    va_end(args);
}

void world_note(const struct world *world, const char *format, ...)
{
    va_list args;
    if (!world->options.is_verbose)
        return;
    printf("# %10.3f ", (double)vv_rt_now_ns() / (double)VV_NS_PER_S);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

bool world_excuses(const struct server *server, int err)
{
    const struct world *world = server->world;
    const struct mode *mode = world->mode;
    if (err == -VV_ERR_FENCED)
        return server->is_superseded;
    if (err == -VV_ERR_SHUT_DOWN)
        return server->is_down;
    /* What it reads may have been removed by who has taken over. */
    if ((err == -ENOENT || err == -EIO) && server->is_superseded)
        return true;
    if (world->is_calm)
        return false;
    if (err == -EIO || err == -ETIMEDOUT || err == -VV_ERR_UNKNOWN)
        /* A sync that waited too long for space, which came at last, does not say ENOSPC. */
        return mode->plan.fail_permille > 0 || mode->plan.unknown_permille > 0 ||
               mode->outages > 0 || mode->shortages > 0 || mode->disk_errors_per_10000 > 0;
    return err == -ENOSPC && mode->shortages > 0;
}

/* ---- weather ---- */

void world_apply_plan(struct world *world)
{
    for (unsigned i = 0; i < world->server_count; i++) {
        struct server *server = world->servers[i];
        if (server->fault && vv_sim_process_is_alive(server->process))
            *vv_store_fault_plan(server->fault) = world->plan;
    }
}

void world_calm(struct world *world)
{
    world->is_calm = true;
    world->plan = (struct vv_store_fault_plan){0};
    world_apply_plan(world);
    if (world->disk) {
        vv_sim_disk_set_capacity(world->disk, 0);
        vv_sim_disk_set_errors(world->disk, 0);
    }
}

static void set_freeing(struct world *world, bool is_freeing)
{
    for (unsigned i = 0; i < world->owner_count; i++)
        world->generators[i].is_freeing = is_freeing;
}

static void begin_bad_weather(struct world *world)
{
    bool is_outage = world->mode->outages > 0;
    uint64_t max_ms = world->mode->outage_max_ms ? world->mode->outage_max_ms : 40000;
    max_ms = is_outage ? max_ms : 20000;
    uint64_t ms = rng_log_between(&world->rng, 100, max_ms);
    world->weather_until = vv_rt_now_ns() + ms * VV_NS_PER_MS;
    world->is_bad_weather = true;
    world_note(world, "%s for %" PRIu64 " ms", is_outage ? "outage" : "shortage", ms);
    if (is_outage) {
        world->facts.outages++;
        world->plan.all_fail = rng_chance(&world->rng, 500) ? EIO : ETIMEDOUT;
    } else {
        world->facts.shortages++;
        world->plan.put_fail = ENOSPC;
        if (world->disk)
            vv_sim_disk_set_capacity(world->disk, vv_sim_disk_used(world->disk) +
                                                      rng_below(&world->rng, 600000) + 1);
        set_freeing(world, rng_chance(&world->rng, 400));
    }
    world_apply_plan(world);
}

static void end_bad_weather(struct world *world)
{
    world_note(world, "it is over");
    world->is_bad_weather = false;
    world->plan.all_fail = 0;
    world->plan.put_fail = 0;
    world_apply_plan(world);
    set_freeing(world, false);
    if (world->disk)
        vv_sim_disk_set_capacity(world->disk, 0);
}

static void weather(struct world *world)
{
    unsigned periods = world->mode->outages + world->mode->shortages;
    if (periods == 0 || world->is_calm)
        return;
    if (world->is_bad_weather && vv_rt_now_ns() >= world->weather_until)
        end_bad_weather(world);
    else if (!world->is_bad_weather && world->era && world->ops_done >= world->next_weather) {
        begin_bad_weather(world);
        world->next_weather = world->ops_done +
                              (unsigned)rng_below(&world->rng, 2 * world->options.ops / periods) +
                              1;
    }
}

/* ---- servers ---- */

static struct server *start_server(struct world *world, bool is_contested, bool is_reader)
{
    struct server *server = calloc(1, sizeof(*server));
    if (!server || world->server_count == SERVERS_MAX)
        abort();
    for (unsigned i = 0; i < world->server_count; i++)
        world->servers[i]->is_superseded = true;
    server->world = world;
    server->number = world->server_count;
    server->is_superseded = is_contested;
    server->is_reader = is_reader;
    for (unsigned i = 0; i < world->owner_count; i++) {
        struct engine_part *part = &server->parts[i];
        bool is_common = i == world->owner_count - 1;
        snprintf(part->root, sizeof(part->root), is_common ? "/common" : "/c%u", i);
        snprintf(part->prefix, sizeof(part->prefix), "%s", world->generators[i].prefix);
        part->region_offset = (uint64_t)REGION_BYTES * i;
        part->region_bytes = REGION_BYTES;
    }
    world->servers[world->server_count++] = server;
    server->process = vv_sim_process_start(world->disk, server_main, server);
    if (server->process < 0)
        world_fail(world, "cannot start a server: %s", vv_err_text(server->process));
    else
        world_note(world, "server %u opens (process %d)", server->number, server->process);
    return server;
}

/* What is to be seen when a process has ended. */
static void bury(struct world *world, struct server *server)
{
    size_t left = vv_alloc_domain_count((uint32_t)server->process);
    if (server->is_buried)
        return;
    server->is_buried = true;
    world->facts.shutdowns += server->is_down;
    world->facts.repacked_segments += server->repacked_segments;
    world->facts.repacked_frames += server->repacked_frames;
    world->facts.repack_refused += server->repack_refused;
    world->facts.merged_writes += server->merged_writes;
    world->facts.repack_kills += server->stage != SERVER_ENDED && server->is_repacking;
    if (server->stage != SERVER_ENDED)
        world->facts.kills++;
    else if (left > 0)
        world_fail(world, "server %u ended in good order and left %zu allocations", server->number,
                   left);
    bool is_right = server->open_error >= 0 || world_excuses(server, server->open_error) ||
                    world->mode->is_lawless;
    if (server->stage == SERVER_ENDED && !is_right)
        world_fail(world, "server %u cannot open: %s", server->number,
                   vv_err_text(server->open_error));
    world->facts.failed_opens += server->stage == SERVER_ENDED && server->open_error < 0;
    world_note(world, "server %u %s after %u operations%s%s", server->number,
               server->stage == SERVER_ENDED ? "has ended" : "was killed", world->ops_done,
               server->open_error < 0 ? ": " : "",
               server->open_error < 0 ? vv_err_text(server->open_error) : "");
}

static void cut_power(struct world *world)
{
    if (!world->disk || !rng_chance(&world->rng, world->mode->power_permille))
        return;
    world_note(world, "power cut");
    world->facts.power_cuts++;
    vv_sim_disk_power_cut(world->disk);
}

static bool is_turn_due(const struct world *world)
{
    return world->turns_done < world->turn_count &&
           world->ops_done >= world->turns[world->turns_done];
}

/* The clients of a server that is settling now never go on: it has nothing to commit, and does not
 * learn so that others have taken over. */
static void silence(struct server *server)
{
    uint64_t until = vv_rt_now_ns() + REST_WAIT_NS;
    while (vv_sim_process_is_alive(server->process) && !server->is_resting &&
           vv_rt_now_ns() < until)
        vv_rt_sleep_ns(POLL_NS);
    server->is_silent = server->is_resting;
}

/* Kill it within so many steps, or just before one of its next commits or fences is durable. */
static void kill_soon(struct world *world, const struct server *server, uint64_t steps)
{
    unsigned unsynced = world->mode->unsynced_permille;
    if (unsynced > 0 && rng_chance(&world->rng, unsynced))
        vv_sim_process_kill_before_sync(server->process, "/log",
                                        1 + (unsigned)rng_below(&world->rng, UNSYNCED_MAX));
    else
        vv_sim_process_kill_after(server->process, steps);
}

/* A turn of a racing world: the successor comes while the old one serves, perhaps with a rival.
 * True = leave this server alone, the next one is due. */
static bool race(struct world *world, struct server *server)
{
    if (world->mode->is_shutting_down && rng_chance(&world->rng, SHUT_DOWN_PERMILLE)) {
        server->is_down_due = true;
        return false;
    }
    if (!world->mode->is_racing || rng_chance(&world->rng, 250)) {
        kill_soon(world, server, 1 + rng_below(&world->rng, SERVING_STEPS));
        return false;
    }
    world->facts.races++;
    if (world->mode->is_settling && rng_chance(&world->rng, 800))
        silence(server);
    if (world->is_calm)
        return false; /* it finishes */
    if (rng_chance(&world->rng, 400))
        vv_sim_process_kill_after(server->process, 1 + rng_below(&world->rng, 6000));
    return true;
}

/* Look after a server until it has ended, or until its successor is due. */
static void supervise(struct world *world, struct server *server)
{
    while (!world->is_failed && vv_sim_process_is_alive(server->process)) {
        server_note_repacking(server);
        vv_rt_sleep_ns(POLL_NS);
        weather(world);
        /* Not of one that finishes: what it does then must succeed. */
        bool is_due = server->stage == SERVER_SERVING && !world->is_calm && is_turn_due(world);
        if (!is_due || !vv_sim_process_is_alive(server->process))
            continue;
        world->turns_done++;
        if (race(world, server))
            return;
    }
    if (world->is_failed)
        return;
    bury(world, server);
    if (!world->mode->is_racing && (server->stage != SERVER_ENDED || server->is_down))
        cut_power(world);
    if (server->open_error >= 0)
        return;
    if (world->is_bad_weather && world->weather_until > vv_rt_now_ns() + OPEN_AGAIN_NS)
        vv_rt_sleep_ns(world->weather_until - vv_rt_now_ns());
    vv_rt_sleep_ns(rng_below(&world->rng, OPEN_AGAIN_NS));
    weather(world);
}

/* Several at once: whoever wins, all end after a few operations. */
static void contest(struct world *world)
{
    struct server *servers[3];
    unsigned count = 2 + (unsigned)rng_below(&world->rng, 2);
    for (unsigned i = 0; i < count; i++) {
        servers[i] = start_server(world, true, false);
        vv_rt_sleep_ns(rng_below(&world->rng, 20 * VV_NS_PER_MS));
        if (rng_chance(&world->rng, OPENING_KILL_PERMILLE))
            vv_sim_process_kill_after(servers[i]->process,
                                      1 + rng_below(&world->rng, OPENING_STEPS));
    }
    /* Until all have claimed the volume, for the next one must not be fenced by them. */
    for (unsigned i = 0; i < count; i++) {
        servers[i]->is_superseded = true;
        while (servers[i]->stage == SERVER_OPENING && !world->is_failed &&
               vv_sim_process_is_alive(servers[i]->process))
            vv_rt_sleep_ns(POLL_NS);
    }
    vv_rt_sleep_ns(rng_below(&world->rng, VV_NS_PER_S));
}

/* Those that still run although others have taken over. */
static void wait_for_zombies(struct world *world)
{
    for (unsigned i = 0; i < world->server_count && !world->is_failed; i++) {
        while (vv_sim_process_is_alive(world->servers[i]->process) && !world->is_failed)
            vv_rt_sleep_ns(POLL_NS);
        if (!world->is_failed)
            bury(world, world->servers[i]);
    }
    for (unsigned i = 0; i < world->server_count && !world->is_failed; i++)
        judge_era(world, world->servers[i]->era);
}

static void read_again(struct world *world)
{
    /* What dead ones sent may land until then; the last one looks at all that is there. */
    if (world->mode->plan.unknown_permille > 0)
        vv_rt_sleep_ns(world->mode->plan.late_max_ns + VV_NS_PER_S);
    struct server *server = start_server(world, false, true);
    while (vv_sim_process_is_alive(server->process) && !world->is_failed)
        vv_rt_sleep_ns(POLL_NS);
    if (!world->is_failed)
        bury(world, server);
}

/* ---- the world ---- */

static int make_world(struct world *world)
{
    uint8_t id[16];
    uint8_t key[VV_KEY_FILE_LEN];
    struct vv_secret secret = {VV_SECRET_KEY_FILE, key, sizeof(key)};
    vv_rt_random(id, sizeof(id));
    vv_rt_random(key, sizeof(key));
    TRY(vv_keyring_new(id, &world->ring));
    TRY(vv_slots_create(world->ring, &secret, &vv_slot_cost_test, &world->keys, &world->keys_len));
    world->recorder = recorder_new(world->ring);
    if (!world->mode->is_mem || world->mode->has_journal || world->mode->has_cache)
        world->disk = vv_sim_disk_new(0);
    if (world->disk)
        vv_sim_disk_set_errors(world->disk, world->mode->disk_errors_per_10000);
    return world->mode->is_mem ? vv_store_backend_new(&world->backend) : 0;
}

static void kill_while_opening(struct world *world, const struct server *server, unsigned round)
{
    if (world->turns_done == 0)
        return;
    if (world->mode->is_clustered && round < CLUSTERED_KILLS_ROUNDS_MAX) {
        if (rng_chance(&world->rng, CLUSTERED_PERMILLE))
            kill_soon(world, server, rng_log_between(&world->rng, 1, OPENING_STEPS));
    } else if (rng_chance(&world->rng, OPENING_KILL_PERMILLE) && round < 20) {
        vv_sim_process_kill_after(server->process, 1 + rng_below(&world->rng, OPENING_STEPS));
    }
}

static void run_servers(struct world *world)
{
    bool is_over = false;
    unsigned round = 0;
    while (!world->is_failed && !is_over) {
        if (round++ > ROUNDS_MAX - 6) {
            world_fail(world, "%u servers, and nothing gets done", world->server_count);
            return;
        }
        if (world->mode->is_racing && round > 1 && world->server_count < CONTESTS_BELOW &&
            rng_chance(&world->rng, TWIN_PERMILLE))
            contest(world);
        struct server *server = start_server(world, false, false);
        kill_while_opening(world, server, round);
        supervise(world, server);
        is_over = server->has_ended_well;
    }
}

static void world_main(void *arg)
{
    struct world *world = arg;
    int err = make_world(world);
    if (err < 0)
        world_fail(world, "cannot make a world: %s", vv_err_text(err));
    else
        run_servers(world);
    if (!world->is_failed)
        wait_for_zombies(world);
    if (!world->is_failed)
        read_again(world);
    if (!world->is_failed && witness_fault(world->witness))
        world_fail(world, "%s", witness_fault(world->witness));
    if (!world->is_failed && recorder_fault(world->recorder))
        world_fail(world, "%s", recorder_fault(world->recorder));
    world->facts.removals = recorder_removals(world->recorder);
    world->facts.references = recorder_references(world->recorder);
    world->facts.fingerprint = vv_sim_fingerprint();
    vv_keyring_free(world->ring);
    vv_free(world->keys);
    if (world->is_failed)
        vv_sim_stop();
}

static int by_number(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a;
    unsigned y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}

static void *checked(void *ptr)
{
    if (!ptr)
        abort();
    return ptr;
}

static void draw_turns(struct world *world)
{
    struct rng *rng = &world->rng;
    bool is_clustered = world->mode->is_clustered;
    world->turn_count = world->options.crashes * (is_clustered ? CLUSTERED : 1);
    if (world->turn_count > TURNS_MAX)
        world->turn_count = TURNS_MAX;
    world->turns = checked(calloc(world->turn_count + 1, sizeof(*world->turns)));
    for (unsigned i = 0; i < world->turn_count; i++) {
        bool is_soon = is_clustered && i > 0 && rng_chance(rng, CLUSTERED_PERMILLE);
        world->turns[i] = is_soon ? world->turns[i - 1] +
                                        (unsigned)rng_log_between(rng, 1, CLUSTERED_OPS_MAX)
                                  : (unsigned)rng_below(rng, world->options.ops);
    }
    qsort(world->turns, world->turn_count, sizeof(*world->turns), by_number);
}

/* When repacking begins: nearly always much sooner than in the product, for worlds are small. */
static void draw_repack(struct world *world)
{
    static const uint64_t wastes[4] = {1, 4096, 32 << 10, 128 << 10};
    static const unsigned percents[3] = {1, 10, 50};
    static const unsigned lives[3] = {60, 90, 99};
    static const unsigned tinies[4] = {2, 8, 40, 1000};
    struct rng rng = {world->options.seed ^ 0x94d049bb133111ebull};
    if (rng_chance(&rng, 100))
        return;
    world->repack.waste_bytes = wastes[rng_below(&rng, 4)];
    world->repack.waste_percent = percents[rng_below(&rng, 3)];
    world->repack.live_percent = lives[rng_below(&rng, 3)];
    world->repack.tiny_count = tinies[rng_below(&rng, 4)];
}

/* All that the seed decides before anything runs. */
static void draw_world(struct world *world)
{
    static const uint64_t delays[4] = {VV_NS_PER_S, 50 * VV_NS_PER_MS, 200 * VV_NS_PER_MS,
                                       5 * VV_NS_PER_S};
    static const uint64_t segments[3] = {0, 64 << 10, 512 << 10};
    struct rng *rng = &world->rng;
    struct rng mixer = {world->options.seed};
    *rng = (struct rng){rng_next(&mixer)};
    world->profile = (enum profile)rng_below(rng, PROFILES);
    world->client_count = (unsigned)rng_between(rng, 2, 7);
    world->owner_count = world->client_count + 1;
    world->memory_bytes = rng_chance(rng, 600) ? 16 << 20 : 64 << 20;
    world->commit_delay_ns = delays[rng_below(rng, 4)];
    world->segment_bytes = segments[rng_below(rng, 3)];
    world->think_ns = rng_log_between(rng, 1, 40) * VV_NS_PER_MS;
    world->settings.cipher = (enum vv_cipher)rng_below(rng, 3);
    world->settings.compression = (enum vv_compression)rng_below(rng, 3);
    world->settings.level = 1;
    if (world->mode->ballast_mib > 0) {
        world->memory_bytes = 16 << 20;
        world->segment_bytes = 0;
        world->settings.compression = VV_COMPRESSION_LZ4;
    }
    world->plan = world->mode->plan;
    draw_repack(world);
    draw_turns(world);
    for (unsigned i = 0; i < world->owner_count; i++) {
        struct generator *generator = &world->generators[i];
        *generator = (struct generator){.rng = {rng_next(rng)},
                                        .profile = world->profile,
                                        .inodes_max = 40,
                                        .file_bytes_max = rng_log_between(rng, 50000, 1000000),
                                        .total_bytes_max = 3 << 20,
                                        .is_copying = true};
        snprintf(generator->prefix, sizeof(generator->prefix), "c%u-", i);
        world->buffers[i] = checked(malloc(OP_DATA_MAX + OP_XATTR_MAX));
    }
    world->sights = checked(calloc(world->owner_count, sizeof(*world->sights)));
}

int world_run(struct world *world, const struct world_options *options)
{
    world->options = *options;
    world->mode = options->mode;
    draw_world(world);
    world->witness = witness_new();
    struct vv_sim_options sim = {
        .seed = options->seed,
        .latency_min_ns = 10000,
        .latency_max_ns = rng_log_between(&world->rng, 20, 5000) * 1000,
        .reorder_permille = rng_chance(&world->rng, 500) ? 100 : 0,
        .is_reordering_dirs = world->mode->is_reordering_dirs,
    };
    int err = vv_sim_run(&sim, world_main, world);
    if (err < 0 && !world->is_failed)
        world_fail(world, "the world ended with %s", vv_err_text(err));
    return world->is_failed ? -1 : 0;
}

void world_done(struct world *world)
{
    for (unsigned i = 0; i < world->server_count; i++) {
        struct server *server = world->servers[i];
        for (unsigned j = 0; j < OWNERS_MAX; j++)
            model_dump_done(&server->parts[j].dump);
        era_unref(server->era);
        free(server);
    }
    era_unref(world->era);
    vv_store_backend_free(world->backend);
    witness_free(world->witness);
    recorder_free(world->recorder);
    for (unsigned i = 0; i < OWNERS_MAX; i++)
        free(world->buffers[i]);
    free(world->sights);
    free(world->turns);
    memset(world, 0, sizeof(*world));
}
