#include "front/nfs/codec.h"

#include <errno.h>
#include <string.h>

#include "front/nfs/xdr.h"

/* What a procedure's arguments and results are, one letter a part; the functions below read them.
 * Arguments: h handle  H to_handle  n name  N to_name  s sattr  g guard  a access  o offset
 * c count  i how  D dir_count  w data of WRITE  t target  v verifier  C how of CREATE and what
 * follows  M type of MKNOD and what follows.
 * Results: A fattr  p [fattr]  q dir [fattr]  f handle  F [handle]  w wcc  W to_wcc  a access
 * c count  e eof  d data  k committed  v verifier  l entries and eof  x space  i FSINFO
 * P PATHCONF. */
static const struct layout {
    const char *name, *args, *ok, *error;
} layouts[VV_NFS_PROCEDURES] = {
    [VV_NFS_NULL] = {"NULL", "", NULL, NULL},
    [VV_NFS_GETATTR] = {"GETATTR", "h", "A", ""},
    [VV_NFS_SETATTR] = {"SETATTR", "hsg", "w", "w"},
    [VV_NFS_LOOKUP] = {"LOOKUP", "hn", "fpq", "q"},
    [VV_NFS_ACCESS] = {"ACCESS", "ha", "pa", "p"},
    [VV_NFS_READLINK] = {"READLINK", "h", "pd", "p"},
    [VV_NFS_READ] = {"READ", "hoc", "pced", "p"},
    [VV_NFS_WRITE] = {"WRITE", "hociw", "wckv", "w"},
    [VV_NFS_CREATE] = {"CREATE", "hnC", "Fpw", "w"},
    [VV_NFS_MKDIR] = {"MKDIR", "hns", "Fpw", "w"},
    [VV_NFS_SYMLINK] = {"SYMLINK", "hnst", "Fpw", "w"},
    [VV_NFS_MKNOD] = {"MKNOD", "hnM", "Fpw", "w"},
    [VV_NFS_REMOVE] = {"REMOVE", "hn", "w", "w"},
    [VV_NFS_RMDIR] = {"RMDIR", "hn", "w", "w"},
    [VV_NFS_RENAME] = {"RENAME", "hnHN", "wW", "wW"},
    [VV_NFS_LINK] = {"LINK", "hHn", "pw", "pw"},
    [VV_NFS_READDIR] = {"READDIR", "hovc", "pvl", "p"},
    [VV_NFS_READDIRPLUS] = {"READDIRPLUS", "hovDc", "pvl", "p"},
    [VV_NFS_FSSTAT] = {"FSSTAT", "h", "px", "p"},
    [VV_NFS_FSINFO] = {"FSINFO", "h", "pi", "p"},
    [VV_NFS_PATHCONF] = {"PATHCONF", "h", "pP", "p"},
    [VV_NFS_COMMIT] = {"COMMIT", "hoc", "wv", "w"},
};

const char *vv_nfs_procedure_name(uint32_t procedure)
{
    return procedure < VV_NFS_PROCEDURES ? layouts[procedure].name : "?";
}

/* ---- pieces ---- */

static void x_handle(struct vv_xdr *xdr, struct vv_nfs_handle *handle)
{
    struct vv_bytes bytes = {handle->bytes, handle->len};
    vv_xdr_bytes(xdr, &bytes, VV_NFS_HANDLE_MAX);
    if (xdr->writer)
        return;
    *handle = (struct vv_nfs_handle){.len = (uint32_t)bytes.len};
    if (bytes.len > 0)
        memcpy(handle->bytes, bytes.ptr, bytes.len);
}

static void x_time(struct vv_xdr *xdr, struct vv_nfs_time *time)
{
    vv_xdr_u32(xdr, &time->sec);
    vv_xdr_u32(xdr, &time->nsec);
}

