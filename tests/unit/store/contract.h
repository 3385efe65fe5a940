/* What every store must do (store.h), as checks that run against any of them; and how the tests of
 * this folder run code in the real runtime and in the simulated one. */
#ifndef TEST_STORE_CONTRACT_H
#define TEST_STORE_CONTRACT_H

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "store/store.h"
#include "tap.h"

/* Run fn(arg) as a fiber of the real runtime. */
static inline void run_real(void (*fn)(void *), void *arg)
{
    struct vv_rt_options options = {.workers = 2, .spin_ns = VV_RT_SPIN_DEFAULT_NS};
    tap_is_int(vv_rt_run(&options, fn, arg), 0, "the runtime runs and ends");
}

struct disk_run {
    void (*fn)(void *);
    void *arg;
};

static inline void disk_run_main(void *arg)
{
    const struct disk_run *run = arg;
    int process = vv_sim_process_start(vv_sim_disk_new(0), run->fn, run->arg);
    if (process > 0)
        vv_sim_process_wait(process);
    else
        tap_ok(false, "a process starts");
}

static inline struct vv_sim_options sim_options(uint64_t seed)
{
    return (struct vv_sim_options){.seed = seed,
                                   .latency_min_ns = 1000,
                                   .latency_max_ns = 100000,
                                   .reorder_permille = 200,
                                   .is_reordering_dirs = seed % 2 == 0};
}

/* Run fn(arg) as the first process of a simulated world. */
static inline void run_sim(uint64_t seed, void (*fn)(void *), void *arg)
{
    struct vv_sim_options options = sim_options(seed);
    int err = vv_sim_run(&options, fn, arg);
    if (err < 0)
        tap_is_int(err, 0, "seed %llu: the world ends well", (unsigned long long)seed);
}

/* As run_sim, in a process that has a disk. */
static inline void run_sim_disk(uint64_t seed, void (*fn)(void *), void *arg)
{
    struct disk_run run = {fn, arg};
    run_sim(seed, disk_run_main, &run);
}

static inline int remove_visited(const char *path, const struct stat *stat, int type,
                                 struct FTW *ftw)
{
    return remove(path);
}

static inline void remove_tree(const char *path)
{
    (void)nftw(path, remove_visited, 16, FTW_DEPTH | FTW_PHYS);
}

/* A new directory below $TMPDIR, or the working directory: /tmp may be in memory, where syncing
 * costs nothing. out[PATH_MAX]. */
static inline void make_tmp_dir(char *out)
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(out, 4096, "%s/varve-test-XXXXXX", base ? base : ".");
    if (!mkdtemp(out))
        tap_ok(false, "a temporary directory can be made");
}

static inline int put_text(struct vv_store *store, const char *name, const char *text)
{
    struct iovec iov = {(void *)text, strlen(text)};
    return vv_store_put(store, name, &iov, 1);
}

/* Does the object hold exactly this text? */
static inline bool holds_text(struct vv_store *store, const char *name, const char *text)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    if (vv_store_get_all(store, name, 1 << 20, &bytes, &len) < 0)
        return false;
    bool is_equal = len == strlen(text) && memcmp(bytes, text, len) == 0;
    vv_free(bytes);
    return is_equal;
}

/* The names of one list call, joined by spaces; or the error's number. */
static inline const char *list_text(struct vv_store *store, const char *prefix, const char *after,
                                    size_t max)
{
    static char text[16384];
    static struct vv_store_entry entries[VV_STORE_LIST_MAX];
    size_t len = 0;
    ssize_t count = vv_store_list(store, prefix, after, entries, max);
    if (count < 0)
        return vv_err_name((int)count);
    text[0] = 0;
    for (ssize_t i = 0; i < count && len < sizeof(text); i++)
        len +=
            (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i ? " " : "", entries[i].name);
    return text;
}

