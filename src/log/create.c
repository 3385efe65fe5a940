/* Creating a volume: varve.volume, then keys/<n>, then manifest 1, which decides. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/text.h"
#include "log/log_impl.h"

#define VOLUME_NAME "varve.volume"
#define KEYS_NUMBER_MAX 64      /* objects that creations which stopped half-way may have left */
#define KEYS_LEN_MAX (1u << 20) /* bytes of a keys object */
#define VOLUME_ROUNDS_MAX 16    /* tries to be the one whose varve.volume stands */
#define KEYS_ROUNDS_MAX 8       /* looks for a manifest and keys that go away meanwhile */
#define VOLUME_LEN_MAX 256
#define FIRST_MANIFEST 1

static void keys_name(uint64_t number, char *name, size_t size)
{
    vv_format(name, size, "keys/%llu", (unsigned long long)number);
}

static struct vv_log_requests creating_requests(struct vv_store *store)
{
    struct vv_log_options options = {.store = store};
    return vv_log_requests_of(&options);
}

/* ---- varve.volume ---- */

struct volume_object {
    uint8_t bytes[VOLUME_LEN_MAX];
    size_t len;
    uint8_t attempt_id[16];
};

static int build_volume(const struct vv_keyring *ring, const struct vv_seal_settings *settings,
                        struct volume_object *object)
{
    uint8_t plain[32];
    struct vv_writer writer = vv_writer_of(plain, sizeof(plain));
    struct timespec now = vv_rt_wall();
    vv_writer_svarint(&writer, now.tv_sec);
    vv_writer_varint(&writer, (uint64_t)now.tv_nsec);
    TRY(vv_writer_check(&writer));
    struct vv_object_header header;
    struct vv_sealer *sealer;
    TRY(vv_sealer_new(ring, VV_KIND_VOLUME, VOLUME_NAME, 0, settings, &header, &sealer));
    vv_object_header_encode(&header, object->bytes);
    struct vv_origin origin = {VV_ORIGIN_VOLUME, 0};
    ssize_t len =
        vv_frame_seal(sealer, 0, &origin, plain, writer.len, object->bytes + VV_OBJECT_HEADER_LEN,
                      sizeof(object->bytes) - VV_OBJECT_HEADER_LEN);
    vv_sealer_free(sealer);
    TRY(len);
    object->len = VV_OBJECT_HEADER_LEN + (size_t)len;
    memcpy(object->attempt_id, header.attempt_id, sizeof(object->attempt_id));
    return 0;
}

/* Whether a manifest exists: then there is a volume. */
static int check_no_manifest(const struct vv_log_requests *requests)
{
    uint64_t newest;
    TRY(vv_log_newest_above(requests, 0, &newest));
    return newest ? -VV_ERR_VOLUME_EXISTS : 0;
}

/* Put varve.volume. One that stands there without a manifest was left by a creation that stopped;
 * it holds nothing that anybody needs, and is replaced. */
static int put_volume(const struct vv_log_requests *requests, const struct volume_object *object,
                      bool is_manifest_ours)
{
    for (int round = 0; round < VOLUME_ROUNDS_MAX; round++) {
        struct iovec iov = {(void *)(uintptr_t)object->bytes, object->len};
        int err = vv_log_request_put(requests, VOLUME_NAME, object->attempt_id, &iov, 1, NULL);
        if (err != -VV_ERR_NOT_OURS)
            return err;
        if (!is_manifest_ours)
            TRY(check_no_manifest(requests));
        TRY(vv_log_request_remove(requests, VOLUME_NAME));
    }
    return -VV_ERR_VOLUME_EXISTS;
}

/* ---- keys and the first manifest ---- */

/* Put the keys under the first number that is free or ours. Never removed: a manifest may name it.
 */
static int put_keys(const struct vv_log_requests *requests, const void *keys, size_t keys_len,
                    uint64_t *out_number)
{
    struct vv_object_header header;
    TRY(vv_object_header_decode(keys, keys_len, &header));
    if (header.kind != VV_KIND_KEYS || keys_len > KEYS_LEN_MAX)
        return -EINVAL;
    for (uint64_t number = 1; number <= KEYS_NUMBER_MAX; number++) {
        char name[VV_STORE_NAME_MAX + 1];
        keys_name(number, name, sizeof(name));
        struct iovec iov = {(void *)(uintptr_t)keys, keys_len};
        int err = vv_log_request_put(requests, name, header.attempt_id, &iov, 1, NULL);
        if (err == 0)
            *out_number = number;
        if (err != -VV_ERR_NOT_OURS)
            return err;
    }
    return -VV_ERR_LIMIT;
}

