/* Range tombstones in memory, and finding those over an extent.
 *
 * There may be tens of thousands over one data id (a file system that trims its free space), and each
 * read and write asks which lie over its extents. So each range has a level, the smallest L with
 * length <= 8^L, and stands in a hash table under (data id, L, place >> 3L) of its first and of its
 * last extent: those are the same or neighbours. Over an extent lie only ranges that stand under the
 * extent's own place in one of the levels. Nothing here suspends. */
#include "volume/volume_impl.h"

#include <assert.h>

#include "base/hash.h"
#include "base/plant.h"

/* A damaged record may say that a range ends before it begins: it hides nothing. */
static bool is_empty(const struct vv_range *range)
{
    return range->to <= range->from;
}

static unsigned level_of(const struct vv_range *range)
{
    uint64_t len = is_empty(range) ? 0 : range->to - range->from;
    unsigned level = 0;
    while (level + 1 < VV_RANGE_LEVELS && len > 1ull << 3 * level)
        level++;
    return level;
}

static uint64_t place_hash(const struct vv_data *data, unsigned level, uint64_t bucket)
{
    return vv_mix64(vv_mix64(data->id ^ (uint64_t)level << 56) + bucket);
}

static void put_place(struct vv_range *range, unsigned i, uint64_t bucket)
{
    struct vv_range_place *place = &range->places[i];
    place->range = range;
    vv_map_insert(range->data->range_places, &place->node,
                  place_hash(range->data, range->level, bucket));
}

static void place(struct vv_range *range)
{
    range->level = level_of(range);
    uint64_t first = range->from >> 3 * range->level;
    uint64_t last = is_empty(range) ? first : (range->to - 1) >> 3 * range->level;
    assert(last - first <= 1);
    put_place(range, 0, first);
    range->is_placed_twice = last != first;
    if (range->is_placed_twice)
        put_place(range, 1, last);
    range->data->range_levels[range->level]++;
}

static void unplace(struct vv_range *range)
{
    vv_map_remove(range->data->range_places, &range->places[0].node);
    if (range->is_placed_twice)
        vv_map_remove(range->data->range_places, &range->places[1].node);
    range->data->range_levels[range->level]--;
}

/* Those of one level that may lie over the extent, one after the other; NULL at the end. */
static const struct vv_range_place *first_place(const struct vv_data *data, unsigned level,
                                                uint64_t index)
{
    if (data->range_levels[level] == 0)
        return NULL;
    struct vv_map_node *node =
        vv_map_find(data->range_places, place_hash(data, level, index >> 3 * level));
    return node ? vv_container_of(node, struct vv_range_place, node) : NULL;
}

static const struct vv_range_place *next_place(const struct vv_range_place *at)
{
    struct vv_map_node *node = vv_map_next(&at->node);
    return node ? vv_container_of(node, struct vv_range_place, node) : NULL;
}

uint64_t vv_hidden_commit(const struct vv_data *data, uint64_t index, uint64_t at)
{
    uint64_t newest = 0;
    if (data == NULL || vv_planted(VV_PLANT_RANGE_FORGOTTEN))
        return 0;
    if (data->drop_commit != 0 && data->drop_commit <= at)
        newest = data->drop_commit;
    if (vv_list_is_empty(&data->ranges))
        return newest;
    for (unsigned level = 0; level < VV_RANGE_LEVELS; level++) {
        const struct vv_range_place *found = first_place(data, level, index);
        for (; found != NULL; found = next_place(found)) {
            /* Hashes may meet: the range itself says where it is. */
            const struct vv_range *range = found->range;
            if (range->data == data && range->commit <= at && range->commit > newest &&
                range->from <= index && index < range->to)
                newest = range->commit;
        }
    }
    return newest;
}

struct vv_range *vv_range_same(const struct vv_data *data, uint64_t from, uint64_t commit)
{
    for (unsigned level = 0; level < VV_RANGE_LEVELS; level++) {
        const struct vv_range_place *found = first_place(data, level, from);
        for (; found != NULL; found = next_place(found)) {
            struct vv_range *range = found->range;
            if (range->data == data && range->from == from && range->commit == commit)
                return range;
        }
    }
    return NULL;
}

struct vv_range *vv_range_new(void)
{
    struct vv_range *range = vv_zalloc(sizeof *range);
    if (range == NULL)
        return NULL;
    vv_list_init(&range->in_data);
    vv_list_init(&range->in_queue);
    return range;
}

void vv_range_add(struct vv_volume *volume, struct vv_data *data, struct vv_range *range)
{
    range->data = data;
    data->stamp = ++volume->stamp;
    vv_list_push_back(&data->ranges, &range->in_data);
    vv_list_push_back(&volume->reclaims, &range->in_queue);
    place(range);
    volume->range_count++;
}

void vv_range_extend(struct vv_volume *volume, struct vv_range *range, uint64_t to)
{
    range->data->stamp = ++volume->stamp;
    if (to <= range->to)
        return;
    unplace(range);
    range->to = to;
    place(range);
}

void vv_range_remove(struct vv_volume *volume, struct vv_range *range)
{
    struct vv_data *data = range->data;
    unplace(range);
    vv_list_remove(&range->in_data);
    vv_list_remove(&range->in_queue);
    volume->range_count--;
    vv_free(range);
    vv_data_tidy(volume, data);
}
