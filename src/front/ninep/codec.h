/* 9P2000.L on the wire: bytes to structs and back. Pure: no I/O, no allocation, any thread.
 *
 * A message is  size[4] type[1] tag[2] body ; integers are little-endian, size counts itself, s is
 * a string (len[2] and that many bytes of UTF-8, no NUL), qid is type[1] version[4] path[8]. T is a
 * request (even type), the reply R has the same tag and type + 1; any request may be answered with
 * Rlerror instead.
 *
 * type  T body                                           R body
 *    6  -                                                Rlerror (7): ecode[4]
 *    8  statfs fid[4]                                    type[4] bsize[4] blocks[8] bfree[8]
 *                                                        bavail[8] files[8] ffree[8] fsid[8]
 *                                                        namelen[4]
 *   12  lopen fid[4] flags[4]                            qid[13] iounit[4]
 *   14  lcreate fid[4] name[s] flags[4] mode[4]          qid[13] iounit[4]
 *         gid[4]
 *   16  symlink fid[4] name[s] target[s] gid[4]          qid[13]
 *   18  mknod dfid[4] name[s] mode[4] major[4]           qid[13]
 *         minor[4] gid[4]
 *   20  rename fid[4] dfid[4] name[s]                    -
 *   22  readlink fid[4]                                  target[s]
 *   24  getattr fid[4] mask[8]                           valid[8] qid[13] mode[4] uid[4]
 *                                                        gid[4] nlink[8] rdev[8] size[8]
 *                                                        blksize[8] blocks[8], sec[8] nsec[8]
 *                                                        of atime, mtime, ctime, btime; then
 *                                                        gen[8] version[8]
 *   26  setattr fid[4] valid[4] mode[4] uid[4]           -
 *         gid[4] size[8], sec[8] nsec[8] of atime, mtime
 *   30  xattrwalk fid[4] newfid[4] name[s]               size[8]
 *   32  xattrcreate fid[4] name[s] size[8] flags[4]      -
 *   40  readdir fid[4] offset[8] count[4]                count[4], then entries of qid[13]
 *                                                        offset[8] type[1] name[s]
 *   50  fsync fid[4] datasync[4] (or without)            -
 *   52  lock fid[4] type[1] flags[4] start[8]            status[1]
 *         length[8] proc_id[4] client_id[s]
 *   54  getlock fid[4] type[1] start[8] length[8]        type[1] start[8] length[8] proc_id[4]
 *         proc_id[4] client_id[s]                        client_id[s]
 *   70  link dfid[4] fid[4] name[s]                      -
 *   72  mkdir dfid[4] name[s] mode[4] gid[4]             qid[13]
 *   74  renameat fid[4] name[s] newfid[4] newname[s]     -
 *   76  unlinkat dfid[4] name[s] flags[4]                -
 *  100  version msize[4] version[s]                      msize[4] version[s]
 *  102  auth afid[4] uname[s] aname[s] n_uname[4]        (refused)
 *  104  attach fid[4] afid[4] uname[s] aname[s]          qid[13]
 *         n_uname[4]
 *  108  flush oldtag[2]                                  -
 *  110  walk fid[4] newfid[4] nwname[2] nwname*name[s]   nwqid[2] nwqid*qid[13]
 *  116  read fid[4] offset[8] count[4]                   count[4] data[count]
 *  118  write fid[4] offset[8] count[4] data[count]      count[4]
 *  120  clunk fid[4]                                     -
 *  122  remove fid[4]                                    -
 *
 * Sources: Linux net/9p and include/net/9p/9p.h, diod's protocol.md, intro(5) of Plan 9. */
#ifndef VV_FRONT_NINEP_CODEC_H
#define VV_FRONT_NINEP_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/bytes.h"
#include "base/err.h"

#define VV_NINEP_MSIZE_MIN 4096u
#define VV_NINEP_MSIZE_MAX ((1u << 20) + VV_NINEP_IO_HEADER_BYTES)
#define VV_NINEP_HEADER_BYTES 7u     /* size, type, tag */
#define VV_NINEP_IO_HEADER_BYTES 24u /* room for the header of a read or write (P9_IOHDRSZ) */
#define VV_NINEP_WALK_MAX 16         /* names of one Twalk */
#define VV_NINEP_NOTAG 0xffffu
#define VV_NINEP_NOFID 0xffffffffu
#define VV_NINEP_NONUNAME 0xffffffffu
#define VV_NINEP_QID_BYTES 13u
#define VV_NINEP_VERSION "9P2000.L"

