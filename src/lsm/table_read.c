#include "lsm/table_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "lsm/lsm_impl.h"

#define WHOLE_BYTES_MAX (256u << 10) /* smaller tables are read in one request */
#define TAIL_BLOCKS_MAX 64
#define INLINE_BYTES_MAX (64u << 10) /* larger frames are opened by a worker */
#define TAIL_BYTES_MIN (64u << 10)

/* ---- life ---- */

int vv_table_new(struct vv_lsm *lsm, const struct vv_table_ref *ref, struct vv_table **out_table)
{
    struct vv_table *table = vv_zalloc(sizeof(*table));
    if (!table)
        return -ENOMEM;
    table->lsm = lsm;
    table->refs = 1;
    table->ref = *ref;
    table->ref.min_key = ref->min_key ? vv_memdup(ref->min_key, ref->min_key_len) : NULL;
    table->ref.max_key = ref->max_key ? vv_memdup(ref->max_key, ref->max_key_len) : NULL;
    vv_list_init(&table->link);
    vv_list_init(&table->pinned);
    vv_waitq_init(&table->loaded);
    if ((ref->min_key && !table->ref.min_key) || (ref->max_key && !table->ref.max_key)) {
        vv_table_free(table);
        return -ENOMEM;
    }
    *out_table = table;
    return 0;
}

static void unpin(struct vv_table *table)
{
    struct vv_lsm *lsm = table->lsm;
    if (table->filter)
        lsm->pinned_bytes -= table->filter->charge;
    if (table->index)
        lsm->pinned_bytes -= table->index->charge;
    vv_block_unref(table->filter);
    vv_block_unref(table->index);
    table->filter = NULL;
    table->index = NULL;
    vv_list_remove(&table->pinned);
}

void vv_table_free(struct vv_table *table)
{
    if (!table)
        return;
    unpin(table);
    vv_list_remove(&table->link);
    vv_sealer_free(table->sealer);
    vv_free(table->ref.min_key);
    vv_free(table->ref.max_key);
    vv_free(table);
}

void vv_table_ref(struct vv_table *table)
{
    table->refs++;
}

void vv_table_unref(struct vv_table *table)
{
    if (!table)
        return;
    assert(table->refs > 0);
    if (--table->refs > 0)
        return;
    if (!table->is_dead) {
        vv_table_free(table);
        return;
    }
    unpin(table);
    vv_list_remove(&table->link);
    vv_list_push_back(&table->lsm->dead, &table->link);
}

struct vv_bytes vv_table_min(const struct vv_table *table)
{
    return (struct vv_bytes){table->ref.min_key, table->ref.min_key_len};
}

struct vv_bytes vv_table_max(const struct vv_table *table)
{
    return (struct vv_bytes){table->ref.max_key, table->ref.max_key_len};
}

struct vv_cache_key vv_table_cache_key(const struct vv_table *table, uint64_t number)
{
    uint64_t epoch = table->ref.epoch & (VV_TABLE_CHECKED - 1);
    return (struct vv_cache_key){
        .space = VV_CACHE_SST | (table->is_checked ? VV_TABLE_CHECKED : 0) | epoch,
        .a = table->ref.counter,
        .b = number,
    };
}

/* ---- pins of filters and indexes ---- */

void vv_table_pins_trim(struct vv_lsm *lsm)
{
    struct vv_cache_stats stats;
    vv_cache_stats(lsm->options.cache, &stats);
    unsigned tries = 0;
    while (lsm->pinned_bytes > stats.bytes / 2 && !vv_list_is_empty(&lsm->pinned)) {
        struct vv_table *table = vv_list_first(&lsm->pinned, struct vv_table, pinned);
        if (table->is_hot && tries++ < VV_TABLE_PIN_TRIES_MAX) {
            table->is_hot = false;
            vv_list_remove(&table->pinned);
            vv_list_push_back(&lsm->pinned, &table->pinned);
        } else {
            unpin(table);
        }
    }
}

/* Keep a block (a reference is taken over) as the table's filter or index. */
static void pin(struct vv_table *table, struct vv_block **place, struct vv_block *block)
{
    struct vv_lsm *lsm = table->lsm;
    assert(!*place);
    *place = block;
    lsm->pinned_bytes += block->charge;
    if (vv_list_is_empty(&table->pinned))
        vv_list_push_back(&lsm->pinned, &table->pinned);
}

/* The filter or index if it is in memory, borrowed until the next pin. */
static struct vv_block *resident(struct vv_table *table, uint64_t number)
{
    struct vv_block **place = number == VV_TABLE_FILTER ? &table->filter : &table->index;
    table->is_hot = true;
    if (*place)
        return *place;
    struct vv_cache_key key = vv_table_cache_key(table, number);
    struct vv_block *block = vv_cache_peek(table->lsm->options.cache, &key);
    if (!block)
        return NULL;
    vv_table_pins_trim(table->lsm);
    pin(table, place, block);
    return block;
}

