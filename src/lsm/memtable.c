#include "lsm/memtable_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "rt/rt.h"

struct vv_mem_chunk {
    struct vv_mem_chunk *next;
    size_t size; /* with this struct */
};

_Static_assert(sizeof(struct vv_mem_chunk) == VV_MEM_CHUNK_NODE_BYTES, "chunks hold 8-byte units");

#define SEGMENT_BYTES (VV_MEM_SEGMENT_BUCKETS * sizeof(void *))
#define FREE_CHUNKS_AT_ONCE 4
/* What one record takes at most besides its key and value: an entry, a version, sums, a commit, its
 * share of the hash table and the tree, and rounding. And what all records take besides. */
#define RECORD_BYTES                                                                               \
    (sizeof(struct vv_mem_entry) + sizeof(struct vv_mem_version) + sizeof(struct vv_mem_sums) +    \
     sizeof(struct vv_mem_commit) + sizeof(void *) + VV_MEM_TREE_ENTRY_BYTES + 32)
#define RESERVE_BYTES (SEGMENT_BYTES + VV_MEM_TREE_BYTES)

/* ---- arena ---- */

static size_t round_up(size_t len)
{
    return (len + 7) & ~(size_t)7;
}

static struct vv_mem_chunk *chunk_new(struct vv_memtable *mem, size_t size)
{
    struct vv_mem_chunk *chunk = vv_alloc(size);
    if (!chunk)
        return NULL;
    chunk->size = size;
    mem->bytes += size;
    vv_budget_charge(mem->budget, size);
    return chunk;
}

static void chunk_free(struct vv_memtable *mem, struct vv_mem_chunk *chunk)
{
    mem->bytes -= chunk->size;
    vv_budget_release(mem->budget, chunk->size);
    vv_free(chunk);
}

static void chunk_use(struct vv_memtable *mem, struct vv_mem_chunk *chunk)
{
    chunk->next = mem->chunks;
    mem->chunks = chunk;
    mem->free_ptr = (uint8_t *)(chunk + 1);
    mem->free_len = chunk->size - sizeof(*chunk);
}

/* What a reserve promised is either in the current chunk or, as a whole, in the spare one. */
static void *arena_alloc(struct vv_memtable *mem, size_t len)
{
    len = round_up(len);
    if (mem->free_len < len && mem->spare) {
        chunk_use(mem, mem->spare);
        mem->spare = NULL;
    }
    if (mem->free_len < len)
        return NULL;
    void *ptr = mem->free_ptr;
    mem->free_ptr += len;
    mem->free_len -= len;
    return ptr;
}

void *vv_memtable_alloc(struct vv_memtable *mem, size_t len)
{
    void *ptr = arena_alloc(mem, len);
    assert(ptr); /* a write without a reserve */
    return ptr;
}

int vv_memtable_reserve(struct vv_memtable *mem, size_t records, size_t bytes)
{
    size_t need = 0;
    if (__builtin_mul_overflow(records, RECORD_BYTES, &need) ||
        __builtin_add_overflow(need, RESERVE_BYTES + bytes + bytes / 2, &need) ||
        need > SIZE_MAX / 2)
        return -ENOMEM;
    if (mem->free_len >= need)
        return 0;
    size_t size = need + sizeof(struct vv_mem_chunk);
    if (mem->spare && mem->spare->size >= size)
        return 0;
    /* Chunks grow with the memtable, so that a small one stays small. */
    size_t usual = VV_MEM_CHUNK_MIN;
    while (usual < mem->bytes / 4 && usual < VV_MEM_CHUNK_MAX)
        usual *= 2;
    struct vv_mem_chunk *chunk = chunk_new(mem, size > usual ? size : usual);
    if (!chunk)
        return -ENOMEM;
    if (mem->spare)
        chunk_free(mem, mem->spare);
    mem->spare = chunk;
    return 0;
}

void vv_memtable_seal(struct vv_memtable *mem)
{
    mem->is_sealed = true;
    if (mem->spare)
        chunk_free(mem, mem->spare);
    mem->spare = NULL;
}

/* ---- life ---- */

static int memtable_init(struct vv_memtable *mem)
{
    TRY(vv_memtable_reserve(mem, 4, 4096));
    mem->head = vv_memtable_alloc(mem, sizeof(*mem->head));
    memset(mem->head, 0, sizeof(*mem->head));
    mem->segments[0] = vv_memtable_alloc(mem, SEGMENT_BYTES);
    memset(mem->segments[0], 0, SEGMENT_BYTES);
    mem->bucket_count = VV_MEM_SEGMENT_BUCKETS;
    return 0;
}

