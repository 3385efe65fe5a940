#include "store/store.h"

#include "contract.h"

/* A store whose answers to put, and to everything else, are given. */
struct script {
    struct vv_store store;
    const int *answers; /* the last one is repeated */
    int count;
    int calls;
    uint64_t call_ns[16];
};

static int answer(struct vv_store *store)
{
    struct script *script = (struct script *)store;
    int i = script->calls++;
    if (i < 16)
        script->call_ns[i] = vv_rt_now_ns();
    return script->answers[i < script->count ? i : script->count - 1];
}

static int script_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    return answer(store);
}

static ssize_t script_get(struct vv_store *store, const char *name, void *buf, size_t len,
                          uint64_t offset)
{
    return answer(store);
}

static int script_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    *out_size = 7;
    return answer(store);
}

static ssize_t script_list(struct vv_store *store, const char *prefix, const char *after,
                           struct vv_store_entry *out_entries, size_t max)
{
    return answer(store);
}

static int script_name(struct vv_store *store, const char *name)
{
    return answer(store);
}

static int script_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total)
{
    return answer(store);
}

static void script_close(struct vv_store *store)
{
}

static const struct vv_store_ops script_ops = {.type = "script",
                                               .put = script_put,
                                               .get = script_get,
                                               .size = script_size,
                                               .list = script_list,
                                               .remove = script_name,
                                               .sync = script_name,
                                               .space = script_space,
                                               .close = script_close};

#define TRIES 4

static void check_put(const int *answers, int count, int want, int want_calls, const char *what)
{
    struct script script = {.store.ops = &script_ops, .answers = answers, .count = count};
    struct vv_store *store;
    if (vv_store_retry_new(&script.store, TRIES, 1000, 3000, &store) < 0)
        return;
    tap_is_int(put_text(store, "a", "x"), want, "put: %s", what);
    tap_is_int(script.calls, want_calls, "in so many calls");
    vv_store_close(store);
}

#define CHECK_PUT(want, want_calls, what, ...)                                                     \
    check_put((const int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int), want,        \
              want_calls, what)

static void puts_main(void *arg)
{
    const int unknown = -VV_ERR_UNKNOWN;
    CHECK_PUT(0, 1, "at once", 0);
    CHECK_PUT(0, 3, "at the third try", -EIO, -EAGAIN, 0);
    CHECK_PUT(0, 2, "unknown, then known", unknown, 0);
    CHECK_PUT(-EEXIST, 1, "taken", -EEXIST);
    CHECK_PUT(-EEXIST, 2, "unknown, then taken", unknown, -EEXIST);
    CHECK_PUT(-ENOSPC, 1, "what does not pass", -ENOSPC);
    CHECK_PUT(-ENOSPC, 2, "what does not pass, later", -EIO, -ENOSPC);
    CHECK_PUT(unknown, 2, "unknown stays so when a later try fails", unknown, -ENOSPC);
    CHECK_PUT(unknown, TRIES, "and when all later tries fail", unknown, -EIO);
    CHECK_PUT(-EIO, TRIES, "at most so many tries", -EIO);
    CHECK_PUT(unknown, TRIES, "always unknown", unknown);
    CHECK_PUT(-ETIMEDOUT, TRIES, "no connection", -ETIMEDOUT);
}

/* Every other request, failing twice in passing. */
static void others_main(void *arg)
{
    static const int answers[] = {-EIO, -ETIMEDOUT, 0};
    struct script script = {.store.ops = &script_ops, .answers = answers, .count = 3};
    struct vv_store *store;
    struct vv_store_entry entry;
    uint64_t size;
    char byte;
    if (vv_store_retry_new(&script.store, TRIES, 1000, 3000, &store) < 0)
        return;
    tap_is_int(vv_store_get(store, "a", &byte, 1, 0), 0, "get");
    tap_is_int(script.calls, 3, "at the third try");
    script.calls = 0;
    tap_is_int(vv_store_size(store, "a", &size), 0, "size");
    tap_is_int(script.calls, 3, "at the third try");
    script.calls = 0;
    tap_is_int(vv_store_list(store, "a", "", &entry, 1), 0, "list");
    tap_is_int(script.calls, 3, "at the third try");
    script.calls = 0;
    tap_is_int(vv_store_remove(store, "a"), 0, "remove");
    tap_is_int(script.calls, 3, "at the third try");
    script.calls = 0;
    tap_is_int(vv_store_sync(store, "a"), 0, "sync");
    tap_is_int(script.calls, 3, "at the third try");
    script.calls = 0;
    tap_is_int(vv_store_space(store, &size, &size), 0, "space");
    tap_is_int(script.calls, 3, "at the third try");
    vv_store_close(store);
}

static void pauses_main(void *arg)
{
    static const int answers[] = {-EIO};
    struct script script = {.store.ops = &script_ops, .answers = answers, .count = 1};
    struct vv_store *store;
    bool is_right = true;
    if (vv_store_retry_new(&script.store, 8, 1000, 5000, &store) < 0)
        return;
    tap_is_int(put_text(store, "a", "x"), -EIO, "put");
    for (int i = 1; i < 8; i++) {
        uint64_t pause_ns = script.call_ns[i] - script.call_ns[i - 1];
        uint64_t full_ns = 1000ull << (i - 1) < 5000 ? 1000ull << (i - 1) : 5000;
        if (pause_ns < full_ns / 2 || pause_ns > full_ns + 10)
            is_right = false;
    }
    tap_ok(is_right, "pauses grow to their maximum, by half at random");
    vv_store_close(store);
}

/* Over a store that fails often, everything works. */
static void flaky_main(void *arg)
{
    struct vv_store_backend *backend;
    struct vv_store *store;
    struct vv_store *fault;
    if (vv_store_backend_new(&backend) < 0 || vv_store_mem_open(backend, &store) < 0 ||
        vv_store_fault_new(store, &fault) < 0 ||
        vv_store_retry_new(fault, 1000, 1000, 1000000, &store) < 0)
        return;
    vv_store_fault_plan(fault)->fail_permille = 300;
    check_contract(store);
    vv_store_close(store);
    vv_store_backend_free(backend);
}

int main(void)
{
    vv_alloc_track(true);
    run_sim(1, puts_main, NULL);
    run_sim(2, others_main, NULL);
    run_sim(3, pauses_main, NULL);
    run_sim(4, flaky_main, NULL);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
