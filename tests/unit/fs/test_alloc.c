/* fallocate, and all changes of file data against a byte array. */
#include "rig.h"

#define MODEL_MAX (256u << 10)
#define STEPS 2000

static uint64_t file;
static uint8_t model[2 * MODEL_MAX];
static uint64_t model_size;
static uint8_t bytes[MODEL_MAX];
/* Blocks that count: written, or set aside. */
#define MODEL_BLOCKS (2 * MODEL_MAX / VV_BLOCK_BYTES)
static bool in_use[MODEL_BLOCKS];
static uint64_t model_change;

static void use(uint64_t from, uint64_t to, bool is_used)
{
    for (uint64_t i = from; i < to && i < MODEL_BLOCKS; i++)
        in_use[i] = is_used;
}

static uint64_t up(uint64_t offset)
{
    return (offset + VV_BLOCK_BYTES - 1) / VV_BLOCK_BYTES;
}

/* Joining parts writes zeros into holes: what is in use then is what the file says. */
static void look_at_use(void)
{
    struct vv_inode inode;
    struct vv_fs_key key;
    vv_key_aside(&key, file);
    const struct fake_record *aside = fsck_get(&key);
    fsck_inode(file, &inode);
    for (uint64_t i = 0; i < MODEL_BLOCKS; i++) {
        uint64_t end, data;
        in_use[i] = aside && vv_aside_has((struct vv_bytes){aside->value, aside->value_len}, i, &end);
        if (i * VV_BLOCK_BYTES < inode.size &&
            vv_fs_seek(fs, file, i * VV_BLOCK_BYTES, SEEK_DATA, &data) == 0 &&
            data / VV_BLOCK_BYTES == i)
            in_use[i] = true;
    }
}

/* st_blocks, as often as the model knows it. */
static bool is_counted_right(void)
{
    struct vv_inode inode;
    fsck_inode(file, &inode);
    if (inode.change > model_change + 1)
        look_at_use();
    model_change = inode.change;
    if (inode.parts.len == 0 && inode.aside_blocks == 0) {
        use(0, MODEL_BLOCKS, false);
        in_use[0] = inode.in_line.len > 0;
        return attr_of(file).blocks == in_use[0];
    }
    uint64_t blocks = 0;
    for (uint64_t i = 0; i < MODEL_BLOCKS; i++)
        blocks += in_use[i];
    if (attr_of(file).blocks != blocks * (VV_BLOCK_BYTES / 512))
        tap_note("%llu sectors, should be %llu", (unsigned long long)attr_of(file).blocks,
                 (unsigned long long)blocks * (VV_BLOCK_BYTES / 512));
    return attr_of(file).blocks == blocks * (VV_BLOCK_BYTES / 512);
}

static int allocate(int mode, uint64_t offset, uint64_t len)
{
    return vv_fs_fallocate(fs, ROOT, file, NULL, mode, offset, len);
}

static bool is_like_model(void)
{
    static uint8_t got[2 * MODEL_MAX];
    struct vv_attr attr = attr_of(file);
    ssize_t len = read_at(file, got, sizeof(got), 0);
    return attr.size == model_size && len == (ssize_t)model_size &&
           memcmp(got, model, model_size) == 0;
}

static uint64_t random_to(uint64_t bound)
{
    return fake_random(volume, bound);
}

/* Small and large offsets, often at the edges of blocks and of inline files. */
static uint64_t random_offset(void)
{
    switch (random_to(6)) {
    case 0:
        return random_to(VV_INLINE_MAX + 20);
    case 1:
        return random_to(MODEL_MAX / VV_BLOCK_BYTES) * VV_BLOCK_BYTES;
    case 2:
        return model_size > 0 ? random_to(model_size + 1) : 0;
    case 3:
        return model_size;
    default:
        return random_to(MODEL_MAX);
    }
}

