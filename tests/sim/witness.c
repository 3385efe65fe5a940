#include "witness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/list.h"
#include "content.h"
#include "seal/seal.h"

struct sealed {
    uint8_t salt[32];
    struct hash hash; /* of name and bytes */
    char name[64];    /* its beginning */
};

struct witness {
    struct sealed *table; /* by salt; open addressing, at most half full */
    size_t capacity, count;
    uint64_t puts;
    char fault[300];
};

struct watched {
    struct vv_store store;
    struct vv_store *inner;
    struct witness *witness;
};

struct witness *witness_new(void)
{
    struct witness *witness = calloc(1, sizeof(*witness));
    if (!witness)
        abort();
    return witness;
}

void witness_free(struct witness *witness)
{
    if (!witness)
        return;
    free(witness->table);
    free(witness);
}

const char *witness_fault(const struct witness *witness)
{
    return witness->fault[0] ? witness->fault : NULL;
}

uint64_t witness_count(const struct witness *witness)
{
    return witness->puts;
}

/* The place of a salt: the one that has it, or a free one. Names are never empty. */
static struct sealed *place_of(struct witness *witness, const uint8_t salt[32])
{
    uint64_t start;
    memcpy(&start, salt, sizeof(start));
    for (size_t i = 0;; i++) {
        struct sealed *sealed = &witness->table[(start + i) & (witness->capacity - 1)];
        if (!sealed->name[0] || memcmp(sealed->salt, salt, 32) == 0)
            return sealed;
    }
}

static void grow(struct witness *witness)
{
    if (2 * witness->count < witness->capacity)
        return;
    struct sealed *old = witness->table;
    size_t old_capacity = witness->capacity;
    witness->capacity = old_capacity ? 2 * old_capacity : 1024;
    witness->table = calloc(witness->capacity, sizeof(*witness->table));
    if (!witness->table)
        abort();
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i].name[0])
            *place_of(witness, old[i].salt) = old[i];
    }
    free(old);
}

static void look(struct witness *witness, const char *name, const struct iovec *iov, int count)
{
    uint8_t start[VV_OBJECT_HEADER_LEN] = {0};
    struct vv_object_header header;
    struct hash hash = hash_bytes(name, strlen(name), 11);
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        const uint8_t *bytes = iov[i].iov_base;
        for (size_t j = 0; j < iov[i].iov_len && len + j < sizeof(start); j++)
            start[len + j] = bytes[j];
        len += iov[i].iov_len;
        struct hash part = hash_bytes(bytes, iov[i].iov_len, 12);
        hash = hash_mix(hash_mix(hash, part.a), part.b);
    }
    witness->puts++;
    /* The keys object is not sealed by the master key; what has no header is a probe. */
    if (vv_object_header_decode(start, sizeof(start), &header) < 0 || header.kind == VV_KIND_KEYS)
        return;
    grow(witness);
    struct sealed *sealed = place_of(witness, header.salt);
    if (!sealed->name[0]) {
        memcpy(sealed->salt, header.salt, sizeof(sealed->salt));
        sealed->hash = hash;
        snprintf(sealed->name, sizeof(sealed->name), "%s", name);
        witness->count++;
    } else if (!hash_equal(sealed->hash, hash) && !witness->fault[0]) {
        snprintf(witness->fault, sizeof(witness->fault),
                 "%.100s and %.60s are different objects sealed with the same salt", name,
                 sealed->name);
    }
}

/* ---- the store ---- */

static struct watched *watched_of(struct vv_store *store)
{
    return vv_container_of(store, struct watched, store);
}

static int watched_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    look(watched_of(store)->witness, name, iov, count);
    return vv_store_put(watched_of(store)->inner, name, iov, count);
}

static ssize_t watched_get(struct vv_store *store, const char *name, void *buf, size_t len,
                           uint64_t offset)
{
    return vv_store_get(watched_of(store)->inner, name, buf, len, offset);
}

static int watched_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    return vv_store_size(watched_of(store)->inner, name, out_size);
}

static ssize_t watched_list(struct vv_store *store, const char *prefix, const char *after,
                            struct vv_store_entry *out_entries, size_t max)
{
    return vv_store_list(watched_of(store)->inner, prefix, after, out_entries, max);
}

static int watched_remove(struct vv_store *store, const char *name)
{
    return vv_store_remove(watched_of(store)->inner, name);
}

static int watched_sync(struct vv_store *store, const char *name)
{
    return vv_store_sync(watched_of(store)->inner, name);
}

static int watched_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total)
{
    return vv_store_space(watched_of(store)->inner, out_free, out_total);
}

static void watched_close(struct vv_store *store)
{
    struct watched *watched = watched_of(store);
    vv_store_close(watched->inner);
    vv_free(watched);
}

static const struct vv_store_ops watched_ops = {
    .type = "witness",
    .put = watched_put,
    .get = watched_get,
    .size = watched_size,
    .list = watched_list,
    .remove = watched_remove,
    .sync = watched_sync,
    .space = watched_space,
    .close = watched_close,
};

int witness_open(struct witness *witness, struct vv_store *inner, struct vv_store **out_store)
{
    struct watched *watched = vv_zalloc(sizeof(*watched));
    if (!watched)
        return -ENOMEM;
    watched->store.ops = &watched_ops;
    watched->inner = inner;
    watched->witness = witness;
    *out_store = &watched->store;
    return 0;
}
