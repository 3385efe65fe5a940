/* What the seal module knows about keyrings: their content, and how a key slot stores them.
 *
 * Encoded keyring (the plain content of a key slot), 20 + 36 * count bytes, little-endian:
 *   0 16  volume id
 *  16  4  count, 1..VV_MASTER_KEYS_MAX
 *  20     count times, generations ascending and above 0:
 *           0  4  generation
 *           4 32  key
 *
 * A keyring does not change once it is shared between threads. Never suspends. */
#ifndef VV_SEAL_KEYRING_IMPL_H
#define VV_SEAL_KEYRING_IMPL_H

#include "seal/seal.h"

#define VV_MASTER_KEY_LEN 32
#define VV_KEYRING_LEN_MAX (20 + 36 * VV_MASTER_KEYS_MAX)

struct vv_master_key {
    uint32_t generation;
    uint8_t bytes[VV_MASTER_KEY_LEN];
};

struct vv_keyring {
    uint8_t volume_id[16];
    uint32_t count;
    struct vv_master_key keys[VV_MASTER_KEYS_MAX]; /* ascending; the last one seals */
};

/* Add a random key with the next generation, which seals from now on. Slots made before do not hold
 * it. -VV_ERR_LIMIT, the ring then unchanged. */
MUST_CHECK int vv_keyring_add_generation(struct vv_keyring *ring);
/* The key of a generation, or NULL. */
const uint8_t *vv_keyring_key(const struct vv_keyring *ring, uint32_t generation);
/* Bytes written to out. */
size_t vv_keyring_encode(const struct vv_keyring *ring, uint8_t out[VV_KEYRING_LEN_MAX]);
/* -VV_ERR_FORMAT, -ENOMEM. */
MUST_CHECK int vv_keyring_decode(const void *bytes, size_t len, struct vv_keyring **out_ring);
/* Whether `len` is the length of an encoded keyring. */
bool vv_keyring_len_is_valid(size_t len);
/* For CLEANUP. */
void vv_keyring_free_ptr(struct vv_keyring **ring);

#endif
