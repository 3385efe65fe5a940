#include "base/alloc.h"

#include <assert.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Stands before each block while tracking is on. Its size is a multiple of 16, so the block after
 * it is aligned as malloc's would be. */
struct header {
    struct header *next;
    struct header *prev; /* NULL in the first block of the domain */
    void *base;          /* what the C library gave */
    size_t size;         /* bytes, as asked for */
    uint32_t domain;
    uint32_t magic;
    uint64_t reserved;
};
static_assert(sizeof(struct header) % 16 == 0, "the header keeps malloc's alignment");

#define HEADER_MAGIC 0x76617276u
#define HEADER_FREED 0xdeadbeefu
#define ALIGN_MIN 16
#define MAPPED_BYTES_MIN (1 << 20)
#define HEAP_FREE_BYTES_MAX (16 << 20)
#define HEAP_GROW_BYTES (4 << 20)

/* What is switched on. The product leaves this 0: a call costs this one load more than malloc. */
enum hook { HOOK_TRACK = 1, HOOK_FAIL = 2 };
static atomic_uint hooks;

static atomic_llong fail_countdown;
static atomic_bool fail_is_sticky;
static atomic_bool fail_has_happened;

struct domain {
    struct header *first;
    size_t count;
};
static pthread_mutex_t domains_lock = PTHREAD_MUTEX_INITIALIZER;
static struct domain domains[VV_ALLOC_DOMAIN_MAX];
static atomic_uint current_domain;

static unsigned hooks_now(void)
{
    return atomic_load_explicit(&hooks, memory_order_relaxed);
}

/* Counts this call down; true when it is one that has to fail. */
static bool must_fail(void)
{
    long long left = atomic_fetch_sub(&fail_countdown, 1);
    if (left > 0 || (left < 0 && !atomic_load(&fail_is_sticky)))
        return false;
    atomic_store(&fail_has_happened, true);
    return true;
}

static struct header *header_of(void *ptr)
{
    struct header *header = (struct header *)ptr - 1;
    assert(header->magic != HEADER_FREED && "freed twice");
    assert(header->magic == HEADER_MAGIC && "not from vv_alloc, or overrun");
    return header;
}

static void link_header(struct header *header)
{
    pthread_mutex_lock(&domains_lock);
    struct domain *domain = &domains[header->domain];
    header->prev = NULL;
    header->next = domain->first;
    if (domain->first)
        domain->first->prev = header;
    domain->first = header;
    domain->count++;
    pthread_mutex_unlock(&domains_lock);
}

static void unlink_header(struct header *header)
{
    pthread_mutex_lock(&domains_lock);
    struct domain *domain = &domains[header->domain];
    if (header->prev)
        header->prev->next = header->next;
    else
        domain->first = header->next;
    if (header->next)
        header->next->prev = header->prev;
    assert(domain->count > 0);
    domain->count--;
    pthread_mutex_unlock(&domains_lock);
}

/* A block with a header in the given domain. */
static void *tracked_alloc(size_t align, size_t size, uint32_t domain)
{
    size_t room = sizeof(struct header) > align ? sizeof(struct header) : align;
    room = (room + align - 1) & ~(align - 1);
    size_t total;
    void *base;
    if (__builtin_add_overflow(room, size, &total) || posix_memalign(&base, align, total) != 0)
        return NULL;
    void *ptr = (char *)base + room;
    struct header *header = (struct header *)ptr - 1;
    header->base = base;
    header->size = size;
    header->domain = domain;
    header->magic = HEADER_MAGIC;
    link_header(header);
    return ptr;
}

static void tracked_free(void *ptr)
{
    struct header *header = header_of(ptr);
    unlink_header(header);
    header->magic = HEADER_FREED;
    free(header->base);
}

static void *tracked_realloc(void *ptr, size_t size)
{
    struct header *old = header_of(ptr);
    void *moved = tracked_alloc(ALIGN_MIN, size, old->domain);
    if (!moved)
        return NULL;
    memcpy(moved, ptr, old->size < size ? old->size : size);
    tracked_free(ptr);
    return moved;
}

/* The way round when something is switched on. `align` 0 means malloc's own. */
static __attribute__((noinline)) void *hooked_alloc(size_t align, size_t size)
{
    if ((hooks_now() & HOOK_FAIL) && must_fail())
        return NULL;
    if (hooks_now() & HOOK_TRACK)
        return tracked_alloc(align ? align : ALIGN_MIN, size, vv_alloc_domain());
    void *ptr = NULL;
    if (align)
        return posix_memalign(&ptr, align, size) == 0 ? ptr : NULL;
    return malloc(size);
}

