/* What simulated disks lose and keep: synced data never, unsynced data at random, by sectors;
 * faults, capacity, rot. Many seeds, and a count of how often each outcome was seen: a disk that
 * never tears would test nothing. */
#include "rt/sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "rt/rt.h"
#include "tap.h"

#define SEEDS 200
#define READ_WRITE (VV_FILE_READ | VV_FILE_WRITE)
#define SECTOR 512

/* Each seed: before() as a process, a power cut, after() as another. */
struct story {
    const char *name;
    void (*before)(struct story *story);
    void (*after)(struct story *story);
    bool is_reordering_dirs;
    bool is_without_cut; /* a kill alone */
    uint64_t seed;
    int broken;  /* how often a promise was broken */
    int seen[8]; /* how often which outcome was seen */
    struct vv_sim_disk *disk;
};

static void run_before(void *arg)
{
    struct story *story = arg;
    story->before(story);
    vv_sim_process_kill(vv_sim_process_self());
}

static void run_after(void *arg)
{
    struct story *story = arg;
    story->after(story);
}

static void story_main(void *arg)
{
    struct story *story = arg;
    story->disk = vv_sim_disk_new(0);
    vv_sim_process_wait(vv_sim_process_start(story->disk, run_before, story));
    if (!story->is_without_cut)
        vv_sim_disk_power_cut(story->disk);
    vv_sim_process_wait(vv_sim_process_start(story->disk, run_after, story));
}

static void tell(struct story *story)
{
    int err = 0;
    for (uint64_t seed = 1; seed <= SEEDS && err == 0; seed++) {
        struct vv_sim_options options = {.seed = seed,
                                         .latency_max_ns = 100000,
                                         .is_reordering_dirs = story->is_reordering_dirs};
        story->seed = seed;
        err = vv_sim_run(&options, story_main, story);
    }
    tap_is_int(err, 0, "%s: the world ends", story->name);
    tap_is_int(story->broken, 0, "%s: no promise is broken", story->name);
}

static void expect_seen(const struct story *story, int outcome, const char *what)
{
    tap_ok(story->seen[outcome] > 0, "%s: %s (%d of %d)", story->name, what, story->seen[outcome],
           SEEDS);
}

static void expect(struct story *story, bool is_kept, const char *what)
{
    if (is_kept)
        return;
    if (story->broken++ < 5)
        tap_note("%s: seed %d: %s", story->name, (int)story->seed, what);
}

/* ---- helpers that must succeed ---- */

static void must(int err, const char *what)
{
    if (err != 0)
        tap_is_int(err, 0, "%s", what);
}

static struct vv_file *make_file(const char *path)
{
    struct vv_file *file = NULL;
    must(vv_file_open(path, READ_WRITE | VV_FILE_CREATE, &file), path);
    return file;
}

static void fill(struct vv_file *file, char byte, size_t len, uint64_t offset)
{
    static char bytes[64 << 10];
    memset(bytes, byte, len);
    struct iovec iov = {bytes, len};
    must(vv_file_pwritev(file, &iov, 1, offset), "write");
}

static void make_synced(const char *path, char byte, size_t len)
{
    struct vv_file *file = make_file(path);
    fill(file, byte, len, 0);
    must(vv_file_datasync(file), "sync");
    must(vv_path_sync_dir("/"), "sync the directory");
    vv_file_close(file);
}

/* The whole file in a static buffer; -1 when it is not there. */
static char content[128 << 10];

static ssize_t load(const char *path)
{
    struct vv_file *file = NULL;
    if (vv_file_open(path, VV_FILE_READ, &file) != 0)
        return -1;
    ssize_t got = vv_file_pread(file, content, sizeof(content), 0);
    vv_file_close(file);
    return got;
}

static bool is_all(char byte, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        if (content[i] != byte)
            return false;
    }
    return true;
}

/* ---- content ---- */

#define SYNCED 10000
#define ADDED 20000

static void write_synced_then_more(struct story *story)
{
    (void)story;
    make_synced("/file", 'a', SYNCED);
    struct vv_file *file = make_file("/file");
    fill(file, 'b', ADDED, SYNCED);
}

