#include "rig.h"

static struct vv_lock lock_of(uint32_t type, uint64_t start, uint64_t end, uint64_t owner)
{
    return (struct vv_lock){.type = type,
                            .start = start,
                            .end = end,
                            .owner = owner,
                            .client = 1,
                            .pid = (uint32_t)owner};
}

static int set(uint64_t inode, uint32_t type, uint64_t start, uint64_t end, uint64_t owner)
{
    struct vv_lock lock = lock_of(type, start, end, owner);
    return vv_fs_setlk(fs, ROOT, inode, &lock, false, NULL);
}

/* Who has what: a letter for each of the first bytes; r2 = reader 2 and so on, asked for by
 * owner 99. */
static const char *map(uint64_t inode, uint64_t len)
{
    static char text[64];
    for (uint64_t i = 0; i < len; i++) {
        struct vv_lock lock = lock_of(F_WRLCK, i, i, 99);
        int err = vv_fs_getlk(fs, ROOT, inode, &lock);
        text[i] = err < 0 || lock.type == F_UNLCK ? '.' : (char)('a' + lock.owner);
        if (text[i] != '.' && lock.type == F_WRLCK)
            text[i] = (char)('A' + lock.owner);
    }
    text[len] = 0;
    return text;
}

static void test_ranges(void)
{
    tap_is_int(set(10, F_WRLCK, 2, 7, 0), 0, "a write lock");
    tap_is_str(map(10, 10), "..AAAAAA..", "is there");
    tap_is_int(set(10, F_RDLCK, 7, 9, 1), -EAGAIN, "another owner's overlaps");
    tap_is_int(set(10, F_RDLCK, 8, 9, 1), 0, "... or does not");
    tap_is_int(set(10, F_RDLCK, 4, 5, 0), 0, "in the middle, a read lock of the same owner");
    tap_is_str(map(10, 10), "..AAaaAAbb", "splits it");
    tap_is_int(set(10, F_RDLCK, 3, 6, 1), -EAGAIN, "the sides are still write locks");
    tap_is_int(set(10, F_RDLCK, 4, 5, 1), 0, "the middle is shared");
    tap_is_int(set(10, F_WRLCK, 2, 7, 0), -EAGAIN, "and so it cannot go back");
    tap_is_int(set(10, F_UNLCK, 0, UINT64_MAX, 1), 0, "unlocking everything");
    tap_is_int(set(10, F_WRLCK, 3, 6, 0), 0, "then it can");
    tap_is_str(map(10, 10), "..AAAAAA..", "and is one again");
    tap_is_int(set(10, F_UNLCK, 4, 4, 0), 0, "unlocking a byte");
    tap_is_str(map(10, 10), "..AA.AAA..", "leaves two");
    tap_is_int(set(10, F_WRLCK, 8, UINT64_MAX, 0), 0, "to the end");
    tap_is_str(map(10, 10), "..AA.AAAAA", "... joins its neighbour");
    tap_is_int(set(10, F_WRLCK, 1ull << 62, 1ull << 63, 2), -EAGAIN, "the end is far");
    tap_is_int(set(10, F_UNLCK, 3, 6, 0), 0, "cutting two at once");
    tap_is_str(map(10, 10), "..A....AAA", "... leaves the ends");
    tap_is_int(set(10, F_WRLCK, 5, 4, 0), -EINVAL, "a range that ends before it begins");
    tap_is_int(set(10, 17, 0, 1, 0), -EINVAL, "an unknown type");
    tap_is_int(set(11, F_WRLCK, 0, 1, 3), 0, "another file is another matter");
    struct vv_fs_call other = root_call;
    other.door = 2;
    struct vv_lock lock = lock_of(F_WRLCK, 2, 2, 0);
    tap_is_int(vv_fs_setlk(fs, &other, 10, &lock, false, NULL), -EAGAIN,
               "the same owner at another door is another");
    vv_fs_unlock_owner(fs, ROOT, 10, 1, 0, false);
    tap_is_str(map(10, 10), "..........", "an owner's locks go together");
    set(10, F_WRLCK, 0, 0, 0);
    set(12, F_RDLCK, 0, 0, 5);
    vv_fs_unlock_client(fs, ROOT, 1);
    tap_is_str(map(12, 2), "..", "a client's locks go together");
    tap_is_int((int64_t)fs->lock_count, 0, "and none is left");
    tap_is_int((int64_t)fs->lock_files.count, 0, "nor their files");
}

