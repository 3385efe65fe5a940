#include "cmd/options.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "cache/disk.h"

/* Commands that an option belongs to. */
enum { INIT = 1, SERVE = 2, STATUS = 4, FSCK = 8, PASSWD = 16, FLUSH = 32, DEVICE = 64, ALL = 127 };

enum option {
    CONFIG,
    KEY_FILE,
    PASSPHRASE_FILE,
    NEW_KEY_FILE,
    NEW_PASSPHRASE_FILE,
    MOUNT,
    NINEP,
    NFS,
    EXPORT,
    NFS_REGISTER,
    NBD,
    NBD_TLS,
    NBD_TLS_CERT,
    NBD_TLS_KEY,
    NBD_TLS_CA,
    NBD_PSK_FILE,
    MEMORY,
    DURABILITY,
    COMPRESSION,
    CIPHER,
    ATIME,
    NO_CACHE,
    WRITEBACK,
    LOCAL_LOCKS,
    HEAR_SYNCS,
    HANDLES,
    LABEL,
    READ_ONLY,
    ALLOW_OTHER,
    ABANDON_JOURNAL,
    DATA,
    JSON,
    STORE_LATENCY,
    CACHE,
    CACHE_SIZE,
    STATE,
    JOURNAL,
    ENDPOINT,
    REGION,
    PROFILE,
    ACCESS_KEY_FILE,
    CA_FILE,
    PATH_STYLE,
    VIRTUAL_HOSTED,
    STORAGE_CLASS,
    HEADER,
    CHECKSUM,
    SIGN_PAYLOAD,
    STORE_TIMEOUT,
    UNSAFE_NO_FENCING,
    PRICES,
    QUIET,
    VERBOSE,
    HELP
};