int vv_memtable_new(struct vv_budget *budget, struct vv_memtable **out_mem)
{
    struct vv_memtable *mem = vv_zalloc(sizeof(*mem));
    if (!mem)
        return -ENOMEM;
    vv_list_init(&mem->link);
    mem->refs = 1;
    mem->last_commit = UINT64_MAX;
    mem->budget = budget;
    mem->seed = vv_rt_random_u64();
    int err = memtable_init(mem);
    if (err < 0) {
        vv_memtable_unref(mem);
        return err;
    }
    *out_mem = mem;
    return 0;
}

void vv_memtable_ref(struct vv_memtable *mem)
{
    mem->refs++;
}

/* Giving megabytes back takes the kernel a while, which is a worker's. */
struct free_job {
    struct vv_mem_chunk *chunks;
};

static void free_some(void *arg)
{
    struct free_job *job = arg;
    for (unsigned i = 0; i < FREE_CHUNKS_AT_ONCE && job->chunks; i++) {
        struct vv_mem_chunk *next = job->chunks->next;
        vv_free(job->chunks);
        job->chunks = next;
    }
}

static void free_chunks(void *arg)
{
    struct free_job job = {arg};
    while (job.chunks)
        vv_rt_offload(free_some, &job);
}

static void free_chunks_now(struct vv_mem_chunk *chunk)
{
    while (chunk) {
        struct vv_mem_chunk *next = chunk->next;
        vv_free(chunk);
        chunk = next;
    }
}

void vv_memtable_unref(struct vv_memtable *mem)
{
    if (!mem || --mem->refs > 0)
        return;
    vv_memtable_seal(mem);
    bool is_large = mem->bytes > VV_MEM_FREE_NOW_MAX;
    vv_budget_release(mem->budget, mem->bytes);
    if (!is_large || !vv_fiber_self() || vv_fiber_start(free_chunks, mem->chunks, "lsm free") < 0)
        free_chunks_now(mem->chunks);
    vv_free(mem);
}

/* ---- index: linear hashing, one bucket more for each entry more, so that no write is slow ---- */

static struct vv_mem_entry **bucket_at(const struct vv_memtable *mem, size_t index)
{
    return &mem->segments[index / VV_MEM_SEGMENT_BUCKETS][index % VV_MEM_SEGMENT_BUCKETS];
}

/* Names come from users: the seed keeps them from choosing the chain and the height. */
static uint64_t spread(const struct vv_memtable *mem, uint64_t hash)
{
    return vv_mix64(hash ^ mem->seed);
}

/* The largest power of two that is not above the number of buckets. */
static size_t half_of(size_t bucket_count)
{
    return (size_t)1 << (63 - __builtin_clzll(bucket_count));
}

static struct vv_mem_entry **bucket_of(const struct vv_memtable *mem, uint64_t mixed)
{
    size_t half = half_of(mem->bucket_count);
    size_t index = mixed & (2 * half - 1);
    if (index >= mem->bucket_count)
        index -= half;
    return bucket_at(mem, index);
}

static void grow_index(struct vv_memtable *mem)
{
    size_t added = mem->bucket_count;
    size_t segment = added / VV_MEM_SEGMENT_BUCKETS;
    if (segment >= VV_MEM_SEGMENTS_MAX)
        return;
    if (!mem->segments[segment]) {
        struct vv_mem_entry **buckets = arena_alloc(mem, SEGMENT_BYTES);
        if (!buckets)
            return;
        memset(buckets, 0, SEGMENT_BYTES);
        mem->segments[segment] = buckets;
    }
    size_t half = half_of(added);
    mem->bucket_count++;
    struct vv_mem_entry **link = bucket_at(mem, added - half);
    struct vv_mem_entry **to = bucket_at(mem, added);
    while (*link) {
        struct vv_mem_entry *entry = *link;
        if ((spread(mem, entry->hash) & (2 * half - 1)) != added) {
            link = &entry->hash_next;
            continue;
        }
        *link = entry->hash_next;
        entry->hash_next = *to;
        *to = entry;
    }
}

struct vv_mem_entry *vv_memtable_find(const struct vv_memtable *mem, uint64_t hash,
                                      struct vv_bytes key)
{
    struct vv_mem_entry *entry = *bucket_of(mem, spread(mem, hash));
    for (; entry; entry = entry->hash_next) {
        if (entry->hash == hash && entry->key_len == key.len &&
            memcmp(vv_mem_entry_key(entry).ptr, key.ptr, key.len) == 0)
            return entry;
    }
    return NULL;
}

struct vv_mem_entry *vv_memtable_before(const struct vv_memtable *mem, struct vv_bytes key)
{
    struct vv_mem_entry *before = vv_mem_tree_before(&mem->tree, key);
    return before ? before : mem->head;
}

