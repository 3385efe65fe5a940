/* Loading blocks of a table into the cache: the one that is wanted, and, for those who go through the table in
 * order, those behind it in the same request. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "lsm/lsm_impl.h"

#define AROUND_BYTES_MAX (1u << 20) /* of one request; and at most a share of the cache */
#define AROUND_CACHE_SHARE 16
#define AROUND_BLOCKS_MAX 512
#define INLINE_BYTES_MAX (64u << 10) /* more than this is opened by a worker */
#define SKIP_MAX 8                   /* blocks left out by a reader that still counts as going on */
#define GAP_BYTES_MAX (16u << 10)    /* of blocks that are there already, read in vain to reach others */

/* Blocks first..first+count-1, which lie behind each other; those with a block are this load's to fill. */
struct around {
    struct vv_table *table;
    uint32_t first;
    uint32_t count;
    uint64_t offset;
    size_t len;
    uint8_t *sealed;
    struct vv_block *blocks[AROUND_BLOCKS_MAX];
    uint32_t lens[AROUND_BLOCKS_MAX];
    struct vv_bytes plains[AROUND_BLOCKS_MAX];
    int error;
};

/* How many bytes are worth a request for block `number`: more each time that a reader goes on where it was.
 * Several readers go through one table at once. */
static size_t note_miss(struct vv_table *table, uint32_t number)
{
    struct vv_table_reader *oldest = &table->readers[0];
    for (unsigned i = 0; i < VV_TABLE_READERS_MAX; i++) {
        struct vv_table_reader *reader = &table->readers[i];
        if (reader->bytes > 0 && number >= reader->next && number <= reader->next + SKIP_MAX) {
            reader->bytes *= 2;
            reader->next = number;
            reader->used = ++table->reader_clock;
            return reader->bytes;
        }
        if (reader->used < oldest->used)
            oldest = reader;
    }
    *oldest = (struct vv_table_reader){number + 1, VV_LSM_BLOCK_BYTES, ++table->reader_clock};
    return 0;
}

static void note_loaded(struct vv_table *table, const struct around *around, size_t limit)
{
    for (unsigned i = 0; i < VV_TABLE_READERS_MAX; i++) {
        struct vv_table_reader *reader = &table->readers[i];
        if (reader->next < around->first || reader->next > around->first + around->count)
            continue;
        reader->next = around->first + around->count;
        if (reader->bytes > limit)
            reader->bytes = limit;
    }
}

/* Take the blocks behind the first that are missing: up to `bytes` of those below `end`, `noted` of any. */
static int extend(struct around *around, struct vv_bytes index, uint32_t end, size_t bytes,
                  size_t noted)
{
    struct vv_table *table = around->table;
    struct vv_block_loc loc;
    TRY(vv_index_at(index, &table->footer, around->first, &loc, NULL));
    around->offset = loc.offset;
    around->len = loc.len;
    around->lens[0] = loc.len;
    uint32_t next = around->first + 1;
    size_t len = around->len; /* with those that are there */
    for (; next < table->footer.block_count; next++) {
        uint32_t i = next - around->first;
        size_t limit = next < end && bytes > noted ? bytes : noted;
        struct vv_block *block;
        TRY(vv_index_at(index, &table->footer, next, &loc, NULL));
        if (loc.offset != around->offset + len)
            return -VV_ERR_FORMAT;
        if (len + loc.len > limit || i == AROUND_BLOCKS_MAX)
            return 0;
        struct vv_cache_key key = vv_table_cache_key(table, next);
        int found = vv_cache_begin(table->lsm->options.cache, &key, &block);
        TRY(found);
        around->lens[i] = loc.len;
        len += loc.len;
        if (found < 2)
            vv_block_unref(block);
        if (found < 2 && len - around->len > GAP_BYTES_MAX)
            return 0;
        if (found < 2)
            continue;
        around->blocks[i] = block;
        around->count = i + 1;
        around->len = len;
    }
    return 0;
}

/* The first block's error is the caller's; of the others, those that can't be opened are tried again when they
 * are needed. */
static void open_all(void *arg)
{
    struct around *around = arg;
    const uint8_t *frame = around->sealed;
    for (uint32_t i = 0; i < around->count; i++) {
        uint8_t *plain;
        size_t len;
        int err = 1;
        if (around->blocks[i])
            err = vv_table_open_block(around->table, around->first + i, frame, around->lens[i],
                                      &plain, &len);
        if (err == 0)
            around->plains[i] = (struct vv_bytes){plain, len};
        else if (i == 0)
            around->error = err;
        frame += around->lens[i];
    }
}

static int read_all(struct around *around)
{
    around->sealed = vv_alloc(around->len);
    if (!around->sealed)
        return -ENOMEM;
    TRY(vv_table_read(around->table, around->offset, around->len, around->sealed));
    if (around->len > INLINE_BYTES_MAX)
        vv_rt_offload(open_all, around);
    else
        open_all(around);
    return around->error;
}

/* Every block that was begun gets its bytes or an error; the first one stays referenced if it has them. */
static void settle(struct around *around, int err)
{
    for (uint32_t i = 0; i < around->count; i++) {
        struct vv_block *block = around->blocks[i];
        if (!block)
            continue;
        if (!around->plains[i].ptr) {
            vv_block_fail(block, err < 0 ? err : -VV_ERR_CORRUPT);
            continue;
        }
        vv_block_end(block, (uint8_t *)around->plains[i].ptr, around->plains[i].len);
        if (i == 0)
            continue;
        vv_block_cool(block);
        vv_block_unref(block);
    }
}

static int load(struct vv_table *table, const struct vv_block *index, uint32_t number, uint32_t end,
                size_t bytes, struct vv_block *block)
{
    struct vv_bytes index_bytes = {index->data, index->len};
    uint64_t limit = vv_cache_size(table->lsm->options.cache) / AROUND_CACHE_SHARE;
    size_t noted = note_miss(table, number);
    limit = limit < AROUND_BYTES_MAX ? limit : AROUND_BYTES_MAX;
    bytes = bytes < limit ? bytes : (size_t)limit;
    noted = noted < limit ? noted : (size_t)limit;
    struct around *around = vv_zalloc(sizeof(*around));
    if (!around) {
        vv_block_fail(block, -ENOMEM);
        return -ENOMEM;
    }
    around->table = table;
    around->first = number;
    around->count = 1;
    around->blocks[0] = block;
    int err = extend(around, index_bytes, end, bytes, noted);
    note_loaded(table, around, limit);
    if (err == 0)
        err = read_all(around);
    settle(around, err);
    vv_free(around->sealed);
    vv_free(around);
    return err;
}

int vv_table_load_blocks(struct vv_table *table, const struct vv_block *index, uint32_t number,
                         uint32_t end, size_t bytes, struct vv_block **out_block)
{
    struct vv_cache_key key = vv_table_cache_key(table, number);
    struct vv_block *block;
    int found = vv_cache_begin(table->lsm->options.cache, &key, &block);
    TRY(found);
    TRY(found < 2 ? vv_block_wait(block) : load(table, index, number, end, bytes, block));
    *out_block = block;
    return 0;
}

int vv_table_load_block(struct vv_table *table, const struct vv_block *index, uint32_t number,
                        struct vv_block **out_block)
{
    return vv_table_load_blocks(table, index, number, table->footer.block_count, 0, out_block);
}
