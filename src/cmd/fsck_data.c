/* Data ids: who uses each, its extents and tombstones, and what is allocated to it.
 *
 * Inodes name data ids in no order, extents stand sorted by data id. So what inodes and drops say
 * is gathered in an array of `items` and sorted; when memory does not hold all of it, the smallest
 * data ids are kept and the tables are gone through once more for the rest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "cmd/fsck_aside_impl.h"
#include "fs/inode.h"
#include "log/log.h"
#include "volume/extent.h"

#define NUMBER(x) ((unsigned long long)(x))
#define ITEMS_MIN 64

enum role { OWNER, DROP, ALLOCATION };

struct item {
    uint64_t data_id;
    uint64_t inode; /* and the role, in the top two bits */
    int64_t value;  /* of an allocation counter; of an owner, 1 when something of it is set aside */
};
#define ROLE_SHIFT 62
#define INODE_MASK ((1ull << ROLE_SHIFT) - 1)

struct data {
    struct vv_fsck *fsck;
    struct item *items; /* with from <= data_id < to */
    size_t count, max;
    uint64_t from;
    uint64_t to; /* UINT64_MAX: no end */
    bool is_first_round;
    struct vv_fsck_scan extents, ranges;
    struct vv_fsck_aside *aside;
};

static enum role role_of(const struct item *item)
{
    return (enum role)(item->inode >> ROLE_SHIFT);
}

static uint64_t inode_of(const struct item *item)
{
    return item->inode & INODE_MASK;
}

static int compare_items(const void *a, const void *b)
{
    const struct item *first = a;
    const struct item *second = b;
    if (first->data_id != second->data_id)
        return first->data_id < second->data_id ? -1 : 1;
    if (first->inode != second->inode)
        return first->inode < second->inode ? -1 : 1;
    return 0;
}

/* ---- gathering ---- */

/* Keep the lower half of the data ids; the others come in a later round. */
static int make_room(struct data *data)
{
    qsort(data->items, data->count, sizeof *data->items, compare_items);
    size_t keep = data->count / 2;
    uint64_t limit = data->items[keep].data_id;
    while (keep > 0 && data->items[keep - 1].data_id == limit)
        keep--;
    if (keep == 0)
        return -ENOMEM; /* one data id fills the memory: nothing but damage does that */
    data->to = limit;
    data->count = keep;
    return 0;
}

static int add(struct data *data, uint64_t data_id, uint64_t inode, enum role role, int64_t value)
{
    if (data_id < data->from || data_id >= data->to)
        return 0;
    if (data->count == data->max) {
        TRY(make_room(data));
        if (data_id >= data->to)
            return 0;
    }
    data->items[data->count++] =
        (struct item){data_id, (inode & INODE_MASK) | (uint64_t)role << ROLE_SHIFT, value};
    return 0;
}

static void check_data_id(struct data *data, uint64_t data_id, uint64_t inode)
{
    struct vv_fsck *fsck = data->fsck;
    if (data->is_first_round &&
        (data_id < VV_ORIGIN_FIRST_DATA || data_id >= fsck->counters.next_data_id))
        vv_fsck_add(fsck->report, VV_FSCK_DATA_NUMBER,
                    "data id %llu of inode %llu, but the next new one is %llu", NUMBER(data_id),
                    NUMBER(inode), NUMBER(fsck->counters.next_data_id));
}

