/* ONC RPC version 2 over a stream (RFC 5531): records, calls and replies. Pure: no I/O, any
 * thread.
 *
 * A stream is records, a record is fragments: a header of 4 bytes (bit 31: the last fragment of
 * its record; the rest: bytes of the fragment), then the bytes. A record is one message:
 *
 * call:   xid 0 rpcvers prog vers proc cred verf args      (each a u32 but for the last three)
 * reply:  xid 1 0 verf accept_stat ...                     accepted: 0 and the results;
 *                                                          2 (PROG_MISMATCH) and low, high; else
 *                                                          nothing more
 *         xid 1 1 0 low high                               denied: RPC_MISMATCH
 *         xid 1 1 1 auth_stat                              denied: AUTH_ERROR
 * cred and verf: flavor, then up to 400 bytes of opaque. AUTH_SYS's cred (RFC 5531 appendix A):
 *         stamp, machine name (up to 255 bytes), uid, gid, up to 16 gids (count first) */
#ifndef VV_FRONT_NFS_RPC_H
#define VV_FRONT_NFS_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define VV_RPC_VERSION 2u
#define VV_RPC_FRAGMENT_HEADER_BYTES 4u
#define VV_RPC_LAST_FRAGMENT 0x80000000u
#define VV_RPC_GIDS_MAX 16
#define VV_RPC_AUTH_BYTES_MAX 400u
#define VV_RPC_MACHINE_MAX 255u

enum vv_rpc_flavor { VV_RPC_AUTH_NONE = 0, VV_RPC_AUTH_SYS = 1 };

/* accept_stat, and the two ways of being denied as further values. */
enum vv_rpc_status {
    VV_RPC_SUCCESS = 0,
    VV_RPC_PROG_UNAVAIL = 1,
    VV_RPC_PROG_MISMATCH = 2,
    VV_RPC_PROC_UNAVAIL = 3,
    VV_RPC_GARBAGE_ARGS = 4,
    VV_RPC_SYSTEM_ERR = 5,
    VV_RPC_ACCEPT_MAX = VV_RPC_SYSTEM_ERR,
    VV_RPC_DENIED_VERSION = 100,
    VV_RPC_DENIED_AUTH = 101
};

enum vv_rpc_auth_stat { VV_RPC_AUTH_BADCRED = 1, VV_RPC_AUTH_BADVERF = 3, VV_RPC_AUTH_TOOWEAK = 5 };

struct vv_rpc_call {
    uint32_t xid;
    uint32_t program, version, procedure;
    uint32_t flavor; /* of the credentials */
    /* of AUTH_SYS */
    uint32_t stamp, uid, gid;
    uint32_t gid_count;
    uint32_t gids[VV_RPC_GIDS_MAX];
    struct vv_bytes machine;
    struct vv_bytes args; /* what follows: the procedure's own */
};

struct vv_rpc_reply {
    uint32_t xid;
    enum vv_rpc_status status;
    uint32_t low, high; /* of the two version mismatches */
    uint32_t auth_stat; /* of DENIED_AUTH */
};

/* The header of a fragment: its bytes, and whether it ends its record. */
uint32_t vv_rpc_fragment(const uint8_t header[VV_RPC_FRAGMENT_HEADER_BYTES], bool *out_is_last);

/* Decode a record as a call; byte strings point into it. 0: out_reply->status is SUCCESS, or what
 * the caller is to be told instead (then out_call holds the xid). -VV_ERR_FORMAT: not a call, or
 * cut off: nobody can be told. */
MUST_CHECK int vv_rpc_decode_call(const void *record, size_t len, struct vv_rpc_call *out_call,
                                  struct vv_rpc_reply *out_reply);
/* The twin, for clients and tests: the fragment header, the call and its args. */
MUST_CHECK int vv_rpc_encode_call(struct vv_writer *writer, const struct vv_rpc_call *call);

/* Append a fragment header and a reply; results follow when it is SUCCESS. vv_rpc_finish then sets
 * the header: the fragment begins at `start` of the writer, and `more` bytes are sent behind it. */
MUST_CHECK int vv_rpc_encode_reply(struct vv_writer *writer, const struct vv_rpc_reply *reply);
MUST_CHECK int vv_rpc_finish(struct vv_writer *writer, size_t start, size_t more);
/* The twin: a record (without its header) as a reply; *out_results is what follows. */
MUST_CHECK int vv_rpc_decode_reply(const void *record, size_t len, struct vv_rpc_reply *out_reply,
                                   struct vv_bytes *out_results);

#endif
