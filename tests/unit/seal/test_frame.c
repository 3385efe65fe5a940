#include "seal/seal.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "seal/sealer_impl.h"
#include "unit/seal/fixture.h"

#define NAME "data/07/0000000000000003-0000000000000007"
#define CIPHERS 3
#define COMPRESSIONS 3

static const struct vv_origin origin = {0x1234, 0x56};

/* A writer and a reader of one object whose salt is known. */
struct pair {
    struct vv_keyring *ring;
    struct vv_sealer *writer;
    struct vv_sealer *reader;
    int damaged; /* what opening a damaged frame gives */
};

static struct pair pair_new(enum vv_cipher cipher, enum vv_compression compression)
{
    struct pair pair = {.ring = fixture_ring(0x77, 1)};
    struct vv_seal_settings settings = {cipher, compression, 0};
    struct vv_object_header header = fixture_header(pair.ring, VV_KIND_DATA, (uint8_t)cipher);
    if (vv_sealer_make(pair.ring, &header, NAME, &settings, &pair.writer) < 0 ||
        vv_sealer_open(pair.ring, &header, NAME, &pair.reader) < 0)
        abort();
    pair.damaged = cipher == VV_CIPHER_NONE ? -VV_ERR_CHECKSUM : -VV_ERR_AUTH;
    return pair;
}

static void pair_done(struct pair *pair)
{
    vv_sealer_free(pair->writer);
    vv_sealer_free(pair->reader);
    vv_keyring_free(pair->ring);
}

static void test_size(const struct pair *pair, size_t len, bool is_text)
{
    size_t capacity = vv_frame_bound(len);
    uint8_t *plain = malloc(len + 1);
    uint8_t *frame = malloc(capacity);
    uint8_t *back = malloc(len + 1);
    if (!plain || !frame || !back)
        abort();
    if (is_text)
        fixture_text(plain, len);
    else
        fixture_noise(plain, len, len);
    const char *what = is_text ? "text" : "noise";
    ssize_t frame_len = vv_frame_seal(pair->writer, 9, &origin, plain, len, frame, capacity);
    tap_ok(frame_len > 0 && (size_t)frame_len <= capacity, "%zu bytes of %s seal", len, what);
    bool is_packed = is_text && len > 1000 && pair->writer->compression != VV_COMPRESSION_NONE;
    tap_ok(is_packed ? (size_t)frame_len < capacity / 4 : (size_t)frame_len == capacity, "into %zd",
           frame_len);
    tap_is_int(vv_frame_plain_len(frame, (size_t)frame_len), (int64_t)len, "plain length");
    ssize_t back_len = vv_frame_open(pair->reader, 9, &origin, frame, (size_t)frame_len, back, len);
    tap_is_int(back_len, (int64_t)len, "opens");
    tap_is_bytes(back, plain, len, "to the same");
    if (len > 0)
        tap_is_int(vv_frame_open(pair->reader, 9, &origin, frame, (size_t)frame_len, back, len - 1),
                   -VV_ERR_FORMAT, "not into less room");
    free(plain);
    free(frame);
    free(back);
}

static void test_sizes(void)
{
    static const size_t lens[] = {0, 1, 100, 4095, 4096, 32768, 65537, 300000};
    for (int i = 0; i < CIPHERS * COMPRESSIONS; i++) {
        enum vv_cipher cipher = (enum vv_cipher)(i / COMPRESSIONS);
        enum vv_compression compression = (enum vv_compression)(i % COMPRESSIONS);
        tap_note("%s, %s", vv_cipher_name(cipher), vv_compression_name(compression));
        struct pair pair = pair_new(cipher, compression);
        for (size_t n = 0; n < sizeof(lens) / sizeof(lens[0]); n++) {
            test_size(&pair, lens[n], false);
            if (lens[n] != 100)
                test_size(&pair, lens[n], lens[n] > 1);
        }
        pair_done(&pair);
    }
}

/* The largest frame, once with each cipher and each compression. */
static void test_largest(void)
{
    for (int i = 0; i < CIPHERS; i++) {
        struct pair pair = pair_new((enum vv_cipher)i, (enum vv_compression)i);
        test_size(&pair, VV_FRAME_PLAIN_MAX, i != VV_CIPHER_NONE);
        pair_done(&pair);
    }
}

