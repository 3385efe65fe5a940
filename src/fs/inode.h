/* The records of fs: how inodes, directory entries and links stand in the volume's tables.
 *
 * Owns the formats; whoever checks or shows a volume decodes with these. Plain values, no
 * allocation, any thread. Integers in keys are big-endian (so that keys sort), in values
 * little-endian.
 *
 * Keys:
 *   'I' inode                    8 bytes: the inode record, below
 *   'D' directory, name          an entry: inode u64, cookie u64, type u8 (the S_IFMT bits >> 12)
 *   'C' directory, cookie        the same entry by cookie: inode u64, type u8, name
 *   'L' inode, parent, cookie    a link of a file beyond the one that its inode record names: u8 1
 *   'X' inode, attribute name    the value of an extended attribute, as it is
 *   'T' 'i' inode                an inode without links that is open or being reclaimed: u8 1
 *   'A' slot                     2 bytes: a reply record, below
 *   'P' inode                    8 bytes: what is set aside of a file (aside.h)
 *
 * Inode record:
 *   offset bytes
 *        0     1  version, 1; 2 when space is set aside
 *        1     1  bits: VV_INODE_HAS_*
 *        2     2  part count
 *        4     4  mode: type and permissions
 *        8     4  links
 *       12     4  uid
 *       16     4  gid
 *       20     4  flags (FS_*_FL)
 *       24     8  size: bytes; of a directory, entries
 *       32     8  change counter
 *       40     8  atime, seconds, signed
 *       48     8  mtime
 *       56     8  ctime
 *       64     8  btime
 *       72     4  atime, nanoseconds
 *       76     4  mtime
 *       80     4  ctime
 *       84     4  btime
 *       88     8  parent directory: of a directory, or of a file's first link; 0 = that link is gone
 *       96     8  cookie of the entry in the parent; 0 with parent 0, and in the root
 *      104     8  directory: the next cookie; device: major << 32 | minor; regular file: the verifier
 *                 of the exclusive create that made it, until its attributes are set; else 0
 *      112     4  extended attributes: how many
 *      116     4  ... and the bytes of their names, each with its NUL
 *      120     2  bytes held inline
 *      122     2  0
 *      124  24*n  parts: data id u64, start u64, length u64 (UINT64_MAX in the last: no end)
 *            ...  bytes held inline: of a small file, or a symlink's target
 *            ...  8  version 2: blocks that are set aside; not 0. Of regular files without inline bytes
 *
 * A file's bytes are those of its parts one after the other, or, when it has none, the inline bytes
 * and zeros up to its size. Parts of one data id ascend and do not overlap. Nothing past the size
 * of the file is ever anything but zero.
 *
 * Reply record: that a request was done, written with what it did. Its slot is the sequence modulo
 * VV_REPLIES_MAX: the newest overwrites the oldest.
 *   offset bytes
 *        0     1  version, 1
 *        1     1  door: VV_REPLY_*
 *        2     1  the door's own: NFS, the procedure
 *        3     1  0
 *        4    20  who asked, and what: the door's own
 *       24     8  sequence: how many were written before it
 *       32     8  the inode that was made or changed */
#ifndef VV_FS_INODE_H
#define VV_FS_INODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"
#include "fs/fs.h"

#define VV_INODE_VERSION_PLAIN 1 /* nothing is set aside */
#define VV_INODE_VERSION 2
#define VV_INODE_HEAD_BYTES 124
#define VV_INLINE_MAX                                                                              \
    512 /* bytes of a file held in its record; a symlink's are up to VV_SYMLINK_MAX */
#define VV_PART_BYTES 24
#define VV_PART_NO_END UINT64_MAX
/* A part begins so low that a file of the largest size fits behind it. */
#define VV_PART_START_MAX (VV_DATA_BYTES_MAX - VV_FILE_BYTES_MAX)
#define VV_FIRST_COOKIE 3 /* 1 and 2 are "." and ".." */
/* Regular files have up to VV_PARTS_MAX parts and no inline bytes, or inline bytes and no parts. */
#define VV_INODE_RECORD_MAX (VV_INODE_HEAD_BYTES + VV_SYMLINK_MAX)

#define VV_INODE_HAS_ACCESS_ACL 0x01u  /* "system.posix_acl_access" is among its attributes */
#define VV_INODE_HAS_DEFAULT_ACL 0x02u /* "system.posix_acl_default" */
#define VV_INODE_HAS_CAPABILITY 0x04u  /* "security.capability" */
#define VV_INODE_BITS_ALL 0x07u
#define VV_INODE_HAS_ASIDE 0x08u /* space is set aside; in records only: see aside_blocks */

