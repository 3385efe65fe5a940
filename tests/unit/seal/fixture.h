/* What the tests of seal and segment share: a keyring whose keys are known, inputs, hex, and the
 * loop that lets the n-th allocation fail. */
#ifndef TESTS_UNIT_SEAL_FIXTURE_H
#define TESTS_UNIT_SEAL_FIXTURE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "seal/keyring_impl.h"
#include "tap.h"

/* Key generation g of this ring is 32 bytes of 0x40 + g; the volume id is 16 bytes of `volume`. */
static inline struct vv_keyring *fixture_ring(uint8_t volume, uint32_t generations)
{
    uint8_t volume_id[16];
    struct vv_keyring *ring = NULL;
    memset(volume_id, volume, sizeof(volume_id));
    if (vv_keyring_new(volume_id, &ring) < 0)
        abort();
    for (uint32_t i = 1; i < generations; i++) {
        if (vv_keyring_add_generation(ring) < 0)
            abort();
    }
    for (uint32_t i = 0; i < generations; i++)
        memset(ring->keys[i].bytes, (int)(0x41 + i), sizeof(ring->keys[i].bytes));
    return ring;
}

/* A header with a salt that is known. */
static inline struct vv_object_header fixture_header(const struct vv_keyring *ring, uint8_t kind,
                                                     uint8_t cipher)
{
    struct vv_object_header header = {
        .version = VV_FORMAT_VERSION,
        .kind = kind,
        .cipher = cipher,
        .key_generation = vv_keyring_generation(ring),
        .number = 0x1122334455667788u,
    };
    memcpy(header.volume_id, vv_keyring_volume_id(ring), sizeof(header.volume_id));
    for (size_t i = 0; i < sizeof(header.attempt_id); i++)
        header.attempt_id[i] = (uint8_t)(0xa0 + i);
    for (size_t i = 0; i < sizeof(header.salt); i++)
        header.salt[i] = (uint8_t)i;
    return header;
}

/* Fill the rest of a large input with copies of its beginning, farther apart than any small frame.
 */
static inline void fixture_repeat(uint8_t *out, size_t len, size_t filled)
{
    while (filled > 0 && filled < len) {
        size_t more = len - filled < filled ? len - filled : filled;
        memcpy(out + filled, out, more);
        filled += more;
    }
}

#define FIXTURE_REPEAT_LEN (1u << 20)

/* Bytes that no compressor shrinks, always the same ones. */
static inline void fixture_noise(uint8_t *out, size_t len, uint64_t seed)
{
    uint64_t state = seed * 2 + 1;
    size_t filled = len < FIXTURE_REPEAT_LEN ? len : FIXTURE_REPEAT_LEN;
    for (size_t i = 0; i < filled; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        out[i] = (uint8_t)(state >> 56);
    }
    fixture_repeat(out, len, filled);
}

/* Bytes that every compressor shrinks. */
static inline void fixture_text(uint8_t *out, size_t len)
{
    size_t filled = len < FIXTURE_REPEAT_LEN ? len : FIXTURE_REPEAT_LEN;
    for (size_t i = 0; i < filled; i++)
        out[i] = (uint8_t)("sediment, layer upon layer; "[i % 28] + (i / 28 % 7 == 3));
    fixture_repeat(out, len, filled);
}

/* Call fn(arg) with each allocation failing in turn until all succeed. fn returns an error; on
 * failure it must leave as many live allocations as before. */
static inline void fixture_fail_allocs(int (*fn)(void *arg), void *arg, const char *name)
{
    bool is_clean = true;
    int err = 0;
    int64_t n = 0;
    for (;; n++) {
        size_t live = vv_alloc_domain_count(0);
        vv_alloc_fail_at(n, false);
        err = fn(arg);
        bool has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_clean &= vv_alloc_domain_count(0) == live;
        if (!has_failed)
            break;
        is_clean &= err == -ENOMEM;
    }
    tap_ok(is_clean, "%s: each failing allocation is -ENOMEM and leaks nothing", name);
    tap_is_int(err, 0, "%s: succeeds when no allocation fails", name);
    tap_note("%s: %lld allocations", name, (long long)n);
}

#endif
