/* The replies of requests that are not idempotent: a client that has lost its connection sends
 * them again with the same xid, and must not be told that the file which it has just made exists.
 * A repetition that comes while the first is under way waits for it. */
#include <string.h>

#include "base/hash.h"
#include "front/nfs/nfs_impl.h"

uint64_t vv_nfs_checksum_of(const struct vv_nfs_job *job)
{
    size_t len = job->record_len < VV_NFS_CHECKSUM_BYTES ? job->record_len : VV_NFS_CHECKSUM_BYTES;
    return vv_xxh3(job->record->bytes, len, job->record_len);
}

static uint64_t hash_of(const struct vv_nfs_job *job, uint64_t checksum)
{
    return vv_xxh3(job->conn->address, sizeof(job->conn->address), checksum ^ job->rpc.xid);
}

static struct vv_nfs_reply *find(const struct vv_nfs_job *job, uint64_t checksum)
{
    struct vv_map_node *node = vv_map_find(&job->conn->nfs->replies, hash_of(job, checksum));
    for (; node; node = vv_map_next(node)) {
        struct vv_nfs_reply *reply = vv_container_of(node, struct vv_nfs_reply, node);
        if (reply->xid == job->rpc.xid && reply->checksum == checksum &&
            memcmp(reply->address, job->conn->address, sizeof(reply->address)) == 0)
            return reply;
    }
    return NULL;
}

static void reply_free(struct vv_nfs_reply *reply)
{
    vv_free(reply->bytes);
    vv_free(reply);
}

static void forget(struct vv_nfs *nfs, struct vv_nfs_reply *reply)
{
    vv_map_remove(&nfs->replies, &reply->node);
    vv_list_remove(&reply->order);
    reply->is_forgotten = true;
    nfs->stats.replies--;
    if (reply->refs == 0)
        reply_free(reply);
}

/* What the first one was told. */
static int repeat(struct vv_nfs_job *job, struct vv_nfs_reply *reply)
{
    reply->refs++;
    while (!reply->is_done)
        vv_waitq_wait(&reply->done, VV_NEVER);
    reply->refs--;
    if (reply->bytes)
        vv_writer_bytes(&job->head, reply->bytes, reply->len);
    bool is_known = reply->bytes != NULL;
    if (reply->is_forgotten && reply->refs == 0)
        reply_free(reply);
    job->conn->nfs->stats.repeated++;
    return is_known && vv_writer_check(&job->head) == 0 ? 1 : -EAGAIN;
}

int vv_nfs_reply_begin(struct vv_nfs_job *job, struct vv_nfs_reply **out_reply)
{
    struct vv_nfs *nfs = job->conn->nfs;
    uint64_t checksum = vv_nfs_checksum_of(job);
    struct vv_nfs_reply *reply = find(job, checksum);
    if (reply)
        return repeat(job, reply);
    reply = vv_zalloc(sizeof(*reply));
    if (!reply)
        return -ENOMEM;
    reply->xid = job->rpc.xid;
    reply->checksum = checksum;
    memcpy(reply->address, job->conn->address, sizeof(reply->address));
    vv_list_init(&reply->order);
    vv_waitq_init(&reply->done);
    if (nfs->stats.replies >= VV_NFS_REPLIES_MAX && !vv_list_is_empty(&nfs->reply_order))
        forget(nfs, vv_list_first(&nfs->reply_order, struct vv_nfs_reply, order));
    vv_map_insert(&nfs->replies, &reply->node, hash_of(job, checksum));
    nfs->stats.replies++;
    *out_reply = reply;
    return 0;
}

void vv_nfs_reply_finish(struct vv_nfs_job *job, struct vv_nfs_reply *reply)
{
    struct vv_nfs *nfs = job->conn->nfs;
    if (!reply)
        return;
    reply->is_done = true;
    /* "Try again later" is not to be repeated: then it is to be tried. */
    if (job->results.status != VV_NFS3ERR_JUKEBOX && job->head.len > 0)
        reply->bytes = vv_memdup(job->head.ptr, job->head.len);
    reply->len = job->head.len;
    vv_waitq_wake_all(&reply->done);
    vv_list_push_back(&nfs->reply_order, &reply->order);
    if (!reply->bytes)
        forget(nfs, reply);
}

void vv_nfs_replies_done(struct vv_nfs *nfs)
{
    while (!vv_list_is_empty(&nfs->reply_order))
        forget(nfs, vv_list_first(&nfs->reply_order, struct vv_nfs_reply, order));
    vv_map_done(&nfs->replies);
}
