/* What a simulated file holds, in the page cache and on the medium. */
#include "rt/sim_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"

#define SECTORS (VV_SIM_PAGE_BYTES / VV_SIM_SECTOR_BYTES)
#define ALL_SECTORS 0xffu
static_assert(SECTORS == 8, "a page's sectors are the bits of a byte");

/* How often an unsynced sector reaches the medium before it is overwritten, so that a power cut
 * can bring back any version of it, not only the last. */
#define EARLY_WRITE_PERMILLE 250

/* ---- pages ---- */

/* NULL when the chunk was never touched. */
static struct vv_sim_page *find_page(const struct vv_sim_content *content, uint64_t index)
{
    uint64_t chunk = index / VV_SIM_CHUNK_PAGES;
    if (chunk >= content->chunk_count || !content->chunks[chunk])
        return NULL;
    return &content->chunks[chunk]->pages[index % VV_SIM_CHUNK_PAGES];
}

static int grow_chunks(struct vv_sim_content *content, size_t needed)
{
    if (needed <= content->chunk_count)
        return 0;
    size_t count = content->chunk_count ? content->chunk_count * 2 : 1;
    while (count < needed)
        count *= 2;
    struct vv_sim_chunk **chunks = vv_sim_alloc(count * sizeof(struct vv_sim_chunk *));
    if (!chunks)
        return -ENOMEM;
    if (content->chunk_count > 0)
        memcpy(chunks, content->chunks, content->chunk_count * sizeof(*chunks));
    vv_free(content->chunks);
    content->chunks = chunks;
    content->chunk_count = count;
    return 0;
}

/* The page, made if need be; its chunk counts as changed. */
static int make_page(struct vv_sim_content *content, uint64_t index, struct vv_sim_page **out_page)
{
    uint64_t chunk = index / VV_SIM_CHUNK_PAGES;
    TRY(grow_chunks(content, chunk + 1));
    if (!content->chunks[chunk])
        content->chunks[chunk] = vv_sim_alloc(sizeof(struct vv_sim_chunk));
    if (!content->chunks[chunk])
        return -ENOMEM;
    content->chunks[chunk]->is_changed = true;
    *out_page = &content->chunks[chunk]->pages[index % VV_SIM_CHUNK_PAGES];
    return 0;
}

static bool has_room(const struct vv_sim_disk *disk, uint64_t pages)
{
    if (disk->capacity_pages == 0)
        return true;
    return disk->used_pages <= disk->capacity_pages &&
           pages <= disk->capacity_pages - disk->used_pages;
}

static void take_space(struct vv_sim_content *content, struct vv_sim_page *page)
{
    if (page->is_allocated)
        return;
    page->is_allocated = true;
    content->allocated_count++;
    content->disk->used_pages++;
}

static void give_space(struct vv_sim_content *content, struct vv_sim_page *page)
{
    if (!page->is_allocated)
        return;
    page->is_allocated = false;
    content->allocated_count--;
    content->disk->used_pages--;
}

/* Give `now` memory of its own, apart from `stable`. */
static int separate(struct vv_sim_page *page)
{
    if (page->now && page->now != page->stable)
        return 0;
    uint8_t *bytes = vv_sim_alloc(VV_SIM_PAGE_BYTES);
    if (!bytes)
        return -ENOMEM;
    if (page->now)
        memcpy(bytes, page->now, VV_SIM_PAGE_BYTES);
    page->now = bytes;
    return 0;
}

/* Copy the sectors in the mask from `now` to the medium. */
static int write_back(struct vv_sim_page *page, uint8_t mask)
{
    assert(page->now != page->stable);
    if (!page->stable)
        page->stable = vv_sim_alloc(VV_SIM_PAGE_BYTES);
    if (!page->stable)
        return -ENOMEM;
    for (unsigned i = 0; i < SECTORS; i++) {
        size_t at = i * VV_SIM_SECTOR_BYTES;
        if (!(mask & 1u << i))
            continue;
        if (page->now)
            memcpy(page->stable + at, page->now + at, VV_SIM_SECTOR_BYTES);
        else
            memset(page->stable + at, 0, VV_SIM_SECTOR_BYTES);
    }
    return 0;
}

