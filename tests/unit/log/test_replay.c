/* Rule 8: on a local directory a killed writer's object may be visible without being on stable
 * media. What an opening replays and builds upon must survive the next power loss. */
#include "log/log.h"

#include "rig.h"

#define SEEDS 100

struct world {
    struct rig rig;
    struct vv_sim_disk *disk;
    uint64_t replayed; /* commits that the second process saw and built upon */
    uint64_t found;    /* by the third */
    int err;
};

static struct vv_log *open_log(struct world *world, struct vv_store **out_store)
{
    struct seen seen = {0};
    struct vv_log *log = NULL;
    struct vv_log_replay replay = rig_replay(&seen);
    bool is_current;
    *out_store = NULL;
    world->err = vv_store_dir_open("store", true, out_store);
    if (world->err)
        return NULL;
    struct vv_log_options options = rig_options(&world->rig, *out_store);
    options.is_syncing_replay = true;
    world->err = vv_log_open(&options, &replay, &log, &is_current);
    return world->err ? NULL : log;
}

static void run_creator(void *arg)
{
    struct world *world = arg;
    struct vv_store *store = NULL;
    world->err = vv_store_dir_open("store", true, &store);
    if (!world->err)
        world->err = rig_create(&world->rig, store);
    vv_store_close(store);
}

/* Commits until it is killed. */
static void run_victim(void *arg)
{
    struct world *world = arg;
    struct vv_store *store;
    struct vv_log *log = open_log(world, &store);
    for (uint64_t commit = 1; log && commit < 100; commit++) {
        if (rig_commit(&world->rig, log, commit, commit) < 0)
            break;
    }
    vv_log_close(log);
    vv_store_close(store);
}

/* Builds upon what the victim left. */
static void run_heir(void *arg)
{
    struct world *world = arg;
    struct vv_store *store;
    struct vv_log *log = open_log(world, &store);
    if (log) {
        world->replayed = vv_log_last_commit(log);
        world->err = rig_commit(&world->rig, log, world->replayed + 1, 0);
    }
    vv_log_close(log);
    vv_store_close(store);
}

static void run_last(void *arg)
{
    struct world *world = arg;
    struct vv_store *store;
    struct vv_log *log = open_log(world, &store);
    if (log)
        world->found = vv_log_last_commit(log);
    vv_log_close(log);
    vv_store_close(store);
}

static void run_process(struct world *world, void (*fn)(void *), uint64_t steps)
{
    int process = vv_sim_process_start(world->disk, fn, world);
    if (process < 0)
        abort();
    if (steps)
        vv_sim_process_kill_after(process, steps);
    vv_sim_process_wait(process);
}

static void run_seed(void *arg)
{
    struct world *world = arg;
    memset(world->rig.volume_id, 3, 16);
    if (vv_keyring_new(world->rig.volume_id, &world->rig.ring) < 0)
        abort();
    world->disk = vv_sim_disk_new(0);
    run_process(world, run_creator, 0);
    if (!world->err)
        run_process(world, run_victim, 1 + vv_sim_random(vv_sim_chance(500) ? 120 : 500));
    /* An opener that is killed between making its fence visible and making it durable. */
    if (vv_sim_chance(800))
        run_process(world, run_heir, 10 + vv_sim_random(300));
    run_process(world, run_heir, 0);
    vv_sim_disk_power_cut(world->disk);
    if (!world->err)
        run_process(world, run_last, 0);
    vv_keyring_free(world->rig.ring);
}

int main(int argc, char **argv)
{
    rig_main();
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : SEEDS;
    unsigned errors = 0, lost = 0;
    uint64_t replayed = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct world world = {0};
        run_world(seed, run_seed, &world);
        if (world.err && errors++ < 5)
            tap_note("seed %llu: %s", (unsigned long long)seed, vv_err_text(world.err));
        if (!world.err && world.found != world.replayed + 1 && lost++ < 5)
            tap_note("seed %llu: replayed %llu, found %llu", (unsigned long long)seed,
                     (unsigned long long)world.replayed, (unsigned long long)world.found);
        replayed += world.replayed;
    }
    tap_is_int(errors, 0, "what was replayed is whole after a power loss");
    tap_is_int(lost, 0, "and nothing built upon it is lost");
    tap_ok(replayed > 0, "%llu commits were replayed", (unsigned long long)replayed);
    return tap_done();
}
