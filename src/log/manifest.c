/* The plain content of a manifest's frame, varints unless noted:
 *
 *   number, keys number, epoch
 *   16      owner id
 *   16      journal id (zero = none)
 *   last commit, next inode, next data id
 *   1       cipher           1   compression
 *   signed  compression level
 *   count of live epochs,    then for each: epoch, replay sequence
 *   count of tables,         then for each: epoch, counter, 1 level, bytes, entries, order,
 *                            minimum key (length, bytes), maximum key (length, bytes)
 *   count of pins,           then for each: manifest, 16 id, name (length, bytes)
 *   count of parents,        then for each: 16 volume id
 *
 * Nothing follows. Counts are at most the VV_*_MAX of manifest.h; live epochs ascend strictly and
 * none is above `epoch`. */
#include "log/manifest.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/text.h"
#include "store/store.h"

#define MANIFEST_PREFIX "manifest/"
#define MANIFEST_DIGITS 20

/* The fewest bytes that an entry takes: what a count claims is checked against the bytes left
 * before memory is taken for it. */
#define EPOCH_LEN_MIN 2
#define TABLE_LEN_MIN 8
#define PIN_LEN_MIN 18
#define PARENT_LEN_MIN 16

void vv_manifest_done(struct vv_manifest *manifest)
{
    if (!manifest)
        return;
    for (size_t i = 0; i < manifest->table_count; i++) {
        vv_free(manifest->tables[i].min_key);
        vv_free(manifest->tables[i].max_key);
    }
    vv_free(manifest->tables);
    vv_free(manifest->epochs);
    vv_free(manifest->pins);
    vv_free(manifest->parents);
    *manifest = (struct vv_manifest){0};
}

/* *out_copy = a copy of count * size bytes, NULL when that is nothing. */
static int copy_array(const void *array, size_t count, size_t size, void *out_copy)
{
    void *copy = NULL;
    if (count > 0) {
        copy = vv_calloc(count, size);
        if (!copy)
            return -ENOMEM;
        memcpy(copy, array, count * size);
    }
    memcpy(out_copy, &copy, sizeof(copy));
    return 0;
}

static int copy_tables(const struct vv_manifest *manifest, struct vv_manifest *copy)
{
    if (manifest->table_count == 0)
        return 0;
    copy->tables = vv_calloc(manifest->table_count, sizeof(*copy->tables));
    if (!copy->tables)
        return -ENOMEM;
    for (size_t i = 0; i < manifest->table_count; i++) {
        const struct vv_table_ref *from = &manifest->tables[i];
        struct vv_table_ref *to = &copy->tables[i];
        *to = *from;
        to->min_key = vv_memdup(from->min_key, from->min_key_len);
        to->max_key = vv_memdup(from->max_key, from->max_key_len);
        copy->table_count = i + 1;
        if (!to->min_key || !to->max_key)
            return -ENOMEM;
    }
    return 0;
}

static int copy_owned(const struct vv_manifest *manifest, struct vv_manifest *copy)
{
    TRY(copy_array(manifest->epochs, manifest->epoch_count, sizeof(*manifest->epochs),
                   &copy->epochs));
    copy->epoch_count = manifest->epoch_count;
    TRY(copy_array(manifest->pins, manifest->pin_count, sizeof(*manifest->pins), &copy->pins));
    copy->pin_count = manifest->pin_count;
    TRY(copy_array(manifest->parents, manifest->parent_count, sizeof(*manifest->parents),
                   &copy->parents));
    copy->parent_count = manifest->parent_count;
    return copy_tables(manifest, copy);
}

int vv_manifest_copy(const struct vv_manifest *manifest, struct vv_manifest *out_copy)
{
    struct vv_manifest copy = *manifest;
    copy.epochs = NULL;
    copy.epoch_count = 0;
    copy.tables = NULL;
    copy.table_count = 0;
    copy.pins = NULL;
    copy.pin_count = 0;
    copy.parents = NULL;
    copy.parent_count = 0;
    int err = copy_owned(manifest, &copy);
    if (err) {
        vv_manifest_done(&copy);
        return err;
    }
    *out_copy = copy;
    return 0;
}

void vv_manifest_name(uint64_t number, char *name, size_t size)
{
    vv_format(name, size, MANIFEST_PREFIX "%0*llu", MANIFEST_DIGITS, (unsigned long long)number);
}

int vv_manifest_name_parse(const char *name, uint64_t *out_number)
{
    size_t prefix_len = sizeof(MANIFEST_PREFIX) - 1;
    if (strncmp(name, MANIFEST_PREFIX, prefix_len) != 0 ||
        strlen(name) != prefix_len + MANIFEST_DIGITS)
        return -EINVAL;
    return vv_parse_u64(name + prefix_len, out_number) ? -EINVAL : 0;
}

