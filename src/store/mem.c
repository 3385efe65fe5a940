#include "store/store.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/list.h"
#include "base/text.h"
#include "rt/rt.h"
#include "store/store_impl.h"

/* Everything of a backend belongs to the world (allocation domain 0): what a process stored
 * outlives it. Between two suspension points nothing else runs, so each operation on the backend is
 * atomic. */

struct object {
    struct vv_list link; /* in the backend's `late`, while it is still to come */
    uint64_t time_ns;    /* when it was created, or is to be */
    size_t len;
    uint8_t *bytes;
    char name[VV_STORE_NAME_MAX + 1];
};

struct vv_store_backend {
    struct object **objects; /* ascending by name */
    size_t count;
    size_t capacity;     /* at least count + late_count: a late put cannot fail */
    struct vv_list late; /* ascending by time_ns */
    size_t late_count;
};

struct mem {
    struct vv_store store;
    struct vv_store_backend *backend;
};

static void object_free(struct object *object)
{
    if (!object)
        return;
    vv_free(object->bytes);
    vv_free(object);
}

static struct object *object_new_here(const char *name, const struct iovec *iov, int count)
{
    struct object *object = vv_zalloc(sizeof(*object));
    if (!object)
        return NULL;
    vv_list_init(&object->link);
    (void)vv_copy_text(object->name, sizeof(object->name), name);
    object->bytes = vv_alloc(vv_store_iov_bytes(iov, count));
    if (!object->bytes) {
        vv_free(object);
        return NULL;
    }
    for (int i = 0; i < count; i++) {
        if (iov[i].iov_len > 0)
            memcpy(object->bytes + object->len, iov[i].iov_base, iov[i].iov_len);
        object->len += iov[i].iov_len;
    }
    return object;
}

static struct object *object_new(const char *name, const struct iovec *iov, int count)
{
    uint32_t domain = vv_alloc_domain_set(0);
    struct object *object = object_new_here(name, iov, count);
    (void)vv_alloc_domain_set(domain);
    return object;
}