void vv_table_keep(struct vv_table *table, uint64_t number, uint8_t *data, size_t len)
{
    struct vv_block **place = number == VV_TABLE_FILTER ? &table->filter : &table->index;
    struct vv_cache_key key = vv_table_cache_key(table, number);
    struct vv_block *block = NULL;
    vv_cache_put(table->lsm->options.cache, &key, data, len, &block);
    if (!block)
        return;
    vv_table_pins_trim(table->lsm);
    table->is_hot = true;
    pin(table, place, block);
}

/* ---- searching ---- */

int vv_table_find(struct vv_table *table, struct vv_bytes key, uint64_t hash,
                  struct vv_table_hit *out_hit)
{
    const struct vv_block *filter = resident(table, VV_TABLE_FILTER);
    if (filter && !vv_filter_may_contain(filter->data, filter->len, hash))
        return 0;
    const struct vv_block *index = resident(table, VV_TABLE_INDEX);
    if (!index)
        return -VV_ERR_MISS;
    uint32_t number;
    int found = vv_index_find((struct vv_bytes){index->data, index->len}, key, &number);
    if (found <= 0)
        return found;
    struct vv_cache_key cache_key = vv_table_cache_key(table, number);
    struct vv_block *block = vv_cache_peek(table->lsm->options.cache, &cache_key);
    if (!block)
        return -VV_ERR_MISS;
    table->lsm->stats.blocks_read++;
    struct vv_block_iter iter;
    found = vv_block_iter_init(&iter, block->data, block->len);
    if (found == 0)
        found = vv_block_seek(&iter, key);
    if (found > 0 && vv_bytes_compare(vv_block_key(&iter), key) != 0)
        found = 0;
    if (found <= 0) {
        vv_block_unref(block);
        return found;
    }
    *out_hit = (struct vv_table_hit){block, iter.kind, iter.value};
    return 1;
}

/* ---- opening frames ---- */

struct open_job {
    const struct vv_sealer *sealer;
    uint32_t index;
    struct vv_origin origin;
    const uint8_t *frame;
    size_t frame_len;
    size_t plain_max;
    uint8_t *plain;
    size_t plain_len;
    int error;
};

static void open_frame(void *arg)
{
    struct open_job *job = arg;
    ssize_t len = vv_frame_plain_len(job->frame, job->frame_len);
    if (len >= 0 && (size_t)len > job->plain_max)
        len = -VV_ERR_FORMAT;
    if (len < 0) {
        job->error = (int)len;
        return;
    }
    uint8_t *plain = vv_alloc((size_t)len);
    if (!plain) {
        job->error = -ENOMEM;
        return;
    }
    len = vv_frame_open(job->sealer, job->index, &job->origin, job->frame, job->frame_len, plain,
                        (size_t)len);
    if (len < 0) {
        vv_free(plain);
        job->error = (int)len;
        return;
    }
    job->plain = plain;
    job->plain_len = (size_t)len;
}

int vv_table_open_block(const struct vv_table *table, uint32_t number, const uint8_t *frame,
                        size_t len, uint8_t **out_plain, size_t *out_len)
{
    struct open_job job = {
        .sealer = table->sealer,
        .index = number,
        .origin = {VV_ORIGIN_SST_BLOCK, number},
        .frame = frame,
        .frame_len = len,
        .plain_max = VV_BLOCK_PLAIN_MAX,
    };
    open_frame(&job);
    TRY(job.error);
    *out_plain = job.plain;
    *out_len = job.plain_len;
    return 0;
}

/* Open the filter or index, check it, and put it into the cache. */
static int open_part(struct vv_table *table, uint64_t number, const uint8_t *frame,
                     struct vv_block **out_block)
{
    bool is_filter = number == VV_TABLE_FILTER;
    struct open_job job = {
        .sealer = table->sealer,
        .index = table->footer.block_count + !is_filter,
        .origin = {is_filter ? VV_ORIGIN_SST_FILTER : VV_ORIGIN_SST_INDEX, 0},
        .frame = frame,
        .frame_len = is_filter ? table->footer.filter_len : table->footer.index_len,
        .plain_max = VV_FRAME_PLAIN_MAX,
    };
    if (job.frame_len > INLINE_BYTES_MAX)
        vv_rt_offload(open_frame, &job);
    else
        open_frame(&job);
    TRY(job.error);
    int err = 0;
    uint32_t count = 0;
    if (is_filter && (job.plain_len == 0 || job.plain_len % VV_FILTER_GROUP_LEN != 0))
        err = -VV_ERR_FORMAT;
    if (!is_filter)
        err = vv_index_count((struct vv_bytes){job.plain, job.plain_len}, &count);
    if (!is_filter && err == 0 && count != table->footer.block_count)
        err = -VV_ERR_FORMAT;
    if (err < 0) {
        vv_free(job.plain);
        return err;
    }
    struct vv_cache_key key = vv_table_cache_key(table, number);
    vv_cache_put(table->lsm->options.cache, &key, job.plain, job.plain_len, out_block);
    return *out_block ? 0 : -ENOMEM;
}

