#include "rig.h"

static void test_all(void)
{
    tap_is_int(look(ROOT, ROOT_DIR, "a"), -ENOENT, "nothing there");
    int64_t a = make_dir(ROOT, ROOT_DIR, "a", 0755);
    tap_ok(a > 0, "mkdir");
    tap_is_int(look(ROOT, ROOT_DIR, "a"), a, "found");
    tap_is_int(make_dir(ROOT, ROOT_DIR, "a", 0755), -EEXIST, "again");
}

int main(void)
{
    return rig_main(test_all);
}
