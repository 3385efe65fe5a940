#include "seal/aead_impl.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>

#include "unit/seal/fixture.h"

/* RFC 5869, appendix A; our keys are the first 32 bytes of its output. */
static void test_hkdf(void)
{
    uint8_t secret[80];
    uint8_t salt[80];
    uint8_t info[80];
    struct vv_key key;
    char hex[65];
    memset(secret, 0x0b, sizeof(secret));
    for (size_t i = 0; i < 80; i++) {
        salt[i] = (uint8_t)i;
        info[i] = (uint8_t)(0xf0 + i);
    }
    int err = vv_key_derive((struct vv_bytes){secret, 22}, (struct vv_bytes){salt, 13},
                            (struct vv_bytes){info, 10}, &key);
    vv_hex(key.bytes, 32, hex);
    tap_is_int(err, 0, "HKDF");
    tap_is_str(hex, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
               "RFC 5869 test case 1");
    vv_key_done(&key);
    for (size_t i = 0; i < 80; i++) {
        secret[i] = (uint8_t)i;
        salt[i] = (uint8_t)(0x60 + i);
        info[i] = (uint8_t)(0xb0 + i);
    }
    err = vv_key_derive((struct vv_bytes){secret, 80}, (struct vv_bytes){salt, 80},
                        (struct vv_bytes){info, 80}, &key);
    vv_hex(key.bytes, 32, hex);
    tap_is_int(err, 0, "HKDF");
    tap_is_str(hex, "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
               "RFC 5869 test case 2");
    vv_key_done(&key);
}

/* McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 and 14. */
static void test_gcm_vectors(void)
{
    struct vv_key key = {0};
    uint8_t text[16] = {0};
    uint8_t tag[16];
    char hex[33];
    vv_key_init(&key);
    struct vv_message message = {.text = {text, 0}};
    tap_is_int(vv_aead_seal(VV_CIPHER_AES_256_GCM, &key, &message, text, tag), 0, "GCM");
    vv_hex(tag, 16, hex);
    tap_is_str(hex, "530f8afbc74536b9a963b4f1c4cb738b", "GCM test case 13");
    message.text.len = 16;
    tap_is_int(vv_aead_seal(VV_CIPHER_AES_256_GCM, &key, &message, text, tag), 0, "GCM");
    vv_hex(text, 16, hex);
    tap_is_str(hex, "cea7403d4d606b6e074ec5d3baf39d18", "GCM test case 14: text");
    vv_hex(tag, 16, hex);
    tap_is_str(hex, "d0d1c8a799996bf0265b98b5d48ab919", "GCM test case 14: tag");
    vv_key_done(&key);
}

static void fill_message(struct vv_key *key, uint8_t *text, size_t text_len, uint8_t *aad,
                         size_t aad_len)
{
    fixture_noise(key->bytes, sizeof(key->bytes), 1);
    fixture_noise(text, text_len, 2);
    fixture_noise(aad, aad_len, 3);
    vv_key_init(key);
}

/* The other library's implementation gives the same, index and associated data included. */
static void test_gcm_against_sodium(void)
{
    if (!crypto_aead_aes256gcm_is_available()) {
        tap_skip("libsodium has no AES-256-GCM on this processor");
        return;
    }
    struct vv_key key;
    uint8_t text[100];
    uint8_t aad[25];
    uint8_t got[100];
    uint8_t tag[16];
    uint8_t want[116];
    uint8_t nonce[12] = {0x78, 0x56, 0x34, 0x12};
    fill_message(&key, text, sizeof(text), aad, sizeof(aad));
    struct vv_message message = {0x12345678, {aad, sizeof(aad)}, {text, sizeof(text)}};
    tap_is_int(vv_aead_seal(VV_CIPHER_AES_256_GCM, &key, &message, got, tag), 0, "GCM");
    crypto_aead_aes256gcm_encrypt(want, NULL, text, sizeof(text), aad, sizeof(aad), NULL, nonce,
                                  key.bytes);
    tap_is_bytes(got, want, sizeof(text), "GCM as libsodium does it: text");
    tap_is_bytes(tag, want + sizeof(text), sizeof(tag), "GCM as libsodium does it: tag");
    vv_key_done(&key);
}

