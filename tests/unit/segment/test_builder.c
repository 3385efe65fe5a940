#include "segment/segment.h"

#include <errno.h>
#include <string.h>

#include "segment/run_impl.h"
#include "unit/segment/fixture.h"

#define FRAME_MAX 5000

static const struct vv_segment_id log_id = {.epoch = 3, .counter = 9, .kind = VV_SEGMENT_LOG};
static const struct vv_segment_id data_id = {.epoch = 3, .counter = 7};

static struct vv_segment_builder *builder_new(const struct vv_keyring *ring,
                                              const struct vv_segment_id *id)
{
    struct vv_segment_builder *builder = NULL;
    if (vv_segment_builder_new(ring, id, &fixture_settings, &builder) < 0)
        abort();
    return builder;
}

/* Frame i through the builder, or through a part when there is one. */
static int add(struct vv_segment_builder *builder, struct vv_segment_part *part, uint32_t i,
               struct vv_frame_loc *out_loc)
{
    uint8_t plain[FRAME_MAX];
    size_t len = fixture_plain(i, plain);
    struct vv_origin origin = fixture_origin(i);
    if (part)
        return vv_segment_part_add(part, &origin, plain, len, out_loc);
    return vv_segment_add(builder, &origin, plain, len, out_loc);
}

/* A reader of the object, its footer and its directory; NULL when something does not decode. */
static struct vv_segment_entry *read_directory(const struct vv_keyring *ring,
                                               const struct object *object,
                                               struct vv_segment_footer *footer,
                                               struct vv_sealer **out_reader)
{
    struct vv_object_header header;
    struct vv_segment_entry *entries = NULL;
    bool is_good =
        vv_object_header_decode(object->bytes, object->len, &header) == 0 &&
        vv_sealer_open(ring, &header, object->name, out_reader) == 0 &&
        vv_segment_footer_decode(object->bytes, object->len, object->len, footer) == 0 &&
        vv_segment_directory_decode(*out_reader, footer, object->bytes + footer->directory_offset,
                                    footer->directory_len, &entries) == 0;
    return is_good ? entries : NULL;
}

/* Every frame of the object is frame i of the fixture, and lies where locs[i] says. */
static void check_object(const struct vv_keyring *ring, const struct object *object,
                         const struct vv_frame_loc *locs, uint32_t count)
{
    struct vv_segment_footer footer = {0};
    struct vv_sealer *reader = NULL;
    CLEANUP(vv_free_ptr)
    struct vv_segment_entry *entries = read_directory(ring, object, &footer, &reader);
    tap_ok(entries != NULL, "%s: the directory opens", object->name);
    tap_is_int(footer.frame_count, count, "frame count");
    int bad_count = 0;
    for (uint32_t i = 0; entries && i < count && i < footer.frame_count; i++) {
        uint8_t want[FRAME_MAX];
        uint8_t got[FRAME_MAX];
        size_t len = fixture_plain(i, want);
        struct vv_origin origin = fixture_origin(i);
        const struct vv_segment_entry *entry = &entries[i];
        bad_count += entry->origin.data_id != origin.data_id;
        bad_count += entry->origin.extent != origin.extent;
        bad_count += entry->plain_len != len || locs[i].index != i;
        bad_count += entry->offset != locs[i].offset || entry->len != locs[i].len;
        ssize_t got_len = vv_frame_open(reader, i, &origin, object->bytes + entry->offset,
                                        entry->len, got, sizeof(got));
        bad_count += got_len != (ssize_t)len || memcmp(got, want, len) != 0;
    }
    tap_is_int(bad_count, 0, "every frame is where it should be");
    vv_sealer_free(reader);
}

