#include "store/s3_http_impl.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"

#define POLL_FOREVER_MS 3600000
#define CURL_BUFFER_BYTES (128l << 10)
#define TEXT_ROOM_MIN 4096u

/* The lock guards what the fibers and the thread share: the queues, is_stopping. */
struct vv_http {
    struct vv_http_options options;
    char *ca_file;
    CURLM *multi;
    pthread_t thread;
    pthread_mutex_t lock;
    struct vv_list small;
    struct vv_list large;
    bool is_stopping;
    unsigned running;            /* the thread's own */
    atomic_uint_least64_t connects;
};

/* ---- callbacks, on the thread ---- */

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    struct vv_http_request *request = arg;
    size_t len = size * count;
    request->header_bytes += len;
    if (request->header_bytes > VV_HTTP_HEADER_BYTES_MAX) {
        request->is_refused = true;
        request->refusal = -EFBIG;
        return 0;
    }
    vv_http_parse_header(&request->answer, line, len);
    return len;
}

/* Keep a part of a body as text. */
static size_t keep_text(struct vv_http_request *request, const char *bytes, size_t len)
{
    struct vv_http_answer *answer = &request->answer;
    size_t max = request->text_max ? request->text_max : VV_HTTP_TEXT_MAX;
    if (len > max - answer->text_len) {
        request->is_refused = true;
        request->refusal = -EFBIG;
        return 0;
    }
    size_t need = answer->text_len + len + 1;
    if (need > request->text_room) {
        size_t room = need > 2 * request->text_room ? need : 2 * request->text_room;
        char *grown = vv_realloc(answer->text, room < TEXT_ROOM_MIN ? TEXT_ROOM_MIN : room);
        if (!grown) {
            request->is_refused = true;
            request->refusal = -ENOMEM;
            return 0;
        }
        answer->text = grown;
        request->text_room = room < TEXT_ROOM_MIN ? TEXT_ROOM_MIN : room;
    }
    memcpy(answer->text + answer->text_len, bytes, len);
    answer->text_len += len;
    answer->text[answer->text_len] = 0;
    return len;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    struct vv_http_request *request = arg;
    struct vv_http_answer *answer = &request->answer;
    size_t len = size * count;
    if (!request->sink || (answer->status != 200 && answer->status != 206))
        return keep_text(request, bytes, len);
    size_t room = request->sink_len - answer->sunk;
    size_t taken = len < room ? len : room;
    memcpy(request->sink + answer->sunk, bytes, taken);
    answer->sunk += taken;
    answer->is_overlong |= taken < len;
    return taken;
}

/* The next bytes of the request's body. */
static size_t on_read(char *out, size_t size, size_t count, void *arg)
{
    struct vv_http_request *request = arg;
    size_t room = size * count;
    size_t done = 0;
    while (done < room && request->body_index < request->body_count) {
        const struct iovec *iov = &request->body[request->body_index];
        size_t left = iov->iov_len - request->body_skip;
        size_t len = left < room - done ? left : room - done;
        if (len > 0)
            memcpy(out + done, (const char *)iov->iov_base + request->body_skip, len);
        done += len;
        request->body_skip += len;
        if (len == left) {
            request->body_index++;
            request->body_skip = 0;
        }
    }
    request->body_sent += done;
    if (request->body_sent == request->body_bytes)
        request->is_sent = true;
    return done;
}

/* curl sends the body again from its beginning, over another connection. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct vv_http_request *request = arg;
    if (offset != 0 || origin != SEEK_SET)
        return CURL_SEEKFUNC_CANTSEEK;
    request->body_index = 0;
    request->body_skip = 0;
    request->body_sent = 0;
    return CURL_SEEKFUNC_OK;
}

/* ---- transfers, on the thread ---- */

static void on_posted(void *arg)
{
    struct vv_http_request *request = arg;
    request->is_done = true;
    vv_waitq_wake_all(&request->done);
}

/* The request goes back to its fiber; it must not be touched afterwards. */
static void finish(struct vv_http_request *request, int result)
{
    struct vv_reactor *reactor = request->reactor;
    curl_slist_free_all(request->lines);
    curl_easy_cleanup(request->easy);
    request->lines = NULL;
    request->easy = NULL;
    request->result = result;
    request->post.fn = on_posted;
    request->post.arg = request;
    vv_reactor_post(reactor, &request->post);
}