static const struct {
    enum option option;
    unsigned commands;
    const char *name;
    const char *value; /* what the help calls its value; NULL = none */
    const char *help;
} table[] = {
    {KEY_FILE, ALL, "key-file", "FILE", "file with the key that opens the volume (made by init if missing)"},
    {PASSPHRASE_FILE, ALL, "passphrase-file", "FILE",
     "file whose first line is the passphrase; - = standard input"},
    {NEW_KEY_FILE, PASSWD, "new-key-file", "FILE", "the key file that takes the old secret's place"},
    {NEW_PASSPHRASE_FILE, PASSWD, "new-passphrase-file", "FILE",
     "the passphrase that takes the old secret's place"},
    {MOUNT, SERVE, "mount", "DIR", "mount the volume there through FUSE"},
    {NINEP, SERVE, "9p", "ADDR", "serve 9P2000.L on HOST:PORT or unix:PATH; may be given again"},
    {NFS, SERVE, "nfs", "ADDR", "serve NFSv3 and MOUNT on HOST:PORT (or a port, on loopback); may be given again"},
    {EXPORT, SERVE, "export", "PATH[:OPT,..][@NET]",
     "what NFS gives to whom, e.g. /data:ro@10.0.0.0/8; may be given again (default: /, to this machine, root squashed)"},
    {NFS_REGISTER, SERVE, "nfs-register", NULL, "register NFS with the rpcbind of this machine"},
    {NBD, SERVE, "nbd", "ADDR",
     "serve block devices (varve device) by NBD on HOST:PORT or unix:PATH; may be given again"},
    {NBD_TLS_CERT, SERVE, "nbd-tls-cert", "FILE", "PEM: the server's certificate, with its chain"},
    {NBD_TLS_KEY, SERVE, "nbd-tls-key", "FILE", "PEM: its private key, if not in the same file"},
    {NBD_TLS_CA, SERVE, "nbd-tls-ca", "FILE", "PEM: only clients with a certificate from one of these"},
    {NBD_PSK_FILE, SERVE, "nbd-psk-file", "FILE",
     "lines NAME:KEY IN HEX (as psktool writes): clients that know such a key"},
    {NBD_TLS, SERVE, "nbd-tls", "WHEN",
     "require (the default with a certificate or key file): NBD only through TLS; allow: also without"},
    {MEMORY, SERVE | FSCK, "memory", "SIZE", "memory to use, e.g. 256M (the default) or 2G; at least 16M"},
    {DURABILITY, SERVE, "durability", "WHERE",
     "fsync waits for the store (bucket) or the local journal (journal, the default for file://)"},
    {COMPRESSION, INIT | SERVE, "compression", "NAME", "lz4 (default), zstd, zstd:LEVEL or none, for new data"},
    {LABEL, INIT, "label", "TEXT", "what the volume is called (e2label and the like: FS_IOC_SETFSLABEL)"},
    {CIPHER, INIT | SERVE, "cipher", "NAME",
     "aes-256-gcm (default), xchacha20-poly1305 or none, for new data"},
    {ATIME, SERVE, "atime", "WHEN",
     "reading sets access times: relatime (default), noatime (never) or strictatime (always)"},
    {NO_CACHE, SERVE, "no-cache", NULL, "the kernel asks for names and attributes each time"},
    {WRITEBACK, SERVE, "writeback", NULL, "the kernel gathers small writes: only if nothing else writes"},
    {LOCAL_LOCKS, SERVE, "local-locks", NULL, "the kernel keeps locks, lists them, and asks less: only if nothing else locks"},
    {HEAR_SYNCS, SERVE, "hear-syncs", NULL,
     "sync(2) and umount of the mount wait until all is durable: by a loop device (root; Linux 6.18)"},
    {HANDLES, SERVE, "handles", NULL, "files of the mount can be opened by handle: only if no overlayfs lies on it (since Linux 6.16)"},
    {READ_ONLY, SERVE, "read-only", NULL, "serve the last durable state, change nothing"},
    {ALLOW_OTHER, SERVE, "allow-other", NULL, "let other users use the mount (the default for root)"},
    {ABANDON_JOURNAL, SERVE | FSCK, "abandon-journal", NULL,
     "serve although the journal is lost: what only it held is lost too"},
    {DATA, FSCK, "data", NULL, "read and authenticate all file data as well"},
    {JSON, STATUS | FSCK | DEVICE, "json", NULL, "print JSON"},
    {STORE_LATENCY, SERVE, "store-latency", "MS", "add this to each store request (for trying things out)"},
    {CACHE, SERVE, "cache", "DIR",
     "keep sealed parts of the store's objects there; one server at a time, several volumes"},
    {CACHE_SIZE, SERVE, "cache-size", "SIZE", "how much, e.g. 100G (10G); at least 8M"},
    {STATE, ALL, "state", "DIR",
     "s3://: where journals, admin sockets and the like are kept (/var/lib/varve, ~/.local/state/varve)"},
    {JOURNAL, SERVE | FSCK | PASSWD, "journal", "DIR", "the journal's directory, if not the usual one"},
    {ENDPOINT, ALL, "endpoint", "URL", "s3://: the server, e.g. https://s3.example.com:9000 (AWS)"},
    {REGION, ALL, "region", "NAME", "s3://: the region (that of the environment or profile, us-east-1)"},
    {PROFILE, ALL, "profile", "NAME", "s3://: the profile of ~/.aws/credentials and ~/.aws/config"},
    {ACCESS_KEY_FILE, ALL, "access-key-file", "FILE",
     "s3://: a file with ACCESS_KEY:SECRET, or ACCESS_KEY:SECRET:TOKEN; - = standard input"},
    {CA_FILE, ALL, "ca-file", "FILE", "s3://: PEM: the certificate authorities to trust (the system's)"},
    {PATH_STYLE, ALL, "path-style", NULL, "s3://: HOST/BUCKET (the default with --endpoint)"},
    {VIRTUAL_HOSTED, ALL, "virtual-hosted", NULL, "s3://: BUCKET.HOST (the default for AWS)"},
    {STORAGE_CLASS, INIT | SERVE | PASSWD, "storage-class", "NAME", "s3://: of new objects"},
    {HEADER, ALL, "header", "NAME: VALUE", "s3://: sent with each request; may be given again"},
    {CHECKSUM, ALL, "checksum", "NAME", "s3://: how uploads are checked: crc32c (default), md5 or none"},
    {SIGN_PAYLOAD, ALL, "sign-payload", NULL, "s3://: for servers that want signed bodies"},
    {STORE_TIMEOUT, ALL, "store-timeout", "SECONDS", "s3://: give a request up after so long without a byte (30)"},
    {UNSAFE_NO_FENCING, INIT | SERVE | PASSWD, "unsafe-no-fencing", NULL,
     "use a store that lacks what keeps two servers apart: only if there is never more than one"},
    {PRICES, STATUS, "prices", "LIST",
     "put=0.005,get=0.0004,gib=0.023,out=0.09 (defaults): US$ per 1,000 PUT or LIST, per 1,000\n"
     "                             GET, per GiB and month stored, per GiB read"},
    {CONFIG, ALL, "config", "FILE", "INI file with any of these options, without the dashes"},
    {QUIET, ALL, "quiet", NULL, "print errors only"},
    {VERBOSE, ALL, "verbose", NULL, "print debugging lines too"},
    {HELP, ALL, "help", NULL, "this text"},
};
#define TABLE_COUNT (sizeof table / sizeof table[0])