static int set_through(uint64_t opened, uint32_t type, uint64_t start, uint64_t end, uint64_t owner,
                       bool is_flock)
{
    struct vv_lock lock = lock_of(type, start, end, owner);
    lock.opened = opened;
    lock.is_flock = is_flock;
    return vv_fs_setlk(fs, ROOT, 30, &lock, false, NULL);
}

static void test_opened(void)
{
    set_through(7, F_WRLCK, 0, 9, 0, false);
    set_through(7, F_UNLCK, 3, 4, 0, false);
    set_through(7, F_WRLCK, 10, 11, 1, false);
    set_through(8, F_WRLCK, 12, 13, 1, false);
    tap_is_int(set_through(7, F_WRLCK, 0, 0, 2, true), 0, "an flock, too");
    tap_is_str(map(30, 15), "AAA..AAAAABBBB.", "locks through two open files");
    vv_fs_unlock_opened(fs, ROOT, 30, 2, 7);
    vv_fs_unlock_opened(fs, ROOT, 31, 1, 7);
    tap_is_str(map(30, 15), "AAA..AAAAABBBB.", "of another client, of another inode: nothing goes");
    vv_fs_unlock_opened(fs, ROOT, 30, 1, 7);
    tap_is_str(map(30, 15), "..........BBBB.",
               "what was set through one goes; joined locks are of the last");
    vv_fs_unlock_opened(fs, ROOT, 30, 1, 8);
    tap_is_int((int64_t)fs->lock_count, 1, "all but the flock");
    vv_fs_unlock_owner(fs, ROOT, 30, 1, 2, true);
    tap_is_int((int64_t)fs->lock_count, 0, "which has its own end");
}

static int set_flock(uint64_t inode, uint32_t type, uint64_t owner)
{
    struct vv_lock lock = lock_of(type, 5, 6, owner);
    lock.is_flock = true;
    return vv_fs_setlk(fs, ROOT, inode, &lock, false, NULL);
}

static void test_flock(void)
{
    tap_is_int(set_flock(20, F_RDLCK, 1), 0, "flock, shared");
    tap_is_int(set_flock(20, F_RDLCK, 2), 0, "... twice");
    tap_is_int(set_flock(20, F_WRLCK, 1), -EAGAIN, "... not exclusive then");
    tap_is_int(set(20, F_WRLCK, 0, 9, 3), 0, "byte ranges are another kind");
    tap_is_int(set_flock(20, F_UNLCK, 2), 0, "unlock");
    tap_is_int(set_flock(20, F_WRLCK, 1), 0, "exclusive");
    tap_is_int(set_flock(20, F_RDLCK, 2), -EAGAIN, "... for one");
    vv_fs_unlock_owner(fs, ROOT, 20, 1, 1, true);
    tap_is_int(set_flock(20, F_RDLCK, 2), 0, "after the owner has gone");
    vv_fs_unlock_client(fs, ROOT, 1);
    tap_is_int((int64_t)fs->lock_count, 0, "none is left");
}

/* ---- waiting ---- */

struct waiter {
    uint64_t inode;
    struct vv_lock lock;
    bool is_cancelled;
    bool is_done;
    int result;
    int order;
};

static int order;

