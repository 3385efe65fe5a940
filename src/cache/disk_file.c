/* The files of the disk cache: finding out what they hold, beginning the next, dropping the oldest. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/text.h"
#include "cache/disk_impl.h"

#define PAUSE_NS VV_NS_PER_S        /* after a write that failed */
#define FILES_SEEN_MAX 65536        /* found in the directory; more are left alone */

static void file_path(const struct vv_disk *disk, uint64_t number, char *out, size_t size)
{
    vv_format(out, size, "%s/%016llx.vvc", disk->path, (unsigned long long)number);
}

/* ---- references, dropping ---- */

void vv_disk_file_unref(struct vv_disk *disk, struct vv_disk_file *file)
{
    (void)disk;
    assert(file->refs > 0);
    if (--file->refs > 0)
        return;
    vv_file_close(file->file);
    vv_free(file);
}

static void forget_parts(struct vv_disk *disk, struct vv_disk_file *file)
{
    while (!vv_list_is_empty(&file->parts))
        vv_disk_part_free(disk, vv_list_first(&file->parts, struct vv_disk_part, in_file));
}

/* Nothing in it counts any more; its bytes go with the last who reads it. Suspends. */
static void drop_file(struct vv_disk *disk, struct vv_disk_file *file)
{
    char path[VV_DISK_PATH_MAX + 32];
    forget_parts(disk, file);
    file->is_dropped = true;
    vv_list_remove(&file->node);
    if (disk->current == file)
        disk->current = NULL;
    file_path(disk, file->number, path, sizeof(path));
    disk->stats.held_bytes -= file->size;
    int err = vv_path_unlink(path);
    if (err < 0 && err != -ENOENT)
        vv_warn("cache", "%s: %s", path, vv_err_text(err));
    vv_disk_file_unref(disk, file);
}

void vv_disk_give_up(struct vv_disk *disk, struct vv_disk_file *file, int err)
{
    disk->paused_until_ns = vv_rt_now_ns() + PAUSE_NS;
    if (disk->current == file)
        disk->current = NULL;
    if (!file->is_dropped && vv_list_is_empty(&file->parts))
        drop_file(disk, file);
    /* Others need the room more. */
    if (err == -ENOSPC && !disk->current && !vv_list_is_empty(&disk->files))
        drop_file(disk, vv_list_first(&disk->files, struct vv_disk_file, node));
}

/* ---- the index at the end of a file that is full ---- */

/* The headers are read back: memory holds less than they say. False when one of them is not sound. */
static bool add_header(struct vv_disk_file *file, const struct vv_disk_part *part,
                       struct vv_writer *index)
{
    uint8_t bytes[VV_DISK_HEADER_LEN + VV_STORE_NAME_MAX];
    struct vv_disk_entry entry;
    size_t len = VV_DISK_HEADER_LEN + part->name_len;
    uint32_t at = part->at;
    if (vv_file_pread(file->file, bytes, len, at) != (ssize_t)len ||
        vv_disk_entry_decode(bytes, len, &entry) != (ssize_t)len)
        return false;
    vv_writer_u64(index, at);
    vv_writer_bytes(index, bytes, len);
    return true;
}

/* Without an index the file is scanned when it is opened: failing does no harm. Parts may go while it is built. */
static void write_index(struct vv_disk *disk, struct vv_disk_file *file)
{
    struct vv_writer index = vv_writer_new();
    uint32_t count = 0;
    uint32_t max = file->part_count;
    struct vv_disk_part *parts = vv_calloc(max + 1, sizeof(*parts));
    if (!parts)
        return;
    vv_list_each (node, &file->parts) {
        if (count < max)
            parts[count++] = *vv_list_entry(node, struct vv_disk_part, in_file);
    }
    bool is_sound = true;
    for (uint32_t i = 0; i < count && is_sound; i++)
        is_sound = add_header(file, &parts[i], &index);
    uint8_t tail[VV_DISK_TAIL_LEN];
    uint32_t crc = index.len > 0 ? vv_crc32c(0, index.ptr, index.len) : 0;
    vv_disk_tail_encode(&(struct vv_disk_tail){file->used, count, crc}, tail);
    struct iovec iov[2] = {{index.ptr, index.len}, {tail, sizeof(tail)}};
    if (is_sound && vv_writer_check(&index) == 0 && count > 0 &&
        vv_file_pwritev(file->file, iov, 2, file->used) == 0 && !file->is_dropped) {
        disk->stats.held_bytes += index.len + sizeof(tail);
        file->size += index.len + sizeof(tail);
    }
    vv_writer_done(&index);
    vv_free(parts);
}

