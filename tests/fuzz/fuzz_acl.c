/* POSIX ACLs as they come in from users and from the store: first u32 uid, u32 gid, u16 mode and a
 * byte of what is wanted, then the list. What passes the check must bear everything. */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "fs/acl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vv_cursor cursor = vv_cursor_of(data, size);
    uint32_t groups[] = {3, 5};
    struct vv_cred cred = {.groups = groups, .group_count = 2};
    cred.uid = vv_cursor_u32(&cursor);
    cred.gid = vv_cursor_u32(&cursor);
    uint32_t mode = vv_cursor_u16(&cursor);
    uint32_t want = vv_cursor_u8(&cursor) & 7;
    struct vv_bytes acl = vv_cursor_bytes(&cursor, cursor.len);
    if (vv_cursor_check(&cursor) < 0 || vv_acl_check(acl) != 0)
        return 0;
    int err = vv_acl_permit(acl, &cred, 1, 2, want);
    assert(err == 0 || err == -EACCES);
    uint32_t shown = mode;
    bool is_minimal = vv_acl_to_mode(acl, &shown);
    assert((shown & ~0777u) == (mode & ~0777u));
    CLEANUP(vv_free_ptr) uint8_t *copy = vv_memdup(acl.ptr, acl.len);
    assert(copy);
    vv_acl_chmod(copy, acl.len, shown);
    assert(memcmp(copy, acl.ptr, acl.len) == 0);
    uint32_t made = mode;
    assert(vv_acl_create(copy, acl.len, &made) == is_minimal);
    assert((made & ~mode) == 0 && vv_acl_check((struct vv_bytes){copy, acl.len}) == 0);
    return 0;
}
