#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/text.h"
#include "cache/disk_impl.h"

#define ENTRY_BYTES_MAX (VV_DISK_HEADER_LEN + VV_STORE_NAME_MAX + VV_DISK_ENTRY_MAX)
#define PIECE_IOV_MAX 64

/* ---- what is held ---- */

static void object_key(const uint8_t volume_id[16], const char *name, uint8_t out[16])
{
    vv_xxh3_128(name, strlen(name), vv_xxh3(volume_id, 16, 0), out);
}

static struct vv_disk_object *find_object(const struct vv_disk *disk, const uint8_t key[16])
{
    struct vv_map_node *at = vv_map_find(&disk->objects, vv_load_u64(key));
    for (; at; at = vv_map_next(at)) {
        struct vv_disk_object *object = vv_container_of(at, struct vv_disk_object, node);
        if (memcmp(object->key, key, 16) == 0)
            return object;
    }
    return NULL;
}

static struct vv_disk_object *find_or_new_object(struct vv_disk *disk, const uint8_t key[16])
{
    struct vv_disk_object *object = find_object(disk, key);
    if (object)
        return object;
    object = vv_zalloc(sizeof(*object));
    if (!object)
        return NULL;
    memcpy(object->key, key, 16);
    vv_list_init(&object->parts);
    vv_map_insert(&disk->objects, &object->node, vv_load_u64(key));
    disk->stats.memory_bytes += VV_DISK_OBJECT_COST;
    return object;
}

void vv_disk_part_free(struct vv_disk *disk, struct vv_disk_part *part)
{
    vv_list_remove(&part->in_object);
    vv_list_remove(&part->in_file);
    if (vv_list_is_empty(&part->object->parts)) {
        vv_map_remove(&disk->objects, &part->object->node);
        vv_free(part->object);
        disk->stats.memory_bytes -= VV_DISK_OBJECT_COST;
    }
    disk->stats.entries--;
    disk->stats.memory_bytes -= VV_DISK_PART_COST;
    vv_free(part);
}

void vv_disk_note(struct vv_disk *disk, struct vv_disk_file *file, uint64_t at,
                  const struct vv_disk_entry *entry)
{
    uint8_t key[16];
    object_key(entry->volume_id, entry->name, key);
    struct vv_disk_part *part = vv_zalloc(sizeof(*part));
    struct vv_disk_object *object = part ? find_or_new_object(disk, key) : NULL;
    if (!object) {
        vv_free(part);
        return;
    }
    part->object = object;
    part->file = file;
    part->offset = entry->offset;
    part->len = entry->len;
    part->at = (uint32_t)at;
    part->name_len = entry->name_len;
    part->is_end = entry->is_end;
    vv_list_push_back(&object->parts, &part->in_object);
    vv_list_push_back(&file->parts, &part->in_file);
    file->part_count++;
    disk->stats.entries++;
    disk->stats.memory_bytes += VV_DISK_PART_COST;
}

/* The part that holds byte `offset` and reaches furthest. */
static struct vv_disk_part *find_part(const struct vv_disk_object *object, uint64_t offset)
{
    struct vv_disk_part *best = NULL;
    vv_list_each (node, &object->parts) {
        struct vv_disk_part *part = vv_list_entry(node, struct vv_disk_part, in_object);
        if (part->offset <= offset && offset < part->offset + part->len &&
            (!best || part->offset + part->len > best->offset + best->len))
            best = part;
    }
    return best;
}

bool vv_disk_keeps(const char *name)
{
    return strncmp(name, "data/", 5) == 0 || strncmp(name, "sst/", 4) == 0 ||
           strncmp(name, "log/", 4) == 0;
}

void vv_disk_forget(struct vv_disk *disk, const uint8_t volume_id[16], const char *name)
{
    uint8_t key[16];
    object_key(volume_id, name, key);
    struct vv_disk_object *object = find_object(disk, key);
    while (object) {
        struct vv_disk_part *part = vv_list_first(&object->parts, struct vv_disk_part, in_object);
        bool is_last = object->parts.next == object->parts.prev;
        vv_disk_part_free(disk, part);
        object = is_last ? NULL : object;
    }
}

/* ---- reading ---- */

/* An entry read back: is it the one that was noted, and whole? */
static bool is_sound(const struct vv_disk_part *part, const uint8_t *bytes, const uint8_t id[16],
                     const char *name)
{
    struct vv_disk_entry entry;
    ssize_t head = vv_disk_entry_decode(bytes, VV_DISK_HEADER_LEN + part->name_len, &entry);
    return head >= 0 && memcmp(entry.volume_id, id, 16) == 0 && strcmp(entry.name, name) == 0 &&
           entry.offset == part->offset && entry.len == part->len &&
           vv_crc32c(0, bytes + head, entry.len) == entry.crc;
}

