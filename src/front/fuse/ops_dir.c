/* Directories: nodeid is the directory, fh what OPENDIR has given out. An entry's offset is its
 * cookie, which stays valid for ever, whatever happens to the directory. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "front/fuse/fuse_impl.h"

#define DIRECTORY_BYTES_MAX (256u << 10) /* of one reply */
#define ATTRS_BATCH 128                  /* inodes asked for at once */

static uint64_t node_of(const struct vv_fuse_request *request)
{
    return request->message.header.nodeid;
}

/* OPENDIR: open_in. open_out. */
int vv_fuse_opendir(struct vv_fuse_request *request)
{
    struct fuse_open_in in;
    struct vv_fuse_open *open;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    int flags = (int)(in.flags & ~(uint32_t)(O_CREAT | O_EXCL | O_TRUNC)) | O_DIRECTORY;
    TRY(vv_fuse_open_new(request->fuse, &open));
    int err = vv_fs_open_file(request->fuse->fs, &request->call, node_of(request), flags, &open->handle);
    if (err < 0) {
        vv_fuse_open_free(open);
        return err;
    }
    return vv_fuse_reply_open(request, open, true);
}

/* RELEASEDIR: release_in. */
int vv_fuse_releasedir(struct vv_fuse_request *request)
{
    return vv_fuse_release(request);
}

/* ---- READDIR, READDIRPLUS: read_in. dirent or direntplus, repeated; nothing at the end ---- */

struct listing {
    struct vv_writer writer; /* over a reply buffer */
    bool is_plus;
    bool is_failed;           /* no memory for `entries` */
    struct vv_writer entries; /* struct plus_entry, repeated */
};

/* Where an entry's attributes go. */
struct plus_entry {
    uint64_t inode;
    uint64_t at; /* of its entry_out in the reply */
};

static bool is_dot_name(const struct vv_dirent *entry)
{
    return entry->name[0] == '.' &&
           (entry->name_len == 1 || (entry->name_len == 2 && entry->name[1] == '.'));
}

static int visit(void *arg, const struct vv_dirent *entry)
{
    struct listing *listing = arg;
    size_t at;
    if (!vv_fuse_encode_dirent(&listing->writer, entry, listing->is_plus, &at))
        return 0;
    /* The kernel takes no attributes of "." and "..". */
    if (!listing->is_plus || is_dot_name(entry))
        return 1;
    struct plus_entry plus = {.inode = entry->inode, .at = at};
    vv_writer_bytes(&listing->entries, &plus, sizeof(plus));
    listing->is_failed = listing->entries.is_bad;
    return listing->is_failed ? 0 : 1;
}

/* Fill in the attributes of up to ATTRS_BATCH entries. One that has gone meanwhile keeps nodeid 0:
 * the kernel shows its name and asks when it wants to know more. */
static int add_attrs(struct vv_fuse_request *request, struct listing *listing,
                     const struct plus_entry *entries, size_t count)
{
    struct vv_attr *attrs CLEANUP(vv_free_ptr) = vv_calloc(count, sizeof(*attrs));
    uint64_t inodes[ATTRS_BATCH];
    int errors[ATTRS_BATCH];
    if (!attrs)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        inodes[i] = entries[i].inode;
    TRY(vv_fs_getattrs(request->fuse->fs, inodes, count, attrs, errors));
    for (size_t i = 0; i < count; i++) {
        struct fuse_entry_out out;
        if (errors[i] < 0)
            continue;
        vv_fuse_fill_entry(&attrs[i], UINT64_MAX, &out); /* the timeout follows */
        memcpy(listing->writer.ptr + entries[i].at, &out, sizeof(out));
    }
    return 0;
}

static int add_all_attrs(struct vv_fuse_request *request, struct listing *listing)
{
    size_t total = listing->entries.len / sizeof(struct plus_entry);
    struct vv_cursor cursor = vv_cursor_of(listing->entries.ptr, listing->entries.len);
    while (total > 0) {
        struct plus_entry entries[ATTRS_BATCH];
        size_t count = total < ATTRS_BATCH ? total : ATTRS_BATCH;
        vv_cursor_copy(&cursor, entries, count * sizeof(entries[0]));
        TRY(add_attrs(request, listing, entries, count));
        total -= count;
    }
    return 0;
}

/* Count what the kernel is told of. How long it may keep it is known now: not at all, if another
 * door has changed something since the attributes were read. */
static void tell_entries(struct vv_fuse_request *request, const struct listing *listing)
{
    struct vv_cursor cursor = vv_cursor_of(listing->entries.ptr, listing->entries.len);
    uint64_t timeout_s = vv_fuse_timeout_s(request);
    while (cursor.len > 0) {
        struct plus_entry plus;
        struct fuse_entry_out out;
        vv_cursor_copy(&cursor, &plus, sizeof(plus));
        memcpy(&out, listing->writer.ptr + plus.at, sizeof(out));
        if (out.nodeid == 0)
            continue;
        out.entry_valid = timeout_s;
        out.attr_valid = out.attr_valid < timeout_s ? out.attr_valid : timeout_s;
        memcpy(listing->writer.ptr + plus.at, &out, sizeof(out));
        vv_fuse_known_tell(request->fuse, out.nodeid, node_of(request));
    }
}

/* Nobody has got the reply. */
static void untell_entries(struct vv_fuse *fuse, const struct listing *listing)
{
    struct vv_cursor cursor = vv_cursor_of(listing->entries.ptr, listing->entries.len);
    while (cursor.len > 0) {
        struct plus_entry plus;
        struct fuse_entry_out out;
        vv_cursor_copy(&cursor, &plus, sizeof(plus));
        memcpy(&out, listing->writer.ptr + plus.at, sizeof(out));
        if (out.nodeid != 0)
            vv_fuse_known_add(fuse, out.nodeid, -1);
    }
}

static int list(struct vv_fuse_request *request, struct listing *listing, uint64_t after)
{
    struct vv_fuse *fuse = request->fuse;
    TRY(vv_fs_readdir(fuse->fs, node_of(request), after, visit, listing));
    if (listing->is_failed)
        return -ENOMEM;
    TRY(add_all_attrs(request, listing));
    tell_entries(request, listing);
    if (vv_fuse_reply(request, listing->writer.ptr, listing->writer.len) < 0)
        untell_entries(fuse, listing);
    return 0;
}

int vv_fuse_readdir(struct vv_fuse_request *request)
{
    struct fuse_read_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    struct vv_fuse_buffer *buffer = vv_fuse_buffer_take(request->fuse);
    if (!buffer)
        return -ENOMEM;
    size_t size = in.size < DIRECTORY_BYTES_MAX ? in.size : DIRECTORY_BYTES_MAX;
    struct listing listing = {
        .writer = vv_writer_of(buffer->bytes, size),
        .is_plus = request->message.header.opcode == FUSE_READDIRPLUS,
        .entries = vv_writer_new(),
    };
    int err = list(request, &listing, in.offset);
    vv_writer_done(&listing.entries);
    vv_fuse_buffer_give(request->fuse, buffer);
    return err;
}
