/* The same random file operations in both runtimes: every result must be the same, so that what is
 * tested in the simulation is what happens outside. Then, in the simulation, the same under power
 * cuts: whatever survives, nothing breaks. */
#include "both.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/hash.h"

#define OPERATIONS 500
#define SAME_SEEDS 3
#define CUT_SEEDS 40
#define TRACE_MAX (OPERATIONS * 2)
#define NAMES 5
#define OPEN_MAX_HERE 3

struct sequence {
    uint64_t random;
    const char *dir;
    int64_t results[TRACE_MAX];
    int result_count;
    struct vv_file *files[OPEN_MAX_HERE];
    char paths[2][256];
};

static struct sequence traces[2]; /* simulated, real */
static uint64_t seed_now;

static uint64_t below(struct sequence *sequence, uint64_t bound)
{
    sequence->random = vv_mix64(sequence->random + 0x9e3779b97f4a7c15ull);
    return sequence->random % bound;
}

static void result(struct sequence *sequence, int64_t value)
{
    if (sequence->result_count < TRACE_MAX)
        sequence->results[sequence->result_count++] = value;
}

/* One to three components from a few names, so that they often meet. */
static const char *any_path(struct sequence *sequence, int which)
{
    char *path = sequence->paths[which];
    int at = snprintf(path, sizeof(sequence->paths[0]), "%s", sequence->dir);
    for (uint64_t depth = 1 + below(sequence, 3); depth > 0; depth--)
        at += snprintf(path + at, sizeof(sequence->paths[0]) - (size_t)at, "/%c",
                       (int)('a' + below(sequence, NAMES)));
    return path;
}

static int add_name(void *arg, const char *name, bool is_dir)
{
    *(int64_t *)arg += (int64_t)(vv_xxh3(name, strlen(name), is_dir) >> 8);
    return 0;
}

static void on_path(struct sequence *sequence)
{
    const char *path = any_path(sequence, 0);
    const char *other = any_path(sequence, 1);
    struct vv_path_stat stat = {0};
    int64_t names = 0;
    int err;
    switch (below(sequence, 9)) {
    case 0:
    case 1:
        result(sequence, vv_path_mkdir(path));
        break;
    case 2:
        result(sequence, vv_path_unlink(path));
        break;
    case 3:
        result(sequence, vv_path_rmdir(path));
        break;
    case 4:
    case 5:
        err = vv_path_stat(other, &stat);
        if (err != 0 || !stat.is_dir)
            result(sequence, vv_path_rename(path, other));
        break;
    case 6:
        result(sequence, vv_path_link(path, other));
        break;
    case 7:
        err = vv_path_list(path, add_name, &names);
        result(sequence, err ? err : names);
        break;
    default:
        result(sequence, vv_path_sync_dir(path));
        err = vv_path_stat(path, &stat);
        result(sequence, err ? err : stat.is_dir ? -1 : (int64_t)stat.size);
    }
}

static void open_one(struct sequence *sequence, struct vv_file **file)
{
    unsigned flags = VV_FILE_READ | VV_FILE_WRITE;
    flags |= below(sequence, 4) ? VV_FILE_CREATE : 0;
    flags |= below(sequence, 8) ? 0 : VV_FILE_TRUNCATE;
    flags |= below(sequence, 8) ? 0 : VV_FILE_EXCLUSIVE;
    vv_file_close(*file);
    *file = NULL;
    result(sequence, vv_file_open(any_path(sequence, 0), flags, file));
}

#define BUF_BYTES 20000
static uint8_t buf[BUF_BYTES];

static void on_file(struct sequence *sequence)
{
    struct vv_file **file = &sequence->files[below(sequence, OPEN_MAX_HERE)];
    uint64_t offset = below(sequence, 40000);
    size_t len = 1 + below(sequence, BUF_BYTES - 1);
    struct iovec iov[2] = {{buf, len / 3}, {buf + len / 3, len - len / 3}};
    uint64_t size = 0;
    ssize_t got;
    uint64_t choice = below(sequence, 9);
    if (!*file || choice == 0) {
        open_one(sequence, file);
        return;
    }
    memset(buf, (int)below(sequence, 256), sizeof(buf));
    switch (choice) {
    case 1:
    case 2:
        result(sequence, vv_file_pwritev(*file, iov, 2, offset));
        break;
    case 3:
        result(sequence, vv_file_pwritev_sync(*file, iov, 2, offset));
        break;
    case 4:
        result(sequence, vv_file_truncate(*file, offset));
        break;
    case 5:
        result(sequence, vv_file_allocate(*file, offset, len));
        break;
    case 6:
        result(sequence, vv_file_datasync(*file));
        result(sequence, vv_file_size(*file, &size) ? -1 : (int64_t)size);
        break;
    default:
        got = vv_file_pread(*file, buf, len, offset);
        result(sequence, got < 0 ? got : (int64_t)(vv_xxh3(buf, (size_t)got, 0) >> 8));
    }
}

