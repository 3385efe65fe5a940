/* Private to store: what its parts share. */
#ifndef VV_STORE_STORE_IMPL_H
#define VV_STORE_STORE_IMPL_H

#include "store/store.h"

/* Is `name` an object name as store.h describes it? */
bool vv_store_name_is_valid(const char *name);

/* Bytes in `count` buffers. */
uint64_t vv_store_iov_bytes(const struct iovec *iov, int count);

/* ---- between mem and fault ---- */

/* Whether `store` is a mem store itself (not a wrapper around one). */
bool vv_store_is_mem(const struct vv_store *store);

/* Put `name` when the clock reaches `due_ns`, unless it is there by then. The bytes are copied and
 * belong to the backend, so this happens even when the process that asked is gone. Does not
 * suspend. -ENOMEM. */
MUST_CHECK int vv_store_mem_put_late(struct vv_store *store, const char *name,
                                     const struct iovec *iov, int count, uint64_t due_ns);

/* When `name` was created (vv_rt_now_ns time), 0 when it is not there. Does not suspend. */
uint64_t vv_store_mem_created_ns(struct vv_store *store, const char *name);

#endif
