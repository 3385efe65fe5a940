/* rename: its rules one by one, and random changes of a tree against a model. */
#include "rig.h"

static int64_t root_rename(uint64_t a, const char *from, uint64_t b, const char *to)
{
    return rename_name(ROOT, a, from, b, to, 0);
}

static void test_rules(void)
{
    uint64_t top = (uint64_t)make_dir(ROOT, ROOT_DIR, "rules", 0777);
    uint64_t a = (uint64_t)make_dir(ROOT, top, "a", 0755);
    uint64_t b = (uint64_t)make_dir(ROOT, a, "b", 0755);
    uint64_t c = (uint64_t)make_dir(ROOT, b, "c", 0755);
    uint64_t f = (uint64_t)make_node(ROOT, top, "f", S_IFREG | 0644);
    uint64_t g = (uint64_t)make_node(ROOT, top, "g", S_IFREG | 0644);
    make_dir(ROOT, top, "empty", 0755);
    tap_is_int(root_rename(top, "a", b, "x"), -EINVAL, "into its own subtree");
    tap_is_int(root_rename(top, "a", a, "x"), -EINVAL, "into itself");
    tap_is_int(root_rename(top, "a", c, "x"), -EINVAL, "deep into its own subtree");
    tap_is_int(root_rename(b, "c", top, "a"), -ENOTEMPTY, "onto what contains it");
    tap_is_int(root_rename(top, "no", top, "f"), -ENOENT, "from nothing");
    tap_is_int(root_rename(top, "f", top, "a"), -EISDIR, "a file onto a directory");
    tap_is_int(root_rename(top, "a", top, "f"), -ENOTDIR, "a directory onto a file");
    tap_is_int(root_rename(top, "empty", top, "a"), -ENOTEMPTY, "onto a full directory");
    tap_is_int(root_rename(f, "x", top, "a"), -ENOTDIR, "from a file's inside");
    tap_is_int(root_rename(top, "f", f, "x"), -ENOTDIR, "into a file");
    tap_is_int(root_rename(top, ".", top, "x"), -EBUSY, "from .");
    tap_is_int(root_rename(top, "f", top, ".."), -EBUSY, "to ..");
    tap_is_int(rename_name(ROOT, top, "f", top, "..", RENAME_NOREPLACE), -EEXIST,
               "to .. without replacing");
    tap_is_int(rename_name(ROOT, top, "f", top, "g", RENAME_NOREPLACE), -EEXIST, "NOREPLACE");
    tap_is_int(rename_name(ROOT, top, "f", top, "no", RENAME_EXCHANGE), -ENOENT, "EXCHANGE");
    tap_is_int(rename_name(ROOT, top, "f", top, "g", RENAME_WHITEOUT | RENAME_EXCHANGE), -EINVAL,
               "WHITEOUT and EXCHANGE");
    tap_is_int(rename_name(ROOT, top, "f", top, "g", 8), -EINVAL, "an unknown flag");
    tap_is_int(rename_name(ROOT, top, "f", top, "g", RENAME_NOREPLACE | RENAME_EXCHANGE), -EINVAL,
               "two flags");
    tap_is_int(rename_name(ROOT, top, "a", c, "x", RENAME_EXCHANGE), -ENOENT,
               "EXCHANGE with nothing");
    tap_is_int(rename_name(ROOT, top, "a", b, "c", RENAME_EXCHANGE), -EINVAL,
               "EXCHANGE with what it contains");
    tap_is_int(rename_name(ROOT, b, "c", top, "a", RENAME_EXCHANGE), -EINVAL,
               "... and the other way round");
    tap_is_int(rename_name(ROOT, top, "a", top, "f", RENAME_EXCHANGE), 0,
               "EXCHANGE of a directory and a file");
    tap_is_int(look(ROOT, top, "f"), (int64_t)a, "... the directory is there");
    tap_is_int(rename_name(ROOT, top, "a", b, "c", RENAME_EXCHANGE), 0, "... across directories");
    tap_is_int(look(ROOT, b, "c"), (int64_t)f, "... the file is there");
    tap_is_int(look(ROOT, c, ".."), (int64_t)top, "... and .. of the other is new");
    tap_is_int((int64_t)attr_of(b).nlink, 2, "... and the links are counted");
    tap_is_int(fsck(), 0, "records agree");
    hard_link(ROOT, g, top, "h");
    tap_is_int(root_rename(top, "g", top, "h"), 0, "onto another name of the same file");
    tap_is_int(look(ROOT, top, "g"), (int64_t)g, "... changes nothing");
    char name[300];
    memset(name, 'n', sizeof(name));
    name[256] = 0;
    tap_is_int(root_rename(top, "g", top, name), -ENAMETOOLONG, "to a name too long");
    name[255] = 0;
    tap_is_int(root_rename(top, "g", top, name), 0, "to the longest name");
    struct vv_attr before = attr_of(g);
    uint64_t empty = (uint64_t)look(ROOT, top, "empty");
    vv_rt_sleep_ns(1000);
    tap_is_int(root_rename(top, name, empty, "g"), 0, "to another directory");
    struct vv_attr after = attr_of(g);
    tap_ok(after.ctime.tv_nsec != before.ctime.tv_nsec, "its ctime changes");
    tap_ok(after.mtime.tv_nsec == before.mtime.tv_nsec, "its mtime does not");
    tap_is_int(fsck(), 0, "records agree");
}

