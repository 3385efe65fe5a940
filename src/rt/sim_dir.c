/* Inodes and directories of a simulated disk, and what of their changes is durable. */
#include "rt/sim_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"

/* A name gets a meaning, or loses it. */
struct part {
    struct vv_sim_entry *entry;
    struct vv_sim_inode *inode; /* NULL: the name is removed */
};

/* An unsynced change of a directory; all of its parts become durable together. A move between two
 * directories is a change in each, the other's partner until one is durable. What becomes durable,
 * by a sync or in a power cut, keeps these rules, as file systems with a journal do:
 * - an old name goes only when the new one is there (partner); a directory has exactly one of them;
 * - a directory goes only when the new names of what was moved out of it are there;
 * - moves and removals of directories keep their order, so that no directory ends up in itself, and
 * a name that one of them frees is not used again before. */
struct change {
    struct vv_list node;
    struct vv_sim_inode *dir;
    uint64_t order; /* the same in both halves of a move */
    struct part parts[2];
    unsigned part_count;
    struct change *partner;
    struct vv_sim_inode *removed; /* the directory that went, if it is that; with a reference */
    bool is_ordered;              /* a move or removal of a directory */
    bool is_kept;                 /* by the power cut that is going on */
};

/* ---- inodes ---- */

struct vv_sim_inode *vv_sim_inode_new(struct vv_sim_disk *disk, bool is_dir)
{
    struct vv_sim_inode *inode = vv_sim_alloc(sizeof(*inode));
    if (!inode)
        return NULL;
    uint32_t domain = vv_alloc_domain_set(0);
    int err = is_dir ? vv_map_init(&inode->map) : 0;
    vv_alloc_domain_set(domain);
    if (err != 0) {
        vv_free(inode);
        return NULL;
    }
    inode->disk = disk;
    inode->is_dir = is_dir;
    inode->content.disk = disk;
    vv_list_init(&inode->entries);
    vv_list_init(&inode->changes);
    vv_list_push_back(&disk->inodes, &inode->disk_node);
    return inode;
}

void vv_sim_inode_ref(struct vv_sim_inode *inode)
{
    inode->refs++;
}

/* Give up a reference; an inode that has none left is moved to `unused`. */
static void drop_ref(struct vv_sim_inode *inode, struct vv_list *unused)
{
    assert(inode->refs > 0);
    if (--inode->refs > 0)
        return;
    vv_list_remove(&inode->disk_node);
    vv_list_push_back(unused, &inode->disk_node);
}

static void drop_change(struct change *change, struct vv_list *unused)
{
    if (change->partner)
        change->partner->partner = NULL;
    for (unsigned i = 0; i < change->part_count; i++) {
        change->parts[i].entry->pins--;
        if (change->parts[i].inode)
            drop_ref(change->parts[i].inode, unused);
    }
    if (change->removed)
        drop_ref(change->removed, unused);
    vv_list_remove(&change->node);
    vv_free(change);
}

static void drop_content(struct vv_sim_inode *inode, struct vv_list *unused)
{
    vv_list_each_safe (change_node, &inode->changes) {
        drop_change(vv_list_entry(change_node, struct change, node), unused);
    }
    vv_list_each_safe (entry_node, &inode->entries) {
        struct vv_sim_entry *entry = vv_list_entry(entry_node, struct vv_sim_entry, order_node);
        if (entry->now && entry->now->parent == inode)
            entry->now->parent = NULL;
        if (entry->now) {
            vv_sim_inode_unuse(entry->now);
            drop_ref(entry->now, unused);
        }
        if (entry->stable)
            drop_ref(entry->stable, unused);
        vv_free(entry);
    }
    vv_map_done(&inode->map);
    vv_sim_content_done(&inode->content);
}

static void free_unused(struct vv_list *unused)
{
    while (!vv_list_is_empty(unused)) {
        struct vv_sim_inode *inode = vv_list_first(unused, struct vv_sim_inode, disk_node);
        vv_list_remove(&inode->disk_node);
        drop_content(inode, unused);
        vv_free(inode);
    }
}

