/* What the tests of segment share: a finished segment as one block of memory. */
#ifndef TESTS_UNIT_SEGMENT_FIXTURE_H
#define TESTS_UNIT_SEGMENT_FIXTURE_H

#include "segment/segment.h"
#include "unit/seal/fixture.h"

struct object {
    uint8_t *bytes;
    size_t len;
    char name[64];
};

static const struct vv_seal_settings fixture_settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4,
                                                         0};

/* Finish the builder and copy what it gives. An error of vv_segment_finish. */
static inline int fixture_finish(struct vv_segment_builder *builder, const struct vv_segment_id *id,
                                 const void *batch, size_t batch_len, struct object *out_object)
{
    const struct iovec *iov = NULL;
    int count = 0;
    size_t bytes = 0;
    TRY(vv_segment_finish(builder, batch, batch_len, &iov, &count, &bytes));
    struct object object = {.bytes = malloc(bytes)};
    if (!object.bytes)
        abort();
    for (int i = 0; i < count; i++) {
        memcpy(object.bytes + object.len, iov[i].iov_base, iov[i].iov_len);
        object.len += iov[i].iov_len;
    }
    if (object.len != bytes)
        abort();
    vv_segment_name(id, object.name, sizeof(object.name));
    *out_object = object;
    return 0;
}

/* The plain content of frame i of the segments below. */
static inline size_t fixture_plain(uint32_t i, uint8_t *out)
{
    size_t len = i * 37 % 5000;
    if (i % 2 == 0)
        fixture_noise(out, len, i);
    else
        fixture_text(out, len);
    return len;
}

static inline struct vv_origin fixture_origin(uint32_t i)
{
    return (struct vv_origin){VV_ORIGIN_FIRST_DATA + (i & 3), i};
}

#endif
