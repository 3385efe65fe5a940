/* How fast the metadata tree is: keys are loaded in random order, read back cold and warm, and
 * scanned, over a dir store, within a memory budget. Prints one line a figure. Not part of the
 * checks.
 *
 *   bench_lsm [KEYS [BUDGET_MIB [DIRECTORY]]]     20000000, 256, /tmp/bench_lsm; DIRECTORY is
 * emptied
 *
 * Fails when a key or a value is not as it was put, or the process takes more memory than the budget.
 * `ninja -C build bench_lsm && build/bench_lsm`; part of make soak. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "base/hash.h"
#include "lsm/lsm.h"
#include "rt/rt.h"

#define KEY_LEN 16
#define VALUE_LEN 60
#define RECORD_LEN (KEY_LEN + VALUE_LEN)
#define COMMIT_RECORDS 1000
#define SMALL_KEYS 100000 /* of the memtable and warm figures */
#define COLD_GETS 50000
#define READERS 32
#define WATCH_NS 100000

struct bench {
    uint64_t keys;
    uint64_t budget_bytes;
    const char *path;
    struct vv_store *dir;
    struct vv_store *store;
    struct vv_keyring *ring;
    struct vv_budget memory;
    struct vv_budget mem_budget;
    struct vv_budget cache_budget;
    struct vv_cache *cache;
    struct vv_seal_settings settings;
    struct vv_lsm *lsm;
    uint64_t memtable_bytes;
    bool is_loading;
    unsigned running;
    struct vv_waitq changed;
    uint64_t stall_ns;
    uint64_t gets_left;
    double longest; /* see watcher */
    uint64_t late_count;
    uint64_t watch_count;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Of the calling thread, or of the whole process: on a busy machine this says more than the clock.
 */
static double cpu_seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void check(bool is_good, const char *what)
{
    if (is_good)
        return;
    fprintf(stderr, "bench_lsm: %s failed\n", what);
    exit(1);
}

static double seconds_since(uint64_t from_ns)
{
    return (double)(now_ns() - from_ns) / 1e9;
}

/* Key number `i`: random order, all different. */
static struct vv_bytes make_key(uint64_t i, uint8_t key[KEY_LEN])
{
    vv_store_be64(key, vv_mix64(i));
    vv_store_be64(key + 8, i);
    return (struct vv_bytes){key, KEY_LEN};
}

/* A third of it does not compress, as in an inode record. */
static struct vv_bytes make_value(uint64_t i, uint8_t value[VALUE_LEN])
{
    memset(value, 0, VALUE_LEN);
    vv_store_u64(value, vv_mix64(i + 1));
    vv_store_u64(value + 8, vv_mix64(i + 2));
    vv_store_u64(value + 24, i);
    value[40] = (uint8_t)(i % 3);
    return (struct vv_bytes){value, VALUE_LEN};
}

static bool is_value(uint64_t i, const struct vv_lsm_value *value)
{
    uint8_t want[VALUE_LEN];
    make_value(i, want);
    return value->len == VALUE_LEN && memcmp(value->ptr, want, VALUE_LEN) == 0;
}

static int put_object(void *arg, const char *name, const uint8_t attempt_id[16],
                      const struct iovec *iov, int count)
{
    struct bench *bench = arg;
    (void)attempt_id;
    return vv_store_put(bench->store, name, iov, count);
}

static struct vv_lsm_options options_of(struct bench *bench)
{
    return (struct vv_lsm_options){
        .store = bench->store,
        .ring = bench->ring,
        .cache = bench->cache,
        .mem_budget = &bench->mem_budget,
        .epoch = 1,
        .put = put_object,
        .put_arg = bench,
        .settings = &bench->settings,
    };
}

/* ---- loading ---- */

static void sweep(struct bench *bench)
{
    struct vv_table_ref ref;
    while (vv_lsm_next_dead(bench->lsm, &ref)) {
        char name[VV_STORE_NAME_MAX + 1];
        vv_table_name(ref.epoch, ref.counter, name, sizeof(name));
        check(vv_store_remove(bench->store, name) == 0, "remove");
    }
}

static void flusher(void *arg)
{
    struct bench *bench = arg;
    while (bench->is_loading || vv_lsm_flushable_commit(bench->lsm) > 0) {
        uint64_t commit = vv_lsm_flushable_commit(bench->lsm);
        if (commit == 0) {
            vv_rt_sleep_ns(1000000);
            continue;
        }
        struct vv_lsm_edit *edit;
        check(vv_lsm_prepare_flush(bench->lsm, commit, &edit) == 0, "flush");
        vv_lsm_apply(bench->lsm, edit);
        vv_waitq_wake_all(&bench->changed);
    }
    bench->running--;
    vv_waitq_wake_all(&bench->changed);
}

static void compactor(void *arg)
{
    struct bench *bench = arg;
    for (;;) {
        struct vv_lsm_edit *edit;
        check(vv_lsm_prepare_compaction(bench->lsm, &edit) == 0, "compaction");
        if (edit) {
            vv_lsm_apply(bench->lsm, edit);
            sweep(bench);
            vv_waitq_wake_all(&bench->changed);
        } else if (bench->is_loading || vv_lsm_flushable_commit(bench->lsm) > 0) {
            vv_rt_sleep_ns(1000000);
        } else {
            break;
        }
    }
    bench->running--;
    vv_waitq_wake_all(&bench->changed);
}

/* How long other fibers are kept from running, in processor time of the reactor: what it used
 * beyond the time that this fiber wanted to sleep. */
static void watcher(void *arg)
{
    struct bench *bench = arg;
    while (bench->is_loading) {
        double from = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
        vv_rt_sleep_ns(WATCH_NS);
        double late = cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - from - WATCH_NS / 1e9;
        if (late > bench->longest)
            bench->longest = late;
        bench->late_count += late > 0.0003;
        bench->watch_count++;
    }
    bench->running--;
    vv_waitq_wake_all(&bench->changed);
}

static void start(struct bench *bench, void (*fn)(void *))
{
    check(vv_fiber_start(fn, bench, "bench") == 0, "fiber");
    bench->running++;
}

static void wait_ended(struct bench *bench)
{
    while (bench->running > 0)
        (void)vv_waitq_wait(&bench->changed, VV_NEVER);
}

static bool must_wait(const struct bench *bench)
{
    return vv_lsm_memtable_bytes(bench->lsm) > 3 * bench->memtable_bytes ||
           vv_lsm_is_stalled(bench->lsm);
}

static void load_some(struct bench *bench, uint64_t from, uint64_t commit)
{
    uint8_t key[KEY_LEN];
    uint8_t value[VALUE_LEN];
    for (uint64_t i = from; i < from + COMMIT_RECORDS && i < bench->keys; i++) {
        check(vv_lsm_reserve(bench->lsm, 1, RECORD_LEN) == 0, "reserve");
        vv_lsm_put(bench->lsm, commit, make_key(i, key), make_value(i, value));
        if (i % 64 == 63)
            vv_fiber_yield();
    }
    if (vv_lsm_newest_memtable_bytes(bench->lsm) >= bench->memtable_bytes)
        check(vv_lsm_rotate(bench->lsm, commit) == 0, "rotate");
}

static void load(struct bench *bench)
{
    uint64_t from_ns = now_ns();
    double process = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
    double thread = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    bench->is_loading = true;
    start(bench, flusher);
    start(bench, compactor);
    start(bench, watcher);
    uint64_t commit = 0;
    for (uint64_t i = 0; i < bench->keys; i += COMMIT_RECORDS) {
        uint64_t stall_ns = now_ns();
        while (must_wait(bench))
            (void)vv_waitq_wait(&bench->changed, VV_NEVER);
        bench->stall_ns += now_ns() - stall_ns;
        load_some(bench, i, ++commit);
    }
    check(vv_lsm_rotate(bench->lsm, commit) == 0, "rotate");
    double seconds = seconds_since(from_ns);
    printf("load: %.0f records/s, %.1f s, of which %.1f s waiting for flush and compaction\n",
           (double)bench->keys / seconds, seconds, (double)bench->stall_ns / 1e9);
    bench->is_loading = false;
    wait_ended(bench);
    printf("settled after %.1f s\n", seconds_since(from_ns));
    printf("the reactor was held for %.2f ms at most, %llu times of %llu for over 0.3 ms\n",
           bench->longest * 1e3, (unsigned long long)bench->late_count,
           (unsigned long long)bench->watch_count);
    printf("processor time to load and settle: %.2f us a record, %.2f us of it on the reactor\n",
           (cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - process) * 1e6 / (double)bench->keys,
           (cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - thread) * 1e6 / (double)bench->keys);
}

static void print_amplification(struct bench *bench)
{
    struct vv_lsm_stats stats;
    vv_lsm_stats(bench->lsm, &stats);
    uint64_t bytes = 0;
    printf("levels:");
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        bytes += stats.bytes[i];
        if (stats.tables[i] > 0)
            printf(" L%u %llu tables %.0f MB", i, (unsigned long long)stats.tables[i],
                   (double)stats.bytes[i] / 1e6);
    }
    double user = (double)bench->keys * RECORD_LEN;
    printf("\nwrite amplification: %.2f of table bytes flushed, %.2f of record bytes\n",
           (double)(stats.bytes_flushed + stats.bytes_compacted) / (double)stats.bytes_flushed,
           (double)(stats.bytes_flushed + stats.bytes_compacted) / user);
    printf("space: %.0f MB for %.0f MB of records (%.2f)\n", (double)bytes / 1e6, user / 1e6,
           (double)bytes / user);
}

