/* Sealing: bytes into frames and back (compression, then authenticated encryption), object headers,
 * and the key slots that protect the master keys.
 *
 * Every stored object begins with an object header; everything after it is frames sealed under a
 * key that is derived for that object alone (PROTOCOL 3): HKDF-SHA256(secret: master key of
 * `key_generation`; salt: salt; info: "varve" + header bytes 8..91 + name). So a frame opens only
 * under the header and the name that it was sealed under, attempt id and number included. Frame i
 * of an object uses i as its nonce, so an index is sealed at most once per salt; sealing an object
 * again draws a new salt. The associated data of a frame (25 bytes) is its header (5), its index
 * (4) and its origin (data id 8, extent 8), so frames cannot be swapped, within or between objects.
 *
 * Object header, VV_OBJECT_HEADER_LEN = 96 bytes, little-endian:
 *   0  8  magic "varve\0\r\n"
 *   8  2  format version (1)
 *  10  1  kind (enum vv_object_kind)
 *  11  1  cipher (enum vv_cipher)
 *  12  4  key generation
 *  16 16  volume id
 *  32 16  attempt id (random)
 *  48 32  salt (random)
 *  80  8  kind's own number (epoch of a log object or fence, manifest number, else 0)
 *  88  4  reserved, 0
 *  92  4  CRC32C of bytes 0..91
 *
 * Frame: 5 bytes header, ciphertext, tag:
 *   0  1  compression (enum vv_compression; VV_COMPRESSION_NONE when not smaller, or not tried)
 *   1  4  plain length, at most VV_FRAME_PLAIN_MAX
 *   5  n  ciphertext (as long as the compressed bytes: an lz4 block or a zstd frame)
 * 5+n 16  tag (GCM or Poly1305); with cipher none the XXH3-128 of the n bytes, seeded with the
 *         XXH3-64 of the associated data, which is seeded with the key's first 8 bytes
 *
 * XChaCha20's 24-byte and GCM's 12-byte nonce are the index in little-endian, zero-filled.
 *
 * All functions are pure computation: any thread, never suspend, except where noted. */
#ifndef VV_SEAL_SEAL_H
#define VV_SEAL_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/err.h"

#define VV_FORMAT_VERSION 1
#define VV_OBJECT_HEADER_LEN 96
#define VV_FRAME_HEADER_LEN 5
#define VV_FRAME_TAG_LEN 16
#define VV_FRAME_OVERHEAD (VV_FRAME_HEADER_LEN + VV_FRAME_TAG_LEN)
#define VV_FRAME_PLAIN_MAX (64u << 20)
#define VV_MASTER_KEYS_MAX 16

enum vv_object_kind {
    VV_KIND_VOLUME = 1, /* varve.volume */
    VV_KIND_MANIFEST = 2,
    VV_KIND_KEYS = 3, /* not sealed by the master key: see key slots */
    VV_KIND_LOG = 4,
    VV_KIND_FENCE = 5,
    VV_KIND_DATA = 6,
    VV_KIND_SST = 7,
    VV_KIND_JOURNAL = 8 /* one journal record */
};
enum vv_cipher { VV_CIPHER_NONE = 0, VV_CIPHER_AES_256_GCM = 1, VV_CIPHER_XCHACHA20_POLY1305 = 2 };
enum vv_compression { VV_COMPRESSION_NONE = 0, VV_COMPRESSION_LZ4 = 1, VV_COMPRESSION_ZSTD = 2 };

struct vv_object_header {
    uint16_t version;
    uint8_t kind;
    uint8_t cipher;
    uint32_t key_generation;
    uint8_t volume_id[16];
    uint8_t attempt_id[16];
    uint8_t salt[32];
    uint64_t number;
};

/* What a volume seals new objects with. */
struct vv_seal_settings {
    enum vv_cipher cipher;
    enum vv_compression compression;
    int level; /* zstd level; 0 = the library's default */
};

/* Names for settings: "aes-256-gcm", "xchacha20-poly1305", "none"; "lz4", "zstd", "none".
 * -EINVAL. */