/* The entry was found damaged: it is not held any more, wherever it is now. */
static void drop_damaged(struct vv_disk *disk, const uint8_t key[16], const struct vv_disk_part *was)
{
    struct vv_disk_object *object = find_object(disk, key);
    disk->stats.damaged++;
    if (!object)
        return;
    vv_list_each_safe (node, &object->parts) {
        struct vv_disk_part *part = vv_list_entry(node, struct vv_disk_part, in_object);
        if (part->file == was->file && part->at == was->at) {
            vv_disk_part_free(disk, part);
            return;
        }
    }
}

/* Copy what a part has of [offset, offset + len). Bytes, or 0 when it is damaged. */
static size_t read_part(struct vv_disk *disk, const struct vv_disk_part *part, uint8_t *scratch,
                        const uint8_t id[16], const char *name, uint8_t *buf, size_t len,
                        uint64_t offset)
{
    size_t head = VV_DISK_HEADER_LEN + part->name_len;
    struct vv_disk_file *file = part->file;
    file->refs++;
    ssize_t got = vv_file_pread(file->file, scratch, head + part->len, part->at);
    vv_disk_file_unref(disk, file);
    if (got != (ssize_t)(head + part->len) || !is_sound(part, scratch, id, name))
        return 0;
    size_t skip = (size_t)(offset - part->offset);
    size_t count = part->len - skip < len ? part->len - skip : len;
    memcpy(buf, scratch + head + skip, count);
    return count;
}

size_t vv_disk_read(struct vv_disk *disk, const uint8_t volume_id[16], const char *name, void *buf,
                    size_t len, uint64_t offset, bool *out_is_end)
{
    uint8_t key[16];
    size_t done = 0;
    *out_is_end = false;
    object_key(volume_id, name, key);
    if (!find_object(disk, key))
        return 0;
    CLEANUP(vv_free_ptr) uint8_t *scratch = vv_alloc(ENTRY_BYTES_MAX);
    while (scratch && done < len && !*out_is_end) {
        const struct vv_disk_object *object = find_object(disk, key);
        const struct vv_disk_part *found = object ? find_part(object, offset + done) : NULL;
        if (!found)
            break;
        struct vv_disk_part part = *found; /* it may go while it is read */
        size_t got = read_part(disk, &part, scratch, volume_id, name, (uint8_t *)buf + done,
                               len - done, offset + done);
        if (got == 0) {
            drop_damaged(disk, key, &part);
            break;
        }
        done += got;
        *out_is_end = part.is_end && offset + done == part.offset + part.len;
    }
    return done;
}

/* ---- writing ---- */

/* The caller's buffers as a stream. */
struct source {
    const struct iovec *iov;
    int count;
    size_t skip;
};

/* Up to `len` bytes as out[1..]; their checksum. Stops early when there are too many buffers. */
static size_t take(struct source *source, size_t len, struct iovec *out, int *out_count,
                   uint32_t *out_crc)
{
    size_t done = 0;
    int count = 1;
    uint32_t crc = 0;
    while (source->count > 0 && done < len && count < PIECE_IOV_MAX) {
        size_t left = source->iov->iov_len - source->skip;
        size_t part = left < len - done ? left : len - done;
        if (part > 0) {
            out[count] = (struct iovec){(uint8_t *)source->iov->iov_base + source->skip, part};
            crc = vv_crc32c(crc, out[count++].iov_base, part);
        }
        done += part;
        source->skip += part;
        if (part == left) {
            source->iov++;
            source->count--;
            source->skip = 0;
        }
    }
    *out_count = count;
    *out_crc = crc;
    return done;
}

static bool is_held(const struct vv_disk *disk, const struct vv_disk_entry *entry)
{
    uint8_t key[16];
    object_key(entry->volume_id, entry->name, key);
    const struct vv_disk_object *object = find_object(disk, key);
    const struct vv_disk_part *part = object ? find_part(object, entry->offset) : NULL;
    return part && part->offset + part->len >= entry->offset + entry->len;
}

/* Write one entry: iov[0] is free for its header. False: nothing more can be written now. */
static bool write_entry(struct vv_disk *disk, const struct vv_disk_entry *entry, struct iovec *iov,
                        int count)
{
    uint8_t head[VV_DISK_HEADER_LEN + VV_STORE_NAME_MAX];
    size_t head_len = vv_disk_entry_encode(entry, head);
    struct vv_disk_file *file = vv_disk_room(disk, head_len + entry->len);
    if (!file)
        return false;
    uint64_t at = file->used;
    file->used += head_len + entry->len;
    iov[0] = (struct iovec){head, head_len};
    int err = vv_file_pwritev(file->file, iov, count, at);
    if (err == 0 && !file->is_dropped) {
        disk->stats.bytes_written += head_len + entry->len;
        vv_disk_note(disk, file, at, entry);
    }
    if (err < 0) {
        vv_debug("cache", "%s: writing: %s", disk->path, vv_err_text(err));
        disk->stats.errors++;
        vv_disk_give_up(disk, file, err);
    }
    vv_disk_file_unref(disk, file);
    return err == 0;
}