enum vv_ninep_type {
    VV_NINEP_TLERROR = 6,
    VV_NINEP_RLERROR = 7,
    VV_NINEP_TSTATFS = 8,
    VV_NINEP_TLOPEN = 12,
    VV_NINEP_TLCREATE = 14,
    VV_NINEP_TSYMLINK = 16,
    VV_NINEP_TMKNOD = 18,
    VV_NINEP_TRENAME = 20,
    VV_NINEP_TREADLINK = 22,
    VV_NINEP_TGETATTR = 24,
    VV_NINEP_TSETATTR = 26,
    VV_NINEP_TXATTRWALK = 30,
    VV_NINEP_TXATTRCREATE = 32,
    VV_NINEP_TREADDIR = 40,
    VV_NINEP_TFSYNC = 50,
    VV_NINEP_TLOCK = 52,
    VV_NINEP_TGETLOCK = 54,
    VV_NINEP_TLINK = 70,
    VV_NINEP_TMKDIR = 72,
    VV_NINEP_TRENAMEAT = 74,
    VV_NINEP_TUNLINKAT = 76,
    VV_NINEP_TVERSION = 100,
    VV_NINEP_TAUTH = 102,
    VV_NINEP_TATTACH = 104,
    VV_NINEP_TFLUSH = 108,
    VV_NINEP_TWALK = 110,
    VV_NINEP_TREAD = 116,
    VV_NINEP_TWRITE = 118,
    VV_NINEP_TCLUNK = 120,
    VV_NINEP_TREMOVE = 122
};

#define VV_NINEP_QID_DIR 0x80u
#define VV_NINEP_QID_SYMLINK 0x02u
#define VV_NINEP_QID_FILE 0x00u
struct vv_ninep_qid {
    uint8_t type;
    uint32_t version;
    uint64_t path;
};

/* Flags of lopen and lcreate: the octal values of x86 Linux, on every machine. */
#define VV_NINEP_O_ACCMODE 00000003u
#define VV_NINEP_O_CREAT 00000100u
#define VV_NINEP_O_EXCL 00000200u
#define VV_NINEP_O_TRUNC 00001000u
#define VV_NINEP_O_APPEND 00002000u
#define VV_NINEP_O_DSYNC 00010000u
#define VV_NINEP_O_DIRECT 00040000u
#define VV_NINEP_O_DIRECTORY 00200000u
#define VV_NINEP_O_NOFOLLOW 00400000u
#define VV_NINEP_O_SYNC 04000000u

/* `valid` of setattr. */
#define VV_NINEP_SET_MODE 0x001u
#define VV_NINEP_SET_UID 0x002u
#define VV_NINEP_SET_GID 0x004u
#define VV_NINEP_SET_SIZE 0x008u
#define VV_NINEP_SET_ATIME 0x010u /* now, unless ATIME_SET */
#define VV_NINEP_SET_MTIME 0x020u
#define VV_NINEP_SET_CTIME 0x040u /* now */
#define VV_NINEP_SET_ATIME_SET 0x080u
#define VV_NINEP_SET_MTIME_SET 0x100u

#define VV_NINEP_GETATTR_ALL 0x3fffull /* every bit of getattr's mask that is defined */

#define VV_NINEP_LOCK_RDLCK 0u
#define VV_NINEP_LOCK_WRLCK 1u
#define VV_NINEP_LOCK_UNLCK 2u
#define VV_NINEP_LOCK_FLAG_BLOCK 1u
#define VV_NINEP_LOCK_FLAG_RECLAIM 2u
#define VV_NINEP_LOCK_SUCCESS 0u
#define VV_NINEP_LOCK_BLOCKED 1u
#define VV_NINEP_LOCK_ERROR 2u
#define VV_NINEP_LOCK_GRACE 3u

#define VV_NINEP_UNLINK_DIR 0x200u /* unlinkat: AT_REMOVEDIR */

/* The fields of lock, getlock and Rgetlock. */
struct vv_ninep_lock {
    uint8_t type;
    uint32_t flags; /* of lock only */
    uint64_t start;
    uint64_t length; /* 0 = to the end of the file */
    uint32_t proc_id;
    struct vv_bytes client_id;
};

struct vv_ninep_setattr {
    uint32_t valid, mode, uid, gid;
    uint64_t size;
    struct timespec atime, mtime;
};

/* A decoded request. Fields are named as in the table above; `fid` is the first fid of the body
 * (dfid and afid too), `newfid` the second. Byte strings point into the message. */
