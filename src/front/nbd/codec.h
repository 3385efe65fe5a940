/* NBD on the wire: bytes to structs and back. Pure: no I/O, no allocation but the writer's, any
 * thread. All integers are big-endian.
 *
 * Fixed newstyle negotiation ("Newstyle negotiation" and "Option types"):
 *   server  offset bytes                          client  offset bytes
 *                0     8  "NBDMAGIC"                            0     4  client flags
 *                8     8  "IHAVEOPT"
 *               16     2  handshake flags
 *   option  offset bytes                          option  offset bytes
 *   (client)     0     8  "IHAVEOPT"              reply         0     8  0x0003e889045565a9
 *                8     4  option                  (server)      8     4  option
 *               12     4  length of the data                   12     4  reply type
 *               16     n  data                                 16     4  length of the data
 *                                                              20     n  data
 *   option                          data of the option
 *        1  EXPORT_NAME             name (as long as the data). The reply has no header: size u64,
 *                                   transmission flags u16, 124 zeros unless NO_ZEROES
 *        2  ABORT                   -
 *        3  LIST                    -
 *        5  STARTTLS                -
 *        6  INFO, 7 GO              name length u32, name, count u16, count * information type u16
 *        8  STRUCTURED_REPLY        -
 *        9  LIST_META_CONTEXT, 10 SET_META_CONTEXT
 *                                   name length u32, name, count u32, count * (length u32, query)
 *   reply type                      data of the reply
 *        1  ACK                     -
 *        2  SERVER                  name length u32, name
 *        3  INFO                    information type u16, then
 *             0 EXPORT              size u64, transmission flags u16
 *             1 NAME                name
 *             3 BLOCK_SIZE          minimum u32, preferred u32, maximum u32
 *        4  META_CONTEXT            context id u32, name
 *        2^31 + 1 ... 2^31 + 9      errors (VV_NBD_REP_ERR_*): a text for people
 *
 * Transmission ("Transmission phase"):
 *   request  offset bytes                         simple  offset bytes
 *   (client)      0     4  0x25609513             reply         0     4  0x67446698
 *                 4     2  command flags          (server)      4     4  error
 *                 6     2  command                              8     8  cookie
 *                 8     8  cookie                              16     n  data of a READ, if no error
 *                16     8  offset
 *                24     4  length
 *                28     n  data of a WRITE
 *   chunk    offset bytes                         chunk type    payload
 *   (server)      0     4  0x668e33ef             0  NONE           -
 *                 4     2  flags (1 = DONE)       1  OFFSET_DATA    offset u64, data
 *                 6     2  type                   2  OFFSET_HOLE    offset u64, length u32
 *                 8     8  cookie                 5  BLOCK_STATUS   context id u32, then n *
 *                16     4  length of the payload                    (length u32, state u32)
 *                20     n  payload                2^15 + 1  ERROR   error u32, length u16, text
 *
 * Source: the protocol text of the NBD project, doc/proto.md ("The NBD protocol"). */
#ifndef VV_FRONT_NBD_CODEC_H
#define VV_FRONT_NBD_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define VV_NBD_HELLO_BYTES 18u
#define VV_NBD_CLIENT_FLAGS_BYTES 4u
#define VV_NBD_OPTION_HEAD_BYTES 16u
#define VV_NBD_OPTION_REPLY_HEAD_BYTES 20u
#define VV_NBD_EXPORT_NAME_ZEROES 124u
#define VV_NBD_MAGIC_BYTES 4u /* of a request */
#define VV_NBD_REQUEST_BYTES 28u
#define VV_NBD_SIMPLE_REPLY_BYTES 16u
#define VV_NBD_CHUNK_HEAD_BYTES 20u
#define VV_NBD_STRING_MAX 4096u /* bytes of a name or query, by the protocol */

/* Handshake flags of the server, and the client's answer to them. */
#define VV_NBD_FIXED_NEWSTYLE 0x1u
#define VV_NBD_NO_ZEROES 0x2u

enum vv_nbd_option {
    VV_NBD_OPT_EXPORT_NAME = 1,
    VV_NBD_OPT_ABORT = 2,
    VV_NBD_OPT_LIST = 3,
    VV_NBD_OPT_STARTTLS = 5,
    VV_NBD_OPT_INFO = 6,
    VV_NBD_OPT_GO = 7,
    VV_NBD_OPT_STRUCTURED_REPLY = 8,
    VV_NBD_OPT_LIST_META_CONTEXT = 9,
    VV_NBD_OPT_SET_META_CONTEXT = 10
};