static void is_whiteout(uint64_t dir, const char *name, const char *what)
{
    int64_t inode = look(ROOT, dir, name);
    struct vv_attr attr = attr_of((uint64_t)inode);
    tap_ok(inode > 0 && attr.mode == S_IFCHR && attr.rdev_major == 0 && attr.rdev_minor == 0 &&
               attr.nlink == 1,
           "a whiteout is left by %s", what);
}

static void test_whiteout(void)
{
    uint64_t top = (uint64_t)make_dir(ROOT, ROOT_DIR, "whiteout", 0777);
    uint64_t other = (uint64_t)make_dir(ALICE, top, "other", 0755);
    uint64_t f = (uint64_t)make_node(ALICE, top, "f", S_IFREG | 0644);
    uint64_t d = (uint64_t)make_dir(ALICE, top, "d", 0755);
    make_node(ALICE, top, "g", S_IFREG | 0644);
    uint64_t size = attr_of(top).size;
    tap_is_int(rename_name(ALICE, top, "f", top, "x", RENAME_WHITEOUT), 0, "WHITEOUT");
    is_whiteout(top, "f", "a file");
    tap_is_int(look(ROOT, top, "x"), (int64_t)f, "... the file is at its new name");
    tap_is_int((int64_t)attr_of(top).size, (int64_t)size + 1, "... one entry more");
    tap_is_int(rename_name(ALICE, top, "x", top, "g", RENAME_WHITEOUT | RENAME_NOREPLACE), -EEXIST,
               "... and NOREPLACE");
    tap_is_int(rename_name(ALICE, top, "x", top, "g", RENAME_WHITEOUT), 0, "replacing a file");
    is_whiteout(top, "x", "it");
    tap_is_int(rename_name(ALICE, top, "d", other, "d", RENAME_WHITEOUT), 0, "a directory");
    is_whiteout(top, "d", "a directory that moved");
    tap_is_int(look(ROOT, d, ".."), (int64_t)other, "... its parent is the other");
    tap_is_int(rename_name(ALICE, other, "d", top, "d", 0), -ENOTDIR, "... not a directory");
    tap_is_int(rename_name(ALICE, top, "g", top, "d", 0), 0, "a whiteout is replaced");
    tap_is_int(rename_name(BOB, top, "f", other, "f", RENAME_WHITEOUT), -EACCES,
               "only by who may write to both");
    tap_is_int(fsck(), 0, "records agree");
}