static void wait_fiber(void *arg)
{
    struct waiter *waiter = arg;
    waiter->result =
        vv_fs_setlk(fs, ROOT, waiter->inode, &waiter->lock, true, &waiter->is_cancelled);
    waiter->order = ++order;
    waiter->is_done = true;
}

static void start(struct waiter *waiter, uint64_t inode, struct vv_lock lock)
{
    *waiter = (struct waiter){.inode = inode, .lock = lock};
    if (vv_fiber_start(wait_fiber, waiter, "waiter") < 0)
        exit(1);
    settle();
}

static void test_waiting(void)
{
    struct waiter a;
    struct waiter b;
    struct waiter c;
    set(30, F_WRLCK, 0, 9, 1);
    start(&a, 30, lock_of(F_WRLCK, 0, 4, 2));
    start(&b, 30, lock_of(F_RDLCK, 2, 3, 3));
    start(&c, 30, lock_of(F_RDLCK, 6, 7, 4));
    tap_ok(!a.is_done && !b.is_done && !c.is_done, "three wait");
    set(30, F_UNLCK, 5, 9, 1);
    settle();
    tap_ok(!a.is_done && !b.is_done && c.is_done && c.result == 0, "one gets what became free");
    set(30, F_RDLCK, 0, 4, 1);
    settle();
    tap_ok(!a.is_done && b.is_done && b.result == 0, "a reader gets in when the writer steps back");
    set(30, F_UNLCK, 0, 4, 1);
    settle();
    tap_ok(!a.is_done, "the writer waits for the reader");
    set(30, F_UNLCK, 2, 3, 3);
    settle();
    tap_ok(a.is_done && a.result == 0, "and gets it");
    set(30, F_UNLCK, 0, 9, 2);
    set(30, F_UNLCK, 0, 9, 4);
    set(31, F_WRLCK, 0, 0, 1);
    order = 0;
    start(&a, 31, lock_of(F_WRLCK, 0, 0, 2));
    start(&b, 31, lock_of(F_WRLCK, 0, 0, 3));
    set(31, F_UNLCK, 0, 0, 1);
    settle();
    tap_ok(a.is_done && !b.is_done, "first come, first served");
    b.is_cancelled = true;
    vv_fs_lock_poke(fs);
    settle();
    tap_ok(b.is_done && b.result == -EINTR, "a cancelled one ends");
    start(&b, 31, lock_of(F_WRLCK, 0, 0, 3));
    vv_fs_unlock_client(fs, ROOT, 1);
    settle();
    tap_ok(b.is_done && b.result == -EINTR, "as does one whose client is gone");
    tap_is_int((int64_t)fs->lock_count, 0, "none is left");
    tap_is_int((int64_t)fs->lock_files.count, 0, "nor their files");
}

static void test_deadlock(void)
{
    struct waiter a;
    struct waiter b;
    set(40, F_WRLCK, 0, 0, 1);
    set(41, F_WRLCK, 0, 0, 2);
    set(42, F_WRLCK, 0, 0, 3);
    start(&a, 41, lock_of(F_WRLCK, 0, 0, 1));
    start(&b, 42, lock_of(F_WRLCK, 0, 0, 2));
    struct vv_lock lock = lock_of(F_WRLCK, 0, 0, 3);
    tap_is_int(vv_fs_setlk(fs, ROOT, 40, &lock, true, NULL), -EDEADLK, "a circle of three");
    lock = lock_of(F_RDLCK, 0, 0, 3);
    tap_is_int(vv_fs_setlk(fs, ROOT, 41, &lock, true, NULL), -EDEADLK, "a circle of two");
    /* Two readers, of whom the second closes the circle. */
    set(43, F_RDLCK, 0, 0, 7);
    set(43, F_RDLCK, 0, 0, 1);
    lock = lock_of(F_WRLCK, 0, 0, 3);
    tap_is_int(vv_fs_setlk(fs, ROOT, 43, &lock, true, NULL), -EDEADLK, "through a second reader");
    lock = lock_of(F_WRLCK, 0, 0, 8);
    struct waiter c;
    start(&c, 40, lock);
    tap_ok(!c.is_done, "a line is no circle");
    set(42, F_UNLCK, 0, 0, 3);
    settle();
    tap_ok(b.is_done && b.result == 0, "the line moves");
    vv_fs_unlock_client(fs, ROOT, 1);
    settle();
    tap_is_int((int64_t)fs->lock_count, 0, "none is left");
}

