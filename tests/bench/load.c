/* The load generator of tests/bench/run: one subcommand is one measured line, on whatever is
 * mounted at the path it is given. It prints "SECONDS COUNT": the time of the measured loop alone,
 * and how many operations or bytes it did. Names are looked up relative to an open directory, so a
 * server is asked for the last component only. `bare` is the yardstick for sequential writes: the
 * same bytes through the same codec and cipher with no file system around them. Not part of the
 * checks. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "seal/seal.h"

#define POOL_LEN (64u << 20) /* what is written is cut from here */
#define CHUNK_LEN (1u << 20)
#define BLOCK_LEN 4096u
#define FRAME_LEN (32u << 10)
#define SEGMENT_LEN (16u << 20)
#define WORDS (sizeof(words) / sizeof(words[0]))

/* Words of a small vocabulary in no order pack about as well as source code does. */
static const char *const words[] = {
    "static ",  "const ",    "return ", "struct ", "segment", "->frame", "(",
    ");\n    ", "uint64_t ", "offset",  " + ",     "index",   " = ",     "if (",
    "sealer",   "_len",      "size_t ", "x",       "0x1f",    ", ",
};

static void check(bool is_good, const char *what)
{
    if (is_good)
        return;
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void report(double from_s, uint64_t count)
{
    printf("%.6f %llu\n", now_s() - from_s, (unsigned long long)count);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1du;
}

/* Different for each process, so that nothing is written twice over. */
static uint64_t new_seed(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return ((uint64_t)now.tv_nsec << 20 ^ (uint64_t)getpid()) | 1;
}

static uint8_t *new_buffer(size_t len)
{
    uint8_t *buf = aligned_alloc(BLOCK_LEN, len);
    check(buf != NULL, "memory");
    memset(buf, 0, len);
    return buf;
}

static uint8_t *new_pool(const char *kind)
{
    uint8_t *pool = new_buffer(POOL_LEN);
    uint64_t state = new_seed();
    bool is_text = strcmp(kind, "text") == 0;
    check(is_text || strcmp(kind, "random") == 0, "kind of bytes: random or text");
    for (size_t i = 0; !is_text && i < POOL_LEN; i += 8) {
        uint64_t value = next_random(&state);
        memcpy(pool + i, &value, 8);
    }
    for (size_t i = 0; is_text && i < POOL_LEN;) {
        const char *word = words[next_random(&state) % WORDS];
        size_t len = strlen(word) < POOL_LEN - i ? strlen(word) : POOL_LEN - i;
        memcpy(pool + i, word, len);
        i += len;
    }
    return pool;
}

/* 0 .. count - 1 in random order. */
static uint32_t *new_order(uint32_t count)
{
    uint32_t *order = malloc(count * sizeof(*order) + 1);
    uint64_t state = new_seed();
    check(order != NULL, "memory");
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    for (uint32_t i = count; i > 1; i--) {
        uint32_t other = (uint32_t)(next_random(&state) % i);
        uint32_t kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
    return order;
}

static int open_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    check(fd >= 0, path);
    return fd;
}

static void name_of(uint32_t i, char name[32])
{
    snprintf(name, 32, "file-%07u", i);
}

/* ---- names ---- */

static void create(int argc, char **argv)
{
    check(argc == 3, "create DIR COUNT BYTES");
    mkdir(argv[0], 0755);
    int dir = open_dir(argv[0]);
    uint32_t count = (uint32_t)strtoul(argv[1], NULL, 10);
    size_t len = strtoul(argv[2], NULL, 10);
    uint8_t *pool = new_pool("random");
    double from_s = now_s();
    for (uint32_t i = 0; i < count; i++) {
        char name[32];
        name_of(i, name);
        int fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY, 0644);
        check(fd >= 0, name);
        if (len > 0)
            check(write(fd, pool + i * len % (POOL_LEN / 2), len) == (ssize_t)len, "write");
        check(close(fd) == 0, "close");
    }
    report(from_s, count);
}

