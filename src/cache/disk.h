/* The disk cache: parts of stored objects, as sealed as they are in the store, in files of a local directory.
 *
 * It holds what was read from or written to a slow store, survives restarts, and never needs to be right about
 * being there: what is missing, damaged or cannot be read is a miss. Only names that never mean anything else
 * may be kept (data segments, tables, log objects; never manifests): vv_disk_keeps.
 *
 * The directory:
 *   lock           locked by the process that uses the cache; another is refused (-VV_ERR_LOCKED)
 *   <16-hex n>.vvc a file of entries, written from its start to its end; the greatest n is being written
 *
 * Files are dropped oldest first when the size is reached, or when what memory knows of their entries (about a
 * hundred bytes each) would take more than it may; nothing is ever moved. An entry (little-endian):
 *   0  4  magic "vvce"
 *   4  4  CRC32C of bytes 8..63 and of the name
 *   8 16  volume id: one directory serves several volumes
 *  24  8  offset in the object
 *  32  4  length n of the data, 1 .. VV_DISK_ENTRY_MAX
 *  36  4  CRC32C of the data
 *  40  2  length m of the object's name
 *  42  1  flags: 1 = the object ends with this entry
 *  43 21  reserved, 0
 *  64  m  name
 *  64+m n data
 * A file that is full ends with its index, so that opening reads the entries' headers at once:
 *   for each entry: u64 position in the file, then bytes 0 .. 63+m of the entry
 *   tail, 24 bytes: u64 position of the index, u32 count of entries, u32 CRC32C of the index, u32 CRC32C of the
 *   16 bytes before, magic "vvci"
 * Of a file without one, the entries count up to the first that does not decode.
 *
 * Nothing is synced: after a power loss, checksums tell what is there. One reactor; functions that suspend say so. */
#ifndef VV_CACHE_DISK_H
#define VV_CACHE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/err.h"
#include "store/store.h"

#define VV_DISK_ENTRY_MAX (128u << 10) /* data of an entry; longer parts are several */
#define VV_DISK_HEADER_LEN 64u
#define VV_DISK_TAIL_LEN 24u
#define VV_DISK_FILES_MAX 256         /* about: files are size / 256, at least FILE_MIN */
#define VV_DISK_FILE_MIN (1u << 20)
#define VV_DISK_FILE_ENTRIES_MAX 65536u /* then the file counts as full */
#define VV_DISK_SIZE_MIN (8ull << 20)
#define VV_DISK_MEMORY_MIN (64u << 10)

struct vv_disk;

struct vv_disk_stats {
    uint64_t size_bytes, held_bytes; /* the bound, and all files together */
    uint64_t files, entries;
    uint64_t memory_bytes, memory_max_bytes; /* what is known of the entries, and its bound */
    uint64_t hits, misses;           /* gets answered without the store, and others */
    uint64_t bytes_hit, bytes_missed;
    uint64_t bytes_written;
    uint64_t damaged; /* entries found damaged or unreadable */
    uint64_t errors;  /* of writing */
};

/* Make the directory if it is missing (its parent must exist), lock it, and learn what it holds. Of the memory, what is
 * known of one file's entries may be used above the bound. Suspends.
 * -EINVAL (size below SIZE_MIN, memory below MEMORY_MIN), -VV_ERR_LOCKED, -ENOMEM, -errno. */
MUST_CHECK int vv_disk_open(const char *path, uint64_t size_bytes, uint64_t memory_bytes,
                            struct vv_disk **out_disk);
/* How many bytes of a cache so much memory can know of, when its entries are as long as they can be. */
uint64_t vv_disk_reach(uint64_t memory_bytes);
/* Nobody may be in any call. NULL is fine. Suspends. */
void vv_disk_close(struct vv_disk *disk);
void vv_disk_stats(const struct vv_disk *disk, struct vv_disk_stats *out_stats);
/* May parts of the object be kept? */
bool vv_disk_keeps(const char *name);
/* What is held of [offset, offset + len) from `offset` on, without a gap: bytes read, perhaps none.
 * *out_is_end: the object ends behind them. Suspends. */
size_t vv_disk_read(struct vv_disk *disk, const uint8_t volume_id[16], const char *name, void *buf,
                    size_t len, uint64_t offset, bool *out_is_end);
/* Keep bytes of an object that is in the store. What does not work is not kept. Suspends. */
void vv_disk_write(struct vv_disk *disk, const uint8_t volume_id[16], const char *name,
                   uint64_t offset, const struct iovec *iov, int count, bool is_end);
/* The object is gone. Does not suspend. */
void vv_disk_forget(struct vv_disk *disk, const uint8_t volume_id[16], const char *name);

/* A store that reads through the cache and keeps what is put. Owns `inner`; borrows `disk`, which outlives it. A
 * get makes at most one request. */
MUST_CHECK int vv_store_cached_new(struct vv_store *inner, struct vv_disk *disk,
                                   const uint8_t volume_id[16], struct vv_store **out_store);

/* ---- format (disk_format.c): pure, any thread ---- */

struct vv_disk_entry {
    uint8_t volume_id[16];
    uint64_t offset;
    uint32_t len;
    uint32_t crc;
    bool is_end;
    uint16_t name_len;
    char name[VV_STORE_NAME_MAX + 1];
};

/* Into out[VV_DISK_HEADER_LEN + VV_STORE_NAME_MAX]; the length. */
size_t vv_disk_entry_encode(const struct vv_disk_entry *entry, uint8_t *out);
/* From the start of an entry; the bytes that header and name take. -VV_ERR_FORMAT, -VV_ERR_CHECKSUM. */
MUST_CHECK ssize_t vv_disk_entry_decode(const void *bytes, size_t len,
                                        struct vv_disk_entry *out_entry);

struct vv_disk_tail {
    uint64_t index_at;
    uint32_t count;
    uint32_t index_crc;
};
void vv_disk_tail_encode(const struct vv_disk_tail *tail, uint8_t out[VV_DISK_TAIL_LEN]);
/* Of a file of `file_bytes`. -VV_ERR_FORMAT, -VV_ERR_CHECKSUM. */
MUST_CHECK int vv_disk_tail_decode(const uint8_t bytes[VV_DISK_TAIL_LEN], uint64_t file_bytes,
                                   struct vv_disk_tail *out_tail);
/* The next entry of an index: 1, 0 at its end, -VV_ERR_FORMAT, -VV_ERR_CHECKSUM. */
MUST_CHECK int vv_disk_index_next(struct vv_cursor *cursor, uint64_t index_at, uint64_t *out_at,
                                  struct vv_disk_entry *out_entry);

#endif
