/* Key slots: the content of keys/<n>. Little-endian:
 *
 *   0 96  object header: kind KEYS, cipher none, key generation 0
 *  96  1  slot count, 1..VV_KEY_SLOTS_MAX
 *  97  3  reserved, 0
 * 100     the slots, back to back
 * end  4  CRC32C of everything before
 *
 * Slot, 68 + n bytes:
 *   0  1  kind of secret: 1 passphrase, 2 key file
 *   1  1  derivation: 1 Argon2id version 1.3 with one lane, of a passphrase;
 *         2 HKDF-SHA256 with info "varve key file", of a key file
 *   2  2  length n of an encoded keyring (keyring_impl.h)
 *   4  4  Argon2id: passes, 1..VV_SLOT_PASSES_MAX; else 0
 *   8  4  Argon2id: memory in KiB, VV_SLOT_MEMORY_KIB_MIN..VV_SLOT_MEMORY_KIB_MAX; else 0
 *  12 16  salt of the derivation
 *  28 24  nonce
 *  52  n  the keyring, encrypted with XChaCha20-Poly1305 under the derived key
 * 52+n 16 tag; associated data: slot bytes 0..51, volume id
 *
 * The checksum finds damage before a second is spent on Argon2id; it does not authenticate. Someone
 * who can write to the store can make opening fail, and slow within the limits above, but not
 * succeed. */
#include "seal/keyslots_impl.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "rt/rt.h"
#include "seal/aead_impl.h"
#include "seal/keyring_impl.h"

#define LIST_HEAD_LEN (VV_OBJECT_HEADER_LEN + 4)
#define SLOT_HEAD_LEN 52
#define SLOT_TAG_LEN 16
#define SLOT_LEN_MAX (SLOT_HEAD_LEN + VV_KEYRING_LEN_MAX + SLOT_TAG_LEN)
#define CHECKSUM_LEN 4
#define LIST_LEN_MAX (LIST_HEAD_LEN + VV_KEY_SLOTS_MAX * SLOT_LEN_MAX + CHECKSUM_LEN)
#define AAD_LEN (SLOT_HEAD_LEN + 16)
#define PASSPHRASE_MAX 4096
#define KEY_FILE_INFO "varve key file"

enum derivation { DERIVATION_ARGON2ID = 1, DERIVATION_HKDF = 2 };

const struct vv_slot_cost vv_slot_cost_default = {
    .passes = crypto_pwhash_OPSLIMIT_MODERATE,
    .memory_kib = crypto_pwhash_MEMLIMIT_MODERATE >> 10,
};
const struct vv_slot_cost vv_slot_cost_test = {.passes = 1, .memory_kib = VV_SLOT_MEMORY_KIB_MIN};

/* A slot's bytes and what they say. */
struct slot {
    struct vv_bytes bytes;
    uint8_t kind;
    uint8_t derivation;
    uint16_t ring_len;
    struct vv_slot_cost cost;
    uint8_t salt[VV_SLOT_SALT_LEN];
    uint8_t nonce[VV_SLOT_NONCE_LEN];
};

struct slot_list {
    uint8_t volume_id[16];
    uint32_t count;
    struct slot slots[VV_KEY_SLOTS_MAX];
};

static bool cost_is_valid(const struct vv_slot_cost *cost)
{
    return cost->passes >= 1 && cost->passes <= VV_SLOT_PASSES_MAX &&
           cost->memory_kib >= VV_SLOT_MEMORY_KIB_MIN && cost->memory_kib <= VV_SLOT_MEMORY_KIB_MAX;
}

static int check_secret(const struct vv_secret *secret)
{
    if (secret->kind == VV_SECRET_KEY_FILE)
        return secret->len == VV_KEY_FILE_LEN ? 0 : -EINVAL;
    if (secret->kind == VV_SECRET_PASSPHRASE)
        return secret->len >= 1 && secret->len <= PASSPHRASE_MAX ? 0 : -EINVAL;
    return -EINVAL;
}

/* ---- decoding ---- */

