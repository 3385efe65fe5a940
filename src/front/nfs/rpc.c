#include "front/nfs/rpc.h"

#include <string.h>

#include "front/nfs/xdr.h"

enum { CALL = 0, REPLY = 1, ACCEPTED = 0, DENIED = 1, RPC_MISMATCH = 0, AUTH_ERROR = 1 };

uint32_t vv_rpc_fragment(const uint8_t header[VV_RPC_FRAGMENT_HEADER_BYTES], bool *out_is_last)
{
    struct vv_cursor cursor = vv_cursor_of(header, VV_RPC_FRAGMENT_HEADER_BYTES);
    uint32_t value = vv_cursor_be32(&cursor);
    *out_is_last = value & VV_RPC_LAST_FRAGMENT;
    return value & ~VV_RPC_LAST_FRAGMENT;
}

static void put_fragment(uint8_t *header, size_t len)
{
    uint32_t value = (uint32_t)len | VV_RPC_LAST_FRAGMENT;
    for (int i = 0; i < 4; i++)
        header[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* The body of AUTH_SYS's credentials. */
static void auth_sys(struct vv_xdr *xdr, struct vv_rpc_call *call)
{
    vv_xdr_u32(xdr, &call->stamp);
    vv_xdr_bytes(xdr, &call->machine, VV_RPC_MACHINE_MAX);
    vv_xdr_u32(xdr, &call->uid);
    vv_xdr_u32(xdr, &call->gid);
    vv_xdr_u32(xdr, &call->gid_count);
    if (call->gid_count > VV_RPC_GIDS_MAX) {
        call->gid_count = 0;
        vv_xdr_fail(xdr);
    }
    for (uint32_t i = 0; i < call->gid_count; i++)
        vv_xdr_u32(xdr, &call->gids[i]);
}

/* SUCCESS, or why the credentials are refused. */
static uint32_t decode_cred(struct vv_rpc_call *call, struct vv_bytes body)
{
    if (call->flavor == VV_RPC_AUTH_NONE)
        return 0;
    if (call->flavor != VV_RPC_AUTH_SYS)
        return VV_RPC_AUTH_TOOWEAK;
    struct vv_xdr xdr = vv_xdr_decoder(body.ptr, body.len);
    auth_sys(&xdr, call);
    return vv_xdr_end(&xdr) < 0 ? VV_RPC_AUTH_BADCRED : 0;
}

int vv_rpc_decode_call(const void *record, size_t len, struct vv_rpc_call *out_call,
                       struct vv_rpc_reply *out_reply)
{
    struct vv_xdr xdr = vv_xdr_decoder(record, len);
    uint32_t type = REPLY;
    uint32_t version = 0;
    uint32_t verf_flavor = 0;
    struct vv_bytes cred = {NULL, 0};
    struct vv_bytes verf = {NULL, 0};
    *out_call = (struct vv_rpc_call){0};
    *out_reply = (struct vv_rpc_reply){.status = VV_RPC_SUCCESS};
    vv_xdr_u32(&xdr, &out_call->xid);
    vv_xdr_u32(&xdr, &type);
    vv_xdr_u32(&xdr, &version);
    TRY(vv_cursor_check(&xdr.cursor));
    if (type != CALL)
        return -VV_ERR_FORMAT;
    out_reply->xid = out_call->xid;
    if (version != VV_RPC_VERSION) {
        out_reply->status = VV_RPC_DENIED_VERSION;
        out_reply->low = VV_RPC_VERSION;
        out_reply->high = VV_RPC_VERSION;
        return 0;
    }
    vv_xdr_u32(&xdr, &out_call->program);
    vv_xdr_u32(&xdr, &out_call->version);
    vv_xdr_u32(&xdr, &out_call->procedure);
    vv_xdr_u32(&xdr, &out_call->flavor);
    vv_xdr_bytes(&xdr, &cred, VV_RPC_AUTH_BYTES_MAX);
    vv_xdr_u32(&xdr, &verf_flavor);
    vv_xdr_bytes(&xdr, &verf, VV_RPC_AUTH_BYTES_MAX);
    TRY(vv_cursor_check(&xdr.cursor));
    out_call->args = vv_cursor_bytes(&xdr.cursor, xdr.cursor.len);
    out_reply->auth_stat = decode_cred(out_call, cred);
    if (out_reply->auth_stat != 0)
        out_reply->status = VV_RPC_DENIED_AUTH;
    return 0;
}

static void put_none(struct vv_writer *writer)
{
    vv_writer_be32(writer, VV_RPC_AUTH_NONE);
    vv_writer_be32(writer, 0);
}

int vv_rpc_encode_call(struct vv_writer *writer, const struct vv_rpc_call *call)
{
    uint8_t cred[VV_RPC_AUTH_BYTES_MAX];
    struct vv_writer cred_writer = vv_writer_of(cred, sizeof(cred));
    struct vv_xdr cred_xdr = vv_xdr_encoder(&cred_writer);
    struct vv_rpc_call copy = *call;
    if (call->flavor == VV_RPC_AUTH_SYS)
        auth_sys(&cred_xdr, &copy);
    TRY(vv_xdr_end(&cred_xdr));
    size_t start = writer->len;
    vv_writer_be32(writer, 0);
    vv_writer_be32(writer, call->xid);
    vv_writer_be32(writer, CALL);
    vv_writer_be32(writer, VV_RPC_VERSION);
    vv_writer_be32(writer, call->program);
    vv_writer_be32(writer, call->version);
    vv_writer_be32(writer, call->procedure);
    vv_writer_be32(writer, call->flavor);
    struct vv_xdr xdr = vv_xdr_encoder(writer);
    struct vv_bytes body = {cred, cred_writer.len};
    vv_xdr_bytes(&xdr, &body, sizeof(cred));
    put_none(writer);
    vv_writer_bytes(writer, call->args.ptr, call->args.len);
    return vv_rpc_finish(writer, start, 0);
}

int vv_rpc_encode_reply(struct vv_writer *writer, const struct vv_rpc_reply *reply)
{
    bool is_denied = reply->status > VV_RPC_ACCEPT_MAX;
    vv_writer_be32(writer, 0);
    vv_writer_be32(writer, reply->xid);
    vv_writer_be32(writer, REPLY);
    vv_writer_be32(writer, is_denied ? DENIED : ACCEPTED);
    if (!is_denied) {
        put_none(writer);
        vv_writer_be32(writer, reply->status);
    } else {
        vv_writer_be32(writer, reply->status == VV_RPC_DENIED_AUTH ? AUTH_ERROR : RPC_MISMATCH);
    }
    if (reply->status == VV_RPC_DENIED_AUTH) {
        vv_writer_be32(writer, reply->auth_stat);
    } else if (reply->status == VV_RPC_DENIED_VERSION || reply->status == VV_RPC_PROG_MISMATCH) {
        vv_writer_be32(writer, reply->low);
        vv_writer_be32(writer, reply->high);
    }
    return vv_writer_check(writer);
}

int vv_rpc_finish(struct vv_writer *writer, size_t start, size_t more)
{
    TRY(vv_writer_check(writer));
    put_fragment(writer->ptr + start, writer->len - start - VV_RPC_FRAGMENT_HEADER_BYTES + more);
    return 0;
}

/* What follows the two words that say how the reply was denied or accepted. */
static int decode_status(struct vv_xdr *xdr, bool is_denied, struct vv_rpc_reply *reply)
{
    uint32_t status = 0;
    struct vv_bytes verf = {NULL, 0};
    if (!is_denied) {
        vv_xdr_u32(xdr, &status); /* the verifier's flavor */
        vv_xdr_bytes(xdr, &verf, VV_RPC_AUTH_BYTES_MAX);
    }
    vv_xdr_u32(xdr, &status);
    if (status > (is_denied ? AUTH_ERROR : VV_RPC_ACCEPT_MAX))
        return -VV_ERR_FORMAT;
    reply->status = (enum vv_rpc_status)status;
    if (is_denied)
        reply->status = status == AUTH_ERROR ? VV_RPC_DENIED_AUTH : VV_RPC_DENIED_VERSION;
    if (reply->status == VV_RPC_DENIED_AUTH) {
        vv_xdr_u32(xdr, &reply->auth_stat);
    } else if (reply->status == VV_RPC_DENIED_VERSION || reply->status == VV_RPC_PROG_MISMATCH) {
        vv_xdr_u32(xdr, &reply->low);
        vv_xdr_u32(xdr, &reply->high);
    }
    return 0;
}

int vv_rpc_decode_reply(const void *record, size_t len, struct vv_rpc_reply *out_reply,
                        struct vv_bytes *out_results)
{
    struct vv_xdr xdr = vv_xdr_decoder(record, len);
    uint32_t type = CALL;
    uint32_t stat = ACCEPTED;
    *out_reply = (struct vv_rpc_reply){0};
    vv_xdr_u32(&xdr, &out_reply->xid);
    vv_xdr_u32(&xdr, &type);
    vv_xdr_u32(&xdr, &stat);
    if (type != REPLY || stat > DENIED)
        return -VV_ERR_FORMAT;
    TRY(decode_status(&xdr, stat == DENIED, out_reply));
    TRY(vv_cursor_check(&xdr.cursor));
    *out_results = vv_cursor_bytes(&xdr.cursor, xdr.cursor.len);
    return 0;
}
