/* The decoders of the disk cache's files: an entry, the tail of a file, its index. The first byte chooses. */
#include <assert.h>
#include <string.h>

#include "cache/disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_entry(const uint8_t *data, size_t size)
{
    struct vv_disk_entry entry;
    uint8_t again[VV_DISK_HEADER_LEN + VV_STORE_NAME_MAX];
    ssize_t len = vv_disk_entry_decode(data, size, &entry);
    if (len < 0)
        return;
    assert((size_t)len <= size && entry.len > 0 && entry.len <= VV_DISK_ENTRY_MAX);
    assert(entry.name[entry.name_len] == 0);
    assert(vv_disk_entry_encode(&entry, again) == (size_t)len && memcmp(again, data, (size_t)len) == 0);
}

static void fuzz_tail(const uint8_t *data, size_t size)
{
    struct vv_disk_tail tail;
    uint8_t again[VV_DISK_TAIL_LEN];
    if (size < VV_DISK_TAIL_LEN || vv_disk_tail_decode(data, 1 << 20, &tail) < 0)
        return;
    assert(tail.index_at + VV_DISK_TAIL_LEN <= 1 << 20);
    vv_disk_tail_encode(&tail, again);
    assert(memcmp(again, data, sizeof again) == 0);
}

static void fuzz_index(const uint8_t *data, size_t size)
{
    struct vv_cursor cursor = vv_cursor_of(data, size);
    struct vv_disk_entry entry;
    uint64_t at;
    size_t count = 0;
    while (vv_disk_index_next(&cursor, 1 << 20, &at, &entry) > 0) {
        assert(at + entry.len <= 1 << 20);
        assert(++count <= size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(const uint8_t *data, size_t size) = {fuzz_entry, fuzz_tail,
                                                                        fuzz_index};
    if (size > 0)
        targets[data[0] % 3](data + 1, size - 1);
    return 0;
}