/* ---- encoding ---- */

static void encode_tables(struct vv_writer *writer, const struct vv_manifest *manifest)
{
    vv_writer_varint(writer, manifest->table_count);
    for (size_t i = 0; i < manifest->table_count; i++) {
        const struct vv_table_ref *table = &manifest->tables[i];
        vv_writer_varint(writer, table->epoch);
        vv_writer_varint(writer, table->counter);
        vv_writer_u8(writer, table->level);
        vv_writer_varint(writer, table->bytes);
        vv_writer_varint(writer, table->entries);
        vv_writer_varint(writer, table->order);
        vv_writer_string(writer, table->min_key, table->min_key_len);
        vv_writer_string(writer, table->max_key, table->max_key_len);
    }
}

void vv_manifest_encode_plain(struct vv_writer *writer, const struct vv_manifest *manifest)
{
    vv_writer_varint(writer, manifest->number);
    vv_writer_varint(writer, manifest->keys_number);
    vv_writer_varint(writer, manifest->epoch);
    vv_writer_bytes(writer, manifest->owner_id, sizeof(manifest->owner_id));
    vv_writer_bytes(writer, manifest->journal_id, sizeof(manifest->journal_id));
    vv_writer_varint(writer, manifest->last_commit);
    vv_writer_varint(writer, manifest->counters.next_inode);
    vv_writer_varint(writer, manifest->counters.next_data_id);
    vv_writer_u8(writer, (uint8_t)manifest->settings.cipher);
    vv_writer_u8(writer, (uint8_t)manifest->settings.compression);
    vv_writer_svarint(writer, manifest->settings.level);
    vv_writer_varint(writer, manifest->epoch_count);
    for (size_t i = 0; i < manifest->epoch_count; i++) {
        vv_writer_varint(writer, manifest->epochs[i].epoch);
        vv_writer_varint(writer, manifest->epochs[i].replay_seq);
    }
    encode_tables(writer, manifest);
    vv_writer_varint(writer, manifest->pin_count);
    for (size_t i = 0; i < manifest->pin_count; i++) {
        const struct vv_pin *pin = &manifest->pins[i];
        vv_writer_varint(writer, pin->manifest);
        vv_writer_bytes(writer, pin->id, sizeof(pin->id));
        vv_writer_string(writer, pin->name, strnlen(pin->name, sizeof(pin->name) - 1));
    }
    vv_writer_varint(writer, manifest->parent_count);
    for (size_t i = 0; i < manifest->parent_count; i++)
        vv_writer_bytes(writer, manifest->parents[i], sizeof(manifest->parents[i]));
}

/* What decoding would refuse is not written either. */
static int check_limits(const struct vv_manifest *manifest)
{
    if (manifest->epoch_count > VV_LIVE_EPOCHS_MAX || manifest->table_count > VV_TABLES_MAX ||
        manifest->pin_count > VV_PINS_MAX || manifest->parent_count > VV_PARENTS_MAX)
        return -VV_ERR_LIMIT;
    return 0;
}

/* Seal `plain` as the whole object: header and one frame. */
static int seal_object(const struct vv_keyring *ring, const struct vv_manifest *manifest,
                       const struct vv_writer *plain, uint8_t **out_bytes, size_t *out_len,
                       uint8_t out_attempt_id[16])
{
    char name[VV_STORE_NAME_MAX + 1];
    vv_manifest_name(manifest->number, name, sizeof(name));
    size_t capacity = VV_OBJECT_HEADER_LEN + vv_frame_bound(plain->len);
    CLEANUP(vv_free_ptr) uint8_t *bytes = vv_alloc(capacity);
    if (!bytes)
        return -ENOMEM;
    /* Rule 3: every sealing draws its own salt and attempt id. */
    struct vv_object_header header;
    struct vv_sealer *sealer;
    TRY(vv_sealer_new(ring, VV_KIND_MANIFEST, name, manifest->keys_number, &manifest->settings,
                      &header, &sealer));
    vv_object_header_encode(&header, bytes);
    struct vv_origin origin = {VV_ORIGIN_MANIFEST, manifest->number};
    ssize_t frame_len =
        vv_frame_seal(sealer, 0, &origin, plain->ptr, plain->len, bytes + VV_OBJECT_HEADER_LEN,
                      capacity - VV_OBJECT_HEADER_LEN);
    vv_sealer_free(sealer);
    TRY(frame_len);
    memcpy(out_attempt_id, header.attempt_id, sizeof(header.attempt_id));
    *out_len = VV_OBJECT_HEADER_LEN + (size_t)frame_len;
    *out_bytes = bytes;
    bytes = NULL;
    return 0;
}

