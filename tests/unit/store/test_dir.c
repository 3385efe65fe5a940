#include "store/store.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "contract.h"

static char root[4200]; /* of the store under test, in the real runtime */
static char work[4096];

static int count_visited(void *arg, const char *name, bool is_dir)
{
    ++*(int *)arg;
    return 0;
}

static int count_names(const char *dir)
{
    char path[PATH_MAX + 256];
    int count = 0;
    (void)snprintf(path, sizeof(path), "%s/%s", root, dir);
    int err = vv_path_list(path, count_visited, &count);
    return err < 0 ? err : count;
}

/* Make a file in the store's directory behind its back. */
static void make_file(const char *name, const char *text)
{
    char path[PATH_MAX + 256];
    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0)
        tap_ok(false, "%s can be written", path);
    if (file)
        (void)fclose(file);
}

static bool is_file(const char *name)
{
    char path[PATH_MAX + 256];
    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    return access(path, F_OK) == 0;
}

static void make_dir(const char *name)
{
    char path[PATH_MAX + 256];
    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    if (mkdir(path, 0700) < 0)
        tap_ok(false, "%s can be made", path);
}

static void contract_main(void *arg)
{
    struct vv_store *store;
    tap_is_int(vv_store_dir_open(arg, true, &store), 0, "create");
    check_contract(store);
    vv_store_close(store);
}

static void open_main(void *arg)
{
    struct vv_store *store = NULL;
    char path[PATH_MAX + 256];
    char *huge = malloc(5000);
    memset(huge, 'x', 5000);
    huge[4999] = 0;
    tap_is_int(vv_store_dir_open(root, false, &store), -ENOENT, "open what is not there");
    tap_is_int(vv_store_dir_open("", false, &store), -EINVAL, "open nothing");
    tap_is_int(vv_store_dir_open(huge, true, &store), -ENAMETOOLONG, "a path that is too long");
    (void)snprintf(path, sizeof(path), "%s/a/b", root);
    tap_is_int(vv_store_dir_open(path, true, &store), -ENOENT, "the parent must be there");
    tap_ok(!store, "the output is untouched");
    (void)snprintf(path, sizeof(path), "%s//", root);
    tap_is_int(vv_store_dir_open(path, true, &store), 0, "create, slashes at the end");
    tap_is_int(put_text(store, "a/b/c", "abc"), 0, "put");
    vv_store_close(store);
    tap_is_int(vv_store_dir_open(root, true, &store), 0, "creating what is there opens it");
    tap_ok(holds_text(store, "a/b/c", "abc"), "with its content");
    vv_store_close(store);
    (void)snprintf(path, sizeof(path), "%s/a/b/c", root);
    tap_is_int(vv_store_dir_open(path, false, &store), -ENOTDIR, "a file is no store");
    tap_is_int(vv_store_dir_open(path, true, &store), -ENOTDIR, "nor made one");
    free(huge);
}

static void leftovers_main(void *arg)
{
    struct vv_store *store;
    uint64_t free_bytes = 0;
    uint64_t total_bytes = 0;
    make_file("tmp/0123456789abcdef-0", "half an obj");
    make_file("tmp/rubbish", "");
    make_dir("journal");
    make_file("journal/1", "not ours");
    make_file("Not-A-Name", "");
    make_file("a/under_score", "");
    make_file("a/~", "");
    tap_is_int(vv_store_dir_open(root, false, &store), 0, "open");
    tap_is_int(count_names("tmp"), 2, "opening alone removes nothing");
    tap_is_str(list_text(store, "", "", 10), "a/b/c", "only objects are listed");
    tap_is_int(put_text(store, "a/b/d", "d"), 0, "the first put");
    tap_ok(!is_file("tmp/0123456789abcdef-0") && !is_file("tmp/rubbish"), "removes leftovers");
    tap_is_int(count_names("journal"), 1, "but not the journal");
    tap_is_int(put_text(store, "a/b/d", "d"), -EEXIST, "a put that fails");
    tap_is_int(put_text(store, "a/b", "x"), -EISDIR, "the name of a directory");
    tap_is_int(put_text(store, "a/b/c/d", "x"), -ENOTDIR, "below an object");
    tap_ok(!holds_text(store, "a/b", ""), "a directory is no object");
    tap_is_int(vv_store_remove(store, "a/b"), 0, "and removed is what was not there");
    tap_ok(holds_text(store, "a/b/c", "abc"), "without harm");
    tap_is_int(vv_store_space(store, &free_bytes, &total_bytes), 0, "space");
    tap_ok(free_bytes > 0 && free_bytes <= total_bytes, "is sensible");
    vv_store_close(store);
    tap_is_int(count_names("tmp"), 0, "no temporary name is left after closing");
}

/* An object larger than the pieces in which it is written, in buffers of odd sizes. */
static void large_main(void *arg)
{
    static struct iovec iov[300];
    const size_t len = 5u << 20;
    struct vv_store *store;
    uint8_t *bytes = malloc(len);
    uint8_t *got = NULL;
    size_t got_len = 0;
    size_t at = 0;
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    for (int i = 0; i < 299; i++) {
        iov[i] = (struct iovec){bytes + at, (size_t)i * 97 % 3000};
        at += iov[i].iov_len;
    }
    iov[299] = (struct iovec){bytes + at, len - at};
    tap_is_int(vv_store_dir_open(root, false, &store), 0, "open");
    tap_is_int(vv_store_put(store, "large", iov, 300), 0, "put of 5 MiB in 300 buffers");
    tap_is_int(vv_store_get_all(store, "large", len, &got, &got_len), 0, "get");
    tap_is_int((int64_t)got_len, (int64_t)len, "of the right size");
    if (got_len == len)
        tap_is_bytes(got, bytes, len, "and the right bytes");
    tap_is_int(vv_store_remove(store, "large"), 0, "remove");
    vv_store_close(store);
    vv_free(got);
    free(bytes);
}

