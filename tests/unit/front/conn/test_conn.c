/* Connections, with a protocol of the test's own: be32 kind, be32 number, be32 len, and for ECHO and PAYLOAD that many bytes.
 * ECHO and PAYLOAD (which is received as one, for an offset of `number`) are answered with number and the bytes, FILL with number and len bytes of it, WAIT with number when the test says so. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "front/conn/conn.h"
#include "unit/front/wire.h"
#include "volume/payload_impl.h"

#include "tap.h"

enum { ECHO = 1, FILL = 2, WAIT = 3, PAYLOAD = 4, NONSENSE = 5 };
#define HEAD_BYTES 12
#define CONNECTIONS_MAX 4
#define REQUESTS_MAX 8
#define MEMORY_BYTES (4u << 20)

static struct vv_conn_memory memory;
static struct vv_conns conns;
static struct vv_waitq go_on;
static unsigned waiting;
static unsigned opened, closed;
static char address[108];

struct toy_job {
    struct vv_job base;
    uint32_t kind, number, len;
    uint8_t head[4];
    struct vv_buffer *data;
    struct vv_payload *payload;
};

/* ---- the protocol ---- */

static void serve_job(void *arg)
{
    struct toy_job *job = arg;
    if (job->kind == FILL)
        memset(job->data->bytes, (int)job->number, job->len);
    waiting += job->kind == WAIT;
    if (job->kind == WAIT)
        vv_waitq_wait(&go_on, VV_NEVER);
    waiting -= job->kind == WAIT;
    vv_job_piece(&job->base, job->head, sizeof(job->head));
    if (job->data)
        vv_job_piece(&job->base, job->data->bytes, job->len);
    for (unsigned i = 0; job->payload && i < vv_payload_count(job->payload); i++) {
        struct iovec piece = vv_payload_piece(job->payload, i);
        vv_job_piece(&job->base, piece.iov_base, piece.iov_len);
    }
    vv_job_answer(&job->base, job->len);
}

static int take_payload(struct toy_job *job, struct vv_conn *conn)
{
    job->payload = vv_payload_plan(job->number, job->len);
    if (!job->payload || vv_payload_fill(job->payload, NULL, NULL) < 0 ||
        vv_job_room(&job->base, vv_payload_count(job->payload) + 1) < 0)
        return -ENOMEM;
    return vv_conn_take_payload(conn, job->payload, VV_NEVER);
}

static int start_job(struct toy_job *job, struct vv_conn *conn)
{
    int err = vv_job_begin(&job->base, conn, job->len);
    if (err < 0) {
        vv_free(job);
        return err;
    }
    if (job->kind == ECHO || job->kind == FILL) {
        job->data = vv_buffer_new(&memory, job->len);
        if (!job->data) {
            vv_job_end(&job->base);
            return -ENOMEM;
        }
    }
    int taken = job->kind == ECHO ? vv_conn_take(conn, job->data->bytes, job->len, VV_NEVER) : 1;
    if (job->kind == PAYLOAD)
        taken = take_payload(job, conn);
    if (taken > 0 && vv_fiber_start(serve_job, job, "toy") < 0)
        taken = -ENOMEM;
    if (taken <= 0)
        vv_job_end(&job->base);
    return taken;
}

static int read_one(struct vv_conn *conn)
{
    int filled = vv_conn_next(conn, HEAD_BYTES);
    if (filled <= 0)
        return filled;
    struct vv_cursor cursor = vv_cursor_of(vv_conn_ahead(conn), HEAD_BYTES);
    struct toy_job head = {.kind = vv_cursor_be32(&cursor)};
    head.number = vv_cursor_be32(&cursor);
    head.len = vv_cursor_be32(&cursor);
    vv_conn_skip(conn, HEAD_BYTES);
    if (head.kind >= NONSENSE)
        return -EPROTO;
    if (head.kind == ECHO || head.kind == PAYLOAD) {
        filled = vv_conn_fill(conn, head.len < 1 ? 0 : 1, VV_NEVER);
        if (filled <= 0)
            return filled;
    }
    struct toy_job *job = vv_memdup(&head, sizeof(head));
    if (!job)
        return -ENOMEM;
    struct vv_writer writer = vv_writer_of(job->head, sizeof(job->head));
    vv_writer_be32(&writer, head.number);
    return start_job(job, conn);
}