#define VV_NBD_REP_ERROR 0x80000000u
#define VV_NBD_REP_ACK 1u
#define VV_NBD_REP_SERVER 2u
#define VV_NBD_REP_INFO 3u
#define VV_NBD_REP_META_CONTEXT 4u
#define VV_NBD_REP_ERR_UNSUP (VV_NBD_REP_ERROR + 1)
#define VV_NBD_REP_ERR_POLICY (VV_NBD_REP_ERROR + 2)
#define VV_NBD_REP_ERR_INVALID (VV_NBD_REP_ERROR + 3)
#define VV_NBD_REP_ERR_TLS_REQD (VV_NBD_REP_ERROR + 5)
#define VV_NBD_REP_ERR_UNKNOWN (VV_NBD_REP_ERROR + 6)
#define VV_NBD_REP_ERR_SHUTDOWN (VV_NBD_REP_ERROR + 7)
#define VV_NBD_REP_ERR_TOO_BIG (VV_NBD_REP_ERROR + 9)

enum vv_nbd_info {
    VV_NBD_INFO_EXPORT = 0,
    VV_NBD_INFO_NAME = 1,
    VV_NBD_INFO_DESCRIPTION = 2,
    VV_NBD_INFO_BLOCK_SIZE = 3
};

/* Transmission flags. */
#define VV_NBD_FLAG_HAS_FLAGS 0x001u
#define VV_NBD_FLAG_READ_ONLY 0x002u
#define VV_NBD_FLAG_SEND_FLUSH 0x004u
#define VV_NBD_FLAG_SEND_FUA 0x008u
#define VV_NBD_FLAG_SEND_TRIM 0x020u
#define VV_NBD_FLAG_SEND_WRITE_ZEROES 0x040u
#define VV_NBD_FLAG_SEND_DF 0x080u
#define VV_NBD_FLAG_CAN_MULTI_CONN 0x100u
#define VV_NBD_FLAG_SEND_CACHE 0x400u
#define VV_NBD_FLAG_SEND_FAST_ZERO 0x800u

enum vv_nbd_command {
    VV_NBD_CMD_READ = 0,
    VV_NBD_CMD_WRITE = 1,
    VV_NBD_CMD_DISC = 2,
    VV_NBD_CMD_FLUSH = 3,
    VV_NBD_CMD_TRIM = 4,
    VV_NBD_CMD_CACHE = 5,
    VV_NBD_CMD_WRITE_ZEROES = 6,
    VV_NBD_CMD_BLOCK_STATUS = 7
};

/* Command flags. */
#define VV_NBD_CMD_FLAG_FUA 0x01u
#define VV_NBD_CMD_FLAG_NO_HOLE 0x02u
#define VV_NBD_CMD_FLAG_DF 0x04u
#define VV_NBD_CMD_FLAG_REQ_ONE 0x08u
#define VV_NBD_CMD_FLAG_FAST_ZERO 0x10u

#define VV_NBD_CHUNK_DONE 0x1u
#define VV_NBD_CHUNK_NONE 0u
#define VV_NBD_CHUNK_OFFSET_DATA 1u
#define VV_NBD_CHUNK_OFFSET_HOLE 2u
#define VV_NBD_CHUNK_BLOCK_STATUS 5u
#define VV_NBD_CHUNK_ERROR 0x8001u

/* States of the context "base:allocation". */
#define VV_NBD_CONTEXT_ALLOCATION "base:allocation"
#define VV_NBD_STATE_HOLE 0x1u
#define VV_NBD_STATE_ZERO 0x2u

/* Errors on the wire ("Error values"). */
#define VV_NBD_EPERM 1u
#define VV_NBD_EIO 5u
#define VV_NBD_ENOMEM 12u
#define VV_NBD_EINVAL 22u
#define VV_NBD_ENOSPC 28u
#define VV_NBD_EOVERFLOW 75u
#define VV_NBD_ENOTSUP 95u
#define VV_NBD_ESHUTDOWN 108u

/* ---- negotiation ---- */

void vv_nbd_encode_hello(struct vv_writer *writer, uint16_t flags);
/* -VV_ERR_FORMAT. */
MUST_CHECK int vv_nbd_decode_hello(const uint8_t bytes[VV_NBD_HELLO_BYTES], uint16_t *out_flags);

struct vv_nbd_option_head {
    uint32_t option; /* enum vv_nbd_option, or one that we do not know */
    uint32_t len;    /* of the data */
};
/* -VV_ERR_FORMAT: the magic number is wrong, the stream can't be trusted. */
MUST_CHECK int vv_nbd_decode_option_head(const uint8_t bytes[VV_NBD_OPTION_HEAD_BYTES],
                                         struct vv_nbd_option_head *out_head);

/* The data of an option. Byte strings point into the message. */
struct vv_nbd_option_data {
    struct vv_bytes name;    /* EXPORT_NAME, INFO, GO, LIST_ and SET_META_CONTEXT */
    uint32_t infos;          /* INFO, GO: bit n = information type n is asked for; n < 32 */
    uint32_t query_count;    /* ..._META_CONTEXT */
    struct vv_bytes queries; /* ... as they came, all well-formed: vv_nbd_next_query */
};
/* -VV_ERR_FORMAT: cut off, bytes left over, a string longer than VV_NBD_STRING_MAX, data where
 * there is to be none. Unknown options have any data. */
