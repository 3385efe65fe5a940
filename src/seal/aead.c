#include "seal/aead_impl.h"

#include <assert.h>
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sched.h>
#include <sodium.h>
#include <stdatomic.h>
#include <string.h>

#include "base/hash.h"

/* More than threads that seal at once; one more waits. A power of two. */
#define CONTEXTS_MAX 64
#define GCM_NONCE_LEN 12

struct context {
    atomic_bool is_busy;
    EVP_CIPHER_CTX *gcm; /* the rest belongs to whoever set is_busy */
    EVP_KDF_CTX *hkdf;
} __attribute__((aligned(64)));

/* The module's mutable globals, against the rule, because contexts serve every volume of the
 * process and outlive them all: OpenSSL allocates them, so they must not belong to what a simulated
 * crash drops. They carry nothing from one call to the next but the key that key_ids names. */
static struct context contexts[CONTEXTS_MAX];
static _Atomic(uint64_t) key_ids[CONTEXTS_MAX]; /* 0 = no key; changed by the context's user */
static _Atomic(uint64_t) last_key_id;

static bool try_take(struct context *context)
{
    return !atomic_load_explicit(&context->is_busy, memory_order_relaxed) &&
           !atomic_exchange_explicit(&context->is_busy, true, memory_order_acquire);
}

static void give(struct context *context)
{
    atomic_store_explicit(&context->is_busy, false, memory_order_release);
}

/* A key's users begin looking at the same place, so they find the contexts that know the key. */
static struct context *take(uint64_t key_id)
{
    for (;;) {
        for (size_t i = 0; i < CONTEXTS_MAX; i++) {
            struct context *context = &contexts[(key_id + i) % CONTEXTS_MAX];
            if (try_take(context))
                return context;
        }
        /* Contexts are held for one computation, never across a suspension: this ends soon. */
        sched_yield();
    }
}

static _Atomic(uint64_t) *key_id_of(const struct context *context)
{
    return &key_ids[context - contexts];
}

/* ---- HKDF ---- */

static EVP_KDF_CTX *hkdf_new(void)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_HKDF, NULL);
    EVP_KDF_CTX *hkdf = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    EVP_KDF_free(kdf);
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    if (hkdf && EVP_KDF_CTX_set_params(hkdf, params) == 1)
        return hkdf;
    EVP_KDF_CTX_free(hkdf);
    return NULL;
}

static OSSL_PARAM octets(const char *name, const void *bytes, size_t len)
{
    return OSSL_PARAM_construct_octet_string(name, (void *)(uintptr_t)bytes, len);
}

static int hkdf(struct context *context, struct vv_bytes secret, struct vv_bytes salt,
                struct vv_bytes info, uint8_t out[VV_KEY_LEN])
{
    static const uint8_t nothing[32];
    if (!context->hkdf)
        context->hkdf = hkdf_new();
    if (!context->hkdf)
        return -ENOMEM;
    OSSL_PARAM params[] = {
        octets(OSSL_KDF_PARAM_KEY, secret.ptr, secret.len),
        octets(OSSL_KDF_PARAM_SALT, salt.ptr, salt.len),
        octets(OSSL_KDF_PARAM_INFO, info.ptr, info.len),
        OSSL_PARAM_construct_end(),
    };
    int is_done = EVP_KDF_derive(context->hkdf, out, VV_KEY_LEN, params);
    /* OpenSSL wipes the secret that it copied when it gets the next one. */
    OSSL_PARAM forget[] = {
        octets(OSSL_KDF_PARAM_KEY, nothing, sizeof(nothing)),
        OSSL_PARAM_construct_end(),
    };
    if (EVP_KDF_CTX_set_params(context->hkdf, forget) != 1 || is_done != 1) {
        ERR_clear_error();
        EVP_KDF_CTX_free(context->hkdf);
        context->hkdf = NULL;
    }
    return is_done == 1 ? 0 : -ENOMEM;
}

void vv_key_init(struct vv_key *key)
{
    key->id = atomic_fetch_add_explicit(&last_key_id, 1, memory_order_relaxed) + 1;
}