static inline void check_names(struct vv_store *store)
{
    static const char *const wrong[] = {"",      "/a",      "a/",  "a//b",        "a/../b",
                                        "..",    "a..b",    ".",   "./a",         "a/.",
                                        "a/./b", "A",       "a_b", "a b",         "tmp",
                                        "tmp/a", "journal", "a\n", "journal/x/y", "\xc3\xa4"};
    char name[VV_STORE_NAME_MAX + 2];
    uint64_t size;
    uint8_t byte;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        bool is_refused = put_text(store, wrong[i], "x") == -EINVAL &&
                          vv_store_get(store, wrong[i], &byte, 1, 0) == -EINVAL &&
                          vv_store_size(store, wrong[i], &size) == -EINVAL &&
                          vv_store_remove(store, wrong[i]) == -EINVAL &&
                          vv_store_sync(store, wrong[i]) == -EINVAL;
        tap_ok(is_refused, "wrong name %zu is refused", i);
    }
    memset(name, 'x', sizeof(name));
    name[VV_STORE_NAME_MAX + 1] = 0;
    tap_is_int(put_text(store, name, "x"), -EINVAL, "a name that is too long is refused");
    name[VV_STORE_NAME_MAX] = 0;
    tap_is_int(put_text(store, name, "x"), 0, "the longest name is not");
    tap_ok(holds_text(store, name, "x"), "and is found again");
    tap_is_int(vv_store_remove(store, name), 0, "and removed");
    tap_is_int(put_text(store, "tmpx/journal/tmp", "x"), 0, "reserved names are fine further down");
    tap_is_int(vv_store_remove(store, "tmpx/journal/tmp"), 0, "and removed");
}

static inline void check_objects(struct vv_store *store)
{
    char buf[32];
    uint64_t size = 99;
    struct iovec parts[4] = {{(void *)"one ", 4}, {NULL, 0}, {(void *)"two ", 4}, {(void *)"3", 1}};
    tap_is_int(vv_store_get(store, "obj/b", buf, 1, 0), -ENOENT, "an absent object: get");
    tap_is_int(vv_store_size(store, "obj/b", &size), -ENOENT, "an absent object: size");
    tap_is_int(size, 99, "and the output is untouched");
    /* A store whose puts are durable anyway does not look. */
    tap_is_int(vv_store_sync(store, "obj/b"), store->ops->sync ? -ENOENT : 0,
               "an absent object: sync");
    tap_is_int(vv_store_remove(store, "obj/b"), 0, "an absent object: remove");
    tap_is_int(vv_store_put(store, "obj/b", parts, 4), 0, "put of several buffers");
    tap_ok(holds_text(store, "obj/b", "one two 3"), "all of them are there, in order");
    tap_is_int(put_text(store, "obj/b", "other"), -EEXIST, "a second put is refused");
    tap_ok(holds_text(store, "obj/b", "one two 3"), "and changes nothing");
    tap_is_int(vv_store_size(store, "obj/b", &size), 0, "size");
    tap_is_int((int64_t)size, 9, "is right");
    tap_is_int(vv_store_get(store, "obj/b", buf, 3, 4), 3, "a range");
    tap_is_bytes(buf, "two", 3, "is right");
    tap_is_int(vv_store_get(store, "obj/b", buf, 30, 8), 1, "a range past the end is short");
    tap_is_int(vv_store_get(store, "obj/b", buf, 30, 9), 0, "at the end there is nothing");
    tap_is_int(vv_store_get(store, "obj/b", buf, 30, 1 << 20), 0, "nor far behind it");
    tap_is_int(vv_store_sync(store, "obj/b"), 0, "sync");
    tap_is_int(vv_store_remove(store, "obj/b"), 0, "remove");
    tap_is_int(vv_store_get(store, "obj/b", buf, 1, 0), -ENOENT, "then it is gone");
    tap_is_str(list_text(store, "obj/", "", 10), "", "and not listed");
    tap_is_int(put_text(store, "obj/b", ""), 0, "an object may be empty, and its name used again");
    tap_is_int(vv_store_size(store, "obj/b", &size), 0, "it has a size");
    tap_is_int((int64_t)size, 0, "of nothing");
    tap_is_int(vv_store_get(store, "obj/b", buf, 1, 0), 0, "and nothing to read");
    tap_is_int(vv_store_remove(store, "obj/b"), 0, "remove");
}