struct vv_ninep_request {
    uint8_t type;
    uint16_t tag;
    uint32_t fid;
    uint32_t newfid;
    uint32_t flags; /* lopen, lcreate, xattrcreate, unlinkat; datasync of fsync */
    uint32_t mode;
    uint32_t gid;
    uint32_t major, minor;
    uint32_t n_uname;
    uint32_t msize;
    uint32_t count;
    uint16_t oldtag;
    uint64_t offset;
    uint64_t size;
    uint64_t mask;
    struct vv_bytes name;    /* also version and uname */
    struct vv_bytes newname; /* of renameat; also target and aname */
    struct vv_bytes data;
    uint16_t name_count;
    struct vv_bytes names[VV_NINEP_WALK_MAX];
    struct vv_ninep_lock lock;
    struct vv_ninep_setattr setattr;
};

/* What a reply carries, by the type of its request. */
struct vv_ninep_getattr {
    uint64_t valid;
    struct vv_ninep_qid qid;
    uint32_t mode, uid, gid;
    uint64_t nlink, rdev, size, blksize, blocks;
    struct timespec atime, mtime, ctime, btime;
    uint64_t gen, data_version;
};
struct vv_ninep_statfs {
    uint32_t type, bsize;
    uint64_t blocks, bfree, bavail, files, ffree, fsid;
    uint32_t namelen;
};
struct vv_ninep_reply {
    uint8_t type; /* of the reply: request type + 1, or VV_NINEP_RLERROR */
    uint16_t tag;
    uint32_t error; /* Rlerror: a Linux errno */
    struct vv_ninep_qid qid;
    uint32_t iounit;
    uint32_t msize;
    uint32_t count;       /* of write */
    uint64_t size;        /* of xattrwalk */
    uint8_t status;       /* of lock */
    struct vv_bytes name; /* version, target of readlink */
    struct vv_bytes data; /* of read and readdir */
    uint16_t qid_count;
    struct vv_ninep_qid qids[VV_NINEP_WALK_MAX];
    struct vv_ninep_getattr getattr;
    struct vv_ninep_statfs statfs;
    struct vv_ninep_lock lock; /* of getlock */
};

/* The size field of a message that begins with these 4 bytes; the caller checks it against msize.
 */
uint32_t vv_ninep_size(const uint8_t bytes[4]);

/* Decode a whole message (`len` bytes, the first four of which are the size). *out is always filled
 * as far as type and tag, so that an error can be answered. 0; -VV_ERR_FORMAT: cut off, bytes left
 * over, a NUL in a string, size wrong; -EOPNOTSUPP: a type that 9P2000.L has not; -EINVAL: a value
 * without meaning (too many names in a walk). */
MUST_CHECK int vv_ninep_decode_request(const void *message, size_t len,
                                       struct vv_ninep_request *out_request);
/* The same for a Twrite of `len` bytes of which the first VV_NINEP_WRITE_HEAD_BYTES are here: its data is as long as its count says, which fits,
 * and elsewhere (ptr NULL). -VV_ERR_FORMAT: it is none, or does not fit. */
#define VV_NINEP_WRITE_HEAD_BYTES (VV_NINEP_HEADER_BYTES + 16u) /* and fid, offset, count */
MUST_CHECK int vv_ninep_decode_write(const void *head, size_t len,
                                     struct vv_ninep_request *out_request);
/* The twin, for clients and tests: appends the message to the writer. Errors are the writer's;
 * -EOPNOTSUPP for an unknown type. */
MUST_CHECK int vv_ninep_encode_request(struct vv_writer *writer,
                                       const struct vv_ninep_request *request);

/* Append the reply. For read and readdir, `data` may be left out (ptr NULL, len set): the
 * size counts it and the caller sends it behind. Errors are the writer's; -EOPNOTSUPP. */
MUST_CHECK int vv_ninep_encode_reply(struct vv_writer *writer, const struct vv_ninep_reply *reply);
/* The twin, for clients and tests. Errors as vv_ninep_decode_request. */
MUST_CHECK int vv_ninep_decode_reply(const void *message, size_t len,
                                     struct vv_ninep_reply *out_reply);

/* Append one entry of a Rreaddir's data. False when it does not fit; nothing is written then. */
bool vv_ninep_encode_dirent(struct vv_writer *writer, const struct vv_ninep_qid *qid,
                            uint64_t offset, uint8_t type, struct vv_bytes name);

/* "Twalk tag 3 fid 1 ..." for log lines; returns out. */
char *vv_ninep_request_to_text(const struct vv_ninep_request *request, char *out, size_t size);

#endif