static void stat_all(int argc, char **argv)
{
    check(argc == 2, "stat DIR COUNT");
    int dir = open_dir(argv[0]);
    uint32_t count = (uint32_t)strtoul(argv[1], NULL, 10);
    uint32_t *order = new_order(count);
    double from_s = now_s();
    for (uint32_t i = 0; i < count; i++) {
        char name[32];
        struct stat st;
        name_of(order[i], name);
        check(fstatat(dir, name, &st, 0) == 0, name);
    }
    report(from_s, count);
}

static void list(int argc, char **argv)
{
    check(argc == 1, "readdir DIR");
    double from_s = now_s();
    DIR *dir = opendir(argv[0]);
    check(dir != NULL, argv[0]);
    uint64_t count = 0;
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        count += entry->d_name[0] != '.'; /* not every server lists "." and ".." */
    closedir(dir);
    report(from_s, count);
}

static void unlink_all(int argc, char **argv)
{
    check(argc == 2, "unlink DIR COUNT");
    int dir = open_dir(argv[0]);
    uint32_t count = (uint32_t)strtoul(argv[1], NULL, 10);
    double from_s = now_s();
    for (uint32_t i = 0; i < count; i++) {
        char name[32];
        name_of(i, name);
        check(unlinkat(dir, name, 0) == 0, name);
    }
    report(from_s, count);
}

/* ---- bytes ---- */

static void write_file(int argc, char **argv)
{
    check(argc == 3, "write FILE BYTES KIND");
    uint64_t len = strtoull(argv[1], NULL, 10);
    uint8_t *pool = new_pool(argv[2]);
    int fd = open(argv[0], O_CREAT | O_TRUNC | O_WRONLY, 0644);
    check(fd >= 0, argv[0]);
    double from_s = now_s();
    for (uint64_t i = 0; i < len; i += CHUNK_LEN)
        check(write(fd, pool + i % POOL_LEN, CHUNK_LEN) == CHUNK_LEN, "write");
    check(fsync(fd) == 0, "fsync");
    report(from_s, len);
    close(fd);
}

static void read_file(int argc, char **argv)
{
    check(argc == 2, "read FILE direct|cached");
    int fd = open(argv[0], O_RDONLY | (strcmp(argv[1], "direct") == 0 ? O_DIRECT : 0));
    check(fd >= 0, argv[0]);
    uint8_t *buf = new_buffer(CHUNK_LEN);
    uint64_t count = 0;
    double from_s = now_s();
    for (;;) {
        ssize_t len = read(fd, buf, CHUNK_LEN);
        check(len >= 0, "read");
        if (len == 0)
            break;
        count += (uint64_t)len;
    }
    report(from_s, count);
}

static void random_read(int argc, char **argv)
{
    check(argc == 2, "randread FILE COUNT");
    int fd = open(argv[0], O_RDONLY | O_DIRECT);
    struct stat st;
    check(fd >= 0 && fstat(fd, &st) == 0, argv[0]);
    uint8_t *buf = new_buffer(BLOCK_LEN);
    uint64_t state = new_seed();
    uint64_t count = strtoull(argv[1], NULL, 10);
    uint64_t blocks = (uint64_t)st.st_size / BLOCK_LEN;
    double from_s = now_s();
    for (uint64_t i = 0; i < count; i++) {
        off_t offset = (off_t)(next_random(&state) % blocks * BLOCK_LEN);
        check(pread(fd, buf, BLOCK_LEN, offset) == BLOCK_LEN, "pread");
    }
    report(from_s, count);
}

