#include "segment/run_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"

#define STUBBORN_BYTES (16u << 10) /* a frame so long says what the next ones will be like */
#define STUBBORN_MIN 16            /* after so many in a row that did not become shorter, ... */
#define STUBBORN_TRIED 8           /* ... each so many-th is tried */
#define DIRECTORY_CAPACITY_MIN 128
/* A run of fewer bytes is copied when appended, so that small parts do not make many buffers. */
#define COPY_MAX (64u << 10)

void vv_run_init(struct vv_run *run, uint32_t first_index, size_t chunk_len)
{
    assert(chunk_len > sizeof(struct vv_chunk) && chunk_len <= VV_CHUNK_BYTES_MAX);
    *run = (struct vv_run){
        .first_index = first_index,
        .next_chunk_len = chunk_len,
        .directory_len = VV_DIRECTORY_COUNT_MAX,
    };
    vv_list_init(&run->chunks);
}

void vv_run_done(struct vv_run *run)
{
    if (!run->chunks.next)
        return; /* never initialised */
    vv_list_each_safe (node, &run->chunks) {
        vv_list_remove(node);
        vv_free(vv_list_entry(node, struct vv_chunk, link));
    }
    vv_free(run->directory);
    run->directory = NULL;
}

struct vv_chunk *vv_run_reserve(struct vv_run *run, size_t len, size_t min_len)
{
    struct vv_chunk *last = NULL;
    if (!vv_list_is_empty(&run->chunks))
        last = vv_list_last(&run->chunks, struct vv_chunk, link);
    if (last && last->capacity - last->len >= len)
        return last;
    size_t chunk_len = sizeof(struct vv_chunk) + len;
    if (chunk_len < min_len)
        chunk_len = min_len;
    struct vv_chunk *chunk = vv_alloc(chunk_len);
    if (!chunk)
        return NULL;
    chunk->len = 0;
    chunk->capacity = chunk_len - sizeof(struct vv_chunk);
    chunk->bytes = (uint8_t *)(chunk + 1);
    vv_list_push_back(&run->chunks, &chunk->link);
    run->chunk_count++;
    return chunk;
}

/* As vv_run_reserve, each new chunk being twice as long as the one before. */
static struct vv_chunk *reserve_growing(struct vv_run *run, size_t len)
{
    size_t chunk_count = run->chunk_count;
    struct vv_chunk *chunk = vv_run_reserve(run, len, run->next_chunk_len);
    if (run->chunk_count > chunk_count && run->next_chunk_len < VV_CHUNK_BYTES_MAX)
        run->next_chunk_len *= 2;
    return chunk;
}

/* Room for `len` more bytes of directory. */
static int reserve_directory(struct vv_run *run, size_t len)
{
    size_t need = run->directory_len + len;
    if (need <= run->directory_capacity)
        return 0;
    size_t capacity = run->directory_capacity * 2;
    if (capacity < DIRECTORY_CAPACITY_MIN)
        capacity = DIRECTORY_CAPACITY_MIN;
    if (capacity < need)
        capacity = need;
    uint8_t *directory = vv_realloc(run->directory, capacity);
    if (!directory)
        return -ENOMEM;
    run->directory = directory;
    run->directory_capacity = capacity;
    return 0;
}

static void add_entry(struct vv_run *run, const struct vv_origin *origin, size_t len,
                      size_t plain_len)
{
    struct vv_writer writer = vv_writer_of(run->directory + run->directory_len,
                                           run->directory_capacity - run->directory_len);
    vv_writer_varint(&writer, origin->data_id);
    vv_writer_varint(&writer, origin->extent);
    vv_writer_varint(&writer, len);
    vv_writer_varint(&writer, plain_len);
    assert(!writer.is_bad);
    run->directory_len += writer.len;
}

/* Whether the run, with so much more, still makes a segment within the limits: header, frames,
 * directory and footer. */
static bool has_room(const struct vv_run *run, uint32_t count, size_t bytes, size_t directory_len)
{
    uint64_t index_end = (uint64_t)run->first_index + run->count + count;
    size_t sealed_directory_len = vv_frame_bound(run->directory_len + directory_len);
    size_t total =
        VV_OBJECT_HEADER_LEN + run->bytes + bytes + sealed_directory_len + VV_SEGMENT_FOOTER_LEN;
    return index_end <= VV_SEGMENT_FRAMES_MAX && total <= VV_SEGMENT_BYTES_MAX;
}

