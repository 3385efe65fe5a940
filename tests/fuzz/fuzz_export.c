/* Text that an administrator writes: an NFS export, a size, a number. What is accepted is within its bounds; what is
 * not says why. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/text.h"
#include "front/nfs/nfs.h"

#define TEXT_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_export(const char *text)
{
    static const uint8_t mapped_prefix[12] = {[10] = 0xff, 0xff};
    struct vv_nfs_export export;
    const char *why = NULL;
    if (vv_nfs_export_parse(text, &export, &why) < 0) {
        assert(why && why[0]);
        return;
    }
    size_t len = strnlen(export.path, sizeof(export.path));
    assert(export.path[0] == '/' && len <= VV_NFS_EXPORT_PATH_MAX);
    assert(len == 1 || export.path[len - 1] != '/');
    assert(strncmp(export.path, text, len) == 0);
    assert(strnlen(export.client, sizeof(export.client)) < sizeof(export.client));
    assert(export.prefix <= 128);
    bool is_v4 = memcmp(export.network, mapped_prefix, sizeof(mapped_prefix)) == 0;
    assert(!is_v4 || export.prefix >= 96 || strchr(export.client, ':'));
    assert(export.anon_uid != UINT32_MAX && export.anon_gid != UINT32_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[TEXT_MAX + 1];
    uint64_t value, again;
    if (size > TEXT_MAX)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    try_export(text);
    if (vv_parse_size(text, &value) == 0)
        assert(text[0] >= '0' && text[0] <= '9');
    if (vv_parse_u64(text, &value) == 0)
        assert(vv_parse_size(text, &again) == 0 && again == value);
    return 0;
}