/* The parts of one inode: each data id once, and no stretch of it twice. */
static int add_parts(struct data *data, const struct vv_inode *inode)
{
    struct vv_parts parts;
    bool is_bad = false;
    if (inode->parts.len == 0)
        return 0;
    TRY(vv_parts_decode(inode->parts, &parts)); /* as vv_inode_decode did: cannot fail */
    for (size_t i = 0; i < parts.count; i++) {
        const struct vv_part *part = &parts.at[i];
        bool is_known = false;
        for (size_t j = 0; j < i; j++) {
            const struct vv_part *before = &parts.at[j];
            if (before->data_id != part->data_id)
                continue;
            is_known = true;
            is_bad |= part->start < before->start || part->start - before->start < before->length;
        }
        if (is_known)
            continue;
        check_data_id(data, part->data_id, inode->inode);
        data->fsck->report->data_ids += data->is_first_round;
        TRY(add(data, part->data_id, inode->inode, OWNER, inode->aside_blocks > 0));
    }
    if (is_bad && data->is_first_round)
        vv_fsck_add(data->fsck->report, VV_FSCK_PARTS_FORMAT,
                    "inode %llu uses one stretch of a data id twice, or out of order",
                    NUMBER(inode->inode));
    return 0;
}

static int add_allocation(struct data *data, const struct vv_fsck_scan *scan)
{
    struct vv_cursor cursor = vv_cursor_of(scan->value.ptr, scan->value.len);
    uint64_t inode = vv_load_be64(scan->key.ptr + 1);
    uint64_t data_id = vv_load_be64(scan->key.ptr + 9);
    int64_t value = vv_cursor_svarint(&cursor);
    (void)vv_cursor_svarint(&cursor);
    if (vv_cursor_end(&cursor) < 0 || value < 0) {
        if (data->is_first_round)
            vv_fsck_add(data->fsck->report, VV_FSCK_ALLOCATION_SUM,
                        "the counter of inode %llu, data id %llu makes no sense", NUMBER(inode),
                        NUMBER(data_id));
        return 0;
    }
    return add(data, data_id, inode, ALLOCATION, value);
}

static int gather_inodes(struct data *data)
{
    struct vv_fsck_scan scan;
    int err = vv_fsck_scan_prefix(data->fsck, "I", &scan);
    while (err == 0 && !scan.is_end) {
        struct vv_inode inode;
        if (scan.key.len == 17)
            err = add_allocation(data, &scan);
        else if (scan.key.len == 9 &&
                 vv_inode_decode(scan.value, vv_load_be64(scan.key.ptr + 1), &inode) == 0)
            err = add_parts(data, &inode);
        if (err == 0)
            err = vv_fsck_scan_next(&scan);
    }
    vv_fsck_scan_close(&scan);
    return err;
}

static void check_commit(struct data *data, uint64_t commit, const char *what, uint64_t data_id)
{
    if (commit > data->fsck->last_commit)
        vv_fsck_add(data->fsck->report, VV_FSCK_COMMIT_NUMBER,
                    "%s of data id %llu is of commit %llu, the last one is %llu", what,
                    NUMBER(data_id), NUMBER(commit), NUMBER(data->fsck->last_commit));
}

static int gather_drops(struct data *data)
{
    struct vv_fsck_scan scan;
    int err = vv_fsck_scan_prefix(data->fsck, "Td", &scan);
    while (err == 0 && !scan.is_end) {
        struct vv_cursor cursor = vv_cursor_of(scan.value.ptr, scan.value.len);
        uint64_t inode = vv_cursor_varint(&cursor);
        uint64_t commit = vv_cursor_varint(&cursor);
        bool is_good = vv_cursor_end(&cursor) == 0 && scan.key.len == 10;
        uint64_t data_id = is_good ? vv_load_be64(scan.key.ptr + 2) : 0;
        if (data->is_first_round && is_good) {
            data->fsck->report->drops++;
            check_data_id(data, data_id, inode);
            check_commit(data, commit, "a drop", data_id);
        } else if (data->is_first_round) {
            vv_fsck_add(data->fsck->report, VV_FSCK_DROP_FORMAT,
                        "a drop record with a key of %zu bytes", scan.key.len);
        }
        if (is_good)
            err = add(data, data_id, inode, DROP, 0);
        if (err == 0)
            err = vv_fsck_scan_next(&scan);
    }
    vv_fsck_scan_close(&scan);
    return err;
}

/* ---- one data id ---- */

