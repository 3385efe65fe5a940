/* fsck: a volume made through fs is clean; and each kind of damage is found, under its name. */
#include "cmd/fsck.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "fs/fs.h"
#include "fs/inode.h"
#include "log/log.h"
#include "lsm/lsm.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"
#include "unit/cmd/fsck_volume.h"
#include "volume/extent.h"

#define MEMORY (16u << 20)

/* What the volume is made of, found out while making it. */
struct made {
    uint64_t dir, deep, file, linked, small, attributed;
    bool is_done;
};

struct test;
struct damage {
    const char *name;
    enum vv_fsck_kind kind;                        /* that must be found; VV_FSCK_KINDS: none */
    int (*records)(struct test *, struct vv_op *); /* an operation before the end */
    void (*objects)(struct test *);                /* on the store, when it is closed */
    bool is_checking_data;
    bool is_killed;        /* ends without closing, with open handles */
    uint64_t memory_bytes; /* 0 = plenty */
};

struct test {
    const struct damage *damage;
    struct vv_store_backend *backend;
    struct vv_store *store;
    struct vv_keyring *ring;
    struct vv_volume *volume;
    struct vv_fs *fs;
    struct made made;
    struct vv_fs_call call;
    struct vv_fsck_report report;
    int err;
    bool is_judged, is_verbose;
    /* The first extent record with a data segment's frame, and its key. */
    uint8_t extent_key[17];
    struct vv_extent_record extent;
    struct vv_segment_id live_segment; /* a segment with live bytes */
};

static void must(struct test *test, int64_t result)
{
    if (result < 0 && test->err == 0) {
        test->err = (int)result;
        tap_note("making the volume: %s", vv_err_text((int)result));
    }
}

/* ---- making ---- */

static uint64_t make_dir(struct test *test, uint64_t parent, const char *name)
{
    struct vv_create create = {.mode = 0755};
    struct vv_attr attr = {0};
    must(test, vv_fs_mkdir(test->fs, &test->call, parent, name, strlen(name), &create, &attr));
    return attr.inode;
}

static struct vv_handle *open_new(struct test *test, uint64_t parent, const char *name,
                                  uint64_t *out_inode)
{
    struct vv_create create = {.mode = 0644};
    struct vv_attr attr = {0};
    struct vv_handle *handle = NULL;
    must(test, vv_fs_create(test->fs, &test->call, parent, name, strlen(name), &create, O_RDWR,
                            &attr, &handle));
    *out_inode = attr.inode;
    return handle;
}

static void write_bytes(struct test *test, uint64_t inode, struct vv_handle *handle,
                        uint64_t offset, size_t len)
{
    uint8_t *bytes = malloc(len);
    vv_rt_random(bytes, len);
    must(test, vv_fs_write(test->fs, &test->call, inode, handle, bytes, len, offset, 0));
    free(bytes);
}

static uint64_t make_file(struct test *test, uint64_t parent, const char *name, size_t len)
{
    uint64_t inode;
    struct vv_handle *handle = open_new(test, parent, name, &inode);
    if (handle == NULL)
        return 0;
    if (len > 0)
        write_bytes(test, inode, handle, 0, len);
    vv_fs_release(handle);
    return inode;
}

static void make_data(struct test *test)
{
    struct made *made = &test->made;
    struct vv_fs *fs = test->fs;
    uint64_t inode;
    made->file = make_file(test, made->dir, "big", 700 << 10);
    must(test, vv_fs_sync(fs, 0));
    struct vv_handle *handle = open_new(test, made->dir, "patched", &inode);
    write_bytes(test, inode, handle, 0, 300 << 10);
    must(test, vv_fs_sync(fs, 0));
    for (unsigned i = 0; i < 20; i++) {
        write_bytes(test, inode, handle, i * 5000, 700);
        if (i % 5 == 0)
            must(test, vv_fs_sync(fs, 0));
    }
    must(test, vv_fs_fallocate(fs, &test->call, inode, handle,
                               FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100 << 10, 50 << 10));
    must(test, vv_fs_sync(fs, 0));
    must(test,
         vv_fs_fallocate(fs, &test->call, inode, handle, FALLOC_FL_COLLAPSE_RANGE, 8192, 4096));
    must(test,
         vv_fs_fallocate(fs, &test->call, inode, handle, FALLOC_FL_INSERT_RANGE, 4096, 40960));
    vv_fs_release(handle);
    make_file(test, made->dir, "gone", 200 << 10);
    must(test, vv_fs_sync(fs, 0));
    must(test, vv_fs_unlink(fs, &test->call, made->dir, "gone", 4));
}