static void test_build(const struct vv_keyring *ring, uint32_t count, size_t batch_len)
{
    const struct vv_segment_id *id = batch_len > 0 ? &log_id : &data_id;
    struct vv_segment_builder *builder = builder_new(ring, id);
    struct vv_frame_loc *locs = calloc(count + 1, sizeof(*locs));
    uint8_t *batch = malloc(batch_len + 1);
    struct object object = {0};
    int bad_count = 0;
    if (!locs || !batch)
        abort();
    fixture_noise(batch, batch_len, 77);
    for (uint32_t i = 0; i < count; i++) {
        size_t before = vv_segment_builder_bytes(builder);
        bad_count += add(builder, NULL, i, &locs[i]) != 0;
        bad_count += locs[i].offset != before || !vv_segment_id_equal(&locs[i].segment, id);
        bad_count += vv_segment_builder_bytes(builder) != before + locs[i].len;
        bad_count += vv_segment_builder_count(builder) != i + 1;
    }
    tap_is_int(bad_count, 0, "%u frames are added", count);
    int err = fixture_finish(builder, id, batch_len > 0 ? batch : NULL, batch_len, &object);
    tap_is_int(err, 0, "finished");
    check_object(ring, &object, locs, count);
    uint8_t *got = NULL;
    size_t got_len = 0;
    err = vv_segment_batch_open(ring, object.name, object.bytes, object.len, &got, &got_len);
    tap_is_int(err, batch_len > 0 ? 0 : -VV_ERR_FORMAT, "the batch");
    tap_is_int((int64_t)got_len, (int64_t)batch_len, "its length");
    if (got)
        tap_is_bytes(got, batch, batch_len, "its content");
    vv_free(got);
    vv_segment_builder_free(builder);
    free(object.bytes);
    free(batch);
    free(locs);
}

static void test_header(const struct vv_keyring *ring)
{
    struct vv_segment_builder *builder = builder_new(ring, &log_id);
    const struct vv_object_header *header = vv_segment_builder_header(builder);
    tap_is_int(header->kind, VV_KIND_LOG, "a log object's kind");
    tap_is_int((int64_t)header->number, 3, "its number is the epoch");
    tap_ok(vv_segment_builder_sealer(builder) != NULL, "a sealer");
    tap_is_int((int64_t)vv_segment_builder_bytes(builder), VV_OBJECT_HEADER_LEN, "its bytes");
    vv_segment_builder_free(builder);
    builder = builder_new(ring, &data_id);
    header = vv_segment_builder_header(builder);
    tap_is_int(header->kind, VV_KIND_DATA, "a data segment's kind");
    tap_is_int((int64_t)header->number, 0, "its number");
    vv_segment_builder_free(builder);
    vv_segment_builder_free(NULL);
}

/* `per_part` frames in each part, sealed last part first, joined in order. */
static void test_parts(const struct vv_keyring *ring, uint32_t part_count, uint32_t per_part)
{
    enum { PARTS_MAX = 8, FRAMES_MAX = 8 * 400 + 1 };
    struct vv_segment_builder *builder = builder_new(ring, &data_id);
    struct vv_segment_part *parts[PARTS_MAX] = {0};
    static struct vv_frame_loc locs[FRAMES_MAX];
    struct object object = {0};
    int bad_count = add(builder, NULL, 0, &locs[0]) != 0;
    for (uint32_t p = 0; p < part_count; p++)
        bad_count += vv_segment_part_new(builder, 1 + p * per_part, &parts[p]) != 0;
    for (uint32_t p = part_count; p > 0; p--) {
        for (uint32_t i = 0; i < per_part; i++) {
            uint32_t index = 1 + (p - 1) * per_part + i;
            bad_count += add(builder, parts[p - 1], index, &locs[index]) != 0;
        }
    }
    tap_is_int(bad_count, 0, "%u parts of %u frames", part_count, per_part);
    uint32_t base = 0;
    if (part_count > 1 && per_part > 0)
        tap_is_int(vv_segment_join(builder, parts[1], &base), -EINVAL, "not out of order");
    for (uint32_t p = 0; p < part_count; p++) {
        bad_count += vv_segment_join(builder, parts[p], &base) != 0;
        for (uint32_t i = 0; i < per_part; i++)
            locs[1 + p * per_part + i].offset += base;
        bad_count += vv_segment_builder_count(builder) != 1 + (p + 1) * per_part;
        vv_segment_part_free(parts[p]);
    }
    tap_is_int(bad_count, 0, "joined");
    tap_is_int(fixture_finish(builder, &data_id, NULL, 0, &object), 0, "finished");
    check_object(ring, &object, locs, 1 + part_count * per_part);
    vv_segment_builder_free(builder);
    free(object.bytes);
}

