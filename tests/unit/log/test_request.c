#include "log/log_impl.h"

#include "rig.h"

static const char name[] = "data/00/object";

static struct vv_log_requests requests_of(const struct rig *rig, struct vv_store *store)
{
    struct vv_log_options options = rig_options(rig, store);
    return vv_log_requests_of(&options);
}

/* An object that is only a header. */
static struct vv_object_header header_of(uint8_t attempt, uint8_t bytes[VV_OBJECT_HEADER_LEN])
{
    struct vv_object_header header = {.version = VV_FORMAT_VERSION, .kind = VV_KIND_DATA};
    memset(header.attempt_id, attempt, 16);
    vv_object_header_encode(&header, bytes);
    return header;
}

static int put(const struct vv_log_requests *requests, uint8_t attempt, struct vv_log_found *found)
{
    uint8_t bytes[VV_OBJECT_HEADER_LEN];
    struct vv_object_header header = header_of(attempt, bytes);
    struct iovec iov = {bytes, sizeof(bytes)};
    return vv_log_request_put(requests, name, header.attempt_id, &iov, 1, found);
}

static void test_resolving(void)
{
    struct rig rig = rig_new();
    struct vv_log_requests requests = requests_of(&rig, rig.store);
    struct vv_log_found found = {0};
    tap_is_int(put(&requests, 1, &found), 0, "a put");
    tap_is_int(put(&requests, 1, &found), 0, "the same bytes again are ours");
    tap_is_int(put(&requests, 2, &found), -VV_ERR_NOT_OURS, "other bytes are not");
    tap_ok(found.err == 0 && found.header.attempt_id[0] == 1, "what is there is told");
    tap_is_int(vv_store_remove(rig.store, name), 0, "remove");
    struct iovec iov = rig_text("no header");
    tap_is_int(vv_store_put(rig.store, name, &iov, 1), 0, "something that is no object");
    tap_is_int(put(&requests, 1, &found), -VV_ERR_NOT_OURS, "is not ours");
    tap_ok(found.err == -VV_ERR_FORMAT, "and cannot be read");
    rig_free(&rig);
}

/* A time-out that took effect is ours when the same bytes are sent again; one that did not is put.
 */
static void test_time_outs(void)
{
    struct rig rig = rig_new();
    struct vv_store *faulty = rig_faulty(&rig);
    struct vv_log_requests requests = requests_of(&rig, faulty);
    requests.tries_max = 1000;
    bool is_right = true;
    for (int i = 0; i < 50; i++) {
        *vv_store_fault_plan(faulty) = (struct vv_store_fault_plan){
            .unknown_permille = 800, .late_max_ns = 200 * VV_NS_PER_MS, .fail_permille = 100};
        is_right &= put(&requests, (uint8_t)i, NULL) == 0;
        is_right &= rig_has(&rig, name);
        vv_rt_sleep_ns(VV_NS_PER_S); /* late tries land, and find the name taken */
        is_right &= vv_store_remove(rig.store, name) == 0;
    }
    tap_ok(is_right, "puts that time out are resolved");
    vv_store_close(faulty);
    rig_free(&rig);
}

static void test_giving_up(void)
{
    struct rig rig = rig_new();
    struct vv_store *faulty = rig_faulty(&rig);
    struct vv_store_fault_plan *plan = vv_store_fault_plan(faulty);
    struct vv_log_requests requests = requests_of(&rig, faulty);
    uint8_t byte;
    uint64_t size;
    uint64_t start_ns = vv_rt_now_ns();
    plan->all_fail = EACCES;
    tap_is_int(put(&requests, 1, NULL), -EACCES, "a refusal is passed on");
    tap_ok(vv_rt_now_ns() == start_ns, "at once");
    plan->all_fail = EIO;
    tap_is_int(put(&requests, 1, NULL), -EIO, "a failure is repeated, but not for ever");
    uint64_t min_ns = 0;
    for (unsigned i = 0; i + 1 < VV_LOG_TRIES_MAX; i++)
        min_ns +=
            (VV_NS_PER_MS << i < 50 * VV_NS_PER_MS ? VV_NS_PER_MS << i : 50 * VV_NS_PER_MS) / 2;
    tap_ok(vv_rt_now_ns() - start_ns >= min_ns, "with growing pauses");
    tap_is_int(vv_log_request_get(&requests, name, &byte, 1, 0), -EIO, "get");
    tap_is_int(vv_log_request_size(&requests, name, &size), -EIO, "size");
    tap_is_int(vv_log_request_remove(&requests, name), -EIO, "remove");
    tap_is_int(vv_log_request_sync(&requests, name), -EIO, "sync");
    tap_is_int(vv_log_newest_above(&requests, 0, &size), -EIO, "list");
    plan->all_fail = 0;
    tap_is_int(vv_log_request_get(&requests, name, &byte, 1, 0), -ENOENT, "absence is an answer");
    tap_is_int(vv_log_request_size(&requests, name, &size), -ENOENT, "for each");
    vv_store_close(faulty);
    rig_free(&rig);
}

static void put_name(const struct rig *rig, const char *object)
{
    struct iovec iov = rig_text("x");
    if (vv_store_put(rig->store, object, &iov, 1) < 0)
        tap_ok(false, "puts");
}

static void test_newest(void)
{
    struct rig rig = rig_new();
    struct vv_log_requests requests = requests_of(&rig, rig.store);
    char manifest[VV_STORE_NAME_MAX + 1];
    uint64_t newest = 99;
    tap_ok(vv_log_newest_above(&requests, 0, &newest) == 0 && newest == 0, "none");
    for (uint64_t i = 1; i <= 1100; i++) {
        vv_manifest_name(i * 3, manifest, sizeof(manifest));
        put_name(&rig, manifest);
    }
    put_name(&rig, "manifest/readme");
    tap_ok(vv_log_newest_above(&requests, 0, &newest) == 0 && newest == 3300,
           "the greatest over several pages");
    tap_ok(vv_log_newest_above(&requests, 3270, &newest) == 0 && newest == 3300, "above another");
    tap_ok(vv_log_newest_above(&requests, 3300, &newest) == 0 && newest == 0,
           "other names do not count");
    rig_free(&rig);
}

static void test_main(void *arg)
{
    (void)arg;
    test_resolving();
    test_time_outs();
    test_giving_up();
    test_newest();
}

int main(void)
{
    rig_main();
    run_world(1, test_main, NULL);
    return tap_done();
}