static void make_names(struct test *test)
{
    struct made *made = &test->made;
    struct vv_fs *fs = test->fs;
    const struct vv_fs_call *call = &test->call;
    struct vv_attr attr;
    struct vv_create fifo = {.mode = S_IFIFO | 0600};
    made->dir = make_dir(test, VV_ROOT_INODE, "dir");
    made->deep = make_dir(test, make_dir(test, made->dir, "below"), "deep");
    made->small = make_file(test, made->deep, "small", 100);
    made->linked = make_file(test, made->dir, "one", 3000);
    must(test, vv_fs_link(fs, call, made->linked, made->deep, "two", 3, &attr));
    must(test, vv_fs_link(fs, call, made->linked, VV_ROOT_INODE, "three", 5, &attr));
    must(test, vv_fs_symlink(fs, call, made->dir, "link", 4, "below/deep", 10, &attr));
    must(test, vv_fs_mknod(fs, call, made->dir, "fifo", 4, &fifo, &attr));
    made->attributed = make_file(test, made->deep, "attributed", 10);
    must(test, vv_fs_setxattr(fs, call, made->attributed, "user.a", "value", 5, 0));
    must(test, vv_fs_setxattr(fs, call, made->attributed, "user.bb", "", 0, 0));
    must(test, vv_fs_rename(fs, call, made->deep, "two", 3, made->dir, "moved", 5, 0));
    must(test, vv_fs_rename(fs, call, made->dir, "below", 5, VV_ROOT_INODE, "above", 5, 0));
    for (unsigned i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "many-%u", i);
        make_file(test, made->deep, name, i);
    }
}

/* ---- finding something to damage ---- */

static int find_extent(struct test *test)
{
    struct vv_lsm_iter *iter;
    struct vv_bytes key, value;
    TRY(vv_volume_scan(test->volume, (struct vv_bytes){(const uint8_t *)"E", 1},
                       (struct vv_bytes){(const uint8_t *)"F", 1}, &iter));
    int found;
    while ((found = vv_lsm_iter_next(iter, &key, &value)) > 0) {
        found = vv_extent_decode(value, &test->extent);
        /* Some way into the first large file, which is `file`. */
        if (found < 0 || (!test->extent.pieces[0].is_zero && key.len == 17 && key.ptr[16] == 5))
            break;
    }
    if (found >= 0 && key.len == 17) {
        memcpy(test->extent_key, key.ptr, 17);
        test->live_segment = test->extent.pieces[0].loc.segment;
    }
    vv_lsm_iter_close(iter);
    return found;
}

static int run_records(struct vv_op *op, void *arg)
{
    struct test *test = arg;
    TRY(vv_op_touch(op, VV_ROOT_INODE));
    return test->damage->records(test, op);
}

/* ---- records gone wrong ---- */

static int load_inode(struct vv_op *op, uint64_t number, struct vv_inode *inode)
{
    struct vv_fs_key key;
    struct vv_bytes value;
    vv_key_inode(&key, number);
    int found = vv_op_get(op, vv_fs_key_bytes(&key), &value);
    TRY(found);
    return found == 0 ? -ENOENT : vv_inode_decode(value, number, inode);
}

static int save_inode(struct vv_op *op, const struct vv_inode *inode)
{
    uint8_t value[VV_INODE_RECORD_MAX];
    struct vv_fs_key key;
    vv_key_inode(&key, inode->inode);
    size_t len = vv_inode_encode(inode, value);
    return vv_op_put(op, vv_fs_key_bytes(&key), (struct vv_bytes){value, len});
}

static int put_byte(struct vv_op *op, struct vv_bytes key)
{
    return vv_op_put(op, key, (struct vv_bytes){(const uint8_t *)"\1", 1});
}

static int put_key(struct vv_op *op, const struct vv_fs_key *key)
{
    return put_byte(op, vv_fs_key_bytes(key));
}

static int no_root(struct test *test, struct vv_op *op)
{
    struct vv_fs_key key;
    (void)test;
    vv_key_inode(&key, VV_ROOT_INODE);
    return vv_op_delete(op, vv_fs_key_bytes(&key));
}

static int inode_garbage(struct test *test, struct vv_op *op)
{
    struct vv_fs_key key;
    vv_key_inode(&key, test->made.small);
    return put_key(op, &key);
}

static int inode_high(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.small, &inode));
    inode.inode = 1ull << 40;
    return save_inode(op, &inode);
}

static int inode_links(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.linked, &inode));
    inode.nlink++;
    return save_inode(op, &inode);
}

static int put_aside(struct vv_op *op, uint64_t inode, const char *record, size_t len)
{
    struct vv_fs_key key;
    vv_key_aside(&key, inode);
    return vv_op_put(op, vv_fs_key_bytes(&key), (struct vv_bytes){(const uint8_t *)record, len});
}

/* Behind the file's data. */
#define ASIDE_RECORD "\1\310\1\7"

static int aside_blocks(struct test *test, struct vv_op *op, uint64_t blocks)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.file, &inode));
    inode.aside_blocks = blocks;
    TRY(put_aside(op, test->made.file, ASIDE_RECORD, 4));
    return save_inode(op, &inode);
}

static int aside_right(struct test *test, struct vv_op *op)
{
    return aside_blocks(test, op, 7);
}

static int aside_wrong(struct test *test, struct vv_op *op)
{
    return aside_blocks(test, op, 8);
}