/* ---- reading ---- */

static void get_one(struct bench *bench, uint64_t i)
{
    uint8_t bytes[KEY_LEN];
    struct vv_bytes key = make_key(i, bytes);
    struct vv_lsm_value value;
    struct vv_lsm_pins pins;
    int found = vv_lsm_get(bench->lsm, key, &value);
    if (found != -VV_ERR_MISS) {
        check(found == 1 && is_value(i, &value), "get");
        return;
    }
    vv_lsm_pins_init(&pins);
    check(vv_lsm_fetch(bench->lsm, &key, 1, &pins) == 0, "fetch");
    found = vv_lsm_get(bench->lsm, key, &value);
    check(found == 1 && is_value(i, &value), "get after fetch");
    vv_lsm_pins_done(&pins);
}

static void cold_reader(void *arg)
{
    struct bench *bench = arg;
    while (bench->gets_left > 0)
        get_one(bench, vv_mix64(bench->gets_left-- + 77) % bench->keys);
    bench->running--;
    vv_waitq_wake_all(&bench->changed);
}

static void read_cold(struct bench *bench, unsigned readers)
{
    struct vv_lsm_stats before;
    struct vv_lsm_stats after;
    uint64_t from_ns = now_ns();
    uint64_t gets = vv_store_counts(bench->store)->gets;
    vv_lsm_stats(bench->lsm, &before);
    bench->gets_left = COLD_GETS;
    for (unsigned i = 0; i < readers; i++)
        start(bench, cold_reader);
    wait_ended(bench);
    double seconds = seconds_since(from_ns);
    vv_lsm_stats(bench->lsm, &after);
    printf("cold get, %u at once: %.0f/s, %.1f us each; %.2f requests and %.2f blocks a get\n",
           readers, COLD_GETS / seconds, seconds * 1e6 / COLD_GETS,
           (double)(vv_store_counts(bench->store)->gets - gets) / COLD_GETS,
           (double)(after.blocks_read - before.blocks_read) / COLD_GETS);
}

