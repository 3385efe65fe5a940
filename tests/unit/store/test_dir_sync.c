#include "store/store.h"

#include "contract.h"

/* What a dir store promises across crashes, power cuts and failing disks, on simulated disks.
 * Several fibers put the same names with different contents; each content is made from the name's
 * index and the fiber's number, so that a half or mixed object shows. */

#define NAMES 6
#define PUTTERS 3

enum outcome { NOT_TRIED, ACKNOWLEDGED, FOUND_TAKEN, FAILED, UNKNOWN };

/* What the test knows; it belongs to no process. */
static struct {
    struct vv_sim_disk *disk;
    int acknowledged[NAMES]; /* the putter whose put returned 0, or -1 */
    bool is_taken[NAMES];    /* a put was told that the name is taken */
    bool is_synced[NAMES];   /* vv_store_sync has returned 0 */
    enum outcome outcomes[NAMES];
    unsigned errors_per_10000;
    int cuts_between; /* how often an unacknowledged object survived */
    int lost;         /* how often an object that was being put did not */
} known;

static const char *const names[NAMES] = {"a",       "log/1/1",   "log/1/2",
                                         "log/2/1", "data/0f/x", "b/c/d/e"};

/* Sizes from 0 to some sectors. */
static size_t content_of(int name, int putter, uint8_t *out)
{
    static const size_t lens[NAMES] = {0, 10, 511, 513, 2000, 5000};
    size_t len = lens[name];
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(1 + (i * 7 + (size_t)name * 31 + (size_t)putter * 101) % 255);
    return len;
}

static int put_content(struct vv_store *store, int name, int putter)
{
    uint8_t content[5000];
    size_t len = content_of(name, putter, content);
    struct iovec iov[2] = {{content, len / 3}, {content + len / 3, len - len / 3}};
    return vv_store_put(store, names[name], iov, 2);
}

/* Which putter's content an object has: -1 absent, -2 something else, or an error. */
static int owner_of(struct vv_store *store, int name)
{
    uint8_t content[5000];
    uint8_t *bytes CLEANUP(vv_free_ptr) = NULL;
    size_t len = 0;
    int err = vv_store_get_all(store, names[name], 10000, &bytes, &len);
    if (err < 0)
        return err == -ENOENT ? -1 : -2;
    for (int putter = 0; putter < PUTTERS; putter++) {
        size_t want = content_of(name, putter, content);
        if (want == len && memcmp(content, bytes, len) == 0)
            return putter;
    }
    return -2;
}

static void reset_known(void)
{
    struct vv_sim_disk *disk = known.disk;
    int cuts_between = known.cuts_between;
    int lost = known.lost;
    memset(&known, 0, sizeof(known));
    known.disk = disk;
    known.cuts_between = cuts_between;
    known.lost = lost;
    for (int i = 0; i < NAMES; i++)
        known.acknowledged[i] = -1;
}

struct putters {
    struct vv_store *store;
    int started;
    int running;
    struct vv_waitq finished;
};

static void putter_main(void *arg)
{
    struct putters *putters = arg;
    int putter = putters->started++;
    for (int i = 0; i < NAMES; i++) {
        int name = (i + putter * 2) % NAMES;
        int err = put_content(putters->store, name, putter);
        if (err == 0)
            known.acknowledged[name] = putter;
        if (err == -EEXIST)
            known.is_taken[name] = true;
    }
    putters->running--;
    vv_waitq_wake_all(&putters->finished);
}

static void writer_main(void *arg)
{
    struct putters putters = {0};
    if (vv_store_dir_open("/store", true, &putters.store) < 0)
        return;
    vv_waitq_init(&putters.finished);
    for (int i = 0; i < PUTTERS; i++)
        putters.running += vv_fiber_start(putter_main, &putters, "putter") == 0;
    while (putters.running > 0)
        (void)vv_waitq_wait(&putters.finished, VV_NEVER);
    vv_store_close(putters.store);
}

static int count_listed(struct vv_store *store)
{
    static struct vv_store_entry entries[NAMES + 1];
    return (int)vv_store_list(store, "", "", entries, NAMES + 1);
}