static int step_write(void)
{
    uint64_t offset = random_offset();
    uint64_t len = 1 + random_to(random_to(2) ? 700 : 50000);
    bool is_append = random_to(4) == 0;
    offset = is_append ? model_size : offset;
    len = offset + len > MODEL_MAX ? MODEL_MAX - offset : len;
    if (offset >= MODEL_MAX)
        return 0;
    for (uint64_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)random_to(256);
    ssize_t got = vv_fs_write(fs, ROOT, file, NULL, bytes, len, is_append ? 99 : offset,
                              is_append ? VV_WRITE_APPEND : 0);
    memcpy(model + offset, bytes, len);
    model_size = offset + len > model_size ? offset + len : model_size;
    use(offset / VV_BLOCK_BYTES, up(offset + len), true);
    return got == (ssize_t)len ? 0 : -1;
}

static int step_truncate(void)
{
    uint64_t size = random_to(3) == 0 ? random_to(VV_INLINE_MAX * 2) : random_offset();
    if (random_to(8) == 0)
        size = 0;
    if (size < model_size)
        memset(model + size, 0, model_size - size);
    if (size <= model_size)
        use(up(size), MODEL_BLOCKS, false);
    model_size = size;
    return set_size(ROOT, file, size);
}

static int step_zero(void)
{
    uint64_t offset = random_offset();
    uint64_t len = 1 + random_to(60000);
    int kind = (int)random_to(5);
    static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, FALLOC_FL_KEEP_SIZE};
    len = offset + len > MODEL_MAX ? MODEL_MAX - offset : len;
    if (offset >= MODEL_MAX)
        return 0;
    uint64_t end = offset + len < model_size ? offset + len : model_size;
    if ((modes[kind] & ~FALLOC_FL_KEEP_SIZE) != 0 && offset < end)
        memset(model + offset, 0, end - offset);
    if (modes[kind] & FALLOC_FL_PUNCH_HOLE)
        use(up(offset), offset + len >= model_size && up(model_size) > (offset + len) / VV_BLOCK_BYTES
                            ? up(model_size) : (offset + len) / VV_BLOCK_BYTES, false);
    else
        use(offset / VV_BLOCK_BYTES, up(offset + len), true);
    if (!(modes[kind] & FALLOC_FL_KEEP_SIZE) && offset + len > model_size)
        model_size = offset + len;
    return allocate(modes[kind], offset, len);
}

static int step_collapse(void)
{
    uint64_t blocks = model_size / VV_BLOCK_BYTES;
    uint64_t offset = random_to(blocks + 1) * VV_BLOCK_BYTES;
    uint64_t len = (1 + random_to(8)) * VV_BLOCK_BYTES;
    int err = allocate(FALLOC_FL_COLLAPSE_RANGE, offset, len);
    if (offset + len >= model_size)
        return err == -EINVAL ? 0 : -1;
    memmove(model + offset, model + offset + len, model_size - offset - len);
    memset(model + model_size - len, 0, len);
    model_size -= len;
    uint64_t from = offset / VV_BLOCK_BYTES;
    uint64_t count = len / VV_BLOCK_BYTES;
    memmove(in_use + from, in_use + from + count, MODEL_BLOCKS - from - count);
    use(MODEL_BLOCKS - count, MODEL_BLOCKS, false);
    return err;
}

static int step_insert(void)
{
    uint64_t blocks = model_size / VV_BLOCK_BYTES;
    uint64_t offset = random_to(blocks + 1) * VV_BLOCK_BYTES;
    uint64_t len = (1 + random_to(8)) * VV_BLOCK_BYTES;
    if (model_size + len > MODEL_MAX)
        return 0;
    int err = allocate(FALLOC_FL_INSERT_RANGE, offset, len);
    if (offset >= model_size)
        return err == -EINVAL ? 0 : -1;
    memmove(model + offset + len, model + offset, model_size - offset);
    memset(model + offset, 0, len);
    model_size += len;
    uint64_t from = offset / VV_BLOCK_BYTES;
    uint64_t count = len / VV_BLOCK_BYTES;
    memmove(in_use + from + count, in_use + from, MODEL_BLOCKS - from - count);
    use(from, from + count, false);
    return err;
}

static int step_seek(void)
{
    uint64_t offset = random_offset();
    uint64_t data = 0;
    uint64_t hole = 0;
    int err = vv_fs_seek(fs, file, offset, SEEK_DATA, &data);
    if (offset >= model_size)
        return err == -ENXIO ? 0 : -1;
    data = err == -ENXIO ? model_size : data;
    /* What lies before the data is zeros. */
    for (uint64_t i = offset; i < data; i++) {
        if (model[i] != 0)
            return -1;
    }
    err = vv_fs_seek(fs, file, offset, SEEK_HOLE, &hole);
    return err == 0 && hole >= offset && hole <= model_size ? 0 : -1;
}

