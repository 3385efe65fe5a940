/* A journal through many lives: processes that are killed anywhere, power cuts that lose and tear
 * what is not synced, disks that fail. After each: every acknowledged record is there, in order,
 * and nothing else. */
#include "log/journal.h"

#include "rig.h"

#define COMMITS_MAX 4096
#define SEEDS 200
#define LIVES 6
#define FIBERS 4

/* What outlives the processes. Commits up to `bucket` are in the bucket; up to `acknowledged` were
 * acknowledged; up to `appended` an append was begun, with these tags. */
struct model {
    struct vv_keyring *ring;
    struct vv_sim_disk *disk;
    uint64_t bucket;
    uint64_t acknowledged;
    uint64_t appended;
    uint64_t next_tag;
    uint64_t tags[COMMITS_MAX];
    uint8_t id[16];
    bool has_id;
    unsigned lives_served;
    const char *fault; /* what went wrong */
    uint64_t scanned;  /* last number given in the scan under way */
};

static void fail(struct model *model, const char *fault)
{
    if (!model->fault)
        model->fault = fault;
}

static int check_record(void *arg, uint64_t commit, struct vv_bytes plain)
{
    struct model *model = arg;
    if (commit != model->scanned + 1)
        fail(model, "a record out of order");
    else if (commit > model->appended)
        fail(model, "a record that was never appended, or belongs to a life before");
    else if (plain.len < 8 || vv_load_u64(plain.ptr) != model->tags[commit])
        fail(model, "a record of another life under this number");
    model->scanned = commit;
    return 0;
}

struct life {
    struct model *model;
    struct vv_journal *journal;
    bool is_ended;
    unsigned running;
    struct vv_waitq done;
};

static int append_one(struct life *life)
{
    struct model *model = life->model;
    static const size_t sizes[] = {8, 8, 40, 400, 1000, 3000, 9000};
    size_t len = sizes[vv_sim_random(7)];
    if (vv_sim_chance(10))
        len = 70000;
    uint8_t *bytes = vv_zalloc(len);
    uint64_t commit = model->appended + 1;
    model->appended = commit;
    model->tags[commit] = ++model->next_tag;
    vv_store_u64(bytes, model->tags[commit]);
    struct iovec iov[2] = {{bytes, 4}, {bytes + 4, len - 4}};
    int err = vv_journal_append(life->journal, commit, iov, 2);
    vv_free(bytes);
    if (err)
        return err;
    if (model->acknowledged + 1 != commit && model->acknowledged < commit)
        fail(model, "acknowledged out of order");
    if (commit > model->acknowledged)
        model->acknowledged = commit;
    return 0;
}

static void run_writer(void *arg)
{
    struct life *life = arg;
    struct model *model = life->model;
    while (!life->is_ended && model->appended + FIBERS < COMMITS_MAX) {
        if (append_one(life) < 0)
            life->is_ended = true;
        if (vv_sim_chance(200))
            vv_rt_sleep_ns(vv_sim_random(500000));
        if (vv_sim_chance(150) && !life->is_ended) {
            /* Some of what is acknowledged reaches the bucket. */
            uint64_t behind = model->acknowledged - model->bucket;
            if (behind > 0)
                model->bucket += vv_sim_random(behind) + 1;
            vv_journal_trim(life->journal, model->bucket);
        }
        if (vv_sim_chance(4))
            life->is_ended = true;
    }
    life->running--;
    vv_waitq_wake_all(&life->done);
}

/* Scan, and check what came. Now and then the tail goes to the bucket and the journal starts over.
 */
static int begin_life(struct life *life)
{
    struct model *model = life->model;
    uint64_t last;
    model->scanned = model->bucket;
    TRY(vv_journal_scan(life->journal, model->bucket, check_record, model, &last));
    if (last != model->scanned)
        fail(model, "a scan that miscounts");
    if (last < model->acknowledged)
        fail(model, "an acknowledged record is lost");
    model->appended = last;
    model->acknowledged = last;
    if (!vv_sim_chance(300))
        return 0;
    model->bucket = last;
    return vv_journal_reset(life->journal, last + 1);
}

static void run_life(void *arg)
{
    struct model *model = arg;
    struct life life = {.model = model};
    vv_waitq_init(&life.done);
    int err = vv_journal_open("journal", model->ring, &rig_settings, 64u << 10, &life.journal);
    if (err)
        return;
    if (model->has_id && memcmp(model->id, vv_journal_id(life.journal), 16) != 0)
        fail(model, "another id");
    memcpy(model->id, vv_journal_id(life.journal), 16);
    err = begin_life(&life);
    if (err == -VV_ERR_CORRUPT)
        fail(model, "damage where there is none");
    for (int i = 0; i < FIBERS && !err; i++) {
        model->has_id = true; /* from now on records rely on it */
        model->lives_served += i == 0;
        life.running++;
        if (vv_fiber_start(run_writer, &life, "writer") < 0)
            abort();
    }
    while (life.running > 0)
        vv_waitq_wait(&life.done, VV_NEVER);
    vv_journal_close(life.journal);
}

static void run_lives(void *arg)
{
    struct model *model = arg;
    uint8_t volume_id[16] = {1};
    if (vv_keyring_new(volume_id, &model->ring) < 0)
        abort();
    model->disk = vv_sim_disk_new(0);
    for (int i = 0; i < LIVES && !model->fault; i++) {
        bool is_last = i == LIVES - 1;
        vv_sim_disk_set_errors(model->disk, !is_last && vv_sim_chance(300) ? 40 : 0);
        int process = vv_sim_process_start(model->disk, run_life, model);
        if (process < 0)
            abort();
        if (!is_last && vv_sim_chance(850))
            vv_sim_process_kill_after(process, 1 + vv_sim_random(vv_sim_chance(300) ? 40 : 1500));
        vv_sim_process_wait(process);
        if (vv_sim_chance(600))
            vv_sim_disk_power_cut(model->disk);
    }
    vv_keyring_free(model->ring);
}

int main(int argc, char **argv)
{
    rig_main();
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : SEEDS;
    unsigned lives = 0;
    uint64_t appended = 0;
    unsigned faults = 0;
    struct model *model = vv_alloc(sizeof(*model));
    for (uint64_t seed = first; seed < first + count; seed++) {
        memset(model, 0, sizeof(*model));
        run_world(seed, run_lives, model);
        if (model->fault && faults++ < 5)
            tap_note("seed %llu: %s (bucket %llu, acknowledged %llu, scanned %llu)",
                     (unsigned long long)seed, model->fault, (unsigned long long)model->bucket,
                     (unsigned long long)model->acknowledged, (unsigned long long)model->scanned);
        lives += model->lives_served;
        appended += model->appended;
    }
    vv_free(model);
    tap_is_int(faults, 0, "every acknowledged record, in order, and nothing else");
    tap_ok(appended > 0, "%u lives, %llu records", lives, (unsigned long long)appended);
    return tap_done();
}