static inline void check_lists(struct vv_store *store)
{
    static const char *const names[] = {"b/c/d", "b.x", "b-x", "b0",  "b/c",  "a",    "b/c.d/e",
                                        "b/cc",  "c/1", "c/2", "c/3", "c/10", "b/-/x"};
    const size_t count = sizeof(names) / sizeof(names[0]);
    for (size_t i = 0; i < count; i++) {
        /* "b/c" would have the name of a directory. */
        if (strcmp(names[i], "b/c") != 0)
            tap_is_int(put_text(store, names[i], names[i]), 0, "put %s", names[i]);
    }
    tap_is_str(list_text(store, "", "", 100),
               "a b-x b.x b/-/x b/c.d/e b/c/d b/cc b0 c/1 c/10 c/2 c/3", "all, in byte order");
    tap_is_str(list_text(store, "c/", "", 100), "c/1 c/10 c/2 c/3", "by prefix");
    tap_is_str(list_text(store, "c/1", "", 100), "c/1 c/10", "a prefix need not end at a slash");
    tap_is_str(list_text(store, "b/c", "", 100), "b/c.d/e b/c/d b/cc", "nor hold one object only");
    tap_is_str(list_text(store, "b", "b.x", 100), "b/-/x b/c.d/e b/c/d b/cc b0", "after");
    tap_is_str(list_text(store, "b", "b/c.d/zzz", 100), "b/c/d b/cc b0", "after an absent name");
    tap_is_str(list_text(store, "b/", "b/c/d", 100), "b/cc", "after a name further down");
    tap_is_str(list_text(store, "c/", "b", 100), "c/1 c/10 c/2 c/3", "after a name before all");
    tap_is_str(list_text(store, "b/", "c", 100), "", "after a name behind all");
    tap_is_str(list_text(store, "", "", 3), "a b-x b.x", "no more than asked for");
    tap_is_str(list_text(store, "", "b.x", 3), "b/-/x b/c.d/e b/c/d", "and the next");
    tap_is_str(list_text(store, "d", "", 100), "", "nothing");
    tap_is_str(list_text(store, "a/b/c", "", 100), "", "nothing below an object");
    tap_is_str(list_text(store, "", "", 0), "EINVAL", "max must not be 0");
    tap_is_str(list_text(store, "", "", VV_STORE_LIST_MAX + 1), "EINVAL", "nor too large");
    tap_is_str(list_text(store, "/", "", 1), "EINVAL", "a prefix must be the beginning of a name");
    for (size_t i = 0; i < count; i++)
        (void)!vv_store_remove(store, names[i]);
    tap_is_str(list_text(store, "", "", 100), "", "all removed");
}

/* ---- races ---- */

#define RACERS 8

struct race {
    struct vv_store *store;
    struct vv_waitq finished;
    int running;
    int winners;
    int losers;
    int winner;
};

struct racer {
    struct race *race;
    int number;
};

static inline void racer_main(void *arg)
{
    struct racer *racer = arg;
    struct race *race = racer->race;
    char text[2] = {(char)('a' + racer->number), 0};
    int err = put_text(race->store, "race/x", text);
    if (err == 0)
        race->winner = racer->number;
    race->winners += err == 0;
    race->losers += err == -EEXIST;
    race->running--;
    vv_waitq_wake_all(&race->finished);
}

/* Of several puts of one name at the same time, one succeeds. */
static inline bool race_is_fair(struct vv_store *store)
{
    struct race race = {.store = store};
    struct racer racers[RACERS];
    vv_waitq_init(&race.finished);
    for (int i = 0; i < RACERS; i++) {
        racers[i] = (struct racer){&race, i};
        race.running += vv_fiber_start(racer_main, &racers[i], "racer") == 0;
    }
    while (race.running > 0)
        (void)vv_waitq_wait(&race.finished, VV_NEVER);
    char text[2] = {(char)('a' + race.winner), 0};
    bool is_fair = race.winners == 1 && race.losers == RACERS - 1;
    is_fair &= holds_text(store, "race/x", text);
    is_fair &= vv_store_remove(store, "race/x") == 0;
    return is_fair;
}

static inline void check_contract(struct vv_store *store)
{
    tap_note("the contract, %s", store->ops->type);
    check_names(store);
    check_objects(store);
    check_lists(store);
    tap_ok(race_is_fair(store), "of several puts at once, one succeeds");
}

#endif
