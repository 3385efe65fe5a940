/* What the pass over the tree found to differ, record by record; and directories that are not below
 * the root. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "cmd/fsck_tree_impl.h"

#define NUMBER(x) ((unsigned long long)(x))

/* ---- entries without twins ---- */

/* Each record of `table` ('D' or 'C') of a directory needs its twin in the other. */
static int check_twins(struct vv_fsck *fsck, uint64_t directory, bool is_by_name)
{
    struct vv_fs_key lower, upper, twin;
    struct vv_fsck_scan scan;
    if (is_by_name) {
        vv_key_entry(&lower, directory, NULL, 0);
        vv_key_entry(&upper, directory + 1, NULL, 0);
    } else {
        vv_key_cookie(&lower, directory, 0);
        vv_key_cookie(&upper, directory + 1, 0);
    }
    int err = vv_fsck_scan_open(fsck, vv_fs_key_bytes(&lower), vv_fs_key_bytes(&upper), &scan);
    for (; err == 0 && !scan.is_end; err = vv_fsck_scan_next(&scan)) {
        uint8_t value[VV_COOKIE_RECORD_MAX], wanted[VV_COOKIE_RECORD_MAX];
        struct vv_entry entry;
        struct vv_bytes name = {scan.key.ptr + 9, scan.key.len - 9};
        size_t wanted_len;
        if (is_by_name) {
            if (vv_entry_decode(scan.value, &entry) < 0 || name.len > VV_NAME_MAX)
                continue;
            vv_key_cookie(&twin, directory, entry.cookie);
            wanted_len = vv_cookie_encode(&entry, (const char *)name.ptr, name.len, wanted);
        } else {
            if (scan.key.len != 17 || vv_cookie_decode(scan.value, &entry, &name) < 0)
                continue;
            entry.cookie = vv_load_be64(scan.key.ptr + 9);
            vv_key_entry(&twin, directory, (const char *)name.ptr, name.len);
            wanted_len = vv_entry_encode(&entry, wanted);
        }
        int got = vv_fsck_get(fsck, vv_fs_key_bytes(&twin), value, sizeof value);
        if (got < 0 && !vv_fsck_is_damage(got)) {
            err = got;
            break;
        }
        if (got != (int)wanted_len || memcmp(value, wanted, wanted_len) != 0)
            vv_fsck_add(fsck->report, VV_FSCK_ENTRY_PAIR,
                        "\"%.*s\" in directory %llu, inode %llu, cookie %llu: the record by %s %s",
                        (int)(name.len < 80 ? name.len : 80), (const char *)name.ptr,
                        NUMBER(directory), NUMBER(entry.inode), NUMBER(entry.cookie),
                        is_by_name ? "cookie" : "name", got == -ENOENT ? "is missing" : "differs");
    }
    vv_fsck_scan_close(&scan);
    return err;
}

int vv_fsck_pairs(struct vv_fsck *fsck, uint64_t directory)
{
    TRY(check_twins(fsck, directory, true));
    return check_twins(fsck, directory, false);
}

/* ---- places ---- */

static bool is_bad_bucket(const struct vv_fsck_tree *tree, uint64_t inode)
{
    unsigned bucket = vv_fsck_bucket(tree->fsck, inode);
    return memcmp(&tree->entries[bucket], &tree->places[bucket], sizeof tree->places[0]) != 0;
}

/* Does the inode know of a link at this entry? */
static int check_entry(struct vv_fsck_tree *tree, uint64_t directory, const struct vv_entry *entry,
                       struct vv_bytes name)
{
    struct vv_fsck *fsck = tree->fsck;
    struct vv_fs_key key;
    struct vv_inode inode;
    uint8_t value[VV_INODE_RECORD_MAX];
    enum vv_fsck_kind kind = VV_FSCK_KINDS;
    vv_key_inode(&key, entry->inode);
    int got = vv_fsck_get(fsck, vv_fs_key_bytes(&key), value, sizeof value);
    if (got < 0 && !vv_fsck_is_damage(got))
        return got;
    if (got < 0) {
        kind = VV_FSCK_ENTRY_DANGLING;
    } else if (vv_inode_decode((struct vv_bytes){value, (size_t)got}, entry->inode, &inode) < 0) {
        return 0; /* was reported */
    } else if ((inode.mode & S_IFMT) != entry->type) {
        kind = VV_FSCK_ENTRY_TYPE;
    } else if (inode.nlink == 0 || inode.parent != directory || inode.cookie != entry->cookie) {
        vv_key_link(&key, entry->inode, directory, entry->cookie);
        got = vv_fsck_get(fsck, vv_fs_key_bytes(&key), value, sizeof value);
        if (got < 0 && !vv_fsck_is_damage(got))
            return got;
        kind = got < 0 || inode.nlink == 0 ? VV_FSCK_ENTRY_PLACE : VV_FSCK_KINDS;
    }
    if (kind != VV_FSCK_KINDS)
        vv_fsck_add(fsck->report, kind, "\"%.*s\" in directory %llu, cookie %llu: inode %llu",
                    (int)(name.len < 100 ? name.len : 100), (const char *)name.ptr,
                    NUMBER(directory), NUMBER(entry->cookie), NUMBER(entry->inode));
    return 0;
}

static int check_entries(struct vv_fsck_tree *tree)
{
    struct vv_fsck_scan scan;
    int err = vv_fsck_scan_prefix(tree->fsck, "C", &scan);
    for (; err == 0 && !scan.is_end; err = vv_fsck_scan_next(&scan)) {
        struct vv_entry entry;
        struct vv_bytes name;
        if (scan.key.len != 17 || vv_cookie_decode(scan.value, &entry, &name) < 0)
            continue;
        entry.cookie = vv_load_be64(scan.key.ptr + 9);
        if (is_bad_bucket(tree, entry.inode))
            err = check_entry(tree, vv_load_be64(scan.key.ptr + 1), &entry, name);
        if (err < 0)
            break;
    }
    vv_fsck_scan_close(&scan);
    return err;
}