static int aside_missing(struct test *test, struct vv_op *op)
{
    return put_aside(op, test->made.file, ASIDE_RECORD, 4);
}

static int aside_garbage(struct test *test, struct vv_op *op)
{
    return put_aside(op, test->made.file, "\1\5", 2);
}

static int aside_stray(struct test *test, struct vv_op *op)
{
    return put_aside(op, 1ull << 20, ASIDE_RECORD, 4);
}

static int dir_links(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.dir, &inode));
    inode.nlink++;
    return save_inode(op, &inode);
}

static int inode_cookie(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.small, &inode));
    inode.cookie += 1000;
    return save_inode(op, &inode);
}

static int inode_no_cookie(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.dir, &inode));
    inode.cookie = 0;
    return save_inode(op, &inode);
}

static int inode_gone(struct test *test, struct vv_op *op)
{
    struct vv_fs_key key;
    vv_key_inode(&key, test->made.small);
    return vv_op_delete(op, vv_fs_key_bytes(&key));
}

static int type_changed(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.small, &inode));
    inode.mode = S_IFIFO | 0600;
    inode.in_line.len = 0;
    return save_inode(op, &inode);
}

static int entry_half(struct test *test, struct vv_op *op)
{
    struct vv_fs_key key;
    vv_key_entry(&key, test->made.deep, "small", 5);
    return vv_op_delete(op, vv_fs_key_bytes(&key));
}

static int entry_other_half(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    struct vv_fs_key key;
    TRY(load_inode(op, test->made.small, &inode));
    vv_key_cookie(&key, inode.parent, inode.cookie);
    return vv_op_delete(op, vv_fs_key_bytes(&key));
}

static int entry_gone(struct test *test, struct vv_op *op)
{
    TRY(entry_half(test, op));
    return entry_other_half(test, op);
}

static int entry_garbage(struct test *test, struct vv_op *op)
{
    struct vv_fs_key key;
    vv_key_entry(&key, test->made.deep, "small", 5);
    return put_key(op, &key);
}

static int put_entry(struct vv_op *op, uint64_t dir, uint64_t inode, uint64_t cookie,
                     const char *name)
{
    uint8_t value[VV_COOKIE_RECORD_MAX];
    struct vv_entry entry = {inode, cookie, S_IFREG};
    struct vv_fs_key key;
    vv_key_entry(&key, dir, name, strlen(name));
    size_t len = vv_entry_encode(&entry, value);
    TRY(vv_op_put(op, vv_fs_key_bytes(&key), (struct vv_bytes){value, len}));
    vv_key_cookie(&key, dir, cookie);
    len = vv_cookie_encode(&entry, name, strlen(name), value);
    return vv_op_put(op, vv_fs_key_bytes(&key), (struct vv_bytes){value, len});
}

static int entry_second(struct test *test, struct vv_op *op)
{
    return put_entry(op, test->made.dir, test->made.small, 900, "second");
}

static int entry_in_file(struct test *test, struct vv_op *op)
{
    return put_entry(op, test->made.small, test->made.linked, 3, "inside");
}

static int cookie_high(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.deep, &inode));
    inode.next_cookie = VV_FIRST_COOKIE;
    return save_inode(op, &inode);
}

static int dir_size(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.deep, &inode));
    inode.size--;
    return save_inode(op, &inode);
}

static int dir_loop(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.deep, &inode));
    TRY(load_inode(op, inode.parent, &inode));
    inode.parent = test->made.deep;
    return save_inode(op, &inode);
}

static int link_garbage(struct test *test, struct vv_op *op)
{
    struct vv_fs_key key;
    vv_key_link(&key, test->made.linked, 1, 1);
    key.len -= 3;
    return put_key(op, &key);
}

static int link_stray(struct test *test, struct vv_op *op)
{
    struct vv_fs_key key;
    vv_key_link(&key, test->made.dir, VV_ROOT_INODE, 77);
    return put_key(op, &key);
}

static int xattr_stray(struct test *test, struct vv_op *op)
{
    struct vv_fs_key key;
    (void)test;
    vv_key_xattr(&key, 1ull << 41, "user.x", 6);
    return put_key(op, &key);
}

static int xattr_gone(struct test *test, struct vv_op *op)
{
    struct vv_fs_key key;
    vv_key_xattr(&key, test->made.attributed, "user.a", 6);
    return vv_op_delete(op, vv_fs_key_bytes(&key));
}

static int orphan_stray(struct test *test, struct vv_op *op)
{
    struct vv_fs_key key;
    vv_key_orphan(&key, test->made.small);
    return put_key(op, &key);
}

static int orphan_missing(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    TRY(load_inode(op, test->made.small, &inode));
    inode.nlink = 0;
    return save_inode(op, &inode);
}

