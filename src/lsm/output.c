#include "lsm/output_impl.h"

#include <assert.h>
#include <errno.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/plant.h"
#include "lsm/table_build_impl.h"

/* ---- on a worker ---- */

/* Whether an older record of the key may lie below. Keys ascend, so that the places only move on.
 */
static bool has_older(struct vv_output *output, struct vv_bytes key)
{
    if (vv_planted(VV_PLANT_TOMBSTONES_DROPPED))
        return false;
    if (!output->is_bottom_known)
        return true;
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        struct vv_below *below = &output->below[i];
        while (below->next < below->count &&
               vv_bytes_compare(vv_table_max(below->tables[below->next]), key) < 0)
            below->next++;
        if (below->next < below->count &&
            vv_bytes_compare(vv_table_min(below->tables[below->next]), key) <= 0)
            return true;
    }
    return false;
}

/* At the bottom, a delete has nothing to hide and a merge is complete. */
static int add_record(struct vv_output *output, const struct vv_record *record)
{
    enum vv_lsm_kind kind = record->kind;
    if (kind != VV_LSM_PUT && !has_older(output, record->key)) {
        if (kind == VV_LSM_DELETE)
            return 0;
        kind = VV_LSM_PUT;
    }
    uint64_t hash = vv_xxh3(record->key.ptr, record->key.len, 0);
    return vv_table_builder_add(output->builder, kind, record->key, hash, record->value);
}

/* Merge until the slice or the table is full (1), input is missing (-VV_ERR_MISS) or at its end
 * (0). */
static int merge_slice(struct vv_output *output)
{
    uint32_t blocks_end = vv_table_builder_blocks(output->builder) + VV_OUTPUT_SLICE_BLOCKS;
    for (unsigned i = 0; i < VV_OUTPUT_SLICE_RECORDS; i++) {
        struct vv_record record;
        int found = vv_merge_next(&output->merge, &record);
        if (found <= 0)
            return found;
        TRY(add_record(output, &record));
        if (vv_table_builder_blocks(output->builder) >= blocks_end ||
            vv_table_builder_bytes(output->builder) >= output->lsm->options.table_bytes)
            break;
    }
    return 1;
}

static void work(void *arg)
{
    struct vv_output *output = arg;
    output->result =
        output->is_finishing ? vv_table_builder_finish(output->builder) : merge_slice(output);
}

/* ---- on the reactor ---- */

/* How much of a table may go into the cache when it is written: what was in memory is likely to be asked for again,
 * and so is the little that a small compaction moves. */
static size_t keep_max(const struct vv_output *output)
{
    uint64_t cache = vv_cache_size(output->lsm->options.cache);
    uint64_t max = output->edit->level == 0 ? cache / 8 : cache / 16;
    return max > output->bytes ? (size_t)(max - output->bytes) : 0;
}

static int begin_table(struct vv_output *output)
{
    struct vv_lsm *lsm = output->lsm;
    struct vv_table_ref ref = {
        .epoch = lsm->options.epoch,
        .counter = lsm->next_counter,
        .level = (uint8_t)output->edit->level,
        .order = output->order,
    };
    TRY(vv_table_new(lsm, &ref, &output->table));
    TRY(vv_table_builder_new(lsm->options.ring, lsm->options.settings, ref.epoch, ref.counter,
                             &output->builder));
    lsm->next_counter++;
    vv_table_builder_keep(output->builder, keep_max(output));
    return 0;
}

/* Nothing of it was put. */
static void drop_table(struct vv_output *output)
{
    vv_table_builder_free(output->builder);
    vv_table_free(output->table);
    output->builder = NULL;
    output->table = NULL;
}

struct put {
    struct vv_output *output;
    struct vv_table *table; /* the edit's */
    struct vv_table_builder *builder;
};

/* What was written is known: filter and index stay in memory, and the blocks kept go into the cache, so that
 * nothing is read back. */
static void keep_parts(struct put *put)
{
    struct vv_table *table = put->table;
    size_t len;
    table->footer = *vv_table_builder_footer(put->builder);
    table->sealer = vv_table_builder_take_sealer(put->builder);
    uint8_t *filter = vv_table_builder_take_filter(put->builder, &len);
    vv_table_keep(table, VV_TABLE_FILTER, filter, len);
    uint8_t *index = vv_table_builder_take_index(put->builder, &len);
    vv_table_keep(table, VV_TABLE_INDEX, index, len);
    for (uint32_t i = 0; i < table->footer.block_count; i++) {
        struct vv_cache_key key = vv_table_cache_key(table, i);
        uint8_t *block = vv_table_builder_take_block(put->builder, i, &len);
        if (!block)
            break;
        vv_cache_put_warm(table->lsm->options.cache, &key, block, len);
    }
}