/* Keys that lie side by side, so that their blocks fit into the cache. */
static void read_warm(struct bench *bench)
{
    static uint64_t numbers[SMALL_KEYS];
    struct vv_lsm_iter *iter;
    struct vv_bytes none = {NULL, 0};
    struct vv_bytes key;
    struct vv_bytes value;
    uint64_t count = 0;
    check(vv_lsm_iter_open(bench->lsm, none, none, &iter) == 0, "iter");
    while (count < SMALL_KEYS && vv_lsm_iter_next(iter, &key, &value) == 1)
        numbers[count++] = vv_load_be64(key.ptr + 8);
    vv_lsm_iter_close(iter);
    for (unsigned round = 0; round < 3; round++) {
        double thread = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
        for (uint64_t i = 0; i < count; i++)
            get_one(bench, numbers[vv_mix64(i) % count]);
        thread = cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - thread;
        printf("warm get: %.0f ns of processor time\n", thread * 1e9 / (double)count);
    }
    double thread = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    uint64_t misses = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint8_t bytes[KEY_LEN];
        struct vv_lsm_value got;
        key = make_key(numbers[vv_mix64(i) % count] + bench->keys, bytes);
        memcpy(bytes, make_key(numbers[vv_mix64(i) % count], bytes).ptr, 8);
        bytes[15] ^= 1;
        bytes[8] = 1;
        misses += vv_lsm_get(bench->lsm, key, &got) == -VV_ERR_MISS;
    }
    thread = cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - thread;
    printf("warm get of an absent key: %.0f ns (%.1f%% not in memory)\n",
           thread * 1e9 / (double)count, (double)misses * 100 / (double)count);
}