static int set_data_id(struct test *test, struct vv_op *op, uint64_t from, uint64_t data_id)
{
    struct vv_inode inode;
    struct vv_parts parts;
    uint8_t bytes[VV_PARTS_BUF_BYTES];
    TRY(load_inode(op, from, &inode));
    parts.count = 1;
    parts.at[0] = (struct vv_part){data_id, 0, VV_PART_NO_END};
    inode.in_line.len = 0;
    inode.parts = vv_parts_encode(&parts, bytes);
    return save_inode(op, &inode);
}

static int data_shared(struct test *test, struct vv_op *op)
{
    return set_data_id(test, op, test->made.small, vv_load_be64(test->extent_key + 1));
}

static int data_high(struct test *test, struct vv_op *op)
{
    return set_data_id(test, op, test->made.small, 1ull << 42);
}

static int parts_overlap(struct test *test, struct vv_op *op)
{
    struct vv_inode inode;
    struct vv_parts parts;
    uint8_t bytes[VV_PARTS_BUF_BYTES];
    TRY(load_inode(op, test->made.file, &inode));
    TRY(vv_parts_decode(inode.parts, &parts));
    parts.count = 2;
    parts.at[1] = parts.at[0];
    parts.at[0].length = 8192;
    parts.at[1].start = 4096;
    inode.parts = vv_parts_encode(&parts, bytes);
    return save_inode(op, &inode);
}

static int drop_garbage(struct test *test, struct vv_op *op)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {key, vv_key_orphan_data(key, vv_load_be64(test->extent_key + 1))};
    return put_byte(op, bytes);
}

static struct vv_bytes extent_key(struct test *test)
{
    return (struct vv_bytes){test->extent_key, 17};
}

static int put_extent(struct vv_op *op, struct vv_bytes key, const struct vv_extent_record *record)
{
    uint8_t value[VV_EXTENT_RECORD_MAX];
    size_t len = vv_extent_encode(record, value);
    return vv_op_put(op, key, (struct vv_bytes){value, len});
}

static int extent_garbage(struct test *test, struct vv_op *op)
{
    return put_byte(op, extent_key(test));
}

static int extent_stray(struct test *test, struct vv_op *op)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {key, vv_key_extent(key, vv_load_be64(test->extent_key + 1) + 500, 0)};
    return put_extent(op, bytes, &test->extent);
}

static int extent_gone(struct test *test, struct vv_op *op)
{
    return vv_op_delete(op, extent_key(test));
}

static int extent_segment(struct test *test, struct vv_op *op)
{
    struct vv_extent_record record = test->extent;
    record.pieces[0].loc.segment.counter += 100000;
    return put_extent(op, extent_key(test), &record);
}

static int extent_index(struct test *test, struct vv_op *op)
{
    struct vv_extent_record record = test->extent;
    record.pieces[0].loc.index++;
    return put_extent(op, extent_key(test), &record);
}

static int extent_offset(struct test *test, struct vv_op *op)
{
    struct vv_extent_record record = test->extent;
    record.pieces[0].loc.offset++;
    return put_extent(op, extent_key(test), &record);
}

static int extent_commit(struct test *test, struct vv_op *op)
{
    struct vv_extent_record record = test->extent;
    record.commit = 1ull << 40;
    return put_extent(op, extent_key(test), &record);
}

static int range_garbage(struct test *test, struct vv_op *op)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {key, vv_key_range(key, vv_load_be64(test->extent_key + 1), 100, 1)};
    uint8_t value[2] = {5, 1}; /* from 100 to 5 */
    return vv_op_put(op, bytes, (struct vv_bytes){value, 2});
}

static int range_stray(struct test *test, struct vv_op *op)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {key,
                             vv_key_range(key, vv_load_be64(test->extent_key + 1) + 500, 1, 1)};
    uint8_t value[2] = {5, 1};
    return vv_op_put(op, bytes, (struct vv_bytes){value, 2});
}

static int put_sums(struct vv_op *op, struct vv_bytes key, int64_t a, int64_t b)
{
    uint8_t value[20];
    struct vv_writer writer = vv_writer_of(value, sizeof value);
    vv_writer_svarint(&writer, a);
    vv_writer_svarint(&writer, b);
    return vv_op_put(op, key, (struct vv_bytes){value, writer.len});
}

static int allocation_sum(struct test *test, struct vv_op *op)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {
        key, vv_key_allocated(key, test->made.file, vv_load_be64(test->extent_key + 1))};
    return put_sums(op, bytes, 4096, 0);
}

static int allocation_stray(struct test *test, struct vv_op *op)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {
        key, vv_key_allocated(key, test->made.small, vv_load_be64(test->extent_key + 1))};
    return put_sums(op, bytes, 4096, 0);
}

static int segment_record(struct test *test, struct vv_op *op, int64_t total, int64_t live)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {key, vv_key_segment(key, &test->live_segment)};
    return put_sums(op, bytes, total, live);
}

static int segment_negative(struct test *test, struct vv_op *op)
{
    return segment_record(test, op, 100, 200);
}

static int segment_total(struct test *test, struct vv_op *op)
{
    return segment_record(test, op, 1ll << 30, 1 << 20);
}

