/* The ciphers, by OpenSSL and libsodium, and key derivation: nothing here is our own cryptography.
 *
 * OpenSSL's contexts cost more to make than a small frame costs to seal, so a fixed number of them
 * is kept for the whole process and used by whoever needs one, for one call at a time. A context
 * remembers the key it was last set up for (by the key's id) and spares the key schedule when the
 * same key comes again; vv_key_done makes it forget.
 *
 * Any thread; never suspends. When every context is in use by another thread, waits for one. */
#ifndef VV_SEAL_AEAD_IMPL_H
#define VV_SEAL_AEAD_IMPL_H

#include <stddef.h>
#include <stdint.h>

#include "seal/seal.h"

#define VV_KEY_LEN 32

/* A key with a number that no other key of this process ever has. */
struct vv_key {
    uint64_t id;
    uint8_t bytes[VV_KEY_LEN];
};

/* Derive a key by HKDF-SHA256 (RFC 5869). -ENOMEM. */
MUST_CHECK int vv_key_derive(struct vv_bytes secret, struct vv_bytes salt, struct vv_bytes info,
                             struct vv_key *out_key);
/* Give `key`, whose bytes are set, its id. */
void vv_key_init(struct vv_key *key);
/* Wipes the key here and in the contexts. */
void vv_key_done(struct vv_key *key);

/* One message. The nonce is `index`, little-endian, zero-filled; cipher none, which has no nonce,
 * relies on `aad` to hold it. */
struct vv_message {
    uint32_t index;
    struct vv_bytes aad;
    struct vv_bytes text; /* to be encrypted or decrypted */
};

/* Encrypt into out[text.len], which may be the text itself. -ENOMEM. */
MUST_CHECK int vv_aead_seal(enum vv_cipher cipher, const struct vv_key *key,
                            const struct vv_message *message, void *out,
                            uint8_t out_tag[VV_FRAME_TAG_LEN]);
/* Authenticate and decrypt. -VV_ERR_AUTH, -VV_ERR_CHECKSUM (cipher none), -ENOMEM; out is then
 * zeroed or untouched. */
MUST_CHECK int vv_aead_open(enum vv_cipher cipher, const struct vv_key *key,
                            const struct vv_message *message, const uint8_t tag[VV_FRAME_TAG_LEN],
                            void *out);

#endif
