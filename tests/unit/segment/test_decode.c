#include "segment/segment.h"

#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "segment/run_impl.h"
#include "unit/segment/fixture.h"

static const struct vv_segment_id log_id = {.epoch = 3, .counter = 9, .kind = VV_SEGMENT_LOG};
static const uint8_t batch[] = "the batch of a commit";

/* A log object of three frames and a batch, and a reader of it. */
struct sample {
    struct vv_keyring *ring;
    struct object object;
    struct vv_sealer *reader;
    struct vv_segment_footer footer;
};

static struct sample sample_new(void)
{
    struct sample sample = {.ring = fixture_ring(0x77, 1)};
    struct vv_segment_builder *builder = NULL;
    struct vv_object_header header;
    struct vv_frame_loc loc;
    uint8_t plain[5000];
    int err = vv_segment_builder_new(sample.ring, &log_id, &fixture_settings, &builder);
    for (uint32_t i = 1; i < 4 && err == 0; i++) {
        struct vv_origin origin = fixture_origin(i);
        err = vv_segment_add(builder, &origin, plain, fixture_plain(i, plain), &loc);
    }
    if (err == 0)
        err = fixture_finish(builder, &log_id, batch, sizeof(batch), &sample.object);
    vv_segment_builder_free(builder);
    const struct object *object = &sample.object;
    if (err < 0 || vv_object_header_decode(object->bytes, object->len, &header) < 0 ||
        vv_sealer_open(sample.ring, &header, object->name, &sample.reader) < 0 ||
        vv_segment_footer_decode(object->bytes, object->len, object->len, &sample.footer) < 0)
        abort();
    return sample;
}

static void sample_done(struct sample *sample)
{
    vv_sealer_free(sample->reader);
    free(sample->object.bytes);
    vv_keyring_free(sample->ring);
}

/* The vector's footer by hand from the table in segment.h; the checksum by Python. */
static void test_footer_vector(void)
{
    static const char hex[] = "7676736703000000"
                              "9f00000000000000"
                              "c8000000"
                              "6701000000000000"
                              "90010000"
                              "00000000"
                              "a3a7b191";
    uint8_t bytes[VV_SEGMENT_FOOTER_LEN];
    struct vv_segment_footer footer = {0};
    tap_is_int(vv_unhex(hex, bytes, sizeof(bytes)), 0, "a stored footer");
    tap_is_int(vv_segment_footer_decode(bytes, sizeof(bytes), 359 + 400 + 40, &footer), 0,
               "decodes");
    tap_is_int(footer.frame_count, 3, "frame count");
    tap_is_int((int64_t)footer.batch_offset, 96 + 3 * VV_FRAME_OVERHEAD, "batch offset");
    tap_is_int(footer.batch_len, 200, "batch length");
    tap_is_int((int64_t)footer.directory_offset, 359, "directory offset");
    tap_is_int(footer.directory_len, 400, "directory length");
    vv_store_u32(bytes + 4, 4);
    vv_store_u32(bytes + 36, vv_crc32c(0, bytes, 36));
    tap_is_int(vv_segment_footer_decode(bytes, sizeof(bytes), 359 + 400 + 40, &footer),
               -VV_ERR_FORMAT, "a fourth frame has no room");
}

static void test_footer(const struct sample *sample)
{
    const struct object *object = &sample->object;
    uint8_t bytes[VV_SEGMENT_FOOTER_LEN];
    struct vv_segment_footer footer = {.frame_count = 99};
    const uint8_t *start = object->bytes + object->len - sizeof(bytes);
    tap_is_int(vv_segment_footer_decode(start, sizeof(bytes), object->len, &footer), 0,
               "the footer alone decodes");
    tap_is_int(footer.frame_count, 3, "to the same");
    footer.frame_count = 99;
    int missed_count = 0;
    for (size_t bit = 0; bit < sizeof(bytes) * 8; bit++) {
        memcpy(bytes, start, sizeof(bytes));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int want = bit < 32 ? -VV_ERR_FORMAT : -VV_ERR_CHECKSUM;
        missed_count +=
            vv_segment_footer_decode(bytes, sizeof(bytes), object->len, &footer) != want;
    }
    tap_is_int(missed_count, 0, "every flipped bit is found");
    tap_is_int(vv_segment_footer_decode(start, 39, object->len, &footer), -VV_ERR_FORMAT,
               "a byte too few");
    tap_is_int(vv_segment_footer_decode(start, 40, object->len + 1, &footer), -VV_ERR_FORMAT,
               "a longer object");
    tap_is_int(vv_segment_footer_decode(start, 40, object->len - 1, &footer), -VV_ERR_FORMAT,
               "a shorter object");
    tap_is_int(vv_segment_footer_decode(start, 40, 39, &footer), -VV_ERR_FORMAT,
               "an object without room for it");
    tap_is_int(footer.frame_count, 99, "the output is untouched on failure");
}

