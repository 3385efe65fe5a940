/* Memory that runs out: each operation of fs over a real volume with its n-th allocation failing,
 * n = 0, 1, 2, ... until none fails. It either gives an error and has changed nothing, or succeeds
 * and has done all; what is there then also survives an orderly end and is found at the next
 * opening. Everything warm, and after opening again with nothing in memory; without a journal and with one. Also opening itself.
 * Prints TAP. sim_failing [part of an operation's name] */
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
#include "engine.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"
#include "volume/volume_impl.h" /* its cache */

#define N_MAX 4000
#define HOUR_NS (3600 * VV_NS_PER_S)
#define BIG_BYTES 150000u

struct world {
    struct vv_store_backend *backend;
    struct vv_keyring *ring;
    struct vv_store *store;
    struct vv_volume *volume;
    struct vv_fs *fs;
    bool is_journaling;
    uint64_t dir, other, small, big, extra; /* inodes */
    struct engine_part part;
};

static uint8_t bytes[BIG_BYTES];

/* What is asked by name carries a reply: it is there if and only if the operation was done. */
static const struct vv_fs_reply reply = {.id = {1}, .door = VV_REPLY_NFS3};
static const struct vv_fs_call asking = {.cred = {.uid = 0, .gid = 0}, .door = 1, .reply = &reply};

/* ---- the volume ---- */

static int open_volume(struct world *world)
{
    struct vv_volume_options options = {.store = world->store,
                                        .ring = world->ring,
                                        .memory_bytes = 16 << 20,
                                        .commit_delay_ns = HOUR_NS};
    if (world->is_journaling) {
        options.durability = VV_DURABILITY_JOURNAL;
        options.journal_path = "/journal";
        options.journal_file_bytes = 1 << 20;
    }
    TRY(vv_volume_open(&options, &world->volume));
    TRY(vv_fs_open(world->volume, &world->fs));
    int err = vv_fs_replies_open(world->fs);
    if (err < 0) {
        vv_fs_close(world->fs);
        world->fs = NULL;
    }
    return err;
}

static int close_volume(struct world *world)
{
    if (world->fs)
        vv_fs_close(world->fs);
    int err = world->volume ? vv_volume_close(world->volume) : 0;
    world->fs = NULL;
    world->volume = NULL;
    return err;
}

static int create_volume(struct world *world)
{
    static const struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0};
    uint8_t id[16];
    uint8_t key[VV_KEY_FILE_LEN] = {1};
    struct vv_secret secret = {VV_SECRET_KEY_FILE, key, sizeof(key)};
    struct vv_counters counters = {VV_ROOT_INODE + 1, VV_ORIGIN_FIRST_DATA};
    uint8_t *keys = NULL;
    size_t len = 0;
    vv_rt_random(id, sizeof(id));
    TRY(vv_store_backend_new(&world->backend));
    TRY(vv_keyring_new(id, &world->ring));
    TRY(vv_slots_create(world->ring, &secret, &vv_slot_cost_test, &keys, &len));
    TRY(vv_store_mem_open(world->backend, &world->store));
    int err = vv_volume_create(world->store, world->ring, keys, len, &settings, &counters);
    vv_free(keys);
    return err;
}

static int make_file(struct world *world, uint64_t dir, const char *name, size_t len,
                     uint64_t *out_inode)
{
    struct vv_create create = {.mode = S_IFREG | 0644};
    struct vv_attr attr;
    TRY(vv_fs_mknod(world->fs, &asking, dir, name, strlen(name), &create, &attr));
    *out_inode = attr.inode;
    ssize_t done = 0;
    if (len > 0)
        done = vv_fs_write(world->fs, &engine_call, attr.inode, NULL, bytes, len, 0, 0);
    return done < 0 ? (int)done : 0;
}

static int make_dir(struct world *world, uint64_t parent, const char *name, uint64_t *out_inode)
{
    struct vv_create create = {.mode = S_IFDIR | 0755};
    struct vv_attr attr;
    TRY(vv_fs_mkdir(world->fs, &asking, parent, name, strlen(name), &create, &attr));
    *out_inode = attr.inode;
    return 0;
}

