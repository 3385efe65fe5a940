#include "content.h"

#include <stdlib.h>
#include <string.h>

struct content_block {
    unsigned refs;
    bool is_hashed;
    struct hash hash; /* of the bytes; zero for zeros */
    uint8_t bytes[CONTENT_BLOCK];
};

static const uint8_t zeros[CONTENT_BLOCK];

/* ---- hashes ---- */

static uint64_t multiply(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* In the manner of wyhash: two chains of multiplications over 16 bytes a step. */
struct hash hash_bytes(const void *bytes, size_t len, uint64_t seed)
{
    const uint8_t *at = bytes;
    uint64_t a = seed ^ 0xa0761d6478bd642full;
    uint64_t b = multiply(seed ^ 0xe7037ed1a0b428dbull, len ^ 0x8ebc6af09c88c6e3ull);
    uint64_t word[2];
    for (size_t left = len; left > 0;) {
        size_t step = left < 16 ? left : 16;
        word[0] = word[1] = 0;
        memcpy(word, at, step);
        a = multiply(word[0] ^ 0x589965cc75374cc3ull, word[1] ^ a);
        b = multiply(word[1] ^ 0x1d8e4e27c47d124full, word[0] ^ b);
        at += step;
        left -= step;
    }
    return (struct hash){multiply(a ^ len, 0xeb44accab455d165ull), multiply(b, a | 1)};
}

struct hash hash_mix(struct hash hash, uint64_t value)
{
    uint64_t words[3] = {hash.a, hash.b, value};
    return hash_bytes(words, sizeof(words), 7);
}

void hash_add(struct hash *sum, struct hash hash)
{
    sum->a += hash.a;
    sum->b += hash.b;
}

bool hash_equal(struct hash a, struct hash b)
{
    return a.a == b.a && a.b == b.b;
}

/* ---- blocks ---- */

static struct content_block *block_new(void)
{
    struct content_block *block = calloc(1, sizeof(*block));
    if (!block)
        abort();
    block->refs = 1;
    return block;
}

static void block_unref(struct content_block *block)
{
    if (--block->refs == 0)
        free(block);
}

static struct hash block_hash(struct content_block *block)
{
    if (!block->is_hashed) {
        block->is_hashed = true;
        block->hash = memcmp(block->bytes, zeros, CONTENT_BLOCK) == 0
                          ? (struct hash){0, 0}
                          : hash_bytes(block->bytes, CONTENT_BLOCK, 1);
    }
    return block->hash;
}

/* The first slot whose index is not below `index`. */
static size_t lower_bound(const struct content *content, uint64_t index)
{
    size_t low = 0;
    size_t high = content->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (content->slots[middle].index < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct content_block *find(const struct content *content, uint64_t index)
{
    size_t slot = lower_bound(content, index);
    bool is_there = slot < content->count && content->slots[slot].index == index;
    return is_there ? content->slots[slot].block : NULL;
}

/* A block of its own for `index`, to be changed. */
static struct content_block *own(struct content *content, uint64_t index)
{
    size_t slot = lower_bound(content, index);
    if (slot == content->count || content->slots[slot].index != index) {
        if (content->count == content->capacity) {
            content->capacity = 2 * content->capacity + 8;
            content->slots = realloc(content->slots, content->capacity * sizeof(*content->slots));
            if (!content->slots)
                abort();
        }
        memmove(content->slots + slot + 1, content->slots + slot,
                (content->count - slot) * sizeof(*content->slots));
        content->slots[slot] = (struct content_slot){index, block_new()};
        content->count++;
    }
    struct content_block *block = content->slots[slot].block;
    if (block->refs > 1) {
        struct content_block *copy = block_new();
        memcpy(copy->bytes, block->bytes, CONTENT_BLOCK);
        block->refs--;
        content->slots[slot].block = block = copy;
    }
    block->is_hashed = false;
    return block;
}

/* Forget the slots [from, to). */
static void drop_slots(struct content *content, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        block_unref(content->slots[i].block);
    if (to > from)
        memmove(content->slots + from, content->slots + to,
                (content->count - to) * sizeof(*content->slots));
    content->count -= to - from;
}

/* ---- contents ---- */

void content_done(struct content *content)
{
    drop_slots(content, 0, content->count);
    free(content->slots);
    memset(content, 0, sizeof(*content));
}

void content_copy(const struct content *from, struct content *out_copy)
{
    *out_copy = *from;
    out_copy->capacity = from->count;
    out_copy->slots = NULL;
    if (from->count == 0)
        return;
    out_copy->slots = malloc(from->count * sizeof(*from->slots));
    if (!out_copy->slots)
        abort();
    memcpy(out_copy->slots, from->slots, from->count * sizeof(*from->slots));
    for (size_t i = 0; i < from->count; i++)
        from->slots[i].block->refs++;
}

size_t content_read(const struct content *content, uint64_t offset, void *buf, size_t len)
{
    if (offset >= content->size)
        return 0;
    if (len > content->size - offset)
        len = content->size - offset;
    uint8_t *out = buf;
    for (size_t done = 0; done < len;) {
        size_t from = (offset + done) % CONTENT_BLOCK;
        size_t step = CONTENT_BLOCK - from < len - done ? CONTENT_BLOCK - from : len - done;
        const struct content_block *block = find(content, (offset + done) / CONTENT_BLOCK);
        memcpy(out + done, block ? block->bytes + from : zeros, step);
        done += step;
    }
    return len;
}

void content_write(struct content *content, uint64_t offset, const void *buf, size_t len)
{
    const uint8_t *bytes = buf;
    for (size_t done = 0; done < len;) {
        size_t from = (offset + done) % CONTENT_BLOCK;
        size_t step = CONTENT_BLOCK - from < len - done ? CONTENT_BLOCK - from : len - done;
        struct content_block *block = own(content, (offset + done) / CONTENT_BLOCK);
        memcpy(block->bytes + from, bytes + done, step);
        done += step;
    }
    if (len > 0 && content->size < offset + len)
        content->size = offset + len;
}

/* Zero a part of one block. */
static void clear_part(struct content *content, uint64_t offset, size_t len)
{
    if (len > 0 && find(content, offset / CONTENT_BLOCK))
        memset(own(content, offset / CONTENT_BLOCK)->bytes + offset % CONTENT_BLOCK, 0, len);
}

void content_clear(struct content *content, uint64_t offset, uint64_t len)
{
    uint64_t end = offset + len < offset ? UINT64_MAX : offset + len;
    uint64_t first = offset / CONTENT_BLOCK + (offset % CONTENT_BLOCK != 0);
    uint64_t last = end / CONTENT_BLOCK;
    if (first > last) {
        clear_part(content, offset, end - offset);
        return;
    }
    clear_part(content, offset, first * CONTENT_BLOCK - offset);
    clear_part(content, last * CONTENT_BLOCK, end % CONTENT_BLOCK);
    drop_slots(content, lower_bound(content, first), lower_bound(content, last));
}

void content_resize(struct content *content, uint64_t size)
{
    if (size < content->size)
        content_clear(content, size, UINT64_MAX - size);
    content->size = size;
}

void content_collapse(struct content *content, uint64_t offset, uint64_t len)
{
    uint64_t from = offset / CONTENT_BLOCK;
    uint64_t to = (offset + len) / CONTENT_BLOCK;
    drop_slots(content, lower_bound(content, from), lower_bound(content, to));
    for (size_t i = lower_bound(content, from); i < content->count; i++)
        content->slots[i].index -= to - from;
    content->size -= len;
}

void content_insert(struct content *content, uint64_t offset, uint64_t len)
{
    for (size_t i = lower_bound(content, offset / CONTENT_BLOCK); i < content->count; i++)
        content->slots[i].index += len / CONTENT_BLOCK;
    content->size += len;
}

bool content_is_zero(const struct content *content, uint64_t offset, uint64_t len)
{
    uint8_t bytes[CONTENT_BLOCK];
    uint64_t end = offset + len < content->size ? offset + len : content->size;
    while ((offset = content_next_block(content, offset)) < end) {
        uint64_t step = CONTENT_BLOCK - offset % CONTENT_BLOCK;
        if (step > end - offset)
            step = end - offset;
        size_t got = content_read(content, offset, bytes, step);
        if (memcmp(bytes, zeros, got) != 0)
            return false;
        offset += step;
    }
    return true;
}

uint64_t content_next_block(const struct content *content, uint64_t offset)
{
    for (size_t i = lower_bound(content, offset / CONTENT_BLOCK); i < content->count; i++) {
        struct hash hash = block_hash(content->slots[i].block);
        uint64_t start = content->slots[i].index * CONTENT_BLOCK;
        if (hash.a || hash.b)
            return start > offset ? start : offset;
    }
    return content->size > offset ? content->size : offset;
}

struct hash content_hash(const struct content *content)
{
    struct hash sum = {0, 0};
    for (size_t i = 0; i < content->count; i++) {
        struct hash hash = block_hash(content->slots[i].block);
        if (hash.a || hash.b)
            hash_add(&sum, hash_mix(hash, content->slots[i].index));
    }
    return hash_mix(sum, content->size);
}

uint64_t content_held(const struct content *content)
{
    return content->count * (uint64_t)CONTENT_BLOCK;
}
