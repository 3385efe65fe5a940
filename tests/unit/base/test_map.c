#include "base/map.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/list.h"
#include "tap.h"

#define ITEM_COUNT 5000

struct item {
    struct vv_map_node node;
    int key;
    bool is_seen;
};

static struct item items[ITEM_COUNT];

static struct item *item_of(struct vv_map_node *node)
{
    return vv_container_of(node, struct item, node);
}

static struct item *find(const struct vv_map *map, int key)
{
    struct vv_map_node *node = vv_map_find(map, vv_mix64((uint64_t)key));
    while (node && item_of(node)->key != key)
        node = vv_map_next(node);
    return node ? item_of(node) : NULL;
}

static void fill(struct vv_map *map)
{
    for (int key = 0; key < ITEM_COUNT; key++) {
        items[key] = (struct item){.key = key};
        vv_map_insert(map, &items[key].node, vv_mix64((uint64_t)key));
    }
}

static void test_many(struct vv_map *map, const char *mode)
{
    fill(map);
    bool is_right = map->count == ITEM_COUNT;
    for (int key = 0; key < ITEM_COUNT; key++)
        is_right &= find(map, key) == &items[key];
    tap_ok(is_right && !find(map, ITEM_COUNT), "%s: all are found, and nothing else", mode);

    size_t walked = 0;
    for (struct vv_map_node *node = vv_map_walk(map, NULL); node; node = vv_map_walk(map, node)) {
        walked += !item_of(node)->is_seen;
        item_of(node)->is_seen = true;
    }
    tap_is_int((int64_t)walked, ITEM_COUNT, "%s: a walk meets each", mode);

    for (int key = 0; key < ITEM_COUNT; key += 2)
        vv_map_remove(map, &items[key].node);
    is_right = map->count == ITEM_COUNT / 2;
    for (int key = 0; key < ITEM_COUNT; key++)
        is_right &= find(map, key) == (key % 2 ? &items[key] : NULL);
    tap_ok(is_right, "%s: those removed are gone, the others stay", mode);

    struct vv_map_node *node = vv_map_walk(map, NULL);
    while (node) {
        struct vv_map_node *next = vv_map_walk(map, node);
        vv_map_remove(map, node);
        memset(node, 0xff, sizeof(*node));
        node = next;
    }
    tap_ok(map->count == 0 && !vv_map_walk(map, NULL), "%s: emptied during a walk", mode);
}

int main(void)
{
    struct vv_map map;
    vv_alloc_fail_at(0, false);
    tap_is_int(vv_map_init(&map), -ENOMEM, "init without memory");
    vv_alloc_fail_at(-1, false);
    tap_is_int(vv_map_init(&map), 0, "init");
    tap_ok(!vv_map_walk(&map, NULL) && !vv_map_find(&map, 0), "an empty map");
    test_many(&map, "growing");
    vv_map_done(&map);
    vv_map_done(&map);

    tap_is_int(vv_map_init(&map), 0, "init again");
    vv_alloc_fail_at(2, true);
    test_many(&map, "growth fails");
    vv_alloc_fail_at(-1, false);
    tap_is_int((int64_t)map.bucket_count, 64, "the table stopped growing");

    for (int key = 0; key < 3; key++) {
        items[key] = (struct item){.key = key};
        vv_map_insert(&map, &items[key].node, 42);
    }
    int found = 0;
    for (struct vv_map_node *node = vv_map_find(&map, 42); node; node = vv_map_next(node))
        found |= 1 << item_of(node)->key;
    tap_is_int(found, 7, "all nodes with one hash");
    vv_map_done(&map);
    return tap_done();
}
