/* Footer, blocks, index and filter as bytes; damaged ones are refused or at least harmless. */
#include "lsm/table_format.h"

#include "base/hash.h"
#include "rig.h"

static void test_footer(void)
{
    uint8_t bytes[VV_TABLE_FOOTER_LEN];
    struct vv_table_footer footer = {3, 1000, 500, 1500, 300};
    struct vv_table_footer again;
    uint64_t object_len = 1800 + VV_TABLE_TRAILER_LEN;
    vv_table_footer_encode(&footer, bytes);
    tap_is_int(vv_table_footer_decode(bytes, object_len, &again), 0, "a footer");
    tap_ok(again.block_count == 3 && again.filter_offset == 1000 && again.filter_len == 500 &&
               again.index_offset == 1500 && again.index_len == 300,
           "comes back");
    tap_is_int(vv_table_footer_decode(bytes, object_len + 1, &again), -VV_ERR_FORMAT,
               "of another object");
    bool is_refused = true;
    for (unsigned bit = 0; bit < 8 * VV_TABLE_FOOTER_LEN; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        is_refused &= vv_table_footer_decode(bytes, object_len, &again) < 0;
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    tap_ok(is_refused, "every flipped bit is found");
    struct vv_table_footer bad[] = {
        {0, 1000, 500, 1500, 300},        {3, 96, 500, 596, 1204},
        {3, 1000, 501, 1500, 300},        {3, 1000, 500, 1500, 301},
        {3, UINT64_MAX, 500, 1500, 300},  {3, 1000, 500, UINT64_MAX, 300},
        {1u << 25, 1000, 500, 1500, 300}, {3, UINT64_MAX - 499, 500, 1500, 300},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        vv_table_footer_encode(&bad[i], bytes);
        tap_is_int(vv_table_footer_decode(bytes, object_len, &again), -VV_ERR_FORMAT,
                   "offsets that can't be, %zu", i);
    }
}

/* A block of keys k0000, k0010, ... by hand. */
static size_t make_block(uint8_t *out, size_t capacity, unsigned count)
{
    struct vv_writer records = vv_writer_of(out, capacity);
    uint32_t restarts[64];
    unsigned restart_count = 0;
    char last[16] = "";
    for (unsigned i = 0; i < count; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%04u", i * 10);
        size_t shared = 0;
        while (i % 16 != 0 && shared < strlen(key) && key[shared] == last[shared])
            shared++;
        if (i % 16 == 0)
            restarts[restart_count++] = (uint32_t)records.len;
        vv_writer_varint(&records, shared);
        vv_writer_varint(&records, strlen(key) - shared);
        vv_writer_varint(&records, i % 3 == 0 ? VV_LSM_DELETE : VV_LSM_PUT | (i % 5) << 2);
        vv_writer_bytes(&records, key + shared, strlen(key) - shared);
        vv_writer_bytes(&records, "value", i % 3 == 0 ? 0 : i % 5);
        memcpy(last, key, sizeof(key));
    }
    for (unsigned i = 0; i < restart_count; i++)
        vv_writer_u32(&records, restarts[i]);
    vv_writer_u32(&records, restart_count);
    return records.is_bad ? 0 : records.len;
}

static void test_block(void)
{
    uint8_t block[4096];
    struct vv_block_iter iter;
    char key[16];
    size_t len = make_block(block, sizeof(block), 100);
    tap_is_int(vv_block_iter_init(&iter, block, len), 0, "a block");
    unsigned count = 0;
    bool is_right = true;
    while (vv_block_next(&iter) == 1) {
        snprintf(key, sizeof(key), "k%04u", count * 10);
        is_right &= vv_bytes_compare(vv_block_key(&iter), text_bytes(key)) == 0;
        is_right &= iter.kind == (count % 3 == 0 ? VV_LSM_DELETE : VV_LSM_PUT);
        is_right &= iter.value.len == (count % 3 == 0 ? 0 : count % 5);
        count++;
    }
    tap_ok(is_right && count == 100, "all records in order");
    is_right = true;
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(key, sizeof(key), "k%04u", i);
        int found = vv_block_seek(&iter, text_bytes(key));
        unsigned want = (i + 9) / 10 * 10;
        is_right &= found == (want < 1000);
        snprintf(key, sizeof(key), "k%04u", want);
        is_right &= !found || vv_bytes_compare(vv_block_key(&iter), text_bytes(key)) == 0;
    }
    tap_ok(is_right, "every place is found");
    tap_is_int(vv_block_seek(&iter, text_bytes("l")), 0, "above all");
    tap_is_int(vv_block_seek(&iter, text_bytes("")), 1, "below all");
    tap_is_int(vv_block_iter_init(&iter, block, 7), -VV_ERR_FORMAT, "too short");
    memset(block, 0, 8);
    tap_is_int(vv_block_iter_init(&iter, block, 8), -VV_ERR_FORMAT, "no restarts");
    memset(block, 0xff, 8);
    tap_is_int(vv_block_iter_init(&iter, block, 8), -VV_ERR_FORMAT, "too many restarts");
}

