#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/text.h"
#include "log/journal_impl.h"

#define ID_NAME "journal.id"
#define ID_LEN 33 /* hex and a newline */
#define FILE_DIGITS 8
#define FILE_NUMBER_MAX 99999999
#define ZERO_CHUNK_BYTES (1u << 20)
#define ZERO_ALIGN 4096u
/* How long opening waits for the writes of a process that is dead, and how often it looks. */
#define DEAD_WRITES_WAIT_NS (60 * VV_NS_PER_S)
#define DEAD_WRITES_LOOK_NS (2 * VV_NS_PER_MS)

/* ---- names ---- */

static int path_of(const struct vv_journal *journal, const char *name, char *out, size_t size)
{
    size_t len = vv_format(out, size, "%s/%s", journal->path, name);
    return len + 1 < size ? 0 : -ENAMETOOLONG;
}

static int file_path(const struct vv_journal *journal, uint64_t number, const char *suffix,
                     char *out, size_t size)
{
    char name[32];
    vv_format(name, sizeof(name), "%0*llu%s", FILE_DIGITS, (unsigned long long)number, suffix);
    return path_of(journal, name, out, size);
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t len = strlen(name);
    size_t suffix_len = strlen(suffix);
    return len >= suffix_len && strcmp(name + len - suffix_len, suffix) == 0;
}

/* The number of "<8-digit n><suffix>", 0 for other names. */
static uint64_t number_of(const char *name, const char *suffix)
{
    char digits[FILE_DIGITS + 1] = "";
    uint64_t number;
    if (strlen(name) != FILE_DIGITS + strlen(suffix) || !has_suffix(name, suffix))
        return 0;
    memcpy(digits, name, FILE_DIGITS);
    return vv_parse_u64(digits, &number) == 0 ? number : 0;
}

/* ---- opening ---- */

/* What the directory holds. */
struct listing {
    uint64_t wal[VV_JOURNAL_FILES_MAX];
    size_t wal_count;
    uint64_t unfinished[VV_JOURNAL_FILES_MAX]; /* files whose making stopped */
    size_t unfinished_count;
};

static int visit_name(void *arg, const char *name, bool is_dir)
{
    struct listing *listing = arg;
    uint64_t wal = number_of(name, ".wal");
    uint64_t unfinished = number_of(name, ".new");
    if (is_dir)
        return 0;
    if (wal && listing->wal_count == VV_JOURNAL_FILES_MAX)
        return -VV_ERR_LIMIT;
    if (wal)
        listing->wal[listing->wal_count++] = wal;
    if (unfinished && listing->unfinished_count < VV_JOURNAL_FILES_MAX)
        listing->unfinished[listing->unfinished_count++] = unfinished;
    return 0;
}

/* The directory, and its name in its parent, on stable media. */
static int make_directory(const char *path)
{
    int err = vv_path_mkdir(path);
    if (err && err != -EEXIST)
        return err;
    char parent[VV_JOURNAL_PATH_MAX];
    TRY(vv_copy_text(parent, sizeof(parent), path));
    size_t len = strlen(parent);
    while (len > 1 && parent[len - 1] == '/')
        parent[--len] = '\0';
    char *slash = strrchr(parent, '/');
    if (slash == parent)
        slash[1] = '\0';
    else if (slash)
        *slash = '\0';
    return vv_path_sync_dir(slash ? parent : ".");
}

static int write_id(struct vv_journal *journal)
{
    char text[ID_LEN + 1];
    vv_hex(journal->id, sizeof(journal->id), text);
    text[ID_LEN - 1] = '\n';
    struct iovec iov = {text, ID_LEN};
    return vv_file_pwritev_sync(journal->id_file, &iov, 1, 0);
}

/* Read the id, or make one where none was ever used: files come after it. It is written again when
 * it is there: a process that was killed or met an error may have left it without making it
 * durable. */
static int read_or_write_id(struct vv_journal *journal, bool has_files)
{
    char text[ID_LEN + 1] = "";
    ssize_t len = vv_file_pread(journal->id_file, text, ID_LEN, 0);
    TRY(len);
    bool is_whole = len == ID_LEN && text[ID_LEN - 1] == '\n';
    text[ID_LEN - 1] = '\0';
    if (!is_whole || vv_unhex(text, journal->id, sizeof(journal->id)) != 0) {
        if (has_files)
            return -VV_ERR_FORMAT;
        vv_rt_random(journal->id, sizeof(journal->id));
    }
    return write_id(journal);
}

