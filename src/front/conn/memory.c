/* The memory of all connections: budgets, and buffers that are kept for reuse. */
#include "base/alloc.h"
#include "front/conn/conn.h"

/* Sizes that are kept, each with room for a header, and how many of each; what is larger is not. */
static const struct {
    uint32_t bytes;
    unsigned warm_max;
} classes[VV_BUFFER_CLASSES] = {
    {4096 + 512, 64}, {(64u << 10) + 512, 16}, {(1u << 20) + (16u << 10), 16}};

void vv_conn_memory_init(struct vv_conn_memory *memory, uint64_t bytes)
{
    if (bytes == 0)
        bytes = VV_CONN_MEMORY_DEFAULT;
    *memory = (struct vv_conn_memory){.warm_bytes = 0};
    vv_budget_init(&memory->small, NULL, bytes / 4);
    vv_budget_init(&memory->large, NULL, bytes - bytes / 4);
    vv_list_init(&memory->conns);
}

static void drop_warm(struct vv_conn_memory *memory)
{
    for (unsigned class = 0; class < VV_BUFFER_CLASSES; class++) {
        while (memory->warm[class]) {
            struct vv_buffer *buffer = memory->warm[class];
            memory->warm[class] = buffer->next;
            vv_free(buffer);
        }
        memory->warm_count[class] = 0;
    }
    memory->warm_bytes = 0;
}

void vv_conn_memory_done(struct vv_conn_memory *memory)
{
    drop_warm(memory);
}

uint64_t vv_conn_memory_used(const struct vv_conn_memory *memory)
{
    return memory->small.used + memory->large.used;
}

uint64_t vv_conn_memory_limit(const struct vv_conn_memory *memory)
{
    return memory->small.limit + memory->large.limit;
}

static bool has_room(const struct vv_conn_memory *memory, size_t bytes)
{
    return vv_conn_memory_used(memory) + memory->warm_bytes + bytes <= vv_conn_memory_limit(memory);
}

static unsigned class_of(size_t size)
{
    unsigned class = 0;
    while (class < VV_BUFFER_CLASSES && classes[class].bytes < size)
        class++;
    return class;
}

struct vv_buffer *vv_buffer_new(struct vv_conn_memory *memory, size_t size)
{
    unsigned class = class_of(size);
    bool is_kept = class < VV_BUFFER_CLASSES;
    struct vv_buffer *buffer = is_kept ? memory->warm[class] : NULL;
    if (buffer) {
        memory->warm[class] = buffer->next;
        memory->warm_count[class]--;
        memory->warm_bytes -= buffer->size;
        return buffer;
    }
    if (!has_room(memory, 0))
        drop_warm(memory);
    size_t capacity = is_kept ? classes[class].bytes : size;
    buffer = vv_alloc_aligned(64, sizeof(*buffer) + capacity);
    if (buffer)
        *buffer = (struct vv_buffer){.class = class, .size = capacity};
    return buffer;
}

void vv_buffer_free(struct vv_conn_memory *memory, struct vv_buffer *buffer)
{
    if (!buffer)
        return;
    unsigned class = buffer->class;
    if (class == VV_BUFFER_CLASSES || memory->warm_count[class] >= classes[class].warm_max ||
        !has_room(memory, buffer->size)) {
        vv_free(buffer);
        return;
    }
    buffer->next = memory->warm[class];
    memory->warm[class] = buffer;
    memory->warm_count[class]++;
    memory->warm_bytes += buffer->size;
}
