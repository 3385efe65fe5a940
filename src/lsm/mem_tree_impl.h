/* The order of a memtable's entries: a B-tree that only grows, whose leaves point at the entries,
 * and the entries linked in key order.
 *
 * A node knows how many bytes all keys that can come to it have in common, and keeps the next eight
 * bytes of each key as a number, so that a search seldom looks at the keys themselves. Nodes come
 * from the memtable's arena. */
#ifndef VV_LSM_MEM_TREE_IMPL_H
#define VV_LSM_MEM_TREE_IMPL_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

#define VV_MEM_NODE_KEYS 32
#define VV_MEM_TREE_DEPTH_MAX 10 /* each level has 16 times the nodes of the one above, or more */

struct vv_memtable;
struct vv_mem_entry;
struct vv_mem_node;

struct vv_mem_tree {
    struct vv_mem_node *root; /* NULL: no entries */
    unsigned depth;           /* levels */
};

/* Bytes that adding entries takes of the arena at most: for each, and once besides. */
#define VV_MEM_TREE_ENTRY_BYTES 112
#define VV_MEM_TREE_BYTES (VV_MEM_TREE_DEPTH_MAX * 800)

/* The last entry below `key`; NULL when there is none. */
struct vv_mem_entry *vv_mem_tree_before(const struct vv_mem_tree *tree, struct vv_bytes key);
/* Add an entry whose key is not there yet, and return the one before it, or NULL. Memory is
 * reserved. */
struct vv_mem_entry *vv_mem_tree_add(struct vv_memtable *mem, struct vv_mem_entry *entry);

#endif
