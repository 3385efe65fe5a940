/* Taking requests apart: fixed structs, names, the caller's groups, file handles. */
#include "front/fuse/fuse_impl.h"

#include <string.h>

#define GROUPS_MAX 4096 /* of a process; the kernel allows 65536, nobody uses them */

bool vv_fuse_take(struct vv_fuse_request *request, void *out, size_t len)
{
    vv_cursor_copy(&request->message.body, out, len);
    return !request->message.body.is_bad;
}

int vv_fuse_take_entry(struct vv_fuse_request *request, struct vv_bytes *out_name)
{
    struct vv_bytes name = vv_fuse_take_name(&request->message.body);
    if (request->message.body.is_bad || name.len == 0)
        return -EINVAL;
    if (name.len > VV_NAME_MAX)
        return -ENAMETOOLONG;
    *out_name = name;
    return 0;
}

void vv_fuse_add_groups(struct vv_fuse_request *request, uint32_t **out_groups)
{
    struct vv_cred *cred = &request->call.cred;
    *out_groups = NULL;
    if (cred->uid == 0)
        return;
    if (request->message.group_count > 0) {
        cred->groups = request->message.groups;
        cred->group_count = request->message.group_count;
        return;
    }
    uint32_t *groups = vv_calloc(GROUPS_MAX, sizeof(*groups));
    if (!groups)
        return;
    pid_t pid = (pid_t)request->message.header.pid;
    cred->group_count = (uint32_t)vv_fuse_device_groups(pid, groups, GROUPS_MAX);
    cred->groups = groups;
    *out_groups = groups;
}

void vv_fuse_learn_caller(struct vv_fuse_request *request)
{
    const struct fuse_in_header *header = &request->message.header;
    struct vv_cred *cred = &request->call.cred;
    if (header->uid != VV_FUSE_ID_NONE)
        return;
    cred->uid = VV_FUSE_ID_NONE;
    cred->gid = VV_FUSE_ID_NONE;
    vv_fuse_device_ids((pid_t)header->pid, &cred->uid, &cred->gid);
}

int vv_fuse_open_new(struct vv_fuse *fuse, struct vv_fuse_open **out_open)
{
    struct vv_fuse_open *open = vv_zalloc(sizeof(*open));
    if (!open)
        return -ENOMEM;
    vv_list_push_back(&fuse->opens, &open->node);
    *out_open = open;
    return 0;
}

void vv_fuse_open_free(struct vv_fuse_open *open)
{
    if (!open)
        return;
    vv_list_remove(&open->node);
    vv_fs_release(open->handle);
    vv_free(open);
}

struct vv_fuse_open *vv_fuse_open_of(uint64_t fh)
{
    return (struct vv_fuse_open *)(uintptr_t)fh;
}

struct vv_handle *vv_fuse_handle_of(uint64_t fh)
{
    return fh ? vv_fuse_open_of(fh)->handle : NULL;
}