static const struct {
    const char *name;
    unsigned mask;
    const char *words;
    const char *help;
} commands[] = {
    {"init", INIT, "URL", "create a volume"},
    {"serve", SERVE, "URL", "serve a volume: mount it, or listen for clients, until interrupted"},
    {"status", STATUS, "URL", "show what a volume holds and what its server is doing"},
    {"flush", FLUSH, "URL", "let a running server put everything into the store and free dead space"},
    {"device", DEVICE, "ACTION URL [NAME [SIZE]]",
     "block devices of a running server: create URL NAME SIZE, list URL, resize URL NAME SIZE,\n"
     "           remove URL NAME"},
    {"fsck", FSCK, "URL", "read a volume that is not being served and prove that it is whole"},
    {"passwd", PASSWD, "URL", "replace the passphrase or key file (no data is rewritten)"},
};
#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static unsigned mask_of(const char *command)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, command) == 0)
            return commands[i].mask;
    }
    return 0;
}

static void help_general(void)
{
    printf("varve keeps files in one log-structured, encrypted store.\n\n"
           "usage: varve COMMAND URL [OPTIONS]\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].help);
    printf("  version  show the version\n"
           "  help     show this, or with a command's name that command's options\n\n"
           "URL names the store: file://DIR (or a path) is a local directory, s3://BUCKET/PREFIX a\n"
           "bucket of any S3-compatible server (docs/s3.md).\n\n"
           "Exit status: 0 done; 1 failed; 2 wrong usage; 3 no volume there (init: there is one\n"
           "already); 4 the passphrase or key does not fit; 5 another server has the volume, or\n"
           "its journal is elsewhere; 6 damage found; 7 another server took the volume over.\n");
}

void vv_options_help(const char *command)
{
    unsigned mask = command != NULL ? mask_of(command) : 0;
    if (mask == 0) {
        help_general();
        return;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (commands[i].mask == mask)
            printf("usage: varve %s %s [OPTIONS]\n\n%s\n\n", command, commands[i].words,
                   commands[i].help);
    }
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        char left[64];
        if (!(table[i].commands & mask))
            continue;
        vv_format(left, sizeof left, "--%s%s%s", table[i].name, table[i].value ? " " : "",
                  table[i].value ? table[i].value : "");
        printf("  %-26s %s\n", left, table[i].help);
    }
}

static int complain(const char *name, const char *value, const char *what)
{
    fprintf(stderr, "varve: --%s %s: %s\n", name, value, what);
    return -EINVAL;
}

