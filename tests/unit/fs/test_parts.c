/* Part lists by themselves; what they do to files is in test_alloc.c. */
#include "rig.h"

static struct vv_parts parts;

static const char *text(void)
{
    static char out[400];
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; i < parts.count; i++)
        len +=
            (size_t)snprintf(out + len, sizeof(out) - len, "%llu@%llu+%lld ",
                             (unsigned long long)parts.at[i].data_id,
                             (unsigned long long)parts.at[i].start, (long long)parts.at[i].length);
    return out;
}

static void test_all(void)
{
    parts = (struct vv_parts){.count = 1, .at = {{7, 0, VV_PART_NO_END}}};
    tap_is_int((int64_t)vv_parts_split(&parts, 0), 0, "a split at 0");
    tap_is_str(text(), "7@0+-1 ", "changes nothing");
    tap_is_int((int64_t)vv_parts_split(&parts, 100), 1, "one in the middle");
    tap_is_str(text(), "7@0+100 7@100+-1 ", "makes two");
    tap_is_int((int64_t)vv_parts_split(&parts, 100), 1, "the same again");
    tap_is_int((int64_t)parts.count, 2, "changes nothing");
    tap_is_int((int64_t)vv_parts_split(&parts, 40), 1, "one before");
    tap_is_str(text(), "7@0+40 7@40+60 7@100+-1 ", "makes three");
    vv_parts_insert(&parts, 1, (struct vv_part){9, 0, 10});
    struct vv_piece piece = vv_parts_at(&parts, 39, 5);
    tap_ok(piece.data_id == 7 && piece.start == 39 && piece.len == 1, "a piece ends with its part");
    piece = vv_parts_at(&parts, 40, 5);
    tap_ok(piece.data_id == 9 && piece.start == 0 && piece.len == 5, "the next is another's");
    piece = vv_parts_at(&parts, 1ull << 60, 5);
    tap_ok(piece.data_id == 7 && piece.start == (1ull << 60) - 10 && piece.len == 5,
           "the last has no end");
    vv_parts_join(&parts);
    tap_is_str(text(), "7@0+40 9@0+10 7@40+-1 ", "neighbours of one stretch join");
    parts.at[1] = (struct vv_part){7, 40, 10};
    parts.at[2].start = 50;
    vv_parts_join(&parts);
    tap_is_str(text(), "7@0+-1 ", "all of them");
    parts.count = 0;
    vv_parts_join(&parts);
    tap_is_int((int64_t)parts.count, 0, "none is none");
}

int main(void)
{
    return rig_main(test_all);
}
