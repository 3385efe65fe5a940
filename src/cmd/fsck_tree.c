/* The tree of files: one pass over all tables that are sorted by inode, side by side. */
#include "cmd/fsck_tree_impl.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "fs/aside.h"

#define NUMBER(x) ((unsigned long long)(x))
#define ACCESS_ACL "system.posix_acl_access"
#define DEFAULT_ACL "system.posix_acl_default"
#define CAPABILITY "security.capability"
#define REMEMBERED_DIRS_MIN 1024

enum table { INODES, XATTRS, LINKS, ORPHANS, NAMES, COOKIES, ASIDES, TABLES };

/* All records with one inode number. */
struct group {
    uint64_t number;
    struct vv_inode inode; /* its borrowed parts are not valid any more */
    bool is_there;         /* the inode record, decoded */
    bool is_unreadable;
    bool is_orphan;
    bool is_place_among_links;
    uint64_t links;
    uint64_t xattrs, xattr_name_bytes;
    uint8_t xattr_bits;
    uint64_t aside_blocks; /* as the record of what is set aside has them */
    uint64_t names, cookies, subdirectories;
    struct vv_fsck_sum name_sum, cookie_sum;
};

struct pass {
    struct vv_fsck_tree *tree;
    struct vv_fsck *fsck;
    struct vv_fsck_scan scans[TABLES];
    struct group group;
};

unsigned vv_fsck_bucket(const struct vv_fsck *fsck, uint64_t inode)
{
    return (unsigned)(vv_mix64(inode ^ fsck->seeds[0]) % VV_FSCK_BUCKETS);
}

/* The inode number of the record that a scan stands on; UINT64_MAX at the end. Keys too short for
 * one sort before all, and are reported as they come. */
static uint64_t number_at(const struct vv_fsck_scan *scan, enum table table)
{
    size_t skip = table == ORPHANS ? 2 : 1;
    if (scan->is_end)
        return UINT64_MAX;
    return scan->key.len >= skip + 8 ? vv_load_be64(scan->key.ptr + skip) : 0;
}

static void add_place(struct pass *pass, struct vv_fsck_sum *sums, uint64_t inode,
                      uint64_t directory, uint64_t cookie, uint32_t type)
{
    uint8_t bytes[28];
    vv_store_u64(bytes, inode);
    vv_store_u64(bytes + 8, directory);
    vv_store_u64(bytes + 16, cookie);
    vv_store_u32(bytes + 24, type & S_IFMT);
    vv_fsck_sum_add(pass->fsck, &sums[vv_fsck_bucket(pass->fsck, inode)], bytes, sizeof bytes);
}

static void add_entry(struct pass *pass, struct vv_fsck_sum *sum, const struct vv_entry *entry,
                      struct vv_bytes name)
{
    uint8_t bytes[20 + VV_NAME_MAX];
    vv_store_u64(bytes, entry->inode);
    vv_store_u64(bytes + 8, entry->cookie);
    vv_store_u32(bytes + 16, entry->type);
    memcpy(bytes + 20, name.ptr, name.len);
    vv_fsck_sum_add(pass->fsck, sum, bytes, 20 + name.len);
}

/* ---- one record each ---- */

static void take_inode(struct pass *pass, const struct vv_fsck_scan *scan)
{
    struct group *group = &pass->group;
    struct vv_fsck_report *report = pass->fsck->report;
    if (scan->key.len == 17)
        return; /* an allocation counter: fsck_data.c */
    if (scan->key.len != 9) {
        vv_fsck_add(report, VV_FSCK_RECORD_UNKNOWN, "a key of %zu bytes under inode %llu",
                    scan->key.len, NUMBER(group->number));
        return;
    }
    report->inodes++;
    if (group->number == 0 || group->number >= pass->fsck->counters.next_inode)
        vv_fsck_add(report, VV_FSCK_INODE_NUMBER, "inode %llu, but the next new one is %llu",
                    NUMBER(group->number), NUMBER(pass->fsck->counters.next_inode));
    int err = vv_inode_decode(scan->value, group->number, &group->inode);
    group->is_there = err == 0;
    group->is_unreadable = err < 0;
    if (err < 0)
        vv_fsck_add(report, VV_FSCK_INODE_FORMAT, "inode %llu: %s", NUMBER(group->number),
                    vv_err_text(err));
}

