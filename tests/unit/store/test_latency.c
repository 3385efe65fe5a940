#include "store/store.h"

#include "contract.h"

static struct vv_store *open_slow(struct vv_store_backend *backend, uint64_t ns,
                                  uint64_t bytes_per_s)
{
    struct vv_store *inner;
    struct vv_store *store = NULL;
    if (vv_store_mem_open(backend, &inner) < 0 ||
        vv_store_latency_new(inner, ns, bytes_per_s, &store) < 0)
        tap_ok(false, "a slow store can be opened");
    return store;
}

static void check_took(uint64_t start_ns, uint64_t want_ns, const char *what)
{
    uint64_t took_ns = vv_rt_now_ns() - start_ns;
    bool is_right = took_ns >= want_ns && took_ns < want_ns + 1000;
    tap_ok(is_right, "%s takes %llu ns (%llu)", what, (unsigned long long)want_ns,
           (unsigned long long)took_ns);
}

struct getter {
    struct vv_store *store;
    int *running;
    struct vv_waitq *finished;
};

static void getter_main(void *arg)
{
    struct getter *getter = arg;
    char buf[1000];
    if (vv_store_get(getter->store, "a", buf, sizeof(buf), 0) != 1000)
        tap_ok(false, "a get among others");
    --*getter->running;
    vv_waitq_wake_all(getter->finished);
}

static void latency_main(void *arg)
{
    static char text[1001];
    struct vv_store_backend *backend;
    struct vv_store_entry entry;
    struct vv_waitq finished;
    uint64_t size;
    int running = 0;
    memset(text, 'x', 1000);
    if (vv_store_backend_new(&backend) < 0)
        return;
    struct vv_store *store = open_slow(backend, 30 * VV_NS_PER_MS + 1, 1000000);
    uint64_t start_ns = vv_rt_now_ns();
    tap_is_int(put_text(store, "a", text), 0, "put");
    check_took(start_ns, 31 * VV_NS_PER_MS + 1, "a put of 1000 bytes");
    start_ns = vv_rt_now_ns();
    tap_is_int(vv_store_size(store, "a", &size), 0, "size");
    check_took(start_ns, 30 * VV_NS_PER_MS + 1, "a size");
    start_ns = vv_rt_now_ns();
    tap_is_int(vv_store_list(store, "", "", &entry, 1), 1, "list");
    check_took(start_ns, 30 * VV_NS_PER_MS + 1, "a list");
    struct getter getter = {store, &running, &finished};
    vv_waitq_init(&finished);
    start_ns = vv_rt_now_ns();
    for (int i = 0; i < 10; i++)
        running += vv_fiber_start(getter_main, &getter, "getter") == 0;
    while (running > 0)
        (void)vv_waitq_wait(&finished, VV_NEVER);
    check_took(start_ns, 40 * VV_NS_PER_MS + 1, "ten gets at once over one line");
    tap_is_int(vv_store_remove(store, "a"), 0, "remove");
    vv_store_close(store);
    store = open_slow(backend, 0, 0);
    start_ns = vv_rt_now_ns();
    check_contract(store);
    tap_ok(vv_rt_now_ns() - start_ns < VV_NS_PER_MS, "no latency takes no time");
    vv_store_close(store);
    vv_store_backend_free(backend);
}

int main(void)
{
    vv_alloc_track(true);
    run_sim(1, latency_main, NULL);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
