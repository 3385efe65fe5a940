/* The bytes of a model's file: sparse, in blocks that are shared between copies of a model and
 * never changed while shared. A block that is missing is zeros; so is one that is all zeros. Plain
 * malloc, which the simulator does not track: a model survives the processes that it judges. */
#ifndef SIM_CONTENT_H
#define SIM_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONTENT_BLOCK 4096u

/* A 128-bit hash that adds: the hash of a set is the sum of its members'. */
struct hash {
    uint64_t a, b;
};
struct hash hash_bytes(const void *bytes, size_t len, uint64_t seed);
/* A hash of a hash and a number. */
struct hash hash_mix(struct hash hash, uint64_t value);
void hash_add(struct hash *sum, struct hash hash);
bool hash_equal(struct hash a, struct hash b);

struct content_block;
struct content {
    uint64_t size;
    struct content_slot {
        uint64_t index; /* offset / CONTENT_BLOCK */
        struct content_block *block;
    } * slots; /* ascending; owned */
    size_t count, capacity;
};

/* Zero-initialised = empty. */
void content_done(struct content *content);
void content_copy(const struct content *from, struct content *out_copy);
/* Bytes beyond the size are not read: returns how many were. */
size_t content_read(const struct content *content, uint64_t offset, void *buf, size_t len);
void content_write(struct content *content, uint64_t offset, const void *buf, size_t len);
/* Zeros without changing the size. */
void content_clear(struct content *content, uint64_t offset, uint64_t len);
void content_resize(struct content *content, uint64_t size);
/* Both need multiples of CONTENT_BLOCK. */
void content_collapse(struct content *content, uint64_t offset, uint64_t len);
void content_insert(struct content *content, uint64_t offset, uint64_t len);
/* Nothing but zeros in [offset, offset + len)? */
bool content_is_zero(const struct content *content, uint64_t offset, uint64_t len);
/* The first byte at or after `offset` of a block that is not zero; the size when there is none. */
uint64_t content_next_block(const struct content *content, uint64_t offset);
/* Of the bytes and the size. */
struct hash content_hash(const struct content *content);
/* Bytes in blocks. */
uint64_t content_held(const struct content *content);

#endif