static void check_synced_then_more(struct story *story)
{
    ssize_t size = load("/file");
    expect(story, size >= SYNCED, "the synced size");
    expect(story, size <= SYNCED + ADDED, "no more than was written");
    expect(story, size >= SYNCED && is_all('a', 0, SYNCED), "the synced bytes");
    if (size < SYNCED)
        return;
    bool has_kept = false;
    bool has_lost = size < SYNCED + ADDED;
    for (size_t at = SYNCED; at < (size_t)size;) {
        size_t end = (at / SECTOR + 1) * SECTOR;
        end = end < (size_t)size ? end : (size_t)size;
        bool is_kept = is_all('b', at, end);
        expect(story, is_kept || is_all('\0', at, end), "a sector is whole");
        has_kept |= is_kept;
        has_lost |= !is_kept;
        at = end;
    }
    story->seen[0] += has_kept && !has_lost;
    story->seen[1] += !has_kept;
    story->seen[2] += has_kept && has_lost;
    story->seen[3] += size > SYNCED && size < SYNCED + ADDED;
}

static void test_append(void)
{
    struct story story = {
        .name = "append", .before = write_synced_then_more, .after = check_synced_then_more};
    tell(&story);
    expect_seen(&story, 0, "everything may be kept");
    expect_seen(&story, 1, "everything may be lost");
    expect_seen(&story, 2, "it may be torn");
    expect_seen(&story, 3, "the size may be in between");
    struct story killed = {.name = "kill",
                           .before = write_synced_then_more,
                           .after = check_synced_then_more,
                           .is_without_cut = true};
    tell(&killed);
    tap_is_int(killed.seen[0], SEEDS, "kill: without a power cut everything is there");
}

static void overwrite_twice(struct story *story)
{
    (void)story;
    make_synced("/file", 'a', 8 * SECTOR);
    struct vv_file *file = make_file("/file");
    fill(file, 'b', 8 * SECTOR, 0);
    fill(file, 'c', 8 * SECTOR, 0);
}

static void check_overwritten(struct story *story)
{
    ssize_t size = load("/file");
    expect(story, size == 8 * SECTOR, "the size");
    for (size_t i = 0; size > 0 && i < 8; i++) {
        char byte = content[i * SECTOR];
        expect(story, byte >= 'a' && byte <= 'c', "one of the versions");
        expect(story, is_all(byte, i * SECTOR, (i + 1) * SECTOR), "a sector is whole");
        if (byte >= 'a' && byte <= 'c')
            story->seen[byte - 'a']++;
    }
}

static void test_overwrite(void)
{
    struct story story = {
        .name = "overwrite", .before = overwrite_twice, .after = check_overwritten};
    tell(&story);
    expect_seen(&story, 0, "the synced version may come back");
    expect_seen(&story, 1, "so may the one between");
    expect_seen(&story, 2, "and the last");
}

static void shrink_and_grow(struct story *story)
{
    (void)story;
    make_synced("/file", 'a', 10000);
    struct vv_file *file = make_file("/file");
    must(vv_file_truncate(file, 3000), "truncate");
    fill(file, 'b', 1000, 6000);
}

static void check_shrunk(struct story *story)
{
    ssize_t size = load("/file");
    expect(story, size >= 3000 && size <= 10000, "the size");
    expect(story, size >= 3000 && is_all('a', 0, 3000), "what was never cut off");
    for (ssize_t i = 3000; i < size; i++)
        expect(story, content[i] == 'a' || content[i] == 'b' || content[i] == '\0', "the rest");
    story->seen[0] += size == 10000;
    story->seen[1] += size == 7000;
    story->seen[2] += size != 10000 && size != 7000;
}

static void check_shrunk_now(struct story *story)
{
    expect(story, load("/file") == 7000, "the size");
    expect(story, is_all('a', 0, 3000), "what was kept");
    expect(story, is_all('\0', 3000, 6000), "a hole");
    expect(story, is_all('b', 6000, 7000), "what was written");
}

