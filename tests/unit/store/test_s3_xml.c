#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "store/s3_impl.h"
#include "tap.h"

static struct vv_s3_page page;

static int parse(const char *text)
{
    return vv_s3_parse_page(text, strlen(text), &page);
}

static void test_page(void)
{
    tap_is_int(parse("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult xmlns='u'>"
                     "<Name>b</Name><Prefix/><IsTruncated> </IsTruncated>"
                     "<Contents><Key>a&amp;b</Key><Owner><Key>no</Key></Owner><Size>12</Size>"
                     "</Contents><CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes>"
                     "<Contents><Size>3</Size><Key>c</Key></Contents>"
                     "<IsTruncated>true</IsTruncated><NextContinuationToken>t/+=</"
                     "NextContinuationToken></ListBucketResult>"), 0, "a page");
    tap_is_int((int64_t)page.count, 2, "two keys");
    tap_is_str(page.keys[0].name, "a&b", "the first");
    tap_is_int((int64_t)page.keys[0].size, 12, "its size");
    tap_is_str(page.keys[1].name, "c", "the second");
    tap_ok(page.is_truncated, "there is more");
    tap_is_str(page.token, "t/+=", "where");
    vv_s3_page_done(&page);
    static const char *const wrong[] = {
        "", " ", "text", "<a/>", "<ListBucketResult>", "<ListBucketResult></b>",
        "<!DOCTYPE x []><ListBucketResult/>",
        "<!DOCTYPE x [<!ENTITY e 'eeee'>]><ListBucketResult>&e;</ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Key>b</Key></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Size>-1</Size></Contents></ListBucketResult>",
        "<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        tap_is_int(parse(wrong[i]), -VV_ERR_FORMAT, "wrong document %zu", i);
        vv_s3_page_done(&page);
    }
}

static void test_bounds(void)
{
    size_t size = 200000;
    char *text = malloc(size);
    size_t n = (size_t)sprintf(text, "<ListBucketResult>");
    for (int i = 0; i < VV_STORE_LIST_MAX + 1; i++)
        n += (size_t)sprintf(text + n, "<Contents><Key>k%d</Key></Contents>", i);
    sprintf(text + n, "</ListBucketResult>");
    tap_is_int(parse(text), -VV_ERR_FORMAT, "more keys than a page has");
    vv_s3_page_done(&page);
    n = (size_t)sprintf(text, "<ListBucketResult><Contents><Key>");
    memset(text + n, 'x', 10000);
    sprintf(text + n + 10000, "</Key></Contents></ListBucketResult>");
    tap_is_int(parse(text), -VV_ERR_FORMAT, "a key that is too long");
    vv_s3_page_done(&page);
    memset(text, ' ', size);
    memcpy(text, "<ListBucketResult>", 18);
    memset(text + 18, '<', 1000);
    tap_is_int(vv_s3_parse_page(text, size, &page), -VV_ERR_FORMAT, "rubbish");
    vv_s3_page_done(&page);
    free(text);
}

static void test_error(void)
{
    struct vv_s3_message message;
    const char *text = "<Error><Code>NoSuchKey</Code><Message>it is\ngone</Message>"
                       "<Region>eu</Region><Resource>/x</Resource></Error>";
    vv_s3_parse_error(text, strlen(text), &message);
    tap_is_str(message.code, "NoSuchKey", "a code");
    tap_is_str(message.text, "it is gone", "a text, of one line");
    tap_is_str(message.region, "eu", "a region");
    text = "<ErrorResponse><Error><Code>Deep</Code></Error></ErrorResponse>";
    vv_s3_parse_error(text, strlen(text), &message);
    tap_is_str(message.code, "Deep", "as STS has it");
    text = "<html><body>Bad Gateway</body></html>";
    vv_s3_parse_error(text, strlen(text), &message);
    tap_is_str(message.code, "", "none");
    vv_s3_parse_error("", 0, &message);
    tap_is_str(message.code, "", "nothing");
    char out[8] = "";
    text = "<a><b>12345678</b><c>1</c></a>";
    tap_is_int(vv_s3_xml_find(text, strlen(text), "c", out, sizeof(out)), 0, "an element");
    tap_is_str(out, "1", "its text");
    tap_is_int(vv_s3_xml_find(text, strlen(text), "d", out, sizeof(out)), -ENOENT, "none");
    tap_is_int(vv_s3_xml_find(text, strlen(text), "b", out, sizeof(out)), -EFBIG, "too long");
}

static void test_no_memory(void)
{
    const char *text = "<ListBucketResult><Contents><Key>a</Key></Contents>"
                       "<NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
    int err = -ENOMEM;
    int n = 0;
    for (; err < 0 && n < 200; n++) {
        vv_alloc_fail_at(n, false);
        err = parse(text);
        vv_alloc_fail_at(-1, false);
        if (err < 0 && err != -ENOMEM)
            tap_is_int(err, -ENOMEM, "allocation %d", n);
        vv_s3_page_done(&page);
    }
    tap_ok(err == 0 && n > 3, "allocations failed one by one (%d)", n);
}

int main(void)
{
    vv_alloc_track(true);
    test_page();
    test_bounds();
    test_error();
    test_no_memory();
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
