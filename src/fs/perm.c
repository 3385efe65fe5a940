/* Who may do what: the rules of Linux's fs/namei.c (inode_permission, may_create, may_delete) and
 * fs/attr.c (setattr_prepare), with uid 0 holding all capabilities. */
#include <linux/fs.h>

#include "fs/acl.h"
#include "fs/fs_impl.h"

bool vv_cred_is_root(const struct vv_cred *cred)
{
    return cred->uid == 0;
}

bool vv_cred_is_owner(const struct vv_cred *cred, const struct vv_inode *inode)
{
    return cred->is_checked || cred->uid == 0 || cred->uid == inode->uid;
}

bool vv_cred_is_killing_ids(const struct vv_cred *cred, bool is_told)
{
    return is_told || (!cred->is_checked && cred->uid != 0);
}

bool vv_cred_may_setgid(const struct vv_cred *cred, uint32_t gid)
{
    return cred->is_checked || cred->uid == 0 || vv_cred_is_member(cred, gid);
}

/* The ACL speaks when there is one, except to the owner, and when the mask leaves nothing. */
static int check_bits(struct vv_op *op, const struct vv_cred *cred, const struct vv_inode *inode,
                      uint32_t want)
{
    uint32_t bits = inode->mode;
    if (cred->uid == inode->uid) {
        bits >>= 6;
    } else if ((inode->bits & VV_INODE_HAS_ACCESS_ACL) && (inode->mode & S_IRWXG)) {
        struct vv_bytes acl = {NULL, 0};
        TRY(vv_xattr_load(op, inode->inode, VV_ACL_ACCESS_NAME, &acl));
        if (vv_acl_check(acl) != 0)
            return -VV_ERR_FORMAT;
        return vv_acl_permit(acl, cred, inode->uid, inode->gid, want);
    } else if (vv_cred_is_member(cred, inode->gid)) {
        bits >>= 3;
    }
    return (bits & want) == want ? 0 : -EACCES;
}

int vv_permit_always(struct vv_op *op, const struct vv_cred *cred, const struct vv_inode *inode,
                     uint32_t want)
{
    if ((want & W_OK) && (inode->flags & FS_IMMUTABLE_FL))
        return -EPERM;
    /* uid 0 reads and writes everything, and executes what anybody may execute. */
    if (vv_cred_is_root(cred))
        return !(want & X_OK) || S_ISDIR(inode->mode) || (inode->mode & 0111) ? 0 : -EACCES;
    return check_bits(op, cred, inode, want);
}

int vv_permit(struct vv_op *op, const struct vv_cred *cred, const struct vv_inode *inode,
              uint32_t want)
{
    if (!cred->is_checked)
        return vv_permit_always(op, cred, inode, want);
    return (want & W_OK) && (inode->flags & FS_IMMUTABLE_FL) ? -EPERM : 0;
}

int vv_permit_io(struct vv_op *op, const struct vv_cred *cred, const struct vv_inode *inode,
                 uint32_t want)
{
    struct vv_cred checked = *cred;
    checked.is_checked |= cred->uid == inode->uid;
    int err = vv_permit(op, &checked, inode, want);
    if (err == -EACCES && want == R_OK)
        err = vv_permit(op, &checked, inode, X_OK);
    return err;
}

int vv_permit_create(struct vv_op *op, const struct vv_cred *cred, const struct vv_inode *dir)
{
    if (dir->nlink == 0)
        return -ENOENT;
    return vv_permit(op, cred, dir, W_OK | X_OK);
}

int vv_permit_delete(struct vv_op *op, const struct vv_cred *cred, const struct vv_inode *dir,
                     const struct vv_inode *child, bool is_wanting_dir)
{
    TRY(vv_permit(op, cred, dir, W_OK | X_OK));
    if (dir->flags & FS_APPEND_FL)
        return -EPERM;
    if ((dir->mode & S_ISVTX) && !vv_cred_is_owner(cred, dir) && !vv_cred_is_owner(cred, child))
        return -EPERM;
    if (child->flags & (FS_APPEND_FL | FS_IMMUTABLE_FL))
        return -EPERM;
    if (is_wanting_dir && !S_ISDIR(child->mode))
        return -ENOTDIR;
    if (!is_wanting_dir && S_ISDIR(child->mode))
        return -EISDIR;
    return child->inode == VV_ROOT_INODE ? -EBUSY : 0;
}

int vv_kill_priv(struct vv_op *op, struct vv_inode *inode, bool is_killing_ids)
{
    if (S_ISDIR(inode->mode))
        return 0;
    if (is_killing_ids) {
        inode->mode &= ~(uint32_t)S_ISUID;
        if (inode->mode & S_IXGRP)
            inode->mode &= ~(uint32_t)S_ISGID;
    }
    if (inode->bits & VV_INODE_HAS_CAPABILITY)
        TRY(vv_xattr_erase(op, inode, "security.capability"));
    return 0;
}
