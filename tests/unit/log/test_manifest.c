#include "log/manifest.h"

#include "rig.h"

static struct vv_manifest filled_manifest(void)
{
    struct vv_manifest manifest = {
        .number = 41,
        .keys_number = 3,
        .epoch = 9,
        .last_commit = 1234567,
        .counters = {.next_inode = 1u << 20, .next_data_id = UINT64_MAX},
        .settings = {VV_CIPHER_XCHACHA20_POLY1305, VV_COMPRESSION_ZSTD, -5},
    };
    memset(manifest.owner_id, 1, 16);
    memset(manifest.journal_id, 2, 16);
    manifest.epochs = vv_calloc(2, sizeof(*manifest.epochs));
    manifest.epoch_count = 2;
    manifest.epochs[0] = (struct vv_epoch_ref){4, 77};
    manifest.epochs[1] = (struct vv_epoch_ref){9, 0};
    manifest.tables = vv_calloc(2, sizeof(*manifest.tables));
    manifest.table_count = 2;
    for (size_t i = 0; i < 2; i++)
        manifest.tables[i] = (struct vv_table_ref){.epoch = 4,
                                                   .counter = 10 + i,
                                                   .level = (uint8_t)i,
                                                   .bytes = 1u << 30,
                                                   .entries = 99,
                                                   .order = 5,
                                                   .min_key = vv_memdup("Da", 2),
                                                   .min_key_len = 2,
                                                   .max_key = vv_memdup("Dbc", 3),
                                                   .max_key_len = 3};
    manifest.pins = vv_calloc(1, sizeof(*manifest.pins));
    manifest.pin_count = 1;
    manifest.pins[0] = (struct vv_pin){.manifest = 12, .name = "before the move"};
    memset(manifest.pins[0].id, 3, 16);
    manifest.parents = vv_calloc(1, sizeof(*manifest.parents));
    manifest.parent_count = 1;
    memset(manifest.parents[0], 4, 16);
    return manifest;
}

/* The plain content decides equality: it holds every field. */
static bool is_equal(const struct vv_manifest *a, const struct vv_manifest *b)
{
    struct vv_writer left = vv_writer_new();
    struct vv_writer right = vv_writer_new();
    vv_manifest_encode_plain(&left, a);
    vv_manifest_encode_plain(&right, b);
    bool result = left.len == right.len && memcmp(left.ptr, right.ptr, left.len) == 0;
    vv_writer_done(&left);
    vv_writer_done(&right);
    return result;
}

static void test_names(void)
{
    char name[VV_STORE_NAME_MAX + 1];
    uint64_t number = 0;
    vv_manifest_name(41, name, sizeof(name));
    tap_is_str(name, "manifest/00000000000000000041", "a name has 20 digits");
    tap_ok(vv_manifest_name_parse(name, &number) == 0 && number == 41, "and is read back");
    vv_manifest_name(UINT64_MAX, name, sizeof(name));
    tap_ok(vv_manifest_name_parse(name, &number) == 0 && number == UINT64_MAX, "the greatest too");
    tap_is_int(vv_manifest_name_parse("manifest/41", &number), -EINVAL, "too short");
    tap_is_int(vv_manifest_name_parse("manifest/0000000000000000004x", &number), -EINVAL,
               "not a number");
    tap_is_int(vv_manifest_name_parse("manifest/99999999999999999999", &number), -EINVAL,
               "too great");
}

static void test_round_trip(void)
{
    struct rig rig = rig_new();
    struct vv_manifest manifest = filled_manifest();
    struct vv_manifest back;
    uint8_t *bytes, *again;
    size_t len, again_len;
    uint8_t attempt[16], other[16];
    tap_is_int(vv_manifest_encode(rig.ring, &manifest, &bytes, &len, attempt), 0, "encodes");
    tap_is_int(vv_manifest_decode(rig.ring, 41, bytes, len, &back), 0, "decodes");
    tap_ok(is_equal(&manifest, &back), "to the same");
    tap_is_str(back.pins[0].name, "before the move", "names included");
    vv_manifest_done(&back);
    tap_is_int(vv_manifest_encode(rig.ring, &manifest, &again, &again_len, other), 0, "again");
    tap_ok(memcmp(attempt, other, 16) != 0, "with another attempt id");
    tap_ok(memcmp(bytes + 48, again + 48, 32) != 0, "and another salt (3)");
    vv_free(again);
    tap_is_int(vv_manifest_decode(rig.ring, 42, bytes, len, &back), -VV_ERR_AUTH,
               "under another number it does not authenticate");
    bool is_refused = true;
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 0x20;
        is_refused &= vv_manifest_decode(rig.ring, 41, bytes, len, &back) < 0;
        bytes[i] ^= 0x20;
        is_refused &= vv_manifest_decode(rig.ring, 41, bytes, i, &back) < 0;
    }
    tap_ok(is_refused, "any changed byte, and any shortening, is refused");
    vv_free(bytes);
    vv_manifest_done(&manifest);
    tap_ok(manifest.tables == NULL && manifest.number == 0, "done zeroes");
    rig_free(&rig);
}

