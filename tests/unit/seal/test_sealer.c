#include "seal/sealer_impl.h"

#include <errno.h>
#include <string.h>

#include "unit/seal/fixture.h"

#define NAME "data/07/0000000000000003-0000000000000007"
#define PLAIN_LEN 40

static const struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_NONE, 0};
static const struct vv_origin origin = {0x1234, 0x56};

/* Computed with Python's hmac from the description in seal.h. */
static void test_vectors(void)
{
    static const char *const want[] = {
        "6dd49a58f988c53976e8813503c9824406807d00e30c1dccef8b8c06558aa3a2",
        "ed23ed8e61775b7d9b120b0cb4f70348144c835ce05fed70c0ccd55a3df98924",
        "0466cf231bcc9a7e33d57a4a0ca4cdd0bc772ea8c91db22767dcb370f4c8293b",
    };
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    for (uint8_t cipher = 0; cipher < 3; cipher++) {
        struct vv_object_header header = fixture_header(ring, VV_KIND_DATA, cipher);
        struct vv_sealer *sealer = NULL;
        char got[2 * VV_KEY_LEN + 1] = "";
        tap_is_int(vv_sealer_open(ring, &header, NAME, &sealer), 0, "a sealer");
        if (sealer)
            vv_hex(sealer->key.bytes, VV_KEY_LEN, got);
        tap_is_str(got, want[cipher], "its key, cipher %u", cipher);
        vv_sealer_free(sealer);
    }
    vv_keyring_free(ring);
}

static void test_new(void)
{
    struct vv_keyring *ring = fixture_ring(0x77, 2);
    struct vv_object_header header;
    struct vv_object_header second;
    struct vv_sealer *sealer = NULL;
    struct vv_sealer *other = NULL;
    tap_is_int(vv_sealer_new(ring, VV_KIND_LOG, NAME, 5, &settings, &header, &sealer), 0, "new");
    tap_is_int(header.version, VV_FORMAT_VERSION, "version");
    tap_is_int(header.kind, VV_KIND_LOG, "kind");
    tap_is_int(header.cipher, VV_CIPHER_AES_256_GCM, "cipher");
    tap_is_int(header.key_generation, 2, "the newest key generation");
    tap_is_int((int64_t)header.number, 5, "number");
    tap_is_bytes(header.volume_id, vv_keyring_volume_id(ring), 16, "volume id");
    tap_is_int(vv_sealer_new(ring, VV_KIND_LOG, NAME, 5, &settings, &second, &other), 0, "again");
    tap_ok(memcmp(header.salt, second.salt, 32) != 0, "a new salt each time");
    tap_ok(memcmp(header.attempt_id, second.attempt_id, 16) != 0, "a new attempt id each time");
    vv_sealer_free(sealer);
    vv_sealer_free(other);
    vv_sealer_free(NULL);
    vv_keyring_free(ring);
}

/* What opening the frame gives when the reader goes by this ring, header and name. */
static int open_as(const struct vv_keyring *ring, const struct vv_object_header *header,
                   const char *name, const uint8_t *frame)
{
    struct vv_sealer *reader = NULL;
    uint8_t plain[PLAIN_LEN];
    TRY(vv_sealer_open(ring, header, name, &reader));
    ssize_t len =
        vv_frame_open(reader, 0, &origin, frame, vv_frame_bound(PLAIN_LEN), plain, sizeof(plain));
    vv_sealer_free(reader);
    return (int)len;
}

