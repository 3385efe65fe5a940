/* Replies: written with what the operation changes or not at all, found again by the file system
 * that is opened next, as many as there are slots and no more. */
#include "rig.h"

static struct vv_fs_reply reply;
static struct vv_fs_call asking; /* ROOT, with `reply` */

/* The next call is request number `n`. */
static const struct vv_fs_call *ask(uint64_t n)
{
    reply = (struct vv_fs_reply){.door = VV_REPLY_NFS3, .kind = (uint8_t)n};
    memset(reply.id, 'r', sizeof(reply.id));
    vv_store_u64(reply.id, n);
    asking = root_call;
    asking.reply = &reply;
    return &asking;
}

static size_t record_count(void)
{
    size_t unused;
    struct vv_fs_key key;
    vv_key_reply(&key, 0);
    key.len = 1;
    return fsck_count(&key, &unused);
}

/* What is found of request `n`: the inode, or -1. */
static int64_t found(uint64_t n)
{
    struct vv_fs_reply out = {.inode = 0};
    (void)ask(n);
    if (!vv_fs_reply_find(fs, VV_REPLY_NFS3, reply.id, &out))
        return -1;
    return out.kind == (uint8_t)n && out.door == VV_REPLY_NFS3 ? (int64_t)out.inode : -2;
}

static void reopen(void)
{
    settle();
    rig_reopen();
    int err = vv_fs_replies_open(fs);
    if (err < 0)
        tap_ok(false, "reading the replies: %s", vv_err_text(err));
}

/* ---- what writes one ---- */

static int64_t wanted[16];

static void do_each(void)
{
    struct vv_attr attr;
    struct vv_attr before;
    struct vv_attr set = {.size = 5};
    uint64_t dir = (uint64_t)make_dir(ask(1), ROOT_DIR, "dir", 0755);
    wanted[1] = (int64_t)dir;
    wanted[2] = make_node(ask(2), dir, "file", S_IFREG | 0644);
    uint64_t file = (uint64_t)wanted[2];
    wanted[3] = make_link(ask(3), dir, "symlink", "target");
    wanted[4] = hard_link(ask(4), file, dir, "link") == 0 ? (int64_t)file : -1;
    wanted[5] = rename_name(ask(5), dir, "link", ROOT_DIR, "moved", 0) == 0 ? (int64_t)file : -1;
    wanted[6] = look(ROOT, dir, "symlink");
    if (unlink_name(ask(6), dir, "symlink") < 0)
        wanted[6] = -1;
    wanted[7] = make_dir(ROOT, dir, "sub", 0755);
    if (remove_dir(ask(7), dir, "sub") < 0)
        wanted[7] = -1;
    wanted[8] = (int64_t)file;
    if (vv_fs_setattr_guarded(fs, ask(8), file, &set, VV_SET_SIZE, NULL, &before, &attr) < 0)
        wanted[8] = -1;
    struct vv_create create = {.set = &set, .set_mask = VV_SET_MTIME | VV_SET_SIZE};
    set.mtime.tv_sec = 99;
    int err = vv_fs_symlink_set(fs, ask(9), dir, "dated", 5,
                                (struct vv_bytes){(const uint8_t *)"there", 5}, &create, &attr);
    wanted[9] = err == 0 && attr.mtime.tv_sec == 99 && attr.size == 5 ? (int64_t)attr.inode : -1;
}

static void test_each(void)
{
    tap_is_int(vv_fs_replies_open(fs), 0, "a volume without replies");
    tap_is_int(vv_fs_reply_count(fs), 0, "has none");
    do_each();
    tap_is_int((int64_t)record_count(), 9, "nine operations have left a record each");
    tap_is_int(found(1), -1, "the server that did it looks in its own memory");
    reopen();
    tap_is_int(vv_fs_reply_count(fs), 9, "the next one finds them");
    for (uint64_t n = 1; n <= 9; n++)
        tap_ok(wanted[n] > 0 && found(n) == wanted[n], "request %llu and its inode",
               (unsigned long long)n);
    tap_is_int(found(10), -1, "another request is not known");
    struct vv_fs_reply out;
    (void)ask(1);
    tap_ok(!vv_fs_reply_find(fs, VV_REPLY_NFS3 + 1, reply.id, &out), "nor one of another door");
    tap_is_int(vv_fs_replies_open(fs), 0, "reading them again does nothing");
    reopen();
    tap_is_int(found(9), wanted[9], "the server after it knows them too");
}

/* ---- what does not ---- */

