#include "seal/sealer_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/plant.h"
#include "rt/rt.h"
#include "seal/keyring_impl.h"

#define INFO_PREFIX "varve"
/* The header's bytes between magic and checksum: all that says what the object is. */
#define INFO_HEADER_OFFSET 8
#define INFO_HEADER_LEN (VV_OBJECT_HEADER_LEN - 4 - INFO_HEADER_OFFSET)
#define INFO_LEN_MAX (sizeof(INFO_PREFIX) - 1 + INFO_HEADER_LEN + VV_SEAL_NAME_MAX)

static int derive(const uint8_t *master_key, const struct vv_object_header *header,
                  const char *name, struct vv_key *out_key)
{
    uint8_t encoded[VV_OBJECT_HEADER_LEN];
    vv_object_header_encode(header, encoded);
    uint8_t info[INFO_LEN_MAX];
    struct vv_writer writer = vv_writer_of(info, sizeof(info));
    vv_writer_bytes(&writer, INFO_PREFIX, sizeof(INFO_PREFIX) - 1);
    vv_writer_bytes(&writer, encoded + INFO_HEADER_OFFSET, INFO_HEADER_LEN);
    vv_writer_bytes(&writer, name, strlen(name));
    assert(!writer.is_bad && "the name is longer than VV_SEAL_NAME_MAX");
    return vv_key_derive((struct vv_bytes){master_key, VV_MASTER_KEY_LEN},
                         (struct vv_bytes){header->salt, sizeof(header->salt)},
                         (struct vv_bytes){info, writer.len}, out_key);
}

int vv_sealer_make(const struct vv_keyring *ring, const struct vv_object_header *header,
                   const char *name, const struct vv_seal_settings *settings,
                   struct vv_sealer **out_sealer)
{
    if (memcmp(header->volume_id, ring->volume_id, sizeof(ring->volume_id)) != 0)
        return -VV_ERR_FORMAT;
    const uint8_t *master_key = vv_keyring_key(ring, header->key_generation);
    if (!master_key)
        return -VV_ERR_NO_KEY;
    struct vv_sealer *sealer = vv_zalloc(sizeof(*sealer));
    if (!sealer)
        return -ENOMEM;
    int err = derive(master_key, header, name, &sealer->key);
    if (err < 0) {
        vv_sealer_free(sealer);
        return err;
    }
    sealer->cipher = (enum vv_cipher)header->cipher;
    if (settings) {
        sealer->compression = settings->compression;
        sealer->level = settings->level;
        sealer->is_writing = true;
    }
    *out_sealer = sealer;
    return 0;
}

int vv_sealer_new(const struct vv_keyring *ring, enum vv_object_kind kind, const char *name,
                  uint64_t number, const struct vv_seal_settings *settings,
                  struct vv_object_header *out_header, struct vv_sealer **out_sealer)
{
    assert(kind != VV_KIND_KEYS);
    struct vv_object_header header = {
        .version = VV_FORMAT_VERSION,
        .kind = (uint8_t)kind,
        .cipher = (uint8_t)settings->cipher,
        .key_generation = vv_keyring_generation(ring),
        .number = number,
    };
    uint8_t random[sizeof(header.attempt_id) + sizeof(header.salt)];
    vv_rt_random(random, sizeof(random));
    memcpy(header.volume_id, ring->volume_id, sizeof(header.volume_id));
    memcpy(header.attempt_id, random, sizeof(header.attempt_id));
    memcpy(header.salt, random + sizeof(header.attempt_id), sizeof(header.salt));
    if (vv_planted(VV_PLANT_REUSED_SALT))
        memset(header.salt, (uint8_t)vv_crc32c(0, name, strlen(name)), sizeof(header.salt));
    TRY(vv_sealer_make(ring, &header, name, settings, out_sealer));
    *out_header = header;
    return 0;
}

int vv_sealer_open(const struct vv_keyring *ring, const struct vv_object_header *header,
                   const char *name, struct vv_sealer **out_sealer)
{
    return vv_sealer_make(ring, header, name, NULL, out_sealer);
}

void vv_sealer_free(struct vv_sealer *sealer)
{
    if (!sealer)
        return;
    vv_key_done(&sealer->key);
    vv_free(sealer);
}
