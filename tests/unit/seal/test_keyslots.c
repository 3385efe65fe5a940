#include "seal/keyslots_impl.h"

#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "unit/seal/fixture.h"

#define SLOTS_OFFSET 100
#define SLOT_LEN (52 + 56 + 16) /* of a ring with one key */

static const uint8_t key_file[VV_KEY_FILE_LEN] = "thirty-two bytes of a key file.";
static const struct vv_secret file_secret = {VV_SECRET_KEY_FILE, key_file, sizeof(key_file)};
static const struct vv_secret first = {VV_SECRET_PASSPHRASE, "open sesame", 11};
static const struct vv_secret second = {VV_SECRET_PASSPHRASE, "swordfish", 9};
static const struct vv_secret wrong = {VV_SECRET_PASSPHRASE, "open Sesame", 11};

struct slots {
    uint8_t *bytes;
    size_t len;
};

static bool opens_to(const struct slots *slots, const struct vv_secret *secret,
                     const struct vv_keyring *ring)
{
    CLEANUP(vv_keyring_free_ptr) struct vv_keyring *got = NULL;
    int err = vv_slots_open(slots->bytes, slots->len, secret, &got);
    return err == 0 && memcmp(got, ring, sizeof(*ring)) == 0;
}

static int open_error(const struct slots *slots, const struct vv_secret *secret)
{
    CLEANUP(vv_keyring_free_ptr) struct vv_keyring *got = NULL;
    return vv_slots_open(slots->bytes, slots->len, secret, &got);
}

static struct slots create(const struct vv_keyring *ring, const struct vv_secret *secret)
{
    struct slots slots = {0};
    int err = vv_slots_create(ring, secret, &vv_slot_cost_test, &slots.bytes, &slots.len);
    if (!tap_is_int(err, 0, "created"))
        abort();
    return slots;
}

/* Replace *slots by what adding or changing gives. */
static int rewrite(struct slots *slots, bool is_adding, const struct vv_secret *old,
                   const struct vv_secret *new_secret)
{
    struct slots next = {0};
    int err = is_adding ? vv_slots_add(slots->bytes, slots->len, old, new_secret,
                                       &vv_slot_cost_test, &next.bytes, &next.len)
                        : vv_slots_change(slots->bytes, slots->len, old, new_secret,
                                          &vv_slot_cost_test, &next.bytes, &next.len);
    if (err < 0)
        return err;
    vv_free(slots->bytes);
    *slots = next;
    return 0;
}

static void test_open(void)
{
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    struct slots slots = create(ring, &first);
    tap_is_int((int64_t)slots.len, SLOTS_OFFSET + SLOT_LEN + 4, "length");
    tap_ok(opens_to(&slots, &first, ring), "the passphrase opens");
    tap_is_int(open_error(&slots, &wrong), -VV_ERR_NO_KEY, "another does not");
    tap_is_int(open_error(&slots, &file_secret), -VV_ERR_NO_KEY, "nor does a key file");
    vv_free(slots.bytes);
    slots = create(ring, &file_secret);
    tap_ok(opens_to(&slots, &file_secret, ring), "the key file opens");
    uint8_t other[VV_KEY_FILE_LEN] = {1};
    struct vv_secret other_file = {VV_SECRET_KEY_FILE, other, sizeof(other)};
    tap_is_int(open_error(&slots, &other_file), -VV_ERR_NO_KEY, "another does not");
    struct vv_secret as_passphrase = {VV_SECRET_PASSPHRASE, key_file, sizeof(key_file)};
    tap_is_int(open_error(&slots, &as_passphrase), -VV_ERR_NO_KEY, "nor does it as a passphrase");
    vv_free(slots.bytes);
    vv_keyring_free(ring);
    ring = fixture_ring(0x77, VV_MASTER_KEYS_MAX);
    slots = create(ring, &first);
    tap_ok(opens_to(&slots, &first, ring), "a slot holds all generations");
    vv_free(slots.bytes);
    vv_keyring_free(ring);
}

