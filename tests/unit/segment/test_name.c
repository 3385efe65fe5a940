#include "segment/segment.h"

#include <errno.h>
#include <string.h>

#include "tap.h"

static void round_trip(const struct vv_segment_id *id, const char *want)
{
    char name[64];
    struct vv_segment_id back;
    memset(&back, 0xff, sizeof(back));
    vv_segment_name(id, name, sizeof(name));
    tap_is_str(name, want, "name");
    tap_is_int(vv_segment_name_parse(name, &back), 0, "parses");
    tap_ok(vv_segment_id_equal(&back, id), "to the same id");
}

static void refuse(const char *name)
{
    struct vv_segment_id id = {.epoch = 5};
    tap_is_int(vv_segment_name_parse(name, &id), -EINVAL, "'%s' is refused", name);
    tap_is_int((int64_t)id.epoch, 5, "and changes nothing");
}

static void test_equal(void)
{
    struct vv_segment_id id = {1, 2, VV_SEGMENT_LOG, 3};
    struct vv_segment_id other = id;
    tap_ok(vv_segment_id_equal(&id, &other), "the same");
    other.epoch++;
    tap_ok(!vv_segment_id_equal(&id, &other), "another epoch");
    other = id;
    other.counter++;
    tap_ok(!vv_segment_id_equal(&id, &other), "another counter");
    other = id;
    other.kind = VV_SEGMENT_DATA;
    tap_ok(!vv_segment_id_equal(&id, &other), "another kind");
    other = id;
    other.volume++;
    tap_ok(!vv_segment_id_equal(&id, &other), "another volume");
}

int main(void)
{
    round_trip(&(struct vv_segment_id){.epoch = 3, .counter = 0x1a7},
               "data/a7/0000000000000003-00000000000001a7");
    round_trip(&(struct vv_segment_id){.epoch = UINT64_MAX, .counter = UINT64_MAX},
               "data/ff/ffffffffffffffff-ffffffffffffffff");
    round_trip(&(struct vv_segment_id){.epoch = 3, .counter = 9, .kind = VV_SEGMENT_LOG},
               "log/0000000000000003/0000000000000009");
    round_trip(&(struct vv_segment_id){.kind = VV_SEGMENT_LOG},
               "log/0000000000000000/0000000000000000");
    refuse("");
    refuse("varve.volume");
    refuse("log/0000000000000003/000000000000000");
    refuse("log/0000000000000003/00000000000000009");
    refuse("log/0000000000000003/000000000000000g");
    refuse("log/0000000000000003/000000000000000A");
    refuse("log/0000000000000003-0000000000000009");
    refuse("log/ 000000000000003/0000000000000009");
    refuse("lag/0000000000000003/0000000000000009");
    refuse("data/a7/0000000000000003-00000000000001a8");
    refuse("data/a7/0000000000000003/00000000000001a7");
    refuse("data/A7/0000000000000003-00000000000001a7");
    refuse("date/a7/0000000000000003-00000000000001a7");
    refuse("data/a7/0000000000000003-00000000000001a7 ");
    refuse("sst/a7/0000000000000003-00000000000001a7");
    test_equal();
    return tap_done();
}