static void set_method(struct vv_http_request *request, CURL *easy)
{
    bool is_put = strcmp(request->method, "PUT") == 0;
    bool is_post = strcmp(request->method, "POST") == 0;
    if (strcmp(request->method, "HEAD") == 0)
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1l);
    else if (is_put)
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1l);
    else if (is_post)
        curl_easy_setopt(easy, CURLOPT_POST, 1l);
    else if (strcmp(request->method, "GET") != 0)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    if (!is_put && !is_post) {
        request->is_sent = true;
        return;
    }
    curl_off_t bytes = (curl_off_t)request->body_bytes;
    curl_easy_setopt(easy, is_put ? CURLOPT_INFILESIZE_LARGE : CURLOPT_POSTFIELDSIZE_LARGE, bytes);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(easy, CURLOPT_READDATA, request);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, request);
    request->is_sent = bytes == 0;
}

/* No byte for timeout_ms, or so slow that it takes that and a second for each VV_HTTP_RATE_MIN. */
static void set_deadlines(const struct vv_http *http, const struct vv_http_request *request,
                          CURL *easy)
{
    uint64_t bytes = request->body_bytes + request->sink_len;
    uint64_t total_ms = 2 * http->options.timeout_ms + bytes / VV_HTTP_RATE_MIN * 1000;
    uint64_t idle_s = (http->options.timeout_ms + 999) / 1000;
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)http->options.connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)total_ms);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1l);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)idle_s);
}

static void set_options(const struct vv_http *http, struct vv_http_request *request, CURL *easy)
{
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1l);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1l);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1l);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, CURL_BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, CURL_BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->lines);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->error);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, request);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
    if (http->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, http->ca_file);
    if (http->options.is_direct)
        curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    set_method(request, easy);
    set_deadlines(http, request, easy);
}

static int make_lines(struct vv_http_request *request)
{
    struct curl_slist *lines = NULL;
    /* Waiting for "100 Continue" would cost a round trip. */
    for (size_t i = 0; i <= request->header_count; i++) {
        const char *line = i < request->header_count ? request->headers[i] : "Expect:";
        struct curl_slist *longer = curl_slist_append(lines, line);
        if (!longer) {
            curl_slist_free_all(lines);
            return -ENOMEM;
        }
        lines = longer;
    }
    request->lines = lines;
    return 0;
}

static void start(struct vv_http *http, struct vv_http_request *request)
{
    int err = make_lines(request);
    if (err == 0 && !(request->easy = curl_easy_init()))
        err = -ENOMEM;
    if (err == 0) {
        set_options(http, request, request->easy);
        if (curl_multi_add_handle(http->multi, request->easy) != CURLM_OK)
            err = -ENOMEM;
    }
    if (err < 0)
        finish(request, err);
    else
        http->running++;
}

static int error_of(CURLcode code, const struct vv_http_request *request)
{
    if (request->is_refused)
        return request->refusal;
    switch (code) {
    case CURLE_OK: return 0;
    case CURLE_WRITE_ERROR: return request->answer.is_overlong ? 0 : -EIO;
    case CURLE_OPERATION_TIMEDOUT: return -ETIMEDOUT;
    case CURLE_COULDNT_CONNECT: return -ECONNREFUSED;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY: return -EHOSTUNREACH;
    case CURLE_OUT_OF_MEMORY: return -ENOMEM;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY: return -EPROTO;
    default: return -EIO;
    }
}

static void end(struct vv_http *http, CURL *easy, CURLcode code)
{
    struct vv_http_request *request = NULL;
    long connects = 0;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&request);
    curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
    atomic_fetch_add(&http->connects, (uint64_t)connects);
    if (code != CURLE_OK && request->error[0] == 0)
        (void)vv_copy_text(request->error, sizeof(request->error), curl_easy_strerror(code));
    curl_multi_remove_handle(http->multi, easy);
    http->running--;
    finish(request, error_of(code, request));
}

/* ---- the thread ---- */

static struct vv_http_request *take(struct vv_http *http, bool *out_is_stopping)
{
    struct vv_http_request *request = NULL;
    pthread_mutex_lock(&http->lock);
    struct vv_list *queue = vv_list_is_empty(&http->small) ? &http->large : &http->small;
    if (http->running < http->options.connections && !vv_list_is_empty(queue)) {
        request = vv_list_first(queue, struct vv_http_request, node);
        vv_list_remove(&request->node);
    }
    *out_is_stopping = http->is_stopping;
    pthread_mutex_unlock(&http->lock);
    return request;
}