/* Frames open under the header and name that they were sealed for, and no other. */
static void test_binding(enum vv_cipher cipher)
{
    int want = cipher == VV_CIPHER_NONE ? -VV_ERR_CHECKSUM : -VV_ERR_AUTH;
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    struct vv_keyring *ring_of_others = fixture_ring(0x77, 1);
    struct vv_seal_settings own_settings = {cipher, VV_COMPRESSION_NONE, 0};
    struct vv_object_header header;
    struct vv_sealer *writer = NULL;
    uint8_t plain[PLAIN_LEN] = "forty bytes of plain text, then zeros";
    uint8_t frame[PLAIN_LEN + VV_FRAME_OVERHEAD];
    tap_is_int(vv_sealer_new(ring, VV_KIND_LOG, NAME, 5, &own_settings, &header, &writer), 0, "%s",
               vv_cipher_name(cipher));
    ssize_t len = vv_frame_seal(writer, 0, &origin, plain, PLAIN_LEN, frame, sizeof(frame));
    tap_is_int(len, (int64_t)sizeof(frame), "seals");
    tap_is_int(open_as(ring, &header, NAME, frame), PLAIN_LEN, "opens");
    tap_is_int(open_as(ring, &header, NAME "1", frame), want, "not under another name");
    struct vv_object_header changed = header;
    changed.kind = VV_KIND_DATA;
    tap_is_int(open_as(ring, &changed, NAME, frame), want, "not as another kind");
    changed = header;
    changed.number++;
    tap_is_int(open_as(ring, &changed, NAME, frame), want, "not with another number");
    changed = header;
    changed.attempt_id[15] ^= 1;
    tap_is_int(open_as(ring, &changed, NAME, frame), want, "not with another attempt id");
    changed = header;
    changed.salt[0] ^= 1;
    tap_is_int(open_as(ring, &changed, NAME, frame), want, "not with another salt");
    memset(ring_of_others->keys[0].bytes, 9, VV_MASTER_KEY_LEN);
    tap_is_int(open_as(ring_of_others, &header, NAME, frame), want, "not with another key");
    changed = header;
    changed.cipher = cipher == VV_CIPHER_XCHACHA20_POLY1305 ? VV_CIPHER_AES_256_GCM
                                                            : VV_CIPHER_XCHACHA20_POLY1305;
    tap_is_int(open_as(ring, &changed, NAME, frame), -VV_ERR_AUTH, "not with another cipher");
    changed = header;
    changed.volume_id[0] ^= 1;
    tap_is_int(open_as(ring, &changed, NAME, frame), -VV_ERR_FORMAT, "not as another volume's");
    memcpy(ring_of_others->volume_id, changed.volume_id, 16);
    tap_is_int(open_as(ring_of_others, &changed, NAME, frame), want, "nor in that volume");
    changed = header;
    changed.key_generation = 2;
    tap_is_int(open_as(ring, &changed, NAME, frame), -VV_ERR_NO_KEY, "not without its key");
    vv_sealer_free(writer);
    vv_keyring_free(ring);
    vv_keyring_free(ring_of_others);
}

/* Objects of older key generations stay readable. */
static void test_generations(void)
{
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    struct vv_object_header header;
    struct vv_sealer *writer = NULL;
    uint8_t plain[PLAIN_LEN] = "text";
    uint8_t frame[PLAIN_LEN + VV_FRAME_OVERHEAD];
    int err = vv_sealer_new(ring, VV_KIND_LOG, NAME, 5, &settings, &header, &writer);
    tap_is_int(err, 0, "sealed under generation 1");
    ssize_t len = vv_frame_seal(writer, 0, &origin, plain, PLAIN_LEN, frame, sizeof(frame));
    tap_is_int(len, (int64_t)sizeof(frame), "a frame");
    tap_is_int(vv_keyring_add_generation(ring), 0, "a second generation");
    tap_is_int(open_as(ring, &header, NAME, frame), PLAIN_LEN, "opens all the same");
    vv_sealer_free(writer);
    vv_keyring_free(ring);
}

static int new_and_open(void *arg)
{
    const struct vv_keyring *ring = arg;
    struct vv_object_header header = {.number = 77};
    struct vv_sealer *writer = NULL;
    struct vv_sealer *reader = NULL;
    int err = vv_sealer_new(ring, VV_KIND_LOG, NAME, 5, &settings, &header, &writer);
    if (err < 0) {
        tap_ok(!writer && header.number == 77, "the outputs are untouched on failure");
        return err;
    }
    err = vv_sealer_open(ring, &header, NAME, &reader);
    tap_ok(err == 0 || !reader, "so is the reader");
    vv_sealer_free(writer);
    vv_sealer_free(reader);
    return err;
}

int main(void)
{
    vv_alloc_track(true);
    test_vectors();
    test_new();
    for (int cipher = 0; cipher < 3; cipher++)
        test_binding((enum vv_cipher)cipher);
    test_generations();
    struct vv_keyring *ring = fixture_ring(1, 1);
    fixture_fail_allocs(new_and_open, ring, "sealer");
    vv_keyring_free(ring);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing leaks");
    return tap_done();
}