static bool is_name(struct vv_bytes name, const char *text)
{
    return name.len == strlen(text) && memcmp(name.ptr, text, name.len) == 0;
}

static void take_xattr(struct pass *pass, const struct vv_fsck_scan *scan)
{
    struct group *group = &pass->group;
    size_t head = scan->key.len < 9 ? scan->key.len : 9;
    struct vv_bytes name = {scan->key.ptr + head, scan->key.len - head};
    if (name.len == 0 || name.len > VV_XATTR_NAME_MAX || scan->value.len > VV_XATTR_VALUE_MAX ||
        memchr(name.ptr, 0, name.len) != NULL) {
        vv_fsck_add(pass->fsck->report, VV_FSCK_RECORD_UNKNOWN,
                    "an attribute of inode %llu has an impossible name or value",
                    NUMBER(group->number));
        return;
    }
    pass->fsck->report->xattrs++;
    group->xattrs++;
    group->xattr_name_bytes += name.len + 1;
    group->xattr_bits |= is_name(name, ACCESS_ACL) ? VV_INODE_HAS_ACCESS_ACL : 0;
    group->xattr_bits |= is_name(name, DEFAULT_ACL) ? VV_INODE_HAS_DEFAULT_ACL : 0;
    group->xattr_bits |= is_name(name, CAPABILITY) ? VV_INODE_HAS_CAPABILITY : 0;
}

static void take_link(struct pass *pass, const struct vv_fsck_scan *scan)
{
    struct group *group = &pass->group;
    if (scan->key.len != 25) {
        vv_fsck_add(pass->fsck->report, VV_FSCK_LINK_FORMAT,
                    "a link record of inode %llu has a key of %zu bytes", NUMBER(group->number),
                    scan->key.len);
        return;
    }
    uint64_t parent = vv_load_be64(scan->key.ptr + 9);
    uint64_t cookie = vv_load_be64(scan->key.ptr + 17);
    pass->fsck->report->links++;
    group->links++;
    if (group->is_there && parent == group->inode.parent && cookie == group->inode.cookie)
        group->is_place_among_links = true;
    if (group->is_there)
        add_place(pass, pass->tree->places, group->number, parent, cookie, group->inode.mode);
}

static void take_orphan(struct pass *pass, const struct vv_fsck_scan *scan)
{
    if (scan->key.len != 10)
        vv_fsck_add(pass->fsck->report, VV_FSCK_RECORD_UNKNOWN,
                    "an orphan record has a key of %zu bytes", scan->key.len);
    else
        pass->group.is_orphan = true;
}

static void take_name(struct pass *pass, const struct vv_fsck_scan *scan)
{
    struct group *group = &pass->group;
    struct vv_entry entry;
    size_t head = scan->key.len < 9 ? scan->key.len : 9;
    struct vv_bytes name = {scan->key.ptr + head, scan->key.len - head};
    bool is_good =
        name.len > 0 && name.len <= VV_NAME_MAX && memchr(name.ptr, 0, name.len) == NULL &&
        memchr(name.ptr, '/', name.len) == NULL && !is_name(name, ".") && !is_name(name, "..");
    pass->fsck->report->entries++;
    group->names++;
    if (is_good && vv_entry_decode(scan->value, &entry) == 0)
        add_entry(pass, &group->name_sum, &entry, name);
    else
        vv_fsck_add(pass->fsck->report, VV_FSCK_ENTRY_FORMAT, "\"%.*s\" in directory %llu",
                    (int)(name.len < 100 ? name.len : 100), (const char *)name.ptr,
                    NUMBER(group->number));
}