/* ---- speed: reported, not judged, except that nothing may be absurd ---- */

static uint64_t put_many(struct vv_store *store, unsigned from, unsigned count)
{
    char name[32];
    char text[4096];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = 0;
    uint64_t start_ns = vv_rt_now_ns();
    for (unsigned i = from; i < from + count; i++) {
        (void)snprintf(name, sizeof(name), "speed/%u", i);
        if (put_text(store, name, text) < 0)
            tap_ok(false, "put %s", name);
    }
    return (vv_rt_now_ns() - start_ns) / count;
}

struct putter {
    struct vv_store *store;
    unsigned from;
    int *running;
    struct vv_waitq *finished;
};

static void putter_main(void *arg)
{
    struct putter *putter = arg;
    (void)put_many(putter->store, putter->from, 8);
    --*putter->running;
    vv_waitq_wake_all(putter->finished);
}

static void speed_main(void *arg)
{
    enum { PUTTERS = 8, GETS = 10000 };
    struct vv_store *store;
    struct putter putters[PUTTERS];
    struct vv_waitq finished;
    char buf[4096];
    int running = 0;
    tap_is_int(vv_store_dir_open(root, false, &store), 0, "open");
    (void)put_many(store, 0, 2);
    tap_note("one put of 4 KiB: %llu us", (unsigned long long)put_many(store, 2, 30) / 1000);
    vv_waitq_init(&finished);
    uint64_t start_ns = vv_rt_now_ns();
    for (unsigned i = 0; i < PUTTERS; i++) {
        putters[i] = (struct putter){store, 100 + 8 * i, &running, &finished};
        running += vv_fiber_start(putter_main, &putters[i], "putter") == 0;
    }
    while (running > 0)
        (void)vv_waitq_wait(&finished, VV_NEVER);
    tap_note("8 at once, each: %llu us",
             (unsigned long long)(vv_rt_now_ns() - start_ns) / (8 * PUTTERS) / 1000);
    start_ns = vv_rt_now_ns();
    bool is_right = true;
    for (int i = 0; i < GETS; i++)
        is_right &= vv_store_get(store, "speed/3", buf, sizeof(buf), 0) == 4095;
    tap_note("one get of 4 KiB: %llu ns", (unsigned long long)(vv_rt_now_ns() - start_ns) / GETS);
    tap_ok(is_right, "gets are right");
    vv_store_close(store);
}

/* ---- failures ---- */

static bool try_all(void)
{
    struct vv_store *store = NULL;
    char buf[8];
    static struct vv_store_entry entries[10];
    uint64_t size;
    int err = vv_store_dir_open(root, true, &store);
    if (err < 0)
        return false;
    err = put_text(store, "n/m/o", "text");
    bool is_whole = err == 0;
    if (err < 0 && err != -ENOMEM && err != -VV_ERR_UNKNOWN && err != -EEXIST && err != -EIO)
        tap_ok(false, "put fails with %s", vv_err_name(err));
    is_whole &= vv_store_get(store, "n/m/o", buf, 8, 0) == 4;
    is_whole &= vv_store_size(store, "n/m/o", &size) == 0;
    is_whole &= vv_store_list(store, "n", "", entries, 10) == 1;
    is_whole &= vv_store_sync(store, "n/m/o") == 0;
    is_whole &= vv_store_remove(store, "n/m/o") == 0;
    vv_store_close(store);
    return is_whole;
}

static void no_memory_main(void *arg)
{
    size_t live = 0;
    int n = 0;
    /* Once without failures: what the runtime keeps for later is not a leak. */
    tap_ok(try_all(), "all is well");
    live = vv_alloc_domain_count(0);
    for (bool is_whole = false; !is_whole && n < 1000; n++) {
        vv_alloc_fail_at(n, false);
        is_whole = try_all();
        vv_alloc_fail_at(-1, false);
        if (!is_whole && count_names("tmp") != 0)
            tap_ok(false, "allocation %d fails: nothing is left in tmp", n);
        struct vv_store *store = NULL;
        if (vv_store_dir_open(root, true, &store) < 0 || vv_store_remove(store, "n/m/o") < 0)
            tap_ok(false, "allocation %d fails: the store is usable", n);
        vv_store_close(store);
    }
    tap_ok(n > 5 && n < 1000, "n-th allocation failing: succeeds at the %dth", n);
    tap_is_int((int64_t)vv_alloc_domain_count(0), (int64_t)live, "and nothing leaks");
}

int main(void)
{
    static char sim_root[] = "/store";
    vv_alloc_track(true);
    make_tmp_dir(work);
    (void)snprintf(root, sizeof(root), "%s/store", work);
    run_real(open_main, NULL);
    run_real(leftovers_main, NULL);
    run_real(large_main, NULL);
    run_real(speed_main, NULL);
    remove_tree(root);
    run_real(contract_main, root);
    remove_tree(root);
    run_real(no_memory_main, NULL);
    remove_tree(work);
    for (uint64_t seed = 0; seed < 3; seed++)
        run_sim_disk(seed, contract_main, sim_root);
    return tap_done();
}
