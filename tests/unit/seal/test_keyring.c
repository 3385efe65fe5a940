#include "seal/keyring_impl.h"

#include <errno.h>
#include <string.h>

#include "unit/seal/fixture.h"

static const uint8_t volume_id[16] = "sixteen  letters";

static void test_generations(void)
{
    struct vv_keyring *ring = NULL;
    tap_is_int(vv_keyring_new(volume_id, &ring), 0, "a new ring");
    tap_is_bytes(vv_keyring_volume_id(ring), volume_id, 16, "has its volume's id");
    tap_is_int(vv_keyring_generation(ring), 1, "begins with generation 1");
    uint8_t first[VV_MASTER_KEY_LEN];
    memcpy(first, vv_keyring_key(ring, 1), sizeof(first));
    static const uint8_t zero[VV_MASTER_KEY_LEN];
    tap_ok(memcmp(first, zero, sizeof(zero)) != 0, "whose key is not zero");
    tap_ok(!vv_keyring_key(ring, 0), "there is no generation 0");
    tap_ok(!vv_keyring_key(ring, 2), "there is no generation 2");
    int err = 0;
    for (uint32_t i = 1; i < VV_MASTER_KEYS_MAX && err == 0; i++)
        err = vv_keyring_add_generation(ring);
    tap_is_int(err, 0, "up to VV_MASTER_KEYS_MAX generations");
    tap_is_int(vv_keyring_generation(ring), VV_MASTER_KEYS_MAX, "the newest seals");
    tap_is_bytes(vv_keyring_key(ring, 1), first, sizeof(first), "the first key is still there");
    tap_ok(memcmp(vv_keyring_key(ring, 2), first, sizeof(first)) != 0, "the second is another");
    tap_is_int(vv_keyring_add_generation(ring), -VV_ERR_LIMIT, "one more is too many");
    tap_is_int(vv_keyring_generation(ring), VV_MASTER_KEYS_MAX, "which changes nothing");
    vv_keyring_free(ring);
    vv_keyring_free(NULL);
}

static void test_coding(uint32_t generations)
{
    struct vv_keyring *ring = fixture_ring(0x5a, generations);
    uint8_t bytes[VV_KEYRING_LEN_MAX];
    size_t len = vv_keyring_encode(ring, bytes);
    tap_is_int((int64_t)len, 20 + 36 * generations, "%u generations: length", generations);
    tap_ok(vv_keyring_len_is_valid(len), "is a valid length");
    struct vv_keyring *back = NULL;
    tap_is_int(vv_keyring_decode(bytes, len, &back), 0, "decodes");
    tap_is_bytes(back, ring, sizeof(*ring), "to the same ring");
    vv_keyring_free(back);
    vv_keyring_free(ring);
}

static void expect_bad(const uint8_t *bytes, size_t len, const char *what)
{
    struct vv_keyring *back = NULL;
    tap_is_int(vv_keyring_decode(bytes, len, &back), -VV_ERR_FORMAT, "%s", what);
    tap_ok(!back, "and gives no ring");
}

static void test_bad(void)
{
    struct vv_keyring *ring = fixture_ring(0x5a, 2);
    uint8_t bytes[VV_KEYRING_LEN_MAX + 36];
    memset(bytes, 0, sizeof(bytes));
    size_t len = vv_keyring_encode(ring, bytes);
    expect_bad(bytes, len - 1, "a byte too few");
    expect_bad(bytes, len + 1, "a byte too many");
    expect_bad(bytes, len - 36, "a key too few");
    expect_bad(bytes, len + 36, "a key too many");
    expect_bad(bytes, sizeof(bytes), "more keys than a ring can have");
    expect_bad(bytes, 20, "no keys");
    expect_bad(bytes, 0, "nothing");
    vv_store_u32(bytes + 56, 1);
    expect_bad(bytes, len, "a generation twice");
    vv_store_u32(bytes + 20, 0);
    expect_bad(bytes, len, "generation 0");
    vv_keyring_free(ring);
}

static int make_and_decode(void *arg)
{
    uint8_t bytes[VV_KEYRING_LEN_MAX];
    CLEANUP(vv_keyring_free_ptr) struct vv_keyring *ring = NULL;
    CLEANUP(vv_keyring_free_ptr) struct vv_keyring *back = NULL;
    TRY(vv_keyring_new(volume_id, &ring));
    return vv_keyring_decode(bytes, vv_keyring_encode(ring, bytes), &back);
}

int main(void)
{
    vv_alloc_track(true);
    test_generations();
    test_coding(1);
    test_coding(2);
    test_coding(VV_MASTER_KEYS_MAX);
    test_bad();
    fixture_fail_allocs(make_and_decode, NULL, "keyring");
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing leaks");
    return tap_done();
}
