/* Writers that take a volume over from one another: several processes open, commit, flush and
 * delete at once, over a store whose puts time out and take effect late, and are killed anywhere.
 * Every commit carries the hash of the whole history up to it. At the end the history that a last
 * opener finds must hold every commit that any writer acknowledged. */
#include "log/log.h"

#include "base/hash.h"
#include "rig.h"

#define SEEDS 60
#define COMMITS_MAX 4096
#define HISTORY_MAX 16384
#define WRITERS 6
#define FIBERS 3

/* A state that some writer reached: the hash of its history, and of the one before its last commit.
 */
struct step {
    uint64_t hash;
    uint64_t parent;
    uint64_t commit;
};

struct world {
    struct rig rig;
    struct step steps[HISTORY_MAX];
    size_t step_count;
    uint64_t acknowledged[COMMITS_MAX]; /* the hash after the commit, 0 = not acknowledged */
    const char *fault;
    unsigned commits, flushes, takeovers, fenced;
};

static void fail(struct world *world, const char *fault)
{
    if (!world->fault)
        world->fault = fault;
}

static uint64_t hash_after(uint64_t hash, uint64_t commit, uint64_t tag)
{
    return vv_mix64(hash ^ vv_mix64(commit * 31 + vv_mix64(tag))) | 1;
}

static const struct step *find_step(const struct world *world, uint64_t hash)
{
    for (size_t i = world->step_count; i-- > 0;) {
        if (world->steps[i].hash == hash)
            return &world->steps[i];
    }
    return NULL;
}

/* ---- a writer ---- */

/* A log object that was replayed, or is confirmed: where it is, and the state after it. */
struct entry {
    uint64_t epoch;
    uint64_t seq;
    uint64_t commit;
    uint64_t hash;
};

struct writer {
    struct world *world;
    struct vv_store *store;
    struct vv_log *log;
    struct entry entries[COMMITS_MAX];
    size_t entry_count;     /* replayed, then our own in order of sequence */
    size_t confirmed_count; /* of them */
    uint64_t base_commit;
    uint64_t base_hash;
    bool is_ended;
    bool is_flushing;
    unsigned running;
    struct vv_waitq done;
};

static uint64_t last_commit(const struct writer *writer)
{
    return writer->entry_count ? writer->entries[writer->entry_count - 1].commit
                               : writer->base_commit;
}

static uint64_t last_hash(const struct writer *writer)
{
    return writer->entry_count ? writer->entries[writer->entry_count - 1].hash : writer->base_hash;
}

static int on_base(void *arg, const struct vv_manifest *manifest)
{
    struct writer *writer = arg;
    writer->entry_count = 0;
    writer->base_commit = manifest->last_commit;
    /* The test's "tables": the hash of the state that they hold. */
    writer->base_hash = manifest->pin_count ? vv_load_u64(manifest->pins[0].id) : 0;
    return 0;
}

static int on_batch(void *arg, const struct vv_segment_id *id, const struct vv_batch_header *header,
                    struct vv_bytes payload, uint64_t object_bytes)
{
    struct writer *writer = arg;
    (void)object_bytes;
    uint64_t hash = hash_after(last_hash(writer), header->first_commit, vv_load_u64(payload.ptr));
    if (!find_step(writer->world, hash))
        fail(writer->world, "a replay that mixes histories");
    writer->entries[writer->entry_count++] =
        (struct entry){id->epoch, id->counter, header->first_commit, hash};
    return 0;
}

static int commit_one(struct writer *writer)
{
    struct world *world = writer->world;
    if (last_commit(writer) + 2 > COMMITS_MAX || world->step_count == HISTORY_MAX)
        return -VV_ERR_LIMIT;
    uint64_t tag = vv_rt_random_u64();
    struct entry entry = {.epoch = vv_log_epoch(writer->log),
                          .seq = vv_log_next_id(writer->log).counter,
                          .commit = last_commit(writer) + 1,
                          .hash = hash_after(last_hash(writer), last_commit(writer) + 1, tag)};
    world->steps[world->step_count++] = (struct step){entry.hash, last_hash(writer), entry.commit};
    struct object object = object_new(&world->rig, writer->log, entry.commit, tag, 8);
    writer->entries[writer->entry_count++] = entry;
    int err = object_put(writer->log, &object);
    object_free(&object);
    if (err)
        return err;
    uint64_t *acknowledged = &world->acknowledged[entry.commit];
    if (*acknowledged && *acknowledged != entry.hash)
        fail(world, "two histories were acknowledged");
    *acknowledged = entry.hash;
    world->commits++;
    return 0;
}

