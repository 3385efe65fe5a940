#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/plant.h"
#include "log/log_impl.h"

#define MANIFEST_PREFIX "manifest/"
#define LIST_ALL_ENTRIES VV_STORE_LIST_MAX /* a page when all manifests are listed, ... */
#define LIST_ABOVE_ENTRIES 4               /* ... and when there should be none */
#define PAUSE_DOUBLINGS_MAX 20

struct vv_log_requests vv_log_requests_of(const struct vv_log_options *options)
{
    return (struct vv_log_requests){
        .store = options->store,
        .pause_min_ns = options->retry_min_ns ? options->retry_min_ns : VV_LOG_RETRY_MIN_NS,
        .pause_max_ns = options->retry_max_ns ? options->retry_max_ns : VV_LOG_RETRY_MAX_NS,
        .tries_max = VV_LOG_TRIES_MAX,
    };
}

static bool is_passing(int err)
{
    return err == -VV_ERR_UNKNOWN || err == -EIO || err == -EAGAIN || err == -ETIMEDOUT;
}

/* Growing pauses with jitter: between half of it and all of it. */
static uint64_t pause_ns(const struct vv_log_requests *requests, unsigned tries)
{
    unsigned doublings = tries < PAUSE_DOUBLINGS_MAX ? tries : PAUSE_DOUBLINGS_MAX;
    uint64_t full = requests->pause_min_ns << doublings;
    if (full > requests->pause_max_ns)
        full = requests->pause_max_ns;
    return full - vv_rt_random_u64() % (full / 2 + 1);
}

/* After a try failed with `err`: pause and return 0 to go on, or return why not. Suspends. */
static int pause_or_give_up(const struct vv_log_requests *requests, unsigned *tries, int err)
{
    struct vv_log *log = requests->log;
    if (!log && (!is_passing(err) || *tries + 1 >= requests->tries_max))
        return err;
    uint64_t pause = pause_ns(requests, *tries);
    (*tries)++;
    if (!log) {
        vv_rt_sleep_ns(pause);
        return 0;
    }
    vv_log_tell_store_state(log, err);
    TRY(vv_log_ended(log));
    vv_waitq_wait(&log->ended, vv_rt_now_ns() + pause);
    return vv_log_ended(log);
}

/* Rule 1: the name is taken; look by whom. 0: by us. */
static int resolve(struct vv_store *store, const char *name, const uint8_t attempt_id[16],
                   struct vv_log_found *found)
{
    uint8_t bytes[VV_OBJECT_HEADER_LEN];
    ssize_t len = vv_store_get(store, name, bytes, sizeof(bytes), 0);
    if (len < 0 && len != -ENOENT)
        return (int)len;
    if (vv_planted(VV_PLANT_FOREIGN_IS_OURS))
        return 0;
    if (len < 0) {
        found->err = -ENOENT; /* absent = not ours */
        return -VV_ERR_NOT_OURS;
    }
    found->err = vv_object_header_decode(bytes, (size_t)len, &found->header);
    if (found->err)
        return -VV_ERR_NOT_OURS;
    bool is_ours = memcmp(found->header.attempt_id, attempt_id, 16) == 0;
    return is_ours ? 0 : -VV_ERR_NOT_OURS;
}

int vv_log_request_put(const struct vv_log_requests *requests, const char *name,
                       const uint8_t attempt_id[16], const struct iovec *iov, int count,
                       struct vv_log_found *out_found)
{
    struct vv_log_found found = {0};
    unsigned tries = 0;
    for (;;) {
        /* Rule 1: a time-out leaves the outcome unknown, and only the same bytes may be sent again.
         */
        int err = vv_store_put(requests->store, name, iov, count);
        if (err == -EEXIST)
            err = resolve(requests->store, name, attempt_id, &found);
        if (vv_planted(VV_PLANT_ACK_UNCONFIRMED) && err == -VV_ERR_UNKNOWN)
            err = 0;
        if (err == 0 || err == -VV_ERR_NOT_OURS) {
            if (requests->log)
                vv_log_tell_store_state(requests->log, 0);
            if (err && out_found)
                *out_found = found;
            return err;
        }
        TRY(pause_or_give_up(requests, &tries, err));
    }
}

/* -ENOENT is an answer, not a failure. */
#define IS_ANSWER(result) ((result) >= 0 || (result) == -ENOENT)

ssize_t vv_log_request_get(const struct vv_log_requests *requests, const char *name, void *buf,
                           size_t len, uint64_t offset)
{
    unsigned tries = 0;
    for (;;) {
        ssize_t got = vv_store_get(requests->store, name, buf, len, offset);
        if (IS_ANSWER(got))
            return got;
        TRY(pause_or_give_up(requests, &tries, (int)got));
    }
}

int vv_log_request_get_all(const struct vv_log_requests *requests, const char *name, size_t max,
                           uint8_t **out_bytes, size_t *out_len)
{
    unsigned tries = 0;
    for (;;) {
        int err = vv_store_get_all(requests->store, name, max, out_bytes, out_len);
        if (IS_ANSWER(err))
            return err;
        TRY(pause_or_give_up(requests, &tries, err));
    }
}

int vv_log_request_size(const struct vv_log_requests *requests, const char *name,
                        uint64_t *out_size)
{
    unsigned tries = 0;
    for (;;) {
        int err = vv_store_size(requests->store, name, out_size);
        if (IS_ANSWER(err))
            return err;
        TRY(pause_or_give_up(requests, &tries, err));
    }
}