/* From now on the medium holds what `now` holds. */
static void settle_as_now(struct vv_sim_page *page)
{
    if (page->now != page->stable)
        vv_free(page->stable);
    page->stable = page->now;
    page->dirty = 0;
    page->lost = 0;
}

/* And the other way round. */
static void settle_as_stable(struct vv_sim_page *page)
{
    if (page->now != page->stable)
        vv_free(page->now);
    page->now = page->stable;
    page->dirty = 0;
    page->lost = 0;
}

void vv_sim_content_done(struct vv_sim_content *content)
{
    for (size_t i = 0; i < content->chunk_count; i++) {
        struct vv_sim_chunk *chunk = content->chunks[i];
        for (size_t j = 0; chunk && j < VV_SIM_CHUNK_PAGES; j++) {
            settle_as_now(&chunk->pages[j]);
            vv_free(chunk->pages[j].now);
        }
        vv_free(chunk);
    }
    vv_free(content->chunks);
    content->chunks = NULL;
    content->chunk_count = 0;
}

/* ---- reading and writing ---- */

static size_t at_most(uint64_t a, uint64_t b)
{
    return (size_t)(a < b ? a : b);
}

size_t vv_sim_content_read(const struct vv_sim_content *content, void *buf, size_t len,
                           uint64_t offset)
{
    if (offset >= content->size)
        return 0;
    len = at_most(len, content->size - offset);
    for (size_t done = 0; done < len;) {
        size_t in_page = (offset + done) % VV_SIM_PAGE_BYTES;
        size_t part = at_most(len - done, VV_SIM_PAGE_BYTES - in_page);
        const struct vv_sim_page *page = find_page(content, (offset + done) / VV_SIM_PAGE_BYTES);
        if (page && page->now)
            memcpy((char *)buf + done, page->now + in_page, part);
        else
            memset((char *)buf + done, 0, part);
        done += part;
    }
    return len;
}

static uint8_t sectors_of(size_t in_page, size_t len)
{
    unsigned first = (unsigned)(in_page / VV_SIM_SECTOR_BYTES);
    unsigned last = (unsigned)((in_page + len - 1) / VV_SIM_SECTOR_BYTES);
    return (uint8_t)((ALL_SECTORS << first) & (ALL_SECTORS >> (SECTORS - 1 - last)));
}

/* Write within a page. NULL bytes: zeros. */
static int write_page(struct vv_sim_page *page, const void *bytes, size_t len, size_t in_page)
{
    uint8_t mask = sectors_of(in_page, len);
    if ((page->dirty & mask) && vv_sim_chance(EARLY_WRITE_PERMILLE))
        TRY(write_back(page, page->dirty & mask & (uint8_t)vv_sim_random(256)));
    TRY(separate(page));
    if (bytes)
        memcpy(page->now + in_page, bytes, len);
    else
        memset(page->now + in_page, 0, len);
    page->dirty |= mask;
    page->lost &= (uint8_t)~mask;
    return 0;
}

int vv_sim_content_write(struct vv_sim_content *content, const void *buf, size_t len,
                         uint64_t offset)
{
    if (offset > VV_SIM_FILE_BYTES_MAX || len > VV_SIM_FILE_BYTES_MAX - offset)
        return -EFBIG;
    for (size_t done = 0; done < len;) {
        size_t in_page = (offset + done) % VV_SIM_PAGE_BYTES;
        size_t part = at_most(len - done, VV_SIM_PAGE_BYTES - in_page);
        struct vv_sim_page *page;
        TRY(make_page(content, (offset + done) / VV_SIM_PAGE_BYTES, &page));
        if (!page->is_allocated && !has_room(content->disk, 1))
            return -ENOSPC;
        TRY(write_page(page, (const char *)buf + done, part, in_page));
        take_space(content, page);
        done += part;
        if (offset + done > content->size)
            content->size = offset + done;
    }
    return 0;
}

