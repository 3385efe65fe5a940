#include "store/store.h"

#include <dirent.h>
#include <limits.h>
#include <unistd.h>

#include "contract.h"

static char root[4200];
static char work[4096];

/* Open descriptors of this program. */
static int count_fds(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        count++;
    if (dir)
        (void)closedir(dir);
    return count;
}

static void fds_main(void *arg)
{
    enum { OBJECTS = 100 };
    struct vv_store *store;
    char name[16];
    bool is_right = true;
    char buf[16];
    int before = count_fds();
    tap_is_int(vv_store_dir_open(root, true, &store), 0, "open");
    for (int i = 0; i < OBJECTS; i++) {
        (void)snprintf(name, sizeof(name), "o/%03d", i);
        if (put_text(store, name, name) < 0)
            tap_ok(false, "put %s", name);
    }
    vv_store_close(store);
    tap_is_int(count_fds(), before, "puts leave no file open");
    tap_is_int(vv_store_dir_open(root, false, &store), 0, "open again");
    for (int i = 0; i < 5 * OBJECTS; i++) {
        (void)snprintf(name, sizeof(name), "o/%03d", i * 7 % OBJECTS);
        is_right &= vv_store_get(store, name, buf, 16, 0) == 5 && memcmp(buf, name, 5) == 0;
    }
    tap_ok(is_right, "gets of more objects than files are kept open");
    tap_is_int(count_fds() - before, 64, "64 are kept");
    tap_is_int(vv_store_remove(store, name), 0, "remove");
    tap_is_int(count_fds() - before, 63, "closes the file");
    tap_is_int(vv_store_get(store, name, buf, 16, 0), -ENOENT, "and it is not found there");
    tap_is_int(put_text(store, name, "new"), 0, "put again");
    tap_is_int(vv_store_get(store, name, buf, 16, 0), 3, "the new one is read");
    vv_store_close(store);
    tap_is_int(count_fds(), before, "closing the store closes them all");
}

/* Gets and removes of one object at once: after a remove has returned, no get finds it. */

#define GETTERS 4

struct crowd {
    struct vv_store *store;
    uint64_t state; /* odd while it is absent: removed, and not yet being put again */
    bool is_ending;
    int running;
    struct vv_waitq finished;
    int found;
    int stale;
};

static void getter_main(void *arg)
{
    struct crowd *crowd = arg;
    char buf[8];
    while (!crowd->is_ending) {
        uint64_t before = crowd->state;
        ssize_t got = vv_store_get(crowd->store, "c/x", buf, 8, 0);
        crowd->found += got > 0;
        crowd->stale += got > 0 && before % 2 == 1 && before == crowd->state;
        if (got < 0 && got != -ENOENT)
            tap_ok(false, "get: %s", vv_err_name((int)got));
        vv_rt_sleep_ns(vv_sim_random(50000));
    }
    crowd->running--;
    vv_waitq_wake_all(&crowd->finished);
}

static void remover_main(void *arg)
{
    struct crowd *crowd = arg;
    for (int i = 0; i < 30; i++) {
        if (put_text(crowd->store, "c/x", "again") < 0)
            tap_ok(false, "put");
        vv_rt_sleep_ns(vv_sim_random(100000));
        if (vv_store_remove(crowd->store, "c/x") < 0)
            tap_ok(false, "remove");
        crowd->state++;
        vv_rt_sleep_ns(300000);
        crowd->state++;
    }
    crowd->is_ending = true;
    crowd->running--;
    vv_waitq_wake_all(&crowd->finished);
}

static void crowd_main(void *arg)
{
    struct crowd crowd = {.running = GETTERS + 1};
    bool is_started = true;
    vv_waitq_init(&crowd.finished);
    if (vv_store_dir_open("/store", true, &crowd.store) < 0)
        return;
    for (int i = 0; i < GETTERS; i++)
        is_started &= vv_fiber_start(getter_main, &crowd, "getter") == 0;
    is_started &= vv_fiber_start(remover_main, &crowd, "remover") == 0;
    if (!is_started)
        tap_ok(false, "all fibers start");
    while (crowd.running > 0)
        (void)vv_waitq_wait(&crowd.finished, VV_NEVER);
    if (crowd.stale > 0)
        tap_ok(false, "%d gets found an object after its remove had returned", crowd.stale);
    *(int *)arg += crowd.found;
    vv_store_close(crowd.store);
}

int main(void)
{
    vv_alloc_track(true);
    make_tmp_dir(work);
    (void)snprintf(root, sizeof(root), "%s/store", work);
    run_real(fds_main, NULL);
    remove_tree(work);
    int found = 0;
    for (uint64_t seed = 0; seed < 12; seed++)
        run_sim_disk(seed, crowd_main, &found);
    tap_ok(found > 0, "gets among removes found something %d times", found);
    return tap_done();
}
