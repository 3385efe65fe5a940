/* Building one table in memory: records in key order become blocks, and each full block is sealed
 * at once. Pure computation: one thread at a time, any thread, never suspends. */
#ifndef VV_LSM_TABLE_BUILD_IMPL_H
#define VV_LSM_TABLE_BUILD_IMPL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/err.h"
#include "lsm/lsm.h"
#include "lsm/table_format.h"
#include "seal/seal.h"

struct vv_table_builder; /* opaque */

/* -ENOMEM. */
MUST_CHECK int vv_table_builder_new(const struct vv_keyring *ring,
                                    const struct vv_seal_settings *settings, uint64_t epoch,
                                    uint64_t counter, struct vv_table_builder **out_builder);
/* NULL is fine. */
void vv_table_builder_free(struct vv_table_builder *builder);
/* Keep plain copies of the blocks sealed from now on, as long as they are `bytes_max` together. */
void vv_table_builder_keep(struct vv_table_builder *builder, size_t bytes_max);
/* Add a record; keys ascend strictly. `hash` is vv_xxh3 of the key. -ENOMEM, -VV_ERR_LIMIT; then
 * only freeing is left. */
MUST_CHECK int vv_table_builder_add(struct vv_table_builder *builder, enum vv_lsm_kind kind,
                                    struct vv_bytes key, uint64_t hash, struct vv_bytes value);
/* Bytes of the object so far, with the plain bytes of the block begun; frames so far. */
size_t vv_table_builder_bytes(const struct vv_table_builder *builder);
uint32_t vv_table_builder_blocks(const struct vv_table_builder *builder);
uint64_t vv_table_builder_entries(const struct vv_table_builder *builder);
/* Seal the rest, the filter, the index and the trailer; at least one record was added. -ENOMEM. */
MUST_CHECK int vv_table_builder_finish(struct vv_table_builder *builder);

/* After finish: what was built. The object's bytes, the builder's. */
const struct iovec *vv_table_builder_iov(const struct vv_table_builder *builder, int *out_count);
const struct vv_object_header *vv_table_builder_header(const struct vv_table_builder *builder);
const struct vv_table_footer *vv_table_builder_footer(const struct vv_table_builder *builder);
/* Fill in bytes, entries and keys (vv_alloc'ed) of *ref. -ENOMEM. */
MUST_CHECK int vv_table_builder_ref(const struct vv_table_builder *builder,
                                    struct vv_table_ref *ref);
/* Hand over the sealer, and the plain filter and index. */
struct vv_sealer *vv_table_builder_take_sealer(struct vv_table_builder *builder);
uint8_t *vv_table_builder_take_filter(struct vv_table_builder *builder, size_t *out_len);
/* A plain block, if it was kept; else NULL. */
uint8_t *vv_table_builder_take_block(struct vv_table_builder *builder, uint32_t number,
                                     size_t *out_len);
uint8_t *vv_table_builder_take_index(struct vv_table_builder *builder, size_t *out_len);

#endif
