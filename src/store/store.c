#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "store/store_impl.h"

/* vv_store_get_all asks for this much before it knows the size: most objects that are read whole
 * are smaller, and then one request is enough. */
#define GUESS_BYTES (64u << 10)

/* Names that a local directory needs for itself; refused everywhere so that all stores agree. */
static const char *const reserved[] = {"tmp", "journal"};

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '/' || c == '-';
}

/* Name or the beginning of one: characters, length, no leading slash, no "..". */
static bool is_prefix_valid(const char *prefix)
{
    size_t len = strnlen(prefix, VV_STORE_NAME_MAX + 1);
    if (len > VV_STORE_NAME_MAX || prefix[0] == '/' || strstr(prefix, ".."))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!is_name_char(prefix[i]))
            return false;
    }
    return !strstr(prefix, "//");
}

static bool is_component(const char *name, size_t len, const char *component)
{
    return strlen(component) == len && memcmp(name, component, len) == 0;
}

bool vv_store_name_is_valid(const char *name)
{
    if (!is_prefix_valid(name) || name[0] == 0)
        return false;
    size_t first_len = strcspn(name, "/");
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        if (is_component(name, first_len, reserved[i]))
            return false;
    }
    for (const char *part = name;;) {
        size_t len = strcspn(part, "/");
        if (len == 0 || is_component(part, len, "."))
            return false;
        if (part[len] == 0)
            return true;
        part += len + 1;
    }
}

uint64_t vv_store_iov_bytes(const struct iovec *iov, int count)
{
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++) {
        if (__builtin_add_overflow(bytes, iov[i].iov_len, &bytes))
            return UINT64_MAX;
    }
    return bytes;
}

int vv_store_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    if (!vv_store_name_is_valid(name) || count < 0)
        return -EINVAL;
    if (vv_store_iov_bytes(iov, count) > VV_STORE_OBJECT_MAX)
        return -EFBIG;
    int err = store->ops->put(store, name, iov, count);
    assert(err <= 0);
    return err;
}

ssize_t vv_store_get(struct vv_store *store, const char *name, void *buf, size_t len,
                     uint64_t offset)
{
    if (!vv_store_name_is_valid(name) || offset > VV_STORE_OBJECT_MAX)
        return -EINVAL;
    if (len > VV_STORE_OBJECT_MAX)
        len = VV_STORE_OBJECT_MAX;
    ssize_t got = store->ops->get(store, name, buf, len, offset);
    assert(got < 0 || (size_t)got <= len);
    return got;
}

/* The rest of an object of which `*len` bytes, all that *bytes has room for, are there. */
static int get_rest(struct vv_store *store, const char *name, size_t max, uint8_t **bytes,
                    size_t *len)
{
    uint64_t size;
    TRY(vv_store_size(store, name, &size));
    if (size > max)
        return -EFBIG;
    if (size < *len)
        return -EIO;
    uint8_t *grown = vv_realloc(*bytes, size + 1);
    if (!grown)
        return -ENOMEM;
    *bytes = grown;
    while (*len < size) {
        ssize_t got = vv_store_get(store, name, grown + *len, size - *len, *len);
        if (got <= 0)
            return got < 0 ? (int)got : -EIO;
        *len += (size_t)got;
    }
    return 0;
}

int vv_store_get_all(struct vv_store *store, const char *name, size_t max, uint8_t **out_bytes,
                     size_t *out_len)
{
    size_t room = max < GUESS_BYTES ? max + 1 : GUESS_BYTES;
    uint8_t *bytes CLEANUP(vv_free_ptr) = vv_alloc(room);
    if (!bytes)
        return -ENOMEM;
    ssize_t got = vv_store_get(store, name, bytes, room, 0);
    if (got < 0)
        return (int)got;
    size_t len = (size_t)got;
    if (len == room)
        TRY(get_rest(store, name, max, &bytes, &len));
    /* Giving memory back is only a kindness: when it fails, the larger block serves as well. */
    uint8_t *trimmed = len < room ? vv_realloc(bytes, len + 1) : NULL;
    *out_bytes = trimmed ? trimmed : bytes;
    *out_len = len;
    bytes = NULL;
    return 0;
}

int vv_store_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    if (!vv_store_name_is_valid(name))
        return -EINVAL;
    int err = store->ops->size(store, name, out_size);
    assert(err <= 0);
    return err;
}

/* The contract of list, which the code of a store must keep whatever its server answers. */
static bool is_list_in_order(const char *prefix, const char *after,
                             const struct vv_store_entry *entries, ssize_t count)
{
    for (ssize_t i = 0; i < count; i++) {
        if (strcmp(entries[i].name, after) <= 0)
            return false;
        if (strncmp(entries[i].name, prefix, strlen(prefix)) != 0)
            return false;
        after = entries[i].name;
    }
    return true;
}

ssize_t vv_store_list(struct vv_store *store, const char *prefix, const char *after,
                      struct vv_store_entry *out_entries, size_t max)
{
    if (!is_prefix_valid(prefix) || strnlen(after, VV_STORE_NAME_MAX + 1) > VV_STORE_NAME_MAX)
        return -EINVAL;
    if (max == 0 || max > VV_STORE_LIST_MAX)
        return -EINVAL;
    ssize_t count = store->ops->list(store, prefix, after, out_entries, max);
    assert(count < 0 || (size_t)count <= max);
    assert(is_list_in_order(prefix, after, out_entries, count));
    return count;
}

int vv_store_remove(struct vv_store *store, const char *name)
{
    if (!vv_store_name_is_valid(name))
        return -EINVAL;
    int err = store->ops->remove(store, name);
    assert(err <= 0);
    return err;
}

int vv_store_sync(struct vv_store *store, const char *name)
{
    if (!vv_store_name_is_valid(name))
        return -EINVAL;
    if (!store->ops->sync)
        return 0;
    int err = store->ops->sync(store, name);
    assert(err <= 0);
    return err;
}

int vv_store_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total)
{
    if (!store->ops->space)
        return -EOPNOTSUPP;
    int err = store->ops->space(store, out_free, out_total);
    assert(err <= 0);
    return err;
}

void vv_store_close(struct vv_store *store)
{
    if (store)
        store->ops->close(store);
}