/* Count the allocated bytes of an extent record that is sound. is_owned: the extent's file is known. */
static int take_extent(struct data *data, bool is_owned, uint64_t *allocated)
{
    const struct vv_fsck_scan *scan = &data->extents;
    struct vv_fsck_report *report = data->fsck->report;
    struct vv_extent_record record;
    report->extents++;
    uint64_t data_id = vv_load_be64(scan->key.ptr + 1);
    uint64_t index = scan->key.len == 17 ? vv_load_be64(scan->key.ptr + 9) : UINT64_MAX;
    if (index > VV_EXTENT_INDEX_MAX || vv_extent_decode(scan->value, &record) < 0) {
        vv_fsck_add(report, VV_FSCK_EXTENT_FORMAT, "data id %llu, extent %llu", NUMBER(data_id),
                    NUMBER(index));
        return 0;
    }
    check_commit(data, record.commit, "an extent", data_id);
    *allocated += vv_extent_allocated(&record);
    return is_owned ? vv_fsck_aside_take(data->aside, index, &record) : 0;
}

static void take_range(struct data *data)
{
    const struct vv_fsck_scan *scan = &data->ranges;
    struct vv_fsck_report *report = data->fsck->report;
    struct vv_cursor cursor = vv_cursor_of(scan->value.ptr, scan->value.len);
    uint64_t data_id = vv_load_be64(scan->key.ptr + 1);
    uint64_t to = vv_cursor_varint(&cursor);
    (void)vv_cursor_varint(&cursor);
    report->ranges++;
    if (scan->key.len != 25 || vv_cursor_end(&cursor) < 0 || vv_load_be64(scan->key.ptr + 9) >= to)
        vv_fsck_add(report, VV_FSCK_RANGE_FORMAT, "a tombstone of data id %llu", NUMBER(data_id));
    else
        check_commit(data, vv_load_be64(scan->key.ptr + 17), "a tombstone", data_id);
}

static uint64_t data_id_at(const struct vv_fsck_scan *scan)
{
    if (scan->is_end)
        return UINT64_MAX;
    return scan->key.len >= 9 ? vv_load_be64(scan->key.ptr + 1) : 0;
}

/* What the items of one data id say. */
struct use {
    const struct item *user; /* owner or drop; the first */
    size_t users;
    bool is_dropped;
    int64_t counter; /* of the user */
};

static void take_items(struct data *data, const struct item *items, size_t count, struct use *use)
{
    struct vv_fsck_report *report = data->fsck->report;
    for (size_t i = 0; i < count; i++) {
        const struct item *item = &items[i];
        if (role_of(item) != ALLOCATION) {
            use->user = use->users++ == 0 ? item : use->user;
            use->is_dropped |= role_of(item) == DROP;
        } else if (use->user != NULL && inode_of(use->user) == inode_of(item)) {
            use->counter += item->value;
        } else if (item->value != 0) {
            vv_fsck_add(
                report, VV_FSCK_ALLOCATION_STRAY,
                "%lld bytes are counted for inode %llu, data id %llu, which it does not use",
                (long long)item->value, NUMBER(inode_of(item)), NUMBER(item->data_id));
        }
    }
    if (use->users > 1)
        vv_fsck_add(report, VV_FSCK_DATA_SHARED, "data id %llu of inode %llu is %s",
                    NUMBER(use->user->data_id), NUMBER(inode_of(use->user)),
                    use->is_dropped ? "dropped as well" : "used twice");
}