static int decode_changed(void (*change)(struct vv_manifest *))
{
    struct vv_manifest manifest = filled_manifest();
    struct vv_manifest back;
    struct vv_writer writer = vv_writer_new();
    change(&manifest);
    vv_manifest_encode_plain(&writer, &manifest);
    int err = vv_manifest_decode_plain(writer.ptr, writer.len, &back);
    if (!err)
        vv_manifest_done(&back);
    vv_writer_done(&writer);
    vv_manifest_done(&manifest);
    return err;
}

static void change_nothing(struct vv_manifest *manifest)
{
    (void)manifest;
}

static void change_epoch_order(struct vv_manifest *manifest)
{
    manifest->epochs[0].epoch = 9;
}

static void change_epoch_above(struct vv_manifest *manifest)
{
    manifest->epochs[1].epoch = 10;
}

static void change_cipher(struct vv_manifest *manifest)
{
    manifest->settings.cipher = (enum vv_cipher)3;
}

static void change_keys(struct vv_manifest *manifest)
{
    manifest->tables[1].min_key[0] = 'E';
}

static void test_refusals(void)
{
    tap_is_int(decode_changed(change_nothing), 0, "the unchanged content is fine");
    tap_is_int(decode_changed(change_epoch_order), -VV_ERR_FORMAT, "epochs must ascend");
    tap_is_int(decode_changed(change_epoch_above), -VV_ERR_FORMAT, "up to the newest");
    tap_is_int(decode_changed(change_cipher), -VV_ERR_FORMAT, "the cipher must be known");
    tap_is_int(decode_changed(change_keys), -VV_ERR_FORMAT, "a table's keys must ascend");
    struct vv_manifest manifest;
    uint8_t many[64] = {0};
    memset(many, 0xff, sizeof(many));
    tap_is_int(vv_manifest_decode_plain(many, sizeof(many), &manifest), -VV_ERR_FORMAT,
               "great counts take no memory");
}

static void test_copy_failures(void)
{
    struct vv_manifest manifest = filled_manifest();
    struct vv_manifest copy = {.number = 7};
    int64_t n = 0;
    bool is_untouched = true;
    size_t live = vv_alloc_domain_count(vv_alloc_domain());
    for (;; n++) {
        vv_alloc_fail_at(n, false);
        int err = vv_manifest_copy(&manifest, &copy);
        bool has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        if (!has_failed)
            break;
        is_untouched &= err == -ENOMEM && copy.number == 7;
        is_untouched &= vv_alloc_domain_count(vv_alloc_domain()) == live;
    }
    tap_ok(is_untouched && n > 5, "a copy that fails leaves nothing");
    tap_ok(is_equal(&manifest, &copy), "one that succeeds is the same");
    vv_manifest_done(&copy);
    vv_manifest_done(&manifest);
}

static void test_codec_failures(void)
{
    struct rig rig = rig_new();
    struct vv_manifest manifest = filled_manifest();
    struct vv_manifest back;
    bool is_clean = true;
    size_t live = vv_alloc_domain_count(vv_alloc_domain());
    for (int64_t n = 0;; n++) {
        uint8_t *bytes = NULL;
        size_t len = 0;
        uint8_t attempt[16];
        vv_alloc_fail_at(n, false);
        int err = vv_manifest_encode(rig.ring, &manifest, &bytes, &len, attempt);
        if (!err)
            err = vv_manifest_decode(rig.ring, 41, bytes, len, &back);
        bool has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        vv_free(bytes);
        if (!err)
            vv_manifest_done(&back);
        is_clean &= vv_alloc_domain_count(vv_alloc_domain()) == live;
        is_clean &= has_failed ? err == -ENOMEM : err == 0;
        if (!has_failed)
            break;
    }
    tap_ok(is_clean, "each failing allocation is -ENOMEM and leaks nothing");
    manifest.epoch_count = VV_LIVE_EPOCHS_MAX + 1;
    uint8_t *bytes;
    size_t len;
    uint8_t attempt[16];
    tap_is_int(vv_manifest_encode(rig.ring, &manifest, &bytes, &len, attempt), -VV_ERR_LIMIT,
               "too many live epochs");
    manifest.epoch_count = 2;
    vv_manifest_done(&manifest);
    rig_free(&rig);
}

static void test_main(void *arg)
{
    (void)arg;
    test_names();
    test_round_trip();
    test_refusals();
    test_copy_failures();
    test_codec_failures();
}

int main(void)
{
    rig_main();
    run_world(1, test_main, NULL);
    return tap_done();
}