static void x_fattr(struct vv_xdr *xdr, struct vv_nfs_fattr *attr)
{
    vv_xdr_u32(xdr, &attr->type);
    vv_xdr_u32(xdr, &attr->mode);
    vv_xdr_u32(xdr, &attr->nlink);
    vv_xdr_u32(xdr, &attr->uid);
    vv_xdr_u32(xdr, &attr->gid);
    vv_xdr_u64(xdr, &attr->size);
    vv_xdr_u64(xdr, &attr->used);
    vv_xdr_u32(xdr, &attr->major);
    vv_xdr_u32(xdr, &attr->minor);
    vv_xdr_u64(xdr, &attr->fsid);
    vv_xdr_u64(xdr, &attr->fileid);
    x_time(xdr, &attr->atime);
    x_time(xdr, &attr->mtime);
    x_time(xdr, &attr->ctime);
}

static void x_post_attr(struct vv_xdr *xdr, bool *has_attr, struct vv_nfs_fattr *attr)
{
    vv_xdr_bool(xdr, has_attr);
    if (*has_attr)
        x_fattr(xdr, attr);
}

static void x_wcc(struct vv_xdr *xdr, struct vv_nfs_wcc *wcc)
{
    vv_xdr_bool(xdr, &wcc->has_before);
    if (wcc->has_before) {
        vv_xdr_u64(xdr, &wcc->size);
        x_time(xdr, &wcc->mtime);
        x_time(xdr, &wcc->ctime);
    }
    x_post_attr(xdr, &wcc->has_after, &wcc->after);
}

static void x_set_u32(struct vv_xdr *xdr, bool *has_value, uint32_t *value)
{
    vv_xdr_bool(xdr, has_value);
    if (*has_value)
        vv_xdr_u32(xdr, value);
}

static void x_set_time(struct vv_xdr *xdr, uint32_t *how, struct vv_nfs_time *time)
{
    vv_xdr_u32(xdr, how);
    if (*how > VV_NFS_TIME_GIVEN)
        vv_xdr_fail(xdr);
    if (*how == VV_NFS_TIME_GIVEN)
        x_time(xdr, time);
}

static void x_sattr(struct vv_xdr *xdr, struct vv_nfs_sattr *sattr)
{
    x_set_u32(xdr, &sattr->has_mode, &sattr->mode);
    x_set_u32(xdr, &sattr->has_uid, &sattr->uid);
    x_set_u32(xdr, &sattr->has_gid, &sattr->gid);
    vv_xdr_bool(xdr, &sattr->has_size);
    if (sattr->has_size)
        vv_xdr_u64(xdr, &sattr->size);
    x_set_time(xdr, &sattr->atime_how, &sattr->atime);
    x_set_time(xdr, &sattr->mtime_how, &sattr->mtime);
}

/* ---- arguments ---- */

static void x_create_how(struct vv_xdr *xdr, struct vv_nfs_args *args)
{
    vv_xdr_u32(xdr, &args->how);
    if (args->how > VV_NFS_EXCLUSIVE)
        vv_xdr_fail(xdr);
    else if (args->how == VV_NFS_EXCLUSIVE)
        vv_xdr_fixed(xdr, args->verifier, sizeof(args->verifier));
    else
        x_sattr(xdr, &args->sattr);
}

/* A type that MKNOD can't make has nothing behind it: the server says BADTYPE. */
static void x_mknod_type(struct vv_xdr *xdr, struct vv_nfs_args *args)
{
    vv_xdr_u32(xdr, &args->how);
    bool is_device = args->how == VV_NF3CHR || args->how == VV_NF3BLK;
    if (args->how < VV_NF3REG || args->how > VV_NF3FIFO)
        vv_xdr_fail(xdr);
    if (is_device || args->how == VV_NF3SOCK || args->how == VV_NF3FIFO)
        x_sattr(xdr, &args->sattr);
    if (is_device) {
        vv_xdr_u32(xdr, &args->major);
        vv_xdr_u32(xdr, &args->minor);
    }
}

