/* The NFS door: NFS version 3 and MOUNT versions 3 and 1 on one TCP port (no portmapper is needed:
 * mount -o vers=3,tcp,nolock,port=P,mountport=P). The port also answers a portmapper's questions
 * about itself, and can be registered with a running rpcbind.
 *
 * One fiber reads each connection and starts a fiber for each request; replies leave in the order
 * in which they are ready. What comes in is hostile until decoded: a record that makes no sense is
 * answered as RPC says, or ends its connection when the stream can't be trusted any more; other
 * connections never notice.
 *
 * Handles hold (volume id, inode, generation) and nothing else: they stay valid across restarts and
 * renames. Cookies are the volume's own and never change. What is durable when:
 *   - WRITE UNSTABLE: nothing is promised; DATA_SYNC, FILE_SYNC: on reply.
 *   - COMMIT: on reply. The write verifier is a hash of (volume id, epoch): a server that has
 *     started anew has another, and clients send again what was not committed.
 *   - operations that change names or attributes: on reply, unless the export is `async`.
 * Requests that are not idempotent are remembered with their replies (VV_NFS_REPLIES_MAX of them),
 * by the client's address, the xid and a checksum: sent again, they get the same reply. Those that
 * changed names, or cut a file, are remembered in the volume too, in the same step as the change
 * (struct vv_fs_reply): a server that has started anew answers them with OK and what is there now,
 * and does not do them again. There the client is its address and the name that AUTH_SYS gives; not
 * its port, for a client that connects anew may come from another one.
 *
 * Who may do what: an export gives a directory and all below it to some addresses. AUTH_SYS is
 * believed, after squashing; AUTH_NONE is nobody. As NFS servers do, the owner of a file may always
 * read and write it (he may have opened it before), and what may be executed may be read.
 *
 * Memory: front/conn/conn.h. Limits: below; at each one, reading stops or the request fails as said. All calls: from a fiber,
 * on one reactor. */
#ifndef VV_FRONT_NFS_NFS_H
#define VV_FRONT_NFS_NFS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "front/conn/conn.h"
#include "fs/fs.h"

#define VV_NFS_CONNECTIONS_MAX 1024  /* then the one that is idle for longest is closed for a new one */
#define VV_NFS_REQUESTS_MAX 256      /* of a connection at once, then it is not read */
#define VV_NFS_RECORD_MAX_S 30       /* a record that is not complete after so long ends its connection */
#define VV_NFS_SEND_MAX_S 60         /* so does a client that takes nothing for so long */
#define VV_NFS_FRAGMENTS_MAX 4096    /* of a record */
#define VV_NFS_REPLIES_MAX 4096      /* remembered; the oldest is forgotten */
#define VV_NFS_EXPORTS_MAX 64
#define VV_NFS_EXPORT_PATH_MAX 1024

/* A directory that is given to clients, and how. */
struct vv_nfs_export {
    char path[VV_NFS_EXPORT_PATH_MAX + 1];
    char client[64];     /* the network as it was written, for showmount */
    uint8_t network[16]; /* IPv4 as ::ffff:a.b.c.d */
    unsigned prefix;     /* bits of it that count */
    bool is_loopback;    /* 127.0.0.0/8 and ::1 instead (the default) */
    bool is_read_only;
    bool is_root_squashed; /* uid 0 becomes anonuid (the default) */
    bool is_all_squashed;  /* everybody does */
    bool is_async;         /* changes of names and attributes are answered before they are durable */
    bool is_insecure;      /* source ports of 1024 and above are accepted */
    uint32_t anon_uid, anon_gid;
};

/* "PATH[:OPTION,...][@NETWORK]", e.g. "/", "/data:ro,no_root_squash@10.0.0.0/8", "/pub:ro@*".
 * Options: ro rw root_squash no_root_squash all_squash anonuid=N anongid=N sync async secure
 * insecure. NETWORK: ADDRESS[/BITS] or *; without it, loopback only. -EINVAL, with what is wrong in
 * *out_why (static). */
MUST_CHECK int vv_nfs_export_parse(const char *text, struct vv_nfs_export *out_export,
                                   const char **out_why);

struct vv_nfs_options {
    const char *address; /* as vv_socket_listen */
    unsigned door;       /* see vv_fs_watch */
    bool is_read_only;   /* changes are NFS3ERR_ROFS */
    const struct vv_nfs_export *exports; /* copied */
    unsigned export_count;               /* 0 = "/" with the defaults */
    struct vv_conn_memory *memory; /* for requests and replies, borrowed; NULL = one of its own */
    const char *rpcbind; /* register with the rpcbind that listens here ("unix:/run/rpcbind.sock");
                            NULL = don't */
};

struct vv_nfs;

/* Listen and begin to serve. Errors of vv_socket_listen; -ENOMEM; -VV_ERR_LIMIT (exports); -ENOENT
 * and the like when an exported directory is not there; of the registration. Suspends. */
MUST_CHECK int vv_nfs_listen(struct vv_fs *fs, const struct vv_nfs_options *options,
                             struct vv_nfs **out_nfs);
/* Close the listener and all connections; return when no fiber of it runs any more. Suspends. NULL
 * is fine. */
void vv_nfs_close(struct vv_nfs *nfs);
/* The TCP port listened on (0 for unix sockets). */
unsigned vv_nfs_port(const struct vv_nfs *nfs);

struct vv_nfs_stats {
    uint64_t requests, errors; /* answered; of those, with a status other than OK */
    uint64_t repeated;         /* answered with the reply of an earlier one */
    uint64_t recovered;        /* answered for an earlier server, which had done it */
    uint64_t read_bytes, write_bytes;
    uint64_t connections_total, connections_evicted, protocol_errors;
    unsigned connections, replies;
};
void vv_nfs_stats(const struct vv_nfs *nfs, struct vv_nfs_stats *out_stats);

#endif
