/* A loop device with nothing on it, for a mount that the kernel takes for one of a block device ("fuseblk"): it tells the
 * server of such a mount, and of no other, that somebody wants everything durable (sync(2), syncfs(2), remounting
 * read-only; Linux 6.18), and waits for it when it unmounts. Nothing is read from the device or written to it. */
#ifndef VV_FRONT_FUSE_LOOP_H
#define VV_FRONT_FUSE_LOOP_H

#include <stddef.h>

#include "base/err.h"

#define VV_FUSE_LOOP_PATH_MAX 32
#define VV_FUSE_LOOP_TRIES_MAX 64 /* others may take the device that was free a moment ago */

/* Make one; its path, and a descriptor that is to be closed when it is mounted (or not): it goes with its last user.
 * -EPERM, -ENOENT (no /dev/loop-control), -EBUSY, -errno. Blocks. */
MUST_CHECK int vv_fuse_loop_open(char out_path[VV_FUSE_LOOP_PATH_MAX]);

#endif