static void x_guard(struct vv_xdr *xdr, struct vv_nfs_args *args)
{
    vv_xdr_bool(xdr, &args->has_guard);
    if (args->has_guard)
        x_time(xdr, &args->guard);
}

/* The count in front of the data and the data's own length are to be the same (RFC 1813, WRITE). */
static void x_write_data(struct vv_xdr *xdr, struct vv_nfs_args *args)
{
    if (args->how > VV_NFS_FILE_SYNC)
        vv_xdr_fail(xdr);
    vv_xdr_bytes(xdr, &args->data, VV_NFS_IO_MAX);
    if (args->data.len != args->count)
        vv_xdr_fail(xdr);
}

static void x_arg(struct vv_xdr *xdr, char part, struct vv_nfs_args *args)
{
    switch (part) {
    case 'h': x_handle(xdr, &args->handle); return;
    case 'H': x_handle(xdr, &args->to_handle); return;
    case 'n': vv_xdr_bytes(xdr, &args->name, VV_NFS_NAME_WIRE_MAX); return;
    case 'N': vv_xdr_bytes(xdr, &args->to_name, VV_NFS_NAME_WIRE_MAX); return;
    case 's': x_sattr(xdr, &args->sattr); return;
    case 'g': x_guard(xdr, args); return;
    case 'a': vv_xdr_u32(xdr, &args->access); return;
    case 'o': vv_xdr_u64(xdr, &args->offset); return;
    case 'c': vv_xdr_u32(xdr, &args->count); return;
    case 'i': vv_xdr_u32(xdr, &args->how); return;
    case 'D': vv_xdr_u32(xdr, &args->dir_count); return;
    case 'w': x_write_data(xdr, args); return;
    case 't': vv_xdr_bytes(xdr, &args->data, VV_NFS_PATH_WIRE_MAX); return;
    case 'v': vv_xdr_fixed(xdr, args->verifier, sizeof(args->verifier)); return;
    case 'C': x_create_how(xdr, args); return;
    case 'M': x_mknod_type(xdr, args); return;
    default: vv_xdr_fail(xdr); return;
    }
}

static int x_args(struct vv_xdr *xdr, uint32_t procedure, struct vv_nfs_args *args)
{
    if (procedure >= VV_NFS_PROCEDURES)
        return -EOPNOTSUPP;
    for (const char *part = layouts[procedure].args; *part; part++)
        x_arg(xdr, *part, args);
    return vv_xdr_end(xdr);
}

int vv_nfs_decode_args(uint32_t procedure, struct vv_bytes bytes, struct vv_nfs_args *out_args)
{
    struct vv_xdr xdr = vv_xdr_decoder(bytes.ptr, bytes.len);
    *out_args = (struct vv_nfs_args){0};
    return x_args(&xdr, procedure, out_args);
}

int vv_nfs_decode_write(struct vv_bytes bytes, struct vv_nfs_args *out_args, size_t *out_len)
{
    struct vv_xdr xdr = vv_xdr_decoder(bytes.ptr, bytes.len);
    uint32_t len = 0;
    *out_args = (struct vv_nfs_args){0};
    for (const char *part = "hoci"; *part; part++)
        x_arg(&xdr, *part, out_args);
    vv_xdr_u32(&xdr, &len);
    if (out_args->how > VV_NFS_FILE_SYNC || len != out_args->count || len > VV_NFS_IO_MAX)
        vv_xdr_fail(&xdr);
    TRY(vv_cursor_check(&xdr.cursor));
    out_args->data.len = len;
    *out_len = bytes.len - xdr.cursor.len;
    return 0;
}

int vv_nfs_encode_args(struct vv_writer *writer, uint32_t procedure, const struct vv_nfs_args *args)
{
    struct vv_xdr xdr = vv_xdr_encoder(writer);
    struct vv_nfs_args copy = *args;
    return x_args(&xdr, procedure, &copy);
}

/* ---- results ---- */