/* A part goes on after it was joined, and the builder after that. */
static void test_part_again(const struct vv_keyring *ring)
{
    struct vv_segment_builder *builder = builder_new(ring, &data_id);
    struct vv_segment_part *part = NULL;
    struct vv_frame_loc locs[4];
    struct object object = {0};
    uint32_t base = 0;
    int bad_count = vv_segment_part_new(builder, 0, &part) != 0;
    for (uint32_t i = 0; i < 3; i++) {
        bad_count += add(builder, part, i, &locs[i]) != 0;
        bad_count += vv_segment_join(builder, part, &base) != 0;
        locs[i].offset += base;
    }
    bad_count += vv_segment_join(builder, part, &base) != 0;
    bad_count += add(builder, NULL, 3, &locs[3]) != 0;
    bad_count += vv_segment_join(builder, part, &base) != -EINVAL;
    tap_is_int(bad_count, 0, "a part may be joined several times");
    tap_is_int(fixture_finish(builder, &data_id, NULL, 0, &object), 0, "finished");
    check_object(ring, &object, locs, 4);
    vv_segment_part_free(part);
    vv_segment_part_free(NULL);
    vv_segment_builder_free(builder);
    free(object.bytes);
}

static void test_limits(const struct vv_keyring *ring)
{
    struct vv_seal_settings settings = {VV_CIPHER_NONE, VV_COMPRESSION_NONE, 0};
    struct vv_segment_builder *builder = NULL;
    struct vv_origin origin = fixture_origin(0);
    struct vv_frame_loc loc = {.index = 99};
    size_t len = VV_FRAME_PLAIN_MAX;
    uint8_t *plain = calloc(1, len);
    if (!plain || vv_segment_builder_new(ring, &data_id, &settings, &builder) < 0)
        abort();
    tap_is_int(vv_segment_add(builder, &origin, plain, len + 1, &loc), -VV_ERR_LIMIT,
               "a frame that is too large");
    int err = 0;
    for (uint32_t i = 0; i < 3 && err == 0; i++)
        err = vv_segment_add(builder, &origin, plain, len, &loc);
    tap_is_int(err, 0, "192 MiB of frames");
    size_t bytes = vv_segment_builder_bytes(builder);
    tap_is_int(vv_segment_add(builder, &origin, plain, len, &loc), -VV_ERR_LIMIT, "not 256 MiB");
    tap_is_int((int64_t)vv_segment_builder_bytes(builder), (int64_t)bytes, "nothing has changed");
    tap_is_int(vv_segment_add(builder, &origin, plain, len - 1000, &loc), 0, "a little less is");
    struct vv_segment_part *part = NULL;
    uint32_t base = 0;
    err = vv_segment_part_new(builder, 4, &part);
    tap_is_int(err, 0, "a part");
    tap_is_int(vv_segment_part_add(part, &origin, plain, 2000, &loc), 0, "takes what fits in it");
    tap_is_int(vv_segment_join(builder, part, &base), -VV_ERR_LIMIT, "but not in the whole");
    const struct iovec *iov = NULL;
    int count = 0;
    tap_is_int(vv_segment_finish(builder, NULL, 0, &iov, &count, &bytes), 0, "it finishes");
    tap_ok(bytes <= VV_SEGMENT_BYTES_MAX, "within the limit: %zu", bytes);
    vv_segment_part_free(part);
    vv_segment_builder_free(builder);
    free(plain);
}