static int decode_slot(struct vv_cursor *cursor, struct slot *slot)
{
    const uint8_t *start = cursor->ptr;
    slot->kind = vv_cursor_u8(cursor);
    slot->derivation = vv_cursor_u8(cursor);
    slot->ring_len = vv_cursor_u16(cursor);
    slot->cost.passes = vv_cursor_u32(cursor);
    slot->cost.memory_kib = vv_cursor_u32(cursor);
    vv_cursor_copy(cursor, slot->salt, sizeof(slot->salt));
    vv_cursor_copy(cursor, slot->nonce, sizeof(slot->nonce));
    vv_cursor_skip(cursor, (size_t)slot->ring_len + SLOT_TAG_LEN);
    TRY(vv_cursor_check(cursor));
    slot->bytes = (struct vv_bytes){start, (size_t)SLOT_HEAD_LEN + slot->ring_len + SLOT_TAG_LEN};
    if (!vv_keyring_len_is_valid(slot->ring_len))
        return -VV_ERR_FORMAT;
    if (slot->kind == VV_SECRET_PASSPHRASE && slot->derivation == DERIVATION_ARGON2ID)
        return cost_is_valid(&slot->cost) ? 0 : -VV_ERR_FORMAT;
    if (slot->kind == VV_SECRET_KEY_FILE && slot->derivation == DERIVATION_HKDF)
        return slot->cost.passes == 0 && slot->cost.memory_kib == 0 ? 0 : -VV_ERR_FORMAT;
    return -VV_ERR_FORMAT;
}

static int decode_list(const void *bytes, size_t len, struct slot_list *list)
{
    struct vv_object_header header;
    TRY(vv_object_header_decode(bytes, len, &header));
    if (len < LIST_HEAD_LEN + CHECKSUM_LEN || len > LIST_LEN_MAX)
        return -VV_ERR_FORMAT;
    size_t checked_len = len - CHECKSUM_LEN;
    if (vv_load_u32((const uint8_t *)bytes + checked_len) != vv_crc32c(0, bytes, checked_len))
        return -VV_ERR_CHECKSUM;
    if (header.kind != VV_KIND_KEYS || header.cipher != VV_CIPHER_NONE ||
        header.key_generation != 0)
        return -VV_ERR_FORMAT;
    struct vv_cursor cursor = vv_cursor_of(bytes, checked_len);
    vv_cursor_skip(&cursor, VV_OBJECT_HEADER_LEN);
    list->count = vv_cursor_u8(&cursor);
    uint32_t reserved = vv_cursor_u8(&cursor) | vv_cursor_u16(&cursor);
    if (reserved != 0 || list->count == 0 || list->count > VV_KEY_SLOTS_MAX)
        return -VV_ERR_FORMAT;
    for (uint32_t i = 0; i < list->count; i++)
        TRY(decode_slot(&cursor, &list->slots[i]));
    memcpy(list->volume_id, header.volume_id, sizeof(list->volume_id));
    return vv_cursor_end(&cursor);
}

/* ---- wrapping and unwrapping ---- */

/* The slot's key from a secret of its kind. */
static int derive_slot_key(const struct slot *slot, const struct vv_secret *secret,
                           struct vv_key *out_key)
{
    if (slot->derivation == DERIVATION_HKDF) {
        struct vv_bytes info = {(const uint8_t *)KEY_FILE_INFO, sizeof(KEY_FILE_INFO) - 1};
        return vv_key_derive((struct vv_bytes){secret->bytes, secret->len},
                             (struct vv_bytes){slot->salt, sizeof(slot->salt)}, info, out_key);
    }
    vv_key_init(out_key);
    int failed = crypto_pwhash(out_key->bytes, sizeof(out_key->bytes), secret->bytes, secret->len,
                               slot->salt, slot->cost.passes, (size_t)slot->cost.memory_kib << 10,
                               crypto_pwhash_ALG_ARGON2ID13);
    return failed ? -ENOMEM : 0;
}

static void make_aad(const uint8_t *slot_bytes, const uint8_t volume_id[16], uint8_t out[AAD_LEN])
{
    memcpy(out, slot_bytes, SLOT_HEAD_LEN);
    memcpy(out + SLOT_HEAD_LEN, volume_id, 16);
}

/* Encode `slot` with the ring wrapped into out. Returns its length. */
static ssize_t wrap_ring(const struct slot *slot, const struct vv_keyring *ring,
                         const struct vv_secret *secret, uint8_t out[SLOT_LEN_MAX])
{
    CLEANUP(vv_key_done) struct vv_key key = {0};
    TRY(derive_slot_key(slot, secret, &key));
    struct vv_writer writer = vv_writer_of(out, SLOT_LEN_MAX);
    uint8_t encoded[VV_KEYRING_LEN_MAX];
    size_t encoded_len = vv_keyring_encode(ring, encoded);
    vv_writer_u8(&writer, slot->kind);
    vv_writer_u8(&writer, slot->derivation);
    vv_writer_u16(&writer, (uint16_t)encoded_len);
    vv_writer_u32(&writer, slot->cost.passes);
    vv_writer_u32(&writer, slot->cost.memory_kib);
    vv_writer_bytes(&writer, slot->salt, sizeof(slot->salt));
    vv_writer_bytes(&writer, slot->nonce, sizeof(slot->nonce));
    assert(writer.len == SLOT_HEAD_LEN);
    uint8_t aad[AAD_LEN];
    make_aad(out, ring->volume_id, aad);
    unsigned long long sealed_len;
    crypto_aead_xchacha20poly1305_ietf_encrypt(out + SLOT_HEAD_LEN, &sealed_len, encoded,
                                               encoded_len, aad, sizeof(aad), NULL, slot->nonce,
                                               key.bytes);
    sodium_memzero(encoded, sizeof(encoded));
    return (ssize_t)(SLOT_HEAD_LEN + sealed_len);
}

