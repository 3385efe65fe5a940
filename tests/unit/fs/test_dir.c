#include "rig.h"

#define ENTRIES 300

struct listing {
    unsigned count, stop_after;
    uint64_t last;
    bool is_ascending;
    uint8_t seen[ENTRIES];
    struct vv_dirent first[3];
};

static int visit(void *arg, const struct vv_dirent *entry)
{
    struct listing *listing = arg;
    if (listing->count == listing->stop_after)
        return 0;
    if (listing->count < 3)
        listing->first[listing->count] = *entry;
    listing->is_ascending &= entry->cookie > listing->last;
    listing->last = entry->cookie;
    listing->count++;
    if (entry->name[0] == 'f')
        listing->seen[atoi(entry->name + 1)]++;
    return 1;
}

static struct listing list(uint64_t dir, uint64_t after, unsigned stop_after, int *out_err)
{
    struct listing listing = {.stop_after = stop_after, .is_ascending = true, .last = after};
    *out_err = vv_fs_readdir(fs, dir, after, visit, &listing);
    return listing;
}

static bool has_all(const struct listing *listing, unsigned from, unsigned step)
{
    for (unsigned i = from; i < ENTRIES; i += step) {
        if (listing->seen[i] != 1)
            return false;
    }
    return true;
}

static int fail(void *arg, const struct vv_dirent *entry)
{
    return -EIO;
}

static void test_all(void)
{
    int err;
    uint64_t dir = (uint64_t)make_dir(ROOT, ROOT_DIR, "dir", 0755);
    struct listing listing = list(dir, 0, UINT32_MAX, &err);
    tap_ok(err == 0 && listing.count == 2, "an empty directory");
    tap_ok(strcmp(listing.first[0].name, ".") == 0 && listing.first[0].inode == dir &&
               listing.first[0].cookie == 1 && listing.first[0].type == S_IFDIR,
           "has .");
    tap_ok(strcmp(listing.first[1].name, "..") == 0 && listing.first[1].inode == ROOT_DIR &&
               listing.first[1].cookie == 2,
           "and ..");
    for (int i = 0; i < ENTRIES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        if (i == 0)
            make_link(ROOT, dir, name, "x");
        else
            make_node(ROOT, dir, name, S_IFREG | 0644);
    }
    listing = list(dir, 0, UINT32_MAX, &err);
    tap_ok(err == 0 && listing.count == ENTRIES + 2 && has_all(&listing, 0, 1), "all entries");
    tap_ok(listing.is_ascending, "by cookie");
    tap_ok(listing.first[2].type == S_IFLNK && strcmp(listing.first[2].name, "f0") == 0 &&
               listing.first[2].name_len == 2,
           "with type and name");
    /* In pieces, while every second entry is removed before it is reached and others are made. */
    struct listing pieces = {.is_ascending = true};
    for (int i = 0; i < ENTRIES; i += 2) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        pieces.stop_after = pieces.count + 2;
        if (i > 2)
            unlink_name(ROOT, dir, name);
        if (vv_fs_readdir(fs, dir, pieces.last, visit, &pieces) < 0)
            break;
        name[0] = 'g';
        make_node(ROOT, dir, name, S_IFREG | 0644);
    }
    pieces.stop_after = UINT32_MAX;
    err = vv_fs_readdir(fs, dir, pieces.last, visit, &pieces);
    tap_ok(err == 0 && pieces.is_ascending && has_all(&pieces, 1, 2),
           "in pieces, what stays is met once");
    listing = list(dir, UINT64_MAX, UINT32_MAX, &err);
    tap_ok(err == 0 && listing.count == 0, "after the last cookie there is nothing");
    uint64_t when = (uint64_t)attr_of(dir).atime.tv_nsec;
    vv_rt_sleep_ns(1000);
    make_node(ROOT, dir, "another", S_IFREG | 0644);
    list(dir, 0, UINT32_MAX, &err);
    tap_ok((uint64_t)attr_of(dir).atime.tv_nsec != when, "reading after a change sets atime");
    when = (uint64_t)attr_of(dir).atime.tv_nsec;
    vv_rt_sleep_ns(1000);
    list(dir, 0, UINT32_MAX, &err);
    tap_ok((uint64_t)attr_of(dir).atime.tv_nsec == when, "... once");
    list((uint64_t)look(ROOT, dir, "f1"), 0, 1, &err);
    tap_is_int(err, -ENOTDIR, "a file is no directory");
    list(4711, 0, 1, &err);
    tap_is_int(err, -ESTALE, "nor is nothing");
    tap_is_int(vv_fs_readdir(fs, dir, 0, fail, NULL), -EIO, "an error of the visitor is returned");
    uint64_t gone = (uint64_t)make_dir(ROOT, dir, "gone", 0755);
    struct vv_handle *handle = open_of(ROOT, gone, O_RDONLY);
    remove_dir(ROOT, dir, "gone");
    list(gone, 0, 1, &err);
    tap_is_int(err, -ENOENT, "a removed directory");
    vv_fs_release(handle);
    settle();
}

int main(void)
{
    return rig_main(test_all);
}
