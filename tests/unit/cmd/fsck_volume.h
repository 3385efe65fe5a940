/* A new volume for the tests of fsck, on a store that is open. Suspends. */
#ifndef UNIT_CMD_FSCK_VOLUME_H
#define UNIT_CMD_FSCK_VOLUME_H

#include "base/alloc.h"
#include "fs/fs.h"
#include "log/log.h"

static const struct vv_secret fsck_secret = {VV_SECRET_KEY_FILE, "0123456789abcdef0123456789abcdef", 32};

/* Its keyring, which is the caller's, also when this fails later on. */
static inline int fsck_volume_make(struct vv_store *store, struct vv_keyring **out_ring)
{
    struct vv_counters counters = {VV_ROOT_INODE + 1, VV_ORIGIN_FIRST_DATA};
    struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0};
    CLEANUP(vv_free_ptr) uint8_t *keys = NULL;
    size_t len = 0;
    TRY(vv_keyring_new((const uint8_t *)"volume-id-volume", out_ring));
    TRY(vv_slots_create(*out_ring, &fsck_secret, &vv_slot_cost_test, &keys, &len));
    return vv_volume_create(store, *out_ring, keys, len, &settings, &counters);
}

#endif