static struct vv_mem_entry *insert_entry(struct vv_memtable *mem, uint64_t hash,
                                         struct vv_bytes key)
{
    struct vv_mem_entry *entry = vv_memtable_alloc(mem, sizeof(*entry) + key.len);
    entry->hash = hash;
    entry->newest = NULL;
    entry->key_len = (uint16_t)key.len;
    memcpy(entry->key, key.ptr, key.len);
    struct vv_mem_entry *before = vv_mem_tree_add(mem, entry);
    if (!before)
        before = mem->head;
    entry->next = before->next;
    before->next = entry;
    mem->entry_count++;
    if (mem->entry_count > mem->bucket_count)
        grow_index(mem);
    struct vv_mem_entry **bucket = bucket_of(mem, spread(mem, hash));
    entry->hash_next = *bucket;
    *bucket = entry;
    return entry;
}

/* ---- commits ---- */

const struct vv_mem_commit *vv_memtable_commit(const struct vv_memtable *mem, uint64_t number)
{
    const struct vv_mem_commit *commit = mem->commits;
    while (commit && commit->number > number)
        commit = commit->older;
    return commit && commit->number == number ? commit : NULL;
}

static struct vv_mem_commit *commit_get(struct vv_memtable *mem, uint64_t number)
{
    struct vv_mem_commit **link = &mem->commits;
    while (*link && (*link)->number > number)
        link = &(*link)->older;
    if (*link && (*link)->number == number)
        return *link;
    struct vv_mem_commit *commit = vv_memtable_alloc(mem, sizeof(*commit));
    *commit = (struct vv_mem_commit){.older = *link, .number = number};
    *link = commit;
    return commit;
}

/* ---- versions ---- */

struct vv_mem_version *vv_mem_version_at(const struct vv_mem_entry *entry, uint64_t commit)
{
    struct vv_mem_version *version = entry->newest;
    while (version && version->commit > commit)
        version = version->older;
    return version;
}

/* What a merge on top of a version begins with. */
struct base {
    int64_t a, b;
    bool is_complete;
};

static struct base base_of(const struct vv_mem_version *version)
{
    struct base base = {0, 0, false};
    if (!version)
        return base;
    base.is_complete = version->is_complete;
    if (version->kind == VV_LSM_MERGE) {
        base.a = version->sums->total_a;
        base.b = version->sums->total_b;
    } else if (version->kind == VV_LSM_PUT) {
        struct vv_bytes value = {version->value, version->value_len};
        if (vv_sums_decode(value, &base.a, &base.b) < 0)
            base.a = base.b = 0; /* not a sum: by contract nobody merges onto it */
    }
    return base;
}

static void total_up(struct vv_mem_version *version, struct base base)
{
    version->sums->total_a = vv_sum(version->sums->own_a, base.a);
    version->sums->total_b = vv_sum(version->sums->own_b, base.b);
    version->is_complete = base.is_complete;
}

/* `changed` is new or has another content: the merges above it, up to the first version that does
 * not depend on it, change by the difference. */
static void fix_newer(struct vv_mem_version *newest, struct vv_mem_version *changed,
                      struct base before)
{
    if (newest == changed)
        return;
    struct vv_mem_version *first = newest;
    for (struct vv_mem_version *at = newest; at != changed; at = at->older) {
        if (at->kind != VV_LSM_MERGE || at->is_reset)
            first = at->older;
    }
    if (first == changed)
        return;
    struct base after = base_of(changed);
    for (struct vv_mem_version *at = first; at != changed; at = at->older) {
        struct vv_mem_sums *sums = at->sums;
        sums->total_a = vv_sum(sums->total_a, vv_difference(after.a, before.a));
        sums->total_b = vv_sum(sums->total_b, vv_difference(after.b, before.b));
        at->is_complete = after.is_complete;
    }
}

/* The record of (key, commit), made if it is not there. */
static struct vv_mem_version *version_get(struct vv_memtable *mem, uint64_t commit, uint64_t hash,
                                          struct vv_bytes key, bool *out_is_new)
{
    assert(!mem->is_sealed);
    assert(key.len <= VV_LSM_KEY_MAX);
    mem->changes++;
    struct vv_mem_entry *entry = vv_memtable_find(mem, hash, key);
    if (!entry)
        entry = insert_entry(mem, hash, key);
    struct vv_mem_version **link = &entry->newest;
    while (*link && (*link)->commit > commit)
        link = &(*link)->older;
    *out_is_new = !*link || (*link)->commit != commit;
    if (!*out_is_new)
        return *link;
    struct vv_mem_version *version = vv_memtable_alloc(mem, sizeof(*version));
    *version = (struct vv_mem_version){.older = *link, .entry = entry, .commit = commit};
    *link = version;
    struct vv_mem_commit *owner = commit_get(mem, commit);
    if (owner->last)
        owner->last->commit_next = version;
    else
        owner->first = version;
    owner->last = version;
    owner->records++;
    owner->bytes += key.len;
    return version;
}

