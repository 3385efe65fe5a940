/* How fast one thread seals and opens frames, and builds small segments. Prints one line a figure:
 * MB/s of plain bytes, and microseconds a frame. Not part of the checks. After `make`:
 *   cc -O2 -D_GNU_SOURCE -Isrc -o build/bench_seal tests/bench/bench_seal.c build/libvv_segment.a \
 *      build/libvv_seal.a build/libvv_rt.a build/libvv_base.a \
 *      $(pkg-config --libs libcrypto libsodium liblz4 libzstd) -pthread && build/bench_seal */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "seal/seal.h"
#include "segment/segment.h"

#define RUN_NS 3000000.0
#define RUNS 80
#define FRAME_MAX (32u << 10)
#define INPUT_LEN (1u << 20) /* frames are cut from here, so the input is not one cached page */
#define ROUND_FRAMES 16

static uint8_t input_text[INPUT_LEN];
static uint8_t input_random[INPUT_LEN];

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void check(bool is_good, const char *what)
{
    if (is_good)
        return;
    fprintf(stderr, "bench_seal: %s failed\n", what);
    exit(1);
}

/* Words of a small vocabulary in no order: packs about as well as source code does. */
static void make_inputs(void)
{
    static const char *const words[] = {
        "static ",  "const ",    "return ", "struct ", "segment", "->frame", "(",
        ");\n    ", "uint64_t ", "offset",  " + ",     "index",   " = ",     "if (",
        "sealer",   "_len",      "size_t ", "x",       "0x1f",    ", ",
    };
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < INPUT_LEN; i += 8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        uint64_t value = state * 0x2545f4914f6cdd1du;
        memcpy(input_random + i, &value, 8);
    }
    for (size_t i = 0, word = 0; i < INPUT_LEN; word++) {
        const char *text = words[input_random[word] % (sizeof(words) / sizeof(words[0]))];
        size_t len = strlen(text) < INPUT_LEN - i ? strlen(text) : INPUT_LEN - i;
        memcpy(input_text + i, text, len);
        i += len;
    }
}

struct bench {
    struct vv_keyring *ring;
    struct vv_sealer *writer;
    struct vv_sealer *reader;
    const uint8_t *input;
    size_t len;
    uint8_t *sealed[ROUND_FRAMES];
    size_t sealed_len[ROUND_FRAMES];
};

static const struct vv_origin origin = {5000, 7};

static void seal_round(struct bench *bench)
{
    for (uint32_t i = 0; i < ROUND_FRAMES; i++) {
        const uint8_t *plain = bench->input + i * FRAME_MAX;
        ssize_t len = vv_frame_seal(bench->writer, i, &origin, plain, bench->len, bench->sealed[i],
                                    vv_frame_bound(FRAME_MAX));
        check(len > 0, "sealing");
        bench->sealed_len[i] = (size_t)len;
    }
}

static void open_round(struct bench *bench)
{
    static uint8_t plain[FRAME_MAX];
    for (uint32_t i = 0; i < ROUND_FRAMES; i++) {
        ssize_t len = vv_frame_open(bench->reader, i, &origin, bench->sealed[i],
                                    bench->sealed_len[i], plain, sizeof(plain));
        check(len == (ssize_t)bench->len, "opening");
    }
}

/* The best of several runs: other work on the machine only ever makes one slower. */
static double frame_ns(struct bench *bench, void (*round_fn)(struct bench *))
{
    double best = 0;
    for (int run = 0; run < RUNS; run++) {
        double start = now_ns();
        double spent = 0;
        size_t count = 0;
        while (spent < RUN_NS) {
            round_fn(bench);
            count += ROUND_FRAMES;
            spent = now_ns() - start;
        }
        if (run == 0 || spent / (double)count < best)
            best = spent / (double)count;
    }
    return best;
}

