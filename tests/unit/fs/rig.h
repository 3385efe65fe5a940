/* What the tests of fs share: a file system on a fake volume in a fiber, callers, short forms of
 * calls, and a check of all records against each other. */
#ifndef FS_RIG_H
#define FS_RIG_H

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_volume.h"
#include "fs/acl.h"
#include "fs/aside.h"
#include "fs/fs_impl.h"
#include "rt/sim.h"

#define UNUSED __attribute__((unused))
#define ROOT_DIR ((uint64_t)VV_ROOT_INODE)

static struct vv_volume *volume;
static struct vv_fs *fs;

static const uint32_t alice_groups[] = {2000, 2001};
static UNUSED const struct vv_fs_call root_call = {.cred = {.uid = 0, .gid = 0}, .door = 1};
static UNUSED const struct vv_fs_call alice_call = {
    .cred = {.uid = 1000, .gid = 1000, .groups = alice_groups, .group_count = 2}, .door = 1};
static UNUSED const struct vv_fs_call bob_call = {.cred = {.uid = 1001, .gid = 1001}, .door = 1};
/* bob, checked by the kernel */
static UNUSED const struct vv_fs_call kernel_call = {
    .cred = {.uid = 1001, .gid = 1001, .is_checked = true}, .door = 1};
#define ROOT (&root_call)
#define ALICE (&alice_call)
#define BOB (&bob_call)
#define KERNEL (&kernel_call)

/* ---- short forms ---- */

/* Inode numbers, or errors below 0. */
static UNUSED int64_t look(const struct vv_fs_call *call, uint64_t parent, const char *name)
{
    struct vv_attr attr;
    int err = vv_fs_lookup(fs, call, parent, name, strlen(name), &attr);
    return err < 0 ? err : (int64_t)attr.inode;
}

static UNUSED int64_t make_dir(const struct vv_fs_call *call, uint64_t parent, const char *name,
                               uint32_t mode)
{
    struct vv_attr attr;
    struct vv_create create = {.mode = mode};
    int err = vv_fs_mkdir(fs, call, parent, name, strlen(name), &create, &attr);
    return err < 0 ? err : (int64_t)attr.inode;
}

static UNUSED int64_t make_node(const struct vv_fs_call *call, uint64_t parent, const char *name,
                                uint32_t mode)
{
    struct vv_attr attr;
    struct vv_create create = {.mode = mode, .rdev_major = 7, .rdev_minor = 9};
    int err = vv_fs_mknod(fs, call, parent, name, strlen(name), &create, &attr);
    return err < 0 ? err : (int64_t)attr.inode;
}

static UNUSED int64_t make_link(const struct vv_fs_call *call, uint64_t parent, const char *name,
                                const char *target)
{
    struct vv_attr attr;
    int err = vv_fs_symlink(fs, call, parent, name, strlen(name), target, strlen(target), &attr);
    return err < 0 ? err : (int64_t)attr.inode;
}

static UNUSED int hard_link(const struct vv_fs_call *call, uint64_t inode, uint64_t parent,
                            const char *name)
{
    struct vv_attr attr;
    return vv_fs_link(fs, call, inode, parent, name, strlen(name), &attr);
}

static UNUSED int unlink_name(const struct vv_fs_call *call, uint64_t parent, const char *name)
{
    return vv_fs_unlink(fs, call, parent, name, strlen(name));
}

static UNUSED int remove_dir(const struct vv_fs_call *call, uint64_t parent, const char *name)
{
    return vv_fs_rmdir(fs, call, parent, name, strlen(name));
}

static UNUSED int rename_name(const struct vv_fs_call *call, uint64_t a, const char *from,
                              uint64_t b, const char *to, unsigned flags)
{
    return vv_fs_rename(fs, call, a, from, strlen(from), b, to, strlen(to), flags);
}

static UNUSED struct vv_attr attr_of(uint64_t inode)
{
    struct vv_attr attr = {0};
    int err = vv_fs_getattr(fs, inode, &attr);
    if (err < 0)
        attr.mode = 0;
    return attr;
}

