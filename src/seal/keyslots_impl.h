/* Making key slots with randomness that is given, for tests with stored vectors. */
#ifndef VV_SEAL_KEYSLOTS_IMPL_H
#define VV_SEAL_KEYSLOTS_IMPL_H

#include "seal/seal.h"

#define VV_SLOT_SALT_LEN 16
#define VV_SLOT_NONCE_LEN 24
#define VV_SLOT_PASSES_MAX 16u
#define VV_SLOT_MEMORY_KIB_MIN 8u
#define VV_SLOT_MEMORY_KIB_MAX (1u << 20) /* 1 GiB */

/* What vv_slots_create draws. */
struct vv_slots_random {
    uint8_t attempt_id[16];
    uint8_t header_salt[32];
    uint8_t slot_salt[VV_SLOT_SALT_LEN];
    uint8_t slot_nonce[VV_SLOT_NONCE_LEN];
};

/* As vv_slots_create. */
MUST_CHECK int vv_slots_create_with(const struct vv_keyring *ring, const struct vv_secret *secret,
                                    const struct vv_slot_cost *cost,
                                    const struct vv_slots_random *random, uint8_t **out_bytes,
                                    size_t *out_len);

#endif
