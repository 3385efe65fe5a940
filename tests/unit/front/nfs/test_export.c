/* Exports as they are written: what is understood, what is refused, and who is admitted. */
#include <arpa/inet.h>
#include <string.h>

#include "front/nfs/nfs_impl.h"
#include "tap.h"

static struct vv_nfs_export export;
static const char *why;

static int parse(const char *text)
{
    why = NULL;
    return vv_nfs_export_parse(text, &export, &why);
}

static bool admits(const char *address)
{
    struct vv_nfs_conn conn = {0};
    if (inet_pton(AF_INET6, address, conn.address) != 1) {
        memset(conn.address + 10, 0xff, 2);
        if (inet_pton(AF_INET, address, conn.address + 12) != 1)
            return false;
    }
    return vv_nfs_export_admits(&export, &conn);
}

static void test_options(void)
{
    tap_is_int(parse("/"), 0, "the root");
    tap_is_str(export.path, "/", "its path");
    tap_ok(export.is_loopback && export.is_root_squashed && !export.is_all_squashed &&
               !export.is_read_only && !export.is_async && !export.is_insecure &&
               export.anon_uid == 65534 && export.anon_gid == 65534,
           "the defaults");
    tap_is_int(parse("/a/b//:ro,no_root_squash,all_squash,async,insecure,anonuid=7,anongid=8"), 0,
               "all options");
    tap_is_str(export.path, "/a/b", "without the slashes at the end");
    tap_ok(export.is_read_only && !export.is_root_squashed && export.is_all_squashed &&
               export.is_async && export.is_insecure && export.anon_uid == 7 &&
               export.anon_gid == 8,
           "are set");
    tap_is_int(parse("/a:b:ro"), 0, "a path with a colon");
    tap_is_str(export.path, "/a:b", "has it");
    tap_is_int(parse("/a:ro,rw,sync,secure,root_squash"), 0, "the last one counts");
    tap_ok(!export.is_read_only && !export.is_async, "likewise");
}

static void test_networks(void)
{
    tap_is_int(parse("/"), 0, "loopback only");
    tap_ok(admits("127.0.0.1") && admits("127.9.9.9") && admits("::1"), "is admitted");
    tap_ok(!admits("10.0.0.1") && !admits("::2") && !admits("128.0.0.1"), "nobody else");
    tap_is_int(parse("/@10.1.0.0/16"), 0, "a network");
    tap_ok(admits("10.1.2.3") && admits("::ffff:10.1.255.255"), "is admitted");
    tap_ok(!admits("10.2.0.1") && !admits("127.0.0.1") && !admits("::1"), "nobody else");
    tap_is_int(parse("/@10.1.2.128/25"), 0, "bits within a byte");
    tap_ok(admits("10.1.2.200") && !admits("10.1.2.100"), "count");
    tap_is_int(parse("/@192.168.1.9"), 0, "an address");
    tap_ok(admits("192.168.1.9") && !admits("192.168.1.8"), "itself only");
    tap_is_int(parse("/data:ro@fd00:1::/32"), 0, "IPv6");
    tap_ok(admits("fd00:1::5") && !admits("fd00:2::5") && !admits("10.0.0.1"), "likewise");
    tap_ok(export.is_read_only, "with options");
    tap_is_int(parse("/@*"), 0, "everybody");
    tap_ok(admits("8.8.8.8") && admits("2001:db8::1") && admits("127.0.0.1"), "is admitted");
    tap_is_int(parse("/@0.0.0.0/0"), 0, "all of IPv4");
    tap_ok(admits("8.8.8.8") && !admits("2001:db8::1"), "is not IPv6");
}

static void test_refused(void)
{
    static const char *const bad[] = {"",
                                      "relative",
                                      ":ro",
                                      "/:rw,unknown",
                                      "/:anonuid=-1",
                                      "/:anonuid=4294967295",
                                      "/:anongid=x",
                                      "/:,ro",
                                      "/@",
                                      "/@nowhere",
                                      "/@10.0.0.0/33",
                                      "/@10.0.0.0/",
                                      "/@fd00::/129",
                                      "/@10.0.0/8",
                                      "/:a-very-long-option-that-is-longer-than-any-that-there-may-ever-be",
                                      "/@an-address-that-is-longer-than-any-address-may-ever-become-in-any-way"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        tap_is_int(parse(bad[i]), -EINVAL, "\"%s\"", bad[i]);
        tap_ok(why != NULL, "says why");
    }
}

int main(void)
{
    test_options();
    test_networks();
    test_refused();
    return tap_done();
}