void vv_sim_inode_unref(struct vv_sim_inode *inode)
{
    struct vv_list unused;
    vv_list_init(&unused);
    drop_ref(inode, &unused);
    free_unused(&unused);
}

void vv_sim_inode_use(struct vv_sim_inode *inode)
{
    if (inode->users++ == 0)
        inode->disk->used_pages += inode->content.allocated_count;
}

void vv_sim_inode_unuse(struct vv_sim_inode *inode)
{
    assert(inode->users > 0);
    if (--inode->users == 0)
        inode->disk->used_pages -= inode->content.allocated_count;
}

/* ---- entries ---- */

static struct vv_sim_entry *find_entry(const struct vv_sim_inode *dir, const char *name)
{
    uint64_t hash = vv_xxh3(name, strlen(name), 0);
    struct vv_map_node *node = vv_map_find(&dir->map, hash);
    for (; node; node = vv_map_next(node)) {
        struct vv_sim_entry *entry = vv_container_of(node, struct vv_sim_entry, node);
        if (strcmp(entry->name, name) == 0)
            return entry;
    }
    return NULL;
}

static struct vv_sim_entry *make_entry(struct vv_sim_inode *dir, const char *name)
{
    size_t len = strlen(name);
    struct vv_sim_entry *entry = find_entry(dir, name);
    if (entry)
        return entry;
    entry = vv_sim_alloc(sizeof(*entry) + len + 1);
    if (!entry)
        return NULL;
    memcpy(entry->name, name, len + 1);
    vv_list_push_back(&dir->entries, &entry->order_node);
    uint32_t domain = vv_alloc_domain_set(0);
    vv_map_insert(&dir->map, &entry->node, vv_xxh3(name, len, 0));
    vv_alloc_domain_set(domain);
    return entry;
}

static void free_if_unused(struct vv_sim_inode *dir, struct vv_sim_entry *entry)
{
    if (entry->now || entry->stable || entry->pins > 0)
        return;
    vv_map_remove(&dir->map, &entry->node);
    vv_list_remove(&entry->order_node);
    vv_free(entry);
}

static void set_now(struct vv_sim_inode *dir, struct vv_sim_entry *entry,
                    struct vv_sim_inode *inode)
{
    struct vv_sim_inode *before = entry->now;
    if (inode == before)
        return;
    if (inode) {
        vv_sim_inode_ref(inode);
        vv_sim_inode_use(inode);
        inode->parent = inode->is_dir ? dir : NULL;
        dir->entry_count++;
    }
    entry->now = inode;
    if (before) {
        dir->entry_count--;
        vv_sim_inode_unuse(before);
        if (before->parent == dir)
            before->parent = NULL;
        vv_sim_inode_unref(before);
    }
}

static void set_stable(struct vv_sim_entry *entry, struct vv_sim_inode *inode)
{
    struct vv_sim_inode *before = entry->stable;
    if (inode)
        vv_sim_inode_ref(inode);
    entry->stable = inode;
    if (before)
        vv_sim_inode_unref(before);
}

struct vv_sim_inode *vv_sim_dir_find(const struct vv_sim_inode *dir, const char *name)
{
    const struct vv_sim_entry *entry = find_entry(dir, name);
    return entry ? entry->now : NULL;
}

/* ---- changes ---- */

static struct change *new_change(struct vv_sim_inode *dir)
{
    struct change *change = vv_sim_alloc(sizeof(*change));
    if (change) {
        change->dir = dir;
        vv_list_init(&change->node);
    }
    return change;
}

static void add_part(struct change *change, struct vv_sim_entry *entry, struct vv_sim_inode *inode)
{
    entry->pins++;
    if (inode)
        vv_sim_inode_ref(inode);
    change->parts[change->part_count++] = (struct part){entry, inode};
}

