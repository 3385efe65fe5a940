/* Where credentials come from, against a server in this process that plays STS, a container's
 * endpoint and an instance's metadata service. */
#include "store/s3_credentials.h"

#include "base/log.h"
#include "base/text.h"
#include "fake_s3.h"
#include "store/s3_places_impl.h"

struct places {
    struct vv_socket *listener;
    char endpoint[64];
    const char *sts_status; /* "200 OK", ... */
    int64_t expires_s;
    unsigned sts, container, metadata, refused;
    bool is_running;
    struct vv_waitq ended;
};

static void expiration(int64_t at_s, char *out, size_t size)
{
    time_t at = at_s;
    struct tm tm;
    gmtime_r(&at, &tm);
    strftime(out, size, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void answer_sts(struct places *places, struct fake_connection *c)
{
    char body[1024];
    char at[64];
    c->body[c->body_len] = 0;
    bool is_good = strstr((char *)c->body, "WebIdentityToken=the%2Ftoken&") ||
                   strstr((char *)c->body, "WebIdentityToken=the%2Ftoken");
    is_good &= strstr((char *)c->body, "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr") != NULL;
    places->sts++;
    places->refused += !is_good;
    expiration(places->expires_s, at, sizeof(at));
    int n = snprintf(body, sizeof(body),
                     "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>"
                     "<Credentials><SessionToken>T%u</SessionToken><SecretAccessKey>S"
                     "</SecretAccessKey><Expiration>%s</Expiration><AccessKeyId>STS</AccessKeyId>"
                     "</Credentials></AssumeRoleWithWebIdentityResult>"
                     "</AssumeRoleWithWebIdentityResponse>", places->sts, at);
    fake_answer(c, places->sts_status, "", body, (size_t)n, false);
}

static void answer_keys(struct places *places, struct fake_connection *c, const char *name)
{
    char body[512];
    char at[64];
    expiration(places->expires_s, at, sizeof(at));
    int n = snprintf(body, sizeof(body), "{\"Code\":\"Success\",\"AccessKeyId\":\"%s\","
                     "\"SecretAccessKey\":\"S\",\"Token\":\"T\",\"Expiration\":\"%s\"}", name, at);
    fake_answer(c, "200 OK", "", body, (size_t)n, false);
}

static void answer_place(struct places *places, struct fake_connection *c)
{
    static const char role_path[] = "/latest/meta-data/iam/security-credentials/";
    char method[16];
    char path[512];
    char text[128];
    if (sscanf(c->head, "%15s %511s", method, path) != 2)
        return;
    bool has_token = strcmp(fake_header(c->head, "x-aws-ec2-metadata-token", text, sizeof(text)),
                            "session") == 0;
    if (strcmp(method, "POST") == 0) {
        answer_sts(places, c);
    } else if (strcmp(path, "/container") == 0) {
        places->container++;
        fake_header(c->head, "authorization", text, sizeof(text));
        places->refused += strcmp(text, "Bearer x") != 0;
        answer_keys(places, c, "CONTAINER");
    } else if (strcmp(path, "/latest/api/token") == 0 && strcmp(method, "PUT") == 0) {
        fake_answer(c, "200 OK", "", "session", 7, false);
    } else if (!has_token) {
        fake_answer(c, "401 Unauthorized", "", "", 0, false);
    } else if (strcmp(path, role_path) == 0) {
        fake_answer(c, "200 OK", "", "role\n", 5, false);
    } else if (strncmp(path, role_path, strlen(role_path)) == 0) {
        places->metadata++;
        answer_keys(places, c, "METADATA");
    } else {
        fake_answer(c, "404 Not Found", "", "", 0, false);
    }
}

/* One connection after the other: clients make few requests. */
static void places_main(void *arg)
{
    struct places *places = arg;
    struct fake_connection *c = calloc(1, sizeof(*c));
    while (vv_socket_accept(places->listener, &c->socket) == 0) {
        c->head_len = 0;
        while (fake_read(c)) {
            answer_place(places, c);
            free(c->body);
            c->body = NULL;
        }
        free(c->body);
        c->body = NULL;
        vv_socket_close(c->socket);
    }
    free(c);
    places->is_running = false;
    vv_waitq_wake_all(&places->ended);
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (file) {
        fputs(text, file);
        fclose(file);
    }
}

/* The access key that the sources give, or the error's name. */
static const char *key_of(const struct vv_s3_sources *sources)
{
    static struct vv_s3_keys keys;
    struct vv_s3_credentials *credentials;
    if (vv_s3_credentials_new(sources, &credentials) < 0)
        return "no memory";
    int err = vv_s3_credentials_get(credentials, false, &keys);
    vv_s3_credentials_free(credentials);
    return err < 0 ? vv_err_name(err) : keys.access_key;
}

static void test_order(struct places *places, const char *dir)
{
    char credentials[256];
    char config[256];
    char token[256];
    char container[128];
    vv_format(credentials, sizeof(credentials), "%s/credentials", dir);
    vv_format(config, sizeof(config), "%s/config", dir);
    vv_format(token, sizeof(token), "%s/token", dir);
    snprintf(container, sizeof(container), "%s/container", places->endpoint);
    write_text(token, "the/token\n");
    write_text(credentials, "# a comment\n[default]\naws_access_key_id = FILE\n"
                            "aws_secret_access_key=s=1\n\n[other]\naws_access_key_id=OTHER\n"
                            "aws_secret_access_key=s\n");
    write_text(config, "[default]\nregion = eu-1\ns3 =\n  region = no\n[profile third]\n"
                       "region=eu-3\nendpoint_url = http://e:1\naws_access_key_id=THIRD\n"
                       "aws_secret_access_key=s\n[profile role]\nrole_arn = "
                       "arn:aws:iam::1:role/r\nweb_identity_token_file = none\n"
                       "[profile chain]\nrole_arn = r\nsource_profile = default\n");
    struct vv_s3_sources s = {
        .access_key = "GIVEN", .secret = "s", .env_access_key = "ENV", .env_secret = "s",
        .credentials_file = credentials, .config_file = config, .web_identity_token_file = token,
        .role_arn = "arn:aws:iam::1:role/r", .sts_endpoint = places->endpoint,
        .container_full_uri = container, .container_token = "Bearer x",
        .metadata_endpoint = places->endpoint};
    tap_is_str(key_of(&s), "GIVEN", "given by the caller first");
    s.access_key = NULL;
    tap_is_str(key_of(&s), "ENV", "then the environment");
    s.env_secret = NULL;
    tap_is_str(key_of(&s), "STS", "then web identity (half a pair is none)");
    s.env_secret = "s";
    s.profile = "other";
    s.is_profile_given = true;
    tap_is_str(key_of(&s), "OTHER", "a profile that was named goes before the environment");
    s.profile = "third";
    tap_is_str(key_of(&s), "THIRD", "a profile of the config file");
    s.profile = "none";
    tap_is_str(key_of(&s), "ENOKEY", "a profile that is not there");
    s.profile = "role";
    tap_is_str(key_of(&s), "ENOKEY", "a role whose token is not there");
    s.profile = "chain";
    tap_is_str(key_of(&s), "EOPNOTSUPP", "a role of another kind");
    s.profile = NULL;
    s.is_profile_given = false;
    s.env_access_key = NULL;
    s.role_arn = NULL;
    tap_is_str(key_of(&s), "FILE", "then the profile");
    s.credentials_file = s.config_file = NULL;
    tap_is_str(key_of(&s), "CONTAINER", "then the container");
    s.container_full_uri = "http://example.com/x";
    tap_is_str(key_of(&s), "EACCES", "which must be this machine, or https");
    s.container_full_uri = NULL;
    tap_is_str(key_of(&s), "METADATA", "then the instance");
    s.metadata_endpoint = "http://127.0.0.1:1";
    tap_is_str(key_of(&s), "ENOKEY", "then nothing");
    tap_is_int(places->refused, 0, "each place was asked as it wants to be");
    struct vv_s3_profile profile = {0};
    s.credentials_file = credentials;
    s.config_file = config;
    tap_is_int(vv_s3_profile_read(&s, &profile), 0, "the default profile");
    tap_is_str(profile.region, "eu-1", "its region");
    s.profile = "third";
    tap_is_int(vv_s3_profile_read(&s, &profile), 0, "another profile");
    tap_is_str(profile.endpoint, "http://e:1", "its endpoint");
    s.profile = "none";
    s.is_profile_given = true;
    tap_is_int(vv_s3_profile_read(&s, &profile), -ENOENT, "no profile");
}

struct asker {
    struct vv_s3_credentials *credentials;
    unsigned *running;
    struct vv_waitq *ended;
    int err;
};

static void asker_main(void *arg)
{
    static struct vv_s3_keys keys;
    struct asker *asker = arg;
    asker->err = vv_s3_credentials_get(asker->credentials, false, &keys);
    (*asker->running)--;
    vv_waitq_wake_all(asker->ended);
}

static void test_freshness(struct places *places, const char *dir)
{
    static struct vv_s3_keys keys;
    struct vv_s3_credentials *credentials;
    struct asker askers[4];
    struct vv_waitq ended;
    unsigned running = 0;
    char token[256];
    vv_format(token, sizeof(token), "%s/token", dir);
    struct vv_s3_sources s = {.web_identity_token_file = token,
                              .role_arn = "arn:aws:iam::1:role/r",
                              .sts_endpoint = places->endpoint, .is_metadata_disabled = true};
    vv_waitq_init(&ended);
    tap_is_int(vv_s3_credentials_new(&s, &credentials), 0, "web identity");
    places->sts = 0;
    places->expires_s = vv_rt_wall().tv_sec + 3600;
    for (int i = 0; i < 4; i++) {
        askers[i] = (struct asker){credentials, &running, &ended, -1};
        running += vv_fiber_start(asker_main, &askers[i], "asker") == 0;
    }
    while (running > 0)
        vv_waitq_wait(&ended, VV_NEVER);
    tap_is_int(places->sts, 1, "four fibers ask once");
    tap_ok(askers[0].err == 0 && askers[3].err == 0, "and all have keys");
    tap_is_str(vv_s3_credentials_place(credentials), "web identity", "where from");
    tap_is_int(vv_s3_credentials_get(credentials, true, &keys), 0, "refused right away");
    tap_is_int(places->sts, 1, "fresh keys are not asked for again");
    vv_s3_credentials_free(credentials);

    tap_is_int(vv_s3_credentials_new(&s, &credentials), 0, "keys that have expired");
    places->expires_s = vv_rt_wall().tv_sec - 1;
    tap_is_int(vv_s3_credentials_get(credentials, false, &keys), -EKEYEXPIRED, "are not used");
    places->expires_s = vv_rt_wall().tv_sec + 100;
    tap_is_int(vv_s3_credentials_get(credentials, false, &keys), 0, "asked again");
    tap_is_str(keys.token, "T3", "these are used");
    tap_is_int(vv_s3_credentials_get(credentials, false, &keys), 0, "short-lived ones");
    tap_is_int(places->sts, 3, "are not asked for with each request");
    vv_s3_credentials_free(credentials);

    tap_is_int(vv_s3_credentials_new(&s, &credentials), 0, "a place that refuses");
    places->sts_status = "403 Forbidden";
    tap_is_int(vv_s3_credentials_get(credentials, false, &keys), -EACCES, "refuses");
    places->sts_status = "500 Oops";
    tap_is_int(vv_s3_credentials_get(credentials, false, &keys), -EAGAIN, "or fails in passing");
    places->sts_status = "200 OK";
    tap_is_int(vv_s3_credentials_get(credentials, false, &keys), 0, "and recovers");
    vv_s3_credentials_free(credentials);
}

/* A bucket that wants keys which only exist after the first have expired. */
static void test_store(struct places *places, const char *dir)
{
    struct fake_s3 *fake = calloc(1, sizeof(*fake));
    struct vv_store *store;
    struct vv_s3_credentials *credentials;
    char token[256];
    vv_format(token, sizeof(token), "%s/token", dir);
    struct vv_s3_sources s = {.access_key = FAKE_ACCESS, .secret = FAKE_SECRET, .token = "given"};
    if (!tap_ok(fake_start(fake), "a bucket"))
        return;
    struct vv_s3_options options = fake_options(fake, "p");
    tap_is_int(vv_s3_credentials_new(&s, &credentials), 0, "keys with a token");
    tap_is_int(vv_store_s3_open(&options, credentials, &store), 0, "a store");
    fake->wanted_token = "given";
    tap_is_int(put_text(store, "a", "1"), 0, "the token is sent, and signed");
    fake->wanted_token = "another";
    tap_ok(put_text(store, "b", "1") < 0, "an expired token: an error, not an endless loop");
    vv_store_close(store);
    fake_stop(fake);
    free(fake);
}

static void test_texts(void)
{
    static struct vv_s3_keys keys;
    int64_t at = 0;
    char out[16];
    tap_is_int(vv_s3_parse_time("2013-05-24T00:00:00Z", &at), 0, "a time");
    tap_is_int(at, 1369353600, "the right one");
    tap_is_int(vv_s3_parse_time("2013-05-24 00:00:00", &at), -EINVAL, "no time");
    tap_is_int(vv_s3_parse_time("", &at), -EINVAL, "nothing");
    static const char *const wrong[] = {"", "[]", "{}", "{\"AccessKeyId\":1}",
                                        "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"\"}",
                                        ("{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"b\","
                                         "\"Expiration\":\"soon\"}")};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        tap_is_int(vv_s3_parse_keys_json(wrong[i], strlen(wrong[i]), &keys), -VV_ERR_FORMAT,
                   "wrong JSON %zu", i);
    tap_is_int(vv_s3_ini_find("[a]\nb = 12345678901234567890", "a", "b", out, sizeof(out)), -EFBIG,
               "a value that is too long");
    tap_is_int(vv_s3_ini_find("[a\nb=1\n[ a ]\r\nb = 1 \r\n", "a", "b", out, sizeof(out)), 0,
               "blanks are trimmed");
    tap_is_str(out, "1", "the value");
    tap_is_int(vv_s3_ini_find("b=1\n[c]\nb=2", "a", "b", out, sizeof(out)), -ENOENT, "none");
}

static void credentials_main(void *arg)
{
    static struct places places = {.sts_status = "200 OK"};
    char dir[4096];
    make_tmp_dir(dir);
    vv_waitq_init(&places.ended);
    places.expires_s = vv_rt_wall().tv_sec + 3600;
    if (!tap_ok(vv_socket_listen("127.0.0.1:0", &places.listener) == 0, "a server on loopback"))
        return;
    snprintf(places.endpoint, sizeof(places.endpoint), "http://127.0.0.1:%u",
             vv_socket_port(places.listener));
    places.is_running = vv_fiber_start(places_main, &places, "places") == 0;
    test_texts();
    test_order(&places, dir);
    test_freshness(&places, dir);
    test_store(&places, dir);
    vv_socket_shutdown(places.listener);
    while (places.is_running)
        vv_waitq_wait(&places.ended, VV_NEVER);
    vv_socket_close(places.listener);
    remove_tree(dir);
}

static void forget_line(void *arg, enum vv_log_level level, const char *line)
{
}

int main(void)
{
    vv_alloc_track(true);
    vv_log_set_sink(forget_line, NULL);
    run_real(credentials_main, NULL);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
