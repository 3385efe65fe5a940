#include "front/ninep/codec.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"

/* ---- pieces ---- */

/* A string: bounded by its 16-bit length; NUL can't be part of a name or path. */
static struct vv_bytes get_string(struct vv_cursor *cursor)
{
    struct vv_bytes bytes = vv_cursor_bytes(cursor, vv_cursor_u16(cursor));
    if (bytes.len > 0 && memchr(bytes.ptr, 0, bytes.len))
        cursor->is_bad = true;
    return bytes;
}

static void put_string(struct vv_writer *writer, struct vv_bytes bytes)
{
    if (bytes.len > UINT16_MAX)
        writer->is_bad = true;
    vv_writer_u16(writer, (uint16_t)bytes.len);
    vv_writer_bytes(writer, bytes.ptr, bytes.len);
}

static struct vv_ninep_qid get_qid(struct vv_cursor *cursor)
{
    struct vv_ninep_qid qid;
    qid.type = vv_cursor_u8(cursor);
    qid.version = vv_cursor_u32(cursor);
    qid.path = vv_cursor_u64(cursor);
    return qid;
}

static void put_qid(struct vv_writer *writer, const struct vv_ninep_qid *qid)
{
    vv_writer_u8(writer, qid->type);
    vv_writer_u32(writer, qid->version);
    vv_writer_u64(writer, qid->path);
}

static struct timespec get_time(struct vv_cursor *cursor)
{
    struct timespec time;
    time.tv_sec = (time_t)vv_cursor_u64(cursor);
    uint64_t nsec = vv_cursor_u64(cursor);
    time.tv_nsec = nsec < 1000000000u ? (long)nsec : 0;
    return time;
}

static void put_time(struct vv_writer *writer, struct timespec time)
{
    vv_writer_u64(writer, (uint64_t)time.tv_sec);
    vv_writer_u64(writer, (uint64_t)time.tv_nsec);
}

/* lock (with flags), getlock and Rgetlock (without). */
static void get_lock(struct vv_cursor *cursor, struct vv_ninep_lock *lock, bool has_flags)
{
    lock->type = vv_cursor_u8(cursor);
    lock->flags = has_flags ? vv_cursor_u32(cursor) : 0;
    lock->start = vv_cursor_u64(cursor);
    lock->length = vv_cursor_u64(cursor);
    lock->proc_id = vv_cursor_u32(cursor);
    lock->client_id = get_string(cursor);
}

static void put_lock(struct vv_writer *writer, const struct vv_ninep_lock *lock, bool has_flags)
{
    vv_writer_u8(writer, lock->type);
    if (has_flags)
        vv_writer_u32(writer, lock->flags);
    vv_writer_u64(writer, lock->start);
    vv_writer_u64(writer, lock->length);
    vv_writer_u32(writer, lock->proc_id);
    put_string(writer, lock->client_id);
}

static void get_setattr(struct vv_cursor *cursor, struct vv_ninep_setattr *setattr)
{
    setattr->valid = vv_cursor_u32(cursor);
    setattr->mode = vv_cursor_u32(cursor);
    setattr->uid = vv_cursor_u32(cursor);
    setattr->gid = vv_cursor_u32(cursor);
    setattr->size = vv_cursor_u64(cursor);
    setattr->atime = get_time(cursor);
    setattr->mtime = get_time(cursor);
}

static void put_setattr(struct vv_writer *writer, const struct vv_ninep_setattr *setattr)
{
    vv_writer_u32(writer, setattr->valid);
    vv_writer_u32(writer, setattr->mode);
    vv_writer_u32(writer, setattr->uid);
    vv_writer_u32(writer, setattr->gid);
    vv_writer_u64(writer, setattr->size);
    put_time(writer, setattr->atime);
    put_time(writer, setattr->mtime);
}

static int get_walk(struct vv_cursor *cursor, struct vv_ninep_request *request)
{
    request->newfid = vv_cursor_u32(cursor);
    uint16_t count = vv_cursor_u16(cursor);
    if (count > VV_NINEP_WALK_MAX)
        return -EINVAL;
    request->name_count = count;
    for (uint16_t i = 0; i < count; i++)
        request->names[i] = get_string(cursor);
    return 0;
}