/* From here on it has happened; it is durable later. */
static void enter_change(struct change *change, uint64_t order)
{
    change->order = order;
    vv_list_push_back(&change->dir->changes, &change->node);
    for (unsigned i = 0; i < change->part_count; i++)
        set_now(change->dir, change->parts[i].entry, change->parts[i].inode);
}

int vv_sim_dir_set(struct vv_sim_inode *dir, const char *name, struct vv_sim_inode *inode)
{
    struct vv_sim_entry *entry = make_entry(dir, name);
    if (!entry)
        return -ENOMEM;
    struct change *change = new_change(dir);
    if (!change) {
        free_if_unused(dir, entry);
        return -ENOMEM;
    }
    if (!inode && entry->now->is_dir) {
        change->is_ordered = true;
        change->removed = entry->now;
        vv_sim_inode_ref(change->removed);
    }
    add_part(change, entry, inode);
    enter_change(change, dir->disk->next_order++);
    return 0;
}

int vv_sim_dir_move(struct vv_sim_inode *from_dir, const char *from_name,
                    struct vv_sim_inode *to_dir, const char *to_name)
{
    struct vv_sim_entry *from = find_entry(from_dir, from_name);
    struct vv_sim_entry *to = make_entry(to_dir, to_name);
    if (!to)
        return -ENOMEM;
    struct change *adding = new_change(to_dir);
    struct change *removing = from_dir == to_dir ? adding : new_change(from_dir);
    if (!adding || !removing) {
        vv_free(adding);
        if (removing != adding)
            vv_free(removing);
        free_if_unused(to_dir, to);
        return -ENOMEM;
    }
    struct vv_sim_inode *inode = from->now;
    uint64_t order = to_dir->disk->next_order++;
    adding->is_ordered = inode->is_dir;
    removing->is_ordered = inode->is_dir;
    add_part(adding, to, inode);
    add_part(removing, from, NULL);
    enter_change(adding, order);
    if (removing != adding) {
        adding->partner = removing;
        removing->partner = adding;
        enter_change(removing, order);
    }
    if (inode->is_dir)
        inode->parent = to_dir;
    return 0;
}

size_t vv_sim_dir_change_count(const struct vv_sim_inode *dir)
{
    size_t count = 0;
    vv_list_each (node, &dir->changes)
        count++;
    return count;
}

/* ---- durability ---- */

/* The change is over: durable, or, when not kept, lost. */
static void finish_change(struct change *change, bool is_durable)
{
    struct vv_sim_inode *dir = change->dir;
    struct vv_list unused;
    vv_list_init(&unused);
    struct vv_sim_entry *entries[2] = {change->parts[0].entry, change->parts[1].entry};
    unsigned count = change->part_count;
    for (unsigned i = 0; is_durable && i < count; i++)
        set_stable(entries[i], change->parts[i].inode);
    drop_change(change, &unused);
    for (unsigned i = 0; i < count; i++)
        free_if_unused(dir, entries[i]);
    free_unused(&unused);
}

static struct change *change_of(struct vv_list *node)
{
    return vv_list_entry(node, struct change, node);
}

/* Whether the change must not become durable before its partner. */
static bool needs_partner(const struct change *change)
{
    return change->partner && (!change->parts[0].inode || change->is_ordered);
}

/* Let the directory of `change` be synced at least that far. */
static bool sync_up_to(const struct change *change)
{
    if (change->dir->sync_to >= change->order)
        return false;
    change->dir->sync_to = change->order;
    return true;
}

static bool sync_partners_in(struct vv_sim_inode *dir)
{
    bool is_extended = false;
    vv_list_each (node, &dir->changes) {
        const struct change *change = change_of(node);
        if (needs_partner(change))
            is_extended |= sync_up_to(change->partner);
    }
    return is_extended;
}

static bool sync_ordered_before(struct vv_sim_disk *disk, uint64_t order)
{
    bool is_extended = false;
    vv_list_each (inode_node, &disk->inodes) {
        struct vv_sim_inode *dir = vv_list_entry(inode_node, struct vv_sim_inode, disk_node);
        vv_list_each (node, &dir->changes) {
            const struct change *change = change_of(node);
            if (change->is_ordered && change->order < order)
                is_extended |= sync_up_to(change);
        }
    }
    return is_extended;
}

