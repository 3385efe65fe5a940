/* Key slots: as they come, and with the checksums made right. Only a key file is tried, because a
 * passphrase would spend the time in Argon2id; what it may cost is decoded all the same. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "seal/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t key_file[VV_KEY_FILE_LEN] = "thirty-two bytes of a key file.";
static const struct vv_secret secret = {VV_SECRET_KEY_FILE, key_file, sizeof(key_file)};

static void open_slots(const uint8_t *bytes, size_t len)
{
    struct vv_keyring *ring = NULL;
    uint8_t *added = NULL;
    size_t added_len = 0;
    if (vv_slots_open(bytes, len, &secret, &ring) < 0)
        return;
    assert(vv_keyring_generation(ring) > 0);
    vv_keyring_free(ring);
    int err = vv_slots_add(bytes, len, &secret, &secret, NULL, &added, &added_len);
    assert(err == 0 || err == -VV_ERR_LIMIT);
    if (err == 0) {
        err = vv_slots_open(added, added_len, &secret, &ring);
        assert(err == 0);
        vv_keyring_free(ring);
    }
    vv_free(added);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    open_slots(data, size);
    if (size < VV_OBJECT_HEADER_LEN + 8)
        return 0;
    uint8_t *bytes = vv_memdup(data, size);
    if (!bytes)
        return 0;
    vv_store_u32(bytes + 92, vv_crc32c(0, bytes, 92));
    vv_store_u32(bytes + size - 4, vv_crc32c(0, bytes, size - 4));
    open_slots(bytes, size);
    vv_free(bytes);
    return 0;
}
