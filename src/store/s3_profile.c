/* Profiles in ~/.aws/credentials and ~/.aws/config. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "rt/rt.h"
#include "store/s3_places_impl.h"

int vv_s3_read_file(const char *path, size_t max, char **out_text)
{
    struct vv_file *file;
    uint64_t size;
    TRY(vv_file_open(path, VV_FILE_READ, &file));
    int err = vv_file_size(file, &size);
    if (err == 0 && size > max)
        err = -EFBIG;
    char *text = err == 0 ? vv_zalloc(size + 1) : NULL;
    if (err == 0 && !text)
        err = -ENOMEM;
    if (err == 0) {
        ssize_t got = vv_file_pread(file, text, size, 0);
        err = got < 0 ? (int)got : 0;
    }
    vv_file_close(file);
    if (err < 0)
        vv_free(text);
    else
        *out_text = text;
    return err;
}

/* ---- INI ---- */

/* A part of a line without the blanks around it. */
static struct vv_bytes trim(const char *text, size_t len)
{
    while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t' || text[len - 1] == '\r'))
        len--;
    while (len > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        len--;
    }
    return (struct vv_bytes){(const uint8_t *)text, len};
}

static bool is_text(struct vv_bytes bytes, const char *text)
{
    return bytes.len == strlen(text) && memcmp(bytes.ptr, text, bytes.len) == 0;
}

int vv_s3_ini_find(const char *text, const char *section, const char *key, char *out, size_t size)
{
    bool is_here = false;
    while (*text) {
        size_t len = strcspn(text, "\n");
        const char *line = text;
        text += len + (text[len] == '\n');
        if (len == 0 || strchr("#; \t\r", *line))
            continue;
        if (*line == '[') {
            size_t end = strcspn(line, "]");
            is_here = end < len && is_text(trim(line + 1, end - 1), section);
            continue;
        }
        size_t name_len = strcspn(line, "=");
        if (!is_here || name_len >= len || !is_text(trim(line, name_len), key))
            continue;
        struct vv_bytes value = trim(line + name_len + 1, len - name_len - 1);
        if (value.len >= size)
            return -EFBIG;
        memcpy(out, value.ptr, value.len);
        out[value.len] = 0;
        return 0;
    }
    return -ENOENT;
}

/* ---- profiles ---- */

/* The two files; "" for one that is not there. */
struct files {
    char *credentials;
    char *config;
};

static int read_one(const char *path, char **out_text)
{
    int err = path ? vv_s3_read_file(path, VV_S3_FILE_MAX, out_text) : -ENOENT;
    if (err == -ENOENT || err == -ENOTDIR) {
        *out_text = vv_zalloc(1);
        return *out_text ? 0 : -ENOMEM;
    }
    if (err < 0)
        vv_warn("store", "%s: %s", path, vv_err_text(err));
    return err;
}

static void files_done(struct files *files)
{
    vv_free(files->credentials);
    vv_free(files->config);
}

static int read_files(const struct vv_s3_sources *sources, struct files *files)
{
    TRY(read_one(sources->credentials_file, &files->credentials));
    return read_one(sources->config_file, &files->config);
}

static const char *profile_name(const struct vv_s3_sources *sources)
{
    return sources->profile ? sources->profile : "default";
}

/* In the config file, sections are called "profile NAME", but for the default. */
static void config_section(const char *profile, char *out, size_t size)
{
    bool is_default = strcmp(profile, "default") == 0;
    vv_format(out, size, "%s%s", is_default ? "" : "profile ", profile);
}

/* Keys of one section; -ENOENT when it has none. */
static int keys_of_section(const char *text, const char *section, struct vv_s3_keys *out)
{
    struct vv_s3_keys keys = {0};
    TRY(vv_s3_ini_find(text, section, "aws_access_key_id", keys.access_key,
                       sizeof(keys.access_key)));
    TRY(vv_s3_ini_find(text, section, "aws_secret_access_key", keys.secret, sizeof(keys.secret)));
    int err = vv_s3_ini_find(text, section, "aws_session_token", keys.token, sizeof(keys.token));
    if (err < 0 && err != -ENOENT)
        return err;
    *out = keys;
    vv_s3_keys_done(&keys);
    return 0;
}

/* A profile that names a role and a token file. */
static int keys_of_role(const struct vv_s3_sources *sources, const char *config,
                        const char *section, struct vv_s3_keys *out)
{
    char role[2049];
    char token_file[1025];
    char session[65];
    TRY(vv_s3_ini_find(config, section, "role_arn", role, sizeof(role)));
    int err = vv_s3_ini_find(config, section, "web_identity_token_file", token_file,
                             sizeof(token_file));
    if (err < 0) {
        vv_warn("store", "profile %s: a role is supported with web_identity_token_file only",
                profile_name(sources));
        return err == -ENOENT ? -EOPNOTSUPP : err;
    }
    err = vv_s3_ini_find(config, section, "role_session_name", session, sizeof(session));
    struct vv_s3_sources role_sources = *sources;
    role_sources.role_arn = role;
    role_sources.web_identity_token_file = token_file;
    role_sources.role_session_name = err == 0 ? session : NULL;
    return vv_s3_place_web_identity(&role_sources, out);
}

static int keys_of_files(const struct vv_s3_sources *sources, const struct files *files,
                         struct vv_s3_keys *out)
{
    char section[256];
    const char *profile = profile_name(sources);
    int err = keys_of_section(files->credentials, profile, out);
    if (err != -ENOENT)
        return err;
    config_section(profile, section, sizeof(section));
    err = keys_of_section(files->config, section, out);
    return err == -ENOENT ? keys_of_role(sources, files->config, section, out) : err;
}

int vv_s3_place_profile(const struct vv_s3_sources *sources, struct vv_s3_keys *out)
{
    struct files files = {0};
    int err = read_files(sources, &files);
    if (err == 0)
        err = keys_of_files(sources, &files, out);
    files_done(&files);
    if (err == -ENOENT && sources->is_profile_given) {
        vv_warn("store", "profile %s has no keys", profile_name(sources));
        err = -ENOKEY;
    }
    return err;
}

int vv_s3_profile_read(const struct vv_s3_sources *sources, struct vv_s3_profile *out_profile)
{
    struct files files = {0};
    char section[256];
    char key[8];
    struct vv_s3_profile profile = {0};
    const char *name = profile_name(sources);
    config_section(name, section, sizeof(section));
    int err = read_files(sources, &files);
    if (err == 0) {
        /* Only whether the profile is there matters of these: the key is looked for elsewhere. */
        bool is_there =
            vv_s3_ini_find(files.credentials, name, "aws_access_key_id", key, sizeof(key)) !=
            -ENOENT;
        int found = vv_s3_ini_find(files.config, section, "region", profile.region,
                                   sizeof(profile.region));
        int endpoint = vv_s3_ini_find(files.config, section, "endpoint_url", profile.endpoint,
                                      sizeof(profile.endpoint));
        int role = vv_s3_ini_find(files.config, section, "role_arn", key, sizeof(key));
        int config_key = vv_s3_ini_find(files.config, section, "aws_access_key_id", key,
                                        sizeof(key));
        is_there |= found != -ENOENT || endpoint != -ENOENT || role != -ENOENT ||
                    config_key != -ENOENT;
        if (found == -EFBIG || endpoint == -EFBIG)
            err = -EINVAL;
        else if (!is_there && sources->is_profile_given)
            err = -ENOENT;
    }
    files_done(&files);
    if (err == 0)
        *out_profile = profile;
    return err;
}
