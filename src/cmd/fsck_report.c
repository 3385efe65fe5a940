/* What a check found: noting it, and showing it. */
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "cmd/fsck.h"

static const char *const kind_names[VV_FSCK_KINDS] = {
    [VV_FSCK_OPEN_FAILED] = "open-failed",
    [VV_FSCK_LOG_UNREADABLE] = "log-unreadable",
    [VV_FSCK_RECORDS_UNREADABLE] = "records-unreadable",
    [VV_FSCK_VOLUME_OBJECT] = "volume-object",
    [VV_FSCK_KEYS_OBJECT] = "keys-object",
    [VV_FSCK_PIN_MISSING] = "pin-missing",
    [VV_FSCK_TABLE_MISSING] = "table-missing",
    [VV_FSCK_TABLE_DAMAGED] = "table-damaged",
    [VV_FSCK_RECORD_UNKNOWN] = "record-unknown",
    [VV_FSCK_REPLY_FORMAT] = "reply-format",
    [VV_FSCK_ROOT_MISSING] = "root-missing",
    [VV_FSCK_INODE_FORMAT] = "inode-format",
    [VV_FSCK_INODE_NUMBER] = "inode-number",
    [VV_FSCK_INODE_LINKS] = "inode-links",
    [VV_FSCK_INODE_PARENT] = "inode-parent",
    [VV_FSCK_INODE_LOST] = "inode-lost",
    [VV_FSCK_ENTRY_FORMAT] = "entry-format",
    [VV_FSCK_ENTRY_PAIR] = "entry-pair",
    [VV_FSCK_ENTRY_DANGLING] = "entry-dangling",
    [VV_FSCK_ENTRY_TYPE] = "entry-type",
    [VV_FSCK_ENTRY_PLACE] = "entry-place",
    [VV_FSCK_ENTRY_NOWHERE] = "entry-nowhere",
    [VV_FSCK_DIRECTORY_SIZE] = "directory-size",
    [VV_FSCK_DIRECTORY_COOKIE] = "directory-cookie",
    [VV_FSCK_DIRECTORY_LOOP] = "directory-loop",
    [VV_FSCK_LINK_FORMAT] = "link-format",
    [VV_FSCK_LINK_STRAY] = "link-stray",
    [VV_FSCK_XATTR_STRAY] = "xattr-stray",
    [VV_FSCK_XATTR_COUNT] = "xattr-count",
    [VV_FSCK_ORPHAN_STRAY] = "orphan-stray",
    [VV_FSCK_ORPHAN_MISSING] = "orphan-missing",
    [VV_FSCK_ASIDE] = "aside",
    [VV_FSCK_PARTS_FORMAT] = "parts-format",
    [VV_FSCK_DATA_NUMBER] = "data-number",
    [VV_FSCK_DATA_SHARED] = "data-shared",
    [VV_FSCK_DROP_FORMAT] = "drop-format",
    [VV_FSCK_EXTENT_FORMAT] = "extent-format",
    [VV_FSCK_EXTENT_STRAY] = "extent-stray",
    [VV_FSCK_EXTENT_SEGMENT] = "extent-segment",
    [VV_FSCK_EXTENT_FRAME] = "extent-frame",
    [VV_FSCK_RANGE_FORMAT] = "range-format",
    [VV_FSCK_RANGE_STRAY] = "range-stray",
    [VV_FSCK_ALLOCATION_SUM] = "allocation-sum",
    [VV_FSCK_ALLOCATION_STRAY] = "allocation-stray",
    [VV_FSCK_COMMIT_NUMBER] = "commit-number",
    [VV_FSCK_SEGMENT_FORMAT] = "segment-format",
    [VV_FSCK_SEGMENT_MISSING] = "segment-missing",
    [VV_FSCK_SEGMENT_DIRECTORY] = "segment-directory",
    [VV_FSCK_SEGMENT_TOTAL] = "segment-total",
    [VV_FSCK_SEGMENT_LIVE] = "segment-live",
    [VV_FSCK_FRAME_DAMAGED] = "frame-damaged",
};

const char *vv_fsck_kind_name(enum vv_fsck_kind kind)
{
    return kind < VV_FSCK_KINDS ? kind_names[kind] : "?";
}

void vv_fsck_report_done(struct vv_fsck_report *report)
{
    vv_free(report->problems);
    report->problems = NULL;
    report->kept = 0;
}

void vv_fsck_add(struct vv_fsck_report *report, enum vv_fsck_kind kind, const char *format, ...)
{
    report->problem_count++;
    report->kind_counts[kind]++;
    if (report->problems == NULL)
        report->problems = vv_calloc(VV_FSCK_PROBLEMS_MAX, sizeof *report->problems);
    if (report->problems == NULL || report->kept == VV_FSCK_PROBLEMS_MAX)
        return;
    struct vv_fsck_problem *problem = &report->problems[report->kept++];
    va_list args;
    problem->kind = kind;
    va_start(args, format);
    vsnprintf(problem->text, sizeof problem->text, format, args);
    va_end(args);
    /* Names come from the volume and go to terminals. */
    for (char *at = problem->text; *at != 0; at++) {
        if ((unsigned char)*at < ' ' || (unsigned char)*at >= 0x7f)
            *at = '?';
    }
}