static void *http_main(void *arg)
{
    struct vv_http *http = arg;
    for (;;) {
        struct vv_http_request *request;
        bool is_stopping;
        while ((request = take(http, &is_stopping)) != NULL)
            start(http, request);
        if (is_stopping)
            return NULL;
        int running = 0;
        int left = 0;
        bool has_ended = false;
        curl_multi_perform(http->multi, &running);
        for (CURLMsg *message; (message = curl_multi_info_read(http->multi, &left)) != NULL;) {
            has_ended |= message->msg == CURLMSG_DONE;
            if (message->msg == CURLMSG_DONE)
                end(http, message->easy_handle, message->data.result);
        }
        if (!has_ended)
            curl_multi_poll(http->multi, NULL, 0, POLL_FOREVER_MS, NULL);
    }
}

/* Signals are the reactor's. */
static int start_thread(struct vv_http *http)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&http->thread, NULL, http_main, http);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0)
        return -err;
    pthread_setname_np(http->thread, "varve-http");
    return 0;
}

static void free_http(struct vv_http *http)
{
    if (http->multi)
        curl_multi_cleanup(http->multi);
    pthread_mutex_destroy(&http->lock);
    vv_free(http->ca_file);
    vv_free(http);
    curl_global_cleanup();
}

int vv_http_open(const struct vv_http_options *options, struct vv_http **out_http)
{
    struct vv_http *http = vv_zalloc(sizeof(*http));
    if (!http)
        return -ENOMEM;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        vv_free(http);
        return -ENOMEM;
    }
    pthread_mutex_init(&http->lock, NULL);
    vv_list_init(&http->small);
    vv_list_init(&http->large);
    http->options = *options;
    if (http->options.connections == 0 || http->options.connections > VV_HTTP_CONNECTIONS_MAX)
        http->options.connections = VV_HTTP_CONNECTIONS_MAX;
    http->multi = curl_multi_init();
    http->ca_file = options->ca_file ? vv_strdup(options->ca_file) : NULL;
    int err = !http->multi || (options->ca_file && !http->ca_file) ? -ENOMEM : 0;
    if (err == 0) {
        curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)http->options.connections);
        curl_multi_setopt(http->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
        err = start_thread(http);
    }
    if (err < 0) {
        free_http(http);
        return err;
    }
    *out_http = http;
    return 0;
}

void vv_http_close(struct vv_http *http)
{
    if (!http)
        return;
    pthread_mutex_lock(&http->lock);
    assert(vv_list_is_empty(&http->small) && vv_list_is_empty(&http->large));
    http->is_stopping = true;
    pthread_mutex_unlock(&http->lock);
    curl_multi_wakeup(http->multi);
    pthread_join(http->thread, NULL);
    free_http(http);
}

uint64_t vv_http_connects(const struct vv_http *http)
{
    return atomic_load(&http->connects);
}

/* ---- on the reactor ---- */

int vv_http_perform(struct vv_http *http, struct vv_http_request *request)
{
    assert(request->header_count <= VV_HTTP_HEADERS_MAX);
    request->body_bytes = 0;
    for (int i = 0; i < request->body_count; i++)
        request->body_bytes += request->body[i].iov_len;
    memset(&request->answer, 0, sizeof(request->answer));
    request->answer.length = VV_HTTP_UNKNOWN;
    request->answer.range_total = VV_HTTP_UNKNOWN;
    request->answer.text = vv_zalloc(1);
    if (!request->answer.text)
        return -ENOMEM;
    request->text_room = 1;
    request->error[0] = 0;
    request->http = http;
    request->reactor = vv_reactor_self();
    vv_waitq_init(&request->done);
    uint64_t bytes = request->body_bytes + request->sink_len;
    pthread_mutex_lock(&http->lock);
    vv_list_push_back(bytes <= VV_HTTP_SMALL_BYTES ? &http->small : &http->large, &request->node);
    pthread_mutex_unlock(&http->lock);
    curl_multi_wakeup(http->multi);
    while (!request->is_done)
        vv_waitq_wait(&request->done, VV_NEVER);
    return request->result;
}

void vv_http_request_done(struct vv_http_request *request)
{
    vv_free(request->answer.text);
    request->answer.text = NULL;
}