static int serve(struct vv_conn *conn)
{
    int result = 1;
    while (result > 0 && !conn->is_broken)
        result = read_one(conn);
    return result > 0 ? 0 : result;
}

static int open_conn(struct vv_conn *conn)
{
    opened++;
    return 0;
}

static void close_conn(struct vv_conn *conn)
{
    closed++;
}

static void stop_conn(struct vv_conn *conn)
{
    vv_waitq_wake_all(&go_on);
}

static void job_done(struct vv_job *base)
{
    struct toy_job *job = vv_container_of(base, struct toy_job, base);
    vv_buffer_free(&memory, job->data);
    vv_payload_free(job->payload);
    vv_free(job);
}

static struct vv_conn_kind kind = {
    .name = "toy",
    .speech = "toy",
    .conn_bytes = sizeof(struct vv_conn),
    .connections_max = CONNECTIONS_MAX,
    .requests_max = REQUESTS_MAX,
    .recv_max_s = 10,
    .send_max_s = 10,
    .open = open_conn,
    .serve = serve,
    .stop = stop_conn,
    .close = close_conn,
    .done = job_done,
};

/* ---- a client ---- */

static struct wire one, two;

static int ask(struct wire *wire, uint32_t what, uint32_t number, uint32_t len)
{
    uint8_t bytes[HEAD_BYTES];
    struct vv_writer writer = vv_writer_of(bytes, sizeof(bytes));
    vv_writer_be32(&writer, what);
    vv_writer_be32(&writer, number);
    vv_writer_be32(&writer, len);
    return wire_send(wire, bytes, writer.len);
}

/* The number of the next answer, whose `len` bytes are at *out (NULL: are not looked at). */
static int64_t hear(struct wire *wire, size_t len, const uint8_t **out)
{
    const uint8_t *bytes;
    TRY(wire_need(wire, 4 + len, &bytes));
    struct vv_cursor cursor = vv_cursor_of(bytes, 4);
    wire->in_used = 4 + len;
    if (out)
        *out = bytes + 4;
    return vv_cursor_be32(&cursor);
}

static int64_t echo(struct wire *wire, uint32_t number, const void *bytes, uint32_t len)
{
    const uint8_t *answer;
    TRY(ask(wire, ECHO, number, len));
    TRY(wire_send(wire, bytes, len));
    int64_t heard = hear(wire, len, &answer);
    return heard == number && memcmp(answer, bytes, len) != 0 ? -EBADMSG : heard;
}

/* Let the server do what it can. */
static void settle(void)
{
    for (int i = 0; i < 50; i++)
        vv_rt_sleep_ns(VV_NS_PER_MS / 10);
}

static bool is_quiet(void)
{
    for (int i = 0; i < 2000 && (conns.count > 0 || vv_conn_memory_used(&memory) > 0); i++)
        vv_rt_sleep_ns(VV_NS_PER_MS / 10);
    return conns.count == 0 && vv_conn_memory_used(&memory) == 0 && opened == closed;
}

/* ---- the tests ---- */

