/* Errors: one number space for everything that can fail.
 *
 * A function that can fail returns an int (ssize_t for byte counts): 0 or a count, or a negative
 * number: -errno for what the operating system or POSIX names, -VV_ERR_* for what only varve knows.
 * Each VV_ERR_* has an errno class (what a front end shows) and a text (what a log line shows).
 * Callable from any thread. Nothing here allocates or suspends. */
#ifndef VV_BASE_ERR_H
#define VV_BASE_ERR_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum vv_err {
    VV_ERR_FIRST = 4096,
    VV_ERR_CHECKSUM,      /* a checksum does not match: the bytes are damaged. EIO */
    VV_ERR_AUTH,          /* a frame does not authenticate: damaged, or the wrong key. EIO */
    VV_ERR_FORMAT,        /* the bytes are not in the format that they should be in. EIO */
    VV_ERR_NEWER,         /* written by a newer version of varve. EPROTONOSUPPORT */
    VV_ERR_NOT_VOLUME,    /* there is no volume at this place. ENOENT */
    VV_ERR_VOLUME_EXISTS, /* there already is a volume at this place. EEXIST */
    VV_ERR_NO_KEY,        /* the passphrase or key file opens no key slot. EACCES */
    VV_ERR_FENCED,        /* another writer has taken the volume over, for good. EIO */
    VV_ERR_GAP,           /* a log position before the fence is missing. EIO */
    VV_ERR_JOURNAL,       /* the volume's journal is not here (PROTOCOL 17). EBUSY */
    VV_ERR_LOCKED,        /* another process on this machine serves the volume. EBUSY */
    VV_ERR_NOT_OURS,      /* put-if-absent found somebody else's object there. EEXIST */
    VV_ERR_UNKNOWN,       /* a store request timed out; it may yet take effect. ETIMEDOUT */
    VV_ERR_MISS,          /* not in memory: note the key, fetch, plan again. EAGAIN */
    VV_ERR_LIMIT,         /* a named limit was reached. EOVERFLOW */
    VV_ERR_BUDGET,        /* the memory budget has no room. ENOMEM */
    VV_ERR_STOPPED,       /* the runtime or volume is shutting down. ESHUTDOWN */
    VV_ERR_STORE_UNSAFE,  /* the store does not keep what PROTOCOL needs. EOPNOTSUPP */
    VV_ERR_CORRUPT,       /* structures that authenticate contradict each other. EUCLEAN */
    VV_ERR_NO_BUCKET,     /* the bucket of an s3:// store does not exist. ENXIO */
    VV_ERR_SHUT_DOWN,     /* the volume was told to stop at once, as by a crash. EIO */
    VV_ERR_LAST
};

/* The text for an error as returned (negative) or its positive number; never NULL; static. */
const char *vv_err_text(int err);

/* The short name of a VV_ERR_* ("CHECKSUM") or of an errno ("ENOSPC"); never NULL; static. */
const char *vv_err_name(int err);

/* The errno class of an error as returned: a positive errno, 0 for 0 and for counts. */
int vv_err_errno(int err);

/* Return early when `call` is negative. The only macro that changes control flow. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        int try_err_ = (int)(call);                                                                \
        if (try_err_ < 0)                                                                          \
            return try_err_;                                                                       \
    } while (0)

#define CLEANUP(fn) __attribute__((cleanup(fn)))

#endif