/* Weights: many writes; more collapses and inserts in the second half, to fill the part list. */
static int step(unsigned number)
{
    uint64_t kind = random_to(20);
    bool is_late = number > STEPS / 2;
    if (kind < 6)
        return step_write();
    if (kind < (is_late ? 7 : 10))
        return is_late && random_to(20) ? 0 : step_truncate();
    if (kind < 12)
        return step_zero();
    if (kind < 15)
        return step_collapse();
    return kind < 18 ? step_insert() : step_seek();
}

static void test_model(void)
{
    file = (uint64_t)make_node(ROOT, ROOT_DIR, "model", S_IFREG | 0644);
    unsigned number = 0;
    size_t parts_max = 0;
    for (; number < STEPS; number++) {
        if (step(number) < 0 || !is_like_model() || !is_counted_right())
            break;
        struct vv_inode inode;
        fsck_inode(file, &inode);
        if (inode.parts.len / VV_PART_BYTES > parts_max)
            parts_max = inode.parts.len / VV_PART_BYTES;
        if (number % 64 == 0 && fsck() > 0)
            break;
    }
    tap_is_int(number, STEPS, "random changes are those of a byte array");
    tap_note("up to %zu parts", parts_max);
    tap_is_int(fsck(), 0, "records agree");
}

/* More inserts than parts fit: the list is shortened by copying. */
static void test_many_parts(void)
{
    file = (uint64_t)make_node(ROOT, ROOT_DIR, "parts", S_IFREG | 0644);
    uint64_t blocks = 60;
    for (uint64_t i = 0; i < blocks; i++)
        memset(bytes + i * VV_BLOCK_BYTES, (int)i + 1, VV_BLOCK_BYTES);
    model_size = blocks * VV_BLOCK_BYTES;
    memcpy(model, bytes, model_size);
    write_at(file, bytes, model_size, 0);
    int err = 0;
    unsigned number = 0;
    for (uint64_t at = 1; err == 0 && model_size + 4096 <= 2 * MODEL_MAX && number < 190;
         number++) {
        err = allocate(FALLOC_FL_INSERT_RANGE, at * VV_BLOCK_BYTES, VV_BLOCK_BYTES);
        memmove(model + (at + 1) * VV_BLOCK_BYTES, model + at * VV_BLOCK_BYTES,
                model_size - at * VV_BLOCK_BYTES);
        memset(model + at * VV_BLOCK_BYTES, 0, VV_BLOCK_BYTES);
        model_size += VV_BLOCK_BYTES;
        at = (at + 2) % (model_size / VV_BLOCK_BYTES);
    }
    tap_is_int(err, 0, "%u inserts", number);
    tap_ok(is_like_model(), "... keep the bytes");
    tap_is_int(fsck(), 0, "... and the records");
    /* Parts too large to be copied: the limit shows. */
    file = (uint64_t)make_node(ROOT, ROOT_DIR, "large", S_IFREG | 0644);
    uint64_t gap = 16u << 20;
    set_size(ROOT, file, 400 * gap);
    write_at(file, "x", 1, 1000);
    for (number = 0, err = 0; err == 0 && number < 300; number++)
        err = allocate(FALLOC_FL_INSERT_RANGE, (number + 1) * gap, gap / 2);
    tap_is_int(err, -EFBIG, "parts beyond the limit: -EFBIG");
    tap_ok(number > VV_PARTS_MAX / 2 - 2, "... after %u inserts", number);
}

static uint64_t aside_blocks(void)
{
    struct vv_inode inode;
    fsck_inode(file, &inode);
    return inode.aside_blocks;
}

#define LONG_BLOCKS 10
#define STRETCHES_MAX ((VV_ASIDE_RECORD_MAX - 1) / 2) /* short ones take two bytes each */

