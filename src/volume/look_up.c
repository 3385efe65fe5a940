#include "volume/volume_impl.h"

/* What was fetched may be gone before it is read, when a flush or a compaction comes between: then from the start. */
static int take_all(const struct vv_look_up *how, const struct vv_bytes *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct vv_lsm_value value;
        int found = vv_lsm_get(how->volume->lsm, keys[i], &value);
        TRY(found);
        TRY(how->take(how->arg, i, found > 0 ? &value : NULL));
    }
    return 0;
}

int vv_look_up(const struct vv_look_up *how, const struct vv_bytes *keys, size_t count)
{
    int err;
    do {
        if (how->is_going != NULL && !how->is_going(how->volume))
            return -VV_ERR_STOPPED;
        struct vv_lsm_pins pins;
        vv_lsm_pins_init(&pins);
        err = vv_lsm_fetch(how->volume->lsm, keys, count, &pins);
        if (err == 0)
            err = take_all(how, keys, count);
        vv_lsm_pins_done(&pins);
    } while (err == -VV_ERR_MISS);
    return err;
}
