#include "base/bytes.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "tap.h"

static const uint64_t values[] = {0,
                                  1,
                                  0x7f,
                                  0x80,
                                  0x3fff,
                                  0x4000,
                                  0xffffffff,
                                  UINT64_C(1) << 35,
                                  INT64_MAX,
                                  (uint64_t)1 << 63,
                                  UINT64_MAX - 1,
                                  UINT64_MAX};
#define VALUE_COUNT (sizeof(values) / sizeof(values[0]))

static void test_layout(void)
{
    uint8_t buf[28];
    struct vv_writer writer = vv_writer_of(buf, sizeof(buf));
    vv_writer_u16(&writer, 0x0102);
    vv_writer_u32(&writer, 0x01020304);
    vv_writer_u64(&writer, UINT64_C(0x0102030405060708));
    vv_writer_be16(&writer, 0x0102);
    vv_writer_be32(&writer, 0x01020304);
    vv_writer_be64(&writer, UINT64_C(0x0102030405060708));
    static const uint8_t want[28] = {2, 1, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1,
                                     1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8};
    tap_is_bytes(buf, want, sizeof(want), "integers lie as they should");
    tap_is_int(vv_writer_check(&writer), 0, "a buffer can be filled to the last byte");
    vv_writer_u8(&writer, 1);
    tap_is_int(vv_writer_check(&writer), -EOVERFLOW, "one more does not fit");
    tap_is_int((int64_t)writer.len, 28, "and is not written");

    struct vv_cursor cursor = vv_cursor_of(buf, sizeof(buf));
    bool is_same = vv_cursor_u16(&cursor) == 0x0102 && vv_cursor_u32(&cursor) == 0x01020304 &&
                   vv_cursor_u64(&cursor) == UINT64_C(0x0102030405060708) &&
                   vv_cursor_be16(&cursor) == 0x0102 && vv_cursor_be32(&cursor) == 0x01020304 &&
                   vv_cursor_be64(&cursor) == UINT64_C(0x0102030405060708);
    tap_ok(is_same, "and are read back");
    tap_is_int(vv_cursor_end(&cursor), 0, "nothing is left over");

    vv_store_u32(buf + 1, 0x01020304);
    tap_ok(vv_load_u32(buf + 1) == 0x01020304 && buf[1] == 4, "unaligned u32");
    vv_store_u64(buf + 1, UINT64_C(0x0102030405060708));
    tap_ok(vv_load_u64(buf + 1) == UINT64_C(0x0102030405060708) && buf[1] == 8, "unaligned u64");
    vv_store_be64(buf + 1, UINT64_C(0x0102030405060708));
    tap_ok(vv_load_be64(buf + 1) == UINT64_C(0x0102030405060708) && buf[1] == 1, "unaligned be64");
}

