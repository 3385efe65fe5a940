/* The decoders of metadata tables: footer, index, blocks, filter, names. The first byte chooses. */
#include <assert.h>
#include <string.h>

#include "lsm/table_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_block(const uint8_t *data, size_t size)
{
    struct vv_block_iter iter;
    struct vv_block_iter seeker;
    uint8_t last[VV_LSM_KEY_MAX];
    if (vv_block_iter_init(&iter, data, size) < 0)
        return;
    size_t records = 0;
    while (vv_block_next(&iter) == 1) {
        struct vv_bytes key = vv_block_key(&iter);
        assert(++records <= size);
        assert(iter.value.len <= size);
        memcpy(last, key.ptr, key.len);
        if (vv_block_iter_init(&seeker, data, size) == 0 && records < 64)
            (void)!vv_block_seek(&seeker, (struct vv_bytes){last, key.len});
    }
}

static void fuzz_index(const uint8_t *data, size_t size)
{
    struct vv_bytes index = {data, size};
    struct vv_table_footer footer = {16, 100000, 53, 100053, 99};
    uint32_t count;
    uint32_t found;
    if (vv_index_count(index, &count) < 0)
        return;
    for (uint32_t i = 0; i < count && i < 64; i++) {
        struct vv_block_loc loc;
        struct vv_bytes key;
        if (vv_index_at(index, &footer, i, &loc, &key) < 0)
            continue;
        assert(loc.offset + loc.len <= footer.filter_offset);
        if (vv_index_find(index, key, &found) == 1)
            assert(found < count);
    }
}

static void fuzz_footer(const uint8_t *data, size_t size)
{
    struct vv_table_footer footer;
    uint8_t bytes[VV_TABLE_FOOTER_LEN];
    if (size < 8 + VV_TABLE_FOOTER_LEN)
        return;
    uint64_t object_len = vv_load_u64(data);
    if (vv_table_footer_decode(data + 8, object_len, &footer) < 0)
        return;
    assert(footer.index_offset + footer.index_len <= object_len);
    vv_table_footer_encode(&footer, bytes);
    assert(memcmp(bytes, data + 8, sizeof(bytes)) == 0);
}

static void fuzz_filter(const uint8_t *data, size_t size)
{
    if (size < 8 + VV_FILTER_GROUP_LEN)
        return;
    size_t len = (size - 8) / VV_FILTER_GROUP_LEN * VV_FILTER_GROUP_LEN;
    (void)vv_filter_may_contain(data + 8, len, vv_load_u64(data));
}

static void fuzz_name(const uint8_t *data, size_t size)
{
    char name[128];
    char again[VV_TABLE_NAME_MAX];
    uint64_t epoch;
    uint64_t counter;
    size_t len = size < sizeof(name) ? size : sizeof(name) - 1;
    memcpy(name, data, len);
    name[len] = '\0';
    if (vv_table_name_parse(name, &epoch, &counter) < 0)
        return;
    vv_table_name(epoch, counter, again, sizeof(again));
    assert(strcmp(name, again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(const uint8_t *data, size_t size) = {
        fuzz_block, fuzz_index, fuzz_footer, fuzz_filter, fuzz_name};
    if (size > 0)
        targets[data[0] % 5](data + 1, size - 1);
    return 0;
}
