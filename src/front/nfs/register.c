/* Registration with a running rpcbind (RFC 1833, version 4, over its unix socket or TCP). */
#include <string.h>

#include "base/log.h"
#include "base/text.h"
#include "front/nfs/nfs_impl.h"
#include "front/nfs/xdr.h"

#define RPCBIND_PROGRAM 100000u
#define RPCBIND_VERSION 4u
#define TIMEOUT_S 5
#define REPLY_BYTES 256
enum { RPCBIND_SET = 1, RPCBIND_UNSET = 2 };

static const struct {
    uint32_t program, version;
} services[] = {
    {VV_NFS_PROGRAM, VV_NFS_VERSION},
    {VV_NFS_MOUNT_PROGRAM, VV_NFS_MOUNT_VERSION},
    {VV_NFS_MOUNT_PROGRAM, VV_NFS_MOUNT_VERSION_OLD},
};

static void put_text(struct vv_writer *writer, const char *text)
{
    struct vv_xdr xdr = vv_xdr_encoder(writer);
    struct vv_bytes bytes = {(const uint8_t *)text, strlen(text)};
    vv_xdr_bytes(&xdr, &bytes, SIZE_MAX);
}

static int receive(struct vv_socket *socket, uint8_t *buf, size_t size, size_t *out_len)
{
    size_t len = 0;
    size_t need = VV_RPC_FRAGMENT_HEADER_BYTES;
    bool is_last = true;
    while (len < need) {
        ssize_t got =
            vv_socket_recv(socket, buf + len, size - len, vv_rt_now_ns() + TIMEOUT_S * VV_NS_PER_S);
        if (got <= 0)
            return got < 0 ? (int)got : -EPIPE;
        len += (size_t)got;
        if (len >= VV_RPC_FRAGMENT_HEADER_BYTES)
            need = VV_RPC_FRAGMENT_HEADER_BYTES + vv_rpc_fragment(buf, &is_last);
        if (need > size || !is_last)
            return -VV_ERR_FORMAT;
    }
    *out_len = need;
    return 0;
}

/* One call, whose result is a bool: 1 or 0. */
static int call(struct vv_socket *socket, uint32_t procedure, size_t service, const char *address)
{
    uint8_t args[256];
    uint8_t message[512];
    uint8_t answer[REPLY_BYTES];
    size_t len = 0;
    struct vv_writer writer = vv_writer_of(args, sizeof(args));
    vv_writer_be32(&writer, services[service].program);
    vv_writer_be32(&writer, services[service].version);
    put_text(&writer, "tcp");
    put_text(&writer, address);
    put_text(&writer, "varve");
    TRY(vv_writer_check(&writer));
    struct vv_rpc_call rpc = {.xid = (uint32_t)vv_rt_random_u64(),
                              .program = RPCBIND_PROGRAM,
                              .version = RPCBIND_VERSION,
                              .procedure = procedure,
                              .args = {args, writer.len}};
    writer = vv_writer_of(message, sizeof(message));
    TRY(vv_rpc_encode_call(&writer, &rpc));
    struct iovec iov = {writer.ptr, writer.len};
    TRY(vv_socket_send(socket, &iov, 1, vv_rt_now_ns() + TIMEOUT_S * VV_NS_PER_S));
    TRY(receive(socket, answer, sizeof(answer), &len));
    struct vv_rpc_reply reply;
    struct vv_bytes results;
    TRY(vv_rpc_decode_reply(answer + VV_RPC_FRAGMENT_HEADER_BYTES,
                            len - VV_RPC_FRAGMENT_HEADER_BYTES, &reply, &results));
    if (reply.status != VV_RPC_SUCCESS || results.len != 4)
        return -EPROTO;
    return results.ptr[3] == 1;
}

static int call_all(struct vv_nfs *nfs, const char *rpcbind, bool is_setting)
{
    struct vv_socket *socket;
    char address[64];
    unsigned port = vv_nfs_port(nfs);
    vv_format(address, sizeof(address), "0.0.0.0.%u.%u", port >> 8, port & 0xff);
    TRY(vv_socket_connect(rpcbind, vv_rt_now_ns() + TIMEOUT_S * VV_NS_PER_S, &socket));
    int err = 0;
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]) && err >= 0; i++) {
        /* What a server that was killed has left there. */
        err = call(socket, RPCBIND_UNSET, i, "");
        if (err >= 0 && is_setting) {
            int is_done = call(socket, RPCBIND_SET, i, address);
            err = is_done == 0 ? -EACCES : is_done;
        }
    }
    vv_socket_close(socket);
    return err < 0 ? err : 0;
}

int vv_nfs_register(struct vv_nfs *nfs, const char *address)
{
    TRY(call_all(nfs, address, true));
    return vv_copy_text(nfs->rpcbind, sizeof(nfs->rpcbind), address);
}

void vv_nfs_unregister(struct vv_nfs *nfs)
{
    if (nfs->rpcbind[0] == '\0')
        return;
    int err = call_all(nfs, nfs->rpcbind, false);
    if (err < 0)
        vv_warn("nfs", "unregistering at %s: %s", nfs->rpcbind, vv_err_text(err));
}