static void check_main(void *arg)
{
    uint64_t seed = *(const uint64_t *)arg;
    struct vv_store *store;
    int there = 0;
    if (vv_store_dir_open("/store", true, &store) < 0) {
        tap_ok(false, "seed %llu: the store opens", (unsigned long long)seed);
        return;
    }
    for (int i = 0; i < NAMES; i++) {
        int owner = owner_of(store, i);
        bool is_right = owner != -2;
        if (known.acknowledged[i] >= 0)
            is_right &= content_of(i, 0, (uint8_t[5000]){0}) == 0 ? owner >= 0
                                                                  : owner == known.acknowledged[i];
        if (known.is_taken[i] || known.is_synced[i])
            is_right &= owner >= 0;
        if (!is_right)
            tap_ok(false, "seed %llu: %s, acknowledged %d, taken %d, synced %d: is %d",
                   (unsigned long long)seed, names[i], known.acknowledged[i], known.is_taken[i],
                   known.is_synced[i], owner);
        there += owner >= 0;
        known.cuts_between += owner >= 0 && known.acknowledged[i] < 0 && !known.is_taken[i];
        known.lost += owner < 0;
    }
    int listed = count_listed(store);
    if (listed != there)
        tap_ok(false, "seed %llu: %d are there, %d are listed", (unsigned long long)seed, there,
               listed);
    vv_store_close(store);
}

/* Sync everything that is visible, as an opening does with what it replays (PROTOCOL 8). */
static void sync_main(void *arg)
{
    struct vv_store *store;
    if (vv_store_dir_open("/store", true, &store) < 0)
        return;
    for (int i = 0; i < NAMES; i++) {
        if (owner_of(store, i) >= 0)
            known.is_synced[i] = vv_store_sync(store, names[i]) == 0;
    }
    vv_store_close(store);
}

static void run_process(void (*fn)(void *), void *arg, uint64_t kill_after)
{
    int process = vv_sim_process_start(known.disk, fn, arg);
    if (process < 0) {
        tap_is_int(process, 0, "a process starts");
        return;
    }
    if (kill_after > 0)
        vv_sim_process_kill_after(process, kill_after);
    vv_sim_process_wait(process);
}

/* Crash anywhere, lose power, look; then go on where it ended. */
static void power_main(void *arg)
{
    known.disk = vv_sim_disk_new(0);
    reset_known();
    for (int round = 0; round < 2; round++) {
        run_process(writer_main, NULL, 1 + vv_sim_random(round == 0 ? 250 : 500));
        vv_sim_disk_power_cut(known.disk);
        run_process(check_main, arg, 0);
        /* Only what was acknowledged counts; the rest may vanish as long as nobody has synced it.
         */
        vv_sim_disk_power_cut(known.disk);
        run_process(check_main, arg, 0);
    }
}

/* Crash anywhere; a successor syncs what it sees; then the power goes. */
static void successor_main(void *arg)
{
    known.disk = vv_sim_disk_new(0);
    reset_known();
    run_process(writer_main, NULL, 1 + vv_sim_random(250));
    run_process(sync_main, NULL, 0);
    vv_sim_disk_power_cut(known.disk);
    run_process(check_main, arg, 0);
}

/* ---- puts that share the sync of their directory ---- */

#define SHARERS 8
#define SHARED_EACH 3

static bool shared_acknowledged[SHARERS][SHARED_EACH];

static void shared_name(int sharer, int i, char *out, size_t size)
{
    (void)snprintf(out, size, "same/%d-%d", sharer, i);
}

static void sharer_main(void *arg)
{
    struct putters *putters = arg;
    int sharer = putters->started++;
    char name[32];
    for (int i = 0; i < SHARED_EACH; i++) {
        shared_name(sharer, i, name, sizeof(name));
        shared_acknowledged[sharer][i] = put_text(putters->store, name, name) == 0;
    }
    putters->running--;
    vv_waitq_wake_all(&putters->finished);
}

static void sharers_main(void *arg)
{
    struct putters putters = {0};
    if (vv_store_dir_open("/store", true, &putters.store) < 0)
        return;
    vv_waitq_init(&putters.finished);
    for (int i = 0; i < SHARERS; i++)
        putters.running += vv_fiber_start(sharer_main, &putters, "sharer") == 0;
    while (putters.running > 0)
        (void)vv_waitq_wait(&putters.finished, VV_NEVER);
    vv_store_close(putters.store);
}

static void check_shared_main(void *arg)
{
    struct vv_store *store;
    char name[32];
    if (vv_store_dir_open("/store", true, &store) < 0)
        return;
    for (int sharer = 0; sharer < SHARERS; sharer++) {
        for (int i = 0; i < SHARED_EACH; i++) {
            shared_name(sharer, i, name, sizeof(name));
            if (shared_acknowledged[sharer][i] && !holds_text(store, name, name))
                tap_ok(false, "seed %llu: %s is there", *(unsigned long long *)arg, name);
        }
    }
    vv_store_close(store);
}

