/* A sealer's inside, and making one with a salt that is given, for tests with stored vectors. */
#ifndef VV_SEAL_SEALER_IMPL_H
#define VV_SEAL_SEALER_IMPL_H

#include "seal/aead_impl.h"
#include "seal/seal.h"

#define VV_SEAL_NAME_MAX 255 /* bytes of an object's name */

struct vv_sealer {
    struct vv_key key;
    enum vv_cipher cipher;
    enum vv_compression compression;
    int level;
    bool is_writing; /* frames may be sealed: the salt is fresh */
};

/* A sealer for the object that begins with `header`; for writing when `settings` is not NULL.
 * -VV_ERR_FORMAT, -VV_ERR_NO_KEY, -ENOMEM as vv_sealer_open. */
MUST_CHECK int vv_sealer_make(const struct vv_keyring *ring, const struct vv_object_header *header,
                              const char *name, const struct vv_seal_settings *settings,
                              struct vv_sealer **out_sealer);

#endif