/* Whatever a directory's sync needs of others. True when that has extended another's sync. */
static bool extend_sync(struct vv_sim_inode *dir)
{
    bool is_extended = false;
    vv_list_each (node, &dir->changes) {
        const struct change *change = change_of(node);
        if (change->order > dir->sync_to)
            break;
        if (needs_partner(change))
            is_extended |= sync_up_to(change->partner);
        if (change->removed)
            is_extended |= sync_partners_in(change->removed);
        if (change->is_ordered)
            is_extended |= sync_ordered_before(dir->disk, change->order);
    }
    return is_extended;
}

static void apply_sync(struct vv_sim_inode *dir)
{
    uint64_t sync_to = dir->sync_to;
    dir->sync_to = 0;
    vv_sim_inode_ref(dir);
    while (!vv_list_is_empty(&dir->changes)) {
        struct change *change = change_of(dir->changes.next);
        if (change->order > sync_to)
            break;
        finish_change(change, true);
    }
    vv_sim_inode_unref(dir);
}

/* A directory of the disk with a sync to do; NULL when there is none. */
static struct vv_sim_inode *next_to_sync(struct vv_sim_disk *disk)
{
    vv_list_each (node, &disk->inodes) {
        struct vv_sim_inode *inode = vv_list_entry(node, struct vv_sim_inode, disk_node);
        if (inode->sync_to > 0)
            return inode;
    }
    return NULL;
}

static void sync_with_others(struct vv_sim_disk *disk)
{
    bool is_extended;
    do {
        is_extended = false;
        vv_list_each (node, &disk->inodes) {
            struct vv_sim_inode *inode = vv_list_entry(node, struct vv_sim_inode, disk_node);
            if (inode->sync_to > 0)
                is_extended |= extend_sync(inode);
        }
    } while (is_extended);
    struct vv_sim_inode *dir;
    while ((dir = next_to_sync(disk)) != NULL)
        apply_sync(dir);
}

void vv_sim_dir_sync(struct vv_sim_inode *dir, size_t count)
{
    dir->sync_to = 0;
    vv_list_each (node, &dir->changes) {
        if (count-- == 0)
            break;
        dir->sync_to = change_of(node)->order;
    }
    if (extend_sync(dir))
        sync_with_others(dir->disk);
    else
        apply_sync(dir);
}

/* ---- power cut ---- */

/* Mark the changes of a directory that may be kept: all, none, or else some. */
static void choose_kept(struct vv_sim_inode *dir, bool is_reordering)
{
    size_t count = vv_sim_dir_change_count(dir);
    size_t prefix = vv_sim_random(count + 1);
    uint64_t choice = vv_sim_random(4);
    if (choice < 2)
        prefix = choice == 0 ? 0 : count;
    size_t index = 0;
    vv_list_each (node, &dir->changes) {
        struct change *change = change_of(node);
        change->is_kept = index++ < prefix;
        if (is_reordering && choice >= 2)
            change->is_kept = vv_sim_random(2) == 0;
    }
}

static bool is_partner_lost(const struct change *change)
{
    return needs_partner(change) && !change->partner->is_kept;
}

/* Whether something that was moved out of the directory that went would be nowhere. */
static bool is_content_lost(const struct change *change)
{
    if (!change->removed)
        return false;
    vv_list_each (node, &change->removed->changes) {
        if (is_partner_lost(change_of(node)))
            return true;
    }
    return false;
}

/* The first ordered change of the disk that is not kept. */
static uint64_t first_order_lost(const struct vv_sim_disk *disk)
{
    uint64_t first = UINT64_MAX;
    vv_list_each (inode_node, &disk->inodes) {
        struct vv_sim_inode *dir = vv_list_entry(inode_node, struct vv_sim_inode, disk_node);
        vv_list_each (node, &dir->changes) {
            const struct change *change = change_of(node);
            if (change->is_ordered && !change->is_kept && change->order < first)
                first = change->order;
        }
    }
    return first;
}

