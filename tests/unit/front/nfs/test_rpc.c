/* Calls and replies there and back, cut off at every byte; what must be refused, and how. */
#include "front/nfs/rpc.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "tap.h"

#define TEXT(text) ((struct vv_bytes){(const uint8_t *)(text), sizeof(text) - 1})

static const struct vv_rpc_call sample = {
    .xid = 0x12345678,
    .program = 100003,
    .version = 3,
    .procedure = 1,
    .flavor = VV_RPC_AUTH_SYS,
    .stamp = 9,
    .uid = 1000,
    .gid = 100,
    .gid_count = 3,
    .gids = {4, 5, 6},
    .machine = TEXT("client"),
    .args = TEXT("args"),
};

static size_t encode(uint8_t *out, size_t size, const struct vv_rpc_call *call)
{
    struct vv_writer writer = vv_writer_of(out, size);
    tap_is_int(vv_rpc_encode_call(&writer, call), 0, "a call");
    return writer.len;
}

static void test_fragments(void)
{
    bool is_last;
    tap_is_int(vv_rpc_fragment((const uint8_t *)"\x80\0\1\2", &is_last), 258, "a last fragment");
    tap_ok(is_last, "is the last");
    tap_is_int(vv_rpc_fragment((const uint8_t *)"\x7f\xff\xff\xff", &is_last), 0x7fffffff, "a long");
    tap_ok(!is_last, "is not");
}

static void test_call(void)
{
    uint8_t bytes[256];
    bool is_last;
    struct vv_rpc_call call;
    struct vv_rpc_reply reply;
    size_t len = encode(bytes, sizeof(bytes), &sample);
    tap_is_int(vv_rpc_fragment(bytes, &is_last), (int64_t)len - 4, "in one fragment");
    tap_is_int(vv_rpc_decode_call(bytes + 4, len - 4, &call, &reply), 0, "decodes");
    tap_is_int(reply.status, VV_RPC_SUCCESS, "and is accepted");
    tap_ok(call.xid == sample.xid && call.uid == 1000 && call.gid == 100 && call.gid_count == 3 &&
               call.gids[2] == 6 && call.machine.len == 6 && call.procedure == 1,
           "with its fields");
    tap_ok(call.args.len == 4 && memcmp(call.args.ptr, "args", 4) == 0, "and arguments");
    int cut_count = 0;
    for (size_t i = 0; i < len - 8; i++)
        cut_count += vv_rpc_decode_call(bytes + 4, i, &call, &reply) == -VV_ERR_FORMAT;
    tap_is_int(cut_count, (int64_t)len - 8, "cut off before its arguments it can't be answered");
}

static uint32_t status_of(const uint8_t *bytes, size_t len)
{
    struct vv_rpc_call call;
    struct vv_rpc_reply reply;
    int err = vv_rpc_decode_call(bytes, len, &call, &reply);
    return err < 0 ? UINT32_MAX : reply.status == VV_RPC_DENIED_AUTH ? 1000 + reply.auth_stat
                                                                     : reply.status;
}

static void test_refused(void)
{
    uint8_t bytes[256];
    size_t len = encode(bytes, sizeof(bytes), &sample) - 4;
    uint8_t *record = bytes + 4;
    record[11] = 3;
    tap_is_int(status_of(record, len), VV_RPC_DENIED_VERSION, "another version of RPC");
    record[11] = 2;
    record[7] = 1;
    tap_is_int(status_of(record, len), UINT32_MAX, "a reply is no call");
    record[7] = 0;
    record[27] = 6;
    tap_is_int(status_of(record, len), 1000 + VV_RPC_AUTH_TOOWEAK, "a flavor that is not known");
    record[27] = 1;
    record[59] = 17; /* the count of groups */
    tap_is_int(status_of(record, len), 1000 + VV_RPC_AUTH_BADCRED, "17 groups");
    record[59] = 2;
    tap_is_int(status_of(record, len), 1000 + VV_RPC_AUTH_BADCRED, "bytes left over");
    record[59] = 3;
    tap_is_int(status_of(record, len), VV_RPC_SUCCESS, "as it was");
    record[29] = 1; /* the length of the credentials: over 400 */
    tap_is_int(status_of(record, len), UINT32_MAX, "credentials that are too long");
    struct vv_rpc_call none = sample;
    none.flavor = VV_RPC_AUTH_NONE;
    len = encode(bytes, sizeof(bytes), &none) - 4;
    tap_is_int(status_of(record, len), VV_RPC_SUCCESS, "AUTH_NONE");
}

static void test_replies(void)
{
    static const struct vv_rpc_reply replies[] = {
        {.xid = 5, .status = VV_RPC_SUCCESS},
        {.xid = 5, .status = VV_RPC_PROG_UNAVAIL},
        {.xid = 5, .status = VV_RPC_PROG_MISMATCH, .low = 3, .high = 3},
        {.xid = 5, .status = VV_RPC_PROC_UNAVAIL},
        {.xid = 5, .status = VV_RPC_GARBAGE_ARGS},
        {.xid = 5, .status = VV_RPC_SYSTEM_ERR},
        {.xid = 5, .status = VV_RPC_DENIED_VERSION, .low = 2, .high = 2},
        {.xid = 5, .status = VV_RPC_DENIED_AUTH, .auth_stat = VV_RPC_AUTH_TOOWEAK},
    };
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        uint8_t bytes[128];
        bool is_last;
        struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
        struct vv_rpc_reply reply = {0};
        struct vv_bytes results;
        int err = vv_rpc_encode_reply(&writer, &replies[i]);
        vv_writer_bytes(&writer, "results.", 8);
        if (err == 0)
            err = vv_rpc_finish(&writer, 0, 0);
        tap_is_int(err, 0, "reply %zu", i);
        tap_is_int(vv_rpc_fragment(bytes, &is_last), (int64_t)writer.len - 4, "its length");
        tap_is_int(vv_rpc_decode_reply(bytes + 4, writer.len - 4, &reply, &results), 0, "decodes");
        tap_ok(reply.xid == 5 && reply.status == replies[i].status && reply.low == replies[i].low &&
                   reply.auth_stat == replies[i].auth_stat && results.len == 8,
               "to the same");
        int bad_count = 0;
        for (size_t cut = 0; cut < writer.len - 12; cut++)
            bad_count += vv_rpc_decode_reply(bytes + 4, cut, &reply, &results) < 0;
        tap_is_int(bad_count, (int64_t)writer.len - 12, "cut off it is refused");
    }
}

static void test_no_memory(void)
{
    int64_t n = 0;
    int err;
    do {
        struct vv_writer writer = vv_writer_new();
        vv_alloc_fail_at(n++, false);
        err = vv_rpc_encode_call(&writer, &sample);
        vv_alloc_fail_at(-1, false);
        vv_writer_done(&writer);
        if (err != 0)
            tap_is_int(err, -ENOMEM, "allocation %lld fails", (long long)n - 1);
    } while (err != 0 && n < 100);
    tap_ok(n > 1 && n < 100, "until it succeeds");
}

int main(void)
{
    test_fragments();
    test_call();
    test_refused();
    test_replies();
    test_no_memory();
    return tap_done();
}