/* Change one number of the footer, with the checksum made right. */
static int footer_with(const struct sample *sample, size_t offset, size_t len, uint64_t value)
{
    const struct object *object = &sample->object;
    uint8_t bytes[VV_SEGMENT_FOOTER_LEN];
    struct vv_segment_footer footer;
    memcpy(bytes, object->bytes + object->len - sizeof(bytes), sizeof(bytes));
    for (size_t i = 0; i < len; i++)
        bytes[offset + i] = (uint8_t)(value >> (8 * i));
    vv_store_u32(bytes + 36, vv_crc32c(0, bytes, 36));
    return vv_segment_footer_decode(bytes, sizeof(bytes), object->len, &footer);
}

static void test_bad_footers(const struct sample *sample)
{
    const struct vv_segment_footer *footer = &sample->footer;
    tap_is_int(footer_with(sample, 4, 4, 3), 0, "unchanged");
    tap_is_int(footer_with(sample, 4, 4, VV_SEGMENT_FRAMES_MAX + 1), -VV_ERR_FORMAT, "frames");
    tap_is_int(footer_with(sample, 4, 4, UINT32_MAX), -VV_ERR_FORMAT, "more frames");
    tap_is_int(footer_with(sample, 8, 8, 0), -VV_ERR_FORMAT, "a length without a batch");
    tap_is_int(footer_with(sample, 8, 8, 95), -VV_ERR_FORMAT, "a batch in the header");
    tap_is_int(footer_with(sample, 8, 8, UINT64_MAX), -VV_ERR_FORMAT, "a batch far away");
    tap_is_int(footer_with(sample, 8, 8, footer->batch_offset + 1), -VV_ERR_FORMAT, "an overlap");
    tap_is_int(footer_with(sample, 16, 4, footer->batch_len - 1), -VV_ERR_FORMAT, "a gap");
    tap_is_int(footer_with(sample, 16, 4, UINT32_MAX), -VV_ERR_FORMAT, "a long batch");
    tap_is_int(footer_with(sample, 16, 4, 0), -VV_ERR_FORMAT, "a batch without a length");
    tap_is_int(footer_with(sample, 20, 8, 0), -VV_ERR_FORMAT, "no directory");
    tap_is_int(footer_with(sample, 20, 8, UINT64_MAX - 40), -VV_ERR_FORMAT, "a directory far away");
    tap_is_int(footer_with(sample, 28, 4, footer->directory_len + 1), -VV_ERR_FORMAT, "too long");
    tap_is_int(footer_with(sample, 28, 4, 0), -VV_ERR_FORMAT, "an empty directory");
    tap_is_int(footer_with(sample, 32, 4, 1), -VV_ERR_FORMAT, "a reserved byte");
}

static int decode_directory(const struct sample *sample, const struct vv_segment_footer *footer,
                            const uint8_t *frame, size_t len)
{
    struct vv_segment_entry *entries = NULL;
    int err = vv_segment_directory_decode(sample->reader, footer, frame, len, &entries);
    vv_free(entries);
    return err;
}

static void test_directory_flips(const struct sample *sample)
{
    struct vv_segment_footer footer = sample->footer;
    size_t len = footer.directory_len;
    uint8_t frame[256];
    if (len > sizeof(frame))
        abort();
    memcpy(frame, sample->object.bytes + footer.directory_offset, len);
    tap_is_int(decode_directory(sample, &footer, frame, len), 0, "the directory decodes");
    int missed_count = 0;
    for (size_t bit = 0; bit < len * 8; bit++) {
        frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int err = decode_directory(sample, &footer, frame, len);
        missed_count += err != -VV_ERR_AUTH && (bit >= 40 || err != -VV_ERR_FORMAT);
        frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    tap_is_int(missed_count, 0, "every flipped bit is found");
    tap_is_int(decode_directory(sample, &footer, frame, len - 1), -VV_ERR_FORMAT, "a byte short");
    footer.frame_count--;
    tap_is_int(decode_directory(sample, &footer, frame, len), -VV_ERR_AUTH, "another index");
    footer = sample->footer;
    footer.batch_offset = 0;
    tap_is_int(decode_directory(sample, &footer, frame, len), -VV_ERR_AUTH, "an index less");
    footer = sample->footer;
    footer.batch_offset++;
    tap_is_int(decode_directory(sample, &footer, frame, len), -VV_ERR_FORMAT,
               "lengths that do not add up");
}

/* Seal `plain` as the directory of a segment that claims `count` frames before `end`; decode it. */
static int decode_forged(const struct vv_keyring *ring, const uint8_t *plain, size_t plain_len,
                         uint32_t count, uint64_t end)
{
    struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_NONE, 0};
    struct vv_origin origin = {VV_ORIGIN_DIRECTORY, 0};
    struct vv_object_header header;
    struct vv_sealer *writer = NULL;
    struct sample sample = {0};
    uint8_t frame[256];
    if (vv_sealer_new(ring, VV_KIND_DATA, "data/x", 0, &settings, &header, &writer) < 0 ||
        vv_sealer_open(ring, &header, "data/x", &sample.reader) < 0)
        abort();
    ssize_t len = vv_frame_seal(writer, count, &origin, plain, plain_len, frame, sizeof(frame));
    struct vv_segment_footer footer = {
        .frame_count = count,
        .directory_offset = end,
        .directory_len = len > 0 ? (uint32_t)len : 0,
    };
    int err = decode_directory(&sample, &footer, frame, footer.directory_len);
    vv_sealer_free(writer);
    vv_sealer_free(sample.reader);
    return err;
}