/* ---- reading ---- */

int vv_table_read(struct vv_table *table, uint64_t offset, size_t len, uint8_t *out)
{
    char name[VV_TABLE_NAME_MAX];
    vv_table_name(table->ref.epoch, table->ref.counter, name, sizeof(name));
    ssize_t got = vv_store_get(table->lsm->options.store, name, out, len, offset);
    if (got < 0)
        return (int)got;
    return (size_t)got == len ? 0 : -VV_ERR_FORMAT;
}

/* How many bytes at the end of a table hold filter, index and trailer, most likely. The filter's
 * size is known from the number of entries; an index takes about a hundredth. */
static uint64_t tail_guess(const struct vv_table_ref *ref)
{
    if (ref->bytes <= WHOLE_BYTES_MAX)
        return ref->bytes;
    uint64_t guess = VV_TABLE_TRAILER_LEN + TAIL_BYTES_MIN + ref->bytes / 64;
    if (ref->entries < ref->bytes)
        guess += vv_filter_len(ref->entries) + VV_FRAME_OVERHEAD;
    return guess < ref->bytes ? guess : ref->bytes;
}

/* The end of the object in memory: sealer and footer from its last bytes. */
static int open_trailer(struct vv_table *table, const uint8_t *tail, size_t len)
{
    if (len < VV_TABLE_TRAILER_LEN)
        return -VV_ERR_FORMAT;
    const uint8_t *trailer = tail + len - VV_TABLE_TRAILER_LEN;
    struct vv_table_footer footer;
    TRY(vv_table_footer_decode(trailer + VV_OBJECT_HEADER_LEN, table->ref.bytes, &footer));
    struct vv_object_header header;
    TRY(vv_object_header_decode(trailer, VV_OBJECT_HEADER_LEN, &header));
    if (header.kind != VV_KIND_SST)
        return -VV_ERR_FORMAT;
    char name[VV_TABLE_NAME_MAX];
    vv_table_name(table->ref.epoch, table->ref.counter, name, sizeof(name));
    struct vv_sealer *sealer;
    TRY(vv_sealer_open(table->lsm->options.ring, &header, name, &sealer));
    table->footer = footer;
    table->sealer = sealer;
    return 0;
}

/* The bytes from the filter to the end, of which `tail` may hold some already. */
static int read_parts(struct vv_table *table, bool wants_filter, bool wants_index,
                      uint8_t **out_bytes, uint64_t *out_offset)
{
    uint64_t begin = wants_filter ? table->footer.filter_offset : table->footer.index_offset;
    uint64_t end = wants_index ? table->footer.index_offset + table->footer.index_len
                               : table->footer.index_offset;
    uint8_t *bytes = vv_alloc(end - begin);
    if (!bytes)
        return -ENOMEM;
    int err = vv_table_read(table, begin, end - begin, bytes);
    if (err < 0) {
        vv_free(bytes);
        return err;
    }
    *out_bytes = bytes;
    *out_offset = begin;
    return 0;
}

/* The first request for a table: its end, and with luck filter and index along with it. */
static int read_tail(struct vv_table *table, uint8_t **out_bytes, uint64_t *out_offset)
{
    uint64_t len = tail_guess(&table->ref);
    uint64_t offset = table->ref.bytes - len;
    uint8_t *bytes CLEANUP(vv_free_ptr) = vv_alloc(len);
    if (!bytes)
        return -ENOMEM;
    TRY(vv_table_read(table, offset, len, bytes));
    TRY(open_trailer(table, bytes + (len - VV_TABLE_TRAILER_LEN), VV_TABLE_TRAILER_LEN));
    if (table->footer.filter_offset < offset)
        return read_parts(table, true, true, out_bytes, out_offset);
    *out_bytes = bytes;
    *out_offset = offset;
    bytes = NULL;
    return 0;
}

/* ---- blocks that came along with the end of a table ---- */

struct tail_job {
    const struct vv_table *table;
    const uint8_t *bytes; /* of the object from `offset` on */
    uint64_t offset;
    struct vv_bytes index;
    uint32_t first;
    uint32_t count;
    struct vv_bytes plains[TAIL_BLOCKS_MAX];
};