static void test_truncate(void)
{
    struct story story = {.name = "truncate", .before = shrink_and_grow, .after = check_shrunk};
    tell(&story);
    expect_seen(&story, 0, "the old size may come back");
    expect_seen(&story, 1, "the new size may be kept");
    expect_seen(&story, 2, "or one in between");
    struct story killed = {.name = "truncate, kill",
                           .before = shrink_and_grow,
                           .after = check_shrunk_now,
                           .is_without_cut = true};
    tell(&killed);
}

static void write_and_sync_at_once(struct story *story)
{
    make_synced("/file", 'a', 4096);
    struct vv_file *file = make_file("/file");
    must(vv_file_allocate(file, 0, 60000), "allocate");
    char bytes[5000];
    memset(bytes, 'b', sizeof(bytes));
    struct iovec iov[2] = {{bytes, 1000}, {bytes + 1000, 4000}};
    must(vv_file_pwritev_sync(file, iov, 2, 4096), "write and sync");
    story->seen[0]++;
}

static void check_written_at_once(struct story *story)
{
    expect(story, load("/file") == 60000, "the allocated size");
    expect(story, is_all('a', 0, 4096), "what was there");
    expect(story, is_all('b', 4096, 9096), "what was written");
    expect(story, is_all('\0', 9096, 60000), "what was allocated");
}

static void test_write_sync(void)
{
    struct story story = {
        .name = "pwritev_sync", .before = write_and_sync_at_once, .after = check_written_at_once};
    tell(&story);
}

/* ---- directories ---- */

static bool is_there(const char *path)
{
    struct vv_path_stat stat;
    return vv_path_stat(path, &stat) == 0;
}

static void make_names(struct story *story)
{
    (void)story;
    make_synced("/kept", 'k', 100);
    for (int i = 0; i < 6; i++) {
        char path[] = "/0";
        path[1] = (char)('0' + i);
        struct vv_file *file = make_file(path);
        fill(file, path[1], 100, 0);
        must(vv_file_datasync(file), "sync");
        vv_file_close(file);
    }
}

static void check_names(struct story *story)
{
    expect(story, load("/kept") == 100 && is_all('k', 0, 100), "the synced name");
    int count = 0;
    bool is_prefix = true;
    for (int i = 0; i < 6; i++) {
        char path[] = "/0";
        path[1] = (char)('0' + i);
        ssize_t size = load(path);
        is_prefix &= size < 0 || count == i;
        count += size >= 0;
        expect(story, size < 0 || (size == 100 && is_all(path[1], 0, 100)), "a synced file");
    }
    expect(story, is_prefix || story->is_reordering_dirs, "a prefix of the changes");
    story->seen[0] += count == 0;
    story->seen[1] += count == 6;
    story->seen[2] += count > 0 && count < 6;
    story->seen[3] += !is_prefix;
}

static void test_names(void)
{
    struct story story = {.name = "names", .before = make_names, .after = check_names};
    tell(&story);
    expect_seen(&story, 0, "all names may be lost");
    expect_seen(&story, 1, "all may be kept");
    expect_seen(&story, 2, "or some");
    struct story reordered = {.name = "names, reordered",
                              .before = make_names,
                              .after = check_names,
                              .is_reordering_dirs = true};
    tell(&reordered);
    expect_seen(&reordered, 3, "in any order");
}

static void rename_over(struct story *story)
{
    (void)story;
    make_synced("/name", 'a', 100);
    make_synced("/new", 'b', 200);
    must(vv_path_rename("/new", "/name"), "rename");
    if (vv_sim_chance(500))
        must(vv_path_sync_dir("/"), "sync the directory");
    else
        story = NULL;
    if (story)
        story->seen[7] = 1;
}

static void check_renamed(struct story *story)
{
    ssize_t size = load("/name");
    bool is_old = size == 100 && is_all('a', 0, 100);
    bool is_new = size == 200 && is_all('b', 0, 200);
    expect(story, is_old || is_new, "the old file or the new one, whole");
    expect(story, is_there("/new") == is_old, "a rename is atomic");
    expect(story, is_new || !story->seen[7], "a synced rename is durable");
    story->seen[0] += is_old;
    story->seen[1] += is_new && !story->seen[7];
    story->seen[7] = 0;
}

