#include "cmd/fsck_aside_impl.h"

#include <assert.h>

#define NUMBER(x) ((unsigned long long)(x))

static_assert(sizeof(((struct vv_fsck_aside *)0)->record) >= VV_INODE_RECORD_MAX,
              "the inode's record is read there first");

/* The record under `key`, into aside->record: its length, 0 when it is damaged or not there, or an error. */
static int load(struct vv_fsck_aside *aside, const struct vv_fs_key *key)
{
    int got = vv_fsck_get(aside->fsck, vv_fs_key_bytes(key), aside->record, sizeof aside->record);
    return got < 0 && vv_fsck_is_damage(got) ? 0 : got;
}

int vv_fsck_aside_begin(struct vv_fsck_aside *aside, uint64_t inode, uint64_t data_id,
                        bool has_aside)
{
    struct vv_fs_key key;
    struct vv_inode record;
    uint64_t blocks;
    aside->inode = inode;
    aside->data_id = data_id;
    aside->is_unknown = false;
    aside->parts.count = 0;
    aside->record_len = 0;
    aside->run = (struct vv_fsck_aside_run){0};
    aside->hidden_to = 0;
    aside->wrong_blocks = 0;
    if (!has_aside)
        return 0;
    vv_key_inode(&key, inode);
    int len = load(aside, &key);
    TRY(len);
    aside->is_unknown =
        vv_inode_decode((struct vv_bytes){aside->record, (size_t)len}, inode, &record) < 0 ||
        vv_parts_decode(record.parts, &aside->parts) < 0;
    if (aside->is_unknown)
        return 0;
    vv_key_aside(&key, inode);
    len = load(aside, &key);
    TRY(len);
    aside->is_unknown = vv_aside_check((struct vv_bytes){aside->record, (size_t)len}, &blocks) < 0;
    aside->record_len = (size_t)len;
    return 0;
}

/* What holds for this byte of the data id, and how far. What lies in no part is not set aside. */
static void look_up(struct vv_fsck_aside *aside, uint64_t place)
{
    struct vv_fsck_aside_run *run = &aside->run;
    struct vv_bytes record = {aside->record, aside->record_len};
    uint64_t at = 0; /* in the file */
    if (place >= run->from && place < run->to)
        return;
    *run = (struct vv_fsck_aside_run){place, UINT64_MAX, false};
    for (size_t i = 0; i < aside->parts.count; i++) {
        const struct vv_part *part = &aside->parts.at[i];
        bool is_its = part->data_id == aside->data_id;
        if (is_its && place < part->start && part->start < run->to)
            run->to = part->start;
        if (is_its && place >= part->start && place - part->start < part->length) {
            uint64_t end;
            uint64_t block = (at + (place - part->start)) / VV_BLOCK_BYTES;
            run->is_aside = vv_aside_has(record, block, &end);
            run->to = part->length == VV_PART_NO_END ? UINT64_MAX : part->start + part->length;
            if (end <= VV_ASIDE_BLOCKS_MAX &&
                (end - block) * VV_BLOCK_BYTES < run->to - place)
                run->to = place + (end - block) * VV_BLOCK_BYTES;
            return;
        }
        at += part->length;
    }
}

/* Does a tombstone hide this record? 1, 0, or an error. Suspends. */
static int is_hidden(struct vv_fsck_aside *aside, uint64_t index, uint64_t commit)
{
    uint8_t low[VV_VOLUME_KEY_MAX], high[VV_VOLUME_KEY_MAX];
    struct vv_bytes lower = {low, vv_key_range(low, aside->data_id, 0, 0)};
    struct vv_bytes upper = {high, vv_key_range(high, aside->data_id, index + 1, 0)};
    struct vv_fsck_scan scan;
    bool is_found = index >= aside->hidden_from && index < aside->hidden_to &&
                    commit < aside->hidden_commit;
    if (is_found)
        return 1;
    int err = vv_fsck_scan_open(aside->fsck, lower, upper, &scan);
    while (err == 0 && !scan.is_end && !is_found) {
        struct vv_cursor cursor = vv_cursor_of(scan.value.ptr, scan.value.len);
        uint64_t to = vv_cursor_varint(&cursor);
        if (scan.key.len == 25 && !cursor.is_bad && index < to &&
            commit < vv_load_be64(scan.key.ptr + 17)) {
            aside->hidden_from = vv_load_be64(scan.key.ptr + 9);
            aside->hidden_to = to;
            aside->hidden_commit = vv_load_be64(scan.key.ptr + 17);
            is_found = true;
        } else {
            err = vv_fsck_scan_next(&scan);
        }
    }
    vv_fsck_scan_close(&scan);
    return err < 0 ? err : is_found;
}

int vv_fsck_aside_take(struct vv_fsck_aside *aside, uint64_t index,
                       const struct vv_extent_record *record)
{
    uint8_t blocks = vv_extent_blocks(record);
    uint8_t wrong = 0;
    for (unsigned i = 0; i < VV_EXTENT_BLOCKS && !aside->is_unknown; i++) {
        bool is_marked = record->aside >> i & 1;
        if (!(blocks >> i & 1))
            continue;
        look_up(aside, index * VV_EXTENT_BYTES + i * VV_EXTENT_BLOCK);
        if (is_marked != aside->run.is_aside)
            wrong |= (uint8_t)(1u << i);
    }
    if (wrong == 0)
        return 0;
    int hidden = is_hidden(aside, index, record->commit);
    TRY(hidden);
    if (hidden > 0)
        return 0;
    if (aside->wrong_blocks == 0) {
        unsigned first = (unsigned)__builtin_ctz(wrong);
        aside->first_wrong = index * VV_EXTENT_BYTES + first * VV_EXTENT_BLOCK;
        aside->is_first_marked = record->aside >> first & 1;
    }
    aside->wrong_blocks += (uint64_t)__builtin_popcount(wrong);
    return 0;
}

void vv_fsck_aside_end(struct vv_fsck_aside *aside)
{
    if (aside->wrong_blocks == 0)
        return;
    vv_fsck_add(aside->fsck->report, VV_FSCK_ASIDE,
                "inode %llu, data id %llu: %llu blocks with data disagree with what is set aside; the "
                "first, at byte %llu of the data id, is %s",
                NUMBER(aside->inode), NUMBER(aside->data_id), NUMBER(aside->wrong_blocks),
                NUMBER(aside->first_wrong),
                aside->is_first_marked ? "marked, and not set aside" : "set aside, and not marked");
}
