/* The simulated runtime's parts: the world and its loop (sim.c), processes (sim_process.c), and
 * disks: file content (sim_content.c), directories (sim_dir.c), the disk as a whole (sim_disk.c),
 * and the calls of rt.h on paths (sim_path.c) and files (sim_file.c). Private to rt.
 *
 * Everything here is memory of domain 0. Nothing depends on addresses, on the order of a hash table
 * or on the real world: whatever has to be walked is in a list, in the order in which it was made.
 */
#ifndef VV_RT_SIM_IMPL_H
#define VV_RT_SIM_IMPL_H

#include "base/map.h"
#include "rt/rt_impl.h"
#include "rt/sim.h"

/* ---- the world ---- */

struct vv_sim_process {
    int number; /* also its allocation domain */
    bool is_alive;
    bool is_doomed; /* killed by itself: ends as soon as the loop runs */
    struct vv_sim_disk *disk;
    struct vv_list fibers;
    struct vv_list files;
    struct vv_waitq waiters; /* vv_sim_process_wait */
    struct vv_post *first_post;
    struct vv_post *last_post;
    struct vv_timer post_timer;
    uint64_t kill_after; /* 0 = never */
    unsigned kill_before_sync;  /* syncs of directories; 0 = never */
    const char *kill_sync_part; /* ... whose paths contain this */
};

struct vv_sim_world {
    struct vv_reactor base;
    struct vv_sim_options options;
    uint64_t random_state;
    uint64_t now_ns;
    uint64_t steps;
    bool is_stopped;
    struct vv_sim_process *current;    /* whose fiber or callback runs */
    struct vv_sim_process **processes; /* by number - 1 */
    size_t process_count;
    size_t process_capacity;
    struct vv_list disks;
};

/* The calling thread's world; outside one that is a bug. */
struct vv_sim_world *vv_sim_world_self(void);
/* As the public ones, for a world that is known. */
uint64_t vv_sim_world_random(struct vv_sim_world *world, uint64_t bound);
/* How long the next file operation or offload takes. */
uint64_t vv_sim_world_latency(struct vv_sim_world *world);
/* Suspend for as long as that. */
void vv_sim_world_pause(struct vv_sim_world *world);

/* vv_zalloc in domain 0. */
void *vv_sim_alloc(size_t size);

/* -ENOMEM, -VV_ERR_LIMIT. */
MUST_CHECK int vv_sim_process_new(struct vv_sim_world *world, struct vv_sim_disk *disk,
                                  void (*fn)(void *), void *arg,
                                  struct vv_sim_process **out_process);
/* Its last fiber has ended. */
void vv_sim_process_ended(struct vv_sim_world *world, struct vv_sim_process *process);
/* From the loop, or from another process. */
void vv_sim_process_end_now(struct vv_sim_world *world, struct vv_sim_process *process);

/* ---- file content ---- */

#define VV_SIM_SECTOR_BYTES 512u
#define VV_SIM_PAGE_BYTES 4096u
#define VV_SIM_CHUNK_PAGES 256u
#define VV_SIM_FILE_BYTES_MAX (1ull << 40)

/* One page of a file as it is now (in the page cache), and as it is on the medium. The two are the
 * same memory, or both NULL (zeros), when nothing in the page is unsynced. */
struct vv_sim_page {
    uint8_t *now;
    uint8_t *stable;
    uint8_t dirty; /* a bit per sector: the next sync writes it */
    uint8_t lost;  /* a bit per sector: a sync failed; only another write can make it durable */
    bool is_allocated;
};

struct vv_sim_chunk {
    struct vv_sim_page pages[VV_SIM_CHUNK_PAGES];
    bool is_changed; /* a page may be dirty or have lost sectors */
};

struct vv_sim_content {
    struct vv_sim_disk *disk;
    uint64_t size;
    uint64_t stable_size;
    uint64_t least_size;      /* the smallest size since the last sync */
    uint64_t allocated_count; /* pages */
    struct vv_sim_chunk **chunks;
    size_t chunk_count;
};

void vv_sim_content_done(struct vv_sim_content *content);
/* Bytes read. */
size_t vv_sim_content_read(const struct vv_sim_content *content, void *buf, size_t len,
                           uint64_t offset);
/* -ENOSPC, -ENOMEM, -EFBIG: a front part may have been written. */
MUST_CHECK int vv_sim_content_write(struct vv_sim_content *content, const void *buf, size_t len,
                                    uint64_t offset);
MUST_CHECK int vv_sim_content_resize(struct vv_sim_content *content, uint64_t size);
MUST_CHECK int vv_sim_content_allocate(struct vv_sim_content *content, uint64_t offset,
                                       uint64_t len);