/* ---- the next file ---- */

static struct vv_disk_file *new_file(struct vv_disk *disk, uint64_t number, unsigned flags)
{
    char path[VV_DISK_PATH_MAX + 32];
    struct vv_disk_file *file = vv_zalloc(sizeof(*file));
    if (!file)
        return NULL;
    file->number = number;
    file->refs = 1;
    vv_list_init(&file->parts);
    vv_list_init(&file->node);
    file_path(disk, number, path, sizeof(path));
    if (vv_file_open(path, flags, &file->file) < 0) {
        vv_free(file);
        return NULL;
    }
    return file;
}

/* Until there are `room` bytes free of the size, and `memory` of the memory. Suspends. */
static void drop_oldest(struct vv_disk *disk, uint64_t room, uint64_t memory)
{
    while ((disk->stats.held_bytes + room > disk->size ||
            disk->stats.memory_bytes + memory > disk->memory_max) &&
           !vv_list_is_empty(&disk->files)) {
        struct vv_disk_file *oldest = vv_list_first(&disk->files, struct vv_disk_file, node);
        if (oldest == disk->current)
            return;
        drop_file(disk, oldest);
    }
}

static void turn(struct vv_disk *disk)
{
    struct vv_disk_file *full = disk->current;
    disk->is_turning = true;
    disk->current = NULL;
    if (full) {
        full->refs++;
        write_index(disk, full);
        vv_disk_file_unref(disk, full);
    }
    drop_oldest(disk, disk->file_bytes, disk->memory_max / VV_DISK_MEMORY_FILES);
    struct vv_disk_file *file =
        new_file(disk, disk->next_number++,
                 VV_FILE_READ | VV_FILE_WRITE | VV_FILE_CREATE | VV_FILE_TRUNCATE);
    if (file)
        vv_list_push_back(&disk->files, &file->node);
    else
        disk->paused_until_ns = vv_rt_now_ns() + PAUSE_NS;
    disk->current = file;
    disk->is_turning = false;
    vv_waitq_wake_all(&disk->turned);
}

static bool has_room(const struct vv_disk *disk, size_t bytes)
{
    const struct vv_disk_file *file = disk->current;
    return file && file->used + bytes <= disk->file_bytes &&
           file->part_count < disk->file_entries_max &&
           disk->stats.memory_bytes < disk->memory_max;
}

struct vv_disk_file *vv_disk_room(struct vv_disk *disk, size_t bytes)
{
    while (!has_room(disk, bytes)) {
        if (vv_rt_now_ns() < disk->paused_until_ns)
            return NULL;
        if (disk->is_turning)
            vv_waitq_wait(&disk->turned, VV_NEVER);
        else
            turn(disk);
    }
    struct vv_disk_file *file = disk->current;
    file->refs++;
    /* Others that write at the same time get what lies behind. */
    file->size += bytes;
    disk->stats.held_bytes += bytes;
    return file;
}

/* ---- finding out what is there ---- */

struct numbers {
    uint64_t *at;
    size_t count;
    size_t capacity;
};

static int note_number(void *arg, const char *name, bool is_dir)
{
    struct numbers *numbers = arg;
    uint8_t bytes[8];
    if (is_dir || strlen(name) != VV_DISK_NAME_LEN - 1 || strcmp(name + 16, ".vvc") != 0 ||
        numbers->count == FILES_SEEN_MAX)
        return 0;
    char hex[17];
    memcpy(hex, name, 16);
    hex[16] = 0;
    if (vv_unhex(hex, bytes, sizeof(bytes)) < 0)
        return 0;
    if (numbers->count == numbers->capacity) {
        size_t capacity = numbers->capacity ? 2 * numbers->capacity : 64;
        uint64_t *at = vv_realloc(numbers->at, capacity * sizeof(*at));
        if (!at)
            return -ENOMEM;
        numbers->at = at;
        numbers->capacity = capacity;
    }
    numbers->at[numbers->count++] = vv_load_be64(bytes);
    return 0;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t first = *(const uint64_t *)a;
    uint64_t second = *(const uint64_t *)b;
    return first < second ? -1 : first > second;
}

