/* Inodes: attributes, extended attributes, space. nodeid is the inode. */
#include <string.h>
#include <sys/stat.h>

#include "front/fuse/fuse_impl.h"

static uint64_t node_of(const struct vv_fuse_request *request)
{
    return request->message.header.nodeid;
}

/* GETATTR: getattr_in (nothing that matters here). attr_out. */
int vv_fuse_getattr(struct vv_fuse_request *request)
{
    struct vv_attr attr;
    TRY(vv_fs_getattr(request->fuse->fs, node_of(request), &attr));
    return vv_fuse_reply_attr(request, &attr);
}

/* STATX: statx_in. statx_out: as attr_out, with the birth time. */
int vv_fuse_statx(struct vv_fuse_request *request)
{
    struct vv_attr attr;
    struct vv_fuse_statx_out out;
    TRY(vv_fs_getattr(request->fuse->fs, node_of(request), &attr));
    vv_fuse_encode_statx(&attr, &out);
    out.attr_valid = vv_fuse_attr_timeout_s(&attr, vv_fuse_timeout_s(request));
    vv_fuse_reply(request, &out, sizeof(out));
    return 0;
}

/* SETATTR: setattr_in. attr_out. */
int vv_fuse_setattr(struct vv_fuse_request *request)
{
    struct fuse_setattr_in in;
    struct vv_attr set, attr;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    uint32_t mask = vv_fuse_decode_setattr(&in, &set);
    struct vv_handle *handle = in.valid & FATTR_FH ? vv_fuse_handle_of(in.fh) : NULL;
    uint32_t *groups CLEANUP(vv_free_ptr) = NULL;
    /* Who may keep a setgid bit depends on the caller's groups. */
    if ((mask & VV_SET_MODE) && (set.mode & S_ISGID))
        vv_fuse_add_groups(request, &groups);
    TRY(vv_fs_setattr(request->fuse->fs, &request->call, node_of(request), handle, &set, mask,
                      &attr));
    return vv_fuse_reply_changed(request, &attr);
}

/* STATFS. statfs_out. */
int vv_fuse_statfs(struct vv_fuse_request *request)
{
    struct vv_statfs statfs;
    TRY(vv_fs_statfs(request->fuse->fs, &statfs));
    struct fuse_statfs_out out = {.st = {
                                      .blocks = statfs.blocks,
                                      .bfree = statfs.blocks_free,
                                      .bavail = statfs.blocks_free,
                                      .files = statfs.files,
                                      .ffree = statfs.files_free,
                                      .bsize = (uint32_t)statfs.block_bytes,
                                      .namelen = statfs.name_max,
                                      .frsize = (uint32_t)statfs.block_bytes,
                                  }};
    vv_fuse_reply(request, &out, sizeof(out));
    return 0;
}

/* ACCESS: access_in. The kernel checks by itself and does not send it; answered all the same. */
int vv_fuse_access(struct vv_fuse_request *request)
{
    struct fuse_access_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    vv_fuse_learn_caller(request);
    uint32_t *groups CLEANUP(vv_free_ptr);
    vv_fuse_add_groups(request, &groups);
    TRY(vv_fs_access(request->fuse->fs, &request->call, node_of(request), (int)in.mask));
    return vv_fuse_reply_ok(request);
}

/* ---- extended attributes ---- */

/* A name as fs wants it: it ends with NUL in the message. */
static int take_xattr_name(struct vv_fuse_request *request, const char **out_name)
{
    struct vv_bytes name = vv_fuse_take_name(&request->message.body);
    if (request->message.body.is_bad || name.len == 0 || name.len > VV_XATTR_NAME_MAX)
        return -ERANGE;
    *out_name = (const char *)name.ptr;
    return 0;
}

/* The reply to "how long is it". */
static int reply_xattr_len(struct vv_fuse_request *request, ssize_t len)
{
    struct fuse_getxattr_out out = {.size = (uint32_t)len};
    vv_fuse_reply(request, &out, sizeof(out));
    return 0;
}

/* GETXATTR: getxattr_in, name. The value, or (size 0) getxattr_out. */
int vv_fuse_getxattr(struct vv_fuse_request *request)
{
    struct fuse_getxattr_in in;
    const char *name;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    TRY(take_xattr_name(request, &name));
    size_t size = in.size < VV_XATTR_VALUE_MAX ? in.size : VV_XATTR_VALUE_MAX;
    uint8_t *value CLEANUP(vv_free_ptr) = vv_alloc(size);
    if (!value)
        return -ENOMEM;
    ssize_t len =
        vv_fs_getxattr(request->fuse->fs, &request->call, node_of(request), name, value, size);
    TRY(len);
    if (in.size == 0)
        return reply_xattr_len(request, len);
    vv_fuse_reply(request, value, (size_t)len);
    return 0;
}

/* SETXATTR: setxattr_in (its second half only if that was agreed on), name, value. */
int vv_fuse_setxattr(struct vv_fuse_request *request)
{
    struct fuse_setxattr_in in = {0};
    const char *name;
    bool is_ext = request->fuse->flags & FUSE_SETXATTR_EXT;
    if (!vv_fuse_take(request, &in, is_ext ? sizeof(in) : FUSE_COMPAT_SETXATTR_IN_SIZE))
        return -EINVAL;
    TRY(take_xattr_name(request, &name));
    struct vv_bytes value = vv_cursor_bytes(&request->message.body, in.size);
    if (request->message.body.is_bad)
        return -EINVAL;
    if (value.len > VV_XATTR_VALUE_MAX)
        return -E2BIG;
    /* An ACL sets the mode, and who is not in the file's group loses its setgid bit. A kernel that
     * does not say who that is leaves it to fs to find out. */
    uint32_t *groups CLEANUP(vv_free_ptr) = NULL;
    int flags = (int)in.flags;
    if (in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID)
        flags |= VV_XATTR_KILL_SGID;
    if (!is_ext && strcmp(name, "system.posix_acl_access") == 0) {
        vv_fuse_add_groups(request, &groups);
        request->call.cred.is_checked = false;
    }
    TRY(vv_fs_setxattr(request->fuse->fs, &request->call, node_of(request), name, value.ptr,
                       value.len, flags));
    return vv_fuse_reply_ok(request);
}

/* LISTXATTR: getxattr_in. The names, or (size 0) getxattr_out. */
int vv_fuse_listxattr(struct vv_fuse_request *request)
{
    struct fuse_getxattr_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    /* Others than root don't see the names of trusted.*. */
    vv_fuse_learn_caller(request);
    size_t size = in.size < VV_XATTR_LIST_MAX ? in.size : VV_XATTR_LIST_MAX;
    char *names CLEANUP(vv_free_ptr) = vv_alloc(size);
    if (!names)
        return -ENOMEM;
    ssize_t len = vv_fs_listxattr(request->fuse->fs, &request->call, node_of(request), names, size);
    TRY(len);
    if (in.size == 0)
        return reply_xattr_len(request, len);
    vv_fuse_reply(request, names, (size_t)len);
    return 0;
}

/* REMOVEXATTR: name. */
int vv_fuse_removexattr(struct vv_fuse_request *request)
{
    const char *name;
    TRY(take_xattr_name(request, &name));
    TRY(vv_fs_removexattr(request->fuse->fs, &request->call, node_of(request), name));
    return vv_fuse_reply_ok(request);
}
