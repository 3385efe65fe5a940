/* NFS version 3 and MOUNT versions 1 and 3 on the wire: the arguments and results of their
 * procedures, as XDR. Pure: no I/O, no allocation but the writer's, any thread.
 *
 * h handle (opaque, up to 64 bytes)   s string or opaque with its length   u4 u8 unsigned integers
 * [x] optional: u4 0, or u4 1 and x   t time: seconds u4, nanoseconds u4   v verifier, 8 bytes
 * fattr (84 bytes): type u4 mode u4 nlink u4 uid u4 gid u4 size u8 used u8 rdev u4 u4 fsid u8
 *                   fileid u8 atime t mtime t ctime t
 * sattr: [mode u4] [uid u4] [gid u4] [size u8] atime: how u4 (0 leave, 1 now, 2 and t) mtime: same
 * wcc: before [size u8 mtime t ctime t], after [fattr]
 *
 *    procedure    arguments                         results: status u4, then when it is 0 (OK)   when it is not
 *  0 NULL         -                                 nothing at all
 *  1 GETATTR      h                                 fattr                                        -
 *  2 SETATTR      h sattr [ctime t]                 wcc                                          wcc
 *  3 LOOKUP       dir h, name s                     h, [fattr], dir [fattr]                      dir [fattr]
 *  4 ACCESS       h access u4                       [fattr] access u4                            [fattr]
 *  5 READLINK     h                                 [fattr] target s                             [fattr]
 *  6 READ         h offset u8 count u4              [fattr] count u4 eof u4 data s               [fattr]
 *  7 WRITE        h offset u8 count u4 stable u4    wcc count u4 committed u4 v                  wcc
 *                 data s
 *  8 CREATE       dir h, name s, how u4: 0, 1 and   [h] [fattr] dir wcc                          dir wcc
 *                 sattr; 2 and v
 *  9 MKDIR        dir h, name s, sattr              as CREATE                                    dir wcc
 * 10 SYMLINK      dir h, name s, sattr, target s    as CREATE                                    dir wcc
 * 11 MKNOD        dir h, name s, type u4: 3, 4 and  as CREATE                                    dir wcc
 *                 sattr u4 u4; 6, 7 and sattr
 * 12 REMOVE       dir h, name s                     dir wcc                                      dir wcc
 * 13 RMDIR        dir h, name s                     dir wcc                                      dir wcc
 * 14 RENAME       h s, to h s                       wcc, to wcc                                  wcc, to wcc
 * 15 LINK         h, dir h, name s                  [fattr] dir wcc                              as OK
 * 16 READDIR      h cookie u8 v count u4            [fattr] v, entries, eof u4                   [fattr]
 *                                                   entry: u4 1, fileid u8 name s cookie u8;
 *                                                   behind the last u4 0
 * 17 READDIRPLUS  h cookie u8 v dircount u4         as READDIR; entry also [fattr] [h]           [fattr]
 *                 maxcount u4
 * 18 FSSTAT       h                                 [fattr] tbytes fbytes abytes tfiles ffiles   [fattr]
 *                                                   afiles u8 each, invarsec u4
 * 19 FSINFO       h                                 [fattr] rtmax rtpref rtmult wtmax wtpref     [fattr]
 *                                                   wtmult dtpref u4 each, maxfilesize u8,
 *                                                   time_delta t, properties u4
 * 20 PATHCONF     h                                 [fattr] linkmax u4 name_max u4, u4 each:     [fattr]
 *                                                   no_trunc chown_restricted case_insensitive
 *                                                   case_preserving
 * 21 COMMIT       h offset u8 count u4              wcc v                                        wcc
 *
 * MOUNT: 0 NULL; 1 MNT path s -> status u4, and when 0: v3 h, flavors (count u4, u4 each); v1
 * 32 bytes of handle; 2 DUMP -> entries [s s ...]; 3 UMNT path s; 4 UMNTALL; 5 EXPORT -> entries
 * [s, groups [s ...] ...].
 *
 * Source: RFC 1813, section 3 and appendix I. */
#ifndef VV_FRONT_NFS_CODEC_H
#define VV_FRONT_NFS_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define VV_NFS_PROGRAM 100003u
#define VV_NFS_VERSION 3u
#define VV_NFS_MOUNT_PROGRAM 100005u
#define VV_NFS_MOUNT_VERSION 3u
#define VV_NFS_MOUNT_VERSION_OLD 1u
#define VV_NFS_HANDLE_MAX 64u
#define VV_NFS_HANDLE_V1_BYTES 32u
#define VV_NFS_VERIFIER_BYTES 8u
#define VV_NFS_IO_MAX (1u << 20)   /* bytes of a READ or WRITE */
#define VV_NFS_NAME_WIRE_MAX 4096u /* of a name: longer than any that is allowed, so that it can be said */
#define VV_NFS_PATH_WIRE_MAX 8192u /* of a symlink's target, likewise */
#define VV_NFS_MOUNT_PATH_MAX 1024u
#define VV_NFS_FATTR_BYTES 84u