static void test_varints(void)
{
    bool is_same = true;
    bool is_cut_seen = true;
    for (size_t i = 0; i < VALUE_COUNT; i++) {
        uint8_t buf[32];
        struct vv_writer writer = vv_writer_of(buf, sizeof(buf));
        vv_writer_varint(&writer, values[i]);
        is_same &= writer.len == vv_varint_len(values[i]);
        size_t varint_len = writer.len;
        vv_writer_svarint(&writer, (int64_t)values[i]);
        vv_writer_svarint(&writer, -(int64_t)(values[i] >> 1));
        struct vv_cursor cursor = vv_cursor_of(buf, writer.len);
        is_same &= vv_cursor_varint(&cursor) == values[i];
        is_same &= vv_cursor_svarint(&cursor) == (int64_t)values[i];
        is_same &= vv_cursor_svarint(&cursor) == -(int64_t)(values[i] >> 1);
        is_same &= vv_cursor_end(&cursor) == 0;
        for (size_t len = 0; len < varint_len; len++) {
            cursor = vv_cursor_of(buf, len);
            is_cut_seen &= vv_cursor_varint(&cursor) == 0 && cursor.is_bad && cursor.len == 0;
        }
    }
    tap_ok(is_same, "varints and their lengths survive the round trip");
    tap_ok(is_cut_seen, "varints that are cut off are bad");
    tap_is_int((int64_t)vv_varint_len(UINT64_MAX), 10, "the longest varint");
    tap_is_int((int64_t)vv_varint_len(0), 1, "the shortest varint");

    struct vv_cursor cursor = vv_cursor_of("\x80\x00", 2);
    vv_cursor_varint(&cursor);
    tap_is_int(vv_cursor_check(&cursor), -VV_ERR_FORMAT, "a varint must be minimal");
    cursor = vv_cursor_of("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10);
    vv_cursor_varint(&cursor);
    tap_is_int(vv_cursor_check(&cursor), -VV_ERR_FORMAT, "a varint has at most 64 bits");
    cursor = vv_cursor_of("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11);
    vv_cursor_varint(&cursor);
    tap_is_int(vv_cursor_check(&cursor), -VV_ERR_FORMAT, "and at most ten bytes");
}

static void test_cursor(void)
{
    struct vv_cursor cursor = vv_cursor_of("\x03"
                                           "abcdefg",
                                           8);
    struct vv_bytes string = vv_cursor_string(&cursor, 3);
    tap_ok(string.len == 3 && memcmp(string.ptr, "abc", 3) == 0, "a string");
    vv_cursor_skip(&cursor, 1);
    char out[4] = "zzz";
    vv_cursor_copy(&cursor, out, 2);
    tap_is_str(out, "efz", "skip and copy");
    tap_is_int(vv_cursor_check(&cursor), 0, "the cursor is good");
    tap_is_int(vv_cursor_end(&cursor), -VV_ERR_FORMAT, "but a byte is left over");
    vv_cursor_copy(&cursor, out, 2);
    tap_is_int(out[0] | out[1], 0, "a copy that fails gives zeroes");
    struct vv_bytes none = vv_cursor_bytes(&cursor, 0);
    tap_ok(none.ptr == NULL && none.len == 0, "a bad cursor gives no bytes");
    tap_is_int(vv_cursor_u8(&cursor), 0, "and 0, though a byte was left");
    tap_is_int(vv_cursor_check(&cursor), -VV_ERR_FORMAT, "it stays bad");

    cursor = vv_cursor_of("\x03"
                          "abc",
                          4);
    string = vv_cursor_string(&cursor, 2);
    tap_ok(!string.ptr && cursor.is_bad, "a string longer than the limit");
    cursor = vv_cursor_of("\x03"
                          "ab",
                          3);
    string = vv_cursor_string(&cursor, 9);
    tap_ok(!string.ptr && cursor.is_bad, "a string longer than the input");
    cursor = vv_cursor_of("a", 1);
    vv_cursor_skip(&cursor, SIZE_MAX);
    tap_ok(cursor.is_bad, "skipping too far");
}

static void test_writer(void)
{
    struct vv_writer writer = vv_writer_new();
    tap_ok(vv_writer_space(&writer, 0) != NULL, "no space has a place, too");
    for (int i = 0; i < 100000; i++)
        vv_writer_u8(&writer, (uint8_t)i);
    tap_ok(writer.len == 100000 && writer.ptr[99999] == (uint8_t)99999, "a writer grows");
    vv_writer_reset(&writer);
    vv_writer_string(&writer, "abc", 3);
    uint8_t *space = vv_writer_space(&writer, 2);
    tap_ok(space && space[0] == 0 && space[1] == 0, "space is zeroed, after a reset too");
    tap_is_bytes(writer.ptr, "\3abc\0", 6, "string and space");
    vv_writer_reserve(&writer, 1 << 20);
    const uint8_t *before = writer.ptr;
    tap_ok(vv_writer_space(&writer, 1 << 20) != NULL && writer.ptr == before, "reserve suffices");
    vv_writer_bytes(&writer, NULL, 0);
    tap_is_int(vv_writer_check(&writer), 0, "no bytes from nowhere");
    vv_writer_reserve(&writer, SIZE_MAX);
    tap_is_int(vv_writer_check(&writer), -ENOMEM, "a size that overflows");
    vv_writer_done(&writer);
    vv_writer_done(&writer);

    char buf[4];
    writer = vv_writer_of(buf, sizeof(buf));
    vv_writer_u64(&writer, 1);
    vv_writer_u8(&writer, 1);
    tap_is_int(vv_writer_check(&writer), -EOVERFLOW, "bad stays bad, though a byte would fit");
    vv_writer_reset(&writer);
    vv_writer_u32(&writer, 1);
    tap_is_int(vv_writer_check(&writer), 0, "until it is reset");
    vv_writer_done(&writer);

    int n = 0;
    int check = -1;
    for (; check != 0; n++) {
        writer = vv_writer_new();
        vv_alloc_fail_at(n, false);
        for (int i = 0; i < 1000; i++)
            vv_writer_u64(&writer, 1);
        vv_alloc_fail_at(-1, false);
        check = vv_writer_check(&writer);
        if (check != 0 && (check != -ENOMEM || writer.len > writer.capacity))
            break;
        vv_writer_done(&writer);
    }
    tap_ok(check == 0 && n > 3, "each growth may fail");
}

static void test_text(void)
{
    struct vv_bytes a = {(const uint8_t *)"ab", 2};
    struct vv_bytes b = {(const uint8_t *)"abc", 3};
    struct vv_bytes c = {(const uint8_t *)"\xff", 1};
    struct vv_bytes none = {NULL, 0};
    tap_ok(vv_bytes_compare(a, b) < 0 && vv_bytes_compare(b, a) > 0, "shorter first");
    tap_ok(vv_bytes_compare(b, c) < 0 && vv_bytes_compare(c, b) > 0, "unsigned order");
    tap_ok(vv_bytes_compare(a, a) == 0 && vv_bytes_compare(none, none) == 0, "equal");
    tap_ok(vv_bytes_compare(none, a) < 0, "nothing is first");

    char text[9];
    uint8_t bytes[4] = {9, 9, 9, 9};
    vv_hex("\x00\xff\x1a\xb2", 4, text);
    tap_is_str(text, "00ff1ab2", "hex");
    tap_is_int(vv_unhex("00fg1ab2", bytes, 4), -EINVAL, "unhex: not a digit");
    tap_is_int(vv_unhex("00ff1ab", bytes, 4), -EINVAL, "unhex: too short");
    tap_is_int(vv_unhex("00ff1ab2c", bytes, 4), -EINVAL, "unhex: too long");
    tap_is_bytes(bytes, "\t\t\t\t", 4, "unhex: failing changes nothing");
    tap_is_int(vv_unhex("00FF1ab2", bytes, 4), 0, "unhex: both cases");
    tap_is_bytes(bytes, "\x00\xff\x1a\xb2", 4, "unhex: the bytes");
}

int main(void)
{
    test_layout();
    test_varints();
    test_cursor();
    test_writer();
    test_text();
    return tap_done();
}