static void test_rename(void)
{
    struct story story = {.name = "rename", .before = rename_over, .after = check_renamed};
    tell(&story);
    expect_seen(&story, 0, "an unsynced rename may be lost");
    expect_seen(&story, 1, "or kept");
    struct story reordered = {.name = "rename, reordered",
                              .before = rename_over,
                              .after = check_renamed,
                              .is_reordering_dirs = true};
    tell(&reordered);
}

static void move_between(struct story *story)
{
    must(vv_path_mkdir("/from"), "mkdir");
    must(vv_path_mkdir("/to"), "mkdir");
    must(vv_path_sync_dir("/"), "sync the root");
    struct vv_file *file = make_file("/from/x");
    fill(file, 'x', 100, 0);
    must(vv_file_datasync(file), "sync");
    must(vv_path_mkdir("/from/d"), "mkdir");
    must(vv_path_sync_dir("/from"), "sync the directory");
    must(vv_path_rename("/from/x", "/to/x"), "move");
    must(vv_path_rename("/from/d", "/to/d"), "move a directory");
    story->seen[7] = (int)vv_sim_random(3);
    if (story->seen[7] > 0)
        must(vv_path_sync_dir(story->seen[7] == 1 ? "/from" : "/to"), "sync a directory");
}

static void check_moved(struct story *story)
{
    bool is_old = is_there("/from/x");
    bool is_new = is_there("/to/x");
    expect(story, is_old || is_new, "a file that is moved is never lost");
    expect(story, story->seen[7] != 1 || !is_old, "syncing the old place removes the old name");
    expect(story, story->seen[7] != 2 || is_new, "syncing the new place keeps the new name");
    expect(story, is_there("/from/d") != is_there("/to/d"), "a directory has one name");
    expect(story, load(is_new ? "/to/x" : "/from/x") == 100, "its content is there");
    story->seen[0] += is_old && !is_new;
    story->seen[1] += is_new && !is_old;
    story->seen[2] += is_new && is_old;
    story->seen[7] = 0;
}

static void test_move(void)
{
    struct story story = {.name = "move", .before = move_between, .after = check_moved};
    tell(&story);
    expect_seen(&story, 0, "a move may be lost");
    expect_seen(&story, 1, "or kept");
    expect_seen(&story, 2, "or half done");
    story = (struct story){.name = "move, reordered",
                           .before = move_between,
                           .after = check_moved,
                           .is_reordering_dirs = true};
    tell(&story);
}

/* A directory is made durable by its parent, a file by its directory: each misses one. */
static void make_trees(struct story *story)
{
    (void)story;
    must(vv_path_mkdir("/whole"), "mkdir");
    must(vv_path_mkdir("/loose"), "mkdir");
    must(vv_path_mkdir("/whole/sub"), "mkdir");
    struct vv_file *file = make_file("/whole/sub/file");
    fill(file, 'w', 100, 0);
    must(vv_file_datasync(file), "sync");
    must(vv_path_sync_dir("/whole/sub"), "sync");
    must(vv_path_sync_dir("/whole"), "sync");
    file = make_file("/loose/file");
    must(vv_file_datasync(file), "sync");
    must(vv_path_sync_dir("/"), "sync");
    must(vv_path_mkdir("/unsynced"), "mkdir");
    file = make_file("/unsynced/file");
    must(vv_file_datasync(file), "sync");
    must(vv_path_sync_dir("/unsynced"), "sync");
    must(vv_path_unlink("/whole/sub/file"), "unlink");
}

static void check_trees(struct story *story)
{
    expect(story, is_there("/whole/sub") && is_there("/loose"), "synced directories");
    ssize_t size = load("/whole/sub/file");
    expect(story, size < 0 || (size == 100 && is_all('w', 0, 100)), "an unlinked file");
    story->seen[0] += size == 100;
    story->seen[1] += is_there("/loose/file");
    story->seen[2] += !is_there("/loose/file");
    story->seen[3] += is_there("/unsynced/file");
    story->seen[4] += !is_there("/unsynced");
    expect(story, is_there("/unsynced/file") == is_there("/unsynced"), "with what is in it");
}