static void test_echo(void)
{
    static uint8_t bytes[200000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    tap_is_int(wire_open(&one, address), 0, "a client");
    tap_is_int(echo(&one, 1, "hello", 5), 1, "a small request");
    tap_is_int(echo(&one, 2, bytes, 5000), 2, "more than is read ahead at first");
    tap_is_int(echo(&one, 3, bytes, sizeof(bytes)), 3, "a large one");
    tap_is_int(echo(&one, 4, "", 0), 4, "an empty one");
    int err = 0;
    for (uint32_t i = 0; i < 1000 && err == 0; i++)
        err = ask(&one, FILL, i, 16);
    unsigned right = 0;
    for (uint32_t i = 0; i < 1000 && err == 0; i++)
        right += hear(&one, 16, NULL) == i;
    tap_is_int(right, 1000, "a pipeline of a thousand, answered in order");
    tap_is_int(ask(&one, WAIT, 9, 0), 0, "one that takes long");
    tap_is_int(echo(&one, 10, "x", 1), 10, "is overtaken");
    vv_waitq_wake_all(&go_on);
    tap_is_int(hear(&one, 0, NULL), 9, "and answered in its time");
    tap_is_int(ask(&one, NONSENSE, 0, 0), 0, "nonsense");
    tap_is_int(hear(&one, 0, NULL), -EPIPE, "ends the connection");
    tap_is_int((int64_t)conns.stats.protocol_errors, 1, "and is counted");
    wire_close(&one);
    tap_ok(is_quiet(), "nothing is left");
}

static bool hears_payload(uint32_t number, const uint8_t *bytes, size_t len)
{
    const uint8_t *answer;
    return hear(&one, len, &answer) == number && memcmp(answer, bytes, len) == 0;
}

/* Payloads come into pieces of an extent, whatever the offset cuts off in front, however they come, and whatever comes behind. */
static void test_payload(void)
{
    static uint8_t bytes[260000];
    static const struct {
        uint32_t offset, len;
    } rows[] = {{0, 1}, {5, 65536}, {32767, 65536}, {32768, 65536}, {1000, 250001}, {0, 259999}};
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 11 + i / 256);
    int err = wire_open(&one, address);
    tap_is_int(err, 0, "a client");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const uint32_t len = rows[i].len;
        err = ask(&one, PAYLOAD, rows[i].offset, len);
        for (uint32_t at = 0; at < len && err == 0; at += 7001)
            err = wire_send(&one, bytes + at, len - at < 7001 ? len - at : 7001);
        tap_ok(err == 0 && hears_payload(rows[i].offset, bytes, len), "%u bytes at %u, bit by bit",
               len, rows[i].offset);
    }
    for (uint32_t i = 0; i < 20 && err == 0; i++) {
        err = ask(&one, PAYLOAD, i * 1111, 70000 + i);
        err = err < 0 ? err : wire_send(&one, bytes + i, 70000 + i);
        err = err < 0 ? err : ask(&one, FILL, i, 16);
    }
    unsigned right = 0;
    for (uint32_t i = 0; i < 20 && err == 0; i++) {
        right += hears_payload(i * 1111, bytes + i, 70000 + i);
        right += hear(&one, 16, NULL) == i;
    }
    tap_is_int(right, 40, "a pipeline of 20, with others among them");
    tap_is_int(echo(&one, 3, bytes, 100000), 3, "and a large one of the other kind");
    err = ask(&one, PAYLOAD, 0, sizeof(bytes));
    err = err < 0 ? err : wire_send(&one, bytes, 100000);
    tap_is_int(err, 0, "a third of a payload");
    settle();
    wire_close(&one);
    tap_ok(is_quiet(), "nothing is left when its client goes");
}

/* Both ends of who does not move: memory is held for no more than what was promised. */
static void test_slow(void)
{
    tap_is_int(wire_open(&one, address), 0, "a client");
    tap_is_int(ask(&one, ECHO, 1, 1u << 20), 0, "announces much and sends nothing");
    settle();
    tap_is_int((int64_t)vv_conn_memory_used(&memory), 0, "it holds no memory");
    wire_close(&one);
    tap_is_int(wire_open(&one, address), 0, "a client");
    int err = 0;
    for (uint32_t i = 0; i < 500 && err == 0; i++)
        err = ask(&one, FILL, i, 1u << 20);
    tap_is_int(err, 0, "asks for 500 MiB and takes nothing");
    settle();
    uint64_t used = vv_conn_memory_used(&memory);
    tap_ok(used > 0 && used <= MEMORY_BYTES, "it holds %llu bytes of %u", (unsigned long long)used,
           MEMORY_BYTES);
    tap_is_int(wire_open(&two, address), 0, "another");
    tap_is_int(echo(&two, 5, "y", 1), 5, "is served");
    wire_close(&one);
    wire_close(&two);
    tap_ok(is_quiet(), "nothing is left when they are gone");
    tap_ok(memory.warm_bytes <= MEMORY_BYTES, "buffers are kept within the limit");
}

