/* Range tombstones: which lies over an extent, against looking at all of them. */
#include "volume/volume_impl.h"

#include <string.h>

#include "base/hash.h"
#include "tap.h"

#define DATA_COUNT 3
#define RANGES_MAX 400

static struct vv_volume volume;
static struct vv_data *data[DATA_COUNT];
static uint64_t state = 1;

static uint64_t draw(uint64_t bound)
{
    state += 0x9e3779b97f4a7c15ull;
    return vv_mix64(state) % bound;
}

/* A length: of each level one is as likely as the other; sometimes without an end. */
static uint64_t draw_to(uint64_t from)
{
    if (draw(20) == 0)
        return VV_EXTENTS_NO_END;
    if (draw(50) == 0)
        return draw(from + 1); /* damaged */
    uint64_t len = 1 + draw(1ull << (1 + draw(40)));
    return from + len;
}

static uint64_t hidden_by_looking(const struct vv_data *of, uint64_t index, uint64_t at)
{
    uint64_t newest = of->drop_commit <= at ? of->drop_commit : 0;
    vv_list_each (node, &of->ranges) {
        const struct vv_range *range = vv_list_entry(node, struct vv_range, in_data);
        if (range->commit <= at && range->commit > newest && range->from <= index &&
            index < range->to)
            newest = range->commit;
    }
    return newest;
}

static void add(uint64_t commit)
{
    struct vv_data *of = data[draw(DATA_COUNT)];
    uint64_t from = draw(4) ? draw(1000) : draw(1ull << 46);
    struct vv_range *same = vv_range_same(of, from, commit);
    uint64_t to = draw_to(from);
    if (same) {
        vv_range_extend(&volume, same, to);
        return;
    }
    struct vv_range *range = vv_range_new();
    range->from = from;
    range->to = to;
    range->commit = commit;
    vv_range_add(&volume, of, range);
}

static void remove_one(void)
{
    size_t skip = draw(volume.range_count);
    vv_list_each (node, &volume.reclaims) {
        if (skip-- == 0) {
            vv_range_remove(&volume, vv_list_entry(node, struct vv_range, in_queue));
            return;
        }
    }
}

static unsigned wrong_answers(uint64_t commit)
{
    unsigned wrong = 0;
    for (unsigned i = 0; i < 40; i++) {
        const struct vv_data *of = data[draw(DATA_COUNT)];
        uint64_t index = draw(4) ? draw(1100) : draw(1ull << 47);
        uint64_t at = draw(3) ? UINT64_MAX : draw(commit + 1);
        if (!vv_list_is_empty(&of->ranges) && draw(2)) {
            /* The edges of one. */
            const struct vv_range *range = vv_list_first(&of->ranges, struct vv_range, in_data);
            index = range->from + (draw(2) && range->to != VV_EXTENTS_NO_END
                                       ? range->to - range->from - draw(2)
                                       : draw(2));
        }
        wrong += vv_hidden_commit(of, index, at) != hidden_by_looking(of, index, at);
    }
    return wrong;
}

static bool start(void)
{
    vv_list_init(&volume.reclaims);
    if (vv_map_init(&volume.data) < 0 || vv_map_init(&volume.extents) < 0 ||
        vv_map_init(&volume.range_places) < 0)
        return false;
    for (unsigned i = 0; i < DATA_COUNT; i++) {
        data[i] = vv_data_make(&volume, 100 + i, 1);
        if (!data[i])
            return false;
        data[i]->holds = 1;
    }
    return true;
}

int main(void)
{
    unsigned wrong = 0;
    uint64_t commit = 1;
    tap_ok(start(), "three data ids");
    for (unsigned step = 0; step < 5000; step++) {
        commit += draw(3) == 0;
        if (volume.range_count < RANGES_MAX && (draw(5) || volume.range_count == 0))
            add(commit);
        else
            remove_one();
        if (step == 2500)
            data[1]->drop_commit = commit;
        if (step % 10 == 0)
            wrong += wrong_answers(commit);
    }
    tap_is_int(wrong, 0, "20,000 questions are answered as by looking at all");
    tap_is_int((int64_t)volume.range_places.count >= (int64_t)volume.range_count, 1,
               "each range can be found");
    struct vv_range *found = vv_range_same(data[0], 1ull << 60, commit);
    tap_ok(found == NULL, "one that is not there is not found");
    while (volume.range_count > 0)
        remove_one();
    tap_is_int((int64_t)volume.range_places.count, 0, "nothing is left of them");
    data[1]->drop_commit = 0;
    for (unsigned i = 0; i < DATA_COUNT; i++) {
        data[i]->holds = 0;
        vv_data_tidy(&volume, data[i]);
    }
    tap_is_int((int64_t)volume.data.count, 0, "nor of the data ids");
    vv_map_done(&volume.data);
    vv_map_done(&volume.extents);
    vv_map_done(&volume.range_places);
    return tap_done();
}
