#include "confirmed.h"

#include <errno.h>

#include "base/alloc.h"
#include "cache/cache.h"
#include "lsm/lsm.h"
#include "volume/extent.h"

#define CACHE_BYTES (4u << 20)

static int put_nothing(void *arg, const char *name, const uint8_t attempt_id[16],
                       const struct iovec *iov, int count)
{
    return -EROFS;
}

static int look_up(struct vv_lsm *lsm, const struct vv_segment_id *id, int64_t *out_live)
{
    uint8_t bytes[VV_VOLUME_KEY_MAX];
    struct vv_bytes key = {bytes, vv_key_segment(bytes, id)};
    struct vv_lsm_pins pins;
    int64_t total;
    vv_lsm_pins_init(&pins);
    int err = vv_lsm_fetch(lsm, &key, 1, &pins);
    if (err == 0)
        err = vv_lsm_get_sums(lsm, key, &total, out_live);
    vv_lsm_pins_done(&pins);
    return err;
}

int confirmed_live(const struct vv_manifest *manifest, const struct vv_keyring *ring,
                   struct vv_store *direct, const struct vv_segment_id *id, int64_t *out_live)
{
    struct vv_budget budget;
    struct vv_cache *cache;
    struct vv_lsm *lsm = NULL;
    struct vv_seal_settings settings = manifest->settings;
    vv_budget_init(&budget, NULL, CACHE_BYTES);
    TRY(vv_cache_new(&budget, CACHE_BYTES, &cache));
    struct vv_lsm_options options = {.store = direct,
                                     .ring = ring,
                                     .cache = cache,
                                     .mem_budget = &budget,
                                     .put = put_nothing,
                                     .settings = &settings};
    int err = vv_lsm_new(&options, &lsm);
    if (err == 0)
        err = vv_lsm_load(lsm, manifest->tables, manifest->table_count);
    if (err == 0)
        err = look_up(lsm, id, out_live);
    vv_lsm_free(lsm);
    vv_cache_free(cache);
    return err;
}