/* More stretches than the record of what is set aside holds: nothing fails that need not, and the count stays what the record says. */
static void test_many_stretches(void)
{
    file = (uint64_t)make_node(ROOT, ROOT_DIR, "stretches", S_IFREG | 0644);
    set_size(ROOT, file, 1ull << 40);
    int bad_count = allocate(FALLOC_FL_KEEP_SIZE, 0, LONG_BLOCKS * VV_BLOCK_BYTES) < 0;
    for (uint64_t i = 1; i < STRETCHES_MAX + 50; i++)
        bad_count += allocate(FALLOC_FL_KEEP_SIZE, (LONG_BLOCKS + 2 * i) * VV_BLOCK_BYTES, 1) < 0;
    uint64_t full = LONG_BLOCKS + STRETCHES_MAX - 1;
    tap_is_int(bad_count, 0, "allocations beyond what can be noted down do not fail");
    tap_is_int((int64_t)aside_blocks(), (int64_t)full, "... and do not count");
    tap_is_int((int64_t)attr_of(file).blocks, (int64_t)full * 8, "... in st_blocks either");
    tap_is_int(allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5 * VV_BLOCK_BYTES, VV_BLOCK_BYTES),
               0, "a hole that would make one more");
    tap_is_int((int64_t)aside_blocks(), (int64_t)full, "... leaves its block counted");
    tap_is_int(allocate(FALLOC_FL_INSERT_RANGE, 5 * VV_BLOCK_BYTES, VV_BLOCK_BYTES), -EFBIG,
               "an insert that would");
    tap_is_int((int64_t)attr_of(file).size, 1ll << 40, "... changes nothing");
    tap_is_int(allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 5 * VV_BLOCK_BYTES), 0,
               "a hole that makes none");
    tap_is_int((int64_t)aside_blocks(), (int64_t)full - 5, "... counts");
    tap_is_int(set_size(ROOT, file, LONG_BLOCKS * VV_BLOCK_BYTES), 0, "cut off behind the first");
    tap_is_int((int64_t)aside_blocks(), LONG_BLOCKS - 5, "... which is left");
    tap_is_int(fsck(), 0, "records agree");
}

static unsigned changes;

static void change_it(void)
{
    changes++;
    write_at(file, "x", 1, LONG_BLOCKS * VV_BLOCK_BYTES);
}

/* Somebody writes to the file whenever it is looked through: that comes to an end, and what may be data is not set aside. */
static void test_changing_file(void)
{
    file = (uint64_t)make_node(ROOT, ROOT_DIR, "changing", S_IFREG | 0644);
    write_at(file, "x", 1, LONG_BLOCKS * VV_BLOCK_BYTES);
    fake_on_seek = change_it;
    tap_is_int(allocate(0, 0, 2 * LONG_BLOCKS * VV_BLOCK_BYTES), 0, "a file that changes all the time");
    fake_on_seek = NULL;
    tap_ok(changes >= 32 && changes < 200, "... is looked through some times (%u)", changes);
    tap_is_int((int64_t)aside_blocks(), LONG_BLOCKS - 1, "... what is behind its end is set aside");
    tap_is_int(allocate(0, 0, 2 * LONG_BLOCKS * VV_BLOCK_BYTES), 0, "once it rests");
    tap_is_int((int64_t)aside_blocks(), 2 * LONG_BLOCKS - 1, "... all holes are");
    tap_is_int((int64_t)attr_of(file).blocks, 2 * LONG_BLOCKS * 8, "... and count");
    tap_is_int(fsck(), 0, "records agree");
}