int vv_manifest_encode(const struct vv_keyring *ring, const struct vv_manifest *manifest,
                       uint8_t **out_bytes, size_t *out_len, uint8_t out_attempt_id[16])
{
    TRY(check_limits(manifest));
    CLEANUP(vv_writer_done) struct vv_writer plain = vv_writer_new();
    vv_manifest_encode_plain(&plain, manifest);
    TRY(vv_writer_check(&plain));
    if (plain.len > VV_MANIFEST_MAX)
        return -VV_ERR_LIMIT;
    return seal_object(ring, manifest, &plain, out_bytes, out_len, out_attempt_id);
}

/* ---- decoding ---- */

/* A count of entries of at least `len_min` bytes each; a bad cursor gives 0. */
static size_t decode_count(struct vv_cursor *cursor, size_t max, size_t len_min)
{
    uint64_t count = vv_cursor_varint(cursor);
    if (count > max || count > cursor->len / len_min)
        cursor->is_bad = true;
    return cursor->is_bad ? 0 : (size_t)count;
}

static int decode_settings(struct vv_cursor *cursor, struct vv_seal_settings *settings)
{
    uint8_t cipher = vv_cursor_u8(cursor);
    uint8_t compression = vv_cursor_u8(cursor);
    int64_t level = vv_cursor_svarint(cursor);
    if (cipher > VV_CIPHER_XCHACHA20_POLY1305 || compression > VV_COMPRESSION_ZSTD ||
        level < INT32_MIN || level > INT32_MAX)
        return -VV_ERR_FORMAT;
    settings->cipher = (enum vv_cipher)cipher;
    settings->compression = (enum vv_compression)compression;
    settings->level = (int)level;
    return 0;
}

static int decode_epochs(struct vv_cursor *cursor, struct vv_manifest *manifest)
{
    size_t count = decode_count(cursor, VV_LIVE_EPOCHS_MAX, EPOCH_LEN_MIN);
    if (count == 0)
        return 0;
    manifest->epochs = vv_calloc(count, sizeof(*manifest->epochs));
    if (!manifest->epochs)
        return -ENOMEM;
    manifest->epoch_count = count;
    for (size_t i = 0; i < count; i++) {
        struct vv_epoch_ref *ref = &manifest->epochs[i];
        ref->epoch = vv_cursor_varint(cursor);
        ref->replay_seq = vv_cursor_varint(cursor);
        if (ref->epoch > manifest->epoch || (i > 0 && ref->epoch <= ref[-1].epoch))
            return -VV_ERR_FORMAT;
    }
    return 0;
}

static int decode_key(struct vv_cursor *cursor, uint8_t **out_key, uint16_t *out_len)
{
    struct vv_bytes key = vv_cursor_string(cursor, VV_TABLE_KEY_MAX);
    if (cursor->is_bad)
        return -VV_ERR_FORMAT;
    *out_key = vv_memdup(key.ptr, key.len);
    if (!*out_key)
        return -ENOMEM;
    *out_len = (uint16_t)key.len;
    return 0;
}

static int decode_table(struct vv_cursor *cursor, struct vv_table_ref *table)
{
    table->epoch = vv_cursor_varint(cursor);
    table->counter = vv_cursor_varint(cursor);
    table->level = vv_cursor_u8(cursor);
    table->bytes = vv_cursor_varint(cursor);
    table->entries = vv_cursor_varint(cursor);
    table->order = vv_cursor_varint(cursor);
    TRY(decode_key(cursor, &table->min_key, &table->min_key_len));
    TRY(decode_key(cursor, &table->max_key, &table->max_key_len));
    struct vv_bytes min = {table->min_key, table->min_key_len};
    struct vv_bytes max = {table->max_key, table->max_key_len};
    return vv_bytes_compare(min, max) <= 0 ? 0 : -VV_ERR_FORMAT;
}

static int decode_tables(struct vv_cursor *cursor, struct vv_manifest *manifest)
{
    size_t count = decode_count(cursor, VV_TABLES_MAX, TABLE_LEN_MIN);
    if (count == 0)
        return 0;
    manifest->tables = vv_calloc(count, sizeof(*manifest->tables));
    if (!manifest->tables)
        return -ENOMEM;
    manifest->table_count = count; /* zeroed entries are safe to free */
    for (size_t i = 0; i < count; i++)
        TRY(decode_table(cursor, &manifest->tables[i]));
    return 0;
}