/* Make everything durable; or, failing, an arbitrary part of it, and lose another. -ENOMEM. */
MUST_CHECK int vv_sim_content_sync(struct vv_sim_content *content, bool is_failing);
/* Keep an arbitrary part of what is unsynced. */
void vv_sim_content_power_cut(struct vv_sim_content *content);
/* Flip a bit. The size must not be 0. False when there is no memory. */
bool vv_sim_content_rot(struct vv_sim_content *content);

/* ---- inodes and directories ---- */

#define VV_SIM_NAME_MAX 255

struct vv_sim_inode {
    struct vv_sim_disk *disk;
    struct vv_list disk_node; /* among the disk's inodes, or those about to be freed */
    bool is_dir;
    uint32_t refs;                 /* names now and stable, unsynced changes, open files */
    uint32_t users;                /* names now and open files: with none its space is free */
    struct vv_sim_content content; /* files */
    struct vv_file *lock_holder;
    struct vv_sim_inode *parent; /* directories: where it is now; NULL for the root */
    struct vv_map map;           /* of entries, by name */
    struct vv_list entries;      /* all, in the order in which they were made */
    size_t entry_count;          /* those that exist now */
    struct vv_list changes;      /* unsynced, oldest first */
    uint64_t sync_to;            /* while syncing: changes up to this order become durable */
};

/* A name of a directory, and what it means now and on the medium; NULL: it is not there. */
struct vv_sim_entry {
    struct vv_map_node node;
    struct vv_list order_node;
    struct vv_sim_inode *now;
    struct vv_sim_inode *stable;
    uint32_t pins; /* changes that mention it */
    char name[];
};

/* NULL without memory. The new inode has no references. */
struct vv_sim_inode *vv_sim_inode_new(struct vv_sim_disk *disk, bool is_dir);
void vv_sim_inode_ref(struct vv_sim_inode *inode);
/* The inode is freed, with what only it refers to, when this was the last reference. */
void vv_sim_inode_unref(struct vv_sim_inode *inode);
/* For open files. */
void vv_sim_inode_use(struct vv_sim_inode *inode);
void vv_sim_inode_unuse(struct vv_sim_inode *inode);

/* What a name means now; NULL: nothing. */
struct vv_sim_inode *vv_sim_dir_find(const struct vv_sim_inode *dir, const char *name);
/* Give a name a meaning; NULL removes it. -ENOMEM. */
MUST_CHECK int vv_sim_dir_set(struct vv_sim_inode *dir, const char *name,
                              struct vv_sim_inode *inode);
/* Move what `from_name` means to another name. */
MUST_CHECK int vv_sim_dir_move(struct vv_sim_inode *from_dir, const char *from_name,
                               struct vv_sim_inode *to_dir, const char *to_name);
/* Make the first `count` changes durable (SIZE_MAX: all). */
void vv_sim_dir_sync(struct vv_sim_inode *dir, size_t count);
size_t vv_sim_dir_change_count(const struct vv_sim_inode *dir);

/* ---- disks ---- */

struct vv_sim_disk {
    struct vv_list world_node;
    struct vv_list inodes; /* all */
    struct vv_sim_inode *root;
    uint64_t capacity_pages; /* 0 = unbounded */
    uint64_t used_pages;
    unsigned errors_per_10000;
    uint64_t next_order; /* of changes of directories */
    size_t open_count;   /* open files */
};

void vv_sim_disk_free(struct vv_sim_disk *disk);
/* Whether the operation that is about to happen fails with EIO. */
bool vv_sim_disk_fails(const struct vv_sim_disk *disk);
/* Choose and apply what a power cut keeps of directories (sim_dir.c). */
void vv_sim_dirs_power_cut(struct vv_sim_disk *disk, bool is_reordering);

/* ---- calls of rt.h ---- */

extern const struct vv_path_ops vv_sim_path_ops;
int vv_sim_file_open(const char *path, unsigned flags, struct vv_file **out_file);
/* The files that a process has left open when it ended. */
void vv_sim_files_drop(struct vv_sim_process *process);

/* Where a path leads: a directory, and a name in it ("" when the path is the root itself). */
struct vv_sim_place {
    struct vv_sim_inode *dir;
    char name[VV_SIM_NAME_MAX + 1];
};
/* -ENOENT, -ENOTDIR, -ENAMETOOLONG, -EINVAL ("..": there is none in the simulation). */
MUST_CHECK int vv_sim_resolve(struct vv_sim_disk *disk, const char *path,
                              struct vv_sim_place *out_place);
/* The inode at a path, or an error. */
MUST_CHECK int vv_sim_find(struct vv_sim_disk *disk, const char *path,
                           struct vv_sim_inode **out_inode);

#endif