static void test_trees(void)
{
    struct story story = {.name = "trees", .before = make_trees, .after = check_trees};
    tell(&story);
    expect_seen(&story, 0, "an unsynced unlink may be undone");
    expect_seen(&story, 1, "an unsynced name may be there");
    expect_seen(&story, 2, "or not");
    expect_seen(&story, 3, "an unsynced directory may be there");
    expect_seen(&story, 4, "or not");
}

/* ---- faults ---- */

static void sync_with_errors(struct story *story)
{
    make_synced("/file", 'a', 60000);
    struct vv_file *file = make_file("/file");
    fill(file, 'b', 30000, 0);
    vv_sim_disk_set_errors(story->disk, 10000);
    expect(story, vv_file_datasync(file) == -EIO, "the sync fails");
    expect(story, vv_file_pread(file, content, 1, 0) == -EIO, "reading fails");
    struct iovec iov = {content, 100};
    expect(story, vv_file_pwritev(file, &iov, 1, 50000) == -EIO, "writing fails");
    expect(story, vv_path_mkdir("/d") == -EIO, "making a directory fails");
    expect(story, vv_path_unlink("/file") == -EIO, "unlinking fails");
    vv_sim_disk_set_errors(story->disk, 0);
    expect(story, vv_file_pread(file, content, 30000, 0) == 30000 && is_all('b', 0, 30000),
           "what was written can be read");
    must(vv_file_datasync(file), "the next sync succeeds");
    fill(file, 'c', 10000, 0);
    must(vv_file_datasync(file), "what is written after a failure and synced is durable");
}

static void check_after_errors(struct story *story)
{
    expect(story, load("/file") == 60000, "the size");
    expect(story, is_all('c', 0, 10000), "what was written again");
    bool has_old = false;
    for (size_t i = 10000; i < 30000; i++) {
        expect(story, content[i] == 'a' || content[i] == 'b', "old or new");
        has_old |= content[i] == 'a';
    }
    expect(story, is_all('a', 30000, 50000), "what was synced before");
    story->seen[0] += has_old;
    story->seen[1] += !has_old;
    expect(story, !is_there("/d"), "an operation that failed had no effect");
}

static void test_errors(void)
{
    struct story story = {
        .name = "errors", .before = sync_with_errors, .after = check_after_errors};
    tell(&story);
    expect_seen(&story, 0, "a failed sync may lose what a later sync does not bring back");
}

static void fill_disk(struct story *story)
{
    uint64_t free_bytes = 0;
    uint64_t total = 0;
    vv_sim_disk_set_capacity(story->disk, 100000);
    struct vv_file *file = make_file("/file");
    fill(file, 'a', 60000, 0);
    static char bytes[50000];
    struct iovec iov = {bytes, sizeof(bytes)};
    expect(story, vv_file_pwritev(file, &iov, 1, 60000) == -ENOSPC, "the disk is full");
    must(vv_path_space("/", &free_bytes, &total), "space");
    expect(story, total <= 100000 && free_bytes == 0, "nothing is free");
    fill(file, 'b', 1000, 0);
    struct vv_file *other = make_file("/other");
    expect(story, vv_file_allocate(other, 0, 4096) == -ENOSPC, "nor can be allocated");
    must(vv_file_truncate(file, 4096), "truncating frees");
    must(vv_file_allocate(other, 0, 80000), "what can be allocated");
    expect(story, vv_file_allocate(file, 0, 60000) == -ENOSPC, "is gone for others");
    fill(other, 'c', 60000, 0);
    vv_file_close(other);
    must(vv_path_unlink("/other"), "unlink");
    expect(story, vv_sim_disk_used(story->disk) == 4096, "unlinking frees");
}

static void check_nothing(struct story *story)
{
    (void)story;
}

static void test_space(void)
{
    struct story story = {.name = "space", .before = fill_disk, .after = check_nothing};
    tell(&story);
    story = (struct story){
        .name = "space, kill", .before = fill_disk, .after = check_nothing, .is_without_cut = true};
    tell(&story);
}