static int segment_unknown(struct test *test, struct vv_op *op)
{
    uint8_t key[VV_VOLUME_KEY_MAX];
    struct vv_bytes bytes = {key, vv_key_segment(key, &test->live_segment)};
    return vv_op_delete(op, bytes);
}

static int record_unknown(struct test *test, struct vv_op *op)
{
    (void)test;
    return put_byte(op, (struct vv_bytes){(const uint8_t *)"Zebra", 5});
}

static int reply_garbage(struct test *test, struct vv_op *op)
{
    (void)test;
    return put_byte(op, (struct vv_bytes){(const uint8_t *)"A\1\2", 3});
}

/* Sound, but in the slot of another. */
static int reply_misplaced(struct test *test, struct vv_op *op)
{
    struct vv_reply_record record = {.reply = {.door = VV_REPLY_NFS3}, .sequence = 8};
    uint8_t bytes[VV_REPLY_RECORD_BYTES];
    struct vv_fs_key key;
    (void)test;
    vv_reply_encode(&record, bytes);
    vv_key_reply(&key, 9);
    return vv_op_put(op, vv_fs_key_bytes(&key), (struct vv_bytes){bytes, sizeof(bytes)});
}

static int reply_key(struct test *test, struct vv_op *op)
{
    (void)test;
    return put_byte(op, (struct vv_bytes){(const uint8_t *)"A\1", 2});
}

/* Right where it is: no finding. */
static int reply_right(struct test *test, struct vv_op *op)
{
    struct vv_reply_record record = {.reply = {.door = VV_REPLY_NFS3}, .sequence = 9};
    uint8_t bytes[VV_REPLY_RECORD_BYTES];
    struct vv_fs_key key;
    (void)test;
    vv_reply_encode(&record, bytes);
    vv_key_reply(&key, 9);
    return vv_op_put(op, vv_fs_key_bytes(&key), (struct vv_bytes){bytes, sizeof(bytes)});
}

static int only_segment_live(struct test *test, struct vv_op *op)
{
    struct vv_segment_id id = test->live_segment;
    uint8_t key[VV_VOLUME_KEY_MAX];
    id.counter = 12345;
    struct vv_bytes bytes = {key, vv_key_segment(key, &id)};
    return put_sums(op, bytes, 1000, 1000);
}

/* ---- objects gone wrong ---- */

static bool find_object(struct test *test, const char *prefix, char *out_name)
{
    struct vv_store_entry entries[64];
    ssize_t count = vv_store_list(test->store, prefix, "", entries, 64);
    if (count <= 0)
        return false;
    memcpy(out_name, entries[count - 1].name, sizeof entries[0].name);
    return true;
}

static void replace(struct test *test, const char *name, size_t offset, bool is_from_end)
{
    uint8_t *bytes;
    size_t len;
    must(test, vv_store_get_all(test->store, name, 64 << 20, &bytes, &len));
    if (test->err < 0)
        return;
    bytes[is_from_end ? len - 1 - offset : offset] ^= 1;
    must(test, vv_store_remove(test->store, name));
    struct iovec iov = {bytes, len};
    must(test, vv_store_put(test->store, name, &iov, 1));
    vv_free(bytes);
}

static void remove_prefix(struct test *test, const char *prefix)
{
    char name[VV_STORE_NAME_MAX + 1];
    if (find_object(test, prefix, name))
        must(test, vv_store_remove(test->store, name));
    else
        must(test, -ENOENT);
}

static void flip_prefix(struct test *test, const char *prefix, size_t offset, bool is_from_end)
{
    char name[VV_STORE_NAME_MAX + 1];
    if (find_object(test, prefix, name))
        replace(test, name, offset, is_from_end);
    else
        must(test, -ENOENT);
}

static void volume_gone(struct test *test)
{
    remove_prefix(test, "varve.volume");
}
static void volume_flipped(struct test *test)
{
    flip_prefix(test, "varve.volume", 3, true);
}
static void keys_gone(struct test *test)
{
    remove_prefix(test, "keys/");
}
static void table_gone(struct test *test)
{
    remove_prefix(test, "sst/");
}
static void table_flipped(struct test *test)
{
    flip_prefix(test, "sst/", 300, false);
}
static void table_header_flipped(struct test *test)
{
    flip_prefix(test, "sst/", 40, false);
}
static void manifest_flipped(struct test *test)
{
    flip_prefix(test, "manifest/", 120, false);
}