static int set_compression(struct vv_options *options, const char *value)
{
    char name[16];
    uint64_t level = 0;
    const char *colon = strchr(value, ':');
    size_t len = colon != NULL ? (size_t)(colon - value) : strlen(value);
    if (len >= sizeof name || (colon != NULL && vv_parse_u64(colon + 1, &level) < 0) || level > 19)
        return complain("compression", value, "not lz4, zstd, zstd:1 to zstd:19 or none");
    memcpy(name, value, len);
    name[len] = 0;
    if (vv_compression_parse(name, &options->settings.compression) < 0)
        return complain("compression", value, "not lz4, zstd, zstd:1 to zstd:19 or none");
    options->settings.level = (int)level;
    options->is_compression_set = true;
    return 0;
}

static int set_durability(struct vv_options *options, const char *value)
{
    options->is_durability_set = true;
    if (strcmp(value, "bucket") == 0)
        options->durability = VV_DURABILITY_BUCKET;
    else if (strcmp(value, "journal") == 0)
        options->durability = VV_DURABILITY_JOURNAL;
    else
        return complain("durability", value, "not bucket or journal");
    return 0;
}

static int set_label(struct vv_options *options, const char *value)
{
    options->label = value;
    return strlen(value) > VV_LABEL_MAX ? complain("label", value, "not at most 255 bytes") : 0;
}

static int set_atime(struct vv_options *options, const char *value)
{
    static const char *const names[] = {"relatime", "noatime", "strictatime"}; /* as enum vv_atime */
    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(value, names[i]) == 0) {
            options->atime = i;
            return 0;
        }
    }
    return complain("atime", value, "not relatime, noatime or strictatime");
}

static int set_checksum(struct vv_options *options, const char *value)
{
    static const char *const names[] = {"crc32c", "md5", "none"}; /* as enum vv_s3_checksum */
    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(value, names[i]) == 0) {
            options->s3.checksum = i;
            return 0;
        }
    }
    return complain("checksum", value, "not crc32c, md5 or none");
}

static int set_s3_value(struct vv_options *options, enum option option, const char *value)
{
    struct vv_s3_words *s3 = &options->s3;
    switch (option) {
    case STATE: options->state = value; return 0;
    case JOURNAL: options->journal = value; return 0;
    case ENDPOINT: s3->endpoint = value; return 0;
    case REGION: s3->region = value; return 0;
    case PROFILE: s3->profile = value; return 0;
    case ACCESS_KEY_FILE: s3->access_key_file = value; return 0;
    case CA_FILE: s3->ca_file = value; return 0;
    case STORAGE_CLASS: s3->storage_class = value; return 0;
    case PRICES: s3->prices = value; return 0;
    case CHECKSUM: return set_checksum(options, value);
    case HEADER:
        if (s3->header_count == sizeof s3->headers / sizeof s3->headers[0])
            return complain("header", value, "too many headers");
        s3->headers[s3->header_count++] = value;
        return 0;
    case STORE_TIMEOUT:
        if (vv_parse_u64(value, &s3->timeout_s) < 0 || s3->timeout_s < 1 || s3->timeout_s > 3600)
            return complain("store-timeout", value, "not a number of seconds from 1 to 3600");
        return 0;
    default: return -EINVAL;
    }
}

