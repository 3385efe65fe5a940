/* The disk cache and the store behind it, on simulated disks: restarts, crashes, power cuts, rot, errors. Whatever
 * happens, what it gives is right. */
#include "cache/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"

#define SIZE (8u << 20)
#define OBJECT 300000u
#define MEMORY (1u << 20)

static const uint8_t volume_a[16] = "volume-a-volume";
static const uint8_t volume_b[16] = "volume-b-volume";

/* Byte `at` of object number n. */
static uint8_t byte_of(unsigned n, uint64_t at)
{
    return (uint8_t)((at * 31 + n * 7 + (at >> 9)) ^ (at >> 3));
}

static void fill(unsigned n, uint8_t *bytes, size_t len, uint64_t offset)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_of(n, offset + i);
}

static bool is_right(unsigned n, const uint8_t *bytes, size_t len, uint64_t offset)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != byte_of(n, offset + i))
            return false;
    }
    return true;
}

static const char *name_of(unsigned n)
{
    static char name[40];
    vv_format(name, sizeof name, "data/%02x/%u", n & 255, n);
    return name;
}

static uint8_t *buffer;

static void keep(struct vv_disk *disk, const uint8_t id[16], unsigned n, uint64_t offset, size_t len,
                 bool is_end)
{
    fill(n, buffer, len, offset);
    struct iovec iov[3] = {{buffer, len / 3}, {buffer + len / 3, 0}, {buffer + len / 3, len - len / 3}};
    vv_disk_write(disk, id, name_of(n), offset, iov, 3, is_end);
}

/* Bytes held; -1 when they are wrong. */
static int64_t held(struct vv_disk *disk, const uint8_t id[16], unsigned n, uint64_t offset,
                    size_t len, bool *out_is_end)
{
    bool is_end;
    memset(buffer, 0xee, len);
    size_t got = vv_disk_read(disk, id, name_of(n), buffer, len, offset, &is_end);
    if (out_is_end)
        *out_is_end = is_end;
    return is_right(n, buffer, got, offset) ? (int64_t)got : -1;
}

static struct vv_disk *open_disk(const char *path, uint64_t size)
{
    struct vv_disk *disk = NULL;
    int err = vv_disk_open(path, size, MEMORY, &disk);
    if (err < 0)
        tap_is_int(err, 0, "a cache opens");
    return disk;
}

static void basics(void *arg)
{
    (void)arg;
    bool is_end;
    struct vv_disk *other;
    struct vv_disk_stats stats;
    tap_is_int(vv_disk_open("/cache", 1 << 20, MEMORY, &other), -EINVAL, "too small a size is refused");
    tap_is_int(vv_disk_open("/none/cache", SIZE, MEMORY, &other), -ENOENT, "the parent must be there");
    struct vv_disk *disk = open_disk("/cache", SIZE);
    tap_is_int(vv_disk_open("/cache", SIZE, MEMORY, &other), -VV_ERR_LOCKED, "a directory has one user");
    tap_is_int(held(disk, volume_a, 1, 0, 1000, NULL), 0, "nothing is there");
    keep(disk, volume_a, 1, 0, OBJECT, true);
    tap_is_int(held(disk, volume_a, 1, 0, OBJECT, &is_end), OBJECT, "an object is held");
    tap_ok(is_end, "with its end");
    tap_is_int(held(disk, volume_a, 1, 131000, 200, &is_end), 200, "any part of it");
    tap_ok(!is_end, "which is not its end");
    tap_is_int(held(disk, volume_a, 1, OBJECT - 10, 500, &is_end), 10, "no more than there is");
    tap_ok(is_end, "and that is known");
    tap_is_int(held(disk, volume_b, 1, 0, 100, NULL), 0, "not for another volume");
    tap_is_int(held(disk, volume_a, 2, 0, 100, NULL), 0, "nor another object");
    keep(disk, volume_a, 3, 1000, 1000, false);
    keep(disk, volume_a, 3, 3000, 1000, false);
    tap_is_int(held(disk, volume_a, 3, 1500, 2000, NULL), 500, "what is held up to a gap");
    keep(disk, volume_a, 3, 1800, 1300, false);
    tap_is_int(held(disk, volume_a, 3, 1500, 2000, NULL), 2000, "and across pieces that overlap");
    tap_is_int(held(disk, volume_a, 3, 900, 200, NULL), 0, "not when the beginning is missing");
    vv_disk_stats(disk, &stats);
    uint64_t written = stats.bytes_written;
    keep(disk, volume_a, 1, 0, OBJECT, true);
    vv_disk_stats(disk, &stats);
    tap_is_int((int64_t)(stats.bytes_written - written), 0, "what is held is not written again");
    vv_disk_forget(disk, volume_a, name_of(1));
    vv_disk_forget(disk, volume_a, name_of(9));
    tap_is_int(held(disk, volume_a, 1, 0, 100, NULL), 0, "a removed object is forgotten");
    keep(disk, volume_a, 4, 0, OBJECT, true);
    vv_disk_close(disk);
    disk = open_disk("/cache", SIZE);
    tap_is_int(held(disk, volume_a, 4, 0, OBJECT, NULL), OBJECT, "what is held outlives a restart");
    tap_is_int(held(disk, volume_a, 3, 1500, 2000, NULL), 2000, "all of it");
    keep(disk, volume_b, 5, 0, OBJECT, true);
    tap_is_int(held(disk, volume_b, 5, 0, OBJECT, NULL), OBJECT, "and the last file is continued");
    vv_disk_stats(disk, &stats);
    tap_is_int((int64_t)stats.files, 1, "which is still the only one");
    vv_disk_close(disk);
}

