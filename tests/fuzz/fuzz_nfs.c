/* RPC records, and the arguments and results of NFS and MOUNT: whatever decodes must encode to
 * something that decodes to the same. The first byte says what the rest is: 0 a call with its
 * arguments, 1 a reply, 2 + p the results of NFS procedure p, 32 + p MOUNT arguments. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "front/nfs/codec.h"
#include "front/nfs/rpc.h"

#define OUT_BYTES (1u << 17)
static uint8_t first[OUT_BYTES], second[OUT_BYTES];

/* What is a WRITE as a whole has the same head when its data is elsewhere. */
static void try_write(struct vv_bytes bytes)
{
    struct vv_nfs_args args, whole;
    size_t len = 0;
    int err = vv_nfs_decode_write(bytes, &args, &len);
    if (err == 0 && (len > bytes.len || args.data.len != args.count))
        abort();
    if (vv_nfs_decode_args(VV_NFS_WRITE, bytes, &whole) == 0 &&
        (err < 0 || whole.offset != args.offset || whole.data.len != args.data.len ||
         (whole.data.len > 0 && whole.data.ptr != bytes.ptr + len)))
        abort();
}

static void try_args(uint32_t procedure, struct vv_bytes bytes)
{
    struct vv_nfs_args args, again;
    if (procedure == VV_NFS_WRITE)
        try_write(bytes);
    if (vv_nfs_decode_args(procedure, bytes, &args) < 0)
        return;
    struct vv_writer writer = vv_writer_of(first, sizeof(first));
    if (vv_nfs_encode_args(&writer, procedure, &args) < 0) {
        if (bytes.len < OUT_BYTES / 2)
            abort();
        return;
    }
    if (vv_nfs_decode_args(procedure, (struct vv_bytes){first, writer.len}, &again) < 0)
        abort();
    struct vv_writer writer_again = vv_writer_of(second, sizeof(second));
    if (vv_nfs_encode_args(&writer_again, procedure, &again) < 0 ||
        writer_again.len != writer.len || memcmp(first, second, writer.len) != 0)
        abort();
}

static void try_call(const uint8_t *data, size_t size)
{
    struct vv_rpc_call call, again;
    struct vv_rpc_reply reply;
    if (vv_rpc_decode_call(data, size, &call, &reply) < 0 || reply.status != VV_RPC_SUCCESS)
        return;
    if (call.program == VV_NFS_PROGRAM)
        try_args(call.procedure, call.args);
    struct vv_writer writer = vv_writer_of(first, sizeof(first));
    if (vv_rpc_encode_call(&writer, &call) < 0) {
        if (size < OUT_BYTES / 2)
            abort();
        return;
    }
    if (vv_rpc_decode_call(first + 4, writer.len - 4, &again, &reply) < 0 ||
        reply.status != VV_RPC_SUCCESS || again.xid != call.xid || again.uid != call.uid ||
        again.gid_count != call.gid_count || again.args.len != call.args.len)
        abort();
}

static void try_reply(const uint8_t *data, size_t size)
{
    struct vv_rpc_reply reply, again;
    struct vv_bytes results;
    if (vv_rpc_decode_reply(data, size, &reply, &results) < 0)
        return;
    struct vv_writer writer = vv_writer_of(first, sizeof(first));
    if (vv_rpc_encode_reply(&writer, &reply) < 0 || vv_rpc_finish(&writer, 0, 0) < 0 ||
        vv_rpc_decode_reply(first + 4, writer.len - 4, &again, &results) < 0 ||
        again.status != reply.status || again.xid != reply.xid)
        abort();
}

static void try_entries(struct vv_bytes entries, bool is_plus)
{
    struct vv_nfs_entry entry;
    while (vv_nfs_decode_entry(&entries, is_plus, &entry) > 0) {
        struct vv_writer writer = vv_writer_of(second, sizeof(second));
        if (vv_nfs_encode_entry(&writer, &entry, is_plus) < 0 ||
            writer.len != vv_nfs_entry_bytes(&entry, is_plus))
            abort();
    }
}

static void try_results(uint32_t procedure, struct vv_bytes bytes)
{
    struct vv_nfs_results results, again;
    if (vv_nfs_decode_results(procedure, bytes, &results) < 0)
        return;
    struct vv_writer writer = vv_writer_of(first, sizeof(first));
    if (vv_nfs_encode_results(&writer, procedure, &results) < 0) {
        if (bytes.len < OUT_BYTES / 2)
            abort();
        return;
    }
    if (vv_nfs_decode_results(procedure, (struct vv_bytes){first, writer.len}, &again) < 0)
        abort();
    if (results.status == 0 && procedure == VV_NFS_READDIR)
        try_entries(results.data, false);
    if (results.status == 0 && procedure == VV_NFS_READDIRPLUS)
        try_entries(results.data, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vv_bytes path;
    if (size == 0)
        return 0;
    struct vv_bytes rest = {data + 1, size - 1};
    if (data[0] == 0)
        try_call(rest.ptr, rest.len);
    else if (data[0] == 1)
        try_reply(rest.ptr, rest.len);
    else if (data[0] < 32)
        try_results(data[0] - 2u, rest);
    else if (vv_nfs_decode_mount_args(data[0] - 32u, rest, &path) == 0 &&
             path.len > VV_NFS_MOUNT_PATH_MAX)
        abort();
    return 0;
}