static void test_permissions(void)
{
    uint64_t top = (uint64_t)make_dir(ROOT, ROOT_DIR, "perm", 0777);
    uint64_t closed = (uint64_t)make_dir(ROOT, top, "closed", 0755);
    uint64_t sticky = (uint64_t)make_dir(ROOT, top, "sticky", 0777);
    uint64_t open = (uint64_t)make_dir(ROOT, top, "open", 0777);
    set_mode(ROOT, sticky, 01777);
    make_node(ROOT, closed, "f", S_IFREG | 0644);
    make_node(ALICE, sticky, "f", S_IFREG | 0666);
    uint64_t dir = (uint64_t)make_dir(ALICE, open, "dir", 0755);
    make_node(BOB, open, "mine", S_IFREG | 0666);
    tap_is_int(rename_name(BOB, closed, "f", open, "f", 0), -EACCES, "from a closed directory");
    tap_is_int(rename_name(BOB, open, "mine", closed, "f2", 0), -EACCES, "to a closed one");
    tap_is_int(rename_name(BOB, sticky, "f", open, "f", 0), -EPERM, "another's from a sticky one");
    tap_is_int(rename_name(BOB, open, "mine", sticky, "f", 0), -EPERM, "onto another's there");
    tap_is_int(rename_name(BOB, open, "dir", top, "dir", 0), -EACCES,
               "a directory that one may not write gets no new ..");
    tap_is_int(rename_name(BOB, open, "dir", open, "dir2", 0), 0, "... but it gets a new name");
    tap_is_int(rename_name(ALICE, sticky, "f", open, "f", 0), 0, "the owner may");
    tap_is_int(rename_name(KERNEL, closed, "f", open, "k", 0), 0, "who was checked may");
    set_flags(ROOT, dir, FS_IMMUTABLE_FL);
    tap_is_int(rename_name(ROOT, open, "dir2", top, "x", 0), -EPERM, "nobody moves the immutable");
    set_flags(ROOT, dir, 0);
    set_flags(ROOT, closed, FS_APPEND_FL);
    make_node(ROOT, closed, "g", S_IFREG | 0644);
    tap_is_int(rename_name(ROOT, closed, "g", open, "g", 0), -EPERM, "nor out of append-only");
    tap_is_int(rename_name(ROOT, open, "k", closed, "k", 0), 0, "... but into it");
    set_flags(ROOT, closed, 0);
}

/* ---- a replaced file ---- */

static void test_replace(void)
{
    uint64_t top = (uint64_t)make_dir(ROOT, ROOT_DIR, "replace", 0777);
    uint64_t a = (uint64_t)make_node(ROOT, top, "a", S_IFREG | 0644);
    uint64_t b = (uint64_t)make_node(ROOT, top, "b", S_IFREG | 0644);
    static uint8_t data[5000];
    write_at(b, data, sizeof(data), 0);
    tap_is_int(root_rename(top, "a", top, "b"), 0, "onto a file with data");
    tap_is_int(look(ROOT, top, "b"), (int64_t)a, "... replaces it");
    tap_ok(!has_record(b), "... and it is gone at once");
    struct vv_handle *handle = open_of(ROOT, a, O_RDONLY);
    make_node(ROOT, top, "c", S_IFREG | 0644);
    tap_is_int(root_rename(top, "c", top, "b"), 0, "onto an open file");
    tap_ok(is_orphan(a), "... which becomes an orphan");
    vv_fs_release(handle);
    settle();
    tap_ok(!has_record(a) && !is_orphan(a), "... until it is closed");
    uint64_t d = (uint64_t)make_dir(ROOT, top, "d", 0755);
    make_dir(ROOT, top, "e", 0755);
    tap_is_int(root_rename(top, "e", top, "d"), 0, "onto an empty directory");
    tap_ok(!has_record(d), "... replaces it");
    tap_is_int((int64_t)attr_of(top).nlink, 3, "... and the links are counted");
}

/* ---- cookies ---- */

struct seen {
    unsigned count;
    uint64_t last;
    char name[8];
};

static int note(void *arg, const struct vv_dirent *entry)
{
    struct seen *seen = arg;
    if (entry->cookie <= 2)
        return 1;
    seen->count++;
    seen->last = entry->cookie;
    memcpy(seen->name, entry->name, sizeof(seen->name));
    return 0;
}

