/* The XML documents that S3 servers send, read with expat. They come from outside: no DOCTYPE (so
 * no entities), bounded depth, bounded texts. */
#include <errno.h>
#include <expat.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "store/s3_impl.h"

#define DEPTH_MAX 16
#define ELEMENT_MAX 64  /* an element's name; longer ones are none of ours */
#define TEXT_MAX 8192   /* an element's text: session tokens are the longest */

/* Where the parser stands. `on_end` gets each element that has no children with its text. */
struct reader {
    XML_Parser parser;
    char path[DEPTH_MAX][ELEMENT_MAX];
    int depth;
    char text[TEXT_MAX + 1];
    size_t text_len;
    bool is_long; /* the element's text did not fit */
    int err;
    int (*on_open)(struct reader *reader, const char *name); /* or NULL */
    int (*on_end)(struct reader *reader, const char *name);
    void *arg;
};

static void stop(struct reader *reader, int err)
{
    if (reader->err == 0)
        reader->err = err;
    XML_StopParser(reader->parser, XML_FALSE);
}

/* Without the namespace, which some servers leave out. */
static const char *local_name(const char *name)
{
    const char *colon = strrchr(name, ':');
    return colon ? colon + 1 : name;
}

static void on_start_element(void *arg, const XML_Char *name, const XML_Char **attributes)
{
    struct reader *reader = arg;
    if (reader->depth == DEPTH_MAX) {
        stop(reader, -VV_ERR_FORMAT);
        return;
    }
    name = local_name(name);
    if (vv_copy_text(reader->path[reader->depth], ELEMENT_MAX, name) < 0)
        reader->path[reader->depth][0] = 0;
    reader->depth++;
    reader->text_len = 0;
    reader->is_long = false;
    int err = reader->on_open ? reader->on_open(reader, name) : 0;
    if (err < 0)
        stop(reader, err);
}

static void on_text(void *arg, const XML_Char *text, int len)
{
    struct reader *reader = arg;
    size_t room = TEXT_MAX - reader->text_len;
    size_t taken = (size_t)len < room ? (size_t)len : room;
    reader->is_long |= taken < (size_t)len;
    memcpy(reader->text + reader->text_len, text, taken);
    reader->text_len += taken;
}

static void on_end_element(void *arg, const XML_Char *name)
{
    struct reader *reader = arg;
    reader->text[reader->text_len] = 0;
    reader->depth--;
    int err = reader->on_end(reader, local_name(name));
    reader->text_len = 0;
    if (err < 0)
        stop(reader, err);
}

static void on_doctype(void *arg, const XML_Char *name, const XML_Char *system,
                       const XML_Char *public, int has_subset)
{
    stop(arg, -VV_ERR_FORMAT);
}

/* Is the parent of the element that is ending called so? */
static bool is_in(const struct reader *reader, const char *parent)
{
    return reader->depth > 0 && strcmp(reader->path[reader->depth - 1], parent) == 0;
}

static int read_xml(struct reader *reader, const char *text, size_t len)
{
    static const XML_Memory_Handling_Suite memory = {vv_alloc, vv_realloc, vv_free};
    if (len > VV_HTTP_TEXT_MAX)
        return -VV_ERR_FORMAT;
    reader->parser = XML_ParserCreate_MM(NULL, &memory, NULL);
    if (!reader->parser)
        return -ENOMEM;
    XML_SetUserData(reader->parser, reader);
    XML_SetElementHandler(reader->parser, on_start_element, on_end_element);
    XML_SetCharacterDataHandler(reader->parser, on_text);
    XML_SetStartDoctypeDeclHandler(reader->parser, on_doctype);
    if (XML_Parse(reader->parser, text, (int)len, XML_TRUE) != XML_STATUS_OK && reader->err == 0) {
        bool is_memory = XML_GetErrorCode(reader->parser) == XML_ERROR_NO_MEMORY;
        reader->err = is_memory ? -ENOMEM : -VV_ERR_FORMAT;
    }
    XML_ParserFree(reader->parser);
    return reader->err;
}

/* ---- errors ---- */

static int on_error_end(struct reader *reader, const char *name)
{
    struct vv_s3_message *message = reader->arg;
    /* Cut texts will do: they are for people. */
    if (!is_in(reader, "Error"))
        return 0;
    if (strcmp(name, "Code") == 0)
        (void)vv_copy_text(message->code, sizeof(message->code), reader->text);
    else if (strcmp(name, "Message") == 0)
        (void)vv_copy_text(message->text, sizeof(message->text), reader->text);
    else if (strcmp(name, "Region") == 0)
        (void)vv_copy_text(message->region, sizeof(message->region), reader->text);
    return 0;
}

