#include "base/map.h"

#include <assert.h>
#include <errno.h>

#include "base/alloc.h"

#define BUCKET_COUNT_MIN 16

static struct vv_map_node **bucket_of(const struct vv_map *map, uint64_t hash)
{
    return &map->buckets[hash & (map->bucket_count - 1)];
}

int vv_map_init(struct vv_map *map)
{
    struct vv_map_node **buckets = vv_calloc(BUCKET_COUNT_MIN, sizeof(buckets[0]));
    if (!buckets)
        return -ENOMEM;
    *map = (struct vv_map){.buckets = buckets, .bucket_count = BUCKET_COUNT_MIN};
    return 0;
}

void vv_map_done(struct vv_map *map)
{
    vv_free(map->buckets);
    *map = (struct vv_map){0};
}

/* The first node with `hash` in a chain. */
static struct vv_map_node *first_of(struct vv_map_node *node, uint64_t hash)
{
    while (node && node->hash != hash)
        node = node->next;
    return node;
}

struct vv_map_node *vv_map_find(const struct vv_map *map, uint64_t hash)
{
    return first_of(*bucket_of(map, hash), hash);
}

struct vv_map_node *vv_map_next(const struct vv_map_node *node)
{
    return first_of(node->next, node->hash);
}

/* Twice the buckets. Without memory the map stays as it is: slower, but right. */
static void grow(struct vv_map *map)
{
    struct vv_map bigger = {.bucket_count = map->bucket_count * 2, .count = map->count};
    bigger.buckets = vv_calloc(bigger.bucket_count, sizeof(bigger.buckets[0]));
    if (!bigger.buckets)
        return;
    for (size_t i = 0; i < map->bucket_count; i++) {
        struct vv_map_node *node = map->buckets[i];
        while (node) {
            struct vv_map_node *next = node->next;
            struct vv_map_node **bucket = bucket_of(&bigger, node->hash);
            node->next = *bucket;
            *bucket = node;
            node = next;
        }
    }
    vv_free(map->buckets);
    *map = bigger;
}

void vv_map_insert(struct vv_map *map, struct vv_map_node *node, uint64_t hash)
{
    if (map->count >= map->bucket_count)
        grow(map);
    struct vv_map_node **bucket = bucket_of(map, hash);
    node->hash = hash;
    node->next = *bucket;
    *bucket = node;
    map->count++;
}

void vv_map_remove(struct vv_map *map, struct vv_map_node *node)
{
    struct vv_map_node **link = bucket_of(map, node->hash);
    while (*link != node) {
        assert(*link && "the node is in the map");
        link = &(*link)->next;
    }
    *link = node->next;
    node->next = NULL;
    map->count--;
}

struct vv_map_node *vv_map_walk(const struct vv_map *map, const struct vv_map_node *node)
{
    size_t i = 0;
    if (node) {
        if (node->next)
            return node->next;
        i = (node->hash & (map->bucket_count - 1)) + 1;
    }
    while (i < map->bucket_count && !map->buckets[i])
        i++;
    return i < map->bucket_count ? map->buckets[i] : NULL;
}
