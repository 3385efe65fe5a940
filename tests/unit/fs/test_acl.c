#include "fs/acl.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tap.h"

enum { U = 1, UN = 2, G = 4, GN = 8, M = 16, O = 32 };

struct row {
    unsigned tag, perm;
    uint32_t id;
};

static uint8_t acl_bytes[256];

static struct vv_bytes acl_of(const struct row *rows, size_t count)
{
    struct vv_writer writer = vv_writer_of(acl_bytes, sizeof(acl_bytes));
    vv_writer_u32(&writer, 2);
    for (size_t i = 0; i < count; i++) {
        vv_writer_u16(&writer, (uint16_t)rows[i].tag);
        vv_writer_u16(&writer, (uint16_t)rows[i].perm);
        vv_writer_u32(&writer, rows[i].id);
    }
    return (struct vv_bytes){acl_bytes, writer.len};
}

static void test_check(void)
{
    static const struct {
        struct row rows[6];
        size_t count;
        int err;
        const char *what;
    } cases[] = {
        {{{U, 7, 0}, {G, 5, 0}, {O, 1, 0}}, 3, 0, "minimal"},
        {{{U, 7, 0}, {G, 5, 0}, {M, 5, 0}, {O, 1, 0}}, 4, 0, "with a mask"},
        {{{U, 7, 0}, {UN, 7, 1}, {G, 5, 0}, {GN, 1, 9}, {M, 5, 0}, {O, 1, 0}}, 6, 0, "full"},
        {{{0}}, 0, 1, "empty"},
        {{{U, 7, 0}, {UN, 7, 1}, {G, 5, 0}, {O, 1, 0}}, 4, -EINVAL, "a name without a mask"},
        {{{G, 5, 0}, {U, 7, 0}, {O, 1, 0}}, 3, -EINVAL, "out of order"},
        {{{U, 7, 0}, {U, 7, 0}, {G, 5, 0}, {O, 1, 0}}, 4, -EINVAL, "two owners"},
        {{{U, 7, 0}, {G, 5, 0}}, 2, -EINVAL, "no others"},
        {{{U, 8, 0}, {G, 5, 0}, {O, 1, 0}}, 3, -EINVAL, "permission 8"},
        {{{U, 7, 0}, {G, 5, 0}, {O, 1, 0}, {64, 1, 0}}, 4, -EINVAL, "an unknown tag"},
        {{{U, 7, 0}, {3, 5, 0}, {G, 5, 0}, {O, 1, 0}}, 4, -EINVAL, "two tags in one"},
        {{{0, 7, 0}, {G, 5, 0}, {O, 1, 0}}, 3, -EINVAL, "tag 0"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        tap_is_int(vv_acl_check(acl_of(cases[i].rows, cases[i].count)), cases[i].err, "check: %s",
                   cases[i].what);
    struct vv_bytes acl = acl_of(cases[0].rows, 3);
    acl_bytes[0] = 1;
    tap_is_int(vv_acl_check(acl), -EOPNOTSUPP, "check: version 1");
    acl = acl_of(cases[0].rows, 3);
    acl.len--;
    tap_is_int(vv_acl_check(acl), -EINVAL, "check: cut");
    tap_is_int(vv_acl_check((struct vv_bytes){acl.ptr, 3}), -EINVAL, "check: no header");
}

static void test_permit(void)
{
    static const struct row rows[] = {{U, 7, 0},     {UN, 6, 1001}, {UN, 0, 1002}, {G, 4, 0},
                                      {GN, 3, 3000}, {M, 5, 0},     {O, 1, 0}};
    static const uint32_t group[] = {3000};
    static const uint32_t both[] = {3000, 50};
    static const struct {
        struct vv_cred cred;
        uint32_t want;
        int err;
        const char *what;
    } cases[] = {
        {{.uid = 10, .gid = 1}, R_OK | W_OK | X_OK, 0, "the owner has his own"},
        {{.uid = 1001, .gid = 1}, R_OK, 0, "a named user"},
        {{.uid = 1001, .gid = 1}, W_OK, -EACCES, "... under the mask"},
        {{.uid = 1001, .gid = 1}, X_OK, -EACCES, "... and not others' either"},
        {{.uid = 1002, .gid = 50}, R_OK, -EACCES, "a name comes before a group"},
        {{.uid = 5, .gid = 50}, R_OK, 0, "the owning group"},
        {{.uid = 5, .gid = 50}, X_OK, -EACCES, "... is not the others"},
        {{.uid = 5, .gid = 1, .groups = group, .group_count = 1}, X_OK, 0, "a named group"},
        {{.uid = 5, .gid = 1, .groups = group, .group_count = 1}, W_OK, -EACCES, "... masked"},
        {{.uid = 5, .gid = 1, .groups = both, .group_count = 2},
         X_OK,
         0,
         "any group that grants it"},
        {{.uid = 5, .gid = 1, .groups = both, .group_count = 2},
         R_OK | X_OK,
         -EACCES,
         "... but not two together"},
        {{.uid = 5, .gid = 1}, X_OK, 0, "others"},
        {{.uid = 5, .gid = 1}, R_OK, -EACCES, "... have no more"},
    };
    struct vv_bytes acl = acl_of(rows, sizeof(rows) / sizeof(rows[0]));
    tap_is_int(vv_acl_check(acl), 0, "the list is good");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        tap_is_int(vv_acl_permit(acl, &cases[i].cred, 10, 50, cases[i].want), cases[i].err,
                   "permit: %s", cases[i].what);
}

static void test_modes(void)
{
    static const struct row minimal[] = {{U, 6, 0}, {G, 4, 0}, {O, 0, 0}};
    static const struct row masked[] = {{U, 7, 0}, {UN, 7, 5}, {G, 7, 0}, {M, 5, 0}, {O, 5, 0}};
    uint32_t mode = 04777;
    struct vv_bytes acl = acl_of(minimal, 3);
    tap_ok(vv_acl_to_mode(acl, &mode), "a minimal list says no more than the mode");
    tap_is_int(mode, 04640, "... which is this");
    acl = acl_of(masked, 5);
    tap_ok(!vv_acl_to_mode(acl, &mode), "one with names does");
    tap_is_int(mode, 04755, "... and the group bits are the mask");
    vv_acl_chmod(acl_bytes, acl.len, 0612);
    vv_acl_to_mode(acl, &mode);
    tap_is_int(mode, 04612, "chmod sets them");
    tap_is_int(acl_bytes[4 + 2 * 8 + 2], 7, "... but not the group's own entry");
    acl = acl_of(masked, 5);
    mode = 0100664;
    tap_ok(!vv_acl_create(acl_bytes, acl.len, &mode), "a new file with a default list");
    tap_is_int(mode, 0100644, "... gets what both allow");
    acl = acl_of(minimal, 3);
    mode = 0100666;
    tap_ok(vv_acl_create(acl_bytes, acl.len, &mode), "with a minimal default list");
    tap_is_int(mode, 0100640, "... a mode is enough");
}

int main(void)
{
    test_check();
    test_permit();
    test_modes();
    return tap_done();
}