static void live_name(struct test *test, char *name)
{
    vv_segment_name(&test->live_segment, name, VV_STORE_NAME_MAX + 1);
}
static void segment_gone(struct test *test)
{
    char name[VV_STORE_NAME_MAX + 1];
    live_name(test, name);
    must(test, vv_store_remove(test->store, name));
}
static void footer_flipped(struct test *test)
{
    char name[VV_STORE_NAME_MAX + 1];
    live_name(test, name);
    replace(test, name, 10, true);
}
static void directory_flipped(struct test *test)
{
    char name[VV_STORE_NAME_MAX + 1];
    live_name(test, name);
    replace(test, name, VV_SEGMENT_FOOTER_LEN + 2, true);
}
static void frame_flipped(struct test *test)
{
    char name[VV_STORE_NAME_MAX + 1];
    live_name(test, name);
    replace(test, name, test->extent.pieces[0].loc.offset + 30, false);
}
static void put_garbage(struct test *test)
{
    struct iovec iov = {(void *)(uintptr_t) "garbage", 7};
    must(test, vv_store_put(test->store, "data/07/0000000000000001-0000000000009907", &iov, 1));
    must(test, vv_store_put(test->store, "sst/07/0000000000000001-0000000000009907", &iov, 1));
}

static const struct damage damages[] = {
    {"nothing", VV_FSCK_KINDS, NULL, NULL, true, false, 0},
    {"a crash", VV_FSCK_KINDS, NULL, NULL, true, true, 0},
    {"nothing, with little memory", VV_FSCK_KINDS, NULL, NULL, true, false, 4096},
    {"garbage", VV_FSCK_KINDS, NULL, put_garbage, false, false, 0},
    {"no varve.volume", VV_FSCK_VOLUME_OBJECT, NULL, volume_gone, false, false, 0},
    {"a bit of varve.volume", VV_FSCK_VOLUME_OBJECT, NULL, volume_flipped, false, false, 0},
    {"no keys", VV_FSCK_KEYS_OBJECT, NULL, keys_gone, false, false, 0},
    {"no table", VV_FSCK_TABLE_MISSING, NULL, table_gone, false, false, 0},
    {"a bit of a table", VV_FSCK_TABLE_DAMAGED, NULL, table_flipped, false, false, 0},
    {"a bit of a table's header", VV_FSCK_TABLE_DAMAGED, NULL, table_header_flipped, false, false,
     0},
    {"a bit of the manifest", VV_FSCK_LOG_UNREADABLE, NULL, manifest_flipped, false, false, 0},
    {"no segment", VV_FSCK_SEGMENT_MISSING, NULL, segment_gone, false, false, 0},
    {"a bit of a footer", VV_FSCK_SEGMENT_DIRECTORY, NULL, footer_flipped, false, false, 0},
    {"a bit of a directory", VV_FSCK_SEGMENT_DIRECTORY, NULL, directory_flipped, false, false, 0},
    {"a bit of a frame", VV_FSCK_FRAME_DAMAGED, NULL, frame_flipped, true, false, 0},
    {"a bit of a frame, unread", VV_FSCK_KINDS, NULL, frame_flipped, false, false, 0},
    {"a record nobody knows", VV_FSCK_RECORD_UNKNOWN, record_unknown, NULL, false, false, 0},
    {"a reply", VV_FSCK_KINDS, reply_right, NULL, false, false, 0},
    {"a reply's record", VV_FSCK_REPLY_FORMAT, reply_garbage, NULL, false, false, 0},
    {"a reply's key", VV_FSCK_REPLY_FORMAT, reply_key, NULL, false, false, 0},
    {"a reply in another's slot", VV_FSCK_REPLY_FORMAT, reply_misplaced, NULL, false, false, 0},
    {"no root", VV_FSCK_ROOT_MISSING, no_root, NULL, false, false, 0},
    {"an inode record", VV_FSCK_INODE_FORMAT, inode_garbage, NULL, false, false, 0},
    {"a high inode", VV_FSCK_INODE_NUMBER, inode_high, NULL, false, false, 0},
    {"a file's link count", VV_FSCK_INODE_LINKS, inode_links, NULL, false, false, 0},
    {"a directory's link count", VV_FSCK_INODE_LINKS, dir_links, NULL, false, false, 0},
    {"another cookie", VV_FSCK_INODE_LOST, inode_cookie, NULL, false, false, 0},
    {"another cookie, the entry", VV_FSCK_ENTRY_PLACE, inode_cookie, NULL, false, false, 0},
    {"no cookie", VV_FSCK_INODE_PARENT, inode_no_cookie, NULL, false, false, 0},
    {"no inode", VV_FSCK_ENTRY_DANGLING, inode_gone, NULL, false, false, 0},
    {"another type", VV_FSCK_ENTRY_TYPE, type_changed, NULL, false, false, 0},
    {"no record by name", VV_FSCK_ENTRY_PAIR, entry_half, NULL, false, false, 0},
    {"no record by cookie", VV_FSCK_ENTRY_PAIR, entry_other_half, NULL, false, false, 0},
    {"no entry", VV_FSCK_INODE_LOST, entry_gone, NULL, false, false, 0},
    {"an entry's record", VV_FSCK_ENTRY_FORMAT, entry_garbage, NULL, false, false, 0},
    {"a second entry", VV_FSCK_ENTRY_PLACE, entry_second, NULL, false, false, 0},
    {"an entry in a file", VV_FSCK_ENTRY_NOWHERE, entry_in_file, NULL, false, false, 0},
    {"a low next cookie", VV_FSCK_DIRECTORY_COOKIE, cookie_high, NULL, false, false, 0},
    {"a directory's size", VV_FSCK_DIRECTORY_SIZE, dir_size, NULL, false, false, 0},
    {"a loop", VV_FSCK_DIRECTORY_LOOP, dir_loop, NULL, false, false, 0},
    {"a link's key", VV_FSCK_LINK_FORMAT, link_garbage, NULL, false, false, 0},
    {"a directory with two links", VV_FSCK_LINK_STRAY, link_stray, NULL, false, false, 0},
    {"a lone attribute", VV_FSCK_XATTR_STRAY, xattr_stray, NULL, false, false, 0},
    {"no attribute", VV_FSCK_XATTR_COUNT, xattr_gone, NULL, false, false, 0},
    {"an orphan with a link", VV_FSCK_ORPHAN_STRAY, orphan_stray, NULL, false, false, 0},
    {"no orphan record", VV_FSCK_ORPHAN_MISSING, orphan_missing, NULL, false, false, 0},
    {"space set aside", VV_FSCK_KINDS, aside_right, NULL, false, false, 0},
    {"another number of blocks set aside", VV_FSCK_ASIDE, aside_wrong, NULL, false, false, 0},
    {"set aside, but not in the inode", VV_FSCK_ASIDE, aside_missing, NULL, false, false, 0},
    {"a record of what is set aside", VV_FSCK_ASIDE, aside_garbage, NULL, false, false, 0},
    {"set aside of no inode", VV_FSCK_ASIDE, aside_stray, NULL, false, false, 0},
    {"overlapping parts", VV_FSCK_PARTS_FORMAT, parts_overlap, NULL, false, false, 0},
    {"a high data id", VV_FSCK_DATA_NUMBER, data_high, NULL, false, false, 0},
    {"a shared data id", VV_FSCK_DATA_SHARED, data_shared, NULL, false, false, 0},
    {"a drop's record", VV_FSCK_OPEN_FAILED, drop_garbage, NULL, false, false, 0},
    {"an extent record", VV_FSCK_EXTENT_FORMAT, extent_garbage, NULL, false, false, 0},
    {"a lone extent", VV_FSCK_EXTENT_STRAY, extent_stray, NULL, false, false, 0},
    {"an unknown segment", VV_FSCK_EXTENT_SEGMENT, extent_segment, NULL, false, false, 0},
    {"another index", VV_FSCK_EXTENT_FRAME, extent_index, NULL, false, false, 0},
    {"another offset", VV_FSCK_EXTENT_FRAME, extent_offset, NULL, false, false, 0},
    {"no extent, what is allocated", VV_FSCK_ALLOCATION_SUM, extent_gone, NULL, false, false, 0},
    {"no extent, what is live", VV_FSCK_SEGMENT_LIVE, extent_gone, NULL, false, false, 0},
    {"a high commit", VV_FSCK_COMMIT_NUMBER, extent_commit, NULL, false, false, 0},
    {"a tombstone's record", VV_FSCK_RANGE_FORMAT, range_garbage, NULL, false, false, 0},
    {"a lone tombstone", VV_FSCK_RANGE_STRAY, range_stray, NULL, false, false, 0},
    {"an allocation counter", VV_FSCK_ALLOCATION_SUM, allocation_sum, NULL, false, false, 0},
    {"a lone allocation counter", VV_FSCK_ALLOCATION_STRAY, allocation_stray, NULL, false, false,
     0},
    {"more live than total", VV_FSCK_SEGMENT_FORMAT, segment_negative, NULL, false, false, 0},
    {"a segment's total", VV_FSCK_SEGMENT_TOTAL, segment_total, NULL, false, false, 0},
    {"no segment record", VV_FSCK_EXTENT_SEGMENT, segment_unknown, NULL, false, false, 0},
    {"a segment that never was", VV_FSCK_SEGMENT_MISSING, only_segment_live, NULL, false, false, 0},
};