/* ---- size and space ---- */

/* Drop the page from the page cache; the medium has it until the next sync. */
static void drop_page(struct vv_sim_content *content, struct vv_sim_page *page)
{
    if (page->now != page->stable)
        vv_free(page->now);
    page->now = NULL;
    page->dirty = page->stable ? ALL_SECTORS : 0;
    page->lost = 0;
    give_space(content, page);
}

/* Drop what lies at or after `size`, which is less than the present size. */
static int cut(struct vv_sim_content *content, uint64_t size)
{
    size_t in_page = size % VV_SIM_PAGE_BYTES;
    uint64_t index = size / VV_SIM_PAGE_BYTES;
    struct vv_sim_page *page = find_page(content, index);
    if (in_page > 0) {
        if (page && page->now) {
            content->chunks[index / VV_SIM_CHUNK_PAGES]->is_changed = true;
            TRY(write_page(page, NULL, VV_SIM_PAGE_BYTES - in_page, in_page));
        }
        index++;
    }
    for (; index < content->chunk_count * VV_SIM_CHUNK_PAGES; index++) {
        struct vv_sim_chunk *chunk = content->chunks[index / VV_SIM_CHUNK_PAGES];
        if (!chunk) {
            index |= VV_SIM_CHUNK_PAGES - 1;
            continue;
        }
        chunk->is_changed = true;
        drop_page(content, &chunk->pages[index % VV_SIM_CHUNK_PAGES]);
    }
    return 0;
}

int vv_sim_content_resize(struct vv_sim_content *content, uint64_t size)
{
    if (size > VV_SIM_FILE_BYTES_MAX)
        return -EFBIG;
    if (size < content->size)
        TRY(cut(content, size));
    content->size = size;
    if (size < content->least_size)
        content->least_size = size;
    return 0;
}

int vv_sim_content_allocate(struct vv_sim_content *content, uint64_t offset, uint64_t len)
{
    if (len == 0)
        return -EINVAL;
    if (offset > VV_SIM_FILE_BYTES_MAX || len > VV_SIM_FILE_BYTES_MAX - offset)
        return -EFBIG;
    uint64_t first = offset / VV_SIM_PAGE_BYTES;
    uint64_t last = (offset + len - 1) / VV_SIM_PAGE_BYTES;
    uint64_t needed = 0;
    struct vv_sim_page *page;
    for (uint64_t i = first; i <= last; i++) {
        TRY(make_page(content, i, &page));
        needed += !page->is_allocated;
    }
    if (!has_room(content->disk, needed))
        return -ENOSPC;
    for (uint64_t i = first; i <= last; i++)
        take_space(content, find_page(content, i));
    if (offset + len > content->size)
        content->size = offset + len;
    return 0;
}

/* ---- durability ---- */

static int sync_page(struct vv_sim_page *page)
{
    if (page->lost == 0) {
        settle_as_now(page);
        return 0;
    }
    if (page->dirty)
        TRY(write_back(page, page->dirty));
    page->dirty = 0;
    return 0;
}

/* As Linux does when writing back fails: some sectors were written, some were not and won't be
 * unless they are written again, although they can still be read; and some are tried again. */
static int fail_page(struct vv_sim_page *page)
{
    uint8_t written = page->dirty & (uint8_t)vv_sim_random(256);
    uint8_t lost = page->dirty & (uint8_t)~written & (uint8_t)vv_sim_random(256);
    if (written)
        TRY(write_back(page, written));
    page->dirty &= (uint8_t) ~(written | lost);
    page->lost |= lost;
    if ((page->dirty | page->lost) == 0)
        settle_as_now(page);
    return 0;
}

static int sync_chunk(struct vv_sim_chunk *chunk, bool is_failing)
{
    bool is_changed = false;
    for (size_t i = 0; i < VV_SIM_CHUNK_PAGES; i++) {
        struct vv_sim_page *page = &chunk->pages[i];
        if (page->dirty)
            TRY(is_failing ? fail_page(page) : sync_page(page));
        is_changed |= page->now != page->stable;
    }
    chunk->is_changed = is_changed;
    return 0;
}