static void test_rewrite(void)
{
    struct vv_keyring *ring = fixture_ring(0x77, 3);
    struct slots slots = create(ring, &first);
    tap_is_int(rewrite(&slots, true, &wrong, &file_secret), -VV_ERR_NO_KEY, "adding needs a key");
    tap_is_int(rewrite(&slots, true, &first, &file_secret), 0, "a key file is added");
    tap_ok(opens_to(&slots, &first, ring), "the passphrase still opens");
    tap_ok(opens_to(&slots, &file_secret, ring), "the key file, too");
    tap_is_int(rewrite(&slots, false, &second, &second), -VV_ERR_NO_KEY, "so does changing");
    tap_is_int(rewrite(&slots, false, &first, &second), 0, "the passphrase is changed");
    tap_is_int(open_error(&slots, &first), -VV_ERR_NO_KEY, "the old one opens no more");
    tap_ok(opens_to(&slots, &second, ring), "the new one does");
    tap_ok(opens_to(&slots, &file_secret, ring), "the key file still does");
    tap_is_int(rewrite(&slots, false, &file_secret, &first), 0, "the file becomes a passphrase");
    tap_is_int(open_error(&slots, &file_secret), -VV_ERR_NO_KEY, "and opens no more");
    tap_ok(opens_to(&slots, &first, ring), "the passphrase does");
    int err = 0;
    for (int i = 2; i < VV_KEY_SLOTS_MAX && err == 0; i++)
        err = rewrite(&slots, true, &first, &file_secret);
    tap_is_int(err, 0, "up to VV_KEY_SLOTS_MAX slots");
    tap_ok(opens_to(&slots, &file_secret, ring), "they open");
    tap_is_int(rewrite(&slots, true, &first, &second), -VV_ERR_LIMIT, "one more is too many");
    tap_is_int(rewrite(&slots, false, &file_secret, &second), 0, "changing one is not");
    vv_free(slots.bytes);
    vv_keyring_free(ring);
}

static void test_no_secrets(void)
{
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    struct slots slots = create(ring, &file_secret);
    uint8_t *bytes = NULL;
    size_t len = 7;
    struct vv_secret bad = {VV_SECRET_PASSPHRASE, "", 0};
    tap_is_int(vv_slots_create(ring, &bad, NULL, &bytes, &len), -EINVAL, "an empty passphrase");
    tap_is_int(open_error(&slots, &bad), -EINVAL, "to open");
    tap_is_int(rewrite(&slots, false, &bad, &first), -EINVAL, "as the old one");
    tap_is_int(rewrite(&slots, true, &file_secret, &bad), -EINVAL, "as the new one");
    bad = (struct vv_secret){VV_SECRET_KEY_FILE, key_file, 31};
    tap_is_int(vv_slots_create(ring, &bad, NULL, &bytes, &len), -EINVAL, "a short key file");
    bad = (struct vv_secret){VV_SECRET_KEY_FILE + 1, key_file, 32};
    tap_is_int(vv_slots_create(ring, &bad, NULL, &bytes, &len), -EINVAL, "another kind");
    static const struct vv_slot_cost costs[] = {{0, 8}, {17, 8}, {1, 7}, {1, (1u << 20) + 1}};
    for (size_t i = 0; i < 4; i++)
        tap_is_int(vv_slots_create(ring, &first, &costs[i], &bytes, &len), -EINVAL, "cost %zu", i);
    tap_ok(!bytes && len == 7, "the outputs are untouched");
    vv_free(slots.bytes);
    vv_keyring_free(ring);
}

/* Make the checksum right again after a change. */
static void repair(struct slots *slots)
{
    vv_store_u32(slots->bytes + slots->len - 4, vv_crc32c(0, slots->bytes, slots->len - 4));
}