/* What stood at the place of a version before it was written. */
static struct base base_before(const struct vv_mem_version *version, bool is_new)
{
    return base_of(is_new ? version->older : version);
}

static size_t counted_len(const struct vv_mem_version *version)
{
    return version->kind == VV_LSM_MERGE ? VV_SUMS_LEN_MAX : version->value_len;
}

/* Space for `need` bytes; if there is less, `wanted` is made. Space stays with a version whatever
 * becomes of it: records are written again and again within a commit. */
static void make_space(struct vv_memtable *mem, struct vv_mem_version *version, size_t wanted,
                       size_t need)
{
    if (need <= version->capacity)
        return;
    size_t capacity = round_up(wanted);
    version->space = vv_memtable_alloc(mem, capacity);
    version->capacity = (uint32_t)capacity;
}

void vv_memtable_put(struct vv_memtable *mem, uint64_t commit, uint64_t hash, struct vv_bytes key,
                     struct vv_bytes value)
{
    assert(value.len <= VV_LSM_VALUE_MAX);
    bool is_new;
    struct vv_mem_version *version = version_get(mem, commit, hash, key, &is_new);
    bool is_top = version == version->entry->newest;
    struct base before = is_top ? (struct base){0, 0, false} : base_before(version, is_new);
    size_t old_len = counted_len(version);
    /* A record that has grown once is likely to grow again. */
    make_space(mem, version, is_new ? value.len : value.len + value.len / 2, value.len);
    version->kind = VV_LSM_PUT;
    version->is_reset = false;
    version->is_complete = true;
    version->value_len = (uint32_t)value.len;
    if (value.len)
        memcpy(version->value, value.ptr, value.len);
    commit_get(mem, commit)->bytes += value.len - old_len;
    if (!is_top)
        fix_newer(version->entry->newest, version, before);
}

void vv_memtable_delete(struct vv_memtable *mem, uint64_t commit, uint64_t hash,
                        struct vv_bytes key)
{
    bool is_new;
    struct vv_mem_version *version = version_get(mem, commit, hash, key, &is_new);
    struct base before = base_before(version, is_new);
    commit_get(mem, commit)->bytes -= counted_len(version);
    version->kind = VV_LSM_DELETE;
    version->is_reset = false;
    version->is_complete = true;
    version->value_len = 0;
    fix_newer(version->entry->newest, version, before);
}

void vv_memtable_merge(struct vv_memtable *mem, uint64_t commit, uint64_t hash, struct vv_bytes key,
                       int64_t a, int64_t b)
{
    bool is_new;
    struct vv_mem_version *version = version_get(mem, commit, hash, key, &is_new);
    struct base before = base_before(version, is_new);
    if (is_new || version->kind != VV_LSM_MERGE) {
        commit_get(mem, commit)->bytes += VV_SUMS_LEN_MAX - version->value_len;
        version->kind = VV_LSM_MERGE;
        version->is_reset = !is_new;
        version->value_len = 0;
        make_space(mem, version, sizeof(*version->sums), sizeof(*version->sums));
        version->sums->own_a = is_new ? 0 : before.a;
        version->sums->own_b = is_new ? 0 : before.b;
    }
    version->sums->own_a = vv_sum(version->sums->own_a, a);
    version->sums->own_b = vv_sum(version->sums->own_b, b);
    total_up(version, version->is_reset ? (struct base){0, 0, true} : base_of(version->older));
    fix_newer(version->entry->newest, version, before);
}

/* ---- sums ---- */

size_t vv_sums_encode(int64_t a, int64_t b, uint8_t out[VV_SUMS_LEN_MAX])
{
    struct vv_writer writer = vv_writer_of(out, VV_SUMS_LEN_MAX);
    vv_writer_svarint(&writer, a);
    vv_writer_svarint(&writer, b);
    return writer.len;
}

int vv_sums_decode(struct vv_bytes value, int64_t *out_a, int64_t *out_b)
{
    struct vv_cursor cursor = vv_cursor_of(value.ptr, value.len);
    int64_t a = vv_cursor_svarint(&cursor);
    int64_t b = vv_cursor_svarint(&cursor);
    TRY(vv_cursor_end(&cursor));
    *out_a = a;
    *out_b = b;
    return 0;
}