int vv_key_derive(struct vv_bytes secret, struct vv_bytes salt, struct vv_bytes info,
                  struct vv_key *out_key)
{
    struct vv_key key;
    vv_key_init(&key);
    struct context *context = take(key.id);
    int err = hkdf(context, secret, salt, info, key.bytes);
    give(context);
    if (err == 0)
        *out_key = key;
    sodium_memzero(&key, sizeof(key));
    return err;
}

/* Make a context forget a key whose users have ended. One that is taken is deriving another key or
 * is about to get another key, so the wait is short. */
static void forget(size_t i, uint64_t key_id)
{
    static const uint8_t nothing[VV_KEY_LEN];
    struct context *context = &contexts[i];
    while (atomic_load_explicit(&key_ids[i], memory_order_relaxed) == key_id) {
        if (!try_take(context)) {
            sched_yield();
            continue;
        }
        if (atomic_load_explicit(&key_ids[i], memory_order_relaxed) == key_id) {
            if (EVP_EncryptInit_ex(context->gcm, NULL, NULL, nothing, NULL) != 1)
                ERR_clear_error();
            atomic_store_explicit(&key_ids[i], 0, memory_order_relaxed);
        }
        give(context);
    }
}

void vv_key_done(struct vv_key *key)
{
    for (size_t i = 0; i < CONTEXTS_MAX && key->id != 0; i++)
        forget(i, key->id);
    sodium_memzero(key, sizeof(*key));
}

/* ---- AES-256-GCM ---- */

static void make_nonce(uint32_t index, uint8_t *out, size_t len)
{
    memset(out, 0, len);
    vv_store_u32(out, index);
}

/* The context's cipher, set up with key and nonce; NULL when there is no memory. */
static EVP_CIPHER_CTX *gcm_start(struct context *context, const struct vv_key *key, uint32_t index,
                                 int is_encrypting)
{
    uint8_t nonce[GCM_NONCE_LEN];
    make_nonce(index, nonce, sizeof(nonce));
    const EVP_CIPHER *cipher = NULL; /* the one set before */
    if (!context->gcm) {
        context->gcm = EVP_CIPHER_CTX_new();
        if (!context->gcm)
            return NULL;
        cipher = EVP_aes_256_gcm();
    }
    _Atomic(uint64_t) *key_id = key_id_of(context);
    bool is_known = atomic_load_explicit(key_id, memory_order_relaxed) == key->id;
    const uint8_t *key_bytes = is_known ? NULL : key->bytes;
    if (EVP_CipherInit_ex(context->gcm, cipher, NULL, key_bytes, nonce, is_encrypting) == 1) {
        atomic_store_explicit(key_id, key->id, memory_order_relaxed);
        return context->gcm;
    }
    ERR_clear_error();
    EVP_CIPHER_CTX_free(context->gcm);
    context->gcm = NULL;
    atomic_store_explicit(key_id, 0, memory_order_relaxed);
    return NULL;
}

/* Associated data and text; the tag is the caller's business. */
static bool gcm_update(EVP_CIPHER_CTX *gcm, const struct vv_message *message, void *out)
{
    int len;
    if (EVP_CipherUpdate(gcm, NULL, &len, message->aad.ptr, (int)message->aad.len) != 1)
        return false;
    if (message->text.len == 0)
        return true;
    return EVP_CipherUpdate(gcm, out, &len, message->text.ptr, (int)message->text.len) == 1;
}

static int gcm_seal(struct context *context, const struct vv_key *key,
                    const struct vv_message *message, void *out, uint8_t *out_tag)
{
    EVP_CIPHER_CTX *gcm = gcm_start(context, key, message->index, 1);
    uint8_t rest[16];
    int len;
    if (gcm && gcm_update(gcm, message, out) && EVP_CipherFinal_ex(gcm, rest, &len) == 1 &&
        EVP_CIPHER_CTX_ctrl(gcm, EVP_CTRL_AEAD_GET_TAG, VV_FRAME_TAG_LEN, out_tag) == 1)
        return 0;
    ERR_clear_error();
    return -ENOMEM;
}

