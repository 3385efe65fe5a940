/* The fid table of a connection: what its numbers stand for. */
#include <assert.h>
#include <string.h>

#include "base/hash.h"
#include "front/ninep/ninep_impl.h"

static struct vv_ninep_fid *find(struct vv_ninep_conn *conn, uint32_t number)
{
    struct vv_map_node *node = vv_map_find(&conn->fids, vv_mix64(number));
    for (; node; node = vv_map_next(node)) {
        struct vv_ninep_fid *fid = vv_container_of(node, struct vv_ninep_fid, node);
        if (fid->fid == number)
            return fid;
    }
    return NULL;
}

int vv_ninep_fid_get(struct vv_ninep_conn *conn, uint32_t number, struct vv_ninep_fid **out_fid)
{
    struct vv_ninep_fid *fid = find(conn, number);
    if (!fid)
        return -EBADF;
    fid->refs++;
    *out_fid = fid;
    return 0;
}

int vv_ninep_fid_get_file(struct vv_ninep_conn *conn, uint32_t number,
                          struct vv_ninep_fid **out_fid)
{
    struct vv_ninep_fid *fid = find(conn, number);
    if (!fid || fid->kind != VV_NINEP_FID_FILE)
        return -EBADF;
    fid->refs++;
    *out_fid = fid;
    return 0;
}

int vv_ninep_fid_new(struct vv_ninep_conn *conn, struct vv_ninep_user *user,
                     struct vv_ninep_fid **out_fid)
{
    if (conn->fids.count >= VV_NINEP_FIDS_MAX)
        return -EMFILE;
    struct vv_ninep_fid *fid = vv_zalloc(sizeof(*fid));
    if (!fid)
        return -ENOMEM;
    fid->conn = conn;
    fid->refs = 1;
    fid->user = user;
    vv_ninep_user_ref(user);
    *out_fid = fid;
    return 0;
}

int vv_ninep_fid_enter(struct vv_ninep_fid *fid, uint32_t number, struct vv_ninep_fid *replaced)
{
    struct vv_ninep_conn *conn = fid->conn;
    struct vv_ninep_fid *present = find(conn, number);
    assert(!fid->is_known);
    if (number == VV_NINEP_NOFID || (present && present != replaced))
        return -EBADF;
    if (present)
        vv_ninep_fid_drop(present);
    fid->fid = number;
    fid->is_known = true;
    fid->refs++;
    vv_map_insert(&conn->fids, &fid->node, vv_mix64(number));
    conn->ninep->stats.fids++;
    return 0;
}

void vv_ninep_fid_drop(struct vv_ninep_fid *fid)
{
    struct vv_ninep *ninep = fid->conn->ninep;
    if (!fid->is_known)
        return;
    vv_map_remove(&fid->conn->fids, &fid->node);
    fid->is_known = false;
    ninep->stats.fids--;
    struct vv_fs_call call = {.door = ninep->options.door};
    for (size_t i = 0; i < fid->lock_owner_count; i++)
        vv_fs_unlock_owner(ninep->fs, &call, fid->inode, fid->conn->client, fid->lock_owners[i],
                           false);
    fid->lock_owner_count = 0;
    vv_ninep_fid_unref(fid);
}

void vv_ninep_fid_drop_all(struct vv_ninep_conn *conn)
{
    struct vv_map_node *node = vv_map_walk(&conn->fids, NULL);
    while (node) {
        struct vv_map_node *next = vv_map_walk(&conn->fids, node);
        vv_ninep_fid_drop(vv_container_of(node, struct vv_ninep_fid, node));
        node = next;
    }
}

void vv_ninep_fid_unref(struct vv_ninep_fid *fid)
{
    if (!fid || --fid->refs > 0)
        return;
    assert(!fid->is_known);
    if (fid->handle)
        vv_fs_release(fid->handle);
    vv_ninep_user_unref(fid->conn->ninep, fid->user);
    vv_free(fid->name);
    vv_free(fid->lock_owners);
    vv_free(fid->xattr_name);
    vv_free(fid->xattr);
    vv_free(fid);
}

void vv_ninep_fid_unref_ptr(struct vv_ninep_fid **fid)
{
    vv_ninep_fid_unref(*fid);
}

int vv_ninep_fid_set_name(struct vv_ninep_fid *fid, uint64_t parent, struct vv_bytes name)
{
    char *copy = vv_memdup(name.ptr, name.len);
    if (!copy)
        return -ENOMEM;
    vv_free(fid->name);
    fid->parent = parent;
    fid->name = copy;
    fid->name_len = name.len;
    return 0;
}

static bool is_member(const struct vv_ninep_groups *groups, uint32_t gid)
{
    if (gid == groups->gid)
        return true;
    for (uint32_t i = 0; i < groups->count; i++)
        if (groups->list[i] == gid)
            return true;
    return false;
}

struct vv_ninep_call vv_ninep_call_of(const struct vv_ninep_fid *fid, uint32_t gid)
{
    struct vv_ninep_groups *groups = fid->user->groups;
    bool is_given =
        gid != VV_NINEP_NONUNAME && (!fid->conn->is_restricted || is_member(groups, gid));
    groups->refs++;
    return (struct vv_ninep_call){
        .call = {.cred = {.uid = fid->user->uid,
                          .gid = is_given ? gid : groups->gid,
                          .groups = groups->list,
                          .group_count = groups->count},
                 .door = fid->conn->ninep->options.door},
        .groups = groups,
    };
}

void vv_ninep_call_end(struct vv_ninep_call *call)
{
    vv_ninep_groups_unref(call->groups);
}
