/* An intrusive hash table: nodes live in the caller's structs, so inserting allocates only when the
 * table of buckets grows, and a failed growth is harmless (chains get longer).
 * One owner thread at a time. Never suspends. */
#ifndef VV_BASE_MAP_H
#define VV_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct vv_map_node {
    struct vv_map_node *next;
    uint64_t hash;
};

struct vv_map {
    struct vv_map_node **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
};

/* -ENOMEM. */
MUST_CHECK int vv_map_init(struct vv_map *map);
/* Frees the buckets, not the nodes. Safe on zeroed memory. */
void vv_map_done(struct vv_map *map);
/* The first node with this hash, or NULL; vv_map_next gives further ones with the same hash. The
 * caller compares keys. The low bits choose the bucket: mix integers with vv_mix64. */
struct vv_map_node *vv_map_find(const struct vv_map *map, uint64_t hash);
struct vv_map_node *vv_map_next(const struct vv_map_node *node);
/* Adds a node; duplicates are the caller's business. Cannot fail. */
void vv_map_insert(struct vv_map *map, struct vv_map_node *node, uint64_t hash);
/* The node must be in the map. */
void vv_map_remove(struct vv_map *map, struct vv_map_node *node);
/* Walk all nodes in no particular order: pass NULL first, then the node returned before; NULL at
 * the end. The map must not change during the walk, with one exception: a node may be removed (and
 * freed) once its successor has been fetched. */
struct vv_map_node *vv_map_walk(const struct vv_map *map, const struct vv_map_node *node);

#endif
