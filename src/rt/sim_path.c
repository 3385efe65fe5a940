/* Paths of the simulated runtime. Each call takes some time before its effect and some after. */
#include "rt/sim_impl.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"

/* What an unbounded disk says its size is. */
#define UNBOUNDED_BYTES (1ull << 40)

/* ---- resolving ---- */

/* The next component of the path at *at, or an empty one at the end. */
static int next_component(const char **at, char name[VV_SIM_NAME_MAX + 1])
{
    do {
        while (**at == '/')
            (*at)++;
        size_t len = strcspn(*at, "/");
        if (len > VV_SIM_NAME_MAX)
            return -ENAMETOOLONG;
        memcpy(name, *at, len);
        name[len] = '\0';
        *at += len;
    } while (strcmp(name, ".") == 0);
    return strcmp(name, "..") == 0 ? -EINVAL : 0;
}

int vv_sim_resolve(struct vv_sim_disk *disk, const char *path, struct vv_sim_place *out_place)
{
    struct vv_sim_inode *dir = disk->root;
    char name[VV_SIM_NAME_MAX + 1];
    char following[VV_SIM_NAME_MAX + 1];
    if (path[0] == '\0')
        return -ENOENT;
    TRY(next_component(&path, name));
    for (;;) {
        TRY(next_component(&path, following));
        if (following[0] == '\0')
            break;
        struct vv_sim_inode *child = vv_sim_dir_find(dir, name);
        if (!child)
            return -ENOENT;
        if (!child->is_dir)
            return -ENOTDIR;
        dir = child;
        memcpy(name, following, sizeof(name));
    }
    out_place->dir = dir;
    memcpy(out_place->name, name, sizeof(name));
    return 0;
}

static struct vv_sim_inode *inode_at(const struct vv_sim_place *place)
{
    return place->name[0] ? vv_sim_dir_find(place->dir, place->name) : place->dir;
}

int vv_sim_find(struct vv_sim_disk *disk, const char *path, struct vv_sim_inode **out_inode)
{
    struct vv_sim_place place;
    TRY(vv_sim_resolve(disk, path, &place));
    struct vv_sim_inode *inode = inode_at(&place);
    if (!inode)
        return -ENOENT;
    *out_inode = inode;
    return 0;
}

/* ---- one call ---- */

/* Time passes; then the call takes effect, or fails with EIO. */
static int begin(struct vv_sim_disk **out_disk)
{
    struct vv_sim_world *world = vv_sim_world_self();
    vv_sim_world_pause(world);
    struct vv_sim_disk *disk = world->current->disk;
    if (!disk)
        return -ENODEV;
    if (vv_sim_disk_fails(disk))
        return -EIO;
    *out_disk = disk;
    return 0;
}

static int finish(int err)
{
    vv_sim_world_pause(vv_sim_world_self());
    return err;
}

static int do_mkdir(const char *path)
{
    struct vv_sim_disk *disk;
    struct vv_sim_place place;
    TRY(begin(&disk));
    TRY(vv_sim_resolve(disk, path, &place));
    if (inode_at(&place))
        return -EEXIST;
    struct vv_sim_inode *inode = vv_sim_inode_new(disk, true);
    if (!inode)
        return -ENOMEM;
    vv_sim_inode_ref(inode);
    int err = vv_sim_dir_set(place.dir, place.name, inode);
    vv_sim_inode_unref(inode);
    return err;
}

static int sim_mkdir(const char *path)
{
    return finish(do_mkdir(path));
}

static int do_unlink(const char *path)
{
    struct vv_sim_disk *disk;
    struct vv_sim_place place;
    TRY(begin(&disk));
    TRY(vv_sim_resolve(disk, path, &place));
    const struct vv_sim_inode *inode = inode_at(&place);
    if (!inode)
        return -ENOENT;
    if (inode->is_dir)
        return -EISDIR;
    return vv_sim_dir_set(place.dir, place.name, NULL);
}

static int sim_unlink(const char *path)
{
    return finish(do_unlink(path));
}

static int do_rmdir(const char *path)
{
    struct vv_sim_disk *disk;
    struct vv_sim_place place;
    TRY(begin(&disk));
    TRY(vv_sim_resolve(disk, path, &place));
    const struct vv_sim_inode *inode = inode_at(&place);
    if (!inode)
        return -ENOENT;
    if (!inode->is_dir)
        return -ENOTDIR;
    if (inode->entry_count > 0)
        return -ENOTEMPTY;
    if (inode == disk->root)
        return -EBUSY;
    return vv_sim_dir_set(place.dir, place.name, NULL);
}

static int sim_rmdir(const char *path)
{
    return finish(do_rmdir(path));
}

/* What may be renamed to what; as rename(2), but a directory replaces nothing. */
static int check_rename(const struct vv_sim_inode *moved, const struct vv_sim_place *to)
{
    for (const struct vv_sim_inode *dir = to->dir; dir; dir = dir->parent) {
        if (dir == moved)
            return -EINVAL;
    }
    const struct vv_sim_inode *replaced = inode_at(to);
    if (replaced && moved->is_dir)
        return replaced->is_dir ? -ENOTEMPTY : -ENOTDIR;
    return replaced && replaced->is_dir ? -EISDIR : 0;
}