static int populate(struct world *world)
{
    uint64_t unused;
    struct vv_attr attr;
    TRY(make_dir(world, VV_ROOT_INODE, &SHARED_DIR[1], &unused));
    TRY(make_file(world, unused, "file", 100, &unused));
    TRY(make_dir(world, VV_ROOT_INODE, "w", &world->dir));
    TRY(make_dir(world, world->dir, "other", &world->other));
    TRY(make_dir(world, world->dir, "empty", &unused));
    TRY(make_file(world, world->dir, "small", 100, &world->small));
    TRY(make_file(world, world->dir, "big", BIG_BYTES, &world->big));
    TRY(make_file(world, world->other, "extra", 40000, &world->extra));
    TRY(vv_fs_link(world->fs, &asking, world->big, world->dir, "second", 6, &attr));
    TRY(vv_fs_symlink(world->fs, &asking, world->dir, "symlink", 7, "target", 6, &attr));
    TRY(vv_fs_setxattr(world->fs, &engine_call, world->small, "user.a", "value", 5, 0));
    return vv_volume_settle(world->volume);
}

/* ---- operations ---- */

typedef int op_fn(struct world *world);

static int op_mknod(struct world *world)
{
    uint64_t unused;
    return make_file(world, world->dir, "new", 0, &unused);
}

static int op_create(struct world *world)
{
    struct vv_create create = {.mode = S_IFREG | 0600};
    struct vv_attr attr;
    struct vv_handle *handle = NULL;
    TRY(vv_fs_create(world->fs, &engine_call, world->other, "made", 4, &create, O_RDWR, &attr,
                     &handle));
    vv_fs_release(handle);
    return 0;
}

static int op_tmpfile(struct world *world)
{
    struct vv_create create = {.mode = S_IFREG | 0600};
    struct vv_attr attr;
    struct vv_handle *handle = NULL;
    TRY(vv_fs_tmpfile(world->fs, &engine_call, world->other, &create, O_RDWR, &attr, &handle));
    vv_fs_release(handle);
    return 0;
}

static int op_mkdir(struct world *world)
{
    uint64_t unused;
    return make_dir(world, world->dir, "newdir", &unused);
}

static int op_symlink(struct world *world)
{
    struct vv_attr attr;
    return vv_fs_symlink(world->fs, &asking, world->dir, "sym", 3, "to/there", 8, &attr);
}

static int op_link(struct world *world)
{
    struct vv_attr attr;
    return vv_fs_link(world->fs, &asking, world->small, world->other, "linked", 6, &attr);
}

static int op_unlink_one(struct world *world)
{
    return vv_fs_unlink(world->fs, &asking, world->dir, "second", 6);
}

static int op_unlink_last(struct world *world)
{
    return vv_fs_unlink(world->fs, &asking, world->other, "extra", 5);
}

static int op_unlink_xattr(struct world *world)
{
    return vv_fs_unlink(world->fs, &asking, world->dir, "small", 5);
}

static int op_rmdir(struct world *world)
{
    return vv_fs_rmdir(world->fs, &asking, world->dir, "empty", 5);
}

static int op_rename(struct world *world)
{
    return vv_fs_rename(world->fs, &asking, world->dir, "big", 3, world->other, "moved", 5, 0);
}

static int op_rename_over(struct world *world)
{
    return vv_fs_rename(world->fs, &asking, world->dir, "small", 5, world->other, "extra", 5,
                        0);
}

static int op_rename_whiteout(struct world *world)
{
    return vv_fs_rename(world->fs, &engine_call, world->dir, "small", 5, world->other, "extra", 5,
                        RENAME_WHITEOUT);
}

static int op_rename_dir(struct world *world)
{
    return vv_fs_rename(world->fs, &asking, world->dir, "empty", 5, world->other, "in", 2, 0);
}

static int op_exchange(struct world *world)
{
    return vv_fs_rename(world->fs, &asking, world->dir, "small", 5, world->other, "extra", 5,
                        RENAME_EXCHANGE);
}

static int written(ssize_t done)
{
    return done < 0 ? (int)done : 0;
}

static int op_write_inline(struct world *world)
{
    return written(
        vv_fs_write(world->fs, &engine_call, world->small, NULL, "changed", 7, 50, 0));
}

static int op_write_grow(struct world *world)
{
    return written(
        vv_fs_write(world->fs, &engine_call, world->small, NULL, bytes + 7, 70000, 20, 0));
}