static bool has_same_name(const struct change *a, const struct change *b)
{
    for (unsigned i = 0; i < a->part_count; i++) {
        for (unsigned j = 0; j < b->part_count; j++) {
            if (a->parts[i].entry == b->parts[j].entry)
                return true;
        }
    }
    return false;
}

/* Whether an earlier move or removal of a directory, under a name that the change gives a new
 * meaning, is lost: the change would put that directory out of reach. */
static bool is_name_taken(const struct change *change)
{
    vv_list_each (node, &change->dir->changes) {
        const struct change *earlier = change_of(node);
        if (earlier == change)
            return false;
        if (earlier->is_ordered && !earlier->is_kept && has_same_name(earlier, change))
            return true;
    }
    return false;
}

/* Give up changes that can't be kept without others that are lost; true when there were any. */
static bool give_up_changes(struct vv_sim_inode *dir, bool is_reordering)
{
    uint64_t first_lost = first_order_lost(dir->disk);
    bool is_lost = false;
    bool is_any = false;
    vv_list_each (node, &dir->changes) {
        struct change *change = change_of(node);
        if (!change->is_kept) {
            is_lost = true;
            continue;
        }
        if ((is_lost && !is_reordering) || is_partner_lost(change) || is_content_lost(change) ||
            is_name_taken(change) || (change->is_ordered && change->order > first_lost)) {
            change->is_kept = false;
            is_lost = true;
            is_any = true;
        }
    }
    return is_any;
}

static void reconcile_changes(struct vv_sim_disk *disk, bool is_reordering)
{
    bool is_any;
    do {
        is_any = false;
        vv_list_each (node, &disk->inodes) {
            struct vv_sim_inode *dir = vv_list_entry(node, struct vv_sim_inode, disk_node);
            if (!vv_list_is_empty(&dir->changes))
                is_any |= give_up_changes(dir, is_reordering);
        }
    } while (is_any);
}

static void finish_changes(struct vv_sim_inode *dir)
{
    vv_list_each_safe (node, &dir->changes) {
        finish_change(change_of(node), change_of(node)->is_kept);
    }
}

static void forget_unsynced(struct vv_sim_inode *dir)
{
    vv_list_each_safe (node, &dir->entries) {
        struct vv_sim_entry *entry = vv_list_entry(node, struct vv_sim_entry, order_node);
        set_now(dir, entry, entry->stable);
        free_if_unused(dir, entry);
    }
}

/* A directory that went back to an older name of the same directory lost its parent on the way. */
static void adopt_children(struct vv_sim_inode *dir)
{
    vv_list_each (node, &dir->entries) {
        struct vv_sim_entry *entry = vv_list_entry(node, struct vv_sim_entry, order_node);
        if (entry->now->is_dir)
            entry->now->parent = dir;
    }
}

void vv_sim_dirs_power_cut(struct vv_sim_disk *disk, bool is_reordering)
{
    /* Held, so that no inode goes while the list of them is walked. */
    vv_list_each (hold_node, &disk->inodes) {
        struct vv_sim_inode *inode = vv_list_entry(hold_node, struct vv_sim_inode, disk_node);
        vv_sim_inode_ref(inode);
        choose_kept(inode, is_reordering);
    }
    reconcile_changes(disk, is_reordering);
    vv_list_each (change_node, &disk->inodes) {
        finish_changes(vv_list_entry(change_node, struct vv_sim_inode, disk_node));
    }
    vv_list_each (forget_node, &disk->inodes) {
        forget_unsynced(vv_list_entry(forget_node, struct vv_sim_inode, disk_node));
    }
    vv_list_each (adopt_node, &disk->inodes) {
        adopt_children(vv_list_entry(adopt_node, struct vv_sim_inode, disk_node));
    }
    vv_list_each_safe (node, &disk->inodes) {
        vv_sim_inode_unref(vv_list_entry(node, struct vv_sim_inode, disk_node));
    }
}
