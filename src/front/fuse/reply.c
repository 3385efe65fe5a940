/* Replies to the kernel: fuse_out_header, then what the opcode asks for. */
#include "front/fuse/fuse_impl.h"

#include <linux/fuse.h>
#include <string.h>

int vv_fuse_error_of(int err)
{
    return -vv_err_errno(err);
}

/* A reply of up to so many bytes is put together first: each piece costs the kernel more than they do. */
#define ONE_PIECE_BYTES 512

/* The same as one piece. */
static int reply_gathered(struct vv_fuse *fuse, const struct iovec *iov, int count)
{
    uint8_t bytes[ONE_PIECE_BYTES];
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        if (iov[i].iov_len > 0)
            memcpy(bytes + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    struct iovec whole = {bytes, len};
    return vv_fuse_device_write(&fuse->device, &whole, 1);
}

int vv_fuse_reply_iov(struct vv_fuse *fuse, uint64_t unique, int err, struct iovec *iov, int count)
{
    struct fuse_out_header header = {.len = sizeof(header), .error = err, .unique = unique};
    for (int i = 1; i < count; i++)
        header.len += (uint32_t)iov[i].iov_len;
    iov[0] = (struct iovec){&header, sizeof(header)};
    fuse->stats.requests++;
    if (count > 1 && header.len <= ONE_PIECE_BYTES)
        return reply_gathered(fuse, iov, count);
    return vv_fuse_device_write(&fuse->device, iov, count);
}

int vv_fuse_reply(struct vv_fuse_request *request, const void *bytes, size_t len)
{
    struct iovec iov[2] = {{0}, {(void *)bytes, len}};
    return vv_fuse_reply_iov(request->fuse, request->message.header.unique, 0, iov, 2);
}

int vv_fuse_reply_ok(struct vv_fuse_request *request)
{
    struct iovec iov[1];
    vv_fuse_reply_iov(request->fuse, request->message.header.unique, 0, iov, 1);
    return 0;
}

void vv_fuse_reply_error(struct vv_fuse *fuse, const struct fuse_in_header *header, int err)
{
    struct iovec iov[1];
    int kernel_err = vv_fuse_error_of(err);
    fuse->stats.errors += kernel_err != -ENOENT;
    vv_fuse_reply_iov(fuse, header->unique, kernel_err, iov, 1);
}

uint64_t vv_fuse_timeout_s(struct vv_fuse_request *request)
{
    struct vv_fuse *fuse = request->fuse;
    if (fuse->options.is_no_cache)
        return 0;
    /* Another door changed something meanwhile: the invalidation may overtake this reply. */
    if (request->change_count != fuse->change_count) {
        fuse->stats.uncached_replies++;
        return 0;
    }
    return VV_FUSE_TIMEOUT_S;
}

uint64_t vv_fuse_attr_timeout_s(const struct vv_attr *attr, uint64_t timeout_s)
{
    return attr->is_settling && timeout_s > VV_FUSE_SETTLING_S ? VV_FUSE_SETTLING_S : timeout_s;
}

int vv_fuse_reply_changed(struct vv_fuse_request *request, const struct vv_attr *attr)
{
    struct fuse_attr_out out = {0};
    vv_fuse_encode_attr(attr, &out.attr);
    vv_fuse_reply(request, &out, sizeof(out));
    return 0;
}

int vv_fuse_reply_attr(struct vv_fuse_request *request, const struct vv_attr *attr)
{
    struct fuse_attr_out out = {.attr_valid =
                                    vv_fuse_attr_timeout_s(attr, vv_fuse_timeout_s(request))};
    vv_fuse_encode_attr(attr, &out.attr);
    vv_fuse_reply(request, &out, sizeof(out));
    return 0;
}

void vv_fuse_fill_entry(const struct vv_attr *attr, uint64_t timeout_s,
                        struct fuse_entry_out *out_entry)
{
    *out_entry = (struct fuse_entry_out){
        .nodeid = attr->inode,
        .generation = attr->inode == FUSE_ROOT_ID ? 0 : attr->generation, /* as the kernel has it */
        .entry_valid = timeout_s,
        .attr_valid = vv_fuse_attr_timeout_s(attr, timeout_s),
    };
    vv_fuse_encode_attr(attr, &out_entry->attr);
}

int vv_fuse_reply_entry(struct vv_fuse_request *request, const struct vv_attr *attr)
{
    struct fuse_entry_out out;
    vv_fuse_fill_entry(attr, vv_fuse_timeout_s(request), &out);
    if (request->message.header.opcode == FUSE_LINK)
        out.attr_valid = 0; /* as vv_fuse_reply_changed */
    vv_fuse_known_tell(request->fuse, attr->inode, request->message.header.nodeid);
    if (vv_fuse_reply(request, &out, sizeof(out)) < 0)
        vv_fuse_known_add(request->fuse, attr->inode, -1);
    return 0;
}

static void fill_open(struct vv_fuse_request *request, struct vv_fuse_open *open, bool is_dir,
                      struct fuse_open_out *out_open)
{
    uint32_t flags = 0;
    if (!request->fuse->options.is_no_cache && !request->fuse->options.is_seeing_opens)
        flags |= is_dir ? FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR : FOPEN_KEEP_CACHE;
    flags |= is_dir ? 0 : FOPEN_PARALLEL_DIRECT_WRITES;
    *out_open = (struct fuse_open_out){.fh = (uint64_t)(uintptr_t)open, .open_flags = flags};
}

int vv_fuse_reply_open(struct vv_fuse_request *request, struct vv_fuse_open *open, bool is_dir)
{
    struct fuse_open_out out;
    fill_open(request, open, is_dir, &out);
    if (vv_fuse_reply(request, &out, sizeof(out)) < 0)
        vv_fuse_open_free(open);
    return 0;
}

int vv_fuse_reply_create(struct vv_fuse_request *request, const struct vv_attr *attr,
                         struct vv_fuse_open *open)
{
    struct fuse_entry_out entry;
    struct fuse_open_out out;
    vv_fuse_fill_entry(attr, vv_fuse_timeout_s(request), &entry);
    fill_open(request, open, false, &out);
    vv_fuse_known_tell(request->fuse, attr->inode, request->message.header.nodeid);
    struct iovec iov[3] = {{0}, {&entry, sizeof(entry)}, {&out, sizeof(out)}};
    uint64_t unique = request->message.header.unique;
    if (vv_fuse_reply_iov(request->fuse, unique, 0, iov, 3) < 0) {
        vv_fuse_known_add(request->fuse, attr->inode, -1);
        vv_fuse_open_free(open);
    }
    return 0;
}