static int op_write_over(struct world *world)
{
    return written(
        vv_fs_write(world->fs, &engine_call, world->big, NULL, bytes + 11, 50000, 30000, 0));
}

static int op_append(struct world *world)
{
    return written(vv_fs_write(world->fs, &engine_call, world->extra, NULL, bytes + 3, 9000, 0,
                               VV_WRITE_APPEND));
}

static int op_truncate(struct world *world)
{
    struct vv_attr set = {.size = 45000};
    struct vv_attr attr;
    return vv_fs_setattr(world->fs, &engine_call, world->big, NULL, &set, VV_SET_SIZE, &attr);
}

static int op_chmod(struct world *world)
{
    struct vv_attr set = {.mode = 0600, .uid = 7, .gid = 8};
    struct vv_attr attr;
    return vv_fs_setattr(world->fs, &engine_call, world->big, NULL, &set,
                         VV_SET_MODE | VV_SET_UID | VV_SET_GID, &attr);
}

static int op_punch(struct world *world)
{
    return vv_fs_fallocate(world->fs, &engine_call, world->big, NULL,
                           FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10000, 90000);
}

/* Over data and holes, which it looks for first. */
static int op_set_aside(struct world *world)
{
    return vv_fs_fallocate(world->fs, &engine_call, world->big, NULL, 0, 5000, 1000000);
}

static int op_zero(struct world *world)
{
    return vv_fs_fallocate(world->fs, &engine_call, world->big, NULL,
                           FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 10000, 90000);
}

static int op_collapse(struct world *world)
{
    return vv_fs_fallocate(world->fs, &engine_call, world->big, NULL, FALLOC_FL_COLLAPSE_RANGE,
                           4096, 40960);
}

static int op_insert(struct world *world)
{
    return vv_fs_fallocate(world->fs, &engine_call, world->big, NULL, FALLOC_FL_INSERT_RANGE, 8192,
                           40960);
}

static int op_copy(struct world *world)
{
    return written(vv_fs_copy_range(world->fs, &engine_call, world->big, 5000, world->extra, 1000,
                                    60000));
}

static int op_setxattr(struct world *world)
{
    return vv_fs_setxattr(world->fs, &engine_call, world->small, "user.b", bytes, 3000, 0);
}

static int op_removexattr(struct world *world)
{
    return vv_fs_removexattr(world->fs, &engine_call, world->small, "user.a");
}

static int op_read(struct world *world)
{
    uint8_t *is = malloc(BIG_BYTES);
    ssize_t got =
        vv_fs_read(world->fs, &engine_call, world->big, NULL, is, BIG_BYTES, 0);
    int err = got < 0 ? (int)got : (size_t)got == BIG_BYTES && !memcmp(is, bytes, BIG_BYTES) ? 0 : -EILSEQ;
    free(is);
    return err;
}

static int visit_entry(void *arg, const struct vv_dirent *entry)
{
    ++*(unsigned *)arg;
    return 1;
}

static int op_readdir(struct world *world)
{
    unsigned count = 0;
    TRY(vv_fs_readdir(world->fs, world->dir, 0, visit_entry, &count));
    return count == 8 ? 0 : -EILSEQ;
}

static int op_listxattr(struct world *world)
{
    char names[100];
    ssize_t len = vv_fs_listxattr(world->fs, &engine_call, world->small, names, sizeof(names));
    return len < 0 ? (int)len : len == 7 ? 0 : -EILSEQ;
}

static int op_open(struct world *world)
{
    struct vv_handle *handle = NULL;
    TRY(vv_fs_open_file(world->fs, &engine_call, world->extra, O_RDWR | O_TRUNC, &handle));
    vv_fs_release(handle);
    return 0;
}

/* Waits for memory and repeats: it cannot fail for lack of it. */
static int op_sync(struct world *world)
{
    TRY(op_write_over(world));
    return vv_fs_sync(world->fs, 0);
}

static int op_settle(struct world *world)
{
    TRY(op_write_over(world));
    return vv_volume_settle(world->volume);
}

