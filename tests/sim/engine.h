/* Operations on the engine, through fs.h alone. Everything here suspends. */
#ifndef SIM_ENGINE_H
#define SIM_ENGINE_H

#include "expect.h"
#include "fs/fs.h"
#include "model.h"
#include "op.h"

/* One owner's way to the engine. */
struct engine {
    struct vv_fs *fs;
    struct vv_handle *handles[OP_HANDLES_MAX];
    const char *prefix; /* of this owner's names in its hidden root */
    uint32_t hidden;    /* its hidden root, and its file that is shared: model's numbers */
    uint32_t region;
    uint64_t region_offset; /* where in the shared file its bytes begin */
    uint8_t *bytes;         /* OP_XATTR_MAX and OP_DATA_MAX fit; the caller's */
    struct vv_fs_reply reply; /* kept with the next operation that can; see engine_ask */
};

/* The next operation is `owner`'s, called at the event `called`: a name that no other ever has. */
void engine_ask(struct engine *engine, unsigned owner, uint64_t called);
/* The reverse. */
void engine_asked(const struct vv_fs_reply *reply, unsigned *out_owner, uint64_t *out_called);

/* Do an operation that changes something; `model` is as it was before. 0, or the engine's error.
 * *out_value: bytes written or copied; *out_real: the inode made or opened. */
int engine_apply(struct engine *engine, const struct model *model, const struct op *op,
                 uint64_t *out_value, uint64_t *out_real);
/* Do one that reads (not a sync). sight->err is the errno class; the engine's own error is
 * returned. */
int engine_look(struct engine *engine, const struct model *model, const struct op *op,
                struct sight *sight);
void engine_release_all(struct engine *engine);

/* What engine_walk needs to know of one owner. */
struct engine_part {
    char root[64];          /* its own directory */
    char prefix[16];        /* its names in the shared directory */
    uint64_t region_offset; /* its bytes of the shared file */
    uint64_t region_bytes;  /* 0 = none */
    struct model_dump dump; /* what is there */
};
#define SHARED_DIR "/shared"
#define SHARED_FILE "/shared/file"

/* Walk the whole tree into the parts' dumps, which are replaced. Each call that fails is repeated
 * up to `tries` times, with a pause. 0, or an error, or -VV_ERR_CORRUPT with a text when the tree
 * contradicts itself. */
int engine_walk(struct vv_fs *fs, struct engine_part *parts, unsigned count, unsigned tries,
                char *text, size_t size);
/* The inode of an absolute path. */
int engine_resolve(struct vv_fs *fs, const char *path, struct vv_attr *out_attr);

extern const struct vv_fs_call engine_call; /* who asks: uid 0 */

#endif
