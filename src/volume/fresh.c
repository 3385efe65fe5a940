/* Memory for extents that are written whole, touched by a worker before it is needed: while the cache fills, each extent
 * written takes memory that the process has not used yet, and finding its pages cost the reactor more than copying
 * the bytes did. Where memory is used again (the cache is full), or little is written, none is made ready. */
#include <assert.h>

#include "volume/volume_impl.h"

#define FRESH_MEMORY_PART 64 /* of the memory, at most, lies ready twice */
#define WARM_EXTENTS 24      /* at a time: a block of that size still comes from the heap (vv_alloc_setup) */
#define HEAP_OVERHEAD 64     /* of the heap for each extent, and more */

struct batch {
    struct vv_volume *volume;
    uint8_t *extents[VV_FRESH_MAX / 2];
    unsigned wanted, count;
};

/* Lets the heap have pages for `count` extents: they are found in one go for a block that is then given back, out of
 * which the extents will come. Else the heap would find them extent by extent, with its lock held, for which the
 * reactor would wait. */
static void warm_heap(unsigned count)
{
    size_t size = count * (size_t)(VV_EXTENT_BYTES + HEAP_OVERHEAD);
    void *block = vv_alloc(size);
    if (block != NULL)
        vv_alloc_populate(block, size);
    vv_free(block);
}

/* On a worker. Without memory there are fewer. */
static void touch(void *arg)
{
    struct batch *batch = arg;
    while (batch->count < batch->wanted) {
        unsigned left = batch->wanted - batch->count;
        if (batch->count % WARM_EXTENTS == 0)
            warm_heap(left < WARM_EXTENTS ? left : WARM_EXTENTS);
        uint8_t *bytes = vv_alloc(VV_EXTENT_BYTES);
        if (bytes == NULL)
            return;
        batch->extents[batch->count++] = bytes;
    }
}

static void freshen(void *arg)
{
    struct batch *batch = arg;
    struct vv_volume *volume = batch->volume;
    vv_rt_offload(touch, batch);
    for (unsigned i = 0; i < batch->count; i++)
        volume->fresh[volume->fresh_count++] = batch->extents[i];
    vv_free(batch);
    volume->is_freshening = false;
    vv_volume_fiber_ended(volume);
}

static unsigned batch_count(const struct vv_volume *volume)
{
    uint64_t count = volume->budget.limit / FRESH_MEMORY_PART / VV_EXTENT_BYTES;
    return count < VV_FRESH_MAX / 2 ? (unsigned)count : VV_FRESH_MAX / 2;
}

/* Is much being written, into a cache that has room? */
static bool is_worth_it(const struct vv_volume *volume)
{
    return (volume->open->plain_bytes >= VV_SYNC_SEGMENT_BYTES || volume->puts_under_way > 0) &&
           vv_cache_room(volume->cache) > vv_cache_size(volume->cache) / 16 &&
           !volume->is_stopping && !volume->is_abandoning;
}

static void begin(struct vv_volume *volume, unsigned wanted)
{
    struct batch *batch = vv_zalloc(sizeof *batch);
    if (batch == NULL)
        return;
    batch->volume = volume;
    batch->wanted = wanted;
    if (vv_fiber_start(freshen, batch, "memory") < 0) {
        vv_free(batch);
        return;
    }
    volume->is_freshening = true;
    volume->fibers++;
}

struct vv_buf *vv_fresh_buf(struct vv_volume *volume, struct vv_budget *budget)
{
    unsigned wanted = batch_count(volume);
    if (!volume->is_freshening && volume->fresh_count < wanted && is_worth_it(volume))
        begin(volume, wanted);
    if (volume->fresh_count == 0)
        return vv_buf_new(VV_EXTENT_BYTES, budget);
    struct vv_buf *buf = vv_buf_of(volume->fresh[volume->fresh_count - 1], VV_EXTENT_BYTES, budget);
    if (buf != NULL) {
        volume->fresh_count--;
        volume->stats.fresh_extents++;
    }
    return buf;
}

static struct vv_buf *fresh_piece(void *volume)
{
    return vv_fresh_buf(volume, NULL);
}

int vv_payload_new(struct vv_volume *volume, uint64_t offset, size_t len,
                   struct vv_payload **out_payload)
{
    struct vv_payload *payload = vv_payload_plan(offset, len);
    if (payload == NULL)
        return -ENOMEM;
    payload->volume = volume;
    int err = vv_payload_renew(payload);
    if (err < 0)
        vv_payload_free(payload);
    else
        *out_payload = payload;
    return err;
}

int vv_payload_renew(struct vv_payload *payload)
{
    return vv_payload_fill(payload, fresh_piece, payload->volume);
}

void vv_fresh_trim(struct vv_volume *volume)
{
    while (volume->fresh_count > 0)
        vv_free(volume->fresh[--volume->fresh_count]);
}
