/* Random histories of a volume through fs, with little memory, that end in good order or with a
 * kill: fsck finds nothing, neither then nor after the next writer has opened and tidied it. An
 * argument is the seed of one history, a second one how many to run from there. */
#include "cmd/fsck.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/text.h"
#include "fs/fs.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"
#include "unit/cmd/fsck_volume.h"

#define NAMES 12
#define DIRS 6
#define STEPS 250
#define HANDLES 4

struct test {
    struct vv_store_backend *backend;
    struct vv_store *store;
    struct vv_keyring *ring;
    struct vv_volume *volume;
    struct vv_fs *fs;
    struct vv_fs_call call;
    uint64_t dirs[DIRS];
    unsigned dir_count;
    struct vv_handle *handles[HANDLES];
    uint64_t random;
    bool is_orderly, is_journaling, is_done, is_bad;
    bool is_created;
    unsigned lives;
    char what[64];
};

static uint64_t draw(struct test *test, uint64_t bound)
{
    uint64_t value = test->random += 0x9e3779b97f4a7c15ull;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return (value ^ value >> 31) % bound;
}

/* Results that only a broken volume gives. */
static void expect(struct test *test, int64_t result, const char *what)
{
    int err = result < 0 ? vv_err_errno((int)result) : 0;
    if (err == EIO || err == EUCLEAN || err == EOVERFLOW) {
        tap_note("%s: %s: %s", test->what, what, vv_err_text((int)result));
        test->is_bad = true;
    }
}

static uint64_t a_dir(struct test *test)
{
    return test->dirs[draw(test, test->dir_count)];
}

static char *a_name(struct test *test, char *out)
{
    vv_format(out, 16, "n%u", (unsigned)draw(test, NAMES));
    return out;
}

static void make_something(struct test *test)
{
    char name[16], target[16];
    struct vv_attr attr;
    struct vv_create create = {.mode = 0644};
    uint64_t dir = a_dir(test);
    a_name(test, name);
    switch (draw(test, 4)) {
    case 0:
        expect(test,
               vv_fs_symlink(test->fs, &test->call, dir, name, strlen(name), a_name(test, target),
                             2, &attr),
               "symlink");
        break;
    case 1:
        create.mode = S_IFIFO | 0644;
        expect(test, vv_fs_mknod(test->fs, &test->call, dir, name, strlen(name), &create, &attr),
               "mknod");
        break;
    default: {
        create.mode = 0755;
        int err = vv_fs_mkdir(test->fs, &test->call, dir, name, strlen(name), &create, &attr);
        expect(test, err, "mkdir");
        if (err == 0)
            test->dirs[test->dir_count < DIRS ? test->dir_count++ : 1 + draw(test, DIRS - 1)] =
                attr.inode;
    }
    }
}

static void change_names(struct test *test)
{
    static const unsigned flags[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
    char from[16], to[16];
    uint64_t from_dir = a_dir(test), to_dir = a_dir(test);
    struct vv_attr attr;
    a_name(test, from);
    a_name(test, to);
    switch (draw(test, 6)) {
    case 0:
    case 1:
        expect(test, vv_fs_unlink(test->fs, &test->call, from_dir, from, strlen(from)), "unlink");
        break;
    case 2:
        expect(test, vv_fs_rmdir(test->fs, &test->call, from_dir, from, strlen(from)), "rmdir");
        break;
    case 3:
        if (vv_fs_lookup(test->fs, &test->call, from_dir, from, strlen(from), &attr) == 0)
            expect(test,
                   vv_fs_link(test->fs, &test->call, attr.inode, to_dir, to, strlen(to), &attr),
                   "link");
        break;
    default:
        expect(test,
               vv_fs_rename(test->fs, &test->call, from_dir, from, strlen(from), to_dir, to,
                            strlen(to), flags[draw(test, 4)]),
               "rename");
    }
}

static void change_data(struct test *test, uint64_t inode, struct vv_handle *handle)
{
    static uint8_t bytes[300 << 10];
    static const int modes[] = {0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE};
    uint64_t len = draw(test, 4) == 0 ? draw(test, sizeof bytes) + 1 : draw(test, 9000) + 1;
    uint64_t offset = draw(test, draw(test, 3) == 0 ? 2 << 20 : 300 << 10);
    struct vv_attr set = {0}, attr;
    unsigned kind = (unsigned)draw(test, 12);
    if (kind < 7) {
        uint64_t fill = draw(test, UINT64_MAX);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)((fill >> i % 57) + i * (fill & 3));
        expect(test, vv_fs_write(test->fs, &test->call, inode, handle, bytes, len, offset, 0),
               "write");
    } else if (kind < 9) {
        set.size = draw(test, 3) == 0 ? 0 : offset;
        expect(test, vv_fs_setattr(test->fs, &test->call, inode, handle, &set, VV_SET_SIZE, &attr),
               "truncate");
    } else if (kind < 11) {
        int mode = modes[draw(test, 5)];
        if (mode == FALLOC_FL_COLLAPSE_RANGE || mode == FALLOC_FL_INSERT_RANGE) {
            offset = offset / 4096 * 4096;
            len = (len / 4096 + 1) * 4096;
        }
        expect(test, vv_fs_fallocate(test->fs, &test->call, inode, handle, mode, offset, len),
               "fallocate");
    } else {
        expect(test, vv_fs_read(test->fs, &test->call, inode, handle, bytes, len, offset), "read");
    }
}

