/* POSIX access control lists in the form in which Linux hands them over in extended attributes:
 * u32 version (2), then entries of u16 tag, u16 permissions, u32 id, little-endian
 * (include/uapi/linux/posix_acl_xattr.h). They are stored and evaluated in this form.
 *
 * The permission bits of a mode stand for the entries of the owner, the mask (or, without a mask,
 * the owning group) and others; whoever changes one side changes the other with the functions here.
 * Plain functions over bytes; any thread; no allocation. */
#ifndef VV_FS_ACL_H
#define VV_FS_ACL_H

#include "base/bytes.h"
#include "base/err.h"
#include "fs/fs.h"

#define VV_ACL_ACCESS_NAME "system.posix_acl_access"
#define VV_ACL_DEFAULT_NAME "system.posix_acl_default"

/* 0 = well formed, 1 = well formed but empty (which means: remove it).
 * -EOPNOTSUPP (another version), -EINVAL. The functions below take only what passed with 0. */
MUST_CHECK int vv_acl_check(struct vv_bytes acl);
/* May `cred` do `want` (R_OK | W_OK | X_OK) with an inode of this owner and group? 0 or -EACCES. */
MUST_CHECK int vv_acl_permit(struct vv_bytes acl, const struct vv_cred *cred, uint32_t uid,
                             uint32_t gid, uint32_t want);
/* The permission bits that it stands for, into the low 9 bits of *mode (the others stay). True when
 * it says nothing more than these bits. */
bool vv_acl_to_mode(struct vv_bytes acl, uint32_t *mode);
/* Change it as chmod to `mode` does. */
void vv_acl_chmod(uint8_t *acl, size_t len, uint32_t mode);
/* Make a copy of a directory's default ACL the access ACL of a new inode that was asked for with
 * *mode; *mode becomes what the inode gets. True when the ACL then says no more than the mode. */
bool vv_acl_create(uint8_t *acl, size_t len, uint32_t *mode);
/* gid is the caller's group or one of the supplementary ones. */
bool vv_cred_is_member(const struct vv_cred *cred, uint32_t gid);

#endif