/* Is there an entry where the inode says that it has a link? */
static int check_place(struct vv_fsck_tree *tree, uint64_t number, uint64_t parent, uint64_t cookie)
{
    struct vv_fs_key key;
    struct vv_entry entry;
    struct vv_bytes name;
    uint8_t value[VV_COOKIE_RECORD_MAX];
    vv_key_cookie(&key, parent, cookie);
    int got = vv_fsck_get(tree->fsck, vv_fs_key_bytes(&key), value, sizeof value);
    if (got < 0 && !vv_fsck_is_damage(got))
        return got;
    if (got < 0 || vv_cookie_decode((struct vv_bytes){value, (size_t)got}, &entry, &name) < 0 ||
        entry.inode != number)
        vv_fsck_add(tree->fsck->report, VV_FSCK_INODE_LOST,
                    "inode %llu has no entry in directory %llu, cookie %llu", NUMBER(number),
                    NUMBER(parent), NUMBER(cookie));
    return 0;
}

static int check_inodes(struct vv_fsck_tree *tree)
{
    struct vv_fsck_scan scan;
    int err = vv_fsck_scan_prefix(tree->fsck, "I", &scan);
    for (; err == 0 && !scan.is_end; err = vv_fsck_scan_next(&scan)) {
        struct vv_inode inode;
        if (scan.key.len != 9)
            continue;
        uint64_t number = vv_load_be64(scan.key.ptr + 1);
        if (number != VV_ROOT_INODE && is_bad_bucket(tree, number) &&
            vv_inode_decode(scan.value, number, &inode) == 0 && inode.nlink > 0 &&
            inode.parent != 0)
            err = check_place(tree, number, inode.parent, inode.cookie);
        if (err < 0)
            break;
    }
    vv_fsck_scan_close(&scan);
    return err;
}

static int check_links(struct vv_fsck_tree *tree)
{
    struct vv_fsck_scan scan;
    int err = vv_fsck_scan_prefix(tree->fsck, "L", &scan);
    for (; err == 0 && !scan.is_end; err = vv_fsck_scan_next(&scan)) {
        if (scan.key.len != 25)
            continue;
        uint64_t number = vv_load_be64(scan.key.ptr + 1);
        if (is_bad_bucket(tree, number))
            err = check_place(tree, number, vv_load_be64(scan.key.ptr + 9),
                              vv_load_be64(scan.key.ptr + 17));
        if (err < 0)
            break;
    }
    vv_fsck_scan_close(&scan);
    return err;
}

int vv_fsck_places(struct vv_fsck_tree *tree)
{
    if (memcmp(tree->entries, tree->places, VV_FSCK_BUCKETS * sizeof *tree->places) == 0)
        return 0;
    vv_fsck_stage(tree->fsck, "differences");
    TRY(check_entries(tree));
    TRY(check_inodes(tree));
    return check_links(tree);
}

/* ---- loops ---- */

enum { UNKNOWN, ON_THE_WAY, FINE, BAD };

static size_t find_dir(const struct vv_fsck_tree *tree, uint64_t inode)
{
    size_t low = 0;
    size_t high = tree->dir_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tree->dirs[middle].inode < inode)
            low = middle + 1;
        else
            high = middle;
    }
    return low < tree->dir_count && tree->dirs[low].inode == inode ? low : SIZE_MAX;
}

/* Climb from a directory to the root or to one whose fate is known; then all on the way share it.
 */
static void climb(struct vv_fsck_tree *tree, uint8_t *states, size_t start)
{
    size_t at = start;
    while (at != SIZE_MAX && states[at] == UNKNOWN) {
        states[at] = ON_THE_WAY;
        at = find_dir(tree, tree->dirs[at].parent);
    }
    bool is_loop = at != SIZE_MAX && states[at] == ON_THE_WAY;
    uint8_t fate = at != SIZE_MAX && states[at] == FINE ? FINE : BAD;
    if (is_loop)
        vv_fsck_add(tree->fsck->report, VV_FSCK_DIRECTORY_LOOP, "directory %llu lies below itself",
                    NUMBER(tree->dirs[at].inode));
    for (at = start; at != SIZE_MAX && states[at] == ON_THE_WAY;
         at = find_dir(tree, tree->dirs[at].parent))
        states[at] = fate;
    if (fate == BAD && !is_loop)
        vv_fsck_add(tree->fsck->report, VV_FSCK_DIRECTORY_LOOP,
                    "directory %llu cannot be reached from the root",
                    NUMBER(tree->dirs[start].inode));
}

int vv_fsck_loops(struct vv_fsck_tree *tree)
{
    if (tree->has_too_many_dirs) {
        vv_fsck_incomplete(tree->fsck, "loops of directories (they need more --memory)");
        return 0;
    }
    uint8_t *states = vv_zalloc(tree->dir_count + 1);
    if (states == NULL)
        return -ENOMEM;
    size_t root = find_dir(tree, VV_ROOT_INODE);
    if (root != SIZE_MAX)
        states[root] = FINE;
    for (size_t i = 0; i < tree->dir_count; i++) {
        if (states[i] == UNKNOWN)
            climb(tree, states, i);
        vv_fsck_step(tree->fsck, 1);
    }
    vv_free(states);
    return 0;
}
