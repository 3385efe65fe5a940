/* Private to volume: an operation under way. */
#ifndef VV_VOLUME_OP_IMPL_H
#define VV_VOLUME_OP_IMPL_H

#include "base/hash.h"
#include "volume/volume_impl.h"

#define VV_OP_TOUCHES_MAX 16
#define VV_OP_FOLLOWS_MAX 8
#define VV_OP_DROPS_MAX (VV_OP_WRITES_MAX / 2)
#define VV_PLAN_ROUNDS_WARN 16
#define VV_RANGES_MAX 65536 /* tombstones in memory before writers wait for their reclaim */

/* Bytes or zeros to be put on an extent: as a new layer, or into the layer on top. Everything that needs
 * memory is made at staging, so that applying cannot fail. */
struct vv_staged_layer {
    struct vv_list node;
    struct vv_extent *extent;
    uint64_t data_id;
    uint64_t index;
    uint32_t from, to;
    uint8_t aside;             /* blocks of it that are set aside */
    const uint8_t *bytes;      /* the caller's; or */
    struct vv_payload *payload; /* ... from payload_at on; neither = zeros */
    size_t payload_at;
    bool is_handed;            /* the new layer has the payload's memory */
    struct vv_layer *layer;    /* a new layer to attach, or NULL */
    struct vv_layer *into;     /* else: the layer that the bytes go into, */
    struct vv_buf *larger_buf; /* with this buffer in place of its own, if given, */
    uint32_t larger_at;        /* whose first byte is this one of the extent */
};

struct vv_staged_range {
    struct vv_list node;
    struct vv_range *range;
    struct vv_data *data;
};

struct vv_op {
    struct vv_volume *volume;
    struct vv_writer keys; /* to be fetched: u16 length, key */
    size_t key_count;
    size_t miss_count;
    bool is_freeing; /* VV_OP_FREEING */
    bool is_commit_due; /* applied, and its commit is to begin */
    bool is_pinning; /* keys that are found are fetched too, when others are missed */
    struct {
        void (*fn)(struct vv_op *op, uint64_t arg);
        uint64_t arg;
    } follows[VV_OP_FOLLOWS_MAX];
    unsigned follow_count;
    struct vv_lsm_pins pins;
    struct vv_writer stage; /* records: u8 kind, u16 key length, u32 value length, key, value */
    unsigned record_count;
    struct vv_list layers; /* struct vv_staged_layer, in order */
    struct vv_list ranges;
    struct vv_touch *touches[VV_OP_TOUCHES_MAX];
    unsigned touch_count;
    struct {
        struct vv_data *data;
    } drops[VV_OP_DROPS_MAX];
    unsigned drop_count;
    size_t staged_bytes;
    bool is_aside; /* what is being staged lies in space that was set aside */
    /* An extent with too many layers: put one whole layer over them first, then plan again. */
    bool is_folding;
    uint64_t fold_data_id, fold_index;
};

/* What writers leave free of a bounded store (op.c). */
uint64_t vv_store_reserve(const struct vv_volume *volume);
void vv_op_init(struct vv_op *op, struct vv_volume *volume);
void vv_op_done(struct vv_op *op);
/* Forget the round before. */
void vv_op_begin_round(struct vv_op *op, bool is_pinning);
int vv_op_miss(struct vv_op *op, struct vv_bytes key);
MUST_CHECK int vv_op_fetch_missed(struct vv_op *op);
/* data_op.c */
void vv_op_drop_data(struct vv_op *op);
void vv_op_apply_data(struct vv_op *op);
MUST_CHECK int vv_op_fold(struct vv_op *op);

#endif