/* 1 = the file has an index, and what it says is noted; 0 = it has none. */
static int load_index(struct vv_disk *disk, struct vv_disk_file *file)
{
    uint8_t bytes[VV_DISK_TAIL_LEN];
    struct vv_disk_tail tail;
    if (file->size < sizeof(bytes) ||
        vv_file_pread(file->file, bytes, sizeof(bytes), file->size - sizeof(bytes)) !=
            (ssize_t)sizeof(bytes) ||
        vv_disk_tail_decode(bytes, file->size, &tail) < 0)
        return 0;
    size_t len = (size_t)(file->size - sizeof(bytes) - tail.index_at);
    if (len > (size_t)VV_DISK_FILE_ENTRIES_MAX * (8 + VV_DISK_HEADER_LEN + VV_STORE_NAME_MAX))
        return 0;
    CLEANUP(vv_free_ptr) uint8_t *index = vv_alloc(len + 1);
    if (!index)
        return 0;
    if (vv_file_pread(file->file, index, len, tail.index_at) != (ssize_t)len ||
        vv_crc32c(0, index, len) != tail.index_crc)
        return 0;
    struct vv_cursor cursor = vv_cursor_of(index, len);
    struct vv_disk_entry entry;
    uint64_t at;
    while (vv_disk_index_next(&cursor, tail.index_at, &at, &entry) > 0)
        vv_disk_note(disk, file, at, &entry);
    file->used = tail.index_at;
    return 1;
}

/* Entry by entry, up to the first that does not decode. */
static void scan(struct vv_disk *disk, struct vv_disk_file *file)
{
    uint8_t bytes[VV_DISK_HEADER_LEN + VV_STORE_NAME_MAX];
    struct vv_disk_entry entry;
    while (file->part_count < VV_DISK_FILE_ENTRIES_MAX) {
        ssize_t got = vv_file_pread(file->file, bytes, sizeof(bytes), file->used);
        ssize_t len = got <= 0 ? -EIO : vv_disk_entry_decode(bytes, (size_t)got, &entry);
        if (len < 0 || file->used + (uint64_t)len + entry.len > file->size)
            return;
        vv_disk_note(disk, file, file->used, &entry);
        file->used += (uint64_t)len + entry.len;
    }
}

/* Files that can't be read are left alone: they are removed when it is their turn. */
static void load_file(struct vv_disk *disk, uint64_t number)
{
    struct vv_disk_file *file = new_file(disk, number, VV_FILE_READ | VV_FILE_WRITE);
    if (!file)
        return;
    if (vv_file_size(file->file, &file->size) < 0 || file->size > UINT32_MAX) {
        vv_disk_file_unref(disk, file);
        return;
    }
    disk->stats.held_bytes += file->size;
    vv_list_push_back(&disk->files, &file->node);
    if (load_index(disk, file) == 0)
        scan(disk, file);
}

/* Go on writing behind what the newest file holds, if there is room. */
static void continue_newest(struct vv_disk *disk)
{
    if (vv_list_is_empty(&disk->files))
        return;
    struct vv_disk_file *file = vv_list_last(&disk->files, struct vv_disk_file, node);
    if (file->used + VV_DISK_ENTRY_MAX * 2 > disk->file_bytes ||
        vv_file_truncate(file->file, file->used) < 0)
        return;
    disk->stats.held_bytes -= file->size - file->used;
    file->size = file->used;
    disk->current = file;
}

int vv_disk_load(struct vv_disk *disk)
{
    struct numbers numbers = {0};
    int err = vv_path_list(disk->path, note_number, &numbers);
    if (err == 0 && numbers.count > 0)
        qsort(numbers.at, numbers.count, sizeof(*numbers.at), compare_numbers);
    for (size_t i = 0; i < numbers.count && err == 0; i++) {
        load_file(disk, numbers.at[i]);
        disk->next_number = numbers.at[i] + 1;
        drop_oldest(disk, 0, 0); /* size or memory may have become less */
    }
    vv_free(numbers.at);
    if (err < 0)
        return err;
    continue_newest(disk);
    return 0;
}

void vv_disk_unload(struct vv_disk *disk)
{
    if (disk->current)
        write_index(disk, disk->current);
    disk->current = NULL;
    while (!vv_list_is_empty(&disk->files)) {
        struct vv_disk_file *file = vv_list_first(&disk->files, struct vv_disk_file, node);
        forget_parts(disk, file);
        vv_list_remove(&file->node);
        vv_disk_file_unref(disk, file);
    }
}