/* -VV_ERR_NO_KEY when the secret is not this slot's. */
static int unwrap_ring(const struct slot *slot, const uint8_t volume_id[16],
                       const struct vv_secret *secret, struct vv_keyring **out_ring)
{
    if (slot->kind != secret->kind)
        return -VV_ERR_NO_KEY;
    CLEANUP(vv_key_done) struct vv_key key = {0};
    TRY(derive_slot_key(slot, secret, &key));
    uint8_t aad[AAD_LEN];
    make_aad(slot->bytes.ptr, volume_id, aad);
    uint8_t encoded[VV_KEYRING_LEN_MAX];
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(
            encoded, NULL, NULL, slot->bytes.ptr + SLOT_HEAD_LEN, slot->bytes.len - SLOT_HEAD_LEN,
            aad, sizeof(aad), slot->nonce, key.bytes) != 0)
        return -VV_ERR_NO_KEY;
    struct vv_keyring *ring = NULL;
    int err = vv_keyring_decode(encoded, slot->ring_len, &ring);
    sodium_memzero(encoded, sizeof(encoded));
    TRY(err);
    if (memcmp(ring->volume_id, volume_id, sizeof(ring->volume_id)) != 0) {
        vv_keyring_free(ring);
        return -VV_ERR_FORMAT;
    }
    *out_ring = ring;
    return 0;
}

/* Which slot opens, and the ring in it. A slot that cannot be tried for lack of memory does not
 * keep the others from being tried. */
static int open_list(const struct slot_list *list, const struct vv_secret *secret,
                     uint32_t *out_index, struct vv_keyring **out_ring)
{
    int result = -VV_ERR_NO_KEY;
    for (uint32_t i = 0; i < list->count; i++) {
        int err = unwrap_ring(&list->slots[i], list->volume_id, secret, out_ring);
        if (err == 0)
            *out_index = i;
        if (err != -VV_ERR_NO_KEY && err != -ENOMEM)
            return err;
        if (err == -ENOMEM)
            result = err;
    }
    return result;
}

/* ---- encoding ---- */

/* A slot to be made. Salt and nonce are still to be drawn. */
struct plan {
    struct slot slot;
    const struct vv_secret *secret;
};

struct encoded {
    uint8_t *bytes;
    size_t len;
};

static int plan_slot(const struct vv_secret *secret, const struct vv_slot_cost *cost,
                     struct plan *out_plan)
{
    TRY(check_secret(secret));
    *out_plan = (struct plan){.secret = secret};
    struct slot *slot = &out_plan->slot;
    slot->kind = (uint8_t)secret->kind;
    slot->derivation = DERIVATION_HKDF;
    if (secret->kind == VV_SECRET_KEY_FILE)
        return 0;
    slot->derivation = DERIVATION_ARGON2ID;
    slot->cost = cost ? *cost : vv_slot_cost_default;
    return cost_is_valid(&slot->cost) ? 0 : -EINVAL;
}

static int encode_list(const struct slot_list *list, const struct vv_slots_random *random,
                       struct encoded *out)
{
    struct vv_object_header header = {.version = VV_FORMAT_VERSION, .kind = VV_KIND_KEYS};
    memcpy(header.volume_id, list->volume_id, sizeof(header.volume_id));
    memcpy(header.attempt_id, random->attempt_id, sizeof(header.attempt_id));
    memcpy(header.salt, random->header_salt, sizeof(header.salt));
    size_t len = LIST_HEAD_LEN + CHECKSUM_LEN;
    for (uint32_t i = 0; i < list->count; i++)
        len += list->slots[i].bytes.len;
    uint8_t *bytes = vv_alloc(len);
    if (!bytes)
        return -ENOMEM;
    vv_object_header_encode(&header, bytes);
    struct vv_writer writer =
        vv_writer_of(bytes + VV_OBJECT_HEADER_LEN, len - VV_OBJECT_HEADER_LEN);
    vv_writer_u32(&writer, list->count);
    for (uint32_t i = 0; i < list->count; i++)
        vv_writer_bytes(&writer, list->slots[i].bytes.ptr, list->slots[i].bytes.len);
    vv_writer_u32(&writer, vv_crc32c(0, bytes, len - CHECKSUM_LEN));
    assert(!writer.is_bad && writer.len == len - VV_OBJECT_HEADER_LEN);
    *out = (struct encoded){bytes, len};
    return 0;
}