/* Each block of the file once, in random order, with new random bytes; then fsync. */
static void overwrite(int argc, char **argv)
{
    check(argc == 1, "overwrite FILE");
    int fd = open(argv[0], O_WRONLY);
    struct stat st;
    check(fd >= 0 && fstat(fd, &st) == 0, argv[0]);
    uint32_t blocks = (uint32_t)(st.st_size / BLOCK_LEN);
    uint32_t *order = new_order(blocks);
    uint8_t *pool = new_pool("random");
    double from_s = now_s();
    for (uint32_t i = 0; i < blocks; i++) {
        const uint8_t *bytes = pool + (uint64_t)i * BLOCK_LEN % POOL_LEN;
        off_t offset = (off_t)order[i] * BLOCK_LEN;
        check(pwrite(fd, bytes, BLOCK_LEN, offset) == BLOCK_LEN, "pwrite");
    }
    check(fsync(fd) == 0, "fsync");
    report(from_s, blocks);
}

static void append(int argc, char **argv)
{
    check(argc == 2, "append FILE COUNT");
    int fd = open(argv[0], O_CREAT | O_WRONLY | O_APPEND, 0644);
    check(fd >= 0, argv[0]);
    uint64_t count = strtoull(argv[1], NULL, 10);
    uint8_t *pool = new_pool("random");
    double from_s = now_s();
    for (uint64_t i = 0; i < count; i++) {
        check(write(fd, pool + i * BLOCK_LEN % POOL_LEN, BLOCK_LEN) == BLOCK_LEN, "write");
        check(fsync(fd) == 0, "fsync");
    }
    report(from_s, count);
}

/* ---- the yardstick ---- */

static struct vv_sealer *new_sealer(void)
{
    static const uint8_t volume_id[16] = {1};
    struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 1};
    struct vv_object_header header;
    struct vv_keyring *ring;
    struct vv_sealer *sealer;
    check(vv_keyring_new(volume_id, &ring) == 0, "keyring");
    check(vv_sealer_new(ring, VV_KIND_DATA, "data/x", 0, &settings, &header, &sealer) == 0,
          "sealer");
    return sealer;
}

/* Seal BYTES as 32 KiB frames on one thread; with FILE also write them there, by segments. */
static void bare(int argc, char **argv)
{
    check(argc == 2 || argc == 3, "bare BYTES KIND [FILE]");
    static const struct vv_origin origin = {5000, 7};
    uint64_t total = strtoull(argv[0], NULL, 10);
    uint8_t *pool = new_pool(argv[1]);
    struct vv_sealer *sealer = new_sealer();
    int fd = argc == 3 ? open(argv[2], O_CREAT | O_TRUNC | O_WRONLY, 0644) : -1;
    check(argc == 2 || fd >= 0, "open");
    size_t bound = vv_frame_bound(FRAME_LEN);
    uint8_t *segment = new_buffer(SEGMENT_LEN + BLOCK_LEN * 16);
    size_t used = 0;
    double from_s = now_s();
    for (uint64_t i = 0; i < total; i += FRAME_LEN) {
        ssize_t len = vv_frame_seal(sealer, (uint32_t)(i / FRAME_LEN % 512), &origin,
                                    pool + i % POOL_LEN, FRAME_LEN, segment + used, bound);
        check(len > 0, "sealing");
        used += (size_t)len;
        if (used + bound <= SEGMENT_LEN && i + FRAME_LEN < total)
            continue;
        check(fd < 0 || write(fd, segment, used) == (ssize_t)used, "write");
        used = 0;
    }
    check(fd < 0 || fdatasync(fd) == 0, "fdatasync");
    report(from_s, total);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(int argc, char **argv);
    } commands[] = {
        {"create", create},        {"stat", stat_all},
        {"readdir", list},         {"unlink", unlink_all},
        {"write", write_file},     {"read", read_file},
        {"randread", random_read}, {"overwrite", overwrite},
        {"append", append},        {"bare", bare},
    };
    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        commands[i].fn(argc - 2, argv + 2);
        return 0;
    }
    fprintf(stderr, "usage: load create|stat|readdir|unlink|write|read|randread|overwrite|append|"
                    "bare ...\n");
    return 2;
}
