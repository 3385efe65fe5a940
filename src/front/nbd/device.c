#include "front/nbd/device.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int check_name(struct vv_bytes name)
{
    if (name.len == 0 || memchr(name.ptr, '/', name.len) || memchr(name.ptr, 0, name.len) ||
        (name.len <= 2 && memcmp(name.ptr, "..", name.len) == 0))
        return -EINVAL;
    return name.len > VV_NAME_MAX ? -ENAMETOOLONG : 0;
}

static int find_directory(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t *out_inode)
{
    struct vv_attr attr;
    TRY(vv_fs_lookup(fs, call, VV_ROOT_INODE, VV_NBD_DIRECTORY, strlen(VV_NBD_DIRECTORY), &attr));
    if (!S_ISDIR(attr.mode))
        return -ENOTDIR;
    *out_inode = attr.inode;
    return 0;
}

static int make_directory(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t *out_inode)
{
    struct vv_attr attr;
    struct vv_create create = {.mode = S_IFDIR | 0700};
    int err = find_directory(fs, call, out_inode);
    if (err != -ENOENT)
        return err;
    err = vv_fs_mkdir(fs, call, VV_ROOT_INODE, VV_NBD_DIRECTORY, strlen(VV_NBD_DIRECTORY), &create,
                      &attr);
    return err < 0 && err != -EEXIST ? err : find_directory(fs, call, out_inode);
}

static int find(struct vv_fs *fs, const struct vv_fs_call *call, struct vv_bytes name,
                uint64_t *out_directory, struct vv_attr *out_attr)
{
    TRY(check_name(name));
    TRY(find_directory(fs, call, out_directory));
    struct vv_attr attr;
    TRY(vv_fs_lookup(fs, call, *out_directory, (const char *)name.ptr, name.len, &attr));
    if (!S_ISREG(attr.mode))
        return -EINVAL;
    *out_attr = attr;
    return 0;
}

int vv_nbd_device_find(struct vv_fs *fs, unsigned door, struct vv_bytes name,
                       struct vv_attr *out_attr)
{
    struct vv_fs_call call = {.door = door};
    uint64_t directory;
    return find(fs, &call, name, &directory, out_attr);
}

/* A file without a name gets its size, then its name: nobody ever sees half a device. */
static int create(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t directory,
                  struct vv_bytes name, uint64_t size)
{
    struct vv_create file = {.mode = S_IFREG | 0600};
    struct vv_attr attr;
    struct vv_attr set = {.size = size};
    struct vv_handle *handle;
    TRY(vv_fs_tmpfile(fs, call, directory, &file, O_RDWR, &attr, &handle));
    int err = vv_fs_setattr(fs, call, attr.inode, handle, &set, VV_SET_SIZE, &attr);
    if (err == 0)
        err = vv_fs_link(fs, call, attr.inode, directory, (const char *)name.ptr, name.len, &attr);
    if (err == 0)
        err = vv_fs_sync(fs, attr.inode);
    vv_fs_release(handle);
    return err;
}

int vv_nbd_device_create(struct vv_fs *fs, unsigned door, struct vv_bytes name, uint64_t size)
{
    struct vv_fs_call call = {.door = door};
    uint64_t directory;
    TRY(check_name(name));
    if (size > VV_FILE_BYTES_MAX)
        return -EFBIG;
    TRY(make_directory(fs, &call, &directory));
    return create(fs, &call, directory, name, size);
}

int vv_nbd_device_resize(struct vv_fs *fs, unsigned door, struct vv_bytes name, uint64_t size)
{
    struct vv_fs_call call = {.door = door};
    struct vv_attr attr;
    struct vv_attr set = {.size = size};
    TRY(vv_nbd_device_find(fs, door, name, &attr));
    TRY(vv_fs_setattr(fs, &call, attr.inode, NULL, &set, VV_SET_SIZE, &attr));
    return vv_fs_sync(fs, attr.inode);
}

int vv_nbd_device_remove(struct vv_fs *fs, unsigned door, struct vv_bytes name)
{
    struct vv_fs_call call = {.door = door};
    uint64_t directory;
    struct vv_attr attr;
    TRY(find(fs, &call, name, &directory, &attr));
    TRY(vv_fs_unlink(fs, &call, directory, (const char *)name.ptr, name.len));
    return vv_fs_sync(fs, 0);
}

struct list {
    struct vv_dirent *entries;
    unsigned count, capacity;
    uint64_t after;
    bool is_cut; /* there was no room for all */
};

static int visit(void *arg, const struct vv_dirent *entry)
{
    struct list *list = arg;
    if (list->count == list->capacity) {
        list->is_cut = true;
        return 0;
    }
    if (S_ISREG(entry->type))
        list->entries[list->count++] = *entry;
    list->after = entry->cookie;
    return 1;
}

int vv_nbd_device_list(struct vv_fs *fs, unsigned door, uint64_t *after,
                       struct vv_dirent *out_entries, unsigned count)
{
    struct vv_fs_call call = {.door = door};
    struct list list = {.entries = out_entries, .capacity = count};
    uint64_t directory;
    int err = find_directory(fs, &call, &directory);
    if (err == 0)
        err = vv_fs_readdir(fs, directory, *after, visit, &list);
    if (err < 0 && err != -ENOENT)
        return err;
    *after = list.is_cut ? list.after : 0;
    return (int)list.count;
}