static void test_endless(void)
{
    uint64_t top = (uint64_t)make_dir(ROOT, ROOT_DIR, "endless", 0777);
    for (int i = 0; i < 10; i++) {
        char name[8] = {(char)('a' + i), 0};
        make_node(ROOT, top, name, S_IFREG | 0644);
    }
    struct seen seen = {0};
    unsigned before = 1;
    while (seen.count < 100 && seen.count != before) {
        before = seen.count;
        if (vv_fs_readdir(fs, top, seen.last, note, &seen) < 0 || seen.count == before)
            break;
        char to[8] = {'X', seen.name[0], 0};
        if (root_rename(top, seen.name, top, to) < 0)
            break;
    }
    tap_is_int(seen.count, 10, "renaming all that readdir shows comes to an end");
}

/* ---- a tree against a model ---- */

#define NODES_MAX 40
#define NAMES 4
#define MODEL_STEPS 3000

struct model_node {
    uint64_t inode; /* 0 = unused */
    bool is_dir;
    int entries[NAMES]; /* index of a node, -1 = none */
};

static struct model_node nodes[NODES_MAX];
static const char *const model_names[NAMES] = {"a", "bb", "a\n", "\xff"};

static int random_node(bool is_dir)
{
    for (;;) {
        int node = (int)fake_random(volume, NODES_MAX);
        if (nodes[node].inode && (nodes[node].is_dir || !is_dir))
            return node;
    }
}

static int free_node(void)
{
    int node = 0;
    while (node < NODES_MAX && nodes[node].inode)
        node++;
    return node;
}

static int link_count(int node)
{
    int count = 0;
    for (int i = 0; i < NODES_MAX; i++) {
        for (int n = 0; nodes[i].inode && nodes[i].is_dir && n < NAMES; n++)
            count += nodes[i].entries[n] == node;
    }
    return count;
}

static bool is_empty(int node)
{
    for (int n = 0; n < NAMES; n++) {
        if (nodes[node].entries[n] >= 0)
            return false;
    }
    return true;
}

static bool model_is_below(int node, int ancestor)
{
    if (node == ancestor)
        return true;
    for (int i = 0; node != 0 && i < NODES_MAX; i++) {
        for (int n = 0; nodes[i].inode && nodes[i].is_dir && n < NAMES; n++) {
            if (nodes[i].entries[n] == node) {
                node = i;
                if (node == ancestor)
                    return true;
                i = -1;
                break;
            }
        }
    }
    return false;
}

static void forget_if_unlinked(int node)
{
    if (link_count(node) == 0)
        nodes[node].inode = 0;
}

static int model_rename(int a, int x, int b, int y, unsigned flags)
{
    int from = nodes[a].entries[x];
    int to = nodes[b].entries[y];
    if (from < 0)
        return -ENOENT;
    if ((flags & RENAME_NOREPLACE) && to >= 0)
        return -EEXIST;
    if ((flags & RENAME_EXCHANGE) && to < 0)
        return -ENOENT;
    if (nodes[from].is_dir && model_is_below(b, from) && a != b)
        return -EINVAL;
    if (to >= 0 && nodes[to].is_dir && model_is_below(a, to) && a != b)
        return flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
    if (from == to)
        return 0;
    if (flags & RENAME_EXCHANGE) {
        nodes[a].entries[x] = to;
        nodes[b].entries[y] = from;
        return 0;
    }
    if (to >= 0 && nodes[from].is_dir != nodes[to].is_dir)
        return nodes[to].is_dir ? -EISDIR : -ENOTDIR;
    if (to >= 0 && nodes[to].is_dir && !is_empty(to))
        return -ENOTEMPTY;
    nodes[a].entries[x] = -1;
    nodes[b].entries[y] = from;
    if (to >= 0)
        forget_if_unlinked(to);
    return 0;
}

static int model_make(int a, int x, bool is_dir, int64_t inode)
{
    int node = free_node();
    if (nodes[a].entries[x] >= 0)
        return -EEXIST;
    nodes[node] = (struct model_node){.inode = (uint64_t)inode, .is_dir = is_dir};
    memset(nodes[node].entries, -1, sizeof(nodes[node].entries));
    nodes[a].entries[x] = node;
    return 0;
}

static int model_remove(int a, int x, bool is_rmdir)
{
    int node = nodes[a].entries[x];
    if (node < 0)
        return -ENOENT;
    if (is_rmdir != nodes[node].is_dir)
        return is_rmdir ? -ENOTDIR : -EISDIR;
    if (is_rmdir && !is_empty(node))
        return -ENOTEMPTY;
    nodes[a].entries[x] = -1;
    forget_if_unlinked(node);
    return 0;
}

