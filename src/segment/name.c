#include "segment/segment.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/text.h"

#define HEX64_LEN 16
#define SHARD_LEN 2
#define DATA_NAME_LEN (sizeof("data/") - 1 + SHARD_LEN + 1 + HEX64_LEN + 1 + HEX64_LEN)
#define LOG_NAME_LEN (sizeof("log/") - 1 + HEX64_LEN + 1 + HEX64_LEN)

bool vv_segment_id_equal(const struct vv_segment_id *a, const struct vv_segment_id *b)
{
    return a->epoch == b->epoch && a->counter == b->counter && a->kind == b->kind &&
           a->volume == b->volume;
}

void vv_segment_name(const struct vv_segment_id *id, char *name, size_t size)
{
    assert(size > DATA_NAME_LEN);
    if (id->kind == VV_SEGMENT_LOG)
        vv_format(name, size, "log/%016" PRIx64 "/%016" PRIx64, id->epoch, id->counter);
    else
        vv_format(name, size, "data/%02x/%016" PRIx64 "-%016" PRIx64,
                  (unsigned)(id->counter & 0xff), id->epoch, id->counter);
}

/* HEX64_LEN hex digits; the caller compares the whole name afterwards, so case and shard need no
 * look. */
static int parse_hex64(const char *digits, uint64_t *out_value)
{
    char text[HEX64_LEN + 1] = {0};
    uint8_t bytes[HEX64_LEN / 2];
    memcpy(text, digits, HEX64_LEN);
    TRY(vv_unhex(text, bytes, sizeof(bytes)));
    *out_value = vv_load_be64(bytes);
    return 0;
}

int vv_segment_name_parse(const char *name, struct vv_segment_id *out_id)
{
    size_t len = strlen(name);
    struct vv_segment_id id = {0};
    if (len == LOG_NAME_LEN)
        id.kind = VV_SEGMENT_LOG;
    else if (len == DATA_NAME_LEN)
        id.kind = VV_SEGMENT_DATA;
    else
        return -EINVAL;
    TRY(parse_hex64(name + len - 2 * HEX64_LEN - 1, &id.epoch));
    TRY(parse_hex64(name + len - HEX64_LEN, &id.counter));
    /* There is one name for an id. */
    char want[DATA_NAME_LEN + 1];
    vv_segment_name(&id, want, sizeof(want));
    if (strcmp(name, want) != 0)
        return -EINVAL;
    *out_id = id;
    return 0;
}