/* ---- running ---- */

static void create(struct test *test)
{
    must(test, vv_store_mem_open(test->backend, &test->store));
    must(test, fsck_volume_make(test->store, &test->ring));
}

static int open_volume(struct test *test, bool is_read_only)
{
    struct vv_volume_options options = {.store = test->store,
                                        .ring = test->ring,
                                        .is_read_only = is_read_only,
                                        .memory_bytes = MEMORY,
                                        .segment_bytes = 128 << 10};
    return vv_volume_open(&options, &test->volume);
}

static void show(const struct test *test)
{
    for (size_t i = 0; i < test->report.kept; i++)
        tap_note("%s: %s", vv_fsck_kind_name(test->report.problems[i].kind),
                 test->report.problems[i].text);
    if (test->report.is_incomplete)
        tap_note("not checked: %s", test->report.not_checked);
}

static void judge(struct test *test)
{
    const struct damage *damage = test->damage;
    const struct vv_fsck_report *report = &test->report;
    bool is_clean = damage->kind == VV_FSCK_KINDS;
    bool is_found = is_clean ? report->problem_count == 0 && !report->is_incomplete
                             : report->kind_counts[damage->kind] > 0;
    if (!tap_ok(is_found && test->err == 0, "%s: %s", damage->name,
                is_clean ? "clean" : vv_fsck_kind_name(damage->kind)) ||
        test->is_verbose)
        show(test);
    if (damage->objects == put_garbage)
        tap_ok(report->garbage_objects >= 2 && report->garbage_bytes >= 14,
               "left-over objects are counted");
    struct vv_writer writer = vv_writer_new();
    vv_fsck_report_json(report, "mem", &writer);
    vv_fsck_report_text(report, "mem", &writer);
    if (vv_writer_check(&writer) < 0)
        tap_ok(false, "%s: showing the report", damage->name);
    else if (test->is_verbose)
        fwrite(writer.ptr, 1, writer.len, stderr);
    vv_writer_done(&writer);
    test->is_judged = true;
}