/* As many frames as can be: empty ones, a part's last index included. */
static void test_frame_limit(const struct vv_keyring *ring)
{
    struct vv_seal_settings settings = {VV_CIPHER_NONE, VV_COMPRESSION_NONE, 0};
    struct vv_segment_builder *builder = NULL;
    struct vv_segment_part *part = NULL;
    struct vv_origin origin = {UINT64_MAX, UINT64_MAX};
    struct vv_frame_loc loc = {0};
    if (vv_segment_builder_new(ring, &data_id, &settings, &builder) < 0 ||
        vv_segment_part_new(builder, VV_SEGMENT_FRAMES_MAX - 1, &part) < 0)
        abort();
    tap_is_int(vv_segment_part_add(part, &origin, "", 0, &loc), 0, "the last index");
    tap_is_int(vv_segment_part_add(part, &origin, "", 0, &loc), -VV_ERR_LIMIT, "one more");
    tap_is_int(loc.index, VV_SEGMENT_FRAMES_MAX - 1, "changes nothing");
    vv_segment_part_free(part);
    int err = 0;
    uint32_t count = 0;
    while (err == 0 && count <= VV_SEGMENT_FRAMES_MAX) {
        err = vv_segment_add(builder, &origin, "", 0, &loc);
        count += err == 0;
    }
    tap_is_int(err, -VV_ERR_LIMIT, "the builder ends");
    tap_is_int(count, VV_SEGMENT_FRAMES_MAX, "after the last index");
    struct object object = {0};
    struct vv_segment_footer footer = {0};
    struct vv_sealer *reader = NULL;
    tap_is_int(fixture_finish(builder, &data_id, NULL, 0, &object), 0, "it finishes");
    struct vv_segment_entry *entries = read_directory(ring, &object, &footer, &reader);
    tap_ok(entries != NULL, "its directory opens");
    vv_free(entries);
    vv_sealer_free(reader);
    vv_segment_builder_free(builder);
    free(object.bytes);
}

/* What a small commit costs: memory is what there is most of to get wrong. */
static void test_small(const struct vv_keyring *ring)
{
    struct vv_segment_builder *builder = NULL;
    struct vv_frame_loc loc;
    struct vv_origin origin = fixture_origin(0);
    uint8_t plain[4096];
    uint8_t batch[1000];
    const struct iovec *iov = NULL;
    int count = 0;
    size_t bytes = 0;
    fixture_noise(plain, sizeof(plain), 1);
    fixture_noise(batch, sizeof(batch), 2);
    size_t live = vv_alloc_domain_count(0);
    int err = vv_segment_builder_new(ring, &log_id, &fixture_settings, &builder);
    if (err == 0)
        err = vv_segment_add(builder, &origin, plain, sizeof(plain), &loc);
    if (err == 0)
        err = vv_segment_finish(builder, batch, sizeof(batch), &iov, &count, &bytes);
    tap_is_int(err, 0, "one frame of 4 KiB and a batch");
    tap_is_int((int64_t)(vv_alloc_domain_count(0) - live), 4,
               "builder, sealer, chunk, directory: four allocations");
    tap_is_int(count, 2, "the header and one chunk");
    vv_segment_builder_free(builder);
}

/* In memory lent: one piece if it is enough, else the rest follows in chunks. */
static void test_lent(const struct vv_keyring *ring, uint32_t frame_count, size_t capacity, int pieces)
{
    enum { FRAMES_MAX = 100 };
    struct vv_segment_builder *builder = builder_new(ring, &data_id);
    struct vv_frame_loc locs[FRAMES_MAX];
    struct object object = {0};
    uint8_t *lent = calloc(1, capacity + 1);
    if (!lent)
        abort();
    lent[capacity] = 77;
    tap_is_int(vv_segment_builder_lend(builder, lent, capacity), 0, "%zu bytes are lent", capacity);
    int bad_count = 0;
    size_t plain_len = 0;
    for (uint32_t i = 0; i < frame_count; i++) {
        uint8_t plain[FRAME_MAX];
        plain_len += fixture_plain(i, plain);
        bad_count += add(builder, NULL, i, &locs[i]) != 0;
    }
    tap_is_int(bad_count, 0, "%u frames are added", frame_count);
    tap_is_int(fixture_finish(builder, &data_id, NULL, 0, &object), 0, "finished");
    check_object(ring, &object, locs, frame_count);
    tap_is_int(lent[capacity], 77, "nothing behind the memory");
    if (pieces == 1) {
        tap_is_bytes(lent, object.bytes, object.len, "the whole object lies in it");
        tap_ok(vv_segment_bound(plain_len, frame_count) >= object.len, "the bound holds");
    }
    vv_segment_builder_free(builder);
    free(object.bytes);
    free(lent);
}