static int lock_id(struct vv_journal *journal)
{
    char path[VV_JOURNAL_PATH_MAX];
    TRY(path_of(journal, ID_NAME, path, sizeof(path)));
    TRY(vv_file_open(path, VV_FILE_READ | VV_FILE_WRITE | VV_FILE_CREATE, &journal->id_file));
    int err = vv_file_lock(journal->id_file);
    return err == -EWOULDBLOCK ? -VV_ERR_LOCKED : err;
}

static void free_file(struct vv_journal_file *file)
{
    if (file && file->file)
        vv_file_close(file->file);
    vv_free(file);
}

/* Nobody else uses the journal (its id is locked), but a process that was killed may have left a write to this file
 * on its way (io_uring), which would land on what is written from now on. Such a write holds the lock that
 * the process had. */
static int lock_file(const struct vv_journal *journal, const struct vv_journal_file *file)
{
    uint64_t until_ns = vv_rt_now_ns() + DEAD_WRITES_WAIT_NS;
    int err = vv_file_lock(file->file);
    if (err == -EWOULDBLOCK)
        vv_warn("journal", "%s: waiting for a write of a process that was killed", journal->path);
    while (err == -EWOULDBLOCK && vv_rt_now_ns() < until_ns) {
        vv_rt_sleep_ns(DEAD_WRITES_LOOK_NS);
        err = vv_file_lock(file->file);
    }
    return err == -EWOULDBLOCK ? -VV_ERR_LOCKED : err;
}

/* Add a file that is there to the journal's. */
static int add_file(struct vv_journal *journal, uint64_t number)
{
    assert(journal->file_count < VV_JOURNAL_FILES_MAX);
    char path[VV_JOURNAL_PATH_MAX];
    TRY(file_path(journal, number, ".wal", path, sizeof(path)));
    struct vv_journal_file *file = vv_zalloc(sizeof(*file));
    if (!file)
        return -ENOMEM;
    file->number = number;
    uint8_t start[VV_JOURNAL_RECORD_HEADER_LEN];
    ssize_t len = 0;
    unsigned flags = VV_FILE_READ | VV_FILE_WRITE | VV_FILE_DIRECT_SYNCED;
    int err = vv_file_open(path, flags, &file->file);
    if (!err)
        err = lock_file(journal, file);
    if (!err)
        err = vv_file_size(file->file, &file->size);
    if (!err) {
        len = vv_file_pread(file->file, start, sizeof(start), 0);
        err = len < 0 ? (int)len : 0;
    }
    if (err) {
        free_file(file);
        return err;
    }
    struct vv_journal_record record;
    if (vv_journal_record_decode(start, (size_t)len, &record) == 0) {
        file->first_commit = record.commit;
        file->session = record.session;
    }
    journal->files[journal->file_count++] = file;
    return 0;
}

static int add_listed(struct vv_journal *journal, const struct listing *listing)
{
    for (size_t i = 0; i < listing->unfinished_count; i++) {
        char path[VV_JOURNAL_PATH_MAX];
        TRY(file_path(journal, listing->unfinished[i], ".new", path, sizeof(path)));
        TRY(vv_path_unlink(path));
    }
    journal->next_number = 1;
    journal->is_empty = true;
    for (size_t i = 0; i < listing->wal_count; i++) {
        TRY(add_file(journal, listing->wal[i]));
        if (listing->wal[i] >= journal->next_number)
            journal->next_number = listing->wal[i] + 1;
        if (journal->files[i]->first_commit)
            journal->is_empty = false;
    }
    return 0;
}

int vv_journal_open_files(struct vv_journal *journal)
{
    TRY(make_directory(journal->path));
    TRY(lock_id(journal));
    CLEANUP(vv_free_ptr) struct listing *listing = vv_zalloc(sizeof(*listing));
    if (!listing)
        return -ENOMEM;
    TRY(vv_path_list(journal->path, visit_name, listing));
    TRY(read_or_write_id(journal, listing->wal_count > 0));
    TRY(add_listed(journal, listing));
    /* Names that a killed process left are on stable media before anything relies on them. */
    return vv_path_sync_dir(journal->path);
}

void vv_journal_close_files(struct vv_journal *journal)
{
    for (size_t i = 0; i < journal->file_count; i++)
        free_file(journal->files[i]);
    journal->file_count = 0;
    if (journal->id_file)
        vv_file_close(journal->id_file);
    journal->id_file = NULL;
}

/* ---- files while open ---- */