static void bounded(void *arg)
{
    (void)arg;
    struct vv_disk_stats stats;
    struct vv_disk *disk = open_disk("/bounded", SIZE);
    uint64_t held_max = 0;
    bool is_good = true;
    for (unsigned n = 0; n < 60; n++) {
        keep(disk, volume_a, n, 0, OBJECT, true);
        vv_disk_stats(disk, &stats);
        held_max = stats.held_bytes > held_max ? stats.held_bytes : held_max;
        is_good &= held(disk, volume_a, n, 0, OBJECT, NULL) == OBJECT;
    }
    tap_ok(is_good, "the newest is always held");
    tap_ok(held_max <= SIZE, "%llu bytes at most, of %u", (unsigned long long)held_max, SIZE);
    tap_ok(stats.held_bytes > SIZE / 2, "and the room is used: %llu", (unsigned long long)stats.held_bytes);
    tap_is_int(held(disk, volume_a, 3, 0, OBJECT, NULL), 0, "the oldest are gone");
    unsigned first = 60;
    while (first > 0 && held(disk, volume_a, first - 1, 0, OBJECT, NULL) == OBJECT)
        first--;
    tap_ok(first < 45, "the newest %u are held", 60 - first);
    vv_disk_close(disk);
    disk = open_disk("/bounded", SIZE);
    is_good = true;
    for (unsigned n = first; n < 60; n++)
        is_good &= held(disk, volume_a, n, 0, OBJECT, NULL) == OBJECT;
    tap_ok(is_good, "after a restart, too: by the indexes");
    vv_disk_close(disk);
    keep(disk = open_disk("/bounded", VV_DISK_SIZE_MIN), volume_a, 1, 0, 100, true);
    vv_disk_close(disk);
}

/* Many small pieces: it is memory that bounds what is held, and the size is not reached. */
static void bounded_by_memory(void *arg)
{
    (void)arg;
    enum { PIECES = 5000, PIECE = 500 };
    struct vv_disk_stats stats;
    struct vv_disk *disk = NULL;
    uint64_t memory_max = 0;
    bool is_good = true;
    tap_is_int(vv_disk_open("/pieces", SIZE, VV_DISK_MEMORY_MIN - 1, &disk), -EINVAL,
               "too little memory is refused");
    tap_is_int(vv_disk_open("/pieces", SIZE, VV_DISK_MEMORY_MIN, &disk), 0, "a cache opens with little memory");
    for (unsigned n = 0; n < PIECES; n++) {
        keep(disk, volume_a, n, 0, PIECE, true);
        vv_disk_stats(disk, &stats);
        memory_max = stats.memory_bytes > memory_max ? stats.memory_bytes : memory_max;
        is_good &= held(disk, volume_a, n, 0, PIECE, NULL) == PIECE;
    }
    tap_ok(is_good, "the newest piece is always held");
    tap_ok(memory_max <= VV_DISK_MEMORY_MIN + 256, "%llu bytes of memory at most, of %u",
           (unsigned long long)memory_max, VV_DISK_MEMORY_MIN);
    tap_ok(stats.memory_bytes > VV_DISK_MEMORY_MIN / 2, "which are used: %llu",
           (unsigned long long)stats.memory_bytes);
    tap_ok(stats.files > 10 && stats.files < 20, "in %llu files", (unsigned long long)stats.files);
    uint64_t entries = stats.entries;
    vv_disk_close(disk);

    tap_is_int(vv_disk_open("/pieces", SIZE, VV_DISK_MEMORY_MIN, &disk), 0, "it opens again");
    vv_disk_stats(disk, &stats);
    tap_is_int((int64_t)stats.entries, (int64_t)entries, "and knows as much");
    vv_disk_close(disk);
    tap_is_int(vv_disk_open("/pieces", SIZE, MEMORY, &disk), 0, "with more memory");
    for (unsigned n = 0; n < 2000; n++)
        keep(disk, volume_b, n, 0, PIECE, true);
    vv_disk_stats(disk, &stats);
    tap_is_int((int64_t)stats.entries, (int64_t)entries + 2000, "it holds more");
    vv_disk_close(disk);
    tap_is_int(vv_disk_open("/pieces", SIZE, VV_DISK_MEMORY_MIN, &disk), 0, "and with less again");
    vv_disk_stats(disk, &stats);
    tap_ok(stats.memory_bytes <= VV_DISK_MEMORY_MIN, "%llu bytes are known of: the bound holds while it opens",
           (unsigned long long)stats.memory_bytes);
    for (unsigned n = 0; n < PIECES; n++) {
        vv_disk_forget(disk, volume_a, name_of(n));
        vv_disk_forget(disk, volume_b, name_of(n));
    }
    vv_disk_stats(disk, &stats);
    tap_is_int((int64_t)stats.memory_bytes, 0, "nothing is charged for what was forgotten");
    vv_disk_close(disk);
}

