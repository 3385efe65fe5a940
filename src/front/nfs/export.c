/* Exports: parsing, and which of them a request falls under. */
#include <arpa/inet.h>
#include <string.h>
#include <sys/stat.h>

#include "base/text.h"
#include "front/nfs/nfs_impl.h"

#define ANON_DEFAULT 65534u /* nobody, nogroup */
#define OPTION_MAX 64

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* ---- parsing ---- */

static int set_id(const char *text, uint32_t *out_id)
{
    uint64_t id;
    if (vv_parse_u64(text, &id) < 0 || id >= UINT32_MAX)
        return -EINVAL;
    *out_id = (uint32_t)id;
    return 0;
}

static int set_option(struct vv_nfs_export *export, const char *option)
{
    const struct {
        const char *name;
        bool *flag;
        bool value;
    } flags[] = {
        {"ro", &export->is_read_only, true},
        {"rw", &export->is_read_only, false},
        {"root_squash", &export->is_root_squashed, true},
        {"no_root_squash", &export->is_root_squashed, false},
        {"all_squash", &export->is_all_squashed, true},
        {"async", &export->is_async, true},
        {"sync", &export->is_async, false},
        {"insecure", &export->is_insecure, true},
        {"secure", &export->is_insecure, false},
    };
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (strcmp(option, flags[i].name) == 0) {
            *flags[i].flag = flags[i].value;
            return 0;
        }
    }
    if (strncmp(option, "anonuid=", 8) == 0)
        return set_id(option + 8, &export->anon_uid);
    if (strncmp(option, "anongid=", 8) == 0)
        return set_id(option + 8, &export->anon_gid);
    return -EINVAL;
}

static int set_options(struct vv_nfs_export *export, const char *text, size_t len)
{
    while (len > 0) {
        char option[OPTION_MAX];
        const char *comma = memchr(text, ',', len);
        size_t part = comma ? (size_t)(comma - text) : len;
        if (part >= sizeof(option))
            return -EINVAL;
        memcpy(option, text, part);
        option[part] = '\0';
        TRY(set_option(export, option));
        part += comma ? 1 : 0;
        text += part;
        len -= part;
    }
    return 0;
}

static int set_network(struct vv_nfs_export *export, const char *text)
{
    char address[64];
    uint64_t bits = 0;
    if (vv_copy_text(export->client, sizeof(export->client), text) < 0)
        return -EINVAL;
    export->is_loopback = false;
    if (strcmp(text, "*") == 0)
        return 0; /* a prefix of no bits */
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    memcpy(address, text, len);
    address[len] = '\0';
    bool is_v4 = inet_pton(AF_INET, address, export->network + sizeof(mapped_prefix)) == 1;
    if (is_v4)
        memcpy(export->network, mapped_prefix, sizeof(mapped_prefix));
    else if (inet_pton(AF_INET6, address, export->network) != 1)
        return -EINVAL;
    unsigned most = is_v4 ? 32 : 128;
    if (slash && (vv_parse_u64(slash + 1, &bits) < 0 || bits > most))
        return -EINVAL;
    export->prefix = (slash ? (unsigned)bits : most) + (is_v4 ? 96 : 0);
    return 0;
}

static int set_path(struct vv_nfs_export *export, const char *text, size_t len)
{
    while (len > 1 && text[len - 1] == '/')
        len--;
    if (len == 0 || text[0] != '/' || len > VV_NFS_EXPORT_PATH_MAX)
        return -EINVAL;
    memcpy(export->path, text, len);
    export->path[len] = '\0';
    return 0;
}

int vv_nfs_export_parse(const char *text, struct vv_nfs_export *out_export, const char **out_why)
{
    struct vv_nfs_export export = {.client = "localhost",
                                   .is_loopback = true,
                                   .is_root_squashed = true,
                                   .anon_uid = ANON_DEFAULT,
                                   .anon_gid = ANON_DEFAULT};
    const char *at = strrchr(text, '@');
    size_t len = at ? (size_t)(at - text) : strlen(text);
    const char *colon = memrchr(text, ':', len);
    size_t path_len = colon ? (size_t)(colon - text) : len;
    int err = 0;
    if (at && set_network(&export, at + 1) < 0) {
        *out_why = "after the @: not an address, ADDRESS/BITS or *";
        err = -EINVAL;
    }
    if (err == 0 && colon && set_options(&export, colon + 1, len - path_len - 1) < 0) {
        *out_why = "an option that is not known";
        err = -EINVAL;
    }
    if (err == 0 && set_path(&export, text, path_len) < 0) {
        *out_why = "not a path from the root";
        err = -EINVAL;
    }
    TRY(err);
    *out_export = export;
    return 0;
}