static UNUSED int set_mode(const struct vv_fs_call *call, uint64_t inode, uint32_t mode)
{
    struct vv_attr set = {.mode = mode};
    return vv_fs_setattr(fs, call, inode, NULL, &set, VV_SET_MODE, &set);
}

static UNUSED int set_owner(const struct vv_fs_call *call, uint64_t inode, uint32_t uid,
                            uint32_t gid)
{
    struct vv_attr set = {.uid = uid, .gid = gid};
    uint32_t mask = (uid != UINT32_MAX ? VV_SET_UID : 0) | (gid != UINT32_MAX ? VV_SET_GID : 0);
    return vv_fs_setattr(fs, call, inode, NULL, &set, mask, &set);
}

static UNUSED int set_size(const struct vv_fs_call *call, uint64_t inode, uint64_t size)
{
    struct vv_attr set = {.size = size};
    return vv_fs_setattr(fs, call, inode, NULL, &set, VV_SET_SIZE, &set);
}

static UNUSED int set_flags(const struct vv_fs_call *call, uint64_t inode, uint32_t flags)
{
    return vv_fs_set_flags(fs, call, inode, flags);
}

static UNUSED ssize_t write_at(uint64_t inode, const void *bytes, size_t len, uint64_t offset)
{
    return vv_fs_write(fs, ROOT, inode, NULL, bytes, len, offset, 0);
}

static UNUSED ssize_t read_at(uint64_t inode, void *bytes, size_t len, uint64_t offset)
{
    return vv_fs_read(fs, ROOT, inode, NULL, bytes, len, offset);
}

static UNUSED struct vv_handle *open_of(const struct vv_fs_call *call, uint64_t inode, int flags)
{
    struct vv_handle *handle = NULL;
    return vv_fs_open_file(fs, call, inode, flags, &handle) < 0 ? NULL : handle;
}

static UNUSED bool has_record(uint64_t inode)
{
    struct vv_fs_key key;
    vv_key_inode(&key, inode);
    return fake_find(volume, vv_fs_key_bytes(&key)) != NULL;
}

static UNUSED bool is_orphan(uint64_t inode)
{
    struct vv_fs_key key;
    vv_key_orphan(&key, inode);
    return fake_find(volume, vv_fs_key_bytes(&key)) != NULL;
}

/* Let the reclaimer and other fibers work until they are idle. */
static UNUSED void settle(void)
{
    for (int i = 0; i < 2000; i++)
        vv_fiber_yield();
}

/* ---- all records agree ---- */

static unsigned fsck_fault_count;

static void fsck_fault(const char *what, uint64_t inode)
{
    if (fsck_fault_count++ < 10)
        tap_note("  fsck: %s (inode %llu)", what, (unsigned long long)inode);
}

static const struct fake_record *fsck_get(const struct vv_fs_key *key)
{
    return fake_find(volume, vv_fs_key_bytes(key));
}

static bool fsck_inode(uint64_t number, struct vv_inode *out)
{
    struct vv_fs_key key;
    vv_key_inode(&key, number);
    const struct fake_record *record = fsck_get(&key);
    return record &&
           vv_inode_decode((struct vv_bytes){record->value, record->value_len}, number, out) == 0;
}

/* How many records begin with the bytes of a key. */
static size_t fsck_count(const struct vv_fs_key *prefix, size_t *out_tail_bytes)
{
    size_t count = 0;
    *out_tail_bytes = 0;
    for (size_t i = fake_lower_bound(volume, vv_fs_key_bytes(prefix)); i < volume->record_count;
         i++) {
        const struct fake_record *record = &volume->records[i];
        if (record->key_len < prefix->len || memcmp(record->key, prefix->bytes, prefix->len) != 0)
            break;
        count++;
        *out_tail_bytes += record->key_len - prefix->len;
    }
    return count;
}