static int gcm_open(struct context *context, const struct vv_key *key,
                    const struct vv_message *message, const uint8_t *tag, void *out)
{
    EVP_CIPHER_CTX *gcm = gcm_start(context, key, message->index, 0);
    void *tag_arg = (void *)(uintptr_t)tag;
    uint8_t rest[16];
    int len;
    if (!gcm || EVP_CIPHER_CTX_ctrl(gcm, EVP_CTRL_AEAD_SET_TAG, VV_FRAME_TAG_LEN, tag_arg) != 1) {
        ERR_clear_error();
        return -ENOMEM;
    }
    if (gcm_update(gcm, message, out) && EVP_CipherFinal_ex(gcm, rest, &len) == 1)
        return 0;
    ERR_clear_error();
    memset(out, 0, message->text.len);
    return -VV_ERR_AUTH;
}

/* ---- XChaCha20-Poly1305 ---- */

static void xchacha_seal(const struct vv_key *key, const struct vv_message *message, void *out,
                         uint8_t *out_tag)
{
    uint8_t nonce[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES];
    make_nonce(message->index, nonce, sizeof(nonce));
    crypto_aead_xchacha20poly1305_ietf_encrypt_detached(out, out_tag, NULL, message->text.ptr,
                                                        message->text.len, message->aad.ptr,
                                                        message->aad.len, NULL, nonce, key->bytes);
}

static int xchacha_open(const struct vv_key *key, const struct vv_message *message,
                        const uint8_t *tag, void *out)
{
    uint8_t nonce[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES];
    make_nonce(message->index, nonce, sizeof(nonce));
    int failed = crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
        out, NULL, message->text.ptr, message->text.len, tag, message->aad.ptr, message->aad.len,
        nonce, key->bytes);
    return failed ? -VV_ERR_AUTH : 0;
}

/* ---- none: integrity against damage, not against an adversary ---- */

static void checksum(const struct vv_key *key, const struct vv_message *message, uint8_t *out_tag)
{
    uint64_t seed = vv_load_u64(key->bytes);
    seed = vv_xxh3(message->aad.ptr, message->aad.len, seed);
    vv_xxh3_128(message->text.ptr, message->text.len, seed, out_tag);
}

static void copy_text(const struct vv_message *message, void *out)
{
    if (message->text.len > 0 && out != message->text.ptr)
        memcpy(out, message->text.ptr, message->text.len);
}

int vv_aead_seal(enum vv_cipher cipher, const struct vv_key *key, const struct vv_message *message,
                 void *out, uint8_t out_tag[VV_FRAME_TAG_LEN])
{
    assert(message->text.len <= VV_FRAME_PLAIN_MAX);
    assert(key->id != 0);
    if (cipher == VV_CIPHER_XCHACHA20_POLY1305) {
        xchacha_seal(key, message, out, out_tag);
        return 0;
    }
    if (cipher == VV_CIPHER_NONE) {
        checksum(key, message, out_tag);
        copy_text(message, out);
        return 0;
    }
    struct context *context = take(key->id);
    int err = gcm_seal(context, key, message, out, out_tag);
    give(context);
    return err;
}

int vv_aead_open(enum vv_cipher cipher, const struct vv_key *key, const struct vv_message *message,
                 const uint8_t tag[VV_FRAME_TAG_LEN], void *out)
{
    assert(message->text.len <= VV_FRAME_PLAIN_MAX);
    assert(key->id != 0);
    if (cipher == VV_CIPHER_XCHACHA20_POLY1305)
        return xchacha_open(key, message, tag, out);
    if (cipher == VV_CIPHER_NONE) {
        uint8_t want[VV_FRAME_TAG_LEN];
        checksum(key, message, want);
        if (memcmp(tag, want, sizeof(want)) != 0)
            return -VV_ERR_CHECKSUM;
        copy_text(message, out);
        return 0;
    }
    struct context *context = take(key->id);
    int err = gcm_open(context, key, message, tag, out);
    give(context);
    return err;
}