static void make_rotten(struct story *story)
{
    make_synced("/one", 'a', 1000);
    make_synced("/two", 'a', 1000);
    expect(story, !vv_sim_disk_rot(story->disk, "/three"), "there is no such file");
    expect(story, vv_sim_disk_rot(story->disk, "tw"), "a bit flips");
}

static void check_rotten(struct story *story)
{
    int flipped = 0;
    expect(story, load("/one") == 1000 && is_all('a', 0, 1000), "another file is well");
    expect(story, load("/two") == 1000, "the size is");
    for (int i = 0; i < 1000; i++)
        flipped += __builtin_popcount((unsigned char)content[i] ^ 'a');
    expect(story, flipped == 1, "one bit has flipped");
}

static void test_rot(void)
{
    struct story story = {.name = "rot", .before = make_rotten, .after = check_rotten};
    tell(&story);
    story.is_without_cut = true;
    tell(&story);
}

/* ---- kills within operations ---- */

static void write_versions(void *arg)
{
    (void)arg;
    struct vv_file *file = make_file("/file");
    for (char byte = 'a'; byte <= 'e'; byte++) {
        static char bytes[20000];
        memset(bytes, byte, sizeof(bytes));
        struct iovec iov = {bytes, sizeof(bytes)};
        must(vv_file_pwritev_sync(file, &iov, 1, 0), "write and sync");
    }
}

struct kills {
    int torn;
    int whole;
    int broken;
};

/* A writer is killed after any number of steps, without a power cut: what is there is a version, or
 * the front of one and the rest of the one before. */
static void check_versions(void *arg)
{
    struct kills *kills = arg;
    ssize_t size = load("/file");
    int changes = 0;
    for (ssize_t i = 1; i < size; i++) {
        changes += content[i] != content[i - 1];
        kills->broken += content[i] > content[i - 1] || content[i] < content[i - 1] - 1;
    }
    kills->broken += changes > 1;
    kills->torn += changes == 1;
    kills->whole += changes == 0;
}

static void kills_main(void *arg)
{
    for (uint64_t steps = 1; steps < 40; steps++) {
        struct vv_sim_disk *disk = vv_sim_disk_new(0);
        int process = vv_sim_process_start(disk, write_versions, NULL);
        vv_sim_process_kill_after(process, steps);
        vv_sim_process_wait(process);
        vv_sim_process_wait(vv_sim_process_start(disk, check_versions, arg));
    }
}

static void test_kills(void)
{
    struct kills kills = {0};
    int err = 0;
    for (uint64_t seed = 1; seed <= 20 && err == 0; seed++) {
        struct vv_sim_options options = {.seed = seed, .latency_max_ns = 100000};
        err = vv_sim_run(&options, kills_main, &kills);
    }
    tap_is_int(err, 0, "kills: the world ends");
    tap_is_int(kills.broken, 0, "kills: what is there was written");
    tap_ok(kills.torn > 0, "kills: a write may be half done (%d)", kills.torn);
    tap_ok(kills.whole > 0, "kills: or done (%d)", kills.whole);
}

/* ---- kills before a directory's sync ---- */

static void make_synced_names(void *arg)
{
    int *made = arg;
    must(vv_path_mkdir("/here"), "mkdir");
    must(vv_path_mkdir("/there"), "mkdir");
    must(vv_path_sync_dir("/"), "sync");
    for (*made = 0; *made < 5; (*made)++) {
        char name[] = "/here/0";
        name[6] = (char)('0' + *made);
        vv_file_close(make_file(name));
        must(vv_path_sync_dir("/there"), "sync elsewhere");
        must(vv_path_sync_dir("/here"), "sync");
    }
}

static int count_name(void *arg, const char *name, bool is_dir)
{
    int *count = arg;
    *count += !is_dir;
    return 0;
}

static void count_names(void *arg)
{
    must(vv_path_list("/here", count_name, arg), "list");
}