static void shared_main(void *arg)
{
    known.disk = vv_sim_disk_new(0);
    memset(shared_acknowledged, 0, sizeof(shared_acknowledged));
    run_process(sharers_main, NULL, 1 + vv_sim_random(400));
    vv_sim_disk_power_cut(known.disk);
    run_process(check_shared_main, arg, 0);
}

/* ---- disks that fail ---- */

static void failing_main(void *arg)
{
    struct vv_store *store;
    if (vv_store_dir_open("/store", true, &store) < 0)
        return;
    vv_sim_disk_set_errors(known.disk, known.errors_per_10000);
    for (int i = 0; i < NAMES; i++) {
        int err = put_content(store, i, 0);
        known.outcomes[i] = err == 0                 ? ACKNOWLEDGED
                            : err == -EEXIST         ? FOUND_TAKEN
                            : err == -VV_ERR_UNKNOWN ? UNKNOWN
                                                     : FAILED;
        if (known.outcomes[i] == FAILED && err != -EIO)
            tap_ok(false, "put fails with %s", vv_err_name(err));
    }
    vv_sim_disk_set_errors(known.disk, 0);
    for (int i = 0; i < NAMES; i++) {
        bool is_there = owner_of(store, i) == 0;
        if (known.outcomes[i] == ACKNOWLEDGED)
            known.acknowledged[i] = 0;
        if (is_there ? known.outcomes[i] == FAILED : known.outcomes[i] == ACKNOWLEDGED)
            tap_ok(false, "%s: outcome %d, and it is %s", names[i], known.outcomes[i],
                   is_there ? "there" : "not there");
        /* Trying again settles it. */
        if (known.outcomes[i] == FAILED || known.outcomes[i] == UNKNOWN) {
            int err = put_content(store, i, 0);
            if (err != 0 && err != -EEXIST)
                tap_ok(false, "%s: put again: %s", names[i], vv_err_name(err));
            known.acknowledged[i] = 0;
        }
    }
    vv_store_close(store);
}

static void errors_main(void *arg)
{
    known.disk = vv_sim_disk_new(0);
    reset_known();
    known.errors_per_10000 = 100 + (unsigned)vv_sim_random(2000);
    run_process(failing_main, NULL, 0);
    vv_sim_disk_power_cut(known.disk);
    run_process(check_main, arg, 0);
}

static void full_main(void *arg)
{
    struct vv_store *store;
    int err = 0;
    int count = 0;
    char name[32];
    static char text[3001];
    memset(text, 'x', 3000);
    if (vv_store_dir_open("/store", true, &store) < 0)
        return;
    for (; err == 0 && count < 100; count++) {
        (void)snprintf(name, sizeof(name), "o/%d", count);
        err = put_text(store, name, text);
    }
    tap_is_int(err, -ENOSPC, "a full disk");
    uint64_t size;
    tap_is_int(vv_store_size(store, name, &size), -ENOENT, "nothing of the object is there");
    uint64_t used = vv_sim_disk_used(known.disk);
    tap_is_int(put_text(store, name, text), -ENOSPC, "still full");
    tap_is_int((int64_t)vv_sim_disk_used(known.disk), (int64_t)used, "without waste");
    tap_is_int(vv_store_remove(store, "o/0"), 0, "remove");
    tap_is_int(put_text(store, name, text), 0, "then there is room");
    vv_store_close(store);
}

static void full_world_main(void *arg)
{
    known.disk = vv_sim_disk_new(30000);
    run_process(full_main, NULL, 0);
}

int main(void)
{
    vv_alloc_track(true);
    for (uint64_t seed = 0; seed < 1000; seed++) {
        run_sim(seed, power_main, &seed);
        if (seed % 4 == 0)
            run_sim(seed, successor_main, &seed);
    }
    tap_ok(known.cuts_between > 0, "survived unacknowledged: %d", known.cuts_between);
    tap_ok(known.lost > 0, "lost, or not yet there: %d", known.lost);
    for (uint64_t seed = 0; seed < 200; seed++) {
        run_sim(seed, shared_main, &seed);
        run_sim(seed, errors_main, &seed);
    }
    run_sim(1, full_world_main, NULL);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