/* ---- crashes ---- */

struct crash {
    struct vv_sim_disk *disk;
    uint64_t seed;
    bool is_wrong;
    uint64_t hits;
};

static void victim(void *arg)
{
    struct crash *crash = arg;
    struct vv_disk *disk;
    if (vv_disk_open("/crash", SIZE, MEMORY, &disk) < 0)
        return;
    for (unsigned i = 0; i < 60; i++) {
        unsigned n = (unsigned)vv_sim_random(40);
        uint64_t offset = vv_sim_random(OBJECT);
        size_t len = 1 + (size_t)vv_sim_random(OBJECT - offset);
        int64_t got = held(disk, volume_a, n, offset, len, NULL);
        crash->is_wrong |= got < 0;
        crash->hits += got > 0;
        if (vv_sim_chance(700))
            keep(disk, volume_a, n, offset, len, offset + len == OBJECT);
    }
    vv_disk_close(disk);
}

static void crashes(void *arg)
{
    struct crash *crash = arg;
    crash->disk = vv_sim_disk_new(vv_sim_chance(300) ? 6 << 20 : 0);
    for (unsigned round = 0; round < 12; round++) {
        int process = vv_sim_process_start(crash->disk, victim, crash);
        if (vv_sim_chance(600))
            vv_sim_process_kill_after(process, 1 + vv_sim_random(600));
        vv_sim_disk_set_errors(crash->disk, vv_sim_chance(300) ? 300 : 0);
        vv_sim_process_wait(process);
        vv_sim_disk_set_errors(crash->disk, 0);
        if (vv_sim_chance(400))
            vv_sim_disk_power_cut(crash->disk);
        for (unsigned i = 0; i < 3 && vv_sim_chance(500); i++)
            (void)vv_sim_disk_rot(crash->disk, ".vvc");
    }
}

/* ---- the store ---- */