/* Rule 14: what this confirmed manifest does not need; never fences (15). */
static void collect(struct writer *writer)
{
    struct world *world = writer->world;
    const struct vv_manifest *manifest = vv_log_manifest(writer->log);
    struct vv_store_entry page[100];
    ssize_t count = vv_store_list(world->rig.store, "log/", "", page, 100);
    if (vv_log_remove_old_manifests(writer->log) < 0)
        return;
    for (ssize_t i = 0; i < count && !vv_log_is_fenced(writer->log); i++) {
        struct vv_segment_id id;
        if (vv_segment_name_parse(page[i].name, &id) < 0 || page[i].size <= VV_OBJECT_HEADER_LEN)
            continue;
        bool is_needed = id.epoch > manifest->epoch;
        for (size_t j = 0; j < manifest->epoch_count; j++)
            is_needed |= manifest->epochs[j].epoch == id.epoch &&
                         id.counter >= manifest->epochs[j].replay_seq;
        if (!is_needed && vv_store_remove(writer->store, page[i].name) < 0)
            return;
        if (vv_log_is_fenced(writer->log))
            return;
        manifest = vv_log_manifest(writer->log);
    }
}

/* The first sequence of `epoch` that entries beyond `kept` need; UINT64_MAX when none is. */
static uint64_t first_needed(const struct writer *writer, uint64_t epoch, size_t kept)
{
    for (size_t i = kept; i < writer->entry_count; i++) {
        if (writer->entries[i].epoch == epoch)
            return writer->entries[i].seq;
    }
    return UINT64_MAX;
}

/* Put a random part of what is confirmed into the "tables". */
static int flush(struct writer *writer)
{
    struct vv_manifest next;
    size_t kept = vv_sim_random(writer->confirmed_count + 1);
    uint64_t commit = kept ? writer->entries[kept - 1].commit : writer->base_commit;
    uint64_t hash = kept ? writer->entries[kept - 1].hash : writer->base_hash;
    if (commit < vv_log_manifest(writer->log)->last_commit)
        return 0;
    if (vv_manifest_copy(vv_log_manifest(writer->log), &next) < 0)
        abort();
    if (!next.pins)
        next.pins = vv_zalloc(sizeof(*next.pins));
    next.pin_count = 1;
    vv_store_u64(next.pins[0].id, hash);
    next.last_commit = commit;
    size_t count = 0;
    for (size_t i = 0; i < next.epoch_count; i++) {
        uint64_t needed = first_needed(writer, next.epochs[i].epoch, kept);
        bool is_own = next.epochs[i].epoch == vv_log_epoch(writer->log);
        if (needed == UINT64_MAX && is_own)
            needed = vv_log_next_id(writer->log).counter;
        if (needed != UINT64_MAX)
            next.epochs[count++] = (struct vv_epoch_ref){next.epochs[i].epoch, needed};
    }
    next.epoch_count = count;
    int err = vv_log_write_manifest(writer->log, &next);
    vv_manifest_done(&next);
    if (err)
        return err;
    writer->world->flushes++;
    collect(writer);
    return 0;
}

static void note_confirmed(struct writer *writer)
{
    while (writer->confirmed_count < writer->entry_count) {
        const struct entry *entry = &writer->entries[writer->confirmed_count];
        if (entry->epoch == vv_log_epoch(writer->log) &&
            entry->seq >= vv_log_confirmed_seq(writer->log))
            break;
        writer->confirmed_count++;
    }
}

static void run_fiber(void *arg)
{
    struct writer *writer = arg;
    while (!writer->is_ended) {
        int err = commit_one(writer);
        note_confirmed(writer);
        if (!err && vv_sim_chance(120) && !writer->is_flushing) {
            writer->is_flushing = true;
            err = flush(writer);
            writer->is_flushing = false;
        }
        if (err == -VV_ERR_FENCED && !vv_log_is_fenced(writer->log))
            fail(writer->world, "fenced, but not for good");
        writer->is_ended |= err < 0 || vv_sim_chance(15);
        if (vv_sim_chance(300))
            vv_rt_sleep_ns(vv_sim_random(20 * VV_NS_PER_MS));
    }
    writer->running--;
    vv_waitq_wake_all(&writer->done);
}