static void test_requests_max(void)
{
    int err = wire_open(&one, address);
    for (uint32_t i = 0; i < REQUESTS_MAX + 4 && err == 0; i++)
        err = ask(&one, WAIT, i, 0);
    settle();
    tap_is_int(err, 0, "more requests than may be at once");
    tap_is_int(waiting, REQUESTS_MAX, "so many are begun");
    vv_waitq_wake_all(&go_on);
    tap_is_int(hear(&one, 0, NULL), 0, "the first is answered");
    settle();
    tap_is_int(waiting, 4, "and the others begin");
    wire_close(&one);
    tap_ok(is_quiet(), "they end when the client goes");
}

/* One connection more than may be, with the others idle or busy. */
static int one_too_many(bool is_busy)
{
    static struct wire wires[CONNECTIONS_MAX];
    int err = 0;
    for (unsigned i = 0; i < CONNECTIONS_MAX && err >= 0; i++) {
        err = wire_open(&wires[i], address);
        if (err == 0)
            err = (int)echo(&wires[i], i, "z", 1);
        if (err >= 0 && is_busy)
            err = ask(&wires[i], WAIT, i, 0);
    }
    settle();
    if (err >= 0)
        err = wire_open(&one, address);
    if (err == 0)
        err = (int)echo(&one, 77, "z", 1);
    vv_waitq_wake_all(&go_on);
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
        wire_close(&wires[i]);
    wire_close(&one);
    return err;
}

static void test_connections_max(void)
{
    tap_ok(one_too_many(false) < 0, "one too many is closed");
    tap_ok(is_quiet() && conns.stats.connections_refused == 1, "and counted");
    kind.is_evicting = true;
    tap_is_int(one_too_many(false), 77, "or takes the place of one that is idle");
    tap_ok(is_quiet() && conns.stats.connections_evicted == 1, "which is counted");
    tap_ok(one_too_many(true) < 0, "but not of one that is busy");
    kind.is_evicting = false;
    tap_ok(is_quiet(), "nothing is left");
}

static int session_without_memory(int64_t n)
{
    int err = wire_open(&one, address);
    uint8_t bytes[9000] = {1};
    /* The client uses none but its socket's, which it has. */
    vv_alloc_fail_at(n, false);
    for (uint32_t i = 0; i < 3 && err >= 0; i++)
        err = (int)echo(&one, i, bytes, sizeof(bytes));
    vv_alloc_fail_at(-1, false);
    wire_close(&one);
    return err;
}

static void test_no_memory(void)
{
    int64_t n = 0;
    int err;
    do {
        vv_conn_memory_done(&memory); /* buffers are new each time */
        err = session_without_memory(n++);
        if (!is_quiet())
            break;
    } while (vv_alloc_failed() && n < 500);
    tap_ok(n > 5 && n < 500, "%lld allocations failed in turn", (long long)n - 1);
    tap_is_int(err, 2, "the session without a failure");
    tap_ok(is_quiet(), "nothing is left");
}

static void run(void *arg)
{
    vv_waitq_init(&go_on);
    vv_conn_memory_init(&memory, MEMORY_BYTES);
    vv_conns_init(&conns, &kind, NULL, &memory);
    vv_format(address, sizeof(address), "unix:/tmp/varve-test-conn.%d", (int)getpid());
    int err = vv_conns_listen(&conns, address, NULL);
    tap_is_int(err, 0, "the server listens");
    if (err == 0) {
        test_echo();
        test_payload();
    test_slow();
        test_requests_max();
        test_connections_max();
        test_no_memory();
        tap_is_int(wire_open(&one, address), 0, "a last client");
        settle();
    }
    vv_conns_close(&conns);
    tap_is_int(hear(&one, 0, NULL), -EPIPE, "is cut off when the server closes");
    wire_close(&one);
    vv_conn_memory_done(&memory);
    tap_is_int((int64_t)vv_conn_memory_used(&memory), 0, "no memory is charged");
}

static void drop_line(void *arg, enum vv_log_level level, const char *line)
{
}

int main(void)
{
    const struct vv_rt_options options = {.workers = 1};
    vv_log_set_sink(drop_line, NULL);
    tap_is_int(vv_rt_run(&options, run, NULL), 0, "the runtime ends well");
    return tap_done();
}