static void change_file(struct test *test)
{
    char name[16];
    struct vv_attr attr;
    struct vv_create create = {.mode = 0644};
    struct vv_handle *handle = NULL;
    uint64_t dir = a_dir(test);
    int err;
    a_name(test, name);
    if (draw(test, 12) == 0)
        err = vv_fs_tmpfile(test->fs, &test->call, dir, &create, O_RDWR, &attr, &handle);
    else
        err = vv_fs_create(test->fs, &test->call, dir, name, strlen(name), &create,
                           O_RDWR | (draw(test, 8) == 0 ? O_TRUNC : 0), &attr, &handle);
    expect(test, err, "open");
    if (err < 0)
        return;
    for (uint64_t i = draw(test, 4); i-- > 0;)
        change_data(test, attr.inode, handle);
    /* Some stay open over what comes. */
    struct vv_handle **slot = &test->handles[draw(test, HANDLES)];
    if (draw(test, 3) == 0) {
        struct vv_handle *old = *slot;
        *slot = handle;
        handle = old;
    }
    if (handle != NULL)
        vv_fs_release(handle);
}

static void change_xattrs(struct test *test)
{
    char name[16], file[16];
    struct vv_attr attr;
    a_name(test, file);
    vv_format(name, sizeof name, "user.%u", (unsigned)draw(test, 5));
    if (vv_fs_lookup(test->fs, &test->call, a_dir(test), file, strlen(file), &attr) < 0)
        return;
    if (draw(test, 3) == 0)
        expect(test, vv_fs_removexattr(test->fs, &test->call, attr.inode, name), "removexattr");
    else
        expect(test, vv_fs_setxattr(test->fs, &test->call, attr.inode, name, name, strlen(name), 0),
               "setxattr");
}

static void step(struct test *test)
{
    unsigned kind = (unsigned)draw(test, 100);
    if (kind < 50)
        change_file(test);
    else if (kind < 75)
        change_names(test);
    else if (kind < 83)
        make_something(test);
    else if (kind < 90)
        change_xattrs(test);
    else if (kind < 97)
        expect(test, vv_fs_sync(test->fs, 0), "sync");
    else if (kind < 98)
        expect(test, vv_volume_settle(test->volume), "settle");
    else
        vv_rt_sleep_ns(draw(test, 2 * VV_NS_PER_S));
}

static int open_store(struct test *test)
{
    uint8_t *keys = NULL;
    size_t len = 0;
    uint64_t number;
    TRY(vv_store_mem_open(test->backend, &test->store));
    if (!test->is_created) {
        TRY(fsck_volume_make(test->store, &test->ring));
        test->is_created = true;
        return 0;
    }
    TRY(vv_volume_keys(test->store, &keys, &len, &number, NULL));
    int err = vv_slots_open(keys, len, &fsck_secret, &test->ring);
    vv_free(keys);
    return err;
}

static int open_volume(struct test *test, bool is_read_only)
{
    bool is_journaling = test->is_journaling && !is_read_only;
    struct vv_volume_options options = {.store = test->store,
                                        .ring = test->ring,
                                        .is_read_only = is_read_only,
                                        .journal_path = is_journaling ? "/journal" : NULL,
                                        .durability = is_journaling ? VV_DURABILITY_JOURNAL
                                                                    : VV_DURABILITY_BUCKET,
                                        .journal_file_bytes = 4 << 20,
                                        .memory_bytes = 16 << 20,
                                        .segment_bytes = 128 << 10};
    return vv_volume_open(&options, &test->volume);
}