static void bench_frames(struct bench *bench, enum vv_cipher cipher,
                         enum vv_compression compression, bool is_text, size_t len)
{
    struct vv_seal_settings settings = {cipher, compression, 1};
    struct vv_object_header header;
    check(vv_sealer_new(bench->ring, VV_KIND_DATA, "data/x", 0, &settings, &header,
                        &bench->writer) == 0,
          "vv_sealer_new");
    check(vv_sealer_open(bench->ring, &header, "data/x", &bench->reader) == 0, "vv_sealer_open");
    bench->input = is_text ? input_text : input_random;
    bench->len = len;
    double seal = frame_ns(bench, seal_round);
    double open = frame_ns(bench, open_round);
    size_t total = 0;
    for (size_t i = 0; i < ROUND_FRAMES; i++)
        total += bench->sealed_len[i];
    printf("%-18s %-5s %-6s %5zu  ratio %.2f  seal %6.0f MB/s %6.2f us  open %6.0f MB/s %6.2f us\n",
           vv_cipher_name(cipher), vv_compression_name(compression), is_text ? "text" : "random",
           len, (double)(len * ROUND_FRAMES) / (double)total, (double)len * 1e3 / seal, seal / 1e3,
           (double)len * 1e3 / open, open / 1e3);
    vv_sealer_free(bench->writer);
    vv_sealer_free(bench->reader);
}

static void build_segment(struct bench *bench, uint64_t counter, size_t frame_len,
                          uint32_t frame_count)
{
    struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 1};
    struct vv_segment_id id = {.epoch = 3, .counter = counter, .kind = VV_SEGMENT_LOG};
    struct vv_segment_builder *builder;
    const struct iovec *iov;
    int iov_count;
    size_t bytes;
    struct vv_frame_loc loc;
    check(vv_segment_builder_new(bench->ring, &id, &settings, &builder) == 0, "builder");
    for (uint32_t i = 0; i < frame_count; i++)
        check(vv_segment_add(builder, &origin, input_random + i % 32 * FRAME_MAX, frame_len,
                             &loc) == 0,
              "vv_segment_add");
    check(vv_segment_finish(builder, input_text, 1000, &iov, &iov_count, &bytes) == 0,
          "vv_segment_finish");
    vv_segment_builder_free(builder);
}

static void bench_segments(struct bench *bench, size_t frame_len, uint32_t frame_count)
{
    double best = 0;
    uint64_t counter = 0;
    for (int run = 0; run < RUNS; run++) {
        double start = now_ns();
        double spent = 0;
        uint64_t first = counter;
        while (spent < RUN_NS) {
            build_segment(bench, counter++, frame_len, frame_count);
            spent = now_ns() - start;
        }
        if (run == 0 || spent / (double)(counter - first) < best)
            best = spent / (double)(counter - first);
    }
    printf("segment of %u random frames of %zu and a batch of 1000: %.1f us, %.0f MB/s\n",
           frame_count, frame_len, best / 1e3, (double)(frame_len * frame_count) * 1e3 / best);
}

int main(void)
{
    static const enum vv_compression compressions[] = {VV_COMPRESSION_LZ4, VV_COMPRESSION_ZSTD,
                                                       VV_COMPRESSION_NONE};
    static const enum vv_cipher ciphers[] = {VV_CIPHER_AES_256_GCM, VV_CIPHER_XCHACHA20_POLY1305,
                                             VV_CIPHER_NONE};
    static const uint8_t volume_id[16] = {1};
    struct bench bench = {0};
    make_inputs();
    check(vv_keyring_new(volume_id, &bench.ring) == 0, "vv_keyring_new");
    for (size_t i = 0; i < ROUND_FRAMES; i++) {
        bench.sealed[i] = malloc(vv_frame_bound(FRAME_MAX));
        check(bench.sealed[i] != NULL, "malloc");
    }
    for (size_t i = 0; i < 36; i++)
        bench_frames(&bench, ciphers[i / 12], compressions[i / 4 % 3], i % 2 == 0,
                     i / 2 % 2 == 0 ? 4096 : 32768);
    bench_segments(&bench, 4096, 1);
    bench_segments(&bench, 32768, 256);
    for (size_t i = 0; i < ROUND_FRAMES; i++)
        free(bench.sealed[i]);
    vv_keyring_free(bench.ring);
    return 0;
}
