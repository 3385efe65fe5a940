#include "store/s3_credentials.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/text.h"
#include "rt/rt.h"
#include "store/s3_places_impl.h"

#define EARLY_S 300        /* asked again so long before they expire */
#define AGAIN_S 30         /* after a failure, while the old ones are good */
#define REFUSED_AGAIN_S 5  /* keys younger than this are not asked for again */

struct vv_s3_credentials {
    struct vv_s3_sources sources;
    struct vv_s3_keys keys;
    const char *place; /* NULL: there are no keys yet */
    int64_t asked_s;
    bool is_asking;
    struct vv_waitq asked;
};

/* The texts of struct vv_s3_sources. */
static const size_t texts[] = {
#define TEXT(field) offsetof(struct vv_s3_sources, field)
    TEXT(access_key), TEXT(secret), TEXT(token), TEXT(env_access_key), TEXT(env_secret),
    TEXT(env_token), TEXT(profile), TEXT(credentials_file), TEXT(config_file),
    TEXT(web_identity_token_file), TEXT(role_arn), TEXT(role_session_name), TEXT(sts_endpoint),
    TEXT(region), TEXT(container_full_uri), TEXT(container_relative_uri), TEXT(container_token),
    TEXT(container_token_file), TEXT(metadata_endpoint), TEXT(ca_file),
#undef TEXT
};
#define TEXT_COUNT (sizeof(texts) / sizeof(texts[0]))

static char **text_of(struct vv_s3_sources *sources, size_t index)
{
    return (char **)((char *)sources + texts[index]);
}

void vv_s3_keys_done(struct vv_s3_keys *keys)
{
    OPENSSL_cleanse(keys, sizeof(*keys));
}

int vv_s3_credentials_new(const struct vv_s3_sources *sources,
                          struct vv_s3_credentials **out_credentials)
{
    struct vv_s3_credentials *credentials = vv_zalloc(sizeof(*credentials));
    if (!credentials)
        return -ENOMEM;
    struct vv_s3_sources borrowed = *sources;
    credentials->sources = borrowed;
    vv_waitq_init(&credentials->asked);
    bool is_good = true;
    for (size_t i = 0; i < TEXT_COUNT; i++) {
        const char *text = *text_of(&borrowed, i);
        char *copy = text ? vv_strdup(text) : NULL;
        *text_of(&credentials->sources, i) = copy;
        is_good &= !text || copy;
    }
    if (!is_good) {
        vv_s3_credentials_free(credentials);
        return -ENOMEM;
    }
    *out_credentials = credentials;
    return 0;
}

void vv_s3_credentials_free(struct vv_s3_credentials *credentials)
{
    if (!credentials)
        return;
    for (size_t i = 0; i < TEXT_COUNT; i++) {
        char *text = *text_of(&credentials->sources, i);
        if (text)
            OPENSSL_cleanse(text, strlen(text));
        vv_free(text);
    }
    vv_s3_keys_done(&credentials->keys);
    vv_free(credentials);
}

/* ---- the order of places ---- */

static int take_texts(const char *access_key, const char *secret, const char *token,
                      struct vv_s3_keys *out)
{
    struct vv_s3_keys keys = {0};
    if (!access_key || !secret || access_key[0] == 0 || secret[0] == 0)
        return -ENOENT;
    int err = vv_copy_text(keys.access_key, sizeof(keys.access_key), access_key);
    if (err == 0)
        err = vv_copy_text(keys.secret, sizeof(keys.secret), secret);
    if (err == 0 && token)
        err = vv_copy_text(keys.token, sizeof(keys.token), token);
    if (err == 0)
        *out = keys;
    vv_s3_keys_done(&keys);
    return err;
}

static int given(const struct vv_s3_sources *sources, struct vv_s3_keys *out)
{
    return take_texts(sources->access_key, sources->secret, sources->token, out);
}

static int environment(const struct vv_s3_sources *sources, struct vv_s3_keys *out)
{
    if (sources->is_profile_given)
        return -ENOENT;
    return take_texts(sources->env_access_key, sources->env_secret, sources->env_token, out);
}

static int web_identity(const struct vv_s3_sources *sources, struct vv_s3_keys *out)
{
    return sources->is_profile_given ? -ENOENT : vv_s3_place_web_identity(sources, out);
}

static const struct {
    const char *name;
    int (*ask)(const struct vv_s3_sources *sources, struct vv_s3_keys *out);
} places[] = {
    {"given", given},
    {"environment", environment},
    {"web identity", web_identity},
    {"profile", vv_s3_place_profile},
    {"container", vv_s3_place_container},
    {"instance metadata", vv_s3_place_metadata},
};

static int ask_places(struct vv_s3_credentials *credentials)
{
    struct vv_s3_keys keys = {0};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        int err = places[i].ask(&credentials->sources, &keys);
        if (err == -ENOENT)
            continue;
        if (err < 0) {
            vv_error("store", "S3 credentials (%s): %s", places[i].name, vv_err_text(err));
            return err;
        }
        credentials->keys = keys;
        credentials->place = places[i].name;
        vv_s3_keys_done(&keys);
        return 0;
    }
    vv_error("store", "no S3 credentials: looked at the options, AWS_ACCESS_KEY_ID, web identity, "
                      "the AWS profile, container and instance metadata");
    return -ENOKEY;
}

/* ---- freshness ---- */

static bool is_due(const struct vv_s3_credentials *credentials, bool is_refused, int64_t now_s)
{
    if (!credentials->place)
        return true;
    if (is_refused)
        return now_s >= credentials->asked_s + REFUSED_AGAIN_S;
    /* AGAIN_S also keeps keys that live for less than EARLY_S from being asked for with each
     * request; once they have expired nothing else helps. */
    int64_t expires_s = credentials->keys.expires_s;
    if (expires_s != 0 && now_s >= expires_s)
        return true;
    return expires_s != 0 && now_s > expires_s - EARLY_S && now_s >= credentials->asked_s + AGAIN_S;
}

static bool is_usable(const struct vv_s3_credentials *credentials, int64_t now_s)
{
    return credentials->place &&
           (credentials->keys.expires_s == 0 || now_s < credentials->keys.expires_s);
}

int vv_s3_credentials_get(struct vv_s3_credentials *credentials, bool is_refused,
                          struct vv_s3_keys *out_keys)
{
    int err = 0;
    while (credentials->is_asking)
        vv_waitq_wait(&credentials->asked, VV_NEVER);
    int64_t now_s = vv_rt_wall().tv_sec;
    if (is_due(credentials, is_refused, now_s)) {
        credentials->is_asking = true;
        err = ask_places(credentials);
        credentials->asked_s = vv_rt_wall().tv_sec;
        credentials->is_asking = false;
        vv_waitq_wake_all(&credentials->asked);
    }
    if (!is_usable(credentials, vv_rt_wall().tv_sec))
        return err < 0 ? err : -EKEYEXPIRED;
    *out_keys = credentials->keys;
    return 0;
}

const char *vv_s3_credentials_place(const struct vv_s3_credentials *credentials)
{
    return credentials->place;
}
