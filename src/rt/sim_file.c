/* Files of the simulated runtime. */
#include "rt/sim_impl.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/alloc.h"

/* How often a read or a small write needs no waiting, as with a warm page cache. */
#define INLINE_PERMILLE 250
#define INLINE_MAX (256u << 10)
/* How often a write over several pages takes effect in two steps. */
#define SPLIT_PERMILLE 125

struct sim_file {
    struct vv_file base;
    struct vv_list node; /* among the process's files */
    struct vv_sim_inode *inode;
    unsigned flags;
    unsigned call_count; /* under way; closing then is a bug */
};

static const struct vv_file_ops sim_file_ops;

static struct sim_file *sim_file(struct vv_file *file)
{
    return vv_container_of(file, struct sim_file, base);
}

/* ---- opening and closing ---- */

static struct sim_file *new_file(struct vv_sim_world *world, struct vv_sim_inode *inode,
                                 unsigned flags)
{
    struct sim_file *file = vv_sim_alloc(sizeof(*file));
    if (!file)
        return NULL;
    file->base.ops = &sim_file_ops;
    file->inode = inode;
    file->flags = flags;
    vv_sim_inode_ref(inode);
    vv_sim_inode_use(inode);
    inode->disk->open_count++;
    vv_list_push_back(&world->current->files, &file->node);
    return file;
}

static void free_file(struct sim_file *file)
{
    struct vv_sim_inode *inode = file->inode;
    if (inode->lock_holder == &file->base)
        inode->lock_holder = NULL;
    inode->disk->open_count--;
    vv_list_remove(&file->node);
    vv_sim_inode_unuse(inode);
    vv_sim_inode_unref(inode);
    vv_free(file);
}

void vv_sim_files_drop(struct vv_sim_process *process)
{
    vv_list_each_safe (node, &process->files) {
        free_file(vv_list_entry(node, struct sim_file, node));
    }
}

/* Find the file, or make it when it is not there and may be made; with a reference. */
static int find_or_make(struct vv_sim_disk *disk, const char *path, unsigned flags,
                        struct vv_sim_inode **out_inode)
{
    struct vv_sim_place place;
    TRY(vv_sim_resolve(disk, path, &place));
    struct vv_sim_inode *inode = place.dir;
    if (place.name[0])
        inode = vv_sim_dir_find(place.dir, place.name);
    if (!inode && !(flags & VV_FILE_CREATE))
        return -ENOENT;
    if (inode && (flags & VV_FILE_CREATE) && (flags & VV_FILE_EXCLUSIVE))
        return -EEXIST;
    if (inode && inode->is_dir)
        return -EISDIR;
    if (inode) {
        vv_sim_inode_ref(inode);
        *out_inode = inode;
        return 0;
    }
    inode = vv_sim_inode_new(disk, false);
    if (!inode)
        return -ENOMEM;
    vv_sim_inode_ref(inode);
    int err = vv_sim_dir_set(place.dir, place.name, inode);
    if (err != 0)
        vv_sim_inode_unref(inode);
    else
        *out_inode = inode;
    return err;
}

static int do_open(const char *path, unsigned flags, struct sim_file **out_file)
{
    struct vv_sim_world *world = vv_sim_world_self();
    struct vv_sim_disk *disk = world->current->disk;
    struct vv_sim_inode *inode;
    if (!disk)
        return -ENODEV;
    if (vv_sim_disk_fails(disk))
        return -EIO;
    TRY(find_or_make(disk, path, flags, &inode));
    int err = flags & VV_FILE_TRUNCATE ? vv_sim_content_resize(&inode->content, 0) : 0;
    if (err == 0) {
        *out_file = new_file(world, inode, flags);
        err = *out_file ? 0 : -ENOMEM;
    }
    vv_sim_inode_unref(inode);
    return err;
}

int vv_sim_file_open(const char *path, unsigned flags, struct vv_file **out_file)
{
    struct vv_sim_world *world = vv_sim_world_self();
    struct sim_file *file;
    if ((flags & (VV_FILE_READ | VV_FILE_WRITE)) == 0)
        return -EINVAL;
    vv_sim_world_pause(world);
    int err = do_open(path, flags, &file);
    vv_sim_world_pause(world);
    if (err == 0)
        *out_file = &file->base;
    return err;
}

static void sim_close(struct vv_file *base)
{
    struct sim_file *file = sim_file(base);
    assert(file->call_count == 0 && "nobody uses a file that is closed");
    if (vv_fiber_self() && vv_sim_chance(500))
        vv_sim_world_pause(vv_sim_world_self());
    free_file(file);
}

/* ---- one call ---- */

/* Time passes before the effect, and after it. `is_inline`: perhaps none. */
static bool begin(struct sim_file *file, bool is_inline)
{
    assert(vv_fiber_self() && "only a fiber can suspend");
    bool is_waiting = !is_inline || !vv_sim_chance(INLINE_PERMILLE);
    file->call_count++;
    if (is_waiting)
        vv_sim_world_pause(vv_sim_world_self());
    return is_waiting;
}

static void finish(struct sim_file *file, bool is_waiting)
{
    if (is_waiting)
        vv_sim_world_pause(vv_sim_world_self());
    file->call_count--;
}