/* The entries are encoded before: copied. Decoding takes all but the last word, which says eof. */
static void x_entries(struct vv_xdr *xdr, struct vv_nfs_results *results)
{
    uint32_t no_more = 0;
    if (xdr->writer) {
        if (results->data.len > 0)
            vv_writer_bytes(xdr->writer, results->data.ptr, results->data.len);
        vv_xdr_u32(xdr, &no_more);
    } else if (xdr->cursor.len >= 8) {
        results->data = vv_cursor_bytes(&xdr->cursor, xdr->cursor.len - 8);
        vv_xdr_u32(xdr, &no_more);
        if (no_more != 0)
            vv_xdr_fail(xdr);
    } else {
        vv_xdr_fail(xdr);
    }
    vv_xdr_bool(xdr, &results->is_eof);
}

static void x_fsinfo(struct vv_xdr *xdr, struct vv_nfs_results *results)
{
    for (size_t i = 0; i < sizeof(results->io) / sizeof(results->io[0]); i++)
        vv_xdr_u32(xdr, &results->io[i]);
    vv_xdr_u64(xdr, &results->max_file_size);
    x_time(xdr, &results->time_delta);
    vv_xdr_u32(xdr, &results->properties);
}

static void x_pathconf(struct vv_xdr *xdr, struct vv_nfs_results *results)
{
    vv_xdr_u32(xdr, &results->link_max);
    vv_xdr_u32(xdr, &results->name_max);
    vv_xdr_bool(xdr, &results->is_no_trunc);
    vv_xdr_bool(xdr, &results->is_chown_restricted);
    vv_xdr_bool(xdr, &results->is_case_insensitive);
    vv_xdr_bool(xdr, &results->is_case_preserving);
}

static void x_space(struct vv_xdr *xdr, struct vv_nfs_results *results)
{
    for (size_t i = 0; i < sizeof(results->space) / sizeof(results->space[0]); i++)
        vv_xdr_u64(xdr, &results->space[i]);
    vv_xdr_u32(xdr, &results->invarsec);
}

static void x_new_handle(struct vv_xdr *xdr, struct vv_nfs_results *results)
{
    vv_xdr_bool(xdr, &results->has_handle);
    if (results->has_handle)
        x_handle(xdr, &results->handle);
}

static void x_result(struct vv_xdr *xdr, char part, struct vv_nfs_results *results)
{
    switch (part) {
    case 'A': x_fattr(xdr, &results->attr); return;
    case 'p': x_post_attr(xdr, &results->has_attr, &results->attr); return;
    case 'q': x_post_attr(xdr, &results->has_dir_attr, &results->dir_attr); return;
    case 'f': x_handle(xdr, &results->handle); return;
    case 'F': x_new_handle(xdr, results); return;
    case 'w': x_wcc(xdr, &results->wcc); return;
    case 'W': x_wcc(xdr, &results->to_wcc); return;
    case 'a': vv_xdr_u32(xdr, &results->access); return;
    case 'c': vv_xdr_u32(xdr, &results->count); return;
    case 'e': vv_xdr_bool(xdr, &results->is_eof); return;
    case 'd': vv_xdr_bytes(xdr, &results->data, VV_NFS_IO_MAX); return;
    case 'k': vv_xdr_u32(xdr, &results->committed); return;
    case 'v': vv_xdr_fixed(xdr, results->verifier, sizeof(results->verifier)); return;
    case 'l': x_entries(xdr, results); return;
    case 'x': x_space(xdr, results); return;
    case 'i': x_fsinfo(xdr, results); return;
    case 'P': x_pathconf(xdr, results); return;
    default: vv_xdr_fail(xdr); return;
    }
}