static void test_none(void)
{
    struct vv_attr attr;
    struct vv_attr before;
    struct vv_attr set = {.mode = 0600};
    struct timespec never = {.tv_sec = 1};
    uint64_t file = (uint64_t)look(ROOT, ROOT_DIR, "moved");
    struct vv_create create = {.mode = S_IFREG | 0600, .verifier = 7};
    int err = vv_fs_mknod(fs, ROOT, ROOT_DIR, "own", 3, &create, &attr);
    tap_is_int(err, 0, "a file, made exclusively");
    tap_is_int(hard_link(ROOT, file, ROOT_DIR, "twin"), 0, "and one with two names");
    uint64_t digest = fake_digest(volume);
    tap_is_int(make_dir(ask(20), ROOT_DIR, "moved", 0755), -EEXIST, "what fails leaves no reply");
    tap_is_int(unlink_name(ask(20), ROOT_DIR, "none"), -ENOENT, "nor this");
    tap_is_int(rename_name(ask(20), ROOT_DIR, "none", ROOT_DIR, "x", 0), -ENOENT, "nor this");
    tap_is_int(hard_link(ask(20), ROOT_DIR, ROOT_DIR, "x"), -EPERM, "nor this");
    tap_is_int(vv_fs_setattr_guarded(fs, ask(20), file, &set, VV_SET_MODE, &never, &before, &attr),
               -ECANCELED, "nor this");
    tap_is_int(rename_name(ask(20), ROOT_DIR, "moved", ROOT_DIR, "twin", 0), 0,
               "a rename with nothing to do neither");
    tap_is_int(vv_fs_setattr_guarded(fs, ask(20), file, &set, 0, NULL, &before, &attr), 0,
               "nor a setattr of nothing");
    tap_is_int(vv_fs_mknod(fs, ask(20), ROOT_DIR, "own", 3, &create, &attr), 0,
               "nor an exclusive create that finds what it made");
    tap_is_int(vv_fs_setattr(fs, ask(20), file, NULL, &set, 0, &attr), 0, "nor other calls");
    tap_ok(fake_digest(volume) == digest, "and nothing is changed");
    volume->apply_error = -ENOSPC;
    tap_is_int(make_dir(ask(20), ROOT_DIR, "full", 0755), -ENOSPC, "what cannot be applied");
    volume->apply_error = 0;
    tap_ok(fake_digest(volume) == digest, "leaves neither it nor a reply");
}

/* ---- memory ---- */

static void test_memory(void)
{
    int n = 0;
    unsigned bad = 0;
    volume->miss_permille = 0;
    for (int err = -1; err < 0 && n < 1000; n++) {
        settle();
        uint64_t digest = fake_digest(volume);
        const struct vv_fs_call *call = ask(30);
        vv_alloc_fail_at(n, false);
        int64_t made = make_dir(call, ROOT_DIR, "memory", 0755);
        vv_alloc_fail_at(-1, false);
        err = made < 0 ? (int)made : 0;
        bad += err < 0 && (err != -ENOMEM || fake_digest(volume) != digest);
    }
    tap_ok(bad == 0 && n > 3 && n < 1000, "a request fails cleanly without memory, %d ways", n);
    settle();
    rig_reopen();
    n = 0;
    for (int err = -1; err < 0 && n < 1000; n++) {
        size_t allocations = vv_alloc_domain_count(vv_alloc_domain());
        vv_alloc_fail_at(n, false);
        err = vv_fs_replies_open(fs);
        vv_alloc_fail_at(-1, false);
        size_t left = vv_alloc_domain_count(vv_alloc_domain());
        bad += err < 0 && (err != -ENOMEM || left != allocations || vv_fs_reply_count(fs) != 0);
    }
    tap_ok(bad == 0 && n > 2 && n < 1000, "reading them fails cleanly without memory, %d ways", n);
    tap_ok(found(30) > 0, "then they are there");
    volume->miss_permille = 300;
}

/* ---- the ring ---- */

static void test_ring(void)
{
    uint64_t dir = (uint64_t)make_dir(ROOT, ROOT_DIR, "ring", 0755);
    int err = 0;
    volume->miss_permille = 0; /* a number that is drawn in vain leaves an older one standing */
    for (uint64_t n = 1000; n < 1000 + VV_REPLIES_MAX + 100 && err >= 0; n++)
        err = n % 2 == 0 ? (int)make_dir(ask(n), dir, "name", 0755)
                         : remove_dir(ask(n), dir, "name");
    tap_ok(err >= 0, "more requests than slots");
    tap_is_int((int64_t)record_count(), VV_REPLIES_MAX, "all slots are taken, and no more");
    reopen();
    tap_is_int(vv_fs_reply_count(fs), VV_REPLIES_MAX, "and read");
    unsigned known = 0;
    for (uint64_t n = 1000; n < 1000 + VV_REPLIES_MAX + 100; n++)
        known += found(n) > 0;
    tap_is_int(known, VV_REPLIES_MAX, "they are the newest");
    tap_ok(found(1099) == -1 && found(1100) > 0, "the oldest are overwritten");
    tap_ok(remove_dir(ask(5000), ROOT_DIR, "ring") == 0, "one more, after opening again");
    reopen();
    tap_ok(found(5000) > 0 && found(1100) == -1 && found(1101) > 0, "takes the place of the oldest");
    volume->miss_permille = 300;
}

static void test_damage(void)
{
    struct vv_fs_key key;
    vv_key_reply(&key, 7);
    struct fake_record *record = fake_find(volume, vv_fs_key_bytes(&key));
    if (!record) {
        tap_ok(false, "a record");
        return;
    }
    record->value[0] = 9;
    reopen();
    tap_is_int(vv_fs_reply_count(fs), VV_REPLIES_MAX - 1, "a damaged record is left out");
    tap_ok(found(5000) > 0, "the others are good");
    record->value[0] = 1;
}

static void test_age(void)
{
    vv_rt_sleep_ns((uint64_t)(VV_REPLIES_KEEP_S - 1) * VV_NS_PER_S);
    tap_ok(found(5000) > 0, "they are known for half an hour");
    vv_rt_sleep_ns(2 * VV_NS_PER_S);
    tap_is_int(found(5000), -1, "and no longer");
    tap_is_int(vv_fs_reply_count(fs), 0, "nor is their memory held");
    tap_ok(make_dir(ask(6000), ROOT_DIR, "late", 0755) > 0, "new ones are written");
    reopen();
    tap_ok(found(6000) > 0 && found(5000) > 0, "and found by the next server");
}

static void test_all(void)
{
    test_each();
    test_none();
    test_memory();
    test_ring();
    test_damage();
    test_age();
}

int main(void)
{
    return rig_main(test_all);
}