void vv_disk_write(struct vv_disk *disk, const uint8_t volume_id[16], const char *name,
                   uint64_t offset, const struct iovec *iov, int count, bool is_end)
{
    struct source source = {iov, count, 0};
    struct vv_disk_entry entry = {.offset = offset, .name_len = (uint16_t)strlen(name)};
    uint64_t left = 0;
    for (int i = 0; i < count; i++)
        left += iov[i].iov_len;
    assert(entry.name_len <= VV_STORE_NAME_MAX);
    memcpy(entry.volume_id, volume_id, 16);
    memcpy(entry.name, name, entry.name_len);
    if (left > disk->size / 4 || vv_rt_now_ns() < disk->paused_until_ns)
        return;
    while (left > 0) {
        struct iovec piece[PIECE_IOV_MAX];
        int piece_count;
        entry.len = (uint32_t)take(&source, VV_DISK_ENTRY_MAX, piece, &piece_count, &entry.crc);
        left -= entry.len;
        entry.is_end = is_end && left == 0;
        if (!is_held(disk, &entry) && !write_entry(disk, &entry, piece, piece_count))
            return;
        entry.offset += entry.len;
    }
}

/* ---- life ---- */

static int lock_directory(struct vv_disk *disk)
{
    char path[VV_DISK_PATH_MAX + 8];
    int err = vv_path_mkdir(disk->path);
    if (err < 0 && err != -EEXIST)
        return err;
    vv_format(path, sizeof(path), "%s/lock", disk->path);
    TRY(vv_file_open(path, VV_FILE_READ | VV_FILE_WRITE | VV_FILE_CREATE, &disk->lock));
    err = vv_file_lock(disk->lock);
    return err == -EWOULDBLOCK ? -VV_ERR_LOCKED : err;
}

uint64_t vv_disk_reach(uint64_t memory_bytes)
{
    return memory_bytes / VV_DISK_PART_COST * VV_DISK_ENTRY_MAX;
}

int vv_disk_open(const char *path, uint64_t size_bytes, uint64_t memory_bytes,
                 struct vv_disk **out_disk)
{
    if (size_bytes < VV_DISK_SIZE_MIN || memory_bytes < VV_DISK_MEMORY_MIN)
        return -EINVAL;
    struct vv_disk *disk = vv_zalloc(sizeof(*disk));
    if (!disk)
        return -ENOMEM;
    vv_list_init(&disk->files);
    vv_waitq_init(&disk->turned);
    disk->size = size_bytes;
    disk->stats.size_bytes = size_bytes;
    disk->memory_max = memory_bytes;
    uint64_t entries = memory_bytes / VV_DISK_MEMORY_FILES / (VV_DISK_PART_COST + VV_DISK_OBJECT_COST);
    disk->file_entries_max =
        (uint32_t)(entries < VV_DISK_FILE_ENTRIES_MAX ? entries : VV_DISK_FILE_ENTRIES_MAX);
    disk->stats.memory_max_bytes = memory_bytes;
    disk->file_bytes = size_bytes / VV_DISK_FILES_MAX;
    if (disk->file_bytes < VV_DISK_FILE_MIN)
        disk->file_bytes = VV_DISK_FILE_MIN;
    if (disk->file_bytes > UINT32_MAX / 2)
        disk->file_bytes = UINT32_MAX / 2;
    int err = vv_copy_text(disk->path, sizeof(disk->path), path) < 0 ? -ENAMETOOLONG : 0;
    if (err == 0)
        err = vv_map_init(&disk->objects);
    if (err == 0)
        err = lock_directory(disk);
    if (err == 0)
        err = vv_disk_load(disk);
    if (err < 0) {
        vv_disk_close(disk);
        return err;
    }
    *out_disk = disk;
    return 0;
}

void vv_disk_close(struct vv_disk *disk)
{
    if (!disk)
        return;
    vv_disk_unload(disk);
    vv_map_done(&disk->objects);
    if (disk->lock)
        vv_file_close(disk->lock);
    vv_free(disk);
}

void vv_disk_stats(const struct vv_disk *disk, struct vv_disk_stats *out_stats)
{
    *out_stats = disk->stats;
    vv_list_each (node, &disk->files)
        out_stats->files++;
}