/* Put the planned slot at list->slots[index] and encode the list. */
static int replace_slot(struct slot_list *list, uint32_t index, const struct vv_keyring *ring,
                        const struct plan *plan, const struct vv_slots_random *random,
                        struct encoded *out)
{
    struct slot slot = plan->slot;
    memcpy(slot.salt, random->slot_salt, sizeof(slot.salt));
    memcpy(slot.nonce, random->slot_nonce, sizeof(slot.nonce));
    uint8_t wrapped[SLOT_LEN_MAX];
    ssize_t wrapped_len = wrap_ring(&slot, ring, plan->secret, wrapped);
    TRY(wrapped_len);
    list->slots[index].bytes = (struct vv_bytes){wrapped, (size_t)wrapped_len};
    return encode_list(list, random, out);
}

int vv_slots_create_with(const struct vv_keyring *ring, const struct vv_secret *secret,
                         const struct vv_slot_cost *cost, const struct vv_slots_random *random,
                         uint8_t **out_bytes, size_t *out_len)
{
    struct plan plan;
    struct encoded encoded;
    TRY(plan_slot(secret, cost, &plan));
    struct slot_list list = {.count = 1};
    memcpy(list.volume_id, ring->volume_id, sizeof(list.volume_id));
    TRY(replace_slot(&list, 0, ring, &plan, random, &encoded));
    *out_bytes = encoded.bytes;
    *out_len = encoded.len;
    return 0;
}

int vv_slots_create(const struct vv_keyring *ring, const struct vv_secret *secret,
                    const struct vv_slot_cost *cost, uint8_t **out_bytes, size_t *out_len)
{
    struct vv_slots_random random;
    vv_rt_random(&random, sizeof(random));
    return vv_slots_create_with(ring, secret, cost, &random, out_bytes, out_len);
}

int vv_slots_open(const void *bytes, size_t len, const struct vv_secret *secret,
                  struct vv_keyring **out_ring)
{
    struct slot_list list;
    uint32_t index = 0;
    TRY(decode_list(bytes, len, &list));
    TRY(check_secret(secret));
    return open_list(&list, secret, &index, out_ring);
}

/* The list with the planned slot in place of the one that `old` opens or, when adding, behind all.
 */
static int rewrite_list(struct slot_list *list, bool is_adding, const struct vv_secret *old,
                        const struct plan *plan, struct encoded *out)
{
    CLEANUP(vv_keyring_free_ptr) struct vv_keyring *ring = NULL;
    uint32_t index = 0;
    TRY(check_secret(old));
    if (is_adding && list->count == VV_KEY_SLOTS_MAX)
        return -VV_ERR_LIMIT;
    TRY(open_list(list, old, &index, &ring));
    if (is_adding)
        index = list->count++;
    struct vv_slots_random random;
    vv_rt_random(&random, sizeof(random));
    return replace_slot(list, index, ring, plan, &random, out);
}

int vv_slots_change(const void *bytes, size_t len, const struct vv_secret *old,
                    const struct vv_secret *new_secret, const struct vv_slot_cost *cost,
                    uint8_t **out_bytes, size_t *out_len)
{
    struct slot_list list;
    struct plan plan;
    struct encoded encoded;
    TRY(decode_list(bytes, len, &list));
    TRY(plan_slot(new_secret, cost, &plan));
    TRY(rewrite_list(&list, false, old, &plan, &encoded));
    *out_bytes = encoded.bytes;
    *out_len = encoded.len;
    return 0;
}

int vv_slots_add(const void *bytes, size_t len, const struct vv_secret *old,
                 const struct vv_secret *new_secret, const struct vv_slot_cost *cost,
                 uint8_t **out_bytes, size_t *out_len)
{
    struct slot_list list;
    struct plan plan;
    struct encoded encoded;
    TRY(decode_list(bytes, len, &list));
    TRY(plan_slot(new_secret, cost, &plan));
    TRY(rewrite_list(&list, true, old, &plan, &encoded));
    *out_bytes = encoded.bytes;
    *out_len = encoded.len;
    return 0;
}