static int do_rename(const char *from, const char *to)
{
    struct vv_sim_disk *disk;
    struct vv_sim_place from_place;
    struct vv_sim_place to_place;
    TRY(begin(&disk));
    TRY(vv_sim_resolve(disk, from, &from_place));
    TRY(vv_sim_resolve(disk, to, &to_place));
    const struct vv_sim_inode *moved = inode_at(&from_place);
    if (!moved)
        return -ENOENT;
    if (moved == disk->root)
        return -EBUSY;
    if (moved == inode_at(&to_place))
        return 0; /* two names of one file stay two, says POSIX */
    TRY(check_rename(moved, &to_place));
    return vv_sim_dir_move(from_place.dir, from_place.name, to_place.dir, to_place.name);
}

static int sim_rename(const char *from, const char *to)
{
    return finish(do_rename(from, to));
}

static int do_link(const char *from, const char *to)
{
    struct vv_sim_disk *disk;
    struct vv_sim_inode *inode;
    struct vv_sim_place place;
    TRY(begin(&disk));
    TRY(vv_sim_find(disk, from, &inode));
    TRY(vv_sim_resolve(disk, to, &place));
    if (inode_at(&place))
        return -EEXIST;
    if (inode->is_dir)
        return -EPERM;
    return vv_sim_dir_set(place.dir, place.name, inode);
}

static int sim_link(const char *from, const char *to)
{
    return finish(do_link(from, to));
}

static int do_sync_dir(const char *path)
{
    struct vv_sim_disk *disk;
    struct vv_sim_inode *dir;
    int err = begin(&disk);
    if (err == -EIO)
        disk = vv_sim_world_self()->current->disk;
    else
        TRY(err);
    TRY(vv_sim_find(disk, path, &dir));
    if (!dir->is_dir)
        return -ENOTDIR;
    if (err == -EIO)
        vv_sim_dir_sync(dir, vv_sim_random(vv_sim_dir_change_count(dir) + 1));
    else
        vv_sim_dir_sync(dir, SIZE_MAX);
    return err;
}

/* A crash that is due just before this sync. */
static void crash_before_sync(const char *path)
{
    struct vv_sim_process *process = vv_sim_world_self()->current;
    if (process->kill_before_sync > 0 && strstr(path, process->kill_sync_part) &&
        --process->kill_before_sync == 0)
        vv_sim_process_kill(process->number);
}

static int sim_sync_dir(const char *path)
{
    crash_before_sync(path);
    return finish(do_sync_dir(path));
}

static int do_stat(const char *path, struct vv_path_stat *out_stat)
{
    struct vv_sim_disk *disk;
    struct vv_sim_inode *inode;
    TRY(begin(&disk));
    TRY(vv_sim_find(disk, path, &inode));
    *out_stat = (struct vv_path_stat){.size = inode->content.size, .is_dir = inode->is_dir};
    return 0;
}

static int sim_stat(const char *path, struct vv_path_stat *out_stat)
{
    struct vv_path_stat stat;
    int err = finish(do_stat(path, &stat));
    if (err == 0)
        *out_stat = stat;
    return err;
}

static int sim_space(const char *path, uint64_t *out_free, uint64_t *out_total)
{
    struct vv_sim_disk *disk;
    struct vv_sim_inode *inode;
    TRY(begin(&disk));
    TRY(vv_sim_find(disk, path, &inode));
    uint64_t total = UNBOUNDED_BYTES;
    if (disk->capacity_pages > 0)
        total = disk->capacity_pages * VV_SIM_PAGE_BYTES;
    uint64_t used = vv_sim_disk_used(disk);
    *out_total = total;
    *out_free = used < total ? total - used : 0;
    return 0;
}

/* ---- listing ---- */

static int visit_one(struct vv_list *node, int (*visit)(void *, const char *, bool), void *arg)
{
    const struct vv_sim_entry *entry = vv_list_entry(node, struct vv_sim_entry, order_node);
    return entry->now ? visit(arg, entry->name, entry->now->is_dir) : 0;
}

/* Begins anywhere and goes either way: nobody may rely on an order. visit can't suspend, so the
 * directory stays as it is meanwhile. */
static int sim_list(const char *path, int (*visit)(void *arg, const char *name, bool is_dir),
                    void *arg)
{
    struct vv_sim_disk *disk;
    struct vv_sim_inode *dir;
    TRY(begin(&disk));
    TRY(vv_sim_find(disk, path, &dir));
    if (!dir->is_dir)
        return -ENOTDIR;
    size_t count = 0;
    vv_list_each (node, &dir->entries)
        count++;
    struct vv_list *at = &dir->entries;
    bool is_backward = vv_sim_chance(500);
    for (uint64_t skip = vv_sim_random(count + 1); skip > 0; skip--)
        at = at->next;
    /* The head of the list is passed once, wherever the walk begins. */
    for (size_t i = 0; i <= count; i++) {
        if (at != &dir->entries)
            TRY(visit_one(at, visit, arg));
        at = is_backward ? at->prev : at->next;
    }
    return 0;
}

const struct vv_path_ops vv_sim_path_ops = {
    .open = vv_sim_file_open,
    .mkdir = sim_mkdir,
    .unlink = sim_unlink,
    .rmdir = sim_rmdir,
    .rename = sim_rename,
    .link = sim_link,
    .sync_dir = sim_sync_dir,
    .stat = sim_stat,
    .space = sim_space,
    .list = sim_list,
};
