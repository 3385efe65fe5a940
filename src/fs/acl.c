#include "fs/acl.h"

#include <assert.h>
#include <errno.h>

#define ACL_VERSION 2
#define HEAD_BYTES 4
#define ENTRY_BYTES 8

enum acl_tag {
    TAG_USER_OBJ = 0x01,
    TAG_USER = 0x02,
    TAG_GROUP_OBJ = 0x04,
    TAG_GROUP = 0x08,
    TAG_MASK = 0x10,
    TAG_OTHER = 0x20
};

struct acl_entry {
    unsigned tag;
    uint32_t perm;
    uint32_t id;
};

static size_t entry_count(size_t len)
{
    return (len - HEAD_BYTES) / ENTRY_BYTES;
}

static struct acl_entry entry_at(const uint8_t *acl, size_t index)
{
    const uint8_t *ptr = acl + HEAD_BYTES + index * ENTRY_BYTES;
    struct acl_entry entry;
    entry.tag = ptr[0] | (unsigned)ptr[1] << 8;
    entry.perm = ptr[2] | (uint32_t)ptr[3] << 8;
    entry.id = vv_load_u32(ptr + 4);
    return entry;
}

static void set_perm(uint8_t *acl, size_t index, uint32_t perm)
{
    acl[HEAD_BYTES + index * ENTRY_BYTES + 2] = (uint8_t)perm;
}

/* The one entry with this tag; the count when there is none. */
static size_t find_tag(const uint8_t *acl, size_t len, unsigned tag)
{
    size_t i = 0;
    while (i < entry_count(len) && entry_at(acl, i).tag != tag)
        i++;
    return i;
}

/* The entry that the group bits of a mode stand for. */
static size_t group_class(const uint8_t *acl, size_t len)
{
    size_t mask = find_tag(acl, len, TAG_MASK);
    return mask < entry_count(len) ? mask : find_tag(acl, len, TAG_GROUP_OBJ);
}

int vv_acl_check(struct vv_bytes acl)
{
    if (acl.len < HEAD_BYTES)
        return -EINVAL;
    if (vv_load_u32(acl.ptr) != ACL_VERSION)
        return -EOPNOTSUPP;
    if ((acl.len - HEAD_BYTES) % ENTRY_BYTES != 0)
        return -EINVAL;
    size_t count = entry_count(acl.len);
    if (count == 0)
        return 1;
    /* In the order of their tags; those without an id exactly once, the mask once if a name needs
     * it. */
    unsigned seen = 0;
    for (size_t i = 0; i < count; i++) {
        struct acl_entry entry = entry_at(acl.ptr, i);
        bool is_named = entry.tag == TAG_USER || entry.tag == TAG_GROUP;
        bool is_single = entry.tag == TAG_USER_OBJ || entry.tag == TAG_GROUP_OBJ ||
                         entry.tag == TAG_MASK || entry.tag == TAG_OTHER;
        if ((!is_named && !is_single) || entry.perm > 7 || seen > (entry.tag << 1) - 1 ||
            (is_single && (seen & entry.tag)))
            return -EINVAL;
        if (is_named && entry.id == UINT32_MAX)
            return -EINVAL;
        seen |= entry.tag;
    }
    unsigned needed = TAG_USER_OBJ | TAG_GROUP_OBJ | TAG_OTHER;
    if (seen & (TAG_USER | TAG_GROUP))
        needed |= TAG_MASK;
    return (seen & needed) == needed ? 0 : -EINVAL;
}

bool vv_cred_is_member(const struct vv_cred *cred, uint32_t gid)
{
    if (cred->gid == gid)
        return true;
    for (uint32_t i = 0; i < cred->group_count; i++) {
        if (cred->groups[i] == gid)
            return true;
    }
    return false;
}

int vv_acl_permit(struct vv_bytes acl, const struct vv_cred *cred, uint32_t uid, uint32_t gid,
                  uint32_t want)
{
    size_t count = entry_count(acl.len);
    size_t mask_at = find_tag(acl.ptr, acl.len, TAG_MASK);
    uint32_t mask = mask_at < count ? entry_at(acl.ptr, mask_at).perm : 7;
    bool is_in_group = false;
    for (size_t i = 0; i < count; i++) {
        struct acl_entry entry = entry_at(acl.ptr, i);
        bool is_group = (entry.tag == TAG_GROUP_OBJ && vv_cred_is_member(cred, gid)) ||
                        (entry.tag == TAG_GROUP && vv_cred_is_member(cred, entry.id));
        if (entry.tag == TAG_USER_OBJ && cred->uid == uid)
            return (entry.perm & want) == want ? 0 : -EACCES;
        if (entry.tag == TAG_USER && cred->uid == entry.id)
            return (entry.perm & mask & want) == want ? 0 : -EACCES;
        if (is_group && (entry.perm & want) == want)
            return (mask & want) == want ? 0 : -EACCES;
        is_in_group |= is_group;
        if (entry.tag == TAG_OTHER && !is_in_group)
            return (entry.perm & want) == want ? 0 : -EACCES;
    }
    return -EACCES;
}

bool vv_acl_to_mode(struct vv_bytes acl, uint32_t *mode)
{
    uint32_t user = entry_at(acl.ptr, find_tag(acl.ptr, acl.len, TAG_USER_OBJ)).perm;
    uint32_t group = entry_at(acl.ptr, group_class(acl.ptr, acl.len)).perm;
    uint32_t other = entry_at(acl.ptr, find_tag(acl.ptr, acl.len, TAG_OTHER)).perm;
    *mode = (*mode & ~0777u) | user << 6 | group << 3 | other;
    return entry_count(acl.len) == 3;
}

void vv_acl_chmod(uint8_t *acl, size_t len, uint32_t mode)
{
    set_perm(acl, find_tag(acl, len, TAG_USER_OBJ), mode >> 6 & 7);
    set_perm(acl, group_class(acl, len), mode >> 3 & 7);
    set_perm(acl, find_tag(acl, len, TAG_OTHER), mode & 7);
}

bool vv_acl_create(uint8_t *acl, size_t len, uint32_t *mode)
{
    uint32_t granted = *mode;
    bool is_minimal = vv_acl_to_mode((struct vv_bytes){acl, len}, &granted);
    *mode = (*mode & ~0777u) | (*mode & granted & 0777u);
    vv_acl_chmod(acl, len, *mode);
    return is_minimal;
}