static int decode_pins(struct vv_cursor *cursor, struct vv_manifest *manifest)
{
    size_t count = decode_count(cursor, VV_PINS_MAX, PIN_LEN_MIN);
    if (count == 0)
        return 0;
    manifest->pins = vv_calloc(count, sizeof(*manifest->pins));
    if (!manifest->pins)
        return -ENOMEM;
    manifest->pin_count = count;
    for (size_t i = 0; i < count; i++) {
        struct vv_pin *pin = &manifest->pins[i];
        pin->manifest = vv_cursor_varint(cursor);
        vv_cursor_copy(cursor, pin->id, sizeof(pin->id));
        struct vv_bytes name = vv_cursor_string(cursor, sizeof(pin->name) - 1);
        if (cursor->is_bad || (name.len > 0 && memchr(name.ptr, '\0', name.len)))
            return -VV_ERR_FORMAT;
        if (name.len > 0)
            memcpy(pin->name, name.ptr, name.len);
    }
    return 0;
}

static int decode_parents(struct vv_cursor *cursor, struct vv_manifest *manifest)
{
    size_t count = decode_count(cursor, VV_PARENTS_MAX, PARENT_LEN_MIN);
    if (count == 0)
        return 0;
    manifest->parents = vv_calloc(count, sizeof(*manifest->parents));
    if (!manifest->parents)
        return -ENOMEM;
    manifest->parent_count = count;
    for (size_t i = 0; i < count; i++)
        vv_cursor_copy(cursor, manifest->parents[i], sizeof(manifest->parents[i]));
    return 0;
}

static int decode_content(struct vv_cursor *cursor, struct vv_manifest *manifest)
{
    manifest->number = vv_cursor_varint(cursor);
    manifest->keys_number = vv_cursor_varint(cursor);
    manifest->epoch = vv_cursor_varint(cursor);
    vv_cursor_copy(cursor, manifest->owner_id, sizeof(manifest->owner_id));
    vv_cursor_copy(cursor, manifest->journal_id, sizeof(manifest->journal_id));
    manifest->last_commit = vv_cursor_varint(cursor);
    manifest->counters.next_inode = vv_cursor_varint(cursor);
    manifest->counters.next_data_id = vv_cursor_varint(cursor);
    TRY(decode_settings(cursor, &manifest->settings));
    TRY(decode_epochs(cursor, manifest));
    TRY(decode_tables(cursor, manifest));
    TRY(decode_pins(cursor, manifest));
    TRY(decode_parents(cursor, manifest));
    return vv_cursor_end(cursor);
}

int vv_manifest_decode_plain(const void *bytes, size_t len, struct vv_manifest *out_manifest)
{
    struct vv_manifest manifest = {0};
    struct vv_cursor cursor = vv_cursor_of(bytes, len);
    int err = decode_content(&cursor, &manifest);
    if (err) {
        vv_manifest_done(&manifest);
        return err;
    }
    *out_manifest = manifest;
    return 0;
}

/* Authenticate and open the frame of a manifest object. The caller frees *out_plain. */
static int open_frame(const struct vv_keyring *ring, uint64_t number, const uint8_t *bytes,
                      size_t len, const struct vv_object_header *header, uint8_t **out_plain,
                      size_t *out_len)
{
    const uint8_t *frame = bytes + VV_OBJECT_HEADER_LEN;
    size_t frame_len = len - VV_OBJECT_HEADER_LEN;
    ssize_t plain_len = vv_frame_plain_len(frame, frame_len);
    TRY(plain_len);
    CLEANUP(vv_free_ptr) uint8_t *plain = vv_alloc((size_t)plain_len);
    if (!plain)
        return -ENOMEM;
    char name[VV_STORE_NAME_MAX + 1];
    vv_manifest_name(number, name, sizeof(name));
    struct vv_sealer *sealer;
    TRY(vv_sealer_open(ring, header, name, &sealer));
    struct vv_origin origin = {VV_ORIGIN_MANIFEST, number};
    ssize_t opened = vv_frame_open(sealer, 0, &origin, frame, frame_len, plain, (size_t)plain_len);
    vv_sealer_free(sealer);
    TRY(opened);
    *out_len = (size_t)opened;
    *out_plain = plain;
    plain = NULL;
    return 0;
}

int vv_manifest_decode(const struct vv_keyring *ring, uint64_t number, const void *bytes,
                       size_t len, struct vv_manifest *out_manifest)
{
    struct vv_object_header header;
    TRY(vv_object_header_decode(bytes, len, &header));
    if (header.kind != VV_KIND_MANIFEST)
        return -VV_ERR_FORMAT;
    CLEANUP(vv_free_ptr) uint8_t *plain = NULL;
    size_t plain_len;
    TRY(open_frame(ring, number, bytes, len, &header, &plain, &plain_len));
    struct vv_manifest manifest;
    TRY(vv_manifest_decode_plain(plain, plain_len, &manifest));
    if (manifest.number != number || manifest.keys_number != header.number) {
        vv_manifest_done(&manifest);
        return -VV_ERR_FORMAT;
    }
    *out_manifest = manifest;
    return 0;
}
