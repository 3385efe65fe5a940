#include "seal/keyring_impl.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "base/alloc.h"
#include "rt/rt.h"

#define KEYRING_HEAD_LEN 20
#define KEYRING_ENTRY_LEN 36

/* An empty ring. Whoever seals has one, so this is where libsodium learns what the processor can
 * do. */
static struct vv_keyring *ring_alloc(void)
{
    return sodium_init() < 0 ? NULL : vv_zalloc(sizeof(struct vv_keyring));
}

int vv_keyring_new(const uint8_t volume_id[16], struct vv_keyring **out_ring)
{
    struct vv_keyring *ring = ring_alloc();
    if (!ring)
        return -ENOMEM;
    memcpy(ring->volume_id, volume_id, sizeof(ring->volume_id));
    ring->count = 1;
    ring->keys[0].generation = 1;
    vv_rt_random(ring->keys[0].bytes, sizeof(ring->keys[0].bytes));
    *out_ring = ring;
    return 0;
}

void vv_keyring_free(struct vv_keyring *ring)
{
    if (!ring)
        return;
    sodium_memzero(ring, sizeof(*ring));
    vv_free(ring);
}

void vv_keyring_free_ptr(struct vv_keyring **ring)
{
    vv_keyring_free(*ring);
}

const uint8_t *vv_keyring_volume_id(const struct vv_keyring *ring)
{
    return ring->volume_id;
}

uint32_t vv_keyring_generation(const struct vv_keyring *ring)
{
    assert(ring->count > 0);
    return ring->keys[ring->count - 1].generation;
}

int vv_keyring_add_generation(struct vv_keyring *ring)
{
    uint32_t newest = vv_keyring_generation(ring);
    if (ring->count == VV_MASTER_KEYS_MAX || newest == UINT32_MAX)
        return -VV_ERR_LIMIT;
    struct vv_master_key *key = &ring->keys[ring->count];
    key->generation = newest + 1;
    vv_rt_random(key->bytes, sizeof(key->bytes));
    ring->count++;
    return 0;
}

const uint8_t *vv_keyring_key(const struct vv_keyring *ring, uint32_t generation)
{
    for (uint32_t i = ring->count; i > 0; i--) {
        if (ring->keys[i - 1].generation == generation)
            return ring->keys[i - 1].bytes;
    }
    return NULL;
}

size_t vv_keyring_encode(const struct vv_keyring *ring, uint8_t out[VV_KEYRING_LEN_MAX])
{
    struct vv_writer writer = vv_writer_of(out, VV_KEYRING_LEN_MAX);
    vv_writer_bytes(&writer, ring->volume_id, sizeof(ring->volume_id));
    vv_writer_u32(&writer, ring->count);
    for (uint32_t i = 0; i < ring->count; i++) {
        vv_writer_u32(&writer, ring->keys[i].generation);
        vv_writer_bytes(&writer, ring->keys[i].bytes, sizeof(ring->keys[i].bytes));
    }
    assert(!writer.is_bad);
    return writer.len;
}

bool vv_keyring_len_is_valid(size_t len)
{
    return len > KEYRING_HEAD_LEN && len <= VV_KEYRING_LEN_MAX &&
           (len - KEYRING_HEAD_LEN) % KEYRING_ENTRY_LEN == 0;
}

static int decode_keys(struct vv_cursor *cursor, struct vv_keyring *ring)
{
    vv_cursor_copy(cursor, ring->volume_id, sizeof(ring->volume_id));
    uint32_t count = vv_cursor_u32(cursor);
    if (count == 0 || count > VV_MASTER_KEYS_MAX)
        return -VV_ERR_FORMAT;
    uint32_t before = 0;
    for (uint32_t i = 0; i < count; i++) {
        ring->keys[i].generation = vv_cursor_u32(cursor);
        vv_cursor_copy(cursor, ring->keys[i].bytes, sizeof(ring->keys[i].bytes));
        if (ring->keys[i].generation <= before)
            return -VV_ERR_FORMAT;
        before = ring->keys[i].generation;
    }
    ring->count = count;
    return vv_cursor_end(cursor);
}

int vv_keyring_decode(const void *bytes, size_t len, struct vv_keyring **out_ring)
{
    if (!vv_keyring_len_is_valid(len))
        return -VV_ERR_FORMAT;
    CLEANUP(vv_keyring_free_ptr) struct vv_keyring *ring = ring_alloc();
    if (!ring)
        return -ENOMEM;
    struct vv_cursor cursor = vv_cursor_of(bytes, len);
    TRY(decode_keys(&cursor, ring));
    *out_ring = ring;
    ring = NULL;
    return 0;
}
