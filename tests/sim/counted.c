#include "counted.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fs/aside.h"
#include "volume/extent.h"

#define FILES_MAX 4096

struct counted {
    struct server *server;
    struct vv_inode inode;
    struct vv_parts parts;
    uint64_t inodes[FILES_MAX];
    size_t inode_count;
    uint64_t blocks; /* of the file that is looked at, as they should be counted */
    uint64_t wrong;  /* that are marked as lying in what is set aside, and do not; or do, and are not */
    size_t aside_len;
    uint8_t aside[VV_ASIDE_RECORD_MAX];
};

static int scan(struct counted *counted, struct vv_bytes lower, struct vv_bytes upper,
                int (*fn)(struct counted *counted, struct vv_bytes key, struct vv_bytes value))
{
    struct vv_lsm_iter *iter;
    struct vv_bytes key, value;
    TRY(vv_volume_scan(counted->server->volume, lower, upper, &iter));
    int found;
    while ((found = vv_lsm_iter_next(iter, &key, &value)) > 0) {
        found = fn(counted, key, value);
        if (found < 0)
            break;
    }
    vv_lsm_iter_close(iter);
    return found;
}

static int take_inode(struct counted *counted, struct vv_bytes key, struct vv_bytes value)
{
    struct vv_inode inode;
    if (key.len != 9)
        return 0;
    uint64_t number = vv_load_be64(key.ptr + 1);
    TRY(vv_inode_decode(value, number, &inode));
    if ((inode.parts.len > 0 || inode.aside_blocks > 0) && inode.nlink > 0 &&
        counted->inode_count < FILES_MAX)
        counted->inodes[counted->inode_count++] = number;
    return 0;
}

/* Does the place of a data id, which lies in a part, lie in a block that is set aside? */
static bool is_aside(const struct counted *counted, uint64_t data_id, uint64_t place)
{
    uint64_t end;
    uint64_t at = 0;
    for (size_t p = 0; p < counted->parts.count; p++) {
        const struct vv_part *part = &counted->parts.at[p];
        if (part->data_id == data_id && place >= part->start && place - part->start < part->length)
            return vv_aside_has((struct vv_bytes){counted->aside, counted->aside_len},
                                (at + place - part->start) / VV_BLOCK_BYTES, &end);
        at += part->length;
    }
    return false;
}

/* Blocks in which the extent has frames, and that are not set aside; each is to be marked as what it is. */
static int take_extent(struct counted *counted, struct vv_bytes key, struct vv_bytes value)
{
    struct vv_extent_record record;
    TRY(vv_extent_decode(value, &record));
    uint64_t start = vv_load_be64(key.ptr + 9) * VV_EXTENT_BYTES;
    uint8_t blocks = vv_extent_blocks(&record);
    for (unsigned i = 0; i < VV_EXTENT_BLOCKS; i++) {
        uint64_t place = start + (uint64_t)i * VV_EXTENT_BLOCK;
        bool is_in = is_aside(counted, vv_load_be64(key.ptr + 1), place);
        counted->blocks += (blocks >> i & 1) && !is_in;
        counted->wrong += (blocks >> i & 1) && is_in != (record.aside >> i & 1);
    }
    return 0;
}

static int load(struct vv_op *op, void *arg)
{
    struct counted *counted = arg;
    struct vv_fs_key key;
    struct vv_bytes record, aside;
    uint64_t number = counted->inode.inode;
    vv_key_inode(&key, number);
    int found = vv_op_get(op, vv_fs_key_bytes(&key), &record);
    TRY(found);
    TRY(found > 0 ? vv_inode_decode(record, number, &counted->inode) : -VV_ERR_CORRUPT);
    TRY(vv_aside_load(op, &counted->inode, &aside));
    counted->aside_len = aside.len;
    if (aside.len > 0)
        memcpy(counted->aside, aside.ptr, aside.len);
    return vv_parts_decode(counted->inode.parts, &counted->parts);
}

static int look_at(struct counted *counted, uint64_t inode)
{
    struct server *server = counted->server;
    struct vv_attr attr;
    counted->inode.inode = inode;
    TRY(vv_volume_run(server->volume, VV_OP_READ, 0, load, counted));
    uint64_t blocks;
    counted->blocks = 0;
    counted->wrong = 0;
    if (counted->aside_len > 0)
        TRY(vv_aside_check((struct vv_bytes){counted->aside, counted->aside_len},
                           &counted->blocks));
    for (size_t p = 0; p < counted->parts.count; p++) {
        uint8_t low[VV_VOLUME_KEY_MAX], high[VV_VOLUME_KEY_MAX];
        uint64_t data_id = counted->parts.at[p].data_id;
        size_t same = 0;
        while (counted->parts.at[same].data_id != data_id)
            same++;
        struct vv_bytes lower = {low, vv_key_extent(low, data_id, 0)};
        struct vv_bytes upper = {high, vv_key_extent(high, data_id + 1, 0)};
        if (same == p)
            TRY(scan(counted, lower, upper, take_extent));
    }
    blocks = counted->blocks;
    TRY(vv_fs_getattr(server->fs, inode, &attr));
    server->world->facts.counted_files++;
    server->world->facts.counted_aside += counted->inode.aside_blocks > 0;
    if (attr.blocks != blocks * (VV_BLOCK_BYTES / 512))
        world_fail(server->world,
                   "at the end st_blocks of inode %" PRIu64 " is %" PRIu64 ", and %" PRIu64
                   " blocks have data or are set aside (%" PRIu64 " are)",
                   inode, attr.blocks, blocks, counted->inode.aside_blocks);
    if (counted->wrong > 0)
        world_fail(server->world,
                   "at the end %" PRIu64 " blocks of inode %" PRIu64
                   " disagree with what is set aside",
                   counted->wrong, inode);
    return 0;
}

int counted_check(struct server *server)
{
    struct vv_volume_stats stats;
    vv_volume_stats(server->volume, &stats);
    if (stats.ranges > 0 || stats.orphans > 0)
        return 0; /* they count until they are reclaimed */
    struct counted *counted = calloc(1, sizeof(*counted));
    if (!counted)
        abort();
    counted->server = server;
    int err = scan(counted, (struct vv_bytes){(const uint8_t *)"I", 1},
                   (struct vv_bytes){(const uint8_t *)"J", 1}, take_inode);
    for (size_t i = 0; i < counted->inode_count && err == 0; i++)
        err = look_at(counted, counted->inodes[i]);
    free(counted);
    return err;
}
