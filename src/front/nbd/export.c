/* Devices in use. */
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "front/nbd/nbd_impl.h"

static struct vv_nbd_export *find(const struct vv_nbd *nbd, uint64_t inode)
{
    struct vv_map_node *node = vv_map_find(&nbd->exports, vv_mix64(inode));
    for (; node; node = vv_map_next(node)) {
        struct vv_nbd_export *export = vv_container_of(node, struct vv_nbd_export, node);
        if (export->inode == inode)
            return export;
    }
    return NULL;
}

unsigned vv_nbd_users(const struct vv_nbd *nbd, uint64_t inode)
{
    const struct vv_nbd_export *export = find(nbd, inode);
    return export ? export->refs : 0;
}

/* The only device there is. -ENOENT when there is none, or another. */
static int find_only(struct vv_nbd *nbd, struct vv_dirent entries[2])
{
    uint64_t after = 0;
    int count = vv_nbd_device_list(nbd->fs, nbd->options.door, &after, entries, 2);
    TRY(count);
    return count == 1 && after == 0 ? 0 : -ENOENT;
}

/* Somebody else may have opened it while we did. */
static struct vv_nbd_export *enter(struct vv_nbd *nbd, struct vv_nbd_export *export)
{
    struct vv_nbd_export *other = find(nbd, export->inode);
    if (!other) {
        vv_map_insert(&nbd->exports, &export->node, vv_mix64(export->inode));
        return export;
    }
    vv_fs_release(export->handle);
    vv_free(export);
    return other;
}

static int open_new(struct vv_nbd *nbd, struct vv_bytes name, const struct vv_attr *attr,
                    struct vv_nbd_export **out_export)
{
    struct vv_fs_call call = {.door = nbd->options.door};
    struct vv_nbd_export *export = vv_zalloc(sizeof(*export));
    if (!export)
        return -ENOMEM;
    export->nbd = nbd;
    export->inode = attr->inode;
    export->size = attr->size;
    export->change_count = 1; /* it may have changed since `attr` */
    export->is_read_only = nbd->options.is_read_only || (attr->mode & 0222) == 0 ||
                           (attr->flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)) != 0;
    export->name_len = name.len;
    memcpy(export->name, name.ptr, name.len);
    int flags = (export->is_read_only ? O_RDONLY : O_RDWR) | O_NOATIME;
    int err = vv_fs_open_file(nbd->fs, &call, attr->inode, flags, &export->handle);
    if (err < 0) {
        vv_free(export);
        return err;
    }
    *out_export = enter(nbd, export);
    return 0;
}

int vv_nbd_export_open(struct vv_nbd *nbd, struct vv_bytes name, struct vv_nbd_export **out_export)
{
    struct vv_dirent only[2];
    struct vv_attr attr;
    if (name.len == 0) {
        TRY(find_only(nbd, only));
        name = (struct vv_bytes){(const uint8_t *)only[0].name, only[0].name_len};
    }
    TRY(vv_nbd_device_find(nbd->fs, nbd->options.door, name, &attr));
    struct vv_nbd_export *export = find(nbd, attr.inode);
    if (!export)
        TRY(open_new(nbd, name, &attr, &export));
    export->refs++;
    *out_export = export;
    return 0;
}

void vv_nbd_export_unref(struct vv_nbd_export *export)
{
    if (!export || --export->refs > 0)
        return;
    vv_map_remove(&export->nbd->exports, &export->node);
    vv_fs_release(export->handle);
    vv_free(export);
}

void vv_nbd_export_unref_ptr(struct vv_nbd_export **export)
{
    vv_nbd_export_unref(*export);
}

int vv_nbd_export_size(struct vv_nbd_export *export, uint64_t *out_size)
{
    while (export->size_count != export->change_count) {
        struct vv_attr attr;
        uint64_t count = export->change_count;
        TRY(vv_fs_getattr(export->nbd->fs, export->inode, &attr));
        export->size = attr.size;
        export->size_count = count;
    }
    *out_size = export->size;
    return 0;
}

uint16_t vv_nbd_export_flags(const struct vv_nbd_export *export, bool has_structured)
{
    uint16_t flags = VV_NBD_FLAG_HAS_FLAGS | VV_NBD_FLAG_SEND_FLUSH | VV_NBD_FLAG_SEND_FUA |
                     VV_NBD_FLAG_CAN_MULTI_CONN | VV_NBD_FLAG_SEND_CACHE;
    if (has_structured)
        flags |= VV_NBD_FLAG_SEND_DF;
    if (export->is_read_only)
        return flags | VV_NBD_FLAG_READ_ONLY;
    return flags | VV_NBD_FLAG_SEND_TRIM | VV_NBD_FLAG_SEND_WRITE_ZEROES |
           VV_NBD_FLAG_SEND_FAST_ZERO;
}

void vv_nbd_on_inode(void *arg, uint64_t inode, uint64_t offset, uint64_t len)
{
    struct vv_nbd_export *export = find(arg, inode);
    (void)offset;
    (void)len;
    if (export)
        export->change_count++;
}
