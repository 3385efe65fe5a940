/* Names: lookup, forget, and everything that makes, links, moves or removes entries.
 *
 * nodeid is the directory, unless said otherwise. With DONT_MASK the umask comes with the request,
 * and a default ACL may replace it. Each reply with an entry is one reference of the kernel to the
 * inode, which FORGET gives back. */
#include <fcntl.h>
#include <sys/stat.h>

#include "front/fuse/fuse_impl.h"

static uint64_t node_of(const struct vv_fuse_request *request)
{
    return request->message.header.nodeid;
}

/* LOOKUP of ".": comes from open_by_handle_at and the NFS server, for an inode, of any type, that
 * the kernel has only a handle of. One that is gone is ESTALE. Of "/": the kernel asks whether the entry that it made then,
 * which hangs nowhere and is named so, is still right; overlayfs asks for each file that was copied up, and takes a no for ESTALE. */
static int lookup_self(struct vv_fuse_request *request)
{
    struct vv_attr attr;
    TRY(vv_fs_getattr(request->fuse->fs, node_of(request), &attr));
    return vv_fuse_reply_entry(request, &attr);
}

/* LOOKUP: name. entry_out; nodeid 0 says that there is none, and may be kept. ".." comes as "."
 * does, for directories. */
int vv_fuse_lookup(struct vv_fuse_request *request)
{
    struct vv_fuse *fuse = request->fuse;
    struct vv_bytes name;
    struct vv_attr attr;
    TRY(vv_fuse_take_entry(request, &name));
    fuse->stats.lookups++;
    if (name.len == 1 && (name.ptr[0] == '.' || name.ptr[0] == '/'))
        return lookup_self(request);
    int err = vv_fs_lookup(fuse->fs, &request->call, node_of(request), (const char *)name.ptr,
                           name.len, &attr);
    if (err == 0)
        return vv_fuse_reply_entry(request, &attr);
    uint64_t timeout_s = err == -ENOENT ? vv_fuse_timeout_s(request) : 0;
    if (timeout_s == 0)
        return err;
    struct fuse_entry_out none = {.entry_valid = timeout_s};
    vv_fuse_reply(request, &none, sizeof(none));
    return 0;
}

/* FORGET: forget_in. No reply. */
int vv_fuse_forget(struct vv_fuse_request *request)
{
    struct fuse_forget_in in;
    if (vv_fuse_take(request, &in, sizeof(in)))
        vv_fuse_forget_inode(request->fuse, node_of(request), in.nlookup);
    return 0;
}

/* BATCH_FORGET: batch_forget_in, forget_one * count. No reply. */
int vv_fuse_batch_forget(struct vv_fuse_request *request)
{
    struct fuse_batch_forget_in in;
    struct fuse_forget_one one;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return 0;
    for (uint32_t i = 0; i < in.count && vv_fuse_take(request, &one, sizeof(one)); i++)
        vv_fuse_forget_inode(request->fuse, one.nodeid, one.nlookup);
    return 0;
}

/* READLINK of nodeid. The target. */
int vv_fuse_readlink(struct vv_fuse_request *request)
{
    char target[VV_SYMLINK_MAX + 1];
    ssize_t len =
        vv_fs_readlink(request->fuse->fs, &request->call, node_of(request), target, sizeof(target));
    TRY(len);
    vv_fuse_reply(request, target, (size_t)len);
    return 0;
}

/* SYMLINK: name, target. entry_out. */
int vv_fuse_symlink(struct vv_fuse_request *request)
{
    struct vv_bytes name;
    struct vv_attr attr;
    TRY(vv_fuse_take_entry(request, &name));
    struct vv_bytes target = vv_fuse_take_name(&request->message.body);
    if (request->message.body.is_bad || target.len == 0)
        return -EINVAL;
    if (target.len > VV_SYMLINK_MAX)
        return -ENAMETOOLONG;
    TRY(vv_fs_symlink(request->fuse->fs, &request->call, node_of(request), (const char *)name.ptr,
                      name.len, (const char *)target.ptr, target.len, &attr));
    return vv_fuse_reply_entry(request, &attr);
}

/* A setgid file keeps the bit only if its maker is in the group that it gets. The kernel has looked
 * already, but fs looks again, so it has to know the groups. */
static void add_groups_for(struct vv_fuse_request *request, uint32_t mode, uint32_t **out_groups)
{
    *out_groups = NULL;
    if ((mode & S_ISGID) || request->message.group_count > 0)
        vv_fuse_add_groups(request, out_groups);
}

/* MKNOD: mknod_in, name. entry_out. */
int vv_fuse_mknod(struct vv_fuse_request *request)
{
    struct fuse_mknod_in in;
    struct vv_bytes name;
    struct vv_attr attr;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    TRY(vv_fuse_take_entry(request, &name));
    struct vv_create create = {.mode = in.mode, .umask = in.umask};
    if ((create.mode & S_IFMT) == 0)
        create.mode |= S_IFREG;
    vv_fuse_decode_rdev(in.rdev, &create.rdev_major, &create.rdev_minor);
    uint32_t *groups CLEANUP(vv_free_ptr);
    add_groups_for(request, in.mode, &groups);
    TRY(vv_fs_mknod(request->fuse->fs, &request->call, node_of(request), (const char *)name.ptr,
                    name.len, &create, &attr));
    return vv_fuse_reply_entry(request, &attr);
}