static int build_all(void *arg)
{
    const struct vv_keyring *ring = arg;
    struct vv_segment_builder *builder = NULL;
    struct vv_segment_part *part = NULL;
    struct vv_frame_loc loc;
    uint32_t base = 0;
    uint32_t index = 0;
    const struct iovec *iov = NULL;
    int count = 0;
    size_t bytes = 0;
    static uint8_t batch[100000];
    static uint8_t lent[20000];
    TRY(vv_segment_builder_new(ring, &log_id, &fixture_settings, &builder));
    int err = vv_segment_builder_lend(builder, lent, sizeof(lent));
    for (; index < 20 && err == 0; index++)
        err = add(builder, NULL, 2 * index + 100, &loc);
    if (err == 0)
        err = vv_segment_part_new(builder, index, &part);
    for (uint32_t i = 0; i < 100 && err == 0; i++)
        err = add(builder, part, 2 * i + 100, &loc);
    if (err == 0)
        err = vv_segment_join(builder, part, &base);
    if (err == 0)
        err = add(builder, part, 100, &loc);
    if (err == 0)
        err = vv_segment_join(builder, part, &base);
    if (err == 0)
        err = vv_segment_finish(builder, batch, sizeof(batch), &iov, &count, &bytes);
    vv_segment_part_free(part);
    vv_segment_builder_free(builder);
    return err;
}

/* After any single failure, doing the same again gives the same segment: nothing had changed. */
static void test_retry(const struct vv_keyring *ring)
{
    int bad_count = 0;
    bool has_failed = true;
    for (int64_t n = 0; has_failed; n++) {
        struct vv_segment_builder *builder = builder_new(ring, &log_id);
        struct vv_frame_loc locs[60];
        struct object object = {0};
        struct vv_segment_part *part = NULL;
        uint32_t base = 0;
        vv_alloc_fail_at(n, false);
        for (uint32_t i = 0; i < 30; i++) {
            if (add(builder, NULL, i, &locs[i]) < 0)
                bad_count += add(builder, NULL, i, &locs[i]) != 0;
        }
        if (vv_segment_part_new(builder, 30, &part) < 0)
            bad_count += vv_segment_part_new(builder, 30, &part) != 0;
        for (uint32_t i = 30; i < 60; i++) {
            if (add(builder, part, i, &locs[i]) < 0)
                bad_count += add(builder, part, i, &locs[i]) != 0;
        }
        if (vv_segment_join(builder, part, &base) < 0)
            bad_count += vv_segment_join(builder, part, &base) != 0;
        for (uint32_t i = 30; i < 60; i++)
            locs[i].offset += base;
        if (fixture_finish(builder, &log_id, locs, sizeof(locs), &object) < 0)
            bad_count += fixture_finish(builder, &log_id, locs, sizeof(locs), &object) != 0;
        has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        struct vv_segment_footer footer = {0};
        struct vv_sealer *reader = NULL;
        struct vv_segment_entry *entries = read_directory(ring, &object, &footer, &reader);
        bad_count += !entries || footer.frame_count != 60;
        for (uint32_t i = 0; entries && i < 60; i++)
            bad_count += entries[i].offset != locs[i].offset || entries[i].len != locs[i].len;
        vv_free(entries);
        vv_sealer_free(reader);
        vv_segment_part_free(part);
        vv_segment_builder_free(builder);
        free(object.bytes);
    }
    tap_is_int(bad_count, 0, "a call that failed for lack of memory can be made again");
}

enum { NOISE = 100, TEXT = 40, LEN = 32768 };

static void make_stubborn(uint8_t *plain, uint32_t i)
{
    if (i < NOISE)
        fixture_noise(plain, LEN, i);
    else
        fixture_text(plain, LEN);
}

