#include "store/store.h"

#include "contract.h"

/* A store of one object of `size` bytes that counts calls, with neither sync nor space. */
struct stub {
    struct vv_store store;
    uint64_t size;
    int gets;
    int sizes;
    bool is_closed;
};

static int stub_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    return 0;
}

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)(offset * 31 + (offset >> 8));
}

static ssize_t stub_get(struct vv_store *store, const char *name, void *buf, size_t len,
                        uint64_t offset)
{
    struct stub *stub = (struct stub *)store;
    stub->gets++;
    if (strcmp(name, "object") != 0)
        return -ENOENT;
    size_t left = offset < stub->size ? stub->size - offset : 0;
    len = len < left ? len : left;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = byte_at(offset + i);
    return (ssize_t)len;
}

static int stub_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    struct stub *stub = (struct stub *)store;
    stub->sizes++;
    *out_size = stub->size;
    return 0;
}

static ssize_t stub_list(struct vv_store *store, const char *prefix, const char *after,
                         struct vv_store_entry *out_entries, size_t max)
{
    return 0;
}

static int stub_remove(struct vv_store *store, const char *name)
{
    return 0;
}

static void stub_close(struct vv_store *store)
{
    ((struct stub *)store)->is_closed = true;
}

static const struct vv_store_ops stub_ops = {.type = "stub",
                                             .put = stub_put,
                                             .get = stub_get,
                                             .size = stub_size,
                                             .list = stub_list,
                                             .remove = stub_remove,
                                             .close = stub_close};

static void test_get_all(uint64_t size, int gets, int sizes)
{
    struct stub stub = {.store.ops = &stub_ops, .size = size};
    uint8_t *bytes = NULL;
    size_t len = 0;
    tap_is_int(vv_store_get_all(&stub.store, "object", (size_t)size, &bytes, &len), 0,
               "an object of %llu bytes", (unsigned long long)size);
    bool is_right = len == size;
    for (size_t i = 0; is_right && i < len; i++)
        is_right = bytes[i] == byte_at(i);
    tap_ok(is_right, "has the right bytes");
    tap_is_int(stub.gets, gets, "gets that it took");
    tap_is_int(stub.sizes, sizes, "and sizes");
    vv_free(bytes);
    bytes = NULL;
    if (size > 0)
        tap_is_int(vv_store_get_all(&stub.store, "object", (size_t)size - 1, &bytes, &len), -EFBIG,
                   "refused when larger than expected");
    tap_ok(!bytes, "the output is untouched");

    size_t live = vv_alloc_domain_count(0);
    int err = -ENOMEM;
    for (int n = 0; err < 0 && n < 100; n++) {
        vv_alloc_fail_at(n, false);
        err = vv_store_get_all(&stub.store, "object", (size_t)size, &bytes, &len);
        vv_alloc_fail_at(-1, false);
        if (err < 0 && (err != -ENOMEM || vv_alloc_domain_count(0) != live))
            tap_ok(false, "allocation %d fails: nothing is left", n);
    }
    tap_is_int(err, 0, "n-th allocation failing: at last it succeeds");
    vv_free(bytes);
}

int main(void)
{
    struct stub stub = {.store.ops = &stub_ops};
    uint64_t out;
    uint8_t *bytes;
    size_t len;
    vv_alloc_track(true);
    test_get_all(0, 1, 0);
    test_get_all(1, 1, 0);
    test_get_all(65535, 1, 0);
    test_get_all(65536, 1, 1);
    test_get_all(65537, 2, 1);
    test_get_all(1 << 20, 2, 1);
    tap_is_int(vv_store_get_all(&stub.store, "other", 10, &bytes, &len), -ENOENT, "absent");
    tap_is_int(vv_store_sync(&stub.store, "object"), 0, "a store without sync needs none");
    tap_is_int(vv_store_space(&stub.store, &out, &out), -EOPNOTSUPP, "a store without space");
    struct iovec huge[2] = {{NULL, (size_t)VV_STORE_OBJECT_MAX}, {NULL, 1}};
    tap_is_int(vv_store_put(&stub.store, "a", huge, 1), 0, "the largest object");
    tap_is_int(vv_store_put(&stub.store, "a", huge, 2), -EFBIG, "one more byte");
    huge[0].iov_len = SIZE_MAX;
    tap_is_int(vv_store_put(&stub.store, "a", huge, 2), -EFBIG, "sizes that overflow");
    vv_store_close(NULL);
    vv_store_close(&stub.store);
    tap_ok(stub.is_closed, "close reaches the store");
    return tap_done();
}