ssize_t vv_log_request_list(const struct vv_log_requests *requests, const char *prefix,
                            const char *after, struct vv_store_entry *out_entries, size_t max)
{
    unsigned tries = 0;
    for (;;) {
        ssize_t count = vv_store_list(requests->store, prefix, after, out_entries, max);
        if (count >= 0)
            return count;
        TRY(pause_or_give_up(requests, &tries, (int)count));
    }
}

int vv_log_request_remove(const struct vv_log_requests *requests, const char *name)
{
    unsigned tries = 0;
    for (;;) {
        int err = vv_store_remove(requests->store, name);
        if (err == 0)
            return 0;
        TRY(pause_or_give_up(requests, &tries, err));
    }
}

int vv_log_request_sync(const struct vv_log_requests *requests, const char *name)
{
    unsigned tries = 0;
    for (;;) {
        int err = vv_store_sync(requests->store, name);
        if (IS_ANSWER(err))
            return err;
        TRY(pause_or_give_up(requests, &tries, err));
    }
}

/* *newest = the greatest number in what is left of the list after `after`, which is changed. */
static int find_newest(const struct vv_log_requests *requests, char *after,
                       struct vv_store_entry *page, size_t page_len, uint64_t *newest)
{
    ssize_t count;
    do {
        count = vv_log_request_list(requests, MANIFEST_PREFIX, after, page, page_len);
        TRY(count);
        for (ssize_t i = 0; i < count; i++) {
            uint64_t found;
            if (vv_manifest_name_parse(page[i].name, &found) == 0 && found > *newest)
                *newest = found;
        }
        if (count > 0)
            memcpy(after, page[count - 1].name, sizeof(page->name));
    } while ((size_t)count == page_len);
    return 0;
}

int vv_log_newest_above(const struct vv_log_requests *requests, uint64_t number,
                        uint64_t *out_newest)
{
    char after[VV_STORE_NAME_MAX + 1];
    vv_manifest_name(number, after, sizeof(after));
    uint64_t newest = 0;
    if (number > 0) {
        /* No memory is needed: a manifest that was put must be confirmed, come what may. */
        struct vv_store_entry few[LIST_ABOVE_ENTRIES];
        TRY(find_newest(requests, after, few, LIST_ABOVE_ENTRIES, &newest));
    } else {
        CLEANUP(vv_free_ptr)
        struct vv_store_entry *page = vv_calloc(LIST_ALL_ENTRIES, sizeof(*page));
        if (!page)
            return -ENOMEM;
        TRY(find_newest(requests, after, page, LIST_ALL_ENTRIES, &newest));
    }
    *out_newest = newest;
    return 0;
}

/* ---- manifests ---- */

struct decode_job {
    const struct vv_keyring *ring;
    uint64_t number;
    const uint8_t *bytes;
    size_t len;
    struct vv_manifest manifest;
    int err;
};

static void decode_manifest(void *arg)
{
    struct decode_job *job = arg;
    job->err = vv_manifest_decode(job->ring, job->number, job->bytes, job->len, &job->manifest);
}

int vv_log_fetch_manifest_bytes(const struct vv_log_requests *requests, uint64_t number,
                                uint8_t **out_bytes, size_t *out_len)
{
    char name[VV_STORE_NAME_MAX + 1];
    vv_manifest_name(number, name, sizeof(name));
    size_t max = VV_OBJECT_HEADER_LEN + vv_frame_bound(VV_MANIFEST_MAX);
    return vv_log_request_get_all(requests, name, max, out_bytes, out_len);
}

int vv_log_open_manifest(const struct vv_keyring *ring, uint64_t number, const uint8_t *bytes,
                         size_t len, struct vv_manifest *out_manifest)
{
    struct decode_job job = {.ring = ring, .number = number, .bytes = bytes, .len = len};
    if (job.len > VV_LOG_OFFLOAD_BYTES)
        vv_rt_offload(decode_manifest, &job);
    else
        decode_manifest(&job);
    TRY(job.err);
    *out_manifest = job.manifest;
    return 0;
}

int vv_log_fetch_manifest(const struct vv_log_requests *requests, const struct vv_keyring *ring,
                          uint64_t number, struct vv_manifest *out_manifest)
{
    CLEANUP(vv_free_ptr) uint8_t *bytes = NULL;
    size_t len;
    TRY(vv_log_fetch_manifest_bytes(requests, number, &bytes, &len));
    return vv_log_open_manifest(ring, number, bytes, len, out_manifest);
}

struct encode_job {
    const struct vv_keyring *ring;
    const struct vv_manifest *manifest;
    uint8_t *bytes;
    size_t len;
    uint8_t attempt_id[16];
    int err;
};

static void encode_manifest(void *arg)
{
    struct encode_job *job = arg;
    job->err =
        vv_manifest_encode(job->ring, job->manifest, &job->bytes, &job->len, job->attempt_id);
}

int vv_log_put_manifest(const struct vv_log_requests *requests, const struct vv_keyring *ring,
                        const struct vv_manifest *manifest)
{
    struct encode_job job = {.ring = ring, .manifest = manifest};
    if (manifest->table_count * VV_TABLE_KEY_MAX > VV_LOG_OFFLOAD_BYTES)
        vv_rt_offload(encode_manifest, &job);
    else
        encode_manifest(&job);
    TRY(job.err);
    char name[VV_STORE_NAME_MAX + 1];
    vv_manifest_name(manifest->number, name, sizeof(name));
    struct iovec iov = {job.bytes, job.len};
    int err = vv_log_request_put(requests, name, job.attempt_id, &iov, 1, NULL);
    vv_free(job.bytes);
    return err;
}