static void take_cookie(struct pass *pass, const struct vv_fsck_scan *scan)
{
    struct group *group = &pass->group;
    struct vv_entry entry;
    struct vv_bytes name;
    group->cookies++;
    if (scan->key.len != 17 || vv_cookie_decode(scan->value, &entry, &name) < 0) {
        vv_fsck_add(pass->fsck->report, VV_FSCK_ENTRY_FORMAT,
                    "a record by cookie in directory %llu", NUMBER(group->number));
        return;
    }
    entry.cookie = vv_load_be64(scan->key.ptr + 9);
    group->subdirectories += S_ISDIR(entry.type);
    add_entry(pass, &group->cookie_sum, &entry, name);
    add_place(pass, pass->tree->entries, entry.inode, group->number, entry.cookie, entry.type);
    if (group->is_there && S_ISDIR(group->inode.mode) &&
        (entry.cookie < VV_FIRST_COOKIE || entry.cookie >= group->inode.next_cookie))
        vv_fsck_add(pass->fsck->report, VV_FSCK_DIRECTORY_COOKIE,
                    "cookie %llu in directory %llu, whose next one is %llu", NUMBER(entry.cookie),
                    NUMBER(group->number), NUMBER(group->inode.next_cookie));
}

static void take_aside(struct pass *pass, const struct vv_fsck_scan *scan)
{
    struct group *group = &pass->group;
    int err = scan->key.len == 9 ? vv_aside_check(scan->value, &group->aside_blocks)
                                 : -VV_ERR_FORMAT;
    if (err < 0)
        vv_fsck_add(pass->fsck->report, VV_FSCK_ASIDE, "what is set aside of inode %llu: %s",
                    NUMBER(group->number), vv_err_text(err));
}

/* ---- a group ---- */

static void count_type(struct vv_fsck_report *report, const struct vv_inode *inode)
{
    if (S_ISREG(inode->mode)) {
        report->files++;
        report->file_bytes += inode->size;
    } else if (S_ISDIR(inode->mode)) {
        report->directories++;
    } else if (S_ISLNK(inode->mode)) {
        report->symlinks++;
    } else {
        report->others++;
    }
}

static void check_xattrs(struct pass *pass)
{
    const struct group *group = &pass->group;
    const struct vv_inode *inode = &group->inode;
    bool is_equal = group->xattrs == inode->xattr_count &&
                    group->xattr_name_bytes == inode->xattr_name_bytes &&
                    group->xattr_bits == inode->bits;
    /* Of an unlinked inode they are deleted in batches, without the counts. */
    if (inode->nlink == 0)
        is_equal = group->xattrs <= inode->xattr_count;
    if (!is_equal)
        vv_fsck_add(pass->fsck->report, VV_FSCK_XATTR_COUNT,
                    "inode %llu has %llu attributes with %llu bytes of names, its record says "
                    "%u with %u",
                    NUMBER(group->number), NUMBER(group->xattrs), NUMBER(group->xattr_name_bytes),
                    inode->xattr_count, inode->xattr_name_bytes);
}

static void check_directory(struct pass *pass)
{
    const struct group *group = &pass->group;
    const struct vv_inode *inode = &group->inode;
    struct vv_fsck_report *report = pass->fsck->report;
    bool is_root = group->number == VV_ROOT_INODE;
    uint64_t nlink = inode->nlink == 0 ? 0 : 2 + group->subdirectories;
    if (inode->size != group->cookies || inode->size != group->names)
        vv_fsck_add(report, VV_FSCK_DIRECTORY_SIZE,
                    "directory %llu has %llu entries, its record says %llu", NUMBER(group->number),
                    NUMBER(group->cookies), NUMBER(inode->size));
    if (inode->nlink != nlink || (is_root && nlink == 0))
        vv_fsck_add(report, VV_FSCK_INODE_LINKS,
                    "directory %llu has %llu links, its record says %u", NUMBER(group->number),
                    NUMBER(2 + group->subdirectories), inode->nlink);
    if (group->links > 0)
        vv_fsck_add(report, VV_FSCK_LINK_STRAY, "directory %llu has further links",
                    NUMBER(group->number));
    if (is_root ? inode->parent != VV_ROOT_INODE || inode->cookie != 0 : inode->cookie == 0)
        vv_fsck_add(report, VV_FSCK_INODE_PARENT, "directory %llu: parent %llu, cookie %llu",
                    NUMBER(group->number), NUMBER(inode->parent), NUMBER(inode->cookie));
}

