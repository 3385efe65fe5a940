#include "lsm/mem_tree_impl.h"

#include <assert.h>
#include <string.h>

#include "lsm/memtable_impl.h"

struct vv_mem_node {
    uint16_t count;
    uint16_t shared; /* bytes that all keys of this node, now and later, begin with */
    uint64_t heads[VV_MEM_NODE_KEYS]; /* the 8 bytes after them, big-endian, zero-filled */
    struct vv_mem_entry *entries[VV_MEM_NODE_KEYS];
    struct vv_mem_node *children[]; /* of inner nodes: child i holds keys from entries[i] on, and
                                     * child 0 also those below */
};

#define LEAF_BYTES sizeof(struct vv_mem_node)
#define INNER_BYTES (LEAF_BYTES + VV_MEM_NODE_KEYS * sizeof(void *))

_Static_assert(INNER_BYTES *VV_MEM_TREE_DEPTH_MAX <= VV_MEM_TREE_BYTES, "a split on each level");
/* A leaf splits after 16 or more entries, an inner node after 16 or more splits below. */
_Static_assert(INNER_BYTES / 15 + LEAF_BYTES / 15 <= VV_MEM_TREE_ENTRY_BYTES, "splits by and by");

static uint64_t head_of(struct vv_bytes key, size_t shared)
{
    uint8_t bytes[8] = {0};
    size_t len = key.len > shared ? key.len - shared : 0;
    if (len >= 8)
        return vv_load_be64(key.ptr + shared);
    if (len > 0)
        memcpy(bytes, key.ptr + shared, len);
    return vv_load_be64(bytes);
}