static const struct {
    const char *name;
    op_fn *fn;
    bool is_reading;
    bool is_two; /* a change, and then making it durable: a failure may come between */
} ops[] = {
    {"mknod", op_mknod, false, false},
    {"create", op_create, false, false},
    {"tmpfile", op_tmpfile, true, false},
    {"mkdir", op_mkdir, false, false},
    {"symlink", op_symlink, false, false},
    {"link", op_link, false, false},
    {"unlink of one name", op_unlink_one, false, false},
    {"unlink of the last name", op_unlink_last, false, false},
    {"unlink with attributes", op_unlink_xattr, false, false},
    {"rmdir", op_rmdir, false, false},
    {"rename", op_rename, false, false},
    {"rename over another", op_rename_over, false, false},
    {"rename leaving a whiteout", op_rename_whiteout, false, false},
    {"rename of a directory", op_rename_dir, false, false},
    {"exchange", op_exchange, false, false},
    {"write of inline bytes", op_write_inline, false, false},
    {"write that grows", op_write_grow, false, false},
    {"write over bytes", op_write_over, false, false},
    {"append", op_append, false, false},
    {"truncate", op_truncate, false, false},
    {"chmod and chown", op_chmod, false, false},
    {"punch", op_punch, false, false},
    {"fallocate", op_set_aside, false, false},
    {"fallocate with zeros", op_zero, false, false},
    {"collapse", op_collapse, false, false},
    {"insert", op_insert, false, false},
    {"copy", op_copy, false, false},
    {"setxattr", op_setxattr, false, false},
    {"removexattr", op_removexattr, false, false},
    {"open with truncation", op_open, false, false},
    {"read", op_read, true, false},
    {"readdir", op_readdir, true, false},
    {"listxattr", op_listxattr, true, false},
    {"write and sync", op_sync, false, true},
    {"write and settle", op_settle, false, true},
    {"opening", open_volume, true, false},
};
#define OPS (sizeof(ops) / sizeof(ops[0]))

/* ---- one try ---- */

struct attempt {
    unsigned op;
    bool is_cold, is_journaling;
    int64_t n; /* -1: nothing fails */
    /* out */
    int err; /* of the operation; or of what must not fail, then `what` says which */
    const char *what;
    bool has_failed; /* an allocation did */
    struct hash before, after;
};

static bool is_good(struct attempt *attempt, const char *what, int err)
{
    if (err == 0 || attempt->what)
        return err == 0;
    attempt->what = what;
    attempt->err = err;
    return false;
}

/* The tree, and how many replies there are. */
static int hash_state(struct world *world, struct hash *out_hash)
{
    static const uint8_t lower[] = {VV_TABLE_REPLY};
    static const uint8_t upper[] = {VV_TABLE_REPLY + 1};
    char text[200] = "";
    struct vv_lsm_iter *iter = NULL;
    struct vv_bytes key;
    struct vv_bytes value;
    uint64_t replies = 0;
    int more;
    TRY(engine_walk(world->fs, &world->part, 1, 1, text, sizeof(text)));
    TRY(vv_volume_scan(world->volume, (struct vv_bytes){lower, 1}, (struct vv_bytes){upper, 1},
                       &iter));
    while ((more = vv_lsm_iter_next(iter, &key, &value)) > 0)
        replies++;
    vv_lsm_iter_close(iter);
    *out_hash = hash_mix(model_dump_hash(&world->part.dump), replies);
    return more;
}

static void attempt_main(void *arg)
{
    struct attempt *attempt = arg;
    struct world world = {.part = {.root = "/w", .prefix = "none"},
                          .is_journaling = attempt->is_journaling};
    struct hash later = {0};
    bool go = is_good(attempt, "creating", create_volume(&world)) &&
              is_good(attempt, "opening", open_volume(&world)) &&
              is_good(attempt, "populating", populate(&world)) &&
              is_good(attempt, "walking", hash_state(&world, &attempt->before));
    if (go && attempt->is_cold)
        go = is_good(attempt, "closing", close_volume(&world)) &&
             is_good(attempt, "opening cold", open_volume(&world));
    if (go && attempt->is_cold) {
        /* Opening reads small tables whole; the way back is what is wanted here. */
        uint64_t size = vv_cache_size(world.volume->cache);
        vv_cache_resize(world.volume->cache, 0);
        vv_cache_resize(world.volume->cache, size);
    }
    if (go && ops[attempt->op].fn == open_volume)
        go = is_good(attempt, "closing before", close_volume(&world));
    if (go) {
        vv_alloc_fail_at(attempt->n, false);
        attempt->err = ops[attempt->op].fn(&world);
        attempt->has_failed = attempt->n >= 0 && vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        int err = attempt->err;
        if (!world.fs) {
            int closed = close_volume(&world);
            (void)closed; /* what was opened of it has changed nothing */
            (void)is_good(attempt, "opening after all", open_volume(&world));
        }
        (void)(is_good(attempt, "walking afterwards", hash_state(&world, &attempt->after)) &&
               is_good(attempt, "settling afterwards", vv_volume_settle(world.volume)) &&
               is_good(attempt, "closing afterwards", close_volume(&world)) &&
               is_good(attempt, "opening afterwards", open_volume(&world)) &&
               is_good(attempt, "walking at last", hash_state(&world, &later)));
        if (!attempt->what && !hash_equal(later, attempt->after))
            attempt->what = "another state after opening again";
        if (!attempt->what)
            attempt->err = err;
    }
    int err = close_volume(&world);
    (void)is_good(attempt, "closing at last", err);
    vv_store_close(world.store);
    model_dump_done(&world.part.dump);
    vv_keyring_free(world.ring);
    vv_store_backend_free(world.backend);
}

