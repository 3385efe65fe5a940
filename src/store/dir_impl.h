/* Private to the dir store: its directories and open files.
 *
 *   <root>/<name>       an object: complete and synced before it got this name
 *   <root>/tmp/<a>-<n>  a put under way, or to come: <a> is random per opening, <n> counts
 *   <root>/journal/     not ours (the log's journal); never listed
 *
 * Owned by one reactor; functions that suspend say so. */
#ifndef VV_STORE_DIR_IMPL_H
#define VV_STORE_DIR_IMPL_H

#include "base/list.h"
#include "base/map.h"
#include "rt/rt.h"
#include "store/store_impl.h"

#define VV_DIR_ROOT_MAX 1024      /* bytes of the path of a store; longer is -ENAMETOOLONG */
#define VV_DIR_KNOWN_MAX 4096     /* directories remembered as durable; others are synced again */
#define VV_DIR_FILES_MAX 64       /* files kept open for gets; the one unused longest is closed */
#define VV_DIR_DROPPING_MAX 64    /* files removed in the background; then puts do it themselves */
#define VV_DIR_LISTED_MAX 4194304 /* names held by one list call; more is -VV_ERR_LIMIT */
#define VV_DIR_PATH_MAX (VV_DIR_ROOT_MAX + 1 + VV_STORE_NAME_MAX + 1)

/* A directory in use, or known to be durable. The root's name is "". */
struct vv_dir_node {
    struct vv_map_node map_node;
    struct vv_dir_node *parent; /* holds a reference; NULL for the root */
    unsigned refs;
    bool is_durable; /* this process has synced its name, and those of all its parents */
    /* Syncs of the directory are numbered from 1; at most one is under way. */
    uint64_t begun_count;
    uint64_t ended_count;
    uint64_t failed_number; /* of the last one that failed, with its error */
    int failure;
    struct vv_waitq ended; /* woken when a sync ends */
    char name[];
};

/* A file kept open. */
struct vv_dir_file {
    struct vv_map_node map_node;
    struct vv_list lru; /* in the list when nobody reads it; the oldest use comes first */
    struct vv_file *file;
    unsigned refs;
    bool is_forgotten; /* removed from the map: closed with the last reference */
    char name[];
};

struct vv_dir {
    struct vv_store store;
    char root[VV_DIR_ROOT_MAX + 1];
    char attempt[17];   /* <a> of the temporary names of this opening */
    uint64_t tmp_count; /* <n> of the next */
    bool is_tmp_clean;  /* leftovers of earlier openings are gone, or going */
    bool is_closing;
    struct vv_dir_tmp *spare; /* an empty temporary file for the next put, or NULL */
    size_t dropping;          /* temporary files being removed in the background */
    struct vv_waitq dropped;  /* woken when one is */
    struct vv_map nodes;
    struct vv_dir_node *root_node;
    struct vv_map files;
    struct vv_list files_lru;
    uint64_t forget_count; /* how often a file was forgotten: detects an open that raced with it */
};

/* The path of an object or directory; out[VV_DIR_PATH_MAX]. */
void vv_dir_path(const struct vv_dir *dir, const char *name, char *out);

/* ---- dir_tmp.c ---- */

/* The file of a put under way. */
struct vv_dir_tmp;

void vv_dir_tmp_init(struct vv_dir *dir);
/* Waits for what goes on in the background, removes the spare. Suspends. */
void vv_dir_tmp_done(struct vv_dir *dir);
/* A new, empty file: the spare, if there is one. The first call removes what earlier openings left.
 * The caller drops it. Suspends. -ENOMEM, -errno. */
MUST_CHECK int vv_dir_tmp_take(struct vv_dir *dir, struct vv_dir_tmp **out_tmp);
struct vv_file *vv_dir_tmp_file(struct vv_dir_tmp *tmp);
/* out[VV_DIR_PATH_MAX] */
void vv_dir_tmp_path(const struct vv_dir *dir, const struct vv_dir_tmp *tmp, char *out);
/* Close the file and remove its temporary name, and make a spare; all this in the background, since
 * a put need not wait for it. A name that can't be removed is a leftover for the next opening. */
void vv_dir_tmp_drop(struct vv_dir *dir, struct vv_dir_tmp *tmp);

/* ---- dir_sync.c ---- */

MUST_CHECK int vv_dir_nodes_init(struct vv_dir *dir);
void vv_dir_nodes_done(struct vv_dir *dir);
/* The directory that holds the object `name`, with a reference. -ENOMEM. */
MUST_CHECK int vv_dir_node_get(struct vv_dir *dir, const char *name, struct vv_dir_node **out_node);
void vv_dir_node_unref(struct vv_dir *dir, struct vv_dir_node *node);
/* Make the directory and its parents where they are missing. Suspends. */
MUST_CHECK int vv_dir_node_make(struct vv_dir *dir, struct vv_dir_node *node);
/* Make all names in the directory, and the directory itself, durable. Callers at the same time
 * share the work. Suspends. */
MUST_CHECK int vv_dir_node_sync(struct vv_dir *dir, struct vv_dir_node *node);

/* ---- dir_files.c ---- */

MUST_CHECK int vv_dir_files_init(struct vv_dir *dir);
void vv_dir_files_done(struct vv_dir *dir);
/* The object's file, opened for reading, with a reference. Suspends unless it is open already.
 * -ENOENT, -ENOMEM, -errno. */
MUST_CHECK int vv_dir_file_get(struct vv_dir *dir, const char *name, struct vv_dir_file **out_file);
void vv_dir_file_unref(struct vv_dir *dir, struct vv_dir_file *file);
/* The object has been removed: later gets must open it anew. */
void vv_dir_file_forget(struct vv_dir *dir, const char *name);

/* ---- dir_list.c ---- */

/* vv_store_list. */
MUST_CHECK ssize_t vv_dir_list(struct vv_dir *dir, const char *prefix, const char *after,
                               struct vv_store_entry *out_entries, size_t max);

#endif