static void test_errors(void)
{
    static const struct {
        int mode;
        uint64_t offset, len;
        int err;
        const char *what;
    } rows[] = {
        {0, 0, 0, -EINVAL, "no length"},
        {FALLOC_FL_PUNCH_HOLE, 0, 4096, -EOPNOTSUPP, "punching without keeping the size"},
        {FALLOC_FL_COLLAPSE_RANGE, 1, 4096, -EINVAL, "collapse at an odd offset"},
        {FALLOC_FL_COLLAPSE_RANGE, 0, 4095, -EINVAL, "collapse of an odd length"},
        {FALLOC_FL_COLLAPSE_RANGE, 4096, 8192, -EINVAL, "collapse up to the end"},
        {FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096, -EINVAL, "collapse and keep"},
        {FALLOC_FL_INSERT_RANGE, 12288, 4096, -EINVAL, "insert at the end"},
        {FALLOC_FL_INSERT_RANGE, 100, 4096, -EINVAL, "insert at an odd offset"},
        {FALLOC_FL_INSERT_RANGE, 0, VV_FILE_BYTES_MAX, -EFBIG, "insert too much"},
        {0, VV_FILE_BYTES_MAX, 1, -EFBIG, "past the largest size"},
        {0, UINT64_MAX, 2, -EFBIG, "overflow"},
        {0x800, 0, 1, -EOPNOTSUPP, "an unknown mode"},
        {FALLOC_FL_KEEP_SIZE, 0, 1 << 20, 0, "preallocation"},
        {FALLOC_FL_UNSHARE_RANGE, 0, 4096, 0, "unsharing"},
    };
    file = (uint64_t)make_node(ROOT, ROOT_DIR, "errors", S_IFREG | 0644);
    set_size(ROOT, file, 12288);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        tap_is_int(allocate(rows[i].mode, rows[i].offset, rows[i].len), rows[i].err, "%s",
                   rows[i].what);
    tap_is_int((int64_t)attr_of(file).size, 12288, "the size is as before");
    volume->store_free = 1 << 20;
    tap_is_int(allocate(0, 0, 2 << 20), -ENOSPC, "more than the store has");
    tap_is_int(allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 << 20), 0,
               "punching needs none");
    volume->store_free = UINT64_MAX;
    struct vv_handle *handle = open_of(ROOT, file, O_RDONLY);
    tap_is_int(vv_fs_fallocate(fs, ROOT, file, handle, 0, 0, 1), -EBADF, "a handle for reading");
    vv_fs_release(handle);
    uint64_t dir = (uint64_t)make_dir(ROOT, ROOT_DIR, "dir", 0755);
    tap_is_int(vv_fs_fallocate(fs, ROOT, dir, NULL, 0, 0, 1), -EISDIR, "a directory");
    uint64_t fifo = (uint64_t)make_node(ROOT, ROOT_DIR, "fifo", S_IFIFO | 0644);
    tap_is_int(vv_fs_fallocate(fs, ROOT, fifo, NULL, 0, 0, 1), -ESPIPE, "a FIFO");
    uint64_t device = (uint64_t)make_node(ROOT, ROOT_DIR, "device", S_IFCHR | 0644);
    tap_is_int(vv_fs_fallocate(fs, ROOT, device, NULL, 0, 0, 1), -ENODEV, "a device");
    tap_is_int(vv_fs_fallocate(fs, BOB, file, NULL, 0, 0, 1), -EACCES, "without permission");
    set_flags(ROOT, file, FS_APPEND_FL);
    tap_is_int(allocate(0, 0, 20000), 0, "append-only: growing");
    tap_is_int(allocate(FALLOC_FL_ZERO_RANGE, 0, 20000), -EPERM, "append-only: zeroing");
    set_flags(ROOT, file, FS_IMMUTABLE_FL);
    tap_is_int(allocate(0, 0, 30000), -EPERM, "immutable");
    set_flags(ROOT, file, 0);
    set_owner(ROOT, file, 1000, 1000);
    set_mode(ROOT, file, 06755);
    tap_is_int(vv_fs_fallocate(fs, ALICE, file, NULL, 0, 0, 30000), 0, "the owner");
    tap_is_int(attr_of(file).mode & 07777, 0755, "setuid and setgid are gone");
    set_mode(ROOT, file, 06745);
    tap_is_int(vv_fs_fallocate(fs, ALICE, file, NULL, 0, 0, 30000), 0, "in the file's group");
    tap_is_int(attr_of(file).mode & 07777, 02745, "setgid without execution stays");
    set_owner(ROOT, file, UINT32_MAX, 3000);
    set_mode(ROOT, file, 06745);
    tap_is_int(vv_fs_fallocate(fs, ALICE, file, NULL, 0, 0, 30000), 0, "not in it");
    tap_is_int(attr_of(file).mode & 07777, 0745, "it goes");
}

static void test_all(void)
{
    test_errors();
    test_model();
    test_many_parts();
    test_many_stretches();
    test_changing_file();
}

int main(void)
{
    return rig_main(test_all);
}