static void check_file(struct pass *pass)
{
    const struct group *group = &pass->group;
    const struct vv_inode *inode = &group->inode;
    uint64_t nlink = group->links + (inode->parent != 0);
    if (nlink != inode->nlink)
        vv_fsck_add(pass->fsck->report, VV_FSCK_INODE_LINKS,
                    "inode %llu has %llu links, its record says %u", NUMBER(group->number),
                    NUMBER(nlink), inode->nlink);
    if (group->is_place_among_links)
        vv_fsck_add(pass->fsck->report, VV_FSCK_LINK_STRAY,
                    "inode %llu has one link in two records", NUMBER(group->number));
    if ((inode->parent == 0) != (inode->cookie == 0))
        vv_fsck_add(pass->fsck->report, VV_FSCK_INODE_PARENT,
                    "inode %llu: parent %llu, cookie %llu", NUMBER(group->number),
                    NUMBER(inode->parent), NUMBER(inode->cookie));
}

static int remember_dir(struct vv_fsck_tree *tree, const struct vv_inode *inode)
{
    if (tree->dir_count == tree->dir_capacity) {
        size_t capacity = tree->dir_capacity * 2;
        if (capacity < REMEMBERED_DIRS_MIN)
            capacity = REMEMBERED_DIRS_MIN;
        if (capacity > tree->dir_max)
            capacity = tree->dir_max;
        if (tree->dir_count >= capacity) {
            tree->has_too_many_dirs = true;
            return 0;
        }
        struct vv_fsck_dir *dirs = vv_realloc(tree->dirs, capacity * sizeof *dirs);
        if (dirs == NULL)
            return -ENOMEM;
        tree->dirs = dirs;
        tree->dir_capacity = capacity;
    }
    tree->dirs[tree->dir_count++] = (struct vv_fsck_dir){inode->inode, inode->parent};
    return 0;
}

/* Records of an inode number without an inode. */
static void check_strays(struct pass *pass)
{
    const struct group *group = &pass->group;
    struct vv_fsck_report *report = pass->fsck->report;
    if (group->is_unreadable)
        return;
    if (group->xattrs > 0)
        vv_fsck_add(report, VV_FSCK_XATTR_STRAY,
                    "%llu attributes of inode %llu, which is not there", NUMBER(group->xattrs),
                    NUMBER(group->number));
    if (group->links > 0)
        vv_fsck_add(report, VV_FSCK_LINK_STRAY, "%llu links of inode %llu, which is not there",
                    NUMBER(group->links), NUMBER(group->number));
    if (group->aside_blocks > 0)
        vv_fsck_add(report, VV_FSCK_ASIDE, "of inode %llu, which is not there",
                    NUMBER(group->number));
    if (group->is_orphan)
        vv_fsck_add(report, VV_FSCK_ORPHAN_STRAY, "of inode %llu, which is not there",
                    NUMBER(group->number));
}

static int check_group(struct pass *pass)
{
    const struct group *group = &pass->group;
    const struct vv_inode *inode = &group->inode;
    struct vv_fsck_report *report = pass->fsck->report;
    bool is_dir = group->is_there && S_ISDIR(inode->mode);
    if (group->names + group->cookies > 0 && !is_dir && !group->is_unreadable)
        vv_fsck_add(report, VV_FSCK_ENTRY_NOWHERE, "%llu entries in %llu, which is no directory",
                    NUMBER(group->names > group->cookies ? group->names : group->cookies),
                    NUMBER(group->number));
    if (memcmp(&group->name_sum, &group->cookie_sum, sizeof group->name_sum) != 0)
        TRY(vv_fsck_pairs(pass->fsck, group->number));
    if (!group->is_there) {
        check_strays(pass);
        return 0;
    }
    count_type(report, inode);
    check_xattrs(pass);
    if (group->aside_blocks != inode->aside_blocks)
        vv_fsck_add(report, VV_FSCK_ASIDE, "inode %llu: %llu blocks are set aside, its record says %llu",
                    NUMBER(group->number), NUMBER(group->aside_blocks),
                    NUMBER(inode->aside_blocks));
    if (is_dir)
        check_directory(pass);
    else
        check_file(pass);
    report->orphans += inode->nlink == 0;
    if (inode->nlink == 0 && !group->is_orphan)
        vv_fsck_add(report, VV_FSCK_ORPHAN_MISSING, "inode %llu has no links and no orphan record",
                    NUMBER(group->number));
    if (inode->nlink > 0 && group->is_orphan)
        vv_fsck_add(report, VV_FSCK_ORPHAN_STRAY, "of inode %llu, which has %u links",
                    NUMBER(group->number), inode->nlink);
    if (is_dir && inode->nlink > 0)
        TRY(remember_dir(pass->tree, inode));
    /* Where the record says that its own link is. */
    if (inode->nlink > 0 && inode->parent != 0 && group->number != VV_ROOT_INODE)
        add_place(pass, pass->tree->places, group->number, inode->parent, inode->cookie,
                  inode->mode);
    return 0;
}