enum vv_nfs_procedure {
    VV_NFS_NULL,
    VV_NFS_GETATTR,
    VV_NFS_SETATTR,
    VV_NFS_LOOKUP,
    VV_NFS_ACCESS,
    VV_NFS_READLINK,
    VV_NFS_READ,
    VV_NFS_WRITE,
    VV_NFS_CREATE,
    VV_NFS_MKDIR,
    VV_NFS_SYMLINK,
    VV_NFS_MKNOD,
    VV_NFS_REMOVE,
    VV_NFS_RMDIR,
    VV_NFS_RENAME,
    VV_NFS_LINK,
    VV_NFS_READDIR,
    VV_NFS_READDIRPLUS,
    VV_NFS_FSSTAT,
    VV_NFS_FSINFO,
    VV_NFS_PATHCONF,
    VV_NFS_COMMIT,
    VV_NFS_PROCEDURES
};

enum vv_nfs_mount_procedure {
    VV_NFS_MOUNT_NULL,
    VV_NFS_MOUNT_MNT,
    VV_NFS_MOUNT_DUMP,
    VV_NFS_MOUNT_UMNT,
    VV_NFS_MOUNT_UMNTALL,
    VV_NFS_MOUNT_EXPORT,
    VV_NFS_MOUNT_PROCEDURES
};

enum vv_nfs_status {
    VV_NFS3_OK = 0,
    VV_NFS3ERR_PERM = 1,
    VV_NFS3ERR_NOENT = 2,
    VV_NFS3ERR_IO = 5,
    VV_NFS3ERR_NXIO = 6,
    VV_NFS3ERR_ACCES = 13,
    VV_NFS3ERR_EXIST = 17,
    VV_NFS3ERR_XDEV = 18,
    VV_NFS3ERR_NODEV = 19,
    VV_NFS3ERR_NOTDIR = 20,
    VV_NFS3ERR_ISDIR = 21,
    VV_NFS3ERR_INVAL = 22,
    VV_NFS3ERR_FBIG = 27,
    VV_NFS3ERR_NOSPC = 28,
    VV_NFS3ERR_ROFS = 30,
    VV_NFS3ERR_MLINK = 31,
    VV_NFS3ERR_NAMETOOLONG = 63,
    VV_NFS3ERR_NOTEMPTY = 66,
    VV_NFS3ERR_DQUOT = 69,
    VV_NFS3ERR_STALE = 70,
    VV_NFS3ERR_BADHANDLE = 10001,
    VV_NFS3ERR_NOT_SYNC = 10002,
    VV_NFS3ERR_BAD_COOKIE = 10003,
    VV_NFS3ERR_NOTSUPP = 10004,
    VV_NFS3ERR_TOOSMALL = 10005,
    VV_NFS3ERR_SERVERFAULT = 10006,
    VV_NFS3ERR_BADTYPE = 10007,
    VV_NFS3ERR_JUKEBOX = 10008
};

enum vv_nfs_type {
    VV_NF3REG = 1,
    VV_NF3DIR = 2,
    VV_NF3BLK = 3,
    VV_NF3CHR = 4,
    VV_NF3LNK = 5,
    VV_NF3SOCK = 6,
    VV_NF3FIFO = 7
};

enum vv_nfs_stable { VV_NFS_UNSTABLE, VV_NFS_DATA_SYNC, VV_NFS_FILE_SYNC };
enum vv_nfs_create_how { VV_NFS_UNCHECKED, VV_NFS_GUARDED, VV_NFS_EXCLUSIVE };

#define VV_NFS_ACCESS_READ 0x01u
#define VV_NFS_ACCESS_LOOKUP 0x02u
#define VV_NFS_ACCESS_MODIFY 0x04u
#define VV_NFS_ACCESS_EXTEND 0x08u
#define VV_NFS_ACCESS_DELETE 0x10u
#define VV_NFS_ACCESS_EXECUTE 0x20u

#define VV_NFS_FSF_LINK 0x01u
#define VV_NFS_FSF_SYMLINK 0x02u
#define VV_NFS_FSF_HOMOGENEOUS 0x08u
#define VV_NFS_FSF_CANSETTIME 0x10u

struct vv_nfs_handle {
    uint32_t len;
    uint8_t bytes[VV_NFS_HANDLE_MAX];
};

struct vv_nfs_time {
    uint32_t sec, nsec;
};

struct vv_nfs_fattr {
    uint32_t type, mode, nlink, uid, gid;
    uint64_t size, used;
    uint32_t major, minor;
    uint64_t fsid, fileid;
    struct vv_nfs_time atime, mtime, ctime;
};