static void put_walk(struct vv_writer *writer, const struct vv_ninep_request *request)
{
    vv_writer_u32(writer, request->newfid);
    vv_writer_u16(writer, request->name_count);
    for (uint16_t i = 0; i < request->name_count && i < VV_NINEP_WALK_MAX; i++)
        put_string(writer, request->names[i]);
}

static void get_getattr(struct vv_cursor *cursor, struct vv_ninep_getattr *attr)
{
    attr->valid = vv_cursor_u64(cursor);
    attr->qid = get_qid(cursor);
    attr->mode = vv_cursor_u32(cursor);
    attr->uid = vv_cursor_u32(cursor);
    attr->gid = vv_cursor_u32(cursor);
    attr->nlink = vv_cursor_u64(cursor);
    attr->rdev = vv_cursor_u64(cursor);
    attr->size = vv_cursor_u64(cursor);
    attr->blksize = vv_cursor_u64(cursor);
    attr->blocks = vv_cursor_u64(cursor);
    attr->atime = get_time(cursor);
    attr->mtime = get_time(cursor);
    attr->ctime = get_time(cursor);
    attr->btime = get_time(cursor);
    attr->gen = vv_cursor_u64(cursor);
    attr->data_version = vv_cursor_u64(cursor);
}

static void put_getattr(struct vv_writer *writer, const struct vv_ninep_getattr *attr)
{
    vv_writer_u64(writer, attr->valid);
    put_qid(writer, &attr->qid);
    vv_writer_u32(writer, attr->mode);
    vv_writer_u32(writer, attr->uid);
    vv_writer_u32(writer, attr->gid);
    vv_writer_u64(writer, attr->nlink);
    vv_writer_u64(writer, attr->rdev);
    vv_writer_u64(writer, attr->size);
    vv_writer_u64(writer, attr->blksize);
    vv_writer_u64(writer, attr->blocks);
    put_time(writer, attr->atime);
    put_time(writer, attr->mtime);
    put_time(writer, attr->ctime);
    put_time(writer, attr->btime);
    vv_writer_u64(writer, attr->gen);
    vv_writer_u64(writer, attr->data_version);
}

static void get_statfs(struct vv_cursor *cursor, struct vv_ninep_statfs *statfs)
{
    statfs->type = vv_cursor_u32(cursor);
    statfs->bsize = vv_cursor_u32(cursor);
    statfs->blocks = vv_cursor_u64(cursor);
    statfs->bfree = vv_cursor_u64(cursor);
    statfs->bavail = vv_cursor_u64(cursor);
    statfs->files = vv_cursor_u64(cursor);
    statfs->ffree = vv_cursor_u64(cursor);
    statfs->fsid = vv_cursor_u64(cursor);
    statfs->namelen = vv_cursor_u32(cursor);
}

static void put_statfs(struct vv_writer *writer, const struct vv_ninep_statfs *statfs)
{
    vv_writer_u32(writer, statfs->type);
    vv_writer_u32(writer, statfs->bsize);
    vv_writer_u64(writer, statfs->blocks);
    vv_writer_u64(writer, statfs->bfree);
    vv_writer_u64(writer, statfs->bavail);
    vv_writer_u64(writer, statfs->files);
    vv_writer_u64(writer, statfs->ffree);
    vv_writer_u64(writer, statfs->fsid);
    vv_writer_u32(writer, statfs->namelen);
}

/* ---- requests ----
 * The many messages that are some fields in a row are described by a text, one letter a field,
 * which serves both directions: f fid  F newfid  l flags  m mode  g gid  M major  N minor  o offset
 * c count  z size  k mask n name  s newname  u n_uname  v msize  t oldtag  d count[4] and data  L
 * lock with flags  G without A setattr  W walk  y flags, if there is anything left */