static int take_group(struct pass *pass, uint64_t number)
{
    static void (*const take[TABLES])(struct pass *, const struct vv_fsck_scan *) = {
        take_inode, take_xattr, take_link, take_orphan, take_name, take_cookie, take_aside};
    memset(&pass->group, 0, sizeof pass->group);
    pass->group.number = number;
    /* The inode first: the others look at it. */
    for (unsigned i = 0; i < TABLES; i++) {
        while (!pass->scans[i].is_end && number_at(&pass->scans[i], (enum table)i) == number) {
            take[i](pass, &pass->scans[i]);
            TRY(vv_fsck_scan_next(&pass->scans[i]));
        }
    }
    return check_group(pass);
}

static int run_pass(struct pass *pass)
{
    static const char *const prefixes[TABLES] = {"I", "X", "L", "Ti", "D", "C", "P"};
    bool has_root = false;
    for (unsigned i = 0; i < TABLES; i++)
        TRY(vv_fsck_scan_prefix(pass->fsck, prefixes[i], &pass->scans[i]));
    for (;;) {
        uint64_t next = UINT64_MAX;
        bool is_end = true;
        for (unsigned i = 0; i < TABLES; i++) {
            uint64_t number = number_at(&pass->scans[i], (enum table)i);
            is_end &= pass->scans[i].is_end;
            next = number < next ? number : next;
        }
        if (is_end)
            break;
        TRY(take_group(pass, next));
        if (next == VV_ROOT_INODE)
            has_root = pass->group.is_unreadable ||
                       (pass->group.is_there && S_ISDIR(pass->group.inode.mode));
    }
    /* A volume that was never served has no root yet, and nothing else. */
    if (!has_root && pass->fsck->report->inodes > 0)
        vv_fsck_add(pass->fsck->report, VV_FSCK_ROOT_MISSING, "inode 1 is no directory");
    return 0;
}

static int check_tree(struct vv_fsck_tree *tree)
{
    struct pass *pass = vv_zalloc(sizeof *pass);
    if (pass == NULL)
        return -ENOMEM;
    pass->tree = tree;
    pass->fsck = tree->fsck;
    int err = run_pass(pass);
    for (unsigned i = 0; i < TABLES; i++)
        vv_fsck_scan_close(&pass->scans[i]);
    vv_free(pass);
    TRY(err);
    TRY(vv_fsck_places(tree));
    return vv_fsck_loops(tree);
}

int vv_fsck_tree(struct vv_fsck *fsck)
{
    struct vv_fsck_tree tree = {.fsck = fsck};
    vv_fsck_stage(fsck, "tree");
    tree.dir_max = (size_t)(fsck->memory_bytes / 2 / (sizeof(struct vv_fsck_dir) + 1));
    tree.entries = vv_calloc(VV_FSCK_BUCKETS, sizeof *tree.entries);
    tree.places = vv_calloc(VV_FSCK_BUCKETS, sizeof *tree.places);
    int err = tree.entries == NULL || tree.places == NULL ? -ENOMEM : 0;
    if (err == 0)
        err = check_tree(&tree);
    vv_free(tree.entries);
    vv_free(tree.places);
    vv_free(tree.dirs);
    return err;
}