static ssize_t sim_pread(struct vv_file *base, void *buf, size_t len, uint64_t offset)
{
    struct sim_file *file = sim_file(base);
    if (!(file->flags & VV_FILE_READ))
        return -EBADF;
    if (offset > INT64_MAX || len > SSIZE_MAX)
        return -EINVAL;
    bool is_waiting = begin(file, len <= INLINE_MAX);
    ssize_t got = -EIO;
    if (!vv_sim_disk_fails(file->inode->disk))
        got = (ssize_t)vv_sim_content_read(&file->inode->content, buf, len, offset);
    finish(file, is_waiting);
    return got;
}

/* The bytes from `from` to `to` of what the vector holds go to the file, which has it at `offset`.
 */
static int write_range(struct sim_file *file, const struct iovec *iov, size_t from, size_t to,
                       uint64_t offset)
{
    size_t begin_at = 0;
    for (; begin_at < to; begin_at += iov++->iov_len) {
        size_t end_at = begin_at + iov->iov_len;
        size_t first = from > begin_at ? from : begin_at;
        size_t last = to < end_at ? to : end_at;
        if (first >= last)
            continue;
        TRY(vv_sim_content_write(&file->inode->content,
                                 (const char *)iov->iov_base + (first - begin_at), last - first,
                                 offset + first));
    }
    return 0;
}

/* Where a write of `total` bytes is interrupted: at the end of a page, or not at all. */
static size_t choose_split(size_t total, uint64_t offset)
{
    if (total <= VV_SIM_PAGE_BYTES || !vv_sim_chance(SPLIT_PERMILLE))
        return total;
    size_t split = vv_sim_random(total);
    size_t in_page = (offset + split) % VV_SIM_PAGE_BYTES;
    return split > in_page ? split - in_page : total;
}

static int write_vector(struct sim_file *file, const struct iovec *iov, int count, uint64_t offset)
{
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    if (vv_sim_disk_fails(file->inode->disk)) {
        (void)!write_range(file, iov, 0, vv_sim_random(total + 1), offset);
        return -EIO;
    }
    size_t split = choose_split(total, offset);
    TRY(write_range(file, iov, 0, split, offset));
    if (split == total)
        return 0;
    vv_sim_world_pause(vv_sim_world_self());
    return write_range(file, iov, split, total, offset);
}

/* The caller may find the vector changed, so it always does. */
static void spoil(struct iovec *iov, int count)
{
    for (int i = 0; i < count; i++)
        iov[i] = (struct iovec){NULL, 0};
}

static int sim_pwritev(struct vv_file *base, struct iovec *iov, int count, uint64_t offset)
{
    struct sim_file *file = sim_file(base);
    if (!(file->flags & VV_FILE_WRITE))
        return -EBADF;
    size_t total = 0;
    for (int i = 0; i < count && total <= INLINE_MAX; i++)
        total += iov[i].iov_len;
    bool is_waiting = begin(file, total <= INLINE_MAX);
    int err = write_vector(file, iov, count, offset);
    spoil(iov, count);
    finish(file, is_waiting);
    return err;
}

static int sync_content(struct sim_file *file)
{
    bool is_failing = vv_sim_disk_fails(file->inode->disk);
    TRY(vv_sim_content_sync(&file->inode->content, is_failing));
    return is_failing ? -EIO : 0;
}

static int sim_datasync(struct vv_file *base)
{
    struct sim_file *file = sim_file(base);
    (void)begin(file, false);
    int err = sync_content(file);
    finish(file, true);
    return err;
}

static int sim_pwritev_sync(struct vv_file *base, struct iovec *iov, int count, uint64_t offset)
{
    struct sim_file *file = sim_file(base);
    if (!(file->flags & VV_FILE_WRITE))
        return -EBADF;
    (void)begin(file, false);
    int err = write_vector(file, iov, count, offset);
    spoil(iov, count);
    if (err == 0) {
        vv_sim_world_pause(vv_sim_world_self());
        err = sync_content(file);
    }
    finish(file, true);
    return err;
}

/* ---- size, space, lock ---- */

static int sim_size(struct vv_file *base, uint64_t *out_bytes)
{
    *out_bytes = sim_file(base)->inode->content.size;
    return 0;
}

static int sim_truncate(struct vv_file *base, uint64_t size)
{
    struct sim_file *file = sim_file(base);
    if (!(file->flags & VV_FILE_WRITE))
        return -EINVAL;
    (void)begin(file, false);
    int err = -EIO;
    if (!vv_sim_disk_fails(file->inode->disk))
        err = vv_sim_content_resize(&file->inode->content, size);
    finish(file, true);
    return err;
}

static int sim_allocate(struct vv_file *base, uint64_t offset, uint64_t len)
{
    struct sim_file *file = sim_file(base);
    if (!(file->flags & VV_FILE_WRITE))
        return -EBADF;
    (void)begin(file, false);
    int err = -EIO;
    if (!vv_sim_disk_fails(file->inode->disk))
        err = vv_sim_content_allocate(&file->inode->content, offset, len);
    finish(file, true);
    return err;
}

static int sim_lock(struct vv_file *base)
{
    struct sim_file *file = sim_file(base);
    struct vv_sim_inode *inode = file->inode;
    (void)begin(file, false);
    bool is_free = !inode->lock_holder || inode->lock_holder == base;
    if (is_free)
        inode->lock_holder = base;
    finish(file, true);
    return is_free ? 0 : -EWOULDBLOCK;
}

static const struct vv_file_ops sim_file_ops = {
    .close = sim_close,
    .pread = sim_pread,
    .pwritev = sim_pwritev,
    .datasync = sim_datasync,
    .pwritev_sync = sim_pwritev_sync,
    .size = sim_size,
    .truncate = sim_truncate,
    .allocate = sim_allocate,
    .lock = sim_lock,
};