static const char *request_layout(uint8_t type)
{
    switch (type) {
    case VV_NINEP_TSTATFS:
    case VV_NINEP_TREADLINK:
    case VV_NINEP_TCLUNK:
    case VV_NINEP_TREMOVE:
        return "f";
    case VV_NINEP_TLOPEN:
        return "fl";
    case VV_NINEP_TLCREATE:
        return "fnlmg";
    case VV_NINEP_TSYMLINK:
        return "fnsg";
    case VV_NINEP_TMKNOD:
        return "fnmMNg";
    case VV_NINEP_TRENAME:
    case VV_NINEP_TLINK:
    case VV_NINEP_TXATTRWALK:
        return "fFn";
    case VV_NINEP_TGETATTR:
        return "fk";
    case VV_NINEP_TSETATTR:
        return "fA";
    case VV_NINEP_TXATTRCREATE:
        return "fnzl";
    case VV_NINEP_TREADDIR:
    case VV_NINEP_TREAD:
        return "foc";
    case VV_NINEP_TFSYNC:
        return "fy";
    case VV_NINEP_TLOCK:
        return "fL";
    case VV_NINEP_TGETLOCK:
        return "fG";
    case VV_NINEP_TMKDIR:
        return "fnmg";
    case VV_NINEP_TRENAMEAT:
        return "fnFs";
    case VV_NINEP_TUNLINKAT:
        return "fnl";
    case VV_NINEP_TVERSION:
        return "vn";
    case VV_NINEP_TAUTH:
        return "fnsu";
    case VV_NINEP_TATTACH:
        return "fFnsu";
    case VV_NINEP_TFLUSH:
        return "t";
    case VV_NINEP_TWALK:
        return "fW";
    case VV_NINEP_TWRITE:
        return "fod";
    default:
        return NULL;
    }
}

/* Where a field of 32 bits goes; NULL for other letters. */
static uint32_t *field_u32(struct vv_ninep_request *request, char letter)
{
    switch (letter) {
    case 'f':
        return &request->fid;
    case 'F':
        return &request->newfid;
    case 'l':
        return &request->flags;
    case 'm':
        return &request->mode;
    case 'g':
        return &request->gid;
    case 'M':
        return &request->major;
    case 'N':
        return &request->minor;
    case 'c':
        return &request->count;
    case 'u':
        return &request->n_uname;
    case 'v':
        return &request->msize;
    default:
        return NULL;
    }
}

static uint64_t *field_u64(struct vv_ninep_request *request, char letter)
{
    switch (letter) {
    case 'o':
        return &request->offset;
    case 'z':
        return &request->size;
    case 'k':
        return &request->mask;
    default:
        return NULL;
    }
}

static int get_other(struct vv_cursor *cursor, struct vv_ninep_request *request, char letter)
{
    switch (letter) {
    case 'n':
        request->name = get_string(cursor);
        return 0;
    case 's':
        request->newname = get_string(cursor);
        return 0;
    case 't':
        request->oldtag = vv_cursor_u16(cursor);
        return 0;
    case 'd':
        request->count = vv_cursor_u32(cursor);
        request->data = vv_cursor_bytes(cursor, request->count);
        return 0;
    case 'L':
    case 'G':
        get_lock(cursor, &request->lock, letter == 'L');
        return 0;
    case 'A':
        get_setattr(cursor, &request->setattr);
        return 0;
    case 'W':
        return get_walk(cursor, request);
    default: /* y */
        request->flags = cursor->len > 0 ? vv_cursor_u32(cursor) : 0;
        return 0;
    }
}

static void put_other(struct vv_writer *writer, const struct vv_ninep_request *request, char letter)
{
    switch (letter) {
    case 'n':
        put_string(writer, request->name);
        return;
    case 's':
        put_string(writer, request->newname);
        return;
    case 't':
        vv_writer_u16(writer, request->oldtag);
        return;
    case 'd':
        vv_writer_u32(writer, (uint32_t)request->data.len);
        vv_writer_bytes(writer, request->data.ptr, request->data.len);
        return;
    case 'L':
    case 'G':
        put_lock(writer, &request->lock, letter == 'L');
        return;
    case 'A':
        put_setattr(writer, &request->setattr);
        return;
    case 'W':
        put_walk(writer, request);
        return;
    default: /* y */
        vv_writer_u32(writer, request->flags);
        return;
    }
}

uint32_t vv_ninep_size(const uint8_t bytes[4])
{
    return vv_load_u32(bytes);
}