/* MKDIR: mkdir_in, name. entry_out. */
int vv_fuse_mkdir(struct vv_fuse_request *request)
{
    struct fuse_mkdir_in in;
    struct vv_bytes name;
    struct vv_attr attr;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    TRY(vv_fuse_take_entry(request, &name));
    struct vv_create create = {.mode = (in.mode & ~(uint32_t)S_IFMT) | S_IFDIR, .umask = in.umask};
    uint32_t *groups CLEANUP(vv_free_ptr);
    add_groups_for(request, 0, &groups);
    TRY(vv_fs_mkdir(request->fuse->fs, &request->call, node_of(request), (const char *)name.ptr,
                    name.len, &create, &attr));
    return vv_fuse_reply_entry(request, &attr);
}

/* UNLINK: name. */
int vv_fuse_unlink(struct vv_fuse_request *request)
{
    struct vv_bytes name;
    TRY(vv_fuse_take_entry(request, &name));
    TRY(vv_fs_unlink(request->fuse->fs, &request->call, node_of(request), (const char *)name.ptr,
                     name.len));
    return vv_fuse_reply_ok(request);
}

/* RMDIR: name. */
int vv_fuse_rmdir(struct vv_fuse_request *request)
{
    struct vv_bytes name;
    struct vv_fuse_removed *removed;
    TRY(vv_fuse_take_entry(request, &name));
    TRY(vv_fuse_removed_new(request, &removed));
    int err = vv_fs_rmdir(request->fuse->fs, &request->call, node_of(request), (const char *)name.ptr,
                          name.len);
    vv_fuse_removed_keep(request, removed);
    return err < 0 ? err : vv_fuse_reply_ok(request);
}

static int rename_to(struct vv_fuse_request *request, uint64_t to_parent, uint32_t flags)
{
    struct vv_bytes from, to;
    struct vv_fuse_removed *removed;
    TRY(vv_fuse_take_entry(request, &from));
    TRY(vv_fuse_take_entry(request, &to));
    TRY(vv_fuse_removed_new(request, &removed));
    int err = vv_fs_rename(request->fuse->fs, &request->call, node_of(request), (const char *)from.ptr,
                           from.len, to_parent, (const char *)to.ptr, to.len, flags);
    vv_fuse_removed_keep(request, removed);
    return err < 0 ? err : vv_fuse_reply_ok(request);
}

/* RENAME: rename_in, name, new name. */
int vv_fuse_rename(struct vv_fuse_request *request)
{
    struct fuse_rename_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    return rename_to(request, in.newdir, 0);
}

/* RENAME2: rename2_in, name, new name. */
int vv_fuse_rename2(struct vv_fuse_request *request)
{
    struct fuse_rename2_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    return rename_to(request, in.newdir, in.flags);
}

/* LINK: link_in (the inode), name. entry_out. */
int vv_fuse_link(struct vv_fuse_request *request)
{
    struct fuse_link_in in;
    struct vv_bytes name;
    struct vv_attr attr;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    TRY(vv_fuse_take_entry(request, &name));
    TRY(vv_fs_link(request->fuse->fs, &request->call, in.oldnodeid, node_of(request),
                   (const char *)name.ptr, name.len, &attr));
    return vv_fuse_reply_entry(request, &attr);
}

/* CREATE: create_in, name. entry_out, open_out. */
int vv_fuse_create(struct vv_fuse_request *request)
{
    struct fuse_create_in in;
    struct vv_bytes name;
    struct vv_attr attr;
    struct vv_fuse_open *open;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    TRY(vv_fuse_take_entry(request, &name));
    struct vv_create create = {.mode = (in.mode & ~(uint32_t)S_IFMT) | S_IFREG, .umask = in.umask};
    uint32_t *groups CLEANUP(vv_free_ptr);
    add_groups_for(request, in.mode, &groups);
    TRY(vv_fuse_open_new(request->fuse, &open));
    int err = vv_fs_create(request->fuse->fs, &request->call, node_of(request), (const char *)name.ptr, name.len,
                           &create, (int)in.flags, &attr, &open->handle);
    if (err < 0) {
        vv_fuse_open_free(open);
        return err;
    }
    return vv_fuse_reply_create(request, &attr, open);
}

/* TMPFILE: create_in, a name that means nothing. entry_out, open_out. */
int vv_fuse_tmpfile(struct vv_fuse_request *request)
{
    struct fuse_create_in in;
    struct vv_attr attr;
    struct vv_fuse_open *open;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    struct vv_create create = {.mode = (in.mode & ~(uint32_t)S_IFMT) | S_IFREG, .umask = in.umask};
    uint32_t *groups CLEANUP(vv_free_ptr);
    add_groups_for(request, in.mode, &groups);
    TRY(vv_fuse_open_new(request->fuse, &open));
    int err = vv_fs_tmpfile(request->fuse->fs, &request->call, node_of(request), &create, (int)in.flags, &attr,
                            &open->handle);
    if (err < 0) {
        vv_fuse_open_free(open);
        return err;
    }
    return vv_fuse_reply_create(request, &attr, open);
}