MUST_CHECK int vv_cipher_parse(const char *text, enum vv_cipher *out_cipher);
const char *vv_cipher_name(enum vv_cipher cipher);
MUST_CHECK int vv_compression_parse(const char *text, enum vv_compression *out_compression);
const char *vv_compression_name(enum vv_compression compression);

void vv_object_header_encode(const struct vv_object_header *header,
                             uint8_t out[VV_OBJECT_HEADER_LEN]);
/* -VV_ERR_FORMAT (magic, kind, cipher), -VV_ERR_CHECKSUM, -VV_ERR_NEWER, in that order of checks:
 * magic, checksum, version, the rest. */
MUST_CHECK int vv_object_header_decode(const void *bytes, size_t len,
                                       struct vv_object_header *out_header);

/* ---- the master keys of a volume ---- */

/* Opaque: volume id and up to VV_MASTER_KEYS_MAX generations; wiped when freed. */
struct vv_keyring;

/* A keyring with one new random key, generation 1. -ENOMEM. */
MUST_CHECK int vv_keyring_new(const uint8_t volume_id[16], struct vv_keyring **out_ring);
void vv_keyring_free(struct vv_keyring *ring);
const uint8_t *vv_keyring_volume_id(const struct vv_keyring *ring);
/* The generation that seals new objects. */
uint32_t vv_keyring_generation(const struct vv_keyring *ring);

/* ---- sealers: one per object being written or read ---- */

struct vv_sealer; /* opaque; immutable after making it, so several threads may use one at once */

/* For writing: draws salt and attempt id, fills *out_header (encode it at the object's start).
 * `name` is the object's full name in the store. -ENOMEM. */
MUST_CHECK int vv_sealer_new(const struct vv_keyring *ring, enum vv_object_kind kind,
                             const char *name, uint64_t number,
                             const struct vv_seal_settings *settings,
                             struct vv_object_header *out_header, struct vv_sealer **out_sealer);
/* For reading an object whose header is known; must not seal. -VV_ERR_FORMAT when the header's
 * volume id is another, -VV_ERR_NO_KEY when its key generation is not in the ring, -ENOMEM. */
MUST_CHECK int vv_sealer_open(const struct vv_keyring *ring, const struct vv_object_header *header,
                              const char *name, struct vv_sealer **out_sealer);
void vv_sealer_free(struct vv_sealer *sealer);

/* Where a frame's bytes come from, authenticated with it: a data id and extent index for file data,
 * a role (constants below VV_ORIGIN_FIRST_DATA) for everything else. */
struct vv_origin {
    uint64_t data_id;
    uint64_t extent;
};
#define VV_ORIGIN_BATCH 1     /* data_id of a commit's metadata batch */
#define VV_ORIGIN_DIRECTORY 2 /* of a segment's directory */
#define VV_ORIGIN_SST_BLOCK 3
#define VV_ORIGIN_SST_INDEX 4
#define VV_ORIGIN_MANIFEST 5
#define VV_ORIGIN_VOLUME 6
#define VV_ORIGIN_JOURNAL 7
#define VV_ORIGIN_SST_FILTER 8
#define VV_ORIGIN_FIRST_DATA 4096 /* data ids begin here */

/* The most bytes that a frame of `plain_len` takes. */
size_t vv_frame_bound(size_t plain_len);
/* Compress and encrypt `plain` into out[capacity], capacity >= vv_frame_bound(plain_len).
 * Returns the frame's length. -ENOMEM. */
MUST_CHECK ssize_t vv_frame_seal(const struct vv_sealer *sealer, uint32_t index,
                                 const struct vv_origin *origin, const void *plain,
                                 size_t plain_len, void *out, size_t capacity);
/* As vv_frame_seal, with compression chosen by the caller instead of the settings. */
MUST_CHECK ssize_t vv_frame_seal_as(const struct vv_sealer *sealer, enum vv_compression compression,
                                    uint32_t index, const struct vv_origin *origin,
                                    const void *plain, size_t plain_len, void *out,
                                    size_t capacity);