/* Behind noise, frames are not all tried; that text has begun is noticed soon. */
static void test_stubborn(const struct vv_keyring *ring)
{
    struct vv_segment_id id = {.epoch = 5, .counter = 17, .kind = VV_SEGMENT_DATA};
    struct vv_segment_builder *builder = NULL;
    static uint8_t plain[LEN], opened[LEN];
    static struct vv_frame_loc locs[NOISE + TEXT];
    struct object object;
    tap_is_int(vv_segment_builder_new(ring, &id, &fixture_settings, &builder), 0, "new");
    unsigned bad = 0;
    unsigned shorter = 0;
    for (uint32_t i = 0; i < NOISE + TEXT; i++) {
        struct vv_origin origin = fixture_origin(i);
        make_stubborn(plain, i);
        bad += vv_segment_add(builder, &origin, plain, LEN, &locs[i]) < 0;
        shorter += locs[i].len < LEN;
    }
    tap_ok(shorter >= TEXT - 8, "%u of %d frames of text behind noise are shorter", shorter, TEXT);
    tap_is_int(fixture_finish(builder, &id, NULL, 0, &object), 0, "finish");
    for (uint32_t i = 0; i < NOISE + TEXT; i++) {
        struct vv_origin origin = fixture_origin(i);
        make_stubborn(plain, i);
        ssize_t len = vv_frame_open(vv_segment_builder_sealer(builder), locs[i].index, &origin,
                                    object.bytes + locs[i].offset, locs[i].len, opened, LEN);
        bad += len != LEN || memcmp(opened, plain, LEN) != 0;
    }
    tap_is_int(bad, 0, "all of them are read back");
    vv_segment_builder_free(builder);
    free(object.bytes);
}

/* All frames of one segment taken over into another, which is damaged in one place. */
static void test_sealed(const struct vv_keyring *ring, uint32_t count)
{
    struct vv_segment_id id = {.epoch = 5, .counter = 18, .kind = VV_SEGMENT_DATA};
    struct vv_segment_builder *old = builder_new(ring, &log_id);
    struct vv_segment_builder *builder = builder_new(ring, &id);
    struct vv_frame_loc *locs = calloc(2 * count, sizeof(*locs));
    struct object object = {0};
    struct object again = {0};
    unsigned bad = 0;
    if (!locs)
        abort();
    for (uint32_t i = 0; i < count; i++)
        bad += add(old, NULL, i, &locs[i]) < 0;
    tap_is_int(fixture_finish(old, &log_id, "batch", 5, &object), 0, "a segment");
    for (uint32_t i = 0; i < count; i++) {
        struct vv_origin origin = fixture_origin(i);
        struct vv_sealed_frame frame = {vv_segment_builder_sealer(old), i,
                                        object.bytes + locs[i].offset, locs[i].len};
        if (i == count / 2) {
            size_t bytes = vv_segment_builder_bytes(builder);
            object.bytes[locs[i].offset + locs[i].len - 1] ^= 1;
            bad += vv_segment_add_sealed(builder, &origin, &frame, &locs[count + i]) != -VV_ERR_AUTH;
            bad += vv_segment_builder_bytes(builder) != bytes ||
                   vv_segment_builder_count(builder) != i;
            object.bytes[locs[i].offset + locs[i].len - 1] ^= 1;
        }
        bad += vv_segment_add_sealed(builder, &origin, &frame, &locs[count + i]) < 0;
        bad += locs[count + i].len != locs[i].len ||
               !vv_segment_id_equal(&locs[count + i].segment, &id);
    }
    tap_is_int(bad, 0, "%u frames are taken over", count);
    tap_is_int(fixture_finish(builder, &id, NULL, 0, &again), 0, "into another");
    check_object(ring, &again, locs + count, count);
    vv_segment_builder_free(old);
    vv_segment_builder_free(builder);
    free(object.bytes);
    free(again.bytes);
    free(locs);
}

int main(void)
{
    vv_alloc_track(true);
    struct vv_keyring *ring = fixture_ring(0x77, 1);
    test_header(ring);
    test_build(ring, 0, 0);
    test_build(ring, 0, 1);
    test_build(ring, 1, 0);
    test_build(ring, 1, 1000);
    test_build(ring, 5, 3000000);
    test_build(ring, 1500, 100);
    test_parts(ring, 1, 1);
    test_parts(ring, 4, 3);
    test_parts(ring, 8, 400);
    test_parts(ring, 3, 0);
    test_part_again(ring);
    test_limits(ring);
    test_frame_limit(ring);
    test_small(ring);
    test_stubborn(ring);
    test_sealed(ring, 1);
    test_sealed(ring, 300);
    test_lent(ring, 50, 200000, 1);
    test_lent(ring, 50, 30000, 2);
    test_lent(ring, 3, 200, 2);
    test_lent(ring, 0, 4096, 1);
    fixture_fail_allocs(build_all, ring, "building");
    test_retry(ring);
    vv_keyring_free(ring);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing leaks");
    return tap_done();
}