static void test_flips(const struct vv_secret *secret)
{
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    struct slots slots = create(ring, secret);
    int missed_count = 0;
    int repaired_count = 0;
    for (size_t bit = 0; bit < slots.len * 8; bit++) {
        uint8_t mask = (uint8_t)(1 << bit % 8);
        slots.bytes[bit / 8] ^= mask;
        int err = open_error(&slots, secret);
        missed_count += err != -VV_ERR_CHECKSUM && (bit >= 64 || err != -VV_ERR_FORMAT);
        slots.bytes[bit / 8] ^= mask;
    }
    tap_is_int(missed_count, 0, "every flipped bit is found");
    /* With the checksums made right, in the slots. Costs that are allowed cost time: skip most. */
    for (size_t bit = SLOTS_OFFSET * 8; bit < (slots.len - 4) * 8; bit++) {
        size_t in_slot = bit / 8 - SLOTS_OFFSET;
        if (in_slot >= 4 && in_slot < 12 && bit % 8 != 1)
            continue;
        uint8_t mask = (uint8_t)(1 << bit % 8);
        slots.bytes[bit / 8] ^= mask;
        repair(&slots);
        int err = open_error(&slots, secret);
        repaired_count += err != -VV_ERR_NO_KEY && err != -VV_ERR_FORMAT;
        slots.bytes[bit / 8] ^= mask;
    }
    tap_is_int(repaired_count, 0, "also with the checksum made right");
    repair(&slots);
    tap_ok(opens_to(&slots, secret, ring), "still opens");
    missed_count = 0;
    for (size_t len = 0; len < slots.len; len++) {
        struct slots cut = {slots.bytes, len};
        missed_count += open_error(&cut, secret) >= 0;
    }
    tap_is_int(missed_count, 0, "every missing end is found");
    vv_free(slots.bytes);
    vv_keyring_free(ring);
}

/* What changing one number of the list to `value` gives, the checksum being right. */
static int open_with(const struct slots *slots, size_t offset, size_t len, uint32_t value)
{
    struct slots copy = {vv_memdup(slots->bytes, slots->len), slots->len};
    if (!copy.bytes)
        abort();
    for (size_t i = 0; i < len; i++)
        copy.bytes[offset + i] = (uint8_t)(value >> (8 * i));
    repair(&copy);
    int err = open_error(&copy, &first);
    vv_free(copy.bytes);
    return err;
}

static void test_hostile(void)
{
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    struct slots slots = create(ring, &first);
    tap_is_int(open_with(&slots, 96, 1, 1), 0, "unchanged");
    tap_is_int(open_with(&slots, 96, 1, 0), -VV_ERR_FORMAT, "no slots");
    tap_is_int(open_with(&slots, 96, 1, 2), -VV_ERR_FORMAT, "a slot that is not there");
    tap_is_int(open_with(&slots, 96, 1, 17), -VV_ERR_FORMAT, "too many slots");
    tap_is_int(open_with(&slots, 97, 1, 1), -VV_ERR_FORMAT, "a reserved byte");
    tap_is_int(open_with(&slots, 99, 1, 1), -VV_ERR_FORMAT, "another");
    tap_is_int(open_with(&slots, 100, 1, 3), -VV_ERR_FORMAT, "kind 3");
    tap_is_int(open_with(&slots, 100, 1, 2), -VV_ERR_FORMAT, "a key file slot with Argon2id");
    tap_is_int(open_with(&slots, 101, 1, 2), -VV_ERR_FORMAT, "a passphrase slot with HKDF");
    tap_is_int(open_with(&slots, 102, 2, 57), -VV_ERR_FORMAT, "a wrong length");
    tap_is_int(open_with(&slots, 102, 2, 0xffff), -VV_ERR_FORMAT, "a large length");
    tap_is_int(open_with(&slots, 104, 4, 0), -VV_ERR_FORMAT, "no passes");
    tap_is_int(open_with(&slots, 104, 4, 17), -VV_ERR_FORMAT, "too many passes");
    tap_is_int(open_with(&slots, 108, 4, 7), -VV_ERR_FORMAT, "too little memory");
    tap_is_int(open_with(&slots, 108, 4, (1u << 20) + 1), -VV_ERR_FORMAT, "too much memory");
    tap_is_int(open_with(&slots, 104, 4, 2), -VV_ERR_NO_KEY, "the cost is authenticated");
    vv_free(slots.bytes);
    vv_keyring_free(ring);
}

