/* The kernel's FUSE protocol: requests into structs, replies into bytes. Pure: no I/O, any thread.
 *
 * A request is a fuse_in_header, a fixed struct of its opcode, then names (each ended by NUL) or
 * data; with total_extlen, extensions at its end. A reply is a fuse_out_header and what the opcode
 * asks for. The structs are the kernel's ABI (linux/fuse.h), in the machine's byte order; they are
 * copied in and out, never laid over bytes. What newer kernels than Debian 12's headers know is
 * declared here, with the same names behind VV_.
 *
 * Source: include/uapi/linux/fuse.h of Linux 6.18, fs/fuse/. */
#ifndef VV_FRONT_FUSE_CODEC_H
#define VV_FRONT_FUSE_CODEC_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "fs/fs.h"

#define VV_FUSE_STATX 52u              /* opcode: statx_in; statx_out */
#define VV_FUSE_COPY_FILE_RANGE_64 53u /* opcode: copy_file_range_in; bytes[8] */
#define VV_FUSE_MINOR 41u              /* of the protocol version 7 that is spoken here */

/* INIT flags above those of Debian 12's header. */
#define VV_FUSE_CREATE_SUPP_GROUP (1ull << 34) /* the group that matters comes with creations */
#define VV_FUSE_DIRECT_IO_ALLOW_MMAP (1ull << 36)
#define VV_FUSE_NO_EXPORT (1ull << 38) /* handles name files (fanotify), but open none. Since Linux 6.8 */
/* The mount may be mounted again with users mapped. Then only requests that make something name a
 * user (as the mount maps him); in all others uid and gid are VV_FUSE_ID_NONE. Since Linux 6.12. */
#define VV_FUSE_ALLOW_IDMAP (1ull << 40)
#define VV_FUSE_ID_NONE UINT32_MAX

#define VV_FUSE_EXT_GROUPS 32u /* extension type: count[4], gid[4] * count */
#define VV_FUSE_GROUPS_MAX 32  /* of an extension; the kernel sends one */

struct vv_fuse_sx_time {
    int64_t sec;
    uint32_t nsec;
    int32_t reserved;
};
struct vv_fuse_statx_in {
    uint32_t getattr_flags;
    uint32_t reserved;
    uint64_t fh;
    uint32_t sx_flags;
    uint32_t sx_mask;
};
struct vv_fuse_statx_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec;
    uint32_t flags;
    uint64_t spare[2];
    uint32_t mask; /* STATX_* that are set below */
    uint32_t blksize;
    uint64_t attributes; /* STATX_ATTR_* */
    uint32_t nlink;
    uint32_t uid;
    uint32_t gid;
    uint16_t mode;
    uint16_t spare0;
    uint64_t ino;
    uint64_t size;
    uint64_t blocks;
    uint64_t attributes_mask;
    struct vv_fuse_sx_time atime, btime, ctime, mtime;
    uint32_t rdev_major;
    uint32_t rdev_minor;
    uint32_t dev_major;
    uint32_t dev_minor;
    uint64_t spare2[14];
};
_Static_assert(sizeof(struct vv_fuse_statx_out) == 32 + 256, "as the kernel's");

struct vv_fuse_message {
    struct fuse_in_header header;
    struct vv_cursor body; /* behind the header, without extensions */
    uint32_t groups[VV_FUSE_GROUPS_MAX];
    uint32_t group_count;
};

/* Take a request apart as far as all opcodes have it in common. -VV_ERR_FORMAT. */
MUST_CHECK int vv_fuse_decode(const void *bytes, size_t len, struct vv_fuse_message *out_message);
/* The same for a WRITE of `len` bytes of which the first VV_FUSE_WRITE_HEAD_BYTES are here and the data is elsewhere: the body is
 * the write_in, which says how long the data is (as it is, and at least a byte). -VV_ERR_FORMAT: it is none, or has extensions. */
#define VV_FUSE_WRITE_HEAD_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
MUST_CHECK int vv_fuse_decode_write(const void *head, size_t len,
                                    struct vv_fuse_message *out_message);
/* The next name of the body, which ends with NUL (not counted). {NULL, 0} and a bad cursor when
 * there is none. */
struct vv_bytes vv_fuse_take_name(struct vv_cursor *body);

void vv_fuse_encode_attr(const struct vv_attr *attr, struct fuse_attr *out_attr);
void vv_fuse_encode_statx(const struct vv_attr *attr, struct vv_fuse_statx_out *out_statx);
/* setattr_in to the values and the VV_SET_* mask of vv_fs_setattr. */
uint32_t vv_fuse_decode_setattr(const struct fuse_setattr_in *in, struct vv_attr *out_set);
/* rdev as the kernel packs it in 32 bits (new_encode_dev). */
uint32_t vv_fuse_encode_rdev(uint32_t major, uint32_t minor);
void vv_fuse_decode_rdev(uint32_t rdev, uint32_t *out_major, uint32_t *out_minor);
/* A lock range; the kernel's "to the end" is INT64_MAX. */
void vv_fuse_decode_lock(const struct fuse_file_lock *in, struct vv_lock *out_lock);
void vv_fuse_encode_lock(const struct vv_lock *lock, struct fuse_file_lock *out_lock);

/* Append a directory entry, with room for an entry_out before it if is_plus (zeroed, to be filled
 * through *out_entry_at, an offset in the writer). False when it does not fit; nothing is written
 * then. */
bool vv_fuse_encode_dirent(struct vv_writer *writer, const struct vv_dirent *entry, bool is_plus,
                           size_t *out_entry_at);

/* FS_IOC_FSGETXATTR's flags from FS_IOC_GETFLAGS's, and back. -EOPNOTSUPP for flags that have no
 * twin. */
uint32_t vv_fuse_xflags_of(uint32_t flags);
MUST_CHECK int vv_fuse_flags_of(uint32_t xflags, uint32_t *out_flags);

/* "LOOKUP" for log lines; never NULL. */
const char *vv_fuse_opcode_name(uint32_t opcode);

#endif