static int set_value(struct vv_options *options, enum option option, const char *value)
{
    switch (option) {
    case KEY_FILE: options->key_file = value; return 0;
    case PASSPHRASE_FILE: options->passphrase_file = value; return 0;
    case NEW_KEY_FILE: options->new_key_file = value; return 0;
    case NEW_PASSPHRASE_FILE: options->new_passphrase_file = value; return 0;
    case MOUNT: options->mount = value; return 0;
    case CONFIG: options->config = value; return 0;
    case NINEP:
        if (options->ninep_count == VV_CMD_ADDRESSES_MAX)
            return complain("9p", value, "too many addresses");
        options->ninep[options->ninep_count++] = value;
        return 0;
    case NFS:
        if (options->nfs_count == VV_CMD_ADDRESSES_MAX)
            return complain("nfs", value, "too many addresses");
        options->nfs[options->nfs_count++] = value;
        return 0;
    case EXPORT:
        if (options->export_count == VV_CMD_EXPORTS_MAX)
            return complain("export", value, "too many exports");
        options->exports[options->export_count++] = value;
        return 0;
    case NBD:
        if (options->nbd_count == VV_CMD_ADDRESSES_MAX)
            return complain("nbd", value, "too many addresses");
        options->nbd[options->nbd_count++] = value;
        return 0;
    case NBD_TLS_CERT: options->nbd_tls_cert = value; return 0;
    case NBD_TLS_KEY: options->nbd_tls_key = value; return 0;
    case NBD_TLS_CA: options->nbd_tls_ca = value; return 0;
    case NBD_PSK_FILE: options->nbd_psk_file = value; return 0;
    case NBD_TLS:
        options->is_nbd_tls_required = strcmp(value, "require") == 0;
        options->is_nbd_tls_set = true;
        if (!options->is_nbd_tls_required && strcmp(value, "allow") != 0)
            return complain("nbd-tls", value, "not require or allow");
        return 0;
    case MEMORY:
        if (vv_parse_size(value, &options->memory_bytes) < 0 || options->memory_bytes < 16u << 20)
            return complain("memory", value, "not a size of at least 16M");
        return 0;
    case STORE_LATENCY:
        if (vv_parse_u64(value, &options->store_latency_ms) < 0)
            return complain("store-latency", value, "not a number of milliseconds");
        return 0;
    case CACHE: options->cache = value; return 0;
    case LABEL: return set_label(options, value);
    case CACHE_SIZE:
        if (vv_parse_size(value, &options->cache_bytes) < 0 ||
            options->cache_bytes < VV_DISK_SIZE_MIN)
            return complain("cache-size", value, "not a size of at least 8M");
        return 0;
    case DURABILITY: return set_durability(options, value);
    case ATIME: return set_atime(options, value);
    case COMPRESSION: return set_compression(options, value);
    case CIPHER:
        options->is_cipher_set = true;
        if (vv_cipher_parse(value, &options->settings.cipher) < 0)
            return complain("cipher", value, "not aes-256-gcm, xchacha20-poly1305 or none");
        return 0;
    default: return set_s3_value(options, option, value);
    }
}

static void set_flag(struct vv_options *options, enum option option)
{
    switch (option) {
    case NFS_REGISTER: options->is_nfs_registering = true; break;
    case NO_CACHE: options->is_no_cache = true; break;
    case WRITEBACK: options->is_writeback = true; break;
    case LOCAL_LOCKS: options->is_locking_locally = true; break;
    case HEAR_SYNCS: options->is_hearing_syncs = true; break;
    case HANDLES: options->is_opening_handles = true; break;
    case READ_ONLY: options->is_read_only = true; break;
    case ALLOW_OTHER: options->is_allowing_other = true; break;
    case ABANDON_JOURNAL: options->is_abandoning_journal = true; break;
    case DATA: options->is_checking_data = true; break;
    case JSON: options->is_json = true; break;
    case PATH_STYLE: options->s3.is_path_style = true; break;
    case VIRTUAL_HOSTED: options->s3.is_virtual_hosted = true; break;
    case SIGN_PAYLOAD: options->s3.is_signing_payload = true; break;
    case UNSAFE_NO_FENCING: options->is_unsafe_no_fencing = true; break;
    case QUIET: options->is_quiet = true; break;
    case VERBOSE: options->is_verbose = true; break;
    case HELP: options->is_help = true; break;
    default: break;
    }
}

static int find_option(unsigned mask, const char *name, size_t len)
{
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0 &&
            (table[i].commands & mask))
            return (int)i;
    }
    return -1;
}