/* No flipped bit, and no cut, may lead outside the block. A sanitizer looks on. */
static void test_damaged_block(void)
{
    uint8_t block[1024];
    size_t len = make_block(block, sizeof(block), 40);
    for (unsigned bit = 0; bit < 8 * len; bit++) {
        size_t cut = bit % 3 == 0 ? len - bit % len : len;
        uint8_t *copy = malloc(cut + 1);
        if (!copy)
            exit(1);
        memcpy(copy, block, cut);
        if (bit / 8 < cut)
            copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        struct vv_block_iter iter;
        if (vv_block_iter_init(&iter, copy, cut) == 0) {
            unsigned count = 0;
            while (count < 1000 && vv_block_next(&iter) == 1)
                count++;
            if (count == 1000)
                tap_ok(false, "a block ends");
            (void)!vv_block_seek(&iter, text_bytes("k0201"));
        }
        free(copy);
    }
    tap_ok(true, "damaged blocks do no harm");
}

static size_t make_index(uint8_t *out, size_t capacity, unsigned count, uint64_t first)
{
    struct vv_writer records = vv_writer_of(out, capacity);
    uint32_t restarts[64];
    for (unsigned i = 0; i < count; i++) {
        uint8_t bytes[20];
        char key[16];
        struct vv_writer value = vv_writer_of(bytes, sizeof(bytes));
        vv_writer_varint(&value, first + i * 100);
        vv_writer_varint(&value, 100);
        snprintf(key, sizeof(key), "m%02u", i);
        restarts[i] = (uint32_t)records.len;
        vv_writer_varint(&records, 0);
        vv_writer_varint(&records, strlen(key));
        vv_writer_varint(&records, VV_LSM_PUT | value.len << 2);
        vv_writer_bytes(&records, key, strlen(key));
        vv_writer_bytes(&records, bytes, value.len);
    }
    for (unsigned i = 0; i < count; i++)
        vv_writer_u32(&records, restarts[i]);
    vv_writer_u32(&records, count);
    return records.len;
}

static void test_index(void)
{
    uint8_t bytes[2048];
    struct vv_table_footer footer = {20, 96 + 2000, 53, 96 + 2053, 99};
    struct vv_bytes index = {bytes, make_index(bytes, sizeof(bytes), 20, 96)};
    struct vv_block_loc loc;
    struct vv_bytes key;
    uint32_t number;
    tap_is_int(vv_index_count(index, &number), 0, "an index");
    tap_is_int(number, 20, "of twenty blocks");
    tap_is_int(vv_index_find(index, text_bytes("a"), &number), 1, "the first block");
    tap_is_int(number, 0, "holds what is below");
    tap_is_int(vv_index_find(index, text_bytes("m07"), &number), 1, "a separator");
    tap_is_int(number, 7, "belongs to its block");
    tap_is_int(vv_index_find(index, text_bytes("m070"), &number), 1, "just above one");
    tap_is_int(number, 8, "the next block");
    tap_is_int(vv_index_find(index, text_bytes("m19!"), &number), 0, "above all");
    tap_is_int(vv_index_at(index, &footer, 19, &loc, &key), 0, "the last block");
    tap_ok(loc.offset == 96 + 1900 && loc.len == 100 &&
               vv_bytes_compare(key, text_bytes("m19")) == 0,
           "lies where it lies");
    tap_is_int(vv_index_at(index, &footer, 20, &loc, NULL), -VV_ERR_FORMAT, "no such block");
    footer.filter_offset = 96 + 1999;
    tap_is_int(vv_index_at(index, &footer, 19, &loc, NULL), -VV_ERR_FORMAT, "a block too long");
    index.len = make_index(bytes, sizeof(bytes), 20, 0);
    tap_is_int(vv_index_at(index, &footer, 0, &loc, NULL), -VV_ERR_FORMAT, "within the header");
    index.len = make_index(bytes, sizeof(bytes), 20, UINT64_MAX - 50);
    tap_is_int(vv_index_at(index, &footer, 0, &loc, NULL), -VV_ERR_FORMAT, "past the end");
}

static void test_filter(void)
{
    size_t len = vv_filter_len(10000);
    uint8_t *filter = calloc(1, len);
    unsigned missing = 0;
    unsigned wrong = 0;
    if (!filter)
        exit(1);
    for (uint64_t i = 0; i < 10000; i++)
        vv_filter_add(filter, len, vv_xxh3(&i, sizeof(i), 0));
    for (uint64_t i = 0; i < 10000; i++)
        missing += !vv_filter_may_contain(filter, len, vv_xxh3(&i, sizeof(i), 0));
    for (uint64_t i = 10000; i < 110000; i++)
        wrong += vv_filter_may_contain(filter, len, vv_xxh3(&i, sizeof(i), 0));
    tap_is_int(missing, 0, "all keys pass the filter");
    tap_ok(wrong < 2000, "less than two in a hundred others do (%u of 100000)", wrong);
    tap_is_int((int64_t)vv_filter_len(0), 32, "never empty");
    tap_is_int((int64_t)len, 12512, "ten bits a key");
    free(filter);
}

int main(void)
{
    test_footer();
    test_block();
    test_damaged_block();
    test_index();
    test_filter();
    return tap_done();
}