/* The index of the first object whose name is not below `name`. */
static size_t lower_bound(const struct vv_store_backend *backend, const char *name)
{
    size_t low = 0;
    size_t high = backend->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(backend->objects[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct object *find(const struct vv_store_backend *backend, const char *name)
{
    size_t index = lower_bound(backend, name);
    if (index == backend->count || strcmp(backend->objects[index]->name, name) != 0)
        return NULL;
    return backend->objects[index];
}

/* Room for one more object, with all that are late. */
static int reserve(struct vv_store_backend *backend)
{
    if (backend->count + backend->late_count < backend->capacity)
        return 0;
    size_t capacity = 2 * backend->capacity + 16;
    uint32_t domain = vv_alloc_domain_set(0);
    struct object **objects = vv_realloc(backend->objects, capacity * sizeof(*objects));
    (void)vv_alloc_domain_set(domain);
    if (!objects)
        return -ENOMEM;
    backend->objects = objects;
    backend->capacity = capacity;
    return 0;
}

static void insert(struct vv_store_backend *backend, struct object *object)
{
    size_t index = lower_bound(backend, object->name);
    memmove(backend->objects + index + 1, backend->objects + index,
            (backend->count - index) * sizeof(*backend->objects));
    backend->objects[index] = object;
    backend->count++;
}

/* Let the late puts happen whose time has come. Each operation begins with this. */
static void settle(struct vv_store_backend *backend)
{
    uint64_t now_ns = vv_rt_now_ns();
    while (!vv_list_is_empty(&backend->late)) {
        struct object *object = vv_list_first(&backend->late, struct object, link);
        if (object->time_ns > now_ns)
            return;
        vv_list_remove(&object->link);
        backend->late_count--;
        if (find(backend, object->name))
            object_free(object);
        else
            insert(backend, object);
    }
}

/* The way of a request to the backend: others may run before it has its effect, and (way back)
 * between its effect and its answer. A process may be killed at either. */
static struct vv_store_backend *travel_to(struct vv_store *store)
{
    struct vv_store_backend *backend = vv_container_of(store, struct mem, store)->backend;
    vv_fiber_yield();
    settle(backend);
    return backend;
}

static void travel_back(void)
{
    vv_fiber_yield();
}

static int put_now(struct vv_store_backend *backend, const char *name, const struct iovec *iov,
                   int count)
{
    if (find(backend, name))
        return -EEXIST;
    TRY(reserve(backend));
    struct object *object = object_new(name, iov, count);
    if (!object)
        return -ENOMEM;
    object->time_ns = vv_rt_now_ns() + 1; /* never 0, which means "not there" */
    insert(backend, object);
    return 0;
}

static int mem_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    int err = put_now(travel_to(store), name, iov, count);
    travel_back();
    return err;
}

static ssize_t mem_get(struct vv_store *store, const char *name, void *buf, size_t len,
                       uint64_t offset)
{
    const struct object *object = find(travel_to(store), name);
    ssize_t got = -ENOENT;
    if (object) {
        size_t left = offset < object->len ? object->len - (size_t)offset : 0;
        got = (ssize_t)(len < left ? len : left);
        if (got > 0)
            memcpy(buf, object->bytes + offset, (size_t)got);
    }
    travel_back();
    return got;
}

static int mem_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    const struct object *object = find(travel_to(store), name);
    bool is_there = object;
    if (is_there)
        *out_size = object->len;
    travel_back();
    return is_there ? 0 : -ENOENT;
}

static ssize_t mem_list(struct vv_store *store, const char *prefix, const char *after,
                        struct vv_store_entry *out_entries, size_t max)
{
    const struct vv_store_backend *backend = travel_to(store);
    size_t prefix_len = strlen(prefix);
    size_t count = 0;
    size_t index = lower_bound(backend, strcmp(prefix, after) > 0 ? prefix : after);
    for (; index < backend->count && count < max; index++) {
        const struct object *object = backend->objects[index];
        if (strcmp(object->name, after) <= 0)
            continue;
        if (strncmp(object->name, prefix, prefix_len) != 0)
            break;
        memcpy(out_entries[count].name, object->name, sizeof(object->name));
        out_entries[count++].size = object->len;
    }
    travel_back();
    return (ssize_t)count;
}

static int mem_remove(struct vv_store *store, const char *name)
{
    struct vv_store_backend *backend = travel_to(store);
    size_t index = lower_bound(backend, name);
    if (index < backend->count && strcmp(backend->objects[index]->name, name) == 0) {
        object_free(backend->objects[index]);
        backend->count--;
        memmove(backend->objects + index, backend->objects + index + 1,
                (backend->count - index) * sizeof(*backend->objects));
    }
    travel_back();
    return 0;
}

static int mem_sync(struct vv_store *store, const char *name)
{
    bool is_there = find(travel_to(store), name);
    travel_back();
    return is_there ? 0 : -ENOENT;
}

static void mem_close(struct vv_store *store)
{
    vv_free(vv_container_of(store, struct mem, store));
}

static const struct vv_store_ops mem_ops = {
    .type = "mem",
    .put = mem_put,
    .get = mem_get,
    .size = mem_size,
    .list = mem_list,
    .remove = mem_remove,
    .sync = mem_sync,
    .close = mem_close,
};

bool vv_store_is_mem(const struct vv_store *store)
{
    return store->ops == &mem_ops;
}

int vv_store_mem_put_late(struct vv_store *store, const char *name, const struct iovec *iov,
                          int count, uint64_t due_ns)
{
    struct vv_store_backend *backend = vv_container_of(store, struct mem, store)->backend;
    TRY(reserve(backend));
    struct object *object = object_new(name, iov, count);
    if (!object)
        return -ENOMEM;
    object->time_ns = due_ns;
    struct vv_list *at = backend->late.next;
    while (at != &backend->late && vv_list_entry(at, struct object, link)->time_ns <= due_ns)
        at = at->next;
    vv_list_insert_before(at, &object->link);
    backend->late_count++;
    return 0;
}

uint64_t vv_store_mem_created_ns(struct vv_store *store, const char *name)
{
    struct vv_store_backend *backend = vv_container_of(store, struct mem, store)->backend;
    const struct object *object = find(backend, name);
    return object ? object->time_ns : 0;
}

int vv_store_backend_new(struct vv_store_backend **out_backend)
{
    uint32_t domain = vv_alloc_domain_set(0);
    struct vv_store_backend *backend = vv_zalloc(sizeof(*backend));
    (void)vv_alloc_domain_set(domain);
    if (!backend)
        return -ENOMEM;
    vv_list_init(&backend->late);
    *out_backend = backend;
    return 0;
}

void vv_store_backend_free(struct vv_store_backend *backend)
{
    if (!backend)
        return;
    for (size_t i = 0; i < backend->count; i++)
        object_free(backend->objects[i]);
    while (!vv_list_is_empty(&backend->late)) {
        struct object *object = vv_list_first(&backend->late, struct object, link);
        vv_list_remove(&object->link);
        object_free(object);
    }
    vv_free(backend->objects);
    vv_free(backend);
}

int vv_store_mem_open(struct vv_store_backend *backend, struct vv_store **out_store)
{
    struct mem *mem = vv_zalloc(sizeof(*mem));
    if (!mem)
        return -ENOMEM;
    mem->store.ops = &mem_ops;
    mem->backend = backend;
    *out_store = &mem->store;
    return 0;
}