static void store_calls(void *arg)
{
    (void)arg;
    struct vv_store_backend *backend;
    struct vv_store *store;
    struct vv_store *fault;
    struct vv_store *counting;
    struct vv_disk *disk = open_disk("/store", SIZE);
    struct vv_disk_stats stats;
    if (vv_store_backend_new(&backend) < 0 || vv_store_mem_open(backend, &store) < 0 ||
        vv_store_fault_new(store, &store) < 0)
        abort();
    fault = store;
    if (vv_store_count_new(store, &store) < 0)
        abort();
    counting = store;
    const struct vv_store_counts *counts = vv_store_counts(counting);
    if (vv_store_cached_new(store, disk, volume_a, &store) < 0)
        abort();
    fill(7, buffer, OBJECT, 0);
    struct iovec iov = {buffer, OBJECT};
    tap_is_int(vv_store_put(store, name_of(7), &iov, 1), 0, "put");
    memset(buffer, 0, OBJECT);
    tap_is_int(vv_store_get(store, name_of(7), buffer, OBJECT + 5, 0), OBJECT, "get it back");
    tap_ok(is_right(7, buffer, OBJECT, 0), "its bytes are right");
    tap_is_int((int64_t)counts->gets, 0, "without a request");
    vv_store_fault_plan(fault)->all_fail = EIO;
    tap_is_int(vv_store_get(store, name_of(7), buffer, 100, 5000), 100,
               "and while the store is away");
    tap_is_int(vv_store_get(store, name_of(8), buffer, 100, 0), -EIO, "what is not held fails");
    fill(8, buffer, 1000, 0);
    iov = (struct iovec){buffer, 1000};
    tap_is_int(vv_store_put(store, name_of(8), &iov, 1), -EIO, "a put that fails");
    vv_store_fault_plan(fault)->all_fail = 0;
    tap_is_int(vv_store_get(store, name_of(8), buffer, 1000, 0), -ENOENT, "is not kept");
    tap_is_int(vv_store_put(store, "manifest/1", &iov, 1), 0, "a manifest is put");
    uint64_t gets = counts->gets;
    tap_is_int(vv_store_get(store, "manifest/1", buffer, 10, 0), 10, "and read");
    tap_is_int((int64_t)(counts->gets - gets), 1, "from the store");
    struct vv_disk *other = open_disk("/store2", SIZE);
    struct vv_store *second;
    if (vv_store_mem_open(backend, &second) < 0 || vv_store_count_new(second, &counting) < 0 ||
        vv_store_cached_new(counting, other, volume_a, &second) < 0)
        abort();
    counts = vv_store_counts(counting);
    tap_is_int(vv_store_get(second, name_of(7), buffer, 1000, 2000), 1000, "a miss");
    tap_ok(is_right(7, buffer, 1000, 2000) && counts->gets == 1, "asks the store");
    tap_is_int(vv_store_get(second, name_of(7), buffer, 500, 2100), 500, "a part of it again");
    tap_ok(is_right(7, buffer, 500, 2100) && counts->gets == 1, "does not");
    tap_is_int(vv_store_get(second, name_of(7), buffer, 2000, 2500), 2000, "more of it");
    tap_ok(is_right(7, buffer, 2000, 2500) && counts->gets == 2 && counts->bytes_got == 2500,
           "asks for what is missing, once");
    vv_disk_stats(other, &stats);
    tap_ok(stats.hits == 1 && stats.misses == 2 && stats.bytes_hit == 1000 && stats.bytes_missed == 2500,
           "and all that is counted");
    tap_is_int(vv_store_remove(second, name_of(7)), 0, "a remove");
    tap_is_int(vv_store_get(second, name_of(7), buffer, 500, 2100), -ENOENT, "removes it here, too");
    vv_store_close(second);
    vv_disk_close(other);
    vv_store_close(store);
    vv_disk_close(disk);
    vv_store_backend_free(backend);
}

static void no_memory(void *arg)
{
    (void)arg;
    bool is_good = true;
    int64_t n = 0;
    for (; n < 400; n++) {
        char path[32];
        struct vv_disk *disk = NULL;
        vv_format(path, sizeof path, "/memory%d", (int)n);
        vv_alloc_fail_at(n, false);
        int err = vv_disk_open(path, SIZE, MEMORY, &disk);
        for (unsigned i = 0; i < 2 && err == 0; i++) {
            keep(disk, volume_a, i, 0, 2000, true);
            is_good &= held(disk, volume_a, i, 0, 2000, NULL) >= 0;
        }
        if (err == 0)
            vv_disk_close(disk);
        bool has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_good &= err == 0 || err == -ENOMEM;
        disk = open_disk(path, SIZE);
        for (unsigned i = 0; i < 2 && disk; i++)
            is_good &= held(disk, volume_a, i, 0, 2000, NULL) >= 0;
        vv_disk_close(disk);
        if (!has_failed)
            break;
    }
    tap_ok(is_good && n > 20 && n < 400, "with each of %d allocations failing, what it gives is right",
           (int)n);
}

static void on_disk(void (*fn)(void *))
{
    struct vv_sim_disk *disk = vv_sim_disk_new(0);
    int process = vv_sim_process_start(disk, fn, NULL);
    vv_sim_process_wait(process);
    tap_is_int((int64_t)vv_alloc_domain_count((uint32_t)process), 0, "nothing leaks");
}

static void world(void *arg)
{
    (void)arg;
    on_disk(basics);
    on_disk(bounded);
    on_disk(bounded_by_memory);
    on_disk(store_calls);
    on_disk(no_memory);
}

int main(void)
{
    struct vv_sim_options options = {.seed = 1, .latency_min_ns = 1000, .latency_max_ns = 100000};
    vv_alloc_track(true);
    buffer = malloc(OBJECT + 1000);
    tap_is_int(vv_sim_run(&options, world, NULL), 0, "the world ends");
    uint64_t hits = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct crash crash = {.seed = seed};
        options.seed = seed;
        options.reorder_permille = 100;
        options.is_reordering_dirs = seed % 2;
        int err = vv_sim_run(&options, crashes, &crash);
        if (err < 0 || crash.is_wrong)
            tap_ok(false, "seed %d: wrong bytes, or %s", (int)seed, vv_err_text(err));
        hits += crash.hits;
    }
    tap_ok(hits > 50, "crashes, power cuts, rot and errors: all of %llu hits were right",
           (unsigned long long)hits);
    free(buffer);
    return tap_done();
}