/* A process, for the journal's disk. */
static void start_attempt(void *arg)
{
    struct attempt *attempt = arg;
    int process = vv_sim_process_start(vv_sim_disk_new(0), attempt_main, attempt);
    if (process > 0)
        vv_sim_process_wait(process);
    else
        (void)is_good(attempt, "starting the process", process);
}

static void run_attempt(struct attempt *attempt)
{
    struct vv_sim_options options = {.seed = 7, .latency_min_ns = 1000, .latency_max_ns = 2000};
    int err = vv_sim_run(&options, start_attempt, attempt);
    if (err < 0 && !attempt->what) {
        attempt->what = "the world";
        attempt->err = err;
    }
}

static unsigned judge(const struct attempt *attempt, const struct attempt *clean)
{
    const char *what = attempt->what;
    bool is_done = hash_equal(attempt->after, clean->after);
    bool is_as_before = hash_equal(attempt->after, clean->before);
    if (!what && attempt->err == 0 && !is_done)
        what = "it succeeds, and has not done it";
    if (!what && attempt->err < 0 && vv_err_errno(attempt->err) != ENOMEM)
        what = "another error than that memory failed";
    if (!what && attempt->err < 0 && !is_as_before && !(ops[attempt->op].is_two && is_done))
        what = "it fails, and has changed something";
    if (!what)
        return 0;
    tap_note("%s%s%s, allocation %lld failing: %s (%s)", ops[attempt->op].name,
             attempt->is_cold ? ", cold" : "", attempt->is_journaling ? ", with a journal" : "",
             (long long)attempt->n, what,
             vv_err_text(attempt->err));
    return 1;
}

static void test_op(unsigned op, bool is_cold, bool is_journaling)
{
    struct attempt clean = {.op = op, .is_cold = is_cold, .is_journaling = is_journaling, .n = -1};
    unsigned bad = 0;
    unsigned failures = 0;
    int64_t n = 0;
    run_attempt(&clean);
    if (clean.what || clean.err < 0) {
        tap_ok(false, "%s: %s: %s", ops[op].name, clean.what ? clean.what : "itself",
               vv_err_text(clean.err));
        return;
    }
    for (; n < N_MAX && bad < 5; n++) {
        struct attempt attempt = {
            .op = op, .is_cold = is_cold, .is_journaling = is_journaling, .n = n};
        run_attempt(&attempt);
        failures += attempt.err < 0;
        bad += judge(&attempt, &clean);
        if (!attempt.has_failed)
            break;
    }
    tap_ok(bad == 0 && n < N_MAX, "%s%s%s: %lld allocations, %u of which fail it", ops[op].name,
           is_cold ? ", cold" : "", is_journaling ? ", with a journal" : "", (long long)n,
           failures);
}

static void discard_line(void *arg, enum vv_log_level level, const char *line)
{
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : "";
    vv_alloc_track(true);
    if (!getenv("SIM_VERBOSE"))
        vv_log_set_sink(discard_line, NULL);
    op_fill(3, bytes, sizeof(bytes));
    for (unsigned i = 0; i < OPS; i++) {
        if (!strstr(ops[i].name, only))
            continue;
        for (unsigned k = 0; k < 4; k++)
            test_op(i, k & 1, k & 2);
    }
    return tap_done();
}