/* How many of the node's keys, from `first` on, are below `key`. */
static unsigned count_below(const struct vv_mem_node *node, unsigned first, struct vv_bytes key)
{
    uint64_t head = head_of(key, node->shared);
    unsigned low = first;
    unsigned high = node->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        bool is_below = node->heads[middle] < head;
        if (node->heads[middle] == head)
            is_below = vv_bytes_compare(vv_mem_entry_key(node->entries[middle]), key) < 0;
        if (is_below)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct vv_mem_entry *vv_mem_tree_before(const struct vv_mem_tree *tree, struct vv_bytes key)
{
    const struct vv_mem_node *node = tree->root;
    if (!node)
        return NULL;
    for (unsigned level = tree->depth; level > 1; level--)
        node = node->children[count_below(node, 1, key) - 1];
    unsigned index = count_below(node, 0, key);
    return index > 0 ? node->entries[index - 1] : NULL;
}

/* ---- adding ---- */

/* The way down to a leaf. */
struct step {
    struct vv_mem_node *node;
    unsigned index; /* where the new key goes; in inner nodes after child index - 1 */
    const struct vv_mem_entry *lower; /* keys of the node are not below; NULL = no bound */
    const struct vv_mem_entry *upper; /* ... and below this */
};

static size_t shared_of(const struct vv_mem_entry *lower, const struct vv_mem_entry *upper)
{
    if (!lower || !upper)
        return 0;
    struct vv_bytes a = vv_mem_entry_key(lower);
    struct vv_bytes b = vv_mem_entry_key(upper);
    size_t len = 0;
    while (len < a.len && len < b.len && a.ptr[len] == b.ptr[len])
        len++;
    return len;
}

/* The bounds of a node have become closer. */
static void set_bounds(struct vv_mem_node *node, const struct vv_mem_entry *lower,
                       const struct vv_mem_entry *upper)
{
    size_t shared = shared_of(lower, upper);
    if (shared == node->shared)
        return;
    node->shared = (uint16_t)shared;
    for (unsigned i = 0; i < node->count; i++)
        node->heads[i] = head_of(vv_mem_entry_key(node->entries[i]), shared);
}

static void insert_at(struct vv_mem_node *node, unsigned index, struct vv_mem_entry *entry,
                      struct vv_mem_node *child)
{
    unsigned after = node->count - index;
    memmove(&node->heads[index + 1], &node->heads[index], after * sizeof(node->heads[0]));
    memmove(&node->entries[index + 1], &node->entries[index], after * sizeof(node->entries[0]));
    node->heads[index] = head_of(vv_mem_entry_key(entry), node->shared);
    node->entries[index] = entry;
    if (child) {
        memmove(&node->children[index + 1], &node->children[index],
                after * sizeof(node->children[0]));
        node->children[index] = child;
    }
    node->count++;
}

/* Move the keys from `first` on to a new node on the right. */
static struct vv_mem_node *split_at(struct vv_memtable *mem, struct vv_mem_node *node,
                                    unsigned first, bool is_inner)
{
    struct vv_mem_node *right = vv_memtable_alloc(mem, is_inner ? INNER_BYTES : LEAF_BYTES);
    unsigned count = node->count - first;
    right->count = (uint16_t)count;
    right->shared = node->shared;
    memcpy(right->heads, &node->heads[first], count * sizeof(node->heads[0]));
    memcpy(right->entries, &node->entries[first], count * sizeof(node->entries[0]));
    if (is_inner)
        memcpy(right->children, &node->children[first], count * sizeof(node->children[0]));
    node->count = (uint16_t)first;
    return right;
}

/* Add to a node, which splits when it is full. Returns the new node on the right, or NULL. A key at
 * the end begins a node of its own: keys often come in order, and full nodes are left behind. */
static struct vv_mem_node *add_to(struct vv_memtable *mem, const struct step *step,
                                  struct vv_mem_entry *entry, struct vv_mem_node *child)
{
    struct vv_mem_node *node = step->node;
    if (node->count < VV_MEM_NODE_KEYS) {
        insert_at(node, step->index, entry, child);
        return NULL;
    }
    unsigned first = step->index == node->count ? node->count : node->count / 2;
    struct vv_mem_node *right = split_at(mem, node, first, child != NULL);
    if (step->index >= first)
        insert_at(right, step->index - first, entry, child);
    else
        insert_at(node, step->index, entry, child);
    set_bounds(node, step->lower, right->entries[0]);
    set_bounds(right, right->entries[0], step->upper);
    return right;
}

static void grow_root(struct vv_memtable *mem, struct vv_mem_node *right)
{
    struct vv_mem_tree *tree = &mem->tree;
    struct vv_mem_node *root = vv_memtable_alloc(mem, INNER_BYTES);
    root->count = 0;
    root->shared = 0;
    insert_at(root, 0, tree->root->entries[0], tree->root);
    insert_at(root, 1, right->entries[0], right);
    tree->root = root;
    tree->depth++;
    assert(tree->depth <= VV_MEM_TREE_DEPTH_MAX);
}

static void find_path(const struct vv_mem_tree *tree, struct vv_bytes key,
                      struct step path[VV_MEM_TREE_DEPTH_MAX])
{
    struct step at = {.node = tree->root};
    for (unsigned level = tree->depth; level > 1; level--) {
        at.index = count_below(at.node, 1, key);
        path[level - 1] = at;
        const struct vv_mem_node *node = at.node;
        if (at.index > 1)
            at.lower = node->entries[at.index - 1];
        if (at.index < node->count)
            at.upper = node->entries[at.index];
        at.node = node->children[at.index - 1];
    }
    at.index = count_below(at.node, 0, key);
    path[0] = at;
}

static void begin_tree(struct vv_memtable *mem)
{
    struct vv_mem_node *root = vv_memtable_alloc(mem, LEAF_BYTES);
    root->count = 0;
    root->shared = 0;
    mem->tree.root = root;
    mem->tree.depth = 1;
}

struct vv_mem_entry *vv_mem_tree_add(struct vv_memtable *mem, struct vv_mem_entry *entry)
{
    struct vv_mem_tree *tree = &mem->tree;
    struct vv_bytes key = vv_mem_entry_key(entry);
    struct step path[VV_MEM_TREE_DEPTH_MAX];
    if (!tree->root)
        begin_tree(mem);
    find_path(tree, key, path);
    struct vv_mem_entry *before =
        path[0].index > 0 ? path[0].node->entries[path[0].index - 1] : NULL;
    struct vv_mem_node *right = add_to(mem, &path[0], entry, NULL);
    for (unsigned level = 1; right && level < tree->depth; level++)
        right = add_to(mem, &path[level], right->entries[0], right);
    if (right)
        grow_root(mem, right);
    return before;
}