/* One argument; *index moves over a value. */
static int parse_argument(struct vv_options *options, unsigned mask, int argc, char **argv,
                          int *index)
{
    const char *arg = argv[*index];
    if (strcmp(arg, "-h") == 0)
        arg = "--help";
    if (strncmp(arg, "--", 2) != 0) {
        if (options->url == NULL)
            options->url = arg;
        else if (options->word_count < VV_CMD_WORDS_MAX)
            options->words[options->word_count++] = arg;
        else
            return -EINVAL;
        return 0;
    }
    const char *equals = strchr(arg, '=');
    size_t len = equals != NULL ? (size_t)(equals - arg - 2) : strlen(arg) - 2;
    int found = find_option(mask, arg + 2, len);
    if (found < 0) {
        fprintf(stderr, "varve: unknown option %s (see varve help)\n", arg);
        return -EINVAL;
    }
    if (table[found].value == NULL) {
        if (equals != NULL)
            return complain(table[found].name, equals + 1, "takes no value");
        set_flag(options, table[found].option);
        return 0;
    }
    const char *value = equals != NULL ? equals + 1 : NULL;
    if (value == NULL && *index + 1 < argc)
        value = argv[++*index];
    if (value == NULL) {
        fprintf(stderr, "varve: --%s needs %s\n", table[found].name, table[found].value);
        return -EINVAL;
    }
    return set_value(options, table[found].option, value);
}

struct ini {
    struct vv_options *options;
    unsigned mask;
    int err;
};

static int on_ini(void *arg, const char *section, const char *name, const char *value)
{
    struct ini *ini = arg;
    (void)section;
    int found = find_option(ini->mask, name, strlen(name));
    if (found < 0) {
        /* An option of another command is no mistake in a file that several commands share. */
        if (find_option(ALL, name, strlen(name)) >= 0)
            return 1;
        fprintf(stderr, "varve: %s: unknown option %s\n", ini->options->config, name);
        ini->err = -EINVAL;
        return 0;
    }
    if (table[found].value == NULL) {
        if (strcmp(value, "yes") == 0 || strcmp(value, "true") == 0 || strcmp(value, "1") == 0)
            set_flag(ini->options, table[found].option);
        return 1;
    }
    char *copy = vv_strdup(value); /* lives as long as the process */
    ini->err = copy == NULL ? -ENOMEM : set_value(ini->options, table[found].option, copy);
    return ini->err == 0;
}

static int parse_config(struct vv_options *options, unsigned mask)
{
    struct ini ini = {options, mask, 0};
    int line = ini_parse(options->config, on_ini, &ini);
    if (line == 0)
        return 0;
    if (line < 0)
        fprintf(stderr, "varve: cannot read %s: %s\n", options->config, vv_err_text(-errno));
    else
        fprintf(stderr, "varve: %s: line %d makes no sense\n", options->config, line);
    return -EINVAL;
}

static int parse_all(struct vv_options *options, unsigned mask, int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        TRY(parse_argument(options, mask, argc, argv, &i));
    return 0;
}

int vv_options_parse(const char *command, int argc, char **argv, struct vv_options *out_options)
{
    struct vv_options defaults = {
        .memory_bytes = 256u << 20,
        .cache_bytes = 10ull << 30,
        .settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0},
    };
    unsigned mask = mask_of(command);
    struct vv_options options = defaults;
    TRY(parse_all(&options, mask, argc, argv));
    if (options.config != NULL && !options.is_help) {
        /* The file first, then the command line over it. */
        const char *config = options.config;
        options = defaults;
        options.config = config;
        TRY(parse_config(&options, mask));
        options.url = NULL;
        struct vv_options words = defaults;
        TRY(parse_all(&words, mask, argc, argv));
        options.ninep_count = words.ninep_count > 0 ? 0 : options.ninep_count;
        options.nfs_count = words.nfs_count > 0 ? 0 : options.nfs_count;
        options.export_count = words.export_count > 0 ? 0 : options.export_count;
        options.nbd_count = words.nbd_count > 0 ? 0 : options.nbd_count;
        TRY(parse_all(&options, mask, argc, argv));
    }
    if (options.url == NULL && !options.is_help) {
        fprintf(stderr, "varve: %s needs the volume's URL, e.g. file:///srv/data\n", command);
        return -EINVAL;
    }
    *out_options = options;
    return 0;
}