/* XChaCha20-Poly1305 is ChaCha20-Poly1305 under a key that HChaCha20 derives. */
static void test_xchacha(void)
{
    struct vv_key key;
    uint8_t text[100];
    uint8_t aad[25];
    uint8_t got[100];
    uint8_t tag[16];
    uint8_t want[116];
    uint8_t nonce[24] = {0x78, 0x56, 0x34, 0x12};
    uint8_t inner_key[32];
    uint8_t inner_nonce[12] = {0};
    fill_message(&key, text, sizeof(text), aad, sizeof(aad));
    struct vv_message message = {0x12345678, {aad, sizeof(aad)}, {text, sizeof(text)}};
    tap_is_int(vv_aead_seal(VV_CIPHER_XCHACHA20_POLY1305, &key, &message, got, tag), 0, "XChaCha");
    crypto_core_hchacha20(inner_key, nonce, key.bytes, NULL);
    crypto_aead_chacha20poly1305_ietf_encrypt(want, NULL, text, sizeof(text), aad, sizeof(aad),
                                              NULL, inner_nonce, inner_key);
    tap_is_bytes(got, want, sizeof(text), "XChaCha20-Poly1305: text");
    tap_is_bytes(tag, want + sizeof(text), sizeof(tag), "XChaCha20-Poly1305: tag");
    vv_key_done(&key);
}

static void test_open(enum vv_cipher cipher)
{
    const char *name = vv_cipher_name(cipher);
    int want = cipher == VV_CIPHER_NONE ? -VV_ERR_CHECKSUM : -VV_ERR_AUTH;
    struct vv_key key;
    uint8_t text[100];
    uint8_t aad[25];
    uint8_t sealed[100];
    uint8_t back[100];
    uint8_t tag[16];
    fill_message(&key, text, sizeof(text), aad, sizeof(aad));
    struct vv_message message = {7, {aad, sizeof(aad)}, {text, sizeof(text)}};
    tap_is_int(vv_aead_seal(cipher, &key, &message, sealed, tag), 0, "%s seals", name);
    message.text.ptr = sealed;
    tap_is_int(vv_aead_open(cipher, &key, &message, tag, back), 0, "%s opens", name);
    tap_is_bytes(back, text, sizeof(text), "to the same");
    tag[3] ^= 1;
    tap_is_int(vv_aead_open(cipher, &key, &message, tag, back), want, "not with another tag");
    tap_ok(memcmp(back, text, sizeof(text)) == 0 || sodium_is_zero(back, sizeof(back)),
           "which leaves nothing unauthenticated behind");
    tag[3] ^= 1;
    struct vv_key other = key;
    other.bytes[0] ^= 1;
    vv_key_init(&other);
    tap_is_int(vv_aead_open(cipher, &other, &message, tag, back), want, "not with another key");
    tap_is_int(vv_aead_open(cipher, &key, &message, tag, back), 0, "still with the right key");
    uint8_t *in_place = sealed;
    tap_is_int(vv_aead_open(cipher, &key, &message, tag, in_place), 0, "%s opens in place", name);
    tap_is_bytes(in_place, text, sizeof(text), "to the same");
    vv_key_done(&other);
    vv_key_done(&key);
    tap_ok(sodium_is_zero((const uint8_t *)&key, sizeof(key)), "a key is wiped when done");
}

#define THREADS 4
#define ROUNDS 400

/* Seals and opens with a key that all threads share and with keys that come and go. */
static void *work(void *arg)
{
    const struct vv_key *shared = arg;
    uint8_t text[64];
    uint8_t sealed[64];
    uint8_t tag[16];
    size_t bad_count = 0;
    fixture_noise(text, sizeof(text), 5);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct vv_key own;
        struct vv_message message = {i, {NULL, 0}, {text, sizeof(text)}};
        uint8_t secret[4];
        vv_store_u32(secret, i);
        bad_count += vv_key_derive((struct vv_bytes){secret, 4}, (struct vv_bytes){secret, 4},
                                   (struct vv_bytes){secret, 4}, &own) != 0;
        const struct vv_key *key = i % 2 == 0 ? shared : &own;
        bad_count += vv_aead_seal(VV_CIPHER_AES_256_GCM, key, &message, sealed, tag) != 0;
        message.text.ptr = sealed;
        bad_count += vv_aead_open(VV_CIPHER_AES_256_GCM, key, &message, tag, sealed) != 0;
        bad_count += memcmp(sealed, text, sizeof(text)) != 0;
        vv_key_done(&own);
    }
    return (void *)bad_count;
}

static void test_threads(void)
{
    struct vv_key key = {.bytes = "shared by all"};
    vv_key_init(&key);
    pthread_t threads[THREADS];
    size_t bad_count = 0;
    for (size_t i = 0; i < THREADS; i++)
        bad_count += pthread_create(&threads[i], NULL, work, &key) != 0;
    for (size_t i = 0; i < THREADS; i++) {
        void *result = NULL;
        bad_count += pthread_join(threads[i], &result) != 0;
        bad_count += (size_t)result;
    }
    tap_is_int((int64_t)bad_count, 0, "several threads at once");
    vv_key_done(&key);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
    test_hkdf();
    test_gcm_vectors();
    test_gcm_against_sodium();
    test_xchacha();
    for (int cipher = VV_CIPHER_NONE; cipher <= VV_CIPHER_XCHACHA20_POLY1305; cipher++)
        test_open((enum vv_cipher)cipher);
    test_threads();
    return tap_done();
}