MUST_CHECK int vv_nbd_decode_option(uint32_t option, const void *data, size_t len,
                                    struct vv_nbd_option_data *out_data);
/* Take the first query off; false when there is none. */
bool vv_nbd_next_query(struct vv_nbd_option_data *data, struct vv_bytes *out_query);
/* The twins, for clients and tests. `data` of an unknown option is its queries' bytes. */
void vv_nbd_encode_option(struct vv_writer *writer, uint32_t option,
                          const struct vv_nbd_option_data *data);

/* The head of an option's reply, `len` bytes of data to follow. */
void vv_nbd_encode_option_reply(struct vv_writer *writer, uint32_t option, uint32_t type,
                                uint32_t len);
void vv_nbd_encode_rep_server(struct vv_writer *writer, uint32_t option, struct vv_bytes name);
void vv_nbd_encode_rep_error(struct vv_writer *writer, uint32_t option, uint32_t type,
                             const char *text);
void vv_nbd_encode_rep_context(struct vv_writer *writer, uint32_t option, uint32_t id,
                               const char *name);
void vv_nbd_encode_info_export(struct vv_writer *writer, uint32_t option, uint64_t size,
                               uint16_t flags);
void vv_nbd_encode_info_name(struct vv_writer *writer, uint32_t option, struct vv_bytes name);
void vv_nbd_encode_info_block_size(struct vv_writer *writer, uint32_t option, uint32_t minimum,
                                   uint32_t preferred, uint32_t maximum);
/* What EXPORT_NAME is answered with. */
void vv_nbd_encode_export_name_reply(struct vv_writer *writer, uint64_t size, uint16_t flags,
                                     bool has_zeroes);

struct vv_nbd_option_reply {
    uint32_t option, type, len;
};
/* -VV_ERR_FORMAT. */
MUST_CHECK int
vv_nbd_decode_option_reply(const uint8_t bytes[VV_NBD_OPTION_REPLY_HEAD_BYTES],
                           struct vv_nbd_option_reply *out_reply);

/* ---- transmission ---- */

struct vv_nbd_request {
    uint16_t flags;
    uint16_t command; /* enum vv_nbd_command, or one that we do not know */
    uint64_t cookie;
    uint64_t offset;
    uint32_t len;
};
/* A request may begin with these bytes: what can't need not be waited for. */
bool vv_nbd_is_request(const uint8_t bytes[VV_NBD_MAGIC_BYTES]);
/* -VV_ERR_FORMAT: the magic number is wrong. */
MUST_CHECK int vv_nbd_decode_request(const uint8_t bytes[VV_NBD_REQUEST_BYTES],
                                     struct vv_nbd_request *out_request);
void vv_nbd_encode_request(struct vv_writer *writer, const struct vv_nbd_request *request);
/* "READ 4096@0 cookie 1 flags 0" for log lines; returns out. */
char *vv_nbd_request_to_text(const struct vv_nbd_request *request, char *out, size_t size);

void vv_nbd_encode_simple_reply(struct vv_writer *writer, uint64_t cookie, uint32_t error);
/* The head of a chunk whose payload of `len` bytes follows. */
void vv_nbd_encode_chunk(struct vv_writer *writer, uint64_t cookie, uint16_t flags, uint16_t type,
                         uint32_t len);
/* A whole chunk, but for the `len` bytes of data that the caller sends behind it. */
void vv_nbd_encode_offset_data(struct vv_writer *writer, uint64_t cookie, uint16_t flags,
                               uint64_t offset, uint32_t len);
void vv_nbd_encode_offset_hole(struct vv_writer *writer, uint64_t cookie, uint16_t flags,
                               uint64_t offset, uint32_t len);
/* The last chunk of a reply. */
void vv_nbd_encode_error(struct vv_writer *writer, uint64_t cookie, uint32_t error,
                         const char *text);

/* One reply as a client sees it: a simple one, or a chunk. */
struct vv_nbd_reply {
    bool is_chunk;
    uint64_t cookie;
    uint32_t error;       /* of a simple reply, and of an ERROR chunk */
    uint16_t flags, type; /* of a chunk */
    uint64_t offset;      /* of OFFSET_DATA and OFFSET_HOLE */
    uint32_t hole_len;
    uint32_t context_id;
    struct vv_bytes data; /* data; descriptors of BLOCK_STATUS; text of ERROR */
};
/* How long the reply is that begins with these bytes: at least VV_NBD_SIMPLE_REPLY_BYTES; 0 = too
 * few to tell. `read_len`: bytes of data that a simple reply without an error brings along.
 * -VV_ERR_FORMAT: no reply begins so. */
MUST_CHECK int64_t vv_nbd_reply_len(const void *bytes, size_t len, uint32_t read_len);
/* Decode one whole reply. -VV_ERR_FORMAT. */
MUST_CHECK int vv_nbd_decode_reply(const void *bytes, size_t len,
                                   struct vv_nbd_reply *out_reply);

#endif