/* After our manifest 1 took effect: was it the first, or did it land late, below the manifests of a
 * volume that somebody else created meanwhile? */
static int check_created(const struct vv_log_requests *requests, const struct vv_keyring *ring)
{
    uint64_t newest;
    TRY(vv_log_newest_above(requests, FIRST_MANIFEST, &newest));
    if (newest == 0)
        return 0;
    struct vv_manifest manifest;
    int err = vv_log_fetch_manifest(requests, ring, newest, &manifest);
    if (err == -VV_ERR_FORMAT || err == -VV_ERR_AUTH || err == -VV_ERR_CHECKSUM ||
        err == -VV_ERR_NO_KEY || err == -ENOENT)
        return -VV_ERR_VOLUME_EXISTS;
    TRY(err);
    vv_manifest_done(&manifest); /* it descends from ours: already opened by somebody */
    return 0;
}

int vv_volume_create(struct vv_store *store, const struct vv_keyring *ring, const void *keys,
                     size_t keys_len, const struct vv_seal_settings *settings,
                     const struct vv_counters *counters)
{
    struct vv_log_requests requests = creating_requests(store);
    struct volume_object object;
    TRY(check_no_manifest(&requests));
    TRY(build_volume(ring, settings, &object));
    TRY(put_volume(&requests, &object, false));
    struct vv_manifest manifest = {
        .number = FIRST_MANIFEST, .counters = *counters, .settings = *settings};
    TRY(put_keys(&requests, keys, keys_len, &manifest.keys_number));
    int err = vv_log_put_manifest(&requests, ring, &manifest);
    if (err == -VV_ERR_NOT_OURS)
        return -VV_ERR_VOLUME_EXISTS;
    TRY(err);
    TRY(check_created(&requests, ring));
    /* Another creation that lost may have replaced our varve.volume before it saw our manifest. */
    return put_volume(&requests, &object, true);
}

/* ---- finding the keys ---- */

void vv_log_seen_done(struct vv_log_seen *seen)
{
    vv_free(seen->bytes);
    *seen = (struct vv_log_seen){0};
}

/* 0, or -ENOENT when the manifest or its keys were gone. seen->number is the manifest's; its bytes are fetched. */
static int fetch_keys(const struct vv_log_requests *requests, struct vv_log_seen *seen,
                      uint8_t **out_keys, size_t *out_len, uint64_t *out_keys_number)
{
    char name[VV_STORE_NAME_MAX + 1];
    TRY(vv_log_fetch_manifest_bytes(requests, seen->number, &seen->bytes, &seen->len));
    struct vv_object_header header;
    size_t head_len = seen->len < VV_OBJECT_HEADER_LEN ? seen->len : VV_OBJECT_HEADER_LEN;
    TRY(vv_object_header_decode(seen->bytes, head_len, &header));
    if (header.kind != VV_KIND_MANIFEST)
        return -VV_ERR_FORMAT;
    keys_name(header.number, name, sizeof(name));
    TRY(vv_log_request_get_all(requests, name, KEYS_LEN_MAX, out_keys, out_len));
    *out_keys_number = header.number;
    return 0;
}

int vv_volume_keys(struct vv_store *store, uint8_t **out_keys, size_t *out_len,
                   uint64_t *out_keys_number, struct vv_log_seen *out_seen)
{
    struct vv_log_requests requests = creating_requests(store);
    int err = -ENOENT;
    for (int round = 0; round < KEYS_ROUNDS_MAX && err == -ENOENT; round++) {
        struct vv_log_seen seen = {.at_ns = vv_rt_now_ns()};
        TRY(vv_log_newest_above(&requests, 0, &seen.number));
        if (seen.number == 0)
            return -VV_ERR_NOT_VOLUME;
        err = fetch_keys(&requests, &seen, out_keys, out_len, out_keys_number);
        if (err < 0 || out_seen == NULL)
            vv_log_seen_done(&seen);
        else
            *out_seen = seen;
    }
    return err;
}
