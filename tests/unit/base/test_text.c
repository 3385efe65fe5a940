#include "base/text.h"

#include <errno.h>

#include "tap.h"

static void is_size(const char *text, uint64_t want)
{
    uint64_t bytes = 1;
    int err = vv_parse_size(text, &bytes);
    tap_ok(err == 0 && bytes == want, "size '%s'", text);
}

static void is_no_size(const char *text, int want)
{
    uint64_t bytes = 77;
    int err = vv_parse_size(text, &bytes);
    tap_ok(err == want && bytes == 77, "no size '%s'", text);
}

static void is_no_u64(const char *text, int want)
{
    uint64_t value = 77;
    int err = vv_parse_u64(text, &value);
    tap_ok(err == want && value == 77, "no number '%s'", text);
}

int main(void)
{
    char out[16];
    tap_is_int((int64_t)vv_format(out, 8, "%s-%d", "ab", 12), 5, "format tells the length");
    tap_is_int((int64_t)vv_format(out, 8, "%s", "0123456789"), 7, "also when it cuts");
    tap_is_str(out, "0123456", "and ends the text");
    tap_is_int(vv_copy_text(out, 4, "abc"), 0, "copy what fits");
    tap_is_str(out, "abc", "the copy");
    tap_is_int(vv_copy_text(out, 4, "defg"), -ENAMETOOLONG, "copy what does not");
    tap_is_str(out, "def", "the copy is cut");

    uint64_t value = 1;
    tap_is_int(vv_parse_u64("18446744073709551615", &value), 0, "the largest number");
    tap_ok(value == UINT64_MAX, "its value");
    is_no_u64("18446744073709551616", -ERANGE);
    is_no_u64("99999999999999999999999x", -EINVAL);
    is_no_u64("", -EINVAL);
    is_no_u64("-1", -EINVAL);
    is_no_u64("+1", -EINVAL);
    is_no_u64(" 1", -EINVAL);
    is_no_u64("0x10", -EINVAL);

    is_size("4096", 4096);
    is_size("0", 0);
    is_size("12B", 12);
    is_size("16M", 16 << 20);
    is_size("16k", 16 << 10);
    is_size("1.5G", UINT64_C(3) << 29);
    is_size("2TiB", UINT64_C(2) << 40);
    is_size("3KB", 3 << 10);
    is_size("0.001K", 1);
    is_size("15.999999999E", UINT64_C(18446744072556630111));
    is_no_size("16E", -ERANGE);
    is_no_size("18446744073709551616", -ERANGE);
    is_no_size("", -EINVAL);
    is_no_size("M", -EINVAL);
    is_no_size("1.M", -EINVAL);
    is_no_size("1.5", -EINVAL);
    is_no_size("1.5B", -EINVAL);
    is_no_size("1Mx", -EINVAL);
    is_no_size("1 M", -EINVAL);
    is_no_size("-1", -EINVAL);
    is_no_size("1.0000000000K", -EINVAL);
    is_no_size("1@", -EINVAL);

    tap_is_str(vv_size_to_text(0, out, sizeof(out)), "0 B", "nothing");
    tap_is_str(vv_size_to_text(1023, out, sizeof(out)), "1023 B", "bytes");
    tap_is_str(vv_size_to_text(1024, out, sizeof(out)), "1 KiB", "a whole unit");
    tap_is_str(vv_size_to_text(UINT64_C(3) << 29, out, sizeof(out)), "1.5 GiB", "a fraction");
    tap_is_str(vv_size_to_text((1 << 20) - 1, out, sizeof(out)), "1023.9 KiB", "never rounded up");
    tap_is_str(vv_size_to_text(UINT64_MAX, out, sizeof(out)), "15.9 EiB", "the largest");
    return tap_done();
}