static void test_forged_directories(const struct vv_keyring *ring)
{
    /* Two frames of 30 and 40 bytes, 9 and 19 plain. */
    static const uint8_t good[] = {2, 0x80, 0x20, 1, 30, 9, 0x80, 0x20, 2, 40, 19};
    uint8_t bad[sizeof(good) + 1] = {0};
    tap_is_int(decode_forged(ring, good, sizeof(good), 2, 96 + 70), 0, "a good directory");
    tap_is_int(decode_forged(ring, good, sizeof(good), 1, 96 + 70), -VV_ERR_FORMAT, "count");
    tap_is_int(decode_forged(ring, good, sizeof(good), 2, 96 + 71), -VV_ERR_FORMAT, "a gap");
    tap_is_int(decode_forged(ring, good, sizeof(good), 2, 96 + 69), -VV_ERR_FORMAT, "an overlap");
    tap_is_int(decode_forged(ring, good, sizeof(good) - 1, 2, 96 + 70), -VV_ERR_FORMAT, "cut");
    memcpy(bad, good, sizeof(good));
    tap_is_int(decode_forged(ring, bad, sizeof(bad), 2, 96 + 70), -VV_ERR_FORMAT, "bytes left");
    bad[4] = VV_FRAME_OVERHEAD - 1;
    tap_is_int(decode_forged(ring, bad, sizeof(good), 2, 96 + 60), -VV_ERR_FORMAT, "no frame");
    memcpy(bad, good, sizeof(good));
    bad[2] = 0x80;
    bad[3] = 0;
    tap_is_int(decode_forged(ring, bad, sizeof(good), 2, 96 + 70), -VV_ERR_FORMAT, "a long zero");
    tap_is_int(decode_forged(ring, (const uint8_t *)"\0", 1, 0, 96), 0, "an empty segment");
    tap_is_int(decode_forged(ring, (const uint8_t *)"\1", 1, 0, 96), -VV_ERR_FORMAT, "or not");
    tap_is_int(decode_forged(ring, good, sizeof(good), VV_SEGMENT_FRAMES_MAX, 96 + 70),
               -VV_ERR_FORMAT, "a count without entries");
}

static int open_batch(const struct sample *sample, const char *name, const uint8_t *bytes,
                      size_t len)
{
    uint8_t *got = NULL;
    size_t got_len = 0;
    int err = vv_segment_batch_open(sample->ring, name, bytes, len, &got, &got_len);
    vv_free(got);
    return err;
}

static void test_batch(const struct sample *sample)
{
    const struct object *object = &sample->object;
    struct vv_keyring *other_ring = fixture_ring(0x78, 1);
    size_t offset = sample->footer.batch_offset;
    tap_is_int(open_batch(sample, object->name, object->bytes, object->len), 0, "the batch opens");
    tap_is_int(
        open_batch(sample, "log/0000000000000003/000000000000000a", object->bytes, object->len),
        -VV_ERR_AUTH, "not under another name");
    struct sample other = *sample;
    other.ring = other_ring;
    tap_is_int(open_batch(&other, object->name, object->bytes, object->len), -VV_ERR_FORMAT,
               "not in another volume");
    vv_keyring_free(other_ring);
    int missed_count = 0;
    for (size_t i = 0; i < object->len; i++) {
        bool is_seen = i < VV_OBJECT_HEADER_LEN || i >= object->len - VV_SEGMENT_FOOTER_LEN ||
                       (i >= offset && i < offset + sample->footer.batch_len);
        object->bytes[i] ^= 0x10;
        int err = open_batch(sample, object->name, object->bytes, object->len);
        missed_count += is_seen ? err >= 0 : err != 0;
        object->bytes[i] ^= 0x10;
        missed_count += open_batch(sample, object->name, object->bytes, i) >= 0;
    }
    tap_is_int(missed_count, 0, "every damaged byte and every cut is found");
}

