#include "rt/sim.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "rt/sim_impl.h"

#define PATH_BYTES_MAX 4096

struct vv_sim_disk *vv_sim_disk_new(uint64_t capacity_bytes)
{
    struct vv_sim_world *world = vv_sim_world_self();
    struct vv_sim_disk *disk = vv_sim_alloc(sizeof(*disk));
    if (!disk)
        return NULL;
    vv_list_init(&disk->inodes);
    disk->next_order = 1;
    disk->root = vv_sim_inode_new(disk, true);
    if (!disk->root) {
        vv_free(disk);
        return NULL;
    }
    vv_sim_inode_ref(disk->root);
    vv_sim_disk_set_capacity(disk, capacity_bytes);
    vv_list_push_back(&world->disks, &disk->world_node);
    return disk;
}

void vv_sim_disk_free(struct vv_sim_disk *disk)
{
    assert(disk->open_count == 0);
    vv_list_remove(&disk->world_node);
    /* Before, what is there now and what is durable may be in each other. */
    vv_sim_dirs_power_cut(disk, false);
    vv_sim_inode_unref(disk->root);
    assert(vv_list_is_empty(&disk->inodes));
    vv_free(disk);
}

void vv_sim_disk_set_capacity(struct vv_sim_disk *disk, uint64_t capacity_bytes)
{
    disk->capacity_pages = capacity_bytes / VV_SIM_PAGE_BYTES;
    if (capacity_bytes > 0 && disk->capacity_pages == 0)
        disk->capacity_pages = 1;
}

uint64_t vv_sim_disk_used(const struct vv_sim_disk *disk)
{
    return disk->used_pages * VV_SIM_PAGE_BYTES;
}

void vv_sim_disk_set_errors(struct vv_sim_disk *disk, unsigned per_10000)
{
    disk->errors_per_10000 = per_10000;
}

bool vv_sim_disk_fails(const struct vv_sim_disk *disk)
{
    return disk->errors_per_10000 > 0 && vv_sim_random(10000) < disk->errors_per_10000;
}

void vv_sim_disk_power_cut(struct vv_sim_disk *disk)
{
    assert(disk->open_count == 0 && "the processes that use it have been killed");
    vv_sim_dirs_power_cut(disk, vv_sim_world_self()->options.is_reordering_dirs);
    disk->used_pages = 0;
    vv_list_each (node, &disk->inodes) {
        struct vv_sim_inode *inode = vv_list_entry(node, struct vv_sim_inode, disk_node);
        uint64_t used_pages = disk->used_pages;
        vv_sim_content_power_cut(&inode->content);
        disk->used_pages = used_pages + inode->content.allocated_count;
    }
}

/* ---- rot ---- */

/* The path of an entry of `dir`, built from its end in `buf`; NULL when it is too long. */
static const char *path_of(const struct vv_sim_inode *dir, const struct vv_sim_entry *entry,
                           char buf[PATH_BYTES_MAX])
{
    size_t at = PATH_BYTES_MAX - 1;
    buf[at] = '\0';
    while (entry) {
        size_t len = strlen(entry->name);
        if (at < len + 1)
            return NULL;
        at -= len + 1;
        buf[at] = '/';
        memcpy(buf + at + 1, entry->name, len);
        const struct vv_sim_inode *child = dir;
        dir = dir->parent;
        entry = NULL;
        if (!dir)
            break;
        vv_list_each (node, &dir->entries) {
            struct vv_sim_entry *found = vv_list_entry(node, struct vv_sim_entry, order_node);
            if (found->now == child)
                entry = found;
        }
    }
    return buf + at;
}

/* The file number `index` (0 = the first) with content and a path that contains `part`, or NULL;
 * `out_count` tells how many there are when it is NULL. */
static struct vv_sim_inode *find_file(struct vv_sim_disk *disk, const char *part, uint64_t index,
                                      uint64_t *out_count)
{
    char buf[PATH_BYTES_MAX];
    uint64_t count = 0;
    vv_list_each (dir_node, &disk->inodes) {
        struct vv_sim_inode *dir = vv_list_entry(dir_node, struct vv_sim_inode, disk_node);
        vv_list_each (node, &dir->entries) {
            struct vv_sim_entry *entry = vv_list_entry(node, struct vv_sim_entry, order_node);
            if (!entry->now || entry->now->is_dir || entry->now->content.size == 0)
                continue;
            const char *path = path_of(dir, entry, buf);
            if (path && strstr(path, part) && count++ == index)
                return entry->now;
        }
    }
    *out_count = count;
    return NULL;
}

bool vv_sim_disk_rot(struct vv_sim_disk *disk, const char *part)
{
    uint64_t count = 0;
    find_file(disk, part, UINT64_MAX, &count);
    if (count == 0)
        return false;
    struct vv_sim_inode *file = find_file(disk, part, vv_sim_random(count), &count);
    return vv_sim_content_rot(&file->content);
}