/* An entry has its twin by cookie, an inode of its type, and that inode knows of the link. */
static void fsck_entry(const struct fake_record *record)
{
    struct vv_entry entry;
    struct vv_entry twin;
    struct vv_bytes name;
    struct vv_inode child;
    struct vv_inode dir;
    struct vv_fs_key key;
    uint64_t parent = vv_load_be64(record->key + 1);
    if (vv_entry_decode((struct vv_bytes){record->value, record->value_len}, &entry) < 0)
        return fsck_fault("entry does not decode", parent);
    vv_key_cookie(&key, parent, entry.cookie);
    const struct fake_record *other = fsck_get(&key);
    if (!other ||
        vv_cookie_decode((struct vv_bytes){other->value, other->value_len}, &twin, &name) < 0 ||
        twin.inode != entry.inode || twin.type != entry.type || name.len != record->key_len - 9 ||
        memcmp(name.ptr, record->key + 9, name.len) != 0)
        fsck_fault("entry without its cookie record", parent);
    if (!fsck_inode(parent, &dir) || !S_ISDIR(dir.mode) || entry.cookie >= dir.next_cookie)
        fsck_fault("entry in no directory, or with a cookie of the future", parent);
    if (!fsck_inode(entry.inode, &child) || (child.mode & S_IFMT) != entry.type) {
        fsck_fault("entry without an inode of its type", parent);
        return;
    }
    vv_key_link(&key, entry.inode, parent, entry.cookie);
    bool is_first = child.parent == parent && child.cookie == entry.cookie;
    if (is_first == (fsck_get(&key) != NULL))
        fsck_fault("the inode does not know its link, or twice", entry.inode);
}

static size_t fsck_links_of(uint64_t number, size_t *out_subdirs)
{
    size_t links = 0;
    *out_subdirs = 0;
    for (size_t i = 0; i < volume->record_count; i++) {
        const struct fake_record *record = &volume->records[i];
        struct vv_entry entry;
        if (record->key[0] != 'D' ||
            vv_entry_decode((struct vv_bytes){record->value, record->value_len}, &entry) < 0)
            continue;
        links += entry.inode == number;
        *out_subdirs += vv_load_be64(record->key + 1) == number && S_ISDIR(entry.type);
    }
    return links;
}

static void fsck_parts(const struct vv_inode *inode)
{
    struct vv_parts parts;
    if (vv_parts_decode(inode->parts, &parts) < 0)
        return fsck_fault("parts do not decode", inode->inode);
    uint64_t offset = 0;
    for (size_t i = 0; i < parts.count; i++) {
        const struct fake_data *data = fake_data_find(volume, parts.at[i].data_id);
        if (i + 1 < parts.count && offset >= inode->size)
            fsck_fault("a part begins past the end", inode->inode);
        if (data && (data->is_dropped || data->inode != inode->inode))
            fsck_fault("data is dropped or another's", inode->inode);
        if (data && i + 1 == parts.count) {
            uint64_t end = parts.at[i].start + (inode->size - offset);
            for (size_t p = 0; p < data->page_count; p++) {
                for (uint64_t b = 0; b < FAKE_PAGE; b++) {
                    uint64_t at = data->pages[p]->index * FAKE_PAGE + b;
                    if (at >= end && data->pages[p]->bytes[b] != 0) {
                        fsck_fault("data past the end", inode->inode);
                        return;
                    }
                }
            }
        }
        offset += i + 1 < parts.count ? parts.at[i].length : 0;
    }
}