/* The plain length that a frame claims (not yet authenticated, but bounded). -VV_ERR_FORMAT. */
MUST_CHECK ssize_t vv_frame_plain_len(const void *frame, size_t frame_len);
/* Authenticate, decrypt and decompress. `out` has at least the claimed plain length.
 * Returns the plain length. -VV_ERR_AUTH (or -VV_ERR_CHECKSUM with cipher none), -VV_ERR_FORMAT,
 * -ENOMEM; then nothing of out is to be used. */
MUST_CHECK ssize_t vv_frame_open(const struct vv_sealer *sealer, uint32_t index,
                                 const struct vv_origin *origin, const void *frame,
                                 size_t frame_len, void *out, size_t capacity);

/* A frame where it was sealed. */
struct vv_sealed_frame {
    const struct vv_sealer *sealer; /* its object's */
    uint32_t index;
    const void *bytes;
    size_t len;
};
/* Seal a frame's content once more, for another object or place: authenticated and decrypted, and sealed as it is
 * compressed, which it stays. `out` has room for from->len bytes, which is what it takes. Returns that.
 * Errors as of vv_frame_open; the origin is the same in both. */
MUST_CHECK ssize_t vv_frame_reseal(const struct vv_sealed_frame *from,
                                   const struct vv_origin *origin, const struct vv_sealer *to,
                                   uint32_t index, void *out, size_t capacity);

/* ---- key slots: the object keys/<n> ----
 * Object header (kind KEYS, cipher and generation 0), then a list of slots, each holding all master
 * keys of the ring wrapped with XChaCha20-Poly1305 under the slot's key. The offset table is in
 * keyslots.c's header comment and docs/format.md. Argon2id takes its cost from the slot; the cost
 * for new slots is libsodium's "moderate" unless a test lowers it. */
#define VV_KEY_SLOTS_MAX 16
#define VV_KEY_FILE_LEN 32 /* a key file is 64 hex digits and a newline */

struct vv_secret {
    enum { VV_SECRET_PASSPHRASE = 1, VV_SECRET_KEY_FILE = 2 } kind;
    const void *bytes; /* passphrase bytes, or VV_KEY_FILE_LEN raw bytes */
    size_t len;
};

/* Argon2id cost of new passphrase slots. */
struct vv_slot_cost {
    uint32_t passes;
    uint32_t memory_kib;
};
extern const struct vv_slot_cost vv_slot_cost_default;
extern const struct vv_slot_cost vv_slot_cost_test; /* fast and weak */

/* An encoded keys object with one slot. The caller frees *out_bytes. Deriving takes up to a second
 * and 256 MiB: call it from a worker. -ENOMEM, -EINVAL. */
MUST_CHECK int vv_slots_create(const struct vv_keyring *ring, const struct vv_secret *secret,
                               const struct vv_slot_cost *cost, uint8_t **out_bytes,
                               size_t *out_len);
/* Open any slot with the secret. -VV_ERR_NO_KEY, -VV_ERR_FORMAT, -VV_ERR_CHECKSUM, -VV_ERR_NEWER,
 * -EINVAL (a secret that can't be one), -ENOMEM. From a worker. */
MUST_CHECK int vv_slots_open(const void *bytes, size_t len, const struct vv_secret *secret,
                             struct vv_keyring **out_ring);
/* A new keys object in which the slot that `old` opens is replaced by one for `new`; the other
 * slots are carried over as they are. Errors as vv_slots_open. From a worker. */
MUST_CHECK int vv_slots_change(const void *bytes, size_t len, const struct vv_secret *old,
                               const struct vv_secret *new_secret, const struct vv_slot_cost *cost,
                               uint8_t **out_bytes, size_t *out_len);
/* As vv_slots_change, but adds a slot. -VV_ERR_LIMIT. */
MUST_CHECK int vv_slots_add(const void *bytes, size_t len, const struct vv_secret *old,
                            const struct vv_secret *new_secret, const struct vv_slot_cost *cost,
                            uint8_t **out_bytes, size_t *out_len);

#endif