/* The numbers, once for both forms. */
static const struct {
    const char *name;
    const char *label; /* NULL: only in JSON */
    size_t offset;
    bool is_size;
} numbers[] = {
#define NUMBER(field, label)                                                                       \
    {                                                                                              \
#field, label, offsetof(struct vv_fsck_report, field), false                               \
    }
#define BYTES(field, label)                                                                        \
    {                                                                                              \
#field, label, offsetof(struct vv_fsck_report, field), true                                \
    }
    NUMBER(manifest, NULL),
    NUMBER(epoch, NULL),
    NUMBER(last_commit, "last commit"),
    NUMBER(log_objects, "log objects read"),
    NUMBER(tables, "metadata tables"),
    BYTES(table_bytes, "  their size"),
    NUMBER(records, "records"),
    NUMBER(inodes, "inodes"),
    NUMBER(files, "  regular files"),
    NUMBER(directories, "  directories"),
    NUMBER(symlinks, "  symbolic links"),
    NUMBER(others, NULL),
    NUMBER(orphans, "  unlinked, not freed"),
    NUMBER(entries, "directory entries"),
    NUMBER(links, NULL),
    NUMBER(xattrs, "extended attributes"),
    NUMBER(replies, "replies kept"),
    BYTES(file_bytes, "sizes of files"),
    NUMBER(data_ids, NULL),
    NUMBER(drops, NULL),
    NUMBER(extents, "extents"),
    NUMBER(ranges, NULL),
    NUMBER(segments, "segments"),
    BYTES(segment_bytes, "  data held"),
    BYTES(live_bytes, "  data in use"),
    NUMBER(fences, NULL),
    NUMBER(frames_checked, "frames read"),
    BYTES(bytes_checked, "  their size"),
    NUMBER(old_manifests, NULL),
    NUMBER(garbage_objects, "left-over objects"),
    BYTES(garbage_bytes, "  their size"),
    NUMBER(journal_commits, "commits only in journal"),
#undef NUMBER
#undef BYTES
};
#define NUMBER_COUNT (sizeof numbers / sizeof numbers[0])

static uint64_t number_of(const struct vv_fsck_report *report, size_t i)
{
    uint64_t value;
    memcpy(&value, (const char *)report + numbers[i].offset, sizeof value);
    return value;
}

static void set_new(json_t *object, const char *name, json_t *value)
{
    /* Fails for want of memory only; json_dumps then has less to show. */
    if (json_object_set_new(object, name, value) < 0)
        return;
}

static json_t *problems_json(const struct vv_fsck_report *report)
{
    json_t *list = json_array();
    for (size_t i = 0; i < report->kept; i++) {
        json_t *problem = json_object();
        set_new(problem, "kind", json_string(vv_fsck_kind_name(report->problems[i].kind)));
        set_new(problem, "text", json_string(report->problems[i].text));
        if (json_array_append_new(list, problem) < 0)
            break;
    }
    return list;
}

void vv_fsck_report_json(const struct vv_fsck_report *report, const char *url,
                         struct vv_writer *writer)
{
    json_t *object = json_object();
    json_t *kinds = json_object();
    set_new(object, "url", json_string(url));
    set_new(object, "is_clean", json_boolean(report->problem_count == 0));
    set_new(object, "is_complete", json_boolean(!report->is_incomplete));
    if (report->is_incomplete)
        set_new(object, "not_checked", json_string(report->not_checked));
    for (size_t i = 0; i < NUMBER_COUNT; i++)
        set_new(object, numbers[i].name, json_integer((json_int_t)number_of(report, i)));
    set_new(object, "has_journal", json_boolean(report->has_journal));
    set_new(object, "problem_count", json_integer((json_int_t)report->problem_count));
    for (unsigned i = 0; i < VV_FSCK_KINDS; i++) {
        if (report->kind_counts[i] > 0)
            set_new(kinds, kind_names[i], json_integer((json_int_t)report->kind_counts[i]));
    }
    set_new(object, "kinds", kinds);
    set_new(object, "problems", problems_json(report));
    char *text = json_dumps(object, JSON_INDENT(2));
    if (text != NULL) {
        vv_writer_bytes(writer, text, strlen(text));
        vv_writer_bytes(writer, "\n", 1);
    } else {
        writer->is_bad = true;
    }
    free(text);
    json_decref(object);
}

static void print(struct vv_writer *writer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void print(struct vv_writer *writer, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    vv_writer_bytes(writer, line, strlen(line));
}

static void print_numbers(const struct vv_fsck_report *report, struct vv_writer *writer)
{
    for (size_t i = 0; i < NUMBER_COUNT; i++) {
        uint64_t value = number_of(report, i);
        char text[32];
        if (numbers[i].label == NULL)
            continue;
        if (numbers[i].is_size)
            vv_size_to_text(value, text, sizeof text);
        else
            vv_format(text, sizeof text, "%" PRIu64, value);
        print(writer, "  %-24s %s\n", numbers[i].label, text);
    }
}

void vv_fsck_report_text(const struct vv_fsck_report *report, const char *url,
                         struct vv_writer *writer)
{
    for (size_t i = 0; i < report->kept; i++)
        print(writer, "%s: %s\n", vv_fsck_kind_name(report->problems[i].kind),
              report->problems[i].text);
    if (report->problem_count > report->kept)
        print(writer, "... and %" PRIu64 " more\n", report->problem_count - report->kept);
    print(writer, "%s: ", url);
    if (report->problem_count == 0)
        print(writer, "no damage found%s\n",
              report->is_incomplete ? ", but not all was checked" : "");
    else
        print(writer, "DAMAGED, %" PRIu64 " problem%s\n", report->problem_count,
              report->problem_count == 1 ? "" : "s");
    if (report->is_incomplete)
        print(writer, "  not checked: %s\n", report->not_checked);
    print_numbers(report, writer);
    if (report->garbage_objects > 0)
        print(writer, "  (left-over objects are what servers that ended early left: harmless; the next\n"
                      "   one deletes them after its first flush)\n");
    if (report->journal_commits > 0)
        print(writer, "  (what only the journal holds is put into the store by the next serve)\n");
}