static void fsck_inode_record(const struct fake_record *record)
{
    struct vv_inode inode;
    struct vv_fs_key key;
    size_t subdirs;
    size_t tail_bytes;
    uint64_t number = vv_load_be64(record->key + 1);
    int err = vv_inode_decode((struct vv_bytes){record->value, record->value_len}, number, &inode);
    if (err < 0)
        return fsck_fault("inode does not decode", number);
    size_t links = fsck_links_of(number, &subdirs) + (number == VV_ROOT_INODE);
    if (S_ISDIR(inode.mode)) {
        vv_key_entry(&key, number, NULL, 0);
        if (fsck_count(&key, &tail_bytes) != inode.size)
            fsck_fault("directory with another number of entries", number);
        if (links > 0 ? inode.nlink != 2 + subdirs : inode.nlink != 0)
            fsck_fault("directory with another number of links", number);
    } else if (inode.nlink != links) {
        fsck_fault("file with another number of links", number);
    }
    if ((inode.nlink == 0) != is_orphan(number))
        fsck_fault("orphan without a record, or the reverse", number);
    vv_key_xattr(&key, number, NULL, 0);
    size_t xattr_count = fsck_count(&key, &tail_bytes);
    if (inode.nlink > 0 &&
        (xattr_count != inode.xattr_count || tail_bytes + xattr_count != inode.xattr_name_bytes))
        fsck_fault("another number of attributes", number);
    vv_key_xattr(&key, number, VV_ACL_ACCESS_NAME, strlen(VV_ACL_ACCESS_NAME));
    if ((fsck_get(&key) != NULL) != !!(inode.bits & VV_INODE_HAS_ACCESS_ACL))
        fsck_fault("access ACL bit", number);
    fsck_parts(&inode);
    uint64_t blocks = 0;
    vv_key_aside(&key, number);
    const struct fake_record *aside = fsck_get(&key);
    if (aside && vv_aside_check((struct vv_bytes){aside->value, aside->value_len}, &blocks) < 0)
        fsck_fault("what is set aside does not decode", number);
    if (blocks != inode.aside_blocks)
        fsck_fault("what is set aside", number);
}

/* A record that belongs to an inode has that inode. */
static void fsck_owner(const struct fake_record *record)
{
    struct vv_inode inode;
    const uint8_t *number = record->key + (record->key[0] == 'T' ? 2 : 1);
    if (!fsck_inode(vv_load_be64(number), &inode))
        fsck_fault("record without its inode", vv_load_be64(number));
}

static bool fsck_is_referenced(const struct fake_data *data)
{
    struct vv_inode inode;
    struct vv_parts parts;
    if (!fsck_inode(data->inode, &inode) || vv_parts_decode(inode.parts, &parts) < 0)
        return false;
    for (size_t i = 0; i < parts.count; i++) {
        if (parts.at[i].data_id == data->id)
            return true;
    }
    return false;
}

/* The number of faults. */
static UNUSED unsigned fsck(void)
{
    fsck_fault_count = 0;
    for (size_t i = 0; i < volume->record_count; i++) {
        const struct fake_record *record = &volume->records[i];
        if (record->key[0] == 'D')
            fsck_entry(record);
        else if (record->key[0] == 'I' && record->key_len == 9)
            fsck_inode_record(record);
        else if (record->key[0] != 'A')
            fsck_owner(record);
    }
    size_t entries = 0;
    for (size_t i = 0; i < volume->record_count; i++)
        entries += (volume->records[i].key[0] == 'D') - (volume->records[i].key[0] == 'C');
    if (entries != 0)
        fsck_fault("entries and cookies differ in number", 0);
    for (size_t i = 0; i < volume->data_count; i++) {
        if (!volume->data[i].is_dropped && !fsck_is_referenced(&volume->data[i]))
            fsck_fault("data that nobody has", volume->data[i].inode);
    }
    return fsck_fault_count;
}

/* ---- running ---- */

static void (*rig_test)(void);

static void rig_open(void)
{
    int err = vv_fs_open(volume, &fs);
    if (err < 0) {
        tap_ok(false, "open: %s", vv_err_text(err));
        exit(1);
    }
}

/* Close and open again, as after a clean end. */
static UNUSED void rig_reopen(void)
{
    vv_fs_close(fs);
    rig_open();
}

static void rig_fiber(void *arg)
{
    volume = fake_volume_new(1);
    volume->miss_permille = 300;
    rig_open();
    rig_test();
    vv_fs_close(fs);
    tap_is_int(fsck(), 0, "in the end all records agree");
    fake_volume_free(volume);
}

/* Runs `test` in a fiber; main's result. */
static int rig_main(void (*test)(void))
{
    const struct vv_sim_options options = {.seed = 1, .reorder_permille = 300};
    rig_test = test;
    vv_alloc_track(true);
    int err = vv_sim_run(&options, rig_fiber, NULL);
    tap_is_int(err, 0, "the runtime ends well");
    return tap_done();
}

#endif