static void free_builder(void *arg)
{
    vv_table_builder_free(arg);
}

static void put_table(void *arg)
{
    struct put *put = arg;
    struct vv_output *output = put->output;
    const struct vv_lsm_options *options = &output->lsm->options;
    char name[VV_TABLE_NAME_MAX];
    vv_table_name(put->table->ref.epoch, put->table->ref.counter, name, sizeof(name));
    int count;
    const struct iovec *iov = vv_table_builder_iov(put->builder, &count);
    int err = options->put(options->put_arg, name,
                           vv_table_builder_header(put->builder)->attempt_id, iov, count);
    if (err == 0)
        keep_parts(put);
    else if (output->put_error == 0)
        output->put_error = err;
    output->bytes += put->table->ref.bytes;
    vv_rt_offload(free_builder, put->builder); /* many megabytes */
    vv_free(put);
    output->puts--;
    vv_waitq_wake_all(&output->put_ended);
}

static int wait_puts(struct vv_output *output, size_t max)
{
    while (output->puts > max)
        (void)vv_waitq_wait(&output->put_ended, VV_NEVER);
    return output->put_error;
}

/* Finish the table, and put it while the next one is built. From here on it may exist in the store,
 * so that it belongs to the edit even if the put fails. */
static int end_table(struct vv_output *output)
{
    output->is_finishing = true;
    vv_rt_offload(work, output);
    output->is_finishing = false;
    TRY(output->result);
    TRY(vv_table_builder_ref(output->builder, &output->table->ref));
    TRY(wait_puts(output, VV_OUTPUT_PUTS_MAX - 1));
    struct put *put = vv_alloc(sizeof(*put));
    if (!put)
        return -ENOMEM;
    *put = (struct put){output, output->table, output->builder};
    output->table = NULL;
    int err = vv_edit_add(output->edit, put->table);
    if (err < 0) {
        vv_free(put);
        return err;
    }
    output->builder = NULL;
    output->puts++;
    if (vv_fiber_start(put_table, put, "lsm put") < 0)
        put_table(put);
    return output->put_error;
}

static void fill_one(void *arg, size_t i)
{
    struct vv_output *output = arg;
    int err = vv_run_source_fill(output->starved[i]);
    if (err < 0)
        output->result = err;
}

/* Get input for those that have none. */
static int fill_starved(struct vv_output *output)
{
    output->result = 0;
    output->starved_count = 0;
    for (size_t i = 0; i < output->run_count; i++) {
        if (output->runs[i].source.is_starved)
            output->starved[output->starved_count++] = &output->runs[i];
    }
    vv_lsm_parallel(output->starved_count, fill_one, output);
    return output->result;
}

static int run_slices(struct vv_output *output)
{
    for (;;) {
        if (!output->builder)
            TRY(begin_table(output));
        vv_rt_offload(work, output);
        int result = output->result;
        if (result == -VV_ERR_MISS) {
            TRY(fill_starved(output));
            continue;
        }
        if (result < 0)
            return result;
        bool is_full = vv_table_builder_bytes(output->builder) >= output->lsm->options.table_bytes;
        bool has_entries = vv_table_builder_entries(output->builder) > 0;
        if (has_entries && (is_full || result == 0))
            TRY(end_table(output));
        TRY(output->put_error);
        if (result == 0)
            return 0;
    }
}

int vv_output_init(struct vv_output *output, struct vv_lsm *lsm, size_t runs, size_t others)
{
    *output = (struct vv_output){.lsm = lsm};
    vv_waitq_init(&output->put_ended);
    output->runs = vv_calloc(runs + 1, sizeof(*output->runs));
    output->starved = vv_calloc(runs + 1, sizeof(struct vv_run_source *));
    int err = output->runs && output->starved ? 0 : -ENOMEM;
    return err < 0 ? err : vv_merge_init(&output->merge, runs + others);
}

int vv_output_run(struct vv_output *output)
{
    vv_lsm_release_held(output->lsm);
    int err = run_slices(output);
    drop_table(output);
    int put_err = wait_puts(output, 0);
    return err < 0 ? err : put_err;
}

void vv_output_done(struct vv_output *output)
{
    for (size_t i = 0; i < output->run_count; i++)
        vv_run_source_done(&output->runs[i]);
    vv_free(output->runs);
    vv_free(output->starved);
    vv_merge_done(&output->merge);
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        for (size_t j = 0; j < output->below[i].count; j++)
            vv_table_unref(output->below[i].tables[j]);
        vv_free(output->below[i].tables);
        output->below[i] = (struct vv_below){0};
    }
}