static uint64_t record_sum(struct vv_bytes key, struct vv_bytes value)
{
    return vv_xxh3(value.ptr, value.len, vv_xxh3(key.ptr, key.len, 0));
}

static void scan(struct bench *bench)
{
    struct vv_lsm_iter *iter;
    struct vv_bytes none = {NULL, 0};
    struct vv_bytes key;
    struct vv_bytes value;
    uint64_t count = 0;
    uint64_t from_ns = now_ns();
    check(vv_lsm_iter_open(bench->lsm, none, none, &iter) == 0, "iter");
    uint64_t sum = 0;
    while (vv_lsm_iter_next(iter, &key, &value) == 1) {
        sum += record_sum(key, value);
        count++;
    }
    vv_lsm_iter_close(iter);
    check(count == bench->keys, "scan: every key is there once");
    uint8_t key_bytes[KEY_LEN];
    uint8_t value_bytes[VALUE_LEN];
    for (uint64_t i = 0; i < bench->keys; i++)
        sum -= record_sum(make_key(i, key_bytes), make_value(i, value_bytes));
    check(sum == 0, "scan: every key has its value");
    printf("scan: %.0f records/s\n", (double)count / seconds_since(from_ns));
}

/* ---- memtable ---- */

static void bench_memtable(struct bench *bench)
{
    uint8_t key[KEY_LEN];
    uint8_t bytes[VALUE_LEN];
    struct vv_lsm_value value;
    double from = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    for (uint64_t i = 0; i < SMALL_KEYS; i++) {
        check(vv_lsm_reserve(bench->lsm, 1, RECORD_LEN) == 0, "reserve");
        vv_lsm_put(bench->lsm, 1, make_key(i, key), make_value(i, bytes));
    }
    printf("memtable put: %.0f ns\n",
           (cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - from) * 1e9 / SMALL_KEYS);
    printf("memtable bytes a record: %.0f\n",
           (double)vv_lsm_memtable_bytes(bench->lsm) / SMALL_KEYS);
    from = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    for (uint64_t i = 0; i < SMALL_KEYS; i++)
        check(vv_lsm_get(bench->lsm, make_key(vv_mix64(i) % SMALL_KEYS, key), &value) == 1, "get");
    printf("memtable get: %.0f ns\n",
           (cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - from) * 1e9 / SMALL_KEYS);
    from = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
    for (uint64_t i = 0; i < SMALL_KEYS; i++) {
        check(vv_lsm_reserve(bench->lsm, 1, RECORD_LEN) == 0, "reserve");
        vv_lsm_put(bench->lsm, 1, make_key(vv_mix64(i) % SMALL_KEYS, key), make_value(i, bytes));
    }
    printf("memtable put again: %.0f ns\n",
           (cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - from) * 1e9 / SMALL_KEYS);
}

