/* Devices: the regular files of /.nbd. What `varve device` does, and how an export finds its file.
 *
 * Names are 1 to 255 bytes without '/' and NUL, not "." and "..": -EINVAL, -ENAMETOOLONG. There are
 * no folders of devices. All act as the superuser, with `door` as the door; all suspend. */
#ifndef VV_FRONT_NBD_DEVICE_H
#define VV_FRONT_NBD_DEVICE_H

#include "base/bytes.h"
#include "base/err.h"
#include "fs/fs.h"

#define VV_NBD_DIRECTORY ".nbd"

/* The device's file. -ENOENT, -EINVAL (not a regular file). */
MUST_CHECK int vv_nbd_device_find(struct vv_fs *fs, unsigned door, struct vv_bytes name,
                                  struct vv_attr *out_attr);
/* Make it, and /.nbd if that is not there, durably; wholly or not at all. -EEXIST, -EFBIG. */
MUST_CHECK int vv_nbd_device_create(struct vv_fs *fs, unsigned door, struct vv_bytes name,
                                    uint64_t size);
/* What is cut off is gone. Connections learn of it when they connect again; until then what is
 * beyond the new end fails. -ENOENT, -EFBIG. */
MUST_CHECK int vv_nbd_device_resize(struct vv_fs *fs, unsigned door, struct vv_bytes name,
                                    uint64_t size);
/* -ENOENT. Its space is freed when the last connection lets go. */
MUST_CHECK int vv_nbd_device_remove(struct vv_fs *fs, unsigned door, struct vv_bytes name);
/* Up to `count` devices (regular files) behind `after` (a cookie; 0 = from the start). Returns how
 * many; *out_after is where to go on; 0 = there are no more. */
MUST_CHECK int vv_nbd_device_list(struct vv_fs *fs, unsigned door, uint64_t *after,
                                  struct vv_dirent *out_entries, unsigned count);

#endif