struct vv_inode {
    uint64_t inode; /* the key */
    uint8_t bits;
    uint32_t mode, nlink, uid, gid, flags;
    uint64_t size, change;
    struct timespec atime, mtime, ctime, btime;
    uint64_t parent, cookie;
    uint64_t next_cookie; /* directories */
    uint64_t rdev;        /* devices */
    uint64_t verifier;    /* regular files: who made it exclusively (NFS); 0 = nobody, or long ago */
    uint32_t xattr_count, xattr_name_bytes;
    uint64_t aside_blocks;   /* of VV_BLOCK_BYTES, set aside */
    struct vv_bytes parts;   /* encoded, borrowed: vv_parts_decode */
    struct vv_bytes in_line; /* borrowed */
};

/* Decode the record of `inode`; parts and in_line point into `record`. Whatever is accepted is safe
 * to use. -VV_ERR_FORMAT, -VV_ERR_NEWER (a version that this program does not know). */
MUST_CHECK int vv_inode_decode(struct vv_bytes record, uint64_t inode, struct vv_inode *out_inode);
/* Encode into buf[VV_INODE_RECORD_MAX]; the length. parts and in_line may not point into buf. */
size_t vv_inode_encode(const struct vv_inode *inode, uint8_t *buf);

struct vv_part {
    uint64_t data_id, start, length;
};
struct vv_parts {
    size_t count;
    struct vv_part at[VV_PARTS_MAX + 2]; /* room for cutting two before joining */
};
#define VV_PARTS_BUF_BYTES (VV_PARTS_MAX * VV_PART_BYTES)
/* -VV_ERR_FORMAT: a part is empty, unbounded but not last, or reaches past what a file can hold. */
MUST_CHECK int vv_parts_decode(struct vv_bytes encoded, struct vv_parts *out_parts);
/* Into buf[VV_PARTS_BUF_BYTES]; borrowed by what is returned. */
struct vv_bytes vv_parts_encode(const struct vv_parts *parts, uint8_t *buf);

struct vv_entry {
    uint64_t inode, cookie;
    uint32_t type; /* S_IFMT bits */
};
#define VV_ENTRY_BYTES 17
#define VV_COOKIE_RECORD_MAX (9 + VV_NAME_MAX)
MUST_CHECK int vv_entry_decode(struct vv_bytes record, struct vv_entry *out_entry);
size_t vv_entry_encode(const struct vv_entry *entry, uint8_t *buf);
/* The record under 'C'; the name is borrowed. The cookie stands in the key. */
MUST_CHECK int vv_cookie_decode(struct vv_bytes record, struct vv_entry *out_entry,
                                struct vv_bytes *out_name);
size_t vv_cookie_encode(const struct vv_entry *entry, const char *name, size_t name_len,
                        uint8_t *buf);

#define VV_REPLY_VERSION 1
#define VV_REPLY_RECORD_BYTES 40
struct vv_reply_record {
    struct vv_fs_reply reply;
    uint64_t sequence;
};
/* -VV_ERR_FORMAT (also: it does not belong into this slot), -VV_ERR_NEWER. */
MUST_CHECK int vv_reply_decode(struct vv_bytes record, uint64_t slot,
                               struct vv_reply_record *out_record);
void vv_reply_encode(const struct vv_reply_record *record, uint8_t buf[VV_REPLY_RECORD_BYTES]);

#define VV_FS_KEY_MAX (9 + VV_NAME_MAX)
struct vv_fs_key {
    size_t len;
    uint8_t bytes[VV_FS_KEY_MAX];
};
static inline struct vv_bytes vv_fs_key_bytes(const struct vv_fs_key *key)
{
    return (struct vv_bytes){key->bytes, key->len};
}
void vv_key_inode(struct vv_fs_key *key, uint64_t inode);
/* name_len is at most VV_NAME_MAX; 0 gives the prefix of all. */
void vv_key_entry(struct vv_fs_key *key, uint64_t directory, const char *name, size_t name_len);
void vv_key_cookie(struct vv_fs_key *key, uint64_t directory, uint64_t cookie);
void vv_key_link(struct vv_fs_key *key, uint64_t inode, uint64_t parent, uint64_t cookie);
void vv_key_xattr(struct vv_fs_key *key, uint64_t inode, const char *name, size_t name_len);
void vv_key_orphan(struct vv_fs_key *key, uint64_t inode);
void vv_key_aside(struct vv_fs_key *key, uint64_t inode);
void vv_key_reply(struct vv_fs_key *key, uint64_t slot);
/* The slot of a reply record's key; -VV_ERR_FORMAT. */
MUST_CHECK int vv_reply_slot(struct vv_bytes key, uint64_t *out_slot);

#endif