static bool is_free(const struct vv_journal *journal, const struct vv_journal_file *file)
{
    bool is_needed = file->first_commit && file->last_commit > journal->trimmed;
    return file != journal->active && !is_needed;
}

struct vv_journal_file *vv_journal_free_file(const struct vv_journal *journal, uint64_t len)
{
    for (size_t i = 0; i < journal->file_count; i++) {
        if (is_free(journal, journal->files[i]) && journal->files[i]->size >= len)
            return journal->files[i];
    }
    return NULL;
}

size_t vv_journal_free_count(const struct vv_journal *journal)
{
    size_t count = 0;
    for (size_t i = 0; i < journal->file_count; i++)
        count += is_free(journal, journal->files[i]);
    return count;
}

/* Its name may come back with a power loss; what it holds is in the bucket, and is passed over. */
static int remove_file(struct vv_journal *journal, size_t index)
{
    char path[VV_JOURNAL_PATH_MAX];
    struct vv_journal_file *file = journal->files[index];
    TRY(file_path(journal, file->number, ".wal", path, sizeof(path)));
    journal->files[index] = journal->files[--journal->file_count];
    free_file(file);
    return vv_path_unlink(path);
}

int vv_journal_remove_surplus(struct vv_journal *journal, size_t keep_max)
{
    for (size_t i = journal->file_count; i-- > 0 && vv_journal_free_count(journal) > keep_max;) {
        if (is_free(journal, journal->files[i]))
            TRY(remove_file(journal, i));
    }
    return 0;
}

static int write_zeros(struct vv_file *file, uint64_t size)
{
    CLEANUP(vv_free_ptr) uint8_t *zeros = vv_alloc_aligned(ZERO_ALIGN, ZERO_CHUNK_BYTES);
    if (!zeros)
        return -ENOMEM;
    memset(zeros, 0, ZERO_CHUNK_BYTES);
    for (uint64_t offset = 0; offset < size; offset += ZERO_CHUNK_BYTES) {
        uint64_t left = size - offset;
        struct iovec iov = {zeros, left < ZERO_CHUNK_BYTES ? left : ZERO_CHUNK_BYTES};
        TRY(vv_file_pwritev(file, &iov, 1, offset));
    }
    return 0;
}

/* Blocks that were written once need no metadata when they are written again. Around the kernel's cache: nobody reads
 * them, and finding 64 MiB of its pages was 15% of the processor time while the first GiB of a volume was written. */
static int fill_file(const char *path, uint64_t size)
{
    struct vv_file *file;
    unsigned flags =
        VV_FILE_READ | VV_FILE_WRITE | VV_FILE_CREATE | VV_FILE_TRUNCATE | VV_FILE_DIRECT;
    TRY(vv_file_open(path, flags, &file));
    int err = vv_file_allocate(file, 0, size);
    if (err == -EOPNOTSUPP || err == -ENOSYS)
        err = 0;
    if (!err)
        err = write_zeros(file, size);
    if (!err)
        err = vv_file_datasync(file);
    vv_file_close(file);
    return err;
}

int vv_journal_make_file(struct vv_journal *journal, uint64_t len)
{
    if (journal->file_count >= VV_JOURNAL_FILES_MAX || journal->next_number > FILE_NUMBER_MAX)
        return -VV_ERR_LIMIT;
    uint64_t size = vv_journal_padded(len > journal->file_bytes ? len : journal->file_bytes);
    uint64_t number = journal->next_number++;
    char unfinished[VV_JOURNAL_PATH_MAX];
    char path[VV_JOURNAL_PATH_MAX];
    TRY(file_path(journal, number, ".new", unfinished, sizeof(unfinished)));
    TRY(file_path(journal, number, ".wal", path, sizeof(path)));
    int err = fill_file(unfinished, size);
    if (!err)
        err = vv_path_rename(unfinished, path);
    if (err) {
        int unlinked = vv_path_unlink(unfinished);
        (void)unlinked; /* or the next opening does it */
        return err;
    }
    TRY(vv_path_sync_dir(journal->path));
    return add_file(journal, number);
}

int vv_journal_clear_file(struct vv_journal_file *file)
{
    _Alignas(VV_FILE_SECTOR) uint8_t zeros[VV_JOURNAL_BLOCK] = {0};
    struct iovec iov = {zeros, sizeof(zeros)};
    TRY(vv_file_pwritev_sync(file->file, &iov, 1, 0));
    file->first_commit = 0;
    file->last_commit = 0;
    return 0;
}
