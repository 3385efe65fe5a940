/* Private to the disk cache: its files and what they hold. */
#ifndef VV_CACHE_DISK_IMPL_H
#define VV_CACHE_DISK_IMPL_H

#include "base/list.h"
#include "base/map.h"
#include "cache/disk.h"
#include "rt/rt.h"

#define VV_DISK_PATH_MAX 1024
#define VV_DISK_NAME_LEN 21 /* <16-hex n>.vvc and its end */
#define VV_DISK_MEMORY_FILES 16 /* at least so many files share the memory, so that dropping one drops little */
/* What a part and an object take, with what the allocator and the map add. */
#define VV_DISK_PART_COST (sizeof(struct vv_disk_part) + 16)
#define VV_DISK_OBJECT_COST (sizeof(struct vv_disk_object) + 32)

struct vv_disk_file {
    struct vv_list node; /* disk->files, oldest first */
    uint64_t number;
    struct vv_file *file;
    uint64_t used; /* bytes of entries, written or being written */
    uint64_t size; /* what it takes on the disk, index included */
    struct vv_list parts;
    uint32_t part_count;
    uint32_t refs;   /* one of the cache, one of each read or write under way */
    bool is_dropped; /* nothing in it counts any more */
};

/* An object of which something is held. */
struct vv_disk_object {
    struct vv_map_node node;
    uint8_t key[16]; /* hash of volume id and name */
    struct vv_list parts;
};

/* An entry of a file. */
struct vv_disk_part {
    struct vv_list in_object;
    struct vv_list in_file;
    struct vv_disk_object *object;
    struct vv_disk_file *file;
    uint64_t offset; /* in the object */
    uint32_t len;
    uint32_t at; /* of the entry in its file */
    uint16_t name_len;
    bool is_end;
};

struct vv_disk {
    char path[VV_DISK_PATH_MAX];
    struct vv_file *lock;
    uint64_t size, file_bytes;
    uint64_t memory_max; /* of parts and objects */
    uint32_t file_entries_max;
    struct vv_list files;
    struct vv_disk_file *current; /* being written; NULL: the next write makes one */
    uint64_t next_number;
    bool is_turning;         /* from one file to the next */
    struct vv_waitq turned;
    uint64_t paused_until_ns; /* nothing is written before: writing failed */
    struct vv_map objects;
    struct vv_disk_stats stats;
};

/* ---- disk_file.c ---- */

/* Learn about all files. Suspends. */
MUST_CHECK int vv_disk_load(struct vv_disk *disk);
/* The file that has room for `bytes` more, made if need be; older files go. NULL: nothing can be written now. With
 * a reference. Suspends. */
struct vv_disk_file *vv_disk_room(struct vv_disk *disk, size_t bytes);
/* Writing failed: go on with another file, after a while. Suspends. */
void vv_disk_give_up(struct vv_disk *disk, struct vv_disk_file *file, int err);
void vv_disk_file_unref(struct vv_disk *disk, struct vv_disk_file *file);
/* Write the current file's index and close all. Suspends. */
void vv_disk_unload(struct vv_disk *disk);

/* ---- disk.c ---- */

/* Note an entry that is in a file. What there is no memory for is not held. */
void vv_disk_note(struct vv_disk *disk, struct vv_disk_file *file, uint64_t at,
                  const struct vv_disk_entry *entry);
void vv_disk_part_free(struct vv_disk *disk, struct vv_disk_part *part);

#endif