int vv_sim_content_sync(struct vv_sim_content *content, bool is_failing)
{
    for (size_t i = 0; i < content->chunk_count; i++) {
        if (content->chunks[i] && content->chunks[i]->is_changed)
            TRY(sync_chunk(content->chunks[i], is_failing));
    }
    if (is_failing && vv_sim_chance(500))
        return 0;
    content->stable_size = content->size;
    content->least_size = content->size;
    return 0;
}

/* Which unsynced sectors a power cut keeps: of some files all, of some none, of the others any. */
enum keeping { KEEP_ALL, KEEP_NONE, KEEP_ANY };

static uint64_t size_after(const struct vv_sim_content *content, enum keeping keeping)
{
    if (keeping == KEEP_ALL)
        return content->size;
    if (keeping == KEEP_NONE || content->size == content->stable_size || vv_sim_chance(250))
        return content->stable_size;
    if (content->size <= content->least_size || vv_sim_chance(300))
        return content->size;
    uint64_t least = content->least_size;
    uint64_t between = least + vv_sim_random(content->size - least);
    between -= between % VV_SIM_SECTOR_BYTES;
    return between < least ? least : between;
}

static void cut_page(struct vv_sim_page *page, enum keeping keeping)
{
    uint8_t random = (uint8_t)vv_sim_random(256);
    uint8_t keep = page->dirty;
    if (keeping == KEEP_NONE)
        keep = 0;
    else if (keeping == KEEP_ANY)
        keep &= random;
    if ((page->dirty | page->lost) == keep) {
        settle_as_now(page);
        return;
    }
    if (keep != 0)
        (void)!write_back(page, keep); /* without memory nothing is kept, which may happen too */
    settle_as_stable(page);
}

void vv_sim_content_power_cut(struct vv_sim_content *content)
{
    static const enum keeping choices[] = {KEEP_ALL, KEEP_NONE, KEEP_ANY, KEEP_ANY};
    enum keeping keeping = choices[vv_sim_random(sizeof(choices) / sizeof(choices[0]))];
    uint64_t size = size_after(content, keeping);
    for (size_t i = 0; i < content->chunk_count; i++) {
        struct vv_sim_chunk *chunk = content->chunks[i];
        for (size_t j = 0; chunk && chunk->is_changed && j < VV_SIM_CHUNK_PAGES; j++) {
            struct vv_sim_page *page = &chunk->pages[j];
            if (page->now != page->stable)
                cut_page(page, keeping);
            if (page->now)
                take_space(content, page);
        }
    }
    /* Whatever the sectors kept, there is nothing beyond the end. */
    (void)cut(content, size);
    for (size_t i = 0; i < content->chunk_count; i++) {
        struct vv_sim_chunk *chunk = content->chunks[i];
        for (size_t j = 0; chunk && chunk->is_changed && j < VV_SIM_CHUNK_PAGES; j++)
            settle_as_now(&chunk->pages[j]);
        if (chunk)
            chunk->is_changed = false;
    }
    content->size = size;
    content->stable_size = size;
    content->least_size = size;
}

bool vv_sim_content_rot(struct vv_sim_content *content)
{
    uint64_t at = vv_sim_random(content->size);
    uint8_t bit = (uint8_t)(1u << vv_sim_random(8));
    struct vv_sim_page *page;
    if (make_page(content, at / VV_SIM_PAGE_BYTES, &page) != 0)
        return false;
    if (!page->now && !page->stable) {
        page->now = vv_sim_alloc(VV_SIM_PAGE_BYTES);
        page->stable = page->now;
        if (!page->now)
            return false;
        take_space(content, page);
    }
    if (page->stable)
        page->stable[at % VV_SIM_PAGE_BYTES] ^= bit;
    if (page->now && page->now != page->stable)
        page->now[at % VV_SIM_PAGE_BYTES] ^= bit;
    return true;
}