/* A data segment has no batch, whatever its footer says. */
static void test_no_batch(const struct sample *sample)
{
    struct vv_object_header header;
    uint8_t *copy = vv_memdup(sample->object.bytes, sample->object.len);
    if (!copy || vv_object_header_decode(copy, sample->object.len, &header) < 0)
        abort();
    header.kind = VV_KIND_DATA;
    vv_object_header_encode(&header, copy);
    tap_is_int(open_batch(sample, sample->object.name, copy, sample->object.len), -VV_ERR_FORMAT,
               "no batch in a data segment");
    vv_free(copy);
}

/* A log object made once and read, too, by Python's hmac and cryptography from the description in
 * the headers. It has to open for ever. */
static void test_object_vector(void)
{
    static const char hex[] =
        "7661727665000d0a01000401010000007777777777777777777777777777777715a892bb849ca555"
        "dc4bde098926de41e3da77572b1b33a8c8a8130ef887e30f7e5c25d4bf523c8c7a073e7a45325fde"
        "030000000000000000000000396036a50000000000cc501fc5b10abc2bcfe1a9a988749176012500"
        "0000d97f25aa02f1df2a59a6369f93c21668640c8e1f58393170cdc52f0736983bbe1e588ed4e03a"
        "d5f42e0d2d05c7e99d2429df179700160000003875c65ff4740f0ee3cfe129e692d368ab72134155"
        "b75516eeb97084c5115807fbab66d57599000b00000067ba1531d6d900ed3d4b260f2211c480a4f6"
        "6a6f53226751c81d467676736702000000ae000000000000002b000000d900000000000000200000"
        "0000000000ed8fe909";
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    struct sample sample = {.ring = ring};
    uint8_t bytes[sizeof(hex) / 2];
    struct vv_object_header header;
    struct vv_segment_entry *entries = NULL;
    vv_segment_name(&log_id, sample.object.name, sizeof(sample.object.name));
    bool is_good =
        vv_unhex(hex, bytes, sizeof(bytes)) == 0 &&
        vv_object_header_decode(bytes, sizeof(bytes), &header) == 0 &&
        vv_sealer_open(ring, &header, sample.object.name, &sample.reader) == 0 &&
        vv_segment_footer_decode(bytes, sizeof(bytes), sizeof(bytes), &sample.footer) == 0 &&
        vv_segment_directory_decode(sample.reader, &sample.footer,
                                    bytes + sample.footer.directory_offset,
                                    sample.footer.directory_len, &entries) == 0;
    tap_ok(is_good, "a stored log object decodes");
    uint8_t want[100];
    uint8_t got[100];
    size_t len = fixture_plain(1, want);
    struct vv_origin origin = fixture_origin(1);
    ssize_t got_len = -1;
    if (is_good && sample.footer.frame_count == 2)
        got_len = vv_frame_open(sample.reader, 1, &origin, bytes + entries[1].offset,
                                entries[1].len, got, sizeof(got));
    tap_is_int(got_len, (int64_t)len, "a frame of it opens");
    tap_is_bytes(got, want, len, "to what it was");
    uint8_t *plain_batch = NULL;
    size_t batch_len = 0;
    int err = vv_segment_batch_open(ring, sample.object.name, bytes, sizeof(bytes), &plain_batch,
                                    &batch_len);
    tap_is_int(err, 0, "its batch opens");
    tap_is_int((int64_t)batch_len, sizeof(batch), "in its length");
    if (plain_batch)
        tap_is_bytes(plain_batch, batch, sizeof(batch), "to what it was");
    vv_free(plain_batch);
    vv_free(entries);
    sample_done(&sample);
}

static int decode_all(void *arg)
{
    const struct sample *sample = arg;
    const struct object *object = &sample->object;
    const struct vv_segment_footer *footer = &sample->footer;
    TRY(decode_directory(sample, footer, object->bytes + footer->directory_offset,
                         footer->directory_len));
    return open_batch(sample, object->name, object->bytes, object->len);
}

int main(void)
{
    vv_alloc_track(true);
    struct sample sample = sample_new();
    test_footer_vector();
    test_footer(&sample);
    test_bad_footers(&sample);
    test_directory_flips(&sample);
    test_forged_directories(sample.ring);
    test_batch(&sample);
    test_no_batch(&sample);
    test_object_vector();
    fixture_fail_allocs(decode_all, &sample, "decoding");
    sample_done(&sample);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing leaks");
    return tap_done();
}