int vv_ninep_decode_request(const void *message, size_t len, struct vv_ninep_request *out_request)
{
    *out_request = (struct vv_ninep_request){0};
    struct vv_cursor cursor = vv_cursor_of(message, len);
    uint32_t size = vv_cursor_u32(&cursor);
    out_request->type = vv_cursor_u8(&cursor);
    out_request->tag = vv_cursor_u16(&cursor);
    if (cursor.is_bad || size != len)
        return -VV_ERR_FORMAT;
    const char *layout = request_layout(out_request->type);
    if (!layout)
        return -EOPNOTSUPP;
    for (; *layout; layout++) {
        uint32_t *u32 = field_u32(out_request, *layout);
        uint64_t *u64 = field_u64(out_request, *layout);
        if (u32)
            *u32 = vv_cursor_u32(&cursor);
        else if (u64)
            *u64 = vv_cursor_u64(&cursor);
        else
            TRY(get_other(&cursor, out_request, *layout));
    }
    return vv_cursor_end(&cursor);
}

int vv_ninep_decode_write(const void *head, size_t len, struct vv_ninep_request *out_request)
{
    struct vv_cursor cursor = vv_cursor_of(head, VV_NINEP_WRITE_HEAD_BYTES);
    *out_request = (struct vv_ninep_request){0};
    uint32_t size = vv_cursor_u32(&cursor);
    out_request->type = vv_cursor_u8(&cursor);
    out_request->tag = vv_cursor_u16(&cursor);
    out_request->fid = vv_cursor_u32(&cursor);
    out_request->offset = vv_cursor_u64(&cursor);
    out_request->data.len = vv_cursor_u32(&cursor);
    if (out_request->type != VV_NINEP_TWRITE || size != len || len < VV_NINEP_WRITE_HEAD_BYTES ||
        out_request->data.len != len - VV_NINEP_WRITE_HEAD_BYTES)
        return -VV_ERR_FORMAT;
    return vv_cursor_end(&cursor);
}

/* Begin a message; its size is set at the end. Returns where it begins. */
static size_t begin(struct vv_writer *writer, uint8_t type, uint16_t tag)
{
    size_t at = writer->len;
    vv_writer_u32(writer, 0);
    vv_writer_u8(writer, type);
    vv_writer_u16(writer, tag);
    return at;
}

/* `behind`: bytes that the caller sends after those in the writer. */
static int finish(struct vv_writer *writer, size_t at, size_t behind)
{
    TRY(vv_writer_check(writer));
    vv_store_u32(writer->ptr + at, (uint32_t)(writer->len - at + behind));
    return 0;
}

int vv_ninep_encode_request(struct vv_writer *writer, const struct vv_ninep_request *request)
{
    const char *layout = request_layout(request->type);
    if (!layout)
        return -EOPNOTSUPP;
    struct vv_ninep_request copy = *request;
    size_t at = begin(writer, request->type, request->tag);
    for (; *layout; layout++) {
        const uint32_t *u32 = field_u32(&copy, *layout);
        const uint64_t *u64 = field_u64(&copy, *layout);
        if (u32)
            vv_writer_u32(writer, *u32);
        else if (u64)
            vv_writer_u64(writer, *u64);
        else
            put_other(writer, request, *layout);
    }
    return finish(writer, at, 0);
}

/* ---- replies ---- */

