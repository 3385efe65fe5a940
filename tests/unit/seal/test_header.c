#include "seal/seal.h"

#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "unit/seal/fixture.h"

static void test_names(void)
{
    enum vv_cipher cipher = VV_CIPHER_NONE;
    enum vv_compression compression = VV_COMPRESSION_NONE;
    for (int i = VV_CIPHER_NONE; i <= VV_CIPHER_XCHACHA20_POLY1305; i++) {
        const char *name = vv_cipher_name((enum vv_cipher)i);
        bool is_same = vv_cipher_parse(name, &cipher) == 0 && (int)cipher == i;
        tap_ok(is_same, "cipher %s", name);
    }
    for (int i = VV_COMPRESSION_NONE; i <= VV_COMPRESSION_ZSTD; i++) {
        const char *name = vv_compression_name((enum vv_compression)i);
        bool is_same = vv_compression_parse(name, &compression) == 0 && (int)compression == i;
        tap_ok(is_same, "compression %s", name);
    }
    tap_is_int(vv_cipher_parse("rot13", &cipher), -EINVAL, "an unknown cipher");
    tap_is_int(vv_cipher_parse("", &cipher), -EINVAL, "an empty cipher");
    tap_is_int(vv_compression_parse("LZ4", &compression), -EINVAL, "an unknown compression");
    tap_is_str(vv_cipher_name((enum vv_cipher)9), "unknown", "the name of no cipher");
    tap_is_str(vv_compression_name((enum vv_compression)9), "unknown", "of no compression");
}

static void test_vector(const struct vv_object_header *header, const uint8_t *bytes)
{
    static const char want[] = "766172766500 0d0a 0100 06 01 01000000"
                               "77777777777777777777777777777777"
                               "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
                               "000102030405060708090a0b0c0d0e0f"
                               "101112131415161718191a1b1c1d1e1f"
                               "8877665544332211 00000000 117ea3a8";
    char digits[2 * VV_OBJECT_HEADER_LEN + 1];
    size_t len = 0;
    for (size_t i = 0; want[i]; i++) {
        if (want[i] != ' ')
            digits[len++] = want[i];
    }
    digits[len] = '\0';
    char got[2 * VV_OBJECT_HEADER_LEN + 1];
    vv_hex(bytes, VV_OBJECT_HEADER_LEN, got);
    tap_is_str(got, digits, "the stored bytes of a header");

    struct vv_object_header back;
    memset(&back, 0xff, sizeof(back));
    tap_is_int(vv_object_header_decode(bytes, VV_OBJECT_HEADER_LEN, &back), 0, "decodes");
    bool is_same = back.version == header->version && back.kind == header->kind &&
                   back.cipher == header->cipher && back.number == header->number &&
                   back.key_generation == header->key_generation &&
                   memcmp(back.volume_id, header->volume_id, 16) == 0 &&
                   memcmp(back.attempt_id, header->attempt_id, 16) == 0 &&
                   memcmp(back.salt, header->salt, 32) == 0;
    tap_ok(is_same, "every field comes back");
}

static void test_flips(const uint8_t *bytes)
{
    struct vv_object_header back = {.number = 99};
    uint8_t copy[VV_OBJECT_HEADER_LEN];
    int missed_count = 0;
    for (size_t bit = 0; bit < sizeof(copy) * 8; bit++) {
        memcpy(copy, bytes, sizeof(copy));
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int want = bit < 64 ? -VV_ERR_FORMAT : -VV_ERR_CHECKSUM;
        missed_count += vv_object_header_decode(copy, sizeof(copy), &back) != want;
    }
    tap_is_int(missed_count, 0, "every flipped bit is found");
    tap_is_int(vv_object_header_decode(bytes, VV_OBJECT_HEADER_LEN - 1, &back), -VV_ERR_FORMAT,
               "a byte too few");
    tap_is_int(vv_object_header_decode(bytes, 0, &back), -VV_ERR_FORMAT, "nothing");
    tap_is_int((int64_t)back.number, 99, "the output is untouched on failure");
}

/* Set one byte and make the checksum right again. */
static int decode_with(const uint8_t *bytes, size_t offset, uint8_t value)
{
    uint8_t copy[VV_OBJECT_HEADER_LEN];
    struct vv_object_header back;
    memcpy(copy, bytes, sizeof(copy));
    copy[offset] = value;
    vv_store_u32(copy + 92, vv_crc32c(0, copy, 92));
    return vv_object_header_decode(copy, sizeof(copy), &back);
}

static void test_fields(const uint8_t *bytes)
{
    tap_is_int(decode_with(bytes, 8, 2), -VV_ERR_NEWER, "a newer version");
    tap_is_int(decode_with(bytes, 9, 1), -VV_ERR_NEWER, "a much newer version");
    tap_is_int(decode_with(bytes, 8, 0), -VV_ERR_FORMAT, "version 0");
    tap_is_int(decode_with(bytes, 10, 0), -VV_ERR_FORMAT, "kind 0");
    tap_is_int(decode_with(bytes, 10, 9), -VV_ERR_FORMAT, "kind 9");
    tap_is_int(decode_with(bytes, 10, 8), 0, "kind 8");
    tap_is_int(decode_with(bytes, 11, 3), -VV_ERR_FORMAT, "cipher 3");
    tap_is_int(decode_with(bytes, 11, 0), 0, "cipher 0");
    tap_is_int(decode_with(bytes, 91, 1), -VV_ERR_FORMAT, "a reserved byte");
}

int main(void)
{
    test_names();
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    struct vv_object_header header = fixture_header(ring, VV_KIND_DATA, VV_CIPHER_AES_256_GCM);
    uint8_t bytes[VV_OBJECT_HEADER_LEN];
    vv_object_header_encode(&header, bytes);
    test_vector(&header, bytes);
    test_flips(bytes);
    test_fields(bytes);
    vv_keyring_free(ring);
    return tap_done();
}