void vv_alloc_populate(void *ptr, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)ptr + page - 1) & ~(page - 1);
    uintptr_t to = ((uintptr_t)ptr + size) & ~(page - 1);
    bool is_older = from < to && madvise((void *)from, to - from, MADV_POPULATE_WRITE) != 0;
    /* Before Linux 5.14, and for the pages at the ends. */
    volatile uint8_t *bytes = ptr;
    for (size_t at = 0; is_older && at < size; at += page)
        bytes[at] = bytes[at];
    if (size > 0) {
        bytes[0] = bytes[0];
        bytes[size - 1] = bytes[size - 1];
    }
}

void vv_alloc_setup(void)
{
    int is_set = mallopt(M_ARENA_MAX, 1) && mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) &&
                 mallopt(M_TRIM_THRESHOLD, HEAP_FREE_BYTES_MAX) &&
                 mallopt(M_TOP_PAD, HEAP_GROW_BYTES);
    (void)is_set; /* without it, only more memory is used */
}

void *vv_alloc(size_t size)
{
    return hooks_now() ? hooked_alloc(0, size) : malloc(size);
}

void *vv_zalloc(size_t size)
{
    return vv_calloc(1, size);
}

void *vv_calloc(size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        return NULL;
    if (!hooks_now())
        return calloc(count, size);
    void *ptr = hooked_alloc(0, total);
    if (ptr)
        memset(ptr, 0, total);
    return ptr;
}

void *vv_realloc(void *ptr, size_t size)
{
    if (!ptr)
        return vv_alloc(size);
    unsigned on = hooks_now();
    if ((on & HOOK_FAIL) && must_fail())
        return NULL;
    if (on & HOOK_TRACK)
        return tracked_realloc(ptr, size);
    return realloc(ptr, size ? size : 1);
}

void *vv_alloc_aligned(size_t align, size_t size)
{
    assert(align >= ALIGN_MIN && (align & (align - 1)) == 0);
    if (hooks_now())
        return hooked_alloc(align, size);
    void *ptr = NULL;
    return posix_memalign(&ptr, align, size) == 0 ? ptr : NULL;
}

char *vv_strdup(const char *text)
{
    return vv_memdup(text, strlen(text) + 1);
}

void *vv_memdup(const void *bytes, size_t len)
{
    void *copy = vv_alloc(len);
    if (copy && len > 0)
        memcpy(copy, bytes, len);
    return copy;
}

void vv_free(void *ptr)
{
    if (!(hooks_now() & HOOK_TRACK))
        free(ptr);
    else if (ptr)
        tracked_free(ptr);
}

void vv_free_ptr(void *ptr_to_ptr)
{
    void *ptr;
    memcpy(&ptr, ptr_to_ptr, sizeof(ptr));
    vv_free(ptr);
}

void vv_alloc_fail_at(int64_t n, bool is_sticky)
{
    if (n < 0) {
        atomic_fetch_and(&hooks, ~(unsigned)HOOK_FAIL);
        return;
    }
    atomic_store(&fail_countdown, n);
    atomic_store(&fail_is_sticky, is_sticky);
    atomic_store(&fail_has_happened, false);
    atomic_fetch_or(&hooks, HOOK_FAIL);
}

bool vv_alloc_failed(void)
{
    return atomic_load(&fail_has_happened);
}

void vv_alloc_track(bool is_on)
{
    if (is_on)
        atomic_fetch_or(&hooks, HOOK_TRACK);
    else
        atomic_fetch_and(&hooks, ~(unsigned)HOOK_TRACK);
}

uint32_t vv_alloc_domain(void)
{
    return atomic_load_explicit(&current_domain, memory_order_relaxed);
}

uint32_t vv_alloc_domain_set(uint32_t domain)
{
    assert(domain < VV_ALLOC_DOMAIN_MAX);
    return atomic_exchange_explicit(&current_domain, domain, memory_order_relaxed);
}

size_t vv_alloc_domain_drop(uint32_t domain)
{
    assert(domain < VV_ALLOC_DOMAIN_MAX);
    size_t dropped_bytes = 0;
    pthread_mutex_lock(&domains_lock);
    struct header *header = domains[domain].first;
    domains[domain] = (struct domain){0};
    pthread_mutex_unlock(&domains_lock);
    while (header) {
        struct header *next = header->next;
        assert(header->magic == HEADER_MAGIC);
        dropped_bytes += header->size;
        header->magic = HEADER_FREED;
        free(header->base);
        header = next;
    }
    return dropped_bytes;
}

size_t vv_alloc_domain_count(uint32_t domain)
{
    assert(domain < VV_ALLOC_DOMAIN_MAX);
    pthread_mutex_lock(&domains_lock);
    size_t count = domains[domain].count;
    pthread_mutex_unlock(&domains_lock);
    return count;
}