static int x_results(struct vv_xdr *xdr, uint32_t procedure, struct vv_nfs_results *results)
{
    if (procedure >= VV_NFS_PROCEDURES)
        return -EOPNOTSUPP;
    if (procedure == VV_NFS_NULL)
        return vv_xdr_end(xdr);
    vv_xdr_u32(xdr, &results->status);
    const struct layout *layout = &layouts[procedure];
    for (const char *part = results->status == 0 ? layout->ok : layout->error; *part; part++)
        x_result(xdr, *part, results);
    return vv_xdr_end(xdr);
}

int vv_nfs_encode_results(struct vv_writer *writer, uint32_t procedure,
                          const struct vv_nfs_results *results)
{
    struct vv_xdr xdr = vv_xdr_encoder(writer);
    struct vv_nfs_results copy = *results;
    return x_results(&xdr, procedure, &copy);
}

int vv_nfs_decode_results(uint32_t procedure, struct vv_bytes bytes,
                          struct vv_nfs_results *out_results)
{
    struct vv_xdr xdr = vv_xdr_decoder(bytes.ptr, bytes.len);
    *out_results = (struct vv_nfs_results){0};
    return x_results(&xdr, procedure, out_results);
}

/* ---- entries ---- */

static void x_entry(struct vv_xdr *xdr, struct vv_nfs_entry *entry, bool is_plus)
{
    bool is_there = true;
    vv_xdr_bool(xdr, &is_there);
    if (!is_there)
        vv_xdr_fail(xdr);
    vv_xdr_u64(xdr, &entry->fileid);
    vv_xdr_bytes(xdr, &entry->name, VV_NFS_NAME_WIRE_MAX);
    vv_xdr_u64(xdr, &entry->cookie);
    if (!is_plus)
        return;
    x_post_attr(xdr, &entry->has_attr, &entry->attr);
    vv_xdr_bool(xdr, &entry->has_handle);
    if (entry->has_handle)
        x_handle(xdr, &entry->handle);
}

size_t vv_nfs_entry_bytes(const struct vv_nfs_entry *entry, bool is_plus)
{
    size_t name = 4 + entry->name.len + vv_xdr_padding(entry->name.len);
    size_t bytes = 4 + 8 + name + 8;
    if (!is_plus)
        return bytes;
    size_t handle = 4 + entry->handle.len + vv_xdr_padding(entry->handle.len);
    return bytes + 4 + (entry->has_attr ? VV_NFS_FATTR_BYTES : 0) + 4 +
           (entry->has_handle ? handle : 0);
}

int vv_nfs_encode_entry(struct vv_writer *writer, const struct vv_nfs_entry *entry, bool is_plus)
{
    struct vv_xdr xdr = vv_xdr_encoder(writer);
    struct vv_nfs_entry copy = *entry;
    x_entry(&xdr, &copy, is_plus);
    return vv_xdr_end(&xdr);
}

int vv_nfs_decode_entry(struct vv_bytes *entries, bool is_plus, struct vv_nfs_entry *out_entry)
{
    if (entries->len == 0)
        return 0;
    struct vv_xdr xdr = vv_xdr_decoder(entries->ptr, entries->len);
    *out_entry = (struct vv_nfs_entry){0};
    x_entry(&xdr, out_entry, is_plus);
    TRY(vv_cursor_check(&xdr.cursor));
    *entries = (struct vv_bytes){xdr.cursor.ptr, xdr.cursor.len};
    return 1;
}

/* ---- MOUNT ---- */

int vv_nfs_decode_mount_args(uint32_t procedure, struct vv_bytes bytes, struct vv_bytes *out_path)
{
    struct vv_xdr xdr = vv_xdr_decoder(bytes.ptr, bytes.len);
    if (procedure >= VV_NFS_MOUNT_PROCEDURES)
        return -EOPNOTSUPP;
    *out_path = (struct vv_bytes){NULL, 0};
    if (procedure == VV_NFS_MOUNT_MNT || procedure == VV_NFS_MOUNT_UMNT)
        vv_xdr_bytes(&xdr, out_path, VV_NFS_MOUNT_PATH_MAX);
    return vv_xdr_end(&xdr);
}