/* What a server wrote goes into log lines: no control characters. */
static void clean(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = ' ';
    }
}

void vv_s3_parse_error(const char *text, size_t len, struct vv_s3_message *out_message)
{
    struct reader reader = {.on_end = on_error_end, .arg = out_message};
    memset(out_message, 0, sizeof(*out_message));
    if (len > 0 && read_xml(&reader, text, len) < 0 && reader.err != -VV_ERR_FORMAT)
        memset(out_message, 0, sizeof(*out_message));
    clean(out_message->code);
    clean(out_message->text);
    clean(out_message->region);
}

/* ---- one element ---- */

struct find {
    const char *name;
    char *out;
    size_t size;
    bool is_found;
};

static int on_find_end(struct reader *reader, const char *name)
{
    struct find *find = reader->arg;
    if (find->is_found || strcmp(name, find->name) != 0)
        return 0;
    if (reader->is_long || vv_copy_text(find->out, find->size, reader->text) < 0)
        return -EFBIG;
    find->is_found = true;
    return 0;
}

int vv_s3_xml_find(const char *text, size_t len, const char *name, char *out, size_t size)
{
    struct find find = {name, out, size, false};
    struct reader reader = {.on_end = on_find_end, .arg = &find};
    TRY(read_xml(&reader, text, len));
    return find.is_found ? 0 : -ENOENT;
}

/* ---- pages ---- */

struct page_reader {
    struct vv_s3_page *page;
    bool is_list;
    bool has_key; /* the <Contents> that is open had a <Key>; keys[count] is being filled */
};

static int on_page_open(struct reader *reader, const char *name)
{
    struct page_reader *state = reader->arg;
    if (reader->depth == 1)
        state->is_list = strcmp(name, "ListBucketResult") == 0;
    if (reader->depth == 1 && !state->is_list)
        return -VV_ERR_FORMAT;
    if (reader->depth == 2 && strcmp(name, "Contents") == 0)
        state->has_key = false;
    return 0;
}

/* An element of the <Contents> that is open. */
static int on_contents(struct reader *reader, struct page_reader *state, const char *name)
{
    struct vv_s3_page *page = state->page;
    if (strcmp(name, "Size") == 0 && page->count < VV_STORE_LIST_MAX)
        return vv_parse_u64(reader->text, &page->keys[page->count].size) < 0 ? -VV_ERR_FORMAT : 0;
    if (strcmp(name, "Key") != 0)
        return 0;
    if (page->count == VV_STORE_LIST_MAX || state->has_key || reader->is_long)
        return -VV_ERR_FORMAT;
    page->keys[page->count].name = vv_strdup(reader->text);
    state->has_key = true;
    return page->keys[page->count].name ? 0 : -ENOMEM;
}

static int on_page_end(struct reader *reader, const char *name)
{
    struct page_reader *state = reader->arg;
    struct vv_s3_page *page = state->page;
    if (reader->depth == 2 && is_in(reader, "Contents"))
        return on_contents(reader, state, name);
    if (reader->depth != 1)
        return 0;
    if (strcmp(name, "Contents") == 0) {
        if (!state->has_key)
            return -VV_ERR_FORMAT;
        page->count++;
    } else if (strcmp(name, "IsTruncated") == 0) {
        page->is_truncated = strcmp(reader->text, "true") == 0;
    } else if (strcmp(name, "NextContinuationToken") == 0 && !page->token) {
        if (reader->is_long)
            return -VV_ERR_FORMAT;
        page->token = vv_strdup(reader->text);
        return page->token ? 0 : -ENOMEM;
    }
    return 0;
}

int vv_s3_parse_page(const char *text, size_t len, struct vv_s3_page *out_page)
{
    struct page_reader state = {.page = out_page};
    struct reader reader = {.on_open = on_page_open, .on_end = on_page_end, .arg = &state};
    memset(out_page, 0, sizeof(*out_page));
    TRY(read_xml(&reader, text, len));
    return state.is_list ? 0 : -VV_ERR_FORMAT;
}

void vv_s3_page_done(struct vv_s3_page *page)
{
    for (size_t i = 0; i < VV_STORE_LIST_MAX; i++)
        vv_free(page->keys[i].name);
    vv_free(page->token);
    memset(page, 0, sizeof(*page));
}