/* Bytes that do not become shorter come in stretches: behind a row of them only some are tried. */
static ssize_t seal(struct vv_run *run, const struct vv_sealer *sealer,
                    const struct vv_origin *origin, struct vv_bytes plain, struct vv_chunk *chunk)
{
    uint8_t *out = chunk->bytes + chunk->len;
    size_t room = chunk->capacity - chunk->len;
    uint32_t index = run->first_index + run->count;
    bool is_long = plain.len >= STUBBORN_BYTES;
    if (is_long && run->stubborn_count >= STUBBORN_MIN && index % STUBBORN_TRIED != 0)
        return vv_frame_seal_as(sealer, VV_COMPRESSION_NONE, index, origin, plain.ptr, plain.len,
                                out, room);
    ssize_t len = vv_frame_seal(sealer, index, origin, plain.ptr, plain.len, out, room);
    if (len >= 0 && is_long)
        run->stubborn_count = out[0] == VV_COMPRESSION_NONE ? run->stubborn_count + 1 : 0;
    return len;
}

/* Room for one more frame of at most `bound` bytes; NULL when there is no memory. */
static struct vv_chunk *reserve_frame(struct vv_run *run, size_t bound)
{
    if (reserve_directory(run, VV_DIRECTORY_ENTRY_MAX) < 0)
        return NULL;
    return reserve_growing(run, bound);
}

/* A frame of `len` bytes was sealed into the room of `chunk`. */
static void take_frame(struct vv_run *run, struct vv_chunk *chunk, const struct vv_origin *origin,
                       size_t len, size_t plain_len, struct vv_frame_loc *out_loc)
{
    add_entry(run, origin, len, plain_len);
    out_loc->index = run->first_index + run->count;
    out_loc->offset = (uint32_t)run->bytes;
    out_loc->len = (uint32_t)len;
    chunk->len += len;
    run->bytes += len;
    run->count++;
}

int vv_run_add(struct vv_run *run, const struct vv_sealer *sealer, const struct vv_origin *origin,
               const void *plain, size_t plain_len, struct vv_frame_loc *out_loc)
{
    if (plain_len > VV_FRAME_PLAIN_MAX)
        return -VV_ERR_LIMIT;
    size_t bound = vv_frame_bound(plain_len);
    if (!has_room(run, 1, bound, VV_DIRECTORY_ENTRY_MAX))
        return -VV_ERR_LIMIT;
    struct vv_chunk *chunk = reserve_frame(run, bound);
    if (!chunk)
        return -ENOMEM;
    ssize_t len = seal(run, sealer, origin, (struct vv_bytes){plain, plain_len}, chunk);
    TRY(len);
    take_frame(run, chunk, origin, (size_t)len, plain_len, out_loc);
    return 0;
}

int vv_run_add_sealed(struct vv_run *run, const struct vv_sealer *sealer,
                      const struct vv_origin *origin, const struct vv_sealed_frame *frame,
                      struct vv_frame_loc *out_loc)
{
    ssize_t plain_len = vv_frame_plain_len(frame->bytes, frame->len);
    TRY(plain_len);
    if (!has_room(run, 1, frame->len, VV_DIRECTORY_ENTRY_MAX))
        return -VV_ERR_LIMIT;
    struct vv_chunk *chunk = reserve_frame(run, frame->len);
    if (!chunk)
        return -ENOMEM;
    ssize_t len = vv_frame_reseal(frame, origin, sealer, run->first_index + run->count,
                                  chunk->bytes + chunk->len, chunk->capacity - chunk->len);
    TRY(len);
    take_frame(run, chunk, origin, (size_t)len, (size_t)plain_len, out_loc);
    return 0;
}

/* Copy all bytes of `from` to where there is room for them. */
static int copy_chunks(struct vv_run *run, const struct vv_run *from)
{
    struct vv_chunk *to = reserve_growing(run, from->bytes);
    if (!to)
        return -ENOMEM;
    vv_list_each (node, &from->chunks) {
        const struct vv_chunk *chunk = vv_list_entry(node, struct vv_chunk, link);
        memcpy(to->bytes + to->len, chunk->bytes, chunk->len);
        to->len += chunk->len;
    }
    return 0;
}

int vv_run_append(struct vv_run *run, struct vv_run *from)
{
    assert(from->first_index == run->first_index + run->count);
    if (from->count == 0)
        return 0;
    size_t directory_len = from->directory_len - VV_DIRECTORY_COUNT_MAX;
    if (!has_room(run, from->count, from->bytes, directory_len))
        return -VV_ERR_LIMIT;
    TRY(reserve_directory(run, directory_len));
    if (from->bytes <= COPY_MAX) {
        TRY(copy_chunks(run, from));
    } else {
        vv_list_splice(&run->chunks, &from->chunks);
        run->chunk_count += from->chunk_count;
    }
    memcpy(run->directory + run->directory_len, from->directory + VV_DIRECTORY_COUNT_MAX,
           directory_len);
    run->directory_len += directory_len;
    run->bytes += from->bytes;
    run->count += from->count;
    uint32_t next_index = from->first_index + from->count;
    size_t chunk_len = from->next_chunk_len;
    vv_run_done(from);
    vv_run_init(from, next_index, chunk_len);
    return 0;
}
