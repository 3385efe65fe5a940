#include "lsm/run_source_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "lsm/lsm_impl.h"

static struct vv_table *current(const struct vv_run_source *run)
{
    assert(run->table_next > 0);
    return run->tables[run->table_next - 1];
}

static struct vv_bytes index_bytes(const struct vv_run_source *run)
{
    return (struct vv_bytes){run->index->data, run->index->len};
}

/* ---- advancing ---- */

static void close_block(struct vv_run_source *run)
{
    vv_block_unref(run->block);
    run->block = NULL;
    vv_free(run->plain);
    run->plain = NULL;
    run->is_open = false;
}

static bool has_raw(const struct vv_run_source *run)
{
    return run->raw_next == run->block_next && run->raw_next < run->raw.end;
}

/* Open block_next out of the sealed bytes. */
static int open_raw(struct vv_run_source *run)
{
    const struct vv_table *table = current(run);
    struct vv_block_loc loc;
    TRY(vv_index_at(index_bytes(run), &table->footer, run->raw_next, &loc, NULL));
    if (loc.len > run->raw.len - run->raw_at)
        return -VV_ERR_FORMAT;
    uint8_t *plain;
    size_t len;
    const uint8_t *frame = run->raw.bytes + run->raw_at;
    TRY(vv_table_open_block(table, run->raw_next, frame, loc.len, &plain, &len));
    run->plain = plain;
    run->raw_at += loc.len;
    run->raw_next++;
    return vv_block_iter_init(&run->iter, plain, len);
}

/* 1 = a block is open, 0 = the run has ended, -VV_ERR_MISS = fill. */
static int open_next(struct vv_run_source *run)
{
    if (!run->index || run->block_next == run->block_end) {
        bool is_last = run->table_next == run->table_count;
        return is_last ? 0 : -VV_ERR_MISS;
    }
    if (run->block_ahead) {
        TRY(vv_block_iter_init(&run->iter, run->block_ahead->data, run->block_ahead->len));
        run->block = run->block_ahead;
        run->block_ahead = NULL;
    } else if (has_raw(run)) {
        int err = open_raw(run);
        if (err < 0) {
            close_block(run);
            return err;
        }
    } else {
        return -VV_ERR_MISS;
    }
    run->block_next++;
    run->is_open = true;
    return 1;
}

static int run_next(struct vv_source *source)
{
    struct vv_run_source *run = vv_container_of(source, struct vv_run_source, source);
    for (;;) {
        if (!run->is_open) {
            int opened = open_next(run);
            if (opened <= 0)
                return opened;
        }
        int found =
            run->is_seeking ? vv_block_seek(&run->iter, run->lower) : vv_block_next(&run->iter);
        if (found < 0)
            return found;
        if (found == 0) {
            close_block(run);
            continue;
        }
        run->is_seeking = false;
        source->key = vv_block_key(&run->iter);
        if (run->upper.len > 0 && vv_bytes_compare(source->key, run->upper) >= 0) {
            close_block(run);
            run->block_next = run->block_end;
            run->table_next = run->table_count;
            return 0;
        }
        source->kind = run->iter.kind;
        source->value = run->iter.value;
        return 1;
    }
}

/* ---- filling ---- */

/* Go to the next table: its index, and which of its blocks are wanted. */
static int open_table(struct vv_run_source *run)
{
    struct vv_table *table = run->tables[run->table_next];
    struct vv_block *index;
    TRY(vv_table_load(table, NULL, &index));
    struct vv_bytes bytes = {index->data, index->len};
    uint32_t first = 0;
    int found = vv_index_find(bytes, run->lower, &first);
    uint32_t last = table->footer.block_count - 1;
    if (found > 0 && run->upper.len > 0) {
        int has_upper = vv_index_find(bytes, run->upper, &last);
        if (has_upper == 0)
            last = table->footer.block_count - 1;
        found = has_upper < 0 ? has_upper : found;
    }
    if (found < 0) {
        vv_block_unref(index);
        return found;
    }
    vv_block_unref(run->index);
    run->index = index;
    run->table_next++;
    run->block_end = last + 1;
    run->block_next = found && first < run->block_end ? first : run->block_end;
    run->is_seeking = run->lower.len > 0;
    run->raw_next = run->raw.end = 0;
    run->ahead.first = run->ahead.end = 0;
    return 0;
}

/* With a cache: the next block, and those behind it into the cache. */
static int load_blocks(struct vv_run_source *run)
{
    TRY(vv_table_load_blocks(current(run), run->index, run->block_next, run->block_end,
                             run->stretch_len, &run->block_ahead));
    size_t twice = run->stretch_len * 2;
    run->stretch_len = twice < run->stretch_max ? twice : run->stretch_max;
    return 0;
}