/* The replies that are more than a number. False: `type` is none of them. */
static bool put_reply_body(struct vv_writer *writer, const struct vv_ninep_reply *reply)
{
    switch (reply->type - 1) {
    case VV_NINEP_TSTATFS:
        put_statfs(writer, &reply->statfs);
        return true;
    case VV_NINEP_TLOPEN:
    case VV_NINEP_TLCREATE:
        put_qid(writer, &reply->qid);
        vv_writer_u32(writer, reply->iounit);
        return true;
    case VV_NINEP_TSYMLINK:
    case VV_NINEP_TMKNOD:
    case VV_NINEP_TMKDIR:
    case VV_NINEP_TATTACH:
        put_qid(writer, &reply->qid);
        return true;
    case VV_NINEP_TREADLINK:
        put_string(writer, reply->name);
        return true;
    case VV_NINEP_TGETATTR:
        put_getattr(writer, &reply->getattr);
        return true;
    case VV_NINEP_TGETLOCK:
        put_lock(writer, &reply->lock, false);
        return true;
    case VV_NINEP_TVERSION:
        vv_writer_u32(writer, reply->msize);
        put_string(writer, reply->name);
        return true;
    case VV_NINEP_TWALK:
        vv_writer_u16(writer, reply->qid_count);
        for (uint16_t i = 0; i < reply->qid_count && i < VV_NINEP_WALK_MAX; i++)
            put_qid(writer, &reply->qids[i]);
        return true;
    case VV_NINEP_TREAD:
    case VV_NINEP_TREADDIR:
        vv_writer_u32(writer, (uint32_t)reply->data.len);
        if (reply->data.ptr)
            vv_writer_bytes(writer, reply->data.ptr, reply->data.len);
        return true;
    default:
        return false;
    }
}

/* The replies that are one number or nothing. */
static bool put_reply_number(struct vv_writer *writer, const struct vv_ninep_reply *reply)
{
    switch (reply->type - 1) {
    case VV_NINEP_TLERROR:
        vv_writer_u32(writer, reply->error);
        return true;
    case VV_NINEP_TXATTRWALK:
        vv_writer_u64(writer, reply->size);
        return true;
    case VV_NINEP_TLOCK:
        vv_writer_u8(writer, reply->status);
        return true;
    case VV_NINEP_TWRITE:
        vv_writer_u32(writer, reply->count);
        return true;
    default:
        return request_layout((uint8_t)(reply->type - 1)) != NULL;
    }
}

int vv_ninep_encode_reply(struct vv_writer *writer, const struct vv_ninep_reply *reply)
{
    size_t at = begin(writer, reply->type, reply->tag);
    if (!put_reply_body(writer, reply) && !put_reply_number(writer, reply)) {
        writer->len = at;
        return -EOPNOTSUPP;
    }
    return finish(writer, at, reply->data.ptr ? 0 : reply->data.len);
}

static int get_reply_qids(struct vv_cursor *cursor, struct vv_ninep_reply *reply)
{
    uint16_t count = vv_cursor_u16(cursor);
    if (count > VV_NINEP_WALK_MAX)
        return -EINVAL;
    reply->qid_count = count;
    for (uint16_t i = 0; i < count; i++)
        reply->qids[i] = get_qid(cursor);
    return 0;
}

static bool get_reply_number(struct vv_cursor *cursor, struct vv_ninep_reply *reply)
{
    switch (reply->type - 1) {
    case VV_NINEP_TLERROR:
        reply->error = vv_cursor_u32(cursor);
        return true;
    case VV_NINEP_TXATTRWALK:
        reply->size = vv_cursor_u64(cursor);
        return true;
    case VV_NINEP_TLOCK:
        reply->status = vv_cursor_u8(cursor);
        return true;
    case VV_NINEP_TWRITE:
        reply->count = vv_cursor_u32(cursor);
        return true;
    default:
        return request_layout((uint8_t)(reply->type - 1)) != NULL;
    }
}

static int get_reply_body(struct vv_cursor *cursor, struct vv_ninep_reply *reply)
{
    switch (reply->type - 1) {
    case VV_NINEP_TSTATFS:
        get_statfs(cursor, &reply->statfs);
        return 0;
    case VV_NINEP_TLOPEN:
    case VV_NINEP_TLCREATE:
        reply->qid = get_qid(cursor);
        reply->iounit = vv_cursor_u32(cursor);
        return 0;
    case VV_NINEP_TSYMLINK:
    case VV_NINEP_TMKNOD:
    case VV_NINEP_TMKDIR:
    case VV_NINEP_TATTACH:
        reply->qid = get_qid(cursor);
        return 0;
    case VV_NINEP_TREADLINK:
        reply->name = get_string(cursor);
        return 0;
    case VV_NINEP_TGETATTR:
        get_getattr(cursor, &reply->getattr);
        return 0;
    case VV_NINEP_TGETLOCK:
        get_lock(cursor, &reply->lock, false);
        return 0;
    case VV_NINEP_TVERSION:
        reply->msize = vv_cursor_u32(cursor);
        reply->name = get_string(cursor);
        return 0;
    case VV_NINEP_TWALK:
        return get_reply_qids(cursor, reply);
    case VV_NINEP_TREAD:
    case VV_NINEP_TREADDIR:
        reply->data = vv_cursor_bytes(cursor, vv_cursor_u32(cursor));
        return 0;
    default:
        return get_reply_number(cursor, reply) ? 0 : -EOPNOTSUPP;
    }
}