static void test_flips(const struct pair *pair, enum vv_compression compression)
{
    uint8_t plain[60];
    uint8_t frame[60 + VV_FRAME_OVERHEAD];
    uint8_t back[sizeof(plain)];
    fixture_text(plain, sizeof(plain));
    memset(plain + 20, 'a', 40);
    ssize_t sealed = vv_frame_seal_as(pair->writer, compression, 9, &origin, plain, sizeof(plain),
                                      frame, sizeof(frame));
    tap_ok(sealed > 0, "seals");
    size_t len = sealed > 0 ? (size_t)sealed : 0;
    tap_is_int(frame[0], compression, "as %s", vv_compression_name(compression));
    int missed_count = 0;
    for (size_t bit = 0; bit < len * 8; bit++) {
        frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ssize_t got = vv_frame_open(pair->reader, 9, &origin, frame, len, back, sizeof(back));
        bool is_header = bit < VV_FRAME_HEADER_LEN * 8;
        missed_count += got != pair->damaged && !(is_header && got == -VV_ERR_FORMAT);
        frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    tap_is_int(missed_count, 0, "every flipped bit is found");
    missed_count = 0;
    for (size_t cut = 0; cut < len; cut++)
        missed_count +=
            vv_frame_open(pair->reader, 9, &origin, frame, cut, back, sizeof(back)) >= 0;
    tap_is_int(missed_count, 0, "every missing end is found");
    struct vv_origin other = origin;
    other.extent++;
    tap_is_int(vv_frame_open(pair->reader, 9, &other, frame, len, back, sizeof(back)),
               pair->damaged, "not as another extent");
    other = origin;
    other.data_id++;
    tap_is_int(vv_frame_open(pair->reader, 9, &other, frame, len, back, sizeof(back)),
               pair->damaged, "not as another data id's");
    tap_is_int(vv_frame_open(pair->reader, 10, &origin, frame, len, back, sizeof(back)),
               pair->damaged, "not under another index");
    tap_is_int(vv_frame_open(pair->reader, 9, &origin, frame, len, back, sizeof(back)),
               sizeof(plain), "still as itself");
    tap_is_bytes(back, plain, sizeof(plain), "and right");
}

static void test_damage(void)
{
    for (int i = 0; i < CIPHERS * COMPRESSIONS; i++) {
        struct pair pair = pair_new((enum vv_cipher)(i / COMPRESSIONS), VV_COMPRESSION_NONE);
        tap_note("%s", vv_cipher_name((enum vv_cipher)(i / COMPRESSIONS)));
        test_flips(&pair, (enum vv_compression)(i % COMPRESSIONS));
        pair_done(&pair);
    }
}

/* Headers that no seal writes. */
static void test_bad_headers(void)
{
    uint8_t frame[100] = {0};
    tap_is_int(vv_frame_plain_len(frame, VV_FRAME_OVERHEAD), 0, "an empty frame");
    tap_is_int(vv_frame_plain_len(frame, VV_FRAME_OVERHEAD - 1), -VV_ERR_FORMAT, "too short");
    frame[0] = 3;
    tap_is_int(vv_frame_plain_len(frame, VV_FRAME_OVERHEAD), -VV_ERR_FORMAT, "compression 3");
    frame[0] = VV_COMPRESSION_LZ4;
    vv_store_u32(frame + 1, 50);
    tap_is_int(vv_frame_plain_len(frame, VV_FRAME_OVERHEAD + 49), 50, "a packed frame");
    tap_is_int(vv_frame_plain_len(frame, VV_FRAME_OVERHEAD + 50), -VV_ERR_FORMAT, "not shorter");
    tap_is_int(vv_frame_plain_len(frame, VV_FRAME_OVERHEAD), -VV_ERR_FORMAT, "packed to nothing");
    vv_store_u32(frame + 1, VV_FRAME_PLAIN_MAX);
    tap_is_int(vv_frame_plain_len(frame, VV_FRAME_OVERHEAD + 9), VV_FRAME_PLAIN_MAX, "the largest");
    vv_store_u32(frame + 1, VV_FRAME_PLAIN_MAX + 1);
    tap_is_int(vv_frame_plain_len(frame, VV_FRAME_OVERHEAD + 9), -VV_ERR_FORMAT, "too large");
    frame[0] = VV_COMPRESSION_NONE;
    vv_store_u32(frame + 1, 50);
    tap_is_int(vv_frame_plain_len(frame, VV_FRAME_OVERHEAD + 50), 50, "a plain frame");
    tap_is_int(vv_frame_plain_len(frame, VV_FRAME_OVERHEAD + 49), -VV_ERR_FORMAT, "a byte short");
}

/* Bytes that authenticate but do not unpack: what only a broken writer makes. */
static void test_bad_content(void)
{
    struct pair pair = pair_new(VV_CIPHER_AES_256_GCM, VV_COMPRESSION_NONE);
    for (uint8_t compression = VV_COMPRESSION_LZ4; compression <= VV_COMPRESSION_ZSTD;
         compression++) {
        uint8_t frame[40 + VV_FRAME_OVERHEAD] = {compression, 60};
        uint8_t aad[25] = {compression, 60};
        uint8_t back[60];
        vv_store_u32(aad + 5, 9);
        vv_store_u64(aad + 9, origin.data_id);
        vv_store_u64(aad + 17, origin.extent);
        uint8_t garbage[40];
        memset(garbage, 0xee, sizeof(garbage));
        struct vv_message message = {9, {aad, sizeof(aad)}, {garbage, sizeof(garbage)}};
        int err =
            vv_aead_seal(VV_CIPHER_AES_256_GCM, &pair.writer->key, &message, frame + 5, frame + 45);
        tap_is_int(err, 0, "garbage is sealed");
        tap_is_int(vv_frame_open(pair.reader, 9, &origin, frame, sizeof(frame), back, sizeof(back)),
                   -VV_ERR_FORMAT, "and does not unpack as %s",
                   vv_compression_name((enum vv_compression)compression));
    }
    pair_done(&pair);
}

/* AES and ChaCha by Python's cryptography from the description in seal.h; the others by this
 * program. The packed ones need not be what today's libraries make, but have to open for ever. */
static void test_vectors(void)
{
    static const char plain[] = "A varve is one year of a lake.";
    static const struct {
        enum vv_cipher cipher;
        enum vv_compression compression;
        const char *hex;
    } vectors[] = {
        {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_NONE,
         "001e0000005be3d07afc9ec02bfd7c063fd0e2fa1e119ded05b0fa56446c35a30553d83125a1881e4a9d845d2"
         "7879647484777"},
        {VV_CIPHER_XCHACHA20_POLY1305, VV_COMPRESSION_NONE,
         "001e000000058d98d8a2a456f8e6966475277111c0616e551f2e93335f80c1929c86bf6c49ac95b7bdcc0ec1b"
         "4758ea319039a"},
        {VV_CIPHER_NONE, VV_COMPRESSION_NONE,
         "001e00000041207661727665206973206f6e652079656172206f662061206c616b652e2d612d153f"
         "dfaa5dbae7f1cca2912ada"},
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        struct pair pair = pair_new(vectors[i].cipher, vectors[i].compression);
        uint8_t frame[sizeof(plain) + VV_FRAME_OVERHEAD];
        char hex[2 * sizeof(frame) + 1] = "";
        size_t len = sizeof(plain) - 1;
        ssize_t frame_len =
            vv_frame_seal(pair.writer, 3, &origin, plain, len, frame, sizeof(frame));
        if (frame_len > 0)
            vv_hex(frame, (size_t)frame_len, hex);
        tap_is_str(hex, vectors[i].hex, "the stored bytes of a frame, cipher %s",
                   vv_cipher_name(vectors[i].cipher));
        pair_done(&pair);
    }
}

static void test_packed_vector(enum vv_cipher cipher, enum vv_compression compression,
                               const char *hex)
{
    struct pair pair = pair_new(cipher, compression);
    uint8_t frame[200];
    uint8_t plain[280];
    uint8_t back[sizeof(plain)];
    size_t len = strlen(hex) / 2;
    fixture_text(plain, sizeof(plain));
    int err = len <= sizeof(frame) ? vv_unhex(hex, frame, len) : -EINVAL;
    tap_is_int(err, 0, "a stored frame of %s", vv_compression_name(compression));
    tap_is_int(vv_frame_open(pair.reader, 3, &origin, frame, len, back, sizeof(back)),
               sizeof(plain), "opens");
    tap_is_bytes(back, plain, sizeof(plain), "to what it was");
    if (err < 0) {
        char got[2 * sizeof(plain) + 100] = "";
        uint8_t sealed[sizeof(plain) + VV_FRAME_OVERHEAD];
        ssize_t sealed_len =
            vv_frame_seal(pair.writer, 3, &origin, plain, sizeof(plain), sealed, sizeof(sealed));
        vv_hex(sealed, sealed_len > 0 ? (size_t)sealed_len : 0, got);
        tap_note("today: %s", got);
    }
    pair_done(&pair);
}

#define THREADS 4
#define ROUNDS 60

/* All threads use one writer and one reader at once. */
static void *work(void *arg)
{
    const struct pair *pair = arg;
    size_t len_max = 500 + ROUNDS * 300;
    uint8_t *frame = malloc(vv_frame_bound(len_max));
    uint8_t *text = malloc(len_max);
    size_t bad_count = 0;
    if (!frame || !text)
        abort();
    for (uint32_t i = 0; i < ROUNDS; i++) {
        size_t len = 500 + i * 300;
        uint8_t value = (uint8_t)(i + 1);
        memset(text, value, len);
        ssize_t frame_len =
            vv_frame_seal(pair->writer, i, &origin, text, len, frame, vv_frame_bound(len));
        memset(text, 0, len);
        bad_count += frame_len < 0 || vv_frame_open(pair->reader, i, &origin, frame,
                                                    (size_t)frame_len, text, len) < 0;
        bad_count += text[0] != value || text[len - 1] != value;
    }
    free(frame);
    free(text);
    return (void *)bad_count;
}

static void test_threads(enum vv_cipher cipher, enum vv_compression compression)
{
    struct pair pair = pair_new(cipher, compression);
    pthread_t threads[THREADS];
    size_t bad_count = 0;
    for (size_t i = 0; i < THREADS; i++)
        bad_count += pthread_create(&threads[i], NULL, work, &pair) != 0;
    for (size_t i = 0; i < THREADS; i++) {
        void *result = NULL;
        bad_count += pthread_join(threads[i], &result) != 0;
        bad_count += (size_t)result;
    }
    tap_is_int((int64_t)bad_count, 0, "several threads at one sealer, %s",
               vv_compression_name(compression));
    pair_done(&pair);
}

/* A frame of one object, sealed again for another: as long and as packed as it was, and opened there only. */
static void test_reseal(enum vv_cipher from, enum vv_cipher to, enum vv_compression compression)
{
    enum { LEN = 5000 };
    struct pair old = pair_new(from, compression);
    struct pair new = pair_new(to, VV_COMPRESSION_NONE);
    struct vv_origin other = {0x1234, 0x57};
    uint8_t plain[LEN], back[LEN];
    uint8_t frame[LEN + VV_FRAME_OVERHEAD], again[LEN + VV_FRAME_OVERHEAD];
    fixture_text(plain, LEN);
    ssize_t len = vv_frame_seal(old.writer, 9, &origin, plain, LEN, frame, sizeof(frame));
    tap_ok(len > 0, "%s, %s", vv_cipher_name(from), vv_compression_name(compression));
    struct vv_sealed_frame sealed = {old.reader, 9, frame, len < 0 ? 0 : (size_t)len};
    tap_is_int(vv_frame_reseal(&sealed, &origin, new.writer, 3, again, sealed.len), len,
               "sealed again");
    tap_is_int(again[0], frame[0], "packed as it was");
    tap_ok(memcmp(again + VV_FRAME_HEADER_LEN, frame + VV_FRAME_HEADER_LEN, 60) != 0 ||
               (from == VV_CIPHER_NONE && to == VV_CIPHER_NONE),
           "under another key or nonce");
    tap_is_int(vv_frame_open(new.reader, 3, &origin, again, sealed.len, back, LEN), LEN, "it opens");
    tap_is_bytes(back, plain, LEN, "to the same");
    tap_is_int(vv_frame_open(new.reader, 9, &origin, again, sealed.len, back, LEN), new.damaged,
               "not under its old index");
    tap_is_int(vv_frame_reseal(&sealed, &other, new.writer, 4, again, sealed.len), old.damaged,
               "not with another origin");
    sealed.index = 8;
    tap_is_int(vv_frame_reseal(&sealed, &origin, new.writer, 4, again, sealed.len), old.damaged,
               "nor from another index");
    sealed.index = 9;
    frame[20] ^= 1;
    tap_is_int(vv_frame_reseal(&sealed, &origin, new.writer, 4, again, sealed.len), old.damaged,
               "nor what is damaged");
    frame[0] = 77;
    tap_is_int(vv_frame_reseal(&sealed, &origin, new.writer, 4, again, sealed.len), -VV_ERR_FORMAT,
               "nor what is no frame");
    pair_done(&old);
    pair_done(&new);
}

static void test_reseals(void)
{
    for (int i = 0; i < CIPHERS * COMPRESSIONS; i++)
        test_reseal((enum vv_cipher)(i / COMPRESSIONS), (enum vv_cipher)(i % CIPHERS),
                    (enum vv_compression)(i % COMPRESSIONS));
}

/* Only the scratch of large packed frames is allocated through base/alloc.h. */
static int seal_and_open(void *arg)
{
    struct pair *pair = arg;
    size_t len = 200000;
    CLEANUP(vv_free_ptr) uint8_t *plain = vv_alloc(len);
    CLEANUP(vv_free_ptr) uint8_t *frame = vv_alloc(vv_frame_bound(len));
    if (!plain || !frame)
        return -ENOMEM;
    /* Packs to more than fits into a work's own scratch. */
    fixture_noise(plain, len / 2, 1);
    memset(plain + len / 2, 0, len / 2);
    ssize_t frame_len =
        vv_frame_seal(pair->writer, 1, &origin, plain, len, frame, vv_frame_bound(len));
    TRY(frame_len);
    ssize_t back_len =
        vv_frame_open(pair->reader, 1, &origin, frame, (size_t)frame_len, plain, len);
    TRY(back_len);
    struct vv_sealed_frame sealed = {pair->reader, 1, frame, (size_t)frame_len};
    ssize_t again_len = vv_frame_reseal(&sealed, &origin, pair->writer, 2, plain, len);
    TRY(again_len);
    return 0;
}

int main(void)
{
    vv_alloc_track(true);
    test_sizes();
    test_largest();
    test_reseals();
    test_damage();
    test_bad_headers();
    test_bad_content();
    test_vectors();
    test_packed_vector(
        VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4,
        "0118010000e8c6d57eea81c86efa7b0a70d2e6a30206dcea55b0f27d256362e27236d37211b71228"
        "399a66747555a899c9507310fea4fc10e350e84514eed8184464268c7428a5deb207ba729ae2180a"
        "1282ade143be0dae4a24de");
    test_packed_vector(
        VV_CIPHER_XCHACHA20_POLY1305, VV_COMPRESSION_ZSTD,
        "02180100006c18c144b0ca33258ee580183a7155d0696a494b6dd57f5fd9c881d796e1266e7c994b"
        "e764e87ae389fc87bc3b5b7ad0bd3be7e2ec79062ded7e3133bc3cf8f43d53ce55a971b76b87c7c1"
        "195a172a9391532e147b287f0ffe");
    test_packed_vector(
        VV_CIPHER_NONE, VV_COMPRESSION_LZ4,
        "0118010000f205736564696d656e742c206c617965722075706f6e0b002f3b201c0025f205746665"
        "6a6e666f752d216d627a6673217671706f0b002f3c215400250f380058507965723b209d9b5f849a"
        "5f2a6b5c48b8627525b923");
    test_threads(VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4);
    test_threads(VV_CIPHER_AES_256_GCM, VV_COMPRESSION_ZSTD);
    test_threads(VV_CIPHER_XCHACHA20_POLY1305, VV_COMPRESSION_LZ4);
    struct pair pair = pair_new(VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4);
    fixture_fail_allocs(seal_and_open, &pair, "a large frame");
    pair_done(&pair);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing leaks");
    return tap_done();
}