/* Read the sealed bytes of the blocks from `first` on: as many as fit, at least one. */
static int read_stretch(struct vv_run_source *run, uint32_t first, struct vv_stretch *stretch)
{
    struct vv_table *table = current(run);
    struct vv_block_loc begin;
    TRY(vv_index_at(index_bytes(run), &table->footer, first, &begin, NULL));
    uint32_t end = first + 1;
    size_t len = begin.len;
    while (end < run->block_end) {
        struct vv_block_loc loc;
        TRY(vv_index_at(index_bytes(run), &table->footer, end, &loc, NULL));
        if (loc.offset != begin.offset + len)
            return -VV_ERR_FORMAT;
        if (len + loc.len > run->stretch_len)
            break;
        len += loc.len;
        end++;
    }
    stretch->first = stretch->end = 0;
    if (len > stretch->capacity) {
        vv_free(stretch->bytes);
        stretch->capacity = 0;
        stretch->bytes = vv_alloc(len);
        if (!stretch->bytes)
            return -ENOMEM;
        stretch->capacity = len;
    }
    TRY(vv_table_read(table, begin.offset, len, stretch->bytes));
    stretch->len = len;
    stretch->first = first;
    stretch->end = end;
    size_t twice = run->stretch_len * 2;
    run->stretch_len = twice < run->stretch_max ? twice : run->stretch_max;
    return 0;
}

static void use_raw(struct vv_run_source *run)
{
    run->raw_at = 0;
    run->raw_next = run->raw.first;
}

/* ---- reading ahead ---- */

/* The next stretch, or, at the end of a table, the index of the next one, which stays in the cache
 * for a while. */
static void read_ahead(void *arg)
{
    struct vv_run_source *run = arg;
    if (run->raw.end < run->block_end) {
        run->read_error = read_stretch(run, run->raw.end, &run->ahead);
    } else {
        struct vv_block *index = NULL;
        run->read_error = vv_table_load(run->tables[run->table_next], NULL, &index);
        vv_block_unref(index);
    }
    run->is_reading = false;
    vv_waitq_wake_all(&run->read_ended);
}

static void start_ahead(struct vv_run_source *run)
{
    if (run->raw.end == run->block_end && run->table_next == run->table_count)
        return;
    run->is_reading = true;
    if (vv_fiber_start(read_ahead, run, "lsm read ahead") < 0)
        run->is_reading = false; /* it is read when it is needed */
}

/* An error is returned once; another fill tries again. */
static int wait_ahead(struct vv_run_source *run)
{
    while (run->is_reading)
        (void)vv_waitq_wait(&run->read_ended, VV_NEVER);
    int err = run->read_error;
    run->read_error = 0;
    return err;
}

int vv_run_source_fill(struct vv_run_source *run)
{
    TRY(wait_ahead(run));
    while (!run->index || run->block_next == run->block_end) {
        if (run->table_next == run->table_count)
            return 0;
        TRY(open_table(run));
    }
    if (run->block_ahead || has_raw(run))
        return 0;
    if (run->cache)
        return load_blocks(run);
    if (run->ahead.first == run->block_next && run->ahead.first < run->ahead.end) {
        struct vv_stretch used = run->raw;
        run->raw = run->ahead;
        run->ahead = used;
        run->ahead.first = run->ahead.end = 0;
    } else {
        TRY(read_stretch(run, run->block_next, &run->raw));
    }
    use_raw(run);
    start_ahead(run);
    return 0;
}

/* ---- life ---- */

int vv_run_source_init(struct vv_run_source *run, struct vv_table *const *tables, size_t count,
                       uint32_t rank, struct vv_cache *cache, struct vv_bytes lower,
                       struct vv_bytes upper)
{
    struct vv_table **copies = vv_calloc(count, sizeof(struct vv_table *));
    if (!copies)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        copies[i] = tables[i];
        vv_table_ref(copies[i]);
    }
    memset(run, 0, sizeof(*run));
    run->source.next = run_next;
    run->source.rank = rank;
    run->tables = copies;
    run->table_count = count;
    run->cache = cache;
    run->lower = lower;
    run->upper = upper;
    run->stretch_max = VV_READ_AHEAD_MAX;
    run->stretch_len = cache ? VV_READ_AHEAD_MIN : VV_READ_AHEAD_MAX;
    vv_waitq_init(&run->read_ended);
    return 0;
}

void vv_run_source_done(struct vv_run_source *run)
{
    while (run->is_reading)
        (void)vv_waitq_wait(&run->read_ended, VV_NEVER);
    close_block(run);
    vv_block_unref(run->block_ahead);
    run->block_ahead = NULL;
    vv_block_unref(run->index);
    run->index = NULL;
    vv_free(run->raw.bytes);
    vv_free(run->ahead.bytes);
    for (size_t i = 0; i < run->table_count; i++)
        vv_table_unref(run->tables[i]);
    vv_free(run->tables);
    run->tables = NULL;
    run->table_count = 0;
}