int vv_ninep_decode_reply(const void *message, size_t len, struct vv_ninep_reply *out_reply)
{
    *out_reply = (struct vv_ninep_reply){0};
    struct vv_cursor cursor = vv_cursor_of(message, len);
    uint32_t size = vv_cursor_u32(&cursor);
    out_reply->type = vv_cursor_u8(&cursor);
    out_reply->tag = vv_cursor_u16(&cursor);
    if (cursor.is_bad || size != len)
        return -VV_ERR_FORMAT;
    TRY(get_reply_body(&cursor, out_reply));
    return vv_cursor_end(&cursor);
}

bool vv_ninep_encode_dirent(struct vv_writer *writer, const struct vv_ninep_qid *qid,
                            uint64_t offset, uint8_t type, struct vv_bytes name)
{
    size_t len = VV_NINEP_QID_BYTES + 8 + 1 + 2 + name.len;
    if (writer->is_bad || len > writer->capacity - writer->len)
        return false;
    put_qid(writer, qid);
    vv_writer_u64(writer, offset);
    vv_writer_u8(writer, type);
    put_string(writer, name);
    return true;
}

static const char *type_name(uint8_t type)
{
    static const char *const names[] = {
        [VV_NINEP_TSTATFS] = "Tstatfs",
        [VV_NINEP_TLOPEN] = "Tlopen",
        [VV_NINEP_TLCREATE] = "Tlcreate",
        [VV_NINEP_TSYMLINK] = "Tsymlink",
        [VV_NINEP_TMKNOD] = "Tmknod",
        [VV_NINEP_TRENAME] = "Trename",
        [VV_NINEP_TREADLINK] = "Treadlink",
        [VV_NINEP_TGETATTR] = "Tgetattr",
        [VV_NINEP_TSETATTR] = "Tsetattr",
        [VV_NINEP_TXATTRWALK] = "Txattrwalk",
        [VV_NINEP_TXATTRCREATE] = "Txattrcreate",
        [VV_NINEP_TREADDIR] = "Treaddir",
        [VV_NINEP_TFSYNC] = "Tfsync",
        [VV_NINEP_TLOCK] = "Tlock",
        [VV_NINEP_TGETLOCK] = "Tgetlock",
        [VV_NINEP_TLINK] = "Tlink",
        [VV_NINEP_TMKDIR] = "Tmkdir",
        [VV_NINEP_TRENAMEAT] = "Trenameat",
        [VV_NINEP_TUNLINKAT] = "Tunlinkat",
        [VV_NINEP_TVERSION] = "Tversion",
        [VV_NINEP_TAUTH] = "Tauth",
        [VV_NINEP_TATTACH] = "Tattach",
        [VV_NINEP_TFLUSH] = "Tflush",
        [VV_NINEP_TWALK] = "Twalk",
        [VV_NINEP_TREAD] = "Tread",
        [VV_NINEP_TWRITE] = "Twrite",
        [VV_NINEP_TCLUNK] = "Tclunk",
        [VV_NINEP_TREMOVE] = "Tremove",
    };
    const size_t count = sizeof(names) / sizeof(names[0]);
    return type < count && names[type] ? names[type] : "T?";
}

char *vv_ninep_request_to_text(const struct vv_ninep_request *request, char *out, size_t size)
{
    int name_len = request->name.len > 64 ? 64 : (int)request->name.len;
    vv_format(out, size, "%s tag %u fid %u newfid %u name \"%.*s\" offset %llu count %u",
              type_name(request->type), request->tag, request->fid, request->newfid, name_len,
              name_len > 0 ? (const char *)request->name.ptr : "",
              (unsigned long long)request->offset, request->count);
    return out;
}
