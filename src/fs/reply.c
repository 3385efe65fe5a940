/* Replies that outlive a crash: a ring of records in the volume (see "what was answered" in fs.h).
 *
 * They are read once, when a door asks for them, into one array: a lookup costs no round to the
 * store, and writing one reads nothing. The array goes when it is too old to be of use. */
#include <assert.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/plant.h"
#include "fs/fs_impl.h"

struct found {
    struct vv_map_node node;
    struct vv_fs_reply reply;
};

struct vv_replies {
    struct vv_map map; /* struct found */
    uint64_t read_ns;
    unsigned count;
    struct found found[VV_REPLIES_MAX];
};

static void replies_free(struct vv_replies *replies)
{
    if (!replies)
        return;
    vv_map_done(&replies->map);
    vv_free(replies);
}

void vv_replies_done(struct vv_fs *fs)
{
    replies_free(fs->replies);
    fs->replies = NULL;
}

/* An id is the door's hash of something. */
static uint64_t hash_of(const uint8_t id[VV_REPLY_ID_BYTES])
{
    return vv_xxh3(id, VV_REPLY_ID_BYTES, 0);
}

/* A damaged record is worth a line, not the service: what it could have answered is done again. */
static void take(struct vv_replies *replies, struct vv_bytes key, struct vv_bytes value,
                 uint64_t *next)
{
    struct vv_reply_record record;
    uint64_t slot;
    int err = vv_reply_slot(key, &slot);
    if (err == 0)
        err = vv_reply_decode(value, slot, &record);
    if (err < 0 || replies->count == VV_REPLIES_MAX) {
        vv_warn("fs", "a record of a reply cannot be used: %s", vv_err_text(err));
        return;
    }
    struct found *found = &replies->found[replies->count++];
    found->reply = record.reply;
    vv_map_insert(&replies->map, &found->node, hash_of(record.reply.id));
    if (record.sequence >= *next)
        *next = record.sequence + 1;
}

static int read_all(struct vv_fs *fs, struct vv_replies *replies, uint64_t *next)
{
    static const uint8_t lower[] = {VV_TABLE_REPLY};
    static const uint8_t upper[] = {VV_TABLE_REPLY + 1};
    struct vv_lsm_iter *iter = NULL;
    struct vv_bytes key;
    struct vv_bytes value;
    TRY(vv_volume_scan(fs->volume, (struct vv_bytes){lower, 1}, (struct vv_bytes){upper, 1},
                       &iter));
    int more;
    while ((more = vv_lsm_iter_next(iter, &key, &value)) > 0)
        take(replies, key, value, next);
    vv_lsm_iter_close(iter);
    return more;
}

int vv_fs_replies_open(struct vv_fs *fs)
{
    uint64_t next = 0;
    if (fs->has_replies)
        return 0;
    struct vv_replies *replies = vv_zalloc(sizeof(*replies));
    if (!replies)
        return -ENOMEM;
    int err = vv_map_init(&replies->map);
    if (err == 0)
        err = read_all(fs, replies, &next);
    if (err < 0 || fs->has_replies) { /* another door may have been faster */
        replies_free(replies);
        return err;
    }
    replies->read_ns = vv_rt_now_ns();
    fs->replies = replies;
    fs->reply_next = next;
    fs->has_replies = true;
    return 0;
}

bool vv_fs_reply_find(struct vv_fs *fs, unsigned door, const uint8_t id[VV_REPLY_ID_BYTES],
                      struct vv_fs_reply *out_reply)
{
    if (!fs->replies)
        return false;
    if (vv_rt_now_ns() - fs->replies->read_ns > VV_REPLIES_KEEP_S * VV_NS_PER_S) {
        vv_replies_done(fs);
        return false;
    }
    struct vv_map_node *node = vv_map_find(&fs->replies->map, hash_of(id));
    for (; node; node = vv_map_next(node)) {
        const struct found *found = vv_container_of(node, struct found, node);
        if (found->reply.door == door && memcmp(found->reply.id, id, VV_REPLY_ID_BYTES) == 0) {
            *out_reply = found->reply;
            return true;
        }
    }
    return false;
}

unsigned vv_fs_reply_count(const struct vv_fs *fs)
{
    return fs->replies ? fs->replies->count : 0;
}

int vv_reply_stage(struct vv_fs *fs, struct vv_op *op, const struct vv_fs_call *call,
                   uint64_t inode)
{
    uint8_t bytes[VV_REPLY_RECORD_BYTES];
    struct vv_fs_key key;
    if (!call->reply)
        return 0;
    assert(fs->has_replies);
    /* A number that is drawn and not used leaves the record of its slot to live a turn longer. */
    struct vv_reply_record record = {.reply = *call->reply, .sequence = fs->reply_next++};
    record.reply.inode = inode;
    if (vv_planted(VV_PLANT_LATE_REPLY)) {
        struct vv_fs_reply late = fs->late_reply;
        fs->late_reply = record.reply;
        if (late.door == 0)
            return 0;
        record.reply = late;
    }
    vv_reply_encode(&record, bytes);
    vv_key_reply(&key, record.sequence % VV_REPLIES_MAX);
    return vv_key_put(op, &key, bytes, sizeof(bytes));
}