static void check(struct test *test)
{
    struct vv_fsck_options options = {.store = test->store,
                                      .ring = test->ring,
                                      .memory_bytes = 1 << 20,
                                      .is_checking_data = test->damage->is_checking_data};
    if (test->damage->memory_bytes != 0)
        options.memory_bytes = test->damage->memory_bytes;
    test->volume = NULL;
    int err = open_volume(test, true);
    if (err < 0) {
        vv_fsck_add(&test->report, VV_FSCK_OPEN_FAILED, "%s", vv_err_text(err));
        test->volume = NULL;
    }
    must(test, vv_fsck_volume(test->volume, &options, &test->report));
    if (test->volume != NULL)
        must(test, vv_volume_close(test->volume));
    judge(test);
    vv_fsck_report_done(&test->report);
}

static void scenario(void *arg)
{
    struct test *test = arg;
    const struct damage *damage = test->damage;
    create(test);
    must(test, open_volume(test, false));
    must(test, vv_fs_open(test->volume, &test->fs));
    if (test->err < 0)
        return;
    make_names(test);
    make_data(test);
    if (damage->is_killed) {
        uint64_t inode;
        struct vv_handle *handle = open_new(test, test->made.dir, "open", &inode);
        write_bytes(test, inode, handle, 0, 100 << 10);
        must(test, vv_fs_unlink(test->fs, &test->call, test->made.dir, "open", 4));
        must(test, vv_volume_sync(test->volume, 0));
        make_file(test, test->made.dir, "after", 300 << 10);
        test->made.is_done = true;
        return;
    }
    must(test, vv_volume_settle(test->volume));
    vv_fs_close(test->fs);
    must(test, find_extent(test));
    if (damage->records != NULL)
        must(test, vv_volume_run(test->volume, VV_OP_WRITE, 0, run_records, test));
    must(test, vv_volume_close(test->volume));
    if (damage->objects != NULL)
        damage->objects(test);
    check(test);
    vv_keyring_free(test->ring);
    vv_store_close(test->store);
}

/* After a crash, another process looks. */
static void look(void *arg)
{
    struct test *test = arg;
    struct vv_secret secret = {VV_SECRET_KEY_FILE, "0123456789abcdef0123456789abcdef", 32};
    uint8_t *keys;
    size_t len;
    uint64_t number;
    must(test, vv_store_mem_open(test->backend, &test->store));
    must(test, vv_volume_keys(test->store, &keys, &len, &number, NULL));
    must(test, vv_slots_open(keys, len, &secret, &test->ring));
    vv_free(keys);
    check(test);
    vv_keyring_free(test->ring);
    vv_store_close(test->store);
}

static void world_main(void *arg)
{
    struct test *test = arg;
    int process = vv_sim_process_start(NULL, scenario, arg);
    if (test->damage->is_killed) {
        for (unsigned i = 0; i < 1000 && !test->made.is_done; i++)
            vv_rt_sleep_ns(VV_NS_PER_MS * 100);
        vv_sim_process_kill(process);
        process = vv_sim_process_start(NULL, look, arg);
    }
    vv_sim_process_wait(process);
}

static void run(const struct damage *damage, uint64_t seed, bool is_verbose)
{
    struct test test = {.damage = damage, .is_verbose = is_verbose};
    test.call.cred.is_checked = true;
    if (vv_store_backend_new(&test.backend) < 0)
        abort();
    struct vv_sim_options options = {
        .seed = seed, .latency_min_ns = 1000, .latency_max_ns = 100000, .reorder_permille = 100};
    int err = vv_sim_run(&options, world_main, &test);
    if (err < 0 || !test.is_judged)
        tap_ok(false, "%s: world %d, %s", damage->name, err, vv_err_text(test.err));
    vv_store_backend_free(test.backend);
}

int main(int argc, char **argv)
{
    vv_alloc_track(true);
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        if (argc < 2 || strcmp(argv[1], damages[i].name) == 0)
            run(&damages[i], i + 1, argc > 1);
    }
    return tap_done();
}