/* Two holders of a shared flock who both want it exclusive: as with Linux, who has to wait lets go,
 * so that the other gets it, and then the first. */
static void test_flock_upgrade(void)
{
    struct waiter a;
    struct vv_lock lock = lock_of(F_WRLCK, 0, 0, 1);
    lock.is_flock = true;
    set_flock(50, F_RDLCK, 1);
    set_flock(50, F_RDLCK, 2);
    start(&a, 50, lock);
    tap_ok(!a.is_done, "one waits for the other");
    lock.owner = 2;
    tap_is_int(vv_fs_setlk(fs, ROOT, 50, &lock, true, NULL), 0, "who gets it at once");
    set_flock(50, F_UNLCK, 2);
    settle();
    tap_ok(a.is_done && a.result == 0, "and then the first");
    set_flock(50, F_UNLCK, 1);
    tap_is_int((int64_t)fs->lock_count, 0, "none is left");
}

/* Random calls of three owners against an array. */
static void test_model(void)
{
    char model[3][40];
    memset(model, 0, sizeof(model));
    bool is_right = true;
    for (int step = 0; step < 20000 && is_right; step++) {
        uint64_t owner = fake_random(volume, 3);
        uint64_t start_at = fake_random(volume, 40);
        uint64_t end = start_at + fake_random(volume, 40 - start_at);
        static const uint32_t types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
        uint32_t type = types[fake_random(volume, 3)];
        int want = 0;
        for (uint64_t i = start_at; i <= end; i++) {
            for (uint64_t o = 0; o < 3; o++) {
                char mine = type == F_WRLCK ? 'w' : 'r';
                if (o != owner && type != F_UNLCK && model[o][i] &&
                    (mine == 'w' || model[o][i] == 'w'))
                    want = -EAGAIN;
            }
        }
        if (want == 0)
            memset(&model[owner][start_at],
                   type == F_UNLCK   ? 0
                   : type == F_WRLCK ? 'w'
                                     : 'r',
                   end - start_at + 1);
        is_right = set(60, type, start_at, end, owner) == want;
        /* Neighbours of one type are one lock: count the stretches. */
        size_t stretches = 0;
        for (int o = 0; o < 3; o++) {
            for (int i = 0; i < 40; i++)
                stretches += model[o][i] && (i == 0 || model[o][i - 1] != model[o][i]);
        }
        is_right &= fs->lock_count == stretches;
    }
    tap_ok(is_right, "random locks are those of an array");
    vv_fs_unlock_client(fs, ROOT, 1);
}

static void test_memory(void)
{
    set(70, F_WRLCK, 0, 99, 1);
    for (int n = 0;; n++) {
        size_t before = fs->lock_count;
        vv_alloc_fail_at(n, false);
        int err = set(70, F_RDLCK, 40, 50, 1);
        vv_alloc_fail_at(-1, false);
        if (err == 0)
            break;
        if (err != -ENOMEM || fs->lock_count != before) {
            tap_ok(false, "without memory: %d", err);
            break;
        }
    }
    tap_is_int((int64_t)fs->lock_count, 3, "without memory nothing changes");
    vv_fs_unlock_client(fs, ROOT, 1);
}

static void test_all(void)
{
    test_ranges();
    test_opened();
    test_flock();
    test_waiting();
    test_deadlock();
    test_flock_upgrade();
    test_model();
    test_memory();
}

int main(void)
{
    return rig_main(test_all);
}
