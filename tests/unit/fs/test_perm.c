/* Who may: all combinations of three classes, three bits and the rules around them. The calls that
 * use the rules are tested with their own files. */
#include "rig.h"

static struct vv_inode inode;
static struct vv_cred cred;
static uint32_t want;

static int run_permit(struct vv_op *op, void *arg)
{
    return vv_permit(op, &cred, &inode, want);
}

static int permit(void)
{
    return vv_volume_run(volume, VV_OP_READ, 0, run_permit, NULL);
}

static int run_permit_io(struct vv_op *op, void *arg)
{
    return vv_permit_io(op, &cred, &inode, want);
}

/* What the manual says, bit by bit. */
static int model(void)
{
    bool is_member = cred.gid == inode.gid;
    for (uint32_t i = 0; i < cred.group_count; i++)
        is_member |= cred.groups[i] == inode.gid;
    uint32_t bits = cred.uid == inode.uid ? inode.mode >> 6
                    : is_member           ? inode.mode >> 3
                                          : inode.mode;
    if (cred.uid == 0 && S_ISDIR(inode.mode))
        return 0;
    if (cred.uid == 0)
        bits = (inode.mode & 0111) ? 7 : 6;
    return (want & ~bits) & 7 ? -EACCES : 0;
}

static void test_all(void)
{
    static const uint32_t groups[] = {7, 50};
    static const struct vv_cred creds[] = {
        {.uid = 0, .gid = 0},
        {.uid = 10, .gid = 50},
        {.uid = 11, .gid = 50},
        {.uid = 12, .gid = 1, .groups = groups, .group_count = 2},
        {.uid = 12, .gid = 1, .groups = groups, .group_count = 1}};
    static const uint32_t types[] = {S_IFREG, S_IFDIR, S_IFIFO};
    unsigned wrong = 0;
    inode.uid = 10;
    inode.gid = 50;
    for (size_t c = 0; c < 5; c++) {
        for (size_t t = 0; t < 3; t++) {
            for (uint32_t mode = 0; mode < 01000; mode++) {
                inode.mode = types[t] | mode;
                cred = creds[c];
                for (want = 0; want < 8; want++)
                    wrong += permit() != model();
            }
        }
    }
    tap_is_int(wrong, 0, "owner, group and others, for all modes");
    inode.mode = S_IFREG;
    cred = (struct vv_cred){.uid = 12, .gid = 1, .is_checked = true};
    want = R_OK | W_OK;
    tap_is_int(permit(), 0, "who has been checked may");
    inode.flags = FS_IMMUTABLE_FL;
    tap_is_int(permit(), -EPERM, "but not write to the immutable");
    want = R_OK;
    tap_is_int(permit(), 0, "only read it");
    inode.flags = 0;
    cred = (struct vv_cred){.uid = 10, .gid = 1};
    want = W_OK;
    tap_is_int(permit(), -EACCES, "the owner without permission");
    tap_is_int(vv_volume_run(volume, VV_OP_READ, 0, run_permit_io, NULL), 0,
               "writes where there are no handles");
    cred.uid = 11;
    inode.mode = S_IFREG | 0111;
    tap_is_int(vv_volume_run(volume, VV_OP_READ, 0, run_permit_io, NULL), -EACCES, "others do not");
    want = R_OK;
    tap_is_int(vv_volume_run(volume, VV_OP_READ, 0, run_permit_io, NULL), 0,
               "but read what they may execute");
    tap_ok(!vv_cred_is_killing_ids(&creds[0], false) && vv_cred_is_killing_ids(&creds[0], true) &&
               vv_cred_is_killing_ids(&creds[1], false),
           "setuid is killed by all but uid 0");
    tap_ok(vv_cred_may_setgid(&creds[3], 7) && !vv_cred_may_setgid(&creds[1], 7) &&
               vv_cred_may_setgid(&creds[0], 7),
           "setgid is for members");
}

int main(void)
{
    return rig_main(test_all);
}