/* One random call on both; true when they agree. */
static bool step(void)
{
    int a = random_node(true);
    int b = random_node(true);
    int x = (int)fake_random(volume, NAMES);
    int y = (int)fake_random(volume, NAMES);
    const char *from = model_names[x];
    const char *to = model_names[y];
    switch (fake_random(volume, 8)) {
    case 0:
    case 1: {
        bool is_dir = fake_random(volume, 2);
        if (free_node() == NODES_MAX)
            return true;
        int64_t made = is_dir ? make_dir(ROOT, nodes[a].inode, from, 0755)
                              : make_node(ROOT, nodes[a].inode, from, S_IFREG | 0644);
        int want = model_make(a, x, is_dir, made);
        return want == 0 ? made > 0 : made == want;
    }
    case 2: {
        int node = random_node(false);
        int want = nodes[b].entries[y] >= 0 ? -EEXIST : nodes[node].is_dir ? -EPERM : 0;
        int got = hard_link(ROOT, nodes[node].inode, nodes[b].inode, to);
        if (want == 0)
            nodes[b].entries[y] = node;
        return got == want;
    }
    case 3: {
        bool is_rmdir = fake_random(volume, 2);
        int got = is_rmdir ? remove_dir(ROOT, nodes[a].inode, from)
                           : unlink_name(ROOT, nodes[a].inode, from);
        return got == model_remove(a, x, is_rmdir);
    }
    default: {
        static const unsigned kinds[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
        unsigned flags = kinds[fake_random(volume, 4)];
        int got = rename_name(ROOT, nodes[a].inode, from, nodes[b].inode, to, flags);
        return got == model_rename(a, x, b, y, flags);
    }
    }
}

static bool is_tree_equal(void)
{
    for (int i = 0; i < NODES_MAX; i++) {
        if (!nodes[i].inode)
            continue;
        for (int n = 0; nodes[i].is_dir && n < NAMES; n++) {
            int node = nodes[i].entries[n];
            int64_t want = node < 0 ? -ENOENT : (int64_t)nodes[node].inode;
            if (look(ROOT, nodes[i].inode, model_names[n]) != want)
                return false;
        }
        if (!nodes[i].is_dir && (int)attr_of(nodes[i].inode).nlink != link_count(i))
            return false;
    }
    return true;
}

static void test_model(void)
{
    uint64_t top = (uint64_t)make_dir(ROOT, ROOT_DIR, "model", 0755);
    nodes[0] = (struct model_node){.inode = top, .is_dir = true};
    memset(nodes[0].entries, -1, sizeof(nodes[0].entries));
    int number = 0;
    for (; number < MODEL_STEPS; number++) {
        if (!step())
            break;
        if (number % 50 == 0 && (!is_tree_equal() || fsck() > 0))
            break;
    }
    tap_is_int(number, MODEL_STEPS, "random changes are those of a model");
}

/* Every key missing at first: no operation needs more than three rounds. */
static void test_rounds(void)
{
    uint64_t top = (uint64_t)make_dir(ROOT, ROOT_DIR, "rounds", 0755);
    uint64_t a = (uint64_t)make_dir(ROOT, top, "a", 0755);
    uint64_t b = (uint64_t)make_dir(ROOT, top, "b", 0755);
    make_node(ROOT, a, "f", S_IFREG | 0644);
    make_node(ROOT, b, "g", S_IFREG | 0644);
    volume->miss_permille = 1000;
    volume->rounds_max = 0;
    tap_is_int(rename_name(ALICE, a, "f", b, "g", 0), -EACCES, "rename, cold");
    tap_is_int(root_rename(a, "f", b, "g"), 0, "... allowed");
    tap_ok(volume->rounds_max <= 3, "... in %u rounds", volume->rounds_max);
    volume->miss_permille = 300;
}

static void test_all(void)
{
    test_rules();
    test_whiteout();
    test_permissions();
    test_replace();
    test_endless();
    test_rounds();
    test_model();
}

int main(void)
{
    return rig_main(test_all);
}
