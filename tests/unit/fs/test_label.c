/* The label against the fake volume: none, set, replaced, taken away, the longest. */
#include "rig.h"

static void test_all(void)
{
    char label[VV_LABEL_MAX + 1];
    char text[VV_LABEL_MAX + 2];
    memset(label, 1, sizeof label);
    tap_is_int(vv_fs_label(volume, label), 0, "none");
    tap_is_str(label, "", "is empty");
    tap_is_int(vv_fs_set_label(volume, "holiday pictures"), 0, "set");
    tap_is_int(vv_fs_label(volume, label), 0, "asked for");
    tap_is_str(label, "holiday pictures", "it is there");
    tap_is_int(vv_fs_set_label(volume, "x"), 0, "a shorter one");
    tap_is_int(vv_fs_label(volume, label), 0, "asked for");
    tap_is_str(label, "x", "takes its place");
    memset(text, 'y', sizeof text);
    text[VV_LABEL_MAX + 1] = '\0';
    tap_is_int(vv_fs_set_label(volume, text), -EINVAL, "one too long");
    text[VV_LABEL_MAX] = '\0';
    tap_is_int(vv_fs_set_label(volume, text), 0, "the longest");
    tap_is_int(vv_fs_label(volume, label), 0, "asked for");
    tap_is_str(label, text, "is whole");
    tap_is_int(vv_fs_set_label(volume, ""), 0, "an empty one");
    tap_is_int(vv_fs_label(volume, label), 0, "asked for");
    tap_is_str(label, "", "is none");
}

int main(void)
{
    return rig_main(test_all);
}