static int serve(struct writer *writer)
{
    struct vv_log_options options = rig_options(&writer->world->rig, writer->store);
    struct vv_log_replay replay = {.arg = writer, .base = on_base, .batch = on_batch};
    bool is_current;
    TRY(vv_log_open(&options, &replay, &writer->log, &is_current));
    writer->world->takeovers++;
    writer->confirmed_count = writer->entry_count;
    for (int i = 0; i < FIBERS; i++) {
        writer->running++;
        if (vv_fiber_start(run_fiber, writer, "commits") < 0)
            abort();
    }
    while (writer->running > 0)
        vv_waitq_wait(&writer->done, VV_NEVER);
    writer->world->fenced += vv_log_is_fenced(writer->log);
    vv_log_close(writer->log);
    return 0;
}

static void run_writer(void *arg)
{
    struct world *world = arg;
    struct writer *writer = vv_zalloc(sizeof(*writer));
    writer->world = world;
    vv_waitq_init(&writer->done);
    writer->store = rig_faulty(&world->rig);
    *vv_store_fault_plan(writer->store) =
        (struct vv_store_fault_plan){.fail_permille = 10,
                                     .unknown_permille = (unsigned)vv_sim_random(300),
                                     .late_max_ns = 300 * VV_NS_PER_MS,
                                     .slow_permille = 700,
                                     .slow_max_ns = 10 * VV_NS_PER_MS};
    int err = serve(writer);
    if (err == -VV_ERR_GAP || err == -VV_ERR_CORRUPT || err == -VV_ERR_AUTH ||
        err == -VV_ERR_FORMAT)
        fail(world, vv_err_text(err));
    vv_store_close(writer->store);
    vv_free(writer);
}

/* ---- the end ---- */

static void check_history(struct world *world)
{
    struct writer *last = vv_zalloc(sizeof(*last));
    struct vv_log_options options = rig_options(&world->rig, world->rig.store);
    struct vv_log_replay replay = {.arg = last, .base = on_base, .batch = on_batch};
    struct vv_log *log;
    bool is_current;
    last->world = world;
    vv_rt_sleep_ns(VV_NS_PER_S); /* every late put has landed */
    int err = vv_log_open(&options, &replay, &log, &is_current);
    if (err) {
        fail(world, vv_err_text(err));
        vv_free(last);
        return;
    }
    uint64_t commit = last_commit(last);
    uint64_t hash = last_hash(last);
    for (uint64_t i = commit + 1; i < COMMITS_MAX; i++) {
        if (world->acknowledged[i])
            fail(world, "acknowledged commits at the end are lost");
    }
    for (; commit > 0; commit--) {
        const struct step *step = find_step(world, hash);
        if (!step || step->commit != commit) {
            fail(world, "a history that nobody made");
            break;
        }
        if (world->acknowledged[commit] && world->acknowledged[commit] != hash)
            fail(world, "an acknowledged commit is not in the history");
        hash = step->parent;
    }
    vv_log_close(log);
    vv_free(last);
}

static void run_world_of_writers(void *arg)
{
    struct world *world = arg;
    int processes[WRITERS];
    world->rig = rig_with_volume();
    for (int i = 0; i < WRITERS; i++) {
        processes[i] = vv_sim_process_start(NULL, run_writer, world);
        if (processes[i] < 0)
            abort();
        if (vv_sim_chance(700))
            vv_sim_process_kill_after(processes[i], 1 + vv_sim_random(1500));
        vv_rt_sleep_ns(vv_sim_random(vv_sim_chance(300) ? 10 * VV_NS_PER_MS : VV_NS_PER_S));
    }
    for (int i = 0; i < WRITERS; i++)
        vv_sim_process_wait(processes[i]);
    check_history(world);
    rig_free(&world->rig);
}

int main(int argc, char **argv)
{
    rig_main();
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : SEEDS;
    unsigned faults = 0, commits = 0, flushes = 0, takeovers = 0, fenced = 0;
    struct world *world = vv_alloc(sizeof(*world));
    for (uint64_t seed = first; seed < first + count; seed++) {
        memset(world, 0, sizeof(*world));
        run_world(seed, run_world_of_writers, world);
        if (world->fault && faults++ < 5)
            tap_note("seed %llu: %s", (unsigned long long)seed, world->fault);
        commits += world->commits;
        flushes += world->flushes;
        takeovers += world->takeovers;
        fenced += world->fenced;
    }
    vv_free(world);
    tap_is_int(faults, 0, "every acknowledged commit is in the one history");
    tap_ok(takeovers > 0, "%u takeovers, %u commits, %u flushes, %u fenced", takeovers, commits,
           flushes, fenced);
    return tap_done();
}
