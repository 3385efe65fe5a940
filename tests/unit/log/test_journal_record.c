#include "log/journal.h"

#include "rig.h"

static int decode_changed(size_t at, uint8_t bit)
{
    struct vv_journal_record record = {
        .commit = 700, .sealed_len = 5000, .session = 0x1122334455667788u, .group_index = 3};
    uint8_t bytes[VV_JOURNAL_RECORD_HEADER_LEN];
    vv_journal_record_encode(&record, bytes);
    bytes[at] ^= bit;
    return vv_journal_record_decode(bytes, sizeof(bytes), &record);
}

static int decode_of(struct vv_journal_record record)
{
    uint8_t bytes[VV_JOURNAL_RECORD_HEADER_LEN];
    vv_journal_record_encode(&record, bytes);
    return vv_journal_record_decode(bytes, sizeof(bytes), &record);
}

int main(void)
{
    rig_main();
    struct vv_journal_record record = {
        .commit = 700, .sealed_len = 5000, .session = 0x1122334455667788u, .group_index = 3};
    struct vv_journal_record back;
    uint8_t bytes[VV_JOURNAL_RECORD_HEADER_LEN];
    vv_journal_record_encode(&record, bytes);
    tap_ok(memcmp(bytes, "vvjr", 4) == 0 && vv_load_u64(bytes + 8) == 700 &&
               vv_load_u32(bytes + 16) == 5000 && vv_load_u32(bytes + 28) == 3,
           "fields lie where the header says");
    tap_is_int(vv_journal_record_decode(bytes, sizeof(bytes), &back), 0, "decodes");
    tap_ok(back.commit == 700 && back.sealed_len == 5000 && back.session == record.session &&
               back.group_index == 3,
           "to the same");
    bool is_refused = true;
    for (size_t at = 0; at < sizeof(bytes); at++)
        is_refused &= decode_changed(at, 0x10) < 0;
    tap_ok(is_refused, "any changed byte is refused");
    tap_is_int(decode_changed(0, 1), -VV_ERR_FORMAT, "the magic");
    tap_is_int(decode_changed(9, 1), -VV_ERR_CHECKSUM, "the number");
    tap_is_int(vv_journal_record_decode(bytes, 31, &back), -VV_ERR_FORMAT, "too short");
    record.commit = 0;
    tap_is_int(decode_of(record), -VV_ERR_FORMAT, "there is no commit 0");
    record.commit = 2;
    tap_is_int(decode_of(record), -VV_ERR_FORMAT, "a group begins at 1 or later");
    record.commit = 700;
    record.sealed_len = 100;
    tap_is_int(decode_of(record), -VV_ERR_FORMAT, "shorter than header and frame");
    record.sealed_len = 100u << 20;
    tap_is_int(decode_of(record), -VV_ERR_FORMAT, "longer than any record");
    return tap_done();
}