/* ---- setting up ---- */

static void open_lsm(struct bench *bench)
{
    check(vv_cache_new(&bench->cache_budget, bench->budget_bytes / 4, &bench->cache) == 0, "cache");
    struct vv_lsm_options options = options_of(bench);
    check(vv_lsm_new(&options, &bench->lsm) == 0, "lsm");
}

static void close_lsm(struct bench *bench)
{
    vv_lsm_free(bench->lsm);
    vv_cache_free(bench->cache);
}

/* As a process that is started again: the tables, nothing in memory. */
static void reopen(struct bench *bench)
{
    struct vv_table_ref *tables;
    size_t count;
    check(vv_lsm_tables(bench->lsm, NULL, &tables, &count) == 0, "tables");
    close_lsm(bench);
    open_lsm(bench);
    check(vv_lsm_load(bench->lsm, tables, count) == 0, "load");
    vv_table_refs_free(tables, count);
}

static void bench_main(void *arg)
{
    struct bench *bench = arg;
    static const uint8_t volume_id[16] = {1};
    vv_waitq_init(&bench->changed);
    check(vv_keyring_new(volume_id, &bench->ring) == 0, "keyring");
    check(vv_store_dir_open(bench->path, true, &bench->dir) == 0, "store");
    check(vv_store_count_new(bench->dir, &bench->store) == 0, "store");
    vv_budget_init(&bench->memory, NULL, bench->budget_bytes);
    vv_budget_init(&bench->mem_budget, &bench->memory, bench->budget_bytes);
    vv_budget_init(&bench->cache_budget, &bench->memory, bench->budget_bytes);
    bench->settings = (struct vv_seal_settings){VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0};
    bench->memtable_bytes = bench->budget_bytes / 8;
    open_lsm(bench);
    bench_memtable(bench);
    close_lsm(bench);
    open_lsm(bench);
    load(bench);
    print_amplification(bench);
    reopen(bench);
    read_cold(bench, 1);
    reopen(bench);
    read_cold(bench, READERS);
    read_warm(bench);
    scan(bench);
    close_lsm(bench);
    vv_store_close(bench->store);
    vv_keyring_free(bench->ring);
}

static int remove_entry(const char *path, const struct stat *stat, int flag, struct FTW *ftw)
{
    (void)stat;
    (void)flag;
    (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    struct bench bench = {
        .keys = argc > 1 ? strtoull(argv[1], NULL, 10) : 20000000,
        .budget_bytes = (argc > 2 ? strtoull(argv[2], NULL, 10) : 256) << 20,
        .path = argc > 3 ? argv[3] : "/tmp/bench_lsm",
    };
    nftw(bench.path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    mkdir(bench.path, 0700);
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct vv_rt_options options = {.spin_ns = VV_RT_SPIN_DEFAULT_NS};
    check(vv_rt_run(&options, bench_main, &bench) == 0, "runtime");
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("peak memory: %.0f MiB of %llu MiB\n", (double)usage.ru_maxrss / 1024,
           (unsigned long long)(bench.budget_bytes >> 20));
    nftw(bench.path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    check((uint64_t)usage.ru_maxrss << 10 < bench.budget_bytes, "staying within the budget");
    return 0;
}