/* ---- who may ---- */

static bool is_loopback(const uint8_t address[16])
{
    static const uint8_t one[16] = {[15] = 1};
    bool is_v4 = memcmp(address, mapped_prefix, sizeof(mapped_prefix)) == 0;
    return (is_v4 && address[12] == 127) || memcmp(address, one, sizeof(one)) == 0;
}

bool vv_nfs_export_admits(const struct vv_nfs_export *export, const struct vv_nfs_conn *conn)
{
    if (export->is_loopback)
        return is_loopback(conn->address);
    size_t bytes = export->prefix / 8;
    unsigned bits = export->prefix % 8;
    if (memcmp(export->network, conn->address, bytes) != 0)
        return false;
    return bits == 0 || ((export->network[bytes] ^ conn->address[bytes]) >> (8 - bits)) == 0;
}

int vv_nfs_export_of(struct vv_nfs_conn *conn, uint64_t inode,
                     const struct vv_nfs_export **out_export, uint64_t *out_root)
{
    const struct vv_nfs *nfs = conn->nfs;
    uint64_t roots[VV_NFS_EXPORTS_MAX];
    unsigned indexes[VV_NFS_EXPORTS_MAX];
    unsigned count = 0;
    bool is_deeper = false; /* than the root of the volume */
    for (unsigned i = 0; i < nfs->export_count; i++) {
        if (!vv_nfs_export_admits(&nfs->exports[i], conn))
            continue;
        roots[count] = nfs->roots[i];
        is_deeper |= roots[count] != VV_ROOT_INODE;
        indexes[count++] = i;
    }
    size_t found = 0;
    if (count == 0)
        return -ESTALE;
    if (is_deeper) {
        int err = vv_fs_nearest(nfs->fs, inode, roots, count, &found);
        TRY(err == -ENOENT ? -ESTALE : err);
    }
    const struct vv_nfs_export *export = &nfs->exports[indexes[found]];
    if (!export->is_insecure && !conn->is_privileged)
        return -EPERM;
    *out_export = export;
    *out_root = roots[found];
    return 0;
}

/* ---- as whom ---- */

static void squash(struct vv_nfs_job *job)
{
    const struct vv_nfs_export *export = job->export;
    const struct vv_rpc_call *rpc = &job->rpc;
    struct vv_cred *cred = &job->call.cred;
    *cred = (struct vv_cred){.uid = export->anon_uid, .gid = export->anon_gid};
    if (export->is_all_squashed || rpc->flavor != VV_RPC_AUTH_SYS)
        return;
    bool is_squashing = export->is_root_squashed;
    if (!is_squashing || rpc->uid != 0)
        cred->uid = rpc->uid;
    if (!is_squashing || rpc->gid != 0)
        cred->gid = rpc->gid;
    for (uint32_t i = 0; i < rpc->gid_count; i++)
        if (!is_squashing || rpc->gids[i] != 0)
            job->groups[cred->group_count++] = rpc->gids[i];
    cred->groups = job->groups;
}

int vv_nfs_job_enter(struct vv_nfs_job *job, uint64_t inode)
{
    TRY(vv_nfs_export_of(job->conn, inode, &job->export, &job->root));
    job->call.door = job->conn->nfs->door;
    squash(job);
    return 0;
}

/* ---- paths ---- */

int vv_nfs_path_resolve(struct vv_nfs *nfs, struct vv_bytes path, uint64_t *out_inode)
{
    const struct vv_fs_call call = {.door = nfs->door};
    const char *text = (const char *)path.ptr;
    struct vv_attr attr;
    TRY(vv_fs_getattr(nfs->fs, VV_ROOT_INODE, &attr));
    for (size_t at = 0; at < path.len;) {
        const char *slash = memchr(text + at, '/', path.len - at);
        size_t len = slash ? (size_t)(slash - text) - at : path.len - at;
        if (len > 0)
            TRY(vv_fs_lookup(nfs->fs, &call, attr.inode, text + at, len, &attr));
        at += len + 1;
    }
    if (!S_ISDIR(attr.mode))
        return -ENOTDIR;
    *out_inode = attr.inode;
    return 0;
}