/* A slot moved into another volume's list does not open. */
static void test_moved(void)
{
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    struct slots slots = create(ring, &file_secret);
    struct vv_object_header header;
    tap_is_int(vv_object_header_decode(slots.bytes, slots.len, &header), 0, "the header decodes");
    tap_is_int(header.kind, VV_KIND_KEYS, "kind");
    tap_is_int((int64_t)header.key_generation, 0, "key generation");
    header.volume_id[3] ^= 1;
    vv_object_header_encode(&header, slots.bytes);
    repair(&slots);
    tap_is_int(open_error(&slots, &file_secret), -VV_ERR_NO_KEY, "another volume's list");
    header.volume_id[3] ^= 1;
    header.kind = VV_KIND_DATA;
    vv_object_header_encode(&header, slots.bytes);
    repair(&slots);
    tap_is_int(open_error(&slots, &file_secret), -VV_ERR_FORMAT, "no list of slots");
    vv_free(slots.bytes);
    vv_keyring_free(ring);
}

/* The stored bytes, made by this program; the passphrase one costs 1 pass over 8 KiB. */
static void test_vector(const struct vv_secret *secret, const char *want)
{
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    struct vv_slots_random random;
    struct slots slots = {0};
    char got[2 * (SLOTS_OFFSET + SLOT_LEN + 4) + 1];
    memset(random.attempt_id, 1, sizeof(random.attempt_id));
    memset(random.header_salt, 2, sizeof(random.header_salt));
    memset(random.slot_salt, 3, sizeof(random.slot_salt));
    memset(random.slot_nonce, 4, sizeof(random.slot_nonce));
    int err =
        vv_slots_create_with(ring, secret, &vv_slot_cost_test, &random, &slots.bytes, &slots.len);
    tap_is_int(err, 0, "a list with randomness that is known");
    vv_hex(slots.bytes + VV_OBJECT_HEADER_LEN, slots.len - VV_OBJECT_HEADER_LEN, got);
    tap_is_str(got, want, "the stored bytes after the header");
    vv_free(slots.bytes);
    vv_keyring_free(ring);
}

static int create_and_rewrite(void *arg)
{
    struct slots slots = {0};
    TRY(vv_slots_create(arg, &first, &vv_slot_cost_test, &slots.bytes, &slots.len));
    int err = rewrite(&slots, true, &first, &file_secret);
    if (err == 0)
        err = rewrite(&slots, false, &first, &second);
    if (err == 0)
        err = open_error(&slots, &second);
    vv_free(slots.bytes);
    return err;
}

int main(void)
{
    vv_alloc_track(true);
    test_open();
    test_rewrite();
    test_no_secrets();
    test_flips(&first);
    test_flips(&file_secret);
    test_hostile();
    test_moved();
    test_vector(&first,
                "0100000001013800010000000800000003030303030303030303030303030303040404040404"
                "040404040404040404040404040404040404a4946d2fd0a2cdf1a4de678905a46eccfd885cc6"
                "ec5fd0b195414e2f680207d29f1e4bd460356c7000ebb9ecdf883896d3315ac67d3f2f3c5d78"
                "e98079b9f7d7056cfc6181f28cc64bec6e5e");
    test_vector(&file_secret,
                "0100000002023800000000000000000003030303030303030303030303030303040404040404"
                "040404040404040404040404040404040404c63ab7732c77f45517b4b7ed43efa67d551c8c74"
                "7e79c65176774e3207255914b143a5e1b12760df8d8c554082af8c9d1d87fe812526f74f770a"
                "f92919fd5c95df39b2231b1e90049c417591");
    struct vv_keyring *ring = fixture_ring(0x77, 2);
    fixture_fail_allocs(create_and_rewrite, ring, "key slots");
    vv_keyring_free(ring);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing leaks");
    return tap_done();
}