static int take_data_id(struct data *data, uint64_t data_id, const struct item *items, size_t count)
{
    struct vv_fsck_report *report = data->fsck->report;
    struct use use = {0};
    uint64_t extents = 0, ranges = 0, allocated = 0;
    take_items(data, items, count, &use);
    bool is_owned = use.users == 1 && !use.is_dropped;
    if (is_owned)
        TRY(vv_fsck_aside_begin(data->aside, inode_of(use.user), data_id, use.user->value > 0));
    while (!data->extents.is_end && data_id_at(&data->extents) == data_id) {
        if (data->extents.key.len >= 9)
            TRY(take_extent(data, is_owned, &allocated));
        else
            vv_fsck_add(report, VV_FSCK_EXTENT_FORMAT, "a key of %zu bytes", data->extents.key.len);
        extents++;
        TRY(vv_fsck_scan_next(&data->extents));
    }
    if (is_owned)
        vv_fsck_aside_end(data->aside);
    while (!data->ranges.is_end && data_id_at(&data->ranges) == data_id) {
        if (data->ranges.key.len >= 9)
            take_range(data);
        else
            vv_fsck_add(report, VV_FSCK_RANGE_FORMAT, "a key of %zu bytes", data->ranges.key.len);
        ranges++;
        TRY(vv_fsck_scan_next(&data->ranges));
    }
    if (use.users == 0 && extents > 0)
        vv_fsck_add(report, VV_FSCK_EXTENT_STRAY,
                    "%llu extents of data id %llu, which nothing uses", NUMBER(extents),
                    NUMBER(data_id));
    if (use.users == 0 && ranges > 0)
        vv_fsck_add(report, VV_FSCK_RANGE_STRAY,
                    "%llu tombstones of data id %llu, which nothing uses", NUMBER(ranges),
                    NUMBER(data_id));
    if (use.users > 0 && (int64_t)allocated != use.counter)
        vv_fsck_add(report, VV_FSCK_ALLOCATION_SUM,
                    "inode %llu, data id %llu: %llu bytes are allocated, %lld are counted",
                    NUMBER(inode_of(use.user)), NUMBER(data_id), NUMBER(allocated),
                    (long long)use.counter);
    return 0;
}

/* All data ids of this round. */
static int join(struct data *data)
{
    size_t at = 0;
    for (;;) {
        uint64_t next = at < data->count ? data->items[at].data_id : UINT64_MAX;
        uint64_t extent = data_id_at(&data->extents);
        uint64_t range = data_id_at(&data->ranges);
        next = extent < next ? extent : next;
        next = range < next ? range : next;
        if (next >= data->to || (next == UINT64_MAX && data->extents.is_end && data->ranges.is_end))
            return 0;
        size_t end = at;
        while (end < data->count && data->items[end].data_id == next)
            end++;
        TRY(take_data_id(data, next, data->items + at, end - at));
        at = end;
    }
}

static int run_rounds(struct data *data)
{
    TRY(vv_fsck_scan_prefix(data->fsck, "E", &data->extents));
    TRY(vv_fsck_scan_prefix(data->fsck, "R", &data->ranges));
    data->is_first_round = true;
    do {
        data->count = 0;
        data->to = UINT64_MAX;
        TRY(gather_inodes(data));
        TRY(gather_drops(data));
        qsort(data->items, data->count, sizeof *data->items, compare_items);
        TRY(join(data));
        data->is_first_round = false;
        data->from = data->to;
    } while (data->to != UINT64_MAX);
    return 0;
}

int vv_fsck_data(struct vv_fsck *fsck)
{
    struct data data = {.fsck = fsck};
    vv_fsck_stage(fsck, "data");
    data.max = (size_t)(fsck->memory_bytes / 2 / sizeof *data.items);
    if (data.max < ITEMS_MIN)
        data.max = ITEMS_MIN;
    data.items = vv_calloc(data.max, sizeof *data.items);
    data.aside = vv_zalloc(sizeof *data.aside);
    int err = data.items == NULL || data.aside == NULL ? -ENOMEM : 0;
    if (err == 0) {
        data.aside->fsck = fsck;
        err = run_rounds(&data);
    }
    vv_fsck_scan_close(&data.extents);
    vv_fsck_scan_close(&data.ranges);
    vv_free(data.aside);
    vv_free(data.items);
    return err;
}