enum vv_nfs_time_how { VV_NFS_TIME_KEEP, VV_NFS_TIME_NOW, VV_NFS_TIME_GIVEN };
struct vv_nfs_sattr {
    bool has_mode, has_uid, has_gid, has_size;
    uint32_t mode, uid, gid;
    uint64_t size;
    uint32_t atime_how, mtime_how; /* enum vv_nfs_time_how */
    struct vv_nfs_time atime, mtime;
};

struct vv_nfs_wcc {
    bool has_before, has_after;
    uint64_t size; /* before */
    struct vv_nfs_time mtime, ctime;
    struct vv_nfs_fattr after;
};

/* Arguments. Fields are named as in the table; byte strings point into the record. */
struct vv_nfs_args {
    struct vv_nfs_handle handle;    /* the first */
    struct vv_nfs_handle to_handle; /* dir of LINK, to of RENAME */
    struct vv_bytes name, to_name;
    struct vv_bytes data; /* WRITE; target of SYMLINK */
    struct vv_nfs_sattr sattr;
    bool has_guard;
    struct vv_nfs_time guard;
    uint32_t access;
    uint64_t offset; /* also a cookie */
    uint32_t count, dir_count;
    uint32_t how; /* stable of WRITE, how of CREATE, type of MKNOD */
    uint32_t major, minor;
    uint8_t verifier[VV_NFS_VERIFIER_BYTES];
};

/* Results, likewise. `has_` says whether an optional part is there. */
struct vv_nfs_results {
    uint32_t status;
    bool has_handle, has_attr, has_dir_attr;
    struct vv_nfs_handle handle;
    struct vv_nfs_fattr attr;
    struct vv_nfs_fattr dir_attr; /* LOOKUP only; READDIR's directory is `attr` */
    struct vv_nfs_wcc wcc, to_wcc;
    uint32_t access, count, committed;
    bool is_eof;
    struct vv_bytes data; /* READ, READLINK; encoded entries of READDIR and READDIRPLUS */
    uint8_t verifier[VV_NFS_VERIFIER_BYTES];
    uint64_t space[6]; /* FSSTAT: bytes total, free, available; files likewise */
    uint32_t invarsec;
    uint32_t io[7]; /* FSINFO: rtmax to dtpref */
    uint64_t max_file_size;
    struct vv_nfs_time time_delta;
    uint32_t properties;
    uint32_t link_max, name_max;
    bool is_no_trunc, is_chown_restricted, is_case_insensitive, is_case_preserving;
};

/* Arguments of an NFS procedure. 0; -VV_ERR_FORMAT (cut off, bytes left over, a value that the
 * protocol has not); -EOPNOTSUPP (no such procedure). */
MUST_CHECK int vv_nfs_decode_args(uint32_t procedure, struct vv_bytes bytes,
                                  struct vv_nfs_args *out_args);
/* The arguments of a WRITE up to its data, which is elsewhere (ptr NULL): *out_len is how many of `bytes` they are. */
MUST_CHECK int vv_nfs_decode_write(struct vv_bytes bytes, struct vv_nfs_args *out_args,
                                   size_t *out_len);
/* The twin, for clients and tests. Errors of the writer, -EOPNOTSUPP. */
MUST_CHECK int vv_nfs_encode_args(struct vv_writer *writer, uint32_t procedure,
                                  const struct vv_nfs_args *args);
/* Append results. For READ, `data` may be left out (ptr NULL, len set): the caller sends it, and
 * its padding, behind. */
MUST_CHECK int vv_nfs_encode_results(struct vv_writer *writer, uint32_t procedure,
                                     const struct vv_nfs_results *results);
/* The twin, for clients and tests. READDIR's entries are not decoded: vv_nfs_decode_entry does. */
MUST_CHECK int vv_nfs_decode_results(uint32_t procedure, struct vv_bytes bytes,
                                     struct vv_nfs_results *out_results);

/* An entry of READDIR, and of READDIRPLUS (is_plus) with attributes and handle where known. */
struct vv_nfs_entry {
    uint64_t fileid, cookie;
    struct vv_bytes name;
    bool has_attr, has_handle;
    struct vv_nfs_fattr attr;
    struct vv_nfs_handle handle;
};
/* Bytes that it takes. */
size_t vv_nfs_entry_bytes(const struct vv_nfs_entry *entry, bool is_plus);
MUST_CHECK int vv_nfs_encode_entry(struct vv_writer *writer, const struct vv_nfs_entry *entry,
                                   bool is_plus);
/* The next entry of results.data: 1, 0 = there are no more, -VV_ERR_FORMAT. */
MUST_CHECK int vv_nfs_decode_entry(struct vv_bytes *entries, bool is_plus,
                                   struct vv_nfs_entry *out_entry);

/* MOUNT: the path of MNT and UMNT (other procedures have no arguments). Errors as decode_args. */
MUST_CHECK int vv_nfs_decode_mount_args(uint32_t procedure, struct vv_bytes bytes,
                                        struct vv_bytes *out_path);

/* "CREATE" and the like for log lines; "?" for what is none. */
const char *vv_nfs_procedure_name(uint32_t procedure);

#endif