static void sync_kills_main(void *arg)
{
    for (unsigned count = 1; count <= 6; count++) {
        struct vv_sim_disk *disk = vv_sim_disk_new(0);
        int made = 0;
        int seen = 0;
        int kept = 0;
        int process = vv_sim_process_start(disk, make_synced_names, &made);
        vv_sim_process_kill_before_sync(process, "/here", count);
        if (count == 6) /* as if it had not been said */
            vv_sim_process_kill_before_sync(process, "", 0);
        vv_sim_process_wait(process);
        vv_sim_process_wait(vv_sim_process_start(disk, count_names, &seen));
        vv_sim_disk_power_cut(disk);
        vv_sim_process_wait(vv_sim_process_start(disk, count_names, &kept));
        if (count == 6) {
            tap_is_int(made + kept, 10, "no kill: all names are made and durable");
        } else {
            tap_is_int(made, count - 1, "killed before sync %u", count);
            tap_is_int(seen, count, "its name can be seen");
            tap_ok(kept == (int)count || kept == (int)count - 1, "and may be gone after a power cut");
            *(unsigned *)arg += kept == (int)count - 1;
        }
    }
}

static void test_sync_kills(void)
{
    unsigned lost = 0;
    int err = 0;
    for (uint64_t seed = 1; seed <= 4 && err == 0; seed++) {
        struct vv_sim_options options = {.seed = seed, .latency_max_ns = 100000};
        err = vv_sim_run(&options, sync_kills_main, &lost);
    }
    tap_is_int(err, 0, "sync kills: the world ends");
    tap_ok(lost > 0 && lost < 20, "sync kills: of 20 names %u are lost", lost);
}

/* ---- allocation failures ---- */

static void fail_main(void *arg)
{
    bool is_ended = false;
    (void)arg;
    int n = 0;
    for (; n < 500 && !is_ended; n++) {
        vv_alloc_fail_at(n, false);
        struct vv_file *file = NULL;
        int err = vv_path_mkdir("/d");
        err = err ? err : vv_file_open("/d/f", READ_WRITE | VV_FILE_CREATE, &file);
        struct iovec iov = {content, 5000};
        err = err ? err : vv_file_pwritev(file, &iov, 1, 3 << 20);
        err = err ? err : vv_file_datasync(file);
        err = err ? err : vv_file_truncate(file, (3 << 20) + 10);
        err = err ? err : vv_file_allocate(file, 0, 5000);
        vv_file_close(file);
        err = err ? err : vv_path_mkdir("/e");
        err = err ? err : vv_path_rename("/d/f", "/e/f");
        err = err ? err : vv_path_link("/e/f", "/e/g");
        err = err ? err : vv_path_sync_dir("/e");
        err = err ? err : vv_path_unlink("/e/f");
        vv_alloc_fail_at(-1, false);
        is_ended = !vv_alloc_failed();
        if (err != (is_ended ? 0 : -ENOMEM))
            tap_is_int(err, -ENOMEM, "allocation %d fails", n);
        (void)!vv_path_unlink("/d/f");
        (void)!vv_path_unlink("/e/f");
        (void)!vv_path_unlink("/e/g");
        (void)!vv_path_rmdir("/e");
        (void)!vv_path_rmdir("/d");
    }
    tap_ok(is_ended, "the walk ends after %d", n);
}

static void fail_world_main(void *arg)
{
    struct vv_sim_disk *disk = vv_sim_disk_new(0);
    vv_sim_process_wait(vv_sim_process_start(disk, fail_main, arg));
    tap_is_int((int64_t)vv_sim_disk_used(disk), 0, "nothing is left on the disk");
    vv_sim_disk_power_cut(disk);
}

static void test_alloc_failure(void)
{
    struct vv_sim_options options = {.seed = 1};
    tap_is_int(vv_sim_run(&options, fail_world_main, NULL), 0, "the world ends");
}

int main(void)
{
    vv_alloc_track(true);
    test_append();
    test_overwrite();
    test_truncate();
    test_write_sync();
    test_names();
    test_rename();
    test_move();
    test_trees();
    test_errors();
    test_space();
    test_rot();
    test_kills();
    test_sync_kills();
    test_alloc_failure();
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing is left allocated");
    return tap_done();
}
