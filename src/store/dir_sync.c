#include "store/dir_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/plant.h"
#include "base/text.h"

/* A directory of a name of VV_STORE_NAME_MAX bytes has at most this many parents. */
#define DEPTH_MAX (VV_STORE_NAME_MAX / 2 + 1)

static struct vv_dir_node *find_node(struct vv_dir *dir, const char *name, size_t len)
{
    struct vv_map_node *at = vv_map_find(&dir->nodes, vv_xxh3(name, len, 0));
    for (; at; at = vv_map_next(at)) {
        struct vv_dir_node *node = vv_container_of(at, struct vv_dir_node, map_node);
        if (strncmp(node->name, name, len) == 0 && node->name[len] == 0)
            return node;
    }
    return NULL;
}

static struct vv_dir_node *new_node(struct vv_dir *dir, const char *name, size_t len,
                                    struct vv_dir_node *parent)
{
    struct vv_dir_node *node = vv_zalloc(sizeof(*node) + len + 1);
    if (!node)
        return NULL;
    memcpy(node->name, name, len);
    node->parent = parent;
    vv_waitq_init(&node->ended);
    vv_map_insert(&dir->nodes, &node->map_node, vv_xxh3(name, len, 0));
    if (parent)
        parent->refs++;
    return node;
}

int vv_dir_nodes_init(struct vv_dir *dir)
{
    TRY(vv_map_init(&dir->nodes));
    dir->root_node = new_node(dir, "", 0, NULL);
    if (!dir->root_node)
        return -ENOMEM;
    dir->root_node->refs = 1;
    return 0;
}

void vv_dir_nodes_done(struct vv_dir *dir)
{
    struct vv_map_node *at = dir->nodes.buckets ? vv_map_walk(&dir->nodes, NULL) : NULL;
    while (at) {
        struct vv_map_node *next = vv_map_walk(&dir->nodes, at);
        vv_map_remove(&dir->nodes, at);
        vv_free(vv_container_of(at, struct vv_dir_node, map_node));
        at = next;
    }
    vv_map_done(&dir->nodes);
}

int vv_dir_node_get(struct vv_dir *dir, const char *name, struct vv_dir_node **out_node)
{
    struct vv_dir_node *node = dir->root_node;
    node->refs++;
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t len = (size_t)(slash - name);
        struct vv_dir_node *child = find_node(dir, name, len);
        if (!child)
            child = new_node(dir, name, len, node);
        if (child)
            child->refs++;
        vv_dir_node_unref(dir, node);
        if (!child)
            return -ENOMEM;
        node = child;
    }
    *out_node = node;
    return 0;
}

void vv_dir_node_unref(struct vv_dir *dir, struct vv_dir_node *node)
{
    while (node) {
        assert(node->refs > 0);
        if (--node->refs > 0 || (node->is_durable && dir->nodes.count <= VV_DIR_KNOWN_MAX))
            return;
        struct vv_dir_node *parent = node->parent;
        vv_map_remove(&dir->nodes, &node->map_node);
        vv_free(node);
        node = parent;
    }
}

int vv_dir_node_make(struct vv_dir *dir, struct vv_dir_node *node)
{
    struct vv_dir_node *missing[DEPTH_MAX];
    char path[VV_DIR_PATH_MAX];
    size_t count = 0;
    for (; node->parent && !node->is_durable; node = node->parent) {
        assert(count < DEPTH_MAX);
        missing[count++] = node;
    }
    while (count > 0) {
        vv_dir_path(dir, missing[--count]->name, path);
        int err = vv_path_mkdir(path);
        if (err < 0 && err != -EEXIST)
            return err;
    }
    return 0;
}

/* Sync the names in `node`. A sync that is already running may have missed our name, so we wait for
 * the next one, which everybody who came in the meantime shares. Had that one succeeded and a later
 * one failed before we look, we report the failure: more cautious than needed, never less. */
static int sync_names(struct vv_dir *dir, struct vv_dir_node *node)
{
    const uint64_t mine = node->begun_count + 1;
    char path[VV_DIR_PATH_MAX];
    while (node->ended_count < mine) {
        if (node->begun_count > node->ended_count) {
            (void)vv_waitq_wait(&node->ended, VV_NEVER);
            continue;
        }
        node->begun_count++;
        vv_dir_path(dir, node->name, path);
        int err = vv_planted(VV_PLANT_NO_DIRECTORY_SYNC) ? 0 : vv_path_sync_dir(path);
        node->ended_count++;
        if (err < 0) {
            node->failed_number = node->ended_count;
            node->failure = err;
        }
        vv_waitq_wake_all(&node->ended);
    }
    return node->failed_number >= mine ? node->failure : 0;
}

/* Sync the name of the store's own directory. Who may not even read the parent cannot have made the
 * store in it just now, so that is no error. */
static int sync_root_name(struct vv_dir *dir)
{
    char path[VV_DIR_ROOT_MAX + 1];
    (void)vv_copy_text(path, sizeof(path), dir->root);
    char *slash = strrchr(path, '/');
    if (!slash)
        (void)vv_copy_text(path, sizeof(path), ".");
    else if (slash == path)
        path[1] = 0;
    else
        *slash = 0;
    int err = vv_path_sync_dir(path);
    return err == -EACCES || err == -EPERM ? 0 : err;
}

int vv_dir_node_sync(struct vv_dir *dir, struct vv_dir_node *node)
{
    TRY(sync_names(dir, node));
    for (struct vv_dir_node *at = node; at && !at->is_durable; at = at->parent)
        TRY(at->parent ? sync_names(dir, at->parent) : sync_root_name(dir));
    for (struct vv_dir_node *at = node; at && !at->is_durable; at = at->parent)
        at->is_durable = true;
    return 0;
}