/* Blocks that can't be opened are left out: the error shows when they are needed. */
static void open_tail(void *arg)
{
    struct tail_job *job = arg;
    for (uint32_t i = 0; i < job->count; i++) {
        struct vv_block_loc loc;
        uint8_t *plain;
        size_t len;
        uint32_t number = job->first + i;
        int err = vv_index_at(job->index, &job->table->footer, number, &loc, NULL);
        if (err == 0)
            err = vv_table_open_block(job->table, number, job->bytes + (loc.offset - job->offset),
                                      loc.len, &plain, &len);
        if (err == 0)
            job->plains[i] = (struct vv_bytes){plain, len};
    }
}

/* The last blocks that lie wholly behind job->offset. */
static void find_tail(struct tail_job *job)
{
    uint32_t number = job->table->footer.block_count;
    job->first = number;
    while (number > 0 && job->count < TAIL_BLOCKS_MAX) {
        struct vv_block_loc loc;
        if (vv_index_at(job->index, &job->table->footer, --number, &loc, NULL) < 0 ||
            loc.offset < job->offset)
            return;
        job->first = number;
        job->count++;
    }
}

/* Blocks came along with the first request: all of a small table's, of others the last. They go into the
 * cache. A table without memory for that is read block by block. */
static void keep_tail(struct vv_table *table, const uint8_t *bytes, uint64_t offset,
                      const struct vv_block *index)
{
    struct tail_job *job = vv_zalloc(sizeof(*job));
    if (!job)
        return;
    job->table = table;
    job->bytes = bytes;
    job->offset = offset;
    job->index = (struct vv_bytes){index->data, index->len};
    find_tail(job);
    if (job->count > 0)
        vv_rt_offload(open_tail, job);
    for (uint32_t i = 0; i < job->count; i++) {
        struct vv_cache_key key = vv_table_cache_key(table, job->first + i);
        if (job->plains[i].ptr)
            vv_cache_put(table->lsm->options.cache, &key, (uint8_t *)job->plains[i].ptr,
                         job->plains[i].len, NULL);
    }
    vv_free(job);
}

/* Load what is wanted; one fiber per table at a time. */
static int load_parts(struct vv_table *table, struct vv_block **out_filter,
                      struct vv_block **out_index)
{
    uint8_t *bytes CLEANUP(vv_free_ptr) = NULL;
    uint64_t offset = 0;
    bool is_first = !table->sealer;
    if (is_first)
        TRY(read_tail(table, &bytes, &offset));
    else
        TRY(read_parts(table, out_filter != NULL, out_index != NULL, &bytes, &offset));
    struct vv_block *filter = NULL;
    struct vv_block *index = NULL;
    /* What came along with the first request is kept, wanted or not. */
    if (out_filter || is_first)
        TRY(open_part(table, VV_TABLE_FILTER, bytes + (table->footer.filter_offset - offset),
                      &filter));
    int err = 0;
    if (out_index || is_first)
        err =
            open_part(table, VV_TABLE_INDEX, bytes + (table->footer.index_offset - offset), &index);
    if (err < 0) {
        vv_block_unref(filter);
        return err;
    }
    if (is_first)
        keep_tail(table, bytes, offset, index);
    if (out_filter)
        *out_filter = filter;
    else
        vv_block_unref(filter);
    if (out_index)
        *out_index = index;
    else
        vv_block_unref(index);
    return 0;
}

/* A table that was never opened is opened even if its filter and index are still in the cache: what
 * follows needs the sealer. */
static struct vv_block *peek_part(struct vv_table *table, uint64_t number)
{
    struct vv_block *block = table->sealer ? resident(table, number) : NULL;
    if (block)
        vv_block_ref(block);
    return block;
}

int vv_table_load(struct vv_table *table, struct vv_block **out_filter, struct vv_block **out_index)
{
    for (;;) {
        struct vv_block *filter = out_filter ? peek_part(table, VV_TABLE_FILTER) : NULL;
        struct vv_block *index = out_index ? peek_part(table, VV_TABLE_INDEX) : NULL;
        bool needs_filter = out_filter && !filter;
        bool needs_index = out_index && !index;
        int err = 0;
        if (table->is_loading && (needs_filter || needs_index)) {
            vv_block_unref(filter);
            vv_block_unref(index);
            (void)vv_waitq_wait(&table->loaded, VV_NEVER);
            TRY(table->load_error);
            continue;
        }
        if (needs_filter || needs_index) {
            table->is_loading = true;
            err = load_parts(table, needs_filter ? &filter : NULL, needs_index ? &index : NULL);
            table->is_loading = false;
            table->load_error = err;
            vv_waitq_wake_all(&table->loaded);
        }
        if (err < 0) {
            vv_block_unref(filter);
            vv_block_unref(index);
            return err;
        }
        if (out_filter)
            *out_filter = filter;
        if (out_index)
            *out_index = index;
        return 0;
    }
}