/* A life of the server. */
static void live(void *arg)
{
    struct test *test = arg;
    memset(test->handles, 0, sizeof test->handles);
    int err = open_store(test);
    if (err == 0)
        err = open_volume(test, false);
    if (err == 0)
        err = vv_fs_open(test->volume, &test->fs);
    if (err < 0) {
        tap_note("%s: opening: %s", test->what, vv_err_text(err));
        test->is_bad = true;
        test->is_done = true;
        return;
    }
    test->dirs[0] = VV_ROOT_INODE;
    test->dir_count = 1;
    for (unsigned i = 0; i < STEPS && !test->is_bad; i++)
        step(test);
    if (test->is_orderly) {
        for (unsigned i = 0; i < HANDLES; i++) {
            if (test->handles[i] != NULL)
                vv_fs_release(test->handles[i]);
        }
        vv_fs_close(test->fs);
        expect(test, vv_volume_close(test->volume), "close");
        vv_keyring_free(test->ring);
        vv_store_close(test->store);
    }
    test->is_done = true;
}

static void look(void *arg)
{
    struct test *test = arg;
    struct vv_fsck_report report = {0};
    int err = open_store(test);
    if (err == 0)
        err = open_volume(test, true);
    if (err == 0) {
        struct vv_fsck_options options = {.store = test->store,
                                          .ring = test->ring,
                                          .journal_path = test->is_journaling ? "/journal" : NULL,
                                          .memory_bytes = test->lives % 2 ? 1 << 20 : 4096,
                                          .is_checking_data = true};
        err = vv_fsck_volume(test->volume, &options, &report);
    }
    if (err < 0 || report.problem_count > 0 || report.is_incomplete) {
        test->is_bad = true;
        tap_note("%s, life %u, %s: %s", test->what, test->lives,
                 test->is_orderly ? "closed" : "killed", vv_err_text(err));
    }
    for (size_t i = 0; i < report.kept && i < 20; i++)
        tap_note("%s: %s", vv_fsck_kind_name(report.problems[i].kind), report.problems[i].text);
    vv_fsck_report_done(&report);
    if (err == 0 && vv_volume_close(test->volume) < 0)
        test->is_bad = true;
    vv_keyring_free(test->ring);
    vv_store_close(test->store);
}

static void world_main(void *arg)
{
    struct test *test = arg;
    struct vv_sim_disk *disk = vv_sim_disk_new(0);
    for (test->lives = 1; test->lives <= 3 && !test->is_bad; test->lives++) {
        test->is_done = false;
        test->is_orderly = draw(test, 2) == 0;
        int process = vv_sim_process_start(disk, live, arg);
        uint64_t end = test->is_orderly ? UINT64_MAX : 2000 + draw(test, 200000);
        if (!test->is_orderly)
            vv_sim_process_kill_after(process, end);
        while (!test->is_done && vv_sim_process_is_alive(process))
            vv_rt_sleep_ns(5 * VV_NS_PER_MS);
        if (!test->is_orderly)
            vv_sim_process_kill(process);
        vv_sim_process_wait(process);
        if (!test->is_created)
            break;
        process = vv_sim_process_start(disk, look, arg);
        vv_sim_process_wait(process);
    }
}

static void run(uint64_t seed)
{
    struct test test = {.random = seed, .is_journaling = seed % 3 == 0};
    test.call.cred.is_checked = true;
    vv_format(test.what, sizeof test.what, "history %llu", (unsigned long long)seed);
    if (vv_store_backend_new(&test.backend) < 0)
        abort();
    struct vv_sim_options options = {.seed = seed,
                                     .latency_min_ns = 1000,
                                     .latency_max_ns = seed % 2 ? 100000 : 20000000,
                                     .reorder_permille = 100};
    int err = vv_sim_run(&options, world_main, &test);
    tap_ok(err == 0 && !test.is_bad, "%s", test.what);
    vv_store_backend_free(test.backend);
}

int main(int argc, char **argv)
{
    uint64_t first = 1, count = 4;
    vv_log_set_level(VV_LOG_ERROR);
    vv_alloc_track(true);
    if (argc > 1 && vv_parse_u64(argv[1], &first) == 0)
        count = 1;
    if (argc > 2 && vv_parse_u64(argv[2], &count) < 0)
        return 2;
    for (uint64_t i = 0; i < count; i++)
        run(first + i);
    return tap_done();
}