static void run_sequence(struct sequence *sequence, int operations)
{
    for (int i = 0; i < operations; i++) {
        if (below(sequence, 2))
            on_path(sequence);
        else
            on_file(sequence);
    }
    for (int i = 0; i < OPEN_MAX_HERE; i++) {
        vv_file_close(sequence->files[i]);
        sequence->files[i] = NULL;
    }
}

static void body(struct both *both)
{
    struct sequence *sequence = &traces[both->is_real];
    *sequence = (struct sequence){.random = seed_now, .dir = both->dir};
    run_sequence(sequence, OPERATIONS);
}

static void test_same(void)
{
    for (seed_now = 1; seed_now <= SAME_SEEDS; seed_now++) {
        run_real(body);
        run_sim(body, seed_now);
        int count = traces[0].result_count;
        tap_is_int(traces[1].result_count, count, "seed %d: as many results", (int)seed_now);
        int i = 0;
        int succeeded = 0;
        for (; i < count && traces[0].results[i] == traces[1].results[i]; i++)
            succeeded += traces[0].results[i] >= 0;
        tap_ok(i == count, "seed %d: %d results are the same, %d of them no errors", (int)seed_now,
               i, succeeded);
        if (i < count)
            tap_note("result %d: sim %d, real %d", i, (int)traces[0].results[i],
                     (int)traces[1].results[i]);
    }
}

/* ---- power cuts ---- */

static void cut_body(void *arg)
{
    struct sequence *sequence = arg;
    run_sequence(sequence, 100 + (int)below(sequence, 300));
    if (below(sequence, 2))
        vv_sim_process_kill(vv_sim_process_self());
}

/* Everything that can be reached can be read, moved and removed. */
static int count_entry(void *arg, const char *name, bool is_dir)
{
    char *path = arg;
    snprintf(path, 256, "%s%s", is_dir ? "/" : "", name);
    return -ECANCELED;
}

static void remove_all(void *arg)
{
    char path[1024] = "";
    char name[256];
    int removed = 0;
    (void)arg;
    for (int i = 0; i < 100000; i++) {
        size_t len = strlen(path);
        int err = vv_path_list(len ? path : "/", count_entry, name);
        if (err == -ECANCELED && name[0] == '/') {
            snprintf(path + len, sizeof(path) - len, "%s", name);
        } else if (err == -ECANCELED) {
            snprintf(path + len, sizeof(path) - len, "/%s", name);
            removed += vv_path_unlink(path) == 0;
            path[len] = '\0';
        } else if (len == 0) {
            return;
        } else {
            if (vv_path_rmdir(path) != 0)
                break;
            *strrchr(path, '/') = '\0';
        }
    }
    tap_ok(false, "everything can be removed (%d were)", removed);
}

static void cut_main(void *arg)
{
    static struct sequence sequence;
    struct vv_sim_disk *disk = vv_sim_disk_new(0);
    for (int round = 0; round < 8; round++) {
        sequence = (struct sequence){.random = vv_rt_random_u64(), .dir = ""};
        vv_sim_disk_set_errors(disk, round % 2 ? 300 : 0);
        vv_sim_process_wait(vv_sim_process_start(disk, cut_body, &sequence));
        vv_sim_disk_set_errors(disk, 0);
        if (round % 4 != 3)
            vv_sim_disk_power_cut(disk);
        vv_sim_disk_rot(disk, "/a");
    }
    vv_sim_process_wait(vv_sim_process_start(disk, remove_all, NULL));
    ++*(int *)arg;
    if (vv_sim_disk_used(disk) != 0)
        tap_is_int((int64_t)vv_sim_disk_used(disk), 0, "nothing is left on the disk");
}

static void test_cuts(void)
{
    int done = 0;
    int err = 0;
    for (uint64_t seed = 1; seed <= CUT_SEEDS && err == 0; seed++) {
        struct vv_sim_options options = {
            .seed = seed, .latency_max_ns = 100000, .is_reordering_dirs = seed % 2 == 0};
        err = vv_sim_run(&options, cut_main, &done);
    }
    tap_is_int(err, 0, "the worlds end");
    tap_is_int(done, CUT_SEEDS, "all of them");
}

int main(void)
{
    vv_alloc_track(true);
    test_same();
    test_cuts();
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing is left allocated");
    return tap_done();
}
